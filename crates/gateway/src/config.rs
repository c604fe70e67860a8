//! What an operator can set, with its units and bounds. `docs/gateway.md` says the same.

use crate::error::GatewayError;
use crate::limits::Rate;
use crate::session::Terms;
use crate::spool::SpoolConfig;
use model::GatewayId;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use traces::Traces;

#[derive(Clone, Debug)]
pub struct Config {
    /// The gateway's directory: identity, bundle, spool.
    pub data: PathBuf,
    /// Who it must be. `None`: whoever its birth certificate says.
    pub name: Option<GatewayId>,
    /// Where devices connect.
    pub listen: SocketAddr,
    /// Where metrics and health are shown, in plain HTTP: on loopback only. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// `https://host:port` of the control plane.
    pub control: String,
    /// The site's authorities, copied into `data` if there are none yet.
    pub site_ca: Option<PathBuf>,
    /// What every session is held to.
    pub terms: Terms,
    pub spool: SpoolConfig,
    /// Images that devices install, all together. Beyond it those go that were used longest ago; one that is longer is not
    /// fetched.
    pub cache_bytes: u64,
    /// What is left of the disk for other files: below it nothing is admitted. 0: it is not watched.
    pub disk_reserve_bytes: u64,
    /// Connections of devices, handshakes included. One more is closed at once.
    pub connections_max: usize,
    /// New connections, all devices together. Beyond it, they wait in the kernel's queue.
    pub handshakes: Rate,
    /// Packets of one device. Beyond it, its socket is not read from.
    pub packets: Rate,
    /// Bytes of one device. Beyond it, its socket is not read from.
    pub bytes: Rate,
    /// How long a device may take nothing of an answer over HTTP. Some 64 KiB wait for it: by default it is 2 KiB/s at least.
    pub stall_time: Duration,
    /// What this gateway says of its own clock. `u32::MAX`: it does not know.
    pub clock_uncertainty_ms: u32,
    /// The longest wait between two attempts to reach control.
    pub retry_max: Duration,
    /// How long one question for a newer bundle may wait at control.
    pub bundle_wait: Duration,
    /// Where traces are told of. By default: nowhere.
    pub traces: Traces,
}

impl Config {
    /// Everything at its default.
    pub fn new(data: impl Into<PathBuf>, listen: SocketAddr, control: impl Into<String>) -> Self {
        Self {
            data: data.into(),
            name: None,
            listen,
            metrics: None,
            control: control.into(),
            site_ca: None,
            terms: Terms::default(),
            spool: SpoolConfig::default(),
            cache_bytes: 2 * 1024 * 1024 * 1024,
            disk_reserve_bytes: 64 * 1024 * 1024,
            connections_max: 4096,
            handshakes: Rate { per_second: 200, burst: 400 },
            packets: Rate { per_second: 5_000, burst: 10_000 },
            bytes: Rate { per_second: 32 << 20, burst: 64 << 20 },
            stall_time: Duration::from_secs(30),
            clock_uncertainty_ms: u32::MAX,
            retry_max: Duration::from_secs(30),
            bundle_wait: Duration::from_secs(50),
            traces: Traces::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), GatewayError> {
        let bad =
            |option, expected, found: String| Err(GatewayError::Option { option, expected, found });
        if let Some(at) = self.metrics.filter(|at| !at.ip().is_loopback()) {
            return bad("metrics", "a loopback address", at.to_string());
        }
        if !self.control.starts_with("https://") {
            return bad("control", "https://host:port", self.control.clone());
        }
        let receive_maximum = self.terms.receive_maximum;
        if !(1..=1024).contains(&receive_maximum) {
            return bad("receive-maximum", "1 to 1024", receive_maximum.to_string());
        }
        if self.spool.remember < usize::from(receive_maximum) {
            let found = self.spool.remember.to_string();
            return bad("remember", "at least the receive maximum", found);
        }
        let keep_alive = self.terms.keep_alive_max_s;
        if !(5..=3600).contains(&keep_alive) {
            return bad("keep-alive-max-s", "5 to 3600", keep_alive.to_string());
        }
        if self.spool.bytes_max < 1 << 20 {
            return bad("spool-bytes", "at least 1 MiB", self.spool.bytes_max.to_string());
        }
        if self.connections_max == 0 {
            return bad("connections", "at least 1", "0".into());
        }
        Ok(())
    }
}
