//! The consumer of one shard, on a disk and a catalog in memory.

use crate::plant::{
    Device, NOW, SMALL, START_US, bus_of, names, on_bus, parts, readings, run_to_end,
};
use disk::{Disk, SimDisk, SyncMode};
use model::Timestamp;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::StoreError;
use store::catalog::{Catalog, CommitPoint, MemoryCatalog};
use store::shard::{Flushed, Now, Parts, Shard};

fn records(n: usize) -> Vec<Vec<u8>> {
    let mut device = Device::new("pump-7", 1);
    let record = |_| {
        let message = device.seal(&readings("t", START_US, 10));
        on_bus(vec![device.entry(message)])
    };
    (0..n).map(record).collect()
}

fn violations(parts: &Parts, invariant: &str) -> u64 {
    parts.metrics.violations.with_label_values(&[invariant]).get()
}

#[test]
fn inv_auth_1_a_record_without_uplinks_mac_stops_the_shard_and_nothing_of_it_is_taken() {
    let good = records(3);
    for at in [0, 31, 32, good[1].len() - 1] {
        let mut records = good.clone();
        records[1][at] ^= 1;
        let disk = SimDisk::new(1);
        let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
        let mut shard = Shard::open(parts.clone(), 0, bus_of(&records)).unwrap();
        let error = shard.take_in(NOW).unwrap_err();
        assert!(matches!(error, StoreError::BadMac { shard: 0, offset: 1 }), "{error}");
        assert_eq!(
            error.to_string(),
            "shard 0: record 1 on the bus does not carry the MAC of uplink's key; nothing of it was taken"
        );
        assert_eq!(violations(&parts, "INV-AUTH-1"), 1);
        assert_eq!(shard.next().0, 1);
    }
    let parts = parts(SimDisk::new(1).shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
    run_to_end(&mut Shard::open(parts.clone(), 0, bus_of(&good)).unwrap()).unwrap();
    assert_eq!(violations(&parts, "INV-AUTH-1"), 0);
}

#[test]
fn a_record_that_is_shorter_than_a_mac_stops_the_shard() {
    let parts = parts(SimDisk::new(1).shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
    let mut shard = Shard::open(parts, 0, bus_of(&[b"short".to_vec()])).unwrap();
    let error = shard.take_in(NOW).unwrap_err();
    assert!(matches!(error, StoreError::BadMac { shard: 0, offset: 0 }), "{error}");
}

#[test]
fn a_batch_of_an_unknown_version_stops_the_shard() {
    let mut batch = crate::plant::batch(vec![]).encode();
    assert_eq!(batch[1], 1, "the version");
    batch[1] = 2;
    let record = [crate::plant::mac().tag(&batch).as_slice(), &batch].concat();
    let parts = parts(SimDisk::new(1).shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
    let mut shard = Shard::open(parts, 0, bus_of(&[record])).unwrap();
    let error = shard.take_in(NOW).unwrap_err();
    assert!(matches!(error, StoreError::BadBatch { shard: 0, offset: 0, .. }), "{error}");
}

#[test]
fn repeats_alone_are_committed_and_make_no_file() {
    let disk = SimDisk::new(1);
    let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
    let one = records(1);
    let mut shard =
        Shard::open(parts.clone(), 0, bus_of(&[one[0].clone(), one[0].clone()])).unwrap();
    run_to_end(&mut shard).unwrap();
    assert_eq!(shard.place().offset, 2);
    let again = bus_of(&[one[0].clone(), one[0].clone(), one[0].clone()]);
    let mut shard = Shard::open(parts.clone(), 0, again).unwrap();
    run_to_end(&mut shard).unwrap();
    assert_eq!(shard.place().offset, 3);
    assert_eq!(names(&disk, "readings").len(), 1);
    assert_eq!(parts.metrics.messages.with_label_values(&["repeat"]).get(), 2);
    assert_eq!(parts.metrics.messages.with_label_values(&["new"]).get(), 1);
}

#[test]
fn a_flush_is_due_by_rows_by_bytes_or_by_age() {
    let at = |seconds| Now { uptime: Duration::from_secs(seconds), wall: NOW.wall };
    let open = |flush| {
        let parts = parts(SimDisk::new(1).shared(), Arc::new(MemoryCatalog::new(1)), flush);
        Shard::open(parts, 0, bus_of(&records(2))).unwrap()
    };
    let mut by_age = open(SMALL);
    assert!(!by_age.is_due(at(1_000_000)) && by_age.due_at().is_none(), "there is nothing");
    by_age.take_in(at(10)).unwrap();
    assert_eq!(by_age.due_at(), Some(Duration::from_secs(310)));
    assert!(!by_age.is_due(at(309)) && by_age.is_due(at(310)));
    let mut by_rows = open(store::FlushBounds { rows_max: 20, ..SMALL });
    by_rows.take_in(at(10)).unwrap();
    assert!(by_rows.is_due(at(10)));
    let mut by_bytes = open(store::FlushBounds { bytes_max: 1000, ..SMALL });
    by_bytes.take_in(at(10)).unwrap();
    assert!(by_bytes.is_due(at(10)));
    assert_eq!(by_bytes.next().0, 1, "it takes in no more than it may hold");
    by_bytes.flush(at(10)).unwrap();
    assert!(!by_bytes.is_due(at(10)) && by_bytes.due_at().is_none());
}

#[test]
fn inv_replay_1_of_two_consumers_of_a_shard_only_the_later_one_commits() {
    let disk = SimDisk::new(1);
    let catalog = MemoryCatalog::new(1);
    let parts = || parts(disk.shared(), Arc::new(catalog.clone()), SMALL);
    let bus = bus_of(&records(2));
    let mut zombie = Shard::open(parts(), 0, bus.clone()).unwrap();
    zombie.take_in(NOW).unwrap();
    let mut heir = Shard::open(parts(), 0, bus.clone()).unwrap();
    heir.take_in(NOW).unwrap();
    let error = zombie.flush(NOW).unwrap_err();
    assert!(matches!(error, StoreError::TakenOver { shard: 0, held: 1, found: 2 }), "{error}");
    assert_eq!(names(&disk, "readings"), Vec::<String>::new(), "it took its work away");
    heir.flush(NOW).unwrap();
    assert_eq!(names(&disk, "readings"), ["readings-0-000000000000-000000000001-2.parquet"]);
    // A third one finds all of it, and nothing else.
    let third = Shard::open(parts(), 0, bus).unwrap();
    assert_eq!(third.place().offset, 2);
    assert_eq!(catalog.files().unwrap().len(), 2, "readings and their rollup");
}

/// The worst moment: its files are written, and it is about to commit them.
#[test]
fn inv_replay_1_a_consumer_that_is_replaced_just_before_its_step_commits_nothing() {
    let disk = SimDisk::new(1);
    let catalog = MemoryCatalog::new(1);
    let bus = bus_of(&records(2));
    let heir: Arc<Mutex<Option<Shard>>> = Arc::default();
    let hooked = {
        let (disk, catalog, bus, heir) = (disk.clone(), catalog.clone(), bus.clone(), heir.clone());
        catalog.clone().with_hook(move |point| {
            if point == CommitPoint::Before {
                let parts = parts(disk.shared(), Arc::new(catalog.clone()), SMALL);
                *heir.lock().unwrap() = Some(Shard::open(parts, 0, bus.clone()).unwrap());
            }
            Ok(())
        })
    };
    let parts = parts(disk.shared(), Arc::new(hooked), SMALL);
    let mut zombie = Shard::open(parts.clone(), 0, bus).unwrap();
    zombie.take_in(NOW).unwrap();
    let error = zombie.flush(NOW).unwrap_err();
    assert!(matches!(error, StoreError::TakenOver { held: 1, found: 2, .. }), "{error}");
    assert_eq!(parts.metrics.lost_places.get(), 1);
    assert!(parts.shelf.snapshot().fresh(store::Table::Readings).is_empty());
    let mut heir = heir.lock().unwrap().take().unwrap();
    run_to_end(&mut heir).unwrap();
    assert_eq!(names(&disk, "readings"), ["readings-0-000000000000-000000000001-2.parquet"]);
}

#[test]
fn inv_ack_1_after_a_failed_sync_nothing_is_committed_and_the_next_process_has_it_all() {
    let whole = {
        let disk = SimDisk::new(1);
        let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
        disk.set_cut(disk::Cut::Never);
        run_to_end(&mut Shard::open(parts, 0, bus_of(&records(2))).unwrap()).unwrap();
        disk.operations()
    };
    let mut failures = 0;
    for operation in 0..whole {
        let disk = SimDisk::new(operation);
        let catalog = MemoryCatalog::new(1);
        let bus = bus_of(&records(2));
        let parts = || parts(disk.shared(), Arc::new(catalog.clone()), SMALL);
        let mut shard = Shard::open(parts(), 0, bus.clone()).unwrap();
        disk.set_cut(disk::Cut::Never);
        disk.set_sync_mode(SyncMode::FailsOnceAt(operation));
        if let Err(error) = run_to_end(&mut shard) {
            assert!(matches!(error, StoreError::Disk { .. }), "{error}");
            assert_eq!(catalog.files().unwrap(), vec![], "operation {operation}");
            failures += 1;
        }
        disk.cut_now();
        disk.reboot();
        disk.set_sync_mode(SyncMode::Honest);
        run_to_end(&mut Shard::open(parts(), 0, bus).unwrap()).unwrap();
        assert_eq!(names(&disk, "readings").len(), 1);
    }
    assert!(failures >= 5, "only {failures} syncs failed");
}

#[test]
fn a_full_disk_loses_nothing_and_takes_in_nothing_until_there_is_room() {
    let disk = SimDisk::new(1);
    let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
    let mut shard = Shard::open(parts.clone(), 0, bus_of(&records(9))).unwrap();
    shard.take_in(NOW).unwrap();
    disk.set_capacity(700);
    assert_eq!(shard.flush(NOW).unwrap(), Flushed::NoRoom);
    assert_eq!(parts.metrics.no_room.with_label_values(&["0"]).get(), 1);
    let taken_in = shard.next();
    assert!(!shard.take_in(NOW).unwrap());
    assert_eq!(shard.next(), taken_in);
    assert!(!shard.is_due(NOW));
    assert_eq!(shard.due_at(), Some(Duration::from_secs(10)));
    let later = Now { uptime: Duration::from_secs(10), wall: NOW.wall };
    assert!(shard.is_due(later));
    disk.set_capacity(u64::MAX);
    assert_eq!(shard.flush(later).unwrap(), Flushed::Done { trim_below: None });
    assert_eq!(parts.metrics.no_room.with_label_values(&["0"]).get(), 0);
    run_to_end(&mut shard).unwrap();
    assert_eq!(shard.place().offset, 9);
}

#[test]
fn what_the_catalog_does_not_name_is_removed_at_start_and_what_is_not_ours_stays() {
    let disk = SimDisk::new(1);
    let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(2)), SMALL);
    let bus = bus_of(&records(2));
    run_to_end(&mut Shard::open(parts.clone(), 0, bus.clone()).unwrap()).unwrap();
    let kept = [
        "files/readings-0-000000000000-000000000001-1.parquet",
        "files/readings-1-000000000002-000000000005-1.parquet",
        "files/notes.txt",
        "taken/shard-1-000000000002-1.taken",
        "taken/shard-0-000000000002-1.taken",
    ];
    let orphans = [
        "files/readings-0-000000000002-000000000005-1.parquet",
        "files/readings_1m-0-000000000002-000000000005-1.parquet.new",
        "taken/shard-0-000000000005-1.taken",
        "taken/shard-0-000000000007-1.taken.new",
    ];
    let dir = Path::new("/store");
    for name in kept.iter().chain(&orphans) {
        if !disk.exists(&dir.join(name)).unwrap() {
            disk.create(&dir.join(name)).unwrap();
        }
    }
    Shard::open(parts.clone(), 0, bus).unwrap();
    for name in kept {
        assert!(disk.exists(&dir.join(name)).unwrap(), "{name}");
    }
    for name in orphans {
        assert!(!disk.exists(&dir.join(name)).unwrap(), "{name}");
    }
    assert_eq!(parts.metrics.orphans.get(), 4);
}

#[test]
fn inv_ack_1_a_store_that_lost_a_file_does_not_open() {
    let disk = SimDisk::new(1);
    let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
    let bus = bus_of(&records(2));
    run_to_end(&mut Shard::open(parts.clone(), 0, bus.clone()).unwrap()).unwrap();
    let name = "readings-0-000000000000-000000000001-1.parquet";
    disk.remove(&Path::new("/store/files").join(name)).unwrap();
    let error = Shard::open(parts.clone(), 0, bus).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "the catalog names `{name}`, which is not in `/store/files`: acknowledged readings are missing"
        )
    );
    assert_eq!(violations(&parts, "INV-ACK-1"), 1);
}

