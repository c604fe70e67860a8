//! A short memory of what is durable on the bus already, so that a gateway's second attempt costs no second append.
//!
//! Correctness does not rest on it: what it has forgotten is appended again, and the store, which never forgets, takes
//! each counter once (INV-REPLAY-1). It is empty after a start.

use model::{Counter, Digest, KeyId};
use std::collections::HashMap;

/// A message by its counter and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    pub key: KeyId,
    pub counter: Counter,
    pub digest: Digest,
}

/// Remembers at least the last `remember` messages, and at most twice as many: when the younger half is full, the older
/// one is forgotten as a whole.
#[derive(Debug)]
pub struct Known {
    remember: usize,
    young: HashMap<(KeyId, Counter), Digest>,
    old: HashMap<(KeyId, Counter), Digest>,
}

impl Known {
    pub fn new(remember: usize) -> Self {
        Self { remember: remember.max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// Whether these very bytes are durable. Other bytes under the same counter are not known: the store decides which
    /// of the two counts.
    pub fn has(&self, seen: &Seen) -> bool {
        let at = (seen.key, seen.counter);
        [&self.young, &self.old].iter().any(|half| half.get(&at) == Some(&seen.digest))
    }

    /// To be told of durable messages only. Of two under one counter the first stays.
    pub fn remember(&mut self, seen: Seen) {
        let at = (seen.key, seen.counter);
        if self.old.contains_key(&at) || self.young.contains_key(&at) {
            return;
        }
        if self.young.len() >= self.remember {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(at, seen.digest);
    }

    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sequence: u64, digest: u8) -> Seen {
        let counter = Counter { epoch: 0, sequence };
        Seen { key: KeyId([1; 32]), counter, digest: Digest([digest; 32]) }
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
    }
}
