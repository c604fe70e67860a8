//! The `plimsoll` command: the stations of a server, and the operator's and demo maker's words to them.

mod client;
mod evidence;
mod log;
mod maker;
mod operator;
mod release;
mod rollout;
mod site;
mod station;
mod table;
mod up;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use evidence::Evidence;
use model::Timestamp;
use std::path::PathBuf;
use std::process::ExitCode;
use table::Format;

/// A self-hosted platform for fleets of industrial devices.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "First steps: `plimsoll up`, then `plimsoll query \"select * from readings limit 5\"`."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone, Debug)]
struct Data {
    /// The site's data directory.
    #[arg(long = "data", default_value = "data", global = true)]
    dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole site on this machine: control plane, bus, store, one gateway and two devices.
    Up {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        options: up::Options,
    },
    /// Run the control plane, bus and store, and nothing else.
    Control {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        options: station::Options,
    },
    /// Ask the store a question in SQL.
    ///
    /// Tables: readings, readings_1m, quarantine, losses, gaps. Example:
    /// plimsoll query "select device, series, avg(value) from readings group by 1, 2 order by 1, 2"
    Query {
        /// One SELECT statement.
        sql: String,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// The most rows to answer with.
        #[arg(long)]
        rows: Option<usize>,
        /// The longest that the question may run, in milliseconds.
        #[arg(long)]
        time_max_ms: Option<u64>,
        #[command(flatten)]
        data: Data,
    },
    /// Print the counters of the control plane, bus and store (Prometheus text format).
    Metrics {
        #[command(flatten)]
        data: Data,
    },
    /// Say which devices and gateways may enrol.
    #[command(subcommand)]
    Enroll(Enroll),
    /// Look at devices, and change how they stand.
    #[command(subcommand)]
    Device(Device),
    /// What was done, by whom: read it, hand it out, prove it offline.
    #[command(subcommand)]
    Evidence(evidence::Evidence),
    /// The vendor's side of an update: keys, and an image repository that operators read.
    #[command(subcommand)]
    Release(release::Release),
    /// What the vendor has published and this site has verified: what can be rolled out.
    Releases {
        /// Read the vendor's repository now, instead of within 10 s.
        #[arg(long)]
        refresh: bool,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// A release on its way to a cohort: order, watch, pause, halt, take back.
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// The demo's manufacturer.
    #[command(subcommand)]
    Maker(Maker),
}

#[derive(Subcommand)]
enum Enroll {
    /// Put a serial number on the ownership list.
    Allow {
        /// The serialNumber of its IDevID.
        serial: String,
        /// device or gateway.
        #[arg(long, default_value = "device", value_parser = ["device", "gateway"])]
        role: String,
        #[arg(long, default_value = up::ZONE)]
        zone: String,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Subcommand)]
enum Device {
    /// Every device and gateway with its standing.
    List {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// What a device runs, by its own newest word.
    Software {
        device: String,
        /// Print it as the API says it.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: Data,
    },
    /// End a device's identity for good. Its live session is cut.
    Revoke {
        device: String,
        #[command(flatten)]
        data: Data,
    },
    /// Cut a device off; it can be released again.
    Quarantine {
        device: String,
        #[command(flatten)]
        data: Data,
    },
    /// Let a quarantined device back.
    Release {
        device: String,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Subcommand)]
enum Maker {
    /// Sign the CSR of a device that made its own key: its birth certificate (IDevID).
    Sign {
        /// A PKCS#10 request in PEM, made by `plimsoll-agent prepare`.
        #[arg(long)]
        csr: PathBuf,
        /// Where the certificate goes.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        data: Data,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Evidence(Evidence::Verify(verify)) = arguments.command {
        return verify.run();
    }
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    if let Command::Release(release) = command {
        let now = Timestamp(i64::try_from(station::now().as_secs())? * 1_000_000);
        return release.run(now);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Up { data, options } => up::run(&data.dir, &options).await,
            Command::Control { data, options } => station::run(&data.dir, &options).await,
            Command::Query { sql, format, rows, time_max_ms, data } => {
                operator::query(&data.dir, api::Ask { sql, rows_max: rows, time_max_ms }, format)
                    .await
            }
            Command::Metrics { data } => operator::metrics(&data.dir).await,
            Command::Enroll(Enroll::Allow { serial, role, zone, data }) => {
                operator::allow(&data.dir, &serial, &role, &zone).await
            }
            Command::Device(Device::List { format, data }) => {
                operator::devices(&data.dir, format).await
            }
            Command::Device(Device::Revoke { device, data }) => {
                operator::change_standing(&data.dir, &device, "revoke").await
            }
            Command::Device(Device::Quarantine { device, data }) => {
                operator::change_standing(&data.dir, &device, "quarantine").await
            }
            Command::Device(Device::Release { device, data }) => {
                operator::change_standing(&data.dir, &device, "release").await
            }
            Command::Releases { refresh, format, data } => {
                operator::releases(&data.dir, refresh, format).await
            }
            Command::Rollout(rollout) => rollout::run(rollout).await,
            Command::Device(Device::Software { device, json, data }) => {
                operator::software(&data.dir, &device, json).await
            }
            Command::Evidence(evidence) => evidence::ask(evidence).await,
            Command::Release(_) => unreachable!("it was run above: it needs no runtime"),
            Command::Maker(Maker::Sign { csr, out, data }) => {
                let serial = maker::sign(&disk::RealDisk, &data.dir, &csr, &out, station::now())?;
                println!("{serial} has its birth certificate: {}", out.display());
                Ok(())
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_has_no_two_meanings() {
        Arguments::command().debug_assert();
    }
}
