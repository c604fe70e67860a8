//! Where a name and a password become a person, or not.
//!
//! Promises: at most two passwords are looked at at a time, on threads that nobody else waits for, and so many wait for that as
//! may (INV-COST-1); a name that nobody has costs what a user's does; who guesses waits (`backoff.rs`).
//! Never: says which of name and password was wrong, or keeps or logs either.

use super::backoff::{Backoff, Ended};
use super::secret::Hash;
use crate::problem::Failure;
use axum::http::StatusCode;
use model::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Passwords that are hashed at a time: 19 MiB and a core each.
const HASHING_MAX: usize = 2;
/// And that wait for it: a second's worth of them, unoptimised. One more is sent away.
const WAITING_MAX: usize = 16;
/// When a place has come free by then.
const ROOM_S: u32 = 2;

/// Why nobody came in: few words, since each is a label and stands in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refused {
    UnknownUser,
    OtherPassword,
    Disabled,
    TooOften,
    NoRoom,
}

impl Refused {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown_user",
            Self::OtherPassword => "other_password",
            Self::Disabled => "disabled",
            Self::TooOften => "too_often",
            Self::NoRoom => "no_room",
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Door {
    backoff: Mutex<Backoff>,
    hashing: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Since the last event that told of them.
    refused: Mutex<BTreeMap<Refused, u64>>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            backoff: Mutex::default(),
            hashing: Arc::new(Semaphore::new(HASHING_MAX)),
            waiting: AtomicUsize::new(0),
            refused: Mutex::default(),
        }
    }
}

impl Door {
    /// Whether this is the password of who has this name. `None`: nobody has it.
    pub async fn judge(
        &self,
        from: IpAddr,
        name: &str,
        kept: Option<Hash>,
        password: String,
        now: Timestamp,
    ) -> Result<bool, (Refused, Failure)> {
        let begun = self.backoff().begin(from.into(), name, now);
        let attempt = begun.map_err(|wait| (Refused::TooOften, too_often(wait)))?;
        let unknown = kept.is_none();
        let hash = kept.unwrap_or_else(Hash::nobody);
        let judged = self.work(move || hash.is_of(&password)).await;
        let is_good = judged.as_ref().is_ok_and(|is_of| *is_of && !unknown);
        let ended = match &judged {
            _ if is_good => Ended::Good,
            Ok(_) => Ended::Failed,
            Err(_) => Ended::NotJudged,
        };
        self.backoff().end(attempt, ended);
        judged.map(|_| is_good).map_err(|failure| (Refused::NoRoom, failure))
    }

    pub async fn hash(&self, password: String) -> Result<Hash, Failure> {
        self.work(move || Hash::of(&password)).await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = match self.hashing.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::enter(&self.waiting).ok_or_else(no_room)?;
                self.hashing.clone().acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| Failure::internal(&error))
    }

    pub fn count(&self, refused: Refused) {
        *self.refused().entry(refused).or_default() += 1;
    }

    /// What was refused since this was asked last.
    pub fn take_refused(&self) -> BTreeMap<Refused, u64> {
        std::mem::take(&mut self.refused())
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, BTreeMap<Refused, u64>> {
        self.refused.lock().expect("nothing panics while it holds the counts")
    }

    fn backoff(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.backoff.lock().expect("nothing panics while it holds the counts")
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Option<Self> {
        let one_more = |waiting| (waiting < WAITING_MAX).then_some(waiting + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn too_often(wait: Duration) -> Failure {
    let seconds = u32::try_from(wait.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX).max(1);
    let detail =
        format!("expected another try in {seconds} s at the soonest: too many have failed");
    let title = "too many attempts to sign in";
    let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", title, detail);
    Failure { retry_after_s: Some(seconds), ..failure }
}

fn no_room() -> Failure {
    let detail = format!(
        "expected at most {HASHING_MAX} passwords at a time and {WAITING_MAX} waiting, found one more"
    );
    Failure { retry_after_s: Some(ROOM_S), ..Failure::busy(detail) }
}
