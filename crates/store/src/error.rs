//! Why the store refuses or stops.

use crate::catalog::CatalogError;
use bus::LogError;
use model::cbor::Malformed;
use std::io;
use std::path::{Path, PathBuf};

/// Each of these ends the consumer of a shard, and with it [`crate::Store::run`]: the station stops its process.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {attempt} `{}`", path.display())]
    Disk { attempt: &'static str, path: PathBuf, source: io::Error },

    #[error("shard {shard}: the catalog failed")]
    Catalog { shard: u32, source: CatalogError },

    #[error("cannot open the catalog `{}`", path.display())]
    OpenCatalog { path: PathBuf, source: CatalogError },

    #[error("shard {shard}: the bus failed")]
    Bus { shard: u32, source: LogError },

    /// Somebody who does not hold the key wrote to the bus, or its files were changed.
    #[error(
        "shard {shard}: record {offset} on the bus does not carry the MAC of uplink's key; nothing of it was taken"
    )]
    BadMac { shard: u32, offset: u64 },

    /// It carries uplink's MAC, so uplink is of another version or broken.
    #[error("shard {shard}: record {offset} on the bus is not a batch")]
    BadBatch { shard: u32, offset: u64, source: Malformed },

    #[error("`{}` is not the memory of shard {shard} at offset {offset}: expected {expected}, found {found}", path.display())]
    BadTaken { shard: u32, offset: u64, path: PathBuf, expected: String, found: String },

    #[error(
        "the memory of shard {shard} would take {bytes} bytes, more than the {bytes_max} that are read back"
    )]
    TakenTooLarge { shard: u32, bytes: usize, bytes_max: u64 },

    #[error(
        "the catalog names `{name}`, which is not in `{}`: acknowledged readings are missing", dir.display()
    )]
    MissingFile { name: String, dir: PathBuf },

    /// Another process opened the same store later: that one has the shard now.
    #[error(
        "shard {shard} was taken over: this consumer held claim {held}, the catalog has {found}"
    )]
    TakenOver { shard: u32, held: u64, found: u64 },

    #[error("shard {shard}: cannot make a file of table {table}")]
    Encode { shard: u32, table: &'static str, source: parquet::errors::ParquetError },

    #[error("cannot start {what}")]
    Start { what: &'static str, source: Box<dyn std::error::Error + Send + Sync> },

    #[error("the consumer of shard {shard} panicked")]
    Panicked { shard: u32 },
}

impl StoreError {
    pub(crate) fn disk(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Disk { attempt, path: path.to_owned(), source }
    }

    /// The disk has no room: nothing is broken, and the same write may be tried later.
    pub fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::Disk { source, .. } => disk::is_full(source),
            Self::Catalog { source, .. } | Self::OpenCatalog { source, .. } => {
                source.is_for_want_of_room()
            }
            _ => false,
        }
    }
}
