//! How a run ends.
//!
//! Comes in: the board when every stage has ended, or what ended the run from outside. Goes out: phase, reason, message and
//! outputs.

use cultivar_crds::{CancelMode, Phase, PipelineRunStatus, Reason, StageStatus};
use serde_json::Value;

use super::board::Board;
use super::{FrozenPipeline, FrozenStage, Snapshot, end, values};
use crate::decide::{Event, Plan};
use crate::domain::text;
use crate::refs::{FieldPath, Head, Insert, Names, Scope, resolve};

/// Most bytes of a run's outputs as JSON: the status holds the frozen pipeline too.
const MAX_OUTPUTS: usize = 64 * 1024;

/// How a run ends, from its stages but for those of `finally`.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The phase that it ends in.
    pub phase: Phase,
    /// Why.
    pub reason: Option<Reason>,
    /// The particulars.
    pub message: String,
    /// Its outputs.
    pub outputs: Option<Value>,
}

/// What ends a run from outside of its stages.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// The phase that it ends in.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// The particulars.
    pub message: String,
    /// What becomes of what runs, and of `finally`.
    pub mode: CancelMode,
}

/// How a run ends whose stages have all ended; `ending` is what ended it from outside.
pub fn verdict(snapshot: &Snapshot, pipeline: &FrozenPipeline, board: &Board<'_>, ending: Option<&Ending>) -> Verdict {
    let ends = |phase, reason, message: String| Verdict { phase, reason: Some(reason), message, outputs: None };
    if let Some(ending) = ending {
        return ends(ending.phase, ending.reason, ending.message.clone());
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
    let outputs = Value::Object(pipeline.outputs.clone());
    let stages = values::stages(snapshot, pipeline.stages.iter(), &board.states, &values::uses(&outputs));
    let scope = Names::new().with(Head::Pipeline, &about).with(Head::Stages, &stages);
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

/// Ends a run. What became of the stages of the end is told beside the verdict, and does not change it.
pub fn conclude(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>, pipeline: &FrozenPipeline, verdict: Verdict) {
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
