//! Rollouts, permits and manifests in the registry's file.
//!
//! ```text
//! manifests  device → key, epoch, sequence, number, first_at, received_at, body      the newest of each device
//! rollouts   id → number, revision, phase, outstanding, bound, saved, members, order_json, created_at
//! permits    rollout, device → known, due, was, heard                                who was reached, and what is known of it
//! ```
//!
//! `saved` is `docs/formats/rollout.md`; `phase`, `outstanding` and `bound` are of it, for the schema's second look. A state
//! is written on the condition that its revision is still the one that was read: of two who write, one is refused.

use super::book::{Kept, Live, Moved, Number, due};
use super::draft::Members;
use crate::registry::RegistryError;
use api::rollout::{NewRollout, RolloutDevice};
use futures::TryStreamExt as _;
use model::{Counter, DeviceId, Digest, KeyId, RolloutId, Timestamp};
use rollout::{Known, Moment, Permit, Saved};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::BTreeMap;

/// Laid down at each opening: files of version 1 that were written before have no such tables. What a trigger refuses got
/// past the code: it is a broken invariant, counted as one.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS manifests (
    device TEXT PRIMARY KEY REFERENCES devices (id),
    key TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS a_manifest_is_taken_once BEFORE UPDATE ON manifests
WHEN NEW.number <= OLD.number
    OR (NEW.key = OLD.key AND (NEW.epoch, NEW.sequence) <= (OLD.epoch, OLD.sequence))
BEGIN SELECT RAISE(ABORT, 'INV-REPLAY-1: a manifest is newer than the last one'); END;

