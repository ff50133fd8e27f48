//! The run of a pipeline's revision.

use cultivar_crds::labels;
use serde_json::{Value, json};

use super::{api_version, controller_reference};
use crate::decide::{NewNested, NewRun, NewScheduled};
use crate::domain::Meta;

/// The PipelineRun that executes `pipeline`'s revision.
#[must_use]
pub fn run(pipeline: &Meta, new: &NewRun) -> Value {
    let mut manifest = json!({
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
                labels::PIPELINE_UID: pipeline.uid,
            },
        },
        "spec": {"pipeline": pipeline.name},
    });
    if new.owned {
        manifest["metadata"]["ownerReferences"] = controller_reference("Pipeline", pipeline);
    }
    if let Some(rerun) = &new.rerun {
        manifest["metadata"]["annotations"][labels::RERUN] = rerun.clone().into();
    }
    if new.refresh {
        manifest["spec"]["cache"] = "Refresh".into();
    }
    keep(&mut manifest, new.ttl.as_ref());
    manifest
}

fn keep(manifest: &mut Value, ttl: Option<&String>) {
    if let Some(ttl) = ttl {
        manifest["spec"]["ttlAfterFinished"] = ttl.clone().into();
    }
}

/// The PipelineRun that is a stage of `run`.
#[must_use]
pub fn nested(run: &Meta, new: &NewNested) -> Value {
    let mut annotations = json!({labels::NESTED_IN: new.nested_in.join("/")});
    if let Some(digest) = &new.digest {
        annotations[labels::PIPELINE_DIGEST] = digest.clone().into();
    }
    if let Some(time) = &new.scheduled_time {
        annotations[labels::SCHEDULED_TIME] = time.clone().into();
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
    if let Some(cache) = &new.cache {
        manifest["spec"]["cache"] = cache.clone();
    }
    if let Some(index) = new.member.index {
        manifest["metadata"]["labels"][labels::MEMBER] = index.to_string().into();
    }
    manifest
}

/// The PipelineRun of a time of `schedule`.
#[must_use]
pub fn scheduled(schedule: &Meta, new: &NewScheduled) -> Value {
    let mut annotations = json!({labels::SCHEDULED_TIME: new.time});
    if let Some(range) = &new.backfill {
        annotations[labels::BACKFILL] = range.clone().into();
    }
    if new.side_by_side {
        annotations[labels::CONCURRENCY] = "Allow".into();
    }
    let mut manifest = json!({
        "apiVersion": api_version(),
        "kind": "PipelineRun",
        "metadata": {
            "name": new.name,
            "namespace": schedule.namespace,
            "labels": {
                labels::MANAGED_BY: labels::MANAGER,
                labels::PIPELINE: new.pipeline.name,
                labels::SCHEDULE: schedule.name,
            },
            "annotations": annotations,
        },
        // In the spec too: there it cannot change any more.
        "spec": {"pipeline": new.pipeline.name, "params": new.params, "scheduledTime": new.time},
    });
    if new.owned {
        // A schedule that is deleted takes nothing with it.
        manifest["metadata"]["ownerReferences"] = controller_reference("Pipeline", &new.pipeline);
    }
    keep(&mut manifest, new.ttl.as_ref());
    manifest
}
