//! Alerts, silences and rules, through the listener.

use crate::world::{Got, Setup, World, in_time};
use api::alert::{Alert, Alerts, Rules, Silence, Silences};
use api::{Answer, Ask, Column, Query, QueryError, Within, path};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

/// A store that answers questions of these tests as they say, and all others with no row.
#[derive(Default)]
struct Told(Mutex<Option<Result<Vec<Value>, QueryError>>>);

impl Told {
    fn say(&self, rows: Vec<Value>) {
        *self.0.lock().unwrap() = Some(Ok(rows));
    }

    fn fail(&self, error: QueryError) {
        *self.0.lock().unwrap() = Some(Err(error));
    }
}

struct Store(Arc<Told>);

impl Query for Store {
    fn query(
        &self,
        ask: Ask,
        _: Option<Arc<Within>>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, QueryError>> + Send + '_>> {
        let column = |name: &str| Column { name: name.into(), kind: "Utf8".into() };
        let names: &[&str] =
            if ask.sql.contains("no_value") { &["subject"] } else { &["subject", "value"] };
        let columns = names.iter().map(|name| column(name)).collect();
        let rows = match ask.sql.contains("pumps") {
            true => self.0.0.lock().unwrap().clone().unwrap_or(Ok(vec![])),
            false => Ok(vec![]),
        };
        Box::pin(async move {
            if ask.sql.contains("nonsense") {
                return Err(QueryError::BadSql("no table `nonsense`".into()));
            }
            let rows = rows?.into_iter().map(|row| row.as_array().unwrap().clone()).collect();
            Ok(Answer { columns, rows, truncated: false, took_ms: 1 })
        })
    }
}

async fn world() -> (World, Arc<Told>) {
    let told = Arc::new(Told::default());
    let setup = Setup { query: Arc::new(Store(told.clone())), ..Setup::default() };
    (World::with(setup).await, told)
}

fn rule() -> Value {
    json!({
        "id": "pumps-hot",
        "sentence": "{subject} is at {value} °C",
        "priority": "warning",
        "signal": { "sql": "select subject, value from pumps where at < $now_ms" },
        "when": { "above": 80.0 },
        "every_ms": 1000,
        "escalate_after_ms": 60000,
        "runbook": "gaps.md",
    })
}

async fn post(world: &World, path: &str, body: &Value) -> Got {
    let request = world.operator(Method::POST, path);
    Got::of(request.header("content-type", "application/json").body(body.to_string())).await
}

async fn alerts(world: &World, query: &str) -> Alerts {
    Got::of(world.operator(Method::GET, &format!("{}{query}", path::ALERTS))).await.json()
}

/// The driver looks by itself, every second: this waits until it has.
async fn eventually(world: &World, query: &str, is: impl Fn(&Alerts) -> bool) -> Alerts {
    in_time("alerts that are as expected", async {
        loop {
            let found = alerts(world, query).await;
            if is(&found) {
                return found;
            }
        }
    })
    .await
}

