//! The operator's word to each device: what it runs now, and until when the site's newest word holds.
//!
//! ```text
//! directed    device → generation, issued_at, orders      what each device was last told, and under which number
//! leases      zone → number, message                      the newest lease of each zone, as it was signed
//! ```
//!
//! The metadata of a device are no rows: they are signed when it asks, a pure function of its row ([`trust::uptane::directed`]), so
//! that whoever asks again gets the same bytes. The row is written anew, under a generation raised for it, when what the device
//! is ordered differs, or once half of the timestamp's life is over.
//!
//! Promises: no generation or number of a lease is given to two different words, and none goes back (INV-FRESH-1): what is
//! remembered in memory is what was committed, and the schema looks a second time. A lease names every rollout that it is
//! told is halted, or there is none (INV-ROLL-1).
//! Never: decides what a device is ordered; holds a key of the vendor's, or of the root.

use crate::directory::Device;
use crate::metrics::Metrics;
use crate::registry::{RegistryError, Step, said};
use api::Standing;
use api::base64::Base64;
use api::update::{CheckIn, DirectorFiles};
use model::envelope::WallClock;
use model::lease::{HALTED_MAX, Lease};
use model::manifest::Manifest;
use model::{Counter, DeviceId, Digest, Header, Kind, RolloutId, Timestamp, ZoneId, hex};
use serde_json::json;
use sqlx::Row as _;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use trust::cose::{self, PublicKey, SecretKey, SignError, Signer as _};
use trust::tuf::make::{self, Head, Keys, NotMade, Roles};
use trust::tuf::{Custom, Refused, Role, Target, Trusted, Update, key_id};
use trust::uptane::{self, Lifetimes, Signers};

/// Laid down at each opening of the registry.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS directed (
    device TEXT PRIMARY KEY REFERENCES devices (id),
    generation INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    orders TEXT NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS what_a_device_is_told_grows BEFORE UPDATE ON directed
WHEN NEW.generation <= OLD.generation
BEGIN SELECT RAISE(ABORT, 'INV-FRESH-1: what a device is told grows'); END;

CREATE TABLE IF NOT EXISTS leases (
    zone TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    message BLOB NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS leases_grow BEFORE UPDATE ON leases
WHEN NEW.number <= OLD.number
BEGIN SELECT RAISE(ABORT, 'INV-FRESH-1: leases grow'); END;
";

/// How far above the site's generation a device's word is followed. A restored control plane is behind by what was handed
/// out since its backup: 500 days of a million devices. One device that lies does not use up the numbers of all.
const LEAP_MAX: u64 = 1 << 30;

/// How far above what a device has seen the generation is raised then. Leases and bundles were handed out under higher numbers
/// than its metadata, and nobody reports them: four a minute for each of 20 zones, for twelve hours, twenty times over.
const LEAD: u64 = 1 << 20;

/// No two raises come sooner one after the other: each is an event, and numbers are finite.
const RAISE_EVERY: Duration = Duration::from_secs(600);

/// How long what is signed holds, and how often it is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Of the Director's metadata.
    pub lifetimes: Lifetimes,
    /// A lease that is older is made anew for whoever asks.
    pub lease_every: Duration,
    pub lease_life: Duration,
    /// When a device is to ask again.
    pub check_in_every: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Terms {
    fn default() -> Self {
        Self {
            lifetimes: Lifetimes { timestamp: DAY, snapshot: 7 * DAY, targets: 30 * DAY },
            // A device arms under one that is at most 60 s old: a quarter leaves it time to ask, and to be late.
            lease_every: Duration::from_secs(15),
            lease_life: Duration::from_secs(15 * 60),
            check_in_every: Duration::from_secs(60),
        }
    }
}

/// How many of the offline keys sign a root: one of three may be lost, and one stolen.
pub const ROOT_THRESHOLD: u32 = 2;

/// As long as people may wait between two meetings at a safe.
const ROOT_LIFE: Duration = Duration::from_secs(5 * 365 * 86_400);

/// The first root of a new Director. `offline` are its own keys; `online` signs everything below it.
pub fn first_root(
    offline: &[SecretKey],
    online: &PublicKey,
    now: Timestamp,
) -> Result<Vec<u8>, NotMade> {
    let own: Vec<PublicKey> = offline.iter().map(|key| key.public().clone()).collect();
    let online = Keys { keys: std::slice::from_ref(online), threshold: 1 };
    let roles = Roles {
        root: Keys { keys: &own, threshold: ROOT_THRESHOLD },
        timestamp: online,
        snapshot: online,
        targets: online,
    };
    let life_us = i64::try_from(ROOT_LIFE.as_micros()).unwrap_or(i64::MAX);
    let expires = Timestamp(now.as_us().saturating_add(life_us));
    let signers: Vec<&dyn cose::Signer> = offline.iter().map(|key| key as _).collect();
    make::root(&Head { version: 1, expires, device: None }, &roles, &signers)
}

/// Why control does not start with these roots and this key.
#[derive(Debug, thiserror::Error)]
pub enum BadRoot {
    #[error("no root of the Director: expected at least its first one")]
    None,
    #[error("root {number} of {of} of the Director cannot be used")]
    Refused { number: usize, of: usize, source: Refused },
    #[error(
        "the Director's root {root} does not let site/director.key alone sign {role}: expected its key id {expected} with \
         threshold 1"
    )]
    OtherKey { root: u64, role: Role, expected: String },
}

