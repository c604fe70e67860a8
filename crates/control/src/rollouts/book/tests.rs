use super::*;
use crate::directory::Key;
use crate::rollouts::draft;
use api::Role;
use model::manifest::{Boot, Component, Installed, Slot, Trusted};
use model::{GroupId, HardwareId, SecurityVersion, Version, ZoneId};
use rollout::{Answer, Opened};
use serde_json::json;

const OLD: Digest = Digest([1; 32]);
const NEW: Digest = Digest([2; 32]);
const NEWER: Digest = Digest([3; 32]);

fn at(seconds: i64) -> Timestamp {
    Timestamp(1_700_000_000_000_000 + seconds * 1_000_000)
}

fn id(n: usize) -> DeviceId {
    DeviceId::new(format!("pump-{n:02}")).unwrap()
}

fn device(n: usize, standing: Standing) -> Arc<Device> {
    Arc::new(Device {
        id: id(n),
        serial: format!("PUMP-{n:02}"),
        role: Role::Device,
        zone: ZoneId::new("hall").unwrap(),
        standing,
        listed_at: at(0),
        enrolled_at: Some(at(0)),
        changed_at: at(0),
        group: crate::directory::default_group(),
        grouped_at: at(0),
        keys: Vec::<Arc<Key>>::new(),
    })
}

fn manifest(n: usize, running: Digest) -> Manifest {
    let installed = Installed {
        version: Version::new(1, 0, 0),
        digest: running,
        length: 9,
        security_version: SecurityVersion(1),
    };
    Manifest {
        device: id(n),
        components: vec![Component {
            product: ProductId::new("pump-app").unwrap(),
            hardware: HardwareId::new("pump-box").unwrap(),
            floor: SecurityVersion(0),
            running: Slot::A,
            boot: Boot::Confirmed,
            slots: [Some(installed), None],
        }],
        director: Trusted::default(),
        images: Trusted::default(),
        outcome: None,
    }
}

/// A site of thirty pumps with a book, where whatever is decided is written at once.
struct Site {
    book: Book,
    directory: Directory,
    sequence: u64,
    now: i64,
}

impl Site {
    fn new() -> Self {
        let devices = (1..=30).map(|n| Device::clone(&device(n, Standing::Enrolled)));
        let directory = Directory::new(1, devices);
        let mut site = Self { book: Book::default(), directory, sequence: 0, now: 1 };
        (1..=30).for_each(|n| drop(site.check_in(n, OLD)));
        site
    }

    fn sealed(&mut self, n: usize, running: Digest) -> Sealed {
        self.sequence += 1;
        let manifest = manifest(n, running);
        Sealed {
            device: self.directory.device(&id(n)).unwrap().clone(),
            key: KeyId([7; 32]),
            counter: Counter { epoch: 1, sequence: self.sequence },
            payload: manifest.encode().into(),
            manifest,
        }
    }

    fn check_in(&mut self, n: usize, running: Digest) -> CheckedIn {
        let sealed = self.sealed(n, running);
        let checked = self.book.check_in(&sealed, at(self.now), Leave::Any).unwrap();
        let written = checked.clone();
        written.moved.into_iter().for_each(|moved| self.book.take(moved));
        self.book.keep(written.device, written.kept);
        checked
    }

    fn order(&mut self, name: &str, digest: Digest, more: serde_json::Value) -> Number {
        self.order_of(name, digest, 30, more)
    }

    fn order_of(
        &mut self,
        name: &str,
        digest: Digest,
        cohort: u64,
        more: serde_json::Value,
    ) -> Number {
        let mut order = json!({
            "id": name, "product": "pump-app", "version": "1.1.0",
            "waves": [{ "percent": 10 }, { "percent": 100 }],
        });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let order: NewRollout = serde_json::from_value(order).unwrap();
        let named = Named::read(&order).unwrap();
        let rollout = named.id.clone().unwrap();
        let found = draft::Found { rollout, generation: 1, digest, cohort };
        let plan = draft::plan(&order, &named, found).unwrap();
        let members = Members {
            zones: named.zones,
            groups: named.groups,
            devices: named.devices,
            hardware: [HardwareId::new("pump-box").unwrap()].into(),
        };
        let number = self.book.next_number();
        let saved = Saved { plan, state: State::new() };
        self.book.add(number, Live::new(saved, order, members, at(self.now)));
        number
    }

