//! Releases on their way: an operator who orders, devices that check in through their gateway, and gates that are asked.
//!
//! The devices here keep only what a rollout turns on; that they verify what they are told is tested elsewhere.

use crate::evidence::copy;
use crate::stream::Ear;
use crate::vendor::{HARDWARE, Shelf, Vendor};
use crate::world::{Got, Setup, Station, World, in_time, now, start};
use api::event::Events;
use api::release::Software;
use api::rollout::{Rollout, RolloutDevices, Rollouts};
use api::update::CheckIn;
use api::{Answer, Ask, Query, QueryError, Role, Within, path};
use control::Limits;
use control::director::Terms;
use disk::{RealDisk, SharedDisk, SimDisk};
use model::envelope::Algorithm;
use model::lease::Lease;
use model::manifest::{
    Boot, Component, InstallEnd, Installed, Manifest, Outcome, Slot, Trusted as Versions,
};
use model::{
    Counter, DeviceId, Digest, HardwareId, Header, Kind, ProductId, RolloutId, SecurityVersion,
    Version,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trust::cose::{self, SecretKey, Signer as _};

pub const OLD: &[u8] = b"image 1.0.0";
pub const NEW: &[u8] = b"image 1.1.0";
const PUMPS: usize = 10;

/// What the store answers to every question, and what it was asked.
pub struct Gauge {
    pub says: Mutex<Result<Value, String>>,
    pub asked: Mutex<Vec<String>>,
}

impl Gauge {
    pub fn says(&self, what: Result<Value, &str>) {
        *self.says.lock().unwrap() = what.map_err(ToOwned::to_owned);
    }
}

impl Query for Gauge {
    fn query(
        &self,
        ask: Ask,
        _: Option<Arc<Within>>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, QueryError>> + Send + '_>> {
        self.asked.lock().unwrap().push(ask.sql);
        let says = self.says.lock().unwrap().clone();
        let rows = |rows| Answer { columns: vec![], rows, truncated: false, took_ms: 1 };
        Box::pin(async move {
            match says {
                Ok(Value::Null) => Ok(rows(vec![])),
                Ok(cell) => Ok(rows(vec![vec![cell]])),
                Err(why) => Err(QueryError::BadSql(why)),
            }
        })
    }
}

/// A pump as far as control sees it.
pub struct Pump {
    pub station: Station,
    pub running: Digest,
    pub epoch: u32,
    pub sequence: u64,
    /// Of the Director's metadata that it has, and what they order: digest and rollout.
    pub told: u64,
    pub order: Option<(Digest, Option<String>)>,
    pub outcome: Option<Outcome>,
}

impl Pump {
    pub fn manifest(&self) -> Manifest {
        let image = |digest| Installed {
            version: Version::new(1, u32::from(digest == digest_of(NEW)), 0),
            digest,
            length: 11,
            security_version: SecurityVersion(1),
        };
        let known =
            |version| Versions { root: 1, timestamp: version, snapshot: version, targets: version };
        Manifest {
            device: self.station.id.clone(),
            components: vec![Component {
                product: ProductId::new("pump-app").unwrap(),
                hardware: HardwareId::new(HARDWARE).unwrap(),
                floor: SecurityVersion(0),
                running: Slot::A,
                boot: Boot::Confirmed,
                slots: [Some(image(self.running)), None],
            }],
            director: known(self.told),
            images: known(1),
            outcome: self.outcome.clone(),
        }
    }

    pub fn sealed(&mut self) -> Vec<u8> {
        let header = Header {
            algorithm: Algorithm::Ed25519,
            kind: Kind::Manifest,
            key: self.station.seal_id(),
            counter: Counter { epoch: self.epoch, sequence: self.sequence },
            uptime_ms: 1,
            wall: None,
            heard: None,
            prior: None,
        };
        self.sequence += 1;
        cose::seal(&header, &self.manifest().encode(), &self.station.seal).unwrap()
    }

    pub fn fails(&mut self) {
        let (digest, rollout) = self.order.clone().expect("somebody ordered it to install");
        self.outcome = Some(Outcome {
            rollout: rollout.map(|id| RolloutId::new(id).unwrap()),
            product: ProductId::new("pump-app").unwrap(),
            digest,
            end: InstallEnd::Reverted,
            reason: "its self-check failed".into(),
        });
    }
}

fn digest_of(image: &[u8]) -> Digest {
    trust::digest(image)
}

/// A site whose vendor has published 1.0.0 and 1.1.0, and ten pumps that run 1.0.0.
pub struct Plant {
    pub world: World,
    pub vendor: Vendor,
    pub gauge: Arc<Gauge>,
    pub gateway: Station,
    pub http: reqwest::Client,
    pub pumps: Vec<Pump>,
}

impl Plant {
    pub async fn new() -> Self {
        Self::on(Arc::new(RealDisk)).await
    }

    pub async fn on(evidence_disk: SharedDisk) -> Self {
        let mut vendor = Vendor::new(now());
        vendor.publish("pump-app", "1.0.0", OLD);
        vendor.publish("pump-app", "1.1.0", NEW);
        let (says, asked) = (Mutex::new(Ok(json!(1))), Mutex::default());
        let gauge = Arc::new(Gauge { says, asked });
        let world = World::with(setup_on(evidence_disk, &vendor, &gauge)).await;
        in_time("the vendor's repository is read", async {
            while world.control.releases().published().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let gateway = world.gateway("gw-1").await;
        let http = world.http(Some(&gateway.tls));
        let mut pumps = Vec::new();
        for n in 0..PUMPS {
            let station = world.device(&format!("pump-{n}")).await;
            let running = digest_of(OLD);
            let (order, outcome) = (None, None);
            pumps.push(Pump { station, running, epoch: 1, sequence: 0, told: 0, order, outcome });
        }
        let mut plant = Self { world, vendor, gauge, gateway, http, pumps };
        plant.all_check_in().await;
        plant
    }

    pub async fn restart(self) -> Self {
        self.restart_after(|_| ()).await
    }

    /// What `between` does to control's directory it does while control does not run.
    pub async fn restart_after(self, between: impl FnOnce(&Path)) -> Self {
        let Self { world, vendor, gauge, gateway, pumps, .. } = self;
        let World { dir, site, maker, shards, control } = world;
        control.shutdown().await;
        between(dir.path());
        let control = start(&dir, &site, &maker, &shards, setup(&vendor, &gauge)).await.unwrap();
        let world = World { dir, site, maker, shards, control };
        let http = world.http(Some(&gateway.tls));
        Self { world, vendor, gauge, gateway, http, pumps }
    }

    /// Hands up a message in a device's name.
    pub async fn show(&self, device: &DeviceId, message: Vec<u8>) -> Got {
        let url = format!("{}{}?device={device}", self.world.base(), path::GATEWAY_CHECK_IN);
        let request = self.http.post(url).header("content-type", "application/cose");
        Got::of(request.body(message)).await
    }

    /// A pump says what it runs and takes what it is told. Returns the lease that it got.
    pub async fn check_in(&mut self, n: usize) -> Lease {
        let message = self.pumps[n].sealed();
        let id = self.pumps[n].station.id.clone();
        let answer: CheckIn = self.show(&id, message).await.json();
        let pump = &mut self.pumps[n];
        if let Some(files) = answer.director {
            let targets: Value = serde_json::from_slice(&files.targets.0).unwrap();
            pump.told = targets["signed"]["version"].as_u64().unwrap();
            let ordered = targets["signed"]["targets"].as_object().unwrap();
            assert!(ordered.len() <= 1, "{ordered:?}");
            pump.order = ordered.values().next().map(|target| {
                let digest = target["hashes"]["sha256"].as_str().unwrap();
                let rollout = target["custom"]["plimsoll"]["rollout"].as_str();
                (Digest::from_hex(digest).unwrap(), rollout.map(ToOwned::to_owned))
            });
        }
        let lease = cose::open(&answer.lease.0, 4096).unwrap();
        let lease = lease.verify(director_key().public()).unwrap();
        Lease::decode(lease.payload()).unwrap()
    }

    /// Says which pumps are ordered something else than they run.
    pub async fn all_check_in(&mut self) -> Vec<usize> {
        for n in 0..PUMPS {
            self.check_in(n).await;
        }
        let is_to_change = |n: &usize| {
            let pump = &self.pumps[*n];
            pump.order.as_ref().is_some_and(|(digest, _)| *digest != pump.running)
        };
        (0..PUMPS).filter(is_to_change).collect()
    }

    /// They do as they were told, and show it.
    pub async fn install(&mut self, pumps: &[usize]) {
        for n in pumps {
            self.pumps[*n].running = self.pumps[*n].order.as_ref().unwrap().0;
            self.check_in(*n).await;
        }
    }

    pub async fn post(&self, path: &str, body: Value) -> Got {
        let request = self.world.operator(Method::POST, path);
        Got::of(request.header("content-type", "application/json").body(body.to_string())).await
    }

    pub async fn create(&self, order: Value) -> Rollout {
        let got = self.post(path::ROLLOUTS, order).await;
        assert_eq!(got.status, 201, "{}", String::from_utf8_lossy(&got.body));
        serde_json::from_slice(&got.body).unwrap()
    }

    pub async fn tell(&self, id: &str, word: &str) -> Got {
        self.post(&format!("{}/{id}/{word}", path::ROLLOUTS), json!({})).await
    }

    pub async fn rollout(&self, id: &str) -> Rollout {
        let path = format!("{}/{id}", path::ROLLOUTS);
        Got::of(self.world.operator(Method::GET, &path)).await.json()
    }

    /// Waits until a rollout is so.
    pub async fn comes_to(
        &self,
        id: &str,
        what: &str,
        is_so: impl Fn(&Rollout) -> bool,
    ) -> Rollout {
        in_time(what, async {
            loop {
                let rollout = self.rollout(id).await;
                if is_so(&rollout) {
                    return rollout;
                }
            }
        })
        .await
    }

    pub async fn stage(&self, id: &str, wave: usize, stage: &str) -> Rollout {
        self.comes_to(id, &format!("{id} is {stage} wave {wave}"), |rollout| {
            rollout.wave == wave && rollout.stage.as_deref() == Some(stage)
        })
        .await
    }

    pub async fn phase(&self, id: &str, phase: &str) -> Rollout {
        self.comes_to(id, &format!("{id} is {phase}"), |rollout| rollout.phase == phase).await
    }

    /// What was done to a rollout, in order, each word once in a row.
    pub async fn told_of(&self, id: &str) -> Vec<String> {
        let path = format!("{}?subject=rollout/{id}", path::EVENTS);
        let events: Events = Got::of(self.world.operator(Method::GET, &path)).await.json();
        let mut words: Vec<String> = events.events.into_iter().map(|event| event.action).collect();
        words.dedup();
        words
    }

    /// Nothing is on its way to the log, and no file of it is being replaced.
    pub async fn all_is_covered(&self) {
        let all = async {
            loop {
                let got = Got::of(self.world.operator(Method::GET, path::EVENTS)).await;
                let events: Events = got.json();
                if events.next.is_none()
                    && events.events.last().is_some_and(|last| last.sequence < events.covered)
                {
                    return;
                }
            }
        };
        in_time("every event is covered", all).await;
    }

    pub fn violations(&self) -> u64 {
        self.world.metric("plimsoll_invariant_violations_total")
    }
}

/// What is heard of is there to be asked for: a rollout is moved in memory after its events are written. Whoever asks when it
/// hears the last of them, and only then, would miss it otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_hears_of_a_rollout_or_of_a_device_finds_it_as_it_is_now() {
    let mut plant = Plant::new().await;
    let mut ear = Ear::new(&plant.world).await;
    let id = plant.create(order(json!({ "start": false }))).await.id;
    let expected = format!("rollout/{id}");
    for (word, phase) in [("start", "running"), ("pause", "paused"), ("halt", "halted")] {
        let heard = async {
            while plant.rollout(&id).await.phase != phase {
                while ear.hear().await.expect("the stream goes on").1.subject != expected {}
            }
        };
        let (got, ()) = tokio::join!(plant.tell(&id, word), heard);
        assert_eq!(got.status, 200);
    }
    plant.check_in(3).await;
    in_time("the pump was heard", async {
        loop {
            let (kind, changed) = ear.hear().await.expect("the stream goes on");
            if kind == "seen" && changed.subject == "device/pump-3" {
                return;
            }
        }
    })
    .await;
}

fn director_key() -> SecretKey {
    SecretKey::from_random(Algorithm::Ed25519, &[8; 32]).unwrap()
}

fn setup(vendor: &Vendor, gauge: &Arc<Gauge>) -> Setup {
    setup_on(Arc::new(RealDisk), vendor, gauge)
}

fn setup_on(evidence_disk: SharedDisk, vendor: &Vendor, gauge: &Arc<Gauge>) -> Setup {
    Setup {
        evidence_disk,
        images: Some((Shelf::of(&vendor.files), vendor.first_root())),
        director: director_key(),
        query: gauge.clone(),
        // No lease is due in the middle of a test.
        limits: Limits {
            director: Terms { lease_every: Duration::from_secs(3600), ..Terms::default() },
            ..Limits::default()
        },
        ..Setup::default()
    }
}

/// A wave of three and one of all, each with a gate.
fn order(more: Value) -> Value {
    let mut order = json!({
        "id": "r-1",
        "product": "pump-app",
        "version": "1.1.0",
        "waves": [{ "percent": 30 }, { "percent": 100 }],
        "signals": [{ "name": "flow", "sql": "select $opened_ms - $started_ms", "at_least": 1 }],
        "ask_again_ms": 50,
        "start": true,
    });
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    order
}

/// Restarted wherever something is under way: what is kept says how it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_goes_out_in_waves_by_what_devices_say_also_over_restarts() {
    let plant = Plant::new().await;
    let made = plant.create(order(json!({}))).await;
    assert_eq!((made.phase.as_str(), made.cohort, made.waves), ("running", 10, 2));
    assert_eq!(made.sha256, digest_of(NEW).to_string());
    plant.stage("r-1", 1, "installing").await;
    let mut plant = plant.restart().await;
    let canaries = plant.all_check_in().await;
    assert_eq!(canaries.len(), 3, "exactly");
    let first = plant.pumps[canaries[0]].order.clone();
    assert_eq!(first, Some((digest_of(NEW), Some("r-1".into()))));
    plant.install(&canaries[..2]).await;
    let before = plant.rollout("r-1").await;
    assert_eq!((before.counts.issued, before.counts.proven, before.members), (1, 2, 3));

    plant.gauge.says(Ok(Value::Null));
    let mut plant = plant.restart().await;
    assert_eq!(plant.rollout("r-1").await, before, "what was counted is counted");
    assert_eq!(plant.all_check_in().await, [canaries[2]], "nobody is issued a second permit");
    plant.install(&canaries[2..]).await;
    plant.comes_to("r-1", "the gate holds", |rollout| rollout.why.is_some()).await;
    let plant = plant.restart().await;
    plant.gauge.says(Ok(json!(1)));
    plant.stage("r-1", 2, "installing").await;
    let mut plant = plant.restart().await;
    let rest = plant.all_check_in().await;
    assert_eq!(rest.len(), 7);
    assert!(rest.iter().all(|n| !canaries.contains(n)));
    plant.install(&rest).await;
    let done = plant.phase("r-1", "completed").await;
    assert_eq!((done.counts.proven, done.members), (10, 10));
    assert_eq!(plant.all_check_in().await, [0; 0], "there is nothing left to do");

    let told = plant.told_of("r-1").await;
    let mut words: Vec<&str> = told.iter().map(String::as_str).collect();
    words.retain(|word| !word.starts_with("device.") && *word != "permit.issue");
    words.dedup();
    let expected = [
        "rollout.create",
        "rollout.start",
        "rollout.wave_opened",
        "rollout.wave_installed",
        "rollout.gate_held",
        "rollout.gate_passed",
        "rollout.wave_opened",
        "rollout.wave_installed",
        "rollout.gate_passed",
        "rollout.complete",
    ];
    assert_eq!(words, expected);
    let path = format!("{}?subject=rollout/r-1", path::EVENTS);
    let events: Events = Got::of(plant.world.operator(Method::GET, &path)).await.json();
    let count = |action: &str| events.events.iter().filter(|e| e.action == action).count();
    assert_eq!((count("permit.issue"), count("device.proven")), (10, 10));

    let devices = |query: &str| {
        let path = format!("{}/r-1/devices?{query}", path::ROLLOUTS);
        Got::of(plant.world.operator(Method::GET, &path))
    };
    let page: RolloutDevices = devices("limit=4").await.json();
    assert_eq!((page.devices.len(), page.next.as_deref()), (4, Some("pump-3")));
    assert!(page.devices.iter().all(|device| device.known == "proven"));
    assert_eq!(page.devices[0].was_sha256, digest_of(OLD).to_string());
    let rest: RolloutDevices = devices("after=pump-3").await.json();
    assert_eq!((rest.devices.len(), rest.next), (6, None));
    let path = format!("{}/pump-4/software", path::DEVICES);
    let software: Software = Got::of(plant.world.operator(Method::GET, &path)).await.json();
    assert_eq!(software.components[0].version, "1.1.0");
    assert_eq!(software.components[0].sha256, digest_of(NEW).to_string());
    assert_eq!(plant.violations(), 0);
}

/// INV-ROLL-1: whoever comes afterwards gets a lease that names it, and no order.
#[tokio::test(flavor = "multi_thread")]
async fn a_halted_rollout_issues_no_permit_and_every_lease_names_it() {
    let mut plant = Plant::new().await;
    plant.create(order(json!({}))).await;
    plant.stage("r-1", 1, "installing").await;
    let mut reached = None;
    for n in 0..PUMPS {
        let lease = plant.check_in(n).await;
        assert_eq!(lease.halted, []);
        if plant.pumps[n].order.is_some() {
            reached = Some(n);
            break;
        }
    }
    let reached = reached.expect("three of ten are canaries");
    let halted: Rollout = plant.tell("r-1", "halt").await.json();
    assert_eq!((halted.phase.as_str(), halted.counts.issued), ("halted", 1));
    assert_eq!(halted.why.as_deref(), Some("an operator said so"));
    let id = RolloutId::new("r-1").unwrap();
    for n in 0..PUMPS {
        let lease = plant.check_in(n).await;
        assert_eq!(lease.halted, std::slice::from_ref(&id), "pump {n}");
        assert_eq!(plant.pumps[n].order, None, "pump {n}: an order is taken back too");
    }
    let path = format!("{}/r-1/devices", path::ROLLOUTS);
    let page: RolloutDevices = Got::of(plant.world.operator(Method::GET, &path)).await.json();
    let reached = plant.pumps[reached].station.id.to_string();
    assert_eq!(page.devices.iter().map(|d| &d.device).collect::<Vec<_>>(), [&reached]);
    let mut plant = plant.restart().await;
    assert_eq!(plant.check_in(0).await.halted, [id], "a restart forgets no halt");
    assert_eq!(plant.tell("r-1", "resume").await.refusal(), (409, "not_drawn".into()));
    let told = plant.told_of("r-1").await;
    assert_eq!(told.last().map(String::as_str), Some("rollout.refused"), "{told:?}");
    assert!(told.contains(&"lease.halt".into()), "{told:?}");
    assert_eq!(plant.violations(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_without_a_number_holds_and_one_beyond_its_limit_halts_and_takes_back() {
    let mut plant = Plant::new().await;
    plant.gauge.says(Err("no table `reading`"));
    plant.create(order(json!({ "back": { "by_itself": true } }))).await;
    plant.stage("r-1", 1, "installing").await;
    let canaries = plant.all_check_in().await;
    plant.install(&canaries).await;
    let why = |rollout: &Rollout| rollout.why.clone().unwrap_or_default();
    for (says, told) in [
        (Err("no table `reading`"), "no table `reading`"),
        (Ok(Value::Null), "the answer is empty"),
        (Ok(json!("NaN")), "the first cell is no number"),
    ] {
        plant.gauge.says(says);
        let held = plant.comes_to("r-1", told, |rollout| why(rollout).contains(told)).await;
        assert_eq!((held.phase.as_str(), held.wave), ("running", 1));
        assert!(why(&held).starts_with("signal \"flow\" gave no number"), "{held:?}");
    }
    let path = format!("{}?subject=rollout/r-1", path::EVENTS);
    let events: Events = Got::of(plant.world.operator(Method::GET, &path)).await.json();
    let held = events.events.iter().filter(|event| event.action == "rollout.gate_held").count();
    assert_eq!(held, 1, "however often it is asked again");
    // The question is one of numbers: when the wave was opened, and when the rollout began.
    let asked = plant.gauge.asked.lock().unwrap().last().unwrap().clone();
    let numbers = asked.strip_prefix("select ").unwrap().split(" - ");
    let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
    assert!(numbers[0] >= numbers[1] && numbers[1] > 1_700_000_000_000, "{asked}");

    plant.gauge.says(Ok(json!(0.5)));
    let gone = plant.phase("r-1", "reverting").await;
    assert_eq!(gone.counts.proven, 3);
    // The way back is opened by a pass of its own.
    in_time("three are told to go back", async { while plant.all_check_in().await != canaries {} })
        .await;
    for n in &canaries {
        assert_eq!(plant.pumps[*n].order, Some((digest_of(OLD), None)), "by no rollout's name");
    }
    plant.install(&canaries).await;
    let done = plant.phase("r-1", "reverted").await;
    assert_eq!((done.counts.went_back, done.why), (3, None));
    assert_eq!(plant.all_check_in().await, [0; 0]);
    let told = plant.told_of("r-1").await;
    for word in ["rollout.gate_held", "rollout.signal_beyond", "rollout.halt", "rollout.revert"] {
        assert!(told.contains(&word.into()), "{word} in {told:?}");
    }
    assert_eq!(plant.violations(), 0);
}

/// Of the same fleet and the same fault: the limit alone decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_moved_threshold_moves_the_halt() {
    let mut plant = Plant::new().await;
    plant.gauge.says(Ok(json!(7.5)));
    let gate = |most| json!([{ "name": "temp", "sql": "select 1", "at_most": most }]);
    for (id, most, ends) in [("r-low", 7.0, "halted"), ("r-high", 8.0, "running")] {
        plant.create(order(json!({ "id": id, "signals": gate(most) }))).await;
        plant.stage(id, 1, "installing").await;
        let canaries = plant.all_check_in().await;
        assert_eq!(canaries.len(), 3);
        plant.install(&canaries).await;
        if ends == "halted" {
            let halted = plant.phase(id, "halted").await;
            assert_eq!(halted.why.as_deref(), Some("signal \"temp\" is beyond its limit"));
            assert_eq!(plant.tell(id, "abort").await.status, 200);
            // They are taken back by hand, for the next try.
            for n in canaries {
                plant.pumps[n].running = digest_of(OLD);
            }
            plant.all_check_in().await;
        } else {
            plant.stage(id, 2, "installing").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_nobody_confirms_stops_at_its_three_canaries() {
    let mut plant = Plant::new().await;
    plant.create(order(json!({ "signals": [] }))).await;
    plant.stage("r-1", 1, "installing").await;
    let canaries = plant.all_check_in().await;
    for n in &canaries {
        plant.pumps[*n].fails();
        plant.check_in(*n).await;
    }
    let halted = plant.phase("r-1", "halted").await;
    assert_eq!(halted.members, 3);
    assert!(halted.counts.failed >= 1, "{halted:?}");
    assert_eq!(plant.all_check_in().await, [0; 0]);
    assert_eq!(plant.rollout("r-1").await.counts.failed, 3);
}

/// INV-REPLAY-1.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_taken_once_whoever_shows_it_again() {
    let mut plant = Plant::new().await;
    let id = plant.pumps[0].station.id.clone();
    let first = plant.pumps[0].sealed();
    assert_eq!(plant.show(&id, first.clone()).await.status, 200);
    let replayed = (409, "replayed".to_owned());
    assert_eq!(plant.show(&id, first.clone()).await.refusal(), replayed);
    // What says something new is durable: a restart does not forget its counter.
    plant.pumps[0].running = digest_of(NEW);
    let second = plant.pumps[0].sealed();
    assert_eq!(plant.show(&id, second.clone()).await.status, 200);
    let mut plant = plant.restart().await;
    for message in [first, second] {
        assert_eq!(plant.show(&id, message).await.refusal(), replayed);
    }
    assert_eq!(plant.world.refused("replayed"), 2);
    let path = format!("{}/pump-0/software", path::DEVICES);
    let software: Software = Got::of(plant.world.operator(Method::GET, &path)).await.json();
    assert_eq!(software.components[0].sha256, digest_of(NEW).to_string());

    // By another zone's gateway, in another's name, of a device that is cut off.
    let third = plant.pumps[0].sealed();
    let elsewhere = plant.world.enrolled("gw-9", Role::Gateway, "yard").await;
    let own = std::mem::replace(&mut plant.http, plant.world.http(Some(&elsewhere.tls)));
    assert_eq!(plant.show(&id, third.clone()).await.refusal(), (403, "wrong_zone".into()));
    plant.http = own;
    let other = DeviceId::new("pump-1").unwrap();
    assert_eq!(plant.show(&other, third.clone()).await.refusal(), (403, "wrong_device".into()));
    assert_eq!(plant.world.tell(&id, "quarantine").await.status, 200);
    assert_eq!(plant.show(&id, third).await.status, 200, "it gets its lease");
    assert_eq!(plant.world.tell(&id, "revoke").await.status, 200);
    let fourth = plant.pumps[0].sealed();
    assert_eq!(plant.show(&id, fourth).await.refusal(), (403, "revoked".into()));
    assert_eq!(plant.world.tell(&plant.gateway.id, "revoke").await.status, 200);
    let fifth = plant.pumps[1].sealed();
    assert_eq!(plant.show(&other, fifth).await.refusal(), (403, "revoked".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rolled_out_is_refused_with_its_reason() {
    let plant = Plant::new().await;
    let made = plant.create(order(json!({ "start": false }))).await;
    assert_eq!((made.phase.as_str(), made.revision), ("planned", 0));
    let again = plant.create(order(json!({ "start": false }))).await;
    assert_eq!(again, made, "an order whose answer was lost is given again");
    for (more, status, word) in [
        (json!({ "bound": 2 }), 409, "id_taken"),
        (json!({ "id": "r-2", "version": "1.9.0" }), 404, "unknown_release"),
        (json!({ "id": "r-2", "product": "fan-app" }), 404, "unknown_release"),
        (json!({ "id": "r-2", "cohort": { "devices": ["pump-99"] } }), 404, "unknown_device"),
        (json!({ "id": "r-2", "cohort": { "zones": ["yard"] } }), 400, "no_cohort"),
        (json!({ "id": "r-2", "cohort": { "devices": ["gw-1"] } }), 400, "no_cohort"),
        (json!({ "id": "r-2", "waves": [] }), 400, "bad_plan"),
        (json!({ "id": "r-2", "waves": [{ "percent": 101 }] }), 400, "bad_percent"),
        (json!({ "id": "r-2", "colour": "red" }), 400, "bad_json"),
    ] {
        let got = plant.post(path::ROLLOUTS, order(more.clone())).await;
        assert_eq!(got.refusal(), (status, word.to_owned()), "{more}");
    }
    assert_eq!(plant.tell("r-9", "start").await.refusal(), (404, "unknown_rollout".into()));
    assert_eq!(plant.tell("r-1", "revert").await.refusal(), (409, "not_drawn".into()));
    assert_eq!(plant.tell("r-1", "start").await.status, 200);
    assert_eq!(plant.tell("r-1", "start").await.refusal(), (409, "not_drawn".into()));
    let second = order(json!({ "id": "r-2", "version": "1.0.0" }));
    assert_eq!(plant.post(path::ROLLOUTS, second).await.refusal(), (409, "under_way".into()));
    let later = order(json!({ "id": "r-3", "version": "1.0.0", "start": false }));
    plant.create(later).await;
    assert_eq!(plant.tell("r-3", "start").await.refusal(), (409, "under_way".into()));
    assert_eq!(plant.told_of("r-3").await, ["rollout.create", "rollout.refused"]);
    let mut unnamed = order(json!({ "start": false }));
    unnamed.as_object_mut().unwrap().remove("id");
    assert_eq!(plant.create(unnamed.clone()).await.id, "pump-app-1.1.0-1");
    assert_eq!(plant.create(unnamed).await.id, "pump-app-1.1.0-2");
    let all: Rollouts = Got::of(plant.world.operator(Method::GET, path::ROLLOUTS)).await.json();
    let ids: Vec<&str> = all.rollouts.iter().map(|rollout| rollout.id.as_str()).collect();
    assert_eq!(ids, ["pump-app-1.1.0-2", "pump-app-1.1.0-1", "r-3", "r-1"], "newest first");
}

/// One wave, and one device too many for its bound.
#[tokio::test(flavor = "multi_thread")]
async fn permits_that_are_outstanding_stay_within_the_bound() {
    let mut plant = Plant::new().await;
    let waves = json!([{ "percent": 100 }]);
    plant.create(order(json!({ "waves": waves, "bound": 4, "signals": [] }))).await;
    plant.stage("r-1", 1, "installing").await;
    let first = plant.all_check_in().await;
    assert_eq!(first.len(), 4, "INV-ROLL-2");
    plant.install(&first[..1]).await;
    let second = plant.all_check_in().await;
    assert_eq!(second.len(), 4, "one has proven itself, another may begin");
    assert_eq!(plant.rollout("r-1").await.counts.issued, 4);
    assert_eq!(plant.violations(), 0);
}

/// Check-ins at the same time, of devices whose answers change: each is answered, and the counts are right.
#[tokio::test(flavor = "multi_thread")]
async fn check_ins_at_the_same_time_are_counted_one_by_one() {
    let mut plant = Plant::new().await;
    let waves = json!([{ "percent": 100 }]);
    plant.create(order(json!({ "waves": waves, "bound": 3, "signals": [] }))).await;
    plant.stage("r-1", 1, "installing").await;
    let messages: Vec<_> = plant
        .pumps
        .iter_mut()
        .map(|pump| (pump.station.id.clone(), pump.sealed(), pump.sealed()))
        .collect();
    let plant = Arc::new(plant);
    let shown: Vec<_> = messages
        .into_iter()
        .flat_map(|(id, one, two)| [(id.clone(), one), (id, two)])
        .map(|(id, message)| {
            let plant = plant.clone();
            tokio::spawn(async move { plant.show(&id, message).await.status })
        })
        .collect();
    for shown in shown {
        let status = shown.await.unwrap().as_u16();
        assert!([200, 409].contains(&status), "{status}: the later one may have been faster");
    }
    let rollout = plant.rollout("r-1").await;
    assert_eq!(rollout.counts.issued, 3, "INV-ROLL-2");
    assert_eq!(plant.violations(), 0);
}

/// DESIGN §10: without room for evidence nothing is let out, and what narrows reaches whom it concerns.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_evidence_log_lets_no_permit_out_and_a_halt_through() {
    let disk = SimDisk::new(1);
    let mut plant = Plant::on(disk.shared()).await;
    plant.create(order(json!({}))).await;
    plant.stage("r-1", 1, "installing").await;
    plant.all_is_covered().await;
    disk.set_capacity(disk.used());
    // The first canary finds out that its permit cannot be logged: it is kept, and does not leave.
    let mut behind = 0;
    for n in 0..PUMPS {
        let (id, message) = (plant.pumps[n].station.id.clone(), plant.pumps[n].sealed());
        let got = plant.show(&id, message).await;
        if got.status != 200 {
            assert_eq!(got.refusal(), (503, "evidence_behind".into()));
            behind += 1;
        }
    }
    assert_eq!(behind, 1, "the others are not issued any");
    assert_eq!(plant.rollout("r-1").await.counts.issued, 1);
    assert_eq!(plant.tell("r-1", "pause").await.status, 200);
    assert_eq!(plant.tell("r-1", "resume").await.refusal().0, 503);
    assert_eq!(plant.tell("r-1", "halt").await.status, 200);
    let other = (0..PUMPS).find(|n| plant.pumps[*n].sequence > 0 && *n != 0).unwrap();
    let id = RolloutId::new("r-1").unwrap();
    let mut heard = 0;
    for n in [0, other] {
        let (device, message) = (plant.pumps[n].station.id.clone(), plant.pumps[n].sealed());
        let got = plant.show(&device, message).await;
        if got.status == 200 {
            let answer: CheckIn = got.json();
            let lease = cose::open(&answer.lease.0, 4096).unwrap();
            let lease = Lease::decode(lease.verify(director_key().public()).unwrap().payload());
            assert_eq!(lease.unwrap().halted, std::slice::from_ref(&id));
            heard += 1;
        }
    }
    assert!(heard >= 1, "who has no leave that is not logged hears of the halt");

    disk.set_capacity(u64::MAX);
    in_time("the log takes events again by itself", async {
        loop {
            let path = format!("{}?subject=rollout/r-1", path::EVENTS);
            let page: Events = Got::of(plant.world.operator(Method::GET, &path)).await.json();
            if page.events.last().unwrap().sequence < page.covered {
                return;
            }
        }
    })
    .await;
    assert_eq!(plant.all_check_in().await, [0; 0], "it is halted");
    let told = plant.told_of("r-1").await;
    for word in ["permit.issue", "rollout.pause", "rollout.halt", "lease.halt"] {
        assert!(told.contains(&word.into()), "{word} in {told:?}");
    }
    assert_eq!(plant.violations(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_cannot_be_written_keeps_no_other_from_going_on() {
    let plant = Plant::new().await;
    let step = plant.world.control.registry().step(|step| {
        Box::pin(async move {
            let broken = "CREATE TRIGGER broken BEFORE UPDATE ON rollouts WHEN NEW.id = 'r-1'
                BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: by a test'); END";
            let done = sqlx::query(broken).execute(step.tx()).await;
            done.map(drop).map_err(control::registry::RegistryError::Write)
        })
    });
    step.await.unwrap();
    for (id, pumps) in [("r-1", 0..5), ("r-2", 5..10)] {
        let devices: Vec<String> = pumps.map(|n| format!("pump-{n}")).collect();
        plant.create(order(json!({ "id": id, "cohort": { "devices": devices } }))).await;
    }
    plant.stage("r-2", 1, "installing").await;
    assert_eq!(plant.rollout("r-1").await.stage.as_deref(), Some("opening"));
    let violations = "plimsoll_invariant_violations_total{invariant=\"INV-STATE-1\"}";
    assert!(plant.world.metric(violations) > 0);
}

/// INV-EVID-1: a floor that has risen never falls again. That it may rise is that its rollout has completed.
#[tokio::test(flavor = "multi_thread")]
async fn no_floor_rises_before_the_end_of_its_rollout_is_in_the_evidence_log() {
    let disk = SimDisk::new(1);
    let mut plant = Plant::on(disk.shared()).await;
    let more = json!({ "waves": [{ "percent": 100 }], "signals": [], "raise": true });
    plant.create(order(more)).await;
    plant.stage("r-1", 1, "installing").await;
    let reached = plant.all_check_in().await;
    plant.install(&reached[1..]).await;
    plant.all_is_covered().await;
    disk.set_capacity(disk.used());
    plant.install(&reached[..1]).await;
    plant.phase("r-1", "completed").await;
    for n in reached {
        let (id, message) = (plant.pumps[n].station.id.clone(), plant.pumps[n].sealed());
        assert_eq!(plant.show(&id, message).await.refusal(), (503, "evidence_behind".into()));
    }
    disk.set_capacity(u64::MAX);
    plant.all_is_covered().await;
    plant.all_check_in().await;
}

/// Who has not shown an outcome in time counts as failed; what he shows later still counts as what it is.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_counts_as_failed_until_he_shows_what_he_runs() {
    let mut plant = Plant::new().await;
    let more = json!({
        "waves": [{ "percent": 100 }], "signals": [], "prove_within_ms": 300,
        "success_min_percent": 10, "quorum_percent": 10,
    });
    plant.create(order(more)).await;
    plant.stage("r-1", 1, "installing").await;
    let reached = plant.all_check_in().await;
    assert_eq!(reached.len(), 10);
    let prompt = &reached[..6];
    for n in prompt {
        plant.pumps[*n].running = digest_of(NEW);
    }
    for n in prompt {
        plant.check_in(*n).await;
    }
    let done = plant.phase("r-1", "completed").await;
    assert_eq!(done.counts.proven + done.counts.silent, 10, "{done:?}");
    assert!(done.counts.silent >= 4, "{done:?}");
    for n in reached {
        plant.pumps[n].running = digest_of(NEW);
        plant.check_in(n).await;
    }
    let late = plant.rollout("r-1").await;
    assert_eq!((late.counts.proven, late.counts.silent), (10, 0));
    let told = plant.told_of("r-1").await;
    assert!(told.contains(&"device.silent".into()), "{told:?}");
    assert_eq!(plant.violations(), 0);
}

/// Nobody could say anything to a control plane that did not run.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_overdue_when_control_started_has_time_to_show_what_he_runs() {
    let mut plant = Plant::new().await;
    let more = json!({ "waves": [{ "percent": 100 }], "signals": [], "prove_within_ms": 2000 });
    plant.create(order(more)).await;
    plant.stage("r-1", 1, "installing").await;
    let reached = plant.all_check_in().await;
    assert_eq!(reached.len(), PUMPS);
    let last = now().as_us() / 1000 + 4000;
    let mut plant = plant
        .restart_after(|_| {
            while now().as_us() / 1000 < last {
                std::thread::yield_now();
            }
        })
        .await;
    plant.install(&reached).await;
    let done = plant.phase("r-1", "completed").await;
    assert_eq!((done.counts.proven, done.counts.silent), (PUMPS as u64, 0));
    let told = plant.told_of("r-1").await;
    assert!(!told.contains(&"device.silent".into()), "{told:?}");
}

/// INV-COST-1: a gateway that floods takes the places of its own devices, and of no other gateway's.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_has_so_many_check_ins_at_a_time_and_no_more() {
    let mut plant = Plant::new().await;
    let other = plant.world.gateway("gw-2").await;
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let registry = plant.world.control.registry().clone();
    let busy = tokio::spawn(async move {
        let work = registry.step(move |_| {
            Box::pin(async move {
                drop(wait.await);
                Ok::<_, control::registry::RegistryError>(())
            })
        });
        work.await.unwrap();
    });
    let url = |device: &DeviceId| {
        format!("{}{}?device={device}", plant.world.base(), path::GATEWAY_CHECK_IN)
    };
    let send = |http: reqwest::Client, url: String, message: Vec<u8>| {
        tokio::spawn(async move {
            let request = http.post(url).header("content-type", "application/cose");
            Got::of(request.body(message)).await
        })
    };
    let mut sent = Vec::new();
    for n in 0..80 {
        let pump = &mut plant.pumps[n % 5];
        pump.running = digest_of(&[n as u8]);
        sent.push(send(plant.http.clone(), url(&pump.station.id.clone()), pump.sealed()));
    }
    plant.world.counted("plimsoll_control_refused_total{reason=\"busy\"}", 16).await;
    let pump = &mut plant.pumps[7];
    pump.running = digest_of(b"another");
    let theirs = plant.world.http(Some(&other.tls));
    let welcome = send(theirs, url(&pump.station.id.clone()), pump.sealed());
    go_on.send(()).unwrap();
    busy.await.unwrap();
    assert_eq!(welcome.await.unwrap().status, 200);
    let mut refused = 0;
    for got in sent {
        let got = got.await.unwrap();
        refused += usize::from(got.status == 503 && got.refusal().1 == "busy");
    }
    assert_eq!(refused, 16);
}

/// INV-FRESH-1: a bad release was taken back. A registry and a log from before that know it as one that goes out.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_registry_thinks_is_going_out_waits_for_a_person() {
    let mut plant = Plant::new().await;
    plant.create(order(json!({}))).await;
    plant.stage("r-1", 1, "installing").await;
    let reached = plant.all_check_in().await;
    assert_eq!(reached.len(), 3);
    let backup = |dir: &Path| copy(&dir.join("control"), &dir.join("backup"));
    let mut plant = plant.restart_after(backup).await;
    plant.install(&reached).await;
    assert_eq!(plant.tell("r-1", "halt").await.status, 200);
    assert_eq!(plant.tell("r-1", "revert").await.status, 200);
    plant.comes_to("r-1", "the way back is open", |r| r.phase == "reverting").await;
    in_time("everybody is told to go back", async {
        while plant.all_check_in().await != reached {}
    })
    .await;
    plant.install(&reached).await;
    plant.phase("r-1", "reverted").await;

    let restore = |dir: &Path| {
        std::fs::remove_dir_all(dir.join("control")).unwrap();
        copy(&dir.join("backup"), &dir.join("control"));
    };
    let mut plant = plant.restart_after(restore).await;
    let known = plant.rollout("r-1").await;
    assert_eq!((known.phase.as_str(), known.counts.issued), ("running", 3), "as in the backup");
    let told = plant.all_check_in().await;
    assert_eq!(told, [0; 0], "nobody is told to install again what was taken back");
    let held = plant.rollout("r-1").await;
    assert_eq!((held.phase.as_str(), held.counts.issued), ("paused", 3));
    assert!(held.why.as_deref().unwrap().contains("newer word of this site"), "{held:?}");
    let events: Events = Got::of(plant.world.operator(Method::GET, path::EVENTS)).await.json();
    let words: Vec<&str> = events.events.iter().map(|event| event.action.as_str()).collect();
    let at = |word| words.iter().position(|w| *w == word).unwrap();
    assert_eq!(at("generation.raised"), at("rollout.hold") + 1, "one step: {words:?}");
    assert_eq!(words.iter().filter(|w| **w == "rollout.hold").count(), 1);
    // So after another start too; and somebody who has looked may go on.
    let mut plant = plant.restart().await;
    assert_eq!(plant.all_check_in().await, [0; 0]);
    assert_eq!(plant.tell("r-1", "resume").await.status, 200);
    assert_eq!(plant.all_check_in().await, reached);
    assert_eq!(plant.violations(), 0);
}

/// INV-COST-1. The hot path of a fleet: nothing is written for who has nothing new to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_in_that_says_nothing_new_writes_nothing() {
    let mut plant = Plant::new().await;
    plant.all_check_in().await;
    let written = |plant: &Plant| {
        let registry = plant.world.control.registry();
        (registry.generation(), registry.events())
    };
    let file = plant.world.dir.path().join("control/registry.sqlite-wal");
    let log = || std::fs::metadata(&file).map_or(0, |meta| meta.len());
    let (before, bytes) = (written(&plant), log());
    let since = std::time::Instant::now();
    const ROUNDS: usize = 20;
    for _ in 0..ROUNDS {
        plant.all_check_in().await;
    }
    let took = since.elapsed();
    let count = (ROUNDS * PUMPS) as f64;
    println!("{:.0} check-ins/s, one after the other", count / took.as_secs_f64());
    assert_eq!((written(&plant), log()), (before, bytes));
    let path = format!("{}/pump-3/software", path::DEVICES);
    let software: Software = Got::of(plant.world.operator(Method::GET, &path)).await.json();
    assert!(software.number > ROUNDS as u64, "each of them counted");
}
