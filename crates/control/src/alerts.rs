//! What somebody should know of: rules are looked at, alerts raised, told, acknowledged, silenced and resolved.
//!
//! ```text
//!   signals ─┐                          ┌─▶ one transaction: alerts, silences, rules, events, what is to be told
//!   people ──┼─▶ turn ─▶ step::State ───┤
//!   time ────┘                          └─▶ the state in memory, once that is durable
//! ```
//!
//! Promises: what [`step`] promises, over restarts too, since the state goes on only when its effects were written; a rule
//! that cannot be evaluated says why, counts, and leaves what it had raised as it is; alerts go on while the evidence log
//! takes nothing: their events are rows of the registry, and nobody waits for a checkpoint to be told.
//! Never: decides what is the matter: rules do. Asks the store while it holds the turn.

pub(crate) mod call;
mod driver;
mod page;
pub(crate) mod report;
pub mod rule;
mod signal;
pub mod step;
pub(crate) mod table;
mod target;
mod tell;

pub(crate) use call::{
    acknowledge, delete_rule, delete_target, end_silence, list, put_rule, put_target, rules,
    silence, silences, targets, test_target,
};
pub(crate) use report::{weekly, weekly_page};

use crate::metrics::Metrics;
use crate::principal::Actor;
use crate::registry::{Registry, RegistryError, Work};
use crate::station::{Station, now};
use api::Query;
use api::alert::{NewSilence, Rule, RuleState, Target, TargetState};
use model::Timestamp;
use rule::BadRule;
use signal::Meter;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockWriteGuard};
use step::{Event, Ms, REOPEN_MS, Silence, State};
use table::Writing;
use target::BadTarget;
use tokio::sync::{Mutex, MutexGuard, Notify, Semaphore};
use tokio_util::task::TaskTracker;

