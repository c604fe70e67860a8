//! Durable records per second through one writer on a real directory.
//!
//! `log_bench [DIR] [--records N] [--bytes B] [--appenders 1,16,256]`: for each number of concurrent appenders, N records
//! of B bytes, each appender waiting for its record to be durable before it sends the next. Prints a line per number:
//! records/s, the latency of one append, records per sync and bytes on the disk per record. `make bench` reads it.

use bus::{Log, LogConfig, Offset, Writer};
use disk::{Disk, File, RealDisk};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CONFIG: LogConfig =
    LogConfig { segment_bytes: 64 << 20, bytes_max: 8 << 30, record_bytes_max: 1 << 20 };

/// More than the appenders: the queue is never the bound here.
const QUEUE_MAX: usize = 65_536;

fn main() {
    let Asked { dir, records, bytes, appenders } = match asked() {
        Ok(asked) => asked,
        Err(what) => {
            eprintln!("log_bench: {what}");
            std::process::exit(2);
        }
    };
    println!("appenders  records/s  p50 µs  p99 µs  records/sync  bytes/record");
    for appenders in appenders {
        let dir = dir.join(format!("log-bench-{}-{appenders}", std::process::id()));
        let figures = run(&dir, appenders, records, bytes);
        std::fs::remove_dir_all(&dir).expect("what was written can be removed");
        let Figures { per_second, p50, p99, per_sync, on_disk } = figures;
        println!(
            "{appenders:9}  {per_second:9.0}  {:6}  {:6}  {per_sync:12.1}  {on_disk:12.1}",
            p50.as_micros(),
            p99.as_micros()
        );
    }
}

struct Asked {
    dir: PathBuf,
    records: u64,
    bytes: usize,
    appenders: Vec<u64>,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        dir: std::env::temp_dir(),
        records: 20_000,
        bytes: 300,
        appenders: vec![1, 16, 256],
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("`{text}`: {e}"));
        match arg.as_str() {
            "--records" => asked.records = number(value()?)?,
            "--bytes" => asked.bytes = number(value()?)? as usize,
            "--appenders" => {
                asked.appenders = value()?
                    .split(',')
                    .map(|text| number(text.into()))
                    .collect::<Result<_, _>>()?;
            }
            dir if !dir.starts_with("--") => asked.dir = dir.into(),
            other => return Err(format!("unknown option `{other}`")),
        }
    }
    if asked.records == 0 || asked.appenders.contains(&0) {
        return Err("at least one record and one appender".into());
    }
    Ok(asked)
}

struct Figures {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    per_sync: f64,
    on_disk: f64,
}

fn run(dir: &Path, appenders: u64, records: u64, bytes: usize) -> Figures {
    let syncs = Arc::new(AtomicU64::new(0));
    let disk = Arc::new(Counted { syncs: syncs.clone() });
    let log = Log::open(disk, dir, CONFIG).expect("a new log opens");
    let (before, bytes_before) = (syncs.load(Ordering::Relaxed), log.bytes());
    let writer = Writer::start(log, "log-bench", QUEUE_MAX);
    let each = records.div_ceil(appenders);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().build().expect("a runtime can be started");
    let start = Instant::now();
    let mut latencies = runtime.block_on(async {
        let tasks: Vec<_> = (0..appenders)
            .map(|appender| tokio::spawn(append(writer.clone(), appender, each, bytes)))
            .collect();
        let mut latencies = Vec::with_capacity((each * appenders) as usize);
        for task in tasks {
            latencies.extend(task.await.expect("an appender does not panic"));
        }
        latencies
    });
    let elapsed = start.elapsed();
    let total = each * appenders;
    assert_eq!(writer.reader().end(), Offset(total));
    let syncs = syncs.load(Ordering::Relaxed) - before;
    runtime.block_on(writer.close());
    let log = Log::open(Arc::new(RealDisk), dir, CONFIG).expect("the log opens again");
    assert_eq!(log.end(), Offset(total), "every acknowledged record is there");
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Figures {
        per_second: total as f64 / elapsed.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        per_sync: total as f64 / syncs.max(1) as f64,
        on_disk: (log.bytes() - bytes_before) as f64 / total as f64,
    }
}

async fn append(writer: Writer, appender: u64, records: u64, bytes: usize) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(records as usize);
    for n in 0..records {
        let payload = vec![(appender + n) as u8; bytes];
        let start = Instant::now();
        writer.append(payload).await.expect("the log has room");
        latencies.push(start.elapsed());
    }
    latencies
}

/// The real disk, its file syncs counted.
#[derive(Debug)]
struct Counted {
    syncs: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountedFile(Box<dyn File>, Arc<AtomicU64>);

impl File for CountedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.sync()
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl Disk for Counted {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(CountedFile(RealDisk.create(path)?, self.syncs.clone())))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(CountedFile(RealDisk.open(path)?, self.syncs.clone())))
    }
    fn read_at(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        RealDisk.read_at(path, offset, into)
    }
    fn len(&self, path: &Path) -> io::Result<u64> {
        RealDisk.len(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn write_again(&self, path: &Path, from: u64) -> io::Result<()> {
        RealDisk.write_again(path, from)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}
