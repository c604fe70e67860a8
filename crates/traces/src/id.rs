//! Ids that every station derives by itself, and which of them are sampled.
//!
//! ```text
//! trace of a message   SHA-256(parts "plimsoll trace 1 message", key, epoch, sequence), the first 16 bytes
//! trace of an update   SHA-256(parts "plimsoll trace 1 update", site, rollout, device), the first 16 bytes
//! span                 SHA-256(parts "plimsoll trace 1 span", trace, step's name, gateway or "", end or ""), the first 8 bytes
//! parts                each with its length before it, u32, big-endian; numbers are 8 bytes, big-endian
//! ```
//!
//! A message is known by its key and counter everywhere: no two of them share both, and no device has another's key.

use crate::step::Step;
use model::{Counter, DeviceId, KeyId, RolloutId, hex};
use std::fmt;

/// W3C Trace Context §3.2.2.3.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// W3C Trace Context §3.2.2.4.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// A trace that is sampled: spans may be told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub(crate) id: TraceId,
    /// By which it was sampled.
    pub(crate) threshold: Threshold,
}

impl Trace {
    pub fn id(self) -> TraceId {
        self.id
    }
}

impl TraceId {
    pub fn of_message(key: &KeyId, counter: Counter) -> Self {
        let (epoch, sequence) =
            (u64::from(counter.epoch).to_be_bytes(), counter.sequence.to_be_bytes());
        Self(derived(&[b"plimsoll trace 1 message", key.as_bytes(), &epoch, &sequence]))
    }

    pub fn of_update(site: &str, rollout: &RolloutId, device: &DeviceId) -> Self {
        let (rollout, device) = (rollout.as_str().as_bytes(), device.as_str().as_bytes());
        Self(derived(&[b"plimsoll trace 1 update", site.as_bytes(), rollout, device]))
    }

    /// The last 56 bits, which decide (OpenTelemetry, TraceState: Probability Sampling): a collector that samples further by
    /// the same rule keeps whole traces.
    fn randomness(self) -> u64 {
        let [.., a, b, c, d, e, f, g] = self.0;
        u64::from_be_bytes([0, a, b, c, d, e, f, g])
    }
}

impl SpanId {
    pub fn of(trace: TraceId, step: &Step<'_>) -> Self {
        let gateway = step.gateway().map_or("", |gateway| gateway.as_str());
        let end = step.end().unwrap_or_default();
        let parts = [
            &b"plimsoll trace 1 span"[..],
            &trace.0,
            step.name().as_bytes(),
            gateway.as_bytes(),
            end.as_bytes(),
        ];
        Self(derived(&parts))
    }
}

fn derived<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut bytes = Vec::with_capacity(256);
    for part in parts {
        let len = u32::try_from(part.len()).expect("names and digests are short");
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    let digest = trust::digest(&bytes);
    let mut id = [0; N];
    id.copy_from_slice(&digest.as_bytes()[..N]);
    id
}

/// The share of traces that is told: a threshold, below which a trace's randomness is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threshold(u64);

const RANDOMNESS_MAX: u64 = 1 << 56;

impl Threshold {
    /// Each trace is told.
    pub const ALL: Self = Self(0);

    /// `ratio` is within 0 and 1.
    pub fn of(ratio: f64) -> Self {
        Self(((1.0 - ratio) * RANDOMNESS_MAX as f64) as u64)
    }

    pub fn samples(self, trace: TraceId) -> bool {
        trace.randomness() >= self.0
    }

    /// As `tracestate` says it, so that a collector can reckon how many there were.
    pub fn trace_state(self) -> String {
        let digits = format!("{:014x}", self.0);
        let digits = digits.trim_end_matches('0');
        format!("ot=th:{}", if digits.is_empty() { "0" } else { digits })
    }
}

macro_rules! shown {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

shown! { TraceId SpanId }

#[cfg(test)]
mod tests {
    use super::*;
    use model::GatewayId;

    fn message(sequence: u64) -> TraceId {
        TraceId::of_message(&KeyId([7; 32]), Counter { epoch: 3, sequence })
    }

    /// Stations of two releases meet in one trace: what is derived is a format. These were reckoned by Python's hashlib.
    #[test]
    fn ids_keep_their_bytes() {
        let gateway = GatewayId::new("gw-1").unwrap();
        let update = TraceId::of_update(
            "site",
            &RolloutId::new("pump-1.1").unwrap(),
            &DeviceId::new("pump-1").unwrap(),
        );
        let admit = SpanId::of(message(9), &Step::Admit { gateway: &gateway });
        let told = [message(9).to_string(), update.to_string(), admit.to_string()];
        assert_eq!(
            told,
            [
                "9fb076289430017fe10aa920e9e488b6",
                "59c1b8f3a8cdd0bf02972e9cd9004eeb",
                "a37cda8e615da4c8"
            ]
        );
    }

    #[test]
    fn another_message_key_or_device_is_another_trace() {
        let id = |text| DeviceId::new(text).unwrap();
        let rollout = |text| RolloutId::new(text).unwrap();
        let update = |site, r, d| TraceId::of_update(site, &rollout(r), &id(d));
        let of = |key, epoch, sequence| {
            TraceId::of_message(&KeyId([key; 32]), Counter { epoch, sequence })
        };
        let ids = [
            of(1, 1, 1),
            of(2, 1, 1),
            of(1, 2, 1),
            of(1, 1, 2),
            update("s", "r", "d"),
            update("t", "r", "d"),
            update("s", "rd", "d"),
            update("s", "r", "dd"),
            update("sr", "d", "d"),
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn the_share_that_is_sampled_is_the_one_that_was_asked_for() {
        for (ratio, within) in
            [(0.0, 0..=0), (0.01, 50..=150), (0.5, 4800..=5200), (1.0, 10_000..=10_000)]
        {
            let threshold = Threshold::of(ratio);
            let sampled = (0..10_000).filter(|n| threshold.samples(message(*n))).count();
            assert!(within.contains(&sampled), "{ratio}: {sampled}");
        }
    }

    /// Two stations that were given different shares agree on what the lesser one has.
    #[test]
    fn a_lesser_share_is_part_of_a_greater_one() {
        let (lesser, greater) = (Threshold::of(0.1), Threshold::of(0.3));
        for n in 0..10_000 {
            assert!(!lesser.samples(message(n)) || greater.samples(message(n)), "{n}");
        }
    }

    #[test]
    fn the_threshold_is_told_as_collectors_read_it() {
        let told = |ratio| Threshold::of(ratio).trace_state();
        assert_eq!([told(1.0), told(0.5), told(0.25)], ["ot=th:0", "ot=th:8", "ot=th:c"]);
        assert_eq!(Threshold::ALL, Threshold::of(1.0));
    }
}
