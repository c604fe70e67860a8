//! One product's way from an order to a confirmed image. Pure: the time is an argument, and nothing is written here.
//!
//! Promises: nothing is armed but what the newest assessment of **both** repositories names (INV-IMG-1), and only in answer to
//! a check-in whose lease allows it now (INV-ROLL-1); an order that ended badly is not begun again, whoever repeats it; what is
//! on trial is never disturbed.
//! Never: judges metadata (`trust::uptane::assess` does), judges health ([`crate::supervisor`] does).
//!
//! ```text
//!             an order                whole                  a lease allows it            load
//!   idle ──────────────▶ fetching ─────────────▶ whole ─────────────────────▶ restarting ───────▶ trial
//!    ▲                       │   ▲                 │                                                │
//!    │ another order, none   │   └── not whole ────┘ (bounded)                   healthy: confirm ──┤
//!    └───────────────────────┴────────────────────────────────────────────── unhealthy: give up ────┘
//! ```
//!
//! What is durable of it is the boot journal and [`super::notes`]. A power cut loses the stage and nothing else: the next check-in
//! brings the same order, and what lies in the spare slot already is not fetched again.

use super::notes::Ordered;
use api::update::IMAGE_BYTES_MAX;
use boot::{Reason, Slot};
use model::SecurityVersion;
use model::manifest::InstallEnd;
use trust::lease::NotNow;
use trust::uptane::{self, Install};

/// How often an image may turn out to be another than the metadata name before its order has failed. A part of it may have
/// been torn by a power cut, and a cache on the way may have rotted: once each, and once more.
pub const WRONG_MAX: u32 = 3;
/// The first wait after an image was not to be had; it doubles up to the longest.
const FETCH_WAIT_MS: u64 = 1_000;
const FETCH_WAIT_MS_MAX: u64 = 60_000;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A check-in was answered, and what both repositories say of this product was assessed.
    Assessed {
        verdict: &'a Verdict,
        /// The order that was begun last, and how it ended.
        newest: Option<(&'a Ordered, InstallEnd)>,
        /// Whether the lease that came allows to arm for the verdict's rollout.
        may_arm: Result<(), NotNow>,
    },
    /// The image lies in the spare slot, whole.
    Fetched,
    NotFetched(NotFetched),
    /// The journal says, durably, that it starts at the next load.
    Armed,
    /// Nothing is armed: it is not whole any more, the lease had run out in between, or the journal could not be written.
    NotArmed(NotArmed),
    /// What is on trial was well, and that could not be written: it is on trial still.
    NotConfirmed,
    /// The loader has chosen.
    Loaded(Reason),
    /// What is on trial in this slot has shown all that was asked of it.
    Healthy(Slot),
    /// What was on trial has failed, and does not run any more.
    Unhealthy {
        slot: Slot,
        code: u16,
        why: String,
    },
    /// [`Installer::wake_ms`] has passed.
    Woken,
}

/// What both repositories, together, tell this product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Install(Install, Ordered),
    Raise(SecurityVersion),
    /// It runs what it should, or nobody ordered anything.
    Nothing,
    /// It is ordered, and may not be followed.
    Refused {
        order: Option<Ordered>,
        why: uptane::Refused,
    },
    /// The metadata do not belong together yet, or have ended: nothing follows from them.
    Unknown,
}

/// Why an image is not in its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFetched {
    /// No gateway gave it, or not all of it. What came is kept, and it goes on from there.
    Broken,
    /// As long as it should be, and not what the metadata name. The slot is empty again.
    Wrong,
    /// It does not fit here.
    NoRoom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotArmed {
    NotWhole,
    NotNow(NotNow),
    /// There was no room for it, or the journal does not make this move.
    NotWritten,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Note the order, and bring its image into the spare slot, from where it is. Answered with `Fetched` or `NotFetched`.
    Fetch(Install, Ordered),
    /// The fetch is void. What came stays where it is.
    StopFetch,
    /// Ask a gateway now: for a fresh lease, or to tell how an install ended.
    CheckIn,
    /// Answered with `Armed` or `NotArmed`.
    Arm(Install, Ordered),
    /// End what runs and load. Answered with `Loaded`.
    Restart,
    Confirm(Slot),
    GiveUp {
        slot: Slot,
        code: u16,
        why: String,
    },
    Raise(SecurityVersion),
    /// The order came to its end before it was armed. Durable before anybody is told.
    Fail(Ordered, String),
}

/// See the module's head.
#[derive(Debug)]
pub struct Installer {
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// The loader has not chosen yet.
    Starting,
    Idle,
    Fetching {
        install: Install,
        order: Ordered,
        wrong: u32,
        failures: u32,
        again_ms: Option<u64>,
    },
    /// Whole, and waits for a lease under which it may be armed.
    Whole {
        install: Install,
        order: Ordered,
        wrong: u32,
    },
    /// Armed, and the loader is asked.
    Restarting,
    Trial,
}

