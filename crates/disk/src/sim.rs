//! A disk in memory whose power can be cut at any operation.
//!
//! What it models, each worse than a usual disk and none worse than an allowed one:
//!
//! * What was appended since the last `sync` survives a cut wholly, not at all, or as any mix of 512-byte sectors: kept,
//!   zero, or garbage; the length may have grown or not. A cut in the middle of a `sync` is such a cut too.
//! * A creation, rename or removal survives only if its directory was synced after it; of several unsynced ones any may
//!   be the last that survives, for each name by itself (so that a renamed file may be found under both names, or under
//!   none, and a file that was created and removed again may be back).
//! * A truncation that was not synced may be undone, for the bytes that had been synced and for those that had not;
//!   bytes appended behind it are as unsafe as any.
//! * Every operation that changes something is counted. The one at which the power is cut happens in part or not at
//!   all; all later ones fail until [`SimDisk::reboot`], and handles from before it fail for ever.
//! * [`SimDisk::restart`] is the death of the process alone: nothing is lost, and nothing that was unsynced is synced.
//! * `capacity` bytes, then `StorageFull`, with as much of the append as had room.
//!
//! [`SyncMode::Lies`] returns from `sync` without doing anything: a promise that survives it was not tested.
//! [`SyncMode::FailsOnceAt`] is the trap for who retries: after the failure `sync` succeeds again, and what the failed one
//! was to write is gone (as on Linux, where the pages count as clean after a failed `fsync`).

use crate::{Disk, File};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
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
    /// Fails once, at the first sync from the given operation on. Later ones succeed and do not make good for it: what
    /// that sync was to make durable in its file never is.
    FailsOnceAt(u64),
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
    durable_dirs: BTreeSet<PathBuf>,
    /// What each name has stood for since its directory was synced: any of it may be what survives.
    unsynced_names: BTreeMap<PathBuf, Vec<Option<FileNo>>>,
    files: BTreeMap<FileNo, Inode>,
    next_file: u64,
    random: u64,
    mode: SyncMode,
    cut: Cut,
    power: bool,
    /// Which process of this disk's life runs: handles belong to one.
    life: u64,
    operations: u64,
    capacity: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileNo(u64);

#[derive(Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// How much of `durable` no truncation since the last sync has touched: `seen` begins with the same bytes.
    untouched: usize,
    /// What a failed sync gave up: seen until the next cut, never durable.
    given_up: Vec<Range<usize>>,
    /// What the last unsynced truncation found.
    before_truncation: Vec<u8>,
}

impl SimDisk {
    /// A disk that never cuts. The seed decides what survives a cut.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            dirs: BTreeSet::from([PathBuf::from("/"), PathBuf::new()]),
            durable_names: BTreeMap::new(),
            durable_dirs: BTreeSet::from([PathBuf::from("/"), PathBuf::new()]),
            unsynced_names: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            mode: SyncMode::Honest,
            cut: Cut::Never,
            power: true,
            life: 0,
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

    /// Bytes that all files together have.
    pub fn used(&self) -> u64 {
        self.state().used()
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
        state.begin_life();
    }

    /// Another process, on the same running machine: the one before was killed, in the middle of an operation if it was
    /// cut. All that it wrote is seen, and durable only as far as it was synced.
    pub fn restart(&self) {
        self.state().begin_life();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a test that panicked inside the disk has failed already")
    }
}

impl State {
    fn begin_life(&mut self) {
        self.life += 1;
        self.power = true;
        self.cut = Cut::Never;
        self.operations = 0;
    }

    fn on(&self) -> io::Result<()> {
        if self.power { Ok(()) } else { Err(power_is_cut()) }
    }

    /// Takes part in every changing operation. `Ok(true)` says that this one is cut in the middle.
    fn step(&mut self) -> io::Result<bool> {
        self.on()?;
        let number = self.operations;
        self.operations += 1;
        let cut = self.cut == Cut::At(number);
        self.power = !cut;
        Ok(cut)
    }

    /// As `step`, for an operation that happens whole or not at all. `Ok(true)`: it happens, and the power is cut.
    fn step_whole(&mut self) -> io::Result<bool> {
        let cut = self.step()?;
        if cut && self.one_in(2) { Err(power_is_cut()) } else { Ok(cut) }
    }

    /// What a sync does now. `Ok(false)`: nothing.
    fn sync(&mut self) -> io::Result<bool> {
        if self.step()? {
            return Err(power_is_cut());
        }
        match self.mode {
            SyncMode::Honest => Ok(true),
            SyncMode::Lies => Ok(false),
            SyncMode::FailsFrom(n) | SyncMode::FailsOnceAt(n) if self.operations > n => {
                Err(io::Error::other("the disk failed to sync"))
            }
            SyncMode::FailsFrom(_) | SyncMode::FailsOnceAt(_) => Ok(true),
        }
    }

