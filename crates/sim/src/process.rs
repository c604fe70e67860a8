//! Processes of the product, each with a log of its own; ended when dropped, and never waited for without an end.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
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

/// Runs a command to its end and returns what it printed. One that has not ended in time is killed.
pub fn run_to_end(name: &str, args: &[&str], within: Duration) -> Result<String> {
    let what = format!("`{name} {}`", args.join(" "));
    output(Command::new(binary(name)?).args(args), &what, within)
}

fn output(command: &mut Command, what: &str, within: Duration) -> Result<String> {
    let end = Instant::now() + within;
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Owned(command.spawn().with_context(|| format!("cannot start {what}"))?);
    let stdout = all_of(child.0.stdout.take().expect("it was piped"));
    let stderr = all_of(child.0.stderr.take().expect("it was piped"));
    let by_then = |text: &Receiver<String>| text.recv_timeout(left(end)).ok();
    let late = || format!("{what} had not ended after {within:.1?}");
    let (stdout, stderr) = by_then(&stdout).zip(by_then(&stderr)).with_context(late)?;
    let status = child.end_by(end)?.with_context(late)?;
    ensure!(status.success(), "{what} failed ({status}): {stdout}{stderr}");
    Ok(stdout)
}

/// All that comes out of a pipe, read by a thread of its own, so that nobody waits for a pipe that is full.
fn all_of(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could not be read is missed in the text, and the exit status says the rest.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    told
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

/// A child that does not outlive its owner.
#[derive(Debug)]
struct Owned(Child);

impl Owned {
    /// SIGKILL, and nothing of it is left.
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }

    /// `None`: it still runs.
    fn end_by(&mut self, end: Instant) -> Result<Option<ExitStatus>> {
        loop {
            match self.0.try_wait()? {
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                ended_or_late => return Ok(ended_or_late),
            }
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

#[derive(Debug)]
pub struct Process {
    pub name: String,
    program: String,
    args: Vec<String>,
    log: PathBuf,
    child: Owned,
}

impl Process {
    pub fn start(name: &str, program: &str, args: &[String], log: &Path) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            program: program.to_owned(),
            args: args.to_vec(),
            log: log.to_owned(),
            child: spawn(program, args, log)?,
        })
    }

    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))
    }

    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.program, &self.args, &self.log)?;
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(rustix::process::kill_process(Pid::from_child(&self.child.0), signal)?)
    }

    /// SIGTERM, then waits for a clean end.
    pub fn end(&mut self, within: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.wait(within)
    }

    pub fn wait(&mut self, within: Duration) -> Result<()> {
        let (name, log) = (&self.name, self.log.display());
        match self.child.end_by(Instant::now() + within)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{name} ended with {status}; its log is {log}"),
            None => bail!("{name} did not end within {within:.1?}; its log is {log}"),
        }
    }

    /// Fails when the process has ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        let (name, log) = (&self.name, self.log.display());
        match self.child.0.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{name} ended by itself with {status}; its log is {log}"),
        }
    }
}

fn spawn(program: &str, args: &[String], log: &Path) -> Result<Owned> {
    let file = append_to(log)?;
    let child = Command::new(binary(program)?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    Ok(Owned(child))
}

fn append_to(log: &Path) -> Result<File> {
    let opened = File::options().create(true).append(true).open(log);
    opened.with_context(|| format!("cannot write {}", log.display()))
}

/// A recorder process: like a [`Process`], with orders on its standard input, each answered.
#[derive(Debug)]
pub struct Recorder {
    _child: Owned,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Recorder {
    pub fn start(args: &[String], log: &Path, within: Duration) -> Result<Self> {
        let mut command = Command::new(binary("plimsoll-sim")?);
        command.arg("recorder").args(args).stderr(append_to(log)?);
        Self::spawn(&mut command, within)
    }

    fn spawn(command: &mut Command, within: Duration) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = Owned(child.context("cannot start a recorder")?);
        let orders = child.0.stdin.take().expect("it was piped");
        let answers = lines_of(child.0.stdout.take().expect("it was piped"));
        let recorder = Self { _child: child, orders, answers };
        recorder.expect("recording", within)?;
        Ok(recorder)
    }

    pub fn order(&mut self, order: &str, within: Duration) -> Result<()> {
        writeln!(self.orders, "{order}")?;
        self.expect(&format!("done {order}"), within)
    }

    fn expect(&self, wanted: &str, within: Duration) -> Result<()> {
        match self.answers.recv_timeout(within) {
            Ok(line) => {
                ensure!(line == wanted, "expected {wanted:?} of a recorder, found {line:?}")
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("a recorder has not said {wanted:?} within {within:.1?}")
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("expected {wanted:?} of a recorder, but it has ended")
            }
        }
        Ok(())
    }
}

/// The lines that come out of a pipe, read by a thread of its own, one ahead of whoever takes them.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}

/// Asks again and again until the answer is yes, or the time is over.
pub fn until(what: &str, within: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + within;
    while !ask().with_context(|| format!("while it waited for this: {what}"))? {
        ensure!(Instant::now() < end, "waited {within:.1?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    #[test]
    fn a_command_that_hangs_is_ended_and_named() {
        let error = output(&mut sleeper(), "`plimsoll query`", SHORT).unwrap_err();
        assert_eq!(error.to_string(), "`plimsoll query` had not ended after 100.0ms");
        // One that says nothing more, and yet does not end.
        let mut silent = Command::new("sh");
        silent.args(["-c", "exec >&- 2>&-; exec sleep 600"]);
        let error = output(&mut silent, "`plimsoll query`", SHORT).unwrap_err();
        assert_eq!(error.to_string(), "`plimsoll query` had not ended after 100.0ms");
    }

    #[test]
    fn a_command_that_says_more_than_a_pipe_holds_is_heard_to_its_end() {
        let mut long = Command::new("sh");
        long.args(["-c", "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero"]);
        let text = output(&mut long, "`long`", Duration::from_secs(60)).unwrap();
        assert_eq!(text.len(), 300_000);
    }

    #[test]
    fn a_command_that_fails_is_told_with_all_that_it_said() {
        let mut bad = Command::new("sh");
        bad.args(["-c", "echo out; echo err >&2; exit 3"]);
        let error = output(&mut bad, "`bad`", Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.to_string(), "`bad` failed (exit status: 3): out\nerr\n");
    }

    #[test]
    fn a_recorder_that_does_not_answer_is_not_waited_for() {
        let error = Recorder::spawn(&mut sleeper(), SHORT).unwrap_err();
        assert_eq!(error.to_string(), "a recorder has not said \"recording\" within 100.0ms");
        let mut deaf = Command::new("sh");
        deaf.args(["-c", "echo recording; exec sleep 600"]);
        let mut recorder = Recorder::spawn(&mut deaf, Duration::from_secs(60)).unwrap();
        let error = recorder.order("pause dev-01", SHORT).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a recorder has not said \"done pause dev-01\" within 100.0ms"
        );
    }

    #[test]
    fn a_wait_in_vain_names_what_it_waited_for() {
        let error = until("rain", Duration::ZERO, || Ok(false)).unwrap_err();
        assert_eq!(error.to_string(), "waited 0.0ns in vain: rain");
        let error = until("rain", SHORT, || bail!("no sky")).unwrap_err();
        assert_eq!(format!("{error:#}"), "while it waited for this: rain: no sky");
    }
}
