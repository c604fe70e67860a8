//! What all tests start from: devices that seal, batches as uplink writes them, a bus, a consumer, a running store.

use api::{Answer, Ask, Query, QueryError};
use bus::{Log, LogConfig, LogReader, Shards};
use disk::{RealDisk, SharedDisk, SimDisk};
use model::bus::{Batch, Entry};
use model::envelope::{Algorithm, LossCause, LostRange, encode_loss};
use model::uplink::{AttestedBy, QuarantineReason, Record};
use model::{
    Counter, DeviceId, GatewayId, Header, KeyId, Kind, Prior, Reading, SeriesName, Timestamp, Unit,
    Value, ZoneId, senml,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::catalog::{Catalog, CatalogError};
use store::metrics::Metrics;
use store::shard::{Flushed, Now, Parts, Shard};
use store::shelf::Shelf;
use store::{Config, FlushBounds, Store, StoreError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trust::cose::{self, SecretKey, Signer};
use trust::mac::MacKey;

/// 2026-01-01T00:00:00Z.
pub const START_US: i64 = 1_767_225_600_000_000;
pub const MINUTE_US: i64 = 60_000_000;

pub const NOW: Now = Now { uptime: Duration::ZERO, wall: Timestamp(START_US) };

pub fn mac() -> MacKey {
    MacKey::new([9; 32])
}

/// A device that seals.
pub struct Device {
    pub id: DeviceId,
    pub key: SecretKey,
    pub next: Counter,
    prior: Option<Prior>,
}

impl Device {
    pub fn new(name: &str, seed: u8) -> Self {
        let key = SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).unwrap();
        let next = Counter { epoch: 1, sequence: 0 };
        Self { id: DeviceId::new(name).unwrap(), key, next, prior: None }
    }

    pub fn key_id(&self) -> KeyId {
        self.key.public().id()
    }

    /// The sealing process starts again.
    pub fn restart(&mut self) {
        let last = Counter { sequence: self.next.sequence.saturating_sub(1), ..self.next };
        self.prior = (self.next.sequence > 0).then(|| Prior { key: self.key_id(), counter: last });
        self.next = Counter { epoch: self.next.epoch + 1, sequence: 0 };
    }

    /// A new key, with a new counter.
    pub fn rotate(&mut self, seed: u8) {
        self.restart();
        self.key = SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).unwrap();
        self.next = Counter { epoch: 1, sequence: 0 };
    }

    pub fn seal(&mut self, readings: &[Reading]) -> Vec<u8> {
        self.seal_as(Kind::Readings, &senml::encode(readings))
    }

    /// States that `first ..= last` of the present epoch will not come.
    pub fn state_lost(&mut self, first: u64, last: u64) -> Vec<u8> {
        let (key, epoch) = (self.key_id(), self.next.epoch);
        let range = LostRange { key, epoch, first, last, cause: LossCause::BacklogFull };
        self.seal_as(Kind::LossNotice, &encode_loss(&[range]))
    }

    pub fn seal_as(&mut self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            algorithm: Algorithm::Ed25519,
            kind,
            key: self.key_id(),
            counter: self.next,
            uptime_ms: 1000 * self.next.sequence,
            wall: None,
            heard: None,
            prior: self.prior.take(),
        };
        self.next.sequence += 1;
        cose::seal(&header, payload, &self.key).unwrap()
    }

    pub fn entry(&self, message: Vec<u8>) -> Entry {
        entry(&self.id, message)
    }
}

pub fn entry(device: &DeviceId, message: Vec<u8>) -> Entry {
    let record = Record {
        device: device.clone(),
        attested_by: AttestedBy::Device,
        received_at: Timestamp(START_US + 250_000),
        uncertainty_ms: 1,
        fresh: true,
        message,
    };
    Entry { record, quarantine: None }
}

pub fn judged(mut entry: Entry, reason: QuarantineReason) -> Entry {
    entry.quarantine = Some(reason);
    entry
}

pub fn batch(entries: Vec<Entry>) -> Batch {
    let (gateway, zone) = (GatewayId::new("gw-1").unwrap(), ZoneId::new("hall-3").unwrap());
    Batch { gateway, zone, entries }
}

/// As uplink puts it on the bus.
pub fn on_bus(entries: Vec<Entry>) -> Vec<u8> {
    let batch = batch(entries).encode();
    [mac().tag(&batch).as_slice(), &batch].concat()
}

pub fn reading(series: &str, time_us: i64, value: impl Into<Measured>) -> Reading {
    let (series, unit) = (SeriesName::new(series).unwrap(), Some(Unit::new("Cel").unwrap()));
    Reading { time: Timestamp(time_us), series, value: value.into().0, unit }
}

pub struct Measured(Value);

impl From<f64> for Measured {
    fn from(v: f64) -> Self {
        Self(Value::Float(v))
    }
}
impl From<i64> for Measured {
    fn from(v: i64) -> Self {
        Self(Value::Int(v))
    }
}
impl From<bool> for Measured {
    fn from(v: bool) -> Self {
        Self(Value::Bool(v))
    }
}
impl From<&str> for Measured {
    fn from(v: &str) -> Self {
        Self(Value::Text(v.to_owned()))
    }
}