impl Default for Installer {
    fn default() -> Self {
        Self { stage: Stage::Starting }
    }
}

impl Installer {
    /// Moves on. What does not fit to where it stands came late, and changes nothing.
    pub fn on(&mut self, event: Event<'_>, now_ms: u64) -> Vec<Effect> {
        match event {
            Event::Assessed { verdict, newest, may_arm } => self.assessed(verdict, newest, may_arm),
            Event::Fetched => self.fetched(),
            Event::NotFetched(why) => self.not_fetched(&why, now_ms),
            Event::Armed if matches!(self.stage, Stage::Whole { .. }) => {
                self.stage = Stage::Restarting;
                vec![Effect::Restart]
            }
            Event::NotArmed(why) => self.not_armed(why),
            Event::NotConfirmed => {
                self.stage = Stage::Trial;
                Vec::new()
            }
            Event::Loaded(reason) => self.loaded(reason),
            Event::Healthy(slot) if self.stage == Stage::Trial => {
                self.stage = Stage::Idle;
                vec![Effect::Confirm(slot), Effect::CheckIn]
            }
            Event::Unhealthy { slot, code, why } if self.stage == Stage::Trial => {
                self.stage = Stage::Restarting;
                vec![Effect::GiveUp { slot, code, why }]
            }
            Event::Armed | Event::Healthy(_) | Event::Unhealthy { .. } => Vec::new(),
            Event::Woken => self.woken(now_ms),
        }
    }

    /// When to say [`Event::Woken`], as uptime.
    pub fn wake_ms(&self) -> Option<u64> {
        match &self.stage {
            Stage::Fetching { again_ms, .. } => *again_ms,
            _ => None,
        }
    }

