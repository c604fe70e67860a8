//! The four files as types: read within bounds, believed by nobody yet.

use super::json::Value;
use super::key::{self, Key};
use super::{Refused, Role, time};
use crate::cose::PublicKey;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;
use model::hex;
use model::release::{HARDWARE_MAX, MUST_PASS_MAX};
use model::{
    DeviceId, Digest, HardwareId, ProductId, Release, RolloutId, SecurityVersion, Timestamp,
    Version,
};
use sha2::{Digest as _, Sha256, Sha512};

/// Signatures on one file.
pub const SIGNATURES_MAX: usize = 64;
/// Keys that a root names.
pub const KEYS_MAX: usize = 64;
/// Keys of one role.
pub const ROLE_KEYS_MAX: usize = 32;
/// Files that a snapshot names: the targets, and those of delegated roles.
pub const SNAPSHOT_FILES_MAX: usize = 1024;
/// Targets of one file.
pub const TARGETS_MAX: usize = 4096;
/// The longest path of a target, and the longest key id, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Hashes that are stated of one file, known to us or not.
const HASHES_MAX: usize = 8;

/// The signed part's field by which the Director's online metadata name their device.
pub const DEVICE_FIELD: &str = "plimsoll_device";
/// The member of a target's custom data that is ours, and its version.
pub const CUSTOM_FIELD: &str = "plimsoll";
pub const CUSTOM_VERSION: u64 = 1;

/// A file taken apart: what is signed, in the form that is signed, and by whom it says to be.
pub(super) struct Document<'a> {
    pub signed: Value<'a>,
    pub message: Vec<u8>,
    /// Key ids, each once, and signatures in hexadecimal. One that is not hexadecimal is an empty one: it verifies
    /// under no key, and whoever has not signed yet may have left such a one.
    signatures: Vec<(String, Vec<u8>)>,
    /// What every role says of itself.
    pub common: Common,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Common {
    pub version: u64,
    pub expires: Timestamp,
    pub device: Option<String>,
}

pub(super) fn open(bytes: &[u8], role: Role) -> Result<Document<'_>, Refused> {
    if bytes.len() > role.bytes_max() {
        return Err(Refused::Oversize { role, max: role.bytes_max(), found: bytes.len() });
    }
    let file =
        Value::parse(bytes, role.values_max()).map_err(|json| Refused::NotJson { role, json })?;
    let Value::Object(members) = file else { return Err(malformed(role, "an object")) };
    let (mut signed, mut signatures) = (None, None);
    for (name, value) in members {
        match name.as_ref() {
            "signed" => signed = Some(value),
            "signatures" => signatures = Some(self::signatures(&value, role)?),
            _ => {}
        }
    }
    let signed = signed.ok_or(malformed(role, "a signed part"))?;
    let signatures = signatures.ok_or(malformed(role, "signatures"))?;
    let common = common(&signed, role)?;
    Ok(Document { message: signed.canonical(), signed, signatures, common })
}

impl Document<'_> {
    /// How many distinct keys of a role signed this, counted up to its threshold.
    pub fn signers(&self, root: &Root, role: Role) -> u32 {
        let RoleKeys { keyids, threshold } = root.role(role);
        let mut signed: Vec<&PublicKey> = Vec::new();
        for keyid in keyids {
            // One key under two ids is one key: who holds it has one vote.
            let Some(key) = root.key(keyid).filter(|key| !signed.contains(key)) else { continue };
            let by = |(id, _): &&(String, Vec<u8>)| id == keyid;
            let Some((_, signature)) = self.signatures.iter().find(by) else { continue };
            if key::verifies(key, &self.message, signature) {
                signed.push(key);
            }
            if signed.len() >= *threshold as usize {
                break;
            }
        }
        signed.len() as u32
    }

    /// Refuses unless the threshold of `role`, as `root` states it, signed this.
    pub fn verify(&self, root: &Root, role: Role) -> Result<(), Refused> {
        let needed = root.role(role).threshold;
        let found = self.signers(root, role);
        if found >= needed {
            Ok(())
        } else {
            Err(Refused::TooFewSignatures { role, root: root.version, needed, found })
        }
    }
}

