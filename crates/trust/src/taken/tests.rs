//! INV-REPLAY-1 and INV-COST-1, attacked: by hand, against a naive model, and by a holder of the key who wants memory.

use super::*;
use crate::tree::Item;
use Admission::*;
use alloc::collections::BTreeSet;
use alloc::vec;
use proptest::prelude::*;

fn at(epoch: u32, sequence: u64) -> Counter {
    Counter { epoch, sequence }
}

fn digest_of(counter: Counter) -> Digest {
    crate::digest(alloc::format!("{counter:?}").as_bytes())
}

fn admit(taken: &mut Taken, epoch: u32, sequence: u64) -> Admission {
    taken.admit(at(epoch, sequence), &digest_of(at(epoch, sequence)), None)
}

/// Everything that must hold after any step.
fn assert_sound(taken: &Taken) {
    assert_eq!(taken.count, taken.counted(), "the kept count is the count");
    assert_eq!(taken.open_gaps().len(), taken.count.gaps);
    assert!(taken.count.gaps <= GAPS_MAX && taken.count.closed <= CLOSED_MAX);
    assert!(taken.epochs.len() <= EPOCHS_MAX && taken.digests.len() <= DIGESTS_MAX);
    let bytes = taken.encode();
    assert!(bytes.len() <= BYTES_MAX, "INV-COST-1: {} bytes", bytes.len());
    assert_eq!(Taken::decode(&bytes).as_ref(), Ok(taken));
}

#[test]
fn a_counter_is_new_once_and_a_repeat_after_that() {
    let mut taken = Taken::default();
    assert_eq!(admit(&mut taken, 0, 3), New);
    assert_eq!(taken.open_gaps(), [(0, 0, 2)], "a missing head is a gap: sequences start at 0");
    assert_eq!(admit(&mut taken, 0, 3), Repeat);
    for sequence in [0, 2, 1] {
        assert_eq!(admit(&mut taken, 0, sequence), New);
        assert_eq!(admit(&mut taken, 0, sequence), Repeat);
    }
    assert_eq!(taken.open_gaps(), []);
    assert_sound(&taken);
}

#[test]
fn another_message_under_a_taken_counter_is_an_equivocation_while_its_digest_is_remembered() {
    let other = Digest([9; 32]);
    let mut taken = Taken::default();
    for sequence in 0..DIGESTS_MAX as u64 {
        assert_eq!(admit(&mut taken, 0, sequence), New);
    }
    assert_eq!(taken.admit(at(0, 0), &other, None), Equivocation);
    assert_eq!(admit(&mut taken, 0, 0), Repeat, "the one that was admitted is still a repeat");
    assert_eq!(admit(&mut taken, 0, DIGESTS_MAX as u64), New);
    assert_eq!(taken.admit(at(0, 0), &other, None), Repeat, "forgotten: it takes no effect still");
    assert_eq!(taken.admit(at(0, 1), &other, None), Equivocation);
    assert_sound(&taken);
}

#[test]
fn digests_are_remembered_by_order_of_admission_and_not_of_counters() {
    let mut taken = Taken::default();
    for sequence in 1..=2 * DIGESTS_MAX as u64 {
        assert_eq!(admit(&mut taken, 5, sequence), New);
    }
    assert_eq!(admit(&mut taken, 5, 0), New, "a late one");
    assert_eq!(taken.admit(at(5, 0), &Digest([9; 32]), None), Equivocation);
}

#[test]
fn a_missing_tail_is_a_gap_once_the_next_epoch_names_the_end() {
    let mut taken = Taken::default();
    assert_eq!(admit(&mut taken, 0, 0), New);
    assert_eq!(taken.open_gaps(), []);
    assert_eq!(taken.admit(at(1, 0), &digest_of(at(1, 0)), Some(at(0, 2))), New);
    assert_eq!(taken.open_gaps(), [(0, 1, 2)]);
    assert_eq!(admit(&mut taken, 0, 3), AfterEnd);
    assert_eq!(admit(&mut taken, 0, u64::MAX), AfterEnd);
    assert_eq!(admit(&mut taken, 0, 2), New);
    assert_eq!(admit(&mut taken, 0, 1), New);
    assert_eq!(taken.open_gaps(), []);
    assert_sound(&taken);
}

