//! A recording, replayed: any numeric CSV with a time column.
//!
//! * **Fields** are separated by `,` `;` or a tab, whichever the first line has most of. The first line names the columns.
//! * **Time** is the column named `time`, `timestamp`, `date`, `datetime` or `ts`, or else the first whose first cell reads
//!   as a time: RFC 3339, `YYYY-MM-DD HH:MM:SS[.f]` (taken as UTC), `YYYY-MM-DD`, or seconds, milliseconds,
//!   microseconds or nanoseconds since 1970, which the first row's size tells apart for the whole file.
//! * **Series** are the other columns whose cells read as numbers or as `true` and `false`, judged by the first 1,000
//!   rows; the rest are left out, and said so. The header's text is the name, and what stands in `[]` or `()` at its end
//!   the unit. A column of whole numbers stays whole; a cell of it that is not is a float by itself.
//! * **Empty** cells (also `NaN`, `NA`, `N/A`, `null`, `none`, `-`) are skipped.
//! * **Bad** rows (another number of fields, a time that does not read or lies outside 1978-07-04 to 9999) are left out
//!   whole, bad cells by themselves; both are counted, and the first 20 and then each power of two are told with their line.
//!
//! The place to go on stands with what was sealed (see [`crate::position`]), so a row is replayed once whatever happens.
//! Another recording under the same name (another header or first row) starts at its top.

mod play;

pub use play::{AsOf, Play};

use super::series_name;
use crate::clock::{ABSOLUTE_FROM, CEILING};
use crate::position::Position;
use csv::ByteRecord;
use jiff::civil;
use model::{SeriesName, Timestamp, Unit, Value};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How many rows tell what a column holds.
const JUDGED_ROWS: usize = 1_000;
/// The longest line: 10,000 columns of 100 characters.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// The most series of one recording.
pub const COLUMNS_MAX: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("cannot read the recording `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot read the recording `{path}` as CSV")]
    Csv { path: PathBuf, source: csv::Error },
    #[error("the recording `{path}` has no rows: expected a line of names and a row at least")]
    Empty { path: PathBuf },
    #[error("the recording `{path}` has no line of names: its first line holds `{found}`")]
    NoHeader { path: PathBuf, found: String },
    #[error(
        "the recording `{path}` has no time column: expected one named time, timestamp, date, datetime or ts, or one whose first cell reads as a time"
    )]
    NoTime { path: PathBuf },
    #[error(
        "column `{column}` of the recording `{path}` is named as a time and its first cell is none: found `{found}`"
    )]
    BadTime { path: PathBuf, column: String, found: String },
    #[error("the recording `{path}` has no column of numbers beside its time")]
    NoSeries { path: PathBuf },
    #[error("the recording `{path}` has {found} columns, expected at most {COLUMNS_MAX}")]
    TooManyColumns { path: PathBuf, found: usize },
}

/// What is wrong with a row or a cell. The row is left out, or the cell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    #[error("expected {expected} fields, found {found}")]
    Fields { expected: usize, found: usize },
    #[error("expected a time, found `{found}`")]
    Time { found: String },
    #[error("expected a time from 1978-07-04 to 9999, found `{found}`")]
    TimeOutside { found: String },
    #[error("column `{column}`: expected a {expected}, found `{found}`")]
    Cell { column: String, expected: &'static str, found: String },
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Int,
    Float,
    Bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub series: SeriesName,
    pub unit: Option<Unit>,
    pub holds: Holds,
    /// Its place in a row.
    index: usize,
}

/// How the times of a recording are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimeFormat {
    /// RFC 3339, or a date and time without a zone, or a date.
    Text,
    /// Since 1970, so many of them in a second.
    Epoch { per_second: u32 },
}

/// A recording that was looked at, and what its columns are.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    delimiter: u8,
    fields: usize,
    time_index: usize,
    time_format: TimeFormat,
    columns: Vec<Column>,
    left_out: Vec<String>,
    fingerprint: u64,
    first_row: Position,
}

