//! Why a gateway does not start, or stops.

use crate::bundle::BundleError;
use crate::kept::KeptError;
use crate::spool::SpoolError;
use keys::identity::IdentityError;
use keys::tls::TlsError;
use model::{DeviceId, GatewayId};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("option {option}: expected {expected}, found {found}")]
    Option { option: &'static str, expected: &'static str, found: String },
    #[error("cannot {attempt} `{}`", path.display())]
    File { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot listen on {at}")]
    Listen { at: SocketAddr, source: io::Error },
    #[error("cannot use this gateway's identity")]
    Identity(#[from] IdentityError),
    #[error("this gateway is enrolled as `{found}`, expected `{expected}`")]
    OtherName { expected: GatewayId, found: DeviceId },
    #[error("cannot set TLS up")]
    Tls(#[from] TlsError),
    #[error("cannot set up an HTTP client")]
    Http(#[source] reqwest::Error),
    #[error("cannot use the bundle")]
    Bundle(#[from] BundleError),
    #[error("cannot use the spool")]
    Spool(#[from] SpoolError),
    #[error("cannot keep the gateway's counter")]
    Counter(#[from] KeptError),
    #[error("the gateway's sealing key has had all its epochs: rotate it")]
    NoMoreEpochs,
    #[error(
        "the spool could not be made durable: what is on the disk is unknown, so this process must end"
    )]
    SpoolFailed,
    #[error("{task} ended by itself")]
    TaskEnded { task: &'static str },
}

impl GatewayError {
    /// How long to wait at least before trying again, where somebody has said so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Identity(error) => error.retry_after(),
            _ => None,
        }
    }
}
