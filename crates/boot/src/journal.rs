//! The state as records in sectors: the newest whole one counts.
//!
//! ```text
//! record, 192 bytes, integers little endian
//!     0  magic "PLSB" | version u8 = 1 | good u8 | spare u8 | last u8 | sequence u64
//!    16  floor u32 | spare code u16 | last code u16
//!    24  good image   security u32 | 0 u32 | len u64 | order u64 | digest [32]
//!    80  spare image  the same; zeros if spare = 0
//!   136  last         order u64 | digest [32]; zeros if last = 0
//!   176  0 [12] | crc32c of all before u32
//! good  = 0 slot a | 1 slot b
//! spare = 0 empty | 1 kept | 2 withdrawn | 3 failed | 4 armed | 5 armed, kept | 6 trying | 7 gave up (with its code)
//! last  = 0 none | 1 confirmed | 2 not confirmed | 3 gave up (with its code) | 4 not whole | 5 below the floor
//!         | 6 withdrawn | 7 decayed
//! ```
//!
//! `sequence` grows by one per record. Records fill a sector from its beginning; the first one that a process writes goes
//! into the next sector, which is erased before. So nothing is ever programmed behind a record that a cut may have left
//! half written and reading as erased, and a cut leaves either the state before or the one after: in `erase`, since the
//! newest record lies in another sector; in `program`, since the checksum comes last. A sector that was left half erased
//! may still hold old records, and they are older than the newest.
//!
//! Magic, version, sequence and checksum keep their places in every version. A newest record of a version that this build does
//! not know is refused, and so is one that is not in its one form: to go on with an older state would be a guess.

use crate::flash::{Flash, Geometry};
use crate::state::{Content, Digest, Ended, Ending, Image, Order, SecurityVersion, Slot, State};

/// A multiple of every word that a microcontroller's flash has.
pub const RECORD_BYTES: usize = 192;
pub const VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"PLSB";
const CRC_AT: usize = RECORD_BYTES - 4;

/// What stands in one place of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or not all of a record.
    Nothing,
    Whole {
        sequence: u64,
        state: State,
    },
    /// A whole record that this build does not understand.
    Foreign {
        sequence: u64,
        version: u8,
    },
}

/// The one form of a state.
pub fn encode(state: &State, sequence: u64) -> [u8; RECORD_BYTES] {
    let mut out = Out { bytes: [0; RECORD_BYTES], at: 0 };
    let (spare, spare_code) = spare_code(&state.spare);
    let (last, last_code) = state.last.map_or((0, 0), |last| ending_code(last.how));
    out.put(&MAGIC);
    out.put(&[VERSION, state.good as u8, spare, last]);
    out.put(&sequence.to_le_bytes());
    out.put(&state.floor.0.to_le_bytes());
    out.put(&spare_code.to_le_bytes());
    out.put(&last_code.to_le_bytes());
    out.put_image(&state.image);
    match state.spare.image() {
        Some(image) => out.put_image(image),
        None => out.at += IMAGE_BYTES,
    }
    if let Some(last) = &state.last {
        out.put(&last.order.0.to_le_bytes());
        out.put(&last.digest.0);
    }
    let crc = crc32c(&out.bytes[..CRC_AT]);
    out.at = CRC_AT;
    out.put(&crc.to_le_bytes());
    out.bytes
}

/// Reads one place. Whatever parses is encoded again and compared, so a state has one form.
pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Found {
    let crc = u32::from_le_bytes(array(bytes, CRC_AT));
    if bytes[..4] != MAGIC || crc32c(&bytes[..CRC_AT]) != crc {
        return Found::Nothing;
    }
    let (version, sequence) = (bytes[4], u64::from_le_bytes(array(bytes, 8)));
    match parse(bytes) {
        Some(state) if encode(&state, sequence) == *bytes => Found::Whole { sequence, state },
        _ => Found::Foreign { sequence, version },
    }
}

const IMAGE_BYTES: usize = 56;