#[test]
fn the_end_may_be_named_by_a_message_under_another_key() {
    let mut taken = Taken::default();
    taken.end_epoch(at(3, 1));
    assert_eq!(taken.open_gaps(), [(3, 0, 1)], "an epoch of which nothing came yet");
    assert_eq!(admit(&mut taken, 3, 2), AfterEnd);
    assert_eq!(admit(&mut taken, 3, 0), New);
    assert_eq!(admit(&mut taken, 3, 1), New);
    assert_sound(&taken);
}

#[test]
fn an_epoch_that_nothing_names_is_no_gap() {
    let mut taken = Taken::default();
    assert_eq!(admit(&mut taken, 2, 0), New);
    assert_eq!(admit(&mut taken, 9, 0), New);
    assert_eq!(taken.open_gaps(), []);
    assert_eq!(admit(&mut taken, 4, 0), New, "and it may still come");
}

#[test]
fn of_two_declared_ends_the_higher_holds_and_what_was_taken_declares_too() {
    let mut taken = Taken::default();
    assert_eq!(admit(&mut taken, 0, 7), New);
    taken.end_epoch(at(0, 4));
    assert_eq!(taken.open_gaps(), [(0, 0, 6)]);
    assert_eq!(admit(&mut taken, 0, 8), AfterEnd);
    taken.end_epoch(at(0, 8));
    taken.end_epoch(at(0, 5));
    assert_eq!(admit(&mut taken, 0, 8), New);
    taken.close(0, 9, 10);
    assert_eq!(admit(&mut taken, 0, 9), GapClosed, "stated as lost: the device says it sealed it");
    assert_eq!(admit(&mut taken, 0, 11), AfterEnd);
    assert_sound(&taken);
}

#[test]
fn a_prior_that_names_no_earlier_epoch_is_not_believed() {
    let mut taken = Taken::default();
    for prior in [at(1, 100), at(2, 100)] {
        let before = taken.open_gaps();
        let counter = at(1, u64::from(prior.epoch) - 1);
        assert_eq!(taken.admit(counter, &digest_of(counter), Some(prior)), New);
        assert_eq!(taken.open_gaps(), before);
    }
    assert_eq!(admit(&mut taken, 1, 101), New, "no end was declared");
}

#[test]
fn what_a_loss_notice_closed_goes_to_quarantine_and_what_was_taken_stays() {
    let mut taken = Taken::default();
    assert_eq!(admit(&mut taken, 0, 5), New);
    taken.close(0, 2, 8);
    assert_eq!(taken.open_gaps(), [(0, 0, 1)]);
    for sequence in [2, 4, 6, 8] {
        assert_eq!(admit(&mut taken, 0, sequence), GapClosed);
    }
    assert_eq!(admit(&mut taken, 0, 5), Repeat);
    assert_eq!(admit(&mut taken, 0, 1), New);
    assert_eq!(admit(&mut taken, 0, 9), New);
    taken.close(0, 7, 3);
    taken.close(0, 0, u64::MAX);
    assert_eq!(taken.open_gaps(), []);
    assert_eq!(admit(&mut taken, 0, 0), GapClosed);
    assert_eq!(admit(&mut taken, 0, u64::MAX), GapClosed);
    assert_eq!(admit(&mut taken, 0, 9), Repeat);
    assert_sound(&taken);
}

#[test]
fn a_range_that_ends_before_it_starts_closes_nothing() {
    let mut taken = Taken::default();
    taken.close(0, 7, 3);
    assert_eq!(taken, Taken::default());
}

#[test]
fn a_loss_ahead_of_what_came_opens_a_gap_below_it() {
    let mut taken = Taken::default();
    taken.close(0, 5, 9);
    assert_eq!(taken.open_gaps(), [(0, 0, 4)]);
    assert_eq!(admit(&mut taken, 0, 10), New);
    assert_eq!(taken.open_gaps(), [(0, 0, 4)]);
    assert_sound(&taken);
}

