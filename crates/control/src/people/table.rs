//! People on disk, and the changes of them: each one step of the registry, with the event that tells of it.
//!
//! ```text
//! users       name → password (PHC), disabled, created_at, signed_in_at
//! grants      user, role, site                                         site '': every one
//! tokens      id → user, name, secret_sha256, scopes, sites, device_groups, created_at, until, used_at, revoked_at
//! sessions    sha256 of the cookie → user, begun_at, until, used_at
//! sites       id;  site_zones  zone → site
//! ```
//!
//! Lists are JSON. `used_at` is written behind, once a minute, and without an event.

use super::secret::Hash;
use super::{
    People, PeopleError, SESSIONS_MAX, SITES_MAX, Session, TOKENS_ALL_MAX, TOKENS_MAX, Token,
    USERS_MAX, Used, User, ZONES_MAX, check_name,
};
use crate::approvals::table::load_two_people;
use crate::principal::{Actor, Bounds};
use crate::registry::{Done, Registry, RegistryError, Step, Work, said};
use api::approval::Widening;
use api::user::Grant;
use api::{Scope, UserRole};
use model::{Digest, Timestamp, ZoneId};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Refusals in the schema stand behind those in code: what gets here past the code is a broken invariant, counted as one.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS users (
    name TEXT PRIMARY KEY,
    password TEXT NOT NULL,
    disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    created_at INTEGER NOT NULL,
    signed_in_at INTEGER
) STRICT;
CREATE TRIGGER IF NOT EXISTS users_do_not_go BEFORE DELETE ON users
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: users do not go'); END;

CREATE TABLE IF NOT EXISTS grants (
    user TEXT NOT NULL REFERENCES users (name),
    role TEXT NOT NULL,
    site TEXT NOT NULL,
    PRIMARY KEY (user, role, site)
) STRICT;

CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES users (name),
    name TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    sites TEXT,
    device_groups TEXT,
    created_at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    used_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE TRIGGER IF NOT EXISTS a_revoked_token_stays_revoked BEFORE UPDATE OF revoked_at ON tokens
WHEN OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NOT OLD.revoked_at
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: a revoked token stays revoked'); END;
CREATE TRIGGER IF NOT EXISTS a_token_is_what_it_was_made BEFORE UPDATE ON tokens
WHEN NEW.user <> OLD.user OR NEW.secret_sha256 <> OLD.secret_sha256 OR NEW.scopes <> OLD.scopes
    OR NEW.sites IS NOT OLD.sites OR NEW.device_groups IS NOT OLD.device_groups OR NEW.until <> OLD.until
BEGIN SELECT RAISE(ABORT, 'INV-LEAST-1: a token is what it was made'); END;
CREATE TRIGGER IF NOT EXISTS a_disabled_user_gets_no_token BEFORE INSERT ON tokens
WHEN (SELECT disabled FROM users WHERE name = NEW.user) = 1
BEGIN SELECT RAISE(ABORT, 'INV-AUTH-1: a disabled user gets no token'); END;

CREATE TABLE IF NOT EXISTS sessions (
    sha256 TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES users (name),
    begun_at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    used_at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS a_disabled_user_begins_no_session BEFORE INSERT ON sessions
WHEN (SELECT disabled FROM users WHERE name = NEW.user) = 1
BEGIN SELECT RAISE(ABORT, 'INV-AUTH-1: a disabled user begins no session'); END;
CREATE TRIGGER IF NOT EXISTS a_disabled_user_has_no_session AFTER UPDATE OF disabled ON users
WHEN NEW.disabled = 1 AND EXISTS (SELECT 1 FROM sessions WHERE user = NEW.name)
BEGIN SELECT RAISE(ABORT, 'INV-AUTH-1: a disabled user has no session'); END;

CREATE TABLE IF NOT EXISTS sites (id TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS site_zones (
    zone TEXT PRIMARY KEY,
    site TEXT NOT NULL REFERENCES sites (id)
) STRICT;
";

/// What a change of people comes to, with the people as they are then.
pub type Changed<T> = Result<Done<T>, PeopleError>;

/// A token to be.
#[derive(Debug)]
pub struct NewToken {
    pub id: String,
    pub user: String,
    pub name: String,
    pub secret_sha256: Digest,
    pub bounds: Bounds,
    pub until: Timestamp,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    SignedOut,
    /// Nobody used it, or its whole time is over.
    Over,
    /// Its user began so many others.
    Crowded,
    Disabled,
    OtherPassword,
    /// Somebody ended all of the user's.
    Ended,
}

impl End {
    const fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::Over => "over",
            Self::Crowded => "crowded",
            Self::Disabled => "disabled",
            Self::OtherPassword => "other_password",
            Self::Ended => "ended",
        }
    }
}

