//! Who is signed in, where: kept under the reader's own configuration directory, for nobody else to read.
//!
//! ```text
//! $XDG_CONFIG_HOME/plimsoll/sessions.json    0600    {"format": 1, "sessions": [{"url", "ca_pem", "cookie", "user"}, …]}
//! ```
//!
//! The newest session is the last one. A session counts for the site that it was made at: its URL and its CA.

use crate::client::Client;
use crate::exit::{Ended, Exit};
use crate::place::{Address, Credential, Place};
use crate::terminal;
use anyhow::{Context, Result, bail};
use api::path;
use api::user::{Grant, Me, SESSION_COOKIE, SignIn};
use clap::Subcommand;
use disk::RealDisk;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Command {
    /// Sign in by name and password; the commands after it act as this user.
    ///
    /// The password is asked for, or is a line on standard input.
    #[command(
        after_help = "Example:\n  plimsoll session login --user anna --url https://control.site.internal:18800 --ca ca.pem"
    )]
    Login {
        #[arg(long)]
        user: String,
    },
    /// Sign out: the session ends, here and at the site.
    #[command(after_help = "Example:\n  plimsoll session logout")]
    Logout,
    /// As whom commands act, and what that may do.
    #[command(after_help = "Example:\n  plimsoll session show --json")]
    Show,
}

pub async fn run(command: Command, place: &Place) -> Result<()> {
    match command {
        Command::Login { user } => login(place, user).await,
        Command::Logout => logout(place).await,
        Command::Show => show(place).await,
    }
}

async fn login(place: &Place, user: String) -> Result<()> {
    let address = place.address_only()?;
    let password = terminal::password(&format!("Password of {user}"))?;
    let client = Client::at(&address, Credential::Nobody)?;
    let answer =
        client.send_secret(path::SESSION, &SignIn { user: user.clone(), password }).await?;
    let cookies = answer.headers().get_all("set-cookie");
    let cookie = cookies.iter().filter_map(|cookie| cookie.to_str().ok()).find_map(|cookie| {
        let pair = cookie.split(';').next()?.trim();
        pair.starts_with(&format!("{SESSION_COOKIE}=")).then(|| pair.to_owned())
    });
    let cookie = cookie.context("the site said yes and gave no session")?;
    let ca_pem = String::from_utf8(address.ca_pem.clone()).context("the CA is not PEM")?;
    let session = Session { url: address.url.clone(), ca_pem, cookie, user };
    let mut kept = Kept::read()?;
    kept.keep(session);
    kept.write()?;
    let body = answer.bytes().await?;
    if place.json {
        tell!("{}", String::from_utf8_lossy(&body));
        return Ok(());
    }
    let me: Me = crate::client::read(&body)?;
    tell!("signed in to {} ({}) as {}", me.site, address.url, me.actor);
    tell!("next: plimsoll session show says what you may do; plimsoll session logout ends it");
    Ok(())
}

async fn logout(place: &Place) -> Result<()> {
    let address = place.address_only()?;
    let mut kept = Kept::read()?;
    let Some(session) = kept.of(&address) else {
        let what = format!("not signed in to {}", address.url);
        return Err(Ended::new(Exit::NotFound, what).into());
    };
    let client = Client::at(&address, Credential::Cookie(session.cookie.clone()))?;
    let ended = client.delete(path::SESSION).await;
    // Forgotten here in any case: who signs out must not stay signed in because the site is away.
    kept.forget(&address);
    kept.write()?;
    match ended {
        Ok(_) => tell!("signed out of {}", address.url),
        Err(error) if Exit::of(&error) == Exit::Denied => {
            tell!("signed out of {}: the session had ended already", address.url);
        }
        Err(error) => {
            return Err(error.context("the session is forgotten here; at the site it may go on"));
        }
    }
    Ok(())
}

async fn show(place: &Place) -> Result<()> {
    let client = Client::of(place)?;
    let body = client.get(path::SESSION).await?;
    if place.json {
        tell!("{}", String::from_utf8_lossy(&body));
        return Ok(());
    }
    let me: Me = crate::client::read(&body)?;
    tell!("{} at {} ({})", me.actor, me.site, client.url());
    for grant in &me.grants {
        tell!("  {}", granted(grant));
    }
    let scopes: Vec<_> = me.scopes.iter().map(|scope| scope.as_str()).collect();
    tell!("  may: {}", scopes.join(" "));
    if let Some(until) = me.until_ms {
        tell!("  until {}", terminal::time(until));
    }
    Ok(())
}

