//! What becomes of alerts: what rules found, people's words and time in; a new state and what is to be written and told out.
//!
//! ```text
//!            so               so for `for_ms`             nobody came in time
//!   clear ─────────▶ pending ──────────────▶ firing ─────────────────────────┐
//!     ▲  ▲              │ not so              │ │ ▲   priority up, told again │
//!     │  └──────────────┘                     │ │ └───────────────────────────┘
//!     │                          acknowledged │ │
//!     │        not so for `hold`              ▼ │
//!     └─────────────────────────── acknowledged │
//!     └──────────────────────────────────────────
//! ```
//!
//! A rule's subjects are what its signal names, or their gateways where it groups by gateway: then one alert counts them.
//!
//! Promises: nothing fires before it was so for `for_ms`, at every look between; nobody is told while it is silenced, and it
//! is seen all the same; each level of an alert is told once, also over a restart; what comes and goes is held the longer
//! the oftener it does ([`hold`]): at most [`RAISES_MAX`] alerts of a subject in [`REOPEN_MS`]; a rule has
//! [`SUBJECTS_MAX`] subjects, and one alert for all beyond ([`OTHERS`]); a look that failed changes nothing and is said.
//! Never: asks, writes or tells; looks at a clock.

use super::rule;
use api::alert::{Condition, Priority, Rule};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Milliseconds since 1970.
pub type Ms = u64;

/// Subjects of one rule that are pending or open, each by itself.
pub const SUBJECTS_MAX: usize = 100;
/// The subject of the alert that stands for all beyond [`SUBJECTS_MAX`].
pub const OTHERS: &str = "others";
/// Subjects that a rule of absence remembers. One more is not missed when it goes.
pub const KNOWN_MAX: usize = 10_000;
/// What was absent for so long is forgotten: a device that was scrapped is not missed for ever.
pub const FORGET_MS: Ms = 30 * 86_400_000;
/// How often an alert is told at the most, while nobody acknowledges it: a critical one is told again as it is.
pub const LEVEL_MAX: u8 = 3;
/// What fires again within so long of its end is flapping.
pub const REOPEN_MS: Ms = 2 * 3_600_000;
/// The holds of a subject that flaps, 1 to 64 minutes, are longer together than [`REOPEN_MS`].
pub const RAISES_MAX: usize = 8;

/// How long it has to be clear before an alert is resolved: twice as long each time that it came back.
pub fn hold(flaps: u8) -> Ms {
    60_000 << flaps.min(6)
}

/// One row of what a signal found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub subject: String,
    /// Under whose name it is counted, where the rule groups and a gateway is known.
    pub group: Option<String>,
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Looked {
        rule: String,
        found: Vec<Found>,
        /// There was more than was read: what is not in `found` may be so all the same.
        cut: bool,
        /// Who is not missed any more: revoked, quarantined.
        excused: Vec<String>,
    },
    Failed {
        rule: String,
        why: String,
    },
    Acknowledged {
        alert: u64,
    },
    Silenced(Silence),
    SilenceEnded {
        silence: u64,
    },
    /// A new rule, or another one in the place of an old one.
    Ruled(Arc<Rule>),
    RuleGone {
        rule: String,
    },
    /// Nothing but time.
    Passed,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Raise(Raised),
    /// Somebody is to hear of it. A pair of alert and level is told once.
    Tell {
        alert: u64,
        level: u8,
        priority: Priority,
        sum: Sum,
        sentence: String,
    },
    Acknowledge {
        alert: u64,
    },
    Resolve {
        alert: u64,
        why: Option<&'static str>,
        was_told: bool,
    },
    Know {
        rule: String,
        subject: String,
        group: Option<String>,
    },
    Forget {
        rule: String,
        subject: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Raised {
    pub alert: u64,
    pub rule: Arc<Rule>,
    pub subject: String,
    pub sum: Sum,
    /// Since when it is so.
    pub since: Ms,
    pub flaps: u8,
}

/// What the subjects under one key come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Sum {
    pub count: u64,
    /// Of the worst of them.
    pub value: f64,
    /// The first of them by name, where the key is another.
    pub one: Option<String>,
    /// Each of them is silenced by name.
    muted: bool,
}

/// Nobody is told of what it names until it ends. `None` is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    pub id: u64,
    pub rule: Option<String>,
    pub subject: Option<String>,
    pub until: Ms,
}

