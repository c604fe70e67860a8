//! INV-BOOT-1: the power is cut at every word and every erase of a device's life.

use crate::nor::{ChipError, Nor, NorBoard, TEARS, Tear};
use crate::sweep::{
    A_LIFE, Board, Broken, Fate, Goal, Loader, Run, Tally, image, release, run, run_with,
};
use boot::{
    Boot, Content, Ending, Error, Flash, FlashSlots, Geometry, Order, Reason, SecurityVersion,
    Slot, Spare,
};
use std::cell::RefCell;
use std::rc::Rc;

/// Journal sectors and word lengths: narrow words, a third sector, the widest words.
const BOARDS: [(u16, u32); 3] = [(2, 16), (3, 32), (2, 64)];

fn operations(board: &NorBoard, goals: &[Goal]) -> u64 {
    run(board, goals, &[]).expect("undisturbed").operations
}

#[test]
fn a_cut_at_any_word_leaves_a_verified_image_and_a_true_report() {
    let mut points = 0;
    let mut tally = Tally::default();
    for (sectors, word_len) in BOARDS {
        let n = operations(&NorBoard::new(sectors, word_len, Tear::After), A_LIFE);
        points += n;
        for tear in TEARS {
            for cut in 0..n {
                let board = NorBoard::new(sectors, word_len, tear);
                tally.add((sectors, word_len, tear, cut), run(&board, A_LIFE, &[cut]));
            }
        }
    }
    println!("{points} cut points on {} boards, torn in {} ways", BOARDS.len(), TEARS.len());
    tally.holds("single cuts");
}

#[test]
fn two_cuts_at_any_two_words_leave_a_verified_image_and_a_true_report() {
    let lives: [&[Goal]; 2] = [
        &[Goal::Install(1, Fate::Good), Goal::Raise(1)],
        &[Goal::Install(1, Fate::GivesUp(3)), Goal::Withdraw(2)],
    ];
    let mut tally = Tally::default();
    for goals in lives {
        let n = operations(&NorBoard::new(2, 64, Tear::After), goals);
        for tear in TEARS {
            for first in 0..n {
                // The second cut, counted from the first, comes at any operation until the end.
                for second in 0.. {
                    let board = NorBoard::new(2, 64, tear);
                    let run = run(&board, goals, &[first, second]);
                    let over = !matches!(run, Ok(Run { cuts: 2, .. }));
                    tally.add((tear, first, second), run);
                    if over {
                        break;
                    }
                }
            }
        }
    }
    tally.holds("double cuts");
}

#[test]
fn cuts_again_and_again_leave_a_verified_image_and_a_true_report() {
    let mut tally = Tally::default();
    for seed in 1..=400 {
        let mut x: u64 = seed;
        let mut random = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            x >> 33
        };
        let cuts: Vec<u64> = (0..20).map(|_| random() % 60).collect();
        let board = NorBoard::new(2, 16, Tear::Scattered(seed));
        tally.add(seed, run(&board, A_LIFE, &cuts));
    }
    tally.holds("up to 20 cuts, seeds 1 to 400");
}

#[test]
fn a_cut_while_the_factory_writes_the_journal_is_mended_by_doing_it_again() {
    let mut points = 0;
    for tear in TEARS {
        for cut in 0.. {
            let board = NorBoard::new(2, 16, tear);
            board.leave_the_factory(&release(0));
            board.cut_at(Some(cut));
            let provision = || {
                let flash = board.flash().unwrap();
                let slots = &mut board.slots();
                Boot::provision(flash, slots, Slot::A, image(0, 0), SecurityVersion(0)).map(|_| ())
            };
            if provision().is_ok() {
                break;
            }
            points += 1;
            board.power_cycle();
            assert!(matches!(provision(), Ok(()) | Err(Error::Provisioned)), "{tear:?} at {cut}");
            let mut boot = Boot::open(board.flash().unwrap()).unwrap();
            let choice = boot.load(&mut board.slots(), &mut || {}).unwrap();
            assert_eq!((choice.slot, choice.reason), (Slot::A, Reason::Confirmed));
        }
    }
    println!("{points} cuts");
}

