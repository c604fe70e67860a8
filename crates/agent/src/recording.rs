//! `plimsoll-agent record`: this host's metrics as a CSV that `--replay` reads.
//!
//! ```text
//! time,<series> [<unit>],...
//! 2026-11-21T12:34:56.789Z,<value>,...
//! ```
//!
//! The series of the second sample are the columns: the first has no rates yet. A series that is missing later leaves
//! its cell empty; one that appears later is left out, and counted. Each row is written when it is taken, so that what was
//! recorded until an interruption is there.

use crate::clock::Clock;
use crate::sources::host::{Host, columns};
use disk::Disk;
use model::{Reading, SeriesName, Timestamp, Value};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, thiserror::Error)]
#[error("cannot write the recording `{path}`")]
pub struct RecordingError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// What was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub rows: u64,
    pub series: usize,
    /// Readings of series that appeared after the columns were fixed.
    pub left_out: u64,
}

/// Records so many rows of this host; `wait` waits for the time of the next one. The file must not be there yet.
pub fn record(
    disk: &dyn Disk,
    out: &Path,
    rows: u64,
    clock: &dyn Clock,
    mut wait: impl FnMut(),
) -> Result<Recorded, RecordingError> {
    let failed = |source| RecordingError { path: out.to_owned(), source };
    let mut file = disk.create(out).map_err(failed)?;
    let mut host = Host::default();
    host.sample(&clock.now());
    let mut table: Option<Table> = None;
    let mut recorded = Recorded { rows: 0, series: 0, left_out: 0 };
    while recorded.rows < rows {
        wait();
        let readings = host.sample(&clock.now());
        if table.is_none() {
            let made = Table::of(&readings);
            recorded.series = made.columns.len();
            file.append(made.header().as_bytes()).map_err(failed)?;
            table = Some(made);
        }
        let (row, left_out) = table.as_ref().expect("it was made above").row(&readings);
        file.append(row.as_bytes()).map_err(failed)?;
        recorded.left_out += left_out;
        recorded.rows += 1;
    }
    file.sync().map_err(failed)?;
    Ok(recorded)
}

/// Waits on a beat of its own, so that rows do not drift by the time that sampling takes.
pub fn every(interval: Duration) -> impl FnMut() {
    let mut due = Instant::now();
    move || {
        due += interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

struct Table {
    columns: Vec<(SeriesName, String)>,
    places: BTreeMap<SeriesName, usize>,
}

impl Table {
    fn of(readings: &[Reading]) -> Self {
        let columns = columns(readings);
        let places =
            columns.iter().enumerate().map(|(i, (series, _))| (series.clone(), i)).collect();
        Self { columns, places }
    }

    fn header(&self) -> String {
        let mut line = "time".to_owned();
        for (series, unit) in &self.columns {
            line.push_str(&format!(",{series} [{unit}]"));
        }
        line.push('\n');
        line
    }

    /// A line, and how many readings have no column.
    fn row(&self, readings: &[Reading]) -> (String, u64) {
        let mut cells = vec![String::new(); self.columns.len()];
        let mut left_out = 0;
        for reading in readings {
            match self.places.get(&reading.series) {
                Some(place) => cells[*place] = cell(&reading.value),
                None => left_out += 1,
            }
        }
        let time = readings.first().map_or(String::new(), |reading| rfc_3339(reading.time));
        (format!("{time},{}\n", cells.join(",")), left_out)
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Float(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        // The host has no texts; one would have to be quoted.
        Value::Text(_) => String::new(),
    }
}

fn rfc_3339(time: Timestamp) -> String {
    let ms = time.as_us().div_euclid(1000);
    let time = jiff::Timestamp::from_millisecond(ms).expect("labels lie before the year 10000");
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{FLOOR, Stamp, SystemClock};
    use crate::sources::replay::Recording;
    use disk::RealDisk;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug, Default)]
    struct Ticking(AtomicU64);

    impl Clock for Ticking {
        fn now(&self) -> Stamp {
            let uptime_ms = self.0.fetch_add(1_000, Ordering::Relaxed);
            Stamp::new(uptime_ms, Timestamp(FLOOR.as_us() + uptime_ms as i64 * 1000), 0)
        }
    }

    #[test]
    fn what_is_recorded_can_be_replayed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.csv");
        let recorded = record(&RealDisk, &path, 3, &Ticking::default(), || {}).unwrap();
        assert_eq!(recorded.rows, 3);
        let recording = Recording::open(&path).unwrap();
        assert_eq!(recording.columns().len() + recording.left_out().len(), recorded.series);
        let memory = recording.columns().iter().find(|c| c.series.as_str() == "mem/total").unwrap();
        assert_eq!(memory.unit.as_ref().unwrap().as_str(), "B");
        let mut rows = recording.rows(recording.start(None)).unwrap();
        let mut times = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            assert_eq!(row.bad, []);
            times.push(row.time.unwrap().as_us() - FLOOR.as_us());
        }
        assert_eq!(times, [1_000_000, 2_000_000, 3_000_000]);
    }

    #[test]
    fn a_recording_is_never_written_over_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.csv");
        std::fs::write(&path, "mine").unwrap();
        let error = record(&RealDisk, &path, 1, &SystemClock, || {}).unwrap_err();
        assert!(error.to_string().starts_with("cannot write the recording"));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn a_series_that_comes_or_goes_leaves_the_columns_as_they_are() {
        let reading = |name: &str, v| Reading {
            time: FLOOR,
            series: SeriesName::new(name).unwrap(),
            value: Value::Int(v),
            unit: model::Unit::new("B").ok(),
        };
        let table = Table::of(&[reading("a", 1), reading("b", 2)]);
        assert_eq!(table.header(), "time,a [B],b [B]\n");
        let (row, left_out) = table.row(&[reading("b", 3), reading("c", 4)]);
        assert_eq!((row.as_str(), left_out), ("2026-11-01T00:00:00.000Z,,3\n", 1));
    }
}
