//! Every state that a small site can come to: the real [`step`], a store with a conditional write, two controllers, and a
//! network that loses, repeats and reorders.
//!
//! * The store holds state and permits. A controller reads it, and writes later: if the revision has moved, what it wrote
//!   has not happened. One of the two is *slow*: it may sit on what it has read for as long as it likes. The other is
//!   prompt; since a write is one moment, two slow ones come to nothing that these two do not come to.
//! * A message stays in the network for ever: it may come now, later, again, after a newer one, or never.
//! * Devices fetch their order, install, confirm, or go back by themselves, at any time after it; also after a halt, since
//!   an order may be under way for a while.
//!
//! `stateright` would do the walking, but it turns on a feature of serde with which everything above serde, the query engine
//! too, is compiled once more for tests. The walk is forty lines.
//!
//! What holds is asserted in every state and at every step. So that this means something, three bugs are put in, one at a
//! time, and each is found, with the shortest way to it.

use crate::site::{NEW, OLD, draft, percent};
use model::DeviceId;
use rollout::{
    Answer, CheckIn, Command, Counts, EDGES, Effect, Event, Known, Limit, Moment, Named, Order,
    Permit, Phase, Plan, Position, Report, State, Wave, order, pending, step, wake,
};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a walk is about.
struct Model {
    plan: Plan,
    devices: Vec<DeviceId>,
    positions: Vec<Position>,
    commands: Vec<Command>,
    /// How many steps time takes.
    time_max: u64,
    /// What a gate may be told, besides nothing.
    answers: Vec<Told>,
    /// Whether something may prove, once, that what is known is old.
    may_be_old: bool,
    bug: Option<Bug>,
}

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// A write that does not look at the revision.
    WritesUnconditionally,
    /// A check-in that is judged as if the rollout were not halted.
    PermitsWhileHalted,
    /// A question without an answer counts as 0.
    EmptyIsZero,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    state: State,
    permits: Vec<Option<Permit>>,
    devices: Vec<Device>,
    network: BTreeSet<Message>,
    /// What the slow controller has read, and what about.
    slow: Option<(State, Option<Permit>, Message)>,
    now: u64,
    /// The commands that were not given yet.
    commands: Vec<Command>,
    /// Nothing has proven yet that what is known is old.
    may_be_old: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Device {
    runs_new: bool,
    on_trial: bool,
    failed: bool,
    /// What it was told and has not done yet.
    told: Option<bool>,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Command(Given),
    Opened(usize),
    OpenedBack(usize),
    Report { device: usize, number: u64, runs_new: bool, confirmed: bool, failed: bool },
    Overdue { device: usize },
    Answered { question: u64, told: Told },
    Tick,
    Hold,
}

/// A command by its place among those that were not given yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Given(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Told {
    Good,
    Bad,
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The prompt controller reads, steps and writes.
    Handles(Message),
    /// The slow one reads.
    Reads(Message),
    /// The slow one steps and writes.
    Writes,
    /// What was under way is done, and its answer is on the way.
    Answers(Message),
    Fetches {
        device: usize,
    },
    Installs {
        device: usize,
    },
    Confirms {
        device: usize,
    },
    GoesBack {
        device: usize,
    },
    TimePasses,
}

/// What was found on a walk.
struct Walk {
    states: usize,
    steps: usize,
    edges: BTreeSet<(Named, Named)>,
    /// What does not hold, and the shortest way to it.
    broken: Option<(String, Vec<Action>)>,
    seen: BTreeSet<&'static str>,
}

