//! The store's authoritative memory of one key: which of its counters were admitted, exactly, however late they come.
//!
//! Promises (INV-REPLAY-1): a counter is [`Admission::New`] at most once, for ever; it is [`Admission::Repeat`] only
//! if it is known exactly that it was admitted. What can be judged neither way goes to quarantine with its reason and
//! is never lost silently. Memory is bounded against the holder of the key too (INV-COST-1): see the four `_MAX`.
//! Never: looks at wall clocks, believes a digest over a counter.
//!
//! An epoch is a line of sequences from 0. Each sequence on it is *taken*, *closed* (it will not come, or comes too
//! late to be believed), or free. Free ones below the epoch's end are its **open gaps**. Its end is what the device
//! itself said in the first message of a later epoch; until then it is the highest that was taken or closed.
//!
//! ```text
//!   epoch 7, its end declared as 19:      0    5 6   9 10        15 16     19 20
//!                                         [taken][clsd][taken     ][  free   ] after the end
//!                                                                    └ an open gap: the missing tail
//!
//! taken     = [1, forgotten / null, [ *epoch ], [ *digest ]]
//! forgotten = [epoch, sequence]                               this counter and all below it are beyond memory
//! epoch     = [number, end]                                   complete: 0 ..= end taken
//!           / [number, end / null, [ *[first, last, fate] ]]  fate: 0 taken, 1 closed; ascending, neighbours merged
//! digest    = [epoch, sequence, bstr 8]                       of the last 64 admissions, oldest first
//! ```
//!
//! `docs/formats/taken.md` has golden bytes.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::convert::Infallible;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use model::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect};
use model::{Counter, Digest};

/// The most gaps that stay open: then the lowest, which is the oldest, closes, and what falls into it later goes to
/// quarantine. A gap is a range of any length, so a whole spool that comes late is one gap.
pub const GAPS_MAX: usize = 64;

/// The most epochs that are known exactly: one start a day for almost three years. Then the lowest is forgotten.
pub const EPOCHS_MAX: usize = 1024;

/// The most closed ranges that are known exactly. Then all up to the end of the lowest is forgotten.
pub const CLOSED_MAX: usize = 1024;

/// How many admissions keep their digest. Below that, a second message under a taken counter counts as a repeat: it
/// takes no effect either way.
pub const DIGESTS_MAX: usize = 64;

/// The longest encoding: 3,136 spans of 20 bytes, 1,024 heads of epochs of 17, 64 digests of 25, and the outer frame.
pub const BYTES_MAX: usize = 96 * 1024;

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Admission {
    /// Into history. The counter is taken from now on.
    New,
    /// It is in history already: nothing is to be done.
    Repeat,
    /// Another message was admitted under this counter: quarantine.
    Equivocation,
    /// The counter lies in a range that was closed: quarantine.
    GapClosed,
    /// The counter lies above the end that the device itself declared for its epoch: quarantine.
    AfterEnd,
    /// So old that it is not known any more whether it was taken: quarantine.
    BeyondMemory,
}

/// Which counters of one key were admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// This counter and all below it are beyond memory.
    forgotten: Option<Counter>,
    epochs: BTreeMap<u32, Epoch>,
    /// Of the last admissions, oldest first. Eight bytes do: only the holder of the key could search for two messages
    /// that share them, and wins a `Repeat` where it would have had an `Equivocation`.
    digests: VecDeque<(Counter, [u8; 8])>,
    /// How many open gaps and closed ranges there are in all epochs.
    count: Count,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Epoch {
    /// Ascending and disjoint; neighbours that touch differ in their fate.
    spans: Vec<Span>,
    /// The last sequence, as the device declared it; never below the last span.
    end: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Taken = 0,
    Closed = 1,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    gaps: usize,
    closed: usize,
}

