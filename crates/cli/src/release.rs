//! `plimsoll release`: the vendor's hand. It makes the image repository and says what may be installed from it; the
//! operator's side reads `repository/` and never needs a key. `docs/release.md`.
//!
//! ```text
//! DIR/keys/        root-1..3.key  targets-1..2.key  snapshot.key  timestamp.key    PKCS#8 in PEM, 0600
//! DIR/repository/  metadata/  N.root.json  N.targets.json  N.snapshot.json  timestamp.json
//!                  targets/   PRODUCT/RELEASE/SHA256.HARDWARE.bin
//! ```
//!
//! Promises: who reads `repository/` at any moment, a power cut included, finds what verifies, the state before or the one
//! after. That is a matter of order: the image, targets, snapshot, timestamp, each durable before the next one. A
//! number that a file was named with is not given to other bytes: a client that read a name which the power cut then
//! took away is shown no second history. Nothing is written before a client of ours, in memory, has gone from the
//! state before to the one after.
//! Never: overwrites a key, gives a published release other bytes or other words, reads a clock.

#[cfg(test)]
mod tests;

use crate::client::Client;
use crate::place::Place;
use crate::table::{self, Format};
use crate::terminal::Progress;
use anyhow::{Context, Error, Result, bail, ensure};
use api::{Answer, Cell, path};
use clap::{Args, Subcommand};
use disk::{Disk, RealDisk};
use keys::file::{generate, load};
use model::envelope::Algorithm;
use model::release::{HARDWARE_MAX, MUST_PASS_MAX};
use model::{HardwareId, ProductId, SecurityVersion, Timestamp, Version};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use trust::cose::{PublicKey, SecretKey, Signer};
use trust::tuf::make::{self, Head, Keys, Roles};
use trust::tuf::{Custom, Fetch, Order, Refused, Role, Root, Target, Trusted, Update, time};

/// What is read of an image, which is in memory while it is published. The build machine has that; a device's slot is smaller.
const IMAGE_BYTES_MAX: u64 = 1 << 30;

const KEYS: [(&str, Role); 7] = [
    ("root-1.key", Role::Root),
    ("root-2.key", Role::Root),
    ("root-3.key", Role::Root),
    ("targets-1.key", Role::Targets),
    ("targets-2.key", Role::Targets),
    ("snapshot.key", Role::Snapshot),
    ("timestamp.key", Role::Timestamp),
];

/// Nobody replaces a root's keys but the root: one of three may be lost, and one stolen, and it still can.
const ROOT_THRESHOLD: u32 = 2;
/// Targets say what may run on a fleet: whoever steals one of the two keys releases nothing. If one is lost, the root names
/// another; nothing has to be spared for that here.
const TARGETS_THRESHOLD: u32 = 2;

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// How long a signature counts. What an online key signs ends soon, so that nobody can hide a release for longer; what
/// people sign with keys from a safe lasts as long as they may wait between two meetings.
const fn lifetime_days(role: Role) -> i64 {
    match role {
        Role::Root => 5 * 365,
        Role::Targets => 365,
        Role::Snapshot => 60,
        Role::Timestamp => 30,
    }
}

/// Before any end: the vendor reads what has ended too, or nobody could renew it.
const BEFORE_ANY_END: Timestamp = Timestamp(i64::MIN);

