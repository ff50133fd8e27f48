//! Judging an attempt of several workers: worker 0 reports, and the bad end of any ends the attempt.

use super::judge::{End, Standing, judge as judge_one};
use crate::domain::{JobRecord, PodRecord};
use cultivar_crds::Reason;

/// Judges an attempt that `workers` pods play together.
#[must_use]
pub fn judge(job: Option<&JobRecord>, pods: &[&PodRecord], workers: u32) -> Standing {
    let of = |worker: u32| -> Vec<&PodRecord> { pods.iter().filter(|pod| pod.worker == worker).copied().collect() };
    // Without any pod the Job says how it stands, as with one worker.
    if pods.is_empty() {
        return judge_one(job, pods);
    }
    let first = judge_one(job, &of(0));
    // When it has ended well the others are told to end, and how they do says nothing.
    if matches!(&first, Standing::Ended(end) if end.reason.is_none()) {
        return first;
    }
    let mut standings: Vec<(u32, Standing)> = vec![(0, first)];
    for worker in 1..workers {
        let pods = of(worker);
        // Its pod may be on the way; without its Job it is not.
        let standing = if pods.is_empty() && job.is_some() { waiting() } else { judge_one(job, &pods) };
        standings.push((worker, standing));
    }
    if let Some(end) = first_failure(&standings) {
        return Standing::Ended(end);
    }
    combined(standings)
}

fn waiting() -> Standing {
    Standing::Starting {
        timeout: Reason::StartTimeout,
        waits: Reason::WaitingForContainer,
        message: "its pod is not there yet".to_owned(),
    }
}

// The one that ended first: the others end because it did.
fn first_failure(standings: &[(u32, Standing)]) -> Option<End> {
    let failures = standings.iter().filter_map(|(worker, standing)| match standing {
        Standing::Ended(end) if end.reason.is_some() => Some((*worker, end)),
        _ => None,
    });
    let (worker, end) = failures.min_by_key(|(worker, end)| (end.finished.is_none(), end.finished, *worker))?;
    // What another one wrote is no result.
    let output = if worker == 0 { end.output.clone() } else { String::new() };
    Some(End { message: format!("worker {worker}: {}", end.message), output, ..end.clone() })
}

// Nobody has failed, and worker 0 has not ended: what is furthest behind says how all stand.
fn combined(standings: Vec<(u32, Standing)>) -> Standing {
    let mut since = None;
    for (worker, standing) in standings {
        match standing {
            Standing::Running { since: started } => since = since.max(started),
            // It has done its part before the first one has.
            Standing::Ended(end) => since = since.max(end.started),
            Standing::Starting { timeout, waits, message } => {
                return Standing::Starting { timeout, waits, message: format!("worker {worker}: {message}") };
            }
            Standing::Vanished(end) => {
                return Standing::Vanished(End { message: format!("worker {worker}: {}", end.message), ..end });
            }
            Standing::Absent => return Standing::Absent,
        }
    }
    Standing::Running { since }
}
