use super::*;
use crate::clock::FLOOR;
use crate::update::kit::{World, device, hardware, product, target};
use model::manifest::{Boot, Component, Installed, Slot as Side};
use model::{SecurityVersion, Timestamp, Version};
use trust::tuf::{Custom, Target, Trusted, Update};

const V: fn(u32) -> Version = |minor| Version::new(1, minor, 0);
const NOW: Timestamp = Timestamp(FLOOR.as_us() + 1_000_000);

/// What both repositories say to a device that runs 1.0.0, when the Director orders this. There is no other way to an
/// `Install`.
fn verdict(order: &Target) -> Verdict {
    verdict_of(&[target(V(0), 1, None), target(V(1), 1, None), target(V(2), 1, None)], order)
}

fn verdict_of(published: &[Target], order: &Target) -> Verdict {
    let mut world = World::new(NOW, published);
    world.direct(std::slice::from_ref(order));
    let [director, images] = world.first_roots();
    let mut director = Update::begin(Trusted::from_root(&director, Some(device())).unwrap(), NOW);
    let files = world.directed(device().as_str());
    for file in [None, Some(&files.timestamp), Some(&files.snapshot), Some(&files.targets)] {
        match file {
            Some(file) => drop(director.take(&file.0).unwrap()),
            None => drop(director.absent().unwrap()),
        }
    }
    let mut images = Update::begin(Trusted::from_root(&images, None).unwrap(), NOW);
    while let Some(fetch) = images.next() {
        match world.images.get(&fetch.name) {
            Some(bytes) => drop(images.take(bytes).unwrap()),
            None => drop(images.absent().unwrap()),
        }
    }
    let runs = trust::digest(&crate::update::kit::image(V(0)));
    let me = Component {
        product: product(),
        hardware: hardware(),
        floor: SecurityVersion(1),
        running: Side::A,
        boot: Boot::Confirmed,
        slots: [
            Some(Installed {
                version: V(0),
                digest: runs,
                length: 10_000,
                security_version: SecurityVersion(1),
            }),
            None,
        ],
    };
    let (director, images) = (director.into_trusted(), images.into_trusted());
    let (director, images) = (director.current(NOW).unwrap(), images.current(NOW).unwrap());
    crate::update::product::verdict(&director, &images, &device(), &me)
}

fn ordered(minor: u32, rollout: &str) -> (Install, Ordered) {
    match verdict(&target(V(minor), 1, Some(rollout))) {
        Verdict::Install(install, order) => (install, order),
        other => panic!("{other:?}"),
    }
}

fn assessed(verdict: &Verdict, may_arm: Result<(), NotNow>) -> Event<'_> {
    Event::Assessed { verdict, newest: None, may_arm }
}

fn idle() -> Installer {
    let mut installer = Installer::default();
    assert_eq!(installer.on(Event::Loaded(Reason::Confirmed), 0), []);
    installer
}

/// As far as an image that waits to be armed.
fn whole(install: &Install, order: &Ordered) -> Installer {
    let mut installer = idle();
    let wants = Verdict::Install(install.clone(), order.clone());
    let effects = installer.on(assessed(&wants, Err(NotNow::NoLease)), 0);
    assert_eq!(effects, [Effect::Fetch(install.clone(), order.clone())]);
    assert_eq!(installer.on(Event::Fetched, 0), [Effect::CheckIn]);
    installer
}

#[test]
fn an_order_is_fetched_armed_under_a_fresh_lease_tried_and_confirmed() {
    let (install, order) = ordered(1, "r-1");
    let mut installer = whole(&install, &order);
    let wants = Verdict::Install(install.clone(), order.clone());
    assert_eq!(
        installer.on(assessed(&wants, Ok(())), 0),
        [Effect::Arm(install.clone(), order.clone())]
    );
    assert_eq!(installer.on(Event::Armed, 0), [Effect::Restart]);
    assert_eq!(installer.on(Event::Loaded(Reason::Trial), 0), []);
    assert_eq!(installer.stage(), "trial");
    let effects = installer.on(Event::Healthy(Slot::B), 0);
    assert_eq!(effects, [Effect::Confirm(Slot::B), Effect::CheckIn]);
    assert_eq!(installer.stage(), "idle");
}

