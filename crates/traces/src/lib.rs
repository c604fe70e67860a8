//! Traces: what became of one reading and of one update, station by station, for any OpenTelemetry collector.
//!
//! Nothing of a trace travels in a message: messages are signed, and their formats are fixed. Every station derives the trace's
//! id from what identifies the message or the update ([`TraceId`]), each span's id from the trace and the step that it tells of
//! ([`Step`]), and from the id alone whether the trace is sampled. So stations agree without a word, and nobody who cannot
//! sign a message can put anything into its trace.
//!
//! Promises: telling a span never waits, and costs memory up to [`QUEUE_MAX`] spans; what finds no room, no collector or is beyond
//! a device's share is dropped and counted by its reason ([`Metrics`]); without an endpoint nothing is derived, kept or sent.
//! Never: keeps anything durable, decides anything for the data path, tells of what nobody has believed yet.
//!
//! * `id.rs`, `step.rs`, `otlp.rs`: pure. Ids and sampling, which span follows which, the bytes that are sent.
//! * `settings.rs`: what an operator says, by option or by OpenTelemetry's own variables.
//! * `share.rs`: how much one device may have told.
//! * `export.rs`: the queue, and the task that posts it.

mod export;
mod id;
mod otlp;
mod settings;
mod share;
mod step;

pub use export::{Metrics, QUEUE_MAX, StartError, Traces};
pub use id::{SpanId, Trace, TraceId};
pub use otlp::{Told, Value, request};
pub use settings::{Settings, SettingsError};
pub use step::{Kind, Step};
