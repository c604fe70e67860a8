//! The thread that updates a device: does what [`super::install`] decides, over disk and network. Decides nothing itself.
//!
//! It alone owns the boot journals, the slots, the notes and what is trusted. A check-in and a download go on beside it, on its own
//! small runtime, while it hears of the applications; what they bring is judged and written here.

use super::checkin::{self, Manifests, SealKey};
use super::http::{Gateway, HttpError};
use super::install::{Effect, Event, Installer, NotArmed, NotFetched, Verdict};
use super::metrics::{Metrics, Part as Shown};
use super::product::{Begun, Product, ProductError, dir_of, order_for, verdict};
use super::repository::{Holder, LeaseStopped, Repository, Stopped, TrustError, lease_keys};
use crate::application::Counts;
use crate::clock::Clock;
use crate::link::Place;
use crate::supervisor::{News, Order};
use boot::{Phase, Slot};
use disk::{DirLock, SharedDisk, is_full};
use model::manifest::{Component, InstallEnd, Manifest, Outcome, Trusted};
use model::{DeviceId, ProductId, told};
use rustls::ClientConfig;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};
use trust::lease::{NotNow, Took};

/// The first wait after a check-in that nobody answered; it doubles up to what the device was told.
const WAIT_MS: u64 = 1_000;
/// A site cannot make its devices come more often than this.
const AGAIN_MS_MIN: u64 = 250;
/// Pieces of an image that wait for the disk.
const PIECES_MAX: usize = 8;
/// How often a gateway may break off an image that nobody else is asked to go on with, before another one begins it anew.
const BREAKS_MAX: u32 = 2;
/// News that wait: each application says a few words a second at the most.
const NEWS_MAX: usize = 64;
/// When no slot may start, it is looked at again so often: somebody may mend it by hand.
const STUCK_MS: u64 = 60_000;
/// How often the views are written while an image comes, piece by piece.
const SHOW_MS: u64 = 500;
/// How long the applications may take to end when the agent ends. Longer than a supervisor waits before it kills.
const END_MAX: Duration = Duration::from_secs(20);

/// What a device is told of its updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The first roots, copied into the directory if it has none yet.
    pub director_root: Option<PathBuf>,
    pub image_root: Option<PathBuf>,
    /// The longest time between two check-ins.
    pub check_in_ms: u64,
    /// Nothing is armed under a lease that was issued longer ago (INV-ROLL-1).
    pub halt_within_ms: u64,
    /// Images are loaded no faster than so many bytes a second.
    pub download_rate: Option<NonZeroU64>,
}

/// A product and the ends of its supervisor.
pub struct Part {
    pub product: ProductId,
    pub orders: mpsc::Sender<Order>,
    pub news: mpsc::Receiver<News>,
    /// What its supervisor has counted.
    pub counts: Arc<Counts>,
    /// The agent itself: another process was the loader, and started this slot.
    pub launched: Option<Slot>,
}

/// What the thread works with.
pub struct Updater {
    pub disk: SharedDisk,
    pub data: PathBuf,
    pub clock: Arc<dyn Clock>,
    pub device: DeviceId,
    pub site: String,
    /// In order of preference; at least one.
    pub gateways: Vec<Place>,
    /// The device's newest TLS identity, with ALPN `http/1.1`.
    pub tls: watch::Receiver<Arc<ClientConfig>>,
    pub seal: watch::Receiver<SealKey>,
    pub parts: Vec<Part>,
    pub settings: Settings,
    /// True once the thread is to end.
    pub stop: watch::Receiver<bool>,
}

/// Why the thread ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error("cannot go on with the product `{product}`")]
    Product { product: ProductId, source: ProductError },
    #[error("cannot take the slots of `{product}`")]
    InUse { product: ProductId, source: std::io::Error },
    #[error("cannot keep what is trusted")]
    Trust(#[from] TrustError),
}

/// Runs until it is told to stop, or until another image of the agent itself is to run; ends the applications then. An error says
/// that the disk can be relied on no more.
pub fn run(updater: Updater) -> Result<(), UpdateError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a small runtime needs two file descriptors of the system");
    LocalSet::new().block_on(&runtime, async { Running::open(updater)?.go().await })
}

/// What a check-in needs and changes. It goes along with it, and comes back.
struct Talk {
    director: Repository,
    images: Repository,
    leases: Holder,
    manifests: Manifests,
    /// The gateway that answered last.
    at: usize,
    /// When a new lease came, or when nothing could have come yet.
    new_lease_ms: u64,
}

struct Running {
    clock: Arc<dyn Clock>,
    device: DeviceId,
    site: String,
    gateways: Vec<Place>,
    tls: watch::Receiver<Arc<ClientConfig>>,
    seal: watch::Receiver<SealKey>,
    settings: Settings,
    stop: watch::Receiver<bool>,
    parts: Vec<Ward>,
    news: mpsc::Receiver<(usize, News)>,
    /// None while a check-in has it.
    talk: Option<Box<Talk>>,
    /// Nothing is trusted: there is no check-in, and the applications run.
    checking: Option<Checking>,
    fetching: Option<Fetching>,
    /// The gateway that is asked for images.
    fetch_at: usize,
    /// How often it has broken off what nobody else is asked to go on with.
    broke_off: u32,
    check_in_at_ms: Option<u64>,
    failures: u32,
    metrics: Metrics,
    show_at_ms: u64,
    /// This process is to end.
    is_over: bool,
}

