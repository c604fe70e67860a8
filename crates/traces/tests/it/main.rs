//! Promises of what is sent, and of what a collector can do to who sends.

use model::manifest::InstallEnd;
use model::{Counter, DeviceId, GatewayId, KeyId, RolloutId, Timestamp};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use traces::{QUEUE_MAX, Settings, Step, Told, TraceId, Traces, request};

const KEY: KeyId = KeyId([7; 32]);

fn counter(sequence: u64) -> Counter {
    Counter { epoch: 1, sequence }
}

fn device(n: usize) -> DeviceId {
    DeviceId::new(format!("pump-{n}")).unwrap()
}

fn gateway() -> GatewayId {
    GatewayId::new("gw-1").unwrap()
}

fn settings(url: String) -> Settings {
    let headers = vec![("authorization".to_owned(), "Bearer s3cret".to_owned())];
    Settings { url, ratio: 1.0, headers, ca: None }
}

/// Tells `count` spans, of as many devices: none has more than its share.
fn tell(traces: &Traces, count: usize) {
    for n in 0..count {
        let device = device(n);
        let Some(trace) = traces.message(&device, &KEY, counter(n as u64)) else { continue };
        let step = Step::Admit { gateway: &gateway() };
        traces.tell(trace, &step, &device, (Timestamp(1), Timestamp(2)), []);
    }
}

async fn read(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        let head = end.map(|end| String::from_utf8_lossy(&bytes[..end]).into_owned());
        if let (Some(head), Some(end)) = (head, end) {
            let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let len: usize = len.expect("a length").parse().unwrap();
            while bytes.len() < end + 4 + len {
                assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "it hung up");
            }
            return (head, bytes.split_off(end + 4));
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "it hung up");
    }
}

