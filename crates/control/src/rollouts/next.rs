//! What happens next to a rollout, in a sentence, and what a person may say to it. Pure.

use crate::inventory::told::{at, long};
use api::rollout::RolloutCommand;
use rollout::{Phase, Plan, Stage, State, Why};

/// What happens next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// `None`: nothing does by itself, and nobody is waited for.
    pub sentence: Option<String>,
    /// When, in milliseconds since 1970, if a clock decides it.
    pub at_ms: Option<u64>,
}

pub fn next(plan: &Plan, state: &State) -> Next {
    let (sentence, at_ms) = match &state.phase {
        _ if state.held => (waits(state), None),
        Phase::Planned => ("waits for a person: start or abort".to_owned(), None),
        Phase::Running { stage } => running(plan, state, stage),
        Phase::Paused { .. } => (waits(state), None),
        Phase::Halted { why } if plan.back.by_itself && *why != Why::Person => {
            ("is taken back by itself, as it was ordered".to_owned(), None)
        }
        Phase::Halted { .. } => (waits(state), None),
        Phase::Reverting { wave, of, last } => reverting(plan, state, *wave, *of, last.is_some()),
        Phase::Completed | Phase::Reverted | Phase::Aborted => return Next::default(),
    };
    Next { sentence: Some(sentence), at_ms }
}

/// What a person may say to it from where it stands: what would be refused is not among them.
pub fn commands(state: &State) -> Vec<RolloutCommand> {
    use RolloutCommand::{Abort, Halt, Pause, Resume, Revert, Start};
    let mut commands = match state.phase {
        Phase::Planned => vec![Start, Abort],
        Phase::Running { .. } => vec![Pause, Halt, Abort],
        Phase::Paused { .. } => vec![Resume, Halt, Abort],
        Phase::Halted { .. } => vec![Revert, Abort],
        Phase::Reverting { .. } => vec![Abort],
        Phase::Completed => vec![Revert],
        Phase::Reverted | Phase::Aborted => vec![],
    };
    // A person says that what is known here holds still.
    if state.held && !commands.contains(&Resume) {
        commands.insert(0, Resume);
    }
    commands
}

fn waits(state: &State) -> String {
    let words: Vec<_> = commands(state).into_iter().map(RolloutCommand::as_str).collect();
    match words.as_slice() {
        [] => "waits for nobody".to_owned(),
        [one] => format!("waits for a person: {one}"),
        [rest @ .., last] => format!("waits for a person: {} or {last}", rest.join(", ")),
    }
}

fn running(plan: &Plan, state: &State, stage: &Stage) -> (String, Option<u64>) {
    let wave = state.wave + 1;
    match stage {
        Stage::Opening => {
            let size = size(plan, state.wave);
            (format!("wave {wave} ({size}) opens when the cohort has been gone through"), None)
        }
        Stage::Installing => installing(plan, state),
        Stage::Soaking { until } => {
            let then = gate(plan, state.wave);
            (format!("wave {wave} soaks until {}, then {then}", at(until.0)), Some(until.0))
        }
        Stage::Asking { again } => {
            let then = passed(plan, state.wave);
            let signals = counted(plan.signals.len() as u64, "signal");
            let until = at(again.0);
            let sentence = format!(
                "its gate asks {signals}: when each is within its limit, {then}; without an answer it asks again at {until}"
            );
            (sentence, Some(again.0))
        }
    }
}

fn installing(plan: &Plan, state: &State) -> (String, Option<u64>) {
    let counts = &state.counts;
    let members = state.opened.last().map_or(0, |opened| opened.members);
    let (wanted, good) = (plan.quorum.of(members), counts.good());
    let absent = members.saturating_sub(counts.known());
    let wave = state.wave + 1;
    let then = match plan.waves[state.wave].soak_ms {
        0 => gate(plan, state.wave),
        soak_ms => format!("it soaks for {}", long(soak_ms)),
    };
    let mut sentence = format!(
        "when {wanted} of the {members} of wave {wave} have proven it ({good} have so far) and each has shown an outcome, {then}"
    );
    if counts.issued > 0 {
        sentence += &format!("; {} under way", are(counts.issued));
    }
    // Whose leave is out has a time of his own; who has not come for one is waited for until here.
    let deadline = state.opened_at.after_ms(plan.come_within_ms).0;
    if absent == 0 {
        return (sentence, None);
    }
    sentence += &format!("; who has not come by {} is not waited for", at(deadline));
    (sentence, Some(deadline))
}

/// What follows a soak.
fn gate(plan: &Plan, wave: usize) -> String {
    match plan.signals.len() as u64 {
        0 => passed(plan, wave),
        signals => format!("its gate asks {}", counted(signals, "signal")),
    }
}

/// What follows a gate that passes.
fn passed(plan: &Plan, wave: usize) -> String {
    if wave + 1 == plan.waves.len() {
        return "it is complete".to_owned();
    }
    format!("wave {} ({}) opens", wave + 2, size(plan, wave + 1))
}

