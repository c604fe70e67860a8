//! What somebody should know of: rules as data, alerts, silences.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Somebody gets up at night.
    Critical,
    /// Today.
    Warning,
    /// When there is time.
    Notice,
}

/// When an alert is raised. `sql` answers with columns `subject` (text: what it is about, a device or gateway or `site`) and
/// `value` (a number), a row each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Signal {
    /// A question to the store. `$now_ms` stands for the time at which it is asked.
    Sql(String),
    /// A counter or gauge of this process: name, and labels that have to match. Its growth since the last look counts for a
    /// counter.
    Metric {
        name: String,
        #[serde(default)]
        labels: std::collections::BTreeMap<String, String>,
    },
    /// Milliseconds since each enrolled device, or gateway, was heard.
    Silence { role: crate::Role },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    Above(f64),
    Below(f64),
    /// A subject that the question named before is named no more.
    Absent,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    pub rules: Vec<Rule>,
}

/// Something is the matter, or was. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// `GET /v1/alerts?state=&priority=&after=&limit=`, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alerts {
    pub alerts: Vec<Alert>,
    pub firing: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// `POST /v1/alerts/{id}/acknowledge`: [`Alert`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledge {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `POST /v1/silences`: 201 [`Silence`]. `POST /v1/silences/{id}/end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub id: u64,
    #[serde(flatten)]
    pub what: NewSilence,
    pub by: String,
    pub at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silences {
    pub silences: Vec<Silence>,
}

/// `GET /v1/reports/weekly?until_ms=`: the seven days before, as numbers that the console lays out for print.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedRollout {
    pub id: String,
    pub phase: String,
    pub proven: u64,
    pub failed: u64,
    pub went_back: u64,
    pub cohort: u64,
}
