//! A repository's files, one at a time, as a client comes to them. An input is a byte that chooses the role, and the file.
//!
//! A changed file does not keep its signature. So the target signs it again, as somebody would whose online key was stolen:
//! what lies behind the signature is tried too.

use super::{End, key};
use model::envelope::Algorithm;
use model::{DeviceId, HardwareId, ProductId, Release, RolloutId, SecurityVersion};
use model::{Timestamp, Version};
use std::sync::OnceLock;
use trust::cose::{PublicKey, SecretKey, Signer};
use trust::tuf::json::Value;
use trust::tuf::make::{self, Head, Keys, Roles};
use trust::tuf::{Files, Order, Refused, Role, Target, Trusted, Update};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

/// A client before each of the four files.
struct Stages([Update; 4]);

pub fn run(bytes: &[u8]) -> End {
    static STAGES: OnceLock<Stages> = OnceLock::new();
    let Some((role, file)) = bytes.split_first() else { return End::refused(0, "nothing") };
    let role = Role::ALL[usize::from(role % 4)];
    let stages = STAGES.get_or_init(stages);
    let mut update = stages.0[role as usize].clone();
    let before = update.trusted().clone();
    let as_it_is = update.take(file);
    let signed = match make::also_signed(file, role, &key()) {
        Ok(signed) => signed,
        Err(make::NotMade::Refused(refused)) => {
            assert_eq!(
                as_it_is.map_err(|r| r.label()),
                Err(refused.label()),
                "one reader, one word"
            );
            return End::refused(u32::from(refused.label() != "not_json"), words(&refused));
        }
        Err(error) => panic!("a key in memory signs: {error}"),
    };
    let again = Value::parse(&signed, 100_000).expect("what was made is read");
    assert_eq!(Value::parse(&again.canonical(), 100_000).ok().map(|v| v.canonical()), {
        // The canonical form of a text with control characters is no JSON: OLPC has it so.
        let plain = !again.canonical().iter().any(|byte| *byte < 0x20);
        plain.then(|| again.canonical())
    });
    if as_it_is.is_ok() {
        // Signed as it came: a seed, or a change to what nobody signs.
        return End::accepted(3);
    }
    assert!(*update.trusted() == before, "a refusal changes nothing");
    match update.take(&signed) {
        Ok(_) => {
            kept(update.trusted());
            End::refused(3, "read, and not signed")
        }
        Err(refused) => {
            assert!(*update.trusted() == before, "a refusal changes nothing");
            End::refused(2, words(&refused))
        }
    }
}

/// What was taken comes back from the files that are kept of it.
fn kept(trusted: &Trusted) {
    let files: Files = trusted.export();
    let (again, _) = Trusted::import(&files, Some(device())).expect("a trusted root is trusted");
    assert_eq!(again.versions().root, trusted.versions().root);
    assert!(again.current(NOW).is_ok() == trusted.current(NOW).is_ok());
}

/// Without numbers: an end is the same wherever in a file it came.
fn words(refused: &Refused) -> String {
    match refused {
        Refused::NotJson { json, .. } => json.expected.to_owned(),
        Refused::Malformed { role, expected } => format!("{role}: {expected}"),
        other => other.label().to_owned(),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    files().iter().zip(0..).map(|(file, role)| [&[role][..], file].concat()).collect()
}

/// The next root, and a timestamp, a snapshot and targets of which none names digests: so each can be changed alone.
fn files() -> [Vec<u8>; 4] {
    let by: &[&dyn Signer] = &[&key()];
    let device = device();
    let head = |version| Head { version, expires: in_days(7), device: Some(&device) };
    let order = Order {
        release: Release {
            product: ProductId::new("pump-app").expect("a good name"),
            version: Version::new(1, 2, 0),
            security_version: SecurityVersion(3),
            hardware: vec![HardwareId::new("pump-box").expect("a good name")],
            must_pass: vec![Version::new(1, 1, 0)],
        },
        rollout: Some(RolloutId::new("r-1").expect("a good name")),
        raise: Some(SecurityVersion(3)),
    };
    let target = Target::of("pump-app/1.2.0/pump-box.bin", b"image", order);
    let targets = make::targets(&head(4), &[target], by).expect("it is within the bounds");
    let snapshot = make::snapshot(&head(4), (4, &targets), by).expect("it is within the bounds");
    let timestamp = make::timestamp(&head(4), (4, &snapshot), by).expect("it is within the bounds");
    [
        root(2),
        without_digests(&timestamp, Role::Timestamp),
        without_digests(&snapshot, Role::Snapshot),
        targets,
    ]
}

fn root(version: u64) -> Vec<u8> {
    let p256 = SecretKey::from_random(Algorithm::Esp256, &[7; 32]).expect("a scalar of P-256");
    let keys: [PublicKey; 2] = [key().public().clone(), p256.public().clone()];
    let one = Keys { keys: &keys, threshold: 1 };
    let roles = Roles { root: one, timestamp: one, snapshot: one, targets: one };
    let head = Head { version, expires: in_days(365), device: None };
    make::root(&head, &roles, &[&key()]).expect("it is within the bounds")
}

fn without_digests(file: &[u8], role: Role) -> Vec<u8> {
    fn strip(value: &mut Value<'_>) {
        if let Value::Object(members) = value {
            members.retain(|(name, _)| name != "hashes" && name != "length");
            members.iter_mut().for_each(|(_, value)| strip(value));
        }
    }
    let mut value = Value::parse(file, 1000).expect("what was made is read");
    strip(&mut value);
    make::also_signed(&value.to_json(), role, &key()).expect("a key in memory signs")
}

fn stages() -> Stages {
    let [_, timestamp, snapshot, _] = files();
    let trusted = Trusted::from_root(&root(1), Some(device())).expect("a root of ours");
    let at_root = Update::begin(trusted, NOW);
    let mut at_timestamp = at_root.clone();
    at_timestamp.absent().expect("the chain of roots may end");
    let mut at_snapshot = at_timestamp.clone();
    at_snapshot.take(&timestamp).expect("a timestamp of ours");
    let mut at_targets = at_snapshot.clone();
    at_targets.take(&snapshot).expect("a snapshot of ours");
    Stages([at_root, at_timestamp, at_snapshot, at_targets])
}

fn device() -> DeviceId {
    DeviceId::new("pump-7").expect("a good name")
}

fn in_days(days: i64) -> Timestamp {
    Timestamp(NOW.as_us() + days * 86_400_000_000)
}
