//! `plimsoll-gateway`: the security boundary of a site.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use disk::RealDisk;
use gateway::config::Config;
use gateway::limits::Rate;
use model::GatewayId;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use traces::{Settings, Traces};

/// Devices' MQTT 5 side of a site: authenticate, admit, spool, hand up. See docs/gateway.md.
#[derive(Debug, Parser)]
#[command(name = "plimsoll-gateway", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT. The directory must hold a birth certificate (`plimsoll-agent prepare`).
    Run(Box<Options>),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// The gateway's directory: identity, bundle, spool.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Who this gateway must be; default: whoever its birth certificate says.
    #[arg(long, value_name = "ID")]
    name: Option<GatewayId>,
    /// Where devices connect (MQTT 5 over mutual TLS 1.3).
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8883")]
    listen: SocketAddr,
    /// Where /metrics and /healthz are shown in plain HTTP; a loopback address.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// The control plane, as https://host:port.
    #[arg(long, value_name = "URL")]
    control: String,
    /// The site's authorities in PEM; copied into the directory if it has none yet.
    #[arg(long, value_name = "FILE")]
    site_ca: Option<PathBuf>,

    /// PUBLISH packets of a session without their PUBACK: MQTT's Receive Maximum.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    receive_maximum: u16,
    /// The longest keep-alive, in seconds; a device that asks for more or none gets this.
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u16).range(5..=3600))]
    keep_alive_max_s: u16,
    /// From a connection's first byte to its whole CONNECT, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    connect_deadline_ms: u64,
    /// Connections of devices; one more is closed at once.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    connections: usize,
    /// New connections per second, all devices together; beyond it they wait in the kernel's queue.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    handshakes_per_s: u64,
    /// Packets per second of one device, twice as many at once; beyond it its socket is not read from.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    packets_per_s: u64,
    /// Bytes per second of one device, twice as many at once; beyond it its socket is not read from.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20, value_parser = clap::value_parser!(u64).range(1024..))]
    bytes_per_s: u64,
    /// The spool on the disk, in bytes; beyond it devices hear PUBACK 0x97 and keep what they have.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..))]
    spool_bytes: u64,
    /// Images for devices on the disk, in bytes; beyond it those go that were used longest ago.
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30)]
    cache_bytes: u64,
    /// What is left of the disk for everything else, in bytes; 0: not watched.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    disk_reserve_bytes: u64,
    /// Half the width of the interval in which this gateway's clock is held to be right, in milliseconds; default:
    /// unknown.
    #[arg(long, value_name = "MS")]
    clock_uncertainty_ms: Option<u32>,
    /// The longest wait between two attempts to reach the control plane, in seconds.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    retry_max_s: u64,
    /// Write the log as JSON lines.
    #[arg(long)]
    log_json: bool,
    /// Where traces go by OTLP/HTTP, as http(s)://host:port; default: nowhere. See docs/traces.md.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// The share of readings that is traced, from 0 to 1; default: 0.01. Of updates each is.
    #[arg(long, value_name = "SHARE")]
    otlp_ratio: Option<f64>,
}

impl Options {
    /// Must be called within a runtime.
    fn traces(&self) -> anyhow::Result<Traces> {
        let variable = |name: &str| std::env::var(name).ok();
        let settings = Settings::read(self.otlp_endpoint.as_deref(), self.otlp_ratio, variable)?;
        Ok(match settings {
            Some(settings) => Traces::start(&settings, env!("CARGO_PKG_VERSION"))?,
            None => Traces::default(),
        })
    }

    fn config(self) -> Config {
        let twice = |per_second: u64| Rate { per_second, burst: per_second.saturating_mul(2) };
        let mut config = Config::new(self.data, self.listen, self.control);
        config.name = self.name;
        config.metrics = self.metrics;
        config.site_ca = self.site_ca;
        config.terms.receive_maximum = self.receive_maximum;
        config.terms.keep_alive_max_s = self.keep_alive_max_s;
        config.terms.connect_deadline = Duration::from_millis(self.connect_deadline_ms);
        config.connections_max = self.connections;
        config.handshakes = twice(self.handshakes_per_s);
        config.packets = twice(self.packets_per_s);
        config.bytes = twice(self.bytes_per_s);
        config.spool.bytes_max = self.spool_bytes;
        config.spool.remember = usize::from(self.receive_maximum) * 2;
        config.cache_bytes = self.cache_bytes;
        config.disk_reserve_bytes = self.disk_reserve_bytes;
        config.clock_uncertainty_ms = self.clock_uncertainty_ms.unwrap_or(u32::MAX);
        config.retry_max = Duration::from_secs(self.retry_max_s);
        config
    }
}

fn main() -> anyhow::Result<()> {
    let Command::Run(options) = Cli::parse().command;
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_from_env("PLIMSOLL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A line that cannot be written would be told where it could not be written, and that panics: the disk that holds the
    // log may be full.
    let log = log.log_internal_errors(false);
    if options.log_json {
        log.json().init()
    } else {
        log.init()
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let shutdown = async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tracing::info!("ending");
        };
        let traces = options.traces()?;
        let mut config = options.config();
        config.traces = traces.clone();
        // Two gateways over one spool would ruin it.
        let _lock = disk::lock_dir(&config.data).with_context(|| {
            format!("cannot take {} as the gateway's directory", config.data.display())
        })?;
        let ended = gateway::run(config, Arc::new(RealDisk), shutdown).await;
        traces.end().await;
        Ok(ended?)
    })
}
