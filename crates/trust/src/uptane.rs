//! Uptane: two repositories in two hands, and what a device does when both say the same.
//!
//! The vendor's **image repository** says what exists; its keys lie offline. The operator's **Director** says what this one
//! device runs now; its timestamp, snapshot and targets are made on demand, name the device in their signed part
//! (`plimsoll_device`) and have one version: the site's generation. Nothing is installed that the two do not both name
//! (IMG-1): a stolen Director can choose among the vendor's releases for this hardware above the device's floor, and
//! cannot make one; a stolen vendor key reaches no device that no Director points at it.
//!
//! Never: fetches, writes, waits. [`directed`] and [`assess`] are pure functions.

use crate::cose::Signer;
use crate::tuf::make::{self, Head, NotMade};
use crate::tuf::{Current, Custom, Order, Role, Target};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use model::manifest::{Boot, Component};
use model::{DeviceId, Digest, HardwareId, ProductId, SecurityVersion, Timestamp, Version};

/// Who signs the Director's online roles.
#[derive(Clone, Copy)]
pub struct Signers<'a> {
    pub timestamp: &'a [&'a dyn Signer],
    pub snapshot: &'a [&'a dyn Signer],
    pub targets: &'a [&'a dyn Signer],
}

/// How long what the Director says holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    pub timestamp: Duration,
    pub snapshot: Duration,
    pub targets: Duration,
}

/// The Director's three files for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directed {
    pub generation: u64,
    pub timestamp: Vec<u8>,
    pub snapshot: Vec<u8>,
    pub targets: Vec<u8>,
}

impl Directed {
    /// The file of this name, as a client asks for it.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let versioned = |role: Role| role.versioned_file(self.generation);
        if name == Role::Timestamp.file() {
            Some(&self.timestamp)
        } else if name == versioned(Role::Snapshot) {
            Some(&self.snapshot)
        } else if name == versioned(Role::Targets) {
            Some(&self.targets)
        } else {
            None
        }
    }
}

/// What `device` is to run as of `generation`, signed. A pure function: whoever asks again, at whichever control process,
/// gets the same bytes. So `issued` is the time at which the generation was made, kept with it, and not the time of the
/// question: two files of one version that differ are a fork to a device. A site whose generation stands still raises it
/// before the shortest lifetime is over.
pub fn directed(
    device: &DeviceId,
    generation: u64,
    orders: &[Target],
    issued: Timestamp,
    lifetimes: &Lifetimes,
    signers: &Signers<'_>,
) -> Result<Directed, NotMade> {
    let head = |lifetime: Duration| {
        let us = i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX);
        let expires = Timestamp(issued.as_us().saturating_add(us));
        Head { version: generation, expires, device: Some(device) }
    };
    let targets = make::targets(&head(lifetimes.targets), orders, signers.targets)?;
    let snapshot =
        make::snapshot(&head(lifetimes.snapshot), (generation, &targets), signers.snapshot)?;
    let timestamp =
        make::timestamp(&head(lifetimes.timestamp), (generation, &snapshot), signers.timestamp)?;
    Ok(Directed { generation, timestamp, snapshot, targets })
}

/// What a device does with one of its products.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assessment {
    Install(Install),
    /// It runs what it should, confirmed, and its floor goes up to this.
    Raise(SecurityVersion),
    /// It runs what it should, or nobody ordered anything.
    Nothing,
    Refused(Refused),
}

/// An image that the vendor and the Director both name, for this hardware, not below the floor. Only [`assess`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    path: String,
    length: u64,
    digest: Digest,
    order: Order,
}

impl Install {
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn order(&self) -> &Order {
        &self.order
    }
}

