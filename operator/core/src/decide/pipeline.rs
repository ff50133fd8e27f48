//! Kind Pipeline: validate, start a run when what runs has changed, report the latest, keep history short.
//!
//! Comes in: [`Snapshot`]. Goes out: a plan with at most one new run.

use cultivar_crds::{DeletionPolicy, Phase, PipelineRunStatus, PipelineStatus, Reason, RunSummary, labels};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Action, Event, NewRun, Plan, Urgency, restore};
use crate::clone;
use crate::domain::conditions::{Conditions, kind};
use crate::domain::{PipelineRecord, RunRecord, names, text, time};
use crate::validate;

/// How many ended runs are kept unless `historyLimit` says otherwise.
const HISTORY_LIMIT: u64 = 10;

/// Everything that deciding about one pipeline looks at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The pipeline.
    pub pipeline: PipelineRecord,
    /// Its runs, those made by hand too.
    pub runs: Vec<Arc<RunRecord>>,
    /// By a run's uid: its experiments that something names in `from`.
    pub in_use: BTreeMap<String, Vec<String>>,
    /// The time.
    pub now: Timestamp,
}

/// Digest of the part of a pipeline's stored spec that starts runs. Absent stays absent, so that a
/// newer operator with more fields finds the same digest.
#[must_use]
pub fn digest(spec: &Value) -> String {
    let part: Map<String, Value> = ["stages", "finally", "params", "paramSchema", "outputs", "rerun"]
        .into_iter()
        .filter_map(|key| spec.get(key).map(|value| (key.to_owned(), value.clone())))
        .collect();
    format!("v1:{}", clone::digest(&Value::Object(part)))
}

/// What a run was made for: the digest, and the pipeline's generation where it can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MadeFor {
    // Generations count within one life of a pipeline; one that was deleted and made again, or restored
    // from a backup, starts at 1 and must neither miss an edit nor run everything again.
    generation: Option<i64>,
    digest: String,
}

fn made_for(pipeline: &PipelineRecord, run: &RunRecord) -> Option<MadeFor> {
    let (status, notes) = (&run.status, &run.meta.annotations);
    let noted = || notes.get(labels::PIPELINE_GENERATION)?.parse().ok();
    let digest = status.pipeline_digest.as_ref().or_else(|| notes.get(labels::PIPELINE_DIGEST))?.clone();
    let generation = status.pipeline_generation.or_else(noted);
    let owner = run.meta.owner.as_ref().map(|owner| &owner.uid);
    match owner.or_else(|| notes.get(labels::PIPELINE_UID)) {
        Some(uid) if *uid == pipeline.meta.uid => Some(MadeFor { generation, digest }),
        // Kept when its pipeline was deleted, or restored from a backup with it: what it has done, or is about to do, is
        // not done again.
        Some(_) if matches!(run.status.phase, Phase::Failed | Phase::Cancelled) && owner.is_none() => None,
        Some(_) => Some(MadeFor { generation: None, digest }),
        // Made by hand: for this pipeline, or for a namesake before it.
        None if run.meta.created >= pipeline.meta.created => Some(MadeFor { generation, digest }),
        None => None,
    }
}

/// Whether a pipeline's runs go with it.
#[must_use]
pub fn owns_its_runs(spec: &Value) -> bool {
    let policy = spec.get("deletionPolicy").and_then(|policy| DeletionPolicy::deserialize(policy).ok());
    policy == Some(DeletionPolicy::Delete)
}

/// How long a pipeline's runs are kept after their end, where it says so.
#[must_use]
pub fn ttl_of_runs(spec: &Value) -> Option<String> {
    spec.get("ttlAfterFinished").and_then(Value::as_str).map(str::to_owned)
}

/// Revision of a run that a pipeline made; runs made by hand have none.
#[must_use]
pub fn revision(run: &RunRecord) -> Option<i64> {
    let revision = run.meta.label(labels::REVISION)?.parse().ok();
    revision.filter(|revision| (1..=i64::from(u32::MAX)).contains(revision))
}

/// Order of a pipeline's runs: who came first. Creation times have whole seconds.
#[must_use]
pub fn order(run: &RunRecord) -> (Option<Timestamp>, i64, &str) {
    (run.meta.created, revision(run).unwrap_or(0), &run.meta.name)
}

