//! A site's own directory: who it is, its CA, its keys. Made whole at the first start, read at every later one.

use anyhow::{Context, Result, bail};
use disk::{Disk, SharedDisk};
use keys::ca::Authority;
use keys::{UnixTime, file};
use model::hex;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trust::cose::SecretKey;
use trust::mac::MacKey;

/// How many shards a new site's bus has. Fixed for the site's life, since a device's shard is computed from it.
const SHARDS: u16 = 4;

/// What every process and command of a site must agree on; `site/site.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFile {
    /// 1. A reader refuses what it does not know (INV-MIX-1).
    pub format: u32,
    pub name: String,
    pub shards: u16,
    /// Where control listens; written at every start, so that commands find it.
    pub port_base: u16,
}

impl SiteFile {
    pub fn path(data: &Path) -> PathBuf {
        data.join("site/site.json")
    }

    pub fn read(data: &Path) -> Result<Self> {
        let path = Self::path(data);
        let bytes = std::fs::read(&path).with_context(|| {
            format!(
                "no site in {}: expected {} (made by `plimsoll up`)",
                data.display(),
                path.display()
            )
        })?;
        let site: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if site.format != 1 {
            bail!(
                "{} has format {}, expected 1: it was written by another release",
                path.display(),
                site.format
            );
        }
        Ok(site)
    }
}

/// A site with its secrets in memory.
pub struct Site {
    pub file: SiteFile,
    pub dir: PathBuf,
    pub authority: Arc<Authority>,
    pub bus_key: MacKey,
    pub token: String,
    /// Nothing of it existed before.
    pub is_new: bool,
}

impl Site {
    /// Every file is durable before the next is begun, and `site.json` comes last: a first start that was cut is taken up
    /// where it stopped.
    pub fn load_or_found(
        disk: &SharedDisk,
        data: &Path,
        name: &str,
        port_base: u16,
        now: UnixTime,
    ) -> Result<Self> {
        let dir = data.join("site");
        disk.create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let is_new = !disk.exists(&SiteFile::path(data))?;
        let mut file = match is_new {
            true => SiteFile { format: 1, name: name.to_owned(), shards: SHARDS, port_base },
            false => SiteFile::read(data)?,
        };
        file.port_base = port_base;
        let authority = Authority::load_or_create(
            disk.as_ref(),
            &dir.join("ca.key"),
            &dir.join("ca.pem"),
            &format!("{} site CA", file.name),
            now,
        )?;
        let esp256 = model::envelope::Algorithm::Esp256;
        file::load_or_generate(disk.as_ref(), &dir.join("control.key"), esp256)?;
        let bus_key = MacKey::new(secret(disk.as_ref(), &dir.join("bus.key"))?);
        let token = hex::encode(&secret(disk.as_ref(), &dir.join("api.secret"))?);
        let shown = format!("{token}\n");
        keep(disk.as_ref(), &dir.join("api.token"), shown.as_bytes())?;
        keep(disk.as_ref(), &SiteFile::path(data), &serde_json::to_vec_pretty(&file)?)?;
        let authority = Arc::new(authority);
        Ok(Self { file, dir, authority, bus_key, token, is_new })
    }

    /// The key of control's own listener. It is read where it is used, so that nothing else holds it.
    pub fn control_key(&self) -> Result<SecretKey> {
        Ok(file::load(&disk::RealDisk, &self.dir.join("control.key"))?)
    }

    /// Where control keeps the certificate of its own listener.
    pub fn control_certificate(&self) -> PathBuf {
        self.dir.join("control.pem")
    }
}

/// Writes only what would change, so that a start on a full disk still starts.
fn keep(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    if disk.exists(path)? && disk.read(path, 1 << 20)? == bytes {
        return Ok(());
    }
    disk::replace(disk, path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn secret(disk: &dyn Disk, path: &Path) -> Result<[u8; 32]> {
    if !disk.exists(path)? {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).context("the operating system gave no random bytes")?;
        disk::replace(disk, path, &bytes)?;
    }
    let bytes = disk.read(path, 64)?;
    let found = bytes.len();
    bytes
        .try_into()
        .ok()
        .with_context(|| format!("{}: expected 32 bytes, found {found}", path.display()))
}
