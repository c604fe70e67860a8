//! What the gateway has acknowledged and not handed up yet, and what it remembers of each key.
//!
//! Promises: a message and its place in the window are one record, durable before its PUBACK (INV-ACK-1); after any
//! crash the windows are what folding the log gives, so that what was acknowledged is known again (INV-REPLAY-1); a
//! segment is given up only when control has answered for all of it, and behind a checkpoint of the windows that is
//! durable; a full disk is said before a window moves, and does not keep segments from being given up.
//! Never: changes the order of a device's messages (of a session that found no room nothing more is taken), retries a
//! failed sync, drops a record that control has not answered for.
//!
//! ```text
//! spool/        the log (`bus::Log`); one record a message:
//!     record  = [1, device, key: bstr 32, epoch, sequence, digest: bstr 32, received_at_us, uncertainty_ms, fresh,
//!                bundle_generation, message: bstr]
//! windows       what was folded from the log up to an offset; written before a segment below it goes:
//!     windows = [1, folded_to, [ *[key: bstr 32, window: bstr] ]] | SHA-256 of that, 32 bytes        sorted by key
//! cursor        everything below it was answered for; may lag behind, so that records are handed up again:
//!     cursor  = [1, cursor] | SHA-256 of that, 32 bytes
//! ```
//!
//! `windows` and `cursor` are replaced whole, on a full disk with the room of [`crate::reserve`]. One that is damaged stops the
//! start with its name. A missing `windows` is taken as empty: a gateway's memory is short in any case, and *taken* in the
//! store is not.

use crate::admission::{Admission, Claim, Standing};
use crate::kept::{self, KeptError, version};
use crate::metrics::{Invariant, Metrics};
use crate::refusal::Refusal;
use crate::reserve;
use crate::session::Answer;
use bus::{Lane, Log, LogConfig, LogError, LogReader, Offset, Writer};
use disk::SharedDisk;
use minicbor::{Decoder, Encoder};
use model::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect};
use model::envelope::MESSAGE_BYTES_MAX;
use model::told;
use model::{Counter, DeviceId, Digest, KeyId, Timestamp};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use trust::window::Window;

/// The bounds of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// All segments together. Beyond it: PUBACK 0x97, `spool_full`.
    pub bytes_max: u64,
    pub segment_bytes: u64,
    /// Records that wait for one sync. Beyond it: PUBACK 0x97, `queue_full`.
    pub queue_max: usize,
    /// How many of its last messages are remembered of each key.
    pub remember: usize,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            bytes_max: 1024 * 1024 * 1024,
            segment_bytes: 16 * 1024 * 1024,
            queue_max: 4096,
            remember: 64,
        }
    }
}

/// A record's own bytes besides the message: names, digests and numbers at their longest.
const RECORD_OVERHEAD: usize = 256;
const WINDOWS: &str = "windows";
const CURSOR: &str = "cursor";
/// A bundle, which is what lets keys in, names fewer than 200,000.
const KEYS_MAX: usize = 1 << 20;
/// How long `windows` may get by remembering more than one message of a key: 20,000 keys with the 64 of the default, written
/// for every 16 MiB that are handed up.
const WINDOWS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The names, numbers and lengths of the file itself, and of a key in it, at their longest; then of one message.
const WINDOWS_HEAD: usize = 16 + 32;
const WINDOW_HEAD: usize = 40 + 27;
const WINDOW_MESSAGE: usize = 49;
// What is written can be read: with one message of each key as well.
const _: () = assert!(
    (WINDOWS_HEAD + KEYS_MAX * (WINDOW_HEAD + WINDOW_MESSAGE)) as u64 <= kept::FILE_BYTES_MAX
        && WINDOWS_BYTES_MAX as u64 <= kept::FILE_BYTES_MAX
);

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("cannot open the spool")]
    Log(#[from] LogError),
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error("record {offset} of the spool cannot be read")]
    BadRecord { offset: Offset, source: Malformed },
    #[error("`{}` points at record {found}, and the spool ends at {end}: it is another spool's", path.display())]
    Foreign { path: PathBuf, found: u64, end: Offset },
}

