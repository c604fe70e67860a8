//! Kept until the gateway has it: every sealed envelope, in order, bounded in bytes.
//!
//! Promises: what [`Backlog::commit`] returned for is found after any crash (INV-ACK-1), until it is acknowledged, or
//! stated as lost in a signed notice that is durable itself; what is sealed keeps its key and counter for ever and is
//! never sealed again (INV-REPLAY-2); nothing is dropped silently.
//! Never: reads a clock, talks to the network, holds more than one group of records in memory.
//!
//! ```text
//! <data>/backlog/0, 1, 2     slots; one holds the log (`bus::Log` of `record`s)
//! <data>/backlog/current     plimsoll-backlog 1 <slot> <unreadable slot or -> <crc32c of all before>\n
//! <data>/cursor              how far it was acknowledged: see `cursor`
//! ```
//!
//! **Full.** Envelopes may fill the backlog up to a reserve of two segments, which only notices use. Then, by policy:
//!
//! | policy | is dropped | how |
//! | --- | --- | --- |
//! | `oldest` | the oldest segment's envelopes | the notice first, durably; then they are trimmed |
//! | `newest` | what is packed while it is full | its counter is taken, it is not sealed; stated when there is room, and meanwhile after 1 s, 2 s, 4 s, up to each hour from the reserve |
//! | `every:N` | every N-th envelope of the whole backlog, 2 ≤ N ≤ 16 | the others are copied to a free slot with the notices, then the slots are switched by one rename; it may therefore hold half of its bytes only |
//!
//! A notice among the dropped is stated again by the new one, with its ranges joined to theirs. If dropping makes no
//! room, the newest is dropped. A full *disk* drops the newest under every policy; the log stays as it was, and it is
//! tried again each second, thinning each minute. What was dropped and not stated when the power goes is not stated later: its counters were
//! in nothing durable, and the next epoch's `prior` ends its epoch before them.
//!
//! **Unreadable.** A damaged record is stepped over, and stated as lost if its neighbours tell its counter. A log that
//! cannot be opened at all is set aside whole (one at a time is kept, for people to look at) and stated as far as the
//! cursor knows. A log or record of a later version stops the agent: it must not be thrown away.

use crate::clock::Stamp;
use crate::cursor::Cursor;
use crate::losses::Losses;
use crate::position::Position;
use crate::record::{self, BadRecord, HEADER_BYTES_MAX, RECORD_BYTES_MAX};
use crate::seal::{Sealed, Sealer};
use bus::{Log, LogConfig, LogError, LogReader, Offset};
use disk::SharedDisk;
use model::envelope::{LossCause, LostRange, decode_loss, encode_loss};
use model::{Counter, Kind, Prior};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use trust::cose::{self, SignError};

mod slots;
#[cfg(test)]
mod tests;

use slots::Slots;

/// The least that a backlog may be told to hold.
pub const BYTES_MIN: u64 = 1024 * 1024;
/// What it holds if it is told nothing: two days at a pack of 45 readings (about 2 KiB) each five seconds, or half a
/// day at one each second.
pub const BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How many segments' worth of room only notices may use.
const RESERVE_SEGMENTS: u64 = 2;
/// What the log adds to a record: its head, and the head of a new segment.
const LOG_OVERHEAD: u64 = 64;
/// What a signature adds to a payload: the COSE frame, the protected header and the signature.
const SEAL_OVERHEAD: u64 = 512;
/// What a range takes in a notice: a key, an epoch, two sequences and a cause.
const RANGE_BYTES: u64 = 64;

/// How many records and bytes are read at once when the backlog walks through itself.
const WALK_RECORDS: usize = 256;
const WALK_BYTES: usize = 1024 * 1024;
/// The most damaged records that are stepped over; with more the whole log counts as unreadable.
const DAMAGED_MAX: usize = 1024;
/// The most refused envelopes that wait to be stated: a session holds fewer in flight.
const REFUSED_MAX: usize = 1024;

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600_000;
/// How long thinning is not tried again after it has made less than a segment's room.
const THIN_AGAIN_MS: u64 = 60_000;

/// What is dropped when the backlog is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Oldest,
    Newest,
    /// Every N-th envelope of all that the backlog holds: 2 to 16.
    EveryNth(u8),
}

#[derive(Clone, Debug)]
pub struct BacklogConfig {
    /// The directory of the device: the backlog lies below it.
    pub dir: PathBuf,
    pub bytes_max: u64,
    pub full: Full,
}

