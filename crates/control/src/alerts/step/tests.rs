use super::*;
use api::alert::Signal;
use std::collections::{BTreeMap, HashSet, VecDeque};

const MINUTE: Ms = 60_000;

fn rule(when: Condition, for_ms: Ms) -> Rule {
    Rule {
        id: "hot".into(),
        sentence: "{subject} is at {value}".into(),
        priority: Priority::Notice,
        signal: Signal::Sql("select 1".into()),
        when,
        for_ms,
        every_ms: MINUTE,
        escalate_after_ms: Some(10 * MINUTE),
        runbook: None,
        group_by_gateway: true,
        latched: false,
        owner: None,
        enabled: true,
    }
}

fn above(for_ms: Ms) -> Rule {
    rule(Condition::Above(80.0), for_ms)
}

fn begin(rule: Rule) -> State {
    State::load(1, [Arc::new(rule)], [], [], vec![], 0).0
}

fn at(subject: &str, value: f64) -> Found {
    Found { subject: subject.into(), group: None, value }
}

fn looked(found: Vec<Found>) -> Event {
    Event::Looked { rule: "hot".into(), found, cut: false, excused: vec![] }
}

fn silence(id: u64, subject: Option<&str>, until: Ms) -> Event {
    let (rule, subject) = (Some("hot".to_owned()), subject.map(str::to_owned));
    Event::Silenced(Silence { id, rule, subject, until })
}

/// What effects come to, in a word each.
fn words(effects: &[Effect]) -> Vec<String> {
    let word = |effect: &Effect| match effect {
        Effect::Raise(raised) => format!("raise {} {}", raised.subject, raised.sum.count),
        Effect::Tell { alert, level, priority, .. } => {
            format!("tell {alert} {level} {}", priority.as_str())
        }
        Effect::Acknowledge { alert } => format!("acknowledge {alert}"),
        Effect::Resolve { alert, was_told, .. } => format!("resolve {alert} {was_told}"),
        Effect::Know { subject, .. } => format!("know {subject}"),
        Effect::Forget { subject, .. } => format!("forget {subject}"),
    };
    effects.iter().map(word).collect()
}

/// A script: when, what, and what comes of it.
fn check(rule: Rule, script: Vec<(Ms, Event, &[&str])>) -> State {
    script.into_iter().fold(begin(rule), |state, (now, event, expected)| {
        let shown = format!("at {now} {event:?}");
        let (state, effects) = state.on(event, now);
        assert_eq!(words(&effects), expected, "{shown}");
        state
    })
}

#[test]
fn nothing_fires_before_it_was_so_for_long_enough_at_every_look() {
    let hot = || looked(vec![at("pump-1", 90.0)]);
    check(
        above(2 * MINUTE),
        vec![
            (0, hot(), &[]),
            (MINUTE, hot(), &[]),
            (2 * MINUTE - 1, Event::Passed, &[]),
            (3 * MINUTE, Event::Passed, &[]),
            (3 * MINUTE, looked(vec![at("pump-1", 80.0)]), &[]),
            (4 * MINUTE, hot(), &[]),
            (6 * MINUTE - 1, hot(), &[]),
            (6 * MINUTE, hot(), &["raise pump-1 1", "tell 1 0 notice"]),
        ],
    );
}

#[test]
fn who_is_not_answered_is_told_again_with_more_urgency_and_then_no_more() {
    let hot = || looked(vec![at("pump-1", 90.0)]);
    let script: Vec<(Ms, Event, &[&str])> = vec![
        (0, hot(), &["raise pump-1 1", "tell 1 0 notice"]),
        (10 * MINUTE - 1, Event::Passed, &[]),
        (10 * MINUTE, Event::Passed, &["tell 1 1 warning"]),
        (20 * MINUTE, hot(), &["tell 1 2 critical"]),
        (30 * MINUTE, hot(), &["tell 1 3 critical"]),
        (300 * MINUTE, hot(), &[]),
        (301 * MINUTE, looked(vec![]), &[]),
        (302 * MINUTE, looked(vec![]), &["resolve 1 true"]),
    ];
    check(above(0), script);
    let acknowledged: Vec<(Ms, Event, &[&str])> = vec![
        (0, hot(), &["raise pump-1 1", "tell 1 0 notice"]),
        (MINUTE, Event::Acknowledged { alert: 1 }, &["acknowledge 1"]),
        (2 * MINUTE, Event::Acknowledged { alert: 1 }, &[]),
        (2 * MINUTE, Event::Acknowledged { alert: 7 }, &[]),
        (60 * MINUTE, hot(), &[]),
        (61 * MINUTE, looked(vec![]), &[]),
        (62 * MINUTE, Event::Passed, &["resolve 1 true"]),
    ];
    check(above(0), acknowledged);
}

