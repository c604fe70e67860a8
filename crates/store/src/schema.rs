//! The stored tables and their columns, and the builders that rows are appended to.
//!
//! Texts are Arrow string views that share equal texts: a row of `readings` names nine of them, and costs 16 bytes for
//! each. Parquet's logical types say all that a foreign reader needs (`docs/formats/parquet.md`).

use crate::ingest::{Loss, Pack, Quarantined};
use crate::memory::Gap;
use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder,
    StringViewBuilder, TimestampMicrosecondBuilder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use model::Value;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// What files are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Readings,
    /// Parts of `readings_1m`: see `rollup.rs`.
    Rollup,
    Quarantine,
    Losses,
}

impl Table {
    pub const ALL: [Table; 4] = [Self::Readings, Self::Rollup, Self::Quarantine, Self::Losses];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Rollup => "readings_1m",
            Self::Quarantine => "quarantine",
            Self::Losses => "losses",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.as_str() == name)
    }

    pub fn schema(self) -> &'static SchemaRef {
        match self {
            Self::Readings => &READINGS,
            Self::Rollup => &ROLLUP,
            Self::Quarantine => &QUARANTINE,
            Self::Losses => &LOSSES,
        }
    }

    /// The column by whose lowest and highest value the catalog knows a file.
    pub const fn time_column(self) -> &'static str {
        match self {
            Self::Readings | Self::Rollup => "time",
            Self::Quarantine | Self::Losses => "received_at",
        }
    }

    /// The order of rows in a file. Neighbours are alike then, which is what compresses, and one device's rows lie
    /// together, which is what a question skips by.
    pub const fn sort_columns(self) -> &'static [&'static str] {
        match self {
            Self::Readings => &["device", "series", "time", "epoch", "sequence", "index"],
            Self::Rollup => &["device", "series", "time"],
            Self::Quarantine => &["device", "received_at"],
            Self::Losses => &["device", "received_at", "epoch", "first"],
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(crate) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let fields: Vec<Field> =
        fields.iter().map(|(name, kind, null)| Field::new(*name, kind.clone(), *null)).collect();
    Arc::new(Schema::new(fields))
}

const NULL: bool = true;
const TEXT: DataType = DataType::Utf8View;

static READINGS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("time", time_type(), !NULL),
        ("device", TEXT, !NULL),
        ("series", TEXT, !NULL),
        ("value_float", DataType::Float64, NULL),
        ("value_int", DataType::Int64, NULL),
        ("value_bool", DataType::Boolean, NULL),
        ("value_text", TEXT, NULL),
        ("unit", TEXT, NULL),
        ("key", TEXT, !NULL),
        ("epoch", DataType::UInt32, !NULL),
        ("sequence", DataType::UInt64, !NULL),
        ("index", DataType::UInt16, !NULL),
        ("received_at", time_type(), !NULL),
        ("fresh", DataType::Boolean, !NULL),
        ("zone", TEXT, !NULL),
        ("attested_by", TEXT, !NULL),
        ("gateway", TEXT, !NULL),
    ])
});

static ROLLUP: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("time", time_type(), !NULL),
        ("device", TEXT, !NULL),
        ("series", TEXT, !NULL),
        ("count", DataType::Int64, !NULL),
        ("sum", DataType::Float64, !NULL),
        ("min", DataType::Float64, !NULL),
        ("max", DataType::Float64, !NULL),
        ("first", DataType::Float64, !NULL),
        ("first_time", time_type(), !NULL),
        ("last", DataType::Float64, !NULL),
        ("last_time", time_type(), !NULL),
    ])
});

static QUARANTINE: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("received_at", time_type(), !NULL),
        ("device", TEXT, !NULL),
        ("gateway", TEXT, !NULL),
        ("zone", TEXT, !NULL),
        ("reason", TEXT, !NULL),
        ("key", TEXT, NULL),
        ("epoch", DataType::UInt32, NULL),
        ("sequence", DataType::UInt64, NULL),
        ("message", DataType::Binary, !NULL),
    ])
});

static LOSSES: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("received_at", time_type(), !NULL),
        ("device", TEXT, !NULL),
        ("key", TEXT, !NULL),
        ("epoch", DataType::UInt32, !NULL),
        ("first", DataType::UInt64, !NULL),
        ("last", DataType::UInt64, !NULL),
        ("cause", TEXT, !NULL),
    ])
});