/// A board at a certain point of an install.
fn until(goals: &[Goal]) -> NorBoard {
    let board = NorBoard::new(2, 16, Tear::Half);
    run(&board, goals, &[]).expect("undisturbed");
    board.cut_at(None);
    board
}

fn open(board: &NorBoard) -> Boot<Nor> {
    Boot::open(board.flash().unwrap()).unwrap()
}

/// Release 1 in slot b, confirmed, 0 kept in slot a; release 2 is armed in slot a in its place.
fn armed() -> NorBoard {
    let board = until(&[Goal::Install(1, Fate::Good)]);
    let mut boot = open(&board);
    let spare = boot.begin().unwrap();
    assert!(board.write(&spare, &release(2)));
    boot.arm(&mut board.slots(), spare, image(2, 9)).unwrap();
    board
}

#[test]
fn a_good_image_that_decays_gives_way_to_the_kept_one_wherever_that_is_cut() {
    let mut points = 0;
    for cut in 0.. {
        let board = until(&[Goal::Install(1, Fate::Good)]);
        board.b.flip(1, 7);
        board.cut_at(Some(cut));
        let mut boot = open(&board);
        if boot.load(&mut board.slots(), &mut || {}).is_ok() && board.is_on() {
            break;
        }
        points += 1;
        board.power_cycle();
        for again in 0..2 {
            let mut boot = open(&board);
            let choice = boot.load(&mut board.slots(), &mut || {}).unwrap();
            assert_eq!((choice.slot, choice.image), (Slot::A, image(0, 0)), "cut at {cut}");
            assert!(again == 0 || choice.reason == Reason::Confirmed, "it is recorded once");
            let report = open(&board).report(choice.slot);
            assert!(report.agrees && report.spare == Content::Empty);
            assert_eq!(report.last.map(|last| last.how), Some(Ending::Decayed));
        }
    }
    assert!(points > 0, "the change was recorded, so it could be cut");
}

#[test]
fn an_armed_image_that_decays_never_starts() {
    for at in [0, 100, 673] {
        let board = armed();
        board.a.flip(at / 512, u32::from(at % 512));
        let mut boot = open(&board);
        let choice = boot.load(&mut board.slots(), &mut || {}).unwrap();
        assert_eq!((choice.slot, choice.reason), (Slot::B, Reason::NotTried), "byte {at}");
        let report = open(&board).report(choice.slot);
        let last = report.last.map(|last| (last.order, last.how));
        assert_eq!(last, Some((Order(9), Ending::NotWhole)));
    }
}

#[test]
fn an_image_on_trial_goes_on_when_the_way_back_decays() {
    let board = armed();
    for reason in [Reason::Trial, Reason::NoWayBack, Reason::NoWayBack] {
        let choice = open(&board).load(&mut board.slots(), &mut || {}).unwrap();
        assert_eq!((choice.slot, choice.reason), (Slot::A, reason));
        assert!(open(&board).report(Slot::A).agrees);
        if reason == Reason::Trial {
            board.b.flip(0, 0);
        }
    }
    open(&board).confirm(Slot::A).unwrap();
    let choice = open(&board).load(&mut board.slots(), &mut || {}).unwrap();
    assert_eq!((choice.slot, choice.reason), (Slot::A, Reason::Confirmed));
}

#[test]
fn two_damaged_slots_start_nothing() {
    let board = until(&[Goal::Install(1, Fate::Good)]);
    board.a.flip(0, 5);
    board.b.flip(0, 5);
    let error = open(&board).load(&mut board.slots(), &mut || {}).unwrap_err();
    assert!(matches!(error, Error::Stuck(_)), "{error:?}");
}

