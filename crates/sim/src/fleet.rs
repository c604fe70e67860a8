//! A site with gateways and devices, each a process of the product, with a recorder before each gateway.

use crate::process::{Process, Recorder, run_to_end, until};
use crate::recorder::{self, Ack};
use crate::timed::Timed;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const SITE: &str = "site";
pub const ZONE: &str = "hall";

/// Long enough for a loaded machine with two cores; every wait ends with its event, not with this. The longest is that for a
/// gateway that never gets well: 15 s until its 60 MB are there, 30 s of trial, and on such a machine half as much again.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How long a process may take to end after SIGTERM: a device tries for two seconds to send what it has.
const GOODBYE: Duration = Duration::from_secs(20);

/// How long a device that was told to move on may take to be heard elsewhere, before it is told again.
const MOVE: Duration = Duration::from_secs(5);

/// What a page of metrics may come to.
const METRICS_BYTES_MAX: u64 = 4 << 20;

const VIOLATIONS: &str = "plimsoll_invariant_violations_total";

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

/// An application that a device's agent runs out of its slots, and updates.
#[derive(Clone, Debug)]
pub struct Application {
    pub product: &'static str,
    pub version: &'static str,
    /// What the factory puts into the first slot.
    pub image: PathBuf,
    /// What the application is started with.
    pub args: Vec<String>,
    /// What the agent is told of it besides.
    pub more: Vec<String>,
}

/// The only kind of hardware that the fleet has.
pub const HARDWARE: &str = "plimsoll-linux-amd64";

#[derive(Debug)]
pub struct Fleet {
    pub data: PathBuf,
    pub ports: Ports,
    /// The vendor's image repository, if the site has one.
    repository: Option<PathBuf>,
    pub control: Process,
    pub gateways: Vec<Process>,
    pub recorders: Vec<Recorder>,
    pub devices: BTreeMap<String, Process>,
    /// After this moment nothing is waited for any more. `None`: each wait has its own end only.
    end: Option<Instant>,
    /// Violated invariants that processes had counted when they were killed.
    violations: f64,
}

/// What a fleet leaves when all of it has ended.
#[derive(Debug)]
pub struct Ended {
    pub acks: Vec<Ack>,
    /// Invariants that a gateway, the control plane or the store counted as violated.
    pub violations: f64,
}

impl Fleet {
    /// Makes a site in an empty directory and starts its control plane.
    pub fn found(data: &Path, ports: Ports) -> Result<Self> {
        Self::found_until(data, ports, None, None)
    }

    /// A fleet that is waited for until `end` at most, whatever it is asked to do. `repository`: of the vendor whose releases
    /// it installs.
    pub fn found_until(
        data: &Path,
        ports: Ports,
        repository: Option<&Path>,
        end: Option<Instant>,
    ) -> Result<Self> {
        std::fs::create_dir_all(data.join("logs"))?;
        let mut args =
            strings(&["control", "--data", path(data)?, "--port-base", &ports.0.to_string()]);
        if let Some(repository) = repository {
            let root = repository.join("metadata/1.root.json");
            args.extend(strings(&["--images", path(repository)?, "--image-root", path(&root)?]));
        }
        let control = Process::start("control", "plimsoll", &args, &data.join("logs/control.log"))?;
        let mut fleet = Self {
            data: data.to_owned(),
            ports,
            repository: repository.map(Path::to_owned),
            control,
            gateways: Vec::new(),
            recorders: Vec::new(),
            devices: BTreeMap::new(),
            end,
            violations: 0.0,
        };
        fleet.wait_for_control()?;
        Ok(fleet)
    }

    /// How long the next thing may be waited for.
    pub fn patience(&self) -> Duration {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        PATIENCE.min(left.unwrap_or(PATIENCE))
    }

    pub fn wait_for_control(&mut self) -> Result<()> {
        let token = self.data.join("site/api.token");
        until("the control plane serves", self.patience(), || {
            self.control.must_run()?;
            Ok(token.exists() && self.cli(&["device", "list"]).is_ok())
        })
    }

    pub fn wait_for_gateway(&mut self, number: usize) -> Result<()> {
        let places = [self.ports.gateway(number), self.ports.gateway_metrics(number)];
        let patience = self.patience();
        until(&format!("{} serves", gateway_name(number)), patience, || {
            self.gateways[number].must_run()?;
            Ok(places.iter().all(|place| Timed::connect(*place, patience).is_ok()))
        })
    }

