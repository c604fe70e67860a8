//! Kept inputs: what a target's code makes as seeds, and the files in `fuzz/corpus/<target>/`.

use crate::targets::Target;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// Longer inputs are found again from shorter ones; the repository need not carry them.
const KEPT_BYTES_MAX: usize = 2048;

fn dir(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Seeds first, then files in order of name, so that a run can be repeated.
pub fn load(target: &Target) -> Result<Vec<Vec<u8>>> {
    let mut inputs = (target.seeds)();
    let Ok(entries) = fs::read_dir(dir(target)) else { return Ok(inputs) };
    let mut paths = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        inputs.push(fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(inputs)
}

/// Writes down an input that ended in a way no other has.
pub fn keep(target: &Target, input: &[u8]) -> Result<()> {
    if input.len() > KEPT_BYTES_MAX {
        return Ok(());
    }
    let dir = dir(target);
    fs::create_dir_all(&dir)?;
    let name: String =
        trust::digest(input).as_bytes()[..8].iter().map(|b| format!("{b:02x}")).collect();
    fs::write(dir.join(name), input).context("keeping an input")
}
