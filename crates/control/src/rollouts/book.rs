//! What is known of rollouts and of what devices run, and what follows from it. Pure: it reads no clock and does no IO.
//!
//! The book is what the registry's tables hold, in the form in which a check-in asks for it: so a device that says what it
//! said before, and for which nothing has changed, costs no transaction. Whoever changes something asks the book what
//! would become of it ([`Moved`]), writes that, and puts it into the book after the commit.
//!
//! A rollout is *followed* as long as what devices say can move it: from its start until it is aborted, or until a later one
//! of the same product has begun that could reach the same devices. Of a rollout that nobody follows the book has no permits.

use super::draft::Members;
use crate::checkin::{Refused, Sealed};
use crate::directory::{Device, Directory};
use api::Standing;
use api::rollout::NewRollout;
use model::lease::HALTED_MAX;
use model::manifest::{Boot, Component, Manifest, hardware_of};
use model::{Counter, DeviceId, Digest, KeyId, ProductId, RolloutId, Timestamp};
use rollout::{
    CheckIn, Command, Effect, Event, Happened, Known, Moment, Order, Permit, Phase, Plan, Position,
    Report, Saved, State, order, pending, step, wake,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// A rollout's place in the order in which they were made.
pub type Number = u64;

/// For so long after its last move a halted rollout is named in leases: no metadata that ordered it lives longer.
const NAMED_MS: u64 = 31 * 24 * 3600 * 1000;

/// Each manifest that says something new is written, and may be an event: a device has so many of them at once, and one more
/// each so often. An update takes some ten.
const NEWS_BURST: u32 = 120;
const NEWS_EVERY: Duration = Duration::from_secs(2);

/// A device's newest manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub key: KeyId,
    pub counter: Counter,
    /// Grows with each manifest that is admitted.
    pub number: u64,
    /// When the first manifest of this device was admitted: since then it can belong to a cohort.
    pub first_at: Timestamp,
    pub received_at: Timestamp,
    pub payload: Arc<[u8]>,
    /// When it will have used up nothing of what it may say that is new. In memory alone.
    pub rested_at: Timestamp,
    /// What this device is answered leaves when the evidence log covers so many events: its leaves are among them.
    pub events: u64,
}

impl Kept {
    pub fn manifest(&self) -> Manifest {
        Manifest::decode(&self.payload).expect("it was read before it was kept")
    }
}

/// A rollout with all that is kept of it.
#[derive(Clone, Debug)]
pub struct Live {
    pub saved: Saved,
    pub order: NewRollout,
    pub members: Members,
    pub created_at: Timestamp,
    /// Of whom it has reached. Empty while nobody follows it.
    pub permits: HashMap<DeviceId, Permit>,
    /// When permits are overdue.
    dues: BTreeSet<(Moment, DeviceId)>,
    /// Why the gate held when it was asked the last time. It is remembered, not kept.
    pub held: Option<Held>,
}

/// A gate without a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    signals: Vec<String>,
    /// In a sentence.
    pub why: String,
}

impl Held {
    /// `None`: it does not say that.
    fn of(happened: &[Happened]) -> Option<Self> {
        let held = happened.iter().filter_map(|what| match what {
            Happened::GateHeld { signal, .. } => Some(signal.clone()),
            _ => None,
        });
        let signals: Vec<String> = held.collect();
        let why = format!("signal {:?} gave no number", signals.first()?);
        Some(Self { signals, why })
    }
}

impl Live {
    pub fn new(saved: Saved, order: NewRollout, members: Members, created_at: Timestamp) -> Self {
        let (permits, dues) = (HashMap::new(), BTreeSet::new());
        Self { saved, order, members, created_at, permits, dues, held: None }
    }

    pub fn plan(&self) -> &Plan {
        &self.saved.plan
    }

    pub fn state(&self) -> &State {
        &self.saved.state
    }

    pub fn id(&self) -> &RolloutId {
        &self.saved.plan.rollout
    }

    pub fn put(&mut self, device: DeviceId, permit: Permit) {
        if let Some(due) = due(permit.known) {
            self.dues.insert((due, device.clone()));
        }
        if let Some(before) = self.permits.insert(device.clone(), permit)
            && let Some(was_due) = due(before.known)
            && Some(was_due) != due(self.permits[&device].known)
        {
            self.dues.remove(&(was_due, device));
        }
    }

