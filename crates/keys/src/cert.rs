//! What a certificate says about its holder.
//!
//! | role | SAN (DNS) | extended key usage | granted by |
//! | --- | --- | --- | --- |
//! | `IDevId` | none below `.internal` | clientAuth, or none | a maker |
//! | `Device` | `<device>.device.<site>.internal`, nothing else | clientAuth | the site |
//! | `Gateway` | `<gateway>.gateway.<site>.internal`, nothing else | serverAuth, clientAuth | the site |
//! | `Seal` | `<device or gateway>.seal.<site>.internal`, nothing else | documentSigning (RFC 9336) | the site |
//! | `Control` | `control.<site>.internal` among names outside `.internal` and addresses | serverAuth | the site |
//!
//! A certificate that fits none or two of these is refused (INV-PURP-1). Roles stand in DNS names, since name
//! constraints on URIs are refused by webpki. [`Leaf::parse`] says which role a certificate claims; only
//! [`Issuers::identify`] says that the one who signed it may grant that role: without it a maker could make gateways.

use crate::UnixTime;
use model::id::BadName;
use model::{DeviceId, Digest, GatewayId};
use std::time::Duration;
use trust::cose::{NotAKey, PublicKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName};
use x509_parser::oid_registry::{OID_X509_SERIALNUMBER, Oid, asn1_rs::oid};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Version;

/// Ours have under 700 bytes; an IDevID with an RSA key and policies under 3 KiB.
pub const BYTES_MAX: usize = 16 * 1024;

/// id-kp-documentSigning (RFC 9336 §3.1).
pub(crate) const DOCUMENT_SIGNING: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 36];

/// Everything of ours ends so; `.internal` is reserved for private use and will never be a public domain.
const OURS: &str = ".internal";

/// Why a certificate does not say who its holder is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    #[error(
        "not a certificate: expected X.509 version 3 in DER of at most {BYTES_MAX} bytes, found {found}"
    )]
    Malformed { found: &'static str },
    #[error("the certificate's {what} cannot be read")]
    BadExtension { what: &'static str },
    #[error("the certificate fits no role: expected {expected}, found {found}")]
    NoRole { expected: &'static str, found: String },
    #[error("the certificate fits two roles: `{first}` and `{second}`")]
    TwoRoles { first: String, second: String },
    #[error("the certificate names no role: {0}")]
    BadName(#[from] BadName),
    #[error("the certificate is of site `{found}`, expected `{expected}`")]
    WrongSite { expected: String, found: String },
    #[error(
        "role {role} is not granted by an authority that may grant it: expected {expected}, found issuer `{found}`"
    )]
    WrongIssuer { role: String, expected: &'static str, found: String },
    #[error("the certificate is not valid yet: from {from}, now {now} (seconds since 1970)")]
    NotYet { from: u64, now: u64 },
    #[error("the certificate has expired: until {until}, now {now} (seconds since 1970)")]
    Expired { until: u64, now: u64 },
    #[error("not an authority: expected a certificate with CA true and keyCertSign, found {found}")]
    NotAnAuthority { found: String },
}

/// What a certificate's holder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The birth certificate of a device or gateway.
    IDevId {
        serial: String,
    },
    Device(DeviceId),
    Gateway(GatewayId),
    /// A key that seals messages of this device or gateway, and does nothing else.
    Seal(String),
    Control,
}

impl Role {
    /// What the certificate's subject names.
    pub fn name(&self) -> &str {
        match self {
            Self::IDevId { serial } => serial,
            Self::Device(id) => id.as_str(),
            Self::Gateway(id) => id.as_str(),
            Self::Seal(name) => name,
            Self::Control => "control",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IDevId { serial } => write!(f, "IDevID {serial:?}"),
            Self::Device(id) => write!(f, "device {id}"),
            Self::Gateway(id) => write!(f, "gateway {id}"),
            Self::Seal(name) => write!(f, "seal of {name}"),
            Self::Control => f.write_str("control"),
        }
    }
}

/// 9999-12-31T23:59:59Z.
pub(crate) const YEAR_9999_END_S: u64 = 253_402_300_799;

/// The last second of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAfter {
    At(UnixTime),
    /// 9999-12-31T23:59:59Z: no end is known (RFC 5280 §4.1.2.5). A variant of its own, so that nothing computes with
    /// the date.
    Never,
}

