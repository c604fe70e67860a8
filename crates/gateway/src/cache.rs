//! Images by their digest, on this gateway's disk: one download for a whole site.
//!
//! Promises: an image is asked of control once, whoever waits for it, and those who wait read it while it comes; the last byte
//! of it is given out only when its digest is right, and what was found on the disk is read through before the first, as is what
//! somebody has reason to doubt; bytes are bounded (INV-COST-1), and give way to what has to be durable.
//! Never: is asked what is in an image; keeps one alive: what is lost here is fetched again.
//!
//! ```text
//! cache/HEX          an image, whole
//! cache/HEX.part     its beginning: a fetch goes on where the last one left off
//! cache/order        digests in hexadecimal, one a line, used longest ago first; without it all were used alike
//! ```
//!
//! What goes first decides [`crate::shelf`].

use crate::control::{Link, blocking, retry_after};
use crate::identity::random;
use crate::limits::Backoff;
use crate::metrics::Metrics;
use crate::shelf::{Look, NoRoom, Shelf};
use api::update::IMAGE_BYTES_MAX;
use disk::{Disk, File, SharedDisk, is_full};
use hyper::body::Bytes;
use model::{Digest, told};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Images that are fetched or read through at a time. The others wait.
const WORKS_MAX: usize = 4;
/// Images that wait for their turn. One more is to be asked for again.
const WAITING_MAX: usize = 64;
/// How long somebody waits to hear how long an image is: another may be before it, or it is read through.
const OPEN_TIME: Duration = Duration::from_secs(30);
/// Control may be silent for so long in the middle of an image.
const CHUNK_TIME: Duration = Duration::from_secs(30);
/// A fetch that is cut off is taken up so often without a further byte.
const FRUITLESS_MAX: u32 = 4;
const WAIT_MAX: Duration = Duration::from_secs(5);
/// What is written at a time.
const WRITE_BYTES: usize = 32 * 1024;
/// Less is written after so long: a slow link is not to keep those waiting who follow.
const WRITE_TIME: Duration = Duration::from_millis(100);
/// What is read at a time to be verified.
const READ_BYTES: usize = 1024 * 1024;
/// What waits to be synced: the spool's own sync is not to wait for a gibibyte.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;
/// For how long the same answer is given: nobody makes control look for what is not there, or a site fetch in vain, as fast as he
/// can ask.
const FAILED_FOR: Duration = Duration::from_secs(10);
const FAILED_MAX: usize = 1024;
/// For how long nothing is fetched after the disk was full.
const PRESSED_FOR: Duration = Duration::from_secs(30);
const ORDER: &str = "order";
/// Far more lines than there are images.
const ORDER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why there is no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No metadata that control trusts names it.
    Absent,
    /// Control is away, or puts us off.
    Away { retry_after: Option<Duration> },
    /// What came has another digest.
    Mismatch,
    /// Control's answer cannot be read.
    Unfit,
    /// It would not fit into an empty cache.
    TooLarge,
    /// The disk is full, or everything in the cache is in use.
    NoRoom,
    /// The disk fails.
    Disk,
    /// Too many images are asked for at a time.
    Busy,
}

impl Failure {
    /// The label of the counter.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Away { .. } => "away",
            Self::Mismatch => "mismatch",
            Self::Unfit => "unfit",
            Self::TooLarge => "too_large",
            Self::NoRoom => "no_room",
            Self::Disk => "disk",
            Self::Busy => "busy",
        }
    }

    pub const LABELS: [&'static str; 8] =
        ["absent", "away", "mismatch", "unfit", "too_large", "no_room", "disk", "busy"];
}

/// How far an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing is known of it yet.
    Waiting,
    Growing {
        written: u64,
        len: u64,
    },
    Whole {
        len: u64,
    },
    Failed(Failure),
}

