//! Mosquitto's own client, which shares no line with us.

use crate::site::{plant, stopped, within};
use disk::SimDisk;
use keys::pem;
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
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let key = |key: &SecretKey| pem::encode(pem::PRIVATE_KEY, &key.to_pkcs8_der());
    let ca = file("ca.pem", site.ca.certificate_pem().as_bytes());
    let cert = file("cert.pem", pem::encode(pem::CERTIFICATE, &pump.chain[0]).as_bytes());
    let key = file("key.pem", key(&pump.tls).as_bytes());
    let message = file("message", &pump.message(1, 7, None));
    let broken = file("broken", b"not a message");

    let port = gateway.local_addr().port().to_string();
    let publish = |message: std::path::PathBuf| {
        let mut command = Command::new("mosquitto_pub");
        // The gateway's certificate names its role, and this client dials by address.
        command.args(["-h", "127.0.0.1", "--insecure", "-p", &port, "-V", "5", "-q", "1", "-d"]);
        command.args(["--tls-version", "tlsv1.3", "-i", "pump-1", "-t", &pump.topic()]);
        command.arg("--cafile").arg(&ca).arg("--cert").arg(&cert).arg("--key").arg(&key);
        command.arg("-f").arg(message);
        async move {
            let output = tokio::task::spawn_blocking(move || command.output().unwrap());
            let output = within("mosquitto_pub ends", output).await.unwrap();
            let text =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            (output.status.success(), text)
        }
    };
    let (ok, text) = publish(message).await;
    assert!(ok && text.contains("received PUBACK (Mid: 1, RC:0)"), "{text}");
    assert_eq!(site.has_taken(1).await[0].sequence, 7);
    let (_, text) = publish(broken).await;
    assert!(text.contains("RC:153"), "{text}");
    stopped(gateway).await;
}
