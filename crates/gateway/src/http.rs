//! Devices' HTTP/1.1: checking in, and fetching what they are to run. Does IO; what is asked for and who may ask decide
//! [`crate::ask`] and [`crate::bundle`].
//!
//! Promises: each request is judged by the newest bundle, and a connection that it no longer lets in is cut, in the middle of
//! an answer too (INV-AUTH-1); heads, bodies, answers and times are bounded (INV-COST-1).
//! Never: changes what control has answered; asks control a second time by itself.
//!
//! One connection serves one request after the other. What is refused is said as problem+json (RFC 9457).

use crate::admission::judge_manifest;
use crate::ask::{self, Ask, ImageName, NotAsked, Span};
use crate::bundle::{Peer, View};
use crate::cache::{Cache, Failure, Reader};
use crate::control::{Link, now};
use crate::driver::Station;
use crate::images::{Images, Told};
use crate::limits::{Pace, Rate};
use crate::metrics::{Invariant, Metrics};
use crate::refusal::Refusal;
use crate::stall::Impatient;
use crate::traced::Update;
use crate::uplink::Reply;
use api::update::CHECK_IN_BYTES_MAX;
use api::{Problem, problem};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_RANGE,
    RANGE, RETRY_AFTER,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::manifest::Outcome;
use model::{DeviceId, Digest, Timestamp};
use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

/// A request of ours has under 1 KiB before its body.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 32;
/// What is read ahead, and what waits to be written.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// One to check in, one to fetch; and both once more, when the first ones died without a word.
const CONNECTIONS_OF_A_DEVICE: usize = 4;
/// Requests of one device. A whole update takes a dozen.
const REQUESTS: Rate = Rate { per_second: 5, burst: 60 };
/// Check-ins that wait for control, or whose answers wait to be read, all devices together: at most 128 MiB.
const CHECK_INS_MAX: usize = 32;
/// How long a check-in may wait for its turn.
const TURN_TIME: Duration = Duration::from_secs(5);
/// A request and its answer together.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// An image over 2.5 Mbit/s and its longest; who is slower asks for the rest.
const BLOB_TIME: Duration = Duration::from_secs(3600);
/// How long an answer on its way is still given at the end.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// When to ask again, where nobody has said.
const AGAIN: Duration = Duration::from_secs(5);
/// A device is not told to be silent for longer, whatever control says.
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// What control says of a refusal is handed on up to so many bytes.
const REASON_BYTES_MAX: usize = 16 * 1024;

/// What devices' HTTP needs besides the bundle.
pub(crate) struct Desk {
    link: Arc<Link>,
    images: Arc<Images>,
    cache: Arc<Cache>,
    check_ins: Arc<Semaphore>,
    asking: Mutex<HashMap<DeviceId, Asking>>,
}

/// One device's use of it.
struct Asking {
    connections: usize,
    pace: Pace,
    /// The image that it asked for last, and how many bytes it was not given yet since it began with it.
    image: Option<(Digest, u64)>,
    update: Update,
}

impl Desk {
    pub fn new(link: Arc<Link>, cache: Arc<Cache>, metrics: Metrics) -> Self {
        let check_ins = Arc::new(Semaphore::new(CHECK_INS_MAX));
        let images = Images::new(link.clone(), metrics);
        Self { link, images, cache, check_ins, asking: Mutex::default() }
    }

    /// Forgets devices that are gone, once they have no connection.
    pub fn retain_devices(&self, view: &View) {
        self.asking().retain(|device, asking| asking.connections > 0 || view.knows_device(device));
    }

    /// Charges a request or bytes of an answer, and says how long to wait.
    fn charge(&self, device: &DeviceId, requests: u64, bytes: u64, now: Duration) -> Duration {
        let mut asking = self.asking();
        let Some(asking) = asking.get_mut(device) else { return Duration::ZERO };
        asking.pace.charge(requests, bytes, now);
        asking.pace.wait(now)
    }

