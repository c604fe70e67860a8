//! `plimsoll approval`, `plimsoll two-people`: what one person asked for and a second has to say yes to.

use crate::care::{Sure, Would};
use crate::client::{Client, segment, with_words};
use crate::exit::{Ended, Exit, Waits};
use crate::place::Place;
use crate::station;
use crate::table::{self, Format, plain};
use crate::terminal;
use anyhow::Result;
use api::approval::{APPROVALS_PAGE_MAX, Approval, Approvals, Refusal, TwoPeople, Widening};
use api::{Cell, path};
use clap::Subcommand;
use control::Registry;
use model::Timestamp;
use std::path::Path;

#[derive(Subcommand)]
pub enum Command {
    /// What waits for a second person; with --all, what was decided too. The newest first.
    #[command(after_help = "Example:\n  plimsoll approval list")]
    List {
        #[arg(long)]
        all: bool,
        /// Those before this one.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = APPROVALS_PAGE_MAX)]
        limit: usize,
    },
    /// One of them, with all that would be done.
    #[command(after_help = "Example:\n  plimsoll approval show 17")]
    Show { id: String },
    /// Say yes as the second person, signed in: it is done then, in both names.
    #[command(after_help = "Example:\n  plimsoll approval approve 17")]
    Approve { id: String },
    /// Say no, or take back what one has asked for.
    #[command(
        after_help = "Example:\n  plimsoll approval refuse 17 --reason \"not before the inspection\""
    )]
    Refuse {
        id: String,
        /// Who asked reads it.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Subcommand)]
pub enum Setting {
    /// What needs two people.
    #[command(after_help = "Example:\n  plimsoll two-people show")]
    Show,
    /// Say what needs two people from now on. To ask for fewer needs two itself.
    #[command(after_help = "Example:\n  plimsoll two-people set grant_roles quarantine_release")]
    Set {
        /// emergency_rollout, quarantine_release, grant_roles. What is set has grant_roles in it.
        #[arg(value_parser = widening, required_unless_present = "none")]
        what: Vec<Widening>,
        /// Nothing needs two people any more.
        #[arg(long, conflicts_with = "what")]
        none: bool,
    },
    /// Where nobody is left to say yes: nothing needs two people any more. On the site's own machine, its control plane stopped.
    #[command(after_help = "Example:\n  plimsoll two-people reset --data D --dry-run")]
    Reset {
        #[command(flatten)]
        sure: Sure,
    },
}

impl Command {
    pub async fn run(self, place: &Place) -> Result<()> {
        let client = Client::of(place)?;
        match self {
            Self::List { all, after, limit } => {
                let state = (!all).then(|| "open".to_owned());
                let words =
                    [("state", state), ("after", after), ("limit", Some(limit.to_string()))];
                let body = client.get(&with_words(path::APPROVALS, words)?).await?;
                place.shown(&body, |page: Approvals| {
                    let rows = page.approvals.iter().map(row).collect();
                    let names = ["approval", "what", "asked by", "until", "state"];
                    table::list(&names, rows, "approval", Format::Table)?;
                    match page.next {
                        Some(next) => place.next(&format!("older ones: --after {next}")),
                        None => Ok(()),
                    }
                })
            }
            Self::Show { id } => {
                let body = client.get(&segment(path::APPROVALS, &id, None)?).await?;
                place.shown(&body, |approval: Approval| show(&approval))
            }
            Self::Approve { id } => {
                let at = segment(path::APPROVALS, &id, Some("approve"))?;
                let body = client.post(&at, &serde_json::json!({})).await?;
                place.shown(&body, |approval: Approval| decided(&approval))
            }
            Self::Refuse { id, reason } => {
                let at = segment(path::APPROVALS, &id, Some("refuse"))?;
                let body = client.post(&at, &Refusal { reason }).await?;
                place.shown(&body, |approval: Approval| decided(&approval))
            }
        }
    }
}

fn row(approval: &Approval) -> Vec<Cell> {
    vec![
        approval.id.as_str().into(),
        approval.sentence.as_str().into(),
        format!("{} as {}", approval.asked_by, approval.asked_as).into(),
        terminal::time(approval.until_ms).into(),
        approval.state.as_str().into(),
    ]
}

fn show(approval: &Approval) -> Result<()> {
    let Approval { id, what, subject, asked_by, asked_as, state, .. } = approval;
    tell!("{}", plain(&approval.sentence));
    tell!("  approval {id}, {what}, about {}: {state}", plain(subject));
    tell!("  asked by {asked_by} as {asked_as} at {}", terminal::time(approval.asked_at_ms));
    match &approval.decided_by {
        Some(by) => tell!("  decided by {by}"),
        None => {
            let place = match &approval.sites {
                Some(sites) => format!("site {}", sites.join(" and ")),
                None => "every site".to_owned(),
            };
            let until = terminal::time(approval.until_ms);
            tell!("  takes {} of {place}, until {until}", seconds(approval));
        }
    }
    if let Some(reason) = &approval.reason {
        tell!("  because: {}", plain(reason));
    }
    if let Some(act) = &approval.act {
        tell!("{}", plain(&serde_json::to_string_pretty(act)?));
    }
    Ok(())
}

fn seconds(approval: &Approval) -> String {
    let words: Vec<&str> = approval.seconds.iter().map(|role| role.as_str()).collect();
    words.join(" or ")
}

fn decided(approval: &Approval) -> Result<()> {
    tell!("{} is {}: {}", approval.id, approval.state, plain(&approval.sentence));
    Ok(())
}

/// The end of a command that was taken down and not done.
pub fn tell_waits(waits: &Waits, json: bool) {
    if json {
        tell!("{}", String::from_utf8_lossy(&waits.body));
        return;
    }
    let approval = &waits.approval;
    tell!("{waits}");
    crate::log::next_step(&format!(
        "another person, as {}, says: plimsoll approval approve {} (until {})",
        seconds(approval),
        approval.id,
        terminal::time(approval.until_ms)
    ));
}

impl Setting {
    pub async fn run(self, place: &Place) -> Result<()> {
        let body = match self {
            Self::Reset { sure } => return reset(sure, place).await,
            Self::Show => Client::of(place)?.get(path::TWO_PEOPLE).await?,
            Self::Set { what, .. } => {
                let setting = TwoPeople { needed_for: what };
                Client::of(place)?.post(path::TWO_PEOPLE, &setting).await?
            }
        };
        place.shown(&body, |setting: TwoPeople| {
            match setting.needed_for.as_slice() {
                [] => tell!("nothing needs two people"),
                needed => tell!("two people are needed for: {}", words(needed.iter())),
            }
            Ok(())
        })
    }
}

fn words<'a>(all: impl Iterator<Item = &'a Widening>) -> String {
    let words: Vec<&str> = all.map(|what| what.as_str()).collect();
    words.join(" ")
}

