//! INV-COST-1: what questions may take, each bound by itself, and that what is refused or dropped really ends.

use crate::plant::{Device, Running, START_US, readings, until};
use api::{Ask, Query, QueryError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs for hours, in little memory.
const ENDLESS: &str = "select count(*) from generate_series(1, 10000000) as a, \
                       generate_series(1, 10000000) as b where a.value + b.value = 3";

async fn all_ended(running: &Running) {
    until("every task of every question has ended", async || {
        running.store.query_tasks() == 0 && gauge(running, "plimsoll_query_running") == 0.0
    })
    .await;
}

fn gauge(running: &Running, name: &str) -> f64 {
    let families = running.store.registry().gather();
    families.iter().find(|f| f.name() == name).unwrap().get_metric()[0].get_gauge().get_value()
}

fn refusals(running: &Running, reason: &str) -> f64 {
    let families = running.store.registry().gather();
    let refusals = families.iter().find(|f| f.name() == "plimsoll_query_refusals_total").unwrap();
    let of = refusals.get_metric().iter().find(|m| m.get_label()[0].value() == reason);
    of.unwrap().get_counter().get_value()
}

#[tokio::test]
async fn inv_cost_1_time_is_bounded_and_what_ran_is_stopped() {
    let time_max = Duration::from_millis(300);
    let running = Running::start(|config| config.query.time_max = time_max).await;
    let ask = |time_max_ms| Ask { sql: ENDLESS.to_owned(), rows_max: None, time_max_ms };
    // The asker narrows the bound, and cannot widen it.
    for (asked, held) in [(None, 300), (Some(50), 50), (Some(3_600_000), 300)] {
        let error = running.store.query(ask(asked), None).await.unwrap_err();
        assert_eq!(error, QueryError::TooSlow { limit_ms: held });
        all_ended(&running).await;
    }
    assert_eq!(refusals(&running, "too_slow"), 3.0);
    // On a loaded machine even this can take longer than the bound.
    until("the next question is answered", async || running.ask("select 1").await.is_ok()).await;
    running.end().await;
}

/// Each can work for hours on what it has read, and some give nothing on.
#[tokio::test]
async fn inv_cost_1_whatever_a_question_does_it_is_stopped() {
    let time_max = Duration::from_millis(200);
    let running = Running::start(|config| config.query.time_max = time_max).await;
    let series = |n: u64| format!("generate_series(1, {n})");
    let (some, many) = (series(300_000), series(1_000_000));
    for sql in [
        format!("select count(*) from {some} a, {many} b where a.value + b.value = 3"),
        format!("select count(*) from {some} a, {many} b"),
        format!("select count(*) from {some} a left join {many} b on a.value * b.value = 0"),
        format!("select count(*) from {some} a full join {many} b on a.value > b.value + 2000000"),
        format!("select count(*) from {some} a join {many} b on a.value % 1 = b.value % 1"),
        format!(
            "select count(*) from {some} a join {many} b \
             on a.value % 1 = b.value % 1 and a.value + b.value = 3"
        ),
        format!(
            "select count(*) from {some} a where not exists (select 1 from {many} b where a.value + b.value = 0)"
        ),
        format!("select a.value from {some} a, {many} b order by a.value + b.value limit 5"),
        format!("select count(*) from {many} a, {many} b, {many} c where a.value = b.value"),
        "with recursive r as (select 1 as n union all select n + 1 from r) select count(*) from r"
            .to_owned(),
        "select sum(value) from generate_series(1, 1000000000000)".to_owned(),
        format!("explain analyze select count(*) from {some} a, {many} b"),
    ] {
        let error = running.ask(&sql).await.unwrap_err();
        assert_eq!(error, QueryError::TooSlow { limit_ms: 200 }, "{sql}");
        let told = Instant::now();
        until(&sql, async || running.store.query_tasks() == 0).await;
        // It takes milliseconds. Joins that are not interruptible went on for a minute and more.
        assert!(told.elapsed() < Duration::from_secs(15), "{sql} went on for {:?}", told.elapsed());
    }
    assert_eq!(running.cell("select 1").await, 1);
    running.end().await;
}

#[tokio::test]
async fn inv_cost_1_a_question_that_nobody_waits_for_is_stopped() {
    let running = Running::start(|_| {}).await;
    let store = running.store.clone();
    let asking = tokio::spawn(async move {
        store.query(Ask { sql: ENDLESS.to_owned(), rows_max: None, time_max_ms: None }, None).await
    });
    until("it runs", async || gauge(&running, "plimsoll_query_running") == 1.0).await;
    asking.abort();
    all_ended(&running).await;
    running.end().await;
}

#[tokio::test]
async fn inv_cost_1_memory_is_bounded() {
    let running = Running::start(|config| config.query.memory_bytes_max = 1 << 20).await;
    for sql in [
        "select value, count(*) from generate_series(1, 3000000) group by value order by 2",
        "select * from generate_series(1, 3000000) order by value % 1000 limit 2900000",
        "select count(distinct value) from generate_series(1, 3000000)",
    ] {
        let error = running.ask(sql).await.unwrap_err();
        assert!(matches!(error, QueryError::TooLarge(_)), "{sql}: {error}");
        all_ended(&running).await;
    }
    assert_eq!(refusals(&running, "too_large"), 3.0);
    assert_eq!(running.cell("select count(*) from generate_series(1, 3000000)").await, 3_000_000);
    running.end().await;
}

#[tokio::test]
async fn inv_cost_1_rows_are_bounded_and_the_answer_says_so() {
    let running = Running::start(|config| config.query.rows_max = 100).await;
    let ask = async |n: usize, rows_max| {
        let sql = format!("select value from generate_series(1, {n}) order by value desc");
        let answer =
            running.store.query(Ask { sql, rows_max, time_max_ms: None }, None).await.unwrap();
        assert!(answer.rows.is_empty() || answer.rows[0][0] == n);
        (answer.rows.len(), answer.truncated)
    };
    assert_eq!(ask(99, None).await, (99, false));
    assert_eq!(ask(100, None).await, (100, false));
    assert_eq!(ask(101, None).await, (100, true));
    assert_eq!(ask(30_000, None).await, (100, true));
    // The asker narrows the bound, and cannot widen it.
    assert_eq!(ask(101, Some(7)).await, (7, true));
    assert_eq!(ask(101, Some(0)).await, (0, true));
    assert_eq!(ask(101, Some(1_000_000)).await, (100, true));
    running.end().await;
}

#[tokio::test]
async fn inv_cost_1_the_bytes_of_an_answer_are_bounded() {
    let running = Running::start(|config| config.query.answer_bytes_max = 1 << 20).await;
    let sql = |n| format!("select repeat('x', 1000) from generate_series(1, {n})");
    assert_eq!(running.ask(&sql(1000)).await.unwrap().rows.len(), 1000);
    let error = running.ask(&sql(1100)).await.unwrap_err();
    assert_eq!(
        error,
        QueryError::TooLarge(
            "the answer has more than 1048576 bytes: ask for fewer rows or columns".into()
        )
    );
    running.end().await;
}

#[tokio::test]
async fn inv_cost_1_the_bytes_of_sql_are_bounded() {
    let running = Running::start(|config| config.query.sql_bytes_max = 20).await;
    assert!(running.ask("select 1           ").await.is_ok());
    let error = running.ask("select 1             ").await.unwrap_err();
    assert_eq!(error, QueryError::BadSql("it has 21 bytes, expected at most 20".into()));
    running.end().await;
}

/// A thread that overflows its stack takes the process with it.
#[tokio::test]
async fn inv_cost_1_sql_that_nests_as_deeply_as_it_may_does_no_harm_and_deeper_is_refused() {
    const WORDS_MAX: usize = 1000;
    let running = Running::start(|_| {}).await;
    // (shape, words at the start and the end, words of each level)
    let shapes: &[(&str, &str, &str, usize, usize)] = &[
        ("select value", " + 1", " from generate_series(1, 1)", 4, 1),
        ("select 1", " || 'a'", "", 1, 1),
        ("select 1 where true", " and value = 1 or true", "", 3, 6),
        ("select value", "::int", " from generate_series(1, 1)", 4, 2),
        ("select 1", " union all select 1", "", 1, 3),
        ("select 1", " is null", "", 1, 2),
        ("select value from generate_series(1, 1)", " where value > 1", "", 4, 4),
        ("select ", "not ", "true", 2, 1),
        ("select ", "- ", "1", 1, 1),
        ("select ", "abs(", "1", 1, 1),
        ("select ", "(", "1", 1, 0),
        ("select case ", "when true then 1 ", "end", 3, 4),
        ("select 1 from (values (1)) t", ", (values (1)) as t", "", 4, 3),
        ("select 1 from readings as r", " join readings using (device)", "", 5, 4),
    ];
    for (start, level, end, outside, per_level) in shapes {
        let levels = match per_level {
            0 => 30_000,
            n => (WORDS_MAX - outside) / n,
        };
        let sql = format!("{start}{}{end}", level.repeat(levels));
        // Whether it is a good question does not matter here.
        let _ = running.ask(&sql).await;
        let deeper = format!("{start}{}{end}", level.repeat(30_000));
        assert!(matches!(running.ask(&deeper).await, Err(QueryError::BadSql(_))), "{start}{level}");
    }
    let error = running.ask(&format!("select 1{}", " + 1".repeat(1000))).await.unwrap_err();
    let what = "it has 1001 words and operators, expected at most 1000";
    assert_eq!(error, QueryError::BadSql(what.into()));
    let list = "'pump', ".repeat(5000);
    let sql = format!("select count(*) from readings where device in ({list}'pump')");
    assert_eq!(running.cell(&sql).await, 0, "a list may be long");
    assert_eq!(running.cell("select 1").await, 1);
    running.end().await;
}

#[tokio::test]
async fn inv_cost_1_two_questions_run_eight_wait_and_the_next_is_refused_at_once() {
    let running = Arc::new(Running::start(|_| {}).await);
    let asking: Vec<_> = (0..10)
        .map(|_| {
            let running = running.clone();
            tokio::spawn(async move { running.ask(ENDLESS).await })
        })
        .collect();
    until("two run and eight wait", async || {
        gauge(&running, "plimsoll_query_running") == 2.0
            && gauge(&running, "plimsoll_query_waiting") == 8.0
    })
    .await;
    let error = running.ask("select 1").await.unwrap_err();
    assert_eq!(error, QueryError::Busy { running: 2, waiting: 8 });
    assert_eq!(refusals(&running, "busy"), 1.0);
    asking.iter().for_each(|asking| asking.abort());
    all_ended(&running).await;
    assert_eq!(gauge(&running, "plimsoll_query_waiting"), 0.0);
    assert_eq!(running.cell("select 1").await, 1);
}

#[tokio::test]
async fn a_question_that_waits_for_longer_than_its_time_is_too_slow() {
    let running = Arc::new(Running::start(|config| config.query.running_max = 1).await);
    let first = {
        let running = running.clone();
        tokio::spawn(async move { running.ask(ENDLESS).await })
    };
    until("it runs", async || gauge(&running, "plimsoll_query_running") == 1.0).await;
    let ask = Ask { sql: "select 1".into(), rows_max: None, time_max_ms: Some(40) };
    let error = running.store.query(ask, None).await.unwrap_err();
    assert_eq!(error, QueryError::TooSlow { limit_ms: 40 });
    first.abort();
    all_ended(&running).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn questions_run_at_the_lowest_priority_and_ingest_does_not() {
    let running = Running::start(|_| {}).await;
    running.cell("select 1").await;
    until("all threads have started", async || {
        let (questions, consumers) = threads_by_priority();
        questions >= 2 && consumers >= 4
    })
    .await;
    running.end().await;
}

/// Threads of questions, and of ingest. Panics if one has the other's priority.
fn threads_by_priority() -> (usize, usize) {
    let (mut questions, mut consumers) = (0, 0);
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |what| std::fs::read_to_string(task.path().join(what)).unwrap_or_default();
        let name = read("comm");
        // proc(5): `nice` is field 19, and the name in field 2 may hold spaces.
        let stat = read("stat");
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        let nice: i32 = fields.split_whitespace().nth(16).unwrap().parse().unwrap();
        match name.trim() {
            // One that has just been made has not lowered itself yet.
            "query" => questions += usize::from(nice == 19),
            name if name.starts_with("store-") => {
                assert!(nice < 19, "{name} is at {nice}");
                consumers += 1;
            }
            _ => {}
        }
    }
    (questions, consumers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_questions_do_not_hold_up_ingest() {
    let running = Arc::new(Running::start(|config| config.flush.rows_max = 200).await);
    let hostile: Vec<_> = (0..6)
        .map(|_| {
            let running = running.clone();
            tokio::spawn(async move { running.ask(ENDLESS).await })
        })
        .collect();
    until("they run", async || gauge(&running, "plimsoll_query_running") == 2.0).await;
    let mut device = Device::new("pump-7", 1);
    for pack in 0..100 {
        let message = device.seal(&readings("t", START_US + pack, 10));
        running.put(&device.id, vec![device.entry(message)]).await;
    }
    until("all is taken in", async || {
        let fresh = running.store.snapshot();
        let in_files: u64 = fresh.files(store::Table::Readings).iter().map(|file| file.rows).sum();
        let fresh = fresh.fresh(store::Table::Readings).iter().flatten();
        in_files + fresh.map(|batch| batch.num_rows() as u64).sum::<u64>() == 1000
    })
    .await;
    hostile.iter().for_each(|asking| asking.abort());
    all_ended(&running).await;
}