#[test]
fn one_dead_gateway_is_one_alert_that_counts_its_devices() {
    let behind = |device: &str, gateway: &str, value| Found {
        subject: device.into(),
        group: Some(gateway.into()),
        value,
    };
    let found = || {
        vec![
            behind("pump-1", "gw-1", 90.0),
            behind("pump-2", "gw-1", 95.0),
            behind("pump-3", "gw-1", 20.0),
            behind("pump-4", "gw-2", 81.0),
            at("pump-5", 99.0),
        ]
    };
    let expected: &[&str] = &[
        "raise gw-1 2",
        "raise gw-2 1",
        "raise pump-5 1",
        "tell 1 0 notice",
        "tell 2 0 notice",
        "tell 3 0 notice",
    ];
    let state = check(above(0), vec![(0, looked(found()), expected)]);
    assert_eq!(state.open("hot", "gw-1").unwrap().sum.value, 95.0, "the worst of them");
    // A device that is silenced by its own name wakes nobody through its gateway.
    let one = || looked(vec![behind("pump-1", "gw-1", 90.0)]);
    let two = || looked(vec![behind("pump-1", "gw-1", 90.0), behind("pump-2", "gw-1", 90.0)]);
    check(
        above(0),
        vec![
            (0, silence(1, Some("pump-1"), 60 * MINUTE), &[]),
            (1, one(), &["raise gw-1 1"]),
            (2, two(), &["tell 1 0 notice"]),
        ],
    );
}

#[test]
fn what_is_silenced_is_seen_and_told_when_the_silence_ends_if_it_is_still_so() {
    let hot = || looked(vec![at("pump-1", 90.0)]);
    let state = check(
        above(0),
        vec![
            (0, silence(1, Some("pump-1"), 30 * MINUTE), &[]),
            (1, hot(), &["raise pump-1 1"]),
            (20 * MINUTE, hot(), &[]),
        ],
    );
    assert_eq!(state.silenced_until("hot", "pump-1", 20 * MINUTE), Some(30 * MINUTE));
    assert_eq!(state.silenced_until("hot", "pump-2", 20 * MINUTE), None);
    let (told, effects) = state.clone().on(Event::Passed, 30 * MINUTE);
    assert_eq!(words(&effects), ["tell 1 0 notice"]);
    assert_eq!(told.silences(30 * MINUTE), 0);
    let (_, effects) = state.clone().on(Event::SilenceEnded { silence: 1 }, 21 * MINUTE);
    assert_eq!(words(&effects), ["tell 1 0 notice"]);
    // It is over before the silence is: nobody hears of it at all.
    let (state, _) = state.on(looked(vec![]), 22 * MINUTE);
    let (_, effects) = state.on(Event::Passed, 40 * MINUTE);
    assert_eq!(words(&effects), ["resolve 1 false"]);
}

#[test]
fn a_look_that_fails_is_said_and_neither_raises_nor_resolves() {
    let failed = || Event::Failed { rule: "hot".into(), why: "no store".into() };
    let state = check(
        above(0),
        vec![
            (0, looked(vec![at("pump-1", 90.0)]), &["raise pump-1 1", "tell 1 0 notice"]),
            (MINUTE, looked(vec![]), &[]),
            (MINUTE + 1, failed(), &[]),
            (10 * MINUTE - 1, failed(), &[]),
        ],
    );
    assert_eq!(state.rule("hot").unwrap().trouble.as_deref(), Some("no store"));
    let (state, effects) = state.on(looked(vec![]), 11 * MINUTE);
    assert_eq!(words(&effects), ["resolve 1 true"]);
    assert_eq!(state.rule("hot").unwrap().trouble, None);
}

