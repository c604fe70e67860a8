//! The signed head of the tree (C2SP tlog-checkpoint).
//!
//! ```text
//! text = origin newline | size, decimal newline | root, base64 newline
//! ```
//!
//! The name of the log's key is its origin. Ours have no extension lines; those of others are ignored.

use crate::merkle::Hash;
use crate::note::{self, NoteError, NoteKey};
use std::fmt;
use trust::cose::Signer;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("the checkpoint is not believed")]
    Note(#[from] NoteError),

    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),

    #[error("the checkpoint is of the log `{found}`, expected `{expected}`")]
    OtherLog { expected: String, found: String },
}

/// How many leaves, and what they come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub size: u64,
    pub root: Hash,
}

impl Head {
    /// The head of the tree without leaves.
    pub fn of_no_leaves() -> Self {
        Self { size: 0, root: Hash::of_no_leaves() }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events, root {}", self.size, self.root)
    }
}

/// A head that was signed, and its note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    head: Head,
    note: String,
}

impl Checkpoint {
    /// Signs a head. Whoever calls keeps to the promise that the heads of a log never contradict each other.
    pub(crate) fn sign(head: Head, key: &NoteKey, signer: &dyn Signer) -> Result<Self, NoteError> {
        let text = format!("{}\n{}\n{}\n", key.name(), head.size, head.root);
        Ok(Self { head, note: note::sign(&text, key, signer)? })
    }

    /// Reads a note that `key` signed.
    pub fn open(note: &str, key: &NoteKey) -> Result<Self, CheckpointError> {
        let text = note::open(note, key)?;
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Malformed("fewer than three lines"));
        };
        if lines.any(str::is_empty) {
            return Err(CheckpointError::Malformed("an empty line"));
        }
        if origin != key.name() {
            let (expected, found) = (key.name().to_owned(), origin.to_owned());
            return Err(CheckpointError::OtherLog { expected, found });
        }
        let plain = size == "0" || !size.starts_with(['0', '+']);
        let size = size.parse().ok().filter(|_| plain);
        let size = size.ok_or(CheckpointError::Malformed("the size is no number"))?;
        let root = Hash::from_base64(root);
        let root = root.ok_or(CheckpointError::Malformed("the root is no hash"))?;
        Ok(Self { head: Head { size, root }, note: note.to_owned() })
    }

    pub fn head(&self) -> Head {
        self.head
    }

    pub fn size(&self) -> u64 {
        self.head.size
    }

    /// The signed note, as others read it.
    pub fn note(&self) -> &str {
        &self.note
    }
}
