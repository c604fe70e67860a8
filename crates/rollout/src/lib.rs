//! A release on its way to a cohort: waves, permits, gates, halt, back. Pure: `(state, event, now) -> (state, effects)`.
//!
//! A [`Plan`] is written once and says everything beforehand; [`step`] moves the [`State`] by it. The state is a few hundred
//! bytes however large the cohort is: of devices it holds counts, and of a wave one [`Position`], below which the wave's
//! devices lie. What is known of one device is its [`Permit`], a row that the caller keeps and hands in with the event.
//!
//! ```text
//!                 start            last gate                 revert
//!      planned ──────────▶ running ─────────▶ completed ───────────────┐
//!         │                │  ▲  │                                     ▼
//!         │          pause │  │  │ gate, failures, person           reverting ──▶ reverted
//!         │                ▼  │  ▼               revert              ▲   │
//!         │              paused ─▶ halted ─────────────────────────────┘   │
//!         │                │        │                                      │
//!         └────────────────┴────────┴───────────▶ aborted ◀────────────────┘
//!
//!      running, wave by wave:  opening ─▶ installing ─▶ soaking ─▶ asking ─▶ opening of the next
//! ```
//!
//! Promises: a rollout that is halted issues no new permit, whatever comes late, twice or out of order (INV-ROLL-1); permits
//! that are outstanding, silent devices among them, never exceed the plan's bound (INV-ROLL-2); a phase moves along [`EDGES`]
//! only, and a command that is refused is an effect (INV-STATE-1); a gate that gets no number holds, it never passes;
//! state and permits of one step are one step: `revision` grows with each, so that of two who write, one is refused.
//! Never: reads a clock, talks to anybody, keeps a list of devices.

mod order;
mod permit;
mod plan;
mod saved;
mod state;
mod step;
mod text;

pub use order::{Opened, Position, Share, open};
pub use permit::{Known, Permit, Report};
pub use plan::{Back, Draft, Limit, Plan, PlanError, Signal, Wave};
pub use saved::{SAVED_BYTES_MAX, Saved, SavedError};
pub use state::{Counts, EDGES, Named, Phase, Stage, State, Why};
pub use step::{
    Answer, CheckIn, Command, Effect, Event, Happened, Order, order, pending, step, wake,
};

use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds since 1970 by the clock of whoever steps. A state remembers the newest that it has seen, so a clock that is
/// set back stops the time of its rollouts and does not turn it back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
