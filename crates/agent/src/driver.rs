//! The device's own thread: samples in, sealed and durable envelopes out. Does what the cores decided.
//!
//! It alone owns the backlog, the pack and the sealer. It sleeps on its own small runtime, so a slow disk holds up nobody
//! but it: sources wait in a bounded queue, and the gateway's link reads only what is durable.

use crate::backlog::{Backlog, BacklogError, Outbox, Pushed};
use crate::clock::Clock;
use crate::counter::Counters;
use crate::pack::{Closed, Pack, Sample, Why};
use crate::seal::Sealer;
use crate::status::{self, Seen};
use model::{Nonce, senml};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use trust::cose::Signer;

/// Samples that wait for the device's thread. Beyond it a source waits.
pub const SAMPLES_MAX: usize = 1024;
/// Words of the link that wait: more than it can have in flight.
pub const WORDS_MAX: usize = 256;
/// Samples that are taken before a commit.
const GROUP_MAX: usize = 4 * 256;
/// A patient source's samples are taken only while the backlog is at most this full, in quarters.
const PATIENT_QUARTERS: u64 = 2;
/// `Backlog::tick` wants to be called each second or more often. `status.json` is written so often at most.
const TICK: Duration = Duration::from_millis(500);
/// How often the log has a line that says how it goes.
const REPORT_MS: u64 = 60_000;

/// What the link and the station have to say to the device's thread.
pub enum Word {
    /// A gateway's nonce of a new session.
    Heard(Nonce),
    /// The gateway has this envelope, and every one before it that was offered and not refused.
    Done(u64),
    /// The gateway will never take this envelope.
    Refused(u64),
    /// Seal under this key from now on. Answered once what was packed before is durable under the old one.
    NewKey { signer: Arc<dyn Signer>, counters: Counters, done: oneshot::Sender<()> },
    /// Close the pack and make everything durable. Samples that come later are not taken.
    Finish(oneshot::Sender<()>),
}

pub struct Device {
    pub backlog: Backlog,
    pub sealer: Sealer,
    pub clock: Arc<dyn Clock>,
    /// The source can wait: it is held back rather than having its readings dropped.
    pub patient: bool,
    /// Where `plimsoll-agent status` reads.
    pub status: PathBuf,
}

/// Runs until the words end; then closes the backlog. An error says that the device can promise nothing more.
pub fn run(
    device: Device,
    samples: mpsc::Receiver<Sample>,
    words: mpsc::Receiver<Word>,
    seen: watch::Sender<Seen>,
) -> Result<(), BacklogError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without IO needs nothing of the system");
    runtime.block_on(Running::new(device, seen).go(samples, words))
}

struct Running {
    backlog: Backlog,
    outbox: Outbox,
    sealer: Sealer,
    pack: Pack,
    clock: Arc<dyn Clock>,
    patient: bool,
    finished: bool,
    /// Refused, and not yet stated as lost in a durable notice.
    refused: BTreeSet<u64>,
    done_below: u64,
    seen: watch::Sender<Seen>,
    status: PathBuf,
    /// What `status.json` says, if it could be written.
    shown: Option<Seen>,
    readings: u64,
    report_at_ms: u64,
}

impl Running {
    fn new(device: Device, seen: watch::Sender<Seen>) -> Self {
        let Device { backlog, sealer, clock, patient, status } = device;
        let outbox = backlog.outbox();
        let done_below = outbox.below();
        Self {
            backlog,
            outbox,
            sealer,
            pack: Pack::default(),
            clock,
            patient,
            finished: false,
            refused: BTreeSet::new(),
            done_below,
            seen,
            status,
            shown: None,
            readings: 0,
            report_at_ms: 0,
        }
    }

