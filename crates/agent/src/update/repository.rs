//! What the device trusts of the two repositories and of its zone's leases, kept on its disk.
//!
//! ```text
//! trust/director/{root,timestamp,snapshot,targets}.json     the newest of each, exactly as they came (docs/formats/tuf.md)
//! trust/images/{root,timestamp,snapshot,targets}.json
//! trust/lease       plimsoll-lease 1 <floor: µs since 1970> <the newest lease: hex, or -> <crc32c of all before: 8 hex>\n
//! ```
//!
//! Promises: what was taken is durable before the next file is asked for and before anything follows from it (INV-FRESH-1); a
//! file that a new root does not vouch for is removed after that root is durable, in the order that `trust` says; the time
//! floor, the newest signed time that was seen, never goes back. What cannot be read of it narrows: without roots nothing is
//! installed, without a lease nothing is armed.
//! Never: fetches anything, believes the wall clock.

use crate::clock;
use disk::{Disk, SharedDisk};
use model::lease::Lease;
use model::manifest::Trusted as Versions;
use model::{DeviceId, Kind, RolloutId, Timestamp, ZoneId, hex};
use std::io;
use std::path::{Path, PathBuf};
use trust::cose::{self, PublicKey};
use trust::lease::{Kept, Leases, MESSAGE_BYTES_MAX, NotNow, Refused as LeaseRefused, Took};
use trust::tuf::{Dropped, Fetch, Files, Refused, Role, Trusted, Update};

const LEASE: &str = "lease";
/// A lease as hexadecimal digits and the words around it.
const LEASE_FILE_BYTES_MAX: u64 = MESSAGE_BYTES_MAX as u64 * 2 + 128;

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("no trusted root in `{dir}`: start the agent with {option} FILE once")]
    NoRoot { dir: PathBuf, option: &'static str },
    #[error("cannot read `{path}`")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot write in `{path}`")]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("the trusted root `{path}` is none")]
    BadRoot { path: PathBuf, source: Refused },
}

/// One of the two repositories.
#[derive(Debug)]
pub struct Repository {
    disk: SharedDisk,
    dir: PathBuf,
    trusted: Trusted,
}

/// Why a file that came changed nothing more.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Disk(#[from] TrustError),
}

/// One cycle over a repository (TUF §5). Dropped at any point, it leaves what was stored so far.
#[derive(Debug)]
pub struct Cycle<'a> {
    repository: &'a mut Repository,
    update: Update,
    /// The file was signed, and says something else than the one of the same version that is held.
    pub forks: u32,
}

impl Repository {
    /// The files in the directory; the first root is copied there from `given` if there is none yet. `device`: for a Director.
    pub fn open(
        disk: &SharedDisk,
        dir: &Path,
        given: Option<&Path>,
        option: &'static str,
        device: Option<DeviceId>,
    ) -> Result<(Self, Vec<Dropped>), TrustError> {
        let unwritable = |source| TrustError::Unwritable { path: dir.to_owned(), source };
        disk.create_dir_all(dir).map_err(unwritable)?;
        let kept = |role: Role| read(&**disk, &dir.join(role.file()), role);
        let root = match (kept(Role::Root)?, given) {
            (Some(root), _) => root,
            (None, None) => return Err(TrustError::NoRoot { dir: dir.to_owned(), option }),
            (None, Some(path)) => {
                let root = read(&**disk, path, Role::Root)?.ok_or_else(|| {
                    let source = io::ErrorKind::NotFound.into();
                    TrustError::Unreadable { path: path.to_owned(), source }
                })?;
                let bad = |source| TrustError::BadRoot { path: path.to_owned(), source };
                Trusted::from_root(&root, device.clone()).map_err(bad)?;
                disk::replace(&**disk, &dir.join(Role::Root.file()), &root).map_err(unwritable)?;
                root
            }
        };
        let files = Files {
            root,
            timestamp: kept(Role::Timestamp)?,
            snapshot: kept(Role::Snapshot)?,
            targets: kept(Role::Targets)?,
        };
        let bad = |source| TrustError::BadRoot { path: dir.join(Role::Root.file()), source };
        let (trusted, dropped) = Trusted::import(&files, device).map_err(bad)?;
        let repository = Self { disk: disk.clone(), dir: dir.to_owned(), trusted };
        repository.remove(&dropped)?;
        Ok((repository, dropped))
    }

    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    pub fn versions(&self) -> Versions {
        self.trusted.versions()
    }

