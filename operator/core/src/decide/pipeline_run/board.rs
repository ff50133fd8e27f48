//! The board: where every stage of a run stands, and which stages start now.
//!
//! Comes in: the frozen pipeline and the experiments of the run. Goes out: one state per stage and the
//! actions. A stage starts only when every stage that it needs has come to the end that it waits for, and its `when`
//! holds.

use cultivar_crds::{CancelMode, ExperimentStatus, Phase, Reason, StageStatus, Until};
use jiff::Timestamp;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::child::Child;
use super::matrix::Coordinates;
use super::repeat::named;
use super::texts::as_texts;
use super::{FrozenPipeline, FrozenStage, Snapshot, Verdict, fan_out, stops, values};
use crate::decide::{Action, NewStage};
use crate::domain::{Member, names, text};
use crate::refs::{FieldPath, Head, Insert, Names, PathRef, Scope, Segment, eval_bool, resolve};

/// What an experiment or nested run is made for.
pub(super) enum Place<'p> {
    /// The stage itself.
    Alone,
    /// A member of its fan-out: its coordinates, and the value of `matrix`.
    Member(&'p Coordinates, &'p Value),
    /// A turn of its loop: the value of `repeat`.
    Turn(&'p Value),
}

/// Where every stage stands.
pub struct Board<'a> {
    pub(super) snapshot: &'a Snapshot,
    pipeline: &'a FrozenPipeline,
    pub(super) cancel: bool,
    /// How it is stopped, where it is.
    mode: CancelMode,
    /// The value of `pipeline`.
    about: Value,
    /// By name.
    pub states: BTreeMap<String, StageStatus>,
    /// In the pipeline's order.
    pub actions: Vec<Action>,
    /// Whether a failure stops the rest.
    pub stopping: bool,
    /// How many more experiments `maxParallel` allows; nothing: as many as there are.
    pub(super) room: Option<usize>,
    /// When to look again at what is being read.
    pub(super) wake: Option<Timestamp>,
    /// Whether nothing starts for the time being.
    suspended: bool,
    /// Whether the run's deadline ends it, and not a person.
    is_overdue: bool,
}

impl<'a> Board<'a> {
    /// An empty board; of a run that ends, in the way that is said.
    pub fn new(snapshot: &'a Snapshot, pipeline: &'a FrozenPipeline, ends: Option<CancelMode>) -> Self {
        let about = values::pipeline(snapshot, pipeline);
        let (states, actions) = (BTreeMap::new(), Vec::new());
        let suspended = super::is_suspended(snapshot);
        let (cancel, mode) = (ends.is_some(), ends.unwrap_or_default());
        let (stopping, room, is_overdue, wake) = (false, None, false, None);
        Self { snapshot, pipeline, cancel, mode, about, states, actions, stopping, room, wake, suspended, is_overdue }
    }

    /// What does not start does not for the run's deadline.
    pub fn overdue(self) -> Self {
        Self { is_overdue: true, ..self }
    }

    /// Finds where every stage stands; starts what can start, ends what must end.
    pub fn play(mut self) -> Self {
        self.round();
        // A failure that shows only now must stop those too that were settled before it.
        if stops(self.pipeline) && !self.stopping && self.states.values().any(|state| self.is_unexpected(state)) {
            self.stopping = true;
            self.round();
        }
        if self.cancel || self.stopping {
            let of_the_end = self.pipeline.finally.iter().filter(|_| self.mode != CancelMode::SkipFinally);
            let of_the_end: Vec<&str> = of_the_end.map(|stage| stage.name.as_str()).collect();
            let mode = if self.stopping { self.mode.max(CancelMode::RunFinally) } else { self.mode };
            self.actions.extend(stragglers(self.snapshot, mode, &of_the_end));
        }
        self
    }

    // A failure that another stage waits for is dealt with there.
    fn is_unexpected(&self, state: &StageStatus) -> bool {
        state.phase == Phase::Failed && self.pipeline.handlers(&state.name).next().is_none()
    }

