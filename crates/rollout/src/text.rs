//! Names and versions of `model` as JSON text: written by their display, read by their parser.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use std::fmt::Display;
use std::str::FromStr;

pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: FromStr,
    T::Err: Display,
    D: Deserializer<'de>,
{
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// A digest as 64 hex digits.
pub mod digest {
    pub use super::serialize;
    use super::{Deserialize, Deserializer, Error};
    use model::Digest;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)?;
        Digest::from_hex(&text)
            .ok_or_else(|| D::Error::custom(format!("expected 64 hex digits, found {text:?}")))
    }
}
