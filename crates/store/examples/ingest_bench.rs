//! From bus to Parquet: how fast, how small, and which encoding is smallest for which column. Prints Markdown.
//!
//! `ingest_bench [--points N] [FILE.csv]...` The files' first column is the time, every other one that is numeric a series;
//! without files, `recordings/*.csv`. Signatures are not made: ingest does not look at them.

use api::{Ask, Query};
use arrow::array::RecordBatch;
use bus::{Log, LogConfig};
use disk::{Disk, RealDisk, SharedDisk};
use model::bus::{Batch, Entry};
use model::envelope::Algorithm;
use model::uplink::{AttestedBy, Record};
use model::{
    Counter, DeviceId, GatewayId, Header, KeyId, Kind, Reading, SeriesName, Timestamp, Value,
    ZoneId, senml,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::catalog::SqliteCatalog;
use store::metrics::Metrics;
use store::shard::{Now, Parts, Shard};
use store::shelf::Shelf;
use store::{FlushBounds, Store, Table, file};
use trust::cose::{self, PublicKey, SecretKey, SignError, Signature, Signer};
use trust::mac::MacKey;

type Failure = Box<dyn std::error::Error>;

const START_US: i64 = 1_767_225_600_000_000;
const MAC: MacKey = MacKey::new([9; 32]);

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1).peekable();
    let mut points = 2_000_000;
    if args.peek().is_some_and(|arg| arg == "--points") {
        points = args.nth(1).ok_or("--points needs a number")?.parse()?;
    }
    let mut recordings: Vec<PathBuf> = args.map(PathBuf::from).collect();
    if recordings.is_empty() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recordings");
        let entries = std::fs::read_dir(shipped).into_iter().flatten().flatten();
        recordings.extend(entries.map(|entry| entry.path()));
        recordings.retain(|path| path.extension().is_some_and(|e| e == "csv"));
    }
    println!("One shard, one thread, flush at 200,000 rows; each flush syncs files and memory and");
    println!(
        "commits to SQLite (`synchronous=FULL`). 100 devices of 8 series: quantised and noisy"
    );
    println!("floats, counts, booleans, a text.\n");
    println!(
        "| readings a pack | packs/s | readings/s | bytes a reading, with rollup | of it rollup | on the bus |"
    );
    println!("| --: | --: | --: | --: | --: | --: |");
    for (readings, points) in [(1, points / 8), (16, points / 2), (256, points)] {
        let work = Plant::new(100).work(points / readings, readings);
        println!("{}", run(&work)?.row(readings));
    }
    isolation(points / 4)?;
    let mut sets = vec![("synthetic, 16 a pack".to_owned(), Plant::new(100).work(points / 32, 16))];
    for path in recordings {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        sets.push((name, recording(&path)?));
    }
    for (name, work) in sets {
        encodings(&name, &work)?;
    }
    Ok(())
}

/// Packs of devices, in the order in which they come.
type Work = Vec<(DeviceId, Vec<Reading>)>;

struct Outcome {
    packs: usize,
    points: usize,
    bus_bytes: usize,
    took: Duration,
    bytes: BTreeMap<Table, u64>,
}

impl Outcome {
    fn row(&self, readings: usize) -> String {
        let s = self.took.as_secs_f64();
        let per = |bytes: u64| bytes as f64 / self.points as f64;
        let rollup = per(self.bytes.get(&Table::Rollup).copied().unwrap_or(0));
        format!(
            "| {readings} | {:.0} | {:.0} | {:.2} | {rollup:.2} | {:.1} |",
            self.packs as f64 / s,
            self.points as f64 / s,
            per(self.bytes.values().sum()),
            per(self.bus_bytes as u64)
        )
    }
}

/// Puts the work on a bus, and takes it from there into files.
fn run(work: &Work) -> Result<Outcome, Failure> {
    let (outcome, dir) = ingest(work)?;
    drop(dir);
    Ok(outcome)
}

