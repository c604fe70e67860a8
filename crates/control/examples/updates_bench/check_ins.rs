//! Check-ins: what one costs the server, and how many permits a second become durable.
//!
//! Peers: nginx under the same calls, which reads each and answers a constant; our own server at a constant answer (the
//! certificates that anybody may fetch), which is TLS, HTTP and the way of a request without what a check-in is; and for
//! permits SQLite itself, one durable transaction a permit that writes the same rows.

use crate::load::{self, Call, Ran};
use crate::nginx::Nginx;
use crate::plant::Plant;
use crate::world::Got;
use crate::{median, profile};
use api::path;
use reqwest::Method;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, SqliteConnection};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

const ROUNDS: usize = 3;
/// Of a gateway, to control.
const CONNECTIONS: usize = 8;
/// Check-ins of one device in a round.
const TIMES: usize = 4;
const PROFILE_S: u32 = 4;

pub async fn run(devices: usize) {
    let mut bench = Bench::new(devices).await;
    bench.unchanged().await;
    bench.permits().await;
}

struct Bench {
    plant: Plant,
    scratch: PathBuf,
}

impl Bench {
    async fn new(devices: usize) -> Self {
        let plant = Plant::new(devices).await;
        let scratch = plant.world.dir.path().join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        Self { plant, scratch }
    }

    async fn load(&self, url: &str, calls: &[Call], pid: u32) -> Ran {
        let (world, own) = (&self.plant.world, &self.plant.gateway.tls);
        load::make(&self.scratch.join("load"), url, &world.anchors()[0], own, calls, pid).await
    }

    async fn ours(&self, calls: &[Call]) -> Ran {
        self.load(&self.plant.world.base(), calls, std::process::id()).await
    }

    /// Each of these devices so many times, in turns.
    fn check_ins(
        &mut self,
        devices: std::ops::Range<usize>,
        times: usize,
        connections: usize,
    ) -> Vec<Call> {
        let plant = &mut self.plant;
        (0..times)
            .flat_map(|_| devices.clone())
            .map(|n| plant.check_in(n, n % connections))
            .collect()
    }

    async fn unchanged(&mut self) {
        let devices = self.plant.devices;
        let calls = self.check_ins(0..devices, 1, CONNECTIONS);
        let first = self.ours(&calls).await;
        let call = self.plant.check_in(0, 0);
        let bytes = call.body.len();
        let answer = self.plant.world.call(Some(&self.plant.gateway.tls), Method::POST, &call.path);
        let answer = Got::of(answer.header("content-type", "application/cose").body(call.body));
        let answer = answer.await.body;
        assert!(String::from_utf8_lossy(&answer).contains("\"lease\""));
        let nginx = Nginx::start(&self.plant.world, answer.len());
        let (mut ours, mut constant, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let calls = self.check_ins(0..devices, TIMES, CONNECTIONS);
            ours.push(self.ours(&calls).await);
            if let Some(nginx) = &nginx {
                theirs.push(self.load(&nginx.url(), &calls, nginx.pid()).await);
            }
            let path = format!("{}/cacerts", path::EST);
            let get = |call: &Call| Call {
                connection: call.connection,
                path: path.clone(),
                body: Vec::new(),
            };
            let gets: Vec<Call> = calls.iter().map(get).collect();
            constant.push(self.ours(&gets).await);
        }
        println!(
            "\n{devices} devices, {CONNECTIONS} connections of one gateway, {bytes} bytes up, {} down.\n",
            answer.len()
        );
        println!(
            "| a call | server's processor time, µs | a second and core | p50, µs | ours / this one |"
        );
        println!("| --- | --: | --: | --: | --: |");
        let base = cpu(&ours);
        let line = |what: &str, ran: &[Ran]| {
            if ran.is_empty() {
                return;
            }
            let (us, p50) = (cpu(ran), median(ran.iter().map(|ran| ran.outcome.p50_us).collect()));
            let ratio = ratios(&ours, ran);
            println!("| {what} | {us:.0} | {:.0} | {p50:.0} | {ratio} |", 1e6 / us);
        };
        line("a check-in that changes nothing", &ours);
        line("our server, a constant", &constant);
        line("nginx, a constant", &theirs);
        println!(
            "| the first check-in of each device after a start | {:.0} | {:.0} | {:.0} | {:.2} |",
            first.cpu_us(),
            1e6 / first.cpu_us(),
            first.outcome.p50_us,
            base / first.cpu_us()
        );
        let calls = self.check_ins(0..devices, 2 * TIMES, CONNECTIONS);
        self.profiled("a check-in that changes nothing", &calls).await;
    }

    async fn profiled(&self, what: &str, calls: &[Call]) -> Ran {
        let data = self.scratch.join("perf.data");
        let _ = std::fs::remove_file(&data);
        let perf = profile::start(PROFILE_S, &data);
        let ran = self.ours(calls).await;
        let Some(perf) = perf else { return ran };
        println!("\nWhere the server's time goes, {what}:\n");
        println!("| share | what |\n| --: | --- |");
        let shares = tokio::task::spawn_blocking(move || profile::end(perf, &data)).await.unwrap();
        for (what, share) in shares.into_iter().filter(|(_, share)| *share >= 0.5) {
            println!("| {share:.1} % | {what} |");
        }
        ran
    }