/// How events name what control does by itself.
const CONTROL: &str = "control";
/// Silences that hold at a time. Who needs more wants another rule.
const SILENCES_MAX: usize = 200;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    #[error("no alert {0}")]
    Unknown(u64),
    #[error("alert {0} is resolved: expected one that is open")]
    Resolved(u64),
    #[error("no silence {0}")]
    UnknownSilence(u64),
    #[error("silence {0} has ended: expected one that holds")]
    Ended(u64),
    #[error("no rule `{0}`")]
    UnknownRule(String),
    #[error(
        "rule `{0}` came with the software and is as it was shipped: to stop it, send it with enabled = false"
    )]
    Shipped(String),
    #[error("there are {max} {what} already: expected one to go first")]
    TooMany { what: &'static str, max: usize },
    #[error("no target `{0}`")]
    UnknownTarget(String),
    #[error(transparent)]
    BadTarget(#[from] BadTarget),
    #[error(transparent)]
    BadRule(#[from] BadRule),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// What is asked of alerts: by a rule that was looked at, by a person, by time.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// What a rule's signal said, when the rule was this one.
    Look(Arc<Rule>, Event),
    Acknowledge {
        alert: u64,
        note: Option<String>,
    },
    Silence(NewSilence),
    EndSilence(u64),
    Rule(Rule),
    DeleteRule(String),
    Target(Target),
    DeleteTarget(String),
    Passed,
}

/// What was done, and how many events tell of it and of all before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// The number of what was made, where something was.
    pub id: u64,
    pub events: u64,
}

/// The site's alerts. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Alerts(Arc<Inner>);

struct Inner {
    site: String,
    registry: Registry,
    query: Arc<dyn Query>,
    metrics: Metrics,
    /// Who holds it may write: the state is then what the tables say until the transaction is over.
    turn: Mutex<Turn>,
    state: RwLock<Arc<State>>,
    /// How deliveries to each target went last, since the start.
    delivered: RwLock<BTreeMap<String, Delivered>>,
    /// Something was put into a queue.
    queued: Notify,
    /// One report at a time is made for whoever asks.
    reports: Semaphore,
}

/// How deliveries to a target went.
#[derive(Clone, Debug, Default)]
struct Delivered {
    at_ms: Option<Ms>,
    trouble: Option<String>,
}

struct Turn {
    next_silence: u64,
    /// Rules that differ from the shipped ones, by id.
    changed: BTreeMap<String, Rule>,
    meter: Meter,
    targets: Vec<Target>,
}

impl Alerts {
    /// Reads what is kept. What was open stays open; what was pending begins anew.
    pub(crate) async fn open(
        site: String,
        registry: Registry,
        query: Arc<dyn Query>,
        metrics: Metrics,
    ) -> Result<Self, AlertError> {
        let at = now();
        let now_ms = at.as_ms();
        let loaded = registry
            .read(move |tx| -> Work<'_, table::Loaded, RegistryError> {
                Box::pin(table::load(tx, now_ms.saturating_sub(REOPEN_MS), now_ms))
            })
            .await?;
        let changed: BTreeMap<String, Rule> =
            loaded.rules.iter().map(|rule| (rule.id.clone(), rule.clone())).collect();
        let rules = table::rules(loaded.rules).into_values().map(Arc::new);
        let (state, effects) = State::load(
            loaded.next_alert,
            rules,
            loaded.alerts,
            loaded.known,
            loaded.silences,
            now_ms,
        );
        let turn = Turn {
            next_silence: loaded.next_silence,
            changed,
            meter: Meter::default(),
            targets: loaded.targets,
        };
        let writing = Writing {
            site: site.clone(),
            now: at,
            actor: CONTROL.into(),
            note: None,
            targets: turn.targets.clone(),
        };
        if !effects.is_empty() {
            let gone = registry.step(move |step| -> Work<'_, u64, RegistryError> {
                Box::pin(async move { table::write(step, &effects, &writing).await })
            });
            gone.await?;
        }
        metrics.count_alerts(&state);
        Ok(Self(Arc::new(Inner {
            site,
            registry,
            query,
            metrics,
            turn: Mutex::new(turn),
            state: RwLock::new(Arc::new(state)),
            delivered: RwLock::default(),
            queued: Notify::new(),
            reports: Semaphore::new(1),
        })))
    }

    /// As long as it is held, the state is what the tables say: between a commit and the state in memory nobody looks.
    async fn still(&self) -> MutexGuard<'_, Turn> {
        self.0.turn.lock().await
    }

    /// Everything as it is now.
    pub(crate) fn state(&self) -> Arc<State> {
        self.0.state.read().expect("nothing panics while it holds the state").clone()
    }

    /// How each rule is doing.
    pub(crate) async fn rules(&self) -> api::alert::Rules {
        let turn = self.0.turn.lock().await;
        let state = self.state();
        let states = state.rules().map(|watched| {
            let id = watched.rule.id.clone();
            let shipped = rule::shipped().contains_key(&id);
            let of = RuleState {
                shipped,
                changed: shipped && turn.changed.contains_key(&id),
                looked_at_ms: watched.looked_at,
                trouble: watched.trouble.clone(),
                pending: watched.pending() as u64,
                open: watched.open() as u64,
            };
            (id, of)
        });
        let states = states.collect();
        let rules = state.rules().map(|watched| Rule::clone(&watched.rule)).collect();
        api::alert::Rules { rules, states }
    }

    /// Does what is asked, durably. To its end, also if who asks goes away: between the commit and the state in memory
    /// nobody may.
    pub(crate) async fn act(
        &self,
        act: Act,
        actor: &Actor,
        at: Timestamp,
    ) -> Result<Done, AlertError> {
        let (this, actor) = (self.clone(), actor.clone());
        let work = tokio::spawn(async move { this.act_in_turn(act, actor, at).await });
        work.await.unwrap_or_else(|_| Err(RegistryError::GivenUp.into()))
    }

    async fn act_in_turn(
        &self,
        mut act: Act,
        actor: Actor,
        at: Timestamp,
    ) -> Result<Done, AlertError> {
        let mut turn = self.0.turn.lock().await;
        if let Act::Target(target) = act {
            let before = turn.targets.iter().find(|known| known.id == target.id);
            act = Act::Target(target::keep_secrets(target, before));
        }
        let now_ms = at.as_ms();
        let before = self.state();
        let mut note = None;
        let event = match &act {
            // Another rule has taken its place meanwhile: what was found is not about it.
            Act::Look(rule, _) if before.rule(&rule.id).is_none_or(|w| w.rule != *rule) => {
                Event::Passed
            }
            Act::Look(_, event) => event.clone(),
            Act::Acknowledge { alert, note: said } => {
                note = said.clone();
                self.expect_open(*alert).await?;
                Event::Acknowledged { alert: *alert }
            }
            Act::Silence(what) => {
                if before.silences(now_ms) >= SILENCES_MAX {
                    return Err(AlertError::TooMany { what: "silences", max: SILENCES_MAX });
                }
                if let Some(rule) = what.rule.as_ref().filter(|id| before.rule(id).is_none()) {
                    return Err(AlertError::UnknownRule(rule.clone()));
                }
                Event::Silenced(Silence {
                    id: turn.next_silence,
                    rule: what.rule.clone(),
                    subject: what.subject.clone(),
                    until: what.until_ms,
                })
            }
            Act::EndSilence(id) => {
                self.expect_holding(*id, now_ms).await?;
                Event::SilenceEnded { silence: *id }
            }
            Act::Rule(rule) => {
                rule::check(rule)?;
                let own = turn.changed.len();
                if own >= rule::RULES_MAX && !turn.changed.contains_key(&rule.id) {
                    return Err(AlertError::TooMany { what: "rules", max: rule::RULES_MAX });
                }
                Event::Ruled(Arc::new(rule.clone()))
            }
            Act::DeleteRule(id) => match (turn.changed.contains_key(id), rule::shipped().get(id)) {
                (true, Some(shipped)) => Event::Ruled(Arc::new(shipped.clone())),
                (true, None) => Event::RuleGone { rule: id.clone() },
                (false, Some(_)) => return Err(AlertError::Shipped(id.clone())),
                (false, None) => return Err(AlertError::UnknownRule(id.clone())),
            },
            Act::Target(target) => {
                let known = turn.targets.iter().any(|known| known.id == target.id);
                if !known && turn.targets.len() >= target::TARGETS_MAX {
                    let max = target::TARGETS_MAX;
                    return Err(AlertError::TooMany { what: "targets", max });
                }
                target::check(target)?;
                Event::Passed
            }
            Act::DeleteTarget(id) => {
                if !turn.targets.iter().any(|known| known.id == *id) {
                    return Err(AlertError::UnknownTarget(id.clone()));
                }
                Event::Passed
            }
            Act::Passed => Event::Passed,
        };
        let (next, effects) = State::clone(&before).on(event, now_ms);
        let made = turn.next_silence;
        let is_only_seen = matches!(act, Act::Look(..) | Act::Passed | Act::Acknowledge { .. });
        let events = if effects.is_empty() && is_only_seen {
            self.0.registry.events()
        } else {
            let writing = Writing {
                site: self.0.site.clone(),
                now: at,
                actor,
                note,
                targets: turn.targets.clone(),
            };
            let act = act.clone();
            let step = self.0.registry.step(move |step| -> Work<'_, u64, RegistryError> {
                Box::pin(async move {
                    match &act {
                        Act::Silence(what) => {
                            table::add_silence(step, made, what, &writing).await?;
                        }
                        Act::EndSilence(id) => table::end_silence(step, *id, &writing).await?,
                        Act::Rule(rule) => table::put_rule(step, rule, &writing).await?,
                        Act::DeleteRule(id) => table::delete_rule(step, id, &writing).await?,
                        Act::Target(target) => table::put_target(step, target, &writing).await?,
                        Act::DeleteTarget(id) => table::delete_target(step, id, &writing).await?,
                        Act::Look(..) | Act::Acknowledge { .. } | Act::Passed => {}
                    }
                    table::write(step, &effects, &writing).await
                })
            });
            let done = step.await?;
            if done.value > 0 {
                self.0.metrics.tellings.with_label_values(&["no_room"]).inc_by(done.value);
                tracing::error!(
                    tellings = done.value,
                    "targets are told nothing more: too much waits for them"
                );
            }
            done.events
        };
        match act {
            Act::Silence(_) => turn.next_silence += 1,
            Act::Rule(rule) => {
                turn.meter.forget(&rule.id);
                turn.changed.insert(rule.id.clone(), rule);
            }
            Act::DeleteRule(id) => {
                turn.meter.forget(&id);
                turn.changed.remove(&id);
            }
            Act::Target(target) => {
                turn.targets.retain(|known| known.id != target.id);
                self.0.forget_delivered(&target.id);
                turn.targets.push(target);
                turn.targets.sort_by(|a, b| a.id.cmp(&b.id));
            }
            Act::DeleteTarget(id) => {
                turn.targets.retain(|known| known.id != id);
                self.0.forget_delivered(&id);
            }
            _ => {}
        }
        self.show(next);
        self.0.queued.notify_one();
        Ok(Done { id: made, events })
    }

    /// Notes how an attempt went: why it failed, if it did.
    fn note(&self, target: &str, trouble: Option<String>, at_ms: Ms) {
        let mut delivered = self.0.delivered_mut();
        let of = delivered.entry(target.to_owned()).or_default();
        if trouble.is_none() {
            of.at_ms = Some(at_ms);
        }
        of.trouble = trouble;
    }

    /// All targets as they may be shown.
    pub(crate) async fn targets(&self) -> Result<Vec<TargetState>, AlertError> {
        let targets = self.0.turn.lock().await.targets.clone();
        let queues = self
            .0
            .registry
            .read(|tx| -> Work<'_, _, RegistryError> { Box::pin(table::queues(tx)) });
        let queues = queues.await?;
        let delivered = self.0.delivered.read().expect("nothing panics while it holds it");
        let shown = targets.into_iter().map(|target| {
            let (target, has_secret) = target::without_secrets(target);
            let Delivered { at_ms, trouble } =
                delivered.get(&target.id).cloned().unwrap_or_default();
            let waiting = queues.get(&target.id).copied().unwrap_or(0);
            TargetState { target, has_secret, waiting, delivered_at_ms: at_ms, trouble }
        });
        Ok(shown.collect())
    }

    async fn target(&self, id: &str) -> Result<Target, AlertError> {
        let turn = self.0.turn.lock().await;
        let known = turn.targets.iter().find(|known| known.id == id);
        known.cloned().ok_or_else(|| AlertError::UnknownTarget(id.to_owned()))
    }

    fn show(&self, next: State) {
        self.0.metrics.count_alerts(&next);
        *self.0.state.write().expect("nothing panics while it holds the state") = Arc::new(next);
    }

    async fn expect_open(&self, alert: u64) -> Result<(), AlertError> {
        let known = self
            .0
            .registry
            .read(move |tx| -> Work<'_, _, RegistryError> { Box::pin(table::one(tx, alert)) });
        match known.await? {
            None => Err(AlertError::Unknown(alert)),
            Some(known) if known.resolved_at_ms.is_some() => Err(AlertError::Resolved(alert)),
            Some(_) => Ok(()),
        }
    }

    async fn expect_holding(&self, silence: u64, now_ms: Ms) -> Result<(), AlertError> {
        let known = self.0.registry.read(move |tx| -> Work<'_, _, RegistryError> {
            Box::pin(table::one_silence(tx, silence))
        });
        match known.await? {
            None => Err(AlertError::UnknownSilence(silence)),
            Some(known) if known.ended_at_ms.is_some() || known.what.until_ms <= now_ms => {
                Err(AlertError::Ended(silence))
            }
            Some(_) => Ok(()),
        }
    }
}

