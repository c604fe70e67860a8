//! What a factory says that it made, believed for its signature.

use crate::cose::{self, PublicKey, SignError, Signer};
use alloc::vec::Vec;
use core::fmt;
use model::admission::{ADMISSION_MESSAGE_BYTES_MAX, AdmissionList};
use model::cbor::Malformed;
use model::envelope::Counter;
use model::{Header, Kind};

/// Why a list is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed(Malformed),
    OtherKind(Kind),
    /// Not signed by this key of the factory.
    BadSignature,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::OtherKind(kind) => {
                write!(f, "expected an admission list, found {}", kind.content_type())
            }
            Self::BadSignature => f.write_str(
                "the list is not signed by this factory's key, or was changed since it was signed",
            ),
        }
    }
}

impl core::error::Error for Refused {}

/// The list as the factory hands it out. A list has no counter: to admit the same one again changes nothing.
pub fn seal(list: &AdmissionList, key: &dyn Signer) -> Result<Vec<u8>, SignError> {
    let header = Header {
        algorithm: key.public().algorithm(),
        kind: Kind::AdmissionList,
        key: key.public().id(),
        counter: Counter { epoch: 0, sequence: 0 },
        uptime_ms: 0,
        wall: None,
        heard: None,
        prior: None,
    };
    cose::seal(&header, &list.encode(), key)
}

pub fn open(message: &[u8], key: &PublicKey) -> Result<AdmissionList, Refused> {
    let unverified =
        cose::open(message, ADMISSION_MESSAGE_BYTES_MAX).map_err(Refused::Malformed)?;
    let kind = unverified.header().kind;
    if kind != Kind::AdmissionList {
        return Err(Refused::OtherKind(kind));
    }
    let verified = unverified.verify(key).map_err(|_| Refused::BadSignature)?;
    AdmissionList::decode(verified.payload()).map_err(Refused::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cose::SecretKey;
    use alloc::vec;
    use model::admission::{Entry, Made};
    use model::envelope::Algorithm;
    use model::{GroupId, Timestamp, ZoneId};

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).unwrap()
    }

    fn list() -> AdmissionList {
        let entry = Entry {
            serial: "PUMP-1".into(),
            made: Made::Device,
            zone: ZoneId::new("hall").unwrap(),
            group: GroupId::new("pilot").unwrap(),
        };
        AdmissionList { batch: "w12".into(), made: Timestamp(1), entries: vec![entry] }
    }

    #[test]
    fn a_list_is_believed_for_its_factorys_signature_alone() {
        let factory = key(1);
        let message = seal(&list(), &factory).unwrap();
        assert_eq!(open(&message, factory.public()), Ok(list()));
        assert_eq!(open(&message, key(2).public()), Err(Refused::BadSignature));
        let at = message.windows(6).position(|at| at == b"PUMP-1").unwrap();
        let mut changed = message.clone();
        changed[at] = b'B';
        assert_eq!(open(&changed, factory.public()), Err(Refused::BadSignature));
    }

    /// INV-PURP-1: what the same key signed for another purpose is no list.
    #[test]
    fn nothing_else_that_the_key_signed_is_taken_for_a_list() {
        let factory = key(1);
        let message = seal(&list(), &factory).unwrap();
        let header = cose::open(&message, ADMISSION_MESSAGE_BYTES_MAX).unwrap().header().clone();
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::AdmissionList) {
            let header = Header { kind, ..header.clone() };
            let other = cose::seal(&header, &list().encode(), &factory).unwrap();
            assert_eq!(open(&other, factory.public()), Err(Refused::OtherKind(kind)));
        }
    }
}
