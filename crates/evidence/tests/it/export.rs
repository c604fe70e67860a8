//! An export proves its events to who has the key and nothing else, and no byte of it can be changed unseen.

use crate::{ORIGIN, event, grow, key, open, signer};
use disk::SimDisk;
use evidence::export::{self, ExportError};
use evidence::{LogError, NoteKey, Reader};
use std::sync::Arc;

/// A log of so many events, in several checkpoints.
fn log_of(size: u64) -> (Reader, String) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    grow(&mut log, 0..size / 2);
    let earlier = log.reader().checkpoint().note().to_owned();
    grow(&mut log, size / 2..size);
    (log.reader(), earlier)
}

#[test]
fn an_export_proves_its_events_and_the_growth_since() {
    let (reader, earlier) = log_of(300);
    let sequences = [0, 5, 149, 150, 255, 256, 299];
    let bytes = reader.export(&sequences, Some(&earlier)).unwrap();
    let proven = export::verify(&bytes, &key()).unwrap();
    assert_eq!(proven.checkpoint, *reader.checkpoint());
    assert_eq!(proven.earlier.unwrap().size(), 150);
    assert_eq!(proven.events, sequences.map(event));

    let bytes = reader.export(&[], None).unwrap();
    let proven = export::verify(&bytes, &key()).unwrap();
    assert!(proven.events.is_empty() && proven.earlier.is_none(), "a checkpoint alone");
}

#[test]
fn no_bit_of_an_export_can_be_changed_unseen() {
    let (reader, earlier) = log_of(20);
    let good = reader.export(&[3, 7, 19], Some(&earlier)).unwrap();
    assert!(export::verify(&good, &key()).is_ok());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            assert!(export::verify(&changed, &key()).is_err(), "byte {at}, bit {bit}");
        }
    }
    println!("{} changed bits of {} bytes refused", good.len() * 8, good.len());
}

#[test]
fn no_byte_can_be_left_out_or_added_unseen() {
    let (reader, earlier) = log_of(20);
    let good = reader.export(&[3, 7, 19], Some(&earlier)).unwrap();
    for at in 0..=good.len() {
        assert!(at == good.len() || export::verify(&good[..at], &key()).is_err(), "cut at {at}");
        for added in *b" \n,0x" {
            let changed = [&good[..at], &[added], &good[at..]].concat();
            assert!(export::verify(&changed, &key()).is_err(), "{added} added at {at}");
        }
        if at < good.len() {
            let changed = [&good[..at], &good[at + 1..]].concat();
            assert!(export::verify(&changed, &key()).is_err(), "byte {at} left out");
        }
    }
}

#[test]
fn an_export_with_one_thing_wrong_is_refused_for_that() {
    let (reader, earlier) = log_of(20);
    let good = String::from_utf8(reader.export(&[3, 7], Some(&earlier)).unwrap()).unwrap();
    let refusal = |changed: &str| {
        assert_ne!(changed, good);
        export::verify(changed.as_bytes(), &key()).unwrap_err()
    };
    macro_rules! refused {
        ($changed:expr, $expected:pat $(if $guard:expr)?) => {
            let found = refusal(&$changed);
            assert!(matches!(found, $expected $(if $guard)?), "{}: {}", model::told(&found), $changed);
        };
    }
    refused!("", ExportError::NotAnExport { .. });
    refused!("[]", ExportError::NotAnExport { .. });
    refused!(good.replace("evidence\":1", "evidence\":2"), ExportError::UnknownVersion { .. });
    refused!(good.replace("\"earlier\"", "\"later\""), ExportError::NotCanonical { .. });
    refused!(good.replace("\"key\"", "\"keys\""), ExportError::NotAnExport { .. });
    refused!(good.replace("\"events\":[\n", "\"events\":[ "), ExportError::NotCanonical { .. });
    refused!(
        good.replace("evidence\":1", "evidence\":1,\"more\":1"),
        ExportError::NotCanonical { .. }
    );

    let event_7 = std::str::from_utf8(event(7).leaf()).unwrap().to_owned();
    let other = event_7.replace("control", "nobody!");
    refused!(good.replace(&event_7, &other), ExportError::NotInLog { sequence: 7, .. });
    let other = event_7.replace("\"sequence\":7", "\"sequence\":8");
    refused!(good.replace(&event_7, &other), ExportError::NotInLog { sequence: 8, .. });
    let other = event_7.replace("\"sequence\":7", "\"sequence\":3");
    refused!(good.replace(&event_7, &other), ExportError::Order { before: 3, sequence: 3 });
    let other = event_7.replace("\"sequence\":7", "\"sequence\":20");
    refused!(good.replace(&event_7, &other), ExportError::NotCovered { sequence: 20, size: 20 });
    let other = event_7.replace("\"v\":1", "\"v\":2");
    refused!(good.replace(&event_7, &other), ExportError::NotAnEvent { place: 1, .. });

    // The earlier checkpoint in the place of the newest: event 7 is in both, its proof is not.
    let newest = serde_json::to_string(reader.checkpoint().note()).unwrap();
    let before = serde_json::to_string(&earlier).unwrap();
    let cut = good.replace(&newest, &before);
    refused!(cut, ExportError::NotGrown { earlier: 10, size: 10, .. });
    let swapped = good.replace(&before, &newest);
    refused!(swapped, ExportError::NotGrown { earlier: 20, size: 20, .. });
    refused!(good.replace("\\n20\\n", "\\n21\\n"), ExportError::Checkpoint(_));
    refused!(good.replace("\\n10\\n", "\\n11\\n"), ExportError::Earlier(_));
}

#[test]
fn a_log_of_somebody_elses_is_not_believed() {
    let (reader, _) = log_of(20);
    let good = String::from_utf8(reader.export(&[3], None).unwrap()).unwrap();
    let stranger = NoteKey::new(ORIGIN, signer(4).public()).unwrap();
    let refused = export::verify(good.as_bytes(), &stranger).unwrap_err();
    assert!(matches!(refused, ExportError::OtherKey { .. }));
    // The same, with the stranger's key written into it.
    let forged = good.replace(&key().to_string(), &stranger.to_string());
    let refused = export::verify(forged.as_bytes(), &stranger).unwrap_err();
    assert!(matches!(refused, ExportError::Checkpoint(_)), "{}", model::told(&refused));
}

#[test]
fn what_is_not_covered_is_not_exported() {
    let (reader, earlier) = log_of(20);
    assert!(matches!(reader.export(&[20], None), Err(LogError::NotCovered { .. })));
    let (short, _) = log_of(4);
    let not_yet = short.export(&[0], Some(&earlier));
    assert!(matches!(not_yet, Err(LogError::NotEarlier { earlier: 10, size: 4 })));
    // Descending: it would not verify, so it is not handed out.
    assert!(matches!(reader.export(&[7, 3], None), Err(LogError::NotProven { .. })));
    let reader = Arc::new(reader);
    assert!(reader.export(&[3], Some("no note")).is_err());
}
