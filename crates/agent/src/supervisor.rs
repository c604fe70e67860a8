//! What becomes of an application: started, watched while it is on trial, ended, started again. Pure: the time is an argument.
//!
//! Promises: every start follows a load, which is asked for (`boot`: who starts an image on trial a second time without asking
//! has let it run twice); one process at a time, the next one only when the one before has ended; an image on trial is called
//! healthy only after every condition of [`Health`] has come true since its start, and by the end of its trial it is confirmed or
//! told to be unhealthy; what ends again and again is started ever more seldom.
//! Never: writes the boot journal, judges metadata, starts a process itself. Whoever owns the journal confirms and gives up.
//!
//! ```text
//!             Load ┌───────────── pause ◀──────────────┐ it ended
//!                  ▼                                   │
//!   begin ──▶ loading ── Start ──▶ starting ──▶ running ── Restart, or the trial failed ──▶ stopping ──▶ loading
//! ```
//!
//! A failed trial is told as [`News::Unhealthy`] when the process has ended, and [`News::Load`] follows it: who hears the first
//! gives up in the journal, who hears the second loads, so what was good before starts again.
//!
//! The same core serves the agent itself as a product: its process runs already, and to stop is to end
//! ([`crate::application`], [`crate::launch`]).

use boot::{Digest, Slot};
use model::Version;
use std::fmt;
use std::path::PathBuf;

/// The first pause after a confirmed application ended by itself; it doubles up to the longest.
const PAUSE_MS: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 60_000;
/// Who ran for so long did not fail at its start: the pauses begin anew.
const STABLE_MS: u64 = 60_000;
/// After "not yet" the owner's script is asked again so much later.
const SCRIPT_PAUSE_MS: u64 = 1_000;
/// The code of the owner's script for "not yet, ask again" (EX_TEMPFAIL of sysexits.h). 0 is yes, every other is no.
pub const SCRIPT_NOT_YET: i32 = 75;

/// What a load chose, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub slot: Slot,
    /// The slot's file.
    pub program: PathBuf,
    pub digest: Digest,
    pub version: Version,
    /// Unproven (`boot::Reason::is_trial`): it is watched until it is confirmed.
    pub on_trial: bool,
}

/// What the journal's owner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The answer to [`News::Load`].
    Start(Launch),
    /// Something is armed or given up: end what runs, and ask for a load.
    Restart,
    /// A gateway has answered a check-in that was sent after [`News::Started`]. `current`: the metadata that the device trusts
    /// now are not older than those that ordered what is on trial.
    CheckedIn { current: bool },
    /// What runs in this slot is confirmed, durably.
    Confirmed(Slot),
    /// End what runs, and start nothing more.
    End,
}

/// What the journal's owner hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing runs: load, and answer with [`Order::Start`].
    Load,
    Started {
        slot: Slot,
        pid: u32,
        on_trial: bool,
    },
    /// What is on trial has met every condition: confirm it. Told once for a start.
    Healthy(Slot),
    /// What was on trial has failed, and does not run any more: give it up. [`News::Load`] follows.
    Unhealthy {
        slot: Slot,
        why: Why,
    },
    /// What is confirmed has ended by itself. [`News::Load`] follows after `pause_ms`.
    Ended {
        slot: Slot,
        how: String,
        pause_ms: u64,
    },
    /// After [`Order::End`]: nothing runs any more, and nothing more comes.
    Over,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Told(Order),
    /// The process runs.
    Started {
        pid: u32,
    },
    /// There is no process.
    NotStarted(String),
    /// It has said a reading.
    Reading,
    /// It and all of its group are gone.
    Exited(Exit),
    /// The owner's script has ended.
    Script(Verdict),
    /// [`Supervisor::deadline_ms`] has passed.
    Woken,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answered with [`Event::Started`] or [`Event::NotStarted`].
    Start(Launch),
    /// Ask the process to end. Answered, sooner or later, with [`Event::Exited`].
    Terminate,
    /// End it and its group at once.
    Kill,
    /// Run the owner's script beside it, within its time. Answered with [`Event::Script`].
    AskScript,
    /// Tell the journal's owner.
    Tell(News),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Code(i32),
    /// It was killed by a signal, or because it took too long.
    Killed,
    /// It could not be started.
    NotStarted,
}

