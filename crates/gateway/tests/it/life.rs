//! The process: its options, its metrics page, its end.

use crate::client::Client;
use crate::site::{DIR, GATEWAY, Mood, Seals, Site, eventually, plant, stopped, within};
use disk::{Disk as _, RealDisk, SharedDisk, SimDisk};
use gateway::{Gateway, GatewayError};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn get(at: SocketAddr, path: &str) -> String {
    let asked = async {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    within(path, asked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_are_shown_on_loopback() {
    let (site, _pump, gateway) = plant(&SimDisk::new(1)).await;
    let at = gateway.metrics_addr().unwrap();
    assert!(get(at, "/healthz").await.ends_with("serving\n"));
    let text = get(at, "/metrics").await;
    for line in [
        "plimsoll_gateway_spool_records 0",
        "plimsoll_gateway_bundle_generation 1",
        "plimsoll_gateway_refused_total{reason=\"forged\"} 0",
        "plimsoll_invariant_violations_total{invariant=\"INV-ACK-1\"} 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(get(at, "/").await.starts_with("HTTP/1.1 404"));
    stopped(gateway).await;

    let mut config = site.config();
    config.metrics = Some("192.0.2.1:9".parse().unwrap());
    let refused = Gateway::start(config, SimDisk::new(1).shared()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "option metrics: expected a loopback address, found 192.0.2.1:9"
    );
}

/// Options outside their bounds are named, before anything is touched.
#[tokio::test(flavor = "multi_thread")]
async fn an_option_out_of_bounds_is_named() {
    let site = Site::start().await;
    let disk = SimDisk::new(1);
    type Change = fn(&mut gateway::Config);
    let table: &[(&str, Change)] = &[
        ("control", |c| c.control = "http://127.0.0.1:1".into()),
        ("receive-maximum", |c| c.terms.receive_maximum = 0),
        ("remember", |c| c.spool.remember = 1),
        ("keep-alive-max-s", |c| c.terms.keep_alive_max_s = 0),
        ("spool-bytes", |c| c.spool.bytes_max = 1000),
        ("connections", |c| c.connections_max = 0),
    ];
    for (name, change) in table {
        let mut config = site.config();
        change(&mut config);
        match Gateway::start(config, disk.shared()).await.unwrap_err() {
            GatewayError::Option { option, .. } => assert_eq!(option, *name),
            other => panic!("{name}: {other}"),
        }
    }
    assert_eq!(disk.operations(), 0);
    site.publish(vec![]);
    site.prepare(&disk.shared(), Path::new(DIR));
    let mut config = site.config();
    config.name = Some(model::GatewayId::new("gw-2").unwrap());
    let refused = Gateway::start(config, disk.shared()).await.unwrap_err();
    assert_eq!(refused.to_string(), "this gateway is enrolled as `gw-1`, expected `gw-2`");
}

/// INV-REPLAY-2: a gateway whose counter is lost replaces its key before it seals again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_counter_retires_the_key() {
    let disk = SimDisk::new(1);
    let (site, pump, gateway) = plant(&disk).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0);
    site.has_taken(1).await;
    stopped(gateway).await;
    disk.remove(Path::new("/gw/seal.epoch")).unwrap();
    let gateway = site.gateway(&disk).await;
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 1, None)).await, 0);
    site.has_taken(2).await;
    let batches = site.batches();
    assert_ne!(batches[0].0, batches[1].0, "another key");
    stopped(gateway).await;
}

/// The key was exchanged, at control too, and its epoch cannot be begun: it is tried again until it can, and meanwhile what
/// the old key seals is refused and stays in the spool.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_half_done_is_finished() {
    let site = Site::start().await;
    let pump = site.device("pump-1");
    site.publish(vec![pump.entry()]);
    site.set_seals(Seals::CertifiesOneForToday);
    let dir = tempfile::tempdir().unwrap();
    let disk: SharedDisk = Arc::new(RealDisk);
    site.prepare(&disk, dir.path());
    let mut config = site.config();
    config.data = dir.path().to_owned();
    let gateway = within("a gateway starts", Gateway::start(config, disk)).await.unwrap();
    let mut client = Client::connect(gateway.local_addr(), &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0);
    site.has_taken(1).await;

    // A directory where the next epoch would be written first.
    let obstacle = dir.path().join("seal.epoch.new");
    std::fs::create_dir(&obstacle).unwrap();
    site.set_seals(Seals::Certifies);
    eventually("the key is exchanged", || site.certified_seals() == 2).await;
    let failed = || gateway.metrics().renewals_failed.get();
    let before = failed();
    eventually("its epoch is tried again", || failed() > before).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 1, None)).await, 0);
    let refused = || gateway.metrics().uplink_refused.get() > 0;
    eventually("what the old key seals is refused", refused).await;
    assert_eq!(site.taken().len(), 1);
    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(site.has_taken(2).await[1].sequence, 1);
    let keys: Vec<_> = site.batches().into_iter().map(|(key, _)| key).collect();
    assert_ne!(keys.first(), keys.last());
    stopped(gateway).await;
}

