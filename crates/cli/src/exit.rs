//! How a command ends: a number for the program that called it, beside the words for who reads them.

use api::approval::Approval;
use std::fmt;
use std::process::ExitCode;

/// Stable: scripts are written against these numbers. `docs/cli.md` has the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Denied = 3,
    NotFound = 4,
    Conflict = 5,
    Unreachable = 6,
    Waits = 7,
}

impl Exit {
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Denied,
        Self::NotFound,
        Self::Conflict,
        Self::Unreachable,
        Self::Waits,
    ];

    pub const fn code(self) -> u8 {
        self as u8
    }

    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed, or refused for what was asked",
            Self::Usage => "the command line is wrong, or --yes is missing",
            Self::Denied => "not signed in, or without the right to do this",
            Self::NotFound => "there is no such thing",
            Self::Conflict => "not from where it stands, not now, or too often",
            Self::Unreachable => "no answer from the site, or not in time",
            Self::Waits => "asked for, not done: it waits for a second person",
        }
    }

    /// Of an answer that is no success.
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            404 | 410 => Self::NotFound,
            409 | 412 | 423 | 425 | 429 => Self::Conflict,
            408 | 502..=504 => Self::Unreachable,
            _ => Self::Failed,
        }
    }

    pub fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<Ended>() {
            Some(ended) => ended.exit,
            None if error.downcast_ref::<Waits>().is_some() => Self::Waits,
            None => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// The table, as `plimsoll --help` and the manual have it.
pub fn table() -> String {
    let line = |exit: &Exit| format!("  {}  {}\n", exit.code(), exit.meaning());
    format!("Exit codes:\n{}", Exit::ALL.iter().map(line).collect::<String>())
}

/// An error that ends the command with a code of its own.
#[derive(Debug)]
pub struct Ended {
    pub exit: Exit,
    pub what: String,
    /// What to do next, if there is something.
    pub next: Option<String>,
}

impl Ended {
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), next: None }
    }

    pub fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Ended {}

/// The site took it down and does it when a second person says yes. Not a failure, and not done either.
#[derive(Debug)]
pub struct Waits {
    pub approval: Approval,
    pub body: Vec<u8>,
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asked for, not done: {}", crate::table::plain(&self.approval.sentence))
    }
}

impl std::error::Error for Waits {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_code_is_found_below_what_was_said_around_it() {
        let error = anyhow::Error::new(Ended::new(Exit::NotFound, "no such device"));
        assert_eq!(Exit::of(&error.context("while it looked")), Exit::NotFound);
        assert_eq!(Exit::of(&anyhow::anyhow!("anything else")), Exit::Failed);
        let read = std::fs::read("/nowhere").context("cannot read");
        assert_eq!(Exit::of(&read.unwrap_err()), Exit::Failed);
    }

    #[test]
    fn codes_are_counted_from_0_without_a_gap() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn an_answers_status_decides_the_code() {
        for (status, exit) in [
            (400, Exit::Failed),
            (401, Exit::Denied),
            (403, Exit::Denied),
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (422, Exit::Failed),
            (429, Exit::Conflict),
            (500, Exit::Failed),
            (503, Exit::Unreachable),
            (504, Exit::Unreachable),
        ] {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
    }
}
