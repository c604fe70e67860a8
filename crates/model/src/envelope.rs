//! The signed message of a device or gateway: what its COSE_Sign1 protected header says.
//!
//! ```text
//! message   = COSE_Sign1 = [protected: bstr, unprotected: {}, payload: bstr, signature: bstr]      RFC 9052 §4.2
//! protected = { 1: algorithm, 2: [-65537], 3: content type, 4: key thumbprint, -65537: sealed }
//! sealed    = [epoch, sequence, uptime_ms, wall / null, heard / null, prior / null]
//! wall      = [time_us, uncertainty_ms]
//! heard     = [nonce: bstr 16, lease_generation]
//! prior     = [key thumbprint, epoch, sequence]          the last counter durable before this epoch; first message only.
//!                                                       Under the message's own key it is of an earlier epoch
//! ```
//!
//! The protected header is deterministic CBOR (RFC 8949 §4.2.1), untagged; `crit` (label 2) names our private label, so
//! that a reader which does not know the counter refuses the message (RFC 9052 §3.1). Every kind has a content type
//! and an `external_aad` of its own, so that none can be shown as another (INV-PURP-1). Version 1 of every kind is
//! drawn in `docs/formats/`, with golden bytes.

use crate::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect, nullable};
use crate::id::{KeyId, Nonce};
use crate::reading::Timestamp;
use alloc::vec::Vec;
use minicbor::{Decoder, Encoder};

/// The whole message, as it may stand in one MQTT PUBLISH: a payload of 32 KiB and its header.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 + 512;

/// The longest protected header that can be valid: every integer at its widest, with the longest content type.
pub const PROTECTED_BYTES_MAX: usize = 256;

/// The private-use label of our header fields (RFC 9052 §11.1: labels below -65536 are private use).
pub const LABEL_SEALED: i32 = -65537;

/// What a message is for. A signature counts for its own kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A pack of readings, sealed by the device that measured them.
    Readings,
    /// A device's statement that it dropped sealed messages of its own.
    LossNotice,
    /// What a gateway hands up: messages of devices with the gateway's word on each.
    UplinkBatch,
    /// The newest word of a zone: until when its rights hold, and what is newest.
    Lease,
    /// What a device has installed and what it runs.
    Manifest,
    /// Which serial numbers a factory has made.
    AdmissionList,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Self::Readings,
        Self::LossNotice,
        Self::UplinkBatch,
        Self::Lease,
        Self::Manifest,
        Self::AdmissionList,
    ];

    /// Label 3 of the protected header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Readings => "application/vnd.plimsoll.readings-v1+cbor",
            Self::LossNotice => "application/vnd.plimsoll.loss-notice-v1+cbor",
            Self::UplinkBatch => "application/vnd.plimsoll.uplink-batch-v1+cbor",
            Self::Lease => "application/vnd.plimsoll.lease-v1+cbor",
            Self::Manifest => "application/vnd.plimsoll.manifest-v1+cbor",
            Self::AdmissionList => "application/vnd.plimsoll.admission-list-v1+cbor",
        }
    }

    /// The `external_aad` of the Sig_structure (RFC 9052 §4.4).
    pub const fn external_aad(self) -> &'static [u8] {
        match self {
            Self::Readings => b"plimsoll readings v1",
            Self::LossNotice => b"plimsoll loss notice v1",
            Self::UplinkBatch => b"plimsoll uplink batch v1",
            Self::Lease => b"plimsoll lease v1",
            Self::Manifest => b"plimsoll manifest v1",
            Self::AdmissionList => b"plimsoll admission list v1",
        }
    }

    pub fn from_content_type(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.content_type() == text)
    }
}

/// Fully specified signature algorithms (RFC 9864).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// COSE -19.
    Ed25519,
    /// COSE -9: ECDSA on P-256 with SHA-256.
    Esp256,
}

impl Algorithm {
    pub const fn cose_id(self) -> i32 {
        match self {
            Self::Ed25519 => -19,
            Self::Esp256 => -9,
        }
    }

    pub const fn from_cose_id(id: i64) -> Option<Self> {
        match id {
            -19 => Some(Self::Ed25519),
            -9 => Some(Self::Esp256),
            _ => None,
        }
    }
}

/// The replay counter of one key. It only grows: `epoch` at each start of the sealing process, `sequence` by one per
/// message within an epoch, from 0 (INV-REPLAY-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter {
    pub epoch: u32,
    pub sequence: u64,
}

/// The last counter that was durable on the device before an epoch began, under the key that it was sealed with: a
/// missing tail of the epoch before is seen by it, across a change of keys too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prior {
    pub key: KeyId,
    pub counter: Counter,
}