impl Model {
    /// Two devices, one after the other, and a gate behind each.
    fn of(devices: usize, bound: u64, first: u32) -> Self {
        let mut draft = draft();
        let wave = |share| Wave { share: percent(share), count_max: None, soak_ms: 1 };
        draft.cohort = devices as u64;
        draft.waves = vec![wave(first), wave(100)];
        if first == 100 {
            draft.waves.pop();
        }
        draft.bound = bound;
        (draft.prove_within_ms, draft.come_within_ms, draft.ask_again_ms) = (1, 1, 1);
        (draft.success_min, draft.quorum) = (percent(50), percent(50));
        draft.back.waves = vec![percent(100)];
        draft.back.at_a_time = 1;
        draft.signals[0].limit = Limit::AtMost(0.0);
        let devices: Vec<_> =
            (0..devices).map(|n| DeviceId::new(format!("d{n}")).unwrap()).collect();
        let plan = Plan::new(draft).unwrap();
        Self {
            positions: devices.iter().map(|id| Position::of(&plan.rollout, id)).collect(),
            plan,
            devices,
            commands: Vec::new(),
            time_max: 3,
            answers: vec![Told::Good, Told::Bad, Told::Empty],
            may_be_old: false,
            bug: None,
        }
    }

    fn start(&self) -> World {
        let mut state = State::new();
        if !self.commands.contains(&Command::Start) {
            (state, _) = step(&self.plan, state, Event::Command(Command::Start), Moment(0));
        }
        let device =
            Device { runs_new: false, on_trial: false, failed: false, told: None, number: 1 };
        let mut world = World {
            state,
            permits: vec![None; self.devices.len()],
            devices: vec![device; self.devices.len()],
            network: BTreeSet::new(),
            slow: None,
            now: 0,
            commands: self.commands.clone(),
            may_be_old: self.may_be_old,
        };
        for device in 0..self.devices.len() {
            self.report(&mut world, device);
        }
        world
    }

    /// Every way on from here.
    fn actions(&self, world: &World) -> Vec<Action> {
        let mut messages: Vec<Message> = world.network.iter().copied().collect();
        messages.push(Message::Tick);
        messages.extend(world.may_be_old.then_some(Message::Hold));
        messages.extend((0..world.commands.len()).map(|n| Message::Command(Given(n))));
        let overdue = (0..self.devices.len()).filter(|device| {
            let permit = world.permits[*device].as_ref().map(|permit| permit.known);
            matches!(permit, Some(Known::Issued { due } | Known::Back { due }) if due.0 <= world.now)
        });
        messages.extend(overdue.map(|device| Message::Overdue { device }));
        // What would change nothing now changes nothing when it is written: if the store has moved, it is refused.
        messages.retain(|message| self.bug.is_some() || self.changes(world, *message));
        let mut actions: Vec<_> = messages.iter().map(|m| Action::Handles(*m)).collect();
        match &world.slow {
            Some(_) => actions.push(Action::Writes),
            None => actions.extend(messages.iter().map(|m| Action::Reads(*m))),
        }
        for effect in pending(&self.plan, &world.state) {
            match effect {
                Effect::Open { wave, .. } => actions.push(Action::Answers(Message::Opened(wave))),
                Effect::OpenBack { wave, .. } => {
                    actions.push(Action::Answers(Message::OpenedBack(wave)));
                }
                Effect::Ask { question } => actions.extend(
                    self.answers
                        .iter()
                        .map(|told| Action::Answers(Message::Answered { question, told: *told })),
                ),
                _ => {}
            }
        }
        for (device, at) in world.devices.iter().enumerate() {
            let told = order(&self.plan, &world.state, world.permits[device].as_ref());
            let is_news = match told {
                Order::Install(_) => at.told.is_none() && !at.runs_new && !at.failed,
                Order::GoBack(_) => at.told.is_none() && at.runs_new,
                Order::Stay => false,
            };
            if is_news {
                actions.push(Action::Fetches { device });
            }
            if at.told.is_some() {
                actions.push(Action::Installs { device });
            }
            if at.on_trial {
                actions.extend([Action::Confirms { device }, Action::GoesBack { device }]);
            }
        }
        if world.now < self.time_max {
            actions.push(Action::TimePasses);
        }
        actions
    }