/// Why a run goes on only when a person acts, where it does.
#[must_use]
pub fn waits_for_somebody(run: &PipelineRunStatus) -> Option<Reason> {
    let of_people = matches!(run.reason, Some(Reason::WaitingForApproval | Reason::Suspended));
    run.reason.filter(|_| of_people && !run.phase.is_terminal())
}

/// Decides about one pipeline.
#[must_use]
pub fn decide(snapshot: &Snapshot) -> Plan<PipelineStatus> {
    let pipeline = &snapshot.pipeline;
    let mut plan = Plan::new((*pipeline.status).clone());
    if pipeline.meta.deleting {
        return plan;
    }
    if plan.status.observed_generation.replace(pipeline.meta.generation).is_none() {
        come_back(pipeline, &mut plan.status);
    }
    if let Some(faults) = faults(pipeline) {
        refuse(snapshot, &mut plan, &faults);
    } else {
        accept(snapshot, &mut plan);
    }
    summarise(snapshot, &mut plan);
    trim_history(snapshot, &mut plan);
    note_verdict(snapshot, &mut plan);
    plan
}

/// What a pipeline remembers of its runs, for a backup that drops that.
#[derive(Serialize, Deserialize, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
struct Remembered {
    revision: Option<i64>,
    digest: Option<String>,
    rerun: Option<String>,
}

// Generations begin anew, so that the latest run's was before all of them: what differs from it is an edit, and nothing
// else starts a run.
fn come_back(pipeline: &PipelineRecord, status: &mut PipelineStatus) {
    if let Some(Remembered { revision, digest, rerun }) = restore::of(&pipeline.meta, &Value::Null) {
        (status.revision, status.digest, status.rerun) = (revision, digest, rerun);
        status.run_generation = Some(0);
    }
}

// The latest run has ended by then: a run that has not is restored without a verdict, and runs again.
fn note_verdict(snapshot: &Snapshot, plan: &mut Plan<PipelineStatus>) {
    if makes_a_run(plan) {
        return;
    }
    let latest = snapshot.runs.iter().filter(|run| revision(run).is_some()).max_by_key(|run| order(run));
    let ended = match latest {
        None => snapshot.pipeline.meta.created,
        Some(run) => time::read(run.status.finished_at.as_deref()),
    };
    let Some(ended) = ended.filter(|_| plan.status.digest.is_some()) else { return };
    let essence = |status: &PipelineStatus| Remembered {
        revision: status.revision,
        digest: status.digest.clone(),
        rerun: status.rerun.clone(),
    };
    restore::note(plan, (&snapshot.pipeline.meta, &Value::Null), (essence, &[]), (ended, snapshot.now));
}

// A generation that was accepted once is not read again at every pass.
fn faults(pipeline: &PipelineRecord) -> Option<String> {
    let accepted = pipeline.status.conditions.iter().any(|condition| {
        condition.type_ == kind::ACCEPTED
            && condition.status == "True"
            && condition.observed_generation == Some(pipeline.meta.generation)
    });
    if accepted { None } else { validate::pipeline(&pipeline.spec).refusal() }
}

fn refuse(snapshot: &Snapshot, plan: &mut Plan<PipelineStatus>, faults: &str) {
    let message = text::message(faults);
    if plan.status.message.as_deref() != Some(&message) {
        plan.events.push(Event { warning: true, reason: Reason::Invalid, message: message.clone() });
    }
    plan.status.reason = Some(Reason::Invalid);
    plan.status.message = Some(message.clone());
    Conditions::new(&mut plan.status.conditions, snapshot.pipeline.meta.generation, snapshot.now)
        .set(kind::ACCEPTED, false, Reason::Invalid, message.clone())
        .set(kind::READY, false, Reason::Invalid, message.clone())
        .set(kind::STALLED, true, Reason::Invalid, message)
        .clear(kind::RECONCILING);
    plan.urge(Urgency::Now);
}

