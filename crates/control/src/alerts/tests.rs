//! Rules over the real registry, with a clock of their own.

use super::driver::look;
use super::*;
use crate::Control;
use crate::http::tests::control_with;
use crate::station::Station;
use api::alert::{Condition, Priority, Signal};
use api::{Answer, Ask, Column, QueryError, Within};
use model::uplink::{QuarantineReason, Verdict};
use prometheus::{IntGaugeVec, Opts};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Mutex as StdMutex;
use table::Page;
use tempfile::TempDir;

const MINUTE: i64 = 60_000_000;

/// Answers each question with the rows that were laid down for it, by a word that is in it.
#[derive(Default)]
struct Store(StdMutex<Vec<(&'static str, Vec<Value>)>>);

impl Store {
    fn lay_down(&self, word: &'static str, rows: Vec<Value>) {
        let mut known = self.0.lock().unwrap();
        known.retain(|(of, _)| *of != word);
        known.push((word, rows));
    }
}

impl Query for Store {
    fn query(
        &self,
        ask: Ask,
        _: Option<Arc<Within>>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, QueryError>> + Send + '_>> {
        assert!(!ask.sql.contains("$now_ms"), "the time is put in: {}", ask.sql);
        let known = self.0.lock().unwrap();
        let rows = known.iter().find(|(word, _)| ask.sql.contains(word));
        let rows = rows.map(|(_, rows)| rows.clone()).unwrap_or_default();
        let column = |name: &str| Column { name: name.into(), kind: "Utf8".into() };
        let columns = ["subject", "value", "gateway"].map(column).to_vec();
        let rows = rows.into_iter().map(|row| row.as_array().unwrap().clone()).collect();
        Box::pin(async move { Ok(Answer { columns, rows, truncated: false, took_ms: 1 }) })
    }
}

struct Site {
    dir: TempDir,
    store: Arc<Store>,
    control: Control,
    now: Timestamp,
}

impl Site {
    async fn new() -> Self {
        Self::with(vec![]).await
    }

    async fn with(registries: Vec<prometheus::Registry>) -> Self {
        let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(Store::default()));
        let control = control_with(&dir, store.clone(), registries).await;
        let now = now();
        Self { dir, store, control, now }
    }

    async fn restart(self) -> Self {
        let Self { dir, store, control, now } = self;
        control.shutdown().await;
        let control = control_with(&dir, store.clone(), vec![]).await;
        Self { dir, store, control, now }
    }

    fn station(&self) -> &Arc<Station> {
        self.control.station()
    }

    /// Time passes, and all rules that are due by then are looked at.
    async fn after(&mut self, minutes: i64) {
        self.now = Timestamp(self.now.as_us() + minutes * MINUTE);
        look(self.station(), self.now).await;
    }

    async fn rule(&self, rule: Rule) {
        let alerts = &self.station().alerts;
        alerts.act(Act::Rule(rule), &"user/anna".into(), self.now).await.unwrap();
    }

    async fn alerts(&self, state: &'static str) -> Vec<api::alert::Alert> {
        let page = Page { state: Some(state), limit: 1000, ..Page::default() };
        let read = self
            .control
            .registry()
            .read(move |tx| -> Work<'_, _, RegistryError> { Box::pin(table::page(tx, page)) });
        read.await.unwrap().0
    }

    async fn of(&self, rule: &str) -> Vec<api::alert::Alert> {
        let mut open = self.alerts("open").await;
        open.retain(|alert| alert.rule == rule);
        open
    }

    async fn actions(&self, of: &'static str) -> Vec<String> {
        let events = self.control.registry().told(0, None, 10_000).await.unwrap();
        let of = events.iter().filter(|event| event.action().starts_with(of));
        of.map(|event| event.action().to_owned()).collect()
    }
}

fn rule(signal: Signal, when: Condition) -> Rule {
    Rule {
        id: "ours".into(),
        sentence: "{subject}: {value}".into(),
        priority: Priority::Notice,
        signal,
        when,
        for_ms: 0,
        every_ms: 60_000,
        escalate_after_ms: Some(600_000),
        runbook: None,
        group_by_gateway: true,
        latched: false,
        owner: None,
        enabled: true,
    }
}

fn pumps(when: Condition) -> Rule {
    rule(Signal::Sql("select pumps".into()), when)
}

#[tokio::test]
async fn an_alert_is_raised_told_escalated_and_resolved_over_restarts_and_never_twice() {
    let mut site = Site::new().await;
    site.store
        .lay_down("pumps", vec![json!(["pump-1", 90, "gw-1"]), json!(["pump-2", 95, "gw-1"])]);
    site.rule(Rule { for_ms: 120_000, ..pumps(Condition::Above(80.0)) }).await;
    site.after(1).await;
    site.after(1).await;
    assert_eq!(site.of("ours").await, []);
    site.after(1).await;
    let raised = site.of("ours").await;
    assert_eq!(raised.len(), 1);
    assert_eq!((raised[0].subject.as_str(), raised[0].count), ("gw-1", 2));
    assert_eq!(raised[0].sentence, "gw-1: 95 (pump-1 and 1 more)");
    for (minutes, priority) in
        [(5, Priority::Notice), (5, Priority::Warning), (10, Priority::Critical)]
    {
        site = site.restart().await;
        site.after(minutes).await;
        let open = site.of("ours").await;
        assert_eq!((open.len(), open[0].id, open[0].priority), (1, raised[0].id, priority));
    }
    site.store.lay_down("pumps", vec![]);
    site.after(1).await;
    site = site.restart().await;
    site.after(1).await;
    assert_eq!(site.of("ours").await.len(), 1, "it has to be clear for a while, at every look");
    site.after(1).await;
    assert_eq!(site.of("ours").await, []);
    let told = site.actions("alert.").await;
    assert_eq!(told, ["alert.raise", "alert.escalate", "alert.escalate", "alert.resolve"]);
}

#[tokio::test]
async fn a_counter_counts_what_it_has_grown_by_and_what_could_not_be_written_counts_again() {
    let mut site = Site::new().await;
    let name = "plimsoll_control_refused_total".to_owned();
    let labels = BTreeMap::from([("reason".to_owned(), "bus_full".to_owned())]);
    let bus_full = Signal::Metric { name, labels };
    site.rule(rule(bus_full, Condition::Above(2.0))).await;
    let count = |site: &Site, by| {
        site.station().metrics.refused.with_label_values(&["bus_full"]).inc_by(by);
    };
    count(&site, 2);
    site.after(1).await;
    count(&site, 2);
    site.after(1).await;
    assert_eq!(site.of("ours").await, []);
    count(&site, 3);
    site.after(1).await;
    assert_eq!(site.of("ours").await[0].value, Some(3.0));
    assert_eq!(site.of("ours").await[0].subject, "site");
}

#[tokio::test]
async fn a_metric_that_is_not_there_or_is_no_number_is_said_and_not_taken_for_good() {
    let mut site = Site::new().await;
    for (name, why) in [
        ("plimsoll_nothing", "this process has no metric `plimsoll_nothing`"),
        (
            "plimsoll_control_request_seconds",
            "expected a counter or a gauge, found that `plimsoll_control_request_seconds` is a histogram",
        ),
    ] {
        site.station().metrics.request_seconds.with_label_values(&["health"]).observe(1.0);
        let signal = Signal::Metric { name: name.into(), labels: BTreeMap::new() };
        site.rule(rule(signal, Condition::Above(0.0))).await;
        site.after(1).await;
        let state = site.station().alerts.state();
        assert_eq!(state.rule("ours").unwrap().trouble.as_deref(), Some(why));
    }
}

#[tokio::test]
async fn who_was_known_before_a_restart_is_missed_after_it() {
    let mut site = Site::new().await;
    site.store.lay_down("pumps", vec![json!(["pump-1", 0, null]), json!(["pump-2", 0, null])]);
    site.rule(pumps(Condition::Absent)).await;
    site.after(1).await;
    site = site.restart().await;
    site.store.lay_down("pumps", vec![json!(["pump-1", 0, null])]);
    site.after(1).await;
    let missed: Vec<String> = site.of("ours").await.into_iter().map(|a| a.subject).collect();
    assert_eq!(missed, ["pump-2"]);
}

/// What a shipped rule reads, brought to where it fires, by what the product itself counts with.
fn provoke(site: &Site, store: &IntGaugeVec, rule: &str) {
    let metrics = &site.station().metrics;
    match rule {
        "invariant-broken" => metrics.count_violation("INV-AUTH-1"),
        "key-in-two-places" => {
            site.store.lay_down("reason = 'equivocation'", vec![json!(["pump-1", 1, null])]);
        }
        "messages-in-quarantine" => {
            metrics.count_verdict(Verdict::Quarantined(QuarantineReason::ALL[0]));
            site.store.lay_down("10 minutes", vec![json!(["pump-1", 3, "gw-1"])]);
        }
        "counters-have-gaps" => site.store.lay_down("from gaps", vec![json!(["pump-1", 2, null])]),
        "refusals-rise" => metrics.refused.with_label_values(&["out_of_scope"]).inc_by(101),
        "tokens-guessed" => metrics.refused.with_label_values(&["bad_token"]).inc_by(11),
        "handshakes-fail" => {
            metrics.handshakes_failed.with_label_values(&["not_tls"]).inc_by(101);
        }
        "evidence-fails" => metrics.evidence_checkpoints_failed.inc(),
        "bus-full" => metrics.refused.with_label_values(&["bus_full"]).inc(),
        "store-has-no-room" => store.with_label_values(&["0"]).set(1),
        "device-stuck" => metrics.permits.with_label_values(&["stuck"]).inc(),
        "nobody-was-told" => metrics.tellings.with_label_values(&["given_up"]).inc(),
        "certificate-ends" => metrics.certificate_expires.set(at(site, 9)),
        "director-root-ends" => metrics.director_root_ends.set(at(site, 29)),
        "releases-end" => metrics.releases_end.set(at(site, 0) + 3600),
        other => panic!("nothing here makes rule `{other}` fire"),
    }
}

/// Seconds since 1970, so many days from the site's now.
fn at(site: &Site, days: i64) -> i64 {
    site.now.as_us() / 1_000_000 + days * 86_400
}

/// Figures of the store in this process.
fn store_figures() -> (prometheus::Registry, IntGaugeVec) {
    let registry = prometheus::Registry::new();
    let gauges = |name: &str| IntGaugeVec::new(Opts::new(name, "A figure."), &["shard"]).unwrap();
    let (room, lag) = (gauges("plimsoll_store_no_room"), gauges("plimsoll_store_lag_records"));
    for gauge in [&room, &lag] {
        gauge.with_label_values(&["0"]).set(0);
        registry.register(Box::new(gauge.clone())).unwrap();
    }
    lag.with_label_values(&["0"]).set(100_001);
    (registry, room)
}

#[tokio::test]
async fn each_shipped_rule_fires_when_what_it_is_about_happens_and_not_before() {
    // These read what is set anew at each look, from the station itself: what they say is set right where it is read.
    let set_at_each_look = [
        "evidence-behind",
        "disk-nearly-full",
        "disk-full",
        "releases-not-read",
        "rollout-halted",
        "rule-cannot-be-evaluated",
        // Fired by a device that falls silent: tests/it/alerts.rs.
        "devices-silent",
    ];
    for (id, rule) in rule::shipped() {
        if set_at_each_look.contains(&id.as_str()) {
            continue;
        }
        let (registry, room) = store_figures();
        let mut site = Site::with(vec![registry]).await;
        if id != "store-behind" {
            site.after(1).await;
            site.after(1).await;
            let early: Vec<_> = site.of(id).await;
            assert_eq!(early, [], "{id} before anything happened");
            provoke(&site, &room, id);
        }
        // Until it was so for as long as it has to be.
        let looks = 2 + rule.for_ms / rule.every_ms;
        let minutes = i64::try_from(rule.every_ms.div_ceil(60_000)).unwrap();
        for _ in 0..looks {
            site.after(minutes).await;
        }
        let fired = site.of(id).await;
        assert_eq!(fired.len(), 1, "{id}");
        assert_eq!(fired[0].runbook, rule.runbook, "{id}");
        assert!(!fired[0].sentence.contains('{'), "{id}: {}", fired[0].sentence);
        let trouble = site.station().alerts.state();
        assert_eq!(trouble.rule(id).unwrap().trouble, None, "{id}");
    }
}

/// The rest of the shipped rules: their metric is set by the station at each look, so they are fed with a page of metrics.
#[test]
fn each_shipped_rule_on_what_is_set_at_each_look_fires_on_its_own_metric() {
    let metrics = Metrics::new().unwrap();
    metrics.evidence_behind.set(1001);
    metrics.disk_free_percent.set(2);
    metrics.releases_failing.set(1);
    metrics.look_at_rollouts([rollout::Named::Halted].into_iter());
    metrics.rules_failing.with_label_values(&["pumps-hot"]).set(1);
    let families = crate::metrics::families([&metrics.registry]);
    for id in [
        "evidence-behind",
        "disk-nearly-full",
        "disk-full",
        "releases-not-read",
        "rollout-halted",
        "rule-cannot-be-evaluated",
    ] {
        let rule = Arc::new(rule::shipped()[id].clone());
        let Signal::Metric { name, labels } = &rule.signal else { panic!("{id} reads a metric") };
        let (mut state, _) = State::load(1, [rule.clone()], [], [], vec![], 0);
        let mut raised = 0;
        for look in 0..=1 + rule.for_ms / rule.every_ms {
            let meter = Meter::default();
            let at = look * rule.every_ms;
            let (found, _) = meter.samples(id, &families, name, labels, at).unwrap();
            let looked = Event::Looked { rule: id.into(), found, cut: false, excused: vec![] };
            let (next, effects) = state.on(looked, at);
            state = next;
            let raise = |effect: &&step::Effect| matches!(effect, step::Effect::Raise(_));
            raised += effects.iter().filter(raise).count();
        }
        assert_eq!(raised, 1, "{id}");
    }
}

#[test]
fn each_shipped_rule_can_be_relied_on_and_names_a_page_that_is_there_and_whose_business_it_is() {
    let runbooks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbooks");
    assert!(rule::shipped().len() >= 20);
    for (id, rule) in rule::shipped() {
        assert_eq!(rule::check(rule), Ok(()), "{id}");
        assert!(rule.owner.is_some(), "{id}: whose business is it?");
        let page = rule.runbook.as_ref().unwrap_or_else(|| panic!("{id}: what is to be done?"));
        assert!(runbooks.join(page).is_file(), "{id}: docs/runbooks/{page} is not there");
        assert!(rule.escalate_after_ms.is_some() || rule.latched, "{id}: nobody is told again");
    }
}

/// Everything that a target is told is a row first: it is there after a restart, and goes out once.
#[tokio::test]
async fn a_report_is_made_once_a_week_and_goes_to_those_who_want_it_also_over_a_restart() {
    let mut site = Site::new().await;
    let target = |id: &str, reports| Target {
        id: id.into(),
        way: api::alert::Way::Webhook {
            url: "http://127.0.0.1:9/".into(),
            secret: api::alert::Secret::new("0123456789abcdef"),
            ca_pem: None,
        },
        from_priority: Priority::Notice,
        reports,
    };
    for target in [target("board", true), target("night", false)] {
        let alerts = &site.station().alerts;
        alerts.act(Act::Target(target), &"user/anna".into(), site.now).await.unwrap();
    }
    let week = i64::try_from(report::WEEK_MS).unwrap() * 1000;
    let queues = |site: &Site| {
        let registry = site.control.registry().clone();
        async move {
            let read =
                registry.read(|tx| -> Work<'_, _, RegistryError> { Box::pin(table::queues(tx)) });
            read.await.unwrap().into_iter().collect::<Vec<_>>()
        }
    };
    // The last week ended before the site was there.
    report::send_if_due(site.station(), site.now).await;
    assert_eq!(queues(&site).await, []);
    site.now = Timestamp(site.now.as_us() + week);
    report::send_if_due(site.station(), site.now).await;
    report::send_if_due(site.station(), site.now).await;
    site = site.restart().await;
    report::send_if_due(site.station(), site.now).await;
    assert_eq!(queues(&site).await, [("board".to_owned(), 1)]);
    // What nobody takes is tried again, and given up after a day, on record, and by a shipped rule an alert.
    tell::deliver_due(&site.station().alerts, site.now).await;
    assert_eq!(queues(&site).await, [("board".to_owned(), 1)]);
    site.now = Timestamp(site.now.as_us() + 25 * 60 * MINUTE);
    tell::deliver_due(&site.station().alerts, site.now).await;
    assert_eq!(queues(&site).await, []);
    assert_eq!(site.actions("telling.").await, ["telling.given_up"]);
    site.after(1).await;
    assert_eq!(site.of("nobody-was-told").await.len(), 1);
    let shown = site.station().alerts.targets().await.unwrap();
    assert!(shown[0].trouble.is_some() && shown[0].has_secret);
    let all = format!("{shown:?}{}", serde_json::to_string(&shown).unwrap());
    assert!(!all.contains("0123456789abcdef"), "{all}");
    site.now = Timestamp(site.now.as_us() + week);
    report::send_if_due(site.station(), site.now).await;
    // That alert waits for both, and the new report for the one that wants it.
    let waiting = [("board".to_owned(), 2), ("night".to_owned(), 1)];
    assert_eq!(queues(&site).await, waiting);
    assert_eq!(site.actions("report.").await, ["report.make", "report.make"]);
}
