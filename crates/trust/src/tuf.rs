//! TUF 1.0 (The Update Framework): what may be installed, said by those who may say it, and not older than was seen.
//!
//! ```text
//! file   = { "signatures": [ { "keyid", "sig" } ], "signed": { "_type", "spec_version", "version", "expires", .. } }
//! signed = the canonical form (`json`) of "signed", unknown fields and all
//!
//!   1.root.json ─▶ 2.root.json ─▶ ..     each signed by the threshold of the one before it and by its own
//!        │ keys and thresholds of all four roles
//!        ├──▶ timestamp.json ──version, length, hashes──▶ N.snapshot.json ──the same──▶ N.targets.json ──▶ images
//! ```
//!
//! Promises: what [`Trusted`] holds was signed by a threshold of distinct keys that its root names; no version goes back;
//! files that were not published together are not used together; nothing is used after its end. **A refusal changes
//! nothing**: the same state can ask somebody else. Bytes are bounded before they are parsed, and signatures before they
//! are checked (INV-COST-1, INV-FRESH-1).
//! Never: does IO, reads a clock, follows a delegation: a file that delegates is refused as a whole.
//!
//! [`Update`] is one cycle (TUF §5, the client workflow) as a state machine over bytes: it says what to fetch, is given it,
//! and says what to store. The time is one for the whole cycle. [`Current`] exists only for four files that belong
//! together and have not ended, so a target can be had in no other way.

pub mod json;
mod key;
#[cfg(test)]
pub(crate) mod kit;
pub mod make;
mod metadata;
pub mod time;
mod trusted;

pub use key::id as key_id;
pub use metadata::{
    CUSTOM_FIELD, CUSTOM_VERSION, Custom, DEVICE_FIELD, Hashes, KEYS_MAX, Meta, NAME_BYTES_MAX,
    Order, ROLE_KEYS_MAX, RoleKeys, Root, SIGNATURES_MAX, SNAPSHOT_FILES_MAX, Snapshot,
    TARGETS_MAX, Target, Targets, TimestampFile,
};
pub use trusted::{Current, Dropped, Fetch, Files, ROOTS_MAX, Taken, Trusted, Update};

use alloc::format;
use alloc::string::String;
use core::fmt;
use json::BadJson;
use model::{DeviceId, Timestamp};

/// The four top-level roles, and the files that they sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Root = 0,
    Timestamp = 1,
    Snapshot = 2,
    Targets = 3,
}

