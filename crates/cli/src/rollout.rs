//! `plimsoll rollout`: a release on its way to a cohort, ordered and watched.

use crate::care::{Dry, Sure, Would};
use crate::client::{Client, read, segment, with_words};
use crate::device::duration_ms;
use crate::exit::{Ended, Exit};
use crate::place::Place;
use crate::table::{self, Format};
use crate::terminal::{self, Colour, bar, painted};
use anyhow::{Context, Result};
use api::Cell;
use api::device::{INVENTORY_PAGE_MAX, Inventory};
use api::event::{Event, Events};
use api::path;
use api::release::Releases;
use api::rollout::{
    Cohort, NewRollout, NewWave, Rollout, RolloutCommand, RolloutDevices, Rollouts,
};
use clap::Subcommand;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// How many events `show` tells.
const HISTORY: usize = 12;
/// How often `watch` looks.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub enum Command {
    /// Order a rollout: a file says what, to whom, in which waves and behind which gates (docs/updates.md).
    ///
    /// Without a file, options say it.
    #[command(
        after_help = "Example:\n  plimsoll rollout create order.json --dry-run\n  plimsoll rollout create --product pump-app --release 1.1.0 --group development --wave 10:10m --wave 100 --start"
    )]
    Create(Create),
    /// Every rollout, the newest first.
    #[command(after_help = "Example:\n  plimsoll rollout list")]
    List,
    /// Where one stands, and why.
    #[command(after_help = "Example:\n  plimsoll rollout show pump-1.1")]
    Show { rollout: String },
    /// Follow one until it ends: a bar a wave on a terminal, a line a change elsewhere.
    ///
    /// Ends with 0 if it is completed, 1 if it ended otherwise or is halted, and 6 if --timeout is over.
    #[command(after_help = "Example:\n  plimsoll rollout watch pump-1.1 --timeout 30m")]
    Watch {
        rollout: String,
        /// The longest to watch: 90s, 15m, 24h, 7d.
        #[arg(long, value_name = "TIME", value_parser = duration_ms)]
        timeout: Option<u64>,
    },
    /// What is known of each device that has been given leave.
    #[command(after_help = "Example:\n  plimsoll rollout devices pump-1.1")]
    Devices { rollout: String },
    /// Begin one that was ordered without `start`.
    #[command(after_help = "Example:\n  plimsoll rollout start pump-1.1 --dry-run")]
    Start(Careful),
    /// Give no leave any more; who has it goes on.
    #[command(after_help = "Example:\n  plimsoll rollout pause pump-1.1")]
    Pause(One),
    /// Go on after a pause, or with what is held since the registry was restored.
    ///
    /// What was halted is not resumed: take it back or end it, and order another.
    #[command(after_help = "Example:\n  plimsoll rollout resume pump-1.1")]
    Resume(One),
    /// Give no leave any more, and let nobody arm who has it. Never asks: it is for emergencies.
    #[command(after_help = "Example:\n  plimsoll rollout halt pump-1.1")]
    Halt(Careful),
    /// Take it back from every device that runs it.
    #[command(after_help = "Example:\n  plimsoll rollout revert pump-1.1 --yes")]
    Revert(Asked),
    /// End it where it stands.
    #[command(after_help = "Example:\n  plimsoll rollout abort pump-1.1 --yes")]
    Abort(Asked),
}

#[derive(clap::Args)]
pub struct One {
    rollout: String,
}

#[derive(clap::Args)]
pub struct Careful {
    rollout: String,
    #[command(flatten)]
    dry: Dry,
}

#[derive(clap::Args)]
pub struct Asked {
    rollout: String,
    #[command(flatten)]
    sure: Sure,
}

#[derive(clap::Args)]
pub struct Create {
    /// The order in JSON.
    #[arg(required_unless_present = "product", conflicts_with_all = ["product", "release", "wave", "group", "zone", "device", "id"])]
    file: Option<PathBuf>,
    /// What to roll out, without a file.
    #[arg(long, requires = "release")]
    product: Option<String>,
    #[arg(long, value_name = "VERSION", requires = "product")]
    release: Option<String>,
    /// Its name; otherwise product, version and a number.
    #[arg(long)]
    id: Option<String>,
    /// To devices of these groups only; may be given several times.
    #[arg(long)]
    group: Vec<String>,
    /// To devices of these zones only.
    #[arg(long)]
    zone: Vec<String>,
    /// To these devices only.
    #[arg(long)]
    device: Vec<String>,
    /// A wave: percent of the cohort, and how long to wait after it, as 10:15m. One of all without it.
    #[arg(long, value_name = "PERCENT[:TIME]", value_parser = wave)]
    wave: Vec<NewWave>,
    /// Begin at once.
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    dry: Dry,
}

