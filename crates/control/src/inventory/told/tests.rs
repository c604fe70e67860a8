use super::*;
use crate::directory::default_group;
use api::release::{Component, Outcome};
use model::envelope::Algorithm;
use model::{DeviceId, ZoneId};
use std::sync::Arc;
use trust::cose::{SecretKey, Signer as _};

const DAY_US: i64 = 86_400_000_000;
/// 2026-11-21 22:30 UTC.
const NOW: Timestamp = Timestamp(1_795_300_200_000_000);

fn key(seed: u8, purpose: Purpose, ends_in_days: i64) -> Arc<Key> {
    let secret = SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).expect("any bytes do");
    let public = secret.public().clone();
    let spki = public.to_spki_der();
    Arc::new(Key {
        purpose,
        id: public.id(),
        spki_sha256: trust::digest(&spki),
        public,
        spki,
        created_at: Timestamp(0),
        not_after: Timestamp(NOW.as_us() + ends_in_days * DAY_US),
        retired_at: None,
        ended_at: None,
    })
}

fn pump() -> Device {
    Device {
        id: DeviceId::new("pump-1").unwrap(),
        serial: "PUMP-1".into(),
        role: Role::Device,
        zone: ZoneId::new("hall").unwrap(),
        group: default_group(),
        grouped_at: NOW,
        standing: Standing::Enrolled,
        listed_at: NOW,
        enrolled_at: Some(NOW),
        changed_at: NOW,
        keys: vec![key(1, Purpose::Tls, 60), key(2, Purpose::Seal, 60)],
    }
}

fn software(boot: &str, end: Option<&str>) -> Software {
    Software {
        device: "pump-1".into(),
        number: 1,
        received_at_ms: 0,
        components: vec![Component {
            product: "pump-app".into(),
            hardware: "pump-box".into(),
            version: "1.0.0".into(),
            sha256: String::new(),
            boot: boot.into(),
            security_version: 1,
            floor: 0,
        }],
        outcome: end.map(|end| Outcome {
            rollout: None,
            product: "pump-app".into(),
            sha256: String::new(),
            end: end.into(),
            reason: "no room".into(),
        }),
    }
}

#[test]
fn each_thing_that_stands_against_a_device_is_one_sentence_and_a_healthy_one_has_none() {
    let seen_now = Some(NOW.as_ms());
    let check = |device: Device, seen_at_ms, software: Option<Software>, left_out| {
        let (software, life) = (software.as_ref(), Duration::from_secs(90 * 86_400));
        let look = Look { device: &device, seen_at_ms, software, left_out, life, now: NOW };
        concerns(look).join("; ")
    };
    let fine = || Some(software("confirmed", Some("confirmed")));
    let with = |change: &dyn Fn(&mut Device)| {
        let mut device = pump();
        change(&mut device);
        device
    };
    let hour_ago = Some(NOW.as_ms() - 3 * 3_600_000);
    let gateway = with(&|d| d.role = Role::Gateway);
    let table = [
        (check(pump(), seen_now, fine(), 0), ""),
        (check(gateway, seen_now, None, 0), ""),
        (check(pump(), seen_now, None, 0), "it has not said what it runs"),
        (check(pump(), hour_ago, fine(), 0), "silent for 3 hours"),
        (check(pump(), None, fine(), 0), "it was never heard"),
        (
            check(pump(), seen_now, fine(), 2),
            "2 of its old sealing keys are left out of bundles: what they sealed stays on the device",
        ),
        (
            check(pump(), seen_now, Some(software("trial", None)), 0),
            "pump-app 1.0.0 runs on trial: it is not confirmed",
        ),
        (
            check(pump(), seen_now, Some(software("reverted", Some("reverted"))), 0),
            "went back to pump-app 1.0.0 by itself; its newest install of pump-app reverted: no room",
        ),
        (
            check(with(&|d| d.keys[0] = key(1, Purpose::Tls, 5)), seen_now, fine(), 0),
            "its TLS certificate ends in 5 days and has not been renewed",
        ),
        (
            check(with(&|d| d.keys[1] = key(2, Purpose::Seal, -1)), seen_now, fine(), 0),
            "its sealing certificate ended 1 day ago",
        ),
        (
            check(with(&|d| drop(d.keys.remove(1))), seen_now, fine(), 0),
            "it has no sealing certificate",
        ),
        (
            check(with(&|d| d.standing = Standing::Quarantined), seen_now, fine(), 0),
            "quarantined since 2026-11-21 22:30 UTC",
        ),
        (
            check(with(&|d| d.standing = Standing::Revoked), None, None, 0),
            "revoked since 2026-11-21 22:30 UTC",
        ),
        (
            check(with(&|d| d.standing = Standing::Decommissioned), None, None, 0),
            "decommissioned since 2026-11-21 22:30 UTC",
        ),
        (
            check(with(&|d| d.standing = Standing::Listed), None, None, 0),
            "listed since 2026-11-21 22:30 UTC, and it has not enrolled",
        ),
    ];
    for (found, expected) in table {
        assert_eq!(found, expected);
    }
}

#[test]
fn lengths_of_time_are_told_in_their_largest_unit() {
    let table = [
        (0, "0 seconds"),
        (1_999, "1 second"),
        (60_000, "1 minute"),
        (7_200_000, "2 hours"),
        (86_400_000 * 3 + 1, "3 days"),
    ];
    for (ms, expected) in table {
        assert_eq!(long(ms), expected);
    }
    assert_eq!(at(0), "1970-01-01 00:00 UTC");
    assert_eq!(at(u64::MAX), format!("{} ms after 1970", u64::MAX));
}
