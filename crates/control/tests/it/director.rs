//! What devices are told: by the registry's own transactions, and judged as a device judges it.

use crate::vendor::{HARDWARE, Vendor};
use crate::world::{director_root, now, secret};
use api::update::CheckIn;
use api::{Ownership, Role as FleetRole, Standing};
use control::Published;
use control::director::{Asked, BadRoot, Director, DirectorError, Terms, first_root};
use control::directory::Device;
use control::metrics::Metrics;
use control::registry::{Registry, RegistryError};
use model::envelope::Algorithm;
use model::lease::Lease;
use model::manifest::{Boot, Component, Installed, Manifest, Slot, Trusted as Versions};
use model::{
    DeviceId, HardwareId, ProductId, RolloutId, SecurityVersion, Timestamp, Version, ZoneId,
};
use std::sync::Arc;
use tempfile::TempDir;
use trust::cose::{SecretKey, Signer as _};
use trust::lease::{Leases, NotNow, Took};
use trust::tuf::{Custom, Target, Trusted, Update};
use trust::uptane::{Assessment, assess};

const HOUR_US: i64 = 3_600_000_000;

/// A registry with one enrolled device, a Director, and a vendor that has published two releases.
struct Site {
    dir: TempDir,
    registry: Registry,
    key: Arc<SecretKey>,
    roots: Vec<Vec<u8>>,
    director: Arc<Director>,
    vendor: Vendor,
    start: Timestamp,
}

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.sqlite");
        let registry = Registry::open(&path, "site", "").await.unwrap();
        for serial in ["pump-1", "pump-2"] {
            let entry = Ownership {
                serial: serial.into(),
                role: FleetRole::Device,
                zone: "hall".into(),
                group: None,
            };
            registry.list(&entry, &"token/site".into(), now()).await.unwrap();
        }
        let key = Arc::new(secret(Algorithm::Ed25519));
        let roots = vec![director_root(&key)];
        let director = open(&key, &roots);
        let mut vendor = Vendor::new(now());
        vendor.publish("pump-app", "1.0.0", b"one");
        vendor.publish("pump-app", "1.1.0", b"two");
        Self { dir, registry, key, roots, director, vendor, start: now() }
    }

    fn after(&self, us: i64) -> Timestamp {
        Timestamp(self.start.as_us() + us)
    }

    /// Standing is what a test says: how it comes about is tested elsewhere.
    fn device(&self, id: &str, standing: Standing) -> Device {
        let directory = self.registry.directory();
        let known = directory.device(&DeviceId::new(id).unwrap()).unwrap();
        Device { standing, ..Device::clone(known) }
    }

    fn published(&self) -> Published {
        Published::of(&self.vendors(self.start).current(self.start).unwrap())
    }

    fn vendors(&self, now: Timestamp) -> Trusted {
        let root = self.vendor.first_root();
        let mut update = Update::begin(Trusted::from_root(&root, None).unwrap(), now);
        while let Some(fetch) = update.next() {
            match self.vendor.files.get(&fetch.name) {
                Some(bytes) => update.take(bytes).unwrap(),
                None => update.absent().unwrap(),
            };
        }
        update.into_trusted()
    }

    fn order(&self, version: &str, rollout: Option<&str>) -> Target {
        let published = self.published();
        let product = ProductId::new("pump-app").unwrap();
        let hardware = HardwareId::new(HARDWARE).unwrap();
        let target = published.find(&product, version.parse().unwrap(), &hardware).unwrap();
        let rollout = rollout.map(|id| RolloutId::new(id).unwrap());
        published.order(&product, target.hashes.sha256.unwrap(), rollout, None).unwrap()
    }

    /// One check-in, in a transaction of its own.
    async fn told(
        &self,
        device: &Device,
        manifest: &Manifest,
        orders: &[Target],
        halted: &[RolloutId],
        now: Timestamp,
    ) -> Result<CheckIn, DirectorError> {
        let (device, manifest) = (device.clone(), manifest.clone());
        let (orders, halted) = (orders.to_vec(), halted.to_vec());
        let director = self.director.clone();
        let done = self.registry.step(move |step| {
            Box::pin(async move {
                let asked = Asked {
                    device: &device,
                    manifest: &manifest,
                    orders: &orders,
                    halted: &halted,
                };
                director.answer(step, &asked, now).await
            })
        });
        let (check_in, learnt) = done.await?.value;
        self.director.learn(learnt);
        Ok(check_in)
    }

    fn at_once(
        &self,
        device: &Device,
        manifest: &Manifest,
        orders: &[Target],
        halted: &[RolloutId],
        now: Timestamp,
    ) -> Option<CheckIn> {
        let asked = Asked { device, manifest, orders, halted };
        let directory = self.registry.directory().generation();
        let answer = self.director.at_once(&asked, directory, self.registry.generation(), now);
        answer.map(Result::unwrap)
    }

    async fn actions(&self) -> Vec<String> {
        let read = self.registry.read(|connection| {
            Box::pin(async move {
                sqlx::query_scalar("SELECT action FROM events ORDER BY sequence")
                    .fetch_all(connection)
                    .await
                    .map_err(RegistryError::Read)
            })
        });
        let mut actions: Vec<String> = read.await.unwrap();
        actions.retain(|action| action != "device.list");
        actions
    }
}

