//! COSE_Sign1 (RFC 9052 §4.2) over the headers of [`model::envelope`], with Ed25519 or ECDSA on P-256.
//!
//! ```text
//! message       = 0x84 | protected: bstr | 0xa0 | payload: bstr | signature: bstr .size 64          untagged
//! Sig_structure = ["Signature1", protected, external_aad of the kind, payload]                       RFC 9052 §4.4
//! ```
//!
//! One verification, the strict one, everywhere: Ed25519 refuses small-order points and non-canonical scalars
//! (`verify_strict`), ECDSA refuses a high `s`, so that nobody but the signer can give a message a second form.

use alloc::vec::Vec;
use core::convert::Infallible;
use core::fmt;
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use minicbor::{Decoder, Encoder};
use model::cbor::{Malformed, Reason, array_of, at_end, expect};
use model::envelope::{Algorithm, Header};
use model::{KeyId, envelope};
use p256::ecdsa::signature::Verifier as _;
use sha2::{Digest as _, Sha256};

/// A raw signature: R ‖ S of Ed25519 (RFC 8032 §5.1.6), or r ‖ s of ECDSA (RFC 9053 §2.1).
pub type Signature = [u8; 64];

/// Something that holds a private key: a file, later a TPM or a PKCS#11 token.
pub trait Signer: Send + Sync {
    fn public(&self) -> &PublicKey;
    fn sign(&self, message: &[u8]) -> Result<Signature, SignError>;
}

/// The holder of the key could not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignError;

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the holder of the private key did not sign")
    }
}

impl core::error::Error for SignError {}

/// A public key of one of the two algorithms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    Ed25519(ed25519_dalek::VerifyingKey),
    Esp256(p256::ecdsa::VerifyingKey),
}

/// The bytes are not a SubjectPublicKeyInfo or PKCS#8 document of a key that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAKey;

impl fmt::Display for NotAKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a key: expected Ed25519 or P-256 in DER")
    }
}

impl core::error::Error for NotAKey {}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1), as it stands in a certificate.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, NotAKey> {
        if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_der(der) {
            // A point of small order verifies signatures that its holder never made.
            return if key.is_weak() { Err(NotAKey) } else { Ok(Self::Ed25519(key)) };
        }
        p256::ecdsa::VerifyingKey::from_public_key_der(der).map(Self::Esp256).map_err(|_| NotAKey)
    }

    pub fn to_spki_der(&self) -> Vec<u8> {
        let document = match self {
            Self::Ed25519(key) => key.to_public_key_der(),
            Self::Esp256(key) => key.to_public_key_der(),
        };
        document.expect("a key of fixed length has a DER form").into_vec()
    }

    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::Ed25519,
            Self::Esp256(_) => Algorithm::Esp256,
        }
    }

    /// The COSE Key Thumbprint (RFC 9679 §3 and §4): SHA-256 over the required members in deterministic CBOR.
    pub fn id(&self) -> KeyId {
        let mut e = Encoder::new(Vec::with_capacity(80));
        let written: Result<(), minicbor::encode::Error<Infallible>> = (|| {
            match self {
                Self::Ed25519(key) => {
                    e.map(3)?.i8(1)?.i8(1)?.i8(-1)?.i8(6)?.i8(-2)?.bytes(key.as_bytes())?;
                }
                Self::Esp256(key) => {
                    let point = key.to_sec1_point(false);
                    let (x, y) =
                        (point.x().expect("not infinity"), point.y().expect("not compressed"));
                    e.map(4)?.i8(1)?.i8(2)?.i8(-1)?.i8(1)?.i8(-2)?.bytes(x)?.i8(-3)?.bytes(y)?;
                }
            }
            Ok(())
        })();
        written.expect("writing to a Vec cannot fail");
        KeyId(Sha256::digest(e.writer()).into())
    }

    /// Whether `signature` is this key's on `message`, strictly.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Self::Esp256(key) => {
                p256::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| {
                    signature.normalize_s() == signature && key.verify(message, &signature).is_ok()
                })
            }
        }
    }
}

/// A private key in memory, wiped when dropped. Where it is kept is `keys`' matter.
pub struct SecretKey {
    secret: Secret,
    public: PublicKey,
}

enum Secret {
    Ed25519(ed25519_dalek::SigningKey),
    Esp256(p256::ecdsa::SigningKey),
}

impl SecretKey {
    /// Makes a key of 32 random bytes. `None`: the bytes are no scalar of P-256 (one chance in 2^32): draw again.
    pub fn from_random(algorithm: Algorithm, random: &[u8; 32]) -> Option<Self> {
        Some(Self::new(match algorithm {
            Algorithm::Ed25519 => Secret::Ed25519(ed25519_dalek::SigningKey::from_bytes(random)),
            Algorithm::Esp256 => Secret::Esp256(p256::ecdsa::SigningKey::from_slice(random).ok()?),
        }))
    }

    /// Reads a PKCS#8 private key (RFC 5958).
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, NotAKey> {
        if let Ok(key) = ed25519_dalek::SigningKey::from_pkcs8_der(der) {
            return Ok(Self::new(Secret::Ed25519(key)));
        }
        p256::ecdsa::SigningKey::from_pkcs8_der(der)
            .map(|key| Self::new(Secret::Esp256(key)))
            .map_err(|_| NotAKey)
    }