    fn changes(&self, world: &World, message: Message) -> bool {
        let Some(event) = self.event(world, self.permit(world, message), message) else {
            return false;
        };
        // A refused command changes nothing but is used up.
        let is_command = matches!(message, Message::Command(_));
        let (state, _) = step(&self.plan, world.state.clone(), event, Moment(world.now));
        is_command || state.revision != world.state.revision
    }

    /// Takes one way. An error is a promise that was broken on it.
    fn take(&self, world: &World, action: Action, walk: &mut Walk) -> Result<World, String> {
        let mut next = world.clone();
        match action {
            Action::Handles(message) => {
                let read = (world.state.clone(), self.permit(world, message), message);
                self.write(&mut next, read, walk)?;
            }
            Action::Reads(message) => {
                next.slow = Some((world.state.clone(), self.permit(world, message), message));
            }
            Action::Writes => {
                let read = next.slow.take().expect("it has read");
                self.write(&mut next, read, walk)?;
            }
            Action::Answers(message) => {
                next.network.insert(message);
            }
            Action::Fetches { device } => {
                let told = order(&self.plan, &world.state, world.permits[device].as_ref());
                next.devices[device].told = Some(matches!(told, Order::Install(_)));
            }
            Action::Installs { device } => {
                let at = &mut next.devices[device];
                at.runs_new = at.told.take().expect("it was told");
                at.on_trial = at.runs_new;
                at.failed = false;
                self.report(&mut next, device);
            }
            Action::Confirms { device } => {
                next.devices[device].on_trial = false;
                self.report(&mut next, device);
            }
            Action::GoesBack { device } => {
                let at = &mut next.devices[device];
                (at.runs_new, at.on_trial, at.failed) = (false, false, true);
                self.report(&mut next, device);
            }
            Action::TimePasses => next.now += 1,
        }
        Ok(next)
    }

    fn report(&self, world: &mut World, device: usize) {
        let at = &mut world.devices[device];
        at.number += 1;
        let Device { runs_new, on_trial, failed, number, .. } = *at;
        let confirmed = !on_trial;
        world.network.insert(Message::Report { device, number, runs_new, confirmed, failed });
    }

    fn permit(&self, world: &World, message: Message) -> Option<Permit> {
        match message {
            Message::Report { device, .. } | Message::Overdue { device } => {
                world.permits[device].clone()
            }
            _ => None,
        }
    }

    fn event(&self, world: &World, permit: Option<Permit>, message: Message) -> Option<Event> {
        Some(match message {
            Message::Command(Given(n)) => Event::Command(*world.commands.get(n)?),
            Message::Opened(wave) => {
                let count = self.plan.waves[wave].share.of(self.plan.cohort);
                Event::Opened { wave, opened: rollout::open(self.positions.clone(), count)? }
            }
            Message::OpenedBack(wave) => Event::OpenedBack { wave, last: Position::LAST },
            Message::Report { device, number, runs_new, confirmed, failed } => {
                let running = if runs_new { NEW } else { OLD };
                Event::CheckedIn(CheckIn {
                    device: self.devices[device].clone(),
                    position: self.positions[device],
                    joined: Moment(0),
                    permit,
                    report: Report { number, running, confirmed, failed },
                })
            }
            Message::Overdue { device } => {
                Event::Overdue { device: self.devices[device].clone(), permit: permit? }
            }
            Message::Answered { question, told } => {
                let answer = match told {
                    Told::Good => Answer::Number(0.0),
                    Told::Bad => Answer::Number(1.0),
                    Told::Empty if self.bug == Some(Bug::EmptyIsZero) => Answer::Number(0.0),
                    Told::Empty => Answer::Empty,
                };
                Event::Answered { question, answers: vec![answer] }
            }
            Message::Tick => Event::Tick,
            Message::Hold => Event::Hold,
        })
    }

