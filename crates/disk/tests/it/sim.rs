//! The double is as bad as it says: each kind of loss happens for some seed, and what was synced is never touched.

use disk::{Cut, Disk, File, SimDisk, SyncMode};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

const SEEDS: std::ops::Range<u64> = 0..200;

fn path() -> &'static Path {
    Path::new("/file")
}

fn root() -> &'static Path {
    Path::new("/")
}

/// What a cut leaves of a file, for each seed.
fn outcomes(write: impl Fn(&SimDisk)) -> BTreeSet<Option<Vec<u8>>> {
    let outcome = |seed| {
        let disk = SimDisk::new(seed);
        write(&disk);
        disk.cut_now();
        disk.reboot();
        disk.read(path(), 1 << 20).ok()
    };
    SEEDS.map(outcome).collect()
}

fn synced(disk: &SimDisk, bytes: &[u8]) -> Box<dyn File> {
    let mut file = disk.create(path()).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(root()).unwrap();
    file
}

#[test]
fn what_was_synced_is_kept_for_every_seed() {
    let kept = outcomes(|disk| drop(synced(disk, &[7; 3000])));
    assert_eq!(kept, BTreeSet::from([Some(vec![7; 3000])]));
}

#[test]
fn bytes_that_were_not_synced_are_kept_lost_cut_short_zeroed_or_garbage() {
    let kept = outcomes(|disk| synced(disk, &[1; 700]).append(&[2; 3000]).unwrap());
    let kept: Vec<Vec<u8>> =
        kept.into_iter().map(|bytes| bytes.expect("the name was synced")).collect();
    assert!(kept.iter().all(|bytes| bytes.len() <= 3700 && bytes[..700] == [1; 700]));
    let fresh = |has: &dyn Fn(&[u8]) -> bool| kept.iter().any(|bytes| has(&bytes[700..]));
    assert!(fresh(&|fresh| fresh.is_empty()), "lost");
    assert!(fresh(&|fresh| fresh == [2; 3000]), "kept whole");
    assert!(fresh(&|fresh| !fresh.is_empty() && fresh.len() < 3000), "cut short");
    assert!(fresh(&|fresh| fresh.contains(&0)), "zeros");
    assert!(fresh(&|fresh| fresh.iter().any(|b| ![0, 2].contains(b))), "garbage");
    let hole = |fresh: &[u8]| {
        let lost = fresh.iter().position(|b| *b != 2).unwrap_or(fresh.len());
        fresh[lost..].windows(100).any(|bytes| bytes == [2; 100])
    };
    assert!(fresh(&hole), "whole sectors behind a lost one");
}

#[test]
fn a_sector_is_kept_or_lost_as_one() {
    for bytes in outcomes(|disk| synced(disk, &[]).append(&[2; 2048]).unwrap()) {
        for sector in bytes.expect("the name was synced").chunks(512) {
            assert!(
                sector.iter().all(|b| *b == 2) || sector.iter().filter(|b| **b == 2).count() < 40
            );
        }
    }
}

#[test]
fn a_cut_in_the_middle_of_a_sync_keeps_any_part() {
    let kept = outcomes(|disk| {
        let mut file = synced(disk, &[1; 10]);
        file.append(&[2; 2000]).unwrap();
        disk.set_cut(Cut::At(0));
        file.sync().unwrap_err();
    });
    let lens: BTreeSet<usize> = kept.iter().map(|bytes| bytes.as_ref().unwrap().len()).collect();
    assert!(lens.contains(&10) && lens.contains(&2010) && lens.len() > 10, "{lens:?}");
}

#[test]
fn an_append_that_is_cut_writes_any_part() {
    let seen: BTreeSet<u64> = SEEDS
        .map(|seed| {
            let disk = SimDisk::new(seed);
            let mut file = synced(&disk, &[]);
            disk.set_cut(Cut::At(0));
            file.append(&[2; 1000]).unwrap_err();
            // The process alone died: what it wrote is seen.
            disk.restart();
            disk.len(path()).unwrap()
        })
        .collect();
    assert!(seen.len() > 50 && *seen.last().unwrap() <= 1000);
}