/// Why an order is not followed. `label` is the label of the counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The metadata that stand for the Director's do not name this device.
    NotOurDirector {
        expected: DeviceId,
        found: Option<DeviceId>,
    },
    /// The metadata that stand for the vendor's name a device.
    NotAnImageRepository {
        found: DeviceId,
    },
    /// The Director orders something in words that this build does not know (INV-MIX-1).
    Unreadable {
        path: String,
        expected: &'static str,
    },
    /// Two orders for one product.
    Ambiguous {
        first: String,
        second: String,
    },
    /// The vendor does not name it.
    NotPublished {
        path: String,
    },
    /// The vendor names it, and says something else of it.
    Differs {
        path: String,
        what: &'static str,
    },
    OtherHardware {
        own: HardwareId,
        found: Vec<HardwareId>,
    },
    BelowFloor {
        floor: SecurityVersion,
        found: SecurityVersion,
    },
    /// Another version has to be installed before.
    MustPass {
        from: Version,
        via: Version,
        to: Version,
    },
    /// The floor would rise above what runs, or above what is confirmed.
    RaiseTooEarly {
        to: SecurityVersion,
        runs: SecurityVersion,
        boot: Boot,
    },
}

impl Refused {
    pub const LABELS: [&str; 10] = [
        "not_our_director",
        "not_an_image_repository",
        "unreadable",
        "ambiguous",
        "not_published",
        "differs",
        "other_hardware",
        "below_floor",
        "must_pass",
        "raise_too_early",
    ];

    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotOurDirector { .. } => "not_our_director",
            Self::NotAnImageRepository { .. } => "not_an_image_repository",
            Self::Unreadable { .. } => "unreadable",
            Self::Ambiguous { .. } => "ambiguous",
            Self::NotPublished { .. } => "not_published",
            Self::Differs { .. } => "differs",
            Self::OtherHardware { .. } => "other_hardware",
            Self::BelowFloor { .. } => "below_floor",
            Self::MustPass { .. } => "must_pass",
            Self::RaiseTooEarly { .. } => "raise_too_early",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurDirector { expected, found } => {
                let found = found.as_ref().map_or("no device".to_string(), ToString::to_string);
                write!(f, "expected a Director's word for `{expected}`, found one for {found}")
            }
            Self::NotAnImageRepository { found } => {
                write!(f, "expected an image repository, found metadata for `{found}`")
            }
            Self::Unreadable { path, expected } => {
                write!(f, "order of `{path}`: expected {expected}")
            }
            Self::Ambiguous { first, second } => {
                write!(f, "expected one order a product, found `{first}` and `{second}`")
            }
            Self::NotPublished { path } => {
                write!(f, "expected `{path}` in the vendor's targets, found none")
            }
            Self::Differs { path, what } => {
                write!(f, "expected the vendor's and the Director's {what} of `{path}` to be equal")
            }
            Self::OtherHardware { own, found } => {
                write!(f, "expected an image for `{own}`, found one for {found:?}")
            }
            Self::BelowFloor { floor, found } => {
                write!(f, "expected security version {floor} or higher, found {found}")
            }
            Self::MustPass { from, via, to } => {
                write!(f, "expected {via} to be installed between {from} and {to}")
            }
            Self::RaiseTooEarly { to, runs, boot } => write!(
                f,
                "expected a confirmed image of security version {to} or higher before the floor rises, found {runs}, {}",
                boot.as_str()
            ),
        }
    }
}

impl core::error::Error for Refused {}

/// What `device` does with the product `me`, by the Director's word and the vendor's together (Uptane, full
/// verification: both were verified whole before they became [`Current`]).
pub fn assess(
    director: &Current<'_>,
    images: &Current<'_>,
    device: &DeviceId,
    me: &Component,
) -> Assessment {
    judge(director, images, device, me).unwrap_or_else(Assessment::Refused)
}

