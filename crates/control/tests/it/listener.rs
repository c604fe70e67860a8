//! Connections: what TLS refuses, and what is bounded.

use crate::world::{Certified, Got, Setup, World, day, gateway_profile, secret};
use api::path;
use control::Limits;
use disk::RealDisk;
use keys::NotAfter;
use keys::ca::Authority;
use model::envelope::Algorithm;
use reqwest::Method;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Reads until the other end closes. Far below this, a bound that works ends it.
async fn until_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
    // A reset is an end too.
    let _ = closed.await.expect("the listener closes what takes too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_tls_does_not_believe_ends_the_handshake_with_its_reason() {
    let world = World::new().await;
    let dir = world.dir.path();
    let stranger = Authority::load_or_create(
        &RealDisk,
        &dir.join("stranger.key"),
        &dir.join("stranger.pem"),
        "site",
        day(-1),
    )
    .unwrap();
    let health = async |own: &Certified| {
        world.call(Some(own), Method::GET, path::HEALTH).send().await.map(|answer| answer.status())
    };
    let key = || secret(Algorithm::Esp256);
    let profile = gateway_profile("gw-1");
    let good = Certified::by(&world.site, key(), &profile, NotAfter::At(day(1)));
    assert_eq!(health(&good).await.unwrap(), 200);
    let sealing = keys::ca::Profile::Seal {
        name: model::DeviceId::new("gw-1").unwrap(),
        site: "site".into(),
    };
    let expired = {
        let key = key();
        let spki = trust::cose::Signer::public(&key).to_spki_der();
        let until = NotAfter::At(a_minute_ago());
        let chain = vec![world.site.issue(&spki, &profile, day(-1), until).unwrap()];
        Certified { chain, key }
    };
    let table = [
        (
            "another authority",
            Certified::by(&stranger, key(), &profile, NotAfter::At(day(1))),
            "bad_signature",
        ),
        ("expired", expired, "expired"),
        // INV-PURP-1: a sealing certificate is no use for TLS.
        (
            "a sealing certificate",
            Certified::by(&world.site, key(), &sealing, NotAfter::At(day(1))),
            "bad_certificate",
        ),
    ];
    for (what, own, reason) in &table {
        assert!(health(own).await.is_err(), "{what}");
        let name = "plimsoll_control_handshakes_failed_total";
        world.counted(&format!("{name}{{reason=\"{reason}\"}}"), 1).await;
    }
}

fn a_minute_ago() -> keys::UnixTime {
    let now = keys::UnixTime::now().as_secs();
    keys::UnixTime::since_unix_epoch(Duration::from_secs(now - 60))
}

async fn connect(world: &World) -> TlsStream<TcpStream> {
    let tls = keys::tls::client(None, &world.anchors(), keys::tls::Alpn::Http11).unwrap();
    let stream = TcpStream::connect(world.control.local_addr()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    TlsConnector::from(tls).connect(name, stream).await.unwrap()
}

/// Gateways and devices would refuse it once it has expired, and nobody starts a control plane anew for that.
#[tokio::test(flavor = "multi_thread")]
async fn control_changes_its_own_certificate_while_it_serves() {
    // Certificates begin an hour before they are issued: this one is due after 40 minutes, and the next is valid by then.
    let limits = Limits { certificate_life: Duration::from_secs(90 * 60), ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let minute = |n: u64| {
        let now = keys::UnixTime::now().as_secs();
        keys::UnixTime::since_unix_epoch(Duration::from_secs(now + n * 60))
    };
    let shown = async || {
        let mut stream = connect(&world).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        keys::Leaf::parse(&leaf).unwrap()
    };
    let expires = || world.metric("plimsoll_control_certificate_expires_timestamp_seconds");
    let until = |leaf: &keys::Leaf| match leaf.not_after {
        NotAfter::At(until) => until.as_secs(),
        NotAfter::Never => u64::MAX,
    };
    let first = shown().await;
    assert_eq!(expires(), until(&first));
    assert!(!world.control.renew_certificate(minute(30)).unwrap());
    assert_eq!(shown().await, first, "not due yet");
    assert!(world.control.renew_certificate(minute(45)).unwrap());
    let second = shown().await;
    assert_ne!(second.certificate_serial, first.certificate_serial);
    assert!(until(&second) > until(&first));
    assert_eq!(expires(), until(&second));
}

/// INV-COST-1.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_closed_at_once() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let mut first = connect(&world).await;
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    until_closed(TcpStream::connect(world.control.local_addr()).await.unwrap()).await;
    world.counted("plimsoll_control_connections_refused_total", 1).await;
    drop(first);
    world.counted("plimsoll_control_connections", 0).await;
    let health = world.call(None, Method::GET, path::HEALTH);
    assert_eq!(Got::of(health).await.status, 200);
}

/// INV-COST-1. One bound at a time: what is not the test's matter has all the time that it needs.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_is_not_waited_for() {
    let soon = Duration::from_millis(50);
    let world = async |limits| World::with(Setup { limits, ..Setup::default() }).await;

    let no_handshake = world(Limits { handshake_time_max: soon, ..Limits::default() }).await;
    until_closed(TcpStream::connect(no_handshake.control.local_addr()).await.unwrap()).await;
    let failed = "plimsoll_control_handshakes_failed_total{reason=\"timeout\"}";
    no_handshake.counted(failed, 1).await;

    let no_head = world(Limits { header_time_max: soon, ..Limits::default() }).await;
    let mut stream = connect(&no_head).await;
    // The listener may be done with it already.
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await;
    let mut rest = Vec::new();
    let patience = Duration::from_secs(20);
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut rest)).await.unwrap();

    let no_body = world(Limits { request_time_max: soon, ..Limits::default() }).await;
    let mut stream = connect(&no_body).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{",
        path::OWNERSHIP,
        crate::world::TOKEN
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(no_body.refused("timed_out"), 1);
}
