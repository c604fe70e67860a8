//! A flash in memory whose power can be cut at any word and any erase.
//!
//! It models, each worse than a usual chip and none worse than an allowed one: the word at which the power goes is not
//! programmed, half programmed, any of its bits are, or all; the sector at which it goes stays as it was, is half erased,
//! has any of its bits set, or reads as erased. Whatever was touched counts as touched until a whole erase: programming a
//! touched word, or a word before the last one of its sector, breaks the rules of the chip and panics.

use boot::{Flash, FlashSlots, Geometry, Slot, Spare};
use std::cell::RefCell;
use std::rc::Rc;

use crate::sweep::Board;

/// What the cut leaves of the operation that it interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    Before,
    Half,
    /// Any bits, as the seed decides.
    Scattered(u64),
    /// All of it; nobody was told.
    After,
}

pub const TEARS: [Tear; 5] =
    [Tear::Before, Tear::Half, Tear::Scattered(1), Tear::Scattered(2), Tear::After];

#[derive(Debug, PartialEq, Eq)]
pub enum ChipError {
    Off,
    /// A worn cell: the operation was not done.
    Worn,
}

#[derive(Debug)]
struct Chip {
    geometry: Geometry,
    cells: Vec<u8>,
    /// By word: programmed, or touched by a cut, since the last whole erase.
    touched: Vec<bool>,
    tear: Tear,
    random: u64,
    operations: u64,
    cut_at: Option<u64>,
    /// From this operation on nothing is written, and the power stays on.
    worn_from: Option<u64>,
    on: bool,
}

/// Sectors of a chip. Clones are the same flash.
#[derive(Clone, Debug)]
pub struct Nor {
    chip: Rc<RefCell<Chip>>,
    first: u16,
    sectors: u16,
}

impl Nor {
    pub fn new(geometry: Geometry, tear: Tear) -> Self {
        let len = geometry.len() as usize;
        let seed = if let Tear::Scattered(seed) = tear { seed } else { 1 };
        let chip = Chip {
            geometry,
            cells: vec![Geometry::ERASED; len],
            touched: vec![false; len / geometry.word_len as usize],
            tear,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            operations: 0,
            cut_at: None,
            worn_from: None,
            on: true,
        };
        let sectors = geometry.sectors;
        Self { chip: Rc::new(RefCell::new(chip)), first: 0, sectors }
    }

    pub fn part(&self, first: u16, sectors: u16) -> Self {
        assert!(first + sectors <= self.sectors, "a part lies in its flash");
        Self { chip: self.chip.clone(), first: self.first + first, sectors }
    }

    pub fn wear_out_from(&self, operation: Option<u64>) {
        self.chip.borrow_mut().worn_from = operation;
    }

    /// Changes one bit behind everybody's back.
    pub fn flip(&self, sector: u16, at: u32) {
        let at = self.cell(sector, at);
        self.chip.borrow_mut().cells[at] ^= 1;
    }

    pub fn bytes(&self, sector: u16, at: u32, len: usize) -> Vec<u8> {
        let at = self.cell(sector, at);
        self.chip.borrow().cells[at..at + len].to_vec()
    }

    /// Puts bytes into a sector, as if it had been erased and programmed.
    pub fn put(&self, sector: u16, at: u32, bytes: &[u8]) {
        let (at, mut chip) = (self.cell(sector, at), self.chip.borrow_mut());
        let word_len = chip.geometry.word_len as usize;
        chip.cells[at..at + bytes.len()].copy_from_slice(bytes);
        chip.touched[at / word_len..(at + bytes.len()).div_ceil(word_len)].fill(true);
    }

    fn cell(&self, sector: u16, at: u32) -> usize {
        assert!(sector < self.sectors, "sector {sector} of {}", self.sectors);
        let sector_len = self.chip.borrow().geometry.sector_len;
        usize::from(self.first + sector) * sector_len as usize + at as usize
    }
}

impl Chip {
    /// `Ok(true)`: the power goes in the middle of this operation.
    fn step(&mut self) -> Result<bool, ChipError> {
        if !self.on {
            return Err(ChipError::Off);
        }
        if self.worn_from.is_some_and(|from| self.operations >= from) {
            self.operations += 1;
            return Err(ChipError::Worn);
        }
        self.on = self.cut_at != Some(self.operations);
        self.operations += 1;
        Ok(!self.on)
    }