impl NotAfter {
    pub(crate) fn from_secs(seconds: u64) -> Self {
        if seconds >= YEAR_9999_END_S {
            Self::Never
        } else {
            Self::At(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
        }
    }
}

/// A certificate that says one thing about its holder. That it says so proves nothing: see [`Issuers::identify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub role: Role,
    /// The site that the role is of; `None` for an IDevID.
    pub site: Option<String>,
    /// The subject's serialNumber.
    pub serial_number: Option<String>,
    /// The certificate's own number, in hex.
    pub certificate_serial: String,
    /// The issuer's name, for people.
    pub issuer: String,
    pub spki_der: Vec<u8>,
    /// SHA-256 of `spki_der`: how bundles name TLS keys.
    pub spki_sha256: Digest,
    pub not_before: UnixTime,
    pub not_after: NotAfter,
}

impl Leaf {
    /// Reads what a certificate claims. Nobody's signature is checked and no time is looked at.
    pub fn parse(der: &[u8]) -> Result<Self, CertError> {
        Self::of(&certificate(der)?)
    }

    /// The key, if it is one that may seal.
    pub fn public_key(&self) -> Result<PublicKey, NotAKey> {
        PublicKey::from_spki_der(&self.spki_der)
    }

    pub fn check_valid(&self, now: UnixTime) -> Result<(), CertError> {
        if now < self.not_before {
            return Err(CertError::NotYet { from: self.not_before.as_secs(), now: now.as_secs() });
        }
        match self.not_after {
            NotAfter::At(until) if now > until => {
                Err(CertError::Expired { until: until.as_secs(), now: now.as_secs() })
            }
            _ => Ok(()),
        }
    }

    /// Whether two thirds of its lifetime are over. Never true of one without an end.
    pub fn needs_renewal(&self, now: UnixTime) -> bool {
        let NotAfter::At(until) = self.not_after else { return false };
        let lifetime = until.as_secs().saturating_sub(self.not_before.as_secs());
        now.as_secs() >= self.not_before.as_secs() + lifetime / 3 * 2
    }

    fn of(cert: &X509Certificate<'_>) -> Result<Self, CertError> {
        if cert.is_ca() {
            return no_role("a certificate that is no authority's", "CA true");
        }
        let usage = cert.key_usage().map_err(|_| bad("key usage"))?;
        if usage.is_some_and(|usage| !usage.value.digital_signature()) {
            return no_role("key usage digitalSignature", "a key usage without it");
        }
        let serial_number = subject_serial(cert)?;
        let (role, site) = role(cert, serial_number.as_deref())?;
        let spki_der = cert.public_key().raw.to_vec();
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let not_before = seconds(cert.validity().not_before.timestamp());
        Ok(Self {
            role,
            site,
            serial_number,
            certificate_serial: hex(cert.raw_serial()),
            issuer: shown(&cert.issuer().to_string()),
            spki_sha256: trust::digest(&spki_der),
            spki_der,
            not_before: UnixTime::since_unix_epoch(Duration::from_secs(not_before)),
            not_after: NotAfter::from_secs(seconds(cert.validity().not_after.timestamp())),
        })
    }
}

/// The device id of a serial number: the same in lower case.
pub fn device_id(serial: &str) -> Result<DeviceId, BadName> {
    DeviceId::new(serial.to_ascii_lowercase())
}

/// Who may grant roles: the site's own authority (two while it rolls over) its site roles, makers' authorities IDevIDs.
/// A certificate must be signed by one of them directly: theirs allow no authority below them.
#[derive(Clone, Debug)]
pub struct Issuers {
    site: String,
    site_anchors: Vec<Vec<u8>>,
    maker_anchors: Vec<Vec<u8>>,
}

impl Issuers {
    pub fn new(
        site: &str,
        site_anchors: Vec<Vec<u8>>,
        maker_anchors: Vec<Vec<u8>>,
    ) -> Result<Self, CertError> {
        for der in site_anchors.iter().chain(&maker_anchors) {
            check_authority(&certificate(der)?)?;
        }
        Ok(Self { site: site.to_owned(), site_anchors, maker_anchors })
    }

    /// All of them: what TLS verifies a client against, before [`Self::identify`] says what the client is.
    pub fn anchors(&self) -> Vec<Vec<u8>> {
        self.site_anchors.iter().chain(&self.maker_anchors).cloned().collect()
    }

    pub fn site_anchors(&self) -> &[Vec<u8>] {
        &self.site_anchors
    }

