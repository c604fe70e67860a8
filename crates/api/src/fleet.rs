//! The fleet as its operator sees it: who may enrol, who is enrolled, how each stands.

use crate::bundle::Standing;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// As what a serial number may enrol. A gateway is enrolled as a device is, and may then hand up what devices sealed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Device,
    Gateway,
}

impl Role {
    pub const ALL: [Role; 2] = [Self::Device, Self::Gateway];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Gateway => "gateway",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// What a key was certified for. One key has one purpose (INV-PURP-1).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    Tls,
    Seal,
}

impl Purpose {
    pub const ALL: [Purpose; 2] = [Self::Tls, Self::Seal];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Seal => "seal",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == word)
    }
}

/// An entry of the ownership list: the device with this serial number is ours and may enrol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ownership {
    /// As it stands in the device's IDevID. In lower case it becomes the device's id.
    pub serial: String,
    pub role: Role,
    pub zone: String,
    /// Without one: production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// A device or gateway. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetDevice {
    pub id: String,
    pub serial: String,
    pub role: Role,
    pub zone: String,
    pub standing: Standing,
    pub listed_at_ms: i64,
    pub enrolled_at_ms: Option<i64>,
    /// When its standing last changed.
    pub changed_at_ms: i64,
    /// Every key that it ever had a certificate for, oldest first.
    pub keys: Vec<FleetKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetKey {
    /// Of a sealing key: its COSE thumbprint. Of a TLS key: SHA-256 of its SubjectPublicKeyInfo. In hex.
    pub id: String,
    pub purpose: Purpose,
    pub created_at_ms: i64,
    /// When its newest certificate ends.
    pub not_after_ms: i64,
    /// When another key took its place.
    pub retired_at_ms: Option<i64>,
}

/// A page of the fleet, sorted by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fleet {
    pub generation: u64,
    pub devices: Vec<FleetDevice>,
    /// There are more: ask again with `after` set to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The answer to a change: how the device is now, and the generation at which it became so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    pub generation: u64,
    pub device: FleetDevice,
}

/// The most devices in one page, and how many there are without `limit`.
pub const FLEET_PAGE_MAX: usize = 10_000;
