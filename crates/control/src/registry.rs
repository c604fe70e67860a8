//! The fleet on disk: one SQLite file with one writer, and the [`Directory`] that is always what it holds.
//!
//! ```text
//! schema_version  version                                            a newer one is refused (INV-MIX-1)
//! site            name, generation, policies_sha256                  one row; generation is the site's one counter
//! directory       generation                                         one row: the site's when devices, keys or policies last changed
//! ownership       serial → device, role, zone, listed_at             who may enrol
//! devices         id → serial, role, zone, standing, listed_at, enrolled_at, changed_at
//! device_groups   device → name, since                               of those that were given another than the default one
//! keys            spki_sha256 → id, device, purpose, spki, certificate, not_after, created_at, retired_at
//! seen, gateways, firmware, refusals                                 what is known of devices beside: `inventory::table`
//! users, tokens, sessions, …                                         who may sign in, and where each may do what: `people::table`
//! two_people, approvals                                              what needs two people, and waits for the second: `approvals::table`
//! events, log                                                        what was done, and how far the evidence log has it: `step`
//! ```
//!
//! Every change is one transaction ([`Registry::step`]) with its events, durable (`synchronous=FULL`) before anybody sees
//! it; one of the directory also raises the generation. Times are microseconds since 1970. A second process that opens the
//! file is refused, for as long as the first one lives: its directory would not see the other's changes.

mod events;
mod step;

use crate::approvals::{NeedsTwo, table as approvals};
use crate::directory::{Device, Directory, Key, NotDrawn, default_group, moves};
use crate::inventory::table as inventory;
use crate::ledger::NotCovered;
use crate::people::{People, table as people};
use crate::principal::{Actor, SITE_TOKEN};
use crate::rollouts::signals;
use crate::rollouts::table as rollouts;
use crate::station::now;
use crate::{alerts, director, idempotency, images};
use api::approval::Widening;
use api::{Ownership, Purpose, Role, Standing};
use disk::{Disk, RealDisk};
use evidence::EventError;
use evidence::event::Said;
use futures::TryStreamExt as _;
use model::id::BadName;
use model::{DeviceId, Digest, GroupId, KeyId, Timestamp, ZoneId};
use serde_json::json;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use trust::cose::PublicKey;

use step::Numbers;
pub use step::{Done, Step, Work, said};

/// What this build writes, and the newest that it reads.
const SCHEMA_VERSION: i64 = 2;

/// Refusals in the schema stand behind those in code: what gets here past the code is a broken invariant, counted as one.
const SCHEMA: &str = "
CREATE TABLE schema_version (version INTEGER NOT NULL) STRICT;
INSERT INTO schema_version VALUES (2);

CREATE TABLE site (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    policies_sha256 TEXT NOT NULL
) STRICT;
CREATE TRIGGER generation_grows BEFORE UPDATE OF generation ON site
WHEN NEW.generation <= OLD.generation
BEGIN SELECT RAISE(ABORT, 'INV-FRESH-1: the generation grows'); END;

