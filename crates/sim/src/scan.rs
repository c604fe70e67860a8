//! A plain scan of Parquet files: no catalog, no store, no SQL.

use anyhow::{Context, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A row of table `readings`, and the file that it is in.
#[derive(Clone, Debug)]
pub struct Reading {
    pub key: String,
    pub epoch: u32,
    pub sequence: u64,
    pub index: u32,
    pub gateway: String,
    /// When the gateway took it, by the gateway's clock.
    pub received_at_us: i64,
    /// The first record of the shard's bus whose rows may be in its file: part of the file's name.
    pub file_first: u64,
}

/// A row of table `quarantine`: the counter is what the message claims, 0 where it could not be read.
#[derive(Clone, Debug)]
pub struct SetApart {
    pub key: String,
    pub epoch: u32,
    pub sequence: u64,
    pub reason: String,
}

/// Every reading in the files of the store.
pub fn readings(files: &Path) -> Result<Vec<Reading>> {
    let columns = ["key", "epoch", "sequence", "index", "received_at", "gateway"];
    let mut found = Vec::new();
    each_row(files, "readings", &columns, |path, row| {
        let number = |name: &str| number(row, name).with_context(|| format!("column {name}"));
        found.push(Reading {
            key: text(row, "key")?,
            epoch: u32::try_from(number("epoch")?)?,
            sequence: u64::try_from(number("sequence")?)?,
            index: u32::try_from(number("index")?)?,
            gateway: text(row, "gateway")?,
            received_at_us: number("received_at")?,
            file_first: first_of(path).context("expected a name <table>-<shard>-<first>-...")?,
        });
        Ok(())
    })?;
    Ok(found)
}

/// Every message in quarantine.
pub fn quarantine(files: &Path) -> Result<Vec<SetApart>> {
    let mut found = Vec::new();
    each_row(files, "quarantine", &["key", "epoch", "sequence", "reason"], |_, row| {
        let number = |name: &str| number(row, name).unwrap_or_default();
        found.push(SetApart {
            key: text(row, "key").unwrap_or_default(),
            epoch: number("epoch") as u32,
            sequence: number("sequence") as u64,
            reason: text(row, "reason")?,
        });
        Ok(())
    })?;
    Ok(found)
}

/// `docs/formats/parquet.md`: `<table>-<shard>-<first>-<last>-<claim>.parquet`.
fn first_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.split('-').nth(2)?.parse().ok()
}

/// The Parquet files of a table, wherever they lie below `dir`: their names begin with the table's.
fn files_of(dir: &Path, table: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in
            std::fs::read_dir(&dir).with_context(|| format!("no directory {}", dir.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let of_table = name.strip_prefix(table).is_some_and(|rest| rest.starts_with('-'));
            if of_table && name.ends_with(".parquet") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn each_row(
    dir: &Path,
    table: &str,
    columns: &[&str],
    mut look: impl FnMut(&Path, &Row) -> Result<()>,
) -> Result<()> {
    for path in files_of(dir, table)? {
        let reader = SerializedFileReader::new(File::open(&path)?)
            .with_context(|| path.display().to_string())?;
        let schema = reader.metadata().file_metadata().schema();
        let wanted: Vec<Arc<Type>> = schema
            .get_fields()
            .iter()
            .filter(|field| columns.contains(&field.name()))
            .cloned()
            .collect();
        let projection = Type::group_type_builder(schema.name()).with_fields(wanted).build()?;
        for row in reader.get_row_iter(Some(projection))? {
            look(&path, &row?).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn field<'a>(row: &'a Row, name: &str) -> Option<&'a Field> {
    row.get_column_iter().find(|(column, _)| column.as_str() == name).map(|(_, field)| field)
}

fn text(row: &Row, name: &str) -> Result<String> {
    match field(row, name) {
        Some(Field::Str(text)) => Ok(text.clone()),
        Some(Field::Bytes(bytes)) => Ok(bytes.data().iter().map(|b| format!("{b:02x}")).collect()),
        other => anyhow::bail!("column {name} is {other:?}, expected text"),
    }
}

fn number(row: &Row, name: &str) -> Option<i64> {
    match field(row, name)? {
        Field::Int(n) => Some(i64::from(*n)),
        Field::UInt(n) => Some(i64::from(*n)),
        Field::Long(n) => Some(*n),
        Field::ULong(n) => i64::try_from(*n).ok(),
        Field::Short(n) => Some(i64::from(*n)),
        Field::UShort(n) => Some(i64::from(*n)),
        Field::TimestampMicros(n) => Some(*n),
        _ => None,
    }
}
