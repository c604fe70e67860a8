//! Every request has a name: its answer says it, a problem says it, and every line of the log that tells of it.

use model::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

/// The header with a request's name.
pub const REQUEST_ID: &str = "plimsoll-request-id";

/// Names requests, so that no two of a site have the same.
#[derive(Debug)]
pub(crate) struct Requests {
    /// When this process began: the next one begins later.
    started: Timestamp,
    next: AtomicU64,
}

impl Requests {
    pub fn new(started: Timestamp) -> Self {
        Self { started, next: AtomicU64::new(1) }
    }

    pub fn name(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{number:x}", self.started.as_us())
    }
}

/// A request's own name, among what goes with it.
#[derive(Clone, Debug)]
pub(crate) struct Named(pub String);

/// The request that a problem is about, as RFC 9457's `instance`.
pub(crate) fn instance(request: &str) -> String {
    format!("urn:plimsoll:request:{request}")
}
