//! The registry by itself: what is found again, and what is refused.

use crate::world::{Got, Setup, World};
use api::{Ownership, Purpose, Role, Standing};
use control::directory::Key;
use control::registry::{Issued, Registry, RegistryError};
use model::envelope::Algorithm;
use model::{DeviceId, Timestamp};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use std::convert::Infallible;
use std::path::Path;
use trust::cose::{SecretKey, Signer as _};

const POLICIES: &str = "// none";

async fn open(path: &Path) -> Result<Registry, RegistryError> {
    Registry::open(path, "site", POLICIES).await
}

fn pump(n: i64) -> Ownership {
    Ownership { serial: format!("PUMP-{n}"), role: Role::Device, zone: "hall".into(), group: None }
}

async fn edit(path: &Path, sql: &'static str) -> Result<(), sqlx::Error> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection: SqliteConnection = options.connect().await?;
    sqlx::raw_sql(sql).execute(&mut connection).await?;
    connection.close().await
}

#[tokio::test]
async fn what_was_changed_is_found_again_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/registry.sqlite");
    let registry = open(&path).await.unwrap();
    for n in 0..4 {
        let changed = registry.list(&pump(n), &"token/site".into(), Timestamp(n)).await.unwrap();
        assert_eq!(changed.generation, 2 + n as u64);
    }
    let before = registry.directory();
    registry.close().await;
    let closed = registry.list(&pump(9), &"token/site".into(), Timestamp(9)).await.unwrap_err();
    assert_eq!(closed.to_string(), "the registry is closed");
    assert!(!path.with_extension("sqlite-wal").exists(), "everything is in the one file");
    let again = open(&path).await.unwrap();
    assert_eq!(*again.directory(), *before);
    drop(again);
    let other = Registry::open(&path, "site", "// others").await.unwrap();
    assert_eq!(other.directory().generation(), before.generation() + 1, "gateways must fetch them");
}

/// A second process would have a directory of its own.
#[tokio::test]
async fn a_registry_has_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    let first = open(&path).await.unwrap();
    first.list(&pump(1), &"token/site".into(), Timestamp(1)).await.unwrap();
    let second = open(&path).await.unwrap_err();
    assert!(matches!(second, RegistryError::Open { .. }), "{second}");
    first.list(&pump(2), &"token/site".into(), Timestamp(2)).await.unwrap();
}

/// INV-MIX-1.
#[tokio::test]
async fn a_registry_of_another_release_or_site_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    drop(open(&path).await.unwrap());
    let other = Registry::open(&path, "elsewhere", POLICIES).await.unwrap_err();
    assert!(other.to_string().ends_with("is of site `site`, expected `elsewhere`"), "{other}");
    edit(&path, "UPDATE schema_version SET version = 3").await.unwrap();
    for _ in 0..2 {
        let newer = open(&path).await.unwrap_err();
        let expected = "has schema version 3, expected 2: another release wrote it";
        assert!(newer.to_string().ends_with(expected), "{newer}");
    }
    edit(&path, "UPDATE schema_version SET version = 2").await.unwrap();
    open(&path).await.unwrap();
}

/// INV-STATE-1, INV-FRESH-1, INV-PURP-1: the schema refuses too, should the code ever not.
#[tokio::test]
async fn the_schema_holds_what_the_code_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    let registry = open(&path).await.unwrap();
    registry.list(&pump(1), &"token/site".into(), Timestamp(1)).await.unwrap();
    registry.list(&pump(2), &"token/site".into(), Timestamp(1)).await.unwrap();
    drop(registry);
    edit(
        &path,
        "UPDATE devices SET standing = 'enrolled' WHERE id = 'pump-1';
         INSERT INTO keys VALUES ('aa', 'bb', 'pump-1', 'tls', x'00', x'00', 1, 1, NULL, NULL)",
    )
    .await
    .unwrap();
    for (sql, reason) in [
        ("UPDATE site SET generation = generation", "INV-FRESH-1"),
        ("UPDATE site SET generation = 1", "INV-FRESH-1"),
        ("UPDATE devices SET standing = 'listed' WHERE id = 'pump-1'", "INV-STATE-1"),
        ("UPDATE devices SET standing = 'revoked' WHERE id = 'pump-2'", "INV-STATE-1"),
        ("UPDATE devices SET standing = 'boss' WHERE id = 'pump-2'", "INV-STATE-1"),
        ("UPDATE keys SET purpose = 'seal'", "INV-PURP-1"),
        ("UPDATE keys SET device = 'pump-2'", "INV-PURP-1"),
        (
            "INSERT INTO keys VALUES ('aa', 'cc', 'pump-2', 'seal', x'00', x'00', 1, 1, NULL, NULL)",
            "UNIQUE",
        ),
        ("UPDATE keys SET retired_at = 5; UPDATE keys SET retired_at = NULL", "INV-STATE-1"),
        ("UPDATE keys SET ended_at = 5; UPDATE keys SET ended_at = NULL", "INV-STATE-1"),
        (
            "UPDATE devices SET standing = 'decommissioned' WHERE id = 'pump-2';
             UPDATE devices SET standing = 'listed' WHERE id = 'pump-2'",
            "INV-STATE-1",
        ),
        (
            "INSERT INTO devices VALUES ('x', 'X', 'device', 'hall', 'listed', 1, NULL, 1)",
            "FOREIGN KEY",
        ),
    ] {
        let refused = edit(&path, sql).await.expect_err(sql).to_string();
        assert!(refused.contains(reason), "{sql}: {refused}");
    }
}

