//! What every request shares, and how far the station's end has come.

use crate::alerts::Alerts;
use crate::bundle::Keys;
use crate::caller::{Caller, Denied};
use crate::certificate::{CertificateError, Own};
use crate::config::Limits;
use crate::director::Director;
use crate::endpoint::Access;
use crate::enrol::Terms;
use crate::error::Fatal;
use crate::idempotency::UnderWay;
use crate::inventory::Inventory;
use crate::known::Known;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::people::door::Door;
use crate::problem::Failure;
use crate::registry::{Registry, RegistryError};
use crate::releases::Releases;
use crate::request::Requests;
use crate::rollouts::Rollouts;
use crate::stream::Streams;
use crate::turns::Turns;
use api::Query;
use bus::Writer;
use keys::ca::Authority;
use keys::{Issuers, UnixTime};
use model::{DeviceId, Digest, Timestamp, told};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime};
use tokio::sync::{Semaphore, watch};
use traces::Traces;
use trust::mac::MacKey;

/// What every request shares.
pub(crate) struct Station {
    pub registry: Registry,
    pub ledger: Ledger,
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
    pub door: Door,
    pub query: Arc<dyn Query>,
    pub shards: Vec<Writer>,
    pub bus_key: MacKey,
    pub uplinks: Arc<Semaphore>,
    pub turns: Turns<DeviceId>,
    pub check_ins: Turns<DeviceId>,
    pub director: Arc<Director>,
    pub releases: Releases,
    pub rollouts: Rollouts,
    pub inventory: Inventory,
    pub alerts: Alerts,
    /// One for each image on its way to a gateway.
    pub blobs: Arc<Semaphore>,
    /// Calls that are made under a key.
    pub under_way: UnderWay,
    /// Numbers requests.
    pub requests: Requests,
    /// What changes, for who listens.
    pub streams: Streams,
    pub metrics: Metrics,
    pub traces: Traces,
    pub registries: Vec<prometheus::Registry>,
    pub known: Mutex<Known>,
    pub phase: watch::Sender<Phase>,
    pub fatal: watch::Sender<Option<Fatal>>,
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
    pub fn past_its_scope(&self, access: Access, caller: &Caller) -> Denied {
        let (expected, found) = (access.expected(), caller.to_string());
        self.metrics.count_violation("INV-LEAST-1");
        tracing::error!(expected, found, "a caller got past the scope of its call");
        Denied::OutOfScope { expected, found }
    }

    pub fn failed_to_store(&self, error: RegistryError) -> Failure {
        if let Some(invariant) = error.broken_invariant() {
            self.metrics.count_violation(invariant);
        }
        tracing::error!(error = %told(&error), "the registry failed");
        error.into()
    }

    /// Sets what is looked up when somebody asks.
    pub fn look_at_metrics(&self) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.look_at(&self.registry.directory(), self.keys.seal_max);
        let events = self.registry.events();
        self.metrics.evidence_events.set(number(events));
        self.metrics.evidence_behind.set(number(events.saturating_sub(self.ledger.size())));
        let failing = self.releases.has_repository() && self.releases.failed().is_some();
        self.metrics.releases_failing.set(i64::from(failing));
        let phases: Vec<_> = {
            let book = self.rollouts.book();
            book.rollouts().map(|(_, live)| live.state().phase.name()).collect()
        };
        self.metrics.look_at_rollouts(phases.into_iter());
        // What cannot be asked stays as it was.
        if let Ok(disk) = rustix::fs::statvfs(self.registry.path())
            && disk.f_blocks > 0
        {
            self.metrics.disk_free_percent.set(number(disk.f_bavail * 100 / disk.f_blocks));
        }
    }

    /// Control's own, and those of the other stations of this process.
    pub fn metrics_registries(&self) -> impl Iterator<Item = &prometheus::Registry> {
        std::iter::once(&self.metrics.registry).chain(&self.registries)
    }

    pub fn renew_certificate(&self, now: UnixTime) -> Result<bool, CertificateError> {
        let renewed = self.own.look(now)?;
        if renewed {
            self.show_certificate();
            tracing::info!(expires_s = self.own.expires_s(), "control's own certificate renewed");
        }
        Ok(renewed)
    }

    pub fn show_certificate(&self) {
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