#[test]
fn what_happened_stays_until_somebody_has_seen_it() {
    let rule = Rule { latched: true, escalate_after_ms: None, ..above(0) };
    check(
        rule,
        vec![
            (0, looked(vec![at("site", 90.0)]), &["raise site 1", "tell 1 0 notice"]),
            (MINUTE, looked(vec![]), &[]),
            (600 * MINUTE, looked(vec![]), &[]),
            (601 * MINUTE, Event::Acknowledged { alert: 1 }, &["acknowledge 1", "resolve 1 true"]),
        ],
    );
}

#[test]
fn who_was_named_and_is_named_no_more_is_missed_and_after_a_month_forgotten() {
    let day = 86_400_000;
    let both = || looked(vec![at("pump-1", 0.0), at("pump-2", 0.0)]);
    let one = || looked(vec![at("pump-1", 0.0)]);
    check(
        Rule { escalate_after_ms: None, ..rule(Condition::Absent, MINUTE) },
        vec![
            (0, both(), &["know pump-1", "know pump-2"]),
            (MINUTE, one(), &[]),
            (2 * MINUTE, one(), &["raise pump-2 1", "tell 1 0 notice"]),
            (3 * MINUTE, both(), &[]),
            (4 * MINUTE, both(), &["resolve 1 true"]),
            (day, one(), &[]),
            (day + MINUTE, one(), &["raise pump-2 1", "tell 2 0 notice"]),
            (31 * day, one(), &["forget pump-2"]),
            (31 * day + MINUTE, one(), &["resolve 2 true"]),
        ],
    );
}

#[test]
fn devices_that_fall_silent_together_are_one_alert_of_their_gateway() {
    let named = |device: &str, gateway: &str| Found {
        subject: device.into(),
        group: Some(gateway.into()),
        value: 0.0,
    };
    let all =
        || looked(vec![named("pump-1", "gw-1"), named("pump-2", "gw-1"), named("pump-3", "gw-2")]);
    let state = check(
        rule(Condition::Absent, 0),
        vec![
            (0, all(), &["know pump-1", "know pump-2", "know pump-3"]),
            (MINUTE, looked(vec![named("pump-3", "gw-2")]), &["raise gw-1 2", "tell 1 0 notice"]),
            // One of them is heard through another gateway: the alert is of the other alone.
            (
                2 * MINUTE,
                looked(vec![named("pump-3", "gw-2"), named("pump-1", "gw-2")]),
                &["know pump-1"],
            ),
        ],
    );
    let open = state.open("hot", "gw-1").unwrap();
    assert_eq!((open.sum.count, open.sum.one.as_deref()), (1, Some("pump-2")));
    // Whoever is revoked is not missed.
    let (rule, found) = ("hot".to_owned(), vec![named("pump-3", "gw-2"), named("pump-1", "gw-2")]);
    let looked = Event::Looked { rule, found, cut: false, excused: vec!["pump-2".into()] };
    let (state, effects) = state.on(looked.clone(), 3 * MINUTE);
    assert_eq!(words(&effects), ["forget pump-2"]);
    let (_, effects) = state.on(looked, 4 * MINUTE);
    assert_eq!(words(&effects), ["resolve 1 true"]);
}

#[test]
fn beyond_the_bound_one_alert_stands_for_all_others_and_says_so() {
    let found = |count: usize| {
        looked((0..count).map(|number| at(&format!("pump-{number:05}"), 90.0)).collect())
    };
    let (state, effects) = begin(above(0)).on(found(10_000), 0);
    let raised = effects.iter().filter(|effect| matches!(effect, Effect::Raise(_))).count();
    assert_eq!(raised, SUBJECTS_MAX + 1);
    let others = state.open("hot", OTHERS).unwrap();
    assert_eq!(others.sum.count, (10_000 - SUBJECTS_MAX) as u64);
    // Fewer: those that have an alert keep it, and the rest is counted anew.
    let (state, effects) = state.on(found(150), MINUTE);
    assert_eq!(words(&effects), Vec::<String>::new());
    assert_eq!(state.open("hot", OTHERS).unwrap().sum.count, 50);
    assert_eq!(state.rule("hot").unwrap().open(), SUBJECTS_MAX + 1);
}

