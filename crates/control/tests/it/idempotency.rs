//! A call that is made again under its key.

use crate::world::{Got, Setup, World, in_time};
use api::event::Events;
use api::{Changed, path};
use control::idempotency::{KEY, REPLAYED};
use disk::SimDisk;
use reqwest::Method;
use serde_json::json;

async fn list(world: &World, key: &str, serial: &str) -> Got {
    let body = json!({ "serial": serial, "role": "device", "zone": "hall" });
    let request = world.operator(Method::POST, path::OWNERSHIP).header(KEY, key);
    Got::of(request.header("content-type", "application/json").body(body.to_string())).await
}

async fn tell(world: &World, key: &str, device: &str, verb: &str) -> Got {
    let path = format!("{}/{device}/{verb}", path::DEVICES);
    Got::of(world.operator(Method::POST, &path).header(KEY, key)).await
}

async fn events(world: &World) -> usize {
    let got = Got::of(world.operator(Method::GET, path::EVENTS)).await;
    got.json::<Events>().events.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_made_again_under_its_key_is_answered_again_and_not_done_again() {
    let world = World::new().await;
    world.device("pump-1").await;
    let first = tell(&world, "\"7f3a\"", "pump-1", "quarantine").await;
    assert_eq!((first.status.as_u16(), first.header(REPLAYED)), (200, ""));
    assert_eq!(tell(&world, "other", "pump-1", "release").await.status, 200);
    let before = events(&world).await;
    // It would be a change now. With and without the quotes of the header's grammar it is the same key.
    for key in ["\"7f3a\"", "7f3a"] {
        let again = tell(&world, key, "pump-1", "quarantine").await;
        assert_eq!(again.body, first.body);
        assert_eq!(again.header("content-type"), "application/json");
        assert_eq!((again.status.as_u16(), again.header(REPLAYED)), (200, "true"));
    }
    assert_eq!(events(&world).await, before);
    let standing = world.control.registry().directory().devices(None).next().unwrap().standing;
    assert_eq!(standing, api::Standing::Enrolled);
    // Also by the next process, on what this one left.
    let world = world.restart(Setup::default()).await;
    let again = tell(&world, "7f3a", "pump-1", "quarantine").await;
    assert_eq!((again.body, events(&world).await), (first.body, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_of_one_call_with_one_body() {
    let world = World::new().await;
    assert_eq!(list(&world, "k", "PUMP-1").await.json::<Changed>().device.id, "pump-1");
    let got = list(&world, "k", "PUMP-2").await;
    assert_eq!(got.refusal(), (422, "idempotency_mismatch".into()));
    assert!(got.problem().detail.contains("`POST /v1/ownership`"), "{got:?}");
    let got = tell(&world, "k", "pump-1", "quarantine").await;
    assert_eq!(got.refusal(), (422, "idempotency_mismatch".into()));
    assert_eq!(events(&world).await, 1);

    for bad in ["", "\"\"", "two words", "\"quo\"te\"", &"x".repeat(129)] {
        assert_eq!(
            list(&world, bad, "PUMP-2").await.refusal(),
            (400, "bad_idempotency_key".into())
        );
    }
    assert_eq!(list(&world, &"x".repeat(128), "PUMP-2").await.status, 200);
}

/// What was refused did nothing: it may be tried again when it can be done.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_can_be_tried_again_under_its_key() {
    let world = World::new().await;
    assert_eq!(
        tell(&world, "k", "pump-1", "revoke").await.refusal(),
        (404, "unknown_device".into())
    );
    world.device("pump-1").await;
    assert_eq!(tell(&world, "k", "pump-1", "revoke").await.status, 200);
}

/// It is done, so that a second time would be another.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_and_is_not_proven_yet_is_not_done_again() {
    let disk = SimDisk::new(1);
    let world = World::with(Setup { evidence_disk: disk.shared(), ..Setup::default() }).await;
    world.device("pump-1").await;
    disk.set_capacity(disk.used());
    let got = list(&world, "k", "PUMP-2").await;
    assert_eq!(got.refusal(), (503, "evidence_behind".into()));
    let done = events(&world).await;
    for _ in 0..2 {
        let got = list(&world, "k", "PUMP-2").await;
        assert_eq!(got.refusal(), (409, "idempotency_done".into()));
    }
    assert_eq!(events(&world).await, done);
}

/// Its first caller hung up, and the call goes on: the second is not made beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_not_made_twice_at_a_time_and_goes_on_when_its_caller_hangs_up() {
    let world = World::new().await;
    // Nothing is written while this is held.
    let registry = world.control.registry().clone();
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let (begun, begins) = tokio::sync::oneshot::channel::<()>();
    let holding = tokio::spawn(async move {
        let hold = registry.read(move |_| -> control::registry::Work<'_, (), _> {
            Box::pin(async move {
                begun.send(()).unwrap();
                held.await.map_err(|_| control::registry::RegistryError::GivenUp)
            })
        });
        hold.await.unwrap();
    });
    begins.await.unwrap();
    let first = list(&world, "k", "PUMP-1");
    let second = async {
        loop {
            let got = list(&world, "k", "PUMP-1").await;
            if got.status == 409 {
                return got;
            }
        }
    };
    // The first never ends here: it is dropped, connection and all.
    let got = tokio::select! {
        got = first => got,
        got = in_time("the second is refused", second) => got,
    };
    assert_eq!(got.refusal(), (409, "idempotency_in_use".into()));
    release.send(()).unwrap();
    holding.await.unwrap();
    let got = in_time("the first has ended", async {
        loop {
            let got = list(&world, "k", "PUMP-1").await;
            if got.status == 200 {
                return got;
            }
        }
    })
    .await;
    assert_eq!(got.header(REPLAYED), "true");
    assert_eq!(events(&world).await, 1);
}

/// INV-COST-1.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_a_thousand_answers_of_one_caller_are_kept() {
    let world = World::new().await;
    world.device("pump-1").await;
    let http = world.http(None);
    let url = format!("{}{}/pump-1/quarantine", world.base(), path::DEVICES);
    let ask = async |n: usize| {
        let request = http.post(&url).bearer_auth(crate::world::TOKEN).header(KEY, n.to_string());
        Got::of(request).await
    };
    for n in 0..1002 {
        assert_eq!(ask(n).await.header(REPLAYED), "", "{n}");
    }
    assert_eq!(ask(1001).await.header(REPLAYED), "true");
    assert_eq!(ask(2).await.header(REPLAYED), "true");
    assert_eq!(ask(0).await.header(REPLAYED), "", "it was the oldest");
}