fn open(key: &SecretKey, roots: &[Vec<u8>]) -> Arc<Director> {
    let key = SecretKey::from_pkcs8_der(&key.to_pkcs8_der()).unwrap();
    let metrics = Metrics::new().unwrap();
    Arc::new(Director::open(key, roots.to_vec(), Terms::default(), metrics).unwrap())
}

fn lease(site: &Site, told: &CheckIn) -> Lease {
    let opened = trust::cose::open(&told.lease.0, 8192).unwrap();
    let verified = opened.verify(site.key.public()).unwrap();
    Lease::decode(verified.payload()).unwrap()
}

/// The device's side: what it trusts of the Director, and its own word.
struct Pump {
    id: DeviceId,
    trusted: Trusted,
}

impl Pump {
    fn new(id: &str, root: &[u8]) -> Self {
        let id = DeviceId::new(id).unwrap();
        let trusted = Trusted::from_root(root, Some(id.clone())).unwrap();
        Self { id, trusted }
    }

    fn runs(&self) -> Component {
        let installed = Installed {
            version: Version::new(1, 0, 0),
            digest: trust::digest(b"one"),
            length: 3,
            security_version: SecurityVersion(1),
        };
        Component {
            product: ProductId::new("pump-app").unwrap(),
            hardware: HardwareId::new(HARDWARE).unwrap(),
            floor: SecurityVersion(0),
            running: Slot::A,
            boot: Boot::Confirmed,
            slots: [Some(installed), None],
        }
    }

    fn manifest(&self) -> Manifest {
        Manifest {
            device: self.id.clone(),
            components: vec![self.runs()],
            director: self.trusted.versions(),
            images: Versions::default(),
            outcome: None,
        }
    }

    /// Takes what came, as any TUF client does.
    fn take(&mut self, check_in: &CheckIn, now: Timestamp) -> Result<(), trust::tuf::Refused> {
        let Some(files) = &check_in.director else { return Ok(()) };
        let mut roots = files.roots.iter();
        let mut update = Update::begin(self.trusted.clone(), now);
        while let Some(fetch) = update.next() {
            let bytes = match fetch.role {
                trust::tuf::Role::Root => roots.next(),
                trust::tuf::Role::Timestamp => Some(&files.timestamp),
                trust::tuf::Role::Snapshot => Some(&files.snapshot),
                trust::tuf::Role::Targets => Some(&files.targets),
            };
            match bytes {
                Some(bytes) => update.take(&bytes.0)?,
                None => update.absent()?,
            };
        }
        self.trusted = update.into_trusted();
        Ok(())
    }
}

