//! What an experiment holds: what its live Jobs and unfinished pods ask for. Nothing else is a truth about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::queue::Hold;
use crate::domain::{Holding, JobRecord, JobState, PodRecord, queue};

/// What is held, by attempt.
#[must_use]
pub fn holds(jobs: &[Arc<JobRecord>], pods: &[Arc<PodRecord>]) -> Vec<Hold> {
    let mut holds: BTreeMap<u32, Hold> = BTreeMap::new();
    let mut insert = |attempt: u32, holding: &Holding, pods: usize, leaving: bool| {
        let pods = u32::try_from(pods).unwrap_or(u32::MAX);
        let mut claim = holding.claim.clone();
        claim.amounts = queue::times(&claim.amounts, pods);
        holds.insert(attempt, Hold { claim, attempt, since: holding.since, leaving });
    };
    let live = |attempt: u32| pods.iter().filter(move |pod| pod.attempt == attempt && !pod.is_over());
    for pod in pods.iter().filter(|pod| !pod.is_over()) {
        let count = live(pod.attempt).count();
        let leaving = live(pod.attempt).all(|pod| pod.deleting);
        if let Some(holding) = &pod.holding {
            insert(pod.attempt, holding, count, leaving);
        }
    }
    for job in jobs.iter().filter(|job| job.state == JobState::Active) {
        let Some(holding) = &job.holding else { continue };
        // Its pods come and go by the Job's controller. Once all have ended it makes no more: a failed one is not replaced.
        let made = pods.iter().filter(|pod| pod.attempt == job.attempt && pod.job_uid == job.uid);
        let (made, over) = made.fold((0, 0), |(made, over), pod| (made + 1, over + u32::from(pod.is_over())));
        // One that is being deleted makes none either.
        let still = if job.deleting { made - over } else { holding.pods.saturating_sub(over) };
        if still > 0 {
            insert(job.attempt, holding, still as usize, job.deleting);
        }
    }
    holds.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Claim, PodPhase};
    use jiff::Timestamp;

    fn holding() -> Option<Arc<Holding>> {
        let amounts = [("nvidia.com/gpu".into(), 2)].into_iter().collect();
        let claim = Claim { queue: "q".into(), flavor: "".into(), amounts };
        Some(Arc::new(Holding { claim, pods: 1, since: Timestamp::UNIX_EPOCH }))
    }

    fn job(attempt: u32, state: JobState, deleting: bool) -> Arc<JobRecord> {
        let uid = format!("job-{attempt}");
        Arc::new(JobRecord { attempt, state, deleting, uid, holding: holding(), ..JobRecord::default() })
    }

    fn pod(attempt: u32, phase: PodPhase, gone: bool, deleting: bool) -> Arc<PodRecord> {
        let job_uid = format!("job-{attempt}");
        Arc::new(PodRecord { attempt, phase, gone, deleting, job_uid, holding: holding(), ..PodRecord::default() })
    }

    #[test]
    fn what_is_held_is_held_until_its_pods_have_ended() {
        let active = || vec![job(1, JobState::Active, false)];
        let none = Vec::new;
        for (name, jobs, pods, wanted) in [
            ("a Job without pods yet", active(), none(), vec![(1, 2, false)]),
            ("a pod runs", active(), vec![pod(1, PodPhase::Running, false, false)], vec![(1, 2, false)]),
            ("the pod has ended before its Job", active(), vec![pod(1, PodPhase::Succeeded, false, false)], vec![]),
            ("the pod is gone", active(), vec![pod(1, PodPhase::Running, true, false)], vec![]),
            ("a deleted Job without pods", vec![job(1, JobState::Active, true)], none(), vec![]),
            (
                "a deleted Job whose pod ends",
                vec![job(1, JobState::Active, true)],
                vec![pod(1, PodPhase::Running, false, true)],
                vec![(1, 2, true)],
            ),
            ("only the pod is left", vec![], vec![pod(1, PodPhase::Running, false, true)], vec![(1, 2, true)]),
            (
                "an attempt after the one before",
                vec![job(1, JobState::Complete, false), job(2, JobState::Active, false)],
                vec![pod(1, PodPhase::Failed, false, false)],
                vec![(2, 2, false)],
            ),
        ] {
            let found: Vec<(u32, i64, bool)> = holds(&jobs, &pods)
                .into_iter()
                .map(|hold| (hold.attempt, hold.claim.amounts["nvidia.com/gpu"], hold.leaving))
                .collect();
            assert_eq!(found, wanted, "{name}");
        }
    }

    // kueue#14609: pods that had ended were taken off what a run was counted for, and stayed off when all of them were started
    // anew: for the rest of its life it was counted for a third of what it used. Here nobody remembers what was taken off.
    #[test]
    fn workers_that_have_ended_are_taken_off_their_attempt_alone() {
        let gang = |attempt: u32, state: JobState| {
            let job = job(attempt, state, false);
            let holding = job.holding.as_deref().map(|one| Arc::new(Holding { pods: 3, ..one.clone() }));
            Arc::new(JobRecord { holding, ..(*job).clone() })
        };
        let pods = |attempt: u32, phases: [PodPhase; 3]| phases.map(|phase| pod(attempt, phase, false, false));
        let held = |jobs: &[Arc<JobRecord>], pods: &[Arc<PodRecord>]| -> Vec<(u32, i64)> {
            holds(jobs, pods).iter().map(|hold| (hold.attempt, hold.claim.amounts["nvidia.com/gpu"])).collect()
        };
        let (ended, runs) = (PodPhase::Succeeded, PodPhase::Running);
        let first = pods(1, [ended, ended, runs]);
        assert_eq!(held(&[gang(1, JobState::Active)], &first), [(1, 2)]);
        let first = pods(1, [ended, ended, PodPhase::Failed]);
        let second = pods(2, [runs, runs, runs]);
        let jobs = [gang(1, JobState::Complete), gang(2, JobState::Active)];
        assert_eq!(held(&jobs, &first), [(2, 6)]);
        assert_eq!(held(&jobs, &[first, second].concat()), [(2, 6)]);
    }
}
