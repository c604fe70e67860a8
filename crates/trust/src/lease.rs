//! The newest word of the site to a zone, as one who holds it judges it: is it believed, does it still last, may an
//! install be armed under it.
//!
//! Promises: a lease counts only under a key that may sign leases and for one's own zone; numbers, policy generations and
//! revocation epochs never go back (INV-FRESH-1); what is counted down is the lease's own length, on the holder's own
//! clock, from the first time that it came: the same lease again lengthens nothing, nor does a power cut.
//! Never: believes a wall clock more than it must. `time_floor` is the newest signed time that the holder has seen: true
//! time is not before it. A lease that was withheld and comes late is known as old only by that and by its number.

use crate::cose::{self, PublicKey};
use alloc::vec::Vec;
use core::fmt;
use model::cbor::Malformed;
use model::lease::{LEASE_BYTES_MAX, Lease};
use model::{Digest, Kind, RolloutId, Timestamp, ZoneId};

/// A day: no zone asks for more, and a site that could sign a longer one could sign one for ever.
pub const LEASE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// The longest message: the longest lease, the widest header and the seal.
pub const MESSAGE_BYTES_MAX: usize = LEASE_BYTES_MAX + 512;

/// What one holder knows of its zone's leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leases {
    zone: ZoneId,
    keys: Vec<PublicKey>,
    held: Option<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    message: Vec<u8>,
    lease: Lease,
    payload: Digest,
    /// On the holder's own clock of this boot.
    taken_ms: u64,
    ends_ms: u64,
    /// How old it was at the least when it was taken. After a restart nobody knows.
    age_ms: Option<u64>,
}

/// What a message changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// The newest; it is to be kept.
    New,
    /// The one that is held already: nothing changed, and nothing became longer.
    Known,
}

/// Why a lease was not taken. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed(Malformed),
    OtherKind(Kind),
    /// No key that may sign leases.
    UnknownKey,
    BadSignature,
    OtherZone {
        expected: ZoneId,
        found: ZoneId,
    },
    /// Longer than any lease may be.
    TooLong {
        ms: u64,
    },
    /// It was over before it came.
    Expired {
        not_after: Timestamp,
        time_floor: Timestamp,
    },
    Older {
        held: u64,
        found: u64,
    },
    /// The same number with other words: whoever signs has two histories.
    Fork {
        number: u64,
    },
    /// A newer number with an older policy or revocation.
    WentBack {
        what: &'static str,
        held: u64,
        found: u64,
    },
}

impl Refused {
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.reason.as_str(),
            Self::OtherKind(_) => "other_kind",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::OtherZone { .. } => "other_zone",
            Self::TooLong { .. } => "too_long",
            Self::Expired { .. } => "expired",
            Self::Older { .. } => "older",
            Self::Fork { .. } => "fork",
            Self::WentBack { .. } => "went_back",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::OtherKind(kind) => write!(f, "expected a lease, found {}", kind.content_type()),
            Self::UnknownKey => f.write_str("expected a key that may sign leases, found another"),
            Self::BadSignature => cose::BadSignature.fmt(f),
            Self::OtherZone { expected, found } => {
                write!(f, "expected a lease of `{expected}`, found one of `{found}`")
            }
            Self::TooLong { ms } => {
                write!(f, "expected a lease of at most {LEASE_MS_MAX} ms, found {ms}")
            }
            Self::Expired { not_after, time_floor } => write!(
                f,
                "expected a lease that ends after {} µs, found {} µs",
                time_floor.as_us(),
                not_after.as_us()
            ),
            Self::Older { held, found } => {
                write!(f, "expected lease {held} or newer, found {found}")
            }
            Self::Fork { number } => {
                write!(
                    f,
                    "expected the lease {number} that is held, found other words under its number"
                )
            }
            Self::WentBack { what, held, found } => {
                write!(f, "expected {what} {held} or newer, found {found}")
            }
        }
    }
}

impl core::error::Error for Refused {}

/// Why nothing may be armed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    NoLease,
    RanOut,
    /// It was issued longer ago than a halt may take, or nobody knows when.
    NotFresh,
    Halted,
}

impl NotNow {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoLease => "no_lease",
            Self::RanOut => "lease_ran_out",
            Self::NotFresh => "lease_not_fresh",
            Self::Halted => "rollout_halted",
        }
    }
}

/// What to keep over a restart: the message as it came, and how much of it is left. It is written again at least every
/// tenth of the lease, or counted as nothing when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub message: Vec<u8>,
    pub remaining_ms: u64,
}

impl Leases {
    pub fn new(zone: ZoneId, keys: Vec<PublicKey>) -> Self {
        Self { zone, keys, held: None }
    }

