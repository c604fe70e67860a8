//! For tests: repositories in memory, and files in which one thing is changed.

use super::json::Value;
use super::make::{self, Head, Keys, Roles};
use super::{Order, Refused, Role, Target, Trusted, Update, key, metadata, time};
use crate::cose::{PublicKey, SecretKey, Signer};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use model::envelope::Algorithm;
use model::{DeviceId, HardwareId, ProductId, Release, SecurityVersion, Timestamp, Version};

pub fn secret(seed: u8) -> SecretKey {
    // From 100 on they are of P-256.
    let algorithm = if seed < 100 { Algorithm::Ed25519 } else { Algorithm::Esp256 };
    SecretKey::from_random(algorithm, &[seed; 32]).expect("no scalar out of range has equal bytes")
}

pub fn at(text: &str) -> Timestamp {
    time::parse(text).expect("a time in a test")
}

pub const NOW: &str = "2030-01-10T00:00:00Z";

/// Who signs what: seeds and thresholds, in the order of [`Role::ALL`].
#[derive(Clone)]
pub struct Hands {
    pub seeds: [Vec<u8>; 4],
    pub thresholds: [u32; 4],
}

impl Hands {
    pub fn signers(&self, role: Role) -> Vec<SecretKey> {
        self.seeds[role as usize].iter().map(|seed| secret(*seed)).collect()
    }
}

/// A repository and what lies in it.
#[derive(Clone)]
pub struct Repo {
    pub hands: Hands,
    pub device: Option<DeviceId>,
    pub files: BTreeMap<String, Vec<u8>>,
    pub root: u64,
    pub ends: [&'static str; 4],
}

impl Repo {
    /// A root of 2 of 3 keys, targets of 2 of 2, and one key each for what is online; one of them is of P-256.
    pub fn new(first_seed: u8, device: Option<&str>) -> Self {
        let n = first_seed;
        let hands = Hands {
            seeds: [vec![n, n + 1, n + 2], vec![n + 3], vec![n + 4], vec![n + 5, n + 100]],
            thresholds: [2, 1, 1, 2],
        };
        let mut repo = Self {
            hands,
            device: device.map(|name| DeviceId::new(name).unwrap()),
            files: BTreeMap::new(),
            root: 0,
            ends: [
                "2032-01-01T00:00:00Z",
                "2030-01-17T00:00:00Z",
                "2030-02-01T00:00:00Z",
                "2031-01-01T00:00:00Z",
            ],
        };
        let old = repo.hands.clone();
        repo.rotate(&old);
        repo
    }

    pub fn head(&self, role: Role, version: u64) -> Head<'_> {
        let device = self.device.as_ref().filter(|_| role != Role::Root);
        Head { version, expires: at(self.ends[role as usize]), device }
    }

    /// The next root: the hands as they are now, signed by them and by those before.
    pub fn rotate(&mut self, before: &Hands) {
        self.root += 1;
        let mut signers = self.hands.signers(Role::Root);
        signers.extend(before.signers(Role::Root));
        let mut ids = Vec::new();
        signers.retain(|signer| {
            let id = signer.public().id();
            let new = !ids.contains(&id);
            ids.push(id);
            new
        });
        let bytes = self.made_root(self.root, &signers);
        self.files.insert(Role::Root.versioned_file(self.root), bytes);
    }

    pub fn made_root(&self, version: u64, signers: &[SecretKey]) -> Vec<u8> {
        let keys: Vec<Vec<PublicKey>> = Role::ALL
            .iter()
            .map(|role| self.hands.signers(*role).iter().map(|s| s.public().clone()).collect())
            .collect();
        let of = |role: Role| Keys {
            keys: &keys[role as usize],
            threshold: self.hands.thresholds[role as usize],
        };
        let roles = Roles {
            root: of(Role::Root),
            timestamp: of(Role::Timestamp),
            snapshot: of(Role::Snapshot),
            targets: of(Role::Targets),
        };
        make::root(&self.head(Role::Root, version), &roles, &dynamic(signers)).unwrap()
    }

    /// Publishes targets, and a snapshot and a timestamp of them, all of one version.
    pub fn publish(&mut self, version: u64, targets: &[Target]) {
        let signers = self.hands.signers(Role::Targets);
        let head = self.head(Role::Targets, version);
        let targets = make::targets(&head, targets, &dynamic(&signers)).unwrap();
        self.put(Role::Targets, version, targets);
        self.snap(version);
        self.stamp(version);
    }

    /// A snapshot of the targets of this version, as they lie there.
    pub fn snap(&mut self, version: u64) {
        let signers = self.hands.signers(Role::Snapshot);
        let targets = self.files[&Role::Targets.versioned_file(version)].clone();
        let head = self.head(Role::Snapshot, version);
        let snapshot = make::snapshot(&head, (version, &targets), &dynamic(&signers)).unwrap();
        self.put(Role::Snapshot, version, snapshot);
    }

    /// A timestamp of the snapshot of this version, as it lies there.
    pub fn stamp(&mut self, version: u64) {
        let signers = self.hands.signers(Role::Timestamp);
        let snapshot = self.files[&Role::Snapshot.versioned_file(version)].clone();
        let head = self.head(Role::Timestamp, version);
        let timestamp = make::timestamp(&head, (version, &snapshot), &dynamic(&signers)).unwrap();
        self.put(Role::Timestamp, version, timestamp);
    }

