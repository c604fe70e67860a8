//! `plimsoll device`: who there is, what each one lived through, and how it stands.

use crate::care::{Dry, Sure, Would};
use crate::client::{self, Client, segment, with_words};
use crate::exit::{Ended, Exit};
use crate::place::Place;
use crate::table::{self, Format, cell, plain};
use crate::terminal::{self, Colour, Progress, painted};
use crate::up;
use anyhow::{Context, Result};
use api::device::{Device, DeviceLine, History, INVENTORY_PAGE_MAX, Inventory, NewGroup};
use api::{Cell, Standing, path};
use clap::Subcommand;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Command {
    /// Devices and gateways with their standing, group and version; all of them, or those that are looked for.
    #[command(
        after_help = "Example:\n  plimsoll device list --zone hall --standing quarantined\n  plimsoll device list --search pump --silent 1h"
    )]
    List(List),
    /// One device as it is now: identity, software, what is known against it.
    #[command(after_help = "Example:\n  plimsoll device show pump-1")]
    Show { device: String },
    /// What a device lived through, oldest first: keys, firmware, gateways, standings, refusals, gaps, acts.
    #[command(after_help = "Example:\n  plimsoll device history pump-1 --since 7d --kind firmware")]
    History {
        device: String,
        /// Only what happened in so long a time: 90s, 15m, 24h, 7d.
        #[arg(long, value_name = "TIME", value_parser = duration_ms)]
        since: Option<u64>,
        /// key, firmware, gateway, standing, refusal, gap, rollout or act.
        #[arg(long)]
        kind: Option<String>,
        /// The most to show.
        #[arg(long, default_value_t = 200)]
        limit: usize,
        /// Go on behind a page before.
        #[arg(long)]
        after: Option<String>,
    },
    /// Everything about one device in a file, with what proves it: `plimsoll evidence verify` reads its evidence.
    #[command(after_help = "Example:\n  plimsoll device forensics pump-1 --out pump-1.json")]
    Forensics {
        device: String,
        #[arg(long)]
        out: PathBuf,
    },
    /// What a device runs, by its own newest word.
    #[command(after_help = "Example:\n  plimsoll device software pump-1")]
    Software { device: String },
    /// Put a serial number on the ownership list: whoever proves it may enrol. Or all that a factory's signed list names.
    ///
    /// The same list again changes nothing. What is listed otherwise already is refused, told, and ends it with 5; the rest
    /// is admitted all the same.
    #[command(
        after_help = "Example:\n  plimsoll device allow PUMP-1 --zone hall\n  plimsoll device allow --list w12.admission --key factory.pub"
    )]
    Allow(Allow),
    /// Say to which group a device belongs: development, pilot, production, or a name of your own.
    #[command(after_help = "Example:\n  plimsoll device group pump-1 pilot")]
    Group { device: String, group: String },
    /// Cut a device off; it can be released again.
    #[command(after_help = "Example:\n  plimsoll device quarantine pump-1 --dry-run")]
    Quarantine {
        device: String,
        #[command(flatten)]
        dry: Dry,
    },
    /// Let a quarantined device back.
    #[command(after_help = "Example:\n  plimsoll device release pump-1")]
    Release { device: String },
    /// End a device's identity for good. Its live session is cut.
    #[command(
        after_help = "Example:\n  plimsoll device revoke pump-1 --dry-run\n  plimsoll device revoke pump-1 --yes"
    )]
    Revoke {
        device: String,
        #[command(flatten)]
        sure: Sure,
    },
    /// Retire every key of a device: it enrols again with its birth certificate.
    #[command(after_help = "Example:\n  plimsoll device reenrol pump-1 --yes")]
    Reenrol {
        device: String,
        #[command(flatten)]
        sure: Sure,
    },
    /// End a device's life here: identity dead, off the ownership list.
    #[command(after_help = "Example:\n  plimsoll device decommission pump-1 --yes")]
    Decommission {
        device: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(clap::Args)]
