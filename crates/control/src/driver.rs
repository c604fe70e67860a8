//! Does what the cores decided: holds the parts together, starts and stops them.

use crate::bundle::Keys;
use crate::caller::{Caller, Denied};
use crate::certificate::{self, CertificateError, Own};
use crate::config::{Config, Limits, TOKEN_CHARS_MIN};
use crate::enrol::Terms;
use crate::error::{Fatal, StartError, told};
use crate::gateway::Turns;
use crate::known::Known;
use crate::listener::{self, Listener};
use crate::metrics::Metrics;
use crate::problem::Failure;
use crate::registry::{ChangeError, Changed, Registry, RegistryError};
use api::{Ownership, Query};
use bus::Writer;
use disk::RealDisk;
use keys::ca::Authority;
use keys::{Issuers, UnixTime, est, pkcs7};
use model::{Digest, Timestamp};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use trust::mac::MacKey;

/// What every request shares.
pub(crate) struct Station {
    pub registry: Registry,
    pub authority: Arc<Authority>,
    /// What the listener shows.
    pub own: Own,
    /// EST's answer to `cacerts`, ready to send.
    pub ca_certs: String,
    pub issuers: Issuers,
    pub terms: Terms,
    /// What of its devices' keys a gateway is told.
    pub keys: Keys,
    pub policies: String,
    pub limits: Limits,
    /// Of the token, so that comparing takes one length.
    pub token: Digest,
    pub query: Arc<dyn Query>,
    pub shards: Vec<Writer>,
    pub bus_key: MacKey,
    pub uplinks: Arc<Semaphore>,
    pub turns: Turns,
    pub metrics: Metrics,
    pub registries: Vec<prometheus::Registry>,
    known: Mutex<Known>,
    phase: watch::Sender<Phase>,
    fatal: watch::Sender<Option<Fatal>>,
}

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Nothing new is accepted; what was begun is ended.
    Draining,
    /// What is not ended is cut off.
    Cut,
}

impl Station {
    /// Resolves when the shutdown has come so far.
    pub fn reached(&self, wanted: Phase) -> impl Future<Output = ()> + Send + 'static {
        let mut phase = self.phase.subscribe();
        async move {
            // An error says that the station is gone, which is further still.
            let _ = phase.wait_for(|phase| *phase >= wanted).await;
        }
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds the memory")
    }

    /// Says that this process has to stop. The first reason stays.
    pub fn fail(&self, fatal: Fatal) {
        self.fatal.send_if_modified(|known| {
            if known.is_some() {
                return false;
            }
            tracing::error!(reason = %fatal, "control has to stop");
            *known = Some(fatal);
            true
        });
    }

    pub fn fatal(&self) -> Option<Fatal> {
        self.fatal.borrow().clone()
    }

    /// The second look behind the table of scopes: somebody came to work that is not for him (INV-LEAST-1).
    pub fn past_its_scope(&self, expected: &'static str, caller: &Caller) -> Denied {
        let found = caller.kind();
        self.metrics.count_violation("INV-LEAST-1");
        tracing::error!(
            expected,
            found = found.as_str(),
            "a caller got past the scope of its call"
        );
        Denied::OutOfScope { expected, found }
    }

    pub fn failed_to_store(&self, error: RegistryError) -> Failure {
        if let Some(invariant) = error.broken_invariant() {
            self.metrics.count_violation(invariant);
        }
        tracing::error!(error = %told(&error), "the registry failed");
        error.into()
    }

    fn renew_certificate(&self, now: UnixTime) -> Result<bool, CertificateError> {
        let renewed = self.own.look(now)?;
        if renewed {
            self.show_certificate();
            tracing::info!(expires_s = self.own.expires_s(), "control's own certificate renewed");
        }
        Ok(renewed)
    }

    fn show_certificate(&self) {
        let expires_s = i64::try_from(self.own.expires_s()).unwrap_or(i64::MAX);
        self.metrics.certificate_expires.set(expires_s);
    }

    /// Books the time since `started` under a step of the uplink; the next step begins now.
    pub fn step(&self, step: &str, started: Instant) -> Instant {
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.uplink_step_seconds.with_label_values(&[step]).observe(seconds);
        Instant::now()
    }
}

/// The machine's clock: it labels history and ends certificates.
pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
}

/// A running control plane.
pub struct Control {
    station: Arc<Station>,
    local_addr: SocketAddr,
    connections: TaskTracker,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control({}, {:?})", self.local_addr, self.station.registry)
    }
}

