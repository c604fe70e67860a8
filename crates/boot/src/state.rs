//! What is durable of the two slots, the moves that change it, and the loader's choice. Pure: no flash, no bytes.

use core::fmt;

/// SHA-256 of an image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// What an image may not fall below (anti-rollback). Grows when a release mends what must never run again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecurityVersion(pub u32);

/// The caller's number for one install, so that its ending is told apart from another install of the same image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    A,
    B,
}

/// An image as whoever armed it described it, after checking that description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    pub digest: Digest,
    pub len: u64,
    pub security: SecurityVersion,
    pub order: Order,
}

/// What the journal says of the slot that is not the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Nothing that may start: never written, being written, or found damaged.
    Empty,
    /// Was confirmed here once: what is started if the good slot decays.
    Kept(Image),
    /// Was armed and taken back by order before it started. Never started by itself.
    Withdrawn(Image),
    /// Was started and taken back. Never started by itself.
    Failed(Image),
    /// Starts at the next load. `kept`: it was confirmed here once.
    Armed { image: Image, kept: bool },
    /// Runs, and is not confirmed. `gave_up`: it has said itself that it is bad; the number is its own.
    Trying { image: Image, gave_up: Option<u16> },
}

/// Where the device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The good slot runs, and starts again.
    Steady,
    /// The good slot runs; the next load tries the other one.
    Armed,
    /// The other slot runs; the next load takes it back unless it is confirmed before.
    Trying,
}

/// How the last install ended, or the last confirmed image was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ended {
    pub order: Order,
    pub digest: Digest,
    pub how: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It confirmed itself, and is the good image now.
    Confirmed,
    /// Its one trial was recorded, and the next load came before it had confirmed: watchdog, crash or power. Whether the
    /// power went before its first instruction, nobody can know.
    NotConfirmed,
    /// It was started, and said itself that it is bad.
    GaveUp(u16),
    /// It was armed, and not whole when it was to start. It never ran.
    NotWhole,
    /// It was armed, and below the security version when it was to start. It never ran.
    BelowFloor,
    /// It was taken back by order before it started.
    Withdrawn,
    /// It was the good image, and is not whole any more.
    Decayed,
}

/// All that is durable. The good image is always there, and never below the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) floor: SecurityVersion,
    pub(crate) good: Slot,
    pub(crate) image: Image,
    pub(crate) spare: Content,
    pub(crate) last: Option<Ended>,
}

/// Which slot starts, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub slot: Slot,
    pub image: Image,
    pub reason: Reason,
    /// False when the journal could not be written: it may then say otherwise than what runs, and [`State::report`] says so.
    pub recorded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The good image, as before.
    Confirmed,
    /// The armed image, for the first and only time.
    Trial,
    /// The image on trial was not confirmed, or gave up: the good one again.
    Reverted,
    /// What was armed could not start; how, says [`State::last`]. The good one again.
    NotTried,
    /// The good image is not whole: the one that was good before it.
    FellBack,
    /// The image on trial was not confirmed, but the good one is not whole: it goes on trying.
    NoWayBack,
    /// An image is armed, but that it is tried could not be recorded, so it is not: the good one.
    NotRecorded,
}

impl Reason {
    /// Whether what starts is unproven, so that a watchdog has to watch it.
    pub fn is_trial(self) -> bool {
        matches!(self, Self::Trial | Self::NoWayBack)
    }
}

/// The loader's choice and the state to record before it starts: the same one when there is nothing to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub choice: Choice,
    pub next: State,
}

/// Why no slot may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    pub good: Obstacle,
    pub spare: Obstacle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing lies there that was ever confirmed or is armed.
    Nothing,
    NotWhole,
    BelowFloor,
}

/// What a device tells about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub running: Slot,
    /// The running image as the journal knows it. `None` only if journal and loader disagree.
    pub image: Option<Image>,
    pub phase: Phase,
    /// Whether the slot that runs is the one that the journal names. False only after the journal could not be written.
    pub agrees: bool,
    pub floor: SecurityVersion,
    pub spare: Content,
    /// The spare slot's image is below the floor: it will never start again.
    pub spent: bool,
    pub last: Option<Ended>,
}

