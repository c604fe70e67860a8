//! What an operator can set, with the reckoning of each default.

use std::path::PathBuf;
use std::time::Duration;
use traces::Traces;

#[derive(Clone, Debug)]
pub struct Config {
    /// Holds `catalog.sqlite`, `files/` and `taken/`.
    pub dir: PathBuf,
    pub flush: FlushBounds,
    /// How long signed envelopes stay on the bus after they were committed: one week, so that a question raised about a
    /// reading on Monday can still be answered from its signed bytes on Friday.
    pub raw_retention: Duration,
    /// How many bytes of committed records a shard's bus may keep at most; beyond that the oldest go before their time,
    /// so that the bus never fills up with history. It must lie well below the bound of the bus itself.
    pub raw_bytes_max: u64,
    pub query: QueryBounds,
    /// Where traces are told of. By default: nowhere.
    pub traces: Traces,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            flush: FlushBounds::default(),
            raw_retention: Duration::from_secs(7 * 24 * 3600),
            raw_bytes_max: 512 * 1024 * 1024,
            query: QueryBounds::default(),
            traces: Traces::default(),
        }
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.dir.join("catalog.sqlite")
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    pub(crate) fn taken(&self) -> PathBuf {
        self.dir.join("taken")
    }
}

/// When what a shard holds in memory becomes files: whichever comes first.
///
/// Until then nothing is at risk, since it is on the bus; what a larger bound costs is memory, and time to read it again
/// after a crash. What a smaller one costs is files: a question pays for each one that it touches.
#[derive(Clone, Copy, Debug)]
pub struct FlushBounds {
    /// 200,000 rows: some 30 MB in memory, one or two MB of Parquet, and half a second to read again.
    pub rows_max: usize,
    /// 64 MiB, for rows of long texts and messages in quarantine.
    pub bytes_max: usize,
    /// 5 minutes: 288 steps a day and shard.
    pub age_max: Duration,
}

impl Default for FlushBounds {
    fn default() -> Self {
        Self {
            rows_max: 200_000,
            bytes_max: 64 * 1024 * 1024,
            age_max: Duration::from_secs(5 * 60),
        }
    }
}

/// INV-COST-1: what one question, and all of them together, may take from ingest.
#[derive(Clone, Copy, Debug)]
pub struct QueryBounds {
    /// From the asking to the answer, waiting included. The asker may narrow it.
    pub time_max: Duration,
    /// What DataFusion's operators may hold for one question. Not a hard wall: scans are not counted.
    pub memory_bytes_max: usize,
    /// Rows in an answer; the rest is cut off and said to be. The asker may narrow it.
    pub rows_max: usize,
    /// Bytes in an answer, as JSON and roughly: 10,000 rows of 3 KiB.
    pub answer_bytes_max: usize,
    /// Bytes of SQL: planning grows with them, and cannot be interrupted.
    pub sql_bytes_max: usize,
    /// Words and operators of SQL; literals and commas do not count, so that a list may be long. Each of them may nest one
    /// level deeper, and a level takes up to 32 KB of stack in a build without optimisation.
    pub sql_words_max: usize,
    pub running_max: usize,
    /// Beyond these a question is refused at once.
    pub waiting_max: usize,
    /// Threads that questions run on, at the lowest priority.
    pub threads: usize,
}

impl Default for QueryBounds {
    fn default() -> Self {
        Self {
            time_max: Duration::from_secs(30),
            memory_bytes_max: 256 * 1024 * 1024,
            rows_max: 10_000,
            answer_bytes_max: 32 * 1024 * 1024,
            sql_bytes_max: 64 * 1024,
            sql_words_max: 1000,
            running_max: 2,
            waiting_max: 8,
            threads: 2,
        }
    }
}
