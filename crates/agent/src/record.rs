//! One record of the backlog: a sealed envelope with what the device must know about it without opening it.
//!
//! ```text
//! record   = version: 1 | kind | flags | 0 | serial u64 | key [32] | epoch u32 | sequence u64          56 bytes
//!            | position [40]                                         if flags & 1: see `position`
//!            | prior: key [32] | epoch u32 | sequence u64            if flags & 2: the envelope carries this prior
//!            | drops: count u16 | (first u64 | last u64) [count]     if kind = 2
//!            | envelope: the rest
//! kind     = 1 readings | 2 loss notice
//! ```
//!
//! All integers are little endian. The log around the record has its length and checksum. A serial is the record's
//! number in the life of the backlog: it only grows, and it stays when a thinned backlog is written anew. `drops` are
//! the serials of the envelopes that the notice states as lost: once the notice is durable they are never sent.

use crate::position::{POSITION_BYTES, Position};
use model::envelope::MESSAGE_BYTES_MAX;
use model::{Counter, KeyId, Kind, Prior};

/// The most ranges of serials that one notice drops.
pub const DROPS_MAX: usize = 128;

const FIXED_BYTES: usize = 56;
const PRIOR_BYTES: usize = 44;
const HAS_POSITION: u8 = 1;
const HAS_PRIOR: u8 = 2;

/// The longest header.
pub const HEADER_BYTES_MAX: usize = FIXED_BYTES + POSITION_BYTES + PRIOR_BYTES + 2 + 16 * DROPS_MAX;
/// The longest record.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES_MAX + MESSAGE_BYTES_MAX;

/// What stands before the envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub kind: Kind,
    pub serial: u64,
    pub key: KeyId,
    pub counter: Counter,
    /// Where the recording goes on after this and all records before it.
    pub next: Option<Position>,
    pub prior: Option<Prior>,
    /// Ranges of serials, first to last. Empty for readings.
    pub drops: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a backlog record: expected {expected}")]
pub struct BadRecord {
    pub expected: &'static str,
}

/// Writes a record.
pub fn encode(header: &Header, envelope: &[u8]) -> Vec<u8> {
    assert!(header.drops.len() <= DROPS_MAX, "a notice drops at most {DROPS_MAX} ranges");
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX.min(256) + envelope.len());
    let kind = match header.kind {
        Kind::Readings => 1,
        Kind::LossNotice => 2,
        Kind::UplinkBatch | Kind::Lease | Kind::Manifest | Kind::AdmissionList => {
            unreachable!("a backlog keeps readings and loss notices only")
        }
    };
    let flags = if header.next.is_some() { HAS_POSITION } else { 0 }
        | if header.prior.is_some() { HAS_PRIOR } else { 0 };
    out.extend_from_slice(&[1, kind, flags, 0]);
    out.extend_from_slice(&header.serial.to_le_bytes());
    key_and_counter(&mut out, header.key, header.counter);
    out.extend(header.next.iter().flat_map(Position::encode));
    if let Some(prior) = header.prior {
        key_and_counter(&mut out, prior.key, prior.counter);
    }
    if header.kind == Kind::LossNotice {
        out.extend_from_slice(&(header.drops.len() as u16).to_le_bytes());
        for (first, last) in &header.drops {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
        }
    }
    out.extend_from_slice(envelope);
    out
}

fn key_and_counter(out: &mut Vec<u8>, key: KeyId, counter: Counter) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&counter.epoch.to_le_bytes());
    out.extend_from_slice(&counter.sequence.to_le_bytes());
}