    /// Steps on what was read, and writes it if the store still stands there.
    fn write(
        &self,
        world: &mut World,
        (read, permit, message): (State, Option<Permit>, Message),
        walk: &mut Walk,
    ) -> Result<(), String> {
        let is_stale = world.state.revision != read.revision;
        if is_stale && self.bug != Some(Bug::WritesUnconditionally) {
            return Ok(());
        }
        let Some(event) = self.event(world, permit, message) else { return Ok(()) };
        let mut basis = read.clone();
        if self.bug == Some(Bug::PermitsWhileHalted)
            && matches!(read.phase, Phase::Halted { .. })
            && !read.opened.is_empty()
        {
            basis.phase = Phase::Running { stage: rollout::Stage::Installing };
        }
        let (mut state, effects) = step(&self.plan, basis, event, Moment(world.now));
        if self.bug == Some(Bug::PermitsWhileHalted) && matches!(read.phase, Phase::Halted { .. }) {
            state.phase = read.phase.clone();
        }
        let was_halted = world.state.is_halted();
        let was_running = matches!(world.state.phase, Phase::Running { .. });
        if let Message::Command(Given(n)) = message {
            world.commands.remove(n);
        }
        world.may_be_old &= message != Message::Hold;
        for effect in &effects {
            let Effect::Save { device, permit } = effect else { continue };
            let device = self.devices.iter().position(|id| id == device).expect("one of these");
            let is_leave =
                world.permits[device].is_none() && matches!(permit.known, Known::Issued { .. });
            if is_leave && was_halted {
                return Err("INV-ROLL-1: a halted rollout issued a permit".into());
            }
            if read.held && matches!(permit.known, Known::Issued { .. } | Known::Back { .. }) {
                return Err("a rollout that is held told a device something".into());
            }
            if is_leave && !was_running {
                return Err("a rollout that does not run issued a permit".into());
            }
            world.permits[device] = Some(permit.clone());
        }
        let passed = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Happened(rollout::Happened::GatePassed { .. })));
        if passed && !matches!(message, Message::Answered { told: Told::Good, .. }) {
            return Err(format!("a gate passed upon {message:?}"));
        }
        // One step may take two edges: a halt, and what follows at once.
        let mut names = vec![world.state.phase.name()];
        names.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Happened(rollout::Happened::Halted { .. }) => Some(Named::Halted),
            Effect::Happened(rollout::Happened::RevertBegan { .. }) => Some(Named::Reverting),
            _ => None,
        }));
        names.push(state.phase.name());
        names.dedup();
        walk.edges.extend(names.windows(2).map(|pair| (pair[0], pair[1])));
        world.state = state;
        Ok(())
    }

    /// What must hold wherever a site is.
    fn holds(&self, world: &World) -> Result<(), String> {
        let mut counts = Counts::default();
        for permit in world.permits.iter().flatten() {
            *match permit.known {
                Known::Issued { .. } => &mut counts.issued,
                Known::Silent => &mut counts.silent,
                Known::Proven => &mut counts.proven,
                Known::Had => &mut counts.had,
                Known::Failed => &mut counts.failed,
                Known::Back { .. } => &mut counts.back,
                Known::BackSilent => &mut counts.back_silent,
                Known::Stuck => &mut counts.stuck,
                Known::WentBack => &mut counts.went_back,
            } += 1;
        }
        if counts.issued + counts.silent > self.plan.bound {
            return Err("INV-ROLL-2: more permits are outstanding than the bound allows".into());
        }
        // A write that looks at nothing breaks the counts at once; what is looked for then is what comes of it.
        let is_counted = self.bug != Some(Bug::WritesUnconditionally);
        if is_counted && counts != world.state.counts {
            return Err(format!("the counts are {:?}, the permits {counts:?}", world.state.counts));
        }
        if counts.back > self.plan.back.at_a_time {
            return Err("more devices are on their way back than the plan allows".into());
        }
        for (device, permit) in world.devices.iter().zip(&world.permits) {
            if (device.runs_new || device.told.is_some()) && permit.is_none() {
                return Err("a device installed without leave".into());
            }
            let told = order(&self.plan, &world.state, permit.as_ref());
            if world.state.held && told != Order::Stay {
                return Err(format!("a rollout that is held says {told:?}"));
            }
        }
        let saved = rollout::Saved { plan: self.plan.clone(), state: world.state.clone() };
        // As text only now and then: it costs more than all else.
        if world.state.revision.is_multiple_of(7) {
            match rollout::Saved::decode(&saved.encode()) {
                Ok(read) if read == saved => {}
                other => return Err(format!("what was kept is read as {other:?}")),
            }
        }
        // A rollout that waits for nothing and is not over is stuck.
        let (plan, state) = (&self.plan, &world.state);
        let waits = wake(plan, state).is_some()
            || pending(plan, state).iter().any(|effect| *effect != Effect::Halt)
            || matches!(state.phase, Phase::Paused { .. })
            || state.held;
        if state.phase.stage().is_some() && !waits {
            return Err(format!("nothing will ever wake {:?}", state.phase));
        }
        Ok(())
    }

    /// Breadth first, so that the way to what is broken is a shortest one.
    fn walk(&self) -> Walk {
        let mut walk = Walk {
            states: 0,
            steps: 0,
            edges: BTreeSet::new(),
            broken: None,
            seen: BTreeSet::new(),
        };
        let start = self.start();
        let mut came_by: HashMap<u128, (u128, Option<Action>)> = HashMap::new();
        came_by.insert(mark(&start), (0, None));
        let mut ahead = VecDeque::from([start]);
        while let Some(world) = ahead.pop_front() {
            let here = mark(&world);
            walk.states += 1;
            walk.look(&world);
            for action in self.actions(&world) {
                walk.steps += 1;
                let next = self.take(&world, action, &mut walk).and_then(|next| {
                    let Entry::Vacant(new) = came_by.entry(mark(&next)) else { return Ok(None) };
                    new.insert((here, Some(action)));
                    self.holds(&next).map(|()| Some(next))
                });
                match next {
                    Ok(next) => ahead.extend(next),
                    Err(what) => {
                        let mut way = vec![action];
                        let mut at = here;
                        while let (before, Some(action)) = came_by[&at] {
                            way.push(action);
                            at = before;
                        }
                        way.reverse();
                        walk.broken = Some((what, way));
                        return walk;
                    }
                }
            }
        }
        walk
    }
}

