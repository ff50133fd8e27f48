//! A run that goes on where another one failed.
//!
//! Comes in: the run that it resumes. Goes out: the frozen pipeline of that run, with the new run's params; what completed
//! there stands for its stages here, as it is.

use cultivar_crds::{PipelineRunStatus, Reason};
use serde_json::Value;
use std::collections::BTreeMap;

use super::{Child, Snapshot};
use crate::dag;
use crate::decide::freeze::Frozen;
use crate::decide::object;
use crate::domain::{Member, text};
use crate::refs::{FieldPath, Head, scan};
use cultivar_crds::Phase;

/// What stands for the stages of a run: its own, and what completed in the run that it resumes.
#[must_use]
pub fn take_over(mut own: BTreeMap<Member, Child>, resumed: BTreeMap<Member, Child>) -> BTreeMap<Member, Child> {
    for (member, child) in resumed.into_iter().filter(|(_, child)| child.phase() == Phase::Completed) {
        own.entry(member).or_insert(child);
    }
    own
}

// A fan-out that reads the param, and how many of its members would be taken over. They are known by their numbers, which
// mean other coordinates when an axis is another.
fn moved_members(snapshot: &Snapshot, frozen: &Value, param: &str) -> Option<(String, usize)> {
    let reads = |matrix: &Value| {
        let found = scan(matrix, &FieldPath::root()).into_iter().filter_map(|(_, reference)| reference.ok());
        found.flat_map(|reference| reference.uses().to_vec()).any(|path| {
            let keys = (path.key(0), path.key(1));
            path.head == Head::Pipeline && keys.0 == Some("params") && keys.1.is_none_or(|key| key == param)
        })
    };
    dag::all(frozen).filter(|stage| stage.get("matrix").is_some_and(reads)).find_map(|stage| {
        let name = stage["name"].as_str()?;
        let taken = snapshot.children.iter().filter(|(member, child)| {
            member.stage == name && member.index.is_some() && child.phase() == Phase::Completed
        });
        let taken = taken.count();
        (taken > 0).then(|| (name.to_owned(), taken))
    })
}

/// The pipeline as the resumed run froze it, with the params that this run gives.
pub fn freeze(snapshot: &Snapshot, of: &str) -> Frozen<PipelineRunStatus> {
    let refused = |message: String| Frozen::Refused { reason: Reason::Invalid, message };
    let waiting = |reason, message: String| Frozen::Waiting { reason, message };
    let Some(old) = &snapshot.resumed else {
        return waiting(Reason::WaitingForRun, format!("spec.resumeOf: run {of} does not exist in this namespace"));
    };
    if old.spec.get("pipeline") != snapshot.run.spec.get("pipeline") {
        return refused(format!("spec.resumeOf: run {of} is one of another pipeline"));
    }
    if !old.status.phase.is_terminal() {
        return waiting(Reason::WaitingForRun, format!("spec.resumeOf: run {of} has not ended"));
    }
    let Some(mut frozen) = old.status.pipeline_spec.clone() else {
        return refused(format!("spec.resumeOf: run {of} ended before it began: make a new run"));
    };
    for (name, value) in object(snapshot.run.spec.get("params")) {
        if frozen["params"].get(&name).is_none() {
            let known: Vec<String> = object(frozen.get("params")).into_iter().map(|(name, _)| name).collect();
            let known = text::some_of(&known, 16);
            return refused(format!("spec.params.{name}: run {of} has no such parameter; it has: {known}"));
        }
        if frozen["params"][&name] != value
            && let Some((stage, members)) = moved_members(snapshot, &frozen, &name)
        {
            return refused(format!(
                "spec.params.{name}: the matrix of stage {stage} reads it, and {members} of its members have completed in run \
                 {of}: with another value they would stand for what they did not do; make a run of its own, which reuses what \
                 is the same"
            ));
        }
        frozen["params"][&name] = value;
    }
    if snapshot.run.spec.get("only").is_some_and(Value::is_array) {
        return refused("spec.only: a run that resumes another one runs what did not complete there".to_owned());
    }
    Frozen::Ready(PipelineRunStatus { pipeline_spec: Some(frozen), ..(*old.status).clone() })
}
