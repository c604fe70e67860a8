//! The version manifest: what a device has installed, what it runs and how its last install ended, in its own words.
//!
//! ```text
//! manifest  = [device, components, director, images, outcome / null]
//! component = [product, hardware, floor, running: 0 / 1, boot, [slot / null, slot / null]]
//! slot      = [version, digest: bstr 32, length, security_version]
//! director  = images = [root, timestamp, snapshot, targets]        trusted versions of the two repositories; 0: none
//! outcome   = [rollout / null, product, digest: bstr 32, end, reason]
//! ```
//!
//! It is the payload of an envelope of kind *manifest*, under the key that seals the device's readings and with a counter
//! that is of manifests alone: the epoch is that of the start, the sequence counts manifests from 0. They go to the control
//! plane by check-in and not over the bus, and readings' counters are to have no gaps. A manifest that is shown again is known
//! by its counter. `docs/formats/manifest.md`.

use crate::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect, nullable};
use crate::id::{BadName, DeviceId, Digest, HardwareId, ProductId, RolloutId};
use crate::release::{SecurityVersion, Version};
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::str::FromStr;
use minicbor::{Decoder, Encoder};

/// Products that one device can report.
pub const COMPONENTS_MAX: usize = 8;
/// The longest reason of an outcome, in bytes of UTF-8.
pub const REASON_BYTES_MAX: usize = 200;
/// The longest manifest: 8 components of two slots, all names and numbers at their widest, and an outcome.
pub const MANIFEST_BYTES_MAX: usize = 4096;

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub device: DeviceId,
    pub components: Vec<Component>,
    /// Versions of the Director's metadata that the device trusts.
    pub director: Trusted,
    /// Versions of the image repository's metadata that the device trusts.
    pub images: Trusted,
    /// How the newest install ended, if there was one.
    pub outcome: Option<Outcome>,
}

/// One product on the device, with its two slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    pub product: ProductId,
    pub hardware: HardwareId,
    /// Below it nothing boots.
    pub floor: SecurityVersion,
    /// The slot whose image runs now.
    pub running: Slot,
    pub boot: Boot,
    /// What the slots hold. The running one is never empty.
    pub slots: [Option<Installed>; 2],
}

impl Component {
    /// The image that runs now.
    pub fn running_image(&self) -> &Installed {
        self.slots[self.running as usize].as_ref().expect("a running slot is never empty")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    A = 0,
    B = 1,
}

/// A whole image in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    pub version: Version,
    pub digest: Digest,
    pub length: u64,
    pub security_version: SecurityVersion,
}

/// How the loader came to start what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Boot {
    /// What runs was confirmed before this start.
    Confirmed = 0,
    /// What runs is on trial: it has neither been confirmed nor given up.
    Trial = 1,
    /// What runs was started again because what was tried did not confirm in time.
    Reverted = 2,
    /// What runs was started because the slot that should have was not whole.
    Fallback = 3,
}

impl Boot {
    pub const ALL: [Boot; 4] = [Self::Confirmed, Self::Trial, Self::Reverted, Self::Fallback];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Trial => "trial",
            Self::Reverted => "reverted",
            Self::Fallback => "fallback",
        }
    }
}

/// The versions of one repository's metadata that a device trusts; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    pub root: u64,
    pub timestamp: u64,
    pub snapshot: u64,
    pub targets: u64,
}

/// How an install ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rollout that ordered it; none for an install by hand.
    pub rollout: Option<RolloutId>,
    pub product: ProductId,
    /// Of the image that was to be installed.
    pub digest: Digest,
    pub end: InstallEnd,
    /// For the person who reads it; empty when there is nothing to say.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstallEnd {
    /// It runs and is confirmed.
    Confirmed = 0,
    /// It was started and given up: what ran before runs again.
    Reverted = 1,
    /// It was never started: refused, or not to be had whole.
    Failed = 2,
    /// It is still under way.
    Underway = 3,
}

impl InstallEnd {
    pub const ALL: [InstallEnd; 4] =
        [Self::Confirmed, Self::Reverted, Self::Failed, Self::Underway];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
            Self::Underway => "underway",
        }
    }
}

type Written = Result<(), minicbor::encode::Error<Infallible>>;

