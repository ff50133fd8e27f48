//! Kind Pipeline: the DAG under version control. Applying it runs it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::Phase;
use crate::fan_out::Matrix;
use crate::schema::{self, object_name};
use crate::template::{Admission, ExperimentTemplate};

/// A DAG of stages, each a clone of an experiment that already works or an inline root. A new run
/// starts when `stages`, `finally`, `params`, `paramSchema`, `outputs` or `rerun` change.
#[derive(CustomResource, Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "cultivar.dev",
    version = "v1alpha1",
    kind = "Pipeline",
    plural = "pipelines",
    shortname = "cvpl",
    category = "cultivar",
    namespaced,
    status = "PipelineStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A DAG of stages, each a clone of an experiment that already works or an inline root. Applying it runs it; a new run starts when stages, finally, params, paramSchema, outputs or rerun change.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Run", type_ = "string", json_path = ".status.latestRun.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.latestRun.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = object_name(40),
)]
#[serde(rename_all = "camelCase")]
pub struct PipelineSpec {
    /// Parameters and their defaults: any JSON. Stages read them as `${pipeline.params.<name>}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_object")]
    pub params: Map<String, Value>,

    /// What a parameter may be, by name, in words of JSON Schema. A default or a run's value that
    /// does not fit is refused with its path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub param_schema: BTreeMap<String, ParamSchema>,

    /// The stages. A stage starts when every stage that it refers to, and every stage in its
    /// `after`, has completed.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub stages: Vec<Stage>,

    /// Stages that run when all others have ended, however they did, also when the run was cancelled. They see the phase,
    /// metrics and artifacts of each, and how the run ended as `pipeline.phase` and `pipeline.message`; they do not wait
    /// for each other, and their own end does not change the run's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub finally: Vec<Stage>,

    /// Values of the run as a whole, by name: strings with references to stages. A run without one
    /// of them fails with the reason ReferenceUnresolved.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_object")]
    pub outputs: Map<String, Value>,

    /// The Queue of the stages that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub queue: Option<String>,

    /// Who admits the stages that say neither `queue` nor `admission`. It does not go with `queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,

    /// Priority of the stages in their queues; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,

    /// What happens when a stage fails: Continue (default) lets stages that do not depend on it
    /// finish; Stop cancels everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,

    /// How many experiments of one run are there at once that have not ended; without it nothing but queues holds them
    /// back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_parallel: Option<u32>,

    /// How long a run of it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RunTimeouts>,

    /// What becomes of a run while another one of the pipeline has not ended: Queue (default), Allow, Replace or Forbid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,

    /// Runs of this and of other pipelines of the namespace that must not run at the same time, or not too many of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,

    /// True makes no run of a change until it is false again; what has changed meanwhile makes one then. Runs that exist go
    /// on, and a PipelineRun that somebody makes runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// What starts a run: Change (default), or Demand, and then only a PipelineRun does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_on: Option<RunOn>,

    /// Any new value asks for a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub rerun: Option<String>,

    /// How many ended runs are kept, with their experiments; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub history_limit: Option<u32>,

    /// How long runs that are made from now on are kept after they have ended, with their experiments, e.g. `30d`; by default
    /// until there are more than `historyLimit`. Each has it as its own `ttlAfterFinished`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub ttl_after_finished: Option<String>,

    /// What becomes of the runs that are made from now on when the Pipeline is deleted, by hand or by pruning: Keep (default)
    /// ends those that have not ended and keeps the others, with their experiments; Delete deletes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// What becomes of a deleted Pipeline's runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// They stay, ended.
    #[default]
    Keep,
    /// They go with it.
    Delete,
}

/// One node of the DAG; its run becomes an Experiment of its own.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.image) || has(self.from) || has(self.pipeline) || has(self.gate)").message("say what to run: set image (a root), from (a clone of an experiment), pipeline (a run of another pipeline) or gate (which waits for an Approval)"))]
pub struct Stage {
    /// Name, unique within the pipeline: a DNS label that starts with a letter, at most 40 characters.
    #[schemars(schema_with = "schema::label_name")]
    pub name: String,

    /// Stages that must have come to an end first although nothing here refers to them, and to which end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["stage".into()]))]
    pub after: Vec<StageDependency>,

    /// CEL over `params`' outer names, e.g. `stages.train.metrics["val/acc"].max > 0.9`. False skips the stage. A stage of
    /// which nothing but `phase` is read may end in any way: `stages.a.phase == "Failed" || stages.b.phase == "Skipped"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,

    /// Runs the stage once for each combination of values, as experiments of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Matrix>,

    /// Runs the stage so many times; `${matrix.index}` tells the members apart, from 0. A number, or one reference to a
    /// number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::fan_out::number_or_reference")]
    pub count: Option<Value>,

    /// Runs the stage again and again, one turn after the other, until a condition holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,

    /// Runs another Pipeline of the namespace as this stage, with `params` in the place of its defaults. Its outputs are
    /// `${stages.<name>.outputs.<output>}`, and cancelling this run cancels it. Of the fields that say what to run only `params`
    /// go with it. Pipelines nest up to 8 deep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_name")]
    pub pipeline: Option<String>,

    /// Digest that the other pipeline must have, as `status.pipelineDigest` of its runs says it; the stage fails when it has
    /// changed since. Without it the pipeline runs as it is when the stage starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub pipeline_digest: Option<String>,

    /// Runs nothing: waits until somebody says yes or no. Only `name`, `after` and `when` go with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,

