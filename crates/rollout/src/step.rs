//! The one function by which a rollout moves.
//!
//! Who calls it hands in what the store holds (state, and the permit of the device that the event is about), and writes
//! what comes out (state, permits) in one transaction on the condition that `revision` is still what was read. What is
//! refused by that condition has not happened: read again, step again. Effects beside permits are carried out after the
//! commit; what was lost on the way to them is in [`pending`].

use crate::Moment;
use crate::order::{Opened, Position};
use crate::permit::{Known, Permit, Report};
use crate::plan::Plan;
use crate::state::{Named, Phase, Stage, State, Why};
use model::{DeviceId, Digest};
use serde::Serialize;

/// What a person may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Start,
    Pause,
    Resume,
    Halt,
    Revert,
    Abort,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Command(Command),
    /// Something proves that devices were told more than is known here: a registry was restored from a backup.
    Hold,
    /// The pass over the cohort is done, for this wave.
    Opened {
        wave: usize,
        opened: Opened,
    },
    /// The pass over the permits that have to go back is done, for this wave back.
    OpenedBack {
        wave: usize,
        last: Position,
    },
    CheckedIn(CheckIn),
    /// A permit's `due` is past.
    Overdue {
        device: DeviceId,
        permit: Permit,
    },
    /// What the gate's signals came to, in the plan's order, for this question.
    Answered {
        question: u64,
        answers: Vec<Answer>,
    },
    /// Time has passed: [`wake`] says when to say so.
    Tick,
}

/// A device has shown its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckIn {
    pub device: DeviceId,
    /// `Position::of` the rollout and the device.
    pub position: Position,
    /// When it joined the cohort.
    pub joined: Moment,
    /// The row that the store has of it.
    pub permit: Option<Permit>,
    pub report: Report,
}

/// What a signal's question came to. Only a number can pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Number(f64),
    /// No row, or no value in it.
    Empty,
    /// The question was refused, or ran out of its bounds.
    Failed,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Written together with the state, or not at all.
    Save { device: DeviceId, permit: Permit },
    /// Make the pass over the cohort ([`crate::open`]) and say what it came to.
    Open { wave: usize, count: u64 },
    /// Make the pass over the positions of all permits but those that are `had` or `failed`, and say where the first
    /// `count` of them end.
    OpenBack { wave: usize, count: u64 },
    /// Ask the plan's signals, and say what they came to.
    Ask { question: u64 },
    /// From now on every lease names this rollout as halted.
    Halt,
    /// For the evidence log.
    Happened(Happened),
}

/// What an auditor reads.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// A command was carried out.
    Did {
        command: Command,
    },
    /// It waits for a person: what is known here may be older than what devices were told.
    Held,
    /// A command was refused, since the rollout stood there (INV-STATE-1).
    Refused {
        command: Command,
        phase: Named,
    },
    WaveOpened {
        wave: usize,
        members: u64,
    },
    /// Every device of the wave has an outcome, or those who came have.
    WaveInstalled {
        wave: usize,
        good: u64,
        failed: u64,
        silent: u64,
        absent: u64,
    },
    GatePassed {
        wave: usize,
    },
    /// A signal gave no number. It is asked again, and until then nothing goes on.
    GateHeld {
        wave: usize,
        signal: String,
    },
    SignalBeyond {
        wave: usize,
        signal: String,
        found: f64,
    },
    Halted {
        why: Why,
    },
    RevertBegan {
        devices: u64,
    },
    BackWaveOpened {
        wave: usize,
    },
    /// Nobody is waited for any more; so many have, or might have, the release still.
    Reverted {
        left: u64,
    },
    Completed,
}

/// What the Director says to a device on behalf of this rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing: it keeps what it runs.
    Stay,
    Install(Digest),
    /// Ordered outside the rollout's own id, which leases name as halted by then.
    GoBack(Digest),
}

/// What a device is told. A device without a permit is told nothing, and nobody is while the rollout is held: he may have
/// gone on to what is not known here.
pub fn order(plan: &Plan, state: &State, permit: Option<&Permit>) -> Order {
    use Phase::{Paused, Reverted, Reverting, Running};
    let Some(permit) = permit.filter(|_| !state.held) else { return Order::Stay };
    match (&state.phase, permit.known) {
        (Running { .. } | Paused { .. }, Known::Issued { .. } | Known::Silent) => {
            Order::Install(plan.digest)
        }
        (Reverting { .. } | Reverted, Known::Back { .. } | Known::BackSilent | Known::Stuck) => {
            Order::GoBack(permit.was)
        }
        _ => Order::Stay,
    }
}

