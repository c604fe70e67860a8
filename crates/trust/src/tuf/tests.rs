//! INV-FRESH-1, attacked: each refusal starts from a cycle that is accepted and changes one thing.

use super::json::Value;
use super::kit::*;
use super::*;
use crate::cose::{SecretKey, Signer as _};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use make::NotMade;
use model::hex;
use proptest::prelude::*;

/// A repository with a second publication, and a client that took the first.
fn second() -> (Repo, Trusted) {
    let mut repo = Repo::new(1, None);
    repo.publish(1, &[target("1.0.0", 1)]);
    let client = repo.updated(&repo.client(), NOW);
    repo.publish(2, &[target("1.0.0", 1), target("1.1.0", 1)]);
    (repo, client)
}

/// A second root that is waiting for the client, too: its timestamp key is new.
fn rotated() -> (Repo, Trusted) {
    let (mut repo, client) = second();
    let before = repo.hands.clone();
    repo.hands.seeds[Role::Timestamp as usize] = vec![50];
    repo.rotate(&before);
    repo.stamp(2);
    (repo, client)
}

#[test]
fn what_was_published_arrives() {
    let (repo, client) = second();
    assert_eq!(client.versions().targets, 1);
    let client = repo.updated(&client, NOW);
    let current = client.current(at(NOW)).unwrap();
    assert_eq!(current.targets().len(), 2);
    let target = current.target("pump-app/1.1.0/pump-box.bin").unwrap();
    assert_eq!(target, &kit::target("1.1.0", 1));
    assert_eq!(current.target("pump-app/1.2.0/pump-box.bin"), None);
    let digest = crate::digest(&image("1.1.0"));
    assert_eq!(target.file_name(true), format!("pump-app/1.1.0/{digest}.pump-box.bin"));
    assert_eq!(target.file_name(false), "pump-app/1.1.0/pump-box.bin");
    assert_eq!(
        client.versions(),
        model::manifest::Trusted { root: 1, timestamp: 2, snapshot: 2, targets: 2 }
    );
}