impl Sum {
    pub fn new(count: u64, value: f64, one: Option<String>) -> Self {
        Self { count, value, one, muted: false }
    }
}

impl Silence {
    fn covers(&self, rule: &str, subject: &str, now: Ms) -> bool {
        now < self.until
            && self.rule.as_deref().is_none_or(|named| named == rule)
            && self.subject.as_deref().is_none_or(|named| named == subject)
    }
}

/// All rules with all that is known of their subjects.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The number of the next alert.
    next: u64,
    rules: BTreeMap<String, Arc<Watched>>,
    silences: Arc<Vec<Silence>>,
}

/// A rule and its subjects.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    pub rule: Arc<Rule>,
    pub looked_at: Option<Ms>,
    /// Why the last look failed.
    pub trouble: Option<String>,
    subjects: BTreeMap<String, Subject>,
    /// For [`Condition::Absent`]: whom it named.
    known: BTreeMap<String, Known>,
}

/// Whom a rule of absence named.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    group: Option<String>,
    /// Since when it does not any more.
    gone_since: Option<Ms>,
}

#[derive(Clone, Debug, PartialEq)]
enum Subject {
    Pending {
        since: Ms,
        flaps: u8,
    },
    Open(Open),
    /// It was resolved not long ago.
    Quiet {
        since: Ms,
        flaps: u8,
    },
}

/// An alert that is firing or acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub struct Open {
    pub alert: u64,
    /// As of the last look at which it was so.
    pub sum: Sum,
    /// The highest level that was told, and when.
    pub told: Option<(u8, Ms)>,
    pub acknowledged: bool,
    pub flaps: u8,
    /// Since when it is not so any more.
    clear_since: Option<Ms>,
    /// Whether what it comes to was seen since the start, and not only read.
    seen: bool,
}

impl Open {
    pub fn was_looked_at(&self) -> bool {
        self.seen
    }
}

/// What the registry knows of an alert, at a start.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub alert: u64,
    pub rule: String,
    pub subject: String,
    pub value: f64,
    pub count: u64,
    pub told: Option<(u8, Ms)>,
    pub acknowledged: bool,
    pub flaps: u8,
    pub resolved_at: Option<Ms>,
}

impl State {
    /// Out of what was kept: open alerts and those that ended not long ago. What was pending is clear and begins anew. An
    /// open alert whose rule is there no more is resolved.
    pub fn load(
        next: u64,
        rules: impl IntoIterator<Item = Arc<Rule>>,
        kept: impl IntoIterator<Item = Kept>,
        known: impl IntoIterator<Item = (String, String, Option<String>)>,
        silences: Vec<Silence>,
        now: Ms,
    ) -> (Self, Vec<Effect>) {
        let watch = |rule: Arc<Rule>| (rule.id.clone(), Watched::new(rule));
        let mut rules: BTreeMap<String, Watched> = rules.into_iter().map(watch).collect();
        let mut effects = Vec::new();
        for kept in kept {
            let Kept { alert, value, count, told, acknowledged, flaps, .. } = kept;
            let watched = rules.get_mut(&kept.rule).filter(|watched| watched.rule.enabled);
            let subject = match (watched, kept.resolved_at) {
                (Some(watched), Some(since)) => {
                    // Of several that ended, the newest counts; an open one counts more.
                    let newer = Subject::Quiet { since, flaps };
                    let there = watched.subjects.entry(kept.subject).or_insert(newer.clone());
                    if matches!(there, Subject::Quiet { since: known, .. } if *known < since) {
                        *there = newer;
                    }
                    continue;
                }
                (Some(watched), None) => watched.subjects.entry(kept.subject),
                (None, Some(_)) => continue,
                (None, None) => {
                    let was_told = told.is_some();
                    effects.push(Effect::Resolve { alert, why: Some(RULE_GONE), was_told });
                    continue;
                }
            };
            let sum = Sum::new(count, value, None);
            let open =
                Open { alert, sum, told, acknowledged, flaps, clear_since: None, seen: false };
            subject.insert_entry(Subject::Open(open));
        }
        for (rule, subject, group) in known {
            if let Some(watched) = rules.get_mut(&rule) {
                watched.known.insert(subject, Known { group, gone_since: None });
            }
        }
        let rules = rules.into_iter().map(|(id, watched)| (id, Arc::new(watched))).collect();
        let mut state = Self { next, rules, silences: Arc::new(silences) };
        state.end_silences(now);
        (state, effects)
    }