#[test]
fn a_rule_that_is_changed_or_gone_takes_its_alerts_along() {
    let hot = || looked(vec![at("pump-1", 90.0)]);
    let changed = Arc::new(above(MINUTE));
    let state = check(
        above(0),
        vec![
            (0, hot(), &["raise pump-1 1", "tell 1 0 notice"]),
            (1, Event::Ruled(changed), &["resolve 1 true"]),
            (2, hot(), &[]),
            (MINUTE + 2, hot(), &["raise pump-1 1", "tell 2 0 notice"]),
            (MINUTE + 3, Event::RuleGone { rule: "hot".into() }, &["resolve 2 true"]),
            (MINUTE + 4, hot(), &[]),
        ],
    );
    assert!(state.rule("hot").is_none());
}

/// What the registry would keep, told by effects alone.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rows {
    rows: BTreeMap<u64, Kept>,
    told: Vec<(u64, u8, Ms)>,
    raises: Vec<Ms>,
    silenced_until: Ms,
}

impl Rows {
    fn take(&mut self, effects: &[Effect], now: Ms) {
        for effect in effects {
            match effect {
                Effect::Raise(raised) => {
                    let open = self.rows.values().filter(|kept| kept.resolved_at.is_none());
                    assert_eq!(open.count(), 0, "one open alert of a subject");
                    self.raises.push(now);
                    let kept = Kept {
                        alert: raised.alert,
                        rule: raised.rule.id.clone(),
                        subject: raised.subject.clone(),
                        value: raised.sum.value,
                        count: raised.sum.count,
                        told: None,
                        acknowledged: false,
                        flaps: raised.flaps,
                        resolved_at: None,
                    };
                    assert!(self.rows.insert(raised.alert, kept).is_none(), "a number is new");
                }
                Effect::Tell { alert, level, .. } => {
                    assert!(now >= self.silenced_until, "told while it is silenced");
                    let kept = self.rows.get_mut(alert).expect("it was raised");
                    assert_eq!(kept.resolved_at, None, "told when it is over");
                    assert!(!kept.acknowledged, "told though somebody is there");
                    let expected = kept.told.map_or(0, |(level, _)| level + 1);
                    assert_eq!(*level, expected, "each level once, in order");
                    kept.told = Some((*level, now));
                    self.told.push((*alert, *level, now));
                }
                Effect::Acknowledge { alert } => {
                    self.rows.get_mut(alert).expect("it was raised").acknowledged = true;
                }
                Effect::Resolve { alert, .. } => {
                    let kept = self.rows.get_mut(alert).expect("it was raised");
                    assert_eq!(kept.resolved_at.replace(now), None, "resolved once");
                }
                Effect::Know { .. } | Effect::Forget { .. } => {}
            }
        }
    }

    fn next(&self) -> u64 {
        self.rows.keys().next_back().map_or(1, |last| last + 1)
    }

    fn load(&self, rule: &Rule, now: Ms) -> (State, Vec<Effect>) {
        let since = now.saturating_sub(REOPEN_MS);
        let kept = self.rows.values().filter(|k| k.resolved_at.is_none_or(|at| at >= since));
        let until = self.silenced_until;
        let silence = Silence { id: 1, rule: Some("hot".into()), subject: None, until };
        State::load(self.next(), [Arc::new(rule.clone())], kept.cloned(), [], vec![silence], now)
    }
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Hot,
    Cold,
    Failed,
    Acknowledge,
    Silence,
    Unsilence,
    Restart,
    Pass,
}

const MOVES: [Move; 8] = [
    Move::Hot,
    Move::Cold,
    Move::Failed,
    Move::Acknowledge,
    Move::Silence,
    Move::Unsilence,
    Move::Restart,
    Move::Pass,
];

/// Since when the subject is hot at every look, and how often it may have been looked at.
#[derive(Clone, Debug, Default, PartialEq)]
struct Truth {
    hot_since: Option<Ms>,
}

