//! Rows become the bytes of a Parquet file, and bytes become a file.
//!
//! Names say what is inside and who wrote it: `readings-2-000000000100-000000000249-7.parquet` holds what the records 100
//! to 249 of shard 2 came to, written under claim 7. A claim is one consumer's, so no two consumers ever write one name,
//! and whoever finds a file that the catalog does not name knows whether its writer can still commit it.
//!
//! Which encoding is smallest cannot be known beforehand (`docs/benchmarks-store-notes.md`, made by
//! `examples/ingest_bench.rs`): times are smallest as deltas if a device has one series, and three times as large as plain
//! ones if it has eight that share their times, since zstd finds those again only as whole bytes; full-noise floats want
//! their bytes split, quantised ones a dictionary. So each numeric column of each file is tried on its first rows, and the
//! smallest wins. All of it is under zstd 3: level 9 saves one percent.

use crate::rollup;
use crate::schema::Table;
use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, FieldRef, Schema, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use disk::Disk;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The name of a file, and what the catalog must be able to tell from it alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    pub table: Table,
    pub shard: u32,
    /// The first record whose rows may be in it.
    pub first: u64,
    /// The last one.
    pub last: u64,
    pub claim: u64,
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, shard, first, last, claim } = self;
        write!(f, "{table}-{shard}-{first:012}-{last:012}-{claim}.parquet")
    }
}

impl FileName {
    /// `None`: not a name of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".parquet")?.split('-');
        let table = Table::from_name(parts.next()?)?;
        let shard = parts.next()?.parse().ok()?;
        let mut number = || parts.next()?.parse().ok();
        let parsed = Self { table, shard, first: number()?, last: number()?, claim: number()? };
        (parts.next().is_none() && parsed.to_string() == name).then_some(parsed)
    }
}

/// The name of the object that holds a shard's memory up to an offset.
pub fn taken_name(shard: u32, offset: u64, claim: u64) -> String {
    format!("shard-{shard}-{offset:012}-{claim}.taken")
}

/// The shard whose memory an object of this name holds.
pub fn shard_of_taken_name(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix("shard-")?.strip_suffix(".taken")?.split('-');
    let (shard, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let claim = parts.next()?.parse().ok()?;
    (taken_name(shard, offset, claim) == name).then_some(shard)
}

/// A file's bytes, and what the catalog says of it.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub table: Table,
    pub bytes: Vec<u8>,
    pub rows: u64,
    pub time_min: i64,
    pub time_max: i64,
    pub device_min: String,
    pub device_max: String,
}

/// The files that fresh rows become: one of each table that has rows, and the parts of the rollup.
pub fn encode(fresh: &[(Table, Vec<RecordBatch>)]) -> Result<Vec<Encoded>, (Table, ParquetError)> {
    let mut files = Vec::new();
    for (table, batches) in fresh.iter().filter(|(_, batches)| !batches.is_empty()) {
        let failed = |e| (*table, e);
        let rows = sorted(*table, batches).map_err(failed)?;
        files.push(encode_sorted(*table, &rows).map_err(failed)?);
        if *table == Table::Readings
            && let Some(parts) = rollup::parts(&rows)
        {
            let failed = |e| (Table::Rollup, e);
            files.push(encode_sorted(Table::Rollup, &parts).map_err(failed)?);
        }
    }
    Ok(files)
}

fn sorted(table: Table, batches: &[RecordBatch]) -> Result<RecordBatch, ParquetError> {
    let all = concat_batches(table.schema(), batches)?;
    let columns: Vec<_> = table
        .sort_columns()
        .iter()
        .map(|name| all.column_by_name(name).expect("tables are sorted by their own columns"))
        .cloned()
        .collect();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
    let rows = RowConverter::new(fields.collect())?.convert_columns(&columns)?;
    let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
    order.sort_unstable_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    Ok(take_record_batch(&all, &UInt32Array::from(order))?)
}

fn encode_sorted(table: Table, rows: &RecordBatch) -> Result<Encoded, ParquetError> {
    let bytes = encode_with(rows, chosen(table, rows)?)?;
    let column = |name: &str| rows.column_by_name(name).expect("every table has it");
    let times = column(table.time_column()).as_primitive::<TimestampMicrosecondType>();
    let devices = column("device").as_string_view();
    let time = |best: Option<i64>| best.expect("no file without rows");
    // Rows stand in the order of their device.
    let device = |row: usize| devices.value(row).to_owned();
    Ok(Encoded {
        table,
        bytes,
        rows: rows.num_rows() as u64,
        time_min: time(arrow::compute::min(times)),
        time_max: time(arrow::compute::max(times)),
        device_min: device(0),
        device_max: device(devices.len() - 1),
    })
}