    /// How many members of the fan-out are there at once that have not ended; 500 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_parallel: Option<u32>,

    /// Whether the first member that fails ends all others of the fan-out. Without it they go on, and the stage has failed
    /// when all have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_fast: Option<bool>,

    /// What to run.
    #[serde(flatten)]
    pub template: ExperimentTemplate,
}

/// A loop: turns of one stage. A turn finds its number as `${repeat.index}`, from 0, and what the turn before it brought as
/// `${repeat.last.metrics.acc.last ?? 0}`, in the words of a stage. Other stages see what the last turn brought.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Repeat {
    /// CEL, asked when a turn has completed, such as `repeat.last.metrics.acc.last > 0.9`: true ends the loop. Without it
    /// there are `max` turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub until: Option<String>,

    /// Most turns. A loop whose condition does not hold after the last of them has failed.
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,
}

/// A stage that waits for an Approval. Stages after it read what was given as `${stages.<gate>.values.<name>}`, and who gave it
/// as `${stages.<gate>.approvedBy}`; when it was rejected, or nobody answered, it has failed. With `timeout` and `onTimeout:
/// Approve` it is a timer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// What is asked, for whoever answers. References are resolved when the gate opens; up to 400 bytes are shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub message: Option<String>,

    /// How long it waits once it is open; 24h by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub timeout: Option<String>,

    /// What happens when nobody has answered by then: Fail (default) or Approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnTimeout>,

    /// Values that an Approval must give, by name, and what each may be; `{}` takes anything. An Approval that does not fit
    /// does not count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub values: BTreeMap<String, ParamSchema>,
}

/// What happens when nobody has answered in time.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTimeout {
    /// The stage has failed.
    #[default]
    Fail,
    /// The run goes on.
    Approve,
}

/// An edge of the DAG without a reference.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StageDependency {
    /// Name of a stage of the same pipeline.
    #[schemars(schema_with = "schema::label_name")]
    pub stage: String,

    /// Which end is waited for; Completed by default. When the stage has come to another one, this stage is skipped. A
    /// failure that another stage waits for, and that it deals with by completing, does not fail the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
}

/// An end of a stage that another one waits for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// It ended well.
    #[default]
    Completed,
    /// It ended badly.
    Failed,
    /// It never started.
    Skipped,
    /// Any of these.
    Ended,
}

impl Until {
    /// Whether a stage in this phase has come to the end that is waited for.
    #[must_use]
    pub const fn is_met_by(self, phase: Phase) -> bool {
        match self {
            Self::Completed => matches!(phase, Phase::Completed),
            Self::Failed => matches!(phase, Phase::Failed),
            Self::Skipped => matches!(phase, Phase::Skipped),
            Self::Ended => phase.is_terminal(),
        }
    }
}

/// What a parameter may be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ParamSchema {
    /// string, number, integer, boolean, object or array.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ParamType>,
    /// The values that are allowed.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_values")]
    pub enum_: Option<Vec<Value>>,
    /// Smallest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// Largest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// Regular expression that a string must match somewhere (RE2 syntax).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub pattern: Option<String>,
    /// What it is, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

fn any_values(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "array", "maxItems": 256, "items": {"x-kubernetes-preserve-unknown-fields": true}})
}

/// A JSON type.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ParamType {
    /// Text.
    String,
    /// Any number.
    Number,
    /// A whole number.
    Integer,
    /// true or false.
    Boolean,
    /// A map.
    Object,
    /// A list.
    Array,
}

/// What happens when a stage fails.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Stages that do not depend on it finish.
    #[default]
    Continue,
    /// Everything is cancelled.
    Stop,
}

/// How long a run may take.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunTimeouts {
    /// From the start of the first stage to the end of the last one but those of `finally`, which run after a deadline too.
    /// Stages that wait, in a queue too, are ended as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub run: Option<String>,
}

/// A group of runs of one namespace of which so many run at a time. Those that wait begin by priority, then by age; a run has
/// its place from its first stage to its last, and a run within it that names the same group shares it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// Name of the group; it may read params: `deploy-${pipeline.params.region}`.
    #[schemars(length(min = 1, max = 253))]
    pub group: String,

    /// How many runs of the group run at a time; 1 by default. Where they disagree, each run goes by its own number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

/// What becomes of a run while another one of its pipeline has not ended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConcurrencyPolicy {
    /// It waits; of runs that the pipeline made for its changes only the newest does.
    #[default]
    Queue,
    /// They run side by side.
    Allow,
    /// The newer one ends the older ones, and begins when they have ended.
    Replace,
    /// It ends at once, without a stage.
    Forbid,
}

/// What starts a run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunOn {
    /// A change of what runs.
    #[default]
    Change,
    /// Only a PipelineRun made by somebody.
    Demand,
}

/// Where a Pipeline stands.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Ready (accepted, and the run for this generation exists), LastRunSucceeded, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Why it is not Ready, or how the latest run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
    /// The particulars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Revision of the latest run, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Digest of the part of the spec that the latest run was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Generation that the latest run was made for; 0 where that was before the Pipeline was restored from a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_generation: Option<i64>,
    /// Value of `spec.rerun` that the latest run was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<String>,
    /// The latest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_run: Option<RunSummary>,
}

/// The latest run in short.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// Name of the PipelineRun.
    pub name: String,
    /// Where it stands: Pending or Running is not told apart here until it ends.
    #[serde(default)]
    pub phase: Phase,
    /// Why it goes on only when somebody acts: WaitingForApproval or Suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
}