#[test]
fn inv_replay_1_a_shard_whose_memory_is_damaged_or_gone_does_not_open() {
    for is_gone in [false, true] {
        let disk = SimDisk::new(1);
        let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
        let bus = bus_of(&records(2));
        run_to_end(&mut Shard::open(parts.clone(), 0, bus.clone()).unwrap()).unwrap();
        let path = Path::new("/store/taken/shard-0-000000000002-1.taken");
        let mut bytes = disk.read(path, 1 << 20).unwrap();
        disk.remove(path).unwrap();
        if !is_gone {
            *bytes.last_mut().unwrap() ^= 1;
            disk.create(path).unwrap().append(&bytes).unwrap();
        }
        let error = Shard::open(parts.clone(), 0, bus).err().unwrap();
        match is_gone {
            true => assert!(matches!(error, StoreError::Disk { attempt: "read", .. }), "{error}"),
            false => assert!(matches!(error, StoreError::BadTaken { .. }), "{error}"),
        }
        assert_eq!(violations(&parts, "INV-REPLAY-1"), 1);
    }
}

#[test]
fn inv_ack_1_a_bus_that_is_not_the_one_that_was_read_is_refused() {
    let disk = SimDisk::new(1);
    let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), SMALL);
    run_to_end(&mut Shard::open(parts.clone(), 0, bus_of(&records(5))).unwrap()).unwrap();
    let mut shard = Shard::open(parts.clone(), 0, bus_of(&records(4))).unwrap();
    let error = shard.take_in(NOW).unwrap_err();
    assert!(matches!(error, StoreError::Bus { shard: 0, .. }), "{error}");
    assert_eq!(violations(&parts, "INV-ACK-1"), 1);
}

