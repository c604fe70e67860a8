//! What a question about the fleet costs, beside SQLite over the same rows. Prints Markdown.
//!
//! ```text
//! inventory_bench [LINES]     100000 lines, or as many as are said
//! ```
//!
//! SQLite has the rows in a table in memory, with the site, zone, version and time of each as columns, and is asked the same in
//! turns: a count of all that the filter holds for, and the first hundred of them. Control's figure is the pass that a request
//! makes, without TLS and JSON on both sides.

use api::{Role, Standing};
use control::directory::{Device, Directory, default_group};
use control::inventory::index::{Filter, Index};
use control::principal::Reach;
use model::{DeviceId, Timestamp, ZoneId};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};
use std::time::Instant;

/// In turns, so that both have the machine in the same mood.
const ROUNDS: usize = 15;
const PAGE: usize = 100;
const NOW_MS: u64 = 1_800_000_000_000;

fn id(n: usize) -> DeviceId {
    DeviceId::new(format!("pump-{n:07}")).expect("it is a name")
}

fn zone(n: usize) -> String {
    format!("hall-{}", n % 50)
}

fn version(n: usize) -> String {
    format!("1.{}.0", n % 7)
}

/// Most were heard within a minute, one in a hundred an hour ago.
fn seen_ms(n: usize) -> u64 {
    NOW_MS - (n % 60) as u64 * 1000 - if n.is_multiple_of(100) { 3_600_000 } else { 0 }
}

fn directory(lines: usize) -> Directory {
    let device = |n| Device {
        id: id(n),
        serial: id(n).to_string().to_uppercase(),
        role: Role::Device,
        zone: ZoneId::new(zone(n)).expect("it is a name"),
        group: default_group(),
        grouped_at: Timestamp(0),
        standing: if n.is_multiple_of(1000) { Standing::Quarantined } else { Standing::Enrolled },
        listed_at: Timestamp(0),
        enrolled_at: None,
        changed_at: Timestamp(0),
        keys: Vec::new(),
    };
    Directory::new(1, (0..lines).map(device))
}

fn index(directory: &Directory, lines: usize) -> Index {
    let mut index = Index::default();
    index.follow(directory);
    for n in 0..lines {
        index.runs(&id(n), Some(("pump-app", &version(n))));
        index.hear(&id(n), Some(&format!("gw-{}", n % 400)), seen_ms(n));
    }
    index
}

async fn table(lines: usize) -> SqliteConnection {
    let options = SqliteConnectOptions::new().in_memory(true);
    let mut sqlite = options.connect().await.expect("SQLite in memory");
    sqlx::raw_sql(
        "CREATE TABLE lines (id TEXT PRIMARY KEY, zone TEXT, standing TEXT, version TEXT, gateway TEXT, seen INTEGER)
             WITHOUT ROWID;
         BEGIN",
    )
    .execute(&mut sqlite)
    .await
    .expect("a table");
    for n in 0..lines {
        sqlx::query("INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?)")
            .bind(id(n).to_string())
            .bind(zone(n))
            .bind(if n.is_multiple_of(1000) { "quarantined" } else { "enrolled" })
            .bind(version(n))
            .bind(format!("gw-{}", n % 400))
            .bind(seen_ms(n) as i64)
            .execute(&mut sqlite)
            .await
            .expect("a row");
    }
    sqlx::raw_sql("COMMIT; ANALYZE").execute(&mut sqlite).await.expect("the rows");
    sqlite
}

#[tokio::main]
async fn main() {
    let lines = std::env::args().nth(1).map_or(100_000, |n| n.parse().expect("a number of lines"));
    let directory = directory(lines);
    let started = Instant::now();
    let mut index = index(&directory, lines);
    let built = started.elapsed();
    let mut sqlite = table(lines).await;
    let text = |text: &str| Some(text.to_owned());
    let all = Filter::default;
    let silent = NOW_MS - 1_800_000;
    let questions = [
        ("all", all(), "1".to_owned()),
        ("part of an id", Filter { search: "99".into(), ..all() }, "id LIKE '%99%'".into()),
        ("a zone", Filter { zone: text("hall-7"), ..all() }, "zone = 'hall-7'".into()),
        ("a version", Filter { version: text("1.3.0"), ..all() }, "version = '1.3.0'".into()),
        (
            "silent for half an hour",
            Filter { silent_since_ms: Some(silent), ..all() },
            format!("seen <= {silent}"),
        ),
        (
            "part of an id, a zone, a standing",
            Filter {
                search: "5".into(),
                zone: text("hall-0"),
                standing: Some(Standing::Enrolled),
                ..all()
            },
            "id LIKE '%5%' AND zone = 'hall-0' AND standing = 'enrolled'".into(),
        ),
    ];
    println!("{lines} lines, made in {:.0} ms\n", built.as_secs_f64() * 1e3);
    println!("| filter | found | ours, ms | SQLite, ms | SQLite / ours |");
    println!("| --- | --- | --- | --- | --- |");
    let site = |_: &str| "site".to_owned();
    for (what, filter, sql) in questions {
        let (mut ours, mut theirs, mut found) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let page = index.find(&filter, &Reach::Everywhere, site, None, PAGE);
            ours.push(started.elapsed().as_secs_f64() * 1e3);
            found = page.total;
            let started = Instant::now();
            let count = format!("SELECT count(*) FROM lines WHERE {sql}");
            let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
                .fetch_one(&mut sqlite)
                .await
                .expect("a count");
            let rows = format!("SELECT * FROM lines WHERE {sql} ORDER BY id LIMIT {PAGE}");
            let rows = sqlx::query(sqlx::AssertSqlSafe(rows)).fetch_all(&mut sqlite).await;
            theirs.push(started.elapsed().as_secs_f64() * 1e3);
            assert_eq!((count as u64, rows.expect("rows").len()), (found, page.devices.len()));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("| {what} | {found} | {ours:.2} | {theirs:.2} | {:.1} |", theirs / ours);
    }
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let mut figures = Vec::new();
        for _ in 0..ROUNDS {
            let started = Instant::now();
            work();
            figures.push(started.elapsed().as_secs_f64() * 1e3);
        }
        println!("{what}: {:.2} ms", median(figures));
    };
    println!();
    let now = Timestamp::from_ms(NOW_MS as i64);
    timed("a summary of all", &mut || {
        assert_eq!(index.count(&all(), &Reach::Everywhere, site, now).total as usize, lines);
    });
    timed("1024 devices heard", &mut || {
        (0..1024).for_each(|n| index.hear(&id(n * 97 % lines), Some("gw-1"), NOW_MS));
    });
    let mut generation = 1;
    timed("a change of the directory followed", &mut || {
        generation += 1;
        index.follow(&directory.at(generation));
    });
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
