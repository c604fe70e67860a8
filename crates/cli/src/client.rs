//! One side of the API: calls a site, says again what may have been lost on the way, and tells what a refusal means.
//!
//! What changes something has a key by which control knows it again (`Idempotency-Key`), so that a second time is no second
//! wish. What has a password in it has none, and is said again only if it cannot have arrived. Never: follows a redirect, resumes a TLS session, shows a token to who does not prove to be the site.

use crate::exit::{Ended, Exit, Waits};
use crate::place::{Address, Credential, Place};
use anyhow::{Context, Result};
use api::{Problem, path};
use reqwest::{Method, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;

/// Longer than a question runs on the server by default, so that the server's own error is seen.
const TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call is said again so often, if the site could not be reached or had no room.
const AGAIN_MAX: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Who is told to come later than this is told so, and not kept waiting.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// The body of an answer as one of the API's types.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).context("the answer is not what this version expects")
}

/// Words of a path and a query string, escaped.
pub fn with_words<'a>(
    path: &str,
    words: impl IntoIterator<Item = (&'a str, Option<String>)>,
) -> Result<String> {
    let words = words.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let url = reqwest::Url::parse_with_params(&format!("https://site{path}"), words)?;
    Ok(match url.query() {
        Some(query) if !query.is_empty() => format!("{}?{query}", url.path()),
        _ => url.path().to_owned(),
    })
}

/// A path with a name in it, as it was typed: whatever it is, it is one segment.
pub fn segment(path: &str, name: &str, verb: Option<&str>) -> Result<String> {
    if matches!(name, "" | "." | "..") {
        return Err(Ended::new(Exit::Usage, format!("expected a name, found {name:?}")).into());
    }
    let mut url = reqwest::Url::parse(&format!("https://site{path}"))?;
    let mut segments = url.path_segments_mut().expect("an https URL has segments");
    segments.push(name).extend(verb);
    drop(segments);
    Ok(url.path().to_owned())
}

/// What it would be to say a call twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It changes nothing.
    Question,
    /// It is known again by its key.
    Known,
    /// A second wish.
    Unknown,
}

pub struct Client {
    http: reqwest::Client,
    address: Address,
    credential: Credential,
}

impl Client {
    /// For the site that a command names, as whoever is signed in there.
    pub fn of(place: &Place) -> Result<Self> {
        let (address, credential) = place.find()?;
        Self::at(&address, credential)
    }

    /// For the site whose data directory this is, by its own token.
    pub fn of_dir(data: &Path) -> Result<Self> {
        Self::of(&Place { data: Some(data.to_owned()), ..Place::default() })
    }

