//! TLS 1.3 with keys and certificates read from the files that a device or gateway holds.

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// What names HTTP/1.1 in a handshake (RFC 7301).
pub const HTTP: &[u8] = b"http/1.1";

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn anchors(site_ca: &Path) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(site_ca)? {
        store.add(certificate?)?;
    }
    Ok(store)
}

fn identity(dir: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::pem_file_iter(dir.join("tls.pem"))?.collect::<Result<_, _>>()?;
    Ok((chain, PrivateKeyDer::from_pem_file(dir.join("tls.key"))?))
}

/// Speaks as the device or gateway whose directory this is: MQTT, or what `alpn` names.
pub fn client(dir: &Path, site_ca: &Path, alpn: Option<&[u8]>) -> Result<Arc<ClientConfig>> {
    let (chain, key) =
        identity(dir).with_context(|| format!("no identity in {}", dir.display()))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(anchors(site_ca)?)
        .with_client_auth_cert(chain, key)?;
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    Ok(Arc::new(config))
}

/// Listens as the gateway whose directory this is, to clients that the site's CA knows.
pub fn server(dir: &Path, site_ca: &Path) -> Result<Arc<ServerConfig>> {
    let (chain, key) =
        identity(dir).with_context(|| format!("no identity in {}", dir.display()))?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(anchors(site_ca)?), provider())
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(Arc::new(config))
}

pub fn gateway_name(gateway: &str, site: &str) -> Result<ServerName<'static>> {
    Ok(ServerName::try_from(format!("{gateway}.gateway.{site}.internal"))?)
}

/// The device that a client certificate names: the first label of its DNS name.
pub fn device_of(
    certificate: &CertificateDer<'_>,
    known: impl Iterator<Item = String>,
    site: &str,
) -> Option<String> {
    let der = certificate.as_ref();
    known.into_iter().find(|device| {
        let name = format!("{device}.device.{site}.internal");
        // A dNSName is an IA5String behind its tag and length, so the whole name has this head in front of it.
        let mut needle = vec![0x82, name.len() as u8];
        needle.extend_from_slice(name.as_bytes());
        der.windows(needle.len()).any(|window| window == needle)
    })
}