#[tokio::test]
async fn a_device_is_told_what_to_run_and_after_that_its_lease_only() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let mut pump = Pump::new("pump-1", &site.roots[0]);
    // Nobody ordered anything: it has metadata to judge by all the same, once.
    let first = site.told(&device, &pump.manifest(), &[], &[], site.start).await.unwrap();
    pump.take(&first, site.start).unwrap();
    let vendors = site.vendors(site.start);
    let images = vendors.current(site.start).unwrap();
    let judged = |pump: &Pump| {
        let director = pump.trusted.current(site.start).unwrap();
        assess(&director, &images, &pump.id, &pump.runs())
    };
    assert_eq!(judged(&pump), Assessment::Nothing);
    let again = site.at_once(&device, &pump.manifest(), &[], &[], site.start).unwrap();
    assert_eq!((again.director, &again.lease), (None, &first.lease), "and no transaction");
    assert_eq!(again.again_ms, 60_000);
    // An order is a newer generation, and what both repositories name is installed.
    let order = [site.order("1.1.0", Some("r-1"))];
    assert_eq!(site.at_once(&device, &pump.manifest(), &order, &[], site.start), None);
    let ordered = site.told(&device, &pump.manifest(), &order, &[], site.start).await.unwrap();
    let before = pump.trusted.versions().targets;
    pump.take(&ordered, site.start).unwrap();
    assert!(pump.trusted.versions().targets > before);
    let Assessment::Install(install) = judged(&pump) else { panic!("{:?}", judged(&pump)) };
    assert_eq!(install.digest(), trust::digest(b"two"));
    assert_eq!(install.order().rollout, Some(RolloutId::new("r-1").unwrap()));
    let again = site.at_once(&device, &pump.manifest(), &order, &[], site.start).unwrap();
    assert_eq!(again.director, None);
}

/// A pure function of what is kept: also of another process, which has nothing but the registry.
#[tokio::test]
async fn who_asks_again_gets_the_same_bytes_from_whoever_answers() {
    let mut site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let manifest = Pump::new("pump-1", &site.roots[0]).manifest();
    let order = [site.order("1.1.0", Some("r-1"))];
    let first = site.told(&device, &manifest, &order, &[], site.start).await.unwrap();
    let later = site.after(9_000_000);
    assert_eq!(site.at_once(&device, &manifest, &order, &[], later), Some(first.clone()));
    site.director = open(&site.key, &site.roots);
    assert_eq!(site.at_once(&device, &manifest, &order, &[], later), None, "it knows nothing yet");
    let generation = site.registry.generation();
    let second = site.told(&device, &manifest, &order, &[], later).await.unwrap();
    assert_eq!((second, site.registry.generation()), (first, generation));
}

#[tokio::test]
async fn metadata_are_made_anew_when_half_of_their_life_is_over() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let mut pump = Pump::new("pump-1", &site.roots[0]);
    let order = [site.order("1.1.0", None)];
    let first = site.told(&device, &pump.manifest(), &order, &[], site.start).await.unwrap();
    pump.take(&first, site.start).unwrap();
    let (before, after) = (site.after(12 * HOUR_US - 1_000_000), site.after(12 * HOUR_US));
    let told = site.told(&device, &pump.manifest(), &order, &[], before).await.unwrap();
    assert_eq!(told.director, None);
    let told = site.told(&device, &pump.manifest(), &order, &[], after).await.unwrap();
    pump.take(&told, after).unwrap();
    let end = site.after(12 * HOUR_US + 24 * HOUR_US - 1_000_000);
    assert!(pump.trusted.current(end).is_ok(), "a day from then on");
}

/// Swapped by whoever is on the way: each device takes its own only (Uptane's mix of devices).
#[tokio::test]
async fn what_one_device_is_told_no_other_takes() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let mut pump = Pump::new("pump-1", &site.roots[0]);
    let mut other = Pump::new("pump-2", &site.roots[0]);
    let told = site.told(&device, &pump.manifest(), &[], &[], site.start).await.unwrap();
    let refused = other.take(&told, site.start).unwrap_err();
    assert_eq!(refused.label(), "other_device");
    assert_eq!(other.trusted.versions().timestamp, 0, "nothing of it was kept");
    pump.take(&told, site.start).unwrap();
    // Who is told is who proved its key, whatever its manifest says.
    let second = site.device("pump-2", Standing::Enrolled);
    let told = site.told(&second, &pump.manifest(), &[], &[], site.start).await.unwrap();
    assert_eq!(pump.take(&told, site.start).unwrap_err().label(), "other_device");
    other.take(&told, site.start).unwrap();
}

