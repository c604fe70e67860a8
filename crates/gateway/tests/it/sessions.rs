//! Who may come in, and who is sent away: TLS, identity, protocol, takeover, revocation.

use crate::client::{Client, connect, packet, publish, tls};
use crate::site::{
    Device, Mood, SITE, authority, eventually, issue, plant, plant_with, secret, stopped, within,
};
use api::Standing;
use disk::SimDisk;
use gateway::refusal::Refusal;
use keys::ca::Profile;
use model::envelope::Algorithm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trust::cose::{SecretKey, Signer as _};

/// INV-AUTH-1: from a device that is let in, each single change of its certificate is refused for its own reason.
#[tokio::test(flavor = "multi_thread")]
async fn whom_tls_does_not_prove_has_no_session() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let (at, ca) = (gateway.local_addr(), site.ca.certificate_der());
    assert!(Client::connect(at, &pump).await.nonce.is_some());

    // Another authority of the same name; the maker's; one of the site's that has ended.
    let same_name = Device::new(&authority("site"), "pump-1");
    let birth = {
        let key = secret(Algorithm::Esp256);
        let idevid = issue(&site.maker, &key, &Profile::IDevId { serial: "pump-1".into() }, 30);
        (vec![idevid], key)
    };
    let ended = {
        let key = secret(Algorithm::Esp256);
        let profile = Profile::DeviceTls { device: pump.id.clone(), site: SITE.into() };
        (vec![issue(&site.ca, &key, &profile, -10)], key)
    };
    type Shown<'a> = Option<(&'a [Vec<u8>], &'a SecretKey)>;
    let table: [(&str, Shown<'_>, Refusal); 4] = [
        ("no certificate", None, Refusal::TlsNoCertificate),
        ("another CA", Some((&same_name.chain, &same_name.tls)), Refusal::TlsWrongCa),
        ("its birth certificate", Some((&birth.0, &birth.1)), Refusal::TlsWrongCa),
        ("a certificate that has ended", Some((&ended.0, &ended.1)), Refusal::TlsBadCertificate),
    ];
    for (what, own, refusal) in table {
        assert_eq!(gateway.metrics().refused(refusal), u64::from(what.contains("birth")), "{what}");
        // In TLS 1.3 a client may believe in a session until it reads.
        if let Ok(mut client) = Client::dial(at, tls(own, ca)).await {
            assert_eq!(client.ask(&connect("pump-1")).await, None, "{what}");
        }
        let seen = || gateway.metrics().refused(refusal) > u64::from(what.contains("birth"));
        eventually(what, seen).await;
    }
    // Not TLS at all.
    let mut plain = TcpStream::connect(at).await.unwrap();
    plain.write_all(&connect("pump-1")).await.unwrap();
    let _ = within("the gateway hangs up", plain.read(&mut [0; 64])).await;
    eventually("not TLS", || gateway.metrics().refused(Refusal::TlsFailed) == 1).await;
    stopped(gateway).await;
}

