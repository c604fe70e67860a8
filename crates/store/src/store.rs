//! The station's driver: a thread per shard that carries out what `shard.rs` says, and the engine for questions.

use crate::catalog::{Catalog, CatalogError, SqliteCatalog};
use crate::config::Config;
use crate::error::StoreError;
use crate::metrics::Metrics;
use crate::query::Engine;
use crate::shard::{Flushed, Now, Parts, Shard};
use crate::shelf::{Shelf, Snapshot};
use api::{Answer, Ask, Query, QueryError, Within};
use bus::Writer;
use disk::SharedDisk;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::Timestamp;
use prometheus::Registry;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;
use trust::mac::MacKey;

/// How long a shard that is told to end still takes in what is durable on the bus. What is left after that stays there.
const LAST_INTAKE_MAX: Duration = Duration::from_secs(20);

/// How long a start that found no room waits before it tries again; it doubles up to the longest.
const ROOM_WAIT: Duration = Duration::from_millis(250);
const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);

/// Ingest and questions over one directory. [`Store::run`] ingests; questions are answered as long as it lives.
pub struct Store {
    engine: Engine,
    shelf: Arc<Shelf>,
    metrics: Metrics,
    consumers: Mutex<Consumers>,
}

enum Consumers {
    /// The disk had no room to claim the shards: [`Store::run`] tries again.
    Wanted(Box<Claiming>),
    Ready(Vec<Consumer>),
    /// They run, or have run.
    Gone,
}

/// Opens the catalog. Again and again, as long as the disk has no room for it.
type OpenCatalog = Arc<dyn Fn() -> Result<Arc<dyn Catalog>, CatalogError> + Send + Sync>;

/// What it takes to claim the shards.
#[derive(Clone)]
struct Claiming {
    open_catalog: OpenCatalog,
    config: Config,
    disk: SharedDisk,
    shelf: Arc<Shelf>,
    metrics: Metrics,
    mac: MacKey,
    bus: Vec<Writer>,
}

struct Consumer {
    shard: Shard,
    number: u32,
    bus: Writer,
}

impl Store {
    /// Opens or makes the store in `config.dir` over these shards of the bus, in their order; their number is fixed by the
    /// first start. Another process that has the store open loses it.
    ///
    /// On a full disk a store that was made before opens, and answers from what it has: [`Store::run`] takes the shards
    /// over once there is room.
    pub async fn open(
        disk: SharedDisk,
        config: Config,
        bus: Vec<Writer>,
        mac: MacKey,
    ) -> Result<Self, StoreError> {
        // It reads what every shard remembers, and lists every file.
        let opened =
            tokio::task::spawn_blocking(move || Self::open_blocking(disk, config, &bus, mac));
        opened.await.map_err(|e| StoreError::Start { what: "the store", source: e.into() })?
    }

    /// [`Store::open`] for who may block.
    pub fn open_blocking(
        disk: SharedDisk,
        config: Config,
        bus: &[Writer],
        mac: MacKey,
    ) -> Result<Self, StoreError> {
        let (path, shards) = (config.catalog(), shards_of(bus));
        let open_catalog = move || -> Result<Arc<dyn Catalog>, CatalogError> {
            Ok(Arc::new(SqliteCatalog::open(&path, shards)?))
        };
        Self::open_over(disk, config, bus, mac, open_catalog)
    }

    /// [`Store::open_blocking`] over a catalog of another kind.
    pub fn open_over(
        disk: SharedDisk,
        config: Config,
        bus: &[Writer],
        mac: MacKey,
        open_catalog: impl Fn() -> Result<Arc<dyn Catalog>, CatalogError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        for dir in [config.dir.clone(), config.files(), config.taken()] {
            disk.create_dir_all(&dir).map_err(StoreError::disk("create the directory", &dir))?;
        }
        let metrics = Metrics::new();
        let shelf = Arc::new(Shelf::new(shards_of(bus)));
        let (files, bounds) = (config.files(), config.query);
        let claiming = Claiming {
            open_catalog: Arc::new(open_catalog),
            config,
            disk,
            shelf: shelf.clone(),
            metrics: metrics.clone(),
            mac,
            bus: bus.to_vec(),
        };
        let consumers = match claiming.claim() {
            Ok(consumers) => Consumers::Ready(consumers),
            Err(error) if error.is_for_want_of_room() => {
                claiming.found_no_room(&error);
                Consumers::Wanted(Box::new(claiming))
            }
            Err(error) => return Err(error),
        };
        let engine = Engine::new(shelf.clone(), &files, shards_of(bus), bounds, metrics.clone())?;
        Ok(Self { engine, shelf, metrics, consumers: Mutex::new(consumers) })
    }

