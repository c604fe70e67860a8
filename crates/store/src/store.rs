//! The station's driver: a thread per shard that carries out what `shard.rs` says, and the engine for questions.

use crate::catalog::{Catalog, SqliteCatalog};
use crate::config::Config;
use crate::error::StoreError;
use crate::metrics::Metrics;
use crate::query::Engine;
use crate::shard::{Flushed, Now, Parts, Shard};
use crate::shelf::{Shelf, Snapshot};
use api::{Answer, Ask, Query, QueryError};
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
use trust::mac::MacKey;

/// How long a shard that is told to end still takes in what is durable on the bus. What is left after that stays there.
const LAST_INTAKE_MAX: Duration = Duration::from_secs(20);

/// Ingest and questions over one directory. [`Store::run`] ingests; questions are answered as long as it lives.
pub struct Store {
    engine: Engine,
    shelf: Arc<Shelf>,
    metrics: Metrics,
    consumers: Mutex<Vec<Consumer>>,
}

struct Consumer {
    shard: Shard,
    number: u32,
    bus: Writer,
}

impl Store {
    /// Opens or makes the store in `config.dir` over these shards of the bus, in their order; their number is fixed by the
    /// first start. Another process that has the store open loses it.
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
        let Config { dir, flush, raw_retention, raw_bytes_max, query } = config;
        for dir in [dir.clone(), dir.join("files"), dir.join("taken")] {
            disk.create_dir_all(&dir).map_err(StoreError::disk("create the directory", &dir))?;
        }
        let shards = u32::try_from(bus.len()).expect("a site has a few shards");
        let path = dir.join("catalog.sqlite");
        let catalog: Arc<dyn Catalog> = match SqliteCatalog::open(&path, shards) {
            Ok(catalog) => Arc::new(catalog),
            Err(source) => return Err(StoreError::OpenCatalog { path, source }),
        };
        // SQLite syncs what is in its files, not that they are there.
        disk.sync_dir(&dir).map_err(StoreError::disk("sync the directory", &dir))?;
        let metrics = Metrics::new();
        let shelf = Arc::new(Shelf::new(shards));
        let files = dir.join("files");
        let parts = Parts {
            disk,
            catalog: catalog.clone(),
            shelf: shelf.clone(),
            metrics: metrics.clone(),
            mac,
            dir,
            flush,
            raw_retention,
            raw_bytes_max,
        };
        let mut consumers = Vec::new();
        for (number, bus) in (0..).zip(bus) {
            let shard = Shard::open(parts.clone(), number, bus.reader())?;
            consumers.push(Consumer { shard, number, bus: bus.clone() });
        }
        // After the claims: from here on only these consumers add to the catalog.
        let known = catalog.files().map_err(|source| StoreError::OpenCatalog { path, source })?;
        shelf.put(known);
        let engine = Engine::new(shelf.clone(), &files, shards, query, metrics.clone())?;
        Ok(Self { engine, shelf, metrics, consumers: Mutex::new(consumers) })
    }

    /// Ingests until `shutdown` resolves, and then until what is durable on the bus is in files. To be called once.
    ///
    /// An error is fatal: something is wrong with the disk, the bus or the catalog, nothing that it could have spoilt was
    /// committed, the other shards were ended in order, and the station stops its process. To go on without finding out
    /// would be to acknowledge what may not be kept.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) -> Result<(), StoreError> {
        let consumers = std::mem::take(&mut *self.consumers.lock().expect("nothing panics in it"));
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
        let mut shutdown = std::pin::pin!(shutdown);
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
    ) -> Pin<Box<dyn Future<Output = Result<Answer, QueryError>> + Send + '_>> {
        Box::pin(self.engine.ask(ask))
    }
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
