//! A thread that owns a log and commits in groups: whatever was queued while the disk was busy becomes one write and
//! one sync, and is answered in order.
//!
//! The queue is bounded in records and in bytes; beyond that a record is refused at once, and the caller says so to
//! whoever sent it. After a failed write or sync nothing is acknowledged any more (INV-ACK-1): the thread ends,
//! [`Writer::failed`] fires, and the station stops its process.
//!
//! A sender whose order matters puts its records into a [`Lane`]: want of room may hit one record and spare the shorter
//! one behind it, or one group and not the next.

use crate::segment::{HEADER_LEN, RECORD_HEAD_LEN};
use crate::{Log, LogError, LogReader, Offset};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use tokio::sync::{oneshot, watch};

/// What may wait for the disk, in bytes, besides the group that is being written.
const QUEUE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What one group may write: its first record waits for its last one.
const GROUP_BYTES_MAX: u64 = 4 * 1024 * 1024;

type Answer = oneshot::Sender<Result<Offset, LogError>>;

/// Clones write to the same log. When the last one is dropped, what is queued is still committed and the thread ends.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    desk: Arc<Desk>,
    reader: LogReader,
    durable_end: watch::Receiver<Offset>,
    failed: watch::Receiver<bool>,
    ended: watch::Receiver<bool>,
}

/// The records of one sender to one log, in its order: once one has found no room, none behind it is taken
/// ([`LogError::Behind`]). What went before it is written all the same. Clones are the same lane.
#[derive(Clone, Debug)]
pub struct Lane(Arc<Marks>);

#[derive(Debug)]
struct Marks {
    /// How many records were queued.
    queued: AtomicU64,
    /// From this one on none is taken.
    shut_from: AtomicU64,
}

impl Lane {
    pub fn new() -> Self {
        Self(Arc::new(Marks { queued: AtomicU64::new(0), shut_from: AtomicU64::new(u64::MAX) }))
    }

    /// Takes nothing more: for a sender whose record was refused before it came here.
    pub fn shut(&self) {
        self.shut_from(self.next());
    }

    pub fn is_shut(&self) -> bool {
        !self.takes(self.next())
    }

    fn next(&self) -> u64 {
        self.0.queued.load(Ordering::Acquire)
    }

    fn shut_from(&self, record: u64) {
        self.0.shut_from.fetch_min(record, Ordering::AcqRel);
    }

    fn takes(&self, record: u64) -> bool {
        record < self.0.shut_from.load(Ordering::Acquire)
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self::new()
    }
}

/// Where callers leave their records for the thread.
#[derive(Debug)]
struct Desk {
    state: Mutex<State>,
    wake: Condvar,
    dir: PathBuf,
    queue_max: usize,
    bytes_max: u64,
    record_bytes_max: u32,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Queued>,
    queue_bytes: u64,
    /// Bytes of the log, and of the group that is being written.
    log_bytes: u64,
    trim: Option<Offset>,
    life: Life,
}

#[derive(Debug)]
struct Queued {
    payload: Vec<u8>,
    lane: Lane,
    /// Its number in its lane.
    number: u64,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// Commits what is queued, then ends.
    Closing,
    Failed,
}