    /// Something of it is under way: another product waits. One of which nothing may start holds up nobody.
    pub fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::Starting | Stage::Idle)
    }

    /// The loader is asked by our own word: what the journal has armed is to start now.
    pub fn is_restarting(&self) -> bool {
        self.stage == Stage::Restarting
    }

    /// What came under the name of the image that is being fetched was once another.
    pub fn had_wrong_bytes(&self) -> bool {
        matches!(&self.stage, Stage::Fetching { wrong, .. } if *wrong > 0)
    }

    /// For people and metrics.
    pub fn stage(&self) -> &'static str {
        match &self.stage {
            Stage::Starting => "starting",
            Stage::Idle => "idle",
            Stage::Fetching { .. } => "fetching",
            Stage::Whole { .. } => "whole",
            Stage::Restarting => "restarting",
            Stage::Trial => "trial",
        }
    }

    fn assessed(
        &mut self,
        verdict: &Verdict,
        newest: Option<(&Ordered, InstallEnd)>,
        may_arm: Result<(), NotNow>,
    ) -> Vec<Effect> {
        match &self.stage {
            // What is under way in the journal comes to its end first; the order is there again at the next check-in.
            Stage::Starting | Stage::Restarting | Stage::Trial => return Vec::new(),
            Stage::Idle | Stage::Fetching { .. } | Stage::Whole { .. } => {}
        }
        match verdict {
            Verdict::Install(install, order) => {
                self.ordered(install.clone(), order.clone(), newest, may_arm)
            }
            Verdict::Unknown => Vec::new(),
            Verdict::Nothing => self.stop(),
            Verdict::Raise(floor) => {
                let mut effects = self.stop();
                effects.push(Effect::Raise(*floor));
                effects
            }
            Verdict::Refused { order, why } => {
                let mut effects = self.stop();
                // Told once: what was told as failed is in the notes.
                let order = order.as_ref().filter(|order| lasts(why) && !is_over(order, newest));
                if let Some(order) = order {
                    effects.push(Effect::Fail(order.clone(), format!("{}: {why}", why.label())));
                    effects.push(Effect::CheckIn);
                }
                effects
            }
        }
    }

    fn ordered(
        &mut self,
        install: Install,
        order: Ordered,
        newest: Option<(&Ordered, InstallEnd)>,
        may_arm: Result<(), NotNow>,
    ) -> Vec<Effect> {
        if is_over(&order, newest) {
            return self.stop();
        }
        if install.length() > IMAGE_BYTES_MAX {
            let mut effects = self.stop();
            let reason = format!(
                "image: {} bytes, and none has more than {IMAGE_BYTES_MAX}",
                install.length()
            );
            effects.extend([Effect::Fail(order, reason), Effect::CheckIn]);
            return effects;
        }
        match &mut self.stage {
            Stage::Fetching { install: now, order: known, .. } if known.is(&order) => {
                // The same image; the generation that orders it may be a newer one.
                (*now, *known) = (install, order);
                Vec::new()
            }
            Stage::Whole { install: now, order: known, .. } if known.is(&order) => {
                (*now, *known) = (install.clone(), order.clone());
                match may_arm {
                    Ok(()) => vec![Effect::Arm(install, order)],
                    // The next check-in brings another lease; a halt may end.
                    Err(_) => Vec::new(),
                }
            }
            _ => {
                let mut effects = self.stop();
                effects.push(Effect::Fetch(install.clone(), order.clone()));
                self.stage =
                    Stage::Fetching { install, order, wrong: 0, failures: 0, again_ms: None };
                effects
            }
        }
    }

    fn stop(&mut self) -> Vec<Effect> {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Fetching { .. } => vec![Effect::StopFetch],
            _ => Vec::new(),
        }
    }

    /// Under the lease of this very moment, not of the time at which the download began.
    fn fetched(&mut self) -> Vec<Effect> {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Fetching { install, order, wrong, .. } => {
                self.stage = Stage::Whole { install, order, wrong };
                vec![Effect::CheckIn]
            }
            stage => {
                self.stage = stage;
                Vec::new()
            }
        }
    }

    fn not_fetched(&mut self, why: &NotFetched, now_ms: u64) -> Vec<Effect> {
        let Stage::Fetching { order, wrong, failures, again_ms, .. } = &mut self.stage else {
            return Vec::new();
        };
        let failed = match why {
            NotFetched::Broken => None,
            NotFetched::Wrong => {
                *wrong += 1;
                // It begins from nothing.
                *failures = 0;
                (*wrong >= WRONG_MAX).then(|| {
                    format!(
                        "image: expected what the metadata name, found {WRONG_MAX} times another"
                    )
                })
            }
            NotFetched::NoRoom => Some(format!("image: no room for {} bytes", order.length)),
        };
        if let Some(reason) = failed {
            let effects = vec![Effect::Fail(order.clone(), reason), Effect::CheckIn];
            self.stage = Stage::Idle;
            return effects;
        }
        let wait_ms = (FETCH_WAIT_MS << (*failures).min(16)).min(FETCH_WAIT_MS_MAX);
        *failures = failures.saturating_add(1);
        *again_ms = Some(now_ms.saturating_add(wait_ms));
        Vec::new()
    }

    fn not_armed(&mut self, why: NotArmed) -> Vec<Effect> {
        match (std::mem::replace(&mut self.stage, Stage::Idle), why) {
            (Stage::Whole { install, order, wrong }, NotArmed::NotWhole) => {
                let wrong = wrong + 1;
                if wrong >= WRONG_MAX {
                    let reason = format!("image: was not whole in its slot, {WRONG_MAX} times");
                    return vec![Effect::Fail(order, reason), Effect::CheckIn];
                }
                let effects = vec![Effect::Fetch(install.clone(), order.clone())];
                self.stage = Stage::Fetching { install, order, wrong, failures: 0, again_ms: None };
                effects
            }
            // The image is none the worse, and the order is there again at the next check-in.
            (Stage::Whole { .. }, NotArmed::NotWritten) => Vec::new(),
            (stage, _) => {
                self.stage = stage;
                Vec::new()
            }
        }
    }

    /// Whatever the loader chose is what runs; an install that has just ended is told at once.
    fn loaded(&mut self, reason: Reason) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.stage, Stage::Idle);
        match (reason.is_trial(), before) {
            (true, before) => {
                self.stage = Stage::Trial;
                match before {
                    Stage::Fetching { .. } => vec![Effect::StopFetch],
                    _ => Vec::new(),
                }
            }
            (false, Stage::Restarting | Stage::Trial) => vec![Effect::CheckIn],
            // A confirmed application that ended is started again: what is fetched for it beside goes on.
            (false, before @ (Stage::Fetching { .. } | Stage::Whole { .. })) => {
                self.stage = before;
                Vec::new()
            }
            (false, _) => Vec::new(),
        }
    }

    fn woken(&mut self, now_ms: u64) -> Vec<Effect> {
        match &mut self.stage {
            Stage::Fetching { install, order, again_ms, .. }
                if again_ms.is_some_and(|at_ms| at_ms <= now_ms) =>
            {
                *again_ms = None;
                vec![Effect::Fetch(install.clone(), order.clone())]
            }
            _ => Vec::new(),
        }
    }
}

/// Whether this very order has come to a bad end here.
fn is_over(order: &Ordered, newest: Option<(&Ordered, InstallEnd)>) -> bool {
    newest.is_some_and(|(newest, end)| {
        newest.is(order) && matches!(end, InstallEnd::Reverted | InstallEnd::Failed)
    })
}

/// Whether the same order would be refused again by newer metadata: then it has failed. What the vendor does not name *yet* may
/// be on its way through a gateway's cache, and a raise comes after the confirmation that it waits for.
fn lasts(why: &uptane::Refused) -> bool {
    use uptane::Refused::{NotPublished, RaiseTooEarly};
    !matches!(why, NotPublished { .. } | RaiseTooEarly { .. })
}

#[cfg(test)]
mod tests;
