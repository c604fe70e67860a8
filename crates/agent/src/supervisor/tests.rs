//! An application's life, told event by event.

use super::*;

const SETTINGS: Settings = Settings {
    health: Health { alive_ms: 5_000, reading: true, checked_in: true, script: false },
    trial_ms: 120_000,
    stop_ms: 3_000,
};

fn launch(slot: Slot, on_trial: bool) -> Launch {
    let (byte, minor) = if slot == Slot::A { (0xA0, 0) } else { (0xB0, 1) };
    Launch {
        slot,
        program: format!("/device/slot-{slot}").into(),
        digest: Digest([byte; 32]),
        version: Version::new(1, minor, 0),
        on_trial,
    }
}

fn tell(news: News) -> Vec<Effect> {
    vec![Effect::Tell(news)]
}

/// A supervisor with a time of its own.
struct Bench {
    supervisor: Supervisor,
    now_ms: u64,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let (supervisor, effects) = Supervisor::new(settings);
        assert_eq!(effects, tell(News::Load));
        Self { supervisor, now_ms: 1_000 }
    }

    fn running(settings: Settings, launch: Launch) -> Self {
        let mut bench = Self::new(settings);
        bench.start(launch, 7);
        bench
    }

    fn start(&mut self, launch: Launch, pid: u32) {
        let (slot, on_trial) = (launch.slot, launch.on_trial);
        assert_eq!(self.told(Order::Start(launch.clone())), [Effect::Start(launch)]);
        assert_eq!(self.on(Event::Started { pid }), tell(News::Started { slot, pid, on_trial }));
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        self.supervisor.on(event, self.now_ms)
    }

    fn told(&mut self, order: Order) -> Vec<Effect> {
        self.on(Event::Told(order))
    }

    /// Lets the time pass as a driver would: it is woken at each deadline on the way.
    fn pass(&mut self, ms: u64) -> Vec<Effect> {
        let end_ms = self.now_ms + ms;
        let mut effects = Vec::new();
        let mut wakes = 0;
        while let Some(at_ms) = self.supervisor.deadline_ms().filter(|at_ms| *at_ms <= end_ms) {
            self.now_ms = self.now_ms.max(at_ms);
            effects.extend(self.on(Event::Woken));
            wakes += 1;
            assert!(wakes < 100, "a deadline that has passed was not taken away");
        }
        self.now_ms = end_ms;
        effects
    }

    fn checked_in(&mut self) -> Vec<Effect> {
        self.told(Order::CheckedIn { current: true })
    }
}

#[test]
fn an_image_on_trial_is_healthy_once_all_is_true_in_any_order_and_is_called_so_once() {
    let healthy = tell(News::Healthy(Slot::B));
    let mut bench = Bench::running(SETTINGS, launch(Slot::B, true));
    assert_eq!(bench.on(Event::Reading), []);
    assert_eq!(bench.checked_in(), []);
    assert_eq!(bench.pass(4_999), []);
    assert_eq!(bench.pass(1), healthy);
    assert_eq!(bench.on(Event::Reading), []);
    assert_eq!(bench.told(Order::Confirmed(Slot::B)), []);
    assert_eq!(bench.pass(1_000_000), []);

    let mut bench = Bench::running(SETTINGS, launch(Slot::B, true));
    assert_eq!(bench.pass(60_000), []);
    assert_eq!(bench.told(Order::CheckedIn { current: false }), []);
    assert_eq!(bench.on(Event::Reading), []);
    assert_eq!(bench.checked_in(), healthy);
}

#[test]
fn what_is_missing_at_the_end_of_a_trial_is_named_and_the_process_is_ended_first() {
    type Shown<'a> = (&'a str, Missing, u16, &'a dyn Fn(&mut Bench));
    let all = |bench: &mut Bench| {
        bench.on(Event::Reading);
        bench.checked_in();
    };
    let table: [Shown; 4] = [
        ("no reading", Missing::Reading, 11, &|bench| drop(bench.checked_in())),
        ("no check-in", Missing::CheckIn, 12, &|bench| drop(bench.on(Event::Reading))),
        ("older metadata", Missing::CurrentMetadata, 13, &|bench| {
            bench.on(Event::Reading);
            bench.told(Order::CheckedIn { current: false });
        }),
        ("no confirmation", Missing::Confirmation, 15, &all),
    ];
    for (what, missing, code, show) in table {
        let mut bench = Bench::running(SETTINGS, launch(Slot::B, true));
        show(&mut bench);
        bench.pass(119_999);
        assert_eq!(bench.pass(1), [Effect::Terminate], "{what}");
        let why = Why::Late { missing, trial_ms: 120_000 };
        assert_eq!(why.code(), code);
        let told = [News::Unhealthy { slot: Slot::B, why }, News::Load].map(Effect::Tell);
        assert_eq!(bench.on(Event::Exited(Exit::Signal(15))), told, "{what}");
    }
}

