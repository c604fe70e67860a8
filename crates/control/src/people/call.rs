//! Users, sessions, tokens and sites, as calls.

use super::door::Refused;
use super::table::{End, NewToken as Kept, Whose};
use super::{
    PeopleError, Session, Token as Held, User as Known, check_name, check_password, secret,
};
use crate::approvals::Act;
use crate::approvals::call::{ask, tidy as tidy_approvals};
use crate::call::{Call, json_answer, no_content};
use crate::directory::Directory;
use crate::people::People;
use crate::principal::{Principal, Proof, Reach};
use crate::problem::Failure;
use crate::registry::{Done, RegistryError};
use crate::station::{Station, now};
use api::Scope;
use api::user::{
    Grants, MadeToken, Me, NewPassword, NewToken, NewUser, SESSION_COOKIE, SignIn, Site, Sites,
    TOKEN_DAYS_MAX, Token, Tokens, User, Users,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use model::{Timestamp, ZoneId, told};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A name, a password and some hundred grants.
const BODY_BYTES_MAX: usize = 32 * 1024;
/// A name and a password: read before anybody knows who sends it.
const SIGN_IN_BYTES_MAX: usize = 2 * 1024;
/// A thousand zones with the longest names.
const SITE_BYTES_MAX: usize = 1024 * 1024;

/// How often what was used is written down, what nobody used is ended, and who was refused is told of.
const TIDY_EVERY: Duration = Duration::from_secs(60);

pub(crate) fn me(station: &Station, call: &Call) -> Result<Response, Failure> {
    Ok(json_answer(&shown_me(station, call.person(station)?)))
}

fn shown_me(station: &Station, person: &Principal) -> Me {
    Me {
        actor: person.actor.to_string(),
        user: person.user.clone(),
        site: station.terms.site.clone(),
        grants: person.grants.clone(),
        scopes: person.scopes(),
        until_ms: person.until_ms,
    }
}

/// Nothing is asked of the evidence log here: who comes to stop something has to get in while it takes nothing.
pub(crate) async fn sign_in(station: &Station, call: Call) -> Result<Response, Failure> {
    let SignIn { user, password } = call.secret_json(SIGN_IN_BYTES_MAX).await?;
    let at = now();
    let known = station.registry.people().user(&user).cloned();
    let hash = known.as_ref().map(|known| known.password.clone());
    let judged = station.door.judge(call.from, &user, hash.clone(), password, at).await;
    let why = match (judged, known) {
        (Err((why, failure)), _) => return Err(refused(station, why, failure)),
        (Ok(_), None) => Refused::UnknownUser,
        (Ok(_), Some(known)) if known.disabled => Refused::Disabled,
        (Ok(false), _) => Refused::OtherPassword,
        (Ok(true), Some(_)) => {
            return begin(station, user, hash.expect("a user has one"), at).await;
        }
    };
    // Which of them it was is not said.
    let detail = "expected the name and the password of a user that is not disabled";
    let title = "nobody signs in with this";
    Err(refused(station, why, Failure::new(StatusCode::UNAUTHORIZED, "bad_sign_in", title, detail)))
}

async fn begin(
    station: &Station,
    user: String,
    shown: secret::Hash,
    at: Timestamp,
) -> Result<Response, Failure> {
    let cookie = secret::cookie();
    let life = station.limits.session_life;
    let begun = station.registry.begin_session(user, shown, cookie.kept, life, at).await;
    let Done { events, .. } = begun.map_err(|error| failed(station, error))?;
    station.metrics.sign_ins.with_label_values(&["signed_in"]).inc();
    station.ledger.covered_if_soon(events).await;
    let people = station.registry.people();
    let person = people.by_session(&cookie.kept, at, station.limits.session_idle)?;
    tracing::info!(actor = %person.actor, "signed in");
    let mut answer = json_answer(&shown_me(station, &person));
    let set =
        format!("{SESSION_COOKIE}={}; {COOKIE_FLAGS}; Max-Age={}", cookie.shown, life.as_secs());
    let mut set = HeaderValue::from_str(&set).expect("hex and words are a header");
    set.set_sensitive(true);
    answer.headers_mut().insert(header::SET_COOKIE, set);
    Ok(answer)
}

/// What `__Host-` asks for, and that no script reads it and no other site sends it.
const COOKIE_FLAGS: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

/// The cookie of a request: the last part of what a browser sends, in whichever header.
pub(crate) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| name.trim() == SESSION_COOKIE).map(|(_, value)| value.trim())
}

fn refused(station: &Station, why: Refused, failure: Failure) -> Failure {
    station.door.count(why);
    station.metrics.sign_ins.with_label_values(&[why.as_str()]).inc();
    failure
}