CREATE TABLE ownership (
    serial TEXT PRIMARY KEY,
    device TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('device', 'gateway')),
    zone TEXT NOT NULL,
    listed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE devices (
    id TEXT PRIMARY KEY REFERENCES ownership (device),
    serial TEXT NOT NULL UNIQUE REFERENCES ownership (serial),
    role TEXT NOT NULL CHECK (role IN ('device', 'gateway')),
    zone TEXT NOT NULL,
    standing TEXT NOT NULL CHECK (standing IN
        ('listed', 'enrolled', 'quarantined', 'revoked', 'decommissioned')),
    listed_at INTEGER NOT NULL,
    enrolled_at INTEGER,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER standing_moves_along_edges BEFORE UPDATE OF standing ON devices
WHEN NEW.standing <> OLD.standing AND (OLD.standing || '>' || NEW.standing) NOT IN
    ('listed>enrolled', 'enrolled>quarantined', 'quarantined>enrolled', 'enrolled>revoked', 'quarantined>revoked',
    'listed>decommissioned', 'enrolled>decommissioned', 'quarantined>decommissioned')
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: standing moves along drawn edges'); END;

CREATE TABLE keys (
    spki_sha256 TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    device TEXT NOT NULL REFERENCES devices (id),
    purpose TEXT NOT NULL CHECK (purpose IN ('tls', 'seal')),
    spki BLOB NOT NULL,
    certificate BLOB NOT NULL,
    not_after INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    retired_at INTEGER,
    ended_at INTEGER
) STRICT;
CREATE TRIGGER a_key_keeps_its_purpose BEFORE UPDATE ON keys
WHEN NEW.purpose <> OLD.purpose OR NEW.device <> OLD.device OR NEW.spki <> OLD.spki
BEGIN SELECT RAISE(ABORT, 'INV-PURP-1: a key keeps its purpose and its device'); END;
CREATE TRIGGER a_retired_key_stays_retired BEFORE UPDATE OF retired_at ON keys
WHEN OLD.retired_at IS NOT NULL AND NEW.retired_at IS NOT OLD.retired_at
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: a retired key stays retired'); END;
CREATE TRIGGER an_ended_key_stays_ended BEFORE UPDATE OF ended_at ON keys
WHEN OLD.ended_at IS NOT NULL AND NEW.ended_at IS NOT OLD.ended_at
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: a key that was taken away stays so'); END;
";

/// From version 1 to 2: a device may be decommissioned, and its keys taken away. What a column may hold cannot be changed in
/// SQLite: the table is made anew (https://www.sqlite.org/lang_altertable.html#otheralter), with what the schema added to it
/// since laid down again afterwards.
const TO_VERSION_2: &str = "
DROP TRIGGER IF EXISTS a_revoked_device_gets_no_certificate;
CREATE TABLE devices_2 (
    id TEXT PRIMARY KEY REFERENCES ownership (device),
    serial TEXT NOT NULL UNIQUE REFERENCES ownership (serial),
    role TEXT NOT NULL CHECK (role IN ('device', 'gateway')),
    zone TEXT NOT NULL,
    standing TEXT NOT NULL CHECK (standing IN
        ('listed', 'enrolled', 'quarantined', 'revoked', 'decommissioned')),
    listed_at INTEGER NOT NULL,
    enrolled_at INTEGER,
    changed_at INTEGER NOT NULL
) STRICT;
INSERT INTO devices_2 SELECT * FROM devices;
DROP TABLE devices;
ALTER TABLE devices_2 RENAME TO devices;
CREATE TRIGGER standing_moves_along_edges BEFORE UPDATE OF standing ON devices
WHEN NEW.standing <> OLD.standing AND (OLD.standing || '>' || NEW.standing) NOT IN
    ('listed>enrolled', 'enrolled>quarantined', 'quarantined>enrolled', 'enrolled>revoked', 'quarantined>revoked',
    'listed>decommissioned', 'enrolled>decommissioned', 'quarantined>decommissioned')
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: standing moves along drawn edges'); END;
ALTER TABLE keys ADD COLUMN ended_at INTEGER;
CREATE TRIGGER an_ended_key_stays_ended BEFORE UPDATE OF ended_at ON keys
WHEN OLD.ended_at IS NOT NULL AND NEW.ended_at IS NOT OLD.ended_at
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: a key that was taken away stays so'); END;
UPDATE schema_version SET version = 2;
";

/// What version 1 was given after files of it had been written: laid down at each opening, and no matter to a build that
/// does not know it. That is why triggers keep the directory's generation: such a build raises the site's alone, and they
/// follow it.
const SCHEMA_ADDED: &str = "
CREATE TRIGGER IF NOT EXISTS a_revoked_device_gets_no_certificate BEFORE INSERT ON keys
WHEN (SELECT standing FROM devices WHERE id = NEW.device) IN ('revoked', 'decommissioned')
BEGIN SELECT RAISE(ABORT, 'INV-AUTH-1: a revoked device gets no certificate'); END;

CREATE TABLE IF NOT EXISTS device_groups (
    device TEXT PRIMARY KEY REFERENCES devices (id),
    name TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS directory (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    generation INTEGER NOT NULL
) STRICT;
INSERT INTO directory SELECT 1, generation FROM site WHERE true ON CONFLICT DO NOTHING;
CREATE TRIGGER IF NOT EXISTS the_directory_grows BEFORE UPDATE ON directory
WHEN NEW.generation < OLD.generation
BEGIN SELECT RAISE(ABORT, 'INV-FRESH-1: the directory grows'); END;
CREATE TRIGGER IF NOT EXISTS a_new_device_changes_the_directory AFTER INSERT ON devices
BEGIN UPDATE directory SET generation = (SELECT generation FROM site); END;
CREATE TRIGGER IF NOT EXISTS a_device_changes_the_directory AFTER UPDATE ON devices
BEGIN UPDATE directory SET generation = (SELECT generation FROM site); END;
CREATE TRIGGER IF NOT EXISTS a_new_key_changes_the_directory AFTER INSERT ON keys
BEGIN UPDATE directory SET generation = (SELECT generation FROM site); END;
CREATE TRIGGER IF NOT EXISTS a_key_changes_the_directory AFTER UPDATE ON keys
BEGIN UPDATE directory SET generation = (SELECT generation FROM site); END;
CREATE TRIGGER IF NOT EXISTS policies_change_the_directory AFTER UPDATE OF policies_sha256 ON site
BEGIN UPDATE directory SET generation = NEW.generation; END;
";

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot make the directory of registry `{}`", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("cannot open registry `{}`", path.display())]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("registry `{}` has schema version {found}, expected {SCHEMA_VERSION}: another release wrote it", path.display())]
    OtherSchema { path: PathBuf, found: i64 },
    #[error("registry `{}` is of site `{found}`, expected `{expected}`", path.display())]
    OtherSite { path: PathBuf, expected: String, found: String },
    #[error("registry holds what it cannot mean: {0}")]
    Unreadable(String),
    #[error("cannot read the registry")]
    Read(#[source] sqlx::Error),
    #[error("cannot write the registry")]
    Write(#[source] sqlx::Error),
    #[error("cannot tell of a change as an event")]
    Event(#[source] EventError),
    #[error("the generation would be {found}, expected at most 2^53 - 1")]
    GenerationTooHigh { found: u64 },
    #[error("a change of the registry was given up before its end")]
    GivenUp,
    #[error("the registry is closed")]
    Closed,
}

/// Why an entry of the ownership list or a change of standing is refused.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    BadName(#[from] BadName),
    #[error(
        "device id `{id}` fits no certificate: expected labels of a DNS name, of a-z 0-9 -, with dots between them"
    )]
    NotCertifiable { id: DeviceId },
    #[error("serial {serial:?} is listed as a {found}, expected a {expected}")]
    ListedOtherwise { serial: String, expected: String, found: String },
    #[error("device id `{id}` is that of serial {found:?}, expected {expected:?}")]
    IdTaken { id: DeviceId, expected: String, found: String },
    #[error("serial {serial:?} is listed otherwise already")]
    Elsewhere { serial: String },
    #[error("no device `{0}`: expected the id of one that is listed")]
    Unknown(DeviceId),
    #[error(transparent)]
    NotDrawn(#[from] NotDrawn),
    #[error(transparent)]
    NotCovered(#[from] NotCovered),
    #[error(transparent)]
    NeedsTwo(#[from] NeedsTwo),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A certificate that was decided on and issued, to be stored with its key.
#[derive(Clone, Debug)]
pub struct Issued {
    pub device: DeviceId,
    pub key: Key,
    pub certificate: Vec<u8>,
}

/// How a device is after a change, and the generation at which it became so.
#[derive(Clone, Debug)]
pub struct Changed {
    pub generation: u64,
    pub device: Arc<Device>,
    /// How many events tell of it and of all before: see [`Done::events`].
    pub events: u64,
}

/// The registry. Clones are handles to the same one.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// `None` once it was closed.
    writer: Mutex<Option<SqliteConnection>>,
    /// The new numbers are seen before the new directory is.
    numbers: watch::Sender<Numbers>,
    /// How many events there are, for who writes them to the log.
    events: watch::Sender<u64>,
    directory: watch::Sender<Arc<Directory>>,
    people: watch::Sender<Arc<People>>,
    /// After a write failed and the file could not be read back either, nothing is known and nothing more is answered.
    failed: watch::Sender<bool>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry(generation {})", self.directory().generation())
    }
}

/// What a change would do.
enum Plan {
    /// It is so already.
    Keep(Arc<Device>),
    Write(Box<Device>, Said),
    /// Nothing is done, and that it was asked for is told.
    Refuse(NotDrawn, Said),
}

impl Plan {
    async fn carry_out(
        self,
        step: &mut Step<'_>,
    ) -> Result<Result<Changed, NotDrawn>, ChangeError> {
        match self {
            Self::Keep(device) => {
                let generation = step.directory().generation();
                Ok(Ok(Changed { generation, device, events: step.numbers.events }))
            }
            Self::Write(next, said) => {
                let before = step.directory().device(&next.id).map(|device| device.standing);
                if before == Some(Standing::Quarantined) && next.standing == Standing::Enrolled {
                    step.expect_two(Widening::QuarantineRelease)?;
                }
                step.say(said).await?;
                Ok(Ok(step.put(*next, None).await?))
            }
            Self::Refuse(not_drawn, said) => {
                step.say(said).await?;
                Ok(Err(not_drawn))
            }
        }
    }
}

/// How a standing moves, or why not.
fn standing(
    directory: &Directory,
    id: &DeviceId,
    to: Standing,
    actor: &Actor,
    now: Timestamp,
) -> Result<Plan, ChangeError> {
    let known = directory.device(id).ok_or_else(|| ChangeError::Unknown(id.clone()))?;
    // Only a certificate makes a listed device an enrolled one: an operator can release, not enrol.
    if known.standing == Standing::Listed && to == Standing::Enrolled {
        let expected = "quarantined";
        return Ok(refused(known, NotDrawn { from: known.standing, to, expected }, actor, now));
    }
    match moves(known.standing, to) {
        Err(not_drawn) => return Ok(refused(known, not_drawn, actor, now)),
        Ok(false) => return Ok(Plan::Keep(known.clone())),
        Ok(true) => {}
    }
    let action = match to {
        Standing::Revoked => "device.revoke",
        Standing::Decommissioned => "device.decommission",
        Standing::Quarantined => "device.quarantine",
        Standing::Enrolled | Standing::Listed => "device.release",
    };
    let detail = json!({ "from": known.standing.as_str() });
    let mut next = Device::clone(known);
    next.standing = to;
    next.changed_at = now;
    let said = of_device(now, actor, action, &next.id, detail);
    Ok(Plan::Write(Box::new(next), said))
}

/// Lets a device back, in the step of who may.
pub(crate) async fn release(
    step: &mut Step<'_>,
    id: &DeviceId,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), ChangeError> {
    let plan = standing(step.directory(), id, Standing::Enrolled, actor, now)?;
    plan.carry_out(step).await??;
    Ok(())
}

impl Registry {
    /// Opens the registry of a site, or makes it. `policies` are what bundles will carry: others than last time raise the
    /// generation, so that gateways fetch them.
    pub async fn open(path: &Path, site: &str, policies: &str) -> Result<Self, RegistryError> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let directory = |source| RegistryError::Directory { path: path.to_owned(), source };
        RealDisk.create_dir_all(dir).map_err(directory)?;
        let open = |source| RegistryError::Open { path: path.to_owned(), source };
        let mut writer = connect(path).await.map_err(open)?;
        make_schema(&mut writer, path).await?;
        RealDisk
            .sync_dir(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
            .map_err(directory)?;
        let policies = trust::digest(policies.as_bytes()).to_string();
        take_site(&mut writer, path, site, &policies).await?;
        let registry = Self::of(path, writer, site).await?;
        registry.take_policies(policies).await?;
        Ok(registry)
    }

    /// Opens one that is there, as it is, while its control plane is stopped.
    pub async fn open_for_repair(path: &Path) -> Result<Self, RegistryError> {
        let open = |source| RegistryError::Open { path: path.to_owned(), source };
        if !path.is_file() {
            return Err(open(sqlx::Error::Io(std::io::ErrorKind::NotFound.into())));
        }
        let mut writer = connect(path).await.map_err(open)?;
        make_schema(&mut writer, path).await?;
        let site: String = sqlx::query_scalar("SELECT name FROM site")
            .fetch_one(&mut writer)
            .await
            .map_err(open)?;
        Self::of(path, writer, &site).await
    }

    async fn of(
        path: &Path,
        mut writer: SqliteConnection,
        site: &str,
    ) -> Result<Self, RegistryError> {
        let (now, numbers) = load(&mut writer).await?;
        let people = people::load(&mut writer, site).await?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            writer: Mutex::new(Some(writer)),
            numbers: watch::Sender::new(numbers),
            events: watch::Sender::new(numbers.events),
            directory: watch::Sender::new(Arc::new(now)),
            people: watch::Sender::new(Arc::new(people)),
            failed: watch::Sender::new(false),
        })))
    }

    /// Others than last time are a change like any other.
    async fn take_policies(&self, sha256: String) -> Result<(), RegistryError> {
        let step = self.step(move |step| -> Work<'_, (), RegistryError> {
            Box::pin(async move {
                let known: String = sqlx::query_scalar("SELECT policies_sha256 FROM site")
                    .fetch_one(step.tx())
                    .await
                    .map_err(RegistryError::Read)?;
                if known == sha256 {
                    return Ok(());
                }
                let generation = step.raise_generation().await?;
                sqlx::query("UPDATE site SET policies_sha256 = ?")
                    .bind(&sha256)
                    .execute(step.tx())
                    .await
                    .map_err(RegistryError::Write)?;
                step.directory = Arc::new(step.directory.at(generation));
                let detail = json!({ "from_sha256": known, "to_sha256": sha256 });
                step.say(said(now(), SITE_TOKEN, "policy.change", "site", detail)).await?;
                Ok(())
            })
        });
        step.await.map(|done| done.value)
    }

    /// Where its file is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What it holds now.
    pub fn directory(&self) -> Arc<Directory> {
        self.0.directory.borrow().clone()
    }

    /// Changes with every change.
    pub fn watch(&self) -> watch::Receiver<Arc<Directory>> {
        self.0.directory.subscribe()
    }

    /// Who may sign in, with what, and what each may do where.
    pub fn people(&self) -> Arc<People> {
        self.0.people.borrow().clone()
    }

    /// Changes with every change of people. Whoever holds something open for a principal asks [`People::is_valid`] then.
    pub fn watch_people(&self) -> watch::Receiver<Arc<People>> {
        self.0.people.subscribe()
    }

    /// The site's generation: at least the directory's.
    pub fn generation(&self) -> u64 {
        self.0.numbers.borrow().generation
    }

    /// How many events there are. All that the directory shows is told by them.
    pub fn events(&self) -> u64 {
        self.0.numbers.borrow().events
    }

    /// Changes with every event.
    pub fn watch_events(&self) -> watch::Receiver<u64> {
        self.0.events.subscribe()
    }

    /// Becomes true when the file can neither be written nor read: the process stops.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.0.failed.subscribe()
    }

    /// Waits for the change that is under way and lets the file go, so that the next process need not wait for it. Later
    /// changes are refused; the directory stays as it is.
    pub async fn close(&self) {
        if let Some(writer) = self.0.writer.lock().await.take()
            && let Err(error) = writer.close().await
        {
            // Every change is durable already; what could not be done is the tidying.
            tracing::warn!(%error, "the registry did not close in good order");
        }
    }

    /// Puts a serial number on the ownership list. To list it again as it is changes nothing.
    pub async fn list(
        &self,
        entry: &Ownership,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Changed, ChangeError> {
        let actor = actor.clone();
        let id = keys::cert::device_id(&entry.serial)?;
        if !fits_certificate(&id) {
            return Err(ChangeError::NotCertifiable { id });
        }
        let zone = ZoneId::new(entry.zone.as_str())?;
        let group = entry.group.as_deref().map(GroupId::new).transpose()?;
        let Ownership { serial, role, .. } = entry.clone();
        self.change(move |directory| {
            let Some(known) = directory.device(&id) else {
                let group = group.unwrap_or_else(default_group);
                let detail = json!({
                    "serial": serial, "role": role.as_str(), "zone": zone.as_str(), "group": group.as_str(),
                });
                let said = of_device(now, &actor, "device.list", &id, detail);
                let next = Device {
                    id,
                    serial,
                    role,
                    zone,
                    group,
                    grouped_at: now,
                    standing: Standing::Listed,
                    listed_at: now,
                    enrolled_at: None,
                    changed_at: now,
                    keys: Vec::new(),
                };
                return Ok(Plan::Write(Box::new(next), said));
            };
            if known.serial != serial {
                let found = known.serial.clone();
                return Err(ChangeError::IdTaken { id, expected: serial, found });
            }
            // Who says nothing of the group lists it as it is.
            let group = group.as_ref().unwrap_or(&known.group);
            if (known.role, &known.zone, &known.group) != (role, &zone, group) {
                let shown = |role: Role, zone: &ZoneId, group: &GroupId| {
                    format!("{} in zone {zone}, group {group}", role.as_str())
                };
                let expected = shown(role, &zone, group);
                let found = shown(known.role, &known.zone, &known.group);
                return Err(ChangeError::ListedOtherwise { serial, expected, found });
            }
            Ok(Plan::Keep(known.clone()))
        })
        .await
    }

    /// Moves a device's standing along a drawn edge (INV-STATE-1). To be there already changes nothing. A move that is not
    /// drawn is refused, and that it was asked for is an event.
    pub async fn set_standing(
        &self,
        id: &DeviceId,
        to: Standing,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Changed, ChangeError> {
        let (id, actor) = (id.clone(), actor.clone());
        self.change(move |directory| standing(directory, &id, to, &actor, now)).await
    }

    /// Takes all keys of a device away: it has to enrol anew, by its birth certificate. How it stands does not change, and
    /// what its keys sealed before is believed still. A device without a key that counts is not changed.
    pub async fn take_keys(
        &self,
        id: &DeviceId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Changed, ChangeError> {
        let (id, actor) = (id.clone(), actor.clone());
        self.change(move |directory| {
            let known = directory.device(&id).ok_or_else(|| ChangeError::Unknown(id.clone()))?;
            let keys = known.keys.iter().filter(|key| key.ended_at.is_none()).count();
            if keys == 0 || known.standing.has_ended() {
                return Ok(Plan::Keep(known.clone()));
            }
            let detail = json!({ "keys": keys, "standing": known.standing.as_str() });
            let said = of_device(now, &actor, "device.reenrol", &id, detail);
            Ok(Plan::Write(Box::new(known.without_keys(now)), said))
        })
        .await
    }

    /// Moves a device into a group. To be there already changes nothing. A rollout that has reached it keeps it; one that it
    /// comes to by this reaches it as it does whoever joins later.
    pub async fn set_group(
        &self,
        id: &DeviceId,
        to: GroupId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Changed, ChangeError> {
        let (id, actor) = (id.clone(), actor.clone());
        self.change(move |directory| {
            let known = directory.device(&id).ok_or_else(|| ChangeError::Unknown(id.clone()))?;
            if known.group == to {
                return Ok(Plan::Keep(known.clone()));
            }
            let detail = json!({ "from": known.group.as_str(), "to": to.as_str() });
            let next = Device { group: to, grouped_at: now, ..Device::clone(known) };
            let said = of_device(now, &actor, "device.group", &next.id, detail);
            Ok(Plan::Write(Box::new(next), said))
        })
        .await
    }

    /// Decides on a certificate against the directory as it is, and stores it with its key before it is given out. No
    /// other change comes between the decision and the storing.
    pub async fn enrol<E: Send + 'static>(
        &self,
        now: Timestamp,
        decide: impl FnOnce(&Directory) -> Result<Issued, E> + Send + 'static,
    ) -> Result<Result<(Changed, Issued), E>, RegistryError> {
        let done = self.step(move |step| {
            Box::pin(async move {
                let issued = decide(step.directory()).map_err(Refused::Plan)?;
                let directory = step.directory();
                let known = directory.device(&issued.device).expect("who is not listed is refused");
                let next = known.with_key(issued.key.clone(), now);
                let is_new = !known.keys.iter().any(|k| k.spki_sha256 == issued.key.spki_sha256);
                let detail = json!({
                    "purpose": issued.key.purpose.as_str(), "key": issued.key.shown_id(), "new_key": is_new,
                    "not_after_ms": issued.key.not_after.as_us().div_euclid(1000),
                });
                let actor = format!("{}/{}", next.role.as_str(), next.id);
                step.say(of_device(now, actor, "device.enrol", &next.id, detail)).await?;
                let changed = step.put(next, Some(&issued)).await?;
                Ok((changed, issued))
            })
        });
        match done.await {
            Ok(done) => Ok(Ok(done.value)),
            Err(Refused::Plan(refused)) => Ok(Err(refused)),
            Err(Refused::Registry(error)) => Err(error),
        }
    }

    async fn change(
        &self,
        plan: impl FnOnce(&Directory) -> Result<Plan, ChangeError> + Send + 'static,
    ) -> Result<Changed, ChangeError> {
        let done = self.step(move |step| -> Work<'_, Result<Changed, NotDrawn>, ChangeError> {
            Box::pin(async move {
                let plan = plan(step.directory())?;
                plan.carry_out(step).await
            })
        });
        Ok(done.await?.value?)
    }

    /// Runs one transaction to its end: all that the closure writes is durable when this returns, or nothing of it is, also
    /// if the closure returns an error. No other change comes in between. It has a task of its own: a caller that goes away
    /// between the commit and the new directory would leave the two apart.
    ///
    /// ```ignore
    /// let done = registry.step(move |step| Box::pin(async move {
    ///     let known = sqlx::query("…").fetch_one(step.tx()).await.map_err(RegistryError::Read)?;
    ///     let generation = step.raise_generation().await?;
    ///     sqlx::query("…").execute(step.tx()).await.map_err(RegistryError::Write)?;
    ///     step.say(said(now, &actor, "rollout.halt", format!("rollout/{id}"), json!({}))).await?;
    ///     Ok::<_, MyError>(generation)
    /// })).await?;
    /// ```
    ///
    /// The closure asks nobody outside of the registry: every other change waits for it.
    pub async fn step<T, E>(
        &self,
        work: impl for<'a> FnOnce(&'a mut Step<'_>) -> Work<'a, T, E> + Send + 'static,
    ) -> Result<Done<T>, E>
    where
        T: Send + 'static,
        E: From<RegistryError> + Send + 'static,
    {
        let registry = self.clone();
        let task = tokio::spawn(async move {
            let mut writer = registry.0.writer.lock().await;
            let connection = writer.as_mut().ok_or(RegistryError::Closed)?;
            match registry.transact(connection, work).await {
                Ok(done) => Ok(done),
                Err(Ended::RolledBack(refused)) => Err(refused),
                Err(Ended::Unknown(source)) => {
                    registry.open_again(&mut writer).await?;
                    Err(RegistryError::Write(source).into())
                }
            }
        });
        task.await.unwrap_or_else(|_| Err(RegistryError::GivenUp.into()))
    }

    async fn transact<T, E>(
        &self,
        connection: &mut SqliteConnection,
        work: impl for<'a> FnOnce(&'a mut Step<'_>) -> Work<'a, T, E>,
    ) -> Result<Done<T>, Ended<E>> {
        let tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(Ended::Unknown)?;
        let (before, numbers) = (self.directory(), *self.0.numbers.borrow());
        let people_before = self.people();
        let mut step = Step::new(tx, before.clone(), people_before.clone(), numbers);
        let worked = work(&mut step).await;
        let (tx, directory, people, numbers) = step.into_parts();
        let value = match worked {
            Ok(value) => value,
            Err(refused) => {
                tx.rollback().await.map_err(Ended::Unknown)?;
                return Err(Ended::RolledBack(refused));
            }
        };
        tx.commit().await.map_err(Ended::Unknown)?;
        self.show(numbers);
        if !Arc::ptr_eq(&before, &directory) {
            self.0.directory.send_replace(directory);
        }
        if !Arc::ptr_eq(&people_before, &people) {
            self.0.people.send_replace(people);
        }
        Ok(Done { value, events: numbers.events })
    }

    fn show(&self, numbers: Numbers) {
        self.0.numbers.send_replace(numbers);
        self.0
            .events
            .send_if_modified(|events| std::mem::replace(events, numbers.events) != numbers.events);
    }

    /// Reads, between two changes. What the closure writes is not kept.
    pub async fn read<T, E: From<RegistryError>>(
        &self,
        work: impl for<'a> FnOnce(&'a mut SqliteConnection) -> Work<'a, T, E>,
    ) -> Result<T, E> {
        let mut writer = self.0.writer.lock().await;
        let connection = writer.as_mut().ok_or(RegistryError::Closed)?;
        let mut tx = connection.begin().await.map_err(RegistryError::Read)?;
        let found = work(&mut tx).await;
        tx.rollback().await.map_err(RegistryError::Read)?;
        found
    }

    /// After a transaction that did not end as it should, a new connection finds out what holds. If it cannot, nothing
    /// does, and the process has to stop.
    async fn open_again(&self, writer: &mut Option<SqliteConnection>) -> Result<(), RegistryError> {
        if let Some(old) = writer.take() {
            // The lock on the file goes with it, in good order or not.
            let _ = old.close().await;
        }
        let open = |source| RegistryError::Open { path: self.0.path.clone(), source };
        let found = async {
            let mut connection = connect(&self.0.path).await.map_err(open)?;
            let (directory, numbers) = load(&mut connection).await?;
            let people = people::load(&mut connection, self.people().own_site()).await?;
            Ok((connection, directory, people, numbers))
        };
        match found.await {
            Ok((connection, directory, people, numbers)) => {
                *writer = Some(connection);
                self.show(numbers);
                self.0.directory.send_replace(Arc::new(directory));
                self.0.people.send_replace(Arc::new(people));
                Ok(())
            }
            Err(error) => {
                self.0.failed.send_replace(true);
                Err(error)
            }
        }
    }
}

