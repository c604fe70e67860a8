//! One uplink call of a gateway at a time.

use crate::problem::Failure;
use model::DeviceId;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

/// One uplink call at a time per gateway, so that none takes all slots.
#[derive(Debug, Default)]
pub(crate) struct Turns(Arc<Mutex<HashSet<DeviceId>>>);

#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Mutex<HashSet<DeviceId>>>,
    gateway: DeviceId,
}

impl Turns {
    pub fn take(&self, gateway: DeviceId) -> Result<Turn, Failure> {
        let mut taken = self.0.lock().expect("nothing panics while it holds the turns");
        if !taken.insert(gateway.clone()) {
            let detail =
                format!("expected one uplink call of `{gateway}` at a time, found another");
            return Err(Failure::busy(detail));
        }
        Ok(Turn { turns: self.0.clone(), gateway })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().expect("nothing panics while it holds the turns").remove(&self.gateway);
    }
}
