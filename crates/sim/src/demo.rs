//! `make demo`: two gateways, thirty devices, and a bad day.

use crate::client::publish_once;
use crate::fleet::{Fleet, PATIENCE, Ports, SITE, Source, gateway_name};
use crate::link::Link;
use crate::message::Sealed;
use crate::process::{run_to_end, until};
use crate::promises::{self, Comparison, Line};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where the demo's site lies; it must not exist yet. Without it: a directory of its own, removed when all held.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The first of the loopback ports that the demo uses.
    #[arg(long, default_value_t = 19800)]
    port_base: u16,
    /// How many devices.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(6..=200))]
    devices: u16,
    /// The recording that half of the devices play.
    #[arg(long, default_value = "recordings/host.csv")]
    recording: PathBuf,
}

pub fn run(options: &Options) -> Result<bool> {
    let own = options.data.is_none();
    let data = match &options.data {
        Some(data) => data.clone(),
        None => std::env::temp_dir().join(format!("plimsoll-demo-{}", std::process::id())),
    };
    ensure!(!data.exists(), "{} exists: the demo starts from nothing", data.display());
    std::fs::create_dir_all(&data)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let kept = Demo::new(options, &data, runtime.handle())?.play()?;
    if own && kept {
        std::fs::remove_dir_all(&data)?;
    } else {
        println!("  everything is left in {}", data.display());
    }
    Ok(kept)
}

struct Demo {
    start: Instant,
    fleet: Fleet,
    links: Vec<Link>,
    names: Vec<String>,
    lines: Vec<Line>,
    kills: u32,
}

impl Demo {
    fn new(options: &Options, data: &Path, runtime: &tokio::runtime::Handle) -> Result<Self> {
        let start = Instant::now();
        let recording = options.recording.canonicalize().with_context(|| {
            format!(
                "no recording {}: run the demo in the project's directory",
                options.recording.display()
            )
        })?;
        let ports = Ports(options.port_base);
        say(start, "a site is founded: its CA, its keys, control plane, bus and store");
        let mut demo = Self {
            start,
            fleet: Fleet::found(data, ports)?,
            links: Vec::new(),
            names: (1..=options.devices).map(|n| format!("dev-{n:02}")).collect(),
            lines: Vec::new(),
            kills: 0,
        };
        demo.say(
            "two gateways enrol, each behind a wire that can be cut and a recorder of every PUBACK",
        );
        for gateway in 0..2 {
            demo.links.push(runtime.block_on(Link::lay(ports.link(gateway), ports.control()))?);
            demo.fleet.add_gateway(ports.link(gateway))?;
        }
        demo.say(&format!(
            "{} devices are made, listed, enrolled: half measure this host, half play a recording",
            options.devices
        ));
        for (i, name) in demo.names.iter().enumerate() {
            let source = match i % 2 {
                0 => Source::Host,
                _ => Source::Replay { file: recording.clone(), speed: 2 },
            };
            demo.fleet.add_device(name, &source, if i % 3 == 2 { &[1, 0] } else { &[0, 1] })?;
        }
        Ok(demo)
    }

    fn play(mut self) -> Result<bool> {
        self.everybody_is_heard()?;
        self.a_device_roams()?;
        self.a_gateway_is_cut_off()?;
        self.a_recorded_message_is_replayed()?;
        self.things_are_killed()?;
        self.a_key_is_rotated()?;
        self.all_ends()
    }

    fn say(&self, what: &str) {
        say(self.start, what);
    }

    fn promise(&mut self, promise: &'static str, held: bool, figures: String) {
        self.lines.push(Line { promise, held, figures });
    }

    fn everybody_is_heard(&mut self) -> Result<()> {
        until("every device has three acknowledged messages", PATIENCE, || {
            let acks = self.fleet.record()?;
            let heard = |name: &String| {
                acks.iter().filter(|ack| ack.device == *name && ack.reason == 0).count() >= 3
            };
            Ok(self.names.iter().all(heard))
        })?;
        let devices = self.count("select count(distinct device) from readings")?;
        self.say(&format!(
            "SQL sees {devices} devices and {} readings",
            self.count("select count(*) from readings")?
        ));
        let held = devices as usize == self.names.len();
        self.promise(
            "every device's readings answer SQL while they are fresh",
            held,
            format!("{devices} devices"),
        );
        Ok(())
    }

    fn a_device_roams(&mut self) -> Result<()> {
        let roamer = self.names[0].clone();
        self.say(&format!("{roamer} roams from gw-1 to gw-2"));
        self.fleet.devices[&roamer].signal(Signal::HUP)?;
        self.fleet.wait_for_acks(&roamer, Some(1), 3)?;
        let (first, second) =
            (self.fleet.acked(&roamer, Some(0))?, self.fleet.acked(&roamer, Some(1))?);
        let figures = format!("{first} messages by gw-1, {second} by gw-2");
        self.promise(
            "a device that roams is heard by both gateways",
            first > 0 && second > 0,
            figures,
        );
        Ok(())
    }