    /// Ingests until `shutdown` resolves, and then until what is durable on the bus is in files. To be called once.
    ///
    /// An error is fatal: something is wrong with the disk, the bus or the catalog, nothing that it could have spoilt was
    /// committed, the other shards were ended in order, and the station stops its process. To go on without finding out
    /// would be to acknowledge what may not be kept.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) -> Result<(), StoreError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let consumers = tokio::select! {
            claimed = self.claimed() => claimed?,
            () = &mut shutdown => return Ok(()),
        };
        let (stop, stopping) = watch::channel(false);
        let mut ends = FuturesUnordered::new();
        for consumer in consumers {
            let (number, stopping) = (consumer.number, stopping.clone());
            let (end, ended) = oneshot::channel();
            std::thread::Builder::new()
                .name(format!("store-{number}"))
                .spawn(move || {
                    // Nobody waits any more if the station itself is gone.
                    let _ = end.send(consumer.run(stopping));
                })
                .map_err(|e| StoreError::Start { what: "a consumer", source: e.into() })?;
            ends.push(
                async move { ended.await.unwrap_or(Err(StoreError::Panicked { shard: number })) },
            );
        }
        let mut failed = None;
        loop {
            tokio::select! {
                () = &mut shutdown, if !*stop.borrow() => {
                    stop.send_replace(true);
                }
                end = ends.next() => match end {
                    None => break,
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        tracing::error!(
                            error = %error,
                            source = std::error::Error::source(&error).map(tracing::field::display),
                            "ingest stops"
                        );
                        failed.get_or_insert(error);
                        stop.send_replace(true);
                    }
                },
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The shards' consumers, once there is room to claim the shards.
    async fn claimed(&self) -> Result<Vec<Consumer>, StoreError> {
        let consumers = std::mem::replace(
            &mut *self.consumers.lock().expect("nothing panics in it"),
            Consumers::Gone,
        );
        let claiming = match consumers {
            Consumers::Wanted(claiming) => claiming,
            Consumers::Ready(consumers) => return Ok(consumers),
            Consumers::Gone => return Ok(Vec::new()),
        };
        let mut wait = ROOM_WAIT;
        loop {
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(ROOM_WAIT_MAX);
            let attempt = claiming.clone();
            let claimed = tokio::task::spawn_blocking(move || attempt.claim()).await;
            let failed = |e: JoinError| StoreError::Start { what: "ingest", source: e.into() };
            match claimed.map_err(failed)? {
                Err(error) if error.is_for_want_of_room() => claiming.found_no_room(&error),
                claimed => return claimed,
            }
        }
    }

    /// All that the store counts.
    pub fn registry(&self) -> &Registry {
        &self.metrics.registry
    }

    /// What a question asked now would see.
    pub fn snapshot(&self) -> Snapshot {
        self.shelf.snapshot()
    }

    /// Tasks of questions that have not ended.
    pub fn query_tasks(&self) -> usize {
        self.engine.tasks()
    }
}

impl Query for Store {
    /// Must be awaited within a tokio runtime that has a timer.
    fn query(
        &self,
        ask: Ask,
        within: Option<Arc<Within>>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, QueryError>> + Send + '_>> {
        Box::pin(self.engine.ask(ask, within))
    }
}

