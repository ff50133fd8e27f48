//! What differs between our kinds when acting: how the index takes a status in.

use cultivar_crds::{ExperimentStatus, PipelineRunStatus, PipelineStatus, ScheduleStatus};
use serde::Serialize;
use std::time::Duration;

use crate::observe::{Index, Key};

/// Status of a kind with a controller.
pub trait Managed: Serialize + Clone + PartialEq + Send + Sync + 'static {
    /// How long progress may wait, so that changes shortly after one another share a write.
    const SHARE_WRITES: Duration;
    /// How long even an end waits to be stored: what it lets start is asked for first, and is not slowed by the record.
    const AFTER_WHAT_FOLLOWS: Duration = Duration::ZERO;
    /// Puts what was decided into the index; urgent is what should be stored without waiting for more.
    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool);
    /// Tells the index that a status write has ended; nothing was written if it failed. True when there is more to store.
    fn end_write(index: &Index, key: &Key, written: Option<&Self>) -> bool;
}

impl Managed for ExperimentStatus {
    const SHARE_WRITES: Duration = Duration::from_secs(1);
    const AFTER_WHAT_FOLLOWS: Duration = Duration::from_millis(50);

    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool) {
        index.publish_experiment(key, uid, status, urgent);
    }
    fn end_write(index: &Index, key: &Key, written: Option<&Self>) -> bool {
        index.end_experiment_write(key, written)
    }
}

impl Managed for PipelineRunStatus {
    // Who wants every step watches the run's experiments; a run of many short stages would write for each.
    const SHARE_WRITES: Duration = Duration::from_secs(5);

    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool) {
        index.publish_run(key, uid, status, urgent);
    }
    fn end_write(index: &Index, key: &Key, written: Option<&Self>) -> bool {
        index.end_run_write(key, written)
    }
}

impl Managed for PipelineStatus {
    const SHARE_WRITES: Duration = Duration::from_secs(1);

    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool) {
        index.publish_pipeline(key, uid, status, urgent);
    }
    fn end_write(index: &Index, key: &Key, written: Option<&Self>) -> bool {
        index.end_pipeline_write(key, written)
    }
}

impl Managed for ScheduleStatus {
    const SHARE_WRITES: Duration = Duration::from_secs(1);

    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool) {
        index.publish_schedule(key, uid, status, urgent);
    }
    fn end_write(index: &Index, key: &Key, written: Option<&Self>) -> bool {
        index.end_schedule_write(key, written)
    }
}
