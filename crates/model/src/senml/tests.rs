use super::*;
use crate::tree::Item;
use alloc::vec;
use proptest::prelude::*;

fn reading(time_us: i64, series: &str, value: Value) -> Reading {
    Reading {
        time: Timestamp(time_us),
        series: SeriesName::new(series).unwrap(),
        value,
        unit: None,
    }
}

fn unit(text: &str) -> Option<Unit> {
    Some(Unit::new(text).unwrap())
}

/// RFC 8428 §6: the pack of §5.1.2 in CBOR, with one byte changed: its `bver` is 10, not 5.
const RFC_8428: &str = concat!(
    "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a",
    "22fb41d303a15b00106223614120",
    "0a",
    "0067766f6c7461676501615602fb405e066666666666a3006763757272656e74",
    "062402fb3ff3333333333333a3006763757272656e74062302fb3ff4cccccccc",
    "cccda3006763757272656e74062202fb3ff6666666666666a300676375727265",
    "6e74062102f93e00a3006763757272656e74062002fb3ff999999999999aa300",
    "6763757272656e74060002fb3ffb333333333333"
);

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |b: u8| (b as char).to_digit(16).unwrap() as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[test]
fn the_pack_of_rfc_8428_is_read_as_the_rfc_resolves_it() {
    let at = |seconds: i64| 1_276_020_076_001_000 + seconds * 1_000_000;
    let series = |name: &str| alloc::format!("urn:dev:ow:10e2073a0108006:{name}");
    let current = [(-5, 1.2), (-4, 1.3), (-3, 1.4), (-2, 1.5), (-1, 1.6), (0, 1.7)];
    let mut expected = vec![Reading {
        unit: unit("V"),
        ..reading(at(0), &series("voltage"), Value::Float(120.1))
    }];
    expected.extend(current.map(|(seconds, ampere)| Reading {
        unit: unit("A"),
        ..reading(at(seconds), &series("current"), Value::Float(ampere))
    }));
    assert_eq!(decode(&bytes_of(RFC_8428)), Ok(expected));
}

#[test]
fn a_pack_of_a_version_that_we_do_not_know_is_refused() {
    // The example stands in the RFC with `bver` 5; the only version whose meaning we know is the RFC's own, 10 (§4.4).
    let published = RFC_8428.replacen("23614120 0a".replace(' ', "").as_str(), "2361412005", 1);
    assert_ne!(published, RFC_8428);
    assert_eq!(decode(&bytes_of(&published)).unwrap_err().reason, Reason::UnknownKind);
}

#[test]
fn a_measurement_at_no_stated_time_is_refused() {
    // §5.1.1: [{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}] is "now", which no record that is kept can mean.
    let now = Item::Array(vec![Item::Map(vec![
        (label(N), "urn:dev:ow:10e2073a01080063".into()),
        (label(U), "Cel".into()),
        (label(V), Item::Float(23.1)),
    ])]);
    assert_eq!(decode(&now.bytes()).unwrap_err().reason, Reason::OutOfDomain);
}

fn label(label: i32) -> Item {
    Item::Int(label.into())
}

#[test]
fn base_fields_hold_until_they_are_set_again() {
    // RFC 8428 §4.1.
    let map = |entries: Vec<(i32, Item)>| {
        Item::Map(entries.into_iter().map(|(number, value)| (label(number), value)).collect())
    };
    let time = 1_750_000_000_i64;
    let pack = Item::Array(vec![
        map(vec![
            (V, 1.into()),
            (BT, time.into()),
            (BN, "a/".into()),
            (BU, "V".into()),
            (N, "x".into()),
        ]),
        map(vec![(N, "y".into()), (T, Item::Float(0.5)), (V, 2.into())]),
        map(vec![(N, "y".into()), (U, "A".into()), (V, 3.into())]),
        map(vec![(BT, (time + 9).into()), (BN, "b".into()), (T, (-1).into()), (V, 4.into())]),
        map(vec![(BU, "K".into()), (BN, "".into()), (N, "z".into()), (V, 5.into())]),
    ]);
    let us = time * 1_000_000;
    let expected = [
        Reading { unit: unit("V"), ..reading(us, "a/x", Value::Int(1)) },
        Reading { unit: unit("V"), ..reading(us + 500_000, "a/y", Value::Int(2)) },
        Reading { unit: unit("A"), ..reading(us, "a/y", Value::Int(3)) },
        Reading { unit: unit("V"), ..reading(us + 8_000_000, "b", Value::Int(4)) },
        Reading { unit: unit("K"), ..reading(us + 9_000_000, "z", Value::Int(5)) },
    ];
    assert_eq!(decode(&pack.bytes()), Ok(expected.to_vec()));
}

