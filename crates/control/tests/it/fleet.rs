//! The operator's side of the fleet.

use crate::world::{Got, Setup, World};
use api::{Changed, Fleet, Role, Standing, path};
use model::DeviceId;
use reqwest::Method;
use serde_json::json;

async fn own(world: &World, body: serde_json::Value) -> Got {
    let request = world.operator(Method::POST, path::OWNERSHIP);
    let request = request.header("content-type", "application/json");
    Got::of(request.body(body.to_string())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_number_is_listed_once_and_says_so_again() {
    let world = World::new().await;
    let entry = json!({ "serial": "PUMP-1", "role": "device", "zone": "hall" });
    let first: Changed = own(&world, entry.clone()).await.json();
    assert_eq!((first.device.id.as_str(), first.device.standing), ("pump-1", Standing::Listed));
    assert_eq!((first.device.serial.as_str(), first.device.zone.as_str()), ("PUMP-1", "hall"));
    let again: Changed = own(&world, entry).await.json();
    assert_eq!(again, first, "no new generation for nothing new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_says_something_else_is_refused() {
    let world = World::new().await;
    let entry = |serial: &str, role: &str, zone: &str| json!({ "serial": serial, "role": role, "zone": zone });
    assert_eq!(own(&world, entry("PUMP-1", "device", "hall")).await.status, 200);
    let mut extra = entry("pump-2", "device", "hall");
    extra["owner"] = json!("me");
    let table = [
        (entry("PUMP-1", "gateway", "hall"), (409, "listed_otherwise")),
        (entry("PUMP-1", "device", "yard"), (409, "listed_otherwise")),
        (entry("pump-1", "device", "hall"), (409, "id_taken")),
        (entry("pump 2", "device", "hall"), (400, "bad_name")),
        (entry("pump_2", "device", "hall"), (400, "bad_name")),
        (entry("pump-2.", "device", "hall"), (400, "bad_name")),
        (entry("pump-2", "device", "the hall"), (400, "bad_name")),
        (entry("pump-2", "boss", "hall"), (400, "bad_json")),
        (extra, (400, "bad_json")),
    ];
    for (body, (status, word)) in table {
        let before = world.refused(word);
        let got = own(&world, body.clone()).await;
        assert_eq!(got.refusal(), (status, word.to_owned()), "{body}");
        assert_eq!(world.refused(word), before + 1, "{body}");
    }
    let long = json!({ "serial": "x".repeat(5000), "role": "device", "zone": "hall" });
    assert_eq!(own(&world, long).await.refusal(), (413, "oversize".into()));
    let no_kind = world.operator(Method::POST, path::OWNERSHIP).body("{}");
    assert_eq!(Got::of(no_kind).await.refusal(), (415, "unsupported_media_type".into()));
    assert_eq!(world.control.registry().directory().len(), 1);
}

/// INV-STATE-1: every verb from every standing.
#[tokio::test(flavor = "multi_thread")]
async fn standing_moves_along_drawn_edges_only() {
    use Standing::{Decommissioned, Enrolled, Listed, Quarantined, Revoked};
    let world = World::new().await;
    let verbs = [
        ("release", Enrolled),
        ("quarantine", Quarantined),
        ("revoke", Revoked),
        ("decommission", Decommissioned),
    ];
    let moves: [(Standing, &[Standing]); 5] = [
        (Listed, &[Decommissioned]),
        (Enrolled, &[Quarantined, Revoked, Decommissioned]),
        (Quarantined, &[Enrolled, Revoked, Decommissioned]),
        (Revoked, &[]),
        (Decommissioned, &[]),
    ];
    let mut n = 0;
    for (from, allowed) in moves {
        for (verb, to) in verbs {
            n += 1;
            let id = DeviceId::new(format!("pump-{n}")).unwrap();
            match from {
                Listed => world.list(id.as_str(), Role::Device, "hall").await,
                _ => drop(world.device(id.as_str()).await),
            }
            if from == Quarantined {
                assert_eq!(world.tell(&id, "quarantine").await.status, 200);
            }
            if from == Revoked {
                assert_eq!(world.tell(&id, "revoke").await.status, 200);
            }
            if from == Decommissioned {
                assert_eq!(world.tell(&id, "decommission").await.status, 200);
            }
            let generation = world.control.registry().directory().generation();
            let got = world.tell(&id, verb).await;
            let what = format!("{verb} from {from:?}: {got:?}");
            let directory = world.control.registry().directory();
            let standing = directory.device(&id).unwrap().standing;
            if from == to {
                let changed: Changed = got.json();
                assert_eq!((changed.generation, standing), (generation, from), "{what}");
            } else if allowed.contains(&to) {
                let changed: Changed = got.json();
                assert_eq!(changed.device.standing, to, "{what}");
                assert_eq!((changed.generation, standing), (generation + 1, to), "{what}");
            } else {
                assert_eq!(got.refusal(), (409, "not_drawn".into()), "{what}");
                assert_eq!((directory.generation(), standing), (generation, from), "{what}");
                assert!(got.problem().detail.contains(from.as_str()), "{what}");
            }
        }
    }
    let nobody = world.tell(&DeviceId::new("nobody").unwrap(), "revoke").await;
    assert_eq!(nobody.refusal(), (404, "unknown_device".into()));
    let path = format!("{}/No%20Body/revoke", path::DEVICES);
    let no_name = Got::of(world.operator(Method::POST, &path)).await;
    assert_eq!(no_name.refusal(), (400, "bad_name".into()));
    assert_eq!(world.metric("plimsoll_invariant_violations_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_read_page_by_page() {
    let world = World::new().await;
    for n in 0..5 {
        world.list(&format!("pump-{n}"), Role::Device, "hall").await;
    }
    let device = world.device("fan-1").await;
    let ask = async |query: &str| {
        Got::of(world.operator(Method::GET, &format!("{}{query}", path::DEVICES))).await
    };
    let all: Fleet = ask("").await.json();
    assert_eq!((all.devices.len(), all.next.as_deref()), (6, None));
    assert_eq!(all.generation, world.control.registry().directory().generation());
    let fan = &all.devices[0];
    assert_eq!((fan.id.as_str(), fan.standing), (device.id.as_str(), Standing::Enrolled));
    assert_eq!(fan.keys.len(), 2);
    assert_eq!(fan.keys[1].id, device.seal_id().to_string());
    let life_ms = fan.keys[0].not_after_ms - fan.keys[0].created_at_ms;
    assert!((life_ms - 90 * 86_400_000).abs() < 1000);
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page: Fleet = ask(&format!("?limit=4{after}")).await.json();
        pages.extend(page.devices);
        let Some(next) = page.next else { break };
        after = format!("&after={next}");
    }
    assert_eq!(pages, all.devices);
    for bad in ["?limit=0", "?limit=10001", "?limit=x", "?page=2", "?after=A%20B"] {
        assert_eq!(ask(bad).await.status, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_every_station_stand_on_one_page() {
    let other = prometheus::Registry::new();
    let name = "plimsoll_invariant_violations_total";
    let opts = prometheus::Opts::new(name, "of another station");
    let violations = prometheus::IntCounterVec::new(opts, &["invariant"]).unwrap();
    violations.with_label_values(&["INV-REPLAY-1"]).inc();
    violations.with_label_values(&["INV-ACK-1"]);
    other.register(Box::new(violations)).unwrap();
    let world = World::with(Setup { registries: vec![other], ..Setup::default() }).await;
    world.list("pump-1", Role::Device, "hall").await;
    let got = Got::of(world.operator(Method::GET, path::METRICS)).await;
    let page = String::from_utf8(got.body).unwrap();
    for sample in [
        "plimsoll_invariant_violations_total{invariant=\"INV-REPLAY-1\"} 1",
        "plimsoll_invariant_violations_total{invariant=\"INV-LEAST-1\"} 0",
        "plimsoll_control_devices{role=\"device\",standing=\"listed\"} 1",
        "plimsoll_control_generation 2",
        "plimsoll_uplink_records_total{reason=\"bad_signature\",verdict=\"quarantined\"} 0",
    ] {
        assert_eq!(page.lines().filter(|line| *line == sample).count(), 1, "{sample} in\n{page}");
    }
    assert_eq!(page.matches(&format!("# TYPE {name} ")).count(), 1);
    assert_eq!(page.matches("invariant=\"INV-ACK-1\"").count(), 1);
}
