//! Which of a pipeline's runs may begin: its `concurrencyPolicy`.
//!
//! Comes in: a run that has not begun, and the other runs of its pipeline. Goes out: whether it is its turn; else the plan says
//! what it waits for, or how it ended without one.

use cultivar_crds::{Concurrency, ConcurrencyPolicy, Phase, PipelineRunStatus, Reason, labels};
use jiff::Timestamp;
use serde::Deserialize;
use std::cmp::Reverse;
use std::sync::Arc;

use super::{Snapshot, end};
use crate::decide::pipeline::{order, revision};
use crate::decide::{Action, Plan};
use crate::domain::{RunRecord, text};

fn policy(snapshot: &Snapshot) -> ConcurrencyPolicy {
    let said = snapshot.pipeline.as_ref().and_then(|pipeline| pipeline.spec.get("concurrencyPolicy").cloned());
    said.and_then(|policy| ConcurrencyPolicy::deserialize(policy).ok()).unwrap_or_default()
}

fn is_unfinished(run: &RunRecord) -> bool {
    !run.status.phase.is_terminal() && !run.meta.deleting
}

/// Another run of the same concurrency group that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRun {
    /// The run.
    pub run: Arc<RunRecord>,
    /// Whether it has its place.
    pub has_begun: bool,
}

fn urgency(run: &RunRecord) -> (Reverse<i64>, Option<Timestamp>, &str) {
    let priority = run.status.pipeline_spec.as_ref().and_then(|frozen| frozen["priority"].as_i64());
    (Reverse(priority.unwrap_or(0)), run.meta.created, &run.meta.name)
}

/// Whether a run may take a place in its concurrency group: the place to be taken, if it is in one; else whom it waits
/// for.
pub fn place_in_group(snapshot: &Snapshot, plan: &Plan<PipelineRunStatus>) -> Result<Option<Action>, String> {
    let said = plan.status.pipeline_spec.as_ref().and_then(|frozen| frozen.get("concurrency"));
    let Some(Concurrency { group, limit }) = said.and_then(|said| Concurrency::deserialize(said).ok()) else {
        return Ok(None);
    };
    // Who else is in the group is known once the group is.
    if snapshot.run.status.pipeline_spec.is_none() {
        return Err(format!("looks who else is in group {group}"));
    }
    let limit = limit.unwrap_or(1);
    let mine = urgency(&snapshot.run);
    // Others that wait for something else hold nobody up.
    let waits = |other: &GroupRun| other.run.status.reason == Some(Reason::WaitingForGroup);
    let before = |other: &&GroupRun| other.has_begun || waits(other) && urgency(&other.run) < mine;
    let ahead: Vec<&str> = snapshot.group.iter().filter(before).map(|other| other.run.meta.name.as_str()).collect();
    if ahead.len() < limit as usize {
        return Ok(Some(Action::EnterGroup { group, limit }));
    }
    Err(format!("of group {group} {limit} may run at a time; before it comes {}", text::some_of(&ahead, 4)))
}

// Runs of a schedule that lets them run side by side neither wait for each other nor take each other's place.
fn beside(run: &RunRecord, other: &RunRecord) -> bool {
    let allowed = |run: &RunRecord| run.meta.annotations.contains_key(labels::CONCURRENCY);
    allowed(run) && allowed(other) && run.meta.label(labels::SCHEDULE) == other.meta.label(labels::SCHEDULE)
}

/// The run that takes this one's place, where the policy is Replace.
pub fn replaced_by(snapshot: &Snapshot) -> Option<&RunRecord> {
    if snapshot.run.meta.is_nested() || policy(snapshot) != ConcurrencyPolicy::Replace {
        return None;
    }
    let mine = order(&snapshot.run);
    let newer = snapshot.siblings.iter().filter(|run| is_unfinished(run) && order(run) > mine);
    let newer = newer.filter(|run| !beside(&snapshot.run, run));
    newer.max_by_key(|run| order(run)).map(AsRef::as_ref)
}

/// Whether a run may begin. Of the runs that the pipeline made only the newest waits; runs made by hand have parameters of
/// their own and wait in line.
pub fn is_its_turn(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) -> bool {
    let policy = policy(snapshot);
    // A nested run is part of the one around it, which has its turn.
    if snapshot.run.meta.is_nested() || policy == ConcurrencyPolicy::Allow {
        return true;
    }
    let mine = order(&snapshot.run);
    let earlier = snapshot
        .siblings
        .iter()
        .filter(|run| is_unfinished(run) && !beside(&snapshot.run, run))
        .filter(|run| run.status.started_at.is_some() || order(run) < mine)
        // The one directly before: it stays the same until it is this run's turn, so a long line is not
        // written anew each time its head ends.
        .max_by_key(|run| (order(run) < mine, order(run)));
    let Some(earlier) = earlier else { return true };
    if policy == ConcurrencyPolicy::Forbid {
        let words = format!("run {} has not ended, and concurrencyPolicy is Forbid", earlier.meta.name);
        end(snapshot, plan, Phase::Cancelled, Some(Reason::RunForbidden), words);
        return false;
    }
    let newer: Option<&Arc<RunRecord>> = snapshot
        .siblings
        .iter()
        .filter(|run| is_unfinished(run) && revision(run).is_some() && order(run) > mine)
        .max_by_key(|run| order(run));
    if let (Some(newer), Some(_)) = (newer, revision(&snapshot.run)) {
        let words = format!("run {} is newer and takes the place", newer.meta.name);
        end(snapshot, plan, Phase::Cancelled, Some(Reason::Superseded), words);
        return false;
    }
    plan.status.phase = Phase::Pending;
    plan.status.reason = Some(Reason::WaitingForRun);
    plan.status.message = Some(format!("run {} of the same pipeline has not ended", earlier.meta.name));
    false
}
