use super::*;
use crate::tree::Item;
use alloc::vec;
use proptest::prelude::*;

fn record() -> Record {
    Record {
        device: DeviceId::new("pump-7").unwrap(),
        attested_by: AttestedBy::Device,
        received_at: Timestamp(1_750_000_000_000_000),
        uncertainty_ms: 20,
        fresh: true,
        message: b"a message".to_vec(),
    }
}

fn batch() -> Batch {
    let second = Record {
        device: DeviceId::new("meter.3").unwrap(),
        attested_by: AttestedBy::Gateway,
        received_at: Timestamp(-1),
        uncertainty_ms: u32::MAX,
        fresh: false,
        message: vec![],
    };
    Batch {
        gateway: GatewayId::new("gw-1").unwrap(),
        zone: ZoneId::new("hall").unwrap(),
        bundle: 12,
        records: vec![record(), second],
    }
}

#[test]
fn a_batch_comes_back_as_it_was_written() {
    assert_eq!(Batch::decode(&batch().encode()), Ok(batch()));
    let empty = Batch { records: vec![], ..batch() };
    assert_eq!(Batch::decode(&empty.encode()), Ok(empty));
    let most = Batch { records: vec![record(); BATCH_RECORDS_MAX], ..batch() };
    assert_eq!(Batch::decode(&most.encode()), Ok(most));
    let longest = Record { message: vec![0; MESSAGE_BYTES_MAX], ..record() };
    let longest = Batch { records: vec![longest], ..batch() };
    assert_eq!(Batch::decode(&longest.encode()), Ok(longest));
}