/// Of `gaps`, which is in no file: it is what the memory of a shard says.
pub(crate) static GAPS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("device", TEXT, !NULL),
        ("key", TEXT, !NULL),
        ("epoch", DataType::UInt32, !NULL),
        ("first", DataType::UInt64, !NULL),
        ("last", DataType::UInt64, !NULL),
    ])
});

pub(crate) fn gaps<'a>(gaps: impl Iterator<Item = Gap<'a>>) -> RecordBatch {
    let (mut device, mut key, mut epoch) = (text(), text(), UInt32Builder::new());
    let (mut first, mut last) = (UInt64Builder::new(), UInt64Builder::new());
    for gap in gaps {
        device.append_value(gap.device.as_str());
        key.append_value(gap.key.to_string());
        epoch.append_value(gap.epoch);
        first.append_value(gap.first);
        last.append_value(gap.last);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(device.finish()),
        Arc::new(key.finish()),
        Arc::new(epoch.finish()),
        Arc::new(first.finish()),
        Arc::new(last.finish()),
    ];
    RecordBatch::try_new(GAPS.clone(), columns).expect("columns stand in the order of the schema")
}

fn time() -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::new().with_timezone("UTC")
}

fn text() -> StringViewBuilder {
    StringViewBuilder::new().with_deduplicate_strings()
}

/// Rows of one table that still grow.
pub(crate) trait Columns {
    const TABLE: Table;

    /// In the order of the schema.
    fn builders(&mut self) -> Vec<&mut dyn ArrayBuilder>;

    fn len(&mut self) -> usize {
        self.builders()[0].len()
    }

    /// Takes the rows out.
    fn finish(&mut self) -> RecordBatch {
        let arrays = self.builders().into_iter().map(|builder| builder.finish()).collect();
        batch(Self::TABLE, arrays)
    }

    /// A copy of the rows.
    fn copy(&mut self) -> RecordBatch {
        let arrays = self.builders().into_iter().map(|builder| builder.finish_cloned()).collect();
        batch(Self::TABLE, arrays)
    }
}

pub(crate) fn batch(table: Table, arrays: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(table.schema().clone(), arrays)
        .expect("builders stand in the order of their schema and are appended to together")
}

pub(crate) struct ReadingColumns {
    time: TimestampMicrosecondBuilder,
    device: StringViewBuilder,
    series: StringViewBuilder,
    value_float: Float64Builder,
    value_int: Int64Builder,
    value_bool: BooleanBuilder,
    value_text: StringViewBuilder,
    unit: StringViewBuilder,
    key: StringViewBuilder,
    epoch: UInt32Builder,
    sequence: UInt64Builder,
    index: UInt16Builder,
    received_at: TimestampMicrosecondBuilder,
    fresh: BooleanBuilder,
    zone: StringViewBuilder,
    attested_by: StringViewBuilder,
    gateway: StringViewBuilder,
}

impl Default for ReadingColumns {
    fn default() -> Self {
        Self {
            time: time(),
            device: text(),
            series: text(),
            value_float: Float64Builder::new(),
            value_int: Int64Builder::new(),
            value_bool: BooleanBuilder::new(),
            value_text: text(),
            unit: text(),
            key: text(),
            epoch: UInt32Builder::new(),
            sequence: UInt64Builder::new(),
            index: UInt16Builder::new(),
            received_at: time(),
            fresh: BooleanBuilder::new(),
            zone: text(),
            attested_by: text(),
            gateway: text(),
        }
    }
}

impl Columns for ReadingColumns {
    const TABLE: Table = Table::Readings;

    fn builders(&mut self) -> Vec<&mut dyn ArrayBuilder> {
        vec![
            &mut self.time,
            &mut self.device,
            &mut self.series,
            &mut self.value_float,
            &mut self.value_int,
            &mut self.value_bool,
            &mut self.value_text,
            &mut self.unit,
            &mut self.key,
            &mut self.epoch,
            &mut self.sequence,
            &mut self.index,
            &mut self.received_at,
            &mut self.fresh,
            &mut self.zone,
            &mut self.attested_by,
            &mut self.gateway,
        ]
    }
}