fn carry_out(
    rule: &Rule,
    step: Move,
    now: Ms,
    state: State,
    rows: &mut Rows,
    truth: &mut Truth,
) -> State {
    let raises = rows.raises.len();
    let event = match step {
        Move::Hot => looked(vec![at("pump-1", 90.0)]),
        Move::Cold => looked(vec![]),
        Move::Failed => Event::Failed { rule: "hot".into(), why: "no store".into() },
        Move::Acknowledge => {
            let alert = state.open("hot", "pump-1").map_or(99, |open| open.alert);
            Event::Acknowledged { alert }
        }
        Move::Silence => {
            rows.silenced_until = rows.silenced_until.max(now + 7 * MINUTE);
            silence(1, None, rows.silenced_until)
        }
        Move::Unsilence => {
            rows.silenced_until = now;
            Event::SilenceEnded { silence: 1 }
        }
        Move::Restart => {
            let (state, effects) = rows.load(rule, now);
            rows.take(&effects, now);
            // What was pending begins anew: nothing is told too early.
            truth.hot_since = None;
            return state;
        }
        Move::Pass => Event::Passed,
    };
    match step {
        Move::Hot => truth.hot_since = truth.hot_since.or(Some(now)),
        Move::Cold => truth.hot_since = None,
        _ => {}
    }
    let (state, effects) = state.on(event, now);
    rows.take(&effects, now);
    if rows.raises.len() > raises {
        let since = truth.hot_since.expect("it is hot when it fires");
        assert!(now >= since + rule.for_ms, "fired after {} ms", now - since);
    }
    let open = rows.rows.values().find(|kept| kept.resolved_at.is_none());
    assert_eq!(state.open("hot", "pump-1").map(|o| o.alert), open.map(|kept| kept.alert));
    assert_eq!(state.open("hot", "pump-1").map(|o| o.told), open.map(|kept| kept.told));
    state
}

/// All orders of up to five of eight moves, a minute or five between them; a state that was seen is not gone on from again.
#[test]
fn in_no_order_of_looks_people_silences_and_restarts_is_anything_told_early_twice_or_silenced() {
    let rule = above(2 * MINUTE);
    let mut seen: HashSet<String> = HashSet::new();
    let first = (0, begin(rule.clone()), Rows::default(), Truth::default(), 0);
    let mut open = VecDeque::from([first]);
    let mut steps = 0u64;
    while let Some((now, state, rows, truth, depth)) = open.pop_front() {
        if depth == 5 {
            continue;
        }
        for step in MOVES {
            for pause in [MINUTE, 5 * MINUTE] {
                let at = now + pause;
                let (mut rows, mut truth) = (rows.clone(), truth.clone());
                let state = carry_out(&rule, step, at, state.clone(), &mut rows, &mut truth);
                steps += 1;
                let key = format!("{at} {state:?} {} {truth:?}", rows.silenced_until);
                if seen.insert(key) {
                    open.push_back((at, state, rows, truth, depth + 1));
                }
            }
        }
    }
    println!("{steps} steps, {} states", seen.len());
    assert!(seen.len() > 10_000);
}

/// A long life of a subject that comes and goes as it likes. Prints its seed.
#[test]
fn what_flaps_is_raised_and_told_a_bounded_number_of_times() {
    let mut most = 0;
    for seed in 1..=100u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let rule = above(0);
        let (mut state, mut rows, mut truth) =
            (begin(rule.clone()), Rows::default(), Truth::default());
        let (mut now, mut is_hot, mut moods) = (0, false, 0u64);
        for _ in 0..10_000 {
            now += 1000 + draw(90_000);
            if seed % 2 == 0 {
                // As often as it can: it is back as soon as it was resolved.
                is_hot = state.open("hot", "pump-1").is_none();
            } else if moods == 0 {
                // Seconds, or hours.
                (is_hot, moods) = (!is_hot, 1 + draw(3) * draw(60));
            }
            moods = moods.saturating_sub(1);
            let step = match draw(60) {
                0 => Move::Pass,
                1 => Move::Restart,
                2 => Move::Failed,
                _ if is_hot => Move::Hot,
                _ => Move::Cold,
            };
            state = carry_out(&rule, step, now, state, &mut rows, &mut truth);
        }
        for window in rows.raises.windows(RAISES_MAX + 1) {
            let span = window[RAISES_MAX] - window[0];
            assert!(span >= REOPEN_MS, "seed {seed}: {window:?}");
        }
        for alert in rows.rows.keys() {
            let told = rows.told.iter().filter(|(told, _, _)| told == alert).count();
            assert!(told <= usize::from(LEVEL_MAX) + 1, "seed {seed}");
        }
        most = most.max(rows.raises.len());
    }
    println!("{most} alerts of the subject that flapped most");
    assert!(most > 50);
}
