//! The bytes of each format, as `docs/formats/` draws them, kept for ever: what our encoders write today is what they
//! wrote then, and what was written then is still read.
//!
//! A file under `docs/formats/golden/` is never changed. A new version of a format brings new files, and the old ones
//! keep their readers.

use model::admission::{AdmissionList, Entry, Made};
use model::envelope::{
    Algorithm, LossCause, LostRange, MESSAGE_BYTES_MAX, decode_loss, encode_loss,
};
use model::lease::Lease;
use model::manifest::{Boot, Component, InstallEnd, Installed, Manifest, Outcome, Slot, Trusted};
use model::uplink::{
    self, AttestedBy, QuarantineReason, Record, Verdict, decode_reply, encode_reply,
};
use model::{
    Counter, DeviceId, Digest, GatewayId, GroupId, HardwareId, Header, Heard, Kind, Nonce, Prior,
    ProductId, Reading, Release, RolloutId, SecurityVersion, SeriesName, Timestamp, Unit, Value,
    Version, WallClock, ZoneId, bus, senml,
};
use std::path::Path;
use std::time::Duration;
use trust::cose::{self, SecretKey, Signer};
use trust::mac::{MAC_BYTES, MacKey};
use trust::taken::{Admission, Taken};
use trust::tuf::make::{self, Head, Keys, Roles};
use trust::tuf::{Custom, Order, Target, Update};
use trust::uptane::{Lifetimes, Signers, directed};
use trust::window::Window;

#[test]
fn a_pack_of_readings() {
    let pack = senml::encode(&readings());
    assert_golden("readings-pack-v1", &pack);
    assert_eq!(senml::decode(&pack), Ok(readings()));
}

#[test]
fn a_sealed_pack_of_readings() {
    for (name, key) in [("readings-v1-ed25519", device()), ("readings-v1-esp256", device_p256())] {
        let header = header(Kind::Readings, &key);
        let message = cose::seal(&header, &senml::encode(&readings()), &key).unwrap();
        assert_golden(name, &message);
        assert_sealed(&message, &header, &key);
    }
}

#[test]
fn a_sealed_pack_with_as_little_as_may_be() {
    let (header, key) = first_header();
    let message = cose::seal(&header, &senml::encode(&readings()[..1]), &key).unwrap();
    assert_golden("readings-v1-least", &message);
    assert_sealed(&message, &header, &key);
}

#[test]
fn a_loss_notice() {
    let key = device();
    let header = header(Kind::LossNotice, &key);
    let message = cose::seal(&header, &encode_loss(&lost()), &key).unwrap();
    assert_golden("loss-notice-v1", &message);
    assert_eq!(decode_loss(assert_sealed(&message, &header, &key)), Ok(lost().to_vec()));
}

#[test]
fn a_batch_on_its_way_up_and_the_reply() {
    let key = gateway();
    let header = Header { prior: None, heard: None, ..header(Kind::UplinkBatch, &key) };
    let batch = uplink::Batch {
        gateway: GatewayId::new("gw-1").unwrap(),
        zone: ZoneId::new("press-hall").unwrap(),
        bundle: 12,
        records: vec![record(), sealed_by_the_gateway()],
    };
    let message = cose::seal(&header, &batch.encode(), &key).unwrap();
    assert_golden("uplink-batch-v1", &message);
    assert_eq!(uplink::Batch::decode(assert_sealed(&message, &header, &key)), Ok(batch));

    let quarantined = QuarantineReason::ALL.iter().map(|reason| Verdict::Quarantined(*reason));
    let verdicts: Vec<Verdict> =
        [Verdict::Stored, Verdict::Known].into_iter().chain(quarantined).collect();
    let reply = encode_reply(&verdicts);
    assert_golden("uplink-reply-v1", &reply);
    assert_eq!(decode_reply(&reply), Ok(verdicts));
}

