//! What was done is proven, or it is not answered.

use crate::world::{Got, PATIENCE, Setup, World, in_time, secret, start};
use ::evidence::tile::{Edge, entries};
use ::evidence::{Checkpoint, Event, NoteKey, export, merkle};
use api::event::Events;
use api::{Role, Standing, path};
use control::Fatal;
use disk::{Cut, SimDisk};
use keys::est::{Operation, Purpose};
use model::DeviceId;
use model::envelope::Algorithm;
use reqwest::Method;
use serde_json::json;
use std::path::Path;
use trust::cose::Signer as _;

pub fn log_key() -> NoteKey {
    NoteKey::new("site/evidence", Setup::default().evidence_key.public()).unwrap()
}

async fn get(world: &World, rest: &str) -> Got {
    Got::of(world.operator(Method::GET, rest)).await
}

async fn events(world: &World, query: &str) -> Events {
    get(world, &format!("{}{query}", path::EVENTS)).await.json()
}

async fn checkpoint(world: &World) -> Checkpoint {
    let got = get(world, &format!("{}/checkpoint", path::EVIDENCE)).await;
    Checkpoint::open(std::str::from_utf8(&got.body).unwrap(), &log_key()).unwrap()
}

async fn own(world: &World, serial: &str) -> Got {
    let entry = json!({ "serial": serial, "role": "device", "zone": "hall" });
    let request = world.operator(Method::POST, path::OWNERSHIP);
    Got::of(request.header("content-type", "application/json").body(entry.to_string())).await
}

/// For a query string (RFC 3986 §2.1).
fn escaped(text: &str) -> String {
    let escape = |b: u8| match b.is_ascii_alphanumeric() {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    };
    text.bytes().map(escape).collect()
}

fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

/// INV-EVID-1: when the answer is there, so is the proof.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_in_the_log() {
    let world = World::new().await;
    assert_eq!(own(&world, "pump-1").await.status, 200);
    assert_eq!(checkpoint(&world).await.size(), 1);
    world.device("pump-1").await;
    assert_eq!(checkpoint(&world).await.size(), 3, "two certificates");
    for (verb, size) in [("quarantine", 4), ("release", 5), ("revoke", 6), ("revoke", 6)] {
        assert_eq!(world.tell(&id("pump-1"), verb).await.status, 200);
        assert_eq!(checkpoint(&world).await.size(), size, "{verb}");
    }
    assert_eq!(world.tell(&id("pump-1"), "release").await.refusal().0, 409);
    let asked_for = async {
        while checkpoint(&world).await.size() < 7 {
            tokio::task::yield_now().await;
        }
    };
    in_time("that it was asked for is an event (INV-STATE-1)", asked_for).await;

    let page = events(&world, "").await;
    let told: Vec<_> = page
        .events
        .iter()
        .map(|e| (e.sequence, e.actor.as_str(), e.action.as_str(), e.subject.as_str()))
        .collect();
    let pump = "device/pump-1";
    assert_eq!(
        told,
        [
            (0, "token/site", "device.list", pump),
            (1, pump, "device.enrol", pump),
            (2, pump, "device.enrol", pump),
            (3, "token/site", "device.quarantine", pump),
            (4, "token/site", "device.release", pump),
            (5, "token/site", "device.revoke", pump),
            (6, "token/site", "device.refused", pump),
        ]
    );
    assert_eq!((page.covered, page.next), (7, None));
    assert_eq!(page.events[6].detail, json!({ "from": "revoked", "to": "enrolled" }));
    let purposes: Vec<_> = page.events[1..3].iter().map(|e| e.detail["purpose"].clone()).collect();
    assert_eq!(purposes, [json!("tls"), json!("seal")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_read_page_by_page_and_by_subject() {
    let world = World::new().await;
    for n in 0..5 {
        world.list(&format!("pump-{n}"), Role::Device, "hall").await;
    }
    world.list("pump-0", Role::Device, "hall").await;
    let all = events(&world, "").await;
    assert_eq!(all.events.len(), 5);
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = events(&world, &format!("?limit=2{after}")).await;
        assert!(page.events.len() <= 2);
        pages.extend(page.events);
        let Some(next) = page.next else { break };
        after = format!("&after={next}");
    }
    assert_eq!(pages, all.events);
    let one = events(&world, "?subject=device/pump-3").await;
    assert_eq!(one.events, all.events[3..4]);
    assert!(events(&world, "?subject=device/nobody").await.events.is_empty());
    assert!(events(&world, &format!("?after={}", u64::MAX)).await.events.is_empty());
    for bad in ["?limit=0", "?limit=1001", "?after=-1", "?page=2"] {
        assert_eq!(get(&world, &format!("{}{bad}", path::EVENTS)).await.status, 400, "{bad}");
    }
}

/// With the log's public key and nothing else of ours.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_proven_offline_and_shows_that_the_log_has_only_grown() {
    let world = World::new().await;
    world.list("pump-1", Role::Device, "hall").await;
    let kept = checkpoint(&world).await;
    for n in 2..6 {
        world.list(&format!("pump-{n}"), Role::Device, "hall").await;
    }
    world.device("pump-1").await;
    let ask = async |query: &[(&str, &str)]| {
        let words: Vec<_> =
            query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        get(&world, &format!("{}/export?{}", path::EVIDENCE, words.join("&"))).await
    };
    let got = ask(&[("subject", "device/pump-1"), ("since", kept.note())]).await;
    assert_eq!(got.status, 200, "{got:?}");
    let proven = export::verify(&got.body, &log_key()).unwrap();
    let sequences: Vec<_> = proven.events.iter().map(Event::sequence).collect();
    assert_eq!(sequences, [0, 5, 6]);
    assert_eq!(proven.earlier.unwrap().head(), kept.head());
    assert_eq!(proven.checkpoint.size(), 7);
    let got = ask(&[("from", "1"), ("to", "4")]).await;
    let proven = export::verify(&got.body, &log_key()).unwrap();
    assert_eq!(proven.events.iter().map(Event::sequence).collect::<Vec<_>>(), [1, 2, 3]);

    let changed = String::from_utf8(got.body).unwrap().replace("pump-3", "pump-9");
    export::verify(changed.as_bytes(), &log_key()).expect_err("it was changed on its way");
    let forged = kept.note().replace("\n1\n", "\n2\n");
    let refused = ask(&[("since", forged.as_str())]).await.refusal();
    assert_eq!(refused, (400, "bad_checkpoint".into()));
}

