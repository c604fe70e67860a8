//! The agent's own loader: a small parent that starts an agent out of a slot, so that the agent can be updated as what it updates.
//!
//! ```text
//! plimsoll-agent launch --data D -- run …
//!   load D/update/plimsoll-agent ──▶ slot-a run … ──▶ it ends, or its trial hangs ──▶ load ──▶ slot-b run … ──▶ …
//! ```
//!
//! Promises: every start of an agent follows a load of its boot journal; an agent on trial that has not confirmed itself when its
//! trial is over, or that ends before, is taken back by the load that follows; the agent dies with its launcher.
//! Never: writes the journal beside a running agent, gives up or confirms in its name, speaks with anyone.
//!
//! The agent in the slot finds out by its own file that it was launched ([`own_slot`]). It arms, confirms and gives up in the
//! journal itself, and ends when another is to start. The launcher looks into the journal each second of a trial, without
//! writing; what it finds may be a moment old, and then an agent is started once more for nothing, by a load that says that it is
//! confirmed. The launcher is what came from the factory and is not updated: it is as small as can be.

use crate::application::{self, Application, Program};
use crate::clock::{Clock, SystemClock};
use crate::flash::{FileFlash, FileSlots, Look};
use crate::supervisor::{Health, Launch, News, Order, Settings};
use crate::update::notes::Notes;
use anyhow::{Context, Result};
use boot::{Boot, Phase, Slot};
use disk::{RealDisk, SharedDisk};
use model::{ProductId, Version};
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// The agent as a product.
pub const PRODUCT: &str = "plimsoll-agent";

/// Longer than an agent takes over its own trial, which is told with a reason when it fails: this one is for an agent that hangs.
pub const TRIAL: Duration = Duration::from_secs(600);
/// An agent takes two seconds to send what it has, and some to write.
pub const STOP: Duration = Duration::from_secs(15);
/// How often the journal is looked at while a trial goes on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Config {
    /// The device's directory.
    pub dir: PathBuf,
    /// What the agent is started with: `run …`.
    pub args: Vec<OsString>,
    pub trial: Duration,
    pub stop: Duration,
    /// Our own executable.
    pub attendant: PathBuf,
}

/// Where the agent's own slots and journal lie.
pub fn own_dir(data: &Path) -> PathBuf {
    data.join("update").join(PRODUCT)
}

/// The slot out of which this very process was started; None if it was not started out of one.
pub fn own_slot(data: &Path) -> Option<Slot> {
    let running = std::env::current_exe().ok()?;
    let slots = FileSlots::new(Arc::new(RealDisk), &own_dir(data));
    Slot::BOTH
        .into_iter()
        .find(|slot| std::fs::canonicalize(slots.path(*slot)).is_ok_and(|slot| slot == running))
}

/// Runs agents until SIGTERM, SIGINT or, if it is given, the end of `stdin`. SIGHUP and SIGUSR1 go to the agent that runs.
pub async fn run(config: Config, mut stdin: Option<watch::Receiver<bool>>) -> Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (mut hang_up, mut user) =
        (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
    let disk: SharedDisk = Arc::new(RealDisk);
    let dir = own_dir(&config.dir);
    let mut agent = start(&config);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut running = None;
    loop {
        let order = tokio::select! {
            news = agent.news.recv() => match news.context("nothing looks after the agent any more")? {
                News::Load => {
                    running = None;
                    Some(Order::Start(load(&disk, &dir)?))
                }
                News::Started { slot, pid, on_trial } => {
                    running = Some((slot, pid, on_trial));
                    None
                }
                News::Over => return Ok(()),
                News::Unhealthy { .. } => {
                    running = None;
                    None
                }
                News::Ended { .. } => {
                    running = None;
                    // It has ended to make room for another one, which need not wait.
                    let is_armed = look(&disk, &dir).is_some_and(|state| state.phase() == Phase::Armed);
                    is_armed.then_some(Order::Restart)
                }
                News::Healthy(_) => None,
            },
            _ = looks.tick() => confirmed(&disk, &dir, &mut running).map(Order::Confirmed),
            _ = interrupt.recv() => Some(Order::End),
            _ = terminate.recv() => Some(Order::End),
            () = has_ended(&mut stdin) => {
                stdin = None;
                Some(Order::End)
            }
            _ = hang_up.recv() => { pass_on(running, Signal::HUP); None }
            _ = user.recv() => { pass_on(running, Signal::USR1); None }
        };
        if let Some(order) = order {
            agent.orders.send(order).await.context("nothing looks after the agent any more")?;
        }
    }
}

