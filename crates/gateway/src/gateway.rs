//! The station: starts its parts, watches over them, and ends them in order.
//!
//! ```text
//! start: metrics ─▶ identity (EST, at the first start) ─▶ bundle (kept, or asked for) ─▶ spool ─▶ devices, uplink, bundles
//! end:   no new connections ─▶ DISCONNECT 0x8b to each session ─▶ uplink ─▶ spool committed, cursor and windows kept
//! ```

use crate::bundle::{BundleError, Keeper, View};
use crate::cache::{self, Cache};
use crate::config::Config;
use crate::control::{Link, Uplink, ask_for_bundle, blocking, follow_bundles};
use crate::driver::Station;
use crate::error::GatewayError;
use crate::http::Desk;
use crate::identity::{RENEWAL_LOOK, born, random};
use crate::limits::Backoff;
use crate::listener::listen;
use crate::metrics::{Invariant, Metrics};
use crate::sealer::{Epoch, Sealer, epoch};
use crate::spool::Spool;
use crate::status::{self, Health};
use disk::SharedDisk;
use keys::UnixTime;
use keys::cert::NotAfter;
use keys::est;
use keys::identity::{Identity, IdentityError};
use keys::tls::{Alpn, ClientAuth, TlsError};
use model::envelope::Algorithm;
use model::told;
use model::{GatewayId, KeyId};
use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use trust::cose::Signer as _;

/// How often the disk's free space is looked at.
const DISK_LOOK: Duration = Duration::from_secs(1);
/// How often it is asked whether the time of a TLS key is over; they are given days.
const KEYS_LOOK: Duration = Duration::from_secs(60);

/// A gateway that serves.
#[derive(Debug)]
pub struct Gateway {
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    metrics: Metrics,
    spool: Spool,
    cache: Arc<Cache>,
    keeper: Arc<Keeper>,
    health: watch::Sender<Health>,
    stop: watch::Sender<bool>,
    failures: mpsc::Receiver<GatewayError>,
    devices: Tasks,
    uplink: Tasks,
    others: Tasks,
}

