//! Control plane, bus and store in one process.

use crate::maker;
use crate::site::Site;
use anyhow::{Context, Result, anyhow};
use bus::{LogConfig, Shards};
use control::Control;
use disk::{DirLock, RealDisk, SharedDisk};
use keys::UnixTime;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use store::{Store, StoreError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use traces::{Settings, Traces};
use trust::tuf::Role;

/// What one shard of the bus may hold: signed envelopes of a week, at most a gigabyte.
const BUS: LogConfig = LogConfig {
    segment_bytes: 16 * 1024 * 1024,
    bytes_max: 1024 * 1024 * 1024,
    record_bytes_max: control::BUS_RECORD_BYTES_MAX as u32,
};
/// Batches that wait for the next group commit of a shard. One more is refused with 503 and comes again.
const BUS_QUEUE_MAX: usize = 256;

#[derive(clap::Args, Clone, Debug)]
#[group(id = "station")]
pub struct Options {
    /// The first of the ports that are used.
    #[arg(long, default_value_t = 18800)]
    pub port_base: u16,
    /// Where the API listens. 0.0.0.0: everywhere, for gateways and people on other machines. Its certificate is for
    /// control.SITE.internal and localhost.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen: IpAddr,
    /// The site's name, fixed at the first start.
    #[arg(long, default_value = "site")]
    pub site: String,
    /// The vendor's image repository: the `repository/` of `plimsoll release init`, to read only. Without it, nothing can be
    /// rolled out.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// The vendor's first root that this site trusts, as the vendor gave it (`1.root.json`). Needed at the first start with
    /// `--images`; control keeps it.
    #[arg(long, value_name = "FILE", requires = "images")]
    pub image_root: Option<PathBuf>,
    /// Where traces go by OTLP/HTTP, as http(s)://host:port; default: nowhere. See docs/traces.md.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// The share of readings that is traced, from 0 to 1; default: 0.01. Of updates each is.
    #[arg(long, value_name = "SHARE")]
    pub otlp_ratio: Option<f64>,
    /// Write the log as JSON lines.
    #[arg(long)]
    pub log_json: bool,
}

impl Options {
    /// Must be called within a runtime.
    fn traces(&self) -> Result<Traces> {
        let variable = |name: &str| std::env::var(name).ok();
        let settings = Settings::read(self.otlp_endpoint.as_deref(), self.otlp_ratio, variable)?;
        Ok(match settings {
            Some(settings) => Traces::start(&settings, env!("CARGO_PKG_VERSION"))?,
            None => Traces::default(),
        })
    }
}

/// `plimsoll control`: until a signal comes, or something fails for good.
pub async fn run(data: &Path, options: &Options) -> Result<()> {
    crate::log::start(true, options.log_json);
    let mut station = Station::start(data, options).await?;
    let ended = tokio::select! {
        failed = station.failed() => Err(failed),
        result = until_signal() => result,
    };
    let closed = station.end().await;
    ended.and(closed)
}

/// Ctrl-C, what a service manager sends, or the end of the terminal.
pub async fn until_signal() -> Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Whoever started us with `nohup` wants us to outlive the terminal.
    let hang_up = match ignores_hang_up() {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    let hung_up = async {
        match hang_up {
            Some(mut hang_up) => _ = hang_up.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = hung_up => {}
    }
    Ok(())
}

/// Whether this process was started with SIGHUP ignored. It is asked once, before any handler of ours can change it.
fn ignores_hang_up() -> bool {
    static IGNORES: OnceLock<bool> = OnceLock::new();
    *IGNORES.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        ignored(&status).is_some_and(|signals| signals & 1 != 0)
    })
}

/// The signals that a process ignores, of what Linux says of it: the lowest bit is SIGHUP, which has number 1.
fn ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

pub fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub struct Station {
    pub control: Control,
    pub traces: Traces,
    ingest: Ingest,
    shards: Shards,
    /// Held as long as the process runs.
    _lock: DirLock,
}

