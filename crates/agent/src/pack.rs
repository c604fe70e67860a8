//! Gathers readings into packs. Pure: the time is an argument.
//!
//! A pack closes at one second after its first reading came, at 256 records, or before it would grow past 32 KiB,
//! whichever is first. Each record is reckoned at the most bytes that it can take (see [`record_bytes_max`]), so a pack
//! is never longer than its bound and at most a few bytes a record shorter than it might be.

use crate::position::Position;
use model::senml::{PACK_BYTES_MAX, RECORDS_MAX, TEXT_BYTES_MAX};
use model::{Reading, Value};

/// How long a reading waits for company.
pub const OPEN_MS_MAX: u64 = 1_000;

/// The CBOR head of the array of records: at most 256 of them.
const ARRAY_BYTES: usize = 3;

/// A reading on its way into a pack.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub reading: Reading,
    /// For a replayed reading: where the recording goes on once this one is durable.
    pub next: Option<Position>,
}

/// A pack that waits to be closed.
#[derive(Debug, Default)]
pub struct Pack {
    readings: Vec<Reading>,
    bytes: usize,
    opened_ms: u64,
    next: Option<Position>,
}

/// Why a pack was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its first reading has waited for a second.
    Time,
    /// It holds 256 records.
    Records,
    /// The next reading would not have fitted.
    Bytes,
    /// It was asked to: the agent stops, or changes its key.
    Asked,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// Between 1 and 256.
    pub readings: Vec<Reading>,
    /// Where the recording goes on once this pack is durable, if any of it was replayed.
    pub next: Option<Position>,
    pub why: Why,
}

/// A reading that no pack can carry: SenML has no word for it. Sources look out for it; the pack is the last to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("expected a finite number")]
    NotFinite,
    #[error("expected a text of at most {TEXT_BYTES_MAX} bytes, found {0}")]
    LongText(usize),
}

impl Pack {
    /// Adds a reading. Returns the pack that this closed, if it did: with the reading when that filled it, or without
    /// it when there was no room.
    pub fn add(&mut self, sample: Sample, uptime_ms: u64) -> Result<Option<Closed>, Unfit> {
        fit(&sample.reading.value)?;
        let bytes = record_bytes_max(&sample.reading);
        let mut closed = None;
        if ARRAY_BYTES + self.bytes + bytes > PACK_BYTES_MAX {
            closed = self.close(Why::Bytes);
        }
        if self.readings.is_empty() {
            self.opened_ms = uptime_ms;
        }
        self.bytes += bytes;
        self.readings.push(sample.reading);
        self.next = sample.next.or(self.next);
        if self.readings.len() == RECORDS_MAX {
            // A pack that was just opened holds one record, so no second pack can have closed in this call.
            closed = self.close(Why::Records);
        }
        Ok(closed)
    }

    /// Closes the pack if its second is over.
    pub fn on_time(&mut self, uptime_ms: u64) -> Option<Closed> {
        if self.deadline_ms().is_some_and(|deadline| uptime_ms >= deadline) {
            self.close(Why::Time)
        } else {
            None
        }
    }

    /// When to call [`Pack::on_time`], as uptime. `None`: the pack is empty.
    pub fn deadline_ms(&self) -> Option<u64> {
        (!self.readings.is_empty()).then_some(self.opened_ms + OPEN_MS_MAX)
    }

    /// Closes the pack now, if there is anything in it.
    pub fn close(&mut self, why: Why) -> Option<Closed> {
        if self.readings.is_empty() {
            return None;
        }
        let Self { readings, next, .. } = std::mem::take(self);
        Some(Closed { readings, next, why })
    }
}

fn fit(value: &Value) -> Result<(), Unfit> {
    match value {
        Value::Float(v) if !v.is_finite() => Err(Unfit::NotFinite),
        Value::Text(text) if text.len() > TEXT_BYTES_MAX => Err(Unfit::LongText(text.len())),
        _ => Ok(()),
    }
}