    fn round(&mut self) {
        self.states.clear();
        self.actions.clear();
        let live = self.snapshot.children.values().filter(|child| !child.has_ended());
        self.room = self.pipeline.max_parallel.map(|most| (most as usize).saturating_sub(live.count()));
        if self.suspended {
            self.room = Some(0);
        }
        for stage in &self.pipeline.stages {
            if let Some(state) = self.observed(stage) {
                self.states.insert(stage.name.clone(), state);
            }
        }
        self.stopping |= stops(self.pipeline) && self.states.values().any(|state| self.is_unexpected(state));
        // A stage may be declared before those it needs; each round settles at least one more.
        let mut open: Vec<&FrozenStage> =
            self.pipeline.stages.iter().filter(|stage| !self.states.contains_key(&stage.name)).collect();
        while !open.is_empty() {
            let before = open.len();
            open.retain(|stage| {
                let settled = stage.needs.iter().all(|need| self.states.contains_key(need));
                if settled {
                    let state = self.settle(stage);
                    self.states.insert(stage.name.clone(), state);
                }
                !settled
            });
            if open.len() == before {
                break; // a cycle: refused when applied, and the run never ends well without these stages
            }
        }
        for stage in open {
            self.states
                .insert(stage.name.clone(), failed(&stage.name, Reason::Invalid, "the stage needs itself".to_owned()));
        }
    }

    /// The stages of the end, once all others have ended as `verdict` says.
    pub fn finish(&mut self, verdict: &Verdict) {
        self.about["phase"] = verdict.phase.as_str().into();
        self.about["message"] = verdict.message.clone().into();
        // They run whatever has happened to the others, unless somebody does not want them.
        let are_wanted = self.mode != CancelMode::SkipFinally;
        if are_wanted {
            (self.cancel, self.stopping) = (false, false);
        }
        if self.suspended && self.pipeline.max_parallel.is_none() {
            self.room = None;
        }
        for stage in &self.pipeline.finally {
            let state = match self.observed(stage) {
                Some(state) => state,
                None => match self.go_on(stage) {
                    Some(state) => state,
                    None if are_wanted => self.start(stage),
                    None => {
                        state(&stage.name, Phase::Skipped, Reason::Cancelled, "cancelMode of the run is SkipFinally")
                    }
                },
            };
            self.states.insert(stage.name.clone(), state);
        }
    }