/// The journal's flash wears out at any operation: words are refused, and the power stays on.
#[test]
fn a_journal_that_wears_out_never_keeps_a_whole_image_from_starting() {
    let mut refusals = 0;
    for worn_from in 0.. {
        // Loads after an arming: the trial, and the revert.
        let board = armed();
        board.cut_at(None);
        board.journal.wear_out_from(Some(worn_from));
        let mut recorded = true;
        for _ in 0..2 {
            let mut boot = open(&board);
            let choice = boot.load(&mut board.slots(), &mut || {}).unwrap();
            recorded &= choice.recorded;
            let expected = match choice.slot {
                Slot::A => image(2, 9),
                Slot::B => image(1, 1),
            };
            assert_eq!(choice.image, expected, "worn from {worn_from}");
            // The report speaks of what runs, or says that the journal does not agree.
            let report = open(&board).report(choice.slot);
            assert_eq!(report.running, choice.slot);
            assert!(report.agrees || !choice.recorded, "worn from {worn_from}: {report:?}");
            assert_eq!(report.image.map(|image| image.digest), Some(choice.image.digest));
            if choice.reason == Reason::NotRecorded {
                refusals += 1;
                assert_eq!(choice.slot, Slot::B, "what cannot be recorded is not tried");
            }
        }
        if recorded {
            break;
        }
    }
    assert!(refusals > 0);
}

#[test]
fn after_a_failed_write_the_journal_is_opened_again_before_anything_else() {
    let board = until(&[Goal::Install(1, Fate::Good)]);
    board.journal.wear_out_from(Some(0));
    let mut boot = open(&board);
    assert!(matches!(boot.begin(), Err(Error::Flash(ChipError::Worn))));
    board.journal.wear_out_from(None);
    assert!(matches!(boot.begin(), Err(Error::Unsure)));
    assert!(matches!(boot.raise(SecurityVersion(1)), Err(Error::Unsure)));
    open(&board).begin().unwrap();
}

/// A flash that takes what it is given and does not keep it.
#[derive(Debug)]
struct Forgets(Nor);

impl Flash for Forgets {
    type Error = ChipError;

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn read(&mut self, sector: u16, at: u32, into: &mut [u8]) -> Result<(), ChipError> {
        self.0.read(sector, at, into)
    }

    fn program(&mut self, _: u16, _: u32, _: &[u8]) -> Result<(), ChipError> {
        Ok(())
    }

    fn erase(&mut self, sector: u16) -> Result<(), ChipError> {
        self.0.erase(sector)
    }
}

#[test]
fn a_record_counts_as_written_only_when_it_reads_so() {
    let board = until(&[Goal::Install(1, Fate::Good)]);
    let mut boot = Boot::open(Forgets(board.flash().unwrap())).unwrap();
    assert!(matches!(boot.begin(), Err(Error::NotWritten)));
    assert!(matches!(boot.begin(), Err(Error::Unsure)));
    open(&board).begin().unwrap();
}

/// A journal in one sector: the record that counts is erased to make room for the next one.
#[derive(Debug)]
struct OneSector(Nor);

impl Flash for OneSector {
    type Error = ChipError;

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn read(&mut self, _: u16, at: u32, into: &mut [u8]) -> Result<(), ChipError> {
        self.0.read(0, at, into)
    }

    fn program(&mut self, _: u16, at: u32, bytes: &[u8]) -> Result<(), ChipError> {
        self.0.program(0, at, bytes)
    }

    fn erase(&mut self, _: u16) -> Result<(), ChipError> {
        self.0.erase(0)
    }
}

type Waiting = Rc<RefCell<Option<(u16, u32, Vec<u8>)>>>;

/// A flash that answers before it writes: what was programmed last is lost with the power.
#[derive(Debug)]
struct AnswersEarly {
    nor: Nor,
    waiting: Waiting,
}

impl AnswersEarly {
    fn write(&mut self) -> Result<(), ChipError> {
        match self.waiting.borrow_mut().take() {
            Some((sector, at, bytes)) => self.nor.program(sector, at, &bytes),
            None => Ok(()),
        }
    }
}

impl Flash for AnswersEarly {
    type Error = ChipError;

    fn geometry(&self) -> Geometry {
        self.nor.geometry()
    }

