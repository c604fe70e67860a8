//! SQL over all tables, apart from ingest.
//!
//! Questions run on threads of their own, at the lowest priority that needs no privilege: on a shared runtime, hostile
//! questions held up ingest for a second and more (`docs/benchmarks-store-notes.md`). Each question sees one snapshot
//! (`shelf.rs`) in a session of its own, may only read, and has bounds on everything that it could take (INV-COST-1):
//!
//! | bound | held by | answer |
//! | --- | --- | --- |
//! | questions that run, and that wait | a semaphore, a count | `Busy`, at once |
//! | time, waiting included | a timer; what runs is dropped, and with it every task of it (`interrupt.rs`) | `TooSlow` |
//! | memory of sorts, joins and groups | a pool of its own, nothing is spilled | `TooLarge` |
//! | rows | a limit in the plan | cut off, `truncated` |
//! | bytes of the answer | a count | `TooLarge` |
//! | bytes of SQL, and how deep it can nest | a comparison, a count of its words | `BadSql` |
//!
//! DataFusion's pool is no hard wall: what a scan holds is not counted, and that is bounded by its batches.

use crate::cell;
use crate::config::QueryBounds;
use crate::error::StoreError;
use crate::interrupt::{Asker, Interruptible, Limit};
use crate::metrics::Metrics;
use crate::rollup;
use crate::schema::{GAPS, Table};
use crate::shelf::{Shelf, Snapshot};
use crate::table::{Reach, StoredTable};
use crate::within;
use api::{Answer, Ask, Column, QueryError, Within};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::memory::{MemoryCatalogProvider, MemoryCatalogProviderList};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, cast, ident};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::StreamExt;
use object_store::local::LocalFileSystem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

const CATALOG: &str = "plimsoll";
const SCHEMA: &str = "public";

/// Footers of files, decoded: some 10 KB each, so that those of a week stay.
const FOOTERS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Of a thread that plans and runs questions, virtual until it is touched. Planning recurses, and a thread that overflows its
/// stack takes the process with it: see [`QueryBounds::sql_words_max`].
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// How much longer than its time a question is waited for. It is only passed by a step of a plan that cannot be stopped
/// (`interrupt.rs`); such a one keeps its place among the running ones until it ends.
const GRACE: Duration = Duration::from_secs(1);

/// What readers ask of: the tables, and nothing of how they are made.
const TABLES: [&str; 5] = ["gaps", "losses", "quarantine", "readings", "readings_1m"];

/// See the module's head.
pub(crate) struct Engine {
    /// Taken out when the engine ends, so that it does not wait for what runs.
    runtime: Option<Runtime>,
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    bounds: QueryBounds,
    metrics: Metrics,
    desk: Arc<Desk>,
}

/// What a question needs, on whatever thread it runs.
struct Desk {
    shelf: Arc<Shelf>,
    bounds: QueryBounds,
    environment: Arc<RuntimeEnv>,
    /// All functions and rules, and no table.
    base: SessionState,
    reach: Reach,
}

impl Engine {
    pub fn new(
        shelf: Arc<Shelf>,
        files: &Path,
        shards: u32,
        bounds: QueryBounds,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let start = |what: &'static str| {
            move |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Start {
                what,
                source,
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(bounds.threads)
            // Reads of files: more of them at once gain nothing, and others queue.
            .max_blocking_threads(bounds.threads * 4)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(|| {
                // Of this thread alone, on Linux. Without it questions still run apart, only less so.
                if let Err(e) = rustix::process::nice(19) {
                    tracing::warn!(error = %e, "questions run at the priority of ingest");
                }
            })
            .enable_time()
            .build()
            .map_err(|e| start("threads for questions")(e.into()))?;
        let desk = Desk::new(shelf, files, shards, bounds)
            .map_err(|e| start("the query engine")(e.into()))?;
        Ok(Self {
            runtime: Some(runtime),
            running: Arc::new(Semaphore::new(bounds.running_max)),
            waiting: AtomicUsize::new(0),
            bounds,
            metrics,
            desk: Arc::new(desk),
        })
    }

    /// Tasks of questions that have not ended: 0 when nothing runs.
    pub fn tasks(&self) -> usize {
        self.runtime().metrics().num_alive_tasks()
    }

    pub async fn ask(&self, ask: Ask, within: Option<Arc<Within>>) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let answered = self.answer(ask, within, started).await;
        let result = match &answered {
            Ok(_) => "answered",
            Err(e) => {
                let reason = reason(e);
                self.metrics.query_refusals.with_label_values(&[reason]).inc();
                tracing::info!(reason, error = %e, "question refused");
                "refused"
            }
        };
        let took = started.elapsed().as_secs_f64();
        self.metrics.query_seconds.with_label_values(&[result]).observe(took);
        answered
    }

