//! What is told of changes: which things an event changed, who may hear of it, and what one receiver has still to hear.
//!
//! Nothing is queued for a receiver. Everybody reads the same [`Tail`] of the newest events, each from its own place, and
//! whoever is slower than the tail is long hears that it missed something. What is no event (a device was heard) is gathered
//! into a [`Round`], of which only the newest is kept.

use crate::caller::Caller;
use crate::directory::Directory;
use crate::endpoint::Endpoint;
use crate::people::People;
use crate::principal::{Principal, Reach};
use api::Scope;
use api::stream::{ChangeKind, Changed};
use evidence::Event;
use model::{DeviceId, RolloutId};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

/// How many events are kept for who was away, or is slow.
pub const KEPT_MAX: usize = 1000;

/// How many things a round names. Beyond, it says that they were many.
pub const NAMED_MAX: usize = 100;

/// Lines that are handed over at a time: below what a connection reads ahead.
const LINES_MAX: usize = 128;

/// The subject of a change of more than a receiver wants to hear one by one.
pub const MANY: &str = "site";

/// Something is another now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    pub kind: ChangeKind,
    /// As events name it.
    pub subject: Arc<str>,
    /// The event that tells of it.
    pub sequence: Option<u64>,
}

/// The newest events, as what they changed.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The number of the first event that is kept.
    first: u64,
    /// The number of the event that comes next.
    next: u64,
    kept: VecDeque<Change>,
}

/// Some of what a receiver has not heard is not kept any more, or is of another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed;

impl Tail {
    /// Before the event of this number.
    pub fn at(next: u64) -> Self {
        Self { first: next, next, kept: VecDeque::new() }
    }

    /// The number of the event that comes next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// From where on to read, if there are `events` now: what would be forgotten at once is not read.
    pub fn reads_from(&self, events: u64) -> u64 {
        self.next.max(events.saturating_sub(KEPT_MAX as u64))
    }

    /// Takes the next event, or one further on.
    pub fn push(&mut self, event: &Event) {
        let sequence = event.sequence();
        if sequence != self.next {
            *self = Self::at(sequence);
        }
        self.kept.extend(changes(event));
        self.next = sequence + 1;
        self.first = self.first.max(self.next.saturating_sub(KEPT_MAX as u64));
        while self.kept.front().is_some_and(|change| change.sequence < Some(self.first)) {
            self.kept.pop_front();
        }
    }

    /// What changed from the event `place` on, in the order of events. What changed more than once is said once, where it
    /// changed last.
    pub fn since(&self, place: u64) -> Result<Vec<Change>, Missed> {
        if place < self.first || place > self.next {
            return Err(Missed);
        }
        let mut said = HashSet::new();
        let newest_first = self.kept.iter().rev().take_while(|c| c.sequence >= Some(place));
        let mut changes: Vec<Change> = newest_first
            .filter(|change| said.insert((change.kind, change.subject.clone())))
            .cloned()
            .collect();
        changes.reverse();
        Ok(changes)
    }
}

/// What an event changed: its subject, and the device that did it or that it names.
fn changes(event: &Event) -> impl Iterator<Item = Change> {
    let change = |subject: &str| Change {
        kind: kind_of(subject),
        subject: subject.into(),
        sequence: Some(event.sequence()),
    };
    let subject = change(event.subject());
    let of_device = |word: &str| matches!(kind_of(word), ChangeKind::Device).then(|| change(word));
    let named = event.detail().get("device").and_then(serde_json::Value::as_str);
    let device = of_device(event.actor())
        .or_else(|| named.map(|id| change(&format!("device/{id}"))))
        .filter(|device| device.subject != subject.subject);
    std::iter::once(subject).chain(device)
}

fn kind_of(subject: &str) -> ChangeKind {
    match subject.split('/').next() {
        Some("device" | "gateway") => ChangeKind::Device,
        Some("rollout") => ChangeKind::Rollout,
        Some("release") => ChangeKind::Release,
        Some("alert" | "alert-rule" | "alert-target" | "silence") => ChangeKind::Alert,
        Some("user" | "token" | "session") => ChangeKind::User,
        Some("approval") => ChangeKind::Approval,
        _ => ChangeKind::Site,
    }
}

/// What came about since the round before and is no event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub number: u64,
    named: BTreeSet<Change>,
    /// There was more than is named.
    many: BTreeSet<ChangeKind>,
}