#[test]
fn the_sixty_fifth_gap_closes_the_lowest_and_nothing_else() {
    let mut taken = Taken::default();
    for gap in 1..=GAPS_MAX as u64 {
        assert_eq!(admit(&mut taken, 0, 2 * gap - 1), New);
    }
    assert_eq!(taken.open_gaps().len(), GAPS_MAX);
    assert_eq!(taken.open_gaps()[0], (0, 0, 0));
    assert_eq!(admit(&mut taken, 1, 3), New);
    assert_eq!(taken.open_gaps().len(), GAPS_MAX);
    assert_eq!(taken.open_gaps()[0], (0, 2, 2));
    assert_eq!(admit(&mut taken, 0, 0), GapClosed, "INV-REPLAY-1: quarantine, not silence");
    assert_eq!(admit(&mut taken, 0, 2), New);
    assert_sound(&taken);
}

#[test]
fn the_epoch_beyond_the_bound_forgets_the_lowest_and_never_calls_it_new_or_repeat() {
    let mut taken = Taken::default();
    for epoch in 0..=EPOCHS_MAX as u32 {
        assert_eq!(admit(&mut taken, epoch, 0), New);
    }
    assert_eq!(admit(&mut taken, 0, 0), BeyondMemory);
    assert_eq!(admit(&mut taken, 0, 1), BeyondMemory);
    assert_eq!(admit(&mut taken, 1, 0), Repeat);
    taken.close(0, 0, 9);
    taken.end_epoch(at(0, 9));
    assert_eq!(taken.open_gaps(), [], "nothing is said of a forgotten epoch");
    assert_sound(&taken);
}

#[test]
fn a_device_that_starts_once_a_day_for_ten_years_loses_nothing_but_its_oldest_epochs() {
    let mut taken = Taken::default();
    for epoch in 0..3650 {
        let prior = (epoch > 0).then(|| at(epoch - 1, 1));
        for (sequence, prior) in [(0, prior), (1, None)] {
            let counter = at(epoch, sequence);
            assert_eq!(taken.admit(counter, &digest_of(counter), prior), New);
        }
    }
    assert_eq!((taken.open_gaps(), taken.epochs.len()), (vec![], EPOCHS_MAX));
    let oldest = 3650 - EPOCHS_MAX as u32;
    assert_eq!(admit(&mut taken, oldest - 1, 1), BeyondMemory);
    assert_eq!(admit(&mut taken, oldest - 1, 2), BeyondMemory);
    assert_eq!(admit(&mut taken, oldest, 1), Repeat);
    assert_eq!(admit(&mut taken, oldest, 2), AfterEnd);
    assert_sound(&taken);
}

#[test]
fn closed_ranges_beyond_the_bound_put_all_up_to_the_lowest_beyond_memory() {
    let mut taken = Taken::default();
    let closed_max = CLOSED_MAX as u64;
    for range in 0..=closed_max {
        assert_eq!(admit(&mut taken, 0, 2 * range), New);
        taken.close(0, 2 * range + 1, 2 * range + 1);
    }
    assert_eq!(admit(&mut taken, 0, 0), BeyondMemory, "taken, but that is not known any more");
    assert_eq!(admit(&mut taken, 0, 1), BeyondMemory);
    assert_eq!(admit(&mut taken, 0, 2), Repeat);
    assert_eq!(admit(&mut taken, 0, 3), GapClosed);
    assert_eq!(admit(&mut taken, 0, 2 * closed_max + 2), New);
    assert_eq!(taken.open_gaps(), []);

    // Two ranges and then what lies between them: one fewer than the bound, so that another has room.
    let above = 2 * closed_max + 10;
    for sequence in [above, above + 2, above + 1] {
        taken.close(0, sequence, sequence);
    }
    assert_eq!(taken.count.closed, CLOSED_MAX - 1);
    taken.close(0, 0, 1);
    assert_eq!(taken.count.closed, CLOSED_MAX - 1, "closing does not bring memory back");
    assert_eq!(admit(&mut taken, 0, 1), BeyondMemory);
    assert_sound(&taken);
}

#[test]
fn a_declared_end_holds_while_only_the_beginning_of_its_epoch_is_forgotten() {
    let mut taken = Taken::default();
    for range in 0..CLOSED_MAX as u64 {
        taken.close(1, 2 * range, 2 * range);
        assert_eq!(admit(&mut taken, 1, 2 * range + 1), New);
    }
    assert_eq!(admit(&mut taken, 0, 1), New);
    taken.close(0, 0, 0);
    taken.end_epoch(at(0, 1));
    assert_eq!(admit(&mut taken, 0, 0), BeyondMemory);
    assert_eq!(admit(&mut taken, 0, 1), Repeat);
    assert_eq!(admit(&mut taken, 0, 2), AfterEnd);
    assert_sound(&taken);
}