fn malformed(role: Role, expected: &'static str) -> Refused {
    Refused::Malformed { role, expected }
}

fn signatures(value: &Value<'_>, role: Role) -> Result<Vec<(String, Vec<u8>)>, Refused> {
    const EXPECTED: &str = "signatures: a list of at most 64, each with a key id of its own";
    let items = value.as_list().filter(|items| items.len() <= SIGNATURES_MAX);
    let mut signatures: Vec<(String, Vec<u8>)> = Vec::new();
    for item in items.ok_or(malformed(role, EXPECTED))? {
        let text = |name| item.get(name).and_then(Value::as_text);
        let (Some(keyid), Some(signature)) = (text("keyid"), text("sig")) else {
            return Err(malformed(role, EXPECTED));
        };
        // A second signature under one id could only be there to be counted twice.
        if keyid.len() > NAME_BYTES_MAX || signatures.iter().any(|(other, _)| other == keyid) {
            return Err(malformed(role, EXPECTED));
        }
        signatures.push((keyid.to_owned(), hex::decode(signature).unwrap_or_default()));
    }
    Ok(signatures)
}

fn common(signed: &Value<'_>, role: Role) -> Result<Common, Refused> {
    let text = |name| signed.get(name).and_then(Value::as_text);
    let found = text("_type").ok_or(malformed(role, "a _type"))?;
    if found != role.as_str() {
        return Err(Refused::OtherRole { expected: role, found: shown(found) });
    }
    let spec = text("spec_version").ok_or(malformed(role, "a spec_version"))?;
    if !is_spec_1(spec) {
        return Err(Refused::UnknownSpec { role, found: shown(spec) });
    }
    let version = signed
        .get("version")
        .and_then(Value::as_u64)
        .filter(|version| *version > 0)
        .ok_or(malformed(role, "a version above 0"))?;
    let expires = text("expires")
        .and_then(time::parse)
        .ok_or(malformed(role, "a time of expiry as in 2030-01-01T00:00:00Z"))?;
    let device = match signed.get(DEVICE_FIELD) {
        None => None,
        Some(Value::Text(device)) => Some(shown(device)),
        Some(_) => return Err(malformed(role, "a device by its name")),
    };
    Ok(Common { version, expires, device })
}

/// As much of foreign text as a message shows.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Any 1.x or 1.x.y: what a later 1.x adds does not change what is here.
fn is_spec_1(text: &str) -> bool {
    let number = |part: &str| {
        !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut parts = text.split('.');
    parts.next() == Some("1")
        && parts.next().is_some_and(number)
        && parts.next().is_none_or(number)
        && parts.next().is_none()
}

/// Who may sign what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub version: u64,
    pub expires: Timestamp,
    /// Whether file names carry versions and digests.
    pub consistent_snapshot: bool,
    keys: Vec<(String, Key)>,
    roles: [RoleKeys; 4],
}

/// The keys of one role, by ids that are names and nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleKeys {
    pub keyids: Vec<String>,
    pub threshold: u32,
}

impl Root {
    pub(super) fn read(document: &Document<'_>) -> Result<Self, Refused> {
        let role = Role::Root;
        let Common { version, expires, device } = document.common.clone();
        if let Some(found) = device {
            // A root is common to all devices.
            return Err(Refused::OtherDevice { role, expected: None, found: Some(found) });
        }
        let consistent_snapshot = match document.signed.get("consistent_snapshot") {
            None => false,
            Some(Value::Bool(consistent)) => *consistent,
            Some(_) => return Err(malformed(role, "consistent_snapshot: true or false")),
        };
        const KEYS: &str = "keys: an object of at most 64, with ids of at most 255 bytes";
        let members = document.signed.get("keys").and_then(Value::as_object);
        let members = members.filter(|keys| keys.len() <= KEYS_MAX).ok_or(malformed(role, KEYS))?;
        let mut keys = Vec::with_capacity(members.len());
        for (keyid, value) in members {
            if keyid.len() > NAME_BYTES_MAX {
                return Err(malformed(role, KEYS));
            }
            let key =
                Key::read(value).ok_or(malformed(role, "a key: keytype, scheme and keyval"))?;
            keys.push((keyid.clone().into_owned(), key));
        }
        let of = |role: Role| RoleKeys::read(document.signed.get("roles"), role);
        let roles =
            [of(Role::Root)?, of(Role::Timestamp)?, of(Role::Snapshot)?, of(Role::Targets)?];
        Ok(Self { version, expires, consistent_snapshot, keys, roles })
    }