#[test]
fn a_batch_on_the_bus() {
    let batch = bus::Batch {
        gateway: GatewayId::new("gw-1").unwrap(),
        zone: ZoneId::new("press-hall").unwrap(),
        entries: vec![
            bus::Entry { record: record(), quarantine: None },
            bus::Entry {
                record: sealed_by_the_gateway(),
                quarantine: Some(QuarantineReason::UnknownKey),
            },
        ],
    };
    let key = MacKey::new([9; 32]);
    let bytes = batch.encode();
    let on_the_bus = [&key.tag(&bytes)[..], &bytes].concat();
    assert_golden("bus-record-v1", &on_the_bus);
    let (tag, bytes) = on_the_bus.split_at(MAC_BYTES);
    assert!(key.is_tag(bytes, tag));
    assert_eq!(bus::Batch::decode(bytes), Ok(batch));
}

#[test]
fn what_the_store_and_the_gateway_remember_of_a_key() {
    let mut taken = Taken::default();
    for (counter, prior) in [
        (at(0, 0), None),
        (at(0, 1), None),
        (at(2, 0), Some(at(0, 1))),
        (at(2, 7), None),
        (at(3, 0), Some(at(2, 9))),
    ] {
        let digest = Digest([16 * counter.epoch as u8 + counter.sequence as u8; 32]);
        assert_eq!(taken.admit(counter, &digest, prior), Admission::New);
    }
    taken.close(2, 4, 5);
    assert_eq!(taken.open_gaps(), [(2, 1, 3), (2, 6, 6), (2, 8, 9)]);
    assert_golden("taken-v1", &taken.encode());
    assert_eq!(Taken::decode(&taken.encode()), Ok(taken));

    // Written by hand: it takes more than a thousand epochs to forget the lowest.
    let forgotten = [&[0x84, 1, 0x82, 3, 17][..], &[0x81, 0x82, 4, 2], &[0x80]].concat();
    assert_golden("taken-v1-forgotten", &forgotten);
    let mut taken = Taken::decode(&forgotten).unwrap();
    assert_eq!(taken.encode(), forgotten);
    assert_eq!(taken.admit(at(3, 17), &Digest([0; 32]), None), Admission::BeyondMemory);
    assert_eq!(taken.admit(at(3, 18), &Digest([0; 32]), None), Admission::New);
    assert_eq!(taken.admit(at(4, 2), &Digest([0; 32]), None), Admission::Repeat);
    assert_eq!(taken.admit(at(4, 3), &Digest([0; 32]), None), Admission::AfterEnd);

    let mut window = Window::new(3);
    for sequence in [0, 1, 3, 2] {
        window.admit(at(7, sequence), Digest([sequence as u8; 32]));
    }
    assert_golden("window-v1", &window.encode());
    assert_eq!(Window::decode(&window.encode()), Ok(window));
}

#[test]
fn a_lease() {
    let key = lease_key();
    let header = Header { prior: None, heard: None, ..header(Kind::Lease, &key) };
    let message = cose::seal(&header, &lease().encode(), &key).unwrap();
    assert_golden("lease-v1", &message);
    assert_eq!(Lease::decode(assert_sealed(&message, &header, &key)), Ok(lease()));
}

#[test]
fn a_version_manifest() {
    let key = device();
    let header = header(Kind::Manifest, &key);
    let message = cose::seal(&header, &manifest().encode(), &key).unwrap();
    assert_golden("manifest-v1", &message);
    assert_eq!(Manifest::decode(assert_sealed(&message, &header, &key)), Ok(manifest()));
}

#[test]
fn an_admission_list() {
    let key = lease_key();
    let message = trust::admission::seal(&admission_list(), &key).unwrap();
    assert_golden("admission-list-v1", &message);
    assert_eq!(trust::admission::open(&message, key.public()), Ok(admission_list()));
}

