//! What outer references read: the pipeline, and what its stages have brought so far.
//!
//! Comes in: the frozen pipeline, the experiments of the run, how the stages stand. Goes out: JSON, built for those stages
//! only that somebody reads.

use cultivar_crds::{MembersStatus, Phase, StageStatus, labels};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::{Child, FrozenPipeline, FrozenStage, Snapshot};
use crate::domain::{Member, RunRecord, ranges};
use crate::refs::{FieldPath, Head, PathRef, scan};

/// The value of `pipeline`.
pub fn pipeline(snapshot: &Snapshot, pipeline: &FrozenPipeline) -> Value {
    let name = snapshot.run.spec.get("pipeline").cloned().unwrap_or_default();
    let time = time_of(&snapshot.run).or_else(|| snapshot.resumed.as_deref().and_then(time_of));
    let time = time.or_else(|| snapshot.run.meta.created.map(|created| created.to_string()));
    json!({"name": name, "params": pipeline.params, "run": snapshot.run.meta.name, "scheduledTime": time})
}

/// The time that a run is for, where somebody has said so: in its spec, which does not change, or whoever made it.
pub fn time_of(run: &RunRecord) -> Option<String> {
    let said = run.spec.get("scheduledTime").and_then(Value::as_str).map(str::to_owned);
    said.or_else(|| run.meta.annotations.get(labels::SCHEDULED_TIME).cloned())
}

/// What the references in a value read.
pub fn uses(value: &Value) -> Vec<PathRef> {
    let found = scan(value, &FieldPath::root());
    found.iter().filter_map(|(_, reference)| reference.as_ref().ok()).flat_map(|found| found.uses().to_vec()).collect()
}

/// The value of `stages`, of those of `named` that have ended; of a fan-out what `uses` reads of it, for there may be ten
/// thousand members.
pub fn stages<'a>(
    snapshot: &Snapshot,
    named: impl Iterator<Item = &'a FrozenStage>,
    states: &BTreeMap<String, StageStatus>,
    uses: &[PathRef],
) -> Value {
    let ended = named.filter_map(|stage| Some((stage, states.get(&stage.name)?)));
    let ended = ended.filter(|(_, state)| state.phase.is_terminal());
    Value::Object(ended.map(|(stage, state)| (stage.name.clone(), stage_value(snapshot, stage, state, uses))).collect())
}

fn stage_value(snapshot: &Snapshot, stage: &FrozenStage, state: &StageStatus, uses: &[PathRef]) -> Value {
    if stage.fan_out.is_some() {
        return fan_out(snapshot, stage, state, uses);
    }
    if stage.gate.is_some() {
        return gate(state);
    }
    let member = match state.turn {
        Some(turn) => Member::of(&stage.name, turn.saturating_sub(1)),
        None => Member::stage(&stage.name),
    };
    let child = snapshot.children.get(&member).filter(|child| child.has_ended());
    let mut value = child.map_or_else(|| nothing(stage.nested.is_some()), Child::value);
    // What has ended without an experiment has a phase too, and nothing else; a loop may end badly after a good turn.
    value["phase"] = state.phase.as_str().into();
    value
}

// One that was not answered has a phase, and nothing else.
fn gate(state: &StageStatus) -> Value {
    let answer = state.gate.clone().unwrap_or_default();
    let mut value = json!({"phase": state.phase.as_str(), "values": answer.values});
    if let Some(by) = answer.by.filter(|_| state.phase == Phase::Completed) {
        value["approvedBy"] = by.into();
    }
    if let Some(comment) = answer.comment {
        value["comment"] = comment.into();
    }
    value
}

fn nothing(nested: bool) -> Value {
    if nested { json!({"outputs": {}}) } else { json!({"metrics": {}, "artifacts": {}}) }
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

/// The members of a stage's fan-out, or the turns of its loop, that are there; by index.
pub fn members_of<'a>(snapshot: &'a Snapshot, stage: &str) -> impl Iterator<Item = (u32, &'a Child)> + use<'a> {
    let any = Member::of(stage, 0)..=Member::of(stage, u32::MAX);
    snapshot.children.range(any).filter_map(|(member, child)| Some((member.index?, child)))
}

// `members` has them all; the rest has lists of what those that completed have brought.
fn fan_out(snapshot: &Snapshot, stage: &FrozenStage, state: &StageStatus, uses: &[PathRef]) -> Value {
    // A path that stops before a part reads all of them.
    let of_this = |path: &&PathRef| path.head == Head::Stages && path.key(0).is_none_or(|name| name == state.name);
    let reads = |part: &str| uses.iter().filter(of_this).any(|path| path.key(1).is_none_or(|key| key == part));
    let (lists, each) = (LISTS.map(|(key, depth)| (key, depth, reads(key))), reads("members"));
    let looked_at = each || lists.iter().any(|(.., read)| *read);
    let ends = state.members.as_ref().filter(|_| looked_at).map(ends).unwrap_or_default();
    let mut members = Vec::with_capacity(if each { ends.len() } else { 0 });
    // Both are in the order of their indexes: looking each of ten thousand up costs more than what it brings.
    let mut children = members_of(snapshot, &state.name).peekable();
    let mut whole = nothing(stage.nested.is_some());
    for (index, phase) in ends {
        while children.next_if(|(other, _)| *other < index).is_some() {}
        let child = children.next_if(|(other, _)| *other == index).map(|(_, child)| child);
        let mut member = child.map_or_else(|| nothing(stage.nested.is_some()), Child::value);
        if phase == Phase::Completed {
            for (key, depth, _) in lists.iter().filter(|(.., read)| *read) {
                if let (Some(values), Some(lists)) = (member.get(*key), whole.get_mut(*key)) {
                    gather(values, lists, *depth);
                }
            }
        }
        if !each {
            continue;
        }
        member["index"] = index.into();
        member["phase"] = phase.as_str().into();
        member["params"] = child.map_or_else(|| json!({}), Child::params);
        members.push(member);
    }
    whole["phase"] = state.phase.as_str().into();
    if each {
        whole["members"] = Value::Array(members);
    }
    whole
}

/// What becomes lists, and how deep below it the values lie.
const LISTS: [(&str, usize); 3] = [("metrics", 2), ("artifacts", 2), ("outputs", 1)];

// {acc: {max: 1}} into {acc: {max: [0, 1]}}.
fn gather(values: &Value, lists: &mut Value, depth: usize) {
    for (name, value) in values.as_object().into_iter().flatten() {
        let list = &mut lists[name];
        match list {
            _ if depth > 1 => gather(value, list, depth - 1),
            Value::Array(list) => list.push(value.clone()),
            first => *first = json!([value]),
        }
    }
}
