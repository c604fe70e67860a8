//! A site in memory: its authorities, a control plane that speaks EST, bundles and uplink, and devices' keys.

use api::{Bundle, BundleDevice, BundleKey, Standing};
use disk::{Disk as _, SharedDisk, SimDisk};
use gateway::{Config, Gateway};
use keys::ca::{Authority, Profile};
use keys::tls::{Alpn, ClientAuth};
use keys::{Leaf, NotAfter, Role, UnixTime, csr, est, identity, pkcs7};
use model::envelope::{Algorithm, MESSAGE_BYTES_MAX, WallClock};
use model::uplink::{self, Verdict, encode_reply};
use model::{Counter, DeviceId, Header, Heard, Kind, Nonce, Timestamp};
use rustls::ClientConfig;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use trust::cose::{self, PublicKey, SecretKey, Signer as _};

pub const SITE: &str = "site";
pub const GATEWAY: &str = "gw-1";
/// The gateway's directory, on disks in memory.
pub const DIR: &str = "/gw";

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

fn days(n: i64) -> UnixTime {
    let seconds = UnixTime::now().as_secs().checked_add_signed(n * 86_400).unwrap();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub fn authority(name: &str) -> Authority {
    let disk = SimDisk::new(7);
    let (key, cert) = (Path::new("/ca.key"), Path::new("/ca.pem"));
    Authority::load_or_create(&disk, key, cert, name, days(-30)).unwrap()
}

pub fn secret(algorithm: Algorithm) -> SecretKey {
    keys::file::draw(algorithm).unwrap()
}

pub fn issue(by: &Authority, key: &SecretKey, profile: &Profile, until_days: i64) -> Vec<u8> {
    let spki = key.public().to_spki_der();
    by.issue(&spki, profile, days(-20), NotAfter::At(days(until_days))).unwrap()
}

/// A device: its TLS key, its sealing key, and the authority that it trusts.
pub struct Device {
    pub id: DeviceId,
    pub tls: SecretKey,
    pub chain: Vec<Vec<u8>>,
    pub seal: SecretKey,
    pub anchor: Vec<u8>,
}

impl Device {
    pub fn new(site: &Authority, id: &str) -> Self {
        let id = DeviceId::new(id).unwrap();
        let tls = secret(Algorithm::Esp256);
        let profile = Profile::DeviceTls { device: id.clone(), site: SITE.into() };
        let chain = vec![issue(site, &tls, &profile, 30)];
        let anchor = site.certificate_der().to_vec();
        Self { id, tls, chain, seal: secret(Algorithm::Ed25519), anchor }
    }

    /// TLS as this device, to a gateway of its site.
    pub fn shown(&self) -> Arc<ClientConfig> {
        crate::client::tls(Some((&self.chain, &self.tls)), &self.anchor)
    }

    pub fn entry(&self) -> BundleDevice {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let leaf = Leaf::parse(&self.chain[0]).unwrap();
        let public = self.seal.public();
        BundleDevice {
            id: self.id.to_string(),
            zone: "hall".into(),
            standing: Standing::Enrolled,
            tls_keys: vec![leaf.spki_sha256.to_string()],
            tls_keys_until_ms: Default::default(),
            seal_keys: vec![BundleKey {
                id: public.id().to_string(),
                spki: hex(&public.to_spki_der()),
            }],
        }
    }

    pub fn topic(&self) -> String {
        format!("plimsoll/1/{}/up", self.id)
    }

    pub fn header(&self, epoch: u32, sequence: u64, nonce: Option<Nonce>) -> Header {
        Header {
            algorithm: self.seal.public().algorithm(),
            kind: Kind::Readings,
            key: self.seal.public().id(),
            counter: Counter { epoch, sequence },
            uptime_ms: 1,
            // A device whose battery is flat: clocks decide nothing.
            wall: Some(WallClock { time: Timestamp(0), uncertainty_ms: u32::MAX }),
            heard: nonce.map(|nonce| Heard { nonce, lease: 0 }),
            prior: None,
        }
    }

    pub fn message(&self, epoch: u32, sequence: u64, nonce: Option<Nonce>) -> Vec<u8> {
        let payload = [0x81, 0xa2, 0x00, 0x61, b'a', 0x02, 0x01];
        cose::seal(&self.header(epoch, sequence, nonce), &payload, &self.seal).unwrap()
    }
}

/// What control does with the next calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mood {
    #[default]
    Takes,
    /// Hangs up on the uplink.
    Away,
    /// Answers the uplink with this status.
    Says(u16),
    /// Takes everything and answers for one record less.
    Miscounts,
    /// Answers each record with this.
    Judges(Verdict),
}

