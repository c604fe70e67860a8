//! People and programs of the operator: who they are, what each may do where, and which of their proofs counts now.
//!
//! A [`People`] never changes. The registry writes first and then shows the next one, as it does with the fleet's
//! [`crate::directory::Directory`]: a call asks it who calls, without SQL, and what it says is always what the file holds. The
//! one thing that moves within it is when a session or token was used last, which no decision but idleness rests on.
//!
//! ```text
//! user      enabled ⇄ disabled                 never deleted; to be disabled ends its sessions and revokes its tokens
//! session   begun → ended                      by its user, by its idle or whole time, with its user
//! token     live → revoked                     and over when its time is; it is never more than it was made
//! ```
//!
//! Whoever holds something open for a principal (a stream, a long poll) watches [`crate::Registry::watch_people`] and asks
//! [`People::is_valid`] after each change, and at [`Principal::until_ms`]: what is no longer so ends at once.
//!
//! Promises: an ended session, a revoked token and a disabled user are refused at the next call (INV-AUTH-1); nobody can take
//! the last administrator away; a token holds no scope, site or group that its user does not (INV-LEAST-1).
//! Never: keeps a password, a cookie or a token's secret; digests only.

pub(crate) mod backoff;
pub(crate) mod call;
pub(crate) mod door;
pub(crate) mod secret;
pub(crate) mod table;

use crate::caller::Denied;
use crate::principal::{Bounds, Principal, Proof, Reach};
use api::approval::Widening;
use api::user::{Grant, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, TOKEN_DAYS_MAX};
use api::{Scope, UserRole};
use model::{Digest, Timestamp, ZoneId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// Everybody's names and rights are in memory, some 200 bytes each.
pub const USERS_MAX: usize = 10_000;
/// Roles times sites of one person.
pub const GRANTS_MAX: usize = 64;
/// Of one user. One more ends the one that was used longest ago.
pub const SESSIONS_MAX: usize = 16;
/// Of one user, ended ones too: those make room, the oldest first.
pub const TOKENS_MAX: usize = 64;
/// Of all users together.
pub const TOKENS_ALL_MAX: usize = 10_000;
pub const SITES_MAX: usize = 1000;
pub const ZONES_MAX: usize = 10_000;
/// Sites or groups that one token names.
const BOUNDS_MAX: usize = 64;
pub const NAME_CHARS_MAX: usize = 64;

/// Who may sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// In the PHC string format: with its salt and what it cost.
    pub password: secret::Hash,
    pub grants: BTreeSet<Grant>,
    pub disabled: bool,
    pub created_at: Timestamp,
    pub signed_in_at: Option<Timestamp>,
}

/// What a program shows.
#[derive(Debug)]
pub struct Token {
    pub id: String,
    pub user: String,
    pub name: String,
    pub secret_sha256: Digest,
    pub bounds: Bounds,
    pub created_at: Timestamp,
    pub until: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub used: Used,
}

/// A browser that signed in. Its cookie's digest is its name.
#[derive(Debug)]
pub struct Session {
    pub user: String,
    pub begun_at: Timestamp,
    /// The latest that it can last, however much it is used.
    pub until: Timestamp,
    pub used: Used,
}

/// When something was used last, in memory and on disk; 0: never. The file follows within a minute.
#[derive(Debug, Default)]
pub struct Used {
    at_us: AtomicI64,
    kept_us: AtomicI64,
}

impl Used {
    pub fn at(at: Timestamp) -> Self {
        Self { at_us: AtomicI64::new(at.as_us()), kept_us: AtomicI64::new(at.as_us()) }
    }

    pub fn last(&self) -> Option<Timestamp> {
        Some(Timestamp(self.at_us.load(Ordering::Relaxed))).filter(|at| at.as_us() > 0)
    }

    fn touch(&self, now: Timestamp) {
        self.at_us.fetch_max(now.as_us(), Ordering::Relaxed);
    }

    /// What the file does not have yet.
    pub(crate) fn not_kept(&self) -> Option<Timestamp> {
        let at = self.at_us.load(Ordering::Relaxed);
        (at > self.kept_us.load(Ordering::Relaxed)).then_some(Timestamp(at))
    }

    pub(crate) fn kept(&self, at: Timestamp) {
        self.kept_us.fetch_max(at.as_us(), Ordering::Relaxed);
    }
}

