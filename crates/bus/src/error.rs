//! Why a log refused. Clones, because one failed commit answers many callers.

use crate::Offset;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "the log has no room: the record needs {needs} bytes, {bytes} of {bytes_max} are taken"
    )]
    Full { needs: u64, bytes: u64, bytes_max: u64 },

    #[error("the record is too long: {len} bytes, expected at most {len_max}")]
    TooLarge { len: u64, len_max: u64 },

    #[error("too many records wait for the disk: {queued} records of {bytes} bytes together")]
    QueueFull { queued: usize, bytes: u64 },

    #[error("an earlier record of the same lane found no room")]
    Behind,

    /// Nothing of the group is in the log, and the log goes on; or there was no space to make a log, and there is none.
    #[error("no space left to write `{}`; the log is as it was before", path.display())]
    DiskFull { path: PathBuf, source: Arc<io::Error> },

    /// After this the log is poisoned: what is durable beyond the last acknowledged record is unknown.
    #[error("cannot {attempt} `{}`", path.display())]
    Io { attempt: &'static str, path: PathBuf, source: Arc<io::Error> },

    #[error("the log in `{}` is closed after a failed write or sync; it must be opened again", dir.display())]
    Poisoned { dir: PathBuf },

    #[error("the writer of the log in `{}` has ended", dir.display())]
    Closed { dir: PathBuf },

    #[error(
        "`{}` is damaged at byte {position}, record {offset}: expected {expected}, found {found}",
        file.display()
    )]
    Corrupt { file: PathBuf, position: u64, offset: Offset, expected: String, found: String },

    #[error("`{}` has format version {found}, expected {expected}", file.display())]
    UnknownVersion { file: PathBuf, expected: u32, found: u32 },

    #[error("segments are missing between `{before}` and `{}`: expected `{expected}` in between", file.display())]
    MissingSegment { file: PathBuf, before: String, expected: String },

    #[error("record {from} is no longer in the log; the first one is {first}")]
    Trimmed { from: Offset, first: Offset },

    #[error(
        "record {from} is beyond the end of the log, which is {end}: the log is not the one that was read before"
    )]
    BeyondEnd { from: Offset, end: Offset },

    #[error("`{}` says {found} shards, expected {expected}: the number is fixed at the first start", file.display())]
    OtherShards { file: PathBuf, expected: u32, found: u32 },
}

impl LogError {
    /// Whether the same record can be taken later, when there is room again: nothing is wrong with it or with the log.
    pub fn is_for_want_of_room(&self) -> bool {
        use LogError::{Behind, DiskFull, Full, QueueFull};
        matches!(self, Full { .. } | QueueFull { .. } | Behind | DiskFull { .. })
    }

    /// As [`LogError::io`], for what makes a log or its newest segment when it is opened: without space there is none, or it
    /// is as it was, and it may be opened again.
    pub(crate) fn io_or_full(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |e| match disk::is_full(&e) {
            true => Self::DiskFull { path: path.to_owned(), source: Arc::new(e) },
            false => Self::io(attempt, path)(e),
        }
    }

    pub(crate) fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { attempt, path: path.to_owned(), source: Arc::new(source) }
    }
}
