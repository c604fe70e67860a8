//! What is fuzzed. A target passes bytes through the parsers that would see them on the road, in order, and says how far
//! they came. What decodes must mean the same when it is encoded and decoded again.

mod evidence;
mod mqtt;
mod statement;
mod tuf;
mod x509;

use model::admission::AdmissionList;
use model::cbor::Malformed;
use model::envelope::{self, Algorithm, LossCause, LostRange, WallClock};
use model::lease::Lease;
use model::manifest::Manifest;
use model::uplink::{self, AttestedBy, QuarantineReason, Record, Verdict};
use model::{Counter, DeviceId, Digest, GatewayId, Header, Heard, KeyId, Kind, Nonce, Prior};
use model::{Reading, SeriesName, Timestamp, Unit, Value, ZoneId, bus, senml};
use trust::cose::{self, SecretKey, Signer};
use trust::taken::Taken;
use trust::window::Window;

/// A parser, or several behind one another.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]) -> End,
    /// Inputs that are accepted to the end.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Changed inputs are cut to this; a little above the parser's own bound, so that the bound is tried.
    pub len_max: usize,
    /// What an input may take of memory, in bytes: so much, and so much for each of its own.
    pub memory_fixed: usize,
    pub memory_per_byte: usize,
}

/// How an input ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// How many parsers it passed.
    pub depth: u32,
    /// What the next one said, or how it was accepted.
    pub words: String,
}

const ACCEPTED: &str = "accepted";

impl End {
    pub fn accepted(depth: u32) -> Self {
        Self { depth, words: ACCEPTED.to_owned() }
    }

    pub fn refused(depth: u32, words: impl ToString) -> Self {
        Self { depth, words: words.to_string() }
    }

    pub fn is_accepted(&self) -> bool {
        self.words == ACCEPTED
    }
}

/// Above what `keys` reads of a certificate, a request or a bag.
const DER_BYTES_MAX: usize = 40 * 1024;

pub fn all() -> Vec<Target> {
    let plain = Target {
        name: "envelope",
        run: envelope,
        seeds: envelopes,
        len_max: envelope::MESSAGE_BYTES_MAX + 64,
        memory_fixed: 16 * 1024,
        memory_per_byte: 48,
    };
    vec![
        plain.clone(),
        Target {
            name: "senml",
            run: senml,
            seeds: packs,
            len_max: senml::PACK_BYTES_MAX + 64,
            ..plain.clone()
        },
        Target { name: "uplink-batch", run: uplink_batch, seeds: uplink_batches, ..plain.clone() },
        Target { name: "uplink-reply", run: uplink_reply, seeds: uplink_replies, ..plain.clone() },
        Target { name: "bus-batch", run: bus_batch, seeds: bus_batches, ..plain.clone() },
        Target { name: "window", run: window, seeds: windows, ..plain.clone() },
        Target { name: "taken", run: taken, seeds: takens, ..plain.clone() },
        Target { name: "lease", run: statement::lease, seeds: statement::leases, ..plain.clone() },
        Target {
            name: "manifest",
            run: statement::manifest,
            seeds: statement::manifests,
            ..plain.clone()
        },
        Target {
            name: "tuf",
            run: tuf::run,
            seeds: tuf::seeds,
            // Above what a timestamp may have; the other files have more, and are as long here as this one.
            len_max: 20 * 1024,
            memory_fixed: 256 * 1024,
            memory_per_byte: 256,
        },
        Target {
            name: "evidence-leaf",
            run: evidence::leaf,
            seeds: evidence::leaves,
            len_max: 17 * 1024,
            memory_fixed: 256 * 1024,
            memory_per_byte: 256,
        },
        Target {
            name: "evidence-export",
            run: evidence::export,
            seeds: evidence::exports,
            // Far below what an export may have: its parts are the same at any length.
            len_max: 20 * 1024,
            memory_fixed: 256 * 1024,
            memory_per_byte: 256,
        },
        Target {
            name: "certificate",
            run: x509::certificate,
            seeds: x509::certificates,
            len_max: DER_BYTES_MAX,
            ..plain.clone()
        },
        Target {
            name: "request",
            run: x509::request,
            seeds: x509::requests,
            len_max: DER_BYTES_MAX,
            ..plain.clone()
        },
        Target {
            name: "pkcs7",
            run: x509::bag,
            seeds: x509::bags,
            len_max: DER_BYTES_MAX,
            ..plain.clone()
        },
        Target {
            name: "mqtt",
            run: mqtt::run,
            seeds: mqtt::seeds,
            // A few packets of the greatest length.
            len_max: 128 * 1024,
            memory_fixed: 256 * 1024,
            ..plain
        },
    ]
}

