//! What an operator would see.

use crate::site::*;
use model::DeviceId;
use rollout::{Answer, Command, EDGES, Event, Happened, Limit, Named, Phase, Share, Why};
use std::collections::BTreeSet;

fn started(change: impl FnOnce(&mut rollout::Draft)) -> Site {
    let mut draft = draft();
    change(&mut draft);
    let mut site = Site::new(draft);
    site.command(Command::Start);
    site
}

#[test]
fn a_good_release_reaches_three_then_fifteen_then_all_thirty() {
    let mut site = started(|_| {});
    let mut seen = BTreeSet::new();
    while site.phase() == Named::Running {
        site.round();
        seen.insert(site.permits.len());
    }
    assert_eq!(site.phase(), Named::Completed);
    assert_eq!(site.waves(), [3, 15, 30]);
    assert_eq!(seen, BTreeSet::from([3, 15, 30]), "no wave has one device more or less");
    assert_eq!((site.runs_new(), site.state.counts.proven), (30, 30));
    assert_eq!(site.happened.last(), Some(&Happened::Completed));
    assert_eq!(site.questions.len(), 3, "each wave's gate was asked once");
}

#[test]
fn a_release_that_no_device_confirms_stops_at_exactly_three_canaries() {
    let mut site = started(|_| {});
    let all = site.in_order();
    site.fate(&all, Fate::Fails);
    site.settle();
    // What failed has gone back by itself, so nobody has to be told.
    assert_eq!(site.phase(), Named::Reverted);
    assert_eq!((site.permits.len(), site.runs_new()), (3, 0));
    assert_eq!(site.state.counts.failed, 3);
    let why = Why::Failures { failed: 1, silent: 0, of: 1 };
    assert!(site.happened.contains(&Happened::Halted { why }), "the first of three is enough");
}

#[test]
fn a_release_whose_telemetry_is_bad_is_halted_and_taken_back() {
    let mut site = started(|_| {});
    site.answer = Answer::Number(80.5);
    while site.questions.is_empty() {
        site.round();
    }
    assert_eq!((site.phase(), site.runs_new()), (Named::Running, 3), "the canaries are healthy");
    site.settle();
    assert_eq!(site.phase(), Named::Reverted);
    assert_eq!((site.runs_new(), site.permits.len()), (0, 3));
    let signal = "temperature".to_owned();
    let why = Why::Signal { name: signal.clone() };
    let after =
        site.happened.iter().skip_while(|what| !matches!(what, Happened::SignalBeyond { .. }));
    assert_eq!(
        after.cloned().collect::<Vec<_>>(),
        [
            Happened::SignalBeyond { wave: 0, signal, found: 80.5 },
            Happened::Halted { why },
            Happened::RevertBegan { devices: 3 },
            Happened::BackWaveOpened { wave: 0 },
            Happened::BackWaveOpened { wave: 1 },
            Happened::Reverted { left: 0 },
        ]
    );
}

/// The same faulty release; where it stops is a matter of what the gate asks.
#[test]
fn a_moved_limit_moves_the_halt_and_without_a_gate_the_fault_goes_everywhere() {
    let check = |limits: Vec<Limit>, expected: Named, installed: usize| {
        let mut site = started(|draft| {
            draft.back.by_itself = false;
            let signal = draft.signals.pop().unwrap();
            draft.signals = limits
                .into_iter()
                .map(|limit| rollout::Signal { limit, ..signal.clone() })
                .collect();
        });
        // The more devices have it, the hotter it gets.
        while site.phase() == Named::Running {
            site.answer = Answer::Number(60.0 + site.runs_new() as f64);
            site.round();
        }
        assert_eq!((site.phase(), site.runs_new()), (expected, installed));
    };
    check(vec![Limit::AtMost(62.0)], Named::Halted, 3);
    check(vec![Limit::AtMost(63.0)], Named::Halted, 15);
    check(vec![Limit::AtMost(75.0)], Named::Halted, 30);
    check(vec![Limit::AtMost(90.0)], Named::Completed, 30);
    check(vec![Limit::AtLeast(64.0)], Named::Halted, 3);
    check(vec![], Named::Completed, 30);
}

