//! Where the time goes: samples of the processor's clock while the load runs, by Linux' own `perf`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Begins to take samples of this process, for so many seconds. `None`: there is no perf.
pub fn start(seconds: u32, data: &Path) -> Option<Child> {
    Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", "997", "-p"])
        .arg(std::process::id().to_string())
        .arg("-o")
        .arg(data)
        .args(["--", "sleep", &seconds.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// Shares of all samples in percent, by what the code was doing, the largest first.
pub fn end(mut child: Child, data: &Path) -> Vec<(&'static str, f64)> {
    child.wait().expect("it was started");
    let report = Command::new("perf")
        .args(["report", "--stdio", "--no-children", "-F", "overhead,dso,symbol", "-t", ";", "-i"])
        .arg(data)
        .stderr(Stdio::null())
        .output()
        .expect("perf was there a moment ago");
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    let report = String::from_utf8_lossy(&report.stdout);
    for line in report.lines().filter(|line| !line.starts_with('#')) {
        let Some((share, place)) = line.trim_start().split_once(';') else { continue };
        let Ok(share) = share.trim().trim_end_matches('%').parse::<f64>() else { continue };
        if share >= 1.0 && std::env::var_os("PLACES").is_some() {
            eprintln!("{share:5.1} {place}");
        }
        *sums.entry(class(place)).or_default() += share;
    }
    let mut shares: Vec<_> = sums.into_iter().collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

/// By the first of these words in `object;symbol`.
fn class(place: &str) -> &'static str {
    const CLASSES: &[(&[&str], &str)] = &[
        (&["[k]"], "kernel: sockets, files, scheduling"),
        (&["curve25519", "ed25519", "sha512"], "signatures (Ed25519)"),
        (&["sqlite", "sqlx"], "SQLite"),
        (&["aws_lc", "rustls", "aes_", "gcm", "aesni"], "TLS"),
        (&["serde", "base64", "json"], "JSON"),
        (&["sha2", "sha256"], "digests"),
        (&["minicbor", "model::", "trust::"], "CBOR, names, metadata"),
        (&["evidence"], "evidence"),
        (&["hyper", "axum", "http", "tower", "matchit"], "HTTP"),
        (&["malloc", "free", "alloc", "mem", "clone"], "allocation, copying"),
        (&["control::", "rollout::"], "control's own code"),
        (&["tokio", "mio", "futures"], "tokio"),
    ];
    let found = CLASSES.iter().find(|(words, _)| words.iter().any(|word| place.contains(word)));
    found.map_or("other", |(_, class)| class)
}
