//! One transaction of another module's: all of it with its events, or nothing.

use api::{Ownership, Role, Standing};
use control::registry::{Registry, RegistryError, Work, said};
use model::{DeviceId, Timestamp};
use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no such thing")]
    NotNow,
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

async fn open(path: &Path) -> Registry {
    Registry::open(path, "site", "// none").await.unwrap()
}

async fn edit(path: &Path, sql: &'static str) -> Result<(), sqlx::Error> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection: SqliteConnection = options.connect().await?;
    sqlx::raw_sql(sql).execute(&mut connection).await?;
    connection.close().await
}

fn pump(n: u8) -> Ownership {
    Ownership { serial: format!("PUMP-{n}"), role: Role::Device, zone: "hall".into(), group: None }
}

/// A table of a test's own, a row in it, a raised generation and an event: what a module does in a step.
async fn noted(
    registry: &Registry,
    word: &'static str,
    then: Result<u64, Refused>,
) -> Result<(u64, u64), Refused> {
    let done = registry.step(move |step| {
        Box::pin(async move {
            for sql in [
                "CREATE TABLE IF NOT EXISTS notes (word TEXT) STRICT",
                "INSERT INTO notes VALUES (?)",
            ] {
                let bound =
                    if sql.contains('?') { sqlx::query(sql).bind(word) } else { sqlx::query(sql) };
                bound.execute(step.tx()).await.map_err(RegistryError::Write)?;
            }
            let generation = step.raise_generation().await?;
            let detail = json!({ "word": word, "generation": generation });
            step.say(said(Timestamp(7_000), "token/site", "test.note", "site", detail)).await?;
            then.map(|_| generation)
        })
    });
    done.await.map(|done| (done.value, done.events))
}

async fn notes(registry: &Registry) -> Vec<String> {
    let read = registry.read(|connection| -> Work<'_, Vec<String>, RegistryError> {
        Box::pin(async move {
            let words = sqlx::query_scalar("SELECT word FROM notes").fetch_all(connection).await;
            words.map_err(RegistryError::Read)
        })
    });
    read.await.unwrap()
}

/// Sequence, actor, action, subject, detail.
type Told = (i64, String, String, String, serde_json::Value);

async fn told(registry: &Registry) -> Vec<Told> {
    let read = registry.read(|connection| -> Work<'_, Vec<Told>, RegistryError> {
        Box::pin(async move {
            let rows =
                sqlx::query("SELECT * FROM events ORDER BY sequence").fetch_all(connection).await;
            let rows = rows.map_err(RegistryError::Read)?;
            Ok(rows
                .iter()
                .map(|row| {
                    (
                        row.get(0),
                        row.get(2),
                        row.get(3),
                        row.get(4),
                        serde_json::from_str(row.get(5)).unwrap(),
                    )
                })
                .collect())
        })
    });
    read.await.unwrap()
}

/// INV-EVID-1: rows, generation and event are one thing.
#[tokio::test]
async fn a_step_is_durable_with_its_events_and_a_refused_one_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    let registry = open(&path).await;
    assert_eq!(noted(&registry, "one", Ok(0)).await.unwrap(), (2, 1));
    let refused = noted(&registry, "two", Err(Refused::NotNow)).await.unwrap_err();
    assert!(matches!(refused, Refused::NotNow), "{refused}");
    assert_eq!((registry.generation(), registry.events()), (2, 1));
    assert_eq!(noted(&registry, "three", Ok(0)).await.unwrap(), (3, 2));
    registry.close().await;
    let again = open(&path).await;
    assert_eq!((again.generation(), again.events()), (3, 2));
    assert_eq!(notes(&again).await, ["one", "three"]);
    let told = told(&again).await;
    let numbers: Vec<_> = told.iter().map(|told| told.0).collect();
    assert_eq!(numbers, [0, 1]);
    assert_eq!(told[1].4, json!({ "generation": 3, "word": "three" }));
}

