//! Cut at every write: of the disk, and on both sides of every step of the catalog.
//!
//! A shard's work is cut at each operation, by power and by death of the process; the next process is cut once more at an
//! operation of its own; the one after that goes on to the end. Then every reading, loss and message in quarantine is in
//! the files exactly once, and the shard remembers what it would have remembered without cuts.

use crate::files;
use crate::plant::{
    Device, SMALL, START_US, bus_of, entry, judged, on_bus, parts, reading, readings, run_to_end,
};
use bus::LogReader;
use disk::{Cut, Cuts, Death, Disk, SimDisk, SyncMode};
use model::uplink::QuarantineReason;
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::catalog::{Catalog, MemoryCatalog};
use store::memory::Memory;
use store::shard::Shard;

/// Six devices, repeats, disorder, restarts, a change of keys, losses, and what does not belong.
fn records() -> Vec<Vec<u8>> {
    let mut devices: Vec<_> = (0..6).map(|n| Device::new(&format!("pump-{n}"), n + 1)).collect();
    let mut late = Vec::new();
    let mut records = Vec::new();
    for round in 0..8i64 {
        let mut entries = Vec::new();
        for (n, device) in devices.iter_mut().enumerate() {
            let from = START_US + round * 20_000_000 + n as i64;
            let message = match (round, n) {
                (3, 1) => {
                    let dropped = device.next.sequence;
                    device.next.sequence += 2;
                    device.state_lost(dropped, dropped + 1)
                }
                (4, 2) => device.seal(&[
                    reading("door", from, true),
                    reading("starts", from, 41),
                    reading("state", from, "running"),
                ]),
                _ => device.seal(&readings("t", from, 1 + n % 3)),
            };
            match (round, n) {
                (2, 0) | (3, 0) => late.push(device.entry(message)),
                (5, 3) => {
                    let mut broken = message;
                    broken.truncate(40);
                    entries.push(device.entry(broken));
                }
                (6, 4) => {
                    entries.push(judged(device.entry(message), QuarantineReason::UnknownKey));
                }
                (_, 5) => {
                    // Handed up twice: within a batch, and in the next one.
                    entries.push(device.entry(message.clone()));
                    entries.push(device.entry(message.clone()));
                    late.push(device.entry(message));
                }
                _ => entries.push(device.entry(message)),
            }
            match (round, n) {
                (4, 0) => device.restart(),
                (4, 1) => device.rotate(50),
                _ => {}
            }
        }
        if round % 3 == 2 {
            late.reverse();
            entries.append(&mut late);
        }
        records.push(on_bus(entries));
    }
    // Under a counter that was taken: another message.
    let mut forger = Device::new("pump-3", 4);
    let forged = forger.seal(&readings("t", START_US, 9));
    records.push(on_bus(vec![entry(&forger.id, forged)]));
    records
}

/// What a store holds in the end.
#[derive(Debug, PartialEq)]
struct Held {
    readings: Vec<String>,
    losses: Vec<String>,
    quarantine: Vec<String>,
    rollup: Vec<String>,
    memory: Memory,
}

/// By a plain scan of the files: no catalog.
fn held(disk: &SimDisk, memory: Memory) -> Result<Held, String> {
    let rows = |table| files::rows(disk, table);
    Ok(Held {
        readings: rows("readings")?,
        losses: rows("losses")?,
        quarantine: rows("quarantine")?,
        rollup: files::merged_rollup(disk)?,
        memory,
    })
}

fn catalog_on(disk: &SimDisk) -> MemoryCatalog {
    let (disk, calls) = (disk.clone(), AtomicU64::new(0));
    // Both sides of a step are operations too, so that they are counted and cut like all others.
    MemoryCatalog::new(1).with_hook(move |_| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        disk.create(Path::new(&format!("/step-{call}"))).map(drop)
    })
}

fn work(disk: &SimDisk, catalog: &MemoryCatalog, bus: &LogReader) -> Result<Memory, String> {
    let parts = parts(disk.shared(), Arc::new(catalog.clone()), SMALL);
    let mut shard = Shard::open(parts, 0, bus.clone()).map_err(|e| e.to_string())?;
    run_to_end(&mut shard).map_err(|e| e.to_string())?;
    Ok(shard.memory().clone())
}

fn check(
    disk: &SimDisk,
    catalog: &MemoryCatalog,
    bus: &LogReader,
    whole: &Held,
) -> Result<(), String> {
    let memory = work(disk, catalog, bus)?;
    let known: Vec<String> =
        catalog.files().unwrap().iter().map(|file| file.name.to_string()).collect();
    let mut found = disk.list(Path::new("/store/files")).unwrap();
    found.sort();
    if known.len() != found.len() || !known.iter().all(|name| found.contains(name)) {
        return Err(format!("the catalog knows {known:?}, the directory has {found:?}"));
    }
    let held = held(disk, memory)?;
    if held == *whole { Ok(()) } else { Err(format!("found {held:#?}, expected {whole:#?}")) }
}

fn whole(bus: &LogReader) -> Held {
    let disk = SimDisk::new(0);
    let memory = work(&disk, &catalog_on(&disk), bus).unwrap();
    held(&disk, memory).unwrap()
}

#[test]
fn the_workload_has_everything_in_it() {
    let bus = bus_of(&records());
    let whole = whole(&bus);
    assert_eq!(whole.readings.len(), 91);
    assert_eq!(whole.losses.len(), 1);
    let reasons = ["malformed", "unknown_key", "equivocation"];
    assert_eq!(whole.quarantine.len(), reasons.len(), "{:#?}", whole.quarantine);
    for reason in reasons {
        assert!(whole.quarantine.iter().any(|row| row.contains(reason)), "{reason}");
    }
    let mut unique = whole.readings.clone();
    unique.dedup();
    assert_eq!(unique, whole.readings, "no reading is there twice");
}

#[test]
fn inv_replay_1_inv_ack_1_a_cut_at_any_write_or_step_leaves_every_reading_once() {
    let bus = bus_of(&records());
    let whole = whole(&bus);
    let again = Cell::new(0);
    let report = disk::cut_everywhere(
        0..3,
        |disk| {
            let catalog = catalog_on(disk);
            let _ = work(disk, &catalog, &bus);
            catalog
        },
        |disk, catalog| {
            // The next process dies too, at an operation that changes from run to run, or at its end.
            again.set(again.get() + 1);
            disk.set_cut(Cut::At(again.get() * 7 % 101));
            let _ = work(disk, &catalog, &bus);
            disk.cut_now();
            disk.reboot();
            check(disk, &catalog, &bus, &whole)
        },
    );
    report.holds("store: files, memory and steps of a shard");
}

#[test]
fn inv_ack_1_a_disk_that_lies_about_sync_is_found_out() {
    let bus = bus_of(&records());
    let whole = whole(&bus);
    let report = Cuts::over(0..1).on(SyncMode::Lies).run(
        |disk| {
            let catalog = catalog_on(disk);
            let _ = work(disk, &catalog, &bus);
            catalog
        },
        |disk, catalog| check(disk, &catalog, &bus, &whole),
    );
    println!(
        "store: {} of {} runs on a lying disk lost something",
        report.broken.len(),
        report.runs
    );
    let by_power = report.broken.iter().filter(|broken| broken.death == Death::PowerCut);
    assert!(by_power.count() > 0, "a promise that survives a lying disk was not tested");
}