impl Writer {
    /// Starts the thread. `queue_max` bounds the records that wait.
    pub fn start(log: Log, name: &str, queue_max: usize) -> Self {
        let (durable_end_sender, durable_end) = watch::channel(log.end());
        let (failed_sender, failed) = watch::channel(false);
        let (ended_sender, ended) = watch::channel(false);
        let desk = Arc::new(Desk {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                queue_bytes: 0,
                log_bytes: log.bytes(),
                trim: None,
                life: Life::Open,
            }),
            wake: Condvar::new(),
            dir: log.dir().to_owned(),
            queue_max,
            bytes_max: log.config().bytes_max,
            record_bytes_max: log.config().record_bytes_max,
        });
        let reader = log.reader();
        let thread = Thread {
            log: Some(log),
            desk: desk.clone(),
            durable_end: durable_end_sender,
            failed: failed_sender,
            ended: ended_sender,
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || thread.run())
            .expect("a station that cannot start a thread cannot start");
        Self(Arc::new(Handle { desk, reader, durable_end, failed, ended }))
    }

    /// Resolves when the record is durable. Fails at once as [`Writer::submit`] does.
    pub async fn append(&self, payload: Vec<u8>) -> Result<Offset, LogError> {
        match self.submit(payload)?.await {
            Ok(answer) => answer,
            Err(_) => Err(LogError::Poisoned { dir: self.0.desk.dir.clone() }),
        }
    }

    /// Queues a record; the receiver is answered when it is durable. The order of calls is the order in the log.
    ///
    /// Refuses at once with `Full`, `QueueFull`, `TooLarge`, `Closed` or `Poisoned`; nothing is queued then. The answer may
    /// still be `DiskFull`, or `Full` where the head of a new segment takes the last room.
    pub fn submit(
        &self,
        payload: Vec<u8>,
    ) -> Result<oneshot::Receiver<Result<Offset, LogError>>, LogError> {
        self.submit_in(&Lane::new(), payload)
    }

    /// As [`Writer::submit`], in a lane; refuses with `Behind`, at once or as the answer, what follows a record of the
    /// lane that was refused for want of room.
    pub fn submit_in(
        &self,
        lane: &Lane,
        payload: Vec<u8>,
    ) -> Result<oneshot::Receiver<Result<Offset, LogError>>, LogError> {
        let queued = self.queue(lane, payload);
        if queued.as_ref().is_err_and(LogError::is_for_want_of_room) {
            lane.shut();
        }
        queued
    }

    fn queue(
        &self,
        lane: &Lane,
        payload: Vec<u8>,
    ) -> Result<oneshot::Receiver<Result<Offset, LogError>>, LogError> {
        let desk = &*self.0.desk;
        let mut state = desk.state();
        let number = lane.next();
        if !lane.takes(number) {
            return Err(LogError::Behind);
        }
        let needs = desk.room_for(&state, payload.len())?;
        let (answer, answered) = oneshot::channel();
        lane.0.queued.fetch_add(1, Ordering::AcqRel);
        state.queue.push_back(Queued { payload, lane: lane.clone(), number, answer });
        state.queue_bytes += needs;
        drop(state);
        desk.wake.notify_one();
        Ok(answered)
    }

    /// Whether a record of so many bytes would be queued now, and why not. For who writes to several logs or to none: what
    /// others queue in between may still take the room.
    pub fn room_for(&self, payload_len: usize) -> Result<(), LogError> {
        let desk = &*self.0.desk;
        desk.room_for(&desk.state(), payload_len).map(drop)
    }

    pub fn reader(&self) -> LogReader {
        self.0.reader.clone()
    }

    /// What counts against the log's `bytes_max`: its segments, and what is queued.
    pub fn bytes(&self) -> u64 {
        let state = self.0.desk.state();
        state.log_bytes + state.queue_bytes
    }

    /// The end of what is durable, as it grows.
    pub fn durable_end(&self) -> watch::Receiver<Offset> {
        self.0.durable_end.clone()
    }

    /// Asks the thread to trim, between two groups. Only the highest of several calls counts. A segment that could not
    /// be removed is tried again at the next call.
    pub fn trim(&self, below: Offset) {
        let mut state = self.0.desk.state();
        state.trim = state.trim.max(Some(below));
        drop(state);
        self.0.desk.wake.notify_one();
    }

    /// Becomes true when the log is poisoned: the station must stop its process.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.0.failed.clone()
    }

    /// Commits what is queued, ends the thread and waits for it; the log may be opened again afterwards. Later calls
    /// of clones fail with `Closed`.
    pub async fn close(self) {
        self.0.desk.end();
        let mut ended = self.0.ended.clone();
        // An error says that the thread is gone, which is what we wait for.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.desk.end();
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the queue")
    }

    /// What a record of so many bytes needs in the log, if it can be queued.
    fn room_for(&self, state: &State, payload_len: usize) -> Result<u64, LogError> {
        let len = payload_len as u64;
        if len > u64::from(self.record_bytes_max) {
            return Err(LogError::TooLarge { len, len_max: self.record_bytes_max.into() });
        }
        self.open(state)?;
        let needs = RECORD_HEAD_LEN + len;
        let taken = state.log_bytes + state.queue_bytes;
        if taken + HEADER_LEN + needs > self.bytes_max {
            return Err(LogError::Full { needs, bytes: taken, bytes_max: self.bytes_max });
        }
        let queued = state.queue.len();
        let too_many_bytes = queued > 0 && state.queue_bytes + needs > QUEUE_BYTES_MAX;
        if queued >= self.queue_max || too_many_bytes {
            return Err(LogError::QueueFull { queued, bytes: state.queue_bytes });
        }
        Ok(needs)
    }

    fn open(&self, state: &State) -> Result<(), LogError> {
        match state.life {
            Life::Open => Ok(()),
            Life::Closing => Err(LogError::Closed { dir: self.dir.clone() }),
            Life::Failed => Err(LogError::Poisoned { dir: self.dir.clone() }),
        }
    }

    fn end(&self) {
        let mut state = self.state();
        if state.life == Life::Open {
            state.life = Life::Closing;
        }
        drop(state);
        self.wake.notify_one();
    }
}

