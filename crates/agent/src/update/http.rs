//! HTTP/1.1 to a gateway: the listener, the certificates and the name are those of MQTT, chosen by ALPN.
//!
//! Each call ends, and reads no more than it was told. Nothing is tried twice here.

use super::checkin::{self, BadAnswer};
use crate::link::Place;
use api::path;
use api::update::{CHECK_IN_ANSWER_BYTES_MAX, CheckIn};
use model::{Digest, told};
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};
use rustls::ClientConfig;
use std::io;
use std::time::Duration;

/// Name, TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(10);
/// A check-in goes on from the gateway to control, which may have to wait for its own disk.
const CALL: Duration = Duration::from_secs(20);
/// An image that brings nothing for so long is asked for anew, from where it is.
const SILENCE: Duration = Duration::from_secs(30);
/// One answer brings no more of an image than comes in this time: then it is asked for anew, from where it is.
const STREAM: Duration = Duration::from_secs(15 * 60);

/// A gateway cannot make a device wait for longer.
const RETRY_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot look up `{address}`")]
    Lookup { address: String, source: io::Error },
    #[error("no gateway at `{address}`: the name has no address")]
    NoAddress { address: String },
    #[error("cannot set up an HTTP client for `{gateway}`")]
    Setup { gateway: String, source: reqwest::Error },
    #[error("no answer from `{gateway}` to {call}")]
    Unreachable { gateway: String, call: &'static str, source: reqwest::Error },
    #[error("no word from `{gateway}` for {} s in the middle of {call}", SILENCE.as_secs())]
    Silent { gateway: String, call: &'static str },
    #[error("`{gateway}` refused {call}: expected status {expected}, found {found}")]
    Status { gateway: String, call: &'static str, expected: u16, found: u16, retry_after: Duration },
    #[error("the answer of `{gateway}` to {call} is longer than {bytes_max} bytes")]
    TooLong { gateway: String, call: &'static str, bytes_max: usize },
    #[error(
        "`{gateway}` gave another part of the image than was asked for: expected it from {expected} on"
    )]
    OtherRange { gateway: String, expected: u64 },
    #[error("`{gateway}` gave no answer to a check-in")]
    NoCheckIn { gateway: String, source: BadAnswer },
}

impl HttpError {
    /// How long the gateway asked us to wait.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        }
    }

    pub fn told(&self) -> String {
        told(self)
    }
}

/// One gateway, for some calls in a row.
#[derive(Clone, Debug)]
pub struct Gateway {
    http: reqwest::Client,
    name: String,
    base_url: String,
}

impl Gateway {
    /// Finds the address; a connection is made by the first call. `site`: the one in the device's own certificate.
    pub async fn find(place: &Place, site: &str, tls: &ClientConfig) -> Result<Self, HttpError> {
        let address = || place.address.clone();
        let found = tokio::time::timeout(CONNECT, tokio::net::lookup_host(&place.address)).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let addresses: Vec<_> =
            found.map_err(|source| HttpError::Lookup { address: address(), source })?.collect();
        let port = addresses.first().ok_or_else(|| HttpError::NoAddress { address: address() })?;
        let (host, port) = (format!("{}.gateway.{site}.internal", place.name), port.port());
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .resolve_to_addrs(&host, &addresses)
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .build()
            .map_err(|source| HttpError::Setup { gateway: place.name.to_string(), source })?;
        let (name, base_url) = (place.name.to_string(), format!("https://{host}:{port}"));
        Ok(Self { http, name, base_url })
    }

    /// Sends a sealed manifest.
    pub async fn check_in(&self, message: Vec<u8>) -> Result<CheckIn, HttpError> {
        let call = "a check-in";
        let request = self
            .http
            .post(format!("{}{}", self.base_url, path::CHECK_IN))
            .header(CONTENT_TYPE, "application/cose")
            .body(message);
        let response = request.send().await.map_err(|source| self.unreachable(call, source))?;
        self.expect(call, StatusCode::OK, &response)?;
        let body = self.body(call, response, CHECK_IN_ANSWER_BYTES_MAX).await?;
        let gateway = || self.name.clone();
        checkin::read(&body).map_err(|source| HttpError::NoCheckIn { gateway: gateway(), source })
    }

    /// A metadata file of the image repository. None: there is none of this name.
    pub async fn metadata(
        &self,
        name: &str,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, HttpError> {
        let call = "metadata";
        let request = self.http.get(format!("{}{}/{name}", self.base_url, path::IMAGES));
        let response = request.send().await.map_err(|source| self.unreachable(call, source))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.expect(call, StatusCode::OK, &response)?;
        self.body(call, response, bytes_max).await.map(Some)
    }

    /// An image from `at` on.
    pub async fn image(&self, digest: &Digest, at: u64) -> Result<Stream, HttpError> {
        let call = "an image";
        let mut request =
            self.http.get(format!("{}{}/{digest}", self.base_url, path::BLOBS)).timeout(STREAM);
        if at > 0 {
            request = request.header(RANGE, format!("bytes={at}-"));
        }
        let response = request.send().await.map_err(|source| self.unreachable(call, source))?;
        if at == 0 {
            self.expect(call, StatusCode::OK, &response)?;
        } else {
            self.expect(call, StatusCode::PARTIAL_CONTENT, &response)?;
            let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
            if range.and_then(first_of_range) != Some(at) {
                return Err(HttpError::OtherRange { gateway: self.name.clone(), expected: at });
            }
        }
        Ok(Stream { response, gateway: self.name.clone() })
    }

    fn expect(
        &self,
        call: &'static str,
        status: StatusCode,
        response: &Response,
    ) -> Result<(), HttpError> {
        let (expected, found) = (status.as_u16(), response.status().as_u16());
        if found == expected {
            return Ok(());
        }
        // In seconds (RFC 9110 §10.2.3); our gateways give no dates.
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked =
            asked.and_then(|text| text.parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
        let (gateway, retry_after) = (self.name.clone(), asked.min(RETRY_MAX));
        Err(HttpError::Status { gateway, call, expected, found, retry_after })
    }

    /// The whole body, if it is not too long. No more is read than that.
    async fn body(
        &self,
        call: &'static str,
        mut response: Response,
        bytes_max: usize,
    ) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        while let Some(piece) =
            response.chunk().await.map_err(|source| self.unreachable(call, source))?
        {
            if body.len() + piece.len() > bytes_max {
                return Err(HttpError::TooLong { gateway: self.name.clone(), call, bytes_max });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn unreachable(&self, call: &'static str, source: reqwest::Error) -> HttpError {
        HttpError::Unreachable { gateway: self.name.clone(), call, source }
    }
}

/// `bytes 5-9/10`: where the part begins (RFC 9110 §14.4).
fn first_of_range(value: &str) -> Option<u64> {
    value.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// An image that is coming.
#[derive(Debug)]
pub struct Stream {
    response: Response,
    gateway: String,
}

impl Stream {
    /// The next bytes; None: nothing more comes.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        let call = "an image";
        match tokio::time::timeout(SILENCE, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece.map(|piece| piece.to_vec())),
            Ok(Err(source)) => {
                Err(HttpError::Unreachable { gateway: self.gateway.clone(), call, source })
            }
            Err(_) => Err(HttpError::Silent { gateway: self.gateway.clone(), call }),
        }
    }
}
