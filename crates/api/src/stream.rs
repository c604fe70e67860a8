//! What changes, as it changes: `GET /v1/stream`, `text/event-stream` (WHATWG HTML §9.2).
//!
//! ```text
//! id: 1042
//! event: rollout
//! data: {"subject":"rollout/pump-app-1.2.0","sequence":1042}
//! ```
//!
//! A line says that something is another now, not what it is: its receiver asks for it again. `id` is the number of the
//! newest event of the evidence log that was looked at; with `Last-Event-ID` a receiver that was away hears what it missed,
//! or `event: reset`: too much was missed, ask for everything again. So does a receiver that has no `id` yet. A comment comes
//! every 15 s, so that both ends know of each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The data of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StreamChange")]
pub struct Changed {
    /// As events name it. `site` at `seen` and `alert`: so many that they are not named one by one.
    pub subject: String,
    /// The event of the evidence log that tells of it, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// The event of a line: what its receiver asks for again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Device,
    Rollout,
    Release,
    /// An alert, a rule or a silence.
    Alert,
    /// A user, a session or a token.
    User,
    Approval,
    /// What is of the whole site: policies, sites, settings.
    Site,
    /// A device was heard: at most once in a second, and no event of the evidence log.
    Seen,
    /// Everything.
    Reset,
}

impl ChangeKind {
    pub const ALL: [Self; 9] = [
        Self::Device,
        Self::Rollout,
        Self::Release,
        Self::Alert,
        Self::User,
        Self::Approval,
        Self::Site,
        Self::Seen,
        Self::Reset,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Rollout => "rollout",
            Self::Release => "release",
            Self::Alert => "alert",
            Self::User => "user",
            Self::Approval => "approval",
            Self::Site => "site",
            Self::Seen => "seen",
            Self::Reset => "reset",
        }
    }
}

/// Where a receiver goes on: the last `id` that it has read.
pub const LAST_EVENT_ID: &str = "last-event-id";