#[test]
fn a_batch_that_was_changed_is_refused_with_its_reason() {
    use Reason::*;
    type Change = fn(&mut Item);
    // [1, gateway, zone, bundle, [[device, attested_by, received_at, uncertainty, fresh, message], ...]]
    let table: &[(&str, Reason, Change)] = &[
        ("another version", UnknownKind, |b| *b.at(&[0]) = 2.into()),
        ("a version that is text", BrokenCbor, |b| *b.at(&[0]) = "1".into()),
        ("four fields", BrokenCbor, |b| drop(b.items().pop())),
        ("six fields", BrokenCbor, |b| b.items().push(Item::Null)),
        ("a gateway that is no name", OutOfDomain, |b| *b.at(&[1]) = "../gw".into()),
        ("a gateway that is a number", BrokenCbor, |b| *b.at(&[1]) = 1.into()),
        ("a zone that is no name", OutOfDomain, |b| *b.at(&[2]) = "".into()),
        ("a bundle below 0", BrokenCbor, |b| *b.at(&[3]) = (-1).into()),
        ("a device that is no name", OutOfDomain, |b| *b.at(&[4, 0, 0]) = "Pump 7".into()),
        ("attested by somebody else", UnknownKind, |b| *b.at(&[4, 0, 1]) = 2.into()),
        ("a time that is text", BrokenCbor, |b| *b.at(&[4, 0, 2]) = "now".into()),
        ("a time above 64 bits", BrokenCbor, |b| *b.at(&[4, 0, 2]) = Item::Large(1 << 63)),
        ("an uncertainty above 32 bits", BrokenCbor, |b| *b.at(&[4, 0, 3]) = (1 << 32).into()),
        ("fresh by number", BrokenCbor, |b| *b.at(&[4, 0, 4]) = 1.into()),
        ("a message that is text", BrokenCbor, |b| *b.at(&[4, 0, 5]) = "message".into()),
        ("a message that is too long", Oversize, |b| {
            *b.at(&[4, 0, 5]) = vec![0; MESSAGE_BYTES_MAX + 1][..].into();
        }),
        ("a record of five fields", BrokenCbor, |b| drop(b.at(&[4, 0]).items().pop())),
        ("a record of seven fields", BrokenCbor, |b| b.at(&[4, 0]).items().push(Item::Null)),
        ("1,025 records", Oversize, |b| {
            let record = b.at(&[4, 0]).clone();
            b.at(&[4]).items().resize(BATCH_RECORDS_MAX + 1, record);
        }),
        ("a count of records and none of them", Oversize, |b| {
            *b.at(&[4]) = Item::Raw(vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        }),
        ("records of no stated number", BrokenCbor, |b| *b.at(&[4]) = Item::Raw(vec![0x9f, 0xff])),
        ("a byte behind it", TrailingBytes, |b| *b = Item::Raw([&b.bytes()[..], &[0]].concat())),
        ("more than 4 MiB", Oversize, |b| *b = Item::Raw(vec![0x85; BATCH_BYTES_MAX + 1])),
    ];
    let accepted = batch().encode();
    for (what, reason, change) in table {
        let mut tree = Item::read(&accepted);
        change(&mut tree);
        let refused = Batch::decode(&tree.bytes());
        assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
    }
    for len in 0..accepted.len() {
        assert_eq!(Batch::decode(&accepted[..len]).unwrap_err().reason, BrokenCbor, "{len}");
    }
}

fn verdicts() -> Vec<Verdict> {
    let quarantined = QuarantineReason::ALL.iter().map(|reason| Verdict::Quarantined(*reason));
    [Verdict::Stored, Verdict::Known].into_iter().chain(quarantined).collect()
}

#[test]
fn a_reply_comes_back_as_it_was_written() {
    assert_eq!(decode_reply(&encode_reply(&verdicts())), Ok(verdicts()));
    assert_eq!(decode_reply(&encode_reply(&[])), Ok(vec![]));
}

#[test]
fn a_reply_that_was_changed_is_refused_with_its_reason() {
    use Reason::*;
    type Change = fn(&mut Item);
    let table: &[(&str, Reason, Change)] = &[
        ("another version", UnknownKind, |r| *r.at(&[0]) = 2.into()),
        ("an unknown verdict", UnknownKind, |r| *r.at(&[1, 0]) = 2.into()),
        ("an unknown reason", UnknownKind, |r| *r.at(&[1, 2, 1]) = 12.into()),
        ("no reason", UnknownKind, |r| *r.at(&[1, 2, 1]) = 0.into()),
        ("stored, with a reason", UnknownKind, |r| *r.at(&[1, 2, 0]) = 0.into()),
        ("a quarantine of one field", BrokenCbor, |r| drop(r.at(&[1, 2]).items().pop())),
        ("a verdict that is text", BrokenCbor, |r| *r.at(&[1, 0]) = "stored".into()),
        ("a field more", BrokenCbor, |r| r.items().push(Item::Null)),
        ("1,025 verdicts", Oversize, |r| {
            r.at(&[1]).items().resize(BATCH_RECORDS_MAX + 1, Item::Int(0));
        }),
        ("a byte behind it", TrailingBytes, |r| *r = Item::Raw([&r.bytes()[..], &[0]].concat())),
    ];
    let accepted = encode_reply(&verdicts());
    for (what, reason, change) in table {
        let mut tree = Item::read(&accepted);
        change(&mut tree);
        let refused = decode_reply(&tree.bytes());
        assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
    }
    for len in 0..accepted.len() {
        assert_eq!(decode_reply(&accepted[..len]).unwrap_err().reason, BrokenCbor, "{len}");
    }
}

#[test]
fn every_quarantine_reason_has_a_code_and_a_label_of_its_own() {
    for (index, reason) in QuarantineReason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index + 1, "0 is the verdict of what goes into history");
        assert_eq!(QuarantineReason::from_code(*reason as u8), Some(*reason));
        let same = QuarantineReason::ALL.iter().filter(|other| other.as_str() == reason.as_str());
        assert_eq!(same.count(), 1, "{reason}");
    }
    assert_eq!(QuarantineReason::from_code(0), None);
    assert_eq!(QuarantineReason::from_code(QuarantineReason::ALL.len() as u8 + 1), None);
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_refused_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let _ = Batch::decode(&bytes);
        let _ = decode_reply(&bytes);
    }
}