#[test]
fn a_name_that_was_not_synced_is_kept_or_lost_and_a_synced_one_is_kept() {
    let create = |disk: &SimDisk| {
        let mut file = disk.create(path()).unwrap();
        file.append(b"a").unwrap();
        file.sync().unwrap();
    };
    assert_eq!(outcomes(create), BTreeSet::from([None, Some(b"a".to_vec())]));
    let remove = |disk: &SimDisk| {
        synced(disk, b"a");
        disk.remove(path()).unwrap();
    };
    assert_eq!(outcomes(remove), BTreeSet::from([None, Some(b"a".to_vec())]));
    let removed = |disk: &SimDisk| {
        synced(disk, b"a");
        disk.remove(path()).unwrap();
        disk.sync_dir(root()).unwrap();
    };
    assert_eq!(outcomes(removed), BTreeSet::from([None]));
}

#[test]
fn a_later_creation_may_be_kept_where_an_earlier_one_is_lost() {
    let only_second = |seed| {
        let disk = SimDisk::new(seed);
        disk.create(Path::new("/1")).unwrap();
        disk.create(Path::new("/2")).unwrap();
        disk.cut_now();
        disk.reboot();
        disk.list(root()).unwrap() == ["2"]
    };
    assert!(SEEDS.into_iter().any(only_second));
}

#[test]
fn a_file_that_was_created_and_removed_unsynced_may_be_back() {
    let create_and_remove = |disk: &SimDisk| {
        disk.create(path()).unwrap().append(b"a").unwrap();
        disk.remove(path()).unwrap();
    };
    let kept = outcomes(create_and_remove);
    assert!(kept.contains(&None) && kept.contains(&Some(b"a".to_vec())), "{kept:?}");
    let kept = outcomes(|disk| {
        create_and_remove(disk);
        disk.sync_dir(root()).unwrap();
    });
    assert_eq!(kept, BTreeSet::from([None]));
}

#[test]
fn bytes_that_were_appended_and_cut_off_unsynced_may_be_back() {
    let append_and_truncate = |disk: &SimDisk| {
        let mut file = synced(disk, &[1; 100]);
        file.append(&[2; 600]).unwrap();
        file.truncate(100).unwrap();
        file
    };
    let kept = outcomes(|disk| drop(append_and_truncate(disk)));
    let kept: Vec<Vec<u8>> = kept.into_iter().flatten().collect();
    assert!(kept.contains(&vec![1; 100]));
    assert!(kept.iter().any(|bytes| bytes[100..].contains(&2)), "back");
    assert!(kept.iter().all(|bytes| bytes[..100] == [1; 100]));
    let kept = outcomes(|disk| append_and_truncate(disk).sync().unwrap());
    assert_eq!(kept, BTreeSet::from([Some(vec![1; 100])]));
}

#[test]
fn a_rename_that_was_not_synced_may_be_lost_and_one_that_was_is_kept() {
    let put = |disk: &SimDisk, sync_first: bool| {
        synced(disk, b"old");
        let next = Path::new("/next");
        let mut file = disk.create(next).unwrap();
        file.append(b"new").unwrap();
        if sync_first {
            file.sync().unwrap();
        }
        disk.rename(next, path()).unwrap();
    };
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    let unsynced = outcomes(|disk| put(disk, true));
    assert_eq!(unsynced, BTreeSet::from([some(b"new"), some(b"old")]));
    let kept = outcomes(|disk| {
        put(disk, true);
        disk.sync_dir(root()).unwrap();
    });
    assert_eq!(kept, BTreeSet::from([some(b"new")]));
    // The name is durable, the bytes behind it are not.
    let empty = outcomes(|disk| {
        put(disk, false);
        disk.sync_dir(root()).unwrap();
    });
    assert!(empty.contains(&some(b"")) && empty.contains(&some(b"new")));
    assert!(!empty.contains(&some(b"old")));
}

