//! Who gets which certificate: a decision over what TLS proved, what the request says and what the registry holds.
//!
//! | who asks | may have |
//! | --- | --- |
//! | an IDevID of a maker that we trust | the certificate of the device whose serial number it proves, if that is on the ownership list |
//! | a device's or gateway's own TLS certificate | a certificate of the same device or gateway |
//!
//! It does not matter whether `simpleenroll` or `simplereenroll` was called: strongSwan's client calls the second with
//! an IDevID on first contact. What counts is who asks. Revoked or decommissioned: nothing. Quarantined: its own certificates still, since
//! re-enrolment is the way back (DESIGN §8).

use crate::directory::{Device, Directory, Key};
use crate::registry::Issued;
use api::{Purpose, Role};
use keys::ca::{Authority, CaError, Profile};
use keys::csr::Csr;
use keys::{NotAfter, UnixTime};
use model::{DeviceId, Digest, GatewayId, KeyId, Timestamp};
use std::time::Duration;

/// Who asks, as TLS proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applicant {
    /// The holder of a maker's birth certificate.
    IDevId { serial: String, spki_sha256: Digest },
    /// The holder of a TLS certificate of ours that counts now.
    Enrolled(DeviceId),
}

/// What a site grants.
#[derive(Clone, Debug)]
pub struct Terms {
    pub site: String,
    /// How long a certificate lives.
    pub life: Duration,
    /// The most new keys of one device and purpose in a day: a device that makes a key at every start must not fill the
    /// registry. Beyond it the device is told to wait.
    pub keys_per_day_max: usize,
}

/// A certificate to issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub device: DeviceId,
    pub purpose: Purpose,
    pub profile: Profile,
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "serial {serial:?} is not on the ownership list: expected one that the operator listed"
    )]
    NotListed { serial: String },
    #[error(
        "the request is for serial {found:?}, expected {expected:?}, which the caller's certificate proves"
    )]
    SerialMismatch { expected: String, found: String },
    #[error("`{0}` is revoked or decommissioned: expected listed, enrolled or quarantined")]
    Revoked(DeviceId),
    #[error("key {key} is of a {found} key already: expected a key of its own for {}", wanted.as_str())]
    KeyOfOtherPurpose { key: KeyId, wanted: Purpose, found: &'static str },
    #[error("key {key} belongs to another device already: expected a key of `{device}`'s own")]
    KeyOfOtherDevice { key: KeyId, device: DeviceId },
    #[error("key {key} was retired: expected the present key or a new one")]
    KeyRetired { key: KeyId },
    #[error("`{device}` had {found} new {} keys in a day, expected at most {max}", purpose.as_str())]
    TooOften { device: DeviceId, purpose: Purpose, found: usize, max: usize },
}

impl Refusal {
    /// The label of its counter and the word of its problem.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotListed { .. } => "not_listed",
            Self::SerialMismatch { .. } => "serial_mismatch",
            Self::Revoked(_) => "revoked",
            Self::KeyOfOtherPurpose { .. } => "key_of_other_purpose",
            Self::KeyOfOtherDevice { .. } => "key_of_other_device",
            Self::KeyRetired { .. } => "key_retired",
            Self::TooOften { .. } => "too_often",
        }
    }

    /// The device that was to get a certificate, where it is known.
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Revoked(device)
            | Self::KeyOfOtherDevice { device, .. }
            | Self::TooOften { device, .. } => Some(device),
            _ => None,
        }
    }
}

const DAY_US: i64 = 86_400_000_000;

/// Decides. What it refuses it refuses before anything is spent on it.
pub fn decide(
    directory: &Directory,
    applicant: &Applicant,
    csr: &Csr,
    purpose: Purpose,
    terms: &Terms,
    now: Timestamp,
) -> Result<Grant, Refusal> {
    let device = match applicant {
        Applicant::IDevId { serial, .. } => directory
            .by_serial(serial)
            .ok_or_else(|| Refusal::NotListed { serial: serial.clone() })?,
        Applicant::Enrolled(id) => {
            directory.device(id).ok_or_else(|| Refusal::NotListed { serial: id.to_string() })?
        }
    };
    check_serial(applicant, device, csr)?;
    if device.standing.has_ended() {
        return Err(Refusal::Revoked(device.id.clone()));
    }
    check_key(directory, applicant, device, csr, purpose)?;
    check_rate(device, csr, purpose, terms, now)?;
    Ok(Grant { device: device.id.clone(), purpose, profile: profile(device, purpose, &terms.site) })
}