pub async fn run(command: Command, place: &Place) -> Result<()> {
    match command {
        Command::Create(create) => create.run(place).await,
        Command::List => list(&Client::of(place)?.get(path::ROLLOUTS).await?, place.json),
        Command::Show { rollout } => {
            let client = Client::of(place)?;
            let body = client.get(&segment(path::ROLLOUTS, &rollout, None)?).await?;
            show(&body, place.json)?;
            if place.json { Ok(()) } else { history(&client, &rollout).await }
        }
        Command::Watch { rollout, timeout } => {
            let timeout = timeout.map(Duration::from_millis);
            watch(place, &rollout, timeout).await
        }
        Command::Devices { rollout } => devices(&Client::of(place)?, &rollout, place.json).await,
        Command::Pause(one) => say(place, &one.rollout, RolloutCommand::Pause).await,
        Command::Resume(one) => say(place, &one.rollout, RolloutCommand::Resume).await,
        Command::Start(one) => carefully(place, one, RolloutCommand::Start).await,
        Command::Halt(one) => carefully(place, one, RolloutCommand::Halt).await,
        Command::Revert(one) => surely(place, one, RolloutCommand::Revert).await,
        Command::Abort(one) => surely(place, one, RolloutCommand::Abort).await,
    }
}

async fn say(place: &Place, rollout: &str, command: RolloutCommand) -> Result<()> {
    let at = segment(path::ROLLOUTS, rollout, Some(command.as_str()))?;
    let body = Client::of(place)?.post(&at, &serde_json::json!({})).await?;
    show(&body, place.json)?;
    place.next(match command {
        RolloutCommand::Start | RolloutCommand::Resume | RolloutCommand::Revert => {
            return place.next(&format!("plimsoll rollout watch {rollout}"));
        }
        RolloutCommand::Pause => "plimsoll rollout resume goes on with it",
        RolloutCommand::Halt => {
            "plimsoll rollout revert takes it back; plimsoll rollout abort ends it"
        }
        RolloutCommand::Abort => "plimsoll rollout list",
    })
}

async fn carefully(place: &Place, one: Careful, command: RolloutCommand) -> Result<()> {
    let Careful { rollout, dry } = one;
    if dry.dry_run {
        dry.goes_on(&would(place, &rollout, command).await?, place)?;
        return Ok(());
    }
    say(place, &rollout, command).await
}

async fn surely(place: &Place, one: Asked, command: RolloutCommand) -> Result<()> {
    let Asked { rollout, sure } = one;
    let goes_on = match sure {
        Sure { dry_run: false, yes: true } => true,
        _ => sure.goes_on(&would(place, &rollout, command).await?, place)?,
    };
    if goes_on { say(place, &rollout, command).await } else { Ok(()) }
}

async fn would(place: &Place, rollout: &str, command: RolloutCommand) -> Result<Would> {
    let at = segment(path::ROLLOUTS, rollout, None)?;
    let rollout: Rollout = Client::of(place)?.read(&at).await?;
    Ok(foreseen(&rollout, command))
}

