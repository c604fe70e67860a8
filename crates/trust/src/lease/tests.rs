//! INV-FRESH-1 of the lease: each refusal starts from one that is taken.

use super::*;
use crate::cose::{SecretKey, Signer as _, seal};
use alloc::vec;
use model::Header;
use model::envelope::{Algorithm, Counter, WallClock};

const ISSUED: i64 = 1_750_000_000_000_000;
const MINUTE_MS: u64 = 60_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).unwrap()
}

fn zone(name: &str) -> ZoneId {
    ZoneId::new(name).unwrap()
}

fn rollout(name: &str) -> RolloutId {
    RolloutId::new(name).unwrap()
}

/// Lease 7 of press-hall: ten minutes, one halted rollout.
fn lease() -> Lease {
    Lease {
        zone: zone("press-hall"),
        number: 7,
        issued: Timestamp(ISSUED),
        not_after: Timestamp(ISSUED + 600_000_000),
        policy: 12,
        revocation: 3,
        halted: vec![rollout("r-1")],
    }
}

fn sealed_as(kind: Kind, lease: &Lease, key: &SecretKey) -> Vec<u8> {
    let header = Header {
        algorithm: Algorithm::Ed25519,
        kind,
        key: key.public().id(),
        counter: Counter { epoch: 1, sequence: lease.number },
        uptime_ms: 1,
        wall: Some(WallClock { time: lease.issued, uncertainty_ms: 50 }),
        heard: None,
        prior: None,
    };
    seal(&header, &lease.encode(), key).unwrap()
}

fn sealed(lease: &Lease) -> Vec<u8> {
    sealed_as(Kind::Lease, lease, &key(1))
}

fn holder() -> Leases {
    Leases::new(zone("press-hall"), vec![key(2).public().clone(), key(1).public().clone()])
}

/// A holder that took lease 7 at an uptime of one minute.
fn held() -> Leases {
    let mut leases = holder();
    assert_eq!(leases.take(&sealed(&lease()), MINUTE_MS, Timestamp(ISSUED)), Ok(Took::New));
    leases
}

#[test]
fn a_lease_lasts_as_long_as_it_says_on_the_holders_own_clock() {
    let leases = held();
    assert_eq!(leases.remaining_ms(MINUTE_MS), 10 * MINUTE_MS);
    assert_eq!(leases.remaining_ms(11 * MINUTE_MS - 1), 1);
    assert_eq!(leases.remaining_ms(11 * MINUTE_MS), 0);
    assert_eq!(leases.remaining_ms(u64::MAX), 0);
    assert_eq!(leases.remaining_ms(0), 0, "an uptime that went back is another boot");
    assert_eq!(holder().remaining_ms(0), 0);
}

#[test]
fn the_same_lease_again_lengthens_nothing() {
    let mut leases = held();
    assert_eq!(leases.take(&sealed(&lease()), 9 * MINUTE_MS, Timestamp(ISSUED)), Ok(Took::Known));
    assert_eq!(leases.remaining_ms(9 * MINUTE_MS), 2 * MINUTE_MS);
    // Not when it is sealed again either: what counts is what it says.
    let again = {
        let header_differs = Lease { number: 7, ..lease() };
        sealed_as(Kind::Lease, &header_differs, &key(2))
    };
    assert_eq!(leases.take(&again, 9 * MINUTE_MS, Timestamp(ISSUED)), Ok(Took::Known));
    assert_eq!(leases.remaining_ms(9 * MINUTE_MS), 2 * MINUTE_MS);
}

#[test]
fn a_lease_that_was_kept_back_is_as_much_shorter_as_is_known() {
    let mut leases = holder();
    let floor = Timestamp(ISSUED + 240_000_000);
    assert_eq!(leases.take(&sealed(&lease()), 0, floor), Ok(Took::New));
    assert_eq!(leases.remaining_ms(0), 6 * MINUTE_MS);
    assert_eq!(leases.may_arm(None, 4 * MINUTE_MS, 0), Ok(()));
    assert_eq!(leases.may_arm(None, 4 * MINUTE_MS, 1), Err(NotNow::NotFresh));
    // A floor before the issue makes nothing longer.
    let mut leases = holder();
    leases.take(&sealed(&lease()), 0, Timestamp(i64::MIN)).unwrap();
    assert_eq!(leases.remaining_ms(0), 10 * MINUTE_MS);
}

