//! What SQL sees.

use crate::plant::{Device, MINUTE_US, Running, START_US, judged, reading, readings, until};
use api::QueryError;
use model::uplink::QuarantineReason;
use serde_json::{Value, json};
use std::time::SystemTime;
use store::Config;

fn no_flush(_: &mut Config) {}

fn flush_at_once(config: &mut Config) {
    config.flush.rows_max = 1;
}

async fn files(running: &Running) -> usize {
    running.store.snapshot().files(store::Table::Readings).len()
}

#[tokio::test]
async fn a_reading_is_there_before_and_after_it_is_in_a_file() {
    for configure in [no_flush, flush_at_once] {
        let running = Running::start(configure).await;
        let mut device = Device::new("pump-7", 1);
        let pack = [
            reading("flow", START_US + 1, 1.5),
            reading("starts", START_US + 2, 41),
            reading("door", START_US + 3, true),
            reading("state", START_US + 4, "on"),
        ];
        let message = device.seal(&pack);
        running.put(&device.id, vec![device.entry(message)]).await;
        running.wait_for("select count(*) from readings", 4).await;
        let answer = running.ask("select * from readings order by time").await.unwrap();
        let columns: Vec<_> =
            answer.columns.iter().map(|c| format!("{} {}", c.name, c.kind)).collect();
        assert_eq!(
            columns,
            [
                "time Timestamp(µs, \"UTC\")",
                "device Utf8",
                "series Utf8",
                "value Float64",
                "value_float Float64",
                "value_int Int64",
                "value_bool Boolean",
                "value_text Utf8",
                "unit Utf8",
                "key Utf8",
                "epoch UInt32",
                "sequence UInt64",
                "index UInt16",
                "received_at Timestamp(µs, \"UTC\")",
                "fresh Boolean",
                "zone Utf8",
                "attested_by Utf8",
                "gateway Utf8",
            ]
        );
        let key = device.key_id().to_string();
        let row = |i: u64, series: &str, value: Value, typed: [Value; 4]| {
            let [float, int, bool, text] = typed;
            json!([
                format!("2026-01-01T00:00:00.00000{}Z", i + 1),
                "pump-7",
                series,
                value,
                float,
                int,
                bool,
                text,
                "Cel",
                key,
                1,
                0,
                i,
                "2026-01-01T00:00:00.25Z",
                true,
                "hall-3",
                "device",
                "gw-1"
            ])
        };
        let null = || Value::Null;
        assert_eq!(
            json!(answer.rows),
            json!([
                row(0, "flow", json!(1.5), [json!(1.5), null(), null(), null()]),
                row(1, "starts", json!(41.0), [null(), json!(41), null(), null()]),
                row(2, "door", json!(1.0), [null(), null(), json!(true), null()]),
                row(3, "state", null(), [null(), null(), null(), json!("on")]),
            ])
        );
        assert!(!answer.truncated);
        running.end().await;
    }
}

#[tokio::test]
async fn quarantine_and_losses_are_tables() {
    let mut running = Running::start(no_flush).await;
    let mut device = Device::new("pump-7", 1);
    let message = device.seal(&readings("t", START_US, 1));
    let notice = device.state_lost(5, 8);
    let entries = vec![
        judged(device.entry(message.clone()), QuarantineReason::UnknownKey),
        judged(device.entry(b"\xff".to_vec()), QuarantineReason::Malformed),
        device.entry(notice),
    ];
    running.put(&device.id, entries).await;
    running.wait_for("select count(*) from quarantine", 2).await;
    let key = device.key_id().to_string();
    let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
    let at = "2026-01-01T00:00:00.25Z";
    for is_flushed in [false, true] {
        let rows = running.ask("select * from quarantine order by reason desc").await.unwrap().rows;
        assert_eq!(
            json!(rows),
            json!([
                [at, "pump-7", "gw-1", "hall-3", "unknown_key", key, 1, 0, hex],
                [at, "pump-7", "gw-1", "hall-3", "malformed", null, null, null, "ff"],
            ]),
            "flushed: {is_flushed}"
        );
        let rows = running.ask("select * from losses").await.unwrap().rows;
        assert_eq!(json!(rows), json!([[at, "pump-7", key, 1, 5, 8, "backlog_full"]]));
        // Names of columns are no keywords.
        running.ask("select first, last, index from losses, readings").await.unwrap();
        if !is_flushed {
            running = Running::start_in(running.end().await, no_flush).await;
        }
    }
    running.end().await;
}

