//! What somebody should know of: rules as data, alerts, silences.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Somebody gets up at night.
    Critical,
    /// Today.
    Warning,
    /// When there is time.
    Notice,
}

impl Priority {
    pub const ALL: [Self; 3] = [Self::Critical, Self::Warning, Self::Notice];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == word)
    }
}

/// When an alert is raised. `sql` answers with columns `subject` (text: what it is about, a device or gateway or `site`) and
/// `value` (a number), a row each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Lower case letters, digits, `-`.
    pub id: String,
    /// In a sentence, with `{subject}` and `{value}`: what is the matter.
    pub sentence: String,
    pub priority: Priority,
    pub signal: Signal,
    pub when: Condition,
    /// For how long it has to be so before it is an alert, in milliseconds.
    #[serde(default)]
    pub for_ms: u64,
    /// How often it is looked at, in milliseconds: 1,000 at least.
    pub every_ms: u64,
    /// Nobody has acknowledged it for so long: its priority goes up by one, and it is said again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalate_after_ms: Option<u64>,
    /// What to do, as a page of `docs/runbooks/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// One alert for all that share a gateway, instead of one a device.
    #[serde(default)]
    pub group_by_gateway: bool,
    /// What happened does not un-happen: the alert stays until somebody has acknowledged it. Otherwise it is resolved when it
    /// has not been so for a while.
    #[serde(default)]
    pub latched: bool,
    /// Whose business it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<crate::UserRole>,
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Signal {
    /// A question to the store. `$now_ms` stands for the time at which it is asked.
    Sql(String),
    /// A counter or gauge of this process: name, and labels that have to match; a subject for each of the others. Its growth
    /// since the last look counts for a counter; for a gauge whose name ends in `_timestamp_seconds`, the seconds from now
    /// until then.
    Metric {
        name: String,
        #[serde(default)]
        labels: std::collections::BTreeMap<String, String>,
    },
    /// Milliseconds since each enrolled device, or gateway, was heard. In a rule that groups by gateway a silent gateway is
    /// one of those that stand under its name.
    Silence { role: crate::Role },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    Above(f64),
    Below(f64),
    /// A subject that the question named before is named no more.
    Absent,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rules {
    pub rules: Vec<Rule>,
    /// How each is doing, by its id.
    #[serde(default)]
    pub states: std::collections::BTreeMap<String, RuleState>,
}

/// `GET /v1/alert-rules`: [`Rules`]. `POST /v1/alert-rules` [`Rule`]: makes it, or changes the one of that id; 200 [`Rule`].
/// `POST /v1/alert-rules/{id}/delete`: a rule of one's own is gone; a shipped one is as it was shipped. 204.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleState {
    /// It came with the software.
    pub shipped: bool,
    /// It came with the software, and somebody changed it here.
    pub changed: bool,
    /// When it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at_ms: Option<u64>,
    /// It cannot be evaluated: why. What was firing goes on firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// So, but not yet for as long as it has to be.
    pub pending: u64,
    /// Alerts that are open.
    pub open: u64,
}

/// Something is the matter, or was. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    pub id: u64,
    pub rule: String,
    pub subject: String,
    pub sentence: String,
    pub priority: Priority,
    /// firing, acknowledged, resolved.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    pub since_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at_ms: Option<u64>,
    /// When its priority goes up if nobody acknowledges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalates_at_ms: Option<u64>,
    /// It is so, and nobody is told, until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced_until_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// How many subjects it stands for, when it is a group.
    pub count: u64,
}

/// The most alerts of a page, and how many there are without `limit`.
pub const ALERTS_PAGE_MAX: usize = 1000;

/// `GET /v1/alerts?state=&priority=&after=&limit=`, newest first. `state=open`: firing or acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alerts {
    pub alerts: Vec<Alert>,
    /// How many are firing, in all pages together.
    pub firing: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// `POST /v1/alerts/{id}/acknowledge`: [`Alert`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledge {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `POST /v1/silences`: 201 [`Silence`]. `POST /v1/silences/{id}/end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSilence {
    /// Which rule; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Which subject; `None`: any. One of the two is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// It ends by itself: at most 30 days from now.
    pub until_ms: u64,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Silence {
    pub id: u64,
    #[serde(flatten)]
    pub what: NewSilence,
    pub by: String,
    pub at_ms: u64,
    /// Somebody ended it before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Silences {
    pub silences: Vec<Silence>,
}

