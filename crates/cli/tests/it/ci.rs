//! docs/ci.md: a build job's token publishes to devices of one group, and to nobody else.

use crate::words::{Said, bare, feed, said};
use crate::{FIRST_READING, Site, Up};
use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};

const SECRET: &str = "a long enough secret";

struct Desk<'a> {
    site: &'a Site,
}

impl Desk<'_> {
    /// As whoever holds the site's directory, on a desk where nobody has signed in.
    fn owner(&self, words: &[&str]) -> Said {
        let mut command = bare(self.site);
        command.env("XDG_CONFIG_HOME", self.site.dir.join("owner"));
        said(command.arg("--data").arg(&self.site.dir).args(words).output().unwrap())
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.site.port_base)
    }

    /// From another machine: an address and a CA, and a token if there is one.
    fn remote(&self, token: Option<&str>) -> std::process::Command {
        let mut command = bare(self.site);
        command.env("PLIMSOLL_URL", self.url());
        command.env("PLIMSOLL_CA", self.site.dir.join("site/ca.pem"));
        if let Some(token) = token {
            command.env("PLIMSOLL_TOKEN", token);
        }
        command
    }
}

fn done(said: Said) -> String {
    assert_eq!(said.code, 0, "{}{}", said.out, said.error);
    said.out
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_plimsoll")).with_file_name(name)
}

#[test]
fn a_build_jobs_token_publishes_to_development_and_to_nobody_else() {
    let site = Site::new("ci");
    let mut up = Up::start(&site);
    up.until(FIRST_READING);
    let desk = Desk { site: &site };

    // A person, and the token that he makes for the job.
    let mut make = bare(&site);
    make.arg("--data").arg(&site.dir);
    make.args(["user", "create", "rita", "--grant", "releaser"]);
    done(feed(make, &format!("{SECRET}\n")));
    let mut login = desk.remote(None);
    login.args(["session", "login", "--user", "rita"]);
    let wrong = feed(desk_login(&desk), "another secret at all\n");
    assert_eq!(wrong.code, 3, "{}", wrong.error);
    let signed_in = feed(login, &format!("{SECRET}\n"));
    assert!(!format!("{}{}", signed_in.out, signed_in.error).contains(SECRET));
    done(signed_in);
    let whoami = done(said(desk.remote(None).args(["session", "show"]).output().unwrap()));
    assert!(whoami.starts_with("user/rita"), "{whoami}");
    let kept = site.dir.join("config/plimsoll/sessions.json");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "a session is for its owner only");
    let words = "token create ci --days 30 --group development --scope releases.read --scope releases.write \
                 --scope rollouts.read --scope rollouts.write --scope fleet.read";
    let token = done(said(desk.remote(None).args(words.split_whitespace()).output().unwrap()));
    let token = token.trim();

    // What the job does.
    done(desk.owner(&["device", "group", "host-1", "development"]));
    let job = |words: &[&str]| said(desk.remote(Some(token)).args(words).output().unwrap());
    let vendor = site.dir.join("vendor");
    let image = program("pump-app-1-1");
    let publish = ["release", "publish", "--product", "pump-app", "--release", "1.1.0"];
    let mut publish: Vec<&str> = publish.to_vec();
    publish.extend(["--hardware", "plimsoll-linux-amd64", "--security-version", "1", "--vendor"]);
    publish.extend([vendor.to_str().unwrap(), image.to_str().unwrap()]);
    done(job(&publish));
    done(job(&["release", "available", "--refresh"]));
    let order = |id: &'static str, group: Option<&'static str>| {
        let mut words =
            vec!["rollout", "create", "--id", id, "--product", "pump-app", "--release", "1.1.0"];
        words.extend(["--json", "--start"]);
        words.extend(group.iter().flat_map(|group| ["--group", group]));
        words
    };
    for group in [None, Some("production"), Some("pilot")] {
        let refused = job(&order("too-far", group));
        assert_eq!(refused.code, 3, "{group:?}: {}{}", refused.out, refused.error);
    }
    let none = desk.owner(&["rollout", "show", "too-far"]);
    assert_eq!(none.code, 4, "nothing came of it: {}", none.out);
    let mut dry = order("dev", Some("development"));
    dry.push("--dry-run");
    let would: Value = serde_json::from_str(&done(job(&dry))).unwrap();
    assert_eq!(would["reaches"], 1, "one device is of development: {would}");
    let made: Value = serde_json::from_str(&done(job(&order("dev", Some("development"))))).unwrap();
    assert_eq!(made["cohort"], 1, "{made}");
    done(job(&["rollout", "watch", "dev", "--timeout", "2m"]));
    assert!(done(job(&["device", "software", "host-1"])).starts_with("pump-app 1.1.0 (confirmed)"));
    assert!(done(job(&["device", "software", "replay-1"])).starts_with("pump-app 1.0.0"));

    // What it is not for.
    for words in [
        &["query", "select 1"][..],
        &["device", "revoke", "host-1", "--yes"],
        &["device", "quarantine", "host-1"],
        &["user", "list"],
    ] {
        let refused = job(words);
        assert_eq!(refused.code, 3, "{words:?}: {}{}", refused.out, refused.error);
    }
    // The user is disabled: so is what it made.
    done(desk.owner(&["user", "disable", "rita"]));
    assert_eq!(job(&["rollout", "list"]).code, 3);
    let over = said(desk.remote(None).args(["session", "show"]).output().unwrap());
    assert_eq!(over.code, 3, "{}", over.out);
    up.signal(Signal::TERM);
    assert!(up.wait().success());
}

fn desk_login(desk: &Desk<'_>) -> std::process::Command {
    let mut login = desk.remote(None);
    login.args(["session", "login", "--user", "rita"]);
    login
}
