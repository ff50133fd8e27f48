//! Attempts: one Job each, started, judged, timed out, retried within two budgets.

use cultivar_crds::reason::Budget;
use cultivar_crds::schema::MAX_ATTEMPTS;
use cultivar_crds::{Attempt, ExperimentStatus, Output, Phase, Reason};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

use super::equipment::{Unequipped, equipment};
use super::judge::{End, Standing, judge, vanished};
use super::queueing::{self, Leave};
use super::{Snapshot, end, fail, gang, kueue, leftovers, report, result, reuse, times, wait};
use crate::decide::queue::Eviction;
use crate::decide::{Action, Event, Plan, Urgency};
use crate::domain::{Image, JobState, names, settings, source, text, time};

/// How long to wait before a Job is offered again that the API server refused for a quota.
const QUOTA_RETRY: Duration = Duration::from_secs(30);

/// Takes the newest attempt one step further, or starts the next one.
pub fn advance(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    match plan.status.attempts.last() {
        Some(attempt) if attempt.finished_at.is_none() => {
            let number = attempt.number;
            follow(snapshot, plan, number);
        }
        _ => {
            let number = next(plan);
            if let Some(job) = snapshot.job(number) {
                // Created before a crash, and not recorded yet.
                if workers(plan) > 1 {
                    plan.actions.push(Action::OfferService { number, job_uid: job.uid.clone() });
                }
                record(snapshot, plan, number);
                follow(snapshot, plan, number);
            } else {
                begin(snapshot, plan, number);
            }
        }
    }
}

fn next(plan: &Plan<ExperimentStatus>) -> u32 {
    plan.status.attempts.last().map_or(1, |attempt| attempt.number + 1)
}

/// Whether the next attempt has a Job already, and is not recorded yet.
pub fn is_unrecorded(snapshot: &Snapshot, plan: &Plan<ExperimentStatus>) -> bool {
    snapshot.job(next(plan)).is_some()
}

/// Records the attempt of such a Job.
pub fn adopt(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    record(snapshot, plan, next(plan));
}

fn begin(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, number: u32) {
    let backing_off = retry_at(snapshot, plan).filter(|moment| snapshot.now < *moment);
    let mut earlier_live = snapshot.pods.iter().any(|pod| !pod.is_over());
    for job in snapshot.jobs.iter().filter(|job| job.state == JobState::Active) {
        earlier_live = true;
        // A program ends before its Job's condition says so, and the Job keeps its log: it is left
        // alone as long as nothing waits for it.
        let has_ended = backing_off.is_some() && snapshot.has_ended(job.attempt);
        if !job.deleting && !has_ended {
            plan.actions.push(Action::StopAttempt { job: job.name.clone() });
        }
    }
    if let Some(moment) = backing_off {
        return plan.wake(moment);
    }
    if earlier_live {
        wait(plan, Reason::Stopping, format!("attempt {number} waits until the pods of the one before have ended"));
        return;
    }
    if let Some(refusal) = &snapshot.refusal {
        if !matches!(refusal.reason, Reason::WaitingForQuota | Reason::JobRefused) {
            return fail(snapshot, plan, refusal.reason, refusal.message.clone());
        }
        let again = time::after(refusal.at, QUOTA_RETRY);
        if snapshot.now < again {
            wait(plan, refusal.reason, format!("the API server refuses the Job for now: {}", refusal.message));
            return plan.wake(again);
        }
    }
    let Some(template) = plan.status.template.clone() else { return };
    if number == 1 && reuse::takes_over(snapshot, plan, &template) {
        return;
    }
    let equipment = match equipment(snapshot, &template) {
        Ok(equipment) => equipment,
        Err(Unequipped::Never(reason, message)) => return fail(snapshot, plan, reason, message),
        Err(Unequipped::Waits(message)) => return wait_for_store(snapshot, plan, message),
    };
    let of_kueue = kueue::local_queue(&template).map(str::to_owned);
    let placement = match &of_kueue {
        Some(queue) if !kueue::may_offer(snapshot, plan, queue) => return,
        Some(_) => None,
        None => match queueing::leave(snapshot, plan, number, &template, equipment.as_ref()) {
            Leave::Start(placement) => placement,
            Leave::Wait => return,
        },
    };
    if leftovers::are_deleted(&template) && !leftovers::is_held(&snapshot.experiment.meta) {
        plan.actions.push(Action::HoldForArtifacts);
    }
    plan.actions.push(Action::StartAttempt { number, template, equipment, placement });
    record(snapshot, plan, number);
    if let Some(queue) = of_kueue {
        return kueue::offered(snapshot, plan, &queue);
    }
    plan.status.phase = Phase::Starting;
    plan.status.reason = None;
    plan.status.message = None;
    let deadline = time::after(snapshot.now, timeouts(plan).start);
    plan.wake(deadline);
}