    /// What the status says of a stage.
    pub(super) fn recorded(&self, stage: &FrozenStage) -> Option<&'a StageStatus> {
        self.snapshot.run.status.stages.iter().find(|recorded| recorded.name == stage.name)
    }

    /// The members of a stage's fan-out, or the turns of its loop, that are there.
    pub(super) fn children_of(&self, stage: &FrozenStage) -> impl Iterator<Item = (u32, &'a Child)> + use<'a> {
        values::members_of(self.snapshot, &stage.name)
    }

    /// Whether all have ended that a stage was started after: after a crash what was started may be known before that.
    pub(super) fn may_go_on(&self, stage: &FrozenStage) -> bool {
        stage.needs.iter().all(|need| self.states.get(need).is_some_and(|state| state.phase.is_terminal()))
    }

    // A fan-out or a loop that has begun, or a gate that is open.
    fn go_on(&mut self, stage: &FrozenStage) -> Option<StageStatus> {
        if let Some(gate) = &stage.gate {
            let open = self.recorded(stage)?.gate.clone()?;
            return Some(self.gate(stage, gate, open));
        }
        let recorded = self.recorded(stage).is_some_and(|state| state.members.is_some() || state.turn.is_some());
        if !recorded && self.children_of(stage).next().is_none() {
            return None;
        }
        match (&stage.fan_out, &stage.repeat) {
            (Some(fan_out), _) => Some(self.fan_out(stage, fan_out)),
            (None, Some(repeat)) => Some(self.repeat(stage, repeat)),
            (None, None) => None,
        }
    }

    fn observed(&mut self, stage: &FrozenStage) -> Option<StageStatus> {
        if stage.gate.is_some() {
            return self.answered(stage);
        }
        let member = Member::stage(&stage.name);
        if let Some(child) = self.snapshot.children.get(&member) {
            return Some(summary(stage, child));
        }
        let recorded = self.recorded(stage)?;
        if recorded.phase.is_terminal() {
            // Also one that was skipped, refused or cancelled without an experiment: a `when` that
            // reads what is deleted by now must not be asked again.
            return Some(recorded.clone());
        }
        if recorded.turn.is_some() {
            return None;
        }
        let nested = recorded.run.is_some();
        let name = recorded.experiment.as_ref().or(recorded.run.as_ref())?;
        if self.snapshot.confirmed_gone.contains(&member) {
            let what = if nested { "run" } else { "experiment" };
            let message = format!("{what} {name} was deleted before it ended");
            return Some(StageStatus {
                experiment: recorded.experiment.clone(),
                run: recorded.run.clone(),
                ..failed(&stage.name, Reason::ExperimentDeleted, message)
            });
        }
        self.actions.push(Action::ConfirmStage { member, experiment: name.clone(), nested });
        Some(recorded.clone())
    }

    fn settle(&mut self, stage: &FrozenStage) -> StageStatus {
        if let Some(state) = self.go_on(stage) {
            return state;
        }
        let needed = || stage.needs.iter().filter_map(|need| self.states.get(need));
        // A stage that ends because the run is being stopped is no cause: what becomes of those that need it
        // must not depend on which of the two this pass sees first.
        let stopped = |state: &StageStatus| state.phase == Phase::Cancelled && (self.cancel || self.stopping);
        let is_cause = |state: &&StageStatus| {
            state.phase.is_terminal() && !stage.until(&state.name).is_met_by(state.phase) && !stopped(state)
        };
        if let Some(cause) = needed().find(is_cause) {
            return skipped_for(&stage.name, cause, stage.until(&cause.name));
        }
        if self.cancel {
            return self.ended_with_the_run(&stage.name, "started");
        }
        if self.stopping {
            return state(
                &stage.name,
                Phase::Skipped,
                Reason::StageFailed,
                "another stage failed, and onFailure is Stop",
            );
        }
        let waits: Vec<&str> =
            needed().filter(|state| !state.phase.is_terminal()).map(|state| state.name.as_str()).collect();
        if !waits.is_empty() {
            return state(
                &stage.name,
                Phase::Pending,
                Reason::WaitingForStages,
                format!("waits for {}", text::some_of(&waits, 8)),
            );
        }
        self.start(stage)
    }

    fn start(&mut self, stage: &FrozenStage) -> StageStatus {
        let member = Member::stage(&stage.name);
        if let Some(words) = self.refusal(&member) {
            return failed(&stage.name, Reason::InvalidTemplate, words);
        }
        // A gate is no experiment: it takes no room.
        let has_room = self.room != Some(0) || stage.gate.is_some() && !self.suspended;
        if !has_room && stage.when.is_none() && stage.fan_out.is_none() {
            return self.waits_for_room(&stage.name);
        }
        let known = match self.readable_by(stage) {
            Ok(known) => known,
            Err(state) => return *state,
        };
        if !stage.when.as_deref().is_some_and(fan_out::reads_coordinates) {
            match self.is_wanted(stage, &self.names(&known)) {
                Err(words) => return failed(&stage.name, Reason::ReferenceUnresolved, words),
                Ok(false) => return unwanted(stage),
                Ok(true) => {}
            }
        }
        if let Some(fan_out) = &stage.fan_out {
            return self.fan_out(stage, fan_out);
        }
        if !has_room {
            return self.waits_for_room(&stage.name);
        }
        if let Some(gate) = &stage.gate {
            return self.open(stage, gate, &known);
        }
        if let Some(repeat) = &stage.repeat {
            return self.repeat(stage, repeat);
        }
        let made = self.create(stage, &known, member, &Place::Alone);
        made.unwrap_or_else(|words| failed(&stage.name, Reason::ReferenceUnresolved, words))
    }

    /// Why the API server would not take what was to be made for a member, if it would not.
    pub(super) fn refusal(&self, member: &Member) -> Option<String> {
        self.snapshot.refusals.get(member).map(|refusal| format!("the API server refuses it: {refusal}"))
    }

    /// Asks the API server itself for a member or a turn that is recorded and not there.
    pub(super) fn confirm(&mut self, stage: &FrozenStage, member: Member) {
        let experiment = self.experiment_of(&member);
        self.actions.push(Action::ConfirmStage { member, experiment, nested: stage.nested.is_some() });
    }

    /// A stage that had not `started`, or not ended, when the run was ended.
    pub(super) fn ended_with_the_run(&self, stage: &str, started: &str) -> StageStatus {
        let (reason, why) = match self.is_overdue {
            true => (Reason::DeadlineExceeded, "the run's deadline passed"),
            false => (Reason::Cancelled, "the run was cancelled"),
        };
        state(stage, Phase::Cancelled, reason, format!("{why} before the stage {started}"))
    }

    pub(super) fn waits_for_room(&self, stage: &str) -> StageStatus {
        if self.suspended {
            let words = "spec.suspend of the run is true: nothing starts until it is false";
            return state(stage, Phase::Pending, Reason::Suspended, words);
        }
        let most = self.pipeline.max_parallel.unwrap_or_default();
        let words = format!("{most} experiments of the run have not ended, and maxParallel allows no more");
        state(stage, Phase::Pending, Reason::WaitingForMaxParallel, words)
    }

    /// Whether a stage's `when` holds.
    pub(super) fn is_wanted(&self, stage: &FrozenStage, names: &Names<'_>) -> Result<bool, String> {
        let wanted = stage.when.as_deref().map_or(Ok(true), |when| eval_bool(when, names));
        wanted.map_err(|error| format!("when: {error}"))
    }

    /// Has the experiment or the nested run made that stands for a stage, a member of its fan-out or a turn of its loop.
    pub(super) fn create(
        &mut self,
        stage: &FrozenStage,
        known: &Value,
        member: Member,
        place: &Place<'_>,
    ) -> Result<StageStatus, String> {
        let at = FieldPath::of("stages").key(&stage.name);
        let (template, coordinates) = match place {
            Place::Member(coordinates, _) => (Cow::Owned(at_place(stage, coordinates)), Some((*coordinates).clone())),
            Place::Alone | Place::Turn(_) => (Cow::Borrowed(&stage.template), None),
        };
        let names = match place {
            Place::Alone => self.names(known),
            Place::Member(_, matrix) => self.names(known).with(Head::Matrix, matrix),
            Place::Turn(turn) => self.names(known).with(Head::Repeat, turn),
        };
        let name = self.experiment_of(&member);
        let made = StageStatus { name: stage.name.clone(), phase: Phase::Pending, ..StageStatus::default() };
        let (action, made) = if let Some(nested) = &stage.nested {
            let action = self.create_nested(nested, &template, &at, &member, &names)?;
            (action, StageStatus { run: Some(name), ..made })
        } else {
            let spec = resolve(&template, &at, Scope::Outer, &names, Insert::Escaped).map_err(|errors| {
                let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
                text::some_of(&words, 4)
            })?;
            let spec = self.with_cache(as_texts(spec), stage);
            let pipeline = self.snapshot.run.spec.get("pipeline").and_then(Value::as_str).unwrap_or_default();
            let action = Action::CreateStage(Box::new(NewStage {
                name: name.clone(),
                member,
                coordinates,
                pipeline: pipeline.to_owned(),
                spec: with_priority(spec, self.pipeline.priority),
                cloned_from: stage.cloned_from.clone(),
            }));
            (action, StageStatus { experiment: Some(name), ..made })
        };
        self.actions.push(action);
        self.room = self.room.map(|room| room.saturating_sub(1));
        Ok(made)
    }

    // A run that reuses nothing says so to its stages; one that does not even look stays so. What runs at the end, such as a
    // notification, is wanted for what it does, not for what it leaves.
    fn with_cache(&self, mut spec: Value, stage: &FrozenStage) -> Value {
        let own = spec.pointer("/cache/mode").and_then(Value::as_str);
        let of_run = self.snapshot.run.spec.get("cache").and_then(Value::as_str).filter(|_| own != Some("Never"));
        let of_end = (own.is_none() && self.is_last(stage)).then_some("Never");
        if let Some(mode) = of_run.or(of_end).map(str::to_owned) {
            spec["cache"]["mode"] = mode.into();
        }
        spec
    }

    // Whether a stage is one of `finally`.
    fn is_last(&self, stage: &FrozenStage) -> bool {
        self.pipeline.finally.iter().any(|last| last.name == stage.name)
    }

    /// The name of a member's experiment.
    pub(super) fn experiment_of(&self, member: &Member) -> String {
        let run = &self.snapshot.run.meta;
        names::stage_experiment(&run.name, &run.uid, member)
    }

    /// What a stage may read, as the value of `stages`, as far as it does read it.
    pub(super) fn known_to(&self, stage: &FrozenStage, uses: &[PathRef]) -> Value {
        let of_the_end = self.is_last(stage);
        let is_known = |other: &&FrozenStage| of_the_end || stage.needs.contains(&other.name);
        values::stages(self.snapshot, self.pipeline.stages.iter().filter(is_known), &self.states, uses)
    }

    /// The names that a stage's outer references read.
    pub(super) fn names<'n>(&'n self, known: &'n Value) -> Names<'n> {
        Names::new().with(Head::Pipeline, &self.about).with(Head::Stages, known)
    }
}

