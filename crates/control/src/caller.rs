//! Who calls, and whether it may make a call of the table.

use crate::directory::{Device, Directory};
use crate::endpoint::Access;
use crate::enrol::Applicant;
use crate::principal::Principal;
use api::{Purpose, Role, Standing};
use keys::Leaf;
use model::{DeviceId, Digest, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// What a connection proved, once, in its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It showed no certificate.
    Anonymous,
    /// A certificate whose role was granted by one who may grant it.
    Certified { role: keys::Role, spki_sha256: Digest },
    /// A certificate that TLS took and that says nothing that counts here: why.
    Unrecognised(String),
}

impl From<&Leaf> for Peer {
    fn from(leaf: &Leaf) -> Self {
        Self::Certified { role: leaf.role.clone(), spki_sha256: leaf.spki_sha256 }
    }
}

/// Who calls, as far as the registry knows at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    Anonymous,
    IDevId {
        serial: String,
        spki_sha256: Digest,
    },
    Device(DeviceId),
    Gateway(DeviceId),
    /// A person or program of the operator, by session or token.
    Person(Arc<Principal>),
}

impl Caller {
    pub fn kind(&self) -> CallerKind {
        match self {
            Self::Anonymous => CallerKind::Anonymous,
            Self::IDevId { .. } => CallerKind::IDevId,
            Self::Device(_) => CallerKind::Device,
            Self::Gateway(_) => CallerKind::Gateway,
            Self::Person(_) => CallerKind::Person,
        }
    }

    pub fn applicant(&self) -> Option<Applicant> {
        match self {
            Self::IDevId { serial, spki_sha256 } => {
                Some(Applicant::IDevId { serial: serial.clone(), spki_sha256: *spki_sha256 })
            }
            Self::Device(id) | Self::Gateway(id) => Some(Applicant::Enrolled(id.clone())),
            Self::Anonymous | Self::Person(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerKind {
    Anonymous,
    IDevId,
    Device,
    Gateway,
    Person,
}

impl CallerKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "a caller without certificate or token",
            Self::IDevId => "an IDevID",
            Self::Device => "a device",
            Self::Gateway => "a gateway",
            Self::Person => "a person or program",
        }
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Person(person) => write!(f, "{}, which does not hold it", person.actor),
            caller => f.write_str(caller.kind().as_str()),
        }
    }
}

/// Why a caller may not make a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("expected {expected}, found neither certificate nor token")]
    Unauthenticated { expected: String },
    #[error("expected a bearer token of this site, found another or none")]
    BadToken,
    #[error("expected a session that is not over, found none: sign in again")]
    SessionEnded,
    #[error("token `{id}` has expired")]
    TokenExpired { id: String },
    #[error("token `{id}` is revoked")]
    TokenRevoked { id: String },
    #[error("expected a call of this host's own pages, found {found}")]
    CrossSite { found: String },
    #[error("expected {expected}, found {found}")]
    OutOfScope { expected: String, found: String },
    #[error("the certificate says nothing that counts here: {0}")]
    Unrecognised(String),
    #[error("no {role} `{id}`: expected one that the registry holds")]
    Unknown { role: &'static str, id: String },
    #[error("`{id}` is a {found}, expected a {expected}")]
    OtherRole { id: DeviceId, expected: &'static str, found: &'static str },
    #[error("the certificate of `{id}` is for a key that is not its TLS key now")]
    NotItsKey { id: DeviceId },
    #[error("`{id}` is revoked or decommissioned")]
    Revoked { id: DeviceId },
    #[error("`{id}` is quarantined: it may re-enrol, and nothing else")]
    Quarantined { id: DeviceId },
}

