//! One transaction of another module's, with its events.
//!
//! A step is begun when no other is under way, so that nothing comes between what it reads and what it writes. All of it is
//! durable at once or none of it is: rows, devices, the site's generation, and the events that tell of them (INV-EVID-1).
//!
//! ```text
//! events      sequence → at_ms, actor, action, subject, detail      numbered densely from 0; only ever added to
//! log         size, root                                            one row: the newest head of the evidence log that was seen
//! ```

use super::{Changed, Issued, RegistryError, retire_key, write_device, write_key};
use crate::approvals::{Both, NeedsTwo};
use crate::directory::{Device, Directory};
use crate::people::People;
use api::approval::Widening;
use evidence::event::{Event, NUMBER_MAX, Said};
use model::Timestamp;
use serde_json::Value;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;

/// Laid down at each opening, beside what the registry's own tables are.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_by_subject ON events (subject, sequence);
CREATE TRIGGER IF NOT EXISTS events_are_numbered_densely BEFORE INSERT ON events
WHEN NEW.sequence <> (SELECT coalesce(max(sequence), -1) + 1 FROM events)
BEGIN SELECT RAISE(ABORT, 'INV-EVID-1: events are numbered densely'); END;
CREATE TRIGGER IF NOT EXISTS events_do_not_change BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'INV-EVID-1: events do not change'); END;
CREATE TRIGGER IF NOT EXISTS events_do_not_go BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'INV-EVID-1: events do not go'); END;

CREATE TABLE IF NOT EXISTS log (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS the_log_grows BEFORE UPDATE ON log
WHEN NEW.size < OLD.size
BEGIN SELECT RAISE(ABORT, 'INV-EVID-1: the log grows'); END;
CREATE TRIGGER IF NOT EXISTS the_log_is_not_forgotten BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'INV-EVID-1: the log is not forgotten'); END;
";

/// What a step's closure returns: `|step| Box::pin(async move { … })`.
pub type Work<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// What came of a step that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done<T> {
    pub value: T,
    /// How many events there are, with those of this step. What tells of the step, or of what it saw, leaves when the log
    /// covers so many.
    pub events: u64,
}

/// An open transaction. See the module's head.
pub struct Step<'c> {
    tx: Transaction<'c, Sqlite>,
    pub(super) directory: Arc<Directory>,
    /// As they are when this step is committed. What is changed here is written by who changes it.
    pub(crate) people: Arc<People>,
    pub(super) numbers: Numbers,
    /// Who do this step, if it takes two.
    both: Option<Both>,
}

/// The site's two counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Raised by everything that is handed out under a number that grows.
    pub generation: u64,
    /// How many events there are: the number of the next.
    pub events: u64,
}

impl<'c> Step<'c> {
    pub(super) fn new(
        tx: Transaction<'c, Sqlite>,
        directory: Arc<Directory>,
        people: Arc<People>,
        numbers: Numbers,
    ) -> Self {
        Self { tx, directory, people, numbers, both: None }
    }

    pub(super) fn into_parts(
        self,
    ) -> (Transaction<'c, Sqlite>, Arc<Directory>, Arc<People>, Numbers) {
        (self.tx, self.directory, self.people, self.numbers)
    }

    /// Where the queries of this step go. What they find wrong is an error of the step's, and nothing of it is kept.
    pub fn tx(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// The fleet as it is when this step is committed.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The site's generation. It is at least the directory's.
    pub fn generation(&self) -> u64 {
        self.numbers.generation
    }

    /// Raises the site's generation by one, and returns it. Gateways fetch no bundle for it.
    pub async fn raise_generation(&mut self) -> Result<u64, RegistryError> {
        self.raise_generation_above(self.numbers.generation).await
    }

    /// Raises the site's generation above one that was seen elsewhere, and returns it.
    pub async fn raise_generation_above(&mut self, seen: u64) -> Result<u64, RegistryError> {
        let next = seen.max(self.numbers.generation).saturating_add(1);
        if next > NUMBER_MAX {
            return Err(RegistryError::GenerationTooHigh { found: next });
        }
        sqlx::query("UPDATE site SET generation = ?")
            .bind(stored(next))
            .execute(self.tx())
            .await
            .map_err(RegistryError::Write)?;
        self.numbers.generation = next;
        Ok(next)
    }

    /// For whoever writes what can need two people, where it is written: no way leads past it (INV-LEAST-1).
    pub(crate) fn expect_two(&self, what: Widening) -> Result<(), NeedsTwo> {
        match self.both {
            None if self.people.needs_two(what) => Err(NeedsTwo(what)),
            _ => Ok(()),
        }
    }

    /// From here on this step is what two people do, and its events name both.
    pub(crate) fn by_both(&mut self, both: Both) {
        self.both = Some(both);
    }

    /// Writes an event of what this step does. Returns its number.
    pub async fn say(&mut self, mut said: Said) -> Result<u64, RegistryError> {
        if let Some(Both { approval, asked_by, approved_by }) = &self.both {
            let names = [
                ("approval", approval.to_string()),
                ("asked_by", asked_by.to_string()),
                ("approved_by", approved_by.to_string()),
            ];
            said.detail.extend(names.map(|(word, name)| (word.to_owned(), name.into())));
        }
        let sequence = self.numbers.events;
        // What could not be a leaf of the log is refused here, where it is still nobody's burden.
        let event = Event::new(sequence, said).map_err(RegistryError::Event)?;
        let detail = serde_json::to_string(event.detail()).expect("an object has a JSON form");
        sqlx::query("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)")
            .bind(stored(sequence))
            .bind(stored(event.at_ms()))
            .bind(event.actor())
            .bind(event.action())
            .bind(event.subject())
            .bind(detail)
            .execute(self.tx())
            .await
            .map_err(RegistryError::Write)?;
        self.numbers.events += 1;
        Ok(sequence)
    }

    /// Writes one device as it is to be. The directory of this step has it from here on.
    pub(super) async fn put(
        &mut self,
        next: Device,
        issued: Option<&Issued>,
    ) -> Result<Changed, RegistryError> {
        let generation = self.raise_generation().await?;
        let before = self.directory.device(&next.id).cloned();
        let write = async {
            write_device(&mut self.tx, &next).await?;
            for key in &next.keys {
                let known = before.as_ref().is_some_and(|before| before.keys.contains(key));
                let certificate = issued.filter(|issued| issued.key.spki_sha256 == key.spki_sha256);
                match certificate {
                    Some(issued) => {
                        write_key(&mut self.tx, &next.id, key, &issued.certificate).await?;
                    }
                    None if known => {}
                    None => retire_key(&mut self.tx, key).await?,
                }
            }
            Ok(())
        };
        write.await.map_err(RegistryError::Write)?;
        let id = next.id.clone();
        self.directory = Arc::new(self.directory.with(generation, next));
        let device = self.directory.device(&id).expect("it was put there").clone();
        Ok(Changed { generation, device, events: self.numbers.events })
    }
}

/// An event to be: who did what to what, at a time of control's clock. `detail` is a JSON object.
pub fn said(
    now: Timestamp,
    actor: impl Display,
    action: &str,
    subject: impl Display,
    detail: Value,
) -> Said {
    let detail = match detail {
        Value::Object(detail) => detail,
        Value::Null => serde_json::Map::new(),
        other => [("value".to_owned(), other)].into_iter().collect(),
    };
    Said {
        at_ms: now.as_ms(),
        actor: actor.to_string(),
        action: action.to_owned(),
        subject: subject.to_string(),
        detail,
    }
}

/// A number as SQLite has it.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).expect("numbers here stay below 2^53")
}