#[test]
fn files_are_asked_for_in_their_order_and_within_their_length() {
    let (repo, client) = second();
    let mut update = Update::begin(client, at(NOW));
    let mut asked = vec![];
    while let Some(fetch) = update.next() {
        match repo.files.get(&fetch.name) {
            Some(bytes) => {
                assert!(bytes.len() <= fetch.bytes_max);
                assert_eq!(update.take(bytes).unwrap().store, Some(fetch.role));
            }
            None => {
                assert!(fetch.may_be_absent);
                assert_eq!(update.absent(), Ok(Taken::default()));
            }
        }
        asked.push(fetch.name);
    }
    assert_eq!(asked, ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"]);
    assert_eq!(update.take(b"{}"), Err(Refused::NotAsked));
    assert_eq!(update.absent(), Err(Refused::NotAsked));

    // When nothing is new, nothing but root and timestamp is asked for.
    let mut update = Update::begin(update.into_trusted(), at(NOW));
    update.absent().unwrap();
    assert_eq!(update.take(&repo.files["timestamp.json"]), Ok(Taken::default()));
    assert_eq!(update.next(), None);
}

#[test]
fn a_publication_with_one_thing_wrong_is_refused_for_that() {
    type Attack = fn(&mut Repo);
    fn old(repo: &Repo, role: Role) -> Vec<u8> {
        let mut first = Repo::new(1, None);
        first.publish(1, &[target("1.0.0", 1)]);
        assert_eq!(first.files["1.targets.json"], repo.files["1.targets.json"]);
        first.files[&kit::name(role, 1)].clone()
    }
    const ROOT: Role = Role::Root;
    const TIME: Role = Role::Timestamp;
    const SNAP: Role = Role::Snapshot;
    const TARGETS: Role = Role::Targets;
    let table: &[(&str, &str, Attack)] = &[
        // Withheld.
        ("no timestamp", "absent", |r| drop(r.files.remove("timestamp.json"))),
        ("no snapshot", "absent", |r| drop(r.files.remove("2.snapshot.json"))),
        ("no targets", "absent", |r| drop(r.files.remove("2.targets.json"))),
        // Replayed and rolled back.
        ("a newer timestamp of an older snapshot", "older", |r| {
            r.stamp(2);
            let first = old(r, SNAP);
            let signers = r.hands.signers(TIME);
            let head = make::Head { version: 3, ..r.head(TIME, 2) };
            let bytes = make::timestamp(&head, (1, &first), &dynamic(&signers)).unwrap();
            r.put(TIME, 3, bytes);
            // The client has seen snapshot 1 only: it must have seen 2 for this.
            r.files.insert("seen".into(), vec![]);
        }),
        ("a snapshot that names older targets", "older", |r| {
            let (first, signers) = (old(r, TARGETS), r.hands.signers(SNAP));
            let head = make::Head { version: 2, ..r.head(SNAP, 2) };
            let bytes = make::snapshot(&head, (1, &first), &dynamic(&signers)).unwrap();
            r.put(SNAP, 2, bytes);
            r.stamp(2);
            r.files.insert("seen".into(), vec![]);
        }),
        // Mixed.
        ("the old snapshot, made as long as the new one", "other_digest", |r| {
            let mut bytes = old(r, SNAP);
            bytes.push(b' ');
            r.put(SNAP, 2, bytes);
        }),
        ("the old snapshot under the new timestamp", "other_length", |r| {
            let bytes = old(r, SNAP);
            r.put(SNAP, 2, bytes);
        }),
        ("the old snapshot, and a timestamp without digests", "other_version", |r| {
            r.edit(TIME, 2, |t| {
                remove(t, &["meta", "snapshot.json"], "hashes");
                remove(t, &["meta", "snapshot.json"], "length");
            });
            let bytes = old(r, SNAP);
            r.put(SNAP, 2, bytes);
        }),
        ("the old targets under the new snapshot", "other_length", |r| {
            let bytes = old(r, TARGETS);
            r.put(TARGETS, 2, bytes);
        }),
        ("the old targets, and a snapshot without digests", "other_version", |r| {
            r.edit(SNAP, 2, |s| {
                remove(s, &["meta", "targets.json"], "hashes");
                remove(s, &["meta", "targets.json"], "length");
            });
            r.stamp(2);
            let bytes = old(r, TARGETS);
            r.put(TARGETS, 2, bytes);
        }),
        ("one byte of the targets changed", "other_digest", |r| {
            let bytes = r.files.get_mut("2.targets.json").unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        }),
        ("one byte more", "other_length", |r| {
            r.files.get_mut("2.targets.json").unwrap().push(b' ')
        }),
        ("a byte less", "other_length", |r| {
            _ = r.files.get_mut("2.snapshot.json").unwrap().pop();
        }),
        // Ended.
        ("a root that has ended", "expired", |r| {
            let hands = r.hands.clone();
            r.ends[ROOT as usize] = NOW;
            r.rotate(&hands);
        }),
        ("a timestamp that has ended", "expired", |r| {
            r.ends[TIME as usize] = NOW;
            r.stamp(2);
        }),
        ("a snapshot that has ended", "expired", |r| {
            r.ends[SNAP as usize] = "2030-01-09T23:59:59Z";
            r.snap(2);
            r.stamp(2);
        }),
        ("targets that have ended", "expired", |r| {
            r.ends[TARGETS as usize] = NOW;
            r.publish(2, &[]);
        }),
        // Under the threshold.
        ("a timestamp by nobody", "too_few_signatures", |r| r.edit_as(TIME, 2, &[], |_| ())),
        ("a timestamp by the snapshot's key", "too_few_signatures", |r| {
            let signers = r.hands.signers(SNAP);
            r.edit_as(TIME, 2, &signers, |_| ());
        }),
        ("a timestamp by a stranger", "too_few_signatures", |r| {
            r.edit_as(TIME, 2, &[secret(99)], |_| ());
        }),
        ("targets by one of two", "too_few_signatures", |r| {
            r.edit_as(TARGETS, 2, &[secret(6)], |_| ());
            r.snap(2);
            r.stamp(2);
        }),
        ("targets by one and a stranger", "too_few_signatures", |r| {
            r.edit_as(TARGETS, 2, &[secret(6), secret(99)], |_| ());
            r.snap(2);
            r.stamp(2);
        }),
        ("targets by one, twice", "malformed", |r| {
            r.edit_as(TARGETS, 2, &[secret(6), secret(6)], |_| ());
            r.snap(2);
            r.stamp(2);
        }),
        ("a field that nobody signed", "too_few_signatures", |r| {
            let bytes = tampered(&r.files["timestamp.json"], |t| {
                insert(t, &["signed"], "note", Value::text("later"));
            });
            r.put(TIME, 2, bytes);
        }),
        ("a signature of the same key on another file", "too_few_signatures", |r| {
            let other = old(r, TIME);
            let bytes = r.files["timestamp.json"].clone();
            let mut value = Value::parse(&bytes, 100).unwrap();
            let mut other = Value::parse(&other, 100).unwrap();
            *member(&mut value, &["signatures"]) = member(&mut other, &["signatures"]).clone();
            r.put(TIME, 2, value.to_json());
        }),
        // A role in the place of another.
        ("the snapshot as timestamp", "other_role", |r| {
            let bytes = r.files["2.snapshot.json"].clone();
            r.put(TIME, 2, bytes);
        }),
        ("targets as the next root", "other_role", |r| {
            let bytes = r.files["2.targets.json"].clone();
            r.put(ROOT, 2, bytes);
        }),
        // Roots.
        ("root 1 again as root 2", "root_out_of_order", |r| {
            let bytes = r.files["1.root.json"].clone();
            r.put(ROOT, 2, bytes);
        }),
        ("root 3 as root 2", "root_out_of_order", |r| {
            let bytes = r.made_root(3, &r.hands.signers(ROOT));
            r.put(ROOT, 2, bytes);
        }),
        ("root 2 by one of the three", "too_few_signatures", |r| {
            let bytes = r.made_root(2, &[secret(1)]);
            r.put(ROOT, 2, bytes);
        }),
        ("root 2 by its own new keys alone", "too_few_signatures", |r| {
            r.hands.seeds[0] = vec![60, 61, 62];
            let bytes = r.made_root(2, &r.hands.signers(ROOT));
            r.put(ROOT, 2, bytes);
        }),
        ("root 2 by the old keys alone", "too_few_signatures", |r| {
            let before = r.hands.signers(ROOT);
            r.hands.seeds[0] = vec![60, 61, 62];
            let bytes = r.made_root(2, &before);
            r.put(ROOT, 2, bytes);
        }),
        ("root 2 by one old key and two new ones", "too_few_signatures", |r| {
            r.hands.seeds[0] = vec![60, 61, 62];
            let bytes = r.made_root(2, &[secret(1), secret(60), secret(61)]);
            r.put(ROOT, 2, bytes);
        }),
        // What we do not know, and what is broken.
        ("targets that delegate", "delegates", |r| {
            r.edit(TARGETS, 2, |t| {
                let role = Value::object(vec![("name", Value::text("other"))]);
                let roles = Value::List(vec![role]);
                let delegations =
                    Value::object(vec![("keys", Value::object(vec![])), ("roles", roles)]);
                insert(t, &[], "delegations", delegations);
            });
            r.snap(2);
            r.stamp(2);
        }),
        ("targets that delegate by hashed bins", "delegates", |r| {
            r.edit(TARGETS, 2, |t| {
                let succinct = Value::object(vec![("bit_length", Value::Int(8))]);
                insert(
                    t,
                    &[],
                    "delegations",
                    Value::object(vec![
                        ("roles", Value::List(vec![])),
                        ("succinct_roles", succinct),
                    ]),
                );
            });
            r.snap(2);
            r.stamp(2);
        }),
        ("TUF 2", "unknown_spec", |r| {
            r.edit(TIME, 2, |t| insert(t, &[], "spec_version", Value::text("2.0.0")));
        }),
        ("TUF without a second number", "unknown_spec", |r| {
            r.edit(TIME, 2, |t| insert(t, &[], "spec_version", Value::text("1")));
        }),
        ("a version of 0", "malformed", |r| {
            r.edit(TIME, 2, |t| insert(t, &[], "version", Value::Int(0)));
        }),
        ("no version", "malformed", |r| r.edit(TIME, 2, |t| remove(t, &[], "version"))),
        ("an end in another form", "malformed", |r| {
            r.edit(TIME, 2, |t| insert(t, &[], "expires", Value::text("2030-01-17")));
        }),
        ("a timestamp of no snapshot", "malformed", |r| {
            r.edit(TIME, 2, |t| remove(t, &["meta"], "snapshot.json"));
        }),
        ("a snapshot of no targets", "malformed", |r| {
            r.edit(SNAP, 2, |s| remove(s, &["meta"], "targets.json"));
            r.stamp(2);
        }),
        ("digests of no kind that we know", "malformed", |r| {
            r.edit(TIME, 2, |t| {
                let hashes = Value::object(vec![("md5", Value::text("00"))]);
                insert(t, &["meta", "snapshot.json"], "hashes", hashes);
            });
        }),
        ("a digest of 31 bytes", "malformed", |r| {
            r.edit(TIME, 2, |t| {
                let hashes = Value::object(vec![("sha256", Value::text("00".repeat(31)))]);
                insert(t, &["meta", "snapshot.json"], "hashes", hashes);
            });
        }),
        ("an image repository that names a device", "other_device", |r| {
            r.edit(TIME, 2, |t| insert(t, &[], DEVICE_FIELD, Value::text("pump-7")));
        }),
        ("no JSON", "not_json", |r| r.put(TIME, 2, vec![b'{'])),
        ("a float", "not_json", |r| {
            r.put(TIME, 2, b"{\"signed\":{\"version\":2.0},\"signatures\":[]}".to_vec());
        }),
        ("nothing signed", "malformed", |r| r.put(TIME, 2, b"{\"signatures\":[]}".to_vec())),
        ("a list", "malformed", |r| r.put(TIME, 2, b"[]".to_vec())),
        ("no bytes at all", "not_json", |r| r.put(TIME, 2, vec![])),
        ("a timestamp without end", "oversize", |r| {
            r.put(TIME, 2, vec![b' '; TIME.bytes_max() + 1]);
        }),
        ("a root without end", "oversize", |r| r.put(ROOT, 2, vec![b' '; ROOT.bytes_max() + 1])),
    ];
    for (what, label, attack) in table {
        let (mut repo, mut client) = second();
        repo.updated(&client, NOW);
        let honest = repo.clone();
        attack(&mut repo);
        if repo.files.remove("seen").is_some() {
            client = honest.updated(&client, NOW);
            let next = repo.files["timestamp.json"].clone();
            repo.put(
                Role::Timestamp,
                3,
                edited(&next, TIME, &repo.hands.signers(TIME), |t| {
                    insert(t, &[], "version", Value::Int(3));
                }),
            );
        }
        let (after, result) = repo.update(&client, NOW);
        assert_eq!(result.map_err(|refused| refused.label()), Err(*label), "{what}");
        // What the client could install before, it can install still, or nothing; never what it was offered.
        if let Ok(current) = after.current(at(NOW)) {
            assert_eq!(current.targets(), client.current(at(NOW)).unwrap().targets(), "{what}");
        }
        assert!(Refused::LABELS.contains(label));
    }
    std::println!("{} attacks on a repository refused", table.len());
}

#[test]
fn the_first_publication_again_is_older_than_the_second() {
    let (repo, first) = second();
    let client = repo.updated(&first, NOW);
    let mut old = Repo::new(1, None);
    old.publish(1, &[target("1.0.0", 1)]);
    let (after, result) = old.update(&client, NOW);
    let file = "timestamp.json".to_string();
    assert_eq!(result, Err(Refused::Older { file, trusted: 2, found: 1 }));
    assert!(after == client);
}

#[test]
fn a_newer_timestamp_of_an_older_snapshot_is_refused_before_that_is_asked_for() {
    let (mut repo, client) = second();
    let client = repo.updated(&client, NOW);
    let first = Repo::new(1, None);
    let mut first = Repo { files: repo.files.clone(), ..first };
    first.publish(1, &[target("1.0.0", 1)]);
    let head = make::Head { version: 3, ..repo.head(Role::Timestamp, 3) };
    let signers = repo.hands.signers(Role::Timestamp);
    let snapshot = (1, &first.files["1.snapshot.json"][..]);
    let bytes = make::timestamp(&head, snapshot, &dynamic(&signers)).unwrap();
    repo.put(Role::Timestamp, 3, bytes);
    let (after, result) = repo.update(&client, NOW);
    let file = "snapshot.json".to_string();
    assert_eq!(result, Err(Refused::Older { file, trusted: 2, found: 1 }));
    assert!(after == client);
}

#[test]
fn a_client_that_is_fed_the_same_files_for_ever_sees_that_they_end() {
    // Freeze: the newest that it has is honest, and all that it is given.
    let (repo, client) = second();
    let client = repo.updated(&client, NOW);
    repo.updated(&client, "2030-01-16T23:59:59Z");
    let (after, result) = repo.update(&client, "2030-01-17T00:00:00Z");
    assert_eq!(result.unwrap_err().label(), "expired");
    assert!(after == client, "it still knows what is older");
    assert_eq!(client.current(at("2030-01-17T00:00:00Z")).unwrap_err().label(), "expired");
}

#[test]
fn what_ended_still_says_what_is_older() {
    let (mut repo, client) = second();
    let client = repo.updated(&client, NOW);
    let (kept, dropped) = Trusted::import(&client.export(), None).unwrap();
    assert_eq!(dropped, []);
    // Half a year later all of it but root and targets has ended; an attacker has version 1, signed to last.
    repo.ends = ["2032-01-01T00:00:00Z"; 4];
    repo.publish(1, &[target("1.0.0", 1)]);
    let (_, result) = repo.update(&kept, "2030-07-01T00:00:00Z");
    assert_eq!(result.unwrap_err().label(), "older");
    repo.publish(3, &[target("1.2.0", 1)]);
    repo.updated(&kept, "2030-07-01T00:00:00Z");
}

#[test]
fn a_file_that_a_snapshot_named_stays_in_it() {
    let (mut repo, client) = second();
    repo.edit(Role::Snapshot, 2, |s| {
        let meta = Value::object(vec![("version", Value::Int(7))]);
        insert(s, &["meta"], "other.json", meta);
    });
    repo.stamp(2);
    let client = repo.updated(&client, NOW);
    repo.publish(3, &[]);
    let (_, result) = repo.update(&client, NOW);
    assert_eq!(result, Err(Refused::Gone { file: "other.json".into() }));
    repo.edit(Role::Snapshot, 3, |s| {
        let meta = Value::object(vec![("version", Value::Int(6))]);
        insert(s, &["meta"], "other.json", meta);
    });
    repo.stamp(3);
    let (_, result) = repo.update(&client, NOW);
    assert_eq!(result, Err(Refused::Older { file: "other.json".into(), trusted: 7, found: 6 }));
}

#[test]
fn one_key_under_two_ids_has_one_vote() {
    let (mut repo, _) = second();
    // The vendor's root names one key of the targets twice: under its own id and as "second".
    repo.edit_as(Role::Root, 1, &repo.hands.signers(Role::Root), |root| {
        let id = key_id(secret(6).public());
        let key = member(root, &["keys", &id]).clone();
        insert(root, &["keys"], "second", key);
        let ids = Value::List(vec![Value::text(id), Value::text("second")]);
        insert(root, &["roles", "targets"], "keyids", ids);
    });
    repo.edit_as(Role::Targets, 2, &[secret(6)], |_| ());
    let twice = tampered(&repo.files["2.targets.json"], |file| {
        let mut again = member(file, &["signatures", "0"]).clone();
        *member(&mut again, &["keyid"]) = Value::text("second");
        let Value::List(signatures) = member(file, &["signatures"]) else { panic!("no list") };
        signatures.push(again);
    });
    repo.put(Role::Targets, 2, twice);
    repo.snap(2);
    repo.stamp(2);
    let (_, result) = repo.update(&repo.client(), NOW);
    let role = Role::Targets;
    assert_eq!(result, Err(Refused::TooFewSignatures { role, root: 1, needed: 2, found: 1 }));
}

#[test]
fn key_ids_are_names_and_nothing_more() {
    let mut repo = Repo::new(1, None);
    repo.publish(1, &[target("1.0.0", 1)]);
    let rename: Change = |file| {
        for (seed, name) in [(4, "time"), (5, ""), (1, "a"), (2, "b"), (3, "c")] {
            let id = key_id(secret(seed).public());
            let key = member(file, &["signed", "keys", &id]).clone();
            remove(file, &["signed", "keys"], &id);
            insert(file, &["signed", "keys"], name, key);
            for role in Role::ALL {
                let ids = member(file, &["signed", "roles", role.as_str(), "keyids"]);
                let Value::List(ids) = ids else { panic!("no list") };
                for other in ids.iter_mut().filter(|other| other.as_text() == Some(&id)) {
                    *other = Value::text(name);
                }
            }
        }
        let Value::List(signatures) = member(file, &["signatures"]) else { panic!("no list") };
        signatures.clear();
    };
    let root = tampered(&repo.files["1.root.json"], rename);
    let message = message(&root, Role::Root);
    let mut value = Value::parse(&root, 1000).unwrap();
    let signature = |name: &'static str, seed| {
        let signature = key::sign(&secret(seed), &message).unwrap();
        Value::object(vec![("keyid", Value::text(name)), ("sig", Value::text(signature))])
    };
    *member(&mut value, &["signatures"]) = Value::List(vec![signature("a", 1), signature("c", 3)]);
    repo.put(Role::Root, 1, value.to_json());
    for (file, id) in [("timestamp.json", "time"), ("1.snapshot.json", "")] {
        let mut value = Value::parse(&repo.files[file], 1000).unwrap();
        *member(&mut value, &["signatures", "0", "keyid"]) = Value::text(id);
        let bytes = value.to_json();
        repo.files.insert(file.into(), bytes);
        if file == "1.snapshot.json" {
            let mut time = Value::parse(&repo.files["timestamp.json"], 1000).unwrap();
            let bytes = &repo.files[file];
            let sha256 = Value::text(crate::digest(bytes).to_string());
            *member(&mut time, &["signed", "meta", "snapshot.json", "hashes", "sha256"]) = sha256;
            *member(&mut time, &["signed", "meta", "snapshot.json", "length"]) =
                Value::Int(bytes.len() as i64);
            let message = member(&mut time, &["signed"]).canonical();
            *member(&mut time, &["signatures", "0", "sig"]) =
                Value::text(key::sign(&secret(4), &message).unwrap());
            let bytes = time.to_json();
            repo.put(Role::Timestamp, 1, bytes);
        }
    }
    repo.updated(&repo.client(), NOW);
}