/// The binary as an operator runs it: enrols, serves, and ends cleanly on SIGTERM with what it has in its spool.
#[tokio::test(flavor = "multi_thread")]
async fn the_binary_serves_and_ends_on_sigterm() {
    let site = Site::start().await;
    let pump = site.device("pump-1");
    site.publish(vec![pump.entry()]);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("gw");
    let disk: SharedDisk = Arc::new(RealDisk);
    site.prepare(&disk, &data);
    // The authority comes by option, as on a new box.
    let ca_file = dir.path().join("site-ca.pem");
    std::fs::rename(data.join("site-ca.pem"), &ca_file).unwrap();
    let ports = [free_port().await, free_port().await];
    let run = || -> Ended {
        let child = Command::new(env!("CARGO_BIN_EXE_plimsoll-gateway"))
            .args(["run", "--name", GATEWAY, "--data"])
            .arg(&data)
            .arg("--listen")
            .arg(ports[0].to_string())
            .arg("--metrics")
            .arg(ports[1].to_string())
            .arg("--control")
            .arg(format!("https://{}", site.control))
            .arg("--site-ca")
            .arg(&ca_file)
            .stderr(Stdio::null())
            .spawn();
        Ended(child.unwrap())
    };
    let mut process = run();
    serves(ports[0]).await;
    let mut client = Client::connect(ports[0], &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 0, None)).await, 0);
    assert!(get(ports[1], "/healthz").await.contains("200 OK"));
    process.signal("TERM");
    assert_eq!(client.end().await, Some(0x8b));
    assert!(process.ended().await.success());

    // INV-ACK-1: killed without a word, and started again.
    site.set_mood(Mood::Away);
    let mut process = run();
    serves(ports[0]).await;
    let mut client = Client::connect(ports[0], &pump).await;
    assert_eq!(client.publish(&pump.topic(), 1, &pump.message(1, 1, None)).await, 0);
    process.0.kill().unwrap();
    process.ended().await;
    site.set_mood(Mood::Takes);
    let mut process = run();
    let there = || site.taken().iter().any(|taken| taken.sequence == 1);
    eventually("what was acknowledged is handed up", there).await;
    process.signal("INT");
    assert!(process.ended().await.success());
}

/// A second gateway over a spool that is in use would ruin it.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_not_taken_by_a_second_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    let run = async || {
        let child = Command::new(env!("CARGO_BIN_EXE_plimsoll-gateway"))
            .args(["run", "--control", "https://127.0.0.1:9", "--data"])
            .arg(dir.path())
            .stderr(std::fs::File::create(&said).unwrap())
            .spawn();
        assert_eq!(Ended(child.unwrap()).ended().await.code(), Some(1));
        std::fs::read_to_string(&said).unwrap()
    };
    let lock = disk::lock_dir(dir.path()).unwrap();
    let in_use = format!("`{}` is in use by another process", dir.path().display());
    let said = run().await;
    assert!(said.contains(&in_use), "{said}");
    drop(lock);
    // Now it comes as far as the authorities, which are not there.
    let said = run().await;
    assert!(!said.contains(&in_use) && said.contains("site-ca.pem"), "{said}");
}

/// A process of the test's, which does not outlive it.
pub struct Ended(pub Child);

impl Ended {
    fn signal(&mut self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end.
    async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let has_ended = || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        };
        eventually("the process ends", has_ended).await;
        status.expect("it has ended")
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn serves(at: SocketAddr) {
    eventually("the gateway serves", || std::net::TcpStream::connect(at).is_ok()).await;
}

async fn free_port() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
