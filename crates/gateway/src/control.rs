//! The calls to the control plane: handing up the spool, asking for newer bundles, and what devices ask for. Does IO, decides
//! nothing: [`crate::uplink`], [`crate::bundle`] and [`crate::http`] do.
//!
//! What is the gateway's own is tried again here alone: jittered exponential back-off up to `retry_max`, Retry-After honoured,
//! for ever. What piles up meanwhile is bounded by the spool. What a device asks for is asked once: it tries again by itself.

use crate::ask::ImageName;
use crate::bundle::{BundleError, Keeper, View};
use crate::identity::random;
use crate::limits::Backoff;
use crate::metrics::Metrics;
use crate::sealer::Sealer;
use crate::spool::{Record, Spool, SpoolError};
use crate::uplink::{self, Outcome, Reply};
use api::path;
use api::update::CHECK_IN_ANSWER_BYTES_MAX;
use arc_swap::ArcSwap;
use bus::Offset;
use model::told;
use model::uplink::Verdict;
use model::{DeviceId, Digest, GatewayId, Timestamp};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RANGE, RETRY_AFTER};
use rustls::ClientConfig;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::timeout;
use traces::{Step, Trace, Traces};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A batch of 1 MiB over 512 kbit/s takes 16 s; its fsync and answer well under one.
const UPLINK_TIMEOUT: Duration = Duration::from_secs(60);
/// On top of what a question for a bundle may wait at control: 32 MiB over 8 Mbit/s.
const BUNDLE_TIMEOUT: Duration = Duration::from_secs(40);
/// Some 20 KiB of metadata over 512 kbit/s take a third of a second; making them, less. A device waits 20 s, its turn here
/// included, and tries again by itself.
const CHECK_IN_TIMEOUT: Duration = Duration::from_secs(12);
/// The longest file of 2 MiB over 1 Mbit/s takes 17 s.
const IMAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest image over 10 Mbit/s takes a quarter of an hour. What takes longer goes on with another question.
const BLOB_TIMEOUT: Duration = Duration::from_secs(3600);
/// Control may verify an image before it gives it out for the first time.
const BLOB_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The least time between two questions for a bundle that brought none.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// For how long an answer is still waited for at the end.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// How often the cursor is made durable while records are handed up. What is handed up twice is known there.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// An HTTP client under the gateway's TLS identity.
pub(crate) struct Link {
    base_url: String,
    http: ArcSwap<reqwest::Client>,
}

impl Link {
    pub fn new(base_url: &str, tls: &ClientConfig) -> Result<Self, reqwest::Error> {
        let base_url = base_url.trim_end_matches('/').to_owned();
        Ok(Self { base_url, http: ArcSwap::from_pointee(client(tls)?) })
    }

    /// Goes on under a renewed certificate.
    pub fn renew(&self, tls: &ClientConfig) -> Result<(), reqwest::Error> {
        self.http.store(Arc::new(client(tls)?));
        Ok(())
    }

    async fn hand_up(&self, body: Vec<u8>) -> Reply {
        let request = self
            .http
            .load()
            .post(format!("{}{}", self.base_url, path::GATEWAY_UPLINK))
            .header(CONTENT_TYPE, "application/cose")
            .header(CONTENT_ENCODING, "zstd")
            .timeout(UPLINK_TIMEOUT)
            .body(body);
        answer(request, uplink::REPLY_BYTES_MAX).await
    }

    /// A device's manifest, in its name.
    pub async fn check_in(&self, device: &DeviceId, message: Vec<u8>) -> Reply {
        let request = self
            .http
            .load()
            .post(format!("{}{}?device={device}", self.base_url, path::GATEWAY_CHECK_IN))
            .header(CONTENT_TYPE, "application/cose")
            .timeout(CHECK_IN_TIMEOUT)
            .body(message);
        answer(request, CHECK_IN_ANSWER_BYTES_MAX).await
    }