impl SpoolError {
    /// Whether there was no space for it: later there may be, and nothing is broken.
    pub(crate) fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::Log(error) => error.is_for_want_of_room(),
            Self::Kept(error) => error.is_full(),
            Self::BadRecord { .. } | Self::Foreign { .. } => false,
        }
    }
}

/// One message that was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub device: DeviceId,
    pub key: KeyId,
    pub counter: Counter,
    pub digest: Digest,
    pub received_at: Timestamp,
    pub uncertainty_ms: u32,
    pub fresh: bool,
    /// The generation of the bundle under which it was admitted.
    pub bundle: u64,
    pub message: Vec<u8>,
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(self.message.len() + RECORD_OVERHEAD));
        let written: Result<(), minicbor::encode::Error<Infallible>> = (|| {
            e.array(11)?.u8(1)?.str(self.device.as_str())?.bytes(self.key.as_bytes())?;
            e.u32(self.counter.epoch)?.u64(self.counter.sequence)?;
            e.bytes(self.digest.as_bytes())?.i64(self.received_at.as_us())?;
            e.u32(self.uncertainty_ms)?.bool(self.fresh)?.u64(self.bundle)?;
            e.bytes(&self.message)?;
            Ok(())
        })();
        written.expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let out_of_domain = |expected| Malformed::new(Reason::OutOfDomain, expected);
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 11, "a spool record of 11 fields")?;
        version(&mut d)?;
        let device = DeviceId::new(expect(d.str(), "a device id")?)
            .map_err(|_| out_of_domain("a device id"))?;
        let key = key(&mut d)?;
        let counter = Counter {
            epoch: expect(d.u32(), "an epoch")?,
            sequence: expect(d.u64(), "a sequence")?,
        };
        let digest = Digest::try_from(expect(d.bytes(), "a digest of 32 bytes")?)
            .map_err(|_| out_of_domain("a digest of 32 bytes"))?;
        let received_at = Timestamp(expect(d.i64(), "a time in µs since 1970")?);
        let uncertainty_ms = expect(d.u32(), "an uncertainty in ms")?;
        let fresh = expect(d.bool(), "fresh: a boolean")?;
        let bundle = expect(d.u64(), "a bundle generation")?;
        let message = expect(d.bytes(), "a message")?.to_vec();
        at_end(&d)?;
        Ok(Self {
            device,
            key,
            counter,
            digest,
            received_at,
            uncertainty_ms,
            fresh,
            bundle,
            message,
        })
    }
}

/// One session's way into the spool: where its answers go, and that its messages keep their order.
#[derive(Clone, Debug)]
pub struct Inlet {
    inbox: mpsc::Sender<(u64, Answer)>,
    lane: Lane,
}

impl Inlet {
    /// The inbox must hold one answer for each message that the session may have in flight, so that it is never full.
    pub fn new(inbox: mpsc::Sender<(u64, Answer)>) -> Self {
        Self { inbox, lane: Lane::new() }
    }
}

/// Where the answer goes: a session's inlet, and the place that the session knows the message by.
#[derive(Debug)]
struct Waiter {
    inlet: Inlet,
    place: u64,
}

/// See the module's head. Clones are the same spool.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: SharedDisk,
    dir: PathBuf,
    config: SpoolConfig,
    metrics: Metrics,
    writer: Writer,
    reader: LogReader,
    ledger: Arc<Mutex<Ledger>>,
    commits: mpsc::Sender<Step>,
    /// The disk has less left than the operator would have free.
    low: AtomicBool,
    /// The disk has not enough left for [`reserve`].
    short: AtomicBool,
    shown: Shown,
    durable: Mutex<Durable>,
}

