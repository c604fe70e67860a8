//! What a batch from the bus comes to: `(memory, batch) → rows`, and nothing else. No IO, no clock, no await.
//!
//! Each entry that uplink verified is judged by its counter against *taken* (INV-REPLAY-1):
//!
//! | judgement | what becomes of it |
//! | --- | --- |
//! | new | its readings become rows, or the ranges that it states as lost are closed and become rows of `losses` |
//! | repeat | nothing, and it is counted |
//! | anything else | a row of `quarantine`, whole, with the reason |
//!
//! What uplink itself judged goes to quarantine as it is. So for every entry there is a row, or an earlier entry of the
//! same counter and digest that has one (INV-ACK-1).

use crate::memory::Memory;
use model::bus::{Batch, Entry};
use model::envelope::{LostRange, MESSAGE_BYTES_MAX, decode_loss};
use model::uplink::{AttestedBy, QuarantineReason, Record};
use model::{Counter, DeviceId, GatewayId, Header, KeyId, Kind, Reading, Timestamp, ZoneId, senml};
use trust::cose;
use trust::taken::Admission;

/// What one batch came to, in its order.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    pub packs: Vec<Pack>,
    pub losses: Vec<Loss>,
    pub quarantined: Vec<Quarantined>,
    /// Messages that took effect: packs, and loss notices.
    pub news: u64,
    /// Messages that had taken effect before.
    pub repeats: u64,
    /// Named by a device as a key of its own, and not remembered since the device had named too many: see
    /// [`Memory`].
    pub keys_not_remembered: u64,
}

/// The word of the gateway that received a message. It stands beside the message and is never part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub device: DeviceId,
    pub gateway: GatewayId,
    pub zone: ZoneId,
    pub attested_by: AttestedBy,
    pub received_at: Timestamp,
    pub fresh: bool,
}

/// The readings of one message that took effect.
#[derive(Clone, Debug)]
pub struct Pack {
    pub tag: Tag,
    pub key: KeyId,
    pub counter: Counter,
    pub readings: Vec<Reading>,
}

/// One range of counters that a device says it dropped.
#[derive(Clone, Debug)]
pub struct Loss {
    pub tag: Tag,
    pub range: LostRange,
}

/// A message that is kept apart from history.
#[derive(Clone, Debug)]
pub struct Quarantined {
    pub tag: Tag,
    pub reason: QuarantineReason,
    /// What its header says, if it could be read. Nobody vouches for it.
    pub claims: Option<(KeyId, Counter)>,
    pub message: Vec<u8>,
}

impl Intake {
    /// How many rows of `readings`, `quarantine` and `losses` these are.
    pub fn rows(&self) -> usize {
        let readings: usize = self.packs.iter().map(|pack| pack.readings.len()).sum();
        readings + self.quarantined.len() + self.losses.len()
    }
}

/// Judges a batch whose MAC was checked. The memory moves with it.
pub fn ingest(memory: &mut Memory, batch: Batch) -> Intake {
    let mut intake = Intake::default();
    for Entry { record, quarantine } in batch.entries {
        let Record { device, attested_by, received_at, fresh, message, .. } = record;
        let (gateway, zone) = (batch.gateway.clone(), batch.zone.clone());
        let tag = Tag { device, gateway, zone, attested_by, received_at, fresh };
        let opened = cose::open(&message, MESSAGE_BYTES_MAX);
        let judged = match (quarantine, &opened) {
            (Some(reason), _) => Err(reason),
            (None, Err(_)) => Err(QuarantineReason::Malformed),
            (None, Ok(opened)) => {
                // The MAC stands for uplink's check of the signature.
                let payload = opened.payload_without_signature_check();
                admit(memory, &tag, opened.header(), payload, &message, &mut intake)
            }
        };
        if let Err(reason) = judged {
            let claims = opened.ok().map(|opened| (opened.header().key, opened.header().counter));
            intake.quarantined.push(Quarantined { tag, reason, claims, message });
        }
    }
    intake
}

enum Payload {
    Readings(Vec<Reading>),
    Lost(Vec<LostRange>),
}

fn admit(
    memory: &mut Memory,
    tag: &Tag,
    header: &Header,
    payload: &[u8],
    message: &[u8],
    intake: &mut Intake,
) -> Result<(), QuarantineReason> {
    // Before the counter is taken: what cannot be read takes no effect, and its counter stays a gap.
    let payload = match header.kind {
        Kind::Readings => senml::decode(payload).map(Payload::Readings),
        Kind::LossNotice => decode_loss(payload).map(Payload::Lost),
        Kind::UplinkBatch | Kind::Lease | Kind::Manifest | Kind::AdmissionList => {
            return Err(QuarantineReason::Malformed);
        }
    };
    let payload = payload.map_err(|_| QuarantineReason::Malformed)?;
    let device = &tag.device;
    match memory.admit(device, header, &trust::digest(message)) {
        Admission::New => intake.news += 1,
        Admission::Repeat => {
            intake.repeats += 1;
            return Ok(());
        }
        Admission::Equivocation => return Err(QuarantineReason::Equivocation),
        Admission::GapClosed => return Err(QuarantineReason::GapClosed),
        Admission::AfterEnd => return Err(QuarantineReason::AfterEnd),
        Admission::BeyondMemory => return Err(QuarantineReason::BeyondMemory),
    }
    if let Some(prior) = header.prior.filter(|prior| prior.key != header.key) {
        let remembered = memory.end_epoch(device, prior.key, prior.counter);
        intake.keys_not_remembered += u64::from(!remembered);
    }
    match payload {
        Payload::Readings(readings) => intake.packs.push(Pack {
            tag: tag.clone(),
            key: header.key,
            counter: header.counter,
            readings,
        }),
        Payload::Lost(ranges) => {
            for range in ranges {
                let remembered =
                    memory.close(device, range.key, range.epoch, range.first, range.last);
                intake.keys_not_remembered += u64::from(!remembered);
                intake.losses.push(Loss { tag: tag.clone(), range });
            }
        }
    }
    Ok(())
}
