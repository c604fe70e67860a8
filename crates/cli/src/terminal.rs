//! What differs between a person at a terminal and a program behind a pipe: colour, width, times, questions, bars.
//!
//! Never: writes a bar, a colour or a question where nobody sees it.

use crate::exit::{Ended, Exit};
use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Good,
    Care,
    Bad,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Care => "33",
            Self::Bad => "31",
        }
    }

    /// Of a standing, a phase, a state: what a person looks for first.
    pub fn of(word: &str) -> Option<Self> {
        Some(match word {
            "enrolled" | "completed" | "approved" | "resolved" | "proven" => Self::Good,
            "quarantined" | "paused" | "reverting" | "acknowledged" | "open" | "warning" => {
                Self::Care
            }
            "revoked" | "halted" | "aborted" | "failed" | "firing" | "critical" => Self::Bad,
            _ => return None,
        })
    }
}

/// A word in its colour, on a terminal that is to have colours (<https://no-color.org>).
pub fn painted(word: &str, colour: Option<Colour>, on_terminal: bool) -> String {
    match colour {
        Some(colour) if on_terminal && wants_colour() => {
            format!("\u{1b}[{}m{word}\u{1b}[0m", colour.code())
        }
        _ => word.to_owned(),
    }
}

fn wants_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

pub fn out_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Of standard output, in columns.
pub fn width() -> Option<u16> {
    if !out_is_terminal() {
        return None;
    }
    let columns = tcgetwinsize(io::stdout()).ok()?.ws_col;
    (columns > 0).then_some(columns)
}

/// A time for people: in their own zone, which it names. Programs get what the API says.
pub fn time(at_ms: u64) -> String {
    time_in(at_ms, TimeZone::system())
}

fn time_in(at_ms: u64, zone: TimeZone) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match at {
        Some(at) => at.to_zoned(zone).strftime("%F %T %Z").to_string(),
        None => format!("{at_ms} ms"),
    }
}

/// How long ago or ahead, in its largest unit: `3 h`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Asks a person before something is done that cannot be taken back. A program says `--yes`.
pub fn ask_first(yes: bool, what: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let refusal = format!("{what} It cannot be taken back: expected --yes or a terminal");
        return Err(Ended::new(Exit::Usage, refusal)
            .next("--dry-run shows what would be done; --yes does it")
            .into());
    }
    let mut error = io::stderr();
    write!(error, "{what} It cannot be taken back. Go on? [y/N] ")?;
    error.flush()?;
    let mut said = String::new();
    io::stdin().lock().take(16).read_line(&mut said)?;
    match said.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Ended::new(Exit::Failed, "nothing was done").into()),
    }
}

/// Passwords are typed unseen, or come on standard input from a program, one a line.
pub fn password(prompt: &str) -> Result<String> {
    let stdin = io::stdin();
    let hidden = match stdin.is_terminal() {
        false => None,
        true => {
            eprint!("{prompt}: ");
            Some(Hidden::now()?)
        }
    };
    let mut line = String::new();
    // A byte more than any password has, and its line end.
    let max = api::user::PASSWORD_BYTES_MAX as u64 + 2;
    stdin.lock().take(max).read_line(&mut line).context("reading a password")?;
    if hidden.is_some() {
        drop(hidden);
        eprintln!();
    }
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password).to_owned();
    if password.is_empty() {
        return Err(
            Ended::new(Exit::Usage, "expected a password on standard input, found none").into()
        );
    }
    Ok(password)
}

/// A terminal that shows nothing of what is typed, until it is dropped.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn now() -> Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

const BAR_COLUMNS: u64 = 30;

/// A bar of [`BAR_COLUMNS`], full only when all is there.
pub fn bar(done: u64, of: u64) -> String {
    let filled = match of {
        0 => BAR_COLUMNS,
        of => u64::try_from(u128::from(done.min(of)) * u128::from(BAR_COLUMNS) / u128::from(of))
            .unwrap_or(BAR_COLUMNS),
    };
    let (filled, empty) = (filled as usize, (BAR_COLUMNS - filled) as usize);
    format!("{}{}", "█".repeat(filled), "░".repeat(empty))
}

/// One line on standard error that moves while bytes are read, hashed or fetched. Nothing where standard error is no terminal.
pub struct Progress {
    what: String,
    /// Things instead of bytes.
    counts: bool,
    of: Option<u64>,
    done: u64,
    shown: Option<Instant>,
    on: bool,
}

/// Ten times a second is as much as an eye follows.
const REDRAW: Duration = Duration::from_millis(100);

impl Progress {
    pub fn new(what: impl Into<String>, of: Option<u64>) -> Self {
        let on = io::stderr().is_terminal();
        Self { what: what.into(), counts: false, of, done: 0, shown: None, on }
    }

    pub fn counting(what: impl Into<String>, of: u64) -> Self {
        let mut progress = Self::new(what, Some(of));
        progress.counts = true;
        progress
    }

    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if !self.on || self.shown.is_some_and(|at| at.elapsed() < REDRAW) {
            return;
        }
        self.shown = Some(Instant::now());
        let _ = write!(io::stderr(), "\r\u{1b}[K{}", self.line());
        let _ = io::stderr().flush();
    }

    fn line(&self) -> String {
        let Self { what, done, .. } = self;
        let shown = |number: u64| if self.counts { number.to_string() } else { bytes(number) };
        match self.of {
            Some(of) => format!("{what}  {}  {} of {}", bar(*done, of), shown(*done), shown(of)),
            None => format!("{what}  {}", shown(*done)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

/// In the unit that a person would choose.
pub fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{} kB", count / 1000),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_when_all_is_there_and_not_before() {
        assert_eq!(bar(0, 8), "░".repeat(30));
        assert_eq!(bar(7, 8).matches('█').count(), 26);
        assert!(bar(999_999, 1_000_000).contains('░'));
        for (done, of) in [(8, 8), (9, 8), (0, 0), (u64::MAX, u64::MAX)] {
            assert_eq!(bar(done, of), "█".repeat(30), "{done} of {of}");
        }
    }

    #[test]
    fn progress_says_how_much_of_how_much() {
        let line = |mut progress: Progress, done| {
            progress.on = false;
            progress.add(done);
            progress.line()
        };
        let bytes = line(Progress::new("reading", Some(20_000_000)), 5_000_000);
        assert!(bytes.starts_with("reading  ███████░"), "{bytes}");
        assert!(bytes.ends_with("5000 kB of 20.0 MB"), "{bytes}");
        assert_eq!(line(Progress::new("export", None), 17), "export  17 B");
        assert!(line(Progress::counting("admitting", 4000), 1000).ends_with("1000 of 4000"));
    }

    #[test]
    fn a_time_is_shown_in_the_readers_zone_which_it_names() {
        let winter = 1_736_510_400_000;
        assert_eq!(time_in(winter, TimeZone::UTC), "2025-01-10 12:00:00 UTC");
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(time_in(winter, east), "2025-01-10 14:00:00 +02");
        assert_eq!(time_in(u64::MAX, TimeZone::UTC), format!("{} ms", u64::MAX));
    }

    #[test]
    fn a_span_has_its_largest_unit() {
        let found = [59_999, 600_000, 7_200_000, 864_000_000].map(span);
        assert_eq!(found, ["59 s", "10 min", "2 h", "10 days"]);
    }

    #[test]
    fn a_colour_is_seen_on_a_terminal_only() {
        assert_eq!(painted("halted", Colour::of("halted"), false), "halted");
        assert_eq!(painted("planned", Colour::of("planned"), true), "planned");
    }
}
