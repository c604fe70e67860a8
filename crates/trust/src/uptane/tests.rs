//! IMG-1, attacked: each refusal starts from an install that both repositories name, and changes one thing.

use super::*;
use crate::cose::SecretKey;
use crate::tuf::kit::{self, NOW, Repo, at, dynamic, insert, target, version};
use crate::tuf::{Trusted, json::Value};
use alloc::format;
use alloc::vec;
use model::manifest::{Installed, Slot};
use model::{Release, RolloutId};
use proptest::prelude::*;

const DEVICE: &str = "pump-7";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LIFETIMES: Lifetimes = Lifetimes { timestamp: DAY, snapshot: DAY, targets: DAY };

fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

/// The vendor, the operator's Director for pump-7, and the device.
#[derive(Clone)]
struct Site {
    images: Repo,
    director: Repo,
    device: DeviceId,
    me: Component,
    trusted_images: Trusted,
    trusted_director: Trusted,
}

/// What keeps an image from a device: the metadata, or what they say together.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stop {
    Images(crate::tuf::Refused),
    Director(crate::tuf::Refused),
    Order(Refused),
}

impl Stop {
    fn label(&self) -> &'static str {
        match self {
            Self::Images(refused) | Self::Director(refused) => refused.label(),
            Self::Order(refused) => refused.label(),
        }
    }
}

impl Site {
    /// The vendor published 1.0.0 to 1.2.0, the device runs 1.0.0, and generation 5 orders 1.1.0.
    fn new() -> Self {
        let mut images = Repo::new(1, None);
        images.publish(1, &[target("1.0.0", 1), target("1.1.0", 1), target("1.2.0", 2)]);
        let director = Repo::new(20, Some(DEVICE));
        let (trusted_images, trusted_director) = (images.client(), director.client());
        let me = component("1.0.0", 1);
        let device = id(DEVICE);
        let mut site = Self { images, director, device, me, trusted_images, trusted_director };
        site.direct(4, &[]);
        assert_eq!(site.checked_in(), Ok(Assessment::Nothing));
        site.direct(5, &[target("1.1.0", 1)]);
        site
    }

    /// What the Director's own code makes for this device.
    fn direct(&mut self, generation: u64, orders: &[Target]) {
        let made = self.directed(DEVICE, generation, orders);
        self.serve(&made);
    }

    fn directed(&self, device: &str, generation: u64, orders: &[Target]) -> Directed {
        let of = |role| self.director.hands.signers(role);
        let (timestamp, snapshot, targets) =
            (of(Role::Timestamp), of(Role::Snapshot), of(Role::Targets));
        let signers = Signers {
            timestamp: &dynamic(&timestamp),
            snapshot: &dynamic(&snapshot),
            targets: &dynamic(&targets),
        };
        directed(&id(device), generation, orders, at(NOW), &LIFETIMES, &signers).unwrap()
    }

    fn serve(&mut self, made: &Directed) {
        for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
            let name = kit::name(role, made.generation);
            self.director.files.insert(name.clone(), made.file(&name).unwrap().to_vec());
        }
    }

    /// Both cycles and the assessment, as a device does them at each check-in.
    fn checked_in(&mut self) -> Result<Assessment, Stop> {
        self.checked_in_at(NOW)
    }

    fn checked_in_at(&mut self, now: &str) -> Result<Assessment, Stop> {
        let (director, result) = self.director.update(&self.trusted_director, now);
        self.trusted_director = director;
        result.map_err(Stop::Director)?;
        let (images, result) = self.images.update(&self.trusted_images, now);
        self.trusted_images = images;
        result.map_err(Stop::Images)?;
        let director = self.trusted_director.current(at(now)).map_err(Stop::Director)?;
        let images = self.trusted_images.current(at(now)).map_err(Stop::Images)?;
        match assess(&director, &images, &self.device, &self.me) {
            Assessment::Refused(refused) => Err(Stop::Order(refused)),
            assessment => Ok(assessment),
        }
    }

    /// The device installs what it was told and confirms it.
    fn installs(&mut self, install: &Install) {
        let release = &install.order().release;
        self.me.slots[0] = Some(Installed {
            version: release.version,
            digest: install.digest(),
            length: install.length(),
            security_version: release.security_version,
        });
    }
}