impl Metrics {
    /// Of every rule and priority there is a figure, also before the first look: a rule can be about it.
    fn count_alerts(&self, state: &State) {
        let mut open = BTreeMap::new();
        for watched in state.rules() {
            let failing = i64::from(watched.trouble.is_some());
            self.rules_failing.with_label_values(&[&watched.rule.id]).set(failing);
            let of = open.entry(watched.rule.priority).or_insert(0);
            *of += i64::try_from(watched.open()).unwrap_or(i64::MAX);
        }
        for priority in api::alert::Priority::ALL {
            let count = open.get(&priority).copied().unwrap_or(0);
            self.alerts.with_label_values(&[priority.as_str()]).set(count);
        }
    }
}

impl Inner {
    fn delivered_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Delivered>> {
        self.delivered.write().expect("nothing panics while it holds it")
    }

    fn forget_delivered(&self, target: &str) {
        self.delivered_mut().remove(target);
    }
}

/// What goes on by itself: rules are looked at, targets told, reports made.
pub(crate) fn run(station: &Arc<Station>, tasks: &TaskTracker) {
    tasks.spawn(driver::run(station.clone()));
    tasks.spawn(tell::run(station.clone()));
    tasks.spawn(report::run(station.clone()));
}

#[cfg(test)]
mod tests;