#[test]
fn a_complete_epoch_is_stored_as_its_number_and_end() {
    let mut taken = Taken::default();
    for epoch in 0..100 {
        for sequence in 0..10 {
            let prior = (sequence == 0 && epoch > 0).then(|| at(epoch - 1, 9));
            let counter = at(epoch, sequence);
            assert_eq!(taken.admit(counter, &digest_of(counter), prior), New);
        }
    }
    let digests = DIGESTS_MAX * 13;
    let bytes = taken.encode().len();
    assert!(bytes < 100 * 5 + digests + 20, "{bytes} bytes");
    assert_sound(&taken);
}

#[test]
fn the_largest_memory_stays_within_its_bound_and_is_read_back() {
    let mut taken = Taken::default();
    let high = u32::MAX - EPOCHS_MAX as u32;
    let wide = u64::MAX - (1 << 40);
    for epoch in 0..EPOCHS_MAX as u32 {
        let epoch = high + epoch;
        taken.close(epoch, 0, wide - 1);
        assert_eq!(admit(&mut taken, epoch, wide), New);
    }
    for gap in 1..=GAPS_MAX as u64 {
        assert_eq!(admit(&mut taken, u32::MAX - 1, wide + 2 * gap), New);
    }
    assert_eq!((taken.epochs.len(), taken.count.closed), (EPOCHS_MAX, CLOSED_MAX));
    assert_eq!(taken.count.gaps, GAPS_MAX);
    assert_sound(&taken);
}

/// The same rules, with a set for each thing and no thought for memory. It has the rule of 64 gaps and none of the
/// bounds on epochs and closed ranges, which its short lines never reach.
#[derive(Default)]
struct Naive {
    taken: BTreeMap<Counter, Digest>,
    order: Vec<Counter>,
    closed: BTreeSet<Counter>,
    ends: BTreeMap<u32, u64>,
}

impl Naive {
    fn admit(&mut self, counter: Counter, digest: Digest, prior: Option<Counter>) -> Admission {
        if let Some(known) = self.taken.get(&counter) {
            let remembered = self.order.iter().rev().take(DIGESTS_MAX).any(|c| *c == counter);
            return if remembered && *known != digest { Equivocation } else { Repeat };
        }
        if self.closed.contains(&counter) {
            return GapClosed;
        }
        if self.ends.get(&counter.epoch).is_some_and(|end| counter.sequence > *end) {
            return AfterEnd;
        }
        self.taken.insert(counter, digest);
        self.order.push(counter);
        if let Some(prior) = prior.filter(|prior| prior.epoch < counter.epoch) {
            self.declare_end(prior);
        }
        self.close_lowest();
        New
    }

    fn end_epoch(&mut self, last: Counter) {
        self.declare_end(last);
        self.close_lowest();
    }

    fn declare_end(&mut self, last: Counter) {
        let end = self.ends.entry(last.epoch).or_default();
        *end = last.sequence.max(*end);
    }

    fn close(&mut self, epoch: u32, first: u64, last: u64) {
        let range = (first..=last).map(|sequence| at(epoch, sequence));
        self.closed.extend(range.filter(|counter| !self.taken.contains_key(counter)));
        self.close_lowest();
    }

    fn gaps(&mut self) -> Vec<(u32, u64, u64)> {
        let mut highest: BTreeMap<u32, u64> = BTreeMap::new();
        for counter in self.taken.keys().chain(&self.closed) {
            let highest = highest.entry(counter.epoch).or_default();
            *highest = counter.sequence.max(*highest);
        }
        for (epoch, end) in &mut self.ends {
            *end = highest.get(epoch).copied().unwrap_or(0).max(*end);
            highest.insert(*epoch, *end);
        }
        let mut gaps: Vec<(u32, u64, u64)> = vec![];
        for (epoch, highest) in highest {
            let free = |sequence: &u64| {
                let counter = at(epoch, *sequence);
                !self.taken.contains_key(&counter) && !self.closed.contains(&counter)
            };
            for sequence in (0..=highest).filter(free) {
                match gaps.last_mut() {
                    Some(gap) if gap.0 == epoch && gap.2 + 1 == sequence => gap.2 = sequence,
                    _ => gaps.push((epoch, sequence, sequence)),
                }
            }
        }
        gaps
    }