#[derive(Args, Clone, Debug)]
pub struct Vendor {
    /// The vendor's directory: `keys/`, and `repository/` for others to read.
    #[arg(long = "vendor", value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Subcommand)]
pub enum Release {
    /// Make the vendor's keys and an image repository in which nothing is published yet.
    #[command(after_help = "Example:\n  plimsoll release init --vendor acme")]
    Init {
        #[command(flatten)]
        vendor: Vendor,
    },
    /// Publish an image: from now on it may be installed, where an operator orders it.
    ///
    /// The same image under the same release again changes nothing; another one is refused.
    #[command(
        after_help = "Example:\n  plimsoll release publish --vendor acme --product pump-app --release 1.1.0 --hardware plimsoll-linux-amd64 --security-version 1 build/pump-app"
    )]
    Publish {
        #[command(flatten)]
        vendor: Vendor,
        /// What it is a release of.
        #[arg(long, value_name = "NAME")]
        product: ProductId,
        /// Three numbers, as in 1.2.0.
        #[arg(long, value_name = "VERSION")]
        release: Version,
        /// What the image runs on; may be given several times.
        #[arg(long, required = true, value_name = "NAME")]
        hardware: Vec<HardwareId>,
        /// How far it is from known weaknesses: a device installs nothing below its floor.
        #[arg(long, value_name = "NUMBER")]
        security_version: u32,
        /// A release that may not be jumped over on the way to this one; may be given several times.
        #[arg(long, value_name = "VERSION")]
        must_pass: Vec<Version>,
        /// The file that devices will run.
        image: PathBuf,
    },
    /// Sign again before it ends: snapshot and timestamp, and targets or root if asked for.
    ///
    /// Nothing else changes. Once a week is enough.
    #[command(after_help = "Example:\n  plimsoll release refresh --vendor acme")]
    Refresh {
        #[command(flatten)]
        vendor: Vendor,
        /// Targets too: their keys are needed.
        #[arg(long)]
        targets: bool,
        /// The root too, with the keys that it names: two of its own are needed.
        #[arg(long)]
        root: bool,
    },
    /// What is published, and when its signatures end. No key is needed.
    #[command(after_help = "Example:\n  plimsoll release list --vendor acme --json")]
    List {
        #[command(flatten)]
        vendor: Vendor,
    },
    /// The operator's side: what the vendor has published and this site has verified, and can be rolled out.
    #[command(after_help = "Example:\n  plimsoll release available --refresh")]
    Available(Available),
}

#[derive(Args)]
pub struct Available {
    /// Read the vendor's repository now, instead of within 10 s.
    #[arg(long)]
    refresh: bool,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Available {
    pub async fn run(self, place: &Place) -> Result<()> {
        let client = Client::of(place)?;
        let body = match self.refresh {
            true => {
                let at = format!("{}/refresh", path::RELEASES);
                client.post(&at, &serde_json::json!({})).await?
            }
            false => client.get(path::RELEASES).await?,
        };
        place.shown(&body, |page: api::release::Releases| {
            let names = [
                "product",
                "release",
                "hardware",
                "security_version",
                "must_pass",
                "bytes",
                "sha256",
            ];
            let row = |release: &api::release::Release| -> Vec<Cell> {
                vec![
                    release.product.as_str().into(),
                    release.version.as_str().into(),
                    release.hardware.join(" ").into(),
                    release.security_version.into(),
                    release.must_pass.join(" ").into(),
                    release.length.into(),
                    release.sha256.as_str().into(),
                ]
            };
            table::list(&names, page.releases.iter().map(row).collect(), "release", self.format)?;
            // Not among the rows: a program that reads them asks for --json.
            if let Some(failed) = page.failed {
                crate::log::next_step(&format!(
                    "the vendor's repository was not read the last time: {}",
                    table::plain(&failed)
                ));
            }
            Ok(())
        })
    }
}

impl Release {
    pub fn run(self, now: Timestamp, json: bool) -> Result<()> {
        let disk = &RealDisk;
        match self {
            Self::Init { vendor: Vendor { dir } } => {
                disk.create_dir_all(&dir).with_context(|| format!("making {dir:?}"))?;
                let home = Home { disk, dir: &dir };
                let _lock = home.lock()?;
                home.init(now)?;
                tell!("repository: {}, for everybody to read", home.repository().display());
                tell!(
                    "keys: {}, for nobody else: take root-*.key to a safe place",
                    home.keys().display()
                );
            }
            Self::Publish {
                vendor: Vendor { dir },
                product,
                release: version,
                hardware,
                security_version,
                must_pass,
                image,
            } => {
                let security_version = SecurityVersion(security_version);
                let release =
                    model::Release { product, version, security_version, hardware, must_pass };
                let home = Home { disk, dir: &dir };
                let _lock = home.lock()?;
                let (target, done) = home.publish(release, &image, now)?;
                let word = match done {
                    Done::Published => "published",
                    Done::WasPublished => "published before, and nothing changed",
                };
                let file = home.targets().join(target.file_name(true));
                if json {
                    let sha256 = target.hashes.sha256.map(|digest| digest.to_string());
                    let said = serde_json::json!({
                        "published": done == Done::Published, "path": target.path, "file": file.display().to_string(),
                        "bytes": target.length, "sha256": sha256,
                    });
                    tell!("{said}");
                    return Ok(());
                }
                tell!("{word}: {}", file.display());
                crate::log::next_step(
                    "the operator's site reads it within 10 s: plimsoll release available",
                );
            }
            Self::Refresh { vendor: Vendor { dir }, targets, root } => {
                let home = Home { disk, dir: &dir };
                let _lock = home.lock()?;
                home.refresh(targets, root, now)?;
                home.list(json, now, &mut io::stdout().lock())?;
            }
            Self::List { vendor: Vendor { dir } } => {
                Home { disk, dir: &dir }.list(json, now, &mut io::stdout().lock())?;
            }
            Self::Available(_) => unreachable!("`main` asks the site for it"),
        }
        Ok(())
    }
}

/// What the vendor of `plimsoll up` has done at its first start: it is there, and has published this release. A later build of
/// the image changes nothing: what is published stays. Says where the image lies that is published.
pub fn first(dir: &Path, release: model::Release, image: &Path, now: Timestamp) -> Result<PathBuf> {
    let disk = &RealDisk;
    disk.create_dir_all(dir).with_context(|| format!("making {dir:?}"))?;
    let home = Home { disk, dir };
    let _lock = home.lock()?;
    if !disk.exists(&home.metadata().join(Role::Timestamp.file()))? {
        home.init(now)?;
    }
    let place = home.targets().join(format!("{}/{}", release.product, release.version));
    let published = match disk.exists(&place)? {
        true => disk.list(&place)?.into_iter().map(|name| place.join(name)).next(),
        false => None,
    };
    let (target, _) = home.publish(release, published.as_deref().unwrap_or(image), now)?;
    Ok(home.targets().join(target.file_name(true)))
}

/// Where the vendor's repository lies, and its first root.
pub fn repository(dir: &Path) -> (PathBuf, PathBuf) {
    let home = Home { disk: &RealDisk, dir };
    (home.repository(), home.metadata().join(Role::Root.versioned_file(1)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Published,
    /// Nothing was to be changed.
    WasPublished,
}

/// A vendor's directory on a disk. Whoever changes it holds its lock.
#[derive(Clone, Copy)]
struct Home<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
}

impl Home<'_> {
    fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }

