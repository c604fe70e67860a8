//! Promises over the real processes. They need the product's executables beside this one (`make test` builds them).

mod gates;

use sim::kills;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// INV-ACK-1 and INV-REPLAY-1 over real processes, real TLS and real disks: fifty SIGKILLs at random moments of devices,
/// gateways and the control plane, and every acknowledged reading is stored exactly once. (A killed process leaves
/// its page cache behind, so this says nothing of power cuts: those are tried on the disk's double, write by write.)
#[test]
fn fifty_random_sigkills_lose_and_double_nothing() {
    let data = std::env::temp_dir().join(format!("plimsoll-kills-{}", std::process::id()));
    let recording = recording();
    let seed = std::env::var("PLIMSOLL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let options =
        kills::Options { data: data.clone(), port_base: 21_900, kills: 50, seed, recording };
    let kept = kills::run(&options)
        .unwrap_or_else(|error| panic!("seed {seed}, {}: {error:#}", data.display()));
    assert!(kept, "a promise was broken; seed {seed}; all is left in {}", data.display());
    std::fs::remove_dir_all(&data).expect("the directory is this test's own");
}

/// The whole demo has one end. Ten seconds are enough to found its site and too few for all the rest.
#[test]
fn a_demo_that_is_not_over_in_time_says_what_it_waited_for_and_leaves_no_process() {
    let data = std::env::temp_dir().join(format!("plimsoll-late-{}", std::process::id()));
    let demo = Command::new(env!("CARGO_BIN_EXE_plimsoll-sim"))
        .args(["demo", "--within", "10", "--port-base", "22000", "--data"])
        .arg(&data)
        .arg("--recording")
        .arg(recording())
        .stdin(Stdio::null())
        .output()
        .expect("it was built beside this test");
    let (out, error) =
        (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    assert_eq!(demo.status.code(), Some(1), "{out}{error}");
    assert!(out.contains("It ends here. So far:\n\n  promise"), "{out}");
    assert!(error.contains("the demo was not over 10 s after its start: "), "{error}");
    // What it waited for: an event, or a command.
    assert!(error.contains("waited") || error.contains("had not ended after"), "{error}");
    assert_eq!(processes_that_name(&data), Vec::<String>::new());
    std::fs::remove_dir_all(&data).expect("the directory is this test's own");
}

fn recording() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../recordings/host.csv")
}

/// Command lines of running processes that have a path in them. This one's has not.
fn processes_that_name(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("it was made of text");
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .filter(|line| line.contains(path))
        .collect()
}