    pub fn rules(&self) -> impl Iterator<Item = &Watched> {
        self.rules.values().map(Arc::as_ref)
    }

    pub fn rule(&self, id: &str) -> Option<&Watched> {
        self.rules.get(id).map(Arc::as_ref)
    }

    /// An alert that is open.
    pub fn open(&self, rule: &str, subject: &str) -> Option<&Open> {
        match self.rule(rule)?.subjects.get(subject)? {
            Subject::Open(open) => Some(open),
            Subject::Pending { .. } | Subject::Quiet { .. } => None,
        }
    }

    /// How many silences hold.
    pub fn silences(&self, now: Ms) -> usize {
        self.silences.iter().filter(|silence| now < silence.until).count()
    }

    /// Until when nobody is told of it, if that is so now.
    pub fn silenced_until(&self, rule: &str, subject: &str, now: Ms) -> Option<Ms> {
        let covering = self.silences.iter().filter(|silence| silence.covers(rule, subject, now));
        covering.map(|silence| silence.until).max()
    }

    /// When the priority of an open alert goes up, if nobody comes.
    pub fn escalates_at(&self, rule: &str, subject: &str) -> Option<Ms> {
        let open = self.open(rule, subject)?;
        escalates_at(&self.rule(rule)?.rule, open)
    }

