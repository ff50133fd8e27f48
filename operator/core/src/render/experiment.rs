//! The Experiment of a stage.

use cultivar_crds::labels;
use serde_json::{Value, json};

use super::{api_version, controller_reference};
use crate::decide::NewStage;
use crate::decide::experiment::leftovers::are_deleted;
use crate::domain::Meta;

/// The Experiment of a stage of `run`: its spec is the whole effective template, so that it needs
/// nothing else from now on.
#[must_use]
pub fn stage(run: &Meta, new: &NewStage) -> Value {
    let mut annotations = json!({"kustomize.toolkit.fluxcd.io/substitute": "disabled"});
    if let Some(cloned_from) = &new.cloned_from {
        annotations[labels::CLONED_FROM] = serde_json::to_string(cloned_from).unwrap_or_default().into();
    }
    let mut experiment = json!({
        "apiVersion": api_version(),
        "kind": "Experiment",
        "metadata": {
            "name": new.name,
            "namespace": run.namespace,
            "labels": {
                labels::MANAGED_BY: labels::MANAGER,
                labels::EXPERIMENT: new.name,
                labels::PIPELINE: new.pipeline,
                labels::PIPELINE_RUN: run.name,
                labels::STAGE: new.stage,
            },
            "annotations": annotations,
            "ownerReferences": controller_reference("PipelineRun", run),
        },
        "spec": new.spec,
    });
    if are_deleted(&new.spec) {
        // Now, so that it needs no write of its own later.
        experiment["metadata"]["finalizers"] = json!([labels::ARTIFACTS_FINALIZER]);
    }
    experiment
}
