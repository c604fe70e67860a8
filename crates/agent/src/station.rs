//! An agent at work: enrols, starts the device's thread, its source, its link, its application and what updates it, and keeps
//! its identity fresh.

use crate::application::{self, Application};
use crate::backlog::{Backlog, BacklogConfig, BacklogError, Outbox};
use crate::clock::{Clock, SystemClock};
use crate::counter::Counters;
use crate::driver::{self, Device, SAMPLES_MAX, WORDS_MAX, Word};
use crate::feed::Feed;
use crate::launch;
use crate::link::{Link, Place};
use crate::pack::Sample;
use crate::position::Position;
use crate::seal::Sealer;
use crate::sources::replay::{AsOf, Play, Recording};
use crate::status::{self, Seen};
use crate::update::checkin::SealKey;
use crate::update::driver::{self as update, Part, UpdateError, Updater};
use crate::update::product::{Factory, Product};
use anyhow::{Context, Result, anyhow, bail};
use disk::{DirLock, RealDisk, SharedDisk};
use keys::UnixTime;
use keys::est::{Est, Server};
use keys::identity::{self, Identity, IdentityError, Settings};
use keys::tls::Alpn;
use model::envelope::Algorithm;
use model::{KeyId, Prior, ProductId, told};
use rustls::ClientConfig;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use trust::cose::Signer as _;

/// The first wait after enrolment failed; it doubles up to the longest.
const ENROL_WAIT: Duration = Duration::from_millis(250);
const ENROL_WAIT_MAX: Duration = Duration::from_secs(30);
/// What the server refused may be allowed later, by a person: asked again so often.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// How often certificates are looked at.
const RENEWAL: Duration = Duration::from_secs(60);
/// How long a clean end tries to send what is sealed. What is not sent by then is kept.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// The process that has the directory.
const PID: &str = "agent.pid";
/// Asks the next agent to rotate its sealing key at its start.
const ROTATE: &str = "rotate";

/// What an agent is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    pub dir: PathBuf,
    /// The site's EST server: `https://host:port`.
    pub est: String,
    /// The site's authorities, copied into the directory if there are none yet.
    pub site_ca: Option<PathBuf>,
    pub gateways: Vec<Place>,
    pub source: Source,
    pub backlog: BacklogConfig,
    /// Of sealing keys that are made from now on.
    pub seal_algorithm: Algorithm,
    /// End when standard input ends: whoever started the agent holds the other end of it, and takes it along when it dies,
    /// however it dies.
    pub end_with_stdin: bool,
    /// What runs beside sampling, and how it is updated.
    pub updates: Updates,
}

/// What a device runs out of slots, and under which conditions that changes.
#[derive(Clone, Debug)]
pub struct Updates {
    pub settings: update::Settings,
    /// The application. Without one there is nothing to update but, if it was launched, the agent itself.
    pub app: Option<App>,
    /// How long what is on trial may take to show that it is well.
    pub trial: Duration,
    /// The owner's own check.
    pub health_script: Option<PathBuf>,
}

/// An application of this device.
#[derive(Clone, Debug)]
pub struct App {
    pub product: ProductId,
    pub args: Vec<OsString>,
    /// Whether it has to say a reading before it is confirmed.
    pub says_readings: bool,
}

#[derive(Clone, Debug)]
pub enum Source {
    Host { interval: Duration },
    Replay { file: PathBuf, as_of: AsOf, speed: f64, looped: bool },
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    user: Signal,
    /// True once standard input has ended, if that is to end us.
    stdin: Option<watch::Receiver<bool>>,
}

