//! Each starts from a plan that is taken, changes one thing, and is refused for just that.

use crate::site::{draft, percent};
use rollout::{Draft, Limit, Plan, Wave};

fn check(change: impl FnOnce(&mut Draft), expected: &str) {
    let mut draft = draft();
    change(&mut draft);
    let found = Plan::new(draft).map(drop).map_err(|error| error.to_string());
    assert_eq!(found, Err(expected.to_owned()));
}

#[test]
fn a_plan_with_one_thing_wrong_is_refused_for_that() {
    assert!(Plan::new(draft()).is_ok());
    check(|d| d.cohort = 0, "a cohort of no devices: nothing to roll out to");
    check(|d| d.waves.clear(), "expected 1 to 32 waves forward, found 0");
    check(
        |d| {
            let share = |n| Wave { share: percent(n), ..d.waves[0].clone() };
            d.waves = (1..=33).map(share).collect();
        },
        "expected 1 to 32 waves forward, found 33",
    );
    check(
        |d| d.waves[1].share = percent(10),
        "wave 2 forward is not larger than the one before: each wave holds those before it",
    );
    check(
        |d| {
            d.waves[1].count_max = Some(12);
            d.waves[2].count_max = Some(11);
        },
        "wave 3 forward is not larger than the one before: each wave holds those before it",
    );
    check(|d| d.waves[0].count_max = Some(0), "`count_max` is 0: nothing could ever move");
    check(
        |d| d.back.waves.swap(0, 1),
        "wave 2 back is not larger than the one before: each wave holds those before it",
    );
    check(|d| d.back.waves.clear(), "expected 1 to 32 waves back, found 0");
    check(
        |d| d.back.waves.truncate(1),
        "the last wave back is not all of them: what is bad would stay somewhere",
    );
    check(|d| d.bound = 0, "`bound` is 0: nothing could ever move");
    check(|d| d.prove_within_ms = 0, "`prove_within_ms` is 0: nothing could ever move");
    check(|d| d.come_within_ms = 0, "`come_within_ms` is 0: nothing could ever move");
    check(|d| d.ask_again_ms = 0, "`ask_again_ms` is 0: nothing could ever move");
    check(|d| d.back.at_a_time = 0, "`back.at_a_time` is 0: nothing could ever move");
    let year = 366 * 24 * 3600 * 1000;
    check(
        |d| d.waves[1].soak_ms = year + 1,
        "`soak_ms` is 31622400001 ms: expected at most 31622400000 (a year)",
    );
    check(
        |d| d.come_within_ms = u64::MAX,
        "`come_within_ms` is 18446744073709551615 ms: expected at most 31622400000 (a year)",
    );
    check(|d| d.signals = vec![d.signals[0].clone(); 9], "expected at most 8 signals, found 9");
    let name = "expected a name of 1 to 64 bytes that no other signal has";
    check(|d| d.signals[0].name.clear(), &format!("signal \"\": {name}"));
    check(
        |d| d.signals = vec![d.signals[0].clone(); 2],
        &format!("signal \"temperature\": {name}"),
    );
    check(
        |d| d.signals[0].sql = "x".repeat(4097),
        "signal \"temperature\": expected 1 to 4096 bytes of SQL, found 4097",
    );
    for limit in [f64::NAN, f64::INFINITY] {
        check(
            |d| d.signals[0].limit = Limit::AtMost(limit),
            "signal \"temperature\": its limit is not a number that JSON keeps as it is",
        );
    }
}
