use super::*;
use crate::clock::FLOOR;
use crate::update::checkin::direct;
use crate::update::kit::{World, device, secret, target};
use disk::{Cuts, SimDisk, SyncMode};
use model::Version;
use trust::cose::Signer as _;
use trust::tuf::Role;

const NOW: Timestamp = Timestamp(FLOOR.as_us() + 1_000_000);
const DATA: &str = "/data/trust";

fn world() -> World {
    let mut world = World::new(NOW, &[target(Version::new(1, 1, 0), 1, None)]);
    world.direct(&[target(Version::new(1, 1, 0), 1, Some("r-1"))]);
    world
}

/// A disk on which the first roots lie, as an agent is given them.
fn given(disk: &SimDisk, world: &World) -> io::Result<()> {
    disk.create_dir_all(Path::new("/given"))?;
    let [director, _] = world.first_roots();
    disk::replace(disk, Path::new("/given/director"), &director)
}

fn opened(disk: &SimDisk) -> Result<(Repository, Vec<Dropped>), TrustError> {
    let (root, dir) = (Path::new("/given/director"), Path::new(DATA).join("director"));
    Repository::open(&disk.shared(), &dir, Some(root), "--director-root", Some(device()))
}

fn director(disk: &SimDisk) -> Result<Repository, TrustError> {
    opened(disk).map(|(repository, dropped)| {
        assert_eq!(dropped, [], "nothing of what was kept is lost");
        repository
    })
}

fn updated(repository: &mut Repository, world: &World) -> Result<(), Stopped> {
    let files = world.directed(device().as_str());
    direct(&mut repository.cycle(world.now), &files)
}

#[test]
fn a_device_without_a_first_root_says_which_option_gives_one() {
    let disk = SimDisk::new(1);
    let dir = Path::new(DATA).join("director");
    let error = Repository::open(&disk.shared(), &dir, None, "--director-root", None).unwrap_err();
    assert!(error.to_string().ends_with("start the agent with --director-root FILE once"));
}

#[test]
fn a_root_that_came_once_stays_whatever_file_is_given_later() {
    let (disk, mut world) = (SimDisk::new(1), world());
    given(&disk, &world).unwrap();
    drop(director(&disk).unwrap());
    world.operator = world.vendor.clone();
    given(&disk, &world).unwrap();
    assert!(matches!(updated(&mut director(&disk).unwrap(), &world), Err(Stopped::Refused(_))));
}

/// INV-FRESH-1 over restarts: what was taken is what is known afterwards, wherever the power is cut, and nothing older is
/// taken then.
#[test]
fn no_metadata_older_than_what_was_acted_upon_count_after_a_cut_at_any_write() {
    let workload = |disk: &SimDisk| {
        let mut world = world();
        let mut acted = Versions::default();
        if given(disk, &world).is_err() {
            return acted;
        }
        for _ in 0..3 {
            world.direct(&[target(Version::new(1, 1, 0), 1, Some("r-1"))]);
            let Ok(mut repository) = director(disk) else { return acted };
            if updated(&mut repository, &world).is_err() {
                return acted;
            }
            acted = repository.versions();
        }
        acted
    };
    let older = |found: Versions, acted: Versions| {
        found.root < acted.root
            || found.timestamp < acted.timestamp
            || found.snapshot < acted.snapshot
            || found.targets < acted.targets
    };
    let check = |disk: &SimDisk, acted: Versions| {
        if !disk.exists(Path::new("/given/director")).unwrap() {
            return Ok(());
        }
        let mut repository = director(disk).map_err(|error| error.to_string())?;
        let found = repository.versions();
        if older(found, acted) {
            return Err(format!("acted upon {acted:?}, knows {found:?}"));
        }
        let old = world();
        if found.timestamp > old.generation && updated(&mut repository, &old).is_ok() {
            return Err(format!("took {} after {found:?}", old.generation));
        }
        // A cycle that was cut goes on.
        let mut next = world();
        (0..4).for_each(|_| next.direct(&[]));
        updated(&mut repository, &next).map_err(|stopped| stopped.to_string())
    };
    let report = Cuts::over(0..2).run(workload, check);
    report.holds("the Director's files");
    let lies = Cuts::over(0..1).on(SyncMode::Lies).run(workload, |disk, acted| {
        let known = opened(disk).map(|(repository, _)| repository.versions());
        if older(known.unwrap_or_default(), acted) { Err("lost".to_owned()) } else { Ok(()) }
    });
    assert!(!lies.broken.is_empty(), "the test would pass with a disk that loses what it promised");
}

fn holder(disk: &SimDisk, uptime_ms: u64) -> Holder {
    disk.create_dir_all(Path::new(DATA)).unwrap();
    let (holder, told) = Holder::open(&disk.shared(), Path::new(DATA), uptime_ms);
    assert_eq!(told, None);
    holder
}

fn keys(world: &World) -> Vec<PublicKey> {
    vec![world.operator.key(Role::Timestamp).public().clone()]
}