#[derive(Debug, thiserror::Error)]
pub enum BacklogError {
    #[error("a backlog of {found} bytes is too small: expected at least {BYTES_MIN}")]
    TooSmall { found: u64 },
    #[error("every {found}-th envelope cannot be dropped: expected 2 to 16")]
    BadNth { found: u8 },
    #[error("the backlog's log failed")]
    Log(#[from] LogError),
    #[error("cannot {attempt} `{path}`")]
    Io { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("record {offset} of the backlog cannot be understood; it is left untouched")]
    Record { offset: Offset, source: BadRecord },
    #[error("the sealing key did not sign")]
    Seal(#[from] SignError),
}

/// What became of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is durable after the next commit.
    Kept { serial: u64, counter: Counter },
    /// There was no room. A notice will state its counter.
    Dropped { counter: Counter },
}

/// What happened since the backlog was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Envelopes that became durable, notices included.
    pub kept: u64,
    /// Notices among them.
    pub notices: u64,
    /// Packs and envelopes dropped since the backlog was full.
    pub dropped_full: u64,
    /// Of these, since the disk was.
    pub dropped_disk_full: u64,
    /// Envelopes dropped since the gateway refused them for good.
    pub dropped_refused: u64,
    /// Records that could not be read back.
    pub unreadable: u64,
    /// Times that the whole backlog was thinned.
    pub thinned: u64,
}

/// What the backlog was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Envelopes that are still to be acknowledged.
    pub waiting: u64,
    /// Why the log that was there was set aside.
    pub set_aside: Option<String>,
    /// Records that were stepped over.
    pub damaged: u64,
}

/// See the module's head. One owner at a time: the device's directory is locked.
#[derive(Debug)]
pub struct Backlog {
    disk: SharedDisk,
    config: BacklogConfig,
    slots: Slots,
    log: Log,
    outbox: Outbox,
    /// The serial of the next record.
    next: u64,
    newest: Option<Prior>,
    position: Option<Position>,
    uncommitted: Vec<Uncommitted>,
    /// Dropped, and in no notice that is or will be durable with the next commit.
    unstated: Losses,
    state_at_ms: u64,
    state_wait_ms: u64,
    refused: BTreeSet<u64>,
    refuse_at_ms: u64,
    refuse_wait_ms: u64,
    /// Until then the disk is taken to be full.
    full_until_ms: u64,
    thin_at_ms: u64,
    /// The last counter that is known to be done.
    done: Option<Prior>,
    saved: Option<Cursor>,
    save_at_ms: u64,
    counts: Counts,
}

/// What must be known of a record if its commit fails: it is lost then.
#[derive(Debug)]
struct Uncommitted {
    header: record::Header,
    /// What it states, if it is a notice, and what must be stated anew if it is not kept.
    ranges: Vec<LostRange>,
}

/// What a notice is for.
enum Stating {
    /// What was lost already. If the notice is not kept, it must be stated by another one.
    Losses,
    /// What is dropped by the notice being durable: these serials. If it is not kept, they are not lost.
    Drops(Vec<(u64, u64)>),
}

impl Backlog {
    /// Opens or creates the backlog of a device.
    pub fn open(disk: SharedDisk, config: BacklogConfig) -> Result<(Self, Found), BacklogError> {
        if config.bytes_max < BYTES_MIN {
            return Err(BacklogError::TooSmall { found: config.bytes_max });
        }
        if let Full::EveryNth(found) = config.full
            && !(2..=16).contains(&found)
        {
            return Err(BacklogError::BadNth { found });
        }
        let mut slots = Slots::open(disk.clone(), &config.dir.join("backlog"))?;
        let cursor = Cursor::read(&*disk, &config.dir.join("cursor"));
        let mut found = Found::default();
        let opened = Log::open(disk.clone(), &slots.path(), log_config(&config))
            .map_err(BacklogError::from)
            .and_then(|log| Ok((scan(&log.reader())?, log)));
        let (scanned, log) = match opened {
            Ok(opened) => opened,
            Err(BacklogError::Log(
                e @ (LogError::Corrupt { .. } | LogError::MissingSegment { .. }),
            )) => {
                found.set_aside = Some(e.to_string());
                slots.set_aside()?;
                let log = Log::open(disk.clone(), &slots.path(), log_config(&config))?;
                (Scanned::default(), log)
            }
            Err(e) => return Err(e),
        };
        let known = cursor.unwrap_or_default();
        let mut unstated = scanned.losses;
        if found.set_aside.is_some() {
            unstated.append(lost_with_the_log(&known));
        }
        let (first, next) = match scanned.serials {
            Some((first, last)) => (first, known.below.max(last + 1)),
            None => (known.below, known.below),
        };
        let mut shelf = Shelf {
            reader: log.reader(),
            below: known.below.max(first),
            end: next,
            dropped: scanned.drops,
            damaged: scanned.damaged,
            hint: None,
        };
        shelf.step_over_dropped();
        found.damaged = shelf.damaged.len() as u64;
        found.waiting = shelf.waiting()?;
        let backlog = Self {
            disk,
            slots,
            log,
            outbox: Outbox(Arc::new(Mutex::new(shelf))),
            next,
            newest: scanned.newest.or(known.newest),
            position: if scanned.newest.is_some() { scanned.position } else { known.next },
            uncommitted: Vec::new(),
            unstated,
            state_at_ms: 0,
            state_wait_ms: SECOND_MS,
            refused: BTreeSet::new(),
            refuse_at_ms: 0,
            refuse_wait_ms: SECOND_MS,
            full_until_ms: 0,
            thin_at_ms: 0,
            done: known.done,
            saved: cursor,
            save_at_ms: 0,
            counts: Counts { unreadable: found.damaged, ..Counts::default() },
            config,
        };
        Ok((backlog, found))
    }

