//! `make demo`: two gateways, thirty devices, and a bad day; then releases that are good, sick, and bad.

mod updates;

use crate::client::publish_once;
use crate::fleet::{Fleet, Ports, SITE, gateway_name};
use crate::link::Link;
use crate::message::Sealed;
use crate::process::{run_to_end, until};
use crate::promises::{self, Comparison, Kill, Line, Victim};
use crate::rollouts::{self, Releases};
use crate::{fleet, scan};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

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
    /// The demo must be over so many seconds after its start; otherwise it says what it waited for, and fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 420)]
    within: u64,
}

pub fn run(options: &Options) -> Result<bool> {
    let start = Instant::now();
    let own = std::env::temp_dir().join(format!("plimsoll-demo-{}", std::process::id()));
    let data = options.data.as_ref().unwrap_or(&own);
    ensure!(!data.exists(), "{} exists: the demo starts from nothing", data.display());
    let recording = options.recording.canonicalize().with_context(|| {
        let name = options.recording.display();
        format!("no recording {name}: run the demo in the project's directory")
    })?;
    let within = Duration::from_secs(options.within);
    std::fs::create_dir_all(data)?;
    say(start, "a vendor makes its keys, and publishes 1.0 of an application and of the gateway");
    let releases = Releases::make(data, within)?;
    say(start, "a site is founded: its CA, its keys, control plane, bus and store");
    let repository = releases.vendor.repository();
    let end = Some(start + within);
    let mut demo = Demo {
        start,
        within,
        recording,
        fleet: Fleet::found_until(data, Ports(options.port_base), Some(&repository), end)?,
        releases,
        runtime: tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?,
        links: Vec::new(),
        names: (1..=options.devices).map(|n| format!("dev-{n:02}")).collect(),
        lines: Vec::new(),
        kills: Vec::new(),
    };
    let played = demo.play();
    if played.is_err() {
        println!("\n  It ends here. So far:");
    }
    let kept = promises::print(&demo.lines);
    // No process is left when the last word is said.
    drop(demo);
    let held = played.is_ok() && kept;
    if options.data.is_none() && held {
        std::fs::remove_dir_all(data)?;
    } else {
        println!("  everything is left in {}", data.display());
    }
    played.map(|()| held).with_context(|| match start.elapsed() < within {
        true => "the demo could not go on".to_owned(),
        false => format!("the demo was not over {} s after its start", options.within),
    })
}

struct Demo {
    start: Instant,
    within: Duration,
    recording: PathBuf,
    fleet: Fleet,
    releases: Releases,
    /// What carries the links.
    runtime: Runtime,
    links: Vec<Link>,
    names: Vec<String>,
    lines: Vec<Line>,
    kills: Vec<Kill>,
}

impl Demo {
    fn play(&mut self) -> Result<()> {
        self.a_fleet_comes_up()?;
        self.everybody_is_heard()?;
        self.a_device_roams()?;
        self.a_gateway_is_cut_off()?;
        self.a_recorded_message_is_replayed()?;
        self.things_are_killed()?;
        self.a_key_is_rotated()?;
        self.releases_go_out()?;
        self.everything_ends()
    }

    fn say(&self, what: &str) {
        say(self.start, what);
    }

    fn promise(&mut self, promise: &'static str, held: bool, figures: String) {
        self.lines.push(Line { promise, held, figures });
    }

