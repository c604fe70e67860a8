//! Which executable a process really runs: by what the kernel says of it, not by what anybody reports.

use anyhow::Result;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub pid: u32,
    /// Where the executable lay when it was started.
    pub exe: PathBuf,
    /// Of the bytes that run, whatever lies in that place by now.
    pub sha256: String,
}

impl Running {
    /// Whether this process still runs these bytes: a PID alone may be another's by now.
    pub fn is_there(&self) -> bool {
        let exe = std::fs::read(format!("/proc/{}/exe", self.pid));
        exe.is_ok_and(|bytes| sha256(&bytes) == self.sha256)
    }
}

/// Processes whose executable lies below a directory.
pub fn under(dir: &Path) -> Result<Vec<Running>> {
    let dir = dir.canonicalize()?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let link = entry.path().join("exe");
        // One that ended meanwhile, or is a zombie, runs nothing.
        let Ok(exe) = std::fs::read_link(&link) else { continue };
        if exe.starts_with(&dir)
            && let Ok(bytes) = std::fs::read(&link)
        {
            found.push(Running { pid, exe, sha256: sha256(&bytes) });
        }
    }
    Ok(found)
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_known_by_the_bytes_that_it_runs() {
        let dir = std::env::temp_dir().join(format!("plimsoll-running-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let copy = dir.join("slot-a");
        std::fs::copy("/bin/cat", &copy).unwrap();
        let mut cat = Command::new(&copy).stdin(Stdio::piped()).spawn().unwrap();
        let expected = sha256(&std::fs::read("/bin/cat").unwrap());
        // What lies in its place later is not what runs.
        std::fs::remove_file(&copy).unwrap();
        std::fs::write(&copy, "another").unwrap();
        let found = under(&dir).unwrap();
        let was_there = found[0].is_there();
        drop(cat.stdin.take());
        cat.wait().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].pid, &found[0].sha256), (cat.id(), &expected));
        assert_eq!(under(&dir).unwrap(), []);
        assert!(was_there && !found[0].is_there());
        assert!(!Running { pid: std::process::id(), ..found[0].clone() }.is_there());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