/// What is shown of the spool, and what that takes.
#[derive(Clone, Debug)]
struct Shown {
    writer: Writer,
    reader: LogReader,
    metrics: Metrics,
    cursor: Arc<AtomicU64>,
    /// Somebody found no room: trim at the next occasion.
    pressed: Arc<AtomicBool>,
    /// Somebody found no room on the disk, whoever has filled it.
    disk_full: Arc<Notify>,
}

impl Shown {
    fn cursor(&self) -> Offset {
        Offset(self.cursor.load(Ordering::Acquire))
    }

    /// Somebody found no room.
    fn press(&self) {
        self.pressed.store(true, Ordering::Relaxed);
    }

    fn update(&self) {
        let waiting = self.reader.end().0.saturating_sub(self.cursor().0);
        self.metrics.spool_records.set(waiting as i64);
        self.metrics.spool_bytes.set(self.writer.bytes() as i64);
    }
}

/// The admission, and how far it was folded from the log.
#[derive(Debug)]
struct Ledger {
    admission: Admission<Waiter>,
    folded_to: Offset,
}

/// What stands on the disk beside the log.
#[derive(Debug)]
struct Durable {
    cursor: Offset,
    /// Up to where the log is folded in `windows`.
    folded_to: Offset,
    /// Bytes handed up since the last trim.
    since_trim: u64,
}

/// What the committer does, in the order of the log.
#[derive(Debug)]
enum Step {
    Commit(Commit),
    /// Says that all before is settled.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Commit {
    claim: Claim,
    late: bool,
    began: Instant,
    written: oneshot::Receiver<Result<Offset, LogError>>,
}

/// What was found on the disk.
struct Found {
    admission: Admission<Waiter>,
    /// In memory, and in `windows`.
    folded_to: Offset,
    kept_to: Offset,
    cursor: Offset,
}

impl Spool {
    /// Opens or creates. Blocks on the disk; must be called within a runtime.
    pub fn open(
        disk: SharedDisk,
        dir: &Path,
        config: SpoolConfig,
        metrics: Metrics,
    ) -> Result<Self, SpoolError> {
        let log_config = LogConfig {
            segment_bytes: config.segment_bytes.min(config.bytes_max / 4),
            bytes_max: config.bytes_max,
            record_bytes_max: (MESSAGE_BYTES_MAX + RECORD_OVERHEAD) as u32,
        };
        let log = Log::open(disk.clone(), &dir.join("spool"), log_config)?;
        let reader = log.reader();
        let found = recover(&*disk, &reader, dir, config.remember, &metrics)?;
        let writer = Writer::start(log, "gateway-spool", config.queue_max);
        // What was written and is not settled yet: what may be queued, and as much that was just committed.
        let (commits, queue) = mpsc::channel(config.queue_max * 2);
        metrics.window_keys.set(found.admission.windows().len() as i64);
        let since_trim = if found.cursor > reader.first() { u64::MAX / 2 } else { 0 };
        let ledger = Ledger { admission: found.admission, folded_to: found.folded_to };
        let ledger = Arc::new(Mutex::new(ledger));
        let shown = Shown {
            writer: writer.clone(),
            reader: reader.clone(),
            metrics: metrics.clone(),
            cursor: Arc::new(AtomicU64::new(found.cursor.0)),
            pressed: Arc::default(),
            disk_full: Arc::default(),
        };
        shown.update();
        tokio::spawn(settle(ledger.clone(), shown.clone(), queue));
        let durable = Durable { cursor: found.cursor, folded_to: found.kept_to, since_trim };
        let spool = Self(Arc::new(Inner {
            disk,
            dir: dir.to_owned(),
            config,
            metrics,
            writer,
            reader,
            ledger,
            commits,
            low: AtomicBool::new(false),
            short: AtomicBool::new(false),
            shown,
            durable: Mutex::new(durable),
        }));
        spool.hold_reserve()?;
        Ok(spool)
    }

