//! Which rows of the caller's table go to the log when, and which of them are covered.
//!
//! The table gets its rows in the same transactions as the state that they describe, numbered densely from 0; the log
//! gets them from here, in that order. There is one reading of rows or one making of a checkpoint at a time, so rows
//! that come meanwhile are the next group: groups grow with the load by themselves, without a timer.
//!
//! | doing | input | then |
//! | --- | --- | --- |
//! | resting | woken | reads |
//! | reading | new rows | appends them, makes a checkpoint |
//! | reading | nothing new | rests, or reads again if it was woken meanwhile or had to stop at the bound |
//! | covering | covered | releases what waited for it, reads |
//! | covering | failed, and it may pass | waits for the next wake, then tries the checkpoint again |
//!
//! At its start it reads one row that the log has already: the log compares it, and a table that was restored from a
//! backup is found before anything is appended. So the table keeps its newest covered row for ever.

use crate::event::Event;

/// How many rows to read at once, and so how many one checkpoint covers at most: a quarter of what a log lets wait.
pub const ROWS_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Rows may have been committed, or some time has passed.
    Woken,
    /// The rows that were asked for, ascending, as many as there are.
    Rows(Vec<Event>),
    /// A checkpoint covers so many events.
    Covered { size: u64 },
    /// The checkpoint was not made, for a reason that may pass.
    Failed,
}

/// What the driver does, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read rows from this number on; answered by [`Input::Rows`].
    Read { from: u64, rows_max: usize },
    /// Give these to [`crate::Log::append`]; its refusal stops everything.
    Append(Vec<Event>),
    /// Call [`crate::Log::checkpoint`]; answered by [`Input::Covered`] or [`Input::Failed`].
    Checkpoint,
    /// Rows below this number are covered: what waited for them goes on.
    Release { below: u64 },
    /// Something is wrong that does not pass: append no more, say why.
    Stop(Stopped),
}

/// The table is not the one that the log was made from (INV-EVID-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    #[error(
        "the table of events ends before event {expected}, which is in the log: the table was restored from a backup"
    )]
    TableBehind { expected: u64 },

    #[error("expected event {expected} next in the table, found {found}")]
    Gap { expected: u64, found: u64 },

    #[error("{found} rows came, at most {rows_max} were asked for")]
    TooMany { rows_max: usize, found: usize },
}

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sequencer {
    rows_max: usize,
    /// The next row to read.
    next: u64,
    /// How many events the log had when this began, or has been given since.
    appended: u64,
    doing: Doing,
    /// Woken since the reading began: there may be rows that it did not see.
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Doing {
    Resting,
    Reading,
    Covering,
    /// A checkpoint failed and is to be tried again.
    Waiting,
    Stopped,
}

impl Sequencer {
    /// `size` is how many events the log has; `rows_max`, at least 1, is usually [`ROWS_MAX`].
    pub fn start(size: u64, rows_max: usize) -> (Self, Vec<Effect>) {
        let next = size.saturating_sub(1);
        let doing = Doing::Reading;
        let sequencer = Self { rows_max, next, appended: size, doing, again: false };
        let effects = vec![Effect::Release { below: size }, sequencer.read()];
        (sequencer, effects)
    }

    pub fn on(mut self, input: Input) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        match (self.doing, input) {
            (Doing::Resting, Input::Woken) => self.begin_reading(&mut effects),
            (Doing::Waiting, Input::Woken) => {
                self.doing = Doing::Covering;
                effects.push(Effect::Checkpoint);
            }
            (Doing::Reading | Doing::Covering, Input::Woken) => self.again = true,
            (Doing::Reading, Input::Rows(rows)) => self.take(rows, &mut effects),
            (Doing::Covering, Input::Covered { size }) => {
                effects.push(Effect::Release { below: size });
                self.begin_reading(&mut effects);
            }
            (Doing::Covering, Input::Failed) => self.doing = Doing::Waiting,
            // An answer to what was not asked, or after the stop: nothing waits for it.
            (_, Input::Rows(_) | Input::Covered { .. } | Input::Failed)
            | (Doing::Stopped, Input::Woken) => {}
        }
        (self, effects)
    }

    pub fn is_stopped(&self) -> bool {
        self.doing == Doing::Stopped
    }

    fn take(&mut self, rows: Vec<Event>, effects: &mut Vec<Effect>) {
        if let Some(stopped) = self.wrong_with(&rows) {
            self.doing = Doing::Stopped;
            effects.push(Effect::Stop(stopped));
            return;
        }
        let end = self.next + rows.len() as u64;
        let is_all = rows.len() < self.rows_max;
        if !rows.is_empty() {
            effects.push(Effect::Append(rows));
        }
        self.next = end;
        if end > self.appended {
            self.appended = end;
            self.doing = Doing::Covering;
            effects.push(Effect::Checkpoint);
        } else if self.again || !is_all {
            self.begin_reading(effects);
        } else {
            self.doing = Doing::Resting;
        }
    }

    fn wrong_with(&self, rows: &[Event]) -> Option<Stopped> {
        if rows.len() > self.rows_max {
            return Some(Stopped::TooMany { rows_max: self.rows_max, found: rows.len() });
        }
        if rows.is_empty() && self.next < self.appended {
            return Some(Stopped::TableBehind { expected: self.next });
        }
        let numbered = (self.next..).zip(rows.iter().map(Event::sequence));
        let gap =
            |(expected, found)| (expected != found).then_some(Stopped::Gap { expected, found });
        numbered.into_iter().find_map(gap)
    }

    fn begin_reading(&mut self, effects: &mut Vec<Effect>) {
        self.again = false;
        self.doing = Doing::Reading;
        effects.push(self.read());
    }

    fn read(&self) -> Effect {
        Effect::Read { from: self.next, rows_max: self.rows_max }
    }
}
