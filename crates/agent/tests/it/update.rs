//! The program itself, from an order to a process that runs: a vendor, a Director, a gateway that serves both, and a device
//! whose agent is the real one.

use crate::Site;
use crate::application::{AGENT, PATIENCE, executes, runs, until};
use crate::gateway::{self, Manners, Saw};
use crate::kit::{self, World};
use agent::counter::Counters;
use agent::launch::own_dir;
use api::base64::Base64;
use api::path;
use api::update::{CHECK_IN_BYTES_MAX, CheckIn};
use disk::{RealDisk, SharedDisk};
use keys::ca::Profile;
use keys::est::{Caller, Est, EstError, Operation, Purpose};
use keys::identity::{self, Settings, Station};
use keys::tls::{self, Alpn, ClientAuth, HTTP11};
use keys::{NotAfter, UnixTime, csr};
use model::envelope::{Algorithm, MESSAGE_BYTES_MAX};
use model::manifest::{Boot, Component, InstallEnd, Manifest};
use model::{Kind, ProductId, Timestamp, Value, Version, senml};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use trust::cose::{self, PublicKey, Signer as _};
use trust::tuf::{Order, Target};

const V1_0: Version = Version::new(1, 0, 0);
const V1_1: Version = Version::new(1, 1, 0);
const V1_2: Version = Version::new(1, 2, 0);

/// An application that says its number, until its standard input ends.
fn app(number: u32) -> Vec<u8> {
    format!("#!/bin/sh\necho '[{{\"n\":\"number\",\"v\":{number}}}]'\nexec cat\n").into_bytes()
}

/// A release of a product, as both repositories name it.
fn target(product: &str, version: Version, image: &[u8], rollout: Option<&str>) -> Target {
    let mut order: Order = kit::order(version, 1, rollout);
    order.release.product = ProductId::new(product).unwrap();
    Target::of(format!("{product}/{version}/{}.bin", kit::HARDWARE), image, order)
}

/// What the device enrols with.
impl Est for Site {
    async fn enroll(
        &self,
        _: Caller<'_>,
        _: Operation,
        purpose: Purpose,
        request: &[u8],
    ) -> Result<Vec<Vec<u8>>, EstError> {
        let (device, site) = (kit::device(), "site".to_owned());
        let profile = match purpose {
            Purpose::Tls => Profile::DeviceTls { device, site },
            Purpose::Seal => Profile::Seal { name: device, site },
        };
        let key = csr::read(request).unwrap().spki_der;
        let end = Duration::from_secs(UnixTime::now().as_secs() + 90 * 86_400);
        let end = NotAfter::At(UnixTime::since_unix_epoch(end));
        Ok(vec![self.authority.issue(&key, &profile, UnixTime::now(), end).unwrap()])
    }
}

/// A device that has enrolled. Returns the key under which it seals.
async fn enrolled(dir: &Path, site: &Site) -> PublicKey {
    let disk: SharedDisk = Arc::new(RealDisk);
    let request = identity::prepare(&disk, dir, "PUMP-7").unwrap();
    let key = csr::read(&request).unwrap().spki_der;
    let profile = Profile::IDevId { serial: "PUMP-7".into() };
    let idevid = site.authority.issue(&key, &profile, UnixTime::now(), NotAfter::Never).unwrap();
    identity::provision(&disk, dir, &idevid, &[site.anchor()]).unwrap();
    let settings = Settings {
        dir: dir.to_owned(),
        station: Station::Device,
        seal_algorithm: Algorithm::Ed25519,
    };
    let identity = identity::enrol_or_load(&disk, &settings, site, UnixTime::now()).await.unwrap();
    let key = identity.seal().key.public().clone();
    Counters::create(&*disk, dir, key.id()).unwrap();
    key
}

/// The road behind the gateway, and what came over it.
struct Road {
    world: Mutex<World>,
    leases: Mutex<u64>,
    seal: PublicKey,
    manifests: mpsc::UnboundedSender<Manifest>,
    mqtt: mpsc::UnboundedSender<Saw>,
    /// Digests of which bytes were asked for.
    asked: Mutex<Vec<String>>,
}

impl Road {
    fn check_in(&self, message: &[u8]) -> CheckIn {
        let (_, manifest) = trust::manifest::open(message, &self.seal, &kit::device()).unwrap();
        let trusted = manifest.director.targets;
        // The test may have ended.
        let _ = self.manifests.send(manifest);
        let world = self.world.lock().unwrap();
        let mut number = self.leases.lock().unwrap();
        *number += 1;
        let key = world.operator.key(trust::tuf::Role::Timestamp);
        let lease = Base64(world.lease_of(*number, now(), &key));
        let director = (trusted != world.generation).then(|| world.directed(kit::DEVICE));
        CheckIn { format: 1, lease, director, again_ms: 300 }
    }

