//! The queue of spans, and the task that posts them. Does IO.
//!
//! A post is tried once. Who loses a span loses a picture, and a queue of retries would only move where it is lost: after a post
//! that failed the collector is left alone for a while ([`AGAIN_MAX`] at most, or as long as it asks), meanwhile the queue fills
//! up, and what finds no room is dropped. That it fails is said once, and that it works again.

use crate::id::{Threshold, Trace, TraceId};
use crate::otlp::{Told, Value, request};
use crate::settings::Settings;
use crate::share::Shares;
use crate::step::Step;
use model::{Counter, DeviceId, KeyId, RolloutId, Timestamp, told};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

/// Spans that wait to be sent: some 2 MB.
pub const QUEUE_MAX: usize = 2048;
/// Spans of one post.
const POST_SPANS_MAX: usize = 512;
/// How long a span waits for others.
const POST_EVERY: Duration = Duration::from_secs(1);
/// From the connection to the answer's end; OpenTelemetry's own default.
const POST_TIME_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// After a post that failed; it doubles up to the longest.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How long the end of a process waits for its last spans.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// Why the process does not start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot read the authorities of the traces' collector from {}", path.display())]
    Ca { path: PathBuf, source: std::io::Error },
    #[error("no certificate in PEM in {}: expected the authorities of the traces' collector", path.display())]
    NoCa { path: PathBuf },
    #[error("cannot set up TLS to the traces' collector")]
    Tls(#[source] rustls::Error),
    #[error("cannot set up HTTP to the traces' collector")]
    Http(#[source] reqwest::Error),
}

/// What was sent, and what was dropped.
#[derive(Clone, Debug)]
pub struct Metrics {
    sent: IntCounter,
    dropped: IntCounterVec,
}

/// Why a span, or with `share` a trace, is not told.
const REASONS: [&str; 4] = ["share", "queue", "collector", "rejected"];

impl Metrics {
    fn new() -> Self {
        let sent = IntCounter::new(
            "plimsoll_traces_sent_total",
            "Spans that the traces' collector has taken.",
        );
        let dropped = Opts::new(
            "plimsoll_traces_dropped_total",
            "Spans that were dropped: the queue was full (queue), the collector was away (collector) or refused them \
             (rejected); and traces beyond their device's share (share).",
        );
        let dropped = IntCounterVec::new(dropped, &["reason"]);
        let made = "the names and labels are well-formed";
        let metrics = Self { sent: sent.expect(made), dropped: dropped.expect(made) };
        REASONS.iter().for_each(|reason| metrics.drop(reason, 0));
        metrics
    }

    fn drop(&self, reason: &str, spans: u64) {
        self.dropped.with_label_values(&[reason]).inc_by(spans);
    }

    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    pub fn dropped(&self, reason: &str) -> u64 {
        self.dropped.with_label_values(&[reason]).get()
    }
}

/// Where stations tell their spans. Clones tell to the same queue; the default one is nobody's ear.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    threshold: Threshold,
    shares: Shares,
    began: Instant,
    queue: mpsc::Sender<Told>,
    /// Dropped, it ends the task; the task's end is told by the other.
    end: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
    metrics: Metrics,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_on() { "Traces(on)" } else { "Traces(off)" })
    }
}

