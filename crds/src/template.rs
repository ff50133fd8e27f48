//! `ExperimentTemplate`: what to run. Flattened into an Experiment's spec and into a Pipeline's stage.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::data::{Checkpoint, Input, Output};
use crate::schema;
use crate::source::Source;

/// What to run. A root gives an `image`; a clone says where it comes `from`, and every other field is an override.
///
/// Every string may hold references: `${params.lr}`, `${inputs.dataset.uri}`, `${run.name}`, and in a
/// stage also `${pipeline.params.lr}` and `${stages.train.metrics.acc.max}`; `${= expression }` is CEL
/// over the same names. A string that is one whole reference keeps the value's type. `$${` is a literal `${`.
/// `run` has `name`, `namespace`, `uid`, `attempt`, and of a stage `pipeline`, `pipelineRun`, `stage` and, of a member of a
/// fan-out, `member`: its index.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.queue) || !has(self.admission)").message("either a Queue admits it or Kueue does: leave out queue or admission").field_path(".admission"))]
pub struct ExperimentTemplate {
    /// Container image of a root, or the override of a clone's. What a tag stands for is looked up when a pipeline's run begins,
    /// and stays so for that run (`name:tag@sha256:…`). Else the frozen template of what has ended holds the digest that the node
    /// ran, where the runtime reports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,

    /// Where the template comes from: a completed experiment, by name or by selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,

    /// Paths that the clone removes from its source's template before the overrides, e.g.
    /// `params.scheduler`, `env.FOO`, `command`. A path that the source does not have is an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub unset: Vec<String>,

    /// Entrypoint; the image's own when absent. Kubernetes expands `$(VAR)` in what you write here,
    /// never in what a reference inserts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 65536)))]
    pub command: Vec<String>,

    /// Arguments to the entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(max = 65536)))]
    pub args: Vec<String>,

    /// Parameters: any JSON, types are kept, null is a value. The program reads them by reference in
    /// `args` and `env`, and all of them as JSON in the environment variable CULTIVAR_PARAMS.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_object")]
    pub params: Map<String, Value>,

    /// Environment variables, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,

    /// Sources of environment variables, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env_from: Vec<EnvFromSource>,

    /// The program's code, where it is not in the image: fetched before the program starts, which then starts in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,

    /// What the program reads, by name: `${inputs.<name>.path}` is where it finds it, `.uri` where it came from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub inputs: Vec<Input>,

    /// Artifacts that the program must leave at `${outputs.<name>.path}` or report. One that is missing, unless
    /// optional, fails the run with the reason OutputMissing. Whatever else lies in `$CULTIVAR_OUTPUTS`, or is
    /// reported, is recorded all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub outputs: Vec<Output>,

    /// What is saved from time to time and given back to the next attempt, also after a lost node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,

    /// Folders in which the program leaves TensorBoard event files; their scalars become metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 1024)))]
    pub tensorboard: Vec<String>,

    /// Name of the ArtifactStore for what the run leaves; `default` in the namespace unless given, else the operator's
    /// own store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub store: Option<String>,

    /// What becomes of the artifacts, logs and records in the store when the Experiment is deleted; Keep by default.
    /// With Delete they go with it, but for what another Experiment or a Pipeline refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<ArtifactPolicy>,

    /// How long the container of a failed attempt stays, for a look inside, e.g. `1h`; not at all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub keep_on_failure: Option<String>,

    /// CPU, memory, GPUs and other resources of the container, as in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// How many pods run the program together, 1 by default. They are admitted whole or not at all, find each other by
    /// MASTER_ADDR, MASTER_PORT, WORLD_SIZE and NODE_RANK, and the end of any but a good one ends the attempt. Worker 0
    /// reports: its outputs, metrics and checkpoints count, and the run has completed when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub workers: Option<u32>,

    /// The Queue in which the run waits for what its pods ask for; the namespace's default one unless given, by its
    /// label `cultivar.dev/default-queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub queue: Option<String>,

    /// Who admits the run where no Queue does: Kueue. It does not go with `queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,

    /// How often an attempt that ended badly is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,

    /// How long each step of a run may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,

