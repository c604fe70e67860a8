//! The `plimsoll` command: the stations of a server, and the operator's, vendor's and auditor's words to them.

// First: its macros are for all the others.
#[macro_use]
mod log;

mod alert;
mod approvals;
mod care;
mod client;
mod device;
mod evidence;
mod exit;
mod factory;
mod maker;
mod manual;
mod operator;
mod people;
mod place;
mod release;
mod rollout;
mod session;
mod site;
mod station;
mod table;
mod terminal;
mod up;

use anyhow::Result;
use clap::{Parser, Subcommand};
use evidence::Evidence;
use exit::{Exit, Waits};
use model::Timestamp;
use place::Place;
use std::path::PathBuf;
use std::process::ExitCode;
use table::Format;

/// A self-hosted platform for fleets of industrial devices.
///
/// One grammar: a noun, a verb, what it is done to. A table for people, `--json` for programs.
#[derive(Parser)]
#[command(name = "plimsoll", version, about, after_help = after_help())]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

fn after_help() -> String {
    format!(
        "Example:\n  plimsoll up\n  plimsoll query \"select * from readings limit 5\"\n  plimsoll device list\n\n{}",
        exit::table()
    )
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole site on this machine: control plane, bus, store, one gateway and two devices.
    #[command(after_help = "Example:\n  plimsoll up --data D --port-base 18800")]
    Up {
        #[command(flatten)]
        options: up::Options,
    },
    /// Run the control plane, bus and store, and nothing else.
    #[command(
        after_help = "Example:\n  plimsoll control --data D --images acme/repository --image-root 1.root.json"
    )]
    Control {
        #[command(flatten)]
        options: station::Options,
    },
    /// Ask the store a question in SQL.
    ///
    /// Tables: readings, readings_1m, quarantine, losses, gaps.
    #[command(
        after_help = "Example:\n  plimsoll query \"select device, series, avg(value) from readings group by 1, 2 order by 1, 2\"\n  plimsoll query --format csv \"select * from readings_1m limit 20\""
    )]
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
    },
    /// Print the counters of the control plane, bus and store (Prometheus text format).
    #[command(after_help = "Example:\n  plimsoll metrics")]
    Metrics,
    /// Who is signed in: sign in, sign out, what one may do.
    #[command(subcommand, after_help = "Example:\n  plimsoll session login --user anna")]
    Session(session::Command),
    /// Look at devices, and change how they stand.
    #[command(subcommand, after_help = "Example:\n  plimsoll device list --zone hall")]
    Device(device::Command),
    /// The vendor's side of an update, and what of it this site has verified.
    #[command(subcommand, after_help = "Example:\n  plimsoll release available --refresh")]
    Release(release::Release),
    /// A release on its way to a cohort: order, watch, pause, halt, take back.
    #[command(subcommand, after_help = "Example:\n  plimsoll rollout watch pump-1.1")]
    Rollout(rollout::Command),
    /// What was done, by whom: read it, hand it out, prove it offline.
    #[command(subcommand, after_help = "Example:\n  plimsoll evidence log --subject device/pump-1")]
    Evidence(Evidence),
    /// People who may sign in, and what each may do where.
    #[command(subcommand, after_help = "Example:\n  plimsoll user list")]
    User(people::User),
    /// What programs show instead of a password.
    #[command(subcommand, after_help = "Example:\n  plimsoll token list")]
    Token(people::Token),
    /// Sites: zones by which people's rights are bounded.
    #[command(subcommand, alias = "zone", after_help = "Example:\n  plimsoll site list")]
    Site(people::SiteCommand),
    /// What waits for a second person.
    #[command(subcommand, after_help = "Example:\n  plimsoll approval list")]
    Approval(approvals::Command),
    /// What needs two people.
    #[command(subcommand, name = "two-people", after_help = "Example:\n  plimsoll two-people show")]
    TwoPeople(approvals::Setting),
    /// What somebody should know of.
    #[command(subcommand, after_help = "Example:\n  plimsoll alert list")]
    Alert(alert::Alert),
    /// When nobody is told, until when and why.
    #[command(subcommand, after_help = "Example:\n  plimsoll silence list")]
    Silence(alert::Silence),
    /// When an alert is raised.
    #[command(subcommand, after_help = "Example:\n  plimsoll rule list")]
    Rule(alert::Rule),
    /// What the fleet did in a week.
    #[command(subcommand, after_help = "Example:\n  plimsoll report weekly")]
    Report(alert::Report),
    /// What leaves a factory: what each device is given, and the signed list by which a site admits them.
    #[command(subcommand, after_help = "Example:\n  plimsoll factory init --factory line-3")]
    Factory(factory::Factory),
    /// The demo's manufacturer.
    #[command(
        subcommand,
        after_help = "Example:\n  plimsoll maker sign --csr idevid.csr --out idevid.pem"
    )]
    Maker(Maker),
    /// Print what completes words of this command in a shell.
    #[command(
        after_help = "Example:\n  plimsoll completions bash > /etc/bash_completion.d/plimsoll"
    )]
    Completions { shell: manual::Shell },
    /// Write the manual pages, one a command, or print the first one.
    #[command(after_help = "Example:\n  plimsoll man /usr/local/share/man/man1")]
    Man {
        /// Where they go. Without it, plimsoll(1) is printed.
        dir: Option<PathBuf>,
    },
    // The words of earlier releases: scripts know them.
    #[command(
        subcommand,
        hide = true,
        about = "As `device allow`",
        after_help = "Example:\n  plimsoll enroll allow PUMP-1"
    )]
    Enroll(Enroll),
    #[command(
        hide = true,
        about = "As `release available`",
        after_help = "Example:\n  plimsoll releases --refresh"
    )]
    Releases(release::Available),
}