/// Why a move is not made. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The slot that would be written is the way back, or the order would change what is being judged.
    OnTrial,
    /// Another image than the one that runs speaks.
    NotRunning {
        expected: Slot,
        found: Slot,
    },
    /// Only an image on trial can give up.
    NotOnTrial,
    /// The image on trial has said that it is bad.
    GaveUp(u16),
    BelowFloor {
        floor: SecurityVersion,
        found: SecurityVersion,
    },
    FloorFalls {
        floor: SecurityVersion,
        found: SecurityVersion,
    },
    /// The confirmed image would be below the new floor.
    FloorAboveGood {
        good: SecurityVersion,
        found: SecurityVersion,
    },
    /// The spare slot holds an image that `begin` has not given up.
    NotBegun,
    /// The spare slot holds nothing to arm.
    Nothing,
    /// What lies in the slot is not what is to be armed.
    NotWhole {
        slot: Slot,
    },
}

impl Slot {
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl Content {
    pub fn image(&self) -> Option<&Image> {
        match self {
            Self::Empty => None,
            Self::Kept(image) | Self::Withdrawn(image) | Self::Failed(image) => Some(image),
            Self::Armed { image, .. } | Self::Trying { image, .. } => Some(image),
        }
    }
}

impl State {
    /// A device leaves the factory with one image, which is good. `None` if that is below the floor.
    pub fn new(good: Slot, image: Image, floor: SecurityVersion) -> Option<Self> {
        let state = Self { floor, good, image, spare: Content::Empty, last: None };
        (image.security >= floor).then_some(state)
    }

    pub fn floor(&self) -> SecurityVersion {
        self.floor
    }

    /// The slot whose image is confirmed.
    pub fn good(&self) -> Slot {
        self.good
    }

    /// The confirmed image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The other slot.
    pub fn spare(&self) -> Slot {
        self.good.other()
    }

    pub fn content(&self) -> &Content {
        &self.spare
    }

    pub fn last(&self) -> Option<&Ended> {
        self.last.as_ref()
    }

    pub fn phase(&self) -> Phase {
        match self.spare {
            Content::Armed { .. } => Phase::Armed,
            Content::Trying { .. } => Phase::Trying,
            _ => Phase::Steady,
        }
    }

    /// The slot that runs, from the end of a load to the beginning of the next one.
    pub fn running(&self) -> Slot {
        match self.phase() {
            Phase::Steady | Phase::Armed => self.good,
            Phase::Trying => self.spare(),
        }
    }

    /// What to tell, by who runs in the slot that the loader started.
    pub fn report(&self, running: Slot) -> Report {
        let image =
            if running == self.good { Some(self.image) } else { self.spare.image().copied() };
        Report {
            running,
            image,
            phase: self.phase(),
            agrees: running == self.running(),
            floor: self.floor,
            spare: self.spare,
            spent: self.spare.image().is_some_and(|image| image.security < self.floor),
            last: self.last,
        }
    }