/// Moves a rollout by one event. A state that comes back with the same `revision` is the same state.
pub fn step(plan: &Plan, state: State, event: Event, now: Moment) -> (State, Vec<Effect>) {
    let before = state.clone();
    let mut step = Step { plan, state, effects: Vec::new() };
    step.state.seen = now.max(before.seen);
    step.on(event);
    step.judge();
    let Step { mut state, effects, .. } = step;
    // That time has passed is worth no write by itself.
    let seen = std::mem::replace(&mut state.seen, before.seen);
    if state != before || effects.iter().any(|effect| matches!(effect, Effect::Save { .. })) {
        state.seen = seen;
        state.revision += 1;
    }
    (state, effects)
}

/// When a tick may next change something. Permits have times of their own: their `due`.
pub fn wake(plan: &Plan, state: &State) -> Option<Moment> {
    match &state.phase {
        _ if state.held => None,
        Phase::Running { stage } => match stage {
            Stage::Opening => None,
            Stage::Installing => Some(state.opened_at.after_ms(plan.come_within_ms)),
            Stage::Soaking { until } => Some(*until),
            Stage::Asking { again } => Some(*again),
        },
        Phase::Halted { why } if plan.back.by_itself && *why != Why::Person => Some(state.seen),
        Phase::Reverting { last: Some(_), .. } => Some(back_deadline(plan, state)),
        _ => None,
    }
}

/// What is under way and may have been lost with the process that was about it. Each may be done twice.
pub fn pending(plan: &Plan, state: &State) -> Vec<Effect> {
    let mut effects = Vec::new();
    if state.is_halted() {
        effects.push(Effect::Halt);
    }
    match &state.phase {
        _ if state.held => {}
        Phase::Running { stage: Stage::Opening } => effects.push(open(plan, state)),
        Phase::Running { stage: Stage::Asking { .. } } => {
            effects.push(Effect::Ask { question: state.question });
        }
        Phase::Reverting { wave, of, last: None } => effects.push(open_back(plan, *wave, *of)),
        _ => {}
    }
    effects
}

fn open(plan: &Plan, state: &State) -> Effect {
    Effect::Open { wave: state.wave, count: plan.count(state.wave) }
}

fn open_back(plan: &Plan, wave: usize, of: u64) -> Effect {
    Effect::OpenBack { wave, count: plan.back.waves[wave].of(of) }
}

/// Who has not gone back by then is not waited for: he has had his time to come, and his time to do it.
fn back_deadline(plan: &Plan, state: &State) -> Moment {
    state.opened_at.after_ms(plan.come_within_ms).after_ms(plan.prove_within_ms)
}

struct Step<'a> {
    plan: &'a Plan,
    state: State,
    effects: Vec<Effect>,
}

