//! What the vendor has published, as control has verified it: read again and again, kept durably, never signed here.
//!
//! ```text
//! a vendor's repository/  metadata/  N.root.json  timestamp.json  N.snapshot.json  N.targets.json
//!                         targets/   PRODUCT/RELEASE/SHA256.HARDWARE.bin
//! kept by control         N.root.json                                     every root from the first trusted one on
//!                         timestamp.json  snapshot.json  targets.json     the newest that was taken of each
//! ```
//!
//! Control is a TUF client like any device (`trust::tuf`), from a first root that the operator gave it. It passes on only
//! files that it has taken itself, so a gateway is never shown what control would refuse.
//!
//! Promises: what is published here was signed by a threshold of the vendor's keys, belongs together, and never went back
//! (INV-FRESH-1): each file is durable before the next one is asked for. A cycle that fails changes nothing of what was
//! published before; it says why it failed. An image is passed on only if its bytes are those that the vendor named.
//! Never: holds a key of the vendor's, writes to the repository, fetches an image that nobody asked for.

mod image;
mod kept;

pub use image::{Image, NoImage};
pub use kept::KeptError;

use api::release::{Release, Releases as Shown};
use arc_swap::ArcSwap;
use disk::SharedDisk;
use kept::Kept;
use model::{Digest, HardwareId, ProductId, RolloutId, SecurityVersion, Timestamp, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;
use trust::tuf::{Current, Custom, Fetch, Order, Refused, Role, Target, Trusted, Update};

/// Snapshots and targets that were replaced are passed on for so many publications more: a device in the middle of a
/// cycle asks for what its timestamp named.
const PAST_MAX: usize = 8;

/// Where a vendor's repository is read from.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// A metadata file. `None`: there is no such file. One that is longer is an error.
    fn metadata(&self, name: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>>;

    /// An image, by its name in the repository.
    fn image(&self, name: &str) -> io::Result<std::fs::File>;
}

/// A vendor's `repository/`, as a directory on this machine.
#[derive(Debug)]
pub struct Directory {
    disk: SharedDisk,
    dir: PathBuf,
}

impl Directory {
    pub fn new(disk: SharedDisk, dir: PathBuf) -> Self {
        Self { disk, dir }
    }
}

impl Source for Directory {
    fn metadata(&self, name: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        match opened(&self.dir.join("metadata").join(name)) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
                if bytes.len() > bytes_max {
                    let what = format!("`{name}` is longer than {bytes_max} bytes");
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
                }
                Ok(Some(bytes))
            }
            // A directory that is not there at all is no repository without a newer root: the vendor's disk may be away.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.disk.list(&self.dir.join("metadata")).map(|_| None)
            }
            Err(e) => Err(e),
        }
    }

    fn image(&self, name: &str) -> io::Result<std::fs::File> {
        // The vendor signed the name, and may still not choose among the other files of this machine.
        let name = Path::new(name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            let what = format!("`{}` leads out of the repository", name.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        opened(&self.dir.join("targets").join(name))
    }
}

/// A file, and nothing else: whoever may write to the repository could lay a pipe there, and opening one has no end. It is
/// asked again once it is open, since he could also be quick.
fn opened(path: &Path) -> io::Result<std::fs::File> {
    let expect_file = |found: std::fs::Metadata| match found.is_file() {
        true => Ok(()),
        false => {
            let what = format!("expected a file at `{}`, found something else", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    };
    expect_file(std::fs::metadata(path)?)?;
    let at_once = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = std::fs::File::options().read(true).custom_flags(at_once).open(path)?;
    expect_file(file.metadata()?)?;
    Ok(file)
}

/// What is published: one state of the repository whose four files belong together. It does not change; the next one is
/// another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Those that say in our words what they are, with a SHA-256; in order of paths.
    targets: Vec<Target>,
    consistent_snapshot: bool,
    versions: model::manifest::Trusted,
    ends: Timestamp,
}

impl Published {
    pub fn of(current: &Current<'_>) -> Self {
        let is_release = |target: &&Target| {
            matches!(target.custom, Custom::Order(_))
                && target.hashes.sha256.is_some()
                && target.length <= api::update::IMAGE_BYTES_MAX
        };
        Self {
            targets: current.targets().iter().filter(is_release).cloned().collect(),
            consistent_snapshot: current.consistent_snapshot(),
            versions: current.versions(),
            ends: current.ends(),
        }
    }

    /// The image of a release for one kind of hardware.
    pub fn find(
        &self,
        product: &ProductId,
        version: Version,
        hardware: &HardwareId,
    ) -> Option<&Target> {
        self.images(product, version).find(|target| release(target).hardware.contains(hardware))
    }

    /// All images of a release, one for each kind of hardware or for several.
    pub fn images<'a, 'p>(
        &'a self,
        product: &'p ProductId,
        version: Version,
    ) -> impl Iterator<Item = &'a Target> + use<'a, 'p> {
        self.targets.iter().filter(move |target| {
            let release = release(target);
            release.product == *product && release.version == version
        })
    }

    /// The image of a product with this SHA-256.
    pub fn by_digest(&self, product: &ProductId, digest: Digest) -> Option<&Target> {
        let is_it = |target: &&Target| {
            target.hashes.sha256 == Some(digest) && release(target).product == *product
        };
        self.targets.iter().find(is_it)
    }

    /// An image with this SHA-256, whatever it is of.
    pub fn image(&self, digest: Digest) -> Option<&Target> {
        self.targets.iter().find(|target| target.hashes.sha256 == Some(digest))
    }

    /// What a device is ordered by: the vendor's own words, and the rollout's.
    pub fn order(
        &self,
        product: &ProductId,
        digest: Digest,
        rollout: Option<RolloutId>,
        raise: Option<SecurityVersion>,
    ) -> Option<Target> {
        let target = self.by_digest(product, digest)?;
        let custom = Custom::Order(Order { release: release(target).clone(), rollout, raise });
        Some(Target { custom, ..target.clone() })
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub fn versions(&self) -> model::manifest::Trusted {
        self.versions
    }

    /// When the first of the four files ends. After that nothing new is ordered: no device would begin it.
    pub fn ends(&self) -> Timestamp {
        self.ends
    }

    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.ends <= now
    }
}

/// What a published target says of itself.
pub fn release(target: &Target) -> &model::Release {
    let Custom::Order(order) = &target.custom else {
        unreachable!("what is published says in our words what it is");
    };
    &order.release
}

/// Why a cycle did not come to its end. What was published before stays.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    #[error("no repository: control was started without one (`--images`)")]
    NoRepository,
    #[error("cannot read {name} of the vendor's repository")]
    Read { name: String, source: io::Error },
    #[error("{name} of the vendor's repository is refused")]
    Refused { name: String, source: Refused },
    #[error(transparent)]
    Keep(#[from] KeptError),
    #[error("a reading of the vendor's repository was given up before its end")]
    GivenUp,
}

impl RefreshError {
    /// The label of its counter.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoRepository => "no_repository",
            Self::Read { .. } => "unreadable",
            Self::Refused { source, .. } => source.label(),
            Self::Keep(_) => "not_kept",
            Self::GivenUp => "given_up",
        }
    }

    pub const LABELS: [&str; 4] = ["no_repository", "unreadable", "not_kept", "given_up"];
}

