//! Certificates, requests and bags: DER that a peer shows before anything is known of it. The seeds in `fuzz/seeds` were
//! made by openssl.

use super::End;
use keys::cert::CertError;
use keys::csr::CsrError;
use keys::pkcs7::Pkcs7Error;
use keys::{Leaf, csr, pkcs7};

pub fn certificate(bytes: &[u8]) -> End {
    match Leaf::parse(bytes) {
        Ok(leaf) => {
            assert!(!leaf.role.name().is_empty(), "a role is somebody's");
            End::accepted(2)
        }
        Err(error @ CertError::Malformed { .. }) => End::refused(0, kind(&error)),
        Err(error) => End::refused(1, kind(&error)),
    }
}

pub fn request(bytes: &[u8]) -> End {
    match csr::read(bytes) {
        Ok(request) => {
            assert_eq!(request.spki_der, request.public_key.to_spki_der());
            End::accepted(2)
        }
        Err(error @ (CsrError::Malformed { .. } | CsrError::TooLarge { .. })) => {
            End::refused(0, kind(&error))
        }
        Err(error) => End::refused(1, kind(&error)),
    }
}

pub fn bag(bytes: &[u8]) -> End {
    match pkcs7::decode(bytes) {
        Ok(certificates) => {
            let again =
                pkcs7::decode(&pkcs7::encode(&certificates).expect("what was read can be written"));
            let mut again = again.expect("what was written can be read");
            let mut certificates = certificates;
            // A SET has no order, and says nothing twice.
            again.sort();
            certificates.sort();
            certificates.dedup();
            again.dedup();
            assert_eq!(again, certificates);
            End::accepted(2)
        }
        Err(error @ (Pkcs7Error::LengthBeyondEnd | Pkcs7Error::TooLarge { .. })) => {
            End::refused(0, kind(&error))
        }
        Err(error) => End::refused(1, kind(&error)),
    }
}

/// An error's words without what it found, which is the input's own.
fn kind(error: &impl ToString) -> String {
    let text = error.to_string();
    let without = text.split(", found").next().unwrap_or_default();
    without.split(['`', ':']).next().unwrap_or_default().to_owned()
}

pub fn certificates() -> Vec<Vec<u8>> {
    [
        include_bytes!("../../seeds/idevid.der").as_slice(),
        include_bytes!("../../seeds/device.der"),
        include_bytes!("../../seeds/gateway.der"),
        include_bytes!("../../seeds/sealing.der"),
        include_bytes!("../../seeds/control.der"),
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

pub fn requests() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../seeds/request-p256.der").to_vec(),
        include_bytes!("../../seeds/request-ed25519.der").to_vec(),
    ]
}

pub fn bags() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../seeds/pkcs7.der").to_vec()]
}