/// A query that fails ends a step as a refusal does; the next one goes on.
#[tokio::test]
async fn a_step_that_fails_or_panics_leaves_the_registry_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let registry = open(&dir.path().join("registry.sqlite")).await;
    registry.list(&pump(1), &"token/site".into(), Timestamp(1)).await.unwrap();
    let before = (registry.directory(), registry.generation(), registry.events());
    let failed = registry.step(|step| -> Work<'_, (), RegistryError> {
        Box::pin(async move {
            step.raise_generation().await?;
            sqlx::query("INSERT INTO nowhere VALUES (1)")
                .execute(step.tx())
                .await
                .map_err(RegistryError::Write)?;
            Ok(())
        })
    });
    assert!(matches!(failed.await, Err(RegistryError::Write(_))));
    let panicked = registry.step(|step| -> Work<'_, (), RegistryError> {
        Box::pin(async move {
            step.raise_generation().await?;
            panic!("planted by a test");
        })
    });
    assert!(matches!(panicked.await, Err(RegistryError::GivenUp)));
    let nothing = registry.step(|step| -> Work<'_, (), RegistryError> {
        let unnamed = said(Timestamp(1), "", "test.note", "site", json!({}));
        Box::pin(async move { step.say(unnamed).await.map(drop) })
    });
    assert!(matches!(nothing.await, Err(RegistryError::Event(_))));
    assert_eq!((registry.directory(), registry.generation(), registry.events()), before);
    let changed = registry.list(&pump(2), &"token/site".into(), Timestamp(2)).await.unwrap();
    assert_eq!((changed.generation, changed.events), (before.1 + 1, before.2 + 1));
}

#[tokio::test]
async fn a_step_whose_caller_went_away_runs_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let registry = open(&dir.path().join("registry.sqlite")).await;
    let (begun, mut has_begun) = tokio::sync::oneshot::channel();
    let (go, may_go) = tokio::sync::oneshot::channel::<()>();
    let step = registry.step(move |step| -> Work<'_, u64, RegistryError> {
        Box::pin(async move {
            begun.send(()).unwrap();
            may_go.await.unwrap();
            step.raise_generation().await
        })
    });
    tokio::select! {
        biased;
        _ = &mut has_begun => {}
        _ = step => panic!("it waits for leave"),
    }
    go.send(()).unwrap();
    // The next step waits for the one before.
    let next = registry.step(|step| -> Work<'_, u64, RegistryError> {
        let generation = step.generation();
        Box::pin(async move { Ok(generation) })
    });
    assert_eq!(next.await.unwrap().value, 2);
}

/// Gateways fetch bundles when the directory has changed, and not whenever something is given a number.
#[tokio::test]
async fn the_directory_stays_while_the_sites_generation_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    let registry = open(&path).await;
    let listed = registry.list(&pump(1), &"token/site".into(), Timestamp(1)).await.unwrap();
    let mut watch = registry.watch();
    watch.mark_unchanged();
    let raised = registry.step(|step| -> Work<'_, u64, RegistryError> {
        Box::pin(async move {
            step.raise_generation().await?;
            step.raise_generation_above(900).await
        })
    });
    assert_eq!(raised.await.unwrap().value, 901);
    assert!(!watch.has_changed().unwrap());
    assert_eq!(
        (registry.directory().generation(), registry.generation()),
        (listed.generation, 901)
    );
    registry.close().await;
    let again = open(&path).await;
    assert_eq!((again.directory().generation(), again.generation()), (listed.generation, 901));
    let next = again.list(&pump(2), &"token/site".into(), Timestamp(1)).await.unwrap();
    assert_eq!(
        (next.generation, again.directory().generation(), again.generation()),
        (902, 902, 902)
    );
    let too_high = again.step(|step| -> Work<'_, u64, RegistryError> {
        Box::pin(step.raise_generation_above((1 << 53) - 1))
    });
    let too_high = too_high.await.unwrap_err().to_string();
    assert_eq!(too_high, "the generation would be 9007199254740992, expected at most 2^53 - 1");
}

