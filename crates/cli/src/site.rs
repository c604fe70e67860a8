//! A site's own directory: who it is, its CA, its keys. Made whole at the first start, read at every later one.

use anyhow::{Context, Result, bail};
use disk::{Disk, RealDisk, SharedDisk};
use keys::ca::Authority;
use keys::{UnixTime, file};
use model::envelope::Algorithm;
use model::{Timestamp, hex};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trust::cose::{SecretKey, Signer as _};
use trust::mac::MacKey;
use trust::tuf::Role;

/// How many shards a new site's bus has. Fixed for the site's life, since a device's shard is computed from it.
const SHARDS: u16 = 4;

/// Some hundred bytes are written.
const FILE_BYTES_MAX: u64 = 64 * 1024;

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
        Self::read_on(&RealDisk, data)
    }

    fn read_on(disk: &dyn Disk, data: &Path) -> Result<Self> {
        let path = Self::path(data);
        let bytes = disk.read(&path, FILE_BYTES_MAX).with_context(|| {
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
            false => SiteFile::read_on(disk.as_ref(), data)?,
        };
        file.port_base = port_base;
        let authority = Authority::load_or_create(
            disk.as_ref(),
            &dir.join("ca.key"),
            &dir.join("ca.pem"),
            &format!("{} site CA", file.name),
            now,
        )?;
        file::load_or_generate(disk.as_ref(), &dir.join("control.key"), Algorithm::Esp256)?;
        found_director(disk.as_ref(), data, is_new, now)?;
        let evidence =
            file::load_or_generate(disk.as_ref(), &dir.join("evidence.key"), Algorithm::Ed25519)?;
        let log = control::ledger::log_key(&file.name, evidence.public())?;
        keep(disk.as_ref(), &dir.join("evidence.pub"), format!("{log}\n").as_bytes())?;
        let bus_key = MacKey::new(secret(disk.as_ref(), &dir.join("bus.key"))?);
        let token = hex::encode(&secret(disk.as_ref(), &dir.join("api.secret"))?);
        let shown = format!("{token}\n");
        keep(disk.as_ref(), &dir.join("api.token"), shown.as_bytes())?;
        keep(disk.as_ref(), &SiteFile::path(data), &serde_json::to_vec_pretty(&file)?)?;
        let authority = Arc::new(authority);
        Ok(Self { file, dir, authority, bus_key, token, is_new })
    }

    /// What control needs of the Director: its roots, and the one key that is online.
    pub fn director(&self, data: &Path) -> Result<control::DirectorConfig> {
        let dir = data.join("director");
        let names =
            RealDisk.list(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let number = |name: &String| -> Option<u64> {
            name.strip_suffix(Role::Root.file())?.strip_suffix('.')?.parse().ok()
        };
        let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
        numbers.sort_unstable();
        let read = |number: u64| {
            let path = dir.join(Role::Root.versioned_file(number));
            let bytes = RealDisk.read(&path, Role::Root.bytes_max() as u64);
            bytes.with_context(|| format!("cannot read {}", path.display()))
        };
        let roots = numbers.into_iter().map(read).collect::<Result<_>>()?;
        let key = file::load(&RealDisk, &self.dir.join("director.key"))?;
        Ok(control::DirectorConfig { roots, key })
    }

    /// The key of control's own listener. It is read where it is used, so that nothing else holds it.
    pub fn control_key(&self) -> Result<SecretKey> {
        Ok(file::load(&RealDisk, &self.dir.join("control.key"))?)
    }

    /// The key of the evidence log. Its public half is in `evidence.pub`, for auditors.
    pub fn evidence_key(&self) -> Result<SecretKey> {
        Ok(file::load(&RealDisk, &self.dir.join("evidence.key"))?)
    }

    /// Where control keeps the certificate of its own listener.
    pub fn control_certificate(&self) -> PathBuf {
        self.dir.join("control.pem")
    }
}

/// The Director's keys and first root. The online key is saved last: while it is missing from a new site, nobody has the
/// root that names it, and a founding that was cut begins again with the same offline keys.
fn found_director(disk: &dyn Disk, data: &Path, is_new: bool, now: UnixTime) -> Result<()> {
    let dir = data.join("director");
    let (root, online) = (dir.join(Role::Root.versioned_file(1)), data.join("site/director.key"));
    match (disk.exists(&root)?, disk.exists(&online)?) {
        (true, true) => return Ok(()),
        (false, true) => bail!(
            "no {}, though the site has a Director: put its root files back. Devices believe no other one",
            root.display()
        ),
        (true, false) if !is_new => bail!(
            "no {}, the key that {} names: put it back. (If no device has that root yet, remove the root instead)",
            online.display(),
            root.display()
        ),
        _ => {}
    }
    disk.create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let offline = ["root-1.key", "root-2.key", "root-3.key"]
        .map(|name| file::load_or_generate(disk, &dir.join(name), Algorithm::Ed25519));
    let offline = offline.into_iter().collect::<Result<Vec<_>, _>>()?;
    let key = file::draw(Algorithm::Ed25519)?;
    let now = Timestamp(i64::try_from(now.as_secs())? * 1_000_000);
    let bytes = control::director::first_root(&offline, key.public(), now)
        .context("cannot make the Director's first root")?;
    keep(disk, &root, &bytes)?;
    Ok(file::save(disk, &online, &key)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use disk::{SimDisk, cut_everywhere};
    use std::time::Duration;

    fn found(disk: &SimDisk) -> Result<()> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_750_000_000));
        let disk = disk.shared();
        Site::load_or_found(&disk, Path::new("/data"), "site", 18800, now).map(drop)
    }

    fn file(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        disk.shared().read(&Path::new("/data").join(name), 1 << 20).ok()
    }

    /// Whoever has the first root believes one online key; a founding that was cut and begun again made no second one.
    #[test]
    fn a_founding_that_is_cut_anywhere_ends_with_one_director() {
        const NAMES: [&str; 2] = ["director/1.root.json", "site/director.key"];
        // What is there once the site is founded is given to devices, and stays.
        let workload = |disk: &SimDisk| {
            found(disk).ok()?;
            Some(NAMES.map(|name| file(disk, name)))
        };
        let check = |disk: &SimDisk, promised: Option<[Option<Vec<u8>>; 2]>| {
            found(disk).map_err(|error| format!("{error:#}"))?;
            let there = NAMES.map(|name| file(disk, name));
            if promised.is_some_and(|promised| promised != there) {
                return Err("a second Director was made".into());
            }
            let root = there[0].clone().ok_or("no root")?;
            let shared = disk.shared();
            let key = file::load(shared.as_ref(), Path::new("/data/site/director.key"));
            let key = key.map_err(|error| error.to_string())?;
            let trusted = trust::tuf::Trusted::from_root(&root, None);
            let trusted = trusted.map_err(|error| error.to_string())?;
            let named = trusted.root().role(Role::Timestamp).keyids.clone();
            match named == [trust::tuf::key_id(key.public())] {
                true => Ok(()),
                false => Err("the root names another online key".into()),
            }
        };
        cut_everywhere(0..2, workload, check).holds("a site's Director");
    }

    #[test]
    fn a_director_is_made_once_and_what_is_missing_is_asked_for() {
        for (gone, asks) in [
            ("director/1.root.json", "put its root files back"),
            ("site/director.key", "put it back"),
        ] {
            let disk = SimDisk::new(1);
            found(&disk).unwrap();
            let kept = file(&disk, gone).unwrap();
            disk.shared().remove(&Path::new("/data").join(gone)).unwrap();
            let refused = found(&disk).unwrap_err().to_string();
            assert!(refused.contains(asks), "{refused}");
            disk::replace(disk.shared().as_ref(), &Path::new("/data").join(gone), &kept).unwrap();
            found(&disk).unwrap();
        }
    }

    #[test]
    fn nothing_that_runs_needs_the_offline_keys() {
        let disk = SimDisk::new(1);
        found(&disk).unwrap();
        for name in ["root-1.key", "root-2.key", "root-3.key"] {
            disk.shared().remove(&Path::new("/data/director").join(name)).unwrap();
        }
        found(&disk).unwrap();
        assert_eq!(file(&disk, "director/root-1.key"), None, "nor makes others");
    }
}
