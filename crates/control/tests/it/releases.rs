//! The vendor's repository, as control reads it and passes it on.

use crate::vendor::{DAY_US, Files, Shelf, Vendor, directory, put};
use crate::world::{Got, Setup, Station, World, in_time, now, secret};
use api::{path, release::Releases as Page};
use control::Releases;
use disk::{Cuts, SharedDisk, SimDisk, SyncMode};
use model::envelope::Algorithm;
use model::{HardwareId, ProductId, Timestamp};
use reqwest::Method;
use std::path::Path;
use std::sync::Arc;

fn product(name: &str) -> ProductId {
    ProductId::new(name).unwrap()
}

fn open(disk: SharedDisk, shelf: &Arc<Shelf>, vendor: &Vendor) -> Releases {
    let root = vendor.first_root();
    Releases::open(disk, Path::new("/images"), Some(&root), shelf.clone(), now()).unwrap()
}

#[tokio::test]
async fn what_is_published_is_found_by_its_words_and_by_its_digest() {
    let mut vendor = Vendor::new(now());
    let one = vendor.publish("pump-app", "1.0.0", b"one");
    let two = vendor.publish("pump-app", "1.1.0", b"two");
    let other = vendor.publish("agent", "1.1.0", b"three");
    let releases = open(SimDisk::new(1).shared(), &Shelf::of(&vendor.files), &vendor);
    assert!(releases.published().is_none(), "nothing was read yet");
    let published = releases.refresh(now()).await.unwrap();
    let hardware = HardwareId::new(crate::vendor::HARDWARE).unwrap();
    let version = "1.1.0".parse().unwrap();
    assert_eq!(published.find(&product("pump-app"), version, &hardware), Some(&two));
    let elsewhere = HardwareId::new("crane").unwrap();
    assert_eq!(published.find(&product("pump-app"), version, &elsewhere), None);
    assert_eq!(published.images(&product("agent"), version).collect::<Vec<_>>(), [&other]);
    let digest = one.hashes.sha256.unwrap();
    assert_eq!(published.by_digest(&product("pump-app"), digest), Some(&one));
    assert_eq!(published.by_digest(&product("agent"), digest), None, "of another product");
    assert_eq!(published.image(digest), Some(&one));
    assert_eq!(published.versions().targets, vendor.number);
    let day = |days| Timestamp(now().as_us() + days * DAY_US);
    assert!(!published.has_ended(day(29)));
    assert!(published.has_ended(day(31)), "the timestamp ends first");
}

/// INV-COST-1: whoever may write to the vendor's directory keeps nobody here waiting: a pipe has no end, a device too many bytes.
#[test]
fn what_is_no_file_is_not_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    for part in ["metadata", "targets"] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
        let pipe = dir.path().join(part).join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", dir.path().join(part).join("zero")).unwrap();
    }
    for name in ["pipe", "zero"] {
        let (sender, answers) = std::sync::mpsc::channel();
        let source = directory(dir.path().to_owned());
        std::thread::spawn(move || {
            let metadata = source.metadata(name, 1000).map(drop);
            drop(sender.send((metadata, source.image(name).map(drop))));
        });
        let (metadata, image) = answers.recv_timeout(crate::world::PATIENCE).expect("at once");
        for refused in [metadata, image] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("expected a file"), "{name}: {refused}");
        }
    }
    // What is one has its bound.
    put(&dir.path().join("metadata/long"), &[0; 1001]);
    put(&dir.path().join("metadata/fits"), &[0; 1000]);
    let source = directory(dir.path().to_owned());
    assert_eq!(source.metadata("long", 1000).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    assert_eq!(source.metadata("fits", 1000).unwrap(), Some(vec![0; 1000]));
    assert_eq!(source.metadata("none", 1000).unwrap(), None);
}