fn component(running: &str, security: u32) -> Component {
    let image = kit::image(running);
    let installed = Installed {
        version: version(running),
        digest: crate::digest(&image),
        length: image.len() as u64,
        security_version: SecurityVersion(security),
    };
    Component {
        product: ProductId::new("pump-app").unwrap(),
        hardware: HardwareId::new("pump-box").unwrap(),
        floor: SecurityVersion(1),
        running: Slot::A,
        boot: Boot::Confirmed,
        slots: [Some(installed), None],
    }
}

fn changed(of: &str, security: u32, change: impl FnOnce(&mut Order)) -> Target {
    let mut target = target(of, security);
    let Custom::Order(order) = &mut target.custom else { panic!("made with an order") };
    change(order);
    target
}

#[test]
fn what_both_name_is_installed_and_then_there_is_nothing_to_do() {
    let mut site = Site::new();
    let rollout = Some(RolloutId::new("r-12").unwrap());
    site.direct(6, &[changed("1.1.0", 1, |order| order.rollout = rollout.clone())]);
    let Ok(Assessment::Install(install)) = site.checked_in() else { panic!("an order stands") };
    assert_eq!(install.path(), "pump-app/1.1.0/pump-box.bin");
    assert_eq!(install.digest(), crate::digest(&kit::image("1.1.0")));
    assert_eq!(install.length(), kit::image("1.1.0").len() as u64);
    assert_eq!(install.order().rollout, rollout);
    site.installs(&install);
    assert_eq!(site.checked_in(), Ok(Assessment::Nothing));
    // The way back to an older release, not below the floor, is an order like any other.
    site.direct(7, &[target("1.0.0", 1)]);
    assert!(matches!(site.checked_in(), Ok(Assessment::Install(_))));
}

