//! Devices' HTTP: the image repository's metadata, and images out of the cache.

use crate::client::Client;
use crate::http::{Answer, Http, get};
use crate::site::{Device, Site, eventually, fill_up, plant, plant_with, stopped};
use api::Standing;
use disk::{Disk as _, SimDisk};
use gateway::Gateway;
use std::path::{Path, PathBuf};

const KIB: usize = 1024;

/// Bytes that are no repetition of themselves.
fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut word = 0x9E37_79B9_7F4A_7C15u64 ^ u64::from(seed);
    let mut next = || {
        word ^= word >> 12;
        word ^= word << 25;
        word ^= word >> 27;
        word.wrapping_mul(0x2545_F491_4F6C_DD1D) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn get_blob(digest: &str, headers: &str) -> Vec<u8> {
    let path = format!("/v1/blobs/sha256/{digest}");
    format!("GET {path} HTTP/1.1\r\nHost: gw\r\n{headers}\r\n").into_bytes()
}

async fn blob(gateway: &Gateway, device: &Device, digest: &str, headers: &str) -> Answer {
    let mut http = Http::dial(gateway.local_addr(), device).await;
    http.ask(&get_blob(digest, headers)).await.expect("a whole answer")
}

/// What control was asked for of images, with the ranges.
fn asked(site: &Site) -> Vec<String> {
    let images = site.asked().into_iter().filter(|(path, _)| path.contains("/blobs/"));
    images.map(|(_, range)| String::from_utf8(range).unwrap()).collect()
}

fn in_cache(disk: &SimDisk) -> Vec<String> {
    let names = disk.list(Path::new("/gw/cache")).unwrap_or_default();
    names.into_iter().filter(|name| name != "order").collect()
}

fn cached(digest: &str) -> PathBuf {
    Path::new("/gw/cache").join(digest)
}

/// Control stops in the middle: everybody has what there is, and it was asked for once.
#[tokio::test(flavor = "multi_thread")]
async fn one_download_serves_a_site_and_those_who_wait_read_it_while_it_comes() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let other = site.device("pump-2");
    site.lets_in(&gateway, &[&pump, &other]).await;
    let image = bytes(1, 300 * KIB);
    let digest = site.image(&image);
    site.gives_up_to(96 * KIB);
    let mut readers = Vec::new();
    for (device, range, from) in [(&pump, "", 0), (&other, "Range: bytes=50000-\r\n", 50_000)] {
        let mut http = Http::dial(gateway.local_addr(), device).await;
        http.send(&get_blob(&digest, range)).await.unwrap();
        let (status, head) = http.head().await.unwrap();
        assert_eq!(status, if from == 0 { 200 } else { 206 });
        assert!(head.contains(&format!("content-length: {}\r\n", image.len() - from)), "{head}");
        let begun = http.body(96 * KIB - from).await;
        assert_eq!(begun, image[from..96 * KIB]);
        readers.push(http);
    }
    site.gives_up_to(usize::MAX);
    for mut http in readers {
        assert_eq!(http.body(300 * KIB - 96 * KIB).await, image[96 * KIB..]);
        // The connection goes on.
        let again = http.ask(&get_blob(&digest, "")).await.unwrap();
        assert_eq!(again.body, image);
    }
    assert_eq!(asked(&site), [""]);
    assert_eq!(in_cache(&disk), [&*digest]);

    let tag = format!("\"{digest}\"");
    for (headers, status, expected, range) in [
        ("Range: bytes=307199-\r\n", 206, &image[307_199..], Some("bytes 307199-307199/307200")),
        ("Range: bytes=10-19\r\n", 206, &image[10..20], Some("bytes 10-19/307200")),
        ("Range: bytes=0-999999\r\n", 206, &image[..], Some("bytes 0-307199/307200")),
        ("Range: bytes=-5\r\n", 200, &image[..], None),
        ("Range: bytes=5-\r\nIf-Range: \"other\"\r\n", 200, &image[..], None),
        (
            &format!("Range: bytes=307195-\r\nIf-Range: {tag}\r\n"),
            206,
            &image[307_195..],
            Some("bytes 307195-307199/307200"),
        ),
    ] {
        let answer = blob(&gateway, &pump, &digest, headers).await;
        assert_eq!((answer.status, answer.header("content-range")), (status, range), "{headers}");
        assert_eq!(answer.body, expected, "{headers}");
        assert_eq!(answer.header("etag"), Some(&*tag));
    }
    let outside = blob(&gateway, &pump, &digest, "Range: bytes=307200-\r\n").await;
    assert_eq!((outside.status, outside.word().as_str()), (416, "outside"));
    assert_eq!(outside.header("content-range"), Some("bytes */307200"));
    let absent = blob(&gateway, &pump, &"ab".repeat(32), "").await;
    assert_eq!((absent.status, absent.word().as_str()), (404, "absent"));
    stopped(gateway).await;
}

