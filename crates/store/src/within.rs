//! What of a table a question may see, when its asker may not see all of it (INV-LEAST-1).
//!
//! It is decided where rows are read, below everything that SQL can say, and closed to the optimizer: this node shows no
//! children, so that no filter, limit or statistics passes it. Otherwise a condition of the question could be tried on rows that
//! its asker may not see (`1 / (value - 3)` fails if there is one with a 3), and a plan that is explained would count them.
//! What leaves it is the same whether or not there is more: one partition, and batches that are full. What it costs: within a
//! file nothing is skipped by what the question asks for.

use api::Within;
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use futures::StreamExt as _;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// By what a row is known to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Zone,
    Device,
}

impl Key {
    /// Its zone, or, in a table without one, its device.
    pub fn of(schema: &Schema) -> Self {
        if schema.column_with_name("zone").is_some() { Self::Zone } else { Self::Device }
    }

    pub fn column(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Device => "device",
        }
    }

    fn names(self, within: &Within) -> &HashSet<String> {
        match self {
            Self::Zone => &within.zones,
            Self::Device => &within.devices,
        }
    }
}

/// Which of these names are among those that may be seen.
pub(crate) fn mask(column: &ArrayRef, names: &HashSet<String>) -> BooleanArray {
    // Neighbours are alike.
    let mut last: Option<(&str, bool)> = None;
    let is_seen = |name| {
        // No key is null; one that were would be nobody's.
        let name = name?;
        let is_seen = match last {
            Some((same, is_seen)) if same == name => is_seen,
            _ => names.contains(name),
        };
        last = Some((name, is_seen));
        Some(is_seen)
    };
    column.as_string_view().iter().map(is_seen).collect()
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct WithinExec {
    /// One partition of them.
    rows: Arc<dyn ExecutionPlan>,
    key: Key,
    /// Where the key is in the rows.
    column: usize,
    /// Which columns of the rows are shown.
    shown: Vec<usize>,
    within: Arc<Within>,
    properties: Arc<PlanProperties>,
}

impl WithinExec {
    pub fn new(
        rows: Arc<dyn ExecutionPlan>,
        key: Key,
        shown: Vec<usize>,
        within: Arc<Within>,
    ) -> Result<Self> {
        let column = rows.schema().index_of(key.column())?;
        let schema: SchemaRef = Arc::new(rows.schema().project(&shown)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let rows = Arc::new(CoalescePartitionsExec::new(rows));
        Ok(Self { rows, key, column, shown, within, properties: Arc::new(properties) })
    }
}

impl DisplayAs for WithinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WithinExec")
    }
}

impl ExecutionPlan for WithinExec {
    fn name(&self) -> &str {
        "WithinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => Err(DataFusionError::Internal("expected no children, found some".to_owned())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows_max = context.session_config().batch_size();
        let rows = self.rows.execute(partition, context)?;
        let seen = Seen {
            full: BatchCoalescer::new(rows.schema(), rows_max),
            rows: Some(rows),
            key: self.key,
            column: self.column,
            shown: self.shown.clone(),
            within: self.within.clone(),
        };
        let seen = futures::stream::try_unfold(seen, async |mut seen| {
            let batch = seen.next().await?;
            Ok(batch.map(|batch| (batch, seen)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), seen)))
    }
}

/// What may be seen of rows, in full batches.
struct Seen {
    full: BatchCoalescer,
    /// `None`: all are read.
    rows: Option<SendableRecordBatchStream>,
    key: Key,
    column: usize,
    shown: Vec<usize>,
    within: Arc<Within>,
}

impl Seen {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.full.next_completed_batch() {
                return Ok(Some(batch.project(&self.shown)?));
            }
            let Some(rows) = &mut self.rows else { return Ok(None) };
            match rows.next().await {
                Some(batch) => {
                    let batch = batch?;
                    let mask = mask(batch.column(self.column), self.key.names(&self.within));
                    self.full.push_batch_with_filter(batch, &mask)?;
                }
                None => {
                    self.rows = None;
                    self.full.finish_buffered_batch()?;
                }
            }
        }
    }
}