    /// Begins a cycle at this instant, which counts for all of it.
    pub fn cycle(&mut self, now: Timestamp) -> Cycle<'_> {
        let update = Update::begin(self.trusted.clone(), now);
        Cycle { repository: self, update, forks: 0 }
    }

    fn store(&self, role: Role, trusted: &Trusted) -> Result<(), TrustError> {
        let path = self.dir.join(role.file());
        let bytes = trusted.bytes(role).expect("what is to be stored was taken");
        disk::replace(&*self.disk, &path, bytes)
            .map_err(|source| TrustError::Unwritable { path, source })
    }

    fn remove(&self, dropped: &[Dropped]) -> Result<(), TrustError> {
        for dropped in dropped {
            let path = self.dir.join(dropped.role.file());
            match self.disk.remove(&path).and_then(|()| self.disk.sync_dir(&self.dir)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(TrustError::Unwritable { path, source }),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

impl Cycle<'_> {
    /// What is to be brought now. None: the cycle is complete.
    pub fn next(&self) -> Option<Fetch> {
        self.update.next()
    }

    /// What was asked for, or that it is not there. Durable when this returns; a refusal changes nothing.
    pub fn take(&mut self, file: Option<&[u8]>) -> Result<(), Stopped> {
        let taken = match file {
            Some(bytes) => self.update.take(bytes)?,
            None => self.update.absent()?,
        };
        if let Some(role) = taken.store {
            self.repository.store(role, self.update.trusted())?;
        }
        self.repository.remove(&taken.remove)?;
        for Dropped { role, why } in &taken.remove {
            tracing::warn!(%role, %why, "metadata that the new root does not vouch for were dropped");
        }
        self.forks += u32::from(taken.fork);
        self.repository.trusted = self.update.trusted().clone();
        Ok(())
    }
}

fn read(disk: &dyn Disk, path: &Path, role: Role) -> Result<Option<Vec<u8>>, TrustError> {
    match disk.read(path, role.bytes_max() as u64) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TrustError::Unreadable { path: path.to_owned(), source }),
    }
}

/// The zone's leases as one device holds them, and the time that it knows by them.
#[derive(Debug)]
pub struct Holder {
    disk: SharedDisk,
    path: PathBuf,
    /// The newest message, and who may sign one: None before the first lease.
    leases: Option<(Leases, Vec<PublicKey>)>,
    /// The message that was kept over the restart, until it was judged under the root's keys.
    kept: Option<Vec<u8>>,
    floor: Timestamp,
    floor_at_ms: u64,
}