/// Asks no site: whoever holds its files does it there.
async fn reset(sure: Sure, place: &Place) -> Result<()> {
    let file = place.dir().join("control/registry.sqlite");
    let registry = open(&file).await?;
    let now = words(registry.people().two_people().iter());
    if now.is_empty() {
        tell!("nothing needs two people");
        return Ok(());
    }
    let sentence = format!("Nothing needs two people any more; now it is: {now}.");
    let would = Would::new("settings.two_people", "settings/two-people".into(), 0, sentence).note(
        "It is an event, which the evidence log has when the control plane has started again.",
    );
    if sure.goes_on(&would, place)? {
        let at = Timestamp(i64::try_from(station::now().as_secs())? * 1_000_000);
        registry.break_two_people(at).await?;
        tell!("nothing needs two people any more");
        place.next(
            "start the control plane again, and say anew what needs two: plimsoll two-people set",
        )?;
    }
    registry.close().await;
    Ok(())
}

async fn open(file: &Path) -> Result<Registry> {
    if !file.is_file() {
        let what = format!("no registry at {}", file.display());
        let next = "--data DIR names the site's data directory, on the machine that it runs on";
        return Err(Ended::new(Exit::NotFound, what).next(next).into());
    }
    Registry::open_for_repair(file).await.map_err(|error| {
        let what = model::told(&error);
        Ended::new(Exit::Conflict, what).next("stop the site's control plane first").into()
    })
}

fn widening(word: &str) -> Result<Widening, String> {
    Widening::from_word(word).ok_or_else(|| {
        let words = Widening::ALL.map(Widening::as_str).join(", ");
        format!("expected one of {words}")
    })
}
