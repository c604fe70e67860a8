//! The promises of the log, the writer and the shards.

mod log;

use bus::LogConfig;

/// Small, so that a few records make several segments.
pub const SMALL: LogConfig =
    LogConfig { segment_bytes: 600, bytes_max: 1 << 20, record_bytes_max: 4096 };
