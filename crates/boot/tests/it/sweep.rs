//! A device that installs, tries, confirms, reverts and raises until all its orders are done, while the power is cut at
//! given operations; and an observer who knows what really lies in the slots and really runs.
//!
//! Used over the flash in memory here, and over files by the agent's tests.

use boot::{
    Boot, Content, Digest, Ending, Flash, Image, Order, Phase, Reason, Report, SecurityVersion,
    Slot, Slots, Spare, State, measure,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// A device's storage, with a switch.
pub trait Board {
    type Flash: Flash<Error: Debug> + Debug;
    type Slots: Slots<Error: Debug>;

    /// The journal's flash, as the next process opens it. `None`: the power went.
    fn flash(&self) -> Option<Self::Flash>;
    fn slots(&self) -> Self::Slots;
    /// Writes an image into the spare slot from its beginning. False: the power went.
    fn write(&self, spare: &Spare, image: &[u8]) -> bool;
    /// Puts an image into slot a, durably.
    fn leave_the_factory(&self, image: &[u8]);
    /// What really lies in a slot: `len` bytes, or fewer if there are no more.
    fn holds(&self, slot: Slot, len: usize) -> Vec<u8>;
    /// Cuts the power in the middle of this operation, counted from now.
    fn cut_at(&self, operation: Option<u64>);
    /// Counted since `cut_at`, over power cycles.
    fn operations(&self) -> u64;
    fn is_on(&self) -> bool;
    fn power_cycle(&self);
}

/// What a release does when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Good,
    GivesUp(u16),
    Hangs,
}

/// One order for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Install(u8, Fate),
    /// What the spare slot holds, again.
    GoBack(Fate),
    /// Armed, and taken back before it starts.
    Withdraw(u8),
    Raise(u32),
}

/// Everything that a device does in its life. Releases have their number as security version.
pub const A_LIFE: &[Goal] = &[
    Goal::Install(1, Fate::Good),
    Goal::Install(2, Fate::Hangs),
    Goal::Raise(1),
    Goal::Install(3, Fate::GivesUp(7)),
    Goal::Withdraw(4),
    Goal::Install(5, Fate::Good),
    Goal::GoBack(Fate::Good),
    Goal::Install(2, Fate::Good),
    Goal::Raise(2),
];

/// What one run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    pub operations: u64,
    pub cuts: u64,
    pub loads: u64,
    pub reports: u64,
}

/// What is counted over a sweep.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub runs: u64,
    pub cuts: u64,
    pub loads: u64,
    pub reports: u64,
    pub bricks: Vec<String>,
    pub false_reports: Vec<String>,
    pub other: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, at: impl Debug, run: Result<Run, Broken>) {
        self.runs += 1;
        match run {
            Ok(run) => {
                self.cuts += run.cuts;
                self.loads += run.loads;
                self.reports += run.reports;
            }
            Err(Broken::Brick(what)) => self.bricks.push(format!("{at:?}: {what}")),
            Err(Broken::FalseReport(what)) => self.false_reports.push(format!("{at:?}: {what}")),
            Err(Broken::Other(what)) => self.other.push(format!("{at:?}: {what}")),
        }
    }

    /// Prints the counts, and panics unless nothing was broken.
    #[track_caller]
    pub fn holds(&self, what: &str) {
        let Self { runs, cuts, loads, reports, bricks, false_reports, other } = self;
        println!(
            "{what}: {runs} runs, {cuts} cuts, {loads} loads, {reports} reports; {} bricks, {} false reports, {} other",
            bricks.len(),
            false_reports.len(),
            other.len()
        );
        assert!(*cuts > 0, "{what}: nothing was cut");
        let first = bricks.iter().chain(false_reports).chain(other).next();
        assert_eq!(first, None, "{what}");
    }
}

/// What must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nothing starts, or something that is not whole.
    Brick(String),
    /// The device says of itself what is not so.
    FalseReport(String),
    Other(String),
}

/// Release `n`: 600 bytes and more, different in every block from any other.
pub fn release(n: u8) -> Vec<u8> {
    let mut x = u64::from(n).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let byte = || {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        (x >> 24) as u8
    };
    std::iter::repeat_with(byte).take(600 + 37 * usize::from(n)).collect()
}

pub fn digest(bytes: &[u8]) -> Digest {
    let whole = measure(bytes.len() as u64, &mut [0; 64], |at, into| {
        into.copy_from_slice(&bytes[at as usize..at as usize + into.len()]);
        Ok::<_, ()>(())
    });
    whole.expect("reading from memory does not fail")
}