CREATE TABLE IF NOT EXISTS rollouts (
    id TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    phase TEXT NOT NULL,
    outstanding INTEGER NOT NULL,
    bound INTEGER NOT NULL,
    saved TEXT NOT NULL,
    members TEXT NOT NULL,
    order_json TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS a_rollout_goes_on BEFORE UPDATE ON rollouts
WHEN NEW.revision < OLD.revision OR NEW.bound <> OLD.bound OR NEW.number <> OLD.number
BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: a rollout goes on, and its plan stays'); END;
CREATE TRIGGER IF NOT EXISTS outstanding_permits_are_bounded BEFORE UPDATE ON rollouts
WHEN NEW.outstanding > NEW.bound
BEGIN SELECT RAISE(ABORT, 'INV-ROLL-2: more permits are outstanding than the bound allows'); END;

CREATE TABLE IF NOT EXISTS permits (
    rollout TEXT NOT NULL REFERENCES rollouts (id),
    device TEXT NOT NULL REFERENCES devices (id),
    known TEXT NOT NULL CHECK (known IN ('issued', 'silent', 'proven', 'had', 'failed', 'back',
        'back_silent', 'stuck', 'went_back')),
    due INTEGER,
    was TEXT NOT NULL,
    heard INTEGER NOT NULL,
    PRIMARY KEY (rollout, device)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS only_a_rollout_that_runs_issues_permits BEFORE INSERT ON permits
WHEN NEW.known = 'issued' AND (SELECT phase FROM rollouts WHERE id = NEW.rollout) <> 'running'
BEGIN SELECT RAISE(ABORT, 'INV-ROLL-1: only a rollout that runs issues permits'); END;
CREATE TRIGGER IF NOT EXISTS a_permit_is_issued_once BEFORE UPDATE ON permits
WHEN NEW.known = 'issued' AND OLD.known <> 'issued'
BEGIN SELECT RAISE(ABORT, 'INV-ROLL-1: a permit is issued once'); END;
";

/// The ids that the schema above knows.
pub const INVARIANTS: [&str; 3] = ["INV-REPLAY-1", "INV-ROLL-1", "INV-ROLL-2"];

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Somebody else has moved it. What was to be written was made of what does not hold any more.
    #[error("rollout `{rollout}` has moved on from revision {revision}")]
    Overtaken { rollout: RolloutId, revision: u64 },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<sqlx::Error> for TableError {
    fn from(error: sqlx::Error) -> Self {
        Self::Registry(RegistryError::Write(error))
    }
}

pub async fn add(
    tx: &mut SqliteConnection,
    number: Number,
    live: &Live,
) -> Result<(), RegistryError> {
    let plan = live.plan();
    let members = serde_json::to_string(&live.members).expect("names have a JSON form");
    let order = serde_json::to_string(&live.order).expect("it came as JSON");
    sqlx::query("INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(plan.rollout.as_str())
        .bind(stored(number))
        .bind(stored(live.state().revision))
        .bind(live.state().phase.name().to_string())
        .bind(stored(live.state().counts.outstanding()))
        .bind(stored(plan.bound))
        .bind(live.saved.encode())
        .bind(members)
        .bind(order)
        .bind(live.created_at.as_us())
        .execute(tx)
        .await
        .map_err(RegistryError::Write)?;
    Ok(())
}

/// Writes what a rollout has become, with its permits, if it is still what that was made of.
pub async fn save(
    tx: &mut SqliteConnection,
    plan: &rollout::Plan,
    moved: &Moved,
) -> Result<(), TableError> {
    if moved.state.revision == moved.revision {
        return Ok(());
    }
    let saved = Saved { plan: plan.clone(), state: moved.state.clone() };
    let written = sqlx::query(
        "UPDATE rollouts SET revision = ?, phase = ?, outstanding = ?, saved = ?
         WHERE id = ? AND revision = ?",
    )
    .bind(stored(moved.state.revision))
    .bind(moved.state.phase.name().to_string())
    .bind(stored(moved.state.counts.outstanding()))
    .bind(saved.encode())
    .bind(moved.rollout.as_str())
    .bind(stored(moved.revision))
    .execute(&mut *tx)
    .await?;
    if written.rows_affected() != 1 {
        let (rollout, revision) = (moved.rollout.clone(), moved.revision);
        return Err(TableError::Overtaken { rollout, revision });
    }
    // After the state: what it says is what the permits are judged by.
    for (device, permit) in &moved.permits {
        sqlx::query(
            "INSERT INTO permits VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (rollout, device) DO UPDATE SET
             known = excluded.known, due = excluded.due, was = excluded.was, heard = excluded.heard",
        )
        .bind(moved.rollout.as_str())
        .bind(device.as_str())
        .bind(word(permit.known))
        .bind(due(permit.known).map(|due| stored(due.0)))
        .bind(permit.was.to_string())
        .bind(stored(permit.heard))
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

pub async fn keep(
    tx: &mut SqliteConnection,
    device: &DeviceId,
    kept: &Kept,
) -> Result<(), RegistryError> {
    sqlx::query(
        "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET
         key = excluded.key, epoch = excluded.epoch, sequence = excluded.sequence,
         number = excluded.number, received_at = excluded.received_at, body = excluded.body",
    )
    .bind(device.as_str())
    .bind(kept.key.to_string())
    .bind(i64::from(kept.counter.epoch))
    .bind(stored(kept.counter.sequence))
    .bind(stored(kept.number))
    .bind(kept.first_at.as_us())
    .bind(kept.received_at.as_us())
    .bind(&kept.payload[..])
    .execute(tx)
    .await
    .map_err(RegistryError::Write)?;
    Ok(())
}

/// All manifests. `events`: what is said to any of these devices waits for so many.
pub async fn manifests(
    tx: &mut SqliteConnection,
    events: u64,
) -> Result<BTreeMap<DeviceId, Kept>, RegistryError> {
    // A row at a time: a large fleet has as many.
    let mut rows = sqlx::query("SELECT * FROM manifests").fetch(tx);
    let mut manifests = BTreeMap::new();
    while let Some(row) = rows.try_next().await.map_err(RegistryError::Read)? {
        let (device, kept) = kept_of(&row, events)?;
        manifests.insert(device, kept);
    }
    Ok(manifests)
}

/// All rollouts, without their permits.
pub async fn rollouts(tx: &mut SqliteConnection) -> Result<Vec<(Number, Live)>, RegistryError> {
    let rows = sqlx::query("SELECT * FROM rollouts ORDER BY number").fetch_all(tx).await;
    rows.map_err(RegistryError::Read)?.iter().map(live_of).collect()
}

pub async fn permits(
    tx: &mut SqliteConnection,
    rollout: &RolloutId,
) -> Result<Vec<(DeviceId, Permit)>, RegistryError> {
    let mut rows =
        sqlx::query("SELECT * FROM permits WHERE rollout = ?").bind(rollout.as_str()).fetch(tx);
    let mut permits = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(RegistryError::Read)? {
        permits.push(permit_of(&row)?);
    }
    Ok(permits)
}

/// A page of them, sorted by device.
pub async fn page(
    tx: &mut SqliteConnection,
    rollout: &RolloutId,
    after: &str,
    limit: usize,
) -> Result<Vec<RolloutDevice>, RegistryError> {
    let rows = sqlx::query(
        "SELECT * FROM permits WHERE rollout = ? AND device > ? ORDER BY device LIMIT ?",
    )
    .bind(rollout.as_str())
    .bind(after)
    .bind(stored(limit as u64))
    .fetch_all(tx)
    .await
    .map_err(RegistryError::Read)?;
    let shown = |row| {
        let (device, permit) = permit_of(row)?;
        Ok(RolloutDevice {
            device: device.to_string(),
            known: word(permit.known).to_owned(),
            was_sha256: permit.was.to_string(),
            due_ms: due(permit.known).map(|due| due.0),
        })
    };
    rows.iter().map(shown).collect()
}

fn kept_of(row: &SqliteRow, events: u64) -> Result<(DeviceId, Kept), RegistryError> {
    let body: Vec<u8> = row.try_get("body").map_err(RegistryError::Read)?;
    let device = named(row, "device", |text| DeviceId::new(text).ok())?;
    if model::manifest::Manifest::decode(&body).is_err() {
        return Err(RegistryError::Unreadable(format!("the manifest of {device}")));
    }
    let epoch = u32::try_from(number(row, "epoch")?)
        .map_err(|_| RegistryError::Unreadable("an epoch above 2^32".into()))?;
    let kept = Kept {
        key: named(row, "key", KeyId::from_hex)?,
        counter: Counter { epoch, sequence: number(row, "sequence")? },
        number: number(row, "number")?,
        first_at: time(row, "first_at")?,
        received_at: time(row, "received_at")?,
        payload: body.into(),
        rested_at: Timestamp(0),
        events,
    };
    Ok((device, kept))
}

fn live_of(row: &SqliteRow) -> Result<(Number, Live), RegistryError> {
    let id = text(row, "id")?;
    let unreadable = |why: String| RegistryError::Unreadable(format!("rollout {id:?}: {why}"));
    let saved = Saved::decode(text(row, "saved")?).map_err(|e| unreadable(model::told(&e)))?;
    if saved.plan.rollout.as_str() != id || saved.state.revision != number(row, "revision")? {
        return Err(unreadable("it is another's, or of another revision".into()));
    }
    let json = |error: serde_json::Error| unreadable(error.to_string());
    let members: Members = serde_json::from_str(text(row, "members")?).map_err(json)?;
    let order: NewRollout = serde_json::from_str(text(row, "order_json")?).map_err(json)?;
    let created_at = time(row, "created_at")?;
    Ok((number(row, "number")?, Live::new(saved, order, members, created_at)))
}

fn permit_of(row: &SqliteRow) -> Result<(DeviceId, Permit), RegistryError> {
    let due: Option<i64> = row.try_get("due").map_err(RegistryError::Read)?;
    let due = due.and_then(|due| u64::try_from(due).ok()).map(Moment);
    let known = named(row, "known", |word| known_of(word, due))?;
    let was = named(row, "was", Digest::from_hex)?;
    let device = named(row, "device", |text| DeviceId::new(text).ok())?;
    Ok((device, Permit { known, was, heard: number(row, "heard")? }))
}

/// As it stands in the table and in the API.
pub fn word(known: Known) -> &'static str {
    match known {
        Known::Issued { .. } => "issued",
        Known::Silent => "silent",
        Known::Proven => "proven",
        Known::Had => "had",
        Known::Failed => "failed",
        Known::Back { .. } => "back",
        Known::BackSilent => "back_silent",
        Known::Stuck => "stuck",
        Known::WentBack => "went_back",
    }
}

fn known_of(word: &str, due: Option<Moment>) -> Option<Known> {
    Some(match word {
        "issued" => Known::Issued { due: due? },
        "silent" => Known::Silent,
        "proven" => Known::Proven,
        "had" => Known::Had,
        "failed" => Known::Failed,
        "back" => Known::Back { due: due? },
        "back_silent" => Known::BackSilent,
        "stuck" => Known::Stuck,
        "went_back" => Known::WentBack,
        _ => return None,
    })
}

fn text<'r>(row: &'r SqliteRow, column: &'static str) -> Result<&'r str, RegistryError> {
    row.try_get(column).map_err(RegistryError::Read)
}

fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, RegistryError> {
    row.try_get(column).map(Timestamp).map_err(RegistryError::Read)
}

fn number(row: &SqliteRow, column: &'static str) -> Result<u64, RegistryError> {
    let found: i64 = row.try_get(column).map_err(RegistryError::Read)?;
    u64::try_from(found).map_err(|_| RegistryError::Unreadable(format!("{column} {found}")))
}

fn named<T>(
    row: &SqliteRow,
    column: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, RegistryError> {
    let found = text(row, column)?;
    read(found).ok_or_else(|| RegistryError::Unreadable(format!("{column} {found:?}")))
}

/// A number as SQLite has it. What is above is held at the top: bounds may be set to "all", and no counter comes there.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollouts::draft::{self, Named};
    use api::{Ownership, Role};
    use model::HardwareId;
    use rollout::{Command, Event, Opened, Position, State};
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn what_is_known_of_a_device_has_one_word_and_is_read_from_it_again() {
        let due = Moment(7);
        let all = [
            Known::Issued { due },
            Known::Silent,
            Known::Proven,
            Known::Had,
            Known::Failed,
            Known::Back { due },
            Known::BackSilent,
            Known::Stuck,
            Known::WentBack,
        ];
        for known in all {
            assert_eq!(known_of(word(known), super::due(known)), Some(known));
        }
        assert_eq!(known_of("issued", None), None, "who may install has a time to prove it");
        assert_eq!(known_of("lost", None), None);
    }

    fn live(more: serde_json::Value) -> Live {
        let mut order = json!({
            "id": "r-1", "product": "pump-app", "version": "1.1.0", "bound": 1,
            "waves": [{ "percent": 100 }],
        });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let order: NewRollout = serde_json::from_value(order).unwrap();
        let named = Named::read(&order).unwrap();
        let rollout = named.id.clone().unwrap();
        let digest = Digest([2; 32]);
        let found = draft::Found { rollout, generation: 1, digest, cohort: 2 };
        let plan = draft::plan(&order, &named, found).unwrap();
        let hardware = [HardwareId::new("pump-box").unwrap()].into();
        let Named { zones, groups, devices, .. } = named;
        let members = Members { zones, groups, devices, hardware };
        Live::new(Saved { plan, state: State::new() }, order, members, Timestamp(1))
    }

    async fn registry(dir: &Path) -> crate::Registry {
        let registry = crate::Registry::open(&dir.join("r.sqlite"), "site", "").await.unwrap();
        for serial in ["pump-1", "pump-2"] {
            let entry = Ownership {
                serial: serial.into(),
                role: Role::Device,
                zone: "z".into(),
                group: None,
            };
            registry.list(&entry, &"token/site".into(), Timestamp(1)).await.unwrap();
        }
        registry
    }

    async fn add_to(registry: &crate::Registry, live: &Live) {
        let live = live.clone();
        let work =
            registry.step(move |step| Box::pin(async move { add(step.tx(), 1, &live).await }));
        work.await.unwrap();
    }

    async fn save_to(
        registry: &crate::Registry,
        live: &Live,
        moved: Moved,
    ) -> Result<(), TableError> {
        let plan = live.plan().clone();
        let work = registry
            .step(move |step| Box::pin(async move { save(step.tx(), &plan, &moved).await }));
        work.await.map(|done| done.value)
    }

    async fn kept_in(registry: &crate::Registry) -> (Live, Vec<(DeviceId, Permit)>) {
        let read = registry.read(|tx| {
            Box::pin(async move {
                let (_, live) = rollouts(&mut *tx).await?.remove(0);
                let permits = permits(&mut *tx, live.id()).await?;
                Ok::<_, RegistryError>((live, permits))
            })
        });
        read.await.unwrap()
    }

    fn permit(known: Known) -> Permit {
        Permit { known, was: Digest([1; 32]), heard: 1 }
    }

    fn issued(device: &str) -> (DeviceId, Permit) {
        let known = Known::Issued { due: Moment(9) };
        (DeviceId::new(device).unwrap(), permit(known))
    }

    fn started(live: &Live) -> Moved {
        live.moved(1, vec![Event::Command(Command::Start)], Moment(1))
    }

    fn opened(live: &Live) -> Moved {
        let opened = Opened { members: 2, last: Position::LAST };
        live.moved(1, vec![Event::Opened { wave: 0, opened }], Moment(2))
    }

    /// INV-STATE-1: whoever comes second has made his move of what does not hold any more.
    #[tokio::test]
    async fn of_two_moves_that_were_made_of_one_state_one_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(dir.path()).await;
        let mut live = live(json!({}));
        add_to(&registry, &live).await;
        let start = started(&live);
        let abort = live.moved(1, vec![Event::Command(Command::Abort)], Moment(1));
        save_to(&registry, &live, start.clone()).await.unwrap();
        let refused = save_to(&registry, &live, abort).await.unwrap_err();
        assert_eq!(refused.to_string(), "rollout `r-1` has moved on from revision 0");
        assert!(save_to(&registry, &live, start.clone()).await.is_err(), "again");
        let (kept, _) = kept_in(&registry).await;
        assert_eq!(kept.state(), &start.state);
        assert_eq!((kept.order, kept.members), (live.order.clone(), live.members.clone()));

        live.saved.state = start.state;
        let mut open = opened(&live);
        open.permits.push(issued("pump-1"));
        save_to(&registry, &live, open.clone()).await.unwrap();
        let (kept, permits) = kept_in(&registry).await;
        assert_eq!((kept.state(), permits), (&open.state, open.permits));
    }

    /// INV-ROLL-1, INV-ROLL-2: what would get past the code is refused by the schema, whole, and counted as what it is.
    #[tokio::test]
    async fn the_schema_refuses_permits_that_no_rollout_may_issue() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(dir.path()).await;
        let mut live = live(json!({}));
        add_to(&registry, &live).await;
        let mut early = live.moved(1, vec![Event::Tick], Moment(1));
        early.state.revision += 1;
        early.permits.push(issued("pump-1"));
        let broken = |error: TableError| match error {
            TableError::Registry(error) => error.broken_invariant(),
            TableError::Overtaken { .. } => None,
        };
        let refused = save_to(&registry, &live, early).await.unwrap_err();
        assert_eq!(broken(refused), Some("INV-ROLL-1"), "it does not run yet");

        let start = started(&live);
        save_to(&registry, &live, start.clone()).await.unwrap();
        live.saved.state = start.state;
        let open = opened(&live);
        let mut many = open.clone();
        many.state.counts.issued = 2;
        many.permits.extend([issued("pump-1"), issued("pump-2")]);
        let refused = save_to(&registry, &live, many).await.unwrap_err();
        assert_eq!(broken(refused), Some("INV-ROLL-2"), "the bound is one");

        let mut one = open.clone();
        one.permits.push((issued("pump-1").0, permit(Known::Silent)));
        save_to(&registry, &live, one.clone()).await.unwrap();
        live.saved.state = one.state;
        let mut again = live.moved(1, vec![Event::Tick], Moment(3));
        again.state.revision += 1;
        again.permits.push(issued("pump-1"));
        let refused = save_to(&registry, &live, again).await.unwrap_err();
        assert_eq!(broken(refused), Some("INV-ROLL-1"), "a permit is issued once");
        assert_eq!(kept_in(&registry).await.1, one.permits);
    }

    /// INV-REPLAY-1.
    #[tokio::test]
    async fn the_schema_refuses_a_manifest_that_is_not_newer() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(dir.path()).await;
        let kept = |number, epoch, sequence| Kept {
            key: KeyId([1; 32]),
            counter: Counter { epoch, sequence },
            number,
            first_at: Timestamp(1),
            received_at: Timestamp(1),
            payload: vec![0x80].into(),
            rested_at: Timestamp(0),
            events: 0,
        };
        let keep = async |kept: Kept| {
            let work = registry.step(move |step| {
                let device = DeviceId::new("pump-1").unwrap();
                Box::pin(async move { keep(step.tx(), &device, &kept).await })
            });
            work.await.map_err(|error: RegistryError| error.broken_invariant())
        };
        keep(kept(1, 2, 5)).await.unwrap();
        keep(kept(2, 2, 6)).await.unwrap();
        for (number, epoch, sequence) in [(3, 2, 6), (3, 1, 9), (2, 3, 0)] {
            let refused = keep(kept(number, epoch, sequence)).await.unwrap_err();
            assert_eq!(refused, Some("INV-REPLAY-1"), "{number} {epoch}/{sequence}");
        }
        keep(kept(3, 3, 0)).await.unwrap();
    }
}
