//! So many calls of a gateway at a time, so that none takes the places of the others.

use crate::problem::Failure;
use model::DeviceId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Calls that are under way, by gateway.
#[derive(Debug)]
pub(crate) struct Turns {
    /// As a refusal names them.
    what: &'static str,
    /// At a time, of one gateway. One more is refused, and comes again.
    max: usize,
    taken: Arc<Mutex<HashMap<DeviceId, usize>>>,
}

#[derive(Debug)]
pub(crate) struct Turn {
    taken: Arc<Mutex<HashMap<DeviceId, usize>>>,
    gateway: DeviceId,
}

impl Turns {
    pub fn new(what: &'static str, max: usize) -> Self {
        Self { what, max, taken: Arc::default() }
    }

    pub fn take(&self, gateway: DeviceId) -> Result<Turn, Failure> {
        let mut taken = self.taken.lock().expect("nothing panics while it holds the turns");
        let count = taken.entry(gateway.clone()).or_default();
        if *count >= self.max {
            let Self { what, max, .. } = self;
            let detail =
                format!("expected at most {max} {what} of `{gateway}` at a time, found one more");
            return Err(Failure::busy(detail));
        }
        *count += 1;
        Ok(Turn { taken: self.taken.clone(), gateway })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().expect("nothing panics while it holds the turns");
        let count = taken.get_mut(&self.gateway).expect("who has a turn is counted");
        *count -= 1;
        if *count == 0 {
            taken.remove(&self.gateway);
        }
    }
}
