//! The consumer of one shard: reads the bus, asks `ingest.rs` what it comes to, and commits it in steps. Blocking; the
//! store drives one per thread.
//!
//! ```text
//!             bus   ─── committed ───┬─────── taken in ───────┬── to come ──▶
//!                                    │ place.offset           │ next
//!   files(V) = a function of what    │ fresh rows, memory =   │
//!   lies below                       │ a function of both     │
//! ```
//!
//! A flush (INV-ACK-1, INV-REPLAY-1): files of the fresh rows and one object of the memory, each written, synced and
//! named; their directories synced; then one conditional step in the catalog; then what was replaced is removed, and the
//! bus trimmed. A cut before the step leaves orphans, which the next start removes; a cut after it leaves an object too
//! many, which it removes too. Between two flushes nothing of this is durable, and need not be: it is on the bus.

use crate::catalog::{Catalog, Commit, FileEntry, Mark, Place, Step, trim_below};
use crate::config::FlushBounds;
use crate::error::StoreError;
use crate::file::{self, Encoded, FileName, UNFINISHED};
use crate::fresh::Size;
use crate::ingest::{Intake, ingest};
use crate::memory::{Memory, OBJECT_BYTES_MAX};
use crate::metrics::Metrics;
use crate::schema;
use crate::shelf::Shelf;
use bus::{LogError, LogReader, Offset};
use disk::SharedDisk;
use model::Timestamp;
use model::bus::Batch;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use traces::Traces;
use trust::mac::{MAC_BYTES, MacKey};

/// One read of the bus: enough to amortise the reading, little enough that questions wait only shortly for its rows.
const GROUP_RECORDS_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Rows of `gaps`, per shard: more than anybody reads. The gauge counts all.
const GAPS_SHOWN_MAX: usize = 10_000;

/// After a flush that found no room. Nothing is taken in meanwhile; the bus keeps it.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(10);

/// The two clocks of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Never goes back: ages are measured by it.
    pub uptime: Duration,
    /// A label: retention is measured by it, since it must survive the process.
    pub wall: Timestamp,
}

/// What a consumer needs besides its own files.
#[derive(Clone)]
pub struct Parts {
    pub disk: SharedDisk,
    pub catalog: Arc<dyn Catalog>,
    pub shelf: Arc<Shelf>,
    pub metrics: Metrics,
    pub mac: MacKey,
    /// Holds `files/` and `taken/`.
    pub dir: PathBuf,
    pub flush: FlushBounds,
    pub raw_retention: Duration,
    pub raw_bytes_max: u64,
    pub traces: Traces,
}

/// See the module's head.
pub struct Shard {
    number: u32,
    label: String,
    parts: Parts,
    reader: LogReader,
    place: Place,
    marks: Vec<Mark>,
    memory: Memory,
    /// The next record to be taken in.
    next: u64,
    /// Of the records from the place to `next`.
    bytes: u64,
    fresh: Size,
    /// When the first record after the place was taken in.
    since: Option<Duration>,
    no_room_until: Option<Duration>,
}

/// What a flush came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All that was taken in is in files.
    Done {
        /// The bus may be trimmed below this record.
        trim_below: Option<Offset>,
    },
    /// The disk is full. Nothing has changed; nothing is taken in until a later flush finds room.
    NoRoom,
}