impl Taken {
    /// Judges a message by its counter, and takes the counter when the answer is `New`. No other answer changes
    /// anything.
    ///
    /// `prior_same_key` is the message's `prior` when that names the same key; it ends the epoch that it names. It is
    /// not believed when it does not name an earlier epoch.
    pub fn admit(
        &mut self,
        counter: Counter,
        digest: &Digest,
        prior_same_key: Option<Counter>,
    ) -> Admission {
        if self.forgotten.is_some_and(|forgotten| counter <= forgotten) {
            return Admission::BeyondMemory;
        }
        if let Some(epoch) = self.epochs.get(&counter.epoch) {
            match epoch.fate(counter.sequence) {
                Some(Fate::Taken) if self.is_of_another(counter, digest) => {
                    return Admission::Equivocation;
                }
                Some(Fate::Taken) => return Admission::Repeat,
                Some(Fate::Closed) => return Admission::GapClosed,
                None if epoch.end.is_some_and(|end| counter.sequence > end) => {
                    return Admission::AfterEnd;
                }
                None => {}
            }
        }
        self.change(counter.epoch, |epoch| {
            epoch.fill(counter.sequence, counter.sequence, Fate::Taken);
        });
        self.remember(counter, digest);
        if let Some(prior) = prior_same_key.filter(|prior| prior.epoch < counter.epoch) {
            self.declare_end(prior);
        }
        self.keep_bounds();
        Admission::New
    }

    /// The device declared, in a message under another key, that `last` was the last of its epoch under this key.
    ///
    /// Of two declarations the higher one holds, and a sequence that was taken or stated as lost is a declaration too:
    /// the lower would turn away what the device says it sealed.
    pub fn end_epoch(&mut self, last: Counter) {
        self.declare_end(last);
        self.keep_bounds();
    }

    /// Closes `first ..= last` of an epoch, as the device stated in a loss notice. What was taken stays taken.
    pub fn close(&mut self, epoch: u32, first: u64, last: u64) {
        let Some(from) = self.from(epoch) else { return };
        self.change(epoch, |epoch| epoch.fill(first.max(from), last, Fate::Closed));
        self.keep_bounds();
    }

    /// The ranges (epoch, first, last) that are missing and may still come, lowest first; at most [`GAPS_MAX`].
    ///
    /// An epoch of which nothing was seen and whose end nothing names is no gap: nobody knows that it had messages.
    pub fn open_gaps(&self) -> Vec<(u32, u64, u64)> {
        self.gaps().collect()
    }

    fn gaps(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        self.epochs.iter().flat_map(|(number, epoch)| {
            let gaps = self.from(*number).map(|from| epoch.gaps(from));
            gaps.into_iter().flatten().map(|(first, last)| (*number, first, last))
        })
    }

    /// The lowest sequence of an epoch that is within memory. `None`: the whole epoch is beyond it.
    fn from(&self, epoch: u32) -> Option<u64> {
        match self.forgotten {
            Some(forgotten) if epoch < forgotten.epoch => None,
            Some(forgotten) if epoch == forgotten.epoch => forgotten.sequence.checked_add(1),
            _ => Some(0),
        }
    }

    fn is_of_another(&self, counter: Counter, digest: &Digest) -> bool {
        let known = self.digests.iter().rev().find(|(known, _)| *known == counter);
        known.is_some_and(|(_, known)| *known != short(digest))
    }

    fn remember(&mut self, counter: Counter, digest: &Digest) {
        if self.digests.len() == DIGESTS_MAX {
            self.digests.pop_front();
        }
        self.digests.push_back((counter, short(digest)));
    }

    fn declare_end(&mut self, last: Counter) {
        if self.from(last.epoch).is_some() {
            self.change(last.epoch, |epoch| epoch.declare_end(last.sequence));
        }
    }

    /// Changes one epoch and keeps the count. The epoch must be within memory.
    fn change(&mut self, number: u32, change: impl FnOnce(&mut Epoch)) {
        let from = self.from(number).expect("the caller looked that the epoch is within memory");
        let epoch = self.epochs.entry(number).or_default();
        let before = epoch.count(from);
        change(epoch);
        let after = epoch.count(from);
        self.count.gaps = self.count.gaps + after.gaps - before.gaps;
        self.count.closed = self.count.closed + after.closed - before.closed;
        if epoch.is_blank() {
            self.epochs.remove(&number);
        }
    }