fn wait_for_store(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, message: String) {
    let frozen = plan.status.times.as_ref().and_then(|times| time::read(times.starting.as_deref()));
    let ended = plan.status.attempts.last().and_then(|attempt| time::read(attempt.finished_at.as_deref()));
    let deadline = time::after(ended.max(frozen).unwrap_or(snapshot.now), timeouts(plan).start);
    if snapshot.now >= deadline {
        return fail(snapshot, plan, Reason::StoreNotFound, format!("{message}; gave up after timeouts.start"));
    }
    wait(plan, Reason::StoreNotFound, message);
    plan.wake(deadline);
}

fn workers(plan: &Plan<ExperimentStatus>) -> u32 {
    settings::workers(plan.status.template.as_deref().unwrap_or(&Value::Null))
}

fn timeouts(plan: &Plan<ExperimentStatus>) -> settings::EffectiveTimeouts {
    settings::timeouts(plan.status.template.as_deref().unwrap_or(&Value::Null))
}

fn record(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, number: u32) {
    let meta = &snapshot.experiment.meta;
    let created = snapshot.job(number).and_then(|job| job.created).unwrap_or(snapshot.now);
    let admitted = match (snapshot.job(number).and_then(|job| job.holding.as_ref()), &snapshot.queueing.admission) {
        (Some(holding), _) => Some((&holding.claim.queue, &holding.claim.flavor)),
        (None, Some((attempt, placement))) if *attempt == number => Some((&placement.queue, &placement.flavor)),
        _ => None,
    };
    let status = &mut plan.status;
    status.attempt = Some(number);
    status.attempts.push(Attempt {
        number,
        job: names::job(&meta.name, &meta.uid, number),
        created_at: Some(time::stamp(created)),
        queue: admitted.map(|(queue, _)| queue.to_string()),
        flavor: admitted.map(|(_, flavor)| flavor.to_string()).filter(|flavor| !flavor.is_empty()),
        ..Attempt::default()
    });
    let excess = status.attempts.len().saturating_sub(MAX_ATTEMPTS);
    status.attempts.drain(..excess);
}

fn follow(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, number: u32) {
    let mut pods = snapshot.pods_of(number);
    let template = plan.status.template.as_ref();
    let of_kueue = template.and_then(|template| kueue::local_queue(template)).map(str::to_owned);
    if let Some(queue) = of_kueue {
        let job = snapshot.job(number);
        let Some(counted) = kueue::pods_that_count(job, pods) else { return };
        if kueue::is_suspended(job) && counted.is_empty() {
            return kueue::suspended(snapshot, plan, &queue);
        }
        kueue::admitted(plan);
        pods = counted;
    }
    let first = pods.iter().find(|pod| pod.worker == 0);
    if let (Some(pod), Some(attempt)) = (first, plan.status.attempts.last_mut()) {
        attempt.node = pod.node.clone().or(attempt.node.take());
    }
    if let Some(image_id) = pods.iter().find_map(|pod| pod.image_id.clone()) {
        plan.status.image_id = Some(image_id);
    }
    let confirmed = snapshot.confirmed == Some(number);
    let standing = match workers(plan) {
        1 => judge(snapshot.job(number), &pods),
        workers => gang::judge(snapshot.job(number), &pods, workers),
    };
    let eviction = snapshot.queueing.eviction.as_ref().filter(|eviction| eviction.attempt == number);
    match (&standing, eviction) {
        (Standing::Starting { .. }, Some(eviction)) => return evict(snapshot, plan, eviction, None),
        (Standing::Running { since }, Some(eviction)) => return evict(snapshot, plan, eviction, *since),
        _ => {}
    }
    match standing {
        Standing::Starting { timeout, waits, message } => starting(snapshot, plan, timeout, waits, &message),
        Standing::Running { since } => running(snapshot, plan, since.unwrap_or(snapshot.now)),
        Standing::Ended(end) => finish(snapshot, plan, end),
        Standing::Vanished(end) if confirmed => finish(snapshot, plan, end),
        Standing::Absent if confirmed => {
            let job = plan.status.attempts.last().map(|attempt| attempt.job.clone()).unwrap_or_default();
            finish(snapshot, plan, vanished(&job));
        }
        Standing::Vanished(_) | Standing::Absent => plan.actions.push(Action::Confirm { number }),
    }
}

