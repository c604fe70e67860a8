use super::*;
use crate::tree::Item;
use alloc::vec;
use proptest::prelude::*;

fn header() -> Header {
    Header {
        algorithm: Algorithm::Ed25519,
        kind: Kind::Readings,
        key: KeyId([7; 32]),
        counter: Counter { epoch: 3, sequence: 0 },
        uptime_ms: 1234,
        wall: Some(WallClock { time: Timestamp(1_750_000_000_000_000), uncertainty_ms: 50 }),
        heard: Some(Heard { nonce: Nonce([5; 16]), lease: 9 }),
        prior: Some(Prior { key: KeyId([7; 32]), counter: Counter { epoch: 2, sequence: 41 } }),
    }
}

/// `{1: alg, 2: [-65537], 3: type, 4: key, -65537: [epoch, sequence, uptime, wall, heard, prior]}`; a path counts values.
const SEALED: usize = 4;

#[test]
fn a_header_comes_back_as_it_was_written() {
    for kind in Kind::ALL {
        for algorithm in [Algorithm::Ed25519, Algorithm::Esp256] {
            let full = Header { kind, algorithm, ..header() };
            assert_eq!(Header::decode(&full.encode()), Ok(full.clone()));
            let bare = Header { wall: None, heard: None, prior: None, ..full };
            assert_eq!(Header::decode(&bare.encode()), Ok(bare));
        }
    }
}

#[test]
fn the_widest_header_is_within_its_bound() {
    let counter = Counter { epoch: u32::MAX, sequence: u64::MAX };
    for kind in Kind::ALL {
        let widest = Header {
            kind,
            counter,
            uptime_ms: u64::MAX,
            wall: Some(WallClock { time: Timestamp(i64::MIN), uncertainty_ms: u32::MAX }),
            heard: Some(Heard { nonce: Nonce([255; 16]), lease: u64::MAX }),
            prior: Some(Prior { key: KeyId([8; 32]), counter }),
            ..header()
        };
        assert!(widest.encode().len() <= PROTECTED_BYTES_MAX);
        assert_eq!(Header::decode(&widest.encode()), Ok(widest));
    }
}

#[test]
fn no_two_kinds_share_a_content_type_or_a_purpose() {
    // INV-PURP-1. The `external_aad` of one kind is no beginning of another's either.
    for kind in Kind::ALL {
        assert_eq!(Kind::from_content_type(kind.content_type()), Some(kind));
        for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
            assert_ne!(kind.content_type(), other.content_type());
            assert!(!other.external_aad().starts_with(kind.external_aad()));
        }
    }
}

