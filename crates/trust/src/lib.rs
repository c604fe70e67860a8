//! What makes bytes believable: signatures, counters, message authentication.
//!
//! Promises: a [`cose::Verified`] exists only for bytes whose signature was checked, strictly, for its own purpose
//! (INV-PURP-1); a counter is admitted at most once (INV-REPLAY-1); work is bounded by the input (INV-COST-1).
//! Never: does IO, reads a clock, keeps a private key longer than the call that uses it (that is `keys`).

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod admission;
pub mod cose;
pub mod lease;
pub mod mac;
pub mod manifest;
pub mod taken;
#[cfg(test)]
#[expect(dead_code, reason = "the tests of `model` use all of it")]
#[path = "../../model/src/tree.rs"]
mod tree;
pub mod tuf;
pub mod uptane;
pub mod window;

use model::Digest;
use sha2::{Digest as _, Sha256};

/// SHA-256 of some bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}