/// A compromised control plane, or a broken line: nobody ever has all of a wrong image, and none of it stays.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_byte_is_given_only_when_the_digest_is_right() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let digest = site.image(&bytes(1, 200 * KIB));
    let mut wrong = bytes(1, 200 * KIB);
    wrong[70_000] ^= 1;
    site.desk(|desk| drop(desk.blobs.insert(digest.clone(), wrong.clone())));
    let mut http = Http::dial(gateway.local_addr(), &pump).await;
    http.send(&get_blob(&digest, "")).await.unwrap();
    assert_eq!(http.head().await.unwrap().0, 200);
    let found = http.body(200 * KIB).await;
    assert!(found.len() < 200 * KIB, "all {} bytes of a wrong image", found.len());
    let answer = blob(&gateway, &pump, &digest, "").await;
    assert_eq!((answer.status, answer.word().as_str()), (502, "mismatch"));
    assert_eq!(in_cache(&disk), [""; 0]);
    assert_eq!(gateway.metrics().cache_failures("mismatch"), 1);
    assert_eq!(asked(&site).len(), 1, "not as often as devices ask");

    // Nor is an image taken of which control does not say how long it is.
    let digest = site.image(&bytes(2, 10));
    site.desk(|desk| desk.says_no_length = true);
    let answer = blob(&gateway, &pump, &digest, "").await;
    assert_eq!((answer.status, answer.word().as_str()), (502, "unfit"));
    assert_eq!(in_cache(&disk), [""; 0]);
    stopped(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_cut_off_goes_on_where_it_was_over_a_restart_too() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let image = bytes(1, 300 * KIB);
    let digest = site.image(&image);
    site.desk(|desk| desk.hangs_up_at = Some(100 * KIB));
    assert_eq!(blob(&gateway, &pump, &digest, "").await.body, image);
    assert_eq!(asked(&site), ["", "bytes=102400-"]);

    // Cut off for good: the device's connection ends short, and what is there waits for the next process.
    let image = bytes(2, 300 * KIB);
    let digest = site.image(&image);
    site.gives_up_to(200 * KIB);
    let mut http = Http::dial(gateway.local_addr(), &pump).await;
    http.send(&get_blob(&digest, "")).await.unwrap();
    http.head().await.unwrap();
    assert_eq!(http.body(200 * KIB).await, image[..200 * KIB]);
    stopped(gateway).await;
    assert!(http.has_ended().await);
    assert!(in_cache(&disk).contains(&format!("{digest}.part")));
    site.gives_up_to(usize::MAX);
    let gateway = site.gateway(&disk).await;
    assert_eq!(blob(&gateway, &pump, &digest, "").await.body, image);
    assert_eq!(asked(&site)[2..], ["", "bytes=204800-"]);
    stopped(gateway).await;

    // What lies there is no beginning of it: control begins anew whatever it is asked for, or has nothing behind it.
    for (seed, len, ignores_ranges) in [(3, 100 * KIB, true), (4, 300 * KIB, false)] {
        let image = bytes(seed, 300 * KIB);
        let digest = site.image(&image);
        let other = bytes(seed + 10, len);
        disk::replace(&disk, &cached(&format!("{digest}.part")), &other).unwrap();
        site.desk(|desk| desk.ignores_ranges = ignores_ranges);
        let gateway = site.gateway(&disk).await;
        assert_eq!(blob(&gateway, &pump, &digest, "").await.body, image, "{seed}");
        stopped(gateway).await;
    }

    // All of it, and the process ended in the last moment; or a power cut left it under both its names.
    site.desk(|desk| desk.is_away = true);
    let asked_before = asked(&site).len();
    for names in [&[".part"][..], &["", ".part"]] {
        let image = bytes(5, 300 * KIB);
        let digest = trust::digest(&image).to_string();
        for name in names {
            disk::replace(&disk, &cached(&format!("{digest}{name}")), &image).unwrap();
        }
        let gateway = site.gateway(&disk).await;
        assert_eq!(blob(&gateway, &pump, &digest, "").await.body, image, "{names:?}");
        assert!(!in_cache(&disk).contains(&format!("{digest}.part")), "{names:?}");
        stopped(gateway).await;
    }
    assert_eq!(asked(&site).len(), asked_before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_survives_a_restart_and_what_rotted_meanwhile_is_found_before_it_is_served() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let (image, other) = (bytes(1, 200 * KIB), bytes(2, 100 * KIB));
    let (digest, other_digest) = (site.image(&image), site.image(&other));
    for digest in [&digest, &other_digest] {
        assert_eq!(blob(&gateway, &pump, digest, "").await.status, 200);
    }
    stopped(gateway).await;
    site.desk(|desk| desk.is_away = true);
    let gateway = site.gateway(&disk).await;
    assert_eq!(blob(&gateway, &pump, &digest, "").await.body, image);
    assert_eq!(asked(&site).len(), 2);
    stopped(gateway).await;

    let mut rotten = image.clone();
    rotten[199 * KIB] ^= 1;
    disk::replace(&disk, &cached(&digest), &rotten).unwrap();
    let gateway = site.gateway(&disk).await;
    let answer = blob(&gateway, &pump, &digest, "Range: bytes=0-9\r\n").await;
    assert_eq!((answer.status, answer.word().as_str()), (503, "control_away"));
    assert_eq!(gateway.metrics().cache_rotten.get(), 1);
    assert_eq!(blob(&gateway, &pump, &other_digest, "").await.body, other);
    assert_eq!(in_cache(&disk), [&*other_digest]);
    stopped(gateway).await;

    disk::replace(&disk, &cached(&other_digest), &other[..99 * KIB]).unwrap();
    site.desk(|desk| desk.is_away = false);
    let gateway = site.gateway(&disk).await;
    for (digest, image) in [(&digest, &image), (&other_digest, &other)] {
        assert_eq!(blob(&gateway, &pump, digest, "").await.body, *image);
    }
    assert_eq!(gateway.metrics().cache_rotten.get(), 1);
    stopped(gateway).await;
}

/// A device that got a wrong image asks again, and gives up after some times: by then it has the right one.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_rots_while_the_gateway_runs_is_fetched_again_when_a_device_asks_for_it_again()
 {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let other = site.device("pump-2");
    site.lets_in(&gateway, &[&pump, &other]).await;
    let image = bytes(1, 200 * KIB);
    let digest = site.image(&image);
    assert_eq!(blob(&gateway, &pump, &digest, "").await.body, image);
    let mut rotten = image.clone();
    rotten[150 * KIB] ^= 1;
    disk::replace(&disk, &cached(&digest), &rotten).unwrap();
    // Who asks for little makes the gateway read little.
    for range in ["204799-", "0-0", "0-9", "100-"] {
        let range = format!("Range: bytes={range}\r\n");
        assert_eq!(blob(&gateway, &other, &digest, &range).await.status, 206);
    }
    assert_eq!(gateway.metrics().cache_rotten.get(), 0);
    // The first who gets it finds it out: nobody reads an image through for each device that asks.
    assert_eq!(blob(&gateway, &other, &digest, "").await.body, rotten);
    assert_eq!(blob(&gateway, &other, &digest, "").await.body, image);
    assert_eq!((gateway.metrics().cache_rotten.get(), asked(&site).len()), (1, 2));
    // What is right is read through for who had it, and stays.
    assert_eq!(blob(&gateway, &other, &digest, "").await.body, image);
    assert_eq!((gateway.metrics().cache_rotten.get(), asked(&site).len()), (1, 2));

    // Who asks for the rest of one that has become shorter is cut off once.
    disk::replace(&disk, &cached(&digest), &image[..100 * KIB]).unwrap();
    let rest = get_blob(&digest, "Range: bytes=150000-\r\n");
    let mut http = Http::dial(gateway.local_addr(), &pump).await;
    assert!(http.ask(&rest).await.is_none());
    let mut http = Http::dial(gateway.local_addr(), &pump).await;
    assert_eq!(http.ask(&rest).await.unwrap().body, image[150_000..]);
    assert_eq!((gateway.metrics().cache_rotten.get(), asked(&site).len()), (2, 3));
    stopped(gateway).await;
}

/// INV-COST-1.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_used_longest_ago_makes_room_and_what_never_fits_is_told() {
    let disk = SimDisk::new(1);
    let small = |config: &mut gateway::Config| config.cache_bytes = 250 * KIB as u64;
    let (site, pump, gateway) = plant_with(&disk, small).await;
    let digests: Vec<String> = (1..=3).map(|n| site.image(&bytes(n, 100 * KIB))).collect();
    for n in [0, 1, 0, 2] {
        assert_eq!(blob(&gateway, &pump, &digests[n], "").await.status, 200);
    }
    let mut left = vec![digests[0].clone(), digests[2].clone()];
    left.sort();
    assert_eq!(in_cache(&disk), left);
    assert_eq!(gateway.metrics().cache_bytes.get(), 200 * KIB as i64);
    let long = site.image(&bytes(4, 251 * KIB));
    let answer = blob(&gateway, &pump, &long, "").await;
    assert_eq!((answer.status, answer.word().as_str()), (507, "too_large"));
    assert_eq!(in_cache(&disk), left);
    // The order outlives the process: 2 was used last, and stays.
    stopped(gateway).await;
    let smaller = |config: &mut gateway::Config| config.cache_bytes = 150 * KIB as u64;
    let gateway = site.gateway_with(&disk, smaller).await;
    assert_eq!(in_cache(&disk), [digests[2].clone()]);
    stopped(gateway).await;
}