impl Control {
    /// Opens the registry, binds and serves. `shards` are the bus's writers in the order of their numbers; `registries`
    /// are the metrics of other stations in this process, shown beside control's own.
    pub async fn start(
        config: Config,
        query: Arc<dyn Query>,
        shards: Vec<Writer>,
        registries: Vec<prometheus::Registry>,
    ) -> Result<Self, StartError> {
        if config.token.len() < TOKEN_CHARS_MIN {
            return Err(StartError::ShortToken { found: config.token.len() });
        }
        if shards.is_empty() {
            return Err(StartError::NoShards);
        }
        policy::Policies::parse(&config.policies)?;
        let anchor = config.authority.certificate_der().to_vec();
        let ca_certs = est::encode_body(&pkcs7::encode(std::slice::from_ref(&anchor))?);
        let issuers = Issuers::new(&config.site, vec![anchor], config.makers)?;
        let limits = config.limits;
        let own = certificate::Terms {
            disk: Arc::new(RealDisk),
            path: config.certificate,
            site: config.site.clone(),
            key: config.key,
            authority: config.authority.clone(),
            issuers: issuers.clone(),
            life: limits.certificate_life,
        };
        let own = Own::open(own, UnixTime::now())?;
        let registry = Registry::open(&config.registry, &config.site, &config.policies).await?;
        let station = Arc::new(Station {
            registry,
            authority: config.authority,
            own,
            ca_certs,
            issuers,
            terms: Terms {
                site: config.site,
                life: limits.certificate_life,
                keys_per_day_max: limits.keys_per_day_max,
            },
            keys: Keys { tls_grace: limits.key_grace, seal_max: limits.seal_keys_max },
            policies: config.policies,
            token: trust::digest(config.token.as_bytes()),
            query,
            shards,
            bus_key: config.bus_key,
            uplinks: Arc::new(Semaphore::new(limits.uplinks_max)),
            turns: Turns::default(),
            metrics: Metrics::new()?,
            registries,
            known: Mutex::new(Known::new(limits.known)),
            phase: watch::Sender::new(Phase::Serving),
            fatal: watch::Sender::new(None),
            limits,
        });
        station.show_certificate();
        let listen = |source| StartError::Listen { at: config.listen, source };
        let socket = TcpListener::bind(config.listen).await.map_err(listen)?;
        let local_addr = socket.local_addr().map_err(listen)?;
        let connections = TaskTracker::new();
        let listener = Listener::new(station.clone(), connections.clone());
        connections.spawn(listener::run(listener, socket));
        watch_for_failure(&station, &connections);
        keep_certificate(&station, &connections);
        tracing::info!(%local_addr, generation = station.registry.directory().generation(), "control serves");
        Ok(Self { station, local_addr, connections })
    }

    #[cfg(test)]
    pub(crate) fn station(&self) -> &Arc<Station> {
        &self.station
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Puts a serial number on the ownership list, as `POST /v1/ownership` does. To list it again as it is changes nothing.
    pub async fn list(&self, entry: &Ownership) -> Result<Changed, ChangeError> {
        self.station.registry.list(entry, now()).await
    }

    pub fn registry(&self) -> &Registry {
        &self.station.registry
    }

    pub fn metrics(&self) -> prometheus::Registry {
        self.station.metrics.registry.clone()
    }

    /// Renews control's own certificate if it is due at `now`. Says whether it was. Control does so by itself, every ten
    /// minutes.
    pub fn renew_certificate(&self, now: UnixTime) -> Result<bool, CertificateError> {
        self.station.renew_certificate(now)
    }

    /// Resolves when control can promise nothing any more: whoever runs it stops the process.
    pub fn failed(&self) -> impl Future<Output = Fatal> + Send + 'static {
        let mut fatal = self.station.fatal.subscribe();
        let station = self.station.clone();
        async move {
            let known = fatal.wait_for(Option::is_some).await;
            let known = known.expect("the station that is held here keeps the sender").clone();
            drop(station);
            known.expect("it was waited for")
        }
    }

    /// Stops accepting, lets open requests end within their time, cuts off the rest. The bus's writers are the caller's to
    /// close, afterwards.
    pub async fn shutdown(self) {
        self.station.phase.send_replace(Phase::Draining);
        self.connections.close();
        let limit = self.station.limits.shutdown_time_max;
        if tokio::time::timeout(limit, self.connections.wait()).await.is_err() {
            self.station.phase.send_replace(Phase::Cut);
            self.connections.wait().await;
        }
        self.station.registry.close().await;
        tracing::info!("control has ended");
    }
}

/// How often control looks whether its own certificate is due. From that day on it lives for another thirty, so that a
/// renewal which fails can fail for long.
const LOOK: Duration = Duration::from_secs(600);

fn keep_certificate(station: &Arc<Station>, tasks: &TaskTracker) {
    let (station, draining) = (station.clone(), station.reached(Phase::Draining));
    tasks.spawn(async move {
        let mut draining = std::pin::pin!(draining);
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = draining.as_mut() => return,
            }
            if let Err(error) = station.renew_certificate(UnixTime::now()) {
                let expires_s = station.own.expires_s();
                tracing::error!(error = %told(&error), expires_s, "control's own certificate is not renewed");
            }
        }
    });
}

/// A bus or registry that failed has failed for good, whether or not a request meets it.
fn watch_for_failure(station: &Arc<Station>, tasks: &TaskTracker) {
    let mut sources: Vec<(watch::Receiver<bool>, Fatal)> = station
        .shards
        .iter()
        .enumerate()
        .map(|(shard, writer)| (writer.failed(), Fatal::Bus { shard }))
        .collect();
    sources.push((station.registry.failed(), Fatal::Registry));
    for (mut failed, fatal) in sources {
        let (station, draining) = (station.clone(), station.reached(Phase::Draining));
        tasks.spawn(async move {
            tokio::select! {
                // An error says that its owner has ended in good order.
                happened = failed.wait_for(|failed| *failed) => if happened.is_ok() { station.fail(fatal) },
                () = draining => {}
            }
        });
    }
}
