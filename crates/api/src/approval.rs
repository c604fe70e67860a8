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
    /// To begin a rollout without a canary: its first wave takes more than half of its cohort, and more than one device.
    EmergencyRollout,
    /// To let a quarantined device back.
    QuarantineRelease,
    /// To let people do more: a new user, roles that a user had not, another's password, a disabled user, the zones of a
    /// site, and to ask for two people for less.
    GrantRoles,
}

impl Widening {
    pub const ALL: [Self; 3] = [Self::EmergencyRollout, Self::QuarantineRelease, Self::GrantRoles];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmergencyRollout => "emergency_rollout",
            Self::QuarantineRelease => "quarantine_release",
            Self::GrantRoles => "grant_roles",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }

    /// By which roles a second person says yes: whom it touches, and not who does such things himself.
    pub const fn seconds(self) -> &'static [UserRole] {
        match self {
            Self::EmergencyRollout => &[UserRole::Operator, UserRole::SecurityOfficer],
            Self::QuarantineRelease => &[UserRole::Operator, UserRole::Administrator],
            Self::GrantRoles => &[UserRole::SecurityOfficer],
        }
    }
}

impl std::fmt::Display for Widening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
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
    /// By which roles a second person can say yes.
    pub seconds: Vec<UserRole>,
    /// The sites at which he needs one of them. `None`: at every site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<String>>,
    pub asked_at_ms: u64,
    /// Nobody can approve it from then on.
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
    /// The whole of what would be done, without passwords: `GET /v1/approvals/{id}` shows it while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<serde_json::Value>,
}

/// `GET /v1/approvals?state=open&after=ID&limit=N`, newest first. `POST /v1/approvals/{id}/approve`, `/refuse`
/// [`Refusal`]: [`Approval`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approvals {
    pub approvals: Vec<Approval>,
    /// There are older ones: ask again with `after` set to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The most approvals in one page, and how many there are without `limit`.
pub const APPROVALS_PAGE_MAX: usize = 100;

/// Why something is not to be done. Whoever asked for it takes it back so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub reason: String,
}

/// `GET /v1/settings/two-people`, and `POST` to change it. To ask for fewer is itself a widening that needs two. Whoever
/// makes users alone makes his second person himself: what is not empty has `grant_roles` in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwoPeople {
    pub needed_for: Vec<Widening>,
}
