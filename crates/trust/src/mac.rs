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
