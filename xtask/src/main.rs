//! The project's own checks, as `cargo xtask …`: what a compiler cannot hold and a person forgets.
//!
//! Promises: every rule says what it expected, what it found and where; every rule has a test with a bad example.
//! Never: reaches the network by itself (cargo and cargo-deny may); changes a file, except the golden graph when asked.
//!
//! Each rule is a function from what was read to findings; reading and running stand apart from it.

mod docs;
mod graph;
mod markdown;
mod suite;
mod supply;
mod tree;

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask graph [--bless]   arrows between our crates: tiers, bans, docs/crate-graph.golden
cargo xtask supply            licences, sources and floor versions of every dependency; advisories where reachable
cargo xtask features          nothing is compiled twice between `make up` and `make test`
cargo xtask docs              invariants, threat register and links, both ways
cargo xtask check-all         all of the above
cargo xtask test [ARGS]       the tests, with the list of skipped ones (ARGS go to the runner)";

/// One broken rule, in a sentence: where, what was expected, what was found.
type Finding = String;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The findings stand above; where in this program they were found helps nobody.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = root();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["graph"] => report(&[("graph", graph::check(&root)?)]),
        ["graph", "--bless"] => graph::bless(&root),
        ["supply"] => report(&[("supply", supply::check(&root)?)]),
        ["features"] => report(&[("features", supply::compiled_twice(&root)?)]),
        ["docs"] => report(&[("docs", docs::check(&root)?)]),
        ["check-all"] => report(&[
            ("graph", graph::check(&root)?),
            ("supply", supply::check(&root)?),
            ("features", supply::compiled_twice(&root)?),
            ("docs", docs::check(&root)?),
        ]),
        ["test", rest @ ..] => suite::run(&root, rest),
        _ => bail!("expected one of:\n{USAGE}"),
    }
}

/// The workspace is the folder above this crate.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").into()
}

fn report(checks: &[(&str, Vec<Finding>)]) -> Result<()> {
    for (name, findings) in checks {
        match findings.as_slice() {
            [] => println!("{name}: ok"),
            _ => println!("{name}: {} finding(s)", findings.len()),
        }
        for finding in findings {
            println!("  {finding}");
        }
    }
    match checks.iter().map(|(_, findings)| findings.len()).sum::<usize>() {
        0 => Ok(()),
        n => bail!("{n} finding(s), expected none"),
    }
}
