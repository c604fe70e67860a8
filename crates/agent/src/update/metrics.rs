//! What people and their tools see of a device's updates: `update.json` and `metrics.prom` beside `status.json`.
//!
//! The agent listens on no port. `metrics.prom` is in Prometheus' text format, for whoever collects files (node_exporter's textfile
//! collector does); its counters begin anew at each start. Both files are views: neither durable nor read back.

use crate::application::Counts;
use model::ProductId;
use model::manifest::{Component, InstallEnd, Outcome, Trusted};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub const STATUS_FILE: &str = "update.json";
pub const METRICS_FILE: &str = "metrics.prom";

/// What this station can raise. Each stands on the page from the start, at 0.
const INVARIANTS: [&str; 3] = ["INV-BOOT-1", "INV-FRESH-1", "INV-IMG-1"];

/// A product as it is shown.
pub struct Part {
    pub product: ProductId,
    pub component: Option<Component>,
    pub stage: &'static str,
    pub outcome: Option<Outcome>,
    /// Of the image that comes: how much of how much.
    pub written: Option<(u64, u64)>,
    pub counts: Arc<Counts>,
}

/// Counted since the agent started. Labels are our own words: what comes from outside is never one.
#[derive(Debug)]
pub struct Metrics {
    status: PathBuf,
    metrics: PathBuf,
    shown: Option<(String, String)>,
    violations: BTreeMap<&'static str, u64>,
    refused: BTreeMap<(&'static str, &'static str), u64>,
    check_ins: BTreeMap<&'static str, u64>,
    ended: BTreeMap<&'static str, u64>,
    pub armed: u64,
    pub image_bytes: u64,
    /// Downloads that did not come to their end.
    pub broken: u64,
}

impl Metrics {
    pub fn new(data: &Path) -> Self {
        Self {
            status: data.join(STATUS_FILE),
            metrics: data.join(METRICS_FILE),
            shown: None,
            violations: INVARIANTS.into_iter().map(|invariant| (invariant, 0)).collect(),
            refused: BTreeMap::new(),
            check_ins: [("answered", 0), ("unanswered", 0)].into(),
            ended: InstallEnd::ALL
                .into_iter()
                .filter(|end| *end != InstallEnd::Underway)
                .map(|end| (end.as_str(), 0))
                .collect(),
            armed: 0,
            image_bytes: 0,
            broken: 0,
        }
    }

    pub fn violate(&mut self, invariant: &'static str) {
        *self.violations.entry(invariant).or_default() += 1;
    }

    /// Something was not taken: `what` it was to be, and why.
    pub fn refuse(&mut self, what: &'static str, label: &'static str) {
        *self.refused.entry((what, label)).or_default() += 1;
    }

    pub fn checked_in(&mut self, how: &'static str) {
        *self.check_ins.entry(how).or_default() += 1;
    }

    pub fn ended(&mut self, end: InstallEnd) {
        *self.ended.entry(end.as_str()).or_default() += 1;
    }

    /// Writes what has changed.
    pub fn show(
        &mut self,
        parts: &[Part],
        lease: Option<(u64, bool)>,
        versions: Option<[Trusted; 2]>,
    ) {
        // While a check-in is under way nobody else knows; what was shown before still holds.
        let (Some(lease), Some(versions)) = (lease, versions) else { return };
        let now = (status(parts, lease, versions), self.text(parts));
        if self.shown.as_ref() == Some(&now) {
            return;
        }
        for (path, text) in [(&self.status, &now.0), (&self.metrics, &now.1)] {
            let next = path.with_extension("new");
            let written = std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, path));
            if let Err(error) = written {
                tracing::debug!(path = %path.display(), %error, "status not written");
                return;
            }
        }
        self.shown = Some(now);
    }

    fn text(&self, parts: &[Part]) -> String {
        let mut text = String::new();
        let mut family = |name: &str, help: &str, rows: &mut dyn Iterator<Item = (String, u64)>| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (labels, value) in rows {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let one = |label: &'static str| {
            move |(name, n): (&&str, &u64)| (format!("{{{label}=\"{name}\"}}"), *n)
        };
        family(
            "plimsoll_invariant_violations_total",
            "Found by a second look. Above 0: runbooks/invariant.md.",
            &mut self.violations.iter().map(one("invariant")),
        );
        family(
            "plimsoll_agent_check_ins_total",
            "Check-ins, by whether a gateway answered.",
            &mut self.check_ins.iter().map(one("result")),
        );
        family(
            "plimsoll_agent_refused_total",
            "What came and was not taken, by what it was to be and why.",
            &mut self
                .refused
                .iter()
                .map(|((what, label), n)| (format!("{{what=\"{what}\",reason=\"{label}\"}}"), *n)),
        );
        family(
            "plimsoll_agent_armed_total",
            "Images that were armed.",
            &mut [(String::new(), self.armed)].into_iter(),
        );
        family(
            "plimsoll_agent_installs_total",
            "Installs that came to an end.",
            &mut self.ended.iter().map(one("end")),
        );
        family(
            "plimsoll_agent_image_bytes_total",
            "Bytes of images that came.",
            &mut [(String::new(), self.image_bytes)].into_iter(),
        );
        family(
            "plimsoll_agent_image_failures_total",
            "Downloads that broke off or brought something else.",
            &mut [(String::new(), self.broken)].into_iter(),
        );
        let of = |count: fn(&Counts) -> &AtomicU64, more: &'static str| {
            move |part: &Part| {
                let labels = format!("{{product=\"{}\"{more}}}", part.product);
                (labels, count(&part.counts).load(Ordering::Relaxed))
            }
        };
        family(
            "plimsoll_agent_app_starts_total",
            "Starts of what runs out of a slot.",
            &mut parts.iter().map(of(|counts| &counts.starts, "")),
        );
        family(
            "plimsoll_agent_app_readings_total",
            "Readings that an application said.",
            &mut parts.iter().map(of(|counts| &counts.readings, "")),
        );
        let (malformed, too_many) = (",reason=\"malformed\"", ",reason=\"too_many\"");
        family(
            "plimsoll_agent_app_left_out_total",
            "Packs of an application that are none, and readings beyond what is taken in a second.",
            &mut (parts.iter().map(of(|counts| &counts.malformed, malformed)))
                .chain(parts.iter().map(of(|counts| &counts.too_many, too_many))),
        );
        family(
            "plimsoll_agent_app_lines_total",
            "Lines of an application that are text for people, logged or not.",
            &mut parts.iter().map(of(|counts| &counts.lines, "")),
        );
        text
    }
}

