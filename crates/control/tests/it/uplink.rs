//! What gateways hand up, through the listener onto the bus.

use crate::world::{BUS_KEY, Got, SHARDS, Setup, Station, World, in_time, secret};
use api::path;
use bus::{LogConfig, LogError, Shards};
use control::{BUS_RECORD_BYTES_MAX, Fatal, Limits};
use disk::{Cut, SimDisk, SyncMode};
use keys::est::{Operation, Purpose};
use model::bus::{Batch as OnBus, Entry};
use model::envelope::{Algorithm, Counter, Header, Kind};
use model::uplink::{AttestedBy, Batch, QuarantineReason, Record, Verdict, decode_reply};
use model::{GatewayId, Reading, SeriesName, Timestamp, Value, ZoneId, senml};
use reqwest::Method;
use std::path::Path;
use std::sync::Arc;
use trust::cose::{self, SecretKey, Signer as _};
use trust::mac::MAC_BYTES;

fn header(signer: &SecretKey, kind: Kind, sequence: u64) -> Header {
    Header {
        algorithm: signer.public().algorithm(),
        kind,
        key: signer.public().id(),
        counter: Counter { epoch: 0, sequence },
        uptime_ms: 5,
        wall: None,
        heard: None,
        prior: None,
    }
}

fn pack(value: i64) -> Vec<u8> {
    let series = SeriesName::new("flow").unwrap();
    let time = Timestamp(1_800_000_000_000_000);
    senml::encode(&[Reading { time, series, value: Value::Int(value), unit: None }])
}

pub fn record_of(device: &Station, sequence: u64) -> Record {
    let header = header(&device.seal, Kind::Readings, sequence);
    Record {
        device: device.id.clone(),
        attested_by: AttestedBy::Device,
        received_at: Timestamp(1_800_000_000_000_000),
        uncertainty_ms: 20,
        fresh: true,
        message: cose::seal(&header, &pack(sequence as i64), &device.seal).unwrap(),
    }
}

fn sealed(gateway: &Station, records: &[Record]) -> Vec<u8> {
    let batch = Batch {
        gateway: GatewayId::new(gateway.id.as_str()).unwrap(),
        zone: ZoneId::new("hall").unwrap(),
        bundle: 1,
        records: records.to_vec(),
    };
    let header = header(&gateway.seal, Kind::UplinkBatch, 0);
    cose::seal(&header, &batch.encode(), &gateway.seal).unwrap()
}

fn post(world: &World, gateway: &Station, body: Vec<u8>) -> reqwest::RequestBuilder {
    world
        .call(Some(&gateway.tls), Method::POST, path::GATEWAY_UPLINK)
        .header("content-type", "application/cose")
        .header("content-encoding", "zstd")
        .body(body)
}

pub async fn hand_up(world: &World, gateway: &Station, records: &[Record]) -> Got {
    let body = zstd::bulk::compress(&sealed(gateway, records), 1).unwrap();
    Got::of(post(world, gateway, body)).await
}

pub fn verdicts(got: &Got) -> Vec<Verdict> {
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.header("content-type"), "application/cbor");
    decode_reply(&got.body).unwrap()
}

/// Everything on the bus, shard by shard, each batch behind a MAC that verifies.
fn on_bus(shards: &Shards) -> Vec<(usize, Entry)> {
    let mut entries = Vec::new();
    for (shard, reader) in shards.readers().iter().enumerate() {
        for (_, record) in reader.read(reader.first(), usize::MAX, usize::MAX).unwrap() {
            let (tag, batch) = record.split_at(MAC_BYTES);
            assert!(BUS_KEY.is_tag(batch, tag));
            let batch = OnBus::decode(batch).unwrap();
            assert_eq!((batch.gateway.as_str(), batch.zone.as_str()), ("gw-1", "hall"));
            entries.extend(batch.entries.into_iter().map(|entry| (shard, entry)));
        }
    }
    entries
}

