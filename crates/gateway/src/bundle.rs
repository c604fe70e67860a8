//! What the gateway knows of its zone: the newest bundle, read, kept, and never exchanged for an older one.
//!
//! Promises: a bundle is durable before it is used; its generation only grows, across restarts too (INV-FRESH-1);
//! what cannot be read in it narrows rights and never widens them (INV-AUTH-1).
//! Never: asks anybody: whoever fetches bundles hands them to [`Keeper::accept`].
//!
//! `bundle.json` holds the bundle as control sent it (`api::Bundle`, format 1).

use crate::kept;
use crate::refusal::Refusal;
use api::{Bundle, Standing};
use disk::SharedDisk;
use keys::UnixTime;
use model::{DeviceId, Digest, GatewayId, KeyId, ZoneId};
use policy::{Action, Policies, Principal};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use trust::cose::PublicKey;

/// The longest bundle that is read: some 40,000 devices.
pub const BUNDLE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The format that this build knows.
pub const FORMAT: u32 = 1;

/// A bundle that was read: what decisions are made from.
#[derive(Clone, Debug)]
pub struct View {
    pub site: String,
    pub generation: u64,
    pub gateway: GatewayId,
    pub zone: ZoneId,
    devices: HashMap<DeviceId, Device>,
    policies: Policies,
    /// Entries that could not be read. Nobody gets in by them.
    pub unreadable: usize,
}

#[derive(Clone, Debug)]
struct Device {
    zone: ZoneId,
    standing: Standing,
    tls_keys: Vec<TlsKey>,
    seal_keys: HashMap<KeyId, PublicKey>,
}

impl Device {
    fn has_tls_key(&self, spki: &Digest) -> bool {
        self.tls_keys.iter().any(|key| key.spki == *spki)
    }
}

#[derive(Clone, Copy, Debug)]
struct TlsKey {
    spki: Digest,
    /// Another has replaced it: from then on it is none.
    until: Option<UnixTime>,
}