#[tokio::test]
async fn a_gap_is_a_row_until_what_is_missing_comes() {
    let running = Running::start(flush_at_once).await;
    let mut device = Device::new("pump-7", 1);
    let messages: Vec<_> = (0..5).map(|_| device.seal(&readings("t", START_US, 1))).collect();
    for i in [0, 4] {
        running.put(&device.id, vec![device.entry(messages[i].clone())]).await;
    }
    running.wait_for("select count(*) from gaps", 1).await;
    let key = device.key_id().to_string();
    let gaps = async || json!(running.ask("select * from gaps").await.unwrap().rows);
    assert_eq!(gaps().await, json!([["pump-7", key, 1, 1, 3]]));
    // As docs/runbooks/gaps.md asks.
    let sql = "select device, count(*) as gaps, sum(last - first + 1) as missing from gaps \
               group by device order by missing desc";
    assert_eq!(json!(running.ask(sql).await.unwrap().rows), json!([["pump-7", 1, 3]]));
    running.put(&device.id, vec![device.entry(messages[2].clone())]).await;
    running.wait_for("select count(*) from gaps", 2).await;
    let running = Running::start_in(running.end().await, flush_at_once).await;
    let rows = running.ask("select first, last from gaps order by first").await.unwrap().rows;
    assert_eq!(json!(rows), json!([[1, 1], [3, 3]]), "the next process knows them too");
    let rest = [1, 3].map(|i| device.entry(messages[i].clone()));
    running.put(&device.id, rest.to_vec()).await;
    running.wait_for("select count(*) from gaps", 0).await;
    running.end().await;
}

