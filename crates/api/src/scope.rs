//! What a person or program of the operator may touch, and the roles that say it in one word.
//!
//! A scope is what one call asks for; a role is a set of scopes; a grant is a role at one site or at all of them. What
//! narrows (revoke, quarantine, halt, disable) and what widens never share a scope, so that whoever may stop something is
//! many, and whoever may let something run is few.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            pub const ALL: &[$name] = &[$(Self::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What one call asks of its caller.
    Scope {
        /// SQL over everything that devices measured.
        TelemetryRead = "telemetry.read",
        /// Devices, gateways, their keys, software and history.
        FleetRead = "fleet.read",
        /// Who may enrol; labels and groups.
        FleetEnrol = "fleet.enrol",
        /// Quarantine, revoke, decommission.
        FleetNarrow = "fleet.narrow",
        /// Release from quarantine, admit again.
        FleetWiden = "fleet.widen",
        ReleasesRead = "releases.read",
        /// Read the vendor's repository now; hold or take a release.
        ReleasesWrite = "releases.write",
        RolloutsRead = "rollouts.read",
        /// Create, start, resume, revert.
        RolloutsWrite = "rollouts.write",
        /// Pause, halt, abort.
        RolloutsNarrow = "rollouts.narrow",
        /// What was done, by whom, and the log that proves it.
        EvidenceRead = "evidence.read",
        MetricsRead = "metrics.read",
        AlertsRead = "alerts.read",
        /// Acknowledge and silence.
        AlertsWrite = "alerts.write",
        UsersRead = "users.read",
        /// Disable a user, end sessions, revoke a token.
        UsersNarrow = "users.narrow",
        /// Make users, grant roles, set another's password.
        UsersWrite = "users.write",
        /// Give the second person's word to what needs two.
        ApprovalsWrite = "approvals.write",
        /// Sites, alert rules, what needs two people.
        SettingsWrite = "settings.write",
    }
}

words! {
    /// What a person is to the site, in one word.
    UserRole {
        /// Sees everything but users; an auditor is one.
        Viewer = "viewer",
        /// Runs the plant: admits devices, cuts off, stops, answers alerts.
        Operator = "operator",
        /// Says what devices run.
        Releaser = "releaser",
        /// Judges identities: cuts off and lets back.
        SecurityOfficer = "security_officer",
        /// Makes users and settings; rolls nothing out.
        Administrator = "administrator",
    }
}

const READS: [Scope; 7] = [
    Scope::TelemetryRead,
    Scope::FleetRead,
    Scope::ReleasesRead,
    Scope::RolloutsRead,
    Scope::EvidenceRead,
    Scope::MetricsRead,
    Scope::AlertsRead,
];

impl UserRole {
    /// Whether a grant of this role holds a scope. The table of `docs/users.md`.
    pub fn holds(self, scope: Scope) -> bool {
        use Scope as S;
        let more: &[Scope] = match self {
            Self::Viewer => &[],
            Self::Operator => &[
                S::FleetEnrol,
                S::FleetNarrow,
                S::RolloutsNarrow,
                S::AlertsWrite,
                S::ApprovalsWrite,
            ],
            Self::Releaser => {
                &[S::ReleasesWrite, S::RolloutsWrite, S::RolloutsNarrow, S::ApprovalsWrite]
            }
            Self::SecurityOfficer => &[
                S::FleetNarrow,
                S::FleetWiden,
                S::RolloutsNarrow,
                S::AlertsWrite,
                S::UsersRead,
                S::UsersNarrow,
                S::ApprovalsWrite,
            ],
            Self::Administrator => &[
                S::FleetEnrol,
                S::FleetNarrow,
                S::RolloutsNarrow,
                S::AlertsWrite,
                S::UsersRead,
                S::UsersNarrow,
                S::UsersWrite,
                S::ApprovalsWrite,
                S::SettingsWrite,
            ],
        };
        READS.contains(&scope) || more.contains(&scope)
    }
}
