//! What a device runs, and how that changes: both repositories verified, images into the spare slot, one trial, confirmed or
//! taken back.
//!
//! ```text
//! check-in ──▶ Director's metadata, lease, vendor's metadata ──▶ assess ──▶ fetch ──▶ check-in ──▶ arm ──▶ load ──▶ trial
//!    ▲          kept before anything follows                     both        spare     a fresh lease               │
//!    └──────────────────────────────── a signed manifest tells how it ended ──────────────────────────────────────┘
//! ```
//!
//! Promises: nothing is armed that the vendor's threshold and the Director did not both name (INV-IMG-1), nor without a lease
//! that was issued within `halt_within` and does not name its rollout as halted (INV-ROLL-1); no metadata and no lease older
//! than the newest seen count (INV-FRESH-1); wherever the power is cut, one of the two images starts (INV-BOOT-1), and what the
//! next manifest tells is what the boot journal says.
//! Never: believes a gateway, nor the wall clock; runs an image a second time that failed its trial.
//!
//! [`install`] decides, [`crate::supervisor`] watches the application, [`product`] and [`repository`] keep, [`checkin`] speaks,
//! [`driver`] does.

pub mod checkin;
pub mod driver;
pub mod http;
pub mod install;
#[cfg(test)]
mod kit;
pub mod metrics;
pub mod notes;
pub mod product;
pub mod repository;
