//! Notes and checkpoints: those of others are read, and one thing wrong is refused for that.

use crate::{ORIGIN, key, signer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::note::{self, NoteError, NoteKey};
use evidence::{Checkpoint, CheckpointError};
use model::envelope::Algorithm;
use sha2::{Digest as _, Sha256};
use trust::cose::{SecretKey, Signer as _};

/// The example of Go's `note` package, which the specification grew out of.
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                       then you don't know what your problem is.\n";
const GO_SIGNATURE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZIn\
                            NIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
/// Another signer of the same text there.
const OTHER_SIGNATURE: &str = "\u{2014} EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n\
                               2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

fn go_key() -> NoteKey {
    GO_KEY.parse().expect("a key that Go wrote")
}

#[test]
fn a_note_that_go_signed_is_believed() {
    assert_eq!(go_key().to_string(), GO_KEY);
    let note = format!("{GO_TEXT}\n{GO_SIGNATURE}");
    assert_eq!(note::open(&note, &go_key()), Ok(GO_TEXT));
    for note in [
        format!("{GO_TEXT}\n{GO_SIGNATURE}{OTHER_SIGNATURE}"),
        format!("{GO_TEXT}\n{OTHER_SIGNATURE}{GO_SIGNATURE}"),
    ] {
        assert_eq!(note::open(&note, &go_key()), Ok(GO_TEXT), "unknown signers are ignored");
    }
}

#[test]
fn a_note_with_one_thing_wrong_is_refused_for_that() {
    let key = GO_KEY.to_owned();
    let bad = NoteError::BadSignature { key: key.clone() };
    let unsigned = NoteError::NotSigned { key };
    let malformed = NoteError::Malformed;
    let good = format!("{GO_TEXT}\n{GO_SIGNATURE}");
    let many = OTHER_SIGNATURE.repeat(note::SIGNATURES_MAX);
    let long = "x".repeat(note::NOTE_BYTES_MAX as usize);
    let cases = [
        (good.replace("problem is", "problem was"), bad.clone()),
        (good.replace("ZJkuBS", "ZJkuBT"), bad.clone()),
        // A second signature of the same key must hold too.
        (format!("{good}{}", GO_SIGNATURE.replace("ZJkuBS", "ZJkuBT")), bad),
        (format!("{GO_TEXT}\n{OTHER_SIGNATURE}"), unsigned.clone()),
        (good.replace("— PeterNeumann", "— PeterNeumanN"), unsigned.clone()),
        // Another key id is another key.
        (good.replace("x08go/", "x08gp/"), unsigned),
        (GO_TEXT.to_owned(), malformed("it has no blank line")),
        (format!("{GO_TEXT}\n"), malformed("its last line is no signature")),
        (good.trim_end().to_owned(), malformed("its last line is no signature")),
        (format!("{GO_TEXT}\nsigned\n"), malformed("a line is no signature")),
        (good.replace("— Peter", "- Peter"), malformed("a line is no signature")),
        (good.replace("— Peter", "— Peter+"), malformed("a line is no signature")),
        (good.replace("nAM=", "nAM"), malformed("a line is no signature")),
        (format!("{GO_TEXT}\n\u{2014} a x08=\n"), malformed("a signature is too short")),
        (format!("{GO_TEXT}\n\u{2014} a x08g\n"), malformed("a signature is too short")),
        (good.replace("answer to", "answer\tto"), malformed("it has a control character")),
        (format!("{GO_TEXT}\n{many}{GO_SIGNATURE}"), malformed("it has too many signatures")),
        (format!("{long}\n\n{GO_SIGNATURE}"), malformed("it is too long")),
    ];
    for (note, expected) in cases {
        assert_ne!(note, good);
        assert_eq!(note::open(&note, &go_key()), Err(expected), "{note}");
    }
}

#[test]
fn a_key_that_was_changed_is_no_key() {
    for text in [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        &GO_KEY.replace("c74f20a3", "c74f20a4"),
        &GO_KEY.replace("c74f20a3", "C74F20A3"),
        &GO_KEY.replace("Peter", "Pieter"),
        &GO_KEY.replace("PeterNeumann", "Peter Neumann"),
        &GO_KEY.replace("+ARpc", "+ARpd"),
        // Another type of signature.
        &GO_KEY.replace("+ARpc", "+AhpC"),
        &GO_KEY[..GO_KEY.len() - 4],
        &weak_key(),
    ] {
        assert!(text.parse::<NoteKey>().is_err(), "{text}");
    }
    let p256 = SecretKey::from_random(Algorithm::Esp256, &[1; 32]).unwrap();
    assert!(NoteKey::new("log", p256.public()).is_err(), "P-256 signs no notes");
    for name in ["", "two words", "a+b", "line\nbreak", "nb\u{a0}space"] {
        let expected = NoteError::BadName { found: name.to_owned() };
        assert_eq!(NoteKey::new(name, signer(3).public()), Err(expected));
    }
}

/// A point of small order, in the form that a key would have.
fn weak_key() -> String {
    let key = [&[1, 1], &[0; 31][..]].concat();
    let id = Sha256::digest([&b"weak\n"[..], &key].concat());
    format!("weak+{}+{}", hex::encode(&id[..4]), STANDARD.encode(key))
}

#[test]
fn a_checkpoint_with_one_thing_wrong_is_refused_for_that() {
    let root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let signed = |text: &str| note::sign(text, &key(), &*signer(3)).unwrap();
    let open = |text: &str| Checkpoint::open(&signed(text), &key());
    let good = format!("{ORIGIN}\n7\n{root}\n");
    assert_eq!(open(&good).map(|checkpoint| checkpoint.size()), Ok(7));
    let extended = open(&format!("{good}somebody's own line\n"));
    assert_eq!(extended.map(|checkpoint| checkpoint.size()), Ok(7), "extensions are ignored");

    let malformed = |what| CheckpointError::Malformed(what);
    let other = CheckpointError::OtherLog {
        expected: ORIGIN.to_owned(),
        found: "other.example/evidence".to_owned(),
    };
    let cases = [
        (good.replace("press", "other"), other),
        (good.replace("\n7\n", "\n07\n"), malformed("the size is no number")),
        (good.replace("\n7\n", "\n+7\n"), malformed("the size is no number")),
        (good.replace("\n7\n", "\n-7\n"), malformed("the size is no number")),
        (good.replace("\n7\n", "\n18446744073709551616\n"), malformed("the size is no number")),
        (good.replace("FU=", "FU"), malformed("the root is no hash")),
        (good.replace("47DE", ""), malformed("the root is no hash")),
        (format!("{ORIGIN}\n7\n"), malformed("fewer than three lines")),
        (format!("{good}\nmore\n"), malformed("an empty line")),
    ];
    for (text, expected) in cases {
        assert_eq!(open(&text), Err(expected), "{text}");
    }
    // Signed by another key under the same name.
    let other_key = NoteKey::new(ORIGIN, signer(4).public()).unwrap();
    let forged = note::sign(&good, &other_key, &*signer(4)).unwrap();
    let expected = NoteError::NotSigned { key: key().to_string() };
    assert_eq!(Checkpoint::open(&forged, &key()), Err(expected.into()));
}
