//! The board: where every stage of a run stands, and which stages start now.
//!
//! Comes in: the frozen pipeline and the experiments of the run. Goes out: one state per stage and the
//! actions. A stage starts only when every stage that it needs has come to the end that it waits for, and its `when`
//! holds.

use cultivar_crds::{ExperimentStatus, Phase, Reason, StageStatus, Until};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::texts::as_texts;
use super::{FrozenPipeline, FrozenStage, Snapshot, Verdict, stops};
use crate::decide::{Action, NewStage};
use crate::domain::{ExperimentRecord, names, text};
use crate::refs::{FieldPath, Head, Insert, Names, Scope, eval_bool, resolve};

/// Values that outer references read.
pub struct OuterNames {
    /// `pipeline`.
    pub pipeline: Value,
    /// `stages`.
    pub stages: Value,
}

/// What the stages of a run have brought so far, by name.
pub fn outer_names(snapshot: &Snapshot, pipeline: &FrozenPipeline) -> OuterNames {
    let name = snapshot.run.spec.get("pipeline").cloned().unwrap_or_default();
    let mut stages = Map::new();
    for (stage, experiment) in &snapshot.stages {
        if experiment.status.phase.is_terminal() {
            stages.insert(stage.clone(), values_of(experiment));
        }
    }
    OuterNames {
        pipeline: json!({"name": name, "params": pipeline.params, "run": snapshot.run.meta.name}),
        stages: Value::Object(stages),
    }
}

fn values_of(experiment: &ExperimentRecord) -> Value {
    let status = &experiment.status;
    let artifacts: Map<String, Value> = status
        .artifacts
        .iter()
        .map(|artifact| (artifact.name.clone(), serde_json::to_value(artifact).unwrap_or_default()))
        .collect();
    json!({
        "experiment": experiment.meta.name,
        "phase": status.phase,
        "metrics": status.metrics,
        "artifacts": artifacts,
    })
}

/// Where every stage stands.
pub struct Board<'a> {
    snapshot: &'a Snapshot,
    pipeline: &'a FrozenPipeline,
    cancel: bool,
    names: OuterNames,
    /// By name.
    pub states: BTreeMap<String, StageStatus>,
    /// In the pipeline's order.
    pub actions: Vec<Action>,
    /// Whether a failure stops the rest.
    pub stopping: bool,
}

impl<'a> Board<'a> {
    /// An empty board.
    pub fn new(snapshot: &'a Snapshot, pipeline: &'a FrozenPipeline, cancel: bool) -> Self {
        let names = outer_names(snapshot, pipeline);
        Self { snapshot, pipeline, cancel, names, states: BTreeMap::new(), actions: Vec::new(), stopping: false }
    }

    /// Finds where every stage stands; starts what can start, ends what must end.
    pub fn play(mut self) -> Self {
        for stage in &self.pipeline.stages {
            if let Some(state) = self.observed(stage) {
                self.states.insert(stage.name.clone(), state);
            }
        }
        // A failure that another stage waits for is dealt with there.
        let unexpected =
            |state: &StageStatus| state.phase == Phase::Failed && self.pipeline.handlers(&state.name).next().is_none();
        self.stopping = stops(self.pipeline) && self.states.values().any(unexpected);
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
        if self.cancel || self.stopping {
            let of_the_end: Vec<&str> = self.pipeline.finally.iter().map(|stage| stage.name.as_str()).collect();
            self.actions.extend(stragglers(self.snapshot, &of_the_end));
        }
        self
    }

    /// The stages of the end, once all others have ended as `verdict` says.
    pub fn finish(&mut self, verdict: &Verdict) {
        self.names.pipeline["phase"] = verdict.phase.as_str().into();
        self.names.pipeline["message"] = verdict.message.clone().into();
        for stage in &self.pipeline.finally {
            let state = match self.observed(stage) {
                Some(state) => state,
                None => self.start(stage),
            };
            self.states.insert(stage.name.clone(), state);
        }
    }

    fn observed(&mut self, stage: &FrozenStage) -> Option<StageStatus> {
        if let Some(experiment) = self.snapshot.stages.get(&stage.name) {
            return Some(summary(stage, experiment));
        }
        let recorded = self.snapshot.run.status.stages.iter().find(|recorded| recorded.name == stage.name)?;
        if recorded.phase.is_terminal() {
            // Also one that was skipped, refused or cancelled without an experiment: a `when` that
            // reads what is deleted by now must not be asked again.
            return Some(recorded.clone());
        }
        recorded.experiment.as_ref()?;
        if self.snapshot.confirmed_gone.contains(&stage.name) {
            let message = format!(
                "experiment {} was deleted before it ended",
                recorded.experiment.as_deref().unwrap_or_default()
            );
            return Some(StageStatus {
                experiment: recorded.experiment.clone(),
                ..failed(&stage.name, Reason::ExperimentDeleted, message)
            });
        }
        self.actions.push(Action::ConfirmStage {
            stage: stage.name.clone(),
            experiment: recorded.experiment.clone().unwrap_or_default(),
        });
        Some(recorded.clone())
    }

