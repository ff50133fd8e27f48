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
                labels::STAGE: new.member.stage,
            },
            "annotations": annotations,
            "ownerReferences": controller_reference("PipelineRun", run),
        },
        "spec": new.spec,
    });
    let metadata = &mut experiment["metadata"];
    if let Some(index) = new.member.index {
        metadata["labels"][labels::MEMBER] = index.to_string().into();
    }
    if let Some(coordinates) = &new.coordinates {
        metadata["annotations"][labels::COORDINATES] = serde_json::to_string(coordinates).unwrap_or_default().into();
        for (axis, value) in coordinates {
            if let Some(value) = as_label(value).filter(|_| is_label_value(axis)) {
                metadata["labels"][format!("{}{axis}", labels::COORDINATE_PREFIX)] = value.into();
            }
        }
    }
    if are_deleted(&new.spec) {
        // Now, so that it needs no write of its own later.
        experiment["metadata"]["finalizers"] = json!([labels::ARTIFACTS_FINALIZER]);
    }
    experiment
}

// Text, numbers and booleans that a label can hold; the rest stands in the annotation.
fn as_label(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    is_label_value(&text).then_some(text)
}

// A label's value, and the name in its key, without the empty one.
fn is_label_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    text.len() <= 63 && inner && ends(text.chars().next()) && ends(text.chars().last())
}
