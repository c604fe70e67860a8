//! Why a log refused.

use crate::checkpoint::{CheckpointError, Head};
use crate::event::EventError;
use crate::export::ExportError;
use crate::note::NoteError;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing is covered that was not before, and the log goes on: what was appended waits for the next checkpoint.
    #[error("no space left to write `{}`", path.display())]
    Full { path: PathBuf, source: io::Error },

    /// After a failed write or sync the log is poisoned: what is durable beyond the last checkpoint is unknown.
    #[error("cannot {attempt} `{}`", path.display())]
    Io { attempt: &'static str, path: PathBuf, source: io::Error },

    #[error("the evidence log in `{}` is closed after a failed write or sync; it must be opened again", dir.display())]
    Poisoned { dir: PathBuf },

    /// The key did not sign. The log goes on, as after [`LogError::Full`].
    #[error("cannot sign a checkpoint")]
    NotSigned { source: NoteError },

    #[error("`{}` is not a checkpoint of this log", path.display())]
    Checkpoint { path: PathBuf, source: CheckpointError },

    #[error("`{}` is damaged: expected {expected}, found {found}", path.display())]
    Damaged { path: PathBuf, expected: String, found: String },

    #[error("`{}` has entries and no checkpoint: the checkpoint was lost", dir.display())]
    CheckpointLost { dir: PathBuf },

    /// INV-EVID-1: writing on would fork the log.
    #[error(
        "the log is older than what is known of it: it has {found}, known are {known}; it was restored from a backup"
    )]
    Behind { known: Head, found: Head },

    /// INV-EVID-1: two logs bear this name.
    #[error("the log is not the one that is known: at {} events its root is {found}, known is {}", known.size, known.root)]
    Forked { known: Head, found: crate::Hash },

    /// INV-EVID-1: the caller's table tells another story than the log.
    #[error("event {sequence} is in the log with other bytes: what is there is never changed")]
    Rewritten { sequence: u64 },

    #[error("expected event {expected} next, found {found}: events come in order, without gaps")]
    Gap { expected: u64, found: u64 },

    #[error("too many events wait for a checkpoint: {events} of {bytes} bytes together")]
    TooManyPending { events: usize, bytes: usize },

    #[error("event {sequence} is not among the {size} that the checkpoint covers")]
    NotCovered { sequence: u64, size: u64 },

    #[error("cannot prove growth from {earlier} events to {size}")]
    NotEarlier { earlier: u64, size: u64 },

    #[error("leaf {sequence} is no event of a version that this build knows")]
    NotAnEvent { sequence: u64, source: EventError },

    #[error("the export that was made does not prove what it says")]
    NotProven { source: ExportError },
}

impl LogError {
    /// Whether the same call can succeed later: nothing is wrong with the log.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NotSigned { .. } | Self::TooManyPending { .. })
    }

    /// Whether it says that the log did not only grow. A station counts it as a violation of INV-EVID-1 and stops.
    pub fn is_violation(&self) -> bool {
        matches!(self, Self::Behind { .. } | Self::Forked { .. } | Self::Rewritten { .. })
    }

    pub(crate) fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { attempt, path: path.to_owned(), source }
    }
}