/// Why something about people is refused.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error(
        "bad {what}: expected 1 to {NAME_CHARS_MAX} of a-z 0-9 . - _ starting with a letter or digit, found {found:?}"
    )]
    BadName { what: &'static str, found: String },
    #[error(
        "expected a password of at least {PASSWORD_CHARS_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes, found \
         {chars} characters in {bytes} bytes"
    )]
    BadPassword { chars: usize, bytes: usize },
    #[error("expected the user's password before this one, found another or none")]
    OtherPassword,
    #[error("no user `{0}`")]
    UnknownUser(String),
    #[error("no token `{0}`")]
    UnknownToken(String),
    #[error("no site `{0}`: expected one of GET /v1/sites")]
    UnknownSite(String),
    #[error("user `{0}` is there already")]
    UserTaken(String),
    #[error("user `{user}` has a live token `{name}` already")]
    TokenTaken { user: String, name: String },
    #[error("`{0}` is the last enabled administrator of every site: make another one first")]
    LastAdministrator(String),
    #[error("expected at most {max} {what}, found more")]
    TooMany { what: &'static str, max: usize },
    #[error(
        "a token can do no more than its user: expected scopes that `{user}` holds, found {scope}"
    )]
    BeyondUser { user: String, scope: Scope },
    #[error("expected at least one scope")]
    NoScope,
    #[error("expected 1 to {TOKEN_DAYS_MAX} days, found {found}")]
    BadDays { found: u32 },
    #[error("expected a session, found a token: only a person makes tokens")]
    NotASession,
    #[error("user `{0}` is disabled")]
    Disabled(String),
    #[error("what was decided rests on a state that is over: ask again")]
    Overtaken,
    #[error(transparent)]
    NeedsTwo(#[from] crate::approvals::NeedsTwo),
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryError),
}

/// Users, tokens, sessions and sites, as the file holds them.
#[derive(Clone, Debug, Default)]
pub struct People {
    /// The control plane's own site: of it is each zone that no other names.
    own: String,
    users: BTreeMap<String, Arc<User>>,
    tokens: BTreeMap<String, Arc<Token>>,
    sessions: HashMap<Digest, Arc<Session>>,
    sites: BTreeMap<String, BTreeSet<ZoneId>>,
    by_zone: HashMap<ZoneId, String>,
    two_people: BTreeSet<Widening>,
}

