//! What an application says: lines on its standard output, of which SenML packs in JSON (RFC 8428 §4, §5) are readings.
//!
//! ```text
//! [{"bn":"pump/","n":"flow","u":"m3/h","v":12.4},{"n":"open","vb":true},{"n":"mode","vs":"auto","t":-5}]
//! ```
//!
//! A line is one pack of 1 to 256 records and at most 32 KiB. Base fields `bn`, `bt` and `bu` hold until they are set again
//! (§4.1). A time below 2^28 s is relative to now (§4.5.3), and none at all is now: unlike in what is kept, here "now" is known.
//! A number without a fraction or an exponent is an integer, as `v` is in CBOR. Every series gets the prefix `app/`.
//! Sums (`s`), data values (`vd`), base values and update times are refused, and unknown labels that must be understood
//! (INV-MIX-1). What the agent says of an application itself (`app/rss`, `app/cpu`, `app/release`) the application cannot say:
//! a gate that asks for it would ask the accused.

use crate::clock::{ABSOLUTE_FROM, CEILING, Stamp};
use model::senml::{RECORDS_MAX, TEXT_BYTES_MAX};
use model::{Reading, SeriesName, Timestamp, Unit, Value};
use serde_json::{Map, Value as Json};

/// The longest line that is looked at.
pub const LINE_BYTES_MAX: usize = 32 * 1024;

/// The application's names are put under this one.
pub const PREFIX: &str = "app/";
/// Bytes of memory that the application's process holds (unit B).
pub const RSS: &str = "app/rss";
/// The share of one processor that it took (unit /).
pub const CPU: &str = "app/cpu";
/// The version that runs.
pub const RELEASE: &str = "app/release";

/// Why a line that begins as a pack is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPack {
    #[error("expected an array of SenML records in JSON")]
    NotJson,
    #[error("expected 1 to {RECORDS_MAX} records, found {0}")]
    Records(usize),
    #[error("expected a record as a JSON object")]
    NotARecord,
    #[error("expected `{label}` to be {expected}")]
    Label { label: &'static str, expected: &'static str },
    #[error("a label that must be understood and is not: `{0}`")]
    Unknown(String),
    #[error("expected one of `v`, `vb` and `vs` in a record")]
    NoValue,
    #[error("expected a series name of at most 128 characters with its prefix, found `{0}`")]
    Name(String),
    #[error("`{0}` is a name under which the agent alone speaks")]
    Reserved(String),
    #[error("expected a time before the year 10000")]
    Time,
}

/// Reads a line as a pack. None: it does not begin as one, it is text for people.
pub fn readings(line: &str, now: &Stamp) -> Option<Result<Vec<Reading>, NotAPack>> {
    line.trim_start().starts_with('[').then(|| pack(line, now))
}

fn pack(line: &str, now: &Stamp) -> Result<Vec<Reading>, NotAPack> {
    let records: Vec<Json> = serde_json::from_str(line).map_err(|_| NotAPack::NotJson)?;
    if records.is_empty() || records.len() > RECORDS_MAX {
        return Err(NotAPack::Records(records.len()));
    }
    let mut base = Base::default();
    records
        .iter()
        .map(|record| base.record(record.as_object().ok_or(NotAPack::NotARecord)?, now))
        .collect()
}

#[derive(Default)]
struct Base {
    name: String,
    time_s: f64,
    unit: Option<String>,
}

