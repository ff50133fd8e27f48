//! The complete record of an attempt, which outlives the object in the cluster.

use crate::result::RunResult;
use crate::spec::{Checkpoint, ExperimentRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One JSON document beside the artifacts: what ran, on what, and what came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Whose run this was.
    pub experiment: ExperimentRef,
    /// From 1 on.
    pub attempt: u32,
    /// The pipeline, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The pipeline's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_run: Option<String>,
    /// The stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The frozen template.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub template: Value,
    /// The parameters that it was given.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// The program and its arguments, as started.
    pub command: Vec<String>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: String,
    /// As the container ended.
    pub exit_code: i32,
    /// What was kept between attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// What came out; its own `record` is absent, for a document cannot name its digest.
    pub result: RunResult,
}
