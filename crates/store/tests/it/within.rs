//! INV-LEAST-1: a question that is bounded by zone sees no other, whatever it says.

use crate::plant::{Device, Running, START_US, judged, mac, reading};
use api::{Answer, Ask, Query, QueryError, Within};
use model::bus::{Batch, Entry};
use model::uplink::QuarantineReason;
use model::{GatewayId, ZoneId};
use std::sync::Arc;
use store::Config;

const OWN: &str = "hall";
const OTHER: &str = "yard";

async fn put(running: &Running, zone: &str, device: &Device, entries: Vec<Entry>) {
    let (gateway, zone) = (GatewayId::new("gw-1").unwrap(), ZoneId::new(zone).unwrap());
    let batch = Batch { gateway, zone, entries }.encode();
    let framed = [mac().tag(&batch).as_slice(), &batch].concat();
    let writer = running.bus.writer_of(device.id.as_str().as_bytes());
    writer.append(framed).await.unwrap();
}

/// Readings, a quarantined message, a loss that was stated, and a gap.
async fn speak(running: &Running, zone: &str, device: &mut Device, int: i64, text: &str) {
    let packs = [
        vec![reading("count", START_US + 1, int), reading("text", START_US + 2, text)],
        vec![
            reading("count", START_US + 60_000_000, int),
            reading(&format!("of-{zone}"), START_US, 0.5),
        ],
    ];
    for pack in packs {
        let message = device.seal(&pack);
        put(running, zone, device, vec![device.entry(message)]).await;
    }
    let lost = device.next.sequence;
    let notice = device.state_lost(lost + 5, lost + 8);
    let bad = judged(device.entry(format!("noise of {zone}").into()), QuarantineReason::Malformed);
    put(running, zone, device, vec![device.entry(notice), bad]).await;
    device.next.sequence += 2;
    let after = device.seal(&[reading("count", START_US + 90_000_000, int)]);
    put(running, zone, device, vec![device.entry(after)]).await;
}

/// A store, with what the other zone says or as if there were none.
async fn store_of(is_filed: bool, with_other: bool) -> Running {
    let configure = |config: &mut Config| {
        if is_filed {
            config.flush.rows_max = 1;
        }
    };
    let running = Running::start(configure).await;
    let (mut own, mut other) = (Device::new("pump-own", 1), Device::new("pump-other", 2));
    speak(&running, OWN, &mut own, 1, "7").await;
    let mut zones = 1;
    if with_other {
        speak(&running, OTHER, &mut other, 3, "hidden").await;
        zones = 2;
    }
    // Gaps are shown when rows go into files.
    let gaps = usize::from(is_filed);
    for (table, rows) in [("readings", 5), ("quarantine", 1), ("losses", 1), ("gaps", gaps)] {
        let sql = format!("select count(*) >= {} from {table}", rows * zones);
        running.wait_for(&sql, true).await;
    }
    running
}

async fn ask(running: &Running, sql: &str, within: Option<Within>) -> Result<Answer, QueryError> {
    let ask = Ask { sql: sql.to_owned(), rows_max: None, time_max_ms: None };
    let answer = running.store.query(ask, within.map(Arc::new)).await;
    answer.map(|answer| Answer { took_ms: 0, ..answer })
}

fn own() -> Option<Within> {
    let only = |name: &str| [name.to_owned()].into();
    Some(Within { zones: only(OWN), devices: only("pump-own") })
}