impl Recording {
    /// Looks at the header and the first rows.
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        let delimiter = delimiter(path)?;
        let mut reader = reader(path, delimiter)?;
        let csv = |source| ReplayError::Csv { path: path.to_owned(), source };
        let header = reader.byte_headers().map_err(csv)?.clone();
        let names: Vec<String> = header.iter().map(text).collect();
        if names.len() > COLUMNS_MAX {
            return Err(ReplayError::TooManyColumns { path: path.into(), found: names.len() });
        }
        let is_value = |name: &&String| parse_text(name).is_some() || parse_float(name).is_some();
        if let Some(found) = names.iter().find(is_value) {
            return Err(ReplayError::NoHeader { path: path.into(), found: found.clone() });
        }
        let first = reader.position().clone();
        let mut rows = Vec::new();
        let mut row = ByteRecord::new();
        while rows.len() < JUDGED_ROWS && reader.read_byte_record(&mut row).map_err(csv)? {
            rows.push(row.clone());
        }
        let Some(top) = rows.iter().find(|row| row.len() == names.len()) else {
            return Err(ReplayError::Empty { path: path.into() });
        };
        let (time_index, time_format) = time_column(path, &names, top)?;
        let mut columns = Vec::new();
        let mut left_out = Vec::new();
        let mut taken = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            if index == time_index {
                continue;
            }
            match judge(rows.iter().filter_map(|row| row.get(index))) {
                Some(holds) => {
                    let (series, unit) = series(name, index, &mut taken);
                    columns.push(Column { series, unit, holds, index });
                }
                None => left_out.push(name.clone()),
            }
        }
        if columns.is_empty() {
            return Err(ReplayError::NoSeries { path: path.into() });
        }
        let fingerprint = fingerprint(&header, top);
        Ok(Self {
            path: path.to_owned(),
            delimiter,
            fields: names.len(),
            time_index,
            time_format,
            columns,
            left_out,
            fingerprint,
            first_row: position_of(fingerprint, 0, &first),
        })
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Columns that hold something else than numbers.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Where to go on, given what was durable: at the top if that was another recording.
    pub fn start(&self, durable: Option<Position>) -> Position {
        durable.filter(|p| p.recording == self.fingerprint).unwrap_or(self.first_row)
    }

    /// The top of the recording in its next lap.
    pub fn again(&self, lap: u32) -> Position {
        Position { lap, ..self.first_row }
    }

    /// The rows from a position of this recording on.
    pub fn rows(&self, from: Position) -> Result<Rows<'_>, ReplayError> {
        let mut reader = reader(&self.path, self.delimiter)?;
        let csv = |source| ReplayError::Csv { path: self.path.clone(), source };
        // The header must be read before seeking, or the first row behind would be taken for it.
        reader.byte_headers().map_err(csv)?;
        let mut place = csv::Position::new();
        place.set_byte(from.byte).set_line(from.line).set_record(from.row);
        reader.seek(place).map_err(csv)?;
        Ok(Rows { recording: self, reader, record: ByteRecord::new(), at: from })
    }

    fn row(&self, record: &ByteRecord) -> Result<(Timestamp, Vec<Cell>, Vec<Bad>), Bad> {
        if record.len() != self.fields {
            return Err(Bad::Fields { expected: self.fields, found: record.len() });
        }
        let time = text(&record[self.time_index]);
        let time = match parse_time(&time, self.time_format) {
            Some(at) if (ABSOLUTE_FROM..=CEILING).contains(&at) => at,
            Some(_) => return Err(Bad::TimeOutside { found: shown(&time) }),
            None => return Err(Bad::Time { found: shown(&time) }),
        };
        let mut cells = Vec::with_capacity(self.columns.len());
        let mut bad = Vec::new();
        for (number, column) in self.columns.iter().enumerate() {
            match parse_cell(&record[column.index], column) {
                Ok(Some(value)) => cells.push(Cell { column: number as u32, value }),
                Ok(None) => {}
                Err(e) => bad.push(e),
            }
        }
        Ok((time, cells, bad))
    }
}

/// A value of a row, and the number of its column.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub column: u32,
    pub value: Value,
}

/// A row, or what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The line that it starts at, from 1.
    pub line: u64,
    pub time: Option<Timestamp>,
    /// What is in it, from the column on at which it was to go on.
    pub cells: Vec<Cell>,
    pub bad: Vec<Bad>,
    /// Where this row starts, and where the next one does.
    pub at: Position,
    pub next: Position,
}

impl Row {
    /// Where the recording goes on after the cell with this number in `cells`.
    pub fn after(&self, cell: usize) -> Position {
        match self.cells.get(cell + 1) {
            Some(next) => Position { column: next.column, ..self.at },
            None => self.next,
        }
    }
}

/// Rows in the order of the file.
#[derive(Debug)]
pub struct Rows<'a> {
    recording: &'a Recording,
    reader: csv::Reader<Lines<File>>,
    record: ByteRecord,
    at: Position,
}

impl Rows<'_> {
    /// The next row; `None` at the end of the recording.
    pub fn next_row(&mut self) -> Result<Option<Row>, ReplayError> {
        let at = self.at;
        let csv = |source| ReplayError::Csv { path: self.recording.path.clone(), source };
        loop {
            if !self.reader.read_byte_record(&mut self.record).map_err(csv)? {
                return Ok(None);
            }
            // An empty line that ends in `\r\n`.
            let is_blank = self.record.len() == 1 && self.record[0].trim_ascii().is_empty();
            if !is_blank {
                break;
            }
        }
        let next = position_of(at.recording, at.lap, self.reader.position());
        self.at = next;
        let line = self.record.position().map_or(at.line, csv::Position::line);
        let row = match self.recording.row(&self.record) {
            Ok((time, mut cells, bad)) => {
                cells.retain(|cell| cell.column >= at.column);
                Row { line, time: Some(time), cells, bad, at, next }
            }
            Err(bad) => Row { line, time: None, cells: vec![], bad: vec![bad], at, next },
        };
        Ok(Some(row))
    }

    /// Where the next row starts.
    pub fn position(&self) -> Position {
        self.at
    }
}