/// A device's message: COSE, then the signature, then what it carries. A changed input rarely keeps its signature, so
/// the payload is read without; that is what the gateway does for a device whose key leaked.
fn envelope(bytes: &[u8]) -> End {
    let message = match cose::open(bytes, envelope::MESSAGE_BYTES_MAX) {
        Ok(message) => message,
        Err(malformed) => return End::refused(0, malformed),
    };
    let header = message.header().clone();
    assert_eq!(Header::decode(&header.encode()).as_ref(), Ok(&header), "a header has one form");
    let payload = message.payload_without_signature_check().to_vec();
    let depth = match message.verify(key().public()) {
        Ok(_) => {
            // Nobody but the holder of the key makes one that verifies, and it made these only (INV-PURP-1).
            assert!(envelopes().iter().any(|sealed| sealed == bytes), "a forged message verifies");
            2
        }
        Err(_) => 1,
    };
    let parsed = match header.kind {
        Kind::Readings => senml::decode(&payload).map(|_| ()),
        Kind::LossNotice => envelope::decode_loss(&payload).map(|ranges| {
            let again = envelope::decode_loss(&envelope::encode_loss(&ranges));
            assert_eq!(again, Ok(ranges), "a loss notice keeps its meaning");
        }),
        Kind::UplinkBatch => uplink::Batch::decode(&payload).map(|_| ()),
        Kind::Lease => Lease::decode(&payload).map(|lease| {
            assert_eq!(Lease::decode(&lease.encode()), Ok(lease), "a lease keeps its meaning");
        }),
        Kind::Manifest => Manifest::decode(&payload).map(|manifest| {
            let again = Manifest::decode(&manifest.encode());
            assert_eq!(again, Ok(manifest), "a manifest keeps its meaning");
        }),
        Kind::AdmissionList => AdmissionList::decode(&payload).map(|list| {
            let again = AdmissionList::decode(&list.encode());
            assert_eq!(again, Ok(list), "an admission list keeps its meaning");
        }),
    };
    match parsed {
        Ok(()) if depth == 2 => End::accepted(3),
        Ok(()) => End::refused(2, "read, and not signed"),
        Err(malformed) => End::refused(depth, malformed),
    }
}

fn senml(bytes: &[u8]) -> End {
    // The first parser is CBOR: what has its shape wrong gets nowhere.
    let readings = match senml::decode(bytes) {
        Ok(readings) => readings,
        Err(malformed) => return End::refused(depth(&malformed), malformed),
    };
    let again = senml::decode(&senml::encode(&readings)).expect("what was read can be written");
    assert_eq!(again, readings, "a reading keeps its meaning");
    End::accepted(2)
}

fn uplink_batch(bytes: &[u8]) -> End {
    let batch = match uplink::Batch::decode(bytes) {
        Ok(batch) => batch,
        Err(malformed) => return End::refused(depth(&malformed), malformed),
    };
    assert_eq!(uplink::Batch::decode(&batch.encode()).as_ref(), Ok(&batch));
    // Each of its messages is judged by itself, and none holds up the others.
    let opened = batch
        .records
        .iter()
        .filter(|r| cose::open(&r.message, envelope::MESSAGE_BYTES_MAX).is_ok());
    match opened.count() == batch.records.len() {
        true => End::accepted(3),
        false => End::refused(2, "a record is malformed"),
    }
}