#[test]
fn no_played_attacker_makes_a_device_install_anything() {
    type Attack = fn(&mut Site);
    fn own_image(of: &str) -> Target {
        Target::of(
            format!("pump-app/{of}/pump-box.bin"),
            b"the attacker's image",
            kit::order("pump-app", of, 1),
        )
    }
    let table: &[(&str, &str, Attack)] = &[
        // A control plane that has the Director's keys and not the vendor's.
        ("an image of its own", "not_published", |s| s.direct(6, &[own_image("9.9.9")])),
        ("an image of its own under the name of a release", "differs", |s| {
            s.direct(6, &[own_image("1.1.0")]);
        }),
        ("an image of its own, as long as the release", "differs", |s| {
            let mut target = target("1.1.0", 1);
            target.hashes.sha256 = Some(Digest([9; 32]));
            s.direct(6, &[target]);
        }),
        ("the vendor's digest with another length", "differs", |s| {
            s.direct(6, &[Target { length: 7, ..target("1.1.0", 1) }]);
        }),
        ("a release called newer than the vendor calls it", "differs", |s| {
            s.direct(6, &[changed("1.1.0", 1, |o| o.release.version = version("1.9.0"))]);
        }),
        ("a release with a higher security version than the vendor's", "differs", |s| {
            s.direct(6, &[target("1.1.0", 9)]);
        }),
        ("a release for hardware that the vendor does not name", "differs", |s| {
            let other = HardwareId::new("valve-box").unwrap();
            s.direct(6, &[changed("1.1.0", 1, |o| o.release.hardware.push(other))]);
        }),
        ("one product's image as another's", "differs", |s| {
            s.me.product = ProductId::new("agent").unwrap();
            let product = s.me.product.clone();
            s.direct(6, &[changed("1.1.0", 1, |o| o.release.product = product)]);
        }),
        ("a way without the steps that the vendor asks for", "differs", |s| {
            let steps = vec![version("1.0.5")];
            s.images.publish(2, &[changed("1.1.0", 1, |o| o.release.must_pass = steps)]);
        }),
        ("an image without SHA-256", "differs", |s| {
            let mut target = target("1.1.0", 1);
            target.hashes.sha512 = Some([7; 64]);
            target.hashes.sha256 = None;
            s.direct(6, &[target]);
        }),
        ("another SHA-512", "differs", |s| {
            let with = |byte| {
                let mut target = target("1.1.0", 1);
                target.hashes.sha512 = Some([byte; 64]);
                target
            };
            s.images.publish(2, &[with(1)]);
            s.direct(6, &[with(2)]);
        }),
        ("a word without custom data", "unreadable", |s| {
            s.direct(6, &[Target { custom: Custom::None, ..target("1.1.0", 1) }]);
        }),
        ("two releases at once", "ambiguous", |s| {
            s.direct(6, &[target("1.1.0", 1), target("1.2.0", 2)]);
        }),
        ("hardware that the vendor's image is not for", "other_hardware", |s| {
            s.me.hardware = HardwareId::new("valve-box").unwrap();
        }),
        ("an image below the floor", "below_floor", |s| s.me.floor = SecurityVersion(2)),
        ("a jump over a release", "must_pass", |s| {
            let steps = |o: &mut Order| o.release.must_pass = vec![version("1.1.0")];
            s.images.publish(2, &[target("1.1.0", 1), changed("1.2.0", 2, steps)]);
            s.direct(6, &[changed("1.2.0", 2, steps)]);
        }),
        ("a floor above what runs", "raise_too_early", |s| {
            s.me = component("1.1.0", 1);
            s.direct(6, &[changed("1.1.0", 1, |o| o.raise = Some(SecurityVersion(2)))]);
        }),
        ("a floor above what the device knows of the image that it runs", "raise_too_early", |s| {
            s.me = component("1.2.0", 1);
            s.direct(6, &[changed("1.2.0", 2, |o| o.raise = Some(SecurityVersion(2)))]);
        }),
        ("a floor before the trial is over", "raise_too_early", |s| {
            s.me = component("1.2.0", 2);
            s.me.boot = Boot::Trial;
            s.direct(6, &[changed("1.2.0", 2, |o| o.raise = Some(SecurityVersion(2)))]);
        }),
        // A gateway that withholds.
        ("no timestamp of the Director's", "absent", |s| {
            s.director.files.remove("timestamp.json");
        }),
        ("no targets of the Director's", "absent", |s| {
            s.director.files.remove("5.targets.json");
        }),
        ("no timestamp of the vendor's", "absent", |s| {
            s.images.files.remove("timestamp.json");
        }),
        // That replays: generation 4, though the device has heard of 5.
        ("the generation before", "older", |s| {
            s.checked_in().unwrap();
            s.direct(4, &[]);
        }),
        // That mixes: a file of one generation in the place of another's.
        ("the targets of another generation", "other_length", |s| {
            let bytes = s.director.files["4.targets.json"].clone();
            s.director.files.insert("5.targets.json".into(), bytes);
        }),
        ("the snapshot of another generation", "other_digest", |s| {
            let bytes = s.director.files["4.snapshot.json"].clone();
            s.director.files.insert("5.snapshot.json".into(), bytes);
        }),
        // That swaps metadata between devices.
        ("another device's word", "other_device", |s| {
            let made = s.directed("pump-8", 6, &[target("1.1.0", 1)]);
            s.serve(&made);
        }),
        ("another device's targets", "other_digest", |s| {
            // As long as its own, too: only the name differs.
            let own = s.directed(DEVICE, 6, &[target("1.1.0", 1)]);
            let theirs = s.directed("pump-8", 6, &[target("1.1.0", 1)]);
            assert_eq!(own.targets.len(), theirs.targets.len());
            s.serve(&Directed { targets: theirs.targets, ..own });
        }),
        // That swaps the two repositories.
        ("the vendor's word as the Director's", "too_few_signatures", |s| {
            s.director.files = s.images.files.clone();
        }),
        ("the Director's word as the vendor's", "too_few_signatures", |s| {
            s.images.files = s.director.files.clone();
        }),
        // That changes what passes.
        ("a digest changed on the way", "other_digest", |s| {
            let bytes = s.director.files.get_mut("5.targets.json").unwrap();
            let digest = format!("{}", crate::digest(&kit::image("1.1.0")));
            let from = bytes.windows(64).position(|w| w == digest.as_bytes()).unwrap();
            bytes[from] = if bytes[from] == b'0' { b'1' } else { b'0' };
        }),
        // An old Director's disk, restored.
        ("a Director restored from a backup", "older", |s| {
            s.direct(9, &[]);
            s.checked_in().unwrap();
            s.direct(6, &[target("1.1.0", 1)]);
        }),
        // Under the threshold.
        ("the Director's targets by one of two", "too_few_signatures", |s| {
            let one: [SecretKey; 1] = [kit::secret(25)];
            s.director.edit_as(Role::Targets, 5, &one, |_| ());
            s.director.snap(5);
            s.director.stamp(5);
        }),
        ("the vendor's targets by one of two", "too_few_signatures", |s| {
            s.images.publish(2, &[target("1.1.0", 1)]);
            let one: [SecretKey; 1] = [kit::secret(6)];
            s.images.edit_as(Role::Targets, 2, &one, |_| ());
            s.images.snap(2);
            s.images.stamp(2);
        }),
        ("targets of a Director that delegates", "delegates", |s| {
            s.director.edit(Role::Targets, 5, |t| {
                let roles = Value::List(vec![Value::Null]);
                insert(t, &[], "delegations", Value::object(vec![("roles", roles)]));
            });
            s.director.snap(5);
            s.director.stamp(5);
        }),
    ];
    for (what, label, attack) in table {
        let mut site = Site::new();
        assert!(matches!(site.clone().checked_in(), Ok(Assessment::Install(_))));
        attack(&mut site);
        let stopped = site.checked_in().map_err(|stop| stop.label());
        assert_eq!(stopped, Err(*label), "{what}");
    }
    std::println!("{} attacks on an install refused", table.len());
}

