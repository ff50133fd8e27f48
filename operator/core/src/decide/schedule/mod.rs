//! Kind Schedule: which times have passed, which of them get a run, and when to look again.
//!
//! Comes in: [`Snapshot`]. Goes out: a plan with the runs to be made. A run's name is a function of its time, and a time is
//! passed over for good only with the status that says so: whatever happens in between, no time gets two runs.

mod backfill;
mod times;

pub use times::{Days, Passed, Times};

use cultivar_crds::{ConcurrencyPolicy, Reason, ScheduleSpec, ScheduleStatus, labels};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::experiment::Refusal;
use super::pipeline::{owns_its_runs, ttl_of_runs};
use super::{Action, Event, NewScheduled, Plan, Urgency};
use crate::domain::conditions::{Conditions, kind};
use crate::domain::{PipelineRecord, RunRecord, ScheduleRecord, names, text, time};
use crate::validate;

/// Most times that a backfill has.
pub const MAX_BACKFILL: usize = 10_000;
/// How late a run may be made unless `startingDeadline` says otherwise.
const STARTING_DEADLINE: Duration = Duration::from_secs(600);
/// How many missed times are made up for unless `catchUp` says otherwise: what a nightly run is for is not lost with the night.
const CATCH_UP: u32 = 1;
/// Most runs that are made at once, of times that have passed.
const AT_ONCE: usize = 100;
/// How long after a refusal it is tried again.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);
/// A clock that is set while nothing happens is noticed within this.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
/// Runs that a status names.
const NAMED: usize = 20;
/// Times to come that a status names.
const TO_COME: usize = 3;

type Run = Arc<RunRecord>;

/// Everything that deciding about one schedule looks at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The schedule.
    pub schedule: ScheduleRecord,
    /// Its pipeline.
    pub pipeline: Option<Arc<PipelineRecord>>,
    /// The runs that it made of this pipeline.
    pub runs: Vec<Run>,
    /// Why the API server would not take the last one.
    pub refusal: Option<Refusal>,
    /// The time.
    pub now: Timestamp,
}

/// A run to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    name: String,
    time: Timestamp,
    backfill: Option<String>,
}

fn is_unfinished(run: &RunRecord) -> bool {
    !run.status.phase.is_terminal() && !run.meta.deleting
}

/// Decides about one schedule.
#[must_use]
pub fn decide(snapshot: &Snapshot) -> Plan<ScheduleStatus> {
    let schedule = &snapshot.schedule;
    let mut plan = Plan::new((*schedule.status).clone());
    if schedule.meta.deleting {
        return plan;
    }
    plan.status.observed_generation = Some(schedule.meta.generation);
    match read(schedule) {
        Ok((spec, times)) => accept(snapshot, &mut plan, &spec, &times),
        Err(faults) => refuse(snapshot, &mut plan, &faults),
    }
    if plan.status.considered_until != schedule.status.considered_until || !plan.actions.is_empty() {
        plan.urge(Urgency::Now);
    }
    plan
}

// A generation that was accepted once is not checked again at every pass.
fn read(schedule: &ScheduleRecord) -> Result<(ScheduleSpec, Times), String> {
    let accepted = schedule.status.conditions.iter().any(|condition| {
        condition.type_ == kind::ACCEPTED
            && condition.status == "True"
            && condition.observed_generation == Some(schedule.meta.generation)
    });
    if let Some(faults) = (!accepted).then(|| validate::schedule(&schedule.spec).refusal()).flatten() {
        return Err(faults);
    }
    let spec = ScheduleSpec::deserialize(&*schedule.spec).map_err(|error| format!("spec: {error}"))?;
    let times = Times::of(&spec).map_err(|error| format!("spec: {error}"))?;
    Ok((spec, times))
}

fn refuse(snapshot: &Snapshot, plan: &mut Plan<ScheduleStatus>, faults: &str) {
    let message = text::message(faults);
    if plan.status.message.as_deref() != Some(&message) {
        plan.events.push(Event { warning: true, reason: Reason::Invalid, message: message.clone() });
    }
    plan.status.message = Some(message.clone());
    plan.status.next.clear();
    // What passes before it is valid is not made up for.
    plan.status.considered_until.get_or_insert_with(|| time::stamp(snapshot.now));
    show_active(snapshot, &mut plan.status);
    Conditions::new(&mut plan.status.conditions, snapshot.schedule.meta.generation, snapshot.now)
        .set(kind::ACCEPTED, false, Reason::Invalid, message.clone())
        .set(kind::READY, false, Reason::Invalid, message.clone())
        .set(kind::STALLED, true, Reason::Invalid, message)
        .clear(kind::RECONCILING);
    plan.urge(Urgency::Now);
}