/// One record that control has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub device: String,
    pub sequence: u64,
    pub fresh: bool,
    pub bundle: u64,
    pub received_at: Timestamp,
}

#[derive(Default)]
struct State {
    mood: Mood,
    bundle: Option<Vec<u8>>,
    seal_keys: HashMap<model::KeyId, PublicKey>,
    /// Counters of batches under the gateway's keys, in order of arrival.
    batches: Vec<(model::KeyId, Counter)>,
    seals: Seals,
    certified_seals: usize,
    desk: Desk,
}

/// What control answers to what gateways ask in the name of devices.
#[derive(Clone, Debug)]
pub struct Desk {
    /// It hangs up on all of it.
    pub is_away: bool,
    /// Status, Retry-After and body of the answer to a check-in.
    pub check_in: (u16, Option<u64>, Vec<u8>),
    pub images: HashMap<String, Vec<u8>>,
    /// What it gives for a digest, which need not have it.
    pub blobs: HashMap<String, Vec<u8>>,
    /// It hangs up once, in the middle of an image: behind so many bytes of it.
    pub hangs_up_at: Option<usize>,
    /// It gives every image from its beginning on.
    pub ignores_ranges: bool,
    /// It does not say how long an image is.
    pub says_no_length: bool,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            is_away: false,
            check_in: (200, None, b"{\"format\":1}".to_vec()),
            images: HashMap::new(),
            blobs: HashMap::new(),
            hangs_up_at: None,
            ignores_ranges: false,
            says_no_length: false,
        }
    }
}

/// What EST says to who asks for a sealing certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Seals {
    #[default]
    Certifies,
    /// Certifies one, which ends today, and then refuses for the time being.
    CertifiesOneForToday,
    Refuses,
}

/// A site with one device, which its first bundle lets in, and its gateway on this disk.
pub async fn plant(disk: &SimDisk) -> (Arc<Site>, Device, Gateway) {
    plant_with(disk, |_| {}).await
}

pub async fn plant_with(
    disk: &SimDisk,
    change: impl FnOnce(&mut Config),
) -> (Arc<Site>, Device, Gateway) {
    let site = Site::start().await;
    let pump = site.device("pump-1");
    site.publish(vec![pump.entry()]);
    let gateway = site.gateway_with(disk, change).await;
    (site, pump, gateway)
}

pub struct Site {
    pub ca: Authority,
    pub maker: Authority,
    state: Mutex<State>,
    taken: watch::Sender<Vec<Taken>>,
    generation: watch::Sender<u64>,
    calls: watch::Sender<u64>,
    /// What was asked in the name of devices: the path, and what came with it.
    asked: watch::Sender<Vec<(String, Vec<u8>)>>,
    /// Up to where it gives images for now.
    gives: watch::Sender<usize>,
    pub control: SocketAddr,
}

