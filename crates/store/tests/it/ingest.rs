//! What a batch comes to: the pure part, without bus, disk or clock.

use crate::plant::{Device, START_US, batch, judged, reading, readings};
use model::envelope::{LossCause, LostRange, encode_loss};
use model::uplink::QuarantineReason;
use model::{Counter, Kind};
use store::ingest::{Intake, ingest};
use store::memory::{Memory, NAMED_KEYS_MAX};

fn device() -> Device {
    Device::new("pump-7", 1)
}

fn take(memory: &mut Memory, device: &Device, messages: &[&[u8]]) -> Intake {
    let entries = messages.iter().map(|message| device.entry(message.to_vec())).collect();
    ingest(memory, batch(entries))
}

/// (news, repeats, reasons)
fn outcome(intake: &Intake) -> (u64, u64, Vec<&'static str>) {
    let reasons = intake.quarantined.iter().map(|one| one.reason.as_str()).collect();
    (intake.news, intake.repeats, reasons)
}

#[test]
fn inv_replay_1_a_message_takes_effect_once_however_often_it_comes() {
    let (mut memory, mut device) = (Memory::default(), device());
    let message = device.seal(&readings("t", START_US, 3));
    let intake = take(&mut memory, &device, &[&message, &message]);
    assert_eq!(outcome(&intake), (1, 1, vec![]));
    assert_eq!(intake.packs[0].readings.len(), 3);
    for _ in 0..3 {
        assert_eq!(outcome(&take(&mut memory, &device, &[&message])), (0, 1, vec![]));
    }
}

#[test]
fn messages_that_come_out_of_order_all_take_effect() {
    let (mut memory, mut device) = (Memory::default(), device());
    let messages: Vec<_> = (0..9).map(|i| device.seal(&readings("t", START_US + i, 1))).collect();
    for i in [4, 0, 8, 2, 6, 1, 3, 5, 7] {
        assert_eq!(outcome(&take(&mut memory, &device, &[&messages[i]])), (1, 0, vec![]));
    }
    assert_eq!(memory.gaps().count(), 0);
}

/// Each starts from what is accepted and changes one thing.
#[test]
fn what_is_not_taken_is_in_quarantine_with_its_reason_and_its_bytes() {
    type Change = fn(&mut Memory, &mut Device, Vec<u8>) -> Vec<u8>;
    let table: &[(&str, Change)] = &[
        ("malformed", |_, _, mut message| {
            message.pop();
            message
        }),
        ("malformed", |_, device, _| device.seal_as(Kind::Readings, b"\x80")),
        ("malformed", |_, device, _| device.seal_as(Kind::LossNotice, b"\xf6")),
        ("malformed", |_, device, _| device.seal_as(Kind::UplinkBatch, b"")),
        ("equivocation", |memory, device, message| {
            take(memory, device, &[&message]);
            device.next.sequence -= 1;
            device.seal(&[reading("t", START_US, 99.0)])
        }),
        ("gap_closed", |memory, device, message| {
            let notice = device.state_lost(0, 0);
            take(memory, device, &[&notice]);
            message
        }),
        ("after_end", |memory, device, message| {
            take(memory, device, &[&message]);
            let ended = device.next;
            device.restart();
            let first = device.seal(&readings("t", START_US, 1));
            take(memory, device, &[&first]);
            device.next = ended;
            device.seal(&readings("t", START_US, 1))
        }),
    ];
    for (reason, change) in table {
        let (mut memory, mut device) = (Memory::default(), device());
        let accepted = device.seal(&readings("t", START_US, 1));
        let mut untouched = Memory::default();
        assert_eq!(outcome(&take(&mut untouched, &device, &[&accepted])), (1, 0, vec![]));
        let changed = change(&mut memory, &mut device, accepted);
        let before = memory.clone();
        let intake = take(&mut memory, &device, &[&changed]);
        assert_eq!(outcome(&intake), (0, 0, vec![*reason]));
        assert_eq!(intake.quarantined[0].message, changed, "{reason}");
        assert_eq!(memory, before, "{reason}: what is not taken changes nothing");
    }
}

#[test]
fn what_uplink_judged_goes_to_quarantine_and_takes_no_counter() {
    let (mut memory, mut device) = (Memory::default(), device());
    let message = device.seal(&readings("t", START_US, 2));
    for reason in QuarantineReason::ALL {
        let entry = judged(device.entry(message.clone()), *reason);
        let intake = ingest(&mut memory, batch(vec![entry]));
        assert_eq!(outcome(&intake), (0, 0, vec![reason.as_str()]));
        let claims = Some((device.key_id(), Counter { epoch: 1, sequence: 0 }));
        assert_eq!(intake.quarantined[0].claims, claims);
    }
    assert_eq!(memory, Memory::default());
    assert_eq!(outcome(&take(&mut memory, &device, &[&message])), (1, 0, vec![]));
}