impl TlsKey {
    fn has_ended(&self, now: UnixTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Who TLS proved to be at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `None`: the certificate is the site's, but not a device's.
    pub device: Option<DeviceId>,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki: Digest,
}

#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("cannot read a bundle: {found} bytes, expected at most {BUNDLE_BYTES_MAX}")]
    TooLong { found: usize },
    #[error("cannot read a bundle: not the JSON of one")]
    NotJson(#[source] serde_json::Error),
    #[error("cannot use bundle: format {found}, expected {FORMAT}")]
    UnknownFormat { found: u32 },
    #[error("cannot use bundle: it is for {what} {found:?}, expected {expected:?}")]
    NotOurs { what: &'static str, expected: String, found: String },
    #[error("cannot use bundle: generation {found}, expected one above {newest}")]
    Older { newest: u64, found: u64 },
    #[error("cannot use bundle: its policies cannot be read")]
    Policies(#[source] policy::PolicyError),
    #[error("cannot keep bundle in `{}`", path.display())]
    Keep { path: PathBuf, source: io::Error },
}

impl BundleError {
    /// The label of the counter.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::NotJson(_) => "not_json",
            Self::UnknownFormat { .. } => "unknown_format",
            Self::NotOurs { .. } => "not_ours",
            Self::Older { .. } => "older",
            Self::Policies(_) => "policies",
            Self::Keep { .. } => "keep",
        }
    }

    /// Every label, so that each counter exists from the start.
    pub const LABELS: [&'static str; 7] =
        ["too_long", "not_json", "unknown_format", "not_ours", "older", "policies", "keep"];
}

impl View {
    /// Reads a bundle for this gateway.
    pub fn read(bytes: &[u8], gateway: &GatewayId) -> Result<Self, BundleError> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLong { found: bytes.len() });
        }
        // The format is looked at first: one that we do not know may have other fields (INV-MIX-1).
        #[derive(serde::Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(BundleError::NotJson)?;
        if head.format != FORMAT {
            return Err(BundleError::UnknownFormat { found: head.format });
        }
        Self::of(&serde_json::from_slice(bytes).map_err(BundleError::NotJson)?, gateway)
    }

    /// The view of a bundle in memory.
    pub fn of(bundle: &Bundle, gateway: &GatewayId) -> Result<Self, BundleError> {
        if bundle.format != FORMAT {
            return Err(BundleError::UnknownFormat { found: bundle.format });
        }
        expect_ours("gateway", gateway.as_str(), &bundle.gateway)?;
        let zone = ZoneId::new(bundle.zone.as_str()).map_err(|_| BundleError::NotOurs {
            what: "zone",
            expected: "a zone id".into(),
            found: bundle.zone.chars().take(80).collect(),
        })?;
        let policies = Policies::parse(&bundle.policies).map_err(BundleError::Policies)?;
        let mut view = Self {
            site: bundle.site.clone(),
            generation: bundle.generation,
            gateway: gateway.clone(),
            zone,
            devices: HashMap::with_capacity(bundle.devices.len()),
            policies,
            unreadable: 0,
        };
        for device in &bundle.devices {
            view.add(device);
        }
        Ok(view)
    }

    /// Whether this peer may have a session (INV-AUTH-1).
    pub fn may_connect(&self, peer: &Peer) -> Result<(), Refusal> {
        let id = peer.device.as_ref().ok_or(Refusal::NotADevice)?;
        let device = self.devices.get(id).ok_or(Refusal::UnknownDevice)?;
        match device.standing {
            Standing::Enrolled => {}
            Standing::Listed => return Err(Refusal::NotEnrolled),
            Standing::Quarantined => return Err(Refusal::Quarantined),
            Standing::Revoked | Standing::Decommissioned => return Err(Refusal::Revoked),
        }
        if !device.has_tls_key(&peer.spki) {
            return Err(Refusal::UnknownTlsKey);
        }
        let decision = self.policies.may_connect(principal(id, device), &self.zone);
        if decision.allowed { Ok(()) } else { Err(Refusal::PolicyConnect) }
    }

    /// Whether this peer may check in and fetch what it should run. A quarantined device may, and nothing else: it could
    /// not be brought back without. What it gets is for control to say (INV-AUTH-1).
    pub fn may_check_in(&self, peer: &Peer) -> Result<(), Refusal> {
        let quarantined = peer.device.as_ref().and_then(|id| self.devices.get(id));
        let quarantined = quarantined.filter(|device| device.standing == Standing::Quarantined);
        match quarantined {
            Some(device) if device.zone != self.zone => Err(Refusal::Quarantined),
            Some(device) if device.has_tls_key(&peer.spki) => Ok(()),
            Some(_) => Err(Refusal::UnknownTlsKey),
            None => self.may_connect(peer),
        }
    }

    /// Whether a policy lets the device do this. The topic need not make sense: then no policy permits it.
    pub fn may_use(&self, id: &DeviceId, action: Action, topic: &str) -> bool {
        self.devices.get(id).is_some_and(|device| {
            let decision = self.policies.may_use(principal(id, device), action, topic, &self.zone);
            tracing::debug!(device = %id, topic, %decision, "policies were asked");
            decision.allowed
        })
    }

    /// A key by which the device may seal now.
    pub fn seal_key(&self, id: &DeviceId, key: &KeyId) -> Option<&PublicKey> {
        self.devices.get(id)?.seal_keys.get(key)
    }

    /// This view without the TLS keys whose time is over. `None`: there is none of them.
    fn without_ended_keys(&self, now: UnixTime) -> Option<Self> {
        let mut keys = self.devices.values().flat_map(|device| &device.tls_keys);
        if !keys.any(|key| key.has_ended(now)) {
            return None;
        }
        let mut next = self.clone();
        for device in next.devices.values_mut() {
            device.tls_keys.retain(|key| !key.has_ended(now));
        }
        Some(next)
    }

    pub fn knows_device(&self, id: &DeviceId) -> bool {
        self.devices.contains_key(id)
    }

    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Every sealing key of the zone.
    pub fn seal_keys(&self) -> impl Iterator<Item = &KeyId> {
        self.devices.values().flat_map(|device| device.seal_keys.keys())
    }

    fn add(&mut self, entry: &api::BundleDevice) {
        let (Ok(id), Ok(zone)) =
            (DeviceId::new(entry.id.as_str()), ZoneId::new(entry.zone.as_str()))
        else {
            self.unreadable += 1;
            return;
        };
        let mut device = Device {
            zone,
            standing: entry.standing,
            tls_keys: Vec::with_capacity(entry.tls_keys.len()),
            seal_keys: HashMap::with_capacity(entry.seal_keys.len()),
        };
        for text in &entry.tls_keys {
            match Digest::from_hex(text) {
                Some(spki) => {
                    let until = entry.tls_keys_until_ms.get(text).copied().map(time_of);
                    device.tls_keys.push(TlsKey { spki, until });
                }
                None => self.unreadable += 1,
            }
        }
        // One key that cannot be read must not keep a whole zone from hearing of a revocation: it is left out alone.
        for key in &entry.seal_keys {
            match seal_key(key) {
                Some((id, key)) => drop(device.seal_keys.insert(id, key)),
                None => self.unreadable += 1,
            }
        }
        // A device that is listed twice has no certain standing: nobody gets in as it.
        if let Some(first) = self.devices.get_mut(&id) {
            first.standing = Standing::Quarantined;
            first.tls_keys.clear();
            self.unreadable += 1;
            return;
        }
        self.devices.insert(id, device);
    }
}