/// An image to be fetched, or read through.
#[derive(Debug)]
pub(crate) struct Work {
    digest: Digest,
    progress: watch::Sender<Progress>,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Cache {
    disk: SharedDisk,
    dir: PathBuf,
    metrics: Metrics,
    began: Instant,
    work: mpsc::Sender<Work>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shelf: Shelf,
    at_work: HashMap<Digest, watch::Receiver<Progress>>,
    failed: HashMap<Digest, (Failure, Duration)>,
    pressed_until: Duration,
}

impl Cache {
    /// What earlier processes have left in `dir`. Blocks on the disk. What is to be done comes out of the second: [`works`].
    pub fn open(
        disk: SharedDisk,
        data: &Path,
        bytes_max: u64,
        metrics: Metrics,
    ) -> (Arc<Self>, mpsc::Receiver<Work>) {
        let dir = data.join("cache");
        let (work, works) = mpsc::channel(WAITING_MAX);
        // Nothing in it is needed: one that cannot be read is as if it were empty.
        let shelf = found(&*disk, &dir, bytes_max).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(error = %told(&error), "the cache cannot be read, and begins empty");
            }
            Shelf::new(bytes_max)
        });
        let state = State {
            shelf,
            at_work: HashMap::new(),
            failed: HashMap::new(),
            pressed_until: Duration::ZERO,
        };
        let began = Instant::now();
        let cache = Self { disk, dir, metrics, began, work, state: Mutex::new(state) };
        let gone = cache.state().shelf.fit();
        cache.remove(&gone);
        cache.show(&cache.state());
        (Arc::new(cache), works)
    }

    /// To read an image, from here or from control.
    pub async fn reader(self: &Arc<Self>, digest: Digest) -> Result<Reader, Failure> {
        let opened = async {
            loop {
                let mut progress = match self.look(digest)? {
                    Ok(reader) => return Ok(reader),
                    Err(progress) => progress,
                };
                let known = progress.wait_for(|progress| *progress != Progress::Waiting).await;
                match known.map_or(Progress::Failed(Failure::Busy), |progress| *progress) {
                    Progress::Failed(failure) => return Err(failure),
                    Progress::Growing { len, .. } => {
                        self.state().shelf.pin(&digest);
                        let progress = Some(progress);
                        return Ok(Reader { cache: self.clone(), digest, len, progress });
                    }
                    // Now it is on the shelf; or it is gone already, and fetched anew.
                    Progress::Whole { .. } | Progress::Waiting => {}
                }
            }
        };
        timeout(OPEN_TIME, opened).await.unwrap_or(Err(Failure::Busy))
    }

    /// A reader, or what to wait for.
    fn look(
        self: &Arc<Self>,
        digest: Digest,
    ) -> Result<Result<Reader, watch::Receiver<Progress>>, Failure> {
        let mut state = self.state();
        // Work that was given up without a word does not come to its end any more.
        let at_work = state.at_work.get(&digest).filter(|progress| progress.has_changed().is_ok());
        if let Some(progress) = at_work {
            return Ok(Err(progress.clone()));
        }
        let now = self.began.elapsed();
        match state.shelf.look(&digest) {
            Look::Ready { len } => {
                self.metrics.cache_hits.inc();
                state.shelf.pin(&digest);
                return Ok(Ok(Reader { cache: self.clone(), digest, len, progress: None }));
            }
            Look::Unverified => {}
            Look::Nothing | Look::Part | Look::Growing => {
                match state.failed.get(&digest) {
                    Some((failure, at)) if now < *at + FAILED_FOR => return Err(*failure),
                    _ => {}
                }
                if now < state.pressed_until {
                    return Err(Failure::NoRoom);
                }
            }
        }
        let (progress, progressed) = watch::channel(Progress::Waiting);
        let work = Work { digest, progress };
        self.work.try_send(work).map_err(|_| Failure::Busy)?;
        state.at_work.insert(digest, progressed.clone());
        Ok(Err(progressed))
    }

    /// Somebody has reason to think that an image is not what it was: it is read through before it is given out again.
    pub fn doubt(&self, digest: &Digest) {
        self.state().shelf.doubt(digest);
    }

    /// Somebody else needs so many bytes of the disk. Blocks on it.
    pub fn give_way(&self, bytes: u64) {
        let gone = {
            let mut state = self.state();
            state.pressed_until = self.began.elapsed() + PRESSED_FOR;
            let gone = state.shelf.give_way(bytes);
            self.show(&state);
            gone
        };
        if !gone.is_empty() {
            tracing::warn!(images = gone.len(), bytes, "the disk is full: the cache gives way");
        }
        self.remove(&gone);
    }

    /// Writes down the order of use, so that it outlives this process. Blocks.
    pub fn keep_order(&self) {
        let lines: String =
            self.state().shelf.in_order().iter().map(|digest| format!("{digest}\n")).collect();
        let path = self.dir.join(ORDER);
        let kept = match self.disk.exists(&self.dir) {
            Ok(true) => disk::replace(&*self.disk, &path, lines.as_bytes()),
            other => other.map(drop),
        };
        if let Err(error) = kept {
            // Another order costs a download at most.
            tracing::info!(error = %told(&error), "the order of the cache is not kept");
        }
    }

    /// Brings an image here, and says so to whoever waits.
    async fn carry_out(self: Arc<Self>, link: Arc<Link>, work: Work) {
        let digest = work.digest;
        let obtained = self.obtain(&link, &work).await;
        {
            let mut state = self.state();
            state.at_work.remove(&digest);
            match obtained {
                Ok(_) => drop(state.failed.remove(&digest)),
                Err(failure) => {
                    self.metrics.cache_failed(failure.as_str());
                    let now = self.began.elapsed();
                    if state.failed.len() >= FAILED_MAX {
                        state.failed.retain(|_, (_, at)| now < *at + FAILED_FOR);
                    }
                    if state.failed.len() < FAILED_MAX {
                        state.failed.insert(digest, (failure, now));
                    }
                }
            }
            self.show(&state);
        }
        work.progress.send_replace(match obtained {
            Ok(len) => Progress::Whole { len },
            Err(failure) => Progress::Failed(failure),
        });
        if obtained.is_ok() {
            blocking(move || self.keep_order()).await;
        }
    }

    async fn obtain(self: &Arc<Self>, link: &Link, work: &Work) -> Result<u64, Failure> {
        let digest = work.digest;
        let look = self.state().shelf.look(&digest);
        if look == Look::Unverified {
            let cache = self.clone();
            let hashed = blocking(move || hash(&*cache.disk, &cache.whole(&digest))).await;
            match hashed {
                Ok((found, len)) if found == digest => {
                    self.state().shelf.verified(&digest);
                    return Ok(len);
                }
                hashed => {
                    self.metrics.cache_rotten.inc();
                    let error = hashed.err().map(|error| told(&error).to_string());
                    tracing::error!(%digest, error, "an image in the cache is not what it was: it is fetched again");
                    self.state().shelf.forget(&digest);
                    self.remove_in_turn(digest).await;
                }
            }
        }
        self.metrics.cache_fetches.inc();
        let fetched = Fetch { cache: self, link, work, len: None }.run().await;
        match fetched {
            Ok(len) => tracing::info!(%digest, len, "image fetched"),
            Err(failure) => {
                tracing::warn!(%digest, reason = failure.as_str(), "image not fetched");
            }
        }
        fetched
    }

    async fn remove_in_turn(self: &Arc<Self>, digest: Digest) {
        let cache = self.clone();
        blocking(move || cache.remove(&[digest])).await;
    }

    /// What is not there any more, or cannot be removed, is not worth more than a line.
    fn remove(&self, gone: &[Digest]) {
        for digest in gone {
            for path in [self.whole(digest), self.part(digest)] {
                match self.disk.exists(&path) {
                    Ok(true) => {}
                    _ => continue,
                }
                match self.disk.remove(&path) {
                    Ok(()) => self.metrics.cache_removed.inc(),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), error = %told(&error), "not removed");
                    }
                }
            }
        }
        if !gone.is_empty() {
            // Some file systems have the blocks free only once the removal is durable.
            let _ = self.disk.sync_dir(&self.dir);
        }
    }

    fn whole(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn part(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.part"))
    }

    fn show(&self, state: &State) {
        self.metrics.cache_bytes.set(state.shelf.bytes() as i64);
        self.metrics.cache_images.set(state.shelf.images() as i64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the shelf")
    }
}

/// Carries out what the cache has to do, until it is dropped.
pub(crate) async fn works(cache: Arc<Cache>, link: Arc<Link>, mut works: mpsc::Receiver<Work>) {
    let mut at_work = JoinSet::new();
    loop {
        tokio::select! {
            Some(work) = works.recv(), if at_work.len() < WORKS_MAX => {
                at_work.spawn(cache.clone().carry_out(link.clone(), work));
            }
            Some(ended) = at_work.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a fetch ended badly");
                }
            }
            else => return,
        }
    }
}

