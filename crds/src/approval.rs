//! Kind Approval: somebody's word on a gate of a run.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema::{self, object_name};

/// Most bytes of an Approval's values as JSON: the run's status keeps them.
pub const MAX_VALUES: usize = 4096;

/// Somebody's word on a gate of a run. The first one that fits counts, by the time of its creation and then by name; what
/// the run has recorded stays when it is deleted.
#[derive(CustomResource, Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "cultivar.dev",
    version = "v1alpha1",
    kind = "Approval",
    plural = "approvals",
    shortname = "cvappr",
    category = "cultivar",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "Somebody's word on a gate of a run: it goes on, or it does not. The first one that fits counts.",
    printcolumn(name = "Run", type_ = "string", json_path = ".spec.run"),
    printcolumn(name = "Stage", type_ = "string", json_path = ".spec.stage"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".spec.verdict"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "Comment", type_ = "string", json_path = ".spec.comment", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = object_name(63),
    validation = Rule::new("self.spec == oldSelf.spec").message("an Approval stays as it was made: make another one").field_path(".spec"),
)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalSpec {
    /// Name of the PipelineRun, which exists already: an Approval that is older than its run does not count.
    #[schemars(length(min = 1, max = 63))]
    pub run: String,

    /// Name of the stage that is the gate.
    #[schemars(schema_with = "schema::label_name")]
    pub stage: String,

    /// Approve or Reject.
    pub verdict: Answer,

    /// Who says so: the user as the API server knows it (`kubectl auth whoami`). The chart's policy refuses another name than
    /// one's own.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,

    /// Why, for whoever reads the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub comment: Option<String>,

    /// What the gate asks for in its `values`; up to 4 KiB as JSON.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_object")]
    pub values: Map<String, Value>,
}

/// What an Approval says.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// The run goes on.
    Approve,
    /// The stage has failed.
    #[default]
    Reject,
}
