//! Arrow values as the cells of an answer: see [`api::query::Cell`].

use api::Cell;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use model::hex;

/// The cells of one column.
pub(crate) fn cells(array: &ArrayRef) -> Result<Vec<Cell>, ArrowError> {
    use DataType::{
        Binary, BinaryView, Boolean, Decimal128, Dictionary, FixedSizeBinary, Float16, Float32,
        Float64, Int8, Int16, Int32, Int64, LargeBinary, LargeUtf8, Null, Timestamp, UInt8, UInt16,
        UInt32, UInt64, Utf8, Utf8View,
    };
    let len = array.len();
    let each = |cell: &dyn Fn(usize) -> Cell| -> Vec<Cell> {
        (0..len).map(|i| if array.is_null(i) { Cell::Null } else { cell(i) }).collect()
    };
    Ok(match array.data_type() {
        Null => vec![Cell::Null; len],
        Boolean => each(&|i| array.as_boolean().value(i).into()),
        Int64 => each(&|i| array.as_primitive::<Int64Type>().value(i).into()),
        UInt64 => each(&|i| array.as_primitive::<UInt64Type>().value(i).into()),
        Int8 | Int16 | Int32 => cells(&cast(array, &Int64)?)?,
        UInt8 | UInt16 | UInt32 => cells(&cast(array, &UInt64)?)?,
        Float64 => each(&|i| float(array.as_primitive::<Float64Type>().value(i))),
        // By its digits: 0.1 is not to become 0.10000000149.
        Float32 => each(&|i| {
            let digits = array.as_primitive::<Float32Type>().value(i).to_string();
            float(digits.parse().expect("the digits of a float are a float"))
        }),
        Float16 => cells(&cast(array, &Float32)?)?,
        Utf8View => each(&|i| array.as_string_view().value(i).into()),
        Utf8 => each(&|i| array.as_string::<i32>().value(i).into()),
        LargeUtf8 => each(&|i| array.as_string::<i64>().value(i).into()),
        Binary => each(&|i| hex::encode(array.as_binary::<i32>().value(i)).into()),
        LargeBinary => each(&|i| hex::encode(array.as_binary::<i64>().value(i)).into()),
        BinaryView => each(&|i| hex::encode(array.as_binary_view().value(i)).into()),
        FixedSizeBinary(_) => each(&|i| hex::encode(array.as_fixed_size_binary().value(i)).into()),
        Timestamp(unit, _) => times(array, unit),
        // What a signed and an unsigned number come to. With a fraction it is text, lest a digit be lost.
        Decimal128(_, 0) => each(&|i| {
            let value = array.as_primitive::<Decimal128Type>().value(i);
            let signed = i64::try_from(value).map(Cell::from);
            let unsigned = || u64::try_from(value).map(Cell::from);
            signed.or_else(|_| unsigned()).unwrap_or_else(|_| value.to_string().into())
        }),
        Dictionary(_, values) => cells(&cast(array, values)?)?,
        _ => texts(array)?,
    })
}

/// The name of a type, as a reader of an answer needs it: how texts are laid out in memory is not his matter.
pub(crate) fn kind(of: &DataType) -> String {
    match of {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8.to_string(),
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary.to_string(),
        DataType::Dictionary(_, values) => kind(values),
        other => other.to_string(),
    }
}

fn float(value: f64) -> Cell {
    match serde_json::Number::from_f64(value) {
        Some(number) => number.into(),
        // `NaN`, `inf` or `-inf`.
        None => value.to_string().into(),
    }
}

fn times(array: &ArrayRef, unit: &TimeUnit) -> Vec<Cell> {
    let time = |i: usize| match unit {
        TimeUnit::Second => {
            jiff::Timestamp::from_second(array.as_primitive::<TimestampSecondType>().value(i))
        }
        TimeUnit::Millisecond => jiff::Timestamp::from_millisecond(
            array.as_primitive::<TimestampMillisecondType>().value(i),
        ),
        TimeUnit::Microsecond => jiff::Timestamp::from_microsecond(
            array.as_primitive::<TimestampMicrosecondType>().value(i),
        ),
        TimeUnit::Nanosecond => jiff::Timestamp::from_nanosecond(i128::from(
            array.as_primitive::<TimestampNanosecondType>().value(i),
        )),
    };
    let cell = |i: usize| match (array.is_null(i), time(i)) {
        (true, _) => Cell::Null,
        (false, Ok(time)) => time.to_string().into(),
        (false, Err(_)) => "beyond the year 9999".into(),
    };
    (0..array.len()).map(cell).collect()
}

/// Lists, structs, decimals, intervals and dates, as Arrow prints them.
fn texts(array: &ArrayRef) -> Result<Vec<Cell>, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options)?;
    let cell = |i: usize| match array.is_null(i) {
        true => Ok(Cell::Null),
        false => Ok(formatter.value(i).try_to_string()?.into()),
    };
    (0..array.len()).map(cell).collect()
}

/// Roughly what a cell takes as JSON.
pub(crate) fn size(cell: &Cell) -> usize {
    match cell {
        Cell::String(text) => text.len() + 3,
        _ => 12,
    }
}
