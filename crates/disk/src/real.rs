//! The operating system's files.

use crate::{Disk, File};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// Files of the operating system. `sync` is `fdatasync`, which also makes a changed length durable.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(OpenOptions::new().append(true).open(path)?)))
    }

    fn read_at(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = fs::File::open(path)?;
        let mut filled = 0;
        while filled < into.len() {
            match file.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn write_again(&self, path: &Path, from: u64) -> io::Result<()> {
        // Not for appending: Linux would append, whatever the offset.
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut bytes = vec![0; 64 * 1024];
        let mut at = from;
        loop {
            match file.read_at(&mut bytes, at) {
                Ok(0) => return file.sync_data(),
                Ok(n) => {
                    file.write_all_at(&bytes[..n], at)?;
                    at += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            // Whoever made it may have been killed before it synced the entry. Who may not read the parent did not
            // make it.
            return match self.sync_dir(parent(dir)) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                synced => synced.map_err(unknown),
            };
        }
        self.create_dir_all(parent(dir))?;
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            Err(e) => return Err(e),
        }
        self.sync_dir(parent(dir)).map_err(unknown)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

/// That making a directory found no space says that there is none; that syncing it did says nothing of what is durable.
fn unknown(failed_sync: io::Error) -> io::Error {
    io::Error::other(failed_sync)
}

/// A directory that this process has for itself. Given back when it is dropped, or the process ends.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "held for its lock")] fs::File);

/// Takes a directory for this process alone, by an advisory lock on the file `lock` in it. Two processes that write
/// the same log would ruin it, so a station takes its data directory before it opens anything. `ResourceBusy` if another
/// process has it.
pub fn lock_dir(dir: &Path) -> io::Result<DirLock> {
    let path = dir.join("lock");
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(DirLock(file)),
        Err(fs::TryLockError::WouldBlock) => {
            let what = format!("`{}` is in use by another process", dir.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, what))
        }
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

/// `.` for a bare name, `/` for the root itself.
fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        None => Path::new("/"),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        if len > self.len()? {
            // The operating system would add zeros.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