/// INV-ACK-1, INV-COST-1: what can be fetched again makes room for what cannot.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_cache_gives_way_to_what_devices_say() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let digest = site.image(&bytes(1, 2048 * KIB));
    assert_eq!(blob(&gateway, &pump, &digest, "").await.status, 200);
    site.set_mood(crate::site::Mood::Away);
    fill_up(&disk);
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0x97);
    eventually("the cache gives way", || in_cache(&disk).is_empty()).await;
    let mut sequence = 0;
    let mut is_taken = false;
    while !is_taken {
        // The room that was held is made whole again first.
        let mut client = Client::connect(gateway.local_addr(), &pump).await;
        is_taken = client.publish(&pump.topic(), 1, &pump.message(1, sequence, None)).await == 0;
        sequence += u64::from(is_taken);
        tokio::task::yield_now().await;
    }
    let answer = blob(&gateway, &pump, &digest, "").await;
    assert_eq!((answer.status, answer.word().as_str()), (503, "no_room"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    stopped(gateway).await;
}

/// INV-AUTH-1: in the middle of an answer too.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_gets_no_further_byte_of_an_image() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let digest = site.image(&bytes(1, 300 * KIB));
    site.gives_up_to(100 * KIB);
    let mut http = Http::dial(gateway.local_addr(), &pump).await;
    http.send(&get_blob(&digest, "")).await.unwrap();
    http.head().await.unwrap();
    assert_eq!(http.body(100 * KIB).await.len(), 100 * KIB);
    let revoked = api::BundleDevice { standing: Standing::Revoked, ..pump.entry() };
    site.knows(&gateway, vec![revoked]).await;
    assert!(http.has_ended().await);
    site.gives_up_to(usize::MAX);
    stopped(gateway).await;
}

