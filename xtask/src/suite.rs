//! Runs the tests and says which were skipped.
//!
//! A test that cannot run where it is (a kernel without temperatures, a missing program) prints one line
//! `SKIPPED: <name>: <reason>` and returns. Those lines, and every `#[ignore]`, are collected; the run fails unless they
//! are exactly the names in tests-skipped.expected (those behind `?` may run or not), so that nothing stops being tested
//! without a line in a diff. A line that says `SKIPPED` in any other way fails the run everywhere: whoever wrote it was not counted.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const EXPECTED: &str = "tests-skipped.expected";
const WORD: &str = "SKIPPED";

/// What a run of the tests came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: u64,
    failed: u64,
    /// `name: reason`, sorted.
    skipped: BTreeSet<String>,
    /// Lines that say it in a way that is not ours.
    unclear: BTreeSet<String>,
}

/// What a line of a test's output says of skipping.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    /// `name: reason`.
    Skipped(String),
    Unclear(String),
}

pub fn run(root: &Path, args: &[&str]) -> Result<()> {
    let has_nextest = Command::new("cargo")
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let (succeeded, outcome) =
        if has_nextest { nextest(root, args)? } else { cargo_test(root, args)? };

    println!("\nskipped tests ({}):", outcome.skipped.len());
    for skipped in &outcome.skipped {
        println!("  {skipped}");
    }
    // A selection of tests skips what was not selected: the list is held for the whole only.
    let findings = match args {
        [] => unexpected(&fs::read_to_string(root.join(EXPECTED)).unwrap_or_default(), &outcome),
        _ => Vec::new(),
    };
    for finding in &findings {
        println!("{finding}");
    }
    for line in &outcome.unclear {
        println!("expected `{WORD}: <name>: <reason>`, found `{line}`");
    }
    let Outcome { passed, failed, skipped, unclear } = &outcome;
    let summary = format!("tests: {passed} passed, {failed} failed, {} skipped", skipped.len());
    println!("{summary}");
    fs::write(root.join("target/tests-summary.txt"), summary + "\n")
        .context("writing target/tests-summary.txt")?;
    if !succeeded || *failed > 0 {
        bail!("tests failed");
    }
    if !unclear.is_empty() {
        bail!("a test says that it was skipped, and not which one or not why");
    }
    // A machine that lacks a foreign program skips what needs it, and says so; only CI must have everything.
    if !findings.is_empty() && std::env::var_os("CI").is_some() {
        bail!("the list of skipped tests is not the one in {EXPECTED}");
    }
    Ok(())
}

/// Nextest keeps every test's output in a JUnit file (see .config/nextest.toml).
fn nextest(root: &Path, args: &[&str]) -> Result<(bool, Outcome)> {
    let junit = root.join("target/nextest/default/junit.xml");
    if junit.exists() {
        fs::remove_file(&junit).context("removing the JUnit file of the run before")?;
    }
    let mut run = Command::new("cargo");
    run.args(["nextest", "run", "--workspace"]).args(args).current_dir(root).stdin(Stdio::null());
    let status = run.status().context("starting cargo-nextest")?;
    // Nothing was run: what was said already says why.
    let Ok(text) = fs::read_to_string(&junit) else { bail!("tests did not run") };
    let mut outcome = from_junit(&text);

    let mut list = Command::new("cargo");
    list.args(["nextest", "list", "--workspace", "--run-ignored", "only"]);
    list.args(["--message-format", "oneline"]).current_dir(root).stdin(Stdio::null());
    let listed = list.output().context("starting cargo-nextest")?;
    if !listed.status.success() {
        bail!("cannot list ignored tests: {}", String::from_utf8_lossy(&listed.stderr).trim());
    }
    for line in String::from_utf8_lossy(&listed.stdout).lines().filter(|l| !l.trim().is_empty()) {
        outcome.skipped.insert(format!("{}: ignored", line.trim()));
    }
    Ok((status.success(), outcome))
}

fn from_junit(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for case in text.split("<testcase ").skip(1) {
        let case = case.split("</testcase>").next().unwrap_or_default();
        // A flaky retry has another name; what failed for good has one of these.
        match case.contains("<failure") || case.contains("<error") {
            true => outcome.failed += 1,
            false => outcome.passed += 1,
        }
        case.lines().for_each(|line| outcome.hear(&plain(line)));
    }
    outcome
}

/// Without nextest: libtest's own runner, asked to show what passing tests printed.
fn cargo_test(root: &Path, args: &[&str]) -> Result<(bool, Outcome)> {
    println!("cargo-nextest is not installed: running the tests with `cargo test`");
    let mut run = Command::new("cargo");
    run.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]);
    run.args(args).args(["--", "--show-output"]);
    let mut child = run
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo test")?;
    let output = child.stdout.take().expect("it was piped");
    let mut text = String::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("reading what cargo test prints")?;
        writeln!(std::io::stdout(), "{line}").context("printing")?;
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().context("waiting for cargo test")?;
    Ok((status.success(), from_libtest(&text)))
}

fn from_libtest(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in text.lines() {
        outcome.hear(line);
        if let Some(name) = line.strip_prefix("test ").and_then(|l| l.split_once(" ... ignored")) {
            outcome.skipped.insert(format!("{}: ignored", name.0));
        }
        let Some(counts) = line.strip_prefix("test result: ") else { continue };
        let count = |what: &str| -> u64 {
            let words: Vec<&str> = counts.split([' ', ';']).collect();
            let at = words.iter().position(|word| *word == what).unwrap_or(0);
            at.checked_sub(1).and_then(|i| words[i].parse().ok()).unwrap_or(0)
        };
        outcome.passed += count("passed");
        outcome.failed += count("failed");
    }
    outcome
}