impl Claiming {
    /// Takes all shards over, and lists what they have. After an error the shards that were taken are taken again.
    fn claim(&self) -> Result<Vec<Consumer>, StoreError> {
        let open = |source| StoreError::OpenCatalog { path: self.config.catalog(), source };
        let catalog = (self.open_catalog)().map_err(open)?;
        // SQLite syncs what is in its files, not that they are there.
        let dir = &self.config.dir;
        self.disk.sync_dir(dir).map_err(StoreError::disk("sync the directory", dir))?;
        // Should there be no room for the claims, questions see these.
        self.shelf.put(catalog.files().map_err(open)?);
        let parts = Parts {
            disk: self.disk.clone(),
            catalog: catalog.clone(),
            shelf: self.shelf.clone(),
            metrics: self.metrics.clone(),
            mac: self.mac.clone(),
            dir: dir.clone(),
            flush: self.config.flush,
            raw_retention: self.config.raw_retention,
            raw_bytes_max: self.config.raw_bytes_max,
            traces: self.config.traces.clone(),
        };
        let mut consumers = Vec::new();
        for (number, bus) in (0..).zip(&self.bus) {
            let shard = Shard::open(parts.clone(), number, bus.reader())?;
            consumers.push(Consumer { shard, number, bus: bus.clone() });
        }
        // After the claims: from here on only these consumers add to the catalog.
        self.shelf.put(catalog.files().map_err(open)?);
        self.show_room(0);
        Ok(consumers)
    }

    fn found_no_room(&self, error: &StoreError) {
        self.show_room(1);
        let source = std::error::Error::source(error).map(tracing::field::display);
        tracing::warn!(error = %error, source, "no room to take the shards over: ingest waits");
    }

    fn show_room(&self, no_room: i64) {
        for number in 0..shards_of(&self.bus) {
            self.metrics.no_room.with_label_values(&[&number.to_string()]).set(no_room);
        }
    }
}

fn shards_of(bus: &[Writer]) -> u32 {
    u32::try_from(bus.len()).expect("a site has a few shards")
}

impl Consumer {
    /// Carries out what the shard says, on this thread. It decides nothing.
    fn run(mut self, mut stopping: watch::Receiver<bool>) -> Result<(), StoreError> {
        let started = Instant::now();
        let now = || Now { uptime: started.elapsed(), wall: wall_clock() };
        let waiter = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|e| StoreError::Start { what: "a consumer's timer", source: e.into() })?;
        let mut durable_end = self.bus.durable_end();
        loop {
            durable_end.mark_unchanged();
            let more = self.shard.take_in(now())?;
            if self.shard.is_due(now()) {
                self.flush(now())?;
            }
            if is_over(&stopping) {
                break;
            }
            if !more {
                let due = self.shard.due_at().map(|due| due.saturating_sub(now().uptime));
                waiter.block_on(wait(&mut durable_end, &mut stopping, due));
            }
        }
        let until = self.bus.reader().end();
        let give_up = now().uptime + LAST_INTAKE_MAX;
        while self.shard.next() < until && now().uptime < give_up {
            self.shard.take_in(now())?;
            if self.shard.is_due(now()) && !self.flush(now())? {
                break;
            }
        }
        self.flush(now())?;
        let left = self.bus.reader().end().0 - self.shard.place().offset;
        tracing::info!(shard = self.number, left, "shard closed");
        Ok(())
    }

    /// False: the disk had no room.
    fn flush(&mut self, now: Now) -> Result<bool, StoreError> {
        match self.shard.flush(now)? {
            Flushed::Done { trim_below } => {
                if let Some(below) = trim_below {
                    self.bus.trim(below);
                }
                Ok(true)
            }
            Flushed::NoRoom => Ok(false),
        }
    }
}

fn is_over(stopping: &watch::Receiver<bool>) -> bool {
    *stopping.borrow() || stopping.has_changed().is_err()
}

/// Until there is something to take in or to flush, or all ends.
async fn wait(
    durable_end: &mut watch::Receiver<bus::Offset>,
    stopping: &mut watch::Receiver<bool>,
    due: Option<Duration>,
) {
    let timer = async {
        match due {
            Some(due) => tokio::time::sleep(due).await,
            None => std::future::pending().await,
        }
    };
    let grown = async {
        if durable_end.changed().await.is_err() {
            // The writer is gone: nothing more comes.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = grown => {}
        () = timer => {}
        // An error says that whoever runs the store is gone.
        _ = stopping.changed() => {}
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
