use super::*;
use disk::{Cut, Cuts, SimDisk, SyncMode, cut_everywhere};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

const DIR: &str = "/acme";
const DAY: i64 = DAY_US;

fn now() -> Timestamp {
    time::parse("2030-01-10T00:00:00Z").unwrap()
}

fn later(days: i64) -> Timestamp {
    Timestamp(now().as_us() + days * DAY)
}

fn home<'a>(disk: &'a dyn Disk, dir: &'a Path) -> Home<'a> {
    Home { disk, dir }
}

fn release(version: &str) -> model::Release {
    model::Release {
        product: ProductId::new("pump-app").unwrap(),
        version: version.parse().unwrap(),
        security_version: SecurityVersion(1),
        hardware: vec![HardwareId::new("plimsoll-linux-amd64").unwrap()],
        must_pass: Vec::new(),
    }
}

/// A client that knows nothing of the vendor but its first root. What it has read before it gives as `had`.
fn fetch(
    disk: &dyn Disk,
    repository: &Path,
    had: Option<Trusted>,
    now: Timestamp,
) -> Result<Trusted, String> {
    let metadata = repository.join("metadata");
    let read = |name: &str, max: usize| disk.read(&metadata.join(name), max as u64);
    let trusted = match had {
        Some(trusted) => trusted,
        None => {
            let root = read("1.root.json", 128 * 1024).map_err(|e| e.to_string())?;
            Trusted::from_root(&root, None).map_err(|e| e.to_string())?
        }
    };
    let mut update = Update::begin(trusted, now);
    while let Some(fetch) = update.next() {
        let taken = match read(&fetch.name, fetch.bytes_max) {
            Ok(bytes) => update.take(&bytes),
            Err(_) => update.absent(),
        };
        let taken = taken.map_err(|e| format!("{}: {e}", fetch.name))?;
        if taken.fork {
            return Err(format!("{} says something else than before", fetch.name));
        }
    }
    let trusted = update.into_trusted();
    for target in trusted.current(now).map_err(|e| e.to_string())?.targets() {
        let file = repository.join("targets").join(target.file_name(true));
        let image = disk.read(&file, target.length).map_err(|e| e.to_string())?;
        if image.len() as u64 != target.length || !target.hashes.are_of(&image) {
            return Err(format!("{} is not what is signed", file.display()));
        }
    }
    Ok(trusted)
}

fn releases(trusted: &Trusted) -> Vec<String> {
    let targets = trusted.current(BEFORE_ANY_END).unwrap().targets();
    targets.iter().map(|target| target.path.clone()).collect()
}

/// A vendor with one published release, and two images.
fn vendor(disk: &SimDisk) -> Home<'_> {
    disk::replace(disk, Path::new("/a"), b"image a").unwrap();
    disk::replace(disk, Path::new("/b"), b"image b").unwrap();
    let home = home(disk, Path::new(DIR));
    home.init(now()).unwrap();
    home.publish(release("1.0.0"), Path::new("/a"), now()).unwrap();
    home
}

