//! For tests: a vendor's repository, a site's Director and its leases, in memory, with the keys of all.

use api::base64::Base64;
use api::update::{CheckIn, DirectorFiles};
use model::envelope::Algorithm;
use model::lease::Lease;
use model::{
    Counter, DeviceId, HardwareId, Header, Kind, ProductId, Release, RolloutId, SecurityVersion,
    Timestamp, Version, ZoneId,
};
use std::collections::BTreeMap;
use std::time::Duration;
use trust::cose::{self, PublicKey, SecretKey, Signer};
use trust::tuf::make::{self, Head, Keys, Roles};
use trust::tuf::{Order, Role, Target};
use trust::uptane::{self, Lifetimes, Signers};

pub const DEVICE: &str = "pump-7";
pub const PRODUCT: &str = "pump-app";
pub const HARDWARE: &str = "pump-box";
pub const ZONE: &str = "press-hall";

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub fn device() -> DeviceId {
    DeviceId::new(DEVICE).unwrap()
}

pub fn product() -> ProductId {
    ProductId::new(PRODUCT).unwrap()
}

pub fn hardware() -> HardwareId {
    HardwareId::new(HARDWARE).unwrap()
}

pub fn secret(seed: u8) -> SecretKey {
    SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).unwrap()
}

/// What a release is of: an executable that says a reading and waits for its end, or ends by itself if its version is 1.2.0.
/// Long enough to come in pieces.
pub fn image(version: Version) -> Vec<u8> {
    let says = format!("#!/bin/sh\necho '[{{\"n\":\"flow\",\"v\":{}.5}}]'\n", version.minor);
    let then = if version.minor == 2 { "exit 3\n" } else { "exec cat\n" };
    let mut script = format!("{says}{then}").into_bytes();
    let rest = format!("# the image of {version}\n");
    script.extend(rest.bytes().cycle().take(10_000 - script.len()));
    script
}

pub fn order(version: Version, security: u32, rollout: Option<&str>) -> Order {
    Order {
        release: Release {
            product: product(),
            version,
            security_version: SecurityVersion(security),
            hardware: vec![hardware()],
            must_pass: vec![],
        },
        rollout: rollout.map(|name| RolloutId::new(name).unwrap()),
        raise: None,
    }
}

/// As the vendor publishes it, and as the Director orders it.
pub fn target(version: Version, security: u32, rollout: Option<&str>) -> Target {
    let path = format!("{PRODUCT}/{version}/{HARDWARE}.bin");
    Target::of(path, &image(version), order(version, security, rollout))
}

/// Whoever holds the keys of a repository: one for the root, one for each of the other roles.
#[derive(Clone)]
pub struct Hands {
    seed: u8,
}

impl Hands {
    pub fn key(&self, role: Role) -> SecretKey {
        secret(self.seed + role as u8)
    }

    pub fn root(&self, version: u64, from: Timestamp) -> Vec<u8> {
        let keys: Vec<PublicKey> =
            Role::ALL.iter().map(|role| self.key(*role).public().clone()).collect();
        let of = |role: Role| Keys { keys: &keys[role as usize..=role as usize], threshold: 1 };
        let roles = Roles {
            root: of(Role::Root),
            timestamp: of(Role::Timestamp),
            snapshot: of(Role::Snapshot),
            targets: of(Role::Targets),
        };
        let expires = Timestamp(from.as_us() + 3650 * DAY_US);
        let head = Head { version, expires, device: None };
        make::root(&head, &roles, &[&self.key(Role::Root) as &dyn Signer]).unwrap()
    }
}

/// The vendor, the operator, and what both have published.
#[derive(Clone)]
pub struct World {
    pub vendor: Hands,
    pub operator: Hands,
    /// The vendor's metadata, by name.
    pub images: BTreeMap<String, Vec<u8>>,
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub generation: u64,
    orders: Vec<Target>,
    pub halted: Vec<RolloutId>,
    lease: u64,
    /// The site's clock.
    pub now: Timestamp,
}