    /// Whether somebody has to show something within a time.
    pub fn awaits(&self) -> bool {
        !self.dues.is_empty()
    }

    fn forget_permits(&mut self) {
        self.permits = HashMap::new();
        self.dues = BTreeSet::new();
    }

    /// Whether it holds its product's devices to itself: no other one may begin among them.
    pub fn is_under_way(&self) -> bool {
        use Phase::{Halted, Paused, Reverting, Running};
        let phase = &self.state().phase;
        matches!(phase, Running { .. } | Paused { .. } | Halted { .. } | Reverting { .. })
    }

    fn has_begun(&self) -> bool {
        self.state().started > Moment(0)
    }

    /// Whether all that a move says is that the gate holds still, for the same signals. That is told once, and not each
    /// time that it is asked again.
    pub fn is_known(&self, moved: &Moved) -> bool {
        let again = Held::of(&moved.happened);
        let same = |held: &Held| again.as_ref().is_some_and(|again| again.signals == held.signals);
        moved.state.revision == moved.revision && self.held.as_ref().is_some_and(same)
    }

    /// What these events make of it, one after the other.
    pub fn moved(&self, number: Number, events: Vec<Event>, now: Moment) -> Moved {
        let mut state = self.state().clone();
        let mut moved = Moved {
            number,
            rollout: self.id().clone(),
            revision: state.revision,
            state: State::new(),
            permits: Vec::new(),
            happened: Vec::new(),
        };
        for event in events {
            let (next, effects) = step(self.plan(), state, event, now);
            state = next;
            for effect in effects {
                match effect {
                    Effect::Save { device, permit } => moved.permits.push((device, permit)),
                    Effect::Happened(what) => moved.happened.push(what),
                    // They are pending in the state itself: whoever looks there finds them, after a restart too.
                    Effect::Open { .. }
                    | Effect::OpenBack { .. }
                    | Effect::Ask { .. }
                    | Effect::Halt => {}
                }
            }
        }
        moved.state = state;
        moved
    }
}

pub fn due(known: Known) -> Option<Moment> {
    match known {
        Known::Issued { due } | Known::Back { due } => Some(due),
        _ => None,
    }
}

/// What a check-in may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Whatever rollouts decide.
    Any,
    /// No device gets a permit by it.
    NoPermit,
    /// It proves that what is known here is older than what devices were told: rollouts wait for a person.
    Hold,
}

/// What is to become of a rollout. Written whole, on the condition that it still has the revision that this was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    pub number: Number,
    pub rollout: RolloutId,
    pub revision: u64,
    pub state: State,
    pub permits: Vec<(DeviceId, Permit)>,
    pub happened: Vec<Happened>,
}

impl Moved {
    pub fn is_nothing(&self) -> bool {
        self.state.revision == self.revision && self.happened.is_empty()
    }

    /// Whether it lets a device install something, or sends it back.
    pub fn gives_leave(&self, device: &DeviceId) -> bool {
        let is_leave = |known| matches!(known, Known::Issued { .. } | Known::Back { .. });
        self.permits.iter().any(|(holder, permit)| holder == device && is_leave(permit.known))
    }
}

/// What a device is to install, or to go back to, by a rollout's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    pub product: ProductId,
    pub digest: Digest,
    /// Of an install. The way back is ordered without one: leases name it as halted by then.
    pub rollout: Option<RolloutId>,
    /// It runs there already, and shall be the least that boots.
    pub raise: bool,
}

/// What a check-in comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedIn {
    pub device: DeviceId,
    pub kept: Kept,
    /// The manifest says something else than the last one, or under another key.
    pub is_new: bool,
    pub moved: Vec<Moved>,
    /// `None`: nothing new is said to this device (it is quarantined).
    pub orders: Option<Vec<Ordered>>,
    /// Rollouts that leases name from now on, in order.
    pub halted: Vec<RolloutId>,
}

impl CheckedIn {
    /// Whether it is ordered to raise its floor, which it never lowers again. The leave for that is no permit of its own but
    /// that its rollout has completed: that has to be covered then.
    pub fn raises(&self) -> bool {
        self.orders.iter().flatten().any(|ordered| ordered.raise)
    }

    /// Whether something has to be written.
    pub fn changes(&self) -> bool {
        self.is_new || !self.moved.is_empty()
    }
}

