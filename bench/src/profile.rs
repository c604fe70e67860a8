//! Where the time goes: samples of the processor's clock while the load runs, by Linux' own `perf`.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct Profile {
    child: Child,
    data: PathBuf,
}

impl Profile {
    pub fn start(pids: &[u32], data: &Path) -> Result<Self> {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let child = Command::new("perf")
            .args(["record", "-q", "-e", "cpu-clock", "-F", "497", "-p", &pids.join(","), "-o"])
            .arg(data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("no perf: apt-get install linux-perf")?;
        Ok(Self { child, data: data.to_owned() })
    }

    /// Shares of all samples, by what the code was doing.
    pub fn end(mut self) -> Result<Vec<(String, f64)>> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        self.child.wait()?;
        let report = Command::new("perf")
            .args([
                "report",
                "--stdio",
                "--no-children",
                "-F",
                "overhead,dso,symbol",
                "-t",
                ";",
                "-i",
            ])
            .arg(&self.data)
            .stderr(Stdio::null())
            .output()?;
        Ok(shares(&String::from_utf8_lossy(&report.stdout)))
    }
}

fn shares(report: &str) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for line in report.lines().filter(|line| !line.starts_with('#')) {
        let Some((share, place)) = line.trim_start().split_once(';') else { continue };
        let Ok(share) = share.trim().trim_end_matches('%').parse::<f64>() else { continue };
        *sums.entry(class(place)).or_default() += share;
    }
    let mut shares: Vec<_> =
        sums.into_iter().map(|(class, share)| (class.to_owned(), share)).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

/// By the first of these words in `object;symbol`.
fn class(place: &str) -> &'static str {
    const CLASSES: &[(&[&str], &str)] = &[
        (&["[k]"], "kernel (sockets, files, scheduling)"),
        (
            &["curve25519", "ed25519", "p256", "ecdsa", "crypto_bigint", "primefield", "sha512"],
            "device signatures",
        ),
        (&["sha2", "sha256", "hmac"], "digests and MACs"),
        (&["aws_lc", "rustls", "tokio_rustls", "aes_", "gcm", "chacha"], "TLS"),
        (&["zstd", "ZSTD", "HUF_", "FSE_"], "zstd"),
        (&["parquet", "arrow"], "Arrow and Parquet"),
        (&["sqlite", "sqlx"], "SQLite"),
        (&["mqtt", "gateway::"], "MQTT and the gateway's own code"),
        (&["minicbor", "model::", "trust::"], "CBOR, counters"),
        (&["store::", "datafusion"], "the store's own code"),
        (&["control::", "hyper", "axum", "http"], "HTTP and control's own code"),
        (&["bus::", "disk::"], "log"),
        (&["tokio", "mio"], "tokio"),
        (&["malloc", "free", "alloc", "mem"], "allocation, copying"),
    ];
    let found = CLASSES.iter().find(|(words, _)| words.iter().any(|word| place.contains(word)));
    found.map_or("other", |(_, class)| class)
}