/// What is known at one moment, for everybody who asks.
#[derive(Clone, Debug, Default)]
struct View {
    published: Option<Arc<Published>>,
    /// Metadata files by name, as they came.
    files: BTreeMap<String, Arc<[u8]>>,
    /// Names of snapshots and targets that were replaced, oldest first.
    past: Vec<String>,
    /// Why the newest cycle failed.
    failed: Option<String>,
}

/// The vendor's releases. Clones are handles to the same ones.
#[derive(Clone, Debug)]
pub struct Releases(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    repository: Option<Repository>,
    view: ArcSwap<View>,
    images: image::Images,
    /// Paths and digests of the images that are on record as seen.
    seen: std::sync::Mutex<BTreeSet<(String, Option<Digest>)>>,
}

#[derive(Debug)]
struct Repository {
    source: Arc<dyn Source>,
    kept: Kept,
    /// Who holds it reads the repository; the next one waits.
    trusted: Arc<Mutex<Trusted>>,
}

impl Releases {
    /// Without a repository: nothing is published.
    pub fn none() -> Self {
        let failed = Some(RefreshError::NoRepository.to_string());
        let view = ArcSwap::from_pointee(View { failed, ..View::default() });
        Self(Arc::new(Inner {
            repository: None,
            view,
            images: image::Images::default(),
            seen: Default::default(),
        }))
    }

