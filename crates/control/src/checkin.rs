//! A device's check-in, judged: whether its manifest is its own word, of now, and came by its own gateway.
//!
//! The gateway that forwards it is believed for nothing but that it forwards it: it signs nothing here. What is asked, in
//! this order:
//!
//! | asked | else |
//! | --- | --- |
//! | it parses, and is a manifest | `broken_cbor` and the like, `other_kind` |
//! | the site certified the key that it names, to seal | `unknown_key` |
//! | that key is of the device in whose name it was forwarded | `wrong_device` |
//! | that device is of the gateway's zone | `wrong_zone` |
//! | that device is enrolled, or quarantined | `not_enrolled`, `revoked` |
//! | that key is its present one, or was a moment ago | `key_retired` |
//! | the signature verifies, for a manifest (INV-PURP-1) | `bad_signature` |
//! | its payload reads as a manifest of that device | `broken_cbor` and the like, `other_device` |
//! | its counter is one that counting comes to | `counter_too_high` |
//! | its counter is above the last one that was admitted (INV-REPLAY-1) | `replayed` |
//! | no newer key of the device has spoken | `key_overtaken` |
//! | it says what the last one said, or the device has not said something new too often (INV-COST-1) | `too_often` |
//!
//! A quarantined device may check in too: it is given the lease, and nothing new.

use crate::directory::{Device, Directory};
use api::{Purpose, Standing};
use model::cbor::Malformed;
use model::envelope::MESSAGE_BYTES_MAX;
use model::manifest::Manifest;
use model::{Counter, DeviceId, KeyId, Kind, Timestamp, ZoneId};
use std::sync::Arc;
use std::time::Duration;
use trust::{cose, manifest};

/// A manifest that its device has sealed. Whether it is newer than the last one is still to be asked.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub device: Arc<Device>,
    pub key: KeyId,
    pub counter: Counter,
    pub manifest: Manifest,
    pub payload: Arc<[u8]>,
}

/// Why a check-in is refused. Nothing follows from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the manifest does not parse")]
    Malformed(#[source] Malformed),
    #[error("expected a message of kind {}, found {}", Kind::Manifest.content_type(), found.content_type())]
    OtherKind { found: Kind },
    #[error("the site certified no sealing key {0}")]
    UnknownKey(KeyId),
    #[error(
        "the manifest is sealed by a key of `{found}`, expected one of `{expected}`, for which it was forwarded"
    )]
    WrongDevice { expected: DeviceId, found: DeviceId },
    #[error("device `{device}` is of zone `{found}`, expected `{expected}`, the gateway's")]
    WrongZone { device: DeviceId, expected: ZoneId, found: ZoneId },
    #[error("device `{0}` is not enrolled")]
    NotEnrolled(DeviceId),
    #[error("device `{0}` is revoked")]
    Revoked(DeviceId),
    #[error(
        "the manifest is sealed by key {0}, which was retired: expected the device's present key"
    )]
    KeyRetired(KeyId),
    #[error("the manifest's signature does not verify under the key that it names")]
    BadSignature,
    #[error("the manifest says that it is of `{found}`, expected `{expected}`, which sealed it")]
    OtherDevice { expected: DeviceId, found: DeviceId },
    #[error(
        "the manifest has counter {}/{}, expected one above {}/{}, which was admitted",
        found.epoch, found.sequence, last.epoch, last.sequence
    )]
    Replayed { last: Counter, found: Counter },
    #[error(
        "the manifest's sequence is {0}, expected less than 2^63: no device comes there by counting"
    )]
    CounterTooHigh(u64),
    #[error("the manifest is sealed by key {0}, and a newer key of its device was heard already")]
    KeyOvertaken(KeyId),
    #[error(
        "device `{device}` has said something new {burst} times in a row, expected one in {}s from then on", every.as_secs()
    )]
    TooOften { device: DeviceId, burst: u32, every: Duration },
}