#[test]
fn what_the_director_says_ends() {
    let mut site = Site::new();
    assert!(matches!(site.checked_in_at("2030-01-10T23:59:59Z"), Ok(Assessment::Install(_))));
    let ended = site.checked_in_at("2030-01-11T00:00:00Z").map_err(|stop| stop.label());
    assert_eq!(ended, Err("expired"));
    // Nobody has to restart anything: the next generation is heard.
    let later = at("2030-01-11T00:00:00Z");
    site.director.ends = ["2032-01-01T00:00:00Z"; 4];
    site.director.publish(6, &[target("1.1.0", 1)]);
    assert!(site.trusted_director.current(later).is_err());
    assert!(matches!(site.checked_in_at("2030-01-11T00:00:00Z"), Ok(Assessment::Install(_))));
}

#[test]
fn the_same_generation_is_the_same_bytes_whoever_makes_it() {
    let site = Site::new();
    let one = site.directed(DEVICE, 7, &[target("1.1.0", 1), target("1.0.0", 1)]);
    let other = site.directed(DEVICE, 7, &[target("1.0.0", 1), target("1.1.0", 1)]);
    assert_eq!(one, other);
    assert_eq!(one.file("timestamp.json"), Some(&one.timestamp[..]));
    assert_eq!(one.file("7.snapshot.json"), Some(&one.snapshot[..]));
    assert_eq!(one.file("7.targets.json"), Some(&one.targets[..]));
    for name in ["6.targets.json", "targets.json", "7.root.json", ""] {
        assert_eq!(one.file(name), None);
    }
}

#[test]
fn a_director_with_two_histories_is_told() {
    // Restored from a backup, it counts up to a generation that the device has seen with other words.
    let mut site = Site::new();
    site.checked_in().unwrap();
    let before = site.trusted_director.clone();
    site.direct(5, &[target("1.2.0", 2)]);
    let mut update = crate::tuf::Update::begin(site.trusted_director.clone(), at(NOW));
    update.absent().unwrap();
    assert!(update.take(&site.director.files["timestamp.json"]).unwrap().fork);
    assert!(update.into_trusted() == before);
    let Ok(Assessment::Install(install)) = site.checked_in() else { panic!("an order stands") };
    assert_eq!(install.order().release.version, version("1.1.0"), "the first word stays");
}

#[test]
fn a_device_is_led_through_every_release_that_must_be_passed() {
    let mut site = Site::new();
    let steps =
        [("1.0.0", vec![]), ("1.1.0", vec![]), ("1.2.0", vec!["1.1.0"]), ("1.3.0", vec!["1.2.0"])];
    let targets = steps.map(|(of, steps)| {
        changed(of, 1, |o| o.release.must_pass = steps.iter().map(|via| version(via)).collect())
    });
    site.images.publish(2, &targets);
    let mut passed = vec![];
    let (mut generation, mut to) = (5, version("1.3.0"));
    loop {
        generation += 1;
        let ordered = targets.iter().find(|t| t.path.contains(&format!("/{to}/"))).unwrap();
        site.direct(generation, core::slice::from_ref(ordered));
        match site.checked_in() {
            Ok(Assessment::Install(install)) => {
                passed.push(format!("{to}"));
                site.installs(&install);
                if to == version("1.3.0") {
                    break;
                }
                to = version("1.3.0");
            }
            Err(Stop::Order(Refused::MustPass { via, .. })) => to = via,
            other => panic!("{other:?}"),
        }
        assert!(generation < 20, "{passed:?}");
    }
    assert_eq!(passed, ["1.1.0", "1.2.0", "1.3.0"]);
}

