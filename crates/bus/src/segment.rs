//! The bytes of a segment file, version 1. Integers are little endian.
//!
//! ```text
//! segment = header | record*           in a file named `<first, 20 digits>.log`
//! header  = "PLIMSLOG" | version u32 = 1 | salt u32 | first u64 | before_first u64 | before_bytes u64 | crc u32
//!                                                                                                        44 bytes
//! record  = len u32 | crc u32 | offset u64 | behind u32 | payload [len]                             20 + len bytes
//! ```
//!
//! * `first`: offset of the first record. `before_first` and `before_bytes`: first offset and length in bytes of the
//!   segment before this one, so that a missing or shortened segment is seen without reading them all; for the
//!   first segment of a log they are `first` and 0.
//! * header `crc`: CRC-32C of the 40 bytes before it. record `crc`: CRC-32C of salt | len | offset | behind | payload.
//! * `salt` is drawn at random for each segment. Without it a payload could hold bytes that pass for a record, and so
//!   could what a file system gives back from an older file after a power cut.
//! * `behind`: how many records of the same write stand before this one. A write begins only after the one before it
//!   was synced, so a whole record says that everything up to `offset - behind` had been durable. By this a torn tail
//!   (cut it: nobody was promised it) is told from damage to durable records (refuse to open: INV-ACK-1). Damage
//!   within the very last write looks like a tear, and is cut as one.
//!
//! A header is durable, with its name, before the first record is written behind it. So a newest segment of at most
//! 44 bytes may have a bad header: its creation was cut, and it is written again. Any other bad header is damage.

use crate::{LogError, Offset};
use disk::Disk;
use std::path::{Path, PathBuf};

pub(crate) const HEADER_LEN: u64 = 44;
pub(crate) const RECORD_HEAD_LEN: u64 = 20;
pub(crate) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"PLIMSLOG";

/// How much is read from a segment at once, unless one record is longer.
const CHUNK: u64 = 64 * 1024;

pub(crate) fn file_name(first: Offset) -> String {
    format!("{:020}.log", first.0)
}

/// The first offset of the segment with this name, if it is a segment's name.
pub(crate) fn parse_name(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(".log")?;
    let first = digits.parse().ok().map(Offset)?;
    (file_name(first) == name).then_some(first)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub salt: u32,
    pub first: Offset,
    pub before_first: Offset,
    pub before_bytes: u64,
}

/// What the start of a segment file says.
pub(crate) enum HeaderRead {
    Good(Header),
    /// Cut while it was created, or damaged: who knows the length of the file can tell.
    Bad {
        expected: &'static str,
        found: String,
    },
    UnknownVersion(u32),
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut out = [0; HEADER_LEN as usize];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.before_first.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.before_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out[..40]);
        out[40..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> HeaderRead {
        if bytes.len() >= 12 && bytes[..8] == MAGIC {
            let version = u32_at(bytes, 8);
            if version != VERSION {
                return HeaderRead::UnknownVersion(version);
            }
        }
        if bytes.len() < HEADER_LEN as usize {
            let found = format!("{} bytes", bytes.len());
            return HeaderRead::Bad { expected: "a segment header of 44 bytes", found };
        }
        if bytes[..8] != MAGIC {
            let found = format!("{:02x?}", &bytes[..8]);
            return HeaderRead::Bad { expected: "the magic bytes `PLIMSLOG`", found };
        }
        let (says, is) = (u32_at(bytes, 40), crc32c::crc32c(&bytes[..40]));
        if says != is {
            let found = format!("crc {is:08x} where {says:08x} is written");
            return HeaderRead::Bad { expected: "a header that its crc fits", found };
        }
        HeaderRead::Good(Self {
            salt: u32_at(bytes, 12),
            first: Offset(u64_at(bytes, 16)),
            before_first: Offset(u64_at(bytes, 24)),
            before_bytes: u64_at(bytes, 32),
        })
    }
}

/// Adds a record whose head is still to be filled in by [`seal`]: salt and offset are known when it is written.
pub(crate) fn put(into: &mut Vec<u8>, payload: &[u8]) {
    into.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    into.extend_from_slice(&[0; RECORD_HEAD_LEN as usize - 4]);
    into.extend_from_slice(payload);
}

/// Fills in the heads of records that were put, in order, and calls `each` with the place of each of them.
pub(crate) fn seal(
    records: &mut [u8],
    salt: u32,
    first: Offset,
    mut each: impl FnMut(Offset, u64),
) {
    let mut at = 0;
    let mut behind: u32 = 0;
    while at < records.len() {
        let len = u32_at(records, at) as usize;
        let record = &mut records[at..at + RECORD_HEAD_LEN as usize + len];
        let offset = Offset(first.0 + u64::from(behind));
        record[8..16].copy_from_slice(&offset.0.to_le_bytes());
        record[16..20].copy_from_slice(&behind.to_le_bytes());
        let crc = record_crc(salt, record);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        each(offset, at as u64);
        at += record.len();
        behind += 1;
    }
}

fn record_crc(salt: u32, record: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &record[..4]), &record[8..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Walks the records of one segment file, from a known record to a known length. Holds one chunk, or one record.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    salt: u32,
    /// The record that stands at `position`.
    pub offset: Offset,
    pub position: u64,
    until: u64,
    chunk: Vec<u8>,
    chunk_at: u64,
}