    pub fn role(&self, role: Role) -> &RoleKeys {
        &self.roles[role as usize]
    }

    /// The key behind an id, if it is of a kind that we can verify. `keys` is in order of ids.
    pub fn key(&self, keyid: &str) -> Option<&PublicKey> {
        let at = self.keys.binary_search_by(|(other, _)| other.as_str().cmp(keyid)).ok()?;
        self.keys[at].1.public()
    }
}

impl RoleKeys {
    fn read(roles: Option<&Value<'_>>, role: Role) -> Result<Self, Refused> {
        const EXPECTED: &str =
            "for each role a threshold above 0 and at most 32 key ids, each once";
        let bad = malformed(Role::Root, EXPECTED);
        let stated = roles.and_then(|roles| roles.get(role.as_str()));
        let threshold = stated.and_then(|role| role.get("threshold")).and_then(Value::as_u64);
        let threshold = threshold.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        let items = stated.and_then(|role| role.get("keyids")).and_then(Value::as_list);
        let (Some(threshold), Some(items)) = (threshold, items) else { return Err(bad) };
        if items.len() > ROLE_KEYS_MAX {
            return Err(bad);
        }
        let mut keyids: Vec<String> = Vec::with_capacity(items.len());
        for item in items {
            match item.as_text() {
                Some(keyid) if !keyids.iter().any(|other| other == keyid) => {
                    keyids.push(keyid.to_owned());
                }
                _ => return Err(bad),
            }
        }
        Ok(Self { keyids, threshold })
    }
}

/// What one file says of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub version: u64,
    pub length: Option<u64>,
    pub hashes: Option<Hashes>,
}

/// SHA-256 and SHA-512 of a file: at least one of the two is stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashes {
    pub sha256: Option<Digest>,
    pub sha512: Option<[u8; 64]>,
}

impl Hashes {
    fn read(value: &Value<'_>) -> Option<Self> {
        let members = value.as_object().filter(|hashes| hashes.len() <= HASHES_MAX)?;
        let (mut sha256, mut sha512) = (None, None);
        for (name, hash) in members {
            let hash = hash.as_text()?;
            match name.as_ref() {
                "sha256" => sha256 = Some(Digest::from_hex(hash)?),
                "sha512" => sha512 = Some(hex::decode(hash)?.try_into().ok()?),
                // What we do not know we do not need.
                _ => {}
            }
        }
        (sha256.is_some() || sha512.is_some()).then_some(Self { sha256, sha512 })
    }

    /// Whether these are the hashes of `bytes`: all that are stated.
    pub fn are_of(&self, bytes: &[u8]) -> bool {
        self.sha256.is_none_or(|hash| hash.0 == <[u8; 32]>::from(Sha256::digest(bytes)))
            && self.sha512.is_none_or(|hash| hash == <[u8; 64]>::from(Sha512::digest(bytes)))
    }
}

impl Meta {
    fn read(value: &Value<'_>) -> Option<Self> {
        let version = value.get("version")?.as_u64().filter(|version| *version > 0)?;
        let length = match value.get("length") {
            Some(length) => Some(length.as_u64()?),
            None => None,
        };
        let hashes = match value.get("hashes") {
            Some(hashes) => Some(Hashes::read(hashes)?),
            None => None,
        };
        Some(Self { version, length, hashes })
    }