    /// Offers a message that was believed. `Some`: the answer, at once. `None`: it comes to the waiter, once the disk has
    /// spoken.
    ///
    /// Calls of one session are made in the order of its messages, all through its one inlet: then that is their order in
    /// the log. Once one was refused for want of room, so are all behind it, until the session has ended.
    pub fn offer(
        &self,
        claim: &Claim,
        inlet: &mut Inlet,
        place: u64,
        record: impl FnOnce() -> Record,
    ) -> Option<Answer> {
        let inner = &*self.0;
        let refused = |refusal| Some(Answer::Refused(refusal));
        let mut ledger = inner.ledger();
        let late = match ledger.admission.look(claim) {
            Standing::Free { late } => late,
            Standing::Durable => {
                inner.metrics.repeats.inc();
                return Some(Answer::Accepted);
            }
            Standing::Pending => {
                inner.metrics.repeats.inc();
                // Sent in an earlier session, and it may still find no room there: then neither does what follows it here.
                if let Some(first) = ledger.admission.first_waiting(claim)
                    && !inlet.lane.is_shut()
                {
                    inlet.lane = first.inlet.lane.clone();
                }
                ledger.admission.join(claim, Waiter { inlet: inlet.clone(), place });
                return None;
            }
            Standing::Forged => return refused(Refusal::Forged),
        };
        if inlet.lane.is_shut() {
            return refused(Refusal::BehindRefused);
        }
        if inner.is_low() {
            inlet.lane.shut();
            inner.shown.press();
            inner.shown.disk_full.notify_one();
            return refused(Refusal::DiskFull);
        }
        let Ok(step) = inner.commits.try_reserve() else {
            inlet.lane.shut();
            return refused(Refusal::QueueFull);
        };
        match inner.writer.submit_in(&inlet.lane, record().encode()) {
            Ok(written) => {
                ledger.admission.begin(claim, Waiter { inlet: inlet.clone(), place });
                let began = Instant::now();
                step.send(Step::Commit(Commit { claim: *claim, late, began, written }));
                None
            }
            Err(LogError::Full { .. }) => {
                inner.shown.press();
                refused(Refusal::SpoolFull)
            }
            Err(LogError::QueueFull { .. }) => refused(Refusal::QueueFull),
            Err(LogError::Behind) => refused(Refusal::BehindRefused),
            Err(LogError::TooLarge { .. }) => refused(Refusal::MessageOversize),
            // The process is about to stop: nobody is told anything that may not be so.
            Err(_) => None,
        }
    }

    /// The next records to hand up: at most so many, of at most so many bytes together, but one at least. Blocks.
    pub fn next(
        &self,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Offset, Record)>, SpoolError> {
        let read = self.0.reader.read(self.cursor(), records_max, bytes_max)?;
        read.into_iter()
            .map(|(offset, bytes)| match Record::decode(&bytes) {
                Ok(record) => Ok((offset, record)),
                Err(source) => {
                    let what =
                        format!("record {offset} of the spool was durable and cannot be read");
                    self.0.metrics.violated(Invariant::Ack1, &what);
                    Err(SpoolError::BadRecord { offset, source })
                }
            })
            .collect()
    }

    /// Everything below was answered for: it need not be handed up again.
    pub fn answered_below(&self, next: Offset, bytes: u64) {
        self.0.shown.cursor.fetch_max(next.0, Ordering::AcqRel);
        self.0.durable().since_trim += bytes;
        self.0.shown.update();
    }