/// One way of an image from control to the disk.
struct Fetch<'a> {
    cache: &'a Arc<Cache>,
    link: &'a Link,
    work: &'a Work,
    /// How long it is, once control has said so.
    len: Option<u64>,
}

/// Why a fetch does not go on.
enum Stop {
    /// Control hung up, or was silent: what is there is taken up again.
    Again {
        why: String,
        retry_after: Option<Duration>,
    },
    /// What was there before is no beginning of it, and was given up.
    Anew,
    End(Failure),
}

impl Fetch<'_> {
    async fn run(mut self) -> Result<u64, Failure> {
        let cache = self.cache.clone();
        let digest = self.work.digest;
        let opened = blocking(move || Grown::open(&*cache.disk, &cache.dir, &digest)).await;
        let mut grown = match opened {
            Ok(grown) => grown,
            Err(error) => {
                // A beginning that cannot be read is none.
                let failure = self.disk_fails(&error);
                self.cache.state().shelf.forget(&digest);
                self.cache.remove_in_turn(digest).await;
                return Err(failure);
            }
        };
        let ended = self.pull_all(&mut grown).await;
        let has_begun = self.len.is_some();
        let cache = self.cache.clone();
        let (finished, left) = blocking(move || {
            let finished = ended.and_then(|()| match grown.finish(&cache, &digest) {
                Ok(true) => Ok(grown.written),
                Ok(false) => Err(Failure::Mismatch),
                Err(error) if is_full(&error) => Err(Failure::NoRoom),
                Err(_) => Err(Failure::Disk),
            });
            // Looked at behind the last change of names: whoever takes the room from now on removes both.
            let has_room = !has_begun || cache.state().shelf.is_growing(&digest);
            let finished = if has_room { finished } else { Err(Failure::NoRoom) };
            // Only what a later fetch can begin with is worth its room.
            let left = match finished {
                Ok(_) => return (finished, 0),
                Err(Failure::Away { .. }) => grown.written,
                Err(_) => 0,
            };
            drop(grown);
            if left == 0 {
                cache.remove(&[digest]);
            }
            (finished, left)
        })
        .await;
        let mut state = self.cache.state();
        match finished {
            Ok(_) => state.shelf.verified(&digest),
            Err(_) if left > 0 => state.shelf.left_off(&digest, left),
            Err(_) => state.shelf.forget(&digest),
        }
        if finished == Err(Failure::Mismatch) {
            tracing::error!(%digest, "what control gave has another digest");
        }
        finished
    }

    /// Until all bytes are there.
    async fn pull_all(&mut self, grown: &mut Grown) -> Result<(), Failure> {
        let mut backoff = Backoff::new(WAIT_MAX);
        let mut fruitless = 0;
        if grown.written > 0 && grown.digest() == self.work.digest {
            // A process that ended in the last moment has left it whole.
            return match self.make_room(grown.written, grown.written).await {
                Err(Stop::End(failure)) => Err(failure),
                _ => Ok(()),
            };
        }
        loop {
            let before = grown.written;
            let (why, retry_after) = match self.pull(grown).await {
                Ok(()) => return Ok(()),
                Err(Stop::End(failure)) => return Err(failure),
                // What was there is gone: this cannot be said twice in a row.
                Err(Stop::Anew) => continue,
                Err(Stop::Again { why, retry_after }) => (why, retry_after),
            };
            fruitless = if grown.written > before { 0 } else { fruitless + 1 };
            tracing::info!(digest = %self.work.digest, why, written = grown.written, "cut off");
            // Whoever asked for the first byte asks again by himself; who reads already waits for the next.
            if self.len.is_none() || fruitless >= FRUITLESS_MAX {
                return Err(Failure::Away { retry_after });
            }
            if fruitless == 0 {
                backoff.reset();
            }
            tokio::time::sleep(backoff.wait(random(), None)).await;
        }
    }

    /// From where it is, as far as one answer reaches.
    async fn pull(&mut self, grown: &mut Grown) -> Result<(), Stop> {
        let asked = self.link.blob(&self.work.digest, grown.written).await;
        let mut response = asked.map_err(|why| Stop::Again { why, retry_after: None })?;
        let (status, headers) = (response.status().as_u16(), response.headers());
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let len = match status {
            200 => header(CONTENT_LENGTH).and_then(|len| len.parse().ok()),
            206 => header(CONTENT_RANGE).and_then(|range| whole_of(range, grown.written)),
            404 => return Err(Stop::End(Failure::Absent)),
            416 if grown.written > 0 => {
                self.start_over(grown)?;
                return Err(Stop::Anew);
            }
            _ => {
                let why = format!("expected status 200 or 206, found {status}");
                return Err(Stop::Again { why, retry_after: retry_after(headers) });
            }
        };
        let len: u64 = len.filter(|len| *len > 0).ok_or(Stop::End(Failure::Unfit))?;
        if status == 200 && grown.written > 0 {
            self.start_over(grown)?;
        }
        self.make_room(len, grown.written).await?;
        let mut waiting = Vec::new();
        let stop = loop {
            let patience = if waiting.is_empty() { CHUNK_TIME } else { WRITE_TIME };
            let chunk = timeout(patience, response.chunk()).await;
            let is_late = chunk.is_err();
            let stop = match chunk {
                Ok(Ok(Some(chunk))) => {
                    waiting.extend_from_slice(&chunk);
                    None
                }
                Ok(Ok(None)) => Some("it ended before its end".to_owned()),
                Ok(Err(error)) => Some(told(&error.without_url())),
                Err(_) if !waiting.is_empty() => None,
                Err(_) => Some(format!("silence for {} s", CHUNK_TIME.as_secs())),
            };
            let there = grown.written + waiting.len() as u64;
            if there > len {
                return Err(Stop::End(Failure::Unfit));
            }
            if waiting.len() >= WRITE_BYTES || there == len || is_late || stop.is_some() {
                self.write(grown, std::mem::take(&mut waiting), len).await?;
            }
            if there == len {
                return Ok(());
            }
            if let Some(stop) = stop {
                break stop;
            }
        };
        Err(Stop::Again { why: stop, retry_after: None })
    }

    /// Before the first byte is written: room for all of them.
    async fn make_room(&mut self, len: u64, written: u64) -> Result<(), Stop> {
        if self.len.is_some_and(|before| before != len) {
            return Err(Stop::End(Failure::Unfit));
        }
        if len > IMAGE_BYTES_MAX {
            return Err(Stop::End(Failure::TooLarge));
        }
        if self.len.is_none() {
            let digest = self.work.digest;
            let begun = self.cache.state().shelf.begin(digest, len);
            let gone = begun.map_err(|no_room| match no_room {
                NoRoom { ever: false } => Stop::End(Failure::TooLarge),
                NoRoom { ever: true } => Stop::End(Failure::NoRoom),
            })?;
            let cache = self.cache.clone();
            blocking(move || cache.remove(&gone)).await;
            self.len = Some(len);
        }
        self.work.progress.send_replace(Progress::Growing { written, len });
        Ok(())
    }

    async fn write(&self, grown: &mut Grown, bytes: Vec<u8>, len: u64) -> Result<(), Stop> {
        // Somebody else may need the room by now.
        if !self.cache.state().shelf.is_growing(&self.work.digest) {
            return Err(Stop::End(Failure::NoRoom));
        }
        self.cache.metrics.cache_fetched_bytes.inc_by(bytes.len() as u64);
        let written = grown.write(bytes).await;
        written.map_err(|error| Stop::End(self.disk_fails(&error)))?;
        self.work.progress.send_replace(Progress::Growing { written: grown.written, len });
        Ok(())
    }

    fn start_over(&self, grown: &mut Grown) -> Result<(), Stop> {
        grown.start_over().map_err(|error| Stop::End(self.disk_fails(&error)))
    }

    fn disk_fails(&self, error: &io::Error) -> Failure {
        tracing::warn!(digest = %self.work.digest, error = %told(error), "cannot write to the cache");
        if is_full(error) {
            self.cache.state().pressed_until = self.cache.began.elapsed() + PRESSED_FOR;
            return Failure::NoRoom;
        }
        Failure::Disk
    }
}

