//! Check-ins, rollouts and what devices run, as calls.

use super::{CheckInError, RolloutError, Told, told};
use crate::approvals::Act;
use crate::approvals::call::ask;
use crate::call::{Call, expect_media_type, json_answer};
use crate::caller::Denied;
use crate::checkin;
use crate::endpoint::Access;
use crate::fleet;
use crate::gateway::still_gateway;
use crate::principal::Reach;
use crate::problem::Failure;
use crate::rollouts::book::{Kept, Live, Number};
use crate::rollouts::draft::{DraftError, Named};
use crate::rollouts::table;
use crate::station::{Station, now};
use api::Scope;
use api::fleet::FLEET_PAGE_MAX;
use api::release::{Component, Outcome, Software};
use api::rollout::{
    Cohort, NewRollout, ROLLOUTS_PAGE_MAX, RolloutCommand, RolloutDevice, RolloutDevices, Rollouts,
};
use api::update::CHECK_IN_BYTES_MAX;
use axum::http::StatusCode;
use axum::response::Response;
use model::{DeviceId, RolloutId, ZoneId};

/// Eight signals of the longest SQL, every character escaped, and a cohort of a thousand names.
const BODY_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Of {
    /// In whose name.
    device: String,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// The last id of the page before: `next` of its answer.
    after: Option<String>,
    /// At most so many: as many as a page may have, without it.
    limit: Option<usize>,
}

/// A device's manifest, by its gateway: judged again in full, whatever the gateway made of it.
pub(crate) async fn check_in(station: &Station, call: Call) -> Result<Response, Failure> {
    let gateway = still_gateway(station, &call.peer, &call.directory)?;
    expect_media_type(&call.head.headers, "application/cose")?;
    let Of { device } = call.query_string()?;
    let device = DeviceId::new(device)?;
    let came = now();
    let room = station.check_ins.take(gateway.id.clone())?;
    let body = call.body(CHECK_IN_BYTES_MAX).await?;
    // The body may have taken its time, and a revocation does not wait for it.
    let directory = station.registry.directory();
    let gateway_now = still_gateway(station, &call.peer, &directory)?;
    debug_assert_eq!(gateway.id, gateway_now.id);
    let (grace, seen) = (station.limits.key_grace, device.clone());
    let sealed = checkin::open(&body, &device, &gateway_now, &directory, grace, now());
    let mut outcome = None;
    let answer = match sealed {
        Ok(sealed) => {
            outcome.clone_from(&sealed.manifest.outcome);
            let may_issue = station.ledger.may_widen().is_ok();
            station.rollouts.check_in(sealed, may_issue, room).await
        }
        Err(refused) => Err(refused.into()),
    };
    let label = match &answer {
        Ok(_) => "answered",
        Err(CheckInError::Refused(refused)) => refused.word(),
        Err(_) => "failed",
    };
    station.metrics.check_ins.with_label_values(&[label]).inc();
    match &answer {
        // As it is in the book: another check-in of this device may have been later, and faster.
        Ok(_) => {
            let manifest = station.rollouts.book().manifest(&device).map(Kept::manifest);
            if let Some(manifest) = manifest {
                station.inventory.checked_in(&gateway.id, &device, &manifest);
            }
        }
        Err(CheckInError::Refused(refused)) => {
            let (what, gateway) = ("a check-in", Some(&gateway.id));
            station.inventory.refused(&device, what, refused.word(), gateway);
        }
        Err(_) => {}
    }
    let answered = answer.map_err(|error| check_in_failed(station, error))?;
    station.streams.seen(&seen);
    // No leave reaches a device before the evidence log covers it (INV-EVID-1). That something was halted does.
    station.ledger.covered(answered.leave).await?;
    station.ledger.covered_if_soon(answered.said).await;
    let by = (station.terms.site.as_str(), &gateway.id, call.request());
    crate::traced::check_in(
        &station.traces,
        by,
        &device,
        outcome.as_ref(),
        &answered,
        (came, now()),
    );
    Ok(json_answer(&answered.check_in))
}

