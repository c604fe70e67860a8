//! Applications that run for real: shell scripts in slots, a journal, and the orders that its owner gives.

use agent::application::{self, Application, Config};
use agent::clock::SystemClock;
use agent::flash::{FileFlash, FileSlots};
use agent::pack::Sample;
use agent::supervisor::{Health, Launch, News, Order, Settings, Why};
use boot::{Boot, Content, Ending, Image, SecurityVersion, Slot, Slots as _};
use disk::{RealDisk, SharedDisk};
use model::{ProductId, Value, Version};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

pub const AGENT: &str = env!("CARGO_BIN_EXE_plimsoll-agent");
pub const PATIENCE: Duration = Duration::from_secs(60);

const ANY: Health = Health { alive_ms: 0, reading: false, checked_in: false, script: false };

/// Says one reading, then what its standard input says, which is nothing, until that ends.
pub const SOUND: &str = "#!/bin/sh\necho '[{\"n\":\"flow\",\"u\":\"m3/s\",\"v\":0.5}]'\nexec cat\n";

/// A product with its journal and slots, as the factory left it: one image in slot A.
pub struct Board {
    slots: FileSlots,
    boot: Boot<FileFlash>,
}

impl Board {
    pub fn new(dir: &Path, image: &[u8]) -> Self {
        let disk: SharedDisk = Arc::new(RealDisk);
        let flash = FileFlash::open(disk.clone(), dir).unwrap();
        let mut slots = FileSlots::new(disk, dir);
        put(&slots.path(Slot::A), image);
        let floor = SecurityVersion(0);
        let image = measured(&mut slots, Slot::A, 0);
        let boot = Boot::provision(flash, &mut slots, Slot::A, image, floor).unwrap();
        Self { slots, boot }
    }

    /// Reads the journal anew: a launcher has written it.
    pub fn open(dir: &Path) -> Self {
        let disk: SharedDisk = Arc::new(RealDisk);
        let boot = Boot::open(FileFlash::open(disk.clone(), dir).unwrap()).unwrap();
        Self { slots: FileSlots::new(disk, dir), boot }
    }

    pub fn path(&self, slot: Slot) -> PathBuf {
        self.slots.path(slot)
    }

    /// Writes an image into the spare slot and arms it.
    pub fn arm(&mut self, image: &[u8]) {
        let spare = self.boot.begin().unwrap();
        put(&self.slots.path(spare.slot()), image);
        let image = measured(&mut self.slots, spare.slot(), 1);
        self.boot.arm(&mut self.slots, spare, image).unwrap();
    }

    pub fn confirm(&mut self, slot: Slot) {
        self.boot.confirm(slot).unwrap();
    }

    pub fn state(&self) -> &boot::State {
        self.boot.state()
    }

    fn load(&mut self) -> Launch {
        let choice = self.boot.load(&mut self.slots, &mut || {}).unwrap();
        let minor = u32::from(choice.slot == Slot::B);
        Launch {
            slot: choice.slot,
            program: self.slots.path(choice.slot),
            digest: choice.image.digest,
            version: Version::new(1, minor, 0),
            on_trial: choice.reason.is_trial(),
        }
    }
}

fn put(path: &Path, image: &[u8]) {
    std::fs::write(path, image).unwrap();
    // As the agent's own files are.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn measured(slots: &mut FileSlots, slot: Slot, order: u64) -> Image {
    let len = std::fs::metadata(slots.path(slot)).unwrap().len();
    let digest = slots.digest(slot, len).unwrap().unwrap();
    Image { digest, len, security: SecurityVersion(0), order: boot::Order(order) }
}

/// The journal's owner, as small as it can be.
struct Owner {
    board: Board,
    application: Application,
    samples: mpsc::Receiver<Sample>,
    _dir: tempfile::TempDir,
}

impl Owner {
    fn new(image: &str, health: Health, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let board = Board::new(&dir.path().join("pump-app"), image.as_bytes());
        let mut config = Config::new(ProductId::new("pump-app").unwrap(), Vec::new());
        config.settings = Settings { health, trial_ms: 60_000, stop_ms: 60_000 };
        config.sample_every = Duration::from_millis(20);
        config.attendant = AGENT.into();
        change(&mut config);
        let (samples_out, samples) = mpsc::channel(1024);
        let application = application::start(config, Arc::new(SystemClock), samples_out);
        Self { board, application, samples, _dir: dir }
    }

    async fn news(&mut self) -> News {
        let news = tokio::time::timeout(PATIENCE, self.application.news.recv());
        news.await.expect("within a minute").expect("it is looked after")
    }