impl Step<'_> {
    fn on(&mut self, event: Event) {
        match event {
            Event::Command(command) => self.command(command),
            Event::Hold => self.hold(),
            Event::Opened { wave, opened } => self.opened(wave, opened),
            Event::OpenedBack { wave, last } => self.opened_back(wave, last),
            Event::CheckedIn(check_in) => self.checked_in(check_in),
            Event::Overdue { device, permit } => self.overdue(device, permit),
            Event::Answered { question, answers } => self.answered(question, &answers),
            Event::Tick => self.tick(),
        }
    }

    fn happened(&mut self, what: Happened) {
        self.effects.push(Effect::Happened(what));
    }

    fn command(&mut self, command: Command) {
        let phase = self.state.phase.clone();
        let to = match (command, &phase) {
            (Command::Start, Phase::Planned) => Phase::Running { stage: Stage::Opening },
            (Command::Pause, Phase::Running { stage }) => Phase::Paused { stage: stage.clone() },
            (Command::Resume, Phase::Paused { stage }) => Phase::Running { stage: stage.clone() },
            // A person has looked: what is known here still holds.
            (Command::Resume, as_before) if self.state.held => as_before.clone(),
            (Command::Halt, Phase::Running { .. } | Phase::Paused { .. }) => {
                Phase::Halted { why: Why::Person }
            }
            (Command::Revert, Phase::Halted { .. } | Phase::Completed) => {
                Phase::Reverting { wave: 0, of: self.state.counts.to_go_back(), last: None }
            }
            (
                Command::Abort,
                Phase::Planned
                | Phase::Running { .. }
                | Phase::Paused { .. }
                | Phase::Halted { .. }
                | Phase::Reverting { .. },
            ) => Phase::Aborted,
            _ => return self.happened(Happened::Refused { command, phase: phase.name() }),
        };
        self.happened(Happened::Did { command });
        let was_held = std::mem::take(&mut self.state.held);
        match (command, &to) {
            (Command::Start, _) => self.state.started = self.state.seen,
            // Devices come for their permits again from now on.
            (Command::Resume, Phase::Running { stage: Stage::Installing }) => {
                self.state.opened_at = self.state.seen;
            }
            // So does who was on the way back: nobody was told while it was held.
            (Command::Resume, Phase::Reverting { last: Some(_), .. }) => {
                self.state.opened_at = self.state.seen;
            }
            _ => {}
        }
        match to {
            to if command == Command::Resume && was_held && to == phase => {
                self.effects.extend(pending(self.plan, &self.state));
            }
            Phase::Halted { why } => self.halt(why),
            Phase::Reverting { of, .. } => self.revert(of),
            to => {
                self.state.go(to);
                // What a start or a resume has to do, and that leases name what was aborted.
                self.effects.extend(pending(self.plan, &self.state));
            }
        }
    }

    /// Whoever might still be told something on behalf of it is told nothing until a person has looked (INV-FRESH-1).
    fn hold(&mut self) {
        let phase = match self.state.phase.clone() {
            Phase::Planned | Phase::Completed | Phase::Aborted => return,
            _ if self.state.held => return,
            Phase::Running { stage } => Phase::Paused { stage },
            as_before => as_before,
        };
        self.state.go(phase);
        self.state.held = true;
        self.happened(Happened::Held);
    }

    fn halt(&mut self, why: Why) {
        self.happened(Happened::Halted { why: why.clone() });
        self.state.go(Phase::Halted { why });
        self.effects.push(Effect::Halt);
    }

    fn revert(&mut self, of: u64) {
        self.happened(Happened::RevertBegan { devices: of });
        // Where nobody has to go back there is no pass to make.
        let last = (of == 0).then_some(Position::LAST);
        self.state.go(Phase::Reverting { wave: 0, of, last });
        self.effects.extend(pending(self.plan, &self.state));
    }

    fn opened(&mut self, wave: usize, opened: Opened) {
        // Late, or not what was asked for: then it is asked for again.
        let is_opening = self.state.phase.stage() == Some(&Stage::Opening);
        let fits = |members| (1..=self.plan.count(wave)).contains(&members);
        // The wave is compared before its count is looked for: another one may not exist.
        if !is_opening || wave != self.state.wave || !fits(opened.members) {
            return;
        }
        let (Phase::Running { stage } | Phase::Paused { stage }) = &mut self.state.phase else {
            unreachable!("it has a stage")
        };
        *stage = Stage::Installing;
        let last = if self.plan.is_for_all(wave) { Position::LAST } else { opened.last };
        // A cohort that has shrunk takes nobody out of a wave that he was in.
        let opened = match self.state.opened.last() {
            Some(before) => {
                Opened { members: opened.members.max(before.members), last: last.max(before.last) }
            }
            None => Opened { last, ..opened },
        };
        self.state.opened.push(opened);
        self.state.opened_at = self.state.seen;
        self.happened(Happened::WaveOpened { wave, members: opened.members });
    }

    fn opened_back(&mut self, number: usize, at: Position) {
        let Phase::Reverting { wave, last, .. } = &mut self.state.phase else { return };
        if last.is_some() || *wave != number {
            return;
        }
        let is_last = number + 1 == self.plan.back.waves.len();
        *last = Some(if is_last { Position::LAST } else { at });
        self.state.opened_at = self.state.seen;
        self.happened(Happened::BackWaveOpened { wave: number });
    }

    fn checked_in(&mut self, check_in: CheckIn) {
        let CheckIn { device, position, joined, permit, report } = check_in;
        let Some(permit) = permit else {
            if let Some(known) = self.first(position, joined, &report) {
                *self.state.counts.of(known) += 1;
                let permit = Permit { known, was: report.running, heard: report.number };
                self.effects.push(Effect::Save { device, permit });
            }
            return;
        };
        // A word that was overtaken by a newer one says nothing.
        if report.number <= permit.heard {
            return;
        }
        let shown = self.shown(permit.known, &report);
        let known = self.back(shown, position, &report).unwrap_or(shown);
        self.moves(device, permit, known, report.number);
    }

    /// What becomes of a device that has no permit. `None`: nothing yet.
    ///
    /// This is the only place where a permit is issued. It asks for a rollout that runs (INV-ROLL-1) and for room below
    /// the bound (INV-ROLL-2).
    fn first(&self, position: Position, joined: Moment, report: &Report) -> Option<Known> {
        let Phase::Running { stage: Stage::Installing } = self.state.phase else { return None };
        let wave = self.state.opened.last().expect("who installs has opened a wave");
        let is_in_time = joined <= self.state.started || self.plan.is_for_all(self.state.wave);
        if position > wave.last || !is_in_time {
            return None;
        }
        if report.running == self.plan.digest {
            // On trial: somebody installed it by hand a moment ago. It will be confirmed, or not.
            return report.confirmed.then_some(Known::Had);
        }
        let has_room = self.state.counts.outstanding() < self.plan.bound;
        let due = self.state.seen.after_ms(self.plan.prove_within_ms);
        has_room.then_some(Known::Issued { due })
    }

    /// What a report says of a device, whatever the phase: facts are facts in a halted rollout too.
    fn shown(&self, known: Known, report: &Report) -> Known {
        let has_it = report.running == self.plan.digest;
        match known {
            Known::Issued { .. } | Known::Silent | Known::Failed if has_it && report.confirmed => {
                Known::Proven
            }
            Known::Issued { .. } | Known::Silent if report.failed && !has_it => Known::Failed,
            Known::Proven if !has_it => Known::Failed,
            Known::Back { .. } | Known::BackSilent | Known::Stuck
                if !has_it && report.confirmed =>
            {
                Known::WentBack
            }
            Known::Back { .. } | Known::BackSilent if has_it && report.failed => Known::Stuck,
            as_before => as_before,
        }
    }

    /// What a rollout that is taken back makes of a device. `None`: nothing.
    fn back(&self, known: Known, position: Position, report: &Report) -> Option<Known> {
        let last = match self.state.phase {
            _ if self.state.held => return None,
            Phase::Reverting { last, .. } => last?,
            Phase::Reverted => Position::LAST,
            _ => return None,
        };
        let has_it = report.running == self.plan.digest;
        match known {
            // It never installed, and its leave is over.
            Known::Issued { .. } | Known::Silent if !has_it && report.confirmed => {
                Some(Known::WentBack)
            }
            // Whatever was known of it: it has the release and gives it up.
            Known::Issued { .. }
            | Known::Silent
            | Known::Proven
            | Known::Failed
            | Known::WentBack
                if has_it
                    && position <= last
                    && self.state.counts.back < self.plan.back.at_a_time =>
            {
                let due = self.state.seen.after_ms(self.plan.prove_within_ms);
                Some(Known::Back { due })
            }
            _ => None,
        }
    }

    fn overdue(&mut self, device: DeviceId, permit: Permit) {
        let (due, known) = match permit.known {
            Known::Issued { due } => (due, Known::Silent),
            Known::Back { due } => (due, Known::BackSilent),
            _ => return,
        };
        // Who is told nothing is not silent.
        if due <= self.state.seen && !self.state.held {
            let heard = permit.heard;
            self.moves(device, permit, known, heard);
        }
    }

    fn moves(&mut self, device: DeviceId, permit: Permit, known: Known, heard: u64) {
        if known == permit.known {
            return;
        }
        let left = self.state.counts.of(permit.known);
        *left = left.checked_sub(1).expect("a permit that is kept was counted");
        *self.state.counts.of(known) += 1;
        self.effects.push(Effect::Save { device, permit: Permit { known, heard, ..permit } });
    }

    fn answered(&mut self, question: u64, answers: &[Answer]) {
        let Phase::Running { stage: Stage::Asking { .. } } = self.state.phase else { return };
        if question != self.state.question || answers.len() != self.plan.signals.len() {
            return;
        }
        let wave = self.state.wave;
        let mut held = false;
        let plan = self.plan;
        for (signal, answer) in plan.signals.iter().zip(answers) {
            let found = match answer {
                Answer::Number(found) => signal.limit.allows(*found).map(|is_in| (*found, is_in)),
                Answer::Empty | Answer::Failed => None,
            };
            let signal = signal.name.clone();
            match found {
                Some((_, true)) => {}
                Some((found, false)) => {
                    self.happened(Happened::SignalBeyond { wave, signal: signal.clone(), found });
                    return self.halt(Why::Signal { name: signal });
                }
                None => {
                    held = true;
                    self.happened(Happened::GateHeld { wave, signal });
                }
            }
        }
        if !held {
            self.pass();
        }
    }

    /// The gate is open.
    fn pass(&mut self) {
        self.happened(Happened::GatePassed { wave: self.state.wave });
        if self.state.wave + 1 == self.plan.waves.len() {
            self.state.go(Phase::Completed);
            return self.happened(Happened::Completed);
        }
        self.state.wave += 1;
        self.stage(Stage::Opening);
    }

    /// Goes on to a stage, and to what has to be done for it.
    fn stage(&mut self, stage: Stage) {
        self.state.go(Phase::Running { stage });
        self.effects.extend(pending(self.plan, &self.state));
    }

    fn ask(&mut self) {
        self.state.question += 1;
        self.stage(Stage::Asking { again: self.state.seen.after_ms(self.plan.ask_again_ms) });
    }

    fn tick(&mut self) {
        let seen = self.state.seen;
        match &self.state.phase {
            _ if self.state.held => {}
            Phase::Running { stage: Stage::Soaking { until } } if *until <= seen => {
                if self.plan.signals.is_empty() {
                    return self.pass();
                }
                self.ask();
            }
            Phase::Running { stage: Stage::Asking { again } } if *again <= seen => self.ask(),
            Phase::Halted { why } if self.plan.back.by_itself && *why != Why::Person => {
                self.revert(self.state.counts.to_go_back());
            }
            _ => {}
        }
    }

    /// What follows from the counts, after any event.
    fn judge(&mut self) {
        if self.state.held {
            return;
        }
        if self.has_too_many_failures() {
            let counts = self.state.counts;
            let (failed, silent, of) = (counts.failed, counts.silent, counts.known());
            return self.halt(Why::Failures { failed, silent, of });
        }
        match self.state.phase {
            Phase::Running { stage: Stage::Installing } => self.is_installed(),
            Phase::Reverting { wave, of, last: Some(_) } => self.has_gone_back(wave, of),
            _ => {}
        }
    }

    /// The release has failed: the share of success or the quorum cannot be reached any more, even if all that are still
    /// to come are good; or silence has used up the bound, and no more could be learnt.
    fn has_too_many_failures(&self) -> bool {
        let (counts, plan) = (self.state.counts, self.plan);
        let members = self.state.opened.last().map_or(0, |wave| wave.members);
        let expected = match self.state.phase.stage() {
            None => return false,
            Some(Stage::Opening | Stage::Installing) => members,
            // Who has not come by now is not waited for.
            Some(Stage::Soaking { .. } | Stage::Asking { .. }) => 0,
        };
        let of = expected.max(counts.known() + counts.issued);
        let at_best = of - counts.failed - counts.silent;
        at_best < plan.success_min.of(of)
            || at_best < plan.quorum.of(members)
            || counts.silent >= plan.bound
    }

    fn is_installed(&mut self) {
        let (State { counts, seen, wave, .. }, plan) = (self.state.clone(), self.plan);
        let members = self.state.opened.last().expect("who installs has opened a wave").members;
        let absent = members.saturating_sub(counts.known());
        let time_is_over = self.state.opened_at.after_ms(plan.come_within_ms) <= seen;
        let has_quorum = counts.good() >= plan.quorum.of(members);
        if counts.issued > 0 || !has_quorum || (absent > 0 && !time_is_over) {
            return;
        }
        let until = seen.after_ms(plan.waves[wave].soak_ms);
        self.happened(Happened::WaveInstalled {
            wave,
            good: counts.good(),
            failed: counts.failed,
            silent: counts.silent,
            absent,
        });
        self.stage(Stage::Soaking { until });
    }

    fn has_gone_back(&mut self, wave: usize, of: u64) {
        let left = self.state.counts.to_go_back();
        let wanted = self.plan.back.waves[wave].of(of);
        let time_is_over = back_deadline(self.plan, &self.state) <= self.state.seen;
        if of.saturating_sub(left) < wanted && !time_is_over {
            return;
        }
        if left > 0 && wave + 1 < self.plan.back.waves.len() {
            self.state.go(Phase::Reverting { wave: wave + 1, of, last: None });
            self.effects.extend(pending(self.plan, &self.state));
        } else {
            self.state.go(Phase::Reverted);
            self.happened(Happened::Reverted { left });
        }
    }
}