/// The beginning of an image, on the disk.
struct Grown {
    /// Taken out while another thread writes.
    file: Option<(Box<dyn File>, Sha256)>,
    written: u64,
    synced: u64,
}

impl Grown {
    /// What an earlier fetch has left, or nothing.
    fn open(disk: &dyn Disk, dir: &Path, digest: &Digest) -> io::Result<Self> {
        disk.create_dir_all(dir)?;
        let path = dir.join(format!("{digest}.part"));
        let (file, hasher, written) = if disk.exists(&path)? {
            let mut hasher = Sha256::new();
            let written = feed(&mut hasher, disk, &path)?;
            (disk.open(&path)?, hasher, written)
        } else {
            (disk.create(&path)?, Sha256::new(), 0)
        };
        Ok(Self { file: Some((file, hasher)), written, synced: 0 })
    }

    fn start_over(&mut self) -> io::Result<()> {
        let (file, hasher) = self.parts();
        file.truncate(0)?;
        *hasher = Sha256::new();
        (self.written, self.synced) = (0, 0);
        Ok(())
    }

    async fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let (mut file, mut hasher) = self.file.take().expect("it is put back after each write");
        let len = bytes.len() as u64;
        let syncs = self.written + len - self.synced >= SYNC_BYTES;
        let (parts, written) = blocking(move || {
            hasher.update(&bytes);
            let appended = file.append(&bytes);
            let written = appended.and_then(|()| if syncs { file.sync() } else { Ok(()) });
            ((file, hasher), written)
        })
        .await;
        self.file = Some(parts);
        written?;
        self.written += len;
        if syncs {
            self.synced = self.written;
        }
        Ok(())
    }

    /// Gives it its name, if it is what it should be. Blocks.
    fn finish(&mut self, cache: &Cache, digest: &Digest) -> io::Result<bool> {
        if self.digest() != *digest {
            return Ok(false);
        }
        let (file, _) = self.parts();
        // A power cut may take it all the same: it is looked at after a start.
        file.sync()?;
        cache.disk.rename(&cache.part(digest), &cache.whole(digest))?;
        cache.disk.sync_dir(&cache.dir)?;
        Ok(true)
    }

    /// Of what is there.
    fn digest(&mut self) -> Digest {
        let (_, hasher) = self.parts();
        Digest(hasher.clone().finalize().into())
    }

    fn parts(&mut self) -> &mut (Box<dyn File>, Sha256) {
        self.file.as_mut().expect("it is put back after each write")
    }
}

