//! The seal on a batch between uplink and ingest: HMAC-SHA-256 (RFC 2104).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub const MAC_BYTES: usize = 32;

/// A key that only uplink and ingest hold.
#[derive(Clone)]
pub struct MacKey([u8; 32]);

impl MacKey {
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn tag(&self, message: &[u8]) -> [u8; MAC_BYTES] {
        self.state(message).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub fn is_tag(&self, message: &[u8], tag: &[u8]) -> bool {
        self.state(message).verify_slice(tag).is_ok()
    }

    fn state(&self, message: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(message);
        mac
    }
}

impl core::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("MacKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_holds_for_its_key_and_message_and_for_nothing_else() {
        let key = MacKey::new([7; 32]);
        let tag = key.tag(b"batch");
        assert!(key.is_tag(b"batch", &tag));
        assert!(!key.is_tag(b"batcH", &tag), "another message");
        assert!(!key.is_tag(b"batch\0", &tag), "a longer message");
        assert!(!MacKey::new([8; 32]).is_tag(b"batch", &tag), "another key");
        assert!(!key.is_tag(b"batch", &tag[..31]), "a shortened tag");
        assert!(!key.is_tag(b"batch", &[]), "no tag");
        for bit in 0..256 {
            let mut other = tag;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.is_tag(b"batch", &other), "bit {bit}");
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(alloc::format!("{:?}", MacKey::new([7; 32])), "MacKey(secret)");
    }
}