    /// A metadata file of the image repository.
    pub async fn image(&self, name: ImageName) -> Reply {
        let request = self
            .http
            .load()
            .get(format!("{}{}/{name}", self.base_url, path::GATEWAY_IMAGES))
            .timeout(IMAGE_TIMEOUT);
        answer(request, name.role.bytes_max()).await
    }

    /// The head of the answer to who asks for an image from a byte on; its body follows.
    pub async fn blob(&self, digest: &Digest, from: u64) -> Result<reqwest::Response, String> {
        let mut request = self
            .http
            .load()
            .get(format!("{}{}/{digest}", self.base_url, path::GATEWAY_BLOBS))
            .timeout(BLOB_TIMEOUT);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        match timeout(BLOB_HEAD_TIMEOUT, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(told(&error.without_url())),
            Err(_) => Err(format!("no answer within {} s", BLOB_HEAD_TIMEOUT.as_secs())),
        }
    }

    async fn bundle(&self, after: u64, wait: Duration) -> Reply {
        let query = format!("after={after}&wait_s={}", wait.as_secs());
        let request = self
            .http
            .load()
            .get(format!("{}{}?{query}", self.base_url, path::GATEWAY_BUNDLE))
            .timeout(wait + BUNDLE_TIMEOUT);
        answer(request, crate::bundle::BUNDLE_BYTES_MAX).await
    }
}

fn client(tls: &ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .https_only(true)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(16)
        .build()
}

/// Reads an answer up to a bound.
async fn answer(request: reqwest::RequestBuilder, bytes_max: usize) -> Reply {
    let none = |error: reqwest::Error| Reply::None(told(&error.without_url()));
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return none(error),
    };
    let retry_after = retry_after(response.headers());
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > bytes_max => {
                return Reply::None(format!("an answer of more than {bytes_max} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Reply::Http { status, retry_after, body },
            Err(error) => return none(error),
        }
    }
}

/// How long the server asks to be left alone.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// Everything that handing up needs.
pub(crate) struct Uplink {
    pub link: Arc<Link>,
    pub spool: Spool,
    pub views: watch::Receiver<Option<Arc<View>>>,
    pub sealer: Arc<Mutex<Sealer>>,
    pub metrics: Metrics,
    pub retry_max: Duration,
    pub began: Instant,
    pub traces: Traces,
}

/// A batch, ready to be sent.
struct Sealed {
    body: Vec<u8>,
    records: usize,
    next: Offset,
    bytes: u64,
    made_at: Timestamp,
    /// The records of it that are traced, and by whom it is handed up.
    traced: Vec<(usize, DeviceId, Trace)>,
    gateway: GatewayId,
}

