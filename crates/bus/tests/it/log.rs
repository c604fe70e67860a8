//! One log, without crashes: what is appended is read, in order; bounds are refused before anything is written.

use crate::{DIR, SMALL, expect, fill, open, open_with, payload, segments};
use bus::{Log, LogConfig, LogError, Offset};
use disk::{Disk, RealDisk, SimDisk};
use std::path::Path;
use std::sync::Arc;

#[test]
fn what_is_committed_is_read_in_order_from_any_offset() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..100);
    assert!(segments(&disk).len() > 5, "several segments");
    let check = |log: Log| {
        let reader = log.reader();
        assert_eq!((log.first(), log.end()), (Offset(0), Offset(100)));
        for from in 0..100 {
            assert_eq!(reader.read(Offset(from), 1000, 1 << 20).unwrap(), expect(from..100));
            assert_eq!(reader.read(Offset(from), 1, 0).unwrap(), expect(from..from + 1));
        }
        assert_eq!(reader.read(Offset(100), 10, 1000).unwrap(), []);
        assert_eq!(reader.read(Offset(0), 0, 1000).unwrap(), []);
    };
    check(log);
    check(open(&disk));
}

#[test]
fn a_read_stops_at_its_bounds_and_goes_on_where_it_stopped() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..60);
    let reader = log.reader();
    for (records_max, bytes_max) in [(1, 1 << 20), (7, 1 << 20), (1000, 1), (1000, 100), (3, 50)] {
        let mut read = Vec::new();
        while read.len() < 60 {
            let next = Offset(read.len() as u64);
            let some = reader.read(next, records_max, bytes_max).unwrap();
            let bytes: usize = some.iter().map(|(_, payload)| payload.len()).sum();
            assert!(some.len() == 1 || (some.len() <= records_max && bytes <= bytes_max));
            assert!(!some.is_empty());
            read.extend(some);
        }
        assert_eq!(read, expect(0..60));
    }
}

#[test]
fn readers_that_step_and_jump_find_their_records() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..100);
    let reader = log.reader();
    for step in 1..8 {
        for from in (0..97).step_by(step).chain((0..97).rev().step_by(step)) {
            assert_eq!(reader.read(Offset(from), 3, 1 << 20).unwrap(), expect(from..from + 3));
        }
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

#[test]
fn places_far_into_a_long_segment_are_found() {
    let config = LogConfig { segment_bytes: 4 << 20, bytes_max: 8 << 20, record_bytes_max: 70_000 };
    let disk = SimDisk::new(1);
    let mut log = open_with(&disk, config);
    // Several marks in one group, and a record longer than the distance of two marks.
    let payload = |n: u64| vec![n as u8; if n == 700 { 70_000 } else { 1000 + n as usize % 13 }];
    for n in 0..1000 {
        log.append(&payload(n)).unwrap();
        if n % 90 == 0 {
            log.commit().unwrap();
        }
    }
    log.commit().unwrap();
    assert_eq!(segments(&disk).len(), 1);
    let check = |log: &Log| {
        for from in (0..1000).rev().chain([699, 700, 701, 0, 999]) {
            let read = log.reader().read(Offset(from), 2, 1 << 20).unwrap();
            assert_eq!(read[0], (Offset(from), payload(from)));
        }
    };
    check(&log);
    drop(log);
    let mut log = open_with(&disk, config);
    check(&log);
    // A segment that is no longer the newest when it is opened has no marks until it is read.
    log.append(&vec![0; 60_000]).unwrap();
    for _ in 0..60 {
        log.append(&vec![0; 60_000]).unwrap();
        log.commit().unwrap();
    }
    drop(log);
    let log = open_with(&disk, config);
    assert_eq!(segments(&disk).len(), 2);
    check(&log);
}

#[test]
fn trim_removes_whole_segments_below_and_never_the_newest() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..100);
    let (before, reader) = (segments(&disk).len(), log.reader());
    let mut bytes = log.bytes();
    for below in [0, 1, 10, 50, 50, 99, 100, 1000] {
        log.trim(Offset(below)).unwrap();
        let first = log.first();
        assert!(first.0 <= below, "only what lies below {below} is gone, not up to {first}");
        assert_eq!(reader.read(first, 1000, 1 << 20).unwrap(), expect(first.0..100));
        if first > Offset(0) {
            assert!(matches!(
                reader.read(Offset(first.0 - 1), 1, 100),
                Err(LogError::Trimmed { first: at, .. }) if at == first
            ));
        }
        assert!(log.bytes() <= bytes);
        bytes = log.bytes();
    }
    assert!(before > 5);
    assert_eq!(segments(&disk).len(), 1, "the newest stays");
    assert_eq!(log.end(), Offset(100));
    drop(log);
    let mut log = open(&disk);
    assert_eq!(log.end(), Offset(100));
    fill(&mut log, 100..120);
    assert_eq!(log.reader().read(Offset(100), 100, 1 << 20).unwrap(), expect(100..120));
}