#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub behind: u32,
    pub payload: &'a [u8],
}

/// Why a cursor stopped before the end.
#[derive(Debug)]
pub(crate) enum Stop {
    Bad { expected: String, found: String },
    Io(std::io::Error),
}

impl<'a> Cursor<'a> {
    pub fn new(
        disk: &'a dyn Disk,
        path: &'a Path,
        salt: u32,
        (offset, position): (Offset, u64),
        until: u64,
    ) -> Self {
        Self { disk, path, salt, offset, position, until, chunk: Vec::new(), chunk_at: 0 }
    }

    pub fn at_end(&self) -> bool {
        self.position >= self.until
    }

    /// The length of the next payload. Checks the order of the records, not their bytes.
    pub fn peek(&mut self) -> Result<u64, Stop> {
        let (offset, left) = (self.offset, self.until - self.position);
        let head = self.bytes(RECORD_HEAD_LEN)?;
        let (len, found) = (u64::from(u32_at(head, 0)), u64_at(head, 8));
        if found != offset.0 {
            return Err(bad(format!("record {offset}"), format!("record {found}")));
        }
        if len > left - RECORD_HEAD_LEN {
            let room = left - RECORD_HEAD_LEN;
            return Err(bad(format!("at most {room} bytes of payload"), format!("{len}")));
        }
        Ok(len)
    }

    /// Steps over the next record without looking at its payload.
    pub fn skip(&mut self) -> Result<(), Stop> {
        let len = self.peek()?;
        self.step(len);
        Ok(())
    }

    /// The next record, checked.
    pub fn take(&mut self) -> Result<Record<'_>, Stop> {
        let len = self.peek()?;
        let (salt, offset) = (self.salt, self.offset);
        let record = self.bytes(RECORD_HEAD_LEN + len)?;
        let (says, is) = (u32_at(record, 4), record_crc(salt, record));
        if says != is {
            let found = format!("crc {is:08x} where {says:08x} is written");
            return Err(bad("a record that its crc fits".into(), found));
        }
        let behind = u32_at(record, 16);
        if u64::from(behind) > offset.0 {
            return Err(bad(format!("at most {offset} records behind"), format!("{behind}")));
        }
        let start = (self.position + RECORD_HEAD_LEN - self.chunk_at) as usize;
        self.step(len);
        Ok(Record { behind, payload: &self.chunk[start..start + len as usize] })
    }

    fn step(&mut self, len: u64) {
        self.position += RECORD_HEAD_LEN + len;
        self.offset = self.offset.next();
    }

    /// The next `len` bytes of the file.
    fn bytes(&mut self, len: u64) -> Result<&[u8], Stop> {
        let end = self.position + len;
        if end > self.until {
            let left = self.until - self.position;
            return Err(bad(format!("{len} bytes"), format!("{left} bytes to the end")));
        }
        let held = self.chunk_at..self.chunk_at + self.chunk.len() as u64;
        if !held.contains(&self.position) || end > held.end {
            let want = len.max(CHUNK.min(self.until - self.position));
            if self.chunk.len() as u64 != want {
                // Not `resize`: that fills byte by byte where nothing is optimised, which took half of a cut test.
                self.chunk = vec![0; want as usize];
            }
            self.chunk_at = self.position;
            let read =
                self.disk.read_at(self.path, self.position, &mut self.chunk).map_err(Stop::Io)?;
            self.chunk.truncate(read);
            if (read as u64) < len {
                return Err(bad(format!("{len} bytes"), format!("{read} bytes to the end")));
            }
        }
        let start = (self.position - self.chunk_at) as usize;
        Ok(&self.chunk[start..start + len as usize])
    }
}

fn bad(expected: String, found: String) -> Stop {
    Stop::Bad { expected, found }
}

impl Stop {
    pub fn into_error(self, file: &Path, position: u64, offset: Offset) -> LogError {
        match self {
            Self::Bad { expected, found } => {
                LogError::Corrupt { file: file.to_owned(), position, offset, expected, found }
            }
            Self::Io(e) => LogError::io("read", file)(e),
        }
    }
}

/// A whole record in `tail` that was written after record `bad` had been durable, if there is one. `tail` starts
/// where record `bad` should stand.
///
/// Looks at every byte, since a bad record does not say where the next one starts.
pub(crate) fn proof_of_damage(tail: &[u8], salt: u32, bad: Offset) -> Option<(u64, Offset)> {
    let head = RECORD_HEAD_LEN as usize;
    for at in 1..tail.len().saturating_sub(head - 1) {
        let offset = u64_at(tail, at + 8);
        // Every record before it took a head at least. This spares the crc for nearly every place.
        let offset_max = bad.0.saturating_add((at / head) as u64);
        let write_start = offset.checked_sub(u64::from(u32_at(tail, at + 16)));
        if offset > offset_max || write_start.is_none_or(|start| start <= bad.0) {
            continue;
        }
        let len = u32_at(tail, at) as usize;
        if let Some(record) = tail.get(at..at + head + len)
            && record_crc(salt, record) == u32_at(record, 4)
        {
            return Some((at as u64, Offset(offset)));
        }
    }
    None
}

/// The path of a segment.
pub(crate) fn path(dir: &Path, first: Offset) -> PathBuf {
    dir.join(file_name(first))
}

#[cfg(test)]
mod tests;