impl Walk {
    /// That something never went wrong means little if nothing ever happened.
    fn look(&mut self, world: &World) {
        let counts = world.state.counts;
        let here = [
            ("completed", world.state.phase == Phase::Completed),
            ("a device fell silent", counts.silent > 0),
            ("a device failed", counts.failed > 0),
            ("a device went back", counts.went_back > 0),
            ("a device fell silent on its way back", counts.back_silent > 0),
            ("a device installed after the halt", {
                world.state.is_halted() && world.devices.iter().any(|device| device.on_trial)
            }),
            ("taken back while a device has it", {
                world.state.phase == Phase::Reverted && counts.to_go_back() > 0
            }),
            ("held", world.state.held),
            ("on the way back while held", {
                world.state.held && matches!(world.state.phase, Phase::Reverting { .. })
            }),
            ("the slow controller is overtaken", {
                world.slow.as_ref().is_some_and(|(read, ..)| read.revision < world.state.revision)
            }),
        ];
        self.seen.extend(here.iter().filter(|(_, is)| *is).map(|(what, _)| *what));
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: {} states, {} steps, {} edges",
            self.states,
            self.steps,
            self.edges.len()
        );
        if let Some((broken, way)) = &self.broken {
            println!("  {broken}, after");
            for action in way {
                println!("    {action:?}");
            }
        }
    }
}

