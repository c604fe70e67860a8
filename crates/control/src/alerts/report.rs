//! The fleet's week in numbers, and that it goes out once a week by itself.
//!
//! | number | source |
//! | --- | --- |
//! | devices, enrolled, quarantined, revoked | the directory, when the report is made; gateways are not counted |
//! | heard, silent | `readings` of the week by `received_at`, and check-ins; of devices that are enrolled |
//! | versions | devices' newest signed manifests |
//! | rollouts | those that were created in the week or are under way, and what is known of their devices |
//! | alerts_by_priority, acknowledged_after_ms | alerts that were raised in the week |
//! | readings, quarantined_messages | SQL over the week by `received_at`; gaps: SQL, those that are open when it is made |
//! | acts | events of the week, by action |
//! | violations | `plimsoll_invariant_violations_total`, since control began |
//!
//! A number that could not be had is 0, and `notes` says so and why.

use super::page;
use super::step::Ms;
use super::table::{self, Writing};
use crate::call::{Call, json_answer, text};
use crate::metrics::families;
use crate::problem::Failure;
use crate::registry::{RegistryError, Work};
use crate::station::{Phase, Station, now};
use api::alert::{ReportedRollout, Telling, TellingKind, WeeklyReport};
use api::{Answer, Ask, Cell, Role, Standing};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use model::{Timestamp, told};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub const WEEK_MS: Ms = 7 * 86_400_000;
const DAY_MS: Ms = 86_400_000;
const HOUR_MS: Ms = 3_600_000;
/// Mondays at six: who comes to work has it there. 1970 began on a Thursday.
const MONDAY_SIX_MS: Ms = 4 * DAY_MS + 6 * HOUR_MS;
/// Once a week nobody minds a question that takes its time.
const QUESTION_TIME_MAX_MS: u64 = 60_000;
const ROWS_MAX: usize = 100_000;
/// Names in the list of devices that were not heard.
const SILENT_MAX: usize = 200;
const ROLLOUTS_MAX: usize = 100;
/// How often it is looked whether a report is due.
const WAKE_EVERY: Duration = Duration::from_secs(60);

/// The newest end of a week that is not after `now`.
pub fn due(now: Ms) -> Ms {
    match now.checked_sub(MONDAY_SIX_MS) {
        Some(since_first) => now - since_first % WEEK_MS,
        None => 0,
    }
}

pub(crate) async fn run(station: Arc<Station>) {
    let mut draining = std::pin::pin!(station.reached(Phase::Draining));
    loop {
        tokio::select! {
            () = send_if_due(&station, now()) => {}
            () = draining.as_mut() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(WAKE_EVERY) => {}
            () = draining.as_mut() => return,
        }
    }
}

/// Makes the report of the last week that has ended, once, and hands it to the targets that want it, in one transaction. A
/// site that was not there yet when the week ended has none.
pub(super) async fn send_if_due(station: &Station, at: Timestamp) {
    let until = due(at.as_ms());
    let read = station.registry.read(move |tx| -> Work<'_, bool, RegistryError> {
        Box::pin(async move { table::is_report_wanted(tx, until).await })
    });
    let sent = async {
        if !read.await? {
            return Ok(());
        }
        let report = make(station, until, at).await?;
        let turn = station.alerts.0.turn.lock().await;
        let writing = station.alerts.writing(&turn, at);
        drop(turn);
        keep(station, report, writing).await
    };
    if let Err(error) = sent.await {
        tracing::error!(error = %told(&error), "the weekly report is not made; it is tried again in a minute");
    }
}

async fn keep(
    station: &Station,
    report: WeeklyReport,
    writing: Writing,
) -> Result<(), RegistryError> {
    let telling = Telling {
        id: format!("report-{}", report.until_ms),
        site: report.site.clone(),
        kind: TellingKind::Report,
        at_ms: writing.now_ms(),
        alert: None,
        report: Some(report.clone()),
    };
    let step = station.registry.step(move |step| -> Work<'_, u64, RegistryError> {
        Box::pin(async move {
            if !table::add_report(step, &report, &writing).await? {
                return Ok(0);
            }
            table::queue(step, &writing, &telling, |target| target.reports).await
        })
    });
    let done = step.await?;
    station.alerts.0.metrics.tellings.with_label_values(&["no_room"]).inc_by(done.value);
    station.alerts.0.queued.notify_one();
    Ok(())
}