impl Manifest {
    /// The payload of the manifest's envelope.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.components.len() <= COMPONENTS_MAX, "a manifest has at most 8 components");
        let mut e = Encoder::new(Vec::with_capacity(512));
        self.encode_into(&mut e).expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    fn encode_into(&self, e: &mut Encoder<Vec<u8>>) -> Written {
        e.array(5)?.str(self.device.as_str())?;
        e.array(self.components.len() as u64)?;
        for component in &self.components {
            e.array(6)?.str(component.product.as_str())?.str(component.hardware.as_str())?;
            e.u32(component.floor.0)?.u8(component.running as u8)?.u8(component.boot as u8)?;
            e.array(2)?;
            for slot in &component.slots {
                encode_slot(e, slot.as_ref())?;
            }
        }
        for trusted in [&self.director, &self.images] {
            e.array(4)?.u64(trusted.root)?.u64(trusted.timestamp)?;
            e.u64(trusted.snapshot)?.u64(trusted.targets)?;
        }
        let Some(outcome) = &self.outcome else {
            e.null()?;
            return Ok(());
        };
        assert!(outcome.reason.len() <= REASON_BYTES_MAX, "a reason has at most 200 bytes");
        e.array(5)?;
        match &outcome.rollout {
            Some(rollout) => e.str(rollout.as_str())?,
            None => e.null()?,
        };
        e.str(outcome.product.as_str())?.bytes(outcome.digest.as_bytes())?;
        e.u8(outcome.end as u8)?.str(&outcome.reason)?;
        Ok(())
    }

    /// Reads the payload of a manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(Malformed::new(Reason::Oversize, "a manifest of at most 4096 bytes"));
        }
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 5, "[device, components, director, images, outcome]")?;
        let device = name(&mut d, "a device id")?;
        let len = array_up_to(&mut d, COMPONENTS_MAX, "at most 8 components")?;
        let mut components: Vec<Component> = Vec::with_capacity(len);
        for _ in 0..len {
            let component = decode_component(&mut d)?;
            if components.iter().any(|other| other.product == component.product) {
                return Err(Malformed::new(Reason::OutOfDomain, "each product once"));
            }
            components.push(component);
        }
        let director = decode_trusted(&mut d)?;
        let images = decode_trusted(&mut d)?;
        let outcome = nullable(&mut d, decode_outcome)?;
        at_end(&d)?;
        Ok(Self { device, components, director, images, outcome })
    }
}

/// What kind of hardware a product runs on, by a manifest that was read before: nothing else of it is looked at. `None`:
/// there is no such product. It is for a pass over a fleet, where [`Manifest::decode`] is most of the time.
pub fn hardware_of<'a>(manifest: &'a [u8], product: &ProductId) -> Option<&'a str> {
    let mut d = Decoder::new(manifest);
    d.array().ok()?;
    d.skip().ok()?;
    for _ in 0..d.array().ok()?? {
        d.array().ok()?;
        let found = d.str().ok()?;
        let hardware = d.str().ok()?;
        if found == product.as_str() {
            return Some(hardware);
        }
        // floor, running, boot, slots
        for _ in 0..4 {
            d.skip().ok()?;
        }
    }
    None
}

fn encode_slot(e: &mut Encoder<Vec<u8>>, slot: Option<&Installed>) -> Written {
    let Some(installed) = slot else {
        e.null()?;
        return Ok(());
    };
    let Version { major, minor, patch } = installed.version;
    e.array(4)?.array(3)?.u32(major)?.u32(minor)?.u32(patch)?;
    e.bytes(installed.digest.as_bytes())?;
    e.u64(installed.length)?.u32(installed.security_version.0)?;
    Ok(())
}

fn decode_component(d: &mut Decoder<'_>) -> Result<Component, Malformed> {
    array_of(d, 6, "[product, hardware, floor, running, boot, slots]")?;
    let product = name(d, "a product id")?;
    let hardware = name(d, "a hardware id")?;
    let floor = SecurityVersion(expect(d.u32(), "a security version (32 bits)")?);
    let running = match expect(d.u8(), "a slot")? {
        0 => Slot::A,
        1 => Slot::B,
        _ => return Err(Malformed::new(Reason::UnknownKind, "a slot: 0 or 1")),
    };
    let boot = expect(d.u8(), "a boot outcome")?;
    let boot = *Boot::ALL
        .get(usize::from(boot))
        .ok_or(Malformed::new(Reason::UnknownKind, "a boot outcome: 0 to 3"))?;
    array_of(d, 2, "two slots")?;
    let slots = [nullable(d, decode_slot)?, nullable(d, decode_slot)?];
    if slots[running as usize].is_none() {
        return Err(Malformed::new(Reason::OutOfDomain, "an image in the running slot"));
    }
    Ok(Component { product, hardware, floor, running, boot, slots })
}

fn decode_slot(d: &mut Decoder<'_>) -> Result<Installed, Malformed> {
    array_of(d, 4, "[version, digest, length, security version]")?;
    array_of(d, 3, "a version: [major, minor, patch]")?;
    let mut number = || expect(d.u32(), "a part of a version (32 bits)");
    let version = Version::new(number()?, number()?, number()?);
    Ok(Installed {
        version,
        digest: digest(d)?,
        length: expect(d.u64(), "a length in bytes")?,
        security_version: SecurityVersion(expect(d.u32(), "a security version (32 bits)")?),
    })
}