fn accept(snapshot: &Snapshot, plan: &mut Plan<PipelineStatus>) {
    let pipeline = &snapshot.pipeline;
    let digest = digest(&pipeline.spec);
    let on_demand = pipeline.spec.get("runOn").and_then(Value::as_str) == Some("Demand");
    let suspended = pipeline.spec.get("suspend").and_then(Value::as_bool).unwrap_or(false);
    if !on_demand && !suspended && needs_run(snapshot, &plan.status, &digest) {
        let known = snapshot.runs.iter().filter_map(|run| revision(run));
        let mut revision = known.chain(plan.status.revision).max().unwrap_or(0).saturating_add(1);
        // A run that somebody made by hand may have the next name already.
        while snapshot.runs.iter().any(|run| run.meta.name == names::run(&pipeline.meta.name, revision)) {
            revision += 1;
        }
        let name = names::run(&pipeline.meta.name, revision);
        let rerun = pipeline.spec.get("rerun").and_then(Value::as_str).map(str::to_owned);
        let refresh = asks_anew(snapshot, &plan.status, rerun.as_deref());
        plan.status.revision = Some(revision);
        plan.status.digest = Some(digest.clone());
        plan.status.run_generation = Some(pipeline.meta.generation);
        plan.status.latest_run = Some(RunSummary { name: name.clone(), phase: Phase::Running, reason: None });
        plan.status.rerun.clone_from(&rerun);
        let generation = pipeline.meta.generation;
        plan.actions.push(Action::CreateRun(NewRun {
            name,
            revision,
            digest,
            generation,
            rerun,
            refresh,
            owned: owns_its_runs(&pipeline.spec),
            ttl: ttl_of_runs(&pipeline.spec),
        }));
    }
    let ready = match (suspended, on_demand) {
        (true, _) => "suspended: a change makes no run until spec.suspend is false",
        (false, true) => "runs on demand: make a PipelineRun",
        (false, false) => "the run for this generation exists",
    };
    Conditions::new(&mut plan.status.conditions, pipeline.meta.generation, snapshot.now)
        .set(kind::ACCEPTED, true, Reason::Valid, "")
        .set(kind::READY, true, Reason::UpToDate, ready)
        .clear(kind::STALLED)
        .clear(kind::RECONCILING);
}

// Whether `rerun` has a value that no run was made for last: then the next one reuses nothing.
fn asks_anew(snapshot: &Snapshot, status: &PipelineStatus, rerun: Option<&str>) -> bool {
    let made = snapshot.runs.iter().filter(|run| revision(run).is_some());
    let latest = made.max_by_key(|run| revision(run));
    let before = match latest {
        Some(run) => run.meta.annotations.get(labels::RERUN),
        None if status.revision.is_some() => status.rerun.as_ref(),
        None => return false,
    };
    rerun.is_some() && rerun != before.map(String::as_str)
}

// A run starts only when what runs differs from the latest run's, and the generation is newer: an
// upgrade of the operator reruns nothing, nor does a pipeline that comes back beside the runs that it made.
fn needs_run(snapshot: &Snapshot, status: &PipelineStatus, digest: &str) -> bool {
    latest_made(snapshot, status).is_none_or(|MadeFor { generation, digest: latest }| {
        generation.is_none_or(|generation| snapshot.pipeline.meta.generation > generation) && latest != digest
    })
}

// What the latest run was made for, whether that is still there or not.
fn latest_made(snapshot: &Snapshot, status: &PipelineStatus) -> Option<MadeFor> {
    let meta = &snapshot.pipeline.meta;
    let remembered = status.digest.clone().map(|digest| {
        let generation = status.run_generation.filter(|generation| *generation <= meta.generation);
        MadeFor { generation, digest }
    });
    let mut runs: Vec<&Arc<RunRecord>> = snapshot.runs.iter().collect();
    runs.sort_by_key(|run| order(run));
    let mut made: Vec<MadeFor> =
        remembered.into_iter().chain(runs.into_iter().filter_map(|run| made_for(&snapshot.pipeline, run))).collect();
    let comparable = made.iter().filter(|made| made.generation.is_some()).max_by_key(|made| made.generation);
    comparable.cloned().or_else(|| made.pop())
}

// Runs go, and what they were made for is not to be done again for that: also not by an operator that died after it had made
// the run, and before it had written that down.
fn remember(snapshot: &Snapshot, status: &mut PipelineStatus) {
    let Some(MadeFor { generation, digest }) = latest_made(snapshot, status) else { return };
    (status.digest, status.run_generation) = (Some(digest), Some(generation.unwrap_or(0)));
    let made = snapshot.runs.iter().filter(|run| revision(run).is_some());
    if let Some(latest) = made.max_by_key(|run| revision(run)).filter(|latest| revision(latest) >= status.revision) {
        status.rerun = latest.meta.annotations.get(labels::RERUN).cloned();
    }
}

