//! Every call that can be made, and what it asks of its caller.
//!
//! The table is the router: what is not in it cannot be reached, and what is in it has an access (INV-LEAST-1).

use crate::caller::Caller;
use api::rollout::RolloutCommand;
use api::{Purpose, Scope};

/// What a call asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Tells nothing that a stranger may not know.
    Public,
    /// Certificates for oneself.
    Enrol,
    /// The bundle of one's own zone; handing up what devices sealed; what devices may install.
    Gateway,
    /// Any person or program of the operator: what it may do, and its own affairs.
    SignedIn,
    /// The scope at one site at least; the work shows and does no more than it reaches.
    Within(Scope),
    /// The scope at every site: what is done or told belongs to all of them.
    Whole(Scope),
}

impl Access {
    pub fn admits(self, caller: &Caller) -> bool {
        match (self, caller) {
            (Self::Public, _) => true,
            (Self::Enrol, Caller::IDevId { .. } | Caller::Device(_) | Caller::Gateway(_)) => true,
            (Self::Gateway, Caller::Gateway(_)) => true,
            (Self::SignedIn, Caller::Person(_)) => true,
            (Self::Within(scope), Caller::Person(person)) => person.holds(scope),
            (Self::Whole(scope), Caller::Person(person)) => person.reach(scope).is_everywhere(),
            _ => false,
        }
    }

    /// Whether a quarantined device or gateway may still make the call (DESIGN §8: re-enrol, and nothing else).
    pub(crate) const fn is_open_in_quarantine(self) -> bool {
        matches!(self, Self::Public | Self::Enrol)
    }

    pub fn expected(self) -> String {
        match self {
            Self::Public => "anybody".into(),
            Self::Enrol => "an IDevID, a device or a gateway, by its certificate".into(),
            Self::Gateway => "a gateway, by its certificate".into(),
            Self::SignedIn => "a session or a bearer token".into(),
            Self::Within(scope) => format!("a session or a bearer token with the scope {scope}"),
            Self::Whole(scope) => {
                format!("a session or a bearer token with the scope {scope} at every site")
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Post,
    Delete,
}

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $method:ident $path:literal, $access:expr;)*) => {
        /// Every call that can be made.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Endpoint {
            $($(#[$doc])* $name,)*
        }

        impl Endpoint {
            pub const ALL: &[Endpoint] = &[$(Self::$name,)*];

            /// The label of its figures.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            pub const fn method(self) -> Method {
                match self {
                    $(Self::$name => Method::$method,)*
                }
            }

            /// In the router's grammar: `{id}` stands for a device's, rollout's or user's name, `{name}` for a metadata file,
            /// `{digest}` for a SHA-256, `{*name}` for all the rest.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$name => $path,)*
                }
            }

            pub const fn access(self) -> Access {
                use Access::*;
                match self {
                    $(Self::$name => $access,)*
                }
            }
        }
    };
}

