//! A disk in memory whose power can be cut at any operation.
//!
//! What it models, each worse than a usual disk and none worse than an allowed one:
//!
//! * Bytes appended since the last `sync` survive a cut as any mix of 512-byte sectors: kept, zero, or garbage; the
//!   length may have grown or not.
//! * A creation, rename or removal survives only if its directory was synced after it; unsynced ones survive or not,
//!   each by itself (so a rename may be lost while a later creation is kept).
//! * A truncation that was not synced may be undone.
//! * Every operation that changes something is counted. The one at which the power is cut happens in part; all later
//!   ones fail until [`SimDisk::reboot`].
//! * `capacity` bytes, then `StorageFull`.
//!
//! [`SyncMode::Lies`] returns from `sync` without doing anything: a promise that survives it was not tested.

use crate::{Disk, File};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

/// Whether `sync` does what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    Honest,
    /// Does nothing and says that all is well.
    Lies,
    /// Fails from the given operation on, as a dying disk does.
    FailsFrom(u64),
}

/// When the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Never,
    /// In the middle of the operation with this number; the first one is 0.
    At(u64),
}

/// See the module's head. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What a running process sees.
    names: BTreeMap<PathBuf, FileNo>,
    dirs: BTreeSet<PathBuf>,
    /// What the last sync of each directory made durable.
    durable_names: BTreeMap<PathBuf, FileNo>,
    files: BTreeMap<FileNo, Inode>,
    next_file: u64,
    random: u64,
    mode: SyncMode,
    cut: Cut,
    power: bool,
    operations: u64,
    capacity: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileNo(u64);

#[derive(Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

impl SimDisk {
    /// A disk that never cuts. The seed decides what survives a cut.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            dirs: BTreeSet::from([PathBuf::from("/")]),
            durable_names: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            mode: SyncMode::Honest,
            cut: Cut::Never,
            power: true,
            operations: 0,
            capacity: u64::MAX,
        })))
    }

    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    pub fn set_sync_mode(&self, mode: SyncMode) {
        self.state().mode = mode;
    }

    /// Counts operations from 0 again and cuts as told.
    pub fn set_cut(&self, cut: Cut) {
        let mut state = self.state();
        state.cut = cut;
        state.operations = 0;
    }

    /// Bytes that all files together may hold.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// How many changing operations there were since `set_cut`: the number of points at which to cut.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the power is still on.
    pub fn is_on(&self) -> bool {
        self.state().power
    }

    /// Cuts the power now, between two operations.
    pub fn cut_now(&self) {
        self.state().power = false;
    }

    /// Switches the power on again: what was not durable is kept, torn or lost, as the seed decides.
    pub fn reboot(&self) {
        let mut state = self.state();
        state.settle_names();
        state.settle_bytes();
        state.power = true;
        state.cut = Cut::Never;
        state.operations = 0;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a test that panicked inside the disk has failed already")
    }
}

impl State {
    /// Takes part in every changing operation. `Ok(true)` says that this one is cut in the middle.
    fn step(&mut self) -> io::Result<bool> {
        if !self.power {
            return Err(power_is_cut());
        }
        let number = self.operations;
        self.operations += 1;
        let cut = self.cut == Cut::At(number);
        self.power = !cut;
        Ok(cut)
    }

    fn random(&mut self) -> u64 {
        // xorshift64*: enough to choose what survives, and the same for a seed on every machine.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random() % n == 0
    }

    fn used(&self) -> u64 {
        self.names.values().map(|no| self.files[no].seen.len() as u64).sum()
    }

    fn settle_names(&mut self) {
        let all: BTreeSet<PathBuf> =
            self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        let mut settled = BTreeMap::new();
        for path in all {
            let (seen, durable) =
                (self.names.get(&path).copied(), self.durable_names.get(&path).copied());
            let kept = if seen == durable || self.one_in(2) { seen } else { durable };
            settled.extend(kept.map(|no| (path, no)));
        }
        self.names = settled.clone();
        self.durable_names = settled;
    }

    fn settle_bytes(&mut self) {
        let named: BTreeSet<FileNo> = self.names.values().copied().collect();
        self.files.retain(|no, _| named.contains(no));
        for no in named {
            let mut inode = self.files.remove(&no).expect("a named file has an inode");
            inode.durable = self.torn(&inode);
            inode.seen = inode.durable.clone();
            self.files.insert(no, inode);
        }
    }

