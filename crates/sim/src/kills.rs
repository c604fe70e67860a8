//! SIGKILL at random moments, many times, over the real processes.

use crate::fleet::{Fleet, PATIENCE, Ports, Source};
use crate::process::{Process, until};
use crate::promises::{self, Comparison};
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// An empty or missing directory.
    #[arg(long)]
    pub data: PathBuf,
    #[arg(long, default_value_t = 19900)]
    pub port_base: u16,
    #[arg(long, default_value_t = 50)]
    pub kills: u32,
    /// Decides who is killed and when; printed, so that a run can be told again.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, default_value = "recordings/host.csv")]
    pub recording: PathBuf,
}

/// Six devices, two gateways, one control plane; each kill waits for a random number of acknowledgements, so that it
/// falls into the middle of work and never into the same place.
pub fn run(options: &Options) -> Result<bool> {
    println!("  {} random SIGKILLs, seed {}", options.kills, options.seed);
    let mut random = Random(options.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut fleet = Fleet::found(&options.data, Ports(options.port_base))?;
    for _ in 0..2 {
        fleet.add_gateway(fleet.ports.control())?;
    }
    let names: Vec<String> = (1..=6).map(|n| format!("dev-{n:02}")).collect();
    let recording = options.recording.canonicalize()?;
    for (i, name) in names.iter().enumerate() {
        let source = Source::Replay { file: recording.clone(), speed: 20 };
        fleet.add_device(name, &source, if i % 2 == 0 { &[0, 1] } else { &[1, 0] }, None)?;
    }
    until("every device is heard", PATIENCE, || {
        let acks = fleet.record()?;
        Ok(names.iter().all(|name| acks.iter().any(|ack| ack.took() && ack.device == *name)))
    })?;
    let mut killed = [0; 3];
    for _ in 0..options.kills {
        let wanted = fleet.record()?.len() + 1 + random.below(20) as usize;
        until("some more is acknowledged", PATIENCE, || Ok(fleet.record()?.len() >= wanted))?;
        let victim = Victim::any(&names, &mut random);
        // It may have been started a moment ago and not answer yet; then there is little that it could have counted.
        let _ = victim.keep_count(&mut fleet);
        // A moment within the work between two acknowledgements, too short to be waited for by name.
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        killed[victim.kind()] += 1;
        let process = victim.process(&mut fleet);
        process.must_run()?;
        process.kill()?;
        process.start_again()?;
    }
    println!(
        "  killed: {} devices, {} gateways, {} control planes",
        killed[0], killed[1], killed[2]
    );
    fleet.wait_for_control()?;
    let ended = fleet.wind_up()?;
    let comparison = Comparison::with_store(&ended.acks, &options.data.join("store"))?;
    Ok(promises::print(&[
        comparison.exactly_once(),
        comparison.in_order(),
        comparison.quarantine_is_empty(),
        promises::invariants(ended.violations),
    ]))
}

/// Every second time a device, every fourth a gateway or the control plane.
enum Victim {
    Device(String),
    Gateway(usize),
    Control,
}

impl Victim {
    fn any(names: &[String], random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::Control,
            1 => Self::Gateway(random.below(2) as usize),
            _ => Self::Device(names[random.below(names.len() as u64) as usize].clone()),
        }
    }

    fn kind(&self) -> usize {
        match self {
            Self::Device(_) => 0,
            Self::Gateway(_) => 1,
            Self::Control => 2,
        }
    }

    fn keep_count(&self, fleet: &mut Fleet) -> Result<()> {
        match self {
            Self::Device(_) => Ok(()),
            Self::Gateway(number) => fleet.keep_count_of_gateway(*number),
            Self::Control => fleet.keep_count_of_control(),
        }
    }

    fn process<'a>(&self, fleet: &'a mut Fleet) -> &'a mut Process {
        match self {
            Self::Device(name) => fleet.device(name),
            Self::Gateway(number) => &mut fleet.gateways[*number],
            Self::Control => &mut fleet.control,
        }
    }
}

/// xorshift64*: the same for a seed on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }
}