/// INV-AUTH-1, INV-PURP-1: a certificate of the site is not enough.
#[tokio::test(flavor = "multi_thread")]
async fn whom_the_bundle_does_not_permit_is_told_not_authorized() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let (quarantined, revoked) = (site.device("pump-2"), site.device("pump-3"));
    let (stranger, rekeyed) = (site.device("pump-4"), site.device("pump-1"));
    let mut entries = vec![pump.entry(), quarantined.entry(), revoked.entry()];
    entries[1].standing = Standing::Quarantined;
    entries[2].standing = Standing::Revoked;
    site.knows(&gateway, entries).await;

    let role = |profile: &Profile| {
        let key = secret(Algorithm::Esp256);
        (vec![issue(&site.ca, &key, profile, 30)], key)
    };
    let other_gateway = role(&Profile::GatewayTls {
        gateway: model::GatewayId::new("gw-2").unwrap(),
        site: SITE.into(),
    });
    let other_site = role(&Profile::DeviceTls { device: pump.id.clone(), site: "other".into() });
    let (at, ca) = (gateway.local_addr(), site.ca.certificate_der());
    for (what, own, client_id, refusal) in [
        ("another client id", (&pump.chain, &pump.tls), "pump-2", Refusal::ClientId),
        ("quarantined", (&quarantined.chain, &quarantined.tls), "pump-2", Refusal::Quarantined),
        ("revoked", (&revoked.chain, &revoked.tls), "pump-3", Refusal::Revoked),
        ("unknown", (&stranger.chain, &stranger.tls), "pump-4", Refusal::UnknownDevice),
        ("another key", (&rekeyed.chain, &rekeyed.tls), "pump-1", Refusal::UnknownTlsKey),
        ("a gateway", (&other_gateway.0, &other_gateway.1), "gw-2", Refusal::NotADevice),
        ("another site's", (&other_site.0, &other_site.1), "pump-1", Refusal::NotADevice),
    ] {
        let before = gateway.metrics().refused(refusal);
        let mut client = Client::dial(at, tls(Some((own.0, own.1)), ca)).await.unwrap();
        let connack = client.ask(&connect(client_id)).await.expect("CONNACK");
        assert_eq!(connack, [0x20, 3, 0, 0x87, 0], "{what}");
        assert_eq!(client.next().await, None, "{what}");
        assert_eq!(gateway.metrics().refused(refusal), before + 1, "{what}");
    }
    stopped(gateway).await;
}

/// INV-AUTH-1: a revocation cuts the live session and keeps it out; TLS does not remember.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_cut_off_and_cannot_come_back() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let other = site.device("pump-2");
    site.lets_in(&gateway, &[&pump, &other]).await;
    let at = gateway.local_addr();
    // One configuration for both tries, with rustls' own memory for resumption.
    let tls = {
        let mut tls = rustls::ClientConfig::clone(&pump.shown());
        tls.resumption = rustls::client::Resumption::in_memory_sessions(8);
        std::sync::Arc::new(tls)
    };
    let mut client = Client::dial(at, tls.clone()).await.unwrap();
    assert_eq!(client.ask(&connect("")).await.unwrap()[3], 0);
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0);
    let mut bystander = Client::connect(at, &other).await;

    let mut entries = vec![pump.entry(), other.entry()];
    entries[0].standing = Standing::Revoked;
    site.publish(entries);
    assert_eq!(client.end().await, Some(0x98));
    assert_eq!(gateway.metrics().refused(Refusal::StandingChanged), 1);

    let mut again = Client::dial(at, tls).await.unwrap();
    assert_eq!(again.ask(&connect("")).await.unwrap(), [0x20, 3, 0, 0x87, 0]);
    assert_eq!(gateway.metrics().refused(Refusal::Revoked), 1);
    // Both times the certificate was shown and verified: nothing was resumed.
    assert_eq!(gateway.metrics().handshakes.get(), 3);
    assert_eq!(bystander.publish(&other.topic(), 1, &other.message(1, 0, None)).await, 0);
    stopped(gateway).await;
}

/// INV-AUTH-1: what the gateway was told last is what it knows, also when it starts while control is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_stays_out_over_a_restart_without_control_and_the_others_come_in() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let other = site.device("pump-2");
    site.lets_in(&gateway, &[&pump, &other]).await;
    let mut live = Client::connect(gateway.local_addr(), &pump).await;
    let mut entries = vec![pump.entry(), other.entry()];
    entries[0].standing = Standing::Revoked;
    site.knows(&gateway, entries).await;
    assert_eq!(live.end().await, Some(0x98));
    stopped(gateway).await;

    // Nobody listens there.
    let away = |config: &mut gateway::Config| config.control = "https://localhost:1".into();
    let gateway = site.gateway_with(&disk, away).await;
    let at = gateway.local_addr();
    let mut again = Client::dial(at, pump.shown()).await.unwrap();
    assert_eq!(again.ask(&connect("")).await.unwrap(), [0x20, 3, 0, 0x87, 0]);
    assert_eq!(gateway.metrics().refused(Refusal::Revoked), 1);
    let mut bystander = Client::connect(at, &other).await;
    assert_eq!(bystander.publish(&other.topic(), 1, &other.message(1, 0, None)).await, 0);
    stopped(gateway).await;
}