struct Out {
    bytes: [u8; RECORD_BYTES],
    at: usize,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn put_image(&mut self, image: &Image) {
        self.put(&image.security.0.to_le_bytes());
        self.put(&[0; 4]);
        self.put(&image.len.to_le_bytes());
        self.put(&image.order.0.to_le_bytes());
        self.put(&image.digest.0);
    }
}

fn parse(bytes: &[u8; RECORD_BYTES]) -> Option<State> {
    let [_, _, _, _, VERSION, good, spare, last, ..] = *bytes else { return None };
    let good = *Slot::BOTH.get(usize::from(good))?;
    let floor = SecurityVersion(u32::from_le_bytes(array(bytes, 16)));
    let spare_code = u16::from_le_bytes(array(bytes, 20));
    let last_code = u16::from_le_bytes(array(bytes, 22));
    let other = image(bytes, 80);
    let spare = match spare {
        0 => Content::Empty,
        1 => Content::Kept(other),
        2 => Content::Withdrawn(other),
        3 => Content::Failed(other),
        4 => Content::Armed { image: other, kept: false },
        5 => Content::Armed { image: other, kept: true },
        6 => Content::Trying { image: other, gave_up: None },
        7 => Content::Trying { image: other, gave_up: Some(spare_code) },
        _ => return None,
    };
    let how = match last {
        0 => None,
        1 => Some(Ending::Confirmed),
        2 => Some(Ending::NotConfirmed),
        3 => Some(Ending::GaveUp(last_code)),
        4 => Some(Ending::NotWhole),
        5 => Some(Ending::BelowFloor),
        6 => Some(Ending::Withdrawn),
        7 => Some(Ending::Decayed),
        _ => return None,
    };
    let order = Order(u64::from_le_bytes(array(bytes, 136)));
    let last = how.map(|how| Ended { order, digest: Digest(array(bytes, 144)), how });
    let state = State::new(good, image(bytes, 24), floor)?;
    Some(State { spare, last, ..state })
}

fn image(bytes: &[u8; RECORD_BYTES], at: usize) -> Image {
    Image {
        security: SecurityVersion(u32::from_le_bytes(array(bytes, at))),
        len: u64::from_le_bytes(array(bytes, at + 8)),
        order: Order(u64::from_le_bytes(array(bytes, at + 16))),
        digest: Digest(array(bytes, at + 24)),
    }
}

fn spare_code(content: &Content) -> (u8, u16) {
    match content {
        Content::Empty => (0, 0),
        Content::Kept(_) => (1, 0),
        Content::Withdrawn(_) => (2, 0),
        Content::Failed(_) => (3, 0),
        Content::Armed { kept: false, .. } => (4, 0),
        Content::Armed { kept: true, .. } => (5, 0),
        Content::Trying { gave_up: None, .. } => (6, 0),
        Content::Trying { gave_up: Some(code), .. } => (7, *code),
    }
}

fn ending_code(how: Ending) -> (u8, u16) {
    match how {
        Ending::Confirmed => (1, 0),
        Ending::NotConfirmed => (2, 0),
        Ending::GaveUp(code) => (3, code),
        Ending::NotWhole => (4, 0),
        Ending::BelowFloor => (5, 0),
        Ending::Withdrawn => (6, 0),
        Ending::Decayed => (7, 0),
    }
}

fn array<const N: usize>(bytes: &[u8; RECORD_BYTES], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("fields lie inside a record")
}

/// CRC-32C by half bytes: a table of 64 bytes, where one of 1 KiB would be a tenth of a bootloader.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut n = 0;
        while n < 16 {
            let mut crc = n as u32;
            let mut bit = 0;
            while bit < 4 {
                crc = (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
                bit += 1;
            }
            table[n] = crc;
            n += 1;
        }
        table
    };
    let mut crc = !0;
    for byte in bytes {
        crc ^= u32::from(*byte);
        crc = (crc >> 4) ^ TABLE[(crc & 15) as usize];
        crc = (crc >> 4) ^ TABLE[(crc & 15) as usize];
    }
    !crc
}

