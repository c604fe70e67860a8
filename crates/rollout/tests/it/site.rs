//! A site in memory: a store that keeps state and permits together, and devices that do as they are told, or do not.

use model::{DeviceId, Digest, ProductId, RolloutId, Version};
use rollout::{
    Answer, Back, CheckIn, Command, Draft, Effect, Event, Happened, Limit, Moment, Named, Order,
    Permit, Plan, Position, Report, Share, Signal, State, Wave, open, order, pending, step,
};
use std::collections::BTreeMap;

pub const OLD: Digest = Digest([1; 32]);
pub const NEW: Digest = Digest([2; 32]);
pub const SOAK_MS: u64 = 1000;
pub const PROVE_WITHIN_MS: u64 = 5_000;
pub const COME_WITHIN_MS: u64 = 10_000;

pub fn percent(percent: u32) -> Share {
    Share::percent(percent).unwrap()
}

/// 10 %, 50 %, all of thirty devices; nine of ten must succeed; the temperature must stay below 80.
pub fn draft() -> Draft {
    let wave = |share| Wave { share: percent(share), count_max: None, soak_ms: SOAK_MS };
    Draft {
        rollout: RolloutId::new("r-1").unwrap(),
        generation: 7,
        product: ProductId::new("pump-app").unwrap(),
        version: Version::new(1, 1, 0),
        digest: NEW,
        cohort: 30,
        waves: vec![wave(10), wave(50), wave(100)],
        bound: 30,
        prove_within_ms: PROVE_WITHIN_MS,
        come_within_ms: COME_WITHIN_MS,
        success_min: percent(90),
        quorum: percent(50),
        signals: vec![Signal {
            name: "temperature".into(),
            sql: "select max(value) from readings where series = 'temperature'".into(),
            limit: Limit::AtMost(80.0),
        }],
        ask_again_ms: 5000,
        back: Back { by_itself: true, waves: vec![percent(20), percent(100)], at_a_time: 30 },
    }
}

/// What a device makes of an order to install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Installs,
    Fails,
    FallsSilent,
    /// Does not come at all.
    Away,
}

#[derive(Clone, Debug)]
pub struct Device {
    pub running: Digest,
    pub failed: bool,
    pub number: u64,
    pub fate: Fate,
    pub joined: Moment,
    pub silent: bool,
}

pub struct Site {
    pub plan: Plan,
    pub state: State,
    pub permits: BTreeMap<DeviceId, Permit>,
    pub devices: BTreeMap<DeviceId, Device>,
    pub now: Moment,
    /// What signals come to.
    pub answer: Answer,
    pub questions: Vec<u64>,
    pub happened: Vec<Happened>,
    /// The most that were ever outstanding, and on their way back, at a time.
    pub most: (u64, u64),
}

impl Site {
    pub fn new(draft: Draft) -> Self {
        let device = || Device {
            running: OLD,
            failed: false,
            number: 0,
            fate: Fate::Installs,
            joined: Moment(0),
            silent: false,
        };
        let ids = (1..=draft.cohort).map(|n| DeviceId::new(format!("dev-{n:02}")).unwrap());
        Self {
            devices: ids.map(|id| (id, device())).collect(),
            plan: Plan::new(draft).unwrap(),
            state: State::new(),
            permits: BTreeMap::new(),
            now: Moment(1_000_000),
            answer: Answer::Number(20.0),
            questions: Vec::new(),
            happened: Vec::new(),
            most: (0, 0),
        }
    }

    pub fn position(&self, device: &DeviceId) -> Position {
        Position::of(&self.plan.rollout, device)
    }

    /// In the order of the rollout.
    pub fn in_order(&self) -> Vec<DeviceId> {
        let mut ids: Vec<_> = self.devices.keys().cloned().collect();
        ids.sort_by_key(|id| self.position(id));
        ids
    }

    pub fn phase(&self) -> Named {
        self.state.phase.name()
    }

    pub fn command(&mut self, command: Command) {
        self.feed(Event::Command(command));
    }

