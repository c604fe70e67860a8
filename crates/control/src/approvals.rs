//! What needs two people: one asks, a second says yes, and only then is it done, in both names.
//!
//! ```text
//!            ┌─ approve ──▶ approved    with what was asked, in one transaction
//!   open ────┼─ approve ──▶ failed      when it could not be done any more
//!            ├─ refuse ───▶ refused     by one person; also by who asked
//!            └─ 24 h ─────▶ expired
//! ```
//!
//! Whoever does something that widens asks [`Step::expect_two`] where it is written: what needs two is not written by one,
//! by whichever way it came there, and the refusal becomes the question to a second person. What narrows never asks.
//!
//! Promises: what needs two is done by two users, each with a right to it at that moment, the second by another role than the
//! first's (INV-LEAST-1); their yes and what it does are durable together or not at all; what was asked is what is done, on
//! the state that it was asked of, or it fails; nothing is done after its time.
//! Never: keeps a password, or shows or tells of its hash, which goes when it is decided; takes a program's word for a yes.

pub(crate) mod call;
pub mod decide;
pub(crate) mod table;

use crate::directory::Directory;
use crate::people::secret::Hash;
use crate::people::{People, PeopleError, table as people};
use crate::principal::{Actor, Principal};
use crate::registry::{ChangeError, RegistryError, Step, release};
use api::approval::Widening;
use api::rollout::{Cohort, NewRollout};
use api::user::Grant;
use api::{Scope, UserRole};
use decide::{No, Place, State};
use model::{DeviceId, Timestamp, ZoneId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// For so long a second person can say yes: over a night and a shift, and not over a weekend that nobody remembers.
pub const OPEN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Open ones of one user, and of all. One more is refused: somebody has to decide first.
pub const OPEN_OF_ONE_MAX: usize = 8;
pub const OPEN_MAX: usize = 64;
/// Decided ones that are kept beside, the newest. What was done stays in the evidence log.
pub const DECIDED_MAX: usize = 1000;
/// An act as it is kept: the longest is a rollout's order.
const ACT_BYTES_MAX: usize = 256 * 1024;
/// Names that a sentence lists; of more it says how many there are.
const NAMED_MAX: usize = 16;

/// What is to be done, as data. Names in it were read as such when it was asked for, and are read again when it is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    ReleaseDevice {
        device: String,
    },
    /// Its password's hash is kept beside, as that of the next.
    CreateUser {
        name: String,
        grants: Vec<Grant>,
    },
    SetPassword {
        name: String,
    },
    Grant {
        name: String,
        grants: Vec<Grant>,
    },
    EnableUser {
        name: String,
    },
    AssignSite {
        id: String,
        zones: BTreeSet<String>,
    },
    /// From now on this needs two people, and nothing else.
    TwoPeople {
        needed_for: BTreeSet<Widening>,
    },
    /// And start it.
    CreateRollout {
        order: Box<NewRollout>,
    },
    StartRollout {
        rollout: String,
        cohort: Cohort,
    },
}

/// What was asked for, as it is kept.
#[derive(Clone, Debug)]
pub struct Asked {
    pub number: u64,
    pub what: Widening,
    pub subject: String,
    pub sentence: String,
    /// What a second person has to reach.
    pub place: Place,
    /// `None` once it was decided.
    pub act: Option<Act>,
    /// As events name who asked.
    pub by: Actor,
    pub user: String,
    /// The token by which it was asked, if not by a session.
    pub token: Option<String>,
    pub role: UserRole,
    pub at: Timestamp,
    pub until: Timestamp,
    pub state: State,
    pub decided_by: Option<String>,
    pub decided_at: Option<Timestamp>,
    pub reason: Option<String>,
}

/// One person alone does what needs two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected two people for {0}, found one: ask again")]
pub struct NeedsTwo(pub Widening);

