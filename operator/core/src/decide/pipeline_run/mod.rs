//! Kind PipelineRun: freeze the pipeline, wait for the turn, start stages the moment they can, conclude.
//!
//! Comes in: [`Snapshot`]. Goes out: a plan; stages start from what is frozen in the run's status, so
//! that nothing that changes outside changes the run.

mod board;
mod child;
mod fan_out;
mod frozen;
mod matrix;
mod nested;
mod repeat;
mod texts;
mod values;

pub use board::standing;
pub use child::Child;
pub use frozen::{FrozenPipeline, FrozenStage, queries};
pub use matrix::{Coordinates, FanOut};

use cultivar_crds::{OnFailure, Phase, PipelineRunStatus, Reason, StageStatus, labels};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::freeze::{Frozen, Sources};
use super::pipeline::{digest, order, revision};
use super::{Event, Plan, Urgency};
use crate::domain::conditions::{Conditions, kind};
use crate::domain::{Member, PipelineRecord, RunRecord, settings, text, time};
use crate::refs::{FieldPath, Head, Insert, Names, Scope, resolve};
use crate::validate;
use board::Board;

/// Most bytes of a run's outputs as JSON: the status holds the frozen pipeline too.
const MAX_OUTPUTS: usize = 64 * 1024;

/// Everything that deciding about one run looks at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The run.
    pub run: RunRecord,
    /// Its pipeline.
    pub pipeline: Option<Arc<PipelineRecord>>,
    /// What the stages' `from` may mean; needed until the run is frozen.
    pub sources: Sources,
    /// The other runs of the pipeline.
    pub siblings: Vec<Arc<RunRecord>>,
    /// The run's experiments and nested runs, by what they stand for.
    pub children: BTreeMap<Member, Child>,
    /// Those that, recorded before, the API server itself says are gone.
    pub confirmed_gone: BTreeSet<Member>,
    /// Why the API server would not take one.
    pub refusals: BTreeMap<Member, String>,
    /// The time.
    pub now: Timestamp,
}

/// Decides about one run.
#[must_use]
pub fn decide(snapshot: &Snapshot) -> Plan<PipelineRunStatus> {
    let mut plan = Plan::new((*snapshot.run.status).clone());
    if snapshot.run.meta.deleting {
        return plan;
    }
    plan.status.observed_generation = Some(snapshot.run.meta.generation);
    if plan.status.phase.is_terminal() {
        // A stage whose creation was answered too late to be seen before the run ended.
        plan.actions.extend(board::stragglers(snapshot, &[]));
    } else {
        live(snapshot, &mut plan);
    }
    set_conditions(snapshot, &mut plan);
    plan
}

fn live(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) {
    let cancel = snapshot.run.spec.get("cancel").and_then(Value::as_bool).unwrap_or(false);
    // Stages are made before the status that says so is stored: a crash in between unstarts nothing.
    let started = plan.status.started_at.is_some() || !snapshot.children.is_empty();
    if cancel && !started {
        return end(snapshot, plan, Phase::Cancelled, Some(Reason::Cancelled), "cancel was asked for");
    }
    let Some(frozen) = &plan.status.pipeline_spec else {
        return freeze(snapshot, plan);
    };
    let pipeline = match FrozenPipeline::deserialize(frozen) {
        Ok(pipeline) => pipeline,
        Err(error) => return fail(snapshot, plan, Reason::Invalid, format!("status.pipelineSpec: {error}")),
    };
    if !started && !is_its_turn(snapshot, plan) {
        return;
    }
    begin(snapshot, plan);
    advance(snapshot, plan, &pipeline, cancel);
}

fn begin(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) {
    plan.status.phase = Phase::Running;
    if plan.status.started_at.is_none() {
        plan.status.started_at = Some(time::stamp(snapshot.now));
        // Whoever decides about the next run of the pipeline must find it, also after a crash.
        plan.urge(Urgency::Now);
    }
}

