//! What a device remembers of one product beside the boot journal: what it is, which version each image has, and for which
//! order the newest install is.
//!
//! ```text
//! update/<product>/component.json
//!   { "format": 1, "product", "hardware",
//!     "images":  [ { "sha256", "version" } ]                              of what lies in the slots, or is to
//!     "install": { "number", "rollout", "sha256", "version", "length", "security_version", "generation", "tries",
//!                  "failed", "reason" } }                                 the newest order that was begun; or null
//! ```
//!
//! Promises: what is armed was noted before, durably, with its rollout; **how an install ended is read from the boot
//! journal**, never from a word that was written in hope: [`Notes::outcome`] compares the journal's order number with the
//! note's. Only what never came as far as the journal is written here as failed.
//! Never: decides.

use boot::Ending;
use disk::Disk;
use model::manifest::{InstallEnd, Outcome, REASON_BYTES_MAX};
use model::{Digest, HardwareId, ProductId, RolloutId, SecurityVersion, Version};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use trust::uptane::Install;

/// A name of each slot, the one to come and two names of 63 characters: 2 KiB. What is longer is not ours.
const FILE_BYTES_MAX: u64 = 16 * 1024;
const FILE: &str = "component.json";
const FORMAT: u32 = 1;
/// Images whose versions are remembered: two slots and the one that is to come.
const IMAGES_MAX: usize = 3;

/// How often one order is started. The second time is for a trial that was cut short from outside: a device that loses power
/// while it tries something new has not shown that the new thing is bad.
pub const TRIES_MAX: u32 = 2;

#[derive(Debug, thiserror::Error)]
pub enum NotesError {
    #[error("no `{path}`: the product was never provisioned (`plimsoll-agent provision`)")]
    Missing { path: PathBuf },
    #[error("cannot read `{path}`")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{path}` is damaged: expected {expected}")]
    Damaged { path: PathBuf, expected: &'static str },
    #[error("cannot write `{path}`")]
    Unwritable { path: PathBuf, source: io::Error },
}

/// What the Director ordered, as far as it has to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    pub rollout: Option<RolloutId>,
    pub digest: Digest,
    pub version: Version,
    pub length: u64,
    pub security_version: SecurityVersion,
    /// Of the Director's metadata that ordered it. What confirms it has seen nothing older.
    pub generation: u64,
}

impl Ordered {
    /// Only of what both repositories name (INV-IMG-1).
    pub fn of(install: &Install, generation: u64) -> Self {
        let order = install.order();
        Self {
            rollout: order.rollout.clone(),
            digest: install.digest(),
            version: order.release.version,
            length: install.length(),
            security_version: order.release.security_version,
            generation,
        }
    }

    /// The same order: for the same rollout, of the same image. The generation only says when it was read.
    pub fn is(&self, other: &Self) -> bool {
        self.rollout == other.rollout && self.digest == other.digest
    }
}

/// The newest order that was begun, and how far it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Grows with each time that something is armed: the journal's order.
    pub number: u64,
    pub order: Ordered,
    /// How often it was armed.
    pub tries: u32,
    /// It came to its end before it was armed.
    pub failed: bool,
    /// For people.
    pub reason: String,
}

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notes {
    pub product: ProductId,
    pub hardware: HardwareId,
    images: Vec<(Digest, Version)>,
    install: Option<Noted>,
}