#[test]
fn an_image_that_ends_on_trial_is_given_up_and_what_was_before_starts_at_once() {
    let mut bench = Bench::running(SETTINGS, launch(Slot::B, true));
    bench.on(Event::Reading);
    bench.checked_in();
    bench.pass(1_200);
    let why = Why::Exited { how: Exit::Code(3), after_ms: 1_200 };
    assert_eq!(why.to_string(), "ended with code 3 after 1200 ms on trial");
    let told = [News::Unhealthy { slot: Slot::B, why }, News::Load].map(Effect::Tell);
    assert_eq!(bench.on(Event::Exited(Exit::Code(3))), told);
    bench.start(launch(Slot::A, false), 8);
    assert_eq!(bench.pass(1_000_000), []);
}

#[test]
fn what_does_not_even_start_on_trial_is_given_up() {
    let mut bench = Bench::new(SETTINGS);
    bench.told(Order::Start(launch(Slot::B, true)));
    let why = Why::NotStarted("exec format error".into());
    let told = [News::Unhealthy { slot: Slot::B, why }, News::Load].map(Effect::Tell);
    assert_eq!(bench.on(Event::NotStarted("exec format error".into())), told);
}

#[test]
fn one_that_was_healthy_and_ends_before_it_is_confirmed_is_given_up_too() {
    let mut bench = Bench::running(SETTINGS, launch(Slot::B, true));
    bench.on(Event::Reading);
    bench.checked_in();
    assert_eq!(bench.pass(5_000), tell(News::Healthy(Slot::B)));
    let effects = bench.on(Event::Exited(Exit::Signal(11)));
    assert!(matches!(effects[0], Effect::Tell(News::Unhealthy { slot: Slot::B, .. })));
}

#[test]
fn where_there_is_no_way_back_the_same_image_comes_again_ever_more_seldom() {
    let mut bench = Bench::running(SETTINGS, launch(Slot::B, true));
    assert_eq!(bench.on(Event::Exited(Exit::Code(1))).len(), 2);
    for pause_ms in [1_000, 2_000, 4_000] {
        bench.start(launch(Slot::B, true), 8);
        let effects = bench.on(Event::Exited(Exit::Code(1)));
        assert!(matches!(effects[..], [Effect::Tell(News::Unhealthy { .. })]), "{effects:?}");
        assert_eq!(bench.pass(pause_ms - 1), []);
        assert_eq!(bench.pass(1), tell(News::Load));
    }
}

#[test]
fn a_confirmed_image_that_ends_is_loaded_again_after_a_pause_that_grows_to_a_minute() {
    let mut bench = Bench::running(SETTINGS, launch(Slot::A, false));
    for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
        let (slot, how) = (Slot::A, "was killed by signal 9".into());
        let told = tell(News::Ended { slot, how, pause_ms });
        assert_eq!(bench.on(Event::Exited(Exit::Signal(9))), told);
        assert_eq!(bench.pass(pause_ms - 1), []);
        assert_eq!(bench.pass(1), tell(News::Load));
        bench.start(launch(Slot::A, false), 8);
    }
    // Who stood for a minute has not failed at its start.
    bench.pass(60_000);
    let effects = bench.on(Event::Exited(Exit::Code(0)));
    assert!(matches!(effects[..], [Effect::Tell(News::Ended { pause_ms: 1_000, .. })]));
}

#[test]
fn a_restart_ends_what_runs_and_kills_what_does_not_end_before_anything_else_starts() {
    let mut bench = Bench::running(SETTINGS, launch(Slot::A, false));
    assert_eq!(bench.told(Order::Restart), [Effect::Terminate]);
    assert_eq!(bench.told(Order::Restart), []);
    // Not while the old one runs.
    assert_eq!(bench.told(Order::Start(launch(Slot::B, true))), []);
    assert_eq!(bench.pass(2_999), []);
    assert_eq!(bench.pass(1), [Effect::Kill]);
    assert_eq!(bench.pass(1_000_000), []);
    assert_eq!(bench.on(Event::Exited(Exit::Signal(9))), tell(News::Load));
    bench.start(launch(Slot::B, true), 8);
}

#[test]
fn a_restart_during_a_pause_loads_at_once_and_during_a_load_changes_nothing() {
    let mut bench = Bench::running(SETTINGS, launch(Slot::A, false));
    bench.on(Event::Exited(Exit::Code(1)));
    assert_eq!(bench.told(Order::Restart), tell(News::Load));
    assert_eq!(bench.told(Order::Restart), []);
    bench.start(launch(Slot::B, true), 8);
}

