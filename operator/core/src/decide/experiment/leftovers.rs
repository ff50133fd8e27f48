//! What an experiment leaves in the store: kept, or deleted with it.
//!
//! An experiment whose artifacts go with it carries a finalizer from before its first attempt. Its deletion waits for its
//! pods and then for the store, but never for long: what cannot be deleted is told of, and the object goes.

use cultivar_crds::labels::ARTIFACTS_FINALIZER;
use cultivar_crds::{ArtifactPolicy, ExperimentStatus, Output, Reason};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

use super::Snapshot;
use super::pursue::{Progress, pursue};
use crate::decide::{Action, Event, Plan};
use crate::domain::conditions::{Conditions, kind};
use crate::domain::errand::{Leftovers, Patience};
use crate::domain::{Errand, JobState, Meta, names, text, time};

/// How long a store may be away.
const PATIENCE: Patience = Patience { pause: Duration::from_secs(15), limit: Duration::from_secs(120) };
/// How long pods may take to end; a lost node's never do.
const PODS_PATIENCE: Duration = Duration::from_secs(600);

/// Whether anything that a run of `template` leaves goes with its experiment.
#[must_use]
pub fn are_deleted(template: &Value) -> bool {
    policy(template) == ArtifactPolicy::Delete || outputs(template).iter().any(|output| output.keep == Some(false))
}

/// Whether the experiment's deletion waits for its artifacts.
#[must_use]
pub fn is_held(meta: &Meta) -> bool {
    meta.finalizers.iter().any(|finalizer| finalizer == ARTIFACTS_FINALIZER)
}

fn policy(template: &Value) -> ArtifactPolicy {
    template.get("artifacts").and_then(|policy| ArtifactPolicy::deserialize(policy).ok()).unwrap_or_default()
}

fn outputs(template: &Value) -> Vec<Output> {
    template.get("outputs").and_then(|outputs| Vec::deserialize(outputs).ok()).unwrap_or_default()
}

/// The part of deciding about an experiment that is being deleted.
pub fn clean_up(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    let meta = &snapshot.experiment.meta;
    if !is_held(meta) {
        return;
    }
    if !pods_have_ended(snapshot, plan) {
        return;
    }
    let left = left(snapshot);
    if left.delete.is_empty() {
        return plan.actions.push(Action::ReleaseDeleted);
    }
    let why = match pursue(snapshot, plan, PATIENCE, Errand::DeleteArtifacts(left)) {
        Progress::Done(_) => return plan.actions.push(Action::ReleaseDeleted),
        Progress::GivenUp(why) => {
            let message = text::message(format!("artifacts stay in the store, since they could not be deleted: {why}"));
            plan.events.push(Event { warning: true, reason: Reason::ArtifactsLeft, message });
            return plan.actions.push(Action::ReleaseDeleted);
        }
        Progress::Pending(why) => why,
    };
    if let Some(why) = why {
        Conditions::new(&mut plan.status.conditions, meta.generation, snapshot.now).set(
            kind::ARTIFACTS_DELETED,
            false,
            Reason::StoreUnavailable,
            format!("tried again for two minutes, then the Experiment goes and they stay: {why}"),
        );
    }
}

// Nothing may upload any more. The Jobs go with their owner, which waits for this.
fn pods_have_ended(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) -> bool {
    let mut live = snapshot.pods.iter().any(|pod| !pod.is_over());
    for job in snapshot.jobs.iter().filter(|job| job.state == JobState::Active) {
        live = true;
        if !job.deleting {
            plan.actions.push(Action::StopAttempt { job: job.name.clone() });
        }
    }
    let since = snapshot.experiment.meta.deleted.unwrap_or(snapshot.now);
    let patience = time::after(since, PODS_PATIENCE);
    if live && snapshot.now < patience {
        plan.wake(patience);
        return false;
    }
    true
}

fn left(snapshot: &Snapshot) -> Leftovers {
    let experiment = &snapshot.experiment;
    let template = experiment.template();
    let outputs = outputs(template);
    let all = policy(template) == ArtifactPolicy::Delete;
    let declared = |name: &str| outputs.iter().find(|output| output.name == name).and_then(|output| output.keep);
    let artifacts = &experiment.status.artifacts;
    let (mut delete, mut keep) = (Vec::new(), Vec::new());
    let store = snapshot.stores.target().cloned();
    let folder = store.as_ref().map(|store| store.uri_of(&format!("{}/", names::store_prefix(&experiment.meta))));
    let ours = |uri: &str| folder.as_ref().is_some_and(|folder| uri.starts_with(folder));
    // What lies elsewhere is not ours to delete.
    for artifact in artifacts.iter().filter(|artifact| ours(&artifact.uri)) {
        let goes = declared(&artifact.name).map_or(all, |keep| !keep);
        match goes && !snapshot.referred.contains(&artifact.uri) {
            true if all => {} // With the folder.
            true => delete.push(artifact.uri.clone()),
            false => keep.push(artifact.uri.clone()),
        }
    }
    if all {
        delete.extend(folder);
        // The record tells what it is that stays.
        if !keep.is_empty() {
            keep.extend(experiment.status.record.iter().map(|record| record.uri.clone()));
        }
    }
    Leftovers { store, delete, keep }
}