/// A control plane that is not its owner's any more, with the online key and without one of the vendor's: it chooses among
/// what the vendor has published, and makes nothing.
#[tokio::test]
async fn a_site_that_orders_an_image_of_its_own_installs_nothing() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let vendors = site.vendors(site.start);
    let images = vendors.current(site.start).unwrap();
    let mut forger = Vendor::new(now());
    let own = forger.publish("pump-app", "9.0.0", b"its own");
    let published = site.order("1.1.0", None);
    let (mut other_bytes, mut other_length) = (published.clone(), published.clone());
    other_bytes.hashes = own.hashes.clone();
    other_length.length += 1;
    let mut other_words = published.clone();
    if let Custom::Order(order) = &mut other_words.custom {
        order.release.security_version = SecurityVersion(7);
    }
    for (what, order, expected) in [
        ("an image that the vendor has not", own, "not_published"),
        ("other bytes under the vendor's name", other_bytes, "differs"),
        ("another length", other_length, "differs"),
        ("other words", other_words, "differs"),
    ] {
        let mut pump = Pump::new("pump-1", &site.roots[0]);
        let told = site.told(&device, &pump.manifest(), &[order], &[], site.start).await.unwrap();
        pump.take(&told, site.start).unwrap();
        let director = pump.trusted.current(site.start).unwrap();
        let Assessment::Refused(refused) = assess(&director, &images, &pump.id, &pump.runs())
        else {
            panic!("{what} is followed");
        };
        assert_eq!(refused.label(), expected, "{what}: {refused}");
    }
}

/// What was said before is shown again, by whoever is on the way or by a registry out of a backup.
#[tokio::test]
async fn what_a_device_was_told_before_it_does_not_take_again() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let mut pump = Pump::new("pump-1", &site.roots[0]);
    let order = [site.order("1.1.0", Some("r-1"))];
    let old = site.told(&device, &pump.manifest(), &order, &[], site.start).await.unwrap();
    pump.take(&old, site.start).unwrap();
    let halted = [RolloutId::new("r-1").unwrap()];
    let new = site.told(&device, &pump.manifest(), &[], &halted, site.start).await.unwrap();
    pump.take(&new, site.start).unwrap();
    let mut leases = Leases::new(ZoneId::new("hall").unwrap(), vec![site.key.public().clone()]);
    assert_eq!(leases.take(&new.lease.0, 0, site.start), Ok(Took::New));
    let before = pump.trusted.versions();
    assert_eq!(pump.take(&old, site.start).unwrap_err().label(), "older");
    assert_eq!(pump.trusted.versions(), before);
    assert_eq!(leases.take(&old.lease.0, 0, site.start).unwrap_err().label(), "older");
}

/// INV-ROLL-1: whoever asks after the halt gets a lease that names it, however young the last one is.
#[tokio::test]
async fn a_halt_is_in_the_very_next_lease() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let pump = Pump::new("pump-1", &site.roots[0]);
    let keys = vec![site.key.public().clone()];
    let mut leases = Leases::new(ZoneId::new("hall").unwrap(), keys);
    let rollout = RolloutId::new("r-1").unwrap();
    let (now, second) = (site.start, site.after(1_000_000));
    let told = site.told(&device, &pump.manifest(), &[], &[], now).await.unwrap();
    assert_eq!(leases.take(&told.lease.0, 0, now), Ok(Took::New));
    assert_eq!(leases.may_arm(Some(&rollout), 60_000, 1), Ok(()));
    let halted = [rollout.clone(), rollout.clone()];
    assert_eq!(site.at_once(&device, &pump.manifest(), &[], &halted, second), None);
    let told = site.told(&device, &pump.manifest(), &[], &halted, second).await.unwrap();
    assert_eq!(leases.take(&told.lease.0, 1000, second), Ok(Took::New));
    assert_eq!(leases.may_arm(Some(&rollout), 60_000, 1001), Err(NotNow::Halted));
    assert_eq!(site.actions().await, ["lease.halt"]);
    // Said once; and the same lease serves the whole zone.
    let told = site.at_once(&device, &pump.manifest(), &[], &halted, second);
    assert!(told.is_some());
    let third = site.after(20_000_000);
    site.told(&device, &pump.manifest(), &[], &halted, third).await.unwrap();
    assert_eq!(site.actions().await, ["lease.halt"], "the next one names it too, which is no news");
}

