//! Freezing: from a run and its pipeline to what the run executes.
//!
//! Comes in: the pipeline, or the run that is gone on from, and what registries have said. Goes out: a plan whose status holds
//! the frozen pipeline; or a wait, or the end of a run that can never begin.

use cultivar_crds::{Phase, PipelineRunStatus, Reason, labels};
use serde_json::Value;

use super::{Snapshot, begin, end, fail, frozen, may_begin, resume, wait};
use crate::decide::freeze::Frozen;
use crate::decide::images::Lookup;
use crate::decide::pipeline::digest;
use crate::decide::{Plan, Urgency};
use crate::domain::conditions::{self, kind};
use crate::domain::text;
use crate::validate;

/// Freezes the run's pipeline, or says what is waited for before that.
pub fn freeze(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>) {
    if let Some(of) = snapshot.run.spec.get("resumeOf").and_then(Value::as_str) {
        return match resume::freeze(snapshot, of) {
            Frozen::Ready(old) => {
                plan.status.pipeline_digest = old.pipeline_digest;
                plan.status.pipeline_generation = old.pipeline_generation;
                // Its images are those of the run that it goes on from.
                plan.status.conditions.extend(conditions::of(&old.conditions, kind::IMAGES_PINNED).cloned());
                frozen_as(snapshot, plan, old.pipeline_spec);
            }
            Frozen::Waiting { reason, message } => wait(snapshot, plan, reason, message),
            Frozen::Refused { reason, message } => fail(snapshot, plan, reason, message),
        };
    }
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
            let pinned = if snapshot.resolve_images { pinned(snapshot, plan, frozen) } else { Some(frozen) };
            if let Some(frozen) = pinned {
                plan.status.pipeline_digest = Some(now_digest);
                plan.status.pipeline_generation = Some(pipeline.meta.generation);
                frozen_as(snapshot, plan, Some(frozen));
            }
        }
        Frozen::Waiting { reason, message } => wait(snapshot, plan, reason, message),
        Frozen::Refused { reason, message } => fail(snapshot, plan, reason, message),
    }
}

// The frozen pipeline with the digests of its images; nothing: they are being asked for, or it is refused.
fn pinned(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>, mut frozen: Value) -> Option<Value> {
    let mut lookup = Lookup::new(&snapshot.errands, snapshot.now);
    for list in ["stages", "finally"] {
        for stage in frozen.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let of = format!("stage {}", stage["name"].as_str().unwrap_or_default());
            if let Some(template) = stage.get_mut("template") {
                lookup.pin(template, &of);
            }
        }
    }
    if let Some((questions, words)) = lookup.asks() {
        plan.actions.extend(questions);
        plan.status.phase = Phase::Pending;
        plan.status.reason = Some(Reason::ResolvingImages);
        plan.status.message = Some(text::message(words));
        return None;
    }
    match frozen::within_size(frozen) {
        Frozen::Ready(frozen) => {
            lookup.tell(&mut plan.status.conditions, snapshot.run.meta.generation);
            return Some(frozen);
        }
        Frozen::Waiting { reason, message } => wait(snapshot, plan, reason, message),
        Frozen::Refused { reason, message } => fail(snapshot, plan, reason, message),
    }
    None
}

fn frozen_as(snapshot: &Snapshot, plan: &mut Plan<PipelineRunStatus>, frozen: Option<Value>) {
    plan.status.pipeline_spec = frozen;
    (plan.status.reason, plan.status.message) = (None, None);
    // One write says that it is frozen and that it begins, where nothing stands before it.
    if may_begin(snapshot, plan) {
        begin(snapshot, plan);
    }
    plan.urge(Urgency::First);
    // Where that status turns out to be stored already, the next step follows at once.
    plan.wake(snapshot.now);
}
