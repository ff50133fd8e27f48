//! Kind Experiment: freeze, start attempts, judge them, record the end, tidy up.
//!
//! Comes in: [`Snapshot`]. Goes out: a plan whose status is the whole wanted status. The order of the
//! steps is the life of an experiment: validate → stop? → freeze → attempts → ended.

mod attempts;
mod ended;
mod equipment;
mod gang;
mod judge;
mod kueue;
pub mod leftovers;
mod publish;
mod pursue;
pub mod queueing;
pub mod record;
mod report;
mod restored;
pub mod result;
pub mod reuse;
mod runner;

use cultivar_crds::experiment::RecordSource;
use cultivar_crds::{CacheMode, ClonedFrom, ExperimentSpec, ExperimentStatus, Phase, PhaseTimes, Reason, labels};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::freeze::{self, Effective, Frozen, Sources};
use super::images::Lookup;
use super::{Action, Event, Plan, Urgency};
use crate::domain::conditions::{self, Conditions, kind};
use crate::domain::{
    ContainerState, Errands, ExperimentRecord, JobRecord, JobState, PodRecord, Producer, Stores, names, settings, text,
    time,
};
use crate::validate;

/// Everything that deciding about one experiment looks at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The experiment.
    pub experiment: ExperimentRecord,
    /// What its `from` may mean.
    pub sources: Sources,
    /// Its Jobs, of every attempt.
    pub jobs: Vec<Arc<JobRecord>>,
    /// Its pods, also those that are gone but not yet recorded.
    pub pods: Vec<Arc<PodRecord>>,
    /// Uris of its artifacts that others refer to; known while it is being deleted.
    pub referred: BTreeSet<String>,
    /// Other experiments of the namespace with the digest that it looks for.
    pub identical: Vec<Arc<ExperimentRecord>>,
    /// The latest of its stage that has ended, or the one that it is a clone of: where a difference shows best.
    pub nearest: Option<Arc<ExperimentRecord>>,
    /// What names it in `from`, such as "a Pipeline".
    pub in_use: Option<String>,
    /// The attempt whose absence the API server itself confirmed.
    pub confirmed: Option<u32>,
    /// Why the API server would not take the next attempt's Job.
    pub refusal: Option<Refusal>,
    /// How the queues stand to it.
    pub queueing: queueing::Queueing,
    /// Image of the runner; nothing: programs run as they are.
    pub runner_image: Option<String>,
    /// Where what the run leaves may go.
    pub stores: Stores,
    /// How its errands went so far.
    pub errands: Errands,
    /// Whether registries are asked what tags stand for.
    pub resolve_images: bool,
    /// By uri: who made the inputs.
    pub producers: BTreeMap<String, Producer>,
    /// The time.
    pub now: Timestamp,
}

/// Why an attempt's Job could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// WaitingForQuota when trying again can help; else why the attempt can never start.
    pub reason: Reason,
    /// The API server's words.
    pub message: String,
    /// When it said so.
    pub at: Timestamp,
}

impl Snapshot {
    fn job(&self, attempt: u32) -> Option<&JobRecord> {
        self.jobs.iter().find(|job| job.attempt == attempt).map(AsRef::as_ref)
    }

    // An experiment that is deleted and made again under the same name meets the pods of its namesake:
    // they are older, and belong to another Job.
    fn pods_of(&self, attempt: u32) -> Vec<&PodRecord> {
        let job = self.job(attempt).map(|job| &job.uid);
        let created = self.experiment.meta.created;
        let ours = |pod: &&PodRecord| match job {
            Some(uid) => pod.job_uid == *uid,
            None => pod.created.is_none_or(|pod| created.is_none_or(|created| pod >= created)),
        };
        self.pods.iter().map(AsRef::as_ref).filter(|pod: &&PodRecord| pod.attempt == attempt).filter(ours).collect()
    }

    // Whether every program of an attempt has ended, though its Job may not say so yet.
    fn has_ended(&self, attempt: u32) -> bool {
        let pods = self.pods_of(attempt);
        !pods.is_empty() && pods.iter().all(|pod| pod.is_over() || matches!(pod.main, ContainerState::Terminated(_)))
    }

    // A stage's experiment: its run froze the template already, and holds it as the spec.
    fn is_stage(&self) -> bool {
        names::member_of(&self.experiment.meta).is_some()
    }
}

