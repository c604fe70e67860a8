//! Words that two crates say: ids, counters, readings, and the bytes that carry them.
//!
//! Promises: what parses here is within its bounds and has exactly one meaning; every parser names what it expected
//! and what it found; work and memory are bounded by the length of the input (INV-COST-1).
//! Never: checks a signature (that is `trust`), reads a clock, allocates by a number that the sender chose.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod admission;
pub mod bus;
pub mod cbor;
pub mod envelope;
pub mod hex;
pub mod id;
pub mod lease;
pub mod manifest;
pub mod reading;
pub mod release;
pub mod senml;
pub mod told;
#[cfg(test)]
mod tree;
pub mod uplink;

pub use envelope::{Counter, Header, Heard, Kind, Prior, WallClock};
pub use id::{
    DeviceId, Digest, GatewayId, GroupId, HardwareId, KeyId, Nonce, ProductId, RolloutId,
    SeriesName, Unit, ZoneId,
};
pub use reading::{Reading, Timestamp, Value};
pub use release::{Release, SecurityVersion, Version};
pub use told::told;