#[test]
fn a_directors_word_for_one_device() {
    let (ed25519, p256) = (lease_key(), device_p256());
    let both = [ed25519.public().clone(), p256.public().clone()];
    let (two, one) = (Keys { keys: &both, threshold: 2 }, Keys { keys: &both[..1], threshold: 1 });
    let roles = Roles { root: two, timestamp: one, snapshot: one, targets: two };
    let issued = Timestamp(1_750_000_000_000_000);
    let expires = Timestamp(issued.as_us() + 365 * 86_400_000_000);
    let head = Head { version: 1, expires, device: None };
    let root = make::root(&head, &roles, &[&ed25519, &p256]).unwrap();

    let pump = DeviceId::new("pump-7").unwrap();
    let day = Duration::from_secs(86_400);
    let lifetimes = Lifetimes { timestamp: day, snapshot: 7 * day, targets: 7 * day };
    let signers =
        Signers { timestamp: &[&ed25519], snapshot: &[&ed25519], targets: &[&ed25519, &p256] };
    let made = directed(&pump, 41, &[target()], issued, &lifetimes, &signers).unwrap();
    for (name, bytes) in [
        ("tuf-root-v1", &root),
        ("tuf-director-timestamp-v1", &made.timestamp),
        ("tuf-director-snapshot-v1", &made.snapshot),
        ("tuf-director-targets-v1", &made.targets),
    ] {
        assert_golden(name, bytes);
    }

    let trusted = trust::tuf::Trusted::from_root(&root, Some(pump)).unwrap();
    let mut update = Update::begin(trusted, issued);
    while let Some(fetch) = update.next() {
        match made.file(&fetch.name) {
            Some(bytes) => update.take(bytes).unwrap(),
            None => update.absent().unwrap(),
        };
    }
    let trusted = update.into_trusted();
    assert_eq!(trusted.current(issued).unwrap().targets(), [target()]);
}

// The fixed inputs, as `docs/formats/README.md` names them.

fn device() -> SecretKey {
    SecretKey::from_random(Algorithm::Ed25519, &[1; 32]).unwrap()
}

fn device_p256() -> SecretKey {
    SecretKey::from_random(Algorithm::Esp256, &[1; 32]).unwrap()
}

fn gateway() -> SecretKey {
    SecretKey::from_random(Algorithm::Ed25519, &[2; 32]).unwrap()
}

fn lease_key() -> SecretKey {
    SecretKey::from_random(Algorithm::Ed25519, &[3; 32]).unwrap()
}

fn lease() -> Lease {
    Lease {
        zone: ZoneId::new("press-hall").unwrap(),
        number: 9,
        issued: Timestamp(1_750_000_000_000_000),
        not_after: Timestamp(1_750_000_900_000_000),
        policy: 12,
        revocation: 3,
        halted: vec![RolloutId::new("r-11").unwrap(), RolloutId::new("r-9").unwrap()],
    }
}

fn admission_list() -> AdmissionList {
    let entry = |serial: &str, made, group: &str| Entry {
        serial: serial.into(),
        made,
        zone: ZoneId::new("press-hall").unwrap(),
        group: GroupId::new(group).unwrap(),
    };
    AdmissionList {
        batch: "2025-w24".into(),
        made: Timestamp(1_750_000_000_000_000),
        entries: vec![
            entry("GW-0001", Made::Gateway, "production"),
            entry("PUMP-0007", Made::Device, "pilot"),
        ],
    }
}

fn manifest() -> Manifest {
    let slot = |minor: u32| Installed {
        version: Version::new(1, minor, 0),
        digest: Digest([minor as u8; 32]),
        length: 5_000_000,
        security_version: SecurityVersion(3),
    };
    let product = ProductId::new("pump-app").unwrap();
    Manifest {
        device: DeviceId::new("pump-7").unwrap(),
        components: vec![Component {
            product: product.clone(),
            hardware: HardwareId::new("pump-box").unwrap(),
            floor: SecurityVersion(2),
            running: Slot::B,
            boot: Boot::Reverted,
            slots: [None, Some(slot(1))],
        }],
        director: Trusted { root: 1, timestamp: 41, snapshot: 41, targets: 41 },
        images: Trusted { root: 2, timestamp: 7, snapshot: 6, targets: 5 },
        outcome: Some(Outcome {
            rollout: Some(RolloutId::new("r-12").unwrap()),
            product,
            digest: Digest([2; 32]),
            end: InstallEnd::Reverted,
            reason: "health: the gateway was not reached".into(),
        }),
    }
}

