//! Kind PipelineRun: freeze the pipeline, wait for the turn, start stages the moment they can, conclude.
//!
//! Comes in: [`Snapshot`]. Goes out: a plan; stages start from what is frozen in the run's status, so
//! that nothing that changes outside changes the run.

mod board;
mod child;
mod contents;
mod expiry;
mod fan_out;
mod freezing;
mod frozen;
mod gate;
mod matrix;
mod nested;
mod repeat;
mod resume;
mod texts;
mod turn;
mod values;
mod verdict;

pub use board::standing;
pub use child::Child;
pub use frozen::{FrozenPipeline, FrozenStage, queries};
pub use matrix::{Coordinates, FanOut};
pub use resume::take_over;
pub use turn::GroupRun;

use cultivar_crds::{CancelMode, OnFailure, Phase, PipelineRunStatus, Reason, StageStatus, labels};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::freeze::Sources;
use super::{Event, Plan, Urgency, restore};
use crate::domain::conditions::{Conditions, kind};
use crate::domain::{ApprovalRecord, Errands, Member, Meta, PipelineRecord, RunRecord, Stores, settings, text, time};
use board::Board;
use freezing::freeze;
use verdict::{Ending, Verdict, conclude, verdict};

/// Everything that deciding about one run looks at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The run.
    pub run: RunRecord,
    /// Its pipeline.
    pub pipeline: Option<Arc<PipelineRecord>>,
    /// What the stages' `from` may mean; needed until the run is frozen.
    pub sources: Sources,
    /// The run that this one resumes.
    pub resumed: Option<Arc<RunRecord>>,
    /// The other unfinished runs of its concurrency group, but for those that it is part of.
    pub group: Vec<GroupRun>,
    /// The other runs of the pipeline.
    pub siblings: Vec<Arc<RunRecord>>,
    /// The run's experiments and nested runs, by what they stand for; of a run that it resumes those that completed: see
    /// [`take_over`].
    pub children: BTreeMap<Member, Child>,
    /// Those that, recorded before, the API server itself says are gone.
    pub confirmed_gone: BTreeSet<Member>,
    /// What was said about its gates.
    pub approvals: Vec<Arc<ApprovalRecord>>,
    /// The stores of the namespace, and the operator's own.
    pub stores: Stores,
    /// How what was read for the run went so far.
    pub errands: Errands,
    /// Whether registries are asked what tags stand for.
    pub resolve_images: bool,
    /// Why the API server would not take one.
    pub refusals: BTreeMap<Member, String>,
    /// Whether its pipeline, where there is one, knows without it what it was made for: see [`super::pipeline::remembers`].
    pub remembered: bool,
    /// Its experiments that something names in `from`; known once it has ended.
    pub in_use: Vec<String>,
    /// The time.
    pub now: Timestamp,
}

/// After this the pipeline that made a run has been seen, or is gone: watches begin one after the other.
const SEEN_BY_THEN: Duration = Duration::from_secs(20);

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
        plan.actions.extend(board::stragglers(snapshot, CancelMode::default(), &[]));
        note_verdict(snapshot, &mut plan);
        expiry::tend(snapshot, &mut plan);
    } else if !come_back(snapshot, &mut plan) {
        live(snapshot, &mut plan);
        note_verdict(snapshot, &mut plan);
    }
    set_conditions(snapshot, &mut plan);
    plan
}

/// What a run's verdict can do without, the first first.
const DISPENSABLE: [&str; 3] = ["pipelineSpec", "stages", "outputs"];

fn note_verdict(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) {
    if !plan.status.phase.is_terminal() {
        return;
    }
    let ended = time::read(plan.status.finished_at.as_deref()).unwrap_or(snapshot.now);
    let essence = |status: &PipelineRunStatus| PipelineRunStatus {
        observed_generation: None,
        conditions: Vec::new(),
        ..status.clone()
    };
    let about = (&snapshot.run.meta, &*snapshot.run.spec);
    restore::note(plan, about, (essence, &DISPENSABLE), (ended, snapshot.now));
}

// A run that has lost its status is what its verdict says, and starts nothing.
fn come_back(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) -> bool {
    let has_a_status = plan.status.pipeline_spec.is_some() || plan.status.started_at.is_some();
    let noted = || restore::of::<PipelineRunStatus>(&snapshot.run.meta, &snapshot.run.spec);
    let Some(was) = noted().filter(|was| !has_a_status && was.phase.is_terminal()) else { return false };
    let message = Some(text::message(restore::words(was.message.clone())));
    let observed_generation = plan.status.observed_generation;
    plan.status = PipelineRunStatus { observed_generation, message, ..was };
    plan.urge(Urgency::Now);
    true
}