fn status(parts: &[Part], (lease, lasts): (u64, bool), [director, images]: [Trusted; 2]) -> String {
    let versions = |of: Trusted| {
        json!({
            "root": of.root, "timestamp": of.timestamp, "snapshot": of.snapshot, "targets": of.targets
        })
    };
    let parts: Vec<_> = parts.iter().map(part).collect();
    let value = json!({
        "products": parts,
        "lease": { "number": lease, "lasts": lasts },
        "director": versions(director),
        "images": versions(images),
    });
    format!("{value}\n")
}

fn part(part: &Part) -> serde_json::Value {
    let running = part.component.as_ref().map(|component| {
        let image = component.running_image();
        json!({
            "version": image.version.to_string(),
            "sha256": image.digest.to_string(),
            "slot": component.running as u8,
            "boot": component.boot.as_str(),
            "floor": component.floor.0,
        })
    });
    let outcome = part.outcome.as_ref().map(|outcome| {
        json!({
            "rollout": outcome.rollout.as_ref().map(ToString::to_string),
            "sha256": outcome.digest.to_string(),
            "end": outcome.end.as_str(),
            "reason": outcome.reason,
        })
    });
    json!({
        "product": part.product.to_string(),
        "stage": part.stage,
        "running": running,
        "install": outcome,
        "image_bytes": part.written.map(|(written, length)| json!([written, length])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invariant_that_can_be_raised_stands_at_nought_from_the_start() {
        let mut metrics = Metrics::new(Path::new("/nowhere"));
        for invariant in INVARIANTS {
            let line = format!("plimsoll_invariant_violations_total{{invariant=\"{invariant}\"}}");
            assert!(metrics.text(&[]).contains(&format!("{line} 0\n")), "{invariant}");
            metrics.violate(invariant);
            assert!(metrics.text(&[]).contains(&format!("{line} 1\n")), "{invariant}");
        }
        metrics.refuse("lease", "older");
        let row = "plimsoll_agent_refused_total{what=\"lease\",reason=\"older\"} 1\n";
        assert!(metrics.text(&[]).contains(row));
    }

    #[test]
    fn an_application_is_counted_under_its_product() {
        let counts = Arc::new(Counts::default());
        counts.starts.store(3, Ordering::Relaxed);
        counts.too_many.store(7, Ordering::Relaxed);
        let part = Part {
            product: ProductId::new("pump-app").unwrap(),
            component: None,
            stage: "idle",
            outcome: None,
            written: None,
            counts,
        };
        let text = Metrics::new(Path::new("/nowhere")).text(&[part]);
        for row in [
            "plimsoll_agent_app_starts_total{product=\"pump-app\"} 3\n",
            "plimsoll_agent_app_left_out_total{product=\"pump-app\",reason=\"malformed\"} 0\n",
            "plimsoll_agent_app_left_out_total{product=\"pump-app\",reason=\"too_many\"} 7\n",
        ] {
            assert!(text.contains(row), "{text}");
        }
    }
}