/// Decides about one experiment.
#[must_use]
pub fn decide(snapshot: &Snapshot) -> Plan<ExperimentStatus> {
    let mut plan = Plan::new((*snapshot.experiment.status).clone());
    if snapshot.experiment.meta.deleting {
        leftovers::clean_up(snapshot, &mut plan);
        return plan;
    }
    let seen = plan.status.observed_generation.replace(snapshot.experiment.meta.generation);
    if queueing::is_outside(&plan.status) && seen != plan.status.observed_generation {
        plan.status.template = None;
    }
    if plan.status.phase.is_terminal() {
        ended::tend(snapshot, &mut plan);
        publish::publish(snapshot, &mut plan);
    } else if !restored::come_back(snapshot, &mut plan) {
        live(snapshot, &mut plan);
        restored::note(snapshot, &mut plan);
    }
    set_conditions(snapshot, &mut plan);
    if plan.urgency == Urgency::Soon && queueing::only_waits(&snapshot.experiment.status, &plan.status) {
        plan.urgency = Urgency::Later;
    }
    plan
}

fn live(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    let spec = &snapshot.experiment.spec;
    if spec.get("cancel").and_then(Value::as_bool).unwrap_or(false) {
        // What ran is recorded before it is stopped: it can be looked at, and cloned, all the same.
        if adopt(snapshot, plan) {
            plan.urge(Urgency::First);
            return plan.wake(snapshot.now);
        }
        return stop(snapshot, plan);
    }
    if plan.status.template.is_none() {
        // What is frozen goes on, whatever this version thinks of the spec now.
        match ExperimentSpec::deserialize(&**spec) {
            Err(error) if snapshot.is_stage() => {
                // Its run made it, and nobody is going to correct it.
                return fail(snapshot, plan, Reason::InvalidTemplate, format!("spec: {error}"));
            }
            Err(error) => return invalid(plan, format!("spec: {error}")),
            Ok(_) => {}
        }
        if let Some(source) = spec.get("record").and_then(|source| RecordSource::deserialize(source).ok()) {
            return record::adopt(snapshot, plan, &source);
        }
        if !freeze(snapshot, plan) {
            return;
        }
    }
    attempts::advance(snapshot, plan);
}

// An object of the user's own that contradicts itself waits for its change; nothing is lost.
fn invalid(plan: &mut Plan<ExperimentStatus>, message: String) {
    plan.status.phase = Phase::Pending;
    wait(plan, Reason::Invalid, message);
}

// A Job that was made before its attempt could be recorded; true when it is now.
fn adopt(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) -> bool {
    if !attempts::is_unrecorded(snapshot, plan) {
        return false;
    }
    if plan.status.template.is_none() {
        if !snapshot.is_stage() {
            return false;
        }
        freeze_stage(snapshot, plan);
    }
    attempts::adopt(snapshot, plan);
    true
}

fn freeze_stage(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    let record = &snapshot.experiment;
    let copy_of = record.meta.annotations.get(labels::CLONED_FROM);
    let cloned_from = copy_of.and_then(|json| serde_json::from_str::<ClonedFrom>(json).ok());
    frozen(snapshot, plan, freeze::overrides(&record.spec), cloned_from);
}

/// Freezes the template; false when there is nothing more to do in this pass.
fn freeze(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) -> bool {
    let record = &snapshot.experiment;
    if snapshot.is_stage() {
        freeze_stage(snapshot, plan);
        return true;
    }
    let report = validate::experiment(&record.spec);
    if let Some(faults) = report.refusal() {
        invalid(plan, faults);
        return false;
    }
    match freeze::freeze(&record.spec, &snapshot.sources, None) {
        Frozen::Ready(Effective { mut template, cloned_from }) => {
            // Who looks for a result must know what is to run. Of others the node's runtime says it in the end.
            let looks = reuse::mode(record, &template) == CacheMode::Use;
            if looks && snapshot.resolve_images && !pin_images(snapshot, plan, &mut template) {
                return false;
            }
            frozen(snapshot, plan, template, cloned_from);
            plan.urge(Urgency::First);
            // Where that status turns out to be stored already, the next step follows at once.
            plan.wake(snapshot.now);
        }
        Frozen::Refused { reason, message } => fail(snapshot, plan, reason, message),
        Frozen::Waiting { reason, message } => {
            let since = waiting_since(record).unwrap_or(snapshot.now);
            let deadline = time::after(since, settings::timeouts(&record.spec).template);
            if snapshot.now >= deadline {
                fail(snapshot, plan, reason, format!("{message}; gave up after timeouts.template"));
            } else {
                wait(plan, reason, message);
                plan.wake(deadline);
            }
        }
    }
    false
}

// False: its images are being asked for.
fn pin_images(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, template: &mut Value) -> bool {
    let mut lookup = Lookup::new(&snapshot.errands, snapshot.now);
    lookup.pin(template, "");
    if let Some((questions, words)) = lookup.asks() {
        plan.actions.extend(questions);
        wait(plan, Reason::ResolvingImages, words);
        return false;
    }
    if let Some(loose) = lookup.loose() {
        let meta = &snapshot.experiment.meta;
        let mut set = Conditions::new(&mut plan.status.conditions, meta.generation, snapshot.now);
        set.set(kind::IMAGE_PINNED, false, Reason::ImageUnpinned, loose);
    }
    true
}

