//! A disk without space: the group is refused, the log is as it was, and goes on when there is space again.

use crate::{SMALL, expect, fill, open, payload, read_all, segments, try_open};
use bus::{LogError, Offset};
use disk::{Disk, SimDisk};

#[test]
fn a_full_disk_refuses_the_whole_group_and_the_log_goes_on() {
    // Every amount of room between none and enough, so that the group fails in its header, its head and its payload,
    // and where a new segment is begun too.
    for records in [1, 4, 7, 8] {
        for room in 0..700 {
            let disk = SimDisk::new(1);
            let mut log = open(&disk);
            fill(&mut log, 0..records);
            let (bytes, before) = (log.bytes(), segments(&disk));
            disk.set_capacity(bytes + room);
            let needs: u64 = (records..records + 5).map(|n| 20 + payload(n).len() as u64).sum();
            for n in records..records + 5 {
                log.append(&payload(n)).unwrap();
            }
            let rolls = bytes + needs > SMALL.segment_bytes;
            let end = match log.commit() {
                Ok(end) => {
                    assert!(room >= needs + if rolls { 44 } else { 0 });
                    end.0
                }
                Err(e @ LogError::DiskFull { .. }) => {
                    assert!(room < needs + if rolls { 44 } else { 0 });
                    assert!(e.is_for_want_of_room());
                    assert!(!log.is_poisoned());
                    records
                }
                Err(e) => panic!("{e}"),
            };
            assert_eq!(log.end(), Offset(end));
            let on_disk: u64 = segments(&disk).iter().map(|path| disk.len(path).unwrap()).sum();
            assert_eq!(on_disk, log.bytes());
            assert!(end > records || segments(&disk).len() <= before.len() + 1);
            disk.set_capacity(u64::MAX);
            fill(&mut log, end..end + 3);
            assert_eq!(read_all(&log.reader()).unwrap(), expect(0..end + 3));
            drop(log);
            disk.cut_now();
            disk.reboot();
            assert_eq!(read_all(&open(&disk).reader()).unwrap(), expect(0..end + 3));
        }
    }
}

#[test]
fn a_full_disk_that_cannot_be_cut_back_poisons() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..2);
    disk.set_capacity(log.bytes() + 10);
    disk.set_sync_mode(disk::SyncMode::FailsOnceAt(0));
    log.append(&payload(2)).unwrap();
    assert!(matches!(log.commit(), Err(LogError::Io { attempt: "cut back", .. })));
    assert!(log.is_poisoned());
    disk.set_capacity(u64::MAX);
    assert!(matches!(log.append(&payload(2)), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.commit(), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.trim(Offset(1)), Err(LogError::Poisoned { .. })));
    assert_eq!(read_all(&log.reader()).unwrap(), expect(0..2), "what is durable can still be read");
    disk.cut_now();
    disk.reboot();
    let mut log = open(&disk);
    fill(&mut log, 2..5);
    assert_eq!(read_all(&log.reader()).unwrap(), expect(0..5));
}

#[test]
fn without_space_for_a_new_log_there_is_none_and_later_there_is_one() {
    let mut refused = 0;
    for room in 0..100 {
        let disk = SimDisk::new(1);
        disk.set_capacity(room);
        match try_open(&disk, SMALL) {
            Ok(_) => {}
            Err(e @ LogError::DiskFull { .. }) => {
                assert!(e.is_for_want_of_room());
                refused += 1;
            }
            Err(e) => panic!("{room}: {e}"),
        }
        disk.set_capacity(u64::MAX);
        fill(&mut open(&disk), 0..3);
        disk.cut_now();
        disk.reboot();
        assert_eq!(read_all(&open(&disk).reader()).unwrap(), expect(0..3), "{room}");
    }
    assert_eq!(refused, 44, "as many bytes as a header has");
}
