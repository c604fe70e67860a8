//! TUF for foreign eyes: a repository that others read, and a client that reads theirs. No part of the product.

use anyhow::{Context, Result, bail};
use model::envelope::Algorithm;
use model::{HardwareId, ProductId, Release, RolloutId, SecurityVersion, Timestamp, Version};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trust::cose::{PublicKey, SecretKey, Signer};
use trust::tuf::make::{self, Head, Keys, Roles};
use trust::tuf::{Order, Role, Target, Trusted, Update, time};
use trust::uptane::{self, Lifetimes, Signers};

/// Two repositories, as the product publishes them.
#[derive(Clone, Debug, clap::Args)]
pub struct Make {
    /// Where they go: `images/` and `director/`, each with `metadata/`, and `images/targets/`.
    #[arg(long)]
    out: PathBuf,
}

/// A client of ours, against the files of a repository in a directory.
#[derive(Clone, Debug, clap::Args)]
pub struct Read {
    /// The root that it came with.
    #[arg(long)]
    root: PathBuf,
    /// The files of the repository.
    #[arg(long)]
    metadata: PathBuf,
    /// The device that the metadata have to name; none for an image repository.
    #[arg(long)]
    device: Option<String>,
    /// The time for all of it, as in 2030-01-01T00:00:00Z. The system's, if none is given.
    #[arg(long)]
    now: Option<String>,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub fn make(options: &Make) -> Result<()> {
    let now = now()?;
    let images = options.out.join("images");
    let target = publish(&images, now)?;
    direct(&options.out.join("director"), now, target)
}

/// Two roots: the second one has another timestamp key. Root and targets need two of their keys, and one of each is of
/// P-256.
fn publish(dir: &Path, now: Timestamp) -> Result<Target> {
    let metadata = dir.join("metadata");
    fs::create_dir_all(&metadata)?;
    let root = [key(Algorithm::Ed25519)?, key(Algorithm::Esp256)?, key(Algorithm::Ed25519)?];
    let targets = [key(Algorithm::Ed25519)?, key(Algorithm::Esp256)?];
    let (old, new) = (key(Algorithm::Ed25519)?, key(Algorithm::Ed25519)?);
    let snapshot = key(Algorithm::Esp256)?;
    for (version, timestamp) in [(1, &old), (2, &new)] {
        let roles = roles(&root, timestamp, &snapshot, &targets);
        let bytes = roles.sign(version, now, &[&root[0], &root[1]])?;
        write(&metadata, &Role::Root.versioned_file(version), &bytes)?;
    }
    let image = b"the image of pump-app 1.2.0".to_vec();
    let order = Order { release: release()?, rollout: None, raise: None };
    let target = Target::of("pump-app/1.2.0/pump-box.bin", &image, order);
    let file = dir.join("targets").join(target.file_name(true));
    fs::create_dir_all(file.parent().context("a target lies in a folder")?)?;
    fs::write(file, &image)?;

    let head = |version| Head { version, expires: after(now, DAY), device: None };
    let one = make::targets(&head(3), std::slice::from_ref(&target), &[&targets[0]])?;
    let bytes = make::also_signed(&one, Role::Targets, &targets[1])?;
    write(&metadata, "3.targets.json", &bytes)?;
    let bytes = make::snapshot(&head(4), (3, &bytes), &[&snapshot])?;
    write(&metadata, "4.snapshot.json", &bytes)?;
    let bytes = make::timestamp(&head(5), (4, &bytes), &[&new])?;
    write(&metadata, "timestamp.json", &bytes)?;
    Ok(target)
}

/// The Director's word for one device, made by the product's own function.
fn direct(dir: &Path, now: Timestamp, mut target: Target) -> Result<()> {
    let metadata = dir.join("metadata");
    fs::create_dir_all(&metadata)?;
    let root = [key(Algorithm::Ed25519)?, key(Algorithm::Ed25519)?];
    let online = [key(Algorithm::Ed25519)?];
    let roles = roles(&root, &online[0], &online[0], &online);
    write(&metadata, "1.root.json", &roles.sign(1, now, &[&root[0], &root[1]])?)?;
    if let trust::tuf::Custom::Order(order) = &mut target.custom {
        order.rollout = Some(RolloutId::new("r-12")?);
    }
    let by: &[&dyn Signer] = &[&online[0]];
    let signers = Signers { timestamp: by, snapshot: by, targets: by };
    let lifetimes = Lifetimes { timestamp: DAY, snapshot: DAY, targets: DAY };
    let device = "pump-7".parse()?;
    let made = uptane::directed(&device, 41, &[target], now, &lifetimes, &signers)?;
    for name in ["timestamp.json", "41.snapshot.json", "41.targets.json"] {
        write(&metadata, name, made.file(name).context("the Director makes three files")?)?;
    }
    Ok(())
}

pub fn read(options: &Read) -> Result<()> {
    let now = match &options.now {
        Some(text) => time::parse(text).context("expected a time as in 2030-01-01T00:00:00Z")?,
        None => now()?,
    };
    let device = options.device.as_deref().map(str::parse).transpose()?;
    let root = fs::read(&options.root)?;
    let mut update = Update::begin(Trusted::from_root(&root, device)?, now);
    while let Some(fetch) = update.next() {
        let path = options.metadata.join(&fetch.name);
        match fs::read(&path) {
            Ok(bytes) => update.take(&bytes).with_context(|| format!("taking {}", fetch.name))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => update.absent()?,
            Err(error) => bail!("reading {}: {error}", path.display()),
        };
    }
    let trusted = update.into_trusted();
    let versions = trusted.versions();
    println!(
        "root {}, timestamp {}, snapshot {}, targets {}",
        versions.root, versions.timestamp, versions.snapshot, versions.targets
    );
    for target in trusted.current(now)?.targets() {
        println!("{} {} {:?}", target.path, target.length, target.custom);
    }
    Ok(())
}

struct Named {
    root: Vec<PublicKey>,
    timestamp: Vec<PublicKey>,
    snapshot: Vec<PublicKey>,
    targets: Vec<PublicKey>,
}

fn roles(
    root: &[SecretKey],
    timestamp: &SecretKey,
    snapshot: &SecretKey,
    targets: &[SecretKey],
) -> Named {
    let public = |keys: &[SecretKey]| keys.iter().map(|key| key.public().clone()).collect();
    Named {
        root: public(root),
        timestamp: vec![timestamp.public().clone()],
        snapshot: vec![snapshot.public().clone()],
        targets: public(targets),
    }
}

impl Named {
    fn sign(&self, version: u64, now: Timestamp, signers: &[&dyn Signer]) -> Result<Vec<u8>> {
        let one = |keys| Keys { keys, threshold: 1 };
        let roles = Roles {
            root: Keys { keys: &self.root, threshold: 2 },
            timestamp: one(&self.timestamp),
            snapshot: one(&self.snapshot),
            targets: Keys { keys: &self.targets, threshold: self.targets.len() as u32 },
        };
        let head = Head { version, expires: after(now, 365 * DAY), device: None };
        Ok(make::root(&head, &roles, signers)?)
    }
}

fn release() -> Result<Release> {
    Ok(Release {
        product: ProductId::new("pump-app")?,
        version: Version::new(1, 2, 0),
        security_version: SecurityVersion(3),
        hardware: vec![HardwareId::new("pump-box")?],
        must_pass: vec![Version::new(1, 1, 0)],
    })
}

fn key(algorithm: Algorithm) -> Result<SecretKey> {
    let mut random = [0; 32];
    // A draw that is no scalar of P-256 comes once in 2^32.
    fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random))?;
    SecretKey::from_random(algorithm, &random).context("expected a scalar of P-256: draw again")
}

fn now() -> Result<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Timestamp(i64::try_from(now.as_micros())?))
}

fn after(now: Timestamp, lifetime: Duration) -> Timestamp {
    Timestamp(now.as_us() + lifetime.as_micros() as i64)
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    fs::write(dir.join(name), bytes).with_context(|| format!("writing {name}"))
}
