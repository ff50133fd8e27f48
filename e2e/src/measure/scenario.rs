//! Playing one load once: start it, wait until all has ended, count.
//!
//! In: a shape. Out: [`Played`]. The clock runs from just before the first object is created until the last one has
//! ended as its kind says: a Job with its condition Complete, a PipelineRun with its phase.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Shape;
use super::bare;
use super::observe::{Book, Marks, Observer};
use crate::api::Server;
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::operator::{Metrics, Operator, Options};

const LIMIT: Duration = Duration::from_secs(600);
/// Requests in flight while the load is created.
const CREATORS: usize = 32;
/// The operator's labels.
const MARKS: Marks = Marks { chain: "cultivar.dev/pipeline", stage: "cultivar.dev/stage" };
const TEMPLATE: &str = "stage";

/// Where the scenarios play.
pub struct Session {
    pub(super) runtime: Runtime,
    pub(super) server: Server,
    pub(super) cluster: Cluster,
    pub(super) operator: PathBuf,
    pub(super) log_filter: String,
    scenario: std::cell::Cell<u32>,
}

/// What one scenario came to.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// Seconds from a pod's end to the next stage's Job.
    pub job_gaps: Vec<f64>,
    /// Seconds from a pod's end to the next stage's Pod.
    pub pod_gaps: Vec<f64>,
    /// Seconds until every pod had ended.
    pub pods_seconds: f64,
    /// Seconds until every Job was Complete, or every run had ended.
    pub total_seconds: f64,
    /// The operator's writes, as `"Kind verb" → count`.
    pub writes: BTreeMap<String, f64>,
    /// CPU that the operator used, in seconds.
    pub cpu_seconds: f64,
    /// Most memory that the operator held, in bytes.
    pub peak_memory: u64,
    /// Gaps as the operator itself counted them: sum and count.
    pub own_gap: Option<f64>,
}

/// The container that every stage runs: a second of work on one GPU.
pub fn container() -> Value {
    json!({"name": "main", "image": "measure:1", "resources": {"limits": {"nvidia.com/gpu": 1}}})
}

fn chain(index: usize) -> String {
    format!("chain-{index:03}")
}

impl Session {
    /// A session on a cluster whose definitions are installed.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub fn new(cluster: &Cluster, operator: PathBuf, log_filter: &str) -> Result<Self> {
        let runtime = Runtime::new().doing(|| "no runtime")?;
        let server = runtime.block_on(Server::connect(cluster))?;
        let log_filter = log_filter.to_owned();
        Ok(Self { runtime, server, cluster: cluster.clone(), operator, log_filter, scenario: std::cell::Cell::new(0) })
    }

    pub(super) fn namespace(&self) -> String {
        self.scenario.set(self.scenario.get() + 1);
        format!("measure-{}-{}", std::process::id(), self.scenario.get())
    }

    /// Plays a shape with plain Jobs.
    ///
    /// # Errors
    /// The API server fails, or not every Job ends.
    pub fn bare(&self, shape: Shape) -> Result<Played> {
        let namespace = self.namespace();
        let played = self.runtime.block_on(async {
            self.server.namespace(&namespace).await?;
            let observer = Observer::start(&self.server.client(), &namespace, bare::MARKS).await?;
            let follow = bare::Loop::start(&self.server, &namespace, shape).await;
            let begun = Instant::now();
            self.create_all((0..shape.chains).map(|index| bare::job(&namespace, &chain(index), 0)).collect()).await?;
            let jobs = shape.chains * shape.stages;
            observer.until("the end of every Job", LIMIT, |book| book.jobs_complete.len() == jobs).await?;
            drop(follow);
            let book = observer.book();
            let ends = book.jobs_complete.values().max().copied();
            Ok::<_, Error>(Played { total_seconds: since(begun, ends), ..gaps(&book, shape, begun) })
        })?;
        self.clear(&namespace)?;
        Ok(played)
    }

    /// Plays a shape with pipelines, under an operator of its own.
    ///
    /// # Errors
    /// The API server or the operator fails, or not every run completes.
    pub fn pipelines(&self, shape: Shape) -> Result<Played> {
        let namespace = self.namespace();
        self.runtime.block_on(self.server.namespace(&namespace))?;
        let options = Options { log_filter: self.log_filter.clone(), ..Options::default() };
        let operator = Operator::start(&self.operator, &self.cluster, &options)?;
        let mut played = self.runtime.block_on(self.play_pipelines(&namespace, shape, &operator))?;
        let usage = operator.usage()?;
        played.peak_memory = usage.peak_memory;
        operator.stop()?;
        self.clear(&namespace)?;
        Ok(played)
    }

    async fn play_pipelines(&self, namespace: &str, shape: Shape, operator: &Operator) -> Result<Played> {
        let observer = Observer::start(&self.server.client(), namespace, MARKS).await?;
        self.grow_template(namespace).await?;
        let (before, cpu_before) = (settled(operator).await?, operator.usage()?.cpu_seconds);
        let begun = Instant::now();
        self.create_all((0..shape.chains).map(|index| pipeline(namespace, &chain(index), shape)).collect()).await?;
        observer.until("the end of every run", LIMIT, |book| book.runs_ended.len() == shape.chains).await?;
        let after = settled(operator).await?;
        keep_metrics(operator, shape)?;
        let cpu_seconds = operator.usage()?.cpu_seconds - cpu_before;
        let book = observer.book();
        let bad: Vec<&String> =
            book.runs_ended.iter().filter(|(_, (_, phase))| phase != "Completed").map(|(name, _)| name).collect();
        if !bad.is_empty() {
            return Err(Error::new(format!("{} of {} runs did not complete", bad.len(), shape.chains)).why(bad[0]));
        }
        let ends = book.runs_ended.values().map(|(moment, _)| *moment).max();
        Ok(Played {
            total_seconds: since(begun, ends),
            writes: difference(&before, &after),
            cpu_seconds,
            own_gap: own_gap(&before, &after),
            ..gaps(&book, shape, begun)
        })
    }

    // The experiment that every stage clones; it has run and completed before the clock starts.
    async fn grow_template(&self, namespace: &str) -> Result<()> {
        let mut spec = container();
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("name");
        }
        let manifest = json!({
            "apiVersion": "cultivar.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": {"name": TEMPLATE, "namespace": namespace},
            "spec": spec,
        });
        self.server.create(&manifest).await?;
        let completed = |object: &Value| object["status"]["phase"] == "Completed";
        self.server.wait("Experiment", namespace, TEMPLATE, Duration::from_secs(60), completed).await.map(drop)
    }

    pub(super) async fn create_all(&self, manifests: Vec<Value>) -> Result<()> {
        let mut answers = futures::stream::iter(manifests)
            .map(|manifest| {
                let server = self.server.clone();
                async move { server.create(&manifest).await }
            })
            .buffer_unordered(CREATORS);
        while let Some(answer) = answers.next().await {
            answer?;
        }
        Ok(())
    }

    // Nothing of one scenario burdens the next.
    pub(super) fn clear(&self, namespace: &str) -> Result<()> {
        self.runtime.block_on(self.server.remove_namespace(namespace, Duration::from_secs(300)))
    }
}