    fn metadata(&self) -> PathBuf {
        self.repository().join("metadata")
    }

    fn targets(&self) -> PathBuf {
        self.repository().join("targets")
    }

    fn lock(&self) -> Result<disk::DirLock> {
        disk::lock_dir(self.dir).with_context(|| {
            format!("taking {:?} for this command (`plimsoll release init` makes it)", self.dir)
        })
    }

    /// Keys, the first root, and metadata in which nothing is published.
    fn init(&self, now: Timestamp) -> Result<()> {
        let Self { disk, dir } = *self;
        let here = |path: PathBuf| disk.exists(&path).with_context(|| format!("reading {path:?}"));
        if here(self.metadata().join(Role::Timestamp.file()))? {
            bail!("`{}` has a repository: its keys and its root stay as they are", dir.display());
        }
        let first_root = self.metadata().join(Role::Root.versioned_file(1));
        let keys = KEYS.iter().map(|(name, _)| self.keys().join(name));
        if let Some(left) = keys.chain([first_root]).find_map(|path| match here(path.clone()) {
            Ok(false) => None,
            Ok(true) => Some(Ok(path)),
            Err(e) => Some(Err(e)),
        }) {
            // A root of the same keys that says something else would be a second history for whoever has the first.
            bail!(
                "`{}` is there without a whole repository beside it: what an init that was cut short left, or a \
                 repository that was moved. If nothing was given to anybody, remove `{}` and begin again",
                left?.display(),
                dir.display()
            );
        }
        for dir in [self.keys(), self.metadata(), self.targets()] {
            disk.create_dir_all(&dir).with_context(|| format!("making {dir:?}"))?;
        }
        let mut hands = Hands::default();
        for (name, role) in KEYS {
            let key = generate(disk, &self.keys().join(name), Algorithm::Ed25519)?;
            hands.of[role as usize].push(key);
        }
        let public = Role::ALL.map(|role| {
            hands.of[role as usize].iter().map(|key| key.public().clone()).collect::<Vec<_>>()
        });
        let root = make::root(&head(Role::Root, 1, now), &roles(&public), &hands.by(Role::Root))?;
        let trusted = Trusted::from_root(&root, None)?;
        let before = Standing { trusted, targets_used: 0, snapshot_used: 0 };
        let files = before.sign(false, Some(&[]), &hands, now)?;
        before.accepts(&files, now)?;
        self.write(&[(Role::Root.versioned_file(1), root)])?;
        self.write(&files)
    }

