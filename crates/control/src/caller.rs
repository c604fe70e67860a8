//! Who calls, what each call is, and who may make it.
//!
//! The table of endpoints is the router: what is not in it cannot be reached, and what is in it has a scope
//! (INV-LEAST-1).

use crate::directory::{Device, Directory};
use crate::enrol::Applicant;
use api::rollout::RolloutCommand;
use api::{Purpose, Role, Standing, path};
use keys::Leaf;
use model::{DeviceId, Digest, Timestamp};
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
    /// A person or program of the operator, by bearer token.
    Operator,
}

impl Caller {
    pub fn kind(&self) -> CallerKind {
        match self {
            Self::Anonymous => CallerKind::Anonymous,
            Self::IDevId { .. } => CallerKind::IDevId,
            Self::Device(_) => CallerKind::Device,
            Self::Gateway(_) => CallerKind::Gateway,
            Self::Operator => CallerKind::Operator,
        }
    }

    pub fn applicant(&self) -> Option<Applicant> {
        match self {
            Self::IDevId { serial, spki_sha256 } => {
                Some(Applicant::IDevId { serial: serial.clone(), spki_sha256: *spki_sha256 })
            }
            Self::Device(id) | Self::Gateway(id) => Some(Applicant::Enrolled(id.clone())),
            Self::Anonymous | Self::Operator => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerKind {
    Anonymous,
    IDevId,
    Device,
    Gateway,
    Operator,
}

impl CallerKind {
    pub const ALL: [CallerKind; 5] =
        [Self::Anonymous, Self::IDevId, Self::Device, Self::Gateway, Self::Operator];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "a caller without certificate or token",
            Self::IDevId => "an IDevID",
            Self::Device => "a device",
            Self::Gateway => "a gateway",
            Self::Operator => "an operator",
        }
    }
}

/// What a call touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Tells nothing that a stranger may not know.
    Public,
    /// Certificates for oneself.
    Enrol,
    /// The bundle of one's own zone; handing up what devices sealed; what devices may install.
    Gateway,
    /// Everything that devices measured.
    Query,
    FleetRead,
    FleetWrite,
    /// Which release goes to whom.
    RolloutRead,
    RolloutWrite,
    Metrics,
    /// What was done, by whom, and the log that proves it.
    Audit,
}

const OPERATOR: &str = "an operator, by bearer token";

impl Scope {
    pub const fn admits(self, caller: CallerKind) -> bool {
        use CallerKind::{Anonymous, Device, Gateway, IDevId, Operator};
        match (self, caller) {
            (Self::Public, _) => true,
            (_, Anonymous) => false,
            (Self::Enrol, IDevId | Device | Gateway) => true,
            (Self::Gateway, Gateway) => true,
            (Self::Query | Self::FleetRead | Self::FleetWrite, Operator) => true,
            (Self::Metrics | Self::Audit, Operator) => true,
            (Self::RolloutRead | Self::RolloutWrite, Operator) => true,
            _ => false,
        }
    }

    /// Whether a quarantined device or gateway may still make the call (DESIGN §8: re-enrol, and nothing else).
    const fn is_open_in_quarantine(self) -> bool {
        matches!(self, Self::Public | Self::Enrol)
    }

    pub const fn expected(self) -> &'static str {
        match self {
            Self::Public => "anybody",
            Self::Enrol => "an IDevID, a device or a gateway, by its certificate",
            Self::Gateway => "a gateway, by its certificate",
            Self::Query | Self::FleetRead | Self::FleetWrite => OPERATOR,
            Self::RolloutRead | Self::RolloutWrite | Self::Metrics | Self::Audit => OPERATOR,
        }
    }
}

/// Every call that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    CaCerts,
    SealCaCerts,
    Enroll,
    Reenroll,
    SealEnroll,
    SealReenroll,
    Bundle,
    Uplink,
    Query,
    Devices,
    Revoke,
    Quarantine,
    Release,
    Ownership,
    Images,
    Blob,
    Releases,
    RefreshReleases,
    Events,
    EvidenceCheckpoint,
    EvidenceTile,
    EvidenceExport,
    CheckIn,
    Software,
    Rollouts,
    NewRollout,
    Rollout,
    RolloutCommand(RolloutCommand),
    RolloutDevices,
    Metrics,
    Health,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Post,
}