/// The newest record of a region, and where the next one goes.
#[derive(Debug)]
pub(crate) struct Journal<F> {
    flash: F,
    /// The sector with the newest record.
    sector: u16,
    /// Behind this process's own last record. `None`: into the next sector.
    next: Option<u32>,
    sequence: u64,
}

/// Why there is no state to go by.
#[derive(Debug)]
pub(crate) enum Unreadable<E> {
    Flash(E),
    /// Two sectors at least, each with room for a record of whole words.
    Geometry(Geometry),
    Empty,
    Foreign(u8),
}

impl<F: Flash> Journal<F> {
    /// Looks at every place: their number is the board's.
    pub fn open(mut flash: F) -> Result<(Self, State), Unreadable<F::Error>> {
        let newest = newest(&mut flash)?.ok_or(Unreadable::Empty)?;
        match newest {
            (sector, Found::Whole { sequence, state }) => {
                Ok((Self { flash, sector, next: None, sequence }, state))
            }
            (_, Found::Foreign { version, .. }) => Err(Unreadable::Foreign(version)),
            (_, Found::Nothing) => unreachable!("nothing is never the newest record"),
        }
    }

    /// The journal of a device that has none. `None`: it has one.
    pub fn create(mut flash: F) -> Result<Option<Self>, Unreadable<F::Error>> {
        let journal = match newest(&mut flash)? {
            Some(_) => None,
            // The first record goes into the sector behind this one, which is the first.
            None => {
                let sector = flash.geometry().sectors - 1;
                Some(Self { flash, sector, next: None, sequence: 0 })
            }
        };
        Ok(journal)
    }

    pub fn has_a_record(&self) -> bool {
        self.sequence > 0
    }

    /// Returns once the state is durable. `Ok(false)`: the flash said so, and reads otherwise.
    pub fn append(&mut self, state: &State) -> Result<bool, F::Error> {
        let Geometry { sectors, sector_len, .. } = self.flash.geometry();
        let record = encode(state, self.sequence + 1);
        // Should anything fail, nothing is programmed behind it.
        let (sector, at) = match self.next.take() {
            Some(at) if at + RECORD_BYTES as u32 <= sector_len => (self.sector, at),
            _ => {
                let sector = (self.sector + 1) % sectors;
                self.flash.erase(sector)?;
                (sector, 0)
            }
        };
        self.flash.program(sector, at, &record)?;
        let mut there = [0; RECORD_BYTES];
        self.flash.read(sector, at, &mut there)?;
        if there != record {
            return Ok(false);
        }
        self.sector = sector;
        self.next = Some(at + RECORD_BYTES as u32);
        self.sequence += 1;
        Ok(true)
    }
}

type Place = (u16, Found);

fn newest<F: Flash>(flash: &mut F) -> Result<Option<Place>, Unreadable<F::Error>> {
    let geometry = flash.geometry();
    let Geometry { sectors, sector_len, word_len } = geometry;
    let record_len = RECORD_BYTES as u32;
    let fits = sectors >= 2 && sector_len >= record_len;
    if !geometry.is_sound() || !fits || !record_len.is_multiple_of(word_len) {
        return Err(Unreadable::Geometry(geometry));
    }
    let mut newest: Option<(u64, Place)> = None;
    let mut record = [0; RECORD_BYTES];
    for sector in 0..sectors {
        for at in (0..=sector_len - record_len).step_by(RECORD_BYTES) {
            flash.read(sector, at, &mut record).map_err(Unreadable::Flash)?;
            let found = decode(&record);
            let sequence = match found {
                Found::Nothing => continue,
                Found::Whole { sequence, .. } | Found::Foreign { sequence, .. } => sequence,
            };
            if newest.is_none_or(|(newest, _)| sequence > newest) {
                newest = Some((sequence, (sector, found)));
            }
        }
    }
    Ok(newest.map(|(_, place)| place))
}