impl Outcome {
    fn hear(&mut self, line: &str) {
        match said(line) {
            Said::Nothing => {}
            Said::Skipped(test) => drop(self.skipped.insert(test)),
            Said::Unclear(line) => drop(self.unclear.insert(line)),
        }
    }
}

/// What a test prints stands at the end of its line; before it may be what libtest or JUnit put there. A line that begins
/// with the word in small letters was meant too.
fn said(line: &str) -> Said {
    let Some((_, words)) = line.split_once(WORD) else {
        let printed = line.rsplit('>').next().unwrap_or_default().trim();
        let begins = printed.get(..WORD.len()).is_some_and(|w| w.eq_ignore_ascii_case(WORD));
        return if begins { Said::Unclear(printed.to_owned()) } else { Said::Nothing };
    };
    let name_and_reason = words.strip_prefix(": ").and_then(|said| said.split_once(": "));
    match name_and_reason.map(|(name, reason)| (name.trim(), reason.trim())) {
        Some((name, reason)) if is_name(name) && !reason.is_empty() => {
            Said::Skipped(format!("{name}: {reason}"))
        }
        _ => Said::Unclear(format!("{WORD}{words}").trim().to_owned()),
    }
}

/// A function's name, perhaps with its path.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_:-".contains(c))
}

/// A line of a JUnit file with XML's escapes undone, without what closes an element behind it.
fn plain(line: &str) -> String {
    let line = line.split("</system-").next().unwrap_or_default();
    let line = line.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    line.replace("&apos;", "'").replace("&amp;", "&")
}

/// Both ways: skipped and not expected, expected and not skipped.
fn unexpected(expected: &str, outcome: &Outcome) -> Vec<String> {
    let name = |line: &str| line.split(": ").next().unwrap_or_default().trim().to_owned();
    let is_entry = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    let (may, must): (Vec<&str>, Vec<&str>) =
        expected.lines().filter(is_entry).partition(|line| line.starts_with('?'));
    let expected: BTreeSet<String> = must.into_iter().map(name).collect();
    let optional: BTreeSet<String> = may.into_iter().map(|line| name(&line[1..])).collect();
    let skipped: BTreeSet<String> = outcome.skipped.iter().map(|line| name(line)).collect();
    let more = skipped.difference(&expected).filter(|n| !optional.contains(*n));
    let more = more.map(|n| format!("`{n}` was skipped, not expected"));
    let less = expected.difference(&skipped).map(|n| format!("`{n}` was expected to be skipped"));
    more.chain(less).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_junit_file_says_is_counted() {
        let text = "<testsuite>\n\
            <testcase name=\"a\" classname=\"x\" time=\"0.1\">\n</testcase>\n\
            <testcase name=\"b\"><failure type=\"test failure\"/>\n</testcase>\n\
            <testcase name=\"c\"><system-out>running\nSKIPPED: c: no &lt;sensor&gt;\n</system-out>\n\
            </testcase>\n</testsuite>";
        let skipped = BTreeSet::from(["c: no <sensor>".to_owned()]);
        let expected = Outcome { passed: 2, failed: 1, skipped, ..Outcome::default() };
        assert_eq!(from_junit(text), expected);
    }

    #[test]
    fn what_libtest_prints_is_counted() {
        let text = "test a ... ok\ntest b ... ignored, needs root\nSKIPPED: c: no sensor\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\n\
            test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured\n";
        let skipped = BTreeSet::from(["b: ignored".to_owned(), "c: no sensor".to_owned()]);
        let expected = Outcome { passed: 3, failed: 3, skipped, ..Outcome::default() };
        assert_eq!(from_libtest(text), expected);
    }

    #[test]
    fn a_test_that_skips_in_other_words_is_not_taken_for_one_that_ran() {
        for line in [
            "SKIPPED c: no sensor",
            "SKIPPED: c",
            "SKIPPED: c: ",
            "SKIPPED: no sensor here: c",
            "SKIPPED",
            "skipped: no sensor",
        ] {
            let junit = format!("<testcase name=\"c\"><system-out>{line}</system-out></testcase>");
            let unclear = BTreeSet::from([line.trim().to_owned()]);
            for outcome in [from_junit(&junit), from_libtest(line)] {
                assert_eq!(outcome.unclear, unclear, "{line}");
                assert_eq!(outcome.skipped, BTreeSet::new(), "{line}");
            }
        }
        for line in ["test c ... ok", "3 rows skipped", "", "skip"] {
            assert_eq!(said(line), Said::Nothing);
        }
    }

    #[test]
    fn a_skipped_test_that_nobody_expected_is_found() {
        let skipped = BTreeSet::from(["a: no sensor".to_owned(), "b: no root".to_owned()]);
        let outcome = Outcome { skipped, ..Outcome::default() };
        assert_eq!(unexpected("# why\na: kernels without it\nb\n", &outcome), [""; 0]);
        assert_eq!(unexpected("a\n", &outcome), ["`b` was skipped, not expected"]);
        assert_eq!(unexpected("a\nb\nc\n", &outcome), ["`c` was expected to be skipped"]);
        assert_eq!(unexpected("a\n? b: data that not everybody has\n? c\n", &outcome), [""; 0]);
    }
}