/// The tree from its tiles, as other people's tools read it (C2SP tlog-tiles).
#[tokio::test(flavor = "multi_thread")]
async fn the_tiles_that_are_served_come_to_the_checkpoint() {
    let world = World::new().await;
    for n in 0..4 {
        world.list(&format!("pump-{n}"), Role::Device, "hall").await;
    }
    let head = checkpoint(&world).await.head();
    let tile = async |name: &str| get(&world, &format!("{}/tile/{name}", path::EVIDENCE)).await;
    let bundle = tile("entries/000.p/4").await;
    assert_eq!(bundle.header("content-type"), "application/octet-stream");
    let mut edge = Edge::default();
    let mut hashes = Vec::new();
    for leaf in entries(&bundle.body, 4).unwrap() {
        Event::from_leaf(leaf).unwrap();
        edge.push(merkle::leaf_hash(leaf), |_, hash| hashes.extend(hash.0));
    }
    assert_eq!((edge.size(), edge.root()), (head.size, head.root));
    assert_eq!(tile("0/000.p/4").await.body, hashes);
    for none in ["0/000.p/5", "0/000", "entries/001", "0/0", "1/000.p/1", "entries/000.p/4/.."] {
        assert_eq!(tile(none).await.status, 404, "{none}");
    }
}