/// A session whose TLS key left the bundle is cut too.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_left_the_bundle_is_cut_off() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let mut entry = pump.entry();
    entry.tls_keys.clear();
    site.publish(vec![entry]);
    assert_eq!(client.end().await, Some(0x98));
    stopped(gateway).await;
}

/// INV-AUTH-1: the end of a key that was replaced needs no bundle without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_under_a_replaced_key_is_cut_when_the_keys_time_is_over() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let mut entry = pump.entry();
    entry.tls_keys_until_ms = entry.tls_keys.iter().map(|key| (key.clone(), 1000)).collect();
    site.publish(vec![entry]);
    assert_eq!(client.end().await, Some(0x98));
    stopped(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_takes_over() {
    let (_site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let at = gateway.local_addr();
    let mut older = Client::connect(at, &pump).await;
    let mut newer = Client::connect(at, &pump).await;
    assert_ne!(older.nonce, newer.nonce, "each session has a nonce of its own");
    assert_eq!(older.end().await, Some(0x8e));
    assert_eq!(newer.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0);
    assert_eq!(gateway.metrics().refused(Refusal::TakenOver), 1);
    assert_eq!(gateway.metrics().sessions.get(), 1);
    stopped(gateway).await;
}

/// The table of framing is in `src/frame/tests.rs`; here each class goes over the wire once.
#[tokio::test(flavor = "multi_thread")]
async fn a_breach_of_protocol_is_told_and_counted() {
    let (_site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let at = gateway.local_addr();
    let topic = pump.topic();
    let good = publish(&topic, 1, b"x");
    for (bytes, refusal) in [
        (connect("pump-1"), Refusal::SecondConnect),
        (vec![0x20, 3, 0, 0, 0], Refusal::WrongDirection),
        (packet(0x34, &good[2..]), Refusal::Qos2),
        (packet(0x33, &good[2..]), Refusal::Retain),
        (publish(&topic, 1, &[0; 40_000]), Refusal::PacketTooLarge),
        (publish("plimsoll/+/up", 1, b"x"), Refusal::BadTopic),
        (vec![0xcf, 0], Refusal::ReservedFlags),
    ] {
        let mut client = Client::connect(at, &pump).await;
        client.send(&bytes).await;
        assert_eq!(client.end().await, Some(refusal.code()), "{refusal}");
        assert_eq!(gateway.metrics().refused(refusal), 1, "{refusal}");
    }
    // Before CONNECT nothing is said.
    let mut client = Client::dial(at, pump.shown()).await.unwrap();
    assert_eq!(client.ask(&good).await, None);
    assert_eq!(gateway.metrics().refused(Refusal::NotConnectFirst), 1);
    // MQTT 3.1.1 is told which version is spoken here.
    let mut client = Client::dial(at, pump.shown()).await.unwrap();
    let old = packet(0x10, b"\0\x04MQTT\x04\x02\0\x3c\0\0");
    assert_eq!(client.ask(&old).await.unwrap(), [0x20, 3, 0, 0x84, 0]);
    assert_eq!(gateway.metrics().refused(Refusal::UnsupportedVersion), 1);
    stopped(gateway).await;
}

/// INV-COST-1: half a CONNECT is not waited for, and neither is half a handshake.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_come_to_the_point_is_sent_away() {
    let (_site, pump, gateway) = plant_with(&SimDisk::new(1), |config| {
        config.terms.connect_deadline = std::time::Duration::from_millis(300);
        config.connections_max = 2;
    })
    .await;
    let at = gateway.local_addr();
    let mut silent = TcpStream::connect(at).await.unwrap();
    let mut client = Client::dial(at, pump.shown()).await.unwrap();
    // Both places are taken: a third connection is closed at once.
    let mut third = TcpStream::connect(at).await.unwrap();
    assert_closed(&mut third).await;
    eventually("a third one", || gateway.metrics().refused(Refusal::TooManyConnections) == 1).await;
    assert_eq!(client.ask(&connect("pump-1")[..9]).await, None);
    assert_eq!(gateway.metrics().refused(Refusal::ConnectTimeout), 1);
    assert_closed(&mut silent).await;
    eventually("TLS deadline", || gateway.metrics().refused(Refusal::TlsTimeout) == 1).await;
    stopped(gateway).await;
}

async fn assert_closed(stream: &mut TcpStream) {
    let read = within("the gateway hangs up", stream.read(&mut [0; 8])).await;
    assert!(matches!(read, Ok(0) | Err(_)));
}

/// INV-COST-1: who is over its rate is not read from; nothing is lost, and nobody is disconnected.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_fast_is_slowed_down() {
    let slow = |config: &mut gateway::Config| {
        config.packets = gateway::limits::Rate { per_second: 40, burst: 5 };
    };
    let (site, pump, gateway) = plant_with(&SimDisk::new(1), slow).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let began = std::time::Instant::now();
    for sequence in 0..25 {
        let message = pump.message(1, sequence, client.nonce);
        assert_eq!(client.publish(&pump.topic(), 1, &message).await, 0);
    }
    // 26 packets with CONNECT, 5 of them at once: 21 at 40 a second.
    assert!(began.elapsed() >= std::time::Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(gateway.metrics().held_back_ms.get() > 0);
    assert_eq!(site.has_taken(25).await.len(), 25);
    stopped(gateway).await;
}

/// INV-FRESH-1, INV-MIX-1: control cannot bring back an older word, nor another gateway's, nor an unknown format.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_or_foreign_bundle_changes_nothing() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let good = api::Bundle {
        format: 1,
        site: SITE.into(),
        generation: 9,
        gateway: "gw-1".into(),
        zone: "hall".into(),
        devices: vec![],
        policies: policy::DEFAULT_POLICIES.into(),
    };
    for (label, bundle) in [
        ("older", api::Bundle { generation: 1, ..good.clone() }),
        ("unknown_format", api::Bundle { format: 2, ..good.clone() }),
        ("not_ours", api::Bundle { gateway: "gw-2".into(), ..good.clone() }),
        ("not_ours", api::Bundle { zone: "yard".into(), ..good.clone() }),
        ("policies", api::Bundle { policies: "permit".into(), ..good.clone() }),
    ] {
        let before = gateway.metrics().bundles_refused(label);
        site.publish_as(bundle);
        eventually(label, || gateway.metrics().bundles_refused(label) > before).await;
        assert_eq!(gateway.generation(), 1);
    }
    // The session has lived through all of them.
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0);
    site.publish_as(good);
    assert_eq!(client.end().await, Some(0x98));
    stopped(gateway).await;
}

