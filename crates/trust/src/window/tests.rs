use super::*;
use crate::tree::Item;
use alloc::vec;
use proptest::prelude::*;

fn at(epoch: u32, sequence: u64) -> Counter {
    Counter { epoch, sequence }
}

#[test]
fn an_honest_repeat_is_told_from_a_forgery_and_from_what_is_late() {
    let (one, other) = (Digest([1; 32]), Digest([2; 32]));
    let mut window = Window::new(2);
    assert_eq!(window.look(at(0, 0), &one), Look::Fresh);
    window.admit(at(0, 0), one);
    assert_eq!(window.look(at(0, 0), &one), Look::Repeat);
    assert_eq!(window.look(at(0, 0), &other), Look::Forged);
    window.admit(at(1, 5), one);
    window.admit(at(1, 6), one);
    assert_eq!(window.look(at(0, 0), &other), Look::Late, "no longer remembered: not judged here");
    assert_eq!(window.look(at(1, 4), &one), Look::Late);
    assert_eq!(window.look(at(1, 7), &one), Look::Fresh);
    assert_eq!(window.look(at(2, 0), &one), Look::Fresh, "a later epoch is newer at any sequence");
    assert_eq!(window.highest(), Some(at(1, 6)));
}

/// Whoever had little room to write it has forgotten the oldest admissions, and nothing else.
#[test]
fn a_window_that_was_written_short_has_forgotten_the_oldest() {
    let digest = |sequence: u64| Digest([sequence as u8; 32]);
    let mut window = Window::new(8);
    for sequence in [9, 3, 5] {
        window.admit(at(1, sequence), digest(sequence));
    }
    for admissions in [3, 99] {
        assert_eq!(window.encode_last(admissions), window.encode());
    }
    for (admissions, forgotten) in [(2, &[9][..]), (1, &[9, 3]), (0, &[9, 3])] {
        let read = Window::decode(&window.encode_last(admissions)).unwrap();
        assert_eq!(read.highest(), Some(at(1, 9)));
        for sequence in [9, 3, 5] {
            let expected = if forgotten.contains(&sequence) { Look::Late } else { Look::Repeat };
            assert_eq!(read.look(at(1, sequence), &digest(sequence)), expected, "{admissions}");
        }
    }
}

#[test]
fn what_comes_late_is_remembered_and_does_not_lower_the_highest() {
    let mut window = Window::new(4);
    window.admit(at(3, 9), Digest([1; 32]));
    window.admit(at(3, 2), Digest([2; 32]));
    assert_eq!(window.highest(), Some(at(3, 9)));
    assert_eq!(window.look(at(3, 2), &Digest([2; 32])), Look::Repeat);
    assert_eq!(window.look(at(3, 2), &Digest([3; 32])), Look::Forged);
}

#[test]
fn a_counter_keeps_the_digest_that_it_was_first_admitted_with() {
    let mut window = Window::new(4);
    window.admit(at(0, 0), Digest([1; 32]));
    window.admit(at(0, 0), Digest([2; 32]));
    assert_eq!(window.look(at(0, 0), &Digest([1; 32])), Look::Repeat);
    assert_eq!(window.look(at(0, 0), &Digest([2; 32])), Look::Forged);
}

#[test]
fn a_memory_of_nothing_or_of_everything_cannot_be_asked_for() {
    assert_eq!(Window::new(0), Window::new(1));
    assert_eq!(Window::new(usize::MAX), Window::new(REMEMBER_MAX));
}

proptest! {
    /// Against a list of all admissions. INV-REPLAY-1: what was admitted last is never called fresh or late again;
    /// INV-COST-1: no more is kept than was asked for.
    #[test]
    fn every_look_is_that_of_the_naive_model(
        remember in 1..6_usize,
        steps in prop::collection::vec((0..3_u32, 0..8_u64, 0..3_u8, any::<bool>()), 0..60),
    ) {
        let mut window = Window::new(remember);
        let mut all: Vec<(Counter, Digest)> = vec![];
        for (epoch, sequence, digest, admits) in steps {
            let (counter, digest) = (at(epoch, sequence), Digest([digest; 32]));
            let known = all.iter().rev().take(remember).find(|(known, _)| *known == counter);
            let expected = match known {
                Some((_, known)) if *known == digest => Look::Repeat,
                Some(_) => Look::Forged,
                None if all.iter().all(|(known, _)| *known < counter) => Look::Fresh,
                None => Look::Late,
            };
            prop_assert_eq!(window.look(counter, &digest), expected);
            if admits {
                if known.is_none() {
                    all.push((counter, digest));
                }
                window.admit(counter, digest);
            }
            prop_assert!(window.last.len() <= remember);
            let again = Window::decode(&window.encode());
            prop_assert_eq!(again.as_ref(), Ok(&window));
        }
    }
}

#[test]
fn a_window_that_was_changed_is_refused_with_its_reason() {
    use Reason::*;
    // [1, 3, [0, 7], [[0, 6, digest], [0, 2, digest]]]
    let mut window = Window::new(3);
    window.admit(at(0, 7), Digest([7; 32]));
    window.admit(at(0, 6), Digest([6; 32]));
    window.admit(at(0, 2), Digest([2; 32]));
    window.admit(at(0, 3), Digest([3; 32]));
    let accepted = window.encode();
    assert_eq!(Window::decode(&accepted), Ok(window));
    type Change = fn(&mut Item);
    let table: &[(&str, Reason, Change)] = &[
        ("another version", UnknownKind, |w| *w.at(&[0]) = 2.into()),
        ("a field more", BrokenCbor, |w| w.items().push(Item::Null)),
        ("a memory of nothing", OutOfDomain, |w| *w.at(&[1]) = 0.into()),
        ("a memory of too much", OutOfDomain, |w| *w.at(&[1]) = 65_536.into()),
        ("more than it remembers", Oversize, |w| *w.at(&[1]) = 2.into()),
        ("no highest", OutOfDomain, |w| *w.at(&[2]) = Item::Null),
        ("a highest that is not", OutOfDomain, |w| *w.at(&[2, 1]) = 5.into()),
        ("a highest and nothing else", OutOfDomain, |w| w.at(&[3]).items().clear()),
        ("a counter twice", OutOfDomain, |w| *w.at(&[3, 0, 1]) = 2.into()),
        ("a short digest", OutOfDomain, |w| *w.at(&[3, 0, 2]) = b"short"[..].into()),
        ("an epoch above 32 bits", BrokenCbor, |w| *w.at(&[3, 0, 0]) = (1 << 32).into()),
        ("a longer form of a number", NotDeterministic, |w| {
            *w.at(&[1]) = Item::Raw(vec![0x18, 0x03]);
        }),
    ];
    for (what, reason, change) in table {
        let mut tree = Item::read(&accepted);
        change(&mut tree);
        let refused = Window::decode(&tree.bytes());
        assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
    }
    for len in 0..accepted.len() {
        assert_eq!(Window::decode(&accepted[..len]).unwrap_err().reason, BrokenCbor, "{len}");
    }
    let trailing = [&accepted[..], &[0]].concat();
    assert_eq!(Window::decode(&trailing).unwrap_err().reason, TrailingBytes);
}