#[test]
fn an_end_ends_what_runs_and_nothing_comes_after_it() {
    let mut bench = Bench::running(SETTINGS, launch(Slot::A, false));
    assert_eq!(bench.told(Order::End), [Effect::Terminate]);
    assert_eq!(bench.on(Event::Exited(Exit::Code(0))), tell(News::Over));
    assert_eq!(bench.told(Order::Restart), []);
    assert_eq!(bench.told(Order::Start(launch(Slot::A, false))), []);

    // Before anything runs, in a pause, and when it comes on top of a failed trial.
    let mut bench = Bench::new(SETTINGS);
    assert_eq!(bench.told(Order::End), tell(News::Over));
    let mut bench = Bench::running(SETTINGS, launch(Slot::A, false));
    bench.on(Event::Exited(Exit::Code(0)));
    assert_eq!(bench.told(Order::End), tell(News::Over));
    let mut bench = Bench::running(SETTINGS, launch(Slot::B, true));
    assert_eq!(bench.pass(120_000), [Effect::Terminate]);
    assert_eq!(bench.told(Order::End), []);
    assert_eq!(bench.on(Event::Exited(Exit::Code(0))), tell(News::Over));
}

#[test]
fn a_restart_that_comes_while_an_image_starts_ends_it_once_it_has() {
    let mut bench = Bench::new(SETTINGS);
    bench.told(Order::Start(launch(Slot::A, false)));
    assert_eq!(bench.told(Order::Restart), []);
    let started = News::Started { slot: Slot::A, pid: 7, on_trial: false };
    assert_eq!(bench.on(Event::Started { pid: 7 }), [Effect::Tell(started), Effect::Terminate]);
    assert_eq!(bench.on(Event::Exited(Exit::Code(0))), tell(News::Load));
}

#[test]
fn the_owners_script_is_asked_last_asked_again_on_not_yet_and_obeyed() {
    let health = Health { script: true, ..SETTINGS.health };
    let settings = Settings { health, ..SETTINGS };
    let asked = || {
        let mut bench = Bench::running(settings, launch(Slot::B, true));
        bench.on(Event::Reading);
        assert_eq!(bench.pass(5_000), []);
        assert_eq!(bench.checked_in(), [Effect::AskScript]);
        assert_eq!(bench.on(Event::Reading), []);
        bench
    };
    let mut bench = asked();
    assert_eq!(bench.on(Event::Script(Verdict::Code(75))), []);
    assert_eq!(bench.pass(999), []);
    assert_eq!(bench.pass(1), [Effect::AskScript]);
    assert_eq!(bench.on(Event::Script(Verdict::Code(0))), tell(News::Healthy(Slot::B)));

    for (verdict, why) in [
        (Verdict::Code(1), Why::ScriptSaidNo(1)),
        (Verdict::Killed, Why::ScriptKilled),
        (Verdict::NotStarted, Why::ScriptNotStarted),
    ] {
        let mut bench = asked();
        assert_eq!(bench.on(Event::Script(verdict)), [Effect::Terminate]);
        let told = [News::Unhealthy { slot: Slot::B, why }, News::Load].map(Effect::Tell);
        assert_eq!(bench.on(Event::Exited(Exit::Code(0))), told);
    }
    // One that never says yes.
    let mut bench = asked();
    bench.on(Event::Script(Verdict::Code(75)));
    let mut effects = bench.pass(1_000);
    effects.extend(bench.pass(200_000));
    assert_eq!(effects, [Effect::AskScript, Effect::Terminate, Effect::Kill]);
}

#[test]
fn a_script_that_answers_for_an_image_that_is_gone_says_nothing_of_the_next_one() {
    let health = Health { script: true, alive_ms: 0, reading: false, checked_in: false };
    let settings = Settings { health, ..SETTINGS };
    let mut bench = Bench::new(settings);
    bench.told(Order::Start(launch(Slot::B, true)));
    assert!(bench.on(Event::Started { pid: 7 }).contains(&Effect::AskScript));
    bench.on(Event::Exited(Exit::Code(0)));
    bench.told(Order::Start(launch(Slot::A, false)));
    bench.on(Event::Started { pid: 8 });
    assert_eq!(bench.on(Event::Script(Verdict::Code(1))), []);
}

#[test]
fn a_confirmation_of_the_other_slot_confirms_nothing() {
    let mut bench = Bench::running(SETTINGS, launch(Slot::B, true));
    bench.told(Order::Confirmed(Slot::A));
    assert_eq!(bench.pass(120_000), [Effect::Terminate]);
}