    /// Runs the operator's command line against this site.
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        let mut args = words.to_vec();
        args.extend(["--data", path(&self.data)?]);
        run_to_end("plimsoll", &args, self.patience())
    }

    /// Admits, enrols and starts the next gateway, with its recorder in front.
    pub fn add_gateway(&mut self, control: SocketAddr) -> Result<()> {
        let (name, args) = self.make_gateway(control)?;
        let log = self.data.join(format!("logs/{name}.log"));
        self.gateways.push(Process::start(&name, "plimsoll-gateway", &args, &log)?);
        self.watch_gateway(&name)
    }

    /// The same on a box of its own, whose agent starts the gateway out of its slots and updates it: to end the agent is to
    /// end both. The box speaks through the first gateway.
    pub fn add_gateway_in_box(
        &mut self,
        control: SocketAddr,
        box_name: &str,
        application: &Application,
    ) -> Result<()> {
        let (name, args) = self.make_gateway(control)?;
        let application = Application { args, ..application.clone() };
        let agent = self.make_device(box_name, &Source::Host, &[0], Some(&application))?;
        let log = self.data.join(format!("logs/{box_name}.log"));
        self.gateways.push(Process::start(box_name, "plimsoll-agent", &agent, &log)?);
        self.watch_gateway(&name)
    }

    /// Admits the next gateway; its name, and what it is started with.
    fn make_gateway(&self, control: SocketAddr) -> Result<(String, Vec<String>)> {
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
        Ok((name, args))
    }

    /// Waits for the gateway that was started last, and puts its recorder in front of it.
    fn watch_gateway(&mut self, name: &str) -> Result<()> {
        let number = self.gateways.len() - 1;
        let dir = self.data.join("gateways").join(name);
        self.wait_for_gateway(number)?;
        self.recorders.push(Recorder::start(
            &strings(&[
                "--listen",
                &self.ports.recorder(number).to_string(),
                "--upstream",
                &self.ports.gateway(number).to_string(),
                "--gateway",
                name,
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
            self.patience(),
        )?);
        Ok(())
    }

    /// Admits, enrols and starts a device that prefers the gateways in the given order.
    pub fn add_device(
        &mut self,
        name: &str,
        source: &Source,
        gateways: &[usize],
        application: Option<&Application>,
    ) -> Result<()> {
        let args = self.make_device(name, source, gateways, application)?;
        let log = self.data.join(format!("logs/{name}.log"));
        self.devices.insert(name.to_owned(), Process::start(name, "plimsoll-agent", &args, &log)?);
        Ok(())
    }

    /// Admits a device, with an application in its first slot; what its agent is started with.
    fn make_device(
        &self,
        name: &str,
        source: &Source,
        gateways: &[usize],
        application: Option<&Application>,
    ) -> Result<Vec<String>> {
        let dir = self.device_dir(name);
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
        if let Some(application) = application {
            self.provision(&dir, application)?;
            args.extend(self.application_args(application)?);
        }
        Ok(args)
    }

    /// What a factory does: the first image.
    fn provision(&self, dir: &Path, application: &Application) -> Result<()> {
        let Application { product, version, image, .. } = application;
        let words = ["provision", "--data", path(dir)?, "--product", product];
        let of_image =
            ["--hardware", HARDWARE, "--release", version, "--security-version", "1", path(image)?];
        run_to_end("plimsoll-agent", &[&words[..], &of_image].concat(), self.patience())?;
        Ok(())
    }

    fn application_args(&self, application: &Application) -> Result<Vec<String>> {
        let repository = self.repository.as_ref().context("this site has no vendor")?;
        let mut args = strings(&[
            "--director-root",
            path(&self.data.join("director/1.root.json"))?,
            "--image-root",
            path(&repository.join("metadata/1.root.json"))?,
            "--app",
            application.product,
        ]);
        args.extend(application.args.iter().map(|arg| format!("--app-arg={arg}")));
        args.extend(application.more.iter().cloned());
        Ok(args)
    }

    pub fn device_dir(&self, name: &str) -> PathBuf {
        self.data.join("devices").join(name)
    }

    /// What a factory and an owner do: the device makes its key, the maker signs it, the owner lists it.
    fn make(&self, name: &str, dir: &Path, role: &str) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        let prepare = ["prepare", "--data", path(dir)?, "--serial", name];
        run_to_end("plimsoll-agent", &prepare, self.patience())?;
        let (csr, pem) = (dir.join("idevid.csr"), dir.join("idevid.pem"));
        self.cli(&["maker", "sign", "--csr", path(&csr)?, "--out", path(&pem)?])?;
        self.cli(&["enroll", "allow", name, "--role", role, "--zone", ZONE])?;
        Ok(())
    }

    pub fn device(&mut self, name: &str) -> &mut Process {
        self.devices.get_mut(name).expect("it was added")
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

    /// What a device was told that it is taken, by one gateway or by any.
    pub fn acks_of(&self, device: &str, gateway: Option<usize>) -> Result<Vec<Ack>> {
        let gateway = gateway.map(gateway_name);
        let mut acks = self.record()?;
        acks.retain(|ack| {
            let by = gateway.as_ref().is_none_or(|gateway| *gateway == ack.gateway);
            ack.took() && ack.device == device && by
        });
        Ok(acks)
    }

    /// Waits until a device has `more` acknowledged messages than now.
    pub fn wait_for_acks(&self, device: &str, gateway: Option<usize>, more: usize) -> Result<()> {
        let wanted = self.acks_of(device, gateway)?.len() + more;
        until(&format!("{more} more acknowledged messages of {device}"), self.patience(), || {
            Ok(self.acks_of(device, gateway)?.len() >= wanted)
        })
    }

    /// Has a device move on until a gateway has acknowledged `more` messages of it. A device that was just looking for a
    /// gateway by itself may pass by the one that it was sent to, and is sent again.
    pub fn move_to(&self, device: &str, gateway: usize, more: usize) -> Result<()> {
        let wanted = self.acks_of(device, Some(gateway))?.len() + more;
        let name = gateway_name(gateway);
        let mut sent: Option<Instant> = None;
        until(&format!("{device} is heard by {name}"), self.patience(), || {
            let acks = self.acks_of(device, None)?;
            let newest = acks.iter().max_by_key(|ack| (ack.sealed.epoch, ack.sealed.sequence));
            let is_there = newest.is_some_and(|ack| ack.gateway == name);
            if !is_there && sent.is_none_or(|at| at.elapsed() > MOVE) {
                self.devices[device].signal(Signal::HUP)?;
                sent = Some(Instant::now());
            }
            Ok(acks.iter().filter(|ack| ack.gateway == name).count() >= wanted)
        })
    }

    /// Has every recorder cut a device off (`pause`) or let it back (`resume`).
    pub fn order_recorders(&mut self, order: &str) -> Result<()> {
        let patience = self.patience();
        self.recorders.iter_mut().try_for_each(|recorder| recorder.order(order, patience))
    }

    /// A metric that a gateway shows.
    pub fn gateway_metric(&self, gateway: usize, name: &str) -> Result<f64> {
        let at = self.ports.gateway_metrics(gateway);
        let ask = || -> std::io::Result<String> {
            let mut socket = Timed::connect(at, self.patience())?;
            socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut text = String::new();
            socket.take(METRICS_BYTES_MAX).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = ask().with_context(|| format!("no metrics from {}", gateway_name(gateway)))?;
        metric(&text, name)
    }

    /// A metric that the control plane's process shows.
    pub fn control_metric(&self, name: &str) -> Result<f64> {
        metric(&self.cli(&["metrics"])?, name)
    }

    pub fn wait_for_empty_spool(&self, gateway: usize) -> Result<()> {
        until(
            &format!("{} has handed up its spool", gateway_name(gateway)),
            self.patience(),
            || Ok(self.gateway_metric(gateway, "plimsoll_gateway_spool_records")? == 0.0),
        )
    }

    /// Remembers what a gateway has counted: its count dies with it.
    pub fn keep_count_of_gateway(&mut self, gateway: usize) -> Result<()> {
        self.violations += self.gateway_metric(gateway, VIOLATIONS)?;
        Ok(())
    }

    /// Remembers what control plane and store have counted: their count dies with them.
    pub fn keep_count_of_control(&mut self) -> Result<()> {
        self.violations += self.control_metric(VIOLATIONS)?;
        Ok(())
    }

    /// Ends all of it so that nothing stays on its way: devices, then gateways once they have handed up everything,
    /// then the control plane.
    pub fn wind_up(&mut self) -> Result<Ended> {
        for device in self.devices.values() {
            device.signal(Signal::TERM)?;
        }
        let goodbye = GOODBYE.min(self.patience());
        self.devices.values_mut().try_for_each(|device| device.wait(goodbye))?;
        for gateway in 0..self.gateways.len() {
            self.wait_for_gateway(gateway)?;
            self.wait_for_empty_spool(gateway)?;
            self.keep_count_of_gateway(gateway)?;
        }
        self.keep_count_of_control()?;
        self.gateways.iter_mut().try_for_each(|gateway| gateway.end(goodbye))?;
        let patience = self.patience();
        self.control.end(patience)?;
        Ok(Ended { acks: self.record()?, violations: self.violations })
    }
}

/// The sum of all samples whose name and labels begin with `name`. Without labels there must be one: a metric that is
/// called otherwise by now is not one that stands at 0. With labels there may be none as yet.
pub fn metric(text: &str, name: &str) -> Result<f64> {
    let of_name = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{', ',', '}']))
    };
    let mut samples = text.lines().filter(of_name).peekable();
    ensure!(name.contains('{') || samples.peek().is_some(), "nobody shows the metric {name}");
    samples
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_nobody_shows_is_no_zero() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\nab 5\nb 0\n";
        assert_eq!(metric(text, "a").unwrap(), 7.0);
        assert_eq!(metric(text, "a{x=\"1\"").unwrap(), 3.0);
        assert_eq!(metric(text, "a{x=\"9\"").unwrap(), 0.0);
        assert_eq!(metric(text, "b").unwrap(), 0.0);
        assert_eq!(metric(text, "c").unwrap_err().to_string(), "nobody shows the metric c");
    }
}
