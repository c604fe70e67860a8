//! A device in sentences: what stands against it, and what the steps of its life were. Pure.

use super::table::{OF_EVENTS, OF_KEYS, Place, Told};
use crate::directory::{Device, Key};
use api::device::Moment;
use api::release::Software;
use api::{Purpose, Role, Standing};
use jiff::tz::TimeZone;
use model::Timestamp;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A device that says nothing for so long is worth a word: it checks in and measures far more often.
const SILENT_AFTER_MS: u64 = 15 * 60_000;

/// What is asked of a device's health.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    pub device: &'a Device,
    pub seen_at_ms: Option<u64>,
    pub software: Option<&'a Software>,
    /// Sealing keys of it that no bundle has.
    pub left_out: usize,
    /// How long certificates live here.
    pub life: Duration,
    pub now: Timestamp,
}

/// Why a device does not count as healthy, each in a sentence.
pub fn concerns(look: Look<'_>) -> Vec<String> {
    let mut concerns = Vec::new();
    let Look { device, software, now, .. } = look;
    let since = || at(device.changed_at.as_ms());
    match device.standing {
        Standing::Listed => {
            let listed = at(device.listed_at.as_ms());
            concerns.push(format!("listed since {listed}, and it has not enrolled"));
            return concerns;
        }
        Standing::Revoked | Standing::Decommissioned => {
            concerns.push(format!("{} since {}", device.standing.as_str(), since()));
            return concerns;
        }
        Standing::Quarantined => concerns.push(format!("quarantined since {}", since())),
        Standing::Enrolled => {}
    }
    match look.seen_at_ms {
        None => concerns.push("it was never heard".to_owned()),
        Some(seen) => {
            let silent_ms = now.as_ms().saturating_sub(seen);
            if silent_ms >= SILENT_AFTER_MS {
                concerns.push(format!("silent for {}", long(silent_ms)));
            }
        }
    }
    for purpose in Purpose::ALL {
        concerns.extend(certificate(device, purpose, look.life, now));
    }
    if look.left_out > 0 {
        concerns.push(format!(
            "{} of its old sealing keys are left out of bundles: what they sealed stays on the device",
            look.left_out
        ));
    }
    let Some(software) = software else {
        // A gateway of ours is no device yet: it does not check in by itself.
        if device.role == Role::Device {
            concerns.push("it has not said what it runs".to_owned());
        }
        return concerns;
    };
    for component in &software.components {
        let (product, version) = (&component.product, &component.version);
        match component.boot.as_str() {
            "trial" => {
                concerns.push(format!("{product} {version} runs on trial: it is not confirmed"))
            }
            "reverted" => concerns.push(format!("went back to {product} {version} by itself")),
            "fallback" => concerns.push(format!(
                "{product} {version} was started since the slot that should have was not whole"
            )),
            _ => {}
        }
    }
    if let Some(outcome) = &software.outcome
        && matches!(outcome.end.as_str(), "failed" | "reverted")
    {
        let why = if outcome.reason.is_empty() { "it gave no reason" } else { &outcome.reason };
        concerns.push(format!("its newest install of {} {}: {why}", outcome.product, outcome.end));
    }
    concerns
}

/// A certificate is renewed after two thirds of its life: one that has less than a sixth left was not.
fn certificate(
    device: &Device,
    purpose: Purpose,
    life: Duration,
    now: Timestamp,
) -> Option<String> {
    let what = match purpose {
        Purpose::Tls => "TLS certificate",
        Purpose::Seal => "sealing certificate",
    };
    let Some(key) = device.keys_for(purpose).find(|key| key.retired_at.is_none()) else {
        return Some(format!("it has no {what}"));
    };
    let left_us = key.not_after.as_us().saturating_sub(now.as_us());
    if left_us <= 0 {
        let ago = long(left_us.unsigned_abs() / 1000);
        return Some(format!("its {what} ended {ago} ago"));
    }
    let early = i64::try_from(life.as_micros() / 6).unwrap_or(i64::MAX);
    let left = long(left_us.unsigned_abs() / 1000);
    (left_us < early).then(|| format!("its {what} ends in {left} and has not been renewed"))
}