async fn actions(world: &World) -> Vec<(String, String, String)> {
    let got = Got::of(world.operator(Method::GET, path::EVENTS)).await;
    let events: api::event::Events = got.json();
    let of = |e: api::event::Event| (e.actor, e.action, e.subject);
    events.events.into_iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_raises_an_alert_that_is_acknowledged_and_resolved_and_each_is_an_event() {
    let (world, store) = world().await;
    store.say(vec![json!(["pump-1", 91.5]), json!(["pump-2", 20.0]), json!(["pump-3", null])]);
    let put = post(&world, path::ALERT_RULES, &rule()).await;
    assert_eq!(put.status, StatusCode::OK, "{put:?}");
    let found = eventually(&world, "?state=firing", |found| !found.alerts.is_empty()).await;
    assert_eq!((found.alerts.len(), found.firing), (1, 1));
    let alert = &found.alerts[0];
    assert_eq!(alert.sentence, "pump-1 is at 91.5 °C");
    assert_eq!((alert.rule.as_str(), alert.subject.as_str()), ("pumps-hot", "pump-1"));
    assert_eq!(alert.escalates_at_ms.unwrap() - alert.since_ms, 60_000);
    assert_eq!(alert.runbook.as_deref(), Some("gaps.md"));

    let path = format!("{}/{}/acknowledge", path::ALERTS, alert.id);
    let got = post(&world, &path, &json!({ "note": "on my way" })).await;
    let acknowledged: Alert = got.json();
    assert_eq!(acknowledged.state, "acknowledged");
    assert_eq!(acknowledged.acknowledged_by.as_deref(), Some("token/site"));
    assert_eq!(acknowledged.note.as_deref(), Some("on my way"));
    assert_eq!(acknowledged.escalates_at_ms, None);
    assert_eq!(alerts(&world, "?state=firing").await.firing, 0);
    assert_eq!(alerts(&world, "?state=open&priority=warning").await.alerts.len(), 1);
    assert_eq!(alerts(&world, "?state=open&priority=critical").await.alerts.len(), 0);
    // What was open is open after a restart, by the same number, acknowledged by the same person.
    let setup = Setup { query: Arc::new(Store(store.clone())), ..Setup::default() };
    let world = world.restart(setup).await;
    let again = alerts(&world, "?state=acknowledged").await;
    assert_eq!(again.alerts[0].id, alert.id);
    // The rule goes, and what it raised with it.
    let gone = format!("{}/pumps-hot/delete", path::ALERT_RULES);
    assert_eq!(post(&world, &gone, &json!({})).await.status, StatusCode::NO_CONTENT);
    let resolved = alerts(&world, "?state=resolved").await;
    assert_eq!(resolved.alerts[0].id, alert.id);
    let got = post(&world, &path, &json!({})).await;
    assert_eq!(got.refusal(), (409, "resolved".into()));
    let id = format!("alert/{}", alert.id);
    let rule = || "alert-rule/pumps-hot".to_owned();
    let by = |who: &str, what: &str, of: String| (who.to_owned(), what.to_owned(), of);
    let told = actions(&world).await;
    for expected in [
        by("token/site", "rule.change", rule()),
        by("control", "alert.raise", id.clone()),
        by("token/site", "alert.acknowledge", id.clone()),
        by("token/site", "alert.resolve", id),
    ] {
        let count = told.iter().filter(|told| **told == expected).count();
        let of_rule = usize::from(expected.1 == "rule.change");
        assert_eq!(count, 1 + of_rule, "{expected:?} in {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_cannot_be_evaluated_says_why_and_is_counted_and_leaves_its_alert_alone() {
    let (world, store) = world().await;
    store.say(vec![json!(["pump-1", 91.5])]);
    assert_eq!(post(&world, path::ALERT_RULES, &rule()).await.status, StatusCode::OK);
    eventually(&world, "?state=firing", |found| found.firing == 1).await;
    for (say, why) in [
        (Err(QueryError::Failed("no catalog".into())), "the store failed: no catalog"),
        (Err(QueryError::TooSlow { limit_ms: 7 }), "not answered within 7 ms"),
        (Ok(vec![json!(["pump-1", "hot"])]), "expected a number as `value`, found \"hot\""),
        (Ok(vec![json!([7, 91.5])]), "expected a text as `subject`, found 7"),
    ] {
        match say {
            Ok(rows) => store.say(rows),
            Err(error) => store.fail(error),
        }
        in_time(why, async {
            loop {
                let got = Got::of(world.operator(Method::GET, path::ALERT_RULES)).await;
                let rules: Rules = got.json();
                let state = &rules.states["pumps-hot"];
                if state.trouble.as_deref() == Some(why) {
                    assert_eq!(state.open, 1, "it is not clear only because nobody can see it");
                    break;
                }
            }
        })
        .await;
    }
    assert_eq!(world.metric("plimsoll_alert_rule_failing{rule=\"pumps-hot\"}"), 1);
    assert!(world.metric("plimsoll_alert_rule_looks_total{outcome=\"failed\"}") >= 4);
    store.say(vec![json!(["pump-1", 91.5])]);
    world.counted("plimsoll_alert_rule_failing{rule=\"pumps-hot\"}", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_needs_a_reason_and_an_end_and_is_ended_by_whoever_may() {
    let (world, store) = world().await;
    store.say(vec![json!(["pump-1", 91.5])]);
    let now = now_ms();
    let day = 86_400_000;
    for (body, word) in [
        (json!({ "until_ms": now + day, "reason": "works" }), "bad_silence"),
        (json!({ "subject": "pump-1", "until_ms": now, "reason": "works" }), "bad_silence"),
        (
            json!({ "subject": "pump-1", "until_ms": now + 31 * day, "reason": "works" }),
            "bad_silence",
        ),
        (json!({ "subject": "pump-1", "until_ms": now + day, "reason": "  " }), "bad_text"),
        (json!({ "subject": "pump-1", "until_ms": now + day }), "bad_json"),
    ] {
        let got = post(&world, path::SILENCES, &body).await;
        assert_eq!(got.refusal(), (400, word.into()), "{body}");
    }
    let body = json!({ "rule": "nobody", "until_ms": now + day, "reason": "works" });
    let got = post(&world, path::SILENCES, &body).await;
    assert_eq!(got.refusal(), (404, "unknown_rule".into()));

    let body = json!({ "subject": "pump-1", "until_ms": now + day, "reason": "works on it" });
    let got = post(&world, path::SILENCES, &body).await;
    assert_eq!(got.status, StatusCode::CREATED);
    let silence: Silence = serde_json::from_slice(&got.body).unwrap();
    assert_eq!((silence.by.as_str(), silence.what.reason.as_str()), ("token/site", "works on it"));
    assert_eq!(post(&world, path::ALERT_RULES, &rule()).await.status, StatusCode::OK);
    let found = eventually(&world, "?state=firing", |found| found.firing == 1).await;
    assert_eq!(found.alerts[0].silenced_until_ms, Some(now + day), "it is seen all the same");
    assert_eq!(found.alerts[0].escalates_at_ms, None, "nobody was told");
    // Silenced it stays over a restart.
    let setup = Setup { query: Arc::new(Store(store.clone())), ..Setup::default() };
    let world = world.restart(setup).await;
    assert_eq!(alerts(&world, "").await.alerts[0].silenced_until_ms, Some(now + day));

    let path = format!("{}/{}/end", path::SILENCES, silence.id);
    let ended: Silence = post(&world, &path, &json!({})).await.json();
    assert!(ended.ended_at_ms.is_some());
    assert_eq!(post(&world, &path, &json!({})).await.refusal(), (409, "ended".into()));
    let found = alerts(&world, "?state=firing").await;
    assert_eq!(found.alerts[0].silenced_until_ms, None);
    assert!(found.alerts[0].escalates_at_ms.is_some(), "now somebody was told");
    let listed: Silences = Got::of(world.operator(Method::GET, path::SILENCES)).await.json();
    assert_eq!(listed.silences, [ended]);
    let told = actions(&world).await;
    for action in ["silence.begin", "silence.end"] {
        let id = format!("silence/{}", silence.id);
        assert!(told.contains(&("token/site".into(), action.into(), id)), "{told:?}");
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap().as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_accepted_only_if_it_can_be_evaluated_now_and_a_shipped_one_comes_back() {
    let (world, _) = world().await;
    let with = |change: Value| {
        let mut rule = rule();
        rule.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        rule
    };
    for (change, detail) in [
        (json!({ "every_ms": 10 }), "every_ms: expected 1000 to 86400000, found 10"),
        (
            json!({ "signal": { "sql": "select * from nonsense" } }),
            "signal.sql: expected SQL with columns `subject` and `value` that answers within 10 s, \
             found no table `nonsense`",
        ),
        (
            json!({ "signal": { "sql": "select no_value" } }),
            "signal.sql: expected SQL with columns `subject` and `value` that answers within 10 s, \
             found expected a column `value`, found subject",
        ),
    ] {
        let got = post(&world, path::ALERT_RULES, &with(change)).await;
        assert_eq!(got.refusal(), (400, "bad_rule".into()));
        assert_eq!(got.problem().detail, detail);
    }
    let rules: Rules = Got::of(world.operator(Method::GET, path::ALERT_RULES)).await.json();
    assert!(!rules.rules.iter().any(|rule| rule.id == "pumps-hot"), "none was kept");
    // A shipped rule can be changed, not deleted; what is deleted is the change.
    let shipped = rules.rules.iter().find(|rule| rule.id == "bus-full").unwrap().clone();
    let gone = format!("{}/bus-full/delete", path::ALERT_RULES);
    assert_eq!(post(&world, &gone, &json!({})).await.refusal(), (409, "shipped_rule".into()));
    let mut changed = shipped.clone();
    changed.enabled = false;
    let body = serde_json::to_value(&changed).unwrap();
    assert_eq!(post(&world, path::ALERT_RULES, &body).await.status, StatusCode::OK);
    let world = world.restart(Setup::default()).await;
    let rules: Rules = Got::of(world.operator(Method::GET, path::ALERT_RULES)).await.json();
    assert!(rules.rules.contains(&changed) && !rules.rules.contains(&shipped));
    assert!(rules.states["bus-full"].changed);
    assert_eq!(post(&world, &gone, &json!({})).await.status, StatusCode::NO_CONTENT);
    let rules: Rules = Got::of(world.operator(Method::GET, path::ALERT_RULES)).await.json();
    assert!(rules.rules.contains(&shipped));
    assert!(!rules.states["bus-full"].changed);
    let nobody = format!("{}/nobody/delete", path::ALERT_RULES);
    assert_eq!(post(&world, &nobody, &json!({})).await.refusal(), (404, "unknown_rule".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_alerts_goes_on_where_the_last_one_ended() {
    let (world, store) = world().await;
    store.say((0..5).map(|number| json!([format!("pump-{number}"), 90.0])).collect());
    assert_eq!(post(&world, path::ALERT_RULES, &rule()).await.status, StatusCode::OK);
    eventually(&world, "", |found| found.firing == 5).await;
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let page = alerts(&world, &format!("?limit=2{after}")).await;
        assert!(page.alerts.len() <= 2 && page.firing == 5);
        ids.extend(page.alerts.iter().map(|alert| alert.id));
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(ids, [5, 4, 3, 2, 1]);
    for query in ["?limit=0", "?limit=1001", "?state=burning", "?priority=high", "?x=1"] {
        let got = Got::of(world.operator(Method::GET, &format!("{}{query}", path::ALERTS))).await;
        assert_eq!(got.refusal(), (400, "bad_query_string".into()), "{query}");
    }
    let nobody = format!("{}/99/acknowledge", path::ALERTS);
    assert_eq!(post(&world, &nobody, &json!({})).await.refusal(), (404, "unknown_alert".into()));
}

/// A receiver of webhooks on a port of its own: it refuses so many, then takes the rest, and keeps all.
struct Receiver {
    url: String,
    heard: tokio::sync::mpsc::UnboundedReceiver<Heard>,
}

struct Heard {
    delivery: String,
    signature: String,
    body: Vec<u8>,
}

impl Receiver {
    async fn start(refuse: usize) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, heard) = tokio::sync::mpsc::unbounded_channel();
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(refuse));
        let take = move |headers: axum::http::HeaderMap, body: axum::body::Bytes| {
            let (sender, left) = (sender.clone(), left.clone());
            async move {
                let of = |name: &str| headers[name].to_str().unwrap().to_owned();
                let (delivery, signature) = (of("plimsoll-delivery"), of("plimsoll-signature"));
                sender.send(Heard { delivery, signature, body: body.to_vec() }).unwrap();
                let less = |left: usize| left.checked_sub(1);
                let order = std::sync::atomic::Ordering::SeqCst;
                match left.fetch_update(order, order, less) {
                    Ok(_) => StatusCode::SERVICE_UNAVAILABLE,
                    Err(_) => StatusCode::NO_CONTENT,
                }
            }
        };
        let app = axum::Router::new().route("/hook", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, heard }
    }

    async fn next(&mut self) -> Heard {
        in_time("a webhook's call", self.heard.recv()).await.unwrap()
    }
}

const SECRET: &str = "the secret of this webhook";

fn webhook(id: &str, url: &str) -> Value {
    json!({ "id": id, "way": { "webhook": { "url": url, "secret": SECRET } }, "reports": true })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_first_is_called_again_under_the_same_id_and_signed() {
    let (world, store) = world().await;
    let mut receiver = Receiver::start(1).await;
    let got = post(&world, "/v1/alert-targets", &webhook("night", &receiver.url)).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    store.say(vec![json!(["pump-1", 91.5])]);
    assert_eq!(post(&world, path::ALERT_RULES, &rule()).await.status, StatusCode::OK);
    let first = receiver.next().await;
    assert_eq!(first.delivery, "alert-1-0");
    let told: api::alert::Telling = serde_json::from_slice(&first.body).unwrap();
    let alert = told.alert.unwrap();
    assert_eq!((alert.id, alert.sentence.as_str()), (1, "pump-1 is at 91.5 °C"));
    assert_eq!(told.kind, api::alert::TellingKind::Firing);
    // As anybody computes it: RFC 2104 over SHA-256.
    let expected = hmac_sha256(SECRET.as_bytes(), &first.body);
    assert_eq!(first.signature, format!("sha256={expected}"));
    // It is tried again after some seconds, also by another process.
    let setup = Setup { query: Arc::new(Store(store.clone())), ..Setup::default() };
    let world = world.restart(setup).await;
    let again = receiver.next().await;
    assert_eq!((again.delivery, again.body), (first.delivery, first.body));
    in_time("nothing waits any more", async {
        loop {
            let got = Got::of(world.operator(Method::GET, "/v1/alert-targets")).await;
            let targets: api::alert::Targets = got.json();
            if targets.targets[0].delivered_at_ms.is_some() {
                assert_eq!((targets.targets[0].waiting, &targets.targets[0].trouble), (0, &None));
                break;
            }
        }
    })
    .await;
    assert_eq!(world.metric("plimsoll_alert_tellings_total{outcome=\"delivered\"}"), 1);
}

/// HMAC by its definition.
fn hmac_sha256(key: &[u8], message: &[u8]) -> String {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let with = |pad: u8, rest: &[u8]| {
        let mut bytes: Vec<u8> = block.iter().map(|byte| byte ^ pad).collect();
        bytes.extend_from_slice(rest);
        trust::digest(&bytes)
    };
    let inner = with(0x36, message);
    with(0x5c, inner.as_bytes()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_targets_secret_is_in_no_answer_and_stays_when_a_change_names_none() {
    let (world, _) = world().await;
    let mut receiver = Receiver::start(0).await;
    let put = post(&world, "/v1/alert-targets", &webhook("night", &receiver.url)).await;
    let changed = json!({
        "id": "night",
        "way": { "webhook": { "url": receiver.url } },
        "from_priority": "critical",
    });
    let again = post(&world, "/v1/alert-targets", &changed).await;
    let listed = Got::of(world.operator(Method::GET, "/v1/alert-targets")).await;
    let events = Got::of(world.operator(Method::GET, path::EVENTS)).await;
    for got in [&put, &again, &listed, &events] {
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert!(!String::from_utf8_lossy(&got.body).contains(SECRET), "{got:?}");
    }
    let targets: api::alert::Targets = listed.json();
    assert!(targets.targets[0].has_secret);
    let test = post(&world, "/v1/alert-targets/night/test", &json!({})).await;
    assert_eq!(test.status, StatusCode::OK, "{test:?}");
    let heard = receiver.next().await;
    assert_eq!(heard.signature, format!("sha256={}", hmac_sha256(SECRET.as_bytes(), &heard.body)));
    for (body, field) in [
        (webhook("Night", &receiver.url), "id"),
        (webhook("day", "http://example.com/x"), "url"),
        (webhook("day", "ftp://127.0.0.1/x"), "url"),
        (webhook("day", "no url"), "url"),
        (json!({ "id": "day", "way": { "webhook": { "url": receiver.url } } }), "secret"),
        (mail(25, "plain", "example.com"), "security"),
    ] {
        let got = post(&world, "/v1/alert-targets", &body).await;
        assert_eq!(got.refusal(), (400, "bad_target".into()), "{body}");
        assert!(got.problem().detail.starts_with(field), "{:?}", got.problem());
    }
    let gone = "/v1/alert-targets/night/delete";
    assert_eq!(post(&world, gone, &json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(post(&world, gone, &json!({})).await.refusal(), (404, "unknown_target".into()));
}

fn mail(port: u16, security: &str, host: &str) -> Value {
    json!({ "id": "board", "way": { "mail": {
        "host": host, "port": port, "security": security,
        "user": "plimsoll", "password": "a password",
        "from": "plimsoll@plant.example", "to": ["anna@plant.example", "ben@plant.example"],
    } } })
}

/// A mail server of few words: it takes one message for each connection, and gives what was said.
async fn mail_server() -> (u16, tokio::sync::mpsc::UnboundedReceiver<Vec<String>>) {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, mails) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let (mut said, mut in_data) = (Vec::new(), false);
            write.write_all(b"220 mail.plant.example\r\n").await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                said.push(line.clone());
                let answer: &[u8] = match line.split(' ').next().unwrap() {
                    "." if in_data => {
                        in_data = false;
                        b"250 taken\r\n"
                    }
                    _ if in_data => continue,
                    "EHLO" => b"250-mail.plant.example\r\n250 AUTH PLAIN\r\n",
                    "AUTH" => b"235 you are\r\n",
                    "DATA" => {
                        in_data = true;
                        b"354 go on\r\n"
                    }
                    "QUIT" => b"221 bye\r\n",
                    _ => b"250 well\r\n",
                };
                write.write_all(answer).await.unwrap();
                if line == "." && !in_data {
                    sender.send(std::mem::take(&mut said)).unwrap();
                }
            }
        }
    });
    (port, mails)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_says_what_is_the_matter_to_each_recipient_under_an_id_that_stays() {
    use base64::Engine as _;
    let (world, store) = world().await;
    let (port, mut mails) = mail_server().await;
    let put = post(&world, "/v1/alert-targets", &mail(port, "plain", "127.0.0.1")).await;
    assert_eq!(put.status, StatusCode::OK, "{put:?}");
    store.say(vec![json!(["pump-1", 91.5])]);
    assert_eq!(post(&world, path::ALERT_RULES, &rule()).await.status, StatusCode::OK);
    let said = in_time("a mail", mails.recv()).await.unwrap();
    let all = said.join("\n");
    for expected in [
        "MAIL FROM:<plimsoll@plant.example>",
        "RCPT TO:<anna@plant.example>",
        "RCPT TO:<ben@plant.example>",
        "Message-ID: <alert-1-0.site@plant.example>",
        "docs/runbooks/gaps.md",
    ] {
        assert!(all.contains(expected), "{expected} in {all}");
    }
    let login = base64::prelude::BASE64_STANDARD.encode("\0plimsoll\0a password");
    assert!(said.contains(&format!("AUTH PLAIN {login}")), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_week_comes_as_numbers_and_as_a_page_that_runs_and_loads_nothing() {
    let (world, _) = world().await;
    world.device("pump-1").await;
    let got = Got::of(world.operator(Method::GET, "/v1/reports/weekly")).await;
    let report: api::alert::WeeklyReport = got.json();
    assert_eq!((report.devices, report.enrolled, report.heard), (1, 1, 0));
    assert_eq!(report.silent, ["pump-1"]);
    assert_eq!(report.acts["device.enrol"], 2);
    assert_eq!(report.until_ms - report.from_ms, 604_800_000);
    let page = Got::of(world.operator(Method::GET, "/v1/reports/weekly.html")).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(String::from_utf8(page.body).unwrap().contains("pump-1"));
    let ahead = format!("/v1/reports/weekly?until_ms={}", now_ms() + 60_000);
    let got = Got::of(world.operator(Method::GET, &ahead)).await;
    assert_eq!(got.refusal(), (400, "bad_query_string".into()));
}

/// A gateway and its devices fall silent: one alert, under the gateway's name.
#[tokio::test(flavor = "multi_thread")]
async fn devices_and_their_gateway_that_are_not_heard_are_one_alert() {
    let (world, _) = world().await;
    world.gateway("gw-1").await;
    world.device("pump-1").await;
    let silent = json!({
        "id": "devices-silent",
        "sentence": "{subject} is silent",
        "priority": "warning",
        "signal": { "silence": { "role": "device" } },
        "when": { "above": 1.0 },
        "every_ms": 1000,
        "group_by_gateway": true,
    });
    assert_eq!(post(&world, path::ALERT_RULES, &silent).await.status, StatusCode::OK);
    let found = eventually(&world, "?state=firing", |found| found.firing == 2).await;
    let named: Vec<_> = found.alerts.iter().map(|alert| alert.sentence.as_str()).collect();
    // This device was never heard through a gateway: it stands for itself.
    assert_eq!(named, ["pump-1 is silent", "gw-1 is silent (gw-1)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rule_about_rules_can_itself_be_evaluated_from_its_first_look_on() {
    let (world, _) = world().await;
    let looked = in_time("it is looked at", async {
        loop {
            let rules: Rules = Got::of(world.operator(Method::GET, path::ALERT_RULES)).await.json();
            let state = rules.states["rule-cannot-be-evaluated"].clone();
            if state.looked_at_ms.is_some() {
                return state;
            }
        }
    });
    assert_eq!(looked.await.trouble, None);
}