impl Gateway {
    /// Starts a gateway; returns once devices can connect. At its first start it enrols, and waits for control as long
    /// as that takes; later it starts with control away.
    pub async fn start(config: Config, disk: SharedDisk) -> Result<Self, GatewayError> {
        config.check()?;
        let (began, metrics) = (Instant::now(), Metrics::new());
        config.traces.show_in(metrics.registry());
        let (health, healths) = watch::channel(Health::Starting);
        let mut others = Tasks(Vec::new());
        let mut metrics_addr = None;
        if let Some(at) = config.metrics {
            let listener = bind(at).await?;
            metrics_addr = listener.local_addr().ok();
            others.0.push(tokio::spawn(status::serve(listener, metrics.clone(), healths)));
        }
        let (identity, sealer, est) = born(&config, &disk).await?;
        let name = GatewayId::new(identity.id().as_str()).map_err(IdentityError::BadSerial)?;
        tracing::info!(gateway = %name, site = identity.site(), "gateway is enrolled");
        let link = Link::new(&config.control, &*identity.client_config(Alpn::Http11)?);
        let link = Arc::new(link.map_err(GatewayError::Http)?);
        let keeper = Arc::new(Keeper::open(disk.clone(), &config.data, name)?);
        first_bundle(&config, &link, &keeper, &metrics).await?;
        keeper.end_keys(UnixTime::now());
        let spool = {
            let (disk, data) = (disk.clone(), config.data.clone());
            let (spool, metrics) = (config.spool, metrics.clone());
            let open = move || Spool::open(disk, &data, spool, metrics);
            tokio::task::spawn_blocking(open).await.expect("opening the spool does not panic")?
        };
        let (cache, cache_works) = {
            let (disk, data) = (disk.clone(), config.data.clone());
            let (bytes_max, metrics) = (config.cache_bytes, metrics.clone());
            let open = move || Cache::open(disk, &data, bytes_max, metrics);
            tokio::task::spawn_blocking(open).await.expect("opening the cache does not panic")
        };
        let tls = identity.server_config(ClientAuth::Required, Alpn::MqttOrHttp11)?;
        let listener = bind(config.listen).await?;
        let local_addr = listener
            .local_addr()
            .map_err(|source| GatewayError::Listen { at: config.listen, source })?;

        let (stop, stopped) = watch::channel(false);
        let (fail, failures) = mpsc::channel(4);
        let site = identity.site().to_owned();
        let (data, reserve) = (config.data.clone(), config.disk_reserve_bytes);
        let (retry_max, bundle_wait) = (config.retry_max, config.bundle_wait);
        let traces = config.traces.clone();
        let station = Arc::new(Station::new(
            config,
            site,
            metrics.clone(),
            spool.clone(),
            keeper.watch(),
            tls,
            Desk::new(link.clone(), cache.clone(), metrics.clone()),
            began,
        ));
        let sealer = Arc::new(Mutex::new(sealer));
        let uplink = Uplink {
            link: link.clone(),
            spool: spool.clone(),
            views: keeper.watch(),
            sealer: sealer.clone(),
            metrics: metrics.clone(),
            retry_max,
            began,
            traces,
        };
        let uplink = {
            let (fail, stopped) = (fail.clone(), stopped.clone());
            Tasks(vec![tokio::spawn(async move {
                if let Err(error) = uplink.run(stopped).await {
                    let _ = fail.send(error.into()).await;
                }
            })])
        };
        others.0.push({
            let (link, keeper) = (link.clone(), keeper.clone());
            let (metrics, fail, stopped) = (metrics.clone(), fail.clone(), stopped.clone());
            tokio::spawn(async move {
                let followed =
                    follow_bundles(link, keeper, metrics, bundle_wait, retry_max, stopped).await;
                if let Err(error) = followed {
                    let _ = fail.send(error.into()).await;
                }
            })
        });
        others.0.push(tokio::spawn(apply_bundles(station.clone(), keeper.watch())));
        others.0.push(tokio::spawn(end_keys(keeper.clone())));
        others.0.push(tokio::spawn(watch_disk(
            data.clone(),
            reserve,
            spool.clone(),
            cache.clone(),
        )));
        others.0.push(tokio::spawn(give_way(spool.clone(), cache.clone())));
        others.0.push(tokio::spawn(cache::works(cache.clone(), link.clone(), cache_works)));
        let tls_in_use = identity.tls().chain.clone();
        let station_of = station.clone();
        others.0.push(tokio::spawn(
            Renewal { identity, est, link, station: station_of, tls_in_use, sealer, disk, data }
                .run(),
        ));
        others.0.push(tokio::spawn(watch_spool(spool.clone(), fail)));
        let devices = Tasks(vec![tokio::spawn(listen(listener, station, stopped))]);
        health.send_replace(Health::Serving);
        tracing::info!(at = %local_addr, "devices can connect");
        Ok(Self {
            local_addr,
            metrics_addr,
            metrics,
            spool,
            cache,
            keeper,
            health,
            stop,
            failures,
            devices,
            uplink,
            others,
        })
    }

    /// Where devices connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where metrics and health are shown.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The generation of the bundle in use.
    pub fn generation(&self) -> u64 {
        self.keeper.newest().map_or(0, |view| view.generation)
    }

    /// Resolves when the gateway cannot go on: the process must stop. After a failed sync nothing is acknowledged any
    /// more (INV-ACK-1).
    pub async fn failed(&mut self) -> GatewayError {
        let failed = self.failures.recv().await;
        self.health.send_replace(Health::Failed);
        failed.unwrap_or(GatewayError::TaskEnded { task: "the watch over the spool" })
    }

    /// Ends cleanly: see the module's head. What is not handed up yet stays in the spool.
    pub async fn stop(self) -> Result<(), GatewayError> {
        self.health.send_replace(Health::Starting);
        self.stop.send_replace(true);
        self.devices.ended().await;
        self.uplink.ended().await;
        drop(self.others);
        let cache = self.cache;
        blocking(move || cache.keep_order()).await;
        let failed = *self.spool.failed().borrow();
        self.spool.close().await?;
        if failed { Err(GatewayError::SpoolFailed) } else { Ok(()) }
    }
}

/// Starts a gateway and runs it until `shutdown` resolves or it fails.
pub async fn run(
    config: Config,
    disk: SharedDisk,
    shutdown: impl Future<Output = ()>,
) -> Result<(), GatewayError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut gateway = tokio::select! {
        started = Gateway::start(config, disk) => started?,
        () = &mut shutdown => return Ok(()),
    };
    tokio::select! {
        failed = gateway.failed() => Err(failed),
        () = shutdown => gateway.stop().await,
    }
}