    fn a_fleet_comes_up(&mut self) -> Result<()> {
        self.say(
            "two gateways enrol, each behind a wire that can be cut and a recorder of every PUBACK",
        );
        for gateway in 0..2 {
            let (near, far) = (self.fleet.ports.link(gateway), self.fleet.ports.control());
            self.links.push(self.runtime.block_on(Link::lay(near, far))?);
            match gateway {
                0 => self.fleet.add_gateway(near)?,
                _ => {
                    let metrics = self.fleet.ports.gateway_metrics(gateway);
                    let health = rollouts::health_script(&self.fleet.data, metrics)?;
                    let first = self
                        .releases
                        .first(rollouts::GATEWAY, vec![health, "--app-is-silent".into()])?;
                    self.fleet.add_gateway_in_box(near, rollouts::BOX, &first)?;
                }
            }
        }
        self.say(&format!(
            "{} devices are made, listed, enrolled: half measure this host, half play a recording",
            self.names.len()
        ));
        let first = self.releases.first(rollouts::PUMP, Vec::new())?;
        for (i, name) in self.names.iter().enumerate() {
            let gateways = if i % 3 == 2 { &[1, 0] } else { &[0, 1] };
            let source = updates::source(i, &self.recording);
            self.fleet.add_device(name, &source, gateways, Some(&first))?;
        }
        self.releases.delete_builds()
    }

    fn everybody_is_heard(&mut self) -> Result<()> {
        until("every device has three acknowledged messages", self.fleet.patience(), || {
            let acks = self.fleet.record()?;
            let heard = |name: &String| {
                acks.iter().filter(|ack| ack.device == *name && ack.took()).count() >= 3
            };
            Ok(self.names.iter().all(heard))
        })?;
        let (mut devices, mut readings, mut in_files) = (0, 0, 0);
        until(
            "SQL sees every device, and more than the files hold",
            self.fleet.patience(),
            || {
                devices = self.count(
                    "select count(distinct device) from readings where device like 'dev-%'",
                )? as usize;
                readings = self.count("select count(*) from readings")? as usize;
                // Looked at afterwards: what was in no file even now was fresh when SQL was asked.
                in_files = scan::readings(&self.fleet.data.join("store"))?.len();
                Ok(devices >= self.names.len() && in_files < readings)
            },
        )?;
        self.say(&format!("SQL sees {devices} devices and {readings} readings"));
        let figures = format!(
            "{devices} devices; of {readings} readings {} were in no file yet",
            readings - in_files
        );
        let held = devices == self.names.len();
        self.promise("every device's readings answer SQL while they are fresh", held, figures);
        Ok(())
    }

    fn a_device_roams(&mut self) -> Result<()> {
        let roamer = self.names[0].clone();
        self.say(&format!("{roamer} roams from gw-1 to gw-2"));
        self.fleet.move_to(&roamer, 1, 3)?;
        let by =
            |gateway| Ok::<_, anyhow::Error>(self.fleet.acks_of(&roamer, Some(gateway))?.len());
        let (first, second) = (by(0)?, by(1)?);
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
        self.fleet.move_to(&mover, 1, 3)?;
        let spooled = self.fleet.gateway_metric(0, "plimsoll_gateway_spool_records")?;
        self.say(&format!("gw-1 comes back with {spooled} messages in its spool"));
        self.links[0].mend();
        self.fleet.wait_for_empty_spool(0)?;
        let figures = format!("{spooled} messages waited, all handed up after the cut");
        self.promise("a gateway that was cut off hands up its spool", spooled > 0.0, figures);
        Ok(())
    }

    fn a_recorded_message_is_replayed(&mut self) -> Result<()> {
        let (victim, thief) = (self.names[3].clone(), self.names[4].clone());
        self.say(&format!("a recorded message of {victim} is replayed: by {thief}, and by one who holds {victim}'s TLS key"));
        let message = std::fs::read(self.fleet.data.join(format!("{victim}.last")))?;
        let sealed = Sealed::read(&message)?;
        ensure!(sealed.readings > 0, "the recorded message of {victim} carries no reading");
        until("the recorded message answers SQL", self.fleet.patience(), || {
            Ok(self.rows_of(&sealed)? > 0)
        })?;
        let by_another = self.publish(1, &thief, &thief, &message)?;
        let to_anothers_topic = self.publish(1, &thief, &victim, &message)?;
        let before = self.repeats()?;
        let by_itself = self.publish(1, &victim, &victim, &message)?;
        until("the replayed message is refused behind the gateway", self.fleet.patience(), || {
            Ok(self.repeats()? > before)
        })?;
        let rows = self.rows_of(&sealed)?;
        let held = by_another >= 0x80 && to_anothers_topic >= 0x80 && rows == sealed.readings;
        let figures = format!(
            "stored once: {rows} rows of {} readings\
             \n      by {thief}: PUBACK {by_another:#04x}; by {thief} to the topic of {victim}: PUBACK {to_anothers_topic:#04x}\
             \n      by the thief of {victim}'s TLS key, at the other gateway: PUBACK {by_itself:#04x}, then dropped as a repeat",
            sealed.readings
        );
        self.promise("a replayed message takes no effect", held, figures);
        Ok(())
    }

