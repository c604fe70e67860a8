//! Does what the cores decided: holds the parts together, starts and stops them.

use crate::alerts::{self, Alerts};
use crate::bundle::Keys;
use crate::certificate::{self, CertificateError, Own};
use crate::config;
use crate::config::{Config, Images, TOKEN_CHARS_MIN};
use crate::director::Director;
use crate::enrol::Terms;
use crate::error::{Fatal, StartError};
use crate::idempotency::UnderWay;
use crate::images;
use crate::inventory::Inventory;
use crate::known::Known;
use crate::ledger::Ledger;
use crate::listener::{self, Listener};
use crate::metrics::Metrics;
use crate::people;
use crate::people::door::Door;
use crate::principal::SITE_TOKEN;
use crate::registry::{ChangeError, Changed, Registry};
use crate::releases::Releases;
use crate::request::Requests;
use crate::rollouts::Rollouts;
use crate::station::{Phase, Station, now};
use crate::stream::{self, Streams};
use crate::turns::Turns;
use api::{Ownership, Query};
use bus::Writer;
use disk::RealDisk;
use keys::{Issuers, UnixTime, est, pkcs7};
use model::told;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

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
        let metrics = Metrics::new()?;
        config.traces.show_in(&metrics.registry);
        let config::Director { roots, key } = config.director;
        let director = Director::open(key, roots, limits.director, metrics.clone())?;
        if director.root_ends() <= now() {
            tracing::error!("the Director's root has ended: no device follows it");
        }
        let releases = match config.images {
            Some(Images { source, first_root, kept }) => {
                Releases::open(Arc::new(RealDisk), &kept, first_root.as_deref(), source, now())?
            }
            None => Releases::none(),
        };
        let registry = Registry::open(&config.registry, &config.site, &config.policies).await?;
        let ledger = Ledger::start(&registry, &config.site, config.evidence, &metrics).await?;
        let director = Arc::new(director);
        let rollouts = Rollouts::open(
            registry.clone(),
            releases.clone(),
            director.clone(),
            query.clone(),
            metrics.clone(),
        );
        let rollouts = rollouts.await?;
        let inventory = Inventory::open(registry.clone(), &rollouts, metrics.clone()).await?;
        let alerts =
            Alerts::open(config.site.clone(), registry.clone(), query.clone(), metrics.clone());
        let alerts = alerts.await?;
        let streams = Streams::new(registry.events(), &limits);
        let station = Arc::new(Station {
            registry,
            ledger,
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
            door: Door::default(),
            query,
            shards,
            bus_key: config.bus_key,
            uplinks: Arc::new(Semaphore::new(limits.uplinks_max)),
            turns: Turns::new("uplink call", 1),
            check_ins: Turns::new("check-ins", limits.check_ins_max),
            director,
            releases,
            rollouts,
            inventory,
            alerts,
            blobs: Arc::new(Semaphore::new(limits.blobs_max)),
            under_way: UnderWay::default(),
            requests: Requests::new(now()),
            streams,
            metrics,
            traces: config.traces,
            registries,
            known: Mutex::new(Known::new(limits.known)),
            phase: watch::Sender::new(Phase::Serving),
            fatal: watch::Sender::new(None),
            limits,
        });
        station.show_certificate();
        stream::begin(&station).await?;
        let listen = |source| StartError::Listen { at: config.listen, source };
        let socket = TcpListener::bind(config.listen).await.map_err(listen)?;
        let local_addr = socket.local_addr().map_err(listen)?;
        let connections = TaskTracker::new();
        let listener = Listener::new(station.clone(), connections.clone());
        connections.spawn(listener::run(listener, socket));
        let draining = station.reached(Phase::Draining);
        connections.spawn(station.rollouts.clone().run(connections.clone(), draining));
        let draining = station.reached(Phase::Draining);
        connections.spawn(station.inventory.clone().run(draining));
        alerts::run(&station, &connections);
        let draining = station.reached(Phase::Draining);
        connections.spawn(people::call::keep_tidy(station.clone(), draining));
        connections.spawn(stream::tell(station.clone()));
        watch_for_failure(&station, &connections);
        keep_certificate(&station, &connections);
        if station.releases.has_repository() {
            connections.spawn(images::keep_looking(station.clone()));
        }
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
        self.station.ledger.may_widen()?;
        let changed = self.station.registry.list(entry, &SITE_TOKEN.into(), now()).await?;
        self.station.ledger.covered(changed.events).await?;
        Ok(changed)
    }

    pub fn registry(&self) -> &Registry {
        &self.station.registry
    }

    pub fn releases(&self) -> &Releases {
        &self.station.releases
    }

    pub fn director(&self) -> &Arc<Director> {
        &self.station.director
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
        self.station.ledger.end().await;
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

/// A bus, registry or evidence log that failed has failed for good, whether or not a request meets it.
fn watch_for_failure(station: &Arc<Station>, tasks: &TaskTracker) {
    let (failing, failed, draining) =
        (station.clone(), station.ledger.failed(), station.reached(Phase::Draining));
    tasks.spawn(async move {
        tokio::select! {
            why = failed => failing.fail(Fatal::Evidence { why }),
            () = draining => {}
        }
    });
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