    /// Refuses bytes that are not the ones which are meant, before anybody reads them.
    pub(super) fn check_bytes(&self, role: Role, bytes: &[u8]) -> Result<(), Refused> {
        if let Some(named) = self.length.filter(|length| *length != bytes.len() as u64) {
            return Err(Refused::OtherLength { role, named, found: bytes.len() as u64 });
        }
        match &self.hashes {
            Some(hashes) if !hashes.are_of(bytes) => Err(Refused::OtherDigest { role }),
            _ => Ok(()),
        }
    }
}

/// What is newest now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampFile {
    pub version: u64,
    pub expires: Timestamp,
    pub snapshot: Meta,
}

impl TimestampFile {
    pub(super) fn read(document: &Document<'_>) -> Result<Self, Refused> {
        let Common { version, expires, .. } = document.common;
        let meta = document.signed.get("meta").and_then(|meta| meta.get("snapshot.json"));
        let snapshot = meta.and_then(Meta::read).ok_or(malformed(
            Role::Timestamp,
            "meta of snapshot.json: a version above 0, and length and hashes if there are any",
        ))?;
        Ok(Self { version, expires, snapshot })
    }
}

/// Which files belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub version: u64,
    pub expires: Timestamp,
    /// In order of names.
    pub files: Vec<(String, Meta)>,
}

impl Snapshot {
    pub(super) fn read(document: &Document<'_>) -> Result<Self, Refused> {
        const EXPECTED: &str = "meta of at most 1024 files: each with a version above 0";
        let role = Role::Snapshot;
        let Common { version, expires, .. } = document.common;
        let members = document.signed.get("meta").and_then(Value::as_object);
        let members = members.filter(|files| files.len() <= SNAPSHOT_FILES_MAX);
        let mut files = Vec::new();
        for (name, value) in members.ok_or(malformed(role, EXPECTED))? {
            let meta = Meta::read(value).ok_or(malformed(role, EXPECTED))?;
            files.push((name.clone().into_owned(), meta));
        }
        let snapshot = Self { version, expires, files };
        if snapshot.file(Role::Targets.file()).is_none() {
            return Err(malformed(role, "meta of targets.json"));
        }
        Ok(snapshot)
    }

    pub fn file(&self, name: &str) -> Option<&Meta> {
        let at = self.files.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
        Some(&self.files[at].1)
    }

    pub(super) fn targets(&self) -> &Meta {
        self.file(Role::Targets.file()).expect("a snapshot without targets.json is not read")
    }
}

/// What there is to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    pub version: u64,
    pub expires: Timestamp,
    /// In order of paths.
    pub targets: Vec<Target>,
}

/// One file to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub path: String,
    pub length: u64,
    pub hashes: Hashes,
    pub custom: Custom,
}

/// What a target says of itself besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Custom {
    /// Nothing in our words.
    None,
    /// Of another version, or broken: it can be listed, and is never acted upon (INV-MIX-1).
    Unreadable(&'static str),
    Order(Order),
}

/// A release, and in the Director's metadata what it orders with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub release: Release,
    /// The rollout that this install belongs to.
    pub rollout: Option<RolloutId>,
    /// The floor that the device shall have from now on, once it runs this release.
    pub raise: Option<SecurityVersion>,
}

impl Target {
    /// The name under which the file lies: with consistent snapshots the digest stands before the last part of the path.
    pub fn file_name(&self, consistent_snapshot: bool) -> String {
        let Some(digest) = self.hashes.sha256.filter(|_| consistent_snapshot) else {
            return self.path.clone();
        };
        match self.path.rsplit_once('/') {
            Some((folder, file)) => format!("{folder}/{digest}.{file}"),
            None => format!("{digest}.{}", self.path),
        }
    }

    fn read(path: &str, value: &Value<'_>) -> Option<Self> {
        if path.is_empty() || path.len() > NAME_BYTES_MAX {
            return None;
        }
        let length = value.get("length")?.as_u64()?;
        let hashes = Hashes::read(value.get("hashes")?)?;
        let custom = match value.get("custom").and_then(|custom| custom.get(CUSTOM_FIELD)) {
            Some(ours) => Order::read(ours).map_or_else(Custom::Unreadable, Custom::Order),
            None => Custom::None,
        };
        Some(Self { path: path.to_owned(), length, hashes, custom })
    }
}