    /// Goes on from what is kept in `dir`, or begins with `first_root`. Reads nothing of the repository yet: a control plane
    /// starts while its vendor is away.
    pub fn open(
        disk: SharedDisk,
        dir: &Path,
        first_root: Option<&[u8]>,
        source: Arc<dyn Source>,
        now: Timestamp,
    ) -> Result<Self, KeptError> {
        let (kept, trusted) = Kept::open(disk, dir, first_root)?;
        let mut view = View { failed: Some("it was not read yet".into()), ..View::default() };
        view.files = kept.roots()?;
        // What was published before this start, if it was whole and lasts.
        if let Ok(current) = trusted.current(now) {
            view.publish(&trusted, Published::of(&current));
            view.failed = None;
        }
        let trusted = Arc::new(Mutex::new(trusted));
        let repository = Some(Repository { source, kept, trusted });
        let view = ArcSwap::from_pointee(view);
        Ok(Self(Arc::new(Inner {
            repository,
            view,
            images: image::Images::default(),
            seen: Default::default(),
        })))
    }

    pub fn has_repository(&self) -> bool {
        self.0.repository.is_some()
    }

    /// The newest that is published, also if it has ended meanwhile: see [`Published::has_ended`].
    pub fn published(&self) -> Option<Arc<Published>> {
        self.0.view.load().published.clone()
    }

    /// A metadata file as it came: all roots, and the files of the newest state that belongs together.
    pub fn file(&self, name: &str) -> Option<Arc<[u8]>> {
        self.0.view.load().files.get(name).cloned()
    }

    /// Reads the repository once, from what is trusted on. Says what is published then, and runs to its end also if nobody
    /// waits for it.
    pub async fn refresh(&self, now: Timestamp) -> Result<Arc<Published>, RefreshError> {
        let repository = self.0.repository.as_ref().ok_or(RefreshError::NoRepository)?;
        let mut trusted = repository.trusted.clone().lock_owned().await;
        let inner = self.0.clone();
        let work = move || {
            let repository = inner.repository.as_ref().expect("it was looked at above");
            let result = repository.cycle(&mut trusted, now);
            let mut view = View::clone(&inner.view.load());
            let outcome = result.and_then(|()| {
                let current = trusted.current(now);
                let name = Role::Targets.file().to_owned();
                current
                    .map(|current| Published::of(&current))
                    .map_err(|source| RefreshError::Refused { name, source })
            });
            let outcome = match outcome {
                Ok(published) => {
                    view.failed = None;
                    Ok(view.publish(&trusted, published))
                }
                Err(error) => {
                    view.failed = Some(model::told(&error));
                    Err(error)
                }
            };
            // A root counts as soon as it was taken: with it whoever has lost a key is known to have.
            let root = trusted.bytes(Role::Root).expect("there is no trust without a root");
            view.keep(Role::Root.versioned_file(trusted.root().version), root);
            inner.view.store(Arc::new(view));
            drop(trusted);
            outcome
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(RefreshError::GivenUp))
    }

    /// What is published and was not yet noted as seen, since this start.
    pub fn unseen(&self) -> Vec<Target> {
        let seen = self.0.seen.lock().expect("nothing panics while it holds the set");
        let published = self.published();
        let targets = published.iter().flat_map(|published| published.targets());
        targets.filter(|target| !seen.contains(&named(target))).cloned().collect()
    }

    pub fn note_seen(&self, targets: &[Target]) {
        let mut seen = self.0.seen.lock().expect("nothing panics while it holds the set");
        seen.extend(targets.iter().map(named));
        // What is published no more takes no room here; on record it stays.
        if let Some(published) = self.published() {
            let here: BTreeSet<_> = published.targets().iter().map(named).collect();
            seen.retain(|name| here.contains(name));
        }
    }

