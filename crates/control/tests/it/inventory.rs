//! What people see of the fleet: many devices in lines, and one of them whole.

use crate::evidence::log_key;
use crate::rollouts::{NEW, Plant};
use crate::uplink::{hand_up, record_of, verdicts};
use crate::world::{Got, Setup, World, secret};
use ::evidence::export;
use api::device::{Device, DeviceLine, Forensics, History, Inventory, Moment, Summary};
use api::rollout::{RolloutCommand, RolloutSignals, Rollouts};
use api::{Changed, Purpose, Role, Standing};
use keys::est::{Operation, Purpose as For};
use model::DeviceId;
use model::envelope::Algorithm;
use model::uplink::Verdict;
use reqwest::Method;
use serde_json::{Value, json};

async fn get(world: &World, path: &str) -> Got {
    Got::of(world.operator(Method::GET, path)).await
}

async fn line(world: &World, id: &str) -> DeviceLine {
    let found: Inventory = get(world, &format!("/v1/inventory?search={id}")).await.json();
    assert_eq!((found.total, found.devices.len()), (1, 1), "{found:?}");
    found.devices.into_iter().next().unwrap()
}

async fn device(world: &World, id: &str) -> Device {
    get(world, &format!("/v1/devices/{id}")).await.json()
}

/// The whole history, in pages of two, which is the same as in one.
async fn history(world: &World, id: &str, query: &str) -> Vec<Moment> {
    let whole: History =
        get(world, &format!("/v1/devices/{id}/history?limit=1000{query}")).await.json();
    assert_eq!(whole.next, None);
    let (mut moments, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/devices/{id}/history?limit=2{query}{after}");
        let page: History = get(world, &path).await.json();
        assert!(page.moments.len() <= 2);
        moments.extend(page.moments);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(moments, whole.moments);
    moments
}

fn sentences(moments: &[Moment]) -> Vec<&str> {
    moments.iter().map(|moment| moment.sentence.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_says_what_a_device_runs_and_when_it_was_heard_by_whom() {
    let mut plant = Plant::new().await;
    let found = line(&plant.world, "pump-3").await;
    let shown = |line: &DeviceLine| {
        let texts = [&line.product, &line.version, &line.gateway];
        texts.map(|text| text.clone().unwrap_or_default()).join(" ")
    };
    assert_eq!(shown(&found), "pump-app 1.0.0 gw-1");
    assert_eq!(
        (found.site.as_str(), found.zone.as_str(), found.group.as_str(), found.standing),
        ("site", "hall", "production", Standing::Enrolled)
    );
    let before = found.seen_at_ms.unwrap();

    plant.pumps[3].running = trust::digest(NEW);
    plant.check_in(3).await;
    let found = line(&plant.world, "pump-3").await;
    assert_eq!(shown(&found), "pump-app 1.1.0 gw-1");
    assert!(found.seen_at_ms.unwrap() >= before);

    let all: Inventory = get(&plant.world, "/v1/inventory?limit=4").await.json();
    assert_eq!((all.total, all.devices.len()), (11, 4));
    assert_eq!(all.next.as_deref(), Some("pump-2"));
    let rest = get(&plant.world, "/v1/inventory?after=pump-2&limit=100").await;
    assert_eq!(rest.json::<Inventory>().devices.len(), 7);
    let summary: Summary = get(&plant.world, "/v1/inventory/summary?role=device").await.json();
    let versions: Vec<_> =
        summary.versions.iter().map(|(text, n)| format!("{text}: {n}")).collect();
    assert_eq!(versions, ["pump-app 1.0.0: 9", "pump-app 1.1.0: 1"]);
    assert_eq!((summary.total, summary.sites["site"], summary.seen["5m"]), (10, 10, 10));
    assert_eq!((summary.standings["enrolled"], summary.groups["production"]), (10, 10));
    let gateway = line(&plant.world, "gw-1").await;
    assert!(gateway.seen_at_ms.is_some(), "it handed them up");
    assert_eq!(gateway.version, None);

    let table = [
        ("/v1/inventory?limit=1001", "bad_query_string"),
        ("/v1/inventory?limit=0", "bad_query_string"),
        ("/v1/inventory?colour=red", "bad_query_string"),
        ("/v1/inventory?standing=lost", "bad_query_string"),
        ("/v1/inventory/summary?limit=3", "bad_query_string"),
        ("/v1/devices/pump-1/history?kind=rumour", "bad_query_string"),
        ("/v1/devices/pump-1/history?after=yesterday", "bad_query_string"),
    ];
    for (path, word) in table {
        assert_eq!(get(&plant.world, path).await.refusal(), (400, word.to_owned()), "{path}");
    }
    let unknown = get(&plant.world, "/v1/devices/pump-99").await;
    assert_eq!(unknown.refusal(), (404, "unknown_device".into()));
}

/// What a device sealed speaks for it, and what others hand up in its name does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_reading_is_a_word_of_its_device_and_a_forged_one_is_none() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (pump, other) = (world.device("pump-1").await, world.device("pump-2").await);
    let mut forged = record_of(&pump, 1);
    forged.device = other.id.clone();
    let got = hand_up(&world, &gateway, &[record_of(&pump, 0), forged.clone(), forged]).await;
    assert!(matches!(verdicts(&got)[..], [Verdict::Stored, Verdict::Quarantined(_), _]));
    assert_eq!(line(&world, "pump-1").await.gateway.as_deref(), Some("gw-1"));
    assert_eq!(line(&world, "pump-2").await.gateway, None);

    // A message that was taken already is nothing new of its device.
    let before = line(&world, "pump-1").await.seen_at_ms;
    let again = hand_up(&world, &gateway, &[record_of(&pump, 0)]).await;
    assert_eq!(verdicts(&again), [Verdict::Known]);
    assert_eq!(line(&world, "pump-1").await.seen_at_ms, before);

    let world = world.restart(Setup::default()).await;
    let refusals = history(&world, "pump-2", "&kind=refusal").await;
    assert_eq!(
        sentences(&refusals),
        ["a message in its name by gateway gw-1 refused: wrong_device, 2 times within the hour"]
    );
    assert_eq!(refusals[0].detail["count"], 2);
    assert!(history(&world, "pump-1", "&kind=refusal").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_and_by_whom_devices_were_heard_outlives_a_restart() {
    let plant = Plant::new().await;
    let before = [line(&plant.world, "pump-0").await, line(&plant.world, "pump-9").await];
    let mut plant = plant.restart().await;
    let after = [line(&plant.world, "pump-0").await, line(&plant.world, "pump-9").await];
    assert_eq!(before, after);
    let gateways = history(&plant.world, "pump-0", "&kind=gateway").await;
    assert_eq!(sentences(&gateways), ["heard by gateway gw-1 from here on"]);

    // Another gateway, and the one before again.
    let other = plant.world.gateway("gw-2").await;
    let first = std::mem::replace(&mut plant.http, plant.world.http(Some(&other.tls)));
    plant.check_in(0).await;
    let mut plant = Plant { http: first, ..plant }.restart().await;
    assert_eq!(line(&plant.world, "pump-0").await.gateway.as_deref(), Some("gw-2"));
    plant.check_in(0).await;
    let plant = plant.restart().await;
    let gateways = history(&plant.world, "pump-0", "&kind=gateway").await;
    let named: Vec<_> = gateways.iter().map(|moment| moment.detail["gateway"].as_str()).collect();
    assert_eq!(named, [Some("gw-1"), Some("gw-2"), Some("gw-1")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_tells_keys_firmware_standing_and_rollouts_and_names_the_events_that_prove_it() {
    let mut plant = Plant::new().await;
    plant.gauge.says(Ok(Value::Null));
    let order = json!({
        "id": "r-1", "product": "pump-app", "version": "1.1.0", "start": true,
        "waves": [{ "percent": 100 }], "quorum_percent": 100,
    });
    plant.create(order).await;
    plant.stage("r-1", 1, "installing").await;
    let told = plant.all_check_in().await;
    assert_eq!(told.len(), 10);
    plant.install(&told).await;
    plant.phase("r-1", "completed").await;
    let id = DeviceId::new("pump-0").unwrap();
    assert_eq!(plant.world.tell(&id, "quarantine").await.status, 200);
    assert_eq!(plant.world.tell(&id, "release").await.status, 200);
    // A new sealing key retires the one before.
    let key = secret(Algorithm::Ed25519);
    let pump = &plant.pumps[0].station;
    let world = &plant.world;
    world.enroll(&pump.tls, Operation::Enroll, For::Seal, &key, "pump-0").await.unwrap();

    let moments = history(world, "pump-0", "").await;
    let kinds: Vec<_> = moments.iter().map(|moment| moment.kind.as_str()).collect();
    let count = |kind: &str| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!(
        (count("standing"), count("key"), count("firmware"), count("rollout"), count("gap")),
        (3, 4, 2, 2, 0),
        "{:#?}",
        sentences(&moments)
    );
    let of = |kind: &'static str| moments.iter().filter(move |moment| moment.kind == kind);
    let said = |kind| of(kind).map(|moment| moment.sentence.as_str()).collect::<Vec<_>>();
    assert_eq!(
        said("standing"),
        [
            "listed as a device of zone hall, group production",
            "quarantined",
            "released from quarantine"
        ]
    );
    assert_eq!(said("firmware"), ["runs pump-app 1.0.0", "runs pump-app 1.1.0"]);
    assert_eq!(
        said("rollout"),
        ["given leave to install by rollout r-1", "runs what rollout r-1 brought, confirmed"]
    );
    assert!(said("key")[..2].iter().all(|said| said.starts_with("certificate new ")));
    assert!(of("key").any(|moment| moment.sentence.ends_with(" retired")));
    for moment in of("standing").chain(of("rollout")) {
        assert!(moment.event.is_some() && moment.actor.is_some(), "{moment:?}");
    }
    assert!(moments.is_sorted_by_key(|moment| moment.at_ms));

    let only = history(world, "pump-0", "&kind=firmware").await;
    assert_eq!(only, of("firmware").cloned().collect::<Vec<_>>());
    let at = only[1].at_ms;
    assert_eq!(history(world, "pump-0", &format!("&kind=firmware&from_ms={at}")).await, only[1..]);
    let until = history(world, "pump-0", &format!("&kind=firmware&to_ms={}", at - 1)).await;
    assert_eq!(until, only[..1]);
}

/// The store may be away, and what the registry knows is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn gaps_are_the_stores_word_and_it_is_said_when_there_is_none() {
    let plant = Plant::new().await;
    let ask = async || -> History {
        get(&plant.world, "/v1/devices/pump-0/history?limit=1000").await.json()
    };
    plant.gauge.says(Err("the store is away"));
    let told = ask().await;
    assert_eq!(told.missing, ["gaps and losses: the store gave no answer: the store is away"]);
    assert!(told.moments.len() >= 4, "{told:?}");
    plant.gauge.says(Ok(Value::Null));
    assert!(ask().await.missing.is_empty());
    let asked = plant.gauge.asked.lock().unwrap().join("\n");
    assert!(asked.contains("FROM losses WHERE device = 'pump-0'"), "{asked}");
    assert!(asked.contains("FROM gaps WHERE device = 'pump-0'"), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_device_is_shown_with_what_stands_against_it() {
    let mut plant = Plant::new().await;
    let healthy = device(&plant.world, "pump-0").await;
    assert_eq!(healthy.concerns, Vec::<String>::new());
    assert_eq!(healthy.identity.serial, "pump-0");
    assert_eq!(healthy.software.unwrap().components[0].version, "1.0.0");
    let id = DeviceId::new("pump-0").unwrap();
    assert_eq!(plant.world.tell(&id, "quarantine").await.status, 200);
    plant.pumps[0].order = Some((trust::digest(NEW), None));
    plant.pumps[0].fails();
    plant.check_in(0).await;
    let found = device(&plant.world, "pump-0").await;
    assert_eq!(found.line.standing, Standing::Quarantined);
    assert!(found.concerns[0].starts_with("quarantined since 2"), "{:?}", found.concerns);
    assert_eq!(
        found.concerns[1..],
        ["its newest install of pump-app reverted: its self-check failed"]
    );
    plant.world.list("pump-77", Role::Device, "hall").await;
    let listed = device(&plant.world, "pump-77").await;
    assert!(listed.concerns[0].ends_with("and it has not enrolled"), "{:?}", listed.concerns);
    assert_eq!((listed.software, listed.line.seen_at_ms), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_moved_from_group_to_group_and_a_rollout_reaches_the_groups_that_it_names() {
    let plant = Plant::new().await;
    let path = |n: usize| format!("/v1/devices/pump-{n}/group");
    for n in 0..3 {
        let moved: Changed = plant.post(&path(n), json!({ "group": "pilot" })).await.json();
        let again: Changed = plant.post(&path(n), json!({ "group": "pilot" })).await.json();
        assert_eq!(moved.generation, again.generation, "to be there already is no change");
    }
    let refused = plant.post(&path(0), json!({ "group": "The pilots" })).await;
    assert_eq!(refused.refusal(), (400, "bad_name".into()));
    let entry = |group: &str| json!({ "serial": "pump-50", "role": "device", "zone": "hall", "group": group });
    assert_eq!(plant.post("/v1/ownership", entry("development")).await.status, 200);
    let otherwise = plant.post("/v1/ownership", entry("pilot")).await;
    assert_eq!(otherwise.refusal(), (409, "listed_otherwise".into()));

    let mut plant = plant.restart().await;
    assert_eq!(line(&plant.world, "pump-50").await.group, "development");
    let summary: Summary = get(&plant.world, "/v1/inventory/summary?role=device").await.json();
    let groups: Vec<_> = summary.groups.iter().map(|(text, n)| format!("{text}: {n}")).collect();
    assert_eq!(groups, ["development: 1", "pilot: 3", "production: 7"]);
    let told = history(&plant.world, "pump-0", "&kind=act").await;
    assert_eq!(sentences(&told), ["moved from group production to pilot"]);
    assert!(told[0].event.is_some());

    let order = json!({
        "id": "r-1", "product": "pump-app", "version": "1.1.0", "start": true,
        "cohort": { "groups": ["pilot"] }, "waves": [{ "percent": 100 }],
    });
    let made = plant.create(order).await;
    assert_eq!(made.cohort, 3);
    plant.stage("r-1", 1, "installing").await;
    assert_eq!(plant.all_check_in().await, [0, 1, 2]);
    // Another one of the same product, for others.
    let order = json!({
        "id": "r-2", "product": "pump-app", "version": "1.1.0", "start": true,
        "cohort": { "groups": ["production"] }, "waves": [{ "percent": 100 }],
    });
    assert_eq!(plant.create(order).await.cohort, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_tells_what_comes_next_and_what_its_gates_were_answered() {
    let mut plant = Plant::new().await;
    let order = json!({
        "id": "r-1", "product": "pump-app", "version": "1.1.0",
        "waves": [{ "percent": 20 }, { "percent": 100 }],
        "signals": [{ "name": "flow", "sql": "select flow", "at_least": 3 }], "ask_again_ms": 60_000,
    });
    let planned = plant.create(order).await;
    assert_eq!(planned.next.as_deref(), Some("waits for a person: start or abort"));
    assert_eq!(planned.commands, [RolloutCommand::Start, RolloutCommand::Abort]);
    plant.gauge.says(Ok(json!(7)));
    assert_eq!(plant.tell("r-1", "start").await.status, 200);
    let installing = plant.stage("r-1", 1, "installing").await;
    let next = installing.next.unwrap();
    assert!(next.starts_with("when 2 of the 2 of wave 1 have proven it (0 have so far)"), "{next}");
    assert!(installing.next_at_ms.is_some());
    let first = plant.all_check_in().await;
    plant.install(&first).await;
    plant.stage("r-1", 2, "installing").await;
    plant.gauge.says(Ok(json!(1)));
    let rest = plant.all_check_in().await;
    plant.install(&rest).await;
    let halted = plant.phase("r-1", "halted").await;
    assert_eq!(halted.next.as_deref(), Some("waits for a person: revert or abort"));

    let ask =
        async || -> RolloutSignals { get(&plant.world, "/v1/rollouts/r-1/signals").await.json() };
    let asked = ask().await.asked;
    let answers: Vec<_> = asked.iter().map(|one| (one.wave, one.value, one.within)).collect();
    assert_eq!(answers, [(1, Some(7.0), true), (2, Some(1.0), false)]);
    plant.gauge.says(Ok(Value::Null));
    let nothing = ask().await;
    assert_eq!((nothing.compared.len(), nothing.missing.len()), (0, 0));
    plant.gauge.says(Err("the store is away"));
    assert_eq!(
        ask().await.missing,
        ["what devices say: the store gave no answer: the store is away"]
    );
    let unknown = get(&plant.world, "/v1/rollouts/r-9/signals").await;
    assert_eq!(unknown.refusal(), (404, "unknown_rollout".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_are_listed_in_pages_newest_first() {
    let plant = Plant::new().await;
    for n in 1..=5 {
        let order = json!({
            "id": format!("r-{n}"), "product": "pump-app", "version": "1.1.0",
            "waves": [{ "percent": 100 }],
        });
        plant.create(order).await;
    }
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let page: Rollouts =
            get(&plant.world, &format!("/v1/rollouts?limit=2{after}")).await.json();
        ids.extend(page.rollouts.into_iter().map(|rollout| rollout.id));
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(ids, ["r-5", "r-4", "r-3", "r-2", "r-1"]);
    let unknown = get(&plant.world, "/v1/rollouts?after=r-9").await;
    assert_eq!(unknown.refusal(), (404, "unknown_rollout".into()));
    let many = get(&plant.world, "/v1/rollouts?limit=101").await;
    assert_eq!(many.refusal(), (400, "bad_query_string".into()));
}

/// INV-AUTH-1: what its keys could do ends at once, whatever grace a retired key has, and its birth certificate is the way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_keys_were_taken_away_comes_back_by_its_birth_certificate_alone() {
    let mut plant = Plant::new().await;
    let id = DeviceId::new("pump-0").unwrap();
    let bundle = async |plant: &Plant| -> api::BundleDevice {
        let got =
            Got::of(plant.world.call(Some(&plant.gateway.tls), Method::GET, "/v1/gateway/bundle"));
        let bundle: api::Bundle = got.await.json();
        bundle.devices.into_iter().find(|device| device.id == "pump-0").unwrap()
    };
    assert_eq!(bundle(&plant).await.tls_keys.len(), 1);
    assert_eq!(plant.world.tell(&id, "quarantine").await.status, 200);
    let changed: Changed = plant.world.tell(&id, "reenrol").await.json();
    assert_eq!(changed.device.standing, Standing::Quarantined, "it stays so until it is released");
    assert!(changed.device.keys.iter().all(|key| key.retired_at_ms.is_some()));
    let again: Changed = plant.world.tell(&id, "reenrol").await.json();
    assert_eq!(again.generation, changed.generation, "there is nothing more to take");

    let told = bundle(&plant).await;
    assert_eq!((told.tls_keys, told.seal_keys.len()), (vec![], 1), "its backlog is believed");
    let message = plant.pumps[0].sealed();
    assert_eq!(plant.show(&id, message).await.refusal(), (403, "key_retired".into()));
    let plant = plant.restart().await;
    let (world, pump) = (&plant.world, &plant.pumps[0].station);
    let key = secret(Algorithm::Esp256);
    let refused = world.enroll(&pump.tls, Operation::Reenroll, For::Tls, &key, "pump-0").await;
    assert!(refused.unwrap_err().to_string().contains("not_its_key"));
    world.enroll(&pump.born, Operation::Enroll, For::Tls, &key, "pump-0").await.unwrap();
    assert_eq!(bundle(&plant).await.tls_keys.len(), 1);
    assert_eq!(device(world, "pump-0").await.line.standing, Standing::Quarantined);
    let told = history(world, "pump-0", "&kind=key").await;
    let taken = told.iter().find(|moment| moment.sentence.starts_with("all its keys")).unwrap();
    assert!(taken.event.is_some());
}

/// INV-AUTH-1, INV-STATE-1.
#[tokio::test(flavor = "multi_thread")]
async fn a_decommissioned_device_is_nobody_any_more_and_cannot_come_back() {
    let mut plant = Plant::new().await;
    let id = DeviceId::new("pump-0").unwrap();
    let changed: Changed = plant.world.tell(&id, "decommission").await.json();
    assert_eq!(changed.device.standing, Standing::Decommissioned);
    let got = plant.world.call(Some(&plant.gateway.tls), Method::GET, "/v1/gateway/bundle");
    let bundle: api::Bundle = Got::of(got).await.json();
    let told = bundle.devices.iter().find(|device| device.id == "pump-0").unwrap();
    // Gateways of the release before know no other word for it.
    assert_eq!(
        (told.standing, told.tls_keys.len(), told.seal_keys.len()),
        (Standing::Revoked, 0, 0)
    );
    let message = plant.pumps[0].sealed();
    assert_eq!(plant.show(&id, message).await.refusal(), (403, "revoked".into()));
    let record = record_of(&plant.pumps[0].station, 0);
    let quarantined = verdicts(&hand_up(&plant.world, &plant.gateway, &[record]).await);
    assert!(matches!(quarantined[..], [Verdict::Quarantined(_)]), "{quarantined:?}");
    let plant = plant.restart().await;
    let (world, pump) = (&plant.world, &plant.pumps[0].station);
    let key = secret(Algorithm::Esp256);
    for own in [&pump.born, &pump.tls] {
        let refused = world.enroll(own, Operation::Enroll, For::Tls, &key, "pump-0").await;
        assert!(refused.unwrap_err().to_string().contains("revoked"));
    }
    for verb in ["release", "revoke", "quarantine", "reenrol"] {
        assert_eq!(world.tell(&id, verb).await.refusal(), (409, "not_drawn".into()), "{verb}");
    }
    let found = device(world, "pump-0").await;
    assert!(found.concerns[0].starts_with("decommissioned since 2"), "{:?}", found.concerns);
    let standing = history(world, "pump-0", "&kind=standing").await;
    assert!(sentences(&standing).contains(&"decommissioned for good, was enrolled"));
    let plant = plant.restart().await;
    let refusals = history(&plant.world, "pump-0", "&kind=refusal").await;
    let mut refusals = sentences(&refusals);
    refusals.sort_unstable();
    assert_eq!(
        refusals,
        [
            "a call in its name refused: revoked",
            "a certificate in its name refused: revoked",
            "a check-in in its name by gateway gw-1 refused: revoked",
            "a message in its name by gateway gw-1 refused: revoked",
        ]
    );
}

/// INV-EVID-1: whoever has the log's public key needs neither the site nor its word.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_about_a_device_proves_by_itself_what_was_done() {
    let mut plant = Plant::new().await;
    plant.gauge.says(Ok(Value::Null));
    let order = json!({
        "id": "r-1", "product": "pump-app", "version": "1.1.0", "start": true,
        "waves": [{ "percent": 100 }],
    });
    plant.create(order).await;
    plant.stage("r-1", 1, "installing").await;
    let told = plant.all_check_in().await;
    plant.install(&told).await;
    let id = DeviceId::new("pump-0").unwrap();
    assert_eq!(plant.world.tell(&id, "revoke").await.status, 200);
    let got = get(&plant.world, "/v1/devices/pump-0/forensics").await;
    let file: Forensics = got.json();
    assert_eq!((file.plimsoll_forensics, file.site.as_str(), file.missing.len()), (1, "site", 0));
    assert_eq!(file.device, device(&plant.world, "pump-0").await);
    assert_eq!(file.history, history(&plant.world, "pump-0", "").await);

    let proven = export::verify(file.evidence.as_bytes(), &log_key()).unwrap();
    let named: Vec<u64> = file.history.iter().filter_map(|moment| moment.event).collect();
    assert!(named.len() >= 6, "{:#?}", sentences(&file.history));
    for moment in file.history.iter().filter(|moment| moment.event.is_some()) {
        let event = proven.events.iter().find(|event| Some(event.sequence()) == moment.event);
        let event = event.unwrap_or_else(|| panic!("not proven: {moment:?}"));
        assert_eq!((event.at_ms(), Some(event.actor())), (moment.at_ms, moment.actor.as_deref()));
    }
    let actions: Vec<_> = proven.events.iter().map(|event| event.action()).collect();
    assert!(actions.contains(&"device.revoke") && actions.contains(&"device.proven"));
    assert!(!file.evidence.contains("pump-1"), "nobody else's");

    // Each certificate is the authority's own word about the key that it stands beside.
    let issuers = ::keys::Issuers::new("site", vec![file.authority.0.clone()], vec![]).unwrap();
    for one in &file.certificates {
        let leaf = issuers.identify(&one.certificate.0, ::keys::UnixTime::now()).unwrap();
        if one.purpose == Purpose::Tls {
            assert_eq!(leaf.spki_sha256.to_string(), one.key);
        }
    }
    let ids: Vec<_> = file.certificates.iter().map(|one| one.key.as_str()).collect();
    let keys: Vec<_> = file.device.identity.keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(ids, keys);

    // One letter of what was done, changed.
    let at = file.evidence.find("device.revoke").unwrap();
    let mut forged = file.evidence.clone().into_bytes();
    forged[at] = b'D';
    assert!(export::verify(&forged, &log_key()).is_err());
    let unknown = get(&plant.world, "/v1/devices/pump-99/forensics").await;
    assert_eq!(unknown.refusal(), (404, "unknown_device".into()));
}
