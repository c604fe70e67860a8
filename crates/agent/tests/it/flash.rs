//! The boot journal and the slots as files, on a disk that cuts and tears: the power goes, or the process dies, at any
//! operation of a device's life. INV-BOOT-1.

#[path = "../../../boot/tests/it/sweep.rs"]
mod sweep;

use agent::flash::{FileFlash, FileSlots};
use boot::{Boot, Error, Flash, Reason, SecurityVersion, Slot, Slots, Spare};
use disk::{Cut, Disk, RealDisk, SimDisk, SyncMode};
use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use sweep::{A_LIFE, Board, Fate, Goal, Run, Tally, image, release, run};

const DIR: &str = "/device/boot";

/// How a process ends when it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    PowerCut,
    /// What it wrote is seen by the next process; what it had not synced may be lost at a later power cut.
    Killed,
    /// The process that comes after a killed one is cut.
    KilledThenCut,
}

struct FileBoard {
    disk: SimDisk,
    death: Death,
    /// The operation to cut at, counted from the last power cycle.
    cut: Cell<Option<u64>>,
    counted: Cell<u64>,
    deaths: Cell<u64>,
}

impl FileBoard {
    fn new(seed: u64, death: Death, sync: SyncMode) -> Self {
        let disk = SimDisk::new(seed);
        disk.set_sync_mode(sync);
        Self { disk, death, cut: Cell::new(None), counted: Cell::new(0), deaths: Cell::new(0) }
    }
}

impl Board for FileBoard {
    type Flash = FileFlash;
    type Slots = FileSlots;

    fn flash(&self) -> Option<FileFlash> {
        FileFlash::open(self.disk.shared(), Path::new(DIR)).ok()
    }

    fn slots(&self) -> FileSlots {
        FileSlots::new(self.disk.shared(), Path::new(DIR))
    }

    fn write(&self, spare: &Spare, image: &[u8]) -> bool {
        let write = || -> io::Result<()> {
            let slots = self.slots();
            slots.empty(spare)?;
            let mut file = slots.append(spare)?;
            image.chunks(200).try_for_each(|piece| file.append(piece))
        };
        write().is_ok()
    }

    fn leave_the_factory(&self, image: &[u8]) {
        self.disk.create_dir_all(Path::new(DIR)).unwrap();
        disk::replace(&self.disk, &self.slots().path(Slot::A), image).unwrap();
    }

    fn holds(&self, slot: Slot, len: usize) -> Vec<u8> {
        self.disk.read(&self.slots().path(slot), len as u64).unwrap_or_default()
    }

    fn cut_at(&self, operation: Option<u64>) {
        self.cut.set(operation);
        self.counted.set(0);
        self.disk.set_cut(operation.map_or(Cut::Never, Cut::At));
    }

    fn operations(&self) -> u64 {
        self.counted.get() + self.disk.operations()
    }

    fn is_on(&self) -> bool {
        self.disk.is_on()
    }

    fn power_cycle(&self) {
        let so_far = self.disk.operations();
        self.counted.set(self.counted.get() + so_far);
        self.cut.set(self.cut.get().map(|at| at - so_far));
        // An orderly reboot is a power cut too, between two operations: nobody syncs what we did not.
        let died = !self.disk.is_on();
        self.deaths.set(self.deaths.get() + u64::from(died));
        let killed = match self.death {
            Death::PowerCut => false,
            Death::Killed => died,
            Death::KilledThenCut => died && self.deaths.get() == 1,
        };
        if killed {
            self.disk.restart();
        } else {
            self.disk.cut_now();
            self.disk.reboot();
        }
        self.disk.set_cut(self.cut.get().map_or(Cut::Never, Cut::At));
    }
}

fn operations(goals: &[Goal]) -> u64 {
    let Run { operations, .. } =
        run(&FileBoard::new(1, Death::PowerCut, SyncMode::Honest), goals, &[])
            .expect("undisturbed");
    operations
}

#[test]
fn a_cut_at_any_operation_on_files_leaves_a_verified_image_and_a_true_report() {
    let n = operations(A_LIFE);
    let mut tally = Tally::default();
    for seed in 1..=2 {
        for death in [Death::PowerCut, Death::Killed] {
            for cut in 0..n {
                let board = FileBoard::new(seed, death, SyncMode::Honest);
                tally.add((seed, death, cut), run(&board, A_LIFE, &[cut]));
            }
        }
    }
    println!("{n} cut points on files, seeds 1 to 2, power cut or killed");
    tally.holds("single cuts on files");
}

/// What a killed process had written and not synced is seen by the next one, which must not go by what a cut may take away.
#[test]
fn a_cut_after_a_kill_leaves_a_verified_image_and_a_true_report() {
    let goals = [Goal::Install(1, Fate::Good), Goal::Raise(1)];
    let mut tally = Tally::default();
    for seed in 1..=2 {
        for kill in 0..operations(&goals) {
            for cut in 0..16 {
                let board = FileBoard::new(seed, Death::KilledThenCut, SyncMode::Honest);
                tally.add((seed, kill, cut), run(&board, &goals, &[kill, cut]));
            }
        }
    }
    tally.holds("a kill and a cut on files, seeds 1 to 2");
}

