//! Promises over the real processes. They need the product's executables beside this one (`make test` builds them).

use sim::kills;
use std::path::PathBuf;

/// INV-ACK-1 and INV-REPLAY-1 over real processes, real TLS and real disks: fifty SIGKILLs at random moments of devices,
/// gateways and the control plane, and every acknowledged reading is stored exactly once. (A killed process leaves
/// its page cache behind, so this says nothing of power cuts: those are tried on the disk's double, write by write.)
#[test]
fn fifty_random_sigkills_lose_and_double_nothing() {
    let data = std::env::temp_dir().join(format!("plimsoll-kills-{}", std::process::id()));
    let recording = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../recordings/host.csv");
    let seed = std::env::var("PLIMSOLL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let options =
        kills::Options { data: data.clone(), port_base: 21_900, kills: 50, seed, recording };
    let kept = kills::run(&options)
        .unwrap_or_else(|error| panic!("seed {seed}, {}: {error:#}", data.display()));
    assert!(kept, "a promise was broken; seed {seed}; all is left in {}", data.display());
    std::fs::remove_dir_all(&data).expect("the directory is this test's own");
}