    /// A device asks for an image from its first byte on. If it was given all of it before, what it got was not the image:
    /// that one is read through again. It was given as many bytes as are read for that, so nobody has much read by asking
    /// for little (INV-COST-1).
    fn begins_anew(&self, device: &DeviceId, digest: Digest) {
        let had = self.asking().get_mut(device).and_then(|asking| asking.image.take());
        if had == Some((digest, 0)) {
            self.cache.doubt(&digest);
        }
    }

    /// It is about to be given some of an image of so many bytes.
    fn opens(&self, device: &DeviceId, digest: Digest, len: u64) {
        let mut asking = self.asking();
        let Some(asking) = asking.get_mut(device) else { return };
        if asking.image.is_none_or(|(before, _)| before != digest) {
            asking.image = Some((digest, len));
            asking.update.image_begins(digest, len, now());
        }
    }

    fn gives(&self, device: &DeviceId, digest: Digest, bytes: u64) {
        if let Some(Asking { image: Some((image, left)), update, .. }) =
            self.asking().get_mut(device)
            && *image == digest
        {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                update.image_is_given(now());
            }
        }
    }

    fn asking(&self) -> MutexGuard<'_, HashMap<DeviceId, Asking>> {
        self.asking.lock().expect("nothing panics while it holds who asks")
    }
}

/// One of the connections that a device may have. Gives it back when it is dropped.
struct Place {
    station: Arc<Station>,
    device: DeviceId,
}

