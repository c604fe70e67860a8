//! Devices' HTTP: checking in, and its bounds. For images see `images.rs`.

use crate::client::{Client, connect};
use crate::site::{
    Device, GATEWAY, PATIENCE, SITE, eventually, plant, plant_with, stopped, within,
};
use api::{Problem, Standing};
use disk::SimDisk;
use keys::tls::{self, Alpn};
use model::manifest::{Manifest, Trusted};
use model::{DeviceId, Header, Kind};
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::cose;

/// A device's end of HTTP/1.1, by hand: it can also do what no device should.
pub struct Http {
    pub stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The last word of the problem's type.
    pub fn word(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        problem.kind.strip_prefix("urn:plimsoll:problem:").unwrap().to_owned()
    }
}

impl Http {
    pub async fn dial(at: SocketAddr, device: &Device) -> Self {
        let own = Some((&device.chain[..], &device.tls));
        let config = tls::client(own, std::slice::from_ref(&device.anchor), Alpn::Http11).unwrap();
        let stream = timeout(PATIENCE, TcpStream::connect(at)).await.unwrap().unwrap();
        let name = ServerName::try_from(format!("{GATEWAY}.gateway.{SITE}.internal")).unwrap();
        let connected = TlsConnector::from(config).connect(name, stream);
        let stream = within("TLS", connected).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(tls::HTTP11));
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        within("the gateway reads", written).await
    }

    /// The head of the next answer. `None`: the gateway has ended the connection.
    pub async fn head(&mut self) -> Option<(u16, String)> {
        let at = loop {
            if let Some(at) = self.buffer.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.buffer.drain(..at).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some((status, head))
    }

    /// Reads until so much of a body is there, or the connection has ended.
    pub async fn body(&mut self, len: usize) -> Vec<u8> {
        while self.buffer.len() < len && self.more().await.is_some() {}
        let len = len.min(self.buffer.len());
        self.buffer.drain(..len).collect()
    }

    async fn more(&mut self) -> Option<()> {
        let read = within("an answer", self.stream.read_buf(&mut self.buffer)).await;
        read.ok().filter(|len| *len > 0).map(drop)
    }

    /// The next answer, whole. `None`: the gateway has ended the connection before its end.
    pub async fn answer(&mut self) -> Option<Answer> {
        let (status, head) = self.head().await?;
        let mut answer = Answer { status, head, body: Vec::new() };
        let len: usize = answer.header("content-length").unwrap().parse().unwrap();
        while self.buffer.len() < len {
            self.more().await?;
        }
        answer.body = self.buffer.drain(..len).collect();
        Some(answer)
    }

    pub async fn ask(&mut self, request: &[u8]) -> Option<Answer> {
        // A gateway that has ended may have closed its socket already.
        let _ = self.send(request).await;
        self.answer().await
    }

    /// Whether the gateway ends the connection.
    pub async fn has_ended(&mut self) -> bool {
        self.buffer.clear();
        self.more().await.is_none()
    }
}

fn post(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: gw\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n").into_bytes()
}

fn check_in(message: &[u8]) -> Vec<u8> {
    post("/v1/checkin", "application/cose", message)
}

fn header(device: &Device, sequence: u64) -> Header {
    Header { kind: Kind::Manifest, heard: None, ..device.header(1, sequence, None) }
}

fn payload(of: &DeviceId) -> Vec<u8> {
    Manifest {
        device: of.clone(),
        components: vec![],
        director: Trusted::default(),
        images: Trusted::default(),
        outcome: None,
    }
    .encode()
}

/// A manifest as control would take it.
pub fn manifest(device: &Device, sequence: u64) -> Vec<u8> {
    cose::seal(&header(device, sequence), &payload(&device.id), &device.seal).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_in_comes_to_control_in_the_devices_name_and_its_answer_comes_back_unchanged() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let answer = b"{\"format\": 1,  \"lease\":\"AA==\", \"again_ms\":1}".to_vec();
    site.desk(|desk| desk.check_in = (200, None, answer.clone()));
    let mut http = Http::dial(gateway.local_addr(), &pump).await;
    for sequence in 0..3 {
        let message = manifest(&pump, sequence);
        let found = http.ask(&check_in(&message)).await.unwrap();
        assert_eq!((found.status, found.header("content-type")), (200, Some("application/json")));
        assert_eq!(found.body, answer);
        let asked = site.asked().pop().unwrap();
        assert_eq!(asked, ("/v1/gateway/checkin?device=pump-1".to_owned(), message));
    }
    // On the same port, at the same time, by the same key.
    let mut mqtt = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(mqtt.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0);
    assert_eq!(http.ask(&check_in(&manifest(&pump, 3))).await.unwrap().status, 200);
    assert_eq!(gateway.metrics().http_answers("checkin", 200), 4);
    stopped(gateway).await;
    assert!(http.has_ended().await);
}