fn ingest(work: &Work) -> Result<(Outcome, tempfile::TempDir), Failure> {
    let dir = tempfile::tempdir()?;
    let disk: SharedDisk = Arc::new(RealDisk);
    let config =
        LogConfig { segment_bytes: 64 << 20, bytes_max: 1 << 40, record_bytes_max: 8 << 20 };
    let mut log = Log::open(disk.clone(), &dir.path().join("bus"), config)?;
    let mut bus_bytes = 0;
    for record in records(work) {
        bus_bytes += record.len();
        log.append(&record)?;
    }
    log.commit()?;
    let dir_of_store = dir.path().join("store");
    for dir in ["files", "taken"] {
        disk.create_dir_all(&dir_of_store.join(dir))?;
    }
    let parts = Parts {
        disk,
        catalog: Arc::new(SqliteCatalog::open(&dir_of_store.join("catalog.sqlite"), 1)?),
        shelf: Arc::new(Shelf::new(1)),
        metrics: Metrics::new(),
        mac: MAC,
        dir: dir_of_store,
        flush: FlushBounds::default(),
        raw_retention: Duration::from_secs(3600),
        raw_bytes_max: u64::MAX,
        traces: traces::Traces::default(),
    };
    let shelf = parts.shelf.clone();
    let mut shard = Shard::open(parts, 0, log.reader())?;
    let now = Now { uptime: Duration::ZERO, wall: Timestamp(START_US) };
    let start = Instant::now();
    loop {
        let more = shard.take_in(now)?;
        if shard.is_due(now) || !more {
            shard.flush(now)?;
        }
        if !more {
            break;
        }
    }
    let took = start.elapsed();
    let snapshot = shelf.snapshot();
    let bytes_of = |table: Table| snapshot.files(table).iter().map(|file| file.bytes).sum();
    let bytes = Table::ALL.into_iter().map(|table| (table, bytes_of(table))).collect();
    let points = work.iter().map(|(_, pack)| pack.len()).sum();
    Ok((Outcome { packs: work.len(), points, bus_bytes, took, bytes }, dir))
}

fn records(work: &Work) -> Vec<Vec<u8>> {
    let mut sealers: BTreeMap<&DeviceId, Sealer> = BTreeMap::new();
    let mut records = Vec::new();
    let mut entries = Vec::new();
    let mut bytes = 0;
    for (n, (device, pack)) in work.iter().enumerate() {
        let count = sealers.len();
        let sealer = sealers.entry(device).or_insert_with(|| Sealer::new(count));
        let message = sealer.seal(pack);
        bytes += message.len();
        let last = pack.last().expect("a pack has readings").time.as_us();
        let record = Record {
            device: device.clone(),
            attested_by: AttestedBy::Device,
            // The way takes between 5 and 25 ms.
            received_at: Timestamp(last + 5_000 + (n as i64 * 7919) % 20_000),
            uncertainty_ms: 1,
            fresh: true,
            message,
        };
        entries.push(Entry { record, quarantine: None });
        if entries.len() == 128 || bytes > 1 << 20 {
            records.push(on_bus(std::mem::take(&mut entries)));
            bytes = 0;
        }
    }
    if !entries.is_empty() {
        records.push(on_bus(entries));
    }
    records
}

fn on_bus(entries: Vec<Entry>) -> Vec<u8> {
    let gateway = GatewayId::new("gw-1").expect("a name");
    let zone = ZoneId::new("hall-3").expect("a name");
    let batch = Batch { gateway, zone, entries }.encode();
    [MAC.tag(&batch).as_slice(), &batch].concat()
}

