//! Runs a source on a thread of its own and hands its readings to the device. It ends when nobody takes them any more.

use crate::clock::Clock;
use crate::pack::Sample;
use crate::position::Position;
use crate::sources::host::Host;
use crate::sources::replay::{Bad, Play, Recording, ReplayError, Row};
use model::Reading;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// The bad rows that are told one by one; after them, each power of two.
const BAD_TOLD: u64 = 20;

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
        let mut host = Host::new(Path::new("/proc"), Path::new("/sys"));
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
        let mut bad = 0;
        let mut starts_again = false;
        loop {
            let mut rows = recording.rows(from)?;
            while let Some(row) = rows.next_row()? {
                tell(&row.bad, row.line, &mut bad);
                if self.row(recording, &mut play, &row, std::mem::take(&mut starts_again)).is_err()
                {
                    return Ok(());
                }
            }
            if !looped {
                tracing::info!(bad_rows = bad, "the recording has been played to its end");
                return Ok(());
            }
            from = recording.again(rows.position().lap.wrapping_add(1));
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

fn tell(bad: &[Bad], line: u64, count: &mut u64) {
    for what in bad {
        *count += 1;
        if *count <= BAD_TOLD || count.is_power_of_two() {
            tracing::warn!(line, count, error = %what, "left out of the replay");
        }
    }
}
