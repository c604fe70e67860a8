//! INV-ACK-1: the power is cut, or the process killed, at every operation of a workload that appends, commits, begins
//! segments, trims and opens again; every record whose commit returned is there afterwards, and nothing else is.

use crate::{DIR, SMALL, open, payload, read_all};
use bus::{Log, LogError, Offset};
use disk::{Cuts, Disk, SimDisk, SyncMode};
use std::path::Path;

const SEEDS: std::ops::Range<u64> = 0..12;

/// What the workload was promised before it was cut.
#[derive(Clone, Debug, Default)]
struct Promised {
    /// Records whose commit returned.
    committed: Vec<Vec<u8>>,
    /// Records whose commit did not return: any first part of them may be found.
    in_flight: Vec<Vec<u8>>,
    /// The highest offset that a trim was asked for.
    trimmed: u64,
}

impl Promised {
    /// Appends and commits a group. `Ok(false)`: refused for want of room, and nothing of it is in the log.
    fn commit(&mut self, log: &mut Log, group: Vec<Vec<u8>>) -> Result<bool, LogError> {
        self.in_flight = group;
        let appended =
            self.in_flight.iter().try_for_each(|payload| log.append(payload).map(|_| ()));
        match appended.and_then(|()| log.commit()) {
            Ok(end) => {
                self.committed.append(&mut self.in_flight);
                assert_eq!(end, Offset(self.committed.len() as u64));
                Ok(true)
            }
            Err(LogError::DiskFull { .. }) => {
                self.in_flight.clear();
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    fn trim(&mut self, log: &mut Log, below: u64) -> Result<(), LogError> {
        self.trimmed = self.trimmed.max(below);
        log.trim(Offset(below))
    }
}

fn group(start: u64, len: u64) -> Vec<Vec<u8>> {
    (start..start + len).map(payload).collect()
}

/// Appends, commits, rolls, trims, opens again; stops at the first error.
fn workload(disk: &SimDisk) -> Promised {
    let mut promised = Promised::default();
    let _ = run(disk, &mut promised);
    promised
}

fn run(disk: &SimDisk, promised: &mut Promised) -> Result<(), LogError> {
    for round in 0..3 {
        let mut log = Log::open(disk.shared(), Path::new(DIR), SMALL)?;
        for len in [1, 2, 5, 1, 9, 3] {
            let next = promised.committed.len() as u64;
            promised.commit(&mut log, group(next, len))?;
        }
        // An empty record, one of several sectors, and one longer than a segment.
        promised.commit(&mut log, vec![vec![], vec![round; 1500], vec![]])?;
        let end = log.end().0;
        promised.trim(&mut log, end / 2)?;
        promised.commit(&mut log, group(end, 4))?;
        if round == 1 {
            let end = log.end().0;
            promised.trim(&mut log, end)?;
        }
    }
    Ok(())
}

/// What must hold when the next process opens the log.
fn check(disk: &SimDisk, promised: Promised) -> Result<(), String> {
    disk.set_capacity(u64::MAX);
    let tell =
        |e: LogError| format!("{e}; {:?}", std::error::Error::source(&e).map(ToString::to_string));
    let mut log = Log::open(disk.shared(), Path::new(DIR), SMALL).map_err(tell)?;
    let found = read_all(&log.reader()).map_err(tell)?;
    compare(&log, &found, &promised)?;

    // Whatever the opened log shows is durable, also what a killed process had left unsynced.
    let (first, end) = (log.first(), log.end());
    drop(log);
    disk.cut_now();
    disk.reboot();
    log = Log::open(disk.shared(), Path::new(DIR), SMALL).map_err(tell)?;
    if (log.first(), log.end()) != (first, end) || read_all(&log.reader()).map_err(tell)? != found {
        return Err(format!("{first}..{end} was shown, {}..{} is left", log.first(), log.end()));
    }

    // And the log takes records again.
    log.append(b"further").map_err(tell)?;
    log.commit().map_err(tell)?;
    disk.cut_now();
    disk.reboot();
    let log = Log::open(disk.shared(), Path::new(DIR), SMALL).map_err(tell)?;
    match log.reader().read(end, 10, 1000).map_err(tell)? {
        further if further == [(end, b"further".to_vec())] => Ok(()),
        other => Err(format!("a further record at {end} was committed, found {other:?}")),
    }
}

fn compare(log: &Log, found: &[(Offset, Vec<u8>)], promised: &Promised) -> Result<(), String> {
    let Promised { committed, in_flight, trimmed } = promised;
    let (first, end) = (log.first().0, log.end().0);
    if first > *trimmed {
        return Err(format!(
            "the log starts at {first}, trimmed was only what lies below {trimmed}"
        ));
    }
    if end < committed.len() as u64 {
        return Err(format!(
            "{} records were acknowledged, the log ends at {end}",
            committed.len()
        ));
    }
    if end > (committed.len() + in_flight.len()) as u64 {
        return Err(format!(
            "{} records were appended, the log ends at {end}",
            committed.len() + in_flight.len()
        ));
    }
    if found.len() as u64 != end - first {
        return Err(format!("{first}..{end}, found {} records", found.len()));
    }
    for (n, (offset, payload)) in (first..).zip(found) {
        let expected = committed.iter().chain(in_flight).nth(n as usize);
        if offset.0 != n || Some(payload) != expected {
            return Err(format!("record {n} is {offset}: {payload:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

#[test]
fn a_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    Cuts::over(SEEDS).run(workload, check).holds("bus log");
}

#[test]
fn a_second_cut_while_opening_loses_nothing_either() {
    let recover = |disk: &SimDisk| {
        let _ = Log::open(disk.shared(), Path::new(DIR), SMALL);
    };
    Cuts::over(SEEDS)
        .recovering(&recover)
        .run(workload, check)
        .holds("bus log, cut again while opening");
}

/// Room for some segments only: groups are refused by the disk in the middle, and the log goes on.
fn cramped_workload(disk: &SimDisk) -> Promised {
    let mut promised = Promised::default();
    let _ = run_cramped(disk, &mut promised);
    promised
}

fn run_cramped(disk: &SimDisk, promised: &mut Promised) -> Result<(), LogError> {
    disk.set_capacity(1800);
    let mut log = Log::open(disk.shared(), Path::new(DIR), SMALL)?;
    let mut refused = 0;
    for round in 0..30_u8 {
        // Different bytes at each try, so that what was refused would be noticed if it came back.
        let len = 30 + 37 * usize::from(round % 5);
        if !promised.commit(&mut log, vec![vec![round; len]; 1 + usize::from(round % 3)])? {
            refused += 1;
            if refused % 2 == 0 {
                promised.trim(&mut log, promised.committed.len() as u64 - 1)?;
            }
        }
    }
    assert!(refused > 4, "the disk was full {refused} times");
    Ok(())
}

#[test]
fn a_cut_on_a_full_disk_brings_back_nothing_that_was_refused() {
    Cuts::over(SEEDS).run(cramped_workload, check).holds("bus log, full disk");
}

#[test]
fn a_segment_that_could_not_be_begun_does_not_come_back() {
    // The new segment's header has no room. A smaller group then goes to the segment before, behind the record that
    // would have been the new one's first.
    let workload = |disk: &SimDisk| {
        let mut promised = Promised::default();
        let _ = run_into_a_full_roll(disk, &mut promised);
        promised
    };
    Cuts::over(SEEDS).run(workload, check).holds("bus log, no room for a segment");
}

fn run_into_a_full_roll(disk: &SimDisk, promised: &mut Promised) -> Result<(), LogError> {
    let mut log = Log::open(disk.shared(), Path::new(DIR), SMALL)?;
    promised.commit(&mut log, vec![vec![1; 400]])?;
    disk.set_capacity(log.bytes() + 20);
    assert!(!promised.commit(&mut log, vec![vec![2; 200]])?);
    disk.set_capacity(u64::MAX);
    promised.commit(&mut log, vec![vec![3; 30]])?;
    promised.commit(&mut log, vec![vec![4; 200]])?;
    Ok(())
}

#[test]
fn a_segment_that_was_made_again_can_be_cut_again() {
    let workload = |disk: &SimDisk| {
        let mut promised = Promised::default();
        let _ = run_from_a_cut_roll(disk, &mut promised);
        promised
    };
    Cuts::over(SEEDS).run(workload, check).holds("bus log, a segment made again");
}

fn run_from_a_cut_roll(disk: &SimDisk, promised: &mut Promised) -> Result<(), LogError> {
    let mut log = Log::open(disk.shared(), Path::new(DIR), SMALL)?;
    promised.commit(&mut log, group(0, 3))?;
    drop(log);
    // As a cut leaves it that was made just after the new segment's name.
    let _ = disk.create(&Path::new(DIR).join("00000000000000000003.log"));
    let mut log = Log::open(disk.shared(), Path::new(DIR), SMALL)?;
    promised.commit(&mut log, group(3, 2))?;
    promised.commit(&mut log, group(5, 2))?;
    Ok(())
}

#[test]
fn a_disk_whose_sync_does_nothing_fails_this_test() {
    // INV-ACK-1: the tests above are worth something only if they notice this.
    let report = Cuts::over(SEEDS).on(SyncMode::Lies).run(workload, check);
    println!(
        "bus log, sync does nothing: {} of {} runs lose records",
        report.broken.len(),
        report.runs
    );
    assert!(report.broken.len() as u64 > report.runs / 4, "{report:?}");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_what_was_is_kept() {
    let mut points = 0;
    for seed in SEEDS {
        let disk = SimDisk::new(seed);
        workload(&disk);
        let operations = disk.operations();
        for operation in 0..operations {
            let modes = [SyncMode::FailsFrom(operation), SyncMode::FailsOnceAt(operation)];
            for (mode, come_back) in modes.into_iter().flat_map(|mode| {
                // Another process on the same machine still sees what the failed sync gave up.
                [(mode, SimDisk::reboot as fn(&SimDisk)), (mode, SimDisk::restart)]
            }) {
                let disk = SimDisk::new(seed);
                disk.set_sync_mode(mode);
                let promised = workload_that_does_not_stop(&disk);
                disk.set_sync_mode(SyncMode::Honest);
                disk.cut_now();
                come_back(&disk);
                if let Err(what) = check(&disk, promised) {
                    panic!("seed {seed}, {mode:?}: {what}");
                }
            }
        }
        points = operations;
    }
    println!("bus log, failing syncs: {points} points, {} seeds", SEEDS.count());
}

/// As `run`, with a caller who goes on after an error as if nothing had been.
fn workload_that_does_not_stop(disk: &SimDisk) -> Promised {
    let mut promised = Promised::default();
    let Ok(mut log) = Log::open(disk.shared(), Path::new(DIR), SMALL) else { return promised };
    let mut failed = false;
    for round in 0..20 {
        let next = promised.committed.len() as u64;
        let result = match round % 5 {
            4 => promised.trim(&mut log, next / 2),
            len if !failed => promised.commit(&mut log, group(next, len)).map(|_| ()),
            _ => log.append(b"more").and_then(|_| log.commit()).map(|_| ()),
        };
        match result {
            Ok(()) => assert!(!failed, "a poisoned log takes nothing"),
            Err(LogError::Poisoned { .. }) => assert!(failed),
            Err(LogError::Io { attempt: "sync", .. }) => failed = true,
            Err(e) => panic!("{e}"),
        }
        assert_eq!(log.is_poisoned(), failed);
    }
    promised
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    for seed in SEEDS {
        let outcome = |operation| {
            let disk = SimDisk::new(seed);
            disk.set_cut(disk::Cut::At(operation));
            workload(&disk);
            disk.reboot();
            let log = open(&disk);
            (log.first(), log.end(), read_all(&log.reader()).unwrap())
        };
        assert_eq!(outcome(40), outcome(40));
    }
}
