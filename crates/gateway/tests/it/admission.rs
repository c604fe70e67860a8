//! What becomes of a message: accepted, refused with its code, or recognised.

use crate::client::{Client, puback, publish};
use crate::site::{Device, Mood, eventually, fill_up, plant, plant_with, stopped, within};
use disk::{Disk as _, SimDisk, SyncMode};
use gateway::refusal::Refusal;
use gateway::{Config, GatewayError};
use model::envelope::MESSAGE_BYTES_MAX;
use model::{Kind, Nonce};
use std::net::SocketAddr;
use std::path::Path;
use trust::cose::{self, Signer as _};

/// From a message that is accepted, each single change has its own code in PUBACK and its own counter; the session goes
/// on. (`src/admission/tests.rs` has the whole table.)
#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_one_thing_wrong_is_refused_for_that() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let other = site.device("pump-2");
    site.lets_in(&gateway, &[&pump, &other]).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let topic = pump.topic();
    let good = |sequence| pump.message(1, sequence, None);
    assert_eq!(client.publish(&topic, 1, &good(0)).await, 0);

    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good(1);
        change(&mut bytes);
        bytes
    };
    let stranger = site.device("pump-1");
    let mut foreign_kind = pump.header(1, 1, None);
    foreign_kind.kind = Kind::UplinkBatch;
    let foreign_kind = cose::seal(&foreign_kind, b"", &pump.seal).unwrap();
    let long = cose::seal(&pump.header(1, 1, None), &[0; MESSAGE_BYTES_MAX], &pump.seal).unwrap();
    let mut forged_key = stranger.header(1, 1, None);
    forged_key.key = pump.seal.public().id();
    let forged_key = cose::seal(&forged_key, b"x", &stranger.seal).unwrap();
    for (what, topic, bytes, refusal) in [
        ("not CBOR", &topic, changed(|b| b[0] = 0), Refusal::MessageBrokenCbor),
        ("cut off", &topic, changed(|b| b.truncate(40)), Refusal::MessageBrokenCbor),
        ("a byte behind it", &topic, changed(|b| b.push(0)), Refusal::MessageTrailingBytes),
        (
            "one bit of the signature",
            &topic,
            changed(|b| *b.last_mut().unwrap() ^= 1),
            Refusal::BadSignature,
        ),
        ("another's signature", &topic, forged_key, Refusal::BadSignature),
        ("an unknown key", &topic, stranger.message(1, 1, None), Refusal::UnknownKey),
        ("another device's message", &topic, other.message(1, 0, None), Refusal::UnknownKey),
        ("a gateway's kind", &topic, foreign_kind, Refusal::MessageUnknownKind),
        ("too long", &topic, long, Refusal::MessageOversize),
        ("another's topic", &other.topic(), good(1), Refusal::PolicyPublish),
        ("a topic of nobody", &"a/b".to_owned(), good(1), Refusal::PolicyPublish),
    ] {
        let before = gateway.metrics().refused(refusal);
        assert_eq!(client.publish(topic, 7, &bytes).await, refusal.code(), "{what}");
        assert_eq!(gateway.metrics().refused(refusal), before + 1, "{what}");
    }
    assert_eq!(client.publish(&topic, 1, &good(1)).await, 0);
    let taken = site.has_taken(2).await;
    assert_eq!(taken.iter().map(|t| t.sequence).collect::<Vec<_>>(), [0, 1]);
    stopped(gateway).await;
}

/// INV-REPLAY-1: repeats are answered and not stored; other bytes under the same counter are an alarm; an old counter
/// becomes history.
#[tokio::test(flavor = "multi_thread")]
async fn a_counter_is_taken_once() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let topic = pump.topic();
    let first = pump.message(1, 5, None);
    assert_eq!(client.publish(&topic, 1, &first).await, 0);
    assert_eq!(client.publish(&topic, 2, &first).await, 0);
    assert_eq!(gateway.metrics().repeats.get(), 1);
    // The same counter with another digest: this device's key is in two places, or somebody forges.
    let other = pump.message(1, 5, Some(Nonce([1; 16])));
    assert_eq!(client.publish(&topic, 3, &other).await, 0x83);
    assert_eq!(gateway.metrics().refused(Refusal::Forged), 1);
    // Below the newest: late, and history.
    assert_eq!(client.publish(&topic, 4, &pump.message(1, 2, None)).await, 0);
    assert_eq!(gateway.metrics().admitted_late.get(), 1);
    let sequences =
        |taken: Vec<crate::site::Taken>| -> Vec<u64> { taken.iter().map(|t| t.sequence).collect() };
    assert_eq!(sequences(site.has_taken(2).await), [5, 2]);
    stopped(gateway).await;

    // The window is durable: after a restart and a power cut it knows all of that.
    disk.cut_now();
    disk.reboot();
    let gateway = site.gateway(&disk).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&topic, 1, &first).await, 0);
    assert_eq!(client.publish(&topic, 2, &other).await, 0x83);
    assert_eq!(gateway.metrics().repeats.get(), 1);
    assert_eq!(client.publish(&topic, 3, &pump.message(1, 6, None)).await, 0);
    assert_eq!(sequences(site.has_taken(3).await), [5, 2, 6]);
    stopped(gateway).await;
}