/// How a transaction ended that was not committed.
enum Ended<E> {
    RolledBack(E),
    /// What the file holds is not known now.
    Unknown(sqlx::Error),
}

/// Why a step of this module ended early.
enum Refused<E> {
    Plan(E),
    Registry(RegistryError),
}

impl<E> From<RegistryError> for Refused<E> {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

fn refused(known: &Device, not_drawn: NotDrawn, actor: &Actor, now: Timestamp) -> Plan {
    let detail = json!({ "from": not_drawn.from.as_str(), "to": not_drawn.to.as_str() });
    Plan::Refuse(not_drawn, of_device(now, actor, "device.refused", &known.id, detail))
}

fn of_device(
    now: Timestamp,
    actor: impl std::fmt::Display,
    action: &str,
    id: &DeviceId,
    detail: serde_json::Value,
) -> Said {
    said(now, actor, action, format!("device/{id}"), detail)
}

impl RegistryError {
    /// The id of the invariant that only the schema's second look held.
    pub fn broken_invariant(&self) -> Option<&'static str> {
        let Self::Write(source) = self else { return None };
        let database = source.as_database_error()?;
        if database.is_unique_violation() || database.message().contains("INV-PURP-1") {
            return Some("INV-PURP-1");
        }
        let ids = ["INV-AUTH-1", "INV-EVID-1", "INV-FRESH-1", "INV-LEAST-1", "INV-STATE-1"];
        ids.into_iter().chain(rollouts::INVARIANTS).find(|id| database.message().contains(id))
    }
}

