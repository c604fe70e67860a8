//! Runs an application from its slot: does what [`crate::supervisor`] decided, and decides nothing.
//!
//! Promises: what it prints as SenML in JSON becomes readings ([`crate::sources::app`]), and beside them what the agent sees of it:
//! its memory, its share of a processor, its version; anything else that it prints is logged, within bounds, and counted; it does
//! not outlive the agent ([`crate::process`]).
//!
//! **How to use it**: [`start`] gives a handle. Answer each [`News::Load`] with a load of the boot journal and [`Order::Start`].
//! On [`News::Healthy`] confirm in the journal and send [`Order::Confirmed`]; on [`News::Unhealthy`] give up in the journal: the
//! `Load` that follows brings back what was good. After arming, [`Order::Restart`]. After each check-in that a gateway answered,
//! [`Order::CheckedIn`]. At the end [`Order::End`], and wait for [`News::Over`].
//!
//! **The agent itself** is a product too ([`Program::Own`]): the launcher has loaded ([`crate::launch`]), and this process runs
//! already, so `Start` starts nothing. The first `Load` is answered from the journal's report; at any later one this process is
//! to end in good order, and the launcher loads.

use crate::clock::{Clock, Stamp};
use crate::pack::Sample;
use crate::process::{self, ATTENDANT, Process, each_line, make_executable};
use crate::sources::app::{CPU, LINE_BYTES_MAX, RELEASE, RSS, readings};
use crate::supervisor::{
    Effect, Event, Exit, Health, Launch, News, Order, Settings, Supervisor, Verdict,
};
use model::{ProductId, Reading, SeriesName, Unit, Value};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Orders that wait. Beyond it who gives them waits.
const ORDERS_MAX: usize = 16;
/// News that wait. Between two orders there are at most four, so nobody ever waits with it unless nobody listens.
const NEWS_MAX: usize = 64;
/// What the threads of a process have to say.
const HAPPENED_MAX: usize = 64;
/// Lines of an application that the log takes in a minute; the rest is counted.
const LOGGED_MAX: u32 = 20;
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Readings of an application that are taken in a second; the rest is counted. A pack a second of its own, four times over.
const READINGS_MAX: u32 = 1024;
const READINGS_EVERY: Duration = Duration::from_secs(1);
/// How often the version is told, besides at each start.
const RELEASE_EVERY: Duration = Duration::from_secs(60);
/// `/proc/PID/stat` counts in this many ticks a second (USER_HZ), on every architecture that Rust's Linux targets have.
const TICKS_PER_S: f64 = 100.0;

/// Defaults of [`Config`].
pub const ALIVE: Duration = Duration::from_secs(5);
pub const TRIAL: Duration = Duration::from_secs(120);
pub const STOP: Duration = Duration::from_secs(5);
pub const SCRIPT_TIME: Duration = Duration::from_secs(30);
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What runs.
#[derive(Clone, Debug)]
pub enum Program {
    /// The slot's executable, with these arguments.
    Slot { args: Vec<OsString> },
    /// This process.
    Own,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub product: ProductId,
    pub program: Program,
    pub settings: Settings,
    /// The owner's script; asked if `settings.health.script`.
    pub script: Option<PathBuf>,
    pub script_time: Duration,
    /// How often memory and processor are looked at.
    pub sample_every: Duration,
    /// Our own executable ([`ATTENDANT`]), which starts the application.
    pub attendant: PathBuf,
    /// Whether what it prints becomes readings and log lines, or goes where our own output goes.
    pub piped: bool,
}

impl Config {
    /// An application that says readings, checked by all that there is to check without a script.
    pub fn new(product: ProductId, args: Vec<OsString>) -> Self {
        let ms = |time: Duration| time.as_millis() as u64;
        let health = Health { alive_ms: ms(ALIVE), reading: true, checked_in: true, script: false };
        Self {
            product,
            program: Program::Slot { args },
            settings: Settings { health, trial_ms: ms(TRIAL), stop_ms: ms(STOP) },
            script: None,
            script_time: SCRIPT_TIME,
            sample_every: SAMPLE_EVERY,
            attendant: ATTENDANT.into(),
            piped: true,
        }
    }

    /// This process: it says no readings of its own, and is healthy when a gateway answers it.
    pub fn own(product: ProductId) -> Self {
        let mut config = Self::new(product, Vec::new());
        config.program = Program::Own;
        config.settings.health.reading = false;
        config
    }