#[test]
fn a_sync_of_one_directory_says_nothing_of_another() {
    let lost = |seed| {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("/a")).unwrap();
        disk.create_dir_all(Path::new("/b")).unwrap();
        disk.create(Path::new("/a/file")).unwrap();
        disk.sync_dir(Path::new("/b")).unwrap();
        disk.sync_dir(root()).unwrap();
        disk.cut_now();
        disk.reboot();
        !disk.exists(Path::new("/a/file")).unwrap()
    };
    assert!(SEEDS.into_iter().any(lost));
}

#[test]
fn a_directory_is_durable_once_it_is_made_and_cut_or_unsynced_may_be_lost_with_what_is_in_it() {
    for seed in SEEDS {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("/a/b")).unwrap();
        disk.cut_now();
        disk.reboot();
        assert!(disk.exists(Path::new("/a/b")).unwrap());
    }
    let found: BTreeSet<(bool, bool)> = SEEDS
        .map(|seed| {
            let disk = SimDisk::new(seed);
            // Made /a, synced it, making /a/b.
            disk.set_cut(Cut::At(2));
            disk.create_dir_all(Path::new("/a/b")).unwrap_err();
            disk.reboot();
            (disk.exists(Path::new("/a")).unwrap(), disk.exists(Path::new("/a/b")).unwrap())
        })
        .collect();
    assert_eq!(found, BTreeSet::from([(true, false), (true, true)]));
    // A process that was killed between the two left it unsynced: the next one syncs it, when it asks for it or for one
    // below it.
    for (seed, again) in SEEDS.flat_map(|seed| [(seed, "/a"), (seed, "/a/b")]) {
        let disk = SimDisk::new(seed);
        disk.set_cut(Cut::At(1));
        disk.create_dir_all(Path::new("/a")).unwrap_err();
        disk.restart();
        assert!(disk.exists(Path::new("/a")).unwrap());
        disk.create_dir_all(Path::new(again)).unwrap();
        disk.cut_now();
        disk.reboot();
        assert!(disk.exists(Path::new(again)).unwrap());
    }
    let lost = |seed| {
        let disk = SimDisk::new(seed);
        disk.set_sync_mode(SyncMode::Lies);
        disk.create_dir_all(Path::new("/a")).unwrap();
        disk.set_sync_mode(SyncMode::Honest);
        let mut file = disk.create(Path::new("/a/file")).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("/a")).unwrap();
        disk.cut_now();
        disk.reboot();
        assert_eq!(
            disk.exists(Path::new("/a")).unwrap(),
            disk.exists(Path::new("/a/file")).unwrap()
        );
        !disk.exists(Path::new("/a")).unwrap()
    };
    assert!(SEEDS.into_iter().any(lost));
}

#[test]
fn a_truncation_that_was_not_synced_may_be_undone_and_what_follows_it_is_torn() {
    let kept = outcomes(|disk| synced(disk, &[1; 2000]).truncate(100).unwrap());
    assert!(kept.contains(&Some(vec![1; 2000])) && kept.contains(&Some(vec![1; 100])));
    let kept = outcomes(|disk| {
        let mut file = synced(disk, &[1; 2000]);
        file.truncate(100).unwrap();
        file.sync().unwrap();
    });
    assert_eq!(kept, BTreeSet::from([Some(vec![1; 100])]));
    for longer in [1500, 5000] {
        let kept = outcomes(|disk| {
            let mut file = synced(disk, &[1; 2000]);
            file.truncate(100).unwrap();
            file.append(&vec![2; longer]).unwrap();
        });
        let kept: Vec<Vec<u8>> = kept.into_iter().flatten().collect();
        assert!(kept.contains(&vec![1; 2000]), "neither happened");
        assert!(kept.contains(&[vec![1; 100], vec![2; longer]].concat()), "both did");
        assert!(kept.iter().all(|bytes| bytes[..100] == [1; 100]), "what was not touched is kept");
        assert!(
            kept.iter().any(|bytes| bytes[100..].contains(&2) && bytes[100..].contains(&0)),
            "torn"
        );
    }
}

