//! A table of one snapshot, as DataFusion scans it: files that the catalog knows, and fresh rows.
//!
//! No directory is listed and no file is opened to plan. A file is left out before anything of it is read when its shard,
//! its devices or its times cannot hold what is asked for; within a file Parquet's own statistics go on by row group and
//! page. Footers are cached under a bound.

use crate::catalog::FileEntry;
use crate::schema::{Table, time_type};
use crate::shelf::{Files, Snapshot};
use crate::within::{Key, WithinExec};
use api::Within;
use arrow::array::{ArrayRef, BooleanArray, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, DFSchema, Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use std::collections::HashSet;
use std::sync::Arc;

/// How files are reached: shared by all tables of all questions.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub url: ObjectStoreUrl,
    pub reader: Arc<dyn ParquetFileReaderFactory>,
    pub shards: u32,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct StoredTable {
    table: Table,
    files: Files,
    fresh: Vec<Vec<RecordBatch>>,
    reach: Reach,
    /// What of it may be seen. `None`: all.
    within: Option<Arc<Within>>,
    key: Key,
}

impl StoredTable {
    pub fn new(
        table: Table,
        snapshot: &Snapshot,
        reach: Reach,
        within: Option<Arc<Within>>,
    ) -> Self {
        let (files, fresh) = (snapshot.files(table).clone(), snapshot.fresh(table).to_vec());
        let key = Key::of(table.schema());
        Self { table, files, fresh, reach, within, key }
    }

    /// Only what is in no file, known by its device: so are the parts of `readings_1m`, with which it is merged.
    pub fn fresh_only(
        table: Table,
        snapshot: &Snapshot,
        reach: Reach,
        within: Option<Arc<Within>>,
    ) -> Self {
        let all = Self::new(table, snapshot, reach, within);
        Self { files: Files::default(), key: Key::Device, ..all }
    }

    /// The files that may hold rows for which all filters are true.
    fn pruned(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<Arc<FileEntry>>> {
        let all = || self.files.to_vec();
        let Some(predicate) = conjunction(filters.to_vec()) else { return Ok(all()) };
        let schema = self.table.schema();
        let predicate =
            state.create_physical_expr(predicate, &DFSchema::try_from(schema.clone())?)?;
        let predicate =
            PruningPredicateBuilder::new().with_file_schema(schema.clone()).build(predicate);
        let Some(predicate) = predicate else { return Ok(all()) };
        let known =
            Known { table: self.table, files: &self.files, shards: self.reach.shards as usize };
        // A bound of a file on which the condition fails (it overflows in a cast) says nothing of a row that is asked for, and
        // may be of one that its asker does not see.
        let Ok(kept) = predicate.prune(&known) else { return Ok(all()) };
        let files = self.files.iter().zip(kept);
        Ok(files.filter(|(_, kept)| *kept).map(|(file, _)| file.clone()).collect())
    }

    fn scan_files(
        &self,
        files: &[Arc<FileEntry>],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
        partitions: usize,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let source = ParquetSource::new(self.table.schema().clone())
            .with_parquet_file_reader_factory(self.reach.reader.clone())
            .with_pushdown_filters(true)
            .with_enable_page_index(true);
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        let mut statistics = Statistics::new_unknown(self.table.schema());
        statistics.num_rows = Precision::Exact(rows as usize);
        let files =
            files.iter().map(|file| PartitionedFile::new(file.name.to_string(), file.bytes));
        let config = FileScanConfigBuilder::new(self.reach.url.clone(), Arc::new(source))
            .with_file_groups(FileGroup::new(files.collect()).split_files(partitions))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(within) = &self.within else {
            return self.scan_all(state, projection, filters, limit);
        };
        let schema = self.schema();
        let mut read = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let shown = (0..read.len()).collect();
        let key = schema.index_of(self.key.column())?;
        if !read.contains(&key) {
            read.push(key);
        }
        // A limit counts what is seen: it is the caller's to hold.
        let rows = self.scan_all(state, Some(&read), filters, None)?;
        Ok(Arc::new(WithinExec::new(rows, self.key, shown, within.clone())?))
    }
}

impl StoredTable {
    fn scan_all(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut plans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        let files = self.pruned(state, filters)?;
        if !files.is_empty() {
            let partitions = state.config().target_partitions();
            plans.push(self.scan_files(&files, projection, limit, partitions)?);
        }
        if !self.fresh.is_empty() || plans.is_empty() {
            let nothing = [Vec::new()];
            let fresh = if self.fresh.is_empty() { &nothing[..] } else { &self.fresh };
            let fresh = MemorySourceConfig::try_new(fresh, self.schema(), projection.cloned())?
                // The rows are not what a reader of a plan wants to see.
                .with_show_sizes(false)
                .with_limit(limit);
            plans.push(DataSourceExec::from_data_source(fresh));
        }
        UnionExec::try_new(plans)
    }
}

/// What the catalog knows of files without opening them.
struct Known<'a> {
    table: Table,
    files: &'a [Arc<FileEntry>],
    shards: usize,
}

impl Known<'_> {
    fn column(
        &self,
        column: &Column,
        time: fn(&FileEntry) -> i64,
        device: fn(&FileEntry) -> &str,
    ) -> Option<ArrayRef> {
        let files = self.files.iter();
        if column.name == self.table.time_column() {
            let times: TimestampMicrosecondArray =
                files.map(|file| time(file)).collect::<Vec<_>>().into();
            return Some(Arc::new(times.with_data_type(time_type())));
        }
        (column.name == "device").then(|| -> ArrayRef {
            Arc::new(StringViewArray::from_iter_values(files.map(|file| device(file))))
        })
    }
}

impl PruningStatistics for Known<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.column(column, |file| file.time_min, |file| &file.device_min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.column(column, |file| file.time_max, |file| &file.device_max)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    /// A device's rows are in the files of one shard only.
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        if column.name != "device" {
            return None;
        }
        let mut shards = HashSet::new();
        for value in values {
            match value.try_as_str() {
                Some(Some(device)) => {
                    shards.insert(bus::shard_of(device.as_bytes(), self.shards) as u32);
                }
                // No device is null.
                Some(None) => {}
                None => return None,
            }
        }
        let contained = self.files.iter().map(|file| match shards.contains(&file.name.shard) {
            true => None,
            false => Some(false),
        });
        Some(contained.collect())
    }
}
