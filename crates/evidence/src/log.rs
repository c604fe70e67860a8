//! The single writer of a log, and what it finds when it is opened after a crash.
//!
//! ```text
//! <dir>/checkpoint            the newest signed note: what it covers is in the log, nothing else is
//! <dir>/tile/entries/000 ...  one file a bundle, to which is only ever appended
//! <dir>/tile/0/000 ...        one file a tile, the same
//! ```
//!
//! A checkpoint is made in this order, each step durable before the next: entries, tiles, checkpoint (INV-EVID-1). After a
//! cut anywhere the newest durable checkpoint says what the log has. What lies behind that in the files was promised to
//! nobody: it is cut off when the log comes to write there, and the caller appends it again, at the same numbers.
//!
//! A log is never begun in the place of one that was lost: who knows a checkpoint of it says so ([`Log::open`]).

use crate::checkpoint::{Checkpoint, Head};
use crate::error::LogError;
use crate::event::Event;
use crate::merkle::{Hash, Subtrees as _};
use crate::note::NoteKey;
use crate::reader::{Reader, Shared};
use crate::tile::{self, Edge, WIDTH};
use disk::{Disk, SharedDisk};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trust::cose::Signer;

/// How many events may wait for a checkpoint; then [`LogError::TooManyPending`].
pub const PENDING_EVENTS_MAX: usize = 4096;

/// How many bytes of leaves may wait for a checkpoint.
pub const PENDING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest checkpoint that is read back. Ours have about 250 bytes.
const CHECKPOINT_BYTES_MAX: u64 = 8 * 1024;

const CHECKPOINT: &str = "checkpoint";

/// See the module's head. One at a time per directory: nothing here keeps a second process out.
pub struct Log {
    shared: Arc<Shared>,
    signer: Arc<dyn Signer>,
    /// With what waits for a checkpoint.
    edge: Edge,
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
    /// What the pending leaves add to the tiles of each level.
    added: Vec<Vec<Hash>>,
    /// How long the last bundle is, as far as it is covered.
    bundle_bytes: u64,
    poisoned: bool,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The next checkpoint covers it.
    New,
    /// It was there before, with the same bytes.
    Known,
}

impl Log {
    /// Opens the log of an origin, or begins it. `known` is the newest head of it that the caller has ever seen: `None` only
    /// if there was none, since without it a log that was lost is begun again. A log that is older than `known`, or another
    /// one, is refused: it was restored from a backup, and writing on would fork it.
    pub fn open(
        disk: SharedDisk,
        dir: &Path,
        origin: &str,
        signer: Arc<dyn Signer>,
        known: Option<Head>,
    ) -> Result<Self, LogError> {
        let key = NoteKey::new(origin, signer.public())
            .map_err(|source| LogError::NotSigned { source })?;
        disk.create_dir_all(dir).map_err(LogError::io("create", dir))?;
        // The checkpoint's name may be one that a killed process never synced. Its bytes were, before it had the name.
        disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
        let path = dir.join(CHECKPOINT);
        let checkpoint = match disk.exists(&path).map_err(LogError::io("look for", &path))? {
            true => read_checkpoint(&disk, &path, &key)?,
            false => begin(&disk, dir, &key, &*signer, known)?,
        };

        let size = checkpoint.size();
        let shared = Arc::new(Shared::new(disk, dir.to_owned(), key, checkpoint));
        let edge = Edge::load(size, |level, n, len| shared.tile(level, n, len))?;
        let (expected, found) = (shared.covered().head().root, edge.root());
        if found != expected {
            let (expected, found) = (format!("tiles with root {expected}"), found.to_string());
            return Err(LogError::Damaged { path: dir.join("tile"), expected, found });
        }
        let bundle_bytes = match size % WIDTH {
            0 => 0,
            width => {
                shared.leaves(size / WIDTH, width)?.iter().map(|leaf| 2 + leaf.len() as u64).sum()
            }
        };
        let log = Self {
            shared,
            signer,
            edge,
            pending: Vec::new(),
            pending_bytes: 0,
            added: Vec::new(),
            bundle_bytes,
            poisoned: false,
        };
        known.iter().try_for_each(|known| log.must_hold(known))?;
        Ok(log)
    }

    /// Checks that this log is the continuation of one whose head somebody knows: a database, a gateway, a witness.
    pub fn must_hold(&self, known: &Head) -> Result<(), LogError> {
        let found = self.shared.covered().head();
        if known.size > found.size {
            return Err(LogError::Behind { known: *known, found });
        }
        let root = self.reader().root_at(known.size)?;
        if root == known.root {
            Ok(())
        } else {
            Err(LogError::Forked { known: *known, found: root })
        }
    }