/// The bytes of a file of these rows, as they stand.
pub fn encode_with(
    rows: &RecordBatch,
    properties: WriterProperties,
) -> Result<Vec<u8>, ParquetError> {
    // Arrow's own schema in the footer would cost 2 KB a file and say nothing that Parquet's logical types do not.
    let options =
        ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), rows.schema(), options)?;
    writer.write(rows)?;
    writer.into_inner()
}

/// How these rows are written: see the module's head.
///
/// The same rows give the same choice, so that a replay writes the same bytes.
pub fn chosen(table: Table, rows: &RecordBatch) -> Result<WriterProperties, ParquetError> {
    let mut builder = properties(table).into_builder();
    let sample = rows.slice(0, rows.num_rows().min(SAMPLE_ROWS));
    for (field, column) in table.schema().fields().iter().zip(sample.columns()) {
        let candidates = candidates(field.data_type());
        if candidates.is_empty() || column.null_count() == column.len() {
            continue;
        }
        let mut smallest = None;
        for encoding in candidates {
            let bytes = bytes_of_column(field, column, *encoding)?;
            if smallest.is_none_or(|(least, _)| bytes < least) {
                smallest = Some((bytes, *encoding));
            }
        }
        let (_, encoding) = smallest.expect("there are candidates");
        builder = encoded(builder, field.name(), encoding);
    }
    Ok(builder.build())
}

/// Enough to hold several series of a device, little enough to cost a tenth of the writing.
const SAMPLE_ROWS: usize = 16 * 1024;

/// Of the encodings that every reader knows, those that can win for a type, the usual winner first. Split bytes of
/// integers are left out: that is newer than some readers are. `None` is a dictionary.
fn candidates(of: &DataType) -> &'static [Option<Encoding>] {
    match of {
        DataType::Float64 => &[None, Some(Encoding::BYTE_STREAM_SPLIT), Some(Encoding::PLAIN)],
        DataType::Int64 | DataType::UInt64 | DataType::Timestamp(..) => {
            &[Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::PLAIN), None]
        }
        _ => &[],
    }
}

fn encoded(
    builder: WriterPropertiesBuilder,
    column: &str,
    encoding: Option<Encoding>,
) -> WriterPropertiesBuilder {
    let path = ColumnPath::from(column);
    match encoding {
        Some(encoding) => builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, encoding),
        None => builder.set_column_dictionary_enabled(path, true),
    }
}

fn bytes_of_column(
    field: &FieldRef,
    column: &ArrayRef,
    encoding: Option<Encoding>,
) -> Result<usize, ParquetError> {
    let builder = WriterProperties::builder()
        .set_compression(compression())
        .set_statistics_enabled(EnabledStatistics::None);
    let properties = encoded(builder, field.name(), encoding).build();
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let rows = RecordBatch::try_new(schema, vec![column.clone()])?;
    Ok(encode_with(&rows, properties)?.len())
}

fn compression() -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level of zstd"))
}

/// How every file of a table is written, whatever its rows are.
pub fn properties(table: Table) -> WriterProperties {
    let version = KeyValue::new("plimsoll.version".to_owned(), "1".to_owned());
    let mut builder = WriterProperties::builder()
        .set_created_by("plimsoll".to_owned())
        .set_key_value_metadata(Some(vec![version]))
        .set_compression(compression())
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for name in ["device", "series", table.time_column()] {
        if table.schema().index_of(name).is_ok() {
            let path = ColumnPath::from(name);
            builder = builder.set_column_statistics_enabled(path, EnabledStatistics::Page);
        }
    }
    match table {
        Table::Readings => encoded(builder, "index", Some(Encoding::DELTA_BINARY_PACKED)),
        Table::Quarantine => encoded(builder, "message", Some(Encoding::PLAIN))
            .set_column_statistics_enabled(ColumnPath::from("message"), EnabledStatistics::None),
        Table::Rollup | Table::Losses => builder,
    }
    .build()
}

/// Puts a file into a directory, whole and synced; its name is durable once the directory is synced too.
///
/// Until then it has another name, so that no plain scan ever sees a part of a file.
pub(crate) fn write(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}{UNFINISHED}"));
    if disk.exists(&unfinished)? {
        // Of an attempt that found no room.
        disk.remove(&unfinished)?;
    }
    let mut file = disk.create(&unfinished)?;
    let written = file.append(bytes).and_then(|()| file.sync());
    drop(file);
    if let Err(e) = written {
        // The room is needed, and nobody knows this name. If it cannot be removed now, the next start does.
        let _ = disk.remove(&unfinished);
        return Err(e);
    }
    disk.rename(&unfinished, &dir.join(name))
}

/// What a file that is still being written is called, after its name.
pub(crate) const UNFINISHED: &str = ".new";
