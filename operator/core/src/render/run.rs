//! The run of a pipeline's revision.

use cultivar_crds::labels;
use serde_json::{Value, json};

use super::{api_version, controller_reference};
use crate::decide::{NewNested, NewRun};
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

/// The PipelineRun that is a stage of `run`.
#[must_use]
pub fn nested(run: &Meta, new: &NewNested) -> Value {
    let mut annotations = json!({labels::NESTED_IN: new.nested_in.join("/")});
    if let Some(digest) = &new.digest {
        annotations[labels::PIPELINE_DIGEST] = digest.clone().into();
    }
    let mut manifest = json!({
        "apiVersion": api_version(),
        "kind": "PipelineRun",
        "metadata": {
            "name": new.name,
            "namespace": run.namespace,
            "labels": {
                labels::MANAGED_BY: labels::MANAGER,
                labels::PIPELINE: new.pipeline,
                labels::PIPELINE_RUN: run.name,
                labels::STAGE: new.member.stage,
            },
            "annotations": annotations,
            "ownerReferences": controller_reference("PipelineRun", run),
        },
        "spec": {"pipeline": new.pipeline, "params": new.params},
    });
    if let Some(index) = new.member.index {
        manifest["metadata"]["labels"][labels::MEMBER] = index.to_string().into();
    }
    manifest
}
