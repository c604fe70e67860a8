//! `readings_1m`: what the readings of a minute come to, kept as **parts that merge**.
//!
//! Each commit writes, with its rows and in the same step, one part per device, series and minute *of its own rows*: count,
//! sum, min, max, first and last with their times, of the numeric values. `readings_1m` merges the parts when it is
//! asked, together with the rows that are in no file yet, each of which is a part of one.
//!
//! Why not one row per minute, recomputed when late data come?
//!
//! * Late data are usual here: a gateway that was away for two days brings two days of minutes. A part is true for ever,
//!   so nothing is marked, queued or recomputed, and no crash can fall between the rows and their rollup.
//! * A minute stays right after its readings have expired: what comes later merges. To recompute it from what is left
//!   would destroy it.
//! * What is kept merges exactly. A mean would not, so it is computed from sum and count when it is asked for.
//!
//! What it costs: a minute has as many parts as commits saw it, usually one or two. Two readings of one series at the very
//! same time tie: the first is then the lowest value and the last the highest, in whatever order parts are merged.

use crate::schema::{Table, batch, time_type};
use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, StringViewBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

const MINUTE_US: i64 = 60 * 1_000_000;

/// `readings_1m` over the tables `parts` and `rows` of one snapshot.
pub(crate) const VIEW: &str = "\
SELECT time, device, series, sum(count) AS count, sum(sum) / sum(count) AS mean, sum(sum) AS sum, \
min(min) AS min, max(max) AS max, \
first_value(first ORDER BY first_time, first) AS first, min(first_time) AS first_time, \
first_value(last ORDER BY last_time DESC, last DESC) AS last, max(last_time) AS last_time \
FROM (\
SELECT time, device, series, count, sum, min, max, first, first_time, last, last_time FROM parts \
UNION ALL \
SELECT date_trunc('minute', time) AS time, device, series, CAST(1 AS BIGINT) AS count, \
value AS sum, value AS min, value AS max, value AS first, time AS first_time, \
value AS last, time AS last_time FROM rows WHERE value IS NOT NULL\
) GROUP BY time, device, series";

/// The parts of rows of `readings` in the order of their file. `None`: no row has a numeric value.
pub(crate) fn parts(readings: &RecordBatch) -> Option<RecordBatch> {
    let column = |name: &str| readings.column_by_name(name).expect("a column of readings");
    let times = column("time").as_primitive::<TimestampMicrosecondType>();
    let devices = column("device").as_string_view();
    let series = column("series").as_string_view();
    let floats = column("value_float").as_primitive::<Float64Type>();
    let ints = column("value_int").as_primitive::<Int64Type>();
    let bools = column("value_bool").as_boolean();
    let mut parts: Vec<Part> = Vec::new();
    for row in 0..readings.num_rows() {
        let value = if floats.is_valid(row) {
            floats.value(row)
        } else if ints.is_valid(row) {
            ints.value(row) as f64
        } else if bools.is_valid(row) {
            f64::from(u8::from(bools.value(row)))
        } else {
            continue;
        };
        let time = times.value(row);
        let minute = time.div_euclid(MINUTE_US) * MINUTE_US;
        match parts.last_mut() {
            Some(part)
                if part.minute == minute
                    && series.value(part.row) == series.value(row)
                    && devices.value(part.row) == devices.value(row) =>
            {
                part.add(time, value);
            }
            _ => parts.push(Part::new(row, minute, time, value)),
        }
    }
    (!parts.is_empty()).then(|| table(&parts, devices, series))
}

#[derive(Clone, Copy, Debug)]
struct Part {
    /// A row of its device and series.
    row: usize,
    minute: i64,
    count: i64,
    sum: f64,
    min: f64,
    max: f64,
    first: f64,
    first_time: i64,
    last: f64,
    last_time: i64,
}

impl Part {
    fn new(row: usize, minute: i64, time: i64, value: f64) -> Self {
        let (min, max, first, last) = (value, value, value, value);
        let (count, sum, first_time, last_time) = (1, value, time, time);
        Self { row, minute, count, sum, min, max, first, first_time, last, last_time }
    }

    fn add(&mut self, time: i64, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if time < self.first_time || (time == self.first_time && value < self.first) {
            (self.first, self.first_time) = (value, time);
        }
        if time > self.last_time || (time == self.last_time && value > self.last) {
            (self.last, self.last_time) = (value, time);
        }
    }
}

fn table(
    parts: &[Part],
    devices: &arrow::array::StringViewArray,
    series: &arrow::array::StringViewArray,
) -> RecordBatch {
    let text = |from: &arrow::array::StringViewArray| -> ArrayRef {
        let mut builder = StringViewBuilder::new().with_deduplicate_strings();
        parts.iter().for_each(|part| builder.append_value(from.value(part.row)));
        Arc::new(builder.finish())
    };
    let time = |of: fn(&Part) -> i64| -> ArrayRef {
        let array: TimestampMicrosecondArray = parts.iter().map(of).collect::<Vec<_>>().into();
        Arc::new(array.with_data_type(time_type()))
    };
    let float = |of: fn(&Part) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(parts.iter().map(of)))
    };
    batch(
        Table::Rollup,
        vec![
            time(|part| part.minute),
            text(devices),
            text(series),
            Arc::new(Int64Array::from_iter_values(parts.iter().map(|part| part.count))),
            float(|part| part.sum),
            float(|part| part.min),
            float(|part| part.max),
            float(|part| part.first),
            time(|part| part.first_time),
            float(|part| part.last),
            time(|part| part.last_time),
        ],
    )
}
