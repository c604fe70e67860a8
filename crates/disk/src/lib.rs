//! Durable storage, as our own files see it: append, sync, rename, sync the directory.
//!
//! Promises: what `File::sync` and `Disk::sync_dir` returned for survives a power cut; nothing else is promised to.
//! Never: retries a failed sync (after one, what is durable is unknown: the caller stops, and the next process writes
//! again what it relies on, [`Disk::write_again`]), reads a clock, knows formats.
//!
//! [`RealDisk`] is the operating system's; [`SimDisk`] is its double, which cuts the power at any operation, tears
//! what was not synced, and can be told to lie about `sync`. Every durable file that we write goes through [`Disk`]
//! (INV-ACK-1); SQLite keeps its own files. [`cut_everywhere`] runs a workload once for each operation at which the power
//! can be cut, and asks what must hold afterwards: the loop for everything that keeps a promise on a disk.
//!
//! Order in which a new file becomes durable: write it, `sync` it, then `sync_dir` of its directory. A rename is
//! durable once the directory is synced; [`replace`] does the whole dance.

mod cuts;
mod real;
mod sim;

pub use cuts::{Broken, Cuts, Death, Report, cut_everywhere};
pub use real::{DirLock, RealDisk, lock_dir};
pub use sim::{Cut, SimDisk, SyncMode};

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk that many threads share.
pub type SharedDisk = Arc<dyn Disk>;

/// A file system, as far as we use one. Paths are the caller's; parents must exist (see [`Disk::create_dir_all`]).
pub trait Disk: Debug + Send + Sync + 'static {
    /// A new, empty file, readable by its owner only (0600). Fails with `AlreadyExists` if there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// An existing file, to append to.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Fills `into` from `offset` on, as far as the file reaches; returns how many bytes it read. Sees what was
    /// appended, synced or not.
    fn read_at(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// The whole file. `max` bounds the work: a longer file is an error of kind `FileTooLarge`.
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let len = self.len(path)?;
        if len > max {
            let what = format!("`{}` has {len} bytes, expected at most {max}", path.display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        let mut bytes = vec![0; len as usize];
        let read = self.read_at(path, 0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// The length of a file in bytes.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Names in a directory, sorted. A missing directory is `NotFound`.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Replaces `to` if it exists. Durable after `sync_dir` of the directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Durable after `sync_dir` of the directory.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Writes what a file has from `from` on in its place once more, and syncs it.
    ///
    /// For who finds bytes that an earlier process may have failed to sync. They may be seen in memory only, and count as
    /// written: a `sync` would have nothing to do and succeed. Written again they become durable, or the sync fails again.
    fn write_again(&self, path: &Path, from: u64) -> io::Result<()>;

    /// Creates a directory and its parents, durably, readable by their owner only (0700). An error that [`is_full`] comes of
    /// the creating, never of the syncing.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub trait File: Debug + Send {
    /// Adds bytes at the end. On an error any prefix of them may have been added.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns once everything appended before is durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `len` bytes. Durable after `sync`. More than it has is `InvalidInput`.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Whether an error says that there is no space, rather than that something is broken: what was attempted may be attempted
/// again later. (After a failed sync it may not, whatever the error says: nobody knows then what is durable.)
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Puts `bytes` at `path` so that after a power cut either the old file or the new one is there, whole.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A bare name lies where one stands.
    let dir = match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        dir => dir.expect("a file that is replaced lies in a directory"),
    };
    let mut name = path.file_name().expect("a file that is replaced has a name").to_os_string();
    name.push(".new");
    let next: PathBuf = dir.join(name);
    if disk.exists(&next)? {
        // Left by a cut in the middle of an earlier replace; it was never the file.
        disk.remove(&next)?;
    }
    let mut file = disk.create(&next)?;
    if let Err(e) = file.append(bytes) {
        // Gives the space back at once; if that fails too, the next replace does it.
        let _ = disk.remove(&next);
        return Err(e);
    }
    file.sync()?;
    drop(file);
    disk.rename(&next, path)?;
    disk.sync_dir(dir)
}