/// Whose password somebody sets: whoever knows another's can act as him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Own,
    Another,
}

impl Registry {
    pub async fn create_user(
        &self,
        name: String,
        password: Hash,
        grants: Vec<Grant>,
        actor: Actor,
        now: Timestamp,
    ) -> Changed<Arc<User>> {
        self.people_step(move |step| {
            Box::pin(async move { create_user(step, &name, password, &grants, &actor, now).await })
        })
        .await
    }

    pub async fn grant(
        &self,
        name: String,
        grants: Vec<Grant>,
        actor: Actor,
        now: Timestamp,
    ) -> Changed<Arc<User>> {
        let refused = (name.clone(), actor.clone());
        let done = self.people_step(move |step| {
            Box::pin(async move { grant(step, &name, &grants, &actor, now).await })
        });
        self.or_refused(done.await, "grant", refused, now).await
    }

    /// Its sessions end and its tokens are revoked, in the same step. To be disabled already changes nothing.
    pub async fn disable_user(
        &self,
        name: String,
        actor: Actor,
        now: Timestamp,
    ) -> Changed<Arc<User>> {
        let refused = (name.clone(), actor.clone());
        let done = self.people_step(move |step| {
            Box::pin(async move {
                let known = user(step, &name)?;
                if known.disabled {
                    return Ok(known);
                }
                let next = User { disabled: true, ..User::clone(&known) };
                step.people.check_administrators(&next)?;
                end_all(step, &name, End::Disabled, &actor, now).await?;
                revoke_all(step, &name, &actor, now).await?;
                step.say(said(now, &actor, "user.disable", subject(&name), json!({}))).await?;
                put_user(step, next).await
            })
        });
        self.or_refused(done.await, "disable", refused, now).await
    }

    pub async fn enable_user(
        &self,
        name: String,
        actor: Actor,
        now: Timestamp,
    ) -> Changed<Arc<User>> {
        self.people_step(move |step| {
            Box::pin(async move { enable_user(step, &name, &actor, now).await })
        })
        .await
    }

    /// Whoever set it knows the one password that counts: all that was opened with another ends.
    pub async fn set_password(
        &self,
        name: String,
        password: Hash,
        whose: Whose,
        actor: Actor,
        now: Timestamp,
    ) -> Changed<Arc<User>> {
        self.people_step(move |step| {
            Box::pin(async move { set_password(step, &name, password, whose, &actor, now).await })
        })
        .await
    }

    /// A session for whoever has shown this very hash's password.
    pub async fn begin_session(
        &self,
        name: String,
        shown: Hash,
        cookie: Digest,
        life: Duration,
        now: Timestamp,
    ) -> Changed<Arc<User>> {
        self.people_step(move |step| {
            Box::pin(async move {
                let known = user(step, &name)?;
                if known.disabled || known.password != shown {
                    return Err(PeopleError::Overtaken);
                }
                let actor: Actor = subject(&name).into();
                while step.people.sessions_of(&name).count() >= SESSIONS_MAX {
                    let used = |session: &Session| session.used.last().unwrap_or(session.begun_at);
                    let oldest = step.people.sessions_of(&name).min_by_key(|(_, s)| used(s));
                    let oldest = *oldest.expect("there are as many as may be").0;
                    end(step, &oldest, End::Crowded, &actor, now).await?;
                }
                let until = later(now, life);
                let session =
                    Session { user: name.clone(), begun_at: now, until, used: Used::at(now) };
                sqlx::query("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)")
                    .bind(cookie.to_string())
                    .bind(&name)
                    .bind(now.as_us())
                    .bind(until.as_us())
                    .bind(now.as_us())
                    .execute(step.tx())
                    .await
                    .map_err(RegistryError::Write)?;
                Arc::make_mut(&mut step.people).put_session(cookie, session);
                let detail = json!({ "until_ms": until.as_ms() });
                step.say(said(now, &actor, "session.begin", subject(&name), detail)).await?;
                put_user(step, User { signed_in_at: Some(now), ..User::clone(&known) }).await
            })
        })
        .await
    }