impl Notes {
    /// Of a new product with its first image.
    pub fn new(product: ProductId, hardware: HardwareId, digest: Digest, version: Version) -> Self {
        Self { product, hardware, images: vec![(digest, version)], install: None }
    }

    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, NotesError> {
        let path = dir.join(FILE);
        let bytes = match disk.read(&path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(NotesError::Missing { path });
            }
            Err(source) => return Err(NotesError::Unreadable { path, source }),
        };
        Self::parse(&bytes).map_err(|expected| NotesError::Damaged { path, expected })
    }

    /// Durable when it returns.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), NotesError> {
        let path = dir.join(FILE);
        disk::replace(disk, &path, &self.text())
            .map_err(|source| NotesError::Unwritable { path, source })
    }

    pub fn install(&self) -> Option<&Noted> {
        self.install.as_ref()
    }

    /// The version of an image that was provisioned or ordered.
    pub fn version(&self, digest: &Digest) -> Option<Version> {
        self.images.iter().find(|(known, _)| known == digest).map(|(_, version)| *version)
    }

    /// Notes that an order is begun. `slots`: what lies in the slots, which stays known.
    pub fn begin(&mut self, order: Ordered, slots: [Option<Digest>; 2]) {
        self.images.retain(|(digest, _)| slots.contains(&Some(*digest)));
        if self.version(&order.digest).is_none() {
            self.images.push((order.digest, order.version));
        }
        // The journal knows of two images at most; what is beyond them was there by mistake.
        self.images.truncate(IMAGES_MAX);
        match &mut self.install {
            Some(noted) if noted.order.is(&order) && !noted.failed => noted.order = order,
            earlier => {
                let number = earlier.as_ref().map_or(0, |noted| noted.number);
                let reason = String::new();
                *earlier = Some(Noted { number, order, tries: 0, failed: false, reason });
            }
        }
    }

    /// Notes that what was begun is about to be armed: the number for the journal.
    pub fn arm(&mut self) -> Option<u64> {
        let noted = self.install.as_mut()?;
        noted.number += 1;
        noted.tries += 1;
        noted.reason.clear();
        Some(noted.number)
    }

    /// Why it is given up. The end itself is the journal's word.
    pub fn explain(&mut self, reason: &str) {
        if let Some(noted) = &mut self.install {
            noted.reason = bounded(reason);
        }
    }

    /// The order came to its end before it was armed.
    pub fn fail(&mut self, order: Ordered, reason: &str) {
        let number = self.install.as_ref().map_or(0, |noted| noted.number);
        let reason = bounded(reason);
        self.install = Some(Noted { number, order, tries: 0, failed: true, reason });
    }

    /// How the newest install ended: the journal's word about the order that is noted.
    pub fn outcome(&self, state: &boot::State) -> Option<Outcome> {
        let noted = self.install.as_ref()?;
        let (end, why) = self.end(noted, state);
        let reason = if noted.reason.is_empty() { why.to_owned() } else { noted.reason.clone() };
        Some(Outcome {
            rollout: noted.order.rollout.clone(),
            product: self.product.clone(),
            digest: noted.order.digest,
            end,
            reason,
        })
    }

    fn end(&self, noted: &Noted, state: &boot::State) -> (InstallEnd, &'static str) {
        use InstallEnd::{Confirmed, Failed, Reverted, Underway};
        if noted.failed {
            return (Failed, "");
        }
        let number = boot::Order(noted.number);
        if noted.tries == 0 {
            return (Underway, "");
        }
        if state.image().order == number && state.image().digest.0 == noted.order.digest.0 {
            return (Confirmed, "");
        }
        let Some(last) = state.last().filter(|last| last.order == number) else {
            return (Underway, "");
        };
        let again = noted.tries < TRIES_MAX;
        match last.how {
            Ending::Confirmed => (Confirmed, ""),
            Ending::NotConfirmed if again => (Underway, "its trial was cut short"),
            Ending::NotConfirmed => (Reverted, "it was started and did not confirm in time"),
            Ending::GaveUp(_) => (Reverted, "it was started and gave up"),
            Ending::NotWhole if again => (Underway, "it was not whole when it was to start"),
            Ending::NotWhole => (Failed, "it was not whole when it was to start"),
            Ending::BelowFloor => (Failed, "it is below the security version"),
            // Withdrawn when another order came, or when the lease had run out while it was armed: it may come again.
            Ending::Withdrawn => (Underway, "it was withdrawn before it started"),
            Ending::Decayed => (Reverted, "it decayed in its slot"),
        }
    }

    fn text(&self) -> Vec<u8> {
        let stored = Stored {
            format: FORMAT,
            product: self.product.to_string(),
            hardware: self.hardware.to_string(),
            images: self
                .images
                .iter()
                .map(|(digest, version)| StoredImage {
                    sha256: digest.to_string(),
                    version: version.to_string(),
                })
                .collect(),
            install: self.install.as_ref().map(|noted| StoredInstall {
                number: noted.number,
                rollout: noted.order.rollout.as_ref().map(ToString::to_string),
                sha256: noted.order.digest.to_string(),
                version: noted.order.version.to_string(),
                length: noted.order.length,
                security_version: noted.order.security_version.0,
                generation: noted.order.generation,
                tries: noted.tries,
                failed: noted.failed,
                reason: noted.reason.clone(),
            }),
        };
        let mut text = serde_json::to_vec_pretty(&stored).expect("numbers and text are JSON");
        text.push(b'\n');
        text
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let stored: Stored =
            serde_json::from_slice(bytes).map_err(|_| "the fields of format 1, and no other")?;
        if stored.format != FORMAT {
            return Err("format 1");
        }
        let digest = |text: &str| Digest::from_hex(text).ok_or("digests of 64 hexadecimal digits");
        let version = |text: &str| text.parse().map_err(|_| "versions as in 1.2.0");
        if stored.images.len() > IMAGES_MAX {
            return Err("at most 3 images");
        }
        let mut images = Vec::new();
        for image in &stored.images {
            images.push((digest(&image.sha256)?, version(&image.version)?));
        }
        let install = match stored.install {
            None => None,
            Some(install) => {
                let rollout = install.rollout.map(|name| RolloutId::new(&*name)).transpose();
                if install.reason.len() > REASON_BYTES_MAX {
                    return Err("a reason of at most 200 bytes");
                }
                Some(Noted {
                    number: install.number,
                    order: Ordered {
                        rollout: rollout.map_err(|_| "a rollout id")?,
                        digest: digest(&install.sha256)?,
                        version: version(&install.version)?,
                        length: install.length,
                        security_version: SecurityVersion(install.security_version),
                        generation: install.generation,
                    },
                    tries: install.tries,
                    failed: install.failed,
                    reason: install.reason,
                })
            }
        };
        Ok(Self {
            product: ProductId::new(&*stored.product).map_err(|_| "a product id")?,
            hardware: HardwareId::new(&*stored.hardware).map_err(|_| "a hardware id")?,
            images,
            install,
        })
    }
}

/// As much of a text as a manifest takes.
pub fn bounded(text: &str) -> String {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    product: String,
    hardware: String,
    images: Vec<StoredImage>,
    install: Option<StoredInstall>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredImage {
    sha256: String,
    version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredInstall {
    number: u64,
    rollout: Option<String>,
    sha256: String,
    version: String,
    length: u64,
    security_version: u32,
    generation: u64,
    tries: u32,
    failed: bool,
    reason: String,
}

#[cfg(test)]
mod tests;
