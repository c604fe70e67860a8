//! The inventory as calls.

use super::index::{Filter, Found};
use super::table::{Asked, OF_GAPS, OF_LOSSES, Place};
use super::told::{self, Look};
use super::{Inventory, table};
use crate::audit::{failed_to_read, off_the_loop};
use crate::bundle;
use crate::call::{Call, json_answer};
use crate::directory::Device;
use crate::principal::Reach;
use crate::problem::Failure;
use crate::registry::RegistryError;
use crate::rollouts::call::software_of;
use crate::station::{Station, now};
use api::device::{self, DeviceLine, HISTORY_PAGE_MAX, History, INVENTORY_PAGE_MAX, Moment};
use api::{Ask, Base64, Cell, Query, Role, Standing};
use axum::http::StatusCode;
use axum::response::Response;
use model::DeviceId;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Without `limit`.
const PAGE: usize = 100;
/// How long the store may think about a device's gaps and losses.
const STORE_TIME_MAX: Duration = Duration::from_secs(5);
/// Open gaps that are told: a device's key has 64 at the most.
const GAPS_MAX: usize = 1000;

#[derive(Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Wanted {
    /// Anywhere in id or serial number, in any case.
    search: Option<String>,
    site: Option<String>,
    zone: Option<String>,
    group: Option<String>,
    standing: Option<Standing>,
    role: Option<Role>,
    version: Option<String>,
    /// By which it was heard last.
    gateway: Option<String>,
    /// Not heard for so many seconds.
    silent_s: Option<u64>,
    /// The last id of the page before: `next` of its answer.
    after: Option<String>,
    /// At most so many: 1 to 1,000; 100 without it.
    limit: Option<usize>,
}

impl Wanted {
    fn filter(self) -> Filter {
        let ago = |s: u64| now().as_ms().saturating_sub(s.saturating_mul(1000));
        // An empty word is a field that nobody has filled in.
        let word = |word: Option<String>| word.filter(|word| !word.is_empty());
        Filter {
            search: self.search.unwrap_or_default().to_lowercase(),
            site: word(self.site),
            zone: word(self.zone),
            group: word(self.group),
            standing: self.standing,
            role: self.role,
            version: word(self.version),
            gateway: word(self.gateway),
            silent_since_ms: self.silent_s.map(ago),
        }
    }
}

pub(crate) async fn list(station: &Station, call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    let mut wanted: Wanted = call.query_string()?;
    let limit = Call::page_limit(wanted.limit, PAGE, INVENTORY_PAGE_MAX)?;
    let after = wanted.after.take();
    let found = station.inventory.find(wanted.filter(), reach, after, limit).await;
    let Found { devices, total, next } = found.ok_or_else(ends)?;
    Ok(json_answer(&device::Inventory { devices, total, next }))
}

pub(crate) async fn summary(station: &Station, call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    let wanted: Wanted = call.query_string()?;
    if wanted.after.is_some() || wanted.limit.is_some() {
        let detail =
            "expected no `after` and no `limit`: a summary is of all that the filter holds for";
        return Err(Failure::bad_request("bad_query_string", detail));
    }
    let summary = station.inventory.count(wanted.filter(), reach).await.ok_or_else(ends)?;
    Ok(json_answer(&summary))
}

pub(crate) async fn one(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (device, line) = within_reach(station, &mut call).await?;
    Ok(json_answer(&shown(station, &device, line)))
}

fn shown(station: &Station, device: &Device, line: DeviceLine) -> device::Device {
    let kept = station.rollouts.book().manifest(&device.id).cloned();
    let software = kept.map(|kept| software_of(&device.id, &kept));
    let concerns = told::concerns(Look {
        device,
        seen_at_ms: line.seen_at_ms,
        software: software.as_ref(),
        left_out: bundle::left_out(device, station.keys.seal_max),
        life: station.limits.certificate_life,
        now: now(),
    });
    device::Device { line, identity: device.shown(), software, concerns }
}

/// The device of the path, if whoever asks may see it. To others it is as if there were none.
pub(crate) async fn within_reach(
    station: &Station,
    call: &mut Call,
) -> Result<(Arc<Device>, DeviceLine), Failure> {
    let (_, reach) = call.person_within(station)?;
    let id = call.name().await?;
    device_within(station, &reach, id)
}

pub(crate) fn device_within(
    station: &Station,
    reach: &Reach,
    id: String,
) -> Result<(Arc<Device>, DeviceLine), Failure> {
    let id = DeviceId::new(id)?;
    let line = station.inventory.line(&id).filter(|line| reach.covers(&line.site));
    let device = station.registry.directory().device(&id).cloned();
    device.zip(line).ok_or_else(|| {
        let detail = format!("expected the id of a device that is listed, found `{id}`");
        Failure::new(StatusCode::NOT_FOUND, "unknown_device", "no such device", detail)
    })
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// From this time on.
    #[serde(default)]
    from_ms: u64,
    /// Up to this time.
    to_ms: Option<u64>,
    /// key, firmware, gateway, standing, refusal, gap, rollout or act.
    kind: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// At most so many; 100 without it.
    limit: Option<usize>,
}