pub(crate) async fn create(station: &Station, call: Call) -> Result<Response, Failure> {
    let (person, reach) = call.person_within(station)?;
    let person = person.clone();
    let mut new: NewRollout = call.json(BODY_BYTES_MAX).await?;
    person.may_reach(&new.cohort.groups)?;
    bound(station, &call, &reach, &mut new.cohort)?;
    // A gate's question is SQL over all sites, and its answer is shown: whoever may not ask it himself does not ask it so.
    if !new.signals.is_empty() {
        let asks = Access::Whole(Scope::TelemetryRead);
        if !asks.admits(&call.caller) {
            let (expected, found) = (asks.expected(), call.caller.to_string());
            return Err(Denied::OutOfScope { expected, found }.into());
        }
    }
    station.ledger.may_widen()?;
    let made = station.rollouts.create(new.clone(), person.actor.clone(), None).await;
    if let Err(RolloutError::NeedsTwo(_)) = made {
        // Who says yes to it knows its name.
        let named = Named::read(&new).map_err(RolloutError::from)?;
        let free = || station.rollouts.book().free_name(&named.product, named.version);
        new.id.get_or_insert_with(free);
        let order = Box::new(new);
        return ask(station, Act::CreateRollout { order }, None, &person).await;
    }
    let Told { value, events } = made.map_err(|error| failed(station, error))?;
    tracing::info!(
        rollout = %value.id, product = %value.order.product, version = %value.order.version,
        cohort = value.cohort, phase = %value.phase, "rollout made"
    );
    station.ledger.covered(events).await?;
    let mut response = json_answer(&value);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

pub(crate) async fn list(station: &Station, call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    let Page { after, limit } = call.query_string()?;
    let limit = Call::page_limit(limit, ROLLOUTS_PAGE_MAX, ROLLOUTS_PAGE_MAX)?;
    let after = after.map(RolloutId::new).transpose()?;
    let book = station.rollouts.book();
    let below = match &after {
        None => Number::MAX,
        Some(id) => {
            let number = book.number(id);
            let live = number.and_then(|number| book.live(number));
            live.filter(|live| is_reached(station, &reach, live))
                .and(number)
                .ok_or_else(|| unknown(id))?
        }
    };
    let older = book.rollouts().rev().skip_while(|(number, _)| *number >= below);
    let mut older = older.filter(|(_, live)| is_reached(station, &reach, live));
    let rollouts: Vec<_> = older.by_ref().take(limit).map(|(_, live)| told::shown(live)).collect();
    let next = older.next().and(rollouts.last()).map(|last| last.id.clone());
    Ok(json_answer(&Rollouts { rollouts, next }))
}

pub(crate) async fn one(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    let id = rollout(&mut call).await?;
    let book = station.rollouts.book();
    let live = book.number(&id).and_then(|number| book.live(number));
    let live = live.filter(|live| is_reached(station, &reach, live));
    let live = live.ok_or_else(|| unknown(&id))?;
    Ok(json_answer(&told::shown(live)))
}

pub(crate) async fn command(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (person, reach) = call.person_within(station)?;
    let person = person.clone();
    let command = call.endpoint.rollout_command();
    let command = command.expect("the table of endpoints sends nothing else here");
    let id = rollout(&mut call).await?;
    expect_reached(station, &reach, &id)?;
    let cohort = {
        let book = station.rollouts.book();
        let live = book.number(&id).and_then(|number| book.live(number));
        live.ok_or_else(|| unknown(&id))?.order.cohort.clone()
    };
    person.may_reach(&cohort.groups)?;
    // What narrows is done whether or not it can be logged at once.
    use RolloutCommand::{Abort, Halt, Pause, Resume, Revert, Start};
    let widens = match command {
        Start | Resume | Revert => true,
        Pause | Halt | Abort => false,
    };
    if widens {
        station.ledger.may_widen()?;
    }
    let done = station.rollouts.command(&id, command, person.actor.clone(), None).await;
    if let Err(RolloutError::NeedsTwo(_)) = done {
        let act = Act::StartRollout { rollout: id.to_string(), cohort };
        return ask(station, act, None, &person).await;
    }
    let Told { value, events } = done.map_err(|error| failed(station, error))?;
    tracing::info!(rollout = %id, command = command.as_str(), phase = %value.phase, "rollout moved");
    match widens {
        true => station.ledger.covered(events).await?,
        false => station.ledger.covered_if_soon(events).await,
    }
    Ok(json_answer(&value))
}

pub(crate) async fn devices(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    let Page { after, limit } = call.query_string()?;
    let id = rollout(&mut call).await?;
    let limit = Call::page_limit(limit, FLEET_PAGE_MAX, FLEET_PAGE_MAX)?;
    expect_reached(station, &reach, &id)?;
    let after = after.unwrap_or_default();
    let read = station.registry.read(move |tx| {
        // One more than is shown says whether there are more.
        Box::pin(async move { table::page(tx, &id, &after, limit + 1).await })
    });
    let mut devices: Vec<RolloutDevice> =
        read.await.map_err(|error| station.failed_to_store(error))?;
    let is_more = devices.len() > limit;
    devices.truncate(limit);
    let last = devices.last().map(|last| last.device.clone());
    Ok(json_answer(&RolloutDevices { devices, next: last.filter(|_| is_more) }))
}

pub(crate) async fn software(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    let id = DeviceId::new(call.name().await?)?;
    if !reach.is_everywhere() {
        fleet::expect_reached(station, &reach, &id)?;
    }
    let kept = station.rollouts.book().manifest(&id).cloned();
    match kept {
        Some(kept) => Ok(json_answer(&software_of(&id, &kept))),
        None => {
            let detail = format!("expected a device that has checked in, found `{id}`");
            let title = "nothing is known of its software";
            Err(Failure::new(StatusCode::NOT_FOUND, "no_manifest", title, detail))
        }
    }
}

/// What a manifest says, as people read it.
pub(crate) fn software_of(id: &DeviceId, kept: &Kept) -> Software {
    let manifest = kept.manifest();
    let components = manifest.components.iter().map(|component| {
        let running = component.running_image();
        Component {
            product: component.product.to_string(),
            hardware: component.hardware.to_string(),
            version: running.version.to_string(),
            sha256: running.digest.to_string(),
            boot: component.boot.as_str().to_owned(),
            security_version: running.security_version.0,
            floor: component.floor.0,
        }
    });
    Software {
        device: id.to_string(),
        number: kept.number,
        received_at_ms: kept.received_at.as_ms(),
        components: components.collect(),
        outcome: manifest.outcome.as_ref().map(|outcome| Outcome {
            rollout: outcome.rollout.as_ref().map(ToString::to_string),
            product: outcome.product.to_string(),
            sha256: outcome.digest.to_string(),
            end: outcome.end.as_str().to_owned(),
            reason: outcome.reason.clone(),
        }),
    }
}

pub(crate) async fn signals(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    let id = rollout(&mut call).await?;
    expect_reached(station, &reach, &id)?;
    let signals = station.rollouts.signals(&id).await;
    Ok(json_answer(&signals.map_err(|error| failed(station, error))?))
}

/// Whose rights are bounded by site orders for zones within them: those that he names, or all of his that there are now.
fn bound(
    station: &Station,
    call: &Call,
    reach: &Reach,
    cohort: &mut Cohort,
) -> Result<(), Failure> {
    let Some(own) = call.zones(station, reach) else { return Ok(()) };
    let people = station.registry.people();
    for zone in &cohort.zones {
        let zone = ZoneId::new(zone.as_str())?;
        if !people.reaches(reach, &zone) {
            let (expected, found) = (format!("zones of {reach}"), format!("{zone}, which is not"));
            return Err(Denied::OutOfScope { expected, found }.into());
        }
    }
    for device in &cohort.devices {
        let device = DeviceId::new(device.as_str())?;
        fleet::expect_reached(station, reach, &device)?;
    }
    if cohort.zones.is_empty() {
        cohort.zones = own.iter().map(ToString::to_string).collect();
    }
    if cohort.zones.is_empty() {
        return Err(RolloutError::Draft(DraftError::Plan(rollout::PlanError::NoCohort)).into());
    }
    Ok(())
}

/// A rollout is seen and moved by who reaches all of its cohort.
pub(crate) fn is_reached(station: &Station, reach: &Reach, live: &Live) -> bool {
    if reach.is_everywhere() {
        return true;
    }
    let (people, directory) = (station.registry.people(), station.registry.directory());
    let (zones, devices) = (&live.members.zones, &live.members.devices);
    let of = |id: &DeviceId| directory.device(id).map(|device| &device.zone);
    match (zones.is_empty(), devices.is_empty()) {
        (false, _) => zones.iter().all(|zone| people.reaches(reach, zone)),
        (true, false) => {
            devices.iter().all(|id| of(id).is_some_and(|zone| people.reaches(reach, zone)))
        }
        (true, true) => false,
    }
}

/// To who does not reach all of its cohort it is as if there were no such rollout.
fn expect_reached(station: &Station, reach: &Reach, id: &RolloutId) -> Result<(), Failure> {
    let book = station.rollouts.book();
    let live = book.number(id).and_then(|number| book.live(number));
    match live.filter(|live| is_reached(station, reach, live)) {
        Some(_) => Ok(()),
        None => Err(unknown(id)),
    }
}

async fn rollout(call: &mut Call) -> Result<RolloutId, Failure> {
    Ok(RolloutId::new(call.name().await?)?)
}

fn unknown(id: &RolloutId) -> Failure {
    RolloutError::Unknown(id.clone()).into()
}

/// What the registry failed at is counted and told, as at every other call.
fn failed(station: &Station, error: RolloutError) -> Failure {
    match error {
        RolloutError::Table(table::TableError::Registry(error)) => station.failed_to_store(error),
        error => error.into(),
    }
}

fn check_in_failed(station: &Station, error: CheckInError) -> Failure {
    match error {
        CheckInError::Table(table::TableError::Registry(error)) => station.failed_to_store(error),
        CheckInError::Director(crate::director::DirectorError::Registry(error)) => {
            station.failed_to_store(error)
        }
        error => error.into(),
    }
}