#[test]
fn a_root_may_name_keys_that_we_cannot_verify() {
    let (mut repo, _) = second();
    repo.edit_as(Role::Root, 1, &repo.hands.signers(Role::Root), |root| {
        let key = Value::object(vec![
            ("keytype", Value::text("ml-dsa")),
            ("scheme", Value::text("ml-dsa-65/1")),
            ("keyval", Value::object(vec![("public", Value::text("-----BEGIN PUBLIC KEY-----"))])),
        ]);
        insert(root, &["keys"], "later", key);
        let Value::List(ids) = member(root, &["roles", "timestamp", "keyids"]) else { panic!() };
        ids.push(Value::text("later"));
        ids.push(Value::text("nowhere"));
    });
    repo.updated(&repo.client(), NOW);
}

#[test]
fn a_weak_key_counts_for_nothing() {
    // The point of order 1: it verifies, loosely, what nobody signed.
    let (mut repo, _) = second();
    repo.edit_as(Role::Root, 1, &repo.hands.signers(Role::Root), |root| {
        let public = format!("01{}", "00".repeat(31));
        let id = key_id(secret(4).public());
        insert(root, &["keys", &id, "keyval"], "public", Value::text(public));
    });
    let (_, result) = repo.update(&repo.client(), NOW);
    assert_eq!(result.unwrap_err().label(), "too_few_signatures");
}

