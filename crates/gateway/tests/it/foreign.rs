//! Clients that share no line with us: Mosquitto's own, and curl.

use crate::http::manifest;
use crate::site::{Device, GATEWAY, SITE, Site, plant, stopped, within};
use disk::SimDisk;
use keys::pem;
use std::path::{Path, PathBuf};
use std::process::Command;
use trust::cose::SecretKey;

/// mTLS, MQTT 5, QoS 1, a sealed message from a file: `mosquitto_pub` ends with 0 once it has its PUBACK, and prints a
/// refusal's code.
#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_pub_gets_its_puback() {
    if Command::new("mosquitto_pub").arg("--version").output().is_err() {
        println!("SKIPPED: mosquitto_pub_gets_its_puback: no mosquitto_pub");
        return;
    }
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let dir = tempfile::tempdir().unwrap();
    let [ca, cert, key] = files(dir.path(), &site, &pump);
    let message = file(dir.path(), "message", &pump.message(1, 7, None));
    let broken = file(dir.path(), "broken", b"not a message");

    let port = gateway.local_addr().port().to_string();
    let publish = |message: PathBuf| {
        let mut command = Command::new("mosquitto_pub");
        // The gateway's certificate names its role, and this client dials by address.
        command.args(["-h", "127.0.0.1", "--insecure", "-p", &port, "-V", "5", "-q", "1", "-d"]);
        command.args(["--tls-version", "tlsv1.3", "-i", "pump-1", "-t", &pump.topic()]);
        command.arg("--cafile").arg(&ca).arg("--cert").arg(&cert).arg("--key").arg(&key);
        command.arg("-f").arg(message);
        run(command)
    };
    let (ok, text) = publish(message).await;
    assert!(ok && text.contains("received PUBACK (Mid: 1, RC:0)"), "{text}");
    assert_eq!(site.has_taken(1).await[0].sequence, 7);
    let (_, text) = publish(broken).await;
    assert!(text.contains("RC:153"), "{text}");
    stopped(gateway).await;
}

/// The certificates checked by name, ALPN, a body, a download that is taken up in its middle: what a device's vendor would
/// reach for first.
#[tokio::test(flavor = "multi_thread")]
async fn curl_checks_in_and_takes_a_download_up_in_its_middle() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("SKIPPED: curl_checks_in_and_takes_a_download_up_in_its_middle: no curl");
        return;
    }
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let dir = tempfile::tempdir().unwrap();
    let [ca, cert, key] = files(dir.path(), &site, &pump);
    let image: Vec<u8> = (0..50_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let digest = site.image(&image);
    let (at, host) = (gateway.local_addr(), format!("{GATEWAY}.gateway.{SITE}.internal"));
    let curl = |path: &str, arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--http1.1", "--tlsv1.3", "--noproxy", "*"]);
        command.args(["--max-time", "15", "--write-out", " %{http_code}"]).args(arguments);
        command.arg("--cacert").arg(&ca).arg("--cert").arg(&cert).arg("--key").arg(&key);
        command.args(["--resolve", &format!("{host}:{}:127.0.0.1", at.port())]);
        command.arg(format!("https://{host}:{}{path}", at.port()));
        run(command)
    };
    let message = file(dir.path(), "manifest", &manifest(&pump, 0));
    let body = format!("@{}", message.display());
    let (ok, text) = curl(
        "/v1/checkin",
        &["--data-binary", &body, "--header", "Content-Type: application/cose"],
    )
    .await;
    assert!(ok && text == "{\"format\":1} 200", "{text}");
    assert_eq!(site.asked()[0].1, manifest(&pump, 0));

    let begun = file(dir.path(), "image", &image[..70_000]);
    let to = begun.to_str().unwrap();
    let path = format!("/v1/blobs/sha256/{digest}");
    let (ok, text) = curl(&path, &["--continue-at", "-", "--output", to]).await;
    assert!(ok && text == " 206", "{text}");
    assert_eq!(std::fs::read(&begun).unwrap(), image);
    stopped(gateway).await;
}

fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The authority, a device's certificate and its key, as foreign clients read them.
fn files(dir: &Path, site: &Site, device: &Device) -> [PathBuf; 3] {
    let key = |key: &SecretKey| pem::encode(pem::PRIVATE_KEY, &key.to_pkcs8_der());
    [
        file(dir, "ca.pem", site.ca.certificate_pem().as_bytes()),
        file(dir, "cert.pem", pem::encode(pem::CERTIFICATE, &device.chain[0]).as_bytes()),
        file(dir, "key.pem", key(&device.tls).as_bytes()),
    ]
}

/// Whether it ended well, and all that it said.
async fn run(mut command: Command) -> (bool, String) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = within("the client ends", output).await.unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}