/// Why a rollout may not be moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error(
        "rollout `{other}` of {product} is {phase} and could reach the same devices: expected it to be completed, reverted or aborted first"
    )]
    UnderWay { other: RolloutId, product: ProductId, phase: rollout::Named },
    #[error(
        "rollout `{other}` of {product} came later and could have reached the same devices: expected a rollout that nothing has overtaken"
    )]
    Overtaken { other: RolloutId, product: ProductId },
    #[error("{found} halted rollouts are named in leases, expected less than {HALTED_MAX}")]
    TooManyHalted { found: usize },
}

#[derive(Debug, Default)]
pub struct Book {
    manifests: BTreeMap<DeviceId, Kept>,
    rollouts: BTreeMap<Number, Live>,
    numbers: HashMap<RolloutId, Number>,
    followed: BTreeSet<Number>,
    /// Of which nothing may be armed, without those that nobody can hold an order of any more.
    halted: BTreeSet<Number>,
    /// Whose check-in is being written now.
    writing: Option<DeviceId>,
}

/// What a device runs because of a rollout, as it was last ordered: to name it on is no new word of the Director.
fn led_to(plan: &Plan, permit: &Permit) -> Option<(Digest, Option<RolloutId>)> {
    match permit.known {
        Known::Proven | Known::Had => Some((plan.digest, Some(plan.rollout.clone()))),
        Known::WentBack => Some((permit.was, None)),
        _ => None,
    }
}

impl Book {
    /// What was read from the registry: rollouts in order, and afterwards the permits of those that are followed.
    pub fn new(
        manifests: BTreeMap<DeviceId, Kept>,
        rollouts: impl IntoIterator<Item = (Number, Live)>,
    ) -> Self {
        let mut book = Self { manifests, ..Self::default() };
        for (number, live) in rollouts {
            book.numbers.insert(live.id().clone(), number);
            book.rollouts.insert(number, live);
        }
        book.follow();
        book
    }

    pub fn manifest(&self, device: &DeviceId) -> Option<&Kept> {
        self.manifests.get(device)
    }

    pub fn manifests(&self) -> impl Iterator<Item = (&DeviceId, &Kept)> {
        self.manifests.iter()
    }

    pub fn number(&self, rollout: &RolloutId) -> Option<Number> {
        self.numbers.get(rollout).copied()
    }

    pub fn live(&self, number: Number) -> Option<&Live> {
        self.rollouts.get(&number)
    }

    pub fn live_mut(&mut self, number: Number) -> Option<&mut Live> {
        self.rollouts.get_mut(&number)
    }

    pub fn rollouts(&self) -> impl DoubleEndedIterator<Item = (Number, &Live)> {
        self.rollouts.iter().map(|(number, live)| (*number, live))
    }

    pub fn followed(&self) -> &BTreeSet<Number> {
        &self.followed
    }

