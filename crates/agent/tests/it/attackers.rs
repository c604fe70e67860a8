//! A device that updates itself through gateways that do as they are told: real TLS and HTTP, real metadata, real processes out of
//! slots. Attackers are gateways, or whoever sits behind one: each test starts from an update that works and changes one thing.

use crate::Site;
use crate::application::{AGENT, PATIENCE};
use crate::kit::{self, DEVICE, World, device, hardware, product, secret, target};
use agent::application::{self, Config};
use agent::clock::{FLOOR, SystemClock};
use agent::link::Place;
use agent::pack::Sample;
use agent::update::checkin::SealKey;
use agent::update::driver::{self, Part, Settings, UpdateError, Updater};
use agent::update::metrics::METRICS_FILE;
use agent::update::product::{Factory, Product};
use api::base64::Base64;
use api::update::CheckIn;
use disk::{Disk, File, RealDisk, SharedDisk};
use keys::ca::Profile;
use keys::tls::{self, Alpn, ClientAuth};
use model::manifest::{Boot, InstallEnd, Manifest};
use model::{RolloutId, SecurityVersion, Timestamp, Value, Version};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use trust::cose::{PublicKey, Signer as _};
use trust::tuf::{Custom, Role};

const V: fn(u32) -> Version = |minor| Version::new(1, minor, 0);
const NOW: Timestamp = Timestamp(FLOOR.as_us() + 1_000_000);
const SEAL: u8 = 99;
const EPOCH: u32 = 4;

/// A real disk on which, at times, nothing more fits under `update`.
#[derive(Debug)]
struct Small {
    full: Arc<AtomicBool>,
}

impl Small {
    fn room(&self, path: &Path) -> io::Result<()> {
        let is_full = self.full.load(Ordering::Relaxed) && path.iter().any(|n| n == "update");
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for Small {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.room(path)?;
        RealDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.room(path)?;
        RealDisk.open(path)
    }

    fn read_at(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        RealDisk.read_at(path, offset, into)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        RealDisk.len(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn write_again(&self, path: &Path, from: u64) -> io::Result<()> {
        RealDisk.write_again(path, from)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

/// What lies behind the gateways, and what becomes of it on the way.
struct Town {
    world: World,
    /// Manifests that came, with their sequence.
    seen: Vec<(u64, Manifest)>,
    /// What a gateway makes of an answer.
    answer: fn(&mut World, CheckIn) -> CheckIn,
    /// Of an image.
    blob: fn(Vec<u8>) -> Vec<u8>,
    /// An answer with an image ends after so many bytes, once.
    breaks_at: Option<usize>,
    /// What the first gateway alone makes of an answer.
    first_answer: fn(&mut World, CheckIn) -> CheckIn,
    /// The first gateway gives some bytes of its own instead of an image, and breaks off.
    first_poisons: bool,
    trial_ms: u64,
    halt_within_ms: u64,
    /// Where images were asked for.
    ranges: Vec<u64>,
    seal: PublicKey,
    /// Whether the device is given first roots.
    gives_roots: bool,
}

/// A gateway's HTTP.
struct Gateway {
    address: SocketAddr,
}

impl Gateway {
    async fn start(name: &str, site: &Site, town: Arc<Mutex<Town>>, works: bool) -> Self {
        let (chain, key) = site.gateway(name);
        let alpn = Alpn::Http11;
        let config =
            tls::server(&chain, &key, &[site.anchor()], ClientAuth::Required, alpn).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_first = name == "gw-1";
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, town) = (TlsAcceptor::from(config.clone()), town.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        // Who hangs up has no use for an answer.
                        let _ = answer(stream, &town, works, is_first).await;
                    }
                });
            }
        });
        Self { address }
    }
}