/// INV-FRESH-1: from a publication that is taken, each single change is refused for what it is, and nothing of it counts.
#[tokio::test]
async fn a_repository_with_one_thing_wrong_is_refused_for_that_and_the_old_one_counts() {
    let mut vendor = Vendor::new(now());
    vendor.publish("pump-app", "1.0.0", b"one");
    let before = vendor.files.clone();
    vendor.publish("pump-app", "1.1.0", b"two");
    let good = vendor.files.clone();
    let mut forger = Vendor::new(now());
    while forger.number < vendor.number {
        forger.sign();
    }
    let mut ended = Vendor::new(Timestamp(now().as_us() - 31 * DAY_US));
    let n = vendor.number;
    ended.number = n - 1;
    (ended.online, ended.targets) = (vendor.online.clone(), vendor.targets.clone());
    ended.sign();
    let name = |role: &str| format!("{n}.{role}.json");
    type Change<'a> = Box<dyn Fn(&mut Files) + 'a>;
    let take = |from: &'static str, files: &Files, name: String| -> Change<'static> {
        let bytes = files[from].clone();
        Box::new(move |files| drop(files.insert(name.clone(), bytes.clone())))
    };
    let table: Vec<(&str, &str, Change<'_>)> = vec![
        ("another vendor's timestamp", "too_few_signatures", {
            take("timestamp.json", &forger.files, "timestamp.json".into())
        }),
        ("a timestamp that ended", "expired", {
            take("timestamp.json", &ended.files, "timestamp.json".into())
        }),
        ("no timestamp", "absent", Box::new(|files| drop(files.remove("timestamp.json")))),
        ("no snapshot", "absent", Box::new(|files| drop(files.remove(&name("snapshot"))))),
        (
            "a snapshot of before",
            "other_digest",
            Box::new(|files| {
                let old = before[&format!("{}.snapshot.json", n - 1)].clone();
                files.insert(name("snapshot"), old);
            }),
        ),
        (
            "targets with a bit changed",
            "other_digest",
            Box::new(|files| {
                let targets = files.get_mut(&name("targets")).unwrap();
                let last = targets.len() - 2;
                targets[last] ^= 1;
            }),
        ),
        (
            "a timestamp that is no JSON",
            "not_json",
            Box::new(|files| {
                files.insert("timestamp.json".into(), b"{".to_vec());
            }),
        ),
        (
            "a root of strangers",
            "too_few_signatures",
            Box::new(|files| {
                let mut stranger = Vendor::new(now());
                stranger.next_root();
                files.insert("2.root.json".into(), stranger.files["2.root.json"].clone());
            }),
        ),
        (
            "a timestamp that is too long",
            "unreadable",
            Box::new(|files| {
                files.insert("timestamp.json".into(), vec![b' '; 1 << 20]);
            }),
        ),
    ];
    for (what, label, change) in table {
        let shelf = Shelf::of(&before);
        let releases = open(SimDisk::new(1).shared(), &shelf, &vendor);
        let first = releases.refresh(now()).await.unwrap();
        let mut files = good.clone();
        change(&mut files);
        shelf.hold(&files);
        let refused = releases.refresh(now()).await.unwrap_err();
        assert_eq!(refused.label(), label, "{what}: {refused:?}");
        assert_eq!(releases.published(), Some(first.clone()), "{what}");
        let page = releases.shown();
        assert_eq!((page.targets, page.releases.len()), (n - 1, 1), "{what}");
        assert!(page.failed.is_some(), "{what}");
        assert!(releases.file(&name("targets")).is_none(), "{what}: nothing of it is passed on");
        shelf.hold(&good);
        let taken = releases.refresh(now()).await;
        assert_eq!(taken.map(|p| p.targets().len()).unwrap(), 2, "{what}: the honest one is taken");
        assert_eq!(releases.shown().failed, None, "{what}");
        // And once that is known, the one before is older.
        shelf.hold(&before);
        assert_eq!(releases.refresh(now()).await.unwrap_err().label(), "older", "{what}");
        assert_eq!(releases.shown().targets, n, "{what}");
    }
}