/// INV-PURP-1, INV-AUTH-1: from a check-in that is handed on, each single change is refused for its own reason and never comes
/// to control. And a manifest is no reading: MQTT does not take it.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_in_with_one_thing_wrong_is_refused_for_that() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let other = site.device("pump-2");
    site.lets_in(&gateway, &[&pump, &other]).await;
    let at = gateway.local_addr();
    assert_eq!(
        Http::dial(at, &pump).await.ask(&check_in(&manifest(&pump, 0))).await.unwrap().status,
        200
    );
    let good = manifest(&pump, 1);
    let mut bit = good.clone();
    *bit.last_mut().unwrap() ^= 1;
    let of_other = cose::seal(&header(&pump, 1), &payload(&other.id), &pump.seal).unwrap();
    let broken = cose::seal(&header(&pump, 1), b"\xff", &pump.seal).unwrap();
    let long = [good.clone(), vec![0; api::update::CHECK_IN_BYTES_MAX]].concat();
    let chunked = b"POST /v1/checkin HTTP/1.1\r\nHost: gw\r\nContent-Type: application/cose\r\nTransfer-Encoding: chunked\r\n\r\n2001\r\n";
    let chunked = [&chunked[..], &[0; 0x2001], b"\r\n0\r\n\r\n"].concat();
    let table: &[(&str, u16, &str, Vec<u8>)] = &[
        ("a bit changed", 400, "bad_signature", check_in(&bit)),
        ("a reading", 400, "message_unknown_kind", check_in(&pump.message(1, 1, None))),
        ("another device's", 403, "unknown_key", check_in(&manifest(&other, 1))),
        ("of another device", 400, "message_other_device", check_in(&of_other)),
        ("no manifest", 400, "message_broken_cbor", check_in(&broken)),
        ("a byte behind it", 400, "message_trailing_bytes", check_in(&[&good[..], b"\0"].concat())),
        ("nothing", 400, "message_broken_cbor", check_in(b"")),
        ("too long", 413, "oversize", check_in(&long)),
        ("too long, of no stated length", 413, "oversize", chunked),
        (
            "of another kind",
            415,
            "unsupported_media_type",
            post("/v1/checkin", "text/plain", &good),
        ),
        ("another way", 405, "method_not_allowed", get("/v1/checkin")),
        ("another path", 404, "not_found", post("/v1/gateway/checkin", "application/cose", &good)),
        ("a query", 404, "not_found", post("/v1/checkin?device=pump-2", "application/cose", &good)),
    ];
    for (what, status, word, request) in table {
        let answer = Http::dial(at, &pump).await.ask(request).await.expect(what);
        assert_eq!((answer.status, answer.word().as_str()), (*status, *word), "{what}");
    }
    assert_eq!(site.asked().len(), 1, "none of them came to control");
    let counted = |refusal| gateway.metrics().refused(refusal);
    assert_eq!(counted(gateway::refusal::Refusal::MessageOtherDevice), 1);
    assert_eq!(counted(gateway::refusal::Refusal::BadSignature), 1);
    let mut mqtt = Client::connect(at, &pump).await;
    assert_eq!(mqtt.publish(&pump.topic(), 1, &good).await, 0x99);
    stopped(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_control_says_of_a_check_in_is_handed_on_and_its_trouble_is_said_as_not_now() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let mut http = Http::dial(gateway.local_addr(), &pump).await;
    let problem =
        serde_json::to_vec(&Problem::new(409, "replayed", "seen before", "expected more"));
    let says = |status, retry, body: &[u8]| {
        site.desk(|desk| desk.check_in = (status, retry, body.to_vec()));
    };
    says(409, None, &problem.unwrap());
    let answer = http.ask(&check_in(&manifest(&pump, 0))).await.unwrap();
    assert_eq!((answer.status, answer.word().as_str()), (409, "refused_by_control"));
    assert!(String::from_utf8_lossy(&answer.body).contains("seen before: expected more"));
    for (status, retry, expected) in [
        (503, Some(7), "7"),
        (503, None, "5"),
        (500, Some(100_000), "300"),
        (429, Some(0), "1"),
        (302, None, "5"),
    ] {
        says(status, retry, b"");
        let answer = http.ask(&check_in(&manifest(&pump, 0))).await.unwrap();
        assert_eq!((answer.status, answer.word().as_str()), (503, "control_away"), "{status}");
        assert_eq!(answer.header("retry-after"), Some(expected), "{status}");
    }
    site.desk(|desk| desk.is_away = true);
    let answer = http.ask(&check_in(&manifest(&pump, 0))).await.unwrap();
    assert_eq!((answer.status, answer.word().as_str()), (503, "control_away"));
    assert_eq!(gateway.metrics().check_ins_away.get(), 6);
    // An answer without end is none.
    says(200, None, &vec![b' '; api::update::CHECK_IN_ANSWER_BYTES_MAX + 1]);
    site.desk(|desk| desk.is_away = false);
    assert_eq!(http.ask(&check_in(&manifest(&pump, 0))).await.unwrap().status, 503);
    // The longest that there may be is given whole.
    let longest = vec![b' '; api::update::CHECK_IN_ANSWER_BYTES_MAX];
    says(200, None, &longest);
    assert_eq!(http.ask(&check_in(&manifest(&pump, 0))).await.unwrap().body, longest);
    stopped(gateway).await;
}

