//! EST (RFC 7030): how a station asks for certificates, over mutual TLS.
//!
//! `simpleenroll` with the IDevID gives the first certificate for a TLS key; `simplereenroll` with the present TLS
//! certificate renews it; `seal/simpleenroll` with the present TLS certificate gives one for a key that seals
//! (INV-PURP-1: another key, another purpose). Who may have what is the server's to decide.
//!
//! Each call ends after [`TIMEOUT`] and reads at most [`ANSWER_BYTES_MAX`]; nothing is tried twice here:
//! [`EstError::retry_after`] tells the caller whether, and when, trying again makes sense.

use crate::pkcs7::{self, Pkcs7Error};
use crate::tls::{self, Alpn, TlsError};
use api::path;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{StatusCode, redirect};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use trust::cose::SecretKey;

/// A handshake, a database commit and a signature; on a bad link a few seconds each.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A chain of four certificates in PKCS#7 and base64 has 8 KiB.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long to wait when the server says that it is busy, and for how long it may make us.
const RETRY_DEFAULT: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(3600);

const PKCS10: &str = "application/pkcs10";

/// What the certified key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Tls,
    Seal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Enroll,
    Reenroll,
}

#[derive(Debug, thiserror::Error)]
pub enum EstError {
    #[error("cannot set up TLS towards the EST server")]
    Tls(#[from] TlsError),
    #[error("cannot set up an HTTP client for `{base_url}`")]
    Setup { base_url: String, source: reqwest::Error },
    #[error("no answer from `{endpoint}`")]
    Unreachable { endpoint: String, source: reqwest::Error },
    /// RFC 7030 §4.2.3: the request is kept, an operator may have to approve it.
    #[error("`{endpoint}` has not decided yet: ask again in {} s", retry_after.as_secs())]
    Pending { endpoint: String, retry_after: Duration },
    #[error("`{endpoint}` is busy ({status}): ask again in {} s: {detail}", retry_after.as_secs())]
    Busy { endpoint: String, status: u16, retry_after: Duration, detail: String },
    #[error("`{endpoint}` refused: expected status 200, found {status}: {detail}")]
    Refused { endpoint: String, status: u16, detail: String },
    #[error("the answer of `{endpoint}` is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLarge { endpoint: String },
    #[error("the answer of `{endpoint}` is not what EST says: expected {expected}")]
    NotEst { endpoint: String, expected: &'static str },
    #[error("the answer of `{endpoint}` is not what EST says")]
    NotPkcs7 { endpoint: String, source: Pkcs7Error },
}

impl EstError {
    /// How long to wait at least before trying again; `None`: trying again would bring the same answer.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Pending { retry_after, .. } | Self::Busy { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::Unreachable { .. } => Some(Duration::ZERO),
            _ => None,
        }
    }
}

/// As whom to ask: the certificate's chain (DER, leaf first) and its key.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub chain: &'a [Vec<u8>],
    pub key: &'a SecretKey,
}

/// Somebody who certifies keys: [`Server`] in earnest, a double in tests.
pub trait Est: Send + Sync {
    /// Asks for a certificate for the key of a request (PKCS#10 DER). Returns what was answered, in DER.
    fn enroll(
        &self,
        caller: Caller<'_>,
        operation: Operation,
        purpose: Purpose,
        csr: &[u8],
    ) -> impl Future<Output = Result<Vec<Vec<u8>>, EstError>> + Send;
}

/// An EST server and the authorities that its TLS certificate must come from.
#[derive(Clone, Debug)]
pub struct Server {
    base_url: String,
    anchors: Vec<Vec<u8>>,
}

impl Server {
    /// `base_url` is `https://host:port`.
    pub fn new(base_url: &str, anchors: Vec<Vec<u8>>) -> Self {
        Self { base_url: base_url.trim_end_matches('/').to_owned(), anchors }
    }

    fn client(&self, caller: Caller<'_>) -> Result<Client, EstError> {
        let own = Some((caller.chain, caller.key));
        Client::new(&self.base_url, tls::client(own, &self.anchors, Alpn::Http11)?)
    }
}

impl Est for Server {
    async fn enroll(
        &self,
        caller: Caller<'_>,
        operation: Operation,
        purpose: Purpose,
        csr: &[u8],
    ) -> Result<Vec<Vec<u8>>, EstError> {
        self.client(caller)?.enroll(operation, purpose, csr).await
    }
}

/// An HTTP client under one TLS identity.
#[derive(Clone, Debug)]
pub struct Client {
    base_url: String,
    http: reqwest::Client,
}

impl Client {
    pub fn new(base_url: &str, tls: Arc<ClientConfig>) -> Result<Self, EstError> {
        let base_url = base_url.trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&tls))
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|source| EstError::Setup { base_url: base_url.clone(), source })?;
        Ok(Self { base_url, http })
    }

    /// The authorities that the server names (RFC 7030 §4.1).
    pub async fn cacerts(&self) -> Result<Vec<Vec<u8>>, EstError> {
        let endpoint = format!("{}{}/cacerts", self.base_url, path::EST);
        let request = self.http.get(&endpoint);
        certificates(&endpoint, answer(&endpoint, request).await?)
    }

    /// Certificates for the key of a request (RFC 7030 §4.2): the one asked for, and perhaps its issuers.
    pub async fn enroll(
        &self,
        operation: Operation,
        purpose: Purpose,
        csr: &[u8],
    ) -> Result<Vec<Vec<u8>>, EstError> {
        let endpoint = format!("{}{}", self.base_url, enroll_path(operation, purpose));
        let request = self
            .http
            .post(&endpoint)
            .header(CONTENT_TYPE, PKCS10)
            .header("Content-Transfer-Encoding", "base64")
            .body(encode_body(csr));
        certificates(&endpoint, answer(&endpoint, request).await?)
    }
}

