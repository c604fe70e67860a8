//! A device's life on a disk that cuts and tears: provisioned, updated, updated to something bad, taken back. The same cores, the
//! same files and real metadata; only network, clock and processes are left out.

use super::*;
use crate::clock::FLOOR;
use crate::update::checkin::direct;
use crate::update::install::{Effect, Event, Installer, NotArmed};
use crate::update::kit::{self, World, device, hardware, product as app, target};
use crate::update::repository::{Holder, Repository, lease_keys};
use disk::{Cuts, SimDisk, SyncMode};
use model::Timestamp;
use model::manifest::InstallEnd;
use std::collections::VecDeque;
use std::sync::LazyLock;

const V: fn(u32) -> Version = |minor| Version::new(1, minor, 0);
const NOW: Timestamp = Timestamp(FLOOR.as_us() + 1_000_000);
const DATA: &str = "/data";
const FACTORY: &str = "/factory/pump-app";
/// It starts, and does not become well.
const BAD: u32 = 2;
/// Check-ins until a device has done what it is told, with some to spare.
const CHECK_INS_MAX: u32 = 20;

fn world() -> World {
    // Signed once: the sweeps ask for it hundreds of times.
    static WORLD: LazyLock<World> = LazyLock::new(|| {
        World::new(NOW, &[target(V(0), 1, None), target(V(1), 1, None), target(V(BAD), 1, None)])
    });
    WORLD.clone()
}

fn first() -> Factory {
    Factory {
        product: app(),
        hardware: hardware(),
        version: V(0),
        security_version: SecurityVersion(1),
        image: FACTORY.into(),
    }
}

/// In the factory, as often as it takes.
fn provisioned(disk: &SimDisk) -> Result<(), ProductError> {
    match Product::provision(&disk.shared(), Path::new(DATA), &first()) {
        Err(ProductError::Provisioned { .. }) => Ok(()),
        result => result,
    }
}

fn given(disk: &SimDisk, world: &World) -> io::Result<()> {
    disk.create_dir_all(Path::new("/factory"))?;
    disk::replace(disk, Path::new(FACTORY), &kit::image(V(0)))?;
    let [director, images] = world.first_roots();
    disk::replace(disk, Path::new("/factory/director"), &director)?;
    disk::replace(disk, Path::new("/factory/images"), &images)
}

/// The disk failed: the process ends.
#[derive(Debug)]
struct Died(String);

impl<E: std::error::Error> From<E> for Died {
    fn from(error: E) -> Self {
        Self(model::told(&error))
    }
}

/// One process: from its start until it has done what the site orders.
struct Life<'w> {
    world: &'w mut World,
    product: Product,
    installer: Installer,
    director: Repository,
    images: Repository,
    leases: Holder,
    uptime_ms: u64,
    settled: bool,
}

impl<'w> Life<'w> {
    fn start(disk: &SimDisk, world: &'w mut World) -> Result<Self, Died> {
        let (shared, data) = (disk.shared(), Path::new(DATA));
        let root = |name: &str| Path::new("/factory").join(name);
        let trust = data.join("trust");
        let open = |name: &str, device| {
            let dir = trust.join(name);
            Repository::open(&shared, &dir, Some(&root(name)), "--root", device)
        };
        let (director, dropped) = open("director", Some(device()))?;
        assert!(dropped.is_empty(), "{dropped:?}");
        let (images, dropped) = open("images", None)?;
        assert!(dropped.is_empty(), "{dropped:?}");
        let (leases, told) = Holder::open(&shared, &trust, 0);
        assert!(told.is_none() || !disk.is_on(), "{told:?}");
        let product = Product::open(&shared, data, &app())?;
        let installer = Installer::default();
        let (uptime_ms, settled) = (0, false);
        let mut life =
            Self { world, product, installer, director, images, leases, uptime_ms, settled };
        life.load()?;
        Ok(life)
    }

    /// What the loader starts is whole, and known.
    fn load(&mut self) -> Result<(), Died> {
        let (launch, reason) = self.product.load()?;
        let bytes = self.product.disk.read(&launch.program, 1 << 20)?;
        assert_eq!(bytes, kit::image(launch.version), "what starts is the image of its version");
        assert_eq!(self.product.doubts(), None);
        self.on(Event::Loaded(reason))?;
        if launch.on_trial {
            let bad = launch.version == V(BAD);
            let (slot, why) = (launch.slot, "it ended".to_owned());
            self.on(match bad {
                true => Event::Unhealthy { slot, code: 2, why },
                false => Event::Healthy(slot),
            })?;
            if bad {
                self.load()?;
            }
        }
        Ok(())
    }