/// What a moment can be.
pub(crate) const KINDS: [&str; 8] =
    ["key", "firmware", "gateway", "standing", "refusal", "gap", "rollout", "act"];

pub(crate) async fn history(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (device, _) = within_reach(station, &mut call).await?;
    let Page { from_ms, to_ms, kind, after, limit: found } = call.query_string()?;
    let bad = |detail: String| Failure::bad_request("bad_query_string", detail);
    if let Some(found) = kind.as_deref().filter(|kind| !KINDS.contains(kind)) {
        return Err(bad(format!("expected a kind of {}, found {found:?}", KINDS.join(", "))));
    }
    let after = after
        .map(|after| place(&after).ok_or(after))
        .transpose()
        .map_err(|found| bad(format!("expected an `after` as `next` said it, found {found:?}")))?;
    let max = Call::page_limit(found, PAGE, HISTORY_PAGE_MAX)?;
    let asked = Asked {
        device: device.id.clone(),
        from_ms,
        to_ms: to_ms.unwrap_or(u64::MAX),
        kind,
        after: after.unwrap_or(Place { at_ms: 0, source: 0, number: 0 }),
        max: max + 1,
    };
    let (mut moments, missing) = station
        .inventory
        .moments(&device, asked, &*station.query)
        .await
        .map_err(|error| station.failed_to_store(error))?;
    let is_more = moments.len() > max;
    moments.truncate(max);
    let next = moments.last().filter(|_| is_more).map(|(last, _)| written(*last));
    let moments = moments.into_iter().map(|(_, moment)| moment).collect();
    Ok(json_answer(&History { device: device.id.to_string(), moments, missing, next }))
}

/// Steps of a life in one file. A device that had more has the newest in it, and that is said.
const FORENSICS_MOMENTS_MAX: usize = 10_000;

/// All that is known of a device, with what proves it.
pub(crate) async fn forensics(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (device, line) = within_reach(station, &mut call).await?;
    let _one = station
        .ledger
        .exports
        .try_acquire()
        .map_err(|_| Failure::busy("expected one export at a time, found another under way"))?;
    // What is told below is proven below.
    station.ledger.covered_if_soon(station.registry.events()).await;
    let from_the_first = Asked {
        device: device.id.clone(),
        from_ms: 0,
        to_ms: u64::MAX,
        kind: None,
        after: Place { at_ms: 0, source: 0, number: 0 },
        max: FORENSICS_MOMENTS_MAX + 1,
    };
    let failed = |error| station.failed_to_store(error);
    let moments = station.inventory.moments(&device, from_the_first, &*station.query).await;
    let (mut moments, mut missing) = moments.map_err(failed)?;
    if moments.len() > FORENSICS_MOMENTS_MAX {
        moments.truncate(FORENSICS_MOMENTS_MAX);
        let last = told::at(moments.last().map_or(0, |(last, _)| last.at_ms));
        missing.push(format!("what came after {last}: ask for its history from there on"));
    }
    let history: Vec<Moment> = moments.into_iter().map(|(_, moment)| moment).collect();
    let mut events: Vec<u64> = history.iter().filter_map(|moment| moment.event).collect();
    events.sort_unstable();
    let covered = events.partition_point(|event| *event < station.ledger.size());
    if covered < events.len() {
        let left = events.len() - covered;
        missing
            .push(format!("the proof of {left} events, which the evidence log does not cover yet"));
    }
    events.truncate(covered);
    let reader = station.ledger.reader().clone();
    let evidence = off_the_loop(move || reader.export(&events, None)).await?;
    let evidence = evidence.map_err(|error| failed_to_read(&error))?;
    let id = device.id.clone();
    let read = station
        .registry
        .read(move |tx| Box::pin(async move { table::certificates(tx, &id).await }));
    let certificates = read.await.map_err(failed)?;
    Ok(json_answer(&device::Forensics {
        plimsoll_forensics: device::FORENSICS_VERSION,
        site: station.terms.site.clone(),
        made_at_ms: now().as_ms(),
        device: shown(station, &device, line),
        certificates,
        authority: Base64(station.authority.certificate_der().to_vec()),
        history,
        missing,
        evidence: String::from_utf8(evidence).expect("an export is JSON, which is UTF-8"),
    }))
}

impl Inventory {
    /// A part of a device's history, oldest first; and what could not be asked, each in a sentence. Of each source there are
    /// `asked.max` moments at the most, so the first `asked.max` of all are the first of all.
    pub(crate) async fn moments(
        &self,
        device: &Device,
        asked: Asked,
        query: &dyn Query,
    ) -> Result<(Vec<(Place, Moment)>, Vec<String>), RegistryError> {
        let reading = asked.clone();
        let read = self.registry().read(move |tx| {
            Box::pin(async move {
                let events = table::events(&mut *tx, &reading).await?;
                let keys = match reading.wants("key") {
                    true => table::keys_told(&mut *tx, &reading.device).await?,
                    false => HashSet::new(),
                };
                Ok::<_, RegistryError>((events, keys, table::beside(&mut *tx, &reading).await?))
            })
        });
        let (events, keys, mut moments) = read.await?;
        moments.extend(events.into_iter().map(told::told));
        if asked.wants("key") {
            moments.extend(told::keys(device, |key| keys.contains(&key.shown_id())));
        }
        let mut missing = Vec::new();
        if asked.wants("gap") {
            match lost(&asked, query).await {
                Ok(lost) => moments.extend(lost),
                Err(why) => {
                    missing.push(format!("gaps and losses: the store gave no answer: {why}"))
                }
            }
        }
        let is_asked = |(place, moment): &(Place, Moment)| {
            *place > asked.after && (asked.from_ms..=asked.to_ms).contains(&moment.at_ms)
        };
        moments.retain(is_asked);
        moments.sort_by_key(|(place, _)| *place);
        Ok((moments, missing))
    }
}

