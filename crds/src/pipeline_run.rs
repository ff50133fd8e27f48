//! Kind PipelineRun: one frozen execution of a Pipeline's revision.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Phase;
use crate::cache::CacheMode;
use crate::fan_out::MembersStatus;
use crate::schema::{self, cancel_is_final, object_name, stays};

/// One frozen execution of a Pipeline's revision, with its parameters. Made by the Pipeline, or by
/// hand to run it with other parameters.
#[derive(CustomResource, Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "cultivar.dev",
    version = "v1alpha1",
    kind = "PipelineRun",
    plural = "pipelineruns",
    shortname = "cvrun",
    category = "cultivar",
    namespaced,
    status = "PipelineRunStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "One frozen execution of a Pipeline's revision, with its parameters. Made by the Pipeline, or by hand to run it with other parameters.",
    printcolumn(name = "Pipeline", type_ = "string", json_path = ".spec.pipeline"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Stages", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = object_name(52),
    validation = cancel_is_final(),
    validation = Rule::new("self.spec.pipeline == oldSelf.spec.pipeline").message("a run belongs to one pipeline for good: make another PipelineRun").field_path(".spec.pipeline"),
    validation = stays("resumeOf"),
    validation = stays("only"),
    validation = stays("cache"),
    validation = stays("scheduledTime"),
    validation = Rule::new("has(self.spec.params) == has(oldSelf.spec.params) && (!has(self.spec.params) || self.spec.params == oldSelf.spec.params)").message("the parameters of a run are frozen: make another PipelineRun").field_path(".spec.params"),
)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRunSpec {
    /// Name of the Pipeline, in the same namespace.
    #[schemars(schema_with = "schema::label_name")]
    pub pipeline: String,

    /// Parameters that differ from the Pipeline's defaults; unknown names are refused.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_object")]
    pub params: Map<String, Value>,

    /// Name of an ended run of the same pipeline that this one goes on from: what completed there is taken over as it is, the
    /// rest runs again, from the pipeline as that run froze it, with the params that are given here in place of its own.
    /// Nothing of the old run is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 52))]
    pub resume_of: Option<String>,

    /// Stages to run, with all that they need; without the others, without `finally`, and without outputs that read others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 40)))]
    pub only: Vec<String>,

    /// The time that the run is for, which stages read as `pipeline.scheduledTime`: RFC 3339, or with a zone as in
    /// `2026-11-25T02:00:00+01:00[Europe/Berlin]`. When the run was made, by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 96))]
    pub scheduled_time: Option<String>,

    /// Refresh runs every stage, whatever results there are; Never also looks for none that is under way. Without it each stage
    /// says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheMode>,

    /// True starts nothing more until it is false again; what runs goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// True ends the run for good, in the way that `cancelMode` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,

    /// How `cancel` ends the run: RunFinally (default), SkipFinally or FinishRunning. It may change while the run ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_mode: Option<CancelMode>,

    /// How long the run is kept after it has ended, with its experiments, e.g. `30d`; by default as long as its Pipeline's
    /// `historyLimit` lets it. Experiments that are named in a `from` stay, and so does a run that another one resumes until
    /// that has ended. A run that is a stage of another goes with that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub ttl_after_finished: Option<String>,
}

/// How a run that is cancelled ends. Runs of pipelines within it end in the same way.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelMode {
    /// Nothing more starts; what runs goes on to its end, a loop to the end of its turn; then `finally` runs.
    FinishRunning,
    /// What runs is stopped, with the pods' grace period; then `finally` runs.
    #[default]
    RunFinally,
    /// What runs is stopped, that of `finally` too, and nothing more starts.
    SkipFinally,
}

/// Where a run stands.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRunStatus {
    /// Pending, Running, Completed, Failed or Cancelled.
    #[serde(default)]
    pub phase: Phase,
    /// Why it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
    /// The particulars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Complete, Failed, Reconciling, Stalled; ImagesPinned, where registries are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Digest of the part of the Pipeline's spec that is frozen here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_digest: Option<String>,
    /// The Pipeline's generation that is frozen here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_generation: Option<i64>,
    /// The frozen pipeline: effective parameters, and every stage with its template resolved once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub pipeline_spec: Option<Value>,
    /// Stages that have ended, of all: "3/5".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// One summary per stage, in the pipeline's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub stages: Vec<StageStatus>,
    /// The pipeline's outputs, resolved when all stages have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub outputs: Option<Value>,
    /// When the first stage could start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub started_at: Option<String>,
    /// When the last stage had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub finished_at: Option<String>,
}

/// A stage in short.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StageStatus {
    /// Name of the stage.
    pub name: String,
    /// Where it stands.
    #[serde(default)]
    pub phase: Phase,
    /// Its run, where it runs another pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Which turn of its loop it is at, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u32>,
    /// How the members of its fan-out stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<MembersStatus>,
    /// How it stands at its gate, once that is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateStatus>,
    /// Its Experiment, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// The Experiment whose result it has taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_from: Option<String>,
    /// Why it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
    /// The particulars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A gate that has opened.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// When it opened; its timeout counts from here.
    #[schemars(schema_with = "schema::moment")]
    pub opened_at: String,
    /// What is asked, with its references resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When somebody answered, or the time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub ended_at: Option<String>,
    /// Name of the Approval that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The comment of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The values that were given.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_object")]
    pub values: Map<String, Value>,
}
