//! The COSE working group's COSE_Sign1 examples, where the folder is there: `PLIMSOLL_TEST_DATA`, or a `shared/data`
//! beside the repository.
//!
//! They are generic messages: tagged, with a `kid` outside the signature and without our counter, so none is an
//! envelope, and each must be refused as such. What they share with an envelope is what is signed and how: that is
//! checked on each of them, the failing ones included.

use minicbor::{Decoder, Encoder};
use model::cbor::Reason;
use model::envelope::{Algorithm, MESSAGE_BYTES_MAX};
use serde_json::Value;
use std::path::{Path, PathBuf};
use trust::cose::{self, PublicKey, SecretKey, Signer};

#[test]
fn the_working_groups_examples_are_judged_as_published() {
    let Some(folder) = cose_data("the_working_groups_examples_are_judged_as_published") else {
        return;
    };
    let mut judged = Vec::new();
    for part in ["eddsa-examples", "ecdsa-examples", "sign1-tests"] {
        for path in files(&folder.join(part)) {
            let text = std::fs::read_to_string(&path).unwrap();
            let example: Value = serde_json::from_str(&text).unwrap();
            if let Some(believed) = judge(&example) {
                judged.push((path.file_stem().unwrap().to_string_lossy().into_owned(), believed));
            }
        }
    }
    println!("COSE_Sign1 examples of Ed25519 and P-256 with SHA-256: {judged:?}");
    let believed = |name: &str| judged.iter().find(|(known, _)| known == name).map(|(_, b)| *b);
    for pass in ["eddsa-sig-01", "ecdsa-sig-01", "sign-pass-01", "sign-pass-02", "sign-pass-03"] {
        assert_eq!(believed(pass), Some(true), "{pass}");
    }
    for fail in ["sign-fail-02", "sign-fail-03", "sign-fail-04", "sign-fail-06", "sign-fail-07"] {
        assert_eq!(believed(fail), Some(false), "{fail}");
    }
    // Nothing that is signed was changed in this one: its tag is that of no COSE message. We read no tag at all.
    assert_eq!(believed("sign-fail-01"), Some(true));
}

#[test]
fn we_sign_the_working_groups_ed25519_example_as_they_did() {
    let Some(folder) = cose_data("we_sign_the_working_groups_ed25519_example_as_they_did") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("eddsa-examples/eddsa-sig-01.json")).unwrap();
    let example: Value = serde_json::from_str(&text).unwrap();
    let seed = hex(&example["input"]["sign0"]["key"]["d_hex"]).try_into().unwrap();
    let key = SecretKey::from_random(Algorithm::Ed25519, &seed).unwrap();
    let signature = key.sign(&hex(&example["intermediates"]["ToBeSign_hex"])).unwrap();
    let message = hex(&example["output"]["cbor"]);
    assert_eq!(Parts::read(&message).signature, signature);
}

/// Whether the message's signature verifies over what the message itself says. `None`: not one of our two algorithms.
fn judge(example: &Value) -> Option<bool> {
    let sign = &example["input"]["sign0"];
    let key = public(&sign["key"])?;
    let message = hex(&example["output"]["cbor"]);

    let refused = |bytes: &[u8]| cose::open(bytes, MESSAGE_BYTES_MAX).unwrap_err().reason;
    let untagged = &message[message.iter().position(|byte| *byte == 0x84).unwrap()..];
    if untagged.len() < message.len() {
        assert_eq!(refused(&message), Reason::BrokenCbor, "a tag");
    }
    assert_eq!(refused(untagged), Reason::NotDeterministic, "an unprotected header");

    let parts = Parts::read(&message);
    let external = sign["external"].as_str().map(|text| hex::decode(text).unwrap());
    let signed = parts.signed(&external.unwrap_or_default());
    if example["fail"] != true {
        assert_eq!(signed, hex(&example["intermediates"]["ToBeSign_hex"]));
    }
    if sign["alg"] == "ES512" {
        return None;
    }
    let mut signature = parts.signature;
    if let Some(low) = low_form(&key, &signature) {
        assert!(!key.verifies(&signed, &signature), "we refuse the form with the high s");
        signature = low;
    }
    Some(key.verifies(&signed, &signature))
}

/// The other form of an ECDSA signature with a high `s`.
fn low_form(key: &PublicKey, signature: &[u8]) -> Option<Vec<u8>> {
    let PublicKey::Esp256(_) = key else { return None };
    let signature = p256::ecdsa::Signature::from_slice(signature).ok()?;
    let low = signature.normalize_s();
    (low != signature).then(|| low.to_bytes().to_vec())
}

struct Parts {
    protected: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Parts {
    fn read(message: &[u8]) -> Parts {
        let mut d = Decoder::new(message);
        if message[0] != 0x84 {
            d.tag().unwrap();
        }
        assert_eq!(d.array().unwrap(), Some(4));
        let protected = d.bytes().unwrap().to_vec();
        d.skip().unwrap();
        Parts {
            protected,
            payload: d.bytes().unwrap().to_vec(),
            signature: d.bytes().unwrap().to_vec(),
        }
    }

    /// RFC 9052 §4.4. An empty map in the protected header is signed as no bytes at all.
    fn signed(&self, external_aad: &[u8]) -> Vec<u8> {
        let protected = if self.protected == [0xa0] { &[] } else { &self.protected[..] };
        let mut e = Encoder::new(Vec::new());
        e.array(4).unwrap().str("Signature1").unwrap().bytes(protected).unwrap();
        e.bytes(external_aad).unwrap().bytes(&self.payload).unwrap();
        e.into_writer()
    }
}

fn public(key: &Value) -> Option<PublicKey> {
    match key["crv"].as_str()? {
        "Ed25519" => {
            let point = hex(&key["x_hex"]).try_into().unwrap();
            Some(PublicKey::Ed25519(ed25519_dalek::VerifyingKey::from_bytes(&point).unwrap()))
        }
        "P-256" => {
            let point = [vec![4], base64url(&key["x"]), base64url(&key["y"])].concat();
            Some(PublicKey::Esp256(p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap()))
        }
        _ => None,
    }
}

fn hex(text: &Value) -> Vec<u8> {
    hex::decode(text.as_str().unwrap()).unwrap()
}

/// Without padding, as JSON keys have it. Eight lines are less than a dependency.
fn base64url(text: &Value) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for byte in text.as_str().unwrap().bytes() {
        let value = ALPHABET.iter().position(|known| *known == byte).unwrap();
        (bits, held) = (bits << 6 | value as u32, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The folder of the examples, or a line that says which test is skipped and why.
fn cose_data(test: &str) -> Option<PathBuf> {
    let given = std::env::var_os("PLIMSOLL_TEST_DATA").map(PathBuf::from);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = manifest.ancestors().map(|folder| folder.join("shared/data"));
    let found = given.into_iter().chain(beside).map(|data| data.join("cose")).find(|f| f.is_dir());
    if found.is_none() {
        println!("SKIPPED: {test}: no folder cose in PLIMSOLL_TEST_DATA or a shared/data above us");
    }
    found
}