    /// To be over already changes nothing.
    pub async fn end_session(
        &self,
        cookie: Digest,
        why: End,
        actor: Actor,
        now: Timestamp,
    ) -> Changed<()> {
        self.people_step(move |step| {
            Box::pin(async move { end(step, &cookie, why, &actor, now).await })
        })
        .await
    }

    /// All of a user's. Says how many there were.
    pub async fn end_sessions(&self, name: String, actor: Actor, now: Timestamp) -> Changed<usize> {
        self.people_step(move |step| {
            Box::pin(async move {
                user(step, &name)?;
                end_all(step, &name, End::Ended, &actor, now).await
            })
        })
        .await
    }

    pub async fn create_token(&self, new: NewToken, actor: Actor, now: Timestamp) -> Changed<()> {
        self.people_step(move |step| {
            Box::pin(async move { create_token(step, new, &actor, now).await })
        })
        .await
    }

    /// To be revoked already changes nothing.
    pub async fn revoke_token(&self, id: String, actor: Actor, now: Timestamp) -> Changed<()> {
        self.people_step(move |step| {
            Box::pin(async move {
                let token = step.people.token(&id).cloned();
                let token = token.ok_or_else(|| PeopleError::UnknownToken(id.clone()))?;
                match token.revoked_at {
                    Some(_) => Ok(()),
                    None => revoke(step, &token, &actor, now).await,
                }
            })
        })
        .await
    }

    /// Exactly these zones are of this site from now on. To be so already changes nothing.
    pub async fn assign_site(
        &self,
        id: String,
        zones: BTreeSet<ZoneId>,
        actor: Actor,
        now: Timestamp,
    ) -> Changed<()> {
        self.people_step(move |step| {
            Box::pin(async move { assign_site(step, &id, zones, &actor, now).await })
        })
        .await
    }

    /// Tells, once, of those who were refused at the door.
    pub(crate) async fn tell_refused(
        &self,
        refused: Value,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let step = self.step(move |step| -> Work<'_, (), RegistryError> {
            Box::pin(async move {
                step.say(said(now, "control", "session.refused", "site", refused)).await.map(drop)
            })
        });
        step.await.map(|done| done.value)
    }

    /// Writes down what was used when, and ends what nobody used. Most minutes there is something, and a transaction for it.
    pub(crate) async fn tidy_people(
        &self,
        idle: Duration,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        let people = self.people();
        let sessions = people.sessions();
        let (over, open): (Vec<_>, Vec<_>) =
            sessions.partition(|(_, session)| session.is_over(now, idle));
        let over: Vec<Digest> = over.into_iter().map(|(cookie, _)| *cookie).collect();
        let used: Vec<_> = open
            .into_iter()
            .filter_map(|(cookie, session)| Some((*cookie, session.used.not_kept()?)))
            .collect();
        let tokens = people.tokens();
        let tokens: Vec<_> =
            tokens.filter_map(|token| Some((token.id.clone(), token.used.not_kept()?))).collect();
        if over.is_empty() && used.is_empty() && tokens.is_empty() {
            return Ok(());
        }
        let written = (used.clone(), tokens.clone());
        self.people_step(move |step| {
            Box::pin(async move {
                for cookie in &over {
                    end(step, cookie, End::Over, &"control".into(), now).await?;
                }
                for (cookie, at) in &written.0 {
                    let sql = "UPDATE sessions SET used_at = ? WHERE sha256 = ?";
                    let query = sqlx::query(sql).bind(at.as_us()).bind(cookie.to_string());
                    query.execute(step.tx()).await.map_err(RegistryError::Write)?;
                }
                for (id, at) in &written.1 {
                    let sql = "UPDATE tokens SET used_at = ? WHERE id = ?";
                    let query = sqlx::query(sql).bind(at.as_us()).bind(id);
                    query.execute(step.tx()).await.map_err(RegistryError::Write)?;
                }
                Ok(())
            })
        })
        .await?;
        let people = self.people();
        for (cookie, at) in used {
            people.session(&cookie).inspect(|session| session.used.kept(at));
        }
        for (id, at) in tokens {
            people.token(&id).inspect(|token| token.used.kept(at));
        }
        Ok(())
    }

    async fn people_step<T: Send + 'static>(
        &self,
        work: impl for<'a> FnOnce(&'a mut Step<'_>) -> Work<'a, T, PeopleError> + Send + 'static,
    ) -> Changed<T> {
        self.step(work).await
    }

    /// A move that is refused is an event too (INV-STATE-1).
    async fn or_refused<T>(
        &self,
        done: Changed<T>,
        asked: &'static str,
        (name, actor): (String, Actor),
        now: Timestamp,
    ) -> Changed<T> {
        let Err(PeopleError::LastAdministrator(_)) = &done else { return done };
        self.people_step(move |step| {
            Box::pin(async move {
                let detail = json!({ "asked": asked, "why": "last_administrator" });
                step.say(said(now, &actor, "user.refused", subject(&name), detail)).await?;
                Ok(())
            })
        })
        .await?;
        done
    }
}

