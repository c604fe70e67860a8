//! A pack of readings as SenML in CBOR (RFC 8428 §6).
//!
//! ```text
//! pack   = [ 1*256 record ]
//! record = { ? -2 bn, ? -3 bt, ? -4 bu, ? 0 n, ? 1 u, ? 6 t, one of: 2 v | 3 vs | 4 vb }
//! ```
//!
//! The type of a value is the type of its CBOR item: an integer stays an integer. Base fields hold until they are set
//! again (§4.1). What we write: `bt` in whole seconds in the first record, and again in one that lies more than 35 years
//! from it; `t` in each record that is not at `bt`, in seconds. Every microsecond comes back exactly.
//! What we read besides: any order of labels, `bn` and `bu`, records without `n` when `bn` is a whole name, unknown
//! labels whose meaning may be ignored (§4.4). Sums (`s`), data values (`vd`), relative times and update times are
//! refused: nothing on this road gives them a meaning (INV-MIX-1).

use crate::cbor::{Malformed, Reason, array_up_to, at_end, expect};
use crate::id::{SeriesName, Unit};
use crate::reading::{Reading, Timestamp, Value};
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// A pack closes at this many records.
pub const RECORDS_MAX: usize = 256;
/// A pack closes before it would grow past this many bytes.
pub const PACK_BYTES_MAX: usize = 32 * 1024;
/// The longest text that a reading may carry.
pub const TEXT_BYTES_MAX: usize = 1024;

/// RFC 8428 §4.5.3: a time below 2^28 seconds is relative to "now", which no durable record can mean.
const EARLIEST_US: i64 = (1 << 28) * 1_000_000;
/// The last microsecond of the year 9999, as RFC 3339 can still write it.
const LATEST_US: i64 = 253_402_300_800 * 1_000_000 - 1;
/// Up to here a time in seconds, as a float, still tells its microseconds apart when it is multiplied out: 2^50 µs are
/// 35 years, and each of the two roundings costs at most 2^-3 µs.
const OFFSET_US_MAX: u64 = 1 << 50;

const BN: i32 = -2;
const BT: i32 = -3;
const BU: i32 = -4;
const N: i32 = 0;
const U: i32 = 1;
const V: i32 = 2;
const VS: i32 = 3;
const VB: i32 = 4;
const T: i32 = 6;

/// Writes readings as one pack.
///
/// The caller keeps to `RECORDS_MAX`, to finite floats and to the bounds of texts and times, which `decode` demands; the
/// length in bytes is the caller's to look at, since a pack is closed by it.
pub fn encode(readings: &[Reading]) -> Vec<u8> {
    assert!(
        !readings.is_empty() && readings.len() <= RECORDS_MAX,
        "a pack holds 1 to {RECORDS_MAX} readings"
    );
    let mut e = Encoder::new(Vec::with_capacity(readings.len() * 40));
    let mut base_s = 0;
    let written: Result<(), minicbor::encode::Error<core::convert::Infallible>> = (|| {
        e.array(readings.len() as u64)?;
        for (i, reading) in readings.iter().enumerate() {
            let time_us = reading.time.as_us();
            let is_far = time_us.abs_diff(base_s * 1_000_000) > OFFSET_US_MAX;
            if i == 0 || is_far {
                base_s = time_us.div_euclid(1_000_000);
            }
            let offset_us = time_us - base_s * 1_000_000;
            let labels = 2
                + u64::from(i == 0 || is_far)
                + u64::from(reading.unit.is_some())
                + u64::from(offset_us != 0);
            e.map(labels)?;
            if i == 0 || is_far {
                e.i32(BT)?.i64(base_s)?;
            }
            e.i32(N)?.str(reading.series.as_str())?;
            if let Some(unit) = &reading.unit {
                e.i32(U)?.str(unit.as_str())?;
            }
            match &reading.value {
                Value::Float(v) => e.i32(V)?.f64(*v)?,
                Value::Int(v) => e.i32(V)?.i64(*v)?,
                Value::Text(v) => e.i32(VS)?.str(v)?,
                Value::Bool(v) => e.i32(VB)?.bool(*v)?,
            };
            if offset_us != 0 {
                e.i32(T)?;
                if offset_us % 1_000_000 == 0 {
                    e.i64(offset_us / 1_000_000)?
                } else {
                    e.f64(offset_us as f64 / 1e6)?
                };
            }
        }
        Ok(())
    })();
    written.expect("writing to a Vec cannot fail");
    e.into_writer()
}