impl Traces {
    /// Starts the task that posts; must be called within a runtime. `version`: this release's.
    pub fn start(settings: &Settings, version: &'static str) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let (end, ending) = oneshot::channel();
        let (ended, has_ended) = oneshot::channel();
        let post = Post {
            client: client(settings)?,
            url: settings.url.clone(),
            version,
            failures: 0,
            metrics: metrics.clone(),
        };
        tokio::spawn(async move {
            post_all(post, spans, ending).await;
            // Whoever waited may have gone.
            let _ = ended.send(());
        });
        tracing::info!(url = %settings.url, ratio = settings.ratio, "traces are sent");
        Ok(Self(Some(Arc::new(Inner {
            threshold: Threshold::of(settings.ratio),
            shares: Shares::new(),
            began: Instant::now(),
            queue,
            end: Mutex::new(Some((end, has_ended))),
            metrics,
        }))))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The trace of a message that was believed, if it is told of.
    pub fn message(&self, device: &DeviceId, key: &KeyId, counter: Counter) -> Option<Trace> {
        let inner = self.0.as_deref()?;
        let id = TraceId::of_message(key, counter);
        inner.threshold.samples(id).then_some(())?;
        inner.trace(device, id, inner.threshold)
    }

    /// The trace of an update. Each is told of, whatever the share of readings.
    pub fn update(&self, site: &str, rollout: &RolloutId, device: &DeviceId) -> Option<Trace> {
        let inner = self.0.as_deref()?;
        inner.trace(device, TraceId::of_update(site, rollout, device), Threshold::ALL)
    }

    /// Tells of a step. Never waits: what finds no room is dropped, and counted.
    pub fn tell(
        &self,
        trace: Trace,
        step: &Step<'_>,
        device: &DeviceId,
        (from, to): (Timestamp, Timestamp),
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        let Some(inner) = self.0.as_deref() else { return };
        let mut attributes = vec![("device.id", device.as_str().into())];
        if let Some(gateway) = step.gateway() {
            attributes.push(("plimsoll.gateway", gateway.as_str().into()));
        }
        attributes.extend(more);
        let span = Told::new(trace, step, from, to, attributes);
        match inner.queue.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => inner.metrics.drop("queue", 1),
        }
    }

    /// Posts what waits, for a moment; what is told from now on is dropped.
    pub async fn end(&self) {
        let Some(inner) = self.0.as_deref() else { return };
        let end = inner.end.lock().expect("nothing panics while it holds the end").take();
        let Some((end, ended)) = end else { return };
        drop(end);
        let _ = tokio::time::timeout(END_TIME_MAX, ended).await;
    }

    /// To be shown where the station's own are. `None`: there are no traces.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.0.as_deref().map(|inner| &inner.metrics)
    }

    /// Shows what is counted in a registry of the station's.
    pub fn show_in(&self, registry: &Registry) {
        let Some(Metrics { sent, dropped }) = self.metrics() else { return };
        let collectors: [Box<dyn Collector>; 2] =
            [Box::new(sent.clone()), Box::new(dropped.clone())];
        for collector in collectors {
            registry.register(collector).expect("each name stands here once");
        }
    }
}

impl Inner {
    fn trace(&self, device: &DeviceId, id: TraceId, threshold: Threshold) -> Option<Trace> {
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if self.shares.take(device, now_us) {
            return Some(Trace { id, threshold });
        }
        self.metrics.drop("share", 1);
        None
    }
}

struct Post {
    client: reqwest::Client,
    url: String,
    version: &'static str,
    /// One after the other, up to now.
    failures: u32,
    metrics: Metrics,
}

/// Posts until the end is said, or nobody tells anything any more; then what waits, once.
async fn post_all(mut post: Post, mut spans: mpsc::Receiver<Told>, ending: oneshot::Receiver<()>) {
    let mut batch = Vec::with_capacity(POST_SPANS_MAX);
    post.serve(&mut spans, &mut batch, ending).await;
    spans.close();
    while spans.recv_many(&mut batch, QUEUE_MAX).await > 0 {}
    if !batch.is_empty() {
        post.post(&mut batch).await;
    }
}