    pub fn put(&mut self, role: Role, version: u64, bytes: Vec<u8>) {
        self.files.insert(name(role, version), bytes);
    }

    /// Changes a file's signed part and lets `signers` sign it again.
    pub fn edit_as(&mut self, role: Role, version: u64, signers: &[SecretKey], change: Change) {
        let bytes = edited(&self.files[&name(role, version)], role, signers, change);
        self.put(role, version, bytes);
    }

    /// The same, by those who may sign it.
    pub fn edit(&mut self, role: Role, version: u64, change: Change) {
        let signers = self.hands.signers(role);
        self.edit_as(role, version, &signers, change);
    }

    /// A client that came with root 1.
    pub fn client(&self) -> Trusted {
        let root = &self.files[&Role::Root.versioned_file(1)];
        Trusted::from_root(root, self.device.clone()).unwrap()
    }

    /// One cycle against this repository.
    pub fn update(&self, client: &Trusted, now: &str) -> (Trusted, Result<(), Refused>) {
        let mut update = Update::begin(client.clone(), at(now));
        let result = drive(&mut update, &self.files);
        (update.into_trusted(), result)
    }

    /// One cycle that has to succeed.
    pub fn updated(&self, client: &Trusted, now: &str) -> Trusted {
        let (trusted, result) = self.update(client, now);
        assert_eq!(result, Ok(()));
        trusted.current(at(now)).expect("a complete cycle leaves four files that belong together");
        trusted
    }
}

pub type Change = fn(&mut Value<'_>);

pub fn name(role: Role, version: u64) -> String {
    if role == Role::Timestamp { role.file().to_string() } else { role.versioned_file(version) }
}

pub fn drive(update: &mut Update, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Refused> {
    while let Some(fetch) = update.next() {
        match files.get(&fetch.name) {
            Some(bytes) => {
                let before = update.trusted().export();
                let taken = update.take(bytes);
                let after = update.trusted().export();
                match taken {
                    Ok(taken) => {
                        assert_eq!(
                            taken.store.is_none() && taken.remove.is_empty(),
                            before == after
                        );
                    }
                    Err(refused) => {
                        assert_eq!(before, after, "a refusal changes nothing: {refused}");
                        return Err(refused);
                    }
                }
            }
            None => drop(update.absent()?),
        }
    }
    Ok(())
}

pub fn dynamic(signers: &[SecretKey]) -> Vec<&dyn Signer> {
    signers.iter().map(|signer| signer as &dyn Signer).collect()
}

/// The file with its signed part changed, signed by these and nobody else.
pub fn edited(file: &[u8], role: Role, signers: &[SecretKey], change: Change) -> Vec<u8> {
    let mut value = Value::parse(file, role.values_max()).unwrap();
    change(member(&mut value, &["signed"]));
    let message = member(&mut value, &["signed"]).canonical();
    let signatures = signers.iter().map(|signer| {
        Value::object(vec![
            ("keyid", Value::text(key::id(signer.public()))),
            ("sig", Value::text(key::sign(signer, &message).unwrap())),
        ])
    });
    *member(&mut value, &["signatures"]) = Value::List(signatures.collect());
    value.to_json()
}

/// The file with anything in it changed, and the signatures that it had.
pub fn tampered(file: &[u8], change: Change) -> Vec<u8> {
    let mut value = Value::parse(file, 100_000).unwrap();
    change(&mut value);
    value.to_json()
}

/// What is signed of a file.
pub fn message(file: &[u8], role: Role) -> Vec<u8> {
    metadata::open(file, role).unwrap_or_else(|refused| panic!("{refused}")).message
}

pub fn member<'v, 'a>(value: &'v mut Value<'a>, path: &[&str]) -> &'v mut Value<'a> {
    path.iter().fold(value, |value, name| match value {
        Value::Object(members) => {
            let at = members.iter().position(|(other, _)| other == name);
            &mut members[at.unwrap_or_else(|| panic!("no `{name}` in the accepted file"))].1
        }
        Value::List(items) => &mut items[name.parse::<usize>().unwrap()],
        other => panic!("{other:?} has no members"),
    })
}

pub fn insert<'a>(value: &mut Value<'a>, path: &[&str], name: &'static str, new: Value<'a>) {
    let Value::Object(members) = member(value, path) else { panic!("no object") };
    members.retain(|(other, _)| other != name);
    members.push((name.into(), new));
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
}

pub fn remove(value: &mut Value<'_>, path: &[&str], name: &str) {
    let Value::Object(members) = member(value, path) else { panic!("no object") };
    let before = members.len();
    members.retain(|(other, _)| other != name);
    assert_eq!(members.len() + 1, before, "`{name}` is in the accepted file");
}

pub fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub fn order(product: &str, version: &str, security: u32) -> Order {
    Order {
        release: Release {
            product: ProductId::new(product).unwrap(),
            version: self::version(version),
            security_version: SecurityVersion(security),
            hardware: vec![HardwareId::new("pump-box").unwrap()],
            must_pass: vec![],
        },
        rollout: None,
        raise: None,
    }
}

pub fn image(version: &str) -> Vec<u8> {
    alloc::format!("the image of {version}").into_bytes()
}

pub fn target(version: &str, security: u32) -> Target {
    let path = alloc::format!("pump-app/{version}/pump-box.bin");
    Target::of(path, &image(version), order("pump-app", version, security))
}