impl People {
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), ..Self::default() }
    }

    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// Sorted by name.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    pub fn token(&self, id: &str) -> Option<&Arc<Token>> {
        self.tokens.get(id)
    }

    pub fn tokens(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.tokens.values()
    }

    pub fn tokens_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a Arc<Token>> {
        self.tokens.values().filter(move |token| token.user == user)
    }

    pub fn session(&self, cookie: &Digest) -> Option<&Arc<Session>> {
        self.sessions.get(cookie)
    }

    pub fn sessions(&self) -> impl Iterator<Item = (&Digest, &Arc<Session>)> {
        self.sessions.iter()
    }

    pub fn sessions_of<'a>(
        &'a self,
        user: &'a str,
    ) -> impl Iterator<Item = (&'a Digest, &'a Arc<Session>)> {
        self.sessions.iter().filter(move |(_, session)| session.user == user)
    }

    /// Sites that were made, with their zones; not the control plane's own.
    pub fn sites(&self) -> impl Iterator<Item = (&str, &BTreeSet<ZoneId>)> {
        self.sites.iter().map(|(id, zones)| (id.as_str(), zones))
    }

    pub fn own_site(&self) -> &str {
        &self.own
    }

    pub fn site_of(&self, zone: &ZoneId) -> &str {
        self.by_zone.get(zone).map_or(self.own.as_str(), String::as_str)
    }

    /// Whether work that reaches so far may show or touch what is in this zone.
    pub fn reaches(&self, reach: &Reach, zone: &ZoneId) -> bool {
        reach.covers(self.site_of(zone))
    }

    /// The zones of a reach, for who cannot ask for each: those that sites name, and those of the fleet. `None`: all, also those
    /// that come later.
    pub fn zones<'a>(
        &self,
        reach: &Reach,
        fleet: impl Iterator<Item = &'a ZoneId>,
    ) -> Option<BTreeSet<ZoneId>> {
        if reach.is_everywhere() {
            return None;
        }
        let is_reached = |zone: &&ZoneId| self.reaches(reach, zone);
        let mut zones: BTreeSet<ZoneId> = self.by_zone.keys().filter(is_reached).cloned().collect();
        zones.extend(fleet.filter(is_reached).cloned());
        Some(zones)
    }

    pub fn has_site(&self, id: &str) -> bool {
        id == self.own || self.sites.contains_key(id)
    }

    /// What needs two people.
    pub fn two_people(&self) -> &BTreeSet<Widening> {
        &self.two_people
    }

    pub fn needs_two(&self, what: Widening) -> bool {
        self.two_people.contains(&what)
    }

    /// Who shows the cookie with this digest.
    pub fn by_session(
        &self,
        cookie: &Digest,
        now: Timestamp,
        idle: Duration,
    ) -> Result<Principal, Denied> {
        let session = self.live_session(cookie, now, idle).ok_or(Denied::SessionEnded)?;
        let user = self.users.get(&session.user).filter(|user| !user.disabled);
        let user = user.ok_or(Denied::SessionEnded)?;
        session.used.touch(now);
        Ok(Principal {
            actor: format!("user/{}", user.name).into(),
            user: Some(user.name.clone()),
            grants: user.grants.iter().cloned().collect(),
            bounds: None,
            proof: Proof::Session(*cookie),
            until_ms: Some(session.until.as_ms()),
        })
    }

    fn live_session(
        &self,
        cookie: &Digest,
        now: Timestamp,
        idle: Duration,
    ) -> Option<&Arc<Session>> {
        let session = self.sessions.get(cookie)?;
        (!session.is_over(now, idle)).then_some(session)
    }

    /// Who shows `plm_<id>_<secret>`.
    pub fn by_token(&self, shown: &str, now: Timestamp) -> Result<Principal, Denied> {
        let (id, shown) = secret::token_parts(shown).ok_or(Denied::BadToken)?;
        let token = self.tokens.get(id).ok_or(Denied::BadToken)?;
        let shown = trust::digest(shown.as_bytes());
        if !bool::from(shown.as_bytes().ct_eq(token.secret_sha256.as_bytes())) {
            return Err(Denied::BadToken);
        }
        if token.revoked_at.is_some() {
            return Err(Denied::TokenRevoked { id: id.to_owned() });
        }
        if now >= token.until {
            return Err(Denied::TokenExpired { id: id.to_owned() });
        }
        let user = self.users.get(&token.user).filter(|user| !user.disabled);
        let user = user.ok_or(Denied::TokenRevoked { id: id.to_owned() })?;
        token.used.touch(now);
        Ok(Principal {
            actor: token.actor().into(),
            user: Some(user.name.clone()),
            grants: user.grants.iter().cloned().collect(),
            bounds: Some(token.bounds.clone()),
            proof: Proof::Token(token.id.clone()),
            until_ms: Some(token.until.as_ms()),
        })
    }

    /// Whether what was let in as this principal would be let in now, with the same rights. It is no use of the session: who
    /// only listens is idle.
    pub fn is_valid(&self, principal: &Principal, now: Timestamp, idle: Duration) -> bool {
        let user = match &principal.proof {
            Proof::SiteToken => return true,
            Proof::Session(cookie) => {
                self.live_session(cookie, now, idle).map(|session| &session.user)
            }
            Proof::Token(id) => {
                let token = self.tokens.get(id);
                let token = token.filter(|token| token.is_live(now));
                token.map(|token| &token.user)
            }
        };
        let user = user.and_then(|user| self.users.get(user)).filter(|user| !user.disabled);
        user.is_some_and(|user| user.grants.iter().eq(&principal.grants))
    }

    /// What is granted to whom, judged: the names, that the sites are there, and how many.
    pub fn check_grants(&self, grants: &[Grant]) -> Result<BTreeSet<Grant>, PeopleError> {
        if grants.len() > GRANTS_MAX {
            return Err(PeopleError::TooMany { what: "grants", max: GRANTS_MAX });
        }
        let sites = grants.iter().filter_map(|grant| grant.site.as_ref());
        self.check_sites(sites)?;
        Ok(grants.iter().cloned().collect())
    }

    fn check_sites<'a>(
        &self,
        mut sites: impl Iterator<Item = &'a String>,
    ) -> Result<(), PeopleError> {
        match sites.find(|site| !self.has_site(site)) {
            Some(unknown) => Err(PeopleError::UnknownSite(unknown.clone())),
            None => Ok(()),
        }
    }

    /// Refused if nobody could make users any more, and somebody can now.
    pub fn check_administrators(&self, next: &User) -> Result<(), PeopleError> {
        let before = self.users.get(&next.name);
        if !before.is_some_and(|before| before.is_administrator()) || next.is_administrator() {
            return Ok(());
        }
        let mut others = self.users.values().filter(|user| user.name != next.name);
        if others.any(|user| user.is_administrator()) {
            return Ok(());
        }
        Err(PeopleError::LastAdministrator(next.name.clone()))
    }

    /// What a token may be at most, judged against who makes it.
    pub fn check_bounds(
        &self,
        maker: &Principal,
        scopes: &[Scope],
        sites: Option<&Vec<String>>,
        groups: Option<&Vec<String>>,
    ) -> Result<Bounds, PeopleError> {
        if scopes.is_empty() {
            return Err(PeopleError::NoScope);
        }
        if let Some(scope) = scopes.iter().copied().find(|scope| !maker.holds(*scope)) {
            let user = maker.user.clone().unwrap_or_default();
            return Err(PeopleError::BeyondUser { user, scope });
        }
        for (what, names) in [("sites", sites), ("groups", groups)] {
            if names.is_some_and(|names| names.len() > BOUNDS_MAX) {
                return Err(PeopleError::TooMany { what, max: BOUNDS_MAX });
            }
        }
        self.check_sites(sites.into_iter().flatten())?;
        for group in groups.into_iter().flatten() {
            check_name("group", group)?;
        }
        let set = |names: Option<&Vec<String>>| names.map(|names| names.iter().cloned().collect());
        Ok(Bounds {
            scopes: scopes.iter().copied().collect(),
            sites: set(sites),
            groups: set(groups),
        })
    }

    pub(crate) fn put_user(&mut self, user: User) {
        self.users.insert(user.name.clone(), Arc::new(user));
    }

    pub(crate) fn put_token(&mut self, token: Token) {
        self.tokens.insert(token.id.clone(), Arc::new(token));
    }

    pub(crate) fn drop_token(&mut self, id: &str) {
        self.tokens.remove(id);
    }

    pub(crate) fn put_session(&mut self, cookie: Digest, session: Session) {
        self.sessions.insert(cookie, Arc::new(session));
    }

    pub(crate) fn drop_session(&mut self, cookie: &Digest) {
        self.sessions.remove(cookie);
    }

    /// These zones are of this site, and no other is.
    pub(crate) fn put_site(&mut self, id: &str, zones: BTreeSet<ZoneId>) {
        for others in self.sites.values_mut() {
            others.retain(|zone| !zones.contains(zone));
        }
        self.sites.insert(id.to_owned(), zones);
        self.by_zone = self
            .sites
            .iter()
            .flat_map(|(id, zones)| zones.iter().map(|zone| (zone.clone(), id.clone())))
            .collect();
    }

    pub(crate) fn put_two_people(&mut self, needed_for: BTreeSet<Widening>) {
        self.two_people = needed_for;
    }
}