impl World {
    /// The vendor has published these, and nothing is ordered.
    pub fn new(now: Timestamp, published: &[Target]) -> Self {
        let (vendor, operator) = (Hands { seed: 10 }, Hands { seed: 20 });
        let mut world = Self {
            images: BTreeMap::from([("1.root.json".to_owned(), vendor.root(1, now))]),
            vendor,
            operator,
            blobs: BTreeMap::new(),
            generation: 1,
            orders: vec![],
            halted: vec![],
            lease: 0,
            now,
        };
        world.publish(1, published);
        world
    }

    pub fn publish(&mut self, version: u64, targets: &[Target]) {
        let expires = Timestamp(self.now.as_us() + 30 * DAY_US);
        let head = Head { version, expires, device: None };
        let key = |role| self.vendor.key(role);
        let made = make::targets(&head, targets, &[&key(Role::Targets)]).unwrap();
        let snapshot = make::snapshot(&head, (version, &made), &[&key(Role::Snapshot)]).unwrap();
        let stamp = make::timestamp(&head, (version, &snapshot), &[&key(Role::Timestamp)]).unwrap();
        for (name, bytes) in [
            (Role::Targets.versioned_file(version), made),
            (Role::Snapshot.versioned_file(version), snapshot),
            (Role::Timestamp.file().to_owned(), stamp),
        ] {
            self.images.insert(name, bytes);
        }
        for target in targets {
            if let trust::tuf::Custom::Order(order) = &target.custom {
                let bytes = image(order.release.version);
                self.blobs.insert(trust::digest(&bytes).to_string(), bytes);
            }
        }
    }

    /// The site orders this from now on.
    pub fn direct(&mut self, orders: &[Target]) {
        self.generation += 1;
        self.orders = orders.to_vec();
    }

    pub fn first_roots(&self) -> [Vec<u8>; 2] {
        [self.operator.root(1, self.now), self.images["1.root.json"].clone()]
    }

    /// What the site answers to a device that trusts this generation of the Director's targets.
    pub fn answer(&mut self, trusted: u64) -> CheckIn {
        let lease = Base64(self.lease());
        let director = (trusted != self.generation).then(|| self.directed(DEVICE));
        CheckIn { format: 1, lease, director, again_ms: 60_000 }
    }

    pub fn directed(&self, device: &str) -> DirectorFiles {
        let key = |role| self.operator.key(role);
        let keys = [key(Role::Timestamp), key(Role::Snapshot), key(Role::Targets)];
        let signers =
            Signers { timestamp: &[&keys[0]], snapshot: &[&keys[1]], targets: &[&keys[2]] };
        let device = DeviceId::new(device).unwrap();
        let lifetimes = Lifetimes { timestamp: DAY, snapshot: DAY, targets: DAY };
        let made = uptane::directed(
            &device,
            self.generation,
            &self.orders,
            self.now,
            &lifetimes,
            &signers,
        );
        let made = made.unwrap();
        DirectorFiles {
            roots: vec![],
            timestamp: Base64(made.timestamp),
            snapshot: Base64(made.snapshot),
            targets: Base64(made.targets),
        }
    }

    /// So many leases went to others.
    pub fn skip_leases(&mut self, n: u64) {
        self.lease += n;
    }

    /// A new lease, issued now.
    pub fn lease(&mut self) -> Vec<u8> {
        self.lease += 1;
        self.lease_of(self.lease, self.now, &self.operator.key(Role::Timestamp))
    }

    pub fn lease_of(&self, number: u64, issued: Timestamp, key: &SecretKey) -> Vec<u8> {
        let mut halted = self.halted.clone();
        halted.sort();
        let lease = Lease {
            zone: ZoneId::new(ZONE).unwrap(),
            number,
            issued,
            not_after: Timestamp(issued.as_us() + 900_000_000),
            policy: 1,
            revocation: 0,
            halted,
        };
        let header = Header {
            algorithm: key.public().algorithm(),
            kind: Kind::Lease,
            key: key.public().id(),
            counter: Counter { epoch: 1, sequence: number },
            uptime_ms: 0,
            wall: None,
            heard: None,
            prior: None,
        };
        cose::seal(&header, &lease.encode(), key).unwrap()
    }
}