#[test]
fn ecdsa_signatures_of_others_verify_in_both_forms() {
    let signer = secret(101);
    let text = key::sign(&signer, b"message").unwrap();
    let low = p256::ecdsa::Signature::from_der(&hex::decode(&text).unwrap()).unwrap();
    let (r, s) = low.split_scalars();
    let high = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
    assert_ne!(high, low);
    for signature in [low, high] {
        assert!(key::verifies(signer.public(), b"message", signature.to_der().as_bytes()));
        assert!(!key::verifies(signer.public(), b"massage", signature.to_der().as_bytes()));
        assert!(!key::verifies(secret(102).public(), b"message", signature.to_der().as_bytes()));
        assert!(!key::verifies(signer.public(), b"message", &signature.to_bytes()), "not in DER");
    }
    assert!(!key::verifies(signer.public(), b"message", &[]));
}

#[test]
fn roots_are_gone_through_one_by_one_and_only_the_last_must_last() {
    let (mut repo, client) = second();
    for n in 0..5_u8 {
        let before = repo.hands.clone();
        repo.ends[0] = if n < 4 { "2029-01-01T00:00:00Z" } else { "2032-01-01T00:00:00Z" };
        // All keys are new, each time.
        for seeds in &mut repo.hands.seeds {
            seeds.iter_mut().for_each(|seed| *seed += 8);
        }
        repo.rotate(&before);
    }
    repo.publish(3, &[target("1.2.0", 2)]);
    let client = repo.updated(&client, NOW);
    assert_eq!(client.versions().root, 6);

    let gap = repo.files.remove("4.root.json");
    assert!(gap.is_some());
    let (stuck, result) = repo.update(&repo.client(), NOW);
    assert_eq!(result.unwrap_err().label(), "expired", "root 3 is the last to be had");
    assert_eq!(stuck.versions().root, 3, "and each root on the way was kept");
}