#[tokio::test]
async fn a_root_takes_keys_away_and_every_root_is_passed_on() {
    let mut vendor = Vendor::new(now());
    vendor.publish("pump-app", "1.0.0", b"one");
    let shelf = Shelf::of(&vendor.files);
    let disk = SimDisk::new(1);
    let releases = open(disk.shared(), &shelf, &vendor);
    releases.refresh(now()).await.unwrap();
    let stolen = std::mem::replace(&mut vendor.online, Arc::new(secret(Algorithm::Ed25519)));
    vendor.next_root();
    vendor.sign();
    shelf.hold(&vendor.files);
    let published = releases.refresh(now()).await.unwrap();
    assert_eq!((published.versions().root, published.versions().timestamp), (2, vendor.number));
    for name in ["1.root.json", "2.root.json"] {
        assert_eq!(releases.file(name).as_deref(), Some(&vendor.files[name][..]), "{name}");
    }
    // Who has the old key signs nothing any more, also not for a control plane that starts anew.
    vendor.online = stolen;
    vendor.sign();
    shelf.hold(&vendor.files);
    let releases = open(disk.shared(), &shelf, &vendor);
    assert_eq!(releases.published(), Some(published));
    assert_eq!(releases.refresh(now()).await.unwrap_err().label(), "too_few_signatures");
    assert_eq!(releases.file("2.root.json").as_deref(), Some(&vendor.files["2.root.json"][..]));
}

#[test]
fn another_vendors_root_is_refused_at_the_start_and_none_is_made_up() {
    let (vendor, other) = (Vendor::new(now()), Vendor::new(now()));
    let (disk, shelf) = (SimDisk::new(1).shared(), Shelf::of(&vendor.files));
    let start = |root: Option<&[u8]>| {
        let opened = Releases::open(disk.clone(), Path::new("/images"), root, shelf.clone(), now());
        opened.map(drop).map_err(|error| error.to_string())
    };
    let refused = start(None).unwrap_err();
    assert!(refused.contains("--image-root"), "{refused}");
    let refused = start(Some(b"{}")).unwrap_err();
    assert!(refused.contains("the root that was given"), "{refused}");
    start(Some(&vendor.first_root())).unwrap();
    start(None).unwrap();
    let refused = start(Some(&other.first_root())).unwrap_err();
    assert!(refused.contains("another vendor's repository"), "{refused}");
    start(Some(&vendor.first_root())).unwrap();
}

/// Two publications with a root between them, taken one after the other. What was said to be published is what the next
/// process finds, or newer.
fn taken(disk: &SimDisk, states: &[Files], vendor: &Vendor) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let shelf = Shelf::of(&states[0]);
    let root = vendor.first_root();
    let opened =
        Releases::open(disk.shared(), Path::new("/images"), Some(&root), shelf.clone(), now());
    let Ok(releases) = opened else { return 0 };
    let mut promised = 0;
    for state in states {
        shelf.hold(state);
        match runtime.block_on(releases.refresh(now())) {
            Ok(published) => promised = published.versions().targets,
            Err(_) => return promised,
        }
    }
    promised
}

