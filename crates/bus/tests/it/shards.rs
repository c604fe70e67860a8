//! The shards: their number is fixed at the first start, and a device stays in its own.

use crate::SMALL;
use bus::{LogError, Offset, Shards, shard_of};
use disk::{Cuts, Disk, SimDisk};
use std::path::Path;

const DIR: &str = "/bus";

fn open(disk: &SimDisk, count: u32) -> Result<Shards, LogError> {
    Shards::open(disk.shared(), Path::new(DIR), count, SMALL, 100)
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_device_goes_to_the_shard_that_its_hash_says() {
    // SHA-256("abc") begins with ba7816bf8f01cfea (FIPS 180-2, appendix B.1).
    for shards in [1, 2, 3, 4, 7, 16] {
        assert_eq!(shard_of(b"abc", shards) as u64, 0xba78_16bf_8f01_cfea % shards as u64);
    }
    let mut devices = [0; 4];
    (0..1000).for_each(|n| devices[shard_of(format!("pump-{n}").as_bytes(), 4)] += 1);
    assert!(devices.iter().all(|n| (200..300).contains(n)), "{devices:?}");
}

#[test]
fn records_of_a_device_are_found_in_its_shard_after_a_restart() {
    let disk = SimDisk::new(1);
    let shards = open(&disk, 4).unwrap();
    assert_eq!(shards.writers().len(), 4);
    for n in 0..40 {
        let device = format!("pump-{n}").into_bytes();
        block(shards.writer_of(&device).append(device.clone())).unwrap();
    }
    block(shards.close());
    disk.cut_now();
    disk.reboot();
    let shards = open(&disk, 4).unwrap();
    let mut found = 0;
    for (shard, reader) in shards.readers().iter().enumerate() {
        for (_, device) in reader.read(Offset(0), 100, 1 << 20).unwrap() {
            assert_eq!(shards.shard_of(&device), shard);
            found += 1;
        }
    }
    assert_eq!(found, 40);
}

#[test]
fn another_number_of_shards_is_refused() {
    let disk = SimDisk::new(1);
    drop(open(&disk, 4).unwrap());
    for other in [1, 3, 5] {
        let e = open(&disk, other).unwrap_err();
        assert!(matches!(e, LogError::OtherShards { expected, found: 4, .. } if expected == other));
    }
    open(&disk, 4).unwrap();
}

#[test]
fn a_changed_or_missing_count_is_reported() {
    let disk = SimDisk::new(1);
    drop(open(&disk, 4).unwrap());
    let file = Path::new(DIR).join("shards");
    let whole = disk.read(&file, 100).unwrap();
    assert_eq!(whole.len(), 20);
    for at in 0..20 {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        disk::replace(&disk, &file, &bytes).unwrap();
        let e = open(&disk, 4).unwrap_err();
        match at {
            8..12 => assert!(matches!(e, LogError::UnknownVersion { expected: 1, .. })),
            _ => assert!(matches!(e, LogError::Corrupt { .. })),
        }
        disk::replace(&disk, &file, &whole[..at]).unwrap();
        assert!(matches!(open(&disk, 4), Err(LogError::Corrupt { .. })), "{at} bytes");
    }
    disk.remove(&file).unwrap();
    let e = open(&disk, 4).unwrap_err();
    assert!(matches!(e, LogError::Corrupt { .. }), "shards without their number: {e}");
}

#[test]
fn a_cut_at_any_operation_of_the_first_start_leaves_it_to_be_started_again() {
    let workload = |disk: &SimDisk| {
        let shards = open(disk, 2).ok()?;
        block(shards.writers()[1].append(b"kept".to_vec())).ok()
    };
    let check = |disk: &SimDisk, kept: Option<Offset>| {
        let shards = open(disk, 2).map_err(|e| e.to_string())?;
        let found = shards.readers()[1].read(Offset(0), 10, 100).map_err(|e| e.to_string())?;
        match found.first().map(|(offset, _)| *offset) {
            None if kept.is_some() => Err("the record is lost".into()),
            _ => Ok(()),
        }
    };
    Cuts::over(0..12).run(workload, check).holds("bus shards");
}