    fn feed(&mut self, number: Number, event: Event) -> Vec<Happened> {
        let moved = self.book.moved(number, vec![event], moment(at(self.now))).unwrap();
        let happened = moved.happened.clone();
        self.book.take(moved);
        happened
    }

    fn start(&mut self, number: Number) {
        let live = self.book.live(number).unwrap();
        self.book.fits(number, live, Command::Start, moment(at(self.now))).unwrap();
        self.feed(number, Event::Command(Command::Start));
    }

    /// Does what is pending, as the driver would.
    fn open(&mut self, number: Number) {
        let positions = self.positions(number);
        let (dues, _) = self.book.due(moment(at(self.now)), &Ticked::new());
        let open = dues.into_iter().find_map(|due| match due {
            Due::Open { number: of, wave, count } if of == number => Some((wave, count)),
            _ => None,
        });
        let (wave, count) = open.expect("a wave is opening");
        let opened: Opened = rollout::open(positions, count).unwrap();
        self.feed(number, Event::Opened { wave, opened });
    }

    /// In parts of seven.
    fn positions(&self, number: Number) -> Vec<Position> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (found, last) = self.book.positions(number, &self.directory, after.as_ref(), 7);
            all.extend(found);
            match last {
                Some(last) => after = Some(last),
                None => return all,
            }
        }
    }

    fn ordered(&mut self) -> Vec<usize> {
        (1..=30).filter(|n| !self.check_in(*n, OLD).orders.unwrap().is_empty()).collect()
    }
}

use crate::rollouts::draft::Named;

#[test]
fn an_unchanged_manifest_changes_nothing_and_still_counts_on() {
    let mut site = Site::new();
    let first = site.book.manifest(&id(1)).unwrap().clone();
    let again = site.check_in(1, OLD);
    assert!(!again.changes());
    assert_eq!(again.kept.number, first.number + 1);
    assert!(site.check_in(1, NEW).changes(), "it runs something else");
    let late = Sealed { counter: first.counter, ..site.sealed(1, OLD) };
    let refused = site.book.check_in(&late, at(site.now), Leave::Any).unwrap_err();
    assert_eq!(refused.word(), "replayed");
}

/// INV-COST-1: each change is written, and may be an event for ever.
#[test]
fn a_device_that_says_something_new_again_and_again_is_heard_at_a_pace() {
    let mut site = Site::new();
    let images = [OLD, NEW];
    let says = |site: &mut Site, n: usize| {
        let sealed = site.sealed(2, images[n % 2]);
        let checked = site.book.check_in(&sealed, at(site.now), Leave::Any)?;
        site.book.keep(checked.device, checked.kept);
        Ok::<_, Refused>(())
    };
    // It has said one thing already.
    let heard = (1..1000).take_while(|n| says(&mut site, *n).is_ok()).count();
    assert_eq!(heard, 119);
    let refused = says(&mut site, 120).unwrap_err();
    assert_eq!(refused.word(), "too_often");
    assert_eq!(says(&mut site, 119), Ok(()), "what it said before it may say as often as it likes");
    assert!(site.check_in(3, NEW).changes(), "nobody else is meant");
    site.now += 2;
    assert_eq!((says(&mut site, 120), says(&mut site, 121).is_err()), (Ok(()), true));
    // A clock that is set back keeps nobody waiting until it is there again.
    site.now -= 100_000;
    assert_eq!((says(&mut site, 121), says(&mut site, 122).is_err()), (Ok(()), true));
    site.now += 2;
    assert_eq!(says(&mut site, 122), Ok(()));
}