#[test]
fn the_type_of_a_value_is_kept() {
    let us = 1_750_000_000_000_000;
    let values = [
        Value::Int(1),
        Value::Float(1.0),
        Value::Int(i64::MIN),
        Value::Int(i64::MAX),
        Value::Float(f64::MIN_POSITIVE),
        Value::Float(-0.0),
        Value::Bool(false),
        Value::Text("1".into()),
        Value::Text("".into()),
        Value::Text("grüße\0".into()),
    ];
    let readings: Vec<Reading> =
        values.into_iter().map(|value| reading(us, "series", value)).collect();
    let again = decode(&encode(&readings)).unwrap();
    assert_eq!(again, readings);
    assert!(matches!(again[5].value, Value::Float(v) if v.is_sign_negative()));
}

#[test]
fn a_value_of_fewer_bits_is_read_exactly() {
    let pack = |value: &[u8]| {
        let record = Item::Map(vec![
            (label(BT), 1_750_000_000_i64.into()),
            (label(N), "x".into()),
            (label(V), Item::Raw(value.into())),
        ]);
        decode(&Item::Array(vec![record]).bytes()).map(|readings| readings[0].value.clone())
    };
    assert_eq!(pack(&[0xf9, 0x3e, 0x00]), Ok(Value::Float(1.5)), "16 bits");
    assert_eq!(pack(&[0xfa, 0x3f, 0xc0, 0, 0]), Ok(Value::Float(1.5)), "32 bits");
    assert_eq!(pack(&[0x18, 0x01]), Ok(Value::Int(1)), "a pack need not be deterministic");
    let refused = |value: &[u8]| pack(value).unwrap_err().reason;
    for (nan, infinite) in [
        (&[0xf9, 0x7e, 0x00][..], &[0xf9, 0x7c, 0x00][..]),
        (&[0xfa, 0x7f, 0xc0, 0, 0], &[0xfa, 0xff, 0x80, 0, 0]),
        (&[0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], &[0xfb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!(refused(nan), Reason::OutOfDomain);
        assert_eq!(refused(infinite), Reason::OutOfDomain);
    }
    let above = [0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(refused(&above), Reason::BrokenCbor, "an integer above 64 bits with sign");
}

#[test]
fn the_first_and_the_last_microsecond_are_read_and_their_neighbours_refused() {
    let (first, last) = (EARLIEST_US, LATEST_US);
    for us in [first, first + 1, last - 1, last] {
        let readings = [reading(us, "x", Value::Int(0))];
        assert_eq!(decode(&encode(&readings)), Ok(readings.to_vec()));
    }
    for us in [first - 1, last + 1] {
        let readings = [reading(us, "x", Value::Int(0))];
        assert_eq!(decode(&encode(&readings)).unwrap_err().reason, Reason::OutOfDomain);
    }
    let both_ends = [first, last, first + 1, last - 1].map(|us| reading(us, "x", Value::Int(0)));
    assert_eq!(decode(&encode(&both_ends)), Ok(both_ends.to_vec()), "in one pack");
}

#[test]
fn no_time_overflows_however_far_it_is_asked_for() {
    let number = |value: f64| Item::Float(value);
    let far = [
        (number(f64::MAX), number(f64::MAX)),
        (number(-f64::MAX), number(f64::MAX)),
        (i64::MAX.into(), i64::MAX.into()),
        (i64::MIN.into(), i64::MIN.into()),
        (i64::MIN.into(), number(f64::MAX)),
        (i64::MAX.into(), number(-1e300)),
        // Without a bound on the fraction, this one would saturate into the domain.
        (Item::Int(-8_970_000_000_000), number(1e300)),
        (0.into(), number(-1.0)),
        (Item::Int(268_435_455), number(0.999_999_4)),
        (Item::Int(253_402_300_799), number(0.999_999_6)),
    ];
    for (base, own) in far {
        let record = Item::Map(vec![
            (label(BT), base.clone()),
            (label(T), own.clone()),
            (label(N), "x".into()),
            (label(V), 1.into()),
        ]);
        let refused = decode(&Item::Array(vec![record]).bytes()).unwrap_err();
        assert_eq!(refused.reason, Reason::OutOfDomain, "{base:?} {own:?}");
    }
}

/// `[{-3: bt, 0: n, 1: u, 2: v}, {0: n, 3: vs, 6: t}, {0: n, 4: vb}]`
fn accepted() -> Vec<u8> {
    let us = 1_750_000_000_000_000;
    encode(&[
        Reading { unit: unit("Cel"), ..reading(us, "temperature", Value::Float(21.5)) },
        reading(us + 250_000, "mode", Value::Text("idle".into())),
        reading(us, "open", Value::Bool(true)),
    ])
}

#[test]
fn a_pack_that_was_changed_is_refused_with_its_reason() {
    use Reason::*;
    type Change = fn(&mut Item);
    let table: &[(&str, Reason, Change)] = &[
        ("no record", OutOfDomain, |p| p.items().clear()),
        ("257 records", Oversize, |p| {
            let record = p.at(&[0]).clone();
            p.items().resize(RECORDS_MAX + 1, record);
        }),
        ("a count of records and none of them", Oversize, |p| {
            *p = Item::Raw(vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        }),
        ("records of no stated number", BrokenCbor, |p| {
            let bytes = p.bytes();
            *p = Item::Raw([&[0x9f], &bytes[1..], &[0xff]].concat());
        }),
        ("no array", BrokenCbor, |p| *p = p.at(&[0]).clone()),
        ("a record that is an array", BrokenCbor, |p| *p.at(&[1]) = Item::Array(vec![])),
        ("an empty record", OutOfDomain, |p| p.at(&[0]).entries().clear()),
        ("a record of no stated length", BrokenCbor, |p| {
            *p.at(&[1]) = Item::Raw(vec![0xbf, 0xff]);
        }),
        ("17 labels", Oversize, |p| {
            let label = ("x".into(), Item::Null);
            p.at(&[0]).entries().resize(17, label);
        }),
        ("no value", BrokenCbor, |p| drop(p.at(&[0]).entries().pop())),
        ("two values", BrokenCbor, |p| p.at(&[2]).entries().push((label(V), 1.into()))),
        ("a label twice", BrokenCbor, |p| p.at(&[2]).entries().push((label(N), "open".into()))),
        ("a value that is text", BrokenCbor, |p| *p.at(&[0, 3]) = "21.5".into()),
        ("a boolean that is a number", BrokenCbor, |p| *p.at(&[2, 1]) = 1.into()),
        ("a text that is bytes", BrokenCbor, |p| *p.at(&[1, 1]) = b"idle"[..].into()),
        ("a text that is no UTF-8", BrokenCbor, |p| {
            *p.at(&[1, 1]) = Item::Raw(vec![0x62, 0xc3, 0x28]);
        }),
        ("a text that is too long", Oversize, |p| {
            *p.at(&[1, 1]) = "x".repeat(TEXT_BYTES_MAX + 1).as_str().into();
        }),
        ("a name that starts with a slash", OutOfDomain, |p| *p.at(&[0, 1]) = "/x".into()),
        ("a name with a space", OutOfDomain, |p| *p.at(&[0, 1]) = "a b".into()),
        ("a name of 129 characters", Oversize, |p| {
            *p.at(&[0, 1]) = "x".repeat(129).as_str().into();
        }),
        ("no name", OutOfDomain, |p| drop(p.at(&[0]).entries().remove(1))),
        ("a unit with a space", OutOfDomain, |p| *p.at(&[0, 2]) = "deg C".into()),
        ("an empty unit", OutOfDomain, |p| *p.at(&[0, 2]) = "".into()),
        ("a unit of 33 characters", Oversize, |p| {
            *p.at(&[0, 2]) = "x".repeat(33).as_str().into();
        }),
        ("no base time: relative to now", OutOfDomain, |p| {
            drop(p.at(&[0]).entries().remove(0));
        }),
        ("a base time that is text", BrokenCbor, |p| *p.at(&[0, 0]) = "now".into()),
        ("a base time that is not a number", OutOfDomain, |p| {
            *p.at(&[0, 0]) = Item::Float(f64::NAN);
        }),
        ("a clock at 1970", OutOfDomain, |p| *p.at(&[0, 0]) = 1.into()),
        ("a sum", UnknownKind, |p| p.at(&[0]).entries()[3].0 = 5.into()),
        ("a base value", UnknownKind, |p| p.at(&[0]).entries().push(((-5).into(), 1.into()))),
        ("an update time", UnknownKind, |p| p.at(&[0]).entries().push((7.into(), 1.into()))),
        ("a data value", UnknownKind, |p| p.at(&[0]).entries()[3].0 = 8.into()),
        ("a label that we do not know", UnknownKind, |p| {
            p.at(&[0]).entries().push((77.into(), 1.into()));
        }),
        ("version 11", UnknownKind, |p| p.at(&[0]).entries().push(((-1).into(), 11.into()))),
        ("a label that must be understood", UnknownKind, |p| {
            p.at(&[0]).entries().push(("x_".into(), 1.into()));
        }),
        ("something nested behind an unknown label", BrokenCbor, |p| {
            p.at(&[0]).entries().push(("x".into(), Item::Array(vec![])));
        }),
        ("a label that is a float", BrokenCbor, |p| {
            p.at(&[0]).entries()[3].0 = Item::Float(2.0);
        }),
        ("a byte behind it", TrailingBytes, |p| *p = Item::Raw([&p.bytes()[..], &[0]].concat())),
        ("a byte more than 32 KiB", Oversize, |p| {
            let mut bytes = p.bytes();
            bytes.resize(PACK_BYTES_MAX + 1, 0);
            *p = Item::Raw(bytes);
        }),
    ];
    let accepted = accepted();
    for (what, reason, change) in table {
        let mut tree = Item::read(&accepted);
        change(&mut tree);
        let refused = decode(&tree.bytes());
        assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
    }
    for len in 0..accepted.len() {
        assert_eq!(decode(&accepted[..len]).unwrap_err().reason, BrokenCbor, "{len}");
    }
}

#[test]
fn what_may_be_ignored_is_ignored() {
    // RFC 8428 §4.4: unknown labels whose name does not end in "_"; version 10 is the one that is meant anyway.
    let mut tree = Item::read(&accepted());
    let first = tree.at(&[0]).entries();
    first.insert(0, ("note".into(), "by hand".into()));
    first.push(((-1).into(), 10.into()));
    first.push(("_x".into(), Item::Bytes(vec![1])));
    assert_eq!(decode(&tree.bytes()), decode(&accepted()));
}

#[test]
fn the_longest_names_units_texts_and_packs_are_read() {
    let us = 1_750_000_000_000_000;
    let text = Value::Text("x".repeat(TEXT_BYTES_MAX));
    let longest = Reading { unit: unit(&"u".repeat(32)), ..reading(us, &"n".repeat(128), text) };
    assert_eq!(decode(&encode(core::slice::from_ref(&longest))), Ok(vec![longest]));
    let most = vec![reading(us, "x", Value::Int(1)); RECORDS_MAX];
    assert_eq!(decode(&encode(&most)), Ok(most));
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let time = prop_oneof![
        EARLIEST_US..=LATEST_US,
        1_700_000_000_000_000..1_800_000_000_000_000_i64,
        (1_750_000_000_000_000..1_750_000_010_000_000_i64),
    ];
    let value = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(Value::Float),
        any::<bool>().prop_map(Value::Bool),
        ".{0,40}".prop_map(Value::Text),
    ];
    let series =
        "[A-Za-z0-9][-A-Za-z0-9:./_]{0,30}".prop_map(|text| SeriesName::new(text).unwrap());
    let unit = prop::option::of("[!-~]{1,32}".prop_map(|text| Unit::new(text).unwrap()));
    (time, series, value, unit).prop_map(|(us, series, value, unit)| Reading {
        time: Timestamp(us),
        series,
        value,
        unit,
    })
}

proptest! {
    /// Every microsecond from 1978 to 9999, in any mixture, in one pack.
    #[test]
    fn readings_come_back_exactly(readings in prop::collection::vec(any_reading(), 1..60)) {
        prop_assert_eq!(decode(&encode(&readings)), Ok(readings));
    }

    #[test]
    fn what_was_read_can_be_written_and_read_again(
        changes in prop::collection::vec((0..200_usize, any::<u8>()), 1..4)
    ) {
        let mut bytes = accepted();
        for (at, byte) in changes {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        if let Ok(readings) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&readings)), Ok(readings));
        }
    }

    #[test]
    fn bytes_of_any_kind_are_refused_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let _ = decode(&bytes);
    }
}