/// Tasks that end with their gateway, or with a start that is given up half-way.
#[derive(Debug)]
struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    /// Waits until they have come to their end by themselves.
    async fn ended(mut self) {
        for task in &mut self.0 {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the gateway ended badly");
            }
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn bind(at: SocketAddr) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(at).await.map_err(|source| GatewayError::Listen { at, source })
}

/// Without a bundle nobody may come in, so there is nothing to serve.
async fn first_bundle(
    config: &Config,
    link: &Link,
    keeper: &Arc<Keeper>,
    metrics: &Metrics,
) -> Result<(), BundleError> {
    let mut backoff = Backoff::new(config.retry_max);
    while keeper.newest().is_none() {
        if let Some(asked) = ask_for_bundle(link, keeper, metrics, config.bundle_wait).await? {
            tokio::time::sleep(backoff.wait(random(), asked)).await;
        }
    }
    Ok(())
}

/// Shows the bundle in use, and forgets what belonged to devices and keys that are gone.
async fn apply_bundles(station: Arc<Station>, mut views: watch::Receiver<Option<Arc<View>>>) {
    loop {
        let view = views.borrow_and_update().clone();
        if let Some(view) = view {
            show(&view, &station.metrics);
            let keys: HashSet<KeyId> = view.seal_keys().copied().collect();
            station.spool.retain_keys(|key| keys.contains(key));
            station.retain_devices(&view);
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// Ends TLS keys that were replaced when their time is over, by the machine's clock, as certificates end.
async fn end_keys(keeper: Arc<Keeper>) {
    let mut views = keeper.watch();
    loop {
        if keeper.end_keys(UnixTime::now()) {
            tracing::info!("TLS keys that were replaced have come to their end");
        }
        // A newer bundle may bring some that are over already.
        if let Ok(Err(_)) = tokio::time::timeout(KEYS_LOOK, views.changed()).await {
            return;
        }
    }
}

/// Shows what is in use. The keeper takes newer ones only: this is the second look.
fn show(view: &View, metrics: &Metrics) {
    let generation = view.generation as i64;
    if generation < metrics.bundle_generation.get() {
        metrics.violated(Invariant::Fresh1, "an older bundle took the place of a newer one");
    }
    metrics.bundle_generation.set(generation);
    metrics.bundle_devices.set(view.devices() as i64);
    metrics.bundle_unreadable.set(view.unreadable as i64);
}

/// Keeps a reserve of the disk for everything that is not the spool, and as much again that is not the cache.
async fn watch_disk(data: PathBuf, reserve: u64, spool: Spool, cache: Arc<Cache>) {
    if reserve == 0 {
        return;
    }
    let mut was_low = false;
    loop {
        // A disk whose free space cannot be asked for is not thought to be full: the spool has its own bound.
        let free = rustix::fs::statvfs(&data).map(|s| s.f_bavail.saturating_mul(s.f_frsize));
        let low = free.is_ok_and(|free| free < reserve);
        let wanted = reserve.saturating_mul(2);
        if let Some(missing) = free.ok().and_then(|free| wanted.checked_sub(free))
            && missing > 0
        {
            let cache = cache.clone();
            blocking(move || cache.give_way(missing)).await;
        }
        if low != was_low {
            tracing::warn!(low, reserve, "the disk's reserve");
            was_low = low;
        }
        spool.set_low(low);
        tokio::time::sleep(DISK_LOOK).await;
    }
}

/// What was admitted must have its place: what can be fetched again goes for it, a segment's worth at a time.
async fn give_way(spool: Spool, cache: Arc<Cache>) {
    let disk_full = spool.disk_full();
    loop {
        disk_full.notified().await;
        let (cache, bytes) = (cache.clone(), spool.segment_bytes());
        blocking(move || cache.give_way(bytes)).await;
        // The next one to find no room comes after it has been made.
        tokio::time::sleep(DISK_LOOK).await;
    }
}

async fn watch_spool(spool: Spool, fail: mpsc::Sender<GatewayError>) {
    let mut failed = spool.failed();
    if failed.wait_for(|failed| *failed).await.is_ok() {
        tracing::error!("a write or sync of the spool failed: nothing is acknowledged any more");
        let _ = fail.send(GatewayError::SpoolFailed).await;
    }
}

/// Renews this gateway's certificates before they end.
struct Renewal {
    identity: Identity,
    est: est::Server,
    link: Arc<Link>,
    station: Arc<Station>,
    /// The certificate that both ends of TLS show.
    tls_in_use: Vec<Vec<u8>>,
    sealer: Arc<Mutex<Sealer>>,
    disk: SharedDisk,
    data: PathBuf,
}

impl Renewal {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RENEWAL_LOOK);
        self.show_end();
        loop {
            let wait = match self.look().await {
                Ok(()) => {
                    backoff.reset();
                    RENEWAL_LOOK
                }
                Err(error) => {
                    self.station.metrics.renewals_failed.inc();
                    tracing::error!(error = %told(&error), "a certificate of this gateway is not renewed yet");
                    backoff.wait(random(), error.retry_after())
                }
            };
            self.show_end();
            tokio::time::sleep(wait).await;
        }
    }

    fn show_end(&self) {
        let until = match self.identity.tls().leaf.not_after {
            NotAfter::At(time) => time.as_secs() as i64,
            NotAfter::Never => 0,
        };
        self.station.metrics.certificate_expires.set(until);
    }

    /// Each look finishes what an earlier one has left half done: what is in use is compared with what the identity says,
    /// whether or not this look has changed it.
    async fn look(&mut self) -> Result<(), GatewayError> {
        let now = UnixTime::now();
        let tls = self.look_at_tls(now).await;
        // Also when that one cannot be had now.
        let seal = self.look_at_seal(now).await;
        tls.and(seal)
    }

    async fn look_at_tls(&mut self, now: UnixTime) -> Result<(), GatewayError> {
        if self.identity.tls_needs_renewal(now) {
            self.identity.renew_tls(&self.est).await?;
            tracing::info!("TLS certificate renewed");
        }
        if self.tls_in_use != self.identity.tls().chain {
            self.use_tls()?;
            self.tls_in_use = self.identity.tls().chain.clone();
        }
        Ok(())
    }

    /// Until the new key's epoch has begun, the old one seals on from memory. Control may refuse its batches; they wait in
    /// the spool.
    async fn look_at_seal(&mut self, now: UnixTime) -> Result<(), GatewayError> {
        if self.identity.seal_needs_rotation(now) {
            let key = self.identity.rotate_seal_key(&self.est, Algorithm::Ed25519).await?;
            tracing::info!(%key, "sealing key rotated");
        }
        let key = self.identity.seal().key.clone();
        let id = key.public().id();
        if self.sealer().key() != id {
            let last = match epoch(&*self.disk, &self.data, &id)? {
                Epoch::Known(last) => Some(last),
                // It came after the key that seals now, and has sealed nothing.
                Epoch::New | Epoch::Lost => None,
            };
            let next = Sealer::begin(&*self.disk, &self.data, key, last)?;
            *self.sealer() = next.ok_or(GatewayError::NoMoreEpochs)?;
            tracing::info!(key = %id, "seals under this key from now on");
        }
        Ok(())
    }

    fn sealer(&self) -> MutexGuard<'_, Sealer> {
        self.sealer.lock().expect("sealing does not panic")
    }

    /// Sessions go on under the old certificate; whoever connects from now on sees the new one.
    fn use_tls(&self) -> Result<(), GatewayError> {
        let server: Result<_, TlsError> =
            self.identity.server_config(ClientAuth::Required, Alpn::MqttOrHttp11);
        self.station.tls.store(server?);
        let client = self.identity.client_config(Alpn::Http11)?;
        self.link.renew(&client).map_err(GatewayError::Http)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INV-FRESH-1: the keeper takes newer ones only; that it did not is seen here.
    #[test]
    fn a_bundle_that_went_back_is_counted() {
        let metrics = Metrics::new();
        let shown = |generation| {
            let bundle = api::Bundle {
                format: 1,
                site: "site".into(),
                generation,
                gateway: "gw-1".into(),
                zone: "hall".into(),
                devices: vec![],
                policies: String::new(),
            };
            let view = View::of(&bundle, &GatewayId::new("gw-1").unwrap()).unwrap();
            show(&view, &metrics);
            metrics.violations("INV-FRESH-1")
        };
        assert_eq!([shown(4), shown(5), shown(5), shown(4)], [0, 0, 0, 1]);
    }
}
