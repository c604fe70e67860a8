//! What a client trusts, and one cycle of it (TUF §5). INV-FRESH-1: no version goes back, nothing is used after its end.

use super::metadata::{self, Document, check_device};
use super::{Refused, Role, Root, Snapshot, Target, Targets, TimestampFile};
use alloc::string::String;
use alloc::vec::Vec;
use model::{DeviceId, Timestamp};

/// Roots that one cycle goes through. A client that is further behind goes on in its next cycle.
pub const ROOTS_MAX: u32 = 256;

/// The bytes that a client keeps, one file for each role, exactly as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub root: Vec<u8>,
    pub timestamp: Option<Vec<u8>>,
    pub snapshot: Option<Vec<u8>>,
    pub targets: Option<Vec<u8>>,
}

/// The newest of each role that was ever taken. It may have ended since: then it still says what is older.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Whom the Director's metadata have to name; an image repository's name nobody.
    device: Option<DeviceId>,
    root: Held<Root>,
    timestamp: Option<Held<TimestampFile>>,
    snapshot: Option<Held<Snapshot>>,
    targets: Option<Held<Targets>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held<T> {
    bytes: Vec<u8>,
    body: T,
}

impl<T> Held<T> {
    fn new(bytes: &[u8], body: T) -> Self {
        Self { bytes: bytes.to_vec(), body }
    }
}

/// A kept file that is not trusted any more, and why. After a root that takes keys away this is as it should be; else
/// the file was changed where it lay, and the memory of what is older went with it: an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub role: Role,
    pub why: Refused,
}

impl Trusted {
    /// Starts from a root that came with the device. It is believed because it is there; that it is whole is seen by
    /// its own signatures. `device`: for a Director, the device that its metadata have to name.
    pub fn from_root(root: &[u8], device: Option<DeviceId>) -> Result<Self, Refused> {
        let document = metadata::open(root, Role::Root)?;
        let body = Root::read(&document)?;
        document.verify(&body, Role::Root)?;
        let root = Held::new(root, body);
        Ok(Self { device, root, timestamp: None, snapshot: None, targets: None })
    }

    /// Goes on from kept files. What the kept root's keys did not sign is dropped and told: the caller removes it.
    pub fn import(
        files: &Files,
        device: Option<DeviceId>,
    ) -> Result<(Self, Vec<Dropped>), Refused> {
        let mut trusted = Self::from_root(&files.root, device)?;
        let mut dropped = Vec::new();
        trusted.timestamp =
            trusted.kept(Role::Timestamp, &files.timestamp, TimestampFile::read, &mut dropped);
        trusted.snapshot =
            trusted.kept(Role::Snapshot, &files.snapshot, Snapshot::read, &mut dropped);
        trusted.targets = trusted.kept(Role::Targets, &files.targets, Targets::read, &mut dropped);
        let dropped = trusted.settle(dropped);
        Ok((trusted, dropped))
    }

    /// A kept file. Nothing but signature and shape is asked of what was taken once: what has ended still says what is
    /// older.
    fn kept<T>(
        &self,
        role: Role,
        bytes: &Option<Vec<u8>>,
        read: fn(&Document<'_>) -> Result<T, Refused>,
        dropped: &mut Vec<Dropped>,
    ) -> Option<Held<T>> {
        let bytes = bytes.as_ref()?;
        match self.open(bytes, role).and_then(|document| read(&document)) {
            Ok(body) => Some(Held::new(bytes, body)),
            Err(why) => {
                dropped.push(Dropped { role, why });
                None
            }
        }
    }

    /// What to keep.
    pub fn export(&self) -> Files {
        Files {
            root: self.root.bytes.clone(),
            timestamp: self.timestamp.as_ref().map(|held| held.bytes.clone()),
            snapshot: self.snapshot.as_ref().map(|held| held.bytes.clone()),
            targets: self.targets.as_ref().map(|held| held.bytes.clone()),
        }
    }

    /// The exact bytes of one role's file.
    pub fn bytes(&self, role: Role) -> Option<&[u8]> {
        match role {
            Role::Root => Some(&self.root.bytes),
            Role::Timestamp => self.timestamp.as_ref().map(|held| &held.bytes[..]),
            Role::Snapshot => self.snapshot.as_ref().map(|held| &held.bytes[..]),
            Role::Targets => self.targets.as_ref().map(|held| &held.bytes[..]),
        }
    }

    pub fn root(&self) -> &Root {
        &self.root.body
    }

    pub fn device(&self) -> Option<&DeviceId> {
        self.device.as_ref()
    }

    /// The trusted versions, for the device's manifest.
    pub fn versions(&self) -> model::manifest::Trusted {
        model::manifest::Trusted {
            root: self.root.body.version,
            timestamp: self.timestamp.as_ref().map_or(0, |held| held.body.version),
            snapshot: self.snapshot.as_ref().map_or(0, |held| held.body.version),
            targets: self.targets.as_ref().map_or(0, |held| held.body.version),
        }
    }

    /// The four files, if they belong together and none has ended.
    pub fn current(&self, now: Timestamp) -> Result<Current<'_>, Refused> {
        let root = &self.root.body;
        unended(Role::Root, root.expires, now)?;
        let timestamp = self.timestamp(now)?;
        let snapshot = self.snapshot.as_ref().ok_or(Refused::Absent { role: Role::Snapshot })?;
        fits_snapshot(timestamp, &snapshot.bytes, &snapshot.body, now)?;
        let targets = self.targets.as_ref().ok_or(Refused::Absent { role: Role::Targets })?;
        fits_targets(&snapshot.body, &targets.bytes, &targets.body, now)?;
        Ok(Current { trusted: self, targets: &targets.body })
    }

