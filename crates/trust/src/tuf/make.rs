//! Makes the files of a repository: pure functions of what they shall say and of who signs.
//!
//! What is made is read back by the reader of this crate before it is given out: nothing is published that a client would
//! refuse for its form. The same arguments and signers make the same bytes: Ed25519 and our ECDSA draw no random numbers.
//! Where the files lie: `N.root.json`, `timestamp.json`, `N.snapshot.json`, `N.targets.json` and, for targets,
//! [`Target::file_name`]: consistent snapshots, always.

use super::json::Value;
use super::metadata::{self, CUSTOM_FIELD, CUSTOM_VERSION, DEVICE_FIELD};
use super::{Custom, Hashes, Order, Refused, Role, Root, Snapshot, Target, Targets, TimestampFile};
use super::{key, time};
use crate::cose::{PublicKey, SignError, Signer};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use model::{DeviceId, Timestamp, hex};

/// The version of TUF that our files name.
pub const SPEC_VERSION: &str = "1.0.31";

/// Why a file was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMade {
    Sign(SignError),
    /// No four digits write this year.
    Time(Timestamp),
    /// A path stands twice.
    Twice {
        path: String,
    },
    /// A threshold that no distinct keys can reach.
    Threshold {
        role: Role,
        needed: u32,
        keys: u32,
    },
    /// Such a file would be refused.
    Refused(Refused),
}

impl fmt::Display for NotMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sign(error) => error.fmt(f),
            Self::Time(time) => {
                write!(f, "expected a year from 0000 to 9999, found {} µs after 1970", time.as_us())
            }
            Self::Twice { path } => write!(f, "expected each target once, found `{path}` twice"),
            Self::Threshold { role, needed, keys } => {
                write!(f, "{role}: expected at least {needed} distinct keys, found {keys}")
            }
            Self::Refused(refused) => write!(f, "clients would refuse it: {refused}"),
        }
    }
}

impl core::error::Error for NotMade {}

impl From<SignError> for NotMade {
    fn from(error: SignError) -> Self {
        Self::Sign(error)
    }
}

impl From<Refused> for NotMade {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What a file says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub version: u64,
    pub expires: Timestamp,
    /// The device that it is for; a root and an image repository name none.
    pub device: Option<&'a DeviceId>,
}

/// Who may sign one role.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    pub keys: &'a [PublicKey],
    pub threshold: u32,
}

/// Keys of the four roles.
#[derive(Clone, Copy, Debug)]
pub struct Roles<'a> {
    pub root: Keys<'a>,
    pub timestamp: Keys<'a>,
    pub snapshot: Keys<'a>,
    pub targets: Keys<'a>,
}