fn freeze(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) {
    let Some(pipeline) = &snapshot.pipeline else {
        let name = snapshot.run.spec.get("pipeline").and_then(Value::as_str).unwrap_or_default();
        return wait(
            snapshot,
            plan,
            Reason::PipelineNotFound,
            format!("pipeline {name} does not exist in this namespace"),
        );
    };
    let now_digest = digest(&pipeline.spec);
    let made_for = snapshot.run.meta.annotations.get(labels::PIPELINE_DIGEST);
    if let Some(pinned) = made_for.filter(|pinned| snapshot.run.meta.is_nested() && **pinned != now_digest) {
        let message =
            format!("the stage is pinned to {pinned}, and pipeline {} is {now_digest} now", pipeline.meta.name);
        return fail(snapshot, plan, Reason::Superseded, message);
    }
    if made_for.is_some_and(|made_for| *made_for != now_digest) {
        return end(
            snapshot,
            plan,
            Phase::Cancelled,
            Some(Reason::Superseded),
            "the pipeline changed before the run started",
        );
    }
    let report = validate::pipeline(&pipeline.spec);
    if let Some(faults) = report.refusal() {
        return wait(snapshot, plan, Reason::Invalid, format!("pipeline {}: {faults}", pipeline.meta.name));
    }
    let report = validate::run_params(&pipeline.spec, &snapshot.run.spec);
    if let Some(faults) = report.refusal() {
        return fail(snapshot, plan, Reason::Invalid, faults);
    }
    match frozen::freeze(pipeline, &snapshot.run.spec, &snapshot.sources) {
        Frozen::Ready(frozen) => {
            plan.status.pipeline_spec = Some(frozen);
            plan.status.pipeline_digest = Some(now_digest);
            plan.status.pipeline_generation = Some(pipeline.meta.generation);
            (plan.status.reason, plan.status.message) = (None, None);
            // One write says that it is frozen and that it begins, where nothing stands before it.
            if is_its_turn(snapshot, plan) {
                begin(snapshot, plan);
            }
            plan.urge(Urgency::First);
            // Where that status turns out to be stored already, the next step follows at once.
            plan.wake(snapshot.now);
        }
        Frozen::Waiting { reason, message } => wait(snapshot, plan, reason, message),
        Frozen::Refused { reason, message } => fail(snapshot, plan, reason, message),
    }
}

// One run of a pipeline at a time. Of the runs that the pipeline made only the newest waits; runs made
// by hand have parameters of their own and wait in line.
fn is_its_turn(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) -> bool {
    // A nested run is part of the one around it, which has its turn.
    if snapshot.run.meta.is_nested() {
        return true;
    }
    let mine = order(&snapshot.run);
    let unfinished = |run: &&Arc<RunRecord>| !run.status.phase.is_terminal() && !run.meta.deleting;
    let earlier = snapshot
        .siblings
        .iter()
        .filter(unfinished)
        .filter(|run| run.status.started_at.is_some() || order(run) < mine)
        // The one directly before: it stays the same until it is this run's turn, so a long line is not
        // written anew each time its head ends.
        .max_by_key(|run| (order(run) < mine, order(run)));
    let Some(earlier) = earlier else { return true };
    let newer = snapshot
        .siblings
        .iter()
        .filter(unfinished)
        .filter(|run| revision(run).is_some() && order(run) > mine)
        .max_by_key(|run| order(run));
    if let (Some(newer), Some(_)) = (newer, revision(&snapshot.run)) {
        end(
            snapshot,
            plan,
            Phase::Cancelled,
            Some(Reason::Superseded),
            format!("run {} is newer and takes the place", newer.meta.name),
        );
        return false;
    }
    plan.status.phase = Phase::Pending;
    plan.status.reason = Some(Reason::WaitingForRun);
    plan.status.message = Some(format!("run {} of the same pipeline has not ended", earlier.meta.name));
    false
}

