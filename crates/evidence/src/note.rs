//! A text signed by one or more keys (C2SP signed-note), Ed25519 only.
//!
//! ```text
//! note      = text, which ends in a newline | newline | signature*
//! signature = "— " name " " base64(key id, 4 bytes | signature, 64 bytes) newline
//! key id    = first 4 bytes of SHA-256(name | 0x0A | 0x01 | public key, 32 bytes)
//! key       = name "+" key id, 8 hex digits "+" base64(0x01 | public key)
//! ```
//!
//! Signatures of keys that the reader does not know are ignored, as the specification asks: so a log's key can be
//! rotated, and a witness can add its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use trust::cose::{PublicKey, SignError, Signer};

/// The longest note that is read. A checkpoint of ours has about 250 bytes; 16 witnesses with signatures of 5 kB fit.
pub const NOTE_BYTES_MAX: u64 = 128 * 1024;

/// How many signatures of a note are read. The specification asks for 16 at least.
pub const SIGNATURES_MAX: usize = 64;

/// Ed25519, as the specification numbers signature types.
const ED25519: u8 = 1;

const SIGNATURE_START: &str = "\u{2014} ";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("not a signed note: {0}")]
    Malformed(&'static str),

    #[error("the note is not signed by `{key}`")]
    NotSigned { key: String },

    #[error("the signature of `{key}` does not hold")]
    BadSignature { key: String },

    #[error(
        "not a key of a note: expected <name>+<8 hex digits>+<base64> of an Ed25519 key, found {found:?}"
    )]
    NotAKey { found: String },

    #[error("`{found}` cannot be the name of a key: it is empty, or has a space or a plus")]
    BadName { found: String },

    #[error("cannot sign as `{key}`")]
    NotMade { key: String, source: SignError },
}

/// A public key with its name: whom a reader of a note trusts.
#[derive(Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    id: [u8; 4],
    public: PublicKey,
    bytes: [u8; 32],
}

impl NoteKey {
    /// Only an Ed25519 key signs notes.
    pub fn new(name: &str, public: &PublicKey) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::BadName { found: name.to_owned() });
        }
        let PublicKey::Ed25519(key) = public else {
            return Err(NoteError::NotAKey { found: format!("a {:?} key", public.algorithm()) });
        };
        let bytes = key.to_bytes();
        let digest = Sha256::new()
            .chain_update(name)
            .chain_update([b'\n', ED25519])
            .chain_update(bytes)
            .finalize();
        let id = [digest[0], digest[1], digest[2], digest[3]];
        Ok(Self { name: name.to_owned(), id, public: public.clone(), bytes })
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let parse = || {
            let mut parts = text.splitn(3, '+');
            let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
            let key = STANDARD.decode(key).ok()?;
            let (&kind, key) = key.split_first()?;
            let key = VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
            // A point of small order verifies signatures that nobody made.
            if kind != ED25519 || key.is_weak() {
                return None;
            }
            let key = Self::new(name, &PublicKey::Ed25519(key)).ok()?;
            // The id is part of the name that a reader gave: another one means that the text was changed.
            (hex::encode(key.id) == id).then_some(key)
        };
        parse().ok_or_else(|| NoteError::NotAKey { found: text.chars().take(120).collect() })
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<u8> = [ED25519].into_iter().chain(self.bytes).collect();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id), STANDARD.encode(key))
    }
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Signs a text that ends in a newline. `key` is the signer's own.
pub fn sign(text: &str, key: &NoteKey, signer: &dyn Signer) -> Result<String, NoteError> {
    debug_assert!(text.ends_with('\n') && signer.public() == &key.public);
    let signature = signer
        .sign(text.as_bytes())
        .map_err(|source| NoteError::NotMade { key: key.to_string(), source })?;
    let signature: Vec<u8> = key.id.into_iter().chain(signature).collect();
    Ok(format!("{text}\n{SIGNATURE_START}{} {}\n", key.name, STANDARD.encode(signature)))
}

/// The text of a note, once the key's signature on it was checked. One that does not hold refuses the note, whatever
/// others there are.
pub fn open<'a>(note: &'a str, key: &NoteKey) -> Result<&'a str, NoteError> {
    if note.len() as u64 > NOTE_BYTES_MAX {
        return Err(NoteError::Malformed("it is too long"));
    }
    if note.bytes().any(|b| b < 0x20 && b != b'\n') {
        return Err(NoteError::Malformed("it has a control character"));
    }
    let blank = note.rfind("\n\n").ok_or(NoteError::Malformed("it has no blank line"))?;
    let (text, signatures) = (&note[..=blank], &note[blank + 2..]);
    let signatures = signatures
        .strip_suffix('\n')
        .ok_or(NoteError::Malformed("its last line is no signature"))?;
    let mut signed = false;
    for (i, line) in signatures.split('\n').enumerate() {
        if i == SIGNATURES_MAX {
            return Err(NoteError::Malformed("it has too many signatures"));
        }
        let (name, signature) =
            parse_signature(line).ok_or(NoteError::Malformed("a line is no signature"))?;
        let Some((id, signature)) = signature.split_first_chunk::<4>() else {
            return Err(NoteError::Malformed("a signature is too short"));
        };
        if name != key.name || *id != key.id {
            continue;
        }
        if !key.public.verifies(text.as_bytes(), signature) {
            return Err(NoteError::BadSignature { key: key.to_string() });
        }
        signed = true;
    }
    if signed { Ok(text) } else { Err(NoteError::NotSigned { key: key.to_string() }) }
}

fn parse_signature(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, signature) = line.strip_prefix(SIGNATURE_START)?.split_once(' ')?;
    let signature = STANDARD.decode(signature).ok()?;
    is_name(name).then_some((name, signature))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}
