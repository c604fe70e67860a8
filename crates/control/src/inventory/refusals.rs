//! What control refused in a device's name, counted by hour until it is written. Pure.
//!
//! Who sends without end makes no more of them than there are devices, reasons and gateways, and no more than
//! [`PENDING_MAX`] between two writes (INV-COST-1): beyond that they are counted in the metrics alone.

use model::DeviceId;
use std::collections::HashMap;

/// Kinds of refusal between two writes. Each is a few hundred bytes.
const PENDING_MAX: usize = 16_384;

/// Refusals of one kind within one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub device: DeviceId,
    /// Hours since 1970.
    pub hour: u64,
    /// a check-in, a message, a certificate, a call
    pub what: &'static str,
    pub reason: &'static str,
    pub gateway: Option<String>,
    pub count: u64,
    pub first_ms: u64,
    pub last_ms: u64,
}

type Kind = (DeviceId, u64, &'static str, &'static str, Option<String>);

#[derive(Debug, Default)]
pub struct Refusals {
    pending: HashMap<Kind, (u64, u64, u64)>,
}

impl Refusals {
    /// Whether there was room for it.
    pub fn add(
        &mut self,
        device: &DeviceId,
        what: &'static str,
        reason: &'static str,
        gateway: Option<&str>,
        at_ms: u64,
    ) -> bool {
        let kind =
            (device.clone(), at_ms / 3_600_000, what, reason, gateway.map(ToOwned::to_owned));
        if self.pending.len() >= PENDING_MAX && !self.pending.contains_key(&kind) {
            return false;
        }
        let (count, _, last_ms) = self.pending.entry(kind).or_insert((0, at_ms, at_ms));
        *count += 1;
        *last_ms = at_ms;
        true
    }

    /// All that is pending, which is not any more.
    pub fn take(&mut self) -> Vec<Refused> {
        let pending = std::mem::take(&mut self.pending).into_iter();
        let refused = pending.map(|(kind, (count, first_ms, last_ms))| {
            let (device, hour, what, reason, gateway) = kind;
            Refused { device, hour, what, reason, gateway, count, first_ms, last_ms }
        });
        refused.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_one_kind_and_hour_are_one_row_and_there_are_only_so_many_kinds() {
        let id = |n: usize| DeviceId::new(format!("pump-{n}")).unwrap();
        let mut refusals = Refusals::default();
        for at_ms in [3_600_000, 3_600_001, 7_199_999, 7_200_000] {
            assert!(refusals.add(&id(1), "a check-in", "replayed", Some("gw-1"), at_ms));
        }
        let mut taken = refusals.take();
        taken.sort_by_key(|refused| refused.hour);
        let counts: Vec<_> =
            taken.iter().map(|r| (r.hour, r.count, r.first_ms, r.last_ms)).collect();
        assert_eq!(counts, [(1, 3, 3_600_000, 7_199_999), (2, 1, 7_200_000, 7_200_000)]);
        assert!(refusals.take().is_empty());

        for n in 0..PENDING_MAX {
            assert!(refusals.add(&id(n), "a message", "bad_signature", None, 1));
        }
        assert!(!refusals.add(&id(PENDING_MAX), "a message", "bad_signature", None, 1));
        assert!(refusals.add(&id(0), "a message", "bad_signature", None, 1), "it is known");
    }
}
