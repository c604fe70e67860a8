//! How long one device's update took: by the site's evidence log, and of the way between by the device's own.

use crate::fleet::Fleet;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// An event of the evidence log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    at_ms: u64,
    pub action: String,
    pub detail: Value,
}

impl Event {
    pub fn of(&self, word: &str) -> &str {
        self.detail[word].as_str().unwrap_or_default()
    }
}

/// The way of the device that was the first to prove a release.
#[derive(Clone, Debug, PartialEq)]
pub struct Journey {
    device: String,
    /// From the order to its proof.
    all: Duration,
    /// From the order until it was given leave: it had to check in.
    leave: Duration,
    download: Duration,
    /// From arming until it was confirmed: one process ended, and the other stood its trial.
    trial: Duration,
}

impl Fleet {
    /// What the evidence log says of a rollout.
    pub fn events(&self, id: &str) -> Result<Vec<Event>> {
        let subject = format!("rollout/{id}");
        read(&self.cli(&["evidence", "log", "--subject", &subject, "--format", "json"])?)
    }

    /// Of the first device that has proven a release: its log tells of no earlier update to it.
    pub fn first_journey(&self, id: &str, version: &str) -> Result<Journey> {
        let events = self.events(id)?;
        let at = |action: &str, device: Option<&str>| {
            let is_it = |event: &&Event| {
                event.action == action && device.is_none_or(|name| event.of("device") == name)
            };
            events.iter().find(is_it).with_context(|| format!("no {action} of {id} {device:?}"))
        };
        let (created, proven) = (at("rollout.create", None)?, at("device.proven", None)?);
        let device = proven.of("device").to_owned();
        let issued = at("permit.issue", Some(&device))?;
        let log = self.data.join(format!("logs/{device}.log"));
        let text = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
        let [download, trial] =
            steps(&text, version).with_context(|| format!("no update in {}", log.display()))?;
        let since =
            |event: &Event| Duration::from_millis(event.at_ms.saturating_sub(created.at_ms));
        Ok(Journey { all: since(proven), leave: since(issued), device, download, trial })
    }
}

impl fmt::Display for Journey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, all, leave, download, trial } = self;
        write!(
            f,
            "{device}, the first, had proven it {all:.1?} after the order: {leave:.1?} until it had leave, \
             {download:.1?} download, {trial:.1?} restart and trial"
        )
    }
}

fn read(json: &str) -> Result<Vec<Event>> {
    let rows: Vec<Value> = serde_json::from_str(json).context("no events in the answer")?;
    let event = |row: &Value| {
        let text = |name: &str| row[name].as_str().with_context(|| format!("no {name}: {row}"));
        Ok(Event {
            at_ms: row["at_ms"].as_u64().with_context(|| format!("no at_ms: {row}"))?,
            action: text("action")?.to_owned(),
            detail: serde_json::from_str(text("detail")?)?,
        })
    };
    rows.iter().map(event).collect()
}

/// Download and trial, as a device's log tells of them. `None`: it does not.
fn steps(log: &str, version: &str) -> Option<[Duration; 2]> {
    let version = format!("version={version}");
    let mut lines =
        log.lines().skip_while(|line| !line.contains(" fetches ") || !line.contains(&version));
    let mut at = |what: &str| time_of_day(lines.find(|line| line.contains(what))?);
    let [begins, whole] = [at(" fetches ")?, at(" fetched, and whole ")?];
    let [armed, confirmed] = [at(" armed ")?, at(" confirmed ")?];
    Some([between(begins, whole), between(armed, confirmed)])
}

/// `2026-11-21T19:48:02.123456Z …`
fn time_of_day(line: &str) -> Option<Duration> {
    let (_, time) = line.split_once('T')?;
    let mut parts = time.split_once('Z')?.0.split(':');
    let [hours, minutes]: [u64; 2] = [parts.next()?.parse().ok()?, parts.next()?.parse().ok()?];
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(
        Duration::from_secs(hours * 3600 + minutes * 60)
            + Duration::try_from_secs_f64(seconds).ok()?,
    )
}

/// Over midnight too.
fn between(from: Duration, to: Duration) -> Duration {
    const DAY: Duration = Duration::from_secs(86_400);
    to.checked_sub(from).unwrap_or_else(|| (to + DAY).saturating_sub(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_how_long_an_update_took() {
        let log = "\
2026-11-21T23:59:57.000000Z  INFO agent: armed product=pump-app version=1.0.0
2026-11-21T23:59:58.500000Z  INFO agent::update::driver: fetches product=pump-app version=1.1.0 rollout=\"pump-1.1\" at=0 of=9
2026-11-21T23:59:59.750000Z  INFO agent::update::driver: fetched, and whole product=pump-app
2026-11-22T00:00:00.100000Z  INFO agent::update::driver: armed product=pump-app version=1.1.0 rollout=\"pump-1.1\"
2026-11-22T00:00:07.100000Z  INFO agent::update::driver: confirmed product=pump-app slot=b
";
        let expected = [Duration::from_millis(1250), Duration::from_secs(7)];
        assert_eq!(steps(log, "1.1.0"), Some(expected));
        assert_eq!(steps(log, "1.2.0"), None);
        let short = log.rsplit_once("2026").unwrap().0;
        assert_eq!(steps(short, "1.1.0"), None);
        // Midnight.
        let late = log.replace("23:59:59.75", "00:00:00.05");
        assert_eq!(steps(&late, "1.1.0").unwrap()[0], Duration::from_millis(1550));
    }

    #[test]
    fn events_are_read_from_what_the_command_line_prints() {
        let json = r#"[{"event": 7, "at_ms": 12, "actor": "control", "action": "rollout.signal_beyond",
            "subject": "rollout/r", "detail": "{\"signal\":\"memory\",\"found\":\"2.5\"}", "covered": true}]"#;
        let [event] = &read(json).unwrap()[..] else { panic!("one event") };
        assert_eq!((event.at_ms, &*event.action), (12, "rollout.signal_beyond"));
        assert_eq!((event.of("found"), event.of("limit")), ("2.5", ""));
        assert!(read("").is_err());
    }
}
