//! A rollout as it is kept: JSON, version 1, drawn in `docs/formats/rollout.md`.

use crate::plan::Plan;
use crate::state::State;
use serde::{Deserialize, Serialize};

/// The longest text that is read: eight signals of the longest SQL, every character escaped, and as much again.
pub const SAVED_BYTES_MAX: usize = 512 * 1024;

const VERSION: u32 = 1;

/// A plan, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    pub plan: Plan,
    pub state: State,
}

#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    #[error("a rollout of {found} bytes: expected at most {SAVED_BYTES_MAX}")]
    Oversize { found: usize },
    #[error("a rollout of version {found}: this build knows {VERSION}")]
    UnknownVersion { found: u32 },
    #[error("not a rollout")]
    Malformed(#[source] serde_json::Error),
    #[error("a rollout that contradicts itself: {0}")]
    Contradiction(&'static str),
}

#[derive(Deserialize)]
struct Head {
    v: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<P, S> {
    v: u32,
    plan: P,
    state: S,
}

impl Saved {
    pub fn encode(&self) -> String {
        let body = Body { v: VERSION, plan: &self.plan, state: &self.state };
        serde_json::to_string(&body).expect("every field has a form in JSON")
    }

    pub fn decode(text: &str) -> Result<Self, SavedError> {
        if text.len() > SAVED_BYTES_MAX {
            return Err(SavedError::Oversize { found: text.len() });
        }
        // The version first: what another one looks like is not ours to judge.
        let Head { v } = serde_json::from_str(text).map_err(SavedError::Malformed)?;
        if v != VERSION {
            return Err(SavedError::UnknownVersion { found: v });
        }
        let body: Body<Plan, State> = serde_json::from_str(text).map_err(SavedError::Malformed)?;
        let saved = Self { plan: body.plan, state: body.state };
        match saved.contradiction() {
            Some(what) => Err(SavedError::Contradiction(what)),
            None => Ok(saved),
        }
    }

    /// What no step could have come to, and on which the next one would stumble.
    fn contradiction(&self) -> Option<&'static str> {
        use crate::state::{Phase, Stage};
        let Self { plan, state } = self;
        let back = match state.phase {
            Phase::Reverting { wave, .. } => wave,
            _ => 0,
        };
        let is_opening = matches!(state.phase.stage(), Some(Stage::Opening));
        let is_under_way = state.phase.stage().is_some() && !is_opening;
        let ascends = state.opened.windows(2).all(|pair| pair[0].members <= pair[1].members);
        match () {
            () if state.wave >= plan.waves.len() => Some("a wave that the plan does not have"),
            () if back >= plan.back.waves.len() => Some("a wave back that the plan does not have"),
            () if is_opening && state.opened.len() != state.wave => {
                Some("a wave that opens is open already, or one before it is not")
            }
            () if is_under_way && state.opened.len() != state.wave + 1 => {
                Some("a wave that is under way was not opened")
            }
            () if !ascends => Some("a wave is smaller than the one before"),
            () if state.counts.outstanding() > plan.bound => {
                Some("more permits are outstanding than the bound allows")
            }
            () => None,
        }
    }
}