    /// After a sync that failed: whether the mode is one in which later ones succeed.
    fn fails_no_more(&mut self) -> bool {
        let once = matches!(self.mode, SyncMode::FailsOnceAt(n) if self.operations > n);
        if once && self.power {
            self.mode = SyncMode::Honest;
        }
        once && self.power
    }

    fn random(&mut self) -> u64 {
        // xorshift64*: enough to choose what survives, and the same for a seed on every machine.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random().is_multiple_of(n)
    }

    fn used(&self) -> u64 {
        self.names.values().map(|no| self.files[no].seen.len() as u64).sum()
    }

    fn settle_names(&mut self) {
        // A directory sorts before what is in it.
        for dir in std::mem::take(&mut self.dirs) {
            let has_parent = dir.parent().is_none_or(|parent| self.dirs.contains(parent));
            if self.durable_dirs.contains(&dir) || (has_parent && self.one_in(2)) {
                self.dirs.insert(dir);
            }
        }
        self.durable_dirs = self.dirs.clone();
        let all: BTreeSet<PathBuf> =
            self.unsynced_names.keys().chain(self.durable_names.keys()).cloned().collect();
        let mut settled = BTreeMap::new();
        for path in all {
            if !self.dirs.contains(parent(&path)) {
                continue;
            }
            let mut states = self.unsynced_names.remove(&path).unwrap_or_default();
            states.push(self.durable_names.get(&path).copied());
            let kept = states[(self.random() % states.len() as u64) as usize];
            settled.extend(kept.map(|no| (path, no)));
        }
        self.names = settled.clone();
        self.durable_names = settled;
        self.unsynced_names.clear();
    }

    fn settle_bytes(&mut self) {
        let named: BTreeSet<FileNo> = self.names.values().copied().collect();
        self.files.retain(|no, _| named.contains(no));
        for no in named {
            let inode = self.files.remove(&no).expect("a named file has an inode");
            let bytes = self.torn(&inode);
            let untouched = bytes.len();
            let inode =
                Inode { seen: bytes.clone(), durable: bytes, untouched, ..Inode::default() };
            self.files.insert(no, inode);
        }
    }

    /// What a cut leaves of a file.
    fn torn(&mut self, inode: &Inode) -> Vec<u8> {
        let untouched =
            inode.untouched == inode.durable.len() && inode.untouched == inode.seen.len();
        if untouched && inode.before_truncation.is_empty() {
            return inode.durable.clone();
        }
        match self.random() % 4 {
            // All that was not synced happened, or none of it.
            0 => return inode.written(),
            1 => return inode.durable.clone(),
            _ => {}
        }
        let late = !inode.before_truncation.is_empty() && self.one_in(2);
        let seen = if late { inode.before_truncation.clone() } else { inode.written() };
        let mut out = inode.durable[..inode.untouched].to_vec();
        let len = out.len() + (self.random() as usize) % (seen.len() - out.len() + 1);
        while out.len() < len {
            let sector_end = (out.len() / SECTOR + 1) * SECTOR;
            let sector = out.len()..sector_end.min(len);
            match self.random() % 4 {
                0 | 1 => out.extend_from_slice(&seen[sector]),
                2 => out.resize(sector.end, 0),
                _ => out.extend(sector.map(|_| self.random() as u8)),
            }
        }
        out
    }

    fn set_name(&mut self, path: &Path, no: Option<FileNo>) {
        match no {
            Some(no) => _ = self.names.insert(path.to_owned(), no),
            None => _ = self.names.remove(path),
        }
        self.unsynced_names.entry(path.to_owned()).or_default().push(no);
    }

    fn inode(&mut self, path: &Path) -> io::Result<FileNo> {
        self.names.get(path).copied().ok_or_else(|| not_found(path))
    }

    fn need_dir(&self, dir: &Path) -> io::Result<()> {
        if self.dirs.contains(dir) { Ok(()) } else { Err(not_found(dir)) }
    }
}

impl Inode {
    /// What a sync would make durable.
    fn written(&self) -> Vec<u8> {
        let mut bytes = self.seen.clone();
        for range in &self.given_up {
            bytes[range.clone()].fill(0);
        }
        bytes
    }

    fn sync(&mut self) {
        self.durable = self.written();
        self.untouched = self.durable.len();
        self.before_truncation.clear();
    }

    /// A sync failed, and what it was to write counts as written.
    fn give_up(&mut self) {
        let start = self.untouched.min(self.seen.len());
        self.given_up.push(start..self.seen.len());
    }