    /// Copies an image to where clients look for it, and signs that it may be installed.
    fn publish(
        &self,
        mut release: model::Release,
        image: &Path,
        now: Timestamp,
    ) -> Result<(Target, Done)> {
        let standing = self.standing()?;
        release.hardware.sort();
        release.hardware.dedup();
        release.must_pass.sort();
        release.must_pass.dedup();
        ensure!(
            release.hardware.len() <= HARDWARE_MAX && release.must_pass.len() <= MUST_PASS_MAX,
            "expected at most {HARDWARE_MAX} hardware ids and {MUST_PASS_MAX} releases that must be passed"
        );
        let bytes = read_image(self.disk, image).with_context(|| format!("reading {image:?}"))?;
        ensure!(!bytes.is_empty(), "`{}` is empty: no image", image.display());
        let path = path_of(&release);
        let target = Target::of(path, &bytes, Order { release, rollout: None, raise: None });

        let published = standing.published()?;
        if is_published(published, &target)? {
            return Ok((target, Done::WasPublished));
        }
        let mut targets = published.to_vec();
        targets.push(target.clone());
        let needed = [Role::Targets, Role::Snapshot, Role::Timestamp];
        let hands = self.hands(standing.trusted.root(), &needed)?;
        let files = standing.sign(false, Some(&targets), &hands, now)?;
        let after = standing.accepts(&files, now)?;
        ensure!(
            after.current(now)?.target(&target.path) == Some(&target),
            "clients would read something else than was meant of `{}`",
            target.path
        );

        let file = self.targets().join(target.file_name(true));
        let folder = file.parent().expect("a target lies in a folder of its product");
        let written = self.disk.create_dir_all(folder);
        written
            .and_then(|()| disk::replace(self.disk, &file, &bytes))
            .with_context(|| format!("writing {file:?}"))?;
        self.write(&files)?;
        Ok((target, Done::Published))
    }

    /// Signs what is there again, for another lifetime.
    fn refresh(&self, targets: bool, root: bool, now: Timestamp) -> Result<()> {
        let standing = self.standing()?;
        let mut needed = vec![Role::Snapshot, Role::Timestamp];
        needed.extend(targets.then_some(Role::Targets));
        needed.extend(root.then_some(Role::Root));
        let hands = self.hands(standing.trusted.root(), &needed)?;
        let published = if targets { Some(standing.published()?) } else { None };
        let files = standing.sign(root, published, &hands, now)?;
        standing.accepts(&files, now)?;
        self.write(&files)
    }

    fn list(&self, json: bool, now: Timestamp, out: &mut impl Write) -> Result<()> {
        let trusted = self.read()?;
        if json {
            serde_json::to_writer_pretty(&mut *out, &as_json(&trusted, now)?)?;
            writeln!(out)?;
            return Ok(());
        }
        writeln!(out, "{}", table::grid(&as_rows(&trusted)?))?;
        for Signed { role, version, end } in signed(&trusted)? {
            let ended = if end <= now { " (ENDED: clients refuse it)" } else { "" };
            let end = time::format(end).expect("it was read in this form");
            writeln!(out, "{:<9} {version:>4} until {end}{ended}", role.as_str())?;
        }
        Ok(())
    }

    /// What to go on from.
    fn standing(&self) -> Result<Standing> {
        let trusted = self.read()?;
        let metadata = self.metadata();
        // Whoever wrote the newest of it may have been killed before its name was durable.
        self.disk.sync_dir(&metadata).with_context(|| format!("syncing {metadata:?}"))?;
        let names = self.disk.list(&metadata).with_context(|| format!("reading {metadata:?}"))?;
        let newest = |role: Role| {
            let number =
                |name: &String| name.strip_suffix(role.file())?.strip_suffix('.')?.parse().ok();
            names.iter().filter_map(number).max().unwrap_or(0)
        };
        let versions = trusted.versions();
        let snapshot_used = newest(Role::Snapshot).max(versions.snapshot).max(versions.timestamp);
        let targets_used = newest(Role::Targets).max(versions.targets);
        Ok(Standing { trusted, targets_used, snapshot_used })
    }