fn starting(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, timeout: Reason, waits: Reason, message: &str) {
    let attempt = plan.status.attempts.last();
    let created = attempt.and_then(|attempt| time::read(attempt.created_at.as_deref())).unwrap_or(snapshot.now);
    // A Job that was suspended starts when that ends.
    let started = attempt.and_then(|attempt| snapshot.job(attempt.number)?.started);
    let created = started.map_or(created, |started| started.max(created));
    let deadline = time::after(created, timeouts(plan).start);
    if snapshot.now < deadline {
        plan.status.phase = Phase::Starting;
        wait(plan, waits, message);
        return plan.wake(deadline);
    }
    let end =
        End { reason: Some(timeout), message: format!("{message}; gave up after timeouts.start"), ..End::default() };
    give_up(snapshot, plan, end);
}

fn running(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, since: jiff::Timestamp) {
    if let Some(attempt) = plan.status.attempts.last_mut() {
        attempt.started_at.get_or_insert_with(|| time::stamp(since));
    }
    times(plan).running.get_or_insert_with(|| time::stamp(since));
    plan.status.phase = Phase::Running;
    plan.status.reason = None;
    plan.status.message = None;
    let of_queue = snapshot.queueing.max_runtime;
    let own = timeouts(plan).run;
    let Some(limit) = queueing::shorter(own, of_queue) else { return };
    let deadline = time::after(since, limit);
    if snapshot.now < deadline {
        return plan.wake(deadline);
    }
    let end = End {
        reason: Some(Reason::DeadlineExceeded),
        message: match own == Some(limit) {
            true => format!("the program ran longer than timeouts.run, {}", time::human(limit)),
            false => format!("the program ran longer than its queue allows (maxRuntime), {}", time::human(limit)),
        },
        started: Some(since),
        ..End::default()
    };
    give_up(snapshot, plan, end);
}

// Records the end of an attempt whose time is over before anything is stopped: a crash in between must not
// make a deleted pod of it, which would spend another budget. The next pass stops what still runs.
pub fn give_up(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, end: End) {
    finish(snapshot, plan, end);
    plan.urge(Urgency::First);
    plan.wake(snapshot.now);
}

// Its queue needs the place for others. The run keeps its age and goes back into the queue.
fn evict(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, eviction: &Eviction, since: Option<jiff::Timestamp>) {
    let standing = plan.status.queue.get_or_insert_default();
    standing.preempted = Some(standing.preempted.unwrap_or(0) + 1);
    let (reason, message) = (Some(Reason::Preempted), eviction.message.clone());
    give_up(snapshot, plan, End { reason, message, started: since, ..End::default() });
    plan.status.phase = Phase::Queued;
    plan.status.reason = reason;
}