    /// Status, `Content-Range` and body.
    fn answer(&self, request: &Request) -> (u16, String, Vec<u8>) {
        let under = |path: &str| request.path.strip_prefix(path)?.strip_prefix('/');
        if request.path == path::CHECK_IN {
            return (
                200,
                String::new(),
                serde_json::to_vec(&self.check_in(&request.body)).unwrap(),
            );
        }
        let world = self.world.lock().unwrap();
        if let Some(name) = under(path::IMAGES) {
            return match world.images.get(name) {
                Some(bytes) => (200, String::new(), bytes.clone()),
                None => (404, String::new(), vec![]),
            };
        }
        let digest = under(path::BLOBS).expect("nothing else is asked for");
        self.asked.lock().unwrap().push(digest.to_owned());
        let blob = &world.blobs[digest];
        match request.from {
            0 => (200, String::new(), blob.clone()),
            at => {
                let range = format!("bytes {at}-{}/{}", blob.len() - 1, blob.len());
                (206, range, blob[at..].to_vec())
            }
        }
    }
}

struct Request {
    path: String,
    from: usize,
    body: Vec<u8>,
}

async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, road: Arc<Road>) {
    for session in 0.. {
        let Ok((socket, _)) = listener.accept().await else { return };
        let (acceptor, road) = (TlsAcceptor::from(tls.clone()), road.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(HTTP11) {
                let _ = http(stream, &road).await;
            } else {
                let manners = Manners::default();
                let _ = gateway::converse(stream, session, "gw-1", &manners, &road.mqtt).await;
            }
        });
    }
}

async fn http(mut stream: TlsStream<TcpStream>, road: &Road) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        let len = field("content-length").map_or(0, |len| len.parse().unwrap());
        assert!(len <= CHECK_IN_BYTES_MAX);
        let mut body = vec![0; len];
        stream.read_exact(&mut body).await?;
        let from = field("range").map_or(0, |range| {
            let at = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
            at.parse().unwrap()
        });
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let (status, range, body) = road.answer(&Request { path, from, body });
        let range = if range.is_empty() { range } else { format!("content-range: {range}\r\n") };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{range}\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.flush().await?;
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(since.as_micros() as i64)
}

/// A device, its agent and everything behind it.
struct Plant {
    dir: tempfile::TempDir,
    address: SocketAddr,
    road: Arc<Road>,
    manifests: mpsc::UnboundedReceiver<Manifest>,
    mqtt: mpsc::UnboundedReceiver<Saw>,
    agent: Option<Child>,
    _site: Site,
}

impl Plant {
    async fn new() -> Self {
        let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
        let seal = enrolled(dir.path(), &site).await;
        let (chain, key) = site.gateway("gw-1");
        let alpn = Alpn::MqttOrHttp11;
        let tls = tls::server(&chain, &key, &[site.anchor()], ClientAuth::Required, alpn).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = World::new(now(), &[]);
        let roots = world.first_roots();
        std::fs::write(dir.path().join("director-root.json"), &roots[0]).unwrap();
        std::fs::write(dir.path().join("image-root.json"), &roots[1]).unwrap();
        let (manifests_out, manifests) = mpsc::unbounded_channel();
        let (mqtt_out, mqtt) = mpsc::unbounded_channel();
        let road = Arc::new(Road {
            world: Mutex::new(world),
            leases: Mutex::new(0),
            seal,
            manifests: manifests_out,
            mqtt: mqtt_out,
            asked: Mutex::default(),
        });
        tokio::spawn(serve(listener, tls, road.clone()));
        Self { dir, address, road, manifests, mqtt, agent: None, _site: site }
    }

    /// In the factory.
    fn provision(&self, product: &str, image: &[u8]) {
        let file = self.dir.path().join("factory");
        std::fs::write(&file, image).unwrap();
        let data = self.dir.path().to_str().unwrap();
        let status = Command::new(AGENT)
            .args(["provision", "--data", data, "--product", product, "--hardware", kit::HARDWARE])
            .args(["--release", "1.0.0", "--security-version", "1"])
            .arg(&file)
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::remove_file(file).unwrap();
    }

    /// `launch` before it: what starts the agent.
    fn start(&mut self, before: &[&str], with: &[&str]) {
        let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let agent = Command::new(AGENT)
            .args(before)
            .args(["run", "--data", &path(""), "--est", "https://127.0.0.1:1"])
            .args(["--gateway", &format!("gw-1@{}", self.address), "--interval-ms", "60000"])
            .args(["--director-root", &path("director-root.json")])
            .args(["--image-root", &path("image-root.json")])
            .args(["--check-in-ms", "300", "--trial-ms", "60000", "--end-with-stdin"])
            .args(with)
            .stdin(Stdio::piped())
            .spawn();
        self.agent = Some(agent.unwrap());
    }

