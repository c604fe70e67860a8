//! `readings_1m` against what the readings themselves come to.

use crate::plant::{Device, MINUTE_US, Running, START_US, reading, until};
use serde_json::json;

const RECOMPUTED: &str = "select date_trunc('minute', time) as minute, device, series, count(value), \
    sum(value), min(value), max(value), min(time), max(time), \
    first_value(value order by time, value), first_value(value order by time desc, value desc) \
    from readings where value is not null group by minute, device, series";

const ROLLED_UP: &str = "select time as minute, device, series, count, sum, min, max, first_time, \
    last_time, first, last from readings_1m";

async fn compare(running: &Running, what: &str) {
    let sorted = async |sql: &str| {
        let rows = running.ask(sql).await.unwrap().rows;
        let mut rows: Vec<String> = rows
            .into_iter()
            .map(|mut row| {
                // Sums in another order differ in the last bits.
                row[4] = json!(format!("{:.6}", row[4].as_f64().unwrap()));
                json!(row).to_string()
            })
            .collect();
        rows.sort();
        rows
    };
    let (rolled_up, recomputed) = (sorted(ROLLED_UP).await, sorted(RECOMPUTED).await);
    assert!(!rolled_up.is_empty(), "{what}");
    assert_eq!(rolled_up, recomputed, "{what}");
}

#[tokio::test]
async fn a_rollup_is_right_fresh_and_flushed_in_disorder_and_after_late_and_repeated_data() {
    let running = Running::start(|config| config.flush.rows_max = 50).await;
    let mut devices: Vec<_> = (0..3).map(|n| Device::new(&format!("pump-{n}"), n + 1)).collect();
    let mut held_back = Vec::new();
    let mut expected = 0;
    for round in 0..30i64 {
        for (n, device) in devices.iter_mut().enumerate() {
            let time = START_US + round * 13_000_000;
            let pack = [
                reading("flow", time, (round * 37 % 11) as f64 / 4.0),
                reading("flow", time + 500_000, (round * 17 % 13) as f64),
                reading("starts", time, round),
                reading("door", time, round % 3 == 0),
                reading("state", time, "on"),
            ];
            let message = device.seal(&pack);
            let entry = device.entry(message);
            if round % 4 == n as i64 {
                held_back.push((device.id.clone(), entry));
            } else {
                running.put(&device.id, vec![entry.clone(), entry]).await;
                expected += 5;
            }
        }
    }
    running.wait_for("select count(*) from readings", expected).await;
    let files = running.store.snapshot().files(store::Table::Rollup).len();
    assert!(files > 2, "{files} files of parts");
    compare(&running, "some in files, some fresh").await;
    // A gateway comes back with its spool, hours later.
    held_back.reverse();
    for (device, entry) in held_back {
        running.put(&device, vec![entry]).await;
        expected += 5;
    }
    running.wait_for("select count(*) from readings", expected).await;
    compare(&running, "after late data").await;
    let dir = running.end().await;
    let running = Running::start_in(dir, |_| {}).await;
    assert_eq!(running.cell("select count(*) from readings").await, expected);
    compare(&running, "after a restart, all in files").await;
    running.end().await;
}

/// So it stays right when readings expire before their rollup does.
#[tokio::test]
async fn a_rollup_never_looks_at_files_of_readings() {
    let running = Running::start(|config| config.flush.rows_max = 1).await;
    let mut device = Device::new("pump-7", 1);
    for minute in 0..3 {
        let message = device.seal(&[reading("t", START_US + minute * MINUTE_US, 1.0)]);
        running.put(&device.id, vec![device.entry(message)]).await;
    }
    running.wait_for("select sum(count) from readings_1m", 3).await;
    until("all is in files", async || {
        running.store.snapshot().fresh(store::Table::Readings).is_empty()
    })
    .await;
    let sql = "explain select * from readings_1m where device = 'pump-7' \
               and time >= '2026-01-01T00:02:00Z'";
    let plan = json!(running.ask(sql).await.unwrap().rows).to_string();
    assert!(plan.contains("readings_1m-"), "{plan}");
    assert!(!plan.contains("readings-"), "{plan}");
    let files = running.store.snapshot().files(store::Table::Rollup).len();
    assert!(plan.matches(".parquet").count() < files || files == 1, "files are left out: {plan}");
    running.end().await;
}

#[tokio::test]
async fn the_mean_of_a_minute_is_that_of_its_readings_not_of_its_parts() {
    let running = Running::start(|config| config.flush.rows_max = 3).await;
    let mut device = Device::new("pump-7", 1);
    // A part of three readings, and one of one.
    let at = |second: i64| START_US + second * 1_000_000;
    let message = device.seal(&[
        reading("t", at(1), 1.0),
        reading("t", at(2), 1.0),
        reading("t", at(3), 1.0),
    ]);
    running.put(&device.id, vec![device.entry(message)]).await;
    until("a part", async || running.store.snapshot().files(store::Table::Rollup).len() == 1).await;
    let message = device.seal(&[reading("t", at(0), 5.0)]);
    running.put(&device.id, vec![device.entry(message)]).await;
    running.wait_for("select count from readings_1m", 4).await;
    let sql = "select mean, first, first_time, last, last_time, min, max from readings_1m";
    assert_eq!(
        json!(running.ask(sql).await.unwrap().rows),
        json!([[2.0, 5.0, "2026-01-01T00:00:00Z", 1.0, "2026-01-01T00:00:03Z", 1.0, 5.0]])
    );
    running.end().await;
}
