//! When a row is due, and what time it is labelled with. Pure.

use crate::clock::{CEILING, Stamp};
use model::Timestamp;

/// As of when a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// Its times stay; it goes as fast as the backlog drains.
    Recorded,
    /// The row at which it begins or goes on is now; the others follow at the recorded distances.
    Now,
}

/// The clock of a replay.
#[derive(Clone, Debug)]
pub struct Play {
    as_of: AsOf,
    speed: f64,
    anchor: Option<Anchor>,
    last: Option<Due>,
    /// Between the last two rows, as replayed: what stands between two laps.
    step_us: i64,
}

/// One instant in the three times that there are.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    recorded: Timestamp,
    uptime_us: i64,
    wall: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When to seal the row. In the past: at once.
    pub uptime_us: i64,
    pub label: Timestamp,
}

impl Play {
    /// `speed` is how many recorded seconds go by in one.
    pub fn new(as_of: AsOf, speed: f64) -> Self {
        assert!(speed.is_finite() && speed > 0.0, "the command line refuses other speeds");
        Self { as_of, speed, anchor: None, last: None, step_us: 0 }
    }

    /// When the row with this recorded time is due.
    pub fn due(&mut self, recorded: Timestamp, now: &Stamp) -> Due {
        let now_us = i64::try_from(now.uptime_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        if self.as_of == AsOf::Recorded {
            return Due { uptime_us: now_us, label: recorded };
        }
        let here = Anchor { recorded, uptime_us: now_us, wall: now.wall };
        let anchor = *self.anchor.get_or_insert(here);
        let recorded_us = recorded.as_us().saturating_sub(anchor.recorded.as_us());
        let after_us = (recorded_us as f64 / self.speed) as i64;
        let label = anchor.wall.as_us().saturating_add(after_us);
        let due = Due {
            uptime_us: anchor.uptime_us.saturating_add(after_us),
            label: Timestamp(label.min(CEILING.as_us())),
        };
        if let Some(last) = self.last {
            self.step_us = due.uptime_us.saturating_sub(last.uptime_us).max(0);
        }
        self.last = Some(due);
        due
    }

    /// The recording starts again, with this row, one step after its last one.
    pub fn again(&mut self, recorded: Timestamp) {
        self.anchor = self.last.map(|last| Anchor {
            recorded,
            uptime_us: last.uptime_us.saturating_add(self.step_us),
            wall: Timestamp(last.label.as_us().saturating_add(self.step_us)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FLOOR;

    const S: i64 = 1_000_000;

    fn at(uptime_s: i64) -> Stamp {
        Stamp::new(uptime_s as u64 * 1000, Timestamp(FLOOR.as_us() + uptime_s * S), 0)
    }

    fn recorded(s: i64) -> Timestamp {
        Timestamp((400_000_000 + s) * S)
    }

    fn due(uptime_us: i64, since_floor_us: i64) -> Due {
        Due { uptime_us, label: Timestamp(FLOOR.as_us() + since_floor_us) }
    }

    #[test]
    fn as_recorded_keeps_the_times_and_waits_for_nothing() {
        let mut play = Play::new(AsOf::Recorded, 1.0);
        for s in [0, 300, 100] {
            let expected = Due { uptime_us: 7 * S, label: recorded(s) };
            assert_eq!(play.due(recorded(s), &at(7)), expected);
        }
    }

    #[test]
    fn as_of_now_begins_now_and_keeps_the_distances() {
        let mut play = Play::new(AsOf::Now, 1.0);
        assert_eq!(play.due(recorded(0), &at(50)), due(50 * S, 50 * S));
        assert_eq!(play.due(recorded(300), &at(50)), due(350 * S, 350 * S));
        // Late by a minute: the label stays where the recording has it.
        assert_eq!(play.due(recorded(600), &at(710)), due(650 * S, 650 * S));
    }

    #[test]
    fn speed_shortens_distances_and_labels_alike() {
        let mut play = Play::new(AsOf::Now, 300.0);
        play.due(recorded(0), &at(0));
        assert_eq!(play.due(recorded(300), &at(0)), due(S, S));
        assert_eq!(play.due(recorded(450), &at(1)), due(S * 3 / 2, S * 3 / 2));
    }

    #[test]
    fn a_lap_follows_the_one_before_by_one_step() {
        let mut play = Play::new(AsOf::Now, 1.0);
        play.due(recorded(0), &at(0));
        play.due(recorded(10), &at(0));
        play.again(recorded(0));
        assert_eq!(play.due(recorded(0), &at(10)), due(20 * S, 20 * S));
        assert_eq!(play.due(recorded(10), &at(20)), due(30 * S, 30 * S));
    }

    #[test]
    fn no_recording_makes_a_time_that_cannot_be_sent() {
        let mut play = Play::new(AsOf::Now, 1e-12);
        play.due(recorded(0), &at(0));
        assert_eq!(play.due(recorded(1_000_000), &at(0)).label, CEILING);
    }
}
