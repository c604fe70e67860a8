//! The launcher, as it is started: agents out of slots, on trial, confirmed, hanging, gone.

use crate::application::{AGENT, Board, PATIENCE, executes, runs, until};
use agent::launch::own_dir;
use boot::{Ending, Phase, Slot};
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

/// In the place of an agent: writes its name and its number, and runs until it is told to end.
fn stand_in(name: &str) -> Vec<u8> {
    let text = "#!/bin/sh\ntrap 'exit 0' TERM\necho \"NAME $$ $*\" >> \"$2/started\"\n\
                while :; do sleep 0.05; done\n";
    text.replace("NAME", name).into_bytes()
}

struct Launcher {
    process: Child,
    dir: tempfile::TempDir,
}

impl Launcher {
    /// A device whose agent is `image`; `prepare` is what happened before the launcher starts.
    fn start(image: &[u8], trial_ms: &str, prepare: impl FnOnce(&mut Board)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(&mut Board::new(&own_dir(dir.path()), image));
        let data = dir.path().to_str().unwrap();
        let process = Command::new(AGENT)
            .args(["launch", "--data", data, "--trial-ms", trial_ms, "--end-with-stdin", "--"])
            .args(["run", data])
            .stdin(Stdio::piped())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { process, dir }
    }

    /// What the agents that were started so far wrote: a name and a number each.
    fn started(&self) -> Vec<(String, u32)> {
        let text = std::fs::read_to_string(self.dir.path().join("started")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                let words: Vec<_> = line.split(' ').collect();
                assert_eq!(words[2..], ["run", self.dir.path().to_str().unwrap()]);
                (words[0].to_owned(), words[1].parse().unwrap())
            })
            .collect()
    }

    fn until_started(&self, names: &[&str]) -> u32 {
        until(&format!("{names:?} started"), || self.started().len() >= names.len());
        let started = self.started();
        let found: Vec<_> = started.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, names);
        started.last().unwrap().1
    }

    fn board(&self) -> Board {
        Board::open(&own_dir(self.dir.path()))
    }

    fn slot(&self, slot: Slot) -> PathBuf {
        std::fs::canonicalize(self.board().path(slot)).unwrap()
    }

    fn has_said(&self, what: &str) -> bool {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap().contains(what)
    }

    fn signal(&self, signal: Signal) {
        send(self.process.id(), signal);
    }

    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            // Not to wait for a time, but to leave the processor to what is waited for.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn send(pid: u32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

#[test]
fn an_agent_runs_out_of_its_slot_and_ends_with_its_launcher_in_good_order() {
    for by_signal in [true, false] {
        let mut launcher = Launcher::start(&stand_in("one"), "60000", |_| {});
        let pid = launcher.until_started(&["one"]);
        match by_signal {
            true => launcher.signal(Signal::TERM),
            false => drop(launcher.process.stdin.take()),
        }
        assert!(launcher.wait().success());
        assert!(!runs(pid));
    }
}

#[test]
fn a_launcher_that_is_killed_takes_its_agent_along() {
    let mut launcher = Launcher::start(&stand_in("one"), "60000", |_| {});
    let pid = launcher.until_started(&["one"]);
    assert!(runs(pid));
    launcher.signal(Signal::KILL);
    launcher.wait();
    until("the agent is gone", || !runs(pid));
}

#[test]
fn an_agent_that_ends_on_trial_is_taken_back() {
    let launcher = Launcher::start(&stand_in("one"), "60000", |board| {
        board.arm(b"#!/bin/sh\nexit 1\n");
    });
    let pid = launcher.until_started(&["one"]);
    assert!(runs(pid));
    let board = launcher.board();
    assert_eq!(board.state().last().unwrap().how, Ending::NotConfirmed);
    assert_eq!((board.state().phase(), board.state().good()), (Phase::Steady, Slot::A));
}

#[test]
fn an_agent_that_hangs_on_trial_is_ended_and_taken_back() {
    let launcher = Launcher::start(&stand_in("one"), "1000", |board| board.arm(&stand_in("two")));
    let hung = launcher.until_started(&["two"]);
    let pid = launcher.until_started(&["two", "one"]);
    assert!(runs(pid) && !runs(hung));
    assert_eq!(launcher.board().state().last().unwrap().how, Ending::NotConfirmed);
}

#[test]
fn an_agent_that_confirms_itself_outlives_its_trial_and_is_started_again_when_it_ends() {
    let mut launcher =
        Launcher::start(&stand_in("one"), "60000", |board| board.arm(&stand_in("two")));
    let pid = launcher.until_started(&["two"]);
    launcher.board().confirm(Slot::B);
    until("it is seen", || launcher.has_said("has confirmed itself"));
    // It arms another one and ends: that is how it restarts.
    launcher.board().arm(&stand_in("three"));
    send(pid, Signal::TERM);
    let third = launcher.until_started(&["two", "three"]);
    // The trial of this one is not over.
    assert!(runs(third) && !runs(pid));
    assert!(launcher.has_said("ended by itself") && !launcher.has_said("is given up"));
    launcher.signal(Signal::TERM);
    assert!(launcher.wait().success());
}

#[test]
fn a_launcher_without_slots_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(AGENT)
        .args(["launch", "--data", dir.path().to_str().unwrap(), "--", "run"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap();
    assert!(last.contains("the agent's own slots in") && last.contains("provision"), "{last}");
}

/// The real executable in both slots, the second with some bytes behind it, as another version has: it runs, and the file in
/// the slot is what runs.
#[test]
fn two_builds_of_the_agent_take_turns() {
    let image = std::fs::read(AGENT).unwrap();
    let other = [&image[..], b"another version"].concat();
    let dir = tempfile::tempdir().unwrap();
    let mut board = Board::new(&own_dir(dir.path()), &image);
    board.arm(&other);
    drop(board);
    let recording = dir.path().join("r.csv");
    // An agent that needs no site: it records this host.
    let process = Command::new(AGENT)
        .args(["launch", "--data", dir.path().to_str().unwrap(), "--trial-ms", "3000", "--"])
        .args(["record", "--interval-ms", "10", "--out", recording.to_str().unwrap()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let launcher = Launcher { process, dir };
    let of = |slot| launcher.slot(slot);
    let second = until_child(launcher.process.id(), &of(Slot::B));
    assert!(std::fs::read(format!("/proc/{second}/exe")).unwrap() == other);
    // It never confirms itself. What it has recorded would be in the way of the one that comes back.
    until("the trial is over", || !runs(second));
    std::fs::remove_file(recording).unwrap();
    let first = until_child(launcher.process.id(), &of(Slot::A));
    assert!(std::fs::read(format!("/proc/{first}/exe")).unwrap() == image);
}

/// The child of a process that executes this file.
fn until_child(parent: u32, file: &Path) -> u32 {
    let mut found = None;
    until("it is executed", || {
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        found = pids.into_iter().find(|pid| executes(*pid).as_deref() == Some(file));
        found.is_some()
    });
    found.unwrap()
}