#[tokio::test]
async fn a_lease_is_made_anew_when_it_is_old_or_the_fleet_has_changed_and_not_otherwise() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let pump = Pump::new("pump-1", &site.roots[0]);
    let manifest = pump.manifest();
    let told = |now| site.told(&device, &manifest, &[], &[], now);
    let lease = |told: CheckIn| lease(&site, &told);
    let first = lease(told(site.start).await.unwrap());
    assert_eq!(first.not_after.as_us() - first.issued.as_us(), 15 * 60 * 1_000_000);
    assert_eq!(first.policy, site.registry.directory().generation());
    assert_eq!(lease(told(site.after(14_999_999)).await.unwrap()), first);
    let second = lease(told(site.after(15_000_000)).await.unwrap());
    assert!(second.number > first.number);
    // A clock that went back: an old lease does not count as a new one for as long as that.
    let back = lease(told(site.start).await.unwrap());
    assert!(back.number > second.number && back.issued == site.start);
    let entry = Ownership {
        serial: "pump-9".into(),
        role: FleetRole::Device,
        zone: "hall".into(),
        group: None,
    };
    site.registry.list(&entry, &"token/site".into(), site.start).await.unwrap();
    let changed = lease(told(site.start).await.unwrap());
    assert!(changed.number > back.number && changed.policy > back.policy);
}

#[tokio::test]
async fn more_halted_rollouts_than_a_lease_can_name_get_none() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let pump = Pump::new("pump-1", &site.roots[0]);
    let rollouts = |count: usize| -> Vec<RolloutId> {
        (0..count).map(|n| RolloutId::new(format!("r-{n:03}")).unwrap()).collect()
    };
    site.told(&device, &pump.manifest(), &[], &rollouts(64), site.start).await.unwrap();
    let refused = site.told(&device, &pump.manifest(), &[], &rollouts(65), site.start).await;
    assert!(matches!(refused, Err(DirectorError::TooManyHalted { found: 65 })), "{refused:?}");
}

/// INV-FRESH-1: a registry out of a backup does not speak below what devices have seen.
#[tokio::test]
async fn a_restored_registry_goes_above_what_a_device_has_seen_and_that_is_an_event() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let mut pump = Pump::new("pump-1", &site.roots[0]);
    let seen = site.registry.generation() + 1000;
    let by: &[&dyn trust::cose::Signer] = &[&*site.key];
    let signers = trust::uptane::Signers { timestamp: by, snapshot: by, targets: by };
    let lifetimes = Terms::default().lifetimes;
    let lost =
        trust::uptane::directed(&pump.id, seen, &[], site.start, &lifetimes, &signers).unwrap();
    let lost = CheckIn {
        format: 1,
        lease: Default::default(),
        director: Some(api::update::DirectorFiles {
            roots: vec![],
            timestamp: api::Base64(lost.timestamp),
            snapshot: api::Base64(lost.snapshot),
            targets: api::Base64(lost.targets),
        }),
        again_ms: 1,
    };
    pump.take(&lost, site.start).unwrap();
    assert_eq!(site.at_once(&device, &pump.manifest(), &[], &[], site.start), None);
    let told = site.told(&device, &pump.manifest(), &[], &[], site.start).await.unwrap();
    pump.take(&told, site.start).unwrap();
    assert!(pump.trusted.versions().targets > seen, "the device follows");
    assert_eq!(site.actions().await, ["generation.raised"]);
    // Leases of before have higher numbers than any device reports: they go on above them too.
    let given = lease(&site, &told);
    assert!(given.number > seen + 100_000);
    // The directory is as old as the backup, and says so until a person has changed something in it: then what he changed is
    // in the first bundle and lease that are newer than what gateways and devices have.
    let directory = site.registry.directory().generation();
    assert!(directory < seen && given.policy == directory);
    let entry = Ownership {
        serial: "pump-3".into(),
        role: FleetRole::Device,
        zone: "hall".into(),
        group: None,
    };
    site.registry.list(&entry, &"token/site".into(), site.start).await.unwrap();
    assert!(site.registry.directory().generation() > seen + 100_000);
    // Not for each device, and not at the pace of one that counts upwards.
    let mut next = pump.manifest();
    next.director.targets = site.registry.generation() + 100;
    let minute = site.after(60_000_000);
    site.told(&device, &next, &[], &[], minute).await.unwrap();
    assert_eq!(site.actions().await, ["generation.raised"]);
    let later = site.after(600_000_000);
    site.told(&device, &next, &[], &[], later).await.unwrap();
    assert_eq!(site.actions().await, ["generation.raised", "generation.raised"]);
    assert!(site.registry.generation() > next.director.targets);
    // A device that lies does not use up the numbers of all.
    let mut liar = pump.manifest();
    liar.director.targets = 1 << 52;
    let generation = site.registry.generation();
    let much_later = site.after(1_201_000_000);
    site.told(&device, &liar, &[], &[], much_later).await.unwrap();
    let now = site.registry.generation();
    assert!(now <= generation + 2, "{generation} {now}: a lease, and nothing else");
    assert_eq!(site.actions().await.len(), 2);
}

