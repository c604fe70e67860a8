use super::*;
use crate::journal::{Found, decode, encode};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::format;
use std::println;
use std::string::String;
use std::vec::Vec;

const FLOORS: [u32; 3] = [0, 1, 2];

/// Image `n` has security version `n`.
fn image(n: u8) -> Image {
    Image {
        digest: Digest([n; 32]),
        len: 100,
        security: SecurityVersion(n.into()),
        order: Order(n.into()),
    }
}

fn factory() -> State {
    State::new(Slot::A, image(0), SecurityVersion(0)).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Which slots are whole when the device starts.
    Load {
        a: bool,
        b: bool,
    },
    Begin,
    Arm(u8),
    ArmAgain,
    Withdraw,
    Confirm,
    GiveUp,
    Raise(u32),
}

fn events() -> Vec<Event> {
    let mut events =
        Vec::from([Event::Begin, Event::ArmAgain, Event::Withdraw, Event::Confirm, Event::GiveUp]);
    for a in [true, false] {
        events.extend([true, false].map(|b| Event::Load { a, b }));
    }
    events.extend([0, 1, 2].map(Event::Arm));
    events.extend(FLOORS.map(Event::Raise));
    events
}

/// A state, and what runs.
type Device = (State, Slot);

/// Does one event to a device, on the real state machine, and says what is wrong with what came of it. `None`: refused,
/// or nothing starts any more.
fn step((state, running): Device, event: Event) -> Result<Option<Device>, String> {
    let moved = match event {
        Event::Load { a, b } => {
            let whole = |slot| if slot == Slot::A { a } else { b };
            return load(state, whole);
        }
        Event::Begin => state.begin(),
        Event::Arm(n) => state.arm(image(n)),
        Event::ArmAgain => state.arm_again(Order(9)),
        Event::Withdraw => state.withdraw(),
        Event::Confirm => state.confirm(running),
        Event::GiveUp => state.give_up(running, 5),
        Event::Raise(to) => state.raise(SecurityVersion(to)),
    };
    let Ok(next) = moved else { return Ok(None) };
    if matches!(event, Event::Begin)
        && (next.running() == next.spare() || next.spare != Content::Empty)
    {
        return Err(format!("begin gives {next:?} away to be written"));
    }
    if !matches!(event, Event::Confirm) && next.good != state.good {
        return Err(format!("{event:?} changes the good slot"));
    }
    if !matches!(event, Event::Raise(_)) && next.floor != state.floor {
        return Err(format!("{event:?} changes the security version"));
    }
    Ok(Some((next, running)))
}

fn load(state: State, whole: impl Fn(Slot) -> bool) -> Result<Option<Device>, String> {
    let Ok(Decision { choice, next }) = state.decide(|slot, _| whole(slot)) else {
        let mut may = Vec::from([(state.good, state.image)]);
        if let Content::Kept(image) | Content::Armed { image, .. } | Content::Trying { image, .. } =
            state.spare
        {
            may.push((state.spare(), image));
        }
        return match may.iter().find(|(slot, i)| whole(*slot) && i.security >= state.floor) {
            Some((slot, _)) => Err(format!("nothing starts, and slot {slot} could")),
            None => Ok(None),
        };
    };
    let Choice { slot, image, reason, .. } = choice;
    let there = if slot == state.good { Some(&state.image) } else { state.spare.image() };
    let fine = [
        (whole(slot), "it is not whole"),
        (there == Some(&image), "another image lies there"),
        (image.security >= state.floor, "it is below the floor"),
        (next.running() == slot, "the journal names another slot"),
        (next.floor == state.floor, "a load changes the security version"),
        (reason != Reason::Trial || state.phase() == Phase::Armed, "a trial of what is not armed"),
        (
            slot == state.good
                || matches!(
                    state.spare,
                    Content::Kept(_) | Content::Armed { .. } | Content::Trying { .. }
                ),
            "it was neither armed nor confirmed",
        ),
        (slot == state.good || reason != Reason::Confirmed, "the reason is another"),
    ];
    match fine.iter().find(|(fine, _)| !fine) {
        Some((_, what)) => Err(format!("{choice:?}: {what}")),
        None => Ok(Some((next, slot))),
    }
}