    pub fn next_number(&self) -> Number {
        self.rollouts.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// The first free name for a release's rollout.
    pub fn free_name(&self, product: &ProductId, version: model::Version) -> String {
        let named = |n: u64| format!("{product}-{version}-{n}");
        let is_free = |name: &String| {
            RolloutId::new(name.as_str()).is_ok_and(|id| self.number(&id).is_none())
        };
        let mut names = (1..=self.rollouts.len() as u64 + 1).map(named);
        // A name that is too long is refused by whoever reads it.
        names.find(is_free).unwrap_or_else(|| named(1))
    }

    pub fn add(&mut self, number: Number, live: Live) {
        self.numbers.insert(live.id().clone(), number);
        self.rollouts.insert(number, live);
        self.follow();
    }

    /// Puts what was written into the book.
    pub fn take(&mut self, moved: Moved) {
        let Moved { number, state, permits, happened, .. } = moved;
        let live = self.rollouts.get_mut(&number).expect("a rollout is never removed");
        let is_another_phase = live.state().phase.name() != state.phase.name();
        live.saved.state = state;
        permits.into_iter().for_each(|(device, permit)| live.put(device, permit));
        if !happened.is_empty() {
            live.held = Held::of(&happened);
        }
        if is_another_phase {
            self.follow();
        }
    }

    pub fn keep(&mut self, device: DeviceId, kept: Kept) {
        self.manifests.insert(device, kept);
    }

    /// Whose check-in is being written from now on.
    pub fn writes(&mut self, device: Option<DeviceId>) {
        self.writing = device;
    }

    pub fn is_being_written(&self, device: &DeviceId) -> bool {
        self.writing.as_ref() == Some(device)
    }

    fn follow(&mut self) {
        let is_followed = |(number, live): &(&Number, &Live)| match live.state().phase {
            Phase::Planned | Phase::Aborted => false,
            Phase::Completed | Phase::Reverted => self.overtaken_by(**number, live).is_none(),
            _ => true,
        };
        let followed: BTreeSet<Number> =
            self.rollouts.iter().filter(is_followed).map(|(number, _)| *number).collect();
        for number in self.followed.difference(&followed) {
            self.rollouts.get_mut(number).expect("it was followed").forget_permits();
        }
        self.followed = followed;
        let newest = self.rollouts.values().map(|live| live.state().seen).max().unwrap_or_default();
        let is_named = |live: &Live| {
            let state = live.state();
            state.is_halted() && newest <= state.seen.after_ms(NAMED_MS)
        };
        let halted = self.rollouts.iter().filter(|(_, live)| is_named(live));
        self.halted = halted.map(|(number, _)| *number).collect();
    }

    /// A later rollout that has begun and could reach the same devices.
    fn overtaken_by(&self, number: Number, live: &Live) -> Option<&Live> {
        let later = self.rollouts.range((Bound::Excluded(number), Bound::Unbounded));
        later.map(|(_, other)| other).find(|other| other.has_begun() && meet(live, other))
    }

    /// Whether a command may be carried out at all, beside what the rollout's own state says to it.
    pub fn fits(
        &self,
        number: Number,
        live: &Live,
        command: Command,
        now: Moment,
    ) -> Result<(), Unfit> {
        let product = || live.plan().product.clone();
        let begins = matches!(
            (command, &live.state().phase),
            (Command::Start, Phase::Planned) | (Command::Revert, Phase::Completed)
        );
        if !begins {
            return Ok(());
        }
        let mut others = self.rollouts.iter().filter(|(other, _)| **other != number);
        if let Some((_, other)) =
            others.find(|(_, other)| other.is_under_way() && meet(live, other))
        {
            let (other, phase) = (other.id().clone(), other.state().phase.name());
            return Err(Unfit::UnderWay { other, product: product(), phase });
        }
        if command == Command::Revert
            && let Some(other) = self.overtaken_by(number, live)
        {
            return Err(Unfit::Overtaken { other: other.id().clone(), product: product() });
        }
        // There was room when it was made, and others may have begun since. What has to be taken back finds room below.
        if command == Command::Start { self.expect_room(now) } else { Ok(()) }
    }

    /// What an event makes of a rollout.
    pub fn moved(&self, number: Number, events: Vec<Event>, now: Moment) -> Option<Moved> {
        Some(self.rollouts.get(&number)?.moved(number, events, now))
    }

    /// What a manifest that was opened comes to, or why it is refused: here its counter is judged.
    pub fn check_in(
        &self,
        sealed: &Sealed,
        now: Timestamp,
        leave: Leave,
    ) -> Result<CheckedIn, Refused> {
        let Sealed { device, key, counter, manifest, payload } = sealed;
        let last = self.manifests.get(&device.id);
        if let Some(last) = last {
            sealed.expect_newer(&last.key, last.counter)?;
        }
        let is_new = last.is_none_or(|last| last.key != *key || last.payload != *payload);
        let rested_at = last.map_or(now, |last| last.rested_at);
        let rested_at = if is_new { news(&device.id, rested_at, now)? } else { rested_at };
        let kept = Kept {
            key: *key,
            counter: *counter,
            number: last.map_or(1, |last| last.number + 1),
            first_at: last.map_or(now, |last| last.first_at),
            received_at: now,
            payload: payload.clone(),
            rested_at,
            events: last.map_or(0, |last| last.events),
        };
        let is_served = device.standing == Standing::Enrolled;
        let at = moment(now);
        let moved: Vec<Moved> = self
            .followed
            .iter()
            .filter(|_| is_served)
            .filter_map(|number| {
                let live = &self.rollouts[number];
                let is_heard = live.permits.contains_key(&device.id)
                    || leave == Leave::Any && !self.is_reached_beside(*number, live, &device.id);
                let shown = is_heard.then(|| shown(live, device, manifest, &kept)).flatten();
                // First of all: what is decided next is decided of a rollout that is held.
                let held = (leave == Leave::Hold).then_some(Event::Hold);
                let events: Vec<Event> = held.into_iter().chain(shown).collect();
                if events.is_empty() {
                    return None;
                }
                let moved = live.moved(*number, events, at);
                (!moved.is_nothing()).then_some(moved)
            })
            .collect();
        let orders = is_served.then(|| self.orders(&device.id, manifest, &moved));
        let halted = self.halted(&moved, at);
        Ok(CheckedIn { device: device.id.clone(), kept, is_new, moved, orders, halted })
    }

    /// Whether another rollout of the same product, which is under way, has reached this device: it was moved from one group to
    /// another since. What is under way on it comes to its end first.
    fn is_reached_beside(&self, number: Number, live: &Live, device: &DeviceId) -> bool {
        // Without groups no two of them could have it.
        let mut others = self.followed.iter().filter(|other| **other != number);
        !live.members.groups.is_empty()
            && others.any(|other| {
                let other = &self.rollouts[other];
                other.plan().product == live.plan().product
                    && other.is_under_way()
                    && other.permits.contains_key(device)
            })
    }

    /// Of each product the newest rollout that has reached this device decides, also if it says nothing. What it has led the
    /// device to is named as long as the device runs it: the Director says what a device is to run, and not only what it is to
    /// install.
    fn orders(&self, device: &DeviceId, manifest: &Manifest, moved: &[Moved]) -> Vec<Ordered> {
        let mut decided = BTreeSet::new();
        let mut orders = Vec::new();
        for number in self.followed.iter().rev() {
            let live = &self.rollouts[number];
            let plan = live.plan();
            let moved = moved.iter().find(|moved| moved.number == *number);
            let state = moved.map_or(live.state(), |moved| &moved.state);
            let saved = moved
                .and_then(|moved| moved.permits.iter().rev().find(|(holder, _)| holder == device));
            let permit = saved.map(|(_, permit)| permit).or_else(|| live.permits.get(device));
            let component = manifest.components.iter().find(|c| c.product == plan.product);
            let (Some(permit), Some(component)) = (permit, component) else { continue };
            if !decided.insert(plan.product.clone()) {
                continue;
            }
            let raises = live.order.raise && is_to_raise(plan, state, permit, component);
            let (digest, rollout, raise) = match order(plan, state, Some(permit)) {
                Order::Install(digest) => (digest, Some(plan.rollout.clone()), false),
                Order::GoBack(digest) => (digest, None, false),
                Order::Stay if raises => (plan.digest, None, true),
                Order::Stay => match led_to(plan, permit) {
                    Some((digest, by)) if digest == component.running_image().digest => {
                        (digest, by, false)
                    }
                    _ => continue,
                },
            };
            orders.push(Ordered { product: plan.product.clone(), digest, rollout, raise });
        }
        orders.sort_by(|one, other| one.product.cmp(&other.product));
        orders
    }

    /// Halted rollouts of which somebody might still hold an order, as leases name them: the newest, in order.
    pub fn halted(&self, moved: &[Moved], now: Moment) -> Vec<RolloutId> {
        let is_named = |number: &&Number| {
            let moved = moved.iter().find(|moved| moved.number == **number);
            let state = moved.map_or(self.rollouts[*number].state(), |moved| &moved.state);
            let counts = &state.counts;
            let permits = counts.known() + counts.to_go_back() + counts.went_back;
            state.is_halted() && permits > 0 && now <= state.seen.after_ms(NAMED_MS)
        };
        // A check-in may be what halts a rollout; none of the others is looked at.
        let both: BTreeSet<Number> =
            self.halted.iter().copied().chain(moved.iter().map(|moved| moved.number)).collect();
        let named = both.iter().rev().filter(is_named).take(HALTED_MAX);
        let mut named: Vec<RolloutId> = named.map(|n| self.rollouts[n].id().clone()).collect();
        named.sort();
        named
    }

    /// A rollout more could be a halted one more: leases have to be able to name it.
    pub fn expect_room(&self, now: Moment) -> Result<(), Unfit> {
        let open =
            self.rollouts.values().filter(|live| live.is_under_way() && !live.state().is_halted());
        let found = self.halted(&[], now).len() + open.count();
        if found < HALTED_MAX { Ok(()) } else { Err(Unfit::TooManyHalted { found }) }
    }

    /// How many belong to the cohort of a release, of the next `count` devices after `after`; and where to go on.
    pub fn cohort(
        &self,
        wanted: &Wanted<'_>,
        directory: &Directory,
        after: Option<&DeviceId>,
        count: usize,
    ) -> (u64, Option<DeviceId>) {
        let (mut found, mut last) = (0, None);
        for (id, kept) in self.after(after, count) {
            found += u64::from(wanted.holds(directory.device(id), kept));
            last = Some(id);
        }
        (found, last.cloned())
    }

    /// Where everybody stands whom a wave of this rollout could reach, of the next `count` devices after `after`; and where to
    /// go on. Who has a permit and has left the cohort is among them: he stays in the count.
    pub fn positions(
        &self,
        number: Number,
        directory: &Directory,
        after: Option<&DeviceId>,
        count: usize,
    ) -> (Vec<Position>, Option<DeviceId>) {
        let Some(live) = self.rollouts.get(&number) else { return (Vec::new(), None) };
        let (product, members) = (&live.plan().product, &live.members);
        let wanted = Wanted { product, members, joined_by: Some(live.state().started) };
        let (mut found, mut last) = (Vec::with_capacity(count), None);
        for (id, kept) in self.after(after, count) {
            let belongs = wanted.holds(directory.device(id), kept)
                && !self.is_reached_beside(number, live, id);
            if belongs || live.permits.contains_key(id) {
                found.push(Position::of(live.id(), id));
            }
            last = Some(id);
        }
        (found, last.cloned())
    }

    /// Up to `max` devices of a rollout's cohort that are not among these, as they come.
    pub fn others(
        &self,
        number: Number,
        directory: &Directory,
        having: &BTreeSet<DeviceId>,
        max: usize,
    ) -> Vec<DeviceId> {
        let Some(live) = self.rollouts.get(&number) else { return Vec::new() };
        let (product, members) = (&live.plan().product, &live.members);
        let wanted = Wanted { product, members, joined_by: None };
        let others = self
            .manifests
            .iter()
            .filter(|(id, kept)| !having.contains(id) && wanted.holds(directory.device(id), kept));
        others.map(|(id, _)| id.clone()).take(max).collect()
    }

    /// The next devices that have checked in, sorted.
    fn after(
        &self,
        after: Option<&DeviceId>,
        count: usize,
    ) -> impl Iterator<Item = (&DeviceId, &Kept)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.manifests.range::<DeviceId, _>((from, Bound::Unbounded)).take(count)
    }