/// The most bytes that a reading can take in a pack: every integer at its widest, with a base time.
fn record_bytes_max(reading: &Reading) -> usize {
    const MAP: usize = 1;
    const LABEL: usize = 1;
    const NUMBER: usize = 9;
    const TEXT_HEAD: usize = 3;
    let value = match &reading.value {
        Value::Float(_) | Value::Int(_) => NUMBER,
        Value::Bool(_) => 1,
        Value::Text(text) => TEXT_HEAD + text.len(),
    };
    let unit = reading.unit.as_ref().map_or(0, |u| LABEL + TEXT_HEAD + u.as_str().len());
    let times = 2 * (LABEL + NUMBER);
    MAP + times + LABEL + TEXT_HEAD + reading.series.as_str().len() + unit + LABEL + value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FLOOR;
    use model::{SeriesName, Timestamp, Unit, senml};

    fn reading(value: Value) -> Reading {
        Reading {
            time: FLOOR,
            series: SeriesName::new("a/b").unwrap(),
            value,
            unit: Some(Unit::new("Cel").unwrap()),
        }
    }

    fn sample(value: Value) -> Sample {
        Sample { reading: reading(value), next: None }
    }

    #[test]
    fn a_pack_closes_a_second_after_its_first_reading() {
        let mut pack = Pack::default();
        assert_eq!(pack.deadline_ms(), None);
        assert_eq!(pack.add(sample(Value::Int(1)), 100).unwrap(), None);
        assert_eq!(pack.add(sample(Value::Int(2)), 900).unwrap(), None);
        assert_eq!(pack.deadline_ms(), Some(1_100));
        assert_eq!(pack.on_time(1_099), None);
        let closed = pack.on_time(1_100).unwrap();
        assert_eq!((closed.readings.len(), closed.why), (2, Why::Time));
        assert_eq!(pack.on_time(9_000), None);
    }

    #[test]
    fn a_pack_closes_at_256_records() {
        let mut pack = Pack::default();
        for i in 0..255 {
            assert_eq!(pack.add(sample(Value::Int(i)), 0).unwrap(), None);
        }
        let closed = pack.add(sample(Value::Int(255)), 0).unwrap().unwrap();
        assert_eq!((closed.readings.len(), closed.why), (256, Why::Records));
        assert_eq!(pack.close(Why::Asked), None);
    }

    #[test]
    fn a_pack_never_passes_32_kib_and_loses_no_reading_to_its_bound() {
        let mut pack = Pack::default();
        let mut closed = Vec::new();
        let long = "x".repeat(TEXT_BYTES_MAX);
        for i in 0..100 {
            let text = long[..TEXT_BYTES_MAX - i].to_owned();
            closed.extend(pack.add(sample(Value::Text(text)), 0).unwrap());
        }
        closed.extend(pack.close(Why::Asked));
        assert_eq!(closed.iter().map(|c| c.readings.len()).sum::<usize>(), 100);
        for c in &closed[..closed.len() - 1] {
            assert_eq!(c.why, Why::Bytes);
            let bytes = senml::encode(&c.readings);
            assert!(bytes.len() <= PACK_BYTES_MAX && bytes.len() > PACK_BYTES_MAX - 2_048);
            assert_eq!(senml::decode(&bytes).unwrap(), c.readings);
        }
    }

    #[test]
    fn no_record_takes_more_than_it_is_reckoned_at() {
        let values = [
            Value::Float(1.5e300),
            Value::Int(i64::MIN),
            Value::Bool(true),
            Value::Text("é".into()),
        ];
        for value in values {
            for (time, unit) in [(FLOOR, None), (Timestamp(FLOOR.as_us() + 1), Unit::new("m").ok())]
            {
                let one = Reading { time, unit, ..reading(value.clone()) };
                assert!(
                    senml::encode(std::slice::from_ref(&one)).len()
                        <= ARRAY_BYTES + record_bytes_max(&one)
                );
            }
        }
    }

    #[test]
    fn a_value_that_senml_cannot_carry_is_refused_and_the_pack_stays() {
        let mut pack = Pack::default();
        pack.add(sample(Value::Int(1)), 0).unwrap();
        assert_eq!(pack.add(sample(Value::Float(f64::NAN)), 0), Err(Unfit::NotFinite));
        assert_eq!(pack.add(sample(Value::Text("x".repeat(1025))), 0), Err(Unfit::LongText(1025)));
        assert_eq!(pack.close(Why::Asked).unwrap().readings.len(), 1);
    }

    #[test]
    fn a_pack_knows_where_the_recording_goes_on_after_its_last_replayed_reading() {
        let at = |row| Position { row, ..Position::default() };
        let mut pack = Pack::default();
        pack.add(Sample { next: Some(at(1)), ..sample(Value::Int(1)) }, 0).unwrap();
        pack.add(Sample { next: Some(at(2)), ..sample(Value::Int(1)) }, 0).unwrap();
        pack.add(sample(Value::Int(1)), 0).unwrap();
        assert_eq!(pack.close(Why::Asked).unwrap().next, Some(at(2)));
        pack.add(sample(Value::Int(1)), 0).unwrap();
        assert_eq!(pack.close(Why::Asked).unwrap().next, None);
    }
}
