//! Looks at rules when they are due: asks the store, reads metrics, and hands what they say to the core.

use super::signal::{self, Seen};
use super::step::{Event, Found, Ms};
use super::{Act, Alerts, CONTROL};
use crate::metrics::families;
use crate::station::{Phase, Station, now};
use api::alert::{Condition, Rule, Signal};
use api::{Role, Standing};
use model::{DeviceId, Timestamp, told};
use prometheus::proto::MetricFamily;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn run(station: Arc<Station>) {
    let mut draining = std::pin::pin!(station.reached(Phase::Draining));
    loop {
        tokio::select! {
            () = tokio::time::sleep(station.limits.alerts_every) => {}
            () = draining.as_mut() => return,
        }
        tokio::select! {
            // What a question is asked for is given up: it is asked again after the next start.
            () = look(&station, now()) => {}
            () = draining.as_mut() => return,
        }
    }
}

/// Looks at all rules that are due, those first that cost nothing: no slow question keeps a counter waiting.
pub(super) async fn look(station: &Station, at: Timestamp) {
    let alerts = &station.alerts;
    let now_ms = at.as_ms();
    let state = alerts.state();
    let is_due = |rule: &Rule, looked_at: Option<Ms>| {
        rule.enabled && looked_at.is_none_or(|looked| now_ms >= looked + rule.every_ms)
    };
    let due = state.rules().filter(|watched| is_due(&watched.rule, watched.looked_at));
    let (asked, read): (Vec<Arc<Rule>>, Vec<Arc<Rule>>) = due
        .map(|watched| watched.rule.clone())
        .partition(|rule| matches!(rule.signal, Signal::Sql(_)));
    if !read.is_empty() {
        station.look_at_metrics();
        let families = families(station.metrics_registries());
        for rule in read {
            let (event, seen) = match &rule.signal {
                Signal::Silence { role } => {
                    let (id, found) = (rule.id.clone(), silent(station, &rule, *role, now_ms));
                    let looked = Event::Looked { rule: id, found, cut: false, excused: vec![] };
                    (looked, Seen::default())
                }
                _ => read_metric(alerts, &rule, &families, now_ms).await,
            };
            let id = rule.id.clone();
            if take(alerts, rule, event, at).await {
                alerts.0.turn.lock().await.meter.remember(&id, seen);
            }
        }
    }
    for rule in asked {
        let event = ask(alerts, &rule, now_ms).await;
        take(alerts, rule, event, at).await;
    }
    if let Err(error) = alerts.act(Act::Passed, &CONTROL.into(), at).await {
        tracing::error!(error = %told(&error), "what time does to alerts cannot be written");
    }
}

/// Whether what came of it is durable. What is not, is found again at the next look.
async fn take(alerts: &Alerts, rule: Arc<Rule>, event: Event, at: Timestamp) -> bool {
    let outcome = if matches!(event, Event::Failed { .. }) { "failed" } else { "ok" };
    alerts.0.metrics.rule_looks.with_label_values(&[outcome]).inc();
    let id = rule.id.clone();
    match alerts.act(Act::Look(rule, event), &CONTROL.into(), at).await {
        Ok(_) => true,
        Err(error) => {
            tracing::error!(rule = id, error = %told(&error), "what a rule found cannot be written");
            false
        }
    }
}

async fn read_metric(
    alerts: &Alerts,
    rule: &Rule,
    families: &BTreeMap<String, MetricFamily>,
    now_ms: Ms,
) -> (Event, Seen) {
    let Signal::Metric { name, labels } = &rule.signal else {
        return (not_asked(rule), Seen::default());
    };
    let turn = alerts.0.turn.lock().await;
    let found = turn.meter.samples(&rule.id, families, name, labels, now_ms);
    let id = rule.id.clone();
    match found {
        Ok((found, seen)) => (Event::Looked { rule: id, found, cut: false, excused: vec![] }, seen),
        Err(why) => (Event::Failed { rule: id, why }, Seen::default()),
    }
}

/// Those of whom a rule of absence knows and who are not to be heard of: revoked, quarantined.
fn excused(alerts: &Alerts, rule: &Rule) -> Vec<String> {
    let (state, directory) = (alerts.state(), alerts.0.registry.directory());
    let is_out = |name: &&str| {
        let device = DeviceId::new(*name).ok().and_then(|id| directory.device(&id).cloned());
        device.is_some_and(|device| device.standing != Standing::Enrolled)
    };
    let known = state.rule(&rule.id).into_iter().flat_map(|watched| watched.known());
    known.filter(is_out).map(str::to_owned).collect()
}

/// Milliseconds since each enrolled device, or gateway, was heard; those alone that the rule is about. Where the rule groups
/// by gateway, a gateway is one of those that stand under its name.
fn silent(station: &Station, rule: &Rule, role: Role, now_ms: Ms) -> Vec<Found> {
    let directory = station.registry.directory();
    let grouped = rule.group_by_gateway;
    let is_meant = |of: Role| of == role || (grouped && of == Role::Gateway);
    let enrolled = directory
        .devices(None)
        .filter(|device| device.standing == Standing::Enrolled && is_meant(device.role));
    let found = enrolled.filter_map(|device| {
        let line = station.inventory.line(&device.id);
        let heard_at = line.as_ref().and_then(|line| line.seen_at_ms);
        let heard_at = heard_at.or_else(|| device.enrolled_at.map(Timestamp::as_ms))?;
        let value = now_ms.saturating_sub(heard_at) as f64;
        let is_so = match rule.when {
            Condition::Above(bound) => value > bound,
            Condition::Below(bound) => value < bound,
            Condition::Absent => false,
        };
        let gateway = match device.role {
            Role::Gateway => Some(device.id.to_string()),
            Role::Device => line.and_then(|line| line.gateway),
        };
        let (subject, group) = (device.id.to_string(), gateway.filter(|_| grouped));
        is_so.then_some(Found { subject, group, value })
    });
    found.collect()
}

fn not_asked(rule: &Rule) -> Event {
    let why = "this signal is not one that is asked in this way".to_owned();
    Event::Failed { rule: rule.id.clone(), why }
}

/// Asks a rule's question. One that fails, or is not answered in its time, is told, never taken for an answer.
pub(super) async fn ask(alerts: &Alerts, rule: &Rule, now_ms: Ms) -> Event {
    let Signal::Sql(sql) = &rule.signal else { return not_asked(rule) };
    let question = signal::question(sql, now_ms);
    // The store has this bound too; one that does not keep it holds up no rule for longer.
    let time_max = Duration::from_millis(signal::QUESTION_TIME_MAX_MS + 1000);
    let answer = tokio::time::timeout(time_max, alerts.0.query.query(question, None)).await;
    let found = match answer {
        Ok(Ok(answer)) => signal::rows(rule, answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not answered within {} ms", time_max.as_millis())),
    };
    let id = rule.id.clone();
    match found {
        Ok((found, cut)) => Event::Looked { rule: id, found, cut, excused: excused(alerts, rule) },
        Err(why) => Event::Failed { rule: id, why },
    }
}
