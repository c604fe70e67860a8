//! Answers as people and programs read them.

use crate::terminal;
use anyhow::Result;
use api::csv::shown;
use api::{Answer, Cell, Column, LineEnd};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent};
use std::io::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// RFC 4180 with a header line. Lines end in LF, for pipes; those of the API end in CRLF.
    Csv,
    /// An array of objects, one per row.
    Json,
}

pub fn print(answer: &Answer, format: Format, out: &mut impl Write) -> Result<()> {
    match format {
        Format::Table => table(answer, out),
        Format::Csv => Ok(out.write_all(answer.to_csv(LineEnd::Lf).as_bytes())?),
        Format::Json => json(answer, out),
    }
}

/// Rows that no question in SQL gave, under their names.
pub fn of(names: &[&str], rows: Vec<Vec<Cell>>) -> Answer {
    let column = |name: &&str| Column { name: (*name).into(), kind: "Utf8".into() };
    Answer { columns: names.iter().map(column).collect(), rows, truncated: false, took_ms: 0 }
}

/// Rows for people, programs read the API's own body or the same rows as CSV. `noun` is one of them.
pub fn list(names: &[&str], rows: Vec<Vec<Cell>>, noun: &str, format: Format) -> Result<()> {
    let answer = of(names, rows);
    let mut out = std::io::stdout().lock();
    if format != Format::Table {
        return print(&answer, format, &mut out);
    }
    let rows = answer.rows.len();
    if rows > 0 {
        writeln!(out, "{}", grid(&answer))?;
    }
    let s = if rows == 1 { "" } else { "s" };
    writeln!(out, "{rows} {noun}{s}")?;
    Ok(())
}

/// A cell of what may not be there.
pub fn cell(text: &Option<impl AsRef<str>>) -> Cell {
    text.as_ref().map_or(Cell::Null, |text| text.as_ref().into())
}

/// A time in a table for people, or for programs as the API says it.
pub fn time(at_ms: Option<u64>, format: Format) -> Cell {
    match (at_ms, format) {
        (None, _) => Cell::Null,
        (Some(at_ms), Format::Table) => terminal::time(at_ms).into(),
        (Some(at_ms), _) => at_ms.into(),
    }
}

/// Rows under their names, as wide as the terminal.
pub fn grid(answer: &Answer) -> Table {
    let mut table = Table::new();
    if let Some(width) = terminal::width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.load_preset(NOTHING).set_style(TableComponent::HeaderLines, '─');
    table.set_header(answer.columns.iter().map(|column| &column.name));
    for row in &answer.rows {
        table.add_row(row.iter().map(|cell| plain(&shown(cell))));
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        if answer.rows.iter().any(|row| row[i].is_number()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Text as a terminal may have it. Devices choose some of what is shown: their words move no cursor, and look like no other
/// row.
pub fn plain(text: &str) -> String {
    let moves =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match moves(c) {
            true => plain.extend(c.escape_default()),
            false => plain.push(c),
        }
    }
    plain
}

fn table(answer: &Answer, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", grid(answer))?;
    let rows = answer.rows.len();
    let s = if rows == 1 { "" } else { "s" };
    let more =
        if answer.truncated { ", and more: narrow the question or raise --rows" } else { "" };
    writeln!(out, "{rows} row{s} in {} ms{more}", answer.took_ms)?;
    Ok(())
}

fn json(answer: &Answer, out: &mut impl Write) -> Result<()> {
    let object = |row: &Vec<Cell>| -> serde_json::Map<String, Cell> {
        answer.columns.iter().map(|column| column.name.clone()).zip(row.iter().cloned()).collect()
    };
    let rows: Vec<_> = answer.rows.iter().map(object).collect();
    serde_json::to_writer_pretty(&mut *out, &rows)?;
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer() -> Answer {
        let rows = vec![vec![json!("a,\"b\""), json!(1.5)], vec![json!(null), json!(2)]];
        Answer { took_ms: 3, ..of(&["device", "value"], rows) }
    }

    fn printed(format: Format) -> String {
        let mut out = Vec::new();
        print(&answer(), format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_is_for_pipes_and_ends_its_lines_as_they_do() {
        assert_eq!(printed(Format::Csv), "device,value\n\"a,\"\"b\"\"\",1.5\n,2\n");
    }

    #[test]
    fn json_is_an_array_of_objects() {
        let rows: serde_json::Value = serde_json::from_str(&printed(Format::Json)).unwrap();
        assert_eq!(
            rows,
            json!([{"device": "a,\"b\"", "value": 1.5}, {"device": null, "value": 2}])
        );
    }

    #[test]
    fn what_a_device_says_moves_no_cursor() {
        let mut answer = answer();
        answer.rows[0][0] = json!("ok\u{1b}[1A\u{9b}2K\rx\ny\u{202e} – ü");
        let mut out = Vec::new();
        print(&answer, Format::Table, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{out:?}");
        assert!(out.contains(r"ok\u{1b}[1A\u{9b}2K\rx\ny\u{202e} – ü"), "{out}");
    }

    #[test]
    fn a_table_says_how_many_rows_it_has() {
        assert!(printed(Format::Table).ends_with("2 rows in 3 ms\n"));
    }
}
