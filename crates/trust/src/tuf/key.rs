//! Keys and signatures as TUF writes them.
//!
//! An Ed25519 key is 32 bytes in hexadecimal, a P-256 key a SubjectPublicKeyInfo in PEM. Signatures are in hexadecimal:
//! of Ed25519 R ‖ S, of ECDSA the DER form. A key of any other kind is read and never verifies: a root may name it for
//! readers that know it.

use super::json::Value;
use crate::cose::{PublicKey, SignError, Signer};
use alloc::string::String;
use base64ct::{Base64, Encoding};
use model::hex;
use sha2::{Digest as _, Sha256};

const PEM_HEAD: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_TAIL: &str = "-----END PUBLIC KEY-----";

/// A key of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Known(PublicKey),
    Unknown,
}

impl Key {
    /// `None`: not the shape of a key of any kind.
    pub fn read(value: &Value<'_>) -> Option<Self> {
        let keytype = value.get("keytype")?.as_text()?;
        let scheme = value.get("scheme")?.as_text()?;
        let keyval = value.get("keyval")?;
        keyval.as_object()?;
        let public = keyval.get("public").and_then(Value::as_text);
        let key = match (keytype, scheme) {
            ("ed25519", "ed25519") => public.and_then(ed25519),
            // The second keytype is how older repositories write it.
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => public.and_then(esp256),
            _ => None,
        };
        Some(key.map_or(Self::Unknown, Self::Known))
    }

    pub fn public(&self) -> Option<&PublicKey> {
        if let Self::Known(key) = self { Some(key) } else { None }
    }
}

fn ed25519(text: &str) -> Option<PublicKey> {
    let bytes: [u8; 32] = hex::decode(text)?.try_into().ok()?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok()?;
    // A point of small order verifies signatures that its holder never made.
    (!key.is_weak()).then_some(PublicKey::Ed25519(key))
}

fn esp256(pem: &str) -> Option<PublicKey> {
    let body = pem.trim().strip_prefix(PEM_HEAD)?.strip_suffix(PEM_TAIL)?;
    let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    match PublicKey::from_spki_der(&Base64::decode_vec(&base64).ok()?) {
        Ok(key @ PublicKey::Esp256(_)) => Some(key),
        _ => None,
    }
}

/// The key as a root names it.
pub(super) fn to_value(key: &PublicKey) -> Value<'static> {
    let (keytype, scheme, public) = match key {
        PublicKey::Ed25519(key) => ("ed25519", "ed25519", hex::encode(key.as_bytes())),
        PublicKey::Esp256(_) => ("ecdsa", "ecdsa-sha2-nistp256", to_pem(&key.to_spki_der())),
    };
    Value::object(alloc::vec![
        ("keytype", Value::text(keytype)),
        ("scheme", Value::text(scheme)),
        ("keyval", Value::object(alloc::vec![("public", Value::text(public))])),
    ])
}

/// The id that we give a key: the SHA-256 of its canonical form, as others do. Readers take ids for names.
pub fn id(key: &PublicKey) -> String {
    hex::encode(&Sha256::digest(to_value(key).canonical()))
}

fn to_pem(der: &[u8]) -> String {
    let base64 = Base64::encode_string(der);
    let mut pem = String::from(PEM_HEAD);
    for (n, character) in base64.chars().enumerate() {
        if n % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push('\n');
    pem.push_str(PEM_TAIL);
    pem.push('\n');
    pem
}

/// Whether a signature, as bytes of its TUF form, is this key's on `message`.
pub(super) fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    match key {
        PublicKey::Ed25519(_) => key.verifies(message, signature),
        // Half of the signatures that others make have a high `s`. Which of the two forms stands in a file does not
        // matter here: a file is known by its version, and by a digest where one is stated.
        PublicKey::Esp256(_) => p256::ecdsa::Signature::from_der(signature)
            .is_ok_and(|signature| key.verifies(message, &signature.normalize_s().to_bytes())),
    }
}

/// Signs in the form that TUF writes.
pub(super) fn sign(signer: &dyn Signer, message: &[u8]) -> Result<String, SignError> {
    let raw = signer.sign(message)?;
    match signer.public() {
        PublicKey::Ed25519(_) => Ok(hex::encode(&raw)),
        PublicKey::Esp256(_) => {
            let signature = p256::ecdsa::Signature::from_slice(&raw).map_err(|_| SignError)?;
            Ok(hex::encode(signature.to_der().as_bytes()))
        }
    }
}