#[test]
fn a_gate_that_gets_no_number_holds_and_asks_again() {
    for answer in [
        Answer::Empty,
        Answer::Failed,
        Answer::Number(f64::NAN),
        Answer::Number(f64::INFINITY),
        Answer::Number(f64::NEG_INFINITY),
    ] {
        let mut site = started(|_| {});
        site.answer = answer;
        for _ in 0..100 {
            site.round();
        }
        assert_eq!((site.phase(), site.permits.len()), (Named::Running, 3), "{answer:?}");
        let held = Happened::GateHeld { wave: 0, signal: "temperature".into() };
        assert!(site.happened.contains(&held), "{answer:?}");
        let questions = site.questions.len();
        assert!((15..=25).contains(&questions), "every five seconds, no more often: {questions}");
        site.answer = Answer::Number(20.0);
        site.settle();
        assert_eq!(site.phase(), Named::Completed, "{answer:?}");
    }
}

#[test]
fn one_of_two_signals_without_a_number_holds_and_one_beyond_its_limit_halts() {
    let mut site = started(|draft| {
        let second = rollout::Signal { name: "crashes".into(), ..draft.signals[0].clone() };
        draft.signals.push(second);
    });
    while site.questions.is_empty() {
        site.round();
    }
    let question = site.state.question;
    let mut answer = |answers: &[Answer]| {
        site.feed(Event::Answered { question, answers: answers.to_vec() });
        (site.phase(), site.state.wave)
    };
    let (good, bad) = (Answer::Number(20.0), Answer::Number(90.0));
    assert_eq!(answer(&[good, Answer::Empty]), (Named::Running, 0));
    assert_eq!(answer(&[good]), (Named::Running, 0), "an answer too few");
    assert_eq!(answer(&[good, good, good]), (Named::Running, 0), "an answer too many");
    assert_eq!(answer(&[Answer::Empty, bad]), (Named::Halted, 0));
}

#[test]
fn an_answer_to_an_older_question_counts_for_nothing() {
    let mut site = started(|_| {});
    site.answer = Answer::Empty;
    while site.questions.len() < 2 {
        site.round();
    }
    let before = site.state.clone();
    let late = |value| Event::Answered { question: 1, answers: vec![Answer::Number(value)] };
    site.feed(late(20.0));
    site.feed(late(99.0));
    assert_eq!(site.state, before);
}

#[test]
fn silence_counts_as_a_failure_and_is_never_more_than_the_bound() {
    let mut site = started(|draft| (draft.bound, draft.back.by_itself) = (2, false));
    let all = site.in_order();
    site.fate(&all, Fate::FallsSilent);
    site.settle();
    assert_eq!(site.phase(), Named::Halted);
    assert_eq!((site.permits.len(), site.most.0), (2, 2), "nobody else got leave meanwhile");
    let halted =
        |what: &Happened| matches!(what, Happened::Halted { why: Why::Failures { silent: 1, .. } });
    assert!(site.happened.iter().any(halted), "{:?}", site.happened);
}

#[test]
fn the_bound_holds_within_a_wave() {
    let mut site = started(|draft| draft.bound = 4);
    site.settle();
    assert_eq!((site.phase(), site.runs_new(), site.most.0), (Named::Completed, 30, 4));
}

#[test]
fn who_does_not_come_is_not_waited_for_but_nobody_is_no_proof() {
    let mut site = started(|_| {});
    let order = site.in_order();
    site.fate(&order[..1], Fate::Away);
    site.settle();
    assert_eq!(site.phase(), Named::Completed, "two of three canaries are a quorum");
    assert_eq!(site.runs_new(), 29);

    let mut site = started(|_| {});
    site.fate(&order[..2], Fate::Away);
    site.settle();
    assert_eq!(site.phase(), Named::Running, "one of three is not");
    assert_eq!(site.permits.len(), 1);
    site.fate(&order[..2], Fate::Installs);
    site.settle();
    assert_eq!(site.phase(), Named::Completed, "until they come");
}