    fn close_lowest(&mut self) {
        let gaps = self.gaps();
        let (closing, _) = gaps.split_at(gaps.len().saturating_sub(GAPS_MAX));
        for (epoch, first, last) in closing {
            self.closed.extend((*first..=*last).map(|sequence| at(*epoch, sequence)));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit { counter: Counter, forged: bool, prior: Option<Counter> },
    EndEpoch(Counter),
    Close { epoch: u32, first: u64, last: u64 },
}

fn counters(epochs: u32, sequences: u64) -> impl Strategy<Value = Counter> + Clone {
    (0..epochs, 0..sequences).prop_map(|(epoch, sequence)| at(epoch, sequence))
}

fn steps(counters: impl Strategy<Value = Counter> + Clone) -> impl Strategy<Value = Step> {
    let prior = prop::option::weighted(0.1, counters.clone());
    let admit = (counters.clone(), prop::bool::weighted(0.2), prior)
        .prop_map(|(counter, forged, prior)| Step::Admit { counter, forged, prior });
    let close = (counters.clone(), 0..6_u64).prop_map(|(Counter { epoch, sequence }, more)| {
        Step::Close { epoch, first: sequence, last: sequence.saturating_add(more) }
    });
    prop_oneof![40 => admit, 1 => counters.prop_map(Step::EndEpoch), 1 => close]
}

/// Takes a step, and checks what must hold of it whatever came before.
fn take(taken: &mut Taken, news: &mut BTreeSet<Counter>, step: &Step) -> Option<Admission> {
    match *step {
        Step::Admit { counter, forged, prior } => {
            let digest = if forged { Digest([7; 32]) } else { digest_of(counter) };
            let before = taken.clone();
            let admission = taken.admit(counter, &digest, prior);
            match admission {
                New => assert!(news.insert(counter), "INV-REPLAY-1: {counter:?} is new twice"),
                Repeat | Equivocation => assert!(news.contains(&counter), "{counter:?}"),
                GapClosed | AfterEnd => assert!(!news.contains(&counter), "{counter:?}"),
                BeyondMemory => {}
            }
            assert!(admission == New || *taken == before, "{admission:?} changed something");
            return Some(admission);
        }
        Step::EndEpoch(last) => taken.end_epoch(last),
        Step::Close { epoch, first, last } => taken.close(epoch, first, last),
    }
    None
}

proptest! {
    #[test]
    fn every_answer_is_that_of_the_naive_model(
        steps in prop::collection::vec(steps(counters(3, 70)), 0..400)
    ) {
        let (mut taken, mut naive, mut news) = (Taken::default(), Naive::default(), BTreeSet::new());
        for step in &steps {
            let answer = take(&mut taken, &mut news, step);
            let expected = match *step {
                Step::Admit { counter, forged, prior } => {
                    let digest = if forged { Digest([7; 32]) } else { digest_of(counter) };
                    Some(naive.admit(counter, digest, prior))
                }
                Step::EndEpoch(last) => { naive.end_epoch(last); None }
                Step::Close { epoch, first, last } => { naive.close(epoch, first, last); None }
            };
            prop_assert_eq!(answer, expected, "{:?}", step);
            prop_assert_eq!(taken.open_gaps(), naive.gaps());
        }
        assert_sound(&taken);
    }

    #[test]
    fn whatever_order_an_honest_device_is_heard_in_all_is_new_once_and_no_gap_stays(
        (device, order) in honest(1..=5, 1..=12).prop_flat_map(|device| {
            let thrice = [device.clone(), device.clone(), device.clone()].concat();
            (Just(device), prop::sample::subsequence(thrice.clone(), 0..=thrice.len()).prop_shuffle())
        })
    ) {
        // At most 60 messages, so never more than 64 gaps. Each comes at least once, the rest as often as it likes.
        let (mut taken, mut news) = (Taken::default(), BTreeSet::new());
        for (counter, prior) in order.iter().chain(&device) {
            let step = Step::Admit { counter: *counter, forged: false, prior: *prior };
            let answer = take(&mut taken, &mut news, &step);
            prop_assert!(matches!(answer, Some(New | Repeat)), "{:?}: {:?}", step, answer);
        }
        prop_assert_eq!(news.len(), device.len());
        prop_assert_eq!(taken.open_gaps(), []);
        let last_epoch = device.last().map(|(counter, _)| counter.epoch);
        for (number, epoch) in &taken.epochs {
            prop_assert!(Some(*number) == last_epoch || epoch.complete().is_some(), "{:?}", epoch);
        }
        assert_sound(&taken);
    }

    #[test]
    fn in_the_worst_order_a_message_of_an_honest_device_is_new_or_in_quarantine(
        order in honest(1..=8, 50..=80).prop_flat_map(|device| Just(device).prop_shuffle())
    ) {
        let (mut taken, mut news) = (Taken::default(), BTreeSet::new());
        for (counter, prior) in order.iter().chain(&order) {
            let step = Step::Admit { counter: *counter, forged: false, prior: *prior };
            let was_new = news.contains(counter);
            let answer = take(&mut taken, &mut news, &step);
            let expected: &[_] = if was_new { &[Repeat] } else { &[New, GapClosed] };
            prop_assert!(answer.is_some_and(|answer| expected.contains(&answer)), "{:?}", answer);
        }
        assert_sound(&taken);
    }

    #[test]
    fn bytes_that_are_no_memory_are_refused_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        if let Ok(taken) = Taken::decode(&bytes) {
            prop_assert_eq!(taken.encode(), bytes);
        }
    }
}

/// What a device seals in its life: epochs with holes between their numbers, the first message of each with its prior.
fn honest(
    epochs: core::ops::RangeInclusive<usize>,
    messages: core::ops::RangeInclusive<u64>,
) -> impl Strategy<Value = Vec<(Counter, Option<Counter>)>> {
    prop::collection::vec((1..4_u32, messages), epochs).prop_map(|epochs| {
        let (mut sealed, mut number, mut last) = (vec![], 0, None);
        for (step, messages) in epochs {
            number += step;
            for sequence in 0..messages {
                sealed.push((at(number, sequence), last.filter(|_| sequence == 0)));
            }
            last = Some(at(number, messages - 1));
        }
        sealed
    })
}

/// INV-COST-1 against the holder of the key: counters anywhere, with a liking for the ends of the number line and for
/// holes. Each seed goes through some thousands of steps, so all three bounds are passed many times.
#[test]
fn no_holder_of_a_key_can_make_the_memory_grow_or_admit_twice() {
    let mut forgot = 0;
    for seed in 0..3_u64 {
        std::println!("seed {seed}");
        let (mut taken, mut news) = (Taken::default(), BTreeSet::new());
        let mut random = Random(seed);
        for count in 0..3000_u64 {
            let step = match seed % 3 {
                0 => random.step_anywhere(),
                1 => random.step_with_holes(count),
                _ => random.step_through_epochs(count),
            };
            if take(&mut taken, &mut news, &step) == Some(BeyondMemory) {
                forgot += 1;
            }
            if count % 500 == 0 {
                assert_sound(&taken);
            }
            assert!(taken.count.gaps <= GAPS_MAX && taken.count.closed <= CLOSED_MAX);
            assert!(taken.epochs.len() <= EPOCHS_MAX);
            let spans: usize = taken.epochs.values().map(|epoch| epoch.spans.len()).sum();
            assert!(spans <= 2 * CLOSED_MAX + GAPS_MAX + EPOCHS_MAX, "seed {seed}: {spans} spans");
        }
        assert_sound(&taken);
        assert!(taken.forgotten.is_some(), "seed {seed} reached a bound that makes it forget");
    }
    assert!(forgot > 300, "the attack came back to what was forgotten: {forgot}");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn sequence(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::MAX - self.below(3),
            1 => self.next(),
            _ => self.below(5000),
        }
    }

