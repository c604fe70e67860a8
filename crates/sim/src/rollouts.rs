//! Releases and rollouts of a fleet, as its vendor and its operator handle them: by the command line alone.

use crate::fleet::{Application, Fleet, PATIENCE, path};
use crate::process::binary;
use crate::running::{self, Running};
use crate::vendor::Vendor;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const PUMP: &str = "pump-app";
pub const GATEWAY: &str = "plimsoll-gateway";

/// The box that the second gateway runs on, a device like any other.
pub const BOX: &str = "box-2";

/// How fast agents load, so that a power cut can fall into the middle of it.
const DOWNLOAD_BYTES_PER_S: u64 = 4 * 1024 * 1024;

/// What new devices come with.
pub const FIRST: &str = "1.0.0";

/// The application's memory, beyond which the fleet's owner takes it for a leak, in bytes.
pub const RSS_MAX: f64 = 24e6;

/// So long a wave with the leak soaks. It takes the application 4 s to leak so much, and its sample 1 to 3 s to answer SQL; three
/// times that on a loaded machine, of which the trial before has taken some.
pub const LEAK_SHOWS_MS: u64 = 15_000;

/// What the demo's vendor has made, before any of it is published.
#[derive(Debug)]
pub struct Releases {
    pub vendor: Vendor,
    /// Its build directory: images by product and version.
    images: BTreeMap<(&'static str, &'static str), PathBuf>,
}

impl Releases {
    /// The vendor builds, and publishes what the factory puts into new devices.
    pub fn make(data: &Path, patience: Duration) -> Result<Self> {
        let build = data.join("vendor-build");
        std::fs::create_dir_all(&build)?;
        let mut images = BTreeMap::new();
        let mut put = |product, version, bytes: &[u8]| -> Result<()> {
            let image = build.join(format!("{product}-{version}"));
            std::fs::write(&image, bytes)?;
            images.insert((product, version), image);
            Ok(())
        };
        for (version, name) in [
            (FIRST, "pump-app-1-0"),
            ("1.1.0", "pump-app-1-1"),
            ("1.2.0", "pump-app-1-2"),
            ("1.3.0", "pump-app-1-3"),
        ] {
            put(PUMP, version, &std::fs::read(binary(name)?)?)?;
        }
        let gateway = std::fs::read(binary(GATEWAY)?)?;
        put(GATEWAY, FIRST, &gateway)?;
        // The loader of ELF files does not look at what stands behind the last section: another build, by its digest.
        put(GATEWAY, "1.1.0", &[&gateway[..], b"\nbuild 1.1.0\n"].concat())?;
        // The mistake of a release engineer: a program that runs, and is no gateway.
        put(GATEWAY, "1.2.0", &[&std::fs::read(binary("pump-app-1-0")?)?[..], b"\n"].concat())?;
        let vendor = Vendor::found(&data.join("vendor"), patience)?;
        let made = Self { vendor, images };
        made.publish(PUMP, FIRST)?;
        made.publish(GATEWAY, FIRST)?;
        Ok(made)
    }

    pub fn publish(&self, product: &'static str, version: &'static str) -> Result<()> {
        self.vendor.publish(product, version, self.image(product, version)?)
    }

    /// How long an image is that was published.
    pub fn image_len(&self, product: &str, version: &str) -> Result<u64> {
        let digest = self.vendor.digest(product, version)?;
        let image = self.vendor.image(product, version, &digest);
        Ok(std::fs::metadata(&image).with_context(|| image.display().to_string())?.len())
    }

    fn image(&self, product: &'static str, version: &'static str) -> Result<&Path> {
        let image = self.images.get(&(product, version));
        Ok(image.with_context(|| format!("no build of {product} {version}"))?)
    }

    /// Publishes, has control read the repository, and keeps no copy where it was built.
    pub fn release(
        &self,
        fleet: &Fleet,
        product: &'static str,
        version: &'static str,
    ) -> Result<()> {
        self.publish(product, version)?;
        std::fs::remove_file(self.image(product, version)?)?;
        fleet.cli(&["releases", "--refresh"])?;
        Ok(())
    }

    /// What a new device starts with.
    pub fn first(&self, product: &'static str, more: Vec<String>) -> Result<Application> {
        let image = self.image(product, FIRST)?.to_owned();
        // What it is given on top is what a loaded machine needs: a good release is not to be given up because nobody had time
        // to answer. One whose process runs, and never gets well, takes as long to come back.
        let trial_ms = if product == GATEWAY { 30_000 } else { 60_000 };
        let mut all: Vec<String> = [
            "--check-in-ms=2000",
            "--halt-within-ms=20000",
            &format!("--trial-ms={trial_ms}"),
            &format!("--download-rate={DOWNLOAD_BYTES_PER_S}"),
        ]
        .map(str::to_owned)
        .into();
        all.extend(more);
        Ok(Application { product, version: FIRST, image, args: Vec::new(), more: all })
    }

