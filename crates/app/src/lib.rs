//! `pump-app`: a small application of a device, in four versions: what the demo and the tests install, and what they take back.
//!
//! Each version is an executable of its own. It prints one SenML pack in JSON (RFC 8428 §5) per line, and ends when its
//! standard input does.
//!
//! | version | what it is |
//! | --- | --- |
//! | 1.0.0 | `flow`, `pressure`, `temp` |
//! | 1.1.0 | the same, and `vibration` |
//! | 1.2.0 | its own check fails: after a second it ends with code 3, and has said nothing |
//! | 1.3.0 | as 1.1.0, and leaks memory, up to 64 MiB: healthy to look at, and a fault in telemetry (`app/rss`) |
//!
//! Never: links anything of the product. An application knows of the agent what any vendor's does: lines on a pipe.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// How often it measures, unless it is told otherwise.
pub const EVERY: Duration = Duration::from_millis(200);
/// Version 1.2 checks itself for so many turns before it gives up.
const CHECK_TURNS: u64 = 5;
/// What 1.2 ends with.
pub const CHECK_FAILED: u8 = 3;
/// Version 1.3 leaks so much in each turn, up to the end.
const LEAK_BYTES: usize = 1024 * 1024;
const LEAK_TURNS: usize = 64;

/// One version of it.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    pub version: &'static str,
    pub vibration: bool,
    pub fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    FailsItsCheck,
    LeaksMemory,
}

/// The whole program. `--every-ms N`: how often it measures.
pub fn main(release: &Release) -> ExitCode {
    let every = match every(std::env::args().skip(1)) {
        Ok(every) => every,
        Err(why) => {
            let _ = writeln!(io::stderr(), "error: {why}");
            return ExitCode::from(2);
        }
    };
    match run(release, every, &watch_stdin(), &mut io::stdout(), &mut io::stderr()) {
        Ok(code) => ExitCode::from(code),
        // Nobody reads any more.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn every(mut args: impl Iterator<Item = String>) -> Result<Duration, String> {
    let mut every = EVERY;
    while let Some(arg) = args.next() {
        let value = args.next().and_then(|text| text.parse().ok());
        match (arg.as_str(), value) {
            ("--every-ms", Some(ms @ 10..=60_000)) => every = Duration::from_millis(ms),
            _ => return Err(format!("expected --every-ms with 10 to 60000, found {arg:?}")),
        }
    }
    Ok(every)
}

/// Disconnected when standard input ends.
fn watch_stdin() -> Receiver<()> {
    let (hold, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink());
        drop(hold);
    });
    ended
}

/// Measures until `ended` is disconnected. Returns the exit code.
fn run(
    release: &Release,
    every: Duration,
    ended: &Receiver<()>,
    out: &mut impl io::Write,
    log: &mut impl io::Write,
) -> io::Result<u8> {
    writeln!(log, "pump-app {} starts", release.version)?;
    let mut leaked: Vec<Vec<u8>> = Vec::new();
    for turn in 0.. {
        match release.fault {
            Fault::FailsItsCheck if turn == CHECK_TURNS => {
                writeln!(log, "self-check failed: the valve does not answer")?;
                return Ok(CHECK_FAILED);
            }
            // It measures once it has checked itself.
            Fault::FailsItsCheck => {}
            Fault::LeaksMemory if leaked.len() < LEAK_TURNS => {
                // Not zeros: pages that were never written to cost nothing.
                leaked.push(vec![turn as u8 | 1; LEAK_BYTES]);
                say(release, turn, out)?;
            }
            Fault::None | Fault::LeaksMemory => say(release, turn, out)?,
        }
        match ended.recv_timeout(every) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    drop(leaked);
    Ok(0)
}

fn say(release: &Release, turn: u64, out: &mut impl io::Write) -> io::Result<()> {
    writeln!(out, "{}", pack(release, turn))?;
    out.flush()
}

/// A pump that runs: its values go round once in 100 turns.
fn pack(release: &Release, turn: u64) -> String {
    let angle = (turn % 100) as f64 / 100.0 * std::f64::consts::TAU;
    let mut line = format!(
        r#"[{{"n":"flow","u":"m3/s","v":{:.4}}},{{"n":"pressure","u":"Pa","v":{:.1}}},{{"n":"temp","u":"Cel","v":{:.2}}}"#,
        0.012 + 0.001 * angle.sin(),
        250_000.0 + 4_000.0 * angle.cos(),
        41.0 + 1.5 * angle.sin(),
    );
    if release.vibration {
        let speed = 0.0021 + 0.0002 * (7.0 * angle).sin();
        write!(line, r#",{{"n":"vibration","u":"m/s","v":{speed:.6}}}"#).expect("to a String");
    }
    line.push(']');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: Release = Release { version: "1.0.0", vibration: false, fault: Fault::None };

    /// What a release prints when it is ended after its first turn.
    fn first_turn(release: &Release) -> (u8, String) {
        let (hold, ended) = mpsc::channel();
        drop(hold);
        let mut out = Vec::new();
        let code = run(release, EVERY, &ended, &mut out, &mut io::sink()).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_turn_is_one_line_and_a_later_release_adds_a_series() {
        let line = "[{\"n\":\"flow\",\"u\":\"m3/s\",\"v\":0.0120},{\"n\":\"pressure\",\"u\":\"Pa\",\"v\":254000.0},\
                    {\"n\":\"temp\",\"u\":\"Cel\",\"v\":41.00}";
        assert_eq!(first_turn(&SOUND), (0, format!("{line}]\n")));
        let later = Release { vibration: true, ..SOUND };
        let more = ",{\"n\":\"vibration\",\"u\":\"m/s\",\"v\":0.002100}]\n";
        assert_eq!(first_turn(&later), (0, format!("{line}{more}")));
    }

    #[test]
    fn arguments_that_it_does_not_know_are_refused() {
        let every = |args: &[&str]| every(args.iter().map(|arg| arg.to_string()));
        assert_eq!(every(&[]), Ok(EVERY));
        assert_eq!(every(&["--every-ms", "50"]), Ok(Duration::from_millis(50)));
        for wrong in [&["--every-ms"][..], &["--every-ms", "9"], &["--every-ms", "x"], &["--help"]]
        {
            assert!(every(wrong).is_err(), "{wrong:?}");
        }
    }
}