    /// Reads as a client does, from the first root on, except that what has ended is read too.
    fn read(&self) -> Result<Trusted> {
        let Self { disk, dir } = *self;
        let metadata = self.metadata();
        let first = metadata.join(Role::Root.versioned_file(1));
        if !disk.exists(&first).with_context(|| format!("reading {first:?}"))? {
            bail!(
                "no repository in `{dir}`: `plimsoll release init --vendor {dir}` makes one",
                dir = dir.display()
            );
        }
        let root = disk.read(&first, Role::Root.bytes_max() as u64);
        let root = root.with_context(|| format!("reading {first:?}"))?;
        let first = Trusted::from_root(&root, None).context("reading the first root")?;
        cycle(first, BEFORE_ANY_END, |fetch| {
            let path = metadata.join(&fetch.name);
            match disk.read(&path, fetch.bytes_max as u64) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e).with_context(|| format!("reading {path:?}")),
            }
        })
    }

    /// The private keys of roles: whatever lies under a role's name and is a key that the root names for it.
    fn hands(&self, root: &Root, needed: &[Role]) -> Result<Hands> {
        let dir = self.keys();
        let names = self.disk.list(&dir).with_context(|| format!("looking for keys in {dir:?}"))?;
        let mut hands = Hands::default();
        for role in needed.iter().copied() {
            let named = root.role(role);
            let own = |name: &&String| name.starts_with(role.as_str()) && name.ends_with(".key");
            for name in names.iter().filter(own) {
                let key = load(self.disk, &dir.join(name))?;
                if named.keyids.contains(&trust::tuf::key_id(key.public())) {
                    hands.of[role as usize].push(key);
                }
            }
            let (found, needed) = (hands.of[role as usize].len(), named.threshold);
            ensure!(
                found >= needed as usize,
                "signing {role} needs {needed} of the keys that root {} names, found {found} in `{}`",
                root.version,
                dir.display()
            );
        }
        Ok(hands)
    }

    /// One file after the other, each durable before the next one.
    fn write(&self, files: &[(String, Vec<u8>)]) -> Result<()> {
        for (name, bytes) in files {
            let path = self.metadata().join(name);
            disk::replace(self.disk, &path, bytes).with_context(|| format!("writing {path:?}"))?;
        }
        Ok(())
    }
}

/// What is published, and the numbers that cannot be used again: names that an earlier publication gave before it was
/// cut, too. Snapshot and timestamp go together and have one number.
struct Standing {
    trusted: Trusted,
    targets_used: u64,
    snapshot_used: u64,
}

impl Standing {
    fn published(&self) -> Result<&[Target]> {
        let targets = self.trusted.current(BEFORE_ANY_END)?.targets();
        for target in targets {
            if let Custom::Unreadable(why) = target.custom {
                // Signed again by this build it would lose its words.
                bail!("`{}` was published by another build of Plimsoll: {why}", target.path);
            }
        }
        Ok(targets)
    }

    /// The files that come next, in the order in which they have to become durable.
    fn sign(
        &self,
        root: bool,
        targets: Option<&[Target]>,
        hands: &Hands,
        now: Timestamp,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let trusted = &self.trusted;
        let mut files = Vec::new();
        if root {
            let old = trusted.root();
            let public = Role::ALL.map(|role| known_keys(old, role));
            let thresholds = Role::ALL.map(|role| old.role(role).threshold);
            let version = old.version + 1;
            let head = head(Role::Root, version, now);
            let bytes = make::root(&head, &with(&public, thresholds), &hands.by(Role::Root))?;
            files.push((Role::Root.versioned_file(version), bytes));
        }
        let (version, targets) = match targets {
            Some(targets) => {
                let version = self.targets_used + 1;
                let head = head(Role::Targets, version, now);
                let bytes = make::targets(&head, targets, &hands.by(Role::Targets))?;
                files.push((Role::Targets.versioned_file(version), bytes.clone()));
                (version, bytes)
            }
            None => {
                let bytes = trusted.bytes(Role::Targets).context("no targets to go on from")?;
                (trusted.versions().targets, bytes.to_vec())
            }
        };
        let number = self.snapshot_used + 1;
        let by = hands.by(Role::Snapshot);
        let snapshot =
            make::snapshot(&head(Role::Snapshot, number, now), (version, &targets), &by)?;
        let by = hands.by(Role::Timestamp);
        let timestamp =
            make::timestamp(&head(Role::Timestamp, number, now), (number, &snapshot), &by)?;
        files.push((Role::Snapshot.versioned_file(number), snapshot));
        files.push((Role::Timestamp.file().into(), timestamp));
        Ok(files)
    }