    fn random(&mut self) -> u8 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
    }

    fn program_word(&mut self, at: usize, word: &[u8]) -> Result<(), ChipError> {
        let (word_no, sector_len) = (at / word.len(), self.geometry.sector_len as usize);
        let sector_end = (at / sector_len + 1) * sector_len / word.len();
        assert!(
            self.touched[word_no..sector_end].iter().all(|touched| !touched),
            "a word is programmed twice, or before another one of its sector, at {at}"
        );
        let cut = self.step()?;
        self.touched[word_no] = true;
        for (n, byte) in word.iter().enumerate() {
            let mask = match self.tear {
                _ if !cut => 0,
                Tear::Before => 0xFF,
                Tear::Half if n < word.len() / 2 => 0,
                Tear::Half => 0xFF,
                Tear::Scattered(_) => self.random(),
                Tear::After => 0,
            };
            self.cells[at + n] &= byte | mask;
        }
        if cut { Err(ChipError::Off) } else { Ok(()) }
    }

    fn erase(&mut self, at: usize) -> Result<(), ChipError> {
        let (sector_len, word_len) =
            (self.geometry.sector_len as usize, self.geometry.word_len as usize);
        let cut = self.step()?;
        for n in 0..sector_len {
            let set = match self.tear {
                _ if !cut => 0xFF,
                Tear::Before => 0,
                Tear::Half if n < sector_len / 2 => 0xFF,
                Tear::Half => 0,
                Tear::Scattered(_) => self.random(),
                Tear::After => 0xFF,
            };
            self.cells[at + n] |= set;
        }
        self.touched[at / word_len..(at + sector_len) / word_len].fill(cut);
        if cut { Err(ChipError::Off) } else { Ok(()) }
    }
}

impl Flash for Nor {
    type Error = ChipError;

    fn geometry(&self) -> Geometry {
        Geometry { sectors: self.sectors, ..self.chip.borrow().geometry }
    }

    fn read(&mut self, sector: u16, at: u32, into: &mut [u8]) -> Result<(), ChipError> {
        if !self.chip.borrow().on {
            return Err(ChipError::Off);
        }
        let sector_len = self.chip.borrow().geometry.sector_len as usize;
        assert!(at as usize + into.len() <= sector_len, "a read ends in its sector");
        into.copy_from_slice(&self.bytes(sector, at, into.len()));
        Ok(())
    }

    fn program(&mut self, sector: u16, at: u32, bytes: &[u8]) -> Result<(), ChipError> {
        let at = self.cell(sector, at);
        let mut chip = self.chip.borrow_mut();
        let word_len = chip.geometry.word_len as usize;
        assert!(
            at.is_multiple_of(word_len) && bytes.len().is_multiple_of(word_len),
            "whole words are programmed"
        );
        for (n, word) in bytes.chunks(word_len).enumerate() {
            chip.program_word(at + n * word_len, word)?;
        }
        Ok(())
    }

    fn erase(&mut self, sector: u16) -> Result<(), ChipError> {
        let at = self.cell(sector, 0);
        self.chip.borrow_mut().erase(at)
    }
}

/// A microcontroller: journal and both slots on one chip.
#[derive(Clone, Debug)]
pub struct NorBoard {
    pub journal: Nor,
    pub a: Nor,
    pub b: Nor,
}

/// 2 records fit into a sector; every release needs 2 sectors.
pub const SECTOR_LEN: u32 = 512;
const SLOT_SECTORS: u16 = 2;

impl NorBoard {
    pub fn new(journal_sectors: u16, word_len: u32, tear: Tear) -> Self {
        let sectors = journal_sectors + 2 * SLOT_SECTORS;
        let chip = Nor::new(Geometry { sectors, sector_len: SECTOR_LEN, word_len }, tear);
        Self {
            journal: chip.part(0, journal_sectors),
            a: chip.part(journal_sectors, SLOT_SECTORS),
            b: chip.part(journal_sectors + SLOT_SECTORS, SLOT_SECTORS),
        }
    }

    pub fn slot(&self, slot: Slot) -> &Nor {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }
}

impl Board for NorBoard {
    type Flash = Nor;
    type Slots = FlashSlots<Nor>;

    fn flash(&self) -> Option<Nor> {
        Some(self.journal.clone())
    }

    fn slots(&self) -> FlashSlots<Nor> {
        FlashSlots::new(self.a.clone(), self.b.clone())
    }

    fn write(&self, spare: &Spare, image: &[u8]) -> bool {
        let mut slots = self.slots();
        let pieces = image.chunks(256).enumerate();
        slots.erase(spare).is_ok()
            && pieces.map(|(n, p)| slots.program(spare, n as u64 * 256, p)).all(|done| done.is_ok())
    }

    fn leave_the_factory(&self, image: &[u8]) {
        for (n, piece) in image.chunks(SECTOR_LEN as usize).enumerate() {
            self.a.put(n as u16, 0, piece);
        }
    }

    fn holds(&self, slot: Slot, len: usize) -> Vec<u8> {
        self.slot(slot).bytes(0, 0, len)
    }

    fn cut_at(&self, operation: Option<u64>) {
        let mut chip = self.journal.chip.borrow_mut();
        chip.cut_at = operation;
        chip.operations = 0;
    }

    fn operations(&self) -> u64 {
        self.journal.chip.borrow().operations
    }

    fn is_on(&self) -> bool {
        self.journal.chip.borrow().on
    }

    fn power_cycle(&self) {
        self.journal.chip.borrow_mut().on = true;
    }
}