    fn read(&mut self, sector: u16, at: u32, into: &mut [u8]) -> Result<(), ChipError> {
        match &*self.waiting.borrow() {
            Some((s, a, bytes)) if (*s, *a) == (sector, at) => into.copy_from_slice(bytes),
            _ => self.nor.read(sector, at, into)?,
        }
        Ok(())
    }

    fn program(&mut self, sector: u16, at: u32, bytes: &[u8]) -> Result<(), ChipError> {
        self.write()?;
        *self.waiting.borrow_mut() = Some((sector, at, bytes.to_vec()));
        Ok(())
    }

    fn erase(&mut self, sector: u16) -> Result<(), ChipError> {
        self.write()?;
        self.nor.erase(sector)
    }
}

/// A board with another flash under its journal, once it has left the factory.
struct Other<M> {
    board: NorBoard,
    flash: M,
    waiting: Waiting,
}

impl<F, M> Board for Other<M>
where
    F: Flash<Error = ChipError> + std::fmt::Debug,
    M: Fn(Nor) -> F,
{
    type Flash = F;
    type Slots = FlashSlots<Nor>;

    fn flash(&self) -> Option<F> {
        self.board.flash().map(&self.flash)
    }

    fn slots(&self) -> FlashSlots<Nor> {
        self.board.slots()
    }

    fn write(&self, spare: &Spare, image: &[u8]) -> bool {
        self.board.write(spare, image)
    }

    fn leave_the_factory(&self, image: &[u8]) {
        self.board.leave_the_factory(image);
    }

    fn holds(&self, slot: Slot, len: usize) -> Vec<u8> {
        self.board.holds(slot, len)
    }

    fn cut_at(&self, operation: Option<u64>) {
        // What the factory wrote is there.
        if let Some((sector, at, bytes)) = self.waiting.take() {
            let _ = self.board.journal.clone().program(sector, at, &bytes);
        }
        self.board.cut_at(operation);
    }

    fn operations(&self) -> u64 {
        self.board.operations()
    }

    fn is_on(&self) -> bool {
        self.board.is_on()
    }

    fn power_cycle(&self) {
        self.waiting.take();
        self.board.power_cycle();
    }
}

fn sweep(cuts: std::ops::Range<u64>, run: impl Fn(&NorBoard, u64) -> Result<Run, Broken>) -> Tally {
    let mut tally = Tally::default();
    for cut in cuts {
        tally.add(cut, run(&NorBoard::new(2, 16, Tear::Half), cut));
    }
    println!(
        "found: {} bricks, {} false reports, {} other; the first: {:?}",
        tally.bricks.len(),
        tally.false_reports.len(),
        tally.other.len(),
        tally.bricks.iter().chain(&tally.false_reports).chain(&tally.other).next()
    );
    tally
}

const ONE_INSTALL: &[Goal] = &[Goal::Install(1, Fate::Good)];

#[test]
fn the_sweep_finds_a_journal_that_erases_what_counts() {
    let tally = sweep(0..100, |board, cut| {
        let board = Other { board: board.clone(), flash: OneSector, waiting: Waiting::default() };
        run(&board, ONE_INSTALL, &[cut])
    });
    assert!(!tally.bricks.is_empty());
}

#[test]
fn the_sweep_finds_a_flash_that_answers_before_it_writes() {
    let tally = sweep(0..100, |board, cut| {
        let waiting = Waiting::default();
        let early = |nor| AnswersEarly { nor, waiting: waiting.clone() };
        let board = Other { board: board.clone(), flash: early, waiting: waiting.clone() };
        run(&board, ONE_INSTALL, &[cut])
    });
    assert!(tally.bricks.len() + tally.false_reports.len() + tally.other.len() > 0);
}

#[test]
fn the_sweep_finds_a_loader_that_reverts_and_says_nothing() {
    let goals = [Goal::Install(1, Fate::Hangs)];
    let tally = sweep(0..1, |board, _| run_with(Loader::RevertsAndSaysNothing, board, &goals, &[]));
    assert!(!tally.false_reports.is_empty());
}
