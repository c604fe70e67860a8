//! What needs two people, as calls: to ask, to look, to say yes or no, and the setting.

use super::decide::{self, Place, State};
use super::{Act, ActError, ApprovalError, Asked, Word};
use crate::call::{Call, expect_text, json_answer};
use crate::people::PeopleError;
use crate::people::secret::Hash;
use crate::principal::{Principal, Reach};
use crate::problem::Failure;
use crate::registry::{ChangeError, Done, RegistryError};
use crate::rollouts::RolloutError;
use crate::station::{Station, now};
use api::Scope;
use api::approval::{APPROVALS_PAGE_MAX, Approval, Approvals, Refusal, TwoPeople, Widening};
use api::rollout::RolloutCommand;
use axum::http::StatusCode;
use axum::response::Response;
use model::{RolloutId, Timestamp, told};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Three words, or a reason.
const BODY_BYTES_MAX: usize = 8 * 1024;
/// Some sentences.
const REASON_BYTES_MAX: usize = 1000;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// Only those that are open, approved, refused, failed or expired.
    state: Option<String>,
    /// The last id of the page before: `next` of its answer.
    after: Option<u64>,
    /// At most so many: 1 to 100, which is also what there are without it.
    limit: Option<usize>,
}

/// Asks a second person for what one may not do alone: 202, and it is not done.
pub(crate) async fn ask(
    station: &Station,
    act: Act,
    password: Option<Hash>,
    by: &Arc<Principal>,
) -> Result<Response, Failure> {
    let asked = station.registry.ask(act, password, by.clone(), now()).await;
    let Done { value, events } = asked.map_err(|error| failed(station, error))?;
    tracing::info!(approval = value.number, what = value.what.as_str(), "asked for, not done");
    station.ledger.covered(events).await?;
    let mut answer = json_answer(&shown(&value, now()));
    *answer.status_mut() = StatusCode::ACCEPTED;
    Ok(answer)
}

pub(crate) async fn list(station: &Station, call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?;
    let Page { state, after, limit } = call.query_string()?;
    let limit = Call::page_limit(limit, APPROVALS_PAGE_MAX, APPROVALS_PAGE_MAX)?;
    let wanted = state.map(|word| {
        State::from_word(&word).ok_or_else(|| {
            let words = State::ALL.map(State::as_str).join(", ");
            let detail = format!("state: expected one of {words}, found {word:?}");
            Failure::bad_request("bad_query_string", detail)
        })
    });
    let wanted = wanted.transpose()?;
    let older = station.registry.approvals(after.unwrap_or(u64::MAX)).await;
    let older = older.map_err(|error| failed(station, error))?;
    let at = now();
    let is_wanted = |one: &Asked| {
        wanted.is_none_or(|state| one.state.at(one.until, at) == state) && may_see(person, one)
    };
    let mut older = older.into_iter().filter(is_wanted);
    let approvals: Vec<_> = older.by_ref().take(limit).map(|one| shown(&one, at)).collect();
    let next = older.next().and(approvals.last()).map(|last| last.id.clone());
    Ok(json_answer(&Approvals { approvals, next }))
}

pub(crate) async fn one(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let number = call.number().await?;
    let asked = station.registry.approval(number).await.map_err(|error| failed(station, error))?;
    if !may_see(&person, &asked) {
        return Err(ApprovalError::Unknown(number).into());
    }
    let act = asked.act.as_ref().map(|act| serde_json::to_value(act).expect("it came as JSON"));
    Ok(json_answer(&Approval { act, ..shown(&asked, now()) }))
}

/// One's own, and what concerns sites of which one may read what was done.
fn may_see(person: &Principal, asked: &Asked) -> bool {
    person.user.as_ref() == Some(&asked.user)
        || reaches(&person.reach(Scope::EvidenceRead), &asked.place)
}

fn reaches(reach: &Reach, place: &Place) -> bool {
    match place {
        Place::Everywhere => reach.is_everywhere(),
        Place::Sites(sites) => sites.iter().all(|site| reach.covers(site)),
    }
}