/// Runs until SIGINT, SIGTERM, or the end of standard input if that was asked for.
pub async fn run(config: Config) -> Result<()> {
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        hang_up: signal(SignalKind::hangup())?,
        user: signal(SignalKind::user_defined1())?,
        stdin: config.end_with_stdin.then(watch_stdin).transpose()?,
    };
    let disk: SharedDisk = Arc::new(RealDisk);
    let _lock = lock(&config.dir)?;
    identity::place_anchors(&disk, &config.dir, config.site_ca.as_deref())?;
    let est = Server::new(&config.est, identity::anchors(&disk, &config.dir)?);
    let mut identity = tokio::select! {
        identity = enrolled(&disk, &config, &est) => identity?,
        () = signals.end() => return Ok(()),
    };
    let (backlog, found) = Backlog::open(disk.clone(), config.backlog.clone())?;
    tracing::info!(device = %identity.id(), waiting = found.waiting, "backlog opened");
    if let Some(why) = &found.set_aside {
        tracing::error!(
            why,
            "the backlog could not be read and was set aside; what it held is stated as lost"
        );
    }
    let counters = tokio::select! {
        counters = begin_epoch(&disk, &config, &mut identity, &est, backlog.newest()) => counters?,
        () = signals.end() => return Ok(()),
    };
    tracing::info!(key = %counters.key(), epoch = counters.epoch(), "seals under this key");
    let mut station = Station::start(disk, config, identity, est, backlog, counters)?;
    tokio::select! {
        () = station.rotate_if_asked() => {}
        () = signals.end() => return station.end().await,
    }
    station.work(&mut signals).await
}

/// Gives a device its first image of a product, in the factory.
pub fn provision(dir: &Path, first: &Factory) -> Result<()> {
    let disk: SharedDisk = Arc::new(RealDisk);
    disk.create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Product::provision(&disk, dir, first)?;
    Ok(())
}

/// Makes the key that a device is born with; its maker certifies the request.
pub fn prepare(dir: &Path, serial: &str) -> Result<()> {
    let disk: SharedDisk = Arc::new(RealDisk);
    identity::prepare(&disk, dir, serial)?;
    Ok(())
}

impl Signals {
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = has_ended(&mut self.stdin) => {}
        }
    }
}

/// Reads standard input to its end, on a thread that nobody waits for: what stands in it is of no interest.
pub fn watch_stdin() -> Result<watch::Receiver<bool>> {
    let (tell, ended) = watch::channel(false);
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        // An error is an end too: there is nobody to be heard any more.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        tell.send_replace(true);
    })?;
    Ok(ended)
}

async fn has_ended(stdin: &mut Option<watch::Receiver<bool>>) {
    match stdin {
        Some(stdin) => {
            let _ = stdin.wait_for(|ended| *ended).await;
        }
        None => std::future::pending().await,
    }
}

/// Two agents over one directory would each give out the same counters. The pid is for `plimsoll-agent rotate`.
fn lock(dir: &Path) -> Result<DirLock> {
    let lock = disk::lock_dir(dir)
        .with_context(|| format!("cannot take {} as the device's directory", dir.display()))?;
    let file = dir.join(PID);
    std::fs::write(&file, format!("{}\n", std::process::id()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(lock)
}

/// Has the sealing key rotated: by the running agent at once, or by the next one at its start.
pub fn rotate(dir: &Path) -> Result<&'static str> {
    match disk::lock_dir(dir) {
        Ok(_lock) => {
            let file = dir.join(ROTATE);
            disk::replace(&RealDisk, &file, b"plimsoll-rotate 1\n")
                .with_context(|| format!("cannot write {}", file.display()))?;
            Ok("no agent runs here: the next one rotates its sealing key at its start")
        }
        Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
            let file = dir.join(PID);
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let pid = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
            let pid = pid.with_context(|| format!("{} holds no pid", file.display()))?;
            rustix::process::kill_process(pid, rustix::process::Signal::USR1)
                .with_context(|| format!("cannot signal process {pid:?}"))?;
            Ok("the running agent was told to rotate its sealing key; its log says when it has")
        }
        Err(e) => Err(e).with_context(|| format!("cannot look into {}", dir.display())),
    }
}

