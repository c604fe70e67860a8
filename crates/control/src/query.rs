//! SQL, asked of whoever answers it.

use crate::call::{Call, json_answer, text};
use crate::directory::Directory;
use crate::problem::Failure;
use crate::station::Station;
use api::{Ask, LineEnd, Within};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use model::ZoneId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The longest question, with its bounds.
const BODY_BYTES_MAX: usize = 256 * 1024;

const CSV: &str = "text/csv; charset=utf-8; header=present";

/// Set when the answer was cut off at its bound: CSV has no place to say so.
pub const TRUNCATED: &str = "plimsoll-truncated";

pub(crate) async fn query(station: &Station, call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    let wants_csv = accepts_csv(&call.head.headers);
    let ask: Ask = call.json(BODY_BYTES_MAX).await?;
    if ask.time_max_ms == Some(0) {
        let detail = "time_max_ms: expected at least 1 ms, found 0";
        return Err(Failure::bad_request("bad_json", detail));
    }
    let zones = call.zones(station, &reach);
    let within = zones.map(|zones| Arc::new(within(&zones, &call.directory)));
    let answer = station.query.query(ask, within).await?;
    if !wants_csv {
        return Ok(json_answer(&answer));
    }
    let mut response = text(CSV, answer.to_csv(LineEnd::CrLf));
    let truncated = if answer.truncated { "true" } else { "false" };
    response.headers_mut().insert(TRUNCATED, HeaderValue::from_static(truncated));
    Ok(response)
}

/// What there is to see of some zones.
fn within(zones: &BTreeSet<ZoneId>, directory: &Directory) -> Within {
    let devices = directory.devices(None).filter(|device| zones.contains(&device.zone));
    Within {
        zones: zones.iter().map(ToString::to_string).collect(),
        devices: devices.map(|device| device.id.to_string()).collect(),
    }
}

fn accepts_csv(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let kinds = accept.unwrap_or("").split(',');
    kinds.map(|kind| kind.split(';').next().unwrap_or("").trim()).any(|kind| kind == "text/csv")
}

#[cfg(test)]
mod tests {
    use super::*;

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