    /// What is to be done now, and when to look again if nothing happens.
    pub fn due(&self, now: Moment, ticked: &Ticked) -> (Vec<Due>, Option<Moment>) {
        let mut dues = Vec::new();
        let mut next: Option<Moment> = None;
        let mut later = |moment: Moment| next = Some(next.map_or(moment, |next| next.min(moment)));
        for number in &self.followed {
            let live = &self.rollouts[number];
            let (plan, state) = (live.plan(), live.state());
            for effect in pending(plan, state) {
                match effect {
                    Effect::Open { wave, count } => {
                        dues.push(Due::Open { number: *number, wave, count });
                    }
                    Effect::OpenBack { wave, count } => {
                        dues.push(Due::OpenBack { number: *number, wave, count });
                    }
                    Effect::Ask { question } => dues.push(Due::Ask { number: *number, question }),
                    // Leases look for themselves.
                    Effect::Halt | Effect::Save { .. } | Effect::Happened(_) => {}
                }
            }
            let wake = wake(plan, state);
            // What a tick at this time did not move, another one does not either, until something else does.
            let wake = wake.filter(|at| ticked.get(number) != Some(&(state.revision, *at)));
            match wake {
                Some(at) if at <= now => dues.push(Due::Tick { number: *number, at }),
                Some(at) => later(at),
                None => {}
            }
            match live.dues.first().filter(|_| !state.held) {
                Some((at, _)) if *at <= now => dues.push(Due::Overdue { number: *number }),
                Some((at, _)) => later(*at),
                None => {}
            }
        }
        (dues, next)
    }

