//! A release on its way to a cohort, as its operator orders and sees it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to roll out, to whom, in which steps, and when to stop. Times in milliseconds; shares in percent (above 0,
/// at most 100; four decimals count). Nothing of it can be changed later: who has another mind makes another rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRollout {
    /// Its name; without one: product, version and the first number that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub product: String,
    /// A version that the vendor's repository names.
    pub version: String,
    #[serde(default)]
    pub cohort: Cohort,
    pub waves: Vec<NewWave>,
    /// Permits that may be outstanding at a time, silent devices counted (INV-ROLL-2). Default: the largest wave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<u64>,
    /// From a device's permit: who has not shown an outcome by then counts as failed.
    #[serde(default = "defaults::prove_within_ms")]
    pub prove_within_ms: u64,
    /// From the opening of a wave: who has not come for its permit by then is not waited for.
    #[serde(default = "defaults::come_within_ms")]
    pub come_within_ms: u64,
    /// Of the devices whose outcome is known, so many must run the release; else the rollout halts.
    #[serde(default = "defaults::success_min_percent")]
    pub success_min_percent: f64,
    /// Of a wave's devices, so many must have proven it before the wave can be over.
    #[serde(default = "defaults::quorum_percent")]
    pub quorum_percent: f64,
    /// Questions to the time-series store, asked after each wave. Each must be within its limit.
    #[serde(default)]
    pub signals: Vec<NewSignal>,
    /// A question that got no number holds the wave and is asked again after so long.
    #[serde(default = "defaults::ask_again_ms")]
    pub ask_again_ms: u64,
    #[serde(default)]
    pub back: NewBack,
    /// Once it is completed, whoever has proven it raises his floor to its security version: nothing below boots there any
    /// more, and the way back to a release below is closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raise: bool,
    /// Begin at once.
    #[serde(default)]
    pub start: bool,
}

/// Devices and gateways that are enrolled, run the product by their own signed word, and are of a kind of hardware that
/// the release is for. Of these, all that the lists name; an empty list names all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWave {
    /// Of the cohort, with the waves before.
    pub percent: f64,
    /// And never more devices than this, with the waves before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_max: Option<u64>,
    /// How long to wait, once every device of it has an outcome, before its gate is asked.
    #[serde(default)]
    pub soak_ms: u64,
}

/// A question whose answer is one number, and what that number may be: exactly one of the two limits.
///
/// In `sql`, `$opened_ms` stands for the time at which the open wave was opened and `$started_ms` for the rollout's start,
/// both in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSignal {
    pub name: String,
    pub sql: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
}

/// How it is taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBack {
    /// When it halts by itself, it is taken back without asking.
    #[serde(default)]
    pub by_itself: bool,
    /// Of the devices that have to go back, ascending; the last is 100.
    #[serde(default = "defaults::back_percents")]
    pub percents: Vec<f64>,
    /// Orders to go back that may be under way at a time. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_a_time: Option<u64>,
}

impl Default for NewBack {
    fn default() -> Self {
        Self { by_itself: false, percents: defaults::back_percents(), at_a_time: None }
    }
}

mod defaults {
    const HOUR_MS: u64 = 3_600_000;

    pub fn prove_within_ms() -> u64 {
        24 * HOUR_MS
    }
    pub fn come_within_ms() -> u64 {
        7 * 24 * HOUR_MS
    }
    pub fn success_min_percent() -> f64 {
        95.0
    }
    pub fn quorum_percent() -> f64 {
        90.0
    }
    pub fn ask_again_ms() -> u64 {
        60_000
    }
    pub fn back_percents() -> Vec<f64> {
        vec![100.0]
    }
}

/// What a person may say to a rollout: `POST /v1/rollouts/{id}/{word}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RolloutCommand {
    Start,
    Pause,
    Resume,
    Halt,
    Revert,
    Abort,
}

impl RolloutCommand {
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Pause, Self::Resume, Self::Halt, Self::Revert, Self::Abort];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Halt => "halt",
            Self::Revert => "revert",
            Self::Abort => "abort",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.as_str() == word)
    }
}

/// A rollout as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    pub id: String,
    /// As it was ordered.
    pub order: NewRollout,
    /// Of the image.
    pub sha256: String,
    pub created_at_ms: u64,
    /// Grows with each step that changed anything.
    pub revision: u64,
    /// planned, running, paused, halted, reverting, reverted, completed or aborted.
    pub phase: String,
    /// While it is running or paused: opening, installing, soaking or asking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Why it is so, in a sentence, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The wave that is open or opens next, from 1, and how many there are.
    pub wave: usize,
    pub waves: usize,
    /// How many devices the cohort had when it was made, and how many the waves so far have.
    pub cohort: u64,
    pub members: u64,
    pub counts: RolloutCounts,
    /// What happens next, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// When, in milliseconds since 1970, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at_ms: Option<u64>,
    /// What may be said to it from where it stands.
    #[serde(default)]
    pub commands: Vec<RolloutCommand>,
}

/// Devices with a permit, by what is known of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutCounts {
    /// May install, and have shown no outcome.
    pub issued: u64,
    /// Have shown no outcome in time.
    pub silent: u64,
    /// Run the release, confirmed, by their own signed word.
    pub proven: u64,
    /// Ran it before anybody gave leave.
    pub had: u64,
    /// Could not, or went back by themselves.
    pub failed: u64,
    /// Are told to go back, in time and beyond it.
    pub back: u64,
    pub back_silent: u64,
    /// Could not go back.
    pub stuck: u64,
    pub went_back: u64,
}

/// `GET /v1/rollouts?after=ID&limit=N`, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rollouts {
    pub rollouts: Vec<Rollout>,
    /// There are older ones: ask again with `after` set to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The most rollouts in one page, and how many there are without `limit`.
pub const ROLLOUTS_PAGE_MAX: usize = 100;

/// A device's part in a rollout: `GET /v1/rollouts/{id}/devices`, sorted by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutDevice {
    pub device: String,
    /// issued, silent, proven, had, failed, back, back_silent, stuck or went_back.
    pub known: String,
    /// What it ran when it got its leave.
    pub was_sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutDevices {
    pub devices: Vec<RolloutDevice>,
    /// There are more: ask again with `after` set to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a gate's question was answered: `GET /v1/rollouts/{id}/signals`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutSignals {
    /// Each time that a gate asked, oldest first.
    pub asked: Vec<AskedSignal>,
    /// What devices that have the release say beside what the others of the cohort say, since its start: of up to 100 of
    /// each, and the 12 series of which they say most.
    pub compared: Vec<ComparedSeries>,
    /// What could not be asked, each in a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AskedSignal {
    pub at_ms: u64,
    pub wave: usize,
    pub name: String,
    /// `None`: there was no answer, and the wave was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    pub within: bool,
}

/// Means of a minute, or of as many minutes as make at most 720 points: `[their beginning in ms, mean of those that have it or
/// null, mean of the others or null]`, ascending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ComparedSeries {
    pub series: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    pub points: Vec<(u64, Option<f64>, Option<f64>)>,
}