    /// The vendor publishes all these, and the operator orders some of them.
    fn order(&self, published: &[(Target, Vec<u8>)], ordered: &[Target]) {
        let mut world = self.road.world.lock().unwrap();
        let targets: Vec<Target> = published.iter().map(|(target, _)| target.clone()).collect();
        let version = world.generation;
        world.publish(version, &targets);
        world.blobs = published
            .iter()
            .map(|(_, image)| (trust::digest(image).to_string(), image.clone()))
            .collect();
        world.direct(ordered);
    }

    /// The next manifest in which it is so, as the device's word on one product.
    async fn until(
        &mut self,
        product: &str,
        is_so: impl Fn(&Manifest, &Component) -> bool,
    ) -> Manifest {
        let mut newest = None;
        let found = async {
            loop {
                let manifest = self.manifests.recv().await.expect("the road stays");
                let me = component(&manifest, product);
                if me.is_some_and(|me| is_so(&manifest, me)) {
                    return manifest;
                }
                newest = Some(manifest);
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await.ok();
        found.unwrap_or_else(|| panic!("not told within a minute; the newest word: {newest:#?}"))
    }

    /// The next reading of a series that came to the gateway.
    async fn reading(&mut self, series: &str) -> Value {
        let found = async {
            loop {
                let Some(Saw::Publish { envelope, .. }) = self.mqtt.recv().await else { continue };
                let open = cose::open(&envelope, MESSAGE_BYTES_MAX).unwrap();
                let verified = open.verify(&self.road.seal).unwrap();
                if verified.header().kind != Kind::Readings {
                    continue;
                }
                let readings = senml::decode(verified.payload()).unwrap();
                let found = readings.into_iter().find(|r| r.series.as_str() == series);
                if let Some(reading) = found {
                    return reading.value;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {series}"))
    }

    async fn end(mut self) {
        let mut agent = self.agent.take().unwrap();
        drop(agent.stdin.take());
        // The gateway goes on meanwhile: what the agent has left is acknowledged.
        let ended = tokio::task::spawn_blocking(move || {
            let mut status = None;
            until("it ends", || {
                status = agent.try_wait().unwrap();
                status.is_some()
            });
            status.unwrap()
        });
        assert!(ended.await.unwrap().success());
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

fn component<'a>(manifest: &'a Manifest, product: &str) -> Option<&'a Component> {
    manifest.components.iter().find(|me| me.product.as_str() == product)
}

fn runs_confirmed(version: Version) -> impl Fn(&Manifest, &Component) -> bool {
    move |_, me| me.running_image().version == version && me.boot == Boot::Confirmed
}

fn has_ended(end: InstallEnd) -> impl Fn(&Manifest, &Component) -> bool {
    move |manifest, _| manifest.outcome.as_ref().is_some_and(|outcome| outcome.end == end)
}

const APP: [&str; 2] = ["--app", kit::PRODUCT];

#[tokio::test]
async fn a_release_that_is_ordered_runs_and_the_device_says_so_under_its_own_key() {
    let mut plant = Plant::new().await;
    plant.provision(kit::PRODUCT, &app(10));
    plant.start(&[], &APP);
    plant.until(kit::PRODUCT, runs_confirmed(V1_0)).await;
    assert_eq!(plant.reading("app/number").await, Value::Int(10));
    let next = target(kit::PRODUCT, V1_1, &app(11), Some("r-1"));
    plant.order(&[(next.clone(), app(11))], &[next]);
    let manifest = plant.until(kit::PRODUCT, has_ended(InstallEnd::Confirmed)).await;
    let me = component(&manifest, kit::PRODUCT).unwrap();
    assert!(runs_confirmed(V1_1)(&manifest, me), "{manifest:#?}");
    assert_eq!(me.running_image().digest, trust::digest(&app(11)));
    let outcome = manifest.outcome.unwrap();
    assert_eq!(outcome.rollout.unwrap().as_str(), "r-1");
    while plant.reading("app/number").await != Value::Int(11) {}
    plant.end().await;
}

#[tokio::test]
async fn a_release_that_fails_its_own_check_is_taken_back_once_and_its_end_is_told_with_a_reason() {
    let mut plant = Plant::new().await;
    plant.provision(kit::PRODUCT, &app(10));
    plant.start(&[], &APP);
    let tries = plant.dir.path().join("tries");
    let bad = format!("#!/bin/sh\necho x >> {}\nexit 3\n", tries.display()).into_bytes();
    let order = target(kit::PRODUCT, V1_2, &bad, Some("r-2"));
    plant.order(&[(order.clone(), bad)], &[order]);
    let manifest = plant.until(kit::PRODUCT, has_ended(InstallEnd::Reverted)).await;
    let me = component(&manifest, kit::PRODUCT).unwrap();
    assert_eq!((me.running_image().version, me.boot), (V1_0, Boot::Reverted));
    let reason = manifest.outcome.unwrap().reason;
    assert!(reason.contains("ended with code 3"), "{reason}");
    // The order stands, and the device is not fooled twice.
    for _ in 0..4 {
        plant.until(kit::PRODUCT, has_ended(InstallEnd::Reverted)).await;
    }
    assert_eq!(std::fs::read_to_string(tries).unwrap(), "x\n");
    plant.end().await;
}

#[tokio::test]
async fn while_its_rollout_is_halted_a_release_is_fetched_and_not_started() {
    let mut plant = Plant::new().await;
    plant.provision(kit::PRODUCT, &app(10));
    let next = target(kit::PRODUCT, V1_1, &app(11), Some("r-1"));
    let rollout = kit::order(V1_1, 1, Some("r-1")).rollout.unwrap();
    plant.road.world.lock().unwrap().halted = vec![rollout];
    plant.order(&[(next.clone(), app(11))], &[next]);
    plant.start(&[], &APP);
    plant.until(kit::PRODUCT, has_ended(InstallEnd::Underway)).await;
    for _ in 0..6 {
        let manifest = plant.until(kit::PRODUCT, |_, _| true).await;
        let me = component(&manifest, kit::PRODUCT).unwrap();
        assert_eq!((me.running_image().version, me.boot), (V1_0, Boot::Confirmed));
        assert_eq!(me.slots[1], None, "nothing is armed");
    }
    assert_eq!(*plant.road.asked.lock().unwrap(), [trust::digest(&app(11)).to_string()]);
    plant.road.world.lock().unwrap().halted.clear();
    plant.until(kit::PRODUCT, runs_confirmed(V1_1)).await;
    // It was there all the time.
    assert_eq!(plant.road.asked.lock().unwrap().len(), 1);
    plant.end().await;
}

/// The same executable with some bytes behind it is another release of the agent.
#[tokio::test]
async fn an_agent_replaces_itself_and_comes_back_when_the_new_one_is_bad() {
    const PRODUCT: &str = agent::launch::PRODUCT;
    let mut plant = Plant::new().await;
    let image = std::fs::read(AGENT).unwrap();
    plant.provision(PRODUCT, &image);
    let data = plant.dir.path().to_str().unwrap().to_owned();
    plant.start(&["launch", "--data", &data, "--end-with-stdin", "--"], &[]);
    plant.until(PRODUCT, runs_confirmed(V1_0)).await;
    let launcher = plant.agent.as_ref().unwrap().id();
    let slot = |name: &str| std::fs::canonicalize(own_dir(Path::new(&data)).join(name)).unwrap();
    let first = child_of(launcher);
    assert_eq!(executes(first), Some(slot("slot-a")));

    let second_image = [&image[..], b"and some more"].concat();
    let good = target(PRODUCT, V1_1, &second_image, Some("r-1"));
    let good = (good, second_image.clone());
    plant.order(std::slice::from_ref(&good), std::slice::from_ref(&good.0));
    plant.until(PRODUCT, runs_confirmed(V1_1)).await;
    let second = child_of(launcher);
    assert!(second != first && !runs(first));
    assert_eq!(executes(second), Some(slot("slot-b")));
    assert!(std::fs::read(format!("/proc/{second}/exe")).unwrap() == second_image);

    // One that ends at once. It may have been the power, so it is tried a second time; then its order is over.
    let tries = plant.dir.path().join("tries");
    let bad = format!("#!/bin/sh\necho x >> {}\nexit 1\n", tries.display()).into_bytes();
    let order = target(PRODUCT, V1_2, &bad, Some("r-2"));
    plant.order(&[good, (order.clone(), bad)], &[order]);
    let manifest = plant.until(PRODUCT, has_ended(InstallEnd::Reverted)).await;
    let me = component(&manifest, PRODUCT).unwrap();
    assert_eq!((me.running_image().version, me.boot), (V1_1, Boot::Reverted));
    assert_eq!(executes(child_of(launcher)), Some(slot("slot-b")));
    assert_eq!(std::fs::read_to_string(tries).unwrap(), "x\nx\n");
    plant.end().await;
}

/// The one process that a launcher has started.
fn child_of(launcher: u32) -> u32 {
    let children = format!("/proc/{launcher}/task/{launcher}/children");
    let children = std::fs::read_to_string(children).unwrap();
    children.trim().parse().expect("one child")
}