    fn timestamp(&self, now: Timestamp) -> Result<&TimestampFile, Refused> {
        let held = self.timestamp.as_ref().ok_or(Refused::Absent { role: Role::Timestamp })?;
        unended(Role::Timestamp, held.body.expires, now)?;
        Ok(&held.body)
    }

    /// A file that a threshold of the trusted root's keys signed, for the device that is meant.
    fn open<'b>(&self, bytes: &'b [u8], role: Role) -> Result<Document<'b>, Refused> {
        let document = metadata::open(bytes, role)?;
        document.verify(&self.root.body, role)?;
        check_device(role, self.device.as_ref(), document.common.device.as_deref())?;
        Ok(document)
    }

    /// Drops what the root's keys do not vouch for (TUF §5.3.11). Whoever stole a key could have signed version 2^63 of
    /// a file: once the root has another key, that file's version must not stand in the way of honest ones. Timestamp
    /// and snapshot go together, since the first one's word about the second one's version is part of such an attack.
    ///
    /// It looks at what is held and at nothing else, so a power cut between the storing of a root and the removal of
    /// files changes nothing: [`Self::import`] comes to the same.
    fn settle(&mut self, mut dropped: Vec<Dropped>) -> Vec<Dropped> {
        for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
            let Some(bytes) = self.bytes(role) else { continue };
            if let Err(why) = self.open(bytes, role).map(drop) {
                dropped.push(Dropped { role, why });
            }
        }
        let pair = [Role::Timestamp, Role::Snapshot];
        // A file that is broken says nothing of keys: the other one's memory of what is older stays.
        let by_keys = |d: &&Dropped| {
            pair.contains(&d.role) && matches!(d.why, Refused::TooFewSignatures { .. })
        };
        if let Some(Dropped { why, .. }) = dropped.iter().find(by_keys).cloned() {
            for role in pair {
                if self.bytes(role).is_some() && !dropped.iter().any(|d| d.role == role) {
                    dropped.push(Dropped { role, why: why.clone() });
                }
            }
        }
        for Dropped { role, .. } in &dropped {
            match role {
                Role::Root => unreachable!("a root is never dropped"),
                Role::Timestamp => self.timestamp = None,
                Role::Snapshot => self.snapshot = None,
                Role::Targets => self.targets = None,
            }
        }
        dropped.sort_by_key(|dropped| dropped.role);
        dropped
    }

    /// §5.3.4 to §5.3.8: one version after the other, signed by the threshold of the old and of the new keys. An end in
    /// the past does not matter before the last one.
    fn take_root(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let document = metadata::open(bytes, Role::Root)?;
        let body = Root::read(&document)?;
        let expected = self.root.body.version.saturating_add(1);
        if body.version != expected {
            return Err(Refused::RootOutOfOrder { expected, found: body.version });
        }
        document.verify(&self.root.body, Role::Root)?;
        document.verify(&body, Role::Root)?;
        self.root = Held::new(bytes, body);
        Ok(())
    }

    /// §5.4. The same version again is no newer word: the one that is held stays, whatever the other says.
    fn take_timestamp(&mut self, bytes: &[u8], now: Timestamp) -> Result<Taken, Refused> {
        let document = self.open(bytes, Role::Timestamp)?;
        let body = TimestampFile::read(&document)?;
        if let Some(held) = &self.timestamp {
            not_older(Role::Timestamp.file(), held.body.version, body.version)?;
            if body.version == held.body.version {
                // Nothing newer is to be had: whether what is held has ended is what counts.
                unended(Role::Timestamp, held.body.expires, now)?;
                return Ok(Taken { fork: held.bytes != bytes, ..Taken::default() });
            }
            not_older(Role::Snapshot.file(), held.body.snapshot.version, body.snapshot.version)?;
        }
        unended(Role::Timestamp, body.expires, now)?;
        self.timestamp = Some(Held::new(bytes, body));
        Ok(Taken { store: Some(Role::Timestamp), ..Taken::default() })
    }

    /// §5.5. The bytes are those that the timestamp names, before anybody parses them.
    fn take_snapshot(&mut self, bytes: &[u8], now: Timestamp) -> Result<Taken, Refused> {
        let timestamp = self.timestamp(now)?;
        timestamp.snapshot.check_bytes(Role::Snapshot, bytes)?;
        let document = self.open(bytes, Role::Snapshot)?;
        let body = Snapshot::read(&document)?;
        fits_snapshot(timestamp, bytes, &body, now)?;
        if let Some(held) = &self.snapshot {
            for (name, meta) in &held.body.files {
                let Some(new) = body.file(name) else {
                    return Err(Refused::Gone { file: name.clone() });
                };
                not_older(name, meta.version, new.version)?;
            }
        }
        self.snapshot = Some(Held::new(bytes, body));
        Ok(Taken { store: Some(Role::Snapshot), ..Taken::default() })
    }

    /// §5.6. Its version is the snapshot's word, which does not go back.
    fn take_targets(&mut self, bytes: &[u8], now: Timestamp) -> Result<Taken, Refused> {
        let snapshot = self.snapshot.as_ref().ok_or(Refused::Absent { role: Role::Snapshot })?;
        snapshot.body.targets().check_bytes(Role::Targets, bytes)?;
        let document = self.open(bytes, Role::Targets)?;
        let body = Targets::read(&document)?;
        fits_targets(&snapshot.body, bytes, &body, now)?;
        self.targets = Some(Held::new(bytes, body));
        Ok(Taken { store: Some(Role::Targets), ..Taken::default() })
    }
}