    /// INV-COST-1: holds the four bounds, each by giving up what is lowest.
    fn keep_bounds(&mut self) {
        while self.count.gaps > GAPS_MAX {
            let (epoch, first, last) = self.gaps().next().expect("more than GAPS_MAX were counted");
            self.change(epoch, |epoch| epoch.fill(first, last, Fate::Closed));
        }
        while self.count.closed > CLOSED_MAX {
            let lowest = self.epochs.iter().find_map(|(number, epoch)| {
                let closed = epoch.spans.iter().find(|span| span.fate == Fate::Closed)?;
                Some(Counter { epoch: *number, sequence: closed.last })
            });
            self.forget(lowest.expect("more than CLOSED_MAX were counted"));
        }
        while self.epochs.len() > EPOCHS_MAX {
            let lowest = *self.epochs.keys().next().expect("more than EPOCHS_MAX were counted");
            self.forget(Counter { epoch: lowest, sequence: u64::MAX });
        }
    }

    /// Puts `upto` and all below it beyond memory.
    fn forget(&mut self, upto: Counter) {
        self.forgotten = self.forgotten.max(Some(upto));
        self.epochs = self.epochs.split_off(&upto.epoch);
        if let Some(epoch) = self.epochs.get_mut(&upto.epoch) {
            epoch.forget(upto.sequence);
            // An end says what comes after it, so it is kept while anything of the epoch is within memory.
            if epoch.is_blank() || upto.sequence == u64::MAX {
                self.epochs.remove(&upto.epoch);
            }
        }
        self.digests.retain(|(counter, _)| *counter > upto);
        self.count = self.counted();
    }

    fn counted(&self) -> Count {
        self.epochs.iter().fold(Count::default(), |sum, (number, epoch)| {
            let count = self.from(*number).map(|from| epoch.count(from)).unwrap_or_default();
            Count { gaps: sum.gaps + count.gaps, closed: sum.closed + count.closed }
        })
    }
}

fn short(digest: &Digest) -> [u8; 8] {
    digest.0[..8].try_into().expect("eight of 32 bytes")
}

impl Epoch {
    fn fate(&self, sequence: u64) -> Option<Fate> {
        let span = self.spans.get(self.first_reaching(sequence))?;
        (span.first <= sequence).then_some(span.fate)
    }

    /// The first span that does not lie wholly below `sequence`.
    fn first_reaching(&self, sequence: u64) -> usize {
        self.spans.partition_point(|span| span.last < sequence)
    }

    /// Gives what is free in `first ..= last` a fate; what is not free keeps the one that it has.
    fn fill(&mut self, first: u64, last: u64, fate: Fate) {
        let free: Vec<(u64, u64)> = self.free(first, last).collect();
        for (first, last) in free {
            self.insert(Span { first, last, fate });
        }
        if let Some(end) = self.end {
            self.declare_end(end);
        }
    }

    /// An end below the last span would leave free ranges that no gap counts, and so no bound holds (INV-COST-1).
    fn declare_end(&mut self, end: u64) {
        let last = self.spans.last().map(|span| span.last);
        self.end = self.end.max(Some(end)).max(last);
    }

    /// The free ranges within `first ..= last`.
    fn free(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut spans = self.spans[self.first_reaching(first)..].iter();
        // Where the next free range could start; `None` when the numbers have run out.
        let mut next = Some(first);
        core::iter::from_fn(move || {
            while let Some(start) = next.filter(|start| *start <= last) {
                match spans.next() {
                    Some(span) if span.first <= last => {
                        next = span.last.checked_add(1);
                        if start < span.first {
                            return Some((start, span.first - 1));
                        }
                    }
                    _ => {
                        next = None;
                        return Some((start, last));
                    }
                }
            }
            None
        })
    }

    /// Puts a span where all is free, and merges it with neighbours of its own fate.
    fn insert(&mut self, mut new: Span) {
        let mut at = self.first_reaching(new.first);
        if let Some(above) = self.spans.get(at).copied()
            && above.fate == new.fate
            && new.last.checked_add(1) == Some(above.first)
        {
            new.last = above.last;
            self.spans.remove(at);
        }
        if let Some(below) = at.checked_sub(1).map(|below| self.spans[below])
            && below.fate == new.fate
            && below.last.checked_add(1) == Some(new.first)
        {
            new.first = below.first;
            at -= 1;
            self.spans.remove(at);
        }
        self.spans.insert(at, new);
    }

    /// Free ranges at or above `from` that the device must have used.
    fn gaps(&self, from: u64) -> impl Iterator<Item = (u64, u64)> {
        let known_to = self.end.or(self.spans.last().map(|span| span.last));
        known_to.map(|known_to| self.free(from, known_to)).into_iter().flatten()
    }

