//! What `plimsoll-agent status` shows: a small file that the running agent writes whenever it changes.

use model::{Counter, KeyId};

pub const FILE: &str = "status.json";

/// What others may see of the backlog, newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The serial of the next envelope to become durable.
    pub end: u64,
    /// Every serial below is acknowledged or stated as lost.
    pub below: u64,
}

/// One line of JSON. Every value is a number or hex, so nothing needs escaping.
pub fn text(seen: Seen, key: KeyId, next: Counter) -> String {
    format!(
        "{{\"backlog\":{{\"end\":{},\"acked\":{},\"waiting\":{}}},\"seal_key\":\"{key}\",\"epoch\":{},\"sequence\":{}}}\n",
        seen.end,
        seen.below,
        seen.end - seen.below.min(seen.end),
        next.epoch,
        next.sequence
    )
}