    /// Why the newest cycle failed, if it did.
    pub fn failed(&self) -> Option<String> {
        self.0.view.load().failed.clone()
    }

    /// The page of `GET /v1/releases`.
    pub fn shown(&self) -> Shown {
        let view = self.0.view.load();
        let published = view.published.as_deref();
        let versions = published.map(Published::versions).unwrap_or_default();
        let mut releases: Vec<Release> =
            published.into_iter().flat_map(Published::targets).map(shown).collect();
        releases.sort_by(|a, b| {
            let version = |r: &Release| r.version.parse::<Version>().ok();
            (&a.product, version(a), &a.path).cmp(&(&b.product, version(b), &b.path))
        });
        let until_us = published.map_or(0, |published| published.ends.as_us());
        Shown {
            releases,
            root: versions.root,
            timestamp: versions.timestamp,
            snapshot: versions.snapshot,
            targets: versions.targets,
            until_ms: u64::try_from(until_us / 1000).unwrap_or(0),
            failed: view.failed.clone(),
        }
    }
}

impl Repository {
    /// One cycle of a client (TUF §5). What was taken stays taken, also when the cycle fails after it.
    fn cycle(&self, trusted: &mut Trusted, now: Timestamp) -> Result<(), RefreshError> {
        let mut update = Update::begin(trusted.clone(), now);
        while let Some(fetch) = update.next() {
            self.step(&mut update, &fetch)?;
            // Only what is durable is trusted by the next cycle too.
            trusted.clone_from(update.trusted());
        }
        Ok(())
    }

    fn step(&self, update: &mut Update, fetch: &Fetch) -> Result<(), RefreshError> {
        let name = || fetch.name.clone();
        let found = self.source.metadata(&fetch.name, fetch.bytes_max);
        let taken = match found.map_err(|source| RefreshError::Read { name: name(), source })? {
            Some(bytes) => update.take(&bytes),
            None => update.absent(),
        };
        let taken = taken.map_err(|source| RefreshError::Refused { name: name(), source })?;
        if taken.fork {
            tracing::error!(file = %fetch.name, "the vendor signed two files of one version");
        }
        for dropped in &taken.remove {
            tracing::warn!(role = %dropped.role, why = %dropped.why, "a newer root takes back what was trusted");
        }
        Ok(self.kept.store(update.trusted(), &taken)?)
    }
}

impl View {
    fn publish(&mut self, trusted: &Trusted, published: Published) -> Arc<Published> {
        if let Some(same) = self.published.as_ref().filter(|known| ***known == published) {
            return same.clone();
        }
        let versions = published.versions();
        let names = [
            (Role::Timestamp, Role::Timestamp.file().to_owned()),
            (Role::Snapshot, Role::Snapshot.versioned_file(versions.snapshot)),
            (Role::Targets, Role::Targets.versioned_file(versions.targets)),
        ];
        for (role, name) in names {
            let bytes = trusted.bytes(role).expect("what is current is whole");
            if self.keep(name.clone(), bytes) && role != Role::Timestamp {
                self.past.push(name);
            }
        }
        while self.past.len() > PAST_MAX {
            self.files.remove(&self.past.remove(0));
        }
        let published = Arc::new(published);
        self.published = Some(published.clone());
        published
    }

    /// Says whether the name is new.
    fn keep(&mut self, name: String, bytes: &[u8]) -> bool {
        if self.files.get(&name).is_some_and(|known| **known == *bytes) {
            return false;
        }
        self.files.insert(name, bytes.into()).is_none()
    }
}

fn named(target: &Target) -> (String, Option<Digest>) {
    (target.path.clone(), target.hashes.sha256)
}

fn shown(target: &Target) -> Release {
    let release = release(target);
    let words = |words: &[Version]| words.iter().map(Version::to_string).collect();
    Release {
        product: release.product.to_string(),
        version: release.version.to_string(),
        security_version: release.security_version.0,
        hardware: release.hardware.iter().map(HardwareId::to_string).collect(),
        must_pass: words(&release.must_pass),
        path: target.path.clone(),
        sha256: target.hashes.sha256.map(|digest| digest.to_string()).unwrap_or_default(),
        length: target.length,
    }
}
