//! TLS 1.3 configurations: the only ones that the product uses.
//!
//! No version below 1.3, no session kept, no ticket sent or used, no early data: every connection presents and verifies
//! certificates anew. rustls' defaults resume a session without asking the verifier, and so let a revoked client back
//! in (INV-AUTH-1).

use crate::UnixTime;
use crate::cert::{self, CertError};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::{Arc, LazyLock};
use trust::cose::SecretKey;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate of this end cannot be used for TLS with its key")]
    Own(#[source] rustls::Error),
    #[error("an anchor cannot be used: expected an authority's certificate")]
    Anchor(#[source] rustls::Error),
    #[error("no anchors: expected at least one authority to verify the other end against")]
    NoAnchors,
    #[error("the certificate of this end or an anchor cannot be read")]
    Certificate(#[from] CertError),
    #[error("cannot set TLS up")]
    Setup(#[source] rustls::Error),
}

/// Whether a client must show a certificate. One that it shows must verify, in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    Required,
    /// For control: operators come with a bearer token.
    Optional,
}

/// What is spoken inside (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// MQTT, from an end that calls: foreign clients name nothing.
    None,
    Http11,
    /// The listener of devices: one port for both. Who names nothing is taken for MQTT, as foreign clients are.
    MqttOrHttp11,
}

/// What two ends have agreed upon that speak HTTP/1.1.
pub const HTTP11: &[u8] = b"http/1.1";

/// The end that listens. `chain` is in DER, leaf first.
pub fn server(
    chain: &[Vec<u8>],
    key: &SecretKey,
    client_anchors: &[Vec<u8>],
    auth: ClientAuth,
    alpn: Alpn,
) -> Result<Arc<ServerConfig>, TlsError> {
    let roots = Arc::new(roots(client_anchors)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, PROVIDER.clone());
    let verifier = match auth {
        ClientAuth::Required => builder.build(),
        ClientAuth::Optional => builder.allow_unauthenticated().build(),
    };
    let mut config =
        ServerConfig::builder_with_details(PROVIDER.clone(), clock(chain, client_anchors)?)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Setup)?
            .with_client_cert_verifier(verifier.map_err(|_| TlsError::NoAnchors)?)
            .with_single_cert(certificates(chain), private_key(key))
            .map_err(TlsError::Own)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = alpn.names();
    Ok(Arc::new(config))
}

/// The end that calls. `own` is its chain in DER, leaf first, and the key; without it no certificate is shown.
pub fn client(
    own: Option<(&[Vec<u8>], &SecretKey)>,
    server_anchors: &[Vec<u8>],
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = own.map_or(&[][..], |(chain, _)| chain);
    let builder =
        ClientConfig::builder_with_details(PROVIDER.clone(), clock(chain, server_anchors)?)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots(server_anchors)?);
    let mut config = match own {
        Some((chain, key)) => builder
            .with_client_auth_cert(certificates(chain), private_key(key))
            .map_err(TlsError::Own)?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = alpn.names();
    Ok(Arc::new(config))
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

impl Alpn {
    fn names(self) -> Vec<Vec<u8>> {
        match self {
            Self::None => vec![],
            Self::Http11 => vec![HTTP11.to_vec()],
            Self::MqttOrHttp11 => vec![b"mqtt".to_vec(), HTTP11.to_vec()],
        }
    }
}

fn roots(anchors: &[Vec<u8>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for der in anchors {
        cert::check_authority(&cert::certificate(der)?)?;
        store.add(CertificateDer::from(der.as_slice())).map_err(TlsError::Anchor)?;
    }
    if store.is_empty() { Err(TlsError::NoAnchors) } else { Ok(store) }
}

fn certificates(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|der| CertificateDer::from(der.clone())).collect()
}

/// rustls takes the bytes as its own and does not wipe them: one copy stays in this process' freed memory.
fn private_key(key: &SecretKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8_der()))
}

/// The machine's clock, never below the newest signed time that this end holds: when its own certificate or an anchor
/// began. So a machine that wakes up in 1970 still reaches its site, and an expired certificate is refused at least as
/// far as this end can know.
fn clock(chain: &[Vec<u8>], anchors: &[Vec<u8>]) -> Result<Arc<dyn TimeProvider>, TlsError> {
    let mut floor = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
    for der in chain.iter().chain(anchors) {
        floor = floor.max(cert::not_before(der)?);
    }
    Ok(Arc::new(FloorClock { floor }))
}

#[derive(Debug)]
struct FloorClock {
    floor: UnixTime,
}

impl TimeProvider for FloorClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::now().max(self.floor))
    }
}

#[cfg(test)]
mod tests;