/// Reads a record: its header, and where the envelope starts.
pub fn decode(record: &[u8]) -> Result<(Header, usize), BadRecord> {
    let mut rest = Rest { bytes: record };
    match rest.take(4, "a version, a kind and flags")? {
        [1, 1 | 2, flags, 0] if flags & !(HAS_POSITION | HAS_PRIOR) == 0 => {}
        [1, ..] => return Err(BadRecord { expected: "a known kind and known flags" }),
        _ => return Err(BadRecord { expected: "version 1" }),
    }
    let (kind, flags) = (record[1], record[2]);
    let kind = if kind == 1 { Kind::Readings } else { Kind::LossNotice };
    let serial = rest.u64("a serial")?;
    let (key, counter) = rest.key_and_counter()?;
    let mut next = None;
    if flags & HAS_POSITION != 0 {
        let bytes = rest.take(POSITION_BYTES, "a position")?;
        next = Some(Position::decode(bytes.try_into().expect("as many bytes as were taken")));
    }
    let mut prior = None;
    if flags & HAS_PRIOR != 0 {
        let (key, counter) = rest.key_and_counter()?;
        prior = Some(Prior { key, counter });
    }
    let mut drops = Vec::new();
    if kind == Kind::LossNotice {
        let count = rest.take(2, "a count of dropped ranges")?;
        let count = usize::from(u16::from_le_bytes([count[0], count[1]]));
        if count > DROPS_MAX {
            return Err(BadRecord { expected: "at most 128 dropped ranges" });
        }
        for _ in 0..count {
            let range = (rest.u64("a dropped range")?, rest.u64("a dropped range")?);
            if range.0 > range.1 {
                return Err(BadRecord { expected: "a range whose first is not above its last" });
            }
            drops.push(range);
        }
    }
    let envelope_at = record.len() - rest.bytes.len();
    Ok((Header { kind, serial, key, counter, next, prior, drops }, envelope_at))
}

struct Rest<'a> {
    bytes: &'a [u8],
}

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize, expected: &'static str) -> Result<&'a [u8], BadRecord> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(BadRecord { expected })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn u64(&mut self, expected: &'static str) -> Result<u64, BadRecord> {
        let bytes = self.take(8, expected)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    fn key_and_counter(&mut self) -> Result<(KeyId, Counter), BadRecord> {
        const EXPECTED: &str = "a key and its counter";
        let key = self.take(32, EXPECTED)?.try_into().expect("32 bytes were taken");
        let epoch = self.take(4, EXPECTED)?.try_into().expect("four bytes were taken");
        let epoch = u32::from_le_bytes(epoch);
        Ok((KeyId(key), Counter { epoch, sequence: self.u64(EXPECTED)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Header {
        let counter = Counter { epoch: 3, sequence: 1 << 40 };
        Header {
            kind: Kind::LossNotice,
            serial: 77,
            key: KeyId([9; 32]),
            counter,
            next: Some(Position { recording: 1, lap: 2, byte: 3, line: 4, row: 5, column: 6 }),
            prior: Some(Prior { key: KeyId([8; 32]), counter: Counter { epoch: 2, sequence: 9 } }),
            drops: vec![(1, 4), (6, 6)],
        }
    }

    #[test]
    fn a_record_goes_there_and_back() {
        let bare =
            Header { kind: Kind::Readings, next: None, prior: None, drops: vec![], ..full() };
        for header in [full(), bare] {
            let record = encode(&header, b"envelope");
            let (back, at) = decode(&record).unwrap();
            assert_eq!((back, &record[at..]), (header, &b"envelope"[..]));
        }
    }

    /// Version 1, as devices in the field have it on their disks: kept for ever.
    #[test]
    fn version_1_keeps_its_bytes() {
        let hex: String = encode(&full(), &[0xee]).iter().map(|b| format!("{b:02x}")).collect();
        let expected = "01020300".to_owned()
            + "4d00000000000000"
            + &"09".repeat(32)
            + "03000000"
            + "0000000000010000"
            + "0100000000000000"
            + "02000000"
            + "0300000000000000"
            + "0400000000000000"
            + "0500000000000000"
            + "06000000"
            + &"08".repeat(32)
            + "02000000"
            + "0900000000000000"
            + "0200"
            + "0100000000000000"
            + "0400000000000000"
            + "0600000000000000"
            + "0600000000000000"
            + "ee";
        assert_eq!(hex, expected);
    }

    /// Each case starts from a record that is accepted and changes one thing.
    #[test]
    fn what_is_not_a_record_is_refused() {
        let good = encode(&full(), &[]);
        assert!(decode(&good).is_ok());
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "cut to {len}");
        }
        let changed = |at: usize, byte: u8| {
            let mut record = good.clone();
            record[at] = byte;
            decode(&record).unwrap_err().expected
        };
        assert_eq!(changed(0, 2), "version 1");
        assert_eq!(changed(1, 3), "a known kind and known flags");
        assert_eq!(changed(2, 4), "a known kind and known flags");
        assert_eq!(changed(3, 1), "a known kind and known flags");
        assert_eq!(
            changed(FIXED_BYTES + POSITION_BYTES + PRIOR_BYTES, 129),
            "at most 128 dropped ranges"
        );
        assert_eq!(
            changed(FIXED_BYTES + POSITION_BYTES + PRIOR_BYTES + 2, 5),
            "a range whose first is not above its last"
        );
    }
}