    /// What happens next. Whoever carries out the effects keeps the state only if all of them were written.
    pub fn on(mut self, event: Event, now: Ms) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        match event {
            Event::Looked { rule, found, cut, excused } => {
                if let Some(watched) = self.rules.get_mut(&rule) {
                    Arc::make_mut(watched).excuse(&excused, &mut effects);
                }
                self.look(&rule, found, cut, now, &mut effects);
            }
            Event::Failed { rule, why } => {
                if let Some(watched) = self.rules.get_mut(&rule) {
                    let watched = Arc::make_mut(watched);
                    (watched.looked_at, watched.trouble) = (Some(now), Some(why));
                }
            }
            Event::Acknowledged { alert } => {
                let open = self.rules.values_mut().find_map(|watched| {
                    let found = watched.subjects.iter().find_map(|(key, subject)| match subject {
                        Subject::Open(open) if open.alert == alert => Some(key.clone()),
                        _ => None,
                    });
                    let key = found?;
                    match Arc::make_mut(watched).subjects.get_mut(&key) {
                        Some(Subject::Open(open)) => Some(open),
                        _ => None,
                    }
                });
                if let Some(open) = open.filter(|open| !open.acknowledged) {
                    open.acknowledged = true;
                    effects.push(Effect::Acknowledge { alert });
                }
            }
            Event::Silenced(silence) => Arc::make_mut(&mut self.silences).push(silence),
            Event::SilenceEnded { silence } => {
                Arc::make_mut(&mut self.silences).retain(|known| known.id != silence);
            }
            Event::Ruled(rule) => {
                self.drop_rule(&rule.id, RULE_CHANGED, &mut effects);
                self.rules.insert(rule.id.clone(), Arc::new(Watched::new(rule)));
            }
            Event::RuleGone { rule } => self.drop_rule(&rule, RULE_GONE, &mut effects),
            Event::Passed => {}
        }
        self.pass(now, &mut effects);
        (self, effects)
    }

    fn look(&mut self, id: &str, found: Vec<Found>, cut: bool, now: Ms, effects: &mut Vec<Effect>) {
        let Some(watched) = self.rules.get_mut(id) else { return };
        let watched = Arc::make_mut(watched);
        watched.looked_at = Some(now);
        watched.trouble = cut.then(|| {
            "it names more subjects than are read at a time: the rest is not looked at".to_owned()
        });
        let found = watched.is_so(found, now, effects);
        let silences = &self.silences;
        let is_silenced = |subject: &str| silences.iter().any(|s| s.covers(id, subject, now));
        let mut so: BTreeMap<String, Sum> = BTreeMap::new();
        let mut places = watched.subjects.values().filter(|s| s.holds_a_place()).count();
        for found in found {
            let muted = found.group.is_some() && is_silenced(&found.subject);
            let one = found.group.is_some().then(|| found.subject.clone());
            let mut key = found.group.unwrap_or(found.subject);
            let held = watched.subjects.get(&key).is_some_and(Subject::holds_a_place);
            if !held && !so.contains_key(&key) {
                if places < SUBJECTS_MAX {
                    places += 1;
                } else {
                    key = OTHERS.to_owned();
                }
            }
            let first = || Sum { count: 0, value: found.value, one: one.clone(), muted: true };
            let sum = so.entry(key).or_insert_with(first);
            sum.count += 1;
            sum.muted &= muted;
            sum.value = worse(watched.rule.when, sum.value, found.value);
            if one < sum.one {
                sum.one = one;
            }
        }
        watched.subjects.retain(|key, subject| match subject {
            Subject::Pending { .. } => so.contains_key(key),
            Subject::Open(_) | Subject::Quiet { .. } => true,
        });
        for (key, subject) in &mut watched.subjects {
            let Subject::Open(open) = subject else { continue };
            match so.get(key) {
                Some(sum) => {
                    (open.sum, open.clear_since, open.seen) = (sum.clone(), None, true);
                }
                None => open.clear_since = open.clear_since.or(Some(now)),
            }
        }
        for (key, sum) in so {
            let (since, flaps) = match watched.subjects.get(&key) {
                None => (now, 0),
                Some(Subject::Quiet { since, flaps }) => {
                    (now, if now < since + REOPEN_MS { flaps.saturating_add(1) } else { 0 })
                }
                Some(Subject::Pending { since, flaps }) => (*since, *flaps),
                Some(Subject::Open(_)) => continue,
            };
            if now < since.saturating_add(watched.rule.for_ms) {
                watched.subjects.insert(key, Subject::Pending { since, flaps });
                continue;
            }
            let alert = self.next;
            self.next += 1;
            let (rule, subject) = (watched.rule.clone(), key.clone());
            let raised = Raised { alert, rule, subject, sum: sum.clone(), since, flaps };
            effects.push(Effect::Raise(raised));
            let (told, acknowledged, clear_since) = (None, false, None);
            let open = Open { alert, sum, told, acknowledged, flaps, clear_since, seen: true };
            watched.subjects.insert(key, Subject::Open(open));
        }
    }

    /// What time alone does: ends silences, tells, escalates, resolves, forgets.
    fn pass(&mut self, now: Ms, effects: &mut Vec<Effect>) {
        self.end_silences(now);
        let silences = self.silences.clone();
        for (id, watched) in &mut self.rules {
            if !watched.is_moved_by(now) {
                continue;
            }
            let watched = Arc::make_mut(watched);
            let rule = &watched.rule;
            let in_trouble = watched.trouble.is_some();
            for (key, subject) in &mut watched.subjects {
                let Subject::Open(open) = subject else { continue };
                let silenced = open.sum.muted || silences.iter().any(|s| s.covers(id, key, now));
                let is_clear = open.clear_since.is_some();
                if !silenced
                    && !is_clear
                    && !open.acknowledged
                    && let Some(level) = due_level(rule, open, now)
                {
                    open.told = Some((level, now));
                    effects.push(Effect::Tell {
                        alert: open.alert,
                        level,
                        priority: raised(rule.priority, level),
                        sum: open.sum.clone(),
                        sentence: rule::sentence(rule, key, &open.sum),
                    });
                }
                let over = open.clear_since.is_some_and(|since| now >= since + hold(open.flaps));
                if over && !in_trouble && (!rule.latched || open.acknowledged) {
                    effects.push(Effect::Resolve {
                        alert: open.alert,
                        why: None,
                        was_told: open.told.is_some() && !silenced,
                    });
                    *subject = Subject::Quiet { since: now, flaps: open.flaps };
                }
            }
            watched.subjects.retain(|_, subject| match subject {
                Subject::Quiet { since, .. } => now < *since + REOPEN_MS,
                Subject::Open(_) | Subject::Pending { .. } => true,
            });
        }
    }

    fn end_silences(&mut self, now: Ms) {
        if self.silences.iter().any(|silence| silence.until <= now) {
            Arc::make_mut(&mut self.silences).retain(|silence| now < silence.until);
        }
    }

    fn drop_rule(&mut self, id: &str, why: &'static str, effects: &mut Vec<Effect>) {
        let Some(watched) = self.rules.remove(id) else { return };
        for subject in watched.subjects.values() {
            let Subject::Open(open) = subject else { continue };
            let was_told = open.told.is_some();
            effects.push(Effect::Resolve { alert: open.alert, why: Some(why), was_told });
        }
        let forget =
            |subject: &String| Effect::Forget { rule: id.to_owned(), subject: subject.clone() };
        effects.extend(watched.known.keys().map(forget));
    }
}