    fn counter(&mut self) -> Counter {
        let epoch = match self.below(4) {
            0 => u32::MAX - self.below(3) as u32,
            1 => self.next() as u32,
            _ => self.below(2000) as u32,
        };
        at(epoch, self.sequence())
    }

    fn step(&mut self, counter: Counter) -> Step {
        match self.below(8) {
            0 => Step::EndEpoch(counter),
            1 => {
                let other = self.sequence();
                Step::Close {
                    epoch: counter.epoch,
                    first: counter.sequence.min(other),
                    last: counter.sequence.max(other),
                }
            }
            _ => {
                let prior = (self.below(2) == 0).then(|| self.counter());
                Step::Admit { counter, forged: self.below(4) == 0, prior }
            }
        }
    }

    fn step_anywhere(&mut self) -> Step {
        let counter = self.counter();
        self.step(counter)
    }

    /// One epoch, every second sequence, and now and then an old one.
    fn step_with_holes(&mut self, count: u64) -> Step {
        let old = self.below(2 * count + 1);
        let counter = at(0, if self.below(4) == 0 { old } else { 2 * count });
        Step::Admit { counter, forged: false, prior: None }
    }

    /// Epoch after epoch, each with ends and holes of its own, and now and then an old one.
    fn step_through_epochs(&mut self, count: u64) -> Step {
        let epoch = if self.below(4) == 0 { self.below(3000) } else { count } as u32;
        let counter = at(epoch, self.below(4));
        let prior = (epoch > 0).then(|| at(epoch - 1, self.below(8)));
        Step::Admit { counter, forged: false, prior }
    }
}