impl Base {
    fn record(&mut self, record: &Map<String, Json>, now: &Stamp) -> Result<Reading, NotAPack> {
        let (mut name, mut unit, mut time_s, mut value) = ("", None, 0.0, None);
        for (label, json) in record {
            let mut one_value = |found| match value.replace(found) {
                None => Ok(()),
                Some(_) => Err(NotAPack::NoValue),
            };
            match label.as_str() {
                "bn" => self.name = text(json, "bn")?.to_owned(),
                "bt" => self.time_s = seconds(json, "bt")?,
                "bu" => self.unit = Some(text(json, "bu")?.to_owned()),
                "n" => name = text(json, "n")?,
                "u" => unit = Some(text(json, "u")?),
                "t" => time_s = seconds(json, "t")?,
                "v" => one_value(number(json)?)?,
                "vb" => one_value(Value::Bool(json.as_bool().ok_or(VB)?))?,
                "vs" => match text(json, "vs")? {
                    text if text.len() <= TEXT_BYTES_MAX => one_value(Value::Text(text.into()))?,
                    _ => return Err(VS),
                },
                "bver" if json.as_u64() == Some(10) => {}
                "bver" | "bv" | "bs" | "s" | "vd" | "ut" => {
                    return Err(NotAPack::Unknown(label.clone()));
                }
                _ if label.ends_with('_') => {
                    return Err(NotAPack::Unknown(label.chars().take(40).collect()));
                }
                _ => {}
            }
        }
        let value = value.ok_or(NotAPack::NoValue)?;
        let unit = match unit.or(self.unit.as_deref()) {
            Some(unit) => Some(Unit::new(unit).map_err(|_| U)?),
            None => None,
        };
        let series = self.series(name)?;
        let time = time(self.time_s + time_s, now)?;
        Ok(Reading { time, series, value, unit })
    }

    fn series(&self, own: &str) -> Result<SeriesName, NotAPack> {
        let name = format!("{}{own}", self.name);
        let shown = || name.chars().take(80).collect();
        // RFC 8428 §4.5.1 rules the application's own name: behind the prefix more would pass than may stand alone.
        if SeriesName::new(name.as_str()).is_err() {
            return Err(NotAPack::Name(shown()));
        }
        let series = format!("{PREFIX}{name}");
        if [RSS, CPU, RELEASE].contains(&series.as_str()) {
            return Err(NotAPack::Reserved(series));
        }
        SeriesName::new(series).map_err(|_| NotAPack::Name(shown()))
    }
}

const VB: NotAPack = NotAPack::Label { label: "vb", expected: "true or false" };
const VS: NotAPack = NotAPack::Label { label: "vs", expected: "a text of at most 1,024 bytes" };
const U: NotAPack = NotAPack::Label { label: "u", expected: "1 to 32 printable characters" };

fn text<'a>(json: &'a Json, label: &'static str) -> Result<&'a str, NotAPack> {
    json.as_str().ok_or(NotAPack::Label { label, expected: "a text" })
}

fn number(json: &Json) -> Result<Value, NotAPack> {
    let wrong = NotAPack::Label { label: "v", expected: "a finite number" };
    match (json.as_i64(), json.as_f64()) {
        (Some(int), _) => Ok(Value::Int(int)),
        (None, Some(float)) if float.is_finite() => Ok(Value::Float(float)),
        _ => Err(wrong),
    }
}

fn seconds(json: &Json, label: &'static str) -> Result<f64, NotAPack> {
    let wrong = NotAPack::Label { label, expected: "a time in seconds" };
    json.as_f64().filter(|s| s.is_finite()).ok_or(wrong)
}