#[test]
fn a_wave_is_not_over_while_one_of_it_is_installing_however_long_others_stay_away() {
    // Who comes for his leave last has longer for his proof than others have to come.
    let mut site = started(|draft| draft.prove_within_ms = 60_000);
    let order = site.in_order();
    site.fate(&order[..1], Fate::Away);
    site.round();
    assert_eq!(site.state.counts.proven, 2);
    // One is back and has its leave, and is not heard of.
    site.fate(&order[..1], Fate::FallsSilent);
    for _ in 0..40 {
        site.round();
    }
    let installing = Some(&rollout::Stage::Installing);
    assert_eq!((site.state.counts.issued, site.state.phase.stage()), (1, installing));
}

#[test]
fn a_bound_that_silence_has_used_up_halts_though_the_share_could_still_be_reached() {
    let mut site = started(|draft| {
        draft.waves.drain(..2);
        (draft.bound, draft.success_min, draft.back.by_itself) = (2, percent(50), false);
    });
    let order = site.in_order();
    site.fate(&order[..2], Fate::FallsSilent);
    site.settle();
    let why = Why::Failures { failed: 0, silent: 2, of: 2 };
    assert_eq!(site.state.phase, Phase::Halted { why });
    assert_eq!(site.permits.len(), 2, "nobody else could ever have got leave");
}

#[test]
fn a_quorum_that_cannot_be_reached_any_more_halts() {
    let mut site = started(|draft| {
        (draft.success_min, draft.quorum) = (percent(10), percent(90));
        draft.back.by_itself = false;
    });
    let order = site.in_order();
    site.fate(&order[..1], Fate::Fails);
    site.settle();
    let why = Why::Failures { failed: 1, silent: 0, of: 1 };
    assert_eq!(site.state.phase, Phase::Halted { why });
}

#[test]
fn a_device_that_goes_back_by_itself_after_its_proof_counts_as_failed() {
    let mut site = started(|_| {});
    let canary = site.in_order()[0].clone();
    site.round();
    assert_eq!(site.state.counts.proven, 3);
    site.devices.get_mut(&canary).unwrap().running = OLD;
    site.devices.get_mut(&canary).unwrap().fate = Fate::Fails;
    site.check_in(&canary);
    assert_eq!((site.phase(), site.state.counts.failed), (Named::Halted, 1));
}

#[test]
fn a_device_on_trial_has_proven_nothing() {
    let mut site = started(|_| {});
    let canary = site.in_order()[0].clone();
    for effect in rollout::pending(&site.plan, &site.state) {
        site.carry_out(&effect);
    }
    site.check_in(&canary);
    let mut check_in = rollout::CheckIn {
        position: site.position(&canary),
        joined: rollout::Moment(0),
        permit: site.permits.get(&canary).cloned(),
        report: rollout::Report { number: 9, running: NEW, confirmed: false, failed: false },
        device: canary,
    };
    site.feed(Event::CheckedIn(check_in.clone()));
    assert_eq!((site.state.counts.issued, site.state.counts.proven), (1, 0));
    check_in.report.confirmed = true;
    site.feed(Event::CheckedIn(check_in));
    assert_eq!((site.state.counts.issued, site.state.counts.proven), (0, 1));
}

#[test]
fn a_report_that_a_newer_one_has_overtaken_says_nothing() {
    let mut site = started(|_| {});
    let canary = site.in_order()[0].clone();
    site.round();
    let before = site.state.clone();
    let late = rollout::CheckIn {
        position: site.position(&canary),
        joined: rollout::Moment(0),
        permit: site.permits.get(&canary).cloned(),
        report: rollout::Report { number: 1, running: OLD, confirmed: true, failed: true },
        device: canary,
    };
    site.feed(Event::CheckedIn(late));
    assert_eq!(site.state, before);
}