    /// Who the certificate's holder is: its role was granted by one who may (INV-AUTH-1), for this site, and is valid
    /// now. That the peer holds the key is TLS' matter, or the signature's on what it sealed.
    pub fn identify(&self, der: &[u8], now: UnixTime) -> Result<Leaf, CertError> {
        let leaf = self.granted(der)?;
        leaf.check_valid(now)?;
        Ok(leaf)
    }

    /// [`Self::identify`] at no time in particular, for who does not trust its clock yet.
    pub fn granted(&self, der: &[u8]) -> Result<Leaf, CertError> {
        let cert = certificate(der)?;
        let leaf = Leaf::of(&cert)?;
        let (anchors, expected) = match leaf.role {
            Role::IDevId { .. } => (&self.maker_anchors, "a maker's authority"),
            _ => (&self.site_anchors, "the site's authority"),
        };
        let signed = anchors.iter().any(|anchor| {
            certificate(anchor).is_ok_and(|anchor| {
                anchor.subject().as_raw() == cert.issuer().as_raw()
                    && cert.verify_signature(Some(anchor.public_key())).is_ok()
            })
        });
        if !signed {
            let role = leaf.role.to_string();
            return Err(CertError::WrongIssuer { role, expected, found: leaf.issuer });
        }
        if let Some(found) = leaf.site.as_ref().filter(|site| **site != self.site) {
            return Err(CertError::WrongSite { expected: self.site.clone(), found: found.clone() });
        }
        Ok(leaf)
    }
}

/// Reads a certificate, whole.
pub(crate) fn certificate(der: &[u8]) -> Result<X509Certificate<'_>, CertError> {
    let malformed = |found| CertError::Malformed { found };
    if der.len() > BYTES_MAX {
        return Err(malformed("more"));
    }
    let (rest, cert) = X509Certificate::from_der(der).map_err(|_| malformed("something else"))?;
    if !rest.is_empty() {
        return Err(malformed("bytes after it"));
    }
    if cert.version() != X509Version::V3 {
        return Err(malformed("an older version"));
    }
    Ok(cert)
}

/// When a certificate of any kind began to be valid.
pub(crate) fn not_before(der: &[u8]) -> Result<UnixTime, CertError> {
    let seconds = certificate(der)?.validity().not_before.timestamp();
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

pub(crate) fn check_authority(cert: &X509Certificate<'_>) -> Result<(), CertError> {
    let signs = cert.key_usage().map_err(|_| bad("key usage"))?;
    if cert.is_ca() && signs.is_none_or(|usage| usage.value.key_cert_sign()) {
        Ok(())
    } else {
        Err(CertError::NotAnAuthority { found: shown(&cert.subject().to_string()) })
    }
}

fn subject_serial(cert: &X509Certificate<'_>) -> Result<Option<String>, CertError> {
    let mut serials = cert.subject().iter_by_oid(&OID_X509_SERIALNUMBER);
    let first = serials.next();
    if serials.next().is_some() {
        return no_role("one serial number", "two");
    }
    let text = first.map(|serial| serial.as_str()).transpose();
    Ok(text.map_err(|_| bad("subject"))?.map(str::to_owned))
}

/// One of the site's names: `<who>.<what>.<site>.internal`, or `control.<site>.internal`.
struct SiteName<'a> {
    who: &'a str,
    what: &'a str,
    site: &'a str,
}

impl<'a> SiteName<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (head, site) = name.strip_suffix(OURS)?.rsplit_once('.')?;
        let (who, what) = head.rsplit_once('.').unwrap_or(("", head));
        let is_site = is_site(site);
        let known = matches!((who, what), ("", "control") | (_, "device" | "gateway" | "seal"));
        (known && is_site && (what == "control") == who.is_empty()).then_some(Self {
            who,
            what,
            site,
        })
    }
}

/// One DNS label in lower case.
pub(crate) fn is_site(site: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&site.len())
        && site.bytes().all(|b| plain(b) || b == b'-')
        && site.bytes().next().is_some_and(plain)
        && site.bytes().last().is_some_and(plain)
}

