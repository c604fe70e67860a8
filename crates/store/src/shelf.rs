//! What a question sees: the files of one version of the catalog, and the fresh rows above it, taken at one instant.
//!
//! A shard's step moves its rows from memory into files. Both ends of that move happen here under one lock, after the
//! catalog has it, so that a snapshot holds every row once: before the move as fresh, after it in a file, never in both
//! and never in neither.

use crate::catalog::FileEntry;
use crate::fresh::{Fresh, Size};
use crate::ingest::Intake;
use crate::schema::Table;
use arrow::record_batch::RecordBatch;
use std::sync::{Arc, Mutex, MutexGuard};

/// The files of a table. Shared by snapshots, and copied when a step adds to it.
pub type Files = Arc<Vec<Arc<FileEntry>>>;

/// Shared by the consumers of all shards and by all questions.
pub struct Shelf {
    state: Mutex<State>,
}

struct State {
    version: u64,
    files: [Files; Table::ALL.len()],
    fresh: Vec<Fresh>,
    /// Of each shard, as of its last step.
    gaps: Vec<Option<RecordBatch>>,
    is_listed: bool,
}

/// All rows of one instant. It keeps what it shows: a step after it changes nothing in it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows by one with each step.
    pub version: u64,
    files: [Files; Table::ALL.len()],
    fresh: [Vec<Vec<RecordBatch>>; Table::ALL.len()],
    gaps: Vec<RecordBatch>,
}

impl Snapshot {
    pub fn files(&self, table: Table) -> &Files {
        &self.files[table.index()]
    }

    /// The rows of a table that are in no file, per shard.
    pub fn fresh(&self, table: Table) -> &[Vec<RecordBatch>] {
        &self.fresh[table.index()]
    }

    /// The rows of `gaps`.
    pub(crate) fn gaps(&self) -> &[RecordBatch] {
        &self.gaps
    }
}

impl Shelf {
    /// Empty, for so many shards.
    pub fn new(shards: u32) -> Self {
        let fresh = (0..shards).map(|_| Fresh::default()).collect();
        let gaps = vec![None; shards as usize];
        let files = Default::default();
        let state = State { version: 0, files, fresh, gaps, is_listed: false };
        Self { state: Mutex::new(state) }
    }

    /// Puts the files on it that the catalog has, in place of what it had before. No step may have happened here yet.
    pub fn put(&self, files: Vec<FileEntry>) {
        let mut state = self.state();
        state.files = Default::default();
        state.put(files);
        state.is_listed = true;
    }

    /// Whether it was ever told which files there are. Until then it shows nothing, which is not an answer.
    pub(crate) fn is_listed(&self) -> bool {
        self.state().is_listed
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.state();
        let fresh = Table::ALL.map(|table| {
            let shards = state.fresh.iter_mut().map(|fresh| fresh.rows(table));
            shards.filter(|batches| !batches.is_empty()).collect()
        });
        let gaps = state.gaps.iter().flatten().cloned().collect();
        Snapshot { version: state.version, files: state.files.clone(), fresh, gaps }
    }

    pub(crate) fn append(&self, shard: u32, intake: &Intake) -> Size {
        let mut state = self.state();
        let fresh = &mut state.fresh[shard as usize];
        fresh.append(intake);
        fresh.size()
    }

    /// A shard's rows, for its step. Its consumer adds none until the step is done.
    pub(crate) fn fresh(&self, shard: u32) -> Vec<(Table, Vec<RecordBatch>)> {
        let mut state = self.state();
        let fresh = &mut state.fresh[shard as usize];
        Table::ALL.iter().map(|table| (*table, fresh.rows(*table))).collect()
    }

    /// The shard's rows are in these files now.
    pub(crate) fn step(&self, shard: u32, files: Vec<FileEntry>) {
        let mut state = self.state();
        state.put(files);
        state.fresh[shard as usize] = Fresh::default();
        state.version += 1;
    }

    pub(crate) fn show_gaps(&self, shard: u32, gaps: RecordBatch) {
        self.state().gaps[shard as usize] = Some(gaps);
    }

    /// The shard's rows take no effect here: another consumer has them.
    pub(crate) fn drop_fresh(&self, shard: u32) {
        self.state().fresh[shard as usize] = Fresh::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the shelf")
    }
}

impl State {
    fn put(&mut self, files: Vec<FileEntry>) {
        for file in files {
            let of_table = &mut self.files[file.name.table.index()];
            Arc::make_mut(of_table).push(Arc::new(file));
        }
    }
}