/// INV-EVID-1, DESIGN §10: without room for evidence nothing widens, and narrowing goes on and is logged when it can be.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_evidence_log_refuses_what_widens_and_lets_narrow() {
    let disk = SimDisk::new(1);
    let world = World::with(Setup { evidence_disk: disk.shared(), ..Setup::default() }).await;
    let pump = world.device("pump-1").await;
    let gateway = world.gateway("gw-1").await;
    let before = checkpoint(&world).await.size();
    disk.set_capacity(disk.used());

    // The first finds out. It is done, its event is kept, and nothing says so before it is proven.
    let (status, word) = own(&world, "PUMP-2").await.refusal();
    assert_eq!((status, word.as_str()), (503, "evidence_behind"));
    // The others are refused before anything is done.
    let got = own(&world, "PUMP-3").await;
    assert_eq!(got.refusal(), (503, "evidence_unavailable".into()));
    assert_eq!(got.header("retry-after"), "5");
    assert!(got.problem().detail.contains("no space left"), "{got:?}");
    let key = secret(Algorithm::Esp256);
    let refused = world.enroll(&pump.tls, Operation::Reenroll, Purpose::Tls, &key, "pump-1").await;
    let refused = model::told(&refused.unwrap_err());
    assert!(refused.contains("503"), "{refused}");
    assert!(world.control.registry().directory().device(&id("pump-3")).is_none());

    // Narrowing goes on, all the way to the gateways.
    assert_eq!(world.tell(&id("pump-1"), "quarantine").await.status, 200);
    assert_eq!(
        world.tell(&id("pump-1"), "release").await.refusal(),
        (503, "evidence_unavailable".into())
    );
    assert_eq!(world.tell(&id("pump-1"), "revoke").await.status, 200);
    let bundle = Got::of(world.call(Some(&gateway.tls), Method::GET, path::GATEWAY_BUNDLE)).await;
    let bundle: api::Bundle = bundle.json();
    assert_eq!(bundle.devices[0].standing, Standing::Revoked);
    let page = events(&world, "").await;
    assert_eq!((page.covered, page.events.len() as u64), (before, before + 3));

    disk.set_capacity(u64::MAX);
    let room = async {
        while checkpoint(&world).await.size() < before + 3 {
            tokio::task::yield_now().await;
        }
    };
    in_time("the log takes events again by itself", room).await;
    let told = events(&world, "?subject=device/pump-1").await.events;
    assert_eq!(told.last().unwrap().action, "device.revoke");
    assert_eq!(own(&world, "PUMP-3").await.status, 200);
    assert_eq!(world.metric("plimsoll_invariant_violations_total"), 0);
    assert!(world.metric("plimsoll_evidence_checkpoints_failed_total") >= 1);
}

/// A log whose disk failed has promised what nobody can know: the process stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_under_the_log_stops_control() {
    let disk = SimDisk::new(2);
    let world = World::with(Setup { evidence_disk: disk.shared(), ..Setup::default() }).await;
    world.list("pump-1", Role::Device, "hall").await;
    disk.cut_now();
    assert_eq!(own(&world, "PUMP-2").await.refusal(), (503, "evidence_behind".into()));
    let fatal = in_time("control stops", world.control.failed()).await;
    assert!(matches!(fatal, Fatal::Evidence { .. }), "{fatal}");
    assert_eq!(get(&world, path::HEALTH).await.status, 500);
}

/// INV-EVID-1: what was committed and not logged when the process was killed is logged at the next start, at its number.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_no_checkpoint_covered_are_logged_at_the_next_start() {
    let disk = SimDisk::new(3);
    let setup = || Setup { evidence_disk: disk.shared(), ..Setup::default() };
    let world = World::with(setup()).await;
    world.device("pump-1").await;
    let before = checkpoint(&world).await.size();
    disk.set_capacity(disk.used());
    assert_eq!(world.tell(&id("pump-1"), "revoke").await.status, 200);
    // Killed, as far as the log can tell: it ends without having written.
    let World { dir, site, maker, shards, control } = world;
    control.shutdown().await;
    disk.set_capacity(u64::MAX);
    let control = start(&dir, &site, &maker, &shards, setup()).await.unwrap();
    let world = World { dir, site, maker, shards, control };
    assert_eq!(checkpoint(&world).await.size(), before + 1);
    let told = events(&world, &format!("?after={}", before - 1)).await;
    assert_eq!((told.events[0].action.as_str(), told.covered), ("device.revoke", before + 1));
}

/// INV-EVID-1, with the power of the log's disk cut at each of its writes: what was answered is proven afterwards, and the
/// log has only grown since what an auditor kept before.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_at_any_write_of_the_log_loses_nothing_that_was_answered() {
    let disk = SimDisk::new(4);
    let setup = || Setup { evidence_disk: disk.shared(), ..Setup::default() };
    let mut world = World::with(setup()).await;
    let (mut answered, mut unanswered) = (Vec::new(), 0);
    for cut in 0.. {
        let kept = checkpoint(&world).await;
        disk.set_cut(Cut::At(cut));
        for n in 0..2 {
            let serial = format!("pump-{cut}-{n}");
            match own(&world, &serial).await.status.as_u16() {
                200 => answered.push(format!("device/{serial}")),
                status => {
                    assert_eq!(status, 503, "{serial}");
                    unanswered += 1;
                }
            }
        }
        let was_cut = !disk.is_on();
        let World { dir, site, maker, shards, control } = world;
        control.shutdown().await;
        disk.set_cut(Cut::Never);
        disk.reboot();
        let control = start(&dir, &site, &maker, &shards, setup()).await;
        world = World { dir, site, maker, shards, control: control.expect("it goes on") };

        let page = events(&world, "").await;
        assert_eq!(page.covered, page.events.len() as u64, "what was kept is logged, cut at {cut}");
        let subjects: Vec<_> = page.events.iter().map(|event| event.subject.as_str()).collect();
        for subject in &answered {
            assert!(subjects.contains(&subject.as_str()), "{subject} was answered, cut at {cut}");
        }
        let since = escaped(kept.note());
        let export = get(&world, &format!("{}/export?since={since}", path::EVIDENCE)).await;
        let proven = export::verify(&export.body, &log_key()).expect("proven");
        assert_eq!(proven.events.len() as u64, page.covered);
        assert_eq!(proven.earlier.unwrap().head(), kept.head(), "grown, cut at {cut}");
        if !was_cut {
            println!("{cut} cuts, {} answered, {unanswered} not", answered.len());
            break;
        }
    }
    assert!(answered.len() >= 5 && unanswered >= 5);
}