/// Why something is not asked for, or not decided.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    #[error("no approval `{0}`")]
    Unknown(u64),
    #[error(transparent)]
    No(#[from] No),
    #[error("what approval `{0}` was asked of has changed since: ask again")]
    MovedOn(u64),
    #[error(
        "expected a person, found the site's token: {what} needs two people, and who holds that token is nobody in particular"
    )]
    NotAPerson { what: Widening },
    #[error("expected one role that reaches {place}, found none of {user}'s")]
    NoRole { user: String, place: Place },
    #[error("expected at most {max} open approvals of {of}, found one more: decide some first")]
    TooMany { of: String, max: usize },
    #[error("expected at most {ACT_BYTES_MAX} bytes to keep until it is decided, found {found}")]
    TooLong { found: usize },
    #[error(
        "expected grant_roles among what needs two people: who makes users alone makes the second person himself"
    )]
    NoGrantRoles,
    #[error("expected two people who could do it: {what} needs {expected}; make them first")]
    NobodyToAsk { what: Widening, expected: String },
    #[error(transparent)]
    NeedsTwo(#[from] NeedsTwo),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Two people do what a step does: all its events say so.
#[derive(Clone, Debug)]
pub struct Both {
    pub approval: u64,
    pub asked_by: Actor,
    pub approved_by: Actor,
}

/// The second person's yes, given in the very step that does what was asked for.
#[derive(Clone, Debug)]
pub struct Word {
    pub number: u64,
    pub by: Arc<Principal>,
    /// How long a session lasts that nobody uses.
    pub idle: Duration,
    pub at: Timestamp,
}

impl Act {
    pub fn what(&self) -> Widening {
        match self {
            Self::ReleaseDevice { .. } => Widening::QuarantineRelease,
            Self::CreateRollout { .. } | Self::StartRollout { .. } => Widening::EmergencyRollout,
            _ => Widening::GrantRoles,
        }
    }

    /// What the call asks of its caller that does it alone.
    pub fn scope(&self) -> Scope {
        match self {
            Self::ReleaseDevice { .. } => Scope::FleetWiden,
            Self::CreateRollout { .. } | Self::StartRollout { .. } => Scope::RolloutsWrite,
            Self::AssignSite { .. } | Self::TwoPeople { .. } => Scope::SettingsWrite,
            Self::CreateUser { .. }
            | Self::SetPassword { .. }
            | Self::Grant { .. }
            | Self::EnableUser { .. } => Scope::UsersWrite,
        }
    }

    pub fn subject(&self) -> String {
        match self {
            Self::ReleaseDevice { device } => format!("device/{device}"),
            Self::CreateUser { name, .. }
            | Self::SetPassword { name }
            | Self::Grant { name, .. }
            | Self::EnableUser { name } => format!("user/{name}"),
            Self::AssignSite { id, .. } => format!("site/{id}"),
            Self::TwoPeople { .. } => SETTING.to_owned(),
            Self::CreateRollout { order } => {
                format!("rollout/{}", order.id.as_deref().unwrap_or(&order.product))
            }
            Self::StartRollout { rollout, .. } => format!("rollout/{rollout}"),
        }
    }

    /// Where it is, as fleet and sites are now.
    pub fn place(&self, directory: &Directory, people: &People) -> Place {
        let site = |id: &str| {
            let device = DeviceId::new(id).ok().and_then(|id| directory.device(&id));
            device.map(|device| people.site_of(&device.zone).to_owned())
        };
        let cohort = match self {
            Self::ReleaseDevice { device } => {
                return site(device).map_or(Place::Everywhere, |site| Place::Sites([site].into()));
            }
            Self::CreateRollout { order } => &order.cohort,
            Self::StartRollout { cohort, .. } => cohort,
            _ => return Place::Everywhere,
        };
        let sites: Option<BTreeSet<String>> = match (cohort.zones.is_empty(), &cohort.devices) {
            (false, _) => {
                let zone = |zone: &String| ZoneId::new(zone.as_str()).ok();
                let sites =
                    cohort.zones.iter().map(|word| Some(people.site_of(&zone(word)?).into()));
                sites.collect()
            }
            (true, devices) => devices.iter().map(|id| site(id)).collect(),
        };
        sites.filter(|sites| !sites.is_empty()).map_or(Place::Everywhere, Place::Sites)
    }

    /// What it rests on. When that is another than it was, somebody has had another mind since: it is asked anew.
    fn basis(&self, directory: &Directory, people: &People) -> String {
        match self {
            Self::ReleaseDevice { device } => {
                let device = DeviceId::new(device.as_str()).ok();
                let device = device.and_then(|id| directory.device(&id));
                let since = device.map(|device| device.changed_at.as_us());
                json!({ "changed_at_us": since })
            }
            Self::Grant { name, .. } => {
                let user = people.user(name);
                json!({ "grants": user.map(|user| &user.grants) })
            }
            Self::AssignSite { id, .. } => {
                let zones = people.sites().find(|(site, _)| site == id).map(|(_, zones)| zones);
                let zones: Option<Vec<&str>> =
                    zones.map(|zones| zones.iter().map(ZoneId::as_str).collect());
                json!({ "zones": zones })
            }
            Self::TwoPeople { .. } => json!({ "needed_for": people.two_people() }),
            Self::SetPassword { name } => {
                json!({ "disabled": people.user(name).map(|user| user.disabled) })
            }
            _ => json!({}),
        }
        .to_string()
    }

    /// What a second person reads. It leaves nothing out that he would say no for; a long list is whole in the act itself.
    fn sentence(&self, people: &People) -> String {
        match self {
            Self::ReleaseDevice { device } => format!("Let {device} back from quarantine"),
            Self::CreateUser { name, grants } => format!("Make user {name}: {}", roles(grants)),
            Self::SetPassword { name } => {
                format!("Give user {name} another password, which who asks knows")
            }
            Self::Grant { name, grants } => {
                let before = people.user(name).map(|user| Vec::from_iter(user.grants.clone()));
                let (next, before) = (roles(grants), before.unwrap_or_default());
                match before.as_slice() {
                    [] => format!("Let user {name} be {next}"),
                    before => format!("Let user {name} be {next}, and not {}", roles(before)),
                }
            }
            Self::EnableUser { name } => {
                let grants = people.user(name).map(|user| Vec::from_iter(user.grants.clone()));
                format!("Let {name} sign in again: {}", roles(&grants.unwrap_or_default()))
            }
            Self::AssignSite { id, zones } => {
                format!("Say that site {id} has {}", listed(zones.iter().cloned()))
            }
            Self::TwoPeople { needed_for } if needed_for.is_empty() => {
                "Ask for two people for nothing any more".to_owned()
            }
            Self::TwoPeople { needed_for } => {
                let words = needed_for.iter().map(ToString::to_string);
                format!("Ask for two people for {}, and for nothing else", listed(words))
            }
            Self::CreateRollout { order } => {
                let first = order.waves.first().map_or(0.0, |wave| wave.percent);
                let (product, version) = (&order.product, &order.version);
                let cohort = whom(&order.cohort);
                format!("Roll out {product} {version} to {cohort}, {first} % of it at once")
            }
            Self::StartRollout { rollout, cohort } => {
                format!("Start rollout {rollout} to {}, without a canary", whom(cohort))
            }
        }
    }

    /// Does it, in the step in which the second person said yes. Rollouts have a way of their own.
    async fn carry_out(
        self,
        step: &mut Step<'_>,
        password: Option<Hash>,
        by: &Actor,
        now: Timestamp,
    ) -> Result<(), ActError> {
        let hash = || {
            let why = "an approval without the password that it is for";
            password.ok_or_else(|| RegistryError::Unreadable(why.to_owned()))
        };
        match self {
            Self::ReleaseDevice { device } => {
                let id = DeviceId::new(device).map_err(ChangeError::from)?;
                release(step, &id, by, now).await?;
            }
            Self::CreateUser { name, grants } => {
                people::create_user(step, &name, hash()?, &grants, by, now).await.map(drop)?;
            }
            Self::SetPassword { name } => {
                let whose = people::Whose::Another;
                people::set_password(step, &name, hash()?, whose, by, now).await.map(drop)?;
            }
            Self::Grant { name, grants } => {
                people::grant(step, &name, &grants, by, now).await.map(drop)?;
            }
            Self::EnableUser { name } => {
                people::enable_user(step, &name, by, now).await.map(drop)?;
            }
            Self::AssignSite { id, zones } => {
                let zones = zones.into_iter().map(ZoneId::new).collect::<Result<_, _>>();
                let zones = zones.map_err(ChangeError::from)?;
                people::assign_site(step, &id, zones, by, now).await?;
            }
            Self::TwoPeople { needed_for } => {
                table::set_two_people(step, needed_for, by, now).await.map(drop)?;
            }
            Self::CreateRollout { .. } | Self::StartRollout { .. } => {
                unreachable!("whoever holds the turn of rollouts does these")
            }
        }
        Ok(())
    }
}

/// How events name what needs two people.
pub(crate) const SETTING: &str = "settings/two-people";

/// Why an act that was approved was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    #[error(transparent)]
    People(#[from] PeopleError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Whether a rollout begins without a canary: its first wave takes more than half of its cohort, and more than one device.
/// An order that says no number is judged by its percentage alone: whoever joins the cohort tomorrow is in that wave too.
pub fn is_emergency(order: &NewRollout, cohort: u64) -> bool {
    let Some(first) = order.waves.first() else { return false };
    if first.percent <= 50.0 || order.cohort.devices.len() == 1 {
        return false;
    }
    first.count_max.is_none_or(|max| max > 1 && max.saturating_mul(2) > cohort)
}

fn roles(grants: &[Grant]) -> String {
    let role = |grant: &Grant| match &grant.site {
        Some(site) => format!("{} of site {site}", grant.role),
        None => format!("{} of every site", grant.role),
    };
    match grants {
        [] => "nothing".to_owned(),
        grants => listed(grants.iter().map(role)),
    }
}

fn whom(cohort: &Cohort) -> String {
    let part = |word: &str, names: &[String]| match names {
        [] => None,
        names => Some(format!("{word} {}", listed(names.iter().cloned()))),
    };
    let parts = [
        part("zones", &cohort.zones),
        part("groups", &cohort.groups),
        part("devices", &cohort.devices),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "every device that it is for".to_owned() } else { parts.join(" and ") }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    match names.len().saturating_sub(NAMED_MAX) {
        _ if names.is_empty() => "nothing".to_owned(),
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..NAMED_MAX].join(", ")),
    }
}
