//! An event has one form of bytes, and only what may be held is held.

use crate::{event, said};
use evidence::event::{DETAIL_DEPTH_MAX, NAME_BYTES_MAX, NUMBER_MAX, Said};
use evidence::tile::LEAF_BYTES_MAX;
use evidence::{Event, EventError};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

#[test]
fn keys_are_sorted_and_texts_escaped_as_rfc_8785_says() {
    // The example of RFC 8785 §3.2.3: sorted by UTF-16 code units, so that what UTF-8 puts last is not last.
    let detail = json!({
        "\u{20ac}": "Euro Sign",
        "\r": "Carriage Return",
        "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\u{1f600}": "Emoji: Grinning Face",
        "\u{80}": "Control",
        "\u{f6}": "Latin Small Letter O With Diaeresis",
    });
    let event = Event::new(0, said("a", detail)).unwrap();
    let leaf = std::str::from_utf8(event.leaf()).unwrap();
    let names = ["\\r\"", "\"1\"", "\u{80}", "\u{f6}", "\u{20ac}", "\u{1f600}", "\u{fb33}"];
    let places: Vec<usize> = names.iter().map(|name| leaf.find(name).expect(name)).collect();
    assert!(places.is_sorted(), "{leaf}");

    // §3.2.2.2, last example: what is escaped, and how.
    let detail = json!({ "text": "\u{20ac}$\u{f}\nA'B\"\\\\\"/\u{7f}\u{1b}\t\u{8}\u{c}" });
    let event = Event::new(0, said("a", detail)).unwrap();
    let leaf = std::str::from_utf8(event.leaf()).unwrap();
    let text = "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u{7f}\\u001b\\t\\b\\f\"";
    assert!(leaf.contains(text), "{leaf}");
    assert_eq!(Event::from_leaf(event.leaf()), Ok(event));
}

#[test]
fn an_event_with_one_thing_wrong_is_refused_for_that() {
    let good = || said("control", json!({}));
    assert!(Event::new(7, good()).is_ok());
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let refusal = |said: Said| Event::new(7, said).unwrap_err();

    for bad in ["", "two\nlines", "\u{85}", long.as_str()] {
        let found = refusal(Said { actor: bad.into(), ..good() });
        assert!(matches!(found, EventError::BadText { field: "actor", .. }), "{found}");
        let found = refusal(Said { subject: bad.into(), ..good() });
        assert!(matches!(found, EventError::BadText { field: "subject", .. }), "{found}");
    }
    for bad in ["", "Halt", "7", "halt!", "two words", ".halt", "x".repeat(65).as_str()] {
        let found = refusal(Said { action: bad.into(), ..good() });
        assert!(matches!(found, EventError::BadText { field: "action", .. }), "{found}");
    }
    let found = refusal(Said { at_ms: NUMBER_MAX + 1, ..good() });
    assert!(matches!(found, EventError::BadNumber { field: "at_ms", .. }), "{found}");
    let found = Event::new(NUMBER_MAX + 1, good()).unwrap_err();
    assert!(matches!(found, EventError::BadNumber { field: "sequence", .. }), "{found}");

    for bad in [json!(0.5), json!(1.0), json!(NUMBER_MAX + 1), json!(-(NUMBER_MAX as i64) - 1)] {
        let found = refusal(said("control", json!({ "n": [bad] })));
        assert!(matches!(found, EventError::NotWhole { .. }), "{found}");
    }
    let nested = |depth: usize| {
        // Lists count as well as objects.
        (1..depth).fold(json!({}), |inner, n| match n % 2 {
            1 if n + 1 < depth => json!([inner]),
            _ => json!({ "in": inner }),
        })
    };
    assert!(Event::new(7, said("control", nested(DETAIL_DEPTH_MAX))).is_ok());
    assert_eq!(refusal(said("control", nested(DETAIL_DEPTH_MAX + 1))), EventError::TooDeep);

    let filled = |len: usize| said("control", json!({ "text": "x".repeat(len) }));
    let overhead = Event::new(7, filled(0)).unwrap().leaf().len();
    assert!(Event::new(7, filled(LEAF_BYTES_MAX - overhead)).is_ok());
    let len = LEAF_BYTES_MAX + 1;
    assert_eq!(refusal(filled(len - overhead)), EventError::TooLong { len });
}