    fn a_gateway_is_cut_off(&mut self) -> Result<()> {
        let mover = self.names[1].clone();
        self.say("gw-1 is cut off from the control plane; its devices go on");
        self.links[0].cut();
        self.fleet.wait_for_acks(&mover, Some(0), 3)?;
        self.say(&format!("{mover} moves on to gw-2; what gw-1 acknowledged is only in its spool"));
        self.fleet.devices[&mover].signal(Signal::HUP)?;
        self.fleet.wait_for_acks(&mover, Some(1), 3)?;
        let spooled = self.fleet.gateway_metric(0, "plimsoll_gateway_spool_records")?;
        self.say(&format!("gw-1 comes back with {spooled} messages in its spool"));
        self.links[0].mend();
        self.wait_for_empty_spool(0)?;
        let figures = format!("{spooled} messages waited, all handed up after the cut");
        self.promise("a gateway that was cut off hands up its spool", spooled > 0.0, figures);
        Ok(())
    }

    fn a_recorded_message_is_replayed(&mut self) -> Result<()> {
        let (victim, thief) = (self.names[3].clone(), self.names[4].clone());
        self.say(&format!("a recorded message of {victim} is replayed: by {thief}, and by one who holds {victim}'s TLS key"));
        let message = std::fs::read(self.fleet.data.join(format!("{victim}.last")))?;
        let by_another = self.publish(1, &thief, &thief, &message)?;
        let to_anothers_topic = self.publish(1, &thief, &victim, &message)?;
        let before = self.repeats()?;
        let by_itself = self.publish(1, &victim, &victim, &message)?;
        until("the replayed message is refused behind the gateway", PATIENCE, || {
            Ok(self.repeats()? > before)
        })?;
        let counter = Sealed::read(&message)?;
        let rows = self.count(&format!(
            "select count(*) from readings where key = '{}' and epoch = {} and sequence = {}",
            counter.key, counter.epoch, counter.sequence
        ))?;
        let held =
            by_another >= 0x80 && to_anothers_topic >= 0x80 && rows as usize == counter.readings;
        let figures = format!(
            "by another: PUBACK {by_another:#04x}; to another's topic: {to_anothers_topic:#04x}; at the other gateway with the \
             stolen TLS key: PUBACK {by_itself:#04x}, then dropped as a repeat: {rows} rows of {} readings",
            counter.readings
        );
        self.promise("a replayed message takes no effect", held, figures);
        Ok(())
    }

    /// Messages that were known already: uplink remembers the newest, the store all of them.
    fn repeats(&self) -> Result<f64> {
        let by_uplink = "plimsoll_uplink_records_total{reason=\"\",verdict=\"known\"";
        let by_store = "plimsoll_ingest_messages_total{outcome=\"repeat\"";
        Ok(self.fleet.control_metric(by_uplink)? + self.fleet.control_metric(by_store)?)
    }

    fn publish(
        &self,
        gateway: usize,
        as_device: &str,
        topic_of: &str,
        message: &[u8],
    ) -> Result<u8> {
        let dir = self.fleet.data.join("devices").join(as_device);
        let topic = format!("plimsoll/1/{topic_of}/up");
        let (at, name) = (self.fleet.ports.gateway(gateway), gateway_name(gateway));
        publish_once(at, &name, SITE, &dir, &self.fleet.site_ca(), &topic, message)
    }

    fn things_are_killed(&mut self) -> Result<()> {
        for name in self.names[5..].iter().step_by(7).take(3).cloned().collect::<Vec<_>>() {
            self.say(&format!("{name} gets SIGKILL and starts again"));
            let device = self.fleet.devices.get_mut(&name).expect("it was added");
            device.kill()?;
            device.start_again()?;
            self.kills += 1;
            self.fleet.wait_for_acks(&name, None, 2)?;
        }
        self.say("gw-2 gets SIGKILL and starts again");
        self.fleet.gateways[1].kill()?;
        self.fleet.gateways[1].start_again()?;
        self.say("the control plane, bus and store get SIGKILL and start again");
        self.fleet.control.kill()?;
        self.fleet.control.start_again()?;
        self.kills += 2;
        self.fleet.wait_for_control()?;
        for name in [self.names[2].clone(), self.names[0].clone()] {
            self.fleet.wait_for_acks(&name, None, 3)?;
        }
        let figures = format!("{} SIGKILLs: 3 devices, 1 gateway, 1 control plane", self.kills);
        self.promise("after SIGKILL each goes on where it was", true, figures);
        Ok(())
    }

