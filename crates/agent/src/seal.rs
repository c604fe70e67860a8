//! Puts the device's signature and counter on what it says.
//!
//! A sealer is one key in one epoch. The first message of an epoch that is kept carries `prior`: the last counter that
//! was durable before, under whichever key that was.

use crate::clock::Stamp;
use crate::counter::Counters;
use model::{Counter, Header, Heard, KeyId, Kind, Nonce, Prior, WallClock};
use std::fmt;
use std::sync::Arc;
use trust::cose::{self, SignError, Signer};

/// One key in one epoch.
pub struct Sealer {
    signer: Arc<dyn Signer>,
    counters: Counters,
    heard: Option<Heard>,
    prior: Option<Prior>,
}

/// A message with its counter. It keeps both for ever: it is never sealed again.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub kind: Kind,
    pub key: KeyId,
    pub counter: Counter,
    pub prior: Option<Prior>,
    pub envelope: Vec<u8>,
}

impl Sealer {
    /// `counters` must be the signer's. `prior` is the last counter that was durable before this epoch.
    pub fn new(signer: Arc<dyn Signer>, counters: Counters, prior: Option<Prior>) -> Self {
        assert_eq!(signer.public().id(), counters.key(), "a key counts with its own counter");
        Self { signer, counters, heard: None, prior }
    }

    pub fn key(&self) -> KeyId {
        self.counters.key()
    }

    pub fn epoch(&self) -> u32 {
        self.counters.epoch()
    }

    /// The newest nonce of a gateway: what is sealed from now on says that it was heard.
    pub fn hear(&mut self, nonce: Nonce) {
        self.heard = Some(Heard { nonce, lease: 0 });
    }

    pub fn heard(&self) -> Option<Heard> {
        self.heard
    }

    /// The counter that the next message gets.
    pub fn peek(&self) -> Counter {
        self.counters.peek()
    }

    /// Takes the counter of a message that is dropped before it is sealed.
    pub fn skip(&mut self) -> Counter {
        self.counters.take()
    }

    /// The link to the epoch before, while no message has carried it yet. The caller carries it.
    pub fn take_prior(&mut self) -> Option<Prior> {
        self.prior.take()
    }

    /// Seals a pack of readings. It carries the link to the epoch before if none has.
    pub fn seal_readings(&mut self, payload: &[u8], stamp: &Stamp) -> Result<Sealed, SignError> {
        let prior = self.prior.take();
        self.seal(Kind::Readings, payload, stamp, prior)
    }

    /// Seals a loss notice with the link that it is given.
    pub fn seal_notice(
        &mut self,
        payload: &[u8],
        stamp: &Stamp,
        prior: Option<Prior>,
    ) -> Result<Sealed, SignError> {
        self.seal(Kind::LossNotice, payload, stamp, prior)
    }

    fn seal(
        &mut self,
        kind: Kind,
        payload: &[u8],
        stamp: &Stamp,
        prior: Option<Prior>,
    ) -> Result<Sealed, SignError> {
        let counter = self.counters.take();
        let header = Header {
            algorithm: self.signer.public().algorithm(),
            kind,
            key: self.counters.key(),
            counter,
            uptime_ms: stamp.uptime_ms,
            wall: Some(WallClock { time: stamp.wall, uncertainty_ms: stamp.uncertainty_ms }),
            heard: self.heard,
            prior,
        };
        let envelope = cose::seal(&header, payload, &*self.signer)?;
        Ok(Sealed { kind, key: header.key, counter, prior, envelope })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(key {}, epoch {})", self.key(), self.epoch())
    }
}