/// INV-AUTH-1: should enrolment ever grant a revoked device something, it is refused where it would become durable, also in
/// a file that an older build of the same version made.
#[tokio::test]
async fn a_revoked_device_gets_no_certificate_past_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    drop(open(&path).await.unwrap());
    edit(&path, "DROP TRIGGER a_revoked_device_gets_no_certificate").await.unwrap();
    let registry = open(&path).await.unwrap();
    registry.list(&pump(1), &"token/site".into(), Timestamp(1)).await.unwrap();
    let id = DeviceId::new("pump-1").unwrap();
    let grant = async |key: &Key| {
        let issued = Issued { device: id.clone(), key: key.clone(), certificate: vec![1] };
        registry.enrol(Timestamp(2), move |_| Ok::<_, Infallible>(issued)).await
    };
    let (first, second) = (seal_key(1), seal_key(2));
    grant(&first).await.unwrap().unwrap();
    registry
        .set_standing(&id, Standing::Revoked, &"token/site".into(), Timestamp(3))
        .await
        .unwrap();
    let before = registry.directory();
    for key in [&first, &second] {
        let refused = grant(key).await.unwrap_err();
        assert_eq!(refused.broken_invariant(), Some("INV-AUTH-1"), "{refused}");
        assert_eq!(*registry.directory(), *before);
    }
}

fn seal_key(seed: u8) -> Key {
    let secret = SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).unwrap();
    let public = secret.public().clone();
    let spki = public.to_spki_der();
    Key {
        purpose: Purpose::Seal,
        id: public.id(),
        spki_sha256: trust::digest(&spki),
        public,
        spki,
        created_at: Timestamp(2),
        not_after: Timestamp(9),
        retired_at: None,
        ended_at: None,
    }
}

/// A change that fails leaves file and directory as they were, is counted, and the next one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_schema_refuses_leaves_everything_as_it_was() {
    let world = World::new().await;
    world.list("pump-1", Role::Device, "hall").await;
    let World { dir, site, maker, shards, control } = world;
    control.shutdown().await;
    let path = dir.path().join("control/registry.sqlite");
    edit(
        &path,
        "CREATE TRIGGER planted BEFORE INSERT ON devices WHEN NEW.id = 'pump-9'
         BEGIN SELECT RAISE(ABORT, 'INV-STATE-1: planted by a test'); END",
    )
    .await
    .unwrap();
    let control =
        crate::world::start(&dir, &site, &maker, &shards, Setup::default()).await.unwrap();
    let world = World { dir, site, maker, shards, control };
    let before = world.control.registry().directory();
    let entry = serde_json::json!({ "serial": "pump-9", "role": "device", "zone": "hall" });
    let request = world.operator(reqwest::Method::POST, api::path::OWNERSHIP);
    let request = request.header("content-type", "application/json").body(entry.to_string());
    assert_eq!(Got::of(request).await.refusal(), (500, "failed".into()));
    assert_eq!(world.metric("plimsoll_invariant_violations_total{invariant=\"INV-STATE-1\"}"), 1);
    assert_eq!(*world.control.registry().directory(), *before);
    world.list("pump-2", Role::Device, "hall").await;
    assert_eq!(world.control.registry().directory().generation(), before.generation() + 1);
}