struct Thread {
    /// Taken out when the thread ends, so that the files are closed before that is told.
    log: Option<Log>,
    desk: Arc<Desk>,
    durable_end: watch::Sender<Offset>,
    failed: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

/// What the thread found on its desk.
struct Work {
    group: Vec<Queued>,
    trim: Option<Offset>,
}

impl Thread {
    fn run(mut self) {
        while let Some(work) = self.next_work() {
            let log = self.log.as_mut().expect("the log is there while the thread runs");
            let answers = commit(log, work.group);
            let trimmed = match work.trim {
                Some(below) if !log.is_poisoned() => log.trim(below),
                _ => Ok(()),
            };
            if let Err(e) = &trimmed {
                tracing::warn!(error = %e, source = ?std::error::Error::source(e), "log not trimmed");
            }
            let (end, poisoned) = (log.end(), log.is_poisoned());
            self.desk.state().log_bytes = log.bytes();
            if self.durable_end.borrow().lt(&end) {
                self.durable_end.send_replace(end);
            }
            for (answer, result) in answers {
                // Who does not wait any more does not want to know.
                let _ = answer.send(result);
            }
            if poisoned {
                // What is queued is refused when the thread is dropped.
                return;
            }
        }
    }

    /// Waits for something to do. `None`: closed, and all done.
    fn next_work(&self) -> Option<Work> {
        let log = self.log.as_ref().expect("the log is there while the thread runs");
        let group_max = GROUP_BYTES_MAX.min(log.config().segment_bytes);
        let mut state = self.desk.state();
        while state.queue.is_empty() && state.trim.is_none() && state.life == Life::Open {
            state = self.desk.wake.wait(state).expect("nothing panics while it holds the queue");
        }
        if state.queue.is_empty() && state.trim.is_none() {
            return None;
        }
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some(next) = state.queue.front() {
            let needs = RECORD_HEAD_LEN + next.payload.len() as u64;
            if !group.is_empty() && bytes + needs > group_max {
                break;
            }
            bytes += needs;
            group.extend(state.queue.pop_front());
        }
        state.queue_bytes -= bytes;
        state.log_bytes += bytes;
        Some(Work { group, trim: state.trim.take() })
    }
}

/// Appends and commits a group; gives back each caller with the answer for it. A lane is shut before anybody is answered,
/// and before the next group is looked at.
fn commit(log: &mut Log, group: Vec<Queued>) -> Vec<(Answer, Result<Offset, LogError>)> {
    let mut results: Vec<_> = group
        .iter()
        .map(|record| {
            if !record.lane.takes(record.number) {
                return Err(LogError::Behind);
            }
            let appended = log.append(&record.payload);
            if appended.as_ref().is_err_and(LogError::is_for_want_of_room) {
                record.lane.shut_from(record.number);
            }
            appended
        })
        .collect();
    if let Err(e) = log.commit() {
        for (record, result) in group.iter().zip(&mut results).filter(|(_, r)| r.is_ok()) {
            if e.is_for_want_of_room() {
                record.lane.shut_from(record.number);
            }
            *result = Err(e.clone());
        }
    }
    group.into_iter().map(|record| record.answer).zip(results).collect()
}

impl Drop for Thread {
    /// Also when the thread panics: nobody waits for ever.
    fn drop(&mut self) {
        drop(self.log.take());
        let closed = {
            let mut state = self.desk.state();
            let closed = state.life == Life::Closing && state.queue.is_empty();
            if !closed {
                state.life = Life::Failed;
            }
            for record in state.queue.drain(..) {
                let _ = record.answer.send(Err(LogError::Poisoned { dir: self.desk.dir.clone() }));
            }
            state.queue_bytes = 0;
            closed
        };
        if !closed {
            self.failed.send_replace(true);
        }
        self.ended.send_replace(true);
    }
}