fn live(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) {
    let may_be_missed = snapshot.pipeline.is_none() && is_made(&snapshot.run.meta);
    if let Some(created) = snapshot.run.meta.created.filter(|_| may_be_missed) {
        let look_again = time::after(created, SEEN_BY_THEN);
        if look_again > snapshot.now {
            plan.wake(look_again);
        }
    }
    let ending = asked_to_end(snapshot);
    // Stages are made before the status that says so is stored: a crash in between unstarts nothing.
    let own = |child: &Child| child.meta().is_owned_by(&snapshot.run.meta.uid);
    let started = plan.status.started_at.is_some() || snapshot.children.values().any(own);
    if let Some(ending) = ending.as_ref().filter(|_| !started) {
        return end(snapshot, plan, ending.phase, Some(ending.reason), ending.message.clone());
    }
    let Some(frozen) = &plan.status.pipeline_spec else {
        return freeze(snapshot, plan);
    };
    let pipeline = match FrozenPipeline::deserialize(frozen) {
        Ok(pipeline) => pipeline,
        Err(error) => return fail(snapshot, plan, Reason::Invalid, format!("status.pipelineSpec: {error}")),
    };
    if !started && !may_begin(snapshot, plan) {
        return;
    }
    begin(snapshot, plan);
    advance(snapshot, plan, &pipeline, ending);
}

// Whoever asks for the end of a run, or takes its place.
fn asked_to_end(snapshot: &Snapshot) -> Option<Ending> {
    if let Some(mode) = child::cancel_mode(&snapshot.run.spec) {
        let message = "cancel was asked for".to_owned();
        return Some(Ending { phase: Phase::Cancelled, reason: Reason::Cancelled, message, mode });
    }
    if let Some(ending) = lost_its_pipeline(snapshot) {
        return Some(ending);
    }
    let newer = turn::replaced_by(snapshot)?;
    let message = format!("run {} is newer, and concurrencyPolicy is Replace", newer.meta.name);
    Some(Ending { phase: Phase::Cancelled, reason: Reason::Superseded, message, mode: CancelMode::default() })
}

// Whether a pipeline or a schedule made the run, and no person.
fn is_made(meta: &Meta) -> bool {
    meta.label(labels::REVISION).is_some() || meta.label(labels::SCHEDULE).is_some()
}

// What a pipeline or a schedule made is not wanted any more when the pipeline is deleted; who makes a run by hand wants it.
fn lost_its_pipeline(snapshot: &Snapshot) -> Option<Ending> {
    let meta = &snapshot.run.meta;
    let gone = match &snapshot.pipeline {
        Some(pipeline) => pipeline.meta.deleting,
        // What was made a moment ago may be seen before the pipeline that made it.
        None => meta.created.is_none_or(|created| time::after(created, SEEN_BY_THEN) <= snapshot.now),
    };
    (gone && is_made(meta)).then(|| {
        let name = snapshot.run.spec.get("pipeline").and_then(Value::as_str).unwrap_or_default();
        let message = format!("pipeline {name} was deleted");
        Ending { phase: Phase::Cancelled, reason: Reason::PipelineDeleted, message, mode: CancelMode::default() }
    })
}

fn is_suspended(snapshot: &Snapshot) -> bool {
    snapshot.run.spec.get("suspend").and_then(Value::as_bool).unwrap_or(false)
}

// A suspended run keeps its place in the line, and does not begin.
fn may_begin(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) -> bool {
    if !turn::is_its_turn(snapshot, plan) {
        return false;
    }
    let (reason, message) = if is_suspended(snapshot) {
        (Reason::Suspended, "spec.suspend is true: nothing starts until it is false".to_owned())
    } else {
        match turn::place_in_group(snapshot, plan) {
            Ok(place) => {
                plan.actions.extend(place);
                return true;
            }
            Err(message) => (Reason::WaitingForGroup, message),
        }
    };
    plan.status.phase = Phase::Pending;
    plan.status.reason = Some(reason);
    plan.status.message = Some(text::message(message));
    false
}

fn begin(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) {
    plan.status.phase = Phase::Running;
    if plan.status.started_at.is_none() {
        plan.status.started_at = Some(time::stamp(snapshot.now));
        // Whoever decides about the next run of the pipeline must find it, also after a crash.
        plan.urge(Urgency::Now);
    }
}