impl Targets {
    pub(super) fn read(document: &Document<'_>) -> Result<Self, Refused> {
        const EXPECTED: &str =
            "at most 4096 targets: paths of at most 255 bytes, each with length and known hashes";
        let role = Role::Targets;
        let Common { version, expires, .. } = document.common;
        if let Some(delegations) = document.signed.get("delegations") {
            // Somebody else's word would count for some paths, and we could not tell for which: nothing is taken.
            let no_roles =
                delegations.get("roles").and_then(Value::as_list).is_some_and(<[_]>::is_empty);
            if !no_roles || delegations.get("succinct_roles").is_some() {
                return Err(Refused::Delegates);
            }
        }
        let members = document.signed.get("targets").and_then(Value::as_object);
        let members = members.filter(|targets| targets.len() <= TARGETS_MAX);
        let mut targets = Vec::new();
        for (path, value) in members.ok_or(malformed(role, EXPECTED))? {
            targets.push(Target::read(path, value).ok_or(malformed(role, EXPECTED))?);
        }
        Ok(Self { version, expires, targets })
    }

    pub fn target(&self, path: &str) -> Option<&Target> {
        let at = self.targets.binary_search_by(|target| target.path.as_str().cmp(path)).ok()?;
        Some(&self.targets[at])
    }
}

impl Order {
    fn read(value: &Value<'_>) -> Result<Self, &'static str> {
        if value.get("v").and_then(Value::as_u64) != Some(CUSTOM_VERSION) {
            return Err("version 1 of the custom data");
        }
        let text = |name| value.get(name).and_then(Value::as_text);
        let number = |value: &Value<'_>| value.as_u64().and_then(|n| u32::try_from(n).ok());
        let product = text("product").and_then(|name| ProductId::new(name).ok());
        let version = text("version").and_then(|version| version.parse().ok());
        let security_version = value.get("security_version").and_then(number);
        let rollout = match value.get("rollout") {
            Some(rollout) => {
                let rollout = rollout.as_text().and_then(|name| RolloutId::new(name).ok());
                Some(rollout.ok_or("a rollout id")?)
            }
            None => None,
        };
        let raise = match value.get("raise") {
            Some(raise) => {
                Some(SecurityVersion(number(raise).ok_or("a security version to raise to")?))
            }
            None => None,
        };
        let release = Release {
            product: product.ok_or("a product id")?,
            version: version.ok_or("a version as in 1.2.0")?,
            security_version: SecurityVersion(security_version.ok_or("a security version")?),
            hardware: list::<HardwareId>(value.get("hardware"), HARDWARE_MAX)
                .filter(|hardware| !hardware.is_empty())
                .ok_or("1 to 16 hardware ids")?,
            must_pass: match value.get("must_pass") {
                Some(versions) => list::<Version>(Some(versions), MUST_PASS_MAX)
                    .ok_or("at most 16 versions that must be passed")?,
                None => Vec::new(),
            },
        };
        Ok(Self { release, rollout, raise })
    }
}

fn list<T: FromStr>(value: Option<&Value<'_>>, max: usize) -> Option<Vec<T>> {
    let items = value?.as_list().filter(|items| items.len() <= max)?;
    items.iter().map(|item| item.as_text()?.parse().ok()).collect()
}

/// Whether the device that the metadata name is the expected one. `None` expects that none is named.
pub(super) fn check_device(
    role: Role,
    expected: Option<&DeviceId>,
    found: Option<&str>,
) -> Result<(), Refused> {
    if expected.map(DeviceId::as_str) == found {
        Ok(())
    } else {
        let (expected, found) = (expected.cloned(), found.map(str::to_owned));
        Err(Refused::OtherDevice { role, expected, found })
    }
}
