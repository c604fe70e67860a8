//! `make fuzz`: every target for some seconds, with a report of what was really tried.

use anyhow::{Context, Result, bail};
use fuzz::memory::Counting;
use fuzz::targets::Target;
use fuzz::{corpus, run, targets};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

#[global_allocator]
static MEMORY: Counting = Counting;

const USAGE: &str = "fuzz [--seconds N] [--seed N] [--target NAME] [--keep] [FILE]
  --seconds N    how long each target runs (60)
  --seed N       of the mutations; a run prints the one that it used
  --target NAME  only this one
  --keep         write inputs that ended in a new way to fuzz/corpus
  FILE           run this one input and say how it ends (needs --target)";

const HEADER: &str = "target           executions   past first   accepted   ends  corpus    peak B";

struct Options {
    seconds: u64,
    seed: u64,
    target: Option<String>,
    keep: bool,
    file: Option<String>,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let options = options(std::env::args().skip(1))?;
    let named = |target: &Target| options.target.as_deref().is_none_or(|name| name == target.name);
    let chosen: Vec<Target> = targets::all().into_iter().filter(named).collect();
    if chosen.is_empty() {
        let names: Vec<_> = targets::all().iter().map(|target| target.name).collect();
        bail!("expected a target of {}, found {:?}", names.join(", "), options.target);
    }
    if let Some(file) = &options.file {
        let input = std::fs::read(file).with_context(|| format!("reading {file}"))?;
        let [target] = chosen.as_slice() else { bail!("expected --target with a file") };
        let end = (target.run)(&input);
        println!("{} bytes passed {} parser(s): {}", input.len(), end.depth, end.words);
        return Ok(());
    }
    // A panic is caught and told with its input; its own words would stand in the middle of the table.
    std::panic::set_hook(Box::new(|_| ()));
    if let [target] = chosen.as_slice() {
        println!("seed {}, {} s\n{HEADER}", options.seed, options.seconds);
        return one(target, &options);
    }
    println!("seed {}, {} s each\n{HEADER}", options.seed, options.seconds);
    all(chosen, &options)
}

/// Every target in a process of its own, since memory is counted by process; as many at a time as there are processors.
fn all(targets: Vec<Target>, options: &Options) -> Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let queue = Mutex::new(targets.into_iter());
    let next = || queue.lock().expect("taking the next target does not panic").next();
    let work = || -> Result<()> {
        while let Some(target) = next() {
            let mut command = Command::new(&program);
            command.args(["--target", target.name]);
            command.args(["--seconds", &options.seconds.to_string()]);
            command.args(["--seed", &options.seed.to_string()]);
            if options.keep {
                command.arg("--keep");
            }
            let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            // Its own first lines are the head of the table, which stands already.
            said.lines().skip(HEADER.lines().count() + 1).for_each(|row| println!("{row}"));
            if !output.status.success() {
                bail!("target {} ended with {}", target.name, output.status);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|w| w.join().expect("a worker does not panic"));
        // All are waited for, and the first failure is told.
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

fn one(target: &Target, options: &Options) -> Result<()> {
    let inputs = corpus::load(target)?;
    let kept = inputs.len();
    let end = Instant::now() + Duration::from_secs(options.seconds);
    // The clock is asked once in a while: it costs as much as a small parser.
    let more = |executions: u64| !executions.is_multiple_of(64) || Instant::now() < end;
    let report = run::run(target, inputs, options.seed, more).or_else(|broken| {
        let file = format!("target/fuzz-{}-broken.bin", target.name);
        std::fs::write(&file, &broken.input).with_context(|| format!("writing {file}"))?;
        let hex: String = broken.input.iter().map(|byte| format!("{byte:02x}")).collect();
        bail!(
            "{}, seed {}: {} (input: {file}; again: make fuzz ARGS=\"--target {} {file}\")\n{hex}",
            target.name,
            options.seed,
            broken.what,
            target.name
        )
    })?;
    println!(
        "{:14} {:>12} {:>12} {:>10} {:>6} {:>7} {:>9}",
        target.name,
        report.executions,
        report.past_first,
        report.accepted,
        report.ends.len(),
        kept + report.found.len(),
        report.peak_bytes
    );
    if options.keep {
        report.found.iter().try_for_each(|input| corpus::keep(target, input))?;
    }
    Ok(())
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options> {
    // Each run begins elsewhere unless it is told where: its seed is printed.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = now.map_or(1, |elapsed| elapsed.as_secs());
    let mut options = Options { seconds: 60, seed, target: None, keep: false, file: None };
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("expected a value after {arg}"));
        match arg.as_str() {
            "--seconds" => options.seconds = value()?.parse().context("expected --seconds N")?,
            "--seed" => options.seed = value()?.parse().context("expected --seed N")?,
            "--target" => options.target = Some(value()?),
            "--keep" => options.keep = true,
            file if !file.starts_with('-') => options.file = Some(file.to_owned()),
            _ => bail!("expected:\n{USAGE}"),
        }
    }
    Ok(options)
}
