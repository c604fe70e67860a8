//! SQL, asked of whoever answers it.

use crate::driver::Station;
use crate::http::{Call, json_answer, text};
use crate::problem::Failure;
use api::{Answer, Ask, Cell};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

/// The longest question, with its bounds.
const BODY_BYTES_MAX: usize = 256 * 1024;

const CSV: &str = "text/csv; charset=utf-8; header=present";

/// Set when the answer was cut off at its bound: CSV has no place to say so.
pub const TRUNCATED: &str = "plimsoll-truncated";

pub(crate) async fn query(station: &Station, call: Call) -> Result<Response, Failure> {
    let wants_csv = accepts_csv(&call.head.headers);
    let ask: Ask = call.json(BODY_BYTES_MAX).await?;
    let answer = station.query.query(ask).await?;
    if !wants_csv {
        return Ok(json_answer(&answer));
    }
    let mut response = text(CSV, csv_of(&answer).map_err(|error| Failure::internal(&error))?);
    let truncated = if answer.truncated { "true" } else { "false" };
    response.headers_mut().insert(TRUNCATED, HeaderValue::from_static(truncated));
    Ok(response)
}

fn accepts_csv(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let kinds = accept.unwrap_or("").split(',');
    kinds.map(|kind| kind.split(';').next().unwrap_or("").trim()).any(|kind| kind == "text/csv")
}

/// RFC 4180. Null is an empty field, as an empty text is.
fn csv_of(answer: &Answer) -> Result<Vec<u8>, csv::Error> {
    let mut out = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .quote_style(csv::QuoteStyle::Necessary)
        .from_writer(Vec::new());
    out.write_record(answer.columns.iter().map(|column| column.name.as_bytes()))?;
    for row in &answer.rows {
        out.write_record(row.iter().map(field))?;
    }
    out.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

fn field(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Column;

    #[test]
    fn csv_quotes_what_it_must_and_leaves_null_empty() {
        let column = |name: &str| Column { name: name.into(), kind: "Utf8".into() };
        let answer = Answer {
            columns: vec![column("a"), column("b,c")],
            rows: vec![
                vec![Cell::from(1.5), Cell::from("x \"y\"")],
                vec![Cell::Null, Cell::from(true)],
            ],
            truncated: false,
            took_ms: 1,
        };
        let text = String::from_utf8(csv_of(&answer).unwrap()).unwrap();
        assert_eq!(text, "a,\"b,c\"\r\n1.5,\"x \"\"y\"\"\"\r\n,true\r\n");
    }

    #[test]
    fn csv_is_what_is_asked_for_by_name() {
        let accepts = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            accepts_csv(&headers)
        };
        assert!(accepts("text/csv"));
        assert!(accepts("application/json;q=0.5, text/csv; header=present"));
        assert!(!accepts("*/*"));
        assert!(!accepts_csv(&HeaderMap::new()));
    }
}
