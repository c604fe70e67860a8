//! `plimsoll user`, `token`, `site`: people and programs of the operator, and what each may do where.

use crate::care::{Dry, Sure, Would};
use crate::client::{Client, segment};
use crate::exit::{Ended, Exit};
use crate::place::Place;
use crate::session::granted;
use crate::table::{self, Format, plain};
use crate::terminal;
use anyhow::Result;
use api::user::{
    Grant, Grants, MadeToken, NewPassword, NewToken, NewUser, Site, Sites, TOKEN_DAYS_MAX, Tokens,
    Users,
};
use api::{Cell, Scope, UserRole, path};
use clap::Subcommand;

#[derive(Subcommand)]
pub enum User {
    /// Everybody who may sign in, and what each may do.
    #[command(after_help = "Example:\n  plimsoll user list")]
    List,
    /// Make a user. The password is asked for, or is a line on standard input.
    #[command(
        after_help = "Example:\n  plimsoll user create anna --grant operator@north --grant viewer"
    )]
    Create {
        name: String,
        /// ROLE, or ROLE@SITE; may be given several times. Roles: viewer, operator, releaser, security_officer, administrator.
        #[arg(long, required = true, value_name = "ROLE[@SITE]", value_parser = grant)]
        grant: Vec<Grant>,
    },
    /// Say what a user may do from now on, instead of what it might before.
    #[command(after_help = "Example:\n  plimsoll user grant anna operator@north viewer")]
    Grant {
        name: String,
        /// ROLE, or ROLE@SITE.
        #[arg(required_unless_present = "none", value_name = "ROLE[@SITE]", value_parser = grant)]
        grants: Vec<Grant>,
        /// Nothing any more.
        #[arg(long, conflicts_with = "grants")]
        none: bool,
    },
    /// Let a user in no more: its sessions end, and its tokens count for nothing. It can be enabled again.
    #[command(after_help = "Example:\n  plimsoll user disable anna --dry-run")]
    Disable {
        name: String,
        #[command(flatten)]
        dry: Dry,
    },
    /// End every session of a user: it signs in again, and nothing else is lost.
    #[command(after_help = "Example:\n  plimsoll user signout anna")]
    Signout { name: String },
    /// Let a disabled user sign in again.
    #[command(after_help = "Example:\n  plimsoll user enable anna")]
    Enable { name: String },
    /// Set a password: asked for, or a line on standard input. Every session of the user ends.
    #[command(after_help = "Example:\n  plimsoll user password anna")]
    Password {
        name: String,
        /// It is one's own: the one before is asked for first, or is the first line on standard input.
        #[arg(long)]
        own: bool,
    },
}

#[derive(Subcommand)]
pub enum Token {
    /// One's own tokens; who may read users sees everybody's.
    #[command(after_help = "Example:\n  plimsoll token list")]
    List,
    /// Make a token for a program. It is shown once, and can never do more than you can.
    #[command(
        after_help = "Example:\n  plimsoll token create ci --scope rollouts.write --scope releases.read --group development --days 30"
    )]
    Create {
        /// What it is for.
        name: String,
        /// What it may; may be given several times (docs/users.md).
        #[arg(long, required = true, value_parser = scope)]
        scope: Vec<Scope>,
        /// At these sites only.
        #[arg(long)]
        site: Vec<String>,
        /// Rollouts that it makes go to devices of these groups only.
        #[arg(long)]
        group: Vec<String>,
        /// How long it lives.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=i64::from(TOKEN_DAYS_MAX)))]
        days: u32,
    },
    /// Let a token count no more.
    #[command(after_help = "Example:\n  plimsoll token revoke t-1 --yes")]
    Revoke {
        /// Its id, as `token list` shows it.
        id: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Subcommand)]
pub enum SiteCommand {
    /// Every site and its zones.
    #[command(after_help = "Example:\n  plimsoll site list")]
    List,
    /// Say which zones are of a site from now on.
    #[command(after_help = "Example:\n  plimsoll site assign north --zone hall --zone yard")]
    Assign {
        site: String,
        #[arg(long)]
        zone: Vec<String>,
    },
}

