//! What the device dropped of its own, on the way into signed loss notices. Pure.
//!
//! A notice states at most 64 ranges and carries at most one `prior` (the chain between epochs, see
//! [`model::envelope`]). When an envelope that carried one is dropped, a notice carries it on, so that no drop of our
//! own breaks the chain by which a missing tail is seen. When a notice itself is dropped, the next one states its
//! ranges again: what was lost is told as long as one notice arrives.

use model::envelope::{LOST_RANGES_MAX, LossCause, LostRange};
use model::{Counter, KeyId, Prior};

/// Losses that no durable notice states yet. Ranges that touch become one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    ranges: Vec<LostRange>,
    priors: Vec<Prior>,
}

/// The content of one notice.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub ranges: Vec<LostRange>,
    pub prior: Option<Prior>,
}

impl Losses {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.priors.is_empty()
    }

    /// How many ranges are to be stated.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// One envelope will never come.
    pub fn add(&mut self, key: KeyId, counter: Counter, cause: LossCause) {
        let Counter { epoch, sequence } = counter;
        self.add_range(LostRange { key, epoch, first: sequence, last: sequence, cause });
    }

    /// A range will never come: of envelopes dropped together, or stated before by a notice that is dropped now.
    pub fn add_range(&mut self, new: LostRange) {
        // Drops come in order nearly always, so the range that this one touches is looked for from the back.
        let alike =
            |r: &LostRange| r.key == new.key && r.epoch == new.epoch && r.cause == new.cause;
        let touches = |r: &LostRange| {
            alike(r)
                && new.first <= r.last.saturating_add(1)
                && r.first <= new.last.saturating_add(1)
        };
        match self.ranges.iter_mut().rev().take(LOST_RANGES_MAX).find(|r| touches(r)) {
            Some(range) => {
                range.first = range.first.min(new.first);
                range.last = range.last.max(new.last);
            }
            None => self.ranges.push(new),
        }
    }

    /// An envelope that named the end of an epoch will never come.
    pub fn add_prior(&mut self, prior: Prior) {
        if !self.priors.contains(&prior) {
            self.priors.push(prior);
        }
    }

    pub fn append(&mut self, other: Losses) {
        other.ranges.into_iter().for_each(|range| self.add_range(range));
        other.priors.into_iter().for_each(|prior| self.add_prior(prior));
    }

    /// The notices that state all of it, in the order of keys and counters.
    pub fn notices(mut self) -> Vec<Notice> {
        self.merge();
        let mut priors = self.priors.into_iter();
        let mut notices: Vec<Notice> = self
            .ranges
            .chunks(LOST_RANGES_MAX)
            .map(|ranges| Notice { ranges: ranges.to_vec(), prior: priors.next() })
            .collect();
        notices.extend(priors.map(|prior| Notice { ranges: Vec::new(), prior: Some(prior) }));
        notices
    }

    /// Joins whatever touches, in any order of adding.
    fn merge(&mut self) {
        // Keys keep the order in which they came: it is the order in which they sealed.
        let mut keys: Vec<KeyId> = Vec::new();
        for range in &self.ranges {
            if !keys.contains(&range.key) {
                keys.push(range.key);
            }
        }
        let place = |key: &KeyId| keys.iter().position(|k| k == key);
        self.ranges.sort_by_key(|r| (place(&r.key), r.epoch, r.cause, r.first));
        let mut merged: Vec<LostRange> = Vec::with_capacity(self.ranges.len());
        for range in self.ranges.drain(..) {
            match merged.last_mut() {
                Some(last)
                    if last.key == range.key
                        && last.epoch == range.epoch
                        && last.cause == range.cause
                        && range.first <= last.last.saturating_add(1) =>
                {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        self.ranges = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> KeyId {
        KeyId([n; 32])
    }

    fn at(epoch: u32, sequence: u64) -> Counter {
        Counter { epoch, sequence }
    }

    fn range(k: u8, epoch: u32, first: u64, last: u64, cause: LossCause) -> LostRange {
        LostRange { key: key(k), epoch, first, last, cause }
    }

    #[test]
    fn losses_that_touch_are_one_range_and_others_stay_apart() {
        use LossCause::{BacklogFull, Refused};
        let mut losses = Losses::default();
        for sequence in [5, 6, 8, 7, 20] {
            losses.add(key(1), at(3, sequence), BacklogFull);
        }
        losses.add(key(1), at(3, 21), Refused);
        losses.add(key(2), at(3, 22), BacklogFull);
        losses.add(key(1), at(4, 22), BacklogFull);
        let notices = losses.notices();
        assert_eq!(
            notices,
            [Notice {
                ranges: vec![
                    range(1, 3, 5, 8, BacklogFull),
                    range(1, 3, 20, 20, BacklogFull),
                    range(1, 3, 21, 21, Refused),
                    range(1, 4, 22, 22, BacklogFull),
                    range(2, 3, 22, 22, BacklogFull),
                ],
                prior: None
            }]
        );
    }

    #[test]
    fn every_loss_is_stated_once_however_many_there_are() {
        let mut losses = Losses::default();
        for sequence in (0..1000).step_by(2) {
            losses.add(key(1), at(1, sequence), LossCause::BacklogFull);
        }
        let notices = losses.notices();
        assert_eq!(notices.len(), 500usize.div_ceil(LOST_RANGES_MAX));
        let stated: Vec<u64> =
            notices.iter().flat_map(|n| &n.ranges).flat_map(|r| r.first..=r.last).collect();
        assert_eq!(stated, (0..1000).step_by(2).collect::<Vec<_>>());
    }

    #[test]
    fn a_dropped_link_between_epochs_is_carried_on_one_to_a_notice() {
        let mut losses = Losses::default();
        losses.add(key(1), at(2, 0), LossCause::BacklogFull);
        let priors = [1, 2, 2].map(|epoch| Prior { key: key(1), counter: at(epoch, 9) });
        priors.into_iter().for_each(|prior| losses.add_prior(prior));
        let notices = losses.notices();
        assert_eq!(notices.len(), 2);
        assert_eq!(notices[0].prior, Some(priors[0]));
        assert_eq!(notices[1], Notice { ranges: vec![], prior: Some(priors[1]) });
    }

    #[test]
    fn ranges_at_the_end_of_the_numbers_do_not_wrap() {
        let mut losses = Losses::default();
        losses.add_range(range(1, 1, u64::MAX, u64::MAX, LossCause::BacklogFull));
        losses.add_range(range(1, 1, 0, 0, LossCause::BacklogFull));
        assert_eq!(losses.notices()[0].ranges.len(), 2);
    }
}
