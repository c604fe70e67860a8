//! Everything that is known of each device, in the form in which people ask: one line of many, and one device whole.
//!
//! ```text
//!   check-in ─┐
//!   uplink   ─┼─▶ heard, refused ─▶ index, in memory ─▶ every 30 s and at the end: tables `seen`, `gateways`, `refusals`
//!   enrolment ┘                          ▲
//!   registry: directory ─────────────────┤ looked at when somebody asks
//!   check-in: what it runs ──────────────┘
//! ```
//!
//! Promises: to say that a device was heard costs a request no disk and no wait for one; a crash loses what was heard in the
//! last half minute and nothing else; no question about the fleet runs SQL.
//! Never: decides anything. Nothing is believed, refused or ordered by what is said here.

pub(crate) mod call;
pub mod index;
pub mod refusals;
pub mod table;
pub mod told;

use crate::metrics::Metrics;
use crate::principal::Reach;
use crate::registry::{Registry, RegistryError, Work};
use crate::rollouts::Rollouts;
use crate::station::now;
use api::device::{DeviceLine, Summary};
use index::{Filter, Found, Index};
use model::manifest::Manifest;
use model::{DeviceId, ZoneId, told as text_of};
use refusals::Refusals;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

/// How far what is on disk may be behind.
const KEEP_EVERY: Duration = Duration::from_secs(30);
/// Devices in one transaction: some 10 ms, for which others wait.
const KEEP_DEVICES_MAX: usize = 4096;
/// Kinds of refusal in one transaction.
const KEEP_REFUSALS_MAX: usize = 1024;

/// The inventory. Clones are handles to the same one.
#[derive(Clone)]
pub struct Inventory(Arc<Inner>);

struct Inner {
    registry: Registry,
    metrics: Metrics,
    index: RwLock<Index>,
    refusals: Mutex<Refusals>,
}

