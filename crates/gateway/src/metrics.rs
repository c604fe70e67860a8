//! What an operator sees of a gateway, in numbers. Every labelled counter exists, with 0, from the start.

use crate::bundle::BundleError;
use crate::limits::{Bucket, Rate};
use crate::refusal::Refusal;
use model::uplink::{QuarantineReason, Verdict};
use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use std::sync::{Arc, Mutex};
use std::time::Instant;

macro_rules! invariants {
    ($($(#[$doc:meta])* $variant:ident = $label:literal;)*) => {
        /// The invariants at which this station looks a second time, behind what holds them. Each is raised somewhere, or
        /// the compiler complains of it: a counter that nobody can raise would say more than we know.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Invariant { $($(#[$doc])* $variant,)* }

        impl Invariant {
            const LABELS: &'static [&'static str] = &[$($label,)*];

            const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

invariants! {
    /// A record of the spool that was durable cannot be read.
    Ack1 = "INV-ACK-1";
    /// A session is open, or offers something, and is no device's.
    Auth1 = "INV-AUTH-1";
    /// More answers than a session may have messages in flight.
    Cost1 = "INV-COST-1";
    /// The bundle in use went back.
    Fresh1 = "INV-FRESH-1";
    /// Records were given up that the windows had not been folded from.
    Replay1 = "INV-REPLAY-1";
}

/// Refusals that are logged, all together: whoever is refused often must not fill the disk (INV-COST-1). Each is counted.
const LOGGED: Rate = Rate { per_second: 20, burst: 400 };

/// Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    began: Instant,
    logged: Arc<Mutex<Bucket>>,
    pub log_suppressed: IntCounter,
    refused: IntCounterVec,
    bundles_refused: IntCounterVec,
    quarantined: IntCounterVec,
    verdicts: IntCounterVec,
    violations: IntCounterVec,
    http_answers: IntCounterVec,
    pub check_ins_away: IntCounter,
    pub images_stale: IntCounter,
    pub images_cut: IntCounter,
    cache_failures: IntCounterVec,
    pub cache_bytes: IntGauge,
    pub cache_images: IntGauge,
    pub cache_hits: IntCounter,
    pub cache_fetches: IntCounter,
    pub cache_fetched_bytes: IntCounter,
    pub cache_served_bytes: IntCounter,
    pub cache_removed: IntCounter,
    pub cache_rotten: IntCounter,
    pub connections: IntGauge,
    pub sessions: IntGauge,
    pub handshakes: IntCounter,
    pub packets: IntCounter,
    pub sessions_ended: IntCounter,
    pub admitted_fresh: IntCounter,
    pub admitted_history: IntCounter,
    pub admitted_late: IntCounter,
    pub repeats: IntCounter,
    pub held_back_ms: IntCounter,
    pub ack_seconds: Histogram,
    pub spool_records: IntGauge,
    pub spool_bytes: IntGauge,
    pub spool_oldest_seconds: IntGauge,
    pub disk_reserve: IntGauge,
    pub window_keys: IntGauge,
    pub checkpoints: IntCounter,
    pub keeps_put_off: IntCounter,
    pub uplink_batches: IntCounter,
    pub uplink_retries: IntCounter,
    pub uplink_refused: IntCounter,
    pub uplink_bad_replies: IntCounter,
    pub bundle_generation: IntGauge,
    pub bundle_devices: IntGauge,
    pub bundle_unreadable: IntGauge,
    pub bundle_polls_failed: IntCounter,
    pub certificate_expires: IntGauge,
    pub renewals_failed: IntCounter,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            began: Instant::now(),
            logged: Arc::new(Mutex::new(Bucket::new(LOGGED))),
            log_suppressed: counter(
                r,
                "log_suppressed_total",
                "Refusals that were counted and not logged, since there were too many.",
            ),
            refused: counters(r, "refused_total", "What was refused, by reason.", "reason"),
            bundles_refused: counters(
                r,
                "bundles_refused_total",
                "Bundles that were not taken, by reason.",
                "reason",
            ),
            quarantined: counters(
                r,
                "uplink_quarantined_total",
                "Records that control put apart, by reason.",
                "reason",
            ),
            verdicts: counters(
                r,
                "uplink_records_total",
                "Records that control answered for, by verdict.",
                "verdict",
            ),
            violations: registered(
                r,
                IntCounterVec::new(
                    Opts::new(
                        "plimsoll_invariant_violations_total",
                        "Breaches of an invariant that a second look has found: must stay 0.",
                    ),
                    &["invariant"],
                ),
            ),
            http_answers: registered(
                r,
                IntCounterVec::new(
                    Opts::new(
                        "plimsoll_gateway_http_answers_total",
                        "Answers to devices over HTTP, by what was asked for and their status.",
                    ),
                    &["what", "status"],
                ),
            ),
            check_ins_away: counter(
                r,
                "check_ins_away_total",
                "Check-ins that control did not answer, or put off.",
            ),
            images_stale: counter(
                r,
                "images_stale_total",
                "Answers with metadata that could not be asked for again, since control is away.",
            ),
            images_cut: counter(
                r,
                "images_cut_total",
                "Answers with an image that ended before their end: the device asks for the rest.",
            ),
            cache_failures: counters(
                r,
                "cache_failures_total",
                "Images that could not be had, by reason.",
                "reason",
            ),
            cache_bytes: gauge(r, "cache_bytes", "What images in the cache take, or will take."),
            cache_images: gauge(r, "cache_images", "Images in the cache, also begun ones."),
            cache_hits: counter(
                r,
                "cache_hits_total",
                "Questions for an image that was here, whole.",
            ),
            cache_fetches: counter(r, "cache_fetches_total", "Images that were asked of control."),
            cache_fetched_bytes: counter(
                r,
                "cache_fetched_bytes_total",
                "Bytes of images that came from control.",
            ),
            cache_served_bytes: counter(
                r,
                "cache_served_bytes_total",
                "Bytes of images that devices were given.",
            ),
            cache_removed: counter(r, "cache_removed_total", "Files removed from the cache."),
            cache_rotten: counter(
                r,
                "cache_rotten_total",
                "Images on the disk that were not what they had been: fetched again.",
            ),
            connections: gauge(r, "connections", "Open TCP connections on the device listener."),
            sessions: gauge(r, "sessions", "Devices with an open MQTT session."),
            handshakes: counter(r, "handshakes_total", "TLS handshakes that succeeded."),
            packets: counter(r, "packets_total", "MQTT packets that passed both readers."),
            sessions_ended: counter(r, "sessions_ended_total", "MQTT sessions that have ended."),
            admitted_fresh: counter(
                r,
                "admitted_fresh_total",
                "Messages made durable that had heard their session's nonce.",
            ),
            admitted_history: counter(
                r,
                "admitted_history_total",
                "Messages made durable that had not heard their session's nonce: history.",
            ),
            admitted_late: counter(
                r,
                "admitted_late_total",
                "Messages made durable, of both kinds, below the highest counter of their key.",
            ),
            repeats: counter(r, "repeats_total", "Honest repeats: answered, not stored again."),
            held_back_ms: counter(
                r,
                "held_back_milliseconds_total",
                "Time for which devices over their rate were not read from.",
            ),
            ack_seconds: registered(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "plimsoll_gateway_ack_seconds",
                        "From a message's last byte to its record on the disk.",
                    )
                    .buckets(prometheus::exponential_buckets(0.0005, 2.0, 16).expect("16 powers")),
                ),
            ),
            spool_records: gauge(r, "spool_records", "Durable records not handed up yet."),
            spool_bytes: gauge(r, "spool_bytes", "Bytes that the spool takes on the disk."),
            spool_oldest_seconds: gauge(
                r,
                "spool_oldest_seconds",
                "Age of the oldest record not handed up yet, by this gateway's clock.",
            ),
            disk_reserve: gauge(r, "disk_reserve", "1 while the disk has only its reserve left."),
            window_keys: gauge(r, "window_keys", "Keys whose last messages are remembered."),
            checkpoints: counter(r, "checkpoints_total", "Checkpoints of the windows."),
            keeps_put_off: counter(
                r,
                "keeps_put_off_total",
                "Times that cursor or windows found no room on the disk, to be kept later.",
            ),
            uplink_batches: counter(r, "uplink_batches_total", "Batches that control answered."),
            uplink_retries: counter(r, "uplink_retries_total", "Batches that were sent again."),
            uplink_refused: counter(
                r,
                "uplink_batches_refused_total",
                "Batches that control refused as a whole. An alarm: the spool does not move.",
            ),
            uplink_bad_replies: counter(
                r,
                "uplink_bad_replies_total",
                "Answers that were not one verdict a record.",
            ),
            bundle_generation: gauge(r, "bundle_generation", "Generation of the bundle in use."),
            bundle_devices: gauge(r, "bundle_devices", "Devices in the bundle in use."),
            bundle_unreadable: gauge(
                r,
                "bundle_unreadable_entries",
                "Entries of the bundle in use that could not be read: nobody gets in by them.",
            ),
            bundle_polls_failed: counter(
                r,
                "bundle_polls_failed_total",
                "Questions for a newer bundle without an answer.",
            ),
            certificate_expires: gauge(
                r,
                "certificate_expires_timestamp_seconds",
                "When this gateway's TLS certificate ends; 0 if it has no end.",
            ),
            renewals_failed: counter(
                r,
                "renewals_failed_total",
                "Times that a certificate or key of this gateway was due to be replaced and was not.",
            ),
            registry,
        };
        metrics.start_at_zero();
        metrics
    }

    /// Counts a refusal, and logs it as one event: a device, or the address of who did not prove to be one.
    pub fn refuse(&self, refusal: Refusal, who: &str) {
        self.refused.with_label_values(&[refusal.as_str()]).inc();
        if self.may_log() {
            let (reason, code) = (refusal.as_str(), refusal.code());
            tracing::info!(peer = who, reason, code, "refused");
        } else {
            self.log_suppressed.inc();
        }
    }

    fn may_log(&self) -> bool {
        let now = self.began.elapsed();
        let mut logged = self.logged.lock().expect("nothing panics while it holds the budget");
        let free = logged.wait(now).is_zero();
        if free {
            logged.charge(1, now);
        }
        free
    }

    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused.with_label_values(&[refusal.as_str()]).get()
    }

    pub fn refuse_bundle(&self, error: &BundleError) {
        self.bundles_refused.with_label_values(&[error.as_str()]).inc();
    }

    pub fn bundles_refused(&self, label: &str) -> u64 {
        self.bundles_refused.with_label_values(&[label]).get()
    }

    /// Counts an answer over HTTP. Both labels have few values: what is in the table of [`crate::ask`], and the statuses that the
    /// gateway gives or hands on.
    pub(crate) fn http_answered(&self, what: &str, status: u16) {
        self.http_answers.with_label_values(&[what, &status.to_string()]).inc();
    }

    pub(crate) fn cache_failed(&self, reason: &str) {
        self.cache_failures.with_label_values(&[reason]).inc();
    }

    pub fn cache_failures(&self, reason: &str) -> u64 {
        self.cache_failures.with_label_values(&[reason]).get()
    }

    pub fn http_answers(&self, what: &str, status: u16) -> u64 {
        self.http_answers.with_label_values(&[what, &status.to_string()]).get()
    }

    pub fn verdict(&self, verdict: Verdict) {
        let label = match verdict {
            Verdict::Stored => "stored",
            Verdict::Known => "known",
            Verdict::Quarantined(reason) => {
                self.quarantined.with_label_values(&[reason.as_str()]).inc();
                "quarantined"
            }
        };
        self.verdicts.with_label_values(&[label]).inc();
    }

    /// Says what was found, and counts it: it must never be.
    pub(crate) fn violated(&self, invariant: Invariant, what: &str) {
        let invariant = invariant.as_str();
        tracing::error!(invariant, what, "invariant violated");
        self.violations.with_label_values(&[invariant]).inc();
    }

    pub fn violations(&self, invariant: &str) -> u64 {
        self.violations.with_label_values(&[invariant]).get()
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The Prometheus text format.
    pub fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .expect("metrics that were registered can be written to memory");
        out
    }

    fn start_at_zero(&self) {
        for refusal in Refusal::ALL {
            self.refused.with_label_values(&[refusal.as_str()]);
        }
        for label in BundleError::LABELS {
            self.bundles_refused.with_label_values(&[label]);
        }
        for reason in QuarantineReason::ALL {
            self.quarantined.with_label_values(&[reason.as_str()]);
        }
        for reason in crate::cache::Failure::LABELS {
            self.cache_failures.with_label_values(&[reason]);
        }
        for what in crate::ask::Ask::LABELS {
            self.http_answers.with_label_values(&[what, "200"]);
        }
        for label in ["stored", "known", "quarantined"] {
            self.verdicts.with_label_values(&[label]);
        }
        for invariant in Invariant::LABELS {
            self.violations.with_label_values(&[invariant]);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::new(format!("plimsoll_gateway_{name}"), help))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::new(format!("plimsoll_gateway_{name}"), help))
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    let opts = Opts::new(format!("plimsoll_gateway_{name}"), help);
    registered(registry, IntCounterVec::new(opts, &[label]))
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("names and labels are literals of this file");
    registry.register(Box::new(collector.clone())).expect("each name stands here once");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_invariant_is_there_with_zero_before_anything_happens() {
        let text = String::from_utf8(Metrics::new().text()).unwrap();
        for refusal in Refusal::ALL {
            let line = format!("plimsoll_gateway_refused_total{{reason=\"{refusal}\"}} 0");
            assert!(text.contains(&line), "{line}");
        }
        for invariant in Invariant::LABELS {
            let line =
                format!("plimsoll_invariant_violations_total{{invariant=\"{invariant}\"}} 0");
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains("plimsoll_gateway_spool_records 0"));
    }
}
