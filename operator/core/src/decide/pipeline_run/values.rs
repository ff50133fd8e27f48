//! What outer references read: the pipeline, and what its stages have brought so far.
//!
//! Comes in: the frozen pipeline, the experiments of the run, how the stages stand. Goes out: JSON, built for those stages
//! only that somebody reads.

use cultivar_crds::{MembersStatus, Phase, StageStatus};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::{FrozenPipeline, FrozenStage, Snapshot};
use crate::domain::{ExperimentRecord, Member, ranges};

/// The value of `pipeline`.
pub fn pipeline(snapshot: &Snapshot, pipeline: &FrozenPipeline) -> Value {
    let name = snapshot.run.spec.get("pipeline").cloned().unwrap_or_default();
    json!({"name": name, "params": pipeline.params, "run": snapshot.run.meta.name})
}

/// The value of `stages`, of those of `named` that have ended.
pub fn stages<'a>(
    snapshot: &Snapshot,
    named: impl Iterator<Item = &'a FrozenStage>,
    states: &BTreeMap<String, StageStatus>,
) -> Value {
    let ended = named.filter_map(|stage| Some((stage, states.get(&stage.name)?)));
    let ended = ended.filter(|(_, state)| state.phase.is_terminal());
    Value::Object(ended.map(|(stage, state)| (stage.name.clone(), stage_value(snapshot, stage, state))).collect())
}

fn stage_value(snapshot: &Snapshot, stage: &FrozenStage, state: &StageStatus) -> Value {
    if stage.fan_out.is_some() {
        return fan_out(snapshot, state);
    }
    // What has ended without an experiment has a phase too, and nothing else.
    let known = snapshot.experiments.get(&Member::stage(&stage.name));
    match known.filter(|experiment| experiment.status.phase.is_terminal()) {
        Some(experiment) => experiment_value(experiment),
        None => json!({"phase": state.phase, "metrics": {}, "artifacts": {}}),
    }
}

fn experiment_value(experiment: &ExperimentRecord) -> Value {
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

/// How each member has ended, as recorded; by index.
pub fn ends(recorded: &MembersStatus) -> BTreeMap<u32, Phase> {
    let ends = &recorded.ends;
    let sets = [
        (Phase::Completed, &ends.completed),
        (Phase::Failed, &ends.failed),
        (Phase::Cancelled, &ends.cancelled),
        (Phase::Skipped, &ends.skipped),
    ];
    let last = recorded.total.saturating_sub(1);
    sets.into_iter().flat_map(|(phase, set)| ranges::parse(set, last).map(move |index| (index, phase))).collect()
}

// `members` has them all; `metrics` and `artifacts` have lists of what those that completed have brought.
fn fan_out(snapshot: &Snapshot, state: &StageStatus) -> Value {
    let ends = state.members.as_ref().map(ends).unwrap_or_default();
    let (mut members, mut metrics, mut artifacts) = (Vec::with_capacity(ends.len()), json!({}), json!({}));
    for (index, phase) in ends {
        let experiment = snapshot.experiments.get(&Member::of(&state.name, index));
        let mut member = match experiment {
            Some(experiment) => experiment_value(experiment),
            None => json!({"metrics": {}, "artifacts": {}}),
        };
        if phase == Phase::Completed {
            gather(&member["metrics"], &mut metrics);
            gather(&member["artifacts"], &mut artifacts);
        }
        member["index"] = index.into();
        member["phase"] = phase.as_str().into();
        let params = experiment.and_then(|experiment| experiment.spec.get("params").cloned());
        member["params"] = params.unwrap_or_else(|| json!({}));
        members.push(member);
    }
    json!({"phase": state.phase, "members": members, "metrics": metrics, "artifacts": artifacts})
}

// {acc: {max: 1}} into {acc: {max: [0, 1]}}.
fn gather(values: &Value, lists: &mut Value) {
    for (name, fields) in values.as_object().into_iter().flatten() {
        for (field, value) in fields.as_object().into_iter().flatten() {
            match &mut lists[name][field] {
                Value::Array(list) => list.push(value.clone()),
                first => *first = json!([value]),
            }
        }
    }
}
