//! What differs between our kinds when acting: how the index takes a status in.

use cultivar_crds::{ExperimentStatus, PipelineRunStatus, PipelineStatus};
use kube::api::DynamicObject;
use serde::Serialize;

use crate::observe::{Index, Key, convert};

/// Status of a kind with a controller.
pub trait Managed: Serialize + PartialEq + Send + Sync {
    /// Puts what the API server answered into the index.
    fn apply(index: &Index, object: DynamicObject);
    /// Puts what was decided into the index.
    fn publish(index: &Index, key: &Key, uid: &str, status: &Self);
}

fn readable<S>(record: Result<S, serde_json::Error>) -> Option<S> {
    record.inspect_err(|error| tracing::error!(%error, "the API server's answer cannot be read")).ok()
}

impl Managed for ExperimentStatus {
    fn apply(index: &Index, object: DynamicObject) {
        readable(convert::record(object)).into_iter().for_each(|record| index.apply_experiment(record));
    }
    fn publish(index: &Index, key: &Key, uid: &str, status: &Self) {
        index.publish_experiment(key, uid, status);
    }
}

impl Managed for PipelineRunStatus {
    fn apply(index: &Index, object: DynamicObject) {
        readable(convert::record(object)).into_iter().for_each(|record| index.apply_run(record));
    }
    fn publish(index: &Index, key: &Key, uid: &str, status: &Self) {
        index.publish_run(key, uid, status);
    }
}

impl Managed for PipelineStatus {
    fn apply(index: &Index, object: DynamicObject) {
        readable(convert::record(object)).into_iter().for_each(|record| index.apply_pipeline(record));
    }
    fn publish(index: &Index, key: &Key, uid: &str, status: &Self) {
        index.publish_pipeline(key, uid, status);
    }
}
