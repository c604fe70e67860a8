use super::*;
use crate::directory::Key;
use api::Role;
use model::Header;
use model::envelope::Algorithm;
use model::manifest::Trusted;
use trust::cose::{SecretKey, Signer as _, seal};

const GRACE: Duration = Duration::from_secs(60);
const NOW: Timestamp = Timestamp(1_000_000_000);

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).unwrap()
}

fn key(seed: u8, retired_at: Option<i64>) -> Arc<Key> {
    let public = secret(seed).public().clone();
    let spki = public.to_spki_der();
    Arc::new(Key {
        purpose: Purpose::Seal,
        id: public.id(),
        spki_sha256: trust::digest(&spki),
        public,
        spki,
        created_at: Timestamp(i64::from(seed)),
        not_after: Timestamp(i64::MAX),
        retired_at: retired_at.map(Timestamp),
        ended_at: None,
    })
}

fn device(id: &str, zone: &str, role: Role, standing: Standing, keys: Vec<Arc<Key>>) -> Device {
    Device {
        id: DeviceId::new(id).unwrap(),
        serial: id.to_uppercase(),
        role,
        zone: ZoneId::new(zone).unwrap(),
        standing,
        listed_at: Timestamp(0),
        enrolled_at: Some(Timestamp(0)),
        changed_at: Timestamp(0),
        group: crate::directory::default_group(),
        grouped_at: Timestamp(0),
        keys,
    }
}

/// pump-1 has had three keys: one long ago, one until a moment ago, and its present one.
fn directory(standing: Standing) -> Directory {
    let retired = |ago_s: i64| Some(NOW.0 - ago_s * 1_000_000);
    let keys = vec![key(1, retired(61)), key(2, retired(59)), key(3, None)];
    let devices = [
        device("pump-1", "hall", Role::Device, standing, keys),
        device("pump-2", "hall", Role::Device, Standing::Enrolled, vec![key(4, None)]),
        device("gw-1", "hall", Role::Gateway, Standing::Enrolled, vec![]),
        device("gw-9", "yard", Role::Gateway, Standing::Enrolled, vec![]),
    ];
    Directory::new(1, devices)
}

fn manifest(device: &str) -> Vec<u8> {
    let device = DeviceId::new(device).unwrap();
    let (director, images) = (Trusted::default(), Trusted::default());
    Manifest { device, components: vec![], director, images, outcome: None }.encode()
}

fn sealed(kind: Kind, seed: u8, counter: (u32, u64), payload: &[u8]) -> Vec<u8> {
    let header = Header {
        algorithm: Algorithm::Ed25519,
        kind,
        key: secret(seed).public().id(),
        counter: Counter { epoch: counter.0, sequence: counter.1 },
        uptime_ms: 1,
        wall: None,
        heard: None,
        prior: None,
    };
    seal(&header, payload, &secret(seed)).unwrap()
}

fn judged(
    message: &[u8],
    named: &str,
    gateway: &str,
    directory: &Directory,
) -> Result<Sealed, Refused> {
    let id = |name: &str| DeviceId::new(name).unwrap();
    let gateway = directory.device(&id(gateway)).unwrap();
    open(message, &id(named), gateway, directory, GRACE, NOW)
}

#[test]
fn a_check_in_with_one_thing_wrong_is_refused_for_that() {
    let enrolled = directory(Standing::Enrolled);
    let own = manifest("pump-1");
    let good = sealed(Kind::Manifest, 3, (1, 0), &own);
    let sealed_well = judged(&good, "pump-1", "gw-1", &enrolled).unwrap();
    assert_eq!((sealed_well.device.id.as_str(), &sealed_well.payload[..]), ("pump-1", &own[..]));
    // A device that makes a new key ends what it began under the old one.
    let under_the_old = sealed(Kind::Manifest, 2, (1, 0), &own);
    assert!(judged(&under_the_old, "pump-1", "gw-1", &enrolled).is_ok());
    assert!(judged(&good, "pump-1", "gw-1", &directory(Standing::Quarantined)).is_ok());

    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    let message = |kind, seed, payload: &[u8]| sealed(kind, seed, (1, 0), payload);
    for (word, bytes, named, gateway) in [
        ("broken_cbor", vec![], "pump-1", "gw-1"),
        ("other_kind", message(Kind::Readings, 3, &own), "pump-1", "gw-1"),
        ("unknown_key", message(Kind::Manifest, 9, &own), "pump-1", "gw-1"),
        ("wrong_device", good.clone(), "pump-2", "gw-1"),
        ("wrong_device", message(Kind::Manifest, 4, &own), "pump-1", "gw-1"),
        ("wrong_zone", good.clone(), "pump-1", "gw-9"),
        ("key_retired", message(Kind::Manifest, 1, &own), "pump-1", "gw-1"),
        ("bad_signature", changed, "pump-1", "gw-1"),
        ("broken_cbor", message(Kind::Manifest, 3, b"\xf6"), "pump-1", "gw-1"),
        ("other_device", message(Kind::Manifest, 3, &manifest("pump-2")), "pump-1", "gw-1"),
        ("counter_too_high", sealed(Kind::Manifest, 3, (1, 1 << 63), &own), "pump-1", "gw-1"),
    ] {
        let refused = judged(&bytes, named, gateway, &enrolled).map(drop);
        assert_eq!(refused.map_err(|refused| refused.word()), Err(word));
    }
    for (standing, word) in [(Standing::Listed, "not_enrolled"), (Standing::Revoked, "revoked")] {
        let refused = judged(&good, "pump-1", "gw-1", &directory(standing)).map(drop);
        assert_eq!(refused.map_err(|refused| refused.word()), Err(word));
    }
}

/// INV-REPLAY-1.
#[test]
fn a_manifest_counts_only_above_the_last_one_of_its_key_and_never_after_a_newer_key() {
    let directory = directory(Standing::Enrolled);
    let own = manifest("pump-1");
    let at = |seed, counter| {
        judged(&sealed(Kind::Manifest, seed, counter, &own), "pump-1", "gw-1", &directory).unwrap()
    };
    let id = |seed: u8| secret(seed).public().id();
    let last = Counter { epoch: 2, sequence: 5 };
    let word = |sealed: Sealed, key: KeyId| {
        sealed.expect_newer(&key, last).map_err(|refused| refused.word())
    };
    for (counter, expected) in [
        ((2, 6), Ok(())),
        ((3, 0), Ok(())),
        ((2, 5), Err("replayed")),
        ((2, 4), Err("replayed")),
        ((1, 9), Err("replayed")),
    ] {
        assert_eq!(word(at(3, counter), id(3)), expected, "{counter:?}");
    }
    assert_eq!(word(at(3, (0, 0)), id(2)), Ok(()), "a new key begins a new counter");
    assert_eq!(word(at(2, (9, 9)), id(3)), Err("key_overtaken"));
}
