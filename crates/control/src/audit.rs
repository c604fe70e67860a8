//! What an operator or an auditor reads of what was done: events as a page, the log itself, and exports that prove.

use crate::call::{Call, json_answer, text};
use crate::problem::Failure;
use crate::station::Station;
use api::event::{EVENTS_PAGE_MAX, Event, Events};
use axum::http::StatusCode;
use axum::response::Response;
use evidence::{LogError, event};
use model::told;
use std::sync::Arc;

/// Events in one export. Their proofs are some 25 hashes each: well below what an export may have.
pub(crate) const EXPORT_EVENTS_MAX: usize = 10_000;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// The last number of the page before: `next` of its answer.
    after: Option<u64>,
    /// At most so many: 1 to 1,000, which is also what there are without it.
    limit: Option<usize>,
    /// Only those of this subject, as `device/pump-1`.
    subject: Option<String>,
}

pub(crate) async fn events(station: &Station, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    let Page { after, limit, subject } = call.query_string()?;
    let limit = Call::page_limit(limit, EVENTS_PAGE_MAX, EVENTS_PAGE_MAX)?;
    let from = after.map_or(0, |after| after.saturating_add(1));
    let found = station.registry.told(from, subject, limit + 1).await;
    let mut found = found.map_err(|error| station.failed_to_store(error))?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(evidence::Event::sequence);
    let events = found.iter().map(shown).collect();
    Ok(json_answer(&Events { events, covered: station.ledger.size(), next }))
}

fn shown(event: &evidence::Event) -> Event {
    Event {
        sequence: event.sequence(),
        at_ms: event.at_ms(),
        actor: event.actor().to_owned(),
        action: event.action().to_owned(),
        subject: event.subject().to_owned(),
        detail: serde_json::Value::Object(event.detail().clone()),
    }
}

pub(crate) async fn checkpoint(station: &Station, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    let checkpoint = station.ledger.reader().checkpoint();
    Ok(text("text/plain; charset=utf-8", checkpoint.note().to_owned()))
}

/// A tile or a bundle of entries, under its name in C2SP tlog-tiles.
pub(crate) async fn tile(station: &Station, mut call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    let name = call.name().await?;
    let reader = station.ledger.reader().clone();
    let size = reader.checkpoint().size();
    let found = off_the_loop(move || reader.resource(&format!("tile/{name}"))).await?;
    let found = found.map_err(|error| failed_to_read(&error))?;
    let bytes = found.ok_or_else(|| {
        let detail =
            format!("expected a tile of a log of {size} events, by its name in C2SP tlog-tiles");
        Failure::new(StatusCode::NOT_FOUND, "not_found", "there is no such tile", detail)
    })?;
    Ok(text("application/octet-stream", bytes))
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Only those of this subject, as `device/pump-1`.
    subject: Option<String>,
    /// The number of the first.
    #[serde(default)]
    from: u64,
    /// The number behind the last.
    to: Option<u64>,
    /// A checkpoint that the caller kept.
    since: Option<String>,
}

pub(crate) async fn export(station: &Arc<Station>, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    let Wanted { subject, from, to, since } = call.query_string()?;
    if subject.as_ref().is_some_and(|subject| subject.len() > event::NAME_BYTES_MAX) {
        let detail = format!("expected a subject of at most {} bytes", event::NAME_BYTES_MAX);
        return Err(Failure::bad_request("bad_query_string", detail));
    }
    let station = station.clone();
    let _one = station
        .ledger
        .exports
        .try_acquire()
        .map_err(|_| Failure::busy("expected one export at a time, found another under way"))?;
    let to = to.unwrap_or(u64::MAX).min(station.ledger.size());
    let found = station.registry.told(from, subject, EXPORT_EVENTS_MAX + 1).await;
    let found = found.map_err(|error| station.failed_to_store(error))?;
    let wanted: Vec<u64> =
        found.iter().map(evidence::Event::sequence).filter(|sequence| *sequence < to).collect();
    if wanted.len() > EXPORT_EVENTS_MAX {
        let detail = format!(
            "expected at most {EXPORT_EVENTS_MAX} events in an export, found more; the first {EXPORT_EVENTS_MAX} end \
             before event {}: ask for less with `to`, then go on `from` there",
            wanted[EXPORT_EVENTS_MAX]
        );
        let (status, title) = (StatusCode::UNPROCESSABLE_ENTITY, "the export would be too long");
        return Err(Failure::new(status, "too_large", title, detail));
    }
    let reader = station.ledger.reader().clone();
    let export = off_the_loop(move || reader.export(&wanted, since.as_deref())).await?;
    match export {
        Ok(export) => Ok(text("application/json", export)),
        Err(error @ (LogError::Checkpoint { .. } | LogError::NotEarlier { .. })) => {
            Err(Failure::bad_request("bad_checkpoint", told(&error)))
        }
        Err(error) => Err(failed_to_read(&error)),
    }
}

pub(crate) async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::internal(&error))
}

pub(crate) fn failed_to_read(error: &LogError) -> Failure {
    tracing::error!(error = %told(error), "the evidence log cannot be read");
    Failure::internal(error)
}
