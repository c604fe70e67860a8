use super::*;
use api::{BundleDevice, BundleKey};
use disk::{Cuts, Disk as _, SimDisk};
use trust::cose::{SecretKey, Signer as _};

fn key(n: u8) -> BundleKey {
    let key = SecretKey::from_random(model::envelope::Algorithm::Ed25519, &[n; 32]).unwrap();
    let spki: String = key.public().to_spki_der().iter().map(|b| format!("{b:02x}")).collect();
    BundleKey { id: key.public().id().to_string(), spki }
}

fn bundle(generation: u64) -> Bundle {
    Bundle {
        format: 1,
        site: "site".into(),
        generation,
        gateway: "gw-1".into(),
        zone: "hall".into(),
        devices: vec![BundleDevice {
            id: "pump-1".into(),
            zone: "hall".into(),
            standing: Standing::Enrolled,
            tls_keys: vec![Digest([1; 32]).to_string()],
            tls_keys_until_ms: Default::default(),
            seal_keys: vec![key(1), key(2)],
        }],
        policies: policy::DEFAULT_POLICIES.into(),
    }
}

fn bytes(bundle: &Bundle) -> Vec<u8> {
    serde_json::to_vec(bundle).unwrap()
}

fn us() -> GatewayId {
    GatewayId::new("gw-1").unwrap()
}

fn keeper(disk: &SimDisk) -> Result<Keeper, BundleError> {
    let dir = Path::new("/gw");
    let made = disk.create_dir_all(dir);
    made.map_err(|source| BundleError::Keep { path: dir.to_owned(), source })?;
    Keeper::open(disk.shared(), dir, us())
}

/// INV-FRESH-1, INV-MIX-1: from a bundle that is taken, each single change is refused for its own reason.
#[test]
fn a_bundle_with_one_thing_wrong_is_refused_for_that() {
    type Change = fn(&mut Bundle);
    let table: &[(&str, &str, Change)] = &[
        ("an older one", "older", |b| b.generation = 4),
        ("the same one", "older", |b| b.generation = 5),
        ("another format", "unknown_format", |b| b.format = 2),
        ("another gateway's", "not_ours", |b| b.gateway = "gw-2".into()),
        ("another zone's", "not_ours", |b| b.zone = "yard".into()),
        ("a zone that is no name", "not_ours", |b| b.zone = "Hall 1".into()),
        ("another site's", "not_ours", |b| b.site = "other".into()),
        ("policies that are not Cedar", "policies", |b| b.policies = "permit (".into()),
    ];
    for (what, label, change) in table {
        let disk = SimDisk::new(1);
        let keeper = keeper(&disk).unwrap();
        keeper.accept(&bytes(&bundle(5))).unwrap();
        let mut next = bundle(6);
        change(&mut next);
        let error = keeper.accept(&bytes(&next)).unwrap_err();
        assert_eq!(error.as_str(), *label, "{what}");
        assert!(BundleError::LABELS.contains(label));
        assert_eq!(keeper.newest().unwrap().generation, 5, "{what}");
        assert_eq!(keeper.accept(&bytes(&bundle(6))).unwrap().generation, 6, "{what}");
    }
    let disk = SimDisk::new(1);
    assert_eq!(keeper(&disk).unwrap().accept(b"{").unwrap_err().as_str(), "not_json");
    let long = vec![b' '; BUNDLE_BYTES_MAX + 1];
    assert_eq!(keeper(&disk).unwrap().accept(&long).unwrap_err().as_str(), "too_long");
}

/// INV-AUTH-1: a key that leaked and was replaced must not connect for as long as its certificate lives, only since this
/// gateway is cut off, or since nothing else changes at its site.
#[test]
fn a_replaced_tls_key_ends_at_its_time_without_a_newer_bundle() {
    let disk = SimDisk::new(1);
    let keeper = keeper(&disk).unwrap();
    let (old, new) = (Digest([1; 32]), Digest([2; 32]));
    let mut rotated = bundle(5);
    rotated.devices[0].tls_keys.push(new.to_string());
    rotated.devices[0].tls_keys_until_ms = [(old.to_string(), 1_000_000)].into();
    keeper.accept(&bytes(&rotated)).unwrap();
    let device = Some(DeviceId::new("pump-1").unwrap());
    let connects = |keeper: &Keeper, spki| {
        keeper.newest().unwrap().may_connect(&Peer { device: device.clone(), spki })
    };
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let mut views = keeper.watch();
    views.mark_unchanged();
    assert!(!keeper.end_keys(at(999)));
    assert_eq!((connects(&keeper, old), connects(&keeper, new)), (Ok(()), Ok(())));
    assert!(!views.has_changed().unwrap());
    assert!(keeper.end_keys(at(1000)));
    assert!(views.has_changed().unwrap(), "sessions that stand are asked again");
    assert_eq!(connects(&keeper, old), Err(Refusal::UnknownTlsKey));
    assert_eq!(connects(&keeper, new), Ok(()));
    assert!(!keeper.end_keys(at(1001)), "once");
    assert_eq!(keeper.newest().unwrap().generation, 5);
    // What was kept is as control sent it: after a start its keys are ended again.
    let again = self::keeper(&disk).unwrap();
    assert!(again.end_keys(at(1001)));
    assert_eq!(connects(&again, old), Err(Refusal::UnknownTlsKey));
}