    /// The newest counter that is durable: what the next epoch's first message names as its `prior`.
    pub fn newest(&self) -> Option<Prior> {
        self.newest
    }

    /// Where the recording goes on: everything before is durable, or dropped and to be stated.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes on the disk, and how many of them envelopes may take.
    pub fn fill(&self) -> (u64, u64) {
        (self.log.bytes(), self.limit())
    }

    /// Whether something was appended that no commit has made durable yet.
    pub fn is_dirty(&self) -> bool {
        !self.uncommitted.is_empty()
    }

    /// Whether there are losses that no durable notice states.
    pub fn has_unstated(&self) -> bool {
        !self.unstated.is_empty() || !self.refused.is_empty()
    }

    /// Seals a pack and takes it into the next commit, or drops it. `next` is where its recording goes on after it.
    pub fn push(
        &mut self,
        sealer: &mut Sealer,
        payload: &[u8],
        next: Option<Position>,
        stamp: &Stamp,
    ) -> Result<Pushed, BacklogError> {
        let need = HEADER_BYTES_MAX as u64 + SEAL_OVERHEAD + payload.len() as u64;
        let mut room =
            stamp.uptime_ms >= self.full_until_ms && self.make_room(sealer, need, stamp)?;
        if room && !self.unstated.is_empty() {
            self.state_wait_ms = SECOND_MS;
            room = self.state_losses(sealer, stamp)?;
        }
        if !room {
            let counter = sealer.skip();
            self.position = next.or(self.position);
            self.dropped(sealer, counter, stamp);
            return Ok(Pushed::Dropped { counter });
        }
        let sealed = sealer.seal_readings(payload, stamp)?;
        let counter = sealed.counter;
        // Only now: a notice before this record must not say that this pack is durable.
        self.position = next.or(self.position);
        let serial = self.next;
        if self.append(sealed, Vec::new(), Vec::new())? {
            Ok(Pushed::Kept { serial, counter })
        } else {
            self.counts.dropped_full += 1;
            self.wait_to_state(stamp);
            Ok(Pushed::Dropped { counter })
        }
    }