/// One who reads an image, maybe while it comes.
#[derive(Debug)]
pub(crate) struct Reader {
    cache: Arc<Cache>,
    digest: Digest,
    /// How long all of it is.
    pub len: u64,
    /// `None`: all of it is there.
    progress: Option<watch::Receiver<Progress>>,
}

impl Reader {
    /// The next bytes from `from` on, at least one and at most `max`: waits until they are there. Nobody asks for more than
    /// there will be.
    pub async fn read(&mut self, from: u64, max: usize) -> Result<Bytes, Failure> {
        let end = self.available(from).await?.min(from.saturating_add(max as u64));
        let (cache, digest) = (self.cache.clone(), self.digest);
        let grows = self.progress.is_some();
        let read = blocking(move || {
            let mut bytes = vec![0; (end - from) as usize];
            let mut len = 0;
            // Under the one name or the other: it may get its own at this moment, and keeps that. What was whole and begins
            // anew is not what this reader was promised.
            let paths = [cache.whole(&digest), cache.part(&digest), cache.whole(&digest)];
            for path in &paths[..if grows { 3 } else { 1 }] {
                match cache.disk.read_at(path, from, &mut bytes) {
                    Ok(read) => len = read,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                if len > 0 {
                    break;
                }
            }
            bytes.truncate(len);
            Ok(bytes)
        });
        let failure = match read.await {
            Ok(bytes) if !bytes.is_empty() => return Ok(bytes.into()),
            // It had to give way; or somebody has made it shorter.
            Ok(_) => Failure::NoRoom,
            Err(error) => {
                tracing::warn!(digest = %self.digest, error = %told(&error), "cannot read from the cache");
                Failure::Disk
            }
        };
        // Whoever asks for the rest is not to be cut off at the same place for ever.
        self.cache.doubt(&self.digest);
        Err(failure)
    }

    /// Waits until there is something behind `from`, and says up to where. The last byte is not there before its digest.
    async fn available(&mut self, from: u64) -> Result<u64, Failure> {
        let Some(progress) = &mut self.progress else { return Ok(self.len) };
        let len = self.len;
        let end = |progress: &Progress| match progress {
            Progress::Waiting => 0,
            Progress::Growing { written, .. } => (*written).min(len - 1),
            Progress::Whole { .. } | Progress::Failed(_) => len,
        };
        let there = progress.wait_for(|progress| end(progress) > from).await;
        match there.map_or(Progress::Failed(Failure::Busy), |progress| *progress) {
            Progress::Failed(failure) => Err(failure),
            progress => Ok(end(&progress)),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.cache.state().shelf.unpin(&self.digest);
    }
}

/// What a directory holds.
fn found(disk: &dyn Disk, dir: &Path, bytes_max: u64) -> io::Result<Shelf> {
    let mut there = Vec::new();
    for name in disk.list(dir)? {
        let (hex, is_whole) = name.strip_suffix(".part").map_or((&*name, true), |hex| (hex, false));
        // What has another name is none of ours.
        if let Some(digest) = Digest::from_hex(hex).filter(|digest| digest.to_string() == hex) {
            there.push((digest, disk.len(&dir.join(&name))?, is_whole));
        }
    }
    let order = disk.read(&dir.join(ORDER), ORDER_BYTES_MAX).unwrap_or_default();
    let order: HashMap<Digest, usize> = String::from_utf8_lossy(&order)
        .lines()
        .enumerate()
        .filter_map(|(at, hex)| Some((Digest::from_hex(hex)?, at)))
        .collect();
    // What the order does not know came after it was written; of what is there in both forms, the whole counts.
    there.sort_by_key(|(digest, _, is_whole)| {
        (order.get(digest).copied().unwrap_or(usize::MAX), *digest, !*is_whole)
    });
    let mut shelf = Shelf::new(bytes_max);
    for (digest, len, is_whole) in there {
        // A power cut may leave an image under both its names.
        if !is_whole && shelf.look(&digest) == Look::Unverified {
            disk.remove(&dir.join(format!("{digest}.part")))?;
        } else {
            shelf.found(digest, len, is_whole);
        }
    }
    Ok(shelf)
}

/// The digest and length of a file.
fn hash(disk: &dyn Disk, path: &Path) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let len = feed(&mut hasher, disk, path)?;
    Ok((Digest(hasher.finalize().into()), len))
}

fn feed(hasher: &mut Sha256, disk: &dyn Disk, path: &Path) -> io::Result<u64> {
    let mut bytes = vec![0; READ_BYTES];
    let mut at = 0;
    loop {
        match disk.read_at(path, at, &mut bytes)? {
            0 => return Ok(at),
            len => {
                hasher.update(&bytes[..len]);
                at += len as u64;
            }
        }
    }
}

/// How long all of it is, if the answer begins where it was asked to: `bytes 4-9/10` (RFC 9110 §14.4).
fn whole_of(range: &str, from: u64) -> Option<u64> {
    let (span, len) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last, len): (u64, u64, u64) =
        (first.parse().ok()?, last.parse().ok()?, len.parse().ok()?);
    (first == from && last.checked_add(1)? == len).then_some(len)
}

#[cfg(test)]
mod tests;