async fn answer(stream: &mut TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn what_is_told_arrives_as_otlp_in_json() {
    let (listener, url) = listener().await;
    let traces = Traces::start(&settings(url), "1.2.3").unwrap();
    let (device, gateway) = (device(1), gateway());
    let trace = traces.message(&device, &KEY, counter(9)).unwrap();
    let at = (Timestamp(1_750_000_000_000_001), Timestamp(1_750_000_000_000_003));
    let more = [("plimsoll.readings", 3_usize.into()), ("plimsoll.fresh", true.into())];
    traces.tell(trace, &Step::Admit { gateway: &gateway }, &device, at, more);
    let rollout = RolloutId::new("pump-1.1").unwrap();
    let update = traces.update("site", &rollout, &device).unwrap();
    let report = Step::Report { gateway: &gateway, end: InstallEnd::Confirmed };
    traces.tell(update, &report, &device, at, []);
    let (mut stream, _) = listener.accept().await.unwrap();
    let (head, body) = read(&mut stream).await;
    assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
    assert!(head.contains("authorization: Bearer s3cret"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    answer(&mut stream, "200 OK", r#"{"partialSuccess":{"rejectedSpans":"1"}}"#).await;
    traces.end().await;
    let metrics = traces.metrics().unwrap();
    assert_eq!((metrics.sent(), metrics.dropped("rejected")), (1, 1));

    // OTLP 1.5, with the names and forms of its JSON encoding: ids in hex, numbers of 64 bits as decimal text.
    let text = |key: &str, text: &str| json!({"key": key, "value": {"stringValue": text}});
    let resource = |service: &str| {
        json!({"attributes": [
            text("service.name", service), text("service.namespace", "plimsoll"), text("service.version", "1.2.3")]})
    };
    let scope = json!({"name": "plimsoll", "version": "1.2.3"});
    let id = |trace, step: &Step<'_>| traces::SpanId::of(trace, step).to_string();
    let (message, update) = (trace.id(), update.id());
    let (admit, end) = (Step::Admit { gateway: &gateway }, InstallEnd::Confirmed);
    let of_gateway = [text("device.id", "pump-1"), text("plimsoll.gateway", "gw-1")];
    let mut of_message = of_gateway.to_vec();
    of_message.push(json!({"key": "plimsoll.readings", "value": {"intValue": "3"}}));
    of_message.push(json!({"key": "plimsoll.fresh", "value": {"boolValue": true}}));
    let expected = json!({"resourceSpans": [
        {"resource": resource("plimsoll-control"), "scopeSpans": [{"scope": scope, "spans": [{
            "traceId": TraceId::of_update("site", &rollout, &device).to_string(),
            "spanId": id(update, &report),
            "parentSpanId": id(update, &Step::CheckIn { gateway: &gateway, end }),
            "name": "take report", "kind": 2,
            "startTimeUnixNano": "1750000000000001000", "endTimeUnixNano": "1750000000000003000",
            "attributes": of_gateway, "flags": 0x303, "traceState": "ot=th:0"}]}]},
        {"resource": resource("plimsoll-gateway"), "scopeSpans": [{"scope": scope, "spans": [{
            "traceId": TraceId::of_message(&KEY, counter(9)).to_string(),
            "spanId": id(message, &admit),
            "parentSpanId": id(message, &Step::Seal),
            "name": "admit readings", "kind": 5,
            "startTimeUnixNano": "1750000000000001000", "endTimeUnixNano": "1750000000000003000",
            "attributes": of_message, "flags": 0x303, "traceState": "ot=th:0"}]}]},
    ]});
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    assert_ne!(message, update);
}

#[tokio::test]
async fn a_collector_that_hangs_costs_a_queue_of_spans_and_no_time() {
    let (listener, url) = listener().await;
    let traces = Traces::start(&settings(url), "1.2.3").unwrap();
    tell(&traces, 1);
    let (mut stream, _) = listener.accept().await.unwrap();
    read(&mut stream).await;
    // The post is under way, and is not answered.
    let began = Instant::now();
    tell(&traces, QUEUE_MAX + 100);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let metrics = traces.metrics().unwrap();
    assert_eq!(metrics.dropped("share"), 0);
    assert_eq!(metrics.dropped("queue"), 100);
    let began = Instant::now();
    traces.end().await;
    assert!(began.elapsed() < Duration::from_secs(5), "the end waits for a moment, and no longer");
    assert_eq!(metrics.sent(), 0);
}

#[tokio::test]
async fn a_collector_that_is_away_or_refuses_costs_its_spans_and_is_told_again_later() {
    let (away, url) = listener().await;
    drop(away);
    let traces = Traces::start(&settings(url), "1.2.3").unwrap();
    tell(&traces, 3);
    traces.end().await;
    let metrics = traces.metrics().unwrap();
    assert_eq!((metrics.sent(), metrics.dropped("collector")), (0, 3));

    let (listener, url) = listener().await;
    let traces = Traces::start(&settings(url), "1.2.3").unwrap();
    tell(&traces, 1);
    let (mut stream, _) = listener.accept().await.unwrap();
    read(&mut stream).await;
    answer(&mut stream, "503 Service Unavailable", "").await;
    // Told while it is left alone; it has a second to be posted.
    tell(&traces, 1);
    read(&mut stream).await;
    answer(&mut stream, "200 OK", "{}").await;
    traces.end().await;
    let metrics = traces.metrics().unwrap();
    assert_eq!((metrics.sent(), metrics.dropped("collector")), (1, 1));
}

#[test]
fn without_an_endpoint_nothing_is_derived_or_told() {
    let traces = Traces::default();
    assert_eq!(traces.message(&device(1), &KEY, counter(1)), None);
    let rollout = RolloutId::new("r").unwrap();
    assert_eq!(traces.update("site", &rollout, &device(1)), None);
    assert!(traces.metrics().is_none());
}

#[tokio::test]
async fn no_span_ends_before_it_begins() {
    let traces = Traces::start(&settings("http://127.0.0.1:1/v1/traces".into()), "1").unwrap();
    let trace = traces.message(&device(1), &KEY, counter(1)).unwrap();
    let told = Told::new(trace, &Step::Seal, Timestamp(5), Timestamp(3), vec![]);
    assert_eq!((told.from, told.to), (Timestamp(5), Timestamp(5)));
    let bytes = request(&[told], "1");
    let read: Value = serde_json::from_slice(&bytes).unwrap();
    let span = &read["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["parentSpanId"], Value::Null, "nor has the first one a parent");
}