impl Post {
    /// A post that was begun is waited for, at the end too.
    async fn serve(
        &mut self,
        spans: &mut mpsc::Receiver<Told>,
        batch: &mut Vec<Told>,
        mut ending: oneshot::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                heard = spans.recv_many(batch, POST_SPANS_MAX) => if heard == 0 { return },
                _ = &mut ending => return,
            }
            // The first of a batch waits for others.
            let others = async {
                while batch.len() < POST_SPANS_MAX {
                    let room = POST_SPANS_MAX - batch.len();
                    if spans.recv_many(batch, room).await == 0 {
                        return;
                    }
                }
            };
            tokio::select! {
                () = others => {}
                () = tokio::time::sleep(POST_EVERY) => {}
                _ = &mut ending => return,
            }
            if let Some(wait) = self.post(batch).await {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = &mut ending => return,
                }
            }
        }
    }

    /// Posts and counts a batch. `Some`: the collector did not take it, and is left alone for so long.
    async fn post(&mut self, batch: &mut Vec<Told>) -> Option<Duration> {
        let posted = self.try_post(batch).await;
        let count = batch.len() as u64;
        batch.clear();
        match posted {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.metrics.sent.inc_by(count - rejected);
                self.metrics.drop("rejected", rejected);
                if self.failures > 0 {
                    tracing::info!("the traces' collector takes spans again");
                }
                self.failures = 0;
                None
            }
            Err(NotTaken { why, wait }) => {
                self.metrics.drop("collector", count);
                if self.failures == 0 {
                    tracing::warn!(
                        why,
                        spans = count,
                        "the traces' collector takes no spans: they are dropped"
                    );
                }
                let again = AGAIN_FIRST * (1 << self.failures.min(8));
                self.failures = self.failures.saturating_add(1);
                Some(wait.unwrap_or(again).min(AGAIN_MAX))
            }
        }
    }

    /// How many spans the collector rejected.
    async fn try_post(&self, spans: &[Told]) -> Result<u64, NotTaken> {
        let failed =
            |error: reqwest::Error| NotTaken { why: told(&error.without_url()), wait: None };
        let body = request(spans, self.version);
        let mut answer = self.client.post(&self.url).body(body).send().await.map_err(failed)?;
        let status = answer.status();
        if !status.is_success() {
            let wait = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let wait = wait.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            return Err(NotTaken { why: format!("expected 2xx, was answered {status}"), wait });
        }
        let mut body = Vec::new();
        // What it says of spans that it rejects is short; the rest is nothing to us.
        while body.len() < ANSWER_BYTES_MAX
            && let Some(chunk) = answer.chunk().await.map_err(failed)?
        {
            body.extend_from_slice(&chunk);
        }
        Ok(rejected(&body))
    }
}

/// A post that failed.
struct NotTaken {
    why: String,
    /// How long the collector asks to be left alone.
    wait: Option<Duration>,
}

/// `partialSuccess.rejectedSpans`, a number or, as this encoding has it, its decimal text.
fn rejected(answer: &[u8]) -> u64 {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let rejected = &answer["partialSuccess"]["rejectedSpans"];
    let text = rejected.as_str().and_then(|text| text.parse().ok());
    rejected.as_u64().or(text).unwrap_or(0)
}

fn client(settings: &Settings) -> Result<reqwest::Client, StartError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in &settings.headers {
        let name = HeaderName::try_from(name).expect("it was read as a header");
        let mut value = HeaderValue::try_from(value).expect("it was read as a header");
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls(settings)?)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIME_MAX)
        .timeout(POST_TIME_MAX)
        .default_headers(headers)
        .pool_max_idle_per_host(1)
        .build()
        .map_err(StartError::Http)
}

/// The authorities of this machine, and one of the collector's own.
fn tls(settings: &Settings) -> Result<ClientConfig, StartError> {
    let mut roots = RootCertStore::empty();
    // A machine without authorities of its own is no error: the collector may bring one, or be spoken to without TLS.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &settings.ca {
        let no_ca = || StartError::NoCa { path: path.clone() };
        let pem =
            std::fs::read(path).map_err(|source| StartError::Ca { path: path.clone(), source })?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let (added, _) = roots.add_parsable_certificates(found.map_err(|_| no_ca())?);
        if added == 0 {
            return Err(no_ca());
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(StartError::Tls)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