    pub fn feed(&mut self, event: Event) {
        let (state, effects) = step(&self.plan, self.state.clone(), event, self.now);
        let halted = self.state.is_halted();
        self.state = state;
        for effect in effects {
            match effect {
                Effect::Save { device, permit } => {
                    let is_leave = matches!(permit.known, rollout::Known::Issued { .. });
                    assert!(!(halted && is_leave), "a halted rollout issued a permit (INV-ROLL-1)");
                    self.permits.insert(device, permit);
                }
                Effect::Ask { question } => self.questions.push(question),
                Effect::Happened(what) => self.happened.push(what),
                Effect::Open { .. } | Effect::OpenBack { .. } | Effect::Halt => {}
            }
        }
        let counts = &self.state.counts;
        assert!(counts.outstanding() <= self.plan.bound, "INV-ROLL-2");
        self.most = (self.most.0.max(counts.outstanding()), self.most.1.max(counts.back));
        assert_eq!(self.state.counts.issued, self.count("issued"));
    }

    /// Everything that is under way is done, every device checks in twice, and time goes on by a second.
    pub fn round(&mut self) {
        for effect in pending(&self.plan, &self.state) {
            self.carry_out(&effect);
        }
        let devices = self.in_order();
        devices.iter().for_each(|device| self.check_in(device));
        devices.iter().for_each(|device| self.obey(device));
        devices.iter().for_each(|device| self.check_in(device));
        self.now = self.now.after_ms(1000);
        for (device, permit) in self.permits.clone() {
            self.feed(Event::Overdue { device, permit });
        }
        self.feed(Event::Tick);
    }

    /// Until nothing has changed for as long as the plan ever waits.
    pub fn settle(&mut self) {
        let mut last = self.state.revision;
        let mut quiet = 0;
        while quiet < 20 {
            self.round();
            quiet = if self.state.revision == last { quiet + 1 } else { 0 };
            last = self.state.revision;
            assert!(self.now < Moment(100_000_000), "it never settles: {:?}", self.state);
        }
    }

    pub fn carry_out(&mut self, effect: &Effect) {
        match *effect {
            Effect::Open { wave, count } => {
                let cohort = self.devices.keys().map(|id| self.position(id)).collect();
                if let Some(opened) = open(cohort, count) {
                    self.feed(Event::Opened { wave, opened });
                }
            }
            Effect::OpenBack { wave, count } => {
                let goes = |permit: &Permit| {
                    !matches!(permit.known, rollout::Known::Had | rollout::Known::Failed)
                };
                let permits = self.permits.iter().filter(|(_, permit)| goes(permit));
                let positions = permits.map(|(id, _)| self.position(id)).collect();
                let opened = open(positions, count).expect("somebody has to go back");
                self.feed(Event::OpenedBack { wave, last: opened.last });
            }
            Effect::Ask { question } => {
                let answers = self.plan.signals.iter().map(|_| self.answer).collect();
                self.feed(Event::Answered { question, answers });
            }
            _ => {}
        }
    }

    pub fn check_in(&mut self, id: &DeviceId) {
        let device = self.devices.get_mut(id).unwrap();
        if device.fate == Fate::Away || device.silent {
            return;
        }
        device.number += 1;
        let report = Report {
            number: device.number,
            running: device.running,
            confirmed: true,
            failed: device.failed,
        };
        let joined = device.joined;
        let check_in = CheckIn {
            device: id.clone(),
            position: self.position(id),
            joined,
            permit: self.permits.get(id).cloned(),
            report,
        };
        self.feed(Event::CheckedIn(check_in));
    }

    /// A device does what it is told.
    pub fn obey(&mut self, id: &DeviceId) {
        let order = order(&self.plan, &self.state, self.permits.get(id));
        let device = self.devices.get_mut(id).unwrap();
        if device.silent {
            return;
        }
        match (order, device.fate) {
            (_, Fate::Away) => {}
            (Order::Install(image), Fate::Installs) => device.running = image,
            (Order::Install(_), Fate::Fails) => device.failed = true,
            (Order::Install(_), Fate::FallsSilent) => device.silent = true,
            (Order::GoBack(image), _) => device.running = image,
            _ => {}
        }
    }

    pub fn fate(&mut self, devices: &[DeviceId], fate: Fate) {
        for id in devices {
            self.devices.get_mut(id).unwrap().fate = fate;
        }
    }

    pub fn runs_new(&self) -> usize {
        self.devices.values().filter(|device| device.running == NEW).count()
    }

    /// How many permits are of a kind, by the first word of its form.
    pub fn count(&self, kind: &str) -> u64 {
        let of_kind = |permit: &&Permit| {
            let text = serde_json::to_string(&permit.known).unwrap();
            text.trim_start_matches(['{', '"']).split('"').next() == Some(kind)
        };
        self.permits.values().filter(of_kind).count() as u64
    }

    pub fn waves(&self) -> Vec<u64> {
        self.state.opened.iter().map(|wave| wave.members).collect()
    }
}
