//! What gateways call: the long poll for their bundle, and the uplink.

use crate::bundle;
use crate::call::{Call, expect_media_type, json_answer, no_content, text};
use crate::caller::{Caller, Peer, authorise, recognise};
use crate::directory::{Device, Directory};
use crate::endpoint::Access;
use crate::error::Fatal;
use crate::problem::Failure;
use crate::station::{Phase, Station, now};
use crate::traced::Traced;
use crate::uplink::{self, Append, BODY_BYTES_MAX, CallRefusal, Judgement};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bus::LogError;
use model::DeviceId;
use model::told;
use model::uplink::{QuarantineReason, Verdict, encode_reply};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// The longest that a poll for a bundle waits.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

const COSE: &str = "application/cose";
const CBOR: &str = "application/cbor";

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Poll {
    /// The generation that the gateway has.
    #[serde(default)]
    after: u64,
    /// How long to wait for a newer one, in seconds: at most 60.
    #[serde(default)]
    wait_s: u64,
}

/// The caller's bundle if it is newer than what it has; otherwise as soon as it is. A revocation answers at once, to the
/// gateways that have to know of it and to one that was itself revoked.
pub(crate) async fn bundle(station: &Station, call: Call) -> Result<Response, Failure> {
    let Poll { after, wait_s } = call.query_string()?;
    let deadline = tokio::time::Instant::now() + WAIT_MAX.min(Duration::from_secs(wait_s));
    let mut directories = station.registry.watch();
    let mut draining = pin!(station.reached(Phase::Draining));
    loop {
        let directory = directories.borrow_and_update().clone();
        let gateway = still_gateway(station, &call.peer, &directory)?;
        station.inventory.heard(None, [&gateway.id]);
        let generation = directory.generation();
        if after > generation {
            return Err(from_the_future(after, generation));
        }
        if after < generation {
            // Who is let in by it is let in by evidence. A revocation does not wait long for that.
            station.ledger.covered_if_soon(station.registry.events()).await;
            let (site, policies) = (&station.terms.site, &station.policies);
            let bundle = bundle::compile(&directory, &gateway, site, policies, station.keys, now());
            return Ok(json_answer(&bundle));
        }
        tokio::select! {
            changed = directories.changed() => changed.expect("the registry outlives its callers"),
            () = draining.as_mut() => return Ok(no_content()),
            () = tokio::time::sleep_until(deadline) => return Ok(no_content()),
        }
    }
}

/// The generation only grows (INV-FRESH-1), so either this registry is an old copy or the number is made up.
fn from_the_future(after: u64, generation: u64) -> Failure {
    let detail = format!("expected a generation of at most {generation}, found {after}");
    let title = "the caller has seen a newer generation than there is";
    Failure::new(axum::http::StatusCode::CONFLICT, "generation_ahead", title, detail)
}

/// Asks again who calls: much may have changed while it waited (INV-AUTH-1).
pub(crate) fn still_gateway(
    station: &Station,
    peer: &Peer,
    directory: &Directory,
) -> Result<Arc<Device>, Failure> {
    let caller = recognise(peer, directory, station.limits.key_grace, now())?;
    let Caller::Gateway(id) = &caller else {
        return Err(station.past_its_scope(Access::Gateway, &caller).into());
    };
    authorise(Access::Gateway, &caller, directory)?;
    Ok(directory.device(id).expect("it was recognised in this directory").clone())
}

/// Takes what a gateway hands up. The answer leaves when every record is durable on the bus (INV-ACK-1); before that,
/// nothing is said of any.
pub(crate) async fn uplink(station: &Arc<Station>, call: Call) -> Result<Response, Failure> {
    expect_media_type(&call.head.headers, COSE)?;
    expect_zstd(&call.head.headers)?;
    let gateway = still_gateway(station, &call.peer, &call.directory)?;
    let came = now();
    let room = (station.turns.take(gateway.id.clone())?, slot(station)?);
    let body = call.body(BODY_BYTES_MAX).await?;
    station.metrics.uplink_bytes.inc_by(body.len() as u64);
    // The body may have taken its time, and a revocation does not wait for it.
    let directory = station.registry.directory();
    let gateway = still_gateway(station, &call.peer, &directory)?;
    let (judging, sender) = (station.clone(), gateway.clone());
    // The room goes along: a caller that hangs up gets none for its next call before this work has ended.
    let work = move || (judged(&judging, &body, &sender, &directory), room);
    let (judgement, room) =
        tokio::task::spawn_blocking(work).await.map_err(|error| Failure::internal(&error))?;
    let Judgement { verdicts, appends } = judgement.map_err(|refusal| Failure::uplink(&refusal))?;
    let (names, traced) = (Names::of(&appends), Traced::of(&station.traces, &appends));
    // In a task of its own: what became durable is remembered also when its caller has hung up, or waited too long.
    let appending = station.clone();
    let appended = tokio::spawn(async move {
        let appended = append(&appending, appends).await;
        drop(room);
        appended
    });
    appended.await.map_err(|error| Failure::internal(&error))??;
    report(station, &gateway.id, &verdicts);
    names.tell(station, &gateway.id);
    let by = (&gateway.id, call.request());
    traced.tell(&station.traces, by, verdicts.len(), (came, now()));
    Ok(text(CBOR, encode_reply(&verdicts)))
}