/// The newest that the sealer had heard: its gateway's nonce of this session, and the newest lease that it verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub nonce: Nonce,
    pub lease: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    pub time: Timestamp,
    /// Half the width of the interval in which the sealer holds true time to lie. `u32::MAX` says that it does not know.
    pub uncertainty_ms: u32,
}

/// What the signature covers besides the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub algorithm: Algorithm,
    pub kind: Kind,
    pub key: KeyId,
    pub counter: Counter,
    pub uptime_ms: u64,
    pub wall: Option<WallClock>,
    pub heard: Option<Heard>,
    pub prior: Option<Prior>,
}

impl Header {
    /// The one encoding of this header.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(160));
        self.encode_into(&mut e).expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    fn encode_into(
        &self,
        e: &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<core::convert::Infallible>> {
        e.map(5)?;
        e.i32(1)?.i32(self.algorithm.cose_id())?;
        e.i32(2)?.array(1)?.i32(LABEL_SEALED)?;
        e.i32(3)?.str(self.kind.content_type())?;
        e.i32(4)?.bytes(self.key.as_bytes())?;
        e.i32(LABEL_SEALED)?.array(6)?;
        e.u32(self.counter.epoch)?.u64(self.counter.sequence)?.u64(self.uptime_ms)?;
        match &self.wall {
            Some(wall) => e.array(2)?.i64(wall.time.as_us())?.u32(wall.uncertainty_ms)?,
            None => e.null()?,
        };
        match &self.heard {
            Some(heard) => e.array(2)?.bytes(heard.nonce.as_bytes())?.u64(heard.lease)?,
            None => e.null()?,
        };
        match &self.prior {
            Some(prior) => e
                .array(3)?
                .bytes(prior.key.as_bytes())?
                .u32(prior.counter.epoch)?
                .u64(prior.counter.sequence)?,
            None => e.null()?,
        };
        Ok(())
    }

    /// Reads a protected header. Whatever decodes is encoded again and compared, so each header has one form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > PROTECTED_BYTES_MAX {
            return Err(Malformed::new(
                Reason::Oversize,
                "a protected header of at most 256 bytes",
            ));
        }
        let header = Self::decode_fields(bytes)?;
        if header.encode() == bytes {
            Ok(header)
        } else {
            Err(Malformed::new(Reason::NotDeterministic, "deterministic CBOR (RFC 8949 §4.2.1)"))
        }
    }

    fn decode_fields(bytes: &[u8]) -> Result<Self, Malformed> {
        const MAP: &str = "a protected header: a map of labels 1, 2, 3, 4 and -65537 in this order";
        let mut d = Decoder::new(bytes);
        if expect(d.map(), MAP)? != Some(5) {
            return Err(Malformed::new(Reason::BrokenCbor, MAP));
        }
        label(&mut d, 1, MAP)?;
        let algorithm = Algorithm::from_cose_id(expect(d.i64(), "an algorithm (label 1)")?)
            .ok_or(Malformed::new(Reason::UnknownKind, "algorithm -19 (Ed25519) or -9 (ESP256)"))?;
        label(&mut d, 2, MAP)?;
        array_of(&mut d, 1, "crit: [-65537] (label 2)")?;
        label(&mut d, LABEL_SEALED, "crit: [-65537] (label 2)")?;
        label(&mut d, 3, MAP)?;
        let kind = Kind::from_content_type(expect(d.str(), "a content type (label 3)")?).ok_or(
            Malformed::new(Reason::UnknownKind, "a content type of version 1 (docs/formats)"),
        )?;
        label(&mut d, 4, MAP)?;
        let key = key(&mut d)?;
        label(&mut d, LABEL_SEALED, MAP)?;
        array_of(&mut d, 6, "[epoch, sequence, uptime, wall, heard, prior]")?;
        let counter = counter(&mut d)?;
        let uptime_ms = expect(d.u64(), "uptime in milliseconds")?;
        let wall = nullable(&mut d, |d| {
            array_of(d, 2, "[time in µs, uncertainty in ms]")?;
            Ok(WallClock {
                time: Timestamp(expect(d.i64(), "time in µs since 1970")?),
                uncertainty_ms: expect(d.u32(), "an uncertainty in ms")?,
            })
        })?;
        let heard = nullable(&mut d, |d| {
            array_of(d, 2, "[nonce, lease generation]")?;
            let nonce = expect(d.bytes(), "a nonce of 16 bytes")?;
            let nonce = Nonce::try_from(nonce)
                .map_err(|_| Malformed::new(Reason::OutOfDomain, "a nonce of 16 bytes"))?;
            Ok(Heard { nonce, lease: expect(d.u64(), "a lease generation")? })
        })?;
        let prior = nullable(&mut d, |d| {
            array_of(d, 3, "[key thumbprint, epoch, sequence]")?;
            Ok(Prior { key: self::key(d)?, counter: self::counter(d)? })
        })?;
        if prior.is_some_and(|prior| prior.key == key && prior.counter.epoch >= counter.epoch) {
            const EXPECTED: &str = "a prior of an earlier epoch, or of another key";
            return Err(Malformed::new(Reason::OutOfDomain, EXPECTED));
        }
        at_end(&d)?;
        Ok(Self { algorithm, kind, key, counter, uptime_ms, wall, heard, prior })
    }
}

