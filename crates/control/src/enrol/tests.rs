use super::*;
use api::Standing;
use model::ZoneId;
use model::envelope::Algorithm;
use std::sync::Arc;
use trust::cose::{PublicKey, SecretKey, Signer as _};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn public(seed: u8) -> PublicKey {
    let secret = SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).expect("any bytes do");
    secret.public().clone()
}

fn csr(seed: u8, serial: Option<&str>) -> Csr {
    let public_key = public(seed);
    Csr { spki_der: public_key.to_spki_der(), public_key, serial: serial.map(str::to_owned) }
}

fn key(seed: u8, purpose: Purpose) -> Key {
    let public = public(seed);
    let spki = public.to_spki_der();
    Key {
        purpose,
        id: public.id(),
        spki_sha256: trust::digest(&spki),
        public,
        spki,
        created_at: NOW,
        not_after: NOW,
        retired_at: None,
        ended_at: None,
    }
}

fn device(serial: &str, role: Role) -> Device {
    Device {
        id: keys::cert::device_id(serial).unwrap(),
        serial: serial.to_owned(),
        role,
        zone: ZoneId::new("hall").unwrap(),
        standing: Standing::Listed,
        listed_at: NOW,
        enrolled_at: None,
        changed_at: NOW,
        group: crate::directory::default_group(),
        grouped_at: NOW,
        keys: Vec::new(),
    }
}

fn terms() -> Terms {
    Terms { site: "site".into(), life: Duration::from_secs(90 * 86_400), keys_per_day_max: 3 }
}

struct World {
    pump: Device,
    applicant: Applicant,
    csr: Csr,
    purpose: Purpose,
    now: Timestamp,
}

/// PUMP-1 is listed, shows its IDevID and asks for its first TLS certificate: granted. Each refusal changes one thing.
fn granted() -> World {
    World {
        pump: device("PUMP-1", Role::Device),
        applicant: Applicant::IDevId { serial: "PUMP-1".into(), spki_sha256: Digest([9; 32]) },
        csr: csr(1, Some("PUMP-1")),
        purpose: Purpose::Tls,
        now: NOW,
    }
}

fn decide_in(w: &World) -> Result<Grant, Refusal> {
    let fan = device("fan-1", Role::Device).with_key(key(50, Purpose::Tls), NOW);
    let directory = Directory::new(7, [w.pump.clone(), fan, device("gw-1", Role::Gateway)]);
    decide(&directory, &w.applicant, &w.csr, w.purpose, &terms(), w.now)
}

#[test]
fn a_listed_device_with_its_idevid_gets_its_own_certificates() {
    let mut world = granted();
    let id = DeviceId::new("pump-1").unwrap();
    let profile = |w: &World| decide_in(w).map(|grant| grant.profile);
    let tls = Profile::DeviceTls { device: id.clone(), site: "site".into() };
    assert_eq!(profile(&world), Ok(tls));
    world.purpose = Purpose::Seal;
    assert_eq!(profile(&world), Ok(Profile::Seal { name: id, site: "site".into() }));
    world.csr.serial = None;
    assert!(decide_in(&world).is_ok(), "a request that names nobody is for who asks");
    world.applicant = Applicant::IDevId { serial: "gw-1".into(), spki_sha256: Digest([9; 32]) };
    world.purpose = Purpose::Tls;
    let gateway = GatewayId::new("gw-1").unwrap();
    assert_eq!(profile(&world), Ok(Profile::GatewayTls { gateway, site: "site".into() }));
}

#[test]
fn an_enrolled_device_renews_its_key_and_takes_new_ones_by_its_own_certificate() {
    let mut world = granted();
    world.pump = world.pump.with_key(key(1, Purpose::Tls), NOW);
    world.applicant = Applicant::Enrolled(world.pump.id.clone());
    for serial in [Some("PUMP-1"), Some("pump-1"), None] {
        world.csr = csr(1, serial);
        assert!(decide_in(&world).is_ok(), "its present key, {serial:?}");
        world.csr = csr(2, serial);
        assert!(decide_in(&world).is_ok(), "a new key, {serial:?}");
    }
    world.pump.standing = Standing::Quarantined;
    assert!(decide_in(&world).is_ok(), "re-enrolment is the way out of quarantine");
}

