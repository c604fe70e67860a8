//! The command as a script meets it: codes, dry runs, what is asked and what is refused, at a control plane that runs.

use crate::{PATIENCE, Site};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// `plimsoll control` in a directory of its own.
pub struct Control {
    pub site: Site,
    child: Child,
}

/// What a command came to.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub error: String,
}

impl Control {
    pub fn start(name: &str, more: &[&str]) -> Self {
        let site = Site::new(name);
        let child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
            .args(["control", "--port-base", &site.port_base.to_string(), "--data"])
            .arg(&site.dir)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(site.dir.join("control.log")).unwrap())
            .spawn()
            .unwrap();
        let control = Self { site, child };
        let start = Instant::now();
        while control.run(&["metrics"]).code != 0 {
            assert!(start.elapsed() < PATIENCE, "control does not serve");
        }
        control
    }

    pub fn command(&self) -> Command {
        let mut command = bare(&self.site);
        command.arg("--data").arg(&self.site.dir);
        command
    }

    pub fn run(&self, words: &[&str]) -> Said {
        said(self.command().args(words).output().unwrap())
    }

    /// With lines on standard input.
    pub fn run_with(&self, words: &[&str], input: &str) -> Said {
        let mut command = self.command();
        command.args(words);
        feed(command, input)
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.site.port_base)
    }

    pub fn ca(&self) -> PathBuf {
        self.site.dir.join("site/ca.pem")
    }

    pub fn allow(&self, serial: &str) {
        let said = self.run(&["device", "allow", serial]);
        assert_eq!(said.code, 0, "{}", said.error);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Nobody's session, no terminal, no words of the environment.
pub fn bare(site: &Site) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.env("XDG_CONFIG_HOME", site.dir.join("config")).stdin(Stdio::null());
    for name in ["PLIMSOLL_URL", "PLIMSOLL_CA", "PLIMSOLL_TOKEN"] {
        command.env_remove(name);
    }
    command
}

pub fn feed(mut command: Command, input: &str) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    said(child.wait_with_output().unwrap())
}

pub fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = output.status.code().expect("it ended by itself");
    Said { code, out: text(output.stdout), error: text(output.stderr) }
}

fn read(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}{}", said.out, said.error))
}

#[test]
fn each_end_of_a_command_has_its_code_and_says_what_to_do_next() {
    let control = Control::start("codes", &[]);
    control.allow("PUMP-1");
    let strange: &[&str] = &["device", "list", "--token", "0123"];
    for (words, code, told) in [
        (&["device", "list"][..], 0, ""),
        (&["query", "select nothing from nowhere"], 1, "error: "),
        (&["device", "lost"], 2, "unrecognized subcommand"),
        (&["device", "revoke", "pump-1"], 2, "expected --yes or a terminal"),
        (strange, 3, "next: another token"),
        (&["device", "show", "pump-9"], 4, "no such device"),
        (&["rollout", "show", "r-9"], 4, "no such rollout"),
        (&["device", "release", "pump-1"], 5, "no such change"),
    ] {
        let said = control.run(words);
        assert_eq!(said.code, code, "{words:?}: {}{}", said.out, said.error);
        assert!(said.error.contains(told), "{words:?}: {}", said.error);
    }
    let away = Site::new("away");
    let mut command = bare(&away);
    let ca = control.ca();
    let url = format!("https://127.0.0.1:{}", away.port_base);
    command.args(["device", "list", "--token", "0123", "--url", &url, "--ca"]).arg(&ca);
    let said = said(command.output().unwrap());
    assert_eq!(said.code, 6, "{}", said.error);
    assert!(said.error.contains("next: is it running"), "{}", said.error);
}

#[test]
fn a_dry_run_changes_nothing_and_the_word_itself_does() {
    let control = Control::start("dry", &[]);
    control.allow("PUMP-1");
    let events =
        || read(&control.run(&["evidence", "log", "--json"]))["events"].as_array().unwrap().len();
    let before = events();
    let said = control.run(&["device", "revoke", "pump-1", "--dry-run", "--json"]);
    assert_eq!(said.code, 0, "{}", said.error);
    let would = read(&said);
    assert_eq!(would["action"], "device.revoke");
    assert_eq!((&would["subject"], &would["reaches"]), (&json!("device/pump-1"), &json!(1)));
    let said = control.run(&["device", "quarantine", "pump-9", "--dry-run"]);
    assert_eq!(said.code, 4, "a dry run finds out what is not there: {}", said.error);
    assert_eq!(events(), before, "a dry run is no act");
    let listed = read(&control.run(&["device", "show", "pump-1", "--json"]));
    assert_eq!(listed["line"]["standing"], "listed");
}