#[test]
fn a_wave_of_ten_percent_reaches_three_devices_and_they_alone_are_ordered() {
    let mut site = Site::new();
    let number = site.order("r-1", NEW, json!({}));
    site.start(number);
    assert_eq!(site.ordered(), [0; 0], "no wave is open yet");
    site.open(number);
    let reached = site.ordered();
    assert_eq!(reached.len(), 3);
    let checked = site.check_in(reached[0], OLD);
    assert!(!checked.changes(), "its permit is issued once");
    let orders = checked.orders.unwrap();
    assert_eq!((orders.len(), orders[0].digest), (1, NEW));
    assert_eq!(orders[0].rollout.as_ref().unwrap().as_str(), "r-1");
    let proven = site.check_in(reached[0], NEW);
    assert_eq!(proven.orders, Some(orders), "the Director goes on naming what it runs");
    assert_eq!(site.book.live(number).unwrap().state().counts.proven, 1);
    let fell_back = site.check_in(reached[0], OLD);
    assert_eq!(
        fell_back.orders,
        Some(vec![]),
        "what it does not run any more is not ordered again"
    );
}

/// INV-ROLL-1.
#[test]
fn a_halted_rollout_issues_no_permit_and_is_named_to_everybody() {
    let mut site = Site::new();
    let number = site.order("r-1", NEW, json!({}));
    site.start(number);
    site.open(number);
    let first = (1..=30).find(|n| !site.check_in(*n, OLD).orders.unwrap().is_empty()).unwrap();
    site.feed(number, Event::Command(Command::Halt));
    for n in 1..=30 {
        let checked = site.check_in(n, OLD);
        assert_eq!(checked.orders, Some(vec![]), "{n}");
        assert_eq!(checked.halted, [RolloutId::new("r-1").unwrap()]);
    }
    let live = site.book.live(number).unwrap();
    assert_eq!(live.permits.keys().collect::<Vec<_>>(), [&id(first)]);
    site.now += 40 * 24 * 3600;
    assert!(site.check_in(1, OLD).halted.is_empty(), "no order of it lives so long");
}

#[test]
fn while_events_cannot_be_logged_no_permit_is_issued_and_facts_still_count() {
    let mut site = Site::new();
    let number = site.order("r-1", NEW, json!({}));
    site.start(number);
    site.open(number);
    let reached = site.ordered();
    let second = site.order("r-2", NEW, json!({ "cohort": { "zones": ["yard"] } }));
    assert!(site.book.live(second).is_some());
    let sealed = site.sealed(reached[0], NEW);
    let checked = site.book.check_in(&sealed, at(site.now), Leave::NoPermit).unwrap();
    assert_eq!(checked.moved.len(), 1, "what it runs is a fact");
    let mut fresh = Site::new();
    let number = fresh.order("r-1", NEW, json!({}));
    fresh.start(number);
    fresh.open(number);
    for n in 1..=30 {
        let sealed = fresh.sealed(n, OLD);
        assert!(fresh.book.check_in(&sealed, at(1), Leave::NoPermit).unwrap().moved.is_empty());
    }
}

#[test]
fn a_quarantined_device_gets_its_lease_and_moves_nothing() {
    let mut site = Site::new();
    let number = site.order("r-1", NEW, json!({}));
    site.start(number);
    site.open(number);
    let devices = (1..=30).map(|n| Device::clone(&device(n, Standing::Quarantined)));
    site.directory = Directory::new(2, devices);
    for n in 1..=30 {
        let checked = site.check_in(n, OLD);
        assert_eq!((checked.orders, checked.moved.len()), (None, 0));
    }
}