fn decode_trusted(d: &mut Decoder<'_>) -> Result<Trusted, Malformed> {
    array_of(d, 4, "[root, timestamp, snapshot, targets]")?;
    let mut version = || expect(d.u64(), "a version of metadata");
    Ok(Trusted {
        root: version()?,
        timestamp: version()?,
        snapshot: version()?,
        targets: version()?,
    })
}

fn decode_outcome(d: &mut Decoder<'_>) -> Result<Outcome, Malformed> {
    array_of(d, 5, "[rollout, product, digest, end, reason]")?;
    let rollout = nullable(d, |d| name(d, "a rollout id"))?;
    let product = name(d, "a product id")?;
    let digest = digest(d)?;
    let end = expect(d.u8(), "an end of an install")?;
    let end = *InstallEnd::ALL
        .get(usize::from(end))
        .ok_or(Malformed::new(Reason::UnknownKind, "an end of an install: 0 to 3"))?;
    let reason = expect(d.str(), "a reason")?;
    if reason.len() > REASON_BYTES_MAX {
        return Err(Malformed::new(Reason::Oversize, "a reason of at most 200 bytes"));
    }
    Ok(Outcome { rollout, product, digest, end, reason: reason.into() })
}

fn digest(d: &mut Decoder<'_>) -> Result<Digest, Malformed> {
    const EXPECTED: &str = "a digest of 32 bytes";
    Digest::try_from(expect(d.bytes(), EXPECTED)?)
        .map_err(|_| Malformed::new(Reason::OutOfDomain, EXPECTED))
}

