//! What a rollout shall do, said beforehand. A plan is never changed: who has another mind makes another rollout.

use crate::order::{self, Share};
use crate::text;
use model::{Digest, ProductId, RolloutId, Version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::Deref;

/// One step outwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// Of the cohort, with the waves before.
    pub share: Share,
    /// And never more devices than this, with the waves before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_max: Option<u64>,
    /// How long to wait, once every device of it has an outcome, before its gate is asked.
    pub soak_ms: u64,
}

/// A question to the time-series store whose answer is one number, and what that number may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    pub name: String,
    pub sql: String,
    pub limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    /// `None`: this is no number that could be compared.
    pub fn allows(self, found: f64) -> Option<bool> {
        found.is_finite().then_some(match self {
            Self::AtMost(most) => found <= most,
            Self::AtLeast(least) => found >= least,
        })
    }

    fn number(self) -> f64 {
        match self {
            Self::AtMost(number) | Self::AtLeast(number) => number,
        }
    }
}

/// How a rollout is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Back {
    /// When the rollout halts by itself, it is taken back without asking.
    pub by_itself: bool,
    /// Of the devices that have to go back, ascending; the last is all of them.
    pub waves: Vec<Share>,
    /// Orders to go back that may be under way at a time, silent devices not counted: they must not keep others from going.
    pub at_a_time: u64,
}

/// A plan as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    #[serde(with = "text")]
    pub rollout: RolloutId,
    /// The site's generation when the plan was made.
    pub generation: u64,
    #[serde(with = "text")]
    pub product: ProductId,
    #[serde(with = "text")]
    pub version: Version,
    /// Of the image that both repositories name.
    #[serde(with = "text::digest")]
    pub digest: Digest,
    /// How many devices the cohort has. Shares are of this number, whoever joins or leaves.
    pub cohort: u64,
    pub waves: Vec<Wave>,
    /// Permits that may be outstanding at a time, silent devices counted (INV-ROLL-2): the most that one bad release can
    /// take down before anybody knows.
    pub bound: u64,
    /// From the permit: who has not shown an outcome by then is silent, which counts as a failure.
    pub prove_within_ms: u64,
    /// From the opening of a wave: who has not come for his permit by then is not waited for.
    pub come_within_ms: u64,
    /// Of the devices whose outcome is known, so many run the release. Below it the rollout halts.
    pub success_min: Share,
    /// Of a wave's devices, so many have proven it before the wave can be over. Below it the rollout waits.
    pub quorum: Share,
    /// Asked after each wave. Each must be within its limit.
    pub signals: Vec<Signal>,
    /// A question that got no number is asked again after so long.
    pub ask_again_ms: u64,
    pub back: Back,
}

/// Waves of a plan, forward or back.
const WAVES_MAX: usize = 32;
const SIGNALS_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 64;
const SQL_BYTES_MAX: usize = 4096;
/// A year: nothing in a rollout waits longer.
const WAIT_MS_MAX: u64 = 366 * 24 * 3600 * 1000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("a cohort of no devices: nothing to roll out to")]
    NoCohort,
    #[error("expected 1 to {WAVES_MAX} waves {way}, found {found}")]
    Waves { way: &'static str, found: usize },
    #[error("wave {wave} {way} is not larger than the one before: each wave holds those before it")]
    NotLarger { wave: usize, way: &'static str },
    #[error("the last wave back is not all of them: what is bad would stay somewhere")]
    NotAllBack,
    #[error("`{what}` is 0: nothing could ever move")]
    Zero { what: &'static str },
    #[error("`{what}` is {found} ms: expected at most {WAIT_MS_MAX} (a year)")]
    TooLong { what: &'static str, found: u64 },
    #[error("expected at most {SIGNALS_MAX} signals, found {found}")]
    Signals { found: usize },
    #[error(
        "signal {name:?}: expected a name of 1 to {NAME_BYTES_MAX} bytes that no other signal has"
    )]
    SignalName { name: String },
    #[error("signal {name:?}: expected 1 to {SQL_BYTES_MAX} bytes of SQL, found {found}")]
    SignalSql { name: String, found: usize },
    #[error("signal {name:?}: its limit is not a number that JSON keeps as it is")]
    SignalLimit { name: String },
}

/// A plan that can be carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Draft", into = "Draft")]
pub struct Plan(Draft);

impl Deref for Plan {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.0
    }
}

