//! Certificate requests (PKCS#10, RFC 2986).
//!
//! A request says which key wants a certificate and proves that its sender holds it. What else it asks for is not
//! read: what goes into a certificate is decided by who asks, over TLS, and by the authority's profile.

use crate::x509::{self, RcgenKey};
use rcgen::CertificateParams;
use trust::cose::{PublicKey, Signer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_X509_SERIALNUMBER;
use x509_parser::prelude::FromDer as _;

/// A P-256 request with two names is under 300 bytes; strongSwan's with extensions under 1 KiB.
pub const BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    #[error(
        "cannot request a certificate for {found:?}: expected a serial number of 1 to 64 of A-Z a-z 0-9 space ' ( ) + , - . / : = ?"
    )]
    BadSerial { found: String },
    #[error("cannot sign a certificate request")]
    Sign(#[source] rcgen::Error),
    #[error("certificate request has {found} bytes, expected at most {BYTES_MAX}")]
    TooLarge { found: usize },
    #[error("not a certificate request: expected PKCS#10 in DER, {found}")]
    Malformed { found: &'static str },
    #[error(
        "the certificate request's key is of a kind that is not used here: expected Ed25519 or P-256"
    )]
    UnknownKey,
    #[error("the certificate request is not signed by the key that it names")]
    NoPossession,
}

/// A request whose sender holds the private key. Nothing else makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    pub public_key: PublicKey,
    /// The key as SubjectPublicKeyInfo, in the one form that we write.
    pub spki_der: Vec<u8>,
    /// The subject's serialNumber: what the sender says that it is. It proves nothing.
    pub serial: Option<String>,
}

/// A request for `key` with `serial` as subject: CN and serialNumber (2.5.4.5).
pub fn make(key: &dyn Signer, serial: &str) -> Result<Vec<u8>, CsrError> {
    let subject = x509::subject(serial)
        .ok_or_else(|| CsrError::BadSerial { found: serial.chars().take(80).collect() })?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    let request = params.serialize_request(&RcgenKey::new(key)).map_err(CsrError::Sign)?;
    Ok(request.der().to_vec())
}

/// Reads a request and checks that its sender holds the key.
pub fn read(der: &[u8]) -> Result<Csr, CsrError> {
    if der.len() > BYTES_MAX {
        return Err(CsrError::TooLarge { found: der.len() });
    }
    let malformed = |found| CsrError::Malformed { found };
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| malformed("found something else"))?;
    if !rest.is_empty() {
        return Err(malformed("found bytes after it"));
    }
    let info = &request.certification_request_info;
    let public_key =
        PublicKey::from_spki_der(info.subject_pki.raw).map_err(|_| CsrError::UnknownKey)?;
    // Not `PublicKey::verifies`: X.509 has ECDSA in DER and allows a high `s`, which ours refuses. Nothing is named by
    // these bytes, so a second form of them does no harm.
    request.verify_signature().map_err(|_| CsrError::NoPossession)?;
    let mut serials = info.subject.iter_by_oid(&OID_X509_SERIALNUMBER);
    let serial = match (serials.next(), serials.next()) {
        (None, _) => None,
        (Some(serial), None) => {
            Some(serial.as_str().map_err(|_| malformed("found a serial number that is no text"))?)
        }
        (Some(_), Some(_)) => return Err(malformed("found two serial numbers")),
    };
    Ok(Csr { spki_der: public_key.to_spki_der(), public_key, serial: serial.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::draw;
    use model::envelope::Algorithm;

    #[test]
    fn a_request_names_its_key_and_serial_under_both_algorithms() {
        for algorithm in [Algorithm::Ed25519, Algorithm::Esp256] {
            // Signatures of P-256 have several lengths in DER.
            for _ in 0..16 {
                let key = draw(algorithm).unwrap();
                let csr = read(&make(&key, "PUMP-0001").unwrap()).unwrap();
                assert_eq!(csr.public_key, *key.public());
                assert_eq!(csr.spki_der, key.public().to_spki_der());
                assert_eq!(csr.serial.as_deref(), Some("PUMP-0001"));
            }
        }
    }

    #[test]
    fn a_request_that_is_not_whole_or_not_its_senders_is_refused() {
        let key = draw(Algorithm::Esp256).unwrap();
        let good = make(&key, "PUMP-0001").unwrap();
        assert!(read(&good).is_ok());
        let refused = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        let malformed = "not a certificate request: expected PKCS#10 in DER, ";
        assert_eq!(refused(&good[..good.len() - 1]), format!("{malformed}found something else"));
        assert_eq!(
            refused(&[&good[..], b"x"].concat()),
            format!("{malformed}found bytes after it")
        );
        assert_eq!(
            refused(&vec![0x30; BYTES_MAX + 1]),
            "certificate request has 16385 bytes, expected at most 16384"
        );
        let other_name = replaced(&good, b"PUMP-0001", b"PUMP-0002");
        let possession = "the certificate request is not signed by the key that it names";
        assert_eq!(refused(&other_name), possession);
        let other = draw(Algorithm::Esp256).unwrap();
        let spki = key.public().to_spki_der();
        assert_eq!(refused(&replaced(&good, &spki, &other.public().to_spki_der())), possession);
        // The curve's name changed to P-384's: a key that we do not use.
        let p384 = replaced(
            &good,
            &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
            &[0x2b, 0x81, 4, 0, 0x22, 0, 0, 0],
        );
        assert_eq!(
            refused(&p384),
            "the certificate request's key is of a kind that is not used here: expected Ed25519 or P-256"
        );
    }

    #[test]
    fn a_serial_that_a_subject_cannot_carry_is_refused_before_anything_is_signed() {
        let key = draw(Algorithm::Ed25519).unwrap();
        for bad in ["", "a_b", "é", "a\0", &"x".repeat(65)] {
            assert!(matches!(make(&key, bad), Err(CsrError::BadSerial { .. })), "{bad:?}");
        }
        assert!(make(&key, &"x".repeat(64)).is_ok());
    }

    fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
        assert_eq!(old.len(), new.len());
        let mut out = bytes.to_vec();
        let mut at = 0;
        while at + old.len() <= out.len() {
            if out[at..].starts_with(old) {
                out[at..at + new.len()].copy_from_slice(new);
            }
            at += 1;
        }
        assert_ne!(out, bytes, "nothing was replaced");
        out
    }
}