/// A second person's yes: what was asked for is done with it.
pub(crate) async fn approve(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (person, asked) = within_reach(station, &mut call).await?;
    let number = asked.number;
    let act = asked.act.ok_or(ApprovalError::No(decide::No::NotOpen(asked.state)))?;
    station.ledger.may_widen()?;
    let word = Word { number, by: person, idle: station.limits.session_idle, at: now() };
    let events = match carry_out(station, act, asked.by, word.clone()).await {
        Ok(events) => events,
        Err(NotDone::Now(failure)) => return Err(failure),
        Err(NotDone::Any(failure)) => return fail(station, &word, failure).await,
    };
    tracing::info!(approval = number, "approved and done");
    station.ledger.covered(events).await?;
    let asked = station.registry.approval(number).await.map_err(|error| failed(station, error))?;
    Ok(json_answer(&shown(&asked, now())))
}

/// Why what was to be done is not.
enum NotDone {
    /// Not by this word, or not at this moment: it stays open.
    Now(Failure),
    /// Not by any: it has failed.
    Any(Failure),
}

impl From<ApprovalError> for NotDone {
    fn from(error: ApprovalError) -> Self {
        match error {
            ApprovalError::No(decide::No::FirstGone { .. })
            | ApprovalError::MovedOn(_)
            | ApprovalError::NoGrantRoles
            | ApprovalError::NobodyToAsk { .. } => Self::Any(error.into()),
            error => Self::Now(error.into()),
        }
    }
}

impl NotDone {
    /// Of what the act itself was refused for: what is only this station's trouble passes.
    fn of(failure: Failure) -> Self {
        if failure.status.is_server_error() { Self::Now(failure) } else { Self::Any(failure) }
    }
}

async fn carry_out(
    station: &Station,
    act: Act,
    by: crate::principal::Actor,
    word: Word,
) -> Result<u64, NotDone> {
    let stored = |error: RegistryError| NotDone::Now(station.failed_to_store(error));
    let done = match act {
        Act::CreateRollout { order } => {
            station.rollouts.create(*order, by, Some(word)).await.map(|told| told.events)
        }
        Act::StartRollout { rollout, .. } => {
            let id = RolloutId::new(rollout).map_err(|error| NotDone::of(error.into()))?;
            let start = RolloutCommand::Start;
            station.rollouts.command(&id, start, by, Some(word)).await.map(|told| told.events)
        }
        _ => {
            let done = station.registry.approve(word).await;
            return done.map(|done| done.events).map_err(|error| match error {
                ActError::Registry(error)
                | ActError::Approval(ApprovalError::Registry(error))
                | ActError::People(PeopleError::Registry(error))
                | ActError::Change(ChangeError::Registry(error)) => stored(error),
                ActError::Approval(error) => error.into(),
                ActError::People(error) => NotDone::of(error.into()),
                ActError::Change(error) => NotDone::of(error.into()),
            });
        }
    };
    done.map_err(|error| match error {
        RolloutError::Table(crate::rollouts::table::TableError::Registry(error))
        | RolloutError::Approval(ApprovalError::Registry(error)) => stored(error),
        RolloutError::Approval(error) => error.into(),
        error => NotDone::of(error.into()),
    })
}

/// It was approved and cannot be done: it is over, and why is told.
async fn fail(station: &Station, word: &Word, why: Failure) -> Result<Response, Failure> {
    let reason = why.detail.clone();
    let ended = station.registry.fail_approval(word, reason, now()).await;
    let Done { events, .. } = ended.map_err(|error| failed(station, error))?;
    station.ledger.covered_if_soon(events).await;
    let detail = format!("approval `{}` has failed: {}", word.number, why.detail);
    let title = "it could not be done any more";
    Err(Failure::new(StatusCode::CONFLICT, "approval_failed", title, detail))
}