/// `GET /v1/reports/weekly?until_ms=`: the seven days before, as numbers that the console lays out for print.
/// `GET /v1/reports/weekly.html`: the same as a page of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WeeklyReport {
    pub site: String,
    pub from_ms: u64,
    pub until_ms: u64,
    pub made_at_ms: u64,
    pub devices: u64,
    pub enrolled: u64,
    pub quarantined: u64,
    pub revoked: u64,
    /// Enrolled and heard in the week.
    pub heard: u64,
    pub silent: Vec<String>,
    pub versions: std::collections::BTreeMap<String, u64>,
    pub rollouts: Vec<ReportedRollout>,
    pub alerts_by_priority: std::collections::BTreeMap<String, u64>,
    /// Median time from raised to acknowledged, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_after_ms: Option<u64>,
    pub readings: u64,
    pub gaps: u64,
    pub quarantined_messages: u64,
    /// `action` → how often, of the evidence log.
    pub acts: std::collections::BTreeMap<String, u64>,
    /// Counters of invariants that are not 0.
    pub violations: std::collections::BTreeMap<String, u64>,
    /// Numbers that could not be had, and why, each in a sentence.
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportedRollout {
    pub id: String,
    pub phase: String,
    pub proven: u64,
    pub failed: u64,
    pub went_back: u64,
    pub cohort: u64,
}

/// Who is told of alerts and sent reports. `POST /v1/alert-targets`: makes it, or changes the one of that id; 200
/// [`TargetState`]. `GET /v1/alert-targets`: [`Targets`]. `POST /v1/alert-targets/{id}/delete`: 204;
/// `POST /v1/alert-targets/{id}/test`: sends a message now, 200 [`TargetState`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Lower case letters, digits, `-`.
    pub id: String,
    pub way: Way,
    /// What is less urgent it does not hear of.
    #[serde(default = "notice")]
    pub from_priority: Priority,
    /// Whether the weekly report goes there.
    #[serde(default)]
    pub reports: bool,
}

fn notice() -> Priority {
    Priority::Notice
}

/// How somebody is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Way {
    /// `POST` of a [`Telling`] as JSON. `Plimsoll-Signature: sha256=HEX` is the HMAC-SHA-256 of the body under the secret;
    /// `Plimsoll-Delivery` is the telling's id: one that comes twice is the same one.
    Webhook {
        /// `https`; `http` to this machine only.
        url: String,
        /// Without it in a change, the one before is kept.
        #[serde(default, skip_serializing_if = "Secret::is_empty")]
        secret: Secret,
        /// Whom its certificate is from, in PEM, beside the authorities of this machine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_pem: Option<String>,
    },
    Mail {
        host: String,
        port: u16,
        #[serde(default)]
        security: MailSecurity,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// Without it in a change, the one before is kept.
        #[serde(default, skip_serializing_if = "Secret::is_empty")]
        password: Secret,
        from: String,
        to: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_pem: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailSecurity {
    /// TLS from the first byte: port 465.
    #[default]
    Tls,
    /// TLS before anything is said: port 587.
    Starttls,
    /// To this machine only.
    Plain,
}

/// What a target shares with nobody else. It is in no answer, log or debug output.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For whoever shows it to its target.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A target as it is shown: without its secret, with how it is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetState {
    #[serde(flatten)]
    pub target: Target,
    pub has_secret: bool,
    /// Tellings that wait for it.
    pub waiting: u64,
    /// When something was last delivered, since this process began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at_ms: Option<u64>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Targets {
    pub targets: Vec<TargetState>,
}

/// What a target is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Telling {
    /// The same whenever it is tried again.
    pub id: String,
    pub site: String,
    pub kind: TellingKind,
    pub at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<WeeklyReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TellingKind {
    /// It began, or its priority went up.
    Firing,
    Resolved,
    Report,
    Test,
}
