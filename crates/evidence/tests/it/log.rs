//! INV-EVID-1, the log's part: it only grows. What is refused starts from a healthy log and changes one thing.

use crate::{DIR, ORIGIN, copy, event, grow, key, open, signer, told, try_open};
use disk::{Disk, RealDisk, SimDisk, SyncMode};
use evidence::{Appended, Checkpoint, Head, Log, LogError, merkle};
use std::path::Path;
use std::sync::Arc;

#[test]
fn what_a_checkpoint_covers_is_read_back_and_proven() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    // Over a full tile, in groups of different lengths.
    let sizes = [1, 2, 3, 100, 255, 256, 257, 300, 511, 512, 530];
    let mut heads = vec![Head::of_no_leaves()];
    for pair in [&[0], &sizes[..]].concat().windows(2) {
        heads.push(grow(&mut log, pair[0]..pair[1]));
    }
    let reader = log.reader();
    let newest = *heads.last().unwrap();
    assert_eq!(reader.checkpoint().head(), newest);
    assert_eq!(newest.size, 530);
    for n in 0..530 {
        assert_eq!(reader.event(n).unwrap(), event(n));
        let (checkpoint, proof) = reader.inclusion(n).unwrap();
        let Head { size, root } = checkpoint.head();
        assert_eq!(merkle::verify_inclusion(n, size, event(n).hash(), &proof, &root), Ok(()));
    }
    for head in heads {
        let (checkpoint, proof) = reader.consistency(head.size).unwrap();
        let new = checkpoint.head();
        let grown =
            merkle::verify_consistency((head.size, &head.root), (new.size, &new.root), &proof);
        assert_eq!(grown, Ok(()), "{head}");
        log.must_hold(&head).unwrap();
        try_open(disk.shared(), Some(head)).expect("what it once was is known");
    }
    assert!(matches!(reader.event(530), Err(LogError::NotCovered { sequence: 530, size: 530 })));
    assert!(matches!(reader.inclusion(530), Err(LogError::NotCovered { .. })));
    assert!(matches!(reader.consistency(531), Err(LogError::NotEarlier { .. })));
}

#[test]
fn what_waits_is_not_shown_and_a_checkpoint_without_news_is_the_one_before() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    grow(&mut log, 0..3);
    let reader = log.reader();
    log.append(&event(3)).unwrap();
    assert_eq!((log.next(), log.pending(), reader.checkpoint().size()), (4, 1, 3));
    assert!(matches!(reader.event(3), Err(LogError::NotCovered { sequence: 3, size: 3 })));
    let covered = log.checkpoint().unwrap();
    assert_eq!(reader.event(3).unwrap(), event(3));

    disk.set_cut(disk::Cut::Never);
    assert_eq!(log.checkpoint().unwrap(), covered);
    assert_eq!(disk.operations(), 0, "nothing new, so nothing is written");
}

#[test]
fn an_event_that_is_there_is_known_and_never_changed() {
    let mut log = open(&SimDisk::new(1));
    grow(&mut log, 0..5);
    log.append(&event(5)).unwrap();
    for n in [0, 4, 5] {
        assert_eq!(log.append(&event(n)).unwrap(), Appended::Known, "event {n}");
        let rewritten = log.append(&told(n, "somebody else")).unwrap_err();
        assert!(matches!(rewritten, LogError::Rewritten { sequence } if sequence == n));
        assert!(rewritten.is_violation());
    }
    assert!(matches!(log.append(&event(7)), Err(LogError::Gap { expected: 6, found: 7 })));
    assert_eq!(log.append(&event(6)).unwrap(), Appended::New);
    assert_eq!(log.checkpoint().unwrap().size(), 7);
}

#[test]
fn a_log_from_a_backup_is_refused_by_who_knows_a_newer_head() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let old = grow(&mut log, 0..5);
    let backup = copy(&disk);
    let newest = grow(&mut log, 5..9);

    assert!(try_open(backup.shared(), Some(old)).is_ok(), "the backup itself is healthy");
    let behind = try_open(backup.shared(), Some(newest)).unwrap_err();
    assert!(matches!(behind, LogError::Behind { known, found } if (known, found) == (newest, old)));
    assert!(behind.is_violation());
    println!("{behind}");

    // Somebody went on with the backup all the same: by now it is longer, and another log.
    let mut fork = try_open(backup.shared(), None).unwrap();
    for n in 5..12 {
        fork.append(&told(n, "after the restore")).unwrap();
    }
    fork.checkpoint().unwrap();
    let forked = fork.must_hold(&newest).unwrap_err();
    assert!(matches!(forked, LogError::Forked { known, .. } if known == newest));
    assert!(forked.is_violation());
    println!("{forked}");
    assert!(matches!(try_open(backup.shared(), Some(newest)), Err(LogError::Forked { .. })));
    assert!(try_open(backup.shared(), Some(old)).is_ok(), "what both have in common holds");
}

