//! Does what [`crate::state`] decides, over flash and slots. Decides nothing.

use crate::flash::{Flash, Geometry};
use crate::journal::{Journal, Unreadable, VERSION};
use crate::slots::{Slots, Spare};
use crate::state::{Choice, Decision, Image, Order, Reason, Refused, Report};
use crate::state::{SecurityVersion, Slot, State, Stuck};
use core::fmt;

/// The journal of a device, opened: by the loader to choose, by the running image to prepare, confirm or give up.
///
/// One at a time: two that are open together would write over each other. After a write that failed, what is durable is
/// unknown: every later call is [`Error::Unsure`], and who opens the journal again finds out.
#[derive(Debug)]
pub struct Boot<F> {
    journal: Journal<F>,
    state: State,
    sure: bool,
}

/// Ends a trial that hangs: the load that follows takes the image back.
pub trait Watchdog {
    /// Called before an unproven image starts. Its deadline is the board's; the image, once it is confirmed, stops it.
    fn start(&mut self);
}

impl<F: FnMut()> Watchdog for F {
    fn start(&mut self) {
        self();
    }
}

#[derive(Debug)]
pub enum Error<F, S = core::convert::Infallible> {
    /// The journal's flash failed.
    Flash(F),
    /// The slots failed.
    Slots(S),
    /// The flash says that it wrote, and reads otherwise: worn out, or not erased.
    NotWritten,
    /// A write failed before: open the journal again.
    Unsure,
    /// Expected at least two sectors, each with room for a record of whole words.
    Geometry(Geometry),
    /// No whole record: the device was never provisioned, or its journal is destroyed.
    NoJournal,
    /// The device has a journal already.
    Provisioned,
    /// The newest record is none that this build understands.
    Foreign {
        version: u8,
    },
    Refused(Refused),
    Stuck(Stuck),
}

impl<F: Flash> Boot<F> {
    /// Gives a new device its journal: the image in the slot is good from now on. Done again after a cut; never over a journal.
    pub fn provision<S: Slots>(
        flash: F,
        slots: &mut S,
        good: Slot,
        image: Image,
        floor: SecurityVersion,
    ) -> Result<Self, Error<F::Error, S::Error>> {
        let refused = Refused::BelowFloor { floor, found: image.security };
        let state = State::new(good, image, floor).ok_or(Error::Refused(refused))?;
        let journal = Journal::create(flash).map_err(unreadable)?.ok_or(Error::Provisioned)?;
        let mut boot = Self { journal, state, sure: true };
        boot.expect_whole(slots, good, &image)?;
        boot.write(state)?;
        Ok(boot)
    }

    /// Reads the newest whole record.
    pub fn open(flash: F) -> Result<Self, Error<F::Error>> {
        let (journal, state) = Journal::open(flash).map_err(unreadable)?;
        Ok(Self { journal, state, sure: true })
    }

