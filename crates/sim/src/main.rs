//! `plimsoll-sim`: the demo, the recorder, and what else looks at the product from outside.

use anyhow::Result;
use clap::{Parser, Subcommand};
use sim::{demo, kills, recorder};
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about = "A fleet and its weather: looks at the product from outside")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two gateways, thirty devices, and a bad day; ends with a table of promises.
    Demo(demo::Options),
    /// SIGKILL at random moments over real processes; ends with a table of promises.
    Kills(kills::Options),
    /// Stands between devices and a gateway and writes down every PUBACK.
    Recorder(recorder::Options),
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("a promise was broken");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Kills(options) => kills::run(&options),
        Command::Recorder(options) => recorder::run(options).map(|()| true),
    }
}
