//! A certificate authority with its key in a file: the site's, and the demo maker's.
//!
//! P-256, self-signed, ten years, no authority below it. It signs what its caller decided to grant; each certificate is
//! read back as exactly the role that was asked for before it leaves (INV-PURP-1).

use crate::UnixTime;
use crate::cert::{self, CertError, Leaf, NotAfter, Role};
use crate::file::{self, KeyError};
use crate::pem::{self, NotPem};
use crate::x509::{self, RcgenKey};
use disk::Disk;
use model::envelope::Algorithm;
use model::{DeviceId, GatewayId};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, DnsName};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trust::cose::{NotAKey, PublicKey, SecretKey, Signer as _};

/// Ten years of 365.25 days.
const LIFETIME: Duration = Duration::from_secs(315_576_000);

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot read the authority's certificate `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the authority's certificate `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the authority's certificate `{}` is there, its key `{}` is not", cert.display(), key.display())]
    KeyIsGone { key: PathBuf, cert: PathBuf },
    #[error("the authority's certificate `{}` is not that of its key `{}`", cert.display(), key.display())]
    NotItsKey { key: PathBuf, cert: PathBuf },
    #[error("`{}` holds no certificate", path.display())]
    NotPem { path: PathBuf, source: NotPem },
    #[error("`{}` holds no authority's certificate", path.display())]
    NotAnAuthority { path: PathBuf, source: CertError },
    #[error("cannot certify this key")]
    BadKey(#[source] NotAKey),
    #[error("cannot put {what} {found:?} into a certificate: expected {expected}")]
    BadName { what: &'static str, expected: &'static str, found: String },
    #[error(
        "cannot certify from {from} until {until}: expected a time that ends after it begins, within the authority's own, which ends {end} (seconds since 1970)"
    )]
    BadTime { from: u64, until: u64, end: u64 },
    #[error("cannot certify a {role} without an end: only an IDevID has none")]
    NoEnd { role: &'static str },
    #[error("cannot draw random bytes for a certificate's number")]
    Random(#[source] getrandom::Error),
    #[error("cannot sign a certificate")]
    Sign(#[source] rcgen::Error),
    #[error("the certificate that was signed does not say what was asked for")]
    Unfit(#[source] CertError),
}

/// What a certificate is to say: see the table in [`cert`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    IDevId {
        serial: String,
    },
    DeviceTls {
        device: DeviceId,
        site: String,
    },
    /// `name` is a device's or a gateway's.
    Seal {
        name: DeviceId,
        site: String,
    },
    GatewayTls {
        gateway: GatewayId,
        site: String,
    },
    Control {
        site: String,
    },
}

#[derive(Debug)]
pub struct Authority {
    key: SecretKey,
    certificate: Vec<u8>,
    end: u64,
}

impl Authority {
    /// The authority whose key and certificate are at these paths, made if there is neither. A key without a
    /// certificate was left by a cut between the two, and gets one.
    pub fn load_or_create(
        disk: &dyn Disk,
        key_path: &Path,
        cert_path: &Path,
        common_name: &str,
        now: UnixTime,
    ) -> Result<Self, CaError> {
        let read = |source| CaError::Read { path: cert_path.to_owned(), source };
        if !disk.exists(cert_path).map_err(read)? {
            let key = file::load_or_generate(disk, key_path, Algorithm::Esp256)?;
            let certificate = self_signed(&key, common_name, now)?;
            let text = pem::encode(pem::CERTIFICATE, &certificate);
            disk::replace(disk, cert_path, text.as_bytes())
                .map_err(|source| CaError::Write { path: cert_path.to_owned(), source })?;
            return Self::new(key, certificate, key_path, cert_path);
        }
        if !disk.exists(key_path).map_err(read)? {
            return Err(CaError::KeyIsGone {
                key: key_path.to_owned(),
                cert: cert_path.to_owned(),
            });
        }
        let key = file::load(disk, key_path)?;
        let text = disk.read(cert_path, pem::FILE_BYTES_MAX).map_err(read)?;
        let mut sections = pem::decode(pem::CERTIFICATE, &text)
            .map_err(|source| CaError::NotPem { path: cert_path.to_owned(), source })?;
        Self::new(key, sections.swap_remove(0), key_path, cert_path)
    }

    fn new(
        key: SecretKey,
        certificate: Vec<u8>,
        key_path: &Path,
        cert_path: &Path,
    ) -> Result<Self, CaError> {
        let unfit = |source| CaError::NotAnAuthority { path: cert_path.to_owned(), source };
        let parsed = cert::certificate(&certificate).map_err(unfit)?;
        cert::check_authority(&parsed).map_err(unfit)?;
        if parsed.public_key().raw != key.public().to_spki_der() {
            return Err(CaError::NotItsKey {
                key: key_path.to_owned(),
                cert: cert_path.to_owned(),
            });
        }
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self { key, certificate, end })
    }

    /// Certifies a key. What ends later than the authority itself ends with it; an IDevID may have no end.
    pub fn issue(
        &self,
        spki_der: &[u8],
        profile: &Profile,
        not_before: UnixTime,
        not_after: NotAfter,
    ) -> Result<Vec<u8>, CaError> {
        let key = PublicKey::from_spki_der(spki_der).map_err(CaError::BadKey)?;
        let mut params = profile.params()?;
        x509::set_validity(&mut params, not_before, self.within(profile, not_before, not_after)?);
        params.serial_number = Some(random_number()?);
        params.use_authority_key_identifier_extension = true;
        // Says CA false in so many words, and brings the subject key identifier along.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = CertificateDer::from(self.certificate.as_slice());
        let issuer = Issuer::from_ca_cert_der(&certificate, RcgenKey::new(&self.key))
            .map_err(CaError::Sign)?;
        let issued = params.signed_by(&x509::public_key(&key), &issuer).map_err(CaError::Sign)?;
        let leaf = Leaf::parse(issued.der()).map_err(CaError::Unfit)?;
        assert_eq!(leaf.role, profile.role(), "a certificate is read as it was meant");
        Ok(issued.der().to_vec())
    }

    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    pub fn certificate_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.certificate)
    }

    fn within(
        &self,
        profile: &Profile,
        not_before: UnixTime,
        not_after: NotAfter,
    ) -> Result<NotAfter, CaError> {
        let from = not_before.as_secs();
        let (until, not_after) = match (profile, not_after) {
            (Profile::IDevId { .. }, NotAfter::Never) => (u64::MAX, NotAfter::Never),
            (_, NotAfter::Never) => return Err(CaError::NoEnd { role: profile.noun() }),
            (_, NotAfter::At(until)) => {
                let until = until.as_secs().min(self.end);
                (until, NotAfter::from_secs(until))
            }
        };
        if from < until && from < self.end {
            Ok(not_after)
        } else {
            Err(CaError::BadTime { from, until, end: self.end })
        }
    }
}

impl Profile {
    /// The role as which the certificate will be read.
    pub fn role(&self) -> Role {
        match self {
            Self::IDevId { serial } => Role::IDevId { serial: serial.clone() },
            Self::DeviceTls { device, .. } => Role::Device(device.clone()),
            Self::Seal { name, .. } => Role::Seal(name.as_str().to_owned()),
            Self::GatewayTls { gateway, .. } => Role::Gateway(gateway.clone()),
            Self::Control { .. } => Role::Control,
        }
    }

    fn noun(&self) -> &'static str {
        match self {
            Self::IDevId { .. } => "IDevID",
            Self::DeviceTls { .. } => "device's TLS key",
            Self::Seal { .. } => "sealing key",
            Self::GatewayTls { .. } => "gateway's TLS key",
            Self::Control { .. } => "control's TLS key",
        }
    }

    fn params(&self) -> Result<CertificateParams, CaError> {
        use ExtendedKeyUsagePurpose::{ClientAuth, Other, ServerAuth};
        let mut params = CertificateParams::default();
        let (name, names, usages) = match self {
            Self::IDevId { serial } => (serial.as_str(), vec![], vec![ClientAuth]),
            Self::DeviceTls { device, site } => {
                (device.as_str(), vec![dns(&[device.as_str(), "device"], site)?], vec![ClientAuth])
            }
            Self::Seal { name, site } => {
                let usage = Other(cert::DOCUMENT_SIGNING.to_vec());
                (name.as_str(), vec![dns(&[name.as_str(), "seal"], site)?], vec![usage])
            }
            Self::GatewayTls { gateway, site } => {
                let name = dns(&[gateway.as_str(), "gateway"], site)?;
                (gateway.as_str(), vec![name], vec![ServerAuth, ClientAuth])
            }
            Self::Control { site } => {
                let local = SanType::DnsName("localhost".try_into().expect("ASCII"));
                let address = SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
                ("control", vec![dns(&["control"], site)?, local, address], vec![ServerAuth])
            }
        };
        let bad = || CaError::BadName {
            what: "the subject",
            expected: "1 to 64 of A-Z a-z 0-9 space ' ( ) + , - . / : = ?",
            found: name.chars().take(80).collect(),
        };
        params.distinguished_name = x509::subject(name).ok_or_else(bad)?;
        params.subject_alt_names = names;
        params.extended_key_usages = usages;
        Ok(params)
    }
}

fn dns(head: &[&str], site: &str) -> Result<SanType, CaError> {
    if !cert::is_site(site) {
        return Err(CaError::BadName {
            what: "the site",
            expected: "1 to 63 of a-z 0-9 - starting and ending with a letter or digit",
            found: site.chars().take(80).collect(),
        });
    }
    let name = format!("{}.{site}.internal", head.join("."));
    // What is no DNS name would be passed over by TLS verifiers.
    let fits = DnsName::try_from(name.as_str()).is_ok();
    let ia5 = Ia5String::try_from(name.as_str()).ok().filter(|_| fits);
    ia5.map(SanType::DnsName).ok_or(CaError::BadName {
        what: "the name",
        expected: "a DNS name",
        found: name,
    })
}

fn self_signed(key: &SecretKey, common_name: &str, now: UnixTime) -> Result<Vec<u8>, CaError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let end = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + LIFETIME);
    x509::set_validity(&mut params, now, NotAfter::At(end));
    params.serial_number = Some(random_number()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let signed = params.self_signed(&RcgenKey::new(key)).map_err(CaError::Sign)?;
    Ok(signed.der().to_vec())
}

/// 128 random bits: positive as RFC 5280 §4.1.2.2 wants it, 0 once in 2^128, and no clue to how many were issued.
fn random_number() -> Result<SerialNumber, CaError> {
    let mut number = [0; 16];
    getrandom::fill(&mut number).map_err(CaError::Random)?;
    Ok(SerialNumber::from_slice(&number))
}

#[cfg(test)]
pub(crate) mod tests;