/// What an image on trial has to show, all of it since its start. The default asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// It has run for so long.
    pub alive_ms: u64,
    /// It has said a reading.
    pub reading: bool,
    /// A gateway has answered a check-in, and the metadata are not older than what ordered it.
    pub checked_in: bool,
    /// The owner's script has said yes. It is asked when all else is true.
    pub script: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub health: Health,
    /// How long a trial may take, from the start to the confirmation.
    pub trial_ms: u64,
    /// How long a process may take to end before it is killed.
    pub stop_ms: u64,
}

/// Why an image on trial is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    NotStarted(String),
    Exited {
        how: Exit,
        after_ms: u64,
    },
    ScriptSaidNo(i32),
    ScriptKilled,
    ScriptNotStarted,
    /// The trial is over, and this is still missing.
    Late {
        missing: Missing,
        trial_ms: u64,
    },
}

/// What an image on trial has not shown yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Alive,
    Reading,
    CheckIn,
    CurrentMetadata,
    Script,
    Confirmation,
}

/// One application.
#[derive(Debug)]
pub struct Supervisor {
    settings: Settings,
    stage: Stage,
    /// What ran last, and how often in a row it ended before it had stood for a while.
    failures: Option<(Digest, u32)>,
}

#[derive(Debug)]
enum Stage {
    /// A load was asked for.
    Loading,
    /// Nothing runs until then.
    Pausing {
        until_ms: u64,
    },
    Starting {
        launch: Launch,
        then: Option<Then>,
    },
    Running(Running),
    Stopping {
        running: Running,
        kill_at_ms: Option<u64>,
        then: Then,
    },
    Over,
}

#[derive(Debug)]
struct Running {
    launch: Launch,
    since_ms: u64,
    /// None: it is confirmed.
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Trial {
    reading: bool,
    checked_in: bool,
    current: bool,
    script: Script,
    /// It was called healthy; the confirmation is awaited.
    told: bool,
    /// When there is something to be looked at again: at the end of the trial, or before.
    wake_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    NotAsked,
    Asked,
    NotBefore(u64),
    SaidYes,
}

/// What follows when the process has ended.
#[derive(Clone, Debug)]
enum Then {
    Load,
    GiveUp(Why),
    End,
}

impl Supervisor {
    /// Nothing runs: the first effect asks for a load.
    pub fn new(settings: Settings) -> (Self, Vec<Effect>) {
        let supervisor = Self { settings, stage: Stage::Loading, failures: None };
        (supervisor, vec![Effect::Tell(News::Load)])
    }

    /// Moves on. What does not fit to where it stands came late, and changes nothing.
    pub fn on(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Told(order) => self.told(order, now_ms, &mut effects),
            Event::Started { pid } => self.started(pid, now_ms, &mut effects),
            Event::NotStarted(how) => self.not_started(how, now_ms, &mut effects),
            Event::Exited(how) => self.exited(how, now_ms, &mut effects),
            Event::Reading => {
                if let Some(trial) = self.trial() {
                    trial.reading = true;
                }
            }
            Event::Script(verdict) => self.script(verdict, now_ms, &mut effects),
            Event::Woken => self.woken(now_ms, &mut effects),
        }
        self.judge(now_ms, &mut effects);
        effects
    }

    /// When to say [`Event::Woken`], as uptime. None: only something else moves it.
    pub fn deadline_ms(&self) -> Option<u64> {
        match &self.stage {
            Stage::Pausing { until_ms } => Some(*until_ms),
            Stage::Running(running) => running.trial.as_ref().map(|trial| trial.wake_ms),
            Stage::Stopping { kill_at_ms, .. } => *kill_at_ms,
            Stage::Loading | Stage::Starting { .. } | Stage::Over => None,
        }
    }

