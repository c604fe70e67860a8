use super::*;
use api::{Bundle, BundleDevice, BundleKey, Standing as DeviceStanding};
use model::envelope::{Algorithm, WallClock};
use model::{Digest as D, GatewayId, Header, Heard, Timestamp};
use trust::cose::{SecretKey, Signer as _};

const NONCE: Nonce = Nonce([7; 16]);

fn secret(n: u8, algorithm: Algorithm) -> SecretKey {
    SecretKey::from_random(algorithm, &[n; 32]).unwrap()
}

fn view() -> View {
    let key = |n: u8, algorithm| {
        let public = secret(n, algorithm).public().clone();
        let spki = public.to_spki_der().iter().map(|b| format!("{b:02x}")).collect();
        BundleKey { id: public.id().to_string(), spki }
    };
    let device = |id: &str, keys: Vec<BundleKey>| BundleDevice {
        id: id.into(),
        zone: "hall".into(),
        standing: DeviceStanding::Enrolled,
        tls_keys: vec![],
        tls_keys_until_ms: Default::default(),
        seal_keys: keys,
    };
    let bundle = Bundle {
        format: 1,
        site: "site".into(),
        generation: 1,
        gateway: "gw".into(),
        zone: "hall".into(),
        devices: vec![
            device("pump-1", vec![key(1, Algorithm::Ed25519), key(2, Algorithm::Esp256)]),
            device("pump-2", vec![key(3, Algorithm::Ed25519)]),
        ],
        policies: policy::DEFAULT_POLICIES.into(),
    };
    View::of(&bundle, &GatewayId::new("gw").unwrap()).unwrap()
}

/// A message that is admitted; each refusal changes one thing in it.
#[derive(Clone)]
struct M {
    device: &'static str,
    signer: u8,
    algorithm: Algorithm,
    header: Header,
    payload: Vec<u8>,
    mangle: fn(&mut Vec<u8>),
}

fn good() -> M {
    let algorithm = Algorithm::Ed25519;
    M {
        device: "pump-1",
        signer: 1,
        algorithm,
        header: Header {
            algorithm,
            kind: Kind::Readings,
            key: secret(1, algorithm).public().id(),
            counter: Counter { epoch: 1, sequence: 5 },
            uptime_ms: 1,
            // INV-AUTH-1, INV-REPLAY-1: a device whose clock stands at 1970 is heard like any other.
            wall: Some(WallClock { time: Timestamp(0), uncertainty_ms: u32::MAX }),
            heard: Some(Heard { nonce: NONCE, lease: 0 }),
            prior: None,
        },
        payload: vec![0x80],
        mangle: |_| {},
    }
}

impl M {
    fn bytes(&self) -> Vec<u8> {
        let signer = secret(self.signer, self.algorithm);
        let mut bytes = cose::seal(&self.header, &self.payload, &signer).unwrap();
        (self.mangle)(&mut bytes);
        bytes
    }

    fn judged(&self) -> Result<Claim, Refusal> {
        judge(&view(), &DeviceId::new(self.device).unwrap(), &NONCE, &self.bytes())
    }
}

/// INV-PURP-1, INV-AUTH-1, INV-MIX-1: from a message that is believed, each single change is refused for its own
/// reason.
#[test]
fn a_message_with_one_thing_wrong_is_refused_for_that() {
    use Refusal::*;
    type Change = fn(&mut M);
    let table: &[(&str, Refusal, Change)] = &[
        ("another device's session", UnknownKey, |m| m.device = "pump-2"),
        ("a device that is not in the bundle", UnknownKey, |m| m.device = "pump-3"),
        ("a key that nobody knows", UnknownKey, |m| {
            m.signer = 9;
            m.header.key = secret(9, Algorithm::Ed25519).public().id();
        }),
        ("signed by another key", BadSignature, |m| m.signer = 3),
        ("a signature with one bit changed", BadSignature, |m| {
            m.mangle = |b| *b.last_mut().unwrap() ^= 1;
        }),
        ("a payload with one bit changed", BadSignature, |m| {
            m.mangle = |b| {
                let at = b.len() - 67;
                b[at] ^= 1;
            };
        }),
        ("a gateway's kind", MessageUnknownKind, |m| m.header.kind = Kind::UplinkBatch),
        ("a manifest", MessageUnknownKind, |m| {
            (m.header.kind, m.header.heard) = (Kind::Manifest, None);
        }),
        ("another algorithm of COSE", MessageUnknownKind, |m| {
            m.mangle = |b| {
                // 1: -19 (0x32) in the protected header becomes 1: -8 (0x27).
                let at = b.iter().position(|x| *x == 0x32).unwrap();
                b[at] = 0x27;
            };
        }),
        ("not CBOR", MessageBrokenCbor, |m| m.mangle = |b| b[0] = 0xff),
        ("cut off", MessageBrokenCbor, |m| m.mangle = |b| b.truncate(b.len() / 2)),
        ("nothing", MessageBrokenCbor, |m| m.mangle = |b| b.clear()),
        ("a byte behind it", MessageTrailingBytes, |m| m.mangle = |b| b.push(0)),
        ("an unprotected header", MessageNotDeterministic, |m| {
            m.mangle = |b| {
                let at = b.iter().rposition(|x| *x == 0xa0).unwrap();
                b.splice(at..=at, [0xa1, 0x00, 0x00]);
            };
        }),
        ("a short signature", MessageOutOfDomain, |m| {
            m.mangle = |b| {
                let at = b.len() - 66;
                b[at + 1] = 63;
                b.pop();
            };
        }),
        ("too long", MessageOversize, |m| m.payload = vec![0; MESSAGE_BYTES_MAX]),
    ];
    assert!(good().judged().unwrap().fresh);
    for (what, refusal, change) in table {
        let mut message = good();
        change(&mut message);
        assert_eq!(message.judged(), Err(*refusal), "{what}");
    }
}