/// INV-ROLL-1, attacked: from an image that is whole, whatever is wrong with the lease, or with the order.
#[test]
fn nothing_is_armed_without_a_lease_that_allows_it_now() {
    let (install, order) = ordered(1, "r-1");
    let wants = Verdict::Install(install.clone(), order.clone());
    let other = verdict(&target(V(2), 1, Some("r-1")));
    let table: &[(&str, Verdict, Result<(), NotNow>, bool)] = &[
        ("as it should be", wants.clone(), Ok(()), true),
        ("no lease", wants.clone(), Err(NotNow::NoLease), false),
        ("a lease that ran out", wants.clone(), Err(NotNow::RanOut), false),
        ("a lease of long ago", wants.clone(), Err(NotNow::NotFresh), false),
        ("the rollout is halted", wants.clone(), Err(NotNow::Halted), false),
        ("the order is gone", Verdict::Nothing, Ok(()), false),
        ("the metadata have ended", Verdict::Unknown, Ok(()), false),
        ("another image is ordered", other, Ok(()), false),
    ];
    for (what, verdict, may_arm, arms) in table {
        let mut installer = whole(&install, &order);
        let effects = installer.on(assessed(verdict, *may_arm), 0);
        let armed = effects.iter().any(|effect| matches!(effect, Effect::Arm(..)));
        assert_eq!(armed, *arms, "{what}: {effects:?}");
    }
    // And not by anything else that happens while it waits.
    let mut installer = whole(&install, &order);
    for event in [
        Event::Fetched,
        Event::Woken,
        Event::Healthy(Slot::B),
        Event::Loaded(Reason::Confirmed),
        Event::NotArmed(NotArmed::NotNow(NotNow::Halted)),
    ] {
        let effects = installer.on(event, 0);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Arm(..))), "{effects:?}");
        assert_eq!(installer.stage(), "whole");
    }
}

#[test]
fn an_order_that_ended_badly_is_not_begun_again_and_another_one_is() {
    let (install, order) = ordered(1, "r-1");
    let wants = Verdict::Install(install.clone(), order.clone());
    let newer = Ordered { generation: order.generation + 7, ..order.clone() };
    for (end, begins) in [
        (InstallEnd::Reverted, false),
        (InstallEnd::Failed, false),
        (InstallEnd::Underway, true),
        (InstallEnd::Confirmed, true),
    ] {
        let newest = Some((&newer, end));
        let event = Event::Assessed { verdict: &wants, newest, may_arm: Ok(()) };
        assert_eq!(!idle().on(event, 0).is_empty(), begins, "{end:?}");
    }
    let (other, second) = ordered(1, "r-2");
    let verdict = Verdict::Install(other.clone(), second.clone());
    let newest = Some((&newer, InstallEnd::Reverted));
    let effects = idle().on(Event::Assessed { verdict: &verdict, newest, may_arm: Ok(()) }, 0);
    assert_eq!(effects, [Effect::Fetch(other, second)], "the same image, of another rollout");
}

#[test]
fn what_is_on_trial_is_not_disturbed() {
    let (install, order) = ordered(1, "r-1");
    let wants = Verdict::Install(install, order);
    for reason in [Reason::Trial, Reason::NoWayBack] {
        let mut installer = Installer::default();
        assert_eq!(installer.on(assessed(&wants, Ok(())), 0), [], "before the loader has chosen");
        assert_eq!(installer.on(Event::Loaded(reason), 0), []);
        let raise = Verdict::Raise(SecurityVersion(2));
        for verdict in [&wants, &raise, &Verdict::Nothing] {
            assert_eq!(installer.on(assessed(verdict, Ok(())), 0), []);
        }
        let why = "it ended".to_owned();
        let failed = Event::Unhealthy { slot: Slot::B, code: 2, why: why.clone() };
        let given_up = Effect::GiveUp { slot: Slot::B, code: 2, why };
        assert_eq!(installer.on(failed, 0), [given_up]);
        assert_eq!(installer.on(assessed(&wants, Ok(())), 0), [], "the loader is asked first");
        assert_eq!(installer.on(Event::Loaded(Reason::Reverted), 0), [Effect::CheckIn]);
    }
}

