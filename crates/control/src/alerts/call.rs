//! Alerts, silences and rules, as calls.

use super::step::State;
use super::table::{self, Page};
use super::{Act, AlertError, Done, driver, rule, tell};
use crate::call::{Call, expect_text, json_answer, no_content};
use crate::problem::Failure;
use crate::registry::{RegistryError, Work};
use crate::station::{Station, now};
use api::alert::{
    ALERTS_PAGE_MAX, Acknowledge, Alert, Alerts, NewSilence, Priority, Rule, Signal, Silences,
    Target, Targets,
};
use axum::http::StatusCode;
use axum::response::Response;

/// The longest SQL of a rule with every character escaped, and the rest.
const RULE_BYTES_MAX: usize = 128 * 1024;
const BODY_BYTES_MAX: usize = 4 * 1024;
/// Certificates in PEM, every line end escaped, and the rest.
const TARGET_BYTES_MAX: usize = 64 * 1024;
const NOTE_BYTES_MAX: usize = 1000;
const SILENCE_DAYS_MAX: u64 = 30;
const DAY_MS: u64 = 86_400_000;
/// Silences in the list: all that hold, and the newest of those that ended.
const LISTED_MAX: usize = 500;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// firing, acknowledged, open or resolved.
    state: Option<String>,
    /// critical, warning or notice.
    priority: Option<String>,
    /// The last id of the page before: `next` of its answer.
    after: Option<u64>,
    limit: Option<usize>,
}

pub(crate) async fn list(station: &Station, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    let which: Which = call.query_string()?;
    let bad = |expected: &str, found: &str| {
        let detail = format!("expected {expected}, found {found:?}");
        Failure::bad_request("bad_query_string", detail)
    };
    let state = which.state.map(|state| {
        let known = table::STATES.iter().find(|(name, _)| *name == state);
        let expected = "the state firing, acknowledged, open or resolved";
        known.map(|(name, _)| *name).ok_or_else(|| bad(expected, &state))
    });
    let priority = which.priority.map(|word| {
        let expected = "the priority critical, warning or notice";
        Priority::from_word(&word).ok_or_else(|| bad(expected, &word))
    });
    let limit = Call::page_limit(which.limit, ALERTS_PAGE_MAX, ALERTS_PAGE_MAX)?;
    let page = Page {
        state: state.transpose()?,
        priority: priority.transpose()?,
        after: which.after,
        // One more than is shown says whether there are more.
        limit: limit + 1,
    };
    let still = station.alerts.still().await;
    let read = station
        .registry
        .read(move |tx| -> Work<'_, _, RegistryError> { Box::pin(table::page(tx, page)) });
    let (mut alerts, firing) = read.await.map_err(|error| station.failed_to_store(error))?;
    let is_more = alerts.len() > limit;
    alerts.truncate(limit);
    let (state, now_ms) = (station.alerts.state(), now().as_ms());
    drop(still);
    alerts.iter_mut().for_each(|alert| complete(alert, &state, now_ms));
    let next = alerts.last().map(|last| last.id).filter(|_| is_more);
    Ok(json_answer(&Alerts { alerts, firing, next }))
}

/// What the table does not have: how it is at this moment.
fn complete(alert: &mut Alert, state: &State, now_ms: u64) {
    let open = state.open(&alert.rule, &alert.subject).filter(|open| open.alert == alert.id);
    let Some(open) = open else { return };
    alert.value = open.sum.value.is_finite().then_some(open.sum.value);
    alert.count = open.sum.count;
    alert.escalates_at_ms = state.escalates_at(&alert.rule, &alert.subject);
    alert.silenced_until_ms = state.silenced_until(&alert.rule, &alert.subject, now_ms);
    // After a restart nobody is named until the next look: then the sentence stays as it was told.
    if let Some(watched) = state.rule(&alert.rule).filter(|_| open.was_looked_at()) {
        alert.sentence = rule::sentence(&watched.rule, &alert.subject, &open.sum);
    }
}

pub(crate) async fn acknowledge(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let alert = call.number().await?;
    let Acknowledge { note } = call.json(BODY_BYTES_MAX).await?;
    if let Some(note) = &note {
        expect_text("note", note, NOTE_BYTES_MAX)?;
    }
    let act = Act::Acknowledge { alert, note };
    let done = station.alerts.act(act, &actor, now()).await.map_err(|e| failed(station, e))?;
    station.ledger.covered_if_soon(done.events).await;
    Ok(json_answer(&one(station, alert).await?))
}

async fn one(station: &Station, alert: u64) -> Result<Alert, Failure> {
    let _still = station.alerts.still().await;
    let read = station
        .registry
        .read(move |tx| -> Work<'_, _, RegistryError> { Box::pin(table::one(tx, alert)) });
    let known = read.await.map_err(|error| station.failed_to_store(error))?;
    let mut known = known.ok_or(AlertError::Unknown(alert))?;
    complete(&mut known, &station.alerts.state(), now().as_ms());
    Ok(known)
}

pub(crate) async fn silences(station: &Station, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    let now_ms = now().as_ms();
    let read = station.registry.read(move |tx| -> Work<'_, _, RegistryError> {
        Box::pin(table::silences(tx, now_ms, LISTED_MAX))
    });
    let silences = read.await.map_err(|error| station.failed_to_store(error))?;
    Ok(json_answer(&Silences { silences }))
}

pub(crate) async fn silence(station: &Station, call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let what: NewSilence = call.json(BODY_BYTES_MAX).await?;
    let at = now();
    check_silence(&what, at.as_ms())?;
    let act = Act::Silence(what);
    let done = station.alerts.act(act, &actor, at).await.map_err(|e| failed(station, e))?;
    let mut answer = shown_silence(station, done).await?;
    *answer.status_mut() = StatusCode::CREATED;
    Ok(answer)
}

fn check_silence(what: &NewSilence, now_ms: u64) -> Result<(), Failure> {
    let bad = |detail: String| Err(Failure::bad_request("bad_silence", detail));
    if what.rule.is_none() && what.subject.is_none() {
        return bad("expected a rule, a subject or both, found neither".into());
    }
    let latest = now_ms + SILENCE_DAYS_MAX * DAY_MS;
    if !(now_ms + 1..=latest).contains(&what.until_ms) {
        let found = what.until_ms;
        return bad(format!("until_ms: expected after {now_ms}, at most {latest}, found {found}"));
    }
    for (field, value) in [("rule", &what.rule), ("subject", &what.subject)] {
        if let Some(value) = value {
            expect_text(field, value, 200)?;
        }
    }
    expect_text("reason", &what.reason, NOTE_BYTES_MAX)
}

pub(crate) async fn end_silence(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let id = call.number().await?;
    let act = Act::EndSilence(id);
    let done = station.alerts.act(act, &actor, now()).await.map_err(|e| failed(station, e))?;
    shown_silence(station, Done { id, ..done }).await
}

async fn shown_silence(station: &Station, done: Done) -> Result<Response, Failure> {
    let read = station.registry.read(move |tx| -> Work<'_, _, RegistryError> {
        Box::pin(table::one_silence(tx, done.id))
    });
    let known = read.await.map_err(|error| station.failed_to_store(error))?;
    let known = known.ok_or(AlertError::UnknownSilence(done.id))?;
    station.ledger.covered_if_soon(done.events).await;
    Ok(json_answer(&known))
}

