//! The bytes that are sent: an `ExportTraceServiceRequest` of OTLP 1, as JSON (OTLP §JSON Protobuf Encoding). Pure.
//!
//! JSON, since every station that tells spans has a JSON encoder already, and every collector that takes OTLP over HTTP takes it
//! (docs/decisions/0008-traces-by-derived-ids.md).

use crate::id::{SpanId, Trace, TraceId};
use crate::step::{Kind, Step};
use model::Timestamp;
use serde_json::{Value as Json, json};

/// W3C trace flags: sampled, and of a random id. Then OTLP's own: it is known whether the parent is elsewhere, and it is.
const FLAGS: u32 = 0b11;
const PARENT_IS_ELSEWHERE: u32 = 0x300;

/// What an attribute says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    Truth(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Truth(is_so)
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}

numbers! { u16 u32 u64 usize i64 }

/// A span, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub trace: TraceId,
    pub trace_state: String,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub name: &'static str,
    pub service: &'static str,
    pub kind: Kind,
    pub from: Timestamp,
    pub to: Timestamp,
    pub attributes: Vec<(&'static str, Value)>,
}

impl Told {
    pub fn new(
        Trace { id: trace, threshold }: Trace,
        step: &Step<'_>,
        from: Timestamp,
        to: Timestamp,
        attributes: Vec<(&'static str, Value)>,
    ) -> Self {
        Self {
            trace,
            trace_state: threshold.trace_state(),
            id: SpanId::of(trace, step),
            parent: step.parent().map(|parent| SpanId::of(trace, &parent)),
            name: step.name(),
            service: step.service(),
            kind: step.kind(),
            from,
            // Clocks are set while something is under way: no span ends before it begins.
            to: to.max(from),
            attributes,
        }
    }

    fn json(&self) -> Json {
        let elsewhere = if self.parent.is_some() { PARENT_IS_ELSEWHERE } else { 0 };
        let mut span = json!({
            "traceId": self.trace.to_string(),
            "spanId": self.id.to_string(),
            "name": self.name,
            "kind": self.kind as u8,
            "startTimeUnixNano": nanos(self.from),
            "endTimeUnixNano": nanos(self.to),
            "attributes": attributes(&self.attributes),
            "flags": FLAGS | elsewhere,
            "traceState": self.trace_state,
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = parent.to_string().into();
        }
        span
    }
}

/// Spans by whose they are. `version`: of this release.
pub fn request(spans: &[Told], version: &str) -> Vec<u8> {
    let mut services: Vec<&'static str> = spans.iter().map(|span| span.service).collect();
    services.sort_unstable();
    services.dedup();
    let of = |service: &'static str| {
        let own = spans.iter().filter(|span| span.service == service);
        json!({
            "resource": { "attributes": attributes(&[
                ("service.name", service.into()),
                ("service.namespace", "plimsoll".into()),
                ("service.version", version.into()),
            ]) },
            "scopeSpans": [{
                "scope": { "name": "plimsoll", "version": version },
                "spans": own.map(Told::json).collect::<Vec<_>>(),
            }],
        })
    };
    let request = json!({ "resourceSpans": services.into_iter().map(of).collect::<Vec<_>>() });
    serde_json::to_vec(&request).expect("it is text and numbers")
}

fn attributes(attributes: &[(&'static str, Value)]) -> Json {
    let one = |(key, value): &(&'static str, Value)| {
        let value = match value {
            Value::Text(text) => json!({ "stringValue": text }),
            // Whole numbers of 64 bits are decimal strings in this encoding.
            Value::Number(number) => json!({ "intValue": number.to_string() }),
            Value::Truth(is_so) => json!({ "boolValue": is_so }),
        };
        json!({ "key": key, "value": value })
    };
    attributes.iter().map(one).collect()
}

fn nanos(time: Timestamp) -> String {
    (i128::from(time.as_us().max(0)) * 1000).to_string()
}