fn judge(
    director: &Current<'_>,
    images: &Current<'_>,
    device: &DeviceId,
    me: &Component,
) -> Result<Assessment, Refused> {
    if director.device() != Some(device) {
        let found = director.device().cloned();
        return Err(Refused::NotOurDirector { expected: device.clone(), found });
    }
    if let Some(found) = images.device().cloned() {
        return Err(Refused::NotAnImageRepository { found });
    }
    let Some((ordered, order)) = ordered(director, &me.product)? else {
        return Ok(Assessment::Nothing);
    };
    let digest = agreed(ordered, order, images)?;
    let release = &order.release;
    if !release.hardware.contains(&me.hardware) {
        let (own, found) = (me.hardware.clone(), release.hardware.clone());
        return Err(Refused::OtherHardware { own, found });
    }
    let running = me.running_image();
    if running.digest == digest {
        return raised(order, me);
    }
    if release.security_version < me.floor {
        let (floor, found) = (me.floor, release.security_version);
        return Err(Refused::BelowFloor { floor, found });
    }
    if let Some(via) = release.first_to_pass(running.version) {
        return Err(Refused::MustPass { from: running.version, via, to: release.version });
    }
    Ok(Assessment::Install(Install {
        path: ordered.path.clone(),
        length: ordered.length,
        digest,
        order: order.clone(),
    }))
}

/// The Director's one order for a product.
fn ordered<'a>(
    director: &Current<'a>,
    product: &ProductId,
) -> Result<Option<(&'a Target, &'a Order)>, Refused> {
    let mut found: Option<(&Target, &Order)> = None;
    for target in director.targets() {
        // What cannot be read could be for any product.
        let order = readable(target)?;
        if order.release.product != *product {
            continue;
        }
        if let Some((first, _)) = found {
            let (first, second) = (first.path.clone(), target.path.clone());
            return Err(Refused::Ambiguous { first, second });
        }
        found = Some((target, order));
    }
    Ok(found)
}

fn readable(target: &Target) -> Result<&Order, Refused> {
    let expected = match &target.custom {
        Custom::Order(order) => return Ok(order),
        Custom::Unreadable(expected) => expected,
        Custom::None => "custom data of ours",
    };
    Err(Refused::Unreadable { path: target.path.clone(), expected })
}

/// The digest of what both name, if they name the same: path, length, digest, and all of the release.
fn agreed(ordered: &Target, order: &Order, images: &Current<'_>) -> Result<Digest, Refused> {
    let path = || ordered.path.clone();
    let published = images.target(&ordered.path).ok_or(Refused::NotPublished { path: path() })?;
    let differs = |what| Refused::Differs { path: path(), what };
    if published.length != ordered.length {
        return Err(differs("length"));
    }
    // The digest that the loader will see is SHA-256: both have to state it.
    let (Some(digest), Some(vendors)) = (ordered.hashes.sha256, published.hashes.sha256) else {
        return Err(differs("SHA-256"));
    };
    if digest != vendors {
        return Err(differs("SHA-256"));
    }
    match (ordered.hashes.sha512, published.hashes.sha512) {
        (Some(one), Some(other)) if one != other => return Err(differs("SHA-512")),
        _ => {}
    }
    if readable(published)?.release != order.release {
        return Err(differs("release"));
    }
    Ok(digest)
}

fn raised(order: &Order, me: &Component) -> Result<Assessment, Refused> {
    let Some(to) = order.raise.filter(|to| *to > me.floor) else {
        return Ok(Assessment::Nothing);
    };
    let runs = me.running_image().security_version;
    let confirmed = me.boot != Boot::Trial;
    // A floor above what runs would leave nothing to boot (mcuboot#2549 is that brick).
    if confirmed && to <= runs && to <= order.release.security_version {
        Ok(Assessment::Raise(to))
    } else {
        Err(Refused::RaiseTooEarly { to, runs, boot: me.boot })
    }
}

/// Orders for products that the device does not have: nothing follows from them, and each is an event.
pub fn foreign<'a>(
    director: &Current<'a>,
    components: &[Component],
) -> impl Iterator<Item = &'a Target> {
    director.targets().iter().filter(move |target| match &target.custom {
        Custom::Order(order) => !components.iter().any(|c| c.product == order.release.product),
        Custom::None | Custom::Unreadable(_) => false,
    })
}

#[cfg(test)]
mod tests;