impl Holder {
    /// What was kept: the number of the newest lease is remembered, and gives no rights any more. A file that cannot be read is
    /// forgotten, which is told.
    pub fn open(disk: &SharedDisk, trust: &Path, uptime_ms: u64) -> (Self, Option<String>) {
        let path = trust.join(LEASE);
        let (kept, told) = match disk.read(&path, LEASE_FILE_BYTES_MAX) {
            Ok(bytes) => match parse(&bytes) {
                Some(kept) => (Some(kept), None),
                None => (None, Some(format!("`{}` is damaged", path.display()))),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => (None, None),
            Err(e) => (None, Some(format!("cannot read `{}`: {e}", path.display()))),
        };
        let (floor, message) = kept.unwrap_or((clock::FLOOR, None));
        // A later build knows a later floor than what was kept.
        let floor = floor.max(clock::FLOOR);
        let (leases, floor_at_ms) = (None, uptime_ms);
        (Self { disk: disk.clone(), path, leases, kept: message, floor, floor_at_ms }, told)
    }

    /// True time is not before this: the newest signed time, and what has passed since on the device's own clock.
    pub fn now(&self, uptime_ms: u64) -> Timestamp {
        let passed_ms = uptime_ms.saturating_sub(self.floor_at_ms);
        let passed_us = i64::try_from(passed_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        Timestamp(self.floor.as_us().saturating_add(passed_us))
    }

    /// Takes a message that may be a lease, signed by one of `keys`. It is durable before it counts.
    pub fn take(
        &mut self,
        message: &[u8],
        keys: Vec<PublicKey>,
        uptime_ms: u64,
    ) -> Result<Took, LeaseStopped> {
        let now = self.now(uptime_ms);
        let mut leases = self.under(&keys, message, uptime_ms)?;
        let took = leases.take(message, uptime_ms, now)?;
        let issued = leases.newest().expect("a lease was taken").issued;
        if took == Took::New {
            let floor = self.floor.max(issued);
            let kept = line(floor, Some(message));
            disk::replace(&*self.disk, &self.path, kept.as_bytes())
                .map_err(|source| TrustError::Unwritable { path: self.path.clone(), source })?;
            if issued > now {
                (self.floor, self.floor_at_ms) = (issued, uptime_ms);
            }
        }
        self.kept = None;
        self.leases = Some((leases, keys));
        Ok(took)
    }

    /// The leases that are held, as these keys sign them. Before the first one the zone is the one that it names: a device
    /// learns its zone with its first lease, and keeps it.
    fn under(
        &self,
        keys: &[PublicKey],
        message: &[u8],
        uptime_ms: u64,
    ) -> Result<Leases, LeaseStopped> {
        match &self.leases {
            Some((leases, known)) if known == keys => return Ok(leases.clone()),
            Some((leases, _)) => {
                // Another root: what is held counts no more, but its number still does, if the new keys vouch for it.
                let zone = leases.newest().map(|lease| lease.zone.clone());
                if let (Some(zone), Some(kept)) = (zone, leases.export(uptime_ms)) {
                    return Ok(resumed(zone, keys, kept.message, uptime_ms));
                }
            }
            None => {
                if let Some(kept) = &self.kept
                    && let Some(lease) = peek(kept)
                {
                    return Ok(resumed(lease.zone, keys, kept.clone(), uptime_ms));
                }
            }
        }
        let zone = peek_malformed(message)?.zone;
        Ok(Leases::new(zone, keys.to_vec()))
    }

    /// Whether an install of `rollout` may be armed now (INV-ROLL-1).
    pub fn may_arm(
        &self,
        rollout: Option<&RolloutId>,
        halt_within_ms: u64,
        uptime_ms: u64,
    ) -> Result<(), NotNow> {
        match &self.leases {
            Some((leases, _)) => leases.may_arm(rollout, halt_within_ms, uptime_ms),
            None => Err(NotNow::NoLease),
        }
    }

    /// The newest lease, for people.
    pub fn newest(&self) -> Option<&Lease> {
        self.leases.as_ref().and_then(|(leases, _)| leases.newest())
    }

    pub fn remaining_ms(&self, uptime_ms: u64) -> u64 {
        self.leases.as_ref().map_or(0, |(leases, _)| leases.remaining_ms(uptime_ms))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseStopped {
    #[error(transparent)]
    Refused(#[from] LeaseRefused),
    #[error(transparent)]
    Disk(#[from] TrustError),
}

/// Who may sign leases: the keys of the role *timestamp* of the Director's root. The contexts of the two signatures differ.
pub fn lease_keys(director: &Trusted) -> Vec<PublicKey> {
    let root = director.root();
    root.role(Role::Timestamp).keyids.iter().filter_map(|id| root.key(id)).cloned().collect()
}

/// A kept lease as a memory of its number. A zone that prefers safety has nothing left of it after a restart.
fn resumed(zone: ZoneId, keys: &[PublicKey], message: Vec<u8>, uptime_ms: u64) -> Leases {
    let kept = Kept { message, remaining_ms: 0 };
    Leases::import(zone.clone(), keys.to_vec(), kept, uptime_ms)
        .unwrap_or_else(|_| Leases::new(zone, keys.to_vec()))
}

fn peek(message: &[u8]) -> Option<Lease> {
    peek_malformed(message).ok()
}

/// What a message says that may be a lease, before anybody has judged its signature.
fn peek_malformed(message: &[u8]) -> Result<Lease, LeaseRefused> {
    let unverified = cose::open(message, MESSAGE_BYTES_MAX).map_err(LeaseRefused::Malformed)?;
    match unverified.header().kind {
        Kind::Lease => Lease::decode(unverified.payload_without_signature_check())
            .map_err(LeaseRefused::Malformed),
        other => Err(LeaseRefused::OtherKind(other)),
    }
}

fn line(floor: Timestamp, message: Option<&[u8]>) -> String {
    let message = message.map_or("-".into(), hex::encode);
    let text = format!("plimsoll-lease 1 {} {message} ", floor.as_us());
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}{crc:08x}\n")
}

/// Whatever parses is written again and compared, so it has one form.
fn parse(bytes: &[u8]) -> Option<(Timestamp, Option<Vec<u8>>)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split(' ').skip(2);
    let floor = Timestamp(words.next()?.parse().ok()?);
    let message = match words.next()? {
        "-" => None,
        digits => Some(hex::decode(digits)?),
    };
    (text == line(floor, message.as_deref())).then_some((floor, message))
}

#[cfg(test)]
mod tests;