#[test]
fn the_bus_is_trimmed_below_what_was_committed_longer_ago_than_it_is_kept() {
    let disk = SimDisk::new(1);
    let catalog = MemoryCatalog::new(1);
    let parts = || parts(disk.shared(), Arc::new(catalog.clone()), SMALL);
    let bus = bus_of(&records(9));
    let at = |minutes: u64| Now {
        uptime: Duration::from_secs(60 * minutes),
        wall: Timestamp(START_US + 60_000_000 * minutes as i64),
    };
    let mut shard = Shard::open(parts(), 0, bus.clone()).unwrap();
    let flush = |shard: &mut Shard, minutes| {
        shard.take_in(at(minutes)).unwrap();
        match shard.flush(at(minutes)).unwrap() {
            Flushed::Done { trim_below } => trim_below.map(|offset| offset.0),
            Flushed::NoRoom => panic!("there is room"),
        }
    };
    assert_eq!(flush(&mut shard, 0), None);
    assert_eq!(flush(&mut shard, 60), None, "an hour is kept");
    // Another process knows it too.
    let mut shard = Shard::open(parts(), 0, bus).unwrap();
    assert_eq!(shard.place().offset, 6);
    assert_eq!(flush(&mut shard, 61), Some(3), "the first step is older than an hour");
    assert_eq!(catalog.marks(0).unwrap().len(), 2);
}
