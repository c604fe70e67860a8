//! Messages sealed beforehand, so that a load generator need not know how.

use anyhow::{Context, Result, ensure};
use disk::RealDisk;
use model::envelope::{Counter, Header, Kind};
use model::{Reading, SeriesName, Timestamp, Unit, Value, senml};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use trust::cose::{self, SecretKey, Signer};

/// One message with one reading, as somebody who is not our agent may seal it.
#[derive(Clone, Debug, clap::Args)]
pub struct One {
    /// The sealing key: PKCS#8 in PEM.
    #[arg(long)]
    key: PathBuf,
    #[arg(long)]
    epoch: u32,
    #[arg(long)]
    sequence: u64,
    #[arg(long)]
    series: String,
    #[arg(long)]
    value: f64,
    /// Where the message goes, and nothing but it.
    #[arg(long)]
    out: PathBuf,
}

pub fn one(options: &One) -> Result<()> {
    let key = keys::file::load(&RealDisk, &options.key)?;
    let counter = Counter { epoch: options.epoch, sequence: options.sequence };
    let series = SeriesName::new(options.series.as_str())?;
    let reading = Reading { time: now()?, series, value: Value::Float(options.value), unit: None };
    std::fs::write(&options.out, seal(&key, counter, &[reading])?)?;
    Ok(())
}

/// Many messages of one device, sealed beforehand.
#[derive(Clone, Debug)]
pub struct Many<'a> {
    /// The directory of an enrolled device; its agent must not run.
    pub device: &'a Path,
    pub messages: usize,
    /// How many readings in each, 1 to 256.
    pub readings: usize,
    /// The epoch of their counters: higher than any that the device has used.
    pub epoch: u32,
    /// A recording whose numbers are sealed.
    pub recording: &'a Path,
    /// Where the messages go: each its length as u32 little endian, then its bytes.
    pub out: &'a Path,
}

pub fn many(wanted: &Many<'_>) -> Result<()> {
    let key = current_key(wanted.device)?;
    let mut numbers = Numbers::of(wanted.recording)?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(wanted.out)?);
    let start = now()?.as_us();
    for sequence in 0..wanted.messages as u64 {
        let at = |i: usize| Timestamp(start + (sequence as i64) * 1000 + i as i64);
        let readings: Vec<Reading> = (0..wanted.readings).map(|i| numbers.reading(at(i))).collect();
        let message = seal(&key, Counter { epoch: wanted.epoch, sequence }, &readings)?;
        out.write_all(&u32::try_from(message.len())?.to_le_bytes())?;
        out.write_all(&message)?;
    }
    Ok(out.flush()?)
}

/// The sealing key that `seal.current` names.
fn current_key(device: &Path) -> Result<SecretKey> {
    let pointer = std::fs::read_to_string(device.join("seal.current"))?;
    let id = pointer.lines().find_map(|line| line.strip_prefix("current "));
    let id = id.with_context(|| format!("{} has no current sealing key", device.display()))?;
    Ok(keys::file::load(&RealDisk, &device.join(format!("seal-{id}.key")))?)
}

fn seal(key: &SecretKey, counter: Counter, readings: &[Reading]) -> Result<Vec<u8>> {
    let header = Header {
        algorithm: key.public().algorithm(),
        kind: Kind::Readings,
        key: key.public().id(),
        counter,
        uptime_ms: counter.sequence,
        wall: None,
        heard: None,
        prior: None,
    };
    Ok(cose::seal(&header, &senml::encode(readings), key)?)
}

fn now() -> Result<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Timestamp(i64::try_from(since.as_micros())?))
}

/// The numbers of a recording, column by column within each row, again and again.
struct Numbers {
    series: Vec<SeriesName>,
    cells: Vec<Vec<f64>>,
    at: usize,
}

impl Numbers {
    fn of(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("no recording {}", path.display()))?;
        let mut lines = text.lines();
        let header = lines.next().context("an empty recording")?;
        // A column's name is `series [unit]`.
        let names = header.split(',').skip(1);
        let series: Vec<SeriesName> = names
            .map(|name| SeriesName::new(name.split_once(" [").map_or(name, |(series, _)| series)))
            .collect::<Result<_, _>>()?;
        let cells: Vec<Vec<f64>> = lines
            .map(|line| line.split(',').skip(1).map(|cell| cell.parse().unwrap_or(0.0)).collect())
            .collect();
        ensure!(!series.is_empty() && !cells.is_empty(), "a recording without numbers");
        Ok(Self { series, cells, at: 0 })
    }

    fn reading(&mut self, time: Timestamp) -> Reading {
        let (row, column) = (self.at / self.series.len(), self.at % self.series.len());
        self.at += 1;
        let value = self.cells[row % self.cells.len()].get(column).copied().unwrap_or_default();
        Reading {
            time,
            series: self.series[column].clone(),
            value: Value::Float(value),
            unit: Unit::new("1").ok(),
        }
    }
}