fn files(disk: &dyn Disk, home: &Home<'_>) -> Vec<(String, Vec<u8>)> {
    let metadata = home.metadata();
    let names = disk.list(&metadata).unwrap();
    let read = |name: String| {
        let bytes = disk.read(&metadata.join(&name), 1 << 20).unwrap();
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}

#[test]
fn what_is_published_is_read_and_verified_by_who_has_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let (acme, image) = (dir.path().join("acme"), dir.path().join("pump-app"));
    fs::write(&image, b"the image").unwrap();
    let vendor = home(&RealDisk, &acme);
    vendor.init(now()).unwrap();
    for (name, _) in KEYS {
        let mode = fs::metadata(vendor.keys().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(releases(&fetch(&RealDisk, &vendor.repository(), None, now()).unwrap()).len(), 0);
    let (target, done) = vendor.publish(release("1.1.0"), &image, now()).unwrap();
    assert_eq!(done, Done::Published);

    // The operator has a copy of the repository; the vendor's keys are not there for anybody.
    let copy = dir.path().join("mirror");
    fs::rename(vendor.repository(), &copy).unwrap();
    fs::remove_dir_all(&acme).unwrap();
    let trusted = fetch(&RealDisk, &copy, None, now()).unwrap();
    let current = trusted.current(now()).unwrap();
    assert_eq!(current.targets(), [target]);
    assert!(current.consistent_snapshot());
    let Custom::Order(order) = &current.targets()[0].custom else { panic!("no order") };
    assert_eq!(order.release, release("1.1.0"));
    let root = trusted.root();
    let asked = Role::ALL.map(|r| (root.role(r).threshold, root.role(r).keyids.len()));
    assert_eq!(asked, [(2, 3), (1, 1), (1, 1), (2, 2)]);
}

#[test]
fn a_cut_at_any_operation_leaves_the_state_before_or_the_one_after() {
    let images = |disk: &SimDisk| {
        disk::replace(disk, Path::new("/a"), b"image a")?;
        disk::replace(disk, Path::new("/b"), b"image b")
    };
    let work = |disk: &SimDisk| {
        let home = home(disk, Path::new(DIR));
        let mut done = 0;
        let all = || -> Result<()> {
            images(disk)?;
            home.init(now())?;
            done = 1;
            home.publish(release("1.0.0"), Path::new("/a"), now())?;
            done = 2;
            home.publish(release("1.1.0"), Path::new("/b"), now())?;
            done = 3;
            Ok(())
        };
        let mut all = all;
        let _ = all();
        done
    };
    let check = |disk: &SimDisk, done: usize| -> Result<(), String> {
        let home = home(disk, Path::new(DIR));
        let words = |e: Error| format!("{e:#}");
        images(disk).unwrap();
        if done == 0 {
            match home.init(later(1)) {
                Ok(()) => {}
                Err(e) if e.to_string().contains("cut short") => return Ok(()),
                // All of it was written, and nobody was told.
                Err(_) => {}
            }
        }
        let seen = fetch(disk, &home.repository(), None, later(1))?;
        let count = releases(&seen).len();
        let promised = done.saturating_sub(1);
        if !(promised..=promised + 1).contains(&count) {
            return Err(format!("{promised} releases were promised, {count} are there"));
        }
        home.publish(release("1.0.0"), Path::new("/a"), later(1)).map_err(words)?;
        home.publish(release("1.1.0"), Path::new("/b"), later(1)).map_err(words)?;
        for had in [None, Some(seen)] {
            let count = releases(&fetch(disk, &home.repository(), had, later(1))?).len();
            if count != 2 {
                return Err(format!("2 releases were published, {count} are there"));
            }
        }
        Ok(())
    };
    cut_everywhere(0..3, work, check).holds("init and publish");
    let lied = Cuts::over(0..1).on(SyncMode::Lies).run(work, check);
    assert!(!lied.broken.is_empty(), "a sync that does nothing was not noticed");
}

#[test]
fn what_a_second_try_found_done_survives_a_power_cut() {
    for seed in 0..12 {
        for cut in 0.. {
            let disk = SimDisk::new(seed);
            let home = vendor(&disk);
            disk.set_cut(Cut::At(cut));
            if home.publish(release("1.1.0"), Path::new("/b"), now()).is_ok() {
                break;
            }
            disk.restart();
            home.publish(release("1.1.0"), Path::new("/b"), now()).unwrap();
            disk.reboot();
            let found = fetch(&disk, &home.repository(), None, now()).unwrap();
            assert_eq!(releases(&found).len(), 2, "seed {seed}, operation {cut}");
        }
    }
}

#[test]
fn who_read_between_two_writes_goes_on_after_a_power_cut() {
    let (mut points, mut lost) = (0, 0);
    for seed in 0..12 {
        for cut in 0.. {
            let disk = SimDisk::new(seed);
            let home = vendor(&disk);
            disk.set_cut(Cut::At(cut));
            if home.publish(release("1.1.0"), Path::new("/b"), now()).is_ok() {
                assert!(cut > 20, "a publication is more than {cut} operations");
                break;
            }
            points += 1;
            // Killed: a reader sees all that was written, durable or not. Then the power is cut.
            disk.restart();
            let read = fetch(&disk, &home.repository(), None, now()).unwrap();
            disk.reboot();
            let at = format!("seed {seed}, operation {cut}");
            let found = fetch(&disk, &home.repository(), None, now()).expect(&at);
            lost += usize::from(releases(&found).len() < releases(&read).len());
            home.publish(release("1.1.0"), Path::new("/b"), later(1)).expect(&at);
            let newest = fetch(&disk, &home.repository(), Some(read), later(1)).expect(&at);
            assert_eq!(releases(&newest).len(), 2, "{at}");
        }
    }
    println!("{points} cuts; {lost} times the power took away what a reader had seen");
    assert!(lost > 0, "the case that this is about did not come");
}

#[test]
fn the_same_again_changes_nothing_and_anything_else_is_refused() {
    let disk = SimDisk::new(1);
    let home = vendor(&disk);
    let before = files(&disk, &home);
    let (_, done) = home.publish(release("1.0.0"), Path::new("/a"), later(1)).unwrap();
    assert_eq!(done, Done::WasPublished);

    let other = |change: &dyn Fn(&mut model::Release)| {
        let mut release = release("1.0.0");
        change(&mut release);
        release
    };
    let more = HardwareId::new("plimsoll-linux-arm64").unwrap();
    let refused = |release: model::Release, image: &str, expected: &str| {
        let error = home.publish(release, Path::new(image), later(1)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{error}");
    };
    refused(release("1.0.0"), "/b", "another image is another release");
    refused(
        other(&|r| r.security_version = SecurityVersion(2)),
        "/a",
        "published as security version 1 for plimsoll-linux-amd64, must pass none, found security version 2",
    );
    refused(
        other(&|r| r.hardware.push(more.clone())),
        "/a",
        "what is said of a release stays said",
    );
    refused(other(&|r| r.must_pass = vec![Version::new(0, 9, 0)]), "/a", "must pass 0.9.0");
    refused(release("1.1.0"), "/none", "reading \"/none\"");
    let seventeen: Vec<_> = (0..17).map(|n| HardwareId::new(format!("h-{n}")).unwrap()).collect();
    refused(other(&|r| r.hardware = seventeen.clone()), "/b", "expected at most 16 hardware ids");
    assert!(before == files(&disk, &home), "a refusal changed a file");

    // For other hardware a release has an image of its own.
    home.publish(other(&|r| r.hardware = vec![more.clone()]), Path::new("/b"), now()).unwrap();
    let trusted = fetch(&disk, &home.repository(), None, now()).unwrap();
    assert_eq!(
        releases(&trusted),
        ["pump-app/1.0.0/plimsoll-linux-amd64.bin", "pump-app/1.0.0/plimsoll-linux-arm64.bin"]
    );
    let versions = trusted.versions();
    assert_eq!((versions.timestamp, versions.snapshot, versions.targets), (3, 3, 3));
}

#[test]
fn a_second_init_is_refused_and_touches_nothing() {
    let disk = SimDisk::new(1);
    let home = vendor(&disk);
    let before = files(&disk, &home);
    let error = home.init(later(1)).unwrap_err().to_string();
    assert_eq!(error, "`/acme` has a repository: its keys and its root stay as they are");
    assert!(before == files(&disk, &home));
    // Without its timestamp it is not whole; its keys must not begin a second history.
    disk.remove(&home.metadata().join("timestamp.json")).unwrap();
    let error = home.init(later(1)).unwrap_err().to_string();
    assert!(error.contains("an init that was cut short left, or a repository"), "{error}");
}

#[test]
fn publishing_needs_the_targets_keys_and_never_the_roots() {
    let disk = SimDisk::new(1);
    let home = vendor(&disk);
    for name in ["root-1.key", "root-2.key", "root-3.key"] {
        disk.remove(&home.keys().join(name)).unwrap();
    }
    home.publish(release("1.1.0"), Path::new("/b"), now()).unwrap();
    let before = files(&disk, &home);
    let error = home.refresh(false, true, now()).unwrap_err().to_string();
    assert_eq!(
        error,
        "signing root needs 2 of the keys that root 1 names, found 0 in `/acme/keys`"
    );

    // A key that is there and that the root does not name counts for nothing.
    let path = home.keys().join("targets-2.key");
    disk.remove(&path).unwrap();
    generate(&disk, &path, Algorithm::Ed25519).unwrap();
    let error = home.publish(release("1.2.0"), Path::new("/b"), now()).unwrap_err().to_string();
    assert_eq!(
        error,
        "signing targets needs 2 of the keys that root 1 names, found 1 in `/acme/keys`"
    );
    assert!(before == files(&disk, &home), "a refusal changed a file");
    home.refresh(false, false, now()).unwrap();
}

#[test]
fn what_ends_is_refused_by_clients_and_renewed_by_its_keys() {
    let disk = SimDisk::new(1);
    let home = vendor(&disk);
    let repository = home.repository();
    let fetched = |now| fetch(&disk, &repository, None, now);
    fetched(later(29)).unwrap();
    assert!(
        fetched(later(30)).unwrap_err().starts_with("timestamp.json: timestamp: expected an end")
    );
    home.refresh(false, false, later(30)).unwrap();
    assert_eq!(releases(&fetched(later(59)).unwrap()).len(), 1);

    let error = format!("{:#}", home.refresh(false, false, later(365)).unwrap_err());
    assert!(error.starts_with("`plimsoll release refresh --targets` renews it: "), "{error}");
    home.refresh(true, false, later(365)).unwrap();
    fetched(later(365)).unwrap();

    let end = 5 * 365;
    let error = home.publish(release("1.1.0"), Path::new("/b"), later(end)).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.starts_with("`plimsoll release refresh --root` renews it: "), "{error}");
    home.refresh(true, true, later(end)).unwrap();
    let trusted = fetched(later(end)).unwrap();
    assert_eq!((trusted.versions().root, releases(&trusted).len()), (2, 1));
    home.publish(release("1.1.0"), Path::new("/b"), later(end)).unwrap();
}

#[test]
fn the_list_says_what_is_published_and_until_when() {
    let disk = SimDisk::new(1);
    let home = vendor(&disk);
    let mut passing = release("1.1.0");
    passing.must_pass = vec![Version::new(1, 0, 0)];
    home.publish(passing, Path::new("/b"), now()).unwrap();
    let list = |json, now| {
        let mut out = Vec::new();
        home.list(json, now, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let table = list(false, now());
    assert_eq!(table.lines().filter(|line| line.contains("pump-app")).count(), 2, "{table}");
    assert!(table.contains("timestamp    3 until 2030-02-09T00:00:00Z\n"), "{table}");
    let table = list(false, later(30));
    assert!(table.contains("2030-02-09T00:00:00Z (ENDED: clients refuse it)\n"), "{table}");

    let json: serde_json::Value = serde_json::from_str(&list(true, now())).unwrap();
    let sha256 = trust::digest(b"image b").to_string();
    assert_eq!(
        json["releases"][1],
        serde_json::json!({
            "product": "pump-app",
            "release": "1.1.0",
            "hardware": ["plimsoll-linux-amd64"],
            "security_version": 1,
            "must_pass": ["1.0.0"],
            "path": "pump-app/1.1.0/plimsoll-linux-amd64.bin",
            "file": format!("pump-app/1.1.0/{sha256}.plimsoll-linux-amd64.bin"),
            "bytes": 7,
            "sha256": sha256,
        })
    );
    assert_eq!(json["metadata"][0]["ends"], "2035-01-09T00:00:00Z");
    assert_eq!(json["metadata"][0]["ended"], false);
    let empty = home_without_anything();
    assert!(empty.contains("`plimsoll release init --vendor /nobody` makes one"), "{empty}");
}

fn home_without_anything() -> String {
    let disk = SimDisk::new(1);
    let error = home(&disk, Path::new("/nobody")).list(false, now(), &mut Vec::new()).unwrap_err();
    error.to_string()
}
