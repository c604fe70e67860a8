//! What a gate is good for, tried on the release of the demo that leaks: real devices, real telemetry, real SQL.

use crate::recording;
use serde_json::{Value, json};
use sim::fleet::{Fleet, Ports, Source};
use sim::process::until;
use sim::rollouts::{COME_AND_PROVE_MS, LEAK_SHOWS_MS, PUMP, RSS_MAX, Releases, leak_signal};
use std::path::Path;

const LEAKS: &str = "1.3.0";

fn small_fleet(data: &Path, port_base: u16, devices: usize) -> (Fleet, Releases, Vec<String>) {
    std::fs::create_dir_all(data).unwrap();
    let releases = Releases::make(data, sim::fleet::PATIENCE).unwrap();
    let repository = releases.vendor.repository();
    let mut fleet = Fleet::found_until(data, Ports(port_base), Some(&repository), None).unwrap();
    fleet.add_gateway(fleet.ports.control()).unwrap();
    let first = releases.first(PUMP, Vec::new()).unwrap();
    let names: Vec<String> = (1..=devices).map(|n| format!("dev-{n:02}")).collect();
    for name in &names {
        let source = Source::Replay { file: recording(), speed: 1 };
        fleet.add_device(name, &source, &[0], Some(&first)).unwrap();
    }
    releases.release(&fleet, PUMP, LEAKS).unwrap();
    (fleet, releases, names)
}

/// One wave for the first device, one for both.
fn order(id: &str, devices: &[String], signals: Vec<Value>) -> Value {
    json!({
        "id": id, "product": PUMP, "version": LEAKS, "cohort": {"devices": devices},
        "waves": [{"percent": 50.0, "soak_ms": LEAK_SHOWS_MS}, {"percent": 100.0, "soak_ms": 1000}],
        "prove_within_ms": COME_AND_PROVE_MS, "come_within_ms": COME_AND_PROVE_MS,
        "success_min_percent": 50.0, "quorum_percent": 100.0,
        "signals": signals, "ask_again_ms": 200, "start": true
    })
}

fn signal(sql: &str) -> Value {
    json!({"name": "memory", "sql": sql, "at_most": RSS_MAX})
}

/// A gate asks about its own rollout's devices: others leak at the same time.
fn leak_of(devices: &[String], at_most: f64) -> Value {
    let mut signal = leak_signal(at_most);
    let sql = signal["sql"].as_str().unwrap().to_owned();
    signal["sql"] = json!(format!("{sql} and device in ('{}')", devices.join("','")));
    signal
}

/// Five rollouts of the same leaking release, each to two devices of its own, at the same time.
#[test]
fn the_gate_is_what_stops_a_leak_its_threshold_decides_and_one_without_a_number_holds() {
    let data = std::env::temp_dir().join(format!("plimsoll-gates-{}", std::process::id()));
    let (mut fleet, _releases, names) = small_fleet(&data, 22_100, 10);
    let pair = |n: usize| &names[2 * n..2 * n + 2];
    let leaks = [(pair(2), RSS_MAX), (pair(3), 1e9)];
    let orders = [
        order("no-gate", pair(0), vec![]),
        order("fails", pair(1), vec![signal("select value from no_such_table")]),
        order("gate", leaks[0].0, vec![leak_of(leaks[0].0, leaks[0].1)]),
        order("moved-gate", leaks[1].0, vec![leak_of(leaks[1].0, leaks[1].1)]),
        order("empty", pair(4), vec![signal("select max(value) from readings where device = 'x'")]),
    ];
    until("every device runs 1.0 and has said so", fleet.patience(), || {
        Ok(names.iter().all(|name| fleet.runs(name, PUMP).is_ok() && fleet.software(name).is_ok()))
    })
    .unwrap();
    for order in orders {
        fleet.create(order).unwrap();
    }
    for (id, phase) in [("no-gate", "completed"), ("gate", "halted"), ("moved-gate", "completed")] {
        until(&format!("{id} is {phase}"), fleet.patience(), || {
            Ok(fleet.seen(id)?.phase() == phase)
        })
        .unwrap();
    }
    // These have soaked for as long by now, and were asked many times since.
    for id in ["fails", "empty"] {
        until(&format!("{id} holds"), fleet.patience(), || {
            let seen = fleet.seen(id)?;
            Ok(seen.is("running", "asking", 1) && seen.why().contains("gave no number"))
        })
        .unwrap();
        assert_eq!(fleet.known(id, "proven").unwrap().len(), 1, "{id} went on without a number");
    }
    for id in ["no-gate", "moved-gate"] {
        assert_eq!(fleet.known(id, "proven").unwrap().len(), 2, "{id}");
    }
    let halted = fleet.seen("gate").unwrap();
    assert_eq!(fleet.permits("gate").unwrap().len(), 1, "{halted:?}");
    assert!(halted.why().contains("memory"), "{halted:?}");
    let events = fleet.events("gate").unwrap();
    let beyond = events.iter().find(|event| event.action == "rollout.signal_beyond").unwrap();
    assert!(beyond.of("found").parse::<f64>().unwrap() > RSS_MAX, "{beyond:?}");
    fleet.wind_up().unwrap();
    std::fs::remove_dir_all(&data).expect("the directory is this test's own");
}