#[test]
fn the_floor_rises_by_an_order_of_its_own_and_never_above_what_is_confirmed() {
    let mut site = Site::new();
    let raise = |to| changed("1.2.0", 2, move |o: &mut Order| o.raise = Some(SecurityVersion(to)));
    site.direct(6, &[raise(2)]);
    let Ok(Assessment::Install(install)) = site.checked_in() else { panic!("first the release") };
    site.installs(&install);
    assert_eq!(site.checked_in(), Ok(Assessment::Raise(SecurityVersion(2))));
    site.me.floor = SecurityVersion(2);
    assert_eq!(site.checked_in(), Ok(Assessment::Nothing), "once");
    site.me.floor = SecurityVersion(3);
    assert_eq!(site.checked_in(), Ok(Assessment::Nothing), "it never sinks");
}

#[test]
fn an_order_for_a_product_that_the_device_does_not_have_is_told() {
    let mut site = Site::new();
    let other = ProductId::new("valve-app").unwrap();
    let order = changed("1.1.0", 1, |o| o.release.product = other);
    site.direct(6, core::slice::from_ref(&order));
    assert_eq!(site.checked_in(), Ok(Assessment::Nothing));
    let director = site.trusted_director.current(at(NOW)).unwrap();
    let found: Vec<&Target> = foreign(&director, core::slice::from_ref(&site.me)).collect();
    assert_eq!(found, [&order]);
}

#[test]
fn metadata_count_only_in_their_own_place() {
    let mut site = Site::new();
    site.checked_in().unwrap();
    let director = site.trusted_director.current(at(NOW)).unwrap();
    let images = site.trusted_images.current(at(NOW)).unwrap();
    let refused = |assessment| match assessment {
        Assessment::Refused(refused) => refused.label(),
        other => panic!("{other:?}"),
    };
    let other = id("pump-8");
    assert_eq!(refused(assess(&director, &images, &other, &site.me)), "not_our_director");
    assert_eq!(refused(assess(&images, &images, &site.device, &site.me)), "not_our_director");
    let twice = assess(&director, &director, &site.device, &site.me);
    assert_eq!(refused(twice), "not_an_image_repository");
}

#[test]
fn every_refusal_has_a_label_of_its_own() {
    let mut labels = Refused::LABELS.to_vec();
    labels.extend(crate::tuf::Refused::LABELS);
    let all = labels.len();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), all);
    let refused = Refused::BelowFloor { floor: SecurityVersion(3), found: SecurityVersion(2) };
    assert_eq!(refused.to_string(), "expected security version 3 or higher, found 2");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_ordered_only_published_bytes_above_the_floor_are_installed(
        ordered in prop::collection::vec((0..4_u32, 0..4_u32, any::<bool>()), 0..3),
        published in prop::collection::vec((0..4_u32, 0..4_u32), 0..4),
        floor in 0..4_u32,
    ) {
        let target = |minor, security| kit::target(&format!("1.{minor}.0"), security);
        let mut site = Site::new();
        site.me.floor = SecurityVersion(floor);
        let mut vendor: Vec<Target> = published.iter().map(|(m, s)| target(*m, *s)).collect();
        vendor.sort_by(|a, b| a.path.cmp(&b.path));
        vendor.dedup_by(|a, b| a.path == b.path);
        site.images.publish(2, &vendor);
        let mut orders: Vec<Target> = ordered
            .iter()
            .map(|(m, s, own)| {
                let mut target = target(*m, *s);
                if *own {
                    target.hashes.sha256 = Some(Digest([9; 32]));
                }
                target
            })
            .collect();
        orders.sort_by(|a, b| a.path.cmp(&b.path));
        orders.dedup_by(|a, b| a.path == b.path);
        site.direct(6, &orders);
        if let Ok(Assessment::Install(install)) = site.checked_in() {
            let named = |targets: &[Target]| {
                targets.iter().any(|t| t.path == install.path && t.hashes.sha256 == Some(install.digest))
            };
            prop_assert!(named(&vendor) && named(&orders));
            let release: &Release = &install.order.release;
            prop_assert!(release.security_version >= SecurityVersion(floor));
            prop_assert_eq!(orders.len(), 1);
        }
    }
}
