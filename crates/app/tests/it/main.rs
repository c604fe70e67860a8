//! The four executables, as an agent starts them: a pipe on each side.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(file: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(file)
        .args(["--every-ms", "10"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn line(out: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line
}

/// `VmRSS` in KiB.
fn resident_kib(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_sound_release_measures_until_its_standard_input_ends() {
    for file in [env!("CARGO_BIN_EXE_pump-app-1-0"), env!("CARGO_BIN_EXE_pump-app-1-1")] {
        let (mut child, mut out) = start(file);
        for _ in 0..3 {
            let line = line(&mut out);
            assert!(line.starts_with(r#"[{"n":"flow","#) && line.ends_with("]\n"), "{line}");
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn release_1_2_fails_its_own_check_and_has_said_nothing() {
    let (mut child, mut out) = start(env!("CARGO_BIN_EXE_pump-app-1-2"));
    let mut said = String::new();
    out.read_to_string(&mut said).unwrap();
    assert_eq!((said.as_str(), child.wait().unwrap().code()), ("", Some(3)));
}

#[test]
fn release_1_3_says_what_a_sound_one_says_and_its_memory_grows_to_a_bound() {
    let (mut child, mut out) = start(env!("CARGO_BIN_EXE_pump-app-1-3"));
    let first = line(&mut out);
    assert!(first.contains("vibration"), "{first}");
    let start = Instant::now();
    while resident_kib(&child) < 60 * 1024 {
        assert!(start.elapsed() < PATIENCE, "{} KiB", resident_kib(&child));
        line(&mut out);
    }
    // What it had not leaked by now it does not leak any more.
    for _ in 0..20 {
        line(&mut out);
    }
    assert!(resident_kib(&child) < 80 * 1024, "{} KiB", resident_kib(&child));
    drop(child.stdin.take());
    // It is not stopped by a pipe that nobody reads.
    drop(out);
    child.wait().unwrap();
}

#[test]
fn no_two_releases_are_the_same_bytes() {
    let files = [
        env!("CARGO_BIN_EXE_pump-app-1-0"),
        env!("CARGO_BIN_EXE_pump-app-1-1"),
        env!("CARGO_BIN_EXE_pump-app-1-2"),
        env!("CARGO_BIN_EXE_pump-app-1-3"),
    ];
    let images: Vec<_> = files.map(|file| std::fs::read(file).unwrap()).into();
    for (i, image) in images.iter().enumerate() {
        assert!(images[..i].iter().all(|other| other != image), "{}", files[i]);
    }
}
