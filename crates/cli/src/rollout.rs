//! `plimsoll rollout`: a release on its way to a cohort, ordered and watched.

use crate::Data;
use crate::client::{Client, read};
use crate::table::{self, Format};
use anyhow::{Context, Result};
use api::event::{Event, Events};
use api::rollout::{NewRollout, Rollout, RolloutCommand, RolloutDevices, Rollouts};
use api::{Cell, path};
use clap::Subcommand;
use model::Timestamp;
use std::path::PathBuf;

/// How many events `show` tells.
const HISTORY: usize = 12;

#[derive(Subcommand)]
pub enum Command {
    /// Order a rollout: a file says what, to whom, in which waves and behind which gates (docs/updates.md).
    ///
    /// Example: {"product": "pump-app", "version": "1.1.0", "waves": [{"percent": 10, "soak_ms": 600000},
    /// {"percent": 100}], "start": true}
    Create {
        /// The order in JSON.
        file: PathBuf,
        /// Print it as the API says it.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Every rollout, the newest first.
    List {
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Where one stands, and why.
    Show {
        rollout: String,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: Data,
    },
    /// What is known of each device that has been given leave.
    Devices {
        rollout: String,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Begin one that was ordered without `start`.
    Start(One),
    /// Give no leave any more; who has it goes on.
    Pause(One),
    /// Go on after a pause, or with what is held since the registry was restored. What was halted is not resumed: take it back or end it, and order another.
    Resume(One),
    /// Give no leave any more, and let nobody arm who has it.
    Halt(One),
    /// Take it back from every device that runs it.
    Revert(One),
    /// End it where it stands.
    Abort(One),
}

#[derive(clap::Args)]
pub struct One {
    rollout: String,
    #[command(flatten)]
    data: Data,
}

pub async fn run(command: Command) -> Result<()> {
    let (word, one) = match command {
        Command::Create { file, json, data } => {
            let text =
                std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            // Read here first: what is wrong with it is told with its line.
            let order: NewRollout = serde_json::from_slice(&text)
                .with_context(|| format!("{} is no order of a rollout", file.display()))?;
            let body = body(Client::of(&data.dir)?.post(path::ROLLOUTS, &order).await?).await?;
            return show(&body, json);
        }
        Command::List { json, data } => {
            let body = body(Client::of(&data.dir)?.get(path::ROLLOUTS).await?).await?;
            return list(&body, json);
        }
        Command::Show { rollout, json, data } => {
            let client = Client::of(&data.dir)?;
            let at = format!("{}/{rollout}", path::ROLLOUTS);
            show(&body(client.get(&at).await?).await?, json)?;
            return if json { Ok(()) } else { history(&client, &rollout).await };
        }
        Command::Devices { rollout, json, data } => {
            return devices(&Client::of(&data.dir)?, &rollout, json).await;
        }
        Command::Start(one) => (RolloutCommand::Start, one),
        Command::Pause(one) => (RolloutCommand::Pause, one),
        Command::Resume(one) => (RolloutCommand::Resume, one),
        Command::Halt(one) => (RolloutCommand::Halt, one),
        Command::Revert(one) => (RolloutCommand::Revert, one),
        Command::Abort(one) => (RolloutCommand::Abort, one),
    };
    let at = format!("{}/{}/{}", path::ROLLOUTS, one.rollout, word.as_str());
    let answer = Client::of(&one.data.dir)?.post(&at, &serde_json::json!({})).await?;
    show(&body(answer).await?, false)
}

async fn body(response: reqwest::Response) -> Result<Vec<u8>> {
    Ok(response.bytes().await?.to_vec())
}

fn show(body: &[u8], json: bool) -> Result<()> {
    if json {
        println!("{}", String::from_utf8_lossy(body));
        return Ok(());
    }
    let rollout: Rollout = read(body)?;
    let Rollout { id, order, phase, stage, why, wave, waves, cohort, members, counts, .. } =
        rollout;
    println!("{id}: {} {} is {phase}", order.product, order.version);
    if let Some(stage) = stage {
        println!("  wave {wave} of {waves} is {stage}");
    }
    if let Some(why) = why {
        println!("  {why}");
    }
    println!("  {members} of {cohort} devices are in the waves so far");
    let known = [
        (counts.proven, "run it, by their own word"),
        (counts.had, "ran it before"),
        (counts.issued, "may install it and have shown no outcome"),
        (counts.silent, "have been silent since"),
        (counts.failed, "could not, or went back by themselves"),
        (counts.back, "are told to go back"),
        (counts.back_silent, "are told to go back and have been silent since"),
        (counts.went_back, "went back"),
        (counts.stuck, "could not go back"),
    ];
    for (count, what) in known.into_iter().filter(|(count, _)| *count > 0) {
        println!("  {count:>6} {what}");
    }
    Ok(())
}

/// The newest events, so that it is told why it halted also when it is long taken back. How it went on with single devices is
/// told by `devices`.
async fn history(client: &Client, rollout: &str) -> Result<()> {
    let at = format!("{}?subject=rollout/{rollout}", path::EVENTS);
    let page: Events = read(&body(client.get(&at).await?).await?)?;
    let of_all = |event: &&Event| event.action.starts_with("rollout.");
    let told: Vec<&Event> = page.events.iter().filter(of_all).collect();
    println!("  what happened:");
    for event in &told[told.len().saturating_sub(HISTORY)..] {
        let time = trust::tuf::time::format(Timestamp(i64::try_from(event.at_ms)? * 1000));
        let time = time.unwrap_or_default();
        let detail = match &event.detail {
            // Digests are for programs: the events themselves have them.
            serde_json::Value::Object(detail) => detail
                .iter()
                .filter(|(name, _)| !name.ends_with("sha256"))
                .map(|(name, value)| match value.as_str() {
                    Some(text) => format!(" {name} {text}"),
                    None => format!(" {name} {value}"),
                })
                .collect(),
            _ => String::new(),
        };
        let word = event.action.trim_start_matches("rollout.");
        println!("    {time}  {:<10} {word}{detail}", event.actor);
    }
    Ok(())
}

fn list(body: &[u8], json: bool) -> Result<()> {
    if json {
        println!("{}", String::from_utf8_lossy(body));
        return Ok(());
    }
    let page: Rollouts = read(body)?;
    let row = |rollout: &Rollout| -> Vec<Cell> {
        vec![
            rollout.id.as_str().into(),
            format!("{} {}", rollout.order.product, rollout.order.version).into(),
            rollout.phase.as_str().into(),
            format!("{} of {}", rollout.wave, rollout.waves).into(),
            rollout.cohort.into(),
            rollout.counts.proven.into(),
            rollout.counts.failed.into(),
            rollout.why.as_deref().unwrap_or_default().into(),
        ]
    };
    let names = ["rollout", "release", "phase", "wave", "devices", "proven", "failed", "why"];
    print(&names, page.rollouts.iter().map(row).collect())
}

/// All pages.
async fn devices(client: &Client, rollout: &str, json: bool) -> Result<()> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let at = format!("{}/{rollout}/devices{after}", path::ROLLOUTS);
        let page: RolloutDevices = read(&body(client.get(&at).await?).await?)?;
        all.extend(page.devices);
        match page.next {
            Some(next) => after = format!("?after={next}"),
            None => break,
        }
    }
    if json {
        let page = RolloutDevices { devices: all, next: None };
        println!("{}", serde_json::to_string(&page)?);
        return Ok(());
    }
    let rows = all.iter().map(|device| {
        let cells = [&device.device, &device.known, &device.was_sha256];
        cells.map(|text| Cell::from(text.as_str())).to_vec()
    });
    print(&["device", "known", "ran before (sha256)"], rows.collect())
}

fn print(names: &[&str], rows: Vec<Vec<Cell>>) -> Result<()> {
    table::print(&table::of(names, rows), Format::Table, &mut std::io::stdout().lock())
}