/// A request without a serial number names nobody; one with another's is refused, whoever put it together.
fn check_serial(applicant: &Applicant, device: &Device, csr: &Csr) -> Result<(), Refusal> {
    let Some(found) = &csr.serial else { return Ok(()) };
    let same = match applicant {
        // Byte for byte: both come from the device itself.
        Applicant::IDevId { serial, .. } => found == serial,
        // Its certificate has the device id, the device may still say its serial number.
        Applicant::Enrolled(id) => *found == device.serial || found == id.as_str(),
    };
    if same {
        return Ok(());
    }
    Err(Refusal::SerialMismatch { expected: device.serial.clone(), found: found.clone() })
}

/// One key, one device, one purpose, one life (INV-PURP-1).
fn check_key(
    directory: &Directory,
    applicant: &Applicant,
    device: &Device,
    csr: &Csr,
    purpose: Purpose,
) -> Result<(), Refusal> {
    let (spki_sha256, key) = (trust::digest(&csr.spki_der), csr.public_key.id());
    if let Some((owner, known)) = directory.key_by_spki(&spki_sha256) {
        if owner.id != device.id {
            return Err(Refusal::KeyOfOtherDevice { key, device: device.id.clone() });
        }
        if known.purpose != purpose {
            let found = known.purpose.as_str();
            return Err(Refusal::KeyOfOtherPurpose { key, wanted: purpose, found });
        }
        if known.retired_at.is_some() {
            return Err(Refusal::KeyRetired { key });
        }
    }
    // An IDevID authenticates TLS. Its key may go on doing so, and nothing else.
    let by_own_idevid =
        matches!(applicant, Applicant::IDevId { spki_sha256: own, .. } if *own == spki_sha256);
    if by_own_idevid && purpose == Purpose::Seal {
        return Err(Refusal::KeyOfOtherPurpose { key, wanted: purpose, found: "tls" });
    }
    Ok(())
}

fn check_rate(
    device: &Device,
    csr: &Csr,
    purpose: Purpose,
    terms: &Terms,
    now: Timestamp,
) -> Result<(), Refusal> {
    let is_known = device.keys.iter().any(|key| key.spki == csr.spki_der);
    let recent = |key: &Key| now.as_us().saturating_sub(key.created_at.as_us()) < DAY_US;
    let found = device.keys_for(purpose).filter(|key| recent(key)).count();
    if is_known || found < terms.keys_per_day_max {
        return Ok(());
    }
    let max = terms.keys_per_day_max;
    Err(Refusal::TooOften { device: device.id.clone(), purpose, found, max })
}

fn profile(device: &Device, purpose: Purpose, site: &str) -> Profile {
    let site = site.to_owned();
    match (purpose, device.role) {
        (Purpose::Seal, _) => Profile::Seal { name: device.id.clone(), site },
        (Purpose::Tls, Role::Device) => Profile::DeviceTls { device: device.id.clone(), site },
        (Purpose::Tls, Role::Gateway) => {
            let gateway = GatewayId::new(device.id.as_str()).expect("both ids have one grammar");
            Profile::GatewayTls { gateway, site }
        }
    }
}

/// How far a new certificate reaches back, for who has a clock behind ours.
pub(crate) const BACKDATED_S: u64 = 3600;

/// Makes the certificate that was granted.
pub fn issue(
    grant: &Grant,
    csr: &Csr,
    authority: &Authority,
    terms: &Terms,
    now: Timestamp,
) -> Result<Issued, CaError> {
    let now_s = u64::try_from(now.as_us() / 1_000_000).unwrap_or(0);
    let at = |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let until_s = now_s + terms.life.as_secs();
    let certificate = authority.issue(
        &csr.spki_der,
        &grant.profile,
        at(now_s.saturating_sub(BACKDATED_S)),
        NotAfter::At(at(until_s)),
    )?;
    let key = Key {
        purpose: grant.purpose,
        public: csr.public_key.clone(),
        id: csr.public_key.id(),
        spki: csr.spki_der.clone(),
        spki_sha256: trust::digest(&csr.spki_der),
        created_at: now,
        not_after: Timestamp::from_ms(
            i64::try_from(until_s).unwrap_or(i64::MAX / 1_000_000) * 1000,
        ),
        retired_at: None,
        ended_at: None,
    };
    Ok(Issued { device: grant.device.clone(), key, certificate })
}

#[cfg(test)]
mod tests;