/// Only who has heard this session's nonce brings news; a recording is history. No clock decides: the devices here say
/// that it is 1970.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_fresh_if_it_has_heard_this_session() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let topic = pump.topic();
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let earlier = client.nonce;
    assert_eq!(client.publish(&topic, 1, &pump.message(1, 0, earlier)).await, 0);
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&topic, 1, &pump.message(1, 1, earlier)).await, 0);
    assert_eq!(client.publish(&topic, 2, &pump.message(1, 2, None)).await, 0);
    assert_eq!(client.publish(&topic, 3, &pump.message(1, 3, client.nonce)).await, 0);
    let taken = site.has_taken(4).await;
    assert_eq!(taken.iter().map(|t| t.fresh).collect::<Vec<_>>(), [true, false, false, true]);
    let metrics = gateway.metrics();
    assert_eq!((metrics.admitted_fresh.get(), metrics.admitted_history.get()), (2, 2));
    stopped(gateway).await;
}

/// MQTT 5 §4.6: PUBACKs in the order of PUBLISH packets, whatever becomes of each.
#[tokio::test(flavor = "multi_thread")]
async fn pubacks_keep_the_order_of_the_publishes() {
    let (_site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let topic = pump.topic();
    let mut expected = Vec::new();
    let mut stream = Vec::new();
    for i in 0..30_u16 {
        let (topic, message, code) = match i % 3 {
            0 => (topic.as_str(), pump.message(1, u64::from(i), None), 0),
            1 => (topic.as_str(), b"not a message".to_vec(), 0x99),
            _ => ("a/b", pump.message(1, u64::from(i), None), 0x87),
        };
        stream.extend(publish(topic, 100 + i, &message));
        expected.push((100 + i, code));
    }
    client.send(&stream).await;
    let mut found = Vec::new();
    for _ in 0..30 {
        found.push(puback(&client.next().await.unwrap()));
    }
    assert_eq!(found, expected);
    stopped(gateway).await;
}

/// A full disk is told before anything moves; the same message is taken when there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_the_message_taken_later() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    site.set_mood(Mood::Away);
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let topic = pump.topic();
    assert_eq!(client.publish(&topic, 1, &pump.message(1, 0, None)).await, 0);
    disk.set_capacity(0);
    let next = pump.message(1, 1, None);
    assert_eq!(client.publish(&topic, 2, &next).await, 0x97);
    assert_eq!(gateway.metrics().refused(Refusal::DiskFull), 1);
    disk.set_capacity(u64::MAX);
    publish_until_taken(gateway.local_addr(), &pump, &next).await;
    site.set_mood(Mood::Takes);
    assert_eq!(site.has_taken(2).await.len(), 2);
    stopped(gateway).await;
}

/// The spool's own bound, with control away.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_is_told_and_drains() {
    let small = |config: &mut Config| config.spool.bytes_max = 1 << 20;
    let (site, pump, gateway) = plant_with(&SimDisk::new(1), small).await;
    site.set_mood(Mood::Away);
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let mut sequence = 0;
    while client.publish(&pump.topic(), 1, &long_message(&pump, sequence)).await == 0 {
        sequence += 1;
    }
    assert!((20..40).contains(&sequence), "{sequence}");
    assert_eq!(gateway.metrics().refused(Refusal::SpoolFull), 1);
    // A short one would fit, and overtake it.
    let short = pump.message(1, sequence + 1, None);
    assert_eq!(client.publish(&pump.topic(), 2, &short).await, 0x97);
    assert_eq!(gateway.metrics().refused(Refusal::BehindRefused), 1);
    site.set_mood(Mood::Takes);
    site.has_taken(sequence as usize).await;
    publish_until_taken(gateway.local_addr(), &pump, &long_message(&pump, sequence)).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &short).await, 0);
    let taken = site.has_taken(sequence as usize + 2).await;
    assert!(taken.iter().map(|t| t.sequence).eq(0..=sequence + 1), "each once, in order");
    stopped(gateway).await;
}

