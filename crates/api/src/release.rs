//! What the vendor has published, as control has verified it; and what devices run, by their own signed word.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An image of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    pub product: String,
    pub version: String,
    pub security_version: u32,
    pub hardware: Vec<String>,
    pub must_pass: Vec<String>,
    /// In the image repository.
    pub path: String,
    pub sha256: String,
    pub length: u64,
}

/// `GET /v1/releases`, sorted by product, version and path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Releases {
    pub releases: Vec<Release>,
    /// Versions of the repository's metadata that control trusts.
    pub root: u64,
    pub timestamp: u64,
    pub snapshot: u64,
    pub targets: u64,
    /// When the first of them ends, in milliseconds since 1970: after that nothing new is ordered.
    pub until_ms: u64,
    /// Why the repository was not read the last time, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What a device says of itself in its newest manifest: `GET /v1/devices/{id}/software`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Software {
    pub device: String,
    /// Grows with each manifest that was admitted.
    pub number: u64,
    pub received_at_ms: u64,
    pub components: Vec<Component>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Component {
    pub product: String,
    pub hardware: String,
    pub version: String,
    pub sha256: String,
    /// confirmed, trial, reverted or fallback.
    pub boot: String,
    pub security_version: u32,
    pub floor: u32,
}

/// How the newest install ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    pub product: String,
    pub sha256: String,
    /// confirmed, reverted, failed or underway.
    pub end: String,
    pub reason: String,
}