    fn on(&mut self, event: Event<'_>) -> Result<(), Died> {
        self.on_at(event, self.uptime_ms)
    }

    fn on_at(&mut self, event: Event<'_>, now_ms: u64) -> Result<(), Died> {
        let mut effects = VecDeque::from(self.installer.on(event, now_ms));
        while let Some(effect) = effects.pop_front() {
            let answer = match effect {
                Effect::Fetch(install, order) => Some(match self.fetch(&install, &order)? {
                    Ok(()) => Event::Fetched,
                    Err(why) => Event::NotFetched(why),
                }),
                Effect::Arm(install, _) => Some(match self.product.arm(&install)? {
                    true => Event::Armed,
                    false => Event::NotArmed(NotArmed::NotWhole),
                }),
                Effect::Restart => {
                    self.load()?;
                    None
                }
                Effect::Confirm(slot) => {
                    self.product.confirm(slot)?;
                    None
                }
                Effect::GiveUp { slot, code, why } => {
                    self.product.give_up(slot, code, &why)?;
                    None
                }
                Effect::Raise(floor) => {
                    self.product.raise(floor)?;
                    None
                }
                Effect::Fail(order, why) => {
                    self.product.fail(&order, &why)?;
                    None
                }
                Effect::StopFetch | Effect::CheckIn => None,
            };
            if let Some(event) = answer {
                effects.extend(self.installer.on(event, self.uptime_ms));
            }
        }
        Ok(())
    }

    fn fetch(
        &mut self,
        install: &Install,
        order: &Ordered,
    ) -> Result<Result<(), NotFetched>, Died> {
        let Begun::From(at) = self.product.begin(install, order)? else { return Ok(Ok(())) };
        let blob = &self.world.blobs[&install.digest().to_string()];
        for piece in blob[at as usize..].chunks(3_000) {
            if let Err(why) = self.product.append(piece)? {
                return Ok(Err(why));
            }
        }
        Ok(self.product.finish()?)
    }

    /// What the manifest tells, and what comes of the answer.
    fn check_in(&mut self, told: &mut Vec<Outcome>) -> Result<(), Died> {
        self.uptime_ms += 61_000;
        self.world.now.0 += 61_000_000;
        told.extend(self.product.outcome());
        let answer = self.world.answer(self.director.versions().targets);
        let now = self.leases.now(self.uptime_ms);
        if let Some(files) = &answer.director {
            direct(&mut self.director.cycle(now), files)?;
        }
        let keys = lease_keys(self.director.trusted());
        self.leases.take(&answer.lease.0, keys, self.uptime_ms)?;
        let now = self.leases.now(self.uptime_ms);
        let mut cycle = self.images.cycle(now);
        while let Some(fetch) = cycle.next() {
            cycle.take(self.world.images.get(&fetch.name).map(|bytes| &bytes[..]))?;
        }
        let me = self.product.component().expect("it was loaded");
        let director = self.director.trusted().current(now)?;
        let images = self.images.trusted().current(now)?;
        let verdict = verdict(&director, &images, &device(), &me);
        let rollout = match &verdict {
            Verdict::Install(_, order) => order.rollout.clone(),
            _ => None,
        };
        let may_arm = self.leases.may_arm(rollout.as_ref(), 60_000, self.uptime_ms);
        let noted = self.product.notes().install().map(|noted| noted.order.clone());
        let end = self.product.outcome().map(|outcome| outcome.end);
        let over = matches!(end, Some(InstallEnd::Reverted | InstallEnd::Failed));
        self.settled = match &verdict {
            Verdict::Nothing => true,
            Verdict::Install(_, order) => over && noted.as_ref().is_some_and(|n| n.is(order)),
            _ => false,
        };
        let newest = noted.as_ref().zip(end);
        self.on(Event::Assessed { verdict: &verdict, newest, may_arm })?;
        // Whatever waits has waited long enough.
        self.on_at(Event::Woken, u64::MAX)
    }