impl Refused {
    /// The label of its counter and the word of its problem.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.reason.as_str(),
            Self::OtherKind { .. } => "other_kind",
            Self::UnknownKey(_) => "unknown_key",
            Self::WrongDevice { .. } => "wrong_device",
            Self::WrongZone { .. } => "wrong_zone",
            Self::NotEnrolled(_) => "not_enrolled",
            Self::Revoked(_) => "revoked",
            Self::KeyRetired(_) => "key_retired",
            Self::BadSignature => "bad_signature",
            Self::OtherDevice { .. } => "other_device",
            Self::CounterTooHigh(_) => "counter_too_high",
            Self::Replayed { .. } => "replayed",
            Self::KeyOvertaken(_) => "key_overtaken",
            Self::TooOften { .. } => "too_often",
        }
    }

    /// Whether the message itself cannot be read; the others are about who says it, and when.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::OtherKind { .. } | Self::CounterTooHigh(_))
    }

    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Replayed { .. } | Self::KeyOvertaken(_))
    }
}

/// Reads what `gateway` forwarded in the name of `named`.
pub fn open(
    message: &[u8],
    named: &DeviceId,
    gateway: &Device,
    directory: &Directory,
    grace: Duration,
    now: Timestamp,
) -> Result<Sealed, Refused> {
    let header = cose::open(message, MESSAGE_BYTES_MAX).map_err(Refused::Malformed)?;
    let header = header.header().clone();
    if header.kind != Kind::Manifest {
        return Err(Refused::OtherKind { found: header.kind });
    }
    let (device, key) = directory.seal_key(&header.key).ok_or(Refused::UnknownKey(header.key))?;
    if device.id != *named {
        let (expected, found) = (named.clone(), device.id.clone());
        return Err(Refused::WrongDevice { expected, found });
    }
    if device.zone != gateway.zone {
        let (expected, found) = (gateway.zone.clone(), device.zone.clone());
        return Err(Refused::WrongZone { device: device.id.clone(), expected, found });
    }
    match device.standing {
        Standing::Enrolled | Standing::Quarantined => {}
        Standing::Listed => return Err(Refused::NotEnrolled(device.id.clone())),
        Standing::Revoked | Standing::Decommissioned => {
            return Err(Refused::Revoked(device.id.clone()));
        }
    }
    if !key.is_live(grace, now) {
        return Err(Refused::KeyRetired(key.id));
    }
    let (header, manifest) =
        manifest::open(message, &key.public, &device.id).map_err(|refused| match refused {
            manifest::Refused::Malformed(malformed) => Refused::Malformed(malformed),
            manifest::Refused::OtherKind(found) => Refused::OtherKind { found },
            manifest::Refused::BadSignature => Refused::BadSignature,
            manifest::Refused::OtherDevice { expected, found } => {
                Refused::OtherDevice { expected, found }
            }
        })?;
    let payload = manifest.encode().into();
    let (key, counter) = (header.key, header.counter);
    if i64::try_from(counter.sequence).is_err() {
        return Err(Refused::CounterTooHigh(counter.sequence));
    }
    Ok(Sealed { device: device.clone(), key, counter, manifest, payload })
}

impl Sealed {
    /// A manifest takes effect once, and never after a newer one (INV-REPLAY-1).
    pub fn expect_newer(&self, last_key: &KeyId, last: Counter) -> Result<(), Refused> {
        let found = self.counter;
        if self.key == *last_key {
            return if found > last { Ok(()) } else { Err(Refused::Replayed { last, found }) };
        }
        // Keys stand in the order in which they were certified. One that the directory has no more was before all of them.
        let place = |id: &KeyId| self.device.keys_for(Purpose::Seal).position(|key| key.id == *id);
        if place(&self.key) > place(last_key) {
            Ok(())
        } else {
            Err(Refused::KeyOvertaken(self.key))
        }
    }
}

#[cfg(test)]
mod tests;
