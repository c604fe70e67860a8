//! A site with a maker, a control plane on a port of its own, and stations that call it.

use api::{Answer, Ask, Ownership, Problem, Query, QueryError, Role, Within, path};
use bus::{LogConfig, Shards};
use control::releases::Source;
use control::{Config, Control, DirectorConfig, Images, Limits};
use disk::{RealDisk, SharedDisk};
use keys::ca::{Authority, Profile};
use keys::est::{self, Operation, Purpose};
use keys::tls::{self, Alpn};
use keys::{NotAfter, UnixTime, csr, file};
use model::envelope::Algorithm;
use model::{DeviceId, GatewayId, KeyId, Timestamp};
use reqwest::{Method, StatusCode};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use trust::cose::{SecretKey, Signer as _};
use trust::mac::MacKey;

pub const SITE: &str = "site";
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub const BUS_KEY: MacKey = MacKey::new([7; 32]);
pub const SHARDS: u32 = 4;
pub const POLICIES: &str = policy::DEFAULT_POLICIES;

/// How a test wants its site to differ.
pub struct Setup {
    pub limits: Limits,
    pub policies: String,
    pub bus: LogConfig,
    pub bus_disk: SharedDisk,
    pub bus_dir: Option<PathBuf>,
    pub registries: Vec<prometheus::Registry>,
    /// The Director's online key; its offline ones are drawn anew for each start.
    pub director: SecretKey,
    /// The vendor's repository that control reads, and the first root that it trusts.
    pub images: Option<(Arc<dyn Source>, Vec<u8>)>,
    pub evidence_disk: SharedDisk,
    pub evidence_key: SecretKey,
    /// Who answers SQL.
    pub query: Arc<dyn Query>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            policies: POLICIES.to_owned(),
            bus: LogConfig {
                segment_bytes: 1 << 24,
                bytes_max: 1 << 28,
                record_bytes_max: control::BUS_RECORD_BYTES_MAX as u32,
            },
            bus_disk: Arc::new(RealDisk),
            bus_dir: None,
            registries: Vec::new(),
            director: secret(Algorithm::Ed25519),
            images: None,
            evidence_disk: Arc::new(RealDisk),
            evidence_key: SecretKey::from_random(Algorithm::Ed25519, &[9; 32]).unwrap(),
            query: Arc::new(Oracle),
        }
    }
}

pub struct World {
    pub dir: TempDir,
    pub site: Arc<Authority>,
    pub maker: Authority,
    pub shards: Shards,
    pub control: Control,
}

/// Far above what anything here takes: who is not done by then waits for what never comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("expected within {PATIENCE:?}: {what}"))
}

/// Seconds since 1970, `days` from now.
pub fn day(days: i64) -> UnixTime {
    let now = UnixTime::now().as_secs() as i64;
    UnixTime::since_unix_epoch(Duration::from_secs((now + days * 86_400) as u64))
}

pub fn secret(algorithm: Algorithm) -> SecretKey {
    file::draw(algorithm).unwrap()
}

