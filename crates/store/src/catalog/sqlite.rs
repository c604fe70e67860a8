//! The catalog as a file of SQLite: WAL with `synchronous=FULL` (`NORMAL` loses steps at a power cut), one connection,
//! every transaction `BEGIN IMMEDIATE`.
//!
//! sqlx runs SQLite on a thread of its own, so waiting for it needs no runtime. Its transactions are not used: when the
//! disk is full SQLite rolls back by itself, and sqlx then believes for ever that it is inside of one.
//!
//! A full disk shows as `SQLITE_FULL` where the log grows, and as `SQLITE_IOERR_SHMSIZE` where the log's index does, which
//! is made anew at each opening. Nothing of a transaction that ended so takes effect.

use super::{Catalog, CatalogError, Commit, FileEntry, Mark, Place, Step};
use crate::file::FileName;
use futures::executor::block_on;
use model::Timestamp;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// `PRAGMA user_version` of the schema below. A newer one is refused; an older one would be moved up here.
const VERSION: i64 = 1;

/// `SQLITE_FULL` and `SQLITE_IOERR_SHMSIZE`, as extended result codes.
const FULL: [&str; 2] = ["13", "4874"];

const SCHEMA: &str = "
CREATE TABLE shards (
    shard   INTEGER PRIMARY KEY,
    claim   INTEGER NOT NULL,
    next    INTEGER NOT NULL,
    taken   TEXT
) STRICT;
CREATE TABLE files (
    name        TEXT PRIMARY KEY,
    row_count   INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    time_min    INTEGER NOT NULL,
    time_max    INTEGER NOT NULL,
    device_min  TEXT NOT NULL,
    device_max  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE marks (
    shard   INTEGER NOT NULL,
    next    INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    PRIMARY KEY (shard, next)
) STRICT, WITHOUT ROWID;
";

pub struct SqliteCatalog {
    connection: Mutex<SqliteConnection>,
    shards: u32,
}

impl SqliteCatalog {
    /// Opens or makes the catalog. `shards` must be what it was made with.
    pub fn open(path: &Path, shards: u32) -> Result<Self, CatalogError> {
        block_on(async {
            let options = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                // Another process holds the file for the length of one step.
                .busy_timeout(Duration::from_secs(10))
                .disable_statement_logging();
            let mut connection = options.connect().await.map_err(failed("open the catalog"))?;
            prepare(&mut connection, shards).await?;
            Ok(Self { connection: Mutex::new(connection), shards })
        })
    }

    /// Bounds the file, for this process: beyond so many pages of 4 KiB there is no room, as on a disk that is full. At
    /// least as many as it has.
    pub fn set_pages_max(&self, pages: u32) -> Result<(), CatalogError> {
        let pragma = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        let mut connection = self.connection();
        let set = block_on(sqlx::raw_sql(pragma).execute(&mut *connection));
        set.map(drop).map_err(failed("bound the catalog"))
    }

    fn connection(&self) -> MutexGuard<'_, SqliteConnection> {
        self.connection.lock().expect("nothing panics while it holds the catalog")
    }
}

/// Whether the work of a transaction is to take effect.
enum Ended<T> {
    Commit(T),
    RollBack(T),
}

/// All of the work takes effect, or after an error or [`Ended::RollBack`] none.
async fn transaction<T>(
    connection: &mut SqliteConnection,
    failed: &impl Fn(sqlx::Error) -> CatalogError,
    work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<Ended<T>, CatalogError>,
) -> Result<T, CatalogError> {
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await.map_err(failed)?;
    let ended = match work(&mut *connection).await {
        Ok(Ended::Commit(answer)) => {
            sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(failed).map(|_| answer)
        }
        Ok(Ended::RollBack(answer)) => {
            let rolled_back = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await;
            return rolled_back.map_err(failed).map(|_| answer);
        }
        Err(error) => Err(error),
    };
    if ended.is_err() {
        // It fails where SQLite has rolled back by itself. Where it fails otherwise, the next transaction cannot begin.
        let _ = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await;
    }
    ended
}

async fn prepare(connection: &mut SqliteConnection, shards: u32) -> Result<(), CatalogError> {
    let failed = failed("prepare the catalog");
    transaction(connection, &failed, async |step| {
        let found: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *step)
            .await
            .map_err(&failed)?;
        if found > VERSION {
            return Err(CatalogError::Newer { expected: VERSION, found });
        }
        if found == 0 {
            sqlx::raw_sql(SCHEMA).execute(&mut *step).await.map_err(&failed)?;
            for shard in 0..shards {
                sqlx::query("INSERT INTO shards VALUES (?, 0, 0, NULL)")
                    .bind(shard)
                    .execute(&mut *step)
                    .await
                    .map_err(&failed)?;
            }
            sqlx::raw_sql("PRAGMA user_version = 1").execute(&mut *step).await.map_err(&failed)?;
        }
        let found: u32 = sqlx::query_scalar("SELECT count(*) FROM shards")
            .fetch_one(&mut *step)
            .await
            .map_err(&failed)?;
        if found != shards {
            return Err(CatalogError::OtherShards { expected: shards, found });
        }
        Ok(Ended::Commit(()))
    })
    .await
}