    fn settle(&mut self, stage: &FrozenStage) -> StageStatus {
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
            return state(
                &stage.name,
                Phase::Cancelled,
                Reason::Cancelled,
                "the run was cancelled before the stage started",
            );
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
        if let Some(refusal) = self.snapshot.refusals.get(&stage.name) {
            return failed(
                &stage.name,
                Reason::InvalidTemplate,
                format!("the API server refuses the experiment: {refusal}"),
            );
        }
        let known = self.known_to(stage);
        let names = Names::new().with(Head::Pipeline, &self.names.pipeline).with(Head::Stages, &known);
        match stage.when.as_deref().map(|when| eval_bool(when, &names)) {
            Some(Err(error)) => return failed(&stage.name, Reason::ReferenceUnresolved, format!("when: {error}")),
            Some(Ok(false)) => {
                let when = stage.when.as_deref().unwrap_or_default();
                return state(&stage.name, Phase::Skipped, Reason::ConditionFalse, format!("when is false: {when}"));
            }
            Some(Ok(true)) | None => {}
        }
        let at = FieldPath::of("stages").key(&stage.name);
        match resolve(&stage.template, &at, Scope::Outer, &names, Insert::Escaped) {
            Err(errors) => {
                let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
                failed(&stage.name, Reason::ReferenceUnresolved, text::some_of(&words, 4))
            }
            Ok(spec) => {
                let run = &self.snapshot.run.meta;
                let name = names::stage_experiment(&run.name, &run.uid, &stage.name);
                let pipeline = self.snapshot.run.spec.get("pipeline").and_then(Value::as_str).unwrap_or_default();
                self.actions.push(Action::CreateStage(Box::new(NewStage {
                    name: name.clone(),
                    stage: stage.name.clone(),
                    pipeline: pipeline.to_owned(),
                    spec: with_priority(as_texts(spec), self.pipeline.priority),
                    cloned_from: stage.cloned_from.clone(),
                })));
                StageStatus {
                    name: stage.name.clone(),
                    phase: Phase::Pending,
                    experiment: Some(name),
                    ..StageStatus::default()
                }
            }
        }
    }
}

fn with_priority(mut spec: Value, priority: Option<i32>) -> Value {
    if let Some(priority) = priority {
        spec["priority"] = priority.into();
    }
    spec
}

impl Board<'_> {
    // What has ended without an experiment has a phase too, and nothing else.
    fn known_to(&self, stage: &FrozenStage) -> Value {
        let mut known = self.names.stages.clone();
        let of_the_end = self.pipeline.finally.iter().any(|last| last.name == stage.name);
        let is_known = |name: &String| of_the_end || stage.needs.contains(name);
        for (_, state) in self.states.iter().filter(|(name, _)| is_known(name)) {
            if known.get(&state.name).is_none() {
                known[&state.name] = json!({"phase": state.phase, "metrics": {}, "artifacts": {}});
            }
        }
        known
    }
}

/// Asks every experiment of the run that has not ended, and was not asked yet, to end, but for the stages that are spared.
pub fn stragglers(snapshot: &Snapshot, spared: &[&str]) -> Vec<Action> {
    let asked = |experiment: &ExperimentRecord| experiment.spec.get("cancel").and_then(Value::as_bool).unwrap_or(false);
    let asked_for = snapshot.stages.iter().filter(|(stage, _)| !spared.contains(&stage.as_str()));
    let live = asked_for.map(|(_, experiment)| experiment).filter(|experiment| !experiment.status.phase.is_terminal());
    let live = live.filter(|experiment| !asked(experiment) && !experiment.meta.deleting);
    // One whose end the run has recorded is about to record it itself: the two are written side by side, and
    // a crash in between must not cancel what has completed.
    let counted = |experiment: &ExperimentRecord| {
        let name = Some(&experiment.meta.name);
        snapshot.run.status.stages.iter().any(|stage| stage.experiment.as_ref() == name && stage.phase.is_terminal())
    };
    let live = live.filter(|experiment| !counted(experiment));
    live.map(|experiment| Action::CancelExperiment { name: experiment.meta.name.clone() }).collect()
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

fn summary(stage: &FrozenStage, experiment: &ExperimentRecord) -> StageStatus {
    let (phase, reason, message) = standing(&experiment.status);
    StageStatus {
        name: stage.name.clone(),
        phase,
        experiment: Some(experiment.meta.name.clone()),
        reason,
        message: message.map(str::to_owned),
    }
}

fn state(stage: &str, phase: Phase, reason: Reason, message: impl Into<String>) -> StageStatus {
    StageStatus {
        name: stage.to_owned(),
        phase,
        experiment: None,
        reason: Some(reason),
        message: Some(text::message(message)),
    }
}

fn failed(stage: &str, reason: Reason, message: String) -> StageStatus {
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
    let passed_on = if reason == Reason::ConditionFalse { reason } else { Reason::StageFailed };
    state(stage, Phase::Skipped, passed_on, message)
}
