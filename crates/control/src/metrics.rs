//! Control's own figures, and those of every station in this process on one page.

use crate::bundle;
use crate::directory::Directory;
use api::{Role, Standing};
use model::uplink::{QuarantineReason, Verdict};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use rollout::Named;
use std::collections::BTreeMap;

/// The invariants that control looks at a second time, behind what holds them: a counter each, which must stay at 0.
pub const INVARIANTS: [&str; 11] = [
    "INV-ACK-1",
    "INV-AUTH-1",
    "INV-COST-1",
    "INV-EVID-1",
    "INV-FRESH-1",
    "INV-LEAST-1",
    "INV-PURP-1",
    "INV-REPLAY-1",
    "INV-ROLL-1",
    "INV-ROLL-2",
    "INV-STATE-1",
];

/// From 1 ms, a handful of cached lookups, to a minute, the longest wait for a bundle.
const SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0];

#[derive(Clone, Debug)]
pub struct Metrics {
    pub registry: Registry,
    pub requests: IntCounterVec,
    pub request_seconds: HistogramVec,
    pub refused: IntCounterVec,
    pub connections: IntGauge,
    pub connections_refused: IntCounter,
    pub handshakes_failed: IntCounterVec,
    pub certificates: IntCounterVec,
    pub certificate_expires: IntGauge,
    pub generation: IntGauge,
    pub devices: IntGaugeVec,
    pub seal_keys_left_out: IntGauge,
    pub uplink_records: IntCounterVec,
    pub uplink_bytes: IntCounter,
    pub uplink_step_seconds: HistogramVec,
    pub refreshes: IntCounterVec,
    pub releases: IntGauge,
    pub releases_end: IntGauge,
    pub image_bytes: IntCounter,
    pub directed: IntCounter,
    pub director_answers: IntCounter,
    pub director_behind: IntCounter,
    pub director_root_ends: IntGauge,
    pub leases: IntCounter,
    pub evidence_events: IntGauge,
    pub evidence_covered: IntGauge,
    pub evidence_checkpoints_failed: IntCounter,
    pub evidence_checkpoint_seconds: Histogram,
    pub check_ins: IntCounterVec,
    pub refusals_not_kept: IntCounter,
    pub orders_unpublished: IntCounter,
    pub permits: IntCounterVec,
    pub gate_answers: IntCounterVec,
    pub rollouts: IntGaugeVec,
    pub evidence_behind: IntGauge,
    pub releases_failing: IntGauge,
    pub disk_free_percent: IntGauge,
    pub alerts: IntGaugeVec,
    pub rule_looks: IntCounterVec,
    pub rules_failing: IntGaugeVec,
    pub tellings: IntCounterVec,
    pub sign_ins: IntCounterVec,
    pub streams: IntGauge,
    pub violations: IntCounterVec,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let histograms = |name: &str, help: &str, label: &str| {
            let opts = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let histograms = HistogramVec::new(opts, &[label])?;
            registry.register(Box::new(histograms.clone()))?;
            Ok::<_, prometheus::Error>(histograms)
        };
        let devices = IntGaugeVec::new(
            Opts::new("plimsoll_control_devices", "Devices and gateways, by standing."),
            &["role", "standing"],
        )?;
        registry.register(Box::new(devices.clone()))?;
        let opts = HistogramOpts::new(
            "plimsoll_evidence_checkpoint_seconds",
            "From the events of a group to the checkpoint that covers them.",
        );
        let evidence_checkpoint_seconds = Histogram::with_opts(opts.buckets(SECONDS.to_vec()))?;
        registry.register(Box::new(evidence_checkpoint_seconds.clone()))?;
        let rollouts =
            IntGaugeVec::new(Opts::new("plimsoll_rollouts", "Rollouts, by phase."), &["phase"])?;
        registry.register(Box::new(rollouts.clone()))?;
        let gauges = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let metrics = Self {
            requests: counters(
                "plimsoll_control_requests_total",
                "Requests answered, by endpoint and status.",
                &["endpoint", "status"],
            )?,
            request_seconds: histograms(
                "plimsoll_control_request_seconds",
                "From a request's head to its answer's.",
                "endpoint",
            )?,
            refused: counters(
                "plimsoll_control_refused_total",
                "Requests refused, by reason.",
                &["reason"],
            )?,
            connections: gauge("plimsoll_control_connections", "Connections open now.")?,
            connections_refused: counter(
                "plimsoll_control_connections_refused_total",
                "Connections closed at once since there were too many.",
            )?,
            handshakes_failed: counters(
                "plimsoll_control_handshakes_failed_total",
                "TLS handshakes that failed, by reason.",
                &["reason"],
            )?,
            certificates: counters(
                "plimsoll_control_certificates_total",
                "Certificates issued, by purpose.",
                &["purpose"],
            )?,
            certificate_expires: gauge(
                "plimsoll_control_certificate_expires_timestamp_seconds",
                "When control's own certificate ends; renewed after two thirds of its life.",
            )?,
            generation: gauge("plimsoll_control_generation", "The site's change counter.")?,
            devices,
            seal_keys_left_out: gauge(
                "plimsoll_control_seal_keys_left_out",
                "Sealing keys that no bundle has, since their device has had too many newer ones.",
            )?,
            uplink_records: counters(
                "plimsoll_uplink_records_total",
                "Records handed up by gateways and durable on the bus, by verdict and reason.",
                &["verdict", "reason"],
            )?,
            uplink_bytes: counter(
                "plimsoll_uplink_bytes_total",
                "Bytes of uplink calls as they came, compressed.",
            )?,
            uplink_step_seconds: histograms(
                "plimsoll_uplink_step_seconds",
                "Where an uplink call's time goes.",
                "step",
            )?,
            refreshes: counters(
                "plimsoll_control_releases_refreshes_total",
                "Looks into the vendor's repository, by outcome.",
                &["outcome"],
            )?,
            releases: gauge("plimsoll_control_releases", "Images that the vendor has published.")?,
            releases_end: gauge(
                "plimsoll_control_releases_end_timestamp_seconds",
                "When the first of the vendor's signatures ends: after that nothing is ordered.",
            )?,
            image_bytes: counter(
                "plimsoll_control_image_bytes_total",
                "Bytes of images passed on to gateways.",
            )?,
            directed: counter(
                "plimsoll_director_generations_total",
                "Times that what a device is told was put under a new generation.",
            )?,
            director_answers: counter(
                "plimsoll_director_answers_total",
                "Metadata signed for devices that did not have them.",
            )?,
            director_behind: counter(
                "plimsoll_director_behind_total",
                "Check-ins of devices that had seen a newer generation than there was.",
            )?,
            director_root_ends: gauge(
                "plimsoll_director_root_end_timestamp_seconds",
                "When the Director's root ends: after that no device follows it.",
            )?,
            leases: counter("plimsoll_director_leases_total", "Leases signed.")?,
            evidence_events: gauge(
                "plimsoll_evidence_events",
                "Events of what was done, in the registry.",
            )?,
            evidence_covered: gauge(
                "plimsoll_evidence_covered",
                "Events that a durable checkpoint of the evidence log covers.",
            )?,
            evidence_checkpoints_failed: counter(
                "plimsoll_evidence_checkpoints_failed_total",
                "Checkpoints that could not be made. While they cannot, what widens is refused.",
            )?,
            evidence_checkpoint_seconds,
            check_ins: counters(
                "plimsoll_control_checkins_total",
                "Devices' check-ins, by what became of them.",
                &["outcome"],
            )?,
            refusals_not_kept: counter(
                "plimsoll_control_refusals_not_kept_total",
                "Refusals in a device's name that its history does not tell of: there were too many kinds.",
            )?,
            orders_unpublished: counter(
                "plimsoll_rollout_orders_unpublished_total",
                "Orders that were not given since the vendor does not name their image.",
            )?,
            permits: counters(
                "plimsoll_rollout_permits_total",
                "Moves of devices in rollouts, by what is known of them since.",
                &["known"],
            )?,
            gate_answers: counters(
                "plimsoll_rollout_gate_answers_total",
                "Answers to the questions of gates, by what they came to.",
                &["answer"],
            )?,
            rollouts,
            evidence_behind: gauge(
                "plimsoll_evidence_behind",
                "Events that no durable checkpoint of the evidence log covers yet.",
            )?,
            releases_failing: gauge(
                "plimsoll_control_releases_failing",
                "1 while the newest look into the vendor's repository failed.",
            )?,
            disk_free_percent: gauge(
                "plimsoll_control_disk_free_percent",
                "What is free of the disk that the registry is on.",
            )?,
            alerts: gauges(
                "plimsoll_alerts_open",
                "Alerts that are open, by priority.",
                "priority",
            )?,
            rule_looks: counters(
                "plimsoll_alert_rule_looks_total",
                "Times that a rule of alerts was looked at, by outcome.",
                &["outcome"],
            )?,
            rules_failing: gauges(
                "plimsoll_alert_rule_failing",
                "1 while a rule of alerts cannot be evaluated.",
                "rule",
            )?,
            tellings: counters(
                "plimsoll_alert_tellings_total",
                "Messages to targets of alerts and reports, by outcome.",
                &["outcome"],
            )?,
            sign_ins: counters(
                "plimsoll_control_sign_ins_total",
                "Attempts to sign in, by what became of them.",
                &["outcome"],
            )?,
            streams: gauge("plimsoll_control_streams", "Streams of changes open now.")?,
            violations: counters(
                "plimsoll_invariant_violations_total",
                "Invariants found broken. Must stay at 0.",
                &["invariant"],
            )?,
            registry: registry.clone(),
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// A counter that is not there cannot be told from one that is 0.
    fn begin_at_zero(&self) {
        self.refreshes.with_label_values(&["ok"]);
        // What a shipped rule of alerts reads is there from the start.
        for reason in ["bad_token", "bus_full"] {
            self.refused.with_label_values(&[reason]);
        }
        self.permits.with_label_values(&["stuck"]);
        self.handshakes_failed.with_label_values(&["timeout"]);
        for outcome in ["delivered", "failed", "given_up", "no_room"] {
            self.tellings.with_label_values(&[outcome]);
        }
        for invariant in INVARIANTS {
            self.violations.with_label_values(&[invariant]);
        }
        let quarantined = QuarantineReason::ALL.iter().map(|reason| Verdict::Quarantined(*reason));
        for verdict in [Verdict::Stored, Verdict::Known].into_iter().chain(quarantined) {
            self.uplink_records.with_label_values(&labels(verdict));
        }
    }

    pub fn count_verdict(&self, verdict: Verdict) {
        self.uplink_records.with_label_values(&labels(verdict)).inc();
    }

    pub fn count_violation(&self, invariant: &str) {
        self.violations.with_label_values(&[invariant]).inc();
    }

    /// How many rollouts stand where.
    pub fn look_at_rollouts(&self, phases: impl Iterator<Item = Named>) {
        use Named::{Aborted, Completed, Halted, Paused, Planned, Reverted, Reverting, Running};
        let all = [Planned, Running, Paused, Halted, Reverting, Completed, Reverted, Aborted];
        let mut counts: BTreeMap<Named, i64> = all.map(|phase| (phase, 0)).into();
        phases.for_each(|phase| *counts.entry(phase).or_default() += 1);
        for (phase, count) in counts {
            self.rollouts.with_label_values(&[&phase.to_string()]).set(count);
        }
    }

    /// What is looked up when somebody asks.
    pub fn look_at(&self, directory: &Directory, seal_keys_max: usize) {
        self.generation.set(i64::try_from(directory.generation()).unwrap_or(i64::MAX));
        let mut counts = BTreeMap::new();
        for role in Role::ALL {
            for standing in Standing::ALL {
                counts.insert((role.as_str(), standing.as_str()), 0);
            }
        }
        let mut left_out = 0;
        for device in directory.devices(None) {
            left_out += bundle::left_out(device, seal_keys_max);
            *counts.entry((device.role.as_str(), device.standing.as_str())).or_default() += 1;
        }
        self.seal_keys_left_out.set(i64::try_from(left_out).unwrap_or(i64::MAX));
        for ((role, standing), count) in counts {
            self.devices.with_label_values(&[role, standing]).set(count);
        }
    }
}

fn labels(verdict: Verdict) -> [&'static str; 2] {
    match verdict {
        Verdict::Stored => ["stored", ""],
        Verdict::Known => ["known", ""],
        Verdict::Quarantined(reason) => ["quarantined", reason.as_str()],
    }
}

/// All registries on one page, in Prometheus' text format.
pub fn page<'a>(
    registries: impl IntoIterator<Item = &'a Registry>,
) -> Result<Vec<u8>, prometheus::Error> {
    let families: Vec<MetricFamily> = families(registries).into_values().collect();
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}