/// Reads a pack. Every reading that it returns is complete: named, absolute in time, typed.
pub fn decode(bytes: &[u8]) -> Result<Vec<Reading>, Malformed> {
    if bytes.len() > PACK_BYTES_MAX {
        return Err(Malformed::new(Reason::Oversize, "a pack of at most 32 KiB"));
    }
    let mut d = Decoder::new(bytes);
    let len = array_up_to(&mut d, RECORDS_MAX, "an array of 1 to 256 records")?;
    if len == 0 {
        return Err(Malformed::new(Reason::OutOfDomain, "an array of 1 to 256 records"));
    }
    let mut base = Base::default();
    // Each record costs at least two bytes, so this reserve is bounded by what was sent.
    let mut readings = Vec::with_capacity(len.min(bytes.len() / 2));
    for _ in 0..len {
        readings.push(record(&mut d, &mut base)?);
    }
    at_end(&d)?;
    Ok(readings)
}

#[derive(Default)]
struct Base<'b> {
    name: &'b str,
    time_s: Seconds,
    unit: Option<&'b str>,
}

/// Seconds as they were written: an integer is kept apart, so that a sum of whole seconds and a fraction loses nothing.
#[derive(Clone, Copy, Default)]
struct Seconds {
    whole: i64,
    fraction: f64,
}

#[derive(Default)]
struct Fields<'b> {
    name: Option<&'b str>,
    unit: Option<&'b str>,
    time: Option<Seconds>,
    value: Option<Value>,
    seen: u16,
}

fn record<'b>(d: &mut Decoder<'b>, base: &mut Base<'b>) -> Result<Reading, Malformed> {
    const EXPECTED: &str = "a SenML record: a map of integer labels (RFC 8428 §6)";
    let labels = match expect(d.map(), EXPECTED)? {
        Some(n) if n <= 16 => n,
        Some(_) => {
            return Err(Malformed::new(Reason::Oversize, "a SenML record of at most 16 labels"));
        }
        None => return Err(Malformed::new(Reason::BrokenCbor, EXPECTED)),
    };
    let mut fields = Fields::default();
    for _ in 0..labels {
        if expect(d.datatype(), EXPECTED)? == Type::String {
            // §4.4: a label that ends in "_" must be understood; any other unknown label may be skipped.
            if expect(d.str(), EXPECTED)?.ends_with('_') {
                return Err(Malformed::new(
                    Reason::UnknownKind,
                    "no label that must be understood",
                ));
            }
            skip_scalar(d)?;
            continue;
        }
        let label = expect(d.i32(), EXPECTED)?;
        field(d, label, base, &mut fields)?;
    }
    complete(base, fields)
}

fn field<'b>(
    d: &mut Decoder<'b>,
    label: i32,
    base: &mut Base<'b>,
    fields: &mut Fields<'b>,
) -> Result<(), Malformed> {
    // RFC 8428 §4.3: a label may appear once in a record. The known ones lie between -6 and 9.
    if (-6..=9).contains(&label) {
        let bit = 1 << (label + 6);
        if fields.seen & bit != 0 {
            return Err(Malformed::new(Reason::BrokenCbor, "each label once in a record"));
        }
        fields.seen |= bit;
    }
    match label {
        BN => base.name = expect(d.str(), "a base name (text)")?,
        BT => base.time_s = seconds(d)?,
        BU => base.unit = Some(expect(d.str(), "a base unit (text)")?),
        N => fields.name = Some(expect(d.str(), "a name (text)")?),
        U => fields.unit = Some(expect(d.str(), "a unit (text)")?),
        T => fields.time = Some(seconds(d)?),
        V => one_value(fields, number(d)?)?,
        VS => {
            let text = expect(d.str(), "a text value")?;
            if text.len() > TEXT_BYTES_MAX {
                return Err(Malformed::new(
                    Reason::Oversize,
                    "a text value of at most 1,024 bytes",
                ));
            }
            one_value(fields, Value::Text(String::from(text)))?;
        }
        VB => one_value(fields, Value::Bool(expect(d.bool(), "a boolean value")?))?,
        -1 if expect(d.u64(), "a SenML version")? == 10 => {}
        _ => {
            return Err(Malformed::new(
                Reason::UnknownKind,
                "labels bn bt bu n u v vs vb t of SenML version 10",
            ));
        }
    }
    Ok(())
}