impl World {
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = |name: &str| {
            let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
            let (key, cert) = (dir.path().join(key), dir.path().join(cert));
            Authority::load_or_create(&RealDisk, &key, &cert, name, day(-1)).unwrap()
        };
        let (site, maker) = (Arc::new(authority("site")), authority("maker"));
        let bus_dir = setup.bus_dir.clone().unwrap_or(dir.path().join("bus"));
        let shards = Shards::open(setup.bus_disk.clone(), &bus_dir, SHARDS, setup.bus, 64).unwrap();
        let control = start(&dir, &site, &maker, &shards, setup).await.unwrap();
        Self { dir, site, maker, shards, control }
    }

    /// The control plane ends and starts again on what it left.
    pub async fn restart(self, setup: Setup) -> Self {
        let Self { dir, site, maker, shards, control } = self;
        control.shutdown().await;
        let control = start(&dir, &site, &maker, &shards, setup).await.unwrap();
        Self { dir, site, maker, shards, control }
    }

    /// The control plane starts again, on another bus.
    pub async fn on_bus(self, disk: SharedDisk, bus_dir: &Path, bus: LogConfig) -> Self {
        let Self { dir, site, maker, shards, control } = self;
        control.shutdown().await;
        shards.close().await;
        let shards = Shards::open(disk, bus_dir, SHARDS, bus, 64).unwrap();
        let control = start(&dir, &site, &maker, &shards, Setup::default()).await.unwrap();
        Self { dir, site, maker, shards, control }
    }

    pub fn anchors(&self) -> Vec<Vec<u8>> {
        vec![self.site.certificate_der().to_vec()]
    }

    pub fn base(&self) -> String {
        format!("https://{}", self.control.local_addr())
    }

    pub fn http(&self, own: Option<&Certified>) -> reqwest::Client {
        let own = own.map(|own| (own.chain.as_slice(), &own.key));
        let tls = tls::client(own, &self.anchors(), Alpn::Http11).unwrap();
        reqwest::Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&tls))
            .no_proxy()
            // A connection that ends in the instant in which the request is handed to it may never answer
            // (hyperium/hyper#4122). A deadline of the whole request, which all our clients have, ends that too.
            .timeout(PATIENCE)
            .build()
            .unwrap()
    }

    pub fn est(&self, own: Option<&Certified>) -> est::Client {
        let own = own.map(|own| (own.chain.as_slice(), &own.key));
        est::Client::new(&self.base(), tls::client(own, &self.anchors(), Alpn::Http11).unwrap())
            .unwrap()
    }

    pub fn call(
        &self,
        own: Option<&Certified>,
        method: Method,
        path: &str,
    ) -> reqwest::RequestBuilder {
        self.http(own).request(method, format!("{}{path}", self.base()))
    }

    /// As an operator.
    pub fn operator(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.call(None, method, path).bearer_auth(TOKEN)
    }

    pub async fn list(&self, serial: &str, role: Role, zone: &str) {
        let entry = Ownership { serial: serial.into(), role, zone: zone.into(), group: None };
        self.control.list(&entry).await.unwrap();
    }

    /// What a factory gives a station.
    pub fn born(&self, serial: &str) -> Certified {
        let key = secret(Algorithm::Esp256);
        let profile = Profile::IDevId { serial: serial.into() };
        Certified::by(&self.maker, key, &profile, NotAfter::Never)
    }

    /// Listed, born and enrolled, with a TLS and a sealing key.
    pub async fn enrolled(&self, serial: &str, role: Role, zone: &str) -> Station {
        self.list(serial, role, zone).await;
        let born = self.born(serial);
        let key = secret(Algorithm::Esp256);
        let chain =
            self.enroll(&born, Operation::Enroll, Purpose::Tls, &key, serial).await.unwrap();
        let tls = Certified { chain, key };
        let seal = secret(Algorithm::Ed25519);
        self.enroll(&tls, Operation::Enroll, Purpose::Seal, &seal, serial).await.unwrap();
        Station { born, tls, seal, id: DeviceId::new(serial).unwrap() }
    }

    pub async fn device(&self, serial: &str) -> Station {
        self.enrolled(serial, Role::Device, "hall").await
    }

    pub async fn gateway(&self, serial: &str) -> Station {
        self.enrolled(serial, Role::Gateway, "hall").await
    }

    pub async fn enroll(
        &self,
        own: &Certified,
        operation: Operation,
        purpose: Purpose,
        key: &SecretKey,
        serial: &str,
    ) -> Result<Vec<Vec<u8>>, est::EstError> {
        let csr = csr::make(key, serial).unwrap();
        self.est(Some(own)).enroll(operation, purpose, &csr).await
    }

    /// Tells the operator's side to revoke, quarantine or release.
    pub async fn tell(&self, id: &DeviceId, verb: &str) -> Got {
        let path = format!("{}/{id}/{verb}", path::DEVICES);
        Got::of(self.operator(Method::POST, &path)).await
    }

    /// A sample of the metrics page, summed over all labels that begin so; 0 while there is none.
    pub fn metric(&self, name: &str) -> u64 {
        let page = control::metrics::page([&self.control.metrics()]).unwrap();
        let page = String::from_utf8(page).unwrap();
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{', ',']).then(|| rest.rsplit(' ').next().unwrap())
        });
        values.map(|value| value.parse::<f64>().unwrap() as u64).sum()
    }

    /// What a caller sees and what is counted come from two tasks: waits for the second.
    pub async fn counted(&self, name: &str, count: u64) {
        in_time(&format!("{name} {count}"), async {
            while self.metric(name) != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("plimsoll_control_refused_total{{reason=\"{reason}\"}}"))
    }
}