#[test]
fn a_full_log_refuses_before_it_writes_and_takes_again_after_a_trim() {
    let bytes_max = 2000;
    let disk = SimDisk::new(1);
    let mut log = open_with(&disk, LogConfig { bytes_max, ..SMALL });
    let mut n = 0;
    let refused = loop {
        match log.append(&payload(n)) {
            Ok(offset) => assert_eq!(offset, Offset(n)),
            Err(refused) => break refused,
        }
        log.commit().unwrap();
        n += 1;
        assert!(n < 1000, "never full");
    };
    let needs = 20 + payload(n).len() as u64;
    assert!(matches!(refused, LogError::Full { needs: said, .. } if said == needs));
    assert!(refused.is_for_want_of_room());
    assert!(log.bytes() <= bytes_max && log.bytes() + needs + 44 > bytes_max);
    let on_disk: u64 = segments(&disk).iter().map(|path| disk.len(path).unwrap()).sum();
    assert_eq!(on_disk, log.bytes(), "nothing was written");
    log.trim(Offset(n / 2)).unwrap();
    fill(&mut log, n..n + 1);
    assert_eq!(log.end(), Offset(n + 1));
}

#[test]
fn appends_that_are_not_committed_count_against_the_bound() {
    let disk = SimDisk::new(1);
    let mut log = open_with(&disk, LogConfig { bytes_max: 1000, ..SMALL });
    let fits = (0..1000).take_while(|_| log.append(&[7; 80]).is_ok()).count();
    assert_eq!(fits, (1000 - 44) / 100);
    log.commit().unwrap();
    assert_eq!(log.bytes(), disk.len(&segments(&disk)[0]).unwrap());
}

#[test]
fn a_log_whose_reader_has_caught_up_is_never_full() {
    // Segments as long as the whole log may be, and longer: only the newest one is there, and it is full.
    for segment_bytes in [500, 1000, 4000] {
        for record in [1, 100, 900] {
            let config = LogConfig { segment_bytes, bytes_max: 1000, record_bytes_max: 900 };
            let disk = SimDisk::new(1);
            let mut log = open_with(&disk, config);
            for n in 0..50 {
                if log.append(&vec![1; record]).is_err() {
                    log.commit().unwrap();
                    log.trim(log.end()).unwrap();
                    log.append(&vec![1; record]).expect("there is room after a trim");
                }
                if n % 4 == 0 {
                    log.commit().unwrap();
                }
            }
            log.commit().unwrap();
            assert_eq!(log.end(), Offset(50));
            drop(log);
            assert_eq!(open_with(&disk, config).end(), Offset(50));
        }
    }
}

#[test]
fn a_record_beyond_the_bound_is_too_large() {
    let disk = SimDisk::new(1);
    let mut log = open_with(&disk, LogConfig { record_bytes_max: 100, ..SMALL });
    assert_eq!(log.append(&[1; 100]).unwrap(), Offset(0));
    assert!(matches!(log.append(&[1; 101]), Err(LogError::TooLarge { len: 101, len_max: 100 })));
    assert_eq!(log.append(&[]).unwrap(), Offset(1), "the log goes on");
    log.commit().unwrap();
    // One that would not fit into the empty log either is not called a matter of room.
    let mut log = open_with(&SimDisk::new(1), LogConfig { bytes_max: 100, ..SMALL });
    assert!(matches!(log.append(&[1; 37]), Err(LogError::TooLarge { len: 37, len_max: 36 })));
    log.append(&[1; 36]).unwrap();
    log.commit().unwrap();
}

#[test]
fn names_that_are_none_of_ours_are_left_alone() {
    let disk = SimDisk::new(1);
    drop(open(&disk));
    let others = ["7.log", "notes", "00000000000000000001.log.bak", "99999999999999999999.log"];
    for name in others {
        disk.create(&Path::new(DIR).join(name)).unwrap();
    }
    let mut log = open(&disk);
    fill(&mut log, 0..50);
    log.trim(Offset(50)).unwrap();
    drop(log);
    assert_eq!(open(&disk).end(), Offset(50));
    for name in others {
        assert!(disk.exists(&Path::new(DIR).join(name)).unwrap());
    }
}

#[test]
fn a_log_on_a_real_disk_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("some/where");
    let disk: disk::SharedDisk = Arc::new(RealDisk);
    for round in 0..5 {
        let mut log = Log::open(disk.clone(), &dir, SMALL).unwrap();
        assert_eq!(log.end(), Offset(round * 20));
        fill(&mut log, round * 20..(round + 1) * 20);
        log.trim(Offset(round * 10)).unwrap();
        let (first, end) = (log.first().0, log.end().0);
        assert_eq!(log.reader().read(log.first(), 1000, 1 << 20).unwrap(), expect(first..end));
    }
}