    /// What runs, or is about to.
    pub fn launch(&self) -> Option<&Launch> {
        match &self.stage {
            Stage::Starting { launch, .. } => Some(launch),
            Stage::Running(running) | Stage::Stopping { running, .. } => Some(&running.launch),
            Stage::Loading | Stage::Pausing { .. } | Stage::Over => None,
        }
    }

    fn told(&mut self, order: Order, now_ms: u64, effects: &mut Vec<Effect>) {
        match order {
            Order::Start(launch) => {
                if matches!(self.stage, Stage::Loading) {
                    effects.push(Effect::Start(launch.clone()));
                    self.stage = Stage::Starting { launch, then: None };
                }
            }
            // Another image comes next, and what the one before did is not held against it.
            Order::Restart => {
                self.failures = None;
                self.stop(Then::Load, now_ms, effects);
            }
            Order::End => self.stop(Then::End, now_ms, effects),
            Order::CheckedIn { current } => {
                if let Some(trial) = self.trial() {
                    trial.checked_in = true;
                    trial.current |= current;
                }
            }
            Order::Confirmed(slot) => {
                if let Stage::Running(running) = &mut self.stage
                    && running.launch.slot == slot
                {
                    running.trial = None;
                }
            }
        }
    }

    fn stop(&mut self, next: Then, now_ms: u64, effects: &mut Vec<Effect>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        self.stage = match stage {
            Stage::Loading if matches!(next, Then::Load) => Stage::Loading,
            Stage::Loading | Stage::Pausing { .. } => self.after(None, next, now_ms, effects),
            Stage::Starting { launch, .. } => Stage::Starting { launch, then: Some(next) },
            Stage::Running(running) => {
                effects.push(Effect::Terminate);
                let kill_at_ms = Some(now_ms.saturating_add(self.settings.stop_ms));
                Stage::Stopping { running, kill_at_ms, then: next }
            }
            // What is being judged is judged, whatever else is wanted; an end is an end.
            Stage::Stopping { running, kill_at_ms, then } => {
                let then = match (then, next) {
                    (Then::Load, next) => next,
                    (then @ Then::GiveUp(_), Then::Load) => then,
                    (_, Then::End) | (Then::End, _) => Then::End,
                    (then @ Then::GiveUp(_), Then::GiveUp(_)) => then,
                };
                Stage::Stopping { running, kill_at_ms, then }
            }
            Stage::Over => Stage::Over,
        };
    }

    fn started(&mut self, pid: u32, now_ms: u64, effects: &mut Vec<Effect>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Stage::Starting { launch, then } = stage else {
            self.stage = stage;
            return;
        };
        let on_trial = launch.on_trial;
        effects.push(Effect::Tell(News::Started { slot: launch.slot, pid, on_trial }));
        let trial = on_trial.then_some(Trial {
            reading: false,
            checked_in: false,
            current: false,
            script: Script::NotAsked,
            told: false,
            wake_ms: now_ms,
        });
        self.stage = Stage::Running(Running { launch, since_ms: now_ms, trial });
        if let Some(then) = then {
            self.stop(then, now_ms, effects);
        }
    }

    fn not_started(&mut self, how: String, now_ms: u64, effects: &mut Vec<Effect>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        self.stage = match stage {
            Stage::Starting { launch, then: None } if launch.on_trial => {
                self.after(Some((&launch, 0)), Then::GiveUp(Why::NotStarted(how)), now_ms, effects)
            }
            Stage::Starting { launch, then: None } => {
                self.pause(&launch, 0, format!("could not be started: {how}"), now_ms, effects)
            }
            Stage::Starting { then: Some(then), .. } => self.after(None, then, now_ms, effects),
            stage => stage,
        };
    }

