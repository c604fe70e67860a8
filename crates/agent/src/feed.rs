//! Runs a source on a thread of its own and hands its readings to the device. It ends when nobody takes them any more.

use crate::clock::Clock;
use crate::pack::Sample;
use crate::position::Position;
use crate::sources::host::Host;
use crate::sources::replay::{BadRows, Play, Recording, ReplayError, Row};
use model::Reading;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// What a feed needs besides its source.
pub struct Feed<'a> {
    pub clock: &'a dyn Clock,
    pub samples: Sender<Sample>,
    /// Its other end is dropped when the feed is to end.
    pub stop: Receiver<()>,
}

/// Nobody takes samples any more: the feed ends.
struct Stopped;

impl Feed<'_> {
    /// Samples this host at every interval.
    pub fn host(&self, interval: Duration) {
        let mut host = Host::default();
        let step = interval.as_millis() as u64;
        let mut due = self.clock.now().uptime_ms;
        loop {
            for reading in host.sample(&self.clock.now()) {
                if self.send(reading, None).is_err() {
                    return;
                }
            }
            let now = self.clock.now().uptime_ms;
            // After a pause of the machine the missed samples are not made up for.
            due = (due + step).max(now);
            if self.wait(due - now).is_err() {
                return;
            }
        }
    }

    /// Plays a recording from where it is to go on; again and again if it is looped.
    pub fn replay(
        &self,
        recording: &Recording,
        mut play: Play,
        durable: Option<Position>,
        looped: bool,
    ) -> Result<(), ReplayError> {
        let mut from = recording.start(durable);
        let mut bad = BadRows::default();
        let mut starts_again = false;
        loop {
            let (mut rows, top) = (recording.rows(from)?, recording.again(from.lap));
            let mut played = 0u64;
            while let Some(row) = rows.next_row()? {
                tell(&row, &mut bad);
                if row.time.is_none() || row.cells.is_empty() {
                    continue;
                }
                if self.row(recording, &mut play, &row, std::mem::take(&mut starts_again)).is_err()
                {
                    return Ok(());
                }
                played += 1;
            }
            // A lap that goes on at the end has no rows; one from the top without any would go round for ever.
            let lap = from.lap.checked_add(1).filter(|_| looped && (played > 0 || from != top));
            let Some(lap) = lap else {
                tracing::info!(bad_rows = bad.0, "the recording has been played to its end");
                return Ok(());
            };
            from = recording.again(lap);
            starts_again = true;
        }
    }

    fn row(
        &self,
        recording: &Recording,
        play: &mut Play,
        row: &Row,
        again: bool,
    ) -> Result<(), Stopped> {
        let Some(time) = row.time else { return Ok(()) };
        if again {
            play.again(time);
        }
        let now = self.clock.now();
        let due = play.due(time, &now);
        let wait_us =
            due.uptime_us.saturating_sub(i64::try_from(now.uptime_ms * 1000).unwrap_or(i64::MAX));
        self.wait(u64::try_from(wait_us / 1000).unwrap_or(0))?;
        for (i, cell) in row.cells.iter().enumerate() {
            let column = &recording.columns()[cell.column as usize];
            let reading = Reading {
                time: due.label,
                series: column.series.clone(),
                value: cell.value.clone(),
                unit: column.unit.clone(),
            };
            self.send(reading, Some(row.after(i)))?;
        }
        Ok(())
    }

    fn send(&self, reading: Reading, next: Option<Position>) -> Result<(), Stopped> {
        self.samples.blocking_send(Sample { reading, next }).map_err(|_| Stopped)
    }

    fn wait(&self, ms: u64) -> Result<(), Stopped> {
        match self.stop.recv_timeout(Duration::from_millis(ms)) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }
}

