//! Which message of which key may take effect, as far as a gateway can tell. Pure.
//!
//! Promises: a counter is free, pending or durable, and only ever moves in this order; a message that is durable or
//! on its way is never stored twice by this gateway while its window remembers it (INV-REPLAY-1); nobody hears yes
//! before the record is durable (INV-ACK-1); a signature counts for a device's own kinds only (INV-PURP-1).
//! Never: decides what becomes history. That is *taken*'s, in the store: what this memory has lost is admitted again.

use crate::bundle::View;
use crate::refusal::Refusal;
use api::update::CHECK_IN_BYTES_MAX;
use model::envelope::MESSAGE_BYTES_MAX;
use model::manifest::Manifest;
use model::{Counter, DeviceId, Digest, KeyId, Kind, Nonce};
use std::collections::{HashMap, HashSet};
use trust::window::{self, Window};
use trust::{cose, manifest};

/// A message that was believed: its signature is that of a key by which the device may seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub key: KeyId,
    pub counter: Counter,
    pub digest: Digest,
    /// It has heard this session's nonce: news, not history.
    pub fresh: bool,
}

/// Reads and verifies a message that a device handed over. Bounded by the length of the message.
pub fn judge(
    view: &View,
    device: &DeviceId,
    nonce: &Nonce,
    message: &[u8],
) -> Result<Claim, Refusal> {
    let unverified = cose::open(message, MESSAGE_BYTES_MAX).map_err(|e| e.reason)?;
    if !matches!(unverified.header().kind, Kind::Readings | Kind::LossNotice) {
        return Err(Refusal::MessageUnknownKind);
    }
    let key = view.seal_key(device, &unverified.header().key).ok_or(Refusal::UnknownKey)?;
    let verified = unverified.verify(key).map_err(|_| Refusal::BadSignature)?;
    let header = verified.header();
    Ok(Claim {
        key: header.key,
        counter: header.counter,
        digest: trust::digest(message),
        fresh: header.heard.is_some_and(|heard| heard.nonce == *nonce),
    })
}

/// Reads and verifies the manifest of a device that checks in. Whether it is news is for control to judge: the gateway keeps
/// none.
pub fn judge_manifest(view: &View, device: &DeviceId, message: &[u8]) -> Result<Manifest, Refusal> {
    let unverified = cose::open(message, CHECK_IN_BYTES_MAX).map_err(|e| e.reason)?;
    let key = view.seal_key(device, &unverified.header().key).ok_or(Refusal::UnknownKey)?;
    let opened = manifest::open(message, key, device);
    opened.map(|(_, manifest)| manifest).map_err(|refused| match refused {
        manifest::Refused::Malformed(malformed) => malformed.reason.into(),
        manifest::Refused::OtherKind(_) => Refusal::MessageUnknownKind,
        manifest::Refused::BadSignature => Refusal::BadSignature,
        manifest::Refused::OtherDevice { .. } => Refusal::MessageOtherDevice,
    })
}

/// What is known of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing. `late`: below what is known already.
    Free { late: bool },
    /// These bytes wait for the disk.
    Pending,
    /// These bytes are on the disk.
    Durable,
    /// Other bytes are, or wait: one of the two is forged.
    Forged,
}

/// The windows of all keys, and what waits for the disk. `W` is whoever waits for an answer.
#[derive(Debug)]
pub struct Admission<W> {
    remember: usize,
    windows: HashMap<KeyId, Window>,
    pending: HashMap<(KeyId, Counter), Pending<W>>,
}

#[derive(Debug)]
struct Pending<W> {
    digest: Digest,
    waiting: Vec<W>,
}

impl<W> Admission<W> {
    /// `remember`: how many of its last messages are remembered of each key. As many as can be in flight are enough.
    pub fn new(remember: usize) -> Self {
        Self { remember, windows: HashMap::new(), pending: HashMap::new() }
    }

    pub fn look(&self, claim: &Claim) -> Standing {
        if let Some(pending) = self.pending.get(&(claim.key, claim.counter)) {
            return if pending.digest == claim.digest {
                Standing::Pending
            } else {
                Standing::Forged
            };
        }
        let known = self.windows.get(&claim.key);
        match known.map_or(window::Look::Fresh, |w| w.look(claim.counter, &claim.digest)) {
            window::Look::Fresh => Standing::Free { late: false },
            window::Look::Late => Standing::Free { late: true },
            window::Look::Repeat => Standing::Durable,
            window::Look::Forged => Standing::Forged,
        }
    }

    /// A free counter's record was queued: free → pending.
    pub fn begin(&mut self, claim: &Claim, waiter: W) {
        let pending = Pending { digest: claim.digest, waiting: vec![waiter] };
        let before = self.pending.insert((claim.key, claim.counter), pending);
        debug_assert!(before.is_none(), "only a free counter begins");
    }

    /// Who was the first to wait for this record.
    pub fn first_waiting(&self, claim: &Claim) -> Option<&W> {
        self.pending.get(&(claim.key, claim.counter))?.waiting.first()
    }

    /// Another one waits for the same record.
    pub fn join(&mut self, claim: &Claim, waiter: W) {
        if let Some(pending) = self.pending.get_mut(&(claim.key, claim.counter)) {
            pending.waiting.push(waiter);
        }
    }

    /// The record is durable: pending → durable. Whoever waited may hear yes. Called in the order of the log, so that
    /// the windows are what folding the log gives.
    pub fn durable(&mut self, claim: &Claim) -> Vec<W> {
        self.fold(claim.key, claim.counter, claim.digest);
        self.pending.remove(&(claim.key, claim.counter)).map_or_else(Vec::new, |p| p.waiting)
    }

    /// The record is not in the log: pending → free, and the window has not moved.
    pub fn dropped(&mut self, claim: &Claim) -> Vec<W> {
        self.pending.remove(&(claim.key, claim.counter)).map_or_else(Vec::new, |p| p.waiting)
    }

    /// Takes a durable record into its key's window.
    pub fn fold(&mut self, key: KeyId, counter: Counter, digest: Digest) {
        let remember = self.remember;
        self.windows.entry(key).or_insert_with(|| Window::new(remember)).admit(counter, digest);
    }

    /// Forgets keys that nobody may seal by any more, except those whose records still wait.
    pub fn retain(&mut self, still: impl Fn(&KeyId) -> bool) {
        let waiting: HashSet<KeyId> = self.pending.keys().map(|(key, _)| *key).collect();
        self.windows.retain(|key, _| still(key) || waiting.contains(key));
    }

    pub fn windows(&self) -> &HashMap<KeyId, Window> {
        &self.windows
    }

    /// Puts back a window from a checkpoint.
    pub fn restore(&mut self, key: KeyId, window: Window) {
        self.windows.insert(key, window);
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests;