/// Why a device gets no answer.
#[derive(Debug, thiserror::Error)]
pub enum DirectorError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("cannot sign the Director's metadata of a device")]
    NotMade(#[from] NotMade),
    #[error("cannot sign a lease")]
    Sign(#[from] SignError),
    #[error(
        "{found} rollouts are halted, expected at most {HALTED_MAX}: no lease names them all, so there is none"
    )]
    TooManyHalted { found: usize },
}

/// What a device's check-in is answered by.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// As the registry has it now. Only an enrolled one is told what to run; a quarantined one gets its lease.
    pub device: &'a Device,
    /// Its own word, admitted.
    pub manifest: &'a Manifest,
    /// What it is to run: at most one target a product ([`crate::Published::order`]).
    pub orders: &'a [Target],
    /// Every rollout of which nothing may be armed.
    pub halted: &'a [RolloutId],
}

/// What an answer put into the registry. It counts once its step is committed, and is to be given to [`Director::learn`] then,
/// and never otherwise.
#[derive(Debug)]
#[must_use = "what was committed is remembered, or every check-in costs a transaction"]
pub struct Learnt {
    row: Option<(DeviceId, Row)>,
    lease: Option<Held>,
    raised: Option<Timestamp>,
}

/// What a device was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    generation: u64,
    issued: Timestamp,
    /// Of the orders, in the form in which they are stored.
    orders: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    lease: Lease,
    message: Vec<u8>,
}

/// What was committed, so that most check-ins cost no transaction. A row more for each device that ever checked in, some
/// 150 bytes; and a lease for each zone.
#[derive(Debug, Default)]
struct Memory {
    rows: HashMap<DeviceId, Row>,
    leases: HashMap<ZoneId, Held>,
    /// When the generation was last raised above what a device had seen.
    raised: Option<Timestamp>,
}

/// Signs what devices are told.
pub struct Director {
    key: SecretKey,
    /// One after the other.
    roots: Vec<Vec<u8>>,
    /// The version of the last of them.
    root: u64,
    root_ends: Timestamp,
    terms: Terms,
    metrics: Metrics,
    memory: Mutex<Memory>,
}

impl std::fmt::Debug for Director {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Director(root {}, key {})", self.root, key_id(self.key.public()))
    }
}

