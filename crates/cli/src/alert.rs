//! `plimsoll alert`, `silence`, `rule`, `report`: what somebody should know of.

use crate::client::{Client, read, segment, with_words};
use crate::device::duration_ms;
use crate::operator::now_ms;
use crate::place::Place;
use crate::table::{self, Format, cell};
use crate::terminal;
use anyhow::{Context, Result};
use api::Cell;
use api::alert::{Acknowledge, Alerts, Condition, NewSilence, Rules, Silences, WeeklyReport};
use api::path;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Alert {
    /// What is the matter now, the newest first; with --all, what was.
    #[command(after_help = "Example:\n  plimsoll alert list --priority critical")]
    List {
        /// critical, warning or notice.
        #[arg(long)]
        priority: Option<String>,
        /// Resolved ones too.
        #[arg(long)]
        all: bool,
        /// The most to show.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on behind a page before.
        #[arg(long)]
        after: Option<u64>,
    },
    /// Say that somebody looks after it: it escalates no further.
    #[command(after_help = "Example:\n  plimsoll alert acknowledge 17 --note \"on my way\"")]
    Acknowledge {
        id: u64,
        #[arg(long)]
        note: Option<String>,
    },
}

#[derive(Subcommand)]
pub enum Silence {
    /// Of what nobody is told at the moment.
    #[command(after_help = "Example:\n  plimsoll silence list")]
    List,
    /// Tell nobody of a rule or a subject for a time, and say why.
    #[command(
        after_help = "Example:\n  plimsoll silence create --subject pump-1 --for 2h --reason \"it is being repaired\""
    )]
    Create {
        /// Which rule; any, without it.
        #[arg(long, required_unless_present = "subject")]
        rule: Option<String>,
        /// Which subject; any, without it.
        #[arg(long)]
        subject: Option<String>,
        /// For how long, at most 30 days: 90s, 15m, 24h, 7d.
        #[arg(long = "for", value_name = "TIME", value_parser = duration_ms)]
        time: u64,
        #[arg(long)]
        reason: String,
    },
    /// End a silence before its time.
    #[command(after_help = "Example:\n  plimsoll silence end 3")]
    End { id: u64 },
}

#[derive(Subcommand)]
pub enum Rule {
    /// Every rule, and when it raises an alert.
    #[command(after_help = "Example:\n  plimsoll rule list")]
    List,
    /// Make a rule, or change the one of its name, by a file in JSON.
    #[command(after_help = "Example:\n  plimsoll rule set hot.json")]
    Set { file: PathBuf },
    /// Take a rule away; one that came with the software is as it came.
    #[command(after_help = "Example:\n  plimsoll rule remove hot")]
    Remove { id: String },
}

#[derive(Subcommand)]
pub enum Report {
    /// The seven days before now, or before another day.
    #[command(after_help = "Example:\n  plimsoll report weekly --until 2030-01-07T00:00:00Z")]
    Weekly {
        /// The end of the week, as RFC 3339.
        #[arg(long, value_name = "TIME")]
        until: Option<jiff::Timestamp>,
    },
}

impl Alert {
    pub async fn run(self, place: &Place) -> Result<()> {
        let client = Client::of(place)?;
        match self {
            Self::List { priority, all, limit, after } => {
                let words = [
                    ("state", (!all).then(|| "open".to_owned())),
                    ("priority", priority),
                    ("after", after.map(|after| after.to_string())),
                    ("limit", Some(limit.to_string())),
                ];
                let body = client.get(&with_words(path::ALERTS, words)?).await?;
                place.shown(&body, |page: Alerts| {
                    let rows = page.alerts.iter().map(alert_row).collect();
                    let names = ["alert", "priority", "state", "since", "what", "by"];
                    table::list(&names, rows, "alert", Format::Table)?;
                    if let Some(next) = page.next {
                        place.next(&format!("there are more: --after {next}"))?;
                    }
                    match page.alerts.iter().find(|alert| alert.state == "firing") {
                        Some(alert) => {
                            let id = alert.id;
                            let page = alert.runbook.as_deref().unwrap_or("docs/runbooks/");
                            place.next(&format!(
                                "plimsoll alert acknowledge {id}; what to do: {page}"
                            ))
                        }
                        None => Ok(()),
                    }
                })
            }
            Self::Acknowledge { id, note } => {
                let at = segment(path::ALERTS, &id.to_string(), Some("acknowledge"))?;
                let body = client.post(&at, &Acknowledge { note }).await?;
                place.answer(&body, || format!("alert {id} is acknowledged"))
            }
        }
    }
}

fn alert_row(alert: &api::alert::Alert) -> Vec<Cell> {
    let state = match alert.silenced_until_ms {
        Some(until) => format!("{}, silent until {}", alert.state, terminal::time(until)),
        None => alert.state.clone(),
    };
    vec![
        alert.id.into(),
        priority_word(alert.priority).into(),
        state.into(),
        terminal::time(alert.since_ms).into(),
        alert.sentence.as_str().into(),
        cell(&alert.acknowledged_by),
    ]
}

