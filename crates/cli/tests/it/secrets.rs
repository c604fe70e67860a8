//! Nothing that this product writes, shows or answers has a secret in it: a whole site at its most talkative, with people, tokens,
//! targets, keys and mistakes, and then a search of everything that came out of it.

use crate::collector::Collector;
use crate::words::{bare, said};
use crate::{Desk, FIRST_READING, PATIENCE, Site, Up, commands};
use base64::Engine as _;
use reqwest::{Method, header};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

const PASSWORD: &str = "anna's password 5f3c9a";
const NEXT_PASSWORD: &str = "anna's next password 77b1";
const WRONG_PASSWORD: &str = "a wrong password 90aa1";
const SHORT_PASSWORD: &str = "s4-e1x";
/// A password that is no text: what is wrong with a body is told without it.
const NUMBER_PASSWORD: u64 = 918_273_645_546_372_819;
const WEBHOOK_SECRET: &str = "webhook secret d41d8cd98f";
const WEBHOOK_NUMBER: u64 = 817_263_544_536_271_910;
const MAIL_PASSWORD: &str = "mail password 00b204e9";
const COLLECTOR_TOKEN: &str = "collector-token-e9800998ecf8";
const MADE_UP_TOKEN: &str = "plm_0123456789abcdefMADEUP0123456789";
const MADE_UP_COOKIE: &str = "0123456789abcdefCOOKIE0123456789abcdef";

/// What is secret, by its name, in every form in which it may be shown.
#[derive(Default)]
struct Secrets(BTreeMap<String, String>);

impl Secrets {
    fn text(&mut self, name: &str, text: &str) {
        assert!(text.len() >= 6, "{name} is too short to be looked for");
        self.0.insert(name.to_owned(), text.to_owned());
        if text.len() > 12 {
            self.bytes(name, text.as_bytes());
        }
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let forms = [
            ("in upper hex", hex.to_uppercase()),
            ("in hex", hex),
            ("as a list", list.join(", ")),
            ("in base64", base64.trim_end_matches('=').to_owned()),
            ("in base64url", url),
        ];
        for (form, text) in forms {
            self.0.insert(format!("{name} {form}"), text);
        }
    }

    /// A file of a key: a PKCS#8 in PEM with a scalar of 32 bytes, or 32 bytes as they are.
    fn key(&mut self, path: &Path) {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).unwrap();
        let Some(pem) = std::str::from_utf8(&bytes).ok().filter(|pem| pem.contains("-----BEGIN"))
        else {
            return self.bytes(&name, &bytes);
        };
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(lines.concat()).unwrap();
        let marks: Vec<usize> =
            (0..der.len() - 33).filter(|at| der[*at..at + 2] == [4, 32]).collect();
        assert!(!marks.is_empty(), "no scalar in {name}");
        for at in marks {
            self.bytes(&name, &der[at + 2..at + 34]);
            // Twelve bytes of it are sixteen letters of the file, in one line.
            let from = (at + 2).next_multiple_of(3);
            let letters = base64::engine::general_purpose::STANDARD.encode(&der[from..from + 12]);
            assert!(pem.contains(&letters), "{name} is written otherwise");
            self.0.insert(format!("{name} as it is"), letters);
        }
    }

    /// Every file of a private key below a directory.
    fn keys(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let is_key = path.extension().is_some_and(|end| end == "key" || end == "secret");
            if kind.is_dir() {
                self.keys(&path);
            } else if kind.is_file() && is_key {
                self.key(&path);
            }
        }
    }

    /// Which of them are in a text.
    fn found<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (&'a str, usize)> {
        self.0.iter().filter_map(|(name, secret)| Some((name.as_str(), text.find(secret)?)))
    }
}

/// For so long a stream is listened to.
const LISTENS_FOR: Duration = Duration::from_secs(2);

/// Calls of the API, and what they were answered.
struct Api {
    http: reqwest::Client,
    url: String,
    /// By what it is.
    answers: BTreeMap<String, String>,
}

