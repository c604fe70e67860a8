//! INV-PURP-1, attacked: each test starts from a message that verifies and changes one thing.

use super::*;
use crate::tree::Item;
use alloc::vec;
use model::envelope::{Counter, Heard, Kind, MESSAGE_BYTES_MAX, Prior, WallClock};
use model::{Nonce, Timestamp};
use proptest::prelude::*;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Ed25519, Algorithm::Esp256];

/// Half the order of P-256, rounded down: the highest `s` that we accept.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

fn key(algorithm: Algorithm, seed: u8) -> SecretKey {
    SecretKey::from_random(algorithm, &[seed; 32]).expect("no scalar out of range has equal bytes")
}

fn header(kind: Kind, key: &SecretKey) -> Header {
    Header {
        algorithm: key.public().algorithm(),
        kind,
        key: key.public().id(),
        counter: Counter { epoch: 3, sequence: 1000 },
        uptime_ms: 86_400_000,
        wall: Some(WallClock { time: Timestamp(1_750_000_000_000_000), uncertainty_ms: 50 }),
        heard: Some(Heard { nonce: Nonce([5; 16]), lease: 9 }),
        prior: Some(Prior { key: key.public().id(), counter: Counter { epoch: 2, sequence: 41 } }),
    }
}

fn sealed(kind: Kind, key: &SecretKey) -> Vec<u8> {
    seal(&header(kind, key), b"a payload", key).unwrap()
}

fn is_believed(message: &[u8], key: &PublicKey) -> bool {
    open(message, MESSAGE_BYTES_MAX).is_ok_and(|opened| opened.verify(key).is_ok())
}

#[test]
fn what_was_sealed_opens_verifies_and_says_what_was_said() {
    for algorithm in ALGORITHMS {
        let key = key(algorithm, 1);
        for kind in Kind::ALL {
            let message = sealed(kind, &key);
            let opened = open(&message, message.len()).unwrap();
            assert_eq!(opened.header(), &header(kind, &key));
            assert_eq!(opened.payload_without_signature_check(), b"a payload");
            let verified = opened.verify(key.public()).unwrap();
            assert_eq!(verified.header(), &header(kind, &key));
            assert_eq!(verified.payload(), b"a payload");
        }
    }
}

#[test]
fn a_message_with_any_bit_changed_is_not_believed() {
    for algorithm in ALGORITHMS {
        let key = key(algorithm, 1);
        let message = sealed(Kind::Readings, &key);
        let mut opened = 0;
        for bit in 0..message.len() * 8 {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_believed(&changed, key.public()), "{algorithm:?}: bit {bit}");
            opened += usize::from(open(&changed, MESSAGE_BYTES_MAX).is_ok());
        }
        assert!(opened > 1000, "most changes reach the signature: {opened}");
    }
}

#[test]
fn no_kind_can_be_shown_as_another() {
    // INV-PURP-1, first way: the content type is exchanged under the signature.
    for algorithm in ALGORITHMS {
        let key = key(algorithm, 1);
        for kind in Kind::ALL {
            for shown in Kind::ALL.into_iter().filter(|shown| *shown != kind) {
                let mut tree = Item::read(&sealed(kind, &key));
                *tree.at(&[0]) = header(shown, &key).encode()[..].into();
                let message = tree.bytes();
                let opened = open(&message, MESSAGE_BYTES_MAX).unwrap();
                assert_eq!(opened.header().kind, shown);
                assert_eq!(opened.verify(key.public()).unwrap_err(), BadSignature);
            }
        }
    }
}

#[test]
fn a_signature_under_another_purpose_is_no_signature() {
    // INV-PURP-1, second way: the holder of the key signed these very bytes, but with another `external_aad`.
    for algorithm in ALGORITHMS {
        let key = key(algorithm, 1);
        for shown in Kind::ALL {
            let header = header(shown, &key);
            let protected = header.encode();
            let with_aad = |aad: &[u8]| {
                let structure = [
                    "Signature1".into(),
                    protected[..].into(),
                    aad.into(),
                    b"a payload"[..].into(),
                ];
                let signature = key.sign(&Item::from(structure).bytes()).unwrap();
                let mut tree = Item::read(&sealed(shown, &key));
                *tree.at(&[3]) = signature[..].into();
                tree.bytes()
            };
            assert!(is_believed(&with_aad(shown.external_aad()), key.public()));
            for kind in Kind::ALL.into_iter().filter(|kind| *kind != shown) {
                assert!(!is_believed(&with_aad(kind.external_aad()), key.public()));
            }
            assert!(!is_believed(&with_aad(b""), key.public()), "as a plain COSE_Sign1");
        }
    }
}