/// INV-BOOT-2's order: never by confirm, never before the end, and for nobody who does not run it.
#[test]
fn floors_rise_after_the_end_where_the_release_runs() {
    let mut site = Site::new();
    let number = site.order("r-1", NEW, json!({ "waves": [{ "percent": 100 }], "raise": true }));
    site.start(number);
    site.open(number);
    (1..=30).for_each(|n| drop(site.check_in(n, OLD)));
    for n in 1..=30 {
        let orders = site.check_in(n, NEW).orders.unwrap();
        assert!(orders.iter().all(|ordered| !ordered.raise), "it is not over");
    }
    site.feed(number, Event::Tick);
    let raised = site.check_in(1, NEW).orders.unwrap();
    let product = ProductId::new("pump-app").unwrap();
    assert_eq!(raised, [Ordered { product, digest: NEW, rollout: None, raise: true }]);
    assert_eq!(site.check_in(2, OLD).orders, Some(vec![]), "it does not run there any more");
    let mut done = site.sealed(3, NEW);
    done.manifest.components[0].floor = SecurityVersion(1);
    let orders = site.book.check_in(&done, at(1), Leave::Any).unwrap().orders.unwrap();
    assert!(orders.iter().all(|ordered| !ordered.raise), "it has risen");
}

/// With figures: `MANY=1000000 cargo test --release -p control --lib many -- --nocapture` (it takes a gigabyte).
#[test]
fn a_wave_over_many_devices_reaches_exactly_its_count() {
    let many: usize = std::env::var("MANY").map_or(10_000, |many| many.parse().unwrap());
    let timed = |what: &str, since: std::time::Instant| {
        let took = since.elapsed();
        println!("{what}: {took:?}, {:.0} devices/s", many as f64 / took.as_secs_f64());
    };
    let devices = (1..=many).map(|n| Device::clone(&device(n, Standing::Enrolled)));
    let directory = Directory::new(1, devices);
    let mut site = Site { book: Book::default(), directory, sequence: 0, now: 1 };
    let since = std::time::Instant::now();
    (1..=many).for_each(|n| drop(site.check_in(n, OLD)));
    timed("first check-ins, signatures and transactions apart", since);
    let since = std::time::Instant::now();
    let order = json!({ "waves": [{ "percent": 10 }, { "percent": 100 }], "bound": many });
    let number = site.order_of("r-1", NEW, many as u64, order);
    let live = site.book.live(number).unwrap();
    let (members, product) = (&live.members, &live.plan().product);
    let wanted = Wanted { product, members, joined_by: None };
    let (cohort, _) = site.book.cohort(&wanted, &site.directory, None, many);
    assert_eq!(cohort, many as u64);
    timed("a rollout over them is made", since);
    site.start(number);
    let since = std::time::Instant::now();
    site.open(number);
    timed("its first wave is opened", since);
    let since = std::time::Instant::now();
    let issued = (1..=many).filter(|n| !site.check_in(*n, OLD).orders.unwrap().is_empty()).count();
    timed("check-ins while it is open", since);
    assert_eq!(issued, many.div_ceil(10));
}

/// A wave is an exact count. If who left were taken out of it, another one would come in beyond it.
#[test]
fn who_was_reached_and_has_left_stays_in_the_count_and_who_only_left_does_not() {
    let mut site = Site::new();
    let number = site.order("r-1", NEW, json!({}));
    site.start(number);
    site.open(number);
    let reached = site.ordered();
    assert_eq!(site.positions(number).len(), 30);
    let other = (1..=30).find(|n| !reached.contains(n)).unwrap();
    let leaves = |n| n == reached[0] || n == other;
    let standing = |n| if leaves(n) { Standing::Quarantined } else { Standing::Enrolled };
    let devices = (1..=30).map(|n| Device::clone(&device(n, standing(n))));
    site.directory = Directory::new(2, devices);
    let position = |n| Position::of(site.book.live(number).unwrap().id(), &id(n));
    let positions = site.positions(number);
    assert_eq!(positions.len(), 29);
    assert!(positions.contains(&position(reached[0])));
    assert!(!positions.contains(&position(other)));
}

