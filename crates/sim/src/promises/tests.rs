//! Each starts from a record and a scan with which every promise holds, changes one thing, and sees its line turn red.

use super::*;

/// A day of two devices: `a` is with gw-1, then with gw-2, and killed in between; `b` stays with gw-1.
struct Day {
    acks: Vec<Ack>,
    stored: Vec<Reading>,
    quarantine: Vec<SetApart>,
    kills: Vec<Kill>,
}

impl Day {
    fn good() -> Self {
        let mut acks = Vec::new();
        for sequence in 0..4 {
            acks.push(ack("gw-1", "a", 1, sequence));
            acks.push(ack("gw-1", "b", 1, sequence));
        }
        let kill = |victim, before: &[Ack], after: &[Ack]| Kill {
            victim,
            before: before.to_vec(),
            after: after.to_vec(),
        };
        let dead = acks.clone();
        acks.push(ack("gw-2", "a", 2, 0));
        let mut kills = vec![kill(Victim::Device("a".into()), &dead, &acks)];
        let dead = acks.clone();
        acks.push(ack("gw-2", "b", 1, 4));
        let victim = Victim::Gateway { gateway: "gw-2".into(), witness: "b".into() };
        kills.push(kill(victim, &dead, &acks));
        let dead = acks.clone();
        acks.push(ack("gw-2", "b", 1, 5));
        kills.push(kill(Victim::Control, &dead, &acks));
        // Two files of one shard: the second begins with record 10.
        let rows = acks.iter().enumerate().flat_map(|(i, ack)| {
            (0..2).map(move |index| Reading {
                key: ack.sealed.key.clone(),
                epoch: ack.sealed.epoch,
                sequence: ack.sealed.sequence,
                index,
                gateway: ack.gateway.clone(),
                // Several at one moment are in order.
                received_at_us: i as i64 / 4,
                file_first: if i < 5 { 0 } else { 10 },
            })
        });
        let stored = rows.collect();
        Self { acks, stored, quarantine: Vec::new(), kills }
    }

    fn lines(self) -> [Line; 4] {
        let comparison = Comparison::of(&self.acks, self.stored, &self.quarantine);
        [
            comparison.exactly_once(),
            comparison.in_order(),
            comparison.quarantine_is_empty(),
            comparison.went_on(&self.kills),
        ]
    }

    fn row(&mut self, key: &str, epoch: u32, sequence: u64, index: u32) -> &mut Reading {
        let wanted = |r: &&mut Reading| {
            (r.key.as_str(), r.epoch, r.sequence, r.index) == (key, epoch, sequence, index)
        };
        self.stored.iter_mut().find(wanted).expect("a row of this day")
    }
}

const ONCE: usize = 0;
const ORDER: usize = 1;
const QUARANTINE: usize = 2;
const WENT_ON: usize = 3;

fn ack(gateway: &str, device: &str, epoch: u32, sequence: u64) -> Ack {
    let sealed = Sealed { key: format!("key-{device}"), epoch, sequence, readings: 2 };
    Ack { gateway: gateway.into(), device: device.into(), reason: 0, sealed }
}

/// Spoils a good day; the lines that turn red are exactly these, and the first of them says why.
fn check(spoil: impl FnOnce(&mut Day), red: &[usize], why: &str) {
    let mut day = Day::good();
    spoil(&mut day);
    let lines = day.lines();
    let found: Vec<usize> = (0..lines.len()).filter(|i| !lines[*i].held).collect();
    assert_eq!(found, red, "{lines:#?}");
    if let Some(first) = red.first() {
        assert!(lines[*first].figures.contains(why), "{why:?} in {}", lines[*first].figures);
    }
}

#[test]
fn a_good_day_keeps_every_promise() {
    let lines = Day::good().lines();
    assert!(lines.iter().all(|line| line.held), "{lines:#?}");
    assert_eq!(lines[ORDER].figures, "7 messages against the one before; 0 out of order");
    assert_eq!(
        lines[WENT_ON].figures,
        "3 SIGKILLs\
         \n      a: from epoch 1 to 2\
         \n      gw-2: acknowledged 1 messages of b\
         \n      the control plane: took in 1 new messages"
    );
}

#[test]
fn a_run_without_anything_shows_nothing() {
    let lines = Comparison::default();
    assert!(!lines.exactly_once().held);
    assert!(!lines.in_order().held);
    assert!(!lines.went_on(&[]).held);
}

#[test]
fn what_is_lost_or_doubled_or_set_apart_is_found() {
    // The last one, so that no kill stands behind it.
    let lose = |day: &mut Day| day.stored.retain(|r| (r.sequence, r.index) != (5, 1));
    check(lose, &[ONCE, WENT_ON], "key-b 1 5 2 reading 1");
    let double = |day: &mut Day| {
        let row = day.row("key-a", 1, 2, 0).clone();
        day.stored.push(row);
    };
    check(double, &[ONCE], "(\"key-a\", 1, 2, 0) is there 2 times");
    let set_apart = |day: &mut Day| {
        day.stored.retain(|r| (r.key.as_str(), r.sequence) != ("key-a", 3));
        let (key, reason) = ("key-a".into(), "gap_closed".into());
        day.quarantine.push(SetApart { key, epoch: 1, sequence: 3, reason });
    };
    check(set_apart, &[QUARANTINE], "{\"gap_closed\": 1}");
}