#[test]
fn handles_from_before_a_cut_fail_for_ever() {
    for come_back in [SimDisk::reboot, SimDisk::restart] {
        let disk = SimDisk::new(1);
        let mut file = synced(&disk, b"a");
        disk.cut_now();
        assert!(file.append(b"b").is_err() && file.sync().is_err() && file.len().is_err());
        come_back(&disk);
        assert!(file.append(b"b").is_err() && file.sync().is_err());
        assert!(file.truncate(0).is_err() && file.len().is_err());
        assert_eq!(disk.read(path(), 10).unwrap(), b"a");
        disk.open(path()).unwrap().append(b"c").unwrap();
        assert_eq!(disk.read(path(), 10).unwrap(), b"ac");
    }
}

#[test]
fn without_power_nothing_works_and_nothing_is_counted() {
    let disk = SimDisk::new(1);
    synced(&disk, b"a");
    let operations = disk.operations();
    disk.cut_now();
    assert!(!disk.is_on());
    assert!(disk.create(Path::new("/b")).is_err() && disk.open(path()).is_err());
    assert!(disk.read(path(), 10).is_err() && disk.len(path()).is_err());
    assert!(disk.list(root()).is_err() && disk.exists(path()).is_err());
    assert!(disk.rename(path(), Path::new("/b")).is_err() && disk.remove(path()).is_err());
    assert!(disk.create_dir_all(Path::new("/d")).is_err() && disk.sync_dir(root()).is_err());
    assert_eq!(disk.operations(), operations);
    disk.reboot();
    assert!(disk.is_on());
    assert_eq!((disk.operations(), disk.list(root()).unwrap()), (0, vec!["file".to_owned()]));
}

#[test]
fn a_restart_loses_nothing_and_makes_nothing_durable() {
    let lost = |seed| {
        let disk = SimDisk::new(seed);
        synced(&disk, b"a").append(b"b").unwrap();
        disk.cut_now();
        disk.restart();
        assert_eq!(disk.read(path(), 10).unwrap(), b"ab");
        disk.cut_now();
        disk.reboot();
        disk.read(path(), 10).unwrap() == b"a"
    };
    assert!(SEEDS.into_iter().any(lost));
}

#[test]
fn a_sync_that_lies_keeps_nothing_safe() {
    let kept = outcomes(|disk| {
        disk.set_sync_mode(SyncMode::Lies);
        synced(disk, &[1; 600]);
    });
    assert!(
        kept.contains(&None) && kept.contains(&Some(vec![])) && kept.contains(&Some(vec![1; 600]))
    );
}

#[test]
fn a_sync_that_failed_once_and_is_tried_again_has_lost_what_it_was_to_write() {
    let disk = SimDisk::new(1);
    let mut file = synced(&disk, &[1; 10]);
    file.append(&[2; 10]).unwrap();
    disk.set_sync_mode(SyncMode::FailsOnceAt(0));
    file.sync().unwrap_err();
    file.sync().unwrap();
    file.append(&[3; 10]).unwrap();
    file.sync().unwrap();
    assert_eq!(
        disk.read(path(), 100).unwrap(),
        [[1; 10], [2; 10], [3; 10]].concat(),
        "the cache has it"
    );
    disk.cut_now();
    disk.reboot();
    assert_eq!(disk.read(path(), 100).unwrap(), [[1; 10], [0; 10], [3; 10]].concat());
    // Written again, it is as good as new.
    let mut file = disk.open(path()).unwrap();
    file.append(&[4; 10]).unwrap();
    disk.set_sync_mode(SyncMode::FailsOnceAt(0));
    file.sync().unwrap_err();
    file.truncate(30).unwrap();
    file.append(&[5; 10]).unwrap();
    file.sync().unwrap();
    disk.cut_now();
    disk.reboot();
    assert_eq!(disk.read(path(), 100).unwrap()[30..], [5; 10]);
}

