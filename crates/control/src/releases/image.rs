//! An image out of the vendor's repository, once its bytes are known to be those that the vendor named.
//!
//! A whole image is read before its first byte leaves; after that what the file system says of the file has to be what it
//! said then. Who fetches it judges again (a gateway, and the device): this look keeps a damaged repository from
//! costing every gateway of a site its whole length.

use super::Releases;
use model::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex};

const CHUNK_BYTES: usize = 256 * 1024;

/// Why an image is not passed on.
#[derive(Debug, thiserror::Error)]
pub enum NoImage {
    #[error("no image with SHA-256 {0} is published: expected one that the vendor's targets name")]
    NotPublished(Digest),
    #[error("cannot read `{name}` of the vendor's repository")]
    Read { name: String, source: io::Error },
    #[error("`{name}` of the vendor's repository has {found}, expected {expected}")]
    Damaged { name: String, expected: String, found: String },
    #[error("the image was changed while it was read")]
    Changed,
    #[error("reading the image was given up before its end")]
    GivenUp,
}

/// What the file system says of a file. Whoever changes its bytes changes this, unless he owns the clock and the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let seen = file.metadata()?;
        Ok(Self {
            place: (seen.dev(), seen.ino()),
            length: seen.len(),
            modified: (seen.mtime(), seen.mtime_nsec()),
            changed: (seen.ctime(), seen.ctime_nsec()),
        })
    }
}

/// An image that may be passed on.
#[derive(Clone, Debug)]
pub struct Image {
    file: Arc<File>,
    stamp: Stamp,
}

impl Image {
    pub fn length(&self) -> u64 {
        self.stamp.length
    }

    /// Up to 256 KiB from `offset` on. Fails if the file is not the one any more that was verified.
    pub async fn read(&self, offset: u64, bytes_max: u64) -> Result<Vec<u8>, NoImage> {
        let image = self.clone();
        let work = move || {
            let left = image.length().saturating_sub(offset).min(bytes_max);
            let mut bytes = vec![0; left.min(CHUNK_BYTES as u64) as usize];
            let name = String::new();
            let failed = |source| NoImage::Read { name: name.clone(), source };
            image.file.read_exact_at(&mut bytes, offset).map_err(failed)?;
            // After the reading: what was changed before it is seen.
            if Stamp::of(&image.file).map_err(failed)? == image.stamp {
                Ok(bytes)
            } else {
                Err(NoImage::Changed)
            }
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(NoImage::GivenUp))
    }
}

/// The images that were verified since the start, by what the file system says of them.
#[derive(Debug, Default)]
pub(super) struct Images {
    verified: Mutex<HashMap<Digest, Stamp>>,
    /// One image at a time is read whole.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Images {
    fn verified(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Stamp>> {
        self.verified.lock().expect("nothing panics while it holds the stamps")
    }
}

impl Releases {
    /// An image that is published, verified. The first time after a start, or after its file changed, it is read whole.
    pub async fn image(&self, digest: Digest) -> Result<Image, NoImage> {
        let not_published = NoImage::NotPublished(digest);
        let Some((repository, published)) = self.0.repository.as_ref().zip(self.published()) else {
            return Err(not_published);
        };
        let target = published.image(digest).ok_or(not_published)?;
        let (name, length) = (target.file_name(published.consistent_snapshot), target.length);
        let turn = self.0.images.turn.clone();
        let (source, inner) = (repository.source.clone(), self.0.clone());
        let work = move || {
            let failed = |source| NoImage::Read { name: name.clone(), source };
            let file = source.image(&name).map_err(failed)?;
            let stamp = Stamp::of(&file).map_err(failed)?;
            let is_known = || inner.images.verified().get(&digest) == Some(&stamp);
            if is_known() {
                return Ok(Image { file: Arc::new(file), stamp });
            }
            let _turn = turn.blocking_lock();
            if !is_known() {
                expect(&name, format!("{length} bytes"), format!("{} bytes", stamp.length))?;
                let found = digest_of(&file).map_err(failed)?;
                expect(&name, format!("SHA-256 {digest}"), format!("SHA-256 {found}"))?;
                if Stamp::of(&file).map_err(failed)? != stamp {
                    return Err(NoImage::Changed);
                }
                let mut verified = inner.images.verified();
                // What is not published any more is not asked for any more.
                verified.retain(|known, _| published.image(*known).is_some());
                verified.insert(digest, stamp);
            }
            Ok(Image { file: Arc::new(file), stamp })
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(NoImage::GivenUp))
    }
}

fn expect(name: &str, expected: String, found: String) -> Result<(), NoImage> {
    if expected == found {
        Ok(())
    } else {
        Err(NoImage::Damaged { name: name.to_owned(), expected, found })
    }
}

fn digest_of(mut file: &File) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Digest(hash.finalize().into())),
            n => hash.update(&chunk[..n]),
        }
    }
}
