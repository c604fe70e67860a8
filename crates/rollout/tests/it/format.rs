//! `docs/formats/rollout.md`: what is kept, and what is refused when it is read.

use crate::site::{Site, draft};
use rollout::{Command, Permit, SAVED_BYTES_MAX, Saved};

const GOLDEN: &str = include_str!("../../../../docs/formats/golden/rollout-v1.json");
const GOLDEN_PERMITS: &str =
    include_str!("../../../../docs/formats/golden/rollout-permits-v1.json");

/// A rollout in its second wave, with one device that has leave.
fn site() -> Site {
    let mut site = Site::new(draft());
    site.command(Command::Start);
    while site.state.wave == 0 {
        site.round();
    }
    for effect in rollout::pending(&site.plan, &site.state) {
        site.carry_out(&effect);
    }
    let fourth = site.in_order()[3].clone();
    site.check_in(&fourth);
    site
}

fn text() -> String {
    let site = site();
    Saved { plan: site.plan, state: site.state }.encode()
}

#[test]
fn a_rollout_keeps_its_bytes() {
    assert_eq!(text(), GOLDEN.trim_end(), "{}", text());
    let saved = Saved::decode(GOLDEN).unwrap();
    assert_eq!(saved.encode(), GOLDEN.trim_end());
    let site = site();
    assert_eq!((saved.plan, saved.state), (site.plan, site.state));
}

#[test]
fn permits_keep_their_bytes() {
    let mut kinds = 0;
    for line in GOLDEN_PERMITS.lines() {
        let permit: Permit = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&permit).unwrap(), line);
        kinds += 1;
    }
    assert_eq!(kinds, 9, "each kind once");
}

#[test]
fn a_rollout_with_one_thing_wrong_is_refused_for_that() {
    let good = text();
    assert!(Saved::decode(&good).is_ok());
    let check = |from: &str, to: &str, expected: &str| {
        assert!(good.contains(from), "{from} is not in {good}");
        let error = Saved::decode(&good.replacen(from, to, 1)).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let told = format!("{error}: {}", source.unwrap_or_default());
        assert!(told.contains(expected), "expected {expected:?}, found {told:?}");
    };
    check("{\"v\":1", "{\"v\":2", "a rollout of version 2: this build knows 1");
    check("{\"v\":1,", "{", "missing field `v`");
    check("\"state\":{", "\"state\":{\"more\":1,", "unknown field `more`");
    check("\"plan\":{", "\"plan\":{\"more\":1,", "unknown field `more`");
    check("\"cohort\":30", "\"cohort\":0", "a cohort of no devices");
    check(
        "\"share\":100000",
        "\"share\":0",
        "expected a share of 1 to 1000000 millionths, found 0",
    );
    check("\"share\":100000", "\"share\":1000001", "found 1000001");
    check("\"r-1\"", "\"R 1\"", "bad rollout id");
    check("\"1.1.0\"", "\"1.1\"", "bad version");
    check("\"digest\":\"02", "\"digest\":\"0x", "expected 64 hex digits");
    check("\"last\":\"", "\"last\":\"z", "expected 32 hex digits");
    check("\"wave\":1", "\"wave\":3", "a wave that the plan does not have");
    check("\"wave\":1", "\"wave\":2", "a wave that is under way was not opened");
    check("\"installing\"", "\"opening\"", "a wave that opens is open already");
    check("\"members\":3", "\"members\":16", "a wave is smaller than the one before");
    check("\"issued\":1", "\"issued\":31", "more permits are outstanding than the bound allows");
    check("\"issued\":1", "\"issued\":-1", "invalid value");
    let long = " ".repeat(SAVED_BYTES_MAX + 1);
    let error = Saved::decode(&long).unwrap_err().to_string();
    assert_eq!(error, "a rollout of 524289 bytes: expected at most 524288");
}
