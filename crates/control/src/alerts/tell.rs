//! Carries tellings to their targets: what is queued is tried until it is delivered or given up.
//!
//! Promises: a telling is delivered at least once, under an id that is the same at each attempt; each target has a queue of
//! its own, and one that does not answer holds up no other; attempts are [`FIRST_PAUSE`] apart at first, twice as far each
//! time, [`PAUSE_MAX`] at the most, and end [`GIVEN_UP_AFTER`] after the telling was made: that is counted, logged, an
//! event, and by a shipped rule an alert.

use super::table::{self, Waiting, Writing};
use super::{Alerts, CONTROL, target};
use crate::registry::{RegistryError, Work, said};
use crate::station::{Phase, Station, now};
use api::alert::Target;
use model::{Timestamp, told};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(86_400);
/// How often the queue is looked at when nothing new was put there.
const WAKE_EVERY: Duration = Duration::from_secs(1);
/// Tellings of one target that are tried one after the other before the queue is looked at again.
const RUN_MAX: usize = 16;

pub(crate) async fn run(station: Arc<Station>) {
    let mut draining = std::pin::pin!(station.reached(Phase::Draining));
    loop {
        tokio::select! {
            // What is under way is given up: it is tried again after the next start, under the same id.
            () = deliver_due(&station.alerts, now()) => {}
            () = draining.as_mut() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(WAKE_EVERY) => {}
            () = station.alerts.0.queued.notified() => {}
            () = draining.as_mut() => return,
        }
    }
}

/// Tries everything that is due, all targets at a time.
pub(super) async fn deliver_due(alerts: &Alerts, at: Timestamp) {
    let targets = alerts.0.turn.lock().await.targets.clone();
    let mut running = JoinSet::new();
    for target in targets {
        running.spawn(deliver_to(alerts.clone(), target, at));
    }
    while running.join_next().await.is_some() {}
}

async fn deliver_to(alerts: Alerts, target: Target, at: Timestamp) {
    let (id, now_ms) = (target.id.clone(), at.as_ms());
    let read = alerts.0.registry.read(move |tx| -> Work<'_, _, RegistryError> {
        Box::pin(async move { table::waiting(tx, &id, now_ms, RUN_MAX).await })
    });
    let waiting = match read.await {
        Ok(waiting) => waiting,
        Err(error) => {
            tracing::error!(error = %told(&error), "what waits for a target cannot be read");
            return;
        }
    };
    for telling in waiting {
        let outcome = target::deliver(&target, &telling.telling).await;
        let is_delivered = outcome.is_ok();
        let written = settle(&alerts, &target, telling, outcome, at).await;
        if let Err(error) = written {
            tracing::error!(target_id = target.id, error = %told(&error), "a delivery cannot be written down");
            return;
        }
        // Who does not answer now does not answer to the next one either.
        if !is_delivered {
            return;
        }
    }
}

async fn settle(
    alerts: &Alerts,
    target: &Target,
    waiting: Waiting,
    outcome: Result<(), String>,
    at: Timestamp,
) -> Result<(), RegistryError> {
    let now_ms = at.as_ms();
    alerts.note(&target.id, outcome.as_ref().err().cloned(), now_ms);
    let age = Duration::from_millis(now_ms.saturating_sub(waiting.made_at_ms));
    let (word, next_at_ms) = match &outcome {
        Ok(()) => ("delivered", None),
        Err(_) if age >= GIVEN_UP_AFTER => ("given_up", None),
        Err(_) => ("failed", Some(now_ms + pause(&waiting.telling.id, waiting.tries))),
    };
    alerts.0.metrics.tellings.with_label_values(&[word]).inc();
    if let Err(why) = &outcome {
        let (telling, tries) = (&waiting.telling.id, waiting.tries + 1);
        tracing::warn!(
            target_id = target.id,
            telling,
            tries,
            why,
            outcome = word,
            "a target was not told"
        );
    }
    let (target, telling) = (target.id.clone(), waiting.telling.id);
    let why = outcome.err().filter(|_| word == "given_up");
    let step = alerts.0.registry.step(move |step| -> Work<'_, (), RegistryError> {
        Box::pin(async move {
            table::settle(step, &target, &telling, next_at_ms).await?;
            if let Some(why) = why {
                let why: String = why.chars().take(500).collect();
                let detail = json!({ "telling": telling, "why": why });
                let subject = format!("alert-target/{target}");
                step.say(said(at, CONTROL, "telling.given_up", subject, detail)).await?;
            }
            Ok(())
        })
    });
    step.await.map(drop)
}

/// Twice as long each time, up to a quarter more or less by what the telling is: many that failed together do not come back
/// together.
pub(super) fn pause(telling: &str, tries: u32) -> u64 {
    let doubled = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(PAUSE_MAX);
    let whole = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX);
    let spread = u64::from(trust::digest(format!("{telling} {tries}").as_bytes()).as_bytes()[0]);
    whole * 3 / 4 + whole / 2 * spread / 255
}

/// A message that says that it is one, now.
pub(super) async fn test(alerts: &Alerts, target: &Target, at: Timestamp) -> Result<(), String> {
    let telling = api::alert::Telling {
        id: format!("test-{}", at.as_ms()),
        site: alerts.0.site.clone(),
        kind: api::alert::TellingKind::Test,
        at_ms: at.as_ms(),
        alert: None,
        report: None,
    };
    let outcome = target::deliver(target, &telling).await;
    alerts.note(&target.id, outcome.as_ref().err().cloned(), at.as_ms());
    outcome
}

impl Alerts {
    pub(super) fn writing(&self, turn: &super::Turn, at: Timestamp) -> Writing {
        Writing {
            site: self.0.site.clone(),
            now: at,
            actor: CONTROL.into(),
            note: None,
            targets: turn.targets.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_grow_apart_up_to_an_hour_and_do_not_come_together() {
        let first: Vec<u64> = (0..100).map(|n| pause(&format!("alert-{n}-0"), 0)).collect();
        assert!(first.iter().all(|pause| (3750..=6250).contains(pause)), "{first:?}");
        let mut distinct = first.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 50, "{distinct:?}");
        for tries in 0..40 {
            let longest = (5000u64 << tries.min(16)).min(3_600_000);
            let pause = pause("alert-1-0", tries);
            assert!((longest * 3 / 4..=longest * 5 / 4).contains(&pause), "{tries}: {pause}");
        }
    }
}