#[test]
fn a_header_that_was_changed_is_refused_with_its_reason() {
    use Reason::*;
    type Change = fn(&mut Item);
    let table: &[(&str, Reason, Change)] = &[
        ("an algorithm that we do not know", UnknownKind, |h| *h.at(&[0]) = (-8).into()),
        ("an algorithm by name", BrokenCbor, |h| *h.at(&[0]) = "Ed25519".into()),
        ("crit names another label", BrokenCbor, |h| *h.at(&[1, 0]) = (-65538).into()),
        ("crit names two labels", BrokenCbor, |h| h.at(&[1]).items().push(4.into())),
        ("crit is empty", BrokenCbor, |h| h.at(&[1]).items().clear()),
        ("another version of the kind", UnknownKind, |h| {
            *h.at(&[2]) = "application/vnd.plimsoll.readings-v2+cbor".into();
        }),
        ("a content type by number", BrokenCbor, |h| *h.at(&[2]) = 112.into()),
        ("a key of 31 bytes", OutOfDomain, |h| *h.at(&[3]) = [7; 31][..].into()),
        ("a key of 33 bytes", OutOfDomain, |h| *h.at(&[3]) = [7; 33][..].into()),
        ("a key that is text", BrokenCbor, |h| *h.at(&[3]) = "key".into()),
        ("five fields in sealed", BrokenCbor, |h| drop(h.at(&[SEALED]).items().pop())),
        ("seven fields in sealed", BrokenCbor, |h| h.at(&[SEALED]).items().push(Item::Null)),
        ("an epoch above 32 bits", BrokenCbor, |h| *h.at(&[SEALED, 0]) = (1 << 32).into()),
        ("an epoch below 0", BrokenCbor, |h| *h.at(&[SEALED, 0]) = (-1).into()),
        ("a sequence below 0", BrokenCbor, |h| *h.at(&[SEALED, 1]) = (-1).into()),
        ("a sequence that is a float", BrokenCbor, |h| *h.at(&[SEALED, 1]) = Item::Float(1.0)),
        ("no uptime", BrokenCbor, |h| *h.at(&[SEALED, 2]) = Item::Null),
        ("a wall clock without uncertainty", BrokenCbor, |h| {
            drop(h.at(&[SEALED, 3]).items().pop());
        }),
        ("a wall clock above 64 bits", BrokenCbor, |h| {
            *h.at(&[SEALED, 3, 0]) = Item::Large(1 << 63);
        }),
        ("a nonce of 15 bytes", OutOfDomain, |h| *h.at(&[SEALED, 4, 0]) = [5; 15][..].into()),
        ("a lease below 0", BrokenCbor, |h| *h.at(&[SEALED, 4, 1]) = (-1).into()),
        ("a prior without key", BrokenCbor, |h| drop(h.at(&[SEALED, 5]).items().remove(0))),
        ("a prior with a short key", OutOfDomain, |h| {
            *h.at(&[SEALED, 5, 0]) = [7; 31][..].into();
        }),
        ("a prior of this very epoch", OutOfDomain, |h| *h.at(&[SEALED, 5, 1]) = 3.into()),
        ("a prior of a later epoch", OutOfDomain, |h| *h.at(&[SEALED, 5, 1]) = 4.into()),
        ("a label less", BrokenCbor, |h| drop(h.entries().pop())),
        ("a label more", BrokenCbor, |h| h.entries().push((5.into(), Item::Null))),
        ("labels in another order", BrokenCbor, |h| h.entries().swap(0, 2)),
        ("a label twice", BrokenCbor, |h| h.entries()[1].0 = 1.into()),
        ("a longer form of a label", NotDeterministic, |h| {
            h.entries()[0].0 = Item::Raw(vec![0x18, 0x01]);
        }),
        ("a longer form of a counter", NotDeterministic, |h| {
            *h.at(&[SEALED, 1]) = Item::Raw(vec![0x18, 0x00]);
        }),
        ("a longer form of a length", NotDeterministic, |h| {
            *h.at(&[SEALED, 4, 0]) = Item::Raw([&[0x58, 16][..], &[5; 16]].concat());
        }),
        ("a map of no stated length", BrokenCbor, |h| {
            let bytes = h.bytes();
            *h = Item::Raw([&[0xbf], &bytes[1..], &[0xff]].concat());
        }),
        ("no map", BrokenCbor, |h| *h = Item::Null),
        ("nothing", BrokenCbor, |h| *h = Item::Raw(vec![])),
        ("a byte behind it", TrailingBytes, |h| *h = Item::Raw([&h.bytes()[..], &[0]].concat())),
        ("257 bytes", Oversize, |h| {
            let mut bytes = h.bytes();
            bytes.resize(PROTECTED_BYTES_MAX + 1, 0);
            *h = Item::Raw(bytes);
        }),
    ];
    let accepted = header().encode();
    for (what, reason, change) in table {
        let mut tree = Item::read(&accepted);
        change(&mut tree);
        let refused = Header::decode(&tree.bytes());
        assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
    }
    for len in 0..accepted.len() {
        assert_eq!(Header::decode(&accepted[..len]).unwrap_err().reason, BrokenCbor, "{len}");
    }
}

#[test]
fn a_prior_under_another_key_may_be_of_any_epoch() {
    // A new key starts a new counter, so its first epoch may be lower than the last of the key before.
    let counter = Counter { epoch: 9, sequence: 4 };
    let header = Header { prior: Some(Prior { key: KeyId([8; 32]), counter }), ..header() };
    assert_eq!(Header::decode(&header.encode()), Ok(header));
}