fn one_value(fields: &mut Fields<'_>, value: Value) -> Result<(), Malformed> {
    match fields.value.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed::new(Reason::BrokenCbor, "one value in a record")),
    }
}

fn number(d: &mut Decoder<'_>) -> Result<Value, Malformed> {
    const EXPECTED: &str = "a number: an integer of 64 bits or a finite float";
    match expect(d.datatype(), EXPECTED)? {
        Type::F16 | Type::F32 | Type::F64 => match expect(d.f64(), EXPECTED)? {
            v if v.is_finite() => Ok(Value::Float(v)),
            _ => Err(Malformed::new(Reason::OutOfDomain, EXPECTED)),
        },
        _ => Ok(Value::Int(expect(d.i64(), EXPECTED)?)),
    }
}

fn seconds(d: &mut Decoder<'_>) -> Result<Seconds, Malformed> {
    match number(d)? {
        Value::Int(whole) => Ok(Seconds { whole, fraction: 0.0 }),
        Value::Float(fraction) => Ok(Seconds { whole: 0, fraction }),
        _ => Err(Malformed::new(Reason::BrokenCbor, "a time in seconds")),
    }
}

fn skip_scalar(d: &mut Decoder<'_>) -> Result<(), Malformed> {
    const EXPECTED: &str = "a text, number or boolean behind an unknown label";
    match expect(d.datatype(), EXPECTED)? {
        Type::Array | Type::ArrayIndef | Type::Map | Type::MapIndef | Type::Tag => {
            Err(Malformed::new(Reason::BrokenCbor, EXPECTED))
        }
        _ => expect(d.skip(), EXPECTED),
    }
}

fn complete(base: &Base<'_>, fields: Fields<'_>) -> Result<Reading, Malformed> {
    const NAME: &str = "a series name of 1 to 128 characters (RFC 8428 §4.5.1)";
    const UNIT: &str = "a unit of 1 to 32 printable ASCII characters";
    let own = fields.name.unwrap_or("");
    if base.name.len() + own.len() > 128 {
        return Err(Malformed::new(Reason::Oversize, NAME));
    }
    let mut name = String::with_capacity(base.name.len() + own.len());
    name.push_str(base.name);
    name.push_str(own);
    let series = SeriesName::new(name).map_err(|_| Malformed::new(Reason::OutOfDomain, NAME))?;
    let unit = match fields.unit.or(base.unit) {
        Some(text) if text.len() > 32 => return Err(Malformed::new(Reason::Oversize, UNIT)),
        Some(text) => Some(Unit::new(text).map_err(|_| Malformed::new(Reason::OutOfDomain, UNIT))?),
        None => None,
    };
    let value = fields
        .value
        .ok_or(Malformed::new(Reason::BrokenCbor, "a value (v, vs or vb) in every record"))?;
    let time = absolute(base.time_s, fields.time.unwrap_or_default())?;
    Ok(Reading { time, series, value, unit })
}

fn absolute(base: Seconds, own: Seconds) -> Result<Timestamp, Malformed> {
    const EXPECTED: &str = "an absolute time: 2^28 s after 1970 or later, before the year 10000";
    // No fraction beyond this can be part of a time in range, and below it the product fits.
    const FRACTION_S_MAX: f64 = 1e12;
    let fraction_s = base.fraction + own.fraction;
    if fraction_s.abs() > FRACTION_S_MAX {
        return Err(Malformed::new(Reason::OutOfDomain, EXPECTED));
    }
    base.whole
        .checked_add(own.whole)
        .and_then(|whole_s| whole_s.checked_mul(1_000_000))
        .and_then(|whole_us| whole_us.checked_add(round(fraction_s * 1e6)))
        .filter(|us| (EARLIEST_US..=LATEST_US).contains(us))
        .map(Timestamp)
        .ok_or(Malformed::new(Reason::OutOfDomain, EXPECTED))
}

/// Half away from zero; `f64::round` is not in `core` for all targets.
fn round(v: f64) -> i64 {
    if v < 0.0 { (v - 0.5) as i64 } else { (v + 0.5) as i64 }
}

#[cfg(test)]
mod tests;