#[test]
fn who_ran_it_before_needs_no_leave_and_is_not_taken_back() {
    let mut site = started(|_| {});
    let canary = site.in_order()[0].clone();
    site.devices.get_mut(&canary).unwrap().running = NEW;
    site.round();
    assert_eq!((site.state.counts.had, site.state.counts.proven), (1, 2));
    site.command(Command::Halt);
    site.command(Command::Revert);
    site.settle();
    assert_eq!((site.phase(), site.runs_new()), (Named::Reverted, 1));
}

#[test]
fn who_joins_later_waits_for_the_last_wave() {
    let mut site = started(|_| {});
    site.round();
    let first = site.position(&site.in_order()[0]);
    // One that stands before all others in the order.
    let joiner = (0..)
        .map(|n| DeviceId::new(format!("late-{n}")).unwrap())
        .find(|id| site.position(id) < first)
        .unwrap();
    let mut device = site.devices.values().next().unwrap().clone();
    (device.running, device.joined) = (OLD, site.now);
    site.devices.insert(joiner.clone(), device);
    while site.state.wave < 2 {
        site.round();
        assert!(!site.permits.contains_key(&joiner));
    }
    site.settle();
    assert_eq!(site.phase(), Named::Completed);
    assert_eq!(site.devices[&joiner].running, NEW);
}

#[test]
fn a_paused_rollout_issues_no_permit_and_goes_on_where_it_was() {
    let mut site = started(|_| {});
    for effect in rollout::pending(&site.plan, &site.state) {
        site.carry_out(&effect);
    }
    let canaries = site.in_order();
    site.check_in(&canaries[0]);
    site.command(Command::Pause);
    for _ in 0..20 {
        site.round();
    }
    assert_eq!((site.phase(), site.permits.len()), (Named::Paused, 1));
    assert_eq!(site.state.counts.proven, 1, "whoever had leave goes on");
    site.command(Command::Resume);
    site.settle();
    assert_eq!((site.phase(), site.runs_new()), (Named::Completed, 30));
}

/// A registry was restored: devices may have gone on to what is not known here.
#[test]
fn a_rollout_that_is_held_tells_nobody_anything_until_a_person_has_looked() {
    let mut site = started(|_| {});
    for effect in rollout::pending(&site.plan, &site.state) {
        site.carry_out(&effect);
    }
    let first = site.in_order()[0].clone();
    site.check_in(&first);
    let told = |site: &Site| rollout::order(&site.plan, &site.state, site.permits.get(&first));
    assert_eq!(told(&site), rollout::Order::Install(NEW));
    site.feed(Event::Hold);
    let revision = site.state.revision;
    site.feed(Event::Hold);
    assert_eq!(site.state.revision, revision, "once");
    assert_eq!((site.phase(), told(&site)), (Named::Paused, rollout::Order::Stay));
    // Nothing happens by itself: its leave is over, and it is not silent, since it is told nothing.
    let all = site.in_order();
    site.fate(&all[..1], Fate::FallsSilent);
    (0..20).for_each(|_| site.round());
    assert_eq!((site.phase(), site.state.counts.issued), (Named::Paused, 1));
    assert_eq!((site.permits.len(), rollout::wake(&site.plan, &site.state)), (1, None));
    // What devices show is noted.
    site.fate(&all, Fate::Installs);
    site.devices.get_mut(&first).unwrap().running = NEW;
    site.devices.get_mut(&first).unwrap().number += 10;
    site.check_in(&first);
    assert_eq!((site.state.counts.issued, site.state.counts.proven), (0, 1));
    site.command(Command::Resume);
    site.settle();
    assert_eq!((site.phase(), site.runs_new()), (Named::Completed, 30));
}