#[tokio::test]
async fn a_question_has_one_answer_whether_rows_are_in_memory_or_in_files() {
    let questions = [
        "select count(*), count(value), count(value_text), count(distinct device) from readings",
        "select device, series, min(value), max(value), sum(value_int) from readings \
         group by device, series order by device, series",
        "select time, device, value from readings where value > 15.5 order by time, device, value",
        "select time, device from readings where value_bool order by time, device",
        "select distinct value_text from readings where value_text like 'b%' order by 1",
        "select count(*) from readings where value is null",
        "select count(*) from readings where value_text is null and not value_bool is null",
        "select sequence, index from readings where device in ('pump-1', 'pump-3', 'none') \
         and series = 'flow' and time between '2026-01-01T00:00:30Z' and '2026-01-01T00:02:00Z' \
         order by sequence, index",
        "select count(*) from readings where key <> device and epoch = 1 and zone = 'hall-3'",
        "select a.device, count(*) from readings a join readings b \
         on a.device = b.device and a.sequence = b.sequence and a.index < b.index \
         group by a.device order by a.device",
        "select device, time, value - lag(value) over (partition by device order by time) as d \
         from readings where series = 'flow' order by device, time limit 40",
        "select time, device, count, mean, min, max, first, last from readings_1m \
         where device >= 'pump-2' and series <> 'door' order by time, device, mean",
        "select received_at from readings order by time desc, device limit 3",
        "select * from readings where false",
        "select approx_percentile_cont(value, 0.5) from readings where device = 'pump-0'",
    ];
    let mut answers = Vec::new();
    for (rows_max, files_min) in [(1_000_000, 0), (1, 10), (90, 2)] {
        let running = Running::start(|config| config.flush.rows_max = rows_max).await;
        let mut devices: Vec<_> =
            (0..5).map(|n| Device::new(&format!("pump-{n}"), n + 1)).collect();
        for round in 0..30i64 {
            for (n, device) in devices.iter_mut().enumerate() {
                let time = START_US + round * 7_000_000 + n as i64;
                let pack = [
                    reading("flow", time, (round * 7 % 23) as f64 + n as f64 / 4.0),
                    reading("starts", time, round),
                    reading("door", time, round % 3 == 0),
                    reading("state", time, ["idle", "busy", "broken"][round as usize % 3]),
                ];
                let message = device.seal(&pack);
                running.put(&device.id, vec![device.entry(message)]).await;
            }
        }
        running.wait_for("select count(*) from readings", 600).await;
        until("there are files", async || files(&running).await >= files_min).await;
        let mut of_this = Vec::new();
        for sql in questions {
            of_this.push(running.ask(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")).rows);
        }
        answers.push(of_this);
        running.end().await;
    }
    for (i, sql) in questions.iter().enumerate() {
        assert_eq!(answers[0][i], answers[1][i], "{sql}");
        assert_eq!(answers[0][i], answers[2][i], "{sql}");
        assert!(!answers[0][i].is_empty() || sql.contains("false"), "{sql}: nothing was compared");
    }
}

#[tokio::test]
async fn what_was_flushed_is_there_after_a_restart_and_what_comes_again_is_not_there_twice() {
    let running = Running::start(flush_at_once).await;
    let mut devices: Vec<_> = (0..8).map(|n| Device::new(&format!("pump-{n}"), n + 1)).collect();
    let mut sent = Vec::new();
    for device in &mut devices {
        let message = device.seal(&readings("t", START_US, 5));
        running.put(&device.id, vec![device.entry(message.clone())]).await;
        sent.push((device.id.clone(), device.entry(message)));
    }
    running.wait_for("select count(*) from readings", 40).await;
    let dir = running.end().await;
    let running = Running::start_in(dir, no_flush).await;
    assert_eq!(running.cell("select count(*) from readings").await, 40);
    for (device, entry) in sent {
        running.put(&device, vec![entry]).await;
    }
    let repeats = || {
        let families = running.store.registry().gather();
        let messages =
            families.iter().find(|f| f.name() == "plimsoll_ingest_messages_total").unwrap();
        let repeat = messages.get_metric().iter().find(|m| m.get_label()[0].value() == "repeat");
        repeat.unwrap().get_counter().get_value()
    };
    until("8 repeats", async || repeats() == 8.0).await;
    assert_eq!(running.cell("select count(*) from readings").await, 40);
    running.end().await;
}

#[tokio::test]
async fn only_files_that_can_hold_an_answer_are_opened() {
    let running = Running::start(flush_at_once).await;
    let mut devices: Vec<_> = (0..12).map(|n| Device::new(&format!("pump-{n}"), n + 1)).collect();
    for hour in 0..3 {
        for device in &mut devices {
            let message = device.seal(&readings("t", START_US + hour * 60 * MINUTE_US, 2));
            running.put(&device.id, vec![device.entry(message)]).await;
        }
        running.wait_for("select count(*) from readings", (hour + 1) * 24).await;
        until("all is in files", async || {
            running.store.snapshot().fresh(store::Table::Readings).is_empty()
        })
        .await;
    }
    let all = files(&running).await;
    assert!(all >= 9, "{all} files");
    let opened = async |filter: &str| {
        let sql = format!("explain select time, value from readings where {filter}");
        let plan = json!(running.ask(&sql).await.unwrap().rows).to_string();
        plan.matches(".parquet").count()
    };
    let shard = running.bus.shard_of(b"pump-3");
    let of_shard = running.store.snapshot();
    let of_shard =
        of_shard.files(store::Table::Readings).iter().filter(|f| f.name.shard == shard as u32);
    let of_shard = of_shard.count();
    assert!(of_shard < all);
    assert!(opened("device = 'pump-3'").await <= of_shard);
    assert!(opened("device in ('pump-3', 'nobody')").await <= all);
    assert_eq!(opened("device = 'zzz'").await, 0);
    assert_eq!(opened("time >= '2026-01-01T09:00:00Z'").await, 0);
    let last_hour = opened("time >= '2026-01-01T02:00:00Z'").await;
    assert!(last_hour > 0 && last_hour <= all / 2, "{last_hour} of {all}");
    let both = opened("device = 'pump-3' and time < '2026-01-01T00:30:00Z'").await;
    assert!((1..=2).contains(&both), "{both}");
    // And what is left out did not matter.
    let counted = running.cell("select count(*) from readings where device = 'pump-3'").await;
    assert_eq!(counted, 6);
    let sql = "select count(*) from readings where time >= '2026-01-01T02:00:00Z'";
    assert_eq!(running.cell(sql).await, 24);
    running.end().await;
}

#[tokio::test]
async fn a_plan_shows_that_filters_and_columns_reach_the_files() {
    let running = Running::start(flush_at_once).await;
    let mut device = Device::new("pump-7", 1);
    let message = device.seal(&readings("t", START_US, 5));
    running.put(&device.id, vec![device.entry(message)]).await;
    until("it is in a file", async || files(&running).await == 1).await;
    let sql = "explain select time, value_float from readings where device = 'pump-7'";
    let plan = json!(running.ask(sql).await.unwrap().rows).to_string();
    assert!(plan.contains("pruning_predicate=device_null_count"), "{plan}");
    assert!(plan.contains("projection=[time, value_float]"), "{plan}");
    assert!(!plan.contains("FilterExec"), "the scan itself leaves rows out: {plan}");
    running.end().await;
}

#[tokio::test]
async fn the_tables_can_be_listed_and_described() {
    let running = Running::start(no_flush).await;
    let sql = "select table_name from information_schema.tables \
               where table_schema = 'public' order by table_name";
    let rows = running.ask(sql).await.unwrap().rows;
    let tables = ["gaps", "losses", "quarantine", "readings", "readings_1m"];
    assert_eq!(json!(rows), json!(tables.map(|table| [table])));
    let shown = running.ask("show tables").await.unwrap();
    assert!(json!(shown.rows).to_string().contains("readings_1m"));
    let described = running.ask("describe readings").await.unwrap();
    assert_eq!(described.rows.len(), 18);
    assert_eq!(described.rows[3][0], "value");
    running.end().await;
}

#[tokio::test]
async fn a_cell_is_json_whatever_its_type() {
    let running = Running::start(no_flush).await;
    let table = [
        ("null", json!(null)),
        ("true", json!(true)),
        ("1", json!(1)),
        ("cast(-7 as smallint)", json!(-7)),
        ("18446744073709551615", json!(18446744073709551615u64)),
        ("0.1", json!(0.1)),
        ("cast(0.1 as real)", json!(0.1)),
        ("cast('NaN' as double)", json!("NaN")),
        ("cast('inf' as double)", json!("inf")),
        ("-cast('inf' as double)", json!("-inf")),
        ("'é\"'", json!("é\"")),
        ("arrow_cast('x', 'Dictionary(Int32, Utf8)')", json!("x")),
        ("arrow_cast('x', 'LargeUtf8')", json!("x")),
        ("x'00ff'", json!("00ff")),
        ("timestamp '2026-01-02T03:04:05.000006Z'", json!("2026-01-02T03:04:05.000006Z")),
        ("arrow_cast(1, 'Timestamp(Second, None)')", json!("1970-01-01T00:00:01Z")),
        (
            "arrow_cast(1, 'Timestamp(Nanosecond, Some(\"+02:00\"))')",
            json!("1970-01-01T00:00:00.000000001Z"),
        ),
        (
            "arrow_cast(9223372036854775807, 'Timestamp(Second, None)')",
            json!("beyond the year 9999"),
        ),
        ("date '2026-01-02'", json!("2026-01-02")),
        ("cast(1.50 as decimal(10, 2))", json!("1.50")),
        ("cast(-3 as decimal(20, 0))", json!(-3)),
        ("cast('99999999999999999999' as decimal(20, 0))", json!("99999999999999999999")),
        ("interval '90 seconds'", json!("1 mins 30.000000000 secs")),
    ];
    for (sql, expected) in table {
        assert_eq!(running.cell(&format!("select {sql}")).await, expected, "{sql}");
    }
    running.end().await;
}

#[tokio::test]
async fn users_of_other_time_series_stores_find_their_functions() {
    let running = Running::start(no_flush).await;
    let mut device = Device::new("pump-7", 1);
    let message = device.seal(&readings("t", START_US, 120));
    running.put(&device.id, vec![device.entry(message)]).await;
    running.wait_for("select count(*) from readings", 120).await;
    for bin in [
        "date_bin(interval '1 minute', time)",
        "time_bucket(interval '1 minute', time)",
        "date_trunc('minute', time)",
    ] {
        let sql = format!("select {bin} as t, count(*) from readings group by t order by t");
        let rows = running.ask(&sql).await.unwrap().rows;
        let expected = json!([["2026-01-01T00:00:00Z", 60], ["2026-01-01T00:01:00Z", 60]]);
        assert_eq!(json!(rows), expected, "{bin}");
    }
    // A number of messages stays one, however it is computed.
    let sql = "select max(sequence) + 1, coalesce(sum(sequence), 0), max(epoch) * 2 from readings";
    assert_eq!(json!(running.ask(sql).await.unwrap().rows), json!([[1, 0, 2]]));
    let sql = "select device, last_value(value order by time), percentile_cont(value, 0.5), \
               lag(max(value)) over (order by device) from readings group by device";
    assert_eq!(running.ask(sql).await.unwrap().rows.len(), 1);
    running.end().await;
}

#[tokio::test]
async fn now_is_the_moment_of_the_question_and_the_same_in_all_of_it() {
    let us = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_micros()).unwrap()
    };
    for configure in [no_flush, flush_at_once] {
        let running = Running::start(configure).await;
        let mut device = Device::new("pump-7", 1);
        let days_ago = |days: i64| us() - days * 86_400_000_000;
        let pack = [reading("t", days_ago(3), 1.0), reading("t", days_ago(1), 2.0)];
        let message = device.seal(&pack);
        running.put(&device.id, vec![device.entry(message)]).await;
        running.wait_for("select count(*) from readings", 2).await;
        for (sql, expected) in [
            ("select count(*) from readings where time > now() - interval '2 days'", json!(1)),
            ("select max(value) from readings where time < now() - interval '2 days'", json!(1.0)),
            (
                "select sum(count) from readings_1m where time > current_timestamp - interval '2 days'",
                json!(1),
            ),
            (
                "select count(*) from readings where time < current_date + interval '1 day'",
                json!(2),
            ),
            ("select count(*) from readings group by time > now() - interval '2 days'", json!(1)),
            ("select count(*) from readings having now() > max(time)", json!(2)),
            (
                "select count(distinct n) from (select now() n union all select now() from readings)",
                json!(1),
            ),
        ] {
            assert_eq!(running.cell(sql).await, expected, "{sql}");
        }
        let before = us();
        let sql = format!(
            "select now() between to_timestamp_micros({before}) and to_timestamp_micros({})",
            before + 60_000_000
        );
        assert_eq!(running.cell(&sql).await, true, "it is no moment of before: {sql}");
        running.end().await;
    }
}

