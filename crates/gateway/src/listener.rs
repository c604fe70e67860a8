//! Where devices connect: TCP, TLS 1.3, and who is at the other end.
//!
//! Promises: no more connections than there may be, each with one deadline from its first byte to a whole CONNECT
//! (INV-COST-1); a peer that TLS did not prove never reaches a session (INV-AUTH-1).

use crate::bundle::Peer;
use crate::driver::{Station, serve};
use crate::http;
use crate::limits::Bucket;
use crate::refusal::Refusal;
use keys::tls::HTTP11;
use keys::{Leaf, Role};
use model::Digest;
use rustls::CertificateError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// Accepts until told to stop, then waits for every connection to end.
pub(crate) async fn listen(
    listener: TcpListener,
    station: Arc<Station>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(station.config.connections_max));
    let mut handshakes = Bucket::new(station.config.handshakes);
    let connections = TaskTracker::new();
    loop {
        let wait = handshakes.wait(station.uptime());
        let next = async {
            // Those who wait, wait in the kernel's queue.
            tokio::time::sleep(wait).await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptor is free, or the client is gone already.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        handshakes.charge(1, station.uptime());
        let Ok(place) = places.clone().try_acquire_owned() else {
            station.metrics.refuse(Refusal::TooManyConnections, &from.to_string());
            continue;
        };
        let (station, stop) = (station.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            station.metrics.connections.inc();
            connect(&station, stream, from, stop).await;
            station.metrics.connections.dec();
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connect(
    station: &Arc<Station>,
    stream: TcpStream,
    from: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let began = station.uptime();
    let refuse = |refusal| station.metrics.refuse(refusal, &from.to_string());
    // PUBACKs are small and awaited.
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(station.tls.load_full());
    let deadline = station.config.terms.connect_deadline;
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(deadline, acceptor.accept(stream)) => handshake,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refuse(tls_refusal(&error)),
        Err(_) => return refuse(Refusal::TlsTimeout),
    };
    station.metrics.handshakes.inc();
    let certificates = stream.get_ref().1.peer_certificates();
    let Some(certificate) = certificates.and_then(|chain| chain.first()) else {
        return refuse(Refusal::TlsNoCertificate);
    };
    let peer = peer(certificate, &station.site);
    // One port for both: what is spoken inside was agreed upon in the handshake (RFC 7301), and MQTT is what was said nothing of.
    if stream.get_ref().1.alpn_protocol() == Some(HTTP11) {
        return http::serve(station.clone(), stream, peer, from, stop).await;
    }
    serve(station.clone(), stream, peer, from, began, stop).await;
}

/// Who a certificate is of that TLS has verified under the site's authorities.
fn peer(certificate: &[u8], site: &str) -> Peer {
    match Leaf::parse(certificate) {
        Ok(leaf) => {
            let of_site = leaf.site.as_deref() == Some(site);
            let device = match leaf.role {
                Role::Device(id) if of_site => Some(id),
                _ => None,
            };
            Peer { device, spki: leaf.spki_sha256 }
        }
        // The site certified it, and not for any role that we know.
        Err(_) => Peer { device: None, spki: Digest([0; 32]) },
    }
}

/// Which refusal a failed handshake is.
fn tls_refusal(error: &io::Error) -> Refusal {
    use rustls::Error;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => Refusal::TlsNoCertificate,
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => Refusal::TlsWrongCa,
        Some(Error::InvalidCertificate(_)) => Refusal::TlsBadCertificate,
        _ => Refusal::TlsFailed,
    }
}