    /// Takes an event for the next checkpoint. Events come in the order of their numbers; one that is there already is
    /// compared, and refused if it has other bytes.
    pub fn append(&mut self, event: &Event) -> Result<Appended, LogError> {
        self.usable()?;
        let (sequence, next) = (event.sequence(), self.edge.size());
        if sequence > next {
            return Err(LogError::Gap { expected: next, found: sequence });
        }
        if sequence < next {
            return self.compare(event);
        }
        let (events, bytes) = (self.pending.len() + 1, self.pending_bytes + event.leaf().len());
        if events > PENDING_EVENTS_MAX || bytes > PENDING_BYTES_MAX {
            return Err(LogError::TooManyPending { events, bytes });
        }
        self.pending.push(event.leaf().to_vec());
        self.pending_bytes = bytes;
        let added = &mut self.added;
        self.edge.push(event.hash(), |level, hash| {
            if added.len() == usize::from(level) {
                added.push(Vec::new());
            }
            added[usize::from(level)].push(hash);
        });
        Ok(Appended::New)
    }

    /// Makes what was appended durable, then the checkpoint that covers it; returns that. Without anything new it is the
    /// one before.
    ///
    /// After an error nothing new is covered. If it may pass ([`LogError::may_pass`]) the log goes on, and the next call
    /// tries all of it again; after any other the log must be opened again.
    pub fn checkpoint(&mut self) -> Result<Arc<Checkpoint>, LogError> {
        self.usable()?;
        if self.pending.is_empty() {
            return Ok(self.shared.covered());
        }
        let made = self.make_checkpoint();
        if let Err(e) = &made {
            self.poisoned = !e.may_pass();
        }
        let (checkpoint, bundle_bytes) = made?;
        self.shared.cover(checkpoint);
        self.bundle_bytes = bundle_bytes;
        self.pending.clear();
        self.pending_bytes = 0;
        self.added.clear();
        Ok(self.shared.covered())
    }

    /// The number of the next event: of those that are covered or wait.
    pub fn next(&self) -> u64 {
        self.edge.size()
    }

    /// How many events wait for a checkpoint.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    fn compare(&self, event: &Event) -> Result<Appended, LogError> {
        let (sequence, covered) = (event.sequence(), self.shared.covered().size());
        let same = match sequence.checked_sub(covered) {
            Some(place) => self.pending[place as usize] == event.leaf(),
            None => self.shared.tree(covered).subtree(0, sequence)? == event.hash(),
        };
        if same { Ok(Appended::Known) } else { Err(LogError::Rewritten { sequence }) }
    }

    fn make_checkpoint(&self) -> Result<(Checkpoint, u64), LogError> {
        let bundle_bytes = self.write_entries()?;
        self.write_tiles()?;
        let head = Head { size: self.edge.size(), root: self.edge.root() };
        let checkpoint = Checkpoint::sign(head, &self.shared.key, &*self.signer)
            .map_err(|source| LogError::NotSigned { source })?;
        put_checkpoint(&*self.shared.disk, &self.shared.dir, &checkpoint)?;
        Ok((checkpoint, bundle_bytes))
    }

    /// Returns how long the last bundle is then.
    fn write_entries(&self) -> Result<u64, LogError> {
        let covered = self.shared.covered().size();
        let mut bundle = (covered / WIDTH, self.bundle_bytes, Vec::new());
        for (sequence, leaf) in (covered..).zip(&self.pending) {
            if sequence / WIDTH != bundle.0 {
                self.extend(&tile::entries_name(bundle.0), bundle.1, &bundle.2)?;
                bundle = (sequence / WIDTH, 0, Vec::new());
            }
            tile::put_entry(&mut bundle.2, leaf);
        }
        self.extend(&tile::entries_name(bundle.0), bundle.1, &bundle.2)?;
        let is_full = self.edge.size().is_multiple_of(WIDTH);
        Ok(if is_full { 0 } else { bundle.1 + bundle.2.len() as u64 })
    }

    fn write_tiles(&self) -> Result<(), LogError> {
        let covered = self.shared.covered().size();
        for (level, added) in (0_u8..).zip(&self.added) {
            let mut at = tile::hashes_at(level, covered);
            let mut rest = added.as_slice();
            while !rest.is_empty() {
                let room = (WIDTH - at % WIDTH).min(rest.len() as u64);
                let (now, later) = rest.split_at(room as usize);
                let bytes: Vec<u8> = now.iter().flat_map(|hash| hash.0).collect();
                let before = at % WIDTH * Hash::BYTES as u64;
                self.extend(&tile::tile_name(level, at / WIDTH), before, &bytes)?;
                at += room;
                rest = later;
            }
        }
        Ok(())
    }

    /// Puts bytes behind the first `before` of a file, durably. What else is there was left by a cut, or by a try that
    /// failed for want of room: no checkpoint covers it.
    fn extend(&self, name: &str, before: u64, bytes: &[u8]) -> Result<(), LogError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let path = self.shared.dir.join(name);
        let parent = path.parent().expect("a tile lies in a directory");
        let disk = &*self.shared.disk;
        let is_new = before == 0;
        if is_new {
            disk.create_dir_all(parent).map_err(|e| failed("create", parent, e))?;
        }
        let mut file = if is_new && !disk.exists(&path).map_err(LogError::io("look for", &path))? {
            disk.create(&path)
        } else {
            disk.open(&path)
        }
        .map_err(|e| failed("open", &path, e))?;
        let len = file.len().map_err(LogError::io("measure", &path))?;
        if len < before {
            let (expected, found) = (format!("{before} bytes"), format!("{len} bytes"));
            return Err(LogError::Damaged { path, expected, found });
        }
        if len > before {
            file.truncate(before).map_err(|e| failed("cut", &path, e))?;
        }
        file.append(bytes).map_err(|e| failed("write", &path, e))?;
        file.sync().map_err(LogError::io("sync", &path))?;
        if is_new {
            disk.sync_dir(parent).map_err(LogError::io("sync", parent))?;
        }
        Ok(())
    }

    fn usable(&self) -> Result<(), LogError> {
        if self.poisoned {
            Err(LogError::Poisoned { dir: self.shared.dir.clone() })
        } else {
            Ok(())
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({}, {} events, {} wait)", self.shared.key, self.next(), self.pending())
    }
}

