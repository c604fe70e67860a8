//! What happened, and the one form of its bytes: the leaf.
//!
//! ```text
//! {"action":"halt","actor":"operator","at_ms":1763740000000,"detail":{"wave":2},"sequence":7,"subject":"rollout/pump-app-1.2.0","v":1}
//! ```
//!
//! A leaf is JSON in the canonical form of RFC 8785, with whole numbers only: keys in order of their UTF-16 code units,
//! nothing between the tokens, the shortest escapes. So an event has one leaf, and a leaf that is read gives the same bytes
//! again; anything else is refused. Numbers stay within ±(2^53 - 1), which every reader of JSON keeps exactly.

use crate::merkle::{Hash, leaf_hash};
use crate::tile::LEAF_BYTES_MAX;
use serde_json::{Map, Value};

/// The version that is written, and the only one that is read.
pub const VERSION: u64 = 1;

/// Numbers up to here are exact in every reader of JSON.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// The longest action.
pub const ACTION_BYTES_MAX: usize = 64;

/// The longest actor or subject.
pub const NAME_BYTES_MAX: usize = 256;

/// How deep a detail may be nested.
pub const DETAIL_DEPTH_MAX: usize = 16;

/// Why something is not an event, or bytes are not a leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("bad {field}: expected {expected}, found {found:?}")]
    BadText { field: &'static str, expected: &'static str, found: String },

    #[error("bad {field}: expected a whole number from 0 to 2^53 - 1, found {found}")]
    BadNumber { field: &'static str, found: String },

    #[error(
        "bad detail: expected whole numbers within ±(2^53 - 1), found {found}; write it as text"
    )]
    NotWhole { found: String },

    #[error("bad detail: nested deeper than {DETAIL_DEPTH_MAX} levels")]
    TooDeep,

    #[error(
        "the event is too long: {len} bytes, expected at most {LEAF_BYTES_MAX}; name what is long by its digest"
    )]
    TooLong { len: usize },

    #[error("the leaf is not JSON")]
    NotJson,

    #[error("the leaf has version {found}, expected {VERSION}")]
    UnknownVersion { found: String },

    #[error("the leaf has no `{field}`, or one of another type")]
    Missing { field: &'static str },

    #[error("the leaf is not in its canonical form")]
    NotCanonical,
}

/// One event. It holds only what may be held, so its leaf is as good as itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    sequence: u64,
    at_ms: u64,
    actor: String,
    action: String,
    subject: String,
    detail: Map<String, Value>,
    leaf: Vec<u8>,
}

/// What is said of an event, before it has its number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Milliseconds since 1970 by the clock of who says it. A label: the sequence orders.
    pub at_ms: u64,
    /// Who did it.
    pub actor: String,
    /// What was done: a word like `halt` or `device.revoke`.
    pub action: String,
    /// To what.
    pub subject: String,
    pub detail: Map<String, Value>,
}

impl Event {
    /// `sequence` is the number of the leaf: dense, from 0.
    pub fn new(sequence: u64, said: Said) -> Result<Self, EventError> {
        let Said { at_ms, actor, action, subject, detail } = said;
        number("sequence", sequence)?;
        number("at_ms", at_ms)?;
        name("actor", &actor)?;
        name("subject", &subject)?;
        if !is_action(&action) {
            let expected = "1 to 64 of a-z 0-9 . _ - starting with a letter";
            return Err(EventError::BadText { field: "action", expected, found: shown(&action) });
        }
        let mut leaf = String::with_capacity(256);
        leaf.push_str("{\"action\":");
        put_text(&mut leaf, &action);
        leaf.push_str(",\"actor\":");
        put_text(&mut leaf, &actor);
        leaf.push_str(&format!(",\"at_ms\":{at_ms},\"detail\":"));
        put_object(&mut leaf, &detail, DETAIL_DEPTH_MAX)?;
        leaf.push_str(&format!(",\"sequence\":{sequence},\"subject\":"));
        put_text(&mut leaf, &subject);
        leaf.push_str(&format!(",\"v\":{VERSION}}}"));
        if leaf.len() > LEAF_BYTES_MAX {
            return Err(EventError::TooLong { len: leaf.len() });
        }
        Ok(Self { sequence, at_ms, actor, action, subject, detail, leaf: leaf.into_bytes() })
    }