impl Catalog for SqliteCatalog {
    fn shards(&self) -> u32 {
        self.shards
    }

    fn claim(&self, shard: u32) -> Result<Place, CatalogError> {
        let failed = failed("claim a shard");
        let mut connection = self.connection();
        block_on(transaction(&mut connection, &failed, async |step| {
            sqlx::query("UPDATE shards SET claim = claim + 1 WHERE shard = ?")
                .bind(shard)
                .execute(&mut *step)
                .await
                .map_err(&failed)?;
            Ok(Ended::Commit(place(step, shard, &failed).await?))
        }))
    }

    fn files(&self) -> Result<Vec<FileEntry>, CatalogError> {
        let failed = failed("list the files");
        let mut connection = self.connection();
        let rows = block_on(sqlx::query("SELECT * FROM files").fetch_all(&mut *connection))
            .map_err(&failed)?;
        let mut files: Vec<_> =
            rows.iter().map(|row| file(row, &failed)).collect::<Result<_, _>>()?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn marks(&self, shard: u32) -> Result<Vec<Mark>, CatalogError> {
        let failed = failed("list the marks");
        let mut connection = self.connection();
        let query =
            sqlx::query_as("SELECT next, at, bytes FROM marks WHERE shard = ? ORDER BY next");
        let rows: Vec<(i64, i64, i64)> =
            block_on(query.bind(shard).fetch_all(&mut *connection)).map_err(failed)?;
        let mark = |(offset, at, bytes): (i64, i64, i64)| Mark {
            offset: unsigned(offset),
            at: Timestamp(at),
            bytes: unsigned(bytes),
        };
        Ok(rows.into_iter().map(mark).collect())
    }

    fn commit(&self, step: &Step) -> Result<Commit, CatalogError> {
        let failed = failed("move the shard");
        let mut connection = self.connection();
        block_on(transaction(&mut connection, &failed, async |transaction| {
            let moved = sqlx::query(
                "UPDATE shards SET next = ?, taken = ? \
                 WHERE shard = ? AND next = ? AND taken IS ? AND claim = ?",
            )
            .bind(signed(step.offset))
            .bind(&step.taken)
            .bind(step.shard)
            .bind(signed(step.from.offset))
            .bind(step.from.taken.as_deref())
            .bind(signed(step.from.claim))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            if moved.rows_affected() != 1 {
                let found = place(transaction, step.shard, &failed).await?;
                return Ok(Ended::RollBack(Commit::LostPlace(found)));
            }
            for file in &step.files {
                sqlx::query("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)")
                    .bind(file.name.to_string())
                    .bind(signed(file.rows))
                    .bind(signed(file.bytes))
                    .bind(file.time_min)
                    .bind(file.time_max)
                    .bind(&file.device_min)
                    .bind(&file.device_max)
                    .execute(&mut *transaction)
                    .await
                    .map_err(&failed)?;
            }
            sqlx::query("DELETE FROM marks WHERE shard = ? AND next <= ?")
                .bind(step.shard)
                .bind(signed(step.forget_marks))
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
            sqlx::query("INSERT INTO marks VALUES (?, ?, ?, ?)")
                .bind(step.shard)
                .bind(signed(step.offset))
                .bind(step.at.as_us())
                .bind(signed(step.bytes))
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
            Ok(Ended::Commit(Commit::Done))
        }))
    }
}

async fn place(
    connection: &mut SqliteConnection,
    shard: u32,
    failed: &impl Fn(sqlx::Error) -> CatalogError,
) -> Result<Place, CatalogError> {
    let row: Option<(i64, i64, Option<String>)> =
        sqlx::query_as("SELECT claim, next, taken FROM shards WHERE shard = ?")
            .bind(shard)
            .fetch_optional(connection)
            .await
            .map_err(failed)?;
    let (claim, offset, taken) = row.ok_or(CatalogError::NoShard { shard })?;
    Ok(Place { claim: unsigned(claim), offset: unsigned(offset), taken })
}

fn file(
    row: &SqliteRow,
    failed: &impl Fn(sqlx::Error) -> CatalogError,
) -> Result<FileEntry, CatalogError> {
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(failed);
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed);
    let name = text("name")?;
    let name = FileName::parse(&name)
        .ok_or(CatalogError::Damaged { what: "name of a file", found: name })?;
    Ok(FileEntry {
        name,
        rows: unsigned(number("row_count")?),
        bytes: unsigned(number("bytes")?),
        time_min: number("time_min")?,
        time_max: number("time_max")?,
        device_min: text("device_min")?,
        device_max: text("device_max")?,
    })
}

fn failed(attempt: &'static str) -> impl Fn(sqlx::Error) -> CatalogError {
    move |error| {
        let code = error.as_database_error().and_then(|error| error.code());
        let is_full = code.is_some_and(|code| FULL.contains(&&*code));
        let source = Box::new(error);
        match is_full {
            true => CatalogError::NoRoom { attempt, source },
            false => CatalogError::Failed { attempt, source },
        }
    }
}

/// SQLite counts to 2^63, and so far no offset comes: at a million records a second, in 292,000 years.
fn signed(n: u64) -> i64 {
    i64::try_from(n).expect("offsets and sizes stay below 2^63")
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).expect("only numbers from 0 up were written")
}