#[test]
fn a_log_that_was_lost_is_not_begun_again_by_who_knows_it() {
    let disk = SimDisk::new(1);
    let head = grow(&mut open(&disk), 0..5);
    let nothing = SimDisk::new(2);
    assert!(matches!(try_open(nothing.shared(), Some(head)), Err(LogError::Behind { .. })));
    assert!(!nothing.exists(&Path::new(DIR).join("checkpoint")).unwrap(), "nothing was begun");
    // An empty log was known: there is nothing to fork.
    assert!(try_open(nothing.shared(), Some(Head::of_no_leaves())).is_ok());

    disk.remove(&Path::new(DIR).join("checkpoint")).unwrap();
    assert!(matches!(try_open(disk.shared(), None), Err(LogError::CheckpointLost { .. })));
}

#[test]
fn a_log_of_another_name_or_key_is_refused() {
    let disk = SimDisk::new(1);
    grow(&mut open(&disk), 0..5);
    let other_name =
        Log::open(disk.shared(), Path::new(DIR), "other.example/evidence", signer(3), None);
    let other_key = Log::open(disk.shared(), Path::new(DIR), ORIGIN, signer(4), None);
    for refused in [other_name, other_key] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, LogError::Checkpoint { .. }), "{}", model::told(&refused));
    }
}

/// Every file of a log of 300 events, each byte changed or cut off: the start is refused, or what was changed is never
/// read as if nothing had happened.
#[test]
fn a_changed_or_missing_byte_is_an_error_and_never_an_event() {
    let disk = SimDisk::new(1);
    grow(&mut open(&disk), 0..300);
    let files = [
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/1/000",
        "tile/entries/000",
        "tile/entries/001",
    ];
    let (mut at_start, mut at_read) = (0, 0);
    for name in files {
        let path = Path::new(DIR).join(name);
        let good = disk.read(&path, u64::MAX).unwrap();
        // Every byte of small files, a sample of long ones.
        let step = (good.len() / 150).max(1) | 1;
        for at in (0..good.len()).step_by(step) {
            let mut changed = good.clone();
            changed[at] ^= 1 << (at % 8);
            for bytes in [&changed[..], &good[..at]] {
                disk::replace(&disk, &path, bytes).unwrap();
                match try_open(disk.shared(), None) {
                    Err(_) => at_start += 1,
                    Ok(log) => {
                        let reader = log.reader();
                        // Each reads its whole bundle and checks all of it.
                        let wrong = [255, 299].into_iter().filter(|n| match reader.event(*n) {
                            Ok(found) => {
                                assert_eq!(found, event(*n), "{name} at byte {at}");
                                false
                            }
                            Err(_) => true,
                        });
                        assert!(wrong.count() > 0, "{name} at byte {at} was changed unseen");
                        at_read += 1;
                    }
                }
            }
        }
        disk::replace(&disk, &path, &good).unwrap();
    }
    println!("{at_start} found when it was opened, {at_read} when it was read");
    assert!(at_start > 0 && at_read > 0);
}

#[test]
fn a_full_disk_covers_nothing_new_and_later_all_of_it() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let before = grow(&mut log, 0..250);
    let used = 250 * 32 + 40_000;
    for n in 250..270 {
        log.append(&event(n)).unwrap();
    }
    let mut refused = 0;
    // A little more room at each try, so that every write of it once is the one that fails.
    for room in (0..1000).map(|n| used + n * 97) {
        disk.set_capacity(room);
        match log.checkpoint() {
            Ok(_) => break,
            Err(e) => {
                assert!(matches!(e, LogError::Full { .. }) && e.may_pass(), "{e}");
                assert_eq!(log.reader().checkpoint().head(), before);
                refused += 1;
            }
        }
    }
    assert!(refused > 5, "the disk was full {refused} times");
    assert_eq!(log.reader().checkpoint().size(), 270);
    let log = try_open(disk.shared(), Some(before)).unwrap();
    (0..270).for_each(|n| assert_eq!(log.reader().event(n).unwrap(), event(n)));
}