    pub fn at(address: &Address, credential: Credential) -> Result<Self> {
        let mut anchors = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&address.ca_pem) {
            anchors.add(certificate.context("the site's CA is not PEM")?)?;
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(anchors)
            .with_no_client_auth();
        tls.resumption = rustls::client::Resumption::disabled();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http, address: address.clone(), credential })
    }

    pub fn url(&self) -> &str {
        &self.address.url
    }

    pub async fn get(&self, path: &str) -> Result<Vec<u8>> {
        whole(self.send_get(path).await?).await
    }

    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        read(&self.get(path).await?)
    }

    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(body)?;
        whole(self.send(Method::POST, path, Some(body), Again::Known).await?).await
    }

    pub async fn delete(&self, path: &str) -> Result<Vec<u8>> {
        whole(self.send(Method::DELETE, path, None, Again::Known).await?).await
    }

    /// Of what has a password in it control keeps nothing, not even a key.
    pub async fn post_secret(&self, path: &str, body: &impl Serialize) -> Result<Vec<u8>> {
        whole(self.send_secret(path, body).await?).await
    }

    pub async fn send_secret(&self, path: &str, body: &impl Serialize) -> Result<Response> {
        self.send(Method::POST, path, Some(serde_json::to_vec(body)?), Again::Unknown).await
    }

    pub async fn ask(&self, ask: &api::Ask) -> Result<api::Answer> {
        read(&self.ask_bytes(ask).await?)
    }

    pub async fn ask_bytes(&self, ask: &api::Ask) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(ask)?;
        whole(self.send(Method::POST, path::QUERY, Some(body), Again::Question).await?).await
    }

    /// An answer whose body is read bit by bit.
    pub async fn send_get(&self, path: &str) -> Result<Response> {
        self.send(Method::GET, path, None, Again::Question).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        twice: Again,
    ) -> Result<Response> {
        let key = (twice == Again::Known).then(key).transpose()?;
        let mut again = 0;
        loop {
            let mut request =
                self.http.request(method.clone(), format!("{}{path}", self.address.url));
            request = match &self.credential {
                Credential::Bearer(token) => request.bearer_auth(token),
                // A browser says from where a change comes, and a session is asked for it.
                Credential::Cookie(cookie) => {
                    request.header("cookie", cookie).header("origin", self.url())
                }
                Credential::Nobody => request.header("origin", self.url()),
            };
            if let Some(key) = &key {
                request = request.header("idempotency-key", key);
            }
            if let Some(body) = &body {
                request = request.header("content-type", "application/json").body(body.clone());
            }
            let sent = request.send().await;
            let told = match &sent {
                Ok(response) => match (response.status(), retry_after(response)) {
                    (StatusCode::SERVICE_UNAVAILABLE, told) if twice != Again::Unknown => {
                        Some(told)
                    }
                    // The same call is still under way from the time before.
                    (StatusCode::CONFLICT, Some(told)) if twice == Again::Known => Some(Some(told)),
                    _ => None,
                },
                Err(error) if error.is_timeout() => None,
                Err(error) if error.is_connect() => Some(None),
                Err(error) if twice != Again::Unknown && error.is_request() => Some(None),
                Err(_) => None,
            };
            match told.and_then(|told| wait_before(again, told)) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return self.judge(sent).await,
            }
            again += 1;
        }
    }

    async fn judge(&self, sent: reqwest::Result<Response>) -> Result<Response> {
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                let what = match error.is_timeout() {
                    true => format!("no answer from {} in time", self.url()),
                    false => format!("no answer from {}: {}", self.url(), model::told(&error)),
                };
                let next =
                    "is it running (plimsoll up, plimsoll control), and is this its address?";
                return Err(Ended::new(Exit::Unreachable, what).next(next).into());
            }
        };
        let status = response.status();
        if status == StatusCode::ACCEPTED {
            let body = whole(response).await?;
            return match serde_json::from_slice(&body) {
                Ok(approval) => Err(Waits { approval, body }.into()),
                Err(error) => Err(error).context("the answer is not what this version expects"),
            };
        }
        if status.is_success() {
            return Ok(response);
        }
        let later = retry_after(&response);
        let body = whole(response).await?;
        Err(self.refused(status, later, &body).into())
    }

    fn refused(&self, status: StatusCode, later: Option<Duration>, body: &[u8]) -> Ended {
        let exit = Exit::of_status(status.as_u16());
        let problem = serde_json::from_slice::<Problem>(body);
        let what = match &problem {
            Ok(problem) => format!("{problem} ({status})"),
            Err(_) => format!("{status}: {}", String::from_utf8_lossy(body)),
        };
        let ended = Ended::new(exit, crate::table::plain(&what));
        match (status, later) {
            (StatusCode::UNAUTHORIZED, _) => ended.next(match &self.credential {
                Credential::Cookie(_) => "plimsoll session login: the session has ended",
                Credential::Bearer(_) => {
                    "another token: this one is not (or no longer) this site's"
                }
                Credential::Nobody => {
                    "the name or the password is another one, or the user is disabled"
                }
            }),
            (StatusCode::FORBIDDEN, _) => ended
                .next("plimsoll session show says what you may do; an administrator grants more"),
            (_, Some(later)) => ended.next(format!("again in {} s", later.as_secs().max(1))),
            _ => ended,
        }
    }
}

/// One wish, however often it is said.
fn key() -> Result<String> {
    let mut drawn = [0; 16];
    getrandom::fill(&mut drawn).context("the system has no random numbers")?;
    Ok(hex::encode(drawn))
}

async fn whole(response: Response) -> Result<Vec<u8>> {
    let cut = "the answer was cut off: it may have been done; look before it is said again";
    let body = response.bytes().await.map_err(|_| Ended::new(Exit::Unreachable, cut))?;
    Ok(body.to_vec())
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// How long to wait before a call is said for the `again`-th time more, if it is worth while.
fn wait_before(again: u32, told: Option<Duration>) -> Option<Duration> {
    if again >= AGAIN_MAX {
        return None;
    }
    let wait = FIRST_WAIT * 2u32.pow(again);
    let wait = told.map_or(wait, |told| told.max(wait));
    (wait <= WAIT_MAX).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_said_again_three_times_each_after_a_longer_wait() {
        let waits: Vec<_> = (0..5).map(|again| wait_before(again, None)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(waits, [ms(200), ms(400), ms(800), None, None]);
        assert_eq!(wait_before(0, Some(Duration::from_secs(5))), ms(5000), "as it is told");
        assert_eq!(wait_before(0, Some(Duration::from_secs(3600))), None, "not for an hour");
    }

    #[test]
    fn words_of_a_query_string_are_escaped() {
        let words = [("subject", Some("rollout/a b&c".to_owned())), ("to", None)];
        let path = with_words("/v1/events", words).unwrap();
        assert_eq!(path, "/v1/events?subject=rollout%2Fa+b%26c");
        assert_eq!(with_words("/v1/events", [("to", None)]).unwrap(), "/v1/events");
    }

    #[test]
    fn a_name_is_one_segment_of_a_path_whatever_it_is() {
        let at = |name| segment("/v1/devices", name, Some("revoke"));
        assert_eq!(at("pump-1").unwrap(), "/v1/devices/pump-1/revoke");
        assert_eq!(at("a/../b?c#d").unwrap(), "/v1/devices/a%2F..%2Fb%3Fc%23d/revoke");
        for none in ["", ".", ".."] {
            assert_eq!(Exit::of(&at(none).unwrap_err()), Exit::Usage);
        }
    }
}