    /// After this, whatever runs came by the road: no copy of an image lies where it was built, but of those that are not
    /// published yet.
    pub fn delete_builds(&self) -> Result<()> {
        for (_, image) in self.images.iter().filter(|((_, version), _)| *version == FIRST) {
            std::fs::remove_file(image)?;
        }
        let beside_us = binary("pump-app-1-0")?;
        let dir = beside_us.parent().context("an executable lies in a directory")?;
        for dir in [dir.to_owned(), dir.join("deps")] {
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with("pump-app-") || name.starts_with("pump_app_") {
                    std::fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// What `GET /healthz` of the second gateway says, for the agent on its box.
pub fn health_script(data: &Path, gateway_metrics: std::net::SocketAddr) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = data.join("box-health.sh");
    let port = gateway_metrics.port();
    let text = format!(
        "#!/bin/bash\n\
         at=/dev/tcp/127.0.0.1/{port}\n\
         (exec 3<>$at) 2>/dev/null || exit 75\n\
         exec 3<>$at\n\
         printf 'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3\n\
         read -r line <&3\n\
         [[ $line == *' 200 '* ]] || exit 75\n"
    );
    std::fs::write(&file, text)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    Ok(format!("--health-script={}", path(&file)?))
}

/// The gate that finds a leak: the most memory that any application took since the wave was opened.
pub fn leak_signal(at_most: f64) -> Value {
    json!({
        "name": "memory",
        "sql": "select max(value) from readings where series = 'app/rss' and device like 'dev-%' \
                and received_at >= to_timestamp_millis($opened_ms)",
        "at_most": at_most
    })
}

/// How long a device may take to come for its permit, and from there to its proof: as long as anything is waited for.
pub const COME_AND_PROVE_MS: u64 = PATIENCE.as_millis() as u64;

/// A rollout as its operator sees it.
#[derive(Debug)]
pub struct Seen(pub Value);

impl Seen {
    pub fn phase(&self) -> &str {
        self.0["phase"].as_str().unwrap_or_default()
    }

    pub fn stage(&self) -> &str {
        self.0["stage"].as_str().unwrap_or_default()
    }

    pub fn why(&self) -> &str {
        self.0["why"].as_str().unwrap_or_default()
    }

    pub fn wave(&self) -> u64 {
        self.0["wave"].as_u64().unwrap_or_default()
    }

    pub fn count(&self, of: &str) -> u64 {
        self.0["counts"][of].as_u64().unwrap_or_default()
    }

    pub fn is(&self, phase: &str, stage: &str, wave: u64) -> bool {
        (self.phase(), self.stage(), self.wave()) == (phase, stage, wave)
    }
}

impl Fleet {
    pub fn create(&self, order: Value) -> Result<()> {
        let file = self.data.join("rollout.json");
        std::fs::write(&file, order.to_string())?;
        self.cli(&["rollout", "create", path(&file)?])?;
        Ok(())
    }

    pub fn rollout(&self, word: &str, id: &str) -> Result<()> {
        self.cli(&["rollout", word, id])?;
        Ok(())
    }

    /// Without a terminal, what cannot be taken back is said with `--yes`.
    pub fn abort(&self, id: &str) -> Result<()> {
        self.cli(&["rollout", "abort", id, "--yes"])?;
        Ok(())
    }

    pub fn seen(&self, id: &str) -> Result<Seen> {
        let text = self.cli(&["rollout", "show", id, "--json"])?;
        Ok(Seen(serde_json::from_str(&text).with_context(|| format!("not a rollout: {text}"))?))
    }

    /// What is known of each device with a permit.
    pub fn permits(&self, id: &str) -> Result<Vec<(String, String)>> {
        let text = self.cli(&["rollout", "devices", id, "--json"])?;
        let page: Value = serde_json::from_str(&text)?;
        let devices = page["devices"].as_array().context("no devices in the answer")?;
        let word = |device: &Value, name| device[name].as_str().unwrap_or_default().to_owned();
        Ok(devices.iter().map(|device| (word(device, "device"), word(device, "known"))).collect())
    }

    pub fn known(&self, id: &str, known: &str) -> Result<BTreeSet<String>> {
        let of = self.permits(id)?.into_iter().filter(|(_, what)| what == known);
        Ok(of.map(|(device, _)| device).collect())
    }

    /// What a device said of itself in its newest manifest.
    pub fn software(&self, device: &str) -> Result<Value> {
        let text = self.cli(&["device", "software", device, "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("not a device's software: {text}"))
    }

    /// The one process that a device runs out of the slots of a product.
    pub fn runs(&self, device: &str, product: &str) -> Result<Running> {
        let dir = self.device_dir(device).join("update").join(product);
        let mut found = running::under(&dir)?;
        ensure!(found.len() == 1, "expected one process of {device}'s slots, found {found:?}");
        Ok(found.remove(0))
    }
}