impl Api {
    fn of(site: &Site) -> Self {
        let ca = std::fs::read(site.dir.join("site/ca.pem")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let pem = <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_slice(&ca);
        roots.add(pem.unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        Self {
            http,
            url: format!("https://127.0.0.1:{}", site.port_base),
            answers: BTreeMap::new(),
        }
    }

    /// Status, cookie and body. A stream does not end: it is heard for a moment.
    async fn call(
        &mut self,
        method: Method,
        path: &str,
        shown: Option<(header::HeaderName, String)>,
        body: Option<String>,
    ) -> (u16, Option<String>, String) {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.url));
        request = request.header(header::ORIGIN, &self.url);
        if let Some((name, value)) = shown {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        let mut answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let cookie = answer.headers().get(header::SET_COOKIE);
        let cookie =
            cookie.map(|value| value.to_str().unwrap().split(';').next().unwrap().to_owned());
        let mut text = format!("{:?}\n", answer.headers());
        if let Some(cookie) = &cookie {
            // To whom it is given.
            text = text.replace(cookie.as_str(), "");
        }
        let mut bytes = Vec::new();
        let is_stream = answer.headers().get(header::CONTENT_TYPE);
        let is_stream = is_stream.is_some_and(|kind| kind == "text/event-stream");
        let patience = if is_stream { LISTENS_FOR } else { PATIENCE };
        let whole = async {
            while let Some(chunk) = answer.chunk().await.unwrap() {
                bytes.extend_from_slice(&chunk);
            }
        };
        let ended = tokio::time::timeout(patience, whole).await;
        assert!(ended.is_ok() || is_stream, "{method} {path} does not end");
        let body = String::from_utf8_lossy(&bytes).into_owned();
        let number = self.answers.len();
        self.answers.insert(format!("answer {number} {method} {path} {status}"), text + &body);
        (status, cookie, body)
    }

    async fn by_cookie(
        &mut self,
        method: Method,
        path: &str,
        cookie: &str,
        body: Value,
    ) -> (u16, String) {
        let body = (!body.is_null()).then(|| body.to_string());
        let shown = Some((header::COOKIE, cookie.to_owned()));
        let (status, _, said) = self.call(method, path, shown, body).await;
        (status, said)
    }

    async fn sign_in(&mut self, password: Value) -> (u16, Option<String>) {
        let body = json!({"user": "anna", "password": password}).to_string();
        let (status, cookie, _) = self.call(Method::POST, "/v1/session", None, Some(body)).await;
        (status, cookie)
    }
}

/// A webhook's receiver that refuses what comes, and a mail server that refuses whoever signs in. Each tells that it was called.
fn refusing(answer: impl Fn(TcpStream) + Send + Clone + 'static, told: Sender<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
            let _ = told.send(());
        }
    });
    port
}