fn outputs(plan: &Plan<ExperimentStatus>) -> Vec<Output> {
    let declared = plan.status.template.as_ref().and_then(|template| template.get("outputs")).cloned();
    declared.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

// Records the end of the newest attempt, and what follows from it.
fn finish(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, mut over: End) {
    let declared = outputs(plan);
    let Some(reported) = report::whole(snapshot, plan, &over, &declared) else { return };
    // The runner's verdict; of a program that ended well only that its result cannot be had.
    let counts =
        |reason: Reason| over.reason == Some(Reason::Error) || over.reason.is_none() && reason == Reason::ResultLost;
    if let Some((reason, message)) = reported.failure.clone().filter(|(reason, _)| counts(*reason)) {
        (over.reason, over.message) = (Some(reason), message);
    }
    if over.reason.is_none() {
        let missing = result::missing(&declared, &reported);
        if !missing.is_empty() {
            over.reason = Some(Reason::OutputMissing);
            over.message = format!(
                "the program ended well but did not leave or report the declared output {}: write it to its path or to the termination log, or declare it optional",
                text::some_of(&missing, 8)
            );
        }
    }
    // The tail of a failed program's log arrives in the same place as a result does.
    let is_result = over.exit_code == Some(0)
        || reported.by_runner
        || over.output.trim_start().starts_with('{') && reported.problems.is_empty();
    let tail = match &reported.tail {
        Some(tail) => tail,
        None if is_result => "",
        None => &over.output,
    };
    if let Some(attempt) = plan.status.attempts.last_mut() {
        attempt.finished_at = Some(time::stamp(over.finished.unwrap_or(snapshot.now)));
        attempt.exit_code = over.exit_code;
        attempt.reason = over.reason;
        attempt.message = over.reason.map(|_| text::message(over.message.clone()));
        attempt.tail = (over.reason.is_some() && !tail.is_empty()).then(|| text::tail(tail));
        if let Some(started) = over.started {
            attempt.started_at.get_or_insert_with(|| time::stamp(started));
        }
    }
    if let Some(started) = over.started {
        times(plan).running.get_or_insert_with(|| time::stamp(started));
    }
    plan.urge(Urgency::Now);
    pin_source(&mut plan.status, &reported);
    if is_result {
        report::keep(snapshot, plan, reported);
    }
    match over.reason {
        None => complete(snapshot, plan),
        Some(reason) => retry_or_fail(snapshot, plan, reason, &over.message),
    }
}

fn complete(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    pin_image(&mut plan.status);
    reuse::known_now(snapshot, plan);
    end(snapshot, plan, Phase::Completed, None, "");
}

/// Clones of what ran must run the same bytes: where the runtime reports a repository digest, the template names it from
/// now on.
pub fn pin_image(status: &mut ExperimentStatus) {
    let Some(image_id) = &status.image_id else { return };
    let reference = image_id.split_once("://").map_or(image_id.as_str(), |(_, rest)| rest);
    let pinned = reference
        .split_once('@')
        .is_some_and(|(repository, digest)| !repository.is_empty() && digest.starts_with("sha256:"));
    let Some(template) = status.template.as_mut().filter(|_| pinned).map(Arc::make_mut) else { return };
    let image = template.get("image").and_then(Value::as_str).unwrap_or_default();
    // An image that a parameter chooses stays a choice for the clone; a side-loaded one has a name that
    // nobody can pull.
    let literal = !image.contains('@') && !image.contains("${");
    let repository = |text: &str| Image::parse(text).ok().map(|image| image.name());
    if literal && repository(image).is_some_and(|name| Some(name) == repository(reference)) {
        template["image"] = Value::String(reference.to_owned());
    }
}

/// A branch moves on: the next attempt, and every clone, must get what this one got.
pub fn pin_source(status: &mut ExperimentStatus, reported: &result::RunResult) {
    let commit = reported.commit.as_ref().filter(|_| reported.by_runner);
    if let (Some(commit), Some(template)) = (commit, status.template.as_mut().map(Arc::make_mut)) {
        source::pin(template, commit);
    }
}

fn retry_or_fail(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, reason: Reason, message: &str) {
    let retries = settings::retries(plan.status.template.as_deref().unwrap_or(&Value::Null));
    let spent = plan.status.retries.get_or_insert_default();
    let (again, budget) = match reason.budget() {
        Budget::User if spent.user < retries.limit => {
            spent.user += 1;
            (true, format!("retry {} of {} (retries.limit)", spent.user, retries.limit))
        }
        Budget::Infrastructure if spent.infrastructure < retries.infrastructure => {
            spent.infrastructure += 1;
            (true, format!("retry {} of {} (retries.infrastructure)", spent.infrastructure, retries.infrastructure))
        }
        Budget::Free => (true, "which spends no retry".to_owned()),
        Budget::User if retries.limit > 0 => (false, format!("all {} retries are spent", retries.limit)),
        Budget::Infrastructure => {
            (false, format!("all {} retries are spent (retries.infrastructure)", retries.infrastructure))
        }
        Budget::User | Budget::Final => (false, String::new()),
    };
    if plan.status.retries == Some(cultivar_crds::experiment::SpentRetries::default()) {
        plan.status.retries = None;
    }
    let number = plan.status.attempt.unwrap_or(1);
    if !again {
        let message = if budget.is_empty() { message.to_owned() } else { format!("{message}; {budget}") };
        pin_image(&mut plan.status);
        reuse::digest_now(snapshot, plan);
        return fail(snapshot, plan, reason, message);
    }
    plan.status.phase = Phase::Starting;
    wait(plan, Reason::BackingOff, format!("attempt {number} ended with {reason}: {message}; {budget}"));
    plan.events.push(Event {
        warning: true,
        reason,
        message: text::message(format!("attempt {number}: {message}; {budget}")),
    });
    if let Some(moment) = retry_at(snapshot, plan) {
        plan.wake(moment);
    }
}

// When the next attempt may start, from what is recorded alone: a restart changes nothing.
fn retry_at(snapshot: &Snapshot, plan: &Plan<ExperimentStatus>) -> Option<jiff::Timestamp> {
    let last = plan.status.attempts.last()?;
    // What was stopped for others stands in its queue again at once.
    if last.reason == Some(Reason::Preempted) && last.queue.is_some() {
        return None;
    }
    let finished = time::read(last.finished_at.as_deref())?;
    let retries = settings::retries(plan.status.template.as_deref().unwrap_or(&Value::Null));
    let spent = plan.status.retries.unwrap_or_default();
    let before = (spent.user + spent.infrastructure).saturating_sub(1);
    let seed = format!("{}/{}", snapshot.experiment.meta.uid, last.number);
    Some(time::after(finished, retries.delay(before, &seed)))
}