/// Whether a certificate can name it: as a DNS name, and as a PrintableString, which has no underscore. Better refused
/// when it is listed than when the device stands at the door.
fn fits_certificate(id: &DeviceId) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.contains('_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    id.as_str().split('.').all(label)
}

async fn connect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .locking_mode(SqliteLockingMode::Exclusive)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(2))
        .connect()
        .await
}

async fn make_schema(writer: &mut SqliteConnection, path: &Path) -> Result<(), RegistryError> {
    let open = |source| RegistryError::Open { path: path.to_owned(), source };
    // A table that others refer to is made anew below, which SQLite allows while it does not look. It looks again at the end.
    sqlx::raw_sql("PRAGMA foreign_keys = OFF").execute(&mut *writer).await.map_err(open)?;
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(open)?;
    let made: bool =
        sqlx::query_scalar("SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'schema_version'")
            .fetch_one(&mut *tx)
            .await
            .map_err(open)?;
    if !made {
        sqlx::raw_sql(SCHEMA).execute(&mut *tx).await.map_err(open)?;
    }
    let version = "SELECT max(version) FROM schema_version";
    let mut found: i64 = sqlx::query_scalar(version).fetch_one(&mut *tx).await.map_err(open)?;
    if found == 1 {
        sqlx::raw_sql(TO_VERSION_2).execute(&mut *tx).await.map_err(open)?;
        let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *tx).await;
        let broken = broken.map_err(open)?.len();
        if broken > 0 {
            let why = format!("{broken} rows that name what is not there");
            return Err(RegistryError::Unreadable(why));
        }
        found = 2;
    }
    if found != SCHEMA_VERSION {
        return Err(RegistryError::OtherSchema { path: path.to_owned(), found });
    }
    let schemas = [
        SCHEMA_ADDED,
        step::SCHEMA,
        director::SCHEMA,
        images::SCHEMA,
        rollouts::SCHEMA,
        inventory::SCHEMA,
        signals::SCHEMA,
        alerts::table::SCHEMA,
        people::SCHEMA,
        idempotency::SCHEMA,
        approvals::SCHEMA,
    ];
    for added in schemas {
        sqlx::raw_sql(added).execute(&mut *tx).await.map_err(open)?;
    }
    tx.commit().await.map_err(open)?;
    sqlx::raw_sql("PRAGMA foreign_keys = ON").execute(writer).await.map(drop).map_err(open)
}