fn position_of(recording: u64, lap: u32, place: &csv::Position) -> Position {
    let (byte, line, row) = (place.byte(), place.line(), place.record());
    Position { recording, lap, byte, line, row, column: 0 }
}

fn delimiter(path: &Path) -> Result<u8, ReplayError> {
    let read = |source| ReplayError::Read { path: path.to_owned(), source };
    let mut start = Vec::new();
    File::open(path)
        .map_err(read)?
        .take(LINE_BYTES_MAX as u64)
        .read_to_end(&mut start)
        .map_err(read)?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: u8| line.iter().filter(|byte| **byte == delimiter).count();
    // Of equals the last one is taken, so the comma stands last.
    Ok([b'\t', b';', b','].into_iter().max_by_key(|d| count(*d)).expect("there are three"))
}

fn reader(path: &Path, delimiter: u8) -> Result<csv::Reader<Lines<File>>, ReplayError> {
    let read = |source| ReplayError::Read { path: path.to_owned(), source };
    let lines = Lines { inner: File::open(path).map_err(read)?, line_bytes: 0 };
    // Lines end at `\n`, and a `\r` before it is trimmed with the cell: the reader would count lines wrong by itself.
    Ok(csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .terminator(csv::Terminator::Any(b'\n'))
        .flexible(true)
        .from_reader(lines))
}

/// Refuses lines that are longer than any row: a file without line ends would be read into memory whole.
#[derive(Debug)]
struct Lines<R> {
    inner: R,
    line_bytes: usize,
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        for piece in into[..read].split_inclusive(|byte| *byte == b'\n') {
            self.line_bytes += piece.len();
            if self.line_bytes > LINE_BYTES_MAX {
                let what = format!("a line of more than {LINE_BYTES_MAX} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            if piece.ends_with(b"\n") {
                self.line_bytes = 0;
            }
        }
        Ok(read)
    }
}

impl<R: Seek> Seek for Lines<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.line_bytes = 0;
        self.inner.seek(to)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

fn fingerprint(header: &ByteRecord, top: &ByteRecord) -> u64 {
    let mut bytes = header.as_slice().to_vec();
    bytes.push(b'\n');
    bytes.extend_from_slice(top.as_slice());
    let digest = trust::digest(&bytes);
    u64::from_le_bytes(digest.0[..8].try_into().expect("eight of 32 bytes"))
}

fn time_column(
    path: &Path,
    names: &[String],
    top: &ByteRecord,
) -> Result<(usize, TimeFormat), ReplayError> {
    const NAMES: [&str; 5] = ["time", "timestamp", "date", "datetime", "ts"];
    let named =
        names.iter().position(|name| NAMES.iter().any(|time| time.eq_ignore_ascii_case(name)));
    if let Some(index) = named {
        let found = text(&top[index]);
        let format = time_format(&found);
        let bad = || ReplayError::BadTime {
            path: path.into(),
            column: names[index].clone(),
            found: shown(&found),
        };
        return Ok((index, format.ok_or_else(bad)?));
    }
    let mut cells = top.iter().map(text).enumerate();
    cells
        .find_map(|(index, cell)| Some((index, time_format(&cell)?)))
        .ok_or(ReplayError::NoTime { path: path.into() })
}

fn time_format(cell: &str) -> Option<TimeFormat> {
    if parse_text(cell).is_some() {
        return Some(TimeFormat::Text);
    }
    // Below 2^28 s (1978) a number is rather something else that is counted.
    let number: f64 = cell.parse().ok()?;
    let from = (1u64 << 28) as f64;
    let scales = [(1, 1e11), (1_000, 1e14), (1_000_000, 1e17), (1_000_000_000, 1e20)];
    let (per_second, _) = scales.into_iter().find(|(_, below)| number < *below)?;
    (number >= from).then_some(TimeFormat::Epoch { per_second })
}