impl Station {
    pub async fn start(data: &Path, options: &Options) -> Result<Self> {
        let disk: SharedDisk = Arc::new(RealDisk);
        disk.create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
        // Two processes over one directory would each believe that the files are theirs.
        let lock = disk::lock_dir(data)
            .with_context(|| format!("cannot take {} as the site's directory", data.display()))?;
        let site = Site::load_or_found(&disk, data, &options.site, options.port_base, now())?;
        let made = if site.is_new { "made: CA, keys, token" } else { "as it was" };
        crate::say!("site {:<10} {made}, in {}", site.file.name, site.dir.display());
        let maker = maker::authority(disk.as_ref(), data, now())?;
        let count = u32::from(site.file.shards);
        let shards = Shards::open(disk.clone(), &data.join("bus"), count, BUS, BUS_QUEUE_MAX)
            .context("cannot open the bus")?;
        let waiting: u64 = shards.readers().iter().map(|r| r.end().0 - r.first().0).sum();
        crate::say!("bus             {count} shards, {waiting} batches kept");
        let traces = options.traces()?;
        let mut config = store::Config::new(data.join("store"));
        config.traces = traces.clone();
        let (writers, key) = (shards.writers().to_vec(), site.bus_key.clone());
        let opened = Store::open(disk.clone(), config, writers, key).await;
        let store = Arc::new(opened.context("cannot open the store")?);
        crate::say!("store           SQL over {}", data.join("store").display());
        let ingest = Ingest::start(store.clone());
        let control = Control::start(
            control_config(data, options, &site, maker.certificate_der(), traces.clone())?,
            store.clone(),
            shards.writers().to_vec(),
            vec![store.registry().clone()],
        )
        .await
        .context("cannot start the control plane")?;
        crate::say!("control         https://{}", control.local_addr());
        if let Some(images) = &options.images {
            crate::say!("releases        of {}, read every 10 s", images.display());
        }
        Ok(Self { control, traces, ingest, shards, _lock: lock })
    }

    /// Resolves when something can keep its promises no more; the process then stops.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            fatal = self.control.failed() => anyhow!("the control plane stopped: {fatal}"),
            error = self.ingest.ended() => error.context("the store stopped"),
        }
    }

    /// Control first, so that nothing new comes; then the store writes what it holds in memory to files; then the bus.
    pub async fn end(self) -> Result<()> {
        self.control.shutdown().await;
        let flushed = self.ingest.end().await;
        self.shards.close().await;
        self.traces.end().await;
        flushed.context(
            "the store did not end cleanly; what is on the bus is read again at the next start",
        )
    }
}

/// The store's consumers, running.
struct Ingest {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Ingest {
    fn start(store: Arc<Store>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            // An error says that the station is gone, which is a reason to end too.
            let stopped = async { drop(stopped.await) };
            store.run(stopped).await
        });
        Self { stop, task }
    }

    /// Resolves only if they end by themselves.
    async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow!("it ended although nobody told it to"),
            Ok(Err(error)) => error.into(),
            Err(panic) => panic.into(),
        }
    }

    async fn end(self) -> Result<()> {
        let _ = self.stop.send(());
        Ok(self.task.await??)
    }
}

fn control_config(
    data: &Path,
    options: &Options,
    site: &Site,
    maker: &[u8],
    traces: Traces,
) -> Result<control::Config> {
    std::fs::create_dir_all(data.join("control"))?;
    Ok(control::Config {
        listen: SocketAddr::new(options.listen, options.port_base),
        site: site.file.name.clone(),
        registry: data.join("control/registry.sqlite"),
        authority: site.authority.clone(),
        key: site.control_key()?,
        certificate: site.control_certificate(),
        makers: vec![maker.to_vec()],
        token: site.token.clone(),
        policies: policy::DEFAULT_POLICIES.to_owned(),
        bus_key: site.bus_key.clone(),
        director: site.director(data)?,
        images: images(data, options)?,
        evidence: control::config::Evidence {
            disk: Arc::new(RealDisk),
            dir: data.join("control/evidence"),
            key: site.evidence_key()?,
        },
        traces,
        limits: control::Limits::default(),
    })
}

/// The vendor's repository. No key of it is looked for.
fn images(data: &Path, options: &Options) -> Result<Option<control::Images>> {
    let Some(dir) = &options.images else { return Ok(None) };
    let disk: SharedDisk = Arc::new(RealDisk);
    let read = |path: &PathBuf| {
        disk.read(path, Role::Root.bytes_max() as u64)
            .with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Some(control::Images {
        first_root: options.image_root.as_ref().map(read).transpose()?,
        kept: data.join("control/images"),
        source: Arc::new(control::releases::Directory::new(disk, dir.clone())),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_of_ignored_signals_is_read() {
        let status =
            |mask: &str| format!("Name:\tplimsoll\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert_eq!(ignored(&status("0000000000001001")), Some(0x1001));
        assert_eq!(ignored(&status("0000000000001000")), Some(0x1000));
        assert_eq!(ignored(&status("?")), None);
        assert_eq!(ignored("Name:\tplimsoll\n"), None);
    }
}
