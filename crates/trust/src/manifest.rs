//! What a device says that it runs, believed for its signature.

use crate::cose::{self, PublicKey};
use core::fmt;
use model::cbor::Malformed;
use model::envelope::MESSAGE_BYTES_MAX;
use model::manifest::Manifest;
use model::{DeviceId, Header, Kind};

/// Why a manifest is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed(Malformed),
    OtherKind(Kind),
    /// Not signed by this key of the device.
    BadSignature,
    /// Signed by the device, of another one.
    OtherDevice {
        expected: DeviceId,
        found: DeviceId,
    },
}

impl Refused {
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.reason.as_str(),
            Self::OtherKind(_) => "other_kind",
            Self::BadSignature => "bad_signature",
            Self::OtherDevice { .. } => "other_device",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::OtherKind(kind) => {
                write!(f, "expected a manifest, found {}", kind.content_type())
            }
            Self::BadSignature => cose::BadSignature.fmt(f),
            Self::OtherDevice { expected, found } => {
                write!(f, "expected a manifest of `{expected}`, found one of `{found}`")
            }
        }
    }
}

impl core::error::Error for Refused {}

/// Reads a manifest of `device`, sealed by `key`, which is its own. Whether it is newer than the last one is for the
/// counter in its header to say: [`crate::taken`].
pub fn open(
    message: &[u8],
    key: &PublicKey,
    device: &DeviceId,
) -> Result<(Header, Manifest), Refused> {
    let unverified = cose::open(message, MESSAGE_BYTES_MAX).map_err(Refused::Malformed)?;
    let kind = unverified.header().kind;
    if kind != Kind::Manifest {
        return Err(Refused::OtherKind(kind));
    }
    let verified = unverified.verify(key).map_err(|_| Refused::BadSignature)?;
    let manifest = Manifest::decode(verified.payload()).map_err(Refused::Malformed)?;
    if manifest.device != *device {
        let (expected, found) = (device.clone(), manifest.device);
        return Err(Refused::OtherDevice { expected, found });
    }
    Ok((verified.header().clone(), manifest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cose::{SecretKey, Signer as _, seal};
    use alloc::vec;
    use alloc::vec::Vec;
    use model::envelope::{Algorithm, Counter};
    use model::manifest::Trusted;

    fn manifest(device: &str) -> Manifest {
        Manifest {
            device: DeviceId::new(device).unwrap(),
            components: vec![],
            director: Trusted { root: 1, timestamp: 5, snapshot: 5, targets: 5 },
            images: Trusted::default(),
            outcome: None,
        }
    }

    fn sealed(kind: Kind, payload: &[u8], key: &SecretKey) -> Vec<u8> {
        let header = Header {
            algorithm: Algorithm::Ed25519,
            kind,
            key: key.public().id(),
            counter: Counter { epoch: 2, sequence: 9 },
            uptime_ms: 1,
            wall: None,
            heard: None,
            prior: None,
        };
        seal(&header, payload, key).unwrap()
    }

    #[test]
    fn a_manifest_with_one_thing_wrong_is_refused_for_that() {
        let key = |seed| SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).unwrap();
        let (own, other) = (key(1), key(2));
        let device = DeviceId::new("pump-7").unwrap();
        let judged = |message: &[u8]| open(message, own.public(), &device);
        let said = manifest("pump-7");
        let (header, read) = judged(&sealed(Kind::Manifest, &said.encode(), &own)).unwrap();
        assert_eq!((header.counter.sequence, read), (9, said.clone()));
        let mut changed = sealed(Kind::Manifest, &said.encode(), &own);
        *changed.last_mut().unwrap() ^= 1;
        for (what, label, message) in [
            ("by another key", "bad_signature", sealed(Kind::Manifest, &said.encode(), &other)),
            ("a byte changed", "bad_signature", changed),
            ("of another device", "other_device", {
                sealed(Kind::Manifest, &manifest("pump-8").encode(), &own)
            }),
            ("in a pack of readings", "other_kind", sealed(Kind::Readings, &said.encode(), &own)),
            ("no manifest", "broken_cbor", sealed(Kind::Manifest, b"\xf6", &own)),
            ("no message", "broken_cbor", vec![]),
        ] {
            let refused = judged(&message).map_err(|refused| refused.label());
            assert_eq!(refused.map(drop), Err(label), "{what}");
        }
    }
}