fn parse_time(cell: &str, format: TimeFormat) -> Option<Timestamp> {
    match format {
        TimeFormat::Text => parse_text(cell),
        TimeFormat::Epoch { per_second } => {
            let per_second = i128::from(per_second);
            // Whole and fraction apart: a float has not the digits for microseconds.
            let (whole, fraction) = cell.split_once('.').unwrap_or((cell, ""));
            let negative = whole.starts_with('-');
            let whole = i128::from(whole.parse::<i64>().ok()?);
            let mut us = whole * 1_000_000 * 1_000_000 / per_second;
            if !fraction.is_empty() {
                if !fraction.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
                let millionths: i128 = digits.parse().ok()?;
                let part = millionths * 1_000_000 / per_second;
                us += if negative { -part } else { part };
            }
            Some(Timestamp(i64::try_from(us / 1_000_000).unwrap_or(i64::MAX)))
        }
    }
}

fn parse_text(cell: &str) -> Option<Timestamp> {
    // A bare number would read as a year.
    if !cell.contains('-') || !cell.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(at) = cell.parse::<jiff::Timestamp>() {
        return Some(Timestamp(at.as_microsecond()));
    }
    let at: civil::DateTime = cell.parse().ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp(at.timestamp().as_microsecond()))
}

fn is_empty(cell: &str) -> bool {
    const EMPTY: [&str; 7] = ["", "-", "nan", "na", "n/a", "null", "none"];
    EMPTY.iter().any(|empty| empty.eq_ignore_ascii_case(cell))
}

fn parse_bool(cell: &str) -> Option<bool> {
    if cell.eq_ignore_ascii_case("true") {
        Some(true)
    } else if cell.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

fn parse_float(cell: &str) -> Option<f64> {
    cell.parse().ok().filter(|v: &f64| v.is_finite())
}

/// What the first rows say that a column holds. A cell that is neither is overlooked if nine in ten are.
fn judge<'a>(cells: impl Iterator<Item = &'a [u8]>) -> Option<Holds> {
    let (mut ints, mut floats, mut bools, mut others) = (0u32, 0u32, 0u32, 0u32);
    for cell in cells {
        let cell = text(cell);
        if is_empty(&cell) {
            continue;
        }
        if cell.parse::<i64>().is_ok() {
            ints += 1;
        } else if parse_float(&cell).is_some() {
            floats += 1;
        } else if parse_bool(&cell).is_some() {
            bools += 1;
        } else {
            others += 1;
        }
    }
    let numbers = ints + floats;
    let (holds, most) = match numbers >= bools {
        true if floats == 0 => (Holds::Int, numbers),
        true => (Holds::Float, numbers),
        false => (Holds::Bool, bools),
    };
    (most > 0 && 9 * (numbers + bools + others - most) <= most).then_some(holds)
}

fn parse_cell(cell: &[u8], column: &Column) -> Result<Option<Value>, Bad> {
    let cell = text(cell);
    if is_empty(&cell) {
        return Ok(None);
    }
    let (value, expected) = match column.holds {
        Holds::Bool => (parse_bool(&cell).map(Value::Bool), "boolean"),
        Holds::Float => (parse_float(&cell).map(Value::Float), "number"),
        Holds::Int => {
            let int = cell.parse().ok().map(Value::Int);
            (int.or_else(|| parse_float(&cell).map(Value::Float)), "number")
        }
    };
    let bad = || Bad::Cell { column: column.series.to_string(), expected, found: shown(&cell) };
    value.map(Some).ok_or_else(bad)
}

/// Name and unit of a column: `Motor temperature [°C]` is `Motor_temperature` in `Cel`.
fn series(header: &str, index: usize, taken: &mut BTreeSet<String>) -> (SeriesName, Option<Unit>) {
    let (name, unit) = match header.strip_suffix([']', ')']) {
        Some(rest) => match rest.rfind(['[', '(']) {
            Some(at) => (&rest[..at], to_unit(rest[at + 1..].trim())),
            None => (header, None),
        },
        None => (header, None),
    };
    // What stands in brackets and is no unit belongs to the name.
    let name = if unit.is_some() { name } else { header };
    let base = series_name(name).map_or(format!("column-{}", index + 1), |name| name.to_string());
    let mut unique = base.clone();
    for n in 2.. {
        if taken.insert(unique.clone()) {
            break;
        }
        let suffix = format!("_{n}");
        unique = format!("{}{suffix}", &base[..base.len().min(128 - suffix.len())]);
    }
    (SeriesName::new(unique).expect("a name with a suffix is a name"), unit)
}

fn to_unit(text: &str) -> Option<Unit> {
    let symbol = match text {
        "°C" | "degC" | "℃" => "Cel",
        "°F" | "degF" => "degF",
        "Ω" => "Ohm",
        "°" => "deg",
        other => other,
    };
    Unit::new(symbol).ok()
}

/// Counts what is bad and says which of them are told: the first 20, and then each power of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BadRows(pub u64);

impl BadRows {
    pub fn count(&mut self) -> bool {
        self.0 += 1;
        self.0 <= 20 || self.0.is_power_of_two()
    }
}

#[cfg(test)]
mod tests;
