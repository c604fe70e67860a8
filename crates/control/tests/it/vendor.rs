//! A vendor with its keys, and its repository as files by name: what control reads is a copy of them.

use control::releases::{Directory, Source};
use disk::RealDisk;
use model::{HardwareId, ProductId, Release, SecurityVersion, Timestamp};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use trust::cose::{PublicKey, SecretKey, Signer};
use trust::tuf::make::{self, Head, Keys, Roles};
use trust::tuf::{Order, Role, Target};

use crate::world::secret;

pub const HARDWARE: &str = "pump-box";
pub const DAY_US: i64 = 86_400_000_000;

pub type Files = BTreeMap<String, Vec<u8>>;

pub struct Vendor {
    root: [SecretKey; 2],
    pub targets: Arc<SecretKey>,
    pub online: Arc<SecretKey>,
    pub files: Files,
    pub images: Vec<(Target, Vec<u8>)>,
    root_version: u64,
    pub number: u64,
    now: Timestamp,
}

impl Vendor {
    /// A repository in which nothing is published.
    pub fn new(now: Timestamp) -> Self {
        let draw = || secret(model::envelope::Algorithm::Ed25519);
        let mut vendor = Self {
            root: [draw(), draw()],
            targets: Arc::new(draw()),
            online: Arc::new(draw()),
            files: Files::new(),
            images: Vec::new(),
            root_version: 0,
            number: 0,
            now,
        };
        vendor.next_root();
        vendor.sign();
        vendor
    }

    pub fn first_root(&self) -> Vec<u8> {
        self.files["1.root.json"].clone()
    }

    /// A root more, which names the present keys.
    pub fn next_root(&mut self) {
        let root = [self.root[0].public().clone(), self.root[1].public().clone()];
        let (online, targets) = ([self.online.public().clone()], [self.targets.public().clone()]);
        fn of(keys: &[PublicKey], threshold: u32) -> Keys<'_> {
            Keys { keys, threshold }
        }
        let roles = Roles {
            root: of(&root, 2),
            timestamp: of(&online, 1),
            snapshot: of(&online, 1),
            targets: of(&targets, 1),
        };
        self.root_version += 1;
        let signers: Vec<&dyn Signer> = self.root.iter().map(|key| key as _).collect();
        let bytes = make::root(&self.head(self.root_version, 365), &roles, &signers).unwrap();
        self.files.insert(Role::Root.versioned_file(self.root_version), bytes);
    }

    fn head(&self, version: u64, days: i64) -> Head<'static> {
        let expires = Timestamp(self.now.as_us() + days * DAY_US);
        Head { version, expires, device: None }
    }

    pub fn publish(&mut self, product: &str, version: &str, image: &[u8]) -> Target {
        let release = Release {
            product: ProductId::new(product).unwrap(),
            version: version.parse().unwrap(),
            security_version: SecurityVersion(1),
            hardware: vec![HardwareId::new(HARDWARE).unwrap()],
            must_pass: vec![],
        };
        let path = format!("{product}/{version}/{HARDWARE}.bin");
        let target = Target::of(path, image, Order { release, rollout: None, raise: None });
        self.images.push((target.clone(), image.to_vec()));
        self.sign();
        target
    }

    /// What is published, under the next number.
    pub fn sign(&mut self) {
        self.number += 1;
        let n = self.number;
        let targets: Vec<Target> = self.images.iter().map(|(target, _)| target.clone()).collect();
        let targets = make::targets(&self.head(n, 300), &targets, &[&*self.targets]).unwrap();
        let online: &[&dyn Signer] = &[&*self.online];
        let snapshot = make::snapshot(&self.head(n, 60), (n, &targets), online).unwrap();
        let timestamp = make::timestamp(&self.head(n, 30), (n, &snapshot), online).unwrap();
        self.files.insert(Role::Targets.versioned_file(n), targets);
        self.files.insert(Role::Snapshot.versioned_file(n), snapshot);
        self.files.insert(Role::Timestamp.file().into(), timestamp);
    }

    /// Writes `repository/`, as `plimsoll release` lays it out, and nothing else: no key lies anywhere.
    pub fn write(&self, dir: &Path) {
        for (name, bytes) in &self.files {
            put(&dir.join("metadata").join(name), bytes);
        }
        for (target, bytes) in &self.images {
            put(&dir.join("targets").join(target.file_name(true)), bytes);
        }
    }
}

pub fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

pub fn directory(dir: PathBuf) -> Arc<dyn Source> {
    Arc::new(Directory::new(Arc::new(RealDisk), dir))
}

/// A repository in memory, without images.
#[derive(Debug, Default)]
pub struct Shelf(pub Mutex<Files>);

impl Shelf {
    pub fn of(files: &Files) -> Arc<Self> {
        Arc::new(Self(Mutex::new(files.clone())))
    }

    pub fn hold(&self, files: &Files) {
        *self.0.lock().unwrap() = files.clone();
    }
}

impl Source for Shelf {
    fn metadata(&self, name: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        let found = self.0.lock().unwrap().get(name).cloned();
        if found.as_ref().is_some_and(|bytes| bytes.len() > bytes_max) {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than it may be"));
        }
        Ok(found)
    }

    fn image(&self, _: &str) -> io::Result<std::fs::File> {
        Err(io::ErrorKind::NotFound.into())
    }
}
