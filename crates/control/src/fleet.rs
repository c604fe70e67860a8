//! What an operator sees of the fleet, and changes in it.

use crate::approvals::Act;
use crate::approvals::call::ask;
use crate::call::{Call, json_answer, text};
use crate::caller::Denied;
use crate::directory::NotDrawn;
use crate::endpoint::Endpoint;
use crate::inventory::call::within_reach;
use crate::metrics::page;
use crate::principal::Reach;
use crate::problem::Failure;
use crate::registry::{ChangeError, Changed};
use crate::station::{Station, now};
use api::device::NewGroup;
use api::fleet::FLEET_PAGE_MAX;
use api::{Fleet, Ownership, Standing};
use axum::response::Response;
use model::{DeviceId, GroupId, ZoneId, told};

/// An ownership entry has under 300 bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// The last id of the page before: `next` of its answer.
    after: Option<String>,
    /// At most so many: 1 to 10,000, which is also what there are without it.
    limit: Option<usize>,
}

pub(crate) async fn devices(station: &Station, call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    let people = station.registry.people();
    let Page { after, limit } = call.query_string()?;
    let after = after.map(DeviceId::new).transpose()?;
    let limit = Call::page_limit(limit, FLEET_PAGE_MAX, FLEET_PAGE_MAX)?;
    let rest = call.directory.devices(after.as_ref());
    let mut rest = rest.filter(|device| people.reaches(&reach, &device.zone));
    let devices: Vec<_> = rest.by_ref().take(limit).map(|device| device.shown()).collect();
    let next = rest.next().and(devices.last()).map(|device| device.id.clone());
    Ok(json_answer(&Fleet { generation: call.directory.generation(), devices, next }))
}

pub(crate) async fn set_standing(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (person, reach) = call.person_within(station)?;
    let person = person.clone();
    let to = match call.endpoint {
        Endpoint::Revoke => Standing::Revoked,
        Endpoint::Quarantine => Standing::Quarantined,
        Endpoint::Decommission => Standing::Decommissioned,
        _ => Standing::Enrolled,
    };
    let id = DeviceId::new(call.name().await?)?;
    expect_reached(station, &reach, &id)?;
    let widens = to == Standing::Enrolled;
    if widens {
        station.ledger.may_widen()?;
    }
    let changed = station.registry.set_standing(&id, to, &person.actor, now()).await;
    if let Err(ChangeError::NeedsTwo(_)) = changed {
        return ask(station, Act::ReleaseDevice { device: id.to_string() }, None, &person).await;
    }
    let (events, answer) = changed_answer(station, changed, call.endpoint.as_str())?;
    match widens {
        true => station.ledger.covered(events).await?,
        false => station.ledger.covered_if_soon(events).await,
    }
    Ok(answer)
}

pub(crate) async fn take_keys(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let (device, _) = within_reach(station, &mut call).await?;
    if device.standing.has_ended() {
        let (from, to) = (device.standing, Standing::Enrolled);
        let expected = "listed, enrolled or quarantined";
        return Err(ChangeError::from(NotDrawn { from, to, expected }).into());
    }
    station.ledger.may_widen()?;
    let changed = station.registry.take_keys(&device.id, &actor, now()).await;
    let (events, answer) = changed_answer(station, changed, "reenrol")?;
    station.ledger.covered(events).await?;
    Ok(answer)
}

pub(crate) async fn set_group(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let (device, _) = within_reach(station, &mut call).await?;
    let NewGroup { group } = call.json(BODY_BYTES_MAX).await?;
    let group = GroupId::new(group)?;
    station.ledger.may_widen()?;
    let changed = station.registry.set_group(&device.id, group, &actor, now()).await;
    let (events, answer) = changed_answer(station, changed, "group")?;
    station.ledger.covered(events).await?;
    Ok(answer)
}

pub(crate) async fn list(station: &Station, call: Call) -> Result<Response, Failure> {
    let (person, reach) = call.person_within(station)?;
    let actor = person.actor.clone();
    let entry: Ownership = call.json(BODY_BYTES_MAX).await?;
    let zone = ZoneId::new(entry.zone.as_str()).map_err(ChangeError::from)?;
    let people = station.registry.people();
    if !people.reaches(&reach, &zone) {
        let expected = format!("a zone of {reach}");
        let found = format!("{zone}, which is not");
        return Err(Denied::OutOfScope { expected, found }.into());
    }
    station.ledger.may_widen()?;
    let changed = station.registry.list(&entry, &actor, now()).await;
    let changed = changed.map_err(|error| match (error, &reach) {
        // Where it is, and as what, is another site's.
        (
            ChangeError::ListedOtherwise { serial, .. }
            | ChangeError::IdTaken { expected: serial, .. },
            Reach::Sites(_),
        ) => ChangeError::Elsewhere { serial },
        (error, _) => error,
    });
    let (events, answer) = changed_answer(station, changed, "list")?;
    station.ledger.covered(events).await?;
    Ok(answer)
}

/// To who does not reach its zone it is as if there were no such device.
pub(crate) fn expect_reached(
    station: &Station,
    reach: &Reach,
    id: &DeviceId,
) -> Result<(), ChangeError> {
    let (people, directory) = (station.registry.people(), station.registry.directory());
    match directory.device(id).filter(|device| people.reaches(reach, &device.zone)) {
        Some(_) => Ok(()),
        None => Err(ChangeError::Unknown(id.clone())),
    }
}

/// The answer, and how many events a checkpoint has to cover before it leaves.
fn changed_answer(
    station: &Station,
    changed: Result<Changed, ChangeError>,
    act: &str,
) -> Result<(u64, Response), Failure> {
    let changed = changed.map_err(|error| match error {
        ChangeError::Registry(error) => station.failed_to_store(error),
        error => error.into(),
    })?;
    tracing::info!(
        device = %changed.device.id, act, standing = changed.device.standing.as_str(),
        generation = changed.generation, "fleet changed"
    );
    let Changed { generation, device, events } = changed;
    Ok((events, json_answer(&api::Changed { generation, device: device.shown() })))
}

pub(crate) async fn metrics(station: &Station, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    station.look_at_metrics();
    let page = page(station.metrics_registries()).map_err(|error| {
        tracing::error!(error = %told(&error), "metrics cannot be written");
        Failure::internal(&error)
    })?;
    Ok(text("text/plain; version=0.0.4; charset=utf-8", page))
}