fn cut(sync: SyncMode) -> disk::Report {
    let mut vendor = Vendor::new(now());
    let mut states = vec![vendor.files.clone()];
    vendor.publish("pump-app", "1.0.0", b"one");
    states.push(vendor.files.clone());
    vendor.next_root();
    vendor.publish("pump-app", "1.1.0", b"two");
    states.push(vendor.files.clone());
    let check = |disk: &SimDisk, promised: u64| {
        let root = vendor.first_root();
        let shelf = Shelf::of(&states[2]);
        let opened =
            Releases::open(disk.shared(), Path::new("/images"), Some(&root), shelf.clone(), now());
        let releases = opened.map_err(|error| model::told(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // A publication of before is refused as old, or there never was a newer one.
        for (at, state) in states.iter().enumerate() {
            shelf.hold(state);
            let version = at as u64 + 1;
            match runtime.block_on(releases.refresh(now())) {
                Ok(_) if version < promised => {
                    return Err(format!("promised {promised}, and {version} was taken again"));
                }
                Err(error) if version >= promised && error.label() != "older" => {
                    return Err(format!("{version} after {promised}: {}", model::told(&error)));
                }
                _ => {}
            }
        }
        match releases.published().map(|published| published.versions().targets) {
            Some(3) => Ok(()),
            found => Err(format!("expected the newest to be taken in the end, found {found:?}")),
        }
    };
    Cuts::over(0..6).on(sync).run(|disk| taken(disk, &states, &vendor), check)
}

/// INV-FRESH-1.
#[test]
fn a_cut_at_any_write_never_takes_an_older_publication_again() {
    let report = cut(SyncMode::Honest);
    println!("{} runs, {} points, {} broken", report.runs, report.points, report.broken.len());
    report.holds("the vendor's metadata");
}

#[test]
fn a_disk_whose_sync_does_nothing_fails_the_test_of_cuts() {
    let broken = std::panic::catch_unwind(|| cut(SyncMode::Lies).holds("the vendor's metadata"));
    assert!(broken.is_err(), "a disk that loses what was synced must be found out");
}

/// The vendor signs the names, and does not choose among the other files of the machine by them.
#[test]
fn no_name_of_an_image_leads_out_of_the_repository() {
    let dir = tempfile::tempdir().unwrap();
    put(&dir.path().join("secret"), b"a key");
    put(&dir.path().join("repository/targets/pump-app/one.bin"), b"one");
    let source = directory(dir.path().join("repository"));
    source.image("pump-app/one.bin").unwrap();
    let absolute = dir.path().join("secret");
    for name in ["../../secret", "pump-app/../../../secret", absolute.to_str().unwrap()] {
        let refused = source.image(name).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput, "{name}");
    }
}

async fn world(vendor: &Vendor) -> (World, Station) {
    let dir = tempfile::tempdir().unwrap().keep();
    vendor.write(&dir);
    let images = Some((directory(dir), vendor.first_root()));
    let world = World::with(Setup { images, ..Setup::default() }).await;
    let gateway = world.gateway("gw-1").await;
    (world, gateway)
}

async fn refreshed(world: &World) -> Page {
    let path = format!("{}/refresh", path::RELEASES);
    Got::of(world.operator(Method::POST, &path)).await.json()
}

fn metadata(world: &World, gateway: &Station, name: &str) -> reqwest::RequestBuilder {
    let path = format!("{}/{name}", path::GATEWAY_IMAGES);
    world.call(Some(&gateway.tls), Method::GET, &path)
}

fn blob(world: &World, gateway: &Station, name: impl std::fmt::Display) -> reqwest::RequestBuilder {
    let path = format!("{}/{name}", path::GATEWAY_BLOBS);
    world.call(Some(&gateway.tls), Method::GET, &path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_gets_the_metadata_that_control_verified_and_no_other_file() {
    let mut vendor = Vendor::new(now());
    vendor.publish("pump-app", "1.0.0", b"one");
    let (world, gateway) = world(&vendor).await;
    refreshed(&world).await;
    let n = vendor.number;
    for name in [
        "1.root.json",
        "timestamp.json",
        &format!("{n}.snapshot.json"),
        &format!("{n}.targets.json"),
    ] {
        let got = Got::of(metadata(&world, &gateway, name)).await;
        assert_eq!((got.status.as_u16(), got.header("content-type")), (200, "application/json"));
        assert_eq!(got.body, vendor.files[name], "{name}");
    }
    // Older files lie in the repository, and control never took them.
    for name in
        ["2.root.json", "1.targets.json", "root.json", "targets.json", "..%2Fkeys%2Froot-1.key"]
    {
        let got = Got::of(metadata(&world, &gateway, name)).await;
        assert_eq!(got.refusal(), (404, "no_such_metadata".into()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_passed_on_whole_or_in_part_and_only_if_the_vendor_names_it() {
    let mut vendor = Vendor::new(now());
    let image: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let target = vendor.publish("pump-app", "1.0.0", &image);
    let (world, gateway) = world(&vendor).await;
    let page = refreshed(&world).await;
    let digest = target.hashes.sha256.unwrap();
    assert_eq!(page.releases[0].sha256, digest.to_string());
    let whole = Got::of(blob(&world, &gateway, digest)).await;
    assert_eq!((whole.status.as_u16(), whole.header("accept-ranges")), (200, "bytes"));
    assert_eq!(whole.header("content-length"), "1000000");
    assert!(whole.body == image, "the bytes are the vendor's");
    let part = |range| Got::of(blob(&world, &gateway, digest).header("range", range));
    let got = part("bytes=999990-").await;
    assert_eq!(
        (got.status.as_u16(), got.header("content-range")),
        (206, "bytes 999990-999999/1000000")
    );
    assert_eq!(got.body, image[999_990..]);
    let got = part("bytes=300000-700000").await;
    assert!(got.body == image[300_000..=700_000] && got.status == 206);
    let got = part("bytes=1000000-").await;
    assert_eq!(got.refusal(), (416, "range".into()));
    assert_eq!(got.header("content-range"), "bytes */1000000");
    let got = Got::of(blob(&world, &gateway, trust::digest(b"another"))).await;
    assert_eq!(got.refusal(), (404, "no_such_image".into()));
    for name in ["ABC", "..%2F..%2Fkeys", &"g".repeat(64)] {
        let got = Got::of(blob(&world, &gateway, name)).await;
        assert_eq!(got.refusal(), (400, "bad_digest".into()), "{name}");
    }
    let passed_on = "plimsoll_control_image_bytes_total";
    world.counted(passed_on, 1_000_000 + 10 + 400_001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_leaves_no_byte_and_is_served_again_once_it_is_whole() {
    let mut vendor = Vendor::new(now());
    let target = vendor.publish("pump-app", "1.0.0", b"an image");
    let dir = tempfile::tempdir().unwrap();
    vendor.write(dir.path());
    let images = Some((directory(dir.path().to_owned()), vendor.first_root()));
    let world = World::with(Setup { images, ..Setup::default() }).await;
    let gateway = world.gateway("gw-1").await;
    refreshed(&world).await;
    let digest = target.hashes.sha256.unwrap();
    let file = dir.path().join("targets").join(target.file_name(true));
    let get = || Got::of(blob(&world, &gateway, digest));
    assert_eq!(get().await.body, b"an image");
    for (damage, word) in [(&b"an imagE"[..], "image_damaged"), (b"an imag", "image_damaged")] {
        // Also after it was found good once: what the file system says of it has changed.
        put(&file, damage);
        let got = get().await;
        assert_eq!(got.refusal(), (503, word.into()), "{damage:?}");
        assert!(!got.header("retry-after").is_empty());
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(get().await.refusal(), (503, "image_away".into()));
    put(&file, b"an image");
    assert_eq!(get().await.body, b"an image");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_on_their_way_are_bounded() {
    let mut vendor = Vendor::new(now());
    let target = vendor.publish("pump-app", "1.0.0", &vec![7; 8 << 20]);
    let dir = tempfile::tempdir().unwrap();
    vendor.write(dir.path());
    let images = Some((directory(dir.path().to_owned()), vendor.first_root()));
    let limits = control::Limits { blobs_max: 1, ..control::Limits::default() };
    let world = World::with(Setup { images, limits, ..Setup::default() }).await;
    let gateway = world.gateway("gw-1").await;
    refreshed(&world).await;
    let digest = target.hashes.sha256.unwrap();
    // More than any buffer between the two ends holds: it is under way until somebody reads it.
    let under_way = blob(&world, &gateway, digest).send().await.unwrap();
    let got = Got::of(blob(&world, &gateway, digest)).await;
    assert_eq!(got.refusal(), (503, "busy".into()));
    drop(under_way);
    in_time("a slot that is free again", async {
        while Got::of(blob(&world, &gateway, digest)).await.status != 200 {}
    })
    .await;
}

/// The vendor's keys are nowhere that control could read: they are in this test's memory, and then not even there.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_vendors_keys_everything_but_publishing_works() {
    let mut vendor = Vendor::new(now());
    let target = vendor.publish("pump-app", "1.0.0", b"one");
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("acme/repository");
    vendor.write(&repository);
    put(&dir.path().join("acme/keys/root-1.key"), b"nobody reads this");
    let keys = dir.path().join("acme/keys");
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let root = vendor.first_root();
    drop(vendor);
    let images = Some((directory(repository), root));
    let world = World::with(Setup { images, ..Setup::default() }).await;
    let (pump, gateway) = (world.device("pump-1").await, world.gateway("gw-1").await);
    assert_eq!(refreshed(&world).await.releases.len(), 1);
    let digest = target.hashes.sha256.unwrap();
    assert_eq!(Got::of(blob(&world, &gateway, digest)).await.body, b"one");
    assert_eq!(world.tell(&pump.id, "quarantine").await.status, 200);
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn control_starts_while_the_vendor_is_away_and_passes_on_what_it_has() {
    let mut vendor = Vendor::new(now());
    vendor.publish("pump-app", "1.0.0", b"one");
    let (world, gateway) = world(&vendor).await;
    refreshed(&world).await;
    let nowhere = world.dir.path().join("nowhere");
    let images = Some((directory(nowhere), vendor.first_root()));
    let world = world.restart(Setup { images, ..Setup::default() }).await;
    let page = refreshed(&world).await;
    assert_eq!((page.releases.len(), page.targets), (1, vendor.number));
    assert!(page.failed.is_some_and(|why| why.contains("cannot read")), "and it is said");
    let got = Got::of(metadata(&world, &gateway, "timestamp.json")).await;
    assert_eq!(got.body, vendor.files["timestamp.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_repository_nothing_is_published_and_that_is_said() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let page: Page = Got::of(world.operator(Method::GET, path::RELEASES)).await.json();
    assert_eq!((page.releases.len(), page.until_ms), (0, 0));
    assert!(page.failed.is_some_and(|why| why.contains("--images")));
    let refresh = format!("{}/refresh", path::RELEASES);
    let got = Got::of(world.operator(Method::POST, &refresh)).await;
    assert_eq!(got.refusal(), (409, "no_repository".into()));
    let got = Got::of(metadata(&world, &gateway, "timestamp.json")).await;
    assert_eq!(got.refusal(), (404, "no_such_metadata".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_seen_for_the_first_time_is_an_event_and_later_none() {
    let mut vendor = Vendor::new(now());
    vendor.publish("pump-app", "1.0.0", b"one");
    let dir = tempfile::tempdir().unwrap();
    vendor.write(dir.path());
    let setup = |root| {
        let images = Some((directory(dir.path().to_owned()), root));
        Setup { images, ..Setup::default() }
    };
    let world = World::with(setup(vendor.first_root())).await;
    refreshed(&world).await;
    let before = world.control.registry().events();
    assert_eq!(before, 1, "the one release");
    let world = world.restart(setup(vendor.first_root())).await;
    refreshed(&world).await;
    refreshed(&world).await;
    assert_eq!(world.control.registry().events(), before);
    vendor.publish("pump-app", "1.1.0", b"two");
    vendor.write(dir.path());
    refreshed(&world).await;
    assert_eq!(world.control.registry().events(), before + 1);
}