    async fn answer(
        &self,
        ask: Ask,
        within: Option<Arc<Within>>,
        started: Instant,
    ) -> Result<Answer, QueryError> {
        let Ask { sql, rows_max, time_max_ms } = ask;
        if sql.len() > self.bounds.sql_bytes_max {
            let (found, max) = (sql.len(), self.bounds.sql_bytes_max);
            return Err(QueryError::BadSql(format!(
                "it has {found} bytes, expected at most {max}"
            )));
        }
        let (found, max) = (words(&sql)?, self.bounds.sql_words_max);
        if found > max {
            let what = format!("it has {found} words and operators, expected at most {max}");
            return Err(QueryError::BadSql(what));
        }
        let rows_max = rows_max.map_or(self.bounds.rows_max, |n| n.min(self.bounds.rows_max));
        let time_max = time_max_ms
            .map_or(self.bounds.time_max, |ms| Duration::from_millis(ms).min(self.bounds.time_max));
        let too_slow = QueryError::TooSlow { limit_ms: time_max.as_millis() as u64 };
        let Ok(admitted) = tokio::time::timeout(time_max, self.admit()).await else {
            return Err(too_slow);
        };
        let permit = admitted?;
        if !self.desk.shelf.is_listed() {
            let why = "the disk has no room to open the catalog; it is tried again";
            return Err(QueryError::Failed(why.to_owned()));
        }
        let left = time_max.saturating_sub(started.elapsed());
        let limit = Limit::new(Instant::now() + left);
        let _asker = Asker(limit.clone());
        let desk = self.desk.clone();
        let running = self.metrics.query_running.clone();
        let question = async move {
            // Both are given back when the work has ended, however it ends.
            let _running = (permit, Running::new(running));
            match tokio::time::timeout(left, desk.answer(&sql, rows_max, within, &limit)).await {
                // It was stopped from within.
                Ok(Err(_)) if limit.is_over() => None,
                ended => ended.ok(),
            }
        };
        // Dropped with this future, it is cancelled: whoever asked has gone.
        let mut task = JoinSet::new();
        task.spawn_on(question, self.runtime().handle());
        let ended = tokio::time::timeout(left + GRACE, task.join_next()).await;
        let Ok(ended) = ended.map(|ended| ended.expect("one task was spawned")) else {
            return Err(too_slow);
        };
        match ended {
            Ok(Some(answer)) => {
                let took_ms = started.elapsed().as_millis() as u64;
                answer.map(|answer| Answer { took_ms, ..answer })
            }
            Ok(None) => Err(too_slow),
            Err(e) => Err(QueryError::Failed(format!("the question ended early: {e}"))),
        }
    }