pub(crate) async fn create_user(
    step: &mut Step<'_>,
    name: &str,
    password: Hash,
    grants: &[Grant],
    actor: &Actor,
    now: Timestamp,
) -> Result<Arc<User>, PeopleError> {
    check_name("user name", name)?;
    if step.people.user(name).is_some() {
        return Err(PeopleError::UserTaken(name.to_owned()));
    }
    if step.people.users().count() >= USERS_MAX {
        return Err(PeopleError::TooMany { what: "users", max: USERS_MAX });
    }
    let grants = step.people.check_grants(grants)?;
    step.expect_two(Widening::GrantRoles)?;
    let detail = json!({ "grants": told(&grants) });
    step.say(said(now, actor, "user.create", subject(name), detail)).await?;
    let next = User {
        name: name.to_owned(),
        password,
        grants,
        disabled: false,
        created_at: now,
        signed_in_at: None,
    };
    put_user(step, next).await
}

pub(crate) async fn grant(
    step: &mut Step<'_>,
    name: &str,
    grants: &[Grant],
    actor: &Actor,
    now: Timestamp,
) -> Result<Arc<User>, PeopleError> {
    let known = user(step, name)?;
    let grants = step.people.check_grants(grants)?;
    if known.grants == grants {
        return Ok(known);
    }
    let detail = json!({ "from": told(&known.grants), "to": told(&grants) });
    let next = User { grants, ..User::clone(&known) };
    step.people.check_administrators(&next)?;
    if known.is_widened_by(&next.grants) {
        step.expect_two(Widening::GrantRoles)?;
    }
    step.say(said(now, actor, "user.grant", subject(name), detail)).await?;
    put_user(step, next).await
}

pub(crate) async fn enable_user(
    step: &mut Step<'_>,
    name: &str,
    actor: &Actor,
    now: Timestamp,
) -> Result<Arc<User>, PeopleError> {
    let known = user(step, name)?;
    if !known.disabled {
        return Ok(known);
    }
    step.expect_two(Widening::GrantRoles)?;
    step.say(said(now, actor, "user.enable", subject(name), json!({}))).await?;
    put_user(step, User { disabled: false, ..User::clone(&known) }).await
}

pub(crate) async fn set_password(
    step: &mut Step<'_>,
    name: &str,
    password: Hash,
    whose: Whose,
    actor: &Actor,
    now: Timestamp,
) -> Result<Arc<User>, PeopleError> {
    let known = user(step, name)?;
    if whose == Whose::Another {
        step.expect_two(Widening::GrantRoles)?;
    }
    end_all(step, name, End::OtherPassword, actor, now).await?;
    revoke_all(step, name, actor, now).await?;
    step.say(said(now, actor, "user.password", subject(name), json!({}))).await?;
    put_user(step, User { password, ..User::clone(&known) }).await
}