/// What a word would do to a rollout as it stands.
fn foreseen(rollout: &Rollout, command: RolloutCommand) -> Would {
    let Rollout { id, order, phase, counts, cohort, .. } = rollout;
    let what = format!("{} {}", order.product, order.version);
    let runs = counts.proven + counts.issued + counts.silent;
    let drawn = rollout.commands.contains(&command);
    let (reaches, sentence) = match command {
        RolloutCommand::Start => {
            (*cohort, format!("{id} begins: {what} goes to {cohort} devices, wave by wave."))
        }
        RolloutCommand::Resume => {
            let left = cohort.saturating_sub(rollout.members);
            (left, format!("{id} goes on: {left} devices of {cohort} have no leave yet."))
        }
        RolloutCommand::Pause => {
            (0, format!("{id} gives no leave any more; {} go on.", counts.issued))
        }
        RolloutCommand::Halt => (
            counts.issued,
            format!(
                "{id} halts: {} devices that have leave may not arm it any more.",
                counts.issued
            ),
        ),
        RolloutCommand::Revert => {
            (runs, format!("{id} is taken back: {what} from up to {runs} devices."))
        }
        RolloutCommand::Abort => (
            counts.issued,
            format!("{id} ends where it stands, at {} of {cohort} devices.", rollout.members),
        ),
    };
    let reaches = if drawn { reaches } else { 0 };
    let action = format!("rollout.{}", command.as_str());
    let would = Would::new(&action, format!("rollout/{id}"), reaches, sentence);
    match drawn {
        true => would,
        false => would
            .note(format!("it is {phase}: from there this is refused, and nothing would change")),
    }
}

/// `10`, `10:15m`.
fn wave(text: &str) -> Result<NewWave, String> {
    let (percent, soak) = text.split_once(':').unwrap_or((text, "0s"));
    let refused = || {
        format!(
            "expected a percent above 0 and at most 100, and a time, such as 10:15m, found {text}"
        )
    };
    let percent: f64 = percent.parse().map_err(|_| refused())?;
    if !(percent > 0.0 && percent <= 100.0) {
        return Err(refused());
    }
    Ok(NewWave { percent, count_max: None, soak_ms: duration_ms(soak).map_err(|_| refused())? })
}

impl Create {
    async fn run(self, place: &Place) -> Result<()> {
        let dry = self.dry;
        let order = self.order()?;
        let client = Client::of(place)?;
        if dry.dry_run {
            dry.goes_on(&foreseen_new(&client, &order).await?, place)?;
            return Ok(());
        }
        let body = client.post(path::ROLLOUTS, &order).await?;
        show(&body, place.json)?;
        let made: Rollout = read(&body)?;
        place.next(&match made.phase.as_str() {
            "planned" => format!("plimsoll rollout start {}", made.id),
            _ => format!("plimsoll rollout watch {}", made.id),
        })
    }