    fn settles(&mut self, told: &mut Vec<Outcome>) -> Result<(), Died> {
        for _ in 0..CHECK_INS_MAX {
            self.check_in(told)?;
            if self.settled {
                told.extend(self.product.outcome());
                return Ok(());
            }
        }
        panic!("not settled after {CHECK_INS_MAX} check-ins: {:?}", self.product);
    }

    fn runs(&self) -> Version {
        self.product.component().expect("it was loaded").running_image().version
    }
}

/// Provisioned, then 1.1.0 by r-1, then 1.2.0 by r-2, which is bad. Stops at the first error of the disk.
fn a_life(disk: &SimDisk, told: &mut Vec<Outcome>) -> Result<Version, Died> {
    let mut world = world();
    given(disk, &world)?;
    provisioned(disk)?;
    let mut runs = V(0);
    for (version, rollout) in [(1, "r-1"), (BAD, "r-2")] {
        world.direct(&[target(V(version), 1, Some(rollout))]);
        let mut life = Life::start(disk, &mut world)?;
        life.settles(told)?;
        runs = life.runs();
    }
    Ok(runs)
}

fn ends(told: &[Outcome]) -> Vec<(String, &'static str)> {
    let mut ends: Vec<_> = told
        .iter()
        .map(|o| (o.rollout.as_ref().map_or("-".into(), ToString::to_string), o.end.as_str()))
        .collect();
    ends.dedup();
    ends
}

#[test]
fn a_good_release_is_confirmed_and_a_bad_one_is_taken_back_and_not_tried_again() {
    let (disk, mut told) = (SimDisk::new(1), Vec::new());
    assert_eq!(a_life(&disk, &mut told).unwrap(), V(1));
    let r = |n: u32, end| (format!("r-{n}"), end);
    let expected = [r(1, "underway"), r(1, "confirmed"), r(2, "underway"), r(2, "reverted")];
    assert_eq!(ends(&told), expected);
    assert_eq!(told.last().unwrap().reason, "it ended");
    // Back to 1.0.0, outside any rollout, as the way back is ordered: it lies in its slot no more, and is fetched.
    let mut world = world();
    world.generation = 100;
    world.direct(&[target(V(0), 1, None)]);
    world.now.0 += 3_600_000_000;
    world.skip_leases(1_000);
    let mut life = Life::start(&disk, &mut world).unwrap();
    life.settles(&mut told).unwrap();
    assert_eq!(life.runs(), V(0));
    assert_eq!(ends(&told).last().unwrap(), &("-".to_owned(), "confirmed"));
}

/// INV-BOOT-1 and no false report, wherever the power is cut or the process killed: what starts is whole, what was told stays
/// true, nothing bad counts as confirmed and nothing good as taken back, and the device does what it is told afterwards.
#[test]
fn a_cut_at_any_write_of_an_update_leaves_a_device_that_goes_on_and_says_what_is_true() {
    let workload = |disk: &SimDisk| {
        let mut told = Vec::new();
        let _ = a_life(disk, &mut told);
        told
    };
    let report = Cuts::over(0..1).run(workload, |disk, told| afterwards(disk, &told, 1));
    println!("{} cut points", report.points);
    report.holds("an update");
}

/// And once more while it recovers.
#[test]
fn a_second_cut_while_a_device_recovers_is_no_worse() {
    let workload = |disk: &SimDisk| {
        let mut told = Vec::new();
        let _ = a_life(disk, &mut told);
        told
    };
    let recover = |disk: &SimDisk| {
        let mut world = later();
        world.direct(&[target(V(1), 1, Some("r-1"))]);
        let _ = provisioned(disk);
        if let Ok(mut life) = Life::start(disk, &mut world) {
            let _ = life.settles(&mut Vec::new());
        }
    };
    let cuts = Cuts::over(0..1).recovering(&recover);
    cuts.run(workload, |disk, told| afterwards(disk, &told, 2)).holds("an update, cut twice");
}

#[test]
fn a_disk_whose_sync_does_nothing_is_found_out_by_this_sweep() {
    let workload = |disk: &SimDisk| {
        let mut told = Vec::new();
        let _ = a_life(disk, &mut told);
        told
    };
    let found = Cuts::over(0..1).on(SyncMode::Lies).run(workload, |disk, told| {
        let open = Product::open(&disk.shared(), Path::new(DATA), &app());
        let known = open.ok().and_then(|product| product.outcome());
        match told.last() {
            Some(last) if known.as_ref() != Some(last) => Err("forgot what it told".to_owned()),
            _ => Ok(()),
        }
    });
    assert!(!found.broken.is_empty(), "the sweep would pass with a disk that loses all");
}

