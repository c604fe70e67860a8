//! Which site a command is for, and as whom it asks: the words that every command takes.
//!
//! Where, the first that is said: `--data`, `--url`, a site in `./data`, the site that was signed in to last. As whom, the
//! first that is there: `--token`, the session that was signed in to at this very site, the token in the data directory.

use crate::exit::{Ended, Exit};
use crate::session::{self, Kept};
use crate::site::SiteFile;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which site, and in which form")]
pub struct Place {
    /// The site's data directory, on the machine that it runs on [default: data].
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The site's API, from another machine: https://HOST:PORT.
    #[arg(long, global = true, env = "PLIMSOLL_URL")]
    pub url: Option<String>,
    /// The site's CA in PEM, with `--url`: nobody else is believed to be the site.
    #[arg(long, global = true, env = "PLIMSOLL_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// An API token, instead of a session. Better in the environment: others see a command line.
    #[arg(long, global = true, env = "PLIMSOLL_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Answer as the API does, in JSON: for programs.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Where a site answers, and what proves that it is that site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub url: String,
    pub ca_pem: Vec<u8>,
}

/// What a caller shows.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Bearer(String),
    /// A session's cookie, as `NAME=VALUE`.
    Cookie(String),
    Nobody,
}

impl Place {
    /// The data directory of a station that runs here.
    pub fn dir(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| "data".into())
    }

    /// The answer to something that was done: a line for people, the API's own body for programs.
    pub fn answer(&self, body: &[u8], line: impl FnOnce() -> String) -> Result<()> {
        match self.json {
            true => tell!("{}", String::from_utf8_lossy(body)),
            false => tell!("{}", line()),
        }
        Ok(())
    }

    /// A body of the API: as it is for programs, and laid out for people.
    pub fn shown<T: serde::de::DeserializeOwned>(
        &self,
        body: &[u8],
        lay_out: impl FnOnce(T) -> Result<()>,
    ) -> Result<()> {
        if self.json {
            tell!("{}", String::from_utf8_lossy(body));
            return Ok(());
        }
        lay_out(crate::client::read(body)?)
    }

    /// What to do next, for people.
    pub fn next(&self, what: &str) -> Result<()> {
        if !self.json {
            crate::log::next_step(what);
        }
        Ok(())
    }

    pub fn find(&self) -> Result<(Address, Credential)> {
        let kept = session::Kept::read()?;
        let (address, dir) = self.address(&kept)?;
        let credential = if let Some(token) = &self.token {
            Credential::Bearer(token.trim().to_owned())
        } else if let Some(session) = kept.of(&address) {
            Credential::Cookie(session.cookie.clone())
        } else if let Some(dir) = dir {
            let token = dir.join("site/api.token");
            let token = std::fs::read_to_string(&token)
                .with_context(|| format!("cannot read {}", token.display()))?;
            Credential::Bearer(token.trim().to_owned())
        } else {
            let what = format!("not signed in to {}", address.url);
            let next = format!(
                "plimsoll session login --url {}, or an API token in PLIMSOLL_TOKEN",
                address.url
            );
            return Err(Ended::new(Exit::Denied, what).next(next).into());
        };
        Ok((address, credential))
    }

    /// Where it is, for who has yet to sign in.
    pub fn address_only(&self) -> Result<Address> {
        Ok(self.address(&Kept::read()?)?.0)
    }

    fn address(&self, kept: &Kept) -> Result<(Address, Option<PathBuf>)> {
        // Who names a directory means it, whatever the environment says.
        if let (Some(url), None) = (&self.url, &self.data) {
            let url = origin(url)?;
            let ca_pem = match (&self.ca, kept.at(&url)) {
                (Some(ca), _) => read(ca)?,
                (None, Some(session)) => session.ca_pem.clone().into_bytes(),
                (None, None) => {
                    let what = format!("expected --ca with --url {url}: the site's CA in PEM");
                    let next =
                        "copy site/ca.pem from the site's data directory, by a way that you trust";
                    return Err(Ended::new(Exit::Usage, what).next(next).into());
                }
            };
            return Ok((Address { url, ca_pem }, None));
        }
        let dir = self.dir();
        if self.data.is_none() && !SiteFile::path(&dir).exists() {
            if let Some(session) = kept.newest() {
                let ca_pem = session.ca_pem.clone().into_bytes();
                return Ok((Address { url: session.url.clone(), ca_pem }, None));
            }
            let path = SiteFile::path(&dir);
            let what = format!("no site in {}: expected {}", dir.display(), path.display());
            let next = "plimsoll up makes one here; --data DIR names another; plimsoll session login --url URL \
                        --ca FILE signs in to one on another machine";
            return Err(Ended::new(Exit::Unreachable, what).next(next).into());
        }
        let site = SiteFile::read(&dir)?;
        let url = format!("https://127.0.0.1:{}", site.port_base);
        let ca_pem = read(&dir.join("site/ca.pem"))?;
        Ok((Address { url, ca_pem }, Some(dir)))
    }
}

/// Scheme, host and port of a URL, and that it has nothing else.
fn origin(text: &str) -> Result<String> {
    let refused = || Ended::new(Exit::Usage, format!("expected https://HOST:PORT, found {text}"));
    let url = reqwest::Url::parse(text).map_err(|_| refused())?;
    let bare = url.path() == "/" && url.query().is_none() && url.username().is_empty();
    if url.scheme() != "https" || !bare || url.host_str().is_none() {
        return Err(refused().into());
    }
    Ok(url.origin().ascii_serialization())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_named_by_scheme_host_and_port_and_nothing_else() {
        assert_eq!(origin("https://plant:18800/").unwrap(), "https://plant:18800");
        assert_eq!(origin("https://plant:443").unwrap(), "https://plant");
        for bad in ["http://plant", "plant:18800", "https://plant/v1", "https://a:b@plant", ""] {
            let error = origin(bad).unwrap_err();
            assert_eq!(Exit::of(&error), Exit::Usage, "{bad}");
        }
    }
}
