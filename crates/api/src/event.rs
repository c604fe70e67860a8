//! Events of the evidence log, as a page for people. What counts as proof is the log itself: tiles, checkpoints, exports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/events?after=N&limit=M&subject=S`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    pub events: Vec<Event>,
    /// Events below this number are covered by a checkpoint.
    pub covered: u64,
    /// There are more: ask again with `after` set to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    pub sequence: u64,
    pub at_ms: u64,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub detail: serde_json::Value,
}

/// The most events in one page, and how many there are without `limit`.
pub const EVENTS_PAGE_MAX: usize = 1000;
