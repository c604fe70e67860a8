//! Enrolment over real sockets: what goes over the wire, and what an answer may not be.

use disk::{SharedDisk, SimDisk};
use keys::ca::{Authority, Profile};
use keys::cert::{Issuers, NotAfter, Role};
use keys::est::{self, Client, EstError, Operation, Purpose, Server};
use keys::identity::{self, Identity, IdentityError, Settings, Station};
use keys::tls::{self, Alpn, ClientAuth};
use keys::{UnixTime, csr, file, pkcs7};
use model::DeviceId;
use model::envelope::Algorithm;
use rustls::ServerConfig;
use std::error::Error as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use trust::cose::Signer as _;

/// A site whose EST server is reached over TLS on this machine.
struct Site {
    site: Authority,
    maker: Authority,
    tls: Arc<ServerConfig>,
    seen: Mutex<Vec<String>>,
}

/// What was asked, and by whom.
struct Request {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
    caller: Option<Role>,
}

fn in_days(days: u64) -> UnixTime {
    let now = UnixTime::now().as_secs();
    UnixTime::since_unix_epoch(Duration::from_secs(now + days * 86_400))
}

fn authority(name: &str) -> Authority {
    let (key, cert) = (Path::new("/ca.key"), Path::new("/ca.pem"));
    Authority::load_or_create(&SimDisk::new(1), key, cert, name, in_days(0)).unwrap()
}

impl Site {
    fn new() -> Arc<Self> {
        let (site, maker) = (authority("site"), authority("maker"));
        let key = file::draw(Algorithm::Esp256).unwrap();
        let profile = Profile::Control { site: "site".into() };
        let until = NotAfter::At(in_days(1));
        let cert = site.issue(&key.public().to_spki_der(), &profile, in_days(0), until).unwrap();
        let anchors = [site.certificate_der().to_vec(), maker.certificate_der().to_vec()];
        let tls = tls::server(&[cert], &key, &anchors, ClientAuth::Optional, Alpn::Http11).unwrap();
        Arc::new(Self { site, maker, tls, seen: Mutex::default() })
    }

    fn anchors(&self) -> Vec<Vec<u8>> {
        vec![self.site.certificate_der().to_vec()]
    }

    /// A device with its birth certificate, on a disk of its own.
    fn device(&self) -> (SharedDisk, Settings) {
        let disk = SimDisk::new(1).shared();
        let dir = Path::new("/d");
        let request = csr::read(&identity::prepare(&disk, dir, "PUMP-1").unwrap()).unwrap();
        let profile = Profile::IDevId { serial: "PUMP-1".into() };
        let idevid =
            self.maker.issue(&request.spki_der, &profile, in_days(0), NotAfter::Never).unwrap();
        identity::provision(&disk, dir, &idevid, &self.anchors()).unwrap();
        let seal_algorithm = Algorithm::Ed25519;
        (disk, Settings { dir: dir.into(), station: Station::Device, seal_algorithm })
    }

    /// Serves until the test ends.
    async fn serve(
        self: &Arc<Self>,
        answer: impl Fn(&Site, Request) -> Vec<u8> + Send + Sync + 'static,
    ) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (site, answer) = (self.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (site, answer) = (site.clone(), answer.clone());
                // A caller that refuses us ends its own connection only.
                tokio::spawn(async move { site.one(stream, &*answer).await.ok() });
            }
        });
        url
    }

    async fn one(
        &self,
        stream: TcpStream,
        answer: &(dyn Fn(&Site, Request) -> Vec<u8> + Send + Sync),
    ) -> std::io::Result<()> {
        let mut stream = TlsAcceptor::from(self.tls.clone()).accept(stream).await?;
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            stream.read_buf(&mut bytes).await?;
        };
        let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
        let mut lines = text.split("\r\n").map(str::to_owned);
        let line = lines.next().unwrap();
        let headers: Vec<String> = lines.map(|line| line.to_ascii_lowercase()).collect();
        let length = headers.iter().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |text| text.parse().unwrap());
        let mut body = bytes.split_off(head + 4);
        while body.len() < length {
            stream.read_buf(&mut body).await?;
        }
        let anchors = [self.anchors(), vec![self.maker.certificate_der().to_vec()]];
        let [site, maker] = anchors;
        let issuers = Issuers::new("site", site, maker).unwrap();
        let peer = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
        let caller = peer.map(|der| issuers.identify(&der, UnixTime::now()).unwrap().role);
        let request = Request { line, headers, body, caller };
        stream.write_all(&answer(self, request)).await?;
        stream.shutdown().await
    }
}