/// In whose names something new came: by their own signature, or apart with a reason. A repeat says nothing new of anybody.
struct Names {
    heard: BTreeSet<DeviceId>,
    apart: Vec<(DeviceId, QuarantineReason)>,
}

impl Names {
    fn of(appends: &BTreeMap<usize, Append>) -> Self {
        let (mut heard, mut apart) = (BTreeSet::new(), Vec::new());
        for entry in appends.values().flat_map(|append| &append.batch.entries) {
            match entry.quarantine {
                None if heard.contains(&entry.record.device) => {}
                None => drop(heard.insert(entry.record.device.clone())),
                Some(reason) => apart.push((entry.record.device.clone(), reason)),
            }
        }
        Self { heard, apart }
    }

    fn tell(&self, station: &Station, gateway: &DeviceId) {
        station.inventory.heard(Some(gateway), &self.heard);
        self.heard.iter().chain([gateway]).for_each(|id| station.streams.seen(id));
        for (device, reason) in &self.apart {
            station.inventory.refused(device, "a message", reason.as_str(), Some(gateway));
        }
    }
}

/// Returns when all of it is durable. If one shard has no room, nothing is acknowledged and the gateway comes again, as
/// often as it takes. So all shards are asked before the first is written to; and where one fills up in between, what
/// the others took is remembered and not written again.
async fn append(station: &Station, appends: BTreeMap<usize, Append>) -> Result<(), Failure> {
    let started = Instant::now();
    let framed = appends.into_iter().map(|(shard, Append { batch, seen })| {
        (shard, uplink::framed(&batch, &station.bus_key), seen)
    });
    let framed: Vec<_> = framed.collect();
    for (shard, record, _) in &framed {
        let room = station.shards[*shard].room_for(record.len());
        room.map_err(|error| not_taken(station, *shard, &error))?;
    }
    let mut waiting = Vec::with_capacity(framed.len());
    let mut failure = None;
    for (shard, record, seen) in framed {
        match station.shards[shard].submit(record) {
            Ok(durable) => waiting.push((shard, durable, seen)),
            Err(error) => {
                failure = Some(not_taken(station, shard, &error));
                break;
            }
        }
    }
    for (shard, durable, seen) in waiting {
        match durable.await {
            Ok(Ok(_)) => {
                let mut known = station.known();
                seen.into_iter().for_each(|seen| known.remember(seen));
            }
            Ok(Err(error)) => failure = Some(not_taken(station, shard, &error)),
            Err(_) => {
                station.fail(Fatal::Bus { shard });
                failure = Some(Failure::bus_failed("the shard's writer is gone"));
            }
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    station.step("bus", started);
    Ok(())
}

fn not_taken(station: &Station, shard: usize, error: &LogError) -> Failure {
    if error.is_for_want_of_room() {
        return Failure::bus_full(told(error));
    }
    tracing::error!(shard, error = %told(error), "the bus failed");
    match error {
        // A bus that was set up for shorter records than uplink writes (`BUS_RECORD_BYTES_MAX`), or an uplink that took
        // more than it may: the work was spent before the bound was found.
        LogError::TooLarge { .. } => {
            station.metrics.count_violation("INV-COST-1");
            return Failure::internal(error);
        }
        LogError::Closed { .. } => {}
        _ => station.fail(Fatal::Bus { shard }),
    }
    Failure::bus_failed(told(error))
}

/// The hot path: no SQL, no waiting, nothing but the message and the directory.
fn judged(
    station: &Station,
    body: &[u8],
    sender: &Device,
    directory: &Directory,
) -> Result<Judgement, CallRefusal> {
    let started = Instant::now();
    let batch = uplink::open(body, sender, directory, station.limits.key_grace, now())?;
    if batch.bundle > directory.generation() {
        tracing::warn!(
            gateway = %sender.id, found = batch.bundle, expected = directory.generation(),
            "gateway has a newer bundle than there is"
        );
    }
    let started = station.step("open", started);
    let records = batch.records.len();
    let judgement =
        uplink::judge(batch, directory, |seen| station.known().has(seen), station.shards.len());
    station.step("judge", started);
    if judgement.verdicts.len() != records {
        station.metrics.count_violation("INV-ACK-1");
    }
    Ok(judgement)
}

fn expect_zstd(headers: &HeaderMap) -> Result<(), Failure> {
    let found = headers.get(header::CONTENT_ENCODING);
    if found.is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(b"zstd")) {
        return Ok(());
    }
    let found = found.and_then(|found| found.to_str().ok()).unwrap_or("none");
    Err(Failure::unsupported(format!("expected Content-Encoding zstd, found {found}")))
}

fn slot(station: &Station) -> Result<OwnedSemaphorePermit, Failure> {
    station.uplinks.clone().try_acquire_owned().map_err(|_| {
        let max = station.limits.uplinks_max;
        Failure::busy(format!("expected at most {max} uplink calls at a time, found one more"))
    })
}

/// One line a call and reason: a gateway that hands up nothing but noise does not fill the log.
fn report(station: &Station, gateway: &DeviceId, verdicts: &[Verdict]) {
    let mut reasons = BTreeMap::new();
    for verdict in verdicts {
        station.metrics.count_verdict(*verdict);
        if let Verdict::Quarantined(reason) = verdict {
            *reasons.entry(*reason).or_insert(0) += 1;
        }
    }
    for (reason, records) in reasons {
        tracing::warn!(gateway = %gateway, reason = reason.as_str(), records, "records put in quarantine");
    }
}