endpoints! {
    // RFC 7030 §4.1: a client that has no certificate yet asks for these first.
    CaCerts = "cacerts", Get "/.well-known/est/cacerts", Public;
    SealCaCerts = "seal_cacerts", Get "/.well-known/est/seal/cacerts", Public;
    Enroll = "simpleenroll", Post "/.well-known/est/simpleenroll", Enrol;
    Reenroll = "simplereenroll", Post "/.well-known/est/simplereenroll", Enrol;
    SealEnroll = "seal_simpleenroll", Post "/.well-known/est/seal/simpleenroll", Enrol;
    SealReenroll = "seal_simplereenroll", Post "/.well-known/est/seal/simplereenroll", Enrol;

    Bundle = "bundle", Get "/v1/gateway/bundle", Gateway;
    Uplink = "uplink", Post "/v1/gateway/uplink", Gateway;
    CheckIn = "checkin", Post "/v1/gateway/checkin", Gateway;
    Images = "images", Get "/v1/gateway/images/{name}", Gateway;
    Blob = "blob", Get "/v1/gateway/blobs/sha256/{digest}", Gateway;

    /// Who calls, and what it may do.
    Me = "session", Get "/v1/session", SignedIn;

    /// Nothing is proven yet: the work judges what is shown.
    SignIn = "sign_in", Post "/v1/session", Public;
    SignOut = "sign_out", Delete "/v1/session", SignedIn;

    Users = "users", Get "/v1/users", Whole(Scope::UsersRead);
    NewUser = "user_new", Post "/v1/users", Whole(Scope::UsersWrite);
    UserGrants = "user_grants", Post "/v1/users/{id}/grants", Whole(Scope::UsersWrite);
    /// One's own; another's needs `users.write` everywhere.
    UserPassword = "user_password", Post "/v1/users/{id}/password", SignedIn;
    UserDisable = "user_disable", Post "/v1/users/{id}/disable", Whole(Scope::UsersNarrow);
    UserEnable = "user_enable", Post "/v1/users/{id}/enable", Whole(Scope::UsersWrite);
    UserSessionsEnd = "user_sessions_end", Delete "/v1/users/{id}/sessions", Whole(Scope::UsersNarrow);

    /// One's own; with `users.read` everywhere, everybody's.
    Tokens = "tokens", Get "/v1/tokens", SignedIn;
    NewToken = "token_new", Post "/v1/tokens", SignedIn;
    /// One's own; another's needs `users.narrow` everywhere.
    TokenRevoke = "token_revoke", Delete "/v1/tokens/{id}", SignedIn;

    Sites = "sites", Get "/v1/sites", Within(Scope::FleetRead);
    NewSite = "site_new", Post "/v1/sites", Whole(Scope::SettingsWrite);

    Query = "query", Post "/v1/query", Within(Scope::TelemetryRead);

    Devices = "devices", Get "/v1/devices", Within(Scope::FleetRead);
    Software = "software", Get "/v1/devices/{id}/software", Within(Scope::FleetRead);
    Inventory = "inventory", Get "/v1/inventory", Within(Scope::FleetRead);
    InventorySummary = "inventory_summary", Get "/v1/inventory/summary", Within(Scope::FleetRead);
    Device = "device", Get "/v1/devices/{id}", Within(Scope::FleetRead);
    History = "history", Get "/v1/devices/{id}/history", Within(Scope::FleetRead);
    Decommission = "decommission", Post "/v1/devices/{id}/decommission", Within(Scope::FleetNarrow);
    DeviceReenrol = "device_reenrol", Post "/v1/devices/{id}/reenrol", Within(Scope::FleetWiden);
    Forensics = "forensics", Get "/v1/devices/{id}/forensics", Within(Scope::EvidenceRead);
    DeviceGroup = "device_group", Post "/v1/devices/{id}/group", Within(Scope::FleetEnrol);
    Revoke = "revoke", Post "/v1/devices/{id}/revoke", Within(Scope::FleetNarrow);
    Quarantine = "quarantine", Post "/v1/devices/{id}/quarantine", Within(Scope::FleetNarrow);
    Release = "release", Post "/v1/devices/{id}/release", Within(Scope::FleetWiden);
    Ownership = "ownership", Post "/v1/ownership", Within(Scope::FleetEnrol);

    Releases = "releases", Get "/v1/releases", Within(Scope::ReleasesRead);
    RefreshReleases = "refresh_releases", Post "/v1/releases/refresh", Within(Scope::ReleasesWrite);

    Rollouts = "rollouts", Get "/v1/rollouts", Within(Scope::RolloutsRead);
    NewRollout = "rollout_new", Post "/v1/rollouts", Within(Scope::RolloutsWrite);
    Rollout = "rollout", Get "/v1/rollouts/{id}", Within(Scope::RolloutsRead);
    RolloutDevices = "rollout_devices", Get "/v1/rollouts/{id}/devices", Within(Scope::RolloutsRead);
    RolloutSignals = "rollout_signals", Get "/v1/rollouts/{id}/signals", Within(Scope::RolloutsRead);
    RolloutStart = "rollout_start", Post "/v1/rollouts/{id}/start", Within(Scope::RolloutsWrite);
    RolloutPause = "rollout_pause", Post "/v1/rollouts/{id}/pause", Within(Scope::RolloutsNarrow);
    RolloutResume = "rollout_resume", Post "/v1/rollouts/{id}/resume", Within(Scope::RolloutsWrite);
    RolloutHalt = "rollout_halt", Post "/v1/rollouts/{id}/halt", Within(Scope::RolloutsNarrow);
    RolloutRevert = "rollout_revert", Post "/v1/rollouts/{id}/revert", Within(Scope::RolloutsWrite);
    RolloutAbort = "rollout_abort", Post "/v1/rollouts/{id}/abort", Within(Scope::RolloutsNarrow);

    // One log of all sites: its proofs hold for the whole of it, so who reads it is let in everywhere or not at all.
    Events = "events", Get "/v1/events", Whole(Scope::EvidenceRead);
    EvidenceCheckpoint = "evidence_checkpoint", Get "/v1/evidence/checkpoint", Whole(Scope::EvidenceRead);
    EvidenceTile = "evidence_tile", Get "/v1/evidence/tile/{*name}", Whole(Scope::EvidenceRead);
    EvidenceExport = "evidence_export", Get "/v1/evidence/export", Whole(Scope::EvidenceRead);

    Alerts = "alerts", Get "/v1/alerts", Whole(Scope::AlertsRead);
    AlertAcknowledge = "alert_acknowledge", Post "/v1/alerts/{id}/acknowledge", Whole(Scope::AlertsWrite);
    Silences = "silences", Get "/v1/silences", Whole(Scope::AlertsRead);
    NewSilence = "silence_new", Post "/v1/silences", Whole(Scope::AlertsWrite);
    SilenceEnd = "silence_end", Post "/v1/silences/{id}/end", Whole(Scope::AlertsWrite);
    AlertRules = "alert_rules", Get "/v1/alert-rules", Whole(Scope::AlertsRead);
    AlertRulePut = "alert_rule_put", Post "/v1/alert-rules", Whole(Scope::SettingsWrite);
    AlertTargets = "alert_targets", Get "/v1/alert-targets", Whole(Scope::SettingsWrite);
    AlertTargetPut = "alert_target_put", Post "/v1/alert-targets", Whole(Scope::SettingsWrite);
    AlertTargetDelete = "alert_target_delete", Post "/v1/alert-targets/{id}/delete", Whole(Scope::SettingsWrite);
    AlertTargetTest = "alert_target_test", Post "/v1/alert-targets/{id}/test", Whole(Scope::SettingsWrite);
    WeeklyReport = "weekly_report", Get "/v1/reports/weekly", Whole(Scope::FleetRead);
    WeeklyReportPage = "weekly_report_page", Get "/v1/reports/weekly.html", Whole(Scope::FleetRead);
    AlertRuleDelete = "alert_rule_delete", Post "/v1/alert-rules/{id}/delete", Whole(Scope::SettingsWrite);
    TwoPeople = "two_people", Get "/v1/settings/two-people", SignedIn;
    TwoPeoplePut = "two_people_put", Post "/v1/settings/two-people", Whole(Scope::SettingsWrite);
    /// One's own, and those of sites whose events one may read.
    Approvals = "approvals", Get "/v1/approvals", SignedIn;
    Approval = "approval", Get "/v1/approvals/{id}", SignedIn;
    Approve = "approve", Post "/v1/approvals/{id}/approve", Within(Scope::ApprovalsWrite);
    RefuseApproval = "approval_refuse", Post "/v1/approvals/{id}/refuse", Within(Scope::ApprovalsWrite);

    /// What changes, as it changes.
    Stream = "stream", Get "/v1/stream", SignedIn;

    /// What this table comes to, in OpenAPI.
    OpenApi = "openapi", Get "/v1/openapi.json", Public;

    Console = "console", Get "/", Public;
    /// A page of it, by its address.
    ConsolePage = "console_page", Get "/console/{*name}", Public;
    ConsoleFile = "console_file", Get "/assets/{name}", Public;

    Metrics = "metrics", Get "/metrics", Whole(Scope::MetricsRead);
    Health = "health", Get "/healthz", Public;
}