fn lost() -> Vec<LostRange> {
    let range =
        |first, last, cause| LostRange { key: KeyId([7; 32]), epoch: 2, first, last, cause };
    vec![
        range(3, 9, LossCause::BacklogFull),
        range(11, 11, LossCause::Refused),
        range(0, u64::MAX, LossCause::Unreadable),
    ]
}

#[test]
fn a_loss_notice_comes_back_as_it_was_written() {
    assert_eq!(decode_loss(&encode_loss(&lost())), Ok(lost()));
    assert_eq!(decode_loss(&encode_loss(&[])), Ok(vec![]));
    let most = vec![lost()[0]; LOST_RANGES_MAX];
    assert_eq!(decode_loss(&encode_loss(&most)), Ok(most));
}

#[test]
fn a_loss_notice_that_was_changed_is_refused_with_its_reason() {
    use Reason::*;
    type Change = fn(&mut Item);
    let table: &[(&str, Reason, Change)] = &[
        ("an unknown cause", UnknownKind, |l| *l.at(&[0, 4]) = 3.into()),
        ("a cause that is text", BrokenCbor, |l| *l.at(&[0, 4]) = "full".into()),
        ("a range that ends before it starts", OutOfDomain, |l| *l.at(&[0, 3]) = 2.into()),
        ("a key of 31 bytes", OutOfDomain, |l| *l.at(&[1, 0]) = [7; 31][..].into()),
        ("an epoch above 32 bits", BrokenCbor, |l| *l.at(&[0, 1]) = (1 << 32).into()),
        ("a sequence below 0", BrokenCbor, |l| *l.at(&[0, 2]) = (-1).into()),
        ("a range without cause", BrokenCbor, |l| drop(l.at(&[0]).items().pop())),
        ("a range with a sixth field", BrokenCbor, |l| l.at(&[0]).items().push(Item::Null)),
        ("65 ranges", Oversize, |l| {
            let range = l.at(&[0]).clone();
            l.items().resize(LOST_RANGES_MAX + 1, range);
        }),
        ("a count of ranges and none of them", Oversize, |l| {
            *l = Item::Raw(vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        }),
        ("ranges of no stated number", BrokenCbor, |l| {
            let bytes = l.bytes();
            *l = Item::Raw([&[0x9f], &bytes[1..], &[0xff]].concat());
        }),
        ("no array", BrokenCbor, |l| *l = Item::Null),
        ("a byte behind it", TrailingBytes, |l| *l = Item::Raw([&l.bytes()[..], &[0]].concat())),
    ];
    let accepted = encode_loss(&lost());
    for (what, reason, change) in table {
        // Above i64 the tree does not read: the one range that has it is left out.
        let mut tree = Item::read(&encode_loss(&lost()[..2]));
        change(&mut tree);
        let refused = decode_loss(&tree.bytes());
        assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
    }
    for len in 0..accepted.len() {
        assert_eq!(decode_loss(&accepted[..len]).unwrap_err().reason, BrokenCbor, "{len}");
    }
}

#[test]
fn every_cause_and_reason_has_a_label_of_its_own() {
    let causes = [LossCause::BacklogFull, LossCause::Refused, LossCause::Unreadable];
    for (code, cause) in causes.into_iter().enumerate() {
        assert_eq!(LossCause::from_code(code as u8), Some(cause));
    }
    assert_eq!(LossCause::from_code(3), None);
    let mut labels: Vec<&str> = causes.map(LossCause::as_str).into();
    labels.extend(Reason::ALL.map(Reason::as_str));
    let all = labels.len();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), all);
}

proptest! {
    #[test]
    fn whatever_decodes_has_one_form(
        changes in prop::collection::vec((0..300_usize, any::<u8>()), 1..4)
    ) {
        let mut bytes = header().encode();
        for (at, byte) in changes {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn bytes_of_any_kind_are_refused_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let _ = Header::decode(&bytes);
        let _ = decode_loss(&bytes);
    }
}
