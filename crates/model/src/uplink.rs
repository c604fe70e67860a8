//! What a gateway hands up, and what it is told of each record.
//!
//! ```text
//! batch   = [1, gateway, zone, bundle_generation, [ *record ]]         the payload of a message of kind UplinkBatch
//! record  = [device, attested_by, received_at_us, uncertainty_ms, fresh, message: bstr]
//! reply   = [1, [ *verdict ]]                                          one verdict per record, in order
//! verdict = 0 stored | 1 known | [2, reason]
//! ```
//!
//! The record around a message is the gateway's **tag**: its word on when and how it received it. It stands beside
//! the device's message and never inside it; it can narrow what the message may do, never widen it.

use crate::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect};
use crate::envelope::MESSAGE_BYTES_MAX;
use crate::id::{DeviceId, GatewayId, ZoneId};
use crate::reading::Timestamp;
use alloc::vec::Vec;
use core::fmt;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// The most records in one batch.
pub const BATCH_RECORDS_MAX: usize = 1024;
/// The most bytes in one batch, before compression.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Whose signature makes a message believable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttestedBy {
    Device = 0,
    /// Sealed by the gateway for a device that cannot sign.
    Gateway = 1,
}

impl AttestedBy {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Gateway => "gateway",
        }
    }

    pub(crate) fn decode(d: &mut Decoder<'_>) -> Result<Self, Malformed> {
        match expect(d.u8(), "attested_by: 0 or 1")? {
            0 => Ok(Self::Device),
            1 => Ok(Self::Gateway),
            _ => Err(Malformed::new(Reason::UnknownKind, "attested_by: 0 or 1")),
        }
    }
}

/// One message with the gateway's word on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub device: DeviceId,
    pub attested_by: AttestedBy,
    pub received_at: Timestamp,
    pub uncertainty_ms: u32,
    /// It had heard this gateway's nonce of its session: it is news, not history.
    pub fresh: bool,
    pub message: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub gateway: GatewayId,
    pub zone: ZoneId,
    /// The generation of the bundle under which the gateway admitted these.
    pub bundle: u64,
    pub records: Vec<Record>,
}

type Written = Result<(), minicbor::encode::Error<core::convert::Infallible>>;

impl Batch {
    pub fn encode(&self) -> Vec<u8> {
        let bytes = self.records.iter().map(|r| r.message.len() + 96).sum::<usize>() + 128;
        let mut e = Encoder::new(Vec::with_capacity(bytes));
        let written: Written = (|| {
            e.array(5)?
                .u8(1)?
                .str(self.gateway.as_str())?
                .str(self.zone.as_str())?
                .u64(self.bundle)?;
            e.array(self.records.len() as u64)?;
            for r in &self.records {
                e.array(6)?
                    .str(r.device.as_str())?
                    .u8(r.attested_by as u8)?
                    .i64(r.received_at.as_us())?;
                e.u32(r.uncertainty_ms)?.bool(r.fresh)?.bytes(&r.message)?;
            }
            Ok(())
        })();
        written.expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(Malformed::new(Reason::Oversize, "a batch of at most 4 MiB"));
        }
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 5, "[1, gateway, zone, bundle, records]")?;
        version(&mut d)?;
        let gateway = name(&mut d, "a gateway id")?;
        let zone = name(&mut d, "a zone id")?;
        let bundle = expect(d.u64(), "a bundle generation")?;
        let len = array_up_to(&mut d, BATCH_RECORDS_MAX, "at most 1,024 records")?;
        let mut records = Vec::with_capacity(len.min(bytes.len() / 8));
        for _ in 0..len {
            array_of(&mut d, 6, "[device, attested_by, received_at, uncertainty, fresh, message]")?;
            records.push(Record {
                device: name(&mut d, "a device id")?,
                attested_by: AttestedBy::decode(&mut d)?,
                received_at: Timestamp(expect(d.i64(), "a time in µs since 1970")?),
                uncertainty_ms: expect(d.u32(), "an uncertainty in ms")?,
                fresh: expect(d.bool(), "fresh: a boolean")?,
                message: message(&mut d)?,
            });
        }
        at_end(&d)?;
        Ok(Self { gateway, zone, bundle, records })
    }
}