#[test]
fn a_cycle_goes_through_a_bounded_number_of_roots() {
    let mut repo = Repo::new(1, None);
    let hands = repo.hands.clone();
    for _ in 0..ROOTS_MAX + 2 {
        repo.rotate(&hands);
    }
    repo.publish(1, &[]);
    let client = repo.updated(&repo.client(), NOW);
    assert_eq!(client.versions().root, 1 + u64::from(ROOTS_MAX));
    assert_eq!(repo.updated(&client, NOW).versions().root, 3 + u64::from(ROOTS_MAX));
}

#[test]
fn a_stolen_online_key_blocks_nothing_once_the_root_has_another() {
    // Fast forward: the thief signs the highest versions that there are, so that nothing honest is ever newer.
    for stolen in [Role::Timestamp, Role::Snapshot] {
        let (mut repo, client) = second();
        let most = i64::MAX as u64;
        let last = repo.files["2.targets.json"].clone();
        repo.put(Role::Targets, most, last.clone());
        let head = make::Head { version: most, ..repo.head(Role::Snapshot, most) };
        let signers = repo.hands.signers(Role::Snapshot);
        let snapshot = make::snapshot(&head, (2, &last), &dynamic(&signers)).unwrap();
        repo.put(Role::Snapshot, most, snapshot);
        repo.stamp(most);
        let blocked = repo.updated(&client, NOW);
        assert_eq!(blocked.versions().timestamp, most);
        repo.publish(3, &[target("1.2.0", 1)]);
        let (_, result) = repo.update(&blocked, NOW);
        assert_eq!(
            result.unwrap_err().label(),
            "older",
            "the attack works until the root is changed"
        );

        let before = repo.hands.clone();
        repo.hands.seeds[stolen as usize] = vec![50];
        repo.rotate(&before);
        repo.publish(3, &[target("1.2.0", 1)]);
        let free = repo.updated(&blocked, NOW);
        assert_eq!(free.versions().timestamp, 3, "{stolen}");
        assert_eq!(free.versions().snapshot, 3, "{stolen}");
    }
}

