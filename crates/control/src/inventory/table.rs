//! What is known of devices beside their identity, in the registry's file.
//!
//! ```text
//! seen       device → at_ms, gateway                                when it was heard last, and by whom; half a minute behind
//! gateways   device, since_ms → gateway                             by whom it was heard from then on: the newest 256 of a device
//! firmware   device, number, product → version, sha256, boot, at_ms what its manifests said that was new: the newest 1,024
//! refusals   device, hour, what, reason → count, first, last        what was refused in its name: the newest 256 of a device
//! ```
//!
//! Times are milliseconds since 1970. Nothing is decided by these tables: they are for who looks back. What can be made
//! without end by who sends without end is bounded for each device, and the oldest goes (INV-COST-1). What people and
//! control itself did is in `events`, which has no end.

use super::index::Kept;
use super::refusals::Refused;
use crate::registry::RegistryError;
use api::device::{KeyCertificate, Moment};
use api::{Base64, Purpose};
use model::manifest::Manifest;
use model::{DeviceId, Timestamp};
use serde_json::{Map, Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::HashSet;

/// Laid down at each opening, after the events' own.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS seen (
    device TEXT PRIMARY KEY REFERENCES devices (id),
    at_ms INTEGER NOT NULL,
    gateway TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gateways (
    device TEXT NOT NULL REFERENCES devices (id),
    since_ms INTEGER NOT NULL,
    gateway TEXT NOT NULL,
    PRIMARY KEY (device, since_ms)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS firmware (
    device TEXT NOT NULL REFERENCES devices (id),
    number INTEGER NOT NULL,
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    boot TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (device, number, product)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusals (
    device TEXT NOT NULL REFERENCES devices (id),
    hour INTEGER NOT NULL,
    what TEXT NOT NULL,
    reason TEXT NOT NULL,
    gateway TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (device, hour, what, reason, gateway)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_of_a_device ON events (json_extract(detail, '$.device'), sequence)
WHERE json_extract(detail, '$.device') IS NOT NULL;
";

/// Rows of one device: what is older goes when a new one comes.
const GATEWAYS_MAX: i64 = 256;
const FIRMWARE_MAX: i64 = 1024;
const REFUSALS_MAX: i64 = 256;

/// When each device was heard last, and by which gateway.
pub async fn seen(
    tx: &mut SqliteConnection,
) -> Result<Vec<(DeviceId, u64, Option<String>)>, RegistryError> {
    let rows =
        sqlx::query("SELECT * FROM seen").fetch_all(tx).await.map_err(RegistryError::Read)?;
    let seen = rows.iter().map(|row| {
        let gateway = row.try_get("gateway").map_err(RegistryError::Read)?;
        Ok((device(row)?, number(row, "at_ms")?, gateway))
    });
    seen.collect()
}

/// Writes when devices were heard: two statements, however many they are.
pub async fn keep(tx: &mut SqliteConnection, kept: &[Kept]) -> Result<(), RegistryError> {
    let rows = kept.iter().map(|kept| {
        json!([
            kept.device.as_str(),
            kept.at_ms,
            kept.gateway,
            kept.moved_ms.filter(|_| kept.gateway.is_some())
        ])
    });
    let rows = Value::Array(rows.collect()).to_string();
    sqlx::query(
        "INSERT INTO seen SELECT value->>0, value->>1, value->>2 FROM json_each(?) WHERE true
         ON CONFLICT (device) DO UPDATE SET at_ms = excluded.at_ms, gateway = excluded.gateway",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await
    .map_err(RegistryError::Write)?;
    sqlx::query(
        "INSERT INTO gateways SELECT value->>0, value->>3, value->>2 FROM json_each(?)
         WHERE value->>3 IS NOT NULL AND value->>2 IS NOT
             (SELECT gateway FROM gateways WHERE device = value->>0 ORDER BY since_ms DESC LIMIT 1)
         ON CONFLICT DO NOTHING",
    )
    .bind(rows)
    .execute(&mut *tx)
    .await
    .map_err(RegistryError::Write)?;
    for moved in kept.iter().filter(|kept| kept.moved_ms.is_some()) {
        sqlx::query(
            "DELETE FROM gateways WHERE device = ?1 AND since_ms <=
             (SELECT since_ms FROM gateways WHERE device = ?1 ORDER BY since_ms DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(moved.device.as_str())
        .bind(GATEWAYS_MAX)
        .execute(&mut *tx)
        .await
        .map_err(RegistryError::Write)?;
    }
    Ok(())
}

pub async fn refused(tx: &mut SqliteConnection, refused: &[Refused]) -> Result<(), RegistryError> {
    for one in refused {
        sqlx::query(
            "INSERT INTO refusals VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (device, hour, what, reason, gateway) DO UPDATE SET
             count = count + excluded.count, last_ms = max(last_ms, excluded.last_ms)",
        )
        .bind(one.device.as_str())
        .bind(stored(one.hour))
        .bind(one.what)
        .bind(one.reason)
        .bind(one.gateway.as_deref().unwrap_or(""))
        .bind(stored(one.count))
        .bind(stored(one.first_ms))
        .bind(stored(one.last_ms))
        .execute(&mut *tx)
        .await
        .map_err(RegistryError::Write)?;
        sqlx::query(
            "DELETE FROM refusals WHERE device = ?1 AND (hour, what, reason, gateway) IN
             (SELECT hour, what, reason, gateway FROM refusals WHERE device = ?1
              ORDER BY hour DESC, what, reason, gateway LIMIT -1 OFFSET ?2)",
        )
        .bind(one.device.as_str())
        .bind(REFUSALS_MAX)
        .execute(&mut *tx)
        .await
        .map_err(RegistryError::Write)?;
    }
    Ok(())
}

/// Writes what a manifest says of each product that is not what the last one said: in the step that takes the manifest.
pub async fn runs(
    tx: &mut SqliteConnection,
    device: &DeviceId,
    manifest: &Manifest,
    number: u64,
    at: Timestamp,
) -> Result<(), RegistryError> {
    for component in &manifest.components {
        let image = component.running_image();
        let written = sqlx::query(
            "INSERT INTO firmware SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE (?4, ?5, ?6) IS NOT
             (SELECT version, sha256, boot FROM firmware WHERE device = ?1 AND product = ?3
              ORDER BY number DESC LIMIT 1)",
        )
        .bind(device.as_str())
        .bind(stored(number))
        .bind(component.product.as_str())
        .bind(image.version.to_string())
        .bind(image.digest.to_string())
        .bind(component.boot.as_str())
        .bind(at.as_us().div_euclid(1000))
        .execute(&mut *tx)
        .await
        .map_err(RegistryError::Write)?;
        if written.rows_affected() == 0 {
            continue;
        }
        sqlx::query(
            "DELETE FROM firmware WHERE device = ?1 AND (number, product) IN
             (SELECT number, product FROM firmware WHERE device = ?1
              ORDER BY number DESC, product LIMIT -1 OFFSET ?2)",
        )
        .bind(device.as_str())
        .bind(FIRMWARE_MAX)
        .execute(&mut *tx)
        .await
        .map_err(RegistryError::Write)?;
    }
    Ok(())
}

/// Files that were written before there was such a table: what the newest manifests say is where their history begins.
pub async fn runs_since_before(tx: &mut SqliteConnection) -> Result<(), RegistryError> {
    let rows = sqlx::query(
        "SELECT device, number, received_at, body FROM manifests
         WHERE device NOT IN (SELECT device FROM firmware)",
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(RegistryError::Read)?;
    for row in &rows {
        let body: Vec<u8> = row.try_get("body").map_err(RegistryError::Read)?;
        let at = row.try_get("received_at").map(Timestamp).map_err(RegistryError::Read)?;
        let (id, number) = (device(row)?, number(row, "number")?);
        let manifest = Manifest::decode(&body)
            .map_err(|_| RegistryError::Unreadable(format!("the manifest of {id}")))?;
        runs(tx, &id, &manifest, number, at).await?;
    }
    Ok(())
}

/// The part of a device's history that is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub device: DeviceId,
    pub from_ms: u64,
    pub to_ms: u64,
    /// `None`: every kind.
    pub kind: Option<String>,
    /// What comes behind this place.
    pub after: Place,
    /// At the most so many of each source.
    pub max: usize,
}

impl Asked {
    pub fn wants(&self, kind: &str) -> bool {
        self.kind.as_ref().is_none_or(|wanted| wanted == kind)
    }
}

/// A moment's place in a device's history: its time, and what decides among those of one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub at_ms: u64,
    pub source: u8,
    pub number: u64,
}

/// In the order in which moments of one time are told.
pub const OF_EVENTS: u8 = 0;
pub const OF_KEYS: u8 = 1;
pub const OF_FIRMWARE: u8 = 2;
pub const OF_GATEWAYS: u8 = 3;
pub const OF_REFUSALS: u8 = 4;
pub const OF_LOSSES: u8 = 5;
pub const OF_GAPS: u8 = 6;

/// What an event tells of a device, as it stands in the table.
#[derive(Clone, Debug)]
pub struct Told {
    pub sequence: u64,
    pub at_ms: u64,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub kind: String,
    pub detail: Map<String, Value>,
}

/// Events of the device, and those of rollouts that name it.
pub async fn events(tx: &mut SqliteConnection, asked: &Asked) -> Result<Vec<Told>, RegistryError> {
    let rows = sqlx::query(
        "SELECT * FROM (
             SELECT *, CASE
                 WHEN action IN ('device.enrol', 'device.reenrol') THEN 'key'
                 WHEN action IN ('device.list', 'device.quarantine', 'device.release', 'device.revoke',
                     'device.decommission') THEN 'standing'
                 ELSE 'act' END AS kind
             FROM events WHERE subject = 'device/' || ?1
             UNION ALL
             SELECT *, 'rollout' AS kind FROM events
             WHERE json_extract(detail, '$.device') = ?1 AND json_extract(detail, '$.device') IS NOT NULL
                 AND subject LIKE 'rollout/%'
         )
         WHERE at_ms BETWEEN ?2 AND ?3 AND (at_ms, ?4, sequence) > (?5, ?6, ?7) AND (?8 IS NULL OR kind = ?8)
         ORDER BY at_ms, sequence LIMIT ?9",
    );
    let rows = page(query(rows, asked, OF_EVENTS).bind(asked.kind.as_deref()), asked, tx).await?;
    let told = rows.iter().map(|row| {
        let sequence = number(row, "sequence")?;
        let detail: Value = serde_json::from_str(text(row, "detail")?)
            .map_err(|_| RegistryError::Unreadable(format!("event {sequence}'s detail")))?;
        let Value::Object(detail) = detail else {
            return Err(RegistryError::Unreadable(format!("event {sequence}'s detail")));
        };
        Ok(Told {
            sequence,
            at_ms: number(row, "at_ms")?,
            actor: text(row, "actor")?.to_owned(),
            action: text(row, "action")?.to_owned(),
            subject: text(row, "subject")?.to_owned(),
            kind: text(row, "kind")?.to_owned(),
            detail,
        })
    });
    told.collect()
}

/// Each key of a device with its newest certificate, oldest first.
pub async fn certificates(
    tx: &mut SqliteConnection,
    device: &DeviceId,
) -> Result<Vec<KeyCertificate>, RegistryError> {
    let rows = sqlx::query("SELECT * FROM keys WHERE device = ? ORDER BY created_at, rowid")
        .bind(device.as_str())
        .fetch_all(tx)
        .await
        .map_err(RegistryError::Read)?;
    let read = |row: &SqliteRow| {
        let purpose = Purpose::from_word(text(row, "purpose")?)
            .ok_or_else(|| RegistryError::Unreadable("a key without a purpose".into()))?;
        // As fleets show them.
        let key = match purpose {
            Purpose::Tls => text(row, "spki_sha256")?,
            Purpose::Seal => text(row, "id")?,
        };
        let certificate: Vec<u8> = row.try_get("certificate").map_err(RegistryError::Read)?;
        Ok(KeyCertificate { key: key.to_owned(), purpose, certificate: Base64(certificate) })
    };
    rows.iter().map(read).collect()
}

/// The keys of a device of which events tell.
pub async fn keys_told(
    tx: &mut SqliteConnection,
    device: &DeviceId,
) -> Result<HashSet<String>, RegistryError> {
    let keys: Vec<Option<String>> = sqlx::query_scalar(
        "SELECT DISTINCT json_extract(detail, '$.key') FROM events
         WHERE subject = 'device/' || ?1 AND action = 'device.enrol'",
    )
    .bind(device.as_str())
    .fetch_all(tx)
    .await
    .map_err(RegistryError::Read)?;
    Ok(keys.into_iter().flatten().collect())
}

/// What its manifests said that was new, the gateways that it was heard by, and what was refused in its name.
pub async fn beside(
    tx: &mut SqliteConnection,
    asked: &Asked,
) -> Result<Vec<(Place, Moment)>, RegistryError> {
    let mut moments = Vec::new();
    if asked.wants("firmware") {
        let rows = sqlx::query(
            "SELECT * FROM (
                 SELECT *, number * 16 + row_number() OVER (PARTITION BY number ORDER BY product) AS place
                 FROM firmware WHERE device = ?1
             )
             WHERE at_ms BETWEEN ?2 AND ?3 AND (at_ms, ?4, place) > (?5, ?6, ?7)
             ORDER BY at_ms, place LIMIT ?8",
        );
        for row in &page(query(rows, asked, OF_FIRMWARE), asked, tx).await? {
            let column = |name| text(row, name);
            let (product, version, boot) =
                (column("product")?, column("version")?, column("boot")?);
            let (manifest, place) = (number(row, "number")?, number(row, "place")?);
            let sentence = match boot {
                "confirmed" => format!("runs {product} {version}"),
                "trial" => format!("runs {product} {version} on trial"),
                "reverted" => format!("went back to {product} {version} by itself"),
                boot => format!("runs {product} {version} ({boot})"),
            };
            let detail = json!({
                "product": product, "version": version, "sha256": column("sha256")?, "boot": boot,
                "manifest": manifest,
            });
            moments.push(moment(OF_FIRMWARE, place, row, "at_ms", "firmware", sentence, detail)?);
        }
    }
    if asked.wants("gateway") {
        let rows = sqlx::query(
            "SELECT * FROM gateways WHERE device = ?1 AND since_ms BETWEEN ?2 AND ?3
                 AND (since_ms, ?4, 0) > (?5, ?6, ?7)
             ORDER BY since_ms LIMIT ?8",
        );
        for row in &page(query(rows, asked, OF_GATEWAYS), asked, tx).await? {
            let gateway = text(row, "gateway")?;
            let sentence = format!("heard by gateway {gateway} from here on");
            let detail = json!({ "gateway": gateway });
            moments.push(moment(OF_GATEWAYS, 0, row, "since_ms", "gateway", sentence, detail)?);
        }
    }
    if asked.wants("refusal") {
        let rows = sqlx::query(
            "SELECT *, row_number() OVER (ORDER BY first_ms, hour, what, reason, gateway) AS place
             FROM refusals WHERE device = ?1 ORDER BY first_ms, place",
        );
        // All of them: they are few, and their place is among all.
        let rows = rows.bind(asked.device.as_str()).fetch_all(&mut *tx).await;
        for row in &rows.map_err(RegistryError::Read)? {
            let (place, first_ms) = (number(row, "place")?, number(row, "first_ms")?);
            let at = Place { at_ms: first_ms, source: OF_REFUSALS, number: place };
            if at <= asked.after || !(asked.from_ms..=asked.to_ms).contains(&first_ms) {
                continue;
            }
            let (what, reason, count) =
                (text(row, "what")?, text(row, "reason")?, number(row, "count")?);
            let gateway = text(row, "gateway")?;
            let by =
                if gateway.is_empty() { String::new() } else { format!(" by gateway {gateway}") };
            let times =
                if count == 1 { String::new() } else { format!(", {count} times within the hour") };
            let sentence = format!("{what} in its name{by} refused: {reason}{times}");
            let mut detail = json!({ "reason": reason, "what": what, "count": count, "until_ms": number(row, "last_ms")? });
            if !gateway.is_empty() {
                detail["gateway"] = gateway.into();
            }
            moments.push(moment(OF_REFUSALS, place, row, "first_ms", "refusal", sentence, detail)?);
        }
    }
    Ok(moments)
}

type Sql<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn query<'q>(query: Sql<'q>, asked: &'q Asked, source: u8) -> Sql<'q> {
    query
        .bind(asked.device.as_str())
        .bind(stored(asked.from_ms))
        .bind(stored(asked.to_ms))
        .bind(i64::from(source))
        .bind(stored(asked.after.at_ms))
        .bind(i64::from(asked.after.source))
        .bind(stored(asked.after.number))
}

async fn page(
    query: Sql<'_>,
    asked: &Asked,
    tx: &mut SqliteConnection,
) -> Result<Vec<SqliteRow>, RegistryError> {
    query.bind(stored(asked.max as u64)).fetch_all(tx).await.map_err(RegistryError::Read)
}

fn moment(
    source: u8,
    place: u64,
    row: &SqliteRow,
    at: &'static str,
    kind: &str,
    sentence: String,
    detail: Value,
) -> Result<(Place, Moment), RegistryError> {
    let at_ms = number(row, at)?;
    let Value::Object(detail) = detail else { unreachable!("it is written as an object above") };
    let kind = kind.to_owned();
    let moment = Moment { at_ms, kind, sentence, actor: None, event: None, detail };
    Ok((Place { at_ms, source, number: place }, moment))
}

fn device(row: &SqliteRow) -> Result<DeviceId, RegistryError> {
    let found = text(row, "device")?;
    DeviceId::new(found).map_err(|_| RegistryError::Unreadable(format!("device {found:?}")))
}

fn number(row: &SqliteRow, column: &'static str) -> Result<u64, RegistryError> {
    let found: i64 = row.try_get(column).map_err(RegistryError::Read)?;
    u64::try_from(found).map_err(|_| RegistryError::Unreadable(format!("{column} {found}")))
}

fn text<'r>(row: &'r SqliteRow, column: &'static str) -> Result<&'r str, RegistryError> {
    row.try_get(column).map_err(RegistryError::Read)
}

/// A number as SQLite has it. What is above is held at the top: `to_ms` may be set to "all".
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
