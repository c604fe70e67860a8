//! The long poll for a bundle.

use crate::world::{Got, Station, World};
use api::{Bundle, Standing, path};
use reqwest::Method;
use std::time::Duration;

/// Far less than the wait that is asked for: an answer within it came by itself.
const AT_ONCE: Duration = Duration::from_secs(20);

fn poll(world: &World, gateway: &Station, after: u64, wait_s: u64) -> reqwest::RequestBuilder {
    let path = format!("{}?after={after}&wait_s={wait_s}", path::GATEWAY_BUNDLE);
    world.call(Some(&gateway.tls), Method::GET, &path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_answered_when_it_is_newer_and_otherwise_not() {
    let world = World::new().await;
    let (pump, gateway) = (world.device("pump-1").await, world.gateway("gw-1").await);
    let bundle: Bundle = Got::of(poll(&world, &gateway, 0, 0)).await.json();
    assert_eq!((bundle.format, bundle.site.as_str()), (1, "site"));
    assert_eq!((bundle.gateway.as_str(), bundle.zone.as_str()), ("gw-1", "hall"));
    assert_eq!(bundle.policies, crate::world::POLICIES);
    let directory = world.control.registry().directory();
    assert_eq!(bundle.generation, directory.generation());
    let [device] = bundle.devices.as_slice() else { panic!("{bundle:?}") };
    assert_eq!((device.id.as_str(), device.standing), ("pump-1", Standing::Enrolled));
    assert_eq!(device.seal_keys[0].id, pump.seal_id().to_string());
    let tls = keys::Leaf::parse(&pump.tls.chain[0]).unwrap().spki_sha256.to_string();
    assert_eq!(device.tls_keys, [tls]);
    let nothing_new = Got::of(poll(&world, &gateway, bundle.generation, 0)).await;
    assert_eq!((nothing_new.status.as_u16(), nothing_new.body.len()), (204, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_answers_a_waiting_poll_at_once() {
    let world = World::new().await;
    let (pump, gateway) = (world.device("pump-1").await, world.gateway("gw-1").await);
    let generation = world.control.registry().directory().generation();
    let waiting = tokio::spawn(Got::of(poll(&world, &gateway, generation, 60)));
    assert_eq!(world.tell(&pump.id, "revoke").await.status, 200);
    let got = tokio::time::timeout(AT_ONCE, waiting).await.expect("it waits no longer").unwrap();
    let bundle: Bundle = got.json();
    assert_eq!(bundle.generation, generation + 1);
    assert_eq!(bundle.devices[0].standing, Standing::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_revoked_while_it_waits_is_told_so_at_once() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let generation = world.control.registry().directory().generation();
    let waiting = tokio::spawn(Got::of(poll(&world, &gateway, generation, 60)));
    assert_eq!(world.tell(&gateway.id, "revoke").await.status, 200);
    let got = tokio::time::timeout(AT_ONCE, waiting).await.expect("it waits no longer").unwrap();
    assert_eq!(got.refusal(), (403, "revoked".into()));
}

/// INV-FRESH-1.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_seen_a_newer_generation_is_told_so() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let generation = world.control.registry().directory().generation();
    let got = Got::of(poll(&world, &gateway, generation + 1, 60)).await;
    assert_eq!(got.refusal(), (409, "generation_ahead".into()));
    let path = format!("{}?since=3", path::GATEWAY_BUNDLE);
    let got = Got::of(world.call(Some(&gateway.tls), Method::GET, &path)).await;
    assert_eq!(got.refusal(), (400, "bad_query_string".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_a_waiting_poll_in_good_order() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let generation = world.control.registry().directory().generation();
    // The first answer says that the connection stands, so that the second call is under way before the end.
    let http = world.http(Some(&gateway.tls));
    let url = format!("{}{}?after={generation}&wait_s=", world.base(), path::GATEWAY_BUNDLE);
    assert_eq!(Got::of(http.get(format!("{url}0"))).await.status, 204);
    let mut requests = world.control.registry().watch();
    requests.mark_unchanged();
    let waiting = tokio::spawn(http.get(format!("{url}60")).send());
    let World { control, .. } = world;
    tokio::time::timeout(AT_ONCE, control.shutdown()).await.expect("it waits for nobody");
    // Either it was waiting and got its answer, or it came too late and the connection was closed.
    if let Ok(answer) = waiting.await.unwrap() {
        assert_eq!(answer.status(), 204);
    }
}
