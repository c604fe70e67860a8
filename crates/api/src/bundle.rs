//! What a gateway needs to decide by itself: its zone's devices, their keys, and the policies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The newest word of the control plane to one gateway. A gateway keeps it durably and never goes back to an older
/// generation (INV-FRESH-1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bundle {
    /// 1. A reader refuses what it does not know (INV-MIX-1).
    pub format: u32,
    pub site: String,
    pub generation: u64,
    pub gateway: String,
    pub zone: String,
    /// Only devices of the gateway's own zone (least knowledge), sorted by id.
    pub devices: Vec<BundleDevice>,
    /// Cedar policies, as text.
    pub policies: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BundleDevice {
    pub id: String,
    pub zone: String,
    pub standing: Standing,
    /// SHA-256 of the SubjectPublicKeyInfo of each TLS key that may connect as this device, in hex.
    pub tls_keys: Vec<String>,
    /// Of those, the ones that another has replaced, each with the time (in milliseconds since 1970) from which it may
    /// connect no more, by the clock that judges certificates, whether or not there is a newer bundle by then. A gateway
    /// that does not know this field lets them connect until its next bundle.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tls_keys_until_ms: BTreeMap<String, i64>,
    /// Every key that sealed this device's messages, oldest first, up to a bound of control's: there is no telling what a
    /// backlog still holds. A revoked device has none.
    pub seal_keys: Vec<BundleKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BundleKey {
    /// The key's COSE thumbprint, in hex.
    pub id: String,
    /// SubjectPublicKeyInfo in DER, in hex.
    pub spki: String,
}

/// How a device stands with its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// On the ownership list, not seen yet.
    Listed,
    Enrolled,
    /// Cut off, recoverable: may only re-enrol.
    Quarantined,
    /// Dead for good.
    Revoked,
    /// Its life here is over, in good order. Bundles say `revoked` of it: gateways that do not know this word refuse it all
    /// the same.
    Decommissioned,
}

impl Standing {
    pub const ALL: [Standing; 5] =
        [Self::Listed, Self::Enrolled, Self::Quarantined, Self::Revoked, Self::Decommissioned];

    /// Whether its identity is dead for good.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Revoked | Self::Decommissioned)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Enrolled => "enrolled",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
            Self::Decommissioned => "decommissioned",
        }
    }
}