impl Director {
    /// `roots` are the Director's, from the first that a device may have on. `key` is the online one: the newest root lets it
    /// alone sign timestamp, snapshot and targets; leases are signed by the key of the timestamp.
    pub fn open(
        key: SecretKey,
        roots: Vec<Vec<u8>>,
        terms: Terms,
        metrics: Metrics,
    ) -> Result<Self, BadRoot> {
        let of = roots.len();
        let refused = |at| move |source| BadRoot::Refused { number: at + 1, of, source };
        let (first, rest) = roots.split_first().ok_or(BadRoot::None)?;
        let mut trusted = Trusted::from_root(first, None).map_err(refused(0))?;
        for (at, root) in rest.iter().enumerate() {
            let mut update = Update::begin(trusted, Timestamp(i64::MIN));
            update.take(root).map_err(refused(at + 1))?;
            trusted = update.into_trusted();
        }
        let root = trusted.root();
        let own = key_id(key.public());
        for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
            let named = root.role(role);
            if named.threshold != 1 || !named.keyids.contains(&own) {
                return Err(BadRoot::OtherKey { root: root.version, role, expected: own });
            }
        }
        let (root, root_ends) = (root.version, root.expires);
        metrics.director_root_ends.set(root_ends.as_us().div_euclid(1_000_000));
        Ok(Self { key, roots, root, root_ends, terms, metrics, memory: Mutex::default() })
    }

    /// When the newest root ends. After that no device believes anything of this Director.
    pub fn root_ends(&self) -> Timestamp {
        self.root_ends
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The answer, if nothing has to be written for it: what was last told still holds, and so does the zone's lease.
    /// `directory` and `site` are the registry's two generations.
    pub fn at_once(
        &self,
        asked: &Asked<'_>,
        directory: u64,
        site: u64,
        now: Timestamp,
    ) -> Option<Result<CheckIn, DirectorError>> {
        let halted = names(asked.halted);
        let (lease, row) = {
            let memory = self.memory();
            let held = memory.leases.get(&asked.device.zone)?;
            if !self.lease_holds(&held.lease, directory, &halted, now) {
                return None;
            }
            (held.message.clone(), memory.rows.get(&asked.device.id).copied())
        };
        let row = match asked.device.standing {
            Standing::Enrolled => {
                let row = row?;
                let written = trust::digest(stored(asked.orders).as_bytes());
                let is_ahead = seen(asked.manifest) > site;
                if is_ahead || row.orders != written || self.is_due(&row, now) {
                    return None;
                }
                Some(row)
            }
            _ => None,
        };
        Some(self.check_in(asked, row.as_ref(), lease))
    }

    /// The answer, with what it takes in the registry: a row and a lease. After the commit, [`Self::learn`].
    pub async fn answer(
        &self,
        step: &mut Step<'_>,
        asked: &Asked<'_>,
        now: Timestamp,
    ) -> Result<(CheckIn, Learnt), DirectorError> {
        let mut learnt = Learnt { row: None, lease: None, raised: None };
        if asked.device.standing == Standing::Enrolled {
            learnt.raised = self.stay_ahead(step, asked, now).await?;
            let row = self.row(step, asked, now).await?;
            learnt.row = Some((asked.device.id.clone(), row));
        }
        let held = self.lease(step, asked, now).await?;
        let row = learnt.row.as_ref().map(|(_, row)| row);
        let check_in = self.check_in(asked, row, held.message.clone())?;
        learnt.lease = Some(held);
        Ok((check_in, learnt))
    }

    /// Remembers what was committed.
    pub fn learn(&self, learnt: Learnt) {
        let mut memory = self.memory();
        memory.raised = memory.raised.max(learnt.raised);
        if let Some((device, row)) = learnt.row {
            let known = memory.rows.entry(device).or_insert(row);
            // Two steps may be learnt of in another order than that of their commits.
            if known.generation < row.generation {
                *known = row;
            }
        }
        if let Some(held) = learnt.lease {
            match memory.leases.get(&held.lease.zone) {
                Some(known) if known.lease.number >= held.lease.number => {}
                _ => drop(memory.leases.insert(held.lease.zone.clone(), held)),
            }
        }
    }

    /// A device that has seen a newer generation than there is: this registry is an old copy, and what it said next would be
    /// refused as old. So all numbers go on above it (DESIGN §7: a restored control plane starts above what devices report).
    /// Returns when it did so.
    ///
    /// The directory stays under the number that it has: who was revoked after the backup was made is not revoked in it, and
    /// gateways keep their newer bundle, and devices what their newer lease allows, until a person has changed something in it.
    async fn stay_ahead(
        &self,
        step: &mut Step<'_>,
        asked: &Asked<'_>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, DirectorError> {
        let (device, seen) = (&asked.manifest.device, seen(asked.manifest));
        let known = step.generation();
        if seen <= known {
            return Ok(None);
        }
        self.metrics.director_behind.inc();
        if self.is_behind(asked.manifest, known, now) {
            let raised = step.raise_generation_above(seen.saturating_add(LEAD)).await?;
            tracing::warn!(%device, seen, known, raised, "a device has seen a newer generation than there was");
            let detail = json!({ "seen": seen, "known": known, "raised": raised });
            let subject = format!("device/{device}");
            step.say(said(now, subject, "generation.raised", "site", detail)).await?;
            return Ok(Some(now));
        }
        if seen - known > LEAP_MAX {
            tracing::error!(%device, seen, known, "a device has seen a generation that this site cannot have had");
        } else {
            tracing::warn!(%device, seen, known, "a device has seen a newer generation again: it is told after a while");
        }
        Ok(None)
    }

    /// Whether a device has seen a newer generation than there is, and that counts: what is known here is older than what
    /// was handed out, and the generation is raised by the step that answers.
    pub fn is_behind(&self, manifest: &Manifest, known: u64, now: Timestamp) -> bool {
        let ahead = seen(manifest).saturating_sub(known);
        let age_us = self.memory().raised.map(|last| now.as_us().abs_diff(last.as_us()));
        let is_soon = age_us.is_some_and(|age| u128::from(age) < RAISE_EVERY.as_micros());
        (1..=LEAP_MAX).contains(&ahead) && !is_soon
    }

    /// What the device is told as of now, written anew if it has to be.
    async fn row(
        &self,
        step: &mut Step<'_>,
        asked: &Asked<'_>,
        now: Timestamp,
    ) -> Result<Row, DirectorError> {
        let device = asked.device.id.as_str();
        let text = stored(asked.orders);
        let orders = trust::digest(text.as_bytes());
        let found =
            sqlx::query("SELECT generation, issued_at, orders FROM directed WHERE device = ?")
                .bind(device)
                .fetch_optional(step.tx())
                .await
                .map_err(RegistryError::Read)?;
        if let Some(found) = found {
            let read = RegistryError::Read;
            let generation: i64 = found.try_get("generation").map_err(read)?;
            let issued: i64 = found.try_get("issued_at").map_err(read)?;
            let known: &str = found.try_get("orders").map_err(read)?;
            let generation = u64::try_from(generation)
                .map_err(|_| RegistryError::Unreadable(format!("generation {generation}")))?;
            let row = Row { generation, issued: Timestamp(issued), orders };
            if known == text && !self.is_due(&row, now) {
                return Ok(row);
            }
        }
        let generation = step.raise_generation().await?;
        sqlx::query(
            "INSERT INTO directed VALUES (?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET
             generation = excluded.generation, issued_at = excluded.issued_at, orders = excluded.orders",
        )
        .bind(device)
        .bind(number(generation))
        .bind(now.as_us())
        .bind(&text)
        .execute(step.tx())
        .await
        .map_err(RegistryError::Write)?;
        self.metrics.directed.inc();
        Ok(Row { generation, issued: now, orders })
    }

    /// The zone's lease as of now, made anew if it has to be.
    async fn lease(
        &self,
        step: &mut Step<'_>,
        asked: &Asked<'_>,
        now: Timestamp,
    ) -> Result<Held, DirectorError> {
        let zone = &asked.device.zone;
        let halted = names(asked.halted);
        let found: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT message FROM leases WHERE zone = ?")
                .bind(zone.as_str())
                .fetch_optional(step.tx())
                .await
                .map_err(RegistryError::Read)?;
        let known = found.and_then(|message| self.own_lease(message));
        let directory = step.directory().generation();
        if let Some(held) = &known
            && self.lease_holds(&held.lease, directory, &halted, now)
        {
            return Ok(held.clone());
        }
        if halted.len() > HALTED_MAX {
            return Err(DirectorError::TooManyHalted { found: halted.len() });
        }
        let life_us = i64::try_from(self.terms.lease_life.as_micros()).unwrap_or(i64::MAX);
        let lease = Lease {
            zone: zone.clone(),
            number: step.raise_generation().await?,
            issued: now,
            not_after: Timestamp(now.as_us().saturating_add(life_us)),
            policy: directory,
            revocation: 0,
            halted,
        };
        let message = self.sealed(&lease)?;
        sqlx::query(
            "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (zone) DO UPDATE SET
             number = excluded.number, message = excluded.message",
        )
        .bind(zone.as_str())
        .bind(number(lease.number))
        .bind(&message)
        .execute(step.tx())
        .await
        .map_err(RegistryError::Write)?;
        let before = known.as_ref().map_or(&[][..], |held| &held.lease.halted);
        for rollout in lease.halted.iter().filter(|rollout| !before.contains(rollout)) {
            let detail = json!({ "zone": zone.as_str(), "lease": lease.number });
            let subject = format!("rollout/{rollout}");
            step.say(said(now, "control", "lease.halt", subject, detail)).await?;
        }
        self.metrics.leases.inc();
        Ok(Held { lease, message })
    }

    /// A lease of our own out of the registry. One of a key that was replaced since is made anew.
    fn own_lease(&self, message: Vec<u8>) -> Option<Held> {
        let opened = cose::open(&message, trust::lease::MESSAGE_BYTES_MAX).ok()?;
        let verified = opened.verify(self.key.public()).ok()?;
        let lease = Lease::decode(verified.payload()).ok()?;
        Some(Held { lease, message })
    }

    fn sealed(&self, lease: &Lease) -> Result<Vec<u8>, SignError> {
        let header = Header {
            algorithm: self.key.public().algorithm(),
            kind: Kind::Lease,
            key: self.key.public().id(),
            // A lease is known by its number; the counter says the same.
            counter: Counter { epoch: 1, sequence: lease.number },
            uptime_ms: 0,
            wall: Some(WallClock { time: lease.issued, uncertainty_ms: 1000 }),
            heard: None,
            prior: None,
        };
        cose::seal(&header, &lease.encode(), &self.key)
    }

    fn lease_holds(
        &self,
        lease: &Lease,
        directory: u64,
        halted: &[RolloutId],
        now: Timestamp,
    ) -> bool {
        let age_us = now.as_us().abs_diff(lease.issued.as_us());
        u128::from(age_us) < self.terms.lease_every.as_micros()
            && lease.policy == directory
            && lease.halted == halted
    }

    /// Half of the timestamp's life: a device that is away for the other half still has metadata that last.
    fn is_due(&self, row: &Row, now: Timestamp) -> bool {
        let age_us = now.as_us().abs_diff(row.issued.as_us());
        u128::from(age_us) >= self.terms.lifetimes.timestamp.as_micros() / 2
    }

    fn check_in(
        &self,
        asked: &Asked<'_>,
        row: Option<&Row>,
        lease: Vec<u8>,
    ) -> Result<CheckIn, DirectorError> {
        let reported = &asked.manifest.director;
        let has = |row: &Row| {
            [reported.timestamp, reported.snapshot, reported.targets] == [row.generation; 3]
                && reported.root >= self.root
        };
        let director = match row.filter(|row| !has(row)) {
            Some(row) => Some(self.files(asked, row)?),
            None => None,
        };
        let again_ms = u64::try_from(self.terms.check_in_every.as_millis()).unwrap_or(u64::MAX);
        Ok(CheckIn { format: 1, lease: Base64(lease), director, again_ms })
    }

    fn files(&self, asked: &Asked<'_>, row: &Row) -> Result<DirectorFiles, NotMade> {
        let by: &[&dyn cose::Signer] = &[&self.key];
        let directed = uptane::directed(
            &asked.device.id,
            row.generation,
            asked.orders,
            row.issued,
            &self.terms.lifetimes,
            &Signers { timestamp: by, snapshot: by, targets: by },
        )?;
        // The last of the roots has version `root`, and they come one after the other.
        let newer = self.root.saturating_sub(asked.manifest.director.root);
        let newer = usize::try_from(newer).unwrap_or(usize::MAX).min(self.roots.len());
        let roots = self.roots[self.roots.len() - newer..].iter();
        self.metrics.director_answers.inc();
        Ok(DirectorFiles {
            roots: roots.map(|root| Base64(root.clone())).collect(),
            timestamp: Base64(directed.timestamp),
            snapshot: Base64(directed.snapshot),
            targets: Base64(directed.targets),
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("nothing panics while it holds the memory")
    }
}

/// The newest generation that a device has seen.
fn seen(manifest: &Manifest) -> u64 {
    let known = &manifest.director;
    known.timestamp.max(known.snapshot).max(known.targets)
}

/// In order, none twice, as a lease has them.
fn names(halted: &[RolloutId]) -> Vec<RolloutId> {
    let mut halted = halted.to_vec();
    halted.sort_unstable();
    halted.dedup();
    halted
}

/// Orders as they are stored: JSON, one form for each meaning, since they are compared by it.
fn stored(orders: &[Target]) -> String {
    let mut orders: Vec<&Target> = orders.iter().collect();
    orders.sort_by(|a, b| a.path.cmp(&b.path));
    let one = |target: &Target| {
        let said = match &target.custom {
            Custom::Order(order) => {
                let release = &order.release;
                let all = |items: &[_]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
                json!({
                    "product": release.product.as_str(),
                    "version": release.version.to_string(),
                    "security_version": release.security_version.0,
                    "hardware": release.hardware.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
                    "must_pass": all(&release.must_pass),
                    "rollout": order.rollout.as_ref().map(RolloutId::as_str),
                    "raise": order.raise.map(|raise| raise.0),
                })
            }
            Custom::None | Custom::Unreadable(_) => serde_json::Value::Null,
        };
        json!({
            "path": target.path,
            "length": target.length,
            "sha256": target.hashes.sha256.map(|digest| digest.to_string()),
            "sha512": target.hashes.sha512.map(|digest| hex::encode(&digest)),
            "order": said,
        })
    };
    serde_json::Value::Array(orders.into_iter().map(one).collect()).to_string()
}

/// A number as SQLite has it.
fn number(number: u64) -> i64 {
    i64::try_from(number).expect("the generation stays below 2^53")
}