/// INV-FRESH-1: neither does a restart go back.
#[test]
fn the_newest_bundle_survives_a_cut_at_any_write() {
    let workload = |disk: &SimDisk| {
        let Ok(keeper) = keeper(disk) else { return 0 };
        (1..=4).take_while(|n| keeper.accept(&bytes(&bundle(*n))).is_ok()).last().unwrap_or(0)
    };
    let check = |disk: &SimDisk, promised: u64| {
        let kept = keeper(disk).map_err(|e| e.to_string())?;
        let found = kept.newest().map_or(0, |view| view.generation);
        if found < promised {
            return Err(format!("generation {promised} was used, {found} is found"));
        }
        match kept.accept(&bytes(&bundle(found))) {
            Err(BundleError::Older { .. }) => Ok(()),
            _ if found == 0 => Ok(()),
            other => Err(format!("an old one was taken: {other:?}")),
        }
    };
    // The next process may be cut as well, once it has used what it found.
    let recover = |disk: &SimDisk| drop(keeper(disk));
    Cuts::over(0..8).recovering(&recover).run(workload, check).holds("bundle");
}

#[test]
fn a_kept_bundle_that_cannot_be_read_stops_the_gateway() {
    let disk = SimDisk::new(1);
    drop(keeper(&disk).unwrap().accept(&bytes(&bundle(5))).unwrap());
    disk::replace(&disk, Path::new("/gw/bundle.json"), b"{\"format\":1").unwrap();
    assert_eq!(keeper(&disk).unwrap_err().as_str(), "not_json");
}

/// INV-AUTH-1: what cannot be read lets nobody in, and hides nothing else.
#[test]
fn an_entry_that_cannot_be_read_is_left_out_alone() {
    let mut odd = bundle(1);
    odd.devices[0].seal_keys[0].id = key(3).id;
    odd.devices[0].seal_keys.push(BundleKey { id: key(4).id, spki: "30zz".into() });
    odd.devices[0].tls_keys.push("not hex".into());
    odd.devices.push(BundleDevice { id: "Bad Name".into(), ..odd.devices[0].clone() });
    let view = View::of(&odd, &us()).unwrap();
    assert_eq!((view.unreadable, view.devices()), (4, 1));
    let pump = DeviceId::new("pump-1").unwrap();
    let id = |n: u8| KeyId::from_hex(&key(n).id).unwrap();
    assert!(view.seal_key(&pump, &id(1)).is_none(), "its thumbprint names another key");
    assert!(view.seal_key(&pump, &id(3)).is_none());
    assert!(view.seal_key(&pump, &id(2)).is_some());
    assert_eq!(view.seal_keys().collect::<Vec<_>>(), [&id(2)]);

    let mut twice = bundle(1);
    twice.devices.push(twice.devices[0].clone());
    let view = View::of(&twice, &us()).unwrap();
    let peer = Peer { device: Some(pump), spki: Digest([1; 32]) };
    assert_eq!(view.may_connect(&peer), Err(Refusal::Quarantined));
    assert_eq!(view.may_check_in(&peer), Err(Refusal::UnknownTlsKey));
    assert_eq!(View::of(&bundle(1), &us()).unwrap().may_connect(&peer), Ok(()));
}

/// INV-AUTH-1: quarantine is what one comes back from, so it leaves the way to be told how; nothing else does.
#[test]
fn who_is_quarantined_may_check_in_and_have_no_session() {
    let peer = |device: &str, spki| Peer {
        device: Some(DeviceId::new(device).unwrap()),
        spki: Digest([spki; 32]),
    };
    let mut told = bundle(1);
    let mut asked = |standing, zone: &str, peer: &Peer| {
        told.devices[0].standing = standing;
        told.devices[0].zone = zone.into();
        let view = View::of(&told, &us()).unwrap();
        (view.may_connect(peer), view.may_check_in(peer))
    };
    let pump = peer("pump-1", 1);
    use Standing::{Enrolled, Listed, Quarantined, Revoked};
    assert_eq!(asked(Enrolled, "hall", &pump), (Ok(()), Ok(())));
    assert_eq!(asked(Quarantined, "hall", &pump), (Err(Refusal::Quarantined), Ok(())));
    for (standing, zone, peer, expected) in [
        (Quarantined, "hall", peer("pump-1", 2), Refusal::UnknownTlsKey),
        (Quarantined, "yard", pump.clone(), Refusal::Quarantined),
        (Enrolled, "yard", pump.clone(), Refusal::PolicyConnect),
        (Enrolled, "hall", peer("pump-1", 2), Refusal::UnknownTlsKey),
        (Enrolled, "hall", peer("pump-2", 1), Refusal::UnknownDevice),
        (Revoked, "hall", pump.clone(), Refusal::Revoked),
        (Listed, "hall", pump.clone(), Refusal::NotEnrolled),
        (Enrolled, "hall", Peer { device: None, spki: Digest([1; 32]) }, Refusal::NotADevice),
    ] {
        assert_eq!(asked(standing, zone, &peer).1, Err(expected), "{standing:?} {zone} {peer:?}");
    }
}