impl Endpoint {
    pub const ALL: [Endpoint; 36] = [
        Self::CaCerts,
        Self::SealCaCerts,
        Self::Enroll,
        Self::Reenroll,
        Self::SealEnroll,
        Self::SealReenroll,
        Self::Bundle,
        Self::Uplink,
        Self::Query,
        Self::Devices,
        Self::Revoke,
        Self::Quarantine,
        Self::Release,
        Self::Ownership,
        Self::Images,
        Self::Blob,
        Self::Releases,
        Self::RefreshReleases,
        Self::Events,
        Self::EvidenceCheckpoint,
        Self::EvidenceTile,
        Self::EvidenceExport,
        Self::CheckIn,
        Self::Software,
        Self::Rollouts,
        Self::NewRollout,
        Self::Rollout,
        Self::RolloutCommand(RolloutCommand::Start),
        Self::RolloutCommand(RolloutCommand::Pause),
        Self::RolloutCommand(RolloutCommand::Resume),
        Self::RolloutCommand(RolloutCommand::Halt),
        Self::RolloutCommand(RolloutCommand::Revert),
        Self::RolloutCommand(RolloutCommand::Abort),
        Self::RolloutDevices,
        Self::Metrics,
        Self::Health,
    ];

    /// The label of its figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CaCerts => "cacerts",
            Self::SealCaCerts => "seal_cacerts",
            Self::Enroll => "simpleenroll",
            Self::Reenroll => "simplereenroll",
            Self::SealEnroll => "seal_simpleenroll",
            Self::SealReenroll => "seal_simplereenroll",
            Self::Bundle => "bundle",
            Self::Uplink => "uplink",
            Self::Query => "query",
            Self::Devices => "devices",
            Self::Revoke => "revoke",
            Self::Quarantine => "quarantine",
            Self::Release => "release",
            Self::Ownership => "ownership",
            Self::Images => "images",
            Self::Blob => "blob",
            Self::Releases => "releases",
            Self::RefreshReleases => "refresh_releases",
            Self::Events => "events",
            Self::EvidenceCheckpoint => "evidence_checkpoint",
            Self::EvidenceTile => "evidence_tile",
            Self::EvidenceExport => "evidence_export",
            Self::CheckIn => "checkin",
            Self::Software => "software",
            Self::Rollouts => "rollouts",
            Self::NewRollout => "rollout_new",
            Self::Rollout => "rollout",
            Self::RolloutCommand(RolloutCommand::Start) => "rollout_start",
            Self::RolloutCommand(RolloutCommand::Pause) => "rollout_pause",
            Self::RolloutCommand(RolloutCommand::Resume) => "rollout_resume",
            Self::RolloutCommand(RolloutCommand::Halt) => "rollout_halt",
            Self::RolloutCommand(RolloutCommand::Revert) => "rollout_revert",
            Self::RolloutCommand(RolloutCommand::Abort) => "rollout_abort",
            Self::RolloutDevices => "rollout_devices",
            Self::Metrics => "metrics",
            Self::Health => "health",
        }
    }

    pub const fn method(self) -> Method {
        match self {
            Self::CaCerts | Self::SealCaCerts | Self::Bundle => Method::Get,
            Self::Devices | Self::Metrics | Self::Health => Method::Get,
            Self::Images | Self::Blob | Self::Releases => Method::Get,
            Self::RefreshReleases => Method::Post,
            Self::Events | Self::EvidenceCheckpoint => Method::Get,
            Self::EvidenceTile | Self::EvidenceExport => Method::Get,
            Self::Software | Self::Rollouts => Method::Get,
            Self::Rollout | Self::RolloutDevices => Method::Get,
            Self::CheckIn | Self::NewRollout | Self::RolloutCommand(_) => Method::Post,
            Self::Enroll | Self::Reenroll | Self::SealEnroll | Self::SealReenroll => Method::Post,
            Self::Uplink | Self::Query | Self::Ownership => Method::Post,
            Self::Revoke | Self::Quarantine | Self::Release => Method::Post,
        }
    }

    /// In the router's grammar: `{id}` stands for a device or rollout id, `{name}` for a metadata file, `{digest}` for a
    /// SHA-256, `{*name}` for all the rest.
    pub fn path(self) -> String {
        let est = |rest: &str| format!("{}/{rest}", path::EST);
        let sealed = |rest: &str| format!("{}/{}/{rest}", path::EST, path::EST_SEAL_LABEL);
        let device = |verb: &str| format!("{}/{{id}}/{verb}", path::DEVICES);
        match self {
            Self::CaCerts => est("cacerts"),
            Self::SealCaCerts => sealed("cacerts"),
            Self::Enroll => est("simpleenroll"),
            Self::Reenroll => est("simplereenroll"),
            Self::SealEnroll => sealed("simpleenroll"),
            Self::SealReenroll => sealed("simplereenroll"),
            Self::Bundle => path::GATEWAY_BUNDLE.to_owned(),
            Self::Uplink => path::GATEWAY_UPLINK.to_owned(),
            Self::Query => path::QUERY.to_owned(),
            Self::Devices => path::DEVICES.to_owned(),
            Self::Revoke => device("revoke"),
            Self::Quarantine => device("quarantine"),
            Self::Release => device("release"),
            Self::Ownership => path::OWNERSHIP.to_owned(),
            Self::Images => format!("{}/{{name}}", path::GATEWAY_IMAGES),
            Self::Blob => format!("{}/{{digest}}", path::GATEWAY_BLOBS),
            Self::Releases => path::RELEASES.to_owned(),
            Self::RefreshReleases => format!("{}/refresh", path::RELEASES),
            Self::Events => path::EVENTS.to_owned(),
            Self::EvidenceCheckpoint => format!("{}/checkpoint", path::EVIDENCE),
            Self::EvidenceTile => format!("{}/tile/{{*name}}", path::EVIDENCE),
            Self::EvidenceExport => format!("{}/export", path::EVIDENCE),
            Self::CheckIn => path::GATEWAY_CHECK_IN.to_owned(),
            Self::Software => device("software"),
            Self::Rollouts | Self::NewRollout => path::ROLLOUTS.to_owned(),
            Self::Rollout => format!("{}/{{id}}", path::ROLLOUTS),
            Self::RolloutCommand(command) => {
                format!("{}/{{id}}/{}", path::ROLLOUTS, command.as_str())
            }
            Self::RolloutDevices => format!("{}/{{id}}/devices", path::ROLLOUTS),
            Self::Metrics => path::METRICS.to_owned(),
            Self::Health => path::HEALTH.to_owned(),
        }
    }

    pub const fn scope(self) -> Scope {
        match self {
            // RFC 7030 §4.1: a client that has no certificate yet asks for these first.
            Self::CaCerts | Self::SealCaCerts | Self::Health => Scope::Public,
            Self::Enroll | Self::Reenroll | Self::SealEnroll | Self::SealReenroll => Scope::Enrol,
            Self::Bundle | Self::Uplink => Scope::Gateway,
            Self::Images | Self::Blob => Scope::Gateway,
            Self::Releases => Scope::FleetRead,
            Self::RefreshReleases => Scope::FleetWrite,
            Self::CheckIn => Scope::Gateway,
            Self::Software => Scope::FleetRead,
            Self::Rollouts | Self::Rollout | Self::RolloutDevices => Scope::RolloutRead,
            Self::NewRollout | Self::RolloutCommand(_) => Scope::RolloutWrite,
            Self::Query => Scope::Query,
            Self::Devices => Scope::FleetRead,
            Self::Revoke | Self::Quarantine | Self::Release | Self::Ownership => Scope::FleetWrite,
            Self::Events | Self::EvidenceCheckpoint => Scope::Audit,
            Self::EvidenceTile | Self::EvidenceExport => Scope::Audit,
            Self::Metrics => Scope::Metrics,
        }
    }

    /// The purpose of the key that this call certifies.
    pub const fn purpose(self) -> Option<Purpose> {
        match self {
            Self::Enroll | Self::Reenroll => Some(Purpose::Tls),
            Self::SealEnroll | Self::SealReenroll => Some(Purpose::Seal),
            _ => None,
        }
    }
}

