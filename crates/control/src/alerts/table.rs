//! Rules, alerts, silences, and who is to hear of them, in the registry's file.
//!
//! ```text
//! alert_rules   id → body, at_ms                     what differs from the rules that are shipped
//! alerts        id → rule, subject, …, level, told_at_ms, flaps, resolved_at_ms      one open one for a rule and subject
//! alert_known   rule, subject → under                whom rules of absence would miss, behind which gateway
//! silences      id → rule, subject, until_ms, reason, by, at_ms, ended_at_ms
//! targets       id → body, at_ms                     who is told, with what secrets that takes
//! tellings      target, id → kind, body, tries, next_at_ms, made_at_ms               what was not delivered yet
//! reports       until_ms → body, at_ms               reports that went out
//! ```

use super::rule;
use super::step::{Effect, Kept, Ms, Raised, Silence};
use crate::principal::Actor;
use crate::registry::{RegistryError, Step, said};
use api::alert::{
    Alert, NewSilence, Priority, Rule, Silence as Shown, Target, Telling, TellingKind, Way,
    WeeklyReport,
};
use evidence::event::Said;
use model::Timestamp;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::BTreeMap;

/// Resolved alerts that are kept, the newest: 50 MB at the most. What happened is in the evidence log for ever.
const RESOLVED_MAX: u64 = 100_000;
/// Undelivered tellings of one target. One more is not queued for it, counted, and logged.
pub const TELLINGS_MAX: i64 = 1000;

pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS alert_rules (
    id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS alerts (
    id INTEGER PRIMARY KEY,
    rule TEXT NOT NULL,
    subject TEXT NOT NULL,
    sentence TEXT NOT NULL,
    priority TEXT NOT NULL CHECK (priority IN ('critical', 'warning', 'notice')),
    value REAL,
    count INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    raised_at_ms INTEGER NOT NULL,
    flaps INTEGER NOT NULL,
    runbook TEXT,
    level INTEGER,
    told_at_ms INTEGER,
    acknowledged_by TEXT,
    acknowledged_at_ms INTEGER,
    note TEXT,
    resolved_at_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_open_alert ON alerts (rule, subject) WHERE resolved_at_ms IS NULL;
CREATE INDEX IF NOT EXISTS alerts_by_end ON alerts (resolved_at_ms);
CREATE TRIGGER IF NOT EXISTS what_is_resolved_stays_so BEFORE UPDATE ON alerts
WHEN OLD.resolved_at_ms IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: an alert that is resolved stays so'); END;
CREATE TRIGGER IF NOT EXISTS a_level_is_told_once BEFORE UPDATE OF level ON alerts
WHEN NEW.level <= OLD.level
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: each level of an alert is told once'); END;

CREATE TABLE IF NOT EXISTS alert_known (
    rule TEXT NOT NULL,
    subject TEXT NOT NULL,
    under TEXT,
    PRIMARY KEY (rule, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS silences (
    id INTEGER PRIMARY KEY,
    rule TEXT,
    subject TEXT,
    until_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    by TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER
) STRICT;

CREATE TABLE IF NOT EXISTS targets (
    id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS tellings (
    target TEXT NOT NULL,
    id TEXT NOT NULL,
    body TEXT NOT NULL,
    tries INTEGER NOT NULL,
    next_at_ms INTEGER NOT NULL,
    made_at_ms INTEGER NOT NULL,
    PRIMARY KEY (target, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS reports (
    until_ms INTEGER PRIMARY KEY,
    body TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
";

/// What is kept, at a start.
pub struct Loaded {
    pub next_alert: u64,
    pub next_silence: u64,
    pub rules: Vec<Rule>,
    pub alerts: Vec<Kept>,
    pub known: Vec<(String, String, Option<String>)>,
    pub silences: Vec<Silence>,
    pub targets: Vec<Target>,
}

/// In the same transaction as what it was made of.
#[derive(Clone, Debug)]
pub struct Writing {
    pub site: String,
    pub now: Timestamp,
    pub actor: Actor,
    pub note: Option<String>,
    pub targets: Vec<Target>,
}

/// `since`: alerts that were resolved before are of no matter.
pub async fn load(tx: &mut SqliteConnection, since: Ms, now: Ms) -> Result<Loaded, RegistryError> {
    let rules = rows(tx, "SELECT body FROM alert_rules ORDER BY id").await?;
    let rules = rules.iter().map(|row| parsed(row, "a rule")).collect::<Result<_, _>>()?;
    let targets = rows(tx, "SELECT body FROM targets ORDER BY id").await?;
    let targets = targets.iter().map(|row| parsed(row, "a target")).collect::<Result<_, _>>()?;
    let alerts = sqlx::query(
        "SELECT * FROM alerts WHERE resolved_at_ms IS NULL OR resolved_at_ms >= ? ORDER BY id",
    )
    .bind(stored(since))
    .fetch_all(&mut *tx)
    .await
    .map_err(RegistryError::Read)?;
    let silences = sqlx::query("SELECT * FROM silences WHERE ended_at_ms IS NULL AND until_ms > ?")
        .bind(stored(now))
        .fetch_all(&mut *tx)
        .await
        .map_err(RegistryError::Read)?;
    let known = rows(tx, "SELECT rule, subject, under FROM alert_known").await?;
    let known = known.iter().map(|row| {
        let under = row.try_get("under").map_err(RegistryError::Read)?;
        Ok((text(row, "rule")?, text(row, "subject")?, under))
    });
    let known = known.collect::<Result<_, RegistryError>>()?;
    Ok(Loaded {
        next_alert: next(tx, "SELECT coalesce(max(id), 0) + 1 FROM alerts").await?,
        next_silence: next(tx, "SELECT coalesce(max(id), 0) + 1 FROM silences").await?,
        rules,
        alerts: alerts.iter().map(kept).collect::<Result<_, _>>()?,
        known,
        silences: silences.iter().map(silence).collect::<Result<_, _>>()?,
        targets,
    })
}

fn kept(row: &SqliteRow) -> Result<Kept, RegistryError> {
    let level: Option<u64> = maybe(row, "level")?;
    let told_at: Option<u64> = maybe(row, "told_at_ms")?;
    let acknowledged: Option<u64> = maybe(row, "acknowledged_at_ms")?;
    Ok(Kept {
        alert: number(row, "id")?,
        rule: text(row, "rule")?,
        subject: text(row, "subject")?,
        value: row.try_get::<Option<f64>, _>("value").map_err(RegistryError::Read)?.unwrap_or(0.0),
        count: number(row, "count")?,
        told: level.map(|level| level as u8).zip(told_at),
        acknowledged: acknowledged.is_some(),
        flaps: number(row, "flaps")? as u8,
        resolved_at: maybe(row, "resolved_at_ms")?,
    })
}

fn silence(row: &SqliteRow) -> Result<Silence, RegistryError> {
    Ok(Silence {
        id: number(row, "id")?,
        rule: row.try_get("rule").map_err(RegistryError::Read)?,
        subject: row.try_get("subject").map_err(RegistryError::Read)?,
        until: number(row, "until_ms")?,
    })
}

/// Writes what came of a step of the core, with its events and what is to be told. Returns how many tellings found no room.
pub async fn write(
    step: &mut Step<'_>,
    effects: &[Effect],
    by: &Writing,
) -> Result<u64, RegistryError> {
    let mut dropped = 0;
    for effect in effects {
        match effect {
            Effect::Raise(raised) => raise(step, raised, by).await?,
            Effect::Tell { alert, level, priority, sum, sentence } => {
                let query = sqlx::query(
                    "UPDATE alerts SET level = ?, told_at_ms = ?, priority = ?, sentence = ?, value = ?, count = ?
                     WHERE id = ?",
                );
                let query = query.bind(i64::from(*level)).bind(stored(by.now_ms()));
                let query = query.bind(priority.as_str()).bind(sentence.clone());
                let query = query.bind(sum.value.is_finite().then_some(sum.value));
                execute(step, query.bind(stored(sum.count)).bind(stored(*alert))).await?;
                if *level > 0 {
                    let detail = json!({ "level": level, "priority": priority.as_str() });
                    say(step, by, "alert.escalate", *alert, detail).await?;
                }
                let id = format!("alert-{alert}-{level}");
                dropped += tell(step, by, *alert, id, TellingKind::Firing).await?;
            }
            Effect::Acknowledge { alert } => {
                let query = sqlx::query(
                    "UPDATE alerts SET acknowledged_by = ?, acknowledged_at_ms = ?, note = ? WHERE id = ?",
                );
                let query = query.bind(by.actor.to_string()).bind(stored(by.now_ms()));
                execute(step, query.bind(by.note.clone()).bind(stored(*alert))).await?;
                say(step, by, "alert.acknowledge", *alert, json!({ "note": by.note })).await?;
            }
            Effect::Resolve { alert, why, was_told } => {
                let query = sqlx::query("UPDATE alerts SET resolved_at_ms = ? WHERE id = ?");
                execute(step, query.bind(stored(by.now_ms())).bind(stored(*alert))).await?;
                say(step, by, "alert.resolve", *alert, json!({ "why": why })).await?;
                if *was_told {
                    let id = format!("alert-{alert}-resolved");
                    dropped += tell(step, by, *alert, id, TellingKind::Resolved).await?;
                }
                let old =
                    sqlx::query("DELETE FROM alerts WHERE resolved_at_ms IS NOT NULL AND id <= ?");
                execute(step, old.bind(stored(alert.saturating_sub(RESOLVED_MAX)))).await?;
            }
            Effect::Know { rule, subject, group } => {
                let query = sqlx::query(
                    "INSERT INTO alert_known VALUES (?, ?, ?)
                     ON CONFLICT (rule, subject) DO UPDATE SET under = excluded.under",
                );
                let query = query.bind(rule.clone()).bind(subject.clone()).bind(group.clone());
                execute(step, query).await?;
            }
            Effect::Forget { rule, subject } => {
                let query = sqlx::query("DELETE FROM alert_known WHERE rule = ? AND subject = ?");
                execute(step, query.bind(rule.clone()).bind(subject.clone())).await?;
            }
        }
    }
    Ok(dropped)
}

impl Writing {
    pub fn now_ms(&self) -> Ms {
        u64::try_from(self.now.as_us() / 1000).unwrap_or(0)
    }
}

async fn raise(step: &mut Step<'_>, raised: &Raised, by: &Writing) -> Result<(), RegistryError> {
    let Raised { alert, rule, subject, sum, since, flaps } = raised;
    let sentence = rule::sentence(rule, subject, sum);
    let query = sqlx::query(
        "INSERT INTO alerts (id, rule, subject, sentence, priority, value, count, since_ms, raised_at_ms, flaps, runbook)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(stored(*alert)).bind(rule.id.clone()).bind(subject.clone());
    let query = query.bind(sentence.clone()).bind(rule.priority.as_str());
    let query = query.bind(sum.value.is_finite().then_some(sum.value)).bind(stored(sum.count));
    let query = query.bind(stored(*since)).bind(stored(by.now_ms())).bind(i64::from(*flaps));
    execute(step, query.bind(rule.runbook.clone())).await?;
    let detail = json!({
        "rule": rule.id,
        "of": subject,
        "priority": rule.priority.as_str(),
        "sentence": sentence,
        "count": sum.count,
    });
    say(step, by, "alert.raise", *alert, detail).await
}

async fn say(
    step: &mut Step<'_>,
    by: &Writing,
    action: &str,
    alert: u64,
    detail: Value,
) -> Result<(), RegistryError> {
    let said: Said = said(by.now, &by.actor, action, format!("alert/{alert}"), detail);
    step.say(said).await.map(drop)
}

async fn tell(
    step: &mut Step<'_>,
    by: &Writing,
    alert: u64,
    id: String,
    kind: TellingKind,
) -> Result<u64, RegistryError> {
    if by.targets.is_empty() {
        return Ok(0);
    }
    let row = sqlx::query("SELECT * FROM alerts WHERE id = ?").bind(stored(alert));
    let row = row.fetch_one(step.tx()).await.map_err(RegistryError::Read)?;
    let alert = alert_of(&row)?;
    let priority = alert.priority;
    let (site, at_ms) = (by.site.clone(), by.now_ms());
    let telling = Telling { id, site, kind, at_ms, alert: Some(alert), report: None };
    queue(step, by, &telling, |target| priority <= target.from_priority).await
}

/// Puts a telling into the queue of each target that hears it. Returns for how many there was no room.
pub async fn queue(
    step: &mut Step<'_>,
    by: &Writing,
    telling: &Telling,
    hears: impl Fn(&Target) -> bool,
) -> Result<u64, RegistryError> {
    let body = serde_json::to_string(telling).expect("the API's types have a JSON form");
    let mut dropped = 0;
    for target in by.targets.iter().filter(|target| hears(target)) {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM tellings WHERE target = ?")
            .bind(target.id.clone())
            .fetch_one(step.tx())
            .await
            .map_err(RegistryError::Read)?;
        if waiting >= TELLINGS_MAX {
            dropped += 1;
            continue;
        }
        let query =
            sqlx::query("INSERT INTO tellings VALUES (?, ?, ?, 0, ?, ?) ON CONFLICT DO NOTHING");
        let query = query.bind(target.id.clone()).bind(telling.id.clone()).bind(body.clone());
        execute(step, query.bind(stored(by.now_ms())).bind(stored(by.now_ms()))).await?;
    }
    Ok(dropped)
}

/// A page of alerts, newest first, as the table has them.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub state: Option<&'static str>,
    pub priority: Option<Priority>,
    pub after: Option<u64>,
    pub limit: usize,
}

/// The states that a page can be asked for, and what they are in the table.
pub const STATES: [(&str, &str); 4] = [
    ("firing", "resolved_at_ms IS NULL AND acknowledged_at_ms IS NULL"),
    ("acknowledged", "resolved_at_ms IS NULL AND acknowledged_at_ms IS NOT NULL"),
    ("open", "resolved_at_ms IS NULL"),
    ("resolved", "resolved_at_ms IS NOT NULL"),
];

pub async fn page(
    tx: &mut SqliteConnection,
    page: Page,
) -> Result<(Vec<Alert>, u64), RegistryError> {
    let state = STATES.iter().find(|(name, _)| Some(*name) == page.state);
    let state = state.map_or("1", |(_, sql)| *sql);
    // What is put in is one of the texts above.
    let sql = format!(
        "SELECT * FROM alerts WHERE {state} AND (?1 IS NULL OR priority = ?1) AND id < ?2 ORDER BY id DESC LIMIT ?3"
    );
    let after = page.after.and_then(|after| i64::try_from(after).ok()).unwrap_or(i64::MAX);
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(page.priority.map(Priority::as_str))
        .bind(after)
        .bind(i64::try_from(page.limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *tx)
        .await
        .map_err(RegistryError::Read)?;
    let firing = next(
        tx,
        "SELECT count(*) FROM alerts WHERE resolved_at_ms IS NULL AND acknowledged_at_ms IS NULL",
    );
    let firing = firing.await?;
    Ok((rows.iter().map(alert_of).collect::<Result<_, _>>()?, firing))
}

pub async fn one(tx: &mut SqliteConnection, id: u64) -> Result<Option<Alert>, RegistryError> {
    let Ok(id) = i64::try_from(id) else { return Ok(None) };
    let row = sqlx::query("SELECT * FROM alerts WHERE id = ?").bind(id).fetch_optional(tx).await;
    row.map_err(RegistryError::Read)?.as_ref().map(alert_of).transpose()
}

/// As the table has it: what only the core knows is put in by the caller.
fn alert_of(row: &SqliteRow) -> Result<Alert, RegistryError> {
    let acknowledged_at_ms: Option<u64> = maybe(row, "acknowledged_at_ms")?;
    let resolved_at_ms: Option<u64> = maybe(row, "resolved_at_ms")?;
    let priority = text(row, "priority")?;
    let priority = Priority::from_word(&priority)
        .ok_or_else(|| RegistryError::Unreadable(format!("a priority {priority:?}")))?;
    let state = match (resolved_at_ms, acknowledged_at_ms) {
        (Some(_), _) => "resolved",
        (None, Some(_)) => "acknowledged",
        (None, None) => "firing",
    };
    Ok(Alert {
        id: number(row, "id")?,
        rule: text(row, "rule")?,
        subject: text(row, "subject")?,
        sentence: text(row, "sentence")?,
        priority,
        state: state.to_owned(),
        value: row.try_get("value").map_err(RegistryError::Read)?,
        since_ms: number(row, "since_ms")?,
        acknowledged_by: row.try_get("acknowledged_by").map_err(RegistryError::Read)?,
        acknowledged_at_ms,
        note: row.try_get("note").map_err(RegistryError::Read)?,
        resolved_at_ms,
        escalates_at_ms: None,
        silenced_until_ms: None,
        runbook: row.try_get("runbook").map_err(RegistryError::Read)?,
        count: number(row, "count")?,
    })
}

pub async fn add_silence(
    step: &mut Step<'_>,
    id: u64,
    what: &NewSilence,
    by: &Writing,
) -> Result<(), RegistryError> {
    let query = sqlx::query("INSERT INTO silences VALUES (?, ?, ?, ?, ?, ?, ?, NULL)");
    let query = query.bind(stored(id)).bind(what.rule.clone()).bind(what.subject.clone());
    let query = query.bind(stored(what.until_ms)).bind(what.reason.clone());
    execute(step, query.bind(by.actor.to_string()).bind(stored(by.now_ms()))).await?;
    let detail = json!({
        "rule": what.rule,
        "of": what.subject,
        "until_ms": what.until_ms,
        "reason": what.reason,
    });
    let subject = format!("silence/{id}");
    step.say(said(by.now, &by.actor, "silence.begin", subject, detail)).await.map(drop)
}

pub async fn end_silence(step: &mut Step<'_>, id: u64, by: &Writing) -> Result<(), RegistryError> {
    let query = sqlx::query("UPDATE silences SET ended_at_ms = ? WHERE id = ?");
    execute(step, query.bind(stored(by.now_ms())).bind(stored(id))).await?;
    let subject = format!("silence/{id}");
    step.say(said(by.now, &by.actor, "silence.end", subject, json!({}))).await.map(drop)
}

/// The newest silences, those that hold first.
pub async fn silences(
    tx: &mut SqliteConnection,
    now: Ms,
    max: usize,
) -> Result<Vec<Shown>, RegistryError> {
    let rows = sqlx::query(
        "SELECT * FROM silences ORDER BY (ended_at_ms IS NULL AND until_ms > ?) DESC, id DESC LIMIT ?",
    )
    .bind(stored(now))
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .fetch_all(tx)
    .await
    .map_err(RegistryError::Read)?;
    rows.iter().map(shown).collect()
}

pub async fn one_silence(
    tx: &mut SqliteConnection,
    id: u64,
) -> Result<Option<Shown>, RegistryError> {
    let Ok(id) = i64::try_from(id) else { return Ok(None) };
    let row = sqlx::query("SELECT * FROM silences WHERE id = ?").bind(id).fetch_optional(tx).await;
    row.map_err(RegistryError::Read)?.as_ref().map(shown).transpose()
}

fn shown(row: &SqliteRow) -> Result<Shown, RegistryError> {
    Ok(Shown {
        id: number(row, "id")?,
        what: NewSilence {
            rule: row.try_get("rule").map_err(RegistryError::Read)?,
            subject: row.try_get("subject").map_err(RegistryError::Read)?,
            until_ms: number(row, "until_ms")?,
            reason: text(row, "reason")?,
        },
        by: text(row, "by")?,
        at_ms: number(row, "at_ms")?,
        ended_at_ms: maybe(row, "ended_at_ms")?,
    })
}

pub async fn put_rule(step: &mut Step<'_>, rule: &Rule, by: &Writing) -> Result<(), RegistryError> {
    let body = serde_json::to_string(rule).expect("the API's types have a JSON form");
    // The rule itself may be longer than an event: its digest says which one it was.
    let detail = json!({
        "sha256": trust::digest(body.as_bytes()).to_string(),
        "enabled": rule.enabled,
        "priority": rule.priority.as_str(),
    });
    let query = sqlx::query(
        "INSERT INTO alert_rules VALUES (?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET body = excluded.body, at_ms = excluded.at_ms",
    );
    execute(step, query.bind(rule.id.clone()).bind(body).bind(stored(by.now_ms()))).await?;
    let subject = format!("alert-rule/{}", rule.id);
    step.say(said(by.now, &by.actor, "rule.change", subject, detail)).await.map(drop)
}

pub async fn delete_rule(step: &mut Step<'_>, id: &str, by: &Writing) -> Result<(), RegistryError> {
    let query = sqlx::query("DELETE FROM alert_rules WHERE id = ?");
    execute(step, query.bind(id.to_owned())).await?;
    let subject = format!("alert-rule/{id}");
    step.say(said(by.now, &by.actor, "rule.change", subject, json!({ "deleted": true })))
        .await
        .map(drop)
}

/// Makes a target or changes it. What it shares with nobody else is in no event.
pub async fn put_target(
    step: &mut Step<'_>,
    target: &Target,
    by: &Writing,
) -> Result<(), RegistryError> {
    let body = serde_json::to_string(target).expect("the API's types have a JSON form");
    let way = match target.way {
        Way::Webhook { .. } => "webhook",
        Way::Mail { .. } => "mail",
    };
    let detail = json!({
        "way": way,
        "from_priority": target.from_priority.as_str(),
        "reports": target.reports,
    });
    let query = sqlx::query(
        "INSERT INTO targets VALUES (?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET body = excluded.body, at_ms = excluded.at_ms",
    );
    execute(step, query.bind(target.id.clone()).bind(body).bind(stored(by.now_ms()))).await?;
    let subject = format!("alert-target/{}", target.id);
    step.say(said(by.now, &by.actor, "target.change", subject, detail)).await.map(drop)
}

/// What waits for it goes with it.
pub async fn delete_target(
    step: &mut Step<'_>,
    id: &str,
    by: &Writing,
) -> Result<(), RegistryError> {
    for sql in ["DELETE FROM targets WHERE id = ?", "DELETE FROM tellings WHERE target = ?"] {
        execute(step, sqlx::query(sql).bind(id.to_owned())).await?;
    }
    let (subject, detail) = (format!("alert-target/{id}"), json!({ "deleted": true }));
    step.say(said(by.now, &by.actor, "target.change", subject, detail)).await.map(drop)
}

/// How many tellings wait for each target.
pub async fn queues(tx: &mut SqliteConnection) -> Result<BTreeMap<String, u64>, RegistryError> {
    let rows = rows(tx, "SELECT target, count(*) AS count FROM tellings GROUP BY target").await?;
    rows.iter().map(|row| Ok((text(row, "target")?, number(row, "count")?))).collect()
}

/// What waits for a target.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub telling: Telling,
    pub tries: u32,
    pub made_at_ms: Ms,
}

/// What is due for a target, oldest first.
pub async fn waiting(
    tx: &mut SqliteConnection,
    target: &str,
    now: Ms,
    max: usize,
) -> Result<Vec<Waiting>, RegistryError> {
    let rows = sqlx::query(
        "SELECT * FROM tellings WHERE target = ? AND next_at_ms <= ? ORDER BY made_at_ms, id LIMIT ?",
    )
    .bind(target)
    .bind(stored(now))
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .fetch_all(tx)
    .await
    .map_err(RegistryError::Read)?;
    let waiting = rows.iter().map(|row| {
        let telling = parsed(row, "a telling")?;
        let tries = u32::try_from(number(row, "tries")?).unwrap_or(u32::MAX);
        Ok(Waiting { telling, tries, made_at_ms: number(row, "made_at_ms")? })
    });
    waiting.collect()
}

/// After an attempt: when the next one is, or that there is none.
pub async fn settle(
    step: &mut Step<'_>,
    target: &str,
    telling: &str,
    next_at: Option<Ms>,
) -> Result<(), RegistryError> {
    let query = match next_at {
        Some(next_at) => sqlx::query(
            "UPDATE tellings SET tries = tries + 1, next_at_ms = ?3 WHERE target = ?1 AND id = ?2",
        )
        .bind(target.to_owned())
        .bind(telling.to_owned())
        .bind(stored(next_at)),
        None => sqlx::query("DELETE FROM tellings WHERE target = ?1 AND id = ?2")
            .bind(target.to_owned())
            .bind(telling.to_owned()),
    };
    execute(step, query).await.map(drop)
}

/// Whether the report of that week is still to be made: it was not, and the site was there before the week ended.
pub async fn is_report_wanted(tx: &mut SqliteConnection, until: Ms) -> Result<bool, RegistryError> {
    let wanted: bool = sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT 1 FROM reports WHERE until_ms >= ?1)
            AND coalesce((SELECT at_ms FROM events WHERE sequence = 0) < ?1, false)",
    )
    .bind(stored(until))
    .fetch_one(tx)
    .await
    .map_err(RegistryError::Read)?;
    Ok(wanted)
}

/// Reports that are kept: two years of them.
const REPORTS_MAX: i64 = 104;

/// Keeps a report, and says whether it is the first of that week.
pub async fn add_report(
    step: &mut Step<'_>,
    report: &WeeklyReport,
    by: &Writing,
) -> Result<bool, RegistryError> {
    let body = serde_json::to_string(report).expect("the API's types have a JSON form");
    let query = sqlx::query("INSERT INTO reports VALUES (?, ?, ?) ON CONFLICT DO NOTHING");
    let query = query.bind(stored(report.until_ms)).bind(body).bind(stored(by.now_ms()));
    if execute(step, query).await? == 0 {
        return Ok(false);
    }
    let old = sqlx::query(
        "DELETE FROM reports WHERE until_ms NOT IN (SELECT until_ms FROM reports ORDER BY until_ms DESC LIMIT ?)",
    );
    execute(step, old.bind(REPORTS_MAX)).await?;
    let subject = format!("report/{}", report.until_ms);
    let detail = json!({ "from_ms": report.from_ms, "until_ms": report.until_ms });
    step.say(said(by.now, &by.actor, "report.make", subject, detail)).await?;
    Ok(true)
}

/// The report that went out for that moment, if one did.
pub async fn report(
    tx: &mut SqliteConnection,
    until: Ms,
) -> Result<Option<WeeklyReport>, RegistryError> {
    let row = sqlx::query("SELECT body FROM reports WHERE until_ms = ?").bind(stored(until));
    let row = row.fetch_optional(tx).await.map_err(RegistryError::Read)?;
    row.as_ref().map(|row| parsed(row, "a report")).transpose()
}

/// What the registry knows of a week.
#[derive(Clone, Debug, Default)]
pub struct OfWeek {
    pub alerts_by_priority: BTreeMap<String, u64>,
    pub acknowledged_after_ms: Option<u64>,
    pub acts: BTreeMap<String, u64>,
}

pub async fn of_week(
    tx: &mut SqliteConnection,
    from: Ms,
    until: Ms,
) -> Result<OfWeek, RegistryError> {
    let between = |sql: &'static str| sqlx::query(sql).bind(stored(from)).bind(stored(until));
    let read = RegistryError::Read;
    let priorities = between(
        "SELECT priority AS name, count(*) AS count FROM alerts
         WHERE raised_at_ms >= ?1 AND raised_at_ms < ?2 GROUP BY priority",
    );
    let priorities = priorities.fetch_all(&mut *tx).await.map_err(read)?;
    let acts = between(
        "SELECT action AS name, count(*) AS count FROM events
         WHERE at_ms >= ?1 AND at_ms < ?2 GROUP BY action",
    );
    let acts = acts.fetch_all(&mut *tx).await.map_err(read)?;
    let median = between(
        "WITH after AS (
            SELECT acknowledged_at_ms - raised_at_ms AS ms,
                row_number() OVER (ORDER BY acknowledged_at_ms - raised_at_ms) AS place,
                count(*) OVER () AS count
            FROM alerts WHERE acknowledged_at_ms IS NOT NULL AND raised_at_ms >= ?1 AND raised_at_ms < ?2)
         SELECT ms FROM after WHERE place = (count + 1) / 2",
    );
    let median = median.fetch_optional(&mut *tx).await.map_err(read)?;
    let counted = |rows: &[SqliteRow]| {
        let counts = rows.iter().map(|row| Ok((text(row, "name")?, number(row, "count")?)));
        counts.collect::<Result<_, RegistryError>>()
    };
    Ok(OfWeek {
        alerts_by_priority: counted(&priorities)?,
        acknowledged_after_ms: median.map(|row| number(&row, "ms")).transpose()?,
        acts: counted(&acts)?,
    })
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

pub(super) async fn execute(step: &mut Step<'_>, query: Query<'_>) -> Result<u64, RegistryError> {
    let done = query.execute(step.tx()).await.map_err(RegistryError::Write)?;
    Ok(done.rows_affected())
}

async fn rows(
    tx: &mut SqliteConnection,
    sql: &'static str,
) -> Result<Vec<SqliteRow>, RegistryError> {
    sqlx::query(sql).fetch_all(tx).await.map_err(RegistryError::Read)
}

async fn next(tx: &mut SqliteConnection, sql: &'static str) -> Result<u64, RegistryError> {
    let next: i64 = sqlx::query_scalar(sql).fetch_one(tx).await.map_err(RegistryError::Read)?;
    u64::try_from(next).map_err(|_| RegistryError::Unreadable("a number below 0".into()))
}

fn parsed<T: serde::de::DeserializeOwned>(row: &SqliteRow, what: &str) -> Result<T, RegistryError> {
    let body = text(row, "body")?;
    // Not the body: it may hold what only its target may know.
    serde_json::from_str(&body).map_err(|error| {
        RegistryError::Unreadable(format!("{what} that is none, at byte {}", error.column()))
    })
}

pub(super) fn text(row: &SqliteRow, column: &str) -> Result<String, RegistryError> {
    row.try_get(column).map_err(RegistryError::Read)
}

pub(super) fn number(row: &SqliteRow, column: &str) -> Result<u64, RegistryError> {
    let number: i64 = row.try_get(column).map_err(RegistryError::Read)?;
    u64::try_from(number).map_err(|_| RegistryError::Unreadable(format!("{column} below 0")))
}

fn maybe(row: &SqliteRow, column: &str) -> Result<Option<u64>, RegistryError> {
    let number: Option<i64> = row.try_get(column).map_err(RegistryError::Read)?;
    let number = number.map(|number| {
        u64::try_from(number).map_err(|_| RegistryError::Unreadable(format!("{column} below 0")))
    });
    number.transpose()
}

/// A number as SQLite has it. Times beyond the year 292,000,000 are all the same.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// By id, with what differs from the shipped ones.
pub fn rules(changed: Vec<Rule>) -> BTreeMap<String, Rule> {
    let mut rules = rule::shipped().clone();
    rules.extend(changed.into_iter().map(|rule| (rule.id.clone(), rule)));
    rules
}