    /// Whether the result of an identical run may be taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,

    /// Strategic-merge patch over the rendered pod template (`metadata` and `spec`); the program's
    /// container is called `main`. What the pod security rules of the namespace forbid stays forbidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub pod_template: Option<Value>,
}

/// Who admits a run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Admission {
    /// Kueue: the Job is made suspended, with Kueue's label, and starts when Kueue lets it. What Kueue stops goes on in the
    /// same Job once it is let again, and spends no retry.
    pub kueue: Kueue,
}

/// How Kueue admits.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Kueue {
    /// Name of the LocalQueue, in the experiment's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub local_queue: String,
}

/// What becomes of artifacts when their Experiment is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArtifactPolicy {
    /// They stay.
    #[default]
    Keep,
    /// They go with it, unless something refers to them.
    Delete,
}

/// Where a clone's template comes from.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.experiment) != has(self.selector)").message("name one source: either experiment or selector"))]
pub struct From {
    /// Name of an Experiment in the same namespace. While it does not exist or still runs, the clone
    /// waits, at most `timeouts.template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub experiment: Option<String>,

    /// Picks one Experiment of the same namespace by its labels, once, when the clone starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,

    /// What the source must have reached. Completed (default) takes only what ended well; Ended takes
    /// any terminal source, which is how a failed run is fixed by cloning it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require: Option<Require>,
}

/// What the source of a clone must have reached.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Require {
    /// Only what ended well.
    #[default]
    Completed,
    /// Anything that has ended and has a frozen template.
    Ended,
}

/// Picks an Experiment by labels.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.pick) && self.pick == 'Best') == has(self.best)").message("pick: Best needs best.metric, and best belongs to pick: Best only"))]
pub struct Selector {
    /// Labels that the Experiment must carry, all of them.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
    /// Latest (default): the one that ended last. Best: the one with the best metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pick: Option<Pick>,
    /// What best means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
}

/// Which of the matching experiments is picked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// The one that ended last.
    #[default]
    Latest,
    /// The one with the best metric.
    Best,
}

/// What best means.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Best {
    /// Name of the metric, e.g. `val/acc`. An experiment without it is not considered.
    #[schemars(length(min = 1, max = 256))]
    pub metric: String,
    /// Whether more or less is better; Maximize by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// Which value of the metric counts; Last by default.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub use_: Option<MetricUse>,
}

/// Whether more or less is better.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// More is better.
    #[default]
    Maximize,
    /// Less is better.
    Minimize,
}

/// Which value of a metric counts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricUse {
    /// The last value.
    #[default]
    Last,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
}

/// How often an attempt is repeated; two budgets, since a lost node is not the program's fault.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// Retries after failures of the program (Error, OutputMissing, DeadlineExceeded); 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub limit: Option<u32>,
    /// Retries after failures of the cluster (Evicted, NodeLost, PodDeleted, ResultLost); 3 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub infrastructure: Option<u32>,
    /// How long to wait before a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
}

/// Waiting time before a retry: `initial * factor^(retries so far)`, at most `max`, with up to 10 % jitter. In a stage the times may
/// be references to `pipeline`, `stages` or `matrix`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// Before the first retry; 10s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration_or_reference")]
    pub initial: Option<String>,
    /// Growth from retry to retry, from 1 to 10; 2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: Option<u32>,
    /// Longest wait; 5m by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration_or_reference")]
    pub max: Option<String>,
}

/// How long each step may take. In a stage all but `template` may be references to `pipeline`, `stages` or `matrix`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Wait for the experiment named in `from`; 1h by default. Then: TemplateNotFound or WaitingForTemplate, Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub template: Option<String>,
    /// Wait in the queue, each time anew; without end by default. Then: QueueTimeout, Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration_or_reference")]
    pub queue: Option<String>,
    /// From the Job's creation until the program runs; 30m by default. Then: ImagePullFailed, Unschedulable or StartTimeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration_or_reference")]
    pub start: Option<String>,
    /// From the program's start to its end; none by default. Then: DeadlineExceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration_or_reference")]
    pub run: Option<String>,
}
