//! `plimsoll up` as a person meets it: real processes, which lie beside this test (`make test` builds them).

mod ci;
mod collector;
#[path = "../../../../tests/docs_table.rs"]
mod docs_table;
mod factory;
mod packages;
mod secrets;
mod sql;
mod traces;
mod words;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
const FIRST_READING: &str = "first reading after";

#[test]
fn an_up_that_was_killed_starts_again_and_goes_on() {
    let site = Site::new("killed");
    let mut up = Up::start(&site);
    up.until(FIRST_READING);
    assert!(!site.is_free());
    up.signal(Signal::KILL);
    up.wait();

    let mut up = Up::start(&site);
    up.until(FIRST_READING);
    up.signal(Signal::TERM);
    let status = up.wait();
    assert!(status.success(), "{status}");
    assert!(site.is_free(), "a device has outlived its `up`");
}

#[test]
fn the_end_of_the_terminal_ends_it_in_good_order() {
    let site = Site::new("hung-up");
    let mut up = Up::start(&site);
    up.until(FIRST_READING);
    // As a terminal does: it takes no line any more, and then says that it is gone.
    up.out = None;
    up.signal(Signal::HUP);
    let status = up.wait();
    assert!(status.success(), "{status}");
    assert!(site.is_free(), "a device has outlived its `up`");
}

/// README, "The first update", word for word.
#[test]
fn the_first_update_of_the_readme_works_as_it_stands_there() {
    let site = Site::new("readme");
    let mut up = Up::start(&site);
    up.until(FIRST_READING);
    let desk = Desk::of(&site);
    let [update, evidence] = &commands("## The first update")[..] else {
        panic!("expected two blocks of commands in README")
    };
    desk.run(update);
    let start = Instant::now();
    while !desk.run("target/debug/plimsoll rollout show pump-1.1").contains(" is completed") {
        assert!(start.elapsed() < PATIENCE, "the rollout is not completed");
        std::thread::sleep(Duration::from_millis(200));
    }
    for device in ["host-1", "replay-1"] {
        let software = desk.run(&format!("target/debug/plimsoll device software {device}"));
        assert!(software.starts_with("pump-app 1.1.0 (confirmed)"), "{software}");
    }
    let proven = desk.run(evidence);
    for word in ["rollout.create", "permit.issue", "device.proven", "rollout.complete"] {
        assert!(proven.contains(word), "no {word} in what was proven:\n{proven}");
    }
    up.signal(Signal::TERM);
    assert!(up.wait().success());
}

/// `docs/guide/`: each page's commands, in order, on a new site, with its port in place of the page's.
fn guide(page: &str) {
    let site = Site::new(&format!("guide-{page}"));
    let mut up = Up::start(&site);
    up.until(FIRST_READING);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/guide/{page}.md"));
    let text = std::fs::read_to_string(path).unwrap();
    let port = |text: String, from: u16, to: u16| text.replace(&from.to_string(), &to.to_string());
    let script = port(blocks(&text).concat(), 18801, site.port_base + 1);
    let script = port(script, 18800, site.port_base);
    assert!(script.contains("plimsoll "), "{page} has commands");
    println!("{}", Desk::of(&site).run(&script));
    up.signal(Signal::TERM);
    assert!(up.wait().success());
}

#[test]
fn the_guide_first_hour_works_as_it_stands_there() {
    guide("first-hour");
}

#[test]
fn the_guide_for_operators_works_as_it_stands_there() {
    guide("operator");
}

#[test]
fn the_guide_for_vendors_works_as_it_stands_there() {
    guide("vendor");
}

#[test]
fn the_guide_for_device_engineers_works_as_it_stands_there() {
    guide("device-engineer");
}

#[test]
fn the_guide_for_auditors_works_as_it_stands_there() {
    guide("auditor");
}

/// The blocks of shell commands in a section of README.
fn commands(section: &str) -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once(section).expect("README has the section");
    let section = rest.split("\n## ").next().unwrap_or_default();
    blocks(section)
}

