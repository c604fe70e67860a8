//! What the registry keeps of the evidence log: its events, and the newest head that was seen of it.

use super::step::stored;
use super::{Registry, RegistryError, Work, number, text};
use evidence::event::Said;
use evidence::{Event, Hash, Head};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

impl Registry {
    /// Up to `max` events from a number on, ascending; only those of a subject, if one is named.
    pub async fn told(
        &self,
        from: u64,
        subject: Option<String>,
        max: usize,
    ) -> Result<Vec<Event>, RegistryError> {
        let read = self.read(move |connection| -> Work<'_, Vec<SqliteRow>, RegistryError> {
            Box::pin(async move {
                let query = match &subject {
                    None => sqlx::query("SELECT * FROM events WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2"),
                    Some(_) => sqlx::query(
                        "SELECT * FROM events WHERE sequence >= ?1 AND subject = ?3 ORDER BY sequence LIMIT ?2",
                    ),
                };
                // What is beyond the largest number of SQLite is beyond every event.
                let from = i64::try_from(from).unwrap_or(i64::MAX);
                let query = query.bind(from).bind(i64::try_from(max).unwrap_or(i64::MAX));
                let query = match subject {
                    None => query,
                    Some(subject) => query.bind(subject),
                };
                query.fetch_all(connection).await.map_err(RegistryError::Read)
            })
        });
        read.await?.iter().map(event_of).collect()
    }

    /// The newest head of the evidence log that was seen.
    pub async fn known_head(&self) -> Result<Option<Head>, RegistryError> {
        let read = self.read(|connection| -> Work<'_, Option<SqliteRow>, RegistryError> {
            Box::pin(async move {
                let row = sqlx::query("SELECT * FROM log").fetch_optional(connection).await;
                row.map_err(RegistryError::Read)
            })
        });
        let Some(row) = read.await? else { return Ok(None) };
        let root: Vec<u8> = row.try_get("root").map_err(RegistryError::Read)?;
        let root = root.try_into().map(Hash);
        let root = root.map_err(|_| RegistryError::Unreadable("a root that is no hash".into()))?;
        Ok(Some(Head { size: number(&row, "size")?, root }))
    }

    /// Keeps the newest head of the evidence log, so that an older log is known for one (INV-EVID-1).
    pub async fn see_head(&self, head: Head) -> Result<(), RegistryError> {
        let step = self.step(move |step| -> Work<'_, (), RegistryError> {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO log VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET
                     size = excluded.size, root = excluded.root",
                )
                .bind(stored(head.size))
                .bind(head.root.0.to_vec())
                .execute(step.tx())
                .await
                .map_err(RegistryError::Write)?;
                Ok(())
            })
        });
        step.await.map(|done| done.value)
    }
}

fn event_of(row: &SqliteRow) -> Result<Event, RegistryError> {
    let sequence = number(row, "sequence")?;
    let no_event = |why: &dyn std::fmt::Display| {
        RegistryError::Unreadable(format!("an event {sequence} that is none: {why}"))
    };
    let said = Said {
        at_ms: number(row, "at_ms")?,
        actor: text(row, "actor")?.to_owned(),
        action: text(row, "action")?.to_owned(),
        subject: text(row, "subject")?.to_owned(),
        detail: serde_json::from_str(text(row, "detail")?).map_err(|e| no_event(&e))?,
    };
    Event::new(sequence, said).map_err(|e| no_event(&e))
}
