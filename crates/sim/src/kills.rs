//! SIGKILL at random moments, many times, over the real processes.

use crate::fleet::{Fleet, PATIENCE, Ports, Source, gateway_name};
use crate::process::until;
use crate::promises::{self, Comparison};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
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
        fleet.add_device(name, &source, if i % 2 == 0 { &[0, 1] } else { &[1, 0] })?;
    }
    until("every device is heard", PATIENCE, || {
        names.iter().try_fold(true, |all, name| Ok(all && fleet.acked(name, None)? > 0))
    })?;
    let mut killed = [0; 3];
    for _ in 0..options.kills {
        let wanted = fleet.record()?.len() + 1 + random.below(20) as usize;
        until("some more is acknowledged", PATIENCE, || Ok(fleet.record()?.len() >= wanted))?;
        // A moment within the work between two acknowledgements, too short to be waited for by name.
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        let kind = kill_one(&mut fleet, &names, &mut random)?;
        killed[kind] += 1;
    }
    println!(
        "  killed: {} devices, {} gateways, {} control planes",
        killed[0], killed[1], killed[2]
    );
    finish(fleet, &options.data)
}

fn kill_one(fleet: &mut Fleet, names: &[String], random: &mut Random) -> Result<usize> {
    let (kind, process) = match random.below(4) {
        0 => (2, &mut fleet.control),
        1 => (1, &mut fleet.gateways[random.below(2) as usize]),
        _ => {
            let name = &names[random.below(names.len() as u64) as usize];
            (0, fleet.devices.get_mut(name).expect("it was added"))
        }
    };
    process.must_run()?;
    process.kill()?;
    process.start_again()?;
    Ok(kind)
}

fn finish(mut fleet: Fleet, data: &Path) -> Result<bool> {
    fleet.wait_for_control()?;
    let limit = Duration::from_secs(20);
    for device in fleet.devices.values_mut() {
        device.end(limit)?;
    }
    for gateway in 0..2 {
        until(&format!("{} has handed up its spool", gateway_name(gateway)), PATIENCE, || {
            Ok(fleet
                .gateway_metric(gateway, "plimsoll_gateway_spool_records")
                .is_ok_and(|n| n == 0.0))
        })?;
    }
    let invariants = promises::invariants(&fleet)?;
    let acks = fleet.record()?;
    for gateway in &mut fleet.gateways {
        gateway.end(limit)?;
    }
    fleet.control.end(PATIENCE)?;
    ensure!(!acks.is_empty(), "nothing was acknowledged");
    let comparison = Comparison::of(&acks, &data.join("store"))?;
    Ok(promises::print(&[
        comparison.exactly_once(),
        comparison.in_order(),
        comparison.quarantine_explained(&[]),
        invariants,
    ]))
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