#[test]
fn an_image_that_is_not_to_be_had_is_asked_for_ever_more_seldom_and_one_that_is_wrong_fails() {
    let (install, order) = ordered(1, "r-1");
    let wants = Verdict::Install(install.clone(), order.clone());
    let fetch = [Effect::Fetch(install, order.clone())];
    let begun = || {
        let mut installer = idle();
        assert_eq!(installer.on(assessed(&wants, Err(NotNow::NoLease)), 0), fetch);
        installer
    };
    let mut installer = begun();
    let mut waits = Vec::new();
    let mut now_ms = 0;
    for _ in 0..9 {
        assert_eq!(installer.on(Event::NotFetched(NotFetched::Broken), now_ms), []);
        let at_ms = installer.wake_ms().unwrap();
        assert_eq!(installer.on(Event::Woken, at_ms - 1), []);
        assert_eq!(installer.on(Event::Woken, at_ms), fetch);
        waits.push((at_ms - now_ms) / 1000);
        now_ms = at_ms;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);

    let mut installer = begun();
    for _ in 1..WRONG_MAX {
        assert_eq!(installer.on(Event::NotFetched(NotFetched::Wrong), 0), []);
        assert_eq!(installer.on(Event::Woken, 3_600_000), fetch);
    }
    let effects = installer.on(Event::NotFetched(NotFetched::Wrong), 0);
    assert!(
        matches!(&effects[..], [Effect::Fail(failed, _), Effect::CheckIn] if failed.is(&order))
    );
    let effects = begun().on(Event::NotFetched(NotFetched::NoRoom), 0);
    assert!(matches!(&effects[..], [Effect::Fail(..), Effect::CheckIn]));
}

/// INV-COST-1.
#[test]
fn an_image_longer_than_any_is_not_begun() {
    let long = |length| {
        let mut target = target(V(1), 1, Some("r-1"));
        target.length = length;
        verdict_of(std::slice::from_ref(&target), &target)
    };
    let longest = long(IMAGE_BYTES_MAX);
    assert!(matches!(&idle().on(assessed(&longest, Ok(())), 0)[..], [Effect::Fetch(..)]));
    let too_long = long(IMAGE_BYTES_MAX + 1);
    let effects = idle().on(assessed(&too_long, Ok(())), 0);
    assert!(matches!(&effects[..], [Effect::Fail(..), Effect::CheckIn]), "{effects:?}");
}

#[test]
fn an_order_that_may_not_be_followed_is_told_once_and_what_may_still_come_is_waited_for() {
    let mut wrong = target(V(1), 1, Some("r-1"));
    if let Custom::Order(order) = &mut wrong.custom {
        order.release.security_version = SecurityVersion(9);
    }
    let refused = verdict(&wrong);
    let Verdict::Refused { order: Some(order), .. } = &refused else { panic!("{refused:?}") };
    let effects = idle().on(assessed(&refused, Ok(())), 0);
    let reason = match &effects[..] {
        [Effect::Fail(failed, reason), Effect::CheckIn] if failed == order => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason.starts_with("differs: "), "{reason}");
    let newest = Some((order, InstallEnd::Failed));
    let again = Event::Assessed { verdict: &refused, newest, may_arm: Ok(()) };
    assert_eq!(idle().on(again, 0), []);
    // Not published yet.
    let early = verdict(&target(V(3), 1, Some("r-1")));
    assert!(matches!(&early, Verdict::Refused { why: uptane::Refused::NotPublished { .. }, .. }));
    assert_eq!(idle().on(assessed(&early, Ok(())), 0), []);
}

