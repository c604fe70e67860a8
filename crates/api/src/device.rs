//! Everything about one device, and what to look for among many.

use crate::base64::Base64;
use crate::bundle::Standing;
use crate::fleet::{FleetDevice, Purpose, Role};
use crate::release::Software;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A line of the fleet: what a table of 100,000 of them shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceLine {
    pub id: String,
    pub role: Role,
    pub site: String,
    pub zone: String,
    /// development, pilot, production, or a name of one's own.
    pub group: String,
    pub standing: Standing,
    /// Of its first product, by its own signed word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// By which gateway it was heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// When it was heard last, in milliseconds since 1970: a check-in, a reading, an enrolment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at_ms: Option<u64>,
}

/// `GET /v1/inventory?search=&site=&zone=&group=&standing=&role=&version=&gateway=&silent_s=&after=&limit=`, sorted by id.
/// `search` is found anywhere in id or serial number, in any case; `version` is one, or a product and one (`pump-app 1.2.0`);
/// `silent_s`: not heard for so long, or never. The other words are exact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    pub devices: Vec<DeviceLine>,
    /// How many there are in all pages together.
    pub total: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /v1/inventory/summary`, with the same filter: how many there are of each, for cohorts and choices. Of zones, versions
/// and gateways the [`SUMMARY_NAMES_MAX`] that are most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    pub total: u64,
    pub sites: BTreeMap<String, u64>,
    pub zones: BTreeMap<String, u64>,
    pub groups: BTreeMap<String, u64>,
    pub standings: BTreeMap<String, u64>,
    pub roles: BTreeMap<String, u64>,
    /// `product version` → how many.
    pub versions: BTreeMap<String, u64>,
    pub gateways: BTreeMap<String, u64>,
    /// When they were heard last: `5m` (at most so long ago), `1h`, `1d`, `longer`, `never`.
    pub seen: BTreeMap<String, u64>,
}

/// `GET /v1/devices/{id}`: one device, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    pub line: DeviceLine,
    /// Its identity: serial number, standing, and every key it ever had.
    pub identity: FleetDevice,
    /// Its newest signed word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<Software>,
    /// Why it does not count as healthy, each in a sentence; empty when nothing is known against it.
    pub concerns: Vec<String>,
}

/// A step of a device's life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Moment {
    pub at_ms: u64,
    /// key, firmware, gateway, standing, refusal, gap, rollout or act.
    pub kind: String,
    /// In a sentence.
    pub sentence: String,
    /// Who did it, as events name it, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The event that tells of it: its inclusion is proven by `GET /v1/evidence/export?subject=device/{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    /// What more is known, by kind: `key`, `product`, `version`, `sha256`, `gateway`, `from`, `to`, `reason`, `count`.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub detail: serde_json::Map<String, serde_json::Value>,
}

/// `GET /v1/devices/{id}/history?from_ms=&to_ms=&kind=&after=&limit=`, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    pub device: String,
    pub moments: Vec<Moment>,
    /// What could not be asked, each in a sentence: the store may be away, and what the registry knows is told all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /v1/devices/{id}/forensics`: all that is known of one device, in one file that can be checked without the site
/// (`docs/formats/forensics.md`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Forensics {
    /// [`FORENSICS_VERSION`]. A reader refuses what it does not know (INV-MIX-1).
    pub plimsoll_forensics: u32,
    pub site: String,
    pub made_at_ms: u64,
    pub device: Device,
    /// Its certificates, the newest for each key, and the authority that signed them.
    pub certificates: Vec<KeyCertificate>,
    pub authority: Base64,
    pub history: Vec<Moment>,
    /// What is not in here, each in a sentence.
    pub missing: Vec<String>,
    /// The events that the history names, with what proves them: an export of evidence (`docs/formats/evidence-export.md`), whose
    /// form is fixed to the byte and which is a text here for that.
    pub evidence: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyCertificate {
    /// As [`crate::FleetKey::id`].
    pub key: String,
    pub purpose: Purpose,
    /// X.509, DER.
    pub certificate: Base64,
}

pub const FORENSICS_VERSION: u32 = 1;

/// `POST /v1/devices/{id}/group`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    pub group: String,
}

pub const INVENTORY_PAGE_MAX: usize = 1000;
pub const HISTORY_PAGE_MAX: usize = 1000;
pub const SUMMARY_NAMES_MAX: usize = 1000;
/// The group of a device that nobody gave another.
pub const GROUP_DEFAULT: &str = "production";