#[test]
fn a_second_rollout_begins_only_where_no_other_is_under_way() {
    let mut site = Site::new();
    let first = site.order("r-1", NEW, json!({}));
    site.start(first);
    let second = site.order("r-2", NEWER, json!({ "version": "1.2.0" }));
    let elsewhere = site.order("r-3", NEWER, json!({ "cohort": { "zones": ["yard"] } }));
    let fits = |site: &Site, number, command| {
        let live = site.book.live(number).unwrap();
        site.book.fits(number, live, command, moment(at(site.now)))
    };
    let refused = fits(&site, second, Command::Start).unwrap_err();
    assert!(matches!(refused, Unfit::UnderWay { .. }), "{refused}");
    site.feed(first, Event::Command(Command::Halt));
    assert!(fits(&site, second, Command::Start).is_err(), "halted is not over");
    site.feed(first, Event::Command(Command::Abort));
    assert_eq!(fits(&site, second, Command::Start), Ok(()));
    site.start(elsewhere);
    let refused = fits(&site, second, Command::Start).unwrap_err();
    assert!(refused.to_string().contains("`r-3`"), "all zones hold the yard too: {refused}");
}

/// A completed rollout can be taken back until another one has gone over it.
#[test]
fn the_newest_rollout_that_has_reached_a_device_decides() {
    let mut site = Site::new();
    let wave = json!({ "waves": [{ "percent": 100 }], "quorum_percent": 100 });
    let first = site.order("r-1", NEW, wave.clone());
    site.start(first);
    site.open(first);
    (1..=30).for_each(|n| drop(site.check_in(n, OLD)));
    (1..=30).for_each(|n| drop(site.check_in(n, NEW)));
    site.feed(first, Event::Tick);
    let phase = |site: &Site, number| site.book.live(number).unwrap().state().phase.name();
    assert_eq!(phase(&site, first), rollout::Named::Completed);
    assert!(site.book.followed().contains(&first));

    let second = site.order("r-2", NEWER, wave);
    site.start(second);
    assert!(!site.book.followed().contains(&first), "it is overtaken");
    let live = site.book.live(first).unwrap();
    assert!(live.permits.is_empty());
    site.feed(second, Event::Command(Command::Abort));
    let live = site.book.live(first).unwrap();
    let refused = site.book.fits(first, live, Command::Revert, moment(at(site.now))).unwrap_err();
    assert!(matches!(refused, Unfit::Overtaken { .. }), "{refused}");
}

#[test]
fn a_device_is_told_to_go_back_outside_of_the_rollouts_name() {
    let mut site = Site::new();
    let number = site.order("r-1", NEW, json!({ "waves": [{ "percent": 100 }] }));
    site.start(number);
    site.open(number);
    (1..=30).for_each(|n| drop(site.check_in(n, OLD)));
    (1..=30).for_each(|n| drop(site.check_in(n, NEW)));
    site.feed(number, Event::Command(Command::Halt));
    site.feed(number, Event::Command(Command::Revert));
    let (dues, _) = site.book.due(moment(at(site.now)), &Ticked::new());
    assert!(matches!(dues[..], [Due::OpenBack { wave: 0, count: 30, .. }]), "{dues:?}");
    assert_eq!(site.book.to_go_back(number).len(), 30);
    site.feed(number, Event::OpenedBack { wave: 0, last: Position::LAST });
    let back = site.check_in(1, NEW).orders.unwrap();
    assert_eq!((back[0].digest, &back[0].rollout), (OLD, &None));
    assert_eq!(site.check_in(1, OLD).orders, Some(back));
}

#[test]
fn what_is_due_is_told_once_for_each_time_and_revision() {
    let mut site = Site::new();
    let order = json!({
        "prove_within_ms": 60_000, "come_within_ms": 30_000,
        "signals": [{ "name": "flow", "sql": "select 1", "at_least": 1 }],
    });
    let number = site.order("r-1", NEW, order);
    site.start(number);
    site.open(number);
    let reached = site.ordered();
    let live = site.book.live(number).unwrap();
    let revision = live.state().revision;
    let come_by = live.state().opened_at.after_ms(30_000);
    assert_eq!(site.book.due(moment(at(site.now)), &Ticked::new()), (vec![], Some(come_by)));
    site.now += 31;
    let (dues, _) = site.book.due(moment(at(site.now)), &Ticked::new());
    assert_eq!(dues, [Due::Tick { number, at: come_by }]);
    let ticked = Ticked::from([(number, (revision, come_by))]);
    let (dues, next) = site.book.due(moment(at(site.now)), &ticked);
    assert_eq!((dues, next), (vec![], Some(moment(at(site.now - 31)).after_ms(60_000))));
    site.now += 31;
    let (dues, _) = site.book.due(moment(at(site.now)), &ticked);
    assert_eq!(dues, [Due::Overdue { number }]);
    assert_eq!(site.book.overdue(number, moment(at(site.now)), 2).len(), 2);

    // Two of the three prove it in time; then nobody is overdue but the third.
    site.now -= 31;
    for n in &reached[..2] {
        site.check_in(*n, NEW);
    }
    site.now += 31;
    let overdue = site.book.overdue(number, moment(at(site.now)), 100);
    assert!(matches!(&overdue[..], [Event::Overdue { device, .. }] if *device == id(reached[2])));
}

