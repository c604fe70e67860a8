//! `replace`, cut at every operation: the old file or the new one, whole.

use disk::{Cuts, Disk, SimDisk, SyncMode};
use std::path::Path;

const SEEDS: std::ops::Range<u64> = 0..40;

fn content(n: u8) -> Vec<u8> {
    // Longer and shorter by turns, of several sectors, every byte telling which one it is.
    vec![n; if n.is_multiple_of(2) { 1300 } else { 2100 }]
}

/// Returns the last content that was promised.
fn workload(disk: &SimDisk) -> u8 {
    let path = Path::new("/dir/state");
    let replaced = |n: &u8| disk::replace(disk, path, &content(*n)).is_ok();
    if disk.create_dir_all(Path::new("/dir")).is_err() {
        return 0;
    }
    (1..=5).take_while(replaced).last().unwrap_or(0)
}

fn check(disk: &SimDisk, promised: u8) -> Result<(), String> {
    let path = Path::new("/dir/state");
    let found = match disk.read(path, 10_000) {
        Ok(bytes) => bytes,
        Err(_) if promised == 0 => return Ok(()),
        Err(e) => return Err(format!("{promised} was promised: {e}")),
    };
    let n = found.first().copied().unwrap_or(0);
    if found != content(n) || !(promised..=promised + 1).contains(&n) {
        return Err(format!("{promised} was promised, found {} bytes of {n}", found.len()));
    }
    // Whatever was left beside it does not hinder the next one.
    disk::replace(disk, path, &content(9)).map_err(|e| e.to_string())?;
    disk.cut_now();
    disk.reboot();
    match disk.read(path, 10_000) {
        Ok(bytes) if bytes == content(9) => Ok(()),
        other => Err(format!("replaced once more, found {other:?}")),
    }
}

#[test]
fn a_cut_at_any_operation_leaves_the_old_file_or_the_new_one_whole() {
    Cuts::over(SEEDS).run(workload, check).holds("replace");
}

#[test]
fn a_disk_whose_sync_does_nothing_fails_this_test() {
    // INV-ACK-1
    let report = Cuts::over(SEEDS).on(SyncMode::Lies).run(workload, check);
    println!(
        "replace, sync does nothing: {} of {} runs break it",
        report.broken.len(),
        report.runs
    );
    assert!(report.broken.len() as u64 > report.runs / 4);
}

#[test]
fn a_replace_that_finds_no_space_leaves_the_old_file_and_no_other() {
    let disk = SimDisk::new(1);
    let path = Path::new("/state");
    disk::replace(&disk, path, &content(1)).unwrap();
    disk.set_capacity(2500);
    let e = disk::replace(&disk, path, &content(2)).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(disk.read(path, 10_000).unwrap(), content(1));
    assert_eq!(disk.list(Path::new("/")).unwrap(), ["state"]);
}
