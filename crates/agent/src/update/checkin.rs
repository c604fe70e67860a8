//! A check-in: what the device says of itself, sealed, and what comes back for it.
//!
//! The manifest is sealed by the key that seals the readings, with a counter of its own: the epoch is that of this start, the
//! sequence counts manifests. One that was not answered is never sent again: the next gateway gets a newer one.

use super::repository::{Cycle, Stopped};
use crate::clock::Stamp;
use api::update::{CheckIn, DirectorFiles};
use model::manifest::{Component, Manifest, Outcome, Trusted};
use model::{Counter, DeviceId, Header, Kind, WallClock};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use trust::cose::{self, SignError, Signer};
use trust::tuf::Role;

/// The format of a check-in's answer that this build knows (INV-MIX-1).
const FORMAT: u32 = 1;

/// Under which key and in which epoch manifests are sealed.
#[derive(Clone)]
pub struct SealKey {
    pub signer: Arc<dyn Signer>,
    /// Of this start: [`crate::counter`] began it, durably.
    pub epoch: u32,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({}, epoch {})", self.signer.public().id(), self.epoch)
    }
}

/// Counts manifests of this start.
#[derive(Debug, Default)]
pub struct Manifests {
    next: u64,
}

impl Manifests {
    /// Seals what the device says. Each number is given out once, whatever key seals.
    pub fn seal(
        &mut self,
        manifest: &Manifest,
        key: &SealKey,
        stamp: &Stamp,
    ) -> Result<Vec<u8>, SignError> {
        let counter = Counter { epoch: key.epoch, sequence: self.next };
        self.next += 1;
        let header = Header {
            algorithm: key.signer.public().algorithm(),
            kind: Kind::Manifest,
            key: key.signer.public().id(),
            counter,
            uptime_ms: stamp.uptime_ms,
            wall: Some(WallClock { time: stamp.wall, uncertainty_ms: stamp.uncertainty_ms }),
            heard: None,
            prior: None,
        };
        cose::seal(&header, &manifest.encode(), &*key.signer)
    }
}

/// What the device says of itself now.
pub fn manifest(
    device: &DeviceId,
    components: Vec<Component>,
    [director, images]: [Trusted; 2],
    outcome: Option<Outcome>,
) -> Manifest {
    Manifest { device: device.clone(), components, director, images, outcome }
}

/// What is wrong with an answer, before anything in it is judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("the answer to a check-in is none: expected JSON with a lease")]
    NotJson,
    #[error(
        "expected an answer of format {FORMAT}, found format {found}, which this build does not know"
    )]
    UnknownFormat { found: u32 },
}

pub fn read(body: &[u8]) -> Result<CheckIn, BadAnswer> {
    // The version before the fields: a later one may have others. What is not asked for is passed over and never built: an
    // answer of four million bytes can be one of two million values (INV-COST-1).
    let Versioned { format: found } =
        serde_json::from_slice(body).map_err(|_| BadAnswer::NotJson)?;
    if found != FORMAT {
        return Err(BadAnswer::UnknownFormat { found });
    }
    serde_json::from_slice(body).map_err(|_| BadAnswer::NotJson)
}

#[derive(serde::Deserialize)]
struct Versioned {
    format: u32,
}

/// Feeds a Director's files to its cycle, in the order in which it asks.
pub fn direct(cycle: &mut Cycle<'_>, files: &DirectorFiles) -> Result<(), Stopped> {
    let mut roots: VecDeque<&[u8]> = files.roots.iter().map(|root| &root.0[..]).collect();
    while let Some(fetch) = cycle.next() {
        let file = match fetch.role {
            Role::Root => roots.pop_front(),
            Role::Timestamp => Some(&files.timestamp.0[..]),
            Role::Snapshot => Some(&files.snapshot.0[..]),
            Role::Targets => Some(&files.targets.0[..]),
        };
        cycle.take(file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_format_is_refused_for_its_format() {
        let good = br#"{"format":1,"lease":"AAE=","again_ms":60000}"#;
        assert_eq!(read(good).unwrap().lease.0, [0, 1]);
        let table: &[(&str, BadAnswer)] = &[
            (r#"{"format":2,"words":"others"}"#, BadAnswer::UnknownFormat { found: 2 }),
            (r#"{"lease":"AAE=","again_ms":60000}"#, BadAnswer::NotJson),
            (r#"{"format":1,"again_ms":60000}"#, BadAnswer::NotJson),
            (r#"{"format":1,"lease":"?","again_ms":60000}"#, BadAnswer::NotJson),
            ("", BadAnswer::NotJson),
        ];
        for (body, why) in table {
            assert_eq!(read(body.as_bytes()).unwrap_err(), *why, "{body}");
        }
    }

    #[test]
    fn no_number_is_given_to_two_manifests_of_a_start() {
        use model::envelope::Algorithm;
        use trust::cose::SecretKey;
        let secret = SecretKey::from_random(Algorithm::Ed25519, &[7; 32]).unwrap();
        let public = secret.public().clone();
        let key = SealKey { signer: Arc::new(secret), epoch: 9 };
        let device = DeviceId::new("pump-7").unwrap();
        let says = manifest(&device, vec![], Default::default(), None);
        let stamp = Stamp { uptime_ms: 5, wall: crate::clock::FLOOR, uncertainty_ms: 0 };
        let mut manifests = Manifests::default();
        for sequence in 0..3 {
            let message = manifests.seal(&says, &key, &stamp).unwrap();
            let (header, found) = trust::manifest::open(&message, &public, &device).unwrap();
            assert_eq!((header.counter, found), (Counter { epoch: 9, sequence }, says.clone()));
            assert_eq!((header.prior, header.heard), (None, None));
        }
    }
}
