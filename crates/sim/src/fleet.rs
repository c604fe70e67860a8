//! A site with gateways and devices, each a process of the product, with a recorder before each gateway.

use crate::process::{Process, Recorder, run_to_end, until};
use crate::recorder::{self, Ack};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const SITE: &str = "site";
pub const ZONE: &str = "hall";

/// Long enough for a loaded machine with two cores; every wait ends with its event, not with this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Which ports of loopback a site uses, from its base on.
#[derive(Clone, Copy, Debug)]
pub struct Ports(pub u16);

impl Ports {
    pub fn control(self) -> SocketAddr {
        loopback(self.0)
    }

    /// The wire from a gateway to control, which can be cut.
    pub fn link(self, gateway: usize) -> SocketAddr {
        loopback(self.0 + 20 + gateway as u16)
    }

    pub fn gateway(self, gateway: usize) -> SocketAddr {
        loopback(self.0 + 1 + 2 * gateway as u16)
    }

    pub fn gateway_metrics(self, gateway: usize) -> SocketAddr {
        loopback(self.0 + 2 + 2 * gateway as u16)
    }

    pub fn recorder(self, gateway: usize) -> SocketAddr {
        loopback(self.0 + 30 + gateway as u16)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub fn gateway_name(gateway: usize) -> String {
    format!("gw-{}", gateway + 1)
}

/// What a device measures.
#[derive(Clone, Debug)]
pub enum Source {
    /// The host that the demo runs on.
    Host,
    /// A recording, played again and again at its own pace times `speed`.
    Replay { file: PathBuf, speed: u32 },
}

#[derive(Debug)]
pub struct Fleet {
    pub data: PathBuf,
    pub ports: Ports,
    pub control: Process,
    pub gateways: Vec<Process>,
    pub recorders: Vec<Recorder>,
    pub devices: BTreeMap<String, Process>,
}

impl Fleet {
    /// Makes a site in an empty directory and starts its control plane.
    pub fn found(data: &Path, ports: Ports) -> Result<Self> {
        std::fs::create_dir_all(data.join("logs"))?;
        let args =
            strings(&["control", "--data", path(data)?, "--port-base", &ports.0.to_string()]);
        let control = Process::start("control", "plimsoll", &args, &data.join("logs/control.log"))?;
        let mut fleet = Self {
            data: data.to_owned(),
            ports,
            control,
            gateways: Vec::new(),
            recorders: Vec::new(),
            devices: BTreeMap::new(),
        };
        fleet.wait_for_control()?;
        Ok(fleet)
    }

    pub fn wait_for_control(&mut self) -> Result<()> {
        let token = self.data.join("site/api.token");
        until("control serves", PATIENCE, || {
            self.control.must_run()?;
            Ok(token.exists() && self.cli(&["device", "list"]).is_ok())
        })?;
        Ok(())
    }

    /// Runs the operator's command line against this site.
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        let mut args = words.to_vec();
        args.extend(["--data", path(&self.data)?]);
        run_to_end("plimsoll", &args)
    }

    /// Admits, enrols and starts the next gateway, with its recorder in front.
    pub fn add_gateway(&mut self, control: SocketAddr) -> Result<()> {
        let number = self.gateways.len();
        let name = gateway_name(number);
        let dir = self.data.join("gateways").join(&name);
        self.make(&name, &dir, "gateway")?;
        let args = strings(&[
            "run",
            "--data",
            path(&dir)?,
            "--name",
            &name,
            "--listen",
            &self.ports.gateway(number).to_string(),
            "--metrics",
            &self.ports.gateway_metrics(number).to_string(),
            "--control",
            &format!("https://{control}"),
            "--site-ca",
            path(&self.site_ca())?,
        ]);
        let log = self.data.join(format!("logs/{name}.log"));
        let mut gateway = Process::start(&name, "plimsoll-gateway", &args, &log)?;
        until(&format!("{name} serves"), PATIENCE, || {
            gateway.must_run()?;
            Ok(TcpStream::connect(self.ports.gateway(number)).is_ok())
        })?;
        self.gateways.push(gateway);
        self.recorders.push(Recorder::start(
            &strings(&[
                "--listen",
                &self.ports.recorder(number).to_string(),
                "--upstream",
                &self.ports.gateway(number).to_string(),
                "--gateway",
                &name,
                "--gateway-dir",
                path(&dir)?,
                "--devices",
                path(&self.data.join("devices"))?,
                "--site-ca",
                path(&self.site_ca())?,
                "--out",
                path(&self.record_file(number))?,
            ]),
            &self.data.join(format!("logs/recorder-{}.log", number + 1)),
        )?);
        Ok(())
    }

    /// Admits, enrols and starts a device that prefers the gateways in the given order.
    pub fn add_device(&mut self, name: &str, source: &Source, gateways: &[usize]) -> Result<()> {
        let dir = self.data.join("devices").join(name);
        self.make(name, &dir, "device")?;
        let mut args = strings(&[
            "run",
            "--data",
            path(&dir)?,
            "--est",
            &format!("https://{}", self.ports.control()),
            "--site-ca",
            path(&self.site_ca())?,
        ]);
        for gateway in gateways {
            args.push("--gateway".into());
            args.push(format!("{}@{}", gateway_name(*gateway), self.ports.recorder(*gateway)));
        }
        match source {
            Source::Host => args.extend(strings(&["--source", "host"])),
            Source::Replay { file, speed } => args.extend(strings(&[
                "--replay",
                path(file)?,
                "--as-of",
                "now",
                "--speed",
                &speed.to_string(),
                "--loop",
            ])),
        }
        let log = self.data.join(format!("logs/{name}.log"));
        self.devices.insert(name.to_owned(), Process::start(name, "plimsoll-agent", &args, &log)?);
        Ok(())
    }

    /// What a factory and an owner do: the device makes its key, the maker signs it, the owner lists it.
    fn make(&self, name: &str, dir: &Path, role: &str) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        run_to_end("plimsoll-agent", &["prepare", "--data", path(dir)?, "--serial", name])?;
        let (csr, pem) = (dir.join("idevid.csr"), dir.join("idevid.pem"));
        self.cli(&["maker", "sign", "--csr", path(&csr)?, "--out", path(&pem)?])?;
        self.cli(&["enroll", "allow", name, "--role", role, "--zone", ZONE])?;
        Ok(())
    }