    /// Gives up segments when that is worth a checkpoint, and makes the cursor durable. Blocks on the disk. After an error
    /// for want of room it is called again later.
    pub fn keep(&self) -> Result<(), SpoolError> {
        let inner = &*self.0;
        let mut durable = inner.durable();
        let cursor = self.cursor();
        // First, since on a full disk it makes the room for the rest.
        self.trim(&mut durable, cursor)?;
        if cursor > durable.cursor {
            kept::replace(&*inner.disk, &inner.dir.join(CURSOR), &encode_cursor(cursor))?;
            durable.cursor = cursor;
        }
        self.hold_reserve()?;
        inner.shown.update();
        Ok(())
    }

    /// Gives up what lies below the cursor, as far as the windows on the disk reach. The cursor there may lie behind: a log
    /// that begins above it says the same.
    fn trim(&self, durable: &mut Durable, cursor: Offset) -> Result<(), SpoolError> {
        let inner = &*self.0;
        let segment = self.segment_bytes();
        let pressed = inner.shown.pressed.load(Ordering::Relaxed);
        let is_worth_it = durable.since_trim >= segment || (pressed && durable.since_trim > 0);
        if !is_worth_it {
            return Ok(());
        }
        let kept = if durable.folded_to < cursor { self.checkpoint(durable) } else { Ok(()) };
        inner.writer.trim(cursor.min(durable.folded_to));
        kept?;
        inner.shown.pressed.store(false, Ordering::Relaxed);
        durable.since_trim = 0;
        Ok(())
    }

    /// Writes down the windows.
    fn checkpoint(&self, durable: &mut Durable) -> Result<(), SpoolError> {
        let inner = &*self.0;
        let (bytes, folded_to) = {
            let ledger = inner.ledger();
            let bytes = encode_windows(&ledger.admission, ledger.folded_to, WINDOWS_BYTES_MAX);
            (bytes, ledger.folded_to)
        };
        kept::replace(&*inner.disk, &inner.dir.join(WINDOWS), &bytes)?;
        durable.folded_to = folded_to;
        inner.metrics.checkpoints.inc();
        Ok(())
    }

    fn hold_reserve(&self) -> Result<(), SpoolError> {
        let (inner, path) = (&*self.0, self.0.dir.clone());
        let held = reserve::hold(&*inner.disk, &path).map_err(|source| KeptError::File {
            attempt: "hold room in",
            path,
            source,
        })?;
        inner.short.store(!held, Ordering::Relaxed);
        if !held {
            inner.shown.disk_full.notify_one();
        }
        inner.metrics.disk_reserve.set(inner.is_low().into());
        Ok(())
    }

    /// Forgets the windows of keys that nobody seals by any more.
    pub fn retain_keys(&self, still: impl Fn(&KeyId) -> bool) {
        let mut ledger = self.0.ledger();
        ledger.admission.retain(still);
        self.0.metrics.window_keys.set(ledger.admission.windows().len() as i64);
    }

    /// Whether only the disk's reserve is left: then nothing more is taken.
    pub fn set_low(&self, low: bool) {
        self.0.low.store(low, Ordering::Relaxed);
        self.0.metrics.disk_reserve.set(self.0.is_low().into());
    }

    /// Told when something finds no room on the disk: whoever has something there that can be had again may give it up.
    pub fn disk_full(&self) -> Arc<Notify> {
        self.0.shown.disk_full.clone()
    }

    /// How much is given up at a time.
    pub fn segment_bytes(&self) -> u64 {
        self.0.config.segment_bytes.min(self.0.config.bytes_max / 4)
    }

    /// The next record to hand up.
    pub fn cursor(&self) -> Offset {
        self.0.shown.cursor()
    }

    /// The end of what is durable.
    pub fn end(&self) -> Offset {
        self.0.reader.end()
    }

    pub fn durable_end(&self) -> watch::Receiver<Offset> {
        self.0.writer.durable_end()
    }

