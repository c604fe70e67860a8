//! A rollout over a fleet: made, and its wave opened over everybody who belongs to it.
//!
//! The peer is SQLite itself, over the same devices in the same file, asked for the last device of the wave in hash order. It is
//! given what control does not have: the product of each device as a column, and the hash too; and then only the product.

use crate::median;
use crate::plant::{PRODUCT, Plant, id};
use crate::process::{forget_peak, memory_mib};
use crate::vendor::HARDWARE;
use crate::world::Got;
use model::RolloutId;
use reqwest::Method;
use rollout::{Position, Share};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection as _, QueryBuilder, SqliteConnection};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PERCENTS: [f64; 4] = [1.0, 10.0, 50.0, 100.0];
const ROUNDS: usize = 3;

/// Of one wave.
#[derive(Default)]
struct Figures {
    made: Vec<f64>,
    opened: Vec<f64>,
    handed: Vec<f64>,
    hashed: Vec<f64>,
}

pub async fn run(devices: usize) {
    let start = Instant::now();
    let plant = Plant::new(devices).await;
    eprintln!("a registry of {devices} devices after {:.0} s", start.elapsed().as_secs_f64());
    forget_peak();
    let start = Instant::now();
    let mut plant = plant.restart().await;
    let loaded = start.elapsed().as_secs_f64();
    let (held, peak) = memory_mib();
    let file = std::fs::metadata(plant.registry()).unwrap().len() as f64 / f64::from(1 << 20);
    println!(
        "Registry of {devices} devices: {file:.0} MiB. Control starts over it in {loaded:.1} s,"
    );
    println!("holds {held:.0} MiB then, and at most {peak:.0} MiB on the way there.\n");
    forget_peak();
    let before = memory_mib().0;
    let mut figures = PERCENTS.map(|_| Figures::default());
    let (quiet, _) = waits(&mut plant, "quiet", async |_| {
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
    let mut busy = Vec::new();
    for round in 0..ROUNDS {
        for (percent, figures) in PERCENTS.iter().zip(&mut figures) {
            let name = format!("r-{round}-{percent}");
            let (wait, (made, opened)) = waits(&mut plant, &name, async |plant: &Plant| {
                let http = plant.world.http(None);
                let start = Instant::now();
                let rollout = plant.create(&http, &name, *percent).await;
                let made = start.elapsed().as_secs_f64();
                assert_eq!(rollout.cohort, plant.devices as u64);
                let opened = plant.opened(&name).await;
                plant.abort(&http, &name).await;
                (made, opened)
            })
            .await;
            busy.push(wait);
            figures.made.push(made);
            figures.opened.push(opened);
        }
    }
    let peak = memory_mib().1 - before;
    let registry = plant.registry();
    let crate::world::World { dir, control, .. } = plant.world;
    control.shutdown().await;
    ask_sqlite(&registry, devices, &mut figures).await;
    drop(dir);

    println!(
        "| wave | made, s | opened, s | SQLite that is handed the order, s | ours / SQLite | SQLite that hashes, s | ours / SQLite |"
    );
    println!("| --: | --: | --: | --: | --: | --: | --: |");
    for (percent, figures) in PERCENTS.iter().zip(figures) {
        let [made, opened, handed] = [figures.made, figures.opened, figures.handed].map(median);
        print!("| {percent} % | {made:.2} | {opened:.2} | {handed:.2} | {:.2} |", opened / handed);
        match figures.hashed.is_empty() {
            true => println!(" no `sqlite3` | |"),
            false => {
                let hashed = median(figures.hashed);
                println!(" {hashed:.2} | {:.2} |", opened / hashed);
            }
        }
    }
    println!(
        "\nMemory on top, at most: {peak:.0} MiB. The longest that a check-in that changes nothing took,"
    );
    println!(
        "one after the other: {:.1} ms while rollouts were made and waves opened (median of {} times; worst {:.1} ms); {quiet:.1} ms in three quiet seconds.",
        median(busy.clone()),
        busy.len(),
        busy.iter().copied().fold(0.0, f64::max),
    );
}

/// Does `work` while a device checks in again and again. Returns how long the slowest of its calls took, in milliseconds.
async fn waits<T>(plant: &mut Plant, what: &str, work: impl AsyncFnOnce(&Plant) -> T) -> (f64, T) {
    let mut messages = Vec::new();
    for _ in 0..MESSAGES {
        messages.push(plant.check_in(plant.devices, 0));
    }
    let (http, base) = (plant.world.http(Some(&plant.gateway.tls)), plant.world.base());
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let knocking = tokio::spawn(async move {
        let mut worst = 0.0f64;
        for call in messages {
            if is_done.load(Ordering::Relaxed) {
                break;
            }
            let start = Instant::now();
            let request = http.request(Method::POST, format!("{base}{}", call.path));
            let request = request.header("content-type", "application/cose").body(call.body);
            assert_eq!(Got::of(request).await.status, 200);
            worst = worst.max(start.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        worst
    });
    let came = work(plant).await;
    done.store(true, Ordering::Relaxed);
    let worst = knocking.await.unwrap();
    eprintln!("{what}: a check-in took at most {worst:.1} ms");
    (worst, came)
}

/// Sealed beforehand: enough for a minute.
const MESSAGES: usize = 5000;

async fn ask_sqlite(registry: &Path, devices: usize, figures: &mut [Figures]) {
    let mut sqlite = SqliteConnectOptions::new()
        .filename(registry)
        .journal_mode(SqliteJournalMode::Wal)
        .connect()
        .await
        .unwrap();
    let rollout = RolloutId::new("r-1").unwrap();
    let schema = "CREATE TABLE yard (device TEXT PRIMARY KEY, product TEXT, hardware TEXT, position BLOB) STRICT;";
    sqlx::raw_sql(schema).execute(&mut sqlite).await.unwrap();
    let mut tx = sqlite.begin().await.unwrap();
    let all: Vec<usize> = (0..devices).collect();
    for some in all.chunks(1000) {
        let mut insert: QueryBuilder<sqlx::Sqlite> = QueryBuilder::new("INSERT INTO yard ");
        insert.push_values(some, |mut b, n| {
            let position = Position::of(&rollout, &id(*n)).to_string();
            b.push_bind(id(*n).to_string()).push_bind(PRODUCT).push_bind(HARDWARE);
            b.push_bind(position.into_bytes());
        });
        insert.build().execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    for _ in 0..ROUNDS {
        for (percent, figures) in PERCENTS.iter().zip(&mut *figures) {
            let parts = (percent * 10_000.0) as u32;
            let count = Share::per_million(parts).unwrap().of(devices as u64);
            figures.handed.push(handed(&mut sqlite, count).await);
            figures.hashed.extend(hashed(registry, count));
        }
    }
    sqlite.close().await.unwrap();
}

const CHOSEN: &str = "FROM yard JOIN devices ON devices.id = yard.device
    WHERE standing = 'enrolled' AND product = 'pump-app' AND hardware = 'pump-box'";

async fn handed(sqlite: &mut SqliteConnection, count: u64) -> f64 {
    let start = Instant::now();
    let question = format!(
        "SELECT count(*), max(position) FROM (SELECT position {CHOSEN} ORDER BY position LIMIT {count})"
    );
    let (found, _): (i64, Vec<u8>) =
        sqlx::query_as(sqlx::AssertSqlSafe(question)).fetch_one(sqlite).await.unwrap();
    assert_eq!(found as u64, count);
    start.elapsed().as_secs_f64()
}

/// By Debian's shell, which has a hash: SHA-3 of the same text. With the time to start it.
fn hashed(registry: &Path, count: u64) -> Option<f64> {
    let start = Instant::now();
    let question = format!(
        "SELECT count(*), max(length(position)) FROM (SELECT sha3('plimsoll-rollout-order 1' || char(10) || 'r-1' || char(10)
         || device, 256) AS position {CHOSEN} ORDER BY position LIMIT {count})"
    );
    let said = Command::new("sqlite3").arg(registry).arg(question).output().ok()?;
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), format!("{count}|32"), "{said:?}");
    Some(start.elapsed().as_secs_f64())
}