/// 128 bits of a state: two of some millions are not taken for one.
fn mark(world: &World) -> u128 {
    let half = |seed: u64| {
        let mut hasher = DefaultHasher::new();
        (seed, world).hash(&mut hasher);
        hasher.finish()
    };
    (u128::from(half(1)) << 64) | u128::from(half(2))
}

/// What is walked: together they take every edge that is drawn.
fn models() -> [(&'static str, Model); 7] {
    use Command::{Abort, Halt, Pause, Resume, Revert, Start};
    let two_waves = || Model::of(2, 1, 50);
    let one_wave = || Model::of(2, 1, 100);
    let good = || vec![Told::Good];
    [
        ("a gate behind each of two waves", Model { time_max: 2, ..two_waves() }),
        (
            "a person halts and takes back",
            Model { commands: vec![Halt, Revert], answers: good(), time_max: 1, ..one_wave() },
        ),
        (
            "a person pauses and resumes",
            Model { commands: vec![Pause, Resume], answers: good(), time_max: 1, ..one_wave() },
        ),
        (
            "a person starts, pauses, halts, takes back, aborts",
            Model {
                commands: vec![Start, Pause, Halt, Revert, Abort],
                answers: good(),
                time_max: 0,
                ..Model::of(1, 1, 100)
            },
        ),
        (
            "a device does not come back in time",
            Model {
                commands: vec![Halt, Revert],
                answers: good(),
                time_max: 3,
                ..Model::of(1, 1, 100)
            },
        ),
        (
            "what is known is old, and a person goes on",
            Model {
                commands: vec![Resume],
                answers: good(),
                time_max: 1,
                may_be_old: true,
                ..Model::of(1, 1, 100)
            },
        ),
        (
            "what is known is old on the way back",
            Model {
                commands: vec![Halt, Revert, Resume],
                answers: good(),
                time_max: 1,
                may_be_old: true,
                ..Model::of(1, 1, 100)
            },
        ),
    ]
}

#[test]
fn nothing_that_is_lost_late_or_repeated_breaks_a_rollout() {
    let (mut edges, mut seen, mut states) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (what, model) in models() {
        let walk = model.walk();
        walk.print(what);
        assert_eq!(walk.broken.map(|(broken, _)| broken), None, "{what}");
        edges.extend(walk.edges);
        seen.extend(walk.seen);
        states += walk.states;
    }
    println!("{states} states in all; seen among them: {seen:?}");
    let drawn: BTreeSet<_> = EDGES.iter().map(|(from, to, _)| (*from, *to)).collect();
    assert_eq!(edges, drawn, "every edge that is drawn is taken, and no other (INV-STATE-1)");
    assert_eq!(seen.len(), 10, "{seen:?}");
}

#[test]
fn each_of_three_bugs_is_found_with_the_shortest_way_to_it() {
    let check = |bug: Bug, model: Model, expected: &str| {
        let walk = Model { bug: Some(bug), ..model }.walk();
        walk.print(&format!("{bug:?}"));
        let (broken, way) = walk.broken.expect("it is found");
        assert_eq!(broken, expected);
        way
    };
    let one_wave = || Model::of(2, 1, 100);
    let way = check(
        Bug::WritesUnconditionally,
        one_wave(),
        "INV-ROLL-2: more permits are outstanding than the bound allows",
    );
    assert_eq!(way.last(), Some(&Action::Writes), "{way:?}");
    check(
        Bug::PermitsWhileHalted,
        Model { commands: vec![Command::Halt], ..one_wave() },
        "INV-ROLL-1: a halted rollout issued a permit",
    );
    let way = check(
        Bug::EmptyIsZero,
        one_wave(),
        "a gate passed upon Answered { question: 1, told: Empty }",
    );
    let asked = Message::Answered { question: 1, told: Told::Empty };
    assert_eq!(way.last(), Some(&Action::Handles(asked)));
}