impl Uplink {
    /// Hands up the spool until told to stop. An error is the disk's: the process must stop.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), SpoolError> {
        let mut end = self.spool.durable_end();
        let mut backoff = Backoff::new(self.retry_max);
        let mut keep_at = tokio::time::Instant::now() + KEEP_EVERY;
        let mut is_put_off = false;
        while !*stop.borrow() {
            if tokio::time::Instant::now() >= keep_at {
                is_put_off = self.keep(is_put_off).await?;
                keep_at = tokio::time::Instant::now() + KEEP_EVERY;
            }
            let cursor = self.spool.cursor();
            if cursor >= self.spool.end() {
                self.metrics.spool_oldest_seconds.set(0);
                tokio::select! {
                    _ = end.wait_for(|end| *end > cursor) => {}
                    () = tokio::time::sleep_until(keep_at) => continue,
                    _ = stop.wait_for(|stop| *stop) => continue,
                }
            }
            let Some(sealed) = self.sealed().await? else {
                tokio::time::sleep(KEEP_EVERY).await;
                continue;
            };
            let Some(verdicts) = self.answered(&sealed, &mut backoff, &mut stop).await else {
                continue;
            };
            backoff.reset();
            self.metrics.uplink_batches.inc();
            self.count(&verdicts);
            self.tell(&sealed, &verdicts);
            self.spool.answered_below(sealed.next, sealed.bytes);
        }
        Ok(())
    }

    /// Makes durable what was answered. Without room on the disk that is put off, and handing up goes on: it is what makes
    /// room. Says whether it is put off.
    async fn keep(&self, was_put_off: bool) -> Result<bool, SpoolError> {
        let spool = self.spool.clone();
        match blocking(move || spool.keep()).await {
            Ok(()) => Ok(false),
            Err(error) if error.is_for_want_of_room() => {
                self.metrics.keeps_put_off.inc();
                if !was_put_off {
                    let error = told(&error);
                    tracing::error!(error, "the disk is full: cursor and windows are kept later");
                }
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends one batch until it is answered. `None`: told to stop, or the batch is to be made anew.
    async fn answered(
        &self,
        sealed: &Sealed,
        backoff: &mut Backoff,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<Vec<Verdict>> {
        loop {
            let reply = tokio::select! {
                reply = self.link.hand_up(sealed.body.clone()) => reply,
                () = told_to_stop(stop) => return None,
            };
            let (asked, again) = match uplink::judge(&reply, sealed.records) {
                Outcome::Verdicts(verdicts) => return Some(verdicts),
                Outcome::Again { retry_after, why } => {
                    self.metrics.uplink_retries.inc();
                    tracing::warn!(why, records = sealed.records, "batch not handed up yet");
                    (retry_after, true)
                }
                Outcome::Refused { status, why } => {
                    self.metrics.uplink_refused.inc();
                    tracing::error!(
                        status,
                        why,
                        records = sealed.records,
                        "batch refused as a whole"
                    );
                    (None, false)
                }
                Outcome::Unfit(why) => {
                    self.metrics.uplink_bad_replies.inc();
                    tracing::error!(why, records = sealed.records, "answer does not fit the batch");
                    (None, false)
                }
            };
            let wait = backoff.wait(random(), asked);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return None,
            }
            // A key or a zone may have changed since it was sealed: a refused batch is made anew.
            if !again {
                return None;
            }
        }
    }

    /// The next batch. `None`: there is no bundle to say what zone this is.
    async fn sealed(&self) -> Result<Option<Sealed>, SpoolError> {
        let Some(view) = self.views.borrow().clone() else { return Ok(None) };
        let (spool, sealer, metrics) =
            (self.spool.clone(), self.sealer.clone(), self.metrics.clone());
        let traces = self.traces.clone();
        let uptime_ms = self.began.elapsed().as_millis() as u64;
        blocking(move || {
            let records = spool.next(uplink::RECORDS_MAX, uplink::BYTES_MAX)?;
            let traced = traced(&traces, &records);
            let Some(batch) = uplink::batch(&view, records) else { return Ok(None) };
            let now = now();
            let made_at = now;
            if let Some(oldest) = batch.payload.records.first() {
                let age_us = now.as_us().saturating_sub(oldest.received_at.as_us());
                metrics.spool_oldest_seconds.set(age_us / 1_000_000);
            }
            let message = sealer
                .lock()
                .expect("sealing does not panic")
                .seal(&batch.payload.encode(), now, uptime_ms)
                .expect("a key in memory signs");
            // Level 1: messages are signed and mostly numbers; a higher level costs time and finds little more.
            let body = zstd::bulk::compress(&message, 1).expect("memory is all that it needs");
            let records = batch.payload.records.len();
            let gateway = batch.payload.gateway;
            let (next, bytes) = (batch.next, batch.bytes);
            Ok(Some(Sealed { body, records, next, bytes, made_at, traced, gateway }))
        })
        .await
    }

    fn tell(&self, sealed: &Sealed, verdicts: &[Verdict]) {
        let (step, at) = (Step::HandUp { gateway: &sealed.gateway }, (sealed.made_at, now()));
        for (index, device, trace) in &sealed.traced {
            // What did not fit into this batch is traced with its own.
            let Some(verdict) = verdicts.get(*index) else { continue };
            let more = [
                ("messaging.operation.type", "send".into()),
                ("messaging.batch.message_count", sealed.records.into()),
                ("plimsoll.verdict", word(verdict).into()),
            ];
            self.traces.tell(*trace, &step, device, at, more);
        }
    }

    fn count(&self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            self.metrics.verdict(*verdict);
            if let Verdict::Quarantined(reason) = verdict {
                tracing::warn!(reason = reason.as_str(), "record put in quarantine by control");
            }
        }
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Stored => "stored",
        Verdict::Known => "known",
        Verdict::Quarantined(reason) => reason.as_str(),
    }
}

/// The records of readings that are traced, by their places.
fn traced(traces: &Traces, records: &[(Offset, Record)]) -> Vec<(usize, DeviceId, Trace)> {
    if !traces.is_on() {
        return Vec::new();
    }
    let one = |(index, (_, record)): (usize, &(Offset, Record))| {
        let trace = traces.message(&record.device, &record.key, record.counter)?;
        crate::traced::header(&record.message)?;
        Some((index, record.device.clone(), trace))
    };
    records.iter().enumerate().filter_map(one).collect()
}

/// Resolves a while after the word to stop: an answer that is on its way is still heard, so that its batch is not handed
/// up again.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(STOP_GRACE).await;
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work on the disk does not panic")
}