#[test]
fn a_message_counts_for_the_key_that_it_names_and_no_other() {
    for algorithm in ALGORITHMS {
        let (own, other) = (key(algorithm, 1), key(algorithm, 2));
        assert!(is_believed(&sealed(Kind::Readings, &own), own.public()));
        assert!(!is_believed(&sealed(Kind::Readings, &own), other.public()));

        let mut names_other = header(Kind::Readings, &own);
        names_other.key = other.public().id();
        let message = seal(&names_other, b"a payload", &own).unwrap();
        assert!(!is_believed(&message, own.public()), "signed by the one, names the other");
        assert!(!is_believed(&message, other.public()));
    }
}

#[test]
fn a_message_that_names_the_other_algorithm_is_not_believed() {
    for (own, named) in [ALGORITHMS, [Algorithm::Esp256, Algorithm::Ed25519]].map(|[a, b]| (a, b)) {
        let key = key(own, 1);
        let mut header = header(Kind::Readings, &key);
        header.algorithm = named;
        let protected = header.encode();
        let signature = key.sign(&sig_structure(&header, &protected, b"a payload")).unwrap();
        let mut tree = Item::read(&sealed(Kind::Readings, &key));
        *tree.at(&[0]) = protected[..].into();
        *tree.at(&[3]) = signature[..].into();
        assert!(!is_believed(&tree.bytes(), key.public()));
    }
}

#[test]
fn a_second_form_of_an_ecdsa_signature_is_refused() {
    let key = key(Algorithm::Esp256, 1);
    let PublicKey::Esp256(public) = key.public() else { unreachable!("it was made so") };
    for message in 0..32_u8 {
        let signature = key.sign(&[message]).unwrap();
        assert!(signature[32..] <= HALF_ORDER[..], "we seal with the low s");
        assert!(key.public().verifies(&[message], &signature));

        let low = p256::ecdsa::Signature::from_slice(&signature).unwrap();
        let high = p256::ecdsa::Signature::from_scalars(low.r(), -*low.s()).unwrap();
        assert!(public.verify(&[message], &high).is_ok(), "ECDSA itself accepts it");
        assert!(!key.public().verifies(&[message], &high.to_bytes()));
    }
}

#[test]
fn a_second_form_of_an_ed25519_signature_is_refused() {
    // S + L satisfies the same equation; RFC 8032 §5.1.7 asks for S below L.
    let key = key(Algorithm::Ed25519, 1);
    let mut signature = key.sign(b"message").unwrap();
    assert!(key.public().verifies(b"message", &signature));
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, l) in signature[32..].iter_mut().zip(L) {
        carry += u16::from(*byte) + u16::from(l);
        *byte = carry as u8;
        carry >>= 8;
    }
    assert_eq!(carry, 0);
    assert!(!key.public().verifies(b"message", &signature));
}

/// The points of order 1, 2, 4 and 8 of Curve25519, and encodings of some of them that are not canonical.
const SMALL_ORDER: [&str; 11] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

/// The head of the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 §4).
const ED25519_SPKI: &str = "302a300506032b6570032100";

#[test]
fn a_key_of_small_order_is_no_key() {
    let spki = |point: &str| hex::decode([ED25519_SPKI, point].concat()).unwrap();
    let honest = key(Algorithm::Ed25519, 1);
    let own = honest.public().to_spki_der();
    assert_eq!(PublicKey::from_spki_der(&own).as_ref(), Ok(honest.public()));
    assert_eq!(own, spki(&hex::encode(&own[12..])), "one head for all");
    for point in SMALL_ORDER {
        assert_eq!(PublicKey::from_spki_der(&spki(point)), Err(NotAKey), "{point}");
    }
}

#[test]
fn a_key_of_small_order_would_verify_nothing() {
    // With A and R of small order and S = 0, the equation holds for one message in eight, which nobody signed.
    let mut accepted_without_strictness = 0;
    for point in SMALL_ORDER {
        let bytes: [u8; 32] = hex::decode(point).unwrap().try_into().unwrap();
        let Ok(weak) = ed25519_dalek::VerifyingKey::from_bytes(&bytes) else { continue };
        for first in SMALL_ORDER {
            let signature = [hex::decode(first).unwrap(), vec![0; 32]].concat();
            for message in 0..16_u8 {
                assert!(!PublicKey::Ed25519(weak).verifies(&[message], &signature));
                let signature = ed25519_dalek::Signature::from_slice(&signature).unwrap();
                accepted_without_strictness +=
                    usize::from(weak.verify(&[message], &signature).is_ok());
            }
        }
    }
    assert!(accepted_without_strictness > 100, "{accepted_without_strictness}");
}