fn uplink_reply(bytes: &[u8]) -> End {
    match uplink::decode_reply(bytes) {
        Ok(verdicts) => {
            let again = uplink::decode_reply(&uplink::encode_reply(&verdicts));
            assert_eq!(again, Ok(verdicts));
            End::accepted(2)
        }
        Err(malformed) => End::refused(depth(&malformed), malformed),
    }
}

fn bus_batch(bytes: &[u8]) -> End {
    match bus::Batch::decode(bytes) {
        Ok(batch) => {
            assert_eq!(bus::Batch::decode(&batch.encode()).as_ref(), Ok(&batch));
            End::accepted(2)
        }
        Err(malformed) => End::refused(depth(&malformed), malformed),
    }
}

fn window(bytes: &[u8]) -> End {
    match Window::decode(bytes) {
        Ok(mut window) => {
            assert_eq!(Window::decode(&window.encode()).as_ref(), Ok(&window));
            window.admit(Counter { epoch: u32::MAX, sequence: u64::MAX }, Digest([9; 32]));
            End::accepted(2)
        }
        Err(malformed) => End::refused(depth(&malformed), malformed),
    }
}

fn taken(bytes: &[u8]) -> End {
    match Taken::decode(bytes) {
        Ok(mut taken) => {
            assert_eq!(Taken::decode(&taken.encode()).as_ref(), Ok(&taken));
            // Whatever a file says, judging goes on and stays within its bounds.
            for (epoch, sequence) in [(0, 0), (1, 7), (2, u64::MAX), (u32::MAX, u64::MAX)] {
                let counter = Counter { epoch, sequence };
                taken.admit(counter, &Digest([7; 32]), Some(Counter { epoch: 0, sequence: 3 }));
            }
            taken.close(1, 0, u64::MAX);
            taken.end_epoch(Counter { epoch: 1, sequence: 0 });
            assert!(taken.open_gaps().len() <= 64, "a key has at most 64 open gaps");
            assert_eq!(Taken::decode(&taken.encode()), Ok(taken));
            End::accepted(2)
        }
        Err(malformed) => End::refused(depth(&malformed), malformed),
    }
}

/// Words that come from behind CBOR's own grammar have passed it.
fn depth(malformed: &Malformed) -> u32 {
    u32::from(malformed.reason != model::cbor::Reason::BrokenCbor)
}

fn key() -> SecretKey {
    SecretKey::from_random(Algorithm::Ed25519, &[7; 32]).expect("any 32 bytes are an Ed25519 key")
}

fn sealed(kind: Kind, counter: (u32, u64), payload: &[u8]) -> Vec<u8> {
    let key = key();
    let first = counter.1 == 0;
    let header = Header {
        algorithm: Algorithm::Ed25519,
        kind,
        key: key.public().id(),
        counter: Counter { epoch: counter.0, sequence: counter.1 },
        uptime_ms: 86_400_000,
        wall: Some(WallClock { time: Timestamp(1_800_000_000_000_000), uncertainty_ms: 20 }),
        heard: (!first).then_some(Heard { nonce: Nonce([3; 16]), lease: 0 }),
        prior: first
            .then_some(Prior { key: KeyId([5; 32]), counter: Counter { epoch: 1, sequence: 400 } }),
    };
    cose::seal(&header, payload, &key).expect("a key in memory signs")
}

