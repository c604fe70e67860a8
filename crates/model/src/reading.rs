//! What a device measured.

use crate::id::{SeriesName, Unit};
use alloc::string::String;
use core::fmt;

/// Microseconds since 1970-01-01T00:00:00Z, as the labelled clock had it. A label of history: nothing is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms * 1000)
    }

    pub const fn as_us(self) -> i64 {
        self.0
    }

    /// As APIs and events write it: whole milliseconds since 1970, and 0 for what was before.
    pub const fn as_ms(self) -> u64 {
        let ms = self.0.div_euclid(1000);
        if ms < 0 { 0 } else { ms as u64 }
    }
}

/// One measured value with its type: a count stays a count through the whole road.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Float(f64),
    Int(i64),
    Bool(bool),
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(v) => write!(f, "{v}"),
            Self::Int(v) => write!(f, "{v}"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Text(v) => write!(f, "{v:?}"),
        }
    }
}

/// One record of a pack.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub time: Timestamp,
    pub series: SeriesName,
    pub value: Value,
    pub unit: Option<Unit>,
}