fn advance(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>, pipeline: &FrozenPipeline, cancel: bool) {
    let mut board = Board::new(snapshot, pipeline, cancel).play();
    let all_ended = |stages: &[FrozenStage], board: &Board<'_>| {
        stages.iter().all(|stage| board.states.get(&stage.name).is_some_and(|state| state.phase.is_terminal()))
    };
    let verdict = all_ended(&pipeline.stages, &board).then(|| verdict(snapshot, pipeline, &board, cancel));
    if let Some(verdict) = &verdict {
        board.finish(verdict);
    }
    let ended = board.states.values().filter(|state| state.phase.is_terminal()).count();
    plan.status.progress = Some(format!("{ended}/{}", pipeline.all().count()));
    plan.status.stages = pipeline.all().filter_map(|stage| board.states.get(&stage.name).cloned()).collect();
    let stopping = cancel || board.stopping;
    let over = all_ended(&pipeline.finally, &board);
    plan.actions.extend(std::mem::take(&mut board.actions));
    match verdict {
        Some(verdict) if over => conclude(snapshot, plan, pipeline, verdict),
        Some(_) => {
            plan.status.reason = Some(Reason::Finishing);
            plan.status.message = Some("every stage has ended; those of finally run".to_owned());
        }
        None => {
            plan.status.reason = stopping.then_some(Reason::Stopping);
            plan.status.message = stopping.then(|| "the stages that run are being stopped".to_owned());
        }
    }
}

/// How a run ends, from its stages but for those of `finally`.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    phase: Phase,
    reason: Option<Reason>,
    message: String,
    outputs: Option<Value>,
}

fn verdict(snapshot: &Snapshot, pipeline: &FrozenPipeline, board: &Board<'_>, cancel: bool) -> Verdict {
    let ends = |phase, reason, message: String| Verdict { phase, reason: Some(reason), message, outputs: None };
    if cancel {
        return ends(Phase::Cancelled, Reason::Cancelled, "cancel was asked for".to_owned());
    }
    let has_completed =
        |stage: &FrozenStage| board.states.get(&stage.name).is_some_and(|state| state.phase == Phase::Completed);
    // A failure that another stage waited for, and dealt with.
    let is_handled = |stage: &str| pipeline.handlers(stage).any(has_completed);
    let failed: Vec<String> = pipeline
        .stages
        .iter()
        .filter_map(|stage| board.states.get(&stage.name))
        .filter(|stage| matches!(stage.phase, Phase::Failed | Phase::Cancelled) && !is_handled(&stage.name))
        .map(in_words)
        .collect();
    if !failed.is_empty() {
        return ends(Phase::Failed, Reason::StageFailed, text::some_of(&failed, 4));
    }
    let about = values::pipeline(snapshot, pipeline);
    let stages = values::stages(snapshot, pipeline.stages.iter(), &board.states);
    let scope = Names::new().with(Head::Pipeline, &about).with(Head::Stages, &stages);
    let outputs = Value::Object(pipeline.outputs.clone());
    match resolve(&outputs, &FieldPath::of("spec").key("outputs"), Scope::Outer, &scope, Insert::Plain) {
        Ok(outputs) if outputs.to_string().len() > MAX_OUTPUTS => {
            let message = format!("spec.outputs has more than {MAX_OUTPUTS} bytes: hand on uris, not data");
            ends(Phase::Failed, Reason::InvalidTemplate, message)
        }
        Ok(outputs) => {
            let outputs = (!pipeline.outputs.is_empty()).then_some(outputs);
            Verdict { phase: Phase::Completed, reason: None, message: String::new(), outputs }
        }
        Err(errors) => {
            let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
            ends(Phase::Failed, Reason::ReferenceUnresolved, text::some_of(&words, 4))
        }
    }
}

fn in_words(stage: &StageStatus) -> String {
    let reason = stage.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    let message = stage.message.as_deref().unwrap_or_default();
    format!("stage {} {}{reason}: {message}", stage.name, stage.phase)
}