#[tokio::test]
async fn a_condition_that_fails_on_a_row_is_the_questions_fault_in_memory_and_in_files() {
    for configure in [no_flush, flush_at_once] {
        let running = Running::start(configure).await;
        let mut device = Device::new("pump-7", 1);
        let message = device.seal(&[reading("starts", START_US, 3)]);
        running.put(&device.id, vec![device.entry(message)]).await;
        running.wait_for("select count(*) from readings", 1).await;
        for condition in ["1 / (value_int - 3) = 1", "cast(series as bigint) = 3"] {
            let sql = format!("select count(*) from readings where {condition}");
            let error = running.ask(&sql).await.unwrap_err();
            assert!(matches!(error, QueryError::BadSql(_)), "{sql}: {error}");
        }
        running.end().await;
    }
}

#[tokio::test]
async fn sql_can_read_and_nothing_else() {
    let running = Running::start(no_flush).await;
    let secret = running.dir.path().join("secret.csv");
    std::fs::write(&secret, "a\n1\n").unwrap();
    let path = secret.display();
    let out = running.dir.path().join("out.csv");
    for sql in [
        "create table t (a int)".to_owned(),
        "create view v as select 1".to_owned(),
        "create table t as select * from readings".to_owned(),
        format!("create external table t stored as csv location '{path}'"),
        "drop table readings".to_owned(),
        "drop view readings".to_owned(),
        "insert into readings select * from readings".to_owned(),
        "delete from readings".to_owned(),
        "update losses set first = 1".to_owned(),
        "truncate table losses".to_owned(),
        format!("copy readings to '{}' stored as csv", out.display()),
        format!("copy (select 1) to '{}' stored as parquet", out.display()),
        "set datafusion.execution.target_partitions = 99".to_owned(),
        "begin".to_owned(),
        "prepare p as select 1".to_owned(),
        "explain insert into losses select * from losses".to_owned(),
        format!("select * from '{path}'"),
        format!("select * from read_csv('{path}')"),
        "select * from parts".to_owned(),
        "select 1; select 2".to_owned(),
        String::new(),
        "selec 1".to_owned(),
        "select nonsense from readings".to_owned(),
        "select 1 / 0".to_owned(),
        "select cast('x' as int)".to_owned(),
    ] {
        let error = running.ask(&sql).await.unwrap_err();
        assert!(matches!(error, QueryError::BadSql(_)), "{sql}: {error}");
    }
    assert!(!out.exists());
    let families = running.store.registry().gather();
    let refusals = families.iter().find(|f| f.name() == "plimsoll_query_refusals_total").unwrap();
    for metric in refusals.get_metric() {
        let expected = if metric.get_label()[0].value() == "bad_sql" { 25.0 } else { 0.0 };
        assert_eq!(metric.get_counter().get_value(), expected);
    }
    assert_eq!(running.cell("select 1").await, 1, "and goes on");
    running.end().await;
}
