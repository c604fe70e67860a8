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

/// INV-COST-1.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_closed_at_once() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let http = world.http(None);
    let health = format!("{}{}", world.base(), path::HEALTH);
    assert_eq!(Got::of(http.get(&health)).await.status, 200);
    // The first connection is kept alive by its client.
    until_closed(TcpStream::connect(world.control.local_addr()).await.unwrap()).await;
    world.counted("plimsoll_control_connections_refused_total", 1).await;
    assert_eq!(Got::of(http.get(&health)).await.status, 200);
}

/// INV-COST-1.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_is_not_waited_for() {
    let limits = Limits {
        handshake_time_max: Duration::from_millis(50),
        header_time_max: Duration::from_millis(50),
        request_time_max: Duration::from_millis(200),
        ..Limits::default()
    };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let address = world.control.local_addr();
    until_closed(TcpStream::connect(address).await.unwrap()).await;
    let failed = "plimsoll_control_handshakes_failed_total{reason=\"timeout\"}";
    world.counted(failed, 1).await;

    let tls = keys::tls::client(None, &world.anchors(), keys::tls::Alpn::Http11).unwrap();
    let connect = async || {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(tls.clone()).connect(name, stream).await.unwrap()
    };
    let patience = Duration::from_secs(20);
    let mut half_a_head = connect().await;
    half_a_head.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(patience, half_a_head.read_to_end(&mut rest)).await.unwrap();

    let mut half_a_body = connect().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{",
        path::OWNERSHIP,
        crate::world::TOKEN
    );
    half_a_body.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, half_a_body.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(world.refused("timed_out"), 1);
}
