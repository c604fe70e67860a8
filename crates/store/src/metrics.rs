//! What the store counts. One registry per store, never a global one.

use model::uplink::QuarantineReason;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// The invariants that the store holds: each is shown from the start, as 0.
pub const INVARIANTS: [&str; 4] = ["INV-ACK-1", "INV-AUTH-1", "INV-COST-1", "INV-REPLAY-1"];

/// Why questions are refused: the labels of the counter.
pub const REFUSALS: [&str; 5] = ["bad_sql", "too_slow", "too_large", "busy", "failed"];

#[derive(Clone, Debug)]
pub struct Metrics {
    pub registry: Registry,
    pub messages: IntCounterVec,
    pub quarantined: IntCounterVec,
    pub rows: IntCounterVec,
    pub keys_not_remembered: IntCounter,
    pub fresh_rows: IntGaugeVec,
    pub lag: IntGaugeVec,
    pub committed: IntGaugeVec,
    pub open_gaps: IntGaugeVec,
    pub no_room: IntGaugeVec,
    pub flush_seconds: Histogram,
    pub flush_rows: Histogram,
    pub flush_bytes: IntCounterVec,
    pub lost_places: IntCounter,
    pub orphans: IntCounter,
    pub violations: IntCounterVec,
    pub query_seconds: HistogramVec,
    pub query_refusals: IntCounterVec,
    pub query_running: IntGauge,
    pub query_waiting: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let steps_of_rows = prometheus::exponential_buckets(100.0, 4.0, 8);
        let metrics = Self {
            messages: counters(
                r,
                "plimsoll_ingest_messages_total",
                "Messages by what became of them.",
                &["outcome"],
            ),
            quarantined: counters(
                r,
                "plimsoll_ingest_quarantined_total",
                "Messages filed in quarantine, by reason.",
                &["reason"],
            ),
            rows: counters(r, "plimsoll_ingest_rows_total", "Rows taken in, by table.", &["table"]),
            keys_not_remembered: counter(
                r,
                "plimsoll_ingest_keys_not_remembered_total",
                "Keys that devices named as their own beyond the number that is remembered.",
            ),
            fresh_rows: gauges(
                r,
                "plimsoll_store_fresh_rows",
                "Rows in memory and on the bus, in no file yet.",
            ),
            lag: gauges(
                r,
                "plimsoll_store_lag_records",
                "Records on the bus that are not committed.",
            ),
            committed: gauges(
                r,
                "plimsoll_store_committed_offset",
                "The first record that is not committed.",
            ),
            open_gaps: gauges(
                r,
                "plimsoll_store_open_gaps",
                "Ranges of counters that are missing and may still come, as of the last flush.",
            ),
            no_room: gauges(
                r,
                "plimsoll_store_no_room",
                "1 while the disk has no room for a flush: nothing is taken in, and nothing is lost.",
            ),
            flush_seconds: histogram(
                r,
                HistogramOpts::new("plimsoll_store_flush_seconds", "How long a flush took.")
                    .buckets(vec![0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]),
            ),
            flush_rows: histogram(
                r,
                HistogramOpts::new("plimsoll_store_flush_rows", "Rows in a flush.")
                    .buckets(steps_of_rows.expect("a positive start, factor and count")),
            ),
            flush_bytes: counters(
                r,
                "plimsoll_store_flush_bytes_total",
                "Bytes written to files, by table.",
                &["table"],
            ),
            lost_places: counter(
                r,
                "plimsoll_store_lost_places_total",
                "Steps that found their shard elsewhere and were dropped.",
            ),
            orphans: counter(
                r,
                "plimsoll_store_orphans_removed_total",
                "Files of steps that never happened, removed at start.",
            ),
            violations: counters(
                r,
                "plimsoll_invariant_violations_total",
                "Violations of invariants, which must stay at 0.",
                &["invariant"],
            ),
            query_seconds: {
                let options = HistogramOpts::new(
                    "plimsoll_query_seconds",
                    "How long questions took, waiting included, by result.",
                );
                let buckets = vec![0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
                let vec = HistogramVec::new(options.buckets(buckets), &["result"]);
                register(r, vec.expect("the name and labels are valid"))
            },
            query_refusals: counters(
                r,
                "plimsoll_query_refusals_total",
                "Questions without an answer, by reason.",
                &["reason"],
            ),
            query_running: register(
                r,
                IntGauge::new("plimsoll_query_running", "Questions that run now.")
                    .expect("the name is valid"),
            ),
            query_waiting: register(
                r,
                IntGauge::new("plimsoll_query_waiting", "Questions that wait now.")
                    .expect("the name is valid"),
            ),
            registry,
        };
        metrics.show_zeros();
        metrics
    }

    fn show_zeros(&self) {
        for outcome in ["new", "repeat", "quarantined"] {
            self.messages.with_label_values(&[outcome]);
        }
        for reason in QuarantineReason::ALL {
            self.quarantined.with_label_values(&[reason.as_str()]);
        }
        for table in ["readings", "quarantine", "losses"] {
            self.rows.with_label_values(&[table]);
        }
        for invariant in INVARIANTS {
            self.violations.with_label_values(&[invariant]);
        }
        for reason in REFUSALS {
            self.query_refusals.with_label_values(&[reason]);
        }
    }

    /// Says so, once, where an operator looks.
    pub(crate) fn violated(&self, invariant: &str, error: &dyn std::error::Error) {
        self.violations.with_label_values(&[invariant]).inc();
        tracing::error!(invariant, error = %error, "invariant violated");
    }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, one: C) -> C {
    registry.register(Box::new(one.clone())).expect("each name is registered once");
    one
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help).expect("the name is valid"))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), labels);
    register(registry, counters.expect("the name and labels are valid"))
}

fn gauges(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    let gauges = IntGaugeVec::new(Opts::new(name, help), &["shard"]);
    register(registry, gauges.expect("the name and labels are valid"))
}

fn histogram(registry: &Registry, options: HistogramOpts) -> Histogram {
    register(registry, Histogram::with_opts(options).expect("the name is valid"))
}
