//! Storage that is erased by the sector and programmed by the word.

/// NOR flash, or something that behaves like it. Who uses it programs only what was erased, each word once, and in order
/// within a sector; an implementation may refuse anything else.
///
/// A power cut in the middle of `program` leaves any of the words programmed, and one in between; in the middle of
/// `erase` it leaves anything at all in that sector. Words that were touched and read as erased still count as
/// programmed. Nothing else may change. Hardware that reports such words when they are read (ECC) hands them over as any
/// bytes, not as an error: an error is a flash that cannot be read.
pub trait Flash {
    type Error;

    fn geometry(&self) -> Geometry;

    /// Fills `into` from `at` on. What was never programmed since the last erase reads as 0xFF.
    fn read(&mut self, sector: u16, at: u32, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes whole words. Durable when it returns.
    fn program(&mut self, sector: u16, at: u32, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Sets a sector to 0xFF. Durable when it returns.
    fn erase(&mut self, sector: u16) -> Result<(), Self::Error>;
}

/// Sectors of equal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub sectors: u16,
    pub sector_len: u32,
    /// The smallest unit that can be programmed, at most [`Geometry::WORD_LEN_MAX`].
    pub word_len: u32,
}

impl Geometry {
    /// The widest word of the microcontrollers that we looked at is 32 bytes (STM32H7).
    pub const WORD_LEN_MAX: u32 = 64;

    pub const ERASED: u8 = 0xFF;

    /// Bytes of all sectors together.
    pub const fn len(&self) -> u64 {
        self.sectors as u64 * self.sector_len as u64
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Words fill a sector, and are no wider than our buffers.
    pub(crate) const fn is_sound(&self) -> bool {
        self.word_len > 0
            && self.word_len <= Self::WORD_LEN_MAX
            && self.sector_len > 0
            && self.sector_len.is_multiple_of(self.word_len)
    }
}
