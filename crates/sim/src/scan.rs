//! A plain scan of Parquet files: no catalog, no store, no SQL.

use anyhow::{Context, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One reading, by what its device's signature covers.
pub type ReadingId = (String, u32, u64, u32);

/// Every reading in the files of table `readings`, with how often it is there.
pub fn readings(files: &Path) -> Result<HashMap<ReadingId, u32>> {
    let mut found = HashMap::new();
    each_row(files, "readings", &["key", "epoch", "sequence", "index"], |row| {
        let number = |name: &str| number(row, name).with_context(|| format!("column {name}"));
        let id = (
            text(row, "key")?,
            number("epoch")? as u32,
            number("sequence")? as u64,
            number("index")? as u32,
        );
        *found.entry(id).or_insert(0) += 1;
        Ok(())
    })?;
    Ok(found)
}

/// Every message in quarantine: key, epoch, sequence (where it could be read) and the reason.
pub fn quarantine(files: &Path) -> Result<Vec<(String, u32, u64, String)>> {
    let mut found = Vec::new();
    each_row(files, "quarantine", &["key", "epoch", "sequence", "reason"], |row| {
        let number = |name: &str| number(row, name).unwrap_or_default();
        let key = text(row, "key").unwrap_or_default();
        found.push((key, number("epoch") as u32, number("sequence") as u64, text(row, "reason")?));
        Ok(())
    })?;
    Ok(found)
}

/// The Parquet files of a table, wherever they lie below `dir`: their names begin with the table's.
pub fn files_of(dir: &Path, table: &str) -> Result<Vec<PathBuf>> {
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
    mut look: impl FnMut(&Row) -> Result<()>,
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
            look(&row?).with_context(|| path.display().to_string())?;
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
        _ => None,
    }
}