#[test]
fn a_signature_of_another_length_is_refused_and_not_read_in_part() {
    for algorithm in ALGORITHMS {
        let key = key(algorithm, 1);
        let signature = key.sign(b"message").unwrap();
        for len in 0..64 {
            assert!(!key.public().verifies(b"message", &signature[..len]));
        }
        assert!(!key.public().verifies(b"message", &[&signature[..], &[0]].concat()));
    }
}

#[test]
fn a_message_in_another_form_is_refused_with_its_reason() {
    use Reason::*;
    type Change = fn(&mut Item);
    let table: &[(&str, Reason, Change)] = &[
        ("three parts", BrokenCbor, |m| drop(m.items().pop())),
        ("five parts", BrokenCbor, |m| m.items().push(Item::Null)),
        ("an unprotected header", NotDeterministic, |m| {
            *m.at(&[1]) = Item::Map(vec![(4.into(), b"kid"[..].into())]);
        }),
        ("an unprotected header that is no map", BrokenCbor, |m| *m.at(&[1]) = Item::Null),
        ("an unprotected header of no stated length", NotDeterministic, |m| {
            *m.at(&[1]) = Item::Raw(vec![0xbf, 0xff]);
        }),
        ("an empty map in a longer form", NotDeterministic, |m| {
            *m.at(&[1]) = Item::Raw(vec![0xb8, 0x00]);
        }),
        ("no protected header", BrokenCbor, |m| *m.at(&[0]) = b""[..].into()),
        ("a protected header that is not in bytes", BrokenCbor, |m| {
            let Item::Bytes(protected) = m.at(&[0]).clone() else { panic!("it is bytes") };
            *m.at(&[0]) = Item::Raw(protected);
        }),
        ("a detached payload", BrokenCbor, |m| *m.at(&[2]) = Item::Null),
        ("a payload of text", BrokenCbor, |m| *m.at(&[2]) = "a payload".into()),
        ("a payload in chunks", BrokenCbor, |m| {
            *m.at(&[2]) = Item::Raw(b"\x5f\x49a payload\xff".to_vec());
        }),
        ("a payload with a longer head", NotDeterministic, |m| {
            *m.at(&[2]) = Item::Raw(b"\x58\x09a payload".to_vec());
        }),
        ("a signature of 63 bytes", OutOfDomain, |m| *m.at(&[3]) = [0; 63][..].into()),
        ("a signature of 65 bytes", OutOfDomain, |m| *m.at(&[3]) = [0; 65][..].into()),
        ("no signature", OutOfDomain, |m| *m.at(&[3]) = b""[..].into()),
        ("a signature that is no bytes", BrokenCbor, |m| *m.at(&[3]) = 0.into()),
    ];
    let key = key(Algorithm::Ed25519, 1);
    let accepted = sealed(Kind::Readings, &key);
    let refusal =
        |bytes: &[u8]| open(bytes, MESSAGE_BYTES_MAX).map(drop).map_err(|error| error.reason);
    assert!(refusal(&accepted).is_ok());
    for (what, reason, change) in table {
        let mut tree = Item::read(&accepted);
        change(&mut tree);
        assert_eq!(refusal(&tree.bytes()), Err(*reason), "{what}");
    }

    for part in [0, 3] {
        let mut tree = Item::read(&accepted);
        let Item::Bytes(bytes) = tree.at(&[part]).clone() else { panic!("the part is bytes") };
        let longer_head = [&[0x59, 0x00, bytes.len() as u8][..], &bytes].concat();
        *tree.at(&[part]) = Item::Raw(longer_head);
        assert_eq!(refusal(&tree.bytes()), Err(NotDeterministic), "part {part}");
    }

    let around = |before: &[u8], after: &[u8]| [before, &accepted[1..], after].concat();
    assert!(refusal(&around(&[0x84], &[])).is_ok());
    assert_eq!(refusal(&around(&[0xd2, 0x84], &[])), Err(BrokenCbor), "tag 18");
    assert_eq!(refusal(&around(&[0x98, 0x04], &[])), Err(NotDeterministic));
    assert_eq!(refusal(&around(&[0x9f], &[0xff])), Err(BrokenCbor), "no stated length");
    assert_eq!(refusal(&around(&[0x84], &[0])), Err(TrailingBytes));
    assert_eq!(refusal(&[]), Err(BrokenCbor));
    for len in 1..accepted.len() {
        assert_eq!(refusal(&accepted[..len]), Err(BrokenCbor), "cut at {len}");
    }
    let short = open(&accepted, accepted.len() - 1).map_err(|error| error.reason);
    assert_eq!(short.map(drop), Err(Oversize), "one byte above the bound of its kind");
}

