//! Kueue's side of an experiment: its Job is made suspended, and runs while Kueue lets it.
//!
//! Kueue admits a Job by ending its suspension, and stops it by suspending it again. The Job lives on, and the attempt with
//! it: what its pods came to while it was being suspended is no end. The queues of this operator have no say.

use cultivar_crds::{Attempt, ExperimentStatus, Phase, Reason};
use serde_json::Value;
use std::time::Duration;

use super::attempts::give_up;
use super::judge::End;
use super::pursue::{Progress, pursue};
use super::{Snapshot, fail, times, wait};
use crate::decide::{Event, Plan};
use crate::domain::errand::Patience;
use crate::domain::{ContainerState, Errand, JobRecord, JobState, PodRecord, settings, text, time};

/// A LocalQueue that is not there is looked for until timeouts.queue, or without end.
const PATIENCE: Patience = Patience { pause: Duration::from_secs(30), limit: Duration::from_secs(1 << 33) };

/// The LocalQueue of a template, where Kueue admits its runs.
#[must_use]
pub fn local_queue(template: &Value) -> Option<&str> {
    template.get("admission")?.get("kueue")?.get("localQueue")?.as_str()
}

/// Whether the Job may be offered to Kueue; else the plan says for what it waits.
pub fn may_offer(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, queue: &str) -> bool {
    let message = match pursue(snapshot, plan, PATIENCE, Errand::FindLocalQueue(queue.to_owned())) {
        Progress::Done(_) => return true,
        Progress::Pending(None) => "its LocalQueue is being looked for".to_owned(),
        Progress::Pending(Some(why)) | Progress::GivenUp(why) => format!("LocalQueue {queue}: {why}"),
    };
    let reason = Reason::LocalQueueNotFound;
    if let Some(message) = stand(snapshot, plan, reason, message) {
        fail(snapshot, plan, Reason::QueueTimeout, message);
    }
    false
}

/// Its Job was offered.
pub fn offered(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, queue: &str) {
    let words = format!("LocalQueue {queue} has not admitted its Job yet");
    // Its time in the queue, if there is a limit, ends with the next pass at the earliest.
    let _ = stand(snapshot, plan, Reason::WaitingForKueue, words);
}

/// Whether a Job waits for Kueue.
#[must_use]
pub fn is_suspended(job: Option<&JobRecord>) -> bool {
    job.is_some_and(|job| job.suspended && !job.deleting && job.state == JobState::Active)
}

/// The pods that tell how the attempt stands; none that Kueue stopped. Nothing: that shows only once the Job has followed.
#[must_use]
pub fn pods_that_count<'a>(job: Option<&JobRecord>, pods: Vec<&'a PodRecord>) -> Option<Vec<&'a PodRecord>> {
    let Some(job) = job else { return Some(pods) };
    let is_done = |pod: &PodRecord| matches!(&pod.main, ContainerState::Terminated(end) if end.exit_code == 0);
    let newest = |pod: &&PodRecord| job.started.is_none_or(|started| pod.created.is_none_or(|made| made >= started));
    if is_suspended(Some(job)) {
        return Some(pods.into_iter().filter(|pod| is_done(pod)).collect());
    }
    let pods: Vec<&PodRecord> = pods.into_iter().filter(newest).collect();
    // Somebody deletes its pods: Kueue, and then the Job is suspended in a moment, or else it fails.
    let stopped = |pod: &PodRecord| (pod.deleting || pod.gone) && pod.disruption.is_none() && !is_done(pod);
    let undecided = job.state == JobState::Active && !job.deleting && pods.iter().any(|pod| stopped(pod));
    (!undecided).then_some(pods)
}

/// The Job waits for Kueue: for the first time, or again.
pub fn suspended(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, queue: &str) {
    let began = |attempt: &Attempt| attempt.node.is_some() || attempt.started_at.is_some();
    let ran = plan.status.phase == Phase::Running
        || plan.status.reason == Some(Reason::EvictedByKueue)
        || plan.status.attempts.last().is_some_and(began);
    if ran && plan.status.phase != Phase::Queued {
        let standing = plan.status.queue.get_or_insert_default();
        standing.preempted = Some(standing.preempted.unwrap_or(0) + 1);
        let message = text::message(format!("Kueue has stopped the Job (LocalQueue {queue})"));
        plan.events.push(Event { warning: true, reason: Reason::EvictedByKueue, message });
    }
    let (reason, words) = match ran {
        true => (Reason::EvictedByKueue, "has stopped its Job, which starts again when it is admitted again"),
        false => (Reason::WaitingForKueue, "has not admitted its Job yet"),
    };
    let mut message = format!("LocalQueue {queue} {words}");
    // Its words change all the time: the first ones are kept for as long as the reason is the same.
    let known = plan.status.message.clone().filter(|known| {
        let more = known.strip_prefix(message.as_str()).is_some_and(|more| more.starts_with(": "));
        more && plan.status.phase == Phase::Queued && plan.status.reason == Some(reason)
    });
    match (known, &snapshot.queueing.kueue) {
        (Some(known), _) => message = known,
        (None, Some(said)) => message = text::message(format!("{message}: {said}")),
        (None, None) => {}
    }
    if let Some(message) = stand(snapshot, plan, reason, message) {
        give_up(snapshot, plan, End { reason: Some(Reason::QueueTimeout), message, ..End::default() });
    }
}

/// Kueue lets it run: it waits no more.
pub fn admitted(plan: &mut Plan<ExperimentStatus>) {
    let Some(standing) = &mut plan.status.queue else { return };
    standing.since = None;
    if *standing == Default::default() {
        plan.status.queue = None;
    }
}

// Says for what it waits; what to say once it has waited for too long.
fn stand(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, reason: Reason, message: String) -> Option<String> {
    let now = time::stamp(snapshot.now);
    times(plan).queued.get_or_insert_with(|| now.clone());
    plan.status.phase = Phase::Queued;
    let since = plan.status.queue.get_or_insert_default().since.get_or_insert(now).clone();
    wait(plan, reason, message.clone());
    let limit = settings::timeouts(plan.status.template.as_deref().unwrap_or(&Value::Null)).queue?;
    let deadline = time::after(time::read(Some(&since))?, limit);
    if snapshot.now >= deadline {
        return Some(format!("waited for timeouts.queue: {message}"));
    }
    plan.wake(deadline);
    None
}