    /// The owner's word counts too.
    pub fn with_script(mut self, script: Option<PathBuf>) -> Self {
        self.settings.health.script = script.is_some();
        self.script = script;
        self
    }
}

/// An application that is looked after.
#[derive(Debug)]
pub struct Application {
    pub orders: mpsc::Sender<Order>,
    pub news: mpsc::Receiver<News>,
    pub counts: Arc<Counts>,
}

/// Since the agent started.
#[derive(Debug, Default)]
pub struct Counts {
    pub starts: AtomicU64,
    pub readings: AtomicU64,
    /// Readings beyond what a second may bring.
    pub too_many: AtomicU64,
    /// Lines that begin as a pack and are none.
    pub malformed: AtomicU64,
    /// Other lines, logged or not.
    pub lines: AtomicU64,
}

/// Looks after an application until [`Order::End`], or until nobody can give orders any more. Called within a runtime whose thread
/// lives as long as the application may.
pub fn start(config: Config, clock: Arc<dyn Clock>, samples: mpsc::Sender<Sample>) -> Application {
    let (orders, orders_in) = mpsc::channel(ORDERS_MAX);
    let (news_out, news) = mpsc::channel(NEWS_MAX);
    let counts = Arc::new(Counts::default());
    let (happened_out, happened) = mpsc::channel(HAPPENED_MAX);
    let (supervisor, effects) = Supervisor::new(config.settings);
    let runner = Runner {
        config,
        clock,
        samples,
        supervisor,
        news: news_out,
        counts: counts.clone(),
        starts: 0,
        process: None,
        script: None,
        cpu: None,
        executed: false,
        release_at: None,
        happened_out,
    };
    tokio::spawn(runner.run(effects, orders_in, happened));
    Application { orders, news, counts }
}

/// A process or a script has something to say. `start` is the number of the start that it belongs to: what comes late is of no
/// interest.
struct Happened {
    start: u64,
    what: What,
}

enum What {
    Reading,
    Gone,
    ScriptGone,
}

struct Runner {
    config: Config,
    clock: Arc<dyn Clock>,
    samples: mpsc::Sender<Sample>,
    supervisor: Supervisor,
    news: mpsc::Sender<News>,
    counts: Arc<Counts>,
    starts: u64,
    process: Option<Process>,
    script: Option<Script>,
    /// What the process had used of a processor, and when.
    cpu: Option<(f64, Instant)>,
    /// The attendant has become the program: until then it is our own memory that would be told.
    executed: bool,
    release_at: Option<Instant>,
    happened_out: mpsc::Sender<Happened>,
}

struct Script {
    process: Process,
    until: Instant,
    killed: bool,
}

impl Runner {
    async fn run(
        mut self,
        effects: Vec<Effect>,
        mut orders: mpsc::Receiver<Order>,
        mut happened: mpsc::Receiver<Happened>,
    ) {
        let mut samples = tokio::time::interval(self.config.sample_every);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_over = self.carry_out(effects).await;
        let mut is_ordered = true;
        while !is_over {
            let event = tokio::select! {
                biased;
                // First what has happened: who has ended is not to be called healthy.
                Some(happened) = happened.recv() => self.heard(happened),
                order = orders.recv(), if is_ordered => {
                    // Nobody who could give orders any more: an end.
                    is_ordered = order.is_some();
                    Some(Event::Told(order.unwrap_or(Order::End)))
                }
                () = self.is_due() => Some(Event::Woken),
                () = self.script_is_due() => { self.end_script(); None }
                _ = samples.tick() => { self.sample(); None }
            };
            if let Some(event) = event {
                let effects = self.supervisor.on(event, self.clock.now().uptime_ms);
                is_over = self.carry_out(effects).await;
            }
        }
    }

