//! The experiment's side of its queue: asking for leave to start, waiting with a reason, being stopped for others.

use cultivar_crds::experiment::QueueStanding;
use cultivar_crds::{ExperimentStatus, Phase, Reason};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

use super::{Snapshot, fail, times, wait};
use crate::decide::queue::{Ask, Bearer, Class, Eviction, Wait};
use crate::decide::{Action, Plan, Urgency};
use crate::domain::queue::PodDefaults;
use crate::domain::{Equipment, ExperimentRecord, Placement, settings, time};
use crate::render;

/// How the queues stand to an experiment.
#[derive(Clone, Debug, Default)]
pub struct Queueing {
    /// Whether this operator knows no queues at all: then everything just runs.
    pub off: bool,
    /// Whether the cluster has any Queue: where there is none, what names none just runs.
    pub queues: bool,
    /// The leave to start that it has: number of the attempt, and where.
    pub admission: Option<(u32, Placement)>,
    /// Why it waits.
    pub wait: Option<Wait>,
    /// The attempt that must end.
    pub eviction: Option<Eviction>,
    /// Whether its queue takes only so many that wait.
    pub bounded: bool,
    /// What its queue adds to its pods.
    pub pod: Option<Arc<PodDefaults>>,
    /// What Kueue says of its Job, where Kueue admits it.
    pub kueue: Option<String>,
    /// Longest that its queue lets a program run.
    pub max_runtime: Option<Duration>,
}

/// Whether an attempt may start.
pub enum Leave {
    /// It may, here.
    Start(Option<Placement>),
    /// It may not yet, or never: the plan says why.
    Wait,
}

/// Asks for leave to start attempt `number`, unless no queue has a say in it.
pub fn leave(
    snapshot: &Snapshot,
    plan: &mut Plan<ExperimentStatus>,
    number: u32,
    template: &Value,
    equipment: Option<&Equipment>,
) -> Leave {
    let named = template.get("queue").and_then(Value::as_str);
    if snapshot.queueing.off || !snapshot.queueing.queues && named.is_none() {
        return Leave::Start(None);
    }
    let admission = snapshot.queueing.admission.as_ref().filter(|(attempt, _)| *attempt == number);
    let was_outside = is_outside(&plan.status);
    if let Some((_, placement)) = admission.filter(|_| !was_outside) {
        let standing = plan.status.queue.get_or_insert_default();
        standing.name = Some(placement.queue.to_string());
        standing.flavor = (!placement.flavor.is_empty()).then(|| placement.flavor.to_string());
        (standing.since, standing.position) = (None, None);
        return Leave::Start(Some(placement.clone()));
    }
    let of_queue = snapshot.queueing.pod.as_deref();
    match render::amounts(&snapshot.experiment.meta, number, template, equipment, of_queue) {
        Err(error) => fail(snapshot, plan, error.reason, error.message),
        Ok((amounts, pod)) => {
            let now = time::stamp(snapshot.now);
            let first = times(plan).queued.get_or_insert_with(|| now.clone()).clone();
            let told = snapshot.queueing.wait.as_ref();
            // Who was there before keeps its place, and so does who ran and asks again.
            let placed = number > 1 || plan.status.phase == Phase::Queued;
            let phase = match told {
                Some(told) if told.reason == Reason::QueueFull && !placed => Phase::Pending,
                // Not known yet: it is what it was.
                None if snapshot.queueing.bounded && admission.is_none() && !placed => plan.status.phase,
                _ => Phase::Queued,
            };
            let since = stand(plan, phase, named, told, now);
            if was_outside && phase == Phase::Queued {
                // Until this is stored its spec may change, and what is frozen would not be what it says.
                plan.urge(Urgency::First);
                plan.wake(snapshot.now);
            }
            let limit = settings::timeouts(template).queue;
            let deadline = limit.and_then(|limit| Some(time::after(time::read(Some(&since))?, limit)));
            if let Some(deadline) = deadline {
                if snapshot.now >= deadline {
                    let waits = plan.status.message.clone().unwrap_or_default();
                    fail(snapshot, plan, Reason::QueueTimeout, format!("waited for timeouts.queue: {waits}"));
                    return Leave::Wait;
                }
                plan.wake(deadline);
            }
            let limit = shorter(settings::timeouts(template).run, snapshot.queueing.max_runtime);
            plan.actions.push(Action::Ask(Ask {
                attempt: number,
                queue: named.map(Into::into),
                priority: priority(&snapshot.experiment.spec),
                since: time::read(Some(&first)).unwrap_or(snapshot.now),
                asked: time::read(Some(&since)).unwrap_or(snapshot.now),
                placed,
                class: Arc::new(Class { amounts, pod, limit }),
            }));
        }
    }
    Leave::Wait
}

/// Whether it waits for a place in a full queue: nothing of it has started, so what its spec says still counts.
#[must_use]
pub fn is_outside(status: &ExperimentStatus) -> bool {
    status.phase == Phase::Pending && status.template.is_some()
}

/// Whether nothing has become of it: it waits in its queue, and at most what it is told of that has changed.
#[must_use]
pub fn only_waits(before: &ExperimentStatus, now: &ExperimentStatus) -> bool {
    let waits = before.phase == Phase::Queued && now.phase == Phase::Queued;
    let same_spec = before.observed_generation == now.observed_generation && before.template == now.template;
    waits && same_spec && before.times == now.times && before.attempts == now.attempts
}

// Says where it stands, and returns since when it waits.
fn stand(
    plan: &mut Plan<ExperimentStatus>,
    phase: Phase,
    named: Option<&str>,
    told: Option<&Wait>,
    now: String,
) -> String {
    let waited = plan.status.phase == phase;
    plan.status.phase = phase;
    let queue = told.and_then(|told| told.queue.as_deref()).or(named).map(str::to_owned);
    let known = plan.status.queue.as_ref().and_then(|standing| standing.position);
    let position = told.and_then(|told| told.position).or(known.filter(|_| waited));
    match told {
        // The particulars change all the time; they are said with the reason and with the place. So a new operator,
        // which finds everybody where they were, writes nothing.
        Some(told) if waited && plan.status.reason == Some(told.reason) && position == known => {}
        Some(told) => wait(plan, told.reason, told.message.to_string()),
        None if waited => {}
        None => wait(plan, Reason::WaitingForTurn, "its queue has not been asked yet"),
    }
    let standing: &mut QueueStanding = plan.status.queue.get_or_insert_default();
    standing.name = queue;
    standing.flavor = None;
    standing.position = position;
    standing.since.get_or_insert(now).clone()
}

/// The priority that a stored spec asks for.
#[must_use]
pub fn priority(spec: &Value) -> i32 {
    let priority = spec.get("priority").and_then(Value::as_i64).unwrap_or(0);
    i32::try_from(priority).unwrap_or(if priority < 0 { i32::MIN } else { i32::MAX })
}

/// The shorter of two limits, where there are any.
#[must_use]
pub fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    [one, other].into_iter().flatten().min()
}

/// Who an experiment is to preemption.
#[must_use]
pub fn bearer(experiment: &ExperimentRecord) -> Bearer {
    let status = &experiment.status;
    let queued = status.times.as_ref().and_then(|times| time::read(times.queued.as_deref()));
    Bearer {
        since: queued.or(experiment.meta.created).unwrap_or_default(),
        priority: priority(&experiment.spec),
        preempted: status.queue.as_ref().and_then(|standing| standing.preempted).unwrap_or(0),
        limit: status.template.as_ref().and_then(|template| settings::timeouts(template).run),
    }
}
