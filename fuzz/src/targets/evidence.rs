//! What an auditor reads of a log that he does not trust: leaves and exports.

use super::End;
use evidence::export::{self, ExportError};
use evidence::{Event, EventError, NoteKey};

/// A whole export of the log of the golden bytes, and that log's key.
const EXPORT: &str = include_str!("../../../docs/formats/golden/evidence-export-v1.hex");
const LEAF: &str = include_str!("../../../docs/formats/golden/evidence-leaf-v1.hex");
const KEY: &str = "press.example/evidence+a1ba234b+Ae1JKMYo0cLG6ukDOJBZlWEpWSc6XGP5NjbBRhSshzfR";

pub fn leaf(bytes: &[u8]) -> End {
    match Event::from_leaf(bytes) {
        Ok(event) => {
            assert_eq!(event.leaf(), bytes, "an event has one form");
            End::accepted(2)
        }
        Err(e @ (EventError::NotJson | EventError::TooLong { .. })) => End::refused(0, kind(&e)),
        Err(e) => End::refused(1, kind(&e)),
    }
}

pub fn leaves() -> Vec<Vec<u8>> {
    vec![unhex(LEAF)]
}

pub fn export(bytes: &[u8]) -> End {
    let key: NoteKey = KEY.parse().expect("the key of the golden bytes");
    match export::verify(bytes, &key) {
        Ok(proven) => {
            // Who has not the log's key can leave events out of an export, and nothing else.
            let whole = export::verify(&unhex(EXPORT), &key).expect("the golden export holds");
            let heads = [Some(&whole.checkpoint), whole.earlier.as_ref()];
            assert!(heads.contains(&Some(&proven.checkpoint)), "a checkpoint was forged");
            let known = |event| whole.events.contains(event);
            assert!(proven.events.iter().all(known), "an event was forged");
            End::accepted(3)
        }
        Err(
            e @ (ExportError::NotAnExport { .. }
            | ExportError::TooLong { .. }
            | ExportError::UnknownVersion { .. }),
        ) => End::refused(0, kind(&e)),
        Err(e @ (ExportError::OtherKey { .. } | ExportError::Checkpoint(_))) => {
            End::refused(1, kind(&e))
        }
        Err(e) => End::refused(2, kind(&e)),
    }
}

pub fn exports() -> Vec<Vec<u8>> {
    vec![unhex(EXPORT)]
}

/// The name of a refusal, without what it found.
fn kind(error: &dyn std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.chars().take_while(|c| c.is_alphanumeric()).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    model::hex::decode(&digits).expect("golden bytes are hexadecimal")
}
