//! The run of a pipeline's revision.

use cultivar_crds::labels;
use serde_json::{Value, json};

use super::{api_version, controller_reference};
use crate::decide::NewRun;
use crate::domain::Meta;

/// The PipelineRun that executes `pipeline`'s revision.
#[must_use]
pub fn run(pipeline: &Meta, new: &NewRun) -> Value {
    json!({
        "apiVersion": api_version(),
        "kind": "PipelineRun",
        "metadata": {
            "name": new.name,
            "namespace": pipeline.namespace,
            "labels": {
                labels::MANAGED_BY: labels::MANAGER,
                labels::PIPELINE: pipeline.name,
                labels::REVISION: new.revision.to_string(),
            },
            "annotations": {
                labels::PIPELINE_DIGEST: new.digest,
                labels::PIPELINE_GENERATION: new.generation.to_string(),
            },
            "ownerReferences": controller_reference("Pipeline", pipeline),
        },
        "spec": {"pipeline": pipeline.name},
    })
}