/// A root. Signers are a threshold of its own keys and, after the first one, of the root's before it.
pub fn root(
    head: &Head<'_>,
    roles: &Roles<'_>,
    signers: &[&dyn Signer],
) -> Result<Vec<u8>, NotMade> {
    let of = [
        (Role::Root, &roles.root),
        (Role::Timestamp, &roles.timestamp),
        (Role::Snapshot, &roles.snapshot),
        (Role::Targets, &roles.targets),
    ];
    let mut keys: Vec<(String, Value<'_>)> = Vec::new();
    let mut stated = Vec::new();
    for (role, Keys { keys: own, threshold }) in of {
        let mut ids: Vec<String> = own.iter().map(key::id).collect();
        ids.sort_unstable();
        ids.dedup();
        if *threshold == 0 || (*threshold as usize) > ids.len() {
            let (needed, keys) = (*threshold, ids.len() as u32);
            return Err(NotMade::Threshold { role, needed, keys });
        }
        for key in own.iter() {
            let id = key::id(key);
            if !keys.iter().any(|(other, _)| *other == id) {
                keys.push((id, key::to_value(key)));
            }
        }
        let keyids = Value::List(ids.into_iter().map(Value::text).collect());
        let threshold = Value::Int((*threshold).into());
        stated.push((
            role.as_str(),
            Value::object(vec![("keyids", keyids), ("threshold", threshold)]),
        ));
    }
    let keys = keys.iter().map(|(id, key)| (id.as_str(), key.clone())).collect();
    let fields = vec![
        ("consistent_snapshot", Value::Bool(true)),
        ("keys", Value::object(keys)),
        ("roles", Value::object(stated)),
    ];
    let bytes = signed(Role::Root, head, fields, signers)?;
    Root::read(&metadata::open(&bytes, Role::Root)?)?;
    Ok(bytes)
}

/// The targets. A target that is made here has its SHA-256 stated.
pub fn targets(
    head: &Head<'_>,
    targets: &[Target],
    signers: &[&dyn Signer],
) -> Result<Vec<u8>, NotMade> {
    let mut members = Vec::with_capacity(targets.len());
    for target in targets {
        members.push((target.path.as_str(), target_value(target)));
    }
    members.sort_by_key(|(path, _)| *path);
    if let Some(two) = members.windows(2).find(|two| two[0].0 == two[1].0) {
        return Err(NotMade::Twice { path: two[0].0.to_string() });
    }
    let bytes = signed(Role::Targets, head, vec![("targets", Value::object(members))], signers)?;
    Targets::read(&metadata::open(&bytes, Role::Targets)?)?;
    Ok(bytes)
}

/// A snapshot of these targets: their version and their exact bytes.
pub fn snapshot(
    head: &Head<'_>,
    targets: (u64, &[u8]),
    signers: &[&dyn Signer],
) -> Result<Vec<u8>, NotMade> {
    let meta = Value::object(vec![(Role::Targets.file(), meta(targets))]);
    let bytes = signed(Role::Snapshot, head, vec![("meta", meta)], signers)?;
    Snapshot::read(&metadata::open(&bytes, Role::Snapshot)?)?;
    Ok(bytes)
}

/// A timestamp of this snapshot: its version and its exact bytes.
pub fn timestamp(
    head: &Head<'_>,
    snapshot: (u64, &[u8]),
    signers: &[&dyn Signer],
) -> Result<Vec<u8>, NotMade> {
    let meta = Value::object(vec![(Role::Snapshot.file(), meta(snapshot))]);
    let bytes = signed(Role::Timestamp, head, vec![("meta", meta)], signers)?;
    TimestampFile::read(&metadata::open(&bytes, Role::Timestamp)?)?;
    Ok(bytes)
}

/// The file with one signature more: a threshold whose holders sit in different rooms. A signature that the same key had
/// made is replaced. Nothing that is signed changes.
pub fn also_signed(file: &[u8], role: Role, signer: &dyn Signer) -> Result<Vec<u8>, NotMade> {
    let message = metadata::open(file, role)?.message;
    let json = |json| Refused::NotJson { role, json };
    let Value::Object(mut members) = Value::parse(file, role.values_max()).map_err(json)? else {
        unreachable!("what was opened is an object");
    };
    let id = key::id(signer.public());
    let signature = signature(signer, &message)?;
    for (name, value) in &mut members {
        if let (Value::List(signatures), "signatures") = (value, name.as_ref()) {
            let same =
                |other: &Value<'_>| other.get("keyid").and_then(Value::as_text) == Some(&*id);
            signatures.retain(|other| !same(other));
            signatures.push(signature.clone());
        }
    }
    let bytes = Value::Object(members).to_json();
    metadata::open(&bytes, role)?;
    Ok(bytes)
}

impl Target {
    /// A target of these bytes.
    pub fn of(path: impl Into<String>, bytes: &[u8], order: Order) -> Self {
        let sha256 = Some(crate::digest(bytes));
        let hashes = Hashes { sha256, sha512: None };
        let length = bytes.len() as u64;
        Self { path: path.into(), length, hashes, custom: Custom::Order(order) }
    }
}

fn signed(
    role: Role,
    head: &Head<'_>,
    fields: Vec<(&str, Value<'_>)>,
    signers: &[&dyn Signer],
) -> Result<Vec<u8>, NotMade> {
    let expires = time::format(head.expires).ok_or(NotMade::Time(head.expires))?;
    let version = i64::try_from(head.version).ok().filter(|version| *version > 0);
    let version =
        version.ok_or(Refused::Malformed { role, expected: "a version above 0 and below 2^63" })?;
    let mut members = vec![
        ("_type", Value::text(role.as_str())),
        ("spec_version", Value::text(SPEC_VERSION)),
        ("version", Value::Int(version)),
        ("expires", Value::text(expires)),
    ];
    if let Some(device) = head.device {
        members.push((DEVICE_FIELD, Value::text(device.as_str())));
    }
    members.extend(fields);
    let signed = Value::object(members);
    let message = signed.canonical();
    let signatures: Result<Vec<Value<'_>>, SignError> =
        signers.iter().map(|signer| signature(*signer, &message)).collect();
    let file = Value::object(vec![("signatures", Value::List(signatures?)), ("signed", signed)]);
    Ok(file.to_json())
}

fn signature(signer: &dyn Signer, message: &[u8]) -> Result<Value<'static>, SignError> {
    Ok(Value::object(vec![
        ("keyid", Value::text(key::id(signer.public()))),
        ("sig", Value::text(key::sign(signer, message)?)),
    ]))
}

fn meta((version, bytes): (u64, &[u8])) -> Value<'static> {
    let hashes = Value::object(vec![("sha256", Value::text(crate::digest(bytes).to_string()))]);
    Value::object(vec![
        ("version", Value::Int(version as i64)),
        ("length", Value::Int(bytes.len() as i64)),
        ("hashes", hashes),
    ])
}

fn target_value(target: &Target) -> Value<'_> {
    let mut hashes = Vec::new();
    if let Some(sha256) = &target.hashes.sha256 {
        hashes.push(("sha256", Value::text(sha256.to_string())));
    }
    if let Some(sha512) = &target.hashes.sha512 {
        hashes.push(("sha512", Value::text(hex::encode(sha512))));
    }
    let mut members =
        vec![("length", Value::Int(target.length as i64)), ("hashes", Value::object(hashes))];
    if let Custom::Order(order) = &target.custom {
        members.push(("custom", Value::object(vec![(CUSTOM_FIELD, order_value(order))])));
    }
    Value::object(members)
}

fn order_value(order: &Order) -> Value<'_> {
    let release = &order.release;
    let versions = release.must_pass.iter().map(|version| Value::text(version.to_string()));
    let mut members = vec![
        ("v", Value::Int(CUSTOM_VERSION as i64)),
        ("product", Value::text(release.product.as_str())),
        ("version", Value::text(release.version.to_string())),
        ("security_version", Value::Int(release.security_version.0.into())),
        (
            "hardware",
            Value::List(release.hardware.iter().map(|id| Value::text(id.as_str())).collect()),
        ),
        ("must_pass", Value::List(versions.collect())),
    ];
    if let Some(rollout) = &order.rollout {
        members.push(("rollout", Value::text(rollout.as_str())));
    }
    if let Some(raise) = order.raise {
        members.push(("raise", Value::Int(raise.0.into())));
    }
    Value::object(members)
}