pub fn image(n: u8, order: u64) -> Image {
    let bytes = release(n);
    Image {
        digest: digest(&bytes),
        len: bytes.len() as u64,
        security: SecurityVersion(n.into()),
        order: Order(order),
    }
}

/// What a lifetime of the device came to.
enum Life {
    Done,
    Reboot,
    Cut,
}

/// The device, and who watches it.
struct Observer<'a, B> {
    loader: Loader,
    board: &'a B,
    goals: &'a [Goal],
    /// The goal that is pursued.
    at: usize,
    /// What the journal may say at the next opening: one thing, or two when a write was cut.
    durable: Vec<State>,
    running: Slot,
    on_trial: bool,
    confirm_called: BTreeSet<Order>,
    give_up_called: BTreeMap<Order, u16>,
    withdraw_called: BTreeSet<Order>,
    /// How often an armed image was started since it was armed.
    trials: BTreeMap<Order, u64>,
    /// What the loader was about to start: whether the power went before, nobody can know afterwards.
    tried: BTreeSet<Order>,
    floor_reached: u32,
    run: Run,
}

/// Runs a device that left the factory with release 0 until all goals are reached. The power is cut at the first of
/// `cuts`; each further one counts from the cut before.
pub fn run<B: Board>(board: &B, goals: &[Goal], cuts: &[u64]) -> Result<Run, Broken> {
    run_with(Loader::Ours, board, goals, cuts)
}

/// Whose loader runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    Ours,
    /// A seeded bug: it takes an image back at once and records it later, when it happens to load again.
    RevertsAndSaysNothing,
}

pub fn run_with<B: Board>(
    loader: Loader,
    board: &B,
    goals: &[Goal],
    cuts: &[u64],
) -> Result<Run, Broken> {
    let first = image(0, 0);
    board.leave_the_factory(&release(0));
    let flash = board.flash().expect("the factory has power");
    let made = Boot::provision(flash, &mut board.slots(), Slot::A, first, SecurityVersion(0));
    let state = *made.expect("a new device takes its journal").state();
    let mut observer = Observer {
        loader,
        board,
        goals,
        at: 0,
        durable: vec![state],
        running: Slot::A,
        on_trial: false,
        confirm_called: BTreeSet::from([first.order]),
        give_up_called: BTreeMap::new(),
        withdraw_called: BTreeSet::new(),
        trials: BTreeMap::new(),
        tried: BTreeSet::new(),
        floor_reached: 0,
        run: Run::default(),
    };
    let mut cuts = cuts.iter().copied();
    board.cut_at(cuts.next());
    // An install takes two starts, three when it is taken back; a cut may cost one that has to be done again.
    for _ in 0..10 * (goals.len() + cuts.len() + 2) {
        let life = observer.live()?;
        match life {
            Life::Done => return observer.end(),
            Life::Reboot => {}
            Life::Cut => {
                observer.run.cuts += 1;
                observer.run.operations += board.operations();
                board.cut_at(cuts.next());
            }
        }
        board.power_cycle();
    }
    Err(Broken::Other(format!("never came to the end of goal {}", observer.at)))
}