// The template with the member's coordinates as params, where the stage gives none of that name itself.
fn at_place(stage: &FrozenStage, coordinates: &Coordinates) -> Value {
    let mut template = stage.template.clone();
    let given = stage.fan_out.as_ref().map_or(&[][..], |fan_out| &fan_out.given);
    for axis in coordinates.keys().filter(|axis| !given.contains(axis)) {
        let path = PathRef { head: Head::Matrix, segments: vec![Segment::Key(axis.clone())] };
        template["params"][axis] = Value::String(format!("${{{path}}}"));
    }
    template
}

fn with_priority(mut spec: Value, priority: Option<i32>) -> Value {
    if let Some(priority) = priority {
        spec["priority"] = priority.into();
    }
    spec
}

/// Asks every experiment and nested run of the run that has not ended, and was not asked yet, to end, but for the stages that are spared.
pub fn stragglers(snapshot: &Snapshot, mode: CancelMode, spared: &[&str]) -> Vec<Action> {
    let asked_for = snapshot.children.iter().filter(|(member, _)| !spared.contains(&member.stage.as_str()));
    let live = asked_for.filter(|(_, child)| !child.has_ended() && !child.is_asked_to_end(mode));
    // One whose end the run has recorded is about to record it itself: the two are written side by side, and
    // a crash in between must not cancel what has completed.
    let counted = |member: &Member| {
        let stage = snapshot.run.status.stages.iter().find(|stage| stage.name == member.stage);
        stage.is_some_and(|stage| match (member.index, &stage.members) {
            (Some(index), Some(members)) => values::ends(members).contains_key(&index),
            _ => stage.phase.is_terminal(),
        })
    };
    let live = live.filter(|(member, _)| !counted(member));
    live.filter_map(|(_, child)| child.cancel(mode)).collect()
}