// What became of the stages of the end is told beside the verdict, and does not change it.
fn conclude(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>, pipeline: &FrozenPipeline, verdict: Verdict) {
    let of_the_end = |state: &&StageStatus| pipeline.finally.iter().any(|stage| stage.name == state.name);
    let failed = |state: &&StageStatus| matches!(state.phase, Phase::Failed | Phase::Cancelled);
    let unfinished: Vec<String> = plan.status.stages.iter().filter(of_the_end).filter(failed).map(in_words).collect();
    let mut message = verdict.message;
    if !unfinished.is_empty() {
        let words = format!("of finally: {}", text::some_of(&unfinished, 4));
        let event = Event { warning: true, reason: Reason::StageFailed, message: text::message(words.clone()) };
        plan.events.push(event);
        message = if message.is_empty() { words } else { format!("{message}; {words}") };
    }
    plan.status.outputs = verdict.outputs;
    end(snapshot, plan, verdict.phase, verdict.reason, message);
}

fn wait(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>, reason: Reason, message: String) {
    let longest = snapshot
        .pipeline
        .as_ref()
        .map_or_else(|| settings::timeouts(&Value::Null).template, |pipeline| frozen::template_timeout(&pipeline.spec));
    let deadline = snapshot.run.meta.created.map_or(snapshot.now, |created| time::after(created, longest));
    if snapshot.now >= deadline {
        return fail(snapshot, plan, reason, format!("{message}; gave up after {}", time::human(longest)));
    }
    plan.status.phase = Phase::Pending;
    plan.status.reason = Some(reason);
    plan.status.message = Some(text::message(message));
    plan.wake(deadline);
}

fn fail(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>, reason: Reason, message: impl Into<String>) {
    end(snapshot, plan, Phase::Failed, Some(reason), message);
}

fn end(
    snapshot: &Snapshot,
    plan: &mut Plan<PipelineRunStatus>,
    phase: Phase,
    reason: Option<Reason>,
    message: impl Into<String>,
) {
    let message = text::message(message);
    plan.status.phase = phase;
    plan.status.reason = reason;
    plan.status.message = (!message.is_empty()).then(|| message.clone());
    plan.status.finished_at = Some(time::stamp(snapshot.now));
    // A good end is told by the status; an event would be one more write per stage.
    if phase == Phase::Failed {
        plan.events.push(Event { warning: true, reason: reason.unwrap_or(Reason::Error), message });
    }
    plan.urge(Urgency::Now);
}

fn set_conditions(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) {
    let status = &mut plan.status;
    let (phase, reason) = (status.phase, status.reason);
    let message = status.message.clone().unwrap_or_default();
    let mut set = Conditions::new(&mut status.conditions, snapshot.run.meta.generation, snapshot.now);
    match phase {
        Phase::Completed => {
            set.set(kind::READY, true, Reason::Succeeded, "").set(kind::COMPLETE, true, Reason::Succeeded, message);
            set.clear(kind::RECONCILING).clear(kind::STALLED);
        }
        phase if phase.is_terminal() => {
            let reason = reason.unwrap_or(Reason::Error);
            set.set(kind::READY, false, reason, message.clone()).set(kind::FAILED, true, reason, message.clone());
            set.set(kind::STALLED, true, reason, message).clear(kind::RECONCILING);
        }
        _ => {
            let reason = reason.unwrap_or(Reason::Running);
            set.set(kind::READY, false, reason, message.clone()).set(kind::RECONCILING, true, reason, message);
            set.clear(kind::STALLED);
        }
    }
}

/// Whether a failure stops the stages that do not depend on it.
fn stops(pipeline: &FrozenPipeline) -> bool {
    pipeline.on_failure == OnFailure::Stop
}

/// A run's parameters: the pipeline's defaults, with the run's own in their place.
fn params(pipeline: &Value, run: &Value) -> Map<String, Value> {
    let mut params = super::object(pipeline.get("params"));
    params.extend(super::object(run.get("params")));
    params
}