impl User {
    pub async fn run(self, place: &Place) -> Result<()> {
        let client = Client::of(place)?;
        match self {
            Self::List => {
                let body = client.get(path::USERS).await?;
                place.shown(&body, |users: Users| {
                    let row = |user: &api::user::User| -> Vec<Cell> {
                        let grants: Vec<_> = user.grants.iter().map(granted).collect();
                        vec![
                            user.name.as_str().into(),
                            grants.join(" ").into(),
                            if user.disabled { "disabled" } else { "may sign in" }.into(),
                            user.sessions.into(),
                            table::time(user.signed_in_at_ms, Format::Table),
                        ]
                    };
                    let names = ["user", "grants", "state", "sessions", "signed in"];
                    let rows = users.users.iter().map(row).collect();
                    table::list(&names, rows, "user", Format::Table)
                })
            }
            Self::Create { name, grant } => {
                let password = terminal::password(&format!("Password for {name}"))?;
                let user = NewUser { name: name.clone(), password, grants: grant };
                let body = client.post_secret(path::USERS, &user).await?;
                place.answer(&body, || format!("user {name} made"))?;
                place.next(&format!("{name} signs in: plimsoll session login --user {name}"))
            }
            Self::Grant { name, grants, none: _ } => {
                let said: Vec<_> = grants.iter().map(granted).collect();
                let at = segment(path::USERS, &name, Some("grants"))?;
                let body = client.post(&at, &Grants { grants }).await?;
                place.answer(&body, || format!("{name} may from now on: {}", said.join(" ")))
            }
            Self::Disable { name, dry } => {
                if dry.dry_run {
                    dry.goes_on(&disabling(&client, &name).await?, place)?;
                    return Ok(());
                }
                let at = segment(path::USERS, &name, Some("disable"))?;
                let body = client.post(&at, &serde_json::json!({})).await?;
                place.answer(&body, || format!("{name} is disabled, and signed out everywhere"))?;
                place.next(&format!("plimsoll user enable {name} lets it in again"))
            }
            Self::Signout { name } => {
                let at = segment(path::USERS, &name, Some("sessions"))?;
                let body = client.delete(&at).await?;
                place.answer(&body, || format!("{name} is signed out everywhere"))
            }
            Self::Enable { name } => {
                let at = segment(path::USERS, &name, Some("enable"))?;
                let body = client.post(&at, &serde_json::json!({})).await?;
                place.answer(&body, || format!("{name} may sign in again"))
            }
            Self::Password { name, own } => {
                let before = match own {
                    true => Some(terminal::password("Password until now")?),
                    false => None,
                };
                let password = terminal::password(&format!("New password for {name}"))?;
                let at = segment(path::USERS, &name, Some("password"))?;
                let body = client.post_secret(&at, &NewPassword { password, before }).await?;
                place.answer(&body, || format!("{name} has a new password, and no session"))
            }
        }
    }
}

async fn disabling(client: &Client, name: &str) -> Result<Would> {
    let users: Users = client.read(path::USERS).await?;
    let Some(user) = users.users.iter().find(|user| user.name == name) else {
        return Err(Ended::new(Exit::NotFound, format!("no user {name}")).into());
    };
    let sessions = user.sessions as u64;
    let sentence =
        format!("{name} is let in no more: {sessions} sessions end, and no token of it counts.");
    Ok(Would::new("user.disable", format!("user/{name}"), sessions, sentence))
}

impl Token {
    pub async fn run(self, place: &Place) -> Result<()> {
        let client = Client::of(place)?;
        match self {
            Self::List => {
                let body = client.get(path::TOKENS).await?;
                place.shown(&body, |tokens: Tokens| {
                    let rows = tokens.tokens.iter().map(token_row).collect();
                    let names =
                        ["token", "user", "name", "scopes", "sites", "groups", "state", "used"];
                    table::list(&names, rows, "token", Format::Table)
                })
            }
            Self::Create { name, scope, site, group, days } => {
                let some = |names: Vec<String>| if names.is_empty() { None } else { Some(names) };
                let (sites, groups) = (some(site), some(group));
                let new = NewToken { name, scopes: scope, sites, groups, days };
                let body = client.post(path::TOKENS, &new).await?;
                place.shown(&body, |made: MadeToken| {
                    tell!("{}", made.secret);
                    let until = terminal::time(made.token.until_ms);
                    place.next(&format!(
                        "this is shown once: keep it as PLIMSOLL_TOKEN where it is used. It is {} and counts until {until}",
                        made.token.id
                    ))
                })
            }
            Self::Revoke { id, sure } => {
                let sentence = format!("Token {id} counts no more.");
                let mut would = Would::new("token.revoke", format!("token/{id}"), 1, sentence);
                if sure.dry_run {
                    would = revoking(&client, &id).await?;
                }
                if !sure.goes_on(&would, place)? {
                    return Ok(());
                }
                let body = client.delete(&segment(path::TOKENS, &id, None)?).await?;
                place.answer(&body, || format!("token {id} counts no more"))
            }
        }
    }
}