#[test]
fn cuts_again_and_again_on_files_leave_a_verified_image_and_a_true_report() {
    let mut tally = Tally::default();
    for seed in 1..=300 {
        let mut x: u64 = seed;
        let mut random = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            x >> 33
        };
        let cuts: Vec<u64> = (0..12).map(|_| random() % 90).collect();
        let death = if seed % 2 == 0 { Death::PowerCut } else { Death::Killed };
        tally.add(seed, run(&FileBoard::new(seed, death, SyncMode::Honest), A_LIFE, &cuts));
    }
    tally.holds("up to 12 cuts on files, seeds 1 to 300");
}

#[test]
fn a_disk_whose_sync_does_nothing_is_found_out_by_the_sweep() {
    let goals = [Goal::Install(1, Fate::Good)];
    let mut tally = Tally::default();
    for cut in 0..operations(&goals) {
        let board = FileBoard::new(cut, Death::PowerCut, SyncMode::Lies);
        tally.add(cut, run(&board, &goals, &[cut]));
    }
    assert!(!tally.bricks.is_empty(), "the sweep would pass with a disk that loses all");
}

#[test]
fn a_record_whose_sync_failed_is_not_relied_on() {
    let board = FileBoard::new(1, Death::PowerCut, SyncMode::Honest);
    run(&board, &[Goal::Install(1, Fate::Good)], &[]).unwrap();
    let mut boot = Boot::open(board.flash().unwrap()).unwrap();
    board.disk.set_sync_mode(SyncMode::FailsOnceAt(0));
    board.cut_at(None);
    assert!(matches!(boot.raise(SecurityVersion(1)), Err(Error::Flash(_))));
    assert!(matches!(boot.raise(SecurityVersion(1)), Err(Error::Unsure)));
    // The next process writes again what it finds before it goes by it.
    let found = *Boot::open(board.flash().unwrap()).unwrap().state();
    board.power_cycle();
    assert_eq!(*Boot::open(board.flash().unwrap()).unwrap().state(), found);
}

#[test]
fn a_full_disk_tries_nothing_and_keeps_no_good_image_from_starting() {
    let board = FileBoard::new(1, Death::PowerCut, SyncMode::Honest);
    run(&board, &[Goal::Install(1, Fate::Good)], &[]).unwrap();
    board.cut_at(None);
    let open = || Boot::open(board.flash().unwrap()).unwrap();
    let mut boot = open();
    let spare = boot.begin().unwrap();
    assert!(board.write(&spare, &release(2)));
    boot.arm(&mut board.slots(), spare, image(2, 2)).unwrap();

    let load = |capacity| {
        board.disk.set_capacity(capacity);
        let choice = open().load(&mut board.slots(), &mut || {}).unwrap();
        (choice.slot, choice.reason, choice.recorded, open().report(choice.slot).agrees)
    };
    assert_eq!(load(0), (Slot::B, Reason::NotRecorded, false, true));
    assert_eq!(load(u64::MAX), (Slot::A, Reason::Trial, true, true));
    // It is taken back all the same, and the device says that its journal could not follow.
    assert_eq!(load(0), (Slot::B, Reason::Reverted, false, false));
    assert_eq!(load(u64::MAX), (Slot::B, Reason::Reverted, true, true));
}

/// A device provisioned on the real disk: the journal is where the format says, and only the whole image counts.
#[test]
fn on_the_real_disk_an_image_is_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut slots = FileSlots::new(disk.clone(), dir.path());
    disk::replace(&*disk, &slots.path(Slot::A), &release(0)).unwrap();
    let flash = || FileFlash::open(disk.clone(), dir.path()).unwrap();
    let floor = SecurityVersion(0);
    let mut boot = Boot::provision(flash(), &mut slots, Slot::A, image(0, 0), floor).unwrap();
    assert_eq!(disk.len(&dir.path().join("journal-0")).unwrap(), 192);
    let spare = boot.begin().unwrap();
    assert_eq!(slots.written(&spare).unwrap(), 0);
    slots.append(&spare).unwrap().append(&release(1)).unwrap();
    boot.arm(&mut slots, spare, image(1, 1)).unwrap();
    drop(boot);
    let choice = Boot::open(flash()).unwrap().load(&mut slots, &mut || {}).unwrap();
    assert_eq!((choice.slot, slots.path(choice.slot)), (Slot::B, dir.path().join("slot-b")));

    let len = release(1).len() as u64;
    assert_eq!(slots.digest(Slot::B, len).unwrap(), Some(image(1, 1).digest));
    assert_eq!(slots.digest(Slot::B, len - 1).unwrap(), None, "a file that is longer is another");
    disk.open(&slots.path(Slot::B)).unwrap().append(&[0]).unwrap();
    assert_eq!(slots.digest(Slot::B, len).unwrap(), None);
}

#[test]
fn a_sector_takes_only_what_follows() {
    let board = FileBoard::new(1, Death::PowerCut, SyncMode::Honest);
    let mut flash = board.flash().unwrap();
    flash.erase(0).unwrap();
    flash.program(0, 0, &[1, 2, 3]).unwrap();
    let refused = flash.program(0, 4, &[4]).unwrap_err();
    assert_eq!(refused.to_string(), "`/device/boot/journal-0` has 3 bytes, expected 4");
    assert_eq!(flash.program(0, 0, &[4]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    let mut read = [0; 5];
    flash.read(0, 0, &mut read).unwrap();
    assert_eq!(read, [1, 2, 3, 0xFF, 0xFF]);
}
