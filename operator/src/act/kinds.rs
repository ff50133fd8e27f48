//! What differs between our kinds when acting: how the index takes a status in.

use cultivar_crds::{ExperimentStatus, PipelineRunStatus, PipelineStatus, ScheduleStatus};
use std::time::Duration;

use crate::observe::{Index, Key, Stored};

/// Status of a kind with a controller.
pub trait Managed: Stored + Send + Sync + 'static {
    /// How long progress may wait, so that changes shortly after one another share a write.
    const SHARE_WRITES: Duration;
    /// How long even an end waits to be stored: what it lets start is asked for first, and is not slowed by the record.
    const AFTER_WHAT_FOLLOWS: Duration = Duration::ZERO;
    /// Puts what was decided into the index; urgent is what should be stored without waiting for more.
    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool);
}

impl Managed for ExperimentStatus {
    const SHARE_WRITES: Duration = Duration::from_secs(1);
    const AFTER_WHAT_FOLLOWS: Duration = Duration::from_millis(50);

    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool) {
        index.publish_experiment(key, uid, status, urgent);
    }
}

impl Managed for PipelineRunStatus {
    // Who wants every step watches the run's experiments; a run of many short stages would write for each.
    const SHARE_WRITES: Duration = Duration::from_secs(5);

    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool) {
        index.publish_run(key, uid, status, urgent);
    }
}

impl Managed for PipelineStatus {
    const SHARE_WRITES: Duration = Duration::from_secs(1);

    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool) {
        index.publish_pipeline(key, uid, status, urgent);
    }
}

impl Managed for ScheduleStatus {
    const SHARE_WRITES: Duration = Duration::from_secs(1);

    fn publish(index: &Index, key: &Key, uid: &str, status: &Self, urgent: bool) {
        index.publish_schedule(key, uid, status, urgent);
    }
}