impl Inventory {
    /// Reads what is kept.
    pub async fn open(
        registry: Registry,
        rollouts: &Rollouts,
        metrics: Metrics,
    ) -> Result<Self, RegistryError> {
        let work = registry.step(|step| -> Work<'_, _, RegistryError> {
            Box::pin(async move {
                table::runs_since_before(step.tx()).await?;
                table::seen(step.tx()).await
            })
        });
        let seen = work.await?.value;
        let mut index = Index::default();
        index.follow(&registry.directory());
        for (device, at_ms, gateway) in seen {
            index.recall(&device, gateway.as_deref(), at_ms);
        }
        for (device, kept) in rollouts.book().manifests() {
            let first = first_product(&kept.manifest());
            index.runs(device, first.as_ref().map(|(product, version)| (&**product, &**version)));
        }
        let (index, refusals) = (RwLock::new(index), Mutex::default());
        Ok(Self(Arc::new(Inner { registry, metrics, index, refusals })))
    }

    /// The site that a zone is of.
    pub fn site_of(&self, zone: &str) -> String {
        let people = self.0.registry.people();
        match ZoneId::new(zone) {
            Ok(zone) => people.site_of(&zone).to_owned(),
            Err(_) => people.own_site().to_owned(),
        }
    }

    /// These devices were heard now, by this gateway or by themselves.
    pub fn heard<'a>(
        &self,
        gateway: Option<&DeviceId>,
        devices: impl IntoIterator<Item = &'a DeviceId>,
    ) {
        let at_ms = now().as_ms();
        let directory = self.0.registry.directory();
        let mut index = self.0.index.write().expect(WHOLE);
        // Who enrolled a moment ago has no line yet.
        index.follow(&directory);
        for device in devices {
            index.hear(device, gateway.map(DeviceId::as_str), at_ms);
        }
        if let Some(gateway) = gateway {
            index.hear(gateway, None, at_ms);
        }
    }

    /// A device said what it runs, and was heard.
    pub fn checked_in(&self, gateway: &DeviceId, device: &DeviceId, manifest: &Manifest) {
        self.heard(Some(gateway), [device]);
        let first = first_product(manifest);
        let first = first.as_ref().map(|(product, version)| (&**product, &**version));
        self.0.index.write().expect(WHOLE).runs(device, first);
    }

    /// Something was refused in a device's name. Of who is not of the fleet nothing is remembered.
    pub fn refused(
        &self,
        device: &DeviceId,
        what: &'static str,
        reason: &'static str,
        gateway: Option<&DeviceId>,
    ) {
        if self.0.registry.directory().device(device).is_none() {
            return;
        }
        let gateway = gateway.map(DeviceId::as_str);
        let mut refusals = self.0.refusals.lock().expect("nothing panics while it holds them");
        if !refusals.add(device, what, reason, gateway, now().as_ms()) {
            self.0.metrics.refusals_not_kept.inc();
        }
    }

    pub fn line(&self, device: &DeviceId) -> Option<DeviceLine> {
        let directory = self.0.registry.directory();
        let mut index = self.0.index.write().expect(WHOLE);
        index.follow(&directory);
        index.line(device, |zone| self.site_of(zone))
    }

    /// A page of what is looked for. A pass over the fleet: off the threads that serve.
    pub async fn find(
        &self,
        filter: Filter,
        reach: Reach,
        after: Option<String>,
        limit: usize,
    ) -> Option<Found> {
        let look = move |index: &Index, this: &Self| {
            index.find(&filter, &reach, |zone| this.site_of(zone), after.as_deref(), limit)
        };
        self.look(look).await
    }

    pub async fn count(&self, filter: Filter, reach: Reach) -> Option<Summary> {
        let look = move |index: &Index, this: &Self| {
            index.count(&filter, &reach, |zone| this.site_of(zone), now())
        };
        self.look(look).await
    }

    /// `None`: the process ends.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Index, &Self) -> T + Send + 'static,
    ) -> Option<T> {
        let this = self.clone();
        let work = move || {
            let directory = this.0.registry.directory();
            this.0.index.write().expect(WHOLE).follow(&directory);
            look(&this.0.index.read().expect(WHOLE), &this)
        };
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Writes down what was heard and refused since the last time, until `draining` and once more then.
    pub(crate) async fn run(self, draining: impl Future<Output = ()>) {
        let mut draining = std::pin::pin!(draining);
        loop {
            let is_last = tokio::select! {
                () = draining.as_mut() => true,
                () = tokio::time::sleep(KEEP_EVERY) => false,
            };
            if let Err(error) = self.keep().await {
                // It is still in memory, but for refusals that were being written, and is tried again.
                tracing::warn!(error = %text_of(&error), "when devices were heard is not written down");
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes down what was heard and refused: in short transactions, so that nobody waits for long.
    pub async fn keep(&self) -> Result<(), RegistryError> {
        let mut from = Some(0);
        while let Some(at) = from {
            let (kept, next) = self.0.index.read().expect(WHOLE).unkept(at, KEEP_DEVICES_MAX);
            from = next;
            if kept.is_empty() {
                continue;
            }
            let written = kept.clone();
            let work = self.0.registry.step(move |step| -> Work<'_, (), RegistryError> {
                Box::pin(async move { table::keep(step.tx(), &written).await })
            });
            work.await?;
            self.0.index.write().expect(WHOLE).keep(&kept);
        }
        let refused = self.0.refusals.lock().expect("nothing panics while it holds them").take();
        for some in refused.chunks(KEEP_REFUSALS_MAX) {
            let some = some.to_vec();
            let work = self.0.registry.step(move |step| -> Work<'_, (), RegistryError> {
                Box::pin(async move { table::refused(step.tx(), &some).await })
            });
            work.await?;
        }
        Ok(())
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }
}

/// Why the index can be had: a panic in the middle of a change of it would have ended the work that made it.
const WHOLE: &str = "nothing panics while it holds the index";

fn first_product(manifest: &Manifest) -> Option<(String, String)> {
    let first = manifest.components.first()?;
    Some((first.product.to_string(), first.running_image().version.to_string()))
}