    /// The loader's choice. `whole` measures an image in its slot, and is asked for those only on which it depends.
    ///
    /// Nothing starts that is not whole now, or below the floor (INV-BOOT-2), or that was neither armed nor confirmed. What the
    /// choice changes is recorded before it starts, so that the journal names what runs (INV-BOOT-1).
    pub fn decide(&self, mut whole: impl FnMut(Slot, &Image) -> bool) -> Result<Decision, Stuck> {
        let mut may_start = |slot, image: &Image| match () {
            () if image.security < self.floor => Err(Obstacle::BelowFloor),
            () if !whole(slot, image) => Err(Obstacle::NotWhole),
            () => Ok(()),
        };
        let (good, spare) = (self.good, self.spare());
        let start = |slot, image, reason, next| {
            Ok(Decision { choice: Choice { slot, image, reason, recorded: true }, next })
        };
        match self.spare {
            Content::Armed { image, .. } => match may_start(spare, &image) {
                Ok(()) => {
                    let content = Content::Trying { image, gave_up: None };
                    start(spare, image, Reason::Trial, Self { spare: content, ..*self })
                }
                Err(obstacle) => {
                    may_start(good, &self.image).map_err(|good| Stuck { good, spare: obstacle })?;
                    let next = match obstacle {
                        Obstacle::BelowFloor => {
                            self.ended(Ending::BelowFloor, Content::Failed(image))
                        }
                        _ => self.ended(Ending::NotWhole, Content::Empty),
                    };
                    start(good, self.image, Reason::NotTried, next)
                }
            },
            Content::Trying { image, gave_up } => match may_start(good, &self.image) {
                Ok(()) => {
                    let how = gave_up.map_or(Ending::NotConfirmed, Ending::GaveUp);
                    let next = self.ended(how, Content::Failed(image));
                    start(good, self.image, Reason::Reverted, next)
                }
                // Better an image that was armed than none; nothing changes, so nothing is recorded.
                Err(good) => match may_start(spare, &image) {
                    Ok(()) => start(spare, image, Reason::NoWayBack, *self),
                    Err(spare) => Err(Stuck { good, spare }),
                },
            },
            Content::Empty | Content::Kept(_) | Content::Withdrawn(_) | Content::Failed(_) => {
                let Err(obstacle) = may_start(good, &self.image) else {
                    return start(good, self.image, Reason::Confirmed, *self);
                };
                let Content::Kept(kept) = self.spare else {
                    return Err(Stuck { good: obstacle, spare: Obstacle::Nothing });
                };
                may_start(spare, &kept).map_err(|spare| Stuck { good: obstacle, spare })?;
                let Image { order, digest, .. } = self.image;
                let last = Some(Ended { order, digest, how: Ending::Decayed });
                let next = Self { good: spare, image: kept, spare: Content::Empty, last, ..*self };
                start(spare, kept, Reason::FellBack, next)
            }
        }
    }

    /// The spare slot will be written: from now on nothing in it starts. What was armed there is withdrawn.
    pub fn begin(&self) -> Result<Self, Refused> {
        match self.spare {
            Content::Trying { .. } => Err(Refused::OnTrial),
            Content::Armed { .. } => Ok(self.ended(Ending::Withdrawn, Content::Empty)),
            _ => Ok(Self { spare: Content::Empty, ..*self }),
        }
    }

    /// The next load tries this image, which lies in the spare slot. Only there, and only after `begin`.
    pub fn arm(&self, image: Image) -> Result<Self, Refused> {
        match self.spare {
            Content::Trying { .. } => return Err(Refused::OnTrial),
            Content::Armed { image: armed, .. } if armed == image => return Ok(*self),
            Content::Empty => {}
            _ => return Err(Refused::NotBegun),
        }
        self.above_floor(&image)?;
        Ok(Self { spare: Content::Armed { image, kept: false }, ..*self })
    }

    /// The next load tries what the spare slot holds already: the image from before an update, say.
    pub fn arm_again(&self, order: Order) -> Result<Self, Refused> {
        let (image, kept) = match self.spare {
            Content::Empty => return Err(Refused::Nothing),
            Content::Trying { .. } => return Err(Refused::OnTrial),
            Content::Armed { image, kept } => (image, kept),
            Content::Kept(image) => (image, true),
            Content::Withdrawn(image) | Content::Failed(image) => (image, false),
        };
        self.above_floor(&image)?;
        let image = Image { order, ..image };
        Ok(Self { spare: Content::Armed { image, kept }, ..*self })
    }

    /// What is armed is not to start after all. Nothing is armed: nothing changes.
    pub fn withdraw(&self) -> Result<Self, Refused> {
        match self.spare {
            Content::Trying { .. } => Err(Refused::OnTrial),
            Content::Armed { image, kept: true } => {
                Ok(self.ended(Ending::Withdrawn, Content::Kept(image)))
            }
            Content::Armed { image, kept: false } => {
                Ok(self.ended(Ending::Withdrawn, Content::Withdrawn(image)))
            }
            _ => Ok(*self),
        }
    }

