//! Packs and readings a second from a foreign client's PUBLISH to durable, and on to history; then the same messages
//! to Mosquitto. Rounds alternate, so that a slow minute of the machine hits both.

use crate::mosquitto::{Mosquitto, Saving};
use crate::profile::Profile;
use crate::seal;
use anyhow::{Context, Result, ensure};
use sim::fleet::{Fleet, PATIENCE, Ports, Source};
use sim::process::until;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A directory for the run; it must not exist yet.
    #[arg(long)]
    data: PathBuf,
    /// The compiled `bench/load.c`.
    #[arg(long)]
    load: PathBuf,
    #[arg(long, default_value_t = 20800)]
    port_base: u16,
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Messages per client and round at 1 and 16 readings; a quarter of it at 256.
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value = "recordings/host.csv")]
    recording: PathBuf,
}

const IN_FLIGHT: &str = "32";

/// Messages to a Mosquitto that saves at each change: one in so many.
const SAVING_FEWER: usize = 20;

struct Round {
    acked_s: f64,
    stored_s: f64,
    messages: f64,
    payload_bytes: f64,
}

impl Round {
    /// Messages acknowledged a second.
    fn rate(&self) -> f64 {
        self.messages / self.acked_s
    }
}

pub fn run(options: &Options) -> Result<()> {
    ensure!(!options.data.exists(), "{} exists", options.data.display());
    std::fs::create_dir_all(&options.data)?;
    let mut fleet = Fleet::found(&options.data.join("site"), Ports(options.port_base))?;
    fleet.add_gateway(fleet.ports.control())?;
    let clients = enrol(&mut fleet, options)?;
    println!(
        "| readings a pack | our packs/s (PUBACK) | our readings/s (PUBACK) | packs/s into history | Mosquitto msg/s | ratio | Mosquitto saving, msg/s | ratio | bytes a pack |"
    );
    println!("| --: | --: | --: | --: | --: | --: | --: | --: | --: |");
    let mut epoch = 1_000_000;
    let mut profiled = Vec::new();
    for readings in [1, 16, 256] {
        let messages = if readings == 256 { options.messages / 4 } else { options.messages };
        let (mut ours, mut theirs, mut saving) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.rounds {
            epoch += 1;
            seal_all(&clients, options, messages, readings, epoch)?;
            let profile = (round == 0).then(|| {
                Profile::start(&pids(&fleet), &options.data.join(format!("perf-{readings}")))
            });
            ours.push(through_us(&fleet, &clients, options)?);
            if let Some(profile) = profile {
                profiled.push((readings, profile?.end()?));
            }
            let peer = |saving| {
                let dir = options.data.join(format!("mosquitto-{readings}-{round}-{saving:?}"));
                through_mosquitto(&fleet, &clients, options, &dir, saving)
            };
            theirs.push(peer(Saving::AtTimes)?);
            // It writes all that it holds at each change: the more messages, the slower each.
            seal_all(&clients, options, messages.div_ceil(SAVING_FEWER), readings, epoch)?;
            saving.push(peer(Saving::EachChange)?);
        }
        line(readings, &ours, &theirs, &saving);
    }
    for (readings, shares) in profiled {
        println!(
            "\nWhere the processor's time went, gateway and control process together, {readings} readings a pack:\n"
        );
        println!("| share | what |\n| --: | --- |");
        for (what, share) in shares.iter().filter(|(_, share)| *share >= 0.5) {
            println!("| {share:.1} % | {what} |");
        }
    }
    fleet.gateways[0].end(Duration::from_secs(20))?;
    fleet.control.end(PATIENCE)
}

fn enrol(fleet: &mut Fleet, options: &Options) -> Result<Vec<PathBuf>> {
    let source = Source::Replay { file: options.recording.canonicalize()?, speed: 1 };
    let names: Vec<String> = (1..=options.clients).map(|n| format!("load-{n}")).collect();
    for name in &names {
        fleet.add_device(name, &source, &[0], None)?;
        fleet.wait_for_acks(name, None, 1)?;
        fleet.devices.get_mut(name).context("it was added")?.end(Duration::from_secs(20))?;
    }
    Ok(names.iter().map(|name| fleet.data.join("devices").join(name)).collect())
}

fn pids(fleet: &Fleet) -> Vec<u32> {
    vec![fleet.gateways[0].id(), fleet.control.id()]
}

fn seal_all(
    clients: &[PathBuf],
    options: &Options,
    messages: usize,
    readings: usize,
    epoch: u32,
) -> Result<()> {
    for client in clients {
        let out = client.join("messages.bin");
        let recording = &options.recording;
        seal::many(&seal::Many {
            device: client,
            messages,
            readings,
            epoch,
            recording,
            out: &out,
        })?;
    }
    Ok(())
}

fn through_us(fleet: &Fleet, clients: &[PathBuf], options: &Options) -> Result<Round> {
    let counter = "plimsoll_ingest_messages_total{outcome=\"new\"";
    let before = fleet.control_metric(counter)?;
    let start = Instant::now();
    let mut round = load(
        options,
        fleet.ports.gateway(0).port(),
        &fleet.site_ca(),
        "plimsoll/1/",
        "/up",
        clients,
    )?;
    until("all is in history", Duration::from_secs(600), || {
        Ok(fleet.control_metric(counter)? >= before + round.messages)
    })?;
    round.stored_s = start.elapsed().as_secs_f64();
    Ok(round)
}

fn through_mosquitto(
    fleet: &Fleet,
    clients: &[PathBuf],
    options: &Options,
    dir: &Path,
    saving: Saving,
) -> Result<Round> {
    let port = options.port_base + 50;
    let gateway = fleet.data.join("gateways/gw-1");
    let peer = Mosquitto::start(dir, port, &gateway, &fleet.site_ca(), saving)?;
    peer.subscribe_and_leave(&clients[0], &fleet.site_ca())?;
    load(options, port, &fleet.site_ca(), "plimsoll/1/", "/up", clients)
}

fn load(
    options: &Options,
    port: u16,
    ca: &Path,
    prefix: &str,
    suffix: &str,
    clients: &[PathBuf],
) -> Result<Round> {
    let out = Command::new(&options.load)
        .args(["127.0.0.1", &port.to_string()])
        .arg(ca)
        .args([prefix, suffix, IN_FLIGHT])
        .args(clients)
        .output()
        .with_context(|| format!("cannot run {}", options.load.display()))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(
        out.status.success(),
        "the load failed: {text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let said: serde_json::Value = serde_json::from_str(&text)?;
    let number = |name: &str| said[name].as_f64().with_context(|| format!("no {name} in {text}"));
    Ok(Round {
        acked_s: number("seconds")?,
        stored_s: 0.0,
        messages: number("acked")?,
        payload_bytes: number("payload_bytes")?,
    })
}

fn line(readings: usize, ours: &[Round], theirs: &[Round], saving: &[Round]) {
    let bytes = ours[0].payload_bytes / ours[0].messages;
    let acked = median(ours.iter().map(Round::rate).collect());
    let stored = median(ours.iter().map(|round| round.messages / round.stored_s).collect());
    print!("| {readings} | {acked:.0} | {:.0} | {stored:.0} |", acked * readings as f64);
    for peer in [theirs, saving] {
        let mut ratios: Vec<f64> =
            ours.iter().zip(peer).map(|(a, b)| a.rate() / b.rate()).collect();
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let rate = median(peer.iter().map(Round::rate).collect());
        print!(" {rate:.0} | {:.2} ({least:.2} to {most:.2}) |", median(ratios));
    }
    println!(" {bytes:.0} |");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
