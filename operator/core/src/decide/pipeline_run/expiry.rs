//! The end of a run that has ended: when its time is over it goes, with the experiments that it owns.

use cultivar_crds::PipelineRunStatus;
use serde_json::Value;
use std::time::Duration;

use super::Snapshot;
use crate::decide::{Action, Plan};
use crate::domain::time;

/// How soon a run is looked at again that could not go yet: what holds it tells only its own runs of its end.
const AGAIN: Duration = Duration::from_secs(30);

/// How soon it is looked at again where that takes a moment.
const SOON: Duration = Duration::from_secs(1);

/// Deletes the run when `ttlAfterFinished` is over. What something names in `from` leaves its ownership first.
pub fn tend(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) {
    let run = &snapshot.run;
    if run.meta.is_nested() {
        return;
    }
    let Some(finished) = time::read(plan.status.finished_at.as_deref()) else { return };
    let Some(over) = time::expiry(&run.spec, finished) else { return };
    if snapshot.now < over {
        return plan.wake(over);
    }
    let name = &run.meta.name;
    if !snapshot.remembered {
        return plan.wake(time::after(snapshot.now, SOON));
    }
    let mut unfinished = snapshot.siblings.iter().filter(|other| !other.status.phase.is_terminal());
    if unfinished.any(|other| other.spec.get("resumeOf").and_then(Value::as_str) == Some(name)) {
        return plan.wake(time::after(snapshot.now, AGAIN));
    }
    if snapshot.in_use.is_empty() {
        return plan.actions.push(Action::DeleteRun { name: name.clone(), uid: run.meta.uid.clone() });
    }
    let release = |name: &String| Action::ReleaseExperiment { name: name.clone() };
    plan.actions.extend(snapshot.in_use.iter().map(release));
    plan.wake(time::after(snapshot.now, SOON));
}
