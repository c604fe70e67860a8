//! The record of what was done: events of the registry become the evidence log, and what waits for that goes on.
//!
//! `evidence::sequencer` decides what is appended when; this carries it out. One task does it; what touches the disk runs
//! beside the others' work.
//!
//! Promises: what waited for [`Ledger::covered`] leaves after a durable checkpoint covers its event (INV-EVID-1); a table
//! and a log that tell different stories are found at the start, and nothing is served over them; a log that takes
//! nothing for a while is tried again every [`RETRY`], loses nothing, and meanwhile only narrowing goes on (DESIGN §10).
//! Never: decides what is an event, writes to the log what is not in the table.

use crate::config::Evidence;
use crate::metrics::Metrics;
use crate::registry::{Registry, RegistryError};
use evidence::sequencer::{Effect, Input, ROWS_MAX, Sequencer, Stopped};
use evidence::{Event, Log, LogError, NoteError, NoteKey, Reader};
use model::told;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use trust::cose::PublicKey;

/// How soon a checkpoint that failed for a reason that may pass is tried again.
pub const RETRY: Duration = Duration::from_secs(1);

/// How long an answer waits for its checkpoint. One takes five syncs: 50 ms on a disk that was busy with a build.
pub const COVER_TIME_MAX: Duration = Duration::from_secs(10);

/// How long what narrows waits for its checkpoint: a revocation does not wait for evidence that is slow.
pub const NARROW_TIME_MAX: Duration = Duration::from_secs(1);

/// The name of a site's log, and of its key.
pub fn origin(site: &str) -> String {
    format!("{site}/evidence")
}

/// What an auditor is given once, by another way than the log.
pub fn log_key(site: &str, public: &PublicKey) -> Result<NoteKey, NoteError> {
    NoteKey::new(&origin(site), public)
}

/// Table and log cannot go on together.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the evidence log cannot go on")]
    Log(#[from] LogError),
    #[error("the events of the registry do not continue the evidence log")]
    Table(#[from] Stopped),
    #[error("the events of the registry cannot be read")]
    Registry(#[from] RegistryError),
    #[error("the work on the evidence log was given up before its end")]
    GivenUp,
}

impl LedgerError {
    /// Whether table and log tell different stories: one of them was restored from a backup, or changed (INV-EVID-1).
    pub fn is_violation(&self) -> bool {
        match self {
            Self::Log(error) => error.is_violation(),
            Self::Table(_) => true,
            Self::Registry(_) | Self::GivenUp => false,
        }
    }
}

/// Why something is not proven now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCovered {
    /// Asked before anything was done: nothing was.
    #[error("the evidence log takes nothing now: {why}; nothing was done")]
    NotBegun { why: Arc<str> },
    #[error("it is done, and its event is kept, but the evidence log takes nothing now: {why}")]
    Trouble { why: Arc<str> },
    #[error("it is done, and its event is kept, but no checkpoint covers it after {}s", COVER_TIME_MAX.as_secs())]
    TooSlow,
}

/// See the module's head.
pub(crate) struct Ledger {
    state: watch::Receiver<State>,
    reader: Reader,
    /// One export at a time: it holds up to 64 MiB.
    pub exports: Semaphore,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Events below this number are in the log.
    covered: u64,
    /// Why the log takes nothing, as long as it does not.
    trouble: Option<Arc<str>>,
    /// Why it never will again.
    stopped: Option<Arc<str>>,
}

impl State {
    fn why_not(&self) -> Option<&Arc<str>> {
        self.stopped.as_ref().or(self.trouble.as_ref())
    }
}

impl Ledger {
    /// Opens the log, or begins it, compares it with the registry, and appends what the registry has more.
    pub async fn start(
        registry: &Registry,
        site: &str,
        config: Evidence,
        metrics: &Metrics,
    ) -> Result<Self, LedgerError> {
        let known = registry.known_head().await?;
        let origin = origin(site);
        let Evidence { disk, dir, key } = config;
        let open = move || Log::open(disk, &dir, &origin, Arc::new(key), known);
        let log = tokio::task::spawn_blocking(open).await.map_err(|_| LedgerError::GivenUp)??;
        let reader = log.reader();
        let (sequencer, effects) = Sequencer::start(log.next(), ROWS_MAX);
        let (sender, state) = watch::channel(State::default());
        let (stop, stopped) = watch::channel(false);
        let mut driver = Driver {
            registry: registry.clone(),
            log: Some(log),
            sequencer,
            state: sender,
            metrics: metrics.clone(),
        };
        let events = registry.watch_events();
        driver.carry_out(effects).await?;
        let head = reader.checkpoint().head();
        if known.is_none_or(|known| known.size < head.size) {
            registry.see_head(head).await?;
        }
        let task = Mutex::new(Some(tokio::spawn(driver.run(events, stopped))));
        Ok(Self { state, reader, exports: Semaphore::new(1), stop, task })
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// How many events a checkpoint covers.
    pub fn size(&self) -> u64 {
        self.state.borrow().covered
    }

    /// For what widens rights, before it is begun: whether its event could be logged now. What narrows does not ask.
    pub fn may_widen(&self) -> Result<(), NotCovered> {
        match self.state.borrow().why_not() {
            None => Ok(()),
            Some(why) => Err(NotCovered::NotBegun { why: why.clone() }),
        }
    }

    /// Resolves when a durable checkpoint covers so many events, the number that [`crate::registry::Done`] has.
    pub async fn covered(&self, events: u64) -> Result<(), NotCovered> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|s| s.covered >= events || s.why_not().is_some());
        match tokio::time::timeout(COVER_TIME_MAX, settled).await {
            Err(_) => Err(NotCovered::TooSlow),
            Ok(Err(_)) => Err(NotCovered::Trouble { why: "control has ended".into() }),
            Ok(Ok(state)) if state.covered >= events => Ok(()),
            Ok(Ok(state)) => {
                let why = state.why_not().expect("it was waited for").clone();
                Err(NotCovered::Trouble { why })
            }
        }
    }

    /// For what narrows rights: as [`Ledger::covered`], but it goes on without, soon, and is logged when it can be.
    pub async fn covered_if_soon(&self, events: u64) {
        let late = match tokio::time::timeout(NARROW_TIME_MAX, self.covered(events)).await {
            Ok(Ok(())) => return,
            Ok(Err(late)) => late,
            Err(_) => NotCovered::TooSlow,
        };
        tracing::warn!(reason = %late, "what narrows goes on before its event is in the evidence log");
    }

    /// Resolves when the log never takes anything again, with why; not if it ends in good order.
    pub fn failed(&self) -> impl Future<Output = Arc<str>> + Send + 'static {
        let mut state = self.state.clone();
        async move {
            let stopped = match state.wait_for(|state| state.stopped.is_some()).await {
                Ok(state) => state.stopped.clone(),
                Err(_) => None,
            };
            match stopped {
                Some(why) => why,
                None => std::future::pending().await,
            }
        }
    }

    /// Covers what was committed and ends. Nobody makes changes any more.
    pub async fn end(&self) {
        self.stop.send_replace(true);
        let task = self.task.lock().expect("nothing panics while it holds the task").take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the evidence log did not end in good order");
        }
    }
}