async fn create_token(
    step: &mut Step<'_>,
    new: NewToken,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), PeopleError> {
    check_name("token name", &new.name)?;
    let known = user(step, &new.user)?;
    if known.disabled {
        return Err(PeopleError::Disabled(new.user));
    }
    let of_user: Vec<_> = step.people.tokens_of(&new.user).cloned().collect();
    if of_user.iter().any(|token| token.name == new.name && token.is_live(now)) {
        return Err(PeopleError::TokenTaken { user: new.user, name: new.name });
    }
    if of_user.len() < TOKENS_MAX && step.people.tokens().count() >= TOKENS_ALL_MAX {
        return Err(PeopleError::TooMany { what: "tokens of all users", max: TOKENS_ALL_MAX });
    }
    if of_user.len() >= TOKENS_MAX {
        let dead = of_user.iter().filter(|token| !token.is_live(now));
        let oldest = dead.min_by_key(|token| token.created_at);
        let oldest = oldest
            .ok_or(PeopleError::TooMany { what: "live tokens of a user", max: TOKENS_MAX })?;
        let gone = sqlx::query("DELETE FROM tokens WHERE id = ?").bind(&oldest.id);
        gone.execute(step.tx()).await.map_err(RegistryError::Write)?;
        Arc::make_mut(&mut step.people).drop_token(&oldest.id);
    }
    let NewToken { id, user, name, secret_sha256, bounds, until } = new;
    let text = |list: Option<&BTreeSet<String>>| list.map(|list| json!(list).to_string());
    sqlx::query("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)")
        .bind(&id)
        .bind(&user)
        .bind(&name)
        .bind(secret_sha256.to_string())
        .bind(json!(bounds.scopes).to_string())
        .bind(text(bounds.sites.as_ref()))
        .bind(text(bounds.groups.as_ref()))
        .bind(now.as_us())
        .bind(until.as_us())
        .execute(step.tx())
        .await
        .map_err(RegistryError::Write)?;
    let detail = json!({
        "id": id, "scopes": bounds.scopes, "sites": bounds.sites, "groups": bounds.groups, "until_ms": until.as_ms(),
    });
    let token = Token {
        id,
        user,
        name,
        secret_sha256,
        bounds,
        created_at: now,
        until,
        revoked_at: None,
        used: Used::default(),
    };
    step.say(said(now, actor, "token.create", token.actor(), detail)).await?;
    Arc::make_mut(&mut step.people).put_token(token);
    Ok(())
}

pub(crate) async fn assign_site(
    step: &mut Step<'_>,
    id: &str,
    zones: BTreeSet<ZoneId>,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), PeopleError> {
    check_name("site", id)?;
    let sites = step.people.sites();
    let (mut known, mut others, mut count) = (None, 0, 0);
    for (site, of_site) in sites {
        count += 1;
        match site == id {
            true => known = Some(of_site.clone()),
            false => others += of_site.difference(&zones).count(),
        }
    }
    if known.is_none() && count >= SITES_MAX {
        return Err(PeopleError::TooMany { what: "sites", max: SITES_MAX });
    }
    if others + zones.len() > ZONES_MAX {
        return Err(PeopleError::TooMany { what: "zones of sites", max: ZONES_MAX });
    }
    if known.as_ref() == Some(&zones) {
        return Ok(());
    }
    step.expect_two(Widening::GrantRoles)?;
    let run = |sql: &'static str| sqlx::query(sql).bind(id.to_owned());
    let write = RegistryError::Write;
    run("INSERT INTO sites VALUES (?) ON CONFLICT DO NOTHING")
        .execute(step.tx())
        .await
        .map_err(write)?;
    run("DELETE FROM site_zones WHERE site = ?").execute(step.tx()).await.map_err(write)?;
    for zone in &zones {
        let sql = "INSERT INTO site_zones VALUES (?, ?)
                   ON CONFLICT (zone) DO UPDATE SET site = excluded.site";
        let query = sqlx::query(sql).bind(zone.as_str()).bind(id);
        query.execute(step.tx()).await.map_err(write)?;
    }
    // A site may have more zones than an event has room for.
    let names: Vec<&str> = zones.iter().map(ZoneId::as_str).collect();
    let mut detail = json!({
        "zones": names.len(), "zones_sha256": trust::digest(names.join("\n").as_bytes()).to_string(),
    });
    if names.len() <= NAMED_MAX {
        detail["names"] = json!(names);
    }
    step.say(said(now, actor, "site.assign", format!("site/{id}"), detail)).await?;
    Arc::make_mut(&mut step.people).put_site(id, zones);
    Ok(())
}