async fn take_site(
    writer: &mut SqliteConnection,
    path: &Path,
    site: &str,
    policies_sha256: &str,
) -> Result<(), RegistryError> {
    let open = |source| RegistryError::Open { path: path.to_owned(), source };
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(open)?;
    sqlx::query("INSERT INTO site VALUES (1, ?, 1, ?) ON CONFLICT DO NOTHING")
        .bind(site)
        .bind(policies_sha256)
        .execute(&mut *tx)
        .await
        .map_err(open)?;
    let found: String =
        sqlx::query_scalar("SELECT name FROM site").fetch_one(&mut *tx).await.map_err(open)?;
    if found != site {
        let expected = site.to_owned();
        return Err(RegistryError::OtherSite { path: path.to_owned(), expected, found });
    }
    sqlx::query(
        "INSERT INTO directory SELECT 1, generation FROM site WHERE true ON CONFLICT DO NOTHING",
    )
    .execute(&mut *tx)
    .await
    .map_err(open)?;
    tx.commit().await.map_err(open)
}

async fn write_device(tx: &mut SqliteConnection, device: &Device) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO ownership VALUES (?, ?, ?, ?, ?) ON CONFLICT (serial) DO NOTHING")
        .bind(&device.serial)
        .bind(device.id.as_str())
        .bind(device.role.as_str())
        .bind(device.zone.as_str())
        .bind(device.listed_at.as_us())
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
         standing = excluded.standing, enrolled_at = excluded.enrolled_at, changed_at = excluded.changed_at",
    )
    .bind(device.id.as_str())
    .bind(&device.serial)
    .bind(device.role.as_str())
    .bind(device.zone.as_str())
    .bind(device.standing.as_str())
    .bind(device.listed_at.as_us())
    .bind(device.enrolled_at.map(Timestamp::as_us))
    .bind(device.changed_at.as_us())
    .execute(&mut *tx)
    .await?;
    write_group(tx, device).await
}