/// The final word on one record: in each case it is durable, and the gateway may forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On the bus, on its way into history.
    Stored,
    /// The same bytes were on the bus already.
    Known,
    /// On the bus, on its way into quarantine.
    Quarantined(QuarantineReason),
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $label:literal;)*) => {
        /// Why a message is kept apart from history. Each is a label of a counter and a value of the column `reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum QuarantineReason { $($(#[$doc])* $variant = $code,)* }

        impl QuarantineReason {
            pub const ALL: &'static [QuarantineReason] = &[$(Self::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The message does not parse.
    Malformed = 1, "malformed";
    /// The site knows no such key.
    UnknownKey = 2, "unknown_key";
    /// The signature does not verify under the key that the message names.
    BadSignature = 3, "bad_signature";
    /// The key is not one of the device in whose name the gateway handed the message up.
    WrongDevice = 4, "wrong_device";
    /// The device was revoked when the message came up: when it was received, only the gateway says.
    Revoked = 5, "revoked";
    /// The device does not belong to the gateway's zone.
    WrongZone = 6, "wrong_zone";
    /// The counter was taken by another message: one of the two is forged, or the key is in two places.
    Equivocation = 7, "equivocation";
    /// The counter lies in a gap that was closed: by the device's own loss notice, or since 64 others were open.
    GapClosed = 8, "gap_closed";
    /// The counter lies above the last one that the device itself said its epoch had.
    AfterEnd = 9, "after_end";
    /// So old that *taken* no longer knows whether it was taken.
    BeyondMemory = 10, "beyond_memory";
    /// A loss notice states a range, or a first message an epoch's end, of a key that is not its device's.
    ForeignRange = 11, "foreign_range";
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub fn encode_reply(verdicts: &[Verdict]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::with_capacity(verdicts.len() + 8));
    let written: Written = (|| {
        e.array(2)?.u8(1)?.array(verdicts.len() as u64)?;
        for verdict in verdicts {
            match verdict {
                Verdict::Stored => e.u8(0)?,
                Verdict::Known => e.u8(1)?,
                Verdict::Quarantined(reason) => e.array(2)?.u8(2)?.u8(*reason as u8)?,
            };
        }
        Ok(())
    })();
    written.expect("writing to a Vec cannot fail");
    e.into_writer()
}

pub fn decode_reply(bytes: &[u8]) -> Result<Vec<Verdict>, Malformed> {
    const EXPECTED: &str = "a verdict: 0, 1 or [2, reason]";
    let mut d = Decoder::new(bytes);
    array_of(&mut d, 2, "[1, verdicts]")?;
    version(&mut d)?;
    let len = array_up_to(&mut d, BATCH_RECORDS_MAX, "at most 1,024 verdicts")?;
    let mut verdicts = Vec::with_capacity(len.min(bytes.len()));
    for _ in 0..len {
        verdicts.push(if expect(d.datatype(), EXPECTED)? == Type::Array {
            array_of(&mut d, 2, EXPECTED)?;
            match (
                expect(d.u8(), EXPECTED)?,
                QuarantineReason::from_code(expect(d.u8(), EXPECTED)?),
            ) {
                (2, Some(reason)) => Verdict::Quarantined(reason),
                _ => return Err(Malformed::new(Reason::UnknownKind, EXPECTED)),
            }
        } else {
            match expect(d.u8(), EXPECTED)? {
                0 => Verdict::Stored,
                1 => Verdict::Known,
                _ => return Err(Malformed::new(Reason::UnknownKind, EXPECTED)),
            }
        });
    }
    at_end(&d)?;
    Ok(verdicts)
}

pub(crate) fn version(d: &mut Decoder<'_>) -> Result<(), Malformed> {
    match expect(d.u8(), "format version 1")? {
        1 => Ok(()),
        _ => Err(Malformed::new(Reason::UnknownKind, "format version 1")),
    }
}

pub(crate) fn name<'b, N: TryFrom<&'b str>>(
    d: &mut Decoder<'b>,
    expected: &'static str,
) -> Result<N, Malformed> {
    N::try_from(expect(d.str(), expected)?)
        .map_err(|_| Malformed::new(Reason::OutOfDomain, expected))
}

pub(crate) fn message(d: &mut Decoder<'_>) -> Result<Vec<u8>, Malformed> {
    let bytes = expect(d.bytes(), "a message (bytes)")?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed::new(Reason::Oversize, "a message of at most 33,280 bytes"));
    }
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests;