#[test]
fn what_a_failed_sync_gave_up_is_durable_when_another_process_writes_it_again() {
    for again in [false, true] {
        let disk = SimDisk::new(1);
        let mut file = synced(&disk, &[1; 10]);
        file.append(&[2; 10]).unwrap();
        disk.set_sync_mode(SyncMode::FailsOnceAt(0));
        file.sync().unwrap_err();
        disk.cut_now();
        disk.restart();
        assert_eq!(disk.len(path()).unwrap(), 20, "the cache has it");
        if again {
            disk.write_again(path(), 10).unwrap();
        } else {
            disk.open(path()).unwrap().sync().unwrap();
        }
        disk.cut_now();
        disk.reboot();
        let kept = disk.read(path(), 100).unwrap();
        assert_eq!(kept, [[1; 10], [if again { 2 } else { 0 }; 10]].concat());
    }
}

#[test]
fn syncs_fail_from_the_operation_on_that_was_told() {
    let disk = SimDisk::new(1);
    disk.set_sync_mode(SyncMode::FailsFrom(3));
    let mut file = disk.create(path()).unwrap();
    file.sync().unwrap();
    file.append(b"a").unwrap();
    assert!(file.sync().is_err() && file.sync().is_err() && disk.sync_dir(root()).is_err());
    file.append(b"b").unwrap();
}

#[test]
fn a_full_disk_takes_what_has_room_and_gives_it_back() {
    let disk = SimDisk::new(1);
    disk.set_capacity(100);
    let mut file = synced(&disk, &[1; 60]);
    let mut other = disk.create(Path::new("/other")).unwrap();
    other.append(&[2; 30]).unwrap();
    assert_eq!(file.append(&[3; 20]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 70, "as much as had room");
    assert_eq!(other.append(&[2; 1]).unwrap_err().kind(), ErrorKind::StorageFull);
    file.truncate(60).unwrap();
    other.append(&[2; 10]).unwrap();
    disk.remove(Path::new("/other")).unwrap();
    file.append(&[3; 40]).unwrap();
}

#[test]
fn the_cut_happens_at_the_operation_that_was_told() {
    let disk = SimDisk::new(1);
    synced(&disk, b"a");
    let operations = disk.operations();
    assert_eq!(operations, 4, "create, append, sync, sync the directory");
    for at in 0..operations {
        let disk = SimDisk::new(1);
        disk.set_cut(Cut::At(at));
        let mut done = 0;
        let mut count = |ok: bool| done += u64::from(ok);
        let file = disk.create(path());
        count(file.is_ok());
        if let Ok(mut file) = file {
            count(file.append(b"a").is_ok());
            count(file.sync().is_ok());
            count(disk.sync_dir(root()).is_ok());
        }
        assert_eq!((done, disk.is_on()), (at, false));
    }
}

#[test]
fn the_same_seed_gives_the_same_outcome_and_others_give_others() {
    let outcome = |seed| {
        let disk = SimDisk::new(seed);
        let mut file = disk.create(path()).unwrap();
        file.append(&[1; 3000]).unwrap();
        disk.set_cut(Cut::At(0));
        let _ = file.append(&[2; 3000]);
        disk.reboot();
        disk.read(path(), 10_000).ok()
    };
    SEEDS.for_each(|seed| assert_eq!(outcome(seed), outcome(seed)));
    assert!(SEEDS.map(outcome).collect::<BTreeSet<_>>().len() > 50);
}