/// A live session goes on while control is away, and a gateway starts with what it has kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_and_admits_with_control_away() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    stopped(gateway).await;
    // Nobody listens there.
    let alone = |config: &mut gateway::Config| config.control = "https://127.0.0.1:9".into();
    let gateway = site.gateway_with(&disk, alone).await;
    assert_eq!(gateway.generation(), 1);
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0);
    assert_eq!(gateway.metrics().spool_records.get(), 1);
    stopped(gateway).await;
    site.set_mood(Mood::Takes);
    let gateway = site.gateway(&disk).await;
    assert_eq!(site.has_taken(1).await[0].sequence, 0);
    stopped(gateway).await;
}

/// INV-PURP-1: the sealing key's certificate is for documents, and opens no connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealing_certificate_opens_no_connection() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let key = secret(Algorithm::Esp256);
    let profile = Profile::Seal { name: pump.id.clone(), site: SITE.into() };
    let chain = vec![issue(&site.ca, &key, &profile, 30)];
    assert_eq!(key.public().algorithm(), Algorithm::Esp256);
    let own = tls(Some((&chain, &key)), site.ca.certificate_der());
    if let Ok(mut client) = Client::dial(gateway.local_addr(), own).await {
        assert_eq!(client.ask(&connect("pump-1")).await, None);
    }
    let seen = || gateway.metrics().refused(Refusal::TlsBadCertificate) == 1;
    eventually("a certificate for another purpose", seen).await;
    stopped(gateway).await;
}
