//! The promises of the evidence log.

mod cuts;
mod event;
mod export;
mod foreign;
mod golden;
mod log;
mod merkle;
mod note;
mod sequencer;

use disk::{Disk, SharedDisk, SimDisk};
use evidence::event::Said;
use evidence::{Event, Head, Log, LogError, NoteKey};
use model::envelope::Algorithm;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use trust::cose::{SecretKey, Signer};

pub const DIR: &str = "/evidence";
pub const ORIGIN: &str = "press.example/evidence";

/// Each seed is another key.
pub fn signer(seed: u8) -> Arc<dyn Signer> {
    let key = SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]);
    Arc::new(key.expect("32 bytes are an Ed25519 key"))
}

pub fn key() -> NoteKey {
    NoteKey::new(ORIGIN, signer(3).public()).expect("a good name and key")
}

pub fn try_open(disk: SharedDisk, known: Option<Head>) -> Result<Log, LogError> {
    Log::open(disk, Path::new(DIR), ORIGIN, signer(3), known)
}

pub fn open(disk: &SimDisk) -> Log {
    try_open(disk.shared(), None).expect("a healthy log opens")
}

/// Event `n` of every test: of different lengths, none like another. Every 50th spans several sectors.
pub fn event(n: u64) -> Event {
    // The first ones are made once: tests with thousands of cuts append them again and again.
    static FIRST: LazyLock<Vec<Event>> =
        LazyLock::new(|| (0..300).map(|n| told(n, "control")).collect());
    FIRST.get(n as usize).cloned().unwrap_or_else(|| told(n, "control"))
}

/// The same by another actor.
pub fn told(n: u64, actor: &str) -> Event {
    let long = "x".repeat(if n % 50 == 49 { 1500 } else { (n * 7 % 40) as usize });
    let detail = json!({ "wave": n % 4, "why": long, "devices": [n, n + 1] });
    Event::new(n, said(actor, detail)).expect("a good event")
}

pub fn said(actor: &str, detail: Value) -> Said {
    let Value::Object(detail) = detail else { panic!("a detail is an object") };
    Said {
        at_ms: 1_763_740_000_000,
        actor: actor.into(),
        action: "rollout.halt".into(),
        subject: "rollout/pump-app-1.2.0".into(),
        detail,
    }
}

/// Appends events and makes one checkpoint.
pub fn grow(log: &mut Log, events: std::ops::Range<u64>) -> Head {
    for n in events {
        log.append(&event(n)).expect("an event in order is taken");
    }
    log.checkpoint().expect("a healthy disk takes a checkpoint").head()
}

/// Everything on a disk, on another one: a backup.
pub fn copy(disk: &SimDisk) -> SimDisk {
    let to = SimDisk::new(0);
    copy_dir(disk, &to, Path::new(DIR));
    to
}

fn copy_dir(from: &SimDisk, to: &SimDisk, dir: &Path) {
    to.create_dir_all(dir).unwrap();
    for name in from.list(dir).unwrap() {
        let path = dir.join(name);
        match from.read(&path, u64::MAX) {
            Ok(bytes) => disk::replace(to, &path, &bytes).unwrap(),
            Err(_) => copy_dir(from, to, &path),
        }
    }
}