fn size(plan: &Plan, wave: usize) -> String {
    let wave = &plan.waves[wave];
    let devices = wave.share.of(plan.cohort).min(wave.count_max.unwrap_or(u64::MAX));
    counted(devices, "device")
}

fn reverting(
    plan: &Plan,
    state: &State,
    wave: usize,
    of: u64,
    is_open: bool,
) -> (String, Option<u64>) {
    let waves = plan.back.waves.len();
    let number = wave + 1;
    if !is_open {
        return (
            format!("wave {number} of {waves} back opens when permits have been gone through"),
            None,
        );
    }
    let left = state.counts.to_go_back();
    let wanted = plan.back.waves[wave].of(of);
    let gone = of.saturating_sub(left);
    let then = if number == waves {
        "it is reverted".to_owned()
    } else {
        format!("wave {} back opens", number + 1)
    };
    let deadline = state.opened_at.after_ms(plan.come_within_ms).after_ms(plan.prove_within_ms).0;
    let sentence = format!(
        "when {wanted} of {of} have gone back ({gone} have so far), {then}; nobody is waited for beyond {}",
        at(deadline)
    );
    (sentence, Some(deadline))
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn are(count: u64) -> String {
    if count == 1 { "1 is".to_owned() } else { format!("{count} are") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollouts::told;
    use model::{Digest, ProductId, RolloutId, Version};
    use rollout::{
        Back, Draft, Effect, Event, Happened, Limit, Moment, Opened, Position, Share, Signal, Wave,
        step,
    };

    /// Thirty devices in two waves, three and all; both soak, and a gate asks one signal.
    fn plan(by_itself: bool, signals: usize) -> Plan {
        let signal =
            |n| Signal { name: format!("s{n}"), sql: "select 1".into(), limit: Limit::AtMost(1.0) };
        Plan::new(Draft {
            rollout: RolloutId::new("r-1").unwrap(),
            generation: 1,
            product: ProductId::new("pump-app").unwrap(),
            version: Version::new(1, 1, 0),
            digest: Digest([2; 32]),
            cohort: 30,
            waves: vec![
                Wave { share: Share::percent(10).unwrap(), count_max: None, soak_ms: 600_000 },
                Wave { share: Share::ALL, count_max: None, soak_ms: 0 },
            ],
            bound: 30,
            prove_within_ms: 3_600_000,
            come_within_ms: 86_400_000,
            success_min: Share::percent(90).unwrap(),
            quorum: Share::percent(90).unwrap(),
            signals: (0..signals).map(signal).collect(),
            ask_again_ms: 60_000,
            back: Back {
                by_itself,
                waves: vec![Share::percent(50).unwrap(), Share::ALL],
                at_a_time: 30,
            },
        })
        .unwrap()
    }

    /// 2026-11-21 22:30 UTC.
    const T: u64 = 1_795_300_200_000;

    fn state(phase: Phase) -> State {
        State { phase, opened_at: Moment(T), ..State::new() }
    }

    fn installing(wave: usize, members: u64, counts: rollout::Counts) -> State {
        let mut state = state(Phase::Running { stage: Stage::Installing });
        state.wave = wave;
        state.opened = vec![Opened { members, last: Position::LAST }; wave + 1];
        state.counts = counts;
        state
    }

    fn phases() -> Vec<Phase> {
        let stages = [
            Stage::Opening,
            Stage::Installing,
            Stage::Soaking { until: Moment(T) },
            Stage::Asking { again: Moment(T) },
        ];
        let running = stages.clone().into_iter().map(|stage| Phase::Running { stage });
        let paused = stages.into_iter().map(|stage| Phase::Paused { stage });
        let whys = [Why::Person, Why::Signal { name: "s0".into() }];
        let halted = whys.into_iter().map(|why| Phase::Halted { why });
        let lasts = [None, Some(Position::LAST)];
        let reverting = lasts.into_iter().map(|last| Phase::Reverting { wave: 0, of: 10, last });
        let rest = [Phase::Planned, Phase::Completed, Phase::Reverted, Phase::Aborted];
        running.chain(paused).chain(halted).chain(reverting).chain(rest).collect()
    }

    /// What is offered is what the rollout itself takes: it is asked for each command in each phase.
    #[test]
    fn the_commands_that_are_offered_are_those_that_are_not_refused() {
        let plan = plan(false, 1);
        for (phase, held) in
            phases().into_iter().flat_map(|phase| [(phase.clone(), false), (phase, true)])
        {
            let never_held = matches!(
                phase,
                Phase::Planned | Phase::Completed | Phase::Aborted | Phase::Running { .. }
            );
            if held && never_held {
                continue;
            }
            let mut state = installing(0, 3, rollout::Counts::default());
            (state.phase, state.held) = (phase, held);
            let offered = commands(&state);
            for word in RolloutCommand::ALL {
                let event = Event::Command(told::command(word));
                let (_, effects) = step(&plan, state.clone(), event, Moment(T));
                let refused =
                    |effect: &Effect| matches!(effect, Effect::Happened(Happened::Refused { .. }));
                let is_refused = effects.iter().any(refused);
                assert_eq!(
                    offered.contains(&word),
                    !is_refused,
                    "{word:?} {:?} held {held}",
                    state.phase
                );
            }
        }
    }

    #[test]
    fn each_phase_and_stage_says_what_happens_next_and_when() {
        let counts = |issued, proven, failed| rollout::Counts {
            issued,
            proven,
            failed,
            ..rollout::Counts::default()
        };
        let running = |stage| state(Phase::Running { stage });
        let mut last_soak = running(Stage::Soaking { until: Moment(T) });
        last_soak.wave = 1;
        let mut held = state(Phase::Paused { stage: Stage::Installing });
        held.held = true;
        let mut held_halt = state(Phase::Halted { why: Why::Person });
        held_halt.held = true;
        let mut back = state(Phase::Reverting { wave: 1, of: 10, last: Some(Position::LAST) });
        back.counts = rollout::Counts { back: 2, went_back: 8, ..rollout::Counts::default() };
        let halted = || state(Phase::Halted { why: Why::Signal { name: "s0".into() } });
        let (day, both) = (T + 86_400_000, T + 90_000_000);
        let table: [(State, bool, usize, &str, Option<u64>); 19] = [
            (state(Phase::Planned), false, 1, "waits for a person: start or abort", None),
            (
                running(Stage::Opening),
                false,
                1,
                "wave 1 (3 devices) opens when the cohort has been gone through",
                None,
            ),
            (
                installing(0, 3, counts(1, 1, 0)),
                false,
                1,
                "when 3 of the 3 of wave 1 have proven it (1 have so far) and each has shown an outcome, it soaks for \
                 10 minutes; 1 is under way; who has not come by 2026-11-22 22:30 UTC is not waited for",
                Some(day),
            ),
            (
                installing(1, 30, counts(0, 29, 1)),
                false,
                1,
                "when 27 of the 30 of wave 2 have proven it (29 have so far) and each has shown an outcome, its gate \
                 asks 1 signal",
                None,
            ),
            (
                installing(1, 30, counts(2, 21, 0)),
                false,
                0,
                "when 27 of the 30 of wave 2 have proven it (21 have so far) and each has shown an outcome, it is \
                 complete; 2 are under way; who has not come by 2026-11-22 22:30 UTC is not waited for",
                Some(day),
            ),
            (
                running(Stage::Soaking { until: Moment(T) }),
                false,
                1,
                "wave 1 soaks until 2026-11-21 22:30 UTC, then its gate asks 1 signal",
                Some(T),
            ),
            (
                running(Stage::Soaking { until: Moment(T) }),
                false,
                0,
                "wave 1 soaks until 2026-11-21 22:30 UTC, then wave 2 (30 devices) opens",
                Some(T),
            ),
            (
                last_soak,
                false,
                0,
                "wave 2 soaks until 2026-11-21 22:30 UTC, then it is complete",
                Some(T),
            ),
            (
                running(Stage::Asking { again: Moment(T) }),
                false,
                2,
                "its gate asks 2 signals: when each is within its limit, wave 2 (30 devices) opens; without an answer it \
                 asks again at 2026-11-21 22:30 UTC",
                Some(T),
            ),
            (
                state(Phase::Paused { stage: Stage::Opening }),
                false,
                1,
                "waits for a person: resume, halt or abort",
                None,
            ),
            (held, false, 1, "waits for a person: resume, halt or abort", None),
            (halted(), false, 1, "waits for a person: revert or abort", None),
            (halted(), true, 1, "is taken back by itself, as it was ordered", None),
            (
                state(Phase::Halted { why: Why::Person }),
                true,
                1,
                "waits for a person: revert or abort",
                None,
            ),
            (held_halt, true, 1, "waits for a person: resume, revert or abort", None),
            (
                state(Phase::Reverting { wave: 0, of: 10, last: None }),
                false,
                1,
                "wave 1 of 2 back opens when permits have been gone through",
                None,
            ),
            (
                back,
                false,
                1,
                "when 10 of 10 have gone back (8 have so far), it is reverted; nobody is waited for beyond 2026-11-22 \
                 23:30 UTC",
                Some(both),
            ),
            (state(Phase::Completed), false, 1, "", None),
            (state(Phase::Aborted), false, 1, "", None),
        ];
        for (state, by_itself, signals, expected, at_ms) in table {
            let next = next(&plan(by_itself, signals), &state);
            let sentence = next.sentence.clone().unwrap_or_default();
            assert_eq!((sentence.as_str(), next.at_ms), (expected, at_ms), "{:?}", state.phase);
        }
    }
}
