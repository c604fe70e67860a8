//! Handing up what the spool holds: what goes into a batch, and what an answer means. Pure; the driver is
//! [`crate::control`].
//!
//! Promises: a record is handed up until control has answered for it, in the order of the log, with the tag that it was
//! admitted with; the cursor moves only over exactly one verdict a record (INV-ACK-1).
//! Never: drops a record, or believes an answer that does not fit its question.

use crate::bundle::View;
use crate::spool::Record;
use bus::Offset;
use model::uplink::{self, AttestedBy, Verdict};
use std::time::Duration;

/// The most records in a batch of ours.
pub const RECORDS_MAX: usize = 256;
/// The most bytes of records in a batch of ours, but one record at least.
pub const BYTES_MAX: usize = 1024 * 1024;

/// What a record of the spool takes besides its message, about.
const RECORD_ABOUT: u64 = 128;

/// A batch and what follows it in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub payload: uplink::Batch,
    /// The first record behind it.
    pub next: Offset,
    /// About how many bytes of spool it takes.
    pub bytes: u64,
}

/// Puts records into a batch: as many from the front as were admitted under the same bundle, since a batch names one.
pub fn batch(view: &View, records: Vec<(Offset, Record)>) -> Option<Batch> {
    let (_, first) = records.first()?;
    let bundle = first.bundle;
    let mut batch = Batch {
        payload: uplink::Batch {
            gateway: view.gateway.clone(),
            zone: view.zone.clone(),
            bundle,
            records: Vec::with_capacity(records.len()),
        },
        next: Offset(0),
        bytes: 0,
    };
    for (offset, record) in records.into_iter().take_while(|(_, r)| r.bundle == bundle) {
        batch.next = offset.next();
        batch.bytes += record.message.len() as u64 + RECORD_ABOUT;
        batch.payload.records.push(uplink::Record {
            device: record.device,
            attested_by: AttestedBy::Device,
            received_at: record.received_at,
            uncertainty_ms: record.uncertainty_ms,
            fresh: record.fresh,
            message: record.message,
        });
    }
    Some(batch)
}

/// An answer of control, or that there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An HTTP answer; `body` is cut to what a reply can need.
    Http { status: u16, retry_after: Option<Duration>, body: Vec<u8> },
    /// No answer: why, for people.
    None(String),
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One final verdict a record: the cursor may move.
    Verdicts(Vec<Verdict>),
    /// Not now. Nothing was taken, or we do not know: the same batch again.
    Again { retry_after: Option<Duration>, why: String },
    /// The batch as a whole was refused: an alarm; the same batch again, later.
    Refused { status: u16, why: String },
    /// An answer that does not fit the question.
    Unfit(String),
}

/// The longest reply: 1,024 verdicts of three bytes, and their heads.
pub const REPLY_BYTES_MAX: usize = 16 * 1024;

pub fn judge(reply: &Reply, records: usize) -> Outcome {
    let (status, retry_after, body) = match reply {
        Reply::Http { status, retry_after, body } => (*status, *retry_after, body),
        Reply::None(why) => return Outcome::Again { retry_after: None, why: why.clone() },
    };
    match status {
        200 => match uplink::decode_reply(body) {
            Ok(verdicts) if verdicts.len() == records => Outcome::Verdicts(verdicts),
            Ok(verdicts) => {
                Outcome::Unfit(format!("expected {records} verdicts, found {}", verdicts.len()))
            }
            Err(malformed) => Outcome::Unfit(malformed.to_string()),
        },
        408 | 425 | 429 | 500.. => {
            Outcome::Again { retry_after, why: format!("status {status}: {}", shown(body)) }
        }
        400.. => Outcome::Refused { status, why: shown(body) },
        _ => Outcome::Unfit(format!("expected status 200, found {status}")),
    }
}

/// A body, fit for a line in a log.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::uplink::{QuarantineReason, encode_reply};
    use model::{Counter, DeviceId, Digest, GatewayId, KeyId, Timestamp};

    fn view() -> View {
        let bundle = api::Bundle {
            format: 1,
            site: "site".into(),
            generation: 9,
            gateway: "gw-1".into(),
            zone: "hall".into(),
            devices: vec![],
            policies: String::new(),
        };
        View::of(&bundle, &GatewayId::new("gw-1").unwrap()).unwrap()
    }

    fn record(sequence: u64, bundle: u64) -> (Offset, Record) {
        let record = Record {
            device: DeviceId::new("pump-1").unwrap(),
            key: KeyId([1; 32]),
            counter: Counter { epoch: 1, sequence },
            digest: Digest([2; 32]),
            received_at: Timestamp(5),
            uncertainty_ms: 6,
            fresh: sequence.is_multiple_of(2),
            bundle,
            message: vec![sequence as u8],
        };
        (Offset(sequence), record)
    }

    #[test]
    fn a_batch_keeps_order_and_tags_and_names_one_bundle() {
        assert_eq!(batch(&view(), vec![]), None);
        let records = vec![record(4, 7), record(5, 7), record(6, 8), record(7, 7)];
        let batch = batch(&view(), records).unwrap();
        assert_eq!((batch.next, batch.payload.bundle), (Offset(6), 7));
        assert_eq!(batch.payload.zone.as_str(), "hall");
        let told: Vec<_> = batch.payload.records.iter().map(|r| (r.message[0], r.fresh)).collect();
        assert_eq!(told, [(4, true), (5, false)]);
        assert_eq!(batch.bytes, 2 * (1 + RECORD_ABOUT));
    }

    /// INV-ACK-1: from the one answer that moves the cursor, each change leaves it where it is.
    #[test]
    fn only_one_verdict_a_record_moves_the_cursor() {
        let verdicts = vec![
            Verdict::Stored,
            Verdict::Known,
            Verdict::Quarantined(QuarantineReason::BadSignature),
        ];
        let http = |status, body: &[u8]| {
            let retry_after = Some(Duration::from_secs(7));
            judge(&Reply::Http { status, retry_after, body: body.to_vec() }, 3)
        };
        let good = encode_reply(&verdicts);
        assert_eq!(http(200, &good), Outcome::Verdicts(verdicts.clone()));
        let seven = Some(Duration::from_secs(7));
        for status in [408, 425, 429, 500, 502, 503, 504] {
            match http(status, b"busy") {
                Outcome::Again { retry_after, why } => {
                    assert_eq!((retry_after, why), (seven, format!("status {status}: busy")));
                }
                other => panic!("{status}: {other:?}"),
            }
        }
        for status in [400, 401, 403, 404, 409, 413, 415, 422] {
            assert!(matches!(http(status, &good), Outcome::Refused { .. }), "{status}");
        }
        for (status, body) in [
            (200, &encode_reply(&verdicts[..2])[..]),
            (200, &encode_reply(&[Verdict::Stored; 4])),
            (200, &[&good[..], &[0]].concat()),
            (200, b""),
            (200, b"{}"),
            (204, &good),
            (302, &good),
        ] {
            assert!(matches!(http(status, body), Outcome::Unfit(_)), "{status} {body:?}");
        }
        let none = judge(&Reply::None("connection refused".into()), 3);
        assert_eq!(none, Outcome::Again { retry_after: None, why: "connection refused".into() });
    }
}