    fn rows_of(&self, message: &Sealed) -> Result<usize> {
        let Sealed { key, epoch, sequence, .. } = message;
        let counter = format!("key = '{key}' and epoch = {epoch} and sequence = {sequence}");
        Ok(self.count(&format!("select count(*) from readings where {counter}"))? as usize)
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
            self.a_device_is_killed(name)?;
        }
        self.a_gateway_is_killed(1)?;
        self.the_control_plane_is_killed()
    }

    fn a_device_is_killed(&mut self, name: String) -> Result<()> {
        self.say(&format!("{name} gets SIGKILL and starts again"));
        self.fleet.device(&name).kill()?;
        let before = self.fleet.record()?;
        self.fleet.device(&name).start_again()?;
        let what = format!("{name} goes on in a higher epoch");
        let mut kill = Kill { victim: Victim::Device(name), before, after: Vec::new() };
        until(&what, self.fleet.patience(), || {
            kill.after = self.fleet.record()?;
            Ok(kill.begun().is_some())
        })?;
        self.kills.push(kill);
        Ok(())
    }

    fn a_gateway_is_killed(&mut self, number: usize) -> Result<()> {
        let gateway = gateway_name(number);
        let witness = self.with_another_than(&gateway)?;
        self.say(&format!("{gateway} gets SIGKILL and starts again; {witness} comes to it"));
        self.fleet.keep_count_of_gateway(number)?;
        self.fleet.gateways[number].kill()?;
        let before = self.fleet.record()?;
        self.fleet.gateways[number].start_again()?;
        self.fleet.wait_for_gateway(number)?;
        self.fleet.move_to(&witness, number, 3)?;
        let after = self.fleet.record()?;
        self.kills.push(Kill { victim: Victim::Gateway { gateway, witness }, before, after });
        Ok(())
    }

    fn the_control_plane_is_killed(&mut self) -> Result<()> {
        self.say("the control plane, bus and store get SIGKILL and start again");
        self.fleet.keep_count_of_control()?;
        self.fleet.control.kill()?;
        let before = self.fleet.record()?;
        self.fleet.control.start_again()?;
        self.fleet.wait_for_control()?;
        for name in [&self.names[2], &self.names[0]] {
            self.fleet.wait_for_acks(name, None, 3)?;
        }
        let after = self.fleet.record()?;
        self.kills.push(Kill { victim: Victim::Control, before, after });
        Ok(())
    }

    /// A device of which the newest message was acknowledged by another gateway.
    fn with_another_than(&self, gateway: &str) -> Result<String> {
        let acks = self.fleet.record()?;
        let is_elsewhere = |name: &&String| {
            let of_device = acks.iter().filter(|ack| ack.device == **name && ack.took());
            let newest = of_device.max_by_key(|ack| (ack.sealed.epoch, ack.sealed.sequence));
            newest.is_some_and(|ack| ack.gateway != gateway)
        };
        let found = self.names.iter().find(is_elsewhere);
        Ok(found.with_context(|| format!("every device is with {gateway}"))?.clone())
    }

    fn a_key_is_rotated(&mut self) -> Result<()> {
        let name = self.names[4].clone();
        self.say(&format!(
            "{name} loses sight of its gateways, and rotates its key while messages wait"
        ));
        self.fleet.order_recorders(&format!("pause {name}"))?;
        let of_device = |fleet: &Fleet| -> Result<HashSet<Sealed>> {
            Ok(fleet.acks_of(&name, None)?.into_iter().map(|ack| ack.sealed).collect())
        };
        let before = of_device(&self.fleet)?;
        let old_keys: HashSet<&str> = before.iter().map(|sealed| sealed.key.as_str()).collect();
        let sealed_at_first = self.sealed_by(&name)?;
        until("messages wait under the old key", self.fleet.patience(), || {
            Ok(self.sealed_by(&name)? >= sealed_at_first + 3)
        })?;
        self.fleet.devices[&name].signal(Signal::USR1)?;
        until("the device seals under a new key", self.fleet.patience(), || {
            Ok(!old_keys.contains(self.seal_key_of(&name)?.as_str()))
        })?;
        let sealed_at_rotation = self.sealed_by(&name)?;
        until("messages wait under the new key too", self.fleet.patience(), || {
            Ok(self.sealed_by(&name)? >= sealed_at_rotation + 3)
        })?;
        self.fleet.order_recorders(&format!("resume {name}"))?;
        let mut since = HashSet::new();
        until("messages of the new key are acknowledged", self.fleet.patience(), || {
            since = &of_device(&self.fleet)? - &before;
            Ok(since.iter().any(|sealed| !old_keys.contains(sealed.key.as_str())))
        })?;
        let old = since.iter().filter(|sealed| old_keys.contains(sealed.key.as_str())).count();
        let figures = format!("{old} messages of the old key were acknowledged after the rotation");
        self.promise("what waits under an old key outlives its rotation", old >= 3, figures);
        Ok(())
    }

    fn seal_key_of(&self, device: &str) -> Result<String> {
        let status = self.status_of(device)?;
        Ok(status["seal_key"].as_str().context("no seal_key in the status")?.to_owned())
    }

    /// How many messages a device has sealed and made durable in its life.
    fn sealed_by(&self, device: &str) -> Result<u64> {
        self.status_of(device)?["backlog"]["end"].as_u64().context("no backlog.end in the status")
    }

    fn status_of(&self, device: &str) -> Result<serde_json::Value> {
        let dir = self.fleet.data.join("devices").join(device);
        let words = ["status", "--data", fleet::path(&dir)?, "--json"];
        let text = run_to_end("plimsoll-agent", &words, self.fleet.patience())?;
        serde_json::from_str(&text).with_context(|| format!("not a status: {text}"))
    }

    fn count(&self, sql: &str) -> Result<u64> {
        let text = self.fleet.cli(&["query", sql, "--format", "csv"])?;
        let cell = text.lines().nth(1).with_context(|| format!("no row in {text:?}"))?;
        cell.trim().parse().with_context(|| format!("not a number: {cell:?}"))
    }

    fn everything_ends(&mut self) -> Result<()> {
        self.say("devices end cleanly, then gateways hand up the rest, then everything else ends");
        let ended = self.fleet.wind_up()?;
        self.say("no process runs any more; the record is compared with the files of the store");
        let comparison = Comparison::with_store(&ended.acks, &self.fleet.data.join("store"))?;
        let first =
            [comparison.exactly_once(), comparison.in_order(), comparison.quarantine_is_empty()];
        self.lines.splice(..0, first);
        self.lines.push(comparison.went_on(&self.kills));
        self.lines.push(promises::invariants(ended.violations));
        let took = self.start.elapsed();
        let figures = format!("{:.0} s of {} s", took.as_secs_f64(), self.within.as_secs());
        self.promise("the demo is over in time", took <= self.within, figures);
        Ok(())
    }
}

fn say(start: Instant, what: &str) {
    println!("  {:>5.1} s  {what}", start.elapsed().as_secs_f64());
}