    /// The loader: which slot to start, now. What the choice changes is durable when this returns, and the watchdog runs if
    /// what starts is unproven.
    ///
    /// A slot that cannot be read is not whole. A journal that cannot be written never keeps the good image from starting;
    /// an armed one is then not tried, since nobody would know that it was.
    pub fn load<S: Slots>(
        &mut self,
        slots: &mut S,
        watchdog: &mut impl Watchdog,
    ) -> Result<Choice, Error<F::Error>> {
        let mut whole = |slot, image: &Image| {
            slots.digest(slot, image.len).is_ok_and(|found| found == Some(image.digest))
        };
        let decided = self.state.decide(&mut whole).map_err(Error::Stuck)?;
        let Decision { mut choice, next } = decided;
        let recorded = self.write::<core::convert::Infallible>(next).is_ok();
        if !recorded {
            let (good, image) = (self.state.good(), *self.state.image());
            choice.recorded = false;
            if choice.reason == Reason::Trial && whole(good, &image) {
                choice = Choice { slot: good, image, reason: Reason::NotRecorded, recorded: false };
            }
        }
        if choice.reason.is_trial() {
            watchdog.start();
        }
        Ok(choice)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// What to tell, by who runs in the slot that the loader started.
    pub fn report(&self, running: Slot) -> Report {
        self.state.report(running)
    }

    /// Before a byte of the spare slot is written, also when writing goes on after a restart.
    pub fn begin(&mut self) -> Result<Spare, Error<F::Error>> {
        self.make(State::begin)?;
        Ok(Spare(self.state.spare()))
    }

    /// The image lies in the spare slot, whole: it is measured and settled here. The next load tries it, once.
    pub fn arm<S: Slots>(
        &mut self,
        slots: &mut S,
        spare: Spare,
        image: Image,
    ) -> Result<(), Error<F::Error, S::Error>> {
        let next = self.state.arm(image).map_err(Error::Refused)?;
        self.expect_whole(slots, spare.0, &image)?;
        self.write(next)
    }

    /// The next load tries what the spare slot holds already, if it is still whole.
    pub fn arm_again<S: Slots>(
        &mut self,
        slots: &mut S,
        order: Order,
    ) -> Result<(), Error<F::Error, S::Error>> {
        let next = self.state.arm_again(order).map_err(Error::Refused)?;
        let image = *next.content().image().expect("what was armed again is there");
        self.expect_whole(slots, next.spare(), &image)?;
        self.write(next)
    }

    /// What is armed is not to start after all.
    pub fn withdraw(&mut self) -> Result<(), Error<F::Error>> {
        self.make(State::withdraw)
    }

    /// Says the image that runs in this slot: I am good.
    pub fn confirm(&mut self, running: Slot) -> Result<(), Error<F::Error>> {
        self.make(|state| state.confirm(running))
    }

    /// Says the image that runs in this slot: I am bad, start the one before me. The reboot is the caller's.
    pub fn give_up(&mut self, running: Slot, code: u16) -> Result<(), Error<F::Error>> {
        self.make(|state| state.give_up(running, code))
    }

    /// The Director's order after the release has proven itself: nothing below this starts from now on.
    pub fn raise(&mut self, floor: SecurityVersion) -> Result<(), Error<F::Error>> {
        self.make(|state| state.raise(floor))
    }

    fn make(
        &mut self,
        a_move: impl FnOnce(&State) -> Result<State, Refused>,
    ) -> Result<(), Error<F::Error>> {
        let next = a_move(&self.state).map_err(Error::Refused)?;
        self.write(next)
    }

    fn expect_whole<S: Slots>(
        &self,
        slots: &mut S,
        slot: Slot,
        image: &Image,
    ) -> Result<(), Error<F::Error, S::Error>> {
        slots.settle(slot).map_err(Error::Slots)?;
        match slots.digest(slot, image.len).map_err(Error::Slots)? {
            Some(found) if found == image.digest => Ok(()),
            _ => Err(Error::Refused(Refused::NotWhole { slot })),
        }
    }

    /// Returns once the state is durable: at once if it is already.
    fn write<S>(&mut self, next: State) -> Result<(), Error<F::Error, S>> {
        if !self.sure {
            return Err(Error::Unsure);
        }
        if next == self.state && self.journal.has_a_record() {
            return Ok(());
        }
        self.sure = false;
        match self.journal.append(&next) {
            Ok(true) => {
                (self.state, self.sure) = (next, true);
                Ok(())
            }
            Ok(false) => Err(Error::NotWritten),
            Err(e) => Err(Error::Flash(e)),
        }
    }
}

fn unreadable<E, S>(why: Unreadable<E>) -> Error<E, S> {
    match why {
        Unreadable::Flash(e) => Error::Flash(e),
        Unreadable::Geometry(geometry) => Error::Geometry(geometry),
        Unreadable::Empty => Error::NoJournal,
        Unreadable::Foreign(version) => Error::Foreign { version },
    }
}

impl<F, S> fmt::Display for Error<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(_) => f.write_str("cannot read or write the boot journal"),
            Self::Slots(_) => f.write_str("cannot read the image in its slot"),
            Self::NotWritten => f.write_str("the boot journal reads otherwise than it was written"),
            Self::Unsure => {
                f.write_str("an earlier write to the boot journal failed: open it again")
            }
            Self::Geometry(g) => write!(
                f,
                "expected a boot journal of at least 2 sectors of 192 bytes in whole words, found {} of {} \
                 bytes in words of {}",
                g.sectors, g.sector_len, g.word_len
            ),
            Self::NoJournal => {
                f.write_str("no whole record in the boot journal: provision the device")
            }
            Self::Provisioned => f.write_str("the device has a boot journal already"),
            Self::Foreign { version } => write!(
                f,
                "expected a record of version {VERSION} in the boot journal, found one of version {version} that this \
                 build does not know"
            ),
            Self::Refused(_) => f.write_str("the boot journal stays as it is"),
            Self::Stuck(_) => f.write_str("cannot start"),
        }
    }
}

impl<F, S> core::error::Error for Error<F, S>
where
    F: core::error::Error + 'static,
    S: core::error::Error + 'static,
{
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Flash(e) => Some(e),
            Self::Slots(e) => Some(e),
            Self::Refused(why) => Some(why),
            Self::Stuck(why) => Some(why),
            _ => None,
        }
    }
}