    /// Becomes true after a failed write or sync: the process must stop.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.0.writer.failed()
    }

    /// Commits what is queued, answers it, and keeps cursor and windows, so that the next start folds nothing.
    pub async fn close(self) -> Result<(), SpoolError> {
        self.0.writer.clone().close().await;
        let (flushed, flush) = oneshot::channel();
        // An error of either says that the committer is gone, and with it whoever waited.
        let _ = self.0.commits.send(Step::Flush(flushed)).await;
        let _ = flush.await;
        if *self.0.writer.failed().borrow() {
            // What is durable is unknown: the next start finds out.
            return Ok(());
        }
        let keeping = tokio::task::spawn_blocking(move || {
            self.keep()?;
            self.checkpoint(&mut self.0.durable())
        });
        match keeping.await.expect("keeping does not panic") {
            Err(error) if error.is_for_want_of_room() => {
                let error = told(&error);
                tracing::warn!(error, "the next start hands some records up again, and folds more");
                Ok(())
            }
            kept => kept,
        }
    }
}

impl Inner {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed) || self.short.load(Ordering::Relaxed)
    }

    fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().expect("nothing panics while it holds the cursor")
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("nothing panics while it holds the windows")
}

/// Hears of each record, in the order of the log, moves its window and answers whoever waits.
async fn settle(ledger: Arc<Mutex<Ledger>>, shown: Shown, mut queue: mpsc::Receiver<Step>) {
    let metrics = &shown.metrics;
    while let Some(step) = queue.recv().await {
        let mut commit = match step {
            Step::Commit(commit) => commit,
            Step::Flush(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let written = (&mut commit.written).await;
        let (waiting, answer) = match written {
            Ok(Ok(offset)) => {
                let mut ledger = lock(&ledger);
                let waiting = ledger.admission.durable(&commit.claim);
                ledger.folded_to = offset.next();
                metrics.window_keys.set(ledger.admission.windows().len() as i64);
                count(metrics, &commit);
                shown.update();
                (waiting, Answer::Accepted)
            }
            Ok(Err(error)) if error.is_for_want_of_room() => {
                shown.press();
                let refusal = match error {
                    LogError::DiskFull { .. } => {
                        shown.disk_full.notify_one();
                        Refusal::DiskFull
                    }
                    LogError::Behind => Refusal::BehindRefused,
                    _ => Refusal::SpoolFull,
                };
                (lock(&ledger).admission.dropped(&commit.claim), Answer::Refused(refusal))
            }
            // What is durable is unknown, and the process is about to stop: nobody is answered (INV-ACK-1).
            Ok(Err(_)) | Err(_) => continue,
        };
        for waiter in waiting {
            // A session that has ended asks again in its next one.
            let sent = waiter.inlet.inbox.try_send((waiter.place, answer));
            if let Err(TrySendError::Full(_)) = sent {
                let what = "a session has more answers than it may have messages in flight";
                metrics.violated(Invariant::Cost1, what);
            }
        }
    }
}

fn count(metrics: &Metrics, commit: &Commit) {
    metrics.ack_seconds.observe(commit.began.elapsed().as_secs_f64());
    let admitted =
        if commit.claim.fresh { &metrics.admitted_fresh } else { &metrics.admitted_history };
    admitted.inc();
    if commit.late {
        metrics.admitted_late.inc();
    }
}

/// Reads what a crash has left, and folds the rest of the log into the windows.
fn recover(
    disk: &dyn disk::Disk,
    log: &LogReader,
    dir: &Path,
    remember: usize,
    metrics: &Metrics,
) -> Result<Found, SpoolError> {
    let (windows_path, cursor_path) = (&dir.join(WINDOWS), &dir.join(CURSOR));
    let (first, end) = (log.first(), log.end());
    // A killed process may have left names that are not durable: what they say must be before it is built upon.
    kept::settle(disk, dir)?;
    let cursor = kept::read(disk, cursor_path, decode_cursor)?.unwrap_or(first);
    let windows = kept::read(disk, windows_path, decode_windows)?;
    let was_kept = windows.is_some();
    let (folded_to, windows) = windows.unwrap_or_default();
    for (path, found) in [(cursor_path, cursor), (windows_path, folded_to)] {
        if found > end {
            return Err(SpoolError::Foreign { path: path.to_owned(), found: found.0, end });
        }
    }
    if folded_to < first {
        // Somebody moved the file away, or put an old one there: nothing is trimmed before it was folded.
        if was_kept {
            let what = "segments were given up that the windows had not been folded from";
            metrics.violated(Invariant::Replay1, what);
        }
        tracing::warn!(path = %windows_path.display(), %folded_to, %first, "windows do not reach the log");
    }
    let mut found = Found {
        admission: Admission::new(remember),
        folded_to,
        kept_to: folded_to,
        cursor: cursor.max(first),
    };
    for (key, window) in windows {
        found.admission.restore(key, window);
    }
    let mut next = folded_to.max(first);
    while next < end {
        for (offset, bytes) in log.read(next, 1024, 4 * 1024 * 1024)? {
            let record = Record::decode(&bytes)
                .map_err(|source| SpoolError::BadRecord { offset, source })?;
            found.admission.fold(record.key, record.counter, record.digest);
            next = offset.next();
        }
    }
    found.folded_to = next;
    Ok(found)
}

fn encode_cursor(cursor: Offset) -> Vec<u8> {
    kept::seal(|e| e.array(2)?.u8(1)?.u64(cursor.0).map(drop))
}

fn decode_cursor(bytes: &[u8]) -> Result<Offset, Malformed> {
    let mut d = Decoder::new(bytes);
    array_of(&mut d, 2, "[1, cursor]")?;
    version(&mut d)?;
    let cursor = Offset(expect(d.u64(), "a cursor")?);
    at_end(&d)?;
    Ok(cursor)
}

/// Of each key as many messages as there is room for in `bytes_max`, the newest, and one in any case: what is forgotten so
/// is late when it comes again, and history.
fn encode_windows<W>(admission: &Admission<W>, folded_to: Offset, bytes_max: usize) -> Vec<u8> {
    let mut windows: Vec<(&KeyId, &Window)> = admission.windows().iter().collect();
    windows.sort_by_key(|(key, _)| **key);
    windows.truncate(KEYS_MAX);
    let share = bytes_max.saturating_sub(WINDOWS_HEAD) / windows.len().max(1);
    let messages = share.saturating_sub(WINDOW_HEAD) / WINDOW_MESSAGE;
    kept::seal(|e| {
        e.array(3)?.u8(1)?.u64(folded_to.0)?.array(windows.len() as u64)?;
        for (key, window) in windows {
            e.array(2)?.bytes(key.as_bytes())?.bytes(&window.encode_last(messages))?;
        }
        Ok(())
    })
}

fn decode_windows(bytes: &[u8]) -> Result<(Offset, Vec<(KeyId, Window)>), Malformed> {
    let mut d = Decoder::new(bytes);
    array_of(&mut d, 3, "[1, folded_to, windows]")?;
    version(&mut d)?;
    let folded_to = Offset(expect(d.u64(), "an offset")?);
    let len = array_up_to(&mut d, KEYS_MAX, "at most 1,048,576 windows")?;
    let mut windows = Vec::with_capacity(len.min(bytes.len() / 40));
    for _ in 0..len {
        array_of(&mut d, 2, "[key, window]")?;
        let key = key(&mut d)?;
        windows.push((key, Window::decode(expect(d.bytes(), "a window")?)?));
    }
    at_end(&d)?;
    Ok((folded_to, windows))
}

fn key(d: &mut Decoder<'_>) -> Result<KeyId, Malformed> {
    const EXPECTED: &str = "a key thumbprint of 32 bytes";
    KeyId::try_from(expect(d.bytes(), EXPECTED)?)
        .map_err(|_| Malformed::new(Reason::OutOfDomain, EXPECTED))
}

#[cfg(test)]
mod tests;