/// The wall clock, for certificates' times; `keys` keeps it from running below what certificates prove.
fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Asks until the site gives an identity. A device that has one asks nobody.
async fn enrolled(disk: &SharedDisk, config: &Config, est: &impl Est) -> Result<Identity> {
    let settings = Settings {
        dir: config.dir.clone(),
        station: identity::Station::Device,
        seal_algorithm: config.seal_algorithm,
    };
    let mut wait = ENROL_WAIT;
    loop {
        // The first sealing key is one that has never sealed: it gets its counter. Later a missing counter retires its key.
        let is_first = !config.dir.join("seal.current").exists();
        match identity::enrol_or_load(disk, &settings, est, now()).await {
            Ok(identity) => {
                if is_first {
                    Counters::create(
                        disk.as_ref(),
                        &config.dir,
                        identity.seal().key.public().id(),
                    )?;
                    tracing::info!(device = %identity.id(), "enrolled");
                }
                return Ok(identity);
            }
            Err(error) => {
                let pause = match error.retry_after() {
                    Some(pause) => pause.max(wait),
                    None if is_the_servers(&error) => REFUSED_WAIT,
                    // What is wrong with our own files a wait does not mend.
                    None => return Err(anyhow!(told(&error))),
                };
                tracing::warn!(
                    error = told(&error),
                    pause_ms = pause.as_millis() as u64,
                    "not enrolled yet: waits for the site's EST server"
                );
                tokio::time::sleep(pause).await;
                wait = (wait * 2).min(ENROL_WAIT_MAX);
            }
        }
    }
}

/// Whether the EST server may answer otherwise once a person has changed something there.
fn is_the_servers(error: &IdentityError) -> bool {
    use IdentityError::{Est, NotOurs, OtherRole, Unfit};
    matches!(error, Est(_) | NotOurs | Unfit(_) | OtherRole { .. })
}