/// A memory with each kind of thing in it.
fn accepted() -> Taken {
    let mut taken = Taken::default();
    for sequence in 0..3 {
        admit(&mut taken, 4, sequence);
    }
    taken.end_epoch(at(4, 2));
    admit(&mut taken, 7, 1);
    taken.close(7, 2, 5);
    taken.end_epoch(at(7, 9));
    admit(&mut taken, 8, 0);
    taken.forget(at(3, 17));
    taken
}

#[test]
fn a_memory_that_was_changed_is_refused_with_its_reason() {
    use Reason::*;
    // [1, [3, 17], [[4, 2], [7, 9, [[1, 1, 0], [2, 5, 1]]], [8, null, [[0, 0, 0]]]], [digests of 4/0 4/1 4/2 7/1 8/0]]
    let accepted = accepted().encode();
    assert!(Taken::decode(&accepted).is_ok());
    type Change = fn(&mut Item);
    let table: &[(&str, Reason, Change)] = &[
        ("another version", UnknownKind, |t| *t.at(&[0]) = 2.into()),
        ("a field more", BrokenCbor, |t| t.items().push(Item::Null)),
        ("a field less", BrokenCbor, |t| drop(t.items().pop())),
        ("forgotten without sequence", BrokenCbor, |t| *t.at(&[1]) = [3.into()].into()),
        ("forgotten is a number", BrokenCbor, |t| *t.at(&[1]) = 3.into()),
        ("an epoch that is forgotten", OutOfDomain, |t| *t.at(&[2, 0, 0]) = 2.into()),
        ("a span that is forgotten", OutOfDomain, |t| *t.at(&[1]) = [8.into(), 0.into()].into()),
        ("epochs out of order", OutOfDomain, |t| t.at(&[2]).items().swap(0, 1)),
        ("an epoch twice", OutOfDomain, |t| *t.at(&[2, 1, 0]) = 4.into()),
        ("an epoch above 32 bits", BrokenCbor, |t| *t.at(&[2, 2, 0]) = (1 << 32).into()),
        ("an epoch of one field", BrokenCbor, |t| *t.at(&[2, 0]) = [4.into()].into()),
        ("an epoch of four fields", Oversize, |t| t.at(&[2, 1]).items().push(0.into())),
        ("an epoch that says nothing", OutOfDomain, |t| t.at(&[2, 2, 2]).items().clear()),
        ("a complete epoch in the long form", NotDeterministic, |t| {
            *t.at(&[2, 0]) =
                [4.into(), 2.into(), [[0.into(), 2.into(), 0.into()].into()].into()].into();
        }),
        ("an end below what is taken", OutOfDomain, |t| *t.at(&[2, 1, 1]) = 4.into()),
        ("an end that is text", BrokenCbor, |t| *t.at(&[2, 1, 1]) = "9".into()),
        ("an unknown fate", UnknownKind, |t| *t.at(&[2, 1, 2, 0, 2]) = 2.into()),
        ("neighbours that should be merged", OutOfDomain, |t| *t.at(&[2, 1, 2, 1, 2]) = 0.into()),
        ("spans that overlap", OutOfDomain, |t| *t.at(&[2, 1, 2, 1, 0]) = 1.into()),
        ("a span that ends before it starts", OutOfDomain, |t| {
            *t.at(&[2, 1, 2, 1, 1]) = 1.into();
        }),
        ("a digest of seven bytes", OutOfDomain, |t| *t.at(&[3, 0, 2]) = b"7 bytes"[..].into()),
        ("a digest of what is free", OutOfDomain, |t| *t.at(&[3, 3, 1]) = 0.into()),
        ("a digest of what is closed", OutOfDomain, |t| *t.at(&[3, 3, 1]) = 2.into()),
        ("a digest twice", OutOfDomain, |t| {
            let first = t.at(&[3, 0]).clone();
            *t.at(&[3, 1]) = first;
        }),
        ("a longer form of a number", NotDeterministic, |t| {
            *t.at(&[0]) = Item::Raw(vec![0x18, 0x01]);
        }),
        ("an array of no stated length", BrokenCbor, |t| {
            *t.at(&[3]) = Item::Raw(vec![0x9f, 0xff]);
        }),
    ];
    for (what, reason, change) in table {
        let mut tree = Item::read(&accepted);
        change(&mut tree);
        let refused = Taken::decode(&tree.bytes());
        assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
    }
}