    fn torn(&mut self, inode: &Inode) -> Vec<u8> {
        let shared = inode.seen.iter().zip(&inode.durable).take_while(|(a, b)| a == b).count();
        if inode.seen.len() < inode.durable.len() {
            // A truncation (and perhaps appends after it) that was not synced: it happened or it did not.
            return if self.one_in(2) { inode.seen.clone() } else { inode.durable.clone() };
        }
        let mut out = inode.durable.clone();
        out.truncate(shared);
        let fresh = &inode.seen[shared..];
        let kept_len = (self.random() as usize) % (fresh.len() + 1);
        for (i, sector) in fresh[..kept_len].chunks(SECTOR).enumerate() {
            let lost = i > 0 || kept_len < fresh.len();
            match if lost { self.random() % 4 } else { 0 } {
                0 | 1 => out.extend_from_slice(sector),
                2 => out.resize(out.len() + sector.len(), 0),
                _ => {
                    for _ in 0..sector.len() {
                        let byte = self.random() as u8;
                        out.push(byte);
                    }
                }
            }
        }
        out
    }

    fn inode(&mut self, path: &Path) -> io::Result<FileNo> {
        self.names.get(path).copied().ok_or_else(|| not_found(path))
    }

    fn need_dir(&self, dir: &Path) -> io::Result<()> {
        if self.dirs.contains(dir) { Ok(()) } else { Err(not_found(dir)) }
    }
}

fn power_is_cut() -> io::Error {
    io::Error::other("the power is cut")
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no `{}`", path.display()))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.need_dir(parent(path))?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let cut = state.step()?;
        let no = FileNo(state.next_file);
        state.next_file += 1;
        state.files.insert(no, Inode::default());
        state.names.insert(path.to_owned(), no);
        if cut { Err(power_is_cut()) } else { Ok(Box::new(SimFile { disk: self.clone(), no })) }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        if !state.power {
            return Err(power_is_cut());
        }
        let no = state.inode(path)?;
        Ok(Box::new(SimFile { disk: self.clone(), no }))
    }

    fn read_at(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        if !state.power {
            return Err(power_is_cut());
        }
        let no = state.inode(path)?;
        let bytes = &state.files[&no].seen;
        let from = (offset as usize).min(bytes.len());
        let n = into.len().min(bytes.len() - from);
        into[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.state();
        let no = state.inode(path)?;
        Ok(state.files[&no].seen.len() as u64)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.need_dir(dir)?;
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let files = state.names.keys().filter(|path| parent(path) == dir);
        let dirs = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        let mut names: Vec<String> = files.chain(dirs).filter_map(|path| name(path)).collect();
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        Ok(state.names.contains_key(path) || state.dirs.contains(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.need_dir(parent(to))?;
        let no = state.inode(from)?;
        let cut = state.step()?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), no);
        if cut { Err(power_is_cut()) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.inode(path)?;
        let cut = state.step()?;
        state.names.remove(path);
        if cut { Err(power_is_cut()) } else { Ok(()) }
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.power {
            return Err(power_is_cut());
        }
        for dir in dir.ancestors() {
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.need_dir(dir)?;
        let cut = state.step()?;
        if cut {
            return Err(power_is_cut());
        }
        match state.mode {
            SyncMode::Lies => return Ok(()),
            SyncMode::FailsFrom(n) if state.operations > n => {
                return Err(io::Error::other("the disk failed to sync"));
            }
            _ => {}
        }
        let state = &mut *state;
        state.durable_names.retain(|path, _| parent(path) != dir);
        let here = state.names.iter().filter(|(path, _)| parent(path) == dir);
        state.durable_names.extend(here.map(|(path, no)| (path.clone(), *no)));
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    no: FileNo,
}

impl File for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let cut = state.step()?;
        let room = state.capacity.saturating_sub(state.used());
        let mut added = bytes.len().min(room as usize);
        if cut {
            added = (state.random() as usize) % (added + 1);
        }
        let inode = state.files.get_mut(&self.no).ok_or_else(power_is_cut)?;
        inode.seen.extend_from_slice(&bytes[..added]);
        match (cut, added < bytes.len()) {
            (true, _) => Err(power_is_cut()),
            (false, true) => Err(io::ErrorKind::StorageFull.into()),
            (false, false) => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let cut = state.step()?;
        if cut {
            return Err(power_is_cut());
        }
        match state.mode {
            SyncMode::Lies => return Ok(()),
            SyncMode::FailsFrom(n) if state.operations > n => {
                return Err(io::Error::other("the disk failed to sync"));
            }
            _ => {}
        }
        let inode = state.files.get_mut(&self.no).ok_or_else(power_is_cut)?;
        inode.durable = inode.seen.clone();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let cut = state.step()?;
        let inode = state.files.get_mut(&self.no).ok_or_else(power_is_cut)?;
        inode.seen.truncate(len as usize);
        if cut { Err(power_is_cut()) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        Ok(state.files.get(&self.no).ok_or_else(power_is_cut)?.seen.len() as u64)
    }
}
