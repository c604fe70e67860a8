//! Errors as RFC 9457 problem details.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const CONTENT_TYPE: &str = "application/problem+json";

/// The body of every response that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// What kind of problem: `urn:plimsoll:problem:` and a word that does not change.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    pub status: u16,
    /// What was expected and what was found, this time.
    pub detail: String,
    /// Which request it was, by the name that the log has for it: `urn:plimsoll:request:` and the answer's header
    /// `plimsoll-request-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

impl Problem {
    pub fn new(status: u16, word: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:plimsoll:problem:{word}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            instance: None,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}
