//! What a gateway hands up, judged: the one place where a device's signature decides whether its words become history.
//!
//! A call is a message of kind UplinkBatch under the gateway's own sealing key, compressed. It is refused as a whole
//! when it is not that gateway's word. After that each record gets a verdict of its own: one bad record never holds up
//! the others. Whatever the verdict, the record goes onto the bus and is durable there before the gateway hears of it
//! (INV-ACK-1), so that what a gateway acknowledged is found in history or in quarantine with its reason.
//!
//! | asked, in this order | else |
//! | --- | --- |
//! | it parses, and is of kind readings or loss notice | `malformed` |
//! | the site certified the key that it names, to seal | `unknown_key` |
//! | that key is of the device in whose name it was handed up | `wrong_device` |
//! | that device is of the gateway's zone | `wrong_zone` |
//! | (these very bytes are not on the bus already, on their way into history) | known |
//! | the device is not revoked, nor decommissioned | `revoked` |
//! | the signature verifies, strictly, for its kind (INV-PURP-1) | `bad_signature` |
//! | its payload reads as what its kind says | `malformed` |
//! | what it says of counters is about its own device's keys | `foreign_range` |
//!
//! No time is asked: a clock labels history and decides nothing. A key that was replaced is still believed for what it
//! sealed, however late that comes; one whose device was revoked is not, however early it was received, since only the
//! gateway says when that was. Quarantine loses nothing.

use crate::directory::{Device, Directory};
use crate::known::Seen;
use api::Role;
use model::bus::{self, Entry};
use model::cbor::Malformed;
use model::envelope::{Kind, MESSAGE_BYTES_MAX, PROTECTED_BYTES_MAX, decode_loss};
use model::senml;
use model::uplink::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch, QuarantineReason, Record, Verdict};
use model::{GatewayId, KeyId, Timestamp, ZoneId};
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;
use trust::cose;
use trust::mac::{MAC_BYTES, MacKey};

/// The sealed batch before compression: its payload, and the rest of the message round it.
pub const CALL_BYTES_MAX: usize = BATCH_BYTES_MAX + PROTECTED_BYTES_MAX + 128;

/// The same compressed: what does not compress grows by 3 bytes in 128 KiB and the frame's head.
pub const BODY_BYTES_MAX: usize = CALL_BYTES_MAX + CALL_BYTES_MAX / 1024 + 64;

/// The longest record that goes onto the bus: an entry there is at most two bytes longer than in the gateway's batch.
pub const BUS_RECORD_BYTES_MAX: usize = MAC_BYTES + BATCH_BYTES_MAX + 2 * BATCH_RECORDS_MAX + 256;

/// A frame may ask for a window of up to 8 MiB (RFC 8878 §3.1.1.1.2 recommends that decoders support it).
const WINDOW_LOG_MAX: u32 = 23;

/// Why a whole call is refused. Nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallRefusal {
    #[error("the body is not zstd (RFC 8878)")]
    NotZstd,
    #[error("the body holds more than {CALL_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the batch does not parse")]
    Malformed(#[from] Malformed),
    #[error("expected a message of kind {}, found {}", Kind::UplinkBatch.content_type(), found.content_type())]
    WrongKind { found: Kind },
    #[error("the site certified no sealing key {0}")]
    UnknownKey(KeyId),
    #[error(
        "the batch is sealed by a key of `{found}`, expected one of gateway `{expected}`, which sent it"
    )]
    ForeignKey { expected: String, found: String },
    #[error(
        "the batch is sealed by key {0}, which was retired: expected the gateway's present key"
    )]
    KeyRetired(KeyId),
    #[error("the batch's signature does not verify under the key that it names")]
    BadSignature,
    #[error("the batch says that it is of gateway `{found}`, expected `{expected}`, which sent it")]
    WrongGateway { expected: String, found: GatewayId },
    #[error("the batch says that it is of zone `{found}`, expected `{expected}`, the gateway's")]
    WrongZone { expected: ZoneId, found: ZoneId },
}

impl CallRefusal {
    /// The label of its counter and the word of its problem.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotZstd => "not_zstd",
            Self::TooLarge => "oversize",
            Self::Malformed(malformed) => malformed.reason.as_str(),
            Self::WrongKind { .. } => "wrong_kind",
            Self::UnknownKey(_) => "unknown_key",
            Self::ForeignKey { .. } => "foreign_key",
            Self::KeyRetired(_) => "key_retired",
            Self::BadSignature => "bad_signature",
            Self::WrongGateway { .. } => "wrong_gateway",
            Self::WrongZone { .. } => "wrong_zone",
        }
    }

    /// Whose fault: the body's, or that of who sent it.
    pub fn is_about_identity(&self) -> bool {
        !matches!(
            self,
            Self::NotZstd | Self::TooLarge | Self::Malformed(_) | Self::WrongKind { .. }
        )
    }
}

/// Reads a call of `gateway`, and believes it or not.
pub fn open(
    body: &[u8],
    gateway: &Device,
    directory: &Directory,
    grace: Duration,
    now: Timestamp,
) -> Result<Batch, CallRefusal> {
    let message = inflate(body)?;
    let unverified = cose::open(&message, CALL_BYTES_MAX)?;
    let header = unverified.header();
    if header.kind != Kind::UplinkBatch {
        return Err(CallRefusal::WrongKind { found: header.kind });
    }
    let (owner, key) =
        directory.seal_key(&header.key).ok_or(CallRefusal::UnknownKey(header.key))?;
    if owner.id != gateway.id || owner.role != Role::Gateway {
        let (expected, found) = (gateway.id.to_string(), owner.id.to_string());
        return Err(CallRefusal::ForeignKey { expected, found });
    }
    if !key.is_live(grace, now) {
        return Err(CallRefusal::KeyRetired(key.id));
    }
    let verified = unverified.verify(&key.public).map_err(|_| CallRefusal::BadSignature)?;
    let batch = Batch::decode(verified.payload())?;
    if batch.gateway.as_str() != gateway.id.as_str() {
        let expected = gateway.id.to_string();
        return Err(CallRefusal::WrongGateway { expected, found: batch.gateway });
    }
    if batch.zone != gateway.zone {
        return Err(CallRefusal::WrongZone { expected: gateway.zone.clone(), found: batch.zone });
    }
    Ok(batch)
}

