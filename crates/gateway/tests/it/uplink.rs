//! Handing up: until control has answered, in order, across outages, refusals and restarts.

use crate::client::Client;
use crate::site::{Device, Mood, eventually, plant, stopped};
use disk::SimDisk;
use model::uplink::{QuarantineReason, Verdict};

async fn publish(client: &mut Client, pump: &Device, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        let message = pump.message(1, sequence, client.nonce);
        assert_eq!(client.publish(&pump.topic(), 1, &message).await, 0);
    }
}

/// INV-ACK-1: whatever control says, short of one verdict a record, nothing is forgotten; what it says in the end is
/// heard once for each record, in order.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dropped_until_control_has_answered_for_it() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    for (mood, next) in [
        (Mood::Away, 5),
        (Mood::Says(503), 10),
        (Mood::Says(429), 15),
        (Mood::Says(403), 20),
        (Mood::Says(409), 25),
        (Mood::Miscounts, 30),
    ] {
        site.set_mood(mood.clone());
        publish(&mut client, &pump, next - 5..next).await;
        site.was_called(2).await;
        assert_eq!(site.taken(), [], "{mood:?}");
        assert_eq!(gateway.metrics().spool_records.get(), next as i64, "{mood:?}");
    }
    let metrics = gateway.metrics();
    assert!(metrics.uplink_retries.get() >= 3 && metrics.uplink_refused.get() >= 2);
    assert!(metrics.uplink_bad_replies.get() >= 1);
    site.set_mood(Mood::Takes);
    let taken = site.has_taken(30).await;
    assert!(taken.iter().map(|t| t.sequence).eq(0..30), "{taken:?}");
    assert!(taken.iter().all(|t| t.fresh && t.bundle == 1 && t.device == "pump-1"));
    eventually("the spool is empty", || metrics.spool_records.get() == 0).await;
    stopped(gateway).await;
}

/// INV-REPLAY-2: each batch is sealed under a counter of its own, and a restart begins a higher epoch.
#[tokio::test(flavor = "multi_thread")]
async fn batches_count_up_over_restarts_with_the_spool_full() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    publish(&mut client, &pump, 0..3).await;
    site.has_taken(3).await;
    site.set_mood(Mood::Away);
    publish(&mut client, &pump, 3..6).await;
    site.was_called(1).await;
    // The process dies without a word, and the power with it.
    drop(gateway);
    disk.cut_now();
    disk.reboot();
    let gateway = site.gateway(&disk).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    publish(&mut client, &pump, 6..9).await;
    site.set_mood(Mood::Takes);
    eventually("all are taken", || site.taken().iter().any(|t| t.sequence == 8)).await;
    // At least once, and in order: what was handed up before the cut may come again.
    let mut sequences: Vec<u64> = site.taken().iter().map(|t| t.sequence).collect();
    let news = sequences.split_off(3);
    assert_eq!(sequences, [0, 1, 2]);
    assert!(news.is_sorted() && news.ends_with(&[3, 4, 5, 6, 7, 8]), "{news:?}");
    let batches = site.batches();
    let counters: Vec<_> = batches.iter().map(|(_, counter)| *counter).collect();
    assert!(counters.windows(2).all(|pair| pair[0] < pair[1]), "{counters:?}");
    assert_eq!(counters.first().unwrap().epoch, 1);
    assert_eq!(counters.last().unwrap().epoch, 2);
    stopped(gateway).await;
}

/// A clean end keeps the cursor: nothing is handed up twice.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_clean_end_nothing_is_handed_up_twice() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    publish(&mut client, &pump, 0..4).await;
    site.has_taken(4).await;
    eventually("the answer is heard", || gateway.metrics().spool_records.get() == 0).await;
    stopped(gateway).await;
    let gateway = site.gateway(&disk).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    publish(&mut client, &pump, 4..5).await;
    let taken = site.has_taken(5).await;
    assert!(taken.iter().map(|t| t.sequence).eq(0..5));
    stopped(gateway).await;
}

/// Every verdict is final: one bad record holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn every_verdict_moves_the_spool() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    for (i, verdict) in
        [Verdict::Known, Verdict::Quarantined(QuarantineReason::Equivocation), Verdict::Stored]
            .into_iter()
            .enumerate()
    {
        site.set_mood(Mood::Judges(verdict));
        publish(&mut client, &pump, i as u64..i as u64 + 1).await;
        eventually("answered", || gateway.metrics().spool_records.get() == 0).await;
    }
    let text = String::from_utf8(gateway.metrics().text()).unwrap();
    for line in [
        "plimsoll_gateway_uplink_records_total{verdict=\"known\"} 1",
        "plimsoll_gateway_uplink_records_total{verdict=\"quarantined\"} 1",
        "plimsoll_gateway_uplink_records_total{verdict=\"stored\"} 1",
        "plimsoll_gateway_uplink_quarantined_total{reason=\"equivocation\"} 1",
    ] {
        assert!(text.contains(line), "{line}");
    }
    stopped(gateway).await;
}

/// A record says under which bundle it was admitted, also when it is handed up under a later one.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_keeps_the_bundle_that_it_was_admitted_under() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    site.set_mood(Mood::Away);
    publish(&mut client, &pump, 0..2).await;
    let generation = site.publish(vec![pump.entry()]);
    eventually("the bundle is taken", || gateway.generation() == generation).await;
    publish(&mut client, &pump, 2..4).await;
    site.set_mood(Mood::Takes);
    let taken = site.has_taken(4).await;
    let told: Vec<_> = taken.iter().map(|t| (t.sequence, t.bundle)).collect();
    assert_eq!(told, [(0, 1), (1, 1), (2, 2), (3, 2)]);
    stopped(gateway).await;
}
