//! `plimsoll up`: a whole site on one machine, said step by step.

use crate::client::Client;
use crate::station::{self, Station, now, until_signal};
use crate::{log, maker, release};
use anyhow::{Context, Result, anyhow, bail, ensure};
use api::{Ask, Ownership, Role};
use disk::{DirLock, RealDisk, SharedDisk};
use gateway::Gateway;
use model::{SecurityVersion, Timestamp, Version};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::process::{Child, ChildStdin, Command};

/// The zone of everything that `up` starts.
pub const ZONE: &str = "hall";
/// What the devices run, published by a vendor of our own, so that there is something to update.
const PRODUCT: &str = "pump-app";
const FIRST: Version = Version::new(1, 0, 0);
const FIRST_PROGRAM: &str = "pump-app-1-0";
const NEXT_PROGRAM: &str = "pump-app-1-1";
const HARDWARE: &str = "plimsoll-linux-amd64";
/// So that a newcomer need not wait for a minute.
const CHECK_IN_MS: &str = "2000";
const GATEWAY: &str = "gw-1";
/// How long a device may take to end: its agent tries for two seconds to send what it has. One whose `up` was killed takes
/// as long, and the next `up` waits for it.
const CHILD_END: Duration = Duration::from_secs(6);
/// How often it is looked whether the first reading is there, or a directory free.
const LOOK: Duration = Duration::from_millis(100);

#[derive(clap::Args, Clone, Debug)]
#[group(id = "up")]
pub struct Options {
    #[command(flatten)]
    pub station: station::Options,
    /// A recording for the second device to play: CSV with a time column and numbers. Default: recordings/host.csv, if
    /// it is there.
    #[arg(long)]
    pub replay: Option<PathBuf>,
    /// `now`: at the recording's own pace, again and again. `recorded`: once, as fast as it is taken, with its own times.
    #[arg(long, default_value = "now", value_parser = ["now", "recorded"])]
    pub as_of: String,
}

pub async fn run(data: &Path, options: &Options) -> Result<()> {
    log::start(false, options.station.log_json);
    let start = Instant::now();
    log::line(format_args!("Plimsoll {}", env!("CARGO_PKG_VERSION")));
    let mut options = options.clone();
    let application = Application::published(data, &mut options.station)?;
    let mut station = Station::start(data, &options.station).await?;
    let ended = with_gateway(data, &options, application.as_ref(), &mut station, start).await;
    let closed = station.end().await;
    ended.and(closed)
}

async fn with_gateway(
    data: &Path,
    options: &Options,
    application: Option<&Application>,
    station: &mut Station,
    start: Instant,
) -> Result<()> {
    let (mut gateway, _lock) = start_gateway(data, options, station).await?;
    let ended = match start_devices(data, options, application, station).await {
        Ok(mut devices) => {
            let vendor = application.map(|application| application.vendor.as_path());
            let ended =
                serve(data, options, vendor, station, &mut gateway, &mut devices, start).await;
            say!("ending          devices, gateway, control, store, bus");
            for device in &mut devices {
                device.end().await;
            }
            ended
        }
        Err(error) => Err(error),
    };
    let stopped = gateway.stop().await.context("the gateway did not end cleanly");
    ended.and(stopped)
}

/// Until a signal comes, or something ends that should not.
async fn serve(
    data: &Path,
    options: &Options,
    vendor: Option<&Path>,
    station: &mut Station,
    gateway: &mut Gateway,
    devices: &mut [Device],
    start: Instant,
) -> Result<()> {
    let heard = async {
        first_reading(data).await?;
        log::line(format_args!("\n  first reading after {:.1} s\n", start.elapsed().as_secs_f64()));
        how_to_ask(data, options, vendor);
        until_signal().await
    };
    tokio::select! {
        failed = station.failed() => Err(failed),
        fatal = gateway.failed() => Err(anyhow!("the gateway stopped: {fatal}")),
        (name, status) = first_to_end(devices) => bail!("device {name} ended by itself ({status})"),
        ended = until_signal() => ended,
        ended = heard => ended,
    }
}