fn read_checkpoint(disk: &SharedDisk, path: &Path, key: &NoteKey) -> Result<Checkpoint, LogError> {
    let bytes = disk.read(path, CHECKPOINT_BYTES_MAX).map_err(LogError::io("read", path))?;
    let damaged = || LogError::Damaged {
        path: path.to_owned(),
        expected: "a signed note".to_owned(),
        found: "bytes that are no text".to_owned(),
    };
    let note = String::from_utf8(bytes).map_err(|_| damaged())?;
    Checkpoint::open(&note, key)
        .map_err(|source| LogError::Checkpoint { path: path.to_owned(), source })
}

/// Begins a log with the checkpoint of no events: before it there are no entries, so entries without a checkpoint say
/// that one was lost.
fn begin(
    disk: &SharedDisk,
    dir: &Path,
    key: &NoteKey,
    signer: &dyn Signer,
    known: Option<Head>,
) -> Result<Checkpoint, LogError> {
    let head = Head::of_no_leaves();
    if let Some(known) = known.filter(|known| known.size > 0) {
        return Err(LogError::Behind { known, found: head });
    }
    let tiles = dir.join("tile");
    if disk.exists(&tiles).map_err(LogError::io("look for", &tiles))? {
        return Err(LogError::CheckpointLost { dir: dir.to_owned() });
    }
    let checkpoint =
        Checkpoint::sign(head, key, signer).map_err(|source| LogError::NotSigned { source })?;
    put_checkpoint(&**disk, dir, &checkpoint)?;
    Ok(checkpoint)
}

/// As `disk::replace`, and tells a disk that has no room, which may pass, from a sync that failed, which may not, even if
/// it says that there is no room.
fn put_checkpoint(disk: &dyn Disk, dir: &Path, checkpoint: &Checkpoint) -> Result<(), LogError> {
    let path = dir.join("checkpoint.new");
    if disk.exists(&path).map_err(LogError::io("look for", &path))? {
        // Left by a cut, or for want of room; it was never the checkpoint.
        disk.remove(&path).map_err(LogError::io("remove", &path))?;
    }
    let mut file = disk.create(&path).map_err(|e| failed("create", &path, e))?;
    file.append(checkpoint.note().as_bytes()).map_err(|e| failed("write", &path, e))?;
    file.sync().map_err(LogError::io("sync", &path))?;
    drop(file);
    disk.rename(&path, &dir.join(CHECKPOINT)).map_err(LogError::io("rename", &path))?;
    disk.sync_dir(dir).map_err(LogError::io("sync", dir))
}

fn failed(attempt: &'static str, path: &Path, source: io::Error) -> LogError {
    let path: PathBuf = path.to_owned();
    if disk::is_full(&source) {
        LogError::Full { path, source }
    } else {
        LogError::Io { attempt, path, source }
    }
}
