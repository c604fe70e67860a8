//! Files as an outsider reads them: with the `parquet` crate alone, no catalog, no query engine.

use crate::plant::{Device, NOW, START_US, bus_of, names, on_bus, parts, reading, run_to_end};
use disk::{Disk, SimDisk};
use model::Timestamp;
use parquet::basic::{Encoding, LogicalType, TimeUnit};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use store::FlushBounds;
use store::catalog::MemoryCatalog;
use store::shard::Shard;

fn open(disk: &dyn Disk, name: &str) -> Result<SerializedFileReader<bytes::Bytes>, String> {
    let path = Path::new("/store/files").join(name);
    let bytes = disk.read(&path, 1 << 30).map_err(|e| format!("{name}: {e}"))?;
    SerializedFileReader::new(bytes::Bytes::from(bytes)).map_err(|e| format!("{name}: {e}"))
}

fn each_row(disk: &dyn Disk, table: &str, mut look: impl FnMut(&Row)) -> Result<(), String> {
    for name in names(disk, table) {
        for row in open(disk, &name)?.get_row_iter(None).map_err(|e| format!("{name}: {e}"))? {
            look(&row.map_err(|e| format!("{name}: {e}"))?);
        }
    }
    Ok(())
}

/// Every row of a table as text, sorted.
pub fn rows(disk: &dyn Disk, table: &str) -> Result<Vec<String>, String> {
    let mut rows = Vec::new();
    each_row(disk, table, |row| rows.push(row.to_string()))?;
    rows.sort();
    Ok(rows)
}

/// Parts of the rollup, merged as anybody could: how many parts a minute has depends on where flushes fell.
pub fn merged_rollup(disk: &dyn Disk) -> Result<Vec<String>, String> {
    type Minute = (i64, f64, f64, f64);
    let mut merged: BTreeMap<String, Minute> = BTreeMap::new();
    each_row(disk, "readings_1m", |row| {
        let field = |name: &str| {
            row.get_column_iter().find(|(column, _)| *column == name).map(|(_, f)| f).unwrap()
        };
        let float = |name: &str| match field(name) {
            Field::Double(v) => *v,
            other => panic!("{name} is {other:?}"),
        };
        let Field::Long(count) = field("count") else { panic!("a count") };
        let key = format!("{} {} {}", field("device"), field("series"), field("time"));
        let all = merged.entry(key).or_insert((0, 0.0, f64::INFINITY, f64::NEG_INFINITY));
        all.0 += count;
        all.1 += float("sum");
        all.2 = all.2.min(float("min"));
        all.3 = all.3.max(float("max"));
    })?;
    // Sums in another order differ in the last bits.
    Ok(merged.iter().map(|(key, m)| format!("{key}: {} {:.6} {} {}", m.0, m.1, m.2, m.3)).collect())
}

const SOME: FlushBounds =
    FlushBounds { rows_max: 100, bytes_max: 1 << 20, age_max: std::time::Duration::from_secs(300) };

/// 3 devices, 2 series each, in minutes that interleave.
fn filled() -> SimDisk {
    let mut devices: Vec<_> = (0..3).map(|n| Device::new(&format!("pump-{n}"), n + 1)).collect();
    let mut records = Vec::new();
    for round in 0..40i64 {
        for device in &mut devices {
            let time = START_US + round * 7_000_000;
            let pack = [
                reading("flow/in", time, 1.5 * round as f64),
                reading("starts", time, round),
                reading("door", time, round % 2 == 0),
                reading("state", time, if round < 20 { "idle" } else { "busy" }),
            ];
            let message = device.seal(&pack);
            records.push(on_bus(vec![device.entry(message)]));
        }
    }
    let disk = SimDisk::new(1);
    let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), SOME);
    run_to_end(&mut Shard::open(parts, 0, bus_of(&records)).unwrap()).unwrap();
    disk
}