pub struct List {
    /// Found anywhere in id or serial number.
    #[arg(long)]
    search: Option<String>,
    #[arg(long)]
    site: Option<String>,
    #[arg(long)]
    zone: Option<String>,
    #[arg(long)]
    group: Option<String>,
    /// listed, enrolled, quarantined or revoked.
    #[arg(long)]
    standing: Option<String>,
    /// device or gateway.
    #[arg(long, value_parser = ["device", "gateway"])]
    role: Option<String>,
    /// Of its first product.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// By which it was heard last.
    #[arg(long)]
    gateway: Option<String>,
    /// Not heard for so long: 90s, 15m, 24h, 7d.
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    silent: Option<u64>,
    /// The most to show.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Go on behind this device.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(clap::Args)]
pub struct Allow {
    /// The serialNumber of its IDevID.
    #[arg(required_unless_present = "list")]
    serial: Option<String>,
    #[arg(long, default_value = "device", value_parser = ["device", "gateway"])]
    role: String,
    #[arg(long, default_value = up::ZONE)]
    zone: String,
    /// production, without one.
    #[arg(long)]
    group: Option<String>,
    /// A factory's signed list (docs/factory.md).
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with_all = ["serial", "role", "zone", "group"])]
    list: Option<PathBuf>,
    /// The public key of the factory that is believed.
    #[arg(long, value_name = "FILE", requires = "list")]
    key: Option<PathBuf>,
    #[command(flatten)]
    dry: Dry,
}

pub async fn run(command: Command, place: &Place) -> Result<()> {
    match command {
        Command::List(list) => list.run(place).await,
        Command::Show { device } => show(place, &device).await,
        Command::History { device, since, kind, limit, after } => {
            let from = since.map(|ms| (crate::operator::now_ms().saturating_sub(ms)).to_string());
            let limit = Some(limit.to_string());
            let words = [("from_ms", from), ("kind", kind), ("after", after), ("limit", limit)];
            let at = segment(path::DEVICES, &device, Some("history"))?;
            history(place, &with_words(&at, words)?).await
        }
        Command::Forensics { device, out } => forensics(place, &device, &out).await,
        Command::Software { device } => software(place, &device).await,
        Command::Allow(allow) => allow.run(place).await,
        Command::Group { device, group } => {
            let client = Client::of(place)?;
            let at = segment(path::DEVICES, &device, Some("group"))?;
            let body = client.post(&at, &NewGroup { group: group.clone() }).await?;
            place.answer(&body, || format!("{device} is in group {group}"))
        }
        Command::Quarantine { device, dry } => {
            let client = Client::of(place)?;
            if dry.dry_run && !dry.goes_on(&would(&client, "quarantine", &device).await?, place)? {
                return Ok(());
            }
            change(&client, place, &device, "quarantine").await?;
            place.next(&format!(
                "plimsoll device history {device}; plimsoll device release {device} lets it back"
            ))
        }
        Command::Release { device } => change(&Client::of(place)?, place, &device, "release").await,
        Command::Revoke { device, sure } => surely(place, &device, "revoke", sure).await,
        Command::Reenrol { device, sure } => surely(place, &device, "reenrol", sure).await,
        Command::Decommission { device, sure } => {
            surely(place, &device, "decommission", sure).await
        }
    }
}

async fn surely(place: &Place, device: &str, verb: &str, sure: Sure) -> Result<()> {
    let client = Client::of(place)?;
    let would = match sure {
        // What narrows has to work when much else is broken: who said yes does not wait for a reading.
        Sure { dry_run: false, yes: true } => Would::new("", String::new(), 1, String::new()),
        _ => would(&client, verb, device).await?,
    };
    if !sure.goes_on(&would, place)? {
        return Ok(());
    }
    change(&client, place, device, verb).await?;
    place.next(&format!("plimsoll evidence log --subject device/{device} shows what is on record"))
}

async fn change(client: &Client, place: &Place, device: &str, verb: &str) -> Result<()> {
    let at = segment(path::DEVICES, device, Some(verb))?;
    let body = client.post(&at, &serde_json::json!({})).await?;
    place.answer(&body, || format!("{device}: {verb} done"))
}

/// What a verb would do to a device as it stands.
async fn would(client: &Client, verb: &str, device: &str) -> Result<Would> {
    let device: Device = client.read(&segment(path::DEVICES, device, None)?).await?;
    Ok(foreseen(verb, &device))
}

fn foreseen(verb: &str, device: &Device) -> Would {
    let DeviceLine { id, role, zone, group, standing, .. } = &device.line;
    let what = match verb {
        "quarantine" => "is cut off until it is released",
        "revoke" => "loses its identity for good, and its session is cut",
        "reenrol" => "loses its keys and has to enrol again by its birth certificate",
        "decommission" => "ends its life here, identity and place on the ownership list",
        _ => "changes",
    };
    let (role, is) = (role.as_str(), standing_word(*standing));
    let sentence = format!("{id} ({role}, zone {zone}, group {group}, {is}) {what}.");
    let already = matches!((verb, standing), ("quarantine", Standing::Quarantined))
        || matches!((verb, standing), ("revoke" | "quarantine", Standing::Revoked));
    let keys = device.identity.keys.iter().filter(|key| key.retired_at_ms.is_none()).count();
    let would = Would::new(
        &format!("device.{verb}"),
        format!("device/{id}"),
        u64::from(!already),
        sentence,
    );
    let would = would.note(format!("keys that count now: {keys}"));
    match already {
        true => would.note(format!("it is {is} already: nothing would change")),
        false => would,
    }
}