    /// The permits that are overdue, at most `max` of them.
    pub fn overdue(&self, number: Number, now: Moment, max: usize) -> Vec<Event> {
        let Some(live) = self.rollouts.get(&number) else { return Vec::new() };
        let past = live.dues.iter().take_while(|(due, _)| *due <= now).take(max);
        past.map(|(_, device)| {
            let permit = live.permits[device].clone();
            Event::Overdue { device: device.clone(), permit }
        })
        .collect()
    }

    /// Positions of those who would have to go back.
    pub fn to_go_back(&self, number: Number) -> Vec<Position> {
        let Some(live) = self.rollouts.get(&number) else { return Vec::new() };
        let goes = |known: Known| !matches!(known, Known::Had | Known::Failed);
        let going = live.permits.iter().filter(|(_, permit)| goes(permit.known));
        going.map(|(device, _)| Position::of(live.id(), device)).collect()
    }
}

/// Of a rollout, at which revision and for which time a tick moved nothing.
pub type Ticked = HashMap<Number, (u64, Moment)>;

/// Something to be done for a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Open { number: Number, wave: usize, count: u64 },
    OpenBack { number: Number, wave: usize, count: u64 },
    Ask { number: Number, question: u64 },
    Tick { number: Number, at: Moment },
    Overdue { number: Number },
}

