//! Time series: takes the bus exactly once, keeps it as Parquet, rolls it up, answers SQL.
//!
//! Promises: what is on the bus takes effect once, whatever was retried, cut or run twice (INV-REPLAY-1), and is found in
//! `readings`, `losses` or `quarantine` (INV-ACK-1); nothing is taken that does not carry uplink's MAC (INV-AUTH-1); a
//! question sees every row of one instant once, and costs no more than its bounds (INV-COST-1); questions do not hold up
//! ingest.
//! Never: talks to the network; checks a device's signature (uplink did, the MAC says so); believes a device's or a
//! gateway's clock for a decision; changes a file that it has committed.
//!
//! One reading's way through it: [`shard`] reads a record of the bus, [`ingest`] judges it by [`memory`] and makes rows of
//! it, [`shelf`] holds them and shows them, [`file`] writes them as Parquet, and [`catalog`] has them from then on.
//! `query` asks.

pub mod catalog;
mod cell;
pub mod config;
pub mod error;
pub mod file;
mod fresh;
pub mod ingest;
mod interrupt;
pub mod memory;
pub mod metrics;
mod query;
mod rollup;
pub mod schema;
pub mod shard;
pub mod shelf;
mod store;
mod table;
mod within;

pub use config::{Config, FlushBounds, QueryBounds};
pub use error::StoreError;
pub use schema::Table;
pub use store::Store;

/// The version of the SQL engine linked into this build.
pub const ENGINE: &str = datafusion::DATAFUSION_VERSION;