impl Round {
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.many.is_empty()
    }

    pub fn add(&mut self, kind: ChangeKind, subject: impl Into<Arc<str>>) {
        if self.many.contains(&kind) {
            return;
        }
        self.named.insert(Change { kind, subject: subject.into(), sequence: None });
        if self.named.len() > NAMED_MAX {
            self.named.retain(|change| change.kind != kind);
            self.many.insert(kind);
        }
    }

    /// This round is over: the one that begins now.
    pub fn after(&self) -> Self {
        Self { number: self.number + 1, ..Self::default() }
    }

    /// What somebody hears who has heard everything up to the round `heard`.
    pub fn since(&self, heard: u64) -> Vec<Change> {
        let many = |kind| Change { kind, subject: MANY.into(), sequence: None };
        if heard + 1 < self.number {
            return [ChangeKind::Seen, ChangeKind::Alert].map(many).into();
        }
        self.named.iter().cloned().chain(self.many.iter().copied().map(many)).collect()
    }
}

/// The fleet, as who may hear of what depends on it.
pub struct Fleet<'a, R: Fn(&RolloutId, &Reach) -> bool> {
    pub directory: &'a Directory,
    pub people: &'a People,
    /// Whether all of a rollout's cohort is within a reach.
    pub reaches_rollout: R,
}

impl<R: Fn(&RolloutId, &Reach) -> bool> Fleet<'_, R> {
    /// Whether somebody may hear of a change: who may ask for the thing itself (INV-LEAST-1).
    pub fn may_hear(&self, person: &Arc<Principal>, change: &Change) -> bool {
        let admits = |endpoint: Endpoint| endpoint.access().admits(&Caller::Person(person.clone()));
        let everywhere = |scope| person.reach(scope).is_everywhere();
        let named = change.subject.split_once('/').map(|(_, name)| name);
        match change.kind {
            // That there were many says nothing of any.
            ChangeKind::Device | ChangeKind::Seen if &*change.subject == MANY => {
                person.holds(Scope::FleetRead)
            }
            ChangeKind::Device | ChangeKind::Seen => {
                let reach = person.reach(Scope::FleetRead);
                let id = named.and_then(|name| DeviceId::new(name).ok());
                match id.and_then(|id| self.directory.device(&id)) {
                    Some(device) => self.people.reaches(&reach, &device.zone),
                    None => reach.is_everywhere(),
                }
            }
            ChangeKind::Rollout => {
                let reach = person.reach(Scope::RolloutsRead);
                let id = named.and_then(|name| RolloutId::new(name).ok());
                reach.is_everywhere() || id.is_some_and(|id| (self.reaches_rollout)(&id, &reach))
            }
            ChangeKind::Release => admits(Endpoint::Releases),
            ChangeKind::Alert => admits(Endpoint::Alerts),
            ChangeKind::User => is_own(person, &change.subject) || everywhere(Scope::UsersRead),
            ChangeKind::Approval => {
                everywhere(Scope::EvidenceRead) || person.holds(Scope::ApprovalsWrite)
            }
            ChangeKind::Site => everywhere(Scope::EvidenceRead),
            ChangeKind::Reset => true,
        }
    }
}

/// `user/anna` and `token/anna/ci` are anna's.
fn is_own(person: &Principal, subject: &str) -> bool {
    let mut parts = subject.split('/').skip(1);
    person.user.as_deref().is_some_and(|user| parts.next() == Some(user))
}

/// Writes changes as lines of a stream, so many of them to a text.
pub fn texts(changes: &[Change]) -> impl Iterator<Item = String> {
    let text = |from: usize| {
        let to = changes.len().min(from + LINES_MAX);
        (from..to).map(|n| line(&changes[n], changes.get(n + 1))).collect()
    };
    (0..changes.len()).step_by(LINES_MAX).map(text)
}

/// Nothing in it breaks the line: data are JSON, ids are digits.
fn line(change: &Change, following: Option<&Change>) -> String {
    let Change { kind, subject, sequence } = change;
    // With the last that an event changed: whoever has its number has heard all of it.
    let is_last = following.is_none_or(|following| following.sequence != *sequence);
    let id = match sequence {
        Some(sequence) if is_last => format!("id: {sequence}\n"),
        _ => String::new(),
    };
    let data = Changed { subject: subject.to_string(), sequence: *sequence };
    let data = serde_json::to_string(&data).expect("a text and a number have a JSON form");
    format!("{id}event: {}\ndata: {data}\n\n", kind.as_str())
}

#[cfg(test)]
mod tests;