fn accept(snapshot: &Snapshot, plan: &mut Plan<ScheduleStatus>, spec: &ScheduleSpec, times: &Times) {
    let suspended = spec.suspend == Some(true);
    let since = considered(snapshot, &Times::words(spec), suspended);
    plan.status.considered_until = Some(time::stamp(since));
    plan.status.in_force = Some(Times::words(spec));
    plan.status.suspended = suspended;
    let held = held(snapshot, spec);
    if held.is_none() && !suspended {
        let made = fire(snapshot, plan, spec, times, since);
        let filled = match &spec.backfill {
            Some(backfill) => backfill::advance(snapshot, plan, backfill, times, &made),
            None => {
                plan.status.backfill = None;
                Vec::new()
            }
        };
        let pipeline = snapshot.pipeline.iter();
        let new = pipeline.flat_map(|pipeline| made.iter().chain(&filled).map(|made| new(spec, times, pipeline, made)));
        plan.actions.extend(new.map(|new| Action::CreateScheduled(Box::new(new))));
    }
    plan.status.next.clear();
    if !suspended {
        let known = time::read(plan.status.considered_until.as_deref()).unwrap_or(since);
        let mut next = times.after(known.max(snapshot.now)).take(TO_COME).peekable();
        plan.wake(time::after(snapshot.now, LOOK_AGAIN));
        next.peek().iter().for_each(|next| plan.wake(**next));
        plan.status.next = next.map(|next| times.text(next)).collect();
        let refused = snapshot.refusal.iter().map(|refusal| time::after(refusal.at, AFTER_REFUSAL));
        refused.filter(|again| *again > snapshot.now).for_each(|again| plan.wake(again));
    }
    show_active(snapshot, &mut plan.status);
    show(snapshot, plan, suspended, held);
}

// Up to when times have had their run or were missed. Neither the times of other expressions, nor those that passed while it
// was suspended, are made up for; a clock that was put back changes nothing.
fn considered(snapshot: &Snapshot, words: &str, suspended: bool) -> Timestamp {
    let (meta, status) = (&snapshot.schedule.meta, &snapshot.schedule.status);
    match time::read(status.considered_until.as_deref()) {
        None => meta.created.unwrap_or(snapshot.now),
        Some(since) if status.in_force.as_deref() != Some(words) || status.suspended && !suspended => {
            since.max(snapshot.now)
        }
        Some(since) => since,
    }
}

// Why no run can be made now. Times that pass meanwhile are late, and after a while missed.
fn held(snapshot: &Snapshot, spec: &ScheduleSpec) -> Option<(Reason, String)> {
    if let Some(refusal) = &snapshot.refusal
        && time::after(refusal.at, AFTER_REFUSAL) > snapshot.now
    {
        return Some((refusal.reason, refusal.message.clone()));
    }
    let pipeline = snapshot.pipeline.as_ref().filter(|pipeline| !pipeline.meta.deleting);
    let Some(pipeline) = pipeline else {
        return Some((
            Reason::PipelineNotFound,
            format!("pipeline {} does not exist in this namespace", spec.pipeline),
        ));
    };
    let report = validate::run_params(&pipeline.spec, &json!({"params": spec.params}));
    report.refusal().map(|faults| (Reason::Invalid, faults))
}