#[test]
fn inv_replay_1_a_plain_scan_finds_every_reading_once_by_what_its_signature_covers() {
    let disk = filled();
    let mut found: BTreeMap<(String, u32, u64, u16), u32> = BTreeMap::new();
    each_row(&disk, "readings", |row| {
        let mut id = (String::new(), 0, 0, 0);
        for (name, field) in row.get_column_iter() {
            match (name.as_str(), field) {
                ("key", Field::Str(key)) => id.0 = key.clone(),
                ("epoch", Field::UInt(epoch)) => id.1 = *epoch,
                ("sequence", Field::ULong(sequence)) => id.2 = *sequence,
                ("index", Field::UShort(index)) => id.3 = *index,
                _ => {}
            }
        }
        *found.entry(id).or_default() += 1;
    })
    .unwrap();
    assert_eq!(found.len(), 3 * 40 * 4);
    assert!(found.values().all(|count| *count == 1));
    let keys: Vec<_> = (0..3).map(|n| Device::new("any", n + 1).key_id().to_string()).collect();
    for key in keys {
        for sequence in 0..40 {
            for index in 0..4 {
                assert!(found.contains_key(&(key.clone(), 1, sequence, index)));
            }
        }
    }
    assert!(names(&disk, "readings").len() > 3, "several files");
}

#[test]
fn a_value_keeps_its_type() {
    let disk = filled();
    let mut seen = [0; 4];
    each_row(&disk, "readings", |row| {
        let fields: BTreeMap<&str, &Field> =
            row.get_column_iter().map(|(name, field)| (name.as_str(), field)).collect();
        let values =
            ["value_float", "value_int", "value_bool", "value_text"].map(|name| fields[name]);
        let Field::Str(series) = fields["series"] else { panic!("a series") };
        let which = match (series.as_str(), values) {
            ("flow/in", [Field::Double(_), Field::Null, Field::Null, Field::Null]) => 0,
            ("starts", [Field::Null, Field::Long(_), Field::Null, Field::Null]) => 1,
            ("door", [Field::Null, Field::Null, Field::Bool(_), Field::Null]) => 2,
            ("state", [Field::Null, Field::Null, Field::Null, Field::Str(_)]) => 3,
            other => panic!("{other:?}"),
        };
        seen[which] += 1;
        assert_eq!(fields["unit"], &Field::Str("Cel".into()));
        assert_eq!(fields["zone"], &Field::Str("hall-3".into()));
        assert_eq!(fields["gateway"], &Field::Str("gw-1".into()));
        assert_eq!(fields["attested_by"], &Field::Str("device".into()));
        assert_eq!(fields["received_at"], &Field::TimestampMicros(START_US + 250_000));
    })
    .unwrap();
    assert_eq!(seen, [120; 4]);
}

#[test]
fn rows_stand_in_the_order_of_device_series_and_time_and_the_catalog_knows_their_bounds() {
    let disk = filled();
    for name in names(&disk, "readings") {
        let mut last = (String::new(), String::new(), i64::MIN);
        for row in open(&disk, &name).unwrap().get_row_iter(None).unwrap() {
            let row = row.unwrap();
            let mut at = (String::new(), String::new(), 0);
            for (column, field) in row.get_column_iter() {
                match (column.as_str(), field) {
                    ("device", Field::Str(device)) => at.0 = device.clone(),
                    ("series", Field::Str(series)) => at.1 = series.clone(),
                    ("time", Field::TimestampMicros(time)) => at.2 = *time,
                    _ => {}
                }
            }
            assert!(last <= at, "{last:?} stands before {at:?}");
            last = at;
        }
    }
}

#[test]
fn a_foreign_reader_finds_the_types_in_parquets_own_words() {
    let disk = filled();
    let name = &names(&disk, "readings")[0];
    let reader = open(&disk, name).unwrap();
    let file = reader.metadata().file_metadata();
    let schema = file.schema_descr();
    let logical = |name: &str| {
        let column = (0..schema.num_columns()).find(|i| schema.column(*i).name() == name).unwrap();
        schema.column(column).logical_type_ref().cloned()
    };
    let time = LogicalType::timestamp(true, TimeUnit::MICROS);
    assert_eq!(logical("time"), Some(time.clone()));
    assert_eq!(logical("received_at"), Some(time));
    assert_eq!(logical("device"), Some(LogicalType::String));
    assert_eq!(logical("epoch"), Some(LogicalType::integer(32, false)));
    assert_eq!(logical("sequence"), Some(LogicalType::integer(64, false)));
    let notes = file.key_value_metadata().unwrap();
    assert_eq!(notes.len(), 1, "our version, and no schema of Arrow's");
    assert_eq!((notes[0].key.as_str(), notes[0].value.as_deref()), ("plimsoll.version", Some("1")));
}

