//! Ordered durable log: append, read from an offset, trim. The device's backlog, the gateway's spool and the site's bus
//! are each one of these.
//!
//! Promises: a record whose commit returned is found after any crash, with its bytes, at its offset (INV-ACK-1);
//! offsets are dense and keep the order of the appends; what is damaged is reported with its file and place and never
//! skipped; work and memory are bounded by the configuration.
//! Never: retries a failed sync, knows what a record means, removes duplicates, reads a clock.
//!
//! * [`Log`] is the single writer: blocking, one write and one sync per [`Log::commit`].
//! * [`LogReader`] reads what is durable, from other threads, while the writer goes on.
//! * [`Writer`] is a thread that owns a log and commits whatever is queued as one group; a [`Lane`] keeps one sender's
//!   order in it when room runs out.
//! * [`Shards`] is a fixed number of logs in one directory; a device always goes to the same one.
//!
//! The bytes are drawn at the head of `segment.rs`, and in `docs/formats/log-segment.md`.

mod error;
mod log;
mod reader;
mod segment;
mod shards;
mod writer;

pub use error::LogError;
pub use log::{Log, LogConfig};
pub use reader::LogReader;
pub use shards::{Shards, shard_of};
pub use writer::{Lane, Writer};

use std::fmt;

/// The number of a record: from 0, dense, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