    fn a_key_is_rotated(&mut self) -> Result<()> {
        let name = self.names[4].clone();
        self.say(&format!(
            "{name} loses sight of its gateways, and rotates its key while messages wait"
        ));
        for recorder in &mut self.fleet.recorders {
            recorder.order(&format!("pause {name}"))?;
        }
        let before: HashSet<String> = self.keys_of(&name)?;
        let acked_before = self.fleet.acked(&name, None)?;
        let waiting_at_first = self.backlog_of(&name)?;
        until("messages wait in the backlog under the old key", PATIENCE, || {
            Ok(self.backlog_of(&name)? >= waiting_at_first + 3)
        })?;
        self.fleet.devices[&name].signal(Signal::USR1)?;
        until("the device seals under a new key", PATIENCE, || {
            Ok(!before.contains(&self.seal_key_of(&name)?))
        })?;
        let waiting = self.backlog_of(&name)?;
        until("messages wait under the new key too", PATIENCE, || {
            Ok(self.backlog_of(&name)? >= waiting + 3)
        })?;
        for recorder in &mut self.fleet.recorders {
            recorder.order(&format!("resume {name}"))?;
        }
        until("messages of the new key are acknowledged", PATIENCE, || {
            Ok(self.keys_of(&name)?.len() > before.len())
        })?;
        let acks = self.fleet.record()?;
        let of_device = acks.iter().filter(|ack| ack.device == name && ack.reason == 0);
        let old =
            of_device.skip(acked_before).filter(|ack| before.contains(&ack.sealed.key)).count();
        let figures = format!("{old} messages of the old key were acknowledged after the rotation");
        self.promise("what waits under an old key outlives its rotation", old >= 3, figures);
        Ok(())
    }

    /// Keys under which a device's messages were acknowledged.
    fn keys_of(&self, device: &str) -> Result<HashSet<String>> {
        let acks = self.fleet.record()?;
        Ok(acks
            .into_iter()
            .filter(|ack| ack.device == device && ack.reason == 0)
            .map(|ack| ack.sealed.key)
            .collect())
    }

    fn seal_key_of(&self, device: &str) -> Result<String> {
        let status = self.status_of(device)?;
        Ok(status["seal_key"].as_str().context("no seal_key in the status")?.to_owned())
    }

    /// How many messages a device has sealed and made durable in its life.
    fn backlog_of(&self, device: &str) -> Result<u64> {
        self.status_of(device)?["backlog"]["end"].as_u64().context("no backlog.end in the status")
    }

    fn status_of(&self, device: &str) -> Result<serde_json::Value> {
        let dir = self.fleet.data.join("devices").join(device);
        let dir = crate::fleet::path(&dir)?;
        let text = run_to_end("plimsoll-agent", &["status", "--data", dir, "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("not a status: {text}"))
    }

    fn wait_for_empty_spool(&self, gateway: usize) -> Result<()> {
        until(&format!("{} has handed up its spool", gateway_name(gateway)), PATIENCE, || {
            Ok(self.fleet.gateway_metric(gateway, "plimsoll_gateway_spool_records")? == 0.0)
        })?;
        Ok(())
    }

    fn count(&self, sql: &str) -> Result<u64> {
        let text = self.fleet.cli(&["query", sql, "--format", "csv"])?;
        let cell = text.lines().nth(1).with_context(|| format!("no row in {text:?}"))?;
        cell.trim().parse().with_context(|| format!("not a number: {cell:?}"))
    }

    fn all_ends(mut self) -> Result<bool> {
        self.say("devices end cleanly, then gateways hand up the rest, then everything else ends");
        let limit = Duration::from_secs(20);
        for device in self.fleet.devices.values() {
            device.signal(Signal::TERM)?;
        }
        for device in self.fleet.devices.values_mut() {
            device.wait(limit)?;
        }
        for gateway in 0..2 {
            self.wait_for_empty_spool(gateway)?;
        }
        self.lines.push(promises::invariants(&self.fleet)?);
        let acks = self.fleet.record()?;
        for gateway in &mut self.fleet.gateways {
            gateway.end(limit)?;
        }
        self.fleet.control.end(PATIENCE)?;
        if acks.is_empty() {
            bail!("nothing was acknowledged");
        }
        self.say("no process runs any more; the record is compared with the files of the store");
        let comparison = Comparison::of(&acks, &self.fleet.data.join("store"))?;
        let mut lines = vec![
            comparison.exactly_once(),
            comparison.in_order(),
            comparison.quarantine_explained(&[]),
        ];
        lines.append(&mut self.lines);
        Ok(promises::print(&lines))
    }
}

fn say(start: Instant, what: &str) {
    println!("  {:>5.1} s  {what}", start.elapsed().as_secs_f64());
}