#[test]
fn a_power_cut_between_a_new_root_and_the_removal_of_files_changes_nothing() {
    let (repo, client) = rotated();
    let mut update = Update::begin(client.clone(), at(NOW));
    let taken = update.take(&repo.files["2.root.json"]).unwrap();
    assert_eq!((taken.store, taken.remove.len()), (Some(Role::Root), 0));
    // Cut here: the root is durable, and so are the files that the old root's keys signed.
    let cut = update.trusted().export();
    let removed = update.absent().unwrap().remove;
    let roles: Vec<Role> = removed.iter().map(|dropped| dropped.role).collect();
    assert_eq!(roles, [Role::Timestamp, Role::Snapshot]);
    assert_eq!(removed[0].why.label(), "too_few_signatures");

    let (again, dropped) = Trusted::import(&cut, None).unwrap();
    assert!(dropped.iter().any(|dropped| dropped.role == Role::Timestamp));
    assert!(again == *update.trusted(), "{dropped:?}");
    repo.updated(&again, NOW);
}

#[test]
fn a_key_that_is_added_takes_nothing_away() {
    let (mut repo, client) = second();
    let before = repo.hands.clone();
    repo.hands.seeds[Role::Timestamp as usize].push(50);
    repo.rotate(&before);
    let mut update = Update::begin(client.clone(), at(NOW));
    update.take(&repo.files["2.root.json"]).unwrap();
    assert_eq!(update.absent().unwrap(), Taken::default());
    assert_eq!(update.trusted().versions().timestamp, 1);
}

#[test]
fn kept_files_come_back_as_they_were_and_changed_ones_are_told() {
    let (repo, client) = second();
    let client = repo.updated(&client, NOW);
    let files = client.export();
    assert!(Trusted::import(&files, None) == Ok((client.clone(), vec![])));
    assert_eq!(files.root, repo.files["1.root.json"], "the bytes are those that were served");
    assert_eq!(files.targets.as_ref(), repo.files.get("2.targets.json"));

    // Each byte of the kept timestamp: either the file says the same, or it is dropped.
    let timestamp = files.timestamp.clone().unwrap();
    let mut told = 0;
    for byte in 0..timestamp.len() {
        let mut changed = timestamp.clone();
        changed[byte] ^= 1 << (byte % 8);
        let files = Files { timestamp: Some(changed), ..files.clone() };
        let (trusted, dropped) = Trusted::import(&files, None).unwrap();
        if dropped.is_empty() {
            assert_eq!(trusted.versions(), client.versions());
        } else {
            told += 1;
            assert_eq!(trusted.current(at(NOW)).unwrap_err().label(), "absent");
        }
    }
    assert!(told > timestamp.len() * 7 / 8, "{told} of {} changes", timestamp.len());
    // A file that is broken takes nothing with it: the snapshot still says what is older.
    let broken = Files { timestamp: Some(b"{".to_vec()), ..files.clone() };
    let (trusted, dropped) = Trusted::import(&broken, None).unwrap();
    assert_eq!(dropped.len(), 1);
    assert_eq!((trusted.versions().timestamp, trusted.versions().snapshot), (0, 2));
    let broken = Files { root: b"{}".to_vec(), ..files.clone() };
    assert_eq!(Trusted::import(&broken, None).unwrap_err().label(), "malformed");
    let other = Some(model::DeviceId::new("pump-7").unwrap());
    let (_, dropped) = Trusted::import(&files, other).unwrap();
    assert_eq!(dropped.len(), 3, "an image repository's files are no Director's");
}

#[test]
fn files_that_are_held_are_used_together_only() {
    // A cycle that broke off behind the timestamp: what is held does not belong together, so there is no target.
    let (repo, client) = second();
    let mut update = Update::begin(client, at(NOW));
    update.absent().unwrap();
    update.take(&repo.files["timestamp.json"]).unwrap();
    let broken_off = update.into_trusted();
    assert_eq!(broken_off.current(at(NOW)).unwrap_err().label(), "other_version");
    let after = repo.updated(&broken_off, NOW);
    assert_eq!(after.versions().targets, 2);
}

#[test]
fn two_files_of_one_version_are_told_and_the_first_one_stays() {
    let (mut repo, client) = second();
    let client = repo.updated(&client, NOW);
    repo.publish(2, &[target("1.3.0", 1)]);
    let mut update = Update::begin(client.clone(), at(NOW));
    update.absent().unwrap();
    let taken = update.take(&repo.files["timestamp.json"]).unwrap();
    assert_eq!(taken, Taken { fork: true, ..Taken::default() });
    assert!(update.into_trusted() == client);
}