/// Most are of the default group: that needs no row.
async fn write_group(tx: &mut SqliteConnection, device: &Device) -> Result<(), sqlx::Error> {
    if device.group == default_group() && device.grouped_at == device.listed_at {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO device_groups VALUES (?, ?, ?) ON CONFLICT (device) DO UPDATE SET
         name = excluded.name, since = excluded.since WHERE name <> excluded.name",
    )
    .bind(device.id.as_str())
    .bind(device.group.as_str())
    .bind(device.grouped_at.as_us())
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// A new key, or a new certificate for one that this device has for this purpose.
async fn write_key(
    tx: &mut SqliteConnection,
    device: &DeviceId,
    key: &Key,
    certificate: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL) ON CONFLICT (spki_sha256) DO UPDATE SET
         device = excluded.device, purpose = excluded.purpose, certificate = excluded.certificate,
         not_after = excluded.not_after",
    )
    .bind(key.spki_sha256.to_string())
    .bind(key.id.to_string())
    .bind(device.as_str())
    .bind(key.purpose.as_str())
    .bind(&key.spki)
    .bind(certificate)
    .bind(key.not_after.as_us())
    .bind(key.created_at.as_us())
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn retire_key(tx: &mut SqliteConnection, key: &Key) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE keys SET retired_at = ?, ended_at = ? WHERE spki_sha256 = ?")
        .bind(key.retired_at.map(Timestamp::as_us))
        .bind(key.ended_at.map(Timestamp::as_us))
        .bind(key.spki_sha256.to_string())
        .execute(&mut *tx)
        .await?;
    Ok(())
}