    async fn admit(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        const OPEN: &str = "the semaphore is never closed";
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let Some(_waiting) = Waiting::enter(self) else {
            let running = self.bounds.running_max - self.running.available_permits();
            let waiting = self.waiting.load(Ordering::Relaxed);
            return Err(QueryError::Busy { running, waiting });
        };
        Ok(self.running.clone().acquire_owned().await.expect(OPEN))
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until the engine is dropped")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Running(prometheus::IntGauge);

impl Running {
    fn new(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Waiting<'a>(&'a Engine);

impl<'a> Waiting<'a> {
    fn enter(engine: &'a Engine) -> Option<Self> {
        let one_more = |waiting| (waiting < engine.bounds.waiting_max).then_some(waiting + 1);
        engine.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        engine.metrics.query_waiting.inc();
        Some(Self(engine))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.query_waiting.dec();
    }
}

impl Desk {
    fn new(
        shelf: Arc<Shelf>,
        files: &Path,
        shards: u32,
        bounds: QueryBounds,
    ) -> Result<Self, DataFusionError> {
        let environment = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .with_metadata_cache_limit(FOOTERS_BYTES_MAX)
            .build_arc()?;
        // A question reaches the store's files through its tables, and no other file in any way.
        environment.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref())?;
        let url = ObjectStoreUrl::parse("plimsoll://files")?;
        let store = Arc::new(LocalFileSystem::new_with_prefix(files)?);
        environment.register_object_store(url.as_ref(), store.clone());
        let footers = environment.cache_manager.get_file_metadata_cache();
        let reader = Arc::new(CachedParquetFileReaderFactory::new(store, footers));
        let mut config = SessionConfig::new()
            .with_target_partitions(bounds.threads)
            .with_information_schema(true)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(false);
        config.options_mut().execution.time_zone = Some("UTC".to_owned());
        let bins = datafusion::functions::datetime::date_bin();
        let mut base = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .with_runtime_env(environment.clone())
            .build();
        // What TimescaleDB calls it.
        let bins = bins.as_ref().clone().with_aliases(["time_bucket"]);
        datafusion::execution::FunctionRegistry::register_udf(&mut base, Arc::new(bins))?;
        Ok(Self { shelf, bounds, environment, base, reach: Reach { url, reader, shards } })
    }

    async fn answer(
        &self,
        sql: &str,
        rows_max: usize,
        within: Option<Arc<Within>>,
        limit: &Arc<Limit>,
    ) -> Result<Answer, QueryError> {
        let is_bounded = within.is_some();
        let state = self.session(within, limit).map_err(refused)?;
        let plan = state.create_logical_plan(sql).await.map_err(refused)?;
        if is_bounded && matches!(plan, LogicalPlan::Analyze(_)) {
            let why = "expected EXPLAIN without ANALYZE, found it with: it measures work on all rows, and not all may be seen";
            return Err(QueryError::BadSql(why.to_owned()));
        }
        let read_only = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(refused)?;
        let plan = limited(plan, rows_max).map_err(refused)?;
        let columns = plan.schema().fields().iter().map(|field| Column {
            name: field.name().clone(),
            kind: cell::kind(field.data_type()),
        });
        let columns: Vec<Column> = columns.collect();
        let plan = state.create_physical_plan(&plan).await.map_err(refused)?;
        let mut batches = execute_stream(plan, state.task_ctx()).map_err(refused)?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(refused)?;
            let room = rows_max - rows.len();
            let truncated = batch.num_rows() > room;
            let batch = batch.slice(0, batch.num_rows().min(room));
            let first = rows.len();
            rows.resize_with(first + batch.num_rows(), || Vec::with_capacity(columns.len()));
            for column in batch.columns() {
                let cells = cell::cells(column).map_err(|e| refused(e.into()))?;
                for (row, cell) in rows[first..].iter_mut().zip(cells) {
                    bytes += cell::size(&cell);
                    row.push(cell);
                }
            }
            if bytes > self.bounds.answer_bytes_max {
                let max = self.bounds.answer_bytes_max;
                return Err(QueryError::TooLarge(format!(
                    "the answer has more than {max} bytes: ask for fewer rows or columns"
                )));
            }
            if truncated {
                return Ok(Answer { columns, rows, truncated, took_ms: 0 });
            }
        }
        Ok(Answer { columns, rows, truncated: false, took_ms: 0 })
    }

    /// A session of its own, with its own memory, over the store as it is now.
    fn session(
        &self,
        within: Option<Arc<Within>>,
        limit: &Arc<Limit>,
    ) -> Result<SessionState, DataFusionError> {
        let environment = RuntimeEnvBuilder::from_runtime_env(&self.environment)
            .with_memory_limit(self.bounds.memory_bytes_max, 1.0)
            .build_arc()?;
        let tables = Tables {
            snapshot: Arc::new(self.shelf.snapshot()),
            reach: self.reach.clone(),
            base: self.base.clone(),
            within,
        };
        let mut state = SessionStateBuilder::new_from_existing(self.base.clone())
            .with_runtime_env(environment)
            .with_catalog_list(catalog_of(Arc::new(tables))?)
            .with_physical_optimizer_rule(Arc::new(Interruptible(limit.clone())))
            .build();
        // The moment that `now()` is in all of the question. A state that is not asked by way of a `SessionContext` has none.
        state.mark_start_execution();
        Ok(state)
    }
}

/// Tokens that may nest one level deeper each. What nests by parentheses is bounded by the parser itself.
fn words(sql: &str) -> Result<usize, QueryError> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|e| QueryError::BadSql(e.to_string()))?;
    let nests = |token: &&Token| {
        !matches!(
            token,
            Token::Comma
                | Token::LParen
                | Token::RParen
                | Token::Whitespace(_)
                | Token::Number(..)
                | Token::SingleQuotedString(_)
        )
    };
    Ok(tokens.iter().filter(nests).count())
}

/// One more row than may be shown tells whether there are more; and a sort need not keep what is never shown.
fn limited(plan: LogicalPlan, rows_max: usize) -> Result<LogicalPlan, DataFusionError> {
    match plan {
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) => {
            Ok(plan)
        }
        plan => LogicalPlanBuilder::from(plan).limit(0, Some(rows_max + 1))?.build(),
    }
}

