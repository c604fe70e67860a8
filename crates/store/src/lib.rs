//! Time series: ingest, Parquet, rollups, SQL with isolation.

/// The SQL engine linked into this build.
pub const ENGINE: &str = datafusion::DATAFUSION_VERSION;