#[test]
fn a_device_takes_a_directors_word_only_for_itself() {
    let mut own = Repo::new(20, Some("pump-7"));
    own.publish(4, &[target("1.0.0", 1)]);
    let client = own.updated(&own.client(), NOW);
    let mut theirs = Repo { device: Some(model::DeviceId::new("pump-8").unwrap()), ..own.clone() };
    theirs.publish(5, &[target("1.1.0", 1)]);
    let mut nobodys = Repo { device: None, ..own.clone() };
    nobodys.publish(5, &[target("1.1.0", 1)]);
    own.publish(5, &[target("1.1.0", 1)]);
    own.updated(&client, NOW);
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
        for other in [&theirs, &nobodys] {
            // Only this file is another device's, and what names it names it rightly.
            let mut mixed = own.clone();
            mixed.put(role, 5, other.files[&kit::name(role, 5)].clone());
            match role {
                Role::Targets => {
                    mixed.snap(5);
                    mixed.stamp(5);
                }
                Role::Snapshot => mixed.stamp(5),
                _ => {}
            }
            let (after, result) = mixed.update(&client, NOW);
            assert_eq!(result.unwrap_err().label(), "other_device", "{role}");
            assert_eq!(after.bytes(role), client.bytes(role), "nothing of it is kept");
        }
    }
}

#[test]
fn a_root_with_one_thing_wrong_starts_nothing() {
    let repo = Repo::new(1, None);
    let good = repo.files["1.root.json"].clone();
    let table: &[(&str, &str, Change)] = &[
        ("no roles", "malformed", |r| remove(r, &[], "roles")),
        ("no snapshot role", "malformed", |r| remove(r, &["roles"], "snapshot")),
        ("a threshold of 0", "malformed", |r| {
            insert(r, &["roles", "timestamp"], "threshold", Value::Int(0));
        }),
        ("a threshold below 0", "malformed", |r| {
            insert(r, &["roles", "root"], "threshold", Value::Int(-1));
        }),
        ("a threshold above its keys", "too_few_signatures", |r| {
            insert(r, &["roles", "root"], "threshold", Value::Int(4));
        }),
        ("a key id twice", "malformed", |r| {
            let Value::List(ids) = member(r, &["roles", "root", "keyids"]) else { panic!() };
            let first = ids[0].clone();
            ids.push(first);
        }),
        ("33 key ids", "malformed", |r| {
            let ids = (0..33).map(|n: u32| Value::text(n.to_string())).collect();
            insert(r, &["roles", "targets"], "keyids", Value::List(ids));
        }),
        ("a key that is a text", "malformed", |r| {
            insert(r, &["keys"], "text", Value::text("key"));
        }),
        ("65 keys", "malformed", |r| {
            let key = member(r, &["keys"]).as_object().unwrap()[0].1.clone();
            let Value::Object(keys) = member(r, &["keys"]) else { panic!() };
            while keys.len() < 65 {
                keys.push((format!("x{}", keys.len()).into(), key.clone()));
            }
            keys.sort_by(|a, b| a.0.cmp(&b.0));
        }),
        ("keys as a list", "malformed", |r| insert(r, &[], "keys", Value::List(vec![]))),
        ("consistent snapshots by word", "malformed", |r| {
            insert(r, &[], "consistent_snapshot", Value::text("true"));
        }),
        ("a device", "other_device", |r| {
            insert(r, &[], DEVICE_FIELD, Value::text("pump-7"));
        }),
        ("another role", "other_role", |r| insert(r, &[], "_type", Value::text("targets"))),
    ];
    assert!(Trusted::from_root(&good, None).is_ok());
    for (what, label, change) in table {
        let root = edited(&good, Role::Root, &repo.hands.signers(Role::Root), *change);
        let refused = Trusted::from_root(&root, None).map_err(|refused| refused.label());
        assert_eq!(refused.map(drop), Err(*label), "{what}");
    }
    let one = edited(&good, Role::Root, &[secret(1)], |_| ());
    assert_eq!(Trusted::from_root(&one, None).unwrap_err().label(), "too_few_signatures");
}

#[test]
fn targets_in_words_that_we_do_not_know_are_listed_and_never_orders() {
    let custom = |change: Change| {
        let (mut repo, client) = second();
        repo.edit(Role::Targets, 2, change);
        repo.snap(2);
        repo.stamp(2);
        let client = repo.updated(&client, NOW);
        let current = client.current(at(NOW)).unwrap();
        current.target("pump-app/1.1.0/pump-box.bin").unwrap().custom.clone()
    };
    const TARGET: [&str; 2] = ["targets", "pump-app/1.1.0/pump-box.bin"];
    const OURS: [&str; 4] = ["targets", "pump-app/1.1.0/pump-box.bin", "custom", "plimsoll"];
    assert_eq!(custom(|_| ()), Custom::Order(order("pump-app", "1.1.0", 1)));
    assert_eq!(custom(|t| remove(t, &TARGET, "custom")), Custom::None);
    assert_eq!(
        custom(|t| insert(t, &OURS, "more", Value::Null)),
        Custom::Order(order("pump-app", "1.1.0", 1))
    );
    let table: &[(&str, Change)] = &[
        ("version 1 of the custom data", |t| insert(t, &OURS, "v", Value::Int(2))),
        ("version 1 of the custom data", |t| remove(t, &OURS, "v")),
        ("a product id", |t| insert(t, &OURS, "product", Value::text("Pump App"))),
        ("a version as in 1.2.0", |t| insert(t, &OURS, "version", Value::text("1.2"))),
        ("a security version", |t| insert(t, &OURS, "security_version", Value::Int(-1))),
        ("a security version", |t| insert(t, &OURS, "security_version", Value::Int(1 << 32))),
        ("1 to 16 hardware ids", |t| insert(t, &OURS, "hardware", Value::List(vec![]))),
        ("1 to 16 hardware ids", |t| {
            insert(t, &OURS, "hardware", Value::List(vec![Value::text("a"); 17]));
        }),
        ("at most 16 versions that must be passed", |t| {
            insert(t, &OURS, "must_pass", Value::List(vec![Value::Int(1)]));
        }),
        ("a rollout id", |t| insert(t, &OURS, "rollout", Value::Int(1))),
        ("a security version to raise to", |t| insert(t, &OURS, "raise", Value::text("3"))),
    ];
    for (expected, change) in table {
        assert_eq!(custom(*change), Custom::Unreadable(expected));
    }
}