/// `n` readings of one series, a second apart.
pub fn readings(series: &str, from_us: i64, n: usize) -> Vec<Reading> {
    let time = |i: usize| from_us + 1_000_000 * i as i64;
    (0..n).map(|i| reading(series, time(i), 20.0 + (i % 7) as f64 / 10.0)).collect()
}

const LOG: LogConfig =
    LogConfig { segment_bytes: 1 << 20, bytes_max: 1 << 30, record_bytes_max: 8 << 20 };

/// A shard of the bus that holds these records, on a disk of its own.
pub fn bus_of(records: &[Vec<u8>]) -> LogReader {
    let mut log = Log::open(SimDisk::new(1).shared(), Path::new("/bus"), LOG).unwrap();
    for record in records {
        log.append(record).unwrap();
    }
    log.commit().unwrap();
    log.reader()
}

/// Little, so that a few records make several files.
pub const SMALL: FlushBounds =
    FlushBounds { rows_max: 24, bytes_max: 1 << 20, age_max: Duration::from_secs(300) };

pub fn parts(disk: SharedDisk, catalog: Arc<dyn Catalog>, flush: FlushBounds) -> Parts {
    let dir = PathBuf::from("/store");
    for dir in [dir.clone(), dir.join("files"), dir.join("taken")] {
        // It fails only when the power is off, and then so does everything else.
        let _ = disk.create_dir_all(&dir);
    }
    Parts {
        shelf: Arc::new(Shelf::new(catalog.shards())),
        disk,
        catalog,
        metrics: Metrics::new(),
        mac: mac(),
        dir,
        flush,
        raw_retention: Duration::from_secs(3600),
        raw_bytes_max: 1 << 30,
        traces: traces::Traces::default(),
    }
}

/// Takes in and flushes until all of the bus is in files.
pub fn run_to_end(shard: &mut Shard) -> Result<(), StoreError> {
    loop {
        let more = shard.take_in(NOW)?;
        if shard.is_due(NOW) || !more {
            assert!(matches!(shard.flush(NOW)?, Flushed::Done { .. }), "no room");
        }
        if !more {
            return Ok(());
        }
    }
}

/// The names of files of a table in a directory.
pub fn names(disk: &dyn disk::Disk, table: &str) -> Vec<String> {
    let names = disk.list(Path::new("/store/files")).unwrap();
    let prefix = format!("{table}-");
    names.into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

fn bus_in(dir: &tempfile::TempDir) -> (SharedDisk, Shards) {
    let disk: SharedDisk = Arc::new(RealDisk);
    let bus = Shards::open(disk.clone(), &dir.path().join("bus"), 4, LOG, 1024).unwrap();
    (disk, bus)
}

/// A store that runs, over a bus of four shards in a temporary directory.
pub struct Running {
    pub store: Arc<Store>,
    pub bus: Shards,
    pub dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    run: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Running {
    pub async fn start(configure: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, configure).await
    }

    pub async fn start_in(dir: tempfile::TempDir, configure: impl FnOnce(&mut Config)) -> Self {
        let (disk, bus) = bus_in(&dir);
        let mut config = Config::new(dir.path().join("store"));
        configure(&mut config);
        let store = Store::open(disk, config, bus.writers().to_vec(), mac()).await.unwrap();
        Self::of(dir, bus, store)
    }

    /// Over a catalog that is opened like that.
    pub fn start_over(
        dir: tempfile::TempDir,
        open_catalog: impl Fn() -> Result<Arc<dyn Catalog>, CatalogError> + Send + Sync + 'static,
    ) -> Self {
        let (disk, bus) = bus_in(&dir);
        let config = Config::new(dir.path().join("store"));
        let store = Store::open_over(disk, config, bus.writers(), mac(), open_catalog).unwrap();
        Self::of(dir, bus, store)
    }

    fn of(dir: tempfile::TempDir, bus: Shards, store: Store) -> Self {
        let store = Arc::new(store);
        let (stop, stopped) = oneshot::channel();
        let running = store.clone();
        let run = tokio::spawn(async move { running.run(async { drop(stopped.await) }).await });
        Self { store, bus, dir, stop: Some(stop), run: Some(run) }
    }

    /// Durable on the bus when it returns.
    pub async fn put(&self, device: &DeviceId, entries: Vec<Entry>) {
        let writer = self.bus.writer_of(device.as_str().as_bytes());
        writer.append(on_bus(entries)).await.unwrap();
    }

    pub async fn ask(&self, sql: &str) -> Result<Answer, QueryError> {
        self.store.query(Ask { sql: sql.to_owned(), rows_max: None, time_max_ms: None }, None).await
    }

    /// The first cell of the answer.
    pub async fn cell(&self, sql: &str) -> serde_json::Value {
        let answer = self.ask(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        answer.rows[0][0].clone()
    }

    /// Asks until the first cell of the answer is as expected.
    pub async fn wait_for(&self, sql: &str, expected: impl Into<serde_json::Value>) {
        let expected = expected.into();
        until(sql, async || self.cell(sql).await == expected).await;
    }

    pub async fn end(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        let run = self.run.take().expect("it ends once");
        run.await.unwrap().unwrap();
        self.bus.clone().close().await;
        let Self { dir, .. } = self;
        dir
    }
}

/// Looks again and again, for at most a minute.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < Duration::from_secs(60), "never so: {what}");
        // Not to wait for a time, but to leave the processor to what is waited for.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