/// Each is asked where the other zone is hidden, and where it is not there: that must be the same.
const TRICKS: [&str; 39] = [
    "select * exclude (received_at) from readings order by device, series, time",
    "select count(*) from readings",
    "select count(1), count(distinct device), min(value), max(value), sum(value) from readings",
    "select * from readings where zone = 'yard'",
    "select * from readings where device = 'pump-other'",
    "select device from readings where zone <> 'hall' or true order by 1",
    "select distinct zone from readings",
    "select series, count(*) from readings group by series order by 1",
    "select device, series, count(*) from readings group by rollup (device, series) order by 1, 2",
    "with all_rows as (select * from readings) select count(*), max(device) from all_rows",
    "with recursive n as (select 1 as i union all select i + 1 from n where i < 3) select count(*) from n, readings",
    "select (select max(device) from readings) as d",
    "select 1 where exists (select 1 from readings where device = 'pump-other')",
    "select 1 where 'pump-other' in (select device from readings)",
    "select count(*) from readings a join readings b on a.zone <> b.zone",
    "select count(*) from readings a full join readings b on a.device = b.device and a.series = b.series",
    "select device from readings union all select device from readings_1m order by 1",
    "select device from readings intersect select 'pump-other'",
    "select device, row_number() over (order by time, series, device) from readings order by 2",
    "select array_agg(distinct device) from readings",
    "select approx_distinct(device), first_value(device order by device desc) from readings",
    "select device from readings order by device desc limit 1",
    "select device from readings order by device desc limit 1 offset 3",
    "select count(*) from (select * from readings limit 1000)",
    "select device from plimsoll.public.readings where zone = 'yard'",
    // A condition that fails on a hidden row would tell that it is there.
    "select count(*) from readings where 1 / (value_int - 3) <= 0",
    "select count(*) from readings where series = 'text' and cast(value_text as bigint) = 7",
    "select sum(case when 1 / (value_int - 3) < 9 then 1 else 0 end) from readings where value_int > 0",
    "select count(*) from readings_1m where 1 / cast(max - 3 as bigint) <= 0",
    "select * from readings_1m order by device, series, time",
    "select count(*), sum(count), max(max) from readings_1m",
    "select device, zone, reason, message from quarantine order by device",
    "select count(*) from quarantine where message = 'noise of yard'",
    "select device, first, last, cause from losses order by device",
    "select count(*) from losses",
    "select device, first, last from gaps order by device",
    "select count(*) from gaps where device = 'pump-other'",
    "select table_name, table_type from information_schema.tables where table_schema = 'public' order by 1",
    "select count(*) from information_schema.columns where table_name = 'readings'",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_question_bounded_by_zone_is_answered_as_if_there_were_no_other() {
    for is_filed in [false, true] {
        let (hidden, absent) = (store_of(is_filed, true).await, store_of(is_filed, false).await);
        for sql in TRICKS {
            let (found, expected) = (ask(&hidden, sql, own()).await, ask(&absent, sql, None).await);
            assert_eq!(found, expected, "{sql}, in files: {is_filed}");
            assert!(found.is_ok(), "{sql}: {found:?}");
        }
        // The test would see it: unbounded, most of them tell.
        let mut tell = 0;
        for sql in TRICKS {
            let (all, expected) = (ask(&hidden, sql, None).await, ask(&absent, sql, None).await);
            tell += usize::from(all != expected);
        }
        assert!(tell >= 30, "{tell}");
        hidden.end().await;
        absent.end().await;
    }
}

/// Not to be answered, and in words that tell nothing either.
const REFUSED: [&str; 9] = [
    "select nonsense from readings",
    "select * from parts",
    "select * from readings_2m",
    "select count(*) from readings where cast(device as bigint) = 7",
    "select 1 / (count(*) - count(*)) from readings",
    "insert into readings select * from readings",
    "select * from '/etc/passwd'",
    "explain analyze select * from readings",
    "explain analyze verbose select count(*) from gaps",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_in_the_same_words_whatever_is_hidden() {
    for is_filed in [false, true] {
        let (hidden, absent) = (store_of(is_filed, true).await, store_of(is_filed, false).await);
        for sql in REFUSED {
            let (found, expected) =
                (ask(&hidden, sql, own()).await, ask(&absent, sql, own()).await);
            assert_eq!(found, expected, "{sql}, in files: {is_filed}");
            assert!(matches!(found, Err(QueryError::BadSql(_))), "{sql}: {found:?}");
        }
        hidden.end().await;
        absent.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_explained_is_the_same_whatever_is_hidden() {
    for is_filed in [false, true] {
        let (hidden, absent) = (store_of(is_filed, true).await, store_of(is_filed, false).await);
        for sql in [
            "explain select * from readings",
            "explain format tree select device, count(*) from readings group by device",
            "explain verbose select * from readings where value > 0",
            "explain select count(*) from readings_1m where time > now()",
            "explain select * from readings a join gaps b on a.device = b.device",
            "explain select * from losses union all select * from losses",
            "explain verbose select * from quarantine order by received_at limit 3",
            "explain select * from gaps",
        ] {
            let (found, expected) =
                (ask(&hidden, sql, own()).await, ask(&absent, sql, own()).await);
            let [found, expected] =
                [found, expected].map(|answer| without_moments(&answer.unwrap()));
            assert_eq!(found, expected, "{sql}, in files: {is_filed}");
            for word in ["pump-other", "yard", ".parquet", "Rows=Exact"] {
                assert!(!found.contains(word), "{sql}: {word} in {found}");
            }
        }
        // The test would see it: unbounded, a plan tells of files or of batches.
        let sql = "explain select * from readings";
        let [found, expected] = [&hidden, &absent].map(|running| ask(running, sql, None));
        let [found, expected] = [found.await, expected.await];
        assert_ne!(without_moments(&found.unwrap()), without_moments(&expected.unwrap()));
        hidden.end().await;
        absent.end().await;
    }
}

/// A plan in which `now()` is no moment: it names the one at which it was asked.
fn without_moments(plan: &Answer) -> String {
    let plan = format!("{:?}", plan.rows);
    let words = plan.split_inclusive(|c: char| !c.is_ascii_digit());
    let is_moment = |word: &&str| word.len() > 15;
    words.filter(|word| !is_moment(word)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reaches_no_zone_sees_no_row() {
    let running = store_of(false, true).await;
    for table in ["readings", "readings_1m", "quarantine", "losses", "gaps"] {
        let sql = format!("select count(*) from {table}");
        let answer = ask(&running, &sql, Some(Within::default())).await.unwrap();
        assert_eq!(answer.rows, [[0]], "{table}");
    }
    running.end().await;
}
