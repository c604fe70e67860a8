use super::*;
use crate::envelope::MESSAGE_BYTES_MAX;
use crate::id::DeviceId;
use crate::tree::Item;
use alloc::vec;
use proptest::prelude::*;

fn entry(quarantine: Option<QuarantineReason>) -> Entry {
    let record = Record {
        device: DeviceId::new("pump-7").unwrap(),
        attested_by: AttestedBy::Device,
        received_at: Timestamp(1_750_000_000_000_000),
        uncertainty_ms: 20,
        fresh: true,
        message: b"a message".to_vec(),
    };
    Entry { record, quarantine }
}

fn batch() -> Batch {
    let quarantined = QuarantineReason::ALL.iter().map(|reason| entry(Some(*reason)));
    Batch {
        gateway: GatewayId::new("gw-1").unwrap(),
        zone: ZoneId::new("hall").unwrap(),
        entries: [entry(None)].into_iter().chain(quarantined).collect(),
    }
}

#[test]
fn a_batch_comes_back_as_it_was_written() {
    assert_eq!(Batch::decode(&batch().encode()), Ok(batch()));
    let empty = Batch { entries: vec![], ..batch() };
    assert_eq!(Batch::decode(&empty.encode()), Ok(empty));
    let most = Batch { entries: vec![entry(None); BATCH_RECORDS_MAX], ..batch() };
    assert_eq!(Batch::decode(&most.encode()), Ok(most));
}

#[test]
fn a_batch_that_was_changed_is_refused_with_its_reason() {
    use Reason::*;
    type Change = fn(&mut Item);
    // [1, gateway, zone, [[device, attested_by, received_at, uncertainty, fresh, verdict, message], ...]]
    let table: &[(&str, Reason, Change)] = &[
        ("another version", UnknownKind, |b| *b.at(&[0]) = 2.into()),
        ("three fields", BrokenCbor, |b| drop(b.items().pop())),
        ("five fields", BrokenCbor, |b| b.items().push(Item::Null)),
        ("a gateway that is no name", OutOfDomain, |b| *b.at(&[1]) = "GW".into()),
        ("a zone that is no name", OutOfDomain, |b| *b.at(&[2]) = "a/b".into()),
        ("a device that is no name", OutOfDomain, |b| *b.at(&[3, 0, 0]) = "#".into()),
        ("attested by somebody else", UnknownKind, |b| *b.at(&[3, 0, 1]) = 2.into()),
        ("a time that is a float", BrokenCbor, |b| *b.at(&[3, 0, 2]) = Item::Float(1.0)),
        ("an uncertainty below 0", BrokenCbor, |b| *b.at(&[3, 0, 3]) = (-1).into()),
        ("fresh by number", BrokenCbor, |b| *b.at(&[3, 0, 4]) = 1.into()),
        ("an unknown verdict", UnknownKind, |b| *b.at(&[3, 0, 5]) = 12.into()),
        ("a verdict above 8 bits", BrokenCbor, |b| *b.at(&[3, 0, 5]) = 256.into()),
        ("no verdict", BrokenCbor, |b| *b.at(&[3, 0, 5]) = Item::Null),
        ("a message that is too long", Oversize, |b| {
            *b.at(&[3, 0, 6]) = vec![0; MESSAGE_BYTES_MAX + 1][..].into();
        }),
        ("an entry of six fields", BrokenCbor, |b| drop(b.at(&[3, 0]).items().pop())),
        ("an entry of eight fields", BrokenCbor, |b| b.at(&[3, 0]).items().push(Item::Null)),
        ("1,025 entries", Oversize, |b| {
            let entry = b.at(&[3, 0]).clone();
            b.at(&[3]).items().resize(BATCH_RECORDS_MAX + 1, entry);
        }),
        ("a byte behind it", TrailingBytes, |b| *b = Item::Raw([&b.bytes()[..], &[0]].concat())),
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

proptest! {
    #[test]
    fn bytes_of_any_kind_are_refused_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let _ = Batch::decode(&bytes);
    }
}
