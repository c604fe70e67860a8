//! A site with a fleet that was there before: enrolled devices with both keys, what they run and what they were told, as rows
//! of the registry that were written in bulk.

use crate::load::Call;
use crate::vendor::{HARDWARE, Shelf, Vendor};
use crate::world::{self, Got, POLICIES, SITE, Setup, Station, TOKEN, World, now, secret};
use api::event::Events;
use api::rollout::Rollout;
use api::{Role, path};
use control::Registry;
use control::registry::RegistryError;
use model::envelope::Algorithm;
use model::manifest::{Boot, Component, Installed, Manifest, Slot, Trusted};
use model::{
    Counter, DeviceId, Digest, HardwareId, Header, Kind, ProductId, SecurityVersion, Timestamp,
    Version,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{QueryBuilder, Sqlite};
use std::path::PathBuf;
use std::time::Duration;
use trust::cose::{self, SecretKey, Signer as _};

pub const PRODUCT: &str = "pump-app";
const OLD: &[u8] = b"image 1.0.0";
const NEW: &[u8] = b"image 1.1.0";
const ZONE: &str = "hall";

/// Devices whose rows are made at once.
const CHUNK: usize = 10_000;
/// Rows of one statement: SQLite takes 32766 values.
const ROWS: usize = 500;

pub struct Plant {
    pub world: World,
    pub vendor: Vendor,
    pub gateway: Station,
    /// In the cohort of every rollout; behind them comes one more, which is in none.
    pub devices: usize,
    /// How often each has checked in.
    sequences: Vec<u64>,
    director: [u8; 32],
}

impl Plant {
    pub async fn new(devices: usize) -> Self {
        let mut vendor = Vendor::new(now());
        vendor.publish(PRODUCT, "1.0.0", OLD);
        vendor.publish(PRODUCT, "1.1.0", NEW);
        let director = trust::digest(b"the Director's online key").0;
        let world = World::with(setup(&vendor, &director)).await;
        let gateway = world.gateway("gw-1").await;
        let World { dir, site, maker, shards, control } = world;
        control.shutdown().await;
        let registry = dir.path().join("control/registry.sqlite");
        fill(&registry, devices + 1, &gateway.tls.chain[0]).await;
        let setup = setup(&vendor, &director);
        let control = world::start(&dir, &site, &maker, &shards, setup).await.unwrap();
        let world = World { dir, site, maker, shards, control };
        while world.control.releases().published().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let sequences = vec![0; devices + 1];
        Self { world, vendor, gateway, devices, sequences, director }
    }

    /// The control plane ends and starts again.
    pub async fn restart(self) -> Self {
        let Self { world, vendor, gateway, devices, sequences, director } = self;
        let world = world.restart(setup(&vendor, &director)).await;
        while world.control.releases().published().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { world, vendor, gateway, devices, sequences, director }
    }

    pub fn registry(&self) -> PathBuf {
        self.world.dir.path().join("control/registry.sqlite")
    }

    /// A device's next check-in, which says what it said before.
    pub fn check_in(&mut self, n: usize, connection: usize) -> Call {
        self.sequences[n] += 1;
        let key = seal_key(n);
        let header = Header {
            algorithm: Algorithm::Ed25519,
            kind: Kind::Manifest,
            key: key.public().id(),
            counter: Counter { epoch: 1, sequence: self.sequences[n] },
            uptime_ms: 1,
            wall: None,
            heard: None,
            prior: None,
        };
        Call {
            connection: connection as u32,
            path: format!("{}?device={}", path::GATEWAY_CHECK_IN, id(n)),
            body: cose::seal(&header, &manifest(n, n == self.devices).encode(), &key).unwrap(),
        }
    }

    /// Makes and starts a rollout of the newer release, in one wave.
    pub async fn create(&self, http: &reqwest::Client, name: &str, percent: f64) -> Rollout {
        let order = json!({
            "id": name, "product": PRODUCT, "version": "1.1.0", "start": true,
            "waves": [{ "percent": percent }],
        });
        let got = self.post(http, path::ROLLOUTS, order).await;
        assert_eq!(got.status, 201, "{}", String::from_utf8_lossy(&got.body));
        serde_json::from_slice(&got.body).unwrap()
    }

    pub async fn abort(&self, http: &reqwest::Client, name: &str) {
        let got = self.post(http, &format!("{}/{name}/abort", path::ROLLOUTS), json!({})).await;
        assert_eq!(got.status, 200, "{}", String::from_utf8_lossy(&got.body));
    }

    async fn post(&self, http: &reqwest::Client, path: &str, body: Value) -> Got {
        let request = http.post(format!("{}{path}", self.world.base())).bearer_auth(TOKEN);
        Got::of(request.header("content-type", "application/json").body(body.to_string())).await
    }

    /// Waits until the first wave is open. Returns how many seconds after it was made, by the events that tell of both.
    pub async fn opened(&self, name: &str) -> f64 {
        let path = format!("{}?subject=rollout/{name}", path::EVENTS);
        loop {
            let events: Events = Got::of(self.world.operator(Method::GET, &path)).await.json();
            let at = |action: &str| {
                let event = events.events.iter().find(|event| event.action == action);
                event.map(|event| event.at_ms as f64 / 1e3)
            };
            if let Some((made, opened)) = at("rollout.create").zip(at("rollout.wave_opened")) {
                return opened - made;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn setup(vendor: &Vendor, director: &[u8; 32]) -> Setup {
    Setup {
        images: Some((Shelf::of(&vendor.files), vendor.first_root())),
        director: SecretKey::from_random(Algorithm::Ed25519, director).unwrap(),
        ..Setup::default()
    }
}

pub fn id(n: usize) -> DeviceId {
    DeviceId::new(format!("pump-{n:07}")).unwrap()
}

fn key(n: usize, what: &str, algorithm: Algorithm) -> SecretKey {
    let random = trust::digest(format!("{what} {n}").as_bytes());
    // A draw that is no scalar of P-256 comes once in 2^32.
    SecretKey::from_random(algorithm, &random.0).unwrap_or_else(|| secret(algorithm))
}

fn seal_key(n: usize) -> SecretKey {
    key(n, "seal", Algorithm::Ed25519)
}

/// Under which generation a device was told the last time.
fn told(n: usize) -> u64 {
    n as u64 + 1
}

/// Two products, as a box has them: the agent and what it runs. A stranger is of another kind of hardware.
fn manifest(n: usize, is_stranger: bool) -> Manifest {
    let hardware = if is_stranger { "other-box" } else { HARDWARE };
    let image = |bytes: &[u8]| Installed {
        version: Version::new(1, 0, 0),
        digest: trust::digest(bytes),
        length: 5_000_000,
        security_version: SecurityVersion(1),
    };
    let component = |product: &str, bytes: &[u8]| Component {
        product: ProductId::new(product).unwrap(),
        hardware: HardwareId::new(hardware).unwrap(),
        floor: SecurityVersion(0),
        running: Slot::A,
        boot: Boot::Confirmed,
        slots: [Some(image(bytes)), Some(image(b"what ran before"))],
    };
    let versions =
        |number| Trusted { root: 1, timestamp: number, snapshot: number, targets: number };
    Manifest {
        device: id(n),
        components: vec![component("plimsoll-agent", b"the agent"), component(PRODUCT, OLD)],
        director: versions(told(n)),
        images: versions(3),
        outcome: None,
    }
}

struct Row {
    id: DeviceId,
    keys: Vec<(Digest, String, &'static str, Vec<u8>)>,
    manifest: Vec<u8>,
    told: i64,
}

fn row(n: usize, is_stranger: bool) -> Row {
    let key = |what: &'static str, algorithm| {
        let public = key(n, what, algorithm).public().clone();
        let spki = public.to_spki_der();
        (trust::digest(&spki), public.id().to_string(), what, spki)
    };
    let keys = vec![key("tls", Algorithm::Esp256), key("seal", Algorithm::Ed25519)];
    Row { id: id(n), keys, manifest: manifest(n, is_stranger).encode(), told: told(n) as i64 }
}

/// Writes the rows of all devices. `certificate` stands for each of theirs: nobody reads them again.
async fn fill(path: &std::path::Path, devices: usize, certificate: &[u8]) {
    let registry = Registry::open(path, SITE, POLICIES).await.unwrap();
    let at = now();
    for from in (0..devices).step_by(CHUNK) {
        let to = devices.min(from + CHUNK);
        let middle = (from + to) / 2;
        let row = move |n| row(n, n + 1 == devices);
        let rows = tokio::task::spawn_blocking(move || {
            std::thread::scope(|scope| {
                let other = scope.spawn(move || (from..middle).map(row).collect::<Vec<_>>());
                let last: Vec<Row> = (middle..to).map(row).collect();
                other.join().unwrap().into_iter().chain(last).collect::<Vec<_>>()
            })
        });
        let (rows, certificate) = (rows.await.unwrap(), certificate.to_vec());
        let written = registry.step(move |step| {
            Box::pin(async move {
                if step.generation() <= devices as u64 {
                    step.raise_generation_above(devices as u64).await?;
                }
                for rows in rows.chunks(ROWS) {
                    for mut statement in statements(rows, &certificate, at) {
                        let done = statement.build().execute(step.tx()).await;
                        done.map_err(RegistryError::Write)?;
                    }
                }
                Ok::<_, RegistryError>(())
            })
        });
        written.await.unwrap();
    }
    registry.close().await;
}

fn statements(rows: &[Row], certificate: &[u8], at: Timestamp) -> Vec<QueryBuilder<Sqlite>> {
    let at = at.as_us();
    let (name, role) = (|row: &Row| row.id.to_string(), Role::Device.as_str());
    let into = |table: &str| QueryBuilder::new(format!("INSERT INTO {table} "));
    let mut ownership = into("ownership");
    ownership.push_values(rows, |mut b, row| {
        b.push_bind(name(row)).push_bind(name(row)).push_bind(role).push_bind(ZONE).push_bind(at);
    });
    let mut devices = into("devices");
    devices.push_values(rows, |mut b, row| {
        b.push_bind(name(row)).push_bind(name(row)).push_bind(role).push_bind(ZONE);
        b.push_bind("enrolled").push_bind(at).push_bind(at).push_bind(at);
    });
    let mut keys = into("keys");
    let all = rows.iter().flat_map(|row| row.keys.iter().map(move |key| (row, key)));
    keys.push_values(all, |mut b, (row, (digest, id, purpose, spki))| {
        b.push_bind(digest.to_string()).push_bind(id.clone()).push_bind(name(row));
        b.push_bind(*purpose).push_bind(spki.clone()).push_bind(certificate.to_vec());
        b.push_bind(at + 90 * 86_400_000_000).push_bind(at);
        b.push_bind(None::<i64>).push_bind(None::<i64>);
    });
    let mut manifests = into("manifests");
    manifests.push_values(rows, |mut b, row| {
        b.push_bind(name(row)).push_bind(row.keys[1].1.clone()).push_bind(1).push_bind(0);
        b.push_bind(1).push_bind(at).push_bind(at).push_bind(row.manifest.clone());
    });
    let mut directed = into("directed");
    directed.push_values(rows, |mut b, row| {
        b.push_bind(name(row)).push_bind(row.told).push_bind(at).push_bind("[]");
    });
    vec![ownership, devices, keys, manifests, directed]
}