#[test]
fn a_memory_with_more_than_its_bounds_is_refused() {
    let refused = |epochs: Vec<Item>, digests: Vec<Item>| {
        let tree: Item = [1.into(), Item::Null, Item::Array(epochs), Item::Array(digests)].into();
        Taken::decode(&tree.bytes()).map(drop).map_err(|error| error.reason)
    };
    let complete =
        |epochs: usize| (0..epochs as i64).map(|n| [n.into(), 0.into()].into()).collect();
    assert_eq!(refused(complete(EPOCHS_MAX), vec![]), Ok(()));
    assert_eq!(refused(complete(EPOCHS_MAX + 1), vec![]), Err(Reason::Oversize));

    // Every second sequence has the fate: before each there is a gap, or something taken.
    let line = |spans: usize, step: i64, fate: i64| -> Vec<Item> {
        let spans = (1..=spans as i64).map(|n| [(step * n).into(), (step * n).into(), fate.into()]);
        vec![[0.into(), Item::Null, Item::Array(spans.map(Item::from).collect())].into()]
    };
    assert_eq!(refused(line(GAPS_MAX, 2, 0), vec![]), Ok(()));
    assert_eq!(refused(line(GAPS_MAX + 1, 2, 0), vec![]), Err(Reason::Oversize));

    let parted = |closed: usize| -> Vec<Item> {
        let span = |n: i64| Item::from([n.into(), n.into(), (n % 2).into()]);
        let spans = (0..2 * closed as i64).map(span).collect();
        vec![[0.into(), Item::Null, Item::Array(spans)].into()]
    };
    assert_eq!(refused(parted(CLOSED_MAX), vec![]), Ok(()));
    assert_eq!(refused(parted(CLOSED_MAX + 1), vec![]), Err(Reason::Oversize));

    let digest = |n: usize| [0.into(), (n as i64).into(), b"8  bytes"[..].into()].into();
    let whole = || vec![[0.into(), 1000.into()].into()];
    assert_eq!(refused(whole(), (0..DIGESTS_MAX).map(digest).collect()), Ok(()));
    assert_eq!(refused(whole(), (0..=DIGESTS_MAX).map(digest).collect()), Err(Reason::Oversize));

    let mut long = accepted().encode();
    long.resize(BYTES_MAX + 1, 0);
    assert_eq!(Taken::decode(&long).unwrap_err().reason, Reason::Oversize);
    long.truncate(BYTES_MAX);
    assert_eq!(Taken::decode(&long).unwrap_err().reason, Reason::TrailingBytes);
}

#[test]
fn every_shortened_memory_is_refused() {
    let bytes = accepted().encode();
    for len in 0..bytes.len() {
        assert_eq!(Taken::decode(&bytes[..len]).unwrap_err().reason, Reason::BrokenCbor, "{len}");
    }
}