/// Explored at random, INV-IMG-1 and INV-ROLL-1: whatever happens in whatever order, nothing is armed but what was ordered by
/// both in this very answer, under a lease that allows it, and lies whole in its slot; nothing is armed or fetched beside a
/// trial.
#[test]
fn in_no_order_of_events_is_anything_armed_that_was_not_ordered_whole_and_allowed() {
    let orders = [ordered(1, "r-1"), ordered(2, "r-1"), ordered(1, "r-2")];
    let verdicts = orders.clone().map(|(install, order)| Verdict::Install(install, order));
    let (mut armed, mut trials) = (0, 0);
    for seed in 1..=2_000u64 {
        let mut x = seed;
        let mut random = |n: u64| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 33) % n
        };
        let mut installer = Installer::default();
        let (mut fetching, mut is_whole): (Option<Ordered>, Option<Ordered>) = (None, None);
        let mut on_trial = false;
        let mut now_ms = 0;
        for _ in 0..60 {
            now_ms += random(40_000);
            let mut allowed = None;
            let event = match random(12) {
                0..=3 => {
                    let n = random(3) as usize;
                    let (_, order) = &orders[n];
                    let may_arm = if random(3) > 0 { Ok(()) } else { Err(NotNow::Halted) };
                    let over = random(8) == 0;
                    let newest = over.then_some((order, InstallEnd::Reverted));
                    allowed = Some(order.clone()).filter(|_| may_arm.is_ok() && !over);
                    Event::Assessed { verdict: &verdicts[n], newest, may_arm }
                }
                4 => assessed(&Verdict::Nothing, Ok(())),
                5 | 6 if fetching.is_some() => {
                    is_whole = fetching.clone();
                    Event::Fetched
                }
                7 => Event::NotFetched(
                    [NotFetched::Broken, NotFetched::Wrong][random(2) as usize].clone(),
                ),
                8 => Event::Loaded(
                    [Reason::Confirmed, Reason::Trial, Reason::Reverted][random(3) as usize],
                ),
                9 => Event::Healthy(Slot::B),
                10 => Event::Unhealthy { slot: Slot::B, code: 1, why: String::new() },
                _ => Event::Woken,
            };
            if let Event::Loaded(reason) = &event {
                on_trial = reason.is_trial();
                trials += u32::from(on_trial);
            }
            let mut effects = installer.on(event, now_ms);
            while let Some(effect) = effects.pop() {
                match effect {
                    Effect::Fetch(_, order) => {
                        assert!(!on_trial, "seed {seed}: fetches beside a trial");
                        (fetching, is_whole) = (Some(order), None);
                    }
                    Effect::Arm(install, order) => {
                        let by = allowed.as_ref().is_some_and(|allowed| *allowed == order);
                        assert!(by && install.digest() == order.digest, "seed {seed}: not allowed");
                        assert!(is_whole.as_ref().is_some_and(|w| w.is(&order)), "seed {seed}");
                        assert!(!on_trial, "seed {seed}: armed beside a trial");
                        armed += 1;
                        let event = match random(3) {
                            0 => Event::NotArmed(NotArmed::NotWhole),
                            _ => Event::Armed,
                        };
                        effects.extend(installer.on(event, now_ms));
                    }
                    Effect::Confirm(_) | Effect::GiveUp { .. } => {
                        assert!(on_trial, "seed {seed}: nothing is on trial");
                        on_trial = false;
                    }
                    Effect::StopFetch => fetching = None,
                    Effect::Raise(_) | Effect::Fail(..) | Effect::CheckIn | Effect::Restart => {}
                }
            }
        }
    }
    println!("{armed} armed, {trials} trials, seeds 1 to 2,000");
    assert!(armed > 300 && trials > 500, "the walk comes by what it is about");
}