/// INV-ROLL-1: what is written and not begun takes no room in a lease. What begins could be halted, and has to be named then.
#[test]
fn no_more_rollouts_are_under_way_than_a_lease_can_name() {
    let mut site = Site::new();
    let numbers: Vec<Number> = (0..HALTED_MAX + 6)
        .map(|n| site.order(&format!("r-{n}"), NEW, json!({ "product": format!("app-{n}") })))
        .collect();
    let fits = |site: &Site, number| {
        let live = site.book.live(number).unwrap();
        site.book.fits(number, live, Command::Start, moment(at(site.now)))
    };
    for number in &numbers[..HALTED_MAX] {
        assert_eq!(fits(&site, *number), Ok(()));
        site.feed(*number, Event::Command(Command::Start));
    }
    let refused = fits(&site, numbers[HALTED_MAX]);
    assert_eq!(refused, Err(Unfit::TooManyHalted { found: HALTED_MAX }));
    // One that ends makes room for one.
    site.feed(numbers[0], Event::Command(Command::Abort));
    assert_eq!(fits(&site, numbers[HALTED_MAX]), Ok(()));
}

#[test]
fn a_gate_that_held_is_told_until_something_else_happens() {
    let mut site = Site::new();
    let order = json!({
        "waves": [{ "percent": 10 }, { "percent": 100 }],
        "signals": [{ "name": "flow", "sql": "select 1", "at_least": 1 }],
    });
    let number = site.order("r-1", NEW, order);
    site.start(number);
    site.open(number);
    let reached = site.ordered();
    reached.iter().for_each(|n| drop(site.check_in(*n, NEW)));
    site.feed(number, Event::Tick);
    let question = site.book.live(number).unwrap().state().question;
    let ask = |site: &mut Site, answer| {
        site.feed(number, Event::Answered { question, answers: vec![answer] })
    };
    ask(&mut site, Answer::Empty);
    let live = site.book.live(number).unwrap();
    assert_eq!(live.held.as_ref().unwrap().why, "signal \"flow\" gave no number");
    let answered = |answer| vec![Event::Answered { question, answers: vec![answer] }];
    let again = site.book.moved(number, answered(Answer::Failed), moment(at(site.now))).unwrap();
    assert!(!again.is_nothing() && live.is_known(&again), "it is told once");
    let other = site.book.moved(number, answered(Answer::Number(0.0)), moment(at(site.now)));
    assert!(!live.is_known(&other.unwrap()), "that it halts is news");
    ask(&mut site, Answer::Number(2.0));
    assert!(site.book.live(number).unwrap().held.is_none());
    assert_eq!(site.book.live(number).unwrap().state().wave, 1);
}

impl Site {
    /// Moves a pump into a group, now.
    fn group(&mut self, n: usize, group: &str) {
        let known = Device::clone(self.directory.device(&id(n)).unwrap());
        let group = GroupId::new(group).unwrap();
        let next = Device { group, grouped_at: at(self.now), ..known };
        self.directory = self.directory.with(self.directory.generation() + 1, next);
    }