#[derive(Subcommand)]
enum Enroll {
    /// As `device allow`.
    #[command(after_help = "Example:\n  plimsoll enroll allow PUMP-1")]
    Allow(device::Allow),
}

#[derive(Subcommand)]
enum Maker {
    /// Sign the CSR of a device that made its own key: its birth certificate (IDevID).
    #[command(after_help = "Example:\n  plimsoll maker sign --csr idevid.csr --out idevid.pem")]
    Sign {
        /// A PKCS#10 request in PEM, made by `plimsoll-agent prepare`.
        #[arg(long)]
        csr: PathBuf,
        /// Where the certificate goes.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    let Arguments { place, command } = Arguments::parse();
    if let Command::Evidence(Evidence::Verify(verify)) = command {
        return verify.run();
    }
    let json = place.json;
    match run(command, &place) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            match error.downcast_ref::<Waits>() {
                Some(waits) => approvals::tell_waits(waits, json),
                None => log::error(&error),
            }
            Exit::of(&error).into()
        }
    }
}

fn run(command: Command, place: &Place) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(carry_out(command, place))
}

async fn carry_out(command: Command, place: &Place) -> Result<()> {
    match command {
        Command::Up { options } => up::run(&place.dir(), &options).await,
        Command::Control { options } => station::run(&place.dir(), &options).await,
        Command::Query { sql, format, rows, time_max_ms } => {
            operator::query(place, api::Ask { sql, rows_max: rows, time_max_ms }, format).await
        }
        Command::Metrics => operator::metrics(place).await,
        Command::Session(session) => session::run(session, place).await,
        Command::Device(device) => device::run(device, place).await,
        Command::Enroll(Enroll::Allow(allow)) => allow.run(place).await,
        Command::Release(release::Release::Available(available)) | Command::Releases(available) => {
            available.run(place).await
        }
        Command::Release(release) => {
            let now = Timestamp(i64::try_from(station::now().as_secs())? * 1_000_000);
            release.run(now, place.json)
        }
        Command::Rollout(rollout) => rollout::run(rollout, place).await,
        Command::Evidence(evidence) => evidence::ask(evidence, place).await,
        Command::User(user) => user.run(place).await,
        Command::Token(token) => token.run(place).await,
        Command::Site(site) => site.run(place).await,
        Command::Approval(approval) => approval.run(place).await,
        Command::TwoPeople(setting) => setting.run(place).await,
        Command::Alert(alert) => alert.run(place).await,
        Command::Silence(silence) => silence.run(place).await,
        Command::Rule(rule) => rule.run(place).await,
        Command::Report(report) => report.run(place).await,
        Command::Factory(factory) => factory.run(place),
        Command::Maker(Maker::Sign { csr, out }) => {
            let (disk, dir) = (&disk::RealDisk, place.dir());
            let serial = maker::sign(disk, &dir, &csr, &out, station::now())?;
            tell!("{serial} has its birth certificate: {}", out.display());
            Ok(())
        }
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { dir } => manual::pages(dir.as_deref()),
    }
}
