//! Which files there are, and up to which offset of each shard they reach: the one place where a step of ingest happens.
//!
//! A step is one conditional change (INV-REPLAY-1): *if* the shard is still at (offset a, taken a) under this consumer's
//! claim, *then* it is at (offset b, taken b), and these files exist. What a step names is durable before it. So
//!
//! * a consumer that fell behind, or was replaced, finds the condition false and drops its work;
//! * a step of which the answer was lost has happened or not, and the next start sees which;
//! * a record takes effect once, however often it is read.
//!
//! **Claims.** Who opens a shard claims it: a number that grows. From then on no earlier claim commits, so that files of
//! earlier claims which the catalog does not name are orphans for good, and may be removed. The newer process wins; the
//! older one learns of it at its next step, and stops.
//!
//! **Marks** are kept per step: its offset, when it was committed by this machine's clock, and how many bytes of records
//! it covers. They say below which offset the bus may be trimmed ([`trim_below`]).
//!
//! Two forms pass one contract test: [`SqliteCatalog`] and [`MemoryCatalog`].

mod memory;
mod sqlite;

pub use memory::{CommitPoint, MemoryCatalog};
pub use sqlite::SqliteCatalog;

use crate::file::FileName;
use model::Timestamp;
use std::time::Duration;

/// See the module's head. Calls block; one is carried out at a time.
pub trait Catalog: Send + Sync + 'static {
    /// Fixed when the catalog was made.
    fn shards(&self) -> u32;

    /// Takes the shard over and says where it stands.
    fn claim(&self, shard: u32) -> Result<Place, CatalogError>;

    /// All files.
    fn files(&self) -> Result<Vec<FileEntry>, CatalogError>;

    /// The shard's marks, lowest offset first.
    fn marks(&self, shard: u32) -> Result<Vec<Mark>, CatalogError>;

    /// Moves the shard, or says that it is not where the step begins. After an error nobody knows which, but after
    /// [`CatalogError::NoRoom`] this process does: the shard is where it was. Should the process end before it has moved it,
    /// the next one may find it moved; so what the step names stays.
    fn commit(&self, step: &Step) -> Result<Commit, CatalogError>;
}

/// Where a shard stands, and who may move it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub claim: u64,
    /// The first record that has not taken effect.
    pub offset: u64,
    /// The object that holds the shard's memory at this offset. `None`: nothing was ever committed.
    pub taken: Option<String>,
}

/// One file. What it holds is sorted and immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    pub name: FileName,
    pub rows: u64,
    pub bytes: u64,
    /// Of the table's time column, in µs since 1970.
    pub time_min: i64,
    pub time_max: i64,
    pub device_min: String,
    pub device_max: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The first record that is not in the step.
    pub offset: u64,
    pub at: Timestamp,
    /// Of the records in the step.
    pub bytes: u64,
}

/// A move of one shard.
#[derive(Clone, Debug)]
pub struct Step {
    pub shard: u32,
    pub from: Place,
    /// Where the shard is then.
    pub offset: u64,
    pub taken: String,
    pub files: Vec<FileEntry>,
    pub at: Timestamp,
    /// Of the records from `from.offset` to `offset`.
    pub bytes: u64,
    /// Marks up to this offset are no longer needed.
    pub forget_marks: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    Done,
    /// The shard stands elsewhere, or somebody else has claimed it. Nothing was changed.
    LostPlace(Place),
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(
        "the catalog has format version {found}, expected at most {expected}: it was written by a newer release"
    )]
    Newer { expected: i64, found: i64 },

    #[error(
        "the catalog has {found} shards, expected {expected}: the number is fixed at the first start"
    )]
    OtherShards { expected: u32, found: u32 },

    #[error("the catalog has no shard {shard}")]
    NoShard { shard: u32 },

    #[error("the catalog holds a {what} that is not one: {found}")]
    Damaged { what: &'static str, found: String },

    /// What was attempted has not happened, and may be attempted again.
    #[error("no room to {attempt}")]
    NoRoom { attempt: &'static str, source: Box<dyn std::error::Error + Send + Sync> },

    #[error("cannot {attempt}")]
    Failed { attempt: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

impl CatalogError {
    /// The disk has no room: nothing is broken.
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::NoRoom { .. })
    }
}

/// Below which record the bus may be trimmed: all that was committed longer ago than `retention`, and the oldest of what is
/// more than `bytes_max` together. `None`: nothing new.
///
/// The time of a step counts, by our own clock: at most one flush later than the receipt of its records, and no
/// gateway's clock decides what is forgotten.
pub fn trim_below(
    marks: &[Mark],
    now: Timestamp,
    retention: Duration,
    bytes_max: u64,
) -> Option<u64> {
    let retention_us = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    let mut kept: u64 = marks.iter().map(|mark| mark.bytes).sum();
    let mut below = None;
    for mark in marks {
        let is_old = now.as_us().saturating_sub(mark.at.as_us()) > retention_us;
        if !is_old && kept <= bytes_max {
            break;
        }
        below = Some(mark.offset);
        kept -= mark.bytes;
    }
    below
}