    fn count(&self, from: u64) -> Count {
        let closed = self.spans.iter().filter(|span| span.fate == Fate::Closed).count();
        Count { gaps: self.gaps(from).count(), closed }
    }

    fn forget(&mut self, upto: u64) {
        self.spans.drain(..self.first_reaching(upto));
        if let Some(span) = self.spans.first_mut() {
            if span.last == upto {
                self.spans.remove(0);
            } else {
                span.first = span.first.max(upto + 1);
            }
        }
    }

    fn is_blank(&self) -> bool {
        self.spans.is_empty() && self.end.is_none()
    }

    /// The end of an epoch of which everything was taken and nothing can come any more.
    fn complete(&self) -> Option<u64> {
        let whole = |end| Span { first: 0, last: end, fate: Fate::Taken };
        self.end.filter(|end| self.spans == [whole(*end)])
    }
}

impl Taken {
    pub fn encode(&self) -> Vec<u8> {
        let spans: usize = self.epochs.values().map(|epoch| epoch.spans.len()).sum();
        let bytes = spans * 20 + self.epochs.len() * 17 + self.digests.len() * 25 + 24;
        let mut e = Encoder::new(Vec::with_capacity(bytes));
        self.encode_into(&mut e).expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    fn encode_into(
        &self,
        e: &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<Infallible>> {
        e.array(4)?.u8(1)?;
        match self.forgotten {
            Some(forgotten) => e.array(2)?.u32(forgotten.epoch)?.u64(forgotten.sequence)?,
            None => e.null()?,
        };
        e.array(self.epochs.len() as u64)?;
        for (number, epoch) in &self.epochs {
            if let Some(end) = epoch.complete() {
                e.array(2)?.u32(*number)?.u64(end)?;
                continue;
            }
            e.array(3)?.u32(*number)?;
            match epoch.end {
                Some(end) => e.u64(end)?,
                None => e.null()?,
            };
            e.array(epoch.spans.len() as u64)?;
            for span in &epoch.spans {
                e.array(3)?.u64(span.first)?.u64(span.last)?.u8(span.fate as u8)?;
            }
        }
        e.array(self.digests.len() as u64)?;
        for (counter, digest) in &self.digests {
            e.array(3)?.u32(counter.epoch)?.u64(counter.sequence)?.bytes(digest)?;
        }
        Ok(())
    }

    /// Reads what [`Taken::encode`] wrote, and nothing else: a memory that was damaged must not admit anything.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > BYTES_MAX {
            return Err(Malformed::new(Reason::Oversize, "a memory of at most 96 KiB"));
        }
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 4, "[1, forgotten, epochs, digests]")?;
        if expect(d.u8(), "format version 1")? != 1 {
            return Err(Malformed::new(Reason::UnknownKind, "format version 1"));
        }
        let forgotten = or_null(&mut d, "[epoch, sequence] or null", |d| {
            array_of(d, 2, "[epoch, sequence]")?;
            counter(d)
        })?;
        let mut taken = Self { forgotten, ..Self::default() };
        taken.decode_epochs(&mut d)?;
        taken.count = taken.counted();
        if taken.count.gaps > GAPS_MAX || taken.count.closed > CLOSED_MAX {
            const EXPECTED: &str = "at most 64 open gaps and 1,024 closed ranges";
            return Err(Malformed::new(Reason::Oversize, EXPECTED));
        }
        taken.decode_digests(&mut d)?;
        at_end(&d)?;
        if taken.encode() == bytes {
            Ok(taken)
        } else {
            Err(Malformed::new(Reason::NotDeterministic, "deterministic CBOR (RFC 8949 §4.2.1)"))
        }
    }

    fn decode_epochs(&mut self, d: &mut Decoder<'_>) -> Result<(), Malformed> {
        const HEAD: &str = "[number, end] or [number, end, spans]";
        const ASCENDING: &str = "epochs in ascending order, above what is forgotten";
        for _ in 0..array_up_to(d, EPOCHS_MAX, "at most 1,024 epochs")? {
            let len = array_up_to(d, 3, HEAD)?;
            let number = expect(d.u32(), "an epoch (32 bits)")?;
            let is_above = self.epochs.last_key_value().is_none_or(|(last, _)| *last < number);
            let Some(from) = self.from(number).filter(|_| is_above) else {
                return Err(Malformed::new(Reason::OutOfDomain, ASCENDING));
            };
            let epoch = match len {
                2 => {
                    let end = expect(d.u64(), "the end of a complete epoch")?;
                    let whole = Span { first: 0, last: end, fate: Fate::Taken };
                    Epoch { spans: Vec::from([whole]), end: Some(end) }
                }
                3 => {
                    let end = or_null(d, "an end or null", |d| expect(d.u64(), "an end or null"))?;
                    Epoch { spans: spans(d)?, end }
                }
                _ => return Err(Malformed::new(Reason::BrokenCbor, HEAD)),
            };
            if epoch.is_blank() || epoch.spans.first().is_some_and(|span| span.first < from) {
                const EXPECTED: &str = "an epoch that says something, above what is forgotten";
                return Err(Malformed::new(Reason::OutOfDomain, EXPECTED));
            }
            let last = epoch.spans.last().map(|span| span.last);
            if epoch.end.is_some() && epoch.end < last {
                const EXPECTED: &str = "an end that is not below what is taken or closed";
                return Err(Malformed::new(Reason::OutOfDomain, EXPECTED));
            }
            self.epochs.insert(number, epoch);
        }
        Ok(())
    }

    fn decode_digests(&mut self, d: &mut Decoder<'_>) -> Result<(), Malformed> {
        for _ in 0..array_up_to(d, DIGESTS_MAX, "at most 64 digests")? {
            array_of(d, 3, "[epoch, sequence, digest]")?;
            let counter = counter(d)?;
            let digest = <[u8; 8]>::try_from(expect(d.bytes(), "a digest of 8 bytes")?)
                .map_err(|_| Malformed::new(Reason::OutOfDomain, "a digest of 8 bytes"))?;
            let fate =
                self.epochs.get(&counter.epoch).and_then(|epoch| epoch.fate(counter.sequence));
            let is_twice = self.digests.iter().any(|(known, _)| *known == counter);
            if fate != Some(Fate::Taken) || is_twice {
                const EXPECTED: &str = "one digest each, of counters that are taken";
                return Err(Malformed::new(Reason::OutOfDomain, EXPECTED));
            }
            self.digests.push_back((counter, digest));
        }
        Ok(())
    }
}