async fn revoking(client: &Client, id: &str) -> Result<Would> {
    let tokens: Tokens = client.read(path::TOKENS).await?;
    let Some(token) = tokens.tokens.iter().find(|token| token.id == id) else {
        return Err(Ended::new(Exit::NotFound, format!("no token {id}")).into());
    };
    let reaches = u64::from(token.revoked_at_ms.is_none());
    let sentence =
        format!("Token {id} ({}, of {}) counts no more.", plain(&token.name), token.user);
    let would = Would::new("token.revoke", format!("token/{id}"), reaches, sentence);
    Ok(match reaches {
        0 => would.note("it is revoked already: nothing would change"),
        _ => would,
    })
}

fn token_row(token: &api::user::Token) -> Vec<Cell> {
    let scopes: Vec<_> = token.scopes.iter().map(|scope| scope.as_str()).collect();
    let only = |names: &Option<Vec<String>>| match names {
        Some(names) => names.join(" "),
        None => "all".into(),
    };
    let state = match token.revoked_at_ms {
        Some(at) => format!("revoked {}", terminal::time(at)),
        None => format!("until {}", terminal::time(token.until_ms)),
    };
    vec![
        token.id.as_str().into(),
        token.user.as_str().into(),
        token.name.as_str().into(),
        scopes.join(" ").into(),
        only(&token.sites).into(),
        only(&token.groups).into(),
        state.into(),
        table::time(token.used_at_ms, Format::Table),
    ]
}

impl SiteCommand {
    pub async fn run(self, place: &Place) -> Result<()> {
        let client = Client::of(place)?;
        match self {
            Self::List => {
                let body = client.get(path::SITES).await?;
                place.shown(&body, |sites: Sites| {
                    let row = |site: &Site| -> Vec<Cell> {
                        vec![site.id.as_str().into(), site.zones.join(" ").into()]
                    };
                    let rows = sites.sites.iter().map(row).collect();
                    table::list(&["site", "zones"], rows, "site", Format::Table)
                })
            }
            Self::Assign { site, zone } => {
                let zones = zone.join(" ");
                let body =
                    client.post(path::SITES, &Site { id: site.clone(), zones: zone }).await?;
                place.answer(&body, || format!("site {site} has these zones: {zones}"))
            }
        }
    }
}

/// `operator`, `operator@north`.
fn grant(text: &str) -> Result<Grant, String> {
    let (role, site) = match text.split_once('@') {
        Some((role, site)) => (role, Some(site.to_owned())),
        None => (text, None),
    };
    let Some(role) = UserRole::from_word(role) else {
        return Err(format!("expected {}, found {role}", words(UserRole::ALL)));
    };
    match site.as_deref() {
        Some("") => Err("expected a site behind @, found none".into()),
        _ => Ok(Grant { role, site }),
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::from_word(text).ok_or_else(|| format!("expected {}, found {text}", words(Scope::ALL)))
}

fn words(all: &[impl ToString]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_a_role_and_where() {
        let north = Grant { role: UserRole::Operator, site: Some("north".into()) };
        assert_eq!(grant("operator@north"), Ok(north.clone()));
        assert_eq!(granted(&north), "operator@north");
        assert_eq!(grant("viewer"), Ok(Grant { role: UserRole::Viewer, site: None }));
        for bad in ["", "root", "operator@", "@north"] {
            assert!(grant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_scope_has_a_word_that_is_taken() {
        for known in Scope::ALL {
            assert_eq!(scope(known.as_str()), Ok(*known));
        }
        assert!(scope("all").unwrap_err().contains("fleet.narrow"));
    }
}
