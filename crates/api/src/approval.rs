//! What widens can need two people: the first asks, a second of another role says yes, and only then is it done.

use crate::scope::UserRole;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What can be set to need two people. What narrows never does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Widening {
    /// A rollout without a canary: its first wave takes more than one device and the whole of its cohort.
    EmergencyRollout,
    /// To let a quarantined device back.
    QuarantineRelease,
    /// To give a user roles that it had not.
    GrantRoles,
    /// To trust other keys: the vendor's root, the Director's, a maker's.
    TrustKeys,
    /// A policy that permits more than the one before.
    GrantPolicy,
}

/// Asked for and not done: the answer 202 to a call that needs a second person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    pub id: String,
    pub what: Widening,
    /// What it is about, as events name it: `device/pump-1`, `rollout/pump-app-1.2.0`.
    pub subject: String,
    /// In a sentence.
    pub sentence: String,
    pub asked_by: String,
    /// The role by which it was asked: the second person needs another.
    pub asked_as: UserRole,
    pub asked_at_ms: u64,
    /// Nobody can approve it after this.
    pub until_ms: u64,
    /// open, approved, refused, failed or expired.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at_ms: Option<u64>,
    /// Why it was refused, or why it failed when it was to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `GET /v1/approvals?state=open`, newest first. `POST /v1/approvals/{id}/approve`, `/refuse`: [`Approval`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approvals {
    pub approvals: Vec<Approval>,
}

/// `GET /v1/settings/two-people`, and `POST` to change it. To ask for fewer is itself a widening that needs two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwoPeople {
    pub needed_for: Vec<Widening>,
}