#[test]
fn what_is_taken_back_is_held_too_and_goes_on_or_ends_when_a_person_says_so() {
    for (word, phase) in [(Command::Resume, Named::Reverted), (Command::Abort, Named::Aborted)] {
        let mut site = started(|draft| draft.back.waves = vec![Share::ALL]);
        site.answer = Answer::Number(80.5);
        while site.phase() == Named::Running {
            site.round();
            for effect in rollout::pending(&site.plan, &site.state) {
                site.carry_out(&effect);
            }
        }
        // It halted by itself and would be taken back by itself.
        site.feed(Event::Hold);
        (0..30).for_each(|_| site.round());
        assert_eq!((site.phase(), site.runs_new()), (Named::Halted, 3));
        site.command(Command::Revert);
        assert_eq!((site.phase(), site.state.held), (Named::Reverting, false));
        site.feed(Event::Hold);
        (0..30).for_each(|_| site.round());
        assert_eq!((site.phase(), site.runs_new()), (Named::Reverting, 3), "nobody is told");
        site.command(word);
        site.settle();
        let left = if word == Command::Abort { 3 } else { 0 };
        assert_eq!((site.phase(), site.runs_new()), (phase, left));
    }
    // What is over, or has not begun, has nothing to say.
    for word in [None, Some(Command::Abort)] {
        let mut site = Site::new(draft());
        word.into_iter().for_each(|word| site.command(word));
        site.feed(Event::Hold);
        assert!(!site.state.held);
    }
}

#[test]
fn a_completed_rollout_is_taken_back_in_waves_and_at_most_so_many_at_a_time() {
    let mut site = started(|draft| draft.back.at_a_time = 4);
    site.settle();
    assert_eq!(site.phase(), Named::Completed);
    let late = site.in_order()[29].clone();
    site.fate(std::slice::from_ref(&late), Fate::Away);
    site.command(Command::Revert);
    let mut gone = BTreeSet::new();
    while site.phase() == Named::Reverting {
        site.round();
        if let Phase::Reverting { wave: 0, .. } = site.state.phase {
            gone.insert(site.count("went_back"));
        }
    }
    assert_eq!(site.most.1, 4);
    assert!(gone.iter().all(|gone| *gone <= 6), "20 % of 30 are 6: {gone:?}");
    assert_eq!((site.phase(), site.runs_new()), (Named::Reverted, 1), "one was away");
    assert_eq!(site.happened.last(), Some(&Happened::Reverted { left: 1 }));
    site.fate(&[late], Fate::Installs);
    site.settle();
    assert_eq!(site.runs_new(), 0, "who turns up with it later is told still");
}

#[test]
fn silent_devices_do_not_keep_others_from_going_back() {
    let mut site = started(|draft| draft.back.at_a_time = 1);
    site.settle();
    site.command(Command::Revert);
    for effect in rollout::pending(&site.plan, &site.state) {
        site.carry_out(&effect);
    }
    // The first is told, and never heard of again.
    let first = site.in_order()[0].clone();
    site.check_in(&first);
    assert_eq!(site.count("back"), 1);
    site.fate(&[first], Fate::Away);
    site.settle();
    assert_eq!((site.phase(), site.runs_new()), (Named::Reverted, 1));
}