    async fn order(&self, order: Order) {
        self.application.orders.send(order).await.unwrap();
    }

    /// Answers the load that comes next, and says what runs.
    async fn load(&mut self) -> (Slot, u32) {
        assert_eq!(self.news().await, News::Load);
        let launch = self.board.load();
        self.order(Order::Start(launch)).await;
        match self.news().await {
            News::Started { slot, pid, .. } => (slot, pid),
            other => panic!("expected it to start, found {other:?}"),
        }
    }

    /// Arms an image and restarts into it.
    async fn install(&mut self, image: &str) -> (Slot, u32) {
        self.board.arm(image.as_bytes());
        self.order(Order::Restart).await;
        self.load().await
    }

    /// The value of the next reading of a series.
    async fn reading(&mut self, series: &str) -> Value {
        let found = async {
            loop {
                let sample = self.samples.recv().await.expect("somebody says readings");
                if sample.reading.series.as_str() == series {
                    return sample.reading.value;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {series}"))
    }

    async fn end(mut self) {
        self.order(Order::End).await;
        while self.news().await != News::Over {}
    }
}

/// Until it is so. What is asked about is not ours to be told of.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within a minute");
        // Not to wait for a time, but to leave the processor to what is waited for.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process runs. One that has ended and whom nobody has waited for does not.
pub fn runs(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit_once(')').unwrap().1.trim_start().starts_with(['Z', 'X']),
        Err(_) => false,
    }
}

/// The file that a process executes.
pub fn executes(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn number(value: Value) -> i64 {
    match value {
        Value::Int(number) => number,
        other => panic!("expected a whole number, found {other}"),
    }
}

#[tokio::test]
async fn what_an_application_prints_becomes_readings_and_the_agent_adds_what_it_sees() {
    let noise =
        "echo started; echo '[{\"n\":\"x\"}]'; head -c 40000 /dev/zero | tr '\\0' x; echo\n";
    let mut owner = Owner::new(&SOUND.replace("\nexec", &format!("\n{noise}exec")), ANY, |_| {});
    owner.load().await;
    assert_eq!(owner.reading("app/release").await, Value::Text("1.0.0".into()));
    assert_eq!(owner.reading("app/flow").await, Value::Float(0.5));
    // Its first pages are few.
    while number(owner.reading("app/rss").await) < 100_000 {}
    assert!(matches!(owner.reading("app/cpu").await, Value::Float(share) if share >= 0.0));
    let counts = owner.application.counts.clone();
    until("all lines", || counts.lines.load(Ordering::Relaxed) == 2);
    assert_eq!(counts.malformed.load(Ordering::Relaxed), 1);
    assert_eq!(counts.readings.load(Ordering::Relaxed), 1);
    owner.end().await;
}

#[tokio::test]
async fn what_runs_is_the_slots_own_file_in_a_group_of_its_own() {
    let cat = std::fs::read("/bin/cat").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut board = Board::new(dir.path(), &cat);
    let mut config = Config::new(ProductId::new("cat").unwrap(), Vec::new());
    config.attendant = AGENT.into();
    let (samples, _held) = mpsc::channel(16);
    let mut application = application::start(config, Arc::new(SystemClock), samples);
    assert_eq!(application.news.recv().await, Some(News::Load));
    application.orders.send(Order::Start(board.load())).await.unwrap();
    let Some(News::Started { pid, .. }) = application.news.recv().await else {
        panic!("expected it to start");
    };
    let slot = std::fs::canonicalize(board.path(Slot::A)).unwrap();
    until("the slot's file runs", || executes(pid).as_ref() == Some(&slot));
    let running = std::fs::read(format!("/proc/{pid}/exe")).unwrap();
    assert!(running == cat);
    let group = rustix::process::Pid::from_raw(pid as i32);
    assert_eq!(rustix::process::getpgid(group).ok(), group);
    // Nobody who could give orders any more: it is ended.
    drop(application.orders);
    assert_eq!(application.news.recv().await, Some(News::Over));
    assert!(!runs(pid));
}

#[tokio::test]
async fn a_healthy_image_is_confirmed_and_goes_on_as_the_same_process() {
    let health = Health { alive_ms: 30, reading: true, checked_in: true, script: false };
    let mut owner = Owner::new(SOUND, health, |_| {});
    let (_, old) = owner.load().await;
    let (slot, pid) = owner.install(&SOUND.replace("0.5", "0.6")).await;
    assert_eq!((slot, runs(old)), (Slot::B, false));
    owner.order(Order::CheckedIn { current: true }).await;
    assert_eq!(owner.news().await, News::Healthy(Slot::B));
    owner.board.confirm(Slot::B);
    owner.order(Order::Confirmed(Slot::B)).await;
    assert!(runs(pid));
    // From now on it is started again when it ends.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert!(matches!(owner.news().await, News::Ended { slot: Slot::B, .. }));
    let (slot, again) = owner.load().await;
    assert_eq!(slot, Slot::B);
    assert_ne!(again, pid);
    owner.end().await;
    assert!(!runs(again));
}

#[tokio::test]
async fn an_image_that_fails_its_own_check_is_given_up_and_the_one_before_runs_again() {
    let health = Health { alive_ms: 60_000, reading: true, checked_in: true, script: false };
    let mut owner = Owner::new(SOUND, health, |_| {});
    let (_, old) = owner.load().await;
    let (slot, bad) = owner.install("#!/bin/sh\necho no valve >&2\nexit 3\n").await;
    assert_eq!(slot, Slot::B);
    let News::Unhealthy { slot: Slot::B, why } = owner.news().await else {
        panic!("expected it to be given up");
    };
    assert!(matches!(why, Why::Exited { .. }), "{why}");
    let (slot, pid) = owner.load().await;
    assert_eq!(slot, Slot::A);
    assert!(pid != old && runs(pid) && !runs(bad));
    assert!(matches!(owner.board.state().content(), Content::Failed(_)));
    assert_eq!(owner.board.state().last().unwrap().how, Ending::NotConfirmed);
    owner.end().await;
}

#[tokio::test]
async fn what_cannot_be_executed_is_given_up_as_well() {
    let mut owner = Owner::new(SOUND, Health { alive_ms: 60_000, ..ANY }, |_| {});
    owner.load().await;
    owner.install("\x7fELF and no more").await;
    assert!(matches!(owner.news().await, News::Unhealthy { slot: Slot::B, .. }));
    assert_eq!(owner.load().await.0, Slot::A);
    owner.end().await;
}

#[tokio::test]
async fn who_does_not_end_when_asked_is_killed_with_all_of_its_group() {
    let stubborn = "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\n\
                    echo \"[{\\\"n\\\":\\\"child\\\",\\\"v\\\":$!}]\"\nwait\n";
    let mut owner = Owner::new(stubborn, ANY, |config| config.settings.stop_ms = 20);
    let (_, pid) = owner.load().await;
    let child = number(owner.reading("app/child").await) as u32;
    assert!(runs(pid) && runs(child));
    owner.order(Order::Restart).await;
    assert_eq!(owner.news().await, News::Load);
    // Before anything else may start.
    assert!(!runs(pid));
    until("the child is gone", || !runs(child));
    owner.end().await;
}

#[tokio::test]
async fn an_application_that_ends_leaves_nobody_of_its_group_behind() {
    let leaves = "#!/bin/sh\nsleep 1000 &\necho \"[{\\\"n\\\":\\\"child\\\",\\\"v\\\":$!}]\"\n";
    let mut owner = Owner::new(leaves, ANY, |_| {});
    owner.load().await;
    let child = number(owner.reading("app/child").await) as u32;
    assert!(matches!(owner.news().await, News::Ended { .. }));
    until("the child is gone", || !runs(child));
    owner.end().await;
}

/// It has left its group, and lives on when its parent is ended.
#[tokio::test]
async fn nobody_of_an_earlier_image_runs_beside_the_next_one() {
    let leaves = "#!/bin/sh\nsetsid sleep 1000 &\necho \"[{\\\"n\\\":\\\"child\\\",\\\"v\\\":$!}]\"\nexec cat\n";
    let mut owner = Owner::new(leaves, ANY, |_| {});
    owner.load().await;
    let child = number(owner.reading("app/child").await) as u32;
    owner.install(SOUND).await;
    owner.reading("app/flow").await;
    assert!(!runs(child));
    owner.end().await;
}

/// Of an agent that was killed, say. It has even thrown away its environment, but it runs the slot's file.
#[tokio::test]
async fn nobody_runs_out_of_the_slots_beside_what_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = Board::new(dir.path(), &std::fs::read("/bin/cat").unwrap());
    let slot = board.path(Slot::A);
    std::fs::set_permissions(&slot, PermissionsExt::from_mode(0o700)).unwrap();
    let mut left = Command::new(&slot).env_clear().stdin(Stdio::piped()).spawn().unwrap();
    let mut config = Config::new(ProductId::new("cat").unwrap(), Vec::new());
    config.attendant = AGENT.into();
    let (samples, _held) = mpsc::channel(16);
    let mut application = application::start(config, Arc::new(SystemClock), samples);
    assert_eq!(application.news.recv().await, Some(News::Load));
    application.orders.send(Order::Start(board.load())).await.unwrap();
    let Some(News::Started { pid, .. }) = application.news.recv().await else {
        panic!("expected it to start");
    };
    let slot = std::fs::canonicalize(slot).unwrap();
    until("the slot's file runs", || executes(pid).as_ref() == Some(&slot));
    assert!(!runs(left.id()));
    left.kill().unwrap();
    left.wait().unwrap();
    drop(application.orders);
    assert_eq!(application.news.recv().await, Some(News::Over));
}

#[tokio::test]
async fn the_owners_script_decides_and_is_told_whom_it_judges() {
    let health = Health { script: true, ..ANY };
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("healthy");
    // Not yet; then by what the test has said.
    let text = "#!/bin/sh\necho \"$PLIMSOLL_PRODUCT $PLIMSOLL_VERSION $PLIMSOLL_SLOT $PLIMSOLL_PID\" >> DIR/asked\n\
                [ -e DIR/verdict ] || exit 75\nexit $(cat DIR/verdict)\n";
    put(&script, text.replace("DIR", dir.path().to_str().unwrap()).as_bytes());
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).unwrap();
    for (verdict, healthy) in [("0", true), ("9", false)] {
        let with_script = Some(script.clone());
        let mut owner = Owner::new(SOUND, health, |config| {
            config.script = with_script;
        });
        owner.load().await;
        let (_, pid) = owner.install(&SOUND.replace("0.5", "0.6")).await;
        let asked = dir.path().join("asked");
        until("it was asked", || std::fs::read_to_string(&asked).is_ok_and(|s| s.ends_with('\n')));
        std::fs::write(dir.path().join("verdict"), verdict).unwrap();
        let said = std::fs::read_to_string(&asked).unwrap();
        assert_eq!(said.lines().next(), Some(&*format!("pump-app 1.1.0 b {pid}")));
        let news = owner.news().await;
        if healthy {
            assert_eq!(news, News::Healthy(Slot::B));
        } else {
            assert_eq!(news, News::Unhealthy { slot: Slot::B, why: Why::ScriptSaidNo(9) });
        }
        owner.end().await;
        std::fs::remove_file(dir.path().join("verdict")).unwrap();
        std::fs::remove_file(asked).unwrap();
    }
}

#[tokio::test]
async fn a_script_that_takes_too_long_or_is_not_there_says_no() {
    let dir = tempfile::tempdir().unwrap();
    let slow = dir.path().join("slow");
    put(&slow, b"#!/bin/sh\nsleep 1000\n");
    std::fs::set_permissions(&slow, PermissionsExt::from_mode(0o700)).unwrap();
    let none = dir.path().join("none");
    for (file, ms, why) in [(slow, 50, Why::ScriptKilled), (none, 60_000, Why::ScriptNotStarted)] {
        let mut owner = Owner::new(SOUND, Health { script: true, ..ANY }, |config| {
            config.script = Some(file);
            config.script_time = Duration::from_millis(ms);
        });
        owner.load().await;
        owner.install(&SOUND.replace("0.5", "0.6")).await;
        assert_eq!(owner.news().await, News::Unhealthy { slot: Slot::B, why });
        owner.end().await;
    }
}

#[tokio::test]
async fn who_says_more_than_a_second_may_bring_is_heard_in_part_and_counted() {
    let flood = "#!/bin/sh\ni=0\nwhile [ $i -lt 1500 ]; do echo '[{\"n\":\"x\",\"v\":1}]'; i=$((i+1)); done\n\
                 echo done\nexec cat\n";
    let mut owner = Owner::new(flood, ANY, |config| config.sample_every = PATIENCE);
    owner.load().await;
    let counts = owner.application.counts.clone();
    // Somebody takes them: the queue holds no more than 1,024.
    let taken = tokio::spawn(async move {
        let mut taken = 0u64;
        while owner.application.counts.lines.load(Ordering::Relaxed) == 0 {
            let wait = Duration::from_millis(20);
            if let Ok(Some(sample)) = tokio::time::timeout(wait, owner.samples.recv()).await {
                taken += u64::from(sample.reading.series.as_str() == "app/x");
            }
        }
        while let Ok(sample) = owner.samples.try_recv() {
            taken += u64::from(sample.reading.series.as_str() == "app/x");
        }
        owner.end().await;
        taken
    });
    let taken = taken.await.unwrap();
    assert_eq!(counts.readings.load(Ordering::Relaxed), taken);
    assert_eq!(taken + counts.too_many.load(Ordering::Relaxed), 1500);
}