impl Place {
    /// `None`: it has as many as it may.
    fn take(station: &Arc<Station>, device: &DeviceId) -> Option<Self> {
        let mut asking = station.desk.asking();
        let asking = asking.entry(device.clone()).or_insert_with(|| Asking {
            connections: 0,
            pace: Pace::new(REQUESTS, station.config.bytes),
            image: None,
            update: Update::default(),
        });
        if asking.connections >= CONNECTIONS_OF_A_DEVICE {
            return None;
        }
        asking.connections += 1;
        Some(Self { station: station.clone(), device: device.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(asking) = self.station.desk.asking().get_mut(&self.device) {
            asking.connections -= 1;
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    station: Arc<Station>,
    stream: TlsStream<TcpStream>,
    peer: Peer,
    from: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let who = peer.device.as_ref().map_or_else(|| from.to_string(), DeviceId::to_string);
    let refuse = |refusal| station.metrics.refuse(refusal, &who);
    let may = |view: Option<&Arc<View>>| view.is_some_and(|view| view.may_check_in(&peer).is_ok());
    let mut views = station.views.clone();
    let mut was_let_in = may(views.borrow_and_update().as_ref());
    let place = match &peer.device {
        // Only of devices that the bundle lets in something is remembered.
        Some(device) if was_let_in => match Place::take(&station, device) {
            Some(place) => Some(place),
            None => return refuse(Refusal::TooManyHttp),
        },
        _ => None,
    };
    let (until, mut untils) = watch::channel(Instant::now() + ANSWER_TIME);
    let heard = Arc::new(AtomicBool::new(false));
    let asker = Asker {
        station: station.clone(),
        peer: peer.clone(),
        who: who.clone(),
        is_counted: place.is_some(),
        heard: heard.clone(),
        until,
    };
    let service = service_fn(|request| asker.answer(request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(station.config.terms.connect_deadline)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let patience = station.config.stall_time;
    let stream = TokioIo::new(Impatient::new(stream, patience, heard.clone()));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut is_ending = false;
    loop {
        let deadline = *untils.borrow_and_update();
        // An older bundle decides nothing once a newer one is there: this comes before any byte is looked at.
        tokio::select! {
            biased;
            Ok(()) = views.changed() => {
                let may_now = may(views.borrow_and_update().as_ref());
                if was_let_in && !may_now {
                    refuse(Refusal::StandingChanged);
                    break;
                }
                was_let_in = may_now;
            }
            _ = stop.wait_for(|stop| *stop), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
                asker.until.send_replace(Instant::now() + STOP_GRACE);
            }
            () = tokio::time::sleep_until(deadline) => {
                if !is_ending {
                    refuse(Refusal::HttpTimeout);
                }
                break;
            }
            Ok(()) = untils.changed() => {}
            ended = connection.as_mut() => {
                // Who has said nothing since his last answer is done with us, and we with him.
                let is_idle = !heard.load(Ordering::Relaxed);
                match ended.err().and_then(|error| refusal_of(&error)) {
                    Some(Refusal::HttpTimeout) if is_idle => {}
                    Some(refusal) => refuse(refusal),
                    None => {}
                }
                break;
            }
        }
    }
    drop(place);
}

/// Which refusal the end of a connection is. `None`: the client hung up, or we did and have said why.
fn refusal_of(error: &hyper::Error) -> Option<Refusal> {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut) {
        return Some(Refusal::SlowReader);
    }
    if error.is_timeout() {
        return Some(Refusal::HttpTimeout);
    }
    error.is_parse().then_some(Refusal::HttpMalformed)
}

/// Whoever asks on one connection.
struct Asker {
    station: Arc<Station>,
    peer: Peer,
    who: String,
    /// It has a place among the connections of its device.
    is_counted: bool,
    /// Something was said since the last answer was ready.
    heard: Arc<AtomicBool>,
    /// Until when the present request is to be answered, and the answer read.
    until: watch::Sender<Instant>,
}

impl Asker {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        self.until.send_replace(Instant::now() + ANSWER_TIME);
        let uri = request.uri();
        let asked = ask::read(request.method().as_str(), uri.path(), uri.query());
        let what = asked.map_or("unknown", |ask| ask.as_str());
        let response = match self.carry_out(asked, request).await {
            Ok(response) => response,
            Err(no) => no.response(),
        };
        self.station.metrics.http_answered(what, response.status().as_u16());
        self.heard.store(false, Ordering::Relaxed);
        Ok(response)
    }

    async fn carry_out(
        &self,
        asked: Result<Ask, NotAsked>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, No> {
        let (view, device) = self.admit()?;
        let wait = self.station.desk.charge(&device, 1, 0, self.station.uptime());
        if !wait.is_zero() {
            self.station.metrics.held_back_ms.inc_by(wait.as_millis() as u64);
            tokio::time::sleep(wait).await;
        }
        match asked.map_err(No::from)? {
            Ask::CheckIn => self.check_in(&view, &device, request).await,
            Ask::Image(name) => self.image(name).await,
            Ask::Blob(digest) => self.blob(device, digest, &request).await,
        }
    }

    /// Nothing is looked at that no device asks which the newest bundle lets in (INV-AUTH-1).
    fn admit(&self) -> Result<(Arc<View>, DeviceId), No> {
        // Before there is a bundle nobody is counted, and nobody asks twice on one connection.
        let view = self.station.views.borrow().clone();
        let view = view.ok_or_else(|| No { ends: true, ..No::away() })?;
        if let Err(refusal) = view.may_check_in(&self.peer) {
            self.station.metrics.refuse(refusal, &self.who);
            return Err(No::denied(refusal));
        }
        let Some(device) = self.peer.device.clone() else {
            // The bundle lets nobody else so far: this is the second look.
            let what = "somebody asks over HTTP who is no device";
            self.station.metrics.violated(Invariant::Auth1, what);
            return Err(No::denied(Refusal::NotADevice));
        };
        if !self.is_counted {
            // A bundle that lets it in came after it had connected.
            return Err(No { ends: true, ..No::away() });
        }
        Ok((view, device))
    }

    async fn check_in(
        &self,
        view: &View,
        device: &DeviceId,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, No> {
        let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        if kind != Some(b"application/cose") {
            return Err(No::unsupported(kind));
        }
        let message = read(request.into_body()).await?;
        let came = now();
        let manifest = judge_manifest(view, device, &message).map_err(|refusal| {
            self.station.metrics.refuse(refusal, &self.who);
            No::unfit(refusal)
        })?;
        let desk = &self.station.desk;
        let turn = timeout(TURN_TIME, desk.check_ins.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| No::busy())?.expect("it is never closed");
        let reply = desk.link.check_in(device, message).await;
        match judge_answer(reply) {
            Ok(answer) => {
                self.tell(view, device, manifest.outcome.as_ref(), came);
                Ok(json(StatusCode::OK, Body::whole(answer, Some(turn))))
            }
            Err(no) => {
                if no.status == StatusCode::SERVICE_UNAVAILABLE {
                    self.station.metrics.check_ins_away.inc();
                    tracing::info!(%device, why = no.detail, "check-in not handed on");
                }
                Err(no)
            }
        }
    }

    /// Of what a device has said of its newest install, and control has heard.
    fn tell(&self, view: &View, device: &DeviceId, outcome: Option<&Outcome>, came: Timestamp) {
        let traces = &self.station.config.traces;
        if !traces.is_on() {
            return;
        }
        let news = match self.station.desk.asking().get_mut(device) {
            Some(asking) => asking.update.says(outcome),
            None => return,
        };
        if let Some(rollout) = outcome.and_then(|outcome| outcome.rollout.as_ref()) {
            let by = (self.station.site.as_str(), &view.gateway);
            news.tell(traces, by, (device, rollout), (came, now()));
        }
    }

    async fn image(&self, name: ImageName) -> Result<Response<Body>, No> {
        match self.station.desk.images.get(name).await {
            Told::File(bytes) => Ok(json(StatusCode::OK, Body::whole(bytes, None))),
            Told::Absent => {
                let title = "there is no such file";
                let detail = format!("expected a file of the image repository, found {name}");
                Err(No::new(StatusCode::NOT_FOUND, "absent", title, detail))
            }
            Told::Away => Err(No::away()),
        }
    }

    async fn blob(
        &self,
        device: DeviceId,
        digest: Digest,
        request: &Request<Incoming>,
    ) -> Result<Response<Body>, No> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        // What has this name has it for ever: a part of it can be asked for whatever came before.
        let tag = format!("\"{digest}\"");
        let range = header(RANGE).filter(|_| header(IF_RANGE).is_none_or(|of| of == tag));
        let desk = &self.station.desk;
        if !matches!(ask::span(range, u64::MAX), Span::Part(1.., _)) {
            desk.begins_anew(&device, digest);
        }
        let reader = desk.cache.reader(digest).await.map_err(No::from)?;
        let len = reader.len;
        desk.opens(&device, digest, len);
        let (status, span) = match ask::span(range, len) {
            Span::Whole => (StatusCode::OK, 0..len),
            Span::Part(from, to) => (StatusCode::PARTIAL_CONTENT, from..to),
            Span::Outside => return Err(No::outside(len)),
        };
        let mut response = Response::new(Body::default());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(ETAG, value(tag));
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {}-{}/{len}", span.start, span.end - 1);
            headers.insert(CONTENT_RANGE, value(range));
        }
        self.until.send_replace(Instant::now() + BLOB_TIME);
        let (pieces, piped) = mpsc::channel(1);
        *response.body_mut() = Body::piped(span.end - span.start, piped);
        tokio::spawn(pump(self.station.clone(), device, digest, reader, span, pieces));
        Ok(response)
    }
}

/// The pieces of an image that are given to one device, at its pace.
async fn pump(
    station: Arc<Station>,
    device: DeviceId,
    digest: Digest,
    mut reader: Reader,
    span: std::ops::Range<u64>,
    pieces: mpsc::Sender<Bytes>,
) {
    let mut at = span.start;
    while at < span.end {
        let max = (span.end - at).min(BUFFER_BYTES_MAX as u64) as usize;
        let read = tokio::select! {
            read = reader.read(at, max) => read,
            () = pieces.closed() => return,
        };
        let Ok(piece) = read else {
            // The answer ends before its end: the device asks for the rest.
            station.metrics.images_cut.inc();
            return;
        };
        let len = piece.len() as u64;
        at += len;
        let wait = station.desk.charge(&device, 0, len, station.uptime());
        station.desk.gives(&device, digest, len);
        if pieces.send(piece).await.is_err() {
            return;
        }
        station.metrics.cache_served_bytes.inc_by(len);
        tokio::time::sleep(wait).await;
    }
}

/// A whole body, within its bound.
async fn read(body: Incoming) -> Result<Vec<u8>, No> {
    match Limited::new(body, CHECK_IN_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(No::too_long()),
        Err(error) => Err(No::broken(&error.to_string())),
    }
}

/// What becomes of control's answer to a check-in. What it says of the manifest is the device's to hear; that it is in trouble
/// is, too: not now. The gateway changes nothing in what is meant for the device.
fn judge_answer(reply: Reply) -> Result<Vec<u8>, No> {
    let (status, retry_after, body) = match reply {
        Reply::Http { status, retry_after, body } => (status, retry_after, body),
        Reply::None(why) => return Err(No { detail: why, ..No::away() }),
    };
    let said = String::from_utf8_lossy(&body[..body.len().min(REASON_BYTES_MAX)]).into_owned();
    match status {
        200 => Ok(body),
        400..500 if !matches!(status, 401 | 408 | 425 | 429) => {
            let status = StatusCode::from_u16(status).expect("a status below 500 is one");
            let detail = match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) => problem.to_string(),
                Err(_) => said.chars().filter(|c| !c.is_control()).take(300).collect(),
            };
            Err(No::new(status, "refused_by_control", "control refuses this check-in", detail))
        }
        _ => {
            let again = retry_after.unwrap_or(AGAIN).min(AGAIN_MAX);
            let detail = format!("expected status 200 from control, found {status}");
            Err(No { detail, again: Some(again), ..No::away() })
        }
    }
}

fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = if status == StatusCode::OK { "application/json" } else { problem::CONTENT_TYPE };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
struct No {
    status: StatusCode,
    word: &'static str,
    title: &'static str,
    detail: String,
    again: Option<Duration>,
    allowed: Option<&'static str>,
    /// How long all of it is, to who asked for what lies behind.
    len: Option<u64>,
    /// Nothing more is heard on this connection.
    ends: bool,
}

impl No {
    fn new(
        status: StatusCode,
        word: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = detail.into();
        Self { status, word, title, detail, again: None, allowed: None, len: None, ends: false }
    }