/// Why a caller may not make a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("expected {expected}, found neither certificate nor token")]
    Unauthenticated { expected: &'static str },
    #[error("expected the bearer token of this site, found another or none")]
    BadToken,
    #[error("expected {expected}, found {}", found.as_str())]
    OutOfScope { expected: &'static str, found: CallerKind },
    #[error("the certificate says nothing that counts here: {0}")]
    Unrecognised(String),
    #[error("no {role} `{id}`: expected one that the registry holds")]
    Unknown { role: &'static str, id: String },
    #[error("`{id}` is a {found}, expected a {expected}")]
    OtherRole { id: DeviceId, expected: &'static str, found: &'static str },
    #[error("the certificate of `{id}` is for a key that is not its TLS key now")]
    NotItsKey { id: DeviceId },
    #[error("`{id}` is revoked")]
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
            Self::OutOfScope { .. } => "out_of_scope",
            Self::Unrecognised(_) => "unrecognised_certificate",
            Self::Unknown { .. } => "unknown_caller",
            Self::OtherRole { .. } => "other_role",
            Self::NotItsKey { .. } => "not_its_key",
            Self::Revoked { .. } => "revoked",
            Self::Quarantined { .. } => "quarantined",
        }
    }

    /// Whether another proof of who calls could mend it.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Unauthenticated { .. } | Self::BadToken)
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
    if device.standing == Standing::Revoked {
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
pub fn authorise(scope: Scope, caller: &Caller, directory: &Directory) -> Result<(), Denied> {
    if !scope.admits(caller.kind()) {
        let expected = scope.expected();
        return Err(match caller.kind() {
            CallerKind::Anonymous => Denied::Unauthenticated { expected },
            found => Denied::OutOfScope { expected, found },
        });
    }
    if let (Caller::Device(id) | Caller::Gateway(id), false) =
        (caller, scope.is_open_in_quarantine())
        && directory.device(id).is_some_and(|device| device.standing == Standing::Quarantined)
    {
        return Err(Denied::Quarantined { id: id.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INV-LEAST-1: the whole table, written out once more by hand.
    #[test]
    fn each_endpoint_admits_the_callers_it_is_for_and_no_other() {
        use CallerKind::{Anonymous, Device, Gateway, IDevId, Operator};
        for endpoint in Endpoint::ALL {
            let admitted: Vec<_> =
                CallerKind::ALL.into_iter().filter(|kind| endpoint.scope().admits(*kind)).collect();
            let expected: &[CallerKind] = match endpoint {
                Endpoint::CaCerts | Endpoint::SealCaCerts | Endpoint::Health => {
                    &[Anonymous, IDevId, Device, Gateway, Operator]
                }
                Endpoint::Enroll
                | Endpoint::Reenroll
                | Endpoint::SealEnroll
                | Endpoint::SealReenroll => &[IDevId, Device, Gateway],
                Endpoint::Bundle
                | Endpoint::Uplink
                | Endpoint::Images
                | Endpoint::Blob
                | Endpoint::CheckIn => &[Gateway],
                Endpoint::Query
                | Endpoint::Devices
                | Endpoint::Revoke
                | Endpoint::Quarantine
                | Endpoint::Release
                | Endpoint::Ownership
                | Endpoint::Releases
                | Endpoint::RefreshReleases
                | Endpoint::Events
                | Endpoint::EvidenceCheckpoint
                | Endpoint::EvidenceTile
                | Endpoint::EvidenceExport
                | Endpoint::Software
                | Endpoint::Rollouts
                | Endpoint::NewRollout
                | Endpoint::Rollout
                | Endpoint::RolloutCommand(_)
                | Endpoint::RolloutDevices
                | Endpoint::Metrics => &[Operator],
            };
            assert_eq!(admitted, expected, "{endpoint:?}");
        }
    }

    #[test]
    fn no_two_endpoints_are_the_same_call() {
        let mut calls: Vec<_> = Endpoint::ALL.into_iter().map(|e| (e.path(), e.method())).collect();
        calls.sort_by(|a, b| a.0.cmp(&b.0));
        calls.dedup();
        assert_eq!(calls.len(), Endpoint::ALL.len());
    }
}
