use super::*;
use crate::directory::Key;
use crate::known::Known;
use api::Purpose;
use api::Standing;
use model::envelope::{Algorithm, Counter, Header, LossCause, LostRange, Prior, encode_loss};
use model::uplink::AttestedBy;
use model::{DeviceId, Reading, SeriesName, Value};
use trust::cose::{SecretKey, Signer as _};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const GRACE: Duration = Duration::from_secs(86_400);

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).expect("any bytes do")
}

fn key(seed: u8, purpose: Purpose) -> Key {
    let public = secret(seed).public().clone();
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

fn device(id: &str, role: Role, zone: &str, seed: u8) -> Device {
    let device = Device {
        id: DeviceId::new(id).unwrap(),
        serial: id.to_owned(),
        role,
        zone: ZoneId::new(zone).unwrap(),
        standing: Standing::Listed,
        listed_at: NOW,
        enrolled_at: None,
        changed_at: NOW,
        group: crate::directory::default_group(),
        grouped_at: NOW,
        keys: Vec::new(),
    };
    device.with_key(key(seed, Purpose::Seal), NOW)
}

/// pump-1 seals with key 1, pump-2 with key 2, gw-1 with key 3, gw-2 with key 4; fan-1, in the yard, with key 5.
fn fleet() -> Vec<Device> {
    vec![
        device("pump-1", Role::Device, "hall", 1),
        device("pump-2", Role::Device, "hall", 2),
        device("gw-1", Role::Gateway, "hall", 3),
        device("gw-2", Role::Gateway, "yard", 4),
        device("fan-1", Role::Device, "yard", 5),
    ]
}

fn pack() -> Vec<u8> {
    let series = SeriesName::new("flow").unwrap();
    senml::encode(&[Reading { time: NOW, series, value: Value::Float(1.5), unit: None }])
}

/// One message of a device with the gateway's word on it, and everything that a refusal may change about it.
struct Sealed {
    fleet: Vec<Device>,
    seed: u8,
    kind: Kind,
    prior: Option<Prior>,
    payload: Vec<u8>,
    record: Record,
    spoil: fn(&mut Vec<u8>),
}

fn stored() -> Sealed {
    Sealed {
        fleet: fleet(),
        seed: 1,
        kind: Kind::Readings,
        prior: None,
        payload: pack(),
        record: Record {
            device: DeviceId::new("pump-1").unwrap(),
            attested_by: AttestedBy::Device,
            received_at: NOW,
            uncertainty_ms: 5,
            fresh: true,
            message: Vec::new(),
        },
        spoil: |_| {},
    }
}

fn header(seed: u8, kind: Kind, sequence: u64) -> Header {
    let public = secret(seed).public().clone();
    Header {
        algorithm: public.algorithm(),
        kind,
        key: public.id(),
        counter: Counter { epoch: 1, sequence },
        uptime_ms: 1,
        wall: None,
        heard: None,
        prior: None,
    }
}

impl Sealed {
    fn batch(&self) -> Batch {
        let header = Header { prior: self.prior, ..header(self.seed, self.kind, 7) };
        let mut message = cose::seal(&header, &self.payload, &secret(self.seed)).unwrap();
        (self.spoil)(&mut message);
        Batch {
            gateway: GatewayId::new("gw-1").unwrap(),
            zone: ZoneId::new("hall").unwrap(),
            bundle: 1,
            records: vec![Record { message, ..self.record.clone() }],
        }
    }

    fn judge(&self) -> Judgement {
        judge(self.batch(), &Directory::new(1, self.fleet.clone()), |_| false, 4)
    }
}

#[test]
fn what_a_device_of_the_zone_sealed_is_stored_on_its_shard() {
    let sealed = stored();
    let judgement = sealed.judge();
    assert_eq!(judgement.verdicts, [Verdict::Stored]);
    let (shard, Append { batch, seen }) = judgement.appends.first_key_value().unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(*shard, ::bus::shard_of(b"pump-1", 4));
    assert_eq!((batch.gateway.as_str(), batch.zone.as_str()), ("gw-1", "hall"));
    let record = sealed.batch().records.remove(0);
    assert_eq!(batch.entries, [Entry { record, quarantine: None }]);
    let mut notice = stored();
    notice.kind = Kind::LossNotice;
    let (first, last, cause) = (3, 5, LossCause::BacklogFull);
    let range = LostRange { key: key(1, Purpose::Seal).id, epoch: 0, first, last, cause };
    notice.payload = encode_loss(&[range]);
    assert_eq!(notice.judge().verdicts, [Verdict::Stored]);
}

/// From what is stored, each single change is put in quarantine with its reason, and goes onto the bus with it
/// (INV-ACK-1, INV-PURP-1, INV-AUTH-1).
#[test]
fn what_is_not_believed_goes_to_quarantine_with_the_exact_reason() {
    use QuarantineReason as Q;
    type Change = fn(&mut Sealed);
    let table: &[(&str, Change, Q)] = &[
        ("cut short", |s| s.spoil = |m| m.truncate(40), Q::Malformed),
        ("a byte too many", |s| s.spoil = |m| m.push(0), Q::Malformed),
        ("a batch inside a batch", |s| s.kind = Kind::UplinkBatch, Q::Malformed),
        ("readings that are none", |s| s.payload = vec![0x80], Q::Malformed),
        ("a loss notice with readings in it", |s| s.kind = Kind::LossNotice, Q::Malformed),
        ("a key that nobody certified", |s| s.seed = 99, Q::UnknownKey),
        (
            "a key certified for TLS",
            |s| {
                s.fleet[0] = s.fleet[0].with_key(key(9, Purpose::Tls), NOW);
                s.seed = 9;
            },
            Q::UnknownKey,
        ),
        (
            "another device's name",
            |s| s.record.device = DeviceId::new("pump-2").unwrap(),
            Q::WrongDevice,
        ),
        (
            "a device of another zone",
            |s| s.fleet[0].zone = ZoneId::new("yard").unwrap(),
            Q::WrongZone,
        ),
        ("a revoked device", |s| s.fleet[0].standing = Standing::Revoked, Q::Revoked),
        ("another signature", |s| s.spoil = |m| *m.last_mut().unwrap() ^= 1, Q::BadSignature),
        (
            "another payload under the signature",
            |s| {
                s.spoil = |m| {
                    let at = m.len() - 67;
                    m[at] ^= 1;
                }
            },
            Q::BadSignature,
        ),
        (
            "a loss notice on another device's key",
            |s| {
                s.kind = Kind::LossNotice;
                let cause = LossCause::Refused;
                let key = key(2, Purpose::Seal).id;
                s.payload = encode_loss(&[LostRange { key, epoch: 0, first: 0, last: 9, cause }]);
            },
            Q::ForeignRange,
        ),
        (
            "an end of another device's epoch",
            |s| {
                let counter = Counter { epoch: 0, sequence: 0 };
                s.prior = Some(Prior { key: key(2, Purpose::Seal).id, counter });
            },
            Q::ForeignRange,
        ),
    ];
    assert_eq!(stored().judge().verdicts, [Verdict::Stored]);
    for (what, change, reason) in table {
        let mut sealed = stored();
        change(&mut sealed);
        let judgement = sealed.judge();
        assert_eq!(judgement.verdicts, [Verdict::Quarantined(*reason)], "{what}");
        let record = sealed.batch().records.remove(0);
        let on_bus: Vec<_> =
            judgement.appends.values().flat_map(|append| append.batch.entries.clone()).collect();
        assert_eq!(on_bus, [Entry { record, quarantine: Some(*reason) }], "{what}");
    }
}

#[test]
fn one_bad_record_does_not_hold_up_the_others_and_a_devices_order_is_kept() {
    let directory = Directory::new(1, fleet());
    let mut batch = stored().batch();
    let record = batch.records.remove(0);
    for sequence in 0..9 {
        let message =
            cose::seal(&header(1, Kind::Readings, sequence), &pack(), &secret(1)).unwrap();
        let message = if sequence == 4 { b"noise".to_vec() } else { message };
        batch.records.push(Record { message, ..record.clone() });
    }
    let judgement = judge(batch.clone(), &directory, |_| false, 3);
    let bad: Vec<_> = judgement.verdicts.iter().map(|v| *v != Verdict::Stored).collect();
    assert_eq!(bad, [false, false, false, false, true, false, false, false, false]);
    assert_eq!(judgement.appends.len(), 1);
    let entries = &judgement.appends.values().next().unwrap().batch.entries;
    assert!(entries.iter().map(|e| &e.record).eq(&batch.records));
}

fn remember(known: &mut Known, judgement: &Judgement) {
    let seen = judgement.appends.values().flat_map(|append| append.seen.iter());
    seen.for_each(|seen| known.remember(*seen));
}

#[test]
fn what_is_durable_already_is_known_and_costs_no_second_append() {
    let directory = Directory::new(1, fleet());
    let sealed = stored();
    let mut known = Known::new(8);
    let first = judge(sealed.batch(), &directory, |seen| known.has(seen), 4);
    remember(&mut known, &first);
    let again = judge(sealed.batch(), &directory, |seen| known.has(seen), 4);
    assert_eq!(again.verdicts, [Verdict::Known]);
    assert!(again.appends.is_empty());
    // Other bytes under the same counter are no repeat. They are stored: which of the two counts, the store decides.
    let mut other = stored();
    other.payload = senml::encode(&[Reading {
        time: NOW,
        series: SeriesName::new("other").unwrap(),
        value: Value::Bool(true),
        unit: None,
    }]);
    let forged = judge(other.batch(), &directory, |seen| known.has(seen), 4);
    assert_eq!(forged.verdicts, [Verdict::Stored]);
    // What was said of it stays said, even if its device was revoked since; in another's name it is not known.
    let mut fleet = fleet();
    fleet[0].standing = Standing::Revoked;
    let later = judge(sealed.batch(), &Directory::new(2, fleet), |seen| known.has(seen), 4);
    assert_eq!(later.verdicts, [Verdict::Known]);
    let mut other = stored();
    other.record.device = DeviceId::new("pump-2").unwrap();
    let other = judge(other.batch(), &directory, |seen| known.has(seen), 4);
    assert_eq!(other.verdicts, [Verdict::Quarantined(QuarantineReason::WrongDevice)]);
}

#[test]
fn what_is_in_quarantine_already_gets_its_verdict_again_and_no_second_row() {
    let directory = Directory::new(1, fleet());
    let quarantined = |reason| [Verdict::Quarantined(reason)];
    let mut stray = stored();
    stray.record.device = DeviceId::new("pump-2").unwrap();
    let mut noise = stored();
    noise.spoil = |m| m.truncate(20);
    let table = [(stray, QuarantineReason::WrongDevice), (noise, QuarantineReason::Malformed)];
    let mut known = Known::new(8);
    for (sealed, reason) in &table {
        let first = judge(sealed.batch(), &directory, |seen| known.has(seen), 4);
        assert_eq!(first.verdicts, quarantined(*reason));
        assert_eq!(first.appends.len(), 1);
        remember(&mut known, &first);
        let again = judge(sealed.batch(), &directory, |seen| known.has(seen), 4);
        assert_eq!(again.verdicts, quarantined(*reason));
        assert!(again.appends.is_empty());
    }
    // The same bytes in the right name are believed as if nothing had been.
    let right = judge(stored().batch(), &directory, |seen| known.has(seen), 4);
    assert_eq!(right.verdicts, [Verdict::Stored]);
    // For another reason they are another row: the first one does not say it.
    let mut fleet = fleet();
    fleet[0].zone = ZoneId::new("yard").unwrap();
    fleet[1].zone = ZoneId::new("yard").unwrap();
    let moved = Directory::new(2, fleet);
    let later = judge(stored().batch(), &moved, |seen| known.has(seen), 4);
    assert_eq!(later.verdicts, quarantined(QuarantineReason::WrongZone));
    assert_eq!(later.appends.len(), 1);
}

#[test]
fn a_replaced_key_is_believed_for_what_it_sealed_however_late_it_comes() {
    let mut sealed = stored();
    sealed.fleet[0] = sealed.fleet[0].with_key(key(8, Purpose::Seal), Timestamp(0));
    assert!(!sealed.fleet[0].keys[0].is_live(GRACE, NOW));
    assert_eq!(sealed.judge().verdicts, [Verdict::Stored]);
}

/// A call of gw-1, and everything that a refusal may change about it.
struct Sent {
    fleet: Vec<Device>,
    seed: u8,
    kind: Kind,
    batch: Batch,
    spoil: fn(&mut Vec<u8>),
    squeeze: fn(&[u8]) -> Vec<u8>,
    now: Timestamp,
}

fn sent() -> Sent {
    let fleet = fleet();
    Sent {
        fleet,
        seed: 3,
        kind: Kind::UplinkBatch,
        batch: stored().batch(),
        spoil: |_| {},
        squeeze: |message| zstd::bulk::compress(message, 1).unwrap(),
        now: NOW,
    }
}

impl Sent {
    fn open(&self) -> Result<Batch, CallRefusal> {
        let header = header(self.seed, self.kind, 1);
        let mut message = cose::seal(&header, &self.batch.encode(), &secret(self.seed)).unwrap();
        (self.spoil)(&mut message);
        let directory = Directory::new(1, self.fleet.clone());
        let gateway = &self.fleet[2];
        open(&(self.squeeze)(&message), gateway, &directory, GRACE, self.now)
    }
}

#[test]
fn a_gateways_own_word_is_taken() {
    assert_eq!(sent().open(), Ok(stored().batch()));
}

/// From a call that is taken, each single change is refused with its reason (INV-COST-1, INV-PURP-1, INV-AUTH-1).
#[test]
fn a_call_that_is_not_the_gateways_word_is_refused_as_a_whole() {
    type Change = fn(&mut Sent);
    let table: &[(&str, Change, &str)] = &[
        ("not compressed", |s| s.squeeze = <[u8]>::to_vec, "not_zstd"),
        (
            "cut short",
            |s| s.squeeze = |m| zstd::bulk::compress(m, 1).unwrap()[..40].to_vec(),
            "not_zstd",
        ),
        (
            "bytes behind the frame",
            |s| s.squeeze = |m| [zstd::bulk::compress(m, 1).unwrap(), vec![1]].concat(),
            "not_zstd",
        ),
        (
            "a bomb",
            |s| s.squeeze = |_| zstd::bulk::compress(&vec![0; CALL_BYTES_MAX + 1], 1).unwrap(),
            "oversize",
        ),
        ("no COSE", |s| s.spoil = |m| m[0] = 0, "broken_cbor"),
        ("a byte too many", |s| s.spoil = |m| m.push(0), "trailing_bytes"),
        ("another kind", |s| s.kind = Kind::Readings, "wrong_kind"),
        ("a key that nobody certified", |s| s.seed = 99, "unknown_key"),
        ("another gateway's key", |s| s.seed = 4, "foreign_key"),
        ("a device's key", |s| s.seed = 1, "foreign_key"),
        ("another signature", |s| s.spoil = |m| *m.last_mut().unwrap() ^= 1, "bad_signature"),
        (
            "a key retired long ago",
            |s| {
                s.fleet[2] = s.fleet[2].with_key(key(8, Purpose::Seal), NOW);
                s.now = Timestamp(NOW.as_us() + 86_400_000_000);
            },
            "key_retired",
        ),
        (
            "another gateway's name",
            |s| s.batch.gateway = GatewayId::new("gw-2").unwrap(),
            "wrong_gateway",
        ),
        ("another zone", |s| s.batch.zone = ZoneId::new("yard").unwrap(), "wrong_zone"),
    ];
    for (what, change, word) in table {
        let mut call = sent();
        change(&mut call);
        assert_eq!(call.open().expect_err(what).word(), *word, "{what}");
    }
    let mut just_rotated = sent();
    just_rotated.fleet[2] = just_rotated.fleet[2].with_key(key(8, Purpose::Seal), NOW);
    assert!(just_rotated.open().is_ok(), "what was under way when the key was replaced");
}

/// INV-COST-1: the fullest batch that a gateway can send fits into one record of the bus, and into one body.
#[test]
fn the_fullest_batch_fits() {
    let record = stored().batch().records.remove(0);
    let mut batch = stored().batch();
    batch.records.clear();
    let len = BATCH_BYTES_MAX / BATCH_RECORDS_MAX - 48;
    for n in 0..BATCH_RECORDS_MAX as u64 {
        // Noise does not compress.
        let message: Vec<u8> = (0..)
            .flat_map(|i| trust::digest(&[n, i].map(u64::to_be_bytes).concat()).0)
            .take(len)
            .collect();
        batch.records.push(Record { message, ..record.clone() });
    }
    let payload = batch.encode();
    assert!(payload.len() <= BATCH_BYTES_MAX && payload.len() > BATCH_BYTES_MAX - 64 * 1024);
    let message = cose::seal(&header(3, Kind::UplinkBatch, 1), &payload, &secret(3)).unwrap();
    assert!(zstd::bulk::compress(&message, 1).unwrap().len() <= BODY_BYTES_MAX);
    let judgement = judge(batch, &Directory::new(1, fleet()), |_| false, 1);
    assert_eq!(judgement.verdicts.len(), BATCH_RECORDS_MAX);
    let mac = MacKey::new([7; 32]);
    let framed = framed(&judgement.appends[&0].batch, &mac);
    assert!(framed.len() <= BUS_RECORD_BYTES_MAX);
    let (tag, batch) = framed.split_at(MAC_BYTES);
    assert!(mac.is_tag(batch, tag));
    assert_eq!(bus::Batch::decode(batch).as_ref(), Ok(&judgement.appends[&0].batch));
}