fn wrong_with((state, running): Device) -> Option<String> {
    let report = state.report(running);
    let fine = [
        (report.agrees, "what runs is not what the journal says"),
        (state.image.security >= state.floor, "the good image is below the floor"),
        (report.image.is_some(), "nothing is known of what runs"),
        (
            decode(&encode(&state, 3)) == Found::Whole { sequence: 3, state },
            "its record says otherwise",
        ),
    ];
    fine.iter()
        .find(|(fine, _)| !fine)
        .map(|(_, what)| format!("{what}: {state:?}, {running} runs"))
}

/// INV-BOOT-1 and INV-BOOT-2 in every state that any order of moves, starts and damage leads to.
#[test]
fn in_every_state_the_loader_starts_what_is_whole_and_the_journal_names_it() {
    let first: Device = (factory(), Slot::A);
    let mut paths: HashMap<Device, Option<(Device, Event)>> = HashMap::from([(first, None)]);
    let mut open = VecDeque::from([first]);
    let (mut steps, mut phases) = (0, BTreeMap::new());
    while let Some(device) = open.pop_front() {
        *phases.entry(format!("{:?}", device.0.phase())).or_insert(0) += 1;
        for event in events() {
            steps += 1;
            let wrong = match step(device, event) {
                Ok(None) => continue,
                Ok(Some(next)) if paths.contains_key(&next) => continue,
                Ok(Some(next)) => {
                    paths.insert(next, Some((device, event)));
                    open.push_back(next);
                    wrong_with(next)
                }
                Err(what) => Some(what),
            };
            assert_eq!(wrong, None, "{event:?} after {:?}", path(&paths, device));
        }
    }
    println!("{} states, {steps} steps; by phase: {phases:?}", paths.len());
    assert!(paths.len() > 1000, "the exploration came to an early end");
}

fn path(paths: &HashMap<Device, Option<(Device, Event)>>, mut to: Device) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((from, event)) = paths[&to] {
        events.push(event);
        to = from;
    }
    events.reverse();
    events
}

fn after(events: &[Event]) -> State {
    let device = events.iter().try_fold((factory(), Slot::A), |device, event| {
        step(device, *event).expect("nothing is wrong with it")
    });
    device.expect("no move is refused").0
}

const LOAD: Event = Event::Load { a: true, b: true };

/// What bricked others: a security version that was raised with the confirm, so that nothing was left to fall back to.
#[test]
fn a_confirm_keeps_the_way_back_open_and_only_a_raise_closes_it() {
    let confirmed = after(&[Event::Begin, Event::Arm(2), LOAD, Event::Confirm]);
    let only_the_old = |slot: Slot, _: &Image| slot == Slot::A;
    let fell_back = confirmed.decide(only_the_old).unwrap();
    assert_eq!((fell_back.choice.slot, fell_back.choice.reason), (Slot::A, Reason::FellBack));

    let raised = confirmed.raise(SecurityVersion(2)).unwrap();
    assert!(raised.report(Slot::B).spent);
    let stuck = Stuck { good: Obstacle::NotWhole, spare: Obstacle::BelowFloor };
    assert_eq!(raised.decide(only_the_old), Err(stuck));
}

#[test]
fn what_was_armed_before_the_floor_rose_above_it_never_starts() {
    let armed = after(&[
        Event::Begin,
        Event::Arm(2),
        LOAD,
        Event::Confirm,
        Event::Begin,
        Event::Arm(1),
        Event::Raise(2),
    ]);
    let decided = armed.decide(|_, _| true).unwrap();
    assert_eq!((decided.choice.slot, decided.choice.reason), (Slot::B, Reason::NotTried));
    let ended = Ended { order: Order(1), digest: image(1).digest, how: Ending::BelowFloor };
    assert_eq!(decided.next.last(), Some(&ended));
}