// The times that have passed since, those of them that get a run, and what becomes of the runs before.
fn fire(
    snapshot: &Snapshot,
    plan: &mut Plan<ScheduleStatus>,
    spec: &ScheduleSpec,
    times: &Times,
    since: Timestamp,
) -> Vec<Made> {
    let passed = times.passed(since, snapshot.now, AT_ONCE);
    let Some(latest) = passed.newest.last() else { return Vec::new() };
    plan.status.considered_until = Some(time::stamp(*latest));
    let schedule = &snapshot.schedule.meta.name;
    let of = |time: &Timestamp| Made { name: names::scheduled_run(schedule, *time), time: *time, backfill: None };
    // Made by passes whose status was not stored: what was older was decided then.
    let made_before = snapshot.runs.iter().filter_map(|run| names::time_of_run(schedule, &run.meta.name));
    let before: BTreeSet<Timestamp> = made_before.filter(|time| *time > since && *time <= *latest).collect();
    let open = passed.newest.iter().filter(|time| before.last().is_none_or(|before| *time > before));
    let active: Vec<&Run> = snapshot
        .runs
        .iter()
        .filter(|run| is_unfinished(run) && !run.meta.annotations.contains_key(labels::BACKFILL))
        .collect();
    let mut made: Vec<Made> = in_time(spec, &open.copied().collect::<Vec<_>>(), snapshot.now).iter().map(of).collect();
    let mut why = "they had passed for too long";
    match spec.concurrency_policy.unwrap_or_default() {
        ConcurrencyPolicy::Queue | ConcurrencyPolicy::Allow => {}
        ConcurrencyPolicy::Forbid => {
            why = "an earlier run has not ended, and concurrencyPolicy is Forbid";
            let kept = if active.is_empty() { made.len().saturating_sub(1) } else { made.len() };
            made.drain(..kept);
        }
        ConcurrencyPolicy::Replace => {
            why = "a newer one takes the place, and concurrencyPolicy is Replace";
            made.drain(..made.len().saturating_sub(1));
            if !made.is_empty() {
                plan.actions
                    .extend(active.iter().map(|run| Action::CancelRun { name: run.meta.name.clone(), mode: None }));
            }
        }
    }
    let last = made.iter().cloned().chain(before.iter().map(of)).max_by_key(|made| made.time);
    if let Some(last) = last {
        plan.status.last_time = Some(time::stamp(last.time));
        plan.status.last_run = Some(last.name);
    }
    let served = u64::try_from(made.len() + before.len()).unwrap_or(u64::MAX);
    miss(plan, times, passed.count.saturating_sub(served), *latest, why);
    made
}

// Of times that have passed: all that are not too late, and before them as many as are made up for.
fn in_time<'a>(spec: &ScheduleSpec, passed: &'a [Timestamp], now: Timestamp) -> &'a [Timestamp] {
    let deadline = spec.starting_deadline.as_deref().and_then(|deadline| time::parse_duration(deadline).ok());
    let deadline = SignedDuration::try_from(deadline.unwrap_or(STARTING_DEADLINE)).unwrap_or(SignedDuration::MAX);
    let late = passed.partition_point(|time| now.duration_since(*time) > deadline);
    let caught_up = spec.catch_up.as_ref().map_or(CATCH_UP, |catch_up| catch_up.limit);
    &passed[late.saturating_sub(usize::try_from(caught_up).unwrap_or(usize::MAX))..]
}

fn miss(plan: &mut Plan<ScheduleStatus>, times: &Times, missed: u64, latest: Timestamp, why: &str) {
    if missed == 0 {
        return;
    }
    plan.status.missed = plan.status.missed.saturating_add(missed);
    let message = format!("no run for {missed} time(s) up to {}: {why}", times.text(latest));
    plan.events.push(Event { warning: true, reason: Reason::TimesMissed, message });
}

fn new(spec: &ScheduleSpec, times: &Times, pipeline: &PipelineRecord, made: &Made) -> NewScheduled {
    NewScheduled {
        name: made.name.clone(),
        pipeline: pipeline.meta.clone(),
        params: spec.params.clone(),
        time: times.text(made.time),
        backfill: made.backfill.clone(),
        owned: owns_its_runs(&pipeline.spec),
        ttl: ttl_of_runs(&pipeline.spec),
        side_by_side: spec.concurrency_policy == Some(ConcurrencyPolicy::Allow) && made.backfill.is_none(),
    }
}

fn show_active(snapshot: &Snapshot, status: &mut ScheduleStatus) {
    let mut active: Vec<&Run> = snapshot.runs.iter().filter(|run| is_unfinished(run)).collect();
    active.sort_by_key(|run| (run.meta.created, run.meta.name.clone()));
    status.active_count = u32::try_from(active.len()).unwrap_or(u32::MAX);
    status.active = active.iter().take(NAMED).map(|run| run.meta.name.clone()).collect();
}

fn show(snapshot: &Snapshot, plan: &mut Plan<ScheduleStatus>, suspended: bool, held: Option<(Reason, String)>) {
    plan.status.message = held.as_ref().filter(|_| !suspended).map(|(_, message)| text::message(message.clone()));
    let mut set = Conditions::new(&mut plan.status.conditions, snapshot.schedule.meta.generation, snapshot.now);
    set.set(kind::ACCEPTED, true, Reason::Valid, "").clear(kind::STALLED).clear(kind::RECONCILING);
    match held {
        _ if suspended => {
            set.set(kind::READY, true, Reason::Suspended, "no runs are made until spec.suspend is false");
        }
        Some((reason, message)) => {
            set.set(kind::READY, false, reason, message.clone()).set(kind::RECONCILING, true, reason, message);
        }
        None => {
            set.set(kind::READY, true, Reason::UpToDate, "runs are made at their times");
        }
    }
}