    /// The PKCS#8 form. The caller wipes it.
    pub fn to_pkcs8_der(&self) -> Vec<u8> {
        let document = match &self.secret {
            Secret::Ed25519(key) => key.to_pkcs8_der(),
            Secret::Esp256(key) => key.to_pkcs8_der(),
        };
        document.expect("a key of fixed length has a DER form").as_bytes().to_vec()
    }

    fn new(secret: Secret) -> Self {
        let public = match &secret {
            Secret::Ed25519(key) => PublicKey::Ed25519(key.verifying_key()),
            Secret::Esp256(key) => PublicKey::Esp256(*key.verifying_key()),
        };
        Self { secret, public }
    }
}

impl Signer for SecretKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        match &self.secret {
            Secret::Ed25519(key) => Ok(key.sign(message).to_bytes()),
            Secret::Esp256(key) => {
                let signature: p256::ecdsa::Signature =
                    key.try_sign(message).map_err(|_| SignError)?;
                Ok(signature.normalize_s().to_bytes().into())
            }
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public.id())
    }
}

/// Signs `payload` under `header`. The header must name the signer's key and algorithm.
pub fn seal(header: &Header, payload: &[u8], signer: &dyn Signer) -> Result<Vec<u8>, SignError> {
    debug_assert_eq!(header.algorithm, signer.public().algorithm());
    let protected = header.encode();
    let signature = signer.sign(&sig_structure(header, &protected, payload))?;
    let mut e = Encoder::new(Vec::with_capacity(protected.len() + payload.len() + 80));
    let written: Result<(), minicbor::encode::Error<Infallible>> = (|| {
        e.array(4)?.bytes(&protected)?.map(0)?.bytes(payload)?.bytes(&signature)?;
        Ok(())
    })();
    written.expect("writing to a Vec cannot fail");
    Ok(e.into_writer())
}

/// A message that parses. Nothing in it is believed yet: its header says which key to ask.
#[derive(Clone, Debug)]
pub struct Unverified<'a> {
    header: Header,
    protected: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8],
}

/// A message whose signature verified under the key that it names. Nothing else makes one.
#[derive(Clone, Debug)]
pub struct Verified<'a> {
    header: Header,
    payload: &'a [u8],
}

/// Reads a message without believing it.
pub fn open(bytes: &[u8], bytes_max: usize) -> Result<Unverified<'_>, Malformed> {
    const EXPECTED: &str = "COSE_Sign1: [protected, {}, payload, signature] (RFC 9052 §4.2)";
    if bytes.len() > bytes_max {
        return Err(Malformed::new(Reason::Oversize, "a message within the bound of its kind"));
    }
    let mut d = Decoder::new(bytes);
    array_of(&mut d, 4, EXPECTED)?;
    let protected = expect(d.bytes(), EXPECTED)?;
    if expect(d.map(), EXPECTED)? != Some(0) {
        return Err(Malformed::new(Reason::NotDeterministic, "an empty unprotected header"));
    }
    let payload = expect(d.bytes(), EXPECTED)?;
    let signature = expect(d.bytes(), EXPECTED)?;
    at_end(&d)?;
    if signature.len() != 64 {
        return Err(Malformed::new(Reason::OutOfDomain, "a signature of 64 bytes"));
    }
    let unverified =
        Unverified { header: Header::decode(protected)?, protected, payload, signature };
    if unverified.encoded_len() != bytes.len() {
        // A longer head of a byte string says the same thing in a second form.
        return Err(Malformed::new(
            Reason::NotDeterministic,
            "deterministic CBOR (RFC 8949 §4.2.1)",
        ));
    }
    Ok(unverified)
}

impl<'a> Unverified<'a> {
    /// What the message claims.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks the signature. The key must be the one that the header names.
    pub fn verify(self, key: &PublicKey) -> Result<Verified<'a>, BadSignature> {
        let message = sig_structure(&self.header, self.protected, self.payload);
        if self.header.key == key.id()
            && self.header.algorithm == key.algorithm()
            && key.verifies(&message, self.signature)
        {
            Ok(Verified { header: self.header, payload: self.payload })
        } else {
            Err(BadSignature)
        }
    }

    /// The payload, for one who has another proof of it: ingest, which checked the batch's MAC behind which uplink had
    /// verified the signature.
    pub fn payload_without_signature_check(&self) -> &'a [u8] {
        self.payload
    }

    fn encoded_len(&self) -> usize {
        let bstr = |len: usize| {
            len + 1
                + match len {
                    0..24 => 0,
                    24..256 => 1,
                    256..65536 => 2,
                    _ => 4,
                }
        };
        1 + bstr(self.protected.len()) + 1 + bstr(self.payload.len()) + bstr(self.signature.len())
    }
}

impl<'a> Verified<'a> {
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// The signature is not that of the key which the message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSignature;

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not verify under the key that the message names")
    }
}

impl core::error::Error for BadSignature {}

fn sig_structure(header: &Header, protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::with_capacity(protected.len() + payload.len() + 64));
    let written: Result<(), minicbor::encode::Error<Infallible>> = (|| {
        e.array(4)?.str("Signature1")?.bytes(protected)?;
        e.bytes(envelope::Kind::external_aad(header.kind))?.bytes(payload)?;
        Ok(())
    })();
    written.expect("writing to a Vec cannot fail");
    e.into_writer()
}

#[cfg(test)]
mod tests;
