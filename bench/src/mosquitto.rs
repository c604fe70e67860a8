//! The peer: Mosquitto, with QoS 1, persistence and mutual TLS 1.3, and a durable subscriber that is away, so that
//! every message is queued and stored.

use anyhow::{Context, Result, ensure};
use sim::process::until;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What Mosquitto does about the disk.
#[derive(Clone, Copy, Debug)]
pub enum Saving {
    /// As Debian ships it: every half hour, and at its end.
    AtTimes,
    /// `autosave_on_changes` with an interval of one: the whole database anew, with an fsync, after each change. Its
    /// PUBACK still does not wait for that.
    EachChange,
}

pub struct Mosquitto {
    child: Child,
    port: u16,
}

impl Mosquitto {
    /// With the gateway's certificate and the site's CA, so that both sides do the same handshakes.
    pub fn start(
        dir: &Path,
        port: u16,
        gateway_dir: &Path,
        site_ca: &Path,
        saving: Saving,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let config = dir.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nmax_queued_messages 0\nmax_inflight_messages 0\npersistence true\n\
             persistence_location {dir}/\ncafile {ca}\ncertfile {gw}/tls.pem\nkeyfile {gw}/tls.key\n\
             require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\nuser root\n{saving}",
            saving = match saving {
                Saving::AtTimes => "",
                Saving::EachChange => "autosave_on_changes true\nautosave_interval 1\n",
            },
            dir = dir.display(),
            ca = site_ca.display(),
            gw = gateway_dir.display(),
        );
        std::fs::write(&config, text)?;
        let log = std::fs::File::create(dir.join("log"))?;
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&config)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("no mosquitto: apt-get install mosquitto mosquitto-clients")?;
        until("mosquitto serves", Duration::from_secs(10), || {
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(Self { child, port })
    }

    /// A subscriber that registers its session and goes.
    pub fn subscribe_and_leave(&self, device_dir: &Path, site_ca: &Path) -> Result<()> {
        let status = Command::new("mosquitto_sub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-V",
                "5",
                "--insecure",
                "-i",
                "store",
                "-c",
            ])
            .args(["-x", "86400", "-q", "1", "-t", "#", "-E", "--cafile"])
            .arg(site_ca)
            .arg("--cert")
            .arg(device_dir.join("tls.pem"))
            .arg("--key")
            .arg(device_dir.join("tls.key"))
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "mosquitto_sub ended with {status}");
        Ok(())
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
