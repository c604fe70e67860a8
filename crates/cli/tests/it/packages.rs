//! The Debian packages, made of the programs that lie beside this test: what is in them, what installing and purging leaves
//! behind, and whether the server starts as its unit says.

use crate::words::{Said, said};
use crate::{PATIENCE, Site};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const UNITS: [&str; 3] =
    ["plimsoll-control.service", "plimsoll-gateway.service", "plimsoll-agent.service"];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn run(command: &mut Command) -> Said {
    let said = said(command.output().unwrap());
    assert_eq!(said.code, 0, "{command:?}\n{}{}", said.out, said.error);
    said
}

/// One test, so that the packages are made once.
#[test]
fn packages_install_run_as_their_unit_says_and_are_purged_without_the_keys() {
    if !["dpkg-deb", "strip", "objdump"].iter().all(|tool| has(tool)) {
        println!(
            "SKIPPED: packages_install_run_as_their_unit_says_and_are_purged_without_the_keys: no dpkg-deb or binutils"
        );
        return;
    }
    let site = Site::new("packages");
    let (out, root) = (site.dir.join("out"), site.dir.join("root"));
    let bins = Path::new(env!("CARGO_BIN_EXE_plimsoll")).parent().unwrap();
    let mut build = Command::new(project().join("packaging/build"));
    build.args(["--profile", "dev", "--bins"]).arg(bins).arg("--out").arg(&out);
    let told = run(&mut build).out;
    assert_eq!(told.matches(" kB ").count(), 6, "a size of each package and program: {told}");

    let debs: Vec<PathBuf> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(debs.len(), 3);
    for deb in &debs {
        run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&root));
        fields_are_whole(deb);
    }
    for name in ["plimsoll", "plimsoll-gateway", "plimsoll-agent"] {
        let version = run(Command::new(root.join("usr/bin").join(name)).arg("--version"));
        assert!(version.out.starts_with(name), "{}", version.out);
        assert!(root.join(format!("usr/share/man/man1/{name}.1.gz")).exists());
    }
    for shown in [
        "usr/share/bash-completion/completions/plimsoll",
        "usr/share/zsh/vendor-completions/_plimsoll",
        "usr/share/fish/vendor_completions.d/plimsoll.fish",
        "usr/share/man/man1/plimsoll-rollout-watch.1.gz",
        "usr/share/doc/plimsoll/install.md.gz",
    ] {
        assert!(root.join(shown).exists(), "{shown}");
    }
    units_are_tight(&root);
    the_server_starts_as_its_unit_says(&site, &root);
    what_is_purged_leaves_the_keys(&site.dir, &debs);
}

fn fields_are_whole(deb: &Path) {
    let fields = run(Command::new("dpkg-deb").arg("-f").arg(deb)).out;
    for field in ["Package", "Version", "Architecture", "Maintainer", "Installed-Size", "Depends"] {
        let line = fields.lines().find_map(|line| line.strip_prefix(&format!("{field}: ")));
        assert!(line.is_some_and(|value| !value.trim().is_empty()), "{field}: {fields}");
    }
    assert!(fields.contains("libc6 (>= 2."), "the C library that it asks for: {fields}");
    let listed = run(Command::new("dpkg-deb").arg("-c").arg(deb)).out;
    assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
    let conffiles = run(Command::new("dpkg-deb").args(["-I"]).arg(deb).arg("conffiles")).out;
    for conffile in conffiles.lines() {
        assert!(listed.contains(&format!(" .{conffile}\n")), "{conffile} is not in it");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let text = run(Command::new("dpkg-deb").arg("-I").arg(deb).arg(script)).out;
        assert!(!text.contains('@'), "a word of {script} was not filled in");
        run(Command::new("sh").args(["-nc", &text]));
    }
}

/// The figures of docs/install.md.
fn units_are_tight(root: &Path) {
    let page = std::fs::read_to_string(project().join("docs/install.md")).unwrap();
    if !has("systemd-analyze") {
        println!("SKIPPED: units_are_tight: no systemd-analyze here");
        return;
    }
    for unit in UNITS {
        let path = root.join("usr/lib/systemd/system").join(unit);
        let mut analyze = Command::new("systemd-analyze");
        let shown = run(analyze.args(["security", "--offline=true", "--no-pager"]).arg(&path)).out;
        let figure = shown.lines().rev().find_map(|line| line.split(&format!("{unit}: ")).nth(1));
        let figure: f64 = figure.and_then(|rest| rest.split(' ').next()?.parse().ok()).expect(unit);
        assert!(figure < 2.0, "{unit} is exposed: {figure}");
        assert!(
            page.contains(&format!("| `{unit}` | {figure:.1} |")),
            "docs/install.md: {unit} {figure}"
        );
        let verified = said(
            Command::new("systemd-analyze")
                .args(["verify", "--man=no", "--recursive-errors=no"])
                .arg(format!("--root={}", root.display()))
                .arg(unit)
                .output()
                .unwrap(),
        );
        assert_eq!(verified.code, 0, "{}", verified.error);
        assert!(!verified.error.contains(unit), "{}", verified.error);
    }
}

