//! Who is bounded by site, and what goes on when much else is broken.

use crate::people::{Browser, JsonBody as _};
use crate::rollouts::Plant;
use crate::world::{Got, Setup, World};
use api::rollout::{Rollout, Rollouts};
use api::{Fleet, Role, Scope, UserRole, path};
use disk::SimDisk;
use reqwest::Method;
use serde_json::{Value, json};

async fn assign(world: &World, id: &str, zones: &[&str]) {
    let body = json!({ "id": id, "zones": zones });
    let got = Got::of(world.operator(Method::POST, path::SITES).json(&body)).await;
    assert_eq!(got.status, 200, "{got:?}");
}

/// Every role, at one site.
async fn person_of(world: &World, site: &str) -> Browser {
    let grants: Vec<_> = UserRole::ALL.iter().map(|role| (*role, Some(site))).collect();
    world.make_user(site, &grants).await;
    world.sign_in(site).await
}

fn ids(fleet: &Fleet) -> Vec<&str> {
    fleet.devices.iter().map(|device| device.id.as_str()).collect()
}

/// INV-LEAST-1.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_bounded_by_site_sees_its_devices_and_to_him_there_are_no_others() {
    let world = World::new().await;
    world.enrolled("pump-n", Role::Device, "hall").await;
    world.enrolled("pump-s", Role::Device, "yard").await;
    assign(&world, "north", &["hall"]).await;
    assign(&world, "south", &["yard"]).await;
    let north = person_of(&world, "north").await;
    let fleet: Fleet = north.get(path::DEVICES).await.json();
    assert_eq!((ids(&fleet), &fleet.next), (vec!["pump-n"], &None));
    let seen: api::device::Inventory = north.get("/v1/inventory").await.json();
    assert_eq!((seen.total, seen.devices[0].site.as_str()), (1, "north"));

    // What is elsewhere and what is nowhere is answered alike.
    for act in ["revoke", "quarantine", "release"] {
        let at = |id: &str| format!("{}/{id}/{act}", path::DEVICES);
        let there = north.post(&at("pump-s"), json!(null)).await;
        let nowhere = north.post(&at("pump-x"), json!(null)).await;
        assert_eq!(there.refusal(), (404, "unknown_device".into()), "{act}");
        assert_eq!(there.problem().detail.replace("pump-s", "pump-x"), nowhere.problem().detail);
    }
    let software = |id: &str| format!("{}/{id}/software", path::DEVICES);
    let refused = north.get(&software("pump-s")).await.refusal();
    assert_eq!(refused, (404, "unknown_device".into()));
    assert_eq!(north.get(&software("pump-n")).await.refusal(), (404, "no_manifest".into()));
    let list = |serial: &str, zone: &str| {
        north.post(path::OWNERSHIP, json!({ "serial": serial, "role": "device", "zone": zone }))
    };
    assert_eq!(list("PUMP-NEW", "yard").await.refusal(), (403, "out_of_scope".into()));
    let taken = list("pump-s", "hall").await;
    assert_eq!(taken.refusal(), (409, "listed_otherwise".into()));
    assert!(!taken.problem().detail.contains("yard"), "{taken:?}");
    assert_eq!(list("PUMP-NEW", "hall").await.status, 200);
    let quarantine = format!("{}/pump-n/quarantine", path::DEVICES);
    assert_eq!(north.post(&quarantine, json!(null)).await.status, 200);

    // A token is bounded further, and a zone that moves takes its devices along at the next call.
    let made = world.token(&north, &[Scope::FleetRead]).await;
    assign(&world, "south", &["yard", "hall"]).await;
    let fleet: Fleet = north.get(path::DEVICES).await.json();
    assert!(ids(&fleet).is_empty());
    let fleet: Fleet = world.with_token(&made.secret, Method::GET, path::DEVICES).await.json();
    assert!(ids(&fleet).is_empty());
}

fn order(id: &str, cohort: Value) -> Value {
    json!({
        "id": id, "product": "pump-app", "version": "1.1.0", "cohort": cohort,
        "waves": [{ "percent": 30 }, { "percent": 100 }],
    })
}

