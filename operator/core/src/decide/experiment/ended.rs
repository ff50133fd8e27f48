//! After the end: the verdict is noted, Jobs are deleted an hour after they are recorded, the object when its time is over.
//!
//! Nothing of the record changes here: terminal phases, templates, artifacts and metrics are final.

use cultivar_crds::ExperimentStatus;
use std::time::Duration;

use super::{Snapshot, restored};
use crate::decide::{Action, Plan};
use crate::domain::{JobState, time};

/// How long a recorded Job stays, for its log.
const KEEP_JOBS: Duration = Duration::from_secs(3600);

/// Tidies up after an experiment that has ended.
pub fn tend(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    let finished =
        plan.status.times.as_ref().and_then(|times| time::read(times.finished.as_deref())).unwrap_or(snapshot.now);
    let old_jobs = time::after(finished, KEEP_JOBS);
    for job in snapshot.jobs.iter().filter(|job| !job.deleting) {
        // A program that has ended may have done so before its Job's condition says so.
        let live = job.state == JobState::Active && !snapshot.has_ended(job.attempt);
        if live {
            plan.actions.push(Action::StopAttempt { job: job.name.clone() });
        } else if snapshot.now >= old_jobs {
            plan.actions.push(Action::DeleteJob { job: job.name.clone() });
        } else {
            plan.wake(old_jobs);
        }
    }
    if let Some(over) = time::expiry(&snapshot.experiment.spec, finished) {
        if snapshot.now < over {
            plan.wake(over);
        } else if snapshot.in_use.is_none() {
            let meta = &snapshot.experiment.meta;
            return plan.actions.push(Action::DeleteExperiment { name: meta.name.clone(), uid: meta.uid.clone() });
        }
    }
    restored::note(snapshot, plan);
}
