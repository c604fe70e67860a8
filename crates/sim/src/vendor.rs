//! The vendor of the fleet's applications, and what repositories name, read with eyes of our own.

use crate::fleet::{HARDWARE, path};
use crate::process::run_to_end;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug)]
pub struct Vendor {
    dir: PathBuf,
    patience: Duration,
}

impl Vendor {
    /// Makes the vendor's keys and its repository.
    pub fn found(dir: &Path, patience: Duration) -> Result<Self> {
        run_to_end("plimsoll", &["release", "init", "--vendor", path(dir)?], patience)?;
        Ok(Self { dir: dir.to_owned(), patience })
    }

    /// What is given away: no key lies there.
    pub fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }

    /// Where a published image lies.
    pub fn image(&self, product: &str, version: &str, digest: &str) -> PathBuf {
        self.repository().join(format!("targets/{product}/{version}/{digest}.{HARDWARE}.bin"))
    }

    pub fn publish(&self, product: &str, version: &str, image: &Path) -> Result<()> {
        let words = ["release", "publish", "--vendor", path(&self.dir)?, "--product", product];
        let of_image =
            ["--release", version, "--hardware", HARDWARE, "--security-version", "1", path(image)?];
        run_to_end("plimsoll", &[&words[..], &of_image].concat(), self.patience)?;
        Ok(())
    }

    /// What the newest targets of the repository name.
    pub fn named(&self) -> Result<Vec<Named>> {
        let dir = self.repository().join("metadata");
        let number = |name: String| name.strip_suffix(".targets.json")?.parse::<u64>().ok();
        let names = std::fs::read_dir(&dir)?.flatten().flat_map(|e| e.file_name().into_string());
        let newest = names.filter_map(number).max().context("no targets in the repository")?;
        named(&dir.join(format!("{newest}.targets.json")))
    }

    pub fn digest(&self, product: &str, version: &str) -> Result<String> {
        let named = self.named()?;
        let is_it = |named: &&Named| named.product == product && named.version == version;
        let found = named.iter().find(is_it);
        Ok(found.with_context(|| format!("no {product} {version} is published"))?.sha256.clone())
    }
}

/// A target of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub product: String,
    pub version: String,
    pub sha256: String,
}

/// What a file of targets names: the vendor's, or a Director's on its device.
pub fn named(targets: &Path) -> Result<Vec<Named>> {
    let text =
        std::fs::read(targets).with_context(|| format!("no targets {}", targets.display()))?;
    let file: Value = serde_json::from_slice(&text)?;
    let targets = file["signed"]["targets"].as_object().context("no targets in it")?;
    targets
        .values()
        .map(|target| {
            let (custom, sha256) = (&target["custom"]["plimsoll"], &target["hashes"]["sha256"]);
            Ok(Named {
                product: custom["product"].as_str().context("no product")?.to_owned(),
                version: custom["version"].as_str().context("no version")?.to_owned(),
                sha256: sha256.as_str().context("no SHA-256")?.to_owned(),
            })
        })
        .collect()
}
