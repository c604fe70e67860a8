//! A fleet and its weather: real processes of the product, and around them what a plant does to them.
//!
//! Promises: judges the product from outside only: by what its processes print, answer and leave on disk. The
//! recorder fsyncs every PUBACK before the device sees it; the scan reads Parquet files with no help from the store.
//! Whatever of the product hangs is named and ended: no answer, command or process is waited for without an end.
//! Never: links a crate of the product; waits for "long enough" instead of for an event with a deadline.

pub mod client;
pub mod demo;
pub mod fleet;
pub mod journey;
pub mod kills;
pub mod link;
pub mod message;
pub mod mqtt;
pub mod process;
pub mod promises;
pub mod recorder;
pub mod rollouts;
pub mod running;
pub mod scan;
pub mod timed;
pub mod tls;
pub mod vendor;
