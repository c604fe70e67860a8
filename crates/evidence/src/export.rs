//! Events with what proves them, in one file, and the check that needs nothing but the log's public key.
//!
//! ```text
//! {"plimsoll_evidence":1,
//! "key":"<the log's key, as note.rs writes it>",
//! "checkpoint":"<signed note>",
//! "earlier":null                       or {"checkpoint":"<signed note>","proof":["<base64>",...]},
//! "events":[
//! {"proof":["<base64>",...],"event":<the leaf>},
//! ...
//! ]}
//! ```
//!
//! The form is fixed to the byte: what was read is written again and compared, so that no byte of an export can be changed
//! unseen, not even one that means nothing. Events ascend by their number. `earlier` is a checkpoint that somebody kept, and
//! the proof that the log has only grown since.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::event::{Event, EventError};
use crate::merkle::{self, Hash, NotProven};
use crate::note::NoteKey;
use serde::Deserialize;
use serde_json::Value;

/// The version that is written, and the only one that is read.
pub const VERSION: u64 = 1;

/// The longest export that is read or written: some 60,000 events of usual length, with their proofs.
pub const EXPORT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why an export does not prove what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    #[error("the export is too long: {len} bytes, expected at most {EXPORT_BYTES_MAX}")]
    TooLong { len: u64 },

    #[error("not an export of evidence: {what}")]
    NotAnExport { what: String },

    #[error("the export has version {found}, expected {VERSION}")]
    UnknownVersion { found: String },

    #[error("the export is of the log with the key `{found}`, expected `{expected}`")]
    OtherKey { expected: String, found: String },

    #[error("the checkpoint of the export is refused")]
    Checkpoint(#[source] CheckpointError),

    #[error("the earlier checkpoint of the export is refused")]
    Earlier(#[source] CheckpointError),

    #[error(
        "the log did not only grow: the checkpoint of {size} events does not continue the one of {earlier}"
    )]
    NotGrown { earlier: u64, size: u64, source: NotProven },

    #[error("entry {place} of the export is no event")]
    NotAnEvent { place: usize, source: EventError },

    #[error("event {sequence} stands behind event {before}, expected ascending numbers")]
    Order { before: u64, sequence: u64 },

    #[error("event {sequence} is not among the {size} events that the checkpoint covers")]
    NotCovered { sequence: u64, size: u64 },

    #[error("event {sequence} is not in the log, or was changed")]
    NotInLog { sequence: u64, source: NotProven },

    #[error("the export was changed at byte {at}, where it means nothing")]
    NotCanonical { at: usize },
}

/// What an export proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    pub checkpoint: Checkpoint,
    /// The log has only grown since.
    pub earlier: Option<Checkpoint>,
    pub events: Vec<Event>,
}

/// An event and the way from its leaf to the root.
pub(crate) struct Entry {
    pub event: Event,
    pub proof: Vec<Hash>,
}

/// A checkpoint that was kept, and the way from it to the newest.
pub(crate) struct Earlier {
    pub checkpoint: Checkpoint,
    pub proof: Vec<Hash>,
}

/// Everything that an export says, in its one form.
pub(crate) fn write(
    key: &NoteKey,
    checkpoint: &Checkpoint,
    earlier: Option<&Earlier>,
    entries: &[Entry],
) -> String {
    let mut out = format!("{{\"plimsoll_evidence\":{VERSION},\n\"key\":");
    put_text(&mut out, &key.to_string());
    out.push_str(",\n\"checkpoint\":");
    put_text(&mut out, checkpoint.note());
    out.push_str(",\n\"earlier\":");
    match earlier {
        None => out.push_str("null"),
        Some(Earlier { checkpoint, proof }) => {
            out.push_str("{\"checkpoint\":");
            put_text(&mut out, checkpoint.note());
            out.push_str(",\"proof\":");
            put_proof(&mut out, proof);
            out.push('}');
        }
    }
    out.push_str(",\n\"events\":[");
    for (i, Entry { event, proof }) in entries.iter().enumerate() {
        out.push_str(if i == 0 { "\n{\"proof\":" } else { ",\n{\"proof\":" });
        put_proof(&mut out, proof);
        out.push_str(",\"event\":");
        out.push_str(std::str::from_utf8(event.leaf()).expect("a leaf is JSON, which is UTF-8"));
        out.push('}');
    }
    out.push_str("\n]}\n");
    out
}