fn time(seconds: f64, now: &Stamp) -> Result<Timestamp, NotAPack> {
    // The conversion saturates, so that what is far out of range is so in microseconds too.
    let us = (seconds * 1e6).round() as i64;
    let us = if us < ABSOLUTE_FROM.as_us() { now.wall.as_us().saturating_add(us) } else { us };
    let time = Timestamp(us);
    if (ABSOLUTE_FROM..=CEILING).contains(&time) { Ok(time) } else { Err(NotAPack::Time) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FLOOR;

    const NOW: Stamp = Stamp { uptime_ms: 5, wall: FLOOR, uncertainty_ms: 0 };

    fn read(line: &str) -> Result<Vec<Reading>, NotAPack> {
        readings(line, &NOW).expect("it begins as a pack")
    }

    fn reading(series: &str, unit: Option<&str>, value: Value, after_us: i64) -> Reading {
        Reading {
            time: Timestamp(FLOOR.as_us() + after_us),
            series: SeriesName::new(series).unwrap(),
            value,
            unit: unit.map(|unit| Unit::new(unit).unwrap()),
        }
    }

    #[test]
    fn a_line_that_is_a_pack_becomes_readings_under_app_with_their_types() {
        let line = r#" [{"bn":"pump/","bu":"m3/h","n":"flow","v":12.5},
            {"n":"starts","u":"count","v":12},{"n":"open","vb":true,"t":-1.5},{"n":"mode","vs":"auto","x":[1]}]"#;
        let expected = [
            reading("app/pump/flow", Some("m3/h"), Value::Float(12.5), 0),
            reading("app/pump/starts", Some("count"), Value::Int(12), 0),
            reading("app/pump/open", Some("m3/h"), Value::Bool(true), -1_500_000),
            reading("app/pump/mode", Some("m3/h"), Value::Text("auto".into()), 0),
        ];
        assert_eq!(read(&line.replace('\n', "")).unwrap(), expected);
    }

    #[test]
    fn a_time_is_the_applications_own_if_it_is_absolute_and_from_now_on_if_not() {
        for (fields, after_us) in [
            ("", 0),
            (r#","t":0"#, 0),
            (r#","t":-2"#, -2_000_000),
            (r#","t":1793491201.25"#, 1_250_000),
            (r#","bt":1793491200,"t":3"#, 3_000_000),
        ] {
            let read = read(&format!(r#"[{{"n":"a","v":1{fields}}}]"#)).unwrap();
            assert_eq!(read, [reading("app/a", None, Value::Int(1), after_us)], "{fields}");
        }
    }

    #[test]
    fn what_is_not_a_pack_is_text_and_not_an_error() {
        for line in ["", "started", "{\"n\":\"a\",\"v\":1}", "12", "  pump 7: [ok]"] {
            assert_eq!(readings(line, &NOW), None, "{line:?}");
        }
    }

    #[test]
    fn a_pack_with_one_thing_wrong_is_refused_for_that() {
        use NotAPack::*;
        let label = |label, expected| Label { label, expected };
        assert!(read(r#"[{"n":"a","u":"V","v":1}]"#).is_ok());
        let table = [
            (r#"[{"n":"a","u":"V","v":1}"#, NotJson),
            (r#"[{"n":"a","u":"V","v":1}] x"#, NotJson),
            (r#"[{"n":"a","u":"V","v":NaN}]"#, NotJson),
            ("[]", Records(0)),
            ("[1]", NotARecord),
            (r#"[{"n":"a","u":"V"}]"#, NoValue),
            (r#"[{"n":"a","u":"V","v":1,"vb":true}]"#, NoValue),
            (r#"[{"n":"a","u":"V","v":"1"}]"#, label("v", "a finite number")),
            (r#"[{"n":"a","u":"","v":1}]"#, U),
            (r#"[{"n":"a","u":"V","vb":1}]"#, VB),
            (r#"[{"n":7,"u":"V","v":1}]"#, label("n", "a text")),
            (r#"[{"n":"a","t":"now","v":1}]"#, label("t", "a time in seconds")),
            (r#"[{"n":"a","t":1e300,"v":1}]"#, Time),
            (r#"[{"n":"a","t":-1e300,"v":1}]"#, Time),
            (r#"[{"n":"a b","u":"V","v":1}]"#, Name("a b".into())),
            (r#"[{"n":"/a","u":"V","v":1}]"#, Name("/a".into())),
            (r#"[{"u":"V","v":1}]"#, Name("".into())),
            (r#"[{"n":"a","u":"V","v":1,"s":2}]"#, Unknown("s".into())),
            (r#"[{"n":"a","bver":11,"v":1}]"#, Unknown("bver".into())),
            (r#"[{"n":"a","must_":1,"v":1}]"#, Unknown("must_".into())),
            (r#"[{"n":"rss","u":"B","v":1}]"#, Reserved(RSS.into())),
            (r#"[{"bn":"rele","n":"ase","vs":"9.9.9"}]"#, Reserved(RELEASE.into())),
        ];
        for (line, why) in table {
            assert_eq!(read(line), Err(why), "{line}");
        }
        let many = vec![r#"{"n":"a","v":1}"#; RECORDS_MAX + 1].join(",");
        assert_eq!(read(&format!("[{many}]")), Err(Records(257)));
        let (long, text) = ("n".repeat(125), "x".repeat(TEXT_BYTES_MAX + 1));
        assert!(matches!(read(&format!(r#"[{{"n":"{long}","v":1}}]"#)), Err(Name(_))));
        assert_eq!(read(&format!(r#"[{{"n":"a","vs":"{text}"}}]"#)), Err(VS));
        assert!(read(&"[".repeat(LINE_BYTES_MAX)).is_err());
    }
}
