//! INV-EVID-1: the power is cut, or the process killed, at every operation of a workload that begins a log, grows it over
//! tiles and opens it again. What a returned checkpoint covers is there afterwards, with its bytes; the log is no fork of
//! what anybody was shown; and it takes the rest again, at the same numbers.

use crate::{DIR, ORIGIN, event, signer, try_open};
use disk::{Cuts, SimDisk, SyncMode};
use evidence::{Hash, Head, Log, LogError, merkle};
use std::path::Path;
use std::sync::LazyLock;

const SEEDS: std::ops::Range<u64> = 0..6;

/// How many events there are in the end.
const EVENTS: u64 = 262;

#[derive(Clone, Debug, Default)]
struct Promised {
    /// Of every checkpoint that was returned.
    heads: Vec<Head>,
    /// How many events were given to the log, covered or not.
    appended: u64,
}

impl Promised {
    fn newest(&self) -> Option<Head> {
        self.heads.last().copied()
    }
}

/// Stops at the first error.
fn workload(disk: &SimDisk) -> Promised {
    let mut promised = Promised::default();
    let _ = run(disk, &mut promised);
    promised
}

fn run(disk: &SimDisk, promised: &mut Promised) -> Result<(), LogError> {
    // The first group is long, so that the small ones behind it cross the end of a tile.
    let groups: [&[u64]; 3] = [&[1, 2, 247], &[3, 3], &[1, 3, 2]];
    for groups in groups {
        let mut log = try_open(disk.shared(), promised.newest())?;
        for group in groups {
            for n in log.next()..log.next() + group {
                log.append(&event(n))?;
                promised.appended = n + 1;
            }
            promised.heads.push(log.checkpoint()?.head());
        }
    }
    assert_eq!(promised.appended, EVENTS);
    Ok(())
}

/// What must hold when the next process opens the log.
fn check(disk: &SimDisk, promised: Promised) -> Result<(), String> {
    let tell = |e: LogError| model::told(&e);
    let mut log = try_open(disk.shared(), promised.newest()).map_err(tell)?;
    let found = log.reader().checkpoint().head();
    let least = promised.newest().map_or(0, |head| head.size);
    if found.size < least || found.size > promised.appended {
        return Err(format!("{least}..={} events, found {found}", promised.appended));
    }
    check_events(&log, found.size)?;

    // What was not covered is given to it again, and what was a little once more: nothing changes.
    for n in found.size.saturating_sub(2)..EVENTS {
        log.append(&event(n)).map_err(tell)?;
    }
    let newest = log.checkpoint().map_err(tell)?.head();
    disk.cut_now();
    disk.reboot();
    let log = try_open(disk.shared(), Some(newest)).map_err(tell)?;
    check_events(&log, EVENTS)?;
    for head in promised.heads.iter().chain([&found]) {
        let (checkpoint, proof) = log.reader().consistency(head.size).map_err(tell)?;
        let new = checkpoint.head();
        merkle::verify_consistency((head.size, &head.root), (new.size, &new.root), &proof)
            .map_err(|_| format!("{new} does not continue {head}"))?;
    }
    Ok(())
}

fn check_events(log: &Log, size: u64) -> Result<(), String> {
    static LEAVES: LazyLock<Vec<Hash>> =
        LazyLock::new(|| (0..EVENTS).map(|n| event(n).hash()).collect());
    let Ok(root) = merkle::root(&LEAVES[..], size);
    let head = log.reader().checkpoint().head();
    if head != (Head { size, root }) {
        return Err(format!("expected {size} events and root {root}, found {head}"));
    }
    // The newest, the oldest, and around the end of the first tile.
    for n in [0, size / 2, 254, 255, 256, size.saturating_sub(1)] {
        if n < size && log.reader().event(n).map_err(|e| model::told(&e))? != event(n) {
            return Err(format!("event {n} has other bytes"));
        }
    }
    Ok(())
}

#[test]
fn a_cut_at_any_write_leaves_a_log_that_only_grew() {
    Cuts::over(SEEDS).run(workload, check).holds("evidence log");
}

#[test]
fn a_second_cut_while_it_is_taken_up_again_changes_nothing() {
    let recover = |disk: &SimDisk| {
        if let Ok(mut log) = Log::open(disk.shared(), Path::new(DIR), ORIGIN, signer(3), None) {
            let _ = (log.next()..EVENTS).try_for_each(|n| log.append(&event(n)).map(|_| ()));
            let _ = log.checkpoint();
        }
    };
    // The recovery may have covered more than the workload ever gave to it.
    let check =
        |disk: &SimDisk, promised: Promised| check(disk, Promised { appended: EVENTS, ..promised });
    Cuts::over(SEEDS).recovering(&recover).run(workload, check).holds("evidence log, cut again");
}

#[test]
fn a_disk_whose_sync_does_nothing_is_found_out_by_this_test() {
    let report = Cuts::over(SEEDS).on(SyncMode::Lies).run(workload, check);
    println!("{} of {} runs broke the promise", report.broken.len(), report.runs);
    assert!(!report.broken.is_empty(), "a promise that survives this was not tested");
}

/// Writes the checkpoint before what it covers: the fault that the order of writes is there to prevent.
#[test]
fn a_checkpoint_written_too_early_is_found_out_by_this_test() {
    let workload = |disk: &SimDisk| {
        let mut promised = Promised::default();
        let _ = run_wrongly(disk, &mut promised);
        promised
    };
    let report = Cuts::over(SEEDS).run(workload, check);
    println!("{} of {} runs broke the promise", report.broken.len(), report.runs);
    assert!(!report.broken.is_empty());
}

fn run_wrongly(disk: &SimDisk, promised: &mut Promised) -> Result<(), LogError> {
    // The checkpoint of 4 events comes from a log beside it, and is put in place before that log's events are.
    let beside = SimDisk::new(0);
    let mut ahead = try_open(beside.shared(), None)?;
    let mut log = try_open(disk.shared(), None)?;
    for n in 0..4 {
        ahead.append(&event(n))?;
        log.append(&event(n))?;
    }
    promised.appended = 4;
    let early = ahead.checkpoint()?;
    let path = Path::new(DIR).join("checkpoint");
    let _ = disk::replace(disk, &path, early.note().as_bytes());
    promised.heads.push(log.checkpoint()?.head());
    Ok(())
}
