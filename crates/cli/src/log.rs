//! What a person sees of a running site: steps on standard output, events on standard error.

use crate::exit::Ended;
use crate::terminal;
use std::io::{IsTerminal as _, Write as _};
use tracing_subscriber::EnvFilter;

/// One step, for people.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::log::line(format_args!("  {}", format_args!($($words)*))) };
}

/// A line of an answer. Whoever reads may stop reading: that is no failure of ours.
macro_rules! tell {
    ($($words:tt)*) => { $crate::log::line(format_args!($($words)*)) };
}

/// A line on standard output. The terminal may be gone, and what runs is not to end in disorder for that.
pub fn line(words: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{words}");
}

/// What ends this process, on standard error, and what to do next.
pub fn error(error: &anyhow::Error) {
    let on_terminal = std::io::stderr().is_terminal();
    let word = terminal::painted("error", Some(terminal::Colour::Bad), on_terminal);
    let _ = writeln!(std::io::stderr(), "{word}: {error:#}");
    if let Some(next) = error.downcast_ref::<Ended>().and_then(|ended| ended.next.as_deref()) {
        next_step(next);
    }
}

/// What to do next, for people: programs read standard output.
pub fn next_step(what: &str) {
    let _ = writeln!(std::io::stderr(), "next: {what}");
}

/// Events, as text or as JSON lines: at `info` where the process has a log of its own, at `warn` beside the steps of `up`. `PLIMSOLL_LOG` overrides.
pub fn start(own_log: bool, json: bool) {
    let default = if own_log { "info" } else { "warn" };
    let filter =
        EnvFilter::try_from_env("PLIMSOLL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let to_terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    // A line that cannot be written would be told where it could not be written, and that panics: the terminal may be gone,
    // or the disk that holds the log full.
    let log = log.log_internal_errors(false);
    let log = log.with_ansi(to_terminal).with_writer(std::io::stderr);
    if json { log.json().init() } else { log.init() }
}
