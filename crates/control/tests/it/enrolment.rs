//! EST: who gets which certificate.

use crate::world::{Certified, Got, Setup, World, secret};
use api::{Role, Standing, path};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control::Limits;
use keys::est::{EstError, Operation, Purpose};
use keys::{Leaf, csr};
use model::envelope::Algorithm;
use reqwest::Method;
use trust::cose::Signer as _;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_comes_from_its_idevid_to_its_own_certificates() {
    let world = World::new().await;
    world.list("PUMP-1", Role::Device, "hall").await;
    let born = world.born("PUMP-1");
    assert_eq!(world.est(None).cacerts().await.unwrap(), world.anchors());
    let key = secret(Algorithm::Esp256);
    let chain = world.enroll(&born, Operation::Enroll, Purpose::Tls, &key, "PUMP-1").await.unwrap();
    let leaf = Leaf::parse(&chain[0]).unwrap();
    assert_eq!(leaf.role.to_string(), "device pump-1");
    assert_eq!(leaf.spki_der, key.public().to_spki_der());
    assert!(
        leaf.needs_renewal(crate::world::day(61)) && !leaf.needs_renewal(crate::world::day(59))
    );
    let tls = Certified { chain, key };
    let seal = secret(Algorithm::Ed25519);
    let chain =
        world.enroll(&tls, Operation::Enroll, Purpose::Seal, &seal, "PUMP-1").await.unwrap();
    assert_eq!(Leaf::parse(&chain[0]).unwrap().role.to_string(), "seal of pump-1");
    let directory = world.control.registry().directory();
    let device = directory.by_serial("PUMP-1").unwrap();
    assert_eq!((device.id.as_str(), device.standing), ("pump-1", Standing::Enrolled));
    assert_eq!(device.keys.len(), 2);
    assert_eq!(world.metric("plimsoll_control_certificates_total"), 2);
}

