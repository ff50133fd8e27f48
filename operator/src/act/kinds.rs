//! What differs between our kinds when acting: how long a status may wait to be stored.

use cultivar_crds::{ExperimentStatus, PipelineRunStatus, PipelineStatus, ScheduleStatus};
use std::time::Duration;

use crate::observe::Stored;

/// Status of a kind with a controller.
pub trait Managed: Stored + Send + Sync + 'static {
    /// How long progress may wait, so that changes shortly after one another share a write.
    const SHARE_WRITES: Duration;
    /// How long even an end waits to be stored: what it lets start is asked for first, and is not slowed by the record.
    const AFTER_WHAT_FOLLOWS: Duration = Duration::ZERO;
}

impl Managed for ExperimentStatus {
    const SHARE_WRITES: Duration = Duration::from_secs(1);
    const AFTER_WHAT_FOLLOWS: Duration = Duration::from_millis(50);
}

impl Managed for PipelineRunStatus {
    // Who wants every step watches the run's experiments; a run of many short stages would write for each.
    const SHARE_WRITES: Duration = Duration::from_secs(5);
}

impl Managed for PipelineStatus {
    const SHARE_WRITES: Duration = Duration::from_secs(1);
}

impl Managed for ScheduleStatus {
    const SHARE_WRITES: Duration = Duration::from_secs(1);
}