fn priority_word(priority: api::alert::Priority) -> String {
    match serde_json::to_value(priority) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

impl Silence {
    pub async fn run(self, place: &Place) -> Result<()> {
        let client = Client::of(place)?;
        match self {
            Self::List => {
                let body = client.get(path::SILENCES).await?;
                place.shown(&body, |page: Silences| {
                    let row = |silence: &api::alert::Silence| -> Vec<Cell> {
                        let NewSilence { rule, subject, until_ms, reason } = &silence.what;
                        vec![
                            silence.id.into(),
                            rule.as_deref().unwrap_or("any").into(),
                            subject.as_deref().unwrap_or("any").into(),
                            terminal::time(*until_ms).into(),
                            reason.as_str().into(),
                            silence.by.as_str().into(),
                        ]
                    };
                    let names = ["silence", "rule", "subject", "until", "why", "by"];
                    let rows = page.silences.iter().map(row).collect();
                    table::list(&names, rows, "silence", Format::Table)
                })
            }
            Self::Create { rule, subject, time, reason } => {
                let until_ms = now_ms() + time;
                let new = NewSilence { rule, subject, until_ms, reason };
                let body = client.post(path::SILENCES, &new).await?;
                place.answer(&body, || format!("silent until {}", terminal::time(until_ms)))?;
                place.next("plimsoll silence list; plimsoll silence end ID ends it before its time")
            }
            Self::End { id } => {
                let at = segment(path::SILENCES, &id.to_string(), Some("end"))?;
                let body = client.post(&at, &serde_json::json!({})).await?;
                place.answer(&body, || format!("silence {id} has ended"))
            }
        }
    }
}

impl Rule {
    pub async fn run(self, place: &Place) -> Result<()> {
        let client = Client::of(place)?;
        match self {
            Self::List => {
                let body = client.get(path::ALERT_RULES).await?;
                place.shown(&body, |page: Rules| {
                    let rows = page.rules.iter().map(rule_row).collect();
                    let names = ["rule", "priority", "when", "for", "every", "what", "on"];
                    table::list(&names, rows, "rule", Format::Table)
                })
            }
            Self::Set { file } => {
                let text = std::fs::read(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                let rule: api::alert::Rule = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is no rule", file.display()))?;
                let body = client.post(path::ALERT_RULES, &rule).await?;
                place.answer(&body, || format!("rule {} is set", rule.id))?;
                place.next("plimsoll rule list")
            }
            Self::Remove { id } => {
                let at = segment(path::ALERT_RULES, &id, Some("delete"))?;
                let body = client.post(&at, &serde_json::json!({})).await?;
                place.answer(&body, || format!("rule {id} is taken away"))
            }
        }
    }
}

fn rule_row(rule: &api::alert::Rule) -> Vec<Cell> {
    let when = match rule.when {
        Condition::Above(limit) => format!("above {limit}"),
        Condition::Below(limit) => format!("below {limit}"),
        Condition::Absent => "absent".into(),
    };
    vec![
        rule.id.as_str().into(),
        priority_word(rule.priority).into(),
        when.into(),
        terminal::span(rule.for_ms).into(),
        terminal::span(rule.every_ms).into(),
        rule.sentence.as_str().into(),
        if rule.enabled { "yes" } else { "no" }.into(),
    ]
}

impl Report {
    pub async fn run(self, place: &Place) -> Result<()> {
        let Self::Weekly { until } = self;
        let until = until.map(|until| until.as_millisecond().to_string());
        let at = with_words(path::WEEKLY_REPORT, [("until_ms", until)])?;
        let body = Client::of(place)?.get(&at).await?;
        if place.json {
            tell!("{}", String::from_utf8_lossy(&body));
            return Ok(());
        }
        tell!("{}", laid_out(&read(&body)?));
        Ok(())
    }
}

fn laid_out(report: &WeeklyReport) -> String {
    let mut text = format!(
        "{}: {} to {}\n",
        report.site,
        terminal::time(report.from_ms),
        terminal::time(report.until_ms)
    );
    let numbers = [
        ("devices and gateways", report.devices),
        ("enrolled", report.enrolled),
        ("heard in the week", report.heard),
        ("silent", report.silent.len() as u64),
        ("quarantined", report.quarantined),
        ("revoked", report.revoked),
        ("readings", report.readings),
        ("gaps", report.gaps),
        ("messages not believed", report.quarantined_messages),
    ];
    for (what, number) in numbers {
        text += &format!("  {number:>12} {what}\n");
    }
    let mut counted = |title: &str, counts: &std::collections::BTreeMap<String, u64>| {
        if !counts.is_empty() {
            text += &format!("{title}:\n");
        }
        for (what, number) in counts {
            text += &format!("  {number:>12} {}\n", table::plain(what));
        }
    };
    counted("versions", &report.versions);
    counted("alerts", &report.alerts_by_priority);
    counted("acts", &report.acts);
    counted("invariants that did not hold", &report.violations);
    for rollout in &report.rollouts {
        text += &format!(
            "rollout {}: {}, {} of {} proven, {} failed, {} went back\n",
            rollout.id,
            rollout.phase,
            rollout.proven,
            rollout.cohort,
            rollout.failed,
            rollout.went_back
        );
    }
    text.trim_end().to_owned()
}