impl Shard {
    /// Claims the shard, removes what earlier consumers left of steps that never happened, and goes on where the last
    /// step ended.
    pub fn open(parts: Parts, number: u32, reader: LogReader) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Catalog { shard: number, source };
        let place = parts.catalog.claim(number).map_err(failed)?;
        let files = parts.catalog.files().map_err(failed)?;
        let marks = parts.catalog.marks(number).map_err(failed)?;
        let mut shard = Self {
            number,
            label: number.to_string(),
            reader,
            memory: Memory::default(),
            next: place.offset,
            bytes: 0,
            fresh: Size::default(),
            since: None,
            no_room_until: None,
            marks,
            place,
            parts,
        };
        shard.settle_files(&files)?;
        shard.memory = shard.read_memory().inspect_err(|e| {
            // What was taken is not known any more, so nothing may be admitted.
            shard.parts.metrics.violated("INV-REPLAY-1", e);
        })?;
        shard.settle_taken()?;
        shard.show();
        shard.show_gaps();
        tracing::info!(
            shard = number,
            claim = shard.place.claim,
            offset = shard.place.offset,
            end = shard.reader.end().0,
            "shard opened"
        );
        Ok(shard)
    }

    /// Takes in what the bus has next. True: there may be more.
    pub fn take_in(&mut self, now: Now) -> Result<bool, StoreError> {
        if self.no_room_until.is_some() {
            return Ok(false);
        }
        let records = self
            .reader
            .read(Offset(self.next), GROUP_RECORDS_MAX, GROUP_BYTES_MAX)
            .map_err(|source| self.bus_failed(source))?;
        let began = Instant::now();
        for (offset, record) in &records {
            let intake = self.judge(*offset, record)?;
            self.fresh = self.parts.shelf.append(self.number, &intake);
            self.next = offset.next().0;
            self.bytes += record.len() as u64;
            self.since.get_or_insert(now.uptime);
            self.count(&intake);
            self.tell(&intake, now.wall, began.elapsed());
            if self.is_full() {
                // What else was read is read again after the flush.
                break;
            }
        }
        self.show();
        Ok(!records.is_empty() && self.next < self.reader.end().0)
    }

    /// Whether it is time to flush.
    pub fn is_due(&self, now: Now) -> bool {
        match self.no_room_until {
            Some(until) => now.uptime >= until,
            None => self.is_full() || self.due_at().is_some_and(|due| now.uptime >= due),
        }
    }

    fn is_full(&self) -> bool {
        let FlushBounds { rows_max, bytes_max, .. } = self.parts.flush;
        self.fresh.rows >= rows_max
            || self.fresh.bytes >= bytes_max
            // Repeats make no rows, and are still to be committed some time.
            || self.bytes >= bytes_max as u64
    }

    /// When it will be time to flush, if nothing more comes. `None`: there is nothing to flush.
    pub fn due_at(&self) -> Option<Duration> {
        self.no_room_until.or(self.since.map(|since| since + self.parts.flush.age_max))
    }

    /// The next record to be taken in.
    pub fn next(&self) -> Offset {
        Offset(self.next)
    }

    /// Where the shard stands in the catalog.
    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Makes files of what was taken in: see the module's head.
    pub fn flush(&mut self, now: Now) -> Result<Flushed, StoreError> {
        if self.next == self.place.offset {
            return Ok(Flushed::Done { trim_below: None });
        }
        let started = Instant::now();
        let encoded = self.encode()?;
        let flushed = self.write(&encoded, now).and_then(|(step, names)| {
            let failed = |source| StoreError::Catalog { shard: self.number, source };
            let answer = self.parts.catalog.commit(&step).map_err(failed)?;
            Ok((step, names, answer))
        });
        match flushed {
            Ok((step, _, Commit::Done)) => Ok(self.stepped(step, started.elapsed())),
            Ok((_, names, Commit::LostPlace(found))) => Err(self.lost_place(&found, &names)),
            // Files of a step that the catalog had no room for stay: should this process end now, the next one may find
            // that it had.
            Err(e) if e.is_for_want_of_room() => {
                self.no_room_until = Some(now.uptime + NO_ROOM_PAUSE);
                self.parts.metrics.no_room.with_label_values(&[&self.label]).set(1);
                let source = std::error::Error::source(&e).map(tracing::field::display);
                tracing::warn!(shard = self.number, error = %e, source, "no room to flush");
                Ok(Flushed::NoRoom)
            }
            Err(e) => Err(e),
        }
    }

    fn encode(&self) -> Result<Vec<Encoded>, StoreError> {
        file::encode(&self.parts.shelf.fresh(self.number)).map_err(|(table, source)| {
            StoreError::Encode { shard: self.number, table: table.as_str(), source }
        })
    }

    /// Makes everything durable that the step will name.
    fn write(&self, encoded: &[Encoded], now: Now) -> Result<(Step, Vec<PathBuf>), StoreError> {
        let disk = &*self.parts.disk;
        let mut names = Vec::new();
        let mut files = Vec::new();
        let dir = self.files_dir();
        for one in encoded {
            let name = FileName {
                table: one.table,
                shard: self.number,
                first: self.place.offset,
                last: self.next - 1,
                claim: self.place.claim,
            };
            let text = name.to_string();
            let path = dir.join(&text);
            file::write(disk, &dir, &text, &one.bytes).map_err(StoreError::disk("write", &path))?;
            names.push(path);
            files.push(FileEntry {
                name,
                rows: one.rows,
                bytes: one.bytes.len() as u64,
                time_min: one.time_min,
                time_max: one.time_max,
                device_min: one.device_min.clone(),
                device_max: one.device_max.clone(),
            });
        }
        if !encoded.is_empty() {
            disk.sync_dir(&dir).map_err(StoreError::disk("sync the directory", &dir))?;
        }
        let memory = self.memory.encode(self.number, self.next);
        if memory.len() as u64 > OBJECT_BYTES_MAX {
            let (bytes, bytes_max) = (memory.len(), OBJECT_BYTES_MAX);
            let error = StoreError::TakenTooLarge { shard: self.number, bytes, bytes_max };
            self.parts.metrics.violated("INV-COST-1", &error);
            return Err(error);
        }
        let taken = file::taken_name(self.number, self.next, self.place.claim);
        let dir = self.taken_dir();
        let path = dir.join(&taken);
        file::write(disk, &dir, &taken, &memory).map_err(StoreError::disk("write", &path))?;
        disk.sync_dir(&dir).map_err(StoreError::disk("sync the directory", &dir))?;
        names.push(path);
        let Parts { raw_retention, raw_bytes_max, .. } = self.parts;
        let step = Step {
            shard: self.number,
            from: self.place.clone(),
            offset: self.next,
            taken,
            files,
            at: now.wall,
            bytes: self.bytes,
            forget_marks: trim_below(&self.marks, now.wall, raw_retention, raw_bytes_max)
                .unwrap_or(0),
        };
        Ok((step, names))
    }

    /// The catalog has the step: everything here follows it.
    fn stepped(&mut self, step: Step, took: Duration) -> Flushed {
        let Metrics { flush_rows, flush_seconds, flush_bytes, no_room, .. } = &self.parts.metrics;
        flush_rows.observe(self.fresh.rows as f64);
        flush_seconds.observe(took.as_secs_f64());
        for file in &step.files {
            flush_bytes.with_label_values(&[file.name.table.as_str()]).inc_by(file.bytes);
        }
        no_room.with_label_values(&[&self.label]).set(0);
        tracing::debug!(
            shard = self.number,
            offset = step.offset,
            rows = self.fresh.rows,
            files = step.files.len(),
            took_ms = took.as_millis() as u64,
            "flushed"
        );
        self.parts.shelf.step(self.number, step.files);
        if let Some(replaced) = step.from.taken {
            // Should this fail, the next start removes it.
            let _ = self.parts.disk.remove(&self.taken_dir().join(replaced));
        }
        self.marks.retain(|mark| mark.offset > step.forget_marks);
        self.marks.push(Mark { offset: step.offset, at: step.at, bytes: step.bytes });
        self.place.offset = step.offset;
        self.place.taken = Some(step.taken);
        self.bytes = 0;
        self.fresh = Size::default();
        self.since = None;
        self.no_room_until = None;
        self.show();
        self.show_gaps();
        let trim = (step.forget_marks > 0).then_some(Offset(step.forget_marks));
        Flushed::Done { trim_below: trim }
    }

    /// The step did not happen, and under this claim none ever will. What was written for it bears this claim in its
    /// name, so nobody else can have committed it.
    fn lost_place(&mut self, found: &Place, names: &[PathBuf]) -> StoreError {
        self.parts.metrics.lost_places.inc();
        self.parts.shelf.drop_fresh(self.number);
        for name in names {
            // Should this fail, the next start removes it.
            let _ = self.parts.disk.remove(name);
        }
        let held = self.place.claim;
        StoreError::TakenOver { shard: self.number, held, found: found.claim }
    }

    fn judge(&mut self, offset: Offset, record: &[u8]) -> Result<Intake, StoreError> {
        let (shard, offset) = (self.number, offset.0);
        let batch = record.split_at_checked(MAC_BYTES);
        let batch =
            batch.and_then(|(tag, batch)| self.parts.mac.is_tag(batch, tag).then_some(batch));
        let Some(batch) = batch else {
            // INV-AUTH-1: nobody but uplink puts anything into history.
            let error = StoreError::BadMac { shard, offset };
            self.parts.metrics.violated("INV-AUTH-1", &error);
            return Err(error);
        };
        let batch = Batch::decode(batch).map_err(|source| StoreError::BadBatch {
            shard,
            offset,
            source,
        })?;
        Ok(ingest(&mut self.memory, batch))
    }

    fn count(&self, intake: &Intake) {
        let Metrics { messages, quarantined, rows, keys_not_remembered, .. } = &self.parts.metrics;
        messages.with_label_values(&["new"]).inc_by(intake.news);
        messages.with_label_values(&["repeat"]).inc_by(intake.repeats);
        let apart = intake.quarantined.len() as u64;
        messages.with_label_values(&["quarantined"]).inc_by(apart);
        keys_not_remembered.inc_by(intake.keys_not_remembered);
        let readings: usize = intake.packs.iter().map(|pack| pack.readings.len()).sum();
        rows.with_label_values(&["readings"]).inc_by(readings as u64);
        rows.with_label_values(&["quarantine"]).inc_by(apart);
        rows.with_label_values(&["losses"]).inc_by(intake.losses.len() as u64);
        for one in &intake.quarantined {
            quarantined.with_label_values(&[one.reason.as_str()]).inc();
            tracing::warn!(
                device = %one.tag.device,
                gateway = %one.tag.gateway,
                reason = one.reason.as_str(),
                "message quarantined"
            );
        }
    }

    /// Questions see these packs from now on. `began`: when they were read from the bus.
    fn tell(&self, intake: &Intake, began: Timestamp, took: Duration) {
        let told = &self.parts.traces;
        if !told.is_on() {
            return;
        }
        let took_us = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        let at = (began, Timestamp(began.as_us().saturating_add(took_us)));
        for pack in &intake.packs {
            let (device, gateway) = (&pack.tag.device, &pack.tag.gateway);
            let Some(trace) = told.message(device, &pack.key, pack.counter) else { continue };
            let more = [
                ("messaging.operation.type", "process".into()),
                ("plimsoll.readings", pack.readings.len().into()),
                ("plimsoll.shard", self.number.into()),
            ];
            told.tell(trace, &traces::Step::Ingest { gateway }, device, at, more);
        }
    }

    fn show(&self) {
        let Metrics { fresh_rows, lag, committed, .. } = &self.parts.metrics;
        let label = [self.label.as_str()];
        fresh_rows.with_label_values(&label).set(self.fresh.rows as i64);
        committed.with_label_values(&label).set(self.place.offset as i64);
        let behind = self.reader.end().0.saturating_sub(self.place.offset);
        lag.with_label_values(&label).set(behind as i64);
    }

    /// At each step, since it looks at every key.
    fn show_gaps(&self) {
        let gaps = self.memory.gaps().count();
        self.parts.metrics.open_gaps.with_label_values(&[&self.label]).set(gaps as i64);
        let shown = schema::gaps(self.memory.gaps().take(GAPS_SHOWN_MAX));
        self.parts.shelf.show_gaps(self.number, shown);
    }

    fn bus_failed(&self, source: LogError) -> StoreError {
        let is_loss = matches!(source, LogError::Trimmed { .. } | LogError::BeyondEnd { .. });
        let error = StoreError::Bus { shard: self.number, source };
        if is_loss {
            // Acknowledged records are gone, or the log is another one.
            self.parts.metrics.violated("INV-ACK-1", &error);
        }
        error
    }

    /// Removes this shard's files that the catalog does not name: no consumer that could still commit one is left.
    /// Refuses to go on when one is missing that the catalog does name.
    fn settle_files(&self, files: &[FileEntry]) -> Result<(), StoreError> {
        let dir = self.files_dir();
        let known: HashSet<String> = files
            .iter()
            .filter(|file| file.name.shard == self.number)
            .map(|file| file.name.to_string())
            .collect();
        let shard_of = |name: &str| FileName::parse(name).map(|name| name.shard);
        let kept = self.settle(&dir, &known, shard_of)?;
        if let Some(name) = known.iter().find(|name| !kept.contains(*name)) {
            let error = StoreError::MissingFile { name: name.clone(), dir };
            self.parts.metrics.violated("INV-ACK-1", &error);
            return Err(error);
        }
        Ok(())
    }

    fn settle_taken(&self) -> Result<(), StoreError> {
        let known = self.place.taken.iter().cloned().collect();
        self.settle(&self.taken_dir(), &known, file::shard_of_taken_name).map(|_| ())
    }

    /// Removes what is this shard's and not known. Returns what was found and stays.
    fn settle(
        &self,
        dir: &Path,
        known: &HashSet<String>,
        shard_of: impl Fn(&str) -> Option<u32>,
    ) -> Result<HashSet<String>, StoreError> {
        let disk = &*self.parts.disk;
        let names = disk.list(dir).map_err(StoreError::disk("list", dir))?;
        let mut kept = HashSet::new();
        let mut removed = 0;
        for name in names {
            if known.contains(&name) {
                kept.insert(name);
                continue;
            }
            let whole = name.strip_suffix(UNFINISHED).unwrap_or(&name);
            if shard_of(whole) == Some(self.number) {
                let path = dir.join(&name);
                disk.remove(&path).map_err(StoreError::disk("remove", &path))?;
                removed += 1;
            }
        }
        if removed > 0 {
            disk.sync_dir(dir).map_err(StoreError::disk("sync the directory", dir))?;
            self.parts.metrics.orphans.inc_by(removed);
            tracing::info!(shard = self.number, removed, dir = %dir.display(), "orphans removed");
        }
        Ok(kept)
    }

    fn read_memory(&self) -> Result<Memory, StoreError> {
        let Some(name) = &self.place.taken else { return Ok(Memory::default()) };
        let path = self.taken_dir().join(name);
        let bytes = self
            .parts
            .disk
            .read(&path, OBJECT_BYTES_MAX)
            .map_err(StoreError::disk("read", &path))?;
        Memory::decode(&bytes, self.number, self.place.offset).map_err(|bad| {
            let (shard, offset) = (self.number, self.place.offset);
            let (expected, found) = (bad.expected, bad.found);
            StoreError::BadTaken { shard, offset, path, expected, found }
        })
    }

    fn files_dir(&self) -> PathBuf {
        self.parts.dir.join("files")
    }

    fn taken_dir(&self) -> PathBuf {
        self.parts.dir.join("taken")
    }
}