fn catalog_of(
    schema: Arc<dyn SchemaProvider>,
) -> Result<Arc<dyn CatalogProviderList>, DataFusionError> {
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(SCHEMA, schema)?;
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    Ok(Arc::new(list))
}

/// The tables of one snapshot, made when they are named.
struct Tables {
    snapshot: Arc<Snapshot>,
    reach: Reach,
    base: SessionState,
    /// What of them the asker may see.
    within: Option<Arc<Within>>,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tables(version {})", self.snapshot.version)
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        TABLES.map(str::to_owned).to_vec()
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.contains(&name)
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let within = || self.within.clone();
        let stored = |table| StoredTable::new(table, &self.snapshot, self.reach.clone(), within());
        Ok(match Table::from_name(name) {
            Some(Table::Readings) => Some(Arc::new(with_value(stored(Table::Readings))?)),
            Some(Table::Rollup) => Some(Arc::new(self.rollup(stored(Table::Rollup)).await?)),
            Some(table) => Some(Arc::new(stored(table))),
            None if name == "gaps" => {
                let rows = vec![self.gaps()?];
                Some(Arc::new(MemTable::try_new(GAPS.clone(), rows)?))
            }
            None => None,
        })
    }
}

impl Tables {
    /// Of the devices that may be seen. They are one batch then: a plan shows how many there are.
    fn gaps(&self) -> Result<Vec<RecordBatch>, DataFusionError> {
        let all = self.snapshot.gaps();
        let Some(within) = &self.within else { return Ok(all.to_vec()) };
        let all = concat_batches(&GAPS, all)?;
        let mask = within::mask(all.column(GAPS.index_of("device")?), &within.devices);
        Ok(vec![filter_record_batch(&all, &mask)?])
    }

    /// `readings_1m`: parts in files, merged with the rows that are in none.
    async fn rollup(&self, parts: StoredTable) -> Result<ViewTable, DataFusionError> {
        let (snapshot, reach) = (&self.snapshot, self.reach.clone());
        let rows = StoredTable::fresh_only(Table::Readings, snapshot, reach, self.within.clone());
        let rows = with_value(rows)?;
        let inside = datafusion::catalog::memory::MemorySchemaProvider::new();
        inside.register_table("parts".to_owned(), Arc::new(parts))?;
        inside.register_table("rows".to_owned(), Arc::new(rows))?;
        let state = SessionStateBuilder::new_from_existing(self.base.clone())
            .with_catalog_list(catalog_of(Arc::new(inside))?)
            .build();
        Ok(ViewTable::new(state.create_logical_plan(rollup::VIEW).await?, None))
    }
}

/// `readings` with `value`: the value as a number, whatever its type; null for a text. It is computed rather than stored:
/// stored it would be every number twice.
fn with_value(stored: StoredTable) -> Result<ViewTable, DataFusionError> {
    let float = arrow::datatypes::DataType::Float64;
    let value = coalesce(vec![
        ident("value_float"),
        cast(ident("value_int"), float.clone()),
        cast(ident("value_bool"), float),
    ]);
    let mut columns = Vec::new();
    for field in Table::Readings.schema().fields() {
        if field.name() == "value_float" {
            columns.push(value.clone().alias("value"));
        }
        columns.push(ident(field.name()));
    }
    let plan = LogicalPlanBuilder::scan("readings", provider_as_source(Arc::new(stored)), None)?;
    Ok(ViewTable::new(plan.project(columns)?.build()?, None))
}

/// What DataFusion says when a condition fails on a row of a file. It comes as the file's fault, and as text alone.
const FAILED_CONDITION: &str = "Error evaluating filter predicate";

/// Whose fault it is.
fn refused(error: DataFusionError) -> QueryError {
    let what = || error.strip_backtrace();
    if what().contains(FAILED_CONDITION) {
        return QueryError::BadSql(what());
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => QueryError::TooLarge(what()),
        DataFusionError::ArrowError(arrow, _) => match **arrow {
            ArrowError::IoError(..)
            | ArrowError::ParquetError(_)
            | ArrowError::ExternalError(_) => QueryError::Failed(what()),
            // A division by zero, a cast that does not fit: the question's own.
            _ => QueryError::BadSql(what()),
        },
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::Diagnostic(..)
        | DataFusionError::Collection(_) => QueryError::BadSql(what()),
        _ => QueryError::Failed(what()),
    }
}

fn reason(error: &QueryError) -> &'static str {
    match error {
        QueryError::BadSql(_) => "bad_sql",
        QueryError::TooSlow { .. } => "too_slow",
        QueryError::TooLarge(_) => "too_large",
        QueryError::Busy { .. } => "busy",
        QueryError::Failed(_) => "failed",
    }
}