/// A grant as the command line writes it: `operator@north`.
pub fn granted(grant: &Grant) -> String {
    match &grant.site {
        Some(site) => format!("{}@{site}", grant.role),
        None => grant.role.to_string(),
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub url: String,
    pub ca_pem: String,
    pub cookie: String,
    pub user: String,
}

#[derive(Default, Serialize, Deserialize)]
pub struct Kept {
    format: u32,
    sessions: Vec<Session>,
}

const FORMAT: u32 = 1;
/// The oldest is forgotten for one more.
const SESSIONS_MAX: usize = 32;
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl Kept {
    pub fn read() -> Result<Self> {
        let nothing = Self { format: FORMAT, sessions: Vec::new() };
        let Some(path) = path() else { return Ok(nothing) };
        let bytes = match disk::Disk::read(&RealDisk, &path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(nothing),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let kept: Self = serde_json::from_slice(&bytes).with_context(|| {
            format!("cannot read {}: remove it and sign in again", path.display())
        })?;
        if kept.format != FORMAT {
            let found = kept.format;
            bail!(
                "{} has format {found}, expected {FORMAT}: another release wrote it",
                path.display()
            );
        }
        Ok(kept)
    }

    fn write(&self) -> Result<()> {
        let path = path().context("no place for a session: expected HOME or XDG_CONFIG_HOME")?;
        let dir = path.parent().expect("a file lies in a directory");
        let written = disk::Disk::create_dir_all(&RealDisk, dir);
        written
            .and_then(|()| disk::replace(&RealDisk, &path, &serde_json::to_vec_pretty(self)?))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The session at this very site.
    pub fn of(&self, address: &Address) -> Option<&Session> {
        self.sessions.iter().find(|session| session.is_at(address))
    }

    pub fn at(&self, url: &str) -> Option<&Session> {
        self.sessions.iter().rev().find(|session| session.url == url)
    }

    pub fn newest(&self) -> Option<&Session> {
        self.sessions.last()
    }

    fn keep(&mut self, session: Session) {
        self.sessions.retain(|other| other.url != session.url);
        self.sessions.push(session);
        let more = self.sessions.len().saturating_sub(SESSIONS_MAX);
        self.sessions.drain(..more);
    }

    fn forget(&mut self, address: &Address) {
        self.sessions.retain(|session| !session.is_at(address));
    }
}

impl Session {
    /// Another site may answer at an address that a session was made at: it is not shown the session.
    fn is_at(&self, address: &Address) -> bool {
        self.url == address.url && self.ca_pem.as_bytes() == address.ca_pem
    }
}

/// <https://specifications.freedesktop.org/basedir-spec>: a relative path is no path.
fn path() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    Some(config?.join("plimsoll/sessions.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(url: &str, ca: &str) -> Session {
        let (ca_pem, cookie) = (ca.to_owned(), format!("{SESSION_COOKIE}=secret"));
        Session { url: url.into(), ca_pem, cookie, user: "anna".into() }
    }

    fn address(url: &str, ca: &str) -> Address {
        Address { url: url.into(), ca_pem: ca.as_bytes().to_vec() }
    }

    #[test]
    fn a_session_is_shown_to_no_other_site_that_answers_at_its_address() {
        let mut kept = Kept { format: FORMAT, sessions: Vec::new() };
        kept.keep(session("https://plant", "ca of the plant"));
        assert!(kept.of(&address("https://plant", "ca of the plant")).is_some());
        assert!(kept.of(&address("https://plant", "another ca")).is_none());
        assert!(kept.of(&address("https://other", "ca of the plant")).is_none());
    }

    #[test]
    fn one_session_a_site_the_newest_last_and_never_more_than_there_is_room_for() {
        let mut kept = Kept { format: FORMAT, sessions: Vec::new() };
        for n in 0..SESSIONS_MAX + 3 {
            kept.keep(session(&format!("https://plant-{n}"), "ca"));
        }
        kept.keep(session("https://plant-20", "ca"));
        assert_eq!(kept.sessions.len(), SESSIONS_MAX);
        assert_eq!(kept.newest().unwrap().url, "https://plant-20");
        assert!(kept.at("https://plant-0").is_none());
        kept.forget(&address("https://plant-20", "ca"));
        assert!(kept.at("https://plant-20").is_none());
    }
}