#[test]
fn both_algorithms_and_both_kinds_of_a_device_are_believed() {
    let mut loss = good();
    loss.header.kind = Kind::LossNotice;
    assert!(loss.judged().is_ok());
    let mut p256 = good();
    (p256.signer, p256.algorithm, p256.header.algorithm) =
        (2, Algorithm::Esp256, Algorithm::Esp256);
    p256.header.key = secret(2, Algorithm::Esp256).public().id();
    assert!(p256.judged().is_ok());
}

/// Only the nonce of this very session makes a message fresh; no clock does.
#[test]
fn fresh_is_what_has_heard_this_sessions_nonce() {
    type Change = fn(&mut Header);
    let table: &[(&str, Change)] = &[
        ("nothing heard", |h| h.heard = None),
        ("another session's nonce", |h| h.heard = Some(Heard { nonce: Nonce([8; 16]), lease: 0 })),
    ];
    for (what, change) in table {
        let mut message = good();
        change(&mut message.header);
        assert!(!message.judged().unwrap().fresh, "{what}");
    }
    let mut tomorrow = good();
    let wall = WallClock { time: Timestamp(4_102_444_800_000_000), uncertainty_ms: 0 };
    tomorrow.header.wall = Some(wall);
    assert!(tomorrow.judged().unwrap().fresh);
    tomorrow.header.wall = None;
    assert!(tomorrow.judged().unwrap().fresh);
}

fn claim(sequence: u64, digest: u8) -> Claim {
    Claim {
        key: KeyId([1; 32]),
        counter: Counter { epoch: 1, sequence },
        digest: D([digest; 32]),
        fresh: true,
    }
}

/// INV-REPLAY-1, INV-ACK-1: free → pending → durable, and what each says of the same and of other bytes.
#[test]
fn a_counter_goes_from_free_over_pending_to_durable() {
    let mut admission: Admission<&str> = Admission::new(4);
    assert_eq!(admission.look(&claim(5, 1)), Standing::Free { late: false });
    admission.begin(&claim(5, 1), "first");
    assert_eq!(admission.look(&claim(5, 1)), Standing::Pending);
    assert_eq!(admission.look(&claim(5, 2)), Standing::Forged);
    admission.join(&claim(5, 1), "again");
    assert_eq!(admission.durable(&claim(5, 1)), ["first", "again"]);
    assert_eq!(admission.look(&claim(5, 1)), Standing::Durable);
    assert_eq!(admission.look(&claim(5, 2)), Standing::Forged);
    assert_eq!(admission.look(&claim(6, 1)), Standing::Free { late: false });
    assert_eq!(admission.look(&claim(4, 1)), Standing::Free { late: true });
    let another = Claim { key: KeyId([2; 32]), ..claim(5, 2) };
    assert_eq!(admission.look(&another), Standing::Free { late: false });
    assert_eq!(admission.durable(&claim(5, 1)), Vec::<&str>::new());
}

/// A disk that was full leaves no trace: the device may send the same message again.
#[test]
fn a_record_that_was_not_written_leaves_its_counter_free() {
    let mut admission: Admission<u8> = Admission::new(4);
    admission.begin(&claim(1, 1), 0);
    assert_eq!(admission.dropped(&claim(1, 1)), [0]);
    assert_eq!(admission.look(&claim(1, 1)), Standing::Free { late: false });
    assert_eq!(admission.look(&claim(1, 2)), Standing::Free { late: false });
    assert!(admission.windows().is_empty() && admission.pending() == 0);
}

/// What the window has lost is late, is admitted again, and left to *taken*.
#[test]
fn what_is_no_longer_remembered_is_late() {
    let mut admission: Admission<()> = Admission::new(4);
    for sequence in 0..10 {
        admission.begin(&claim(sequence, 1), ());
        admission.durable(&claim(sequence, 1));
    }
    assert_eq!(admission.look(&claim(3, 1)), Standing::Free { late: true });
    assert_eq!(admission.look(&claim(6, 1)), Standing::Durable);
    admission.begin(&claim(3, 1), ());
    admission.durable(&claim(3, 1));
    assert_eq!(admission.look(&claim(3, 1)), Standing::Durable);
    assert_eq!(admission.look(&claim(10, 1)), Standing::Free { late: false });
}

#[test]
fn keys_that_are_gone_are_forgotten_once_nothing_of_theirs_waits() {
    let mut admission: Admission<()> = Admission::new(4);
    admission.begin(&claim(1, 1), ());
    admission.durable(&claim(1, 1));
    admission.begin(&claim(2, 1), ());
    admission.retain(|_| false);
    assert_eq!(admission.windows().len(), 1);
    admission.durable(&claim(2, 1));
    admission.retain(|_| false);
    assert_eq!(admission.windows().len(), 0);
}
