//! A person or program of the operator, as one call sees it: who it is, and what it may do where.

use api::user::Grant;
use api::{Scope, UserRole};
use model::Digest;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How events name whoever shows the site's own token: it lies in the site's directory, for who is root there anyhow.
pub const SITE_TOKEN: &str = "token/site";

/// As events name it: `user/anna`, `token/anna/ci`, `token/site`.
pub type Actor = Arc<str>;

/// Who calls, by session or token, with the rights that it has at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub actor: Actor,
    /// The user behind it. `None`: the site's own token.
    pub user: Option<String>,
    pub grants: Vec<Grant>,
    /// What a token was made for. `None`: all that its user may.
    pub bounds: Option<Bounds>,
    pub proof: Proof,
    /// When session or token ends, in milliseconds since 1970.
    pub until_ms: Option<u64>,
}

/// What a token may at most, whatever its user may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub scopes: BTreeSet<Scope>,
    pub sites: Option<BTreeSet<String>>,
    /// Groups of devices that its rollouts may go to.
    pub groups: Option<BTreeSet<String>>,
}

/// What it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    SiteToken,
    /// A browser's cookie, by its digest. Whoever holds one is asked from where a change comes.
    Session(Digest),
    /// A token, by its id.
    Token(String),
}

/// A rollout goes to groups that a token is not for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a cohort that names groups of the token alone ({expected}), found {found}")]
pub struct BeyondGroups {
    pub expected: String,
    pub found: String,
}

/// Where a principal holds a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At these sites; at none, if there are none.
    Sites(BTreeSet<String>),
    Everywhere,
}

impl Principal {
    /// Whoever has read the site's directory: every role, everywhere.
    pub fn site_token() -> Self {
        let everywhere = |role: &UserRole| Grant { role: *role, site: None };
        Self {
            actor: SITE_TOKEN.into(),
            user: None,
            grants: UserRole::ALL.iter().map(everywhere).collect(),
            bounds: None,
            proof: Proof::SiteToken,
            until_ms: None,
        }
    }

    pub fn reach(&self, scope: Scope) -> Reach {
        let bounds = self.bounds.as_ref();
        if bounds.is_some_and(|bounds| !bounds.scopes.contains(&scope)) {
            return Reach::Sites(BTreeSet::new());
        }
        let granted = self.grants.iter().filter(|grant| grant.role.holds(scope));
        let granted = granted.fold(Reach::Sites(BTreeSet::new()), |reach, grant| {
            match (reach, &grant.site) {
                (Reach::Everywhere, _) | (_, None) => Reach::Everywhere,
                (Reach::Sites(mut sites), Some(site)) => {
                    sites.insert(site.clone());
                    Reach::Sites(sites)
                }
            }
        });
        match (granted, bounds.and_then(|bounds| bounds.sites.as_ref())) {
            (granted, None) => granted,
            (Reach::Everywhere, Some(sites)) => Reach::Sites(sites.clone()),
            (Reach::Sites(granted), Some(sites)) => Reach::Sites(&granted & sites),
        }
    }

    /// Whether it may have to do with a rollout whose cohort names these groups. One that names none is for all of them.
    pub fn may_reach(&self, groups: &[String]) -> Result<(), BeyondGroups> {
        let Some(own) = self.bounds.as_ref().and_then(|bounds| bounds.groups.as_ref()) else {
            return Ok(());
        };
        if !groups.is_empty() && groups.iter().all(|group| own.contains(group)) {
            return Ok(());
        }
        let listed = |groups: Vec<&str>| match groups.as_slice() {
            [] => "every group".to_owned(),
            groups => groups.join(", "),
        };
        let expected = listed(own.iter().map(String::as_str).collect());
        Err(BeyondGroups { expected, found: listed(groups.iter().map(String::as_str).collect()) })
    }

    /// Held at one site at least.
    pub fn holds(&self, scope: Scope) -> bool {
        !self.reach(scope).is_nowhere()
    }

    pub fn scopes(&self) -> Vec<Scope> {
        Scope::ALL.iter().copied().filter(|scope| self.holds(*scope)).collect()
    }
}

impl Reach {
    pub fn is_nowhere(&self) -> bool {
        matches!(self, Self::Sites(sites) if sites.is_empty())
    }

    pub fn is_everywhere(&self) -> bool {
        matches!(self, Self::Everywhere)
    }

    pub fn covers(&self, site: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Sites(sites) => sites.contains(site),
        }
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everywhere => f.write_str("any site"),
            Self::Sites(sites) => {
                let names: Vec<&str> = sites.iter().map(String::as_str).collect();
                write!(f, "site {}", names.join(" or "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(role: UserRole, site: Option<&str>) -> Grant {
        Grant { role, site: site.map(str::to_owned) }
    }

    fn sites(names: &[&str]) -> Reach {
        Reach::Sites(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn a_token_that_is_bound_to_groups_reaches_rollouts_of_those_groups_alone() {
        let groups = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let mut ci = Principal::site_token();
        assert_eq!(ci.may_reach(&groups(&["production"])), Ok(()), "nothing bounds it");
        let (scopes, sites) = (Scope::ALL.iter().copied().collect(), None);
        let own = Some(["development".to_owned(), "pilot".to_owned()].into());
        ci.bounds = Some(Bounds { scopes, sites, groups: own });
        assert_eq!(ci.may_reach(&groups(&["development"])), Ok(()));
        assert_eq!(ci.may_reach(&groups(&["pilot", "development"])), Ok(()));
        for beyond in [&["production"][..], &["pilot", "production"], &[]] {
            assert!(ci.may_reach(&groups(beyond)).is_err(), "{beyond:?}");
        }
        assert_eq!(
            ci.may_reach(&[]).unwrap_err().to_string(),
            "expected a cohort that names groups of the token alone (development, pilot), found every group"
        );
    }

    #[test]
    fn a_grant_reaches_its_site_and_a_token_never_further_than_its_user() {
        let mut anna = Principal::site_token();
        assert_eq!(anna.reach(Scope::UsersWrite), Reach::Everywhere);
        anna.grants = vec![at(UserRole::Viewer, None), at(UserRole::Operator, Some("north"))];
        assert_eq!(anna.reach(Scope::FleetRead), Reach::Everywhere);
        assert_eq!(anna.reach(Scope::FleetNarrow), sites(&["north"]));
        assert_eq!(anna.reach(Scope::FleetWiden), sites(&[]));
        anna.bounds = Some(Bounds {
            scopes: [Scope::FleetRead, Scope::FleetNarrow, Scope::UsersWrite].into(),
            sites: Some(["north".to_owned(), "south".to_owned()].into()),
            groups: None,
        });
        assert_eq!(anna.reach(Scope::FleetRead), sites(&["north", "south"]));
        assert_eq!(anna.reach(Scope::FleetNarrow), sites(&["north"]));
        assert_eq!(anna.reach(Scope::TelemetryRead), sites(&[]), "not what the token is for");
        assert_eq!(anna.reach(Scope::UsersWrite), sites(&[]), "not what the user may");
    }
}