/// The site some time later: its generations and leases are beyond those of any life before.
fn later() -> World {
    let mut world = world();
    world.generation = 100;
    world.skip_leases(1_000);
    world.now.0 += 24 * 3_600_000_000;
    world
}

fn afterwards(disk: &SimDisk, told: &[Outcome], deaths: u32) -> Result<(), String> {
    let mut world = later();
    if !disk.exists(Path::new("/factory/images")).unwrap() {
        return Ok(());
    }
    // The factory does it again if it was cut there.
    provisioned(disk).map_err(|error| error.to_string())?;
    let product = Product::open(&disk.shared(), Path::new(DATA), &app());
    let product = product.map_err(|error| error.to_string())?;
    let known = product.outcome();
    drop(product);
    let is_end = |outcome: &Outcome| outcome.end != InstallEnd::Underway;
    if let (Some(last), Some(known)) = (told.last().filter(|o| is_end(o)), &known) {
        let same = last.rollout == known.rollout;
        // A second life may have begun the same rollout anew only if the first had not ended it.
        if same && last != known {
            return Err(format!("told {last:?}, knows {known:?}"));
        }
    }
    if told.last().is_some_and(is_end) && known.is_none() {
        return Err("told how an install ended, and knows of none".to_owned());
    }
    world.direct(&[target(V(BAD), 1, Some("r-2"))]);
    let mut since = Vec::new();
    let mut life = Life::start(disk, &mut world).map_err(|Died(why)| format!("bricked: {why}"))?;
    life.settles(&mut since).map_err(|Died(why)| format!("died on a whole disk: {why}"))?;
    for outcome in known.iter().chain(told).chain(&since) {
        let digest = |n| Digest(trust::digest(&kit::image(V(n))).0);
        let bad = outcome.digest == digest(BAD);
        let wrong = match outcome.end {
            InstallEnd::Confirmed => bad,
            // A good one comes to such an end only when power went in each of its trials.
            InstallEnd::Reverted => !bad && deaths < 2,
            InstallEnd::Failed => true,
            InstallEnd::Underway => false,
        };
        if wrong {
            return Err(format!("a false report: {outcome:?}"));
        }
    }
    let confirmed = |o: &Outcome| o.end == InstallEnd::Confirmed;
    let expected = if told.iter().any(confirmed) { vec![V(1)] } else { vec![V(0), V(1)] };
    if !expected.contains(&life.runs()) {
        return Err(format!("runs {}, expected one of {expected:?}", life.runs()));
    }
    drop(life);
    world.direct(&[target(V(1), 1, Some("r-3"))]);
    let mut life = Life::start(disk, &mut world).map_err(|Died(why)| format!("bricked: {why}"))?;
    life.settles(&mut since).map_err(|Died(why)| format!("died on a whole disk: {why}"))?;
    if life.runs() != V(1) {
        return Err(format!("runs {} after a good release", life.runs()));
    }
    Ok(())
}

#[test]
fn an_image_goes_on_from_where_a_cut_left_it_and_other_bytes_under_its_name_are_refused() {
    let disk = SimDisk::new(1);
    let mut world = world();
    given(&disk, &world).unwrap();
    provisioned(&disk).unwrap();
    world.direct(&[target(V(1), 1, Some("r-1"))]);
    let mut life = Life::start(&disk, &mut world).unwrap();
    // As far as the order, without its bytes.
    life.world.blobs.values_mut().for_each(|blob| blob.truncate(4_000));
    life.check_in(&mut Vec::new()).unwrap();
    let noted = life.product.notes().install().unwrap().order.clone();
    assert_eq!(life.product.written(), Some((4_000, 10_000)));
    drop(life);
    // What was written and never synced may be gone after a power cut; after a kill it is there.
    disk.restart();
    let mut again = world_like(&world);
    let mut life = Life::start(&disk, &mut again).unwrap();
    life.world.blobs.values_mut().for_each(|blob| blob.truncate(4_000));
    life.check_in(&mut Vec::new()).unwrap();
    assert_eq!(life.product.written(), Some((4_000, 10_000)), "it went on, and nothing more came");
    assert!(life.product.notes().install().unwrap().order.is(&noted));
    // The rest is of another image.
    assert_eq!(life.product.append(&[7; 6_000]).unwrap(), Ok(()));
    assert_eq!(life.product.finish().unwrap(), Err(NotFetched::Wrong));
    assert_eq!(life.product.written(), None, "and the slot is empty again");
    // More bytes than the image has.
    life.check_in(&mut Vec::new()).unwrap();
    assert_eq!(life.product.append(&[7; 6_001]).unwrap(), Err(NotFetched::Wrong));
}