#[test]
fn an_honest_message_of_any_length_opens() {
    // The lengths at which the head of a byte string grows.
    let key = key(Algorithm::Ed25519, 1);
    for len in [0, 1, 23, 24, 255, 256, 32 * 1024, 65_535, 65_536, 100_000] {
        let payload = vec![0x5a; len];
        let message = seal(&header(Kind::Readings, &key), &payload, &key).unwrap();
        let verified = open(&message, message.len()).unwrap().verify(key.public()).unwrap();
        assert_eq!(verified.payload().len(), len);
        assert_eq!(open(&message, MESSAGE_BYTES_MAX).is_ok(), len <= 32 * 1024, "{len}");
    }
}

#[test]
fn a_key_goes_through_der_and_comes_back_the_same() {
    for algorithm in ALGORITHMS {
        let key = key(algorithm, 3);
        let spki = key.public().to_spki_der();
        assert_eq!(PublicKey::from_spki_der(&spki).as_ref(), Ok(key.public()));
        let again = SecretKey::from_pkcs8_der(&key.to_pkcs8_der()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(again.sign(b"message").unwrap(), key.sign(b"message").unwrap());
        assert!(!alloc::format!("{key:?}").contains("0303"), "a secret is never printed");

        let trailing = [&spki[..], &[0]].concat();
        assert_eq!(PublicKey::from_spki_der(&trailing), Err(NotAKey));
        for len in 0..spki.len() {
            assert_eq!(PublicKey::from_spki_der(&spki[..len]), Err(NotAKey));
        }
        assert!(SecretKey::from_pkcs8_der(&spki).is_err(), "a public key is no secret key");
    }
}

#[test]
fn a_key_of_another_algorithm_is_no_key() {
    // X25519 (RFC 8410 §4), and the head of an RSA key.
    let x25519 = hex::decode(["302a300506032b656e032100", &"09".repeat(32)].concat()).unwrap();
    assert_eq!(PublicKey::from_spki_der(&x25519), Err(NotAKey));
    let rsa = hex::decode("301b300d06092a864886f70d0101010500030a003007020200c5020103").unwrap();
    assert_eq!(PublicKey::from_spki_der(&rsa), Err(NotAKey));
}

#[test]
fn random_bytes_that_are_no_scalar_make_no_key() {
    assert!(SecretKey::from_random(Algorithm::Esp256, &[0; 32]).is_none());
    assert!(SecretKey::from_random(Algorithm::Esp256, &[0xff; 32]).is_none());
    assert!(SecretKey::from_random(Algorithm::Ed25519, &[0xff; 32]).is_some(), "every seed is one");
}

#[test]
fn a_key_id_is_the_thumbprint_of_rfc_9679() {
    // The example of RFC 9679 §6.
    let point = [
        "0465eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d",
        "1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c",
    ];
    let point = hex::decode(point.concat()).unwrap();
    let key = PublicKey::Esp256(p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap());
    assert_eq!(
        alloc::format!("{}", key.id()),
        "496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_header_and_payload_come_back_as_they_were_sealed(
        kind in prop::sample::select(&Kind::ALL[..]),
        algorithm in prop::sample::select(&ALGORITHMS[..]),
        (epoch, sequence, uptime_ms) in any::<(u32, u64, u64)>(),
        wall in any::<Option<(i64, u32)>>(),
        heard in any::<Option<([u8; 16], u64)>>(),
        prior in any::<Option<([u8; 32], u32, u64)>>(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let key = key(algorithm, 1);
        let counter = Counter { epoch, sequence };
        let header = Header {
            algorithm,
            kind,
            key: key.public().id(),
            counter,
            uptime_ms,
            wall: wall.map(|(us, uncertainty_ms)| WallClock { time: Timestamp(us), uncertainty_ms }),
            heard: heard.map(|(nonce, lease)| Heard { nonce: Nonce(nonce), lease }),
            prior: prior.map(|(key, epoch, sequence)| Prior {
                key: KeyId(key),
                counter: Counter { epoch, sequence },
            }),
        };
        let message = seal(&header, &payload, &key).unwrap();
        let verified = open(&message, message.len()).unwrap().verify(key.public()).unwrap();
        prop_assert_eq!(verified.header(), &header);
        prop_assert_eq!(verified.payload(), &payload[..]);
    }

    #[test]
    fn whatever_opens_has_one_form(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let message = sealed(Kind::Readings, &key(Algorithm::Ed25519, 1));
        // Random bytes rarely open: most of the message stays.
        let cut = bytes.len().min(message.len());
        for (at, byte) in bytes.iter().enumerate().take(3) {
            let mut changed = message.clone();
            changed[at * cut / 3] = *byte;
            if let Ok(opened) = open(&changed, MESSAGE_BYTES_MAX) {
                prop_assert_eq!(opened.encoded_len(), changed.len());
                prop_assert_eq!(opened.header.encode(), opened.protected);
            }
        }
    }
}