fn counted(world: &World, verdict: &str, reason: &str) -> u64 {
    let name = "plimsoll_uplink_records_total";
    world.metric(&format!("{name}{{reason=\"{reason}\",verdict=\"{verdict}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_sealed_is_on_the_bus_when_the_answer_comes() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let mut records = Vec::new();
    for n in 0..6 {
        let device = world.device(&format!("pump-{n}")).await;
        records.extend((0..5).map(|sequence| record_of(&device, sequence)));
    }
    let got = hand_up(&world, &gateway, &records).await;
    assert_eq!(verdicts(&got), vec![Verdict::Stored; 30]);
    let mut found = on_bus(&world.shards);
    for (shard, entry) in &found {
        assert_eq!(*shard, bus::shard_of(entry.record.device.as_str().as_bytes(), SHARDS as usize));
        assert_eq!(entry.quarantine, None);
    }
    // A device's order is kept within its shard; between shards there is none.
    found.sort_by(|a, b| a.1.record.device.cmp(&b.1.record.device));
    let found: Vec<_> = found.into_iter().map(|(_, entry)| entry.record).collect();
    assert_eq!(found, records);
    assert_eq!(counted(&world, "stored", ""), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_is_known_and_appends_nothing() {
    let world = World::new().await;
    let (gateway, pump) = (world.gateway("gw-1").await, world.device("pump-1").await);
    let records: Vec<_> = (0..3).map(|sequence| record_of(&pump, sequence)).collect();
    assert_eq!(verdicts(&hand_up(&world, &gateway, &records).await), [Verdict::Stored; 3]);
    assert_eq!(verdicts(&hand_up(&world, &gateway, &records).await), [Verdict::Known; 3]);
    assert_eq!(on_bus(&world.shards).len(), 3);
    // What was forgotten is stored again: the store takes each counter once.
    let world = world.restart(Setup::default()).await;
    assert_eq!(verdicts(&hand_up(&world, &gateway, &records).await), [Verdict::Stored; 3]);
    assert_eq!(on_bus(&world.shards).len(), 6);
}

/// INV-ACK-1: one bad record among good ones is durable in quarantine with its reason, and holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_goes_to_quarantine_and_the_others_go_on() {
    use QuarantineReason as Q;
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (pump, stray) = (world.device("pump-1").await, world.device("pump-2").await);
    let foreign = world.enrolled("fan-1", api::Role::Device, "yard").await;
    let gone = world.device("pump-3").await;
    assert_eq!(world.tell(&gone.id, "revoke").await.status, 200);
    let good = record_of(&pump, 0);
    let spoiled = |spoil: fn(&mut Record)| {
        let mut record = record_of(&pump, 1);
        spoil(&mut record);
        record
    };
    let table = [
        (good.clone(), None),
        (spoiled(|r| r.message.truncate(20)), Some(Q::Malformed)),
        (spoiled(|r| *r.message.last_mut().unwrap() ^= 1), Some(Q::BadSignature)),
        (Record { device: pump.id.clone(), ..record_of(&stray, 0) }, Some(Q::WrongDevice)),
        (record_of(&foreign, 0), Some(Q::WrongZone)),
        (record_of(&gone, 0), Some(Q::Revoked)),
        (
            record_of(
                &Station { seal: secret(Algorithm::Ed25519), ..world.device("pump-4").await },
                0,
            ),
            Some(Q::UnknownKey),
        ),
        (record_of(&pump, 2), None),
    ];
    let records: Vec<_> = table.iter().map(|(record, _)| record.clone()).collect();
    let got = hand_up(&world, &gateway, &records).await;
    let expected: Vec<_> = table
        .iter()
        .map(|(_, reason)| reason.map_or(Verdict::Stored, Verdict::Quarantined))
        .collect();
    assert_eq!(verdicts(&got), expected);
    let found = on_bus(&world.shards);
    assert_eq!(found.len(), table.len());
    for (record, reason) in table {
        let entry = Entry { record, quarantine: reason };
        assert!(found.iter().any(|(_, found)| *found == entry), "{reason:?}");
        if let Some(reason) = reason {
            assert_eq!(counted(&world, "quarantined", reason.as_str()), 1);
        }
    }
    assert_eq!(counted(&world, "stored", ""), 2);
}

/// From a call that is taken, each single change is refused as a whole with its reason and counter, and nothing of it is
/// on the bus.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_the_gateways_own_is_refused() {
    let world = World::new().await;
    let (gateway, other) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let pump = world.device("pump-1").await;
    let records = [record_of(&pump, 0)];
    let squeezed = |message: &[u8]| zstd::bulk::compress(message, 1).unwrap();
    let good = squeezed(&sealed(&gateway, &records));
    let mut forged = sealed(&gateway, &records);
    *forged.last_mut().unwrap() ^= 1;
    let unknown = Station {
        seal: secret(Algorithm::Ed25519),
        tls: world.born("x"),
        born: world.born("x"),
        id: gateway.id.clone(),
    };
    let table = [
        ("another gateway's batch", squeezed(&sealed(&other, &records)), (403, "foreign_key")),
        ("an unknown key", squeezed(&sealed(&unknown, &records)), (403, "unknown_key")),
        ("another signature", squeezed(&forged), (403, "bad_signature")),
        ("a device's message", squeezed(&records[0].message), (400, "wrong_kind")),
        ("noise", squeezed(b"noise"), (400, "broken_cbor")),
        ("not compressed", sealed(&gateway, &records), (400, "not_zstd")),
        ("a bomb", squeezed(&vec![0; control::uplink::CALL_BYTES_MAX + 1]), (413, "oversize")),
        ("too long as it comes", vec![0; control::uplink::BODY_BYTES_MAX + 1], (413, "oversize")),
    ];
    for (what, body, (status, reason)) in table {
        let before = world.refused(reason);
        let got = Got::of(post(&world, &gateway, body)).await;
        assert_eq!(got.refusal(), (status, reason.to_owned()), "{what}");
        assert_eq!(world.refused(reason), before + 1, "{what}");
    }
    for (name, value) in [("content-type", "application/cbor"), ("content-encoding", "gzip")] {
        let mut request = post(&world, &gateway, good.clone()).build().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = world.http(Some(&gateway.tls)).execute(request).await.unwrap();
        assert_eq!(answer.status(), 415, "{name}");
    }
    world.tell(&other.id, "quarantine").await;
    let got = hand_up(&world, &other, &records).await;
    assert_eq!(got.refusal(), (403, "quarantined".into()));
    assert!(on_bus(&world.shards).is_empty());
    assert_eq!(Got::of(post(&world, &gateway, good)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_under_a_replaced_key_are_still_believed() {
    let world = World::new().await;
    let (gateway, mut pump) = (world.gateway("gw-1").await, world.device("pump-1").await);
    let waiting = record_of(&pump, 0);
    let next = secret(Algorithm::Ed25519);
    world.enroll(&pump.tls, Operation::Enroll, Purpose::Seal, &next, "pump-1").await.unwrap();
    pump.seal = next;
    let records = [waiting, record_of(&pump, 0)];
    assert_eq!(verdicts(&hand_up(&world, &gateway, &records).await), [Verdict::Stored; 2]);
}

/// Back-pressure: nothing is acknowledged and the gateway is told when to come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_bus_takes_nothing_and_says_when_to_come_again() {
    let bus = LogConfig { segment_bytes: 4096, bytes_max: 8192, record_bytes_max: 6000 };
    let world = World::with(Setup { bus, ..Setup::default() }).await;
    let (gateway, pump) = (world.gateway("gw-1").await, world.device("pump-1").await);
    let mut stored = 0;
    let refused = loop {
        let records: Vec<_> = (stored..stored + 5).map(|s| record_of(&pump, s)).collect();
        let got = hand_up(&world, &gateway, &records).await;
        if got.status != 200 {
            break got;
        }
        stored += 5;
        assert!(stored < 100, "8 KiB do not hold 100 messages");
    };
    assert!(stored > 0);
    assert_eq!(refused.refusal(), (503, "bus_full".into()));
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(on_bus(&world.shards).len() as u64, stored);
    assert_eq!((counted(&world, "stored", ""), world.refused("bus_full")), (stored, 1));
    // Once the store has made room it is taken.
    let shard = &world.shards.writers()[world.shards.shard_of(b"pump-1")];
    shard.trim(shard.reader().end());
    let records = [record_of(&pump, stored)];
    in_time("the writer's thread trims", async {
        loop {
            let got = hand_up(&world, &gateway, &records).await;
            if got.status == 200 {
                return assert_eq!(verdicts(&got), [Verdict::Stored]);
            }
            assert_eq!(got.refusal(), (503, "bus_full".into()));
        }
    })
    .await;
}

/// Two devices whose messages go to two shards.
async fn pair(world: &World) -> [Station; 2] {
    let shard = |n: usize| world.shards.shard_of(format!("pump-{n}").as_bytes());
    let other = (2..).find(|n| shard(*n) != shard(1)).unwrap();
    [world.device("pump-1").await, world.device(&format!("pump-{other}")).await]
}

/// How often the bus has records of this device.
fn on_bus_of(world: &World, device: &Station) -> usize {
    on_bus(&world.shards).iter().filter(|(_, entry)| entry.record.device == device.id).count()
}

/// A gateway comes again until all is taken, for hours if need be: what has room must not be filled by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_full_makes_no_other_write_at_each_attempt() {
    let bus = LogConfig { segment_bytes: 4096, bytes_max: 8192, record_bytes_max: 6000 };
    let world = World::with(Setup { bus, ..Setup::default() }).await;
    let gateway = world.gateway("gw-1").await;
    let [full, free] = pair(&world).await;
    let mut stored = 0;
    while hand_up(&world, &gateway, &[record_of(&full, stored)]).await.status == 200 {
        stored += 1;
        assert!(stored < 100, "8 KiB do not hold 100 messages");
    }
    let records = [record_of(&full, stored), record_of(&free, 0)];
    for _ in 0..5 {
        let got = hand_up(&world, &gateway, &records).await;
        assert_eq!(got.refusal(), (503, "bus_full".into()));
    }
    assert_eq!((on_bus_of(&world, &full), on_bus_of(&world, &free)), (stored as usize, 0));
}

/// What the question for room did not show, since others took it in between or the disk itself is full.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_shard_took_of_a_call_that_another_did_not_is_not_written_again() {
    let disk = SimDisk::new(1);
    let (bus_disk, bus_dir) = (disk.shared(), Some("/bus".into()));
    let world = World::with(Setup { bus_disk, bus_dir, ..Setup::default() }).await;
    let gateway = world.gateway("gw-1").await;
    let [large, small] = pair(&world).await;
    let taken: u64 = world.shards.writers().iter().map(bus::Writer::bytes).sum();
    disk.set_capacity(taken + 2048);
    let mut records: Vec<_> = (0..50).map(|sequence| record_of(&large, sequence)).collect();
    records.push(record_of(&small, 0));
    let attempt = async || {
        let got = hand_up(&world, &gateway, &records).await;
        assert_eq!(got.refusal(), (503, "bus_full".into()));
    };
    // What the long one wrote before it found no room may have been in the way of the short one.
    in_time("the short one finds room", async {
        while on_bus_of(&world, &small) == 0 {
            attempt().await;
        }
    })
    .await;
    for _ in 0..5 {
        attempt().await;
    }
    assert_eq!((on_bus_of(&world, &large), on_bus_of(&world, &small)), (0, 1));
    disk.set_capacity(u64::MAX);
    let verdicts = verdicts(&hand_up(&world, &gateway, &records).await);
    assert_eq!(verdicts[..50], [Verdict::Stored; 50]);
    assert_eq!(verdicts[50], Verdict::Known);
    assert_eq!((on_bus_of(&world, &large), on_bus_of(&world, &small)), (50, 1));
}

/// INV-COST-1: a bus that takes less than uplink hands it is found out, not worked for in vain unseen.
#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_takes_shorter_records_than_uplink_writes_is_counted() {
    let bus = LogConfig { segment_bytes: 4096, bytes_max: 1 << 20, record_bytes_max: 1000 };
    let world = World::with(Setup { bus, ..Setup::default() }).await;
    let (gateway, pump) = (world.gateway("gw-1").await, world.device("pump-1").await);
    let violations = "plimsoll_invariant_violations_total{invariant=\"INV-COST-1\"}";
    let records: Vec<_> = (0..20).map(|sequence| record_of(&pump, sequence)).collect();
    assert_eq!(verdicts(&hand_up(&world, &gateway, &records[..1]).await), [Verdict::Stored]);
    assert_eq!(world.metric(violations), 0);
    let got = hand_up(&world, &gateway, &records).await;
    assert_eq!(got.refusal(), (500, "failed".into()));
    assert_eq!(world.metric(violations), 1);
}

const BUS: &str = "/bus";
/// So short that a segment is full after a batch or two: a cut may come where the next one is begun.
const SHORT: LogConfig =
    LogConfig { segment_bytes: 1500, bytes_max: 1 << 20, record_bytes_max: 1 << 16 };

/// What a power cut is to leave alone: everything but the bus.
struct Ground {
    world: World,
    gateway: Station,
    devices: [Station; 2],
}

/// A run that was cut, or came to its end before.
struct Run {
    was_cut: bool,
    answered: Vec<Record>,
    /// What is on the bus after the power came back, if it can still be opened.
    found: Result<Vec<Record>, LogError>,
}

impl Ground {
    async fn new() -> Self {
        let world = World::new().await;
        let gateway = world.gateway("gw-1").await;
        let devices = pair(&world).await;
        Self { world, gateway, devices }
    }

    /// Hands up batches over both shards, on a new bus whose disk is cut at one of its operations.
    async fn run(self, seed: u64, cut: u64, mode: SyncMode) -> (Self, Run) {
        let disk = SimDisk::new(seed);
        let Self { world, gateway, devices } = self;
        let world = world.on_bus(disk.shared(), Path::new(BUS), SHORT).await;
        disk.set_sync_mode(mode);
        disk.set_cut(Cut::At(cut));
        let failed = world.control.failed();
        let mut answered = Vec::new();
        for batch in 0..4 {
            let of_batch = batch * 3..(batch + 1) * 3;
            let records: Vec<_> = of_batch
                .flat_map(|sequence| devices.each_ref().map(|device| record_of(device, sequence)))
                .collect();
            let got = hand_up(&world, &gateway, &records).await;
            if got.status != 200 {
                assert_eq!(got.refusal(), (503, "bus_failed".into()));
                break;
            }
            answered.extend(records);
        }
        let was_cut = !disk.is_on();
        if was_cut {
            let fatal = in_time("the process is told to stop", failed).await;
            let shards =
                devices.each_ref().map(|d| world.shards.shard_of(d.id.as_str().as_bytes()));
            assert!(shards.map(|shard| Fatal::Bus { shard }).contains(&fatal), "{fatal}");
            let health = Got::of(world.call(None, Method::GET, path::HEALTH)).await;
            assert_eq!(health.refusal(), (500, "failed".into()));
        }
        let idle = SimDisk::new(seed);
        let world = world.on_bus(idle.shared(), Path::new(BUS), SHORT).await;
        disk.cut_now();
        disk.reboot();
        let found = Shards::open(disk.shared(), Path::new(BUS), SHARDS, SHORT, 8)
            .map(|shards| on_bus(&shards).into_iter().map(|(_, entry)| entry.record).collect());
        (Self { world, gateway, devices }, Run { was_cut, answered, found })
    }

    /// Whether all that was answered is there, in each device's order.
    fn kept(&self, run: &Run) -> bool {
        let Ok(found) = &run.found else { return false };
        self.devices.iter().all(|device| {
            let of = |records: &[Record]| -> Vec<Record> {
                records.iter().filter(|record| record.device == device.id).cloned().collect()
            };
            of(found).starts_with(&of(&run.answered))
        })
    }
}

/// INV-ACK-1: cut at each operation of the bus's disk, until a run comes to its end; unsynced bytes are lost or torn. What
/// was answered is there after it, on each of two shards that a call wrote to.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_power_cut() {
    let mut ground = Ground::new().await;
    let (mut points, mut answers, seeds) = (0, 0, 0..2);
    for seed in seeds.clone() {
        for cut in 0.. {
            let (standing, run) = ground.run(seed, cut, SyncMode::Honest).await;
            ground = standing;
            assert!(ground.kept(&run), "seed {seed}, cut at {cut}: {:?}", run.found);
            answers += run.answered.len();
            if !run.was_cut {
                assert_eq!(run.answered.len(), 24, "seed {seed}: four batches of six");
                break;
            }
            points += 1;
        }
    }
    println!("cut at {points} points, seeds {seeds:?}; {answers} answers kept");
    assert!(points > 30, "two shards, four batches, a write and a sync each");
}