impl User {
    /// Of every site, and able to act.
    pub fn is_administrator(&self) -> bool {
        let everywhere = Grant { role: UserRole::Administrator, site: None };
        !self.disabled && self.grants.contains(&everywhere)
    }

    /// Whether some of these grants go beyond what it has.
    pub fn is_widened_by(&self, grants: &BTreeSet<Grant>) -> bool {
        let has = |grant: &Grant| {
            self.grants.contains(grant)
                || self.grants.contains(&Grant { role: grant.role, site: None })
        };
        !grants.iter().all(has)
    }
}

impl Token {
    /// As events name it.
    pub fn actor(&self) -> String {
        format!("token/{}/{}", self.user, self.name)
    }

    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && now < self.until
    }

    pub(crate) fn revoked(&self, at: Timestamp) -> Self {
        Self {
            id: self.id.clone(),
            user: self.user.clone(),
            name: self.name.clone(),
            secret_sha256: self.secret_sha256,
            bounds: self.bounds.clone(),
            created_at: self.created_at,
            until: self.until,
            revoked_at: Some(at),
            used: self.used.last().map(Used::at).unwrap_or_default(),
        }
    }
}

impl Session {
    pub fn is_over(&self, now: Timestamp, idle: Duration) -> bool {
        let used = self.used.last().unwrap_or(self.begun_at);
        let idle_us = i64::try_from(idle.as_micros()).unwrap_or(i64::MAX);
        now >= self.until || now.as_us() >= used.as_us().saturating_add(idle_us)
    }
}

/// The grammar of users' and tokens' names: they stand in paths and in events.
pub fn check_name(what: &'static str, name: &str) -> Result<(), PeopleError> {
    let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let rest = |b: u8| first(b) || matches!(b, b'.' | b'_' | b'-');
    let is_good = matches!(name.as_bytes(), [head, tail @ ..]
        if name.len() <= NAME_CHARS_MAX && first(*head) && tail.iter().all(|b| rest(*b)));
    if is_good {
        return Ok(());
    }
    let found = name.chars().take(80).collect();
    Err(PeopleError::BadName { what, found })
}

/// Length is all that is asked of a password (NIST SP 800-63B §5.1.1).
pub fn check_password(password: &str) -> Result<(), PeopleError> {
    let (chars, bytes) = (password.chars().count(), password.len());
    if chars >= PASSWORD_CHARS_MIN && bytes <= PASSWORD_BYTES_MAX {
        return Ok(());
    }
    Err(PeopleError::BadPassword { chars, bytes })
}

#[cfg(test)]
mod tests;
