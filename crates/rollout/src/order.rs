//! The order in which a rollout reaches devices, and where a wave ends in it.
//!
//! ```text
//! position = first 16 bytes, big endian, of SHA-256("plimsoll-rollout-order 1\n" rollout "\n" device)
//! ```
//!
//! The order is another one in each rollout, so no device is the canary for ever. A wave is an exact count in this order and
//! not a share of the hash's range: of 30 devices a share of 10 % by range is nobody at all in 4 % of all rollouts.

use model::{DeviceId, RolloutId};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;

/// A share of a cohort, in millionths: more than none, at most all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Share(u32);

impl Share {
    pub const ALL: Self = Self(1_000_000);

    pub fn per_million(parts: u32) -> Option<Self> {
        (1..=1_000_000).contains(&parts).then_some(Self(parts))
    }

    pub fn percent(percent: u32) -> Option<Self> {
        Self::per_million(percent.checked_mul(10_000)?)
    }

    /// Rounded up: a share of somebody is somebody.
    pub fn of(self, size: u64) -> u64 {
        let exact = (u128::from(size) * u128::from(self.0)).div_ceil(1_000_000);
        u64::try_from(exact).expect("a share is at most the whole")
    }
}

impl From<Share> for u32 {
    fn from(share: Share) -> Self {
        share.0
    }
}

impl TryFrom<u32> for Share {
    type Error = String;

    fn try_from(parts: u32) -> Result<Self, String> {
        Self::per_million(parts)
            .ok_or_else(|| format!("expected a share of 1 to 1000000 millionths, found {parts}"))
    }
}

/// Where a device stands in a rollout's order. Two devices at one position are not to be expected within 2^60 devices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u128);

impl Position {
    /// Nobody is behind it.
    pub const LAST: Self = Self(u128::MAX);

    pub fn of(rollout: &RolloutId, device: &DeviceId) -> Self {
        let hash = Sha256::new()
            .chain_update(b"plimsoll-rollout-order 1\n")
            .chain_update(rollout.as_str())
            .chain_update(b"\n")
            .chain_update(device.as_str())
            .finalize();
        let head: [u8; 16] = hash[..16].try_into().expect("a SHA-256 has 32 bytes");
        Self(u128::from_be_bytes(head))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || D::Error::custom(format!("expected 32 hex digits, found {text:?}"));
        let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = if plain { u128::from_str_radix(&text, 16).ok() } else { None };
        number.map(Self).ok_or_else(wrong)
    }
}

/// A wave that was opened: how many devices it has, with those of the waves before, and the position of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    pub members: u64,
    pub last: Position,
}

/// Opens a wave: one pass over the positions of the cohort. They are the caller's for as long as this takes, 16 bytes a
/// device, and nothing of them is kept but the last one's.
///
/// The cohort is whoever belongs to it now, and whoever has a permit and has left: he stays in the count.
pub fn open(mut cohort: Vec<Position>, count: u64) -> Option<Opened> {
    let members = count.min(cohort.len() as u64);
    let (_, last, _) = cohort.select_nth_unstable(usize::try_from(members).ok()?.checked_sub(1)?);
    Some(Opened { members, last: *last })
}

/// How many devices a wave has, with those of the waves before.
pub(crate) fn count(share: Share, count_max: Option<u64>, cohort: u64) -> u64 {
    share.of(cohort).min(count_max.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cohort(rollout: &str, size: u64) -> Vec<Position> {
        let rollout = RolloutId::new(rollout).unwrap();
        let device = |n: u64| DeviceId::new(format!("dev-{n}")).unwrap();
        (0..size).map(|n| Position::of(&rollout, &device(n))).collect()
    }

    fn reached(cohort: &[Position], wave: Opened) -> Vec<usize> {
        (0..cohort.len()).filter(|i| cohort[*i] <= wave.last).collect()
    }

    #[test]
    fn ten_percent_of_thirty_devices_are_three_whatever_the_rollout_is_called() {
        let share = Share::percent(10).unwrap();
        let mut canaries = std::collections::BTreeSet::new();
        for n in 0..1000 {
            let cohort = cohort(&format!("r-{n}"), 30);
            let wave = open(cohort.clone(), count(share, None, 30)).unwrap();
            assert_eq!(wave.members, 3);
            let reached = reached(&cohort, wave);
            assert_eq!(reached.len(), 3, "rollout {n}");
            canaries.extend(reached);
        }
        assert_eq!(canaries.len(), 30, "each device is a canary now and then");
    }

    #[test]
    fn a_position_is_for_ever() {
        let (rollout, device) = (RolloutId::new("r-1").unwrap(), DeviceId::new("pump-1").unwrap());
        let position = Position::of(&rollout, &device).to_string();
        assert_eq!(position, GOLDEN_POSITION);
        let json = format!("\"{position}\"");
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap().to_string(), position);
        for bad in ["\"0\"", "\"+0000000000000000000000000000000\"", "0", "\"\""] {
            assert!(serde_json::from_str::<Position>(bad).is_err(), "{bad}");
        }
    }

    /// By `printf 'plimsoll-rollout-order 1\nr-1\npump-1' | sha256sum`.
    const GOLDEN_POSITION: &str = "ed7741c180c7593f622ed9590365557e";

    proptest! {
        #[test]
        fn a_wave_has_exactly_its_count_and_holds_those_before_it(
            size in 1u64..400, parts in 1u32..=1_000_000, more in 0u32..=1_000_000, max in 1u64..500
        ) {
            let cohort = cohort("r", size);
            let (first, second) = (parts, parts.saturating_add(more).min(1_000_000));
            let count = |parts| count(Share::per_million(parts).unwrap(), Some(max), size);
            let exact = |parts: u32| {
                // Rounded up by hand, and never above the most.
                let whole = u64::from(parts) * size;
                (whole / 1_000_000 + u64::from(whole % 1_000_000 > 0)).min(max)
            };
            prop_assert_eq!(count(first), exact(first));
            let (a, b) = (open(cohort.clone(), count(first)), open(cohort.clone(), count(second)));
            let (a, b) = (a.unwrap(), b.unwrap());
            let (in_a, in_b) = (reached(&cohort, a), reached(&cohort, b));
            prop_assert_eq!(in_a.len() as u64, exact(first));
            prop_assert_eq!(in_b.len() as u64, exact(second));
            prop_assert!(in_a.iter().all(|device| in_b.contains(device)));
        }
    }

    #[test]
    fn a_wave_larger_than_its_cohort_is_the_cohort_and_one_of_nobody_is_none() {
        let cohort = cohort("r", 4);
        let wave = open(cohort.clone(), 9).unwrap();
        assert_eq!((wave.members, reached(&cohort, wave).len()), (4, 4));
        assert_eq!(open(Vec::new(), 9), None);
        assert_eq!(open(cohort, 0), None);
    }
}