#[test]
fn nothing_is_made_that_a_client_would_refuse() {
    let repo = Repo::new(1, None);
    let signers = repo.hands.signers(Role::Targets);
    let made = |head: &make::Head<'_>, targets: &[Target]| {
        make::targets(head, targets, &dynamic(&signers))
    };
    let head = repo.head(Role::Targets, 1);
    assert!(made(&head, &[target("1.0.0", 1)]).is_ok());
    let path = target("1.0.0", 1).path;
    assert_eq!(
        made(&head, &[target("1.0.0", 1), target("1.0.0", 2)]),
        Err(NotMade::Twice { path })
    );
    let far = Timestamp(i64::MAX);
    assert_eq!(made(&make::Head { expires: far, ..head }, &[]), Err(NotMade::Time(far)));
    let nothing = make::Head { version: 0, ..head };
    assert!(matches!(made(&nothing, &[]), Err(NotMade::Refused(Refused::Malformed { .. }))));
    let many: Vec<Target> = (0..=TARGETS_MAX)
        .map(|n| Target { path: n.to_string(), custom: Custom::None, ..target("1.0.0", 1) })
        .collect();
    assert!(made(&head, &many[1..]).is_ok());
    assert!(matches!(made(&head, &many), Err(NotMade::Refused(_))));

    let mut unreachable = Repo::new(1, None);
    unreachable.hands.seeds[3] = vec![6, 6];
    let keys: Vec<_> = [6, 6].map(|seed| secret(seed).public().clone()).to_vec();
    let twice = make::Keys { keys: &keys, threshold: 2 };
    let roles = make::Roles { root: twice, timestamp: twice, snapshot: twice, targets: twice };
    let refused = make::root(&repo.head(Role::Root, 1), &roles, &[]);
    assert_eq!(refused, Err(NotMade::Threshold { role: Role::Root, needed: 2, keys: 1 }));
}

#[test]
fn a_threshold_may_sign_in_different_rooms() {
    let (mut repo, client) = second();
    let first: [SecretKey; 1] = [secret(6)];
    repo.edit_as(Role::Targets, 2, &first, |_| ());
    let one = repo.files["2.targets.json"].clone();
    let both = make::also_signed(&one, Role::Targets, &secret(101)).unwrap();
    assert_eq!(message(&both, Role::Targets), message(&one, Role::Targets));
    let again = make::also_signed(&both, Role::Targets, &secret(101)).unwrap();
    assert_eq!(again, both, "a second time replaces the first");
    repo.put(Role::Targets, 2, both);
    repo.snap(2);
    repo.stamp(2);
    repo.updated(&client, NOW);
}

#[test]
fn every_refusal_says_what_was_expected_and_has_a_label_of_its_own() {
    let refused = Refused::TooFewSignatures { role: Role::Targets, root: 3, needed: 2, found: 1 };
    assert_eq!(refused.to_string(), "targets: expected signatures of 2 keys of root 3, found 1");
    let expected = Some(model::DeviceId::new("pump-7").unwrap());
    let refused = Refused::OtherDevice { role: Role::Timestamp, expected, found: None };
    assert_eq!(
        refused.to_string(),
        "timestamp: expected metadata for `pump-7`, found them for no device"
    );
    let refused =
        Refused::Expired { role: Role::Root, end: at(NOW), now: at("2030-01-11T00:00:00Z") };
    assert_eq!(
        refused.to_string(),
        "root: expected an end after 2030-01-11T00:00:00Z, found 2030-01-10T00:00:00Z"
    );
    let mut labels = Refused::LABELS.to_vec();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Refused::LABELS.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_changed_bytes_of_any_file_are_believed_to_say_something_else(
        role in prop::sample::select(&Role::ALL[..]),
        changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4),
    ) {
        let (repo, client) = rotated();
        let name = kit::name(role, 2);
        let mut bytes = repo.files[&name].clone();
        for (at, byte) in changes {
            let at = at as usize % bytes.len();
            bytes[at] = byte;
        }
        let mut changed = repo.clone();
        let honest = repo.updated(&client, NOW);
        changed.files.insert(name, bytes);
        let (after, result) = changed.update(&client, NOW);
        match result {
            // White space, or the case of a hexadecimal digit in a signature.
            Ok(()) => prop_assert_eq!(after.versions(), honest.versions()),
            Err(_) => prop_assert!(after.versions().targets <= honest.versions().targets),
        }
    }
}
