//! `plimsoll-bench`: seals messages for a foreign load generator, and measures the whole road beside Mosquitto.
//!
//! Nothing here is a test: no figure passes or fails. `docs/benchmarks.md` says how the figures came to be.

mod mosquitto;
mod profile;
mod road;
mod seal;
mod tuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Figures against named peers; see docs/benchmarks.md")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Seals one reading under a key of one's own, for a foreign client to publish.
    Seal(seal::One),
    /// Writes an image repository and a Director's word, for a foreign TUF client to read.
    TufMake(tuf::Make),
    /// Reads a foreign TUF repository with our client.
    TufRead(tuf::Read),
    /// Durable packs and readings a second through the whole road, and Mosquitto under the same load.
    Road(road::Options),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Seal(options) => seal::one(&options),
        Command::TufMake(options) => tuf::make(&options),
        Command::TufRead(options) => tuf::read(&options),
        Command::Road(options) => road::run(&options),
    }
}