/// What an operator changes has its event, so has what was refused him, and what changes nothing has none.
#[tokio::test]
async fn each_change_of_the_fleet_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let registry = open(&dir.path().join("registry.sqlite")).await;
    registry.list(&pump(1), &"token/site".into(), Timestamp(1)).await.unwrap();
    registry.list(&pump(1), &"token/site".into(), Timestamp(2)).await.unwrap();
    let id = DeviceId::new("pump-1").unwrap();
    registry
        .set_standing(&id, Standing::Quarantined, &"token/site".into(), Timestamp(3))
        .await
        .unwrap_err();
    registry.close().await;
    let path = dir.path().join("registry.sqlite");
    let registry = Registry::open(&path, "site", "// others").await.unwrap();
    registry.close().await;
    let registry = Registry::open(&path, "site", "// others").await.unwrap();
    let told = told(&registry).await;
    let detail = json!({
        "group": "production", "role": "device", "serial": "PUMP-1", "zone": "hall",
    });
    let text = |text: &str| text.to_owned();
    let listed = (0, text("token/site"), text("device.list"), text("device/pump-1"), detail);
    let detail = json!({ "from": "listed", "to": "quarantined" });
    let refused = (1, text("token/site"), text("device.refused"), text("device/pump-1"), detail);
    let policies = |word: &str| trust::digest(word.as_bytes()).to_string();
    let (old, new) = (policies("// none"), policies("// others"));
    let detail = json!({ "from_sha256": old, "to_sha256": new });
    let changed = (2, text("token/site"), text("policy.change"), text("site"), detail);
    assert_eq!(told, [listed, refused, changed]);
}

/// A file of version 1 from before events, whose site's generation an older build went on raising alone.
#[tokio::test]
async fn a_file_of_before_events_is_opened_and_a_build_of_then_may_write_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    let registry = open(&path).await;
    registry.list(&pump(1), &"token/site".into(), Timestamp(1)).await.unwrap();
    registry.close().await;
    let before = "DROP TABLE events; DROP TABLE log; DROP TABLE directory;
         DROP TRIGGER a_new_device_changes_the_directory; DROP TRIGGER a_device_changes_the_directory;
         DROP TRIGGER a_new_key_changes_the_directory; DROP TRIGGER a_key_changes_the_directory;
         DROP TRIGGER policies_change_the_directory;
         UPDATE site SET generation = 40";
    edit(&path, before).await.unwrap();
    let registry = open(&path).await;
    assert_eq!((registry.directory().generation(), registry.generation()), (40, 40));
    assert_eq!(registry.events(), 0);
    registry.close().await;
    edit(&path, "UPDATE site SET generation = generation + 1; UPDATE devices SET changed_at = 9")
        .await
        .unwrap();
    edit(&path, "UPDATE site SET generation = generation + 1").await.unwrap();
    let registry = open(&path).await;
    assert_eq!((registry.directory().generation(), registry.generation()), (41, 42));
}

/// INV-EVID-1: the schema refuses too, should the code ever not.
#[tokio::test]
async fn no_event_is_changed_taken_away_or_put_between_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.sqlite");
    let registry = open(&path).await;
    registry.list(&pump(1), &"token/site".into(), Timestamp(1)).await.unwrap();
    registry.close().await;
    edit(&path, "INSERT INTO log VALUES (1, 1, x'00')").await.unwrap();
    for sql in [
        "UPDATE events SET actor = 'nobody'",
        "DELETE FROM events",
        "INSERT INTO events VALUES (0, 1, 'a', 'b', 'c', '{}')",
        "INSERT INTO events VALUES (2, 1, 'a', 'b', 'c', '{}')",
        "INSERT OR REPLACE INTO events VALUES (0, 1, 'a', 'b', 'c', '{}')",
        "UPDATE log SET size = 0",
        "DELETE FROM log",
    ] {
        let refused = edit(&path, sql).await.expect_err(sql).to_string();
        assert!(refused.contains("INV-EVID-1"), "{sql}: {refused}");
    }
    let refused = edit(&path, "UPDATE directory SET generation = 1").await.unwrap_err().to_string();
    assert!(refused.contains("INV-FRESH-1"), "{refused}");
}
