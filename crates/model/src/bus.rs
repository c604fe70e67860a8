//! What stands on the bus: one batch per shard and uplink call, written by uplink, read by ingest.
//!
//! ```text
//! record on the bus = mac: 32 bytes | batch                HMAC-SHA-256 of batch, under a key that only those two hold
//! batch  = [1, gateway, zone, [ *entry ]]
//! entry  = [device, attested_by, received_at_us, uncertainty_ms, fresh, verdict, message: bstr]
//! verdict = 0: into history | code of a quarantine reason
//! ```

use crate::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect};
use crate::id::{GatewayId, ZoneId};
use crate::reading::Timestamp;
use crate::uplink::{
    AttestedBy, BATCH_RECORDS_MAX, QuarantineReason, Record, message, name, version,
};
use alloc::vec::Vec;
use minicbor::{Decoder, Encoder};

/// One message on the bus, with uplink's judgement of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub record: Record,
    /// `None`: its signature was checked and it goes into history.
    pub quarantine: Option<QuarantineReason>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub gateway: GatewayId,
    pub zone: ZoneId,
    pub entries: Vec<Entry>,
}

impl Batch {
    pub fn encode(&self) -> Vec<u8> {
        let bytes = self.entries.iter().map(|e| e.record.message.len() + 96).sum::<usize>() + 128;
        let mut e = Encoder::new(Vec::with_capacity(bytes));
        let written: Result<(), minicbor::encode::Error<core::convert::Infallible>> = (|| {
            e.array(4)?.u8(1)?.str(self.gateway.as_str())?.str(self.zone.as_str())?;
            e.array(self.entries.len() as u64)?;
            for Entry { record: r, quarantine } in &self.entries {
                e.array(7)?
                    .str(r.device.as_str())?
                    .u8(r.attested_by as u8)?
                    .i64(r.received_at.as_us())?;
                e.u32(r.uncertainty_ms)?.bool(r.fresh)?;
                e.u8(quarantine.map_or(0, |reason| reason as u8))?.bytes(&r.message)?;
            }
            Ok(())
        })();
        written.expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 4, "[1, gateway, zone, entries]")?;
        version(&mut d)?;
        let gateway = name(&mut d, "a gateway id")?;
        let zone = name(&mut d, "a zone id")?;
        let len = array_up_to(&mut d, BATCH_RECORDS_MAX, "at most 1,024 entries")?;
        let mut entries = Vec::with_capacity(len.min(bytes.len() / 8));
        for _ in 0..len {
            array_of(
                &mut d,
                7,
                "[device, attested_by, received_at, uncertainty, fresh, verdict, message]",
            )?;
            let device = name(&mut d, "a device id")?;
            let attested_by = AttestedBy::decode(&mut d)?;
            let received_at = Timestamp(expect(d.i64(), "a time in µs since 1970")?);
            let uncertainty_ms = expect(d.u32(), "an uncertainty in ms")?;
            let fresh = expect(d.bool(), "fresh: a boolean")?;
            let quarantine = match expect(d.u8(), "a verdict")? {
                0 => None,
                code => Some(
                    QuarantineReason::from_code(code)
                        .ok_or(Malformed::new(Reason::UnknownKind, "0 or a quarantine reason"))?,
                ),
            };
            let message = message(&mut d)?;
            let record =
                Record { device, attested_by, received_at, uncertainty_ms, fresh, message };
            entries.push(Entry { record, quarantine });
        }
        at_end(&d)?;
        Ok(Self { gateway, zone, entries })
    }
}

#[cfg(test)]
mod tests;