    fn away() -> Self {
        let title = "the control plane is away";
        let no = Self::new(StatusCode::SERVICE_UNAVAILABLE, "control_away", title, "");
        Self { again: Some(AGAIN), ..no }
    }

    fn busy() -> Self {
        let detail = format!("expected fewer than {CHECK_INS_MAX} check-ins at a time");
        let title = "too many check in at a time";
        let no = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title, detail);
        Self { again: Some(AGAIN), ..no }
    }

    fn denied(refusal: Refusal) -> Self {
        let title = "the newest bundle does not let this device in";
        let no = Self::new(StatusCode::FORBIDDEN, refusal.as_str(), title, refusal.as_str());
        Self { ends: true, ..no }
    }

    fn unfit(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::UnknownKey => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        let detail = format!("expected a manifest that this device has sealed: {refusal}");
        Self::new(status, refusal.as_str(), "the manifest is not believed", detail)
    }

    fn unsupported(found: Option<&[u8]>) -> Self {
        let found = String::from_utf8_lossy(found.unwrap_or(b"nothing")).into_owned();
        let detail = format!("expected application/cose, found {found}");
        let (status, word) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
        Self { ends: true, ..Self::new(status, word, "the body is of another kind", detail) }
    }

    fn too_long() -> Self {
        let detail = format!("expected at most {CHECK_IN_BYTES_MAX} bytes, found more");
        let (status, word) = (StatusCode::PAYLOAD_TOO_LARGE, "oversize");
        Self { ends: true, ..Self::new(status, word, "the body is too long", detail) }
    }