/// Stations share names (`plimsoll_invariant_violations_total`), and a name stands here once: its samples are put
/// together, and equal ones added up.
pub(crate) fn families<'a>(
    registries: impl IntoIterator<Item = &'a Registry>,
) -> BTreeMap<String, MetricFamily> {
    let mut families: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in registries.into_iter().flat_map(Registry::gather) {
        match families.get_mut(family.name()) {
            Some(there) => merge(there, &mut family),
            None => {
                families.insert(family.name().to_owned(), family);
            }
        }
    }
    families
}

fn merge(there: &mut MetricFamily, family: &mut MetricFamily) {
    let kind = there.get_field_type();
    for metric in family.take_metric() {
        let same = there.mut_metric().iter_mut().find(|m| m.get_label() == metric.get_label());
        match (same, kind) {
            (Some(same), MetricType::COUNTER) => {
                let mut counter = same.get_counter().clone();
                counter.set_value(counter.get_value() + metric.get_counter().get_value());
                same.set_counter(counter);
            }
            (Some(same), MetricType::GAUGE) => {
                let mut gauge = same.get_gauge().clone();
                gauge.set_value(gauge.get_value() + metric.get_gauge().get_value());
                same.set_gauge(gauge);
            }
            // Histograms have their station's name in theirs, so that two never meet.
            _ => there.mut_metric().push(metric),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_on_the_page_once_and_equal_samples_are_added_up() {
        let (a, b) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        a.count_violation("INV-ACK-1");
        b.count_violation("INV-ACK-1");
        b.count_violation("INV-REPLAY-1");
        let text = String::from_utf8(page([&a.registry, &b.registry]).unwrap()).unwrap();
        let name = "plimsoll_invariant_violations_total";
        assert_eq!(text.matches(&format!("# TYPE {name} counter")).count(), 1);
        for (invariant, count) in [("INV-ACK-1", 2), ("INV-REPLAY-1", 1), ("INV-AUTH-1", 0)] {
            let sample = format!("{name}{{invariant=\"{invariant}\"}} {count}\n");
            assert_eq!(text.matches(&sample).count(), 1, "{sample} in\n{text}");
        }
    }
}