impl Denied {
    /// The label of its counter and the word of its problem.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::BadToken => "bad_token",
            Self::SessionEnded => "session_ended",
            Self::TokenExpired { .. } => "token_expired",
            Self::TokenRevoked { .. } => "token_revoked",
            Self::CrossSite { .. } => "cross_site",
            Self::OutOfScope { .. } => "out_of_scope",
            Self::Unrecognised(_) => "unrecognised_certificate",
            Self::Unknown { .. } => "unknown_caller",
            Self::OtherRole { .. } => "other_role",
            Self::NotItsKey { .. } => "not_its_key",
            Self::Revoked { .. } => "revoked",
            Self::Quarantined { .. } => "quarantined",
        }
    }

    /// The device or gateway whose certificate was shown.
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::OtherRole { id, .. }
            | Self::NotItsKey { id }
            | Self::Revoked { id }
            | Self::Quarantined { id } => Some(id),
            _ => None,
        }
    }

    /// Whether another proof of who calls could mend it.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(
            self,
            Self::Unauthenticated { .. }
                | Self::BadToken
                | Self::SessionEnded
                | Self::TokenExpired { .. }
                | Self::TokenRevoked { .. }
        )
    }
}

/// Who calls. A certificate of ours counts as long as the registry says so, which is looked up at every call: a
/// connection that is still open proves nothing about now (INV-AUTH-1).
pub fn recognise(
    peer: &Peer,
    directory: &Directory,
    grace: Duration,
    now: Timestamp,
) -> Result<Caller, Denied> {
    let (role, spki_sha256) = match peer {
        Peer::Anonymous => return Ok(Caller::Anonymous),
        Peer::Unrecognised(why) => return Err(Denied::Unrecognised(why.clone())),
        Peer::Certified { role, spki_sha256 } => (role, spki_sha256),
    };
    let (id, expected) = match role {
        keys::Role::IDevId { serial } => {
            return Ok(Caller::IDevId { serial: serial.clone(), spki_sha256: *spki_sha256 });
        }
        keys::Role::Device(id) => (id.as_str(), Role::Device),
        keys::Role::Gateway(id) => (id.as_str(), Role::Gateway),
        // Their extended key usage keeps them out of TLS already.
        keys::Role::Seal(_) | keys::Role::Control => {
            return Err(Denied::Unrecognised(format!("{role} is no caller")));
        }
    };
    let known = DeviceId::new(id).ok().and_then(|id| directory.device(&id).cloned());
    let device =
        known.ok_or_else(|| Denied::Unknown { role: expected.as_str(), id: id.to_owned() })?;
    check_device(&device, expected, spki_sha256, grace, now)?;
    Ok(match device.role {
        Role::Device => Caller::Device(device.id.clone()),
        Role::Gateway => Caller::Gateway(device.id.clone()),
    })
}

fn check_device(
    device: &Device,
    expected: Role,
    spki_sha256: &Digest,
    grace: Duration,
    now: Timestamp,
) -> Result<(), Denied> {
    let id = device.id.clone();
    if device.role != expected {
        let (expected, found) = (expected.as_str(), device.role.as_str());
        return Err(Denied::OtherRole { id, expected, found });
    }
    if device.standing.has_ended() {
        return Err(Denied::Revoked { id });
    }
    let mut keys = device.keys_for(Purpose::Tls);
    if keys.any(|key| key.spki_sha256 == *spki_sha256 && key.is_live(grace, now)) {
        Ok(())
    } else {
        Err(Denied::NotItsKey { id })
    }
}

/// Whether the caller may make the call.
pub fn authorise(access: Access, caller: &Caller, directory: &Directory) -> Result<(), Denied> {
    if !access.admits(caller) {
        let expected = access.expected();
        return Err(match caller {
            Caller::Anonymous => Denied::Unauthenticated { expected },
            found => Denied::OutOfScope { expected, found: found.to_string() },
        });
    }
    if let (Caller::Device(id) | Caller::Gateway(id), false) =
        (caller, access.is_open_in_quarantine())
        && directory.device(id).is_some_and(|device| device.standing == Standing::Quarantined)
    {
        return Err(Denied::Quarantined { id: id.clone() });
    }
    Ok(())
}
