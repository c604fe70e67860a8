//! A fixed number of logs in one directory. A device always goes to the same one, so its order is kept.
//!
//! ```text
//! <dir>/shards      "PLIMSHRD" | version u32 = 1 | count u32 | crc u32        little endian, CRC-32C of the 16 bytes before
//! <dir>/shard-0 …   one log each
//! ```
//!
//! The count is durable before the first shard is made. With another count devices would move to other shards, and
//! their history would be read in two orders: it is refused.

use crate::{Log, LogConfig, LogError, LogReader, Offset, Writer};
use disk::{Disk, SharedDisk};
use sha2::{Digest, Sha256};
use std::path::Path;

const MAGIC: [u8; 8] = *b"PLIMSHRD";
const VERSION: u32 = 1;
const FILE_LEN: usize = 20;

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Shards {
    writers: Vec<Writer>,
}

impl Shards {
    /// Opens or creates `count` logs and starts a writer for each. The bounds hold for each shard by itself.
    pub fn open(
        disk: SharedDisk,
        dir: &Path,
        count: u32,
        config: LogConfig,
        queue_max: usize,
    ) -> Result<Self, LogError> {
        assert!(count > 0, "a device goes to one of the shards");
        fix_count(&*disk, dir, count)?;
        let mut writers = Vec::with_capacity(count as usize);
        for shard in 0..count {
            let log = Log::open(disk.clone(), &dir.join(format!("shard-{shard}")), config)?;
            writers.push(Writer::start(log, &format!("shard-{shard}"), queue_max));
        }
        Ok(Self { writers })
    }

    /// The number of the shard that a device's records go to.
    pub fn shard_of(&self, device: &[u8]) -> usize {
        shard_of(device, self.writers.len())
    }

    /// The writer of the shard that a device's records go to.
    pub fn writer_of(&self, device: &[u8]) -> &Writer {
        &self.writers[self.shard_of(device)]
    }

    /// All writers, in the order of the shards' numbers.
    pub fn writers(&self) -> &[Writer] {
        &self.writers
    }

    /// All readers, in the order of the shards' numbers.
    pub fn readers(&self) -> Vec<LogReader> {
        self.writers.iter().map(Writer::reader).collect()
    }

    /// Commits what is queued in each and ends their threads.
    pub async fn close(self) {
        for writer in self.writers {
            writer.close().await;
        }
    }
}

/// The first 8 bytes of SHA-256 of the device's id, big endian, modulo the number of shards.
pub fn shard_of(device: &[u8], shards: usize) -> usize {
    let hash = Sha256::digest(device);
    let first = u64::from_be_bytes(hash[..8].try_into().expect("SHA-256 has 32 bytes"));
    (first % shards as u64) as usize
}

/// Writes the count at the first start; compares it at every later one.
fn fix_count(disk: &dyn Disk, dir: &Path, count: u32) -> Result<(), LogError> {
    disk.create_dir_all(dir).map_err(LogError::io("create", dir))?;
    let file = dir.join("shards");
    if !disk.exists(&file).map_err(LogError::io("look for", &file))? {
        let names = disk.list(dir).map_err(LogError::io("list", dir))?;
        if let Some(name) = names.iter().find(|name| name.starts_with("shard-")) {
            let found = format!("none, and `{name}`");
            return Err(corrupt(&file, "the number of shards", found));
        }
        return disk::replace(disk, &file, &encode(count)).map_err(LogError::io("write", &file));
    }
    let found = decode(&file, &disk.read(&file, 4096).map_err(LogError::io("read", &file))?)?;
    if found == count {
        Ok(())
    } else {
        Err(LogError::OtherShards { file, expected: count, found })
    }
}

fn encode(count: u32) -> [u8; FILE_LEN] {
    let mut out = [0; FILE_LEN];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c::crc32c(&out[..16]);
    out[16..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(file: &Path, bytes: &[u8]) -> Result<u32, LogError> {
    let u32_at = |at: usize| {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().expect("four bytes")))
    };
    if !bytes.starts_with(&MAGIC) {
        return Err(corrupt(
            file,
            "the magic bytes `PLIMSHRD`",
            format!("{} other bytes", bytes.len()),
        ));
    }
    match u32_at(8) {
        Some(VERSION) => {}
        Some(found) => {
            return Err(LogError::UnknownVersion { file: file.into(), expected: VERSION, found });
        }
        None => return Err(corrupt(file, "20 bytes", format!("{} bytes", bytes.len()))),
    }
    match (u32_at(12), u32_at(16)) {
        (Some(count), Some(crc))
            if bytes.len() == FILE_LEN && crc == crc32c::crc32c(&bytes[..16]) =>
        {
            Ok(count)
        }
        _ => Err(corrupt(file, "20 bytes that their crc fits", format!("{} bytes", bytes.len()))),
    }
}

fn corrupt(file: &Path, expected: &str, found: String) -> LogError {
    let (file, expected) = (file.to_owned(), expected.to_owned());
    LogError::Corrupt { file, position: 0, offset: Offset(0), expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_written_as_its_golden_bytes_and_read() {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/golden/shards-v1.hex");
        let golden = std::fs::read_to_string(file).expect("the golden bytes are in the repository");
        let written: String = encode(4).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, golden.trim());
        assert_eq!(decode(Path::new("shards"), &encode(4)).unwrap(), 4);
    }
}