    fn exited(&mut self, how: Exit, now_ms: u64, effects: &mut Vec<Effect>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        self.stage = match stage {
            Stage::Running(Running { launch, since_ms, trial }) => {
                let after_ms = now_ms.saturating_sub(since_ms);
                match trial {
                    Some(_) => {
                        let why = Why::Exited { how, after_ms };
                        self.after(Some((&launch, after_ms)), Then::GiveUp(why), now_ms, effects)
                    }
                    None => self.pause(&launch, after_ms, how.to_string(), now_ms, effects),
                }
            }
            Stage::Stopping { running, then, .. } => {
                let stood_ms = now_ms.saturating_sub(running.since_ms);
                self.after(Some((&running.launch, stood_ms)), then, now_ms, effects)
            }
            stage => stage,
        };
    }

    /// Nothing runs any more: what comes next. `ran`: what ended, and how long it had stood.
    fn after(
        &mut self,
        ran: Option<(&Launch, u64)>,
        then: Then,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Stage {
        match then {
            Then::Load => {
                effects.push(Effect::Tell(News::Load));
                Stage::Loading
            }
            Then::GiveUp(why) => {
                let Some((launch, stood_ms)) = ran else { return Stage::Loading };
                effects.push(Effect::Tell(News::Unhealthy { slot: launch.slot, why }));
                // What was good before starts at once. Only where there is no way back does the same image come again, and
                // then not as fast as it can fail.
                match self.count(launch, stood_ms) {
                    1 => {
                        effects.push(Effect::Tell(News::Load));
                        Stage::Loading
                    }
                    n => Stage::Pausing { until_ms: now_ms.saturating_add(pause_ms(n - 1)) },
                }
            }
            Then::End => {
                effects.push(Effect::Tell(News::Over));
                Stage::Over
            }
        }
    }

    fn pause(
        &mut self,
        launch: &Launch,
        stood_ms: u64,
        how: String,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Stage {
        let pause_ms = pause_ms(self.count(launch, stood_ms));
        effects.push(Effect::Tell(News::Ended { slot: launch.slot, how, pause_ms }));
        Stage::Pausing { until_ms: now_ms.saturating_add(pause_ms) }
    }

    fn count(&mut self, launch: &Launch, stood_ms: u64) -> u32 {
        let before = match self.failures {
            Some((digest, n)) if digest == launch.digest && stood_ms < STABLE_MS => n,
            _ => 0,
        };
        let n = before.saturating_add(1);
        self.failures = Some((launch.digest, n));
        n
    }

    fn script(&mut self, verdict: Verdict, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(trial) = self.trial().filter(|trial| trial.script == Script::Asked) else {
            return;
        };
        let why = match verdict {
            Verdict::Code(0) => {
                trial.script = Script::SaidYes;
                return;
            }
            Verdict::Code(SCRIPT_NOT_YET) => {
                trial.script = Script::NotBefore(now_ms.saturating_add(SCRIPT_PAUSE_MS));
                return;
            }
            Verdict::Code(code) => Why::ScriptSaidNo(code),
            Verdict::Killed => Why::ScriptKilled,
            Verdict::NotStarted => Why::ScriptNotStarted,
        };
        self.stop(Then::GiveUp(why), now_ms, effects);
    }

    fn woken(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match &mut self.stage {
            Stage::Pausing { until_ms } if *until_ms <= now_ms => {
                effects.push(Effect::Tell(News::Load));
                self.stage = Stage::Loading;
            }
            Stage::Stopping { kill_at_ms, .. }
                if kill_at_ms.is_some_and(|at_ms| at_ms <= now_ms) =>
            {
                *kill_at_ms = None;
                effects.push(Effect::Kill);
            }
            _ => {}
        }
    }

    /// What is on trial: is it healthy, is it late?
    fn judge(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Stage::Running(running) = &self.stage else { return };
        let Some(trial) = &running.trial else { return };
        let missing = self.missing(running, trial, now_ms);
        let (slot, since_ms) = (running.launch.slot, running.since_ms);
        let Settings { trial_ms, health, .. } = self.settings;
        if now_ms.saturating_sub(since_ms) >= trial_ms {
            let missing = missing.unwrap_or(Missing::Confirmation);
            self.stop(Then::GiveUp(Why::Late { missing, trial_ms }), now_ms, effects);
            return;
        }
        let Some(trial) = self.trial() else { return };
        trial.wake_ms = since_ms.saturating_add(trial_ms);
        match (missing, trial.script) {
            (None, _) if !trial.told => {
                trial.told = true;
                effects.push(Effect::Tell(News::Healthy(slot)));
            }
            (Some(Missing::Alive), _) => {
                trial.wake_ms = trial.wake_ms.min(since_ms.saturating_add(health.alive_ms));
            }
            (Some(Missing::Script), Script::NotBefore(at_ms)) if now_ms < at_ms => {
                trial.wake_ms = trial.wake_ms.min(at_ms);
            }
            (Some(Missing::Script), Script::NotAsked | Script::NotBefore(_)) => {
                trial.script = Script::Asked;
                effects.push(Effect::AskScript);
            }
            _ => {}
        }
    }

    /// The first thing that is not true yet. The script is the last: it need not be asked of what is not healthy anyhow.
    fn missing(&self, running: &Running, trial: &Trial, now_ms: u64) -> Option<Missing> {
        let health = &self.settings.health;
        let stood_ms = now_ms.saturating_sub(running.since_ms);
        [
            (stood_ms < health.alive_ms, Missing::Alive),
            (health.reading && !trial.reading, Missing::Reading),
            (health.checked_in && !trial.checked_in, Missing::CheckIn),
            (health.checked_in && !trial.current, Missing::CurrentMetadata),
            (health.script && trial.script != Script::SaidYes, Missing::Script),
        ]
        .into_iter()
        .find_map(|(is_missing, what)| is_missing.then_some(what))
    }

    fn trial(&mut self) -> Option<&mut Trial> {
        match &mut self.stage {
            Stage::Running(running) => running.trial.as_mut(),
            _ => None,
        }
    }
}

impl Why {
    /// For `boot::Boot::give_up`.
    pub fn code(&self) -> u16 {
        match self {
            Self::NotStarted(_) => 1,
            Self::Exited { .. } => 2,
            Self::ScriptSaidNo(_) => 3,
            Self::ScriptKilled => 4,
            Self::ScriptNotStarted => 5,
            Self::Late { missing, .. } => match missing {
                Missing::Alive => 10,
                Missing::Reading => 11,
                Missing::CheckIn => 12,
                Missing::CurrentMetadata => 13,
                Missing::Script => 14,
                Missing::Confirmation => 15,
            },
        }
    }
}

fn pause_ms(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    (PAUSE_MS << doublings).min(PAUSE_MS_MAX)
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

/// Short enough for the reason of an outcome (`model::manifest::REASON_BYTES_MAX`), except for what an error of the system says.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(how) => write!(f, "could not be started: {how}"),
            Self::Exited { how, after_ms } => write!(f, "{how} after {after_ms} ms on trial"),
            Self::ScriptSaidNo(code) => write!(f, "the owner's script said no (code {code})"),
            Self::ScriptKilled => f.write_str("the owner's script took too long or was killed"),
            Self::ScriptNotStarted => f.write_str("the owner's script could not be started"),
            Self::Late { missing, trial_ms } => {
                write!(f, "{missing} within its trial of {trial_ms} ms")
            }
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "had not run long enough",
            Self::Reading => "said no reading",
            Self::CheckIn => "no gateway answered a check-in",
            Self::CurrentMetadata => "metadata stayed older than those that ordered it",
            Self::Script => "the owner's script did not say yes",
            Self::Confirmation => "was healthy, and was not confirmed",
        })
    }
}

#[cfg(test)]
mod tests;
