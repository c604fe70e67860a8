//! The gateway's short memory of one key: what came last, and what came newest.
//!
//! It tells an honest repeat (the PUBACK was lost, the device sends again) from a forgery under the same counter, and
//! says what is newer than all before. It never decides what becomes history: a message that it does not remember may
//! be late, and late messages belong to history too. That decision is [`crate::taken`]'s, in the store (INV-REPLAY-1).
//!
//! ```text
//! window = [1, remember, highest / null, [ *[epoch, sequence, digest: bstr 32] ]]        oldest admission first
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::convert::Infallible;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use model::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect};
use model::{Counter, Digest};

/// The longest memory that can be asked for: MQTT's Receive Maximum is a number of 16 bits, and no more than that
/// can be in flight.
pub const REMEMBER_MAX: usize = u16::MAX as usize;

/// Highest counter, and digests of the last messages that were admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    remember: usize,
    highest: Option<Counter>,
    last: VecDeque<(Counter, Digest)>,
}

/// What the window knows of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Above everything that was admitted.
    Fresh,
    /// Not above, and not remembered: history, if the store finds that it was not taken.
    Late,
    /// These bytes were admitted.
    Repeat,
    /// Other bytes were admitted under this counter.
    Forged,
}

impl Window {
    /// Remembers the last `remember` admissions: at least 1, at most [`REMEMBER_MAX`].
    pub fn new(remember: usize) -> Self {
        Self { remember: remember.clamp(1, REMEMBER_MAX), highest: None, last: VecDeque::new() }
    }

    /// Changes nothing. What is not above the highest costs a walk through what is remembered (INV-COST-1).
    pub fn look(&self, counter: Counter, digest: &Digest) -> Look {
        if self.highest.is_none_or(|highest| counter > highest) {
            return Look::Fresh;
        }
        match self.remembered(counter) {
            Some(known) if known == digest => Look::Repeat,
            Some(_) => Look::Forged,
            None => Look::Late,
        }
    }

    /// Remembers a message, once what it carries is durable. The first digest of a counter stays.
    pub fn admit(&mut self, counter: Counter, digest: Digest) {
        if self.remembered(counter).is_some() {
            return;
        }
        self.highest = self.highest.max(Some(counter));
        if self.last.len() == self.remember {
            self.last.pop_front();
        }
        self.last.push_back((counter, digest));
    }

    pub fn highest(&self) -> Option<Counter> {
        self.highest
    }

    fn remembered(&self, counter: Counter) -> Option<&Digest> {
        self.last.iter().rev().find(|(known, _)| *known == counter).map(|(_, digest)| digest)
    }

    pub fn encode(&self) -> Vec<u8> {
        self.encode_last(self.last.len())
    }

    /// As [`Window::encode`], of the newest `admissions` alone, but of one at least: who reads it has forgotten the older
    /// ones, as if it had been told to remember no more until now. For who has little room.
    pub fn encode_last(&self, admissions: usize) -> Vec<u8> {
        let older = self.last.len().saturating_sub(admissions.max(1));
        let last = self.last.iter().skip(older);
        let mut e = Encoder::new(Vec::with_capacity(last.len() * 48 + 24));
        let written: Result<(), minicbor::encode::Error<Infallible>> = (|| {
            e.array(4)?.u8(1)?.u32(self.remember as u32)?;
            match self.highest {
                Some(highest) => e.array(2)?.u32(highest.epoch)?.u64(highest.sequence)?,
                None => e.null()?,
            };
            e.array(last.len() as u64)?;
            for (counter, digest) in last {
                e.array(3)?.u32(counter.epoch)?.u64(counter.sequence)?.bytes(digest.as_bytes())?;
            }
            Ok(())
        })();
        written.expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    /// Reads what [`Window::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        const OUTER: &str = "[1, remember, highest, last]";
        const REMEMBER: &str = "remember: 1 to 65,535";
        const HIGHEST: &str = "highest: the highest of all that are remembered, or higher";
        let out_of_domain = |expected| Malformed::new(Reason::OutOfDomain, expected);
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 4, OUTER)?;
        if expect(d.u8(), "format version 1")? != 1 {
            return Err(Malformed::new(Reason::UnknownKind, "format version 1"));
        }
        let remember = expect(d.u32(), REMEMBER)? as usize;
        if !(1..=REMEMBER_MAX).contains(&remember) {
            return Err(out_of_domain(REMEMBER));
        }
        let highest = if expect(d.datatype(), HIGHEST)? == Type::Null {
            expect(d.null(), HIGHEST)?;
            None
        } else {
            array_of(&mut d, 2, "[epoch, sequence]")?;
            Some(counter(&mut d)?)
        };
        let len = array_up_to(&mut d, remember, "no more admissions than it remembers")?;
        let mut last = VecDeque::with_capacity(len.min(bytes.len() / 36));
        for _ in 0..len {
            array_of(&mut d, 3, "[epoch, sequence, digest]")?;
            let counter = counter(&mut d)?;
            let digest = expect(d.bytes(), "a digest of 32 bytes")?;
            let digest =
                Digest::try_from(digest).map_err(|_| out_of_domain("a digest of 32 bytes"))?;
            last.push_back((counter, digest));
        }
        at_end(&d)?;
        if highest.is_none() != last.is_empty() || last.iter().any(|(c, _)| Some(*c) > highest) {
            return Err(out_of_domain(HIGHEST));
        }
        let mut counters: Vec<Counter> = last.iter().map(|(counter, _)| *counter).collect();
        counters.sort_unstable();
        if counters.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(out_of_domain("each counter once"));
        }
        let window = Self { remember, highest, last };
        if window.encode() == bytes {
            Ok(window)
        } else {
            Err(Malformed::new(Reason::NotDeterministic, "deterministic CBOR (RFC 8949 §4.2.1)"))
        }
    }
}

fn counter(d: &mut Decoder<'_>) -> Result<Counter, Malformed> {
    Ok(Counter {
        epoch: expect(d.u32(), "an epoch (32 bits)")?,
        sequence: expect(d.u64(), "a sequence (64 bits)")?,
    })
}

#[cfg(test)]
mod tests;
