//! An experiment that has ended notes its verdict; one that comes back with nothing but that is what it was, and never
//! runs again.
//!
//! Comes in: a status that is final, or an object without one that carries a verdict. Goes out: the verdict to be written,
//! or the status as it was, with what the verdict left to the record in the store.

use cultivar_crds::{ExperimentStatus, Reason};
use std::sync::Arc;
use std::time::Duration;

use super::pursue::{Progress, pursue, so_far};
use super::record::CheckedRecord;
use super::{Snapshot, attempts, wait};
use crate::decide::{Plan, Urgency, restore};
use crate::domain::conditions::{Conditions, kind};
use crate::domain::errand::{Document, Patience};
use crate::domain::{Errand, text, time};

/// How long the record may not be readable: the experiment is done without it then.
const PATIENCE: Patience = Patience { pause: Duration::from_secs(30), limit: Duration::from_secs(600) };

/// What is read from the status and from nowhere else.
const OWN_CONDITIONS: [&str; 3] = [kind::RESULT_ACCEPTED, kind::INPUTS_PINNED, kind::IMAGE_PINNED];

/// What a verdict can do without, the first first.
const DISPENSABLE: [&str; 7] =
    ["environment", "loggedParams", "attempts", "conditions", "inputs", "metrics", "artifacts"];

/// Notes the verdict of an experiment, if it has ended.
pub fn note(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    if !plan.status.phase.is_terminal() {
        return;
    }
    let times = plan.status.times.as_ref();
    let ended = times.and_then(|times| time::read(times.finished.as_deref())).unwrap_or(snapshot.now);
    let about = (&snapshot.experiment.meta, &*snapshot.experiment.spec);
    let essence = |status: &ExperimentStatus| essence(snapshot, status.clone());
    restore::note(plan, about, (essence, &DISPENSABLE), (ended, snapshot.now));
}

// What of a status cannot be found elsewhere.
fn essence(snapshot: &Snapshot, mut status: ExperimentStatus) -> ExperimentStatus {
    status.observed_generation = None;
    status.conditions.retain(|condition| OWN_CONDITIONS.contains(&condition.type_.as_str()));
    // The record has the rest, where the operator can read that.
    if status.record.as_ref().is_some_and(|record| snapshot.stores.of(&record.uri).is_some()) {
        // That of a reused result is another run's.
        status.template = status.template.filter(|_| status.reused_from.is_some());
        status.artifacts.clear();
        status.metrics.clear();
        status.logged_params.clear();
        status.environment.clear();
    }
    status
}

/// Makes an experiment that has lost its status what it was; false where it has lost none.
pub fn come_back(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) -> bool {
    let meta = &snapshot.experiment.meta;
    let has_a_status = plan.status.template.is_some() || plan.status.attempt.is_some();
    let noted = || restore::of::<ExperimentStatus>(meta, &snapshot.experiment.spec);
    let Some(mut was) = noted().filter(|was| !has_a_status && was.phase.is_terminal()) else { return false };
    was.observed_generation = plan.status.observed_generation;
    let incomplete = was.template.is_none() || was.reused_from.is_some();
    let recorded = was.record.clone().filter(|_| incomplete);
    let problems = match recorded {
        None => Vec::new(),
        Some(at) => {
            let store = snapshot.stores.of(&at.uri).cloned();
            let errand = Errand::ReadRecord(Document { uri: at.uri.clone(), digest: at.digest, store });
            match pursue(snapshot, plan, PATIENCE, errand) {
                Progress::Done(text) => complete(&mut was, text),
                Progress::GivenUp(why) => vec![format!("{}: {why}", at.uri)],
                Progress::Pending(why) => {
                    let so_far = so_far(why);
                    wait(plan, Reason::ReadingRecord, format!("what it was before is being read{so_far}"));
                    return true;
                }
            }
        }
    };
    if !problems.is_empty() {
        let words = format!("restored without its record: {}", text::some_of(&problems, 4));
        Conditions::new(&mut was.conditions, meta.generation, snapshot.now).set(
            kind::RESULT_ACCEPTED,
            false,
            Reason::ResultLost,
            words,
        );
    }
    was.message = Some(text::message(restore::words(was.message)));
    plan.status = was;
    plan.urge(Urgency::Now);
    true
}

// What the verdict left to the record; what is wrong with that.
fn complete(was: &mut ExperimentStatus, text: &str) -> Vec<String> {
    let opened = CheckedRecord::read(text).and_then(|found| Ok((found.open()?, found.corrupt)));
    let ((record, reported), corrupt) = match opened {
        Ok(opened) => opened,
        Err(why) => return vec![why],
    };
    if was.template.is_none() && record.template.is_object() {
        was.template = Some(Arc::new(record.template));
        attempts::pin_source(was, &reported);
        attempts::pin_image(was);
    }
    was.artifacts = reported.artifacts;
    was.metrics = reported.metrics;
    was.logged_params = reported.logged_params;
    was.environment = reported.environment;
    corrupt
}
