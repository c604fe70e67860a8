//! A short memory of what is durable on the bus already, so that a gateway's second attempt costs no second append.
//!
//! History does not rest on it: a message that it has forgotten is appended again, and the store, which never forgets,
//! takes each counter once (INV-REPLAY-1). Quarantine does: nobody vouches for a counter there, so a record that was
//! forgotten and is handed up again becomes a second row. It is empty after a start.

use model::uplink::{QuarantineReason, Record};
use model::{Counter, Digest, GatewayId, KeyId};
use std::collections::HashMap;
use std::hash::Hash;

/// What is durable on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// On its way into history: a message by its counter and its bytes.
    Message { key: KeyId, counter: Counter, digest: Digest },
    /// On its way into quarantine: which gateway handed up what, in whose name, and why it is not believed. Only the same
    /// in all of it is a repeat: a message that was put apart may be believed when it comes by its right way.
    Apart(Digest),
}

impl Seen {
    pub fn apart(gateway: &GatewayId, record: &Record, reason: QuarantineReason) -> Self {
        let names = [gateway.as_str(), record.device.as_str(), reason.as_str()];
        // No name has a NUL, so the parts cannot run into each other.
        let mut text = names.join("\0").into_bytes();
        text.push(0);
        text.extend_from_slice(&record.message);
        Self::Apart(trust::digest(&text))
    }
}

/// Remembers at least the last `remember` messages, and as many records of quarantine: whoever hands up noise makes it
/// forget other noise only.
#[derive(Debug)]
pub struct Known {
    messages: Recent<(KeyId, Counter), Digest>,
    apart: Recent<Digest, ()>,
}

impl Known {
    pub fn new(remember: usize) -> Self {
        Self { messages: Recent::new(remember), apart: Recent::new(remember) }
    }

    /// Whether these very bytes are durable. Other bytes under the same counter are not known: the store decides which
    /// of the two counts.
    pub fn has(&self, seen: &Seen) -> bool {
        match seen {
            Seen::Message { key, counter, digest } => {
                self.messages.get(&(*key, *counter)).is_some_and(|known| known == digest)
            }
            Seen::Apart(digest) => self.apart.get(digest).is_some(),
        }
    }

    /// To be told of what is durable only. Of two messages under one counter the first stays.
    pub fn remember(&mut self, seen: Seen) {
        match seen {
            Seen::Message { key, counter, digest } => self.messages.put((key, counter), digest),
            Seen::Apart(digest) => self.apart.put(digest, ()),
        }
    }

    pub fn len(&self) -> usize {
        self.messages.len() + self.apart.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// At least the last `remember` entries, and at most twice as many: when the younger half is full, the older one is
/// forgotten as a whole.
#[derive(Debug)]
struct Recent<K, V> {
    remember: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    fn new(remember: usize) -> Self {
        Self { remember: remember.max(1), young: HashMap::new(), old: HashMap::new() }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Of two values under one key the first stays.
    fn put(&mut self, key: K, value: V) {
        if self.get(&key).is_some() {
            return;
        }
        if self.young.len() >= self.remember {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::uplink::AttestedBy;
    use model::{DeviceId, Timestamp};

    fn seen(sequence: u64, digest: u8) -> Seen {
        let counter = Counter { epoch: 0, sequence };
        Seen::Message { key: KeyId([1; 32]), counter, digest: Digest([digest; 32]) }
    }

    #[test]
    fn the_same_bytes_are_known_and_others_under_their_counter_are_not() {
        let mut known = Known::new(10);
        assert!(!known.has(&seen(1, 1)));
        known.remember(seen(1, 1));
        known.remember(seen(1, 2));
        assert!(known.has(&seen(1, 1)));
        assert!(!known.has(&seen(1, 2)));
    }

    #[test]
    fn a_record_of_quarantine_is_known_when_all_about_it_is_the_same() {
        let apart = |gateway: &str, device: &str, message: &[u8], reason| {
            let record = Record {
                device: DeviceId::new(device).unwrap(),
                attested_by: AttestedBy::Device,
                received_at: Timestamp(0),
                uncertainty_ms: 0,
                fresh: false,
                message: message.to_vec(),
            };
            Seen::apart(&GatewayId::new(gateway).unwrap(), &record, reason)
        };
        use QuarantineReason::{Malformed, WrongDevice};
        let mut known = Known::new(10);
        known.remember(apart("gw-1", "pump-1", b"noise", Malformed));
        assert!(known.has(&apart("gw-1", "pump-1", b"noise", Malformed)));
        for other in [
            apart("gw-2", "pump-1", b"noise", Malformed),
            apart("gw-1", "pump-2", b"noise", Malformed),
            apart("gw-1", "pump-1", b"noises", Malformed),
            apart("gw-1", "pump-1", b"noise", WrongDevice),
        ] {
            assert!(!known.has(&other));
        }
    }

    /// INV-COST-1.
    #[test]
    fn it_remembers_the_last_and_never_more_than_twice_as_many() {
        let mut known = Known::new(10);
        for sequence in 0..1000 {
            known.remember(seen(sequence, 1));
            assert!(known.len() <= 20);
            assert!((sequence.saturating_sub(9)..=sequence).all(|s| known.has(&seen(s, 1))));
        }
        assert!(!known.has(&seen(0, 1)));
        let apart = |n: u64| Seen::Apart(trust::digest(&n.to_be_bytes()));
        for n in 0..1000 {
            known.remember(apart(n));
            assert!(known.len() <= 40 && known.has(&apart(n)));
        }
        assert!(known.has(&seen(999, 1)), "noise makes nobody forget history");
    }
}
