//! Why control does not start, and why it has to stop.

use crate::alerts::AlertError;
use crate::certificate::CertificateError;
use crate::config::TOKEN_CHARS_MIN;
use crate::director::BadRoot;
use crate::ledger::LedgerError;
use crate::registry::RegistryError;
use crate::releases::KeptError;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the bearer token has {found} characters, expected at least {TOKEN_CHARS_MIN}")]
    ShortToken { found: usize },
    #[error("no shard of the bus: expected at least one")]
    NoShards,
    #[error("the policies cannot be read")]
    Policies(#[from] policy::PolicyError),
    #[error("the site's or a maker's authority cannot be used")]
    Authority(#[from] keys::cert::CertError),
    #[error("the authorities cannot be handed out by EST")]
    CaCerts(#[from] keys::pkcs7::Pkcs7Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Director(#[from] BadRoot),
    #[error("the vendor's image repository cannot be used")]
    Images(#[from] KeptError),
    #[error("the evidence log cannot be gone on with")]
    Evidence(#[from] LedgerError),
    #[error("alerts cannot be gone on with")]
    Alerts(#[from] AlertError),
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot listen on {at}")]
    Listen { at: SocketAddr, source: std::io::Error },
}

/// Control can promise nothing any more: the process has to stop, and find out at its next start what is durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    #[error("shard {shard} of the bus failed to write or sync: what is durable there is unknown")]
    Bus { shard: usize },
    #[error("the registry can neither be written nor read")]
    Registry,
    #[error("the evidence log takes no event any more: {why}")]
    Evidence { why: Arc<str> },
}
