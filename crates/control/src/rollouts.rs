//! Carries rollouts out: hands events to them, writes what comes out, and does what they ask for.
//!
//! ```text
//!   check-in ─┐                         ┌─▶ one transaction: state, permits, manifest, events, the device's answer
//!   operator ─┼─▶ turn ─▶ book ─▶ step ─┤
//!   time ─────┘                         └─▶ book ─▶ what is pending: passes over the cohort, questions of the gate
//! ```
//!
//! Who moves a rollout holds the *turn*: it asks the [`Book`] what would become of it, writes that, and puts it into the book
//! after the commit. Whoever only looks, a check-in for which nothing has changed among them, does not wait for it.
//!
//! Promises: a permit is issued, counted and told as one transaction; what a device is told was made of a state that is
//! durable; no other than this writes these tables, and who writes what was overtaken is refused (INV-STATE-1). What was
//! under way when control stopped goes on: it is pending in the state itself.
//! Never: decides when a wave opens or who installs: `rollout` does. Asks the time-series store while it holds the turn.

pub mod book;
pub(crate) mod call;
pub mod draft;
pub mod gate;
pub mod next;
pub mod signals;
pub mod table;
mod told;

use crate::approvals::{self, ApprovalError, NeedsTwo, Word};
use crate::checkin::{Refused, Sealed};
use crate::director::{Asked, Director, DirectorError};
use crate::directory::Directory;
use crate::inventory::table as inventory;
use crate::metrics::Metrics;
use crate::principal::Actor;
use crate::registry::{Registry, RegistryError};
use crate::releases::{Releases, release};
use crate::station::now;
use api::approval::Widening;
use api::rollout::{AskedSignal, NewRollout};
use api::update::CheckIn;
use api::{Ask, Query};
use book::{
    Book, CheckedIn, Due, Leave, Live, Moved, Number, Ordered, Ticked, Unfit, Wanted, moment,
};
use draft::{DraftError, Found, Members, Named};
use evidence::event::Said;
use model::{DeviceId, ProductId, RolloutId, Timestamp, Version, told as text_of};
use rollout::{Answer, Command, Event, Happened, Known, Position, Saved, State};
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use table::TableError;
use tokio::sync::{Mutex, Notify};
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use trust::tuf::Target;

/// Devices that a pass looks at before it lets others at the book.
const PASS_DEVICES: usize = 4096;
/// Permits that fall silent in one transaction.
const OVERDUE_MAX: usize = 256;
/// The longest that the driver sleeps: a clock that was set forward is noticed by then.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// After something failed it is tried again no sooner.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// The longest that one question of a gate may run.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(60);

