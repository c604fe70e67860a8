//! What a device asks its gateway for, and what comes back: a check-in, metadata of the image repository, images.
//!
//! A device speaks HTTP/1.1 to its gateway, on the listener of MQTT and under the same client certificate, chosen by ALPN
//! (`http/1.1`, RFC 7301). The gateway forwards a check-in to control in the device's name; it signs nothing and changes
//! nothing of what comes back. All that counts in it is signed for the device.

use crate::base64::Base64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most bytes of a check-in's answer: the Director's files at their longest, in base64, and a chain of roots.
pub const CHECK_IN_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest body of a check-in: a message of kind manifest.
pub const CHECK_IN_BYTES_MAX: usize = 8 * 1024;

/// The longest image.
pub const IMAGE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The answer to a check-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckIn {
    /// 1. A reader refuses what it does not know (INV-MIX-1).
    pub format: u32,
    /// The newest lease of the device's zone: a message of kind lease.
    pub lease: Base64,
    /// None: what the device has of the Director is what there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub director: Option<DirectorFiles>,
    /// How long to wait before the next check-in, in milliseconds. A device spreads its check-ins around it.
    pub again_ms: u64,
}

/// The Director's metadata for one device, exactly as they were signed (`docs/formats/tuf.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DirectorFiles {
    /// The roots after the one that the device reported, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<Base64>,
    pub timestamp: Base64,
    pub snapshot: Base64,
    pub targets: Base64,
}