/// A product at work.
struct Ward {
    id: ProductId,
    product: Product,
    installer: Installer,
    orders: mpsc::Sender<Order>,
    counts: Arc<Counts>,
    launched: Option<Slot>,
    started_ms: Option<u64>,
    load_at_ms: Option<u64>,
    over: bool,
    /// Nobody else opens the journal and the slots.
    _lock: DirLock,
}

struct Checking {
    began_ms: u64,
    task: JoinHandle<(Box<Talk>, Result<Answered, Unanswered>)>,
    /// What was trusted before it.
    before: [Trusted; 2],
}

/// What a check-in brought besides what it changed in [`Talk`].
#[derive(Debug, Default)]
struct Answered {
    gateway: String,
    again_ms: u64,
    refused: Vec<Refusal>,
    lease: Option<Took>,
}

/// Why a check-in brought nothing.
#[derive(Debug)]
enum Unanswered {
    /// No gateway gave an answer; the one that asked for most patience asked for so much.
    Nobody { why: String, wait_ms: u64 },
    /// What came could not be kept.
    Disk(TrustError),
}

/// Something that came and was not taken.
#[derive(Debug)]
struct Refusal {
    what: &'static str,
    label: &'static str,
    why: String,
}

struct Fetching {
    part: usize,
    pieces: mpsc::Receiver<Piece>,
    task: JoinHandle<()>,
}

enum Piece {
    Bytes(Vec<u8>),
    End,
    Broken(String),
}

enum Happened {
    Stop,
    News(usize, News),
    CheckedIn(Box<Talk>, Result<Answered, Unanswered>),
    Piece(Piece),
    Woken,
}

impl Running {
    fn open(updater: Updater) -> Result<Self, UpdateError> {
        let Updater { disk, data, clock, device, site, gateways, tls, seal, settings, .. } =
            updater;
        let mut metrics = Metrics::new(&data);
        let talk = match Talk::open(&disk, &data, &device, &settings, &*clock, &mut metrics) {
            Ok(talk) => Some(Box::new(talk)),
            // What runs goes on to run; nobody is believed about what should.
            Err(error) => {
                tracing::error!(error = told(&error), "no updates: nothing is trusted");
                metrics.refuse("trust", "unreadable");
                None
            }
        };
        let (tell, news) = mpsc::channel(NEWS_MAX);
        let mut parts = Vec::new();
        for (i, part) in updater.parts.into_iter().enumerate() {
            let Part { product: id, orders, news, counts, launched } = part;
            let product = Product::open(&disk, &data, &id)
                .map_err(|source| UpdateError::Product { product: id.clone(), source })?;
            tokio::task::spawn_local(forward(i, news, tell.clone()));
            let installer = Installer::default();
            let (started_ms, load_at_ms, over) = (None, None, false);
            let lock = disk::lock_dir(&dir_of(&data, &id))
                .map_err(|source| UpdateError::InUse { product: id.clone(), source })?;
            parts.push(Ward {
                id,
                product,
                installer,
                orders,
                counts,
                launched,
                started_ms,
                load_at_ms,
                over,
                _lock: lock,
            });
        }
        let check_in_at_ms = talk.is_some().then(|| clock.now().uptime_ms);
        Ok(Self {
            clock,
            device,
            site,
            gateways,
            tls,
            seal,
            settings,
            stop: updater.stop,
            parts,
            news,
            talk,
            checking: None,
            fetching: None,
            fetch_at: 0,
            broke_off: 0,
            check_in_at_ms,
            failures: 0,
            metrics,
            show_at_ms: 0,
            is_over: false,
        })
    }

    async fn go(mut self) -> Result<(), UpdateError> {
        while !self.is_over {
            self.show();
            match self.next().await {
                Happened::Stop => break,
                Happened::News(part, news) => self.hear(part, news).await?,
                Happened::CheckedIn(talk, result) => self.checked_in(talk, result).await?,
                Happened::Piece(piece) => self.piece(piece).await?,
                Happened::Woken => self.woken().await?,
            }
        }
        self.end().await
    }