fn pipeline(namespace: &str, name: &str, shape: Shape) -> Value {
    let stages: Vec<Value> = (0..shape.stages)
        .map(|stage| {
            let mut value = json!({"name": format!("s{stage}"), "from": {"experiment": TEMPLATE}});
            if let Some(before) = stage.checked_sub(1) {
                value["after"] = json!([{"stage": format!("s{before}")}]);
            }
            value
        })
        .collect();
    json!({
        "apiVersion": "cultivar.dev/v1alpha1",
        "kind": "Pipeline",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"stages": stages},
    })
}

// The operator's metrics once it has written all that it has to say: no write for two seconds.
pub(super) async fn settled(operator: &Operator) -> Result<Metrics> {
    let mut last = operator.metrics()?;
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = operator.metrics()?;
        if now.writes() != last.writes() {
            quiet_since = Instant::now();
        }
        last = now;
    }
    Ok(last)
}

// For whoever wants to know where a number comes from: passes by kind, their durations, the operator's own gaps.
fn keep_metrics(operator: &Operator, shape: Shape) -> Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/measure");
    let file = folder.join(format!("operator-{}x{}.metrics", shape.chains, shape.stages));
    let failed = || format!("cannot write {}", file.display());
    std::fs::create_dir_all(&folder).doing(failed)?;
    std::fs::write(&file, operator.get("/metrics")?).doing(failed)
}

pub(super) fn difference(before: &Metrics, after: &Metrics) -> BTreeMap<String, f64> {
    let before = before.writes();
    let more = after.writes().into_iter().map(|(name, count)| {
        let earlier = before.get(&name).copied().unwrap_or(0.0);
        (name, count - earlier)
    });
    more.filter(|(_, count)| *count > 0.0).collect()
}

fn own_gap(before: &Metrics, after: &Metrics) -> Option<f64> {
    let more = |series: &str| after.value(series) - before.value(series);
    let count = more("cultivar_stage_gap_seconds_count");
    (count > 0.0).then(|| more("cultivar_stage_gap_seconds_sum") / count)
}

fn since(begun: Instant, end: Option<Instant>) -> f64 {
    end.map_or(0.0, |end| end.duration_since(begun).as_secs_f64())
}

fn gaps(book: &Book, shape: Shape, begun: Instant) -> Played {
    let at = |chain: usize, stage: usize| {
        book.moments.get(&(self::chain(chain), format!("s{stage}"))).copied().unwrap_or_default()
    };
    let mut played = Played::default();
    for index in 0..shape.chains {
        for stage in 1..shape.stages {
            let (before, after) = (at(index, stage - 1), at(index, stage));
            let gap = |to: Option<Instant>| Some(to?.saturating_duration_since(before.ended?).as_secs_f64());
            played.job_gaps.extend(gap(after.job));
            played.pod_gaps.extend(gap(after.pod));
        }
    }
    played.pods_seconds = since(begun, book.moments.values().filter_map(|moments| moments.ended).max());
    played
}
