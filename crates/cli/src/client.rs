//! The operator's side of the API: finds the site by its data directory, proves itself by the site's token.

use anyhow::{Context, Result, bail};
use api::{Problem, path};
use reqwest::{Method, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

use crate::site::SiteFile;

/// Longer than any question may run on the server, so that the server's own error is seen.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The body of an answer as one of the API's types.
pub fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).context("the answer is not what this version expects")
}

pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// For the site whose data directory this is.
    pub fn of(data: &Path) -> Result<Self> {
        let site = SiteFile::read(data)?;
        let token = data.join("site/api.token");
        let token = std::fs::read_to_string(&token)
            .with_context(|| format!("cannot read {}", token.display()))?;
        let ca = data.join("site/ca.pem");
        let mut anchors = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&ca)
            .with_context(|| format!("cannot read {}", ca.display()))?
        {
            anchors.add(certificate?)?;
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(anchors)
            .with_no_client_auth();
        tls.resumption = rustls::client::Resumption::disabled();
        let http =
            reqwest::Client::builder().tls_backend_preconfigured(tls).timeout(TIMEOUT).build()?;
        let base = format!("https://127.0.0.1:{}", site.port_base);
        Ok(Self { http, base, token: token.trim().to_owned() })
    }

    pub async fn get(&self, path: &str) -> Result<Response> {
        self.call(Method::GET, path, None::<&()>).await
    }

    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Response> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response> {
        let mut request =
            self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request =
                request.header("content-type", "application/json").body(serde_json::to_vec(body)?);
        }
        let response = request.send().await.with_context(|| {
            format!(
                "no answer from {}: is it running? (`plimsoll up` or `plimsoll control`)",
                self.base
            )
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => bail!("{problem} ({status})"),
            Err(_) => bail!("{status}: {}", String::from_utf8_lossy(&body)),
        }
    }

    pub async fn ask(&self, ask: &api::Ask) -> Result<api::Answer> {
        let response = self.post(path::QUERY, ask).await?;
        read(&response.bytes().await?)
    }
}