fn envelopes() -> Vec<Vec<u8>> {
    let packs = packs();
    let mut seeds: Vec<_> =
        (0..).zip(&packs).map(|(n, pack)| sealed(Kind::Readings, (2, n), pack)).collect();
    let lost = |epoch, first, last, cause| LostRange {
        key: key().public().id(),
        epoch,
        first,
        last,
        cause,
    };
    let lost = [
        lost(1, 3, 3, LossCause::Refused),
        lost(1, 9, 4_000_000_000, LossCause::BacklogFull),
        lost(2, 0, u64::MAX, LossCause::Unreadable),
    ];
    seeds.push(sealed(Kind::LossNotice, (3, 70_000), &envelope::encode_loss(&lost)));
    seeds.push(sealed(Kind::UplinkBatch, (3, 1), &batch(&seeds[..1]).encode()));
    let statements = [
        (Kind::Lease, statement::leases().remove(0)),
        (Kind::Manifest, statement::manifests().remove(0)),
    ];
    seeds.extend((2..).zip(&statements).map(|(n, (kind, said))| sealed(*kind, (3, n), said)));
    seeds
}

fn packs() -> Vec<Vec<u8>> {
    let reading = |ms: i64, series: &str, value: Value, unit: Option<&str>| Reading {
        time: Timestamp::from_ms(1_800_000_000_000 + ms),
        series: SeriesName::new(series).expect("a good name"),
        value,
        unit: unit.map(|u| Unit::new(u).expect("a good unit")),
    };
    vec![
        senml::encode(&[reading(0, "cpu.busy", Value::Float(0.25), Some("/"))]),
        senml::encode(&[
            reading(0, "temp", Value::Float(-12.5), Some("Cel")),
            reading(250, "disk.read", Value::Int(i64::MAX), Some("B")),
            reading(500, "door.open", Value::Bool(true), None),
            reading(86_400_000, "state", Value::Text("läuft".to_owned()), None),
        ]),
    ]
}

fn batch(messages: &[Vec<u8>]) -> uplink::Batch {
    let record = |message: &Vec<u8>| Record {
        device: DeviceId::new("pump-1").expect("a good name"),
        attested_by: AttestedBy::Device,
        received_at: Timestamp(1_800_000_000_000_000),
        uncertainty_ms: 50,
        fresh: true,
        message: message.clone(),
    };
    uplink::Batch {
        gateway: GatewayId::new("gw-1").expect("a good name"),
        zone: ZoneId::new("hall").expect("a good name"),
        bundle: 4,
        records: messages.iter().map(record).collect(),
    }
}

fn uplink_batches() -> Vec<Vec<u8>> {
    let messages = envelopes();
    vec![batch(&messages).encode(), batch(&messages[..1]).encode(), batch(&[]).encode()]
}

fn uplink_replies() -> Vec<Vec<u8>> {
    let quarantined = QuarantineReason::ALL.iter().map(|reason| Verdict::Quarantined(*reason));
    let all: Vec<_> = [Verdict::Stored, Verdict::Known].into_iter().chain(quarantined).collect();
    vec![uplink::encode_reply(&all), uplink::encode_reply(&[Verdict::Stored])]
}

fn bus_batches() -> Vec<Vec<u8>> {
    let of = batch(&envelopes());
    let reasons = [None, Some(QuarantineReason::BadSignature)];
    let entries = of.records.into_iter().zip(reasons.into_iter().cycle());
    let entries = entries.map(|(record, quarantine)| bus::Entry { record, quarantine }).collect();
    vec![bus::Batch { gateway: of.gateway, zone: of.zone, entries }.encode()]
}

fn windows() -> Vec<Vec<u8>> {
    let mut window = Window::new(4);
    let empty = window.encode();
    for sequence in [0, 1, 9, 8, 70_000] {
        window.admit(Counter { epoch: 3, sequence }, Digest([sequence as u8; 32]));
    }
    vec![empty, window.encode()]
}

fn takens() -> Vec<Vec<u8>> {
    let mut taken = Taken::default();
    let empty = taken.encode();
    for (epoch, sequence) in [(1, 0), (1, 1), (1, 5), (1, 9), (2, 0), (2, 70_000), (4, 1)] {
        let prior = (sequence == 0 && epoch == 2).then_some(Counter { epoch: 1, sequence: 9 });
        taken.admit(Counter { epoch, sequence }, &Digest([sequence as u8; 32]), prior);
    }
    taken.close(1, 2, 3);
    vec![empty, taken.encode()]
}