pub(crate) async fn rules(station: &Station, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    Ok(json_answer(&station.alerts.rules().await))
}

pub(crate) async fn put_rule(station: &Station, call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let rule: Rule = call.json(RULE_BYTES_MAX).await?;
    station.ledger.may_widen()?;
    rule::check(&rule).map_err(AlertError::from)?;
    // A question that has no answer now has none at night either: it is asked once before it counts.
    if rule.enabled
        && matches!(rule.signal, Signal::Sql(_))
        && let super::step::Event::Failed { why, .. } =
            driver::ask(&station.alerts, &rule, now().as_ms()).await
    {
        let bad = rule::BadRule {
            field: "signal.sql",
            expected: "SQL with columns `subject` and `value` that answers within 10 s".into(),
            found: why,
        };
        return Err(AlertError::from(bad).into());
    }
    let act = Act::Rule(rule.clone());
    let done = station.alerts.act(act, &actor, now()).await.map_err(|e| failed(station, e))?;
    station.ledger.covered(done.events).await?;
    Ok(json_answer(&rule))
}

pub(crate) async fn delete_rule(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let id = call.name().await?;
    station.ledger.may_widen()?;
    let act = Act::DeleteRule(id);
    let done = station.alerts.act(act, &actor, now()).await.map_err(|e| failed(station, e))?;
    station.ledger.covered(done.events).await?;
    Ok(no_content())
}

pub(crate) async fn targets(station: &Station, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    let targets = station.alerts.targets().await.map_err(|e| failed(station, e))?;
    Ok(json_answer(&Targets { targets }))
}

pub(crate) async fn put_target(station: &Station, call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let target: Target = call.secret_json(TARGET_BYTES_MAX).await?;
    station.ledger.may_widen()?;
    let id = target.id.clone();
    let act = Act::Target(target);
    let done = station.alerts.act(act, &actor, now()).await.map_err(|e| failed(station, e))?;
    station.ledger.covered(done.events).await?;
    shown_target(station, &id).await
}

pub(crate) async fn delete_target(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let act = Act::DeleteTarget(call.name().await?);
    station.ledger.may_widen()?;
    let done = station.alerts.act(act, &actor, now()).await.map_err(|e| failed(station, e))?;
    station.ledger.covered(done.events).await?;
    Ok(no_content())
}

pub(crate) async fn test_target(station: &Station, mut call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    let id = call.name().await?;
    let target = station.alerts.target(&id).await?;
    tell::test(&station.alerts, &target, now()).await.map_err(|why| {
        let title = "the target was not told";
        Failure::new(StatusCode::BAD_GATEWAY, "target_failed", title, why)
    })?;
    shown_target(station, &id).await
}

async fn shown_target(station: &Station, id: &str) -> Result<Response, Failure> {
    let targets = station.alerts.targets().await.map_err(|e| failed(station, e))?;
    let shown = targets.into_iter().find(|shown| shown.target.id == id);
    Ok(json_answer(&shown.ok_or_else(|| AlertError::UnknownTarget(id.to_owned()))?))
}

fn failed(station: &Station, error: AlertError) -> Failure {
    match error {
        AlertError::Registry(error) => station.failed_to_store(error),
        error => error.into(),
    }
}
