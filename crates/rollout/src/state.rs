//! Where a rollout stands.

use crate::Moment;
use crate::order::{Opened, Position};
use crate::permit::Known;
use serde::{Deserialize, Serialize};
use std::fmt;

/// All that a rollout knows, however large its cohort is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Grows by one with each step that changed anything. It is what a conditional write compares.
    pub revision: u64,
    pub phase: Phase,
    /// The wave that is open, or opens next; the first is 0.
    pub wave: usize,
    /// Where each wave that was opened ends.
    pub opened: Vec<Opened>,
    /// Who joined the cohort later waits for the last wave.
    pub started: Moment,
    /// When the newest wave, forward or back, was opened.
    pub opened_at: Moment,
    /// The number of the newest question. An answer to an older one counts for nothing.
    pub question: u64,
    pub counts: Counts,
    /// The newest time that was seen.
    pub seen: Moment,
    /// What is known here may be older than what devices were told. Until a person has looked, nobody is told anything on
    /// behalf of this rollout, and it goes nowhere by itself. What devices show is noted all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

impl State {
    pub fn new() -> Self {
        Self {
            revision: 0,
            phase: Phase::Planned,
            wave: 0,
            opened: Vec::new(),
            started: Moment(0),
            opened_at: Moment(0),
            question: 0,
            counts: Counts::default(),
            seen: Moment(0),
            held: false,
        }
    }

    /// Whether leases have to name this rollout: nothing of it may be armed any more.
    pub fn is_halted(&self) -> bool {
        use Phase::{Aborted, Halted, Reverted, Reverting};
        matches!(self.phase, Halted { .. } | Reverting { .. } | Reverted | Aborted)
    }

    /// Moves along a drawn edge (INV-STATE-1).
    pub(crate) fn go(&mut self, to: Phase) {
        let edge = (self.phase.name(), to.name());
        assert!(
            edge.0 == edge.1 || EDGES.iter().any(|(from, to, _)| (*from, *to) == edge),
            "no edge from {} to {}",
            edge.0,
            edge.1
        );
        self.phase = to;
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// Written, and nobody has started it.
    Planned,
    Running {
        stage: Stage,
    },
    /// No new permit; whoever has one goes on. What was under way goes on when it is resumed.
    Paused {
        stage: Stage,
    },
    /// No new permit, and whoever has one must not arm.
    Halted {
        why: Why,
    },
    /// Whoever runs the release is told to go back, wave by wave.
    Reverting {
        /// The wave back that is open, or opens next; the first is 0.
        wave: usize,
        /// How many had to go back when it began.
        of: u64,
        /// Where the wave ends. None: the pass over the permits is under way.
        last: Option<Position>,
    },
    /// Every device of the waves has it.
    Completed,
    /// Whoever could be told has gone back. Who turns up with the release is told still.
    Reverted,
    /// Left as it is, for good.
    Aborted,
}

/// What a rollout that runs is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stage {
    /// The pass over the cohort is under way.
    Opening,
    /// Devices of the wave get their permits and prove their installs.
    Installing,
    /// Time passes.
    Soaking { until: Moment },
    /// The gate's signals were asked for. By `again` they are asked for again.
    Asking { again: Moment },
}

/// Why a rollout was halted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Why {
    /// Somebody said so.
    Person,
    /// Too many could not install, went back by themselves, or fell silent.
    Failures { failed: u64, silent: u64, of: u64 },
    /// A signal is beyond its limit.
    Signal { name: String },
}

/// A phase without what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    Planned,
    Running,
    Paused,
    Halted,
    Reverting,
    Completed,
    Reverted,
    Aborted,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Reverting => "reverting",
            Self::Completed => "completed",
            Self::Reverted => "reverted",
            Self::Aborted => "aborted",
        })
    }
}

impl Phase {
    pub fn name(&self) -> Named {
        match self {
            Self::Planned => Named::Planned,
            Self::Running { .. } => Named::Running,
            Self::Paused { .. } => Named::Paused,
            Self::Halted { .. } => Named::Halted,
            Self::Reverting { .. } => Named::Reverting,
            Self::Completed => Named::Completed,
            Self::Reverted => Named::Reverted,
            Self::Aborted => Named::Aborted,
        }
    }

    /// What a rollout is about that runs or that is paused.
    pub fn stage(&self) -> Option<&Stage> {
        match self {
            Self::Running { stage } | Self::Paused { stage } => Some(stage),
            _ => None,
        }
    }
}

/// Every way from one phase to another, and what takes it. There is no other: [`State::go`].
pub const EDGES: [(Named, Named, &str); 14] = [
    (Named::Planned, Named::Running, "start"),
    (Named::Planned, Named::Aborted, "abort"),
    (Named::Running, Named::Paused, "pause, hold"),
    (Named::Running, Named::Halted, "halt: by a person, by failures, by a signal"),
    (Named::Running, Named::Completed, "the last wave's gate passes"),
    (Named::Running, Named::Aborted, "abort"),
    (Named::Paused, Named::Running, "resume"),
    (Named::Paused, Named::Halted, "halt: by a person, by failures"),
    (Named::Paused, Named::Aborted, "abort"),
    (Named::Halted, Named::Reverting, "revert: by a person, by the plan"),
    (Named::Halted, Named::Aborted, "abort"),
    (Named::Completed, Named::Reverting, "revert"),
    (Named::Reverting, Named::Reverted, "all have gone back, or their time is over"),
    (Named::Reverting, Named::Aborted, "abort"),
];

/// How many permits there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub issued: u64,
    pub silent: u64,
    pub proven: u64,
    pub had: u64,
    pub failed: u64,
    pub back: u64,
    pub back_silent: u64,
    pub stuck: u64,
    pub went_back: u64,
}

impl Counts {
    /// What INV-ROLL-2 bounds: leaves to install of which nobody has shown what came of them.
    pub fn outstanding(&self) -> u64 {
        self.issued + self.silent
    }

    /// Devices that run the release, as far as is known.
    pub fn good(&self) -> u64 {
        self.proven + self.had
    }

    /// Devices whose outcome is known; silence is one.
    pub fn known(&self) -> u64 {
        self.good() + self.failed + self.silent
    }

    /// Devices that have, or might have, the release from this rollout.
    pub fn to_go_back(&self) -> u64 {
        self.issued + self.silent + self.proven + self.back + self.back_silent + self.stuck
    }

    pub(crate) fn of(&mut self, known: Known) -> &mut u64 {
        match known {
            Known::Issued { .. } => &mut self.issued,
            Known::Silent => &mut self.silent,
            Known::Proven => &mut self.proven,
            Known::Had => &mut self.had,
            Known::Failed => &mut self.failed,
            Known::Back { .. } => &mut self.back,
            Known::BackSilent => &mut self.back_silent,
            Known::Stuck => &mut self.stuck,
            Known::WentBack => &mut self.went_back,
        }
    }
}
