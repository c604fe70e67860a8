//! Whether a second person may say yes. No clock, no table: who asked, who says it, and the time.

use api::approval::Widening;
use api::user::Grant;
use api::{Scope, UserRole};
use model::Timestamp;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Open,
    Approved,
    Refused,
    Failed,
    Expired,
}

impl State {
    pub const ALL: [Self; 5] =
        [Self::Open, Self::Approved, Self::Refused, Self::Failed, Self::Expired];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// What it is at this time: nothing is open when its time is over, also before that is written down.
    pub fn at(self, until: Timestamp, now: Timestamp) -> Self {
        if self == Self::Open && now >= until { Self::Expired } else { self }
    }
}

/// Where something is: who is to have to do with it has his role at all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of all sites together, also of those that come later.
    Everywhere,
    /// Of these, at least one.
    Sites(BTreeSet<String>),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everywhere => f.write_str("every site"),
            Self::Sites(sites) => {
                let names: Vec<&str> = sites.iter().map(String::as_str).collect();
                write!(f, "site {}", names.join(" and "))
            }
        }
    }
}

/// Something that waits for its second person.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub what: Widening,
    /// What the act asks of who does it.
    pub scope: Scope,
    pub place: &'a Place,
    /// Who asked, and by which role.
    pub first: Person<'a>,
    pub role: UserRole,
    pub state: State,
    pub until: Timestamp,
}

/// Somebody at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// `None`: the site's token.
    pub user: Option<&'a str>,
    pub grants: &'a BTreeSet<Grant>,
    /// Whether what he showed counts: not disabled, not revoked, not over.
    pub counts: bool,
    /// He signed in himself; a program did not.
    pub in_person: bool,
}

/// Why a second person's yes does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum No {
    #[error("expected an approval that is open, found one that is {found}", found = .0.as_str())]
    NotOpen(State),
    #[error("expected a person who has signed in, found a token: a program is nobody's second")]
    NotInPerson,
    #[error("expected a session that is not over, found one that is")]
    Gone,
    #[error("expected another person than {0}, who asked")]
    SamePerson(String),
    #[error("expected {expected} of {place}, found none of these roles")]
    NotASecond { expected: String, place: Place },
    /// The first has lost what he asked by: nobody can say yes to it any more.
    #[error("{user} asked for it as {role}, and could not do it any more")]
    FirstGone { user: String, role: UserRole },
}

/// The role by which the second says yes. Both have to have what it takes now, whatever they had when it was asked.
pub fn decide(
    question: &Question<'_>,
    second: &Person<'_>,
    now: Timestamp,
) -> Result<UserRole, No> {
    let Question { what, scope, place, first, role, state, until } = question;
    match state.at(*until, now) {
        State::Open => {}
        state => return Err(No::NotOpen(state)),
    }
    let name = match second.user {
        Some(name) if second.in_person => name,
        _ => return Err(No::NotInPerson),
    };
    if !second.counts {
        return Err(No::Gone);
    }
    if first.user == Some(name) {
        return Err(No::SamePerson(name.to_owned()));
    }
    let wanted: Vec<UserRole> = seconds(*what, *role).collect();
    let found = wanted.iter().copied().find(|role| has(second.grants, *role, place));
    let found = found.ok_or_else(|| {
        let words: Vec<&str> = wanted.iter().map(|role| role.as_str()).collect();
        No::NotASecond { expected: words.join(" or "), place: Place::clone(place) }
    })?;
    let (true, true, Some(_)) =
        (first.counts, role.holds(*scope) && has(first.grants, *role, place), first.user)
    else {
        let user = first.user.unwrap_or("the site's token").to_owned();
        return Err(No::FirstGone { user, role: *role });
    };
    Ok(found)
}

/// The roles by which a second person says yes to what was asked by a role.
pub fn seconds(what: Widening, asked_as: UserRole) -> impl Iterator<Item = UserRole> {
    what.seconds().iter().copied().filter(move |role| *role != asked_as)
}

/// The role by which somebody can do what takes a scope there.
pub fn role_for(grants: &BTreeSet<Grant>, scope: Scope, place: &Place) -> Option<UserRole> {
    let holding = UserRole::ALL.iter().copied().filter(|role| role.holds(scope));
    holding.into_iter().find(|role| has(grants, *role, place))
}

/// Whether somebody has a role at all of a place.
pub fn has(grants: &BTreeSet<Grant>, role: UserRole, place: &Place) -> bool {
    let at = |site: Option<&str>| {
        grants.iter().any(|grant| grant.role == role && grant.site.as_deref() == site)
    };
    match place {
        _ if at(None) => true,
        Place::Everywhere => false,
        Place::Sites(sites) => !sites.is_empty() && sites.iter().all(|site| at(Some(site))),
    }
}

#[cfg(test)]
mod tests;
