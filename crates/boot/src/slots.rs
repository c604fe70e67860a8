//! The two places where images lie.

use crate::flash::{Flash, Geometry};
use crate::state::{Digest, Slot};
use sha2::{Digest as _, Sha256};

/// Leave to write to the spare slot: the journal says, durably, that nothing in it starts. Armed, or given up by dropping
/// it: a later `begin` gives another one and need not write for it.
#[derive(Debug)]
pub struct Spare(pub(crate) Slot);

impl Spare {
    pub fn slot(&self) -> Slot {
        self.0
    }
}

/// Reads what lies in the slots. Flash, files: the loader does not mind.
pub trait Slots {
    type Error;

    /// SHA-256 of the image of `len` bytes in a slot. `None` if no image of this length can lie there.
    fn digest(&mut self, slot: Slot, len: u64) -> Result<Option<Digest>, Self::Error>;

    /// Returns once what lies in the slot is durable. Called before an image is armed: what is armed is found again.
    fn settle(&mut self, slot: Slot) -> Result<(), Self::Error>;
}

/// SHA-256 of `len` bytes that `read` brings, a buffer at a time. Where the bytes lie is the caller's.
pub fn measure<E>(
    len: u64,
    buffer: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Digest, E> {
    assert!(!buffer.is_empty(), "a buffer of no bytes never comes to the end");
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < len {
        let n = (len - at).min(buffer.len() as u64) as usize;
        read(at, &mut buffer[..n])?;
        hash.update(&buffer[..n]);
        at += n as u64;
    }
    Ok(Digest(hash.finalize().into()))
}

/// Slots that are flash themselves: an image is executed where it lies, from the first byte on.
#[derive(Clone, Debug)]
pub struct FlashSlots<F> {
    a: F,
    b: F,
}

impl<F: Flash> FlashSlots<F> {
    /// # Panics
    /// If the words of a slot do not fill its sectors: a board has one geometry, and its first start finds out.
    pub fn new(a: F, b: F) -> Self {
        for flash in [&a, &b] {
            let geometry = flash.geometry();
            assert!(geometry.is_sound(), "expected sectors of whole words, found {geometry:?}");
        }
        Self { a, b }
    }

    /// Erases the spare slot whole: what is programmed next begins at 0.
    pub fn erase(&mut self, spare: &Spare) -> Result<(), F::Error> {
        let flash = self.flash(spare.slot());
        (0..flash.geometry().sectors).try_for_each(|sector| flash.erase(sector))
    }

    /// Programs a piece of the image into the erased spare slot, from `at` on. Pieces come in order, each of whole words,
    /// except the last: its last word is filled up as if it were erased.
    ///
    /// # Panics
    /// If a piece begins inside a word or ends behind the slot: the caller knows the slot's geometry.
    pub fn program(&mut self, spare: &Spare, at: u64, bytes: &[u8]) -> Result<(), F::Error> {
        let flash = self.flash(spare.slot());
        let Geometry { sector_len, word_len, .. } = flash.geometry();
        let end = at + bytes.len() as u64;
        assert!(
            at.is_multiple_of(word_len.into()) && end <= flash.geometry().len(),
            "expected a piece that begins a word and ends in the slot, found {at} to {end}"
        );
        for (n, word) in bytes.chunks(word_len as usize).enumerate() {
            let at = at + n as u64 * u64::from(word_len);
            let mut whole = [Geometry::ERASED; Geometry::WORD_LEN_MAX as usize];
            whole[..word.len()].copy_from_slice(word);
            let (sector, at) = (at / u64::from(sector_len), at % u64::from(sector_len));
            flash.program(sector as u16, at as u32, &whole[..word_len as usize])?;
        }
        Ok(())
    }

    fn flash(&mut self, slot: Slot) -> &mut F {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }
}

impl<F: Flash> Slots for FlashSlots<F> {
    type Error = F::Error;

    fn digest(&mut self, slot: Slot, len: u64) -> Result<Option<Digest>, F::Error> {
        let flash = self.flash(slot);
        let geometry = flash.geometry();
        if len > geometry.len() {
            return Ok(None);
        }
        let sector_len = u64::from(geometry.sector_len);
        let mut buffer = [0; 256];
        measure(len, &mut buffer, |mut at, mut into| {
            while !into.is_empty() {
                let in_sector = (sector_len - at % sector_len).min(into.len() as u64) as usize;
                let (piece, rest) = into.split_at_mut(in_sector);
                flash.read((at / sector_len) as u16, (at % sector_len) as u32, piece)?;
                at += in_sector as u64;
                into = rest;
            }
            Ok(())
        })
        .map(Some)
    }

    /// What is programmed is durable.
    fn settle(&mut self, _: Slot) -> Result<(), F::Error> {
        Ok(())
    }
}