fn name<T: FromStr<Err = BadName>>(
    d: &mut Decoder<'_>,
    expected: &'static str,
) -> Result<T, Malformed> {
    expect(d.str(), expected)?.parse().map_err(|_| Malformed::new(Reason::OutOfDomain, expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Item;
    use alloc::vec;

    fn installed(minor: u32) -> Installed {
        Installed {
            version: Version::new(1, minor, 0),
            digest: Digest([minor as u8; 32]),
            length: 5_000_000,
            security_version: SecurityVersion(3),
        }
    }

    fn manifest() -> Manifest {
        let component = |product: &str, running, other| Component {
            product: ProductId::new(product).unwrap(),
            hardware: HardwareId::new("pump-box").unwrap(),
            floor: SecurityVersion(2),
            running,
            boot: Boot::Reverted,
            slots: match running {
                Slot::A => [Some(installed(1)), other],
                Slot::B => [other, Some(installed(1))],
            },
        };
        Manifest {
            device: DeviceId::new("pump-7").unwrap(),
            components: vec![
                component("pump-app", Slot::A, Some(installed(2))),
                component("agent", Slot::B, None),
            ],
            director: Trusted { root: 1, timestamp: 41, snapshot: 41, targets: 41 },
            images: Trusted { root: 2, timestamp: 7, snapshot: 6, targets: 5 },
            outcome: Some(Outcome {
                rollout: Some(RolloutId::new("r-12").unwrap()),
                product: ProductId::new("pump-app").unwrap(),
                digest: Digest([2; 32]),
                end: InstallEnd::Reverted,
                reason: "health: gateway not reached".into(),
            }),
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was_written() {
        assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
        let bare = Manifest { components: vec![], outcome: None, ..manifest() };
        assert_eq!(Manifest::decode(&bare.encode()), Ok(bare));
        let mut by_hand = manifest();
        by_hand.outcome.as_mut().unwrap().rollout = None;
        assert_eq!(Manifest::decode(&by_hand.encode()), Ok(by_hand));
        assert_eq!(manifest().components[1].running_image(), &installed(1));
    }

    #[test]
    fn the_hardware_of_a_product_is_found_without_reading_the_rest() {
        let mut said = manifest();
        said.components[1].hardware = HardwareId::new("box-2").unwrap();
        let bytes = said.encode();
        let of = |product: &str| hardware_of(&bytes, &ProductId::new(product).unwrap());
        assert_eq!((of("pump-app"), of("agent")), (Some("pump-box"), Some("box-2")));
        assert_eq!(of("pump"), None);
        for len in 0..bytes.len() {
            let _ = hardware_of(&bytes[..len], &ProductId::new("other").unwrap());
        }
    }

    #[test]
    fn the_widest_manifest_is_within_its_bound() {
        let most = u64::MAX;
        let long = |n: usize| alloc::format!("{n:0>63}");
        let installed = Installed {
            version: Version::new(u32::MAX, u32::MAX, u32::MAX),
            digest: Digest([255; 32]),
            length: most,
            security_version: SecurityVersion(u32::MAX),
        };
        let component = |n| Component {
            product: ProductId::new(long(n)).unwrap(),
            hardware: HardwareId::new(long(n)).unwrap(),
            floor: SecurityVersion(u32::MAX),
            running: Slot::B,
            boot: Boot::Fallback,
            slots: [Some(installed), Some(installed)],
        };
        let trusted = Trusted { root: most, timestamp: most, snapshot: most, targets: most };
        let widest = Manifest {
            device: DeviceId::new(long(0)).unwrap(),
            components: (0..COMPONENTS_MAX).map(component).collect(),
            director: trusted,
            images: trusted,
            outcome: Some(Outcome {
                rollout: Some(RolloutId::new(long(0)).unwrap()),
                product: ProductId::new(long(0)).unwrap(),
                digest: Digest([255; 32]),
                end: InstallEnd::Underway,
                reason: "x".repeat(REASON_BYTES_MAX),
            }),
        };
        let bytes = widest.encode();
        assert!(bytes.len() <= MANIFEST_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(Manifest::decode(&bytes), Ok(widest));
    }

    #[test]
    fn a_manifest_that_was_changed_is_refused_with_its_reason() {
        use Reason::*;
        type Change = fn(&mut Item);
        let table: &[(&str, Reason, Change)] = &[
            ("a device that is no name", OutOfDomain, |m| *m.at(&[0]) = "Pump".into()),
            ("a product that is no name", OutOfDomain, |m| *m.at(&[1, 0, 0]) = "".into()),
            ("a product twice", OutOfDomain, |m| *m.at(&[1, 1, 0]) = "pump-app".into()),
            ("a hardware that is no name", OutOfDomain, |m| *m.at(&[1, 0, 1]) = "a b".into()),
            ("a floor above 32 bits", BrokenCbor, |m| *m.at(&[1, 0, 2]) = (1 << 32).into()),
            ("a third slot", UnknownKind, |m| *m.at(&[1, 0, 3]) = 2.into()),
            ("an unknown boot outcome", UnknownKind, |m| *m.at(&[1, 0, 4]) = 4.into()),
            ("three slots", BrokenCbor, |m| m.at(&[1, 0, 5]).items().push(Item::Null)),
            ("an empty slot that runs", OutOfDomain, |m| *m.at(&[1, 0, 5, 0]) = Item::Null),
            ("a version of two parts", BrokenCbor, |m| {
                drop(m.at(&[1, 0, 5, 0, 0]).items().pop());
            }),
            ("a digest of 31 bytes", OutOfDomain, |m| {
                *m.at(&[1, 0, 5, 0, 1]) = [1; 31][..].into();
            }),
            ("a length below 0", BrokenCbor, |m| *m.at(&[1, 0, 5, 0, 2]) = (-1).into()),
            ("a component with a field more", BrokenCbor, |m| {
                m.at(&[1, 0]).items().push(Item::Null);
            }),
            ("9 components", Oversize, |m| {
                let component = m.at(&[1, 0]).clone();
                m.at(&[1]).items().resize(COMPONENTS_MAX + 1, component);
            }),
            ("a version of metadata below 0", BrokenCbor, |m| *m.at(&[2, 1]) = (-1).into()),
            ("three versions of metadata", BrokenCbor, |m| drop(m.at(&[3]).items().pop())),
            ("a rollout that is no name", OutOfDomain, |m| *m.at(&[4, 0]) = "R".into()),
            ("an unknown end", UnknownKind, |m| *m.at(&[4, 3]) = 4.into()),
            ("a reason of 201 bytes", Oversize, |m| *m.at(&[4, 4]) = (&*"x".repeat(201)).into()),
            ("an outcome without reason", BrokenCbor, |m| drop(m.at(&[4]).items().pop())),
            ("no outcome at all", BrokenCbor, |m| drop(m.items().pop())),
            ("no array", BrokenCbor, |m| *m = Item::Null),
            ("a byte behind it", TrailingBytes, |m| {
                *m = Item::Raw([&m.bytes()[..], &[0]].concat())
            }),
            ("longer than any manifest", Oversize, |m| *m = Item::Raw(vec![0; 4097])),
        ];
        let accepted = manifest().encode();
        for (what, reason, change) in table {
            let mut tree = Item::read(&accepted);
            change(&mut tree);
            let refused = Manifest::decode(&tree.bytes());
            assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
        }
        for len in 0..accepted.len() {
            assert_eq!(Manifest::decode(&accepted[..len]).unwrap_err().reason, BrokenCbor, "{len}");
        }
    }
}