    fn pilots(&mut self, name: &str, digest: Digest, count: u64) -> Number {
        let waves = json!([{ "percent": 50 }, { "percent": 100 }]);
        let order = json!({ "cohort": { "groups": ["pilot"] }, "waves": waves });
        self.order_of(name, digest, count, order)
    }
}

/// As who joins a zone later does: the waves before the last are not widened by it.
#[test]
fn who_is_moved_into_a_group_while_its_rollout_runs_waits_for_the_last_wave() {
    let mut site = Site::new();
    (1..=10).for_each(|n| site.group(n, "pilot"));
    site.now += 1;
    let number = site.pilots("r-1", NEW, 10);
    site.start(number);
    site.now += 1;
    // These were heard long before the rollout began, and came into its group after it.
    (11..=20).for_each(|n| site.group(n, "pilot"));
    site.open(number);
    assert_eq!(site.positions(number).len(), 10, "they take nobody's place");
    let first = site.ordered();
    assert_eq!(first.len(), 5);
    assert!(first.iter().all(|n| *n <= 10), "{first:?}");
    first.iter().for_each(|n| drop(site.check_in(*n, NEW)));
    site.feed(number, Event::Tick);
    site.open(number);
    let rest = (1..=30).filter(|n| !first.contains(n));
    let last: Vec<_> =
        rest.filter(|n| !site.check_in(*n, OLD).orders.unwrap().is_empty()).collect();
    assert_eq!(last.len(), 10, "of fifteen as many at a time as were ordered: {last:?}");
    assert!(last.iter().any(|n| *n > 10), "{last:?}");
}

#[test]
fn who_leaves_a_group_gets_nothing_more_by_it_and_keeps_what_it_has() {
    let mut site = Site::new();
    (1..=10).for_each(|n| site.group(n, "pilot"));
    site.now += 1;
    let number = site.pilots("r-1", NEW, 10);
    site.start(number);
    site.open(number);
    let reached = site.ordered();
    let others: Vec<_> = (1..=10).filter(|n| !reached.contains(n)).collect();
    site.group(reached[0], "production");
    (0..others.len()).for_each(|at| site.group(others[at], "production"));
    let orders = site.check_in(reached[0], OLD).orders.unwrap();
    assert_eq!((orders.len(), orders[0].digest), (1, NEW), "its leave stays");
    site.check_in(reached[0], NEW);
    assert_eq!(site.book.live(number).unwrap().state().counts.proven, 1);
    for n in others {
        assert_eq!(site.check_in(n, OLD).orders, Some(vec![]), "pump {n} has left");
    }
}

/// Two rollouts of one product may run beside each other in two groups. A device is in the hands of one of them at a time.
#[test]
fn a_device_between_two_groups_is_reached_by_the_second_when_the_first_has_done_with_it() {
    let mut site = Site::new();
    (1..=2).for_each(|n| site.group(n, "pilot"));
    site.now += 1;
    let all = json!([{ "percent": 100 }]);
    let of = |group: &str| json!({ "cohort": { "groups": [group] }, "waves": all });
    let pilot = site.order_of("r-pilot", NEW, 2, of("pilot"));
    let rest = site.order_of("r-rest", NEWER, 28, of("production"));
    site.start(pilot);
    site.start(rest);
    site.open(pilot);
    site.open(rest);
    let digest = |site: &mut Site, n, runs| site.check_in(n, runs).orders.unwrap()[0].digest;
    assert_eq!((digest(&mut site, 1, OLD), digest(&mut site, 3, OLD)), (NEW, NEWER));
    site.now += 1;
    site.group(1, "production");
    assert_eq!(digest(&mut site, 1, OLD), NEW, "what is under way on it goes on");
    assert!(!site.book.live(rest).unwrap().permits.contains_key(&id(1)));
    digest(&mut site, 2, OLD);
    for n in 1..=2 {
        site.check_in(n, NEW);
    }
    site.feed(pilot, Event::Tick);
    assert_eq!(site.book.live(pilot).unwrap().state().phase, Phase::Completed);
    assert_eq!(
        digest(&mut site, 1, NEW),
        NEWER,
        "now it is the other one's, which is for all of its group"
    );
}