/// What an EST server does when it says yes to everybody.
fn yes(site: &Site, request: Request) -> Vec<u8> {
    let asked = format!("{} as {}", request.line, request.caller.as_ref().unwrap());
    site.seen.lock().unwrap().push(asked);
    if request.line.starts_with("GET") {
        return certificates(&[site.site.certificate_der().to_vec()]);
    }
    assert!(request.headers.contains(&"content-type: application/pkcs10".to_owned()));
    assert!(!request.body.contains(&b'\n'), "strongSwan and others refuse line breaks");
    let csr = csr::read(&est::decode_body(&request.body).unwrap()).unwrap();
    let (device, site_name) = (DeviceId::new("pump-1").unwrap(), "site".to_owned());
    let profile = if request.line.contains("/seal/") {
        Profile::Seal { name: device, site: site_name }
    } else {
        Profile::DeviceTls { device, site: site_name }
    };
    let until = NotAfter::At(in_days(90));
    certificates(&[site.site.issue(&csr.spki_der, &profile, in_days(0), until).unwrap()])
}

fn certificates(ders: &[Vec<u8>]) -> Vec<u8> {
    let body = est::encode_body(&pkcs7::encode(ders).unwrap());
    // As foreign servers write it: in lines of 64 (RFC 7030 figures 6 and 8).
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    http(
        "200 OK",
        "Content-Type: application/pkcs7-mime; smime-type=certs-only\r\n",
        &lines.join("\r\n"),
    )
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

async fn enrol(site: &Site, url: &str) -> Result<Identity, IdentityError> {
    let (disk, settings) = site.device();
    let server = Server::new(url, site.anchors());
    identity::enrol_or_load(&disk, &settings, &server, UnixTime::now()).await
}

fn est_error(result: Result<Identity, IdentityError>) -> EstError {
    match result {
        Err(IdentityError::Est(error)) => error,
        other => panic!("expected an error of EST, found {other:?}"),
    }
}

#[tokio::test]
async fn a_device_enrols_rotates_and_renews_over_mutual_tls() {
    let site = Site::new();
    let url = site.serve(yes).await;
    let mut identity = enrol(&site, &url).await.unwrap();
    let server = Server::new(&url, site.anchors());
    let first = identity.seal().key.public().id();
    let second = identity.rotate_seal_key(&server, Algorithm::Esp256).await.unwrap();
    assert_ne!(first, second);
    identity.renew_tls(&server).await.unwrap();
    let client = Client::new(&url, identity.client_config(Alpn::Http11).unwrap()).unwrap();
    assert_eq!(client.cacerts().await.unwrap(), site.anchors());
    assert_eq!(
        *site.seen.lock().unwrap(),
        [
            "POST /.well-known/est/simpleenroll HTTP/1.1 as IDevID \"PUMP-1\"",
            "POST /.well-known/est/seal/simpleenroll HTTP/1.1 as device pump-1",
            "POST /.well-known/est/seal/simpleenroll HTTP/1.1 as device pump-1",
            "POST /.well-known/est/simplereenroll HTTP/1.1 as device pump-1",
            "GET /.well-known/est/cacerts HTTP/1.1 as device pump-1",
        ]
    );
}

#[tokio::test]
async fn an_answer_other_than_a_certificate_is_told_with_its_endpoint_and_reason() {
    let site = Site::new();
    let (ok, b64) = ("200 OK", "Content-Type: application/pkcs7-mime\r\n");
    let problem = "{\"title\":\"not listed\",\"detail\":\"expected a listed serial number\"}";
    let long = "A".repeat(est::ANSWER_BYTES_MAX + 4);
    let not_ours = certificates(&site.anchors());
    for (answer, expected, retry_s) in [
        (
            http("403 Forbidden", "", problem),
            format!("refused: expected status 200, found 403: {problem}"),
            None,
        ),
        (
            http("202 Accepted", "Retry-After: 60\r\n", ""),
            "has not decided yet: ask again in 60 s".into(),
            Some(60),
        ),
        (
            http("503 Busy", "Retry-After: 5\r\n", "x"),
            "is busy (503): ask again in 5 s: x".into(),
            Some(5),
        ),
        (
            http("302 Found", "Location: https://localhost/\r\n", ""),
            "refused: expected status 200, found 302: ".into(),
            None,
        ),
        (http(ok, b64, &long), "is longer than 65536 bytes".into(), None),
        (http(ok, b64, "<html>"), "is not what EST says: expected base64".into(), None),
        (http(ok, b64, "MAA="), "is not what EST says".into(), None),
    ] {
        let url = site.serve(move |_, _| answer.clone()).await;
        let error = est_error(enrol(&site, &url).await);
        let endpoint = format!("`{url}/.well-known/est/simpleenroll`");
        let told = error.to_string();
        assert!(told.contains(&endpoint) && told.ends_with(&expected), "{told}");
        assert_eq!(error.retry_after(), retry_s.map(Duration::from_secs), "{told}");
    }
    let url = site.serve(move |_, _| not_ours.clone()).await;
    assert!(matches!(enrol(&site, &url).await, Err(IdentityError::NotOurs)));
}

#[tokio::test]
async fn a_server_of_another_authority_or_without_tls_is_not_asked() {
    let (site, other) = (Site::new(), Site::new());
    let url = other.serve(yes).await;
    let error = est_error(enrol(&site, &url).await);
    assert!(matches!(error, EstError::Unreachable { .. }), "{error:?}");
    assert!(other.seen.lock().unwrap().is_empty());
    let plain = url.replace("https", "http");
    let error = est_error(enrol(&site, &plain).await);
    assert!(matches!(error, EstError::Unreachable { .. }), "{error:?}");
}

/// The clock stands still but for timers, so that half a minute takes no time.
#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_after_its_time() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let started = tokio::time::Instant::now();
    let error = est_error(enrol(&site, &url).await);
    assert!(started.elapsed() >= est::TIMEOUT, "{:?}", started.elapsed());
    assert!(started.elapsed() < est::TIMEOUT + Duration::from_secs(1));
    assert_eq!(error.retry_after(), Some(Duration::ZERO));
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    assert!(causes.iter().any(|cause| cause.contains("timed out")), "{causes:?}");
}

#[tokio::test]
async fn a_client_without_a_certificate_may_ask_for_the_authorities() {
    let site = Site::new();
    let url = site.serve(|site, request| {
        assert_eq!(request.caller, None);
        certificates(&site.anchors())
    });
    let tls = tls::client(None, &site.anchors(), Alpn::Http11).unwrap();
    let client = Client::new(&url.await, tls).unwrap();
    assert_eq!(client.cacerts().await.unwrap(), site.anchors());
    let request = csr::make(&file::draw(Algorithm::Esp256).unwrap(), "PUMP-1").unwrap();
    // What the server answers is a certificate, of another key: the caller who stores it must look.
    let answer = client.enroll(Operation::Enroll, Purpose::Tls, &request).await.unwrap();
    assert_eq!(answer, site.anchors());
}
