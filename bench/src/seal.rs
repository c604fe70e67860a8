//! Messages sealed beforehand, so that a load generator need not know how.

use anyhow::{Context, Result, ensure};
use disk::RealDisk;
use model::envelope::{Counter, Header, Kind};
use model::{Reading, SeriesName, Timestamp, Unit, Value, senml};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use trust::cose::{self, Signer};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The directory of an enrolled device; its agent must not run.
    #[arg(long)]
    pub device: PathBuf,
    /// How many messages.
    #[arg(long, default_value_t = 1)]
    pub messages: usize,
    /// How many readings in each, 1 to 256.
    #[arg(long, default_value_t = 16)]
    pub readings: usize,
    /// The epoch of their counters: higher than any that the device has used.
    #[arg(long, default_value_t = 1_000_000)]
    pub epoch: u32,
    /// A recording whose numbers are sealed.
    #[arg(long, default_value = "recordings/host.csv")]
    pub recording: PathBuf,
    /// Where the messages go: each its length as u32 little endian, then its bytes.
    #[arg(long)]
    pub out: PathBuf,
    /// One message alone, without its length: for `mosquitto_pub -f`.
    #[arg(long)]
    pub bare: bool,
}

pub fn run(options: &Options) -> Result<()> {
    ensure!(!options.bare || options.messages == 1, "--bare is for one message");
    let key = keys::identity::current_seal_key(&RealDisk, &options.device)?;
    let mut numbers = Numbers::of(&options.recording)?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(&options.out)?);
    let now_us = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    for sequence in 0..options.messages as u64 {
        let at = |i: usize| Timestamp(now_us + (sequence as i64) * 1000 + i as i64);
        let readings: Vec<Reading> = (0..options.readings).map(|i| numbers.reading(at(i))).collect();
        let header = Header {
            algorithm: key.public().algorithm(),
            kind: Kind::Readings,
            key: key.public().id(),
            counter: Counter { epoch: options.epoch, sequence },
            uptime_ms: sequence,
            wall: None,
            heard: None,
            prior: None,
        };
        let message = cose::seal(&header, &senml::encode(&readings), &key)?;
        if !options.bare {
            out.write_all(&u32::try_from(message.len())?.to_le_bytes())?;
        }
        out.write_all(&message)?;
    }
    Ok(out.flush()?)
}

/// The numbers of a recording, column by column within each row, again and again.
struct Numbers {
    series: Vec<SeriesName>,
    cells: Vec<Vec<f64>>,
    at: usize,
}

impl Numbers {
    fn of(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("no recording {}", path.display()))?;
        let mut lines = text.lines();
        let header = lines.next().context("an empty recording")?;
        let series: Vec<SeriesName> =
            header.split(',').skip(1).map(SeriesName::new).collect::<Result<_, _>>()?;
        let cells: Vec<Vec<f64>> =
            lines.map(|line| line.split(',').skip(1).map(|cell| cell.parse().unwrap_or(0.0)).collect()).collect();
        ensure!(!series.is_empty() && !cells.is_empty(), "a recording without numbers");
        Ok(Self { series, cells, at: 0 })
    }

    fn reading(&mut self, time: Timestamp) -> Reading {
        let (row, column) = (self.at / self.series.len(), self.at % self.series.len());
        self.at += 1;
        let value = self.cells[row % self.cells.len()].get(column).copied().unwrap_or_default();
        Reading { time, series: self.series[column].clone(), value: Value::Float(value), unit: Unit::new("1").ok() }
    }
}