/// A remote operator has an address, a CA and a token, and no data directory.
#[test]
fn a_site_is_asked_from_anywhere_by_address_ca_and_token() {
    let control = Control::start("remote", &[]);
    let token = std::fs::read_to_string(control.site.dir.join("site/api.token")).unwrap();
    let mut command = bare(&control.site);
    command.env("PLIMSOLL_URL", control.url()).env("PLIMSOLL_CA", control.ca());
    let refused = said(command.args(["session", "show"]).output().unwrap());
    assert_eq!(refused.code, 3, "{}", refused.error);
    assert!(refused.error.contains("plimsoll session login"), "{}", refused.error);
    command.env("PLIMSOLL_TOKEN", token.trim());
    let shown = said(command.output().unwrap());
    assert_eq!(shown.code, 0, "{}", shown.error);
    assert!(shown.out.starts_with("token/site at site"), "{}", shown.out);
    assert!(
        !format!("{}{}", shown.out, shown.error).contains(token.trim()),
        "the token is not shown"
    );
    // Another site's CA: whoever answers there is shown no token.
    let other = Control::start("other", &[]);
    command.env("PLIMSOLL_CA", other.ca());
    assert_eq!(said(command.output().unwrap()).code, 6);
}

/// Stands between a command and control, and takes what it is asked to. The first connection loses its answer: it is cut off once
/// `is_done` says that the call was carried out. The others pass. Returns how many there were.
fn cut_off_the_first_answer(
    listener: &TcpListener,
    to: u16,
    is_done: impl Fn() -> bool,
    is_over: &AtomicBool,
) -> usize {
    let connect = || {
        let (from, _) = listener.accept().unwrap();
        (from, TcpStream::connect(("127.0.0.1", to)).unwrap())
    };
    let (command, control) = connect();
    let asked = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, mut to, mut sent) = (&command, &control, 0);
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                // The second flight ends the handshake and asks: what comes back from here on is not handed over.
                sent += 1;
                asked.store(sent > 1, Ordering::SeqCst);
                to.write_all(&bytes[..read]).unwrap();
            }
        });
        scope.spawn(|| {
            let (mut from, mut to) = (&control, &command);
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                if !asked.load(Ordering::SeqCst) {
                    to.write_all(&bytes[..read]).unwrap();
                }
            }
        });
        while !is_done() {}
        for end in [&command, &control] {
            let _ = end.shutdown(Shutdown::Both);
        }
    });
    let mut connections = 1;
    while !is_over.load(Ordering::SeqCst) {
        let (command, control) = connect();
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        connections += 1;
        std::thread::scope(|scope| {
            let pass = |mut from: &TcpStream, to: &TcpStream| {
                let _ = std::io::copy(&mut from, &mut { to });
                let _ = to.shutdown(Shutdown::Write);
            };
            let (command, control) = (&command, &control);
            scope.spawn(move || pass(command, control));
            pass(control, command);
        });
    }
    connections
}

/// A silence has no name of its own: said twice, there would be two.
#[test]
fn a_call_whose_answer_is_lost_is_said_again_and_done_once() {
    let control = Control::start("lost-answer", &[]);
    let silences = || {
        let list = read(&control.run(&["silence", "list", "--json"]));
        list["silences"].as_array().unwrap().len()
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let token = std::fs::read_to_string(control.site.dir.join("site/api.token")).unwrap();
    let mut command = bare(&control.site);
    command.env("PLIMSOLL_URL", format!("https://{at}")).env("PLIMSOLL_CA", control.ca());
    command.env("PLIMSOLL_TOKEN", token.trim());
    command.args(["silence", "create", "--subject", "pump-1", "--for", "2h", "--reason", "repair"]);
    let is_over = AtomicBool::new(false);
    let (told, connections) = std::thread::scope(|scope| {
        let between = scope.spawn(|| {
            let is_done = || silences() == 1;
            cut_off_the_first_answer(&listener, control.site.port_base, is_done, &is_over)
        });
        let told = said(command.output().unwrap());
        is_over.store(true, Ordering::SeqCst);
        // It waits for one more.
        drop(TcpStream::connect(at).unwrap());
        (told, between.join().unwrap())
    });
    assert_eq!(told.code, 0, "{}", told.error);
    assert_eq!((connections, silences()), (2, 1));
}
