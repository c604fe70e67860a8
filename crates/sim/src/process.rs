//! Processes of the product, each with a log of its own; ended when dropped.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Where the product's executables lie: beside this one.
pub fn binary(name: &str) -> Result<PathBuf> {
    let mut dir = std::env::current_exe()?;
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    ensure!(path.exists(), "no `{}`: build it first (`make build`)", path.display());
    Ok(path)
}

/// Runs a command to its end and returns what it printed.
pub fn run_to_end(name: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(binary(name)?).args(args).stdin(Stdio::null()).output()?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        bail!(
            "`{name} {}` failed ({}): {stdout}{}",
            args.join(" "),
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(stdout)
}

#[derive(Debug)]
pub struct Process {
    pub name: String,
    program: String,
    args: Vec<String>,
    log: PathBuf,
    child: Child,
    pub starts: u32,
}

impl Process {
    pub fn start(name: &str, program: &str, args: &[String], log: &Path) -> Result<Self> {
        let child = spawn(program, args, log)?;
        Ok(Self {
            name: name.to_owned(),
            program: program.to_owned(),
            args: args.to_vec(),
            log: log.to_owned(),
            child,
            starts: 1,
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.program, &self.args, &self.log)?;
        self.starts += 1;
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(rustix::process::kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// SIGTERM, then waits for a clean end.
    pub fn end(&mut self, within: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.wait(within)
    }

    pub fn wait(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(
                    status.success(),
                    "{} ended with {status}; its log is {}",
                    self.name,
                    self.log.display()
                );
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{} did not end within {within:?}; its log is {}", self.name, self.log.display())
    }

    /// Fails when the process has ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended by itself with {status}; its log is {}",
                self.name,
                self.log.display()
            ),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &str, args: &[String], log: &Path) -> Result<Child> {
    let file = File::options().create(true).append(true).open(log)?;
    Command::new(binary(program)?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}

/// A recorder process: like a [`Process`], with orders on its standard input, each answered.
#[derive(Debug)]
pub struct Recorder {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
}

impl Recorder {
    pub fn start(args: &[String], log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let mut child = Command::new(binary("plimsoll-sim")?)
            .arg("recorder")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()?;
        let orders = child.stdin.take().expect("it was piped");
        let answers = BufReader::new(child.stdout.take().expect("it was piped"));
        let mut recorder = Self { child, orders, answers };
        recorder.expect("recording")?;
        Ok(recorder)
    }

    pub fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}")?;
        self.expect(&format!("done {order}"))
    }

    fn expect(&mut self, wanted: &str) -> Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line.trim_end() == wanted, "expected {wanted:?} of the recorder, found {line:?}");
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until the answer is yes, or the deadline has passed.
pub fn until(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if ask()? {
            return Ok(start.elapsed());
        }
        ensure!(start.elapsed() < within, "waited {within:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