    pub fn site_ca(&self) -> PathBuf {
        self.data.join("site/ca.pem")
    }

    pub fn record_file(&self, gateway: usize) -> PathBuf {
        self.data.join(format!("record-{}", gateway_name(gateway)))
    }

    /// Every PUBACK so far, gateway by gateway.
    pub fn record(&self) -> Result<Vec<Ack>> {
        let mut acks = Vec::new();
        for gateway in 0..self.recorders.len() {
            acks.extend(recorder::read(&self.record_file(gateway))?);
        }
        Ok(acks)
    }

    /// How many messages of a device were acknowledged, by one gateway or by any.
    pub fn acked(&self, device: &str, gateway: Option<usize>) -> Result<usize> {
        let gateway = gateway.map(gateway_name);
        let counts = |ack: &&Ack| {
            ack.device == device
                && ack.reason == 0
                && gateway.as_ref().is_none_or(|g| *g == ack.gateway)
        };
        Ok(self.record()?.iter().filter(counts).count())
    }

    /// Waits until a device has `more` acknowledged messages than now.
    pub fn wait_for_acks(&self, device: &str, gateway: Option<usize>, more: usize) -> Result<()> {
        let wanted = self.acked(device, gateway)? + more;
        until(&format!("{more} more acknowledged messages of {device}"), PATIENCE, || {
            Ok(self.acked(device, gateway)? >= wanted)
        })?;
        Ok(())
    }

    /// The value of a metric that a gateway shows; 0 while it has none.
    pub fn gateway_metric(&self, gateway: usize, name: &str) -> Result<f64> {
        let mut socket = TcpStream::connect(self.ports.gateway_metrics(gateway))?;
        socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        metric(&text, name)
    }

    /// The sum of a metric that the control plane's process shows, over all labels.
    pub fn control_metric(&self, name: &str) -> Result<f64> {
        metric(&self.cli(&["metrics"])?, name)
    }
}

/// The sum of all samples whose name and labels begin with `name`.
pub fn metric(text: &str, name: &str) -> Result<f64> {
    text.lines()
        .filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{', ',', '}']))
        })
        .map(|line| {
            let value = line.rsplit(' ').next().unwrap_or_default();
            value.parse::<f64>().with_context(|| format!("not a sample: {line}"))
        })
        .sum()
}

pub fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
