//! The vendor's metadata on control's own disk: what must not go back when control starts again.

use disk::SharedDisk;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trust::tuf::{Files, Refused, Role, Taken, Trusted};

/// Roots that are kept: one a month for 80 years. A vendor that has more is refused at the next start, and said so.
const ROOTS_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("cannot read what is kept of the vendor's repository in `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot keep the vendor's metadata at `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("no root of the vendor is trusted yet: give control the first one (`--image-root`)")]
    NoRoot,
    #[error("the vendor's root in `{}` cannot be used", path.display())]
    Root { path: PathBuf, source: Refused },
    #[error("the root that was given cannot be used")]
    Given(#[source] Refused),
    #[error(
        "the root that was given is version {given} and not the one that is kept in `{}`, which has {first} to {last}: another \
         vendor's repository needs a directory of its own", path.display()
    )]
    OtherRoot { path: PathBuf, given: u64, first: u64, last: u64 },
    #[error("`{}` has roots {first} to {last} with gaps or more than {ROOTS_MAX}, expected one after the other", path.display())]
    Gaps { path: PathBuf, first: u64, last: u64 },
}

/// The directory in which it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    disk: SharedDisk,
    dir: PathBuf,
}

impl Kept {
    /// What is trusted: what is kept, or the first root, which is kept from now on.
    pub fn open(
        disk: SharedDisk,
        dir: &Path,
        first_root: Option<&[u8]>,
    ) -> Result<(Self, Trusted), KeptError> {
        let write = |source| KeptError::Write { path: dir.to_owned(), source };
        disk.create_dir_all(dir).map_err(write)?;
        // Whoever wrote the newest of it may have been killed before its name was durable.
        disk.sync_dir(dir).map_err(write)?;
        let kept = Self { disk, dir: dir.to_owned() };
        let given = first_root.map(|root| Trusted::from_root(root, None).map_err(KeptError::Given));
        let given = given.transpose()?.map(|root| root.root().version).zip(first_root);
        let versions = kept.versions()?;
        let (Some(first), Some(last)) = (versions.first(), versions.last()) else {
            let (version, root) = given.ok_or(KeptError::NoRoot)?;
            kept.write(&Role::Root.versioned_file(version), root)?;
            return kept.trusted(version);
        };
        let path = dir.to_owned();
        let (first, last) = (*first, *last);
        if last - first != versions.len() as u64 - 1 || versions.len() > ROOTS_MAX {
            return Err(KeptError::Gaps { path, first, last });
        }
        if let Some((version, root)) = given {
            let same = (first..=last).contains(&version)
                && kept.read(&Role::Root.versioned_file(version), Role::Root)? == root;
            if !same {
                return Err(KeptError::OtherRoot { path, given: version, first, last });
            }
        }
        kept.trusted(last)
    }

    fn trusted(self, root: u64) -> Result<(Self, Trusted), KeptError> {
        let name = Role::Root.versioned_file(root);
        let other = |role: Role| -> Result<Option<Vec<u8>>, KeptError> {
            let path = self.dir.join(role.file());
            let read = |source| KeptError::Read { path: path.clone(), source };
            if !self.disk.exists(&path).map_err(read)? {
                return Ok(None);
            }
            self.read(role.file(), role).map(Some)
        };
        let files = Files {
            root: self.read(&name, Role::Root)?,
            timestamp: other(Role::Timestamp)?,
            snapshot: other(Role::Snapshot)?,
            targets: other(Role::Targets)?,
        };
        let (trusted, dropped) = Trusted::import(&files, None)
            .map_err(|source| KeptError::Root { path: self.dir.join(name), source })?;
        for dropped in dropped {
            tracing::warn!(role = %dropped.role, why = %dropped.why, "a kept file of the vendor is not trusted any more");
            self.remove(dropped.role)?;
        }
        Ok((self, trusted))
    }

    /// Returns once what changed is durable.
    pub fn store(&self, trusted: &Trusted, taken: &Taken) -> Result<(), KeptError> {
        if let Some(role) = taken.store {
            let name = match role {
                Role::Root => role.versioned_file(trusted.root().version),
                _ => role.file().to_owned(),
            };
            self.write(&name, trusted.bytes(role).expect("it was taken just now"))?;
        }
        taken.remove.iter().try_for_each(|dropped| self.remove(dropped.role))
    }

    /// All roots by their names.
    pub fn roots(&self) -> Result<BTreeMap<String, Arc<[u8]>>, KeptError> {
        let root = |version| {
            let name = Role::Root.versioned_file(version);
            let bytes = self.read(&name, Role::Root)?;
            Ok((name, bytes.into()))
        };
        self.versions()?.into_iter().map(root).collect()
    }

    fn versions(&self) -> Result<Vec<u64>, KeptError> {
        let read = |source| KeptError::Read { path: self.dir.clone(), source };
        let names = self.disk.list(&self.dir).map_err(read)?;
        let version = |name: &String| -> Option<u64> {
            name.strip_suffix(Role::Root.file())?.strip_suffix('.')?.parse().ok()
        };
        let mut versions: Vec<u64> = names.iter().filter_map(version).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    fn read(&self, name: &str, role: Role) -> Result<Vec<u8>, KeptError> {
        let path = self.dir.join(name);
        let bytes = self.disk.read(&path, role.bytes_max() as u64);
        bytes.map_err(|source| KeptError::Read { path, source })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), KeptError> {
        let path = self.dir.join(name);
        disk::replace(self.disk.as_ref(), &path, bytes)
            .map_err(|source| KeptError::Write { path, source })
    }

    fn remove(&self, role: Role) -> Result<(), KeptError> {
        let path = self.dir.join(role.file());
        let gone = self.disk.remove(&path).and_then(|()| self.disk.sync_dir(&self.dir));
        match gone {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            gone => gone.map_err(|source| KeptError::Write { path, source }),
        }
    }
}