#[test]
fn quarantine_keeps_bytes_that_nobody_can_read() {
    let mut memory = Memory::default();
    let entry = judged(device().entry(b"\xff\x00".to_vec()), QuarantineReason::Malformed);
    let intake = ingest(&mut memory, batch(vec![entry]));
    assert_eq!(intake.quarantined[0].claims, None);
    assert_eq!(intake.quarantined[0].message, b"\xff\x00");
}

#[test]
fn a_missing_tail_is_seen_across_a_change_of_keys() {
    let (mut memory, mut device) = (Memory::default(), device());
    let first = device.seal(&readings("t", START_US, 1));
    let (_late, old) = (device.seal(&readings("t", START_US, 1)), device.key_id());
    device.rotate(2);
    let next = device.seal(&readings("t", START_US, 1));
    take(&mut memory, &device, &[&first, &next]);
    let gaps = memory.taken(&device.id, &old).unwrap().open_gaps();
    assert_eq!(gaps, vec![(1, 1, 1)]);
    assert_eq!(memory.gaps().count(), 1);
}

#[test]
fn a_key_of_which_nothing_came_is_remembered_when_its_successor_names_it() {
    let (mut memory, mut device) = (Memory::default(), device());
    let lost: Vec<_> = (0..3).map(|_| device.seal(&readings("t", START_US, 1))).collect();
    let old = device.key_id();
    device.rotate(2);
    let next = device.seal(&readings("t", START_US, 1));
    take(&mut memory, &device, &[&next]);
    assert_eq!(memory.taken(&device.id, &old).unwrap().open_gaps(), vec![(1, 0, 2)]);
    assert_eq!(outcome(&take(&mut memory, &device, &[&lost[1]])), (1, 0, vec![]));
}

#[test]
fn a_device_that_names_the_key_of_another_changes_only_what_is_remembered_of_itself() {
    let mut memory = Memory::default();
    let (mut honest, mut liar) = (device(), Device::new("liar-1", 3));
    let first = honest.seal(&readings("t", START_US, 1));
    take(&mut memory, &honest, &[&first]);
    // Says that all of the other's counters are lost, and that its epoch has ended.
    let (key, cause) = (honest.key_id(), LossCause::Refused);
    let range = LostRange { key, epoch: 1, first: 0, last: u64::MAX, cause };
    let notice = liar.seal_as(Kind::LossNotice, &encode_loss(&[range]));
    take(&mut memory, &liar, &[&notice]);
    let second = honest.seal(&readings("t", START_US, 1));
    assert_eq!(outcome(&take(&mut memory, &honest, &[&second])), (1, 0, vec![]));
}

#[test]
fn inv_cost_1_a_device_that_names_ever_new_keys_is_remembered_a_bounded_number_of_them() {
    let (mut memory, mut device) = (Memory::default(), device());
    let mut beyond = 0;
    for seed in 0..4 {
        let named = |i: u8| LostRange {
            key: model::KeyId([seed * 50 + i; 32]),
            epoch: 1,
            first: 0,
            last: 3,
            cause: LossCause::Unreadable,
        };
        let ranges: Vec<_> = (1..=50).map(named).collect();
        let notice = device.seal_as(Kind::LossNotice, &encode_loss(&ranges));
        let intake = take(&mut memory, &device, &[&notice]);
        assert_eq!(intake.losses.len(), 50, "what it says is kept");
        beyond += intake.keys_not_remembered;
    }
    assert_eq!(beyond, 200 - (NAMED_KEYS_MAX as u64 - 1));
    // Its own key is never one too many.
    device.rotate(77);
    let message = device.seal(&readings("t", START_US, 1));
    assert_eq!(outcome(&take(&mut memory, &device, &[&message])), (1, 0, vec![]));
}

#[test]
fn a_loss_notice_closes_its_ranges_and_says_why() {
    let (mut memory, mut device) = (Memory::default(), device());
    let first = device.seal(&readings("t", START_US, 1));
    let dropped = device.seal(&readings("t", START_US, 1));
    let last = device.seal(&readings("t", START_US, 1));
    take(&mut memory, &device, &[&first, &last]);
    assert_eq!(memory.gaps().count(), 1);
    let notice = device.state_lost(1, 1);
    let intake = take(&mut memory, &device, &[&notice]);
    assert_eq!(memory.gaps().count(), 0);
    let range = intake.losses[0].range;
    assert_eq!((range.epoch, range.first, range.last), (1, 1, 1));
    assert_eq!(range.cause, LossCause::BacklogFull);
    let late = take(&mut memory, &device, &[&dropped]);
    assert_eq!(outcome(&late), (0, 0, vec!["gap_closed"]));
}