#[test]
fn a_command_moves_along_a_drawn_edge_or_is_refused_and_told() {
    use Command::{Abort, Halt, Pause, Resume, Revert, Start};
    let commands = [Start, Pause, Resume, Halt, Revert, Abort];
    let to = |phases: &[&[Command]]| {
        let mut site = Site::new(draft());
        for step in phases {
            step.iter().for_each(|command| site.command(*command));
        }
        site
    };
    let completed = || {
        let mut site = started(|_| {});
        site.settle();
        site
    };
    let reverted = || {
        let mut site = completed();
        site.command(Revert);
        site.settle();
        site
    };
    let reverting = || {
        let mut site = completed();
        site.command(Revert);
        site
    };
    type Case<'a> = (Named, &'a dyn Fn() -> Site, &'a [(Command, Named)]);
    let sites: [Case<'_>; 8] = [
        (Named::Planned, &|| to(&[]), &[(Start, Named::Running), (Abort, Named::Aborted)]),
        (
            Named::Running,
            &|| to(&[&[Start]]),
            &[(Pause, Named::Paused), (Halt, Named::Halted), (Abort, Named::Aborted)],
        ),
        (
            Named::Paused,
            &|| to(&[&[Start, Pause]]),
            &[(Resume, Named::Running), (Halt, Named::Halted), (Abort, Named::Aborted)],
        ),
        // Nobody has it yet, so the way back is over at once.
        (
            Named::Halted,
            &|| to(&[&[Start, Halt]]),
            &[(Revert, Named::Reverted), (Abort, Named::Aborted)],
        ),
        (Named::Completed, &completed, &[(Revert, Named::Reverting)]),
        (Named::Reverting, &reverting, &[(Abort, Named::Aborted)]),
        (Named::Reverted, &reverted, &[]),
        (Named::Aborted, &|| to(&[&[Abort]]), &[]),
    ];
    for (phase, site, moves) in sites {
        for command in commands {
            let mut site = site();
            assert_eq!(site.phase(), phase);
            let before = site.state.clone();
            site.happened.clear();
            site.command(command);
            match moves.iter().find(|(moved, _)| *moved == command) {
                Some((_, to)) => {
                    assert_eq!(site.phase(), *to, "{command:?} while {phase}");
                    assert_eq!(site.happened[0], Happened::Did { command });
                    assert_eq!(site.state.revision, before.revision + 1);
                }
                None => {
                    assert_eq!(site.state, before, "{command:?} while {phase}");
                    assert_eq!(site.happened, [Happened::Refused { command, phase }]);
                }
            }
        }
    }
    let edges: BTreeSet<_> = EDGES.iter().map(|(from, to, _)| (from, to)).collect();
    assert_eq!(edges.len(), EDGES.len(), "no edge is drawn twice");
}

#[test]
fn a_clock_that_is_set_back_lengthens_a_soak_and_never_shortens_it() {
    let mut site = started(|draft| draft.waves[0].soak_ms = 5000);
    site.round();
    let Phase::Running { stage: rollout::Stage::Soaking { until } } = site.state.phase else {
        panic!("{:?}", site.state.phase)
    };
    site.now = rollout::Moment(5);
    site.feed(Event::Tick);
    assert!(site.questions.is_empty(), "it would have been asked at {until}");
    site.now = until;
    site.feed(Event::Tick);
    assert_eq!(site.questions, [1]);
}

#[test]
fn a_wave_has_at_most_its_own_count() {
    let mut site = started(|draft| {
        draft.waves[0].count_max = Some(2);
        draft.waves[1].share = Share::percent(99).unwrap();
        draft.waves[1].count_max = Some(7);
    });
    site.settle();
    assert_eq!((site.phase(), site.waves()), (Named::Completed, vec![2, 7, 30]));
}

#[test]
fn a_pass_that_is_late_or_larger_than_asked_for_opens_nothing() {
    let mut site = started(|_| {});
    let cohort: Vec<_> = site.devices.keys().map(|id| site.position(id)).collect();
    let before = site.state.clone();
    let too_large = rollout::open(cohort.clone(), 4).unwrap();
    site.feed(Event::Opened { wave: 0, opened: too_large });
    let of_another = rollout::open(cohort.clone(), 3).unwrap();
    site.feed(Event::Opened { wave: 1, opened: of_another });
    site.feed(Event::Opened { wave: 99, opened: of_another });
    let of_nobody = rollout::Opened { members: 0, last: rollout::Position::LAST };
    site.feed(Event::Opened { wave: 0, opened: of_nobody });
    assert_eq!(site.state, before, "a wave of nobody would prove itself at once");
    site.feed(Event::Opened { wave: 0, opened: of_another });
    let opened = site.state.clone();
    site.feed(Event::Opened { wave: 0, opened: of_another });
    assert_eq!(site.state, opened, "twice is once");
    assert_eq!(site.waves(), [3]);
}