#[test]
fn a_lease_is_durable_before_it_counts_and_gives_nothing_after_a_restart() {
    let (disk, mut world) = (SimDisk::new(1), world());
    let mut leases = holder(&disk, 1_000);
    assert_eq!(leases.may_arm(None, 60_000, 1_000), Err(NotNow::NoLease));
    let first = world.lease();
    assert_eq!(leases.take(&first, keys(&world), 1_000).unwrap(), Took::New);
    assert_eq!(leases.may_arm(None, 60_000, 1_000), Ok(()));
    assert_eq!(leases.may_arm(None, 60_000, 61_001), Err(NotNow::NotFresh));
    disk.cut_now();
    disk.reboot();
    let mut leases = holder(&disk, 7);
    assert_eq!(leases.may_arm(None, 60_000, 7), Err(NotNow::NoLease));
    assert_eq!(leases.take(&first, keys(&world), 7).unwrap(), Took::Known);
    assert_eq!(leases.may_arm(None, 60_000, 7), Err(NotNow::RanOut), "the same one gives nothing");
    let second = world.lease();
    assert_eq!(leases.take(&second, keys(&world), 8).unwrap(), Took::New);
    assert_eq!(leases.may_arm(None, 60_000, 8), Ok(()));
    let refused = leases.take(&first, keys(&world), 9).unwrap_err();
    assert!(matches!(refused, LeaseStopped::Refused(LeaseRefused::Older { .. })), "{refused}");
}

#[test]
fn a_disk_that_keeps_nothing_gives_no_lease() {
    let (disk, mut world) = (SimDisk::new(1), world());
    let mut leases = holder(&disk, 0);
    disk.set_capacity(0);
    let lease = world.lease();
    assert!(matches!(leases.take(&lease, keys(&world), 0), Err(LeaseStopped::Disk(_))));
    assert_eq!(leases.may_arm(None, 60_000, 0), Err(NotNow::NoLease));
}

#[test]
fn the_floor_of_time_goes_on_with_the_devices_own_clock_and_over_a_restart_not_back() {
    let (disk, mut world) = (SimDisk::new(1), world());
    let mut leases = holder(&disk, 5_000);
    assert_eq!(leases.now(5_000), FLOOR);
    let first = world.lease();
    leases.take(&first, keys(&world), 5_000).unwrap();
    assert_eq!(leases.now(5_000), NOW);
    assert_eq!(leases.now(6_500), Timestamp(NOW.as_us() + 1_500_000));
    // A later restart knows the newest signed time, and not what the clock made of it.
    assert_eq!(holder(&disk, 90_000).now(90_000), NOW);
    // Ten minutes later by the device's own clock, what was issued ten minutes ago is ten minutes old.
    let kept_back = world.lease();
    leases.take(&kept_back, keys(&world), 605_000).unwrap();
    assert_eq!(leases.may_arm(None, 60_000, 605_000), Err(NotNow::NotFresh));
    assert_eq!(leases.now(605_000), Timestamp(NOW.as_us() + 600_000_000));
}

#[test]
fn a_new_root_says_who_signs_leases_and_what_the_old_key_signed_gives_nothing_more() {
    let (disk, mut world) = (SimDisk::new(1), world());
    let mut leases = holder(&disk, 0);
    let first = world.lease();
    leases.take(&first, keys(&world), 0).unwrap();
    let new = secret(77);
    let by_old = world.lease_of(9, NOW, &world.operator.key(Role::Timestamp));
    let by_new = world.lease_of(9, NOW, &new);
    let only_new = vec![new.public().clone()];
    let refused = leases.take(&by_old, only_new.clone(), 1).unwrap_err();
    assert!(matches!(refused, LeaseStopped::Refused(LeaseRefused::UnknownKey)), "{refused}");
    assert_eq!(leases.take(&by_new, only_new, 1).unwrap(), Took::New);
}

#[test]
fn a_kept_lease_that_was_changed_is_forgotten_and_told() {
    let (disk, mut world) = (SimDisk::new(1), world());
    let mut leases = holder(&disk, 0);
    let lease = world.lease();
    leases.take(&lease, keys(&world), 0).unwrap();
    let path = Path::new(DATA).join(LEASE);
    let mut bytes = disk.read(&path, 10_000).unwrap();
    bytes[20] ^= 1;
    disk::replace(&disk, &path, &bytes).unwrap();
    let (leases, told) = Holder::open(&disk.shared(), Path::new(DATA), 0);
    assert_eq!(told, Some("`/data/trust/lease` is damaged".to_owned()));
    assert_eq!(leases.now(0), FLOOR);
}

/// Never changed. The checksum is CRC-32C (Castagnoli), as of the other text files.
#[test]
fn version_1_of_the_kept_lease_keeps_its_bytes() {
    let golden = "plimsoll-lease 1 1793491200000000 00ff ";
    let golden = format!("{golden}{:08x}\n", crc32c::crc32c(golden.as_bytes()));
    assert_eq!(line(FLOOR, Some(&[0x00, 0xff])), golden);
    assert_eq!(parse(golden.as_bytes()), Some((FLOOR, Some(vec![0x00, 0xff]))));
    for bad in [
        golden.to_uppercase(),
        golden.replace("lease 1", "lease 2"),
        golden.replace("00ff", "00fe"),
    ] {
        assert_eq!(parse(bad.as_bytes()), None, "{bad}");
    }
    assert_eq!(parse(line(FLOOR, None).as_bytes()), Some((FLOOR, None)));
}
