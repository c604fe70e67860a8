//! Room on the disk that is this gateway's own, for when something else has filled the rest.
//!
//! Promises: on a full disk there is room once more for the files without which nothing moves: `windows` (before segments
//! go), `cursor`, `seal.epoch` (before a start), `bundle.json` (with its revocations).
//! Never: says anything: what is in it is not read.
//!
//! `reserve` is a file of bytes that do not compress. Whoever finds no room for one of those files removes it, writes, and
//! makes it again as far as there is room ([`crate::kept::write`]). While it is not whole nothing is admitted: what comes
//! free belongs to it first.

use disk::{Disk, is_full};
use std::io;
use std::path::Path;

const RESERVE: &str = "reserve";
/// What it is held for. Each is replaced whole: until the new one is there, the old one is too.
const FILES: [&str; 4] = ["windows", "cursor", "seal.epoch", "bundle.json"];
/// It grows by this much, so that it is not written to for every key that comes.
const STEP_BYTES: u64 = 64 * 1024;
/// Besides the files as they are: blocks begun for a few bytes, what the next ones have more, and a message or two of a
/// device that come in between.
const MARGIN_BYTES: u64 = 2 * STEP_BYTES;

/// Holds room for the next one of each file. `false`: there is not so much; what there is, is held.
pub(crate) fn hold(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    let path = dir.join(RESERVE);
    let mut files = 0;
    for name in FILES {
        files += len(disk, &dir.join(name))?;
    }
    let wanted = (files + files / 4) / STEP_BYTES * STEP_BYTES + MARGIN_BYTES;
    let held = len(disk, &path)?;
    if held >= wanted {
        return Ok(true);
    }
    let opened = if disk.exists(&path)? { disk.open(&path) } else { disk.create(&path) };
    let mut file = match opened {
        Ok(file) => file,
        Err(e) if is_full(&e) => return Ok(false),
        Err(e) => return Err(e),
    };
    let mut noise = Noise(held + 1);
    for from in (held..wanted).step_by(STEP_BYTES as usize) {
        match file.append(&noise.bytes((wanted - from).min(STEP_BYTES))) {
            Ok(()) => {}
            Err(e) if is_full(&e) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    file.sync()?;
    disk.sync_dir(dir)?;
    Ok(true)
}

/// Gives the room up. Says whether there was any.
pub(crate) fn give_up(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    let path = dir.join(RESERVE);
    if len(disk, &path)? == 0 {
        return Ok(false);
    }
    tracing::warn!(path = %path.display(), "no space left on the disk: the reserve is given up");
    disk.remove(&path)?;
    // Some file systems have the blocks free only once the removal is durable.
    disk.sync_dir(dir)?;
    Ok(true)
}

fn len(disk: &dyn Disk, path: &Path) -> io::Result<u64> {
    if disk.exists(path)? { disk.len(path) } else { Ok(0) }
}

/// xorshift64*: a file system that compresses, or shares equal blocks, holds the room all the same.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, len: u64) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).flat_map(|_| self.word().to_le_bytes());
        words.take(len as usize).collect()
    }

    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::SimDisk;

    /// The files as they are, the gateway's own room, and others on the same disk.
    #[test]
    fn room_is_held_as_far_as_there_is_some_and_given_up_once() {
        let (disk, dir) = (SimDisk::new(1), Path::new("/gw"));
        let path = dir.join(RESERVE);
        disk.create_dir_all(dir).unwrap();
        assert!(!give_up(&disk, dir).unwrap());
        assert!(hold(&disk, dir).unwrap());
        assert_eq!(disk.len(&path).unwrap(), 2 * STEP_BYTES);
        let operations = disk.operations();
        assert!(hold(&disk, dir).unwrap());
        assert_eq!(disk.operations(), operations, "what is held is not written again");

        disk::replace(&disk, &dir.join("windows"), &[0; STEP_BYTES as usize]).unwrap();
        disk.set_capacity(4 * STEP_BYTES - 1);
        assert!(!hold(&disk, dir).unwrap());
        assert_eq!(disk.len(&path).unwrap(), 3 * STEP_BYTES - 1);
        disk.set_capacity(u64::MAX);
        assert!(hold(&disk, dir).unwrap());
        assert_eq!(disk.len(&path).unwrap(), 3 * STEP_BYTES);
        assert!(give_up(&disk, dir).unwrap());
        assert!(!give_up(&disk, dir).unwrap());
    }
}