    fn broken(error: &str) -> Self {
        let (status, word) = (StatusCode::BAD_REQUEST, "broken_body");
        Self { ends: true, ..Self::new(status, word, "the body cannot be read", error) }
    }

    fn outside(len: u64) -> Self {
        let detail = format!("expected a range within {len} bytes");
        let (status, title) = (StatusCode::RANGE_NOT_SATISFIABLE, "there is nothing in this range");
        Self { len: Some(len), ..Self::new(status, "outside", title, detail) }
    }

    fn response(self) -> Response<Body> {
        let status = self.status;
        let problem = Problem::new(status.as_u16(), self.word, self.title, self.detail);
        let bytes = serde_json::to_vec(&problem).expect("a problem is text and a number");
        let mut response = json(status, Body::whole(bytes, None));
        let headers = response.headers_mut();
        if let Some(again) = self.again {
            headers.insert(RETRY_AFTER, HeaderValue::from(again.as_secs().max(1)));
        }
        if let Some(allowed) = self.allowed {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if let Some(len) = self.len {
            headers.insert(CONTENT_RANGE, value(format!("bytes */{len}")));
        }
        if self.ends {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<NotAsked> for No {
    fn from(not: NotAsked) -> Self {
        // A body that may come with it is not read.
        match not {
            NotAsked::Path => {
                let detail = "expected a path of docs/gateway.md";
                let (status, title) = (StatusCode::NOT_FOUND, "there is nothing here");
                Self { ends: true, ..Self::new(status, "not_found", title, detail) }
            }
            NotAsked::Method { allowed } => {
                let (status, title) = (StatusCode::METHOD_NOT_ALLOWED, "this is not how to ask");
                let detail = format!("expected {allowed}");
                let no = Self::new(status, "method_not_allowed", title, detail);
                Self { allowed: Some(allowed), ends: true, ..no }
            }
        }
    }
}

impl From<Failure> for No {
    fn from(failure: Failure) -> Self {
        let (status, title) = match failure {
            Failure::Absent => (StatusCode::NOT_FOUND, "no release has this image"),
            Failure::Away { retry_after } => {
                let again = Some(retry_after.unwrap_or(AGAIN).min(AGAIN_MAX));
                return Self { again, ..Self::away() };
            }
            Failure::Mismatch => (StatusCode::BAD_GATEWAY, "what came is another image"),
            Failure::Unfit => (StatusCode::BAD_GATEWAY, "what came cannot be read"),
            Failure::TooLarge => {
                (StatusCode::INSUFFICIENT_STORAGE, "the cache is too small for it")
            }
            Failure::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "there is no room for it now"),
            Failure::Disk => (StatusCode::SERVICE_UNAVAILABLE, "the gateway's disk fails"),
            Failure::Busy => (StatusCode::SERVICE_UNAVAILABLE, "it is not here yet"),
        };
        let again = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(AGAIN);
        Self { again, ..Self::new(status, failure.as_str(), title, failure.as_str()) }
    }
}

/// Digits, hexadecimal digits and quotes.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("it is printable ASCII")
}

/// The body of an answer, given out piece by piece: what waits to be written is bounded.
#[derive(Default)]
struct Body {
    /// How much there is to come, all together.
    left: u64,
    here: Bytes,
    to_come: Option<mpsc::Receiver<Bytes>>,
    /// Held until the answer is given.
    _turn: Option<OwnedSemaphorePermit>,
}

impl Body {
    fn whole(bytes: impl Into<Bytes>, turn: Option<OwnedSemaphorePermit>) -> Self {
        let here = bytes.into();
        Self { left: here.len() as u64, here, to_come: None, _turn: turn }
    }

    fn piped(len: u64, pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { left: len, to_come: Some(pieces), ..Self::default() }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match &mut self.to_come {
            Some(to_come) => ready!(to_come.poll_recv(context)),
            None => {
                let len = self.here.len().min(BUFFER_BYTES_MAX);
                Some(self.here.split_to(len))
            }
        };
        let Some(piece) = piece else {
            // What was promised does not come: the connection ends, and the device knows that this is not all.
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        };
        self.left = self.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
