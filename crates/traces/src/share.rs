//! How much one device may have told, so that none floods the collector or takes the others' room (INV-COST-1).
//!
//! A device that knows the ratio can choose counters whose traces are sampled. So each has a share of its own: devices fall into
//! [`SHARES`] shares by a hash that this process alone knows, and each share is a bucket.

use model::DeviceId;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// One device can dry up one in so many of the others' shares, and does not know whose.
const SHARES: usize = 256;
/// Traces of a share in a second.
pub const PER_SECOND: u64 = 20;
/// And at once: what a device had kept while its gateway was away comes in one go.
pub const BURST: u64 = 200;

const EACH_US: u64 = 1_000_000 / PER_SECOND;

pub struct Shares {
    hash: RandomState,
    /// Of each share, until when it is used up, in µs since the start.
    used_until: Vec<AtomicU64>,
}

impl Shares {
    pub fn new() -> Self {
        Self {
            hash: RandomState::new(),
            used_until: (0..SHARES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Takes one of a device's share, if there is one.
    pub fn take(&self, device: &DeviceId, now_us: u64) -> bool {
        let share = self.hash.hash_one(device) as usize % SHARES;
        let next = |until: u64| {
            let until = until.max(now_us) + EACH_US;
            (until - now_us <= BURST * EACH_US).then_some(until)
        };
        self.used_until[share].fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_floods_uses_up_its_own_share() {
        let shares = Shares::new();
        let noisy = DeviceId::new("noisy").unwrap();
        let taken = |now_us| (0..10_000).filter(|_| shares.take(&noisy, now_us)).count() as u64;
        assert_eq!(taken(0), BURST);
        assert_eq!(taken(1_000_000), PER_SECOND, "a second later");
        let others = (0..1000).map(|n| DeviceId::new(format!("pump-{n}")).unwrap());
        let heard = others.filter(|device| shares.take(device, 1_000_000)).count();
        // One share of 256 is dry: the odds that it holds 40 of a thousand are less than one in 10^25.
        assert!(heard > 960, "{heard}");
    }
}