    async fn permits(&mut self) {
        let devices = self.plant.devices;
        let parts = [
            (1, 0..devices / 10),
            (8, devices / 10..devices * 4 / 10),
            (32, devices * 4 / 10..devices),
        ];
        let mut peer = Peer::new(&self.scratch.join("peer.sqlite")).await;
        let (mut ours, mut theirs) = (BTreeMap::<usize, Vec<Ran>>::new(), Vec::new());
        let http = self.plant.world.http(None);
        for round in 0..ROUNDS {
            let name = format!("r-{round}");
            self.plant.create(&http, &name, 100.0).await;
            self.plant.opened(&name).await;
            for (connections, part) in &parts {
                let calls = self.check_ins(part.clone(), 1, *connections);
                ours.entry(*connections).or_default().push(self.ours(&calls).await);
            }
            theirs.push(peer.rate(&name, devices / 2).await);
            self.plant.abort(&http, &name).await;
        }
        let peers = median(theirs.clone());
        println!(
            "\nPermits: issued, counted, told as events, in a checkpoint of the evidence log, all of it durable.\n"
        );
        println!(
            "| connections | permits/s | p50, ms | p99, ms | server's processor time a permit, µs | SQLite alone, transactions/s | ours / SQLite |"
        );
        println!("| --: | --: | --: | --: | --: | --: | --: |");
        for (connections, ran) in ours {
            let of = |figure: fn(&Ran) -> f64| median(ran.iter().map(figure).collect());
            let (rate, us) = (of(Ran::rate), of(Ran::cpu_us));
            let (p50, p99) = (of(|r| r.outcome.p50_us / 1e3), of(|r| r.outcome.p99_us / 1e3));
            let mut all: Vec<f64> = ran.iter().zip(&theirs).map(|(a, b)| a.rate() / b).collect();
            all.sort_by(f64::total_cmp);
            println!(
                "| {connections} | {rate:.0} | {p50:.1} | {p99:.1} | {us:.0} | {peers:.0} | {:.2} ({:.2} to {:.2}) |",
                median(all.clone()),
                all[0],
                all[all.len() - 1]
            );
        }
        self.plant.create(&http, "r-p", 100.0).await;
        self.plant.opened("r-p").await;
        let calls = self.check_ins(0..devices, 1, 32);
        self.profiled("a check-in that gets its device a permit", &calls).await;
    }
}

fn cpu(ran: &[Ran]) -> f64 {
    median(ran.iter().map(Ran::cpu_us).collect())
}

fn ratios(ours: &[Ran], theirs: &[Ran]) -> String {
    let ratios = ours.iter().zip(theirs).map(|(a, b)| a.cpu_us() / b.cpu_us());
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    format!("{:.2} ({least:.2} to {most:.2})", median(ratios))
}

/// The rows of a permit, without what makes them true: no trigger, no foreign key, no signature, nobody who asks.
struct Peer(SqliteConnection);

impl Peer {
    async fn new(path: &std::path::Path) -> Self {
        let mut sqlite = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .connect()
            .await
            .unwrap();
        let schema = "CREATE TABLE rollouts (id TEXT PRIMARY KEY, revision INTEGER, saved TEXT) STRICT;
            CREATE TABLE permits (rollout TEXT, device TEXT, known TEXT, due INTEGER, was TEXT, heard INTEGER,
                PRIMARY KEY (rollout, device)) STRICT, WITHOUT ROWID;
            CREATE TABLE events (sequence INTEGER PRIMARY KEY, at_ms INTEGER, actor TEXT, action TEXT, subject TEXT,
                detail TEXT) STRICT;
            CREATE INDEX events_by_subject ON events (subject, sequence);
            CREATE TABLE directed (device TEXT PRIMARY KEY, generation INTEGER, issued_at INTEGER, orders TEXT) STRICT;
            CREATE TABLE manifests (device TEXT PRIMARY KEY, key TEXT, sequence INTEGER, received_at INTEGER, body BLOB)
                STRICT;
            CREATE TABLE site (one INTEGER PRIMARY KEY, generation INTEGER) STRICT;
            INSERT INTO site VALUES (1, 1);";
        sqlx::raw_sql(schema).execute(&mut sqlite).await.unwrap();
        Self(sqlite)
    }

    /// Permits a second.
    async fn rate(&mut self, rollout: &str, permits: usize) -> f64 {
        let saved = "x".repeat(1200);
        let (orders, body, hex) = ("x".repeat(450), vec![7u8; 330], "ab".repeat(32));
        let insert = "INSERT INTO rollouts VALUES (?, 0, ?)";
        sqlx::query(insert).bind(rollout).bind(&saved).execute(&mut self.0).await.unwrap();
        let start = Instant::now();
        for n in 0..permits {
            let (device, number) = (crate::plant::id(n).to_string(), n as i64);
            let mut tx = self.0.begin_with("BEGIN IMMEDIATE").await.unwrap();
            let all = [
                sqlx::query("INSERT INTO manifests VALUES (?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET
                    sequence = excluded.sequence, body = excluded.body")
                    .bind(&device).bind(&hex).bind(number).bind(number).bind(&body),
                sqlx::query("UPDATE rollouts SET revision = ?, saved = ? WHERE id = ?")
                    .bind(number).bind(&saved).bind(rollout),
                sqlx::query("INSERT INTO permits VALUES (?, ?, 'issued', ?, ?, ?)")
                    .bind(rollout).bind(&device).bind(number).bind(&hex).bind(number),
                sqlx::query("INSERT INTO events (at_ms, actor, action, subject, detail) VALUES (?, 'control', 'permit.issue', ?, ?)")
                    .bind(number).bind(rollout).bind(&device),
                sqlx::query("UPDATE site SET generation = generation + 1"),
                sqlx::query("INSERT INTO directed VALUES (?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET
                    generation = excluded.generation, orders = excluded.orders")
                    .bind(&device).bind(number).bind(number).bind(&orders),
            ];
            for query in all {
                query.execute(&mut *tx).await.unwrap();
            }
            tx.commit().await.unwrap();
        }
        permits as f64 / start.elapsed().as_secs_f64()
    }
}