fn put_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("a text has a JSON form"));
}

fn put_proof(out: &mut String, proof: &[Hash]) {
    let hashes: Vec<String> = proof.iter().map(Hash::to_string).collect();
    out.push_str(&serde_json::to_string(&hashes).expect("a list of texts has a JSON form"));
}

/// Checks an export against the key that the reader trusts: nothing in it is believed for its own sake.
pub fn verify(export: &[u8], key: &NoteKey) -> Result<Proven, ExportError> {
    let read = read(export)?;
    if read.key != key.to_string() {
        let found = read.key.chars().take(200).collect();
        return Err(ExportError::OtherKey { expected: key.to_string(), found });
    }
    let checkpoint = Checkpoint::open(&read.checkpoint, key).map_err(ExportError::Checkpoint)?;
    let (size, root) = (checkpoint.head().size, checkpoint.head().root);

    let earlier = match read.earlier {
        None => None,
        Some(read) => {
            let checkpoint =
                Checkpoint::open(&read.checkpoint, key).map_err(ExportError::Earlier)?;
            let proof = hashes(&read.proof)?;
            let earlier = checkpoint.head();
            merkle::verify_consistency((earlier.size, &earlier.root), (size, &root), &proof)
                .map_err(|source| ExportError::NotGrown { earlier: earlier.size, size, source })?;
            Some(Earlier { checkpoint, proof })
        }
    };

    let mut entries: Vec<Entry> = Vec::with_capacity(read.events.len());
    for (place, read) in read.events.into_iter().enumerate() {
        let event = Event::from_json(read.event)
            .map_err(|source| ExportError::NotAnEvent { place, source })?;
        let sequence = event.sequence();
        if let Some(before) = entries.last().map(|entry| entry.event.sequence())
            && sequence <= before
        {
            return Err(ExportError::Order { before, sequence });
        }
        if sequence >= size {
            return Err(ExportError::NotCovered { sequence, size });
        }
        let proof = hashes(&read.proof)?;
        merkle::verify_inclusion(sequence, size, event.hash(), &proof, &root)
            .map_err(|source| ExportError::NotInLog { sequence, source })?;
        entries.push(Entry { event, proof });
    }

    let canonical = write(key, &checkpoint, earlier.as_ref(), &entries);
    if canonical.as_bytes() != export {
        let same = canonical.bytes().zip(export).take_while(|(a, b)| a == *b).count();
        return Err(ExportError::NotCanonical { at: same });
    }
    Ok(Proven {
        checkpoint,
        earlier: earlier.map(|earlier| earlier.checkpoint),
        events: entries.into_iter().map(|entry| entry.event).collect(),
    })
}

#[derive(Deserialize)]
struct ReadExport {
    key: String,
    checkpoint: String,
    earlier: Option<ReadEarlier>,
    events: Vec<ReadEntry>,
}

#[derive(Deserialize)]
struct ReadEarlier {
    checkpoint: String,
    proof: Vec<String>,
}

#[derive(Deserialize)]
struct ReadEntry {
    proof: Vec<String>,
    event: Value,
}

/// The version is judged by itself, so that an export of tomorrow is told from a broken one.
#[derive(Deserialize)]
struct ReadVersion {
    plimsoll_evidence: Value,
}

fn read(export: &[u8]) -> Result<ReadExport, ExportError> {
    let len = export.len() as u64;
    if len > EXPORT_BYTES_MAX {
        return Err(ExportError::TooLong { len });
    }
    let not_one = |e: serde_json::Error| ExportError::NotAnExport { what: e.to_string() };
    let version: ReadVersion = serde_json::from_slice(export).map_err(not_one)?;
    if version.plimsoll_evidence.as_u64() != Some(VERSION) {
        let found = version.plimsoll_evidence.to_string().chars().take(80).collect();
        return Err(ExportError::UnknownVersion { found });
    }
    serde_json::from_slice(export).map_err(not_one)
}

fn hashes(proof: &[String]) -> Result<Vec<Hash>, ExportError> {
    let hash = |text: &String| {
        Hash::from_base64(text).ok_or_else(|| ExportError::NotAnExport {
            what: format!("a proof has {:?}, expected 32 bytes in base64", text),
        })
    };
    proof.iter().map(hash).collect()
}