/// The words of ExecStart, with the root in front of its paths, as an unprivileged process with nothing but its state.
fn the_server_starts_as_its_unit_says(site: &Site, root: &Path) {
    let unit = std::fs::read_to_string(root.join("usr/lib/systemd/system").join(UNITS[0])).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let env = std::fs::read_to_string(root.join("etc/plimsoll/control.env")).unwrap();
    let args = env.lines().find_map(|line| line.strip_prefix("PLIMSOLL_CONTROL_ARGS=")).unwrap();
    let args = args.trim_matches('"').replace("18800", &site.port_base.to_string());
    let words = start.replace("$PLIMSOLL_CONTROL_ARGS", &args);
    let mut words = words.split_whitespace();
    let program = root.join(words.next().unwrap().trim_start_matches('/'));
    let state = site.dir.join("state");
    std::fs::create_dir(&state).unwrap();
    let words = words.map(|word| word.replace("/var/lib/plimsoll", state.to_str().unwrap()));
    let mut child = Command::new(&program)
        .args(words)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(site.dir.join("unit.log")).unwrap())
        .spawn()
        .unwrap();
    let asked = Instant::now();
    let mut ask = Command::new(&program);
    ask.args(["session", "show", "--data"]).arg(&state).env_remove("PLIMSOLL_URL");
    while said(ask.output().unwrap()).code != 0 {
        assert!(asked.elapsed() < PATIENCE, "the server does not serve");
        assert!(child.try_wait().unwrap().is_none(), "the server has ended");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Installed into an image without a chroot, removed, purged.
fn what_is_purged_leaves_the_keys(dir: &Path, debs: &[PathBuf]) {
    if !has("systemd-sysusers") || !rustix::process::geteuid().is_root() {
        println!("SKIPPED: what_is_purged_leaves_the_keys: needs root and systemd-sysusers");
        return;
    }
    let root = dir.join("image");
    for made in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
        std::fs::create_dir_all(root.join(made)).unwrap();
    }
    for empty in ["var/lib/dpkg/status", "var/lib/dpkg/available", "etc/passwd", "etc/group"] {
        std::fs::write(root.join(empty), "").unwrap();
    }
    let dpkg = |words: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display()));
        dpkg.args(["--force-script-chrootless", "--force-depends"]).args(words);
        dpkg.env_remove("PLIMSOLL_PURGE_DATA");
        dpkg
    };
    let mut install = dpkg(&["--install"]);
    run(install.args(debs));
    let users = std::fs::read_to_string(root.join("etc/passwd")).unwrap();
    for user in ["plimsoll:", "plimsoll-gateway:", "plimsoll-agent:"] {
        assert!(users.contains(user), "{users}");
    }
    let key = |package: &str| root.join(format!("var/lib/{package}/site/ca.key"));
    for package in ["plimsoll", "plimsoll-gateway"] {
        std::fs::create_dir_all(key(package).parent().unwrap()).unwrap();
        std::fs::write(key(package), "a key").unwrap();
    }
    let env = root.join("etc/plimsoll/control.env");
    std::fs::write(&env, "PLIMSOLL_CONTROL_ARGS=\"--site mine\"\n").unwrap();
    run(&mut dpkg(&["--remove", "plimsoll"]));
    assert!(!root.join("usr/bin/plimsoll").exists());
    assert!(env.exists(), "a removal keeps what the operator wrote");
    let purged = run(&mut dpkg(&["--purge", "plimsoll"]));
    assert!(!env.exists());
    assert!(key("plimsoll").exists(), "a purge keeps the keys");
    assert!(purged.error.contains("keys in it cannot be made again"), "{}", purged.error);
    let mut all = dpkg(&["--purge", "plimsoll-gateway"]);
    run(all.env("PLIMSOLL_PURGE_DATA", "yes"));
    assert!(!key("plimsoll-gateway").exists(), "but for who says so");
}
