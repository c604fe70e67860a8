//! Which of two slots starts: the journal that says so, and the moves between its states.
//!
//! Promises: after a power cut at any write the loader finds a verified image, and its choice is a function of what is
//! durable, the newest whole record and the bytes in the slots, and of nothing else (INV-BOOT-1). The digest of what is
//! started was checked at this very start. An image below the device's security version never starts (INV-BOOT-2); there
//! are no permits yet. A new image is started once; unless it confirms itself, the next start takes it back. What the
//! journal says runs is what runs, after any cut.
//! Never: allocates, reads a clock, writes to a slot that is the way back, raises the security version by itself, checks a
//! signature. Who arms an image has verified it before; whoever may write the journal may arm what he likes, so the
//! journal lies where only loader and agent write.
//!
//! ```text
//!              begin                arm                    load                  confirm
//!   steady ────────────▶ steady ──────────▶ armed ────────────────────▶ trying ──────────▶ steady
//!   A good, B old      A good, B empty    A good, B next             A good, B runs        B good, A old
//!                                            │ load: not whole,         │ load: not confirmed,
//!                                            │ or below the floor       │ or gave up
//!                                            ▼                          ▼
//!                                         steady, A good             steady, A good, B failed
//! ```
//!
//! Each move is one record ([`journal`]), so a cut leaves the state before it or the one after it. The moves and the
//! loader's choice are pure ([`state`]); [`Boot`] does them over a [`Flash`] and the [`Slots`], and decides nothing. On a
//! microcontroller both are flash ([`FlashSlots`]); on Linux they are files, and one core serves both.
//!
//! Every start goes through a load, on Linux each one of the process too: who starts an image on trial a second time
//! without asking has let it run twice.
//!
//! Not covered: a cell that was half programmed when the power went and reads now so, now so (a record that was read once
//! as whole may later not be); a slot that decays after it was measured, while it runs; an image that gave up while the way back decayed:
//! it goes on running, and nothing can be installed beside it.

#![no_std]

#[cfg(test)]
extern crate std;

mod boot;
mod flash;
pub mod journal;
mod slots;
pub mod state;

pub use boot::{Boot, Error, Watchdog};
pub use flash::{Flash, Geometry};
pub use slots::{FlashSlots, Slots, Spare, measure};
pub use state::{
    Choice, Content, Digest, Ended, Ending, Image, Order, Phase, Reason, Refused, Report,
    SecurityVersion, Slot, State, Stuck,
};