fn standing_word(standing: Standing) -> String {
    match serde_json::to_value(standing) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

impl List {
    async fn run(self, place: &Place) -> Result<()> {
        let client = Client::of(place)?;
        let mut all = Inventory { devices: Vec::new(), total: 0, next: self.after.clone() };
        loop {
            let room = (self.limit - all.devices.len()).min(INVENTORY_PAGE_MAX);
            let page: Inventory = client.read(&self.page(all.next.take(), room)?).await?;
            all.total = page.total;
            all.devices.extend(page.devices);
            all.next = page.next;
            if all.next.is_none() || all.devices.len() >= self.limit {
                break;
            }
        }
        if place.json {
            tell!("{}", serde_json::to_string(&all)?);
            return Ok(());
        }
        let names =
            ["id", "role", "zone", "group", "standing", "product", "version", "gateway", "seen"];
        let rows = all.devices.iter().map(|line| line_row(line, self.format)).collect();
        table::list(&names, rows, "device", self.format)?;
        if let Some(next) = all.next {
            let total = all.total;
            place.next(&format!("{total} in all: --after {next} shows those behind"))?;
        }
        Ok(())
    }

    fn page(&self, after: Option<String>, limit: usize) -> Result<String> {
        let of = |word: &Option<String>| word.clone();
        let words = [
            ("search", of(&self.search)),
            ("site", of(&self.site)),
            ("zone", of(&self.zone)),
            ("group", of(&self.group)),
            ("standing", of(&self.standing)),
            ("role", of(&self.role)),
            ("version", of(&self.version)),
            ("gateway", of(&self.gateway)),
            ("silent_s", self.silent.map(|ms| (ms / 1000).to_string())),
            ("after", after),
            ("limit", Some(limit.to_string())),
        ];
        with_words(path::INVENTORY, words)
    }
}

fn line_row(line: &DeviceLine, format: Format) -> Vec<Cell> {
    vec![
        line.id.as_str().into(),
        line.role.as_str().into(),
        line.zone.as_str().into(),
        line.group.as_str().into(),
        standing_word(line.standing).into(),
        cell(&line.product),
        cell(&line.version),
        cell(&line.gateway),
        table::time(line.seen_at_ms, format),
    ]
}

async fn show(place: &Place, device: &str) -> Result<()> {
    let body = Client::of(place)?.get(&segment(path::DEVICES, device, None)?).await?;
    if place.json {
        tell!("{}", String::from_utf8_lossy(&body));
        return Ok(());
    }
    let Device { line, identity, software, concerns } = client::read(&body)?;
    let standing = standing_word(line.standing);
    let shown = painted(&standing, Colour::of(&standing), terminal::out_is_terminal());
    tell!(
        "{}: {} of zone {} in group {}, {shown}",
        line.id,
        line.role.as_str(),
        line.zone,
        line.group
    );
    tell!("  serial number  {}", plain(&identity.serial));
    if let Some(seen) = line.seen_at_ms {
        let by = line.gateway.as_deref().unwrap_or("nobody named");
        tell!("  heard last     {}, by {by}", terminal::time(seen));
    }
    for key in identity.keys.iter().filter(|key| key.retired_at_ms.is_none()) {
        let until = u64::try_from(key.not_after_ms).unwrap_or(0);
        tell!(
            "  key            {} {}…, until {}",
            key.purpose.as_str(),
            short(&key.id),
            terminal::time(until)
        );
    }
    for component in software.iter().flat_map(|software| &software.components) {
        let api::release::Component { product, version, boot, .. } = component;
        tell!("  runs           {product} {version} ({boot})");
    }
    for concern in &concerns {
        let concern = plain(concern);
        tell!(
            "  concern        {}",
            painted(&concern, Some(Colour::Care), terminal::out_is_terminal())
        );
    }
    Ok(())
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

async fn history(place: &Place, at: &str) -> Result<()> {
    let body = Client::of(place)?.get(at).await?;
    if place.json {
        tell!("{}", String::from_utf8_lossy(&body));
        return Ok(());
    }
    let history: History = client::read(&body)?;
    let row = |moment: &api::device::Moment| -> Vec<Cell> {
        vec![
            terminal::time(moment.at_ms).into(),
            moment.kind.as_str().into(),
            moment.sentence.as_str().into(),
            cell(&moment.actor),
            moment.event.into(),
        ]
    };
    let names = ["when", "kind", "what", "who", "event"];
    table::list(&names, history.moments.iter().map(row).collect(), "moment", Format::Table)?;
    match history.next {
        Some(next) => place.next(&format!("there are more: --after {next}")),
        None => Ok(()),
    }
}

async fn forensics(place: &Place, device: &str, out: &Path) -> Result<()> {
    let at = segment(path::DEVICES, device, Some("forensics"))?;
    let bytes = download(&Client::of(place)?, &at, "forensics").await?;
    disk::replace(&disk::RealDisk, out, &bytes)
        .with_context(|| format!("cannot write {}", out.display()))?;
    tell!("{}: {}", out.display(), terminal::bytes(bytes.len() as u64));
    let out = out.display();
    place
        .next(&format!("plimsoll evidence verify {out} --key site/evidence.pub proves it, offline"))
}

/// What no answer is larger than.
const DOWNLOAD_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// A long answer, with its progress on a terminal.
pub async fn download(client: &Client, at: &str, what: &str) -> Result<Vec<u8>> {
    let mut response = client.send_get(at).await?;
    let mut progress = Progress::new(what, response.content_length());
    let mut bytes = Vec::new();
    let cut = || Ended::new(Exit::Unreachable, "the answer was cut off: ask again");
    while let Some(chunk) = response.chunk().await.map_err(|_| cut())? {
        progress.add(chunk.len() as u64);
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > DOWNLOAD_BYTES_MAX {
            let what = format!("expected at most {DOWNLOAD_BYTES_MAX} bytes, found more");
            return Err(Ended::new(Exit::Failed, what).into());
        }
    }
    Ok(bytes)
}

async fn software(place: &Place, device: &str) -> Result<()> {
    let at = segment(path::DEVICES, device, Some("software"))?;
    let body = Client::of(place)?.get(&at).await?;
    if place.json {
        tell!("{}", String::from_utf8_lossy(&body));
        return Ok(());
    }
    let said: api::release::Software = client::read(&body)?;
    for component in &said.components {
        let api::release::Component { product, version, boot, sha256, hardware, .. } = component;
        tell!("{product} {version} ({boot}) on {hardware}, sha256 {sha256}");
    }
    if let Some(api::release::Outcome { product, end, reason, rollout, .. }) = &said.outcome {
        let by = rollout.as_deref().unwrap_or("no rollout");
        let why = match reason.as_str() {
            "" => String::new(),
            reason => format!(", {}", plain(reason)),
        };
        tell!("newest install: {product} by {by}: {end}{why}");
    }
    Ok(())
}

impl Allow {
    pub async fn run(self, place: &Place) -> Result<()> {
        let Self { serial, role, zone, group, list, key, dry } = self;
        let Some(serial) = serial else {
            let (list, key) =
                list.zip(key).context("expected a serial number, or --list and --key")?;
            return allow_all(place, &list, &key, dry).await;
        };
        let sentence = format!("{serial} may enrol as a {role} in zone {zone}.");
        let would =
            Would::new("device.list", format!("device/{}", serial.to_lowercase()), 1, sentence);
        if !dry.goes_on(&would, place)? {
            return Ok(());
        }
        let mut entry = serde_json::json!({ "serial": serial, "role": role, "zone": zone });
        if let Some(group) = group {
            entry["group"] = group.into();
        }
        let body = Client::of(place)?.post(path::OWNERSHIP, &entry).await?;
        place.answer(&body, || format!("{serial} may enrol as a {role} in zone {zone}"))?;
        place.next("the device enrols by itself when it comes; plimsoll device list shows it")
    }
}

/// Serial numbers that are under way at a time. Changes that come together share a checkpoint of the evidence log.
const AT_A_TIME: usize = 16;

/// What became of a list.
#[derive(Debug, Default, serde::Serialize)]
struct Report {
    batch: String,
    admitted: u64,
    /// Listed as the list says before it came.
    were_listed: u64,
    refused: Vec<NotAdmitted>,
}

#[derive(Debug, serde::Serialize)]
struct NotAdmitted {
    serial: serde_json::Value,
    why: String,
}

async fn allow_all(place: &Place, list: &Path, key: &Path, dry: Dry) -> Result<()> {
    // Believed first, before anything is asked of the site.
    let list = crate::factory::admitted(list, key)?;
    let client = Client::of(place)?;
    let known = everybody(&client).await?;
    let entries = crate::factory::listed(&list);
    let is_new = |entry: &serde_json::Value| {
        let id = entry["serial"].as_str().unwrap_or_default().to_ascii_lowercase();
        !known.contains(&id)
    };
    let news = entries.iter().filter(|entry| is_new(entry)).count() as u64;
    let sentence =
        format!("Batch {} admits {} devices, {news} of them new here.", list.batch, entries.len());
    let would = Would::new("device.list", format!("batch/{}", list.batch), news, sentence);
    if !dry.goes_on(&would, place)? {
        return Ok(());
    }
    let mut report = Report { batch: list.batch.clone(), ..Report::default() };
    let mut progress = Progress::counting("admitting", entries.len() as u64);
    let calls = entries.iter().map(|entry| {
        let client = &client;
        async move { (entry, client.post(path::OWNERSHIP, entry).await) }
    });
    let mut calls = futures::stream::StreamExt::buffered(futures::stream::iter(calls), AT_A_TIME);
    while let Some((entry, said)) = futures::stream::StreamExt::next(&mut calls).await {
        progress.add(1);
        match said {
            Ok(_) if is_new(entry) => report.admitted += 1,
            Ok(_) => report.were_listed += 1,
            // Of this one only. A site that is away, or says no to us, says it of all.
            Err(error) if matches!(Exit::of(&error), Exit::Conflict | Exit::Failed) => {
                let (serial, why) = (entry["serial"].clone(), error.to_string());
                report.refused.push(NotAdmitted { serial, why });
            }
            Err(error) => {
                let so_far = report.admitted + report.were_listed;
                return Err(error.context(format!(
                    "{so_far} of {} are on the list; the same command again goes on",
                    entries.len()
                )));
            }
        }
    }
    drop(progress);
    let Report { admitted, were_listed, refused, .. } = &report;
    if place.json {
        tell!("{}", serde_json::to_string(&report)?);
    } else {
        tell!(
            "batch {}: {admitted} admitted, {were_listed} were listed, {} refused",
            report.batch,
            refused.len()
        );
        for NotAdmitted { serial, why } in refused {
            tell!("  {}: {why}", serial.as_str().unwrap_or_default());
        }
    }
    match refused.len() {
        0 => place.next(
            "the devices enrol by themselves when they come; plimsoll device list shows them",
        ),
        count => {
            let what = format!("{count} of {} are not admitted", entries.len());
            Err(Ended::new(Exit::Conflict, what)
                .next("plimsoll device show ID says how they are listed")
                .into())
        }
    }
}

/// The ids of all that the site knows.
async fn everybody(client: &Client) -> Result<std::collections::HashSet<String>> {
    let (mut ids, mut after) = (std::collections::HashSet::new(), None);
    loop {
        let words = [("after", after.take()), ("limit", Some(INVENTORY_PAGE_MAX.to_string()))];
        let page: Inventory = client.read(&with_words(path::INVENTORY, words)?).await?;
        ids.extend(page.devices.into_iter().map(|line| line.id));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(ids),
        }
    }
}

/// `90s`, `15m`, `24h`, `7d`.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let refused = || format!("expected a number and s, m, h or d, such as 24h, found {text}");
    let unit = text.chars().last().ok_or_else(refused)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| refused())?;
    let ms = match unit {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(refused()),
    };
    number.checked_mul(ms).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_time_is_a_number_and_its_unit() {
        assert_eq!(duration_ms("90s"), Ok(90_000));
        assert_eq!(duration_ms("7d"), Ok(604_800_000));
        for bad in
            ["", "7", "d", "-1d", "7w", "7ä", "99999999999999999999d", "18446744073709551615d"]
        {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dry_run_says_who_it_is_and_whether_anything_would_change() {
        let device = |standing: &str| -> Device {
            serde_json::from_value(serde_json::json!({
                "line": {"id": "pump-1", "role": "device", "site": "north", "zone": "hall",
                         "group": "pilot", "standing": standing},
                "identity": {"id": "pump-1", "serial": "PUMP-1", "role": "device", "zone": "hall",
                             "standing": standing, "listed_at_ms": 0, "enrolled_at_ms": null,
                             "changed_at_ms": 0, "keys": []},
                "concerns": [],
            }))
            .unwrap()
        };
        let would = foreseen("revoke", &device("enrolled"));
        assert_eq!((would.action.as_str(), would.reaches), ("device.revoke", 1));
        assert_eq!(would.subject, "device/pump-1");
        assert_eq!(
            would.sentence,
            "pump-1 (device, zone hall, group pilot, enrolled) loses its identity for good, and its session is cut."
        );
        assert_eq!(foreseen("revoke", &device("revoked")).reaches, 0);
        assert_eq!(foreseen("quarantine", &device("quarantined")).reaches, 0);
        assert_eq!(foreseen("revoke", &device("quarantined")).reaches, 1);
    }
}