fn principal<'a>(id: &'a DeviceId, device: &'a Device) -> Principal<'a> {
    Principal { device: id, zone: &device.zone, standing: device.standing.as_str() }
}

fn time_of(ms: i64) -> UnixTime {
    // Before 1970 is over for sure.
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

/// A key is believed to be the one that its thumbprint names, never the other way round.
fn seal_key(entry: &api::BundleKey) -> Option<(KeyId, PublicKey)> {
    let spki = model::hex::decode(&entry.spki)?;
    let key = PublicKey::from_spki_der(&spki).ok()?;
    let id = key.id();
    (KeyId::from_hex(&entry.id) == Some(id)).then_some((id, key))
}

fn expect_ours(what: &'static str, expected: &str, found: &str) -> Result<(), BundleError> {
    if expected == found {
        return Ok(());
    }
    let found = found.chars().take(80).collect();
    Err(BundleError::NotOurs { what, expected: expected.to_owned(), found })
}

/// Holds the newest bundle, on disk and in memory.
#[derive(Debug)]
pub struct Keeper {
    disk: SharedDisk,
    path: PathBuf,
    gateway: GatewayId,
    newest: watch::Sender<Option<Arc<View>>>,
    /// Bundles are taken one at a time.
    taking: Mutex<()>,
}

impl Keeper {
    /// Starts with the bundle that was kept, if there is one. One that cannot be read is an error: without its
    /// generation an older one could be taken for new.
    pub fn open(disk: SharedDisk, dir: &Path, gateway: GatewayId) -> Result<Self, BundleError> {
        let path = dir.join("bundle.json");
        let keep = |source| BundleError::Keep { path: path.clone(), source };
        let kept = if disk.exists(&path).map_err(keep)? {
            // A killed process may have left a name that is not durable: it must be before it is believed, or a power
            // cut would bring the older one back (INV-FRESH-1).
            disk.sync_dir(dir).map_err(keep)?;
            let bytes = disk.read(&path, BUNDLE_BYTES_MAX as u64).map_err(keep)?;
            Some(Arc::new(View::read(&bytes, &gateway)?))
        } else {
            None
        };
        let (newest, _) = watch::channel(kept);
        Ok(Self { disk, path, gateway, newest, taking: Mutex::new(()) })
    }

    /// Checks a bundle, keeps it durably, and only then uses it.
    pub fn accept(&self, bytes: &[u8]) -> Result<Arc<View>, BundleError> {
        let next = View::read(bytes, &self.gateway)?;
        let _one_at_a_time = self.taking.lock().expect("taking a bundle does not panic");
        if let Some(now) = &*self.newest.borrow() {
            // A gateway's zone and site are for life: another one is another gateway's bundle.
            expect_ours("zone", now.zone.as_str(), next.zone.as_str())?;
            expect_ours("site", &now.site, &next.site)?;
            if next.generation <= now.generation {
                return Err(BundleError::Older { newest: now.generation, found: next.generation });
            }
        }
        kept::write(&*self.disk, &self.path, bytes)
            .map_err(|source| BundleError::Keep { path: self.path.clone(), source })?;
        let next = Arc::new(next);
        self.newest.send_replace(Some(next.clone()));
        Ok(next)
    }

    /// Takes the TLS keys whose time is over out of what is in use, whether or not control can be reached: it is as if a
    /// newer bundle had come without them (INV-AUTH-1). Says whether there were any.
    pub fn end_keys(&self, now: UnixTime) -> bool {
        let _one_at_a_time = self.taking.lock().expect("taking a bundle does not panic");
        let next = self.newest.borrow().as_ref().and_then(|view| view.without_ended_keys(now));
        let ended = next.is_some();
        if let Some(next) = next {
            self.newest.send_replace(Some(Arc::new(next)));
        }
        ended
    }

    /// The newest bundle now, and to wait for newer ones.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.newest.subscribe()
    }

    pub fn newest(&self) -> Option<Arc<View>> {
        self.newest.borrow().clone()
    }
}

#[cfg(test)]
mod tests;