/// strongSwan's client does so on first contact.
#[tokio::test(flavor = "multi_thread")]
async fn an_idevid_that_calls_simplereenroll_is_enrolled_for_the_first_time() {
    let world = World::new().await;
    world.list("pump-1", Role::Device, "hall").await;
    let born = world.born("pump-1");
    let key = secret(Algorithm::Esp256);
    let chain =
        world.enroll(&born, Operation::Reenroll, Purpose::Tls, &key, "pump-1").await.unwrap();
    assert_eq!(Leaf::parse(&chain[0]).unwrap().role.to_string(), "device pump-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_one_line_of_base64_in_the_media_type_of_the_rfc() {
    let world = World::new().await;
    world.list("pump-1", Role::Device, "hall").await;
    let born = world.born("pump-1");
    let der = csr::make(&secret(Algorithm::Esp256), "pump-1").unwrap();
    // With line breaks, as OpenSSL writes it.
    let lines: Vec<String> = STANDARD
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    let enroll = |path: &str| {
        let path = format!("{}{path}", path::EST);
        let request = world.call(Some(&born), Method::POST, &path);
        request.header("content-type", "application/pkcs10").body(lines.join("\r\n"))
    };
    for got in [
        Got::of(enroll("/simpleenroll")).await,
        Got::of(world.call(None, Method::GET, &format!("{}/cacerts", path::EST))).await,
        Got::of(world.call(None, Method::GET, &format!("{}/seal/cacerts", path::EST))).await,
    ] {
        assert_eq!(got.status, 200, "{got:?}");
        assert_eq!(got.header("content-type"), "application/pkcs7-mime; smime-type=certs-only");
        let text = String::from_utf8(got.body).unwrap();
        assert!(!text.contains(char::is_whitespace));
        assert_eq!(keys::pkcs7::decode(&STANDARD.decode(text).unwrap()).unwrap().len(), 1);
    }
    let other_label = Got::of(enroll("/other/simpleenroll")).await;
    assert_eq!(other_label.refusal(), (404, "not_found".into()));
}

/// From a request that is granted, each single change is refused with its reason and its counter (INV-AUTH-1,
/// INV-PURP-1, INV-COST-1).
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_refused_with_its_reason() {
    let world = World::new().await;
    world.list("pump-1", Role::Device, "hall").await;
    let pump_2 = world.device("pump-2").await;
    let born = world.born("pump-1");
    let good = csr::make(&secret(Algorithm::Esp256), "pump-1").unwrap();
    let simple = format!("{}/simpleenroll", path::EST);
    let sealed = format!("{}/seal/simpleenroll", path::EST);
    let ask = async |own: &Certified, path: &str, kind: &str, body: Vec<u8>| {
        let request = world.call(Some(own), Method::POST, path).header("content-type", kind);
        Got::of(request.body(body)).await
    };
    let of = |key: &trust::cose::SecretKey, serial: &str| {
        STANDARD.encode(csr::make(key, serial).unwrap()).into_bytes()
    };
    let pkcs10 = "application/pkcs10";
    let text = STANDARD.encode(&good).into_bytes();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let fresh = secret(Algorithm::Esp256);
    let unlisted = world.born("pump-9");
    let table = [
        ("not listed", &unlisted, &simple, pkcs10, of(&fresh, "pump-9"), (403, "not_listed")),
        (
            "another's serial",
            &born,
            &simple,
            pkcs10,
            of(&fresh, "pump-2"),
            (403, "serial_mismatch"),
        ),
        (
            "for another, by an LDevID",
            &pump_2.tls,
            &simple,
            pkcs10,
            of(&fresh, "pump-1"),
            (403, "serial_mismatch"),
        ),
        (
            "another's key",
            &born,
            &simple,
            pkcs10,
            of(&pump_2.tls.key, "pump-1"),
            (409, "key_of_other_device"),
        ),
        (
            "its IDevID key to seal",
            &born,
            &sealed,
            pkcs10,
            of(&born.key, "pump-1"),
            (409, "key_of_other_purpose"),
        ),
        (
            "its TLS key to seal",
            &pump_2.tls,
            &sealed,
            pkcs10,
            of(&pump_2.tls.key, "pump-2"),
            (409, "key_of_other_purpose"),
        ),
        (
            "its sealing key for TLS",
            &pump_2.tls,
            &simple,
            pkcs10,
            of(&pump_2.seal, "pump-2"),
            (409, "key_of_other_purpose"),
        ),
        (
            "a key that is not held",
            &born,
            &simple,
            pkcs10,
            STANDARD.encode(&forged).into_bytes(),
            (400, "no_possession"),
        ),
        (
            "no PKCS#10",
            &born,
            &simple,
            pkcs10,
            STANDARD.encode(b"hello").into_bytes(),
            (400, "bad_csr"),
        ),
        ("no base64", &born, &simple, pkcs10, b"?".to_vec(), (400, "not_base64")),
        ("binary", &born, &simple, pkcs10, good.clone(), (400, "not_base64")),
        (
            "another media type",
            &born,
            &simple,
            "application/octet-stream",
            text.clone(),
            (415, "unsupported_media_type"),
        ),
        ("oversize", &born, &simple, pkcs10, vec![b'A'; 16 * 1024 + 1], (413, "oversize")),
    ];
    for (what, own, path, kind, body, (status, reason)) in table {
        let before = world.refused(reason);
        let got = ask(own, path, kind, body).await;
        assert_eq!(got.refusal(), (status, reason.to_owned()), "{what}: {got:?}");
        assert_eq!(world.refused(reason), before + 1, "{what}");
    }
    assert_eq!(ask(&born, &simple, pkcs10, text).await.status, 200);
    let id = model::DeviceId::new("pump-1").unwrap();
    world.tell(&id, "revoke").await;
    let got = ask(&born, &simple, pkcs10, of(&fresh, "pump-1")).await;
    assert_eq!(got.refusal(), (403, "revoked".into()), "an IDevID outlives nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_gets_nothing_more_and_a_quarantined_one_its_own_certificates() {
    let world = World::new().await;
    let pump = world.device("pump-1").await;
    let renew = || {
        let own = (Operation::Reenroll, Purpose::Tls);
        world.enroll(&pump.tls, own.0, own.1, &pump.tls.key, "pump-1")
    };
    world.tell(&pump.id, "quarantine").await;
    renew().await.unwrap();
    let directory = world.control.registry().directory();
    assert_eq!(directory.device(&pump.id).unwrap().standing, Standing::Quarantined);
    world.tell(&pump.id, "revoke").await;
    let refused = renew().await.unwrap_err();
    assert!(matches!(&refused, EstError::Refused { status: 403, .. }), "{refused}");
    assert_eq!(refused.retry_after(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_sealing_key_leaves_the_one_before_it_good_for_its_backlog() {
    let world = World::new().await;
    let (pump, gateway) = (world.device("pump-1").await, world.gateway("gw-1").await);
    let next = secret(Algorithm::Ed25519);
    world.enroll(&pump.tls, Operation::Enroll, Purpose::Seal, &next, "pump-1").await.unwrap();
    let got = Got::of(world.call(Some(&gateway.tls), Method::GET, path::GATEWAY_BUNDLE)).await;
    let bundle: api::Bundle = got.json();
    let keys: Vec<_> = bundle.devices[0].seal_keys.iter().map(|key| key.id.clone()).collect();
    assert_eq!(keys, [pump.seal_id().to_string(), next.public().id().to_string()]);
    // What was retired stays retired.
    let back =
        world.enroll(&pump.tls, Operation::Enroll, Purpose::Seal, &pump.seal, "pump-1").await;
    assert!(matches!(back, Err(EstError::Refused { status: 409, .. })));
    assert_eq!(world.refused("key_retired"), 1);
}

/// An answer that was lost: the device asks again with the key that it made, by the certificate that it still has.
#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_whose_answer_was_lost_is_asked_for_again() {
    let world = World::new().await;
    let pump = world.device("pump-1").await;
    let next = secret(Algorithm::Esp256);
    for _ in 0..2 {
        let renewed = world.enroll(&pump.tls, Operation::Reenroll, Purpose::Tls, &next, "pump-1");
        assert_eq!(renewed.await.unwrap().len(), 1);
    }
    let directory = world.control.registry().directory();
    assert_eq!(directory.device(&pump.id).unwrap().keys.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_makes_key_after_key_is_told_to_wait() {
    let limits = Limits { keys_per_day_max: 2, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let pump = world.device("pump-1").await;
    let another = async || {
        let key = secret(Algorithm::Ed25519);
        world.enroll(&pump.tls, Operation::Enroll, Purpose::Seal, &key, "pump-1").await
    };
    another().await.unwrap();
    let refused = another().await.unwrap_err();
    assert!(matches!(&refused, EstError::Busy { status: 429, .. }), "{refused}");
    assert_eq!(refused.retry_after().unwrap().as_secs(), 3600);
    assert_eq!(world.refused("too_often"), 1);
}

/// A device that lost everything but what it was born with.
#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_device_that_lost_its_keys_enrols_by_its_idevid_again() {
    let world = World::new().await;
    let pump = world.device("pump-1").await;
    let key = secret(Algorithm::Esp256);
    let again = world.enroll(&pump.born, Operation::Enroll, Purpose::Tls, &key, "pump-1").await;
    assert_eq!(Leaf::parse(&again.unwrap()[0]).unwrap().role.to_string(), "device pump-1");
    let directory = world.control.registry().directory();
    let retired: Vec<_> =
        directory.device(&pump.id).unwrap().keys.iter().map(|k| k.retired_at.is_some()).collect();
    assert_eq!(retired, [true, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_tls_key_counts_for_its_grace_and_no_longer() {
    let limits = Limits { key_grace: std::time::Duration::ZERO, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let pump = world.device("pump-1").await;
    let renew = async |own: &Certified, key: &trust::cose::SecretKey| {
        world.enroll(own, Operation::Reenroll, Purpose::Tls, key, "pump-1").await
    };
    let key = secret(Algorithm::Esp256);
    let chain = renew(&pump.tls, &key).await.unwrap();
    let next = Certified { chain, key };
    let refused = renew(&pump.tls, &pump.tls.key).await.unwrap_err();
    assert!(refused.to_string().contains("not its TLS key now"), "{refused}");
    assert_eq!(world.refused("not_its_key"), 1);
    renew(&next, &next.key).await.unwrap();
}
