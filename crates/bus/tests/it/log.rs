//! One log, without crashes: what is appended is read, in order; bounds are refused before anything is written.

use crate::SMALL;
use bus::{Log, LogConfig, LogError, Offset};
use disk::{Disk, SimDisk};
use std::path::Path;

const DIR: &str = "/log";

fn open(disk: &SimDisk) -> Log {
    open_with(disk, SMALL)
}

fn open_with(disk: &SimDisk, config: LogConfig) -> Log {
    Log::open(disk.shared(), Path::new(DIR), config).expect("a healthy log opens")
}

fn payload(n: u64) -> Vec<u8> {
    format!("record {n} ").repeat(1 + n as usize % 7).into_bytes()
}

fn fill(log: &mut Log, records: std::ops::Range<u64>) {
    for n in records {
        assert_eq!(log.append(&payload(n)).unwrap(), Offset(n));
        if n % 3 == 0 {
            log.commit().unwrap();
        }
    }
    log.commit().unwrap();
}

fn expect(records: std::ops::Range<u64>) -> Vec<(Offset, Vec<u8>)> {
    records.map(|n| (Offset(n), payload(n))).collect()
}

#[test]
fn what_is_committed_is_read_in_order_from_any_offset() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..100);
    assert!(disk.list(Path::new(DIR)).unwrap().len() > 5, "several segments");
    for log in [log, open(&disk)] {
        let reader = log.reader();
        assert_eq!((log.first(), log.end()), (Offset(0), Offset(100)));
        for from in 0..100 {
            assert_eq!(reader.read(Offset(from), 1000, 1 << 20).unwrap(), expect(from..100));
            assert_eq!(reader.read(Offset(from), 1, 0).unwrap(), expect(from..from + 1));
        }
        assert_eq!(reader.read(Offset(100), 10, 1000).unwrap(), []);
        assert_eq!(reader.read(Offset(0), 0, 1000).unwrap(), []);
    }
}

#[test]
fn what_is_not_committed_is_not_read() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..4);
    log.append(b"not yet").unwrap();
    assert_eq!(log.end(), Offset(4));
    assert_eq!(log.reader().read(Offset(0), 100, 1 << 20).unwrap(), expect(0..4));
    assert!(matches!(
        log.reader().read(Offset(5), 100, 1 << 20),
        Err(LogError::BeyondEnd { from: Offset(5), end: Offset(4) })
    ));
}