fn target() -> Target {
    let release = Release {
        product: ProductId::new("pump-app").unwrap(),
        version: Version::new(1, 2, 0),
        security_version: SecurityVersion(3),
        hardware: vec![HardwareId::new("pump-box").unwrap()],
        must_pass: vec![Version::new(1, 1, 0)],
    };
    let rollout = Some(RolloutId::new("r-12").unwrap());
    let order = Order { release, rollout, raise: Some(SecurityVersion(3)) };
    let target = Target::of("pump-app/1.2.0/pump-box.bin", b"the image of 1.2.0", order);
    assert!(matches!(target.custom, Custom::Order(_)));
    target
}

fn at(epoch: u32, sequence: u64) -> Counter {
    Counter { epoch, sequence }
}

fn header(kind: Kind, key: &SecretKey) -> Header {
    Header {
        algorithm: key.public().algorithm(),
        kind,
        key: key.public().id(),
        counter: at(3, 0),
        uptime_ms: 86_400_000,
        wall: Some(WallClock { time: Timestamp(1_750_000_000_123_456), uncertainty_ms: 50 }),
        heard: Some(Heard { nonce: Nonce([5; 16]), lease: 9 }),
        prior: Some(Prior { key: key.public().id(), counter: at(2, 41) }),
    }
}

fn first_header() -> (Header, SecretKey) {
    let key = device();
    let header = Header {
        counter: at(0, 0),
        uptime_ms: 0,
        wall: None,
        heard: None,
        prior: None,
        ..header(Kind::Readings, &key)
    };
    (header, key)
}

fn readings() -> Vec<Reading> {
    let reading = |us: i64, series: &str, value: Value, unit: Option<&str>| Reading {
        time: Timestamp(1_750_000_000_000_000 + us),
        series: SeriesName::new(series).unwrap(),
        value,
        unit: unit.map(|unit| Unit::new(unit).unwrap()),
    };
    vec![
        reading(0, "bearing/temperature", Value::Float(73.96732207), Some("Cel")),
        reading(250_001, "starts", Value::Int(-7), None),
        reading(1_000_000, "door/open", Value::Bool(true), None),
        reading(-500_000, "mode", Value::Text("idle".into()), None),
    ]
}

fn lost() -> [LostRange; 3] {
    let key = device().public().id();
    [
        LostRange { key, epoch: 2, first: 17, last: 40, cause: LossCause::BacklogFull },
        LostRange { key, epoch: 2, first: 41, last: 41, cause: LossCause::Refused },
        LostRange { key, epoch: 1, first: 0, last: 0, cause: LossCause::Unreadable },
    ]
}

fn record() -> Record {
    let (header, key) = first_header();
    Record {
        device: DeviceId::new("pump-7").unwrap(),
        attested_by: AttestedBy::Device,
        received_at: Timestamp(1_750_000_001_000_000),
        uncertainty_ms: 20,
        fresh: true,
        message: cose::seal(&header, &senml::encode(&readings()[..1]), &key).unwrap(),
    }
}

fn sealed_by_the_gateway() -> Record {
    Record {
        device: DeviceId::new("meter.3").unwrap(),
        attested_by: AttestedBy::Gateway,
        uncertainty_ms: u32::MAX,
        fresh: false,
        message: b"not a message".to_vec(),
        ..record()
    }
}

/// Verifies a sealed message and returns its payload.
fn assert_sealed<'m>(message: &'m [u8], header: &Header, key: &SecretKey) -> &'m [u8] {
    let verified = cose::open(message, MESSAGE_BYTES_MAX).unwrap().verify(key.public()).unwrap();
    assert_eq!(verified.header(), header);
    verified.payload()
}

fn assert_golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/formats/golden")
        .join(format!("{name}.hex"));
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let golden: String = golden.lines().map(str::trim).collect();
    if golden != hex::encode(bytes) {
        let lines: Vec<String> = bytes.chunks(48).map(hex::encode).collect();
        panic!(
            "{} is not what is written today; golden bytes never change: a new version needs a \
             new file. Today:\n{}\n",
            path.display(),
            lines.join("\n")
        );
    }
}
