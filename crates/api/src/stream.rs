//! What changes, as it changes: `GET /v1/stream`, `text/event-stream` (WHATWG HTML §9.2).
//!
//! ```text
//! id: 1042
//! event: rollout
//! data: {"subject":"rollout/pump-app-1.2.0","generation":77}
//! ```
//!
//! A line says that something is another now, not what it is: its receiver asks for it again. With `Last-Event-ID` a
//! receiver that was away hears what it missed, or `event: reset`: too much was missed, ask for everything again. A comment
//! comes every 15 s, so that both ends know of each other.

use serde::{Deserialize, Serialize};

/// `event: device`, `rollout`, `release`, `alert`, `user`, `approval`, `seen` or `reset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// As events name it.
    pub subject: String,
    /// The event of the evidence log that tells of it, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}
