//! What a rollout's gates were answered, and what devices that have the release say beside those that do not.
//!
//! ```text
//! gate_answers  rollout, question, name → at_ms, wave, value, within      the newest 1,024 of a rollout
//! ```
//!
//! An answer is written in the step that it moves the rollout by. A gate that holds for the same signals again moves nothing,
//! and is not written again.

use super::book::{Live, Number};
use super::{RolloutError, Rollouts};
use crate::registry::RegistryError;
use crate::station::now;
use api::rollout::{AskedSignal, ComparedSeries, RolloutSignals};
use api::{Ask, Cell};
use model::{DeviceId, RolloutId, Timestamp};
use rollout::{Answer, Event, Phase, Stage};
use sqlx::{Row, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS gate_answers (
    number INTEGER PRIMARY KEY,
    rollout TEXT NOT NULL REFERENCES rollouts (id),
    at_ms INTEGER NOT NULL,
    wave INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL,
    within INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS gate_answers_by_rollout ON gate_answers (rollout, number);
";

/// Kept of one rollout: what is older goes when a new one comes.
const ANSWERS_MAX: i64 = 1024;
/// Devices with the release, and as many without, whose readings are compared.
const DEVICES_MAX: usize = 100;
const SERIES_MAX: usize = 12;
/// Points of one series: from 12 hours on they are of more than a minute.
const POINTS_MAX: u64 = 720;
const MINUTE_MS: u64 = 60_000;
/// How long the store may think about each of the questions.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What these events answer of the question that a rollout is at.
pub(super) fn asked(live: &Live, events: &[Event], at: Timestamp) -> Vec<AskedSignal> {
    let (plan, state) = (live.plan(), live.state());
    let is_asking = matches!(state.phase, Phase::Running { stage: Stage::Asking { .. } });
    let answers = events.iter().find_map(|event| match event {
        Event::Answered { question, answers } if is_asking && *question == state.question => {
            Some(answers)
        }
        _ => None,
    });
    let Some(answers) = answers else { return Vec::new() };
    let asked = plan.signals.iter().zip(answers).map(|(signal, answer)| {
        let value = match answer {
            Answer::Number(value) => Some(*value).filter(|value| value.is_finite()),
            Answer::Empty | Answer::Failed => None,
        };
        AskedSignal {
            at_ms: at.as_ms(),
            wave: state.wave + 1,
            name: signal.name.clone(),
            value,
            within: value.and_then(|value| signal.limit.allows(value)).unwrap_or(false),
        }
    });
    asked.collect()
}

pub(super) async fn keep(
    tx: &mut SqliteConnection,
    rollout: &RolloutId,
    asked: &[AskedSignal],
) -> Result<(), RegistryError> {
    for one in asked {
        sqlx::query(
            "INSERT INTO gate_answers (rollout, at_ms, wave, name, value, within) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(rollout.as_str())
        .bind(i64::try_from(one.at_ms).unwrap_or(i64::MAX))
        .bind(i64::try_from(one.wave).unwrap_or(i64::MAX))
        .bind(&one.name)
        .bind(one.value)
        .bind(one.within)
        .execute(&mut *tx)
        .await
        .map_err(RegistryError::Write)?;
    }
    if asked.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM gate_answers WHERE rollout = ?1 AND number <=
         (SELECT number FROM gate_answers WHERE rollout = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
    )
    .bind(rollout.as_str())
    .bind(ANSWERS_MAX)
    .execute(tx)
    .await
    .map_err(RegistryError::Write)?;
    Ok(())
}

async fn answers(
    tx: &mut SqliteConnection,
    rollout: &RolloutId,
) -> Result<Vec<AskedSignal>, RegistryError> {
    let rows = sqlx::query("SELECT * FROM gate_answers WHERE rollout = ? ORDER BY number")
        .bind(rollout.as_str())
        .fetch_all(tx)
        .await
        .map_err(RegistryError::Read)?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let number = |name| row.try_get::<i64, _>(name).map(|n| u64::try_from(n).unwrap_or(0));
        Ok(AskedSignal {
            at_ms: number("at_ms")?,
            wave: usize::try_from(number("wave")?).unwrap_or(usize::MAX),
            name: row.try_get("name")?,
            value: row.try_get("value")?,
            within: row.try_get("within")?,
        })
    };
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(RegistryError::Read)
}

/// Some of those that run the release by its leave.
async fn having(
    tx: &mut SqliteConnection,
    rollout: &RolloutId,
) -> Result<BTreeSet<DeviceId>, RegistryError> {
    let named: Vec<String> = sqlx::query_scalar(
        "SELECT device FROM permits WHERE rollout = ? AND known IN ('proven', 'had') ORDER BY device",
    )
    .bind(rollout.as_str())
    .fetch_all(tx)
    .await
    .map_err(RegistryError::Read)?;
    Ok(named.into_iter().filter_map(|id| DeviceId::new(id).ok()).collect())
}

impl Rollouts {
    /// What its gates were answered, and how its two cohorts compare.
    pub async fn signals(&self, id: &RolloutId) -> Result<RolloutSignals, RolloutError> {
        let found = {
            let book = self.book();
            let number = book.number(id);
            number.and_then(|number| Some((number, book.live(number)?.state().started.0)))
        };
        let (number, started_ms) = found.ok_or_else(|| RolloutError::Unknown(id.clone()))?;
        let rollout = id.clone();
        let read = self.0.registry.read(move |tx| {
            Box::pin(async move {
                let asked = answers(&mut *tx, &rollout).await?;
                Ok::<_, RegistryError>((asked, having(&mut *tx, &rollout).await?))
            })
        });
        let (asked, having) = read.await?;
        let mut signals = RolloutSignals { asked, compared: Vec::new(), missing: Vec::new() };
        if started_ms == 0 || having.is_empty() {
            return Ok(signals);
        }
        match self.compare(number, started_ms, having).await {
            Ok(compared) => signals.compared = compared,
            Err(why) => {
                signals.missing.push(format!("what devices say: the store gave no answer: {why}"))
            }
        }
        Ok(signals)
    }

    async fn compare(
        &self,
        number: Number,
        started_ms: u64,
        having: BTreeSet<DeviceId>,
    ) -> Result<Vec<ComparedSeries>, String> {
        let this = self.clone();
        let look = move || {
            let directory = this.0.registry.directory();
            let others = this.book().others(number, &directory, &having, DEVICES_MAX);
            let having: Vec<_> = having.into_iter().take(DEVICES_MAX).collect();
            (having, others)
        };
        let (having, others) =
            tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?;
        let questions = Questions::new(&having, &others, started_ms, now());
        let mut names = Vec::new();
        for row in self.rows(questions.series(), SERIES_MAX).await? {
            let name = row.first().and_then(Cell::as_str).ok_or("a series without a name")?;
            names.push(name.to_owned());
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let points = SERIES_MAX * (POINTS_MAX as usize + 2);
        let mut compared = compared(&self.rows(questions.means(&names), points).await?)?;
        // A series without a unit is shown without one.
        let units = self.rows(questions.units(&names), SERIES_MAX).await.unwrap_or_default();
        for row in units {
            if let [Cell::String(series), Cell::String(unit)] = &row[..]
                && let Some(one) = compared.iter_mut().find(|one| one.series == *series)
            {
                one.unit = Some(unit.clone());
            }
        }
        Ok(compared)
    }

    async fn rows(&self, sql: String, max: usize) -> Result<Vec<Vec<Cell>>, String> {
        let time_max_ms = u64::try_from(TIME_MAX.as_millis()).ok();
        let ask = Ask { sql, rows_max: Some(max), time_max_ms };
        match tokio::time::timeout(TIME_MAX, self.0.query.query(ask, None)).await {
            Ok(Ok(answer)) => Ok(answer.rows),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("not within {} s", TIME_MAX.as_secs())),
        }
    }
}

/// The SQL of a comparison. Names of devices hold nothing that SQL would read; those of series are quoted.
struct Questions {
    having: String,
    all: String,
    started_ms: u64,
    now_ms: u64,
}

impl Questions {
    fn new(having: &[DeviceId], others: &[DeviceId], started_ms: u64, now: Timestamp) -> Self {
        let listed = |ids: &mut dyn Iterator<Item = &DeviceId>| {
            ids.map(|id| quoted(id.as_str())).collect::<Vec<_>>().join(", ")
        };
        let now_ms = now.as_ms();
        Self {
            having: listed(&mut having.iter()),
            all: listed(&mut having.iter().chain(others)),
            started_ms,
            now_ms,
        }
    }

    fn of(&self) -> String {
        let Self { all, started_ms, .. } = self;
        format!("device IN ({all}) AND time >= to_timestamp_millis({started_ms})")
    }

    fn series(&self) -> String {
        let of = self.of();
        format!(
            "SELECT series FROM readings_1m WHERE {of} GROUP BY series ORDER BY sum(count) DESC, series LIMIT {SERIES_MAX}"
        )
    }

    fn means(&self, series: &[String]) -> String {
        let (of, having) = (self.of(), &self.having);
        let minutes = self.now_ms.saturating_sub(self.started_ms) / MINUTE_MS + 1;
        let width = minutes.div_ceil(POINTS_MAX);
        let series = series.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let mean = |is: &str| {
            format!(
                "sum(CASE WHEN device {is} ({having}) THEN sum END) / sum(CASE WHEN device {is} ({having}) THEN count END)"
            )
        };
        let (with, without) = (mean("IN"), mean("NOT IN"));
        format!(
            "SELECT series, date_bin(INTERVAL '{width} minutes', time) AS at, {with} AS having, {without} AS others \
             FROM readings_1m WHERE {of} AND series IN ({series}) GROUP BY series, at ORDER BY series, at"
        )
    }

    fn units(&self, series: &[String]) -> String {
        let of = self.of();
        let series = series.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        // The last ten minutes are enough to know it by.
        let from_ms = self.started_ms.max(self.now_ms.saturating_sub(10 * MINUTE_MS));
        format!(
            "SELECT series, max(unit) FROM readings WHERE {of} AND time >= to_timestamp_millis({from_ms}) \
             AND series IN ({series}) GROUP BY series"
        )
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn compared(rows: &[Vec<Cell>]) -> Result<Vec<ComparedSeries>, String> {
    let mut series: BTreeMap<&str, ComparedSeries> = BTreeMap::new();
    for row in rows {
        let [Cell::String(name), Cell::String(at), having, others] = &row[..] else {
            return Err(format!("expected a series, a time and two numbers, found {row:?}"));
        };
        let at = at.parse::<jiff::Timestamp>().map_err(|error| error.to_string())?;
        let at_ms = u64::try_from(at.as_millisecond()).map_err(|error| error.to_string())?;
        let point = (at_ms, having.as_f64(), others.as_f64());
        let one = series.entry(name).or_insert_with(|| ComparedSeries {
            series: name.clone(),
            unit: None,
            points: Vec::new(),
        });
        one.points.push(point);
    }
    Ok(series.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ids(names: &[&str]) -> Vec<DeviceId> {
        names.iter().map(|name| DeviceId::new(*name).unwrap()).collect()
    }

    #[test]
    fn a_rollout_of_days_is_compared_in_as_many_points_as_one_of_hours() {
        let ask = |minutes: u64| {
            let now = Timestamp(i64::try_from((1_000_000 + minutes * MINUTE_MS) * 1000).unwrap());
            Questions::new(&ids(&["pump-1"]), &ids(&["pump-2"]), 1_000_000, now)
                .means(&["flow".into(), "o'clock".into()])
        };
        let hour = ask(60);
        assert!(hour.contains("date_bin(INTERVAL '1 minutes', time)"), "{hour}");
        assert!(hour.contains("device IN ('pump-1', 'pump-2')"), "{hour}");
        assert!(hour.contains("CASE WHEN device NOT IN ('pump-1') THEN count END"), "{hour}");
        assert!(hour.contains("series IN ('flow', 'o''clock')"), "{hour}");
        assert!(ask(719).contains("'1 minutes'"));
        assert!(ask(720).contains("'2 minutes'"));
        assert!(ask(7 * 1440).contains("'15 minutes'"));
    }

    #[test]
    fn rows_become_one_line_of_points_for_each_series() {
        let rows: Vec<Vec<Cell>> = serde_json::from_value(json!([
            ["flow", "1970-01-01T00:01:00Z", 1.5, null],
            ["flow", "1970-01-01T00:02:00Z", 2, 3.5],
            ["rss", "1970-01-01T00:01:00Z", null, 7],
        ]))
        .unwrap();
        let compared = compared(&rows).unwrap();
        let points = |n: usize| (compared[n].series.as_str(), compared[n].points.clone());
        let flow = vec![(60_000, Some(1.5), None), (120_000, Some(2.0), Some(3.5))];
        assert_eq!(points(0), ("flow", flow));
        assert_eq!(points(1), ("rss", vec![(60_000, None, Some(7.0))]));
        assert!(super::compared(&[vec![json!(1)]]).is_err());
    }
}