    /// Reads a leaf. Only the canonical form is one.
    pub fn from_leaf(leaf: &[u8]) -> Result<Self, EventError> {
        if leaf.len() > LEAF_BYTES_MAX {
            return Err(EventError::TooLong { len: leaf.len() });
        }
        let value: Value = serde_json::from_slice(leaf).map_err(|_| EventError::NotJson)?;
        let event = Self::from_json(value)?;
        if event.leaf == leaf { Ok(event) } else { Err(EventError::NotCanonical) }
    }

    /// Reads the event that a JSON object says, in whatever form it was written. Other members are ignored: who needs to
    /// know that there were none compares the leaf.
    pub(crate) fn from_json(mut value: Value) -> Result<Self, EventError> {
        let found = &value["v"];
        if found.as_u64() != Some(VERSION) {
            return Err(EventError::UnknownVersion { found: shown(&found.to_string()) });
        }
        let mut take = |field: &'static str| {
            value.get_mut(field).map(Value::take).ok_or(EventError::Missing { field })
        };
        let (sequence, at_ms) = (take("sequence")?, take("at_ms")?);
        let (actor, action, subject) = (take("actor")?, take("action")?, take("subject")?);
        let Value::Object(detail) = take("detail")? else {
            return Err(EventError::Missing { field: "detail" });
        };
        let whole = |field, value: Value| value.as_u64().ok_or(EventError::Missing { field });
        let text = |field, value| match value {
            Value::String(text) => Ok(text),
            _ => Err(EventError::Missing { field }),
        };
        let said = Said {
            at_ms: whole("at_ms", at_ms)?,
            actor: text("actor", actor)?,
            action: text("action", action)?,
            subject: text("subject", subject)?,
            detail,
        };
        Self::new(whole("sequence", sequence)?, said)
    }

    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }

    pub fn actor(&self) -> &str {
        &self.actor
    }

    pub fn action(&self) -> &str {
        &self.action
    }

    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub fn detail(&self) -> &Map<String, Value> {
        &self.detail
    }

    /// The canonical bytes.
    pub fn leaf(&self) -> &[u8] {
        &self.leaf
    }

    pub fn hash(&self) -> Hash {
        leaf_hash(&self.leaf)
    }
}

fn number(field: &'static str, value: u64) -> Result<(), EventError> {
    if value <= NUMBER_MAX {
        Ok(())
    } else {
        Err(EventError::BadNumber { field, found: value.to_string() })
    }
}

fn name(field: &'static str, text: &str) -> Result<(), EventError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    if fits && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let expected = "1 to 256 bytes without control characters";
    Err(EventError::BadText { field, expected, found: shown(text) })
}

fn is_action(text: &str) -> bool {
    let of_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=ACTION_BYTES_MAX).contains(&text.len())
        && text.as_bytes()[0].is_ascii_lowercase()
        && text.bytes().all(of_word)
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn put_text(out: &mut String, text: &str) {
    // serde_json escapes as RFC 8785 §3.2.2.2 asks: the short forms, else \u00xx for what is below U+0020 only.
    out.push_str(&serde_json::to_string(text).expect("a text has a JSON form"));
}

fn put_object(
    out: &mut String,
    object: &Map<String, Value>,
    depth: usize,
) -> Result<(), EventError> {
    let depth = depth.checked_sub(1).ok_or(EventError::TooDeep)?;
    let mut members: Vec<(&String, &Value)> = object.iter().collect();
    members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    out.push('{');
    for (i, (key, value)) in members.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        put_text(out, key);
        out.push(':');
        put_value(out, value, depth)?;
    }
    out.push('}');
    Ok(())
}

fn put_value(out: &mut String, value: &Value, depth: usize) -> Result<(), EventError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(n) => {
            let exact = n.as_i64().is_some_and(|n| n.unsigned_abs() <= NUMBER_MAX);
            if !exact {
                return Err(EventError::NotWhole { found: n.to_string() });
            }
            out.push_str(&n.to_string());
        }
        Value::String(text) => put_text(out, text),
        Value::Array(values) => {
            let depth = depth.checked_sub(1).ok_or(EventError::TooDeep)?;
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                put_value(out, value, depth)?;
            }
            out.push(']');
        }
        Value::Object(object) => put_object(out, object, depth)?,
    }
    Ok(())
}