impl<B: Board> Observer<'_, B> {
    fn live(&mut self) -> Result<Life, Broken> {
        match self.load()? {
            Some(()) => {}
            None => return Ok(Life::Cut),
        }
        let life = self.act();
        match life {
            Ok(Some(life)) => Ok(life),
            Ok(None) => Ok(Life::Cut),
            Err(broken) => Err(broken),
        }
    }

    fn open(&mut self) -> Result<Option<Boot<B::Flash>>, Broken> {
        let Some(flash) = self.board.flash() else { return Ok(None) };
        match Boot::open(flash) {
            Ok(boot) => {
                let state = *boot.state();
                if !self.durable.contains(&state) {
                    let expected = &self.durable;
                    let what = format!("expected one of {expected:?}, found {state:?}");
                    return Err(Broken::Other(what));
                }
                // From here on the journal has said which of the two it is.
                self.durable = vec![state];
                Ok(Some(boot))
            }
            Err(_) if !self.board.is_on() => Ok(None),
            Err(e) => Err(Broken::Brick(format!("the journal does not open: {e:?}"))),
        }
    }

    /// The loader.
    fn load(&mut self) -> Result<Option<()>, Broken> {
        let Some(mut boot) = self.open()? else { return Ok(None) };
        let before = *boot.state();
        if self.loader == Loader::RevertsAndSaysNothing && before.phase() == Phase::Trying {
            (self.running, self.on_trial) = (before.good(), false);
            return Ok(Some(()));
        }
        let expected = before
            .decide(|slot, image| self.is_whole(slot, image))
            .map_err(|stuck| Broken::Brick(stuck.to_string()))?;
        // Until the loader is done, either may be durable; what it started by then, nobody knows afterwards.
        self.durable = vec![before, expected.next];
        if expected.choice.reason == Reason::Trial {
            self.tried.insert(expected.choice.image.order);
        }
        let mut watched = false;
        let choice = match boot.load(&mut self.board.slots(), &mut || watched = true) {
            Ok(choice) => choice,
            Err(e) if self.board.is_on() => return Err(Broken::Brick(format!("{e:?}"))),
            Err(_) => return Ok(None),
        };
        if !self.board.is_on() {
            return Ok(None);
        }
        self.run.loads += 1;
        if !self.is_whole(choice.slot, &choice.image) {
            return Err(Broken::Brick(format!("{choice:?} starts, and is not whole")));
        }
        // A function of what is durable alone: the same again from a state and the bytes in the slots.
        if choice != expected.choice || *boot.state() != expected.next {
            return other(format!("from {before:?} expected {expected:?}, found {choice:?}"));
        }
        if choice.image.security.0 < self.floor_reached {
            return other(format!("{choice:?} starts below {}", self.floor_reached));
        }
        if watched != choice.reason.is_trial() {
            return other(format!("{choice:?}: watchdog started: {watched}"));
        }
        let trials = self.trials.get_mut(&choice.image.order);
        match (choice.reason, trials) {
            (Reason::Trial, Some(trials)) if *trials == 0 => *trials = 1,
            (Reason::Trial, trials) => {
                return other(format!("{choice:?} is tried, after {trials:?} trials"));
            }
            (Reason::Confirmed | Reason::Reverted, _) => {}
            (reason, _) => return other(format!("{reason:?} without any damage")),
        }
        self.running = choice.slot;
        self.on_trial = choice.reason.is_trial();
        self.durable = vec![expected.next];
        Ok(Some(()))
    }

    /// The running image's agent: what is to be done next, done.
    fn act(&mut self) -> Result<Option<Life>, Broken> {
        loop {
            let Some(mut boot) = self.open()? else { return Ok(None) };
            let report = boot.report(self.running);
            self.believe(&report)?;
            if !self.is_whole(boot.state().good(), boot.state().image()) {
                return Err(Broken::Brick(format!("no way back: {report:?}")));
            }
            let Some(goal) = self.goals.get(self.at) else { return Ok(Some(Life::Done)) };
            let order = Order(self.at as u64 + 1);
            let mine = report.spare.image().is_some_and(|image| image.order == order);
            let ended = report.last.filter(|last| last.order == order).map(|last| last.how);
            match (report.phase, *goal) {
                (Phase::Steady, Goal::Raise(to)) if report.floor.0 < to => {
                    if !self.make(
                        &mut boot,
                        |s| s.raise(SecurityVersion(to)),
                        |b| b.raise(SecurityVersion(to)).is_ok(),
                    )? {
                        return Ok(None);
                    }
                    self.floor_reached = to;
                }
                (Phase::Steady, Goal::Raise(_)) => self.at += 1,
                (Phase::Trying, Goal::Install(_, fate) | Goal::GoBack(fate)) => {
                    let running = self.running;
                    match fate {
                        Fate::Hangs => return Ok(Some(Life::Reboot)),
                        Fate::Good => {
                            self.confirm_called.insert(order);
                            let make = |b: &mut Boot<_>| b.confirm(running).is_ok();
                            if !self.make(&mut boot, |s| s.confirm(running), make)? {
                                return Ok(None);
                            }
                            self.on_trial = false;
                        }
                        Fate::GivesUp(code) => {
                            self.give_up_called.insert(order, code);
                            let make = |b: &mut Boot<_>| b.give_up(running, code).is_ok();
                            let made = self.make(&mut boot, |s| s.give_up(running, code), make)?;
                            return Ok(made.then_some(Life::Reboot));
                        }
                    }
                }
                // It was cut between arming and taking back, and now runs: it is taken back by the next load.
                (Phase::Trying, _) => return Ok(Some(Life::Reboot)),
                (Phase::Armed, Goal::Withdraw(_)) => {
                    self.withdraw_called.insert(order);
                    let make = |b: &mut Boot<_>| b.withdraw().is_ok();
                    if !self.make(&mut boot, State::withdraw, make)? {
                        return Ok(None);
                    }
                }
                (Phase::Armed, _) if mine => return Ok(Some(Life::Reboot)),
                (Phase::Steady, Goal::Withdraw(_)) if ended.is_some() => self.at += 1,
                (Phase::Steady, Goal::Install(_, fate) | Goal::GoBack(fate))
                    if report.image.is_some_and(|image| image.order == order)
                        || (fate != Fate::Good && ended.is_some()) =>
                {
                    self.at += 1;
                }
                (Phase::Steady, Goal::Install(n, _) | Goal::Withdraw(n)) => {
                    self.trials.insert(order, 0);
                    let Some(true) = self.install(&mut boot, image(n, order.0))? else {
                        return Ok(None);
                    };
                }
                (Phase::Steady, Goal::GoBack(_)) => {
                    self.trials.insert(order, 0);
                    let mut slots = self.board.slots();
                    let make = |b: &mut Boot<_>| b.arm_again(&mut slots, order).is_ok();
                    if !self.make(&mut boot, |s| s.arm_again(order), make)? {
                        return Ok(None);
                    }
                }
                (phase, goal) => return other(format!("{phase:?} on the way to {goal:?}")),
            }
        }
    }

    /// Begin, write, arm.
    fn install(&mut self, boot: &mut Boot<B::Flash>, image: Image) -> Result<Option<bool>, Broken> {
        let mut begun = None;
        let make = |b: &mut Boot<_>| {
            begun = b.begin().ok();
            begun.is_some()
        };
        if !self.make(boot, State::begin, make)? {
            return Ok(None);
        }
        let spare = begun.expect("it was begun");
        let n = image.security.0 as u8;
        if !self.board.write(&spare, &release(n)) {
            return self.cut("writing").map(|()| None);
        }
        let mut slots = self.board.slots();
        let make = |b: &mut Boot<_>| b.arm(&mut slots, spare, image).is_ok();
        Ok(self.make(boot, |s| s.arm(image), make)?.then_some(true))
    }

    /// Makes one move. False: it was cut, and the journal may say that it was made or that it was not.
    fn make(
        &mut self,
        boot: &mut Boot<B::Flash>,
        expected: impl FnOnce(&State) -> Result<State, boot::Refused>,
        make: impl FnOnce(&mut Boot<B::Flash>) -> bool,
    ) -> Result<bool, Broken> {
        let before = *boot.state();
        let after = expected(&before).map_err(|e| Broken::Other(format!("refused: {e}")))?;
        self.durable = vec![before, after];
        if !make(boot) {
            return self.cut("a move").map(|()| false);
        }
        // What was done stays done.
        self.durable = vec![after];
        Ok(true)
    }

    fn cut(&self, what: &str) -> Result<(), Broken> {
        if self.board.is_on() {
            return other(format!("{what} failed, and the power is on"));
        }
        Ok(())
    }

    /// Whether what the device says of itself is so.
    fn believe(&mut self, report: &Report) -> Result<(), Broken> {
        self.run.reports += 1;
        let lie = |what: &str| Err(Broken::FalseReport(format!("{what}: {report:?}")));
        let Some(image) = report.image else { return lie("nothing runs") };
        if report.running != self.running || !report.agrees {
            return lie("another slot runs");
        }
        if !self.is_whole(self.running, &image) {
            return lie("another image runs");
        }
        if self.on_trial != (report.phase == Phase::Trying) {
            return lie("on trial, and not");
        }
        if !self.on_trial && !self.confirm_called.contains(&image.order) {
            return lie("it never confirmed");
        }
        if report.floor.0 < self.floor_reached {
            return lie("the security version was raised higher");
        }
        // The slot that is said to hold an image holds it, whole.
        if report.spare.image().is_some_and(|image| !self.is_whole(self.running.other(), image))
            && report.phase != Phase::Trying
        {
            return lie("the spare slot holds another");
        }
        if let Content::Kept(kept) = report.spare
            && !self.confirm_called.contains(&kept.order)
        {
            return lie("the kept image never confirmed");
        }
        let Some(last) = report.last else { return Ok(()) };
        let tried = self.tried.contains(&last.order);
        let away = report.phase != Phase::Steady || image.order != last.order;
        let is_so = match last.how {
            Ending::Confirmed => tried && self.confirm_called.contains(&last.order),
            Ending::NotConfirmed => tried && away,
            Ending::GaveUp(code) => {
                tried && away && self.give_up_called.get(&last.order) == Some(&code)
            }
            Ending::Withdrawn => self.withdraw_called.contains(&last.order),
            Ending::NotWhole | Ending::BelowFloor | Ending::Decayed => false,
        };
        if is_so { Ok(()) } else { lie("it did not end so") }
    }

    fn is_whole(&self, slot: Slot, image: &Image) -> bool {
        digest(&self.board.holds(slot, image.len as usize)) == image.digest
    }

    fn end(mut self) -> Result<Run, Broken> {
        self.run.operations += self.board.operations();
        Ok(self.run)
    }
}

fn other<T>(what: String) -> Result<T, Broken> {
    Err(Broken::Other(what))
}