/// Work and memory are bounded by what a call may hold, not by what the sender's frame says (INV-COST-1).
fn inflate(body: &[u8]) -> Result<Vec<u8>, CallRefusal> {
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(body).map_err(|_| CallRefusal::NotZstd)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(|_| CallRefusal::NotZstd)?;
    let mut message = Vec::with_capacity(body.len().saturating_mul(2).min(CALL_BYTES_MAX));
    let limit = CALL_BYTES_MAX as u64 + 1;
    decoder.take(limit).read_to_end(&mut message).map_err(|_| CallRefusal::NotZstd)?;
    if message.len() > CALL_BYTES_MAX {
        return Err(CallRefusal::TooLarge);
    }
    Ok(message)
}

/// What is to become of a call: an answer that may leave once every append is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// One per record, in order.
    pub verdicts: Vec<Verdict>,
    /// What goes onto the bus, by shard. Records of one device stay in their order.
    pub appends: BTreeMap<usize, Append>,
}

/// What goes onto one shard, as one record of the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub batch: bus::Batch,
    /// What need not be appended again once this is durable, one per entry.
    pub seen: Vec<Seen>,
}

/// Judges every record of a batch. `known` says what is durable on the bus already.
pub fn judge(
    batch: Batch,
    directory: &Directory,
    known: impl Fn(&Seen) -> bool,
    shards: usize,
) -> Judgement {
    let Batch { gateway, zone, records, .. } = batch;
    let mut judgement = Judgement { verdicts: Vec::new(), appends: BTreeMap::new() };
    for record in records {
        let (verdict, seen) = match examine(&record, &zone, directory, &known) {
            Ok(Look::Known) => (Verdict::Known, None),
            Ok(Look::Good(seen)) => (Verdict::Stored, Some(seen)),
            // Judged anew each time: what was unknown may have become known. Only its row is not written twice.
            Err(reason) => {
                let seen = Seen::apart(&gateway, &record, reason);
                (Verdict::Quarantined(reason), Some(seen).filter(|seen| !known(seen)))
            }
        };
        judgement.verdicts.push(verdict);
        let Some(seen) = seen else { continue };
        let quarantine = match verdict {
            Verdict::Quarantined(reason) => Some(reason),
            Verdict::Stored | Verdict::Known => None,
        };
        let shard = ::bus::shard_of(record.device.as_str().as_bytes(), shards);
        let append = judgement.appends.entry(shard).or_insert_with(|| Append {
            batch: bus::Batch { gateway: gateway.clone(), zone: zone.clone(), entries: Vec::new() },
            seen: Vec::new(),
        });
        append.batch.entries.push(Entry { record, quarantine });
        append.seen.push(seen);
    }
    judgement
}

enum Look {
    Known,
    Good(Seen),
}

fn examine(
    record: &Record,
    zone: &ZoneId,
    directory: &Directory,
    known: impl Fn(&Seen) -> bool,
) -> Result<Look, QuarantineReason> {
    use QuarantineReason as Q;
    let unverified = cose::open(&record.message, MESSAGE_BYTES_MAX).map_err(|_| Q::Malformed)?;
    let header = unverified.header().clone();
    if !matches!(header.kind, Kind::Readings | Kind::LossNotice) {
        return Err(Q::Malformed);
    }
    let (device, key) = directory.seal_key(&header.key).ok_or(Q::UnknownKey)?;
    if device.id != record.device {
        return Err(Q::WrongDevice);
    }
    if device.zone != *zone {
        return Err(Q::WrongZone);
    }
    let digest = trust::digest(&record.message);
    let seen = Seen::Message { key: header.key, counter: header.counter, digest };
    if known(&seen) {
        return Ok(Look::Known);
    }
    if device.standing.has_ended() {
        return Err(Q::Revoked);
    }
    let verified = unverified.verify(&key.public).map_err(|_| Q::BadSignature)?;
    let mut counts_of = Vec::new();
    if header.kind == Kind::LossNotice {
        let ranges = decode_loss(verified.payload()).map_err(|_| Q::Malformed)?;
        counts_of.extend(ranges.iter().map(|range| range.key));
    } else {
        senml::decode(verified.payload()).map_err(|_| Q::Malformed)?;
    }
    // A foreign range would close counters of another device's key, a foreign prior would end an epoch of it.
    counts_of.extend(header.prior.map(|prior| prior.key));
    let own = |key: &KeyId| directory.seal_key(key).is_some_and(|(owner, _)| owner.id == device.id);
    if counts_of.iter().all(own) { Ok(Look::Good(seen)) } else { Err(Q::ForeignRange) }
}

/// A record of the bus: the batch behind its MAC, by which ingest knows that uplink judged it.
pub fn framed(batch: &bus::Batch, key: &MacKey) -> Vec<u8> {
    let batch = batch.encode();
    let mut record = Vec::with_capacity(MAC_BYTES + batch.len());
    record.extend_from_slice(&key.tag(&batch));
    record.extend_from_slice(&batch);
    record
}

#[cfg(test)]
mod tests;