/// One person is enough for a no, whoever reaches it: it narrows.
pub(crate) async fn refuse(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let (person, Asked { number, .. }) = within_reach(station, &mut call).await?;
    let Refusal { reason } = call.json(BODY_BYTES_MAX).await?;
    expect_text("reason", &reason, REASON_BYTES_MAX)?;
    let refused = station.registry.refuse(number, reason, person, now()).await;
    let Done { events, .. } = refused.map_err(|error| failed(station, error))?;
    tracing::info!(approval = number, "refused");
    station.ledger.covered_if_soon(events).await;
    let asked = station.registry.approval(number).await.map_err(|error| failed(station, error))?;
    Ok(json_answer(&shown(&asked, now())))
}

/// To who does not reach it, it is not there.
async fn within_reach(
    station: &Station,
    call: &mut Call,
) -> Result<(Arc<Principal>, Asked), Failure> {
    let (person, reach) = call.person_within(station)?;
    let person = person.clone();
    let number = call.number().await?;
    let asked = station.registry.approval(number).await.map_err(|error| failed(station, error))?;
    match person.user.as_ref() == Some(&asked.user) || reaches(&reach, &asked.place) {
        true => Ok((person, asked)),
        false => Err(ApprovalError::Unknown(number).into()),
    }
}

pub(crate) fn two_people(station: &Station, call: &Call) -> Result<Response, Failure> {
    call.person(station)?;
    Ok(setting(station))
}

/// To ask for more is done at once; for fewer, by two.
pub(crate) async fn set_two_people(station: &Station, call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let TwoPeople { needed_for } = call.json(BODY_BYTES_MAX).await?;
    let needed_for: BTreeSet<Widening> = needed_for.into_iter().collect();
    station.ledger.may_widen()?;
    let (to, by) = (needed_for.clone(), person.actor.clone());
    match station.registry.set_two_people(to, by, now()).await {
        Err(ApprovalError::NeedsTwo(_)) => {
            ask(station, Act::TwoPeople { needed_for }, None, &person).await
        }
        done => {
            let Done { events, .. } = done.map_err(|error| failed(station, error))?;
            tracing::info!("what needs two people is set");
            station.ledger.covered(events).await?;
            Ok(setting(station))
        }
    }
}

fn setting(station: &Station) -> Response {
    let people = station.registry.people();
    json_answer(&TwoPeople { needed_for: people.two_people().iter().copied().collect() })
}

fn shown(asked: &Asked, at: Timestamp) -> Approval {
    let state = asked.state.at(asked.until, at);
    // Nobody has written it down yet.
    let is_just_over = asked.state != state;
    let decided_at = if is_just_over { Some(asked.until) } else { asked.decided_at };
    Approval {
        id: asked.number.to_string(),
        what: asked.what,
        subject: asked.subject.clone(),
        sentence: asked.sentence.clone(),
        asked_by: asked.by.to_string(),
        asked_as: asked.role,
        seconds: decide::seconds(asked.what, asked.role).collect(),
        sites: match &asked.place {
            Place::Everywhere => None,
            Place::Sites(sites) => Some(sites.iter().cloned().collect()),
        },
        asked_at_ms: asked.at.as_ms(),
        until_ms: asked.until.as_ms(),
        state: state.as_str().to_owned(),
        decided_by: asked.decided_by.clone(),
        decided_at_ms: decided_at.map(Timestamp::as_ms),
        reason: asked.reason.clone(),
        act: None,
    }
}

pub(crate) fn failed(station: &Station, error: ApprovalError) -> Failure {
    match error {
        ApprovalError::Registry(error) => station.failed_to_store(error),
        error => error.into(),
    }
}

/// Of what nobody decides it is written down that its time is over.
pub(crate) async fn tidy(station: &Station) {
    match station.registry.tidy_approvals(now()).await {
        Err(ApprovalError::Registry(RegistryError::Closed)) | Ok(()) => {}
        Err(error) => tracing::warn!(error = %told(&error), "approvals are not tidied"),
    }
}