/// What is asked of the store, with what could not be had.
struct Asked<'s> {
    station: &'s Station,
    notes: Vec<String>,
}

impl Asked<'_> {
    async fn rows(&mut self, what: &str, sql: String) -> Vec<Vec<Cell>> {
        let ask = Ask { sql, rows_max: Some(ROWS_MAX), time_max_ms: Some(QUESTION_TIME_MAX_MS) };
        let time_max = Duration::from_millis(QUESTION_TIME_MAX_MS + 1000);
        match tokio::time::timeout(time_max, self.station.query.query(ask, None)).await {
            Ok(Ok(Answer { rows, truncated, .. })) => {
                if truncated {
                    self.notes.push(format!(
                        "{what}: more than {} rows, the rest is left out",
                        rows.len()
                    ));
                }
                return rows;
            }
            Ok(Err(error)) => self.notes.push(format!("{what}: {error}")),
            Err(_) => self.notes.push(format!("{what}: not answered within {time_max:?}")),
        }
        Vec::new()
    }

    async fn number(&mut self, what: &str, sql: String) -> u64 {
        let rows = self.rows(what, sql).await;
        rows.first().and_then(|row| row.first()).and_then(Cell::as_u64).unwrap_or(0)
    }
}

/// The seven days before `until`, as far as it is known at `at`.
pub(super) async fn make(
    station: &Station,
    until: Ms,
    at: Timestamp,
) -> Result<WeeklyReport, RegistryError> {
    let from = until.saturating_sub(WEEK_MS);
    let week = format!(
        "received_at >= to_timestamp_millis({from}) and received_at < to_timestamp_millis({until})"
    );
    let mut asked = Asked { station, notes: Vec::new() };
    let heard = format!("select distinct device from readings where {week}");
    let heard = asked.rows("devices that were heard", heard).await;
    let heard: BTreeSet<String> = heard
        .into_iter()
        .filter_map(|row| row.first().and_then(Cell::as_str).map(str::to_owned))
        .collect();
    let readings = format!("select count(*) from readings where {week}");
    let readings = asked.number("readings", readings).await;
    let quarantined = format!("select count(*) from quarantine where {week}");
    let quarantined_messages = asked.number("messages in quarantine", quarantined).await;
    let gaps = asked.number("gaps", "select count(*) from gaps".to_owned()).await;
    let read = station.registry.read(move |tx| -> Work<'_, _, RegistryError> {
        Box::pin(async move { table::of_week(tx, from, until).await })
    });
    let kept = read.await?;
    let mut report = WeeklyReport {
        site: station.terms.site.clone(),
        from_ms: from,
        until_ms: until,
        made_at_ms: at.as_ms(),
        devices: 0,
        enrolled: 0,
        quarantined: 0,
        revoked: 0,
        heard: 0,
        silent: Vec::new(),
        versions: BTreeMap::new(),
        rollouts: rollouts(station, from, until),
        alerts_by_priority: kept.alerts_by_priority,
        acknowledged_after_ms: kept.acknowledged_after_ms,
        readings,
        gaps,
        quarantined_messages,
        acts: kept.acts,
        violations: violations(station),
        notes: asked.notes,
    };
    count_devices(station, &heard, &mut report);
    Ok(report)
}

fn count_devices(station: &Station, heard: &BTreeSet<String>, report: &mut WeeklyReport) {
    let directory = station.registry.directory();
    let book = station.rollouts.book();
    let mut unheard = 0usize;
    for device in directory.devices(None).filter(|device| device.role == Role::Device) {
        report.devices += 1;
        let manifest = book.manifest(&device.id);
        if let Some(kept) = manifest {
            for component in &kept.manifest().components {
                let version =
                    format!("{} {}", component.product, component.running_image().version);
                *report.versions.entry(version).or_default() += 1;
            }
        }
        match device.standing {
            Standing::Listed => continue,
            Standing::Quarantined => report.quarantined += 1,
            Standing::Revoked | Standing::Decommissioned => report.revoked += 1,
            Standing::Enrolled => {
                report.enrolled += 1;
                let checked_in = manifest.is_some_and(|kept| {
                    (report.from_ms..report.until_ms).contains(&kept.received_at.as_ms())
                });
                if checked_in || heard.contains(device.id.as_str()) {
                    report.heard += 1;
                    continue;
                }
                unheard += 1;
                if report.silent.len() < SILENT_MAX {
                    report.silent.push(device.id.to_string());
                }
            }
        }
    }
    if unheard > SILENT_MAX {
        let more = unheard - SILENT_MAX;
        report.notes.push(format!("devices that were not heard: {more} more than are named"));
    }
}