/// Why a rollout is not made, or not moved.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    #[error(transparent)]
    Draft(#[from] DraftError),
    #[error("no rollout `{0}`")]
    Unknown(RolloutId),
    #[error("rollout `{0}` is there already, and was ordered otherwise")]
    Taken(RolloutId),
    #[error("cannot {} rollout `{rollout}`, which is {phase}", command.as_str())]
    NotFromHere { rollout: RolloutId, command: api::rollout::RolloutCommand, phase: rollout::Named },
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("the vendor's repository cannot be relied on: {0}")]
    NoRepository(String),
    #[error("the vendor names no image of {product} {version}")]
    UnknownRelease { product: ProductId, version: Version },
    #[error(
        "the vendor names {found} images of {product} {version}, expected one: a rollout is of one image"
    )]
    ManyImages { product: ProductId, version: Version, found: usize },
    #[error("no device `{0}`: expected one of the fleet")]
    UnknownDevice(DeviceId),
    #[error(transparent)]
    NeedsTwo(#[from] NeedsTwo),
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    #[error(transparent)]
    Table(#[from] TableError),
}

impl From<RegistryError> for RolloutError {
    fn from(error: RegistryError) -> Self {
        Self::Table(error.into())
    }
}

/// Why a check-in has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckInError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("how device `{0}` stands has changed meanwhile")]
    StandingChanged(DeviceId),
    #[error(transparent)]
    Director(#[from] DirectorError),
    #[error(transparent)]
    Table(#[from] TableError),
}

impl From<RegistryError> for CheckInError {
    fn from(error: RegistryError) -> Self {
        Self::Table(error.into())
    }
}

/// What was done, and how many events the evidence log has to cover before anybody hears of it.
#[derive(Clone, Debug)]
pub struct Told<T> {
    pub value: T,
    pub events: u64,
}

/// What a device is answered.
#[derive(Clone, Debug)]
pub struct Answered {
    pub check_in: CheckIn,
    /// How many events the evidence log has to cover before it leaves: all that gave this device leave for something.
    pub leave: u64,
    /// And how many tell of the rest: facts, and that something was halted. A log that takes nothing does not keep a
    /// device from hearing of a halt.
    pub said: u64,
    /// What became of the device's permits by this check-in.
    pub moved: Vec<(RolloutId, Known)>,
    /// It says something else of its newest install than it said last.
    pub says_new_outcome: bool,
}

/// The site's rollouts. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Rollouts(Arc<Inner>);

struct Inner {
    registry: Registry,
    releases: Releases,
    director: Arc<Director>,
    query: Arc<dyn Query>,
    metrics: Metrics,
    book: RwLock<Book>,
    /// Who holds it may write: the book is then what the tables say until the transaction is over.
    turn: Mutex<()>,
    /// Something was moved: there may be something to do.
    stirred: Notify,
}

impl Rollouts {
    /// Reads what is kept.
    pub async fn open(
        registry: Registry,
        releases: Releases,
        director: Arc<Director>,
        query: Arc<dyn Query>,
        metrics: Metrics,
    ) -> Result<Self, RegistryError> {
        let book = RwLock::new(read(&registry).await?);
        let (turn, stirred) = (Mutex::new(()), Notify::new());
        Ok(Self(Arc::new(Inner {
            registry,
            releases,
            director,
            query,
            metrics,
            book,
            turn,
            stirred,
        })))
    }

    pub fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.0.book.read().expect("nothing panics while it holds the book")
    }

    /// Returns when what is being written now is in the book.
    pub async fn settled(&self) {
        drop(self.0.turn.lock().await);
    }

    fn book_mut(&self) -> RwLockWriteGuard<'_, Book> {
        self.0.book.write().expect("nothing panics while it holds the book")
    }

    /// Takes a device's manifest, and says what the Director answers to it. Unless `may_issue`, no device gets a permit.
    /// `room` is what it takes of the room that there is, until its work has ended.
    pub async fn check_in(
        &self,
        sealed: Sealed,
        may_issue: bool,
        room: impl Send + 'static,
    ) -> Result<Answered, CheckInError> {
        if let Some(answer) = self.at_once(&sealed, may_issue, now())? {
            return Ok(answer);
        }
        // To its end, also if the gateway hangs up: between the commit and the book nobody may go away.
        let this = self.clone();
        let work = tokio::spawn(async move {
            let answer = this.check_in_in_turn(sealed, may_issue).await;
            drop(room);
            answer
        });
        work.await.unwrap_or_else(|_| Err(RegistryError::GivenUp.into()))
    }

    /// Most check-ins say what was said before, and nothing has changed for their device: they cost no transaction. A
    /// counter that is remembered in memory alone is forgotten at a restart; what could be shown again then says the same.
    fn at_once(
        &self,
        sealed: &Sealed,
        may_issue: bool,
        at: Timestamp,
    ) -> Result<Option<Answered>, CheckInError> {
        let directory = self.0.registry.directory();
        let leave = if may_issue { Leave::Any } else { Leave::NoPermit };
        let checked = self.book().check_in(sealed, at, leave)?;
        if checked.changes() {
            return Ok(None);
        }
        let orders = self.targets(&checked, at);
        let asked = Asked {
            device: &sealed.device,
            manifest: &sealed.manifest,
            orders: &orders,
            halted: &checked.halted,
        };
        let site = self.0.registry.generation();
        let Some(answer) = self.0.director.at_once(&asked, directory.generation(), site, at) else {
            return Ok(None);
        };
        let check_in = answer?;
        let raises = checked.raises();
        let CheckedIn { device, kept, .. } = checked;
        let leave = if raises { self.0.registry.events() } else { kept.events };
        let mut book = self.book_mut();
        // Another one of this device was faster, or is being written: what was looked at is not what holds.
        let is_next = book.manifest(&device).is_some_and(|known| known.number + 1 == kept.number);
        if !is_next || book.is_being_written(&device) {
            return Ok(None);
        }
        book.keep(device, kept);
        let (moved, says_new_outcome) = (Vec::new(), false);
        Ok(Some(Answered { check_in, leave, said: leave, moved, says_new_outcome }))
    }

    async fn check_in_in_turn(
        &self,
        sealed: Sealed,
        may_issue: bool,
    ) -> Result<Answered, CheckInError> {
        let _turn = self.0.turn.lock().await;
        // Until it is written and in the book, nothing that this device says is answered beside it.
        self.book_mut().writes(Some(sealed.device.id.clone()));
        let answer = self.take_check_in(sealed, may_issue).await;
        self.book_mut().writes(None);
        answer
    }

    /// To be called by who holds the turn, in a task that nobody gives up.
    async fn take_check_in(
        &self,
        mut sealed: Sealed,
        may_issue: bool,
    ) -> Result<Answered, CheckInError> {
        let at = now();
        let directory = self.0.registry.directory();
        let id = sealed.device.id.clone();
        // It may have been revoked or put in quarantine since the message was opened.
        if let Some(device) = directory.device(&id) {
            sealed.device = device.clone();
        }
        let standing = sealed.device.standing;
        if standing.has_ended() {
            return Err(Refused::Revoked(id).into());
        }
        // Nothing is issued any more by who has just heard that he is an old copy.
        let is_behind =
            self.0.director.is_behind(&sealed.manifest, self.0.registry.generation(), at);
        let leave = match (is_behind, may_issue) {
            (true, _) => Leave::Hold,
            (false, true) => Leave::Any,
            (false, false) => Leave::NoPermit,
        };
        let (checked, writes, says_new_outcome) = {
            let book = self.book();
            let checked = book.check_in(&sealed, at, leave)?;
            let writes = self.writes(&book, &checked.moved, &Mover::Site, at);
            let before = book.manifest(&id).and_then(|kept| kept.manifest().outcome);
            (checked, writes, before != sealed.manifest.outcome)
        };
        let orders = self.targets(&checked, at);
        // Else it is kept in memory alone, as if it had been answered at once: a lease was due, or this is the first one
        // since the start.
        let is_kept = checked.changes();
        let (director, kept, halted) =
            (self.0.director.clone(), checked.kept.clone(), checked.halted.clone());
        let done = self.0.registry.step(move |step| {
            Box::pin(async move {
                let device = step.directory().device(&id).cloned();
                let device = device.filter(|device| device.standing == standing);
                let device = device.ok_or_else(|| CheckInError::StandingChanged(id.clone()))?;
                if is_kept {
                    table::keep(step.tx(), &id, &kept).await?;
                    let (number, said) = (kept.number, &sealed.manifest);
                    inventory::runs(step.tx(), &id, said, number, kept.received_at).await?;
                }
                for write in &writes {
                    write.carry_out(step).await?;
                }
                let asked = Asked {
                    device: &device,
                    manifest: &sealed.manifest,
                    orders: &orders,
                    halted: &halted,
                };
                Ok(director.answer(step, &asked, at).await?)
            })
        });
        let (check_in, learnt, said) = match done.await {
            Ok(done) => (done.value.0, done.value.1, done.events),
            Err(error) => {
                if let CheckInError::Table(_) | CheckInError::Director(DirectorError::Registry(_)) =
                    error
                {
                    self.read_again().await;
                }
                return Err(error);
            }
        };
        self.0.director.learn(learnt);
        let raises = checked.raises();
        let CheckedIn { device, mut kept, moved, .. } = checked;
        if moved.iter().any(|moved| moved.gives_leave(&device)) {
            kept.events = said;
        }
        let leave = if raises { said } else { kept.events };
        let permits = moved.iter().flat_map(|moved| {
            let own = moved.permits.iter().filter(|(holder, _)| *holder == device);
            own.map(|(_, permit)| (moved.rollout.clone(), permit.known))
        });
        let permits = permits.collect();
        self.take(moved, |book| book.keep(device, kept));
        Ok(Answered { check_in, leave, said, moved: permits, says_new_outcome })
    }

    /// The vendor's words for what a device is ordered. What the vendor does not name (any more) cannot be ordered: no
    /// device would follow it.
    fn targets(&self, checked: &CheckedIn, at: Timestamp) -> Vec<Target> {
        let published = self.0.releases.published();
        let named = |ordered: &Ordered| {
            let published = published.as_deref()?;
            let Ordered { product, digest, rollout, raise } = ordered;
            let target = published.by_digest(product, *digest)?;
            let raise = raise.then(|| release(target).security_version);
            published.order(product, *digest, rollout.clone(), raise)
        };
        let mut targets = Vec::new();
        for ordered in checked.orders.iter().flatten() {
            match named(ordered) {
                Some(target) => targets.push(target),
                None => {
                    self.0.metrics.orders_unpublished.inc();
                    tracing::warn!(
                        device = %checked.device, product = %ordered.product, digest = %ordered.digest,
                        at_us = at.as_us(), "ordered what the vendor does not name"
                    );
                }
            }
        }
        targets
    }

    /// Makes a rollout of what somebody wrote, and starts it if it says so. `word` is a second person's, where it takes two.
    pub async fn create(
        &self,
        new: NewRollout,
        actor: Actor,
        word: Option<Word>,
    ) -> Result<Told<api::rollout::Rollout>, RolloutError> {
        let this = self.clone();
        let work = tokio::spawn(async move { this.create_in_turn(new, actor, word).await });
        work.await.unwrap_or_else(|_| Err(RegistryError::GivenUp.into()))
    }

    async fn create_in_turn(
        &self,
        new: NewRollout,
        actor: Actor,
        word: Option<Word>,
    ) -> Result<Told<api::rollout::Rollout>, RolloutError> {
        let named = Named::read(&new)?;
        let known = || match (self.known(&named, &new)?, &named.id, &word) {
            // Somebody has made it, and not by this word.
            (Some(_), Some(id), Some(_)) => Err(RolloutError::Taken(id.clone())),
            (known, ..) => Ok(known),
        };
        if let Some(known) = known()? {
            return Ok(known);
        }
        let (digest, members) = self.image(&named)?;
        let directory = self.0.registry.directory();
        if let Some(id) = members.devices.iter().find(|id| directory.device(id).is_none()) {
            return Err(RolloutError::UnknownDevice(id.clone()));
        }
        let cohort = self.cohort(&named.product, &members).await;
        let _turn = self.0.turn.lock().await;
        // Somebody may have made it meanwhile.
        if let Some(known) = known()? {
            return Ok(known);
        }
        let at = now();
        let takes_two = new.start && approvals::is_emergency(&new, cohort);
        let (number, live, told) = {
            let book = self.book();
            book.expect_room(moment(at))?;
            let rollout = match &named.id {
                Some(id) => id.clone(),
                None => RolloutId::new(book.free_name(&named.product, named.version))
                    .map_err(DraftError::from)?,
            };
            let generation = self.0.registry.generation();
            let found = Found { rollout, generation, digest, cohort };
            let plan = draft::plan(&new, &named, found)?;
            let is_started = new.start;
            let saved = Saved { plan, state: State::new() };
            let mut live = Live::new(saved, new, members, at);
            let number = book.next_number();
            let mut told = vec![told::created(&live, &actor, at)];
            if is_started {
                book.fits(number, &live, Command::Start, moment(at))?;
                let moved = live.moved(number, vec![Event::Command(Command::Start)], moment(at));
                told.extend(told::moved(&live, &moved, &Mover::Person(actor), at));
                live.saved.state = moved.state;
            }
            (number, live, told)
        };
        self.expect_two(takes_two, word.as_ref())?;
        let two = Two { takes_two, second: word };
        let written = live.clone();
        let done = self.0.registry.step(move |step| {
            Box::pin(async move {
                two.expect(step).await?;
                table::add(step.tx(), number, &written).await?;
                for said in told {
                    step.say(said).await?;
                }
                Ok::<_, RolloutError>(())
            })
        });
        let events = match done.await {
            Ok(done) => done.events,
            Err(error) => {
                self.read_again().await;
                return Err(error);
            }
        };
        let value = told::shown(&live);
        self.book_mut().add(number, live);
        self.0.stirred.notify_one();
        Ok(Told { value, events })
    }

    /// Before anything is written. It is asked once more where it is: [`Two::expect`].
    fn expect_two(&self, takes_two: bool, word: Option<&Word>) -> Result<(), NeedsTwo> {
        let what = Widening::EmergencyRollout;
        match takes_two && word.is_none() && self.0.registry.people().needs_two(what) {
            true => Err(NeedsTwo(what)),
            false => Ok(()),
        }
    }

    /// A call whose answer was lost can be made again: the same order under the same name is the same rollout.
    fn known(
        &self,
        named: &Named,
        new: &NewRollout,
    ) -> Result<Option<Told<api::rollout::Rollout>>, RolloutError> {
        let book = self.book();
        let Some(id) = &named.id else { return Ok(None) };
        let Some(live) = book.number(id).and_then(|number| book.live(number)) else {
            return Ok(None);
        };
        if live.order != *new {
            return Err(RolloutError::Taken(id.clone()));
        }
        Ok(Some(Told { value: told::shown(live), events: self.0.registry.events() }))
    }

    /// The one image of a release, and whom it could be for.
    fn image(&self, named: &Named) -> Result<(model::Digest, Members), RolloutError> {
        let none = |why: &str| RolloutError::NoRepository(why.to_owned());
        let published = self.0.releases.published();
        let published = published.ok_or_else(|| {
            none(&self.0.releases.shown().failed.unwrap_or("nothing is published".into()))
        })?;
        if published.has_ended(now()) {
            return Err(none("what it publishes has ended"));
        }
        let (product, version) = (named.product.clone(), named.version);
        let images: Vec<&Target> = published.images(&product, version).collect();
        let image = match images.as_slice() {
            [image] => image,
            [] => return Err(RolloutError::UnknownRelease { product, version }),
            images => {
                let found = images.len();
                return Err(RolloutError::ManyImages { product, version, found });
            }
        };
        let digest = image.hashes.sha256.expect("what is published has one");
        let members = Members {
            zones: named.zones.clone(),
            groups: named.groups.clone(),
            devices: named.devices.clone(),
            hardware: release(image).hardware.iter().cloned().collect(),
        };
        Ok((digest, members))
    }

    /// Carries out what a person said, or says why not. A refusal is an event too.
    pub async fn command(
        &self,
        id: &RolloutId,
        command: api::rollout::RolloutCommand,
        actor: Actor,
        word: Option<Word>,
    ) -> Result<Told<api::rollout::Rollout>, RolloutError> {
        let (this, id) = (self.clone(), id.clone());
        let work =
            tokio::spawn(async move { this.command_in_turn(&id, command, actor, word).await });
        work.await.unwrap_or_else(|_| Err(RegistryError::GivenUp.into()))
    }

    async fn command_in_turn(
        &self,
        id: &RolloutId,
        word: api::rollout::RolloutCommand,
        actor: Actor,
        second: Option<Word>,
    ) -> Result<Told<api::rollout::Rollout>, RolloutError> {
        let _turn = self.0.turn.lock().await;
        let unknown = || RolloutError::Unknown(id.clone());
        let number = self.book().number(id).ok_or_else(unknown)?;
        let command = told::command(word);
        let (unfit, takes_two) = {
            let book = self.book();
            let live = book.live(number).ok_or_else(unknown)?;
            let at = now();
            let unfit = book.fits(number, live, command, moment(at)).err();
            let unfit = unfit.map(|unfit| (told::refused(live, word, &unfit, &actor, at), unfit));
            // Whoever goes on with what was begun does not begin it.
            let phase = live.state().phase.name();
            let begins = command == Command::Start && phase == rollout::Named::Planned;
            if let (false, Some(_)) = (begins, &second) {
                let (rollout, command) = (id.clone(), word);
                return Err(RolloutError::NotFromHere { rollout, command, phase });
            }
            (unfit, begins && approvals::is_emergency(&live.order, live.plan().cohort))
        };
        if let Some((said, unfit)) = unfit {
            // A move that is refused is an event (INV-STATE-1); there is nothing else to write.
            let step = self
                .0
                .registry
                .step(move |step| Box::pin(async move { step.say(said).await.map(drop) }));
            step.await.map_err(|error: RegistryError| error)?;
            return Err(unfit.into());
        }
        self.expect_two(takes_two, second.as_ref())?;
        let events = vec![Event::Command(command)];
        let done = self
            .move_in_turn(number, events, Mover::Person(actor), Two { takes_two, second })
            .await?;
        let Some(Told { value: happened, events }) = done else { return Err(unknown()) };
        let refused = happened.iter().find_map(|what| match what {
            Happened::Refused { phase, .. } => Some(*phase),
            _ => None,
        });
        if let Some(phase) = refused {
            let (rollout, command) = (id.clone(), word);
            return Err(RolloutError::NotFromHere { rollout, command, phase });
        }
        let book = self.book();
        let live = book.live(number).ok_or_else(unknown)?;
        Ok(Told { value: told::shown(live), events })
    }

    /// Moves a rollout by what came of its own work. Says whether it moved. The events are made in turn: what they say of
    /// permits then still holds.
    async fn feed(
        &self,
        number: Number,
        events: impl FnOnce(&Book) -> Vec<Event> + Send + 'static,
    ) -> Result<bool, RolloutError> {
        let this = self.clone();
        let work = tokio::spawn(async move {
            let _turn = this.0.turn.lock().await;
            let events = events(&this.book());
            this.move_in_turn(number, events, Mover::Site, Two::default()).await
        });
        let moved = work.await.unwrap_or_else(|_| Err(RegistryError::GivenUp.into()))?;
        Ok(moved.is_some())
    }

    /// To be called by who holds the turn, in a task that nobody gives up.
    async fn move_in_turn(
        &self,
        number: Number,
        events: Vec<Event>,
        mover: Mover,
        two: Two,
    ) -> Result<Option<Told<Vec<Happened>>>, RolloutError> {
        let at = now();
        let (moved, writes) = {
            let book = self.book();
            let asked = book.live(number).map(|live| signals::asked(live, &events, at));
            let moved = book.moved(number, events, moment(at));
            let Some(moved) = moved.filter(|moved| !moved.is_nothing()) else { return Ok(None) };
            if book.live(number).is_some_and(|live| live.is_known(&moved)) {
                return Ok(None);
            }
            let mut writes = self.writes(&book, std::slice::from_ref(&moved), &mover, at);
            for write in &mut writes {
                write.asked = asked.clone().unwrap_or_default();
            }
            (moved, writes)
        };
        let done = self.0.registry.step(move |step| {
            Box::pin(async move {
                two.expect(step).await?;
                for write in &writes {
                    write.carry_out(step).await?;
                }
                Ok::<_, RolloutError>(())
            })
        });
        let events = match done.await {
            Ok(done) => done.events,
            Err(error) => {
                self.read_again().await;
                return Err(error);
            }
        };
        let happened = moved.happened.clone();
        self.take(vec![moved], |_| ());
        Ok(Some(Told { value: happened, events }))
    }

    fn writes(&self, book: &Book, moved: &[Moved], mover: &Mover, at: Timestamp) -> Vec<Write> {
        let write = |moved: &Moved| {
            let live = book.live(moved.number).expect("it was moved in this book");
            let told = told::moved(live, moved, mover, at);
            let asked = Vec::new();
            Write { plan: live.plan().clone(), moved: moved.clone(), told, asked }
        };
        moved.iter().map(write).collect()
    }

    /// Puts what was committed into the book.
    fn take(&self, moved: Vec<Moved>, also: impl FnOnce(&mut Book)) {
        {
            let mut book = self.book_mut();
            for moved in &moved {
                for (_, permit) in &moved.permits {
                    self.0.metrics.permits.with_label_values(&[table::word(permit.known)]).inc();
                }
            }
            let is_moved = !moved.is_empty();
            moved.into_iter().for_each(|moved| book.take(moved));
            also(&mut book);
            if !is_moved {
                return;
            }
        }
        self.0.stirred.notify_one();
    }

    /// After a write that did not end as it should: what holds is what the tables say. To be called by who holds the turn.
    async fn read_again(&self) {
        match read(&self.0.registry).await {
            Ok(book) => *self.book_mut() = book,
            // The registry is closed, or it has failed: then control stops, and finds out at its next start.
            Err(error) => tracing::error!(error = %text_of(&error), "rollouts cannot be read"),
        }
        self.0.stirred.notify_one();
    }

    /// How many belong to a cohort now.
    async fn cohort(&self, product: &ProductId, members: &Members) -> u64 {
        let (product, members) = (product.clone(), members.clone());
        let parts = self.pass(move |book, directory, after| {
            let wanted = Wanted { product: &product, members: &members, joined_by: None };
            book.cohort(&wanted, directory, after, PASS_DEVICES)
        });
        parts.await.into_iter().sum()
    }

    /// A wave of so many devices, of all whom it could reach. `None`: that is nobody.
    async fn opened(&self, number: Number, count: u64) -> Option<rollout::Opened> {
        let parts = self.pass(move |book, directory, after| {
            book.positions(number, directory, after, PASS_DEVICES)
        });
        let parts = parts.await;
        let open = move || rollout::open(parts.concat(), count);
        tokio::task::spawn_blocking(open).await.unwrap_or_default()
    }

    /// One pass over all manifests, in parts, so that check-ins do not wait for its end; and beside the others' work.
    async fn pass<T: Send + 'static>(
        &self,
        part: impl Fn(&Book, &Directory, Option<&DeviceId>) -> (T, Option<DeviceId>) + Send + 'static,
    ) -> Vec<T> {
        let this = self.clone();
        let pass = move || {
            let directory = this.0.registry.directory();
            let (mut parts, mut after) = (Vec::new(), None);
            loop {
                let (found, last) = part(&this.book(), &directory, after.as_ref());
                parts.push(found);
                match last {
                    Some(last) => after = Some(last),
                    None => return parts,
                }
            }
        };
        tokio::task::spawn_blocking(pass).await.unwrap_or_default()
    }

    /// Does what rollouts wait for, until `draining`. One of these runs in a process.
    pub(crate) async fn run(self, tasks: TaskTracker, draining: impl Future<Output = ()>) {
        let mut draining = std::pin::pin!(draining);
        let mut hand = Hand::new(self.clone(), tasks);
        loop {
            let wait = hand.round().await;
            tokio::select! {
                () = draining.as_mut() => break,
                () = self.0.stirred.notified(), if wait != TRY_AGAIN => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        hand.memory.asked.into_values().for_each(|asked| asked.task.abort());
    }

    /// Whether what failed would fail for each rollout: the disk is full, or the registry is closed. What got past the code to
    /// the schema is a broken invariant of one.
    fn is_for_all(&self, error: &RolloutError) -> bool {
        let RolloutError::Table(TableError::Registry(error)) = error else { return false };
        match error.broken_invariant() {
            Some(invariant) => {
                self.0.metrics.count_violation(invariant);
                false
            }
            None => !matches!(error, RegistryError::GivenUp),
        }
    }

    /// Asks a gate's questions, one after the other, each within its time.
    async fn ask(&self, number: Number, question: u64) {
        let Some((id, names, questions, time_max)) = ({
            let book = self.book();
            book.live(number).map(|live| {
                let (plan, state) = (live.plan(), live.state());
                let names: Vec<String> = plan.signals.iter().map(|s| s.name.clone()).collect();
                // An answer that comes when it is asked for again already would count for nothing.
                let time = QUESTION_TIME_MAX.min(Duration::from_millis(plan.ask_again_ms));
                let time = time / u32::try_from(names.len().max(1)).unwrap_or(1);
                (plan.rollout.clone(), names, gate::questions(plan, state), time)
            })
        }) else {
            return;
        };
        let (mut answers, mut held) = (Vec::new(), None);
        for (name, sql) in names.iter().zip(questions) {
            let (answer, why) = self.answer(sql, time_max).await;
            let label = match answer {
                Answer::Number(_) => "number",
                Answer::Empty => "empty",
                Answer::Failed => "failed",
            };
            self.0.metrics.gate_answers.with_label_values(&[label]).inc();
            if let Some(why) = why {
                tracing::warn!(rollout = %id, signal = %name, %why, "a gate's signal has no number");
                held.get_or_insert(format!("signal {name:?} gave no number: {why}"));
            }
            answers.push(answer);
        }
        let answered = Event::Answered { question, answers };
        if let Err(error) = self.feed(number, |_| vec![answered]).await {
            // It is asked again after its time.
            tracing::error!(rollout = %id, error = %text_of(&error), "a gate's answer was not taken");
        }
        if let Some(why) = held
            && let Some(live) = self.book_mut().live_mut(number)
            && let Some(held) = &mut live.held
        {
            held.why = why;
        }
    }

    async fn answer(&self, sql: String, time_max: Duration) -> (Answer, Option<String>) {
        let time_max_ms = u64::try_from(time_max.as_millis()).ok();
        let ask = Ask { sql, rows_max: Some(1), time_max_ms };
        match tokio::time::timeout(time_max, self.0.query.query(ask, None)).await {
            Ok(Ok(rows)) => {
                let answer = gate::number(&rows);
                let why = match answer {
                    Answer::Number(_) => None,
                    Answer::Empty => Some("the answer is empty".to_owned()),
                    Answer::Failed => Some("the first cell is no number".to_owned()),
                };
                (answer, why)
            }
            Ok(Err(error)) => (Answer::Failed, Some(error.to_string())),
            Err(_) => (Answer::Failed, Some(format!("no answer within {time_max:?}"))),
        }
    }
}

/// Who moves a rollout, as its events name him.
#[derive(Clone, Debug)]
pub(crate) enum Mover {
    Person(Actor),
    /// By what came of a device's word, of time, or of an answer.
    Site,
}

/// What a step of a rollout has to have from people, before it writes anything.
#[derive(Debug, Default)]
struct Two {
    takes_two: bool,
    second: Option<Word>,
}

impl Two {
    async fn expect(self, step: &mut crate::registry::Step<'_>) -> Result<(), RolloutError> {
        if let Some(word) = self.second {
            word.give(step).await?;
        }
        if self.takes_two {
            step.expect_two(Widening::EmergencyRollout)?;
        }
        Ok(())
    }
}

/// A rollout's move, ready to be written.
struct Write {
    plan: rollout::Plan,
    moved: Moved,
    told: Vec<Said>,
    /// What a gate's questions came to.
    asked: Vec<AskedSignal>,
}

impl Write {
    async fn carry_out(&self, step: &mut crate::registry::Step<'_>) -> Result<(), TableError> {
        table::save(step.tx(), &self.plan, &self.moved).await?;
        signals::keep(step.tx(), &self.plan.rollout, &self.asked).await?;
        for told in &self.told {
            step.say(told.clone()).await?;
        }
        Ok(())
    }
}

async fn read(registry: &Registry) -> Result<Book, RegistryError> {
    let events = registry.events();
    registry
        .read(move |tx| {
            Box::pin(async move {
                let manifests = table::manifests(&mut *tx, events).await?;
                let rollouts = table::rollouts(&mut *tx).await?;
                let mut book = Book::new(manifests, rollouts);
                for number in book.followed().clone() {
                    let live = book.live_mut(number).expect("it is followed");
                    let id = live.id().clone();
                    for (device, permit) in table::permits(&mut *tx, &id).await? {
                        live.put(device, permit);
                    }
                }
                Ok::<_, RegistryError>(book)
            })
        })
        .await
}

/// Does what is due, and remembers what it did.
struct Hand {
    rollouts: Rollouts,
    tasks: TaskTracker,
    memory: Memory,
}

#[derive(Default)]
struct Memory {
    ticked: Ticked,
    asked: HashMap<Number, Asking>,
    /// Waves whose cohort was nobody, and when that was.
    nobody: HashMap<Number, tokio::time::Instant>,
    /// Rollouts that had given leave when this process started, and until when nobody of theirs is called silent: while
    /// control did not run there was nobody to whom they could have shown anything.
    unheard: Option<(BTreeSet<Number>, tokio::time::Instant)>,
}

struct Asking {
    question: u64,
    task: AbortHandle,
}

impl Hand {
    fn new(rollouts: Rollouts, tasks: TaskTracker) -> Self {
        let numbers: BTreeSet<Number> = {
            let book = rollouts.book();
            let awaits = |number: &&Number| book.live(**number).is_some_and(Live::awaits);
            book.followed().iter().filter(awaits).copied().collect()
        };
        // Each device has time for two check-ins.
        let until = tokio::time::Instant::now() + 2 * rollouts.0.director.terms().check_in_every;
        let memory = Memory { unheard: Some((numbers, until)), ..Memory::default() };
        Self { rollouts, tasks, memory }
    }

    fn is_unheard(&mut self, number: Number) -> bool {
        match &self.memory.unheard {
            Some((_, until)) if *until <= tokio::time::Instant::now() => {
                self.memory.unheard = None;
                false
            }
            Some((numbers, _)) => numbers.contains(&number),
            None => false,
        }
    }

    /// Does what is due now. Says how long to wait, if nothing stirs.
    async fn round(&mut self) -> Duration {
        loop {
            let at = moment(now());
            let (dues, next) = self.rollouts.book().due(at, &self.memory.ticked);
            let (mut moved, mut failed) = (false, false);
            for due in dues {
                match self.carry_out(due).await {
                    Ok(has_moved) => moved |= has_moved,
                    Err(error) => {
                        tracing::error!(error = %text_of(&error), "a rollout did not go on");
                        if self.rollouts.is_for_all(&error) {
                            return TRY_AGAIN;
                        }
                        // One that cannot go on keeps no other from being halted.
                        failed = true;
                    }
                }
            }
            if failed {
                return TRY_AGAIN;
            }
            if !moved {
                let until = next.map(|next| Duration::from_millis(next.0.saturating_sub(at.0)));
                // At least a moment: time is counted in whole milliseconds.
                let until = until.map_or(LOOK_EVERY, |until| until + Duration::from_millis(1));
                return until.min(LOOK_EVERY);
            }
        }
    }

    /// Whether it moved the rollout.
    async fn carry_out(&mut self, due: Due) -> Result<bool, RolloutError> {
        let rollouts = self.rollouts.clone();
        match due {
            Due::Open { number, wave, count } => self.open(number, wave, count).await,
            Due::OpenBack { number, wave, count } => {
                let positions = rollouts.book().to_go_back(number);
                let last = rollout::open(positions, count).map_or(Position::LAST, |open| open.last);
                let event = Event::OpenedBack { wave, last };
                rollouts.feed(number, |_| vec![event]).await
            }
            Due::Ask { number, question } => {
                if self.memory.asked.get(&number).is_none_or(|asked| asked.question != question) {
                    let work = async move { rollouts.ask(number, question).await };
                    let task = self.tasks.spawn(work).abort_handle();
                    if let Some(before) =
                        self.memory.asked.insert(number, Asking { question, task })
                    {
                        before.task.abort();
                    }
                }
                Ok(false)
            }
            Due::Tick { number, at } => {
                let moved = rollouts.feed(number, |_| vec![Event::Tick]).await?;
                if !moved && let Some(live) = rollouts.book().live(number) {
                    self.memory.ticked.insert(number, (live.state().revision, at));
                }
                Ok(moved)
            }
            Due::Overdue { number } if self.is_unheard(number) => Ok(false),
            Due::Overdue { number } => {
                let at = moment(now());
                rollouts.feed(number, move |book| book.overdue(number, at, OVERDUE_MAX)).await
            }
        }
    }

    async fn open(
        &mut self,
        number: Number,
        wave: usize,
        count: u64,
    ) -> Result<bool, RolloutError> {
        let is_early = |at: &tokio::time::Instant| at.elapsed() < LOOK_EVERY;
        if self.memory.nobody.get(&number).is_some_and(is_early) {
            return Ok(false);
        }
        let Some(opened) = self.rollouts.opened(number, count).await else {
            tracing::warn!(rollout = number, wave, "nobody of the cohort is left: the wave waits");
            self.memory.nobody.insert(number, tokio::time::Instant::now());
            return Ok(false);
        };
        self.memory.nobody.remove(&number);
        let event = Event::Opened { wave, opened };
        self.rollouts.feed(number, |_| vec![event]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Answer as Rows, Ownership, QueryError, Role, Within};
    use model::envelope::Algorithm;
    use model::manifest::{Manifest, Trusted};
    use model::{Counter, KeyId};
    use std::pin::Pin;
    use trust::cose::Signer as _;

    struct Nobody;

    impl Query for Nobody {
        fn query(
            &self,
            _: Ask,
            _: Option<Arc<Within>>,
        ) -> Pin<Box<dyn Future<Output = Result<Rows, QueryError>> + Send + '_>> {
            Box::pin(async { Err(QueryError::Failed("there is no store".into())) })
        }
    }

    fn sealed(registry: &Registry, sequence: u64, images: u64) -> Sealed {
        let device = DeviceId::new("pump-1").unwrap();
        let known =
            |version| Trusted { root: 1, timestamp: version, snapshot: version, targets: version };
        let manifest = Manifest {
            device: device.clone(),
            components: vec![],
            director: Trusted::default(),
            images: known(images),
            outcome: None,
        };
        Sealed {
            device: registry.directory().device(&device).unwrap().clone(),
            key: KeyId([7; 32]),
            counter: Counter { epoch: 1, sequence },
            payload: manifest.encode().into(),
            manifest,
        }
    }

    /// INV-REPLAY-1: the second of them is answered at once, as if nothing were new, while the first is being written.
    #[tokio::test]
    async fn what_came_while_another_word_of_its_device_was_being_written_is_not_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(&dir.path().join("r.sqlite"), "site", "").await.unwrap();
        let entry = Ownership {
            serial: "pump-1".into(),
            role: Role::Device,
            zone: "z".into(),
            group: None,
        };
        registry.list(&entry, &"token/site".into(), now()).await.unwrap();
        let draw = || keys::file::draw(Algorithm::Ed25519).unwrap();
        let (offline, key, metrics) = ([draw(), draw()], draw(), Metrics::new().unwrap());
        let root = crate::director::first_root(&offline, key.public(), now()).unwrap();
        let terms = crate::director::Terms::default();
        let director = Director::open(key, vec![root], terms, metrics.clone()).unwrap();
        let (releases, query) = (Releases::none(), Arc::new(Nobody));
        let opened = Rollouts::open(registry.clone(), releases, director.into(), query, metrics);
        let rollouts = opened.await.unwrap();
        let check_in = |sequence, images| {
            let (rollouts, sealed) = (rollouts.clone(), sealed(&registry, sequence, images));
            tokio::spawn(async move { rollouts.check_in(sealed, true, ()).await.map(drop) })
        };
        check_in(1, 1).await.unwrap().unwrap();
        check_in(2, 1).await.unwrap().unwrap();

        let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
        let writer = registry.clone();
        let busy = tokio::spawn(async move {
            let work = writer.step(move |_| {
                Box::pin(async move {
                    drop(wait.await);
                    Ok::<_, RegistryError>(())
                })
            });
            work.await.unwrap();
        });
        let news = check_in(3, 2);
        while rollouts.0.turn.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        let as_before = check_in(4, 1);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        go_on.send(()).unwrap();
        busy.await.unwrap();
        news.await.unwrap().unwrap();
        as_before.await.unwrap().unwrap();
        let again = check_in(4, 1).await.unwrap().unwrap_err();
        assert!(matches!(again, CheckInError::Refused(Refused::Replayed { .. })), "{again}");
        check_in(5, 1).await.unwrap().unwrap();
    }
}