pub(crate) async fn sign_out(station: &Station, call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?;
    let Proof::Session(cookie) = person.proof else {
        let detail = "expected a session, found a token: DELETE /v1/tokens/{id} ends one";
        let title = "there is no session to end";
        return Err(Failure::new(StatusCode::CONFLICT, "not_a_session", title, detail));
    };
    let actor = person.actor.clone();
    let ended = station.registry.end_session(cookie, End::SignedOut, actor, now()).await;
    let Done { events, .. } = ended.map_err(|error| failed(station, error))?;
    station.ledger.covered_if_soon(events).await;
    let mut answer = no_content();
    let gone = format!("{SESSION_COOKIE}=; {COOKIE_FLAGS}; Max-Age=0");
    let gone = HeaderValue::from_str(&gone).expect("words are a header");
    answer.headers_mut().insert(header::SET_COOKIE, gone);
    Ok(answer)
}

pub(crate) async fn users(station: &Station, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    let people = station.registry.people();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    let (at, idle) = (now(), station.limits.session_idle);
    for (_, session) in people.sessions().filter(|(_, session)| !session.is_over(at, idle)) {
        *open.entry(&session.user).or_default() += 1;
    }
    let users = people.users();
    let shown = users.map(|user| shown(user, open.get(user.name.as_str()).copied().unwrap_or(0)));
    Ok(json_answer(&Users { users: shown.collect() }))
}

fn shown(user: &Known, sessions: usize) -> User {
    User {
        name: user.name.clone(),
        grants: user.grants.iter().cloned().collect(),
        disabled: user.disabled,
        created_at_ms: user.created_at.as_ms(),
        signed_in_at_ms: user.signed_in_at.map(Timestamp::as_ms),
        sessions,
    }
}

fn shown_now(station: &Station, user: &Known) -> User {
    let (people, at, idle) = (station.registry.people(), now(), station.limits.session_idle);
    let is_open = |session: &Session| !session.is_over(at, idle);
    let sessions = people.sessions_of(&user.name).filter(|(_, session)| is_open(session)).count();
    shown(user, sessions)
}

pub(crate) async fn create_user(station: &Station, call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let NewUser { name, password, grants } = call.secret_json(BODY_BYTES_MAX).await?;
    let people = station.registry.people();
    // What can be said at once costs no hash.
    let checked = check_name("user name", &name).and_then(|()| check_password(&password));
    let checked = checked.and_then(|()| people.check_grants(&grants).map(drop));
    checked.map_err(|error| failed(station, error))?;
    station.ledger.may_widen()?;
    let hash = station.door.hash(password).await?;
    let actor = person.actor.clone();
    let kept = (name.clone(), hash.clone(), grants.clone());
    let made = station.registry.create_user(name, hash, grants, actor, now()).await;
    if let Err(PeopleError::NeedsTwo(_)) = made {
        let (name, hash, grants) = kept;
        return ask(station, Act::CreateUser { name, grants }, Some(hash), &person).await;
    }
    let Done { value, events } = made.map_err(|error| failed(station, error))?;
    tracing::info!(user = %value.name, "user made");
    station.ledger.covered(events).await?;
    let mut answer = json_answer(&shown(&value, 0));
    *answer.status_mut() = StatusCode::CREATED;
    Ok(answer)
}

pub(crate) async fn grant(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let name = call.name().await?;
    let Grants { grants } = call.json(BODY_BYTES_MAX).await?;
    let people = station.registry.people();
    let set = people.check_grants(&grants).map_err(|error| failed(station, error))?;
    let widens = people.user(&name).is_some_and(|known| known.is_widened_by(&set));
    if widens {
        station.ledger.may_widen()?;
    }
    let actor = person.actor.clone();
    let done = station.registry.grant(name.clone(), grants.clone(), actor, now()).await;
    if let Err(PeopleError::NeedsTwo(_)) = done {
        return ask(station, Act::Grant { name, grants }, None, &person).await;
    }
    changed(station, done, widens, "granted").await
}

pub(crate) async fn disable_user(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let name = call.name().await?;
    let done = station.registry.disable_user(name, actor, now()).await;
    changed(station, done, false, "disabled").await
}

pub(crate) async fn enable_user(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let name = call.name().await?;
    station.ledger.may_widen()?;
    let done = station.registry.enable_user(name.clone(), person.actor.clone(), now()).await;
    if let Err(PeopleError::NeedsTwo(_)) = done {
        return ask(station, Act::EnableUser { name }, None, &person).await;
    }
    changed(station, done, true, "enabled").await
}

pub(crate) async fn end_sessions(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let actor = call.person(station)?.actor.clone();
    let name = call.name().await?;
    let ended = station.registry.end_sessions(name, actor, now()).await;
    let Done { events, .. } = ended.map_err(|error| failed(station, error))?;
    station.ledger.covered_if_soon(events).await;
    Ok(no_content())
}

