//! The command as a script meets it: codes, dry runs, what is asked and what is refused, at a control plane that runs.

use crate::{PATIENCE, Site};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
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