fn role(
    cert: &X509Certificate<'_>,
    serial: Option<&str>,
) -> Result<(Role, Option<String>), CertError> {
    let san = cert.subject_alternative_name().map_err(|_| bad("subject alternative name"))?;
    let names = san.map_or(&[][..], |san| san.value.general_names.as_slice());
    let usages = Usages::of(cert)?;
    let mut ours = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) if name.to_ascii_lowercase().ends_with(OURS) => Some(*name),
        _ => None,
    });
    let Some(name) = ours.next() else {
        return idevid(serial, &usages).map(|role| (role, None));
    };
    if let Some(second) = ours.next() {
        return Err(CertError::TwoRoles { first: name.to_owned(), second: second.to_owned() });
    }
    const NAMES: &str = "<id>.device|gateway|seal.<site>.internal or control.<site>.internal";
    let Some(SiteName { who, what, site }) = SiteName::parse(name) else {
        return no_role(NAMES, name);
    };
    if what != "control" && names.len() > 1 {
        return no_role("no name beside its role's", &format!("{} names", names.len()));
    }
    let role = match what {
        "device" => Role::Device(DeviceId::new(who)?),
        "gateway" => Role::Gateway(GatewayId::new(who)?),
        "seal" => Role::Seal(DeviceId::new(who)?.as_str().to_owned()),
        _ => Role::Control,
    };
    let (expected, wanted) = match role {
        Role::Device(_) | Role::IDevId { .. } => ("clientAuth alone", Usages::CLIENT),
        Role::Gateway(_) => ("serverAuth and clientAuth alone", Usages::BOTH),
        Role::Seal(_) => ("documentSigning alone", Usages::SEAL),
        Role::Control => ("serverAuth alone", Usages::SERVER),
    };
    if usages != wanted {
        return no_role(expected, &format!("{role} with {}", usages.shown()));
    }
    Ok((role, Some(site.to_owned())))
}

fn idevid(serial: Option<&str>, usages: &Usages) -> Result<Role, CertError> {
    // IEEE 802.1AR leaves the extended key usage out of an IDevID; some makers put clientAuth.
    if *usages != Usages::CLIENT && *usages != Usages::NONE {
        return no_role("an IDevID with clientAuth alone, or none", &usages.shown());
    }
    match serial {
        Some(serial) if !serial.is_empty() => Ok(Role::IDevId { serial: serial.to_owned() }),
        _ => no_role("an IDevID with its serial number in the subject", "none"),
    }
}

/// The extended key usages, as far as they matter to us.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Usages {
    server: bool,
    client: bool,
    seal: bool,
    other: bool,
}

impl Usages {
    const NONE: Self = Self { server: false, client: false, seal: false, other: false };
    const CLIENT: Self = Self { client: true, ..Self::NONE };
    const SERVER: Self = Self { server: true, ..Self::NONE };
    const BOTH: Self = Self { server: true, client: true, ..Self::NONE };
    const SEAL: Self = Self { seal: true, ..Self::NONE };

    fn of(cert: &X509Certificate<'_>) -> Result<Self, CertError> {
        let usage = cert.extended_key_usage().map_err(|_| bad("extended key usage"))?;
        let Some(usage) = usage else { return Ok(Self::NONE) };
        let ExtendedKeyUsage {
            any,
            server_auth,
            client_auth,
            code_signing,
            email_protection,
            time_stamping,
            ocsp_signing,
            other,
        } = usage.value;
        let seal: Oid<'_> = oid!(1.3.6.1.5.5.7.3.36);
        Ok(Self {
            server: *server_auth,
            client: *client_auth,
            seal: other.contains(&seal),
            other: *any
                || *code_signing
                || *email_protection
                || *time_stamping
                || *ocsp_signing
                || other.iter().any(|usage| *usage != seal),
        })
    }

    fn shown(&self) -> String {
        let names = [
            (self.server, "serverAuth"),
            (self.client, "clientAuth"),
            (self.seal, "documentSigning"),
            (self.other, "others"),
        ];
        let names: Vec<&str> = names.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        if names.is_empty() { "no extended key usage".into() } else { names.join(", ") }
    }
}

fn no_role<T>(expected: &'static str, found: &str) -> Result<T, CertError> {
    Err(CertError::NoRole { expected, found: shown(found) })
}

fn bad(what: &'static str) -> CertError {
    CertError::BadExtension { what }
}

/// A certificate's text, fit for a line in a log.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn hex(number: &[u8]) -> String {
    // A leading zero only says that the number is positive.
    let digits = number.strip_prefix(&[0]).unwrap_or(number);
    model::hex::encode(digits)
}

#[cfg(test)]
mod tests;
