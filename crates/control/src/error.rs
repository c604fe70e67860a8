//! Why control does not start, and why it has to stop.

use crate::certificate::CertificateError;
use crate::config::TOKEN_CHARS_MIN;
use crate::registry::RegistryError;
use std::net::SocketAddr;

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
}

/// An error with its causes, in one line. A cause that the text before it says already is not said twice.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot do it: {0}")]
        SaysItsCause(#[source] io::Error),
        #[error("cannot do it")]
        LeavesItToOthers(#[source] io::Error),
    }

    #[test]
    fn each_cause_is_told_once() {
        let cause = || io::Error::other("no space");
        assert_eq!(told(&Outer::LeavesItToOthers(cause())), "cannot do it: no space");
        assert_eq!(told(&Outer::SaysItsCause(cause())), "cannot do it: no space");
    }
}