impl Endpoint {
    /// The purpose of the key that this call certifies.
    pub const fn purpose(self) -> Option<Purpose> {
        match self {
            Self::Enroll | Self::Reenroll => Some(Purpose::Tls),
            Self::SealEnroll | Self::SealReenroll => Some(Purpose::Seal),
            _ => None,
        }
    }

    /// What this call says to a rollout.
    pub const fn rollout_command(self) -> Option<RolloutCommand> {
        match self {
            Self::RolloutStart => Some(RolloutCommand::Start),
            Self::RolloutPause => Some(RolloutCommand::Pause),
            Self::RolloutResume => Some(RolloutCommand::Resume),
            Self::RolloutHalt => Some(RolloutCommand::Halt),
            Self::RolloutRevert => Some(RolloutCommand::Revert),
            Self::RolloutAbort => Some(RolloutCommand::Abort),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::path;

    #[test]
    fn no_two_endpoints_are_the_same_call() {
        let mut calls: Vec<_> =
            Endpoint::ALL.iter().map(|e| (e.path(), format!("{:?}", e.method()))).collect();
        calls.sort();
        calls.dedup();
        assert_eq!(calls.len(), Endpoint::ALL.len());
    }

    #[test]
    fn what_clients_compile_against_is_in_the_table() {
        for written in [
            path::EST,
            path::GATEWAY_BUNDLE,
            path::GATEWAY_UPLINK,
            path::GATEWAY_CHECK_IN,
            path::GATEWAY_IMAGES,
            path::GATEWAY_BLOBS,
            path::ROLLOUTS,
            path::RELEASES,
            path::EVENTS,
            path::EVIDENCE,
            path::QUERY,
            path::DEVICES,
            path::INVENTORY,
            path::OWNERSHIP,
            path::SESSION,
            path::ALERTS,
            path::SILENCES,
            path::ALERT_RULES,
            path::USERS,
            path::TOKENS,
            path::SITES,
            path::ALERT_TARGETS,
            path::WEEKLY_REPORT,
            path::WEEKLY_REPORT_PAGE,
            path::STREAM,
            path::APPROVALS,
            path::TWO_PEOPLE,
            path::OPENAPI,
            path::METRICS,
            path::HEALTH,
        ] {
            let mut known = Endpoint::ALL.iter().map(|endpoint| endpoint.path());
            let is_under =
                |known: &str| known == written || known.starts_with(&format!("{written}/"));
            assert!(known.any(is_under), "{written}");
        }
    }
}
