//! What rcgen needs of our keys, times and names.

use crate::UnixTime;
use crate::cert::{NotAfter, YEAR_9999_END_S};
use rcgen::string::PrintableString;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, PublicKeyData, SignatureAlgorithm,
    SigningKey, SubjectPublicKeyInfo,
};
use std::time::Duration;
use trust::cose::{PublicKey, Signature, Signer};

/// The attribute type `serialNumber` of a subject (X.520 §6.2.9).
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// A holder of one of our keys, in rcgen's terms. The secret stays with its holder.
pub(crate) struct RcgenKey<'a> {
    signer: &'a dyn Signer,
    public: SubjectPublicKeyInfo,
}

impl<'a> RcgenKey<'a> {
    pub(crate) fn new(signer: &'a dyn Signer) -> Self {
        Self { signer, public: public_key(signer.public()) }
    }
}

/// A public key, in rcgen's terms.
pub(crate) fn public_key(key: &PublicKey) -> SubjectPublicKeyInfo {
    SubjectPublicKeyInfo::from_der(&key.to_spki_der()).expect("rcgen knows Ed25519 and P-256")
}

impl PublicKeyData for RcgenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl SigningKey for RcgenKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.signer.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(match self.signer.public() {
            PublicKey::Ed25519(_) => signature.to_vec(),
            PublicKey::Esp256(_) => ecdsa_der(&signature),
        })
    }
}

/// `r ‖ s` as X.509 has it: `SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279 §2.2.3).
fn ecdsa_der(signature: &Signature) -> Vec<u8> {
    let mut out = vec![0x30, 0];
    for number in [&signature[..32], &signature[32..]] {
        let zeros = number.iter().take_while(|byte| **byte == 0).count().min(31);
        let digits = &number[zeros..];
        // A first bit of 1 would say that the number is negative.
        let pad = usize::from(digits[0] >= 0x80);
        out.extend([0x02, (digits.len() + pad) as u8]);
        out.extend(std::iter::repeat_n(0, pad));
        out.extend(digits);
    }
    out[1] = (out.len() - 2) as u8;
    out
}

/// CN and serialNumber, both `name`: 1 to 64 characters of a PrintableString (RFC 5280 appendix A.1).
pub(crate) fn subject(name: &str) -> Option<DistinguishedName> {
    if name.is_empty() || name.len() > 64 {
        return None;
    }
    let text = PrintableString::try_from(name).ok()?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, DnValue::PrintableString(text.clone()));
    subject.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), DnValue::PrintableString(text));
    Some(subject)
}

/// Writes the time of validity. `Never` becomes the date that RFC 5280 §4.1.2.5 reserves for it.
pub(crate) fn set_validity(
    params: &mut CertificateParams,
    not_before: UnixTime,
    not_after: NotAfter,
) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let date = |seconds: u64| epoch + Duration::from_secs(seconds.min(YEAR_9999_END_S));
    params.not_before = date(not_before.as_secs());
    params.not_after = date(match not_after {
        NotAfter::At(time) => time.as_secs(),
        NotAfter::Never => YEAR_9999_END_S,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ecdsa_signature_becomes_the_shortest_der() {
        let mut signature = [0; 64];
        (signature[31], signature[32]) = (0x7f, 0x80);
        let der = ecdsa_der(&signature);
        assert_eq!(&der[..9], [0x30, 38, 0x02, 1, 0x7f, 0x02, 33, 0, 0x80]);
        assert_eq!(der.len(), 40);
        assert_eq!(ecdsa_der(&[0; 64]), [0x30, 6, 0x02, 1, 0, 0x02, 1, 0]);
        assert_eq!(ecdsa_der(&[0xff; 64]).len(), 2 + 2 * (2 + 33));
    }
}