/// INV-COST-1: nor does what it does not read pile up.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_an_image_is_not_waited_for() {
    let patience = std::time::Duration::from_millis(300);
    let impatient = |config: &mut gateway::Config| config.stall_time = patience;
    let (site, pump, gateway) = plant_with(&SimDisk::new(1), impatient).await;
    // Far more than the sockets of both ends hold.
    let digest = site.image(&vec![7; 32 * 1024 * KIB]);
    let mut http = Http::dial(gateway.local_addr(), &pump).await;
    http.send(&get_blob(&digest, "")).await.unwrap();
    let refused = || gateway.metrics().refused(gateway::refusal::Refusal::SlowReader);
    eventually("the gateway gives up", || refused() == 1).await;
    eventually("its place is free", || gateway.metrics().connections.get() == 0).await;
    assert!(gateway.metrics().cache_served_bytes.get() < 16 * 1024 * KIB as u64);
    stopped(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_with_a_number_is_asked_for_once_and_is_there_while_control_is_away() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    site.desk(|desk| {
        for name in ["timestamp.json", "1.root.json", "3.snapshot.json", "3.targets.json"] {
            desk.images.insert(name.into(), format!("{{\"{name}\": 1}}").into_bytes());
        }
    });
    let mut http = Http::dial(gateway.local_addr(), &pump).await;
    let names =
        ["1.root.json", "2.root.json", "timestamp.json", "3.snapshot.json", "3.targets.json"];
    for round in 0..3 {
        if round == 2 {
            site.desk(|desk| desk.is_away = true);
        }
        for name in names {
            let answer = http.ask(&get(&format!("/v1/images/{name}"))).await.unwrap();
            if name == "2.root.json" {
                assert_eq!((answer.status, answer.word().as_str()), (404, "absent"));
            } else {
                let expected = format!("{{\"{name}\": 1}}").into_bytes();
                assert_eq!((answer.status, answer.body), (200, expected), "{name}");
            }
        }
    }
    assert_eq!(site.asked().len(), names.len(), "{:?}", site.asked());
    let answer = http.ask(&get("/v1/images/4.targets.json")).await.unwrap();
    assert_eq!((answer.status, answer.word().as_str()), (503, "control_away"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(gateway.metrics().http_answers("images", 200), 12);
    stopped(gateway).await;
}

/// Over a slow line a file comes for whoever asks next, however often those before have given up; and many who ask at once are
/// one question.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_for_which_nobody_waited_to_the_end_is_there_for_the_next() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let others: Vec<Device> = (2..6).map(|n| site.device(&format!("pump-{n}"))).collect();
    let all: Vec<&Device> = others.iter().chain([&pump]).collect();
    site.lets_in(&gateway, &all).await;
    site.desk(|desk| drop(desk.images.insert("1.root.json".into(), b"root".to_vec())));
    site.gives_up_to(0);
    let ask = get("/v1/images/1.root.json");
    let mut gives_up = Http::dial(gateway.local_addr(), &pump).await;
    gives_up.send(&ask).await.unwrap();
    site.was_asked(1).await;
    drop(gives_up);
    eventually("it has hung up", || gateway.metrics().connections.get() == 0).await;
    let mut waiting = Vec::new();
    for device in &others {
        let mut http = Http::dial(gateway.local_addr(), device).await;
        http.send(&ask).await.unwrap();
        waiting.push(http);
    }
    site.gives_up_to(usize::MAX);
    for mut http in waiting {
        assert_eq!(http.answer().await.unwrap().body, b"root");
    }
    assert_eq!(site.asked().len(), 1);
    stopped(gateway).await;
}