    async fn go(
        mut self,
        mut samples: mpsc::Receiver<Sample>,
        mut words: mpsc::Receiver<Word>,
    ) -> Result<(), BacklogError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.report_at_ms = self.clock.now().uptime_ms + REPORT_MS;
        self.tell();
        loop {
            let takes = !self.finished && !self.is_held_back();
            tokio::select! {
                biased;
                word = words.recv() => match word {
                    Some(word) => self.hear(word)?,
                    None => break,
                },
                _ = ticks.tick() => self.tick()?,
                () = self.pack_is_due() => self.close_pack_on_time()?,
                sample = samples.recv(), if takes && !samples.is_closed() => {
                    if let Some(sample) = sample {
                        self.take(sample, &mut samples)?;
                    }
                }
            }
            self.commit()?;
        }
        let stamp = self.clock.now();
        let (end, below) = (self.outbox.end(), self.outbox.below());
        self.tell();
        self.show();
        let counts = self.backlog.close(&mut self.sealer, &stamp)?;
        tracing::info!(waiting = end - below, ?counts, "backlog closed");
        Ok(())
    }

    /// A recording is not dropped for want of room: it can be read later.
    fn is_held_back(&self) -> bool {
        let (bytes, limit) = self.backlog.fill();
        self.patient && bytes > limit / 4 * PATIENT_QUARTERS
    }

    async fn pack_is_due(&self) {
        match self.pack.deadline_ms() {
            Some(deadline) => {
                let wait = deadline.saturating_sub(self.clock.now().uptime_ms);
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            None => std::future::pending().await,
        }
    }

    fn take(
        &mut self,
        first: Sample,
        samples: &mut mpsc::Receiver<Sample>,
    ) -> Result<(), BacklogError> {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(sample) = next {
            let series = sample.reading.series.clone();
            match self.pack.add(sample, self.clock.now().uptime_ms) {
                Ok(Some(closed)) => self.push(closed)?,
                Ok(None) => {}
                Err(unfit) => tracing::warn!(%series, error = %unfit, "reading left out"),
            }
            taken += 1;
            next = if taken < GROUP_MAX { samples.try_recv().ok() } else { None };
        }
        Ok(())
    }

    fn close_pack_on_time(&mut self) -> Result<(), BacklogError> {
        match self.pack.on_time(self.clock.now().uptime_ms) {
            Some(closed) => self.push(closed),
            None => Ok(()),
        }
    }

    fn push(&mut self, closed: Closed) -> Result<(), BacklogError> {
        let readings = closed.readings.len();
        self.readings += readings as u64;
        let payload = senml::encode(&closed.readings);
        let stamp = self.clock.now();
        match self.backlog.push(&mut self.sealer, &payload, closed.next, &stamp)? {
            Pushed::Kept { counter, .. } => {
                tracing::debug!(?counter, readings, why = ?closed.why, "sealed")
            }
            Pushed::Dropped { counter } => tracing::warn!(?counter, readings, "dropped: no room"),
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), BacklogError> {
        if self.backlog.is_dirty() {
            self.backlog.commit(&self.clock.now())?;
        }
        self.tell();
        Ok(())
    }

    fn tick(&mut self) -> Result<(), BacklogError> {
        let stamp = self.clock.now();
        self.backlog.tick(&mut self.sealer, &stamp)?;
        self.settle();
        self.tell();
        self.show();
        if stamp.uptime_ms >= self.report_at_ms {
            self.report_at_ms = stamp.uptime_ms + REPORT_MS;
            self.report();
        }
        Ok(())
    }

    fn report(&self) {
        let (bytes, bytes_max) = self.backlog.fill();
        let counts = self.backlog.counts();
        let waiting = self.outbox.end() - self.outbox.below();
        let dropped = counts.dropped_full + counts.dropped_refused + counts.unreadable;
        tracing::info!(
            readings = self.readings,
            envelopes = counts.kept,
            waiting,
            bytes,
            bytes_max,
            dropped,
            notices = counts.notices,
            "works"
        );
    }

    fn hear(&mut self, word: Word) -> Result<(), BacklogError> {
        match word {
            Word::Heard(nonce) => self.sealer.hear(nonce),
            Word::Done(serial) => {
                self.done_below = self.done_below.max(serial + 1);
                self.settle();
            }
            Word::Refused(serial) => {
                self.refused.insert(serial);
                self.backlog.refuse(serial);
                self.tick()?;
            }
            Word::NewKey { signer, counters, done } => {
                self.close_pack(Why::Asked)?;
                let old = self.sealer.key();
                let heard = self.sealer.heard();
                self.sealer = Sealer::new(signer, counters, self.backlog.newest());
                if let Some(heard) = heard {
                    self.sealer.hear(heard.nonce);
                }
                tracing::info!(%old, new = %self.sealer.key(), "seals under a new key");
                let _ = done.send(());
            }
            Word::Finish(done) => {
                self.finished = true;
                self.close_pack(Why::Asked)?;
                let _ = done.send(());
            }
        }
        Ok(())
    }

    fn close_pack(&mut self, why: Why) -> Result<(), BacklogError> {
        if let Some(closed) = self.pack.close(why) {
            self.push(closed)?;
        }
        self.commit()
    }

    /// Acknowledges as far as every envelope is done or stated: a refused one holds the line until its notice is durable.
    fn settle(&mut self) {
        let outbox = &self.outbox;
        self.refused.retain(|serial| outbox.is_waiting(*serial));
        let below =
            self.refused.first().map_or(self.done_below, |first| self.done_below.min(*first));
        self.backlog.acknowledge(below);
    }

    /// For the link.
    fn tell(&self) {
        let now = Seen { end: self.outbox.end(), below: self.outbox.below() };
        self.seen.send_if_modified(|seen| std::mem::replace(seen, now) != now);
    }

    /// For people. The file is a view: it is neither durable nor read back.
    fn show(&mut self) {
        let now = *self.seen.borrow();
        if self.shown == Some(now) {
            return;
        }
        let next = self.status.with_extension("new");
        let text = status::text(now, self.sealer.key(), self.sealer.peek());
        match std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, &self.status)) {
            Ok(()) => self.shown = Some(now),
            Err(error) => {
                tracing::debug!(path = %self.status.display(), %error, "status not written");
            }
        }
    }
}