const RULE_GONE: &str = "its rule is gone";
const RULE_CHANGED: &str = "its rule was changed";

impl Subject {
    /// One of [`SUBJECTS_MAX`].
    fn holds_a_place(&self) -> bool {
        !matches!(self, Self::Quiet { .. })
    }
}

impl Watched {
    fn new(rule: Arc<Rule>) -> Self {
        let (subjects, known) = (BTreeMap::new(), BTreeMap::new());
        Self { rule, looked_at: None, trouble: None, subjects, known }
    }

    /// Whom a rule of absence would miss.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    fn excuse(&mut self, excused: &[String], effects: &mut Vec<Effect>) {
        for subject in excused {
            if self.known.remove(subject).is_some() {
                let rule = self.rule.id.clone();
                effects.push(Effect::Forget { rule, subject: subject.clone() });
            }
        }
    }

    pub fn pending(&self) -> usize {
        self.subjects.values().filter(|s| matches!(s, Subject::Pending { .. })).count()
    }

    pub fn open(&self) -> usize {
        self.subjects.values().filter(|s| matches!(s, Subject::Open(_))).count()
    }

    /// Of what was found, that which the rule is about.
    fn is_so(&mut self, found: Vec<Found>, now: Ms, effects: &mut Vec<Effect>) -> Vec<Found> {
        let is_so = |value: f64| match self.rule.when {
            Condition::Above(bound) => value > bound,
            Condition::Below(bound) => value < bound,
            Condition::Absent => false,
        };
        if self.rule.when != Condition::Absent {
            return found.into_iter().filter(|found| is_so(found.value)).collect();
        }
        let rule = &self.rule.id;
        let named: BTreeMap<String, Option<String>> =
            found.into_iter().map(|found| (found.subject, found.group)).collect();
        self.known.retain(|subject, known| {
            if named.contains_key(subject) {
                known.gone_since = None;
                return true;
            }
            let since = *known.gone_since.get_or_insert(now);
            let keep = now < since + FORGET_MS;
            if !keep {
                effects.push(Effect::Forget { rule: rule.clone(), subject: subject.clone() });
            }
            keep
        });
        for (subject, group) in named {
            let is_known = self.known.get(&subject).map(|known| known.group == group);
            if is_known == Some(true) || (is_known.is_none() && self.known.len() >= KNOWN_MAX) {
                continue;
            }
            let (of, under) = (subject.clone(), group.clone());
            effects.push(Effect::Know { rule: rule.clone(), subject: of, group: under });
            self.known.insert(subject, Known { group, gone_since: None });
        }
        let missed = self.known.iter().filter_map(|(subject, known)| {
            let for_ms = now.saturating_sub(known.gone_since?);
            let (subject, group) = (subject.clone(), known.group.clone());
            Some(Found { subject, group, value: for_ms as f64 })
        });
        missed.collect()
    }

    /// Whether [`State::pass`] has anything to do here: most rules have no subject at all.
    fn is_moved_by(&self, now: Ms) -> bool {
        self.subjects.values().any(|subject| match subject {
            Subject::Open(_) => true,
            Subject::Quiet { since, .. } => now >= since + REOPEN_MS,
            Subject::Pending { .. } => false,
        })
    }
}

/// The level that is to be told now, if one is.
fn due_level(rule: &Rule, open: &Open, now: Ms) -> Option<u8> {
    match open.told {
        None => Some(0),
        Some((level, _)) => {
            let is_due = escalates_at(rule, open).is_some_and(|at| now >= at);
            is_due.then_some(level + 1)
        }
    }
}

fn escalates_at(rule: &Rule, open: &Open) -> Option<Ms> {
    let (level, at) = open.told?;
    let after = rule.escalate_after_ms?;
    (level < LEVEL_MAX && !open.acknowledged).then(|| at.saturating_add(after))
}

/// One step up for each level, to the highest.
pub fn raised(priority: Priority, level: u8) -> Priority {
    match (priority, level) {
        (priority, 0) => priority,
        (Priority::Notice, 1) => Priority::Warning,
        _ => Priority::Critical,
    }
}

fn worse(when: Condition, a: f64, b: f64) -> f64 {
    match when {
        Condition::Above(_) | Condition::Absent => a.max(b),
        Condition::Below(_) => a.min(b),
    }
}

#[cfg(test)]
mod tests;