/// INV-LEAST-1.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_bounded_by_site_orders_for_its_zones_and_moves_only_what_stays_within_them() {
    let plant = Plant::new().await;
    let world = &plant.world;
    world.list("pump-y", Role::Device, "yard").await;
    assign(world, "north", &["hall"]).await;
    assign(world, "south", &["yard"]).await;
    let (north, south) = (person_of(world, "north").await, person_of(world, "south").await);
    for (cohort, refusal) in [
        (json!({ "zones": ["hall", "yard"] }), (403, "out_of_scope")),
        (json!({ "devices": ["pump-0", "pump-y"] }), (404, "unknown_device")),
    ] {
        let got = north.post(path::ROLLOUTS, order("r-0", cohort)).await;
        assert_eq!(got.refusal(), (refusal.0, refusal.1.into()));
    }
    // To name no zone means all of one's own.
    let made = north.post(path::ROLLOUTS, order("r-north", json!({}))).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made: Rollout = serde_json::from_slice(&made.body).unwrap();
    assert_eq!((made.order.cohort.zones.as_slice(), made.cohort), (&["hall".to_owned()][..], 10));
    let all =
        Got::of(world.operator(Method::POST, path::ROLLOUTS).json(&order("r-all", json!({}))));
    assert_eq!(all.await.status, 201);

    let seen = async |browser: &Browser| {
        let rollouts: Rollouts = browser.get(path::ROLLOUTS).await.json();
        rollouts.rollouts.into_iter().map(|rollout| rollout.id).collect::<Vec<_>>()
    };
    assert_eq!(seen(&north).await, ["r-north"]);
    assert!(seen(&south).await.is_empty());
    let unknown = || (404, "unknown_rollout".to_owned());
    for (browser, id) in [(&north, "r-all"), (&south, "r-north"), (&south, "r-all")] {
        for tail in ["", "/devices", "/signals"] {
            let path = format!("{}/{id}{tail}", path::ROLLOUTS);
            assert_eq!(browser.get(&path).await.refusal(), unknown(), "{path}");
        }
        for command in ["start", "pause", "resume", "halt", "revert", "abort"] {
            let path = format!("{}/{id}/{command}", path::ROLLOUTS);
            assert_eq!(browser.post(&path, json!(null)).await.refusal(), unknown(), "{path}");
        }
    }
    let start = format!("{}/r-north/start", path::ROLLOUTS);
    assert_eq!(north.post(&start, json!(null)).await.status, 200);
    let halt = format!("{}/r-north/halt", path::ROLLOUTS);
    assert_eq!(north.post(&halt, json!(null)).await.status, 200);
}

/// What narrows needs one person, and nothing that could be broken: no evidence log that takes anything, no vendor, no answer to
/// SQL.
#[tokio::test(flavor = "multi_thread")]
async fn what_narrows_is_done_by_one_person_while_much_else_is_broken() {
    let disk = SimDisk::new(1);
    let setup = Setup { evidence_disk: disk.shared(), ..Setup::default() };
    let world = World::with(setup).await;
    for pump in ["pump-1", "pump-2"] {
        world.device(pump).await;
    }
    world.make_user("boris", &[(UserRole::SecurityOfficer, None)]).await;
    world.make_user("clara", &[(UserRole::Viewer, None)]).await;
    let clara = world.sign_in("clara").await;
    let (one, two) = (
        world.token(&clara, &[Scope::FleetRead]).await,
        json!({ "name": "two", "scopes": ["fleet.read"], "days": 1 }),
    );
    disk.set_capacity(disk.used());

    let boris = world.sign_in("boris").await;
    let post = async |path: String| boris.post(&path, json!(null)).await.status.as_u16();
    assert_eq!(post(format!("{}/pump-1/quarantine", path::DEVICES)).await, 200);
    assert_eq!(post(format!("{}/pump-2/revoke", path::DEVICES)).await, 200);
    assert_eq!(post(format!("{}/pump-1/release", path::DEVICES)).await, 503, "this widens");
    assert_eq!(clara.post(path::TOKENS, two).await.refusal().0, 503, "and this makes something");
    let token = format!("{}/{}", path::TOKENS, one.token.id);
    assert_eq!(boris.delete(&token).await.status, 200);
    assert_eq!(post(format!("{}/clara/disable", path::USERS)).await, 200);
    assert_eq!(clara.get(path::SESSION).await.refusal(), (401, "session_ended".into()));
    let broken = json!({ "sql": "select broken" });
    assert_eq!(boris.post(path::QUERY, broken).await.refusal(), (500, "query_failed".into()));
    assert_eq!(boris.delete(path::SESSION).await.status, 204);
    disk.set_capacity(u64::MAX);
}