// An object that was invalid for a while begins to wait when it was mended.
fn waiting_since(record: &ExperimentRecord) -> Option<Timestamp> {
    let accepted = record.status.conditions.iter().find(|c| c.type_ == kind::ACCEPTED && c.status == "True");
    accepted.map(|condition| condition.last_transition_time.0).max(record.meta.created)
}

fn frozen(
    snapshot: &Snapshot,
    plan: &mut Plan<ExperimentStatus>,
    template: serde_json::Value,
    cloned_from: Option<ClonedFrom>,
) {
    plan.status.digest = Some(reuse::key_of(&snapshot.experiment.meta, &template, &snapshot.producers).digest());
    plan.status.template = Some(Arc::new(template));
    plan.status.cloned_from = cloned_from;
    plan.status.phase = Phase::Starting;
    plan.status.reason = None;
    plan.status.message = None;
    times(plan).starting = Some(time::stamp(snapshot.now));
}

fn times(plan: &mut Plan<ExperimentStatus>) -> &mut PhaseTimes {
    plan.status.times.get_or_insert_default()
}

fn wait(plan: &mut Plan<ExperimentStatus>, reason: Reason, message: impl Into<String>) {
    plan.status.reason = Some(reason);
    plan.status.message = Some(text::message(message));
}

fn fail(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, reason: Reason, message: impl Into<String>) {
    end(snapshot, plan, Phase::Failed, Some(reason), message);
}

fn end(
    snapshot: &Snapshot,
    plan: &mut Plan<ExperimentStatus>,
    phase: Phase,
    reason: Option<Reason>,
    message: impl Into<String>,
) {
    let message = text::message(message);
    plan.status.phase = phase;
    plan.status.reason = reason;
    plan.status.message = (!message.is_empty()).then(|| message.clone());
    times(plan).finished = Some(time::stamp(snapshot.now));
    // A good end is told by the status; an event would be one more write per stage.
    if phase == Phase::Failed {
        plan.events.push(Event { warning: true, reason: reason.unwrap_or(Reason::Error), message });
    }
    plan.urge(Urgency::Now);
}

// `cancel: true`: every live Job goes, and the experiment ends when no process can run any more.
fn stop(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    for job in &snapshot.jobs {
        if job.state == JobState::Active && !job.deleting {
            plan.actions.push(Action::StopAttempt { job: job.name.clone() });
        }
    }
    let live_jobs = snapshot.jobs.iter().any(|job| job.state == JobState::Active);
    if live_jobs || snapshot.pods.iter().any(|pod| !pod.is_over()) {
        wait(plan, Reason::Stopping, "cancel was asked for; the pods end with their grace period");
        return;
    }
    if let Some(attempt) = plan.status.attempts.last_mut().filter(|attempt| attempt.finished_at.is_none()) {
        attempt.finished_at = Some(time::stamp(snapshot.now));
        attempt.reason = Some(Reason::Cancelled);
    }
    end(snapshot, plan, Phase::Cancelled, Some(Reason::Cancelled), "cancel was asked for");
}

fn set_conditions(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    let status = &mut plan.status;
    let (phase, reason) = (status.phase, status.reason);
    let message = status.message.clone().unwrap_or_default();
    let was_in_use = conditions::is_true(&status.conditions, kind::IN_USE);
    let mut set = Conditions::new(&mut status.conditions, snapshot.experiment.meta.generation, snapshot.now);
    let invalid = reason == Some(Reason::Invalid);
    if invalid {
        set.set(kind::ACCEPTED, false, Reason::Invalid, message.clone());
    } else {
        set.set(kind::ACCEPTED, true, Reason::Valid, "");
    }
    match phase {
        Phase::Completed => {
            set.set(kind::COMPLETE, true, Reason::Succeeded, message).clear(kind::RECONCILING).clear(kind::STALLED);
        }
        phase if phase.is_terminal() => {
            let reason = reason.unwrap_or(Reason::Error);
            set.set(kind::FAILED, true, reason, message.clone());
            set.set(kind::STALLED, true, reason, message).clear(kind::RECONCILING);
        }
        _ if invalid => {
            set.set(kind::STALLED, true, Reason::Invalid, message).clear(kind::RECONCILING);
        }
        _ => {
            set.set(kind::RECONCILING, true, reason.unwrap_or(Reason::Running), message).clear(kind::STALLED);
        }
    }
    match &snapshot.in_use {
        // A transition is worth a write; who else names it meanwhile is not.
        Some(_) if was_in_use => {}
        Some(by) => {
            set.set(kind::IN_USE, true, Reason::Referenced, format!("{by} names it in from: it is kept"));
        }
        None if was_in_use => {
            set.set(kind::IN_USE, false, Reason::NotReferenced, "nothing names it in from any more");
        }
        None => {}
    }
}
