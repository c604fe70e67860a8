//! Small files that are replaced whole and carry their own digest.
//!
//! ```text
//! file = CBOR, its format version first | SHA-256 of that, 32 bytes
//! ```

use crate::reserve;
use disk::{Disk, is_full};
use minicbor::{Decoder, Encoder};
use model::cbor::{Malformed, Reason, expect};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

/// The longest file that is read. `windows` is written to fit (`spool::WINDOWS_BYTES_MAX`); all others are far below.
pub(crate) const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("cannot {attempt} `{}`", path.display())]
    File { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("`{}` is damaged; move it away to go on without what it says", path.display())]
    Damaged { path: PathBuf, source: Malformed },
}

impl KeptError {
    /// Whether there was no space for it: later there may be.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::File { source, .. } if is_full(source))
    }
}

pub(crate) type Written = Result<(), minicbor::encode::Error<Infallible>>;

/// Encodes a file's content and puts its digest behind it.
pub(crate) fn seal(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    write(&mut e).expect("writing to a Vec cannot fail");
    let mut bytes = e.into_writer();
    let digest = trust::digest(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

/// The content of a file whose digest is right.
pub(crate) fn open(bytes: &[u8]) -> Result<&[u8], Malformed> {
    const EXPECTED: &str = "its bytes, and their SHA-256 behind them";
    let damaged = Malformed::new(Reason::OutOfDomain, EXPECTED);
    let at = bytes.len().checked_sub(32).ok_or(damaged.clone())?;
    let (content, digest) = bytes.split_at(at);
    if trust::digest(content).as_bytes() == digest { Ok(content) } else { Err(damaged) }
}

/// `None`: there is no such file.
pub(crate) fn read<T>(
    disk: &dyn Disk,
    path: &Path,
    decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, KeptError> {
    let error = |source| KeptError::File { attempt: "read", path: path.to_owned(), source };
    if !disk.exists(path).map_err(error)? {
        return Ok(None);
    }
    let bytes = disk.read(path, FILE_BYTES_MAX).map_err(error)?;
    let damaged = |source| KeptError::Damaged { path: path.to_owned(), source };
    open(&bytes).and_then(decode).map(Some).map_err(damaged)
}

pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), KeptError> {
    write(disk, path, bytes).map_err(|source| KeptError::File {
        attempt: "replace",
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file whole. On a full disk it takes the room that is held for it.
pub(crate) fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().expect("a file of ours lies in the gateway's directory");
    match disk::replace(disk, path, bytes) {
        Err(e) if is_full(&e) && reserve::give_up(disk, dir)? => {
            let replaced = disk::replace(disk, path, bytes);
            reserve::hold(disk, dir)?;
            replaced
        }
        replaced => replaced,
    }
}

/// Makes names durable that a killed process may have left behind, before anything is built upon them.
pub(crate) fn settle(disk: &dyn Disk, dir: &Path) -> Result<(), KeptError> {
    disk.sync_dir(dir).map_err(|source| KeptError::File {
        attempt: "sync",
        path: dir.to_owned(),
        source,
    })
}

pub(crate) fn version(d: &mut Decoder<'_>) -> Result<(), Malformed> {
    match expect(d.u8(), "format version 1")? {
        1 => Ok(()),
        _ => Err(Malformed::new(Reason::UnknownKind, "format version 1")),
    }
}