/// What is smallest depends on the data: see the head of `file.rs`.
#[test]
fn each_column_is_written_in_the_encoding_that_is_smallest_for_it() {
    let noise = |i: usize| (i as f64 * 0.7391).sin() * 1e3 + (i as f64 * 2.1713).cos();
    let written = |series: usize, value: &dyn Fn(usize) -> f64| {
        let mut device = Device::new("pump-1", 1);
        let packs = (0..40).map(|pack| {
            let reading = |i: usize| {
                let i = pack * 96 + i;
                // Not quite every second, so that deltas of eight series are not all alike.
                let time =
                    START_US + (i / series) as i64 * 1_000_000 + (noise(i / series) * 9.0) as i64;
                let name = format!("series/{}", i % series);
                let time = if series == 1 { START_US + i as i64 * 1_000_000 } else { time };
                reading(&name, time, value(i))
            };
            let pack: Vec<_> = (0..96).map(reading).collect();
            let message = device.seal(&pack);
            on_bus(vec![device.entry(message)])
        });
        let disk = SimDisk::new(1);
        let flush = FlushBounds { rows_max: 1 << 20, ..SOME };
        let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), flush);
        let bus = bus_of(&packs.collect::<Vec<_>>());
        run_to_end(&mut Shard::open(parts, 0, bus).unwrap()).unwrap();
        let reader = open(&disk, &names(&disk, "readings")[0]).unwrap();
        let group = reader.metadata().row_group(0);
        let encodings = |name: &str| {
            let column = group.columns().iter().find(|c| c.column_descr().name() == name).unwrap();
            column.encodings().collect::<Vec<_>>()
        };
        (encodings("time"), encodings("value_float"))
    };
    let (time, value) = written(1, &|i| 20.0 + (noise(i).abs() as i64 % 40) as f64 / 10.0);
    assert!(time.contains(&Encoding::DELTA_BINARY_PACKED), "{time:?}");
    assert!(value.contains(&Encoding::RLE_DICTIONARY), "{value:?}");
    let (time, value) = written(8, &noise);
    assert!(!time.contains(&Encoding::DELTA_BINARY_PACKED), "{time:?}");
    assert!(value.contains(&Encoding::BYTE_STREAM_SPLIT), "{value:?}");
}

#[test]
fn a_replay_writes_the_same_bytes() {
    let bytes = || {
        let disk = filled();
        let dir = Path::new("/store/files");
        let names = disk.list(dir).unwrap();
        let read = |name: String| (name.clone(), disk.read(&dir.join(name), 1 << 30).unwrap());
        names.into_iter().map(read).collect::<Vec<_>>()
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn a_minute_of_a_series_is_one_part_in_a_flush() {
    let mut device = Device::new("pump-1", 1);
    let at = |second: i64| START_US + second * 1_000_000;
    let pack = [
        reading("t", at(59), 3.0),
        reading("t", at(1), 5.0),
        reading("t", at(30), 2.0),
        reading("t", at(60), 7.0),
        reading("state", at(3), "on"),
        reading("door", at(2), true),
        reading("door", at(2), false),
    ];
    let message = device.seal(&pack);
    let disk = SimDisk::new(1);
    let parts = parts(disk.shared(), Arc::new(MemoryCatalog::new(1)), SOME);
    let bus = bus_of(&[on_bus(vec![device.entry(message)])]);
    let mut shard = Shard::open(parts, 0, bus).unwrap();
    shard.take_in(NOW).unwrap();
    shard.flush(NOW).unwrap();
    let mut found = Vec::new();
    each_row(&disk, "readings_1m", |row| {
        let fields = row.get_column_iter().map(|(_, field)| match field {
            Field::TimestampMicros(time) => Timestamp(time - START_US).as_us().to_string(),
            other => other.to_string(),
        });
        found.push(fields.collect::<Vec<_>>().join(" "));
    })
    .unwrap();
    let expected = [
        // minute, device, series, count, sum, min, max, first and its time, last and its time
        "0 \"pump-1\" \"door\" 2 1.0 0E0 1.0 0E0 2000000 1.0 2000000",
        "0 \"pump-1\" \"t\" 3 10.0 2.0 5.0 5.0 1000000 3.0 59000000",
        "60000000 \"pump-1\" \"t\" 1 7.0 7.0 7.0 7.0 60000000 7.0 60000000",
    ];
    assert_eq!(found, expected);
}