    async fn is_due(&self) {
        match self.supervisor.deadline_ms() {
            Some(at_ms) => {
                let wait_ms = at_ms.saturating_sub(self.clock.now().uptime_ms);
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
            None => std::future::pending().await,
        }
    }

    async fn script_is_due(&self) {
        match self.script.as_ref().filter(|script| !script.killed) {
            Some(script) => tokio::time::sleep_until(script.until.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Does what is to be done, and what follows from it. True: nothing more comes.
    async fn carry_out(&mut self, effects: Vec<Effect>) -> bool {
        let mut effects = std::collections::VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let follows = match effect {
                Effect::Start(launch) => Some(self.start(&launch)),
                Effect::Terminate => self.terminate(),
                Effect::Kill => {
                    tracing::warn!(product = %self.config.product, "did not end when it was asked to: killed");
                    if let Some(process) = &self.process {
                        process.kill();
                    }
                    None
                }
                Effect::AskScript => self.ask_script(),
                Effect::Tell(news) => {
                    self.log(&news);
                    let is_over = news == News::Over;
                    // Who does not listen any more gives no more orders either, and that is an end.
                    let _ = self.news.send(news).await;
                    if is_over {
                        return true;
                    }
                    None
                }
            };
            if let Some(event) = follows {
                effects.extend(self.supervisor.on(event, self.clock.now().uptime_ms));
            }
        }
        false
    }

    fn start(&mut self, launch: &Launch) -> Event {
        self.starts += 1;
        self.counts.starts.fetch_add(1, Ordering::Relaxed);
        let Program::Slot { args } = &self.config.program else {
            return Event::Started { pid: std::process::id() };
        };
        let program = process::Program {
            file: launch.program.clone(),
            args: args.clone(),
            env: self.env(launch),
            piped: self.config.piped,
            slots: Some(slots_of(launch)),
        };
        let gone = self.teller(What::Gone);
        let started = make_executable(&program.file)
            .and_then(|()| Process::start(&self.config.attendant, &program, gone))
            .and_then(|mut process| {
                // Before anything that it says itself.
                self.say_release(launch);
                // Without somebody who reads, it would stop at a full pipe.
                let (stdout, stderr) = process.output();
                let read = self.read_output(stdout, stderr);
                if let Err(error) = read {
                    process.kill();
                    process.reap();
                    return Err(error);
                }
                Ok(process)
            });
        match started {
            Ok(process) => {
                let pid = process.pid();
                (self.process, self.cpu, self.executed) = (Some(process), None, false);
                Event::Started { pid }
            }
            Err(error) => Event::NotStarted(error.to_string()),
        }
    }

    /// What a program is told about itself.
    fn env(&self, launch: &Launch) -> Vec<(&'static str, String)> {
        vec![
            ("PLIMSOLL_PRODUCT", self.config.product.to_string()),
            ("PLIMSOLL_VERSION", launch.version.to_string()),
            ("PLIMSOLL_SLOT", launch.slot.to_string()),
        ]
    }

    fn teller(&self, what: What) -> impl FnOnce() + Send + use<> {
        let (tell, start) = (self.happened_out.clone(), self.starts);
        move || {
            // Nobody hears it once the runner has ended.
            let _ = tell.blocking_send(Happened { start, what });
        }
    }

    fn read_output(
        &self,
        stdout: Option<impl Read + Send + 'static>,
        stderr: Option<impl Read + Send + 'static>,
    ) -> std::io::Result<()> {
        let listener = |stream| Listener {
            product: self.config.product.clone(),
            stream,
            clock: self.clock.clone(),
            counts: self.counts.clone(),
            logged: Budget::new(LOGGED_MAX, LOGGED_EVERY),
            taken: Budget::new(READINGS_MAX, READINGS_EVERY),
        };
        if let Some(stdout) = stdout {
            let (mut listener, samples) = (listener("stdout"), self.samples.clone());
            let mut first = Some(self.teller(What::Reading));
            std::thread::Builder::new().name("app".into()).spawn(move || {
                let read = each_line(stdout, LINE_BYTES_MAX, |line| {
                    let readings = listener.hear(line);
                    if let Some(tell) = first.take_if(|_| !readings.is_empty()) {
                        tell();
                    }
                    // The device's queue is bounded: an application that says more than the disk takes waits in its pipe.
                    readings.into_iter().all(|reading| {
                        samples.blocking_send(Sample { reading, next: None }).is_ok()
                    })
                });
                listener.ended(read);
            })?;
        }
        if let Some(stderr) = stderr {
            let mut listener = listener("stderr");
            std::thread::Builder::new().name("app-log".into()).spawn(move || {
                let read = each_line(stderr, LINE_BYTES_MAX, |line| {
                    listener.text(line);
                    true
                });
                listener.ended(read);
            })?;
        }
        Ok(())
    }

    fn terminate(&mut self) -> Option<Event> {
        match (&self.config.program, &mut self.process) {
            // The process ends when its owner hears what follows.
            (Program::Own, _) => Some(Event::Exited(Exit::Code(0))),
            (_, Some(process)) => {
                process.terminate();
                None
            }
            (_, None) => None,
        }
    }

    fn heard(&mut self, happened: Happened) -> Option<Event> {
        if happened.start != self.starts {
            return None;
        }
        match happened.what {
            What::Reading => Some(Event::Reading),
            What::Gone => {
                self.drop_script();
                let exit = self.process.take()?.reap();
                Some(Event::Exited(exit))
            }
            What::ScriptGone => {
                let mut script = self.script.take()?;
                let verdict = match (script.killed, script.process.reap()) {
                    (false, Exit::Code(process::NOT_EXECUTED)) => Verdict::NotStarted,
                    (false, Exit::Code(code)) => Verdict::Code(code),
                    (true, _) | (_, Exit::Signal(_)) => Verdict::Killed,
                };
                Some(Event::Script(verdict))
            }
        }
    }

    fn ask_script(&mut self) -> Option<Event> {
        let Some(file) = self.config.script.clone() else {
            return Some(Event::Script(Verdict::NotStarted));
        };
        let mut env = self.supervisor.launch().map_or(Vec::new(), |launch| self.env(launch));
        let pid = self.process.as_ref().map_or_else(std::process::id, Process::pid);
        env.push(("PLIMSOLL_PID", pid.to_string()));
        let program = process::Program { file, env, ..process::Program::default() };
        match Process::start(&self.config.attendant, &program, self.teller(What::ScriptGone)) {
            Ok(process) => {
                let until = Instant::now() + self.config.script_time;
                self.script = Some(Script { process, until, killed: false });
                None
            }
            Err(error) => {
                tracing::error!(script = %program.file.display(), %error, "cannot start the owner's script");
                Some(Event::Script(Verdict::NotStarted))
            }
        }
    }

    /// Its time is over. That it has ended is heard as always.
    fn end_script(&mut self) {
        if let Some(script) = &mut self.script {
            script.process.kill();
            script.killed = true;
        }
    }

    /// What it would say is said of a process that is gone.
    fn drop_script(&mut self) {
        if let Some(mut script) = self.script.take() {
            script.process.kill();
            script.process.reap();
        }
    }

    /// What the agent itself sees of the application.
    fn sample(&mut self) {
        let (Some(process), Some(launch)) = (&self.process, self.supervisor.launch()) else {
            return;
        };
        let (pid, launch) = (process.pid(), launch.clone());
        if self.release_at.is_none_or(|at| Instant::now() >= at) {
            self.say_release(&launch);
        }
        let executable = Path::new("/proc").join(pid.to_string()).join("exe");
        self.executed |= is_another_file(&executable, &self.config.attendant);
        if !self.executed {
            return;
        }
        let now = self.clock.now();
        if let Some(rss) = resident_bytes(pid) {
            self.say(reading(RSS, Some("B"), Value::Int(rss), &now));
        }
        if let Some(used_s) = processor_s(pid) {
            let at = Instant::now();
            if let Some((before_s, before)) = self.cpu.replace((used_s, at)) {
                let share = (used_s - before_s) / at.duration_since(before).as_secs_f64();
                if share.is_finite() && share >= 0.0 {
                    self.say(reading(CPU, Some("/"), Value::Float(share), &now));
                }
            }
        }
    }

    fn say_release(&mut self, launch: &Launch) {
        self.release_at = Some(Instant::now() + RELEASE_EVERY);
        let version = Value::Text(launch.version.to_string());
        self.say(reading(RELEASE, None, version, &self.clock.now()));
    }

    /// Left out while the device's queue is full: the supervisor does not wait for a disk.
    fn say(&self, reading: Reading) {
        if self.config.piped && self.samples.try_send(Sample { reading, next: None }).is_err() {
            self.counts.too_many.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn log(&self, news: &News) {
        let product = &self.config.product;
        match news {
            News::Started { slot, pid, on_trial } => {
                let version = self.supervisor.launch().map(|launch| launch.version.to_string());
                tracing::info!(%product, version, %slot, pid, on_trial, "application started");
            }
            // Where nothing is asked, nothing is found.
            News::Healthy(_) if self.config.settings.health == Health::default() => {}
            News::Healthy(slot) => tracing::info!(%product, %slot, "application is healthy"),
            News::Unhealthy { slot, why } => {
                tracing::warn!(%product, %slot, %why, "application is given up");
            }
            News::Ended { slot, how, pause_ms } => {
                tracing::warn!(%product, %slot, how, pause_ms, "application ended by itself");
            }
            News::Over => tracing::info!(%product, "application ended"),
            News::Load => {}
        }
    }
}

impl Drop for Runner {
    /// A runner that is dropped in the middle takes its processes along.
    fn drop(&mut self) {
        self.drop_script();
        if let Some(mut process) = self.process.take() {
            process.kill();
            process.reap();
        }
    }
}

/// Hears one stream of an application.
struct Listener {
    product: ProductId,
    stream: &'static str,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    logged: Budget,
    taken: Budget,
}

impl Listener {
    fn hear(&mut self, line: Option<&str>) -> Vec<Reading> {
        match line.and_then(|text| readings(text, &self.clock.now())) {
            Some(Ok(mut readings)) => {
                let said = readings.len();
                readings.retain(|_| self.taken.take().is_some());
                let (taken, too_many) = (readings.len() as u64, (said - readings.len()) as u64);
                self.counts.readings.fetch_add(taken, Ordering::Relaxed);
                self.counts.too_many.fetch_add(too_many, Ordering::Relaxed);
                readings
            }
            Some(Err(error)) => {
                self.counts.malformed.fetch_add(1, Ordering::Relaxed);
                if let Some(silent) = self.logged.take() {
                    tracing::warn!(product = %self.product, %error, silent, "a pack left out");
                }
                Vec::new()
            }
            None => {
                self.text(line);
                Vec::new()
            }
        }
    }

    fn text(&mut self, line: Option<&str>) {
        self.counts.lines.fetch_add(1, Ordering::Relaxed);
        let Some(silent) = self.logged.take() else { return };
        let line: String = line.unwrap_or("(a line that is too long)").chars().take(500).collect();
        tracing::info!(product = %self.product, stream = self.stream, line, silent, "says");
    }

    fn ended(&self, read: std::io::Result<()>) {
        if let Err(error) = read {
            tracing::warn!(product = %self.product, stream = self.stream, %error, "cannot be heard any more");
        }
    }
}

/// So many in so long.
struct Budget {
    max: u32,
    every: Duration,
    since: Instant,
    used: u32,
    refused: u64,
}

impl Budget {
    fn new(max: u32, every: Duration) -> Self {
        Self { max, every, since: Instant::now(), used: 0, refused: 0 }
    }

    /// None: it is used up. Else how many were refused since the last one that was not.
    fn take(&mut self) -> Option<u64> {
        if self.since.elapsed() >= self.every {
            (self.since, self.used) = (Instant::now(), 0);
        }
        if self.used >= self.max {
            self.refused += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.refused))
    }
}

fn reading(series: &str, unit: Option<&str>, value: Value, now: &Stamp) -> Reading {
    const OURS: &str = "written in this program";
    let series = SeriesName::new(series).expect(OURS);
    Reading { time: now.wall, series, value, unit: unit.map(|u| Unit::new(u).expect(OURS)) }
}

/// Where a slot lies, by one name however the agent was told of it.
fn slots_of(launch: &Launch) -> PathBuf {
    let slots = launch.program.parent().unwrap_or(&launch.program);
    std::fs::canonicalize(slots).unwrap_or_else(|_| slots.to_owned())
}

/// Whether both are there and are not the same file.
fn is_another_file(one: &Path, other: &Path) -> bool {
    let id = |path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    id(one).zip(id(other)).is_some_and(|(one, other)| one != other)
}

/// `VmRSS` of `/proc/PID/status`, which is in KiB.
fn resident_bytes(pid: u32) -> Option<i64> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    let text = text.ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Seconds of a processor that a process and its threads have used: `utime` and `stime` of `/proc/PID/stat`, fields 14 and 15.
/// The name, field 2, may hold anything, so fields are counted from behind its last bracket.
fn processor_s(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    let text = text.ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / TICKS_PER_S)
}