#[test]
fn a_failed_sync_closes_the_log_for_good() {
    for fails_at in 0..12 {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        let before = grow(&mut log, 0..3);
        log.append(&event(3)).unwrap();
        disk.set_cut(disk::Cut::Never);
        disk.set_sync_mode(SyncMode::FailsOnceAt(fails_at));
        let Err(failed) = log.checkpoint() else { continue };
        assert!(matches!(failed, LogError::Io { .. }) && !failed.may_pass(), "{failed}");
        // The disk would sync again; nobody asks it to.
        let operations = disk.operations();
        assert!(matches!(log.checkpoint(), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.append(&event(4)), Err(LogError::Poisoned { .. })));
        assert_eq!(disk.operations(), operations);
        assert_eq!(log.reader().checkpoint().head(), before);

        // The next process takes it up, whatever the failed sync gave up.
        disk.cut_now();
        disk.restart();
        let mut log = try_open(disk.shared(), Some(before)).unwrap();
        for n in log.next()..6 {
            log.append(&event(n)).unwrap();
        }
        let head = log.checkpoint().unwrap().head();
        disk.cut_now();
        disk.reboot();
        let log = try_open(disk.shared(), Some(head)).unwrap();
        (0..6).for_each(|n| assert_eq!(log.reader().event(n).unwrap(), event(n)));
    }
}

#[test]
fn a_signer_that_does_not_sign_holds_up_the_checkpoint_only() {
    struct Refuses(Arc<dyn trust::cose::Signer>, std::sync::atomic::AtomicBool);
    impl trust::cose::Signer for Refuses {
        fn public(&self) -> &trust::cose::PublicKey {
            self.0.public()
        }
        fn sign(&self, message: &[u8]) -> Result<trust::cose::Signature, trust::cose::SignError> {
            match self.1.load(std::sync::atomic::Ordering::SeqCst) {
                true => Err(trust::cose::SignError),
                false => self.0.sign(message),
            }
        }
    }
    let disk = SimDisk::new(1);
    let signer = Arc::new(Refuses(signer(3), false.into()));
    let mut log = Log::open(disk.shared(), Path::new(DIR), ORIGIN, signer.clone(), None).unwrap();
    log.append(&event(0)).unwrap();
    signer.1.store(true, std::sync::atomic::Ordering::SeqCst);
    let refused = log.checkpoint().unwrap_err();
    assert!(matches!(refused, LogError::NotSigned { .. }) && refused.may_pass());
    signer.1.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(log.checkpoint().unwrap().size(), 1);
}

#[test]
fn what_waits_is_bounded() {
    let mut log = open(&SimDisk::new(1));
    let refused = (0..).find_map(|n| log.append(&event(n)).err().map(|e| (n, e)));
    assert!(matches!(refused, Some((4096, LogError::TooManyPending { events: 4097, .. }))));
    log.checkpoint().unwrap();
    assert_eq!(log.append(&event(4096)).unwrap(), Appended::New, "and then there is room again");
}

#[test]
fn the_same_log_on_the_operating_systems_disk() {
    let dir = tempfile::tempdir().unwrap();
    let open = |known| Log::open(Arc::new(RealDisk), dir.path(), ORIGIN, signer(3), known);
    let mut log = open(None).unwrap();
    let head = grow(&mut log, 0..300);
    drop(log);
    let mut log = open(Some(head)).unwrap();
    let head = grow(&mut log, 300..310);
    let log = open(Some(head)).unwrap();
    (0..310).for_each(|n| assert_eq!(log.reader().event(n).unwrap(), event(n)));
    let note = std::fs::read_to_string(dir.path().join("checkpoint")).unwrap();
    assert_eq!(Checkpoint::open(&note, &key()).unwrap().head(), head);
}

#[test]
fn the_right_edge_does_not_grow_with_the_log() {
    // A checkpoint writes what is new and a note, however long the log is.
    let cost = |size: u64| {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        grow(&mut log, 0..size);
        disk.set_cut(disk::Cut::Never);
        grow(&mut log, size..size + 1);
        disk.operations()
    };
    let (short, long) = (cost(10), cost(3000));
    println!("{short} operations a checkpoint at 10 events, {long} at 3,000");
    assert_eq!(short, long);
}