    fn write_again(&mut self, from: usize) {
        for range in &mut self.given_up {
            range.end = range.end.min(from);
            range.start = range.start.min(range.end);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.before_truncation = self.written();
        self.seen.truncate(len);
        self.untouched = self.untouched.min(len);
        for range in &mut self.given_up {
            range.end = range.end.min(len);
            range.start = range.start.min(range.end);
        }
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

fn stale_handle() -> io::Error {
    io::Error::other("the file was opened by a process that has ended")
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.on()?;
        state.need_dir(parent(path))?;
        if state.names.contains_key(path) || state.dirs.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let cut = state.step_whole()?;
        let no = FileNo(state.next_file);
        state.next_file += 1;
        state.files.insert(no, Inode::default());
        state.set_name(path, Some(no));
        if cut { Err(power_is_cut()) } else { Ok(Box::new(self.handle(&state, no))) }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.on()?;
        let no = state.inode(path)?;
        Ok(Box::new(self.handle(&state, no)))
    }

    fn read_at(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.on()?;
        let no = state.inode(path)?;
        let bytes = &state.files[&no].seen;
        let from = (offset as usize).min(bytes.len());
        let n = into.len().min(bytes.len() - from);
        into[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.state();
        state.on()?;
        let no = state.inode(path)?;
        Ok(state.files[&no].seen.len() as u64)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.on()?;
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
        state.on()?;
        Ok(state.names.contains_key(path) || state.dirs.contains(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.on()?;
        state.need_dir(parent(to))?;
        let no = state.inode(from)?;
        let cut = state.step_whole()?;
        state.set_name(from, None);
        state.set_name(to, Some(no));
        if cut { Err(power_is_cut()) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.on()?;
        state.inode(path)?;
        let cut = state.step_whole()?;
        state.set_name(path, None);
        if cut { Err(power_is_cut()) } else { Ok(()) }
    }

    fn write_again(&self, path: &Path, from: u64) -> io::Result<()> {
        let state = &mut *self.state();
        state.on()?;
        let no = state.inode(path)?;
        if state.step_whole()? {
            return Err(power_is_cut());
        }
        state.file(no).write_again(from as usize);
        state.sync_file(no)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.on()?;
        let there = dir.ancestors().find(|dir| state.dirs.contains(*dir));
        if let Some(there) = there.filter(|there| !state.durable_dirs.contains(*there)) {
            // Whoever made it was killed before it synced the entry, as `RealDisk` has to assume of every directory.
            drop(state);
            self.sync_dir(parent(there))?;
            state = self.state();
        }
        let missing: Vec<&Path> =
            dir.ancestors().take_while(|dir| !state.dirs.contains(*dir)).collect();
        for dir in missing.into_iter().rev() {
            let cut = state.step_whole()?;
            state.dirs.insert(dir.to_owned());
            if cut {
                return Err(power_is_cut());
            }
            match state.sync() {
                Ok(true) => _ = state.durable_dirs.insert(dir.to_owned()),
                Ok(false) => {}
                Err(e) => {
                    state.fails_no_more();
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.on()?;
        state.need_dir(dir)?;
        match state.sync() {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(e) => {
                state.fails_no_more();
                return Err(e);
            }
        }
        state.unsynced_names.retain(|path, _| parent(path) != dir);
        state.durable_names.retain(|path, _| parent(path) != dir);
        let here = state.names.iter().filter(|(path, _)| parent(path) == dir);
        state.durable_names.extend(here.map(|(path, no)| (path.clone(), *no)));
        let here = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        state.durable_dirs.extend(here.cloned());
        Ok(())
    }
}

impl SimDisk {
    fn handle(&self, state: &State, no: FileNo) -> SimFile {
        SimFile { disk: self.clone(), no, life: state.life }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    no: FileNo,
    life: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        state.on()?;
        if state.life == self.life { Ok(state) } else { Err(stale_handle()) }
    }
}

impl State {
    fn sync_file(&mut self, no: FileNo) -> io::Result<()> {
        match self.sync() {
            Ok(true) => self.file(no).sync(),
            Ok(false) => {}
            Err(e) => {
                if self.fails_no_more() {
                    self.file(no).give_up();
                }
                return Err(e);
            }
        }
        Ok(())
    }

    fn file(&mut self, no: FileNo) -> &mut Inode {
        self.files.get_mut(&no).expect("a file that is open in this life has an inode")
    }
}

impl File for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let cut = state.step()?;
        let room = state.capacity.saturating_sub(state.used());
        let mut added = (bytes.len() as u64).min(room) as usize;
        if cut {
            added = (state.random() as usize) % (added + 1);
        }
        state.file(self.no).seen.extend_from_slice(&bytes[..added]);
        match (cut, added < bytes.len()) {
            (true, _) => Err(power_is_cut()),
            (false, true) => Err(io::ErrorKind::StorageFull.into()),
            (false, false) => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.state()?.sync_file(self.no)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        if len > state.file(self.no).seen.len() as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let cut = state.step_whole()?;
        state.file(self.no).truncate(len as usize);
        if cut { Err(power_is_cut()) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        Ok(state.file(self.no).seen.len() as u64)
    }
}