async fn load(writer: &mut SqliteConnection) -> Result<(Directory, Numbers), RegistryError> {
    let read = RegistryError::Read;
    let row = sqlx::query(
        "SELECT site.generation AS site, directory.generation AS directory,
                (SELECT coalesce(max(sequence), -1) + 1 FROM events) AS events
         FROM site, directory",
    )
    .fetch_one(&mut *writer)
    .await
    .map_err(read)?;
    let numbers = Numbers { generation: number(&row, "site")?, events: number(&row, "events")? };
    let generation = number(&row, "directory")?;
    let mut devices = std::collections::BTreeMap::new();
    // Row by row, and without the certificates, which nobody needs here: a large fleet's rows are half a gigabyte.
    let mut rows = sqlx::query(
        "SELECT devices.*, device_groups.name AS group_name, since AS grouped_at
         FROM devices LEFT JOIN device_groups ON device = id",
    )
    .fetch(&mut *writer);
    while let Some(row) = rows.try_next().await.map_err(read)? {
        let device = device_of(&row)?;
        devices.insert(device.id.to_string(), device);
    }
    drop(rows);
    let mut rows = sqlx::query(
        "SELECT spki_sha256, id, device, purpose, spki, not_after, created_at, retired_at, ended_at
         FROM keys ORDER BY created_at, rowid",
    )
    .fetch(&mut *writer);
    while let Some(row) = rows.try_next().await.map_err(read)? {
        let owner = text(&row, "device")?;
        let device = devices
            .get_mut(owner)
            .ok_or_else(|| RegistryError::Unreadable(format!("a key of device {owner:?}")))?;
        device.keys.push(Arc::new(key_of(&row)?));
    }
    drop(rows);
    Ok((Directory::new(generation, devices.into_values()), numbers))
}