fn webhook(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 16 * 1024]);
    let _ =
        stream.write_all(b"HTTP/1.1 500 Oh no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

fn mail(stream: TcpStream) {
    let say = |line: &str| drop((&stream).write_all(format!("{line}\r\n").as_bytes()));
    say("220 mail.test ESMTP");
    for line in BufReader::new(&stream).lines().map_while(Result::ok) {
        let word = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match word.as_str() {
            "EHLO" => say("250-mail.test\r\n250 AUTH PLAIN LOGIN"),
            "AUTH" => say("535 5.7.8 authentication failed"),
            "QUIT" => return say("221 bye"),
            _ => say("503 5.5.1 sign in first"),
        }
    }
}

#[test]
fn no_log_event_metric_or_answer_tells_a_secret() {
    let site = Site::new("secrets");
    let mut collector = Collector::start();
    let url = collector.url.clone();
    let log = site.dir.join("up.log");
    let header = format!("authorization=Bearer%20{COLLECTOR_TOKEN}");
    let variables = [("PLIMSOLL_LOG", "trace"), ("OTEL_EXPORTER_OTLP_HEADERS", header.as_str())];
    let options = ["--otlp-endpoint", &url, "--otlp-ratio", "1", "--log-json"];
    let mut up = Up::start_logged(&site, &options, &variables, &log);
    let mut said_by_up = up.until(FIRST_READING);

    let mut secrets = Secrets::default();
    for (name, text) in [
        ("the password", PASSWORD),
        ("the next password", NEXT_PASSWORD),
        ("a wrong password", WRONG_PASSWORD),
        ("a short password", SHORT_PASSWORD),
        ("a password that is a number", &NUMBER_PASSWORD.to_string()),
        ("a webhook's secret", WEBHOOK_SECRET),
        ("a webhook's secret that is a number", &WEBHOOK_NUMBER.to_string()),
        ("a mail server's password", MAIL_PASSWORD),
        ("a made-up token", MADE_UP_TOKEN),
        ("a made-up cookie", MADE_UP_COOKIE),
        ("the collector's token", COLLECTOR_TOKEN),
    ] {
        secrets.text(name, text);
    }
    let plain = format!("\0plimsoll\0{MAIL_PASSWORD}");
    secrets.bytes("what a mail server is shown", plain.as_bytes());
    let token = std::fs::read_to_string(site.dir.join("site/api.token")).unwrap();
    secrets.text("the site's token", token.trim());

    let (called, calls) = channel();
    let hook_port = refusing(webhook, called.clone());
    let mail_port = refusing(mail, called);
    let mut api = Api::of(&site);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bearer = |token: &str| Some((header::AUTHORIZATION, format!("Bearer {token}")));
        let grants = json!([{"role": "administrator"}, {"role": "operator"}, {"role": "security_officer"}]);
        for password in [json!(NUMBER_PASSWORD), json!(SHORT_PASSWORD), json!(PASSWORD)] {
            let body = json!({"name": "anna", "password": password, "grants": grants}).to_string();
            let (status, _, said) =
                api.call(Method::POST, "/v1/users", bearer(token.trim()), Some(body)).await;
            assert_eq!(status == 201, password == PASSWORD, "{status} {said}");
        }
        // Mistakes with secrets.
        assert_eq!(api.sign_in(json!(WRONG_PASSWORD)).await.0, 401);
        assert_eq!(api.sign_in(json!(NUMBER_PASSWORD)).await.0, 400);
        let broken = format!("{{\"user\": \"anna\", \"password\": \"{PASSWORD}\" \"");
        assert_eq!(api.call(Method::POST, "/v1/session", None, Some(broken)).await.0, 400);
        let made_up = api.call(Method::GET, "/v1/users", bearer(MADE_UP_TOKEN), None).await;
        assert_eq!(made_up.0, 401);
        let basic = format!("Basic {MADE_UP_TOKEN}");
        let made_up = api.call(Method::GET, "/v1/users", Some((header::AUTHORIZATION, basic)), None);
        assert_eq!(made_up.await.0, 401);

        let (status, cookie) = api.sign_in(json!(PASSWORD)).await;
        let cookie = cookie.unwrap_or_else(|| panic!("{status}: no cookie"));
        let (cookie_name, session) = cookie.split_once('=').unwrap();
        secrets.text("a session's cookie", session);
        let made_up = format!("{cookie_name}={MADE_UP_COOKIE}");
        assert_eq!(api.by_cookie(Method::GET, "/v1/users", &made_up, Value::Null).await.0, 401);

        let new = json!({"name": "ci", "scopes": ["fleet.read"], "days": 1});
        let (status, made) = api.by_cookie(Method::POST, "/v1/tokens", &cookie, new).await;
        assert_eq!(status, 201, "{made}");
        let made: Value = serde_json::from_str(&made).unwrap();
        let shown_once = made["secret"].as_str().unwrap().to_owned();
        // It is told to its maker, in this one answer.
        let holder = api.answers.values_mut().rfind(|text| text.contains(&shown_once)).unwrap();
        *holder = holder.replace(&shown_once, "");
        secrets.text("a program's token", &shown_once);
        assert_eq!(api.call(Method::GET, "/v1/devices", bearer(&shown_once), None).await.0, 200);
        assert_eq!(api.call(Method::GET, "/v1/users", bearer(&shown_once), None).await.0, 403);

        // Targets that refuse: what is told of that is logged.
        let hook = |secret: Value| {
            json!({"id": "hook", "way": {"webhook": {"url": format!("http://127.0.0.1:{hook_port}/"), "secret": secret}}})
        };
        let board = json!({"id": "board", "way": {"mail": {
            "host": "127.0.0.1", "port": mail_port, "security": "plain", "user": "plimsoll",
            "password": MAIL_PASSWORD, "from": "plimsoll@plant.test", "to": ["anna@plant.test"]}}});
        for (target, is_good) in [
            (hook(json!(WEBHOOK_NUMBER)), false),
            (hook(json!(WEBHOOK_SECRET)), true),
            (board, true),
        ] {
            let put = api.by_cookie(Method::POST, "/v1/alert-targets", &cookie, target).await;
            assert_eq!(put.0 < 300, is_good, "{put:?}");
        }
        for target in ["hook", "board"] {
            let path = format!("/v1/alert-targets/{target}/test");
            api.by_cookie(Method::POST, &path, &cookie, Value::Null).await;
            calls.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{target} is not called"));
        }

        // Everything that can be asked for, as the API's own document lists it.
        let document = api.call(Method::GET, "/v1/openapi.json", None, None).await.2;
        let document: Value = serde_json::from_str(&document).unwrap();
        let paths: Vec<String> = document["paths"].as_object().unwrap().iter()
            .filter(|(_, methods)| methods.get("get").is_some())
            .map(|(path, _)| path.replace("{id}", "host-1").replace("{name}", "index.html"))
            .collect();
        assert!(paths.len() > 25, "{paths:?}");
        for path in &paths {
            api.by_cookie(Method::GET, path, &cookie, Value::Null).await;
            api.call(Method::GET, path, None, None).await;
        }
        let next = json!({"password": NEXT_PASSWORD, "before": PASSWORD});
        let set = api.by_cookie(Method::POST, "/v1/users/anna/password", &cookie, next).await;
        assert!(set.0 < 300, "{set:?}");
        assert_eq!(api.by_cookie(Method::GET, "/v1/users", &cookie, Value::Null).await.0, 401);
    });

    // An update too, so that every part has spoken; and what commands show.
    let desk = Desk::of(&site);
    let [update, evidence] = &commands("## The first update")[..] else { panic!("two blocks") };
    let mut shown = desk.run(update);
    shown += &desk.run(evidence);
    let everything = site.dir.join("everything.json");
    let command = |words: &[&str]| {
        let mut command = bare(&site);
        let said = said(command.arg("--data").arg(&site.dir).args(words).output().unwrap());
        assert_eq!(said.code, 0, "{words:?}: {}{}", said.out, said.error);
        said.out + &said.error
    };
    shown += &command(&["evidence", "export", "--out", everything.to_str().unwrap()]);
    shown += &command(&["evidence", "log"]);
    shown += &command(&["metrics"]);
    let mut gateway = TcpStream::connect(("127.0.0.1", site.port_base + 2)).unwrap();
    gateway.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    gateway.read_to_string(&mut shown).unwrap();
    up.signal(Signal::TERM);
    assert!(up.wait().success());
    said_by_up += &up.rest();
    collector.drain();
    assert!(collector.heard.contains(COLLECTOR_TOKEN), "the collector is shown its token");

    secrets.keys(&site.dir);
    let known = |end: &str| secrets.0.keys().any(|name| name.contains(end));
    for file in ["site/ca.key", "site/bus.key", "devices/host-1/tls.key", "gateways/gw-1/tls.key"] {
        assert!(known(file), "no {file} among {:?}", secrets.0.keys());
    }
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let mut all = api.answers;
    all.insert("what `up` said".into(), said_by_up);
    all.insert("what commands and metrics showed".into(), shown);
    all.insert("the log".into(), read(&log));
    all.insert("host-1's log".into(), read(&site.dir.join("logs/host-1.log")));
    all.insert("replay-1's log".into(), read(&site.dir.join("logs/replay-1.log")));
    all.insert("the export of all events".into(), read(&everything));
    all.insert("traces".into(), collector.bodies());
    // Each of them has said something of what was done: else there would be nothing to look through.
    for (place, word) in [
        ("the log", "request refused"),
        ("the log", r#""level":"TRACE""#),
        ("host-1's log", "TRACE"),
        ("the export of all events", "token.create"),
        ("what commands and metrics showed", "plimsoll_alert_tellings_total"),
        ("traces", "take report"),
    ] {
        assert!(all[place].contains(word), "{place} has no {word}");
    }
    let mut told = Vec::new();
    for (place, text) in &all {
        for (name, at) in secrets.found(text) {
            let from = (0..=at.saturating_sub(200)).rev().find(|at| text.is_char_boundary(*at));
            told.push(format!("{place} has {name} after {:?}", &text[from.unwrap_or(0)..at]));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
    // The log is one object a line, with names that stay.
    let log = &all["the log"];
    // What dependencies trace are most of its lines, and all alike.
    let (traced, said): (Vec<&str>, Vec<&str>) =
        log.lines().partition(|line| line.contains(r#""level":"TRACE""#));
    let read = |line: &str| serde_json::from_str(line).expect("a line of JSON");
    let lines: Vec<Value> = traced.into_iter().take(1000).chain(said).map(read).collect();
    for line in &lines {
        for name in ["timestamp", "level", "target", "fields"] {
            assert!(line.get(name).is_some(), "no {name} in {line}");
        }
    }
    let refused = lines.iter().find(|line| line["fields"]["message"] == "request refused").unwrap();
    assert!(
        refused["fields"]["reason"].is_string() && refused["fields"]["status"].is_u64(),
        "{refused}"
    );
}