pub async fn start(
    dir: &TempDir,
    site: &Arc<Authority>,
    maker: &Authority,
    shards: &Shards,
    setup: Setup,
) -> Result<Control, control::StartError> {
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        site: SITE.into(),
        registry: dir.path().join("control/registry.sqlite"),
        authority: site.clone(),
        key: secret(Algorithm::Esp256),
        certificate: dir.path().join("control.pem"),
        makers: vec![maker.certificate_der().to_vec()],
        token: TOKEN.into(),
        policies: setup.policies,
        bus_key: BUS_KEY,
        director: DirectorConfig {
            roots: vec![director_root(&setup.director)],
            key: setup.director,
        },
        images: setup.images.map(|(source, root)| Images {
            source,
            first_root: Some(root),
            kept: dir.path().join("control/images"),
        }),
        evidence: control::config::Evidence {
            disk: setup.evidence_disk,
            dir: dir.path().join("control/evidence"),
            key: setup.evidence_key,
        },
        traces: Default::default(),
        limits: setup.limits,
    };
    let writers = shards.writers().to_vec();
    Control::start(config, setup.query, writers, setup.registries).await
}

/// A first root that lets `online` sign.
pub fn director_root(online: &SecretKey) -> Vec<u8> {
    let offline = [secret(Algorithm::Ed25519), secret(Algorithm::Ed25519)];
    control::director::first_root(&offline, online.public(), now()).unwrap()
}

/// Now, as control has it.
pub fn now() -> Timestamp {
    Timestamp(i64::try_from(UnixTime::now().as_secs()).unwrap() * 1_000_000)
}

/// A key with its certificate.
pub struct Certified {
    pub chain: Vec<Vec<u8>>,
    pub key: SecretKey,
}

impl Certified {
    pub fn by(by: &Authority, key: SecretKey, profile: &Profile, until: NotAfter) -> Self {
        let spki = key.public().to_spki_der();
        let chain = vec![by.issue(&spki, profile, day(-1), until).unwrap()];
        Self { chain, key }
    }
}

pub fn gateway_profile(id: &str) -> Profile {
    Profile::GatewayTls { gateway: GatewayId::new(id).unwrap(), site: SITE.into() }
}

pub struct Station {
    pub id: DeviceId,
    pub born: Certified,
    pub tls: Certified,
    pub seal: SecretKey,
}

impl Station {
    pub fn seal_id(&self) -> KeyId {
        self.seal.public().id()
    }
}

/// An answer.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Got {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let (http, request) = request.build_split();
        let request = request.unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let answer = http.execute(request).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let is_endless = headers.get("content-type").is_some_and(|t| t == "text/event-stream");
        let body = if is_endless { vec![] } else { answer.bytes().await.unwrap().to_vec() };
        let got = Self { status, headers, body };
        crate::contract::hold(&method, &path, &got);
        got
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The body of a refusal.
    pub fn problem(&self) -> Problem {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        problem
    }

    /// Status and reason of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let kind = self.problem().kind;
        let word = kind.strip_prefix("urn:plimsoll:problem:").unwrap().to_owned();
        (self.status.as_u16(), word)
    }
}

/// Answers questions by what they are.
struct Oracle;

impl Query for Oracle {
    fn query(
        &self,
        ask: Ask,
        _: Option<Arc<Within>>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, QueryError>> + Send + '_>> {
        Box::pin(async move {
            match ask.sql.as_str() {
                "select 1" => Ok(Answer {
                    columns: vec![api::Column { name: "one".into(), kind: "Int64".into() }],
                    rows: vec![vec![1.into()], vec![serde_json::Value::Null]],
                    truncated: true,
                    took_ms: 3,
                }),
                "select slow" => Err(QueryError::TooSlow { limit_ms: 7 }),
                "select large" => Err(QueryError::TooLarge("300 MB".into())),
                "select busy" => Err(QueryError::Busy { running: 2, waiting: 8 }),
                "select broken" => Err(QueryError::Failed("no catalog".into())),
                "select forever" => std::future::pending().await,
                other => Err(QueryError::BadSql(format!("no table in {other:?}"))),
            }
        })
    }
}