impl Site {
    pub async fn start() -> Arc<Self> {
        let (ca, maker) = (authority("site"), authority("maker"));
        let key = secret(Algorithm::Esp256);
        let chain = vec![issue(&ca, &key, &Profile::Control { site: SITE.into() }, 30)];
        let anchors = vec![ca.certificate_der().to_vec(), maker.certificate_der().to_vec()];
        let tls = keys::tls::server(&chain, &key, &anchors, ClientAuth::Required, Alpn::Http11);
        let acceptor = TlsAcceptor::from(tls.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Arc::new(Self {
            ca,
            maker,
            state: Mutex::default(),
            taken: watch::channel(Vec::new()).0,
            generation: watch::channel(0).0,
            calls: watch::channel(0).0,
            asked: watch::channel(Vec::new()).0,
            gives: watch::channel(usize::MAX).0,
            control: listener.local_addr().unwrap(),
        });
        let serving = site.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (site, acceptor) = (serving.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    while site.serve(&mut stream).await.is_some() {}
                });
            }
        });
        site
    }

    /// A prepared gateway directory: a birth certificate and the site's authority.
    pub fn prepare(&self, disk: &SharedDisk, dir: &Path) {
        identity::prepare(disk, dir, GATEWAY).unwrap();
        let key = keys::file::load(&**disk, &dir.join("idevid.key")).unwrap();
        let idevid = issue(&self.maker, &key, &Profile::IDevId { serial: GATEWAY.into() }, 30);
        let anchors = [self.ca.certificate_der().to_vec()];
        identity::provision(disk, dir, &idevid, &anchors).unwrap();
    }

    pub fn config(&self) -> Config {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut config = Config::new(DIR, any, format!("https://{}", self.control));
        config.metrics = Some(any);
        config.disk_reserve_bytes = 0;
        config.retry_max = Duration::from_millis(400);
        config.bundle_wait = Duration::from_secs(2);
        config
    }

    pub fn device(&self, id: &str) -> Device {
        Device::new(&self.ca, id)
    }

    /// The gateway on this disk: born if there is none yet, started again if there is.
    pub async fn gateway(&self, disk: &SimDisk) -> Gateway {
        self.gateway_with(disk, |_| {}).await
    }

    pub async fn gateway_with(&self, disk: &SimDisk, change: impl FnOnce(&mut Config)) -> Gateway {
        let shared = disk.shared();
        if !shared.exists(Path::new("/gw/idevid.pem")).unwrap() {
            self.prepare(&shared, Path::new(DIR));
        }
        let mut config = self.config();
        change(&mut config);
        within("a gateway starts", Gateway::start(config, shared)).await.unwrap()
    }

    /// The next bundle names these devices, and the gateway has it.
    pub async fn lets_in(&self, gateway: &Gateway, devices: &[&Device]) {
        self.knows(gateway, devices.iter().map(|device| device.entry()).collect()).await;
    }

    /// The gateway has the next bundle, which says this.
    pub async fn knows(&self, gateway: &Gateway, entries: Vec<BundleDevice>) {
        let generation = self.publish(entries);
        eventually("the bundle is taken", || gateway.generation() == generation).await;
    }

    /// The next bundle.
    pub fn publish(&self, devices: Vec<BundleDevice>) -> u64 {
        let generation = *self.generation.borrow() + 1;
        self.publish_as(Bundle {
            format: 1,
            site: SITE.into(),
            generation,
            gateway: GATEWAY.into(),
            zone: "hall".into(),
            devices,
            policies: policy::DEFAULT_POLICIES.into(),
        });
        generation
    }

    /// Whatever control may call the next bundle.
    pub fn publish_as(&self, bundle: Bundle) {
        self.state().bundle = Some(serde_json::to_vec(&bundle).unwrap());
        self.generation.send_modify(|generation| *generation += 1);
    }

    pub fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub fn set_seals(&self, seals: Seals) {
        self.state().seals = seals;
    }

    /// How many sealing certificates were given.
    pub fn certified_seals(&self) -> usize {
        self.state().certified_seals
    }

    /// Waits until control has taken so many records.
    pub async fn has_taken(&self, records: usize) -> Vec<Taken> {
        let mut taken = self.taken.subscribe();
        let all = tokio::time::timeout(PATIENCE, taken.wait_for(|all| all.len() >= records));
        all.await
            .unwrap_or_else(|_| panic!("{records} records, found {:?}", self.taken.borrow()))
            .unwrap()
            .clone()
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.taken.borrow().clone()
    }

    /// Waits until the gateway has tried so many more times to hand something up.
    pub async fn was_called(&self, more: u64) {
        let mut calls = self.calls.subscribe();
        let wanted = *calls.borrow() + more;
        let called = tokio::time::timeout(PATIENCE, calls.wait_for(|calls| *calls >= wanted));
        called.await.expect("the gateway tries again").unwrap();
    }

    /// Changes what control answers to what devices ask for.
    pub fn desk(&self, change: impl FnOnce(&mut Desk)) {
        change(&mut self.state().desk);
    }

    /// What devices have asked for, as far as it came to control.
    pub fn asked(&self) -> Vec<(String, Vec<u8>)> {
        self.asked.borrow().clone()
    }

    /// An image that control gives out; its digest.
    pub fn image(&self, bytes: &[u8]) -> String {
        let digest = trust::digest(bytes).to_string();
        self.desk(|desk| drop(desk.blobs.insert(digest.clone(), bytes.to_vec())));
        digest
    }

    /// From now on images are given up to this byte, and no further until it is said again.
    pub fn gives_up_to(&self, byte: usize) {
        self.gives.send_replace(byte);
    }

    /// Waits until so much was asked for.
    pub async fn was_asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        within("control is asked", asked.wait_for(|asked| asked.len() >= times)).await.unwrap();
    }

    pub fn batches(&self) -> Vec<(model::KeyId, Counter)> {
        self.state().batches.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn serve(&self, stream: &mut TlsStream<TcpStream>) -> Option<()> {
        let leaf = Leaf::parse(stream.get_ref().1.peer_certificates()?.first()?).ok()?;
        let Request { path, range, body } = request(stream).await?;
        let (status, retry, body) = if path.starts_with(api::path::EST) {
            match self.enrol(&leaf, &path, &body) {
                Some(answer) => (200, None, answer),
                None => (503, Some(0), b"not now".to_vec()),
            }
        } else if path.starts_with(api::path::GATEWAY_BUNDLE) {
            assert_eq!(leaf.role.to_string(), format!("gateway {GATEWAY}"));
            match self.newer(&path).await {
                Some(bundle) => (200, None, bundle),
                None => (204, None, Vec::new()),
            }
        } else if path.starts_with(api::path::GATEWAY_CHECK_IN) {
            assert_eq!(leaf.role.to_string(), format!("gateway {GATEWAY}"));
            self.asked.send_modify(|asked| asked.push((path, body)));
            let desk = self.state().desk.clone();
            if desk.is_away {
                return None;
            }
            desk.check_in
        } else if let Some(name) = path.strip_prefix("/v1/gateway/images/") {
            assert_eq!(leaf.role.to_string(), format!("gateway {GATEWAY}"));
            self.asked.send_modify(|asked| asked.push((path.clone(), body)));
            // A slow line.
            self.gives.subscribe().wait_for(|gives| *gives > 0).await.ok()?;
            let desk = self.state().desk.clone();
            match desk.images.get(name) {
                _ if desk.is_away => return None,
                Some(file) => (200, None, file.clone()),
                None => (404, None, b"none".to_vec()),
            }
        } else if let Some(digest) = path.strip_prefix("/v1/gateway/blobs/sha256/") {
            assert_eq!(leaf.role.to_string(), format!("gateway {GATEWAY}"));
            let asked = range.clone().unwrap_or_default().into_bytes();
            self.asked.send_modify(|all| all.push((path.clone(), asked)));
            return self.give(stream, digest, range.as_deref()).await;
        } else {
            assert_eq!(path, api::path::GATEWAY_UPLINK);
            assert_eq!(leaf.role.to_string(), format!("gateway {GATEWAY}"));
            self.calls.send_modify(|calls| *calls += 1);
            let mood = self.state().mood.clone();
            match mood {
                Mood::Away => return None,
                Mood::Says(status) => (status, Some(0), b"not now".to_vec()),
                mood => match self.take(&body, &mood) {
                    Some(verdicts) => (200, None, verdicts),
                    None => (403, None, b"key_retired".to_vec()),
                },
            }
        };
        let retry = retry.map_or(String::new(), |s| format!("Retry-After: {s}\r\n"));
        let head = format!("HTTP/1.1 {status} X\r\n{retry}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
        stream.flush().await.ok()
    }

    /// An image, or what is behind `range` of it.
    async fn give(
        &self,
        stream: &mut TlsStream<TcpStream>,
        digest: &str,
        range: Option<&str>,
    ) -> Option<()> {
        let desk = self.state().desk.clone();
        if desk.is_away {
            return None;
        }
        let Some(bytes) = desk.blobs.get(digest) else {
            let none = b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(none).await.ok()?;
            return stream.flush().await.ok();
        };
        let from = range.filter(|_| !desk.ignores_ranges).map_or(0, |range| {
            range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
        });
        let all = bytes.len();
        if from >= all {
            let outside = format!(
                "HTTP/1.1 416 X\r\nContent-Range: bytes */{all}\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(outside.as_bytes()).await.ok()?;
            return stream.flush().await.ok();
        }
        let status = if from == 0 {
            "200 X".into()
        } else {
            format!("206 X\r\nContent-Range: bytes {from}-{}/{all}", all - 1)
        };
        let length = if desk.says_no_length {
            "Connection: close".into()
        } else {
            format!("Content-Length: {}", all - from)
        };
        let head = format!("HTTP/1.1 {status}\r\n{length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut gives = self.gives.subscribe();
        let mut at = from;
        while at < all {
            let to = all.min(*gives.borrow_and_update());
            let hangs_up = desk.hangs_up_at.filter(|end| (at..=to).contains(end));
            let to = hangs_up.unwrap_or(to);
            if to > at {
                stream.write_all(&bytes[at..to]).await.ok()?;
            }
            stream.flush().await.ok()?;
            at = at.max(to);
            if hangs_up.is_some() {
                self.desk(|desk| desk.hangs_up_at = None);
                return None;
            }
            if at < all {
                gives.changed().await.ok()?;
            }
        }
        (!desk.says_no_length).then_some(())
    }

    /// `None`: not now.
    fn enrol(&self, leaf: &Leaf, path: &str, body: &[u8]) -> Option<Vec<u8>> {
        let request = csr::read(&est::decode_body(body).unwrap()).unwrap();
        let mut until = days(300);
        let profile = if path.contains("/seal/") {
            assert!(matches!(leaf.role, Role::Gateway(_)));
            let mut state = self.state();
            match state.seals {
                Seals::Certifies => {}
                Seals::CertifiesOneForToday => (until, state.seals) = (days(0), Seals::Refuses),
                Seals::Refuses => return None,
            }
            // As control does: only the newest key counts.
            state.certified_seals += 1;
            state.seal_keys.clear();
            state.seal_keys.insert(request.public_key.id(), request.public_key.clone());
            Profile::Seal { name: DeviceId::new(GATEWAY).unwrap(), site: SITE.into() }
        } else {
            assert!(matches!(leaf.role, Role::IDevId { .. } | Role::Gateway(_)));
            let gateway = model::GatewayId::new(GATEWAY).unwrap();
            Profile::GatewayTls { gateway, site: SITE.into() }
        };
        let until = NotAfter::At(until);
        let der = self.ca.issue(&request.spki_der, &profile, days(-1), until).unwrap();
        Some(est::encode_body(&pkcs7::encode(&[der]).unwrap()).into_bytes())
    }

    async fn newer(&self, path: &str) -> Option<Vec<u8>> {
        let number = |name: &str| -> u64 {
            let query = path.split(['?', '&']).find_map(|part| part.strip_prefix(name));
            query.and_then(|text| text.strip_prefix('=')).unwrap().parse().unwrap()
        };
        let (after, wait) = (number("after"), number("wait_s"));
        let mut generation = self.generation.subscribe();
        let newer = generation.wait_for(|generation| *generation > after);
        tokio::time::timeout(Duration::from_secs(wait), newer).await.ok()?.ok()?;
        self.state().bundle.clone()
    }

    /// `None`: the batch is sealed by a key that was retired.
    fn take(&self, body: &[u8], mood: &Mood) -> Option<Vec<u8>> {
        let message = zstd::bulk::decompress(body, 8 << 20).unwrap();
        let unverified = cose::open(&message, 8 << 20).unwrap();
        let header = unverified.header().clone();
        assert_eq!(header.kind, Kind::UplinkBatch);
        let mut state = self.state();
        let verified = unverified.verify(state.seal_keys.get(&header.key)?).unwrap();
        let batch = uplink::Batch::decode(verified.payload()).unwrap();
        assert_eq!((batch.gateway.as_str(), batch.zone.as_str()), (GATEWAY, "hall"));
        state.batches.push((header.key, header.counter));
        let verdict = match mood {
            Mood::Judges(verdict) => *verdict,
            _ => Verdict::Stored,
        };
        let mut verdicts = vec![verdict; batch.records.len()];
        if *mood == Mood::Miscounts {
            verdicts.pop();
            return Some(encode_reply(&verdicts));
        }
        self.taken.send_modify(|taken| {
            taken.extend(batch.records.iter().map(|record| {
                let header = cose::open(&record.message, MESSAGE_BYTES_MAX).unwrap();
                Taken {
                    device: record.device.to_string(),
                    sequence: header.header().counter.sequence,
                    fresh: record.fresh,
                    bundle: batch.bundle,
                    received_at: record.received_at,
                }
            }));
        });
        Some(encode_reply(&verdicts))
    }
}

/// One HTTP/1.1 request.
struct Request {
    path: String,
    range: Option<String>,
    body: Vec<u8>,
}

async fn request(stream: &mut TlsStream<TcpStream>) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let length = header("content-length").map(|value| value.parse::<usize>().unwrap());
    let range = header("range");
    let mut body = bytes.split_off(head_len);
    while body.len() < length.unwrap_or(0) {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { path, range, body })
}

/// Somebody fills what is left of the disk to its last byte.
pub fn fill_up(disk: &SimDisk) {
    let bytes = ["/gw", "/gw/spool", "/gw/cache"].iter().map(Path::new).map(|dir| {
        let names = disk.list(dir).unwrap_or_default();
        names.iter().filter_map(|name| disk.len(&dir.join(name)).ok()).sum::<u64>()
    });
    disk.set_capacity(bytes.sum());
}

pub async fn stopped(gateway: Gateway) {
    within("the gateway ends", gateway.stop()).await.unwrap();
}

/// Waits for something that has an end.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Waits for something that is about to be so, and has no event of its own.
pub async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let waited = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, waited).await;
}