    /// Makes everything that was pushed durable.
    pub fn commit(&mut self, stamp: &Stamp) -> Result<(), BacklogError> {
        if self.uncommitted.is_empty() {
            return Ok(());
        }
        match self.log.commit() {
            Ok(_) => {
                let mut shelf = self.outbox.shelf();
                for Uncommitted { header, .. } in self.uncommitted.drain(..) {
                    self.newest = Some(Prior { key: header.key, counter: header.counter });
                    shelf.dropped.extend(header.drops);
                    self.counts.kept += 1;
                    self.counts.notices += u64::from(header.kind == Kind::LossNotice);
                }
                shelf.end = self.next;
                shelf.step_over_dropped();
                Ok(())
            }
            Err(e @ LogError::DiskFull { .. }) => {
                tracing::warn!(
                    envelopes = self.uncommitted.len(), error = %e,
                    "disk full: envelopes dropped, to be stated when there is room"
                );
                for lost in std::mem::take(&mut self.uncommitted) {
                    if lost.header.kind == Kind::Readings {
                        self.counts.dropped_full += 1;
                        self.counts.dropped_disk_full += 1;
                    }
                    self.lose(lost);
                }
                self.full_until_ms = stamp.uptime_ms + SECOND_MS;
                self.wait_to_state(stamp);
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Everything below this serial was acknowledged.
    pub fn acknowledge(&mut self, below: u64) {
        let mut shelf = self.outbox.shelf();
        shelf.below = shelf.below.max(below.min(shelf.end));
        shelf.step_over_dropped();
    }

    /// The gateway refused this envelope for good: it is to be stated and dropped.
    pub fn refuse(&mut self, serial: u64) {
        if self.outbox.is_waiting(serial) && self.refused.len() < REFUSED_MAX {
            self.refused.insert(serial);
        }
    }

    /// What is due: notices, the cursor, trimming. To be called each second or more often.
    pub fn tick(&mut self, sealer: &mut Sealer, stamp: &Stamp) -> Result<(), BacklogError> {
        let now = stamp.uptime_ms;
        if now >= self.full_until_ms {
            if !self.refused.is_empty() && now >= self.refuse_at_ms {
                self.state_refused(sealer, stamp)?;
            }
            if !self.unstated.is_empty() && now >= self.state_at_ms {
                self.state_wait_ms = (2 * self.state_wait_ms).min(HOUR_MS);
                self.state_losses(sealer, stamp)?;
            }
        }
        self.commit(stamp)?;
        if now >= self.save_at_ms {
            self.save_at_ms = now + SECOND_MS;
            self.trim()?;
            self.save();
        }
        Ok(())
    }

    /// States what there is room to state, and writes down how far it was acknowledged.
    pub fn close(mut self, sealer: &mut Sealer, stamp: &Stamp) -> Result<Counts, BacklogError> {
        if !self.refused.is_empty() {
            self.state_refused(sealer, stamp)?;
        }
        if !self.unstated.is_empty() {
            self.state_losses(sealer, stamp)?;
        }
        self.commit(stamp)?;
        self.trim()?;
        self.save();
        Ok(self.counts)
    }

    /// How many bytes envelopes may take.
    fn limit(&self) -> u64 {
        let config = self.log.config();
        config.bytes_max - RESERVE_SEGMENTS * config.segment_bytes
    }

    fn fits(&self, need: u64) -> bool {
        self.log.bytes() + LOG_OVERHEAD + need <= self.limit()
    }

    fn make_room(
        &mut self,
        sealer: &mut Sealer,
        need: u64,
        stamp: &Stamp,
    ) -> Result<bool, BacklogError> {
        if !self.fits(need) {
            self.commit(stamp)?;
            self.trim()?;
        }
        if !self.fits(need) {
            match self.config.full {
                Full::Newest => {}
                Full::Oldest => self.drop_oldest(sealer, need, stamp)?,
                Full::EveryNth(n) => {
                    if stamp.uptime_ms >= self.thin_at_ms {
                        self.thin(sealer, n, stamp)?;
                        if !self.fits(self.log.config().segment_bytes) {
                            self.thin_at_ms = stamp.uptime_ms + THIN_AGAIN_MS;
                        }
                    }
                }
            }
        }
        Ok(self.fits(need))
    }

    /// A pack for which there was no room, and which was not sealed.
    fn dropped(&mut self, sealer: &Sealer, counter: Counter, stamp: &Stamp) {
        self.unstated.add(sealer.key(), counter, LossCause::BacklogFull);
        self.counts.dropped_full += 1;
        if stamp.uptime_ms < self.full_until_ms {
            self.counts.dropped_disk_full += 1;
        }
        self.wait_to_state(stamp);
    }

    /// A notice a second after the first loss, then ever more seldom while there is no room: the reserve must last.
    fn wait_to_state(&mut self, stamp: &Stamp) {
        if self.state_at_ms == 0 {
            self.state_at_ms = stamp.uptime_ms + self.state_wait_ms;
        }
    }

    /// An envelope that was sealed and is not in the log.
    fn lose(&mut self, lost: Uncommitted) {
        let record::Header { key, counter, prior, .. } = lost.header;
        self.unstated.add(key, counter, LossCause::BacklogFull);
        lost.ranges.into_iter().for_each(|range| self.unstated.add_range(range));
        prior.into_iter().for_each(|prior| self.unstated.add_prior(prior));
    }

    /// States all losses, if there is room for the notices. Nothing may be appended before they are: a durable record
    /// must not have a hole before it that only this process' memory could tell.
    fn state_losses(&mut self, sealer: &mut Sealer, stamp: &Stamp) -> Result<bool, BacklogError> {
        let losses = std::mem::take(&mut self.unstated);
        let kept = self.state(sealer, losses, Stating::Losses, stamp)?;
        self.state_at_ms = if kept { 0 } else { stamp.uptime_ms + self.state_wait_ms };
        Ok(kept)
    }

    /// Seals notices of `losses` into the next commit. Without room nothing is sealed and it returns false.
    fn state(
        &mut self,
        sealer: &mut Sealer,
        mut losses: Losses,
        stating: Stating,
        stamp: &Stamp,
    ) -> Result<bool, BacklogError> {
        if !self.unstated.is_empty() && !self.state_losses(sealer, stamp)? {
            return Ok(false);
        }
        let own = sealer.take_prior();
        own.into_iter().for_each(|prior| losses.add_prior(prior));
        if self.log.bytes() + notices_bytes(&losses) > self.log.config().bytes_max {
            match stating {
                Stating::Losses => self.unstated.append(losses),
                Stating::Drops(_) => own.into_iter().for_each(|own| self.unstated.add_prior(own)),
            }
            return Ok(false);
        }
        let notices = losses.notices();
        let last = notices.len().saturating_sub(1);
        let mut all = true;
        for (i, notice) in notices.into_iter().enumerate() {
            let sealed = sealer.seal_notice(&encode_loss(&notice.ranges), stamp, notice.prior)?;
            // A torn group keeps its beginning: where the last notice is, all are.
            let (ranges, drops) = match &stating {
                Stating::Losses => (notice.ranges, Vec::new()),
                Stating::Drops(drops) if i == last && all => (Vec::new(), drops.clone()),
                Stating::Drops(_) => (Vec::new(), Vec::new()),
            };
            all &= self.append(sealed, ranges, drops)?;
        }
        Ok(all)
    }

    /// Takes a sealed envelope into the next commit. Returns false if the log has no room after all: it is lost then.
    fn append(
        &mut self,
        sealed: Sealed,
        ranges: Vec<LostRange>,
        drops: Vec<(u64, u64)>,
    ) -> Result<bool, BacklogError> {
        let header = record::Header {
            kind: sealed.kind,
            serial: self.next,
            key: sealed.key,
            counter: sealed.counter,
            next: self.position,
            prior: sealed.prior,
            drops,
        };
        let taken = self.log.append(&record::encode(&header, &sealed.envelope));
        let entry = Uncommitted { header, ranges };
        match taken {
            Ok(_) => {
                self.next += 1;
                self.uncommitted.push(entry);
                Ok(true)
            }
            Err(e) if e.is_for_want_of_room() => {
                self.lose(entry);
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Drops as many of the oldest envelopes as fill a segment, until there is room.
    fn drop_oldest(
        &mut self,
        sealer: &mut Sealer,
        need: u64,
        stamp: &Stamp,
    ) -> Result<(), BacklogError> {
        let segment_bytes = self.log.config().segment_bytes;
        // Each round frees a segment, or there is nothing left to drop: the bound is never reached.
        for _ in 0..4 {
            self.commit(stamp)?;
            let mut losses = Losses::default();
            let (mut bytes, mut count) = (0, 0);
            let mut last = None;
            let (below, from) = {
                let mut shelf = self.outbox.shelf();
                (shelf.below, shelf.first_from_below()?)
            };
            let outbox = self.outbox.clone();
            walk(&self.log.reader(), from, &outbox.damaged(), |_, header, record, at| {
                if bytes > segment_bytes + RECORD_BYTES_MAX as u64 {
                    return Ok(false);
                }
                bytes += record.len() as u64;
                last = Some(header.serial);
                if !outbox.shelf().is_dropped(header.serial) {
                    count += u64::from(header.kind == Kind::Readings);
                    victim(&mut losses, &header, &record[at..], LossCause::BacklogFull);
                }
                Ok(true)
            })?;
            let Some(last) = last else { return Ok(()) };
            if losses.is_empty() {
                // All of them were stated before.
                self.acknowledge(last + 1);
            } else if !self.state(sealer, losses, Stating::Drops(vec![(below, last)]), stamp)? {
                return Ok(());
            }
            self.commit(stamp)?;
            if self.outbox.below() <= last {
                // The disk is full: they are not dropped.
                return Ok(());
            }
            self.counts.dropped_full += count;
            tracing::warn!(envelopes = count, "backlog full: oldest envelopes dropped and stated");
            self.trim()?;
            if self.fits(need) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Drops every n-th envelope: writes the others anew, with the notices, and switches to the copy.
    fn thin(&mut self, sealer: &mut Sealer, n: u8, stamp: &Stamp) -> Result<(), BacklogError> {
        self.commit(stamp)?;
        let slot = self.slots.free()?;
        let mut copy = match Log::open(self.disk.clone(), &slot.path, *self.log.config()) {
            Ok(copy) => copy,
            Err(e) if e.is_for_want_of_room() => return self.no_room_to_thin(&e),
            Err(e) => return Err(e.into()),
        };
        let mut losses = self.unstated.clone();
        let (mut ordinal, mut dropped) = (0u64, 0u64);
        let mut waiting = 0;
        let segment_bytes = self.log.config().segment_bytes;
        let from = self.outbox.shelf().first_from_below()?;
        let outbox = self.outbox.clone();
        let copied = walk(&self.log.reader(), from, &outbox.damaged(), |_, header, record, at| {
            if outbox.shelf().is_dropped(header.serial) {
                return Ok(true);
            }
            ordinal += u64::from(header.kind == Kind::Readings);
            let nth = header.kind == Kind::Readings && ordinal.is_multiple_of(u64::from(n));
            if nth || header.kind == Kind::LossNotice {
                dropped += u64::from(nth);
                victim(&mut losses, &header, &record[at..], LossCause::BacklogFull);
                return Ok(true);
            }
            copy.append(record)?;
            waiting += record.len() as u64;
            if waiting > segment_bytes / 2 {
                copy.commit()?;
                waiting = 0;
            }
            Ok(true)
        });
        match copied {
            Ok(()) => {}
            Err(BacklogError::Log(e)) if e.is_for_want_of_room() => {
                drop(copy);
                return self.no_room_to_thin(&e);
            }
            Err(e) => return Err(e),
        }
        if self.switch(sealer, copy, slot, losses, stamp)? {
            self.counts.dropped_full += dropped;
            self.counts.thinned += 1;
            tracing::warn!(envelopes = dropped, every = n, "backlog full: thinned, and stated");
        }
        Ok(())
    }

    /// The newest is dropped then. What was copied gives its room back.
    fn no_room_to_thin(&self, error: &LogError) -> Result<(), BacklogError> {
        tracing::warn!(%error, "no room to thin the backlog: dropping the newest");
        self.slots.wipe_others()
    }

    /// Puts notices of `losses` behind the survivors in `copy` and makes it the log. False: there was no room, and the
    /// log is as it was.
    fn switch(
        &mut self,
        sealer: &mut Sealer,
        copy: Log,
        slot: slots::Free,
        mut losses: Losses,
        stamp: &Stamp,
    ) -> Result<bool, BacklogError> {
        let own = sealer.take_prior();
        own.into_iter().for_each(|prior| losses.add_prior(prior));
        let from = sealer.peek();
        let before = std::mem::replace(&mut self.log, copy);
        let unstated = std::mem::take(&mut self.unstated);
        let stated = self.state(sealer, losses, Stating::Losses, stamp)?;
        let is_whole = stated
            && match self.log.commit() {
                Ok(_) => true,
                Err(e) if e.is_for_want_of_room() => false,
                Err(e) => return Err(e.into()),
            };
        if !is_whole || !self.slots.switch(slot)? {
            // The copy comes to nothing. Its notices took counters: these are lost, what they state is not.
            self.log = before;
            self.next -= self.uncommitted.drain(..).len() as u64;
            self.unstated = unstated;
            own.into_iter().for_each(|prior| self.unstated.add_prior(prior));
            for sequence in from.sequence..sealer.peek().sequence {
                let counter = Counter { sequence, ..from };
                self.unstated.add(sealer.key(), counter, LossCause::BacklogFull);
            }
            self.full_until_ms = stamp.uptime_ms + SECOND_MS;
            self.wait_to_state(stamp);
            self.slots.wipe_others()?;
            return Ok(false);
        }
        let mut shelf = self.outbox.shelf();
        shelf.reader = self.log.reader();
        shelf.dropped.clear();
        shelf.damaged.clear();
        shelf.hint = None;
        drop(shelf);
        drop(before);
        self.slots.wipe_others()?;
        // They are durable; this only counts them.
        self.commit(stamp)?;
        self.state_at_ms = 0;
        Ok(true)
    }

    /// States the envelopes that the gateway refused for good.
    fn state_refused(&mut self, sealer: &mut Sealer, stamp: &Stamp) -> Result<(), BacklogError> {
        self.commit(stamp)?;
        let serials: Vec<u64> = self.refused.iter().copied().take(record::DROPS_MAX).collect();
        let mut losses = Losses::default();
        let mut drops = Vec::new();
        let mut notices = 0;
        for serial in &serials {
            let Some((header, envelope)) = self.outbox.shelf().record(*serial)? else { continue };
            victim(&mut losses, &header, &envelope, LossCause::Refused);
            notices += u64::from(header.kind == Kind::LossNotice);
            drops.push((*serial, *serial));
        }
        // A gateway that refuses our notices too would have us seal them without end: ever more seldom.
        self.refuse_wait_ms =
            if notices == 0 { SECOND_MS } else { (2 * self.refuse_wait_ms).min(HOUR_MS) };
        self.refuse_at_ms = stamp.uptime_ms + self.refuse_wait_ms;
        let dropped = drops.len() as u64;
        if dropped > 0 {
            if !self.state(sealer, losses, Stating::Drops(drops), stamp)? {
                return Ok(());
            }
            self.commit(stamp)?;
            if serials.iter().any(|serial| self.outbox.is_waiting(*serial)) {
                // The disk is full: they are not dropped yet.
                return Ok(());
            }
            self.counts.dropped_refused += dropped;
            tracing::warn!(envelopes = dropped, "refused by the gateway: dropped and stated");
        }
        serials.iter().for_each(|serial| {
            self.refused.remove(serial);
        });
        Ok(())
    }

    /// Removes what is acknowledged, segment by segment. The newest record stays: it shows the newest counter.
    fn trim(&mut self) -> Result<(), BacklogError> {
        let first = self.log.first();
        let keep = {
            let mut shelf = self.outbox.shelf();
            let keep = shelf.first_from_below()?;
            if keep > first {
                self.done = shelf.prior_at(Offset(keep.0 - 1))?.or(self.done);
            }
            keep
        };
        if self.log.end() > first {
            self.log.trim(keep.min(Offset(self.log.end().0 - 1)))?;
        }
        Ok(())
    }

    /// Writes the cursor if it has moved. Nothing rests on it, so a failure is told and not acted upon.
    fn save(&mut self) {
        let (below, done) = (self.outbox.below(), self.done);
        let cursor = Cursor { below, done, newest: self.newest, next: self.position };
        if self.saved == Some(cursor) {
            return;
        }
        match cursor.write(&*self.disk, &self.config.dir.join("cursor")) {
            Ok(()) => self.saved = Some(cursor),
            Err(e) => tracing::warn!(error = %e, "cannot write the cursor; it is tried again"),
        }
    }
}

fn log_config(config: &BacklogConfig) -> LogConfig {
    // Thinning needs the old log and the new one beside each other.
    let bytes_max = match config.full {
        Full::EveryNth(_) => config.bytes_max / 2,
        Full::Oldest | Full::Newest => config.bytes_max,
    };
    LogConfig {
        segment_bytes: (bytes_max / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
        bytes_max,
        record_bytes_max: RECORD_BYTES_MAX as u32,
    }
}

/// An upper bound of what the notices of these losses take.
fn notices_bytes(losses: &Losses) -> u64 {
    let notices = losses.len().div_ceil(model::envelope::LOST_RANGES_MAX) as u64 + 2;
    notices * (HEADER_BYTES_MAX as u64 + SEAL_OVERHEAD + LOG_OVERHEAD)
        + losses.len() as u64 * RANGE_BYTES
}

/// Adds an envelope that is dropped. What a notice states is stated again by the next one.
fn victim(losses: &mut Losses, header: &record::Header, envelope: &[u8], cause: LossCause) {
    losses.add(header.key, header.counter, cause);
    header.prior.into_iter().for_each(|prior| losses.add_prior(prior));
    if header.kind == Kind::LossNotice {
        let stated = cose::open(envelope, model::envelope::MESSAGE_BYTES_MAX)
            .and_then(|open| decode_loss(open.payload_without_signature_check()))
            .expect("the log's checksum holds: this is a notice that was sealed here");
        stated.into_iter().for_each(|range| losses.add_range(range));
    }
}

/// What is known to be lost with a log that was set aside: what was durable and not done, within the newest epoch.
fn lost_with_the_log(known: &Cursor) -> Losses {
    let mut losses = Losses::default();
    if let Some(newest) = known.newest {
        let first = match known.done {
            Some(done) if (done.key, done.counter.epoch) == (newest.key, newest.counter.epoch) => {
                done.counter.sequence.saturating_add(1)
            }
            _ => 0,
        };
        if first <= newest.counter.sequence {
            losses.add_range(LostRange {
                key: newest.key,
                epoch: newest.counter.epoch,
                first,
                last: newest.counter.sequence,
                cause: LossCause::Unreadable,
            });
        }
    }
    losses
}

/// What a walk through the whole log tells.
#[derive(Default)]
struct Scanned {
    /// The first and the last serial.
    serials: Option<(u64, u64)>,
    newest: Option<Prior>,
    position: Option<Position>,
    drops: Vec<(u64, u64)>,
    damaged: Vec<Offset>,
    losses: Losses,
}

/// Reads every record. A damaged one is stepped over; its neighbours tell its counter if they are of one epoch.
fn scan(reader: &LogReader) -> Result<Scanned, BacklogError> {
    let mut scanned = Scanned::default();
    let mut after_damage = false;
    let mut from = reader.first();
    loop {
        let walked = walk(reader, from, &[], |offset, header, _, _| {
            let this = Prior { key: header.key, counter: header.counter };
            if after_damage && let Some(before) = scanned.newest {
                between(&mut scanned.losses, before, this);
            }
            after_damage = false;
            let first = scanned.serials.map_or(header.serial, |(first, _)| first);
            scanned.serials = Some((first, header.serial));
            scanned.newest = Some(this);
            scanned.position = header.next;
            scanned.drops.extend(header.drops);
            from = offset.next();
            Ok(true)
        });
        match walked {
            Ok(()) => return Ok(scanned),
            Err(BacklogError::Log(LogError::Corrupt { offset, .. }))
                // Going on from behind it works if its length is whole. The last record is never stepped over: what
                // the newest counter is would not be known.
                if offset >= from
                    && offset.next() < reader.end()
                    && scanned.damaged.len() < DAMAGED_MAX =>
            {
                tracing::warn!(record = offset.0, "damaged record in the backlog: stepped over");
                scanned.damaged.push(offset);
                after_damage = true;
                from = offset.next();
            }
            Err(e) => return Err(e),
        }
    }
}

fn between(losses: &mut Losses, before: Prior, after: Prior) {
    let (from, to) = (before.counter.sequence.saturating_add(1), after.counter.sequence);
    if before.key == after.key && before.counter.epoch == after.counter.epoch && from < to {
        losses.add_range(LostRange {
            key: before.key,
            epoch: before.counter.epoch,
            first: from,
            last: to - 1,
            cause: LossCause::Unreadable,
        });
    }
}

/// Calls `each` with every record from `from` to the end, damaged ones left out, until it returns false. `each` gets
/// the offset, the header, the record, and where in it the envelope starts.
fn walk(
    reader: &LogReader,
    from: Offset,
    damaged: &[Offset],
    mut each: impl FnMut(Offset, record::Header, &[u8], usize) -> Result<bool, BacklogError>,
) -> Result<(), BacklogError> {
    let mut from = from;
    while from < reader.end() {
        if damaged.contains(&from) {
            from = from.next();
            continue;
        }
        let upto = damaged.iter().find(|d| **d > from);
        let records_max =
            upto.map_or(WALK_RECORDS, |upto| ((upto.0 - from.0) as usize).min(WALK_RECORDS));
        // A batch that holds a damaged record is refused whole: then one by one, up to it.
        let records = match reader.read(from, records_max, WALK_BYTES) {
            Err(LogError::Corrupt { .. }) => reader.read(from, 1, WALK_BYTES)?,
            records => records?,
        };
        for (offset, record) in records {
            let (header, at) = record::decode(&record)
                .map_err(|source| BacklogError::Record { offset, source })?;
            if !each(offset, header, &record, at)? {
                return Ok(());
            }
            from = offset.next();
        }
    }
    Ok(())
}

/// The sending side of a backlog: what is durable and not done, in order. Clones are the same.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Mutex<Shelf>>);

/// An envelope to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub serial: u64,
    pub envelope: Vec<u8>,
}

/// Some envelopes, and how the backlog goes on behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub items: Vec<Item>,
    /// The serial from which to read on.
    pub next: u64,
}

impl Outbox {
    /// Envelopes from a serial on, at most so many and so many bytes, but one at least if there is one.
    pub fn read(
        &self,
        from: u64,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Batch, BacklogError> {
        let mut shelf = self.shelf();
        let from = from.max(shelf.below);
        let mut batch = Batch { items: Vec::new(), next: from };
        let mut bytes = 0;
        let start = shelf.find(from)?;
        let mut at = start;
        walk(&shelf.reader, start, &shelf.damaged, |offset, header, record, envelope_at| {
            let len = record.len() - envelope_at;
            let full = batch.items.len() == items_max || bytes + len > bytes_max;
            if full && !batch.items.is_empty() {
                return Ok(false);
            }
            at = offset.next();
            batch.next = header.serial + 1;
            if !shelf.is_dropped(header.serial) {
                bytes += len;
                let envelope = record[envelope_at..].to_vec();
                batch.items.push(Item { serial: header.serial, envelope });
            }
            Ok(true)
        })?;
        if batch.items.is_empty() {
            batch.next = batch.next.max(shelf.end);
        }
        shelf.hint = Some((batch.next, at));
        Ok(batch)
    }

    /// The first serial that is not done.
    pub fn below(&self) -> u64 {
        self.shelf().below
    }

    /// The serial of the next record to become durable.
    pub fn end(&self) -> u64 {
        self.shelf().end
    }

    /// Whether an envelope is durable, not done and not stated as lost.
    pub fn is_waiting(&self, serial: u64) -> bool {
        let shelf = self.shelf();
        (shelf.below..shelf.end).contains(&serial) && !shelf.is_dropped(serial)
    }

    fn damaged(&self) -> Vec<Offset> {
        self.shelf().damaged.clone()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().expect("nothing panics while it holds the shelf")
    }
}

#[derive(Debug)]
struct Shelf {
    reader: LogReader,
    /// Every serial below is done.
    below: u64,
    end: u64,
    /// Ranges of serials that a durable notice states as lost. Those below `below` are forgotten.
    dropped: Vec<(u64, u64)>,
    damaged: Vec<Offset>,
    /// A serial and the offset at which to look for it: where the last read ended.
    hint: Option<(u64, Offset)>,
}

impl Shelf {
    fn is_dropped(&self, serial: u64) -> bool {
        self.dropped.iter().any(|(first, last)| (*first..=*last).contains(&serial))
    }

    fn step_over_dropped(&mut self) {
        while let Some((_, last)) =
            self.dropped.iter().find(|(first, last)| (*first..=*last).contains(&self.below))
        {
            self.below = last + 1;
        }
        let below = self.below;
        self.dropped.retain(|(_, last)| *last >= below);
    }

    fn first_from_below(&mut self) -> Result<Offset, BacklogError> {
        self.find(self.below)
    }

    /// The offset of the first record whose serial is not below the given one. Serials grow with offsets.
    fn find(&mut self, serial: u64) -> Result<Offset, BacklogError> {
        if let Some((hinted, offset)) = self.hint
            && hinted == serial
        {
            return Ok(offset.max(self.reader.first()));
        }
        let (mut low, mut high) = (self.reader.first(), self.reader.end());
        while low < high {
            let mut middle = Offset(low.0 + (high.0 - low.0) / 2);
            // A damaged record has no serial to compare: its next neighbour stands for it.
            while middle < high && self.damaged.contains(&middle) {
                middle = middle.next();
            }
            if middle == high {
                high = Offset(low.0 + (high.0 - low.0) / 2);
                continue;
            }
            match self.header(middle) {
                Ok(Some(header)) if header.serial < serial => low = middle.next(),
                Ok(_) => high = Offset(low.0 + (high.0 - low.0) / 2),
                // It was trimmed meanwhile: it is done, and what is looked for lies behind.
                Err(BacklogError::Log(LogError::Trimmed { first, .. })) if first > low => {
                    low = first.min(high);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(low)
    }

    fn header(&self, offset: Offset) -> Result<Option<record::Header>, BacklogError> {
        let records = self.reader.read(offset, 1, RECORD_BYTES_MAX)?;
        let Some((offset, record)) = records.into_iter().next() else { return Ok(None) };
        let (header, _) =
            record::decode(&record).map_err(|source| BacklogError::Record { offset, source })?;
        Ok(Some(header))
    }

    fn prior_at(&self, offset: Offset) -> Result<Option<Prior>, BacklogError> {
        if self.damaged.contains(&offset) {
            return Ok(None);
        }
        let header = self.header(offset)?;
        Ok(header.map(|header| Prior { key: header.key, counter: header.counter }))
    }

    /// A record that is durable, not done and not dropped.
    fn record(&mut self, serial: u64) -> Result<Option<(record::Header, Vec<u8>)>, BacklogError> {
        if serial < self.below || serial >= self.end || self.is_dropped(serial) {
            return Ok(None);
        }
        let offset = self.find(serial)?;
        let mut found = None;
        walk(&self.reader, offset, &self.damaged, |_, header, record, at| {
            if header.serial == serial {
                found = Some((header, record[at..].to_vec()));
            }
            Ok(false)
        })?;
        Ok(found)
    }

    fn waiting(&mut self) -> Result<u64, BacklogError> {
        let mut waiting = 0;
        let from = self.first_from_below()?;
        walk(&self.reader, from, &self.damaged, |_, header, _, _| {
            waiting += u64::from(!self.is_dropped(header.serial));
            Ok(true)
        })?;
        Ok(waiting)
    }
}
