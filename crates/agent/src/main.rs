//! `plimsoll-agent`: a device's own software on Linux.

use agent::backlog::{BYTES_DEFAULT, BacklogConfig, Full};
use agent::clock::SystemClock;
use agent::launch;
use agent::link::Place;
use agent::process;
use agent::recording;
use agent::sources::replay::AsOf;
use agent::station::{self, App, Config, Source, Updates};
use agent::status;
use agent::update::driver::Settings;
use agent::update::metrics;
use agent::update::product::Factory;
use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use disk::RealDisk;
use model::envelope::Algorithm;
use model::{HardwareId, ProductId, SecurityVersion, Version};
use std::ffi::OsString;
use std::io::Write as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A device's own software: identity, sampling, sealing, backlog. See docs/agent.md.
#[derive(Parser)]
#[command(name = "plimsoll-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the key that the device is born with, and the request for its birth certificate (idevid.csr).
    Prepare {
        /// The device's directory; made if it is not there.
        #[arg(long)]
        data: PathBuf,
        /// The device's serial number.
        #[arg(long)]
        serial: String,
    },
    /// Give the device its first image of a product, in the factory: into slot A, confirmed.
    Provision {
        /// The device's directory; made if it is not there.
        #[arg(long)]
        data: PathBuf,
        /// Its name, as in the releases.
        #[arg(long)]
        product: ProductId,
        /// The kind of hardware, as in the releases.
        #[arg(long)]
        hardware: HardwareId,
        /// The image's version, as in 1.0.0.
        #[arg(long, value_name = "VERSION")]
        release: Version,
        /// Nothing below it starts on this device from now on.
        #[arg(long, value_name = "N", default_value_t = 0)]
        security_version: u32,
        /// The executable.
        file: PathBuf,
    },
    /// Enrol if need be, then sample, seal and publish until SIGTERM. SIGHUP: move on to the next gateway. SIGUSR1: rotate
    /// the sealing key.
    Run(Box<Run>),
    /// Run the agent out of its own slots, and start it again when it ends: it can then be updated as what it updates is.
    Launch {
        /// The device's directory, in which `plimsoll-agent` was provisioned as a product.
        #[arg(long)]
        data: PathBuf,
        /// How long an agent on trial may take to confirm itself, in milliseconds. Longer than its own `--trial-ms`.
        #[arg(long, value_name = "MS", default_value_t = launch::TRIAL.as_millis() as u64, value_parser = clap::value_parser!(u64).range(1_000..=86_400_000))]
        trial_ms: u64,
        /// End in good order when standard input ends, too.
        #[arg(long)]
        end_with_stdin: bool,
        /// What the agent is started with: `run` and its options.
        #[arg(last = true, required = true)]
        args: Vec<OsString>,
    },
    /// Become a program that dies with its parent. The agent starts applications by it; nobody else has a use for it.
    #[command(hide = true)]
    Attend {
        parent: u32,
        /// Ends before whatever else runs out of these slots.
        #[arg(long, value_name = "DIR")]
        alone_in: Option<PathBuf>,
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
    /// Write this host's metrics to a recording (CSV) that `run --replay` reads.
    Record {
        /// For how long.
        #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// How often, in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=86_400_000))]
        interval_ms: u64,
        /// A file that is not there yet.
        #[arg(long)]
        out: PathBuf,
    },
    /// Rotate the sealing key: the running agent does it now, or the next one at its start.
    Rotate {
        #[arg(long)]
        data: PathBuf,
    },
    /// Show how far a running agent's backlog is acknowledged.
    Status {
        #[arg(long)]
        data: PathBuf,
        /// As one line of JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Run {
    /// The device's directory, with its birth certificate (idevid.pem).
    #[arg(long)]
    data: PathBuf,
    /// The site's EST server, as https://host:port.
    #[arg(long, value_name = "URL")]
    est: String,
    /// The site's authorities in PEM; copied into the directory if it has none yet.
    #[arg(long, value_name = "FILE")]
    site_ca: Option<PathBuf>,
    /// A gateway, as NAME@HOST:PORT. Give it again for the next one to try.
    #[arg(long = "gateway", value_name = "NAME@HOST:PORT", required = true)]
    gateways: Vec<Place>,
    /// What to measure.
    #[arg(long, value_enum, default_value_t = Measure::Host, conflicts_with = "replay")]
    source: Measure,
    /// How often, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=86_400_000))]
    interval_ms: u64,
    /// Play a recording instead: CSV with a time column and numbers.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// `now`: at the recording's own pace. `recorded`: with its own times, as fast as the backlog drains.
    #[arg(long, value_enum, default_value_t = When::Now)]
    as_of: When,
    /// Recorded seconds that go by in one.
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Play the recording again and again.
    #[arg(long = "loop")]
    looped: bool,
    /// What the backlog may take on the disk, in bytes; at least 1 MiB.
    #[arg(long, value_name = "BYTES", default_value_t = BYTES_DEFAULT)]
    backlog_bytes: u64,
    /// What is dropped when it is full: oldest, newest, or every:N (2 to 16). It is stated in a signed loss notice.
    #[arg(long, value_name = "POLICY", default_value = "oldest", value_parser = full)]
    backlog_full: Full,
    /// The algorithm of sealing keys that are made from now on.
    #[arg(long, value_enum, default_value_t = Seal::Ed25519)]
    seal: Seal,
    /// The product that runs out of its slots beside this process, which starts, watches and updates it. It was provisioned.
    #[arg(long = "app", value_name = "PRODUCT")]
    app: Option<ProductId>,
    /// An argument of the application. Again for the next one.
    #[arg(long = "app-arg", value_name = "ARG", requires = "app", allow_hyphen_values = true)]
    app_args: Vec<OsString>,
    /// The application says no readings, and is not asked for one before it is confirmed.
    #[arg(long, requires = "app")]
    app_is_silent: bool,
    /// The Director's first root: copied into the directory if it has none yet.
    #[arg(long, value_name = "FILE")]
    director_root: Option<PathBuf>,
    /// The image repository's first root: copied into the directory if it has none yet.
    #[arg(long, value_name = "FILE")]
    image_root: Option<PathBuf>,
    /// The longest time between two check-ins, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(250..=86_400_000))]
    check_in_ms: u64,
    /// Nothing is armed under a lease that was issued longer ago, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1_000..=86_400_000))]
    halt_within_ms: u64,
    /// Load images no faster than so many bytes a second; at least 1024, at most 1 GiB.
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    download_rate: Option<NonZeroU64>,
    /// How long an image on trial may take to show that it is well, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1_000..=86_400_000))]
    trial_ms: u64,
    /// An executable of the owner's that says whether an image on trial is well: 0 yes, 75 not yet, any other no.
    #[arg(long, value_name = "FILE")]
    health_script: Option<PathBuf>,
    /// Write the log as JSON lines.
    #[arg(long)]
    log_json: bool,
    /// End in good order when standard input ends, too: for whoever starts the agent and may be killed.
    #[arg(long)]
    end_with_stdin: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Measure {
    /// This host: processors, memory, disks, network, load, temperatures.
    Host,
}

#[derive(Clone, Copy, ValueEnum)]
enum When {
    Now,
    Recorded,
}

#[derive(Clone, Copy, ValueEnum)]
enum Seal {
    Ed25519,
    /// ECDSA on P-256 with SHA-256.
    Esp256,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err(format!("expected a number above 0, found {text:?}")),
    }
}

fn rate(text: &str) -> Result<NonZeroU64, String> {
    let rate = text.parse().ok().filter(|rate| (1024..=1 << 30).contains(rate));
    rate.and_then(NonZeroU64::new)
        .ok_or_else(|| format!("expected 1024 to 1073741824 bytes a second, found {text:?}"))
}

fn full(text: &str) -> Result<Full, String> {
    match text {
        "oldest" => Ok(Full::Oldest),
        "newest" => Ok(Full::Newest),
        _ => match text.strip_prefix("every:").and_then(|n| n.parse().ok()) {
            Some(n @ 2..=16) => Ok(Full::EveryNth(n)),
            _ => {
                Err(format!("expected oldest, newest or every:N with N of 2 to 16, found {text:?}"))
            }
        },
    }
}

impl Run {
    fn config(self) -> Config {
        let source = match self.replay {
            Some(file) => Source::Replay {
                file,
                as_of: match self.as_of {
                    When::Now => AsOf::Now,
                    When::Recorded => AsOf::Recorded,
                },
                speed: self.speed,
                looped: self.looped,
            },
            None => match self.source {
                Measure::Host => Source::Host { interval: Duration::from_millis(self.interval_ms) },
            },
        };
        let seal_algorithm = match self.seal {
            Seal::Ed25519 => Algorithm::Ed25519,
            Seal::Esp256 => Algorithm::Esp256,
        };
        let backlog = BacklogConfig {
            dir: self.data.clone(),
            bytes_max: self.backlog_bytes,
            full: self.backlog_full,
        };
        let app = self.app.map(|product| App {
            product,
            args: self.app_args,
            says_readings: !self.app_is_silent,
        });
        let updates = Updates {
            settings: Settings {
                director_root: self.director_root,
                image_root: self.image_root,
                check_in_ms: self.check_in_ms,
                halt_within_ms: self.halt_within_ms,
                download_rate: self.download_rate,
            },
            app,
            trial: Duration::from_millis(self.trial_ms),
            health_script: self.health_script,
        };
        Config {
            dir: self.data,
            est: self.est,
            site_ca: self.site_ca,
            gateways: self.gateways,
            source,
            backlog,
            seal_algorithm,
            end_with_stdin: self.end_with_stdin,
            updates,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Prepare { data, serial } => station::prepare(&data, &serial),
        Command::Provision { data, product, hardware, release, security_version, file } => {
            let security_version = SecurityVersion(security_version);
            let (version, image) = (release, file);
            let first = Factory { product, hardware, version, security_version, image };
            station::provision(&data, &first)
        }
        Command::Run(run) => {
            // Replayed again with its own times, a row would stand in history twice.
            ensure!(
                !(run.looped && matches!(run.as_of, When::Recorded)),
                "--loop goes with --as-of now only"
            );
            start_log(run.log_json);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(station::run(run.config()))
        }
        Command::Launch { data, trial_ms, end_with_stdin, args } => {
            start_log(false);
            let config = launch::Config {
                dir: data,
                args,
                trial: Duration::from_millis(trial_ms),
                stop: launch::STOP,
                attendant: process::ATTENDANT.into(),
            };
            let stdin = end_with_stdin.then(station::watch_stdin).transpose()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(launch::run(config, stdin))
        }
        Command::Attend { parent, alone_in, program } => {
            let (program, args) = program.split_first().context("no program")?;
            let error = process::attend(parent, alone_in.as_deref(), Path::new(program), args);
            let _ = writeln!(std::io::stderr(), "cannot execute {}: {error}", program.display());
            std::process::exit(process::NOT_EXECUTED)
        }
        Command::Record { seconds, interval_ms, out } => {
            let interval = Duration::from_millis(interval_ms);
            let rows = (u64::from(seconds) * 1000).div_ceil(interval_ms);
            let recorded =
                recording::record(&RealDisk, &out, rows, &SystemClock, recording::every(interval))?;
            println!("{} rows of {} series in {}", recorded.rows, recorded.series, out.display());
            Ok(())
        }
        Command::Rotate { data } => {
            println!("{}", station::rotate(&data)?);
            Ok(())
        }
        Command::Status { data, json } => show_status(&data, json),
    }
}

/// Events on standard error; `PLIMSOLL_LOG` chooses which (default: info).
fn start_log(json: bool) {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_from_env("PLIMSOLL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // A line that cannot be written would be told where it could not be written, and that panics: the disk that holds
        // the log may be full.
        .log_internal_errors(false);
    if json { log.json().init() } else { log.init() }
}

fn show_status(data: &Path, json: bool) -> Result<()> {
    let path = data.join(status::FILE);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("no {}: no agent has run in this directory", path.display()))?;
    if json {
        print!("{text}");
    } else {
        println!(
            "{}",
            text.trim().replace(['{', '}', '"'], "").replace(',', "\n").replace(':', " ")
        );
        show_products(data);
    }
    Ok(())
}

/// A line for each product; none when there is nothing to update. The file is a view of ours: what is not as we write it is left
/// out.
fn show_products(data: &Path) {
    let text = std::fs::read_to_string(data.join(metrics::STATUS_FILE)).unwrap_or_default();
    let Ok(shown) = serde_json::from_str::<serde_json::Value>(&text) else { return };
    for part in shown["products"].as_array().into_iter().flatten() {
        let word = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
        let (running, install) = (&part["running"], &part["install"]);
        println!(
            "{} runs {} ({}), {}; newest order {}: {} {}",
            word(&part["product"]),
            word(&running["version"]),
            word(&running["boot"]),
            word(&part["stage"]),
            word(&install["rollout"]),
            word(&install["end"]),
            word(&install["reason"]),
        );
    }
}
