//! The rows of a shard that are on the bus and in no file yet, as Arrow.
//!
//! Rows are appended to builders; a chunk of `CHUNK_ROWS` is sealed and then shared, never copied. A question copies what
//! is open of a chunk: some 1 MB at most.

use crate::ingest::Intake;
use crate::schema::{Columns, LossColumns, QuarantineColumns, ReadingColumns, Table};
use arrow::record_batch::RecordBatch;

/// DataFusion's own size of a batch.
const CHUNK_ROWS: usize = 8192;

/// What a row of `readings` takes in memory besides its text value: 17 columns, texts as 16-byte views.
const READING_BYTES: usize = 200;

#[derive(Default)]
pub(crate) struct Fresh {
    readings: Chunks<ReadingColumns>,
    quarantine: Chunks<QuarantineColumns>,
    losses: Chunks<LossColumns>,
    size: Size,
}

/// How much there is, roughly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub rows: usize,
    pub bytes: usize,
}

impl Fresh {
    pub fn append(&mut self, intake: &Intake) {
        for pack in &intake.packs {
            self.readings.with(pack.readings.len(), |columns| columns.push(pack));
            let texts = pack.readings.iter().map(|reading| match &reading.value {
                model::Value::Text(text) => text.len(),
                _ => 0,
            });
            self.size.bytes += pack.readings.len() * READING_BYTES + texts.sum::<usize>();
        }
        for row in &intake.quarantined {
            self.quarantine.with(1, |columns| columns.push(row));
            self.size.bytes += READING_BYTES + row.message.len();
        }
        for row in &intake.losses {
            self.losses.with(1, |columns| columns.push(row));
            self.size.bytes += READING_BYTES;
        }
        self.size.rows += intake.rows();
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// The rows of a table as they are now. Rollups have none: they are made of the readings.
    pub fn rows(&mut self, table: Table) -> Vec<RecordBatch> {
        match table {
            Table::Readings => self.readings.rows(),
            Table::Quarantine => self.quarantine.rows(),
            Table::Losses => self.losses.rows(),
            Table::Rollup => Vec::new(),
        }
    }
}

#[derive(Default)]
struct Chunks<C> {
    sealed: Vec<RecordBatch>,
    open: C,
}

impl<C: Columns> Chunks<C> {
    fn with(&mut self, rows: usize, push: impl FnOnce(&mut C)) {
        if self.open.len() > 0 && self.open.len() + rows > CHUNK_ROWS {
            self.sealed.push(self.open.finish());
        }
        push(&mut self.open);
    }

    fn rows(&mut self) -> Vec<RecordBatch> {
        let mut rows = self.sealed.clone();
        if self.open.len() > 0 {
            rows.push(self.open.copy());
        }
        rows
    }
}