/// The test above is worth something only if it sees a disk whose sync does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lies_is_found_out() {
    let mut ground = Ground::new().await;
    let mut lost = 0;
    for seed in 0..4 {
        let (standing, run) = ground.run(seed, 15, SyncMode::Lies).await;
        ground = standing;
        lost += usize::from(!ground.kept(&run));
    }
    println!("seeds 0 to 3: {lost} of 4 lost what was answered");
    assert!(lost > 0);
}

/// INV-COST-1: a gateway has one call at a time, and all of them together so many.
#[tokio::test(flavor = "multi_thread")]
async fn calls_at_a_time_are_bounded() {
    let limits = Limits { uplinks_max: 0, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let (gateway, pump) = (world.gateway("gw-1").await, world.device("pump-1").await);
    let records = [record_of(&pump, 0)];
    let got = hand_up(&world, &gateway, &records).await;
    assert_eq!((got.refusal(), got.header("retry-after")), ((503, "busy".into()), "1"));
    let world = world.restart(Setup::default()).await;

    // A call whose body has not come yet holds its gateway's turn.
    let tls = keys::tls::client(
        Some((&gateway.tls.chain, &gateway.tls.key)),
        &world.anchors(),
        keys::tls::Alpn::Http11,
    );
    let stream = tokio::net::TcpStream::connect(world.control.local_addr()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream =
        tokio_rustls::TlsConnector::from(tls.unwrap()).connect(name, stream).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cose\r\nContent-Encoding: zstd\r\n\
         Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
        path::GATEWAY_UPLINK
    );
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(head.as_bytes()).await.unwrap();
    // "Go on" is written when the body is asked for: from then on the turn is taken.
    let mut go_on = [0; 12];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");
    let got = hand_up(&world, &gateway, &records).await;
    assert_eq!(got.refusal(), (503, "busy".into()));
    let other = world.gateway("gw-2").await;
    assert_eq!(
        hand_up(&world, &other, &records).await.status,
        200,
        "others have turns of their own"
    );
    drop(stream);
    in_time("the turn ends with its connection", async {
        while hand_up(&world, &gateway, &records).await.status != 200 {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_of_a_thousand_records_a_call_is_kept_up_with() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let pump = Arc::new(world.device("pump-1").await);
    let records: Vec<_> = (0..1024).map(|sequence| record_of(&pump, sequence)).collect();
    let longest = sealed(&gateway, &records).len();
    assert!(longest < BUS_RECORD_BYTES_MAX);
    let got = hand_up(&world, &gateway, &records).await;
    assert_eq!(verdicts(&got), vec![Verdict::Stored; 1024]);
    assert_eq!(on_bus(&world.shards).len(), 1024);
}