#[tokio::test]
async fn a_registry_that_cannot_mean_what_it_says_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    let registry = open(&path).await.unwrap();
    registry.list(&pump(1), &"token/site".into(), Timestamp(1)).await.unwrap();
    drop(registry);
    edit(
        &path,
        "INSERT INTO keys VALUES ('aa', 'bb', 'pump-1', 'tls', x'00', x'00', 1, 1, NULL, NULL)",
    )
    .await
    .unwrap();
    let refused = open(&path).await.unwrap_err();
    assert_eq!(refused.to_string(), "registry holds what it cannot mean: a key that is none");
}

/// Many at once: each is one change, none is lost, and the directory is what the file holds.
#[tokio::test(flavor = "multi_thread")]
async fn changes_come_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    let registry = open(&path).await.unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let registry = registry.clone();
            tokio::spawn(async move {
                registry.list(&pump(n % 20), &"token/site".into(), Timestamp(n)).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let directory = registry.directory();
    assert_eq!((directory.len(), directory.generation()), (20, 21));
    let id = DeviceId::new("pump-3").unwrap();
    assert_eq!(directory.device(&id).unwrap().standing, Standing::Listed);
    drop(registry);
    assert_eq!(*open(&path).await.unwrap().directory(), *directory);
}

/// A file that version 1 wrote, with all that was in it, goes on: INV-MIX-1 refuses what is newer, not what is older.
#[tokio::test]
async fn a_registry_of_version_1_is_taken_over_whole_and_can_do_what_version_2_can() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    std::fs::write(&path, "").unwrap();
    edit(&path, include_str!("registry/v1.sql")).await.unwrap();
    let policies = "// others than were in it";
    let registry = Registry::open(&path, "site", policies).await.unwrap();
    let directory = registry.directory();
    let shown = |id: &str| {
        let device = directory.device(&DeviceId::new(id).unwrap()).unwrap();
        (device.standing, device.keys.len(), device.group.to_string())
    };
    for id in ["gw-1", "host-1", "replay-1"] {
        assert_eq!(shown(id), (Standing::Enrolled, 2, "production".to_owned()), "{id}");
    }
    assert_eq!(registry.events(), 11, "ten that were there, and that policies are others");
    let (host, by) = (DeviceId::new("host-1").unwrap(), "token/site".into());
    registry.take_keys(&host, &by, Timestamp(5)).await.unwrap();
    registry.set_standing(&host, Standing::Decommissioned, &by, Timestamp(6)).await.unwrap();
    let before = registry.directory();
    registry.close().await;
    let again = Registry::open(&path, "site", policies).await.unwrap();
    assert_eq!(*again.directory(), *before);
    let host = before.device(&host).unwrap();
    assert!(host.keys.iter().all(|key| key.ended_at == Some(Timestamp(5))), "{host:?}");
    again.close().await;
    // What refers to devices still does, and what holds their standing still does.
    for (sql, reason) in [
        ("INSERT INTO seen VALUES ('nobody', 1, NULL)", "FOREIGN KEY"),
        ("DELETE FROM devices WHERE id = 'replay-1'", "FOREIGN KEY"),
        ("UPDATE devices SET standing = 'enrolled' WHERE id = 'host-1'", "INV-STATE-1"),
        (
            "INSERT INTO keys VALUES ('aa', 'bb', 'host-1', 'tls', x'00', x'00', 1, 1, NULL, NULL)",
            "INV-AUTH-1",
        ),
    ] {
        let refused = edit(&path, sql).await.expect_err(sql).to_string();
        assert!(refused.contains(reason), "{sql}: {refused}");
    }
    edit(&path, "UPDATE site SET generation = 900; UPDATE devices SET changed_at = 7")
        .await
        .unwrap();
    let followed = Registry::open(&path, "site", policies).await.unwrap();
    assert_eq!(followed.directory().generation(), 900, "triggers follow what is written");
}

/// A migration that does not end leaves the file as it was, for the release that wrote it.
#[tokio::test]
async fn a_registry_of_version_1_that_cannot_be_taken_over_stays_of_version_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    std::fs::write(&path, "").unwrap();
    edit(&path, include_str!("registry/v1.sql")).await.unwrap();
    edit(&path, "PRAGMA foreign_keys = OFF; DELETE FROM ownership WHERE serial = 'host-1'")
        .await
        .unwrap();
    let refused = open(&path).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "registry holds what it cannot mean: 2 rows that name what is not there"
    );
    // Nothing of the new table is left, and the version is what it was.
    let still = "CREATE TABLE devices_2 (version CHECK (version = 1));
         INSERT INTO devices_2 SELECT version FROM schema_version";
    edit(&path, still).await.unwrap();
}
