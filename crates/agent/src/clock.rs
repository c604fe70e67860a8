//! The device's two clocks: uptime, which only goes forward, and the wall clock, which is a label.
//!
//! Nothing is decided by the wall clock. It may stand at 1970 after a flat battery, or jump when a time server is
//! heard; readings are labelled all the same and none is held back or lost. A label below [`FLOOR`] cannot be right,
//! since this program did not exist then, and one below 2^28 s (1978) would mean "relative to now" in SenML (RFC 8428
//! §4.5.3): both are replaced by the floor plus the uptime, which keeps the order of a boot, and are marked with an
//! uncertainty of `u32::MAX`: the device does not know.

use model::Timestamp;
use std::fmt::Debug;

/// 2026-11-01T00:00:00Z, raised with each release. A wall clock below it is wrong.
pub const FLOOR: Timestamp = Timestamp(1_793_491_200_000_000);

/// 9999-12-31T23:59:59Z: the last second that RFC 3339 can write.
pub const CEILING: Timestamp = Timestamp(253_402_300_799_000_000);

/// RFC 8428 §4.5.3: a time below 2^28 seconds is relative to "now", which no durable record can mean.
pub const ABSOLUTE_FROM: Timestamp = Timestamp((1 << 28) * 1_000_000);

/// An uncertainty of which nothing is known.
pub const UNKNOWN: u32 = u32::MAX;

/// What the device's clocks said at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since boot, time asleep included.
    pub uptime_ms: u64,
    /// The wall clock's label, fit to be sent.
    pub wall: Timestamp,
    pub uncertainty_ms: u32,
}

impl Stamp {
    /// Labels an instant from what the two clocks said, however wrong the wall clock is.
    pub fn new(uptime_ms: u64, wall: Timestamp, uncertainty_ms: u32) -> Self {
        if (FLOOR..=CEILING).contains(&wall) {
            return Self { uptime_ms, wall, uncertainty_ms };
        }
        let since_floor_us = i64::try_from(uptime_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        let wall = Timestamp(FLOOR.as_us().saturating_add(since_floor_us).min(CEILING.as_us()));
        Self { uptime_ms, wall, uncertainty_ms: UNKNOWN }
    }
}

/// Where the time comes from. The core takes a [`Stamp`] with every call; only drivers hold one of these.
pub trait Clock: Debug + Send + Sync {
    fn now(&self) -> Stamp;
}

/// The operating system's clocks.
///
/// Linux tells how far off it holds its clock to be through `adjtimex` alone, for which there is no safe binding in
/// our dependencies: until there is one, the uncertainty is [`UNKNOWN`], which narrows nothing that is true.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let real = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let uptime_ms = boot.tv_sec as u64 * 1000 + boot.tv_nsec as u64 / 1_000_000;
        let wall_us = real.tv_sec.saturating_mul(1_000_000).saturating_add(real.tv_nsec / 1000);
        Stamp::new(uptime_ms, Timestamp(wall_us), UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_at_1970_labels_from_the_floor_and_says_that_it_does_not_know() {
        let stamp = Stamp::new(5_000, Timestamp(5_000_000), 10);
        assert_eq!(stamp.wall, Timestamp(FLOOR.as_us() + 5_000_000));
        assert_eq!(stamp.uncertainty_ms, UNKNOWN);
        assert!(stamp.wall > ABSOLUTE_FROM);
    }

    #[test]
    fn labels_of_a_boot_keep_their_order_while_the_clock_is_wrong() {
        let early = Stamp::new(1_000, Timestamp(-7), 0);
        let late = Stamp::new(2_000, Timestamp(i64::MAX), 0);
        assert!(early.wall < late.wall);
        assert_eq!(Stamp::new(u64::MAX, Timestamp(0), 0).wall, CEILING);
    }

    #[test]
    fn a_clock_that_may_be_right_is_left_alone() {
        let now = Timestamp(FLOOR.as_us() + 1);
        assert_eq!(Stamp::new(9, now, 250), Stamp { uptime_ms: 9, wall: now, uncertainty_ms: 250 });
    }

    #[test]
    fn the_floor_is_not_in_the_future() {
        assert_ne!(SystemClock.now().wall, CEILING);
        let real = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        assert!(
            real.tv_sec * 1_000_000 > FLOOR.as_us(),
            "this machine's clock is wrong, or the floor is"
        );
    }
}