    /// The image on trial, which runs in this slot, is good; the one before it is kept. The security version stays as it
    /// is, so that the way back stays open. Who is confirmed already may say so again.
    pub fn confirm(&self, running: Slot) -> Result<Self, Refused> {
        self.speaks(running)?;
        match self.spare {
            Content::Trying { gave_up: Some(code), .. } => Err(Refused::GaveUp(code)),
            Content::Trying { image, gave_up: None } => {
                let ended = self.ended(Ending::Confirmed, Content::Kept(self.image));
                Ok(Self { good: running, image, ..ended })
            }
            _ => Ok(*self),
        }
    }

    /// The image on trial, which runs in this slot, is bad, by its own word: the next load takes it back. The first reason
    /// stays.
    pub fn give_up(&self, running: Slot, code: u16) -> Result<Self, Refused> {
        self.speaks(running)?;
        match self.spare {
            Content::Trying { gave_up: Some(_), .. } => Ok(*self),
            Content::Trying { image, gave_up: None } => {
                Ok(Self { spare: Content::Trying { image, gave_up: Some(code) }, ..*self })
            }
            _ => Err(Refused::NotOnTrial),
        }
    }

    /// Nothing below this starts from now on. An order of its own, after a confirmed image satisfies it: never part of a
    /// confirm, which would close the way back before the fleet has shown that the release is good.
    pub fn raise(&self, floor: SecurityVersion) -> Result<Self, Refused> {
        match () {
            () if self.phase() == Phase::Trying => Err(Refused::OnTrial),
            () if floor < self.floor => {
                Err(Refused::FloorFalls { floor: self.floor, found: floor })
            }
            () if floor > self.image.security => {
                Err(Refused::FloorAboveGood { good: self.image.security, found: floor })
            }
            () => Ok(Self { floor, ..*self }),
        }
    }

    /// Whether whoever says that he runs in this slot can be whom the journal says to run.
    fn speaks(&self, running: Slot) -> Result<(), Refused> {
        let expected = self.running();
        if running == expected {
            Ok(())
        } else {
            Err(Refused::NotRunning { expected, found: running })
        }
    }

    fn above_floor(&self, image: &Image) -> Result<(), Refused> {
        if image.security < self.floor {
            return Err(Refused::BelowFloor { floor: self.floor, found: image.security });
        }
        Ok(())
    }

    /// What was in the spare slot has come to an end.
    fn ended(&self, how: Ending, spare: Content) -> Self {
        let last = self.spare.image().map(|i| Ended { order: i.order, digest: i.digest, how });
        Self { spare, last, ..*self }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SecurityVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnTrial => {
                f.write_str("an image is on trial: expected it to be confirmed or taken back first")
            }
            Self::NotRunning { expected, found } => {
                write!(f, "expected slot {expected} to run, found slot {found}")
            }
            Self::NotOnTrial => f.write_str("expected an image on trial, found a confirmed one"),
            Self::GaveUp(code) => {
                write!(f, "the image on trial has given up (code {code}) and cannot be confirmed")
            }
            Self::BelowFloor { floor, found } => {
                write!(f, "expected an image of security version {floor} or later, found {found}")
            }
            Self::FloorFalls { floor, found } => {
                write!(f, "expected security version {floor} or later, found {found}")
            }
            Self::FloorAboveGood { good, found } => write!(
                f,
                "expected at most security version {good}, which the confirmed image has, found {found}"
            ),
            Self::NotBegun => f.write_str("expected a spare slot that was begun anew"),
            Self::Nothing => f.write_str("the spare slot holds nothing to arm"),
            Self::NotWhole { slot } => {
                write!(f, "what lies in slot {slot} is not the image that is to be armed")
            }
        }
    }
}

impl core::error::Error for Refused {}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "holds nothing that was confirmed or armed",
            Self::NotWhole => "is not whole",
            Self::BelowFloor => "is below the security version",
        })
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no slot may start: the good one {}, the spare one {}", self.good, self.spare)
    }
}

impl core::error::Error for Stuck {}

#[cfg(test)]
mod tests;