/// Whether a pipeline, as it is stored, knows without the run what that was made for.
#[must_use]
pub fn remembers(pipeline: &PipelineRecord, run: &RunRecord) -> bool {
    let status = &pipeline.status;
    made_for(pipeline, run).is_none_or(|made| {
        let known = status.digest.as_ref().zip(status.run_generation);
        known.is_some_and(|(_, generation)| generation >= made.generation.unwrap_or(0))
            && status.revision >= revision(run)
    })
}

fn makes_a_run(plan: &Plan<PipelineStatus>) -> bool {
    plan.actions.iter().any(|action| matches!(action, Action::CreateRun(_)))
}

fn summarise(snapshot: &Snapshot, plan: &mut Plan<PipelineStatus>) {
    let being_made = makes_a_run(plan);
    let latest = snapshot.runs.iter().max_by_key(|run| order(run));
    if !being_made {
        remember(snapshot, &mut plan.status);
    }
    if let Some(run) = latest.filter(|_| !being_made) {
        let phase = if run.status.phase.is_terminal() { run.status.phase } else { Phase::Running };
        let reason = waits_for_somebody(&run.status);
        plan.status.latest_run = Some(RunSummary { name: run.meta.name.clone(), phase, reason });
        // The latest may be one that somebody made by hand, which has none.
        let known = snapshot.runs.iter().filter_map(|run| revision(run)).max();
        plan.status.revision = plan.status.revision.max(known);
    }
    let invalid = plan.status.reason == Some(Reason::Invalid)
        && !being_made
        && plan.status.conditions.iter().any(|c| c.type_ == kind::ACCEPTED && c.status == "False");
    let ended = snapshot.runs.iter().filter(|run| matches!(run.status.phase, Phase::Completed | Phase::Failed));
    let last = ended.max_by_key(|run| (run.status.finished_at.clone(), revision(run)));
    let Some(last) = last else {
        if !invalid {
            (plan.status.reason, plan.status.message) = (None, None);
        }
        return;
    };
    let succeeded = last.status.phase == Phase::Completed;
    let reason = if succeeded { Reason::Succeeded } else { last.status.reason.unwrap_or(Reason::Error) };
    let words = match &last.status.message {
        Some(message) if !succeeded => format!("run {}: {message}", last.meta.name),
        _ => format!("run {} {}", last.meta.name, last.status.phase),
    };
    Conditions::new(&mut plan.status.conditions, snapshot.pipeline.meta.generation, snapshot.now).set(
        kind::LAST_RUN_SUCCEEDED,
        succeeded,
        reason,
        words.clone(),
    );
    if !invalid {
        plan.status.reason = (!succeeded).then_some(reason);
        plan.status.message = (!succeeded).then(|| text::message(words));
    }
}

// Ended runs beyond the limit go, oldest first, with the experiments they own; an experiment that
// something names in `from` leaves its run's ownership first.
fn trim_history(snapshot: &Snapshot, plan: &mut Plan<PipelineStatus>) {
    let limit = snapshot.pipeline.spec.get("historyLimit").and_then(Value::as_u64).unwrap_or(HISTORY_LIMIT);
    // What an unfinished run goes on from stays until that has ended.
    let unfinished = snapshot.runs.iter().filter(|run| !run.status.phase.is_terminal());
    let resumed: BTreeSet<&str> = unfinished.filter_map(|run| run.spec.get("resumeOf")?.as_str()).collect();
    let mut ended: Vec<&Arc<RunRecord>> = snapshot
        .runs
        .iter()
        .filter(|run| run.status.phase.is_terminal() && !run.meta.deleting && !resumed.contains(run.meta.name.as_str()))
        .collect();
    ended.sort_by_key(|run| {
        let finished = time::read(run.status.finished_at.as_deref()).or(run.meta.created);
        (finished, revision(run), run.meta.name.clone())
    });
    let excess = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for run in ended.into_iter().take(excess) {
        match snapshot.in_use.get(&run.meta.uid).filter(|kept| !kept.is_empty()) {
            Some(kept) => {
                plan.actions.extend(kept.iter().map(|name| Action::ReleaseExperiment { name: name.clone() }));
            }
            None => plan.actions.push(Action::DeleteRun { name: run.meta.name.clone(), uid: run.meta.uid.clone() }),
        }
    }
}