struct Driver {
    registry: Registry,
    /// `None` only while its work is under way, or was given up.
    log: Option<Log>,
    sequencer: Sequencer,
    state: watch::Sender<State>,
    metrics: Metrics,
}

impl Driver {
    async fn run(mut self, mut events: watch::Receiver<u64>, mut stop: watch::Receiver<bool>) {
        loop {
            let in_trouble = self.state.borrow().trouble.is_some();
            let ending = tokio::select! {
                changed = events.changed() => changed.is_err(),
                () = tokio::time::sleep(RETRY), if in_trouble => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            if let Err(error) = self.step(Input::Woken).await {
                self.stop(&error);
                return;
            }
            if ending {
                return;
            }
        }
    }

    fn stop(&self, error: &LedgerError) {
        if error.is_violation() {
            self.metrics.count_violation("INV-EVID-1");
        }
        let why: Arc<str> = told(error).into();
        tracing::error!(error = %why, "the evidence log has stopped");
        self.state.send_modify(|state| state.stopped = Some(why));
    }

    async fn step(&mut self, input: Input) -> Result<(), LedgerError> {
        let effects = self.decide(input);
        self.carry_out(effects).await
    }

    fn decide(&mut self, input: Input) -> Vec<Effect> {
        let (next, effects) = self.sequencer.clone().on(input);
        self.sequencer = next;
        effects
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), LedgerError> {
        let mut open = VecDeque::from(effects);
        while let Some(effect) = open.pop_front() {
            let answer = match effect {
                Effect::Read { from, rows_max } => {
                    Input::Rows(self.registry.told(from, None, rows_max).await?)
                }
                Effect::Append(events) => {
                    self.append(events).await?;
                    continue;
                }
                Effect::Checkpoint => self.checkpoint().await?,
                Effect::Release { below } => {
                    self.metrics.evidence_covered.set(i64::try_from(below).unwrap_or(i64::MAX));
                    self.state.send_modify(|state| state.covered = below);
                    continue;
                }
                Effect::Stop(stopped) => return Err(stopped.into()),
            };
            open.extend(self.decide(answer));
        }
        Ok(())
    }

    async fn append(&mut self, events: Vec<Event>) -> Result<(), LedgerError> {
        let append =
            move |log: &mut Log| events.iter().try_for_each(|event| log.append(event).map(drop));
        Ok(self.with_log(append).await??)
    }

    async fn checkpoint(&mut self) -> Result<Input, LedgerError> {
        let started = Instant::now();
        let made =
            self.with_log(|log| log.checkpoint().map(|checkpoint| checkpoint.head())).await?;
        let metrics = &self.metrics;
        metrics.evidence_checkpoint_seconds.observe(started.elapsed().as_secs_f64());
        let head = match made {
            Ok(head) => head,
            Err(error) if error.may_pass() => {
                metrics.evidence_checkpoints_failed.inc();
                let why: Arc<str> = told(&error).into();
                if self.state.borrow().trouble.is_none() {
                    tracing::error!(error = %why, "the evidence log takes nothing: what widens is refused");
                }
                self.state.send_modify(|state| state.trouble = Some(why));
                return Ok(Input::Failed);
            }
            Err(error) => {
                metrics.evidence_checkpoints_failed.inc();
                return Err(error.into());
            }
        };
        if let Err(error) = self.registry.see_head(head).await {
            // The log is durable, and that is what was waited for. The next head is seen instead of this one.
            tracing::warn!(error = %told(&error), %head, "the registry did not keep the log's newest head");
        }
        let was_in_trouble = self.state.borrow().trouble.is_some();
        if was_in_trouble {
            tracing::info!(%head, "the evidence log takes events again");
            self.state.send_modify(|state| state.trouble = None);
        }
        Ok(Input::Covered { size: head.size })
    }

    /// What the log does with the disk takes its time: elsewhere.
    async fn with_log<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Log) -> T + Send + 'static,
    ) -> Result<T, LedgerError> {
        let mut log = self.log.take().ok_or(LedgerError::GivenUp)?;
        let work = move || {
            let done = work(&mut log);
            (log, done)
        };
        let (log, done) =
            tokio::task::spawn_blocking(work).await.map_err(|_| LedgerError::GivenUp)?;
        self.log = Some(log);
        Ok(done)
    }
}