/// Where an operation is asked for (RFC 7030 §3.2.2).
pub fn enroll_path(operation: Operation, purpose: Purpose) -> String {
    let label = match purpose {
        Purpose::Tls => String::new(),
        Purpose::Seal => format!("/{}", path::EST_SEAL_LABEL),
    };
    let operation = match operation {
        Operation::Enroll => "simpleenroll",
        Operation::Reenroll => "simplereenroll",
    };
    format!("{}{label}/{operation}", path::EST)
}

/// A body as EST has it: base64 (RFC 7030 §4.1.3 and §4.2.1), on one line, since strongSwan refuses line breaks.
pub fn encode_body(der: &[u8]) -> String {
    STANDARD.encode(der)
}

/// Reads a body of base64 with or without line breaks (RFC 8951 §3.1). `None`: it is something else.
pub fn decode_body(body: &[u8]) -> Option<Vec<u8>> {
    let compact: Vec<u8> = body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    STANDARD.decode(compact).ok()
}

async fn answer(endpoint: &str, request: reqwest::RequestBuilder) -> Result<Vec<u8>, EstError> {
    let unreachable = |source: reqwest::Error| EstError::Unreachable {
        endpoint: endpoint.to_owned(),
        source: source.without_url(),
    };
    let mut response = request.send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(EstError::TooLarge { endpoint: endpoint.to_owned() });
        }
        body.extend_from_slice(&chunk);
    }
    judge(endpoint, response.status(), response.headers(), body)
}

/// What an answer means, from its status on.
fn judge(
    endpoint: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> Result<Vec<u8>, EstError> {
    let endpoint = endpoint.to_owned();
    let detail = || {
        let text = String::from_utf8_lossy(&body);
        text.chars().filter(|c| !c.is_control()).take(300).collect::<String>()
    };
    match status {
        StatusCode::OK => Ok(body),
        StatusCode::ACCEPTED => {
            Err(EstError::Pending { endpoint, retry_after: retry_after(headers) })
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(EstError::Busy {
            endpoint,
            status: status.as_u16(),
            retry_after: retry_after(headers),
            detail: detail(),
        }),
        _ => Err(EstError::Refused { endpoint, status: status.as_u16(), detail: detail() }),
    }
}

/// Seconds only: our server writes no dates, and a date is no use to who does not know the time.
fn retry_after(headers: &HeaderMap) -> Duration {
    let header = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = header.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    seconds.unwrap_or(RETRY_DEFAULT).min(RETRY_MAX)
}

fn certificates(endpoint: &str, body: Vec<u8>) -> Result<Vec<Vec<u8>>, EstError> {
    let endpoint = || endpoint.to_owned();
    let der = decode_body(&body)
        .ok_or_else(|| EstError::NotEst { endpoint: endpoint(), expected: "base64" })?;
    pkcs7::decode(&der).map_err(|source| EstError::NotPkcs7 { endpoint: endpoint(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn a_body_is_one_line_and_is_read_back_however_it_was_broken() {
        let der: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let body = encode_body(&der);
        assert!(!body.contains(char::is_whitespace));
        assert_eq!(decode_body(body.as_bytes()).unwrap(), der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        assert_eq!(decode_body(lines.join("\r\n").as_bytes()).unwrap(), der);
        assert_eq!(decode_body(b"!"), None);
    }

    #[test]
    fn each_operation_has_its_own_path() {
        let paths = [
            enroll_path(Operation::Enroll, Purpose::Tls),
            enroll_path(Operation::Reenroll, Purpose::Tls),
            enroll_path(Operation::Enroll, Purpose::Seal),
            enroll_path(Operation::Reenroll, Purpose::Seal),
        ];
        assert_eq!(
            paths,
            [
                "/.well-known/est/simpleenroll",
                "/.well-known/est/simplereenroll",
                "/.well-known/est/seal/simpleenroll",
                "/.well-known/est/seal/simplereenroll",
            ]
        );
    }

    #[test]
    fn a_status_says_whether_asking_again_makes_sense() {
        let ask = |status: u16, retry: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(retry) = retry {
                headers.insert(RETRY_AFTER, HeaderValue::from_str(retry).unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            judge("https://c/x", status, &headers, b"{\"detail\":\"no\"}\n\x1b".to_vec())
        };
        assert!(ask(200, None).is_ok());
        let pending = ask(202, Some("7")).unwrap_err();
        assert_eq!(pending.to_string(), "`https://c/x` has not decided yet: ask again in 7 s");
        assert_eq!(pending.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(ask(202, None).unwrap_err().retry_after(), Some(RETRY_DEFAULT));
        assert_eq!(ask(503, Some("999999")).unwrap_err().retry_after(), Some(RETRY_MAX));
        assert_eq!(ask(429, Some("soon")).unwrap_err().retry_after(), Some(RETRY_DEFAULT));
        let refused = ask(403, None).unwrap_err();
        assert_eq!(refused.retry_after(), None);
        assert_eq!(
            refused.to_string(),
            "`https://c/x` refused: expected status 200, found 403: {\"detail\":\"no\"}"
        );
        assert_eq!(ask(302, None).unwrap_err().retry_after(), None);
    }
}