    /// What a client comes to that had the state before and is given these files.
    fn accepts(&self, files: &[(String, Vec<u8>)], now: Timestamp) -> Result<Trusted> {
        let after = cycle(self.trusted.clone(), now, |fetch| {
            let new = files.iter().find(|(name, _)| *name == fetch.name);
            let old = || self.trusted.bytes(fetch.role).filter(|_| fetch.role == Role::Targets);
            Ok(new.map(|(_, bytes)| &bytes[..]).or_else(old).map(<[u8]>::to_vec))
        });
        after.map_err(|error| match error.downcast_ref() {
            Some(Refused::Expired { role, .. }) => {
                let renews = format!("`plimsoll release refresh --{role}` renews it");
                error.context(renews)
            }
            _ => error.context("clients would refuse what was to be written"),
        })
    }
}

/// An image, with its progress on a terminal.
fn read_image(disk: &dyn Disk, image: &Path) -> io::Result<Vec<u8>> {
    const CHUNK: usize = 1 << 20;
    let length = disk.len(image)?;
    let mut progress = Progress::new("reading", Some(length));
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        bytes.resize(before + CHUNK, 0);
        let read = disk.read_at(image, before as u64, &mut bytes[before..])?;
        bytes.truncate(before + read);
        if read == 0 {
            return Ok(bytes);
        }
        if bytes.len() as u64 > IMAGE_BYTES_MAX {
            let what = format!("expected at most {IMAGE_BYTES_MAX} bytes, found more");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        progress.add(read as u64);
    }
}

/// Private keys by role.
#[derive(Default)]
struct Hands {
    of: [Vec<SecretKey>; 4],
}

impl Hands {
    fn by(&self, role: Role) -> Vec<&dyn Signer> {
        self.of[role as usize].iter().map(|key| key as &dyn Signer).collect()
    }
}

/// One cycle of a client. `read` has `None` for a file that is not there.
fn cycle(
    trusted: Trusted,
    now: Timestamp,
    read: impl Fn(&Fetch) -> Result<Option<Vec<u8>>>,
) -> Result<Trusted> {
    let mut update = Update::begin(trusted, now);
    while let Some(fetch) = update.next() {
        let taken = match read(&fetch)? {
            Some(bytes) => update.take(&bytes),
            None => update.absent(),
        };
        taken.map_err(|refused| Error::new(refused).context(format!("reading {}", fetch.name)))?;
    }
    Ok(update.into_trusted())
}

fn head(role: Role, version: u64, now: Timestamp) -> Head<'static> {
    let expires = Timestamp(now.as_us() + lifetime_days(role) * DAY_US);
    Head { version, expires, device: None }
}

/// In the order of [`Role::ALL`].
fn roles(public: &[Vec<PublicKey>; 4]) -> Roles<'_> {
    with(public, [ROOT_THRESHOLD, 1, 1, TARGETS_THRESHOLD])
}

fn with(public: &[Vec<PublicKey>; 4], thresholds: [u32; 4]) -> Roles<'_> {
    let of =
        |role: Role| Keys { keys: &public[role as usize], threshold: thresholds[role as usize] };
    Roles {
        root: of(Role::Root),
        timestamp: of(Role::Timestamp),
        snapshot: of(Role::Snapshot),
        targets: of(Role::Targets),
    }
}

fn known_keys(root: &Root, role: Role) -> Vec<PublicKey> {
    root.role(role).keyids.iter().filter_map(|id| root.key(id).cloned()).collect()
}

/// The place of an image: one for each kind of hardware that a release has an image for.
fn path_of(release: &model::Release) -> String {
    let model::Release { product, version, hardware, .. } = release;
    let first = hardware.first().map_or("any", HardwareId::as_str);
    format!("{product}/{version}/{first}.bin")
}

