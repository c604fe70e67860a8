//! The evidence log: events of critical actions in a Merkle tree that anybody can audit with tools of their own.
//!
//! Promises: the log only grows (INV-EVID-1): an event that a checkpoint covers stays, with its bytes, at its number, after
//! any crash; no two checkpoints of a log contradict each other, also after a restore from a backup, as far as the
//! caller knows a newer one ([`Log::open`], [`Log::must_hold`]); an export proves its events to who has nothing but the
//! log's public key. Work and memory are bounded by constants that stand beside what they bound.
//! Never: retries a failed sync, reads a clock, knows what an action means, decides what is worth an event.
//!
//! ```text
//! row of the caller's database ── sequencer ──▶ Event ──▶ leaf ──▶ entries, tiles ──▶ checkpoint ──▶ the row is covered
//! ```
//!
//! * [`Event`] is what is kept; its canonical bytes are the leaf (`event.rs`).
//! * [`merkle`] has hashes and proofs (RFC 6962, RFC 9162), [`tile`] names and shapes (C2SP tlog-tiles), [`note`] and
//!   [`Checkpoint`] the signed head (C2SP signed-note, tlog-checkpoint). All pure.
//! * [`sequencer`] decides what is appended when, and which rows are covered. Pure.
//! * [`export`] proves events offline. Pure.
//! * [`Log`] writes, [`Reader`] reads, over `disk`.
//!
//! Formats: `docs/formats/evidence-event.md`, `evidence-log.md`, `evidence-export.md`.

mod checkpoint;
mod error;
pub mod event;
pub mod export;
mod log;
pub mod merkle;
pub mod note;
mod reader;
pub mod sequencer;
pub mod tile;

pub use checkpoint::{Checkpoint, CheckpointError, Head};
pub use error::LogError;
pub use event::{Event, EventError};
pub use log::{Appended, Log};
pub use merkle::Hash;
pub use note::{NoteError, NoteKey};
pub use reader::Reader;