fn spans(d: &mut Decoder<'_>) -> Result<Vec<Span>, Malformed> {
    // In one epoch: every closed range and open gap parts two taken ones.
    const SPANS_MAX: usize = 2 * CLOSED_MAX + GAPS_MAX + 1;
    let len = array_up_to(d, SPANS_MAX, "at most 2,113 spans in an epoch")?;
    let mut spans: Vec<Span> = Vec::with_capacity(len.min((d.input().len() - d.position()) / 4));
    for _ in 0..len {
        array_of(d, 3, "[first, last, fate]")?;
        let first = expect(d.u64(), "a first sequence")?;
        let last = expect(d.u64(), "a last sequence")?;
        let fate = match expect(d.u8(), "a fate: 0 or 1")? {
            0 => Fate::Taken,
            1 => Fate::Closed,
            _ => return Err(Malformed::new(Reason::UnknownKind, "a fate: 0 or 1")),
        };
        let follows = spans.last().is_none_or(|below| {
            below.last < first && (below.last + 1 < first || below.fate != fate)
        });
        if first > last || !follows {
            const EXPECTED: &str = "spans in ascending order, neighbours of one fate merged";
            return Err(Malformed::new(Reason::OutOfDomain, EXPECTED));
        }
        spans.push(Span { first, last, fate });
    }
    Ok(spans)
}

fn counter(d: &mut Decoder<'_>) -> Result<Counter, Malformed> {
    Ok(Counter {
        epoch: expect(d.u32(), "an epoch (32 bits)")?,
        sequence: expect(d.u64(), "a sequence (64 bits)")?,
    })
}

fn or_null<'b, T>(
    d: &mut Decoder<'b>,
    expected: &'static str,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if expect(d.datatype(), expected)? == Type::Null {
        expect(d.null(), expected)?;
        Ok(None)
    } else {
        read(d).map(Some)
    }
}

#[cfg(test)]
mod tests;
