//! SQL questions and their answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A question with the bounds that its asker accepts. The server's own bounds hold too; the narrower one counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ask {
    pub sql: String,
    /// The most rows in the answer; the rest is cut off and said to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_max: Option<usize>,
    /// How long the question may run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub time_max_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    /// There were more rows than the bound.
    pub truncated: bool,
    pub took_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Column {
    pub name: String,
    /// Arrow's name of the type.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A cell as JSON: null, boolean, number, or text; a time is RFC 3339 in UTC, bytes are hex. A float that JSON cannot
/// say is the text `NaN`, `inf` or `-inf`.
pub type Cell = serde_json::Value;

/// Why a question has no answer. The asker's fault, or the server's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// The SQL does not parse or plan, or asks for something other than reading.
    BadSql(String),
    /// It ran for longer than it may.
    TooSlow { limit_ms: u64 },
    /// It needs more memory than it may have.
    TooLarge(String),
    /// As many questions are running and waiting as may.
    Busy { running: usize, waiting: usize },
    /// The store failed.
    Failed(String),
}

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadSql(why) => f.write_str(why),
            Self::TooSlow { limit_ms } => write!(f, "not answered within {limit_ms} ms"),
            Self::TooLarge(why) => write!(f, "needs more memory than a question may have: {why}"),
            Self::Busy { running, waiting } => {
                write!(f, "{running} questions are running and {waiting} are waiting: ask again")
            }
            Self::Failed(why) => write!(f, "the store failed: {why}"),
        }
    }
}

impl std::error::Error for QueryError {}

/// The rows of some zones: those that name one of them, and of tables without a zone those of their devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Within {
    pub zones: HashSet<String>,
    pub devices: HashSet<String>,
}

/// Whoever answers SQL: the store in this process, or another process behind HTTP. Control asks through this, so that
/// no query engine is linked into it.
pub trait Query: Send + Sync + 'static {
    /// `within` is what the asker may see. Control says it, which knows who asks; no body can. `None`: all rows.
    fn query(
        &self,
        ask: Ask,
        within: Option<Arc<Within>>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, QueryError>> + Send + '_>>;
}
