//! So many calls of one caller at a time, so that none takes the places of the others.

use crate::problem::Failure;
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

/// Calls that are under way, by who makes them.
#[derive(Debug)]
pub(crate) struct Turns<K> {
    /// As a refusal names them.
    what: &'static str,
    /// At a time, of one caller. One more is refused, and comes again.
    max: usize,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

#[derive(Debug)]
pub(crate) struct Turn<K: Hash + Eq> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    who: K,
}

impl<K: Hash + Eq + Clone + Display> Turns<K> {
    pub fn new(what: &'static str, max: usize) -> Self {
        Self { what, max, taken: Arc::default() }
    }

    pub fn take(&self, who: K) -> Result<Turn<K>, Failure> {
        let mut taken = self.taken.lock().expect("nothing panics while it holds the turns");
        let count = taken.entry(who.clone()).or_default();
        if *count >= self.max {
            let Self { what, max, .. } = self;
            let detail =
                format!("expected at most {max} {what} of `{who}` at a time, found one more");
            return Err(Failure::busy(detail));
        }
        *count += 1;
        Ok(Turn { taken: self.taken.clone(), who })
    }
}

impl<K: Hash + Eq> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().expect("nothing panics while it holds the turns");
        let count = taken.get_mut(&self.who).expect("who has a turn is counted");
        *count -= 1;
        if *count == 0 {
            taken.remove(&self.who);
        }
    }
}
