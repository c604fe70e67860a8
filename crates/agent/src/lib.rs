//! On the device: identity, sample, seal, backlog, publish; and what it runs: check in, fetch, arm, try, confirm or take back.
//!
//! Promises: what was sealed is found after any crash until its gateway has acknowledged it, or is stated as lost in a
//! signed notice (INV-ACK-1); (epoch, sequence) of a key never goes back and never stands for two messages
//! (INV-REPLAY-2); a recording is replayed row by row, none lost and none doubled, wherever the power is cut; sampling
//! and sealing go on when the gateway is away.
//! Never: seals anything twice, decides by the wall clock, sends what is not durable, lets a private key leave the
//! device.
//!
//! One reading's way through the files: `sources/` → [`pack`] → [`seal`] (with its number from [`counter`]) →
//! [`backlog`] → [`session`] → the gateway's PUBACK → [`backlog`] again, which forgets it. An update's: [`update`].

pub mod application;
pub mod backlog;
pub mod clock;
pub mod counter;
mod cursor;
pub mod driver;
pub mod feed;
pub mod flash;
pub mod launch;
pub mod link;
mod losses;
pub mod pack;
pub mod position;
pub mod process;
mod record;
pub mod recording;
pub mod seal;
pub mod session;
pub mod sources;
pub mod station;
pub mod status;
pub mod supervisor;
pub mod update;