impl From<Plan> for Draft {
    fn from(plan: Plan) -> Self {
        plan.0
    }
}

impl TryFrom<Draft> for Plan {
    type Error = PlanError;

    fn try_from(draft: Draft) -> Result<Self, PlanError> {
        Self::new(draft)
    }
}

impl Plan {
    /// The work does not depend on the size of the cohort.
    pub fn new(draft: Draft) -> Result<Self, PlanError> {
        if draft.cohort == 0 {
            return Err(PlanError::NoCohort);
        }
        let count = |wave: &Wave| order::count(wave.share, wave.count_max, draft.cohort);
        ascending("forward", draft.waves.iter().map(|wave| (wave.share, count(wave))))?;
        ascending("back", draft.back.waves.iter().map(|share| (*share, 0)))?;
        if draft.back.waves.last() != Some(&Share::ALL) {
            return Err(PlanError::NotAllBack);
        }
        let zeros = [
            ("bound", draft.bound),
            ("prove_within_ms", draft.prove_within_ms),
            ("come_within_ms", draft.come_within_ms),
            ("ask_again_ms", draft.ask_again_ms),
            ("back.at_a_time", draft.back.at_a_time),
        ];
        if let Some((what, _)) = zeros.iter().find(|(_, number)| *number == 0) {
            return Err(PlanError::Zero { what });
        }
        if draft.waves.iter().any(|wave| wave.count_max == Some(0)) {
            return Err(PlanError::Zero { what: "count_max" });
        }
        let waits = [
            ("prove_within_ms", draft.prove_within_ms),
            ("come_within_ms", draft.come_within_ms),
            ("ask_again_ms", draft.ask_again_ms),
        ];
        let soaks = draft.waves.iter().map(|wave| ("soak_ms", wave.soak_ms));
        if let Some((what, found)) = waits.into_iter().chain(soaks).find(|w| w.1 > WAIT_MS_MAX) {
            return Err(PlanError::TooLong { what, found });
        }
        signals(&draft.signals)?;
        Ok(Self(draft))
    }

    /// How many devices wave number `wave` has, with those before.
    pub(crate) fn count(&self, wave: usize) -> u64 {
        let Wave { share, count_max, .. } = self.waves[wave];
        order::count(share, count_max, self.cohort)
    }

    /// Whether this wave is the last, and for whoever belongs to the cohort by now.
    pub(crate) fn is_for_all(&self, wave: usize) -> bool {
        let Wave { share, count_max, .. } = self.waves[wave];
        wave + 1 == self.waves.len() && share == Share::ALL && count_max.is_none()
    }
}

/// Each share is larger than the one before, and no count smaller: in a small cohort two shares may be the same devices.
fn ascending(
    way: &'static str,
    waves: impl ExactSizeIterator<Item = (Share, u64)> + Clone,
) -> Result<(), PlanError> {
    if !(1..=WAVES_MAX).contains(&waves.len()) {
        return Err(PlanError::Waves { way, found: waves.len() });
    }
    let mut pairs = waves.clone().zip(waves.skip(1));
    match pairs.position(|(before, wave)| wave.0 <= before.0 || wave.1 < before.1) {
        Some(before) => Err(PlanError::NotLarger { wave: before + 2, way }),
        None => Ok(()),
    }
}

fn signals(signals: &[Signal]) -> Result<(), PlanError> {
    if signals.len() > SIGNALS_MAX {
        return Err(PlanError::Signals { found: signals.len() });
    }
    let mut names = BTreeSet::new();
    for Signal { name, sql, limit } in signals {
        let name = name.clone();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !names.insert(name.clone()) {
            return Err(PlanError::SignalName { name });
        }
        if sql.is_empty() || sql.len() > SQL_BYTES_MAX {
            return Err(PlanError::SignalSql { name, found: sql.len() });
        }
        // A plan is read again and again: a number that reading changes would wander.
        let text = serde_json::to_string(&limit.number()).unwrap_or_default();
        if serde_json::from_str(&text).ok() != Some(limit.number()) {
            return Err(PlanError::SignalLimit { name });
        }
    }
    Ok(())
}