/// How far ingest falls behind, and how late a timer of the station's own runtime fires, without and with questions that ask
/// for everything, four at a time.
fn isolation(points: usize) -> Result<(), Failure> {
    const TICK: Duration = Duration::from_millis(10);
    const TICKS: u32 = 600;
    const HOSTILE: [&str; 3] = [
        "select device, series, date_bin(interval '10 seconds', time) as t, avg(value), max(value) \
         from readings group by device, series, t order by t limit 10",
        "select * from readings order by value desc, time limit 1000",
        "select count(distinct concat(device, series, cast(value as varchar))) from readings",
    ];
    println!(
        "\nQuestions beside ingest: {} readings in the store, and 20,000 more a second, for",
        points
    );
    println!(
        "{} s each; four clients that ask for everything, again and again.\n",
        (TICK * TICKS).as_secs()
    );
    println!(
        "| questions | timer late p50 / p99, ms | ingest behind p50 / p99, ms | answered | refused |"
    );
    println!("| --- | --: | --: | --: | --: |");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for clients in [0, 4] {
        let dir = tempfile::tempdir()?;
        let disk: SharedDisk = Arc::new(RealDisk);
        let log =
            LogConfig { segment_bytes: 64 << 20, bytes_max: 1 << 40, record_bytes_max: 8 << 20 };
        let bus = bus::Shards::open(disk.clone(), &dir.path().join("bus"), 1, log, 4096)?;
        let config = store::Config::new(dir.path().join("store"));
        let outcome: Result<(), Failure> = runtime.block_on(async {
            let store = Store::open(disk, config, bus.writers().to_vec(), MAC).await?;
            let store = Arc::new(store);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let running = store.clone();
            let run = tokio::spawn(async move { running.run(async { drop(stopped.await) }).await });
            let packs = points / 16;
            let work = Plant::new(100).work(packs + 13 * TICKS as usize, 16);
            let mut records = records(&work).into_iter();
            let filled = packs / 128;
            for record in records.by_ref().take(filled) {
                bus.writers()[0].append(record).await?;
            }
            let taken = || {
                let families = store.registry().gather();
                let name = "plimsoll_ingest_messages_total";
                let family = families.iter().find(|family| family.name() == name);
                let of = family.expect("it is registered").get_metric().iter();
                of.map(|metric| metric.get_counter().get_value()).sum::<f64>()
            };
            while taken() < (filled * 128) as f64 {
                tokio::time::sleep(TICK).await;
            }
            let answers = Arc::new([const { AtomicU64::new(0) }; 2]);
            let asking: Vec<_> = (0..clients)
                .map(|n| {
                    let (store, answers) = (store.clone(), answers.clone());
                    tokio::spawn(async move {
                        for sql in HOSTILE.iter().cycle().skip(n) {
                            let ask = Ask { sql: (*sql).into(), rows_max: None, time_max_ms: None };
                            let is_refused = store.query(ask, None).await.is_err();
                            answers[usize::from(is_refused)].fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let (mut late, mut behind) = (Vec::new(), Vec::new());
            let start = tokio::time::Instant::now();
            let mut sent = filled * 128;
            for tick in 1..=TICKS {
                let due = start + TICK * tick;
                tokio::time::sleep_until(due).await;
                late.push(due.elapsed().as_secs_f64() * 1e3);
                if tick % 10 == 0
                    && let Some(record) = records.next()
                {
                    // 128 packs of 16 readings ten times a second.
                    drop(bus.writers()[0].submit(record)?);
                    behind.push((sent as f64 - taken()).max(0.0) / 1.28);
                    sent += 128;
                }
            }
            asking.iter().for_each(|asking| asking.abort());
            let quantiles = |values: &mut Vec<f64>| {
                values.sort_by(f64::total_cmp);
                let at = |q: f64| values[((values.len() - 1) as f64 * q) as usize];
                format!("{:.1} / {:.1}", at(0.5), at(0.99))
            };
            let [answered, refused] = [0, 1].map(|i| answers[i].load(Ordering::Relaxed));
            let (late, behind) = (quantiles(&mut late), quantiles(&mut behind));
            let who = if clients == 0 { "none" } else { "4 clients" };
            println!("| {who} | {late} | {behind} | {answered} | {refused} |");
            drop(stop);
            run.await??;
            Ok(())
        });
        outcome?;
    }
    Ok(())
}

struct Sealer {
    key: Unsigned,
    id: KeyId,
    next: Counter,
}

/// Makes the form of a signature, without its work.
struct Unsigned(SecretKey);

impl Signer for Unsigned {
    fn public(&self) -> &PublicKey {
        self.0.public()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        // As incompressible as a real one.
        let digest = trust::digest(message).0;
        Ok(std::array::from_fn(|i| digest[i % 32] ^ (i as u8)))
    }
}

impl Sealer {
    fn new(n: usize) -> Self {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
        let key = SecretKey::from_random(Algorithm::Ed25519, &seed).expect("any seed is a key");
        let id = key.public().id();
        Self { key: Unsigned(key), id, next: Counter { epoch: 1, sequence: 0 } }
    }

    fn seal(&mut self, pack: &[Reading]) -> Vec<u8> {
        let header = Header {
            algorithm: Algorithm::Ed25519,
            kind: Kind::Readings,
            key: self.id,
            counter: self.next,
            uptime_ms: self.next.sequence * 1000,
            wall: None,
            heard: None,
            prior: None,
        };
        self.next.sequence += 1;
        cose::seal(&header, &senml::encode(pack), &self.key).expect("it never refuses")
    }
}

/// Devices that measure eight series each, every second, with some jitter.
struct Plant {
    random: u64,
    devices: Vec<(DeviceId, i64, [f64; 2], i64)>,
    series: Vec<SeriesName>,
}

impl Plant {
    fn new(devices: usize) -> Self {
        let device = |n| DeviceId::new(format!("pump-{n:04}")).expect("a name");
        let names = [
            "temperature/bearing",
            "temperature/oil",
            "pressure/in",
            "pressure/out",
            "vibration",
            "starts",
            "running",
            "state",
        ];
        Self {
            random: 0x9E37_79B9_7F4A_7C15,
            devices: (0..devices).map(|n| (device(n), START_US, [60.0, 40.0], 0)).collect(),
            series: names.into_iter().map(|name| SeriesName::new(name).expect("a name")).collect(),
        }
    }

    fn work(mut self, packs: usize, readings: usize) -> Work {
        (0..packs).map(|n| self.pack(n % self.devices.len(), readings)).collect()
    }

    fn pack(&mut self, device: usize, readings: usize) -> (DeviceId, Vec<Reading>) {
        let series = self.series.len();
        let mut pack = Vec::with_capacity(readings);
        while pack.len() < readings {
            let [a, b, c, d] = [self.uniform(), self.uniform(), self.uniform(), self.uniform()];
            let (_, time, temperatures, count) = &mut self.devices[device];
            let n = (*count as usize) % series;
            if n == 0 {
                *time += 1_000_000 + (a * 9_000.0) as i64;
                temperatures[0] += b - 0.5;
                temperatures[1] += (c - 0.5) / 4.0;
            }
            *count += 1;
            let tenths = |v: f64| (v * 10.0).round() / 10.0;
            let value = match n {
                0 => Value::Float(tenths(temperatures[0])),
                1 => Value::Float(tenths(temperatures[1])),
                2 => Value::Float(1.0 + b / 10.0),
                3 => Value::Float(4.0 + c),
                4 => Value::Float((d * 2048.0).floor() / 64.0),
                5 => Value::Int(*count / 10_000),
                6 => Value::Bool(*count % 100_000 > 1000),
                _ => Value::Text(if *count % 50_000 < 40_000 { "run" } else { "idle" }.into()),
            };
            let time = Timestamp(*time);
            pack.push(Reading { time, series: self.series[n].clone(), value, unit: None });
        }
        (self.devices[device].0.clone(), pack)
    }

    fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A recording as one device sends it: a pack per row, numbers with a fraction as floats and others as integers, a series
/// having one type.
fn recording(path: &Path) -> Result<Work, Failure> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric()).take(63).collect();
    let device = DeviceId::new(name)?;
    let mut reader = csv::Reader::from_path(path)?;
    let headers = reader.headers()?.clone();
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
    let mut columns = Vec::new();
    for (i, header) in headers.iter().enumerate().skip(1) {
        let name = header.split(" [").next().unwrap_or_default();
        let cells = || rows.iter().map(|row| row.get(i).unwrap_or_default());
        let Ok(series) = SeriesName::new(name) else { continue };
        if cells().any(|cell| cell.parse::<f64>().is_ok()) {
            let are_ints = cells().all(|cell| cell.is_empty() || cell.parse::<i64>().is_ok());
            columns.push((i, series, are_ints));
        }
    }
    let mut work = Work::new();
    for row in &rows {
        let time = time_of(row.get(0).unwrap_or_default())?;
        let reading = |(i, series, are_ints): &(usize, SeriesName, bool)| {
            let cell = row.get(*i)?;
            let value = match are_ints {
                true => Value::Int(cell.parse().ok()?),
                false => Value::Float(cell.parse().ok()?),
            };
            Some(Reading { time, series: series.clone(), value, unit: None })
        };
        let readings: Vec<Reading> = columns.iter().filter_map(reading).collect();
        for pack in readings.chunks(256) {
            work.push((device.clone(), pack.to_vec()));
        }
    }
    Ok(work)
}

fn time_of(text: &str) -> Result<Timestamp, Failure> {
    if let Ok(number) = text.parse::<f64>() {
        // In seconds this would be the year 5138; so they are milliseconds.
        let seconds = if number > 1e11 { number / 1e3 } else { number };
        return Ok(Timestamp((seconds * 1e6).round() as i64));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(time.as_microsecond()));
    }
    let time: jiff::civil::DateTime = text.parse()?;
    Ok(Timestamp(time.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_microsecond()))
}

/// The columns of `readings` whose encoding is worth a choice.
const COLUMNS: [&str; 6] = ["time", "value_float", "value_int", "sequence", "index", "received_at"];

type Choose = fn(WriterPropertiesBuilder, &str) -> WriterPropertiesBuilder;
type Choice = (&'static str, Choose);

const CHOICES: [Choice; 5] = [
    ("as we write", |builder, _| builder),
    ("dictionary", |builder, column| {
        builder
            .set_column_encoding(ColumnPath::from(column), Encoding::PLAIN)
            .set_column_dictionary_enabled(ColumnPath::from(column), true)
    }),
    ("plain", |builder, column| plain(builder, column, Encoding::PLAIN)),
    ("delta", |builder, column| plain(builder, column, Encoding::DELTA_BINARY_PACKED)),
    ("split", |builder, column| plain(builder, column, Encoding::BYTE_STREAM_SPLIT)),
];

fn plain(
    builder: WriterPropertiesBuilder,
    column: &str,
    encoding: Encoding,
) -> WriterPropertiesBuilder {
    builder
        .set_column_dictionary_enabled(ColumnPath::from(column), false)
        .set_column_encoding(ColumnPath::from(column), encoding)
}

/// Bytes a reading of each column under each encoding, over the files that ingest made.
fn encodings(name: &str, work: &Work) -> Result<(), Failure> {
    let (outcome, dir) = ingest(work)?;
    let files = dir.path().join("store/files");
    let mut batches = Vec::new();
    let mut all = 0;
    for file_name in RealDisk.list(&files)? {
        if !file_name.starts_with("readings-") {
            continue;
        }
        let bytes = RealDisk.read(&files.join(file_name), u64::MAX)?;
        all += bytes.len();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))?
            .with_batch_size(usize::MAX >> 1);
        for batch in reader.build()? {
            let batch = batch?;
            let columns = batch.columns().iter().zip(Table::Readings.schema().fields());
            let columns = columns.map(|(c, field)| arrow::compute::cast(c, field.data_type()));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            batches.push(RecordBatch::try_new(Table::Readings.schema().clone(), columns)?);
        }
    }
    println!(
        "\n**{name}**: {} readings, bytes a reading by column and encoding, under zstd 3",
        outcome.points
    );
    println!("\n| column | {} |", CHOICES.map(|(name, _)| name).join(" | "));
    println!("| --- |{}", " --: |".repeat(CHOICES.len()));
    let points = outcome.points as f64;
    for column in COLUMNS {
        let cell = |(name, choose): &Choice| -> String {
            if column == "value_float" && *name == "delta" {
                return "–".to_owned();
            }
            match column_bytes(&batches, *choose, column) {
                Ok(bytes) => format!("{:.3}", bytes as f64 / points),
                Err(e) => e.to_string(),
            }
        };
        println!("| {column} | {} |", CHOICES.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    let mut rest = 0;
    for field in Table::Readings.schema().fields() {
        if !COLUMNS.contains(&field.name().as_str()) {
            rest += column_bytes(&batches, CHOICES[0].1, field.name())?;
        }
    }
    println!("| all others | {:.3} | | | | |", rest as f64 / points);
    println!("| the whole file | {:.3} | | | | |", all as f64 / points);
    for (level, compression) in [
        ("none", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("zstd 1", Compression::ZSTD(ZstdLevel::try_new(1)?)),
        ("zstd 9", Compression::ZSTD(ZstdLevel::try_new(9)?)),
    ] {
        let start = Instant::now();
        let mut bytes = 0;
        for batch in &batches {
            let properties = file::chosen(Table::Readings, batch)?;
            let properties = properties.into_builder().set_compression(compression).build();
            bytes += file::encode_with(batch, properties)?.len();
        }
        let speed = points / start.elapsed().as_secs_f64() / 1e6;
        println!("| with {level} | {:.3} ({speed:.1} M/s) | | | | |", bytes as f64 / points);
    }
    Ok(())
}

fn column_bytes(batches: &[RecordBatch], choose: Choose, column: &str) -> Result<u64, Failure> {
    let mut sum = 0;
    for batch in batches {
        let properties = file::chosen(Table::Readings, batch)?.into_builder();
        let bytes = file::encode_with(batch, choose(properties, column).build())?;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(bytes))?;
        let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
        sum += chunks
            .filter(|chunk| chunk.column_descr().name() == column)
            .map(|chunk| chunk.compressed_size() as u64)
            .sum::<u64>();
    }
    Ok(sum)
}