fn world_like(world: &World) -> World {
    let mut world = world.clone();
    world.skip_leases(100);
    world
}

/// Each move of an update finds no room, and what runs goes on; once there is room, so does the update.
#[test]
fn a_full_disk_stops_an_update_and_nothing_else_until_there_is_room() {
    let disk = SimDisk::new(1);
    let mut world = world();
    given(&disk, &world).unwrap();
    provisioned(&disk).unwrap();
    world.direct(&[target(V(1), 1, Some("r-1"))]);
    let mut life = Life::start(&disk, &mut world).unwrap();
    life.world.blobs.values_mut().for_each(|blob| blob.truncate(100));
    life.check_in(&mut Vec::new()).unwrap();
    let noted = life.product.notes().install().unwrap().order.clone();
    let product = &mut life.product;

    disk.set_capacity(0);
    let append = product.append(&[7; 6_000]);
    assert!(!matches!(append, Ok(Ok(()))), "{append:?}");
    let fail = product.fail(&noted, "no room").unwrap_err();
    assert!(fail.is_full() && fail.may_pass(), "{fail}");
    let _ = product.reopen();
    let (launch, reason) = product.load().unwrap();
    assert_eq!((launch.version, reason), (V(0), Reason::Confirmed));
    let raise = product.raise(SecurityVersion(1));
    assert!(raise.is_ok_and(|()| true), "it is there already");

    disk.set_capacity(u64::MAX);
    product.reopen().unwrap();
    drop(life);
    world.blobs = self::world().blobs;
    let mut life = Life::start(&disk, &mut world).unwrap();
    life.settles(&mut Vec::new()).unwrap();
    assert_eq!(life.runs(), V(1));
}

/// What the journal does not do from where it stands is told and costs nothing: an agent that ended over it would end again
/// and again.
#[test]
fn a_move_that_the_journal_refuses_may_pass() {
    let disk = SimDisk::new(1);
    given(&disk, &world()).unwrap();
    provisioned(&disk).unwrap();
    let mut product = Product::open(&disk.shared(), Path::new(DATA), &app()).unwrap();
    product.load().unwrap();
    let refused = [
        product.confirm(boot::Slot::B).unwrap_err(),
        product.give_up(boot::Slot::A, 1, "").unwrap_err(),
        product.raise(SecurityVersion(9)).unwrap_err(),
    ];
    assert!(refused.iter().all(ProductError::may_pass), "{refused:?}");
    let lost = ProductError::Slots { dir: DATA.into(), source: io::ErrorKind::Other.into() };
    assert!(!lost.may_pass(), "a disk that fails is relied on no more");
}

#[test]
fn a_product_is_provisioned_once_and_only_then_opened() {
    let disk = SimDisk::new(1);
    given(&disk, &world()).unwrap();
    let open = || Product::open(&disk.shared(), Path::new(DATA), &app());
    let missing = open().unwrap_err();
    assert!(matches!(missing, ProductError::Notes(NotesError::Missing { .. })), "{missing}");
    let provision = || Product::provision(&disk.shared(), Path::new(DATA), &first());
    provision().unwrap();
    let again = provision().unwrap_err();
    assert!(matches!(again, ProductError::Provisioned { .. }), "{again}");
    let mut product = open().unwrap();
    assert_eq!(product.component(), None, "nothing runs before a load");
    product.load().unwrap();
    let me = product.component().unwrap();
    assert_eq!((me.running_image().version, me.floor), (V(0), SecurityVersion(1)));
    assert_eq!((me.boot, me.slots[1]), (manifest::Boot::Confirmed, None));
}