/// INV-AUTH-1: each request is judged by the newest bundle, and a connection is cut that it no longer lets in.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_bundle_cuts_a_connection_that_it_no_longer_lets_in() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let at = gateway.local_addr();
    let mut http = Http::dial(at, &pump).await;
    let mut mqtt = Client::connect(at, &pump).await;
    let ask = check_in(&manifest(&pump, 0));
    assert_eq!(http.ask(&ask).await.unwrap().status, 200);
    let known_as = async |standing| {
        site.knows(&gateway, vec![api::BundleDevice { standing, ..pump.entry() }]).await;
    };
    // Quarantined: it may still be told how to come back, and nothing else.
    known_as(Standing::Quarantined).await;
    assert_eq!(mqtt.end().await, Some(0x98));
    assert_eq!(http.ask(&ask).await.unwrap().status, 200);
    let refused =
        Client::dial(at, pump.shown()).await.unwrap().ask(&connect("pump-1")).await.unwrap();
    assert_eq!(refused[3], 0x87);

    known_as(Standing::Revoked).await;
    assert!(http.has_ended().await);
    let refused = gateway::refusal::Refusal::StandingChanged;
    assert_eq!(gateway.metrics().refused(refused), 2);
    let mut http = Http::dial(at, &pump).await;
    let answer = http.ask(&ask).await.unwrap();
    assert_eq!((answer.status, answer.word().as_str()), (403, "revoked"));
    assert!(http.has_ended().await);
    assert_eq!(site.asked().len(), 2);
    // A certificate that is the site's and no device's.
    let nobody = Device { chain: vec![], ..site.device("pump-3") };
    let profile = keys::ca::Profile::GatewayTls {
        gateway: model::GatewayId::new("gw-2").unwrap(),
        site: SITE.into(),
    };
    let nobody =
        Device { chain: vec![crate::site::issue(&site.ca, &nobody.tls, &profile, 30)], ..nobody };
    let answer = Http::dial(at, &nobody).await.ask(&ask).await.unwrap();
    assert_eq!((answer.status, answer.word().as_str()), (403, "not_a_device"));
    stopped(gateway).await;
}

/// INV-COST-1.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_a_silence_and_the_connections_of_a_device_are_bounded() {
    let (site, pump, gateway) = plant_with(&SimDisk::new(1), |config| {
        config.terms.connect_deadline = std::time::Duration::from_millis(300);
    })
    .await;
    let at = gateway.local_addr();
    let refused = |refusal| gateway.metrics().refused(refusal);
    use gateway::refusal::Refusal;

    let long = format!(
        "GET /v1/images/timestamp.json HTTP/1.1\r\nHost: gw\r\nX: {}\r\n\r\n",
        "x".repeat(9000)
    );
    let mut http = Http::dial(at, &pump).await;
    http.send(long.as_bytes()).await.unwrap();
    assert_eq!(http.head().await.unwrap().0, 431);
    assert!(http.has_ended().await);
    let many = format!("GET / HTTP/1.1\r\nHost: gw\r\n{}\r\n", "X: x\r\n".repeat(40));
    let mut http = Http::dial(at, &pump).await;
    http.send(many.as_bytes()).await.unwrap();
    assert_eq!(http.head().await.unwrap().0, 431);
    let mut http = Http::dial(at, &pump).await;
    http.send(b"\x10\x0c\0\x04MQTT\x05\x02\0\x3c\0").await.unwrap();
    assert!(http.head().await.is_none_or(|(status, _)| status == 400));
    eventually("what is not HTTP is counted", || refused(Refusal::HttpMalformed) == 3).await;

    let mut http = Http::dial(at, &pump).await;
    http.send(b"GET /v1/im").await.unwrap();
    assert!(http.has_ended().await, "a head that never ends");
    eventually("its end is counted", || refused(Refusal::HttpTimeout) == 1).await;

    // Who is done with us is no such thing.
    let mut http = Http::dial(at, &pump).await;
    assert_eq!(http.ask(&check_in(&manifest(&pump, 0))).await.unwrap().status, 200);
    assert!(http.has_ended().await);

    eventually("those before have ended", || gateway.metrics().connections.get() == 0).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        let mut http = Http::dial(at, &pump).await;
        assert_eq!(http.ask(&check_in(&manifest(&pump, 0))).await.unwrap().status, 200);
        all.push(http);
    }
    assert!(Http::dial(at, &pump).await.has_ended().await);
    assert_eq!((refused(Refusal::TooManyHttp), refused(Refusal::HttpTimeout)), (1, 1));
    drop(all);
    eventually("their places are free", || gateway.metrics().connections.get() == 0).await;
    let answer = Http::dial(at, &pump).await.ask(&check_in(&manifest(&pump, 0))).await;
    assert_eq!(answer.unwrap().status, 200);
    drop(site);
    stopped(gateway).await;
}