/// Zones that an event names; of more it has the number and the digest.
const NAMED_MAX: usize = 64;

fn subject(user: &str) -> String {
    format!("user/{user}")
}

fn told(grants: &BTreeSet<Grant>) -> Value {
    // 64 grants of the longest names would be too much for an event: they are written short.
    let word = |grant: &Grant| match &grant.site {
        Some(site) => format!("{}@{site}", grant.role),
        None => grant.role.to_string(),
    };
    grants.iter().map(word).collect()
}

fn later(now: Timestamp, life: Duration) -> Timestamp {
    let life_us = i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
    Timestamp(now.as_us().saturating_add(life_us))
}

fn user(step: &Step<'_>, name: &str) -> Result<Arc<User>, PeopleError> {
    let known = step.people.user(name).cloned();
    known.ok_or_else(|| PeopleError::UnknownUser(name.chars().take(80).collect()))
}

async fn put_user(step: &mut Step<'_>, next: User) -> Result<Arc<User>, PeopleError> {
    let write = RegistryError::Write;
    sqlx::query(
        "INSERT INTO users VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
         password = excluded.password, disabled = excluded.disabled, signed_in_at = excluded.signed_in_at",
    )
    .bind(&next.name)
    .bind(next.password.as_str())
    .bind(i64::from(next.disabled))
    .bind(next.created_at.as_us())
    .bind(next.signed_in_at.map(Timestamp::as_us))
    .execute(step.tx())
    .await
    .map_err(write)?;
    let before = step.people.user(&next.name).map(|before| before.grants.clone());
    if before.as_ref() != Some(&next.grants) {
        let gone = sqlx::query("DELETE FROM grants WHERE user = ?").bind(&next.name);
        gone.execute(step.tx()).await.map_err(write)?;
        for grant in &next.grants {
            let row = sqlx::query("INSERT INTO grants VALUES (?, ?, ?)")
                .bind(&next.name)
                .bind(grant.role.as_str())
                .bind(grant.site.as_deref().unwrap_or(""));
            row.execute(step.tx()).await.map_err(write)?;
        }
    }
    let name = next.name.clone();
    Arc::make_mut(&mut step.people).put_user(next);
    Ok(step.people.user(&name).expect("it was put there").clone())
}

async fn end(
    step: &mut Step<'_>,
    cookie: &Digest,
    why: End,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), PeopleError> {
    let known = step.people.session(cookie).map(|session| session.user.clone());
    let Some(user) = known else { return Ok(()) };
    let gone = sqlx::query("DELETE FROM sessions WHERE sha256 = ?").bind(cookie.to_string());
    gone.execute(step.tx()).await.map_err(RegistryError::Write)?;
    Arc::make_mut(&mut step.people).drop_session(cookie);
    let detail = json!({ "why": why.as_str() });
    step.say(said(now, actor, "session.end", subject(&user), detail)).await?;
    Ok(())
}

async fn end_all(
    step: &mut Step<'_>,
    name: &str,
    why: End,
    actor: &Actor,
    now: Timestamp,
) -> Result<usize, PeopleError> {
    let open: Vec<Digest> = step.people.sessions_of(name).map(|(cookie, _)| *cookie).collect();
    for cookie in &open {
        end(step, cookie, why, actor, now).await?;
    }
    Ok(open.len())
}

async fn revoke(
    step: &mut Step<'_>,
    token: &Token,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), PeopleError> {
    let sql = "UPDATE tokens SET revoked_at = ? WHERE id = ?";
    let query = sqlx::query(sql).bind(now.as_us()).bind(&token.id);
    query.execute(step.tx()).await.map_err(RegistryError::Write)?;
    let detail = json!({ "id": token.id });
    step.say(said(now, actor, "token.revoke", token.actor(), detail)).await?;
    Arc::make_mut(&mut step.people).put_token(token.revoked(now));
    Ok(())
}

