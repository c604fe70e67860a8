//! The promises of the log, the writer and the shards.

mod cuts;
mod damage;
mod full;
mod log;
mod shards;
mod writer;

use bus::{Log, LogConfig, LogError, LogReader, Offset};
use disk::{Disk, SimDisk};
use std::path::Path;

pub const DIR: &str = "/log";

/// Small, so that a few records make several segments.
pub const SMALL: LogConfig =
    LogConfig { segment_bytes: 600, bytes_max: 1 << 20, record_bytes_max: 4096 };

pub fn open(disk: &SimDisk) -> Log {
    open_with(disk, SMALL)
}

pub fn open_with(disk: &SimDisk, config: LogConfig) -> Log {
    try_open(disk, config).expect("a healthy log opens")
}

pub fn try_open(disk: &SimDisk, config: LogConfig) -> Result<Log, LogError> {
    Log::open(disk.shared(), Path::new(DIR), config)
}

/// Record `n` of every test log that is filled by [`fill`]: of different lengths, none like another.
pub fn payload(n: u64) -> Vec<u8> {
    format!("record {n} ").repeat(1 + n as usize % 7).into_bytes()
}

/// Appends records and commits after every third.
pub fn fill(log: &mut Log, records: std::ops::Range<u64>) {
    for n in records {
        assert_eq!(log.append(&payload(n)).unwrap(), Offset(n));
        if n % 3 == 0 {
            log.commit().unwrap();
        }
    }
    log.commit().unwrap();
}

pub fn expect(records: std::ops::Range<u64>) -> Vec<(Offset, Vec<u8>)> {
    records.map(|n| (Offset(n), payload(n))).collect()
}

pub fn read_all(reader: &LogReader) -> Result<Vec<(Offset, Vec<u8>)>, LogError> {
    reader.read(reader.first(), usize::MAX, usize::MAX)
}

/// The segment files, oldest first.
pub fn segments(disk: &SimDisk) -> Vec<std::path::PathBuf> {
    let names = disk.list(Path::new(DIR)).unwrap();
    names.iter().filter(|n| n.ends_with(".log")).map(|n| Path::new(DIR).join(n)).collect()
}

/// Puts other bytes under a name, durably.
pub fn overwrite(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    disk::replace(disk, path, bytes).unwrap();
}
