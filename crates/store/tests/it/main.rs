//! The promises of the store. One binary, since each one that links the query engine takes a while.

mod catalog;
mod cuts;
mod files;
mod formats;
mod full;
mod ingest;
mod isolation;
mod plant;
mod query;
mod rollup;
mod shard;
mod snapshot;
mod within;