fn unended(role: Role, end: Timestamp, now: Timestamp) -> Result<(), Refused> {
    if now < end { Ok(()) } else { Err(Refused::Expired { role, end, now }) }
}

fn not_older(file: &str, trusted: u64, found: u64) -> Result<(), Refused> {
    if found >= trusted {
        Ok(())
    } else {
        Err(Refused::Older { file: file.into(), trusted, found })
    }
}

fn named(role: Role, named: u64, found: u64) -> Result<(), Refused> {
    if named == found { Ok(()) } else { Err(Refused::OtherVersion { role, named, found }) }
}

fn fits_snapshot(
    timestamp: &TimestampFile,
    bytes: &[u8],
    body: &Snapshot,
    now: Timestamp,
) -> Result<(), Refused> {
    named(Role::Snapshot, timestamp.snapshot.version, body.version)?;
    timestamp.snapshot.check_bytes(Role::Snapshot, bytes)?;
    unended(Role::Snapshot, body.expires, now)
}

fn fits_targets(
    snapshot: &Snapshot,
    bytes: &[u8],
    body: &Targets,
    now: Timestamp,
) -> Result<(), Refused> {
    named(Role::Targets, snapshot.targets().version, body.version)?;
    snapshot.targets().check_bytes(Role::Targets, bytes)?;
    unended(Role::Targets, body.expires, now)
}

/// Four files that belong together, at a time at which none had ended. Only [`Trusted::current`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Current<'a> {
    trusted: &'a Trusted,
    targets: &'a Targets,
}

impl<'a> Current<'a> {
    pub fn targets(&self) -> &'a [Target] {
        &self.targets.targets
    }

    pub fn target(&self, path: &str) -> Option<&'a Target> {
        self.targets.target(path)
    }

    /// The device that this is for; none for an image repository.
    pub fn device(&self) -> Option<&'a DeviceId> {
        self.trusted.device.as_ref()
    }

    pub fn versions(&self) -> model::manifest::Trusted {
        self.trusted.versions()
    }

    /// When the first of the four ends.
    pub fn ends(&self) -> Timestamp {
        let Trusted { root, timestamp, snapshot, .. } = self.trusted;
        let timestamp = timestamp.as_ref().map(|held| held.body.expires);
        let snapshot = snapshot.as_ref().map(|held| held.body.expires);
        let others = [Some(root.body.expires), timestamp, snapshot];
        others.into_iter().flatten().fold(self.targets.expires, Timestamp::min)
    }

    /// Whether file names carry versions and digests.
    pub fn consistent_snapshot(&self) -> bool {
        self.trusted.root.body.consistent_snapshot
    }
}

/// One cycle: asks for files in their order and judges each. Begun at one instant, which counts for all of it.
#[derive(Clone, Debug)]
pub struct Update {
    trusted: Trusted,
    now: Timestamp,
    stage: Stage,
    roots: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Root,
    Timestamp,
    Snapshot,
    Targets,
    Done,
}

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub role: Role,
    pub name: String,
    /// Reading may stop behind so many bytes.
    pub bytes_max: usize,
    /// That it is not there is an answer too: [`Update::absent`].
    pub may_be_absent: bool,
}