    /// Goes on after a restart. A zone that prefers safety hands in 0 as what remains: the number is still remembered,
    /// and only a newer lease gives rights again.
    pub fn import(
        zone: ZoneId,
        keys: Vec<PublicKey>,
        kept: Kept,
        uptime_ms: u64,
    ) -> Result<Self, Refused> {
        let mut leases = Self::new(zone, keys);
        let (lease, payload) = leases.open(&kept.message)?;
        let length = length_ms(&lease)?;
        let ends_ms = uptime_ms.saturating_add(kept.remaining_ms.min(length));
        let message = kept.message;
        leases.held =
            Some(Held { message, lease, payload, taken_ms: uptime_ms, ends_ms, age_ms: None });
        Ok(leases)
    }

    pub fn export(&self, uptime_ms: u64) -> Option<Kept> {
        let held = self.held.as_ref()?;
        Some(Kept { message: held.message.clone(), remaining_ms: self.remaining_ms(uptime_ms) })
    }

    /// Takes a message that may be a lease.
    pub fn take(
        &mut self,
        message: &[u8],
        uptime_ms: u64,
        time_floor: Timestamp,
    ) -> Result<Took, Refused> {
        let (lease, payload) = self.open(message)?;
        let length = length_ms(&lease)?;
        if let Some(held) = &self.held {
            if lease.number == held.lease.number {
                let same = payload == held.payload;
                return if same {
                    Ok(Took::Known)
                } else {
                    Err(Refused::Fork { number: lease.number })
                };
            }
            newer_than(&held.lease, &lease)?;
        }
        // True time is not before the floor, so at least so much of the lease is over.
        let past_us = time_floor.as_us().saturating_sub(lease.issued.as_us()).max(0);
        let age_ms = past_us.unsigned_abs() / 1000;
        let Some(remaining) = length.checked_sub(age_ms).filter(|left| *left > 0) else {
            return Err(Refused::Expired { not_after: lease.not_after, time_floor });
        };
        self.held = Some(Held {
            message: message.to_vec(),
            lease,
            payload,
            taken_ms: uptime_ms,
            ends_ms: uptime_ms.saturating_add(remaining),
            age_ms: Some(age_ms),
        });
        Ok(Took::New)
    }

    /// The newest, whether it lasts or not.
    pub fn newest(&self) -> Option<&Lease> {
        self.held.as_ref().map(|held| &held.lease)
    }

    /// What is left of it, on the holder's own clock. A clock that went back, as it does at a restart, leaves nothing.
    pub fn remaining_ms(&self, uptime_ms: u64) -> u64 {
        match &self.held {
            Some(held) if uptime_ms >= held.taken_ms => held.ends_ms.saturating_sub(uptime_ms),
            _ => 0,
        }
    }

    /// Whether an install of `rollout` may be armed now: under a lease that lasts, was issued within `halt_within_ms` and
    /// does not name the rollout as halted (ROLL-1: so nothing arms later than that after a halt).
    pub fn may_arm(
        &self,
        rollout: Option<&RolloutId>,
        halt_within_ms: u64,
        uptime_ms: u64,
    ) -> Result<(), NotNow> {
        let held = self.held.as_ref().ok_or(NotNow::NoLease)?;
        if self.remaining_ms(uptime_ms) == 0 {
            return Err(NotNow::RanOut);
        }
        let age = held.age_ms.map(|age| age.saturating_add(uptime_ms - held.taken_ms));
        if age.is_none_or(|age| age > halt_within_ms) {
            return Err(NotNow::NotFresh);
        }
        // In order of names, by the format.
        match rollout.map(|rollout| held.lease.halted.binary_search(rollout)) {
            Some(Ok(_)) => Err(NotNow::Halted),
            _ => Ok(()),
        }
    }

    fn open(&self, message: &[u8]) -> Result<(Lease, Digest), Refused> {
        let unverified = cose::open(message, MESSAGE_BYTES_MAX).map_err(Refused::Malformed)?;
        let header = unverified.header();
        if header.kind != Kind::Lease {
            return Err(Refused::OtherKind(header.kind));
        }
        let key = self.keys.iter().find(|key| key.id() == header.key);
        let key = key.ok_or(Refused::UnknownKey)?;
        let verified = unverified.verify(key).map_err(|_| Refused::BadSignature)?;
        let lease = Lease::decode(verified.payload()).map_err(Refused::Malformed)?;
        if lease.zone != self.zone {
            let (expected, found) = (self.zone.clone(), lease.zone);
            return Err(Refused::OtherZone { expected, found });
        }
        Ok((lease, crate::digest(verified.payload())))
    }
}

fn length_ms(lease: &Lease) -> Result<u64, Refused> {
    let us = lease.not_after.as_us().abs_diff(lease.issued.as_us());
    let ms = us / 1000;
    if ms > LEASE_MS_MAX { Err(Refused::TooLong { ms }) } else { Ok(ms) }
}

fn newer_than(held: &Lease, found: &Lease) -> Result<(), Refused> {
    if found.number < held.number {
        return Err(Refused::Older { held: held.number, found: found.number });
    }
    for (what, held, found) in [
        ("policy", held.policy, found.policy),
        ("revocation epoch", held.revocation, found.revocation),
    ] {
        if found < held {
            return Err(Refused::WentBack { what, held, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