/// How an experiment stands, as its run tells it: phase, reason and message.
///
/// What passes by in a moment (placing, pulling, starting) stays in the experiment: the run would be written for each.
#[must_use]
pub fn standing(status: &ExperimentStatus) -> (Phase, Option<Reason>, Option<&str>) {
    let told = (status.reason, status.message.as_deref());
    match (status.phase, status.reason) {
        (phase, _) if phase.is_terminal() => (phase, told.0, told.1),
        (Phase::Pending | Phase::Queued, _) => (status.phase, told.0, told.1),
        (_, None | Some(Reason::WaitingForContainer | Reason::WaitingForNode)) => (Phase::Running, None, None),
        (_, Some(_)) => (Phase::Running, told.0, told.1),
    }
}

/// A stage that its `when` leaves out.
pub(super) fn unwanted(stage: &FrozenStage) -> StageStatus {
    let when = stage.when.as_deref().unwrap_or_default();
    state(&stage.name, Phase::Skipped, Reason::ConditionFalse, format!("when is false: {when}"))
}

/// A stage as what stands for it stands.
pub(super) fn summary(stage: &FrozenStage, child: &Child) -> StageStatus {
    let (phase, reason, message) = child.standing();
    let message = message.map(str::to_owned);
    named(StageStatus { name: stage.name.clone(), phase, reason, message, ..StageStatus::default() }, child)
}

pub(super) fn state(stage: &str, phase: Phase, reason: Reason, message: impl Into<String>) -> StageStatus {
    StageStatus {
        name: stage.to_owned(),
        phase,
        reason: Some(reason),
        message: Some(text::message(message)),
        ..StageStatus::default()
    }
}

pub(super) fn failed(stage: &str, reason: Reason, message: String) -> StageStatus {
    state(stage, Phase::Failed, reason, message)
}

// The name of the cause travels down: the last stage of a long chain says which one failed.
fn skipped_for(stage: &str, cause: &StageStatus, until: Until) -> StageStatus {
    if until != Until::Completed {
        let message = format!("waited for stage {} to be {until:?}, and it is {}", cause.name, cause.phase);
        return state(stage, Phase::Skipped, Reason::ConditionFalse, message);
    }
    let reason = cause.reason.unwrap_or(Reason::StageFailed);
    let message = match (cause.phase, cause.reason, cause.message.as_deref()) {
        (Phase::Skipped, Some(Reason::StageFailed), Some(message)) => message.to_owned(),
        (Phase::Skipped, Some(Reason::ConditionFalse), Some(message)) if message.starts_with("stage ") => {
            message.to_owned()
        }
        (Phase::Skipped, _, _) => format!("stage {} was skipped ({reason})", cause.name),
        (phase, _, _) => format!("stage {} {phase} ({reason})", cause.name),
    };
    let passed_on = if cause.phase == Phase::Skipped { reason } else { Reason::StageFailed };
    state(stage, Phase::Skipped, passed_on, message)
}