fn blocks(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// A directory that looks like the project's, with the site as `data`.
struct Desk(PathBuf);

impl Desk {
    fn of(site: &Site) -> Self {
        let desk = site.dir.join("desk");
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let programs = Path::new(env!("CARGO_BIN_EXE_plimsoll")).parent().unwrap();
        std::fs::create_dir_all(desk.join("target")).unwrap();
        let links = [
            (programs, desk.join("target/debug")),
            (&site.dir, desk.join("data")),
            (&project.join("docs"), desk.join("docs")),
        ];
        for (there, here) in links {
            std::os::unix::fs::symlink(there, here).unwrap();
        }
        Self(desk)
    }

    fn run(&self, script: &str) -> String {
        let output =
            Command::new("sh").args(["-ec", script]).current_dir(&self.0).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{script}\n{out}{error}");
        out
    }
}

/// A directory and three ports of its own.
struct Site {
    dir: PathBuf,
    port_base: u16,
}

impl Site {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("plimsoll-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        // Below the ports that the operating system gives out by itself.
        let from = 23_000 + (std::process::id() % 1000) as u16 * 3;
        // Two sites of one process, of which neither listens yet.
        static SITES: AtomicU16 = AtomicU16::new(0);
        let from = from + SITES.fetch_add(3, Ordering::Relaxed);
        let is_free =
            |base: &u16| (0..3).all(|n| TcpListener::bind(("127.0.0.1", base + n)).is_ok());
        let port_base = (from..30_000).step_by(3).find(is_free).expect("three free ports");
        Self { dir, port_base }
    }

    /// No agent has one of the devices.
    fn is_free(&self) -> bool {
        let devices = self.dir.join("devices");
        ["host-1", "replay-1"].iter().all(|name| disk::lock_dir(&devices.join(name)).is_ok())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("all is left in {}", self.dir.display());
        } else {
            std::fs::remove_dir_all(&self.dir).expect("the directory is this test's own");
        }
    }
}

struct Up {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Up {
    fn start(site: &Site) -> Self {
        Self::start_with(site, &[], &[])
    }

    /// With more options, and variables of its own.
    fn start_with(site: &Site, options: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_to(site, options, variables, Stdio::inherit())
    }

    /// With its log in a file.
    fn start_logged(site: &Site, options: &[&str], variables: &[(&str, &str)], log: &Path) -> Self {
        Self::start_to(site, options, variables, std::fs::File::create(log).unwrap().into())
    }

    fn start_to(site: &Site, options: &[&str], variables: &[(&str, &str)], log: Stdio) -> Self {
        let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recordings/host.csv");
        let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
            .args(["up", "--port-base", &site.port_base.to_string()])
            .arg("--data")
            .arg(&site.dir)
            .arg("--replay")
            .arg(recording)
            .args(options)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let out = child.stdout.take().map(BufReader::new);
        Self { child, out }
    }

    /// Reads what it says up to a line, and returns it.
    fn until(&mut self, wanted: &'static str) -> String {
        let mut out = self.out.take().expect("it is read one by one");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut said = String::new();
            loop {
                let mut line = String::new();
                let is_end = out.read_line(&mut line).unwrap_or(0) == 0;
                said += &line;
                if is_end || line.contains(wanted) {
                    let _ = tell.send((is_end, said, out));
                    return;
                }
            }
        });
        let (is_end, said, out) = told.recv_timeout(PATIENCE).expect(wanted);
        assert!(!is_end, "it ended before {wanted:?} and had said:\n{said}");
        self.out = Some(out);
        said
    }

    /// What it has said since, once it has ended.
    fn rest(&mut self) -> String {
        let mut said = String::new();
        self.out.take().expect("it is read one by one").read_to_string(&mut said).unwrap();
        said
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            // Not to wait for a time, but to leave the processor to what is waited for.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