/// What a file changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// This role's file is new: it is to be durable before the next one is asked for.
    pub store: Option<Role>,
    /// Files to remove after that, in this order: a timestamp that stayed when its snapshot was gone would still say of
    /// which version the next one has to be.
    pub remove: Vec<Dropped>,
    /// The file was signed, of the version that is trusted already, and says something else. It changed nothing; whoever
    /// signed it has two histories: an event.
    pub fork: bool,
}

impl Update {
    pub fn begin(trusted: Trusted, now: Timestamp) -> Self {
        Self { trusted, now, stage: Stage::Root, roots: 0 }
    }

    /// What is needed now. `None`: the cycle is complete, and [`Trusted::current`] answers.
    pub fn next(&self) -> Option<Fetch> {
        let consistent = self.trusted.root.body.consistent_snapshot;
        let fetch = |role: Role, version: Option<u64>, length: Option<u64>| Fetch {
            role,
            name: version.map_or(role.file().into(), |version| role.versioned_file(version)),
            // A stated length only lowers the bound.
            bytes_max: length
                .and_then(|length| usize::try_from(length).ok())
                .map_or(role.bytes_max(), |length| length.min(role.bytes_max())),
            may_be_absent: role == Role::Root,
        };
        match self.stage {
            Stage::Root => Some(fetch(
                Role::Root,
                Some(self.trusted.root.body.version.saturating_add(1)),
                None,
            )),
            Stage::Timestamp => Some(fetch(Role::Timestamp, None, None)),
            Stage::Snapshot => {
                let meta = &self.trusted.timestamp.as_ref()?.body.snapshot;
                Some(fetch(Role::Snapshot, consistent.then_some(meta.version), meta.length))
            }
            Stage::Targets => {
                let meta = self.trusted.snapshot.as_ref()?.body.targets();
                Some(fetch(Role::Targets, consistent.then_some(meta.version), meta.length))
            }
            Stage::Done => None,
        }
    }

    /// The file that was asked for. A refusal leaves all as it was: the file may be asked for elsewhere.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Taken, Refused> {
        match self.stage {
            Stage::Root => {
                self.trusted.take_root(bytes)?;
                self.roots += 1;
                let mut taken = Taken { store: Some(Role::Root), ..Taken::default() };
                if self.roots >= ROOTS_MAX {
                    // The new root is trusted whether it has ended or not; the refusal comes with the next file.
                    taken.remove = self.trusted.settle(Vec::new());
                    self.stage = Stage::Timestamp;
                }
                Ok(taken)
            }
            Stage::Timestamp => {
                // §5.3.10: the last root must not have ended.
                unended(Role::Root, self.trusted.root.body.expires, self.now)?;
                let taken = self.trusted.take_timestamp(bytes, self.now)?;
                self.stage = self.after_timestamp();
                Ok(taken)
            }
            Stage::Snapshot => {
                let taken = self.trusted.take_snapshot(bytes, self.now)?;
                self.stage = self.after_snapshot();
                Ok(taken)
            }
            Stage::Targets => {
                let taken = self.trusted.take_targets(bytes, self.now)?;
                self.stage = Stage::Done;
                Ok(taken)
            }
            Stage::Done => Err(Refused::NotAsked),
        }
    }

    /// The file that was asked for is not there. That ends the chain of roots; anything else has to be there.
    pub fn absent(&mut self) -> Result<Taken, Refused> {
        let role = match self.stage {
            Stage::Root => {
                let remove = self.trusted.settle(Vec::new());
                self.stage = Stage::Timestamp;
                return Ok(Taken { remove, ..Taken::default() });
            }
            Stage::Timestamp => Role::Timestamp,
            Stage::Snapshot => Role::Snapshot,
            Stage::Targets => Role::Targets,
            Stage::Done => return Err(Refused::NotAsked),
        };
        Err(Refused::Absent { role })
    }

    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// The state as far as the cycle came.
    pub fn into_trusted(self) -> Trusted {
        self.trusted
    }

    /// What is held already need not be fetched.
    fn after_timestamp(&self) -> Stage {
        let Trusted { timestamp: Some(timestamp), snapshot: Some(snapshot), .. } = &self.trusted
        else {
            return Stage::Snapshot;
        };
        match fits_snapshot(&timestamp.body, &snapshot.bytes, &snapshot.body, self.now) {
            Ok(()) => self.after_snapshot(),
            Err(_) => Stage::Snapshot,
        }
    }

    fn after_snapshot(&self) -> Stage {
        let Trusted { snapshot: Some(snapshot), targets: Some(targets), .. } = &self.trusted else {
            return Stage::Targets;
        };
        match fits_targets(&snapshot.body, &targets.bytes, &targets.body, self.now) {
            Ok(()) => Stage::Done,
            Err(_) => Stage::Targets,
        }
    }
}