#[test]
fn what_was_withdrawn_or_failed_is_not_started_even_if_nothing_else_is_whole() {
    let only_b = |slot: Slot, _: &Image| slot == Slot::B;
    let withdrawn = after(&[Event::Begin, Event::Arm(1), Event::Withdraw]);
    let failed = after(&[Event::Begin, Event::Arm(1), LOAD, LOAD]);
    for state in [withdrawn, failed] {
        let stuck = Stuck { good: Obstacle::NotWhole, spare: Obstacle::Nothing };
        assert_eq!(state.decide(only_b), Err(stuck), "{state:?}");
    }
}

/// Each case starts from a move that is made and changes one thing.
#[test]
fn a_move_that_is_not_drawn_is_refused_with_its_reason() {
    let steady = factory();
    let begun = after(&[Event::Begin]);
    let armed = after(&[Event::Begin, Event::Arm(2)]);
    let trying = after(&[Event::Begin, Event::Arm(2), LOAD]);
    let gave_up = after(&[Event::Begin, Event::Arm(2), LOAD, Event::GiveUp]);
    let confirmed = after(&[Event::Begin, Event::Arm(2), LOAD, Event::Confirm]);
    let raised = after(&[Event::Begin, Event::Arm(2), LOAD, Event::Confirm, Event::Raise(1)]);
    let (low, high) = (SecurityVersion(0), SecurityVersion(1));

    assert!(steady.begin().is_ok() && armed.begin().is_ok());
    assert_eq!(trying.begin(), Err(Refused::OnTrial));

    assert!(begun.arm(image(1)).is_ok());
    assert_eq!(armed.arm(image(2)), Ok(armed), "armed already");
    assert_eq!(armed.arm(image(1)), Err(Refused::NotBegun));
    assert_eq!(confirmed.arm(image(1)), Err(Refused::NotBegun));
    assert_eq!(trying.arm(image(1)), Err(Refused::OnTrial));
    let raised_and_begun = raised.begin().unwrap();
    assert!(raised_and_begun.arm(image(1)).is_ok());
    let below = Refused::BelowFloor { floor: high, found: low };
    assert_eq!(raised_and_begun.arm(image(0)), Err(below));

    assert!(confirmed.arm_again(Order(3)).is_ok() && armed.arm_again(Order(3)).is_ok());
    assert_eq!(begun.arm_again(Order(3)), Err(Refused::Nothing));
    assert_eq!(trying.arm_again(Order(3)), Err(Refused::OnTrial));
    assert_eq!(raised.arm_again(Order(3)), Err(below));

    assert_eq!(steady.withdraw(), Ok(steady));
    assert_eq!(trying.withdraw(), Err(Refused::OnTrial));

    assert!(trying.confirm(Slot::B).is_ok());
    assert_eq!(confirmed.confirm(Slot::B), Ok(confirmed), "confirmed already");
    let not_running = Refused::NotRunning { expected: Slot::B, found: Slot::A };
    assert_eq!(trying.confirm(Slot::A), Err(not_running));
    assert_eq!(gave_up.confirm(Slot::B), Err(Refused::GaveUp(5)));

    assert_eq!(gave_up.give_up(Slot::B, 6), Ok(gave_up), "the first reason stays");
    assert_eq!(trying.give_up(Slot::A, 5), Err(not_running));
    assert_eq!(confirmed.give_up(Slot::B, 5), Err(Refused::NotOnTrial));

    assert!(confirmed.raise(high).is_ok());
    assert_eq!(raised.raise(high), Ok(raised));
    assert_eq!(trying.raise(low), Err(Refused::OnTrial));
    assert_eq!(raised.raise(low), Err(Refused::FloorFalls { floor: high, found: low }));
    let above = Refused::FloorAboveGood { good: SecurityVersion(2), found: SecurityVersion(3) };
    assert_eq!(raised.raise(SecurityVersion(3)), Err(above));
}

#[test]
fn an_operator_reads_what_was_expected_and_what_was_found() {
    let below = Refused::BelowFloor { floor: SecurityVersion(3), found: SecurityVersion(2) };
    let text = format!("{below}");
    assert_eq!(text, "expected an image of security version 3 or later, found 2");
    let stuck = Stuck { good: Obstacle::NotWhole, spare: Obstacle::BelowFloor };
    let expected =
        "no slot may start: the good one is not whole, the spare one is below the security version";
    assert_eq!(format!("{stuck}"), expected);
}