fn advance(
    snapshot: &Snapshot,
    plan: &mut Plan<PipelineRunStatus>,
    pipeline: &FrozenPipeline,
    mut ending: Option<Ending>,
) {
    let all_ended = |stages: &[FrozenStage], board: &Board<'_>| {
        stages.iter().all(|stage| board.states.get(&stage.name).is_some_and(|state| state.phase.is_terminal()))
    };
    let mut board = Board::new(snapshot, pipeline, ending.as_ref().map(|ending| ending.mode)).play();
    // What goes on to its end has no longer than the run.
    let may_go_on = ending.as_ref().is_none_or(|ending| ending.mode == CancelMode::FinishRunning);
    if let Some(deadline) = deadline(pipeline, plan).filter(|_| may_go_on) {
        if snapshot.now < deadline.moment {
            plan.wake(deadline.moment);
        } else if !(all_ended(&pipeline.stages, &board) && ended_before(snapshot, &board, deadline.moment)) {
            ending = Some(deadline.ending());
            board = Board::new(snapshot, pipeline, Some(CancelMode::default())).overdue().play();
        }
    }
    let verdict = all_ended(&pipeline.stages, &board).then(|| verdict(snapshot, pipeline, &board, ending.as_ref()));
    let stopping = ending.is_some() || board.stopping;
    if let Some(verdict) = &verdict {
        board.finish(verdict);
    }
    // What follows a gate starts from what the run has recorded of it, and not from an object that may be gone by then.
    if board.answers_a_gate() {
        plan.status.stages = pipeline.all().filter_map(|stage| board.recorded_or_answered(stage)).collect();
        plan.urge(Urgency::First);
        return plan.wake(snapshot.now);
    }
    if board.opens_a_gate() {
        plan.urge(Urgency::Now);
    }
    let ended = board.states.values().filter(|state| state.phase.is_terminal()).count();
    plan.status.progress = Some(format!("{ended}/{}", pipeline.all().count()));
    plan.status.stages = pipeline.all().filter_map(|stage| board.told(stage)).collect();
    let over = all_ended(&pipeline.finally, &board);
    plan.actions.extend(std::mem::take(&mut board.actions));
    board.wake.into_iter().for_each(|moment| plan.wake(moment));
    match verdict {
        Some(verdict) if over => conclude(snapshot, plan, pipeline, verdict),
        Some(_) => {
            plan.status.reason = Some(Reason::Finishing);
            plan.status.message = Some("every stage has ended; those of finally run".to_owned());
        }
        None => {
            (plan.status.reason, plan.status.message) = match (stopping, is_suspended(snapshot)) {
                (true, _) => {
                    let goes_on =
                        !board.stopping && ending.is_some_and(|ending| ending.mode == CancelMode::FinishRunning);
                    let words = if goes_on {
                        "the stages that run go on to their end, and no other starts"
                    } else {
                        "the stages that run are being stopped"
                    };
                    (Some(Reason::Stopping), Some(words.to_owned()))
                }
                (false, true) => {
                    (Some(Reason::Suspended), Some("no stage starts until spec.suspend is false".to_owned()))
                }
                (false, false) => gate::told(&plan.status.stages),
            };
        }
    }
}

/// When a run has run for too long.
struct Deadline {
    moment: Timestamp,
    longest: Duration,
}

impl Deadline {
    fn ending(&self) -> Ending {
        let message = format!("the run took longer than {}", time::human(self.longest));
        Ending { phase: Phase::Failed, reason: Reason::DeadlineExceeded, message, mode: CancelMode::default() }
    }
}

fn deadline(pipeline: &FrozenPipeline, plan: &Plan<PipelineRunStatus>) -> Option<Deadline> {
    let longest = time::parse_duration(pipeline.run_timeout.as_deref()?).ok()?;
    let started = time::read(plan.status.started_at.as_deref())?;
    Some(Deadline { moment: time::after(started, longest), longest })
}

// A run is late only if something of it ended after the deadline, or was ended for it.
fn ended_before(snapshot: &Snapshot, board: &Board<'_>, deadline: Timestamp) -> bool {
    let in_time = |child: &Child| child.finished().is_none_or(|finished| finished <= deadline);
    let given_up =
        |stage: &StageStatus| stage.phase == Phase::Cancelled && stage.reason == Some(Reason::DeadlineExceeded);
    let of_the_end = |member: &Member| {
        let stages = snapshot.run.status.pipeline_spec.as_ref().and_then(|spec| spec["finally"].as_array());
        stages.into_iter().flatten().any(|stage| stage["name"] == member.stage.as_str())
    };
    let mut children = snapshot.children.iter().filter(|(member, _)| !of_the_end(member));
    children.all(|(_, child)| in_time(child))
        && board.gates_ended_by(deadline)
        && !snapshot.run.status.stages.iter().any(given_up)
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
