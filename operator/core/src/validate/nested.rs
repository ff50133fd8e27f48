//! A stage that runs another pipeline: what goes with it.

use serde_json::Value;

use super::Report;
use crate::refs::FieldPath;

/// What such a stage may have.
const FIELDS: [&str; 11] = [
    "name",
    "pipeline",
    "pipelineDigest",
    "params",
    "after",
    "when",
    "matrix",
    "count",
    "maxParallel",
    "failFast",
    "repeat",
];

/// Whether a stage runs another pipeline.
pub fn is_nested(stage: &Value) -> bool {
    stage.get("pipeline").is_some_and(|name| !name.is_null())
}

/// Refuses what the other pipeline says itself.
pub fn check(stage: &Value, at: &FieldPath, report: &mut Report) {
    if !is_nested(stage) {
        if stage.get("pipelineDigest").is_some() {
            report.fault(at.key("pipelineDigest"), "pins the pipeline that a stage runs: name it in pipeline");
        }
        return;
    }
    for (key, _) in crate::decide::object(Some(stage)) {
        if !FIELDS.contains(&key.as_str()) {
            let why =
                "the stage runs another pipeline, which says what to run: hand params to it, or leave pipeline out";
            report.fault(at.key(&key), why);
        }
    }
}