/// Whom a rollout is for, and since when at the latest.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub product: &'a ProductId,
    pub members: &'a Members,
    /// Who joins later waits for the last wave, and takes nobody's place in the ones before.
    pub joined_by: Option<Moment>,
}

impl Wanted<'_> {
    fn holds(&self, device: Option<&Arc<Device>>, kept: &Kept) -> bool {
        let Some(device) = device else { return false };
        // The lists first: reading a manifest costs more, and of a million of them only the one word is read.
        device.standing == Standing::Enrolled
            && self.members.may_hold(device)
            && self.joined_by.is_none_or(|by| joined(device, self.members, kept) <= by)
            && hardware_of(&kept.payload, self.product).is_some_and(|hardware| {
                self.members.hardware.iter().any(|one| one.as_str() == hardware)
            })
    }
}

fn belongs(product: &ProductId, members: &Members, device: &Device, manifest: &Manifest) -> bool {
    let component = manifest.components.iter().find(|component| component.product == *product);
    component.is_some_and(|c| members.holds(device, &c.hardware))
}

/// When a device came into a cohort: when it was first heard, and was moved into a group of it.
fn joined(device: &Device, members: &Members, kept: &Kept) -> Moment {
    let grouped = if members.groups.is_empty() { kept.first_at } else { device.grouped_at };
    moment(kept.first_at.max(grouped))
}

/// A floor rises by an order of its own, after the rollout is over, and only where its release runs and is confirmed: a
/// floor above what runs would leave nothing to boot.
fn is_to_raise(plan: &Plan, state: &State, permit: &Permit, component: &Component) -> bool {
    let running = component.running_image();
    state.phase == Phase::Completed
        && matches!(permit.known, Known::Proven | Known::Had)
        && running.digest == plan.digest
        && component.boot != Boot::Trial
        && component.floor < running.security_version
}

/// When a device will have rested that says something new now, or that it says so too often.
fn news(device: &DeviceId, rested_at: Timestamp, now: Timestamp) -> Result<Timestamp, Refused> {
    let every_us = NEWS_EVERY.as_micros() as i64;
    let most_us = every_us * i64::from(NEWS_BURST);
    let used_us = rested_at.as_us().saturating_sub(now.as_us()).max(0);
    // Nobody comes beyond it by what he says: the clock was set back, and he has used up all but one.
    let used_us = if used_us > most_us { most_us - every_us } else { used_us };
    if used_us + every_us > most_us {
        let device = device.clone();
        return Err(Refused::TooOften { device, burst: NEWS_BURST, every: NEWS_EVERY });
    }
    Ok(Timestamp(now.as_us().saturating_add(used_us + every_us)))
}

fn meet(one: &Live, other: &Live) -> bool {
    one.plan().product == other.plan().product && one.members.overlaps(&other.members)
}

/// What a device's word is to a rollout. `None`: it has no part in it.
fn shown(live: &Live, device: &Device, manifest: &Manifest, kept: &Kept) -> Option<Event> {
    let plan = live.plan();
    let permit = live.permits.get(&device.id).cloned();
    if permit.is_none() && !belongs(&plan.product, &live.members, device, manifest) {
        return None;
    }
    Some(Event::CheckedIn(CheckIn {
        device: device.id.clone(),
        position: Position::of(live.id(), &device.id),
        joined: joined(device, &live.members, kept),
        permit,
        report: Report::of(plan, manifest, kept.number)?,
    }))
}

/// Rollouts count in milliseconds.
pub fn moment(at: Timestamp) -> Moment {
    Moment(at.as_ms())
}

#[cfg(test)]
mod tests;
