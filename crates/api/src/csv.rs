//! Answers as CSV (RFC 4180), for everybody who writes them.
//!
//! The first line has the names of the columns. A field stands in quotes when it holds a comma, a quote or the end of a
//! line; so does the only field of a row when it is empty, since readers skip empty lines. Null is an empty field, as an
//! empty text is: CSV cannot tell them apart.

use crate::query::{Answer, Cell};

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// What RFC 4180 §2 asks for: over HTTP.
    CrLf,
    /// For pipes: the tools of Unix take a CR for the last field's own.
    Lf,
}

impl LineEnd {
    const fn as_str(self) -> &'static str {
        match self {
            Self::CrLf => "\r\n",
            Self::Lf => "\n",
        }
    }
}

impl Answer {
    pub fn to_csv(&self, end: LineEnd) -> String {
        let mut text = String::new();
        line(&mut text, self.columns.iter().map(|column| column.name.clone()), end);
        for row in &self.rows {
            line(&mut text, row.iter().map(shown), end);
        }
        text
    }
}

/// A cell as people read it: a text without its quotes, nothing for null.
pub fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn line(text: &mut String, fields: impl ExactSizeIterator<Item = String>, end: LineEnd) {
    let is_alone = fields.len() == 1;
    for (n, field) in fields.enumerate() {
        if n > 0 {
            text.push(',');
        }
        if field.contains([',', '"', '\r', '\n']) || (is_alone && field.is_empty()) {
            text.push('"');
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(&field);
        }
    }
    text.push_str(end.as_str());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Column;

    fn answer(columns: &[&str], rows: Vec<Vec<Cell>>) -> Answer {
        let column = |name: &&str| Column { name: (*name).to_owned(), kind: "Utf8".into() };
        let columns = columns.iter().map(column).collect();
        Answer { columns, rows, truncated: false, took_ms: 1 }
    }

    #[test]
    fn csv_quotes_what_a_reader_would_split_and_leaves_null_empty() {
        let rows = vec![
            vec![Cell::from(1.5), Cell::from("x \"y\"")],
            vec![Cell::Null, Cell::from(true)],
            vec![Cell::from(""), Cell::from("two\nlines")],
            vec![Cell::from("a,b"), Cell::from("a CR\r")],
        ];
        let answer = answer(&["a", "b,c"], rows);
        let expected =
            "a,\"b,c\"\n1.5,\"x \"\"y\"\"\"\n,true\n,\"two\nlines\"\n\"a,b\",\"a CR\r\"\n";
        assert_eq!(answer.to_csv(LineEnd::Lf), expected);
    }

    #[test]
    fn lines_end_as_they_are_told_to_and_are_otherwise_the_same() {
        let answer = answer(&["a", "b"], vec![vec![Cell::from(1), Cell::Null]]);
        assert_eq!(answer.to_csv(LineEnd::CrLf), "a,b\r\n1,\r\n");
        assert_eq!(answer.to_csv(LineEnd::CrLf).replace("\r\n", "\n"), answer.to_csv(LineEnd::Lf));
    }

    #[test]
    fn a_row_of_one_empty_field_is_no_empty_line() {
        let answer = answer(&["one"], vec![vec![Cell::from(1)], vec![Cell::Null]]);
        assert_eq!(answer.to_csv(LineEnd::Lf), "one\n1\n\"\"\n");
    }
}