/// Waits for a reading that came after this start: those of an earlier one say nothing of this road.
async fn first_reading(data: &Path) -> Result<()> {
    let client = Client::of_dir(data)?;
    let since_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let sql = format!(
        "select 1 from readings where received_at >= to_timestamp_micros({since_us}) limit 1"
    );
    let ask = Ask { sql, rows_max: Some(1), time_max_ms: None };
    loop {
        if client.ask(&ask).await.is_ok_and(|answer| !answer.rows.is_empty()) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn how_to_ask(data: &Path, options: &Options, vendor: Option<&Path>) {
    let program = std::env::current_exe()
        .map_or_else(|_| "plimsoll".into(), |path| path.display().to_string());
    let here = std::env::current_dir().map(|dir| format!("{}/", dir.display())).unwrap_or_default();
    let program = program.strip_prefix(&here).unwrap_or(&program);
    let ca = data.join("site/ca.pem");
    let data = match data.to_str() {
        Some("data") => String::new(),
        _ => format!(" --data {}", data.display()),
    };
    say!("Ask, in another terminal:\n");
    say!(
        "  {program} query{data} \"select device, series, value, unit from readings order by time desc limit 10\""
    );
    say!(
        "  {program} query{data} \"select device, count(*) as readings, max(time) as newest from readings group by device\""
    );
    say!("  {program} device list{data}\n");
    if let (Some(vendor), Ok(next)) = (vendor, beside_us(NEXT_PROGRAM)) {
        let next = next.display().to_string();
        say!(
            "Publish a release, as the vendor of what the devices run; then roll it out, and watch:\n"
        );
        say!(
            "  {program} release publish --vendor {} --product {PRODUCT} --release 1.1.0 --hardware {HARDWARE} --security-version 1 {}",
            vendor.display(),
            next.strip_prefix(&here).unwrap_or(&next)
        );
        say!("  {program} release available{data} --refresh");
        say!("  {program} rollout create{data} docs/examples/pump-1.1.json");
        say!("  {program} rollout watch{data} pump-1.1\n");
    }
    say!(
        "Make yourself a user, and open the console (the site's authority is in {}):\n",
        ca.display()
    );
    say!(
        "  {program} user create{data} YOU --grant administrator --grant operator --grant releaser"
    );
    say!("  https://127.0.0.1:{}\n", options.station.port_base);
    say!("Ctrl-C ends it; started again, it goes on where it was.");
}

async fn start_gateway(
    data: &Path,
    options: &Options,
    station: &Station,
) -> Result<(Gateway, DirLock)> {
    let dir = data.join("gateways").join(GATEWAY);
    let disk: SharedDisk = Arc::new(RealDisk);
    let port = options.station.port_base;
    if !dir.join("idevid.pem").exists() {
        keys::identity::prepare(&disk, &dir, GATEWAY)?;
        maker::sign(disk.as_ref(), data, &dir.join("idevid.csr"), &dir.join("idevid.pem"), now())?;
    }
    own(station, GATEWAY, Role::Gateway).await?;
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut config =
        gateway::Config::new(dir, local(port + 1), format!("https://127.0.0.1:{port}"));
    config.name = Some(GATEWAY.parse()?);
    config.metrics = Some(local(port + 2));
    config.site_ca = Some(data.join("site/ca.pem"));
    config.traces = station.traces.clone();
    let lock = disk::lock_dir(&config.data).with_context(|| {
        format!("cannot take {} as the gateway's directory", config.data.display())
    })?;
    let gateway = Gateway::start(config, disk).await.context("cannot start the gateway")?;
    say!(
        "gateway {GATEWAY:<8}MQTT 5, mutual TLS 1.3, 127.0.0.1:{}; counters on http://127.0.0.1:{}/metrics",
        port + 1,
        port + 2
    );
    Ok((gateway, lock))
}

async fn own(station: &Station, serial: &str, role: Role) -> Result<()> {
    let entry = Ownership { serial: serial.to_owned(), role, zone: ZONE.to_owned(), group: None };
    station.control.list(&entry).await.with_context(|| format!("cannot list {serial}"))?;
    Ok(())
}

struct Device {
    name: &'static str,
    child: Child,
    /// Held and never written to. It closes with this process, however that ends, and with it the device ends.
    _stdin: Option<ChildStdin>,
}

/// The application that the devices run: its first image, as it is published, and what the agent is told of it.
struct Application {
    vendor: PathBuf,
    image: PathBuf,
    args: Vec<String>,
}

impl Application {
    /// Without a vendor of the operator's there is one of ours, in `vendor/`; its first release is published at the first start.
    fn published(data: &Path, station: &mut station::Options) -> Result<Option<Self>> {
        let Ok(program) = beside_us(FIRST_PROGRAM) else { return Ok(None) };
        if station.images.is_some() {
            return Ok(None);
        }
        let vendor = data.join("vendor");
        let release = model::Release {
            product: PRODUCT.parse()?,
            version: FIRST,
            security_version: SecurityVersion(1),
            hardware: vec![HARDWARE.parse()?],
            must_pass: Vec::new(),
        };
        let now = Timestamp(i64::try_from(now().as_secs())? * 1_000_000);
        let image = release::first(&vendor, release, &program, now)
            .context("cannot publish what the devices are to run")?;
        let (repository, root) = release::repository(&vendor);
        let director = text(&data.join("director/1.root.json"))?;
        let args = [
            ["--app", PRODUCT],
            ["--director-root", &director],
            ["--image-root", &text(&root)?],
            ["--check-in-ms", CHECK_IN_MS],
        ];
        let args = args.concat().into_iter().map(str::to_owned).collect();
        (station.images, station.image_root) = (Some(repository), Some(root));
        Ok(Some(Self { vendor, image, args }))
    }

    /// What a factory does: the first image, once.
    async fn provision(&self, agent: &Path, dir: &Path) -> Result<()> {
        if dir.join("update").join(PRODUCT).join("component.json").exists() {
            return Ok(());
        }
        let status = Command::new(agent)
            .args(["provision", "--data", &text(dir)?, "--product", PRODUCT])
            .args(["--hardware", HARDWARE, "--release", &FIRST.to_string()])
            .args(["--security-version", "1", &text(&self.image)?])
            .stdout(Stdio::null())
            .status()
            .await?;
        ensure!(status.success(), "{} cannot be given its first image ({status})", dir.display());
        Ok(())
    }
}

async fn start_devices(
    data: &Path,
    options: &Options,
    application: Option<&Application>,
    station: &Station,
) -> Result<Vec<Device>> {
    let host = ["--source".to_owned(), "host".to_owned()];
    let mut devices =
        vec![start_device(data, options, application, station, "host-1", &host).await?];
    say!("device host-1   measures this host");
    let shipped = PathBuf::from("recordings/host.csv");
    match options.replay.clone().or_else(|| shipped.exists().then_some(shipped)) {
        Some(file) => {
            let mut source =
                vec!["--replay".into(), text(&file)?, "--as-of".into(), options.as_of.clone()];
            if options.as_of == "now" {
                source.push("--loop".into());
            }
            let device = start_device(data, options, application, station, "replay-1", &source);
            devices.push(device.await?);
            say!("device replay-1 plays {} as of {}", file.display(), options.as_of);
        }
        None => say!("device replay-1 has nothing to play: give it --replay FILE"),
    }
    Ok(devices)
}

async fn start_device(
    data: &Path,
    options: &Options,
    application: Option<&Application>,
    station: &Station,
    name: &'static str,
    source: &[String],
) -> Result<Device> {
    let dir = data.join("devices").join(name);
    let agent = beside_us("plimsoll-agent")?;
    if !dir.join("idevid.pem").exists() {
        std::fs::create_dir_all(&dir)?;
        let status = Command::new(&agent)
            .args(["prepare", "--data", &text(&dir)?, "--serial", name])
            .status()
            .await?;
        ensure!(status.success(), "{name} could not make its key ({status})");
        maker::sign(&RealDisk, data, &dir.join("idevid.csr"), &dir.join("idevid.pem"), now())?;
    }
    own(station, name, Role::Device).await?;
    std::fs::create_dir_all(data.join("logs"))?;
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(data.join(format!("logs/{name}.log")))?;
    let port = options.station.port_base;
    until_free(&dir, name).await?;
    if let Some(application) = application {
        application.provision(&agent, &dir).await?;
    }
    let mut child = Command::new(&agent)
        .args(["run", "--data", &text(&dir)?, "--est", &format!("https://127.0.0.1:{port}")])
        .args(["--site-ca", &text(&data.join("site/ca.pem"))?])
        .args(["--gateway", &format!("{GATEWAY}@127.0.0.1:{}", port + 1)])
        .args(source)
        .args(application.map_or(&[][..], |application| &application.args))
        .arg("--end-with-stdin")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C reaches the whole foreground group; a device is ended by us, after that, in good order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", agent.display()))?;
    // Left in the child, it would be closed as soon as somebody waits for the child's end.
    let _stdin = child.stdin.take();
    Ok(Device { name, child, _stdin })
}

/// Waits for the agent of an `up` that was killed: it ends by itself, in good order, and needs a while for it.
async fn until_free(dir: &Path, name: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        match disk::lock_dir(dir) {
            Ok(_free) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::ResourceBusy && start.elapsed() < CHILD_END => {
                tokio::time::sleep(LOOK).await;
            }
            Err(e) => {
                let what = format!("cannot take {} for device {name}", dir.display());
                return Err(anyhow::Error::new(e).context(what));
            }
        }
    }
}

async fn first_to_end(devices: &mut [Device]) -> (&'static str, String) {
    let ends = devices.iter_mut().map(|device| {
        Box::pin(async {
            let status = device.child.wait().await;
            (device.name, status.map_or_else(|error| error.to_string(), ended))
        })
    });
    futures::future::select_all(ends).await.0
}

fn ended(status: ExitStatus) -> String {
    format!("{status}; its log is in logs/")
}

impl Device {
    async fn end(&mut self) {
        let Some(pid) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32))
        else {
            return;
        };
        if rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_err() {
            return;
        }
        match tokio::time::timeout(CHILD_END, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(status) => say!("device {} ended with {status:?}", self.name),
            Err(_) => {
                say!(
                    "device {} did not end in time and was killed; it lost nothing that it had sealed",
                    self.name
                );
                let _ = self.child.kill().await;
            }
        }
    }
}

/// The agent lies where this program lies.
fn beside_us(name: &str) -> Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.set_file_name(name);
    ensure!(path.exists(), "no {} beside this program: expected {}", name, path.display());
    Ok(path)
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
}