/// Whether this very image is published in these very words. For one kind of hardware a release is published once: the
/// devices that have it would not be those that are asked to install it.
fn is_published(published: &[Target], new: &Target) -> Result<bool> {
    let Custom::Order(Order { release, .. }) = &new.custom else {
        unreachable!("what is published has words");
    };
    for other in published {
        let Custom::Order(Order { release: there, .. }) = &other.custom else { continue };
        let same = there.product == release.product && there.version == release.version;
        if !same || !there.hardware.iter().any(|id| release.hardware.contains(id)) {
            continue;
        }
        if other == new {
            return Ok(true);
        }
        let what = format!("{} {}", release.product, release.version);
        if other.hashes != new.hashes {
            let sha256 = |target: &Target| match target.hashes.sha256 {
                Some(digest) => digest.to_string(),
                None => "none".into(),
            };
            bail!(
                "{what} is published with SHA-256 {}, found {}: another image is another release",
                sha256(other),
                sha256(new)
            );
        }
        bail!(
            "{what} is published as {}, found {}: what is said of a release stays said",
            words(there),
            words(release)
        );
    }
    Ok(false)
}

fn words(release: &model::Release) -> String {
    let must_pass =
        if release.must_pass.is_empty() { "none".into() } else { joined(&release.must_pass) };
    format!(
        "security version {} for {}, must pass {must_pass}",
        release.security_version,
        joined(&release.hardware)
    )
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// A file's number and end.
struct Signed {
    role: Role,
    version: u64,
    end: Timestamp,
}

fn signed(trusted: &Trusted) -> Result<Vec<Signed>> {
    let of = |role: Role| {
        let bytes = trusted.bytes(role).context("a repository without one of its files")?;
        let file: serde_json::Value = serde_json::from_slice(bytes)?;
        let signed = &file["signed"];
        let end = signed["expires"].as_str().and_then(time::parse);
        let version = signed["version"].as_u64().context("a file without a version")?;
        Ok(Signed { role, version, end: end.context("a file without an end")? })
    };
    Role::ALL.into_iter().map(of).collect()
}

fn as_rows(trusted: &Trusted) -> Result<Answer> {
    let names =
        ["product", "release", "hardware", "security_version", "must_pass", "bytes", "sha256"];
    let row = |target: &Target| {
        let sha256 = target.hashes.sha256.map(|digest| digest.to_string());
        let Custom::Order(Order { release, .. }) = &target.custom else {
            return vec![
                target.path.clone().into(),
                "?".into(),
                "?".into(),
                "?".into(),
                "?".into(),
                target.length.into(),
                sha256.into(),
            ];
        };
        vec![
            release.product.as_str().into(),
            release.version.to_string().into(),
            joined(&release.hardware).into(),
            release.security_version.0.into(),
            joined(&release.must_pass).into(),
            target.length.into(),
            sha256.into(),
        ]
    };
    let rows = trusted.current(BEFORE_ANY_END)?.targets().iter().map(row).collect();
    Ok(table::of(&names, rows))
}

fn as_json(trusted: &Trusted, now: Timestamp) -> Result<serde_json::Value> {
    let metadata: Vec<_> = signed(trusted)?
        .into_iter()
        .map(|Signed { role, version, end }| {
            serde_json::json!({
                "role": role.as_str(), "version": version, "ends": time::format(end), "ended": end <= now,
            })
        })
        .collect();
    let release = |target: &Target| {
        let Custom::Order(Order { release, .. }) = &target.custom else { return None };
        Some(serde_json::json!({
            "product": release.product.as_str(),
            "release": release.version.to_string(),
            "hardware": release.hardware.iter().map(HardwareId::as_str).collect::<Vec<_>>(),
            "security_version": release.security_version.0,
            "must_pass": release.must_pass.iter().map(Version::to_string).collect::<Vec<_>>(),
            "path": target.path,
            "file": target.file_name(true),
            "bytes": target.length,
            "sha256": target.hashes.sha256.map(|digest| digest.to_string()),
        }))
    };
    let releases: Vec<_> =
        trusted.current(BEFORE_ANY_END)?.targets().iter().filter_map(release).collect();
    Ok(serde_json::json!({ "metadata": metadata, "releases": releases }))
}