/// Copies a directory with what is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// INV-EVID-1: a control plane of which one half comes from a backup would fork the log; it does not start.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_registry_or_a_restored_log_is_found_at_the_start() {
    let world = World::new().await;
    world.list("pump-1", Role::Device, "hall").await;
    let World { dir, site, maker, shards, control } = world;
    control.shutdown().await;
    let (live, old, new) =
        (dir.path().join("control"), dir.path().join("old"), dir.path().join("new"));
    copy(&live, &old);
    let control = start(&dir, &site, &maker, &shards, Setup::default()).await.unwrap();
    let world = World { dir, site, maker, shards, control };
    world.list("pump-2", Role::Device, "hall").await;
    let World { dir, site, maker, shards, control } = world;
    control.shutdown().await;
    copy(&live, &new);

    let put = |registry: &Path, log: Option<&Path>| {
        std::fs::remove_dir_all(&live).unwrap();
        std::fs::create_dir_all(&live).unwrap();
        std::fs::copy(registry.join("registry.sqlite"), live.join("registry.sqlite")).unwrap();
        if let Some(log) = log {
            copy(&log.join("evidence"), &live.join("evidence"));
        }
    };
    let table: [(&Path, Option<&Path>, &str); 3] = [
        (&old, Some(&new), "the table of events ends before event 1, which is in the log"),
        (&new, Some(&old), "the log is older than what is known of it: it has 1 events"),
        (&new, None, "the log is older than what is known of it: it has 0 events"),
    ];
    for (registry, log, expected) in table {
        put(registry, log);
        let refused = start(&dir, &site, &maker, &shards, Setup::default()).await.unwrap_err();
        let refused = model::told(&refused);
        assert!(refused.contains(expected), "{refused}");
    }
    // The same events under another key are another log.
    put(&new, Some(&new));
    let evidence_key = secret(Algorithm::Ed25519);
    let other = Setup { evidence_key, ..Setup::default() };
    let refused = start(&dir, &site, &maker, &shards, other).await.unwrap_err();
    assert!(model::told(&refused).contains("is not signed by"), "{}", model::told(&refused));
    // Both as they were go on.
    let control = start(&dir, &site, &maker, &shards, Setup::default()).await.unwrap();
    let world = World { dir, site, maker, shards, control };
    assert_eq!(checkpoint(&world).await.size(), 2);
    world.list("pump-3", Role::Device, "hall").await;
    assert_eq!(checkpoint(&world).await.size(), 3);
}

/// Each waits for its own event; together they need few checkpoints.
#[tokio::test(flavor = "multi_thread")]
async fn many_changes_at_a_time_share_checkpoints() {
    let world = World::new().await;
    let http = world.http(None);
    let url = format!("{}{}", world.base(), path::OWNERSHIP);
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let entry = json!({ "serial": format!("pump-{n}"), "role": "device", "zone": "hall" });
            let request = http.post(&url).bearer_auth(crate::world::TOKEN).timeout(PATIENCE);
            let request =
                request.header("content-type", "application/json").body(entry.to_string());
            tokio::spawn(async move { Got::of(request).await.json::<api::Changed>() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().device.standing, Standing::Listed);
    }
    assert_eq!(checkpoint(&world).await.size(), 64);
    let made = world.metric("plimsoll_evidence_checkpoint_seconds_count");
    println!("{made} checkpoints for 64 changes");
    assert!(made < 64, "{made}");
}
