//! What control tells of messages and updates on their way, as spans. It decides nothing for them.

use crate::rollouts::Answered;
use crate::rollouts::table::word;
use crate::uplink::Append;
use model::envelope::MESSAGE_BYTES_MAX;
use model::manifest::Outcome;
use model::{DeviceId, GatewayId, Kind, Timestamp};
use rollout::Known;
use std::collections::BTreeMap;
use traces::{Step, Trace, Traces};
use trust::cose;

/// The readings of one batch that are traced: those whose signature was believed, and that come for the first time.
pub(crate) struct Traced(Vec<(usize, DeviceId, Trace)>);

impl Traced {
    pub fn of(traces: &Traces, appends: &BTreeMap<usize, Append>) -> Self {
        if !traces.is_on() {
            return Self(Vec::new());
        }
        let entries = appends.iter().flat_map(|(shard, append)| {
            append.batch.entries.iter().map(move |entry| (*shard, entry))
        });
        let believed = entries.filter(|(_, entry)| entry.quarantine.is_none());
        let traced = believed.filter_map(|(shard, entry)| {
            let opened = cose::open(&entry.record.message, MESSAGE_BYTES_MAX).ok()?;
            let header = opened.header();
            (header.kind == Kind::Readings).then_some(())?;
            let device = &entry.record.device;
            let trace = traces.message(device, &header.key, header.counter)?;
            Some((shard, device.clone(), trace))
        });
        Self(traced.collect())
    }

    /// All of the batch, of so many records, is durable.
    pub fn tell(
        self,
        traces: &Traces,
        (gateway, request): (&DeviceId, &str),
        records: usize,
        at: (Timestamp, Timestamp),
    ) {
        let gateway =
            GatewayId::new(gateway.as_str()).expect("a gateway is enrolled as a device is");
        for (shard, device, trace) in self.0 {
            let more = [
                ("messaging.operation.type", "receive".into()),
                ("messaging.batch.message_count", records.into()),
                ("plimsoll.shard", shard.into()),
                ("plimsoll.request", request.into()),
            ];
            traces.tell(trace, &Step::Append { gateway: &gateway }, &device, at, more);
        }
    }
}

/// A check-in is answered: what it led to, and what it said. `outcome`: of the device's newest install.
pub(crate) fn check_in(
    traces: &Traces,
    (site, gateway, request): (&str, &DeviceId, &str),
    device: &DeviceId,
    outcome: Option<&Outcome>,
    answered: &Answered,
    at: (Timestamp, Timestamp),
) {
    if !traces.is_on() {
        return;
    }
    for (rollout, known) in &answered.moved {
        if let Known::Issued { .. } = known
            && let Some(trace) = traces.update(site, rollout, device)
        {
            let more = [
                ("plimsoll.rollout", rollout.as_str().into()),
                ("plimsoll.request", request.into()),
            ];
            traces.tell(trace, &Step::Permit, device, at, more);
        }
    }
    let said = outcome.filter(|_| answered.says_new_outcome);
    let Some((rollout, end)) = said.and_then(|said| Some((said.rollout.as_ref()?, said.end)))
    else {
        return;
    };
    if let Some(trace) = traces.update(site, rollout, device) {
        let gateway =
            GatewayId::new(gateway.as_str()).expect("a gateway is enrolled as a device is");
        let mut more = vec![
            ("plimsoll.rollout", rollout.as_str().into()),
            ("plimsoll.install.end", end.as_str().into()),
            ("plimsoll.request", request.into()),
        ];
        if let Some((_, known)) = answered.moved.iter().find(|(moved, _)| moved == rollout) {
            more.push(("plimsoll.permit", word(*known).into()));
        }
        traces.tell(trace, &Step::Report { gateway: &gateway, end }, device, at, more);
    }
}