fn tell(row: &Row, bad: &mut BadRows) {
    let Some(why) = row.bad.first() else { return };
    if bad.count() {
        tracing::warn!(line = row.line, bad_rows = bad.0, %why, "left out of the replay");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{FLOOR, Stamp};
    use crate::sources::replay::AsOf;
    use model::{Timestamp, Value};
    use std::path::PathBuf;
    use std::sync::mpsc::sync_channel;
    use tokio::sync::mpsc;

    /// A clock that stands still: everything as of now is due at once or never.
    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Stamp {
            Stamp::new(1_000, FLOOR, 0)
        }
    }

    fn recording(rows: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.csv");
        let mut text = "time,a,b\n".to_owned();
        (0..rows)
            .for_each(|row| text.push_str(&format!("{},{row},{row}.5\n", 1_704_164_645 + row)));
        std::fs::write(&file, text).unwrap();
        (dir, file)
    }

    /// What a replay hands over until it ends, or until so many were taken.
    fn played(
        recording: &Recording,
        play: Play,
        durable: Option<Position>,
        looped: bool,
        most: usize,
    ) -> Vec<Sample> {
        let (samples, mut taken) = mpsc::channel(4);
        let (_keep, stop) = sync_channel(1);
        std::thread::scope(|scope| {
            let feed = Feed { clock: &Still, samples, stop };
            let thread = scope.spawn(move || feed.replay(recording, play, durable, looped));
            let mut out = Vec::new();
            while out.len() < most {
                let Some(sample) = taken.blocking_recv() else { break };
                out.push(sample);
            }
            drop(taken);
            thread.join().unwrap().unwrap();
            out
        })
    }

    #[test]
    fn a_recording_is_played_whole_and_goes_on_from_wherever_it_was_durable() {
        let (_dir, file) = recording(10);
        let recording = Recording::open(&file).unwrap();
        let play = || Play::new(AsOf::Recorded, 1.0);
        let whole = played(&recording, play(), None, false, usize::MAX);
        assert_eq!(whole.len(), 20);
        assert_eq!(whole[3].reading.value, Value::Float(1.5));
        assert_eq!(whole[3].reading.time, Timestamp(1_704_164_646_000_000));
        for durable in 0..20 {
            let rest = played(&recording, play(), whole[durable].next, false, usize::MAX);
            assert_eq!(rest, whole[durable + 1..], "from {durable}");
        }
    }

    #[test]
    fn a_loop_starts_again_one_lap_further_and_from_the_end_too() {
        let (_dir, file) = recording(2);
        let recording = Recording::open(&file).unwrap();
        let play = || Play::new(AsOf::Now, 1e9);
        let samples = played(&recording, play(), None, true, 10);
        let laps: Vec<u32> = samples.iter().map(|s| s.next.unwrap().lap).collect();
        assert_eq!(laps, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
        assert!(samples.is_sorted_by_key(|s| s.reading.time));
        let again = played(&recording, play(), samples[3].next, true, 2);
        assert_eq!(again[0].next.unwrap().lap, 1);
        assert_eq!(again[0].reading.value, Value::Int(0));
    }

    #[test]
    fn a_loop_over_nothing_ends() {
        let (_dir, file) = recording(1);
        let recording = Recording::open(&file).unwrap();
        // The one row goes bad behind our back.
        std::fs::write(&file, "time,a,b\n1704164645,x,y\n").unwrap();
        let samples = played(&recording, Play::new(AsOf::Now, 1e9), None, true, usize::MAX);
        assert_eq!(samples, []);
    }

    #[test]
    fn a_feed_that_waits_ends_when_it_is_told_to() {
        let (_dir, file) = recording(10);
        let recording = Recording::open(&file).unwrap();
        let (samples, mut taken) = mpsc::channel(64);
        let (keep, stop) = sync_channel(1);
        std::thread::scope(|scope| {
            let feed = Feed { clock: &Still, samples, stop };
            let play = Play::new(AsOf::Now, 1.0);
            let recording = &recording;
            let thread = scope.spawn(move || feed.replay(recording, play, None, false));
            // The first row is due, the second never is: the clock stands still.
            assert!(taken.blocking_recv().is_some());
            drop(keep);
            thread.join().unwrap().unwrap();
        });
    }

    #[test]
    fn this_host_is_sampled_until_nobody_listens() {
        let (samples, mut taken) = mpsc::channel(8);
        let (keep, stop) = sync_channel(1);
        let clock = crate::clock::SystemClock;
        std::thread::scope(|scope| {
            let feed = Feed { clock: &clock, samples, stop };
            let thread = scope.spawn(move || feed.host(Duration::from_millis(100)));
            assert_eq!(taken.blocking_recv().unwrap().next, None);
            drop((taken, keep));
            thread.join().unwrap();
        });
    }
}