/// One request, one answer.
async fn answer(
    mut stream: TlsStream<TcpStream>,
    town: &Mutex<Town>,
    works: bool,
    is_first: bool,
) -> std::io::Result<()> {
    let (head, body) = request(&mut stream).await?;
    let (status, headers, mut body) = match works {
        true => respond(&mut town.lock().unwrap(), &head, &body, is_first),
        false => (503, "Retry-After: 1\r\n".to_owned(), Vec::new()),
    };
    let mut end = body.len();
    if head.contains("/blobs/") {
        let town = &mut town.lock().unwrap();
        end = town.breaks_at.take().unwrap_or(end);
        if is_first && town.first_poisons {
            body.fill(7);
            end /= 2;
        }
    }
    let sent = &body[..end];
    let head = format!(
        "HTTP/1.1 {status} -\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(sent).await?;
    stream.shutdown().await
}

async fn request(stream: &mut TlsStream<TcpStream>) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

fn respond(town: &mut Town, head: &str, body: &[u8], is_first: bool) -> (u16, String, Vec<u8>) {
    let path = head.split(' ').nth(1).unwrap();
    let found = |bytes: Option<Vec<u8>>| match bytes {
        Some(bytes) => (200, String::new(), bytes),
        None => (404, String::new(), Vec::new()),
    };
    if path == api::path::CHECK_IN {
        let opened = trust::manifest::open(body, &town.seal, &device());
        let (header, manifest) = opened.expect("a device's own manifest");
        assert_eq!(header.counter.epoch, EPOCH);
        let before = town.seen.last().map(|(sequence, _)| *sequence);
        assert!(before.is_none_or(|before| before < header.counter.sequence), "never twice");
        let answer = town.world.answer(manifest.director.targets);
        town.seen.push((header.counter.sequence, manifest));
        let mut answer = (town.answer)(&mut town.world, answer);
        if is_first {
            answer = (town.first_answer)(&mut town.world, answer);
        }
        return (200, String::new(), serde_json::to_vec(&answer).unwrap());
    }
    if let Some(name) = path.strip_prefix("/v1/images/") {
        return found(town.world.images.get(name).cloned());
    }
    let digest = path.strip_prefix("/v1/blobs/sha256/").expect("nothing else is asked for");
    let blob = town.world.blobs.get(digest).cloned().map(town.blob);
    let Some(range) = header(head, "range") else {
        town.ranges.push(0);
        return found(blob);
    };
    let first: usize = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
    town.ranges.push(first as u64);
    let blob = blob.unwrap();
    let span = format!("Content-Range: bytes {first}-{}/{}\r\n", blob.len() - 1, blob.len());
    (206, span, blob[first..].to_vec())
}

/// A device at work.
struct Rig {
    town: Arc<Mutex<Town>>,
    dir: tempfile::TempDir,
    /// Nothing more fits where images and journals lie.
    full: Arc<AtomicBool>,
    samples: mpsc::Receiver<Sample>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<(), UpdateError>>,
    _ends: (watch::Sender<Arc<rustls::ClientConfig>>, watch::Sender<SealKey>),
}

impl Rig {
    /// The device runs 1.0.0; the vendor has published 1.0.0 to 1.2.0. The first gateway may be one that does not work.
    async fn start(first_works: bool, change: impl FnOnce(&mut Town)) -> Self {
        let published = [target(V(0), 1, None), target(V(1), 1, None), target(V(2), 1, None)];
        let seal = secret(SEAL);
        let mut town = Town {
            world: World::new(NOW, &published),
            seen: Vec::new(),
            answer: |_, answer| answer,
            blob: |blob| blob,
            breaks_at: None,
            first_answer: |_, answer| answer,
            first_poisons: false,
            trial_ms: 60_000,
            halt_within_ms: 600_000,
            ranges: Vec::new(),
            seal: seal.public().clone(),
            gives_roots: true,
        };
        change(&mut town);
        let (dir, site) = (tempfile::tempdir().unwrap(), Site::new());
        let path = |name: &str| dir.path().join(name);
        for (name, root) in ["director.json", "images.json"].iter().zip(town.world.first_roots()) {
            std::fs::write(path(name), root).unwrap();
        }
        std::fs::write(path("first"), kit::image(V(0))).unwrap();
        let full = Arc::new(AtomicBool::new(false));
        let disk: SharedDisk = Arc::new(Small { full: full.clone() });
        let first = Factory {
            product: product(),
            hardware: hardware(),
            version: V(0),
            security_version: SecurityVersion(1),
            image: path("first"),
        };
        Product::provision(&disk, dir.path(), &first).unwrap();
        let Town { gives_roots, trial_ms, halt_within_ms, .. } = town;
        let town = Arc::new(Mutex::new(town));
        let mut gateways = Vec::new();
        for (name, works) in [("gw-1", first_works), ("gw-2", true)] {
            let gateway = Gateway::start(name, &site, town.clone(), works).await;
            let address = gateway.address.to_string();
            gateways.push(Place { name: name.parse().unwrap(), address });
        }
        let device_tls = Profile::DeviceTls { device: device(), site: "site".into() };
        let (chain, key) = site.issue(&device_tls);
        let tls = tls::client(Some((&chain, &key)), &[site.anchor()], Alpn::Http11).unwrap();
        let mut config = Config::new(product(), Vec::new());
        // Longer than a shell takes to start and to end on a machine that is busy.
        config.settings.health.alive_ms = 1_000;
        config.settings.trial_ms = trial_ms;
        config.attendant = AGENT.into();
        let (samples_out, samples) = mpsc::channel(1024);
        let application = application::start(config, Arc::new(SystemClock), samples_out);
        let part = Part {
            product: product(),
            orders: application.orders,
            news: application.news,
            counts: application.counts,
            launched: None,
        };
        let (tls_out, tls) = watch::channel(tls);
        let (seal_out, seal) = watch::channel(SealKey { signer: Arc::new(seal), epoch: EPOCH });
        let (stop, stopped) = watch::channel(false);
        let updater = Updater {
            disk,
            data: dir.path().to_owned(),
            clock: Arc::new(SystemClock),
            device: device(),
            site: "site".into(),
            gateways,
            tls,
            seal,
            parts: vec![part],
            settings: Settings {
                director_root: gives_roots.then(|| path("director.json")),
                image_root: gives_roots.then(|| path("images.json")),
                check_in_ms: 250,
                halt_within_ms,
                download_rate: None,
            },
            stop: stopped,
        };
        let thread = std::thread::spawn(move || driver::run(updater));
        Self { town, dir, full, samples, stop, thread, _ends: (tls_out, seal_out) }
    }

    fn town(&self) -> MutexGuard<'_, Town> {
        self.town.lock().unwrap()
    }

    fn metrics(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(METRICS_FILE)).unwrap_or_default()
    }

    /// The value of a row of `metrics.prom`.
    fn metric(&self, row: &str) -> u64 {
        let text = self.metrics();
        let found = text.lines().find_map(|line| line.strip_prefix(row)?.trim().parse().ok());
        found.unwrap_or(0)
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let seen = self.town().seen.last().cloned();
            assert!(start.elapsed() < PATIENCE, "{what}: {seen:?}\n{}", self.metrics());
            // Not to wait for a time: what is asked about is another thread's, and the application's tasks run here.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// So many check-ins more than there were.
    async fn check_ins(&self, n: usize) {
        let before = self.town().seen.len();
        self.until("check-ins", |rig| rig.town().seen.len() >= before + n).await;
    }

    async fn until_told(&self, rollout: &str, end: InstallEnd) -> Manifest {
        let told = |rig: &Self| {
            let town = rig.town();
            let (_, manifest) = town.seen.last()?;
            let outcome = manifest.outcome.as_ref()?;
            let of = outcome.rollout.as_ref().is_some_and(|id| id.as_str() == rollout);
            (of && outcome.end == end).then(|| manifest.clone())
        };
        self.until(&format!("{rollout} {}", end.as_str()), |rig| told(rig).is_some()).await;
        told(self).expect("manifests do not take back what was told")
    }

    fn runs(&self) -> Option<(Version, Boot)> {
        let town = self.town();
        let component = &town.seen.last()?.1.components[0];
        Some((component.running_image().version, component.boot))
    }

    /// The value of the next reading of a series.
    async fn reading(&mut self, series: &str) -> Value {
        let found = async {
            loop {
                let sample = self.samples.recv().await.expect("somebody says readings");
                if sample.reading.series.as_str() == series {
                    return sample.reading.value;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {series}"))
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.until("its end", |rig| rig.thread.is_finished()).await;
        self.thread.join().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_release_that_both_name_is_installed_and_proven_and_a_bad_one_is_taken_back() {
    let mut rig = Rig::start(true, |_| {}).await;
    assert_eq!(rig.reading("app/flow").await, Value::Float(0.5));
    rig.check_ins(1).await;
    assert_eq!(rig.runs(), Some((V(0), Boot::Confirmed)));

    rig.town().world.direct(&[target(V(1), 1, Some("r-1"))]);
    let told = rig.until_told("r-1", InstallEnd::Confirmed).await;
    assert_eq!(told.components[0].running_image().version, V(1));
    assert_eq!(told.director.targets, rig.town().world.generation);
    let boots: Vec<_> =
        rig.town().seen.iter().map(|(_, manifest)| manifest.components[0].boot).collect();
    assert!(boots.contains(&Boot::Trial), "its trial was told before its confirmation: {boots:?}");
    while rig.reading("app/flow").await != Value::Float(1.5) {}

    rig.town().world.direct(&[target(V(2), 1, Some("r-2"))]);
    let told = rig.until_told("r-2", InstallEnd::Reverted).await;
    let outcome = told.outcome.unwrap();
    assert!(outcome.reason.contains("ended with code 3"), "{}", outcome.reason);
    let me = &told.components[0];
    assert_eq!((me.running_image().version, me.boot), (V(1), Boot::Reverted));
    while rig.reading("app/flow").await != Value::Float(1.5) {}
    rig.check_ins(3).await;
    assert_eq!(rig.metric("plimsoll_agent_armed_total"), 2, "what failed is not tried again");

    // Back to the first, as the way back is ordered: it was overwritten, so it is fetched.
    rig.town().world.direct(&[target(V(0), 1, None)]);
    rig.until("back", |rig| rig.runs() == Some((V(0), Boot::Confirmed))).await;
    for invariant in ["INV-BOOT-1", "INV-FRESH-1", "INV-IMG-1"] {
        let row = format!("plimsoll_invariant_violations_total{{invariant=\"{invariant}\"}}");
        assert!(rig.metrics().contains(&format!("{row} 0\n")), "{invariant}");
    }
    rig.end().await;
}

/// INV-ROLL-1: whole in its slot, and the lease names its rollout as halted.
#[tokio::test]
async fn what_is_halted_is_fetched_and_not_armed_until_the_halt_is_over() {
    let rig = Rig::start(true, |town| {
        town.world.halted = vec![RolloutId::new("r-1").unwrap()];
        town.world.direct(&[target(V(1), 1, Some("r-1"))]);
    })
    .await;
    let image = kit::image(V(1)).len() as u64;
    rig.until("fetched", |rig| rig.metric("plimsoll_agent_image_bytes_total") == image).await;
    rig.check_ins(4).await;
    assert_eq!(rig.metric("plimsoll_agent_armed_total"), 0);
    rig.town().world.halted.clear();
    rig.until_told("r-1", InstallEnd::Confirmed).await;
    rig.end().await;
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_from_where_it_is() {
    let rig = Rig::start(true, |town| {
        town.breaks_at = Some(4_000);
        town.world.direct(&[target(V(1), 1, Some("r-1"))]);
    })
    .await;
    rig.until_told("r-1", InstallEnd::Confirmed).await;
    let ranges = rig.town().ranges.clone();
    assert_eq!(ranges, [0, 4_000]);
    rig.end().await;
}

#[tokio::test]
async fn a_gateway_that_answers_nobody_is_left_for_the_next_one() {
    let rig = Rig::start(false, |town| {
        town.world.direct(&[target(V(1), 1, Some("r-1"))]);
    })
    .await;
    rig.until_told("r-1", InstallEnd::Confirmed).await;
    rig.end().await;
}

/// The first gateway keeps news back, and shows what it once had: the other one is asked then, and it is seen.
#[tokio::test]
async fn a_gateway_that_withholds_is_left_for_the_next_one() {
    type Answer = fn(&mut World, CheckIn) -> CheckIn;
    let table: &[(&str, Answer)] = &[
        ("director", |_, answer| CheckIn { director: None, ..answer }),
        ("lease", |world, answer| {
            let lease = world.lease_of(7, NOW, &world.operator.key(Role::Timestamp));
            let director = answer.director.filter(|_| world.generation == 2);
            CheckIn { lease: Base64(lease), director, ..answer }
        }),
    ];
    for (what, first_answer) in table {
        let rig = Rig::start(true, |town| {
            town.halt_within_ms = 1_000;
            town.first_answer = *first_answer;
            // The site's clock goes on, about as fast as the device's.
            town.answer = |world, answer| {
                world.now.0 += 400_000;
                CheckIn { lease: Base64(world.lease()), ..answer }
            };
            town.world.skip_leases(100);
            town.world.direct(&[]);
        })
        .await;
        rig.check_ins(1).await;
        rig.town().world.direct(&[target(V(1), 1, Some("r-1"))]);
        rig.until_told("r-1", InstallEnd::Confirmed).await;
        let row = format!("plimsoll_agent_refused_total{{what=\"{what}\",reason=\"withheld\"}}");
        assert!(rig.metric(&row) > 0, "{what}");
        rig.end().await;
    }
}

/// The second gateway is honest, and finds a false half in the slot.
#[tokio::test]
async fn a_gateway_that_gives_a_false_half_of_an_image_keeps_nobody_from_the_true_one() {
    let rig = Rig::start(true, |town| {
        town.first_poisons = true;
        town.world.direct(&[target(V(1), 1, Some("r-1"))]);
    })
    .await;
    rig.until_told("r-1", InstallEnd::Confirmed).await;
    assert_eq!(rig.metric("plimsoll_agent_installs_total{end=\"failed\"}"), 0);
    rig.end().await;
}

/// The disk is full when a trial is to be confirmed, and when it is to be taken back: what was good runs, readings go on, and
/// once there is room the update is done.
#[tokio::test]
async fn a_disk_that_fills_up_during_a_trial_costs_the_trial_and_nothing_else() {
    let mut rig = Rig::start(true, |town| town.trial_ms = 3_000).await;
    assert_eq!(rig.reading("app/flow").await, Value::Float(0.5));
    rig.town().world.direct(&[target(V(1), 1, Some("r-1"))]);
    while rig.reading("app/flow").await != Value::Float(1.5) {}
    rig.full.store(true, Ordering::Relaxed);
    while rig.reading("app/flow").await != Value::Float(0.5) {}
    rig.check_ins(3).await;
    assert_eq!(rig.runs(), Some((V(0), Boot::Reverted)));
    assert!(rig.metric("plimsoll_agent_refused_total{what=\"disk\",reason=\"full\"}") > 0);
    rig.full.store(false, Ordering::Relaxed);
    rig.until_told("r-1", InstallEnd::Confirmed).await;
    assert_eq!(rig.runs(), Some((V(1), Boot::Confirmed)));
    rig.end().await;
}

/// Replaces what the Director said by what `make` says.
fn redirected(mut answer: CheckIn, make: impl FnOnce() -> api::update::DirectorFiles) -> CheckIn {
    answer.director = answer.director.map(|_| make());
    answer
}

/// INV-IMG-1, INV-FRESH-1: who sits on the way, or has the control plane, has no effect, and is seen.
#[tokio::test]
async fn who_sits_on_the_way_or_has_the_control_plane_installs_nothing_and_is_seen() {
    type Change = fn(&mut Town);
    let refused = |what: &str, label: &str| {
        format!("plimsoll_agent_refused_total{{what=\"{what}\",reason=\"{label}\"}}")
    };
    let table: &[(&str, &str, &str, Change)] = &[
        ("another device's orders", "director", "other_device", |town| {
            town.answer = |world, answer| redirected(answer, || world.directed("pump-8"));
        }),
        ("orders that the Director did not sign", "director", "too_few_signatures", |town| {
            town.answer = |world, answer| {
                let mut thief = world.clone();
                thief.operator = thief.vendor.clone();
                redirected(answer, || thief.directed(DEVICE))
            };
        }),
        (
            "targets of one generation under the timestamp of another",
            "director",
            "other_digest",
            |town| {
                town.answer = |world, answer| {
                    let mut other = world.clone();
                    other.direct(&[target(V(2), 1, Some("r-1"))]);
                    let mut files = world.directed(DEVICE);
                    files.targets = other.directed(DEVICE).targets;
                    redirected(answer, || files)
                };
            },
        ),
        ("a lease by a key that may not sign leases", "lease", "unknown_key", |town| {
            town.answer = |world, answer| {
                let lease = world.lease_of(500, world.now, &secret(66));
                CheckIn { lease: Base64(lease), ..answer }
            };
        }),
        ("no metadata of the vendor", "images", "absent", |town| {
            town.world.images.remove(Role::Timestamp.file());
        }),
        ("metadata that the vendor did not sign", "images", "too_few_signatures", |town| {
            let mut thief = town.world.clone();
            thief.vendor = thief.operator.clone();
            thief.publish(2, &[target(V(1), 1, None)]);
            town.world.images = thief.images;
        }),
        (
            "an image of control's own, that no vendor has published",
            "order",
            "not_published",
            |town| {
                town.world.direct(&[target(V(7), 1, Some("r-1"))]);
            },
        ),
        ("an image of control's own, under a name of the vendor's", "order", "differs", |town| {
            let mut own = target(V(1), 1, Some("r-1"));
            own.hashes.sha256 = Some(trust::digest(&kit::image(V(7))));
            town.world.direct(&[own]);
        }),
        ("an image for other hardware", "order", "other_hardware", |town| {
            let mut other = target(V(1), 1, Some("r-1"));
            if let Custom::Order(order) = &mut other.custom {
                order.release.hardware = vec!["press-box".parse().unwrap()];
            }
            town.world.publish(2, std::slice::from_ref(&other));
            town.world.direct(&[other]);
        }),
        ("an image below the device's floor", "order", "below_floor", |town| {
            let old = target(V(1), 0, Some("r-1"));
            town.world.publish(2, std::slice::from_ref(&old));
            town.world.direct(&[old]);
        }),
        ("an image with one byte changed", "image", "wrong_digest", |town| {
            town.blob = |mut blob| {
                blob[5_000] ^= 1;
                blob
            };
        }),
        ("an image that is longer", "image", "wrong_digest", |town| {
            town.blob = |mut blob| {
                blob.push(b'\n');
                blob
            };
        }),
    ];
    for (what, kind, label, change) in table {
        let rig = Rig::start(true, |town| {
            town.world.direct(&[target(V(1), 1, Some("r-1"))]);
            change(town);
        })
        .await;
        let row = refused(kind, label);
        rig.until(what, |rig| rig.metric(&row) > 0).await;
        // And after it was seen it comes to nothing.
        rig.check_ins(3).await;
        assert_eq!(rig.metric("plimsoll_agent_armed_total"), 0, "{what}");
        assert_eq!(rig.runs(), Some((V(0), Boot::Confirmed)), "{what}");
        rig.end().await;
    }
}

/// INV-FRESH-1: what was true once is shown again.
#[tokio::test]
async fn an_older_word_of_the_director_the_vendor_or_the_site_counts_no_more() {
    type Change = fn(&mut Town, World);
    let table: &[(&str, &str, &str, Change)] = &[
        ("an old snapshot of the Director", "director", "older", |town, old| {
            // A restored control plane that does not know how far it was.
            town.world.generation = old.generation;
        }),
        ("an old timestamp of the vendor", "images", "older", |town, old| {
            town.world.images = old.images;
            town.world.direct(&[target(V(2), 1, Some("r-2"))]);
        }),
        ("an old lease", "lease", "older", |town, _| {
            town.answer = |world, answer| {
                let lease = world.lease_of(1, world.now, &world.operator.key(Role::Timestamp));
                CheckIn { lease: Base64(lease), ..answer }
            };
            town.world.direct(&[target(V(2), 1, Some("r-2"))]);
        }),
    ];
    for (what, kind, label, change) in table {
        let rig = Rig::start(true, |town| town.world.direct(&[])).await;
        rig.check_ins(1).await;
        let old = rig.town().world.clone();
        {
            let mut town = rig.town();
            // What is no more published is not installed, though it was once.
            town.world.publish(2, &[target(V(0), 1, None), target(V(1), 1, None)]);
            town.world.direct(&[target(V(1), 1, Some("r-1"))]);
        }
        rig.until_told("r-1", InstallEnd::Confirmed).await;
        let armed = rig.metric("plimsoll_agent_armed_total");
        change(&mut rig.town(), old);
        let row = format!("plimsoll_agent_refused_total{{what=\"{kind}\",reason=\"{label}\"}}");
        rig.until(what, |rig| rig.metric(&row) > 0).await;
        rig.check_ins(3).await;
        assert_eq!(rig.metric("plimsoll_agent_armed_total"), armed, "{what}");
        assert_eq!(rig.runs(), Some((V(1), Boot::Confirmed)), "{what}");
        rig.end().await;
    }
}

#[tokio::test]
async fn without_anything_that_is_trusted_the_application_runs_and_nobody_is_asked() {
    let mut rig = Rig::start(true, |town| town.gives_roots = false).await;
    assert_eq!(rig.reading("app/flow").await, Value::Float(0.5));
    // It is looked at a second time, some check-ins later than one would have come.
    while rig.reading("app/rss").await == Value::Int(0) {}
    assert!(rig.town().seen.is_empty());
    rig.end().await;
}
