//! The query route.

use crate::world::{Got, Setup, World};
use api::{Answer, path};
use control::Limits;
use reqwest::Method;
use std::time::Duration;

fn ask(world: &World, sql: &str) -> reqwest::RequestBuilder {
    let body = serde_json::json!({ "sql": sql }).to_string();
    let request = world.operator(Method::POST, path::QUERY);
    request.header("content-type", "application/json").body(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_as_json_or_as_csv() {
    let world = World::new().await;
    let answer: Answer = Got::of(ask(&world, "select 1")).await.json();
    assert_eq!((answer.rows.len(), answer.truncated, answer.took_ms), (2, true, 3));
    let got = Got::of(ask(&world, "select 1").header("accept", "text/csv")).await;
    assert_eq!(got.header("content-type"), "text/csv; charset=utf-8; header=present");
    assert_eq!(got.header(control::TRUNCATED), "true");
    assert_eq!(String::from_utf8(got.body).unwrap(), "one\r\n1\r\n\"\"\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_an_answer_says_why() {
    let world = World::new().await;
    for (sql, status, word, retry) in [
        ("select nonsense", 400, "bad_sql", ""),
        ("select slow", 504, "too_slow", ""),
        ("select large", 422, "too_large", ""),
        ("select busy", 429, "queries_busy", "1"),
        ("select broken", 500, "query_failed", ""),
    ] {
        let got = Got::of(ask(&world, sql)).await;
        assert_eq!(got.refusal(), (status, word.to_owned()), "{sql}");
        assert_eq!(got.header("retry-after"), retry, "{sql}");
        assert_eq!(world.refused(word), 1, "{sql}");
    }
    let long = ask(&world, &"x".repeat(256 * 1024));
    assert_eq!(Got::of(long).await.refusal(), (413, "oversize".into()));
}

/// The store's own bounds are narrower; should it not keep them, the caller hears of it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_the_store_does_not_end_is_ended() {
    let limits = Limits { query_time_max: Duration::from_millis(50), ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let got = Got::of(ask(&world, "select forever")).await;
    assert_eq!(got.refusal(), (503, "timed_out".into()));
    assert_eq!(got.header("retry-after"), "1");
    assert_eq!(world.refused("timed_out"), 1);
}