/// One of the longest that a device sends.
fn long_message(pump: &Device, sequence: u64) -> Vec<u8> {
    cose::seal(&pump.header(1, sequence, None), &[0; 30_000], &pump.seal).unwrap()
}

/// As a device does that found no room: it comes again, in a new session each time.
async fn publish_until_taken(at: SocketAddr, pump: &Device, message: &[u8]) {
    let taken = async {
        loop {
            let mut client = Client::connect(at, pump).await;
            match client.publish(&pump.topic(), 1, message).await {
                0 => return,
                code => assert_eq!(code, 0x97),
            }
        }
    };
    within("there is room again", taken).await;
}

/// Something else fills the disk to its last byte. What was taken is handed up, segments go, and there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_a_full_disk_drains_and_makes_room() {
    let disk = SimDisk::new(1);
    let small = |config: &mut Config| config.spool.bytes_max = 1 << 20;
    let (site, pump, mut gateway) = plant_with(&disk, small).await;
    site.set_mood(Mood::Away);
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    for sequence in 0..20 {
        let code = client.publish(&pump.topic(), 1, &long_message(&pump, sequence)).await;
        assert_eq!(code, 0, "{sequence}");
    }
    fill_up(&disk);
    let next = long_message(&pump, 20);
    assert_eq!(client.publish(&pump.topic(), 1, &next).await, 0x97);
    // The way of revocations stays open.
    site.lets_in(&gateway, &[&pump]).await;
    site.set_mood(Mood::Takes);
    site.has_taken(20).await;
    let at = gateway.local_addr();
    tokio::select! {
        failed = gateway.failed() => panic!("a full disk is no failure: {failed}"),
        () = publish_until_taken(at, &pump, &next) => {}
    }
    stopped(gateway).await;
}

/// What is in the spool can be handed up only by a gateway that runs, and it begins an epoch before that.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_on_a_full_disk_or_waits_for_room() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    site.set_mood(Mood::Away);
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0);
    stopped(gateway).await;
    fill_up(&disk);
    site.set_mood(Mood::Takes);
    let gateway = site.gateway(&disk).await;
    assert_eq!(site.has_taken(1).await[0].sequence, 0);
    stopped(gateway).await;

    // Its own room is gone as well: whoever filled the disk has that too.
    let reserve = Path::new("/gw/reserve");
    if disk.exists(reserve).unwrap() {
        disk.remove(reserve).unwrap();
    }
    disk.set_capacity(0);
    let before = disk.operations();
    let room_is_made = async {
        eventually("it tries again", || disk.operations() > before + 12).await;
        disk.set_capacity(u64::MAX);
    };
    let (gateway, ()) = tokio::join!(site.gateway(&disk), room_is_made);
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 1, None)).await, 0);
    site.has_taken(2).await;
    stopped(gateway).await;
}

/// INV-ACK-1: after a failed sync nobody hears yes, and the gateway says that its process must stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_gateway() {
    let disk = SimDisk::new(1);
    let (site, pump, mut gateway) = plant(&disk).await;
    site.set_mood(Mood::Away);
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    let topic = pump.topic();
    assert_eq!(client.publish(&topic, 1, &pump.message(1, 0, None)).await, 0);
    disk.set_sync_mode(SyncMode::FailsFrom(0));
    client.send(&publish(&topic, 2, &pump.message(1, 1, None))).await;
    let failed = within("it says that it has failed", gateway.failed()).await;
    assert!(matches!(failed, GatewayError::SpoolFailed));
    assert!(matches!(within("it ends", gateway.stop()).await, Err(GatewayError::SpoolFailed)));
    assert_eq!(client.end().await, Some(0x8b), "no PUBACK came before the end");
    // The next process finds what was acknowledged.
    disk.set_sync_mode(SyncMode::Honest);
    disk.cut_now();
    disk.reboot();
    site.set_mood(Mood::Takes);
    let gateway = site.gateway(&disk).await;
    assert_eq!(site.has_taken(1).await[0].sequence, 0);
    stopped(gateway).await;
}