impl Role {
    pub const ALL: [Role; 4] = [Self::Root, Self::Timestamp, Self::Snapshot, Self::Targets];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
        }
    }

    /// The name of the file, where it carries no version.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Root => "root.json",
            Self::Timestamp => "timestamp.json",
            Self::Snapshot => "snapshot.json",
            Self::Targets => "targets.json",
        }
    }

    /// The name of the file with its version before it.
    pub fn versioned_file(self, version: u64) -> String {
        format!("{version}.{}", self.file())
    }

    /// No longer file is read. A target of ours takes about 400 bytes, a key 200.
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Root => 128 * 1024,
            Self::Timestamp => 16 * 1024,
            Self::Snapshot => 256 * 1024,
            Self::Targets => 2 * 1024 * 1024,
        }
    }

    /// No more values are read of one file, known fields and unknown.
    pub(crate) const fn values_max(self) -> u32 {
        match self {
            Self::Root => 4096,
            Self::Timestamp => 1024,
            Self::Snapshot => 8192,
            Self::Targets => 65_536,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a file was not taken. `label` is the label of the counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Longer than any such file may be.
    Oversize {
        role: Role,
        max: usize,
        found: usize,
    },
    NotJson {
        role: Role,
        json: BadJson,
    },
    /// JSON, and not the file that it should be.
    Malformed {
        role: Role,
        expected: &'static str,
    },
    /// Another major version of TUF (INV-MIX-1).
    UnknownSpec {
        role: Role,
        found: String,
    },
    OtherRole {
        expected: Role,
        found: String,
    },
    /// Signed by fewer distinct keys than this version of the root asks for.
    TooFewSignatures {
        role: Role,
        root: u64,
        needed: u32,
        found: u32,
    },
    /// Names another device, or one where none should be named.
    OtherDevice {
        role: Role,
        expected: Option<DeviceId>,
        found: Option<String>,
    },
    /// Roots come one after the other.
    RootOutOfOrder {
        expected: u64,
        found: u64,
    },
    /// Older than what was seen: this file, or one that it names.
    Older {
        file: String,
        trusted: u64,
        found: u64,
    },
    /// A file that a snapshot named once has to stay in it.
    Gone {
        file: String,
    },
    /// Not the version that the file before it names.
    OtherVersion {
        role: Role,
        named: u64,
        found: u64,
    },
    OtherLength {
        role: Role,
        named: u64,
        found: u64,
    },
    OtherDigest {
        role: Role,
    },
    Expired {
        role: Role,
        end: Timestamp,
        now: Timestamp,
    },
    /// Delegated targets are not known to this build.
    Delegates,
    /// Not to be had, though it has to be there.
    Absent {
        role: Role,
    },
    /// Nobody asked for a file now.
    NotAsked,
}

impl Refused {
    pub const LABELS: [&str; 17] = [
        "oversize",
        "not_json",
        "malformed",
        "unknown_spec",
        "other_role",
        "too_few_signatures",
        "other_device",
        "root_out_of_order",
        "older",
        "gone",
        "other_version",
        "other_length",
        "other_digest",
        "expired",
        "delegates",
        "absent",
        "not_asked",
    ];

    pub const fn label(&self) -> &'static str {
        match self {
            Self::Oversize { .. } => "oversize",
            Self::NotJson { .. } => "not_json",
            Self::Malformed { .. } => "malformed",
            Self::UnknownSpec { .. } => "unknown_spec",
            Self::OtherRole { .. } => "other_role",
            Self::TooFewSignatures { .. } => "too_few_signatures",
            Self::OtherDevice { .. } => "other_device",
            Self::RootOutOfOrder { .. } => "root_out_of_order",
            Self::Older { .. } => "older",
            Self::Gone { .. } => "gone",
            Self::OtherVersion { .. } => "other_version",
            Self::OtherLength { .. } => "other_length",
            Self::OtherDigest { .. } => "other_digest",
            Self::Expired { .. } => "expired",
            Self::Delegates => "delegates",
            Self::Absent { .. } => "absent",
            Self::NotAsked => "not_asked",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = |device: Option<&str>| match device {
            Some(device) => format!("`{device}`"),
            None => "no device".into(),
        };
        let at = |t: Timestamp| time::format(t).unwrap_or_else(|| format!("{} µs", t.as_us()));
        match self {
            Self::Oversize { role, max, found } => {
                write!(f, "{role}: expected at most {max} bytes, found {found}")
            }
            Self::NotJson { role, json } => write!(f, "{role}: not JSON as we read it: {json}"),
            Self::Malformed { role, expected } => write!(f, "{role}: expected {expected}"),
            Self::UnknownSpec { role, found } => {
                write!(f, "{role}: expected TUF 1.x, found version {found:?}")
            }
            Self::OtherRole { expected, found } => {
                write!(f, "expected a file of role {expected}, found {found:?}")
            }
            Self::TooFewSignatures { role, root, needed, found } => write!(
                f,
                "{role}: expected signatures of {needed} keys of root {root}, found {found}"
            ),
            Self::OtherDevice { role, expected, found } => write!(
                f,
                "{role}: expected metadata for {}, found them for {}",
                device(expected.as_ref().map(DeviceId::as_str)),
                device(found.as_deref())
            ),
            Self::RootOutOfOrder { expected, found } => {
                write!(f, "expected root {expected}, found root {found}")
            }
            Self::Older { file, trusted, found } => {
                write!(f, "{file}: expected version {trusted} or newer, found {found}")
            }
            Self::Gone { file } => write!(f, "{file}: expected in the snapshot, found no more"),
            Self::OtherVersion { role, named, found } => {
                write!(f, "{role}: expected version {named}, found {found}")
            }
            Self::OtherLength { role, named, found } => {
                write!(f, "{role}: expected {named} bytes, found {found}")
            }
            Self::OtherDigest { role } => {
                write!(f, "{role}: the bytes are not those whose digest is stated")
            }
            Self::Expired { role, end, now } => {
                write!(f, "{role}: expected an end after {}, found {}", at(*now), at(*end))
            }
            Self::Delegates => {
                f.write_str("targets: expected no delegations, which this build does not know")
            }
            Self::Absent { role } => write!(f, "{role}: expected to be there, found no file"),
            Self::NotAsked => f.write_str("expected no file now, found one"),
        }
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests;