/// Begins the next epoch of the sealing key. A key whose counter cannot be read is retired: guessing could repeat a
/// counter (INV-REPLAY-2).
async fn begin_epoch(
    disk: &SharedDisk,
    config: &Config,
    identity: &mut Identity,
    est: &impl Est,
    newest: Option<Prior>,
) -> Result<Counters> {
    let key = seal_key(identity);
    let durable = newest.filter(|prior| prior.key == key).map(|prior| prior.counter);
    match Counters::begin(disk.as_ref(), &config.dir, key, durable) {
        Ok(counters) => Ok(counters),
        Err(error) if error.retires_key() => {
            tracing::error!(%error, "this sealing key is retired");
            let mut wait = ENROL_WAIT;
            loop {
                match next_key(disk, config, identity, est, key).await {
                    Ok(counters) => return Ok(counters),
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "no new sealing key yet");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(ENROL_WAIT_MAX);
                    }
                }
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// The sealing key that follows `old`, with its counter begun. A key is made only if none follows `old` yet: an earlier try
/// may have come as far as the key, and failed at its counter.
async fn next_key(
    disk: &SharedDisk,
    config: &Config,
    identity: &mut Identity,
    est: &impl Est,
    old: KeyId,
) -> Result<Counters> {
    if seal_key(identity) == old {
        let rotated = identity.rotate_seal_key(est, config.seal_algorithm).await;
        rotated.map_err(|error| anyhow!(told(&error)))?;
    }
    let (disk, dir, new) = (disk.as_ref(), &config.dir, seal_key(identity));
    Counters::create(disk, dir, new)?;
    let counters = Counters::begin(disk, dir, new, None)?;
    if let Err(error) = Counters::remove(disk, dir, old) {
        tracing::warn!(key = %old, %error, "the counter of a retired key was not removed");
    }
    Ok(counters)
}

/// Whether another key than the one that seals is to do so.
fn wants_next_key(sealing: KeyId, identity: &Identity, now: UnixTime) -> bool {
    seal_key(identity) != sealing || identity.seal_needs_rotation(now)
}

fn seal_key(identity: &Identity) -> KeyId {
    identity.seal().key.public().id()
}

struct Station {
    disk: SharedDisk,
    config: Config,
    identity: Identity,
    /// The key under which the device's thread seals. The identity's own may be ahead of it.
    sealing: KeyId,
    est: Server,
    outbox: Outbox,
    words: mpsc::Sender<Word>,
    seen: watch::Receiver<Seen>,
    tls: watch::Sender<Arc<ClientConfig>>,
    move_on: Arc<Notify>,
    stop_link: watch::Sender<bool>,
    link: tokio::task::JoinHandle<Result<(), BacklogError>>,
    stop_source: std::sync::mpsc::SyncSender<()>,
    source: Option<JoinHandle<Result<()>>>,
    device_ended: oneshot::Receiver<Result<(), BacklogError>>,
    /// None: there is nothing to update.
    updating: Option<Updating>,
}

/// The thread that updates the device.
struct Updating {
    /// The device's newest identity, for HTTP.
    tls: watch::Sender<Arc<ClientConfig>>,
    /// Under which manifests are sealed.
    seal: watch::Sender<SealKey>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<Result<(), UpdateError>>,
}

impl Station {
    fn start(
        disk: SharedDisk,
        config: Config,
        identity: Identity,
        est: Server,
        backlog: Backlog,
        counters: Counters,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (outbox, position) = (backlog.outbox(), backlog.position());
        let (samples, samples_in) = mpsc::channel(SAMPLES_MAX);
        let (words, words_in) = mpsc::channel(WORDS_MAX);
        let (seen_out, seen) = watch::channel(Seen::default());
        let sealing = counters.key();
        let seal_key = SealKey { signer: identity.seal().key.clone(), epoch: counters.epoch() };
        let sealer = Sealer::new(identity.seal().key.clone(), counters, backlog.newest());
        let device = Device {
            backlog,
            sealer,
            clock: clock.clone(),
            patient: matches!(config.source, Source::Replay { as_of: AsOf::Recorded, .. }),
            status: config.dir.join(status::FILE),
        };
        let (end, device_ended) = oneshot::channel();
        std::thread::Builder::new().name("device".into()).spawn(move || {
            // Nobody waits any more only when the process is ending by itself.
            let _ = end.send(driver::run(device, samples_in, words_in, seen_out));
        })?;
        let updating = Updating::start(&disk, &config, &identity, &clock, &samples, seal_key)?;
        let (stop_source, stop) = std::sync::mpsc::sync_channel(1);
        let source = start_source(config.source.clone(), clock, samples, stop, position)?;
        let (tls, tls_in) = watch::channel(identity.client_config(Alpn::None)?);
        let (stop_link, stop) = watch::channel(false);
        let move_on = Arc::new(Notify::new());
        let link = Link {
            device: identity.id().to_string(),
            site: identity.site().to_owned(),
            gateways: config.gateways.clone(),
            tls: tls_in,
            outbox: outbox.clone(),
            seen: seen.clone(),
            words: words.clone(),
            move_on: move_on.clone(),
            stop,
        };
        let link = tokio::spawn(link.run());
        Ok(Self {
            disk,
            config,
            identity,
            sealing,
            est,
            outbox,
            words,
            seen,
            tls,
            move_on,
            stop_link,
            link,
            stop_source,
            source: Some(source),
            device_ended,
            updating,
        })
    }

    async fn work(mut self, signals: &mut Signals) -> Result<()> {
        let mut renewal = tokio::time::interval(RENEWAL);
        loop {
            tokio::select! {
                _ = signals.interrupt.recv() => return self.end().await,
                _ = signals.terminate.recv() => return self.end().await,
                () = has_ended(&mut signals.stdin) => return self.end().await,
                _ = signals.hang_up.recv() => self.move_on.notify_one(),
                // The site may not answer for long; the end does not wait for it, and what is half done is done again.
                _ = signals.user.recv() => tokio::select! {
                    () = self.rotate() => {}
                    () = signals.end() => return self.end().await,
                },
                _ = renewal.tick() => tokio::select! {
                    () = self.renew() => {}
                    () = signals.end() => return self.end().await,
                },
                ended = &mut self.link => {
                    ended.context("the link panicked")?.context("cannot send from the backlog")?;
                    bail!("the link ended by itself");
                }
                ended = has_updated(&mut self.updating) => {
                    ended.context("the thread that updates the device panicked")??;
                    // Another image of the agent is to run. Its launcher loads when this process has ended.
                    self.updating = None;
                    return self.end().await;
                }
                ended = &mut self.device_ended => {
                    ended.context("the device's thread panicked")??;
                    bail!("the device's thread ended by itself");
                }
            }
        }
    }

    /// Somebody asked while no agent was running. Asked again at the next start if it does not come about.
    async fn rotate_if_asked(&mut self) {
        let file = self.config.dir.join(ROTATE);
        if file.exists() {
            let before = seal_key(&self.identity);
            self.rotate().await;
            if seal_key(&self.identity) != before {
                let removed = self.disk.remove(&file);
                if let Err(error) = removed {
                    tracing::warn!(file = %file.display(), %error, "cannot remove the request");
                }
            }
        }
    }

    /// A failure costs nothing: the present key goes on, and [`Station::renew`] goes on from where this came.
    async fn rotate(&mut self) {
        tracing::info!("rotates the sealing key");
        let Self { disk, config, identity, est, sealing, .. } = self;
        let made = next_key(disk, config, identity, est, *sealing).await;
        let counters = match made {
            Ok(counters) => counters,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the sealing key was not rotated");
                return;
            }
        };
        self.sealing = counters.key();
        let (done, is_done) = oneshot::channel();
        let signer = self.identity.seal().key.clone();
        if let Some(updating) = &self.updating {
            updating.seal.send_replace(SealKey { signer: signer.clone(), epoch: counters.epoch() });
        }
        if self.words.send(Word::NewKey { signer, counters, done }).await.is_ok() {
            // An error says that the device's thread has ended, which the station hears of by itself.
            let _ = is_done.await;
        }
    }

    async fn renew(&mut self) {
        if wants_next_key(self.sealing, &self.identity, now()) {
            self.rotate().await;
        }
        if !self.identity.tls_needs_renewal(now()) {
            return;
        }
        match self.identity.renew_tls(&self.est).await {
            Ok(()) => {
                let config = |alpn| {
                    let config = self.identity.client_config(alpn);
                    config.inspect_err(|error| {
                        tracing::error!(%error, "the renewed certificate cannot be used");
                    })
                };
                if let Ok(mqtt) = config(Alpn::None) {
                    self.tls.send_replace(mqtt);
                }
                if let (Some(updating), Ok(http)) = (&self.updating, config(Alpn::Http11)) {
                    updating.tls.send_replace(http);
                }
            }
            Err(error) => {
                tracing::warn!(error = told(&error), "the TLS certificate was not renewed yet")
            }
        }
    }

    /// Closes the pack, makes it durable, and tries for a short while to send the rest.
    async fn end(mut self) -> Result<()> {
        tracing::info!("ends");
        // The application first: what it has said is still sealed.
        if let Some(updating) = self.updating.take() {
            updating.stop.send_replace(true);
            updating.ended.await.context("the thread that updates the device panicked")??;
        }
        let (done, is_done) = oneshot::channel();
        if self.words.send(Word::Finish(done)).await.is_ok() {
            let _ = is_done.await;
        }
        drop(self.stop_source);
        let outbox = self.outbox.clone();
        let all_sent = self.seen.wait_for(|_| outbox.below() >= outbox.end());
        if tokio::time::timeout(FLUSH_MAX, all_sent).await.is_err() {
            let waiting = self.outbox.end() - self.outbox.below();
            tracing::info!(
                waiting,
                "ends with envelopes in the backlog; they are sent after the next start"
            );
        }
        self.stop_link.send_replace(true);
        self.link.await.context("the link panicked")??;
        drop(self.words);
        self.device_ended.await.context("the device's thread panicked")??;
        if let Some(source) = self.source.take().filter(JoinHandle::is_finished) {
            source.join().map_err(|_| anyhow!("the source panicked"))??;
        }
        Ok(())
    }
}

/// Waits for ever if there is nothing to wait for.
async fn has_updated(
    updating: &mut Option<Updating>,
) -> Result<Result<(), UpdateError>, oneshot::error::RecvError> {
    match updating {
        Some(updating) => (&mut updating.ended).await,
        None => std::future::pending().await,
    }
}

impl Updating {
    /// The application is looked after on this runtime, whose thread lives as long as the process; what decides over its
    /// slots has a thread of its own, since it waits for the disk.
    fn start(
        disk: &SharedDisk,
        config: &Config,
        identity: &Identity,
        clock: &Arc<dyn Clock>,
        samples: &mpsc::Sender<Sample>,
        seal: SealKey,
    ) -> Result<Option<Self>> {
        let Updates { settings, app, trial, health_script } = &config.updates;
        let mut parts = Vec::new();
        let mut part = |program: application::Config, launched| {
            let product = program.product.clone();
            let mut program = program.with_script(health_script.clone());
            program.settings.trial_ms = trial.as_millis() as u64;
            let application = application::start(program, clock.clone(), samples.clone());
            let Application { orders, news, counts } = application;
            parts.push(Part { product, orders, news, counts, launched });
        };
        if let Some(App { product, args, says_readings }) = app {
            let mut program = application::Config::new(product.clone(), args.clone());
            program.settings.health.reading = *says_readings;
            part(program, None);
        }
        if let Some(slot) = launch::own_slot(&config.dir) {
            let product = ProductId::new(launch::PRODUCT).expect("it is a name");
            part(application::Config::own(product), Some(slot));
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let (tls, tls_in) = watch::channel(identity.client_config(Alpn::Http11)?);
        let (seal, seal_in) = watch::channel(seal);
        let (stop, stopped) = watch::channel(false);
        let updater = Updater {
            disk: disk.clone(),
            data: config.dir.clone(),
            clock: clock.clone(),
            device: identity.id().clone(),
            site: identity.site().to_owned(),
            gateways: config.gateways.clone(),
            tls: tls_in,
            seal: seal_in,
            parts,
            settings: settings.clone(),
            stop: stopped,
        };
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("update".into()).spawn(move || {
            // Nobody waits any more only when the process is ending by itself.
            let _ = end.send(update::run(updater));
        })?;
        Ok(Some(Self { tls, seal, stop, ended }))
    }
}

fn start_source(
    source: Source,
    clock: Arc<dyn Clock>,
    samples: mpsc::Sender<Sample>,
    stop: std::sync::mpsc::Receiver<()>,
    durable: Option<Position>,
) -> Result<JoinHandle<Result<()>>> {
    // A recording that cannot be read is said before anything starts.
    let recording = match &source {
        Source::Replay { file, .. } => {
            let recording = Recording::open(file)?;
            tracing::info!(series = recording.columns().len(), left_out = ?recording.left_out(), "recording opened");
            Some(recording)
        }
        Source::Host { .. } => None,
    };
    let thread = std::thread::Builder::new().name("source".into());
    Ok(thread.spawn(move || {
        let feed = Feed { clock: clock.as_ref(), samples, stop };
        match (source, recording) {
            (Source::Replay { as_of, speed, looped, .. }, Some(recording)) => {
                let played = feed.replay(&recording, Play::new(as_of, speed), durable, looped);
                if let Err(error) = &played {
                    tracing::error!(error = format!("{error:#}"), "the replay ended");
                }
                Ok(played?)
            }
            (Source::Host { interval }, _) => {
                feed.host(interval);
                Ok(())
            }
            (Source::Replay { .. }, None) => unreachable!("a replay has its recording"),
        }
    })?)
}

#[cfg(test)]
mod tests;