/// Counters of which nobody has the message: those that the device gave up, and those that are open now.
async fn lost(asked: &Asked, query: &dyn Query) -> Result<Vec<(Place, Moment)>, String> {
    let device = asked.device.as_str();
    let from_ms = asked.from_ms.max(asked.after.at_ms).min(i64::MAX as u64 / 1000);
    let losses = format!(
        "SELECT received_at, key, epoch, first, last, cause FROM losses WHERE device = '{device}' \
         AND received_at >= to_timestamp_millis({from_ms}) ORDER BY received_at, epoch, first, last"
    );
    // Among those of one time the place is the row's own among them: all of them are asked for.
    let more = usize::try_from(asked.after.number).unwrap_or(usize::MAX).min(GAPS_MAX);
    let mut moments: Vec<(Place, Moment)> = Vec::new();
    for row in rows(query, losses, asked.max + more).await? {
        let [at, rest @ ..] = row.as_slice() else { return Err("a row of no columns".into()) };
        let at_ms = at.as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let at_ms = at_ms.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        let at_ms = at_ms.ok_or_else(|| format!("expected a time, found {at}"))?;
        let before = moments.last().map(|(place, _)| *place).filter(|last| last.at_ms == at_ms);
        let number = before.map_or(1, |before| before.number + 1);
        moments.push(gap(Place { at_ms, source: OF_LOSSES, number }, rest)?);
    }
    let now_ms = now().as_ms();
    if asked.to_ms >= now_ms {
        let gaps = format!(
            "SELECT key, epoch, first, last FROM gaps WHERE device = '{device}' ORDER BY key, epoch, first"
        );
        // They are open now: that is their time, also on the next page.
        let at_ms = if asked.after.source == OF_GAPS { asked.after.at_ms } else { now_ms };
        for (row, number) in rows(query, gaps, GAPS_MAX).await?.iter().zip(1..) {
            moments.push(gap(Place { at_ms, source: OF_GAPS, number }, row)?);
        }
    }
    Ok(moments)
}

fn gap(place: Place, row: &[Cell]) -> Result<(Place, Moment), String> {
    let (key, epoch, first, last, cause) = match row {
        [key, epoch, first, last, cause] => (key, epoch, first, last, Some(cause)),
        [key, epoch, first, last] => (key, epoch, first, last, None),
        row => return Err(format!("expected four or five columns, found {}", row.len())),
    };
    let number =
        |cell: &Cell| cell.as_u64().ok_or_else(|| format!("expected a number, found {cell}"));
    let (from, to) = (number(first)?, number(last)?);
    let count = to.saturating_sub(from).saturating_add(1);
    let messages = if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
    let range = format!("{messages} of epoch {epoch}, {from} to {to}");
    let cause_word = cause.and_then(Cell::as_str);
    let sentence = match cause_word {
        Some(cause) => format!("{range}: lost, {}", cause.replace('_', " ")),
        None => format!("{range}: not here yet, and nobody has said that they are lost"),
    };
    let mut detail = json!({ "key": key, "epoch": epoch, "from": from, "to": to, "count": count });
    if let Some(cause) = cause_word {
        detail["reason"] = cause.into();
    }
    let Value::Object(detail) = detail else { unreachable!("it is written as an object above") };
    let (at_ms, kind) = (place.at_ms, "gap".to_owned());
    Ok((place, Moment { at_ms, kind, sentence, actor: None, event: None, detail }))
}

async fn rows(query: &dyn Query, sql: String, max: usize) -> Result<Vec<Vec<Cell>>, String> {
    let time_max_ms = u64::try_from(STORE_TIME_MAX.as_millis()).ok();
    let ask = Ask { sql, rows_max: Some(max), time_max_ms };
    match tokio::time::timeout(STORE_TIME_MAX, query.query(ask, None)).await {
        Ok(Ok(answer)) => Ok(answer.rows),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not within {} s", STORE_TIME_MAX.as_secs())),
    }
}

/// A place as it stands in `next`.
fn written(Place { at_ms, source, number }: Place) -> String {
    format!("{at_ms}.{source}.{number}")
}

fn place(text: &str) -> Option<Place> {
    let mut parts = text.split('.');
    let at_ms = parts.next()?.parse().ok()?;
    let source = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(Place { at_ms, source, number })
}

fn ends() -> Failure {
    Failure::busy("control is being stopped")
}