async fn revoke_all(
    step: &mut Step<'_>,
    name: &str,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), PeopleError> {
    let live = step.people.tokens_of(name).filter(|token| token.revoked_at.is_none());
    let live: Vec<_> = live.cloned().collect();
    for token in live {
        revoke(step, &token, actor, now).await?;
    }
    Ok(())
}

/// All of it, as the file has it.
pub(crate) async fn load(
    connection: &mut SqliteConnection,
    own: &str,
) -> Result<People, RegistryError> {
    let mut people = People::new(own);
    let read = RegistryError::Read;
    let all = async |connection: &mut SqliteConnection, sql: &'static str| {
        sqlx::query(sql).fetch_all(connection).await.map_err(read)
    };
    let mut grants: std::collections::HashMap<String, BTreeSet<Grant>> = Default::default();
    for row in all(connection, "SELECT * FROM grants").await? {
        let site: String = get(&row, "site")?;
        let grant = Grant {
            role: word(&row, "role", UserRole::from_word)?,
            site: Some(site).filter(|site| !site.is_empty()),
        };
        grants.entry(get(&row, "user")?).or_default().insert(grant);
    }
    for row in all(connection, "SELECT * FROM users").await? {
        let name: String = get(&row, "name")?;
        people.put_user(User {
            grants: grants.remove(&name).unwrap_or_default(),
            name,
            password: word(&row, "password", Hash::read)
                .map_err(|_| RegistryError::Unreadable("a password that is no hash".into()))?,
            disabled: get::<i64>(&row, "disabled")? != 0,
            created_at: Timestamp(get(&row, "created_at")?),
            signed_in_at: get::<Option<i64>>(&row, "signed_in_at")?.map(Timestamp),
        });
    }
    for row in all(connection, "SELECT * FROM tokens").await? {
        people.put_token(token_of(&row)?);
    }
    for row in all(connection, "SELECT * FROM sessions").await? {
        let session = Session {
            user: get(&row, "user")?,
            begun_at: Timestamp(get(&row, "begun_at")?),
            until: Timestamp(get(&row, "until")?),
            used: Used::at(Timestamp(get(&row, "used_at")?)),
        };
        people.put_session(word(&row, "sha256", Digest::from_hex)?, session);
    }
    let mut sites: std::collections::BTreeMap<String, BTreeSet<ZoneId>> = Default::default();
    for row in all(connection, "SELECT * FROM sites").await? {
        sites.insert(get(&row, "id")?, BTreeSet::new());
    }
    for row in all(connection, "SELECT * FROM site_zones").await? {
        let zone = word(&row, "zone", |word| ZoneId::new(word).ok())?;
        sites.entry(get(&row, "site")?).or_default().insert(zone);
    }
    for (id, zones) in sites {
        people.put_site(&id, zones);
    }
    people.put_two_people(load_two_people(connection).await?);
    Ok(people)
}

fn token_of(row: &SqliteRow) -> Result<Token, RegistryError> {
    let list = |column| {
        let text: Option<String> = get(row, column)?;
        let read = text.map(|text| serde_json::from_str(&text)).transpose();
        read.map_err(|_| RegistryError::Unreadable(format!("a token's {column}")))
    };
    let scopes: BTreeSet<Scope> = word(row, "scopes", |text| serde_json::from_str(text).ok())?;
    Ok(Token {
        id: get(row, "id")?,
        user: get(row, "user")?,
        name: get(row, "name")?,
        secret_sha256: word(row, "secret_sha256", Digest::from_hex)?,
        bounds: Bounds { scopes, sites: list("sites")?, groups: list("device_groups")? },
        created_at: Timestamp(get(row, "created_at")?),
        until: Timestamp(get(row, "until")?),
        revoked_at: get::<Option<i64>>(row, "revoked_at")?.map(Timestamp),
        used: get::<Option<i64>>(row, "used_at")?
            .map(|at| Used::at(Timestamp(at)))
            .unwrap_or_default(),
    })
}

fn get<'r, T>(row: &'r SqliteRow, column: &'static str) -> Result<T, RegistryError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(RegistryError::Read)
}

fn word<T>(
    row: &SqliteRow,
    column: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, RegistryError> {
    let found: String = get(row, column)?;
    read(&found).ok_or_else(|| RegistryError::Unreadable(format!("{column} {found:?}")))
}