fn device_of(row: &SqliteRow) -> Result<Device, RegistryError> {
    let enrolled_at: Option<i64> = row.try_get("enrolled_at").map_err(RegistryError::Read)?;
    let group: Option<&str> = row.try_get("group_name").map_err(RegistryError::Read)?;
    let listed_at = time(row, "listed_at")?;
    Ok(Device {
        id: named(row, "id", |word| DeviceId::new(word).ok())?,
        serial: text(row, "serial")?.to_owned(),
        role: named(row, "role", Role::from_word)?,
        zone: named(row, "zone", |word| ZoneId::new(word).ok())?,
        group: match group {
            None => default_group(),
            Some(_) => named(row, "group_name", |word| GroupId::new(word).ok())?,
        },
        grouped_at: if group.is_some() { time(row, "grouped_at")? } else { listed_at },
        standing: named(row, "standing", |word| {
            Standing::ALL.into_iter().find(|standing| standing.as_str() == word)
        })?,
        listed_at,
        enrolled_at: enrolled_at.map(Timestamp),
        changed_at: time(row, "changed_at")?,
        keys: Vec::new(),
    })
}

fn key_of(row: &SqliteRow) -> Result<Key, RegistryError> {
    let spki: Vec<u8> = row.try_get("spki").map_err(RegistryError::Read)?;
    let public = PublicKey::from_spki_der(&spki)
        .map_err(|_| RegistryError::Unreadable("a key that is none".into()))?;
    let retired_at: Option<i64> = row.try_get("retired_at").map_err(RegistryError::Read)?;
    let ended_at: Option<i64> = row.try_get("ended_at").map_err(RegistryError::Read)?;
    let key = Key {
        purpose: named(row, "purpose", Purpose::from_word)?,
        id: public.id(),
        spki_sha256: trust::digest(&spki),
        public,
        spki,
        created_at: time(row, "created_at")?,
        not_after: time(row, "not_after")?,
        retired_at: retired_at.map(Timestamp),
        ended_at: ended_at.map(Timestamp),
    };
    let named_so = named(row, "spki_sha256", Digest::from_hex)? == key.spki_sha256
        && named(row, "id", KeyId::from_hex)? == key.id;
    if named_so {
        Ok(key)
    } else {
        Err(RegistryError::Unreadable(format!("a key under another key's name: {}", key.id)))
    }
}

fn number(row: &SqliteRow, column: &'static str) -> Result<u64, RegistryError> {
    let found: i64 = row.try_get(column).map_err(RegistryError::Read)?;
    u64::try_from(found).map_err(|_| RegistryError::Unreadable(format!("{column} {found}")))
}

fn text<'r>(row: &'r SqliteRow, column: &'static str) -> Result<&'r str, RegistryError> {
    row.try_get(column).map_err(RegistryError::Read)
}

fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, RegistryError> {
    row.try_get(column).map(Timestamp).map_err(RegistryError::Read)
}

fn named<T>(
    row: &SqliteRow,
    column: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, RegistryError> {
    let found = text(row, column)?;
    read(found).ok_or_else(|| RegistryError::Unreadable(format!("{column} {found:?}")))
}