/// One's own, with the one before; or, by who makes users, anybody's.
pub(crate) async fn set_password(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let name = call.name().await?;
    let NewPassword { password, before } = call.secret_json(BODY_BYTES_MAX).await?;
    let is_own = person.user.as_deref() == Some(name.as_str());
    if !is_own {
        expect(&person, Scope::UsersWrite)?;
    }
    check_password(&password).map_err(|error| failed(station, error))?;
    let at = now();
    if is_own {
        let known = station.registry.people().user(&name).map(|user| user.password.clone());
        let judged =
            station.door.judge(call.from, &name, known, before.unwrap_or_default(), at).await;
        let is_before = judged.map_err(|(why, failure)| refused(station, why, failure))?;
        if !is_before {
            let failure = failed(station, PeopleError::OtherPassword);
            return Err(refused(station, Refused::OtherPassword, failure));
        }
    } else {
        station.ledger.may_widen()?;
    }
    let hash = station.door.hash(password).await?;
    let (whose, actor) = (if is_own { Whose::Own } else { Whose::Another }, person.actor.clone());
    let kept = (name.clone(), hash.clone());
    let done = station.registry.set_password(name, hash, whose, actor, at).await;
    if let Err(PeopleError::NeedsTwo(_)) = done {
        let (name, hash) = kept;
        return ask(station, Act::SetPassword { name }, Some(hash), &person).await;
    }
    changed(station, done, !is_own, "given a password").await
}

async fn changed(
    station: &Station,
    done: Result<Done<Arc<Known>>, PeopleError>,
    widens: bool,
    act: &str,
) -> Result<Response, Failure> {
    let Done { value, events } = done.map_err(|error| failed(station, error))?;
    tracing::info!(user = %value.name, act, "user changed");
    match widens {
        true => station.ledger.covered(events).await?,
        false => station.ledger.covered_if_soon(events).await,
    }
    Ok(json_answer(&shown_now(station, &value)))
}

pub(crate) async fn tokens(station: &Station, call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?;
    let sees_all = person.reach(Scope::UsersRead).is_everywhere();
    let people = station.registry.people();
    let is_shown = |token: &&Arc<Held>| sees_all || person.user.as_ref() == Some(&token.user);
    let tokens = people.tokens().filter(is_shown).map(|token| shown_token(token)).collect();
    Ok(json_answer(&Tokens { tokens }))
}

fn shown_token(token: &Held) -> Token {
    let list =
        |set: &Option<BTreeSet<String>>| set.as_ref().map(|set| set.iter().cloned().collect());
    Token {
        id: token.id.clone(),
        user: token.user.clone(),
        name: token.name.clone(),
        scopes: token.bounds.scopes.iter().copied().collect(),
        sites: list(&token.bounds.sites),
        groups: list(&token.bounds.groups),
        created_at_ms: token.created_at.as_ms(),
        until_ms: token.until.as_ms(),
        used_at_ms: token.used.last().map(Timestamp::as_ms),
        revoked_at_ms: token.revoked_at.map(Timestamp::as_ms),
    }
}

/// It widens nothing: it can do what its user can already. But what it does has to be told of.
pub(crate) async fn create_token(station: &Station, call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let (Proof::Session(_), Some(user)) = (&person.proof, person.user.clone()) else {
        return Err(failed(station, PeopleError::NotASession));
    };
    let new: NewToken = call.json(BODY_BYTES_MAX).await?;
    let NewToken { name, scopes, sites, groups, days } = new;
    if !(1..=TOKEN_DAYS_MAX).contains(&days) {
        return Err(failed(station, PeopleError::BadDays { found: days }));
    }
    let people = station.registry.people();
    let bounds = people.check_bounds(&person, &scopes, sites.as_ref(), groups.as_ref());
    let bounds = bounds.map_err(|error| failed(station, error))?;
    station.ledger.may_widen()?;
    let (id, drawn) = secret::token();
    let at = now();
    let until = Timestamp(at.as_us() + i64::from(days) * 86_400_000_000);
    let kept = Kept { id: id.clone(), user, name, secret_sha256: drawn.kept, bounds, until };
    let made = station.registry.create_token(kept, person.actor.clone(), at).await;
    let Done { events, .. } = made.map_err(|error| failed(station, error))?;
    station.ledger.covered(events).await?;
    let people = station.registry.people();
    let token = people.token(&id).ok_or_else(|| failed(station, PeopleError::UnknownToken(id)))?;
    let mut answer = json_answer(&MadeToken { token: shown_token(token), secret: drawn.shown });
    *answer.status_mut() = StatusCode::CREATED;
    Ok(answer)
}

