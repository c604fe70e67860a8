//! Certificates in a bag: certs-only SignedData (RFC 5652 §5.1), which is EST's answer (RFC 7030 §4.1.3, RFC 5272 §4.1).
//!
//! Nothing in it is signed: what it holds is believed for other reasons, or not.

use cms::cert::CertificateChoices;
use cms::cert::x509::Certificate;
use cms::cert::x509::der::asn1::ObjectIdentifier;
use cms::cert::x509::der::{self, Decode as _, Encode as _};
use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;

/// What one answer of an EST server may have.
pub const BYTES_MAX: usize = 64 * 1024;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs7Error {
    #[error("PKCS#7 has {found} bytes, expected at most {BYTES_MAX}")]
    TooLarge { found: usize },
    #[error("not certificates in PKCS#7: expected SignedData in DER (RFC 5652)")]
    Malformed(#[source] der::Error),
    #[error("not certificates in PKCS#7: an element reaches beyond what it stands in")]
    LengthBeyondEnd,
    #[error("expected PKCS#7 SignedData, found content of type {found}")]
    NotSignedData { found: String },
    #[error("expected a certificate in PKCS#7, found none")]
    Empty,
    #[error("expected X.509 certificates in PKCS#7, found another kind")]
    OtherCertificate,
}

/// Puts certificates (DER) into one bag. The order is not kept: a SET has none.
pub fn encode(certificates: &[Vec<u8>]) -> Result<Vec<u8>, Pkcs7Error> {
    let certificates: Result<Vec<Certificate>, der::Error> =
        certificates.iter().map(|der| Certificate::from_der(der)).collect();
    ContentInfo::try_from(certificates.map_err(Pkcs7Error::Malformed)?)
        .and_then(|content| content.to_der())
        .map_err(Pkcs7Error::Malformed)
}

/// The certificates of a bag, at least one, in no order.
pub fn decode(der: &[u8]) -> Result<Vec<Vec<u8>>, Pkcs7Error> {
    if der.len() > BYTES_MAX {
        return Err(Pkcs7Error::TooLarge { found: der.len() });
    }
    if !lengths_fit(der) {
        return Err(Pkcs7Error::LengthBeyondEnd);
    }
    let content = ContentInfo::from_der(der).map_err(Pkcs7Error::Malformed)?;
    if content.content_type != SIGNED_DATA {
        return Err(Pkcs7Error::NotSignedData { found: content.content_type.to_string() });
    }
    let signed: SignedData = content.content.decode_as().map_err(Pkcs7Error::Malformed)?;
    let certificates = signed.certificates.ok_or(Pkcs7Error::Empty)?;
    let ders: Result<Vec<Vec<u8>>, Pkcs7Error> = certificates
        .0
        .iter()
        .map(|choice| match choice {
            CertificateChoices::Certificate(cert) => cert.to_der().map_err(Pkcs7Error::Malformed),
            CertificateChoices::Other(_) => Err(Pkcs7Error::OtherCertificate),
        })
        .collect();
    match ders {
        Ok(ders) if ders.is_empty() => Err(Pkcs7Error::Empty),
        ders => ders,
    }
}

/// Deeper than certificates in a bag ever are.
const DEPTH_MAX: usize = 32;

/// Whether each element ends within the one that it stands in. `der` allocates what a length says, up to 256 MiB, before
/// it looks whether so much is there (INV-COST-1), so this looks first. Found by fuzzing.
fn lengths_fit(der: &[u8]) -> bool {
    let mut ends = vec![der.len()];
    let mut at = 0;
    while at < der.len() {
        while ends.last() == Some(&at) {
            ends.pop();
        }
        let Some(end) = ends.last().copied() else { return false };
        let tag = der[at];
        let Some((len, body)) = length(&der[..end], at + 1) else { return false };
        if len > end - body {
            return false;
        }
        // X.690 §8.1.2.5: a constructed element holds others.
        if tag & 0x20 == 0 {
            at = body + len;
        } else if ends.len() < DEPTH_MAX {
            ends.push(body + len);
            at = body;
        } else {
            return false;
        }
    }
    true
}

/// X.690 §10.1: the length at `at`, in its definite form, and where its contents begin.
fn length(der: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = usize::from(*der.get(at)?);
    if first < 0x80 {
        return Some((first, at + 1));
    }
    let width = first & 0x7f;
    let bytes = der.get(at + 1..)?.get(..width).filter(|_| (1..=4).contains(&width))?;
    let len = bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    Some((len, at + 1 + width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::tests::{authority, day, issue_device};

    #[test]
    fn certificates_come_back_byte_for_byte() {
        let site = authority("site");
        let mut ders = vec![site.certificate_der().to_vec()];
        ders.extend((0..3).map(|i| issue_device(&site, &format!("pump-{i}"), day(0), day(9)).1));
        let mut back = decode(&encode(&ders).unwrap()).unwrap();
        ders.sort();
        back.sort();
        assert_eq!(back, ders);
    }

    #[test]
    fn a_bag_that_is_broken_or_empty_is_refused() {
        let site = authority("site");
        let good = encode(&[site.certificate_der().to_vec()]).unwrap();
        assert!(decode(&good).is_ok());
        assert_eq!(decode(&encode(&[]).unwrap()), Err(Pkcs7Error::Empty));
        assert_eq!(decode(&good[..good.len() - 1]), Err(Pkcs7Error::LengthBeyondEnd));
        assert_eq!(decode(&[&good[..], &[0]].concat()), Err(Pkcs7Error::LengthBeyondEnd));
        assert!(matches!(decode(&[&good[..], &[5, 0]].concat()), Err(Pkcs7Error::Malformed(_))));
        let found = BYTES_MAX + 1;
        assert_eq!(decode(&vec![0; found]), Err(Pkcs7Error::TooLarge { found }));
        let mut other = good.clone();
        // The last arc of the content type: 1.2.840.113549.1.7.3 is EnvelopedData.
        let at = other.windows(9).position(|w| w == SIGNED_DATA.as_bytes()).unwrap() + 8;
        other[at] = 3;
        let found = "1.2.840.113549.1.7.3".to_owned();
        assert_eq!(decode(&other), Err(Pkcs7Error::NotSignedData { found }));
    }

    /// INV-COST-1: no length is believed beyond what is there, whichever element says it.
    #[test]
    fn a_length_that_says_more_than_there_is_is_refused_before_anything_is_allocated_for_it() {
        let site = authority("site");
        let good = encode(&[site.certificate_der().to_vec()]).unwrap();
        assert!(lengths_fit(&good));
        // The long form of a length, wherever one stands, made to say 4 GiB.
        let mut tried = 0;
        for at in 0..good.len() - 1 {
            if good[at] == 0x82 {
                let mut bad = good.clone();
                bad.splice(at..at + 3, [0x84, 0xff, 0xff, 0xff, 0xff]);
                tried += usize::from(decode(&bad) == Err(Pkcs7Error::LengthBeyondEnd));
            }
        }
        assert!(tried >= 3, "{tried}");
        // More levels than there may be.
        assert!(!lengths_fit(&[0x30, 0x80]), "an indefinite length");
        let deep = (0..40)
            .fold(vec![], |inner: Vec<u8>, _| [&[0x30, inner.len() as u8], &inner[..]].concat());
        assert!(!lengths_fit(&deep), "too deep");
    }
}