/// INV-AUTH-1, INV-PURP-1.
#[test]
fn what_is_not_the_applicants_own_is_refused_with_the_reason() {
    type Change = fn(&mut World);
    let table: &[(&str, Change, &str)] = &[
        (
            "not on the ownership list",
            |w| {
                w.applicant =
                    Applicant::IDevId { serial: "PUMP-9".into(), spki_sha256: Digest([9; 32]) }
            },
            "serial \"PUMP-9\" is not on the ownership list: expected one that the operator listed",
        ),
        (
            "listed in another case",
            |w| {
                w.applicant =
                    Applicant::IDevId { serial: "pump-1".into(), spki_sha256: Digest([9; 32]) }
            },
            "serial \"pump-1\" is not on the ownership list: expected one that the operator listed",
        ),
        (
            "another's serial in the request",
            |w| w.csr.serial = Some("PUMP-2".into()),
            "the request is for serial \"PUMP-2\", expected \"PUMP-1\", which the caller's certificate proves",
        ),
        (
            "an enrolled device for another",
            |w| w.applicant = Applicant::Enrolled(DeviceId::new("fan-1").unwrap()),
            "the request is for serial \"PUMP-1\", expected \"fan-1\", which the caller's certificate proves",
        ),
        (
            "revoked",
            |w| w.pump.standing = Standing::Revoked,
            "`pump-1` is revoked or decommissioned: expected listed, enrolled or quarantined",
        ),
        (
            "another device's key",
            |w| w.csr = csr(50, Some("PUMP-1")),
            "key KEY belongs to another device already: expected a key of `pump-1`'s own",
        ),
        (
            "its TLS key to seal with",
            |w| {
                w.pump = w.pump.with_key(key(1, Purpose::Tls), NOW);
                w.purpose = Purpose::Seal;
            },
            "key KEY is of a tls key already: expected a key of its own for seal",
        ),
        (
            "its sealing key for TLS",
            |w| w.pump = w.pump.with_key(key(1, Purpose::Seal), NOW),
            "key KEY is of a seal key already: expected a key of its own for tls",
        ),
        (
            "its IDevID's key to seal with",
            |w| {
                let spki_sha256 = trust::digest(&w.csr.spki_der);
                w.applicant = Applicant::IDevId { serial: "PUMP-1".into(), spki_sha256 };
                w.purpose = Purpose::Seal;
            },
            "key KEY is of a tls key already: expected a key of its own for seal",
        ),
        (
            "a retired key",
            |w| {
                let first = w.pump.with_key(key(1, Purpose::Tls), NOW);
                w.pump = first.with_key(key(2, Purpose::Tls), NOW);
            },
            "key KEY was retired: expected the present key or a new one",
        ),
        (
            "a fourth new key in a day",
            |w| {
                w.pump = (10..13)
                    .fold(w.pump.clone(), |pump, seed| pump.with_key(key(seed, Purpose::Tls), NOW));
            },
            "`pump-1` had 3 new tls keys in a day, expected at most 3",
        ),
    ];
    assert!(decide_in(&granted()).is_ok());
    for (what, change, why) in table {
        let mut world = granted();
        change(&mut world);
        let refused = decide_in(&world).expect_err(what);
        let why = why.replace("KEY", &world.csr.public_key.id().to_string());
        assert_eq!(refused.to_string(), why, "{what}");
    }
}

#[test]
fn the_bound_on_new_keys_is_for_a_day_and_not_for_renewals() {
    let mut world = granted();
    world.pump =
        (1..4).fold(world.pump.clone(), |pump, seed| pump.with_key(key(seed, Purpose::Tls), NOW));
    world.csr = csr(3, None);
    assert!(decide_in(&world).is_ok(), "the present key is renewed");
    world.csr = csr(4, None);
    assert!(decide_in(&world).is_err());
    world.purpose = Purpose::Seal;
    assert!(decide_in(&world).is_ok(), "each purpose has its own bound");
    world.purpose = Purpose::Tls;
    world.now = Timestamp(NOW.as_us() + DAY_US);
    assert!(decide_in(&world).is_ok(), "a day later");
}

#[test]
fn the_idevids_own_key_may_go_on_with_tls() {
    let mut world = granted();
    let spki_sha256 = trust::digest(&world.csr.spki_der);
    world.applicant = Applicant::IDevId { serial: "PUMP-1".into(), spki_sha256 };
    assert!(decide_in(&world).is_ok());
}

#[test]
fn a_new_key_retires_the_one_before_it_and_a_renewed_one_stays() {
    let pump = device("PUMP-1", Role::Device);
    let later = Timestamp(NOW.as_us() + 5);
    let pump = pump.with_key(key(1, Purpose::Seal), NOW).with_key(key(2, Purpose::Tls), NOW);
    assert_eq!(pump.standing, Standing::Enrolled);
    let rotated = pump.with_key(key(3, Purpose::Seal), later);
    let retired: Vec<_> = rotated.keys.iter().map(|key| key.retired_at).collect();
    assert_eq!(retired, [Some(later), None, None]);
    let renewed = Key { not_after: later, created_at: later, ..key(3, Purpose::Seal) };
    let renewed = rotated.with_key(renewed, later);
    assert_eq!(renewed.keys.len(), 3);
    assert_eq!(renewed.keys[2].not_after, later);
    assert_eq!(renewed.keys[2].created_at, NOW, "a key is as old as its first certificate");
    let grace = Duration::from_micros(10);
    let old = &renewed.keys[0];
    assert!(old.is_live(grace, Timestamp(later.as_us() + 9)));
    assert!(!old.is_live(grace, Timestamp(later.as_us() + 10)));
    assert!(Arc::ptr_eq(&renewed.keys[1], &rotated.keys[1]), "what stayed is shared");
}