    fn order(self) -> Result<NewRollout> {
        let Self { file, product, release, id, group, zone, device, wave, start, dry: _ } = self;
        let mut order: NewRollout = match (file, product, release) {
            (Some(file), ..) => {
                let text = std::fs::read(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                // Read here first: what is wrong with it is told with its line.
                serde_json::from_slice(&text)
                    .with_context(|| format!("{} is no order of a rollout", file.display()))?
            }
            (None, Some(product), Some(version)) => {
                let whole = NewWave { percent: 100.0, count_max: None, soak_ms: 0 };
                let waves = if wave.is_empty() { vec![whole] } else { wave };
                let cohort = Cohort { zones: zone, devices: device, groups: group };
                let words =
                    serde_json::json!({ "product": product, "version": version, "waves": waves });
                NewRollout { id, cohort, ..serde_json::from_value(words)? }
            }
            _ => {
                let what = "expected the file of an order, or --product and --release";
                return Err(Ended::new(Exit::Usage, what).into());
            }
        };
        order.start |= start;
        Ok(order)
    }
}

/// What an order would come to, as things stand: by reading what the vendor has published and who says that he runs the
/// product. The site itself counts again when it is ordered.
async fn foreseen_new(client: &Client, order: &NewRollout) -> Result<Would> {
    let NewRollout { product, version, cohort, .. } = order;
    let releases: Releases = client.read(path::RELEASES).await?;
    let is_it = |release: &&api::release::Release| {
        release.product == *product && release.version == *version
    };
    let Some(release) = releases.releases.iter().find(is_it) else {
        let what = format!("no release {product} {version} that this site has verified");
        let next = "plimsoll release available --refresh shows what there is";
        return Err(Ended::new(Exit::NotFound, what).next(next).into());
    };
    let (mut after, mut reached) = (None, 0);
    loop {
        let words = [
            ("standing", Some("enrolled".to_owned())),
            ("after", after.take()),
            ("limit", Some(INVENTORY_PAGE_MAX.to_string())),
        ];
        let page: Inventory = client.read(&with_words(path::INVENTORY, words)?).await?;
        reached += page.devices.iter().filter(|line| is_of(cohort, product, line)).count() as u64;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let id = order.id.clone().unwrap_or_else(|| format!("{product}-{version}"));
    let begins = if order.start { "begins at once" } else { "waits for its start" };
    let sentence = format!("{product} {version} goes to {reached} devices, and {begins}.");
    let mut would = Would::new("rollout.create", format!("rollout/{id}"), reached, sentence);
    for (n, (wave, count)) in order.waves.iter().zip(targets(&order.waves, reached)).enumerate() {
        let soak = terminal::span(wave.soak_ms);
        would = would.note(format!("wave {}: {count} devices in all, then {soak}", n + 1));
    }
    Ok(would.note(format!("hardware: {}", release.hardware.join(" "))))
}

fn is_of(cohort: &Cohort, product: &str, line: &api::device::DeviceLine) -> bool {
    let names = |names: &[String], name: &String| names.is_empty() || names.contains(name);
    line.product.as_deref() == Some(product)
        && names(&cohort.zones, &line.zone)
        && names(&cohort.devices, &line.id)
        && names(&cohort.groups, &line.group)
}

/// How many devices each wave has, with those before. As the site counts: a share of a cohort is rounded up.
fn targets(waves: &[NewWave], cohort: u64) -> Vec<u64> {
    let target = |wave: &NewWave| {
        let share = (wave.percent * 10_000.0).round() as u128;
        let count = (u128::from(cohort) * share).div_ceil(1_000_000) as u64;
        count.min(wave.count_max.unwrap_or(u64::MAX)).min(cohort)
    };
    waves.iter().map(target).collect()
}

/// Until it ends. What ended it decides how the command ends.
async fn watch(place: &Place, rollout: &str, timeout: Option<Duration>) -> Result<()> {
    let client = Client::of(place)?;
    let at = segment(path::ROLLOUTS, rollout, None)?;
    let on_terminal = terminal::out_is_terminal() && !place.json;
    let start = std::time::Instant::now();
    let (mut drawn, mut told) = (0, String::new());
    let ended = loop {
        let body = client.get(&at).await?;
        let now: Rollout = read(&body)?;
        match (place.json, on_terminal) {
            (true, _) => {
                let line = String::from_utf8_lossy(&body).into_owned();
                if line != told {
                    tell!("{line}");
                    told = line;
                }
            }
            (_, true) => drawn = draw(&picture(&now), drawn),
            (_, false) => {
                let line = line(&now);
                if line != told {
                    tell!("{line}");
                    told = line;
                }
            }
        }
        if is_over(&now.phase) {
            break now;
        }
        if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            let what = format!("{rollout} is {} and not over in time", now.phase);
            return Err(Ended::new(Exit::Unreachable, what).into());
        }
        tokio::time::sleep(LOOK).await;
    };
    if ended.phase == "planned" {
        let next = format!("plimsoll rollout start {rollout}");
        let what = format!("{rollout} has not begun");
        return Err(Ended::new(Exit::Conflict, what).next(next).into());
    }
    if ended.phase == "completed" {
        return place.next(&format!(
            "plimsoll evidence export --subject rollout/{rollout} --out {rollout}.json"
        ));
    }
    let why =
        ended.why.as_deref().map(|why| format!(": {}", table::plain(why))).unwrap_or_default();
    Err(Ended::new(Exit::Failed, format!("{rollout} is {}{why}", ended.phase))
        .next(format!("plimsoll rollout show {rollout}; plimsoll rollout devices {rollout}"))
        .into())
}

/// Nothing more happens by itself. What halts and is taken back by itself goes on to `reverting`.
fn is_over(phase: &str) -> bool {
    matches!(phase, "completed" | "halted" | "reverted" | "aborted" | "planned")
}

/// One line that says all that changes.
fn line(rollout: &Rollout) -> String {
    let Rollout { id, phase, wave, waves, members, counts, .. } = rollout;
    let known = known(rollout);
    let stage = rollout.stage.as_deref().map(|stage| format!(", {stage}")).unwrap_or_default();
    format!(
        "{id} {phase}{stage}: wave {wave} of {waves}, {known} of {members} devices known, {} proven, {} failed",
        counts.proven, counts.failed
    )
}

fn known(rollout: &Rollout) -> u64 {
    rollout.members.saturating_sub(rollout.counts.issued).min(
        rollout.counts.proven
            + rollout.counts.had
            + rollout.counts.failed
            + rollout.counts.silent
            + rollout.counts.went_back
            + rollout.counts.stuck
            + rollout.counts.back
            + rollout.counts.back_silent,
    )
}

/// A bar a wave: how many of its devices have shown an outcome.
fn picture(rollout: &Rollout) -> Vec<String> {
    let Rollout { id, order, phase, why, next, next_at_ms, .. } = rollout;
    let shown = painted(phase, Colour::of(phase), true);
    let mut lines = vec![format!("{id}: {} {} is {shown}", order.product, order.version)];
    let (mut before, known) = (0, known(rollout));
    for (n, target) in targets(&order.waves, rollout.cohort).into_iter().enumerate() {
        let of = target.saturating_sub(before);
        let done = known.saturating_sub(before).min(of);
        lines.push(format!("  wave {:<2} {} {done} of {of}", n + 1, bar(done, of)));
        before = before.max(target);
    }
    if let Some(why) = why {
        lines.push(format!("  {}", table::plain(why)));
    }
    if let Some(next) = next {
        let when = next_at_ms.map(|at| format!(" ({})", terminal::time(at))).unwrap_or_default();
        lines.push(format!("  next: {}{when}", table::plain(next)));
    }
    lines
}

/// In the place of what was drawn before. Returns how many lines there are now.
fn draw(lines: &[String], before: usize) -> usize {
    let mut out = std::io::stdout().lock();
    if before > 0 {
        let _ = write!(out, "\u{1b}[{before}A");
    }
    for line in lines {
        let line = fitting(line, terminal::width().map(usize::from));
        let _ = writeln!(out, "\u{1b}[K{line}");
    }
    let _ = write!(out, "\u{1b}[J");
    let _ = out.flush();
    lines.len()
}

/// A line that wraps would be drawn beside its place.
fn fitting(line: &str, width: Option<usize>) -> String {
    match width {
        // Colours are few bytes that take no column: a line that has some is cut a little early at the worst.
        Some(width) if line.chars().count() > width => {
            line.chars().take(width.saturating_sub(1)).collect()
        }
        _ => line.to_owned(),
    }
}

fn show(body: &[u8], json: bool) -> Result<()> {
    if json {
        tell!("{}", String::from_utf8_lossy(body));
        return Ok(());
    }
    let rollout: Rollout = read(body)?;
    let Rollout { id, order, phase, stage, why, wave, waves, cohort, members, counts, .. } =
        rollout;
    tell!("{id}: {} {} is {phase}", order.product, order.version);
    if let Some(stage) = stage {
        tell!("  wave {wave} of {waves} is {stage}");
    }
    if let Some(why) = why {
        tell!("  {why}");
    }
    tell!("  {members} of {cohort} devices are in the waves so far");
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
        tell!("  {count:>6} {what}");
    }
    Ok(())
}

/// The newest events, so that it is told why it halted also when it is long taken back. How it went on with single devices is
/// told by `devices`.
async fn history(client: &Client, rollout: &str) -> Result<()> {
    let at = with_words(path::EVENTS, [("subject", Some(format!("rollout/{rollout}")))])?;
    let page: Events = client.read(&at).await?;
    let of_all = |event: &&Event| event.action.starts_with("rollout.");
    let told: Vec<&Event> = page.events.iter().filter(of_all).collect();
    tell!("  what happened:");
    for event in &told[told.len().saturating_sub(HISTORY)..] {
        let time = terminal::time(event.at_ms);
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
        tell!("    {time}  {:<10} {word}{detail}", event.actor);
    }
    Ok(())
}

fn list(body: &[u8], json: bool) -> Result<()> {
    if json {
        tell!("{}", String::from_utf8_lossy(body));
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
    let mut after = None;
    loop {
        let at = segment(path::ROLLOUTS, rollout, Some("devices"))?;
        let at = with_words(&at, [("after", after.take())])?;
        let page: RolloutDevices = client.read(&at).await?;
        all.extend(page.devices);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if json {
        let page = RolloutDevices { devices: all, next: None };
        tell!("{}", serde_json::to_string(&page)?);
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