#[test]
fn a_leaf_with_one_thing_wrong_is_refused_for_that() {
    let leaf = String::from_utf8(event(7).leaf().to_vec()).unwrap();
    assert_eq!(Event::from_leaf(leaf.as_bytes()), Ok(event(7)));
    let missing = |field| EventError::Missing { field };
    let version = |found: &str| EventError::UnknownVersion { found: found.to_owned() };
    let cases = [
        (leaf.replace("\"v\":1", "\"v\":2"), version("2")),
        (leaf.replace("\"v\":1", "\"v\":\"1\""), version("\"1\"")),
        (leaf.replace(",\"v\":1", ""), version("null")),
        (leaf.replace("\"actor\":\"control\",", ""), missing("actor")),
        (leaf.replace("\"control\"", "7"), missing("actor")),
        (leaf.replace("\"sequence\":7", "\"sequence\":-7"), missing("sequence")),
        (leaf.replace("\"sequence\":7", "\"sequence\":7.0"), missing("sequence")),
        (leaf.replace("\"detail\":{", "\"detail\":[],\"more\":{"), missing("detail")),
        (leaf.replace("{\"action\"", "{ \"action\""), EventError::NotCanonical),
        (leaf.replace("\"v\":1", "\"v\":1,\"w\":1"), EventError::NotCanonical),
        (leaf.replace("\"v\":1", "\"v\":1,\"v\":1"), EventError::NotCanonical),
        (leaf.replace("control", "\\u0063ontrol"), EventError::NotCanonical),
        (leaf.replace("\"wave\":3", "\"wave\":3,\"a\":1"), EventError::NotCanonical),
        (format!("{leaf}\n"), EventError::NotCanonical),
        (format!("{leaf}}}"), EventError::NotJson),
        (leaf[1..].to_owned(), EventError::NotJson),
        ("[".repeat(10_000), EventError::NotJson),
        ("7".to_owned(), version("null")),
        ("x".repeat(LEAF_BYTES_MAX + 1), EventError::TooLong { len: LEAF_BYTES_MAX + 1 }),
    ];
    for (changed, expected) in cases {
        assert_ne!(changed, leaf);
        assert_eq!(Event::from_leaf(changed.as_bytes()), Err(expected), "{changed:.300}");
    }
    let not_utf8 = [leaf.as_bytes(), &[0xff]].concat();
    assert_eq!(Event::from_leaf(&not_utf8), Err(EventError::NotJson));
}

fn values() -> impl Strategy<Value = Value> {
    let n = NUMBER_MAX as i64;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-n..=n).prop_map(Value::from),
        "\\PC{0,8}|[\\x00-\\x20]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            members(inner).prop_map(Value::from),
        ]
    })
}

fn members(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::vec((".{0,5}", inner), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

proptest! {
    #[test]
    fn whatever_is_held_reads_back_the_same_and_in_one_form(
        sequence in 0..=NUMBER_MAX,
        at_ms in 0..=NUMBER_MAX,
        actor in "[^\\p{Cc}]{1,40}",
        detail in members(values()),
    ) {
        let said = Said { at_ms, actor, action: "do".into(), subject: "it".into(), detail };
        let event = Event::new(sequence, said.clone()).unwrap();
        let read = Event::from_leaf(event.leaf()).unwrap();
        prop_assert_eq!(read.leaf(), event.leaf());
        prop_assert_eq!(read.detail(), &said.detail);
        // In whatever order the members were said.
        let reversed = Said { detail: said.detail.clone().into_iter().rev().collect(), ..said };
        let other = Event::new(sequence, reversed).unwrap();
        prop_assert_eq!(other.leaf(), event.leaf());
    }

    #[test]
    fn bytes_of_any_kind_are_an_event_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(event) = Event::from_leaf(&bytes) {
            prop_assert_eq!(event.leaf(), &bytes[..]);
        }
    }
}
