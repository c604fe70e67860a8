//! Connections: accepted within bounds, proved by TLS, served by the router.

use crate::caller::Peer;
use crate::http;
use crate::station::{Phase, Station};
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keys::UnixTime;
use model::told;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// A head of ours has under 2 KiB. Also how much of a body is read ahead.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// When the system has no more sockets to give: long enough for some to be closed, short enough not to be seen.
const PAUSE: Duration = Duration::from_millis(100);

/// The address at the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote(pub IpAddr);

pub(crate) struct Listener {
    station: Arc<Station>,
    router: Router,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Listener {
    pub fn new(station: Arc<Station>, tasks: TaskTracker) -> Self {
        let slots = Arc::new(Semaphore::new(station.limits.connections_max));
        let router = http::router(station.clone());
        Self { station, router, slots, tasks }
    }
}

/// Accepts until the station drains.
pub(crate) async fn run(listener: Listener, socket: TcpListener) {
    let listener = Arc::new(listener);
    let mut draining = pin!(listener.station.reached(Phase::Draining));
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = draining.as_mut() => return,
        };
        match accepted {
            Ok((stream, from)) => match listener.slots.clone().try_acquire_owned() {
                Ok(slot) => {
                    listener.tasks.spawn(connection(listener.clone(), stream, from.ip(), slot));
                }
                // Closed at once: a queue of strangers would be one more thing to bound.
                Err(_) => listener.station.metrics.connections_refused.inc(),
            },
            Err(error) => {
                tracing::warn!(error = %told(&error), "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(
    listener: Arc<Listener>,
    stream: TcpStream,
    from: IpAddr,
    slot: OwnedSemaphorePermit,
) {
    let metrics = &listener.station.metrics;
    metrics.connections.inc();
    tokio::select! {
        () = serve(&listener, stream, from) => {}
        () = listener.station.reached(Phase::Cut) => {}
    }
    drop(slot);
    metrics.connections.dec();
}

async fn serve(listener: &Listener, stream: TcpStream, from: IpAddr) {
    // A small answer is not to wait for a next one.
    let _ = stream.set_nodelay(true);
    let limits = &listener.station.limits;
    // The present one: control's own certificate changes while it serves.
    let acceptor = TlsAcceptor::from(listener.station.own.tls());
    let handshake = tokio::time::timeout(limits.handshake_time_max, acceptor.accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = listener.station.reached(Phase::Draining) => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return failed(listener, reason(&error), &told(&error)),
        Err(_) => return failed(listener, "timeout", "no handshake within its time"),
    };
    let peer = peer(listener, &stream);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(Remote(from));
        listener.router.clone().oneshot(request.map(axum::body::Body::new) as Request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time_max)
        .max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = listener.station.reached(Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = %told(&error), "connection ended");
    }
}

/// What the handshake proved. TLS took the certificate from any authority that we know; here it counts what that one
/// may grant: without this a maker could make gateways (INV-AUTH-1).
fn peer(listener: &Listener, stream: &TlsStream<TcpStream>) -> Peer {
    let (_, session) = stream.get_ref();
    let Some(leaf) = session.peer_certificates().and_then(|chain| chain.first()) else {
        return Peer::Anonymous;
    };
    match listener.station.issuers.identify(leaf, UnixTime::now()) {
        Ok(leaf) => Peer::from(&leaf),
        Err(error) => Peer::Unrecognised(told(&error)),
    }
}

fn failed(listener: &Listener, reason: &'static str, detail: &str) {
    listener.station.metrics.handshakes_failed.with_label_values(&[reason]).inc();
    tracing::info!(reason, detail, "handshake failed");
}

/// Few words, since each is a label.
fn reason(error: &std::io::Error) -> &'static str {
    use rustls::{CertificateError as C, Error as E};
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<E>());
    match tls {
        None => "connection_lost",
        Some(E::InvalidCertificate(C::UnknownIssuer)) => "unknown_issuer",
        Some(E::InvalidCertificate(C::Expired | C::ExpiredContext { .. })) => "expired",
        Some(E::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. })) => {
            "not_valid_yet"
        }
        Some(E::InvalidCertificate(C::BadSignature)) => "bad_signature",
        Some(E::InvalidCertificate(_)) => "bad_certificate",
        Some(E::PeerIncompatible(_)) => "incompatible",
        Some(E::AlertReceived(_)) => "alert",
        Some(_) => "not_tls",
    }
}