fn label(d: &mut Decoder<'_>, wanted: i32, expected: &'static str) -> Result<(), Malformed> {
    if expect(d.i32(), expected)? == wanted {
        Ok(())
    } else {
        Err(Malformed::new(Reason::BrokenCbor, expected))
    }
}

fn key(d: &mut Decoder<'_>) -> Result<KeyId, Malformed> {
    const EXPECTED: &str = "a key thumbprint of 32 bytes";
    KeyId::try_from(expect(d.bytes(), EXPECTED)?)
        .map_err(|_| Malformed::new(Reason::OutOfDomain, EXPECTED))
}

fn counter(d: &mut Decoder<'_>) -> Result<Counter, Malformed> {
    Ok(Counter {
        epoch: expect(d.u32(), "an epoch (32 bits)")?,
        sequence: expect(d.u64(), "a sequence (64 bits)")?,
    })
}

/// Why a device dropped messages of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossCause {
    /// The backlog was full.
    BacklogFull = 0,
    /// The gateway refused the message for a reason that sending it again cannot mend.
    Refused = 1,
    /// The message could not be read back from the device's own storage.
    Unreadable = 2,
}

impl LossCause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BacklogFull => "backlog_full",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::BacklogFull),
            1 => Some(Self::Refused),
            2 => Some(Self::Unreadable),
            _ => None,
        }
    }
}

/// Counters `first ..= last` of one epoch that will never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRange {
    pub key: KeyId,
    pub epoch: u32,
    pub first: u64,
    pub last: u64,
    pub cause: LossCause,
}

/// The most ranges that one loss notice can state; a device with more sends more notices.
pub const LOST_RANGES_MAX: usize = 64;

/// The payload of a loss notice: `[ *[key thumbprint, epoch, first, last, cause] ]`.
pub fn encode_loss(ranges: &[LostRange]) -> Vec<u8> {
    assert!(
        ranges.len() <= LOST_RANGES_MAX,
        "a loss notice states at most {LOST_RANGES_MAX} ranges"
    );
    let mut e = Encoder::new(Vec::with_capacity(ranges.len() * 64 + 2));
    let written: Result<(), minicbor::encode::Error<core::convert::Infallible>> = (|| {
        e.array(ranges.len() as u64)?;
        for range in ranges {
            e.array(5)?
                .bytes(range.key.as_bytes())?
                .u32(range.epoch)?
                .u64(range.first)?
                .u64(range.last)?;
            e.u8(range.cause as u8)?;
        }
        Ok(())
    })();
    written.expect("writing to a Vec cannot fail");
    e.into_writer()
}

/// Reads the payload of a loss notice.
pub fn decode_loss(bytes: &[u8]) -> Result<Vec<LostRange>, Malformed> {
    let mut d = Decoder::new(bytes);
    let len = array_up_to(&mut d, LOST_RANGES_MAX, "an array of at most 64 lost ranges")?;
    let mut ranges = Vec::with_capacity(len);
    for _ in 0..len {
        array_of(&mut d, 5, "[key thumbprint, epoch, first, last, cause]")?;
        let key = key(&mut d)?;
        let epoch = expect(d.u32(), "an epoch (32 bits)")?;
        let first = expect(d.u64(), "the first lost sequence")?;
        let last = expect(d.u64(), "the last lost sequence")?;
        let cause = LossCause::from_code(expect(d.u8(), "a cause")?)
            .ok_or(Malformed::new(Reason::UnknownKind, "a cause of loss: 0, 1 or 2"))?;
        if first > last {
            return Err(Malformed::new(
                Reason::OutOfDomain,
                "a range whose first is not above its last",
            ));
        }
        ranges.push(LostRange { key, epoch, first, last, cause });
    }
    at_end(&d)?;
    Ok(ranges)
}

#[cfg(test)]
mod tests;