    async fn next(&mut self) -> Happened {
        let now_ms = self.clock.now().uptime_ms;
        let wait = self.wake_ms().map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
        let checking = async {
            match &mut self.checking {
                Some(checking) => (&mut checking.task).await.expect("a check-in does not panic"),
                None => std::future::pending().await,
            }
        };
        let piece = async {
            match &mut self.fetching {
                Some(fetching) => fetching.pieces.recv().await,
                None => std::future::pending().await,
            }
        };
        let woken = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // A sender that is gone says stop, too.
            _ = self.stop.wait_for(|stop| *stop) => Happened::Stop,
            Some((part, news)) = self.news.recv() => Happened::News(part, news),
            (talk, result) = checking => Happened::CheckedIn(talk, result),
            piece = piece => {
                Happened::Piece(piece.unwrap_or_else(|| Piece::Broken("it ended".to_owned())))
            }
            () = woken => Happened::Woken,
        }
    }

    fn wake_ms(&self) -> Option<u64> {
        let parts = self.parts.iter().flat_map(|p| [p.installer.wake_ms(), p.load_at_ms]);
        let check_in = self.check_in_at_ms.filter(|_| self.may_check_in());
        parts.chain([check_in]).flatten().min()
    }

    /// One at a time, and not before the loaders have said what runs. A product of which nothing may start is not waited for.
    fn may_check_in(&self) -> bool {
        let is_known = |part: &Ward| part.product.is_loaded() || part.load_at_ms.is_some();
        self.talk.is_some() && self.parts.iter().all(is_known)
    }

    async fn woken(&mut self) -> Result<(), UpdateError> {
        let now_ms = self.clock.now().uptime_ms;
        for i in 0..self.parts.len() {
            if self.parts[i].load_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                self.load(i).await?;
            }
            self.decide(i, Event::Woken).await?;
        }
        if self.check_in_at_ms.is_some_and(|at_ms| at_ms <= now_ms) && self.may_check_in() {
            self.check_in(now_ms);
        }
        Ok(())
    }

    async fn hear(&mut self, i: usize, news: News) -> Result<(), UpdateError> {
        let now_ms = self.clock.now().uptime_ms;
        let part = &mut self.parts[i];
        match news {
            News::Load => self.load(i).await,
            News::Started { on_trial, .. } => {
                part.started_ms = Some(now_ms);
                if on_trial {
                    // It waits for a check-in, and the site for its word.
                    self.soon(now_ms);
                }
                Ok(())
            }
            News::Healthy(slot) => self.decide(i, Event::Healthy(slot)).await,
            News::Unhealthy { slot, why } => {
                let (code, why) = (why.code(), why.to_string());
                self.decide(i, Event::Unhealthy { slot, code, why }).await
            }
            News::Ended { .. } => Ok(()),
            News::Over => {
                part.over = true;
                Ok(())
            }
        }
    }

    /// The loader of this product, or what the loader said.
    async fn load(&mut self, i: usize) -> Result<(), UpdateError> {
        let now_ms = self.clock.now().uptime_ms;
        let part = &mut self.parts[i];
        part.load_at_ms = None;
        let loaded = match part.launched {
            // Another image of the agent is to run, or it was given up: the launcher loads once this process has ended.
            Some(_) if part.product.is_loaded() => {
                self.is_over = true;
                return Ok(());
            }
            Some(slot) => part.product.launched(slot),
            None => part.product.load(),
        };
        let (launch, reason) = match loaded {
            Ok(loaded) => loaded,
            Err(error @ ProductError::Boot { source: boot::Error::Stuck(_), .. }) => {
                tracing::error!(product = %part.id, error = told(&error), "nothing may start");
                part.load_at_ms = Some(now_ms + STUCK_MS);
                return Ok(());
            }
            Err(source) => {
                return Err(UpdateError::Product { product: part.id.clone(), source });
            }
        };
        if !part.product.is_recorded() {
            // No room for a record: the next move is made over what the journal says then.
            self.metrics.refuse("disk", "full");
            if let Err(error) = part.product.reopen() {
                tracing::error!(product = %part.id, error = told(&error), "the journal was not read anew");
            }
        }
        if let Some(invariant) = part.product.doubts() {
            tracing::error!(product = %part.id, invariant, ?launch, "what runs is not what was ordered");
            self.metrics.violate(invariant);
        }
        let (version, slot) = (launch.version, launch.slot);
        tracing::info!(product = %part.id, %version, %slot, ?reason, "the loader has chosen");
        // A supervisor that is gone has ended with the agent.
        let _ = part.orders.send(Order::Start(launch)).await;
        self.decide(i, Event::Loaded(reason)).await
    }

    /// One step of a product's core, and all that follows from it.
    async fn decide(&mut self, i: usize, event: Event<'_>) -> Result<(), UpdateError> {
        let now_ms = self.clock.now().uptime_ms;
        let mut effects = VecDeque::from(self.parts[i].installer.on(event, now_ms));
        while let Some(effect) = effects.pop_front() {
            let instead = instead_of(&effect);
            let answer = match self.carry_out(i, effect).await {
                Err(error) if error.may_pass() => {
                    self.not_done(i, &error);
                    // What was to follow from it does not.
                    effects.clear();
                    match instead {
                        Some(Event::NotFetched(_)) if error.is_full() => {
                            Some(Event::NotFetched(NotFetched::NoRoom))
                        }
                        instead => instead,
                    }
                }
                answer => answer.map_err(|source| UpdateError::Product {
                    product: self.parts[i].id.clone(),
                    source,
                })?,
            };
            if let Some(event) = answer {
                effects.extend(self.parts[i].installer.on(event, now_ms));
            }
        }
        Ok(())
    }

    /// What could not be written before, and may be now: what runs; and that nothing is armed that we did not just arm
    /// ourselves, unless it may be now (INV-ROLL-1).
    fn mend(&mut self, i: usize, talk: &Talk, now_ms: u64) -> Result<(), UpdateError> {
        let part = &mut self.parts[i];
        let mut mended = part.product.record();
        if mended.is_ok()
            && part.product.state().phase() == Phase::Armed
            && part.product.is_loaded()
            && !part.installer.is_restarting()
        {
            let noted = part.product.notes().install();
            let rollout = noted.and_then(|noted| noted.order.rollout.as_ref());
            let halt_within_ms = self.settings.halt_within_ms;
            if let Err(why) = talk.leases.may_arm(rollout, halt_within_ms, now_ms) {
                tracing::warn!(product = %part.id, why = why.as_str(), "what is armed still is withdrawn");
                mended = part.product.withdraw();
            }
        }
        match mended {
            Ok(()) => Ok(()),
            Err(error) if error.may_pass() => {
                self.not_done(i, &error);
                Ok(())
            }
            Err(source) => Err(UpdateError::Product { product: self.parts[i].id.clone(), source }),
        }
    }

    /// The device goes on without it. What it was for comes again with the next check-in.
    fn not_done(&mut self, i: usize, error: &ProductError) {
        let part = &mut self.parts[i];
        tracing::error!(product = %part.id, error = told(error), "not done");
        self.metrics.refuse("disk", if error.is_full() { "full" } else { "journal" });
        if let Err(error) = part.product.reopen() {
            // It stays as unsure as it is, and is opened again after the next attempt.
            tracing::error!(product = %part.id, error = told(&error), "the journal was not read anew");
        }
    }

    async fn carry_out(
        &mut self,
        i: usize,
        effect: Effect,
    ) -> Result<Option<Event<'static>>, ProductError> {
        let now_ms = self.clock.now().uptime_ms;
        let part = &mut self.parts[i];
        let id = part.id.clone();
        match effect {
            Effect::CheckIn => self.soon(now_ms),
            Effect::StopFetch => {
                self.stop_fetching();
                self.parts[i].product.stop();
            }
            Effect::Fetch(install, order) => {
                let (version, rollout) =
                    (order.version, order.rollout.as_ref().map(|r| r.as_str()));
                match part.product.begin(&install, &order)? {
                    Begun::Whole => {
                        tracing::info!(product = %id, %version, rollout, "is in its slot already");
                        return Ok(Some(Event::Fetched));
                    }
                    Begun::From(at) => {
                        tracing::info!(product = %id, %version, rollout, at, of = order.length, "fetches");
                        self.fetch(i, order.digest, at);
                    }
                }
            }
            Effect::Arm(install, order) => {
                // Under the lease of this moment: looked at before, and after what took its time.
                let rollout = order.rollout.clone();
                let halt_within_ms = self.settings.halt_within_ms;
                let may_arm = |talk: &Option<Box<Talk>>, now_ms| match talk {
                    Some(talk) => talk.leases.may_arm(rollout.as_ref(), halt_within_ms, now_ms),
                    None => Err(NotNow::NoLease),
                };
                if let Err(why) = may_arm(&self.talk, now_ms) {
                    return Ok(Some(Event::NotArmed(NotArmed::NotNow(why))));
                }
                if !part.product.arm(&install)? {
                    return Ok(Some(Event::NotArmed(NotArmed::NotWhole)));
                }
                if let Err(why) = may_arm(&self.talk, self.clock.now().uptime_ms) {
                    part.product.withdraw()?;
                    return Ok(Some(Event::NotArmed(NotArmed::NotNow(why))));
                }
                let (version, rollout) =
                    (order.version, order.rollout.as_ref().map(|r| r.as_str()));
                tracing::info!(product = %id, %version, rollout, "armed");
                self.metrics.armed += 1;
                return Ok(Some(Event::Armed));
            }
            Effect::Restart => drop(part.orders.send(Order::Restart).await),
            Effect::Confirm(slot) => {
                part.product.confirm(slot)?;
                let _ = part.orders.send(Order::Confirmed(slot)).await;
                tracing::info!(product = %id, %slot, "confirmed");
                self.metrics.ended(InstallEnd::Confirmed);
            }
            Effect::GiveUp { slot, code, why } => {
                part.product.give_up(slot, code, &why)?;
                tracing::warn!(product = %id, %slot, code, why, "given up");
                self.metrics.ended(InstallEnd::Reverted);
            }
            Effect::Raise(floor) => {
                part.product.raise(floor)?;
                tracing::info!(product = %id, %floor, "nothing below this security version starts from now on");
            }
            Effect::Fail(order, why) => {
                self.stop_fetching();
                let part = &mut self.parts[i];
                part.product.fail(&order, &why)?;
                tracing::warn!(product = %id, version = %order.version, why, "not installed");
                self.metrics.ended(InstallEnd::Failed);
            }
        }
        Ok(None)
    }

    fn soon(&mut self, now_ms: u64) {
        if self.check_in_at_ms.is_some() || self.checking.is_some() {
            self.check_in_at_ms = Some(now_ms);
        }
    }

    fn check_in(&mut self, now_ms: u64) {
        let Some(talk) = self.talk.take() else { return };
        self.check_in_at_ms = None;
        let components: Vec<Component> =
            self.parts.iter().filter_map(|part| part.product.component()).collect();
        let call = Call {
            device: self.device.clone(),
            site: self.site.clone(),
            gateways: self.gateways.clone(),
            tls: self.tls.borrow().clone(),
            seal: self.seal.borrow().clone(),
            clock: self.clock.clone(),
            components,
            outcome: self.outcome(),
            halt_within_ms: self.settings.halt_within_ms,
        };
        let before = [talk.director.versions(), talk.images.versions()];
        let task = tokio::task::spawn_local(call.answered(talk));
        self.checking = Some(Checking { began_ms: now_ms, task, before });
    }

    /// A manifest has room for one: the newest install's, and of two by one generation the one that is under way.
    fn outcome(&self) -> Option<Outcome> {
        let of = |part: &Ward| {
            let generation = part.product.notes().install()?.order.generation;
            let outcome = part.product.outcome()?;
            Some(((generation, outcome.end == InstallEnd::Underway), outcome))
        };
        let newest = self.parts.iter().filter_map(of).max_by_key(|(rank, _)| *rank);
        newest.map(|(_, outcome)| outcome)
    }

    async fn checked_in(
        &mut self,
        talk: Box<Talk>,
        result: Result<Answered, Unanswered>,
    ) -> Result<(), UpdateError> {
        let Some(Checking { began_ms, before, .. }) = self.checking.take() else { return Ok(()) };
        let now_ms = self.clock.now().uptime_ms;
        if went_back(&before, &[talk.director.versions(), talk.images.versions()]) {
            tracing::error!(?before, "what is trusted now is older than what was trusted before");
            self.metrics.violate("INV-FRESH-1");
        }
        let result = match result {
            Ok(answered) => Ok(answered),
            Err(Unanswered::Nobody { why, wait_ms }) => Err((why, wait_ms)),
            Err(Unanswered::Disk(TrustError::Unwritable { path, source })) if is_full(&source) => {
                Err((format!("no room in {} for what came", path.display()), 0))
            }
            Err(Unanswered::Disk(error)) => return Err(error.into()),
        };
        let answered = match result {
            Ok(answered) => answered,
            Err((why, asked_ms)) => {
                self.talk = Some(talk);
                self.failures = self.failures.saturating_add(1);
                self.metrics.checked_in("unanswered");
                tracing::warn!(why, failures = self.failures, "no check-in");
                let longest = WAIT_MS << (self.failures - 1).min(16);
                let wait_ms = longest.min(self.settings.check_in_ms.max(WAIT_MS)).max(asked_ms);
                let wait_ms = spread(wait_ms);
                self.check_in_at_ms = Some(now_ms + wait_ms);
                return Ok(());
            }
        };
        self.failures = 0;
        self.metrics.checked_in("answered");
        for i in 0..self.parts.len() {
            self.mend(i, &talk, now_ms)?;
        }
        let Answered { gateway, again_ms, refused, lease } = answered;
        for Refusal { what, label, why } in &refused {
            tracing::warn!(gateway, what, label, why, "refused");
            self.metrics.refuse(what, label);
        }
        tracing::debug!(gateway, ?lease, "checked in");
        // Somebody may have asked for the next one while this one was under way.
        let wait_ms = spread(again_ms.min(self.settings.check_in_ms).max(AGAIN_MS_MIN));
        let regular = now_ms + wait_ms;
        self.check_in_at_ms = Some(self.check_in_at_ms.map_or(regular, |at_ms| at_ms.min(regular)));
        let verdicts: Vec<(Verdict, Result<(), NotNow>)> =
            (0..self.parts.len()).map(|i| self.assess(&talk, i, now_ms)).collect();
        let current: Vec<bool> =
            self.parts.iter().map(|part| is_current(&talk, part, now_ms)).collect();
        self.talk = Some(talk);
        for (i, (verdict, may_arm)) in verdicts.into_iter().enumerate() {
            let part = &self.parts[i];
            if part.started_ms.is_some_and(|at_ms| at_ms <= began_ms) {
                let current = current[i];
                let _ = part.orders.send(Order::CheckedIn { current }).await;
            }
            if let Verdict::Refused { why, .. } = &verdict {
                tracing::warn!(product = %part.id, label = why.label(), %why, "an order is not followed");
                self.metrics.refuse("order", why.label());
            }
            let verdict = self.in_turn(i, verdict);
            let outcome = self.parts[i].product.outcome().map(|outcome| outcome.end);
            let noted = self.parts[i].product.notes().install().map(|noted| noted.order.clone());
            let newest = noted.as_ref().zip(outcome);
            self.decide(i, Event::Assessed { verdict: &verdict, newest, may_arm }).await?;
        }
        Ok(())
    }

    fn assess(&self, talk: &Talk, i: usize, now_ms: u64) -> (Verdict, Result<(), NotNow>) {
        let now = talk.leases.now(now_ms);
        let Some(me) = self.parts[i].product.component() else {
            return (Verdict::Unknown, Err(NotNow::NoLease));
        };
        let Ok(director) = talk.director.trusted().current(now) else {
            return (Verdict::Unknown, Err(NotNow::NoLease));
        };
        if !talk.wants_images(&me, now_ms) {
            return (Verdict::Nothing, Ok(()));
        }
        let Ok(images) = talk.images.trusted().current(now) else {
            return (Verdict::Unknown, Err(NotNow::NoLease));
        };
        let verdict = verdict(&director, &images, &self.device, &me);
        let rollout = match &verdict {
            Verdict::Install(_, order) => order.rollout.as_ref(),
            _ => None,
        };
        let halt_within_ms = self.settings.halt_within_ms;
        (verdict.clone(), talk.leases.may_arm(rollout, halt_within_ms, now_ms))
    }

    /// Products of one device are installed one after the other: while one is under way, the others wait.
    fn in_turn(&self, i: usize, verdict: Verdict) -> Verdict {
        let others = self.parts.iter().enumerate().filter(|(other, _)| *other != i);
        let is_busy = others.into_iter().any(|(_, part)| part.installer.is_busy());
        match verdict {
            Verdict::Install(..) | Verdict::Raise(_) if is_busy => Verdict::Unknown,
            verdict => verdict,
        }
    }

    fn fetch(&mut self, part: usize, digest: model::Digest, at: u64) {
        self.stop_fetching();
        let (tell, pieces) = mpsc::channel(PIECES_MAX);
        let place = self.gateways[self.fetch_at % self.gateways.len()].clone();
        let (site, tls) = (self.site.clone(), self.tls.borrow().clone());
        let rate = self.settings.download_rate;
        let task = tokio::task::spawn_local(async move {
            let last = match bring(&place, &site, &tls, &digest, at, rate, &tell).await {
                Ok(()) => Piece::End,
                Err(error) => Piece::Broken(error.told()),
            };
            let _ = tell.send(last).await;
        });
        self.fetching = Some(Fetching { part, pieces, task });
    }

    fn stop_fetching(&mut self) {
        if let Some(fetching) = self.fetching.take() {
            fetching.task.abort();
        }
    }

    async fn piece(&mut self, piece: Piece) -> Result<(), UpdateError> {
        let Some(i) = self.fetching.as_ref().map(|fetching| fetching.part) else { return Ok(()) };
        let part = &mut self.parts[i];
        let result = match piece {
            Piece::Bytes(bytes) => {
                self.metrics.image_bytes += bytes.len() as u64;
                match part.product.append(&bytes) {
                    Ok(Ok(())) => return Ok(()),
                    other => other,
                }
            }
            Piece::End => part.product.finish(),
            Piece::Broken(why) => {
                let written = part.product.written();
                tracing::warn!(product = %part.id, why, ?written, "the image did not come whole");
                Ok(Err(NotFetched::Broken))
            }
        };
        self.stop_fetching();
        let result = match result {
            Err(error) if error.may_pass() => {
                self.not_done(i, &error);
                Ok(Err(NotFetched::NoRoom))
            }
            result => result,
        };
        let id = self.parts[i].id.clone();
        let result =
            result.map_err(|source| UpdateError::Product { product: id.clone(), source })?;
        match result {
            Ok(()) => {
                tracing::info!(product = %id, "fetched, and whole");
                self.decide(i, Event::Fetched).await
            }
            Err(why) => {
                self.metrics.broken += 1;
                self.next_gateway(i, &why)?;
                if why == NotFetched::Wrong {
                    tracing::warn!(product = %id, "what came is not the image that was ordered");
                    self.metrics.refuse("image", "wrong_digest");
                }
                self.decide(i, Event::NotFetched(why)).await
            }
        }
    }

    /// Another gateway may have more of an image, or better. But once it was wrong in the end, nobody goes on with what another
    /// one began: whoever gives a false half and breaks off would have it fail over the true half of the next one.
    fn next_gateway(&mut self, i: usize, why: &NotFetched) -> Result<(), UpdateError> {
        let part = &mut self.parts[i];
        let mixes = self.gateways.len() > 1 && part.installer.had_wrong_bytes();
        if *why == NotFetched::Broken && mixes {
            self.broke_off += 1;
            if self.broke_off < BREAKS_MAX {
                return Ok(());
            }
            match part.product.drop_written() {
                Ok(()) => {}
                Err(error) if error.may_pass() => self.not_done(i, &error),
                Err(source) => {
                    return Err(UpdateError::Product { product: part.id.clone(), source });
                }
            }
        }
        self.broke_off = 0;
        self.fetch_at += 1;
        Ok(())
    }

    /// Ends the applications, and what is on the way.
    async fn end(mut self) -> Result<(), UpdateError> {
        self.stop_fetching();
        if let Some(checking) = self.checking.take() {
            // What it has stored is stored; what it has not is asked for again.
            checking.task.abort();
        }
        for part in &self.parts {
            let _ = part.orders.send(Order::End).await;
        }
        let all_over = async {
            while self.parts.iter().any(|part| !part.over) {
                match self.news.recv().await {
                    Some((i, News::Over)) => self.parts[i].over = true,
                    Some(_) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(END_MAX, all_over).await.is_err() {
            tracing::warn!("an application did not end in time");
        }
        Ok(())
    }

    /// For people and their tools; neither durable nor read back. While an image comes, now and then.
    fn show(&mut self) {
        let now_ms = self.clock.now().uptime_ms;
        if self.fetching.is_some() && now_ms < self.show_at_ms {
            return;
        }
        self.show_at_ms = now_ms + SHOW_MS;
        let parts = self.parts.iter().map(|part| Shown {
            component: part.product.component(),
            product: part.id.clone(),
            stage: part.installer.stage(),
            outcome: part.product.outcome(),
            written: part.product.written(),
            counts: part.counts.clone(),
        });
        let parts: Vec<Shown> = parts.collect();
        let lease = self.talk.as_ref().map(|talk| {
            let number = talk.leases.newest().map_or(0, |lease| lease.number);
            (number, talk.leases.remaining_ms(now_ms) > 0)
        });
        let versions = self.talk.as_ref().map(|t| [t.director.versions(), t.images.versions()]);
        self.metrics.show(&parts, lease, versions);
    }
}

/// What a product's core hears when something could not be done and the device goes on without it.
fn instead_of(effect: &Effect) -> Option<Event<'static>> {
    match effect {
        Effect::Fetch(..) => Some(Event::NotFetched(NotFetched::Broken)),
        Effect::Arm(..) => Some(Event::NotArmed(NotArmed::NotWritten)),
        Effect::Confirm(_) => Some(Event::NotConfirmed),
        Effect::StopFetch
        | Effect::CheckIn
        | Effect::Restart
        | Effect::GiveUp { .. }
        | Effect::Raise(_)
        | Effect::Fail(..) => None,
    }
}

/// INV-FRESH-1, looked at a second time. A new root may take away what the old one's keys had signed.
fn went_back(before: &[Trusted; 2], after: &[Trusted; 2]) -> bool {
    before.iter().zip(after).any(|(before, after)| {
        let same_root = before.root == after.root;
        let older = after.timestamp < before.timestamp
            || after.snapshot < before.snapshot
            || after.targets < before.targets;
        after.root < before.root || (same_root && older)
    })
}

/// The metadata that are trusted now are not older than those that ordered what runs.
fn is_current(talk: &Talk, part: &Ward, now_ms: u64) -> bool {
    let now = talk.leases.now(now_ms);
    let ordered_by = part.product.notes().install().map_or(0, |noted| noted.order.generation);
    let director = talk.director.trusted();
    director.current(now).is_ok() && director.versions().targets >= ordered_by
}

async fn forward(i: usize, mut news: mpsc::Receiver<News>, to: mpsc::Sender<(usize, News)>) {
    while let Some(news) = news.recv().await {
        if to.send((i, news)).await.is_err() {
            return;
        }
    }
}

async fn bring(
    place: &Place,
    site: &str,
    tls: &ClientConfig,
    digest: &model::Digest,
    at: u64,
    rate: Option<NonZeroU64>,
    tell: &mpsc::Sender<Piece>,
) -> Result<(), HttpError> {
    let gateway = Gateway::find(place, site, tls).await?;
    let mut stream = gateway.image(digest, at).await?;
    let mut due = tokio::time::Instant::now();
    while let Some(bytes) = stream.next().await? {
        if let Some(rate) = rate {
            // Not asking for more is what holds the sender back: TCP does the rest.
            due += Duration::from_secs(bytes.len() as u64)
                / u32::try_from(rate.get()).unwrap_or(u32::MAX);
            tokio::time::sleep_until(due).await;
        }
        if tell.send(Piece::Bytes(bytes)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl Talk {
    fn open(
        disk: &SharedDisk,
        data: &Path,
        device: &DeviceId,
        settings: &Settings,
        clock: &dyn Clock,
        metrics: &mut Metrics,
    ) -> Result<Self, TrustError> {
        let trust = data.join("trust");
        let (director, director_dropped) = Repository::open(
            disk,
            &trust.join("director"),
            settings.director_root.as_deref(),
            "--director-root",
            Some(device.clone()),
        )?;
        let (images, images_dropped) = Repository::open(
            disk,
            &trust.join("images"),
            settings.image_root.as_deref(),
            "--image-root",
            None,
        )?;
        for (what, dropped) in [("director", director_dropped), ("images", images_dropped)] {
            for dropped in dropped {
                let (role, why) = (dropped.role, dropped.why);
                tracing::error!(what, %role, %why, "a kept file is not trusted any more: dropped");
                metrics.refuse(what, why.label());
            }
        }
        let (leases, told) = Holder::open(disk, &trust, clock.now().uptime_ms);
        if let Some(told) = told {
            tracing::error!(told, "the kept lease is forgotten");
            metrics.refuse("lease", "unreadable");
        }
        let (manifests, new_lease_ms) = (Manifests::default(), clock.now().uptime_ms);
        Ok(Self { director, images, leases, manifests, at: 0, new_lease_ms })
    }

    /// Whether the Director orders something that this component does not run yet. Only then is the vendor asked.
    fn wants_images(&self, me: &Component, now_ms: u64) -> bool {
        let Ok(director) = self.director.trusted().current(self.leases.now(now_ms)) else {
            return false;
        };
        let running = Some(me.running_image().digest);
        match order_for(&director, &me.product).map(|target| (target.hashes.sha256, &target.custom))
        {
            Some((sha256, trust::tuf::Custom::Order(order))) => {
                sha256 != running || order.raise.is_some_and(|raise| raise > me.floor)
            }
            _ => director.targets().iter().any(|target| {
                // What cannot be read could be for any product, and is refused.
                !matches!(target.custom, trust::tuf::Custom::Order(_))
            }),
        }
    }
}

/// What one check-in says, and to whom.
struct Call {
    device: DeviceId,
    site: String,
    gateways: Vec<Place>,
    tls: Arc<ClientConfig>,
    seal: SealKey,
    clock: Arc<dyn Clock>,
    components: Vec<Component>,
    outcome: Option<Outcome>,
    halt_within_ms: u64,
}

impl Call {
    async fn answered(self, mut talk: Box<Talk>) -> (Box<Talk>, Result<Answered, Unanswered>) {
        let result = self.try_gateways(&mut talk).await;
        (talk, result)
    }

    /// Each gateway once, from the one that answered last.
    async fn try_gateways(&self, talk: &mut Talk) -> Result<Answered, Unanswered> {
        let (mut whys, mut longest_ms) = (Vec::new(), 0);
        for _ in 0..self.gateways.len() {
            let place = &self.gateways[talk.at % self.gateways.len()];
            match self.try_gateway(place, talk).await {
                Ok(answered) => {
                    // Another one may have better.
                    talk.at += usize::from(!answered.refused.is_empty());
                    return Ok(answered);
                }
                Err(Unanswered::Nobody { why, wait_ms }) => {
                    whys.push(why);
                    longest_ms = wait_ms.max(longest_ms);
                    talk.at += 1;
                }
                Err(disk) => return Err(disk),
            }
        }
        Err(Unanswered::Nobody { why: whys.join("; "), wait_ms: longest_ms })
    }

    async fn try_gateway(&self, place: &Place, talk: &mut Talk) -> Result<Answered, Unanswered> {
        let nobody = |error: HttpError| Unanswered::Nobody {
            why: error.told(),
            wait_ms: error.retry_after().as_millis() as u64,
        };
        let gateway = Gateway::find(place, &self.site, &self.tls).await.map_err(nobody)?;
        let says = self.manifest(talk.director.versions(), talk.images.versions());
        let sealed = talk.manifests.seal(&says, &self.seal, &self.clock.now());
        let message =
            sealed.map_err(|error| Unanswered::Nobody { why: error.to_string(), wait_ms: 0 })?;
        let answer = gateway.check_in(message).await.map_err(nobody)?;
        let mut answered = Answered {
            gateway: place.name.to_string(),
            again_ms: answer.again_ms,
            ..Answered::default()
        };
        let uptime_ms = self.clock.now().uptime_ms;
        if let Some(files) = &answer.director {
            let now = talk.leases.now(uptime_ms);
            let mut cycle = talk.director.cycle(now);
            let result = checkin::direct(&mut cycle, files);
            let forks = cycle.forks;
            answered.cycle("director", result, forks)?;
        }
        if answer.director.is_none()
            && let Err(why) = talk.director.trusted().current(talk.leases.now(uptime_ms))
        {
            answered.refuse(
                "director",
                "withheld",
                format!("none came, and of what is held: {why}"),
            );
        }
        let keys = lease_keys(talk.director.trusted());
        match talk.leases.take(&answer.lease.0, keys, uptime_ms) {
            Ok(took) => {
                answered.lease = Some(took);
                if took == Took::New {
                    talk.new_lease_ms = uptime_ms;
                } else if uptime_ms.saturating_sub(talk.new_lease_ms) > self.halt_within_ms {
                    // A site makes one more often than that: somebody keeps them back, and another gateway may not.
                    let why = "the same lease is shown for longer than a halt may take".to_owned();
                    answered.refuse("lease", "withheld", why);
                }
            }
            Err(LeaseStopped::Refused(why)) => {
                answered.refuse("lease", why.label(), why.to_string());
            }
            Err(LeaseStopped::Disk(error)) => return Err(Unanswered::Disk(error)),
        }
        let uptime_ms = self.clock.now().uptime_ms;
        if self.components.iter().any(|me| talk.wants_images(me, uptime_ms)) {
            let now = talk.leases.now(uptime_ms);
            self.refresh_images(talk, &gateway, now, &mut answered).await?;
        }
        Ok(answered)
    }

    fn manifest(&self, director: Trusted, images: Trusted) -> Manifest {
        let (components, outcome) = (self.components.clone(), self.outcome.clone());
        checkin::manifest(&self.device, components, [director, images], outcome)
    }

    /// One cycle over the vendor's repository, through the gateway's cache.
    async fn refresh_images(
        &self,
        talk: &mut Talk,
        gateway: &Gateway,
        now: model::Timestamp,
        answered: &mut Answered,
    ) -> Result<(), Unanswered> {
        let mut cycle = talk.images.cycle(now);
        while let Some(fetch) = cycle.next() {
            let file = match gateway.metadata(&fetch.name, fetch.bytes_max).await {
                Ok(file) => file,
                // The answer to the check-in itself stands.
                Err(error) => {
                    answered.refuse("images", "not_to_be_had", error.told());
                    return Ok(());
                }
            };
            if let Err(stopped) = cycle.take(file.as_deref()) {
                let forks = cycle.forks;
                return answered.cycle("images", Err(stopped), forks);
            }
        }
        let forks = cycle.forks;
        answered.cycle("images", Ok(()), forks)
    }
}

impl Answered {
    fn refuse(&mut self, what: &'static str, label: &'static str, why: String) {
        self.refused.push(Refusal { what, label, why });
    }

    /// What came of a cycle. An error of the disk ends the check-in: what is durable is read at the next start.
    fn cycle(
        &mut self,
        what: &'static str,
        result: Result<(), Stopped>,
        forks: u32,
    ) -> Result<(), Unanswered> {
        if forks > 0 {
            let why = "the same version was signed twice, with other words".to_owned();
            self.refuse(what, "fork", why);
        }
        match result {
            Ok(()) => {}
            Err(Stopped::Refused(why)) => self.refuse(what, why.label(), why.to_string()),
            Err(Stopped::Disk(error)) => return Err(Unanswered::Disk(error)),
        }
        Ok(())
    }
}

/// Around the time that was given, so that a thousand devices do not come at once.
fn spread(ms: u64) -> u64 {
    let mut bytes = [0; 2];
    // Without randomness all devices come alike, which is worse for the site and no worse for the device.
    let _ = getrandom::fill(&mut bytes);
    let share = u64::from(u16::from_le_bytes(bytes));
    let width = ms / 5;
    ms - width / 2 + width * share / u64::from(u16::MAX)
}