fn rollouts(station: &Station, from: Ms, until: Ms) -> Vec<ReportedRollout> {
    use rollout::Named::{Halted, Paused, Reverting, Running};
    let book = station.rollouts.book();
    let mut found: Vec<(Ms, ReportedRollout)> = Vec::new();
    for (_, live) in book.rollouts() {
        let (created_at, phase) = (live.created_at.as_ms(), live.state().phase.name());
        let under_way = matches!(phase, Running | Paused | Halted | Reverting);
        if !under_way && !(from..until).contains(&created_at) {
            continue;
        }
        let counts = &live.state().counts;
        let reported = ReportedRollout {
            id: live.plan().rollout.to_string(),
            phase: phase.to_string(),
            proven: counts.good(),
            failed: counts.failed + counts.stuck,
            went_back: counts.went_back,
            cohort: live.plan().cohort,
        };
        found.push((created_at, reported));
    }
    found.sort_by_key(|(created_at, _)| std::cmp::Reverse(*created_at));
    found.truncate(ROLLOUTS_MAX);
    found.into_iter().map(|(_, reported)| reported).collect()
}

fn violations(station: &Station) -> BTreeMap<String, u64> {
    let families = families(station.metrics_registries());
    let family = families.get("plimsoll_invariant_violations_total");
    let samples = family.into_iter().flat_map(|family| family.get_metric());
    let counts = samples.filter_map(|sample| {
        let invariant = sample.get_label().first()?.value().to_owned();
        let count = sample.get_counter().get_value() as u64;
        (count > 0).then_some((invariant, count))
    });
    counts.collect()
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Until {
    /// When the seven days end, in milliseconds since 1970; unsaid, now.
    until_ms: Option<u64>,
}

pub(crate) async fn weekly(station: &Station, call: Call) -> Result<Response, Failure> {
    Ok(json_answer(&asked_for(station, &call).await?))
}

pub(crate) async fn weekly_page(station: &Station, call: Call) -> Result<Response, Failure> {
    let report = asked_for(station, &call).await?;
    let mut response = text("text/html; charset=utf-8", page::html(&report));
    // What names of devices could smuggle in would neither run nor load.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// The report that went out, if one went out for that moment; else it is made now.
async fn asked_for(station: &Station, call: &Call) -> Result<WeeklyReport, Failure> {
    call.person(station)?;
    let Until { until_ms } = call.query_string()?;
    let at = now();
    let until = until_ms.unwrap_or(at.as_ms());
    if !(WEEK_MS..=at.as_ms()).contains(&until) {
        let detail = format!("until_ms: expected {WEEK_MS} to {}, found {until}", at.as_ms());
        return Err(Failure::bad_request("bad_query_string", detail));
    }
    let read = station.registry.read(move |tx| -> Work<'_, _, RegistryError> {
        Box::pin(async move { table::report(tx, until).await })
    });
    if let Some(kept) = read.await.map_err(|error| station.failed_to_store(error))? {
        return Ok(kept);
    }
    let _one = station.alerts.0.reports.try_acquire().map_err(|_| {
        Failure::busy("expected one report at a time, found one that is being made")
    })?;
    make(station, until, at).await.map_err(|error| station.failed_to_store(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_ends_on_monday_at_six() {
        // Monday, 2026-11-23, 06:00 UTC.
        let monday = 1_795_413_600_000;
        assert_eq!(page::time(monday), "2026-11-23 06:00 UTC");
        assert_eq!(due(monday), monday);
        assert_eq!(due(monday - 1), monday - WEEK_MS);
        assert_eq!(due(monday + WEEK_MS - 1), monday);
        assert_eq!(due(0), 0);
        assert_eq!(page::time(due(MONDAY_SIX_MS)), "1970-01-05 06:00 UTC");
    }
}
