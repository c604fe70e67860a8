//! Plans that stop when they are told to.
//!
//! DataFusion's operators yield when they read, and a task is dropped where it yields. A join can work for hours on what it
//! has read already: it compares each row of one side with all of the other, and when nothing matches it gives nothing on.
//! So this rule, the last of all, makes each join yield at every batch that it gives on, and lets its condition fail once
//! the question is over.
//!
//! What is left: a window function or a scalar function over one large value cannot be stopped in the middle. It runs at the
//! lowest priority and keeps its place among the questions that run, and whoever asked has long been told.

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How long a question may run.
#[derive(Debug)]
pub(crate) struct Limit {
    until: Instant,
    /// Nobody waits for the answer any more.
    is_forsaken: AtomicBool,
}

impl Limit {
    pub fn new(until: Instant) -> Arc<Self> {
        Arc::new(Self { until, is_forsaken: AtomicBool::new(false) })
    }

    pub fn is_over(&self) -> bool {
        self.is_forsaken.load(Ordering::Relaxed) || Instant::now() >= self.until
    }
}

/// Whoever asked. When this is dropped, the question is over.
pub(crate) struct Asker(pub Arc<Limit>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.is_forsaken.store(true, Ordering::Relaxed);
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Interruptible(pub Arc<Limit>);

impl PhysicalOptimizerRule for Interruptible {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(|node| {
            if !node.name().ends_with("JoinExec") {
                return Ok(Transformed::no(node));
            }
            let node = self.guarded(node)?;
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
        })?;
        Ok(plan.data)
    }

    fn name(&self) -> &str {
        "interruptible"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl Interruptible {
    fn guarded(&self, node: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>()
            && let Some(filter) = join.filter()
        {
            let filter = Some(self.guard(filter));
            let join = NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?;
            return Ok(Arc::new(join));
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>()
            && let Some(filter) = join.filter()
        {
            return join.builder().with_filter(Some(self.guard(filter))).build_exec();
        }
        Ok(node)
    }

    fn guard(&self, filter: &JoinFilter) -> JoinFilter {
        let guarded = Guarded { condition: filter.expression().clone(), limit: self.0.clone() };
        let columns = filter.column_indices().to_vec();
        JoinFilter::new(Arc::new(guarded), columns, filter.schema().clone())
    }
}

/// A condition that fails once the question is over.
#[derive(Debug)]
struct Guarded {
    condition: Arc<dyn PhysicalExpr>,
    limit: Arc<Limit>,
}

impl PartialEq for Guarded {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Guarded {}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PhysicalExpr for Guarded {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.limit.is_over() {
            return Err(DataFusionError::Execution("the question is over".to_owned()));
        }
        self.condition.evaluate(batch)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.condition.return_field(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let condition = children.pop().expect("it has one child");
        Ok(Arc::new(Self { condition, limit: self.limit.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}