/// Asks for newer bundles until told to stop. An error is the disk's: the process must stop.
pub(crate) async fn follow_bundles(
    link: Arc<Link>,
    keeper: Arc<Keeper>,
    metrics: Metrics,
    wait: Duration,
    retry_max: Duration,
    mut stop: watch::Receiver<bool>,
) -> Result<(), BundleError> {
    let mut backoff = Backoff::new(retry_max);
    let mut unchanged_at = None;
    loop {
        // A control plane that does not wait before it says "nothing newer" is not asked in a loop.
        if let Some(at) = unchanged_at.take() {
            tokio::select! {
                () = tokio::time::sleep_until(at + ASK_EVERY) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
        let (began, before) = (tokio::time::Instant::now(), keeper.newest());
        let asked = tokio::select! {
            asked = ask_for_bundle(&link, &keeper, &metrics, wait) => asked?,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let Some(retry_after) = asked else {
            backoff.reset();
            let generation = |view: Option<Arc<View>>| view.map(|view| view.generation);
            unchanged_at = (generation(before) == generation(keeper.newest())).then_some(began);
            continue;
        };
        let pause = backoff.wait(random(), retry_after);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

/// Asks once. `Ok(None)`: there was an answer, ask again at once. `Ok(Some)`: ask again later, and not before that.
pub(crate) async fn ask_for_bundle(
    link: &Link,
    keeper: &Arc<Keeper>,
    metrics: &Metrics,
    wait: Duration,
) -> Result<Option<Option<Duration>>, BundleError> {
    let after = keeper.newest().map_or(0, |view| view.generation);
    let failed = |retry_after, why: String| {
        metrics.bundle_polls_failed.inc();
        tracing::warn!(why, generation = after, "no newer bundle could be asked for");
        Ok(Some(retry_after))
    };
    let body = match link.bundle(after, wait).await {
        Reply::Http { status: 204, .. } => return Ok(None),
        Reply::Http { status: 200, body, .. } => body,
        Reply::Http { status, retry_after, body } => {
            let text = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            return failed(retry_after, format!("status {status}: {text}"));
        }
        Reply::None(why) => return failed(None, why),
    };
    let taker = keeper.clone();
    match blocking(move || taker.accept(&body)).await {
        Ok(view) => {
            tracing::info!(
                generation = view.generation, zone = %view.zone, devices = view.devices(),
                unreadable = view.unreadable, "bundle taken"
            );
            Ok(None)
        }
        Err(error) => {
            metrics.refuse_bundle(&error);
            tracing::error!(error = %told(&error), reason = error.as_str(), "bundle refused");
            // A disk without room may have some later; after a failed sync nobody knows what is on it.
            match &error {
                BundleError::Keep { source, .. } if !disk::is_full(source) => Err(error),
                _ => Ok(Some(None)),
            }
        }
    }
}

/// This gateway's wall clock: a label. A clock before 1970 is taken as 1970.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