impl ReadingColumns {
    pub fn push(&mut self, pack: &Pack) {
        let key = pack.key.to_string();
        let tag = &pack.tag;
        for (index, reading) in pack.readings.iter().enumerate() {
            self.time.append_value(reading.time.as_us());
            self.device.append_value(tag.device.as_str());
            self.series.append_value(reading.series.as_str());
            let (mut float, mut int, mut bool, mut text) = (None, None, None, None);
            match &reading.value {
                Value::Float(v) => float = Some(*v),
                Value::Int(v) => int = Some(*v),
                Value::Bool(v) => bool = Some(*v),
                Value::Text(v) => text = Some(v.as_str()),
            }
            self.value_float.append_option(float);
            self.value_int.append_option(int);
            self.value_bool.append_option(bool);
            self.value_text.append_option(text);
            self.unit.append_option(reading.unit.as_ref().map(|unit| unit.as_str()));
            self.key.append_value(&key);
            self.epoch.append_value(pack.counter.epoch);
            self.sequence.append_value(pack.counter.sequence);
            self.index.append_value(u16::try_from(index).expect("a pack holds at most 256"));
            self.received_at.append_value(tag.received_at.as_us());
            self.fresh.append_value(tag.fresh);
            self.zone.append_value(tag.zone.as_str());
            self.attested_by.append_value(tag.attested_by.as_str());
            self.gateway.append_value(tag.gateway.as_str());
        }
    }
}

pub(crate) struct QuarantineColumns {
    received_at: TimestampMicrosecondBuilder,
    device: StringViewBuilder,
    gateway: StringViewBuilder,
    zone: StringViewBuilder,
    reason: StringViewBuilder,
    key: StringViewBuilder,
    epoch: UInt32Builder,
    sequence: UInt64Builder,
    message: BinaryBuilder,
}

impl Default for QuarantineColumns {
    fn default() -> Self {
        Self {
            received_at: time(),
            device: text(),
            gateway: text(),
            zone: text(),
            reason: text(),
            key: text(),
            epoch: UInt32Builder::new(),
            sequence: UInt64Builder::new(),
            message: BinaryBuilder::new(),
        }
    }
}

impl Columns for QuarantineColumns {
    const TABLE: Table = Table::Quarantine;

    fn builders(&mut self) -> Vec<&mut dyn ArrayBuilder> {
        vec![
            &mut self.received_at,
            &mut self.device,
            &mut self.gateway,
            &mut self.zone,
            &mut self.reason,
            &mut self.key,
            &mut self.epoch,
            &mut self.sequence,
            &mut self.message,
        ]
    }
}

impl QuarantineColumns {
    pub fn push(&mut self, row: &Quarantined) {
        self.received_at.append_value(row.tag.received_at.as_us());
        self.device.append_value(row.tag.device.as_str());
        self.gateway.append_value(row.tag.gateway.as_str());
        self.zone.append_value(row.tag.zone.as_str());
        self.reason.append_value(row.reason.as_str());
        self.key.append_option(row.claims.map(|(key, _)| key.to_string()));
        self.epoch.append_option(row.claims.map(|(_, counter)| counter.epoch));
        self.sequence.append_option(row.claims.map(|(_, counter)| counter.sequence));
        self.message.append_value(&row.message);
    }
}

pub(crate) struct LossColumns {
    received_at: TimestampMicrosecondBuilder,
    device: StringViewBuilder,
    key: StringViewBuilder,
    epoch: UInt32Builder,
    first: UInt64Builder,
    last: UInt64Builder,
    cause: StringViewBuilder,
}

impl Default for LossColumns {
    fn default() -> Self {
        Self {
            received_at: time(),
            device: text(),
            key: text(),
            epoch: UInt32Builder::new(),
            first: UInt64Builder::new(),
            last: UInt64Builder::new(),
            cause: text(),
        }
    }
}

impl Columns for LossColumns {
    const TABLE: Table = Table::Losses;

    fn builders(&mut self) -> Vec<&mut dyn ArrayBuilder> {
        vec![
            &mut self.received_at,
            &mut self.device,
            &mut self.key,
            &mut self.epoch,
            &mut self.first,
            &mut self.last,
            &mut self.cause,
        ]
    }
}

impl LossColumns {
    pub fn push(&mut self, row: &Loss) {
        self.received_at.append_value(row.tag.received_at.as_us());
        self.device.append_value(row.tag.device.as_str());
        self.key.append_value(row.range.key.to_string());
        self.epoch.append_value(row.range.epoch);
        self.first.append_value(row.range.first);
        self.last.append_value(row.range.last);
        self.cause.append_value(row.range.cause.as_str());
    }
}