#[test]
fn a_store_that_reorders_is_found_by_the_time_of_receipt() {
    let swap = |day: &mut Day| {
        for index in 0..2 {
            day.row("key-b", 1, 1, index).received_at_us = 1;
            day.row("key-b", 1, 2, index).received_at_us = 0;
        }
    };
    check(swap, &[ORDER], "key-b (1, 2) by gw-1 was received 1 µs before (1, 1)");
    // An epoch counts before a sequence.
    let swap = |day: &mut Day| {
        for index in 0..2 {
            day.row("key-a", 2, 0, index).gateway = "gw-1".into();
            day.row("key-a", 2, 0, index).received_at_us = 0;
        }
    };
    check(swap, &[ORDER], "key-a (2, 0) by gw-1 was received 1 µs before (1, 3)");
}

#[test]
fn an_uplink_that_reorders_is_found_by_the_files() {
    let late = |day: &mut Day| {
        for index in 0..2 {
            day.row("key-b", 1, 0, index).file_first = 10;
        }
    };
    check(late, &[ORDER], "key-b (1, 1) by gw-1 is in a file before that of (1, 0)");
}

#[test]
fn two_gateways_have_no_order_between_them() {
    // gw-1 was cut off: it hands up later what it received earlier, and its clock is another one.
    let late = |day: &mut Day| {
        for row in day.stored.iter_mut().filter(|r| r.gateway == "gw-1") {
            row.file_first = 20;
            row.received_at_us += 1_000_000;
        }
    };
    check(late, &[], "");
    let mut day = Day::good();
    late(&mut day);
    day.stored.retain(|r| r.key == "key-b");
    assert!(Comparison::of(&[], day.stored, &[]).out_of_order.is_empty());
}

#[test]
fn a_repeated_acknowledgement_is_in_order_and_a_late_first_is_not() {
    assert!(
        acked_out_of_order(&[
            ack("gw-1", "a", 0, 1),
            ack("gw-1", "a", 0, 2),
            ack("gw-1", "a", 0, 1),
            ack("gw-1", "a", 1, 0)
        ])
        .is_empty()
    );
    assert!(acked_out_of_order(&[ack("gw-1", "a", 0, 2), ack("gw-2", "a", 0, 1)]).is_empty());
    let late = |day: &mut Day| day.acks.swap(1, 3);
    check(late, &[ORDER], "key-b 1 0 2 acknowledged by gw-1 after (1, 1)");
}

#[test]
fn a_killed_device_that_does_not_begin_a_higher_epoch_is_found() {
    let epoch = |epoch: u32| {
        move |day: &mut Day| day.kills[0].after.last_mut().unwrap().sealed.epoch = epoch
    };
    check(epoch(1), &[WENT_ON], "a: began no higher epoch");
    check(epoch(0), &[WENT_ON], "a: began no higher epoch");
    let other_key = |day: &mut Day| {
        day.kills[0].after.last_mut().unwrap().sealed.key = "key-new".into();
    };
    check(other_key, &[WENT_ON], "a: began no higher epoch");
    let refused = |day: &mut Day| day.kills[0].after.last_mut().unwrap().reason = 0x87;
    check(refused, &[WENT_ON], "a: began no higher epoch");
}

#[test]
fn a_killed_device_that_leaves_out_what_it_had_is_found() {
    let hole = |day: &mut Day| {
        let Kill { before, after, .. } = &mut day.kills[0];
        for acks in [before, after] {
            acks.retain(|ack| (ack.device.as_str(), ack.sealed.sequence) != ("a", 2));
        }
    };
    check(hole, &[WENT_ON], "a: sequence 2 of epoch 1 was never acknowledged");
}

#[test]
fn a_killed_gateway_that_acknowledges_no_more_is_found() {
    let silent = |day: &mut Day| day.kills[1].after = day.kills[1].before.clone();
    check(silent, &[WENT_ON], "gw-2: acknowledged nothing of b that is new");
    let another = |day: &mut Day| day.kills[1].after.last_mut().unwrap().gateway = "gw-1".into();
    check(another, &[WENT_ON], "gw-2: acknowledged nothing of b that is new");
}

#[test]
fn a_killed_control_plane_that_takes_in_no_more_is_found() {
    let silent = |day: &mut Day| day.kills[2].after = day.kills[2].before.clone();
    check(silent, &[WENT_ON], "the control plane: took in nothing that is new");
}

#[test]
fn what_was_acknowledged_before_a_kill_and_is_missing_is_found() {
    let lose = |day: &mut Day| day.stored.retain(|r| (r.key.as_str(), r.epoch) != ("key-a", 2));
    check(lose, &[ONCE, WENT_ON], "key-a 2 0 2 reading 0");
    let mut day = Day::good();
    lose(&mut day);
    let why = "gw-2: of 9 messages acknowledged before its end 1 are missing: key-a 2 0 2";
    let figures = day.lines()[WENT_ON].figures.clone();
    assert!(figures.contains(why), "{figures}");
    assert!(
        figures.contains("a: from epoch 1 to 2"),
        "the device's own kill came earlier: {figures}"
    );
}

#[test]
fn one_counted_violation_breaks_its_promise() {
    assert!(invariants(0.0).held);
    assert!(!invariants(1.0).held);
}