#[tokio::test]
async fn who_is_quarantined_gets_the_lease_and_nothing_new() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Quarantined);
    let manifest = Pump::new("pump-1", &site.roots[0]).manifest();
    let order = [site.order("1.1.0", Some("r-1"))];
    let told = site.told(&device, &manifest, &order, &[], site.start).await.unwrap();
    assert_eq!(told.director, None);
    assert!(!told.lease.0.is_empty());
    let again = site.at_once(&device, &manifest, &order, &[], site.start).unwrap();
    assert_eq!(again, told);
}

/// Else a device could be told under a number that the registry gives to other words later.
#[tokio::test]
async fn what_was_not_committed_was_never_said() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let manifest = Pump::new("pump-1", &site.roots[0]).manifest();
    let director = site.director.clone();
    let (theirs, its) = (device.clone(), manifest.clone());
    let before = site.registry.generation();
    let now = site.start;
    let undone = site.registry.step(move |step| {
        Box::pin(async move {
            let asked = Asked { device: &theirs, manifest: &its, orders: &[], halted: &[] };
            let (_, learnt) = director.answer(step, &asked, now).await?;
            drop(learnt);
            Err::<(), _>(DirectorError::TooManyHalted { found: 0 })
        })
    });
    undone.await.unwrap_err();
    assert_eq!(site.registry.generation(), before);
    assert_eq!(site.at_once(&device, &manifest, &[], &[], now), None);
    site.told(&device, &manifest, &[], &[], now).await.unwrap();
    assert!(site.at_once(&device, &manifest, &[], &[], now).is_some());
}

/// INV-FRESH-1: the second look, behind the code.
#[tokio::test]
async fn the_schema_lets_no_number_of_a_device_or_lease_go_back() {
    let site = Site::new().await;
    let device = site.device("pump-1", Standing::Enrolled);
    let manifest = Pump::new("pump-1", &site.roots[0]).manifest();
    site.told(&device, &manifest, &[], &[], site.start).await.unwrap();
    for sql in [
        "UPDATE directed SET orders = '[]', generation = generation",
        "UPDATE directed SET generation = 1",
        "UPDATE leases SET message = x'00', number = number",
        "UPDATE leases SET number = 1",
    ] {
        let broken = site.registry.step(move |step| {
            Box::pin(async move {
                let done = sqlx::query(sql).execute(step.tx()).await;
                done.map(drop).map_err(RegistryError::Write)
            })
        });
        let broken = broken.await.unwrap_err();
        assert_eq!(broken.broken_invariant(), Some("INV-FRESH-1"), "{sql}");
    }
    assert!(site.dir.path().exists());
}

#[test]
fn roots_that_do_not_name_the_online_key_alone_are_refused_at_the_start() {
    let draw = || secret(Algorithm::Ed25519);
    let (key, other) = (draw(), draw());
    let offline = [draw(), draw(), draw()];
    let root = first_root(&offline, key.public(), now()).unwrap();
    let start = |key: &SecretKey, roots: Vec<Vec<u8>>| {
        let key = SecretKey::from_pkcs8_der(&key.to_pkcs8_der()).unwrap();
        Director::open(key, roots, Terms::default(), Metrics::new().unwrap()).map(drop)
    };
    start(&key, vec![root.clone()]).unwrap();
    assert!(matches!(start(&key, vec![]), Err(BadRoot::None)));
    assert!(matches!(start(&other, vec![root.clone()]), Err(BadRoot::OtherKey { root: 1, .. })));
    let twice = start(&key, vec![root.clone(), root.clone()]);
    assert!(matches!(twice, Err(BadRoot::Refused { number: 2, of: 2, .. })), "{twice:?}");
    let broken = start(&key, vec![b"{}".to_vec()]);
    assert!(matches!(broken, Err(BadRoot::Refused { number: 1, of: 1, .. })), "{broken:?}");
}