#[test]
fn a_lease_with_one_thing_wrong_is_refused_for_that() {
    type Make = fn() -> Vec<u8>;
    let table: &[(&str, &str, Make)] = &[
        ("another zone's", "other_zone", || {
            sealed(&Lease { zone: zone("paint-hall"), ..lease8() })
        }),
        ("of the number before", "older", || sealed(&Lease { number: 6, ..lease() })),
        ("of the same number with other words", "fork", || {
            sealed(&Lease { halted: vec![], ..lease() })
        }),
        ("with an older policy", "went_back", || sealed(&Lease { policy: 11, ..lease8() })),
        ("with an older revocation epoch", "went_back", || {
            sealed(&Lease { revocation: 2, ..lease8() })
        }),
        ("that was over before it came", "expired", || {
            sealed(&Lease {
                issued: Timestamp(ISSUED - 600_000_000),
                not_after: Timestamp(ISSUED),
                ..lease8()
            })
        }),
        ("of more than a day", "too_long", || {
            sealed(&Lease { not_after: Timestamp(ISSUED + 86_400_001_000), ..lease8() })
        }),
        ("of all times", "too_long", || {
            sealed(&Lease {
                issued: Timestamp(i64::MIN),
                not_after: Timestamp(i64::MAX),
                ..lease8()
            })
        }),
        ("by a key that may not sign leases", "unknown_key", || {
            sealed_as(Kind::Lease, &lease8(), &key(3))
        }),
        ("in a message of another kind", "other_kind", || {
            sealed_as(Kind::Readings, &lease8(), &key(1))
        }),
        ("with a byte changed", "bad_signature", || {
            let mut message = sealed(&lease8());
            *message.last_mut().unwrap() ^= 1;
            message
        }),
        ("cut", "broken_cbor", || sealed(&lease8())[..100].to_vec()),
        ("longer than any", "oversize", || vec![0; MESSAGE_BYTES_MAX + 1]),
    ];
    fn lease8() -> Lease {
        Lease { number: 8, ..lease() }
    }
    assert_eq!(held().take(&sealed(&lease8()), MINUTE_MS, Timestamp(ISSUED)), Ok(Took::New));
    for (what, label, make) in table {
        let mut leases = held();
        let refused = leases.take(&make(), 2 * MINUTE_MS, Timestamp(ISSUED));
        assert_eq!(refused.map_err(|refused| refused.label()), Err(*label), "{what}");
        assert!(leases == held(), "{what}: a refusal changes nothing");
    }
}

#[test]
fn a_day_is_taken() {
    let mut leases = holder();
    let day = Lease { not_after: Timestamp(ISSUED + 86_400_000_000), ..lease() };
    assert_eq!(leases.take(&sealed(&day), 0, Timestamp(ISSUED)), Ok(Took::New));
    assert_eq!(leases.remaining_ms(0), LEASE_MS_MAX);
}

#[test]
fn nothing_is_armed_without_a_fresh_lease_that_lets_it() {
    // ROLL-1, on the device.
    let leases = held();
    let other = rollout("r-2");
    let two = 2 * MINUTE_MS;
    assert_eq!(leases.may_arm(Some(&other), two, 3 * MINUTE_MS), Ok(()));
    assert_eq!(leases.may_arm(None, two, 3 * MINUTE_MS), Ok(()), "by hand");
    assert_eq!(leases.may_arm(Some(&rollout("r-1")), two, 3 * MINUTE_MS), Err(NotNow::Halted));
    assert_eq!(leases.may_arm(Some(&other), two, 3 * MINUTE_MS + 1), Err(NotNow::NotFresh));
    assert_eq!(leases.may_arm(Some(&other), u64::MAX, 11 * MINUTE_MS), Err(NotNow::RanOut));
    assert_eq!(leases.may_arm(Some(&other), u64::MAX, 0), Err(NotNow::RanOut), "another boot");
    assert_eq!(holder().may_arm(Some(&other), two, 0), Err(NotNow::NoLease));
}

#[test]
fn a_power_cut_lengthens_no_lease_and_forgets_no_number() {
    let kept = held().export(4 * MINUTE_MS).unwrap();
    assert_eq!(kept.remaining_ms, 7 * MINUTE_MS);
    let keys = || vec![key(1).public().clone()];
    let import = |kept| Leases::import(zone("press-hall"), keys(), kept, 500).unwrap();
    let mut leases = import(kept.clone());
    assert_eq!(leases.remaining_ms(500), 7 * MINUTE_MS);
    assert_eq!(leases.may_arm(None, u64::MAX, 500), Err(NotNow::NotFresh), "nobody knows its age");
    assert_eq!(leases.take(&sealed(&lease()), 600, Timestamp(ISSUED)), Ok(Took::Known));
    assert_eq!(leases.remaining_ms(500), 7 * MINUTE_MS);
    let older = sealed(&Lease { number: 6, ..lease() });
    assert_eq!(leases.take(&older, 600, Timestamp(ISSUED)).unwrap_err().label(), "older");
    // What was kept cannot say more than the lease.
    let more = import(Kept { remaining_ms: u64::MAX, ..kept.clone() });
    assert_eq!(more.remaining_ms(500), 10 * MINUTE_MS);
    let none = import(Kept { remaining_ms: 0, ..kept.clone() });
    assert_eq!(none.may_arm(None, u64::MAX, 500), Err(NotNow::RanOut));
    let mut changed = kept;
    *changed.message.last_mut().unwrap() ^= 1;
    let refused = Leases::import(zone("press-hall"), keys(), changed, 500);
    assert_eq!(refused.unwrap_err(), Refused::BadSignature);
    assert_eq!(holder().export(0), None);
}