/// What an event tells, as a moment of the device's life.
pub fn told(told: Told) -> (Place, Moment) {
    let Told { sequence, at_ms, actor, action, subject, kind, detail } = told;
    let word = |name: &str| detail.get(name).and_then(Value::as_str).unwrap_or("?");
    let rollout = subject.strip_prefix("rollout/").unwrap_or(&subject);
    let short = |name: &str| short(word(name)).to_owned();
    let sentence = match action.as_str() {
        "device.list" => {
            let group = detail.get("group").and_then(Value::as_str);
            let group = group.map_or(String::new(), |group| format!(", group {group}"));
            format!("listed as a {} of zone {}{group}", word("role"), word("zone"))
        }
        "device.enrol" => {
            let until = detail.get("not_after_ms").and_then(Value::as_u64).unwrap_or(0);
            let is_new = detail.get("new_key").and_then(Value::as_bool).unwrap_or(false);
            let what = if is_new { "new" } else { "renewed for its" };
            let (purpose, key) = (word("purpose"), short("key"));
            format!("certificate {what} {purpose} key {key}, until {}", at(until))
        }
        "device.quarantine" => "quarantined".to_owned(),
        "device.release" => "released from quarantine".to_owned(),
        "device.revoke" => format!("revoked for good, was {}", word("from")),
        "device.decommission" => format!("decommissioned for good, was {}", word("from")),
        "device.reenrol" => "all its keys were retired: it enrols anew".to_owned(),
        "device.group" => format!("moved from group {} to {}", word("from"), word("to")),
        "device.refused" => {
            format!("asked to go from {} to {}, which was refused", word("from"), word("to"))
        }
        "permit.issue" => format!("given leave to install by rollout {rollout}"),
        "device.silent" => format!("showed rollout {rollout} no outcome in time"),
        "device.back" => format!("told to go back by rollout {rollout}"),
        "device.back_silent" => format!("did not show rollout {rollout} in time that it went back"),
        "device.proven" => format!("runs what rollout {rollout} brought, confirmed"),
        "device.had" => format!("ran what rollout {rollout} brings already"),
        "device.failed" => format!("did not come to run what rollout {rollout} brought"),
        "device.stuck" => format!("could not go back when rollout {rollout} told it to"),
        "device.went_back" => format!("went back when rollout {rollout} told it to"),
        other => other.replace(['.', '_'], " "),
    };
    let place = Place { at_ms, source: OF_EVENTS, number: sequence };
    let (actor, event) = (Some(actor), Some(sequence));
    (place, Moment { at_ms, kind, sentence, actor, event, detail })
}

/// That keys were retired, and keys of a time before there were events. `told`: whether an event tells of a key.
pub fn keys(device: &Device, is_told: impl Fn(&Key) -> bool) -> Vec<(Place, Moment)> {
    let mut moments = Vec::new();
    let mut add = |at_ms: u64, sentence: String, detail: Map<String, Value>| {
        let number = moments.len() as u64 + 1;
        let place = Place { at_ms, source: OF_KEYS, number };
        let kind = "key".to_owned();
        moments.push((place, Moment { at_ms, kind, sentence, actor: None, event: None, detail }));
    };
    for key in &device.keys {
        let (id, purpose) = (key.shown_id(), key.purpose.as_str());
        let detail = || {
            let Value::Object(detail) = json!({ "key": id, "purpose": purpose }) else {
                unreachable!("it is written as an object")
            };
            detail
        };
        if !is_told(key) {
            let sentence = format!("certificate for {purpose} key {}", short(&id));
            add(key.created_at.as_ms(), sentence, detail());
        }
        if let Some(retired_at) = key.retired_at {
            add(retired_at.as_ms(), format!("{purpose} key {} retired", short(&id)), detail());
        }
    }
    moments
}

/// The beginning of a key's name, by which people tell keys apart.
fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}

/// A time for people: `2026-11-21 22:30 UTC`.
pub fn at(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    // Beyond the year 9999 there is a number and no date.
    time.map_or_else(
        || format!("{ms} ms after 1970"),
        |time| time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

/// A length of time for people, in its largest unit.
pub fn long(ms: u64) -> String {
    let units = [("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000)];
    let (unit, count) = units
        .into_iter()
        .map(|(unit, of)| (unit, ms / of))
        .find(|(_, count)| *count > 0)
        .unwrap_or(("second", 0));
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests;