/// One's own; with `users.narrow`, anybody's. Another's is not there for who may not.
pub(crate) async fn revoke_token(station: &Station, mut call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let id = call.name().await?;
    let people = station.registry.people();
    let may = people.token(&id).is_some_and(|token| {
        person.user.as_ref() == Some(&token.user)
            || person.reach(Scope::UsersNarrow).is_everywhere()
    });
    if !may {
        let id = id.chars().take(80).collect();
        return Err(failed(station, PeopleError::UnknownToken(id)));
    }
    let done = station.registry.revoke_token(id.clone(), person.actor.clone(), now()).await;
    let Done { events, .. } = done.map_err(|error| failed(station, error))?;
    station.ledger.covered_if_soon(events).await;
    let people = station.registry.people();
    let token = people.token(&id).ok_or_else(|| failed(station, PeopleError::UnknownToken(id)))?;
    Ok(json_answer(&shown_token(token)))
}

pub(crate) async fn sites(station: &Station, call: Call) -> Result<Response, Failure> {
    let (_, reach) = call.person_within(station)?;
    Ok(json_answer(&shown_sites(&station.registry.people(), &call.directory, &reach)))
}

/// With the control plane's own, of which are all zones of the fleet that no other names.
fn shown_sites(people: &People, directory: &Directory, reach: &Reach) -> Sites {
    let mut sites: BTreeMap<&str, BTreeSet<&ZoneId>> = BTreeMap::new();
    sites.insert(people.own_site(), BTreeSet::new());
    for (id, zones) in people.sites() {
        sites.entry(id).or_default().extend(zones);
    }
    for device in directory.devices(None) {
        if people.site_of(&device.zone) == people.own_site() {
            sites.entry(people.own_site()).or_default().insert(&device.zone);
        }
    }
    let shown = sites.into_iter().filter(|(id, _)| reach.covers(id)).map(|(id, zones)| Site {
        id: id.to_owned(),
        zones: zones.into_iter().map(ToString::to_string).collect(),
    });
    Sites { sites: shown.collect() }
}

pub(crate) async fn assign_site(station: &Station, call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let Site { id, zones } = call.json(SITE_BYTES_MAX).await?;
    let zones: BTreeSet<ZoneId> = zones.into_iter().map(ZoneId::new).collect::<Result<_, _>>()?;
    // Whose rights end at a site sees what comes to it.
    station.ledger.may_widen()?;
    let actor = person.actor.clone();
    let done = station.registry.assign_site(id.clone(), zones.clone(), actor, now()).await;
    if let Err(PeopleError::NeedsTwo(_)) = done {
        let zones = zones.iter().map(ToString::to_string).collect();
        return ask(station, Act::AssignSite { id, zones }, None, &person).await;
    }
    let Done { events, .. } = done.map_err(|error| failed(station, error))?;
    station.ledger.covered(events).await?;
    let people = station.registry.people();
    Ok(json_answer(&shown_sites(&people, &call.directory, &Reach::Everywhere)))
}

/// For calls that any person may make about himself, and few about others.
fn expect(person: &Principal, scope: Scope) -> Result<(), Failure> {
    if person.reach(scope).is_everywhere() {
        return Ok(());
    }
    let expected = crate::endpoint::Access::Whole(scope).expected();
    let found = crate::caller::Caller::Person(Arc::new(person.clone())).to_string();
    Err(crate::caller::Denied::OutOfScope { expected, found }.into())
}

pub(crate) fn failed(station: &Station, error: PeopleError) -> Failure {
    match error {
        PeopleError::Registry(error) => station.failed_to_store(error),
        error => error.into(),
    }
}

/// What nobody waits for: until control ends, and once more then.
pub(crate) async fn keep_tidy(station: Arc<Station>, draining: impl Future<Output = ()>) {
    let mut draining = std::pin::pin!(draining);
    loop {
        let is_over = tokio::select! {
            () = tokio::time::sleep(TIDY_EVERY) => false,
            () = draining.as_mut() => true,
        };
        tidy(&station).await;
        if is_over {
            return;
        }
    }
}

pub(crate) async fn tidy(station: &Station) {
    let (at, refused) = (now(), station.door.take_refused());
    if !refused.is_empty() {
        let counts: serde_json::Map<_, _> =
            refused.iter().map(|(why, count)| (why.as_str().to_owned(), json!(count))).collect();
        if let Err(error) = station.registry.tell_refused(counts.into(), at).await {
            tracing::warn!(error = %told(&error), "refused sign-ins are in no event");
        }
    }
    tidy_approvals(station).await;
    let idle = station.limits.session_idle;
    match station.registry.tidy_people(idle, at).await {
        Err(PeopleError::Registry(RegistryError::Closed)) | Ok(()) => {}
        Err(error) => {
            tracing::warn!(error = %told(&error), "when who was here is not written down")
        }
    }
}