fn start(config: &Config) -> Application {
    let settings = Settings {
        // What an agent has to show it judges itself.
        health: Health::default(),
        trial_ms: config.trial.as_millis() as u64,
        stop_ms: config.stop.as_millis() as u64,
    };
    let product = ProductId::new(PRODUCT).expect("it is a name");
    let program = application::Config {
        program: Program::Slot { args: config.args.clone() },
        settings,
        attendant: config.attendant.clone(),
        piped: false,
        ..application::Config::new(product, Vec::new())
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // It says no readings here: the agent's own go to a gateway.
    let (samples, _) = mpsc::channel(1);
    application::start(program, clock, samples)
}

/// What is to run now. What the choice changes is durable, and nobody else has the journal open.
fn load(disk: &SharedDisk, dir: &Path) -> Result<Launch> {
    let what = || {
        let dir = dir.display();
        format!(
            "cannot load out of the agent's own slots in {dir} (made by `plimsoll-agent provision`)"
        )
    };
    let _lock = disk::lock_dir(dir).with_context(what)?;
    let flash = FileFlash::open(disk.clone(), dir).with_context(what)?;
    let mut slots = FileSlots::new(disk.clone(), dir);
    let mut boot = Boot::open(flash).with_context(what)?;
    // The watchdog of a trial is the supervisor's.
    let choice = boot.load(&mut slots, &mut || {}).with_context(what)?;
    tracing::info!(slot = %choice.slot, reason = ?choice.reason, recorded = choice.recorded, "loads");
    Ok(Launch {
        slot: choice.slot,
        program: std::path::absolute(slots.path(choice.slot))?,
        digest: choice.image.digest,
        version: version(disk, dir, &choice.image.digest),
        on_trial: choice.reason.is_trial(),
    })
}

/// For people alone: what the agent has noted may not be there, or be of a later form, and nothing depends on it.
fn version(disk: &SharedDisk, dir: &Path, digest: &boot::Digest) -> Version {
    let noted = Notes::read(&**disk, dir).ok();
    let version = noted.and_then(|notes| notes.version(&model::Digest(digest.0)));
    version.unwrap_or(Version::new(0, 0, 0))
}

/// What the journal says beside a running agent, or after one.
fn look(disk: &SharedDisk, dir: &Path) -> Option<boot::State> {
    Boot::open(Look::new(disk.clone(), dir)).ok().map(|boot| *boot.state())
}

/// The slot on trial, if what runs there has confirmed itself.
fn confirmed(
    disk: &SharedDisk,
    dir: &Path,
    running: &mut Option<(Slot, u32, bool)>,
) -> Option<Slot> {
    let (slot, _, on_trial) = running.as_mut().filter(|(_, _, on_trial)| *on_trial)?;
    let state = look(disk, dir)?;
    // Armed: it has confirmed itself, and something newer waits for the next load.
    (state.good() == *slot && state.phase() != Phase::Trying).then(|| {
        tracing::info!(%slot, "the agent has confirmed itself");
        *on_trial = false;
        *slot
    })
}

fn pass_on(running: Option<(Slot, u32, bool)>, signal: Signal) {
    let pid = running.and_then(|(_, pid, _)| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // One that ended in this moment has no use for it.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

async fn has_ended(stdin: &mut Option<watch::Receiver<bool>>) {
    match stdin {
        Some(stdin) => {
            let _ = stdin.wait_for(|ended| *ended).await;
        }
        None => std::future::pending().await,
    }
}
