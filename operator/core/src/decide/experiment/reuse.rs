//! Reuse: a run that would do what another has done takes over its result, and waits for one that is under way.
//!
//! Comes in: experiments of the namespace whose digest is the same. Goes out: a completed status with another run's
//! result, a wait for that run, or leave to start. It is decided once, before the first attempt.

use cultivar_crds::{
    Cache, CacheMode, CacheResult, CacheStatus, ClonedFrom, ExperimentStatus, Phase, Reason, ReusedFrom, labels,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::pursue::{Progress, pursue};
use super::{Snapshot, end, times, wait};
use crate::decide::freeze::overrides;
use crate::decide::{Plan, Urgency};
use crate::domain::conditions::{self, Conditions, kind};
use crate::domain::errand::{Patience, Presence};
use crate::domain::{Errand, ExperimentRecord, Meta, Producer, names, text, time};
use crate::reuse::{Key, first_difference, key};

/// How long a store may take to say whether artifacts are there; the run starts then.
const PATIENCE: Patience = Patience { pause: Duration::from_secs(2), limit: Duration::from_secs(10) };

/// What `cache` says, as far as it says something.
fn said(template: &Value) -> Cache {
    template.get("cache").and_then(|cache| Cache::deserialize(cache).ok()).unwrap_or_default()
}

/// How an experiment looks for results: a stage does, one made by hand does not, unless they say otherwise.
#[must_use]
pub fn mode(record: &ExperimentRecord, template: &Value) -> CacheMode {
    let by_default = if names::member_of(&record.meta).is_some() { CacheMode::Use } else { CacheMode::Never };
    said(template).mode.unwrap_or(by_default)
}

/// The key of an experiment's template, with what is known of who made its inputs.
#[must_use]
pub fn key_of(meta: &Meta, template: &Value, producers: &BTreeMap<String, Producer>) -> Key {
    of_place(meta, key(template, |uri| producers.get(uri)?.digest.clone()))
}

// Members that are counted, and turns of a loop, may do the same and are wanted each: eight runs, or one more look. The
// members of a matrix are told apart by what they do.
fn of_place(meta: &Meta, mut key: Key) -> Key {
    let index = names::member_of(meta).and_then(|member| member.index);
    let coordinates = meta.annotations.get(labels::COORDINATES).is_some_and(|text| text != "{}");
    if let Some(index) = index.filter(|_| !coordinates) {
        key.document["member"] = index.into();
    }
    key
}

/// The digest that identical experiments have, where this one looks for them.
#[must_use]
pub fn wanted(record: &ExperimentRecord, producers: &BTreeMap<String, Producer>) -> Option<String> {
    let status = &record.status;
    if status.phase.is_terminal() || status.attempt.is_some() {
        return None;
    }
    // A stage's spec is its template.
    let of_spec = || names::member_of(&record.meta).is_some().then(|| Arc::new(overrides(&record.spec)));
    let template = status.template.clone().or_else(of_spec)?;
    let key = (mode(record, &template) == CacheMode::Use).then(|| key_of(&record.meta, &template, producers))?;
    key.unpinned.is_empty().then(|| key.digest())
}

/// The experiment that this one is a copy of, also before that stands in its status.
#[must_use]
pub fn source_of(record: &ExperimentRecord) -> Option<String> {
    let noted = || serde_json::from_str::<ClonedFrom>(record.meta.annotations.get(labels::CLONED_FROM)?).ok();
    record.status.cloned_from.clone().or_else(noted).map(|source| source.name)
}

/// Whether an experiment waits for one that does the same.
#[must_use]
pub fn waits(status: &ExperimentStatus) -> bool {
    status.reason == Some(Reason::WaitingForIdentical) && !status.phase.is_terminal()
}

/// Whether the first attempt is not to start: the plan has the result, or waits for it.
pub fn takes_over(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, template: &Value) -> bool {
    if mode(&snapshot.experiment, template) != CacheMode::Use {
        return false;
    }
    let key = key_of(&snapshot.experiment.meta, template, &snapshot.producers);
    if !key.unpinned.is_empty() {
        note(plan, CacheResult::Unpinned, text::some_of(&key.unpinned, 3));
        return false;
    }
    let mut passed_over = Vec::new();
    for candidate in completed(snapshot, template) {
        match is_there(snapshot, plan, candidate) {
            There::Yes => {
                take(snapshot, plan, candidate);
                return true;
            }
            There::No(missing) => passed_over.push(format!("{}: {missing}", candidate.meta.name)),
            There::Unknown => {
                let name = &candidate.meta.name;
                wait(plan, Reason::CheckingArtifacts, format!("looks whether the artifacts of {name} are still there"));
                return true;
            }
        }
    }
    if let Some(first) = under_way(snapshot, template) {
        let (name, phase) = (&first.meta.name, first.status.phase);
        wait(plan, Reason::WaitingForIdentical, format!("experiment {name} does the same and is {phase}"));
        note(plan, CacheResult::Miss, String::new());
        return true;
    }
    let why = if passed_over.is_empty() { nearest(snapshot, &key) } else { text::some_of(&passed_over, 3) };
    note(plan, CacheResult::Miss, why);
    false
}

/// At the end: the digest of what ran, now that the image, the commit and the inputs are known.
pub fn digest_now(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    let status = &mut plan.status;
    let Some(template) = &status.template else { return };
    let read = |uri: &str| status.inputs.iter().find(|input| input.uri == uri)?.digest.clone();
    let made = |uri: &str| snapshot.producers.get(uri)?.digest.clone();
    let key = key(template, |uri| made(uri).or_else(|| read(uri)));
    status.digest = Some(of_place(&snapshot.experiment.meta, key).digest());
}

/// After a good end: that digest, and whether the image is known by its own.
pub fn known_now(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    digest_now(snapshot, plan);
    let status = &mut plan.status;
    let Some(template) = &status.template else { return };
    let image = template.get("image").and_then(Value::as_str).unwrap_or_default();
    let pinned = image.contains("@sha256:");
    let (reason, message) = if pinned {
        (Reason::ImagePinned, String::new())
    } else {
        let words =
            "the node's runtime reports no digest of it: nothing is reused from this run, and a clone may run another";
        (Reason::ImageUnpinned, format!("{image}: {words}"))
    };
    Conditions::new(&mut status.conditions, snapshot.experiment.meta.generation, snapshot.now).set(
        kind::IMAGE_PINNED,
        pinned,
        reason,
        message,
    );
}

fn note(plan: &mut Plan<ExperimentStatus>, result: CacheResult, message: String) {
    let message = Some(text::message(message)).filter(|message| !message.is_empty());
    plan.status.cache = Some(CacheStatus { result, message });
}

// Those that completed, the latest first; they did the same, so it makes no difference but for their age.
fn completed<'s>(snapshot: &'s Snapshot, template: &Value) -> Vec<&'s ExperimentRecord> {
    let limit = said(template).max_age.and_then(|age| time::parse_duration(&age).ok());
    // A result is as old as the run that made it, not as the last one that took it over.
    let finished = |record: &ExperimentRecord| {
        let status = &record.status;
        let own = || status.times.as_ref()?.finished.as_deref();
        time::read(status.reused_from.as_ref().and_then(|from| from.finished.as_deref()).or_else(own))
    };
    let is_young = |record: &&ExperimentRecord| {
        limit.is_none_or(|limit| finished(record).is_some_and(|then| time::after(then, limit) > snapshot.now))
    };
    let others = snapshot.identical.iter().map(AsRef::as_ref);
    let mut found: Vec<&ExperimentRecord> = others
        .filter(|other| other.status.phase == Phase::Completed && !other.meta.deleting)
        .filter(|other| !conditions::is_false(&other.status.conditions, kind::INPUTS_PINNED))
        .filter(is_young)
        .collect();
    found.sort_by_key(|record| (std::cmp::Reverse(finished(record)), record.meta.name.clone()));
    found
}

enum There {
    Yes,
    No(String),
    Unknown,
}

// Artifacts in a store that the operator cannot read are taken on trust: whoever reads them is told if they are gone.
fn is_there(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, candidate: &ExperimentRecord) -> There {
    for store in snapshot.stores.named.iter().chain(&snapshot.stores.own) {
        let uris = candidate.status.artifacts.iter().map(|artifact| &artifact.uri).filter(|uri| store.holds(uri));
        let uris: Vec<String> = uris.cloned().collect();
        if uris.is_empty() {
            continue;
        }
        let presence = Presence { store: store.clone(), uris };
        match pursue(snapshot, plan, PATIENCE, Errand::FindArtifacts(presence)) {
            Progress::Done("") => {}
            Progress::Done(missing) => return There::No(format!("there is nothing at {missing} any more")),
            Progress::GivenUp(why) => return There::No(format!("its store does not say what is there: {why}")),
            Progress::Pending(_) => return There::Unknown,
        }
    }
    There::Yes
}

// One that has begun waits for nobody; of those that have not, each waits for the one that comes before it in the same queue:
// another queue may be held, and ours not.
fn under_way<'s>(snapshot: &'s Snapshot, template: &Value) -> Option<&'s Arc<ExperimentRecord>> {
    let place =
        |record: &ExperimentRecord| (record.status.attempt.is_none(), record.meta.created, record.meta.uid.clone());
    let mine = place(&snapshot.experiment);
    let is_live = |other: &&Arc<ExperimentRecord>| {
        let asked_to_end = other.spec.get("cancel").and_then(Value::as_bool).unwrap_or(false);
        !other.status.phase.is_terminal() && !other.meta.deleting && !asked_to_end
    };
    let is_ahead = |other: &&Arc<ExperimentRecord>| {
        let same_queue =
            || ["queue", "admission"].iter().all(|field| other.template().get(field) == template.get(field));
        other.status.attempt.is_some() || same_queue()
    };
    let others = snapshot.identical.iter().filter(is_live).filter(is_ahead);
    let first = others.min_by_key(|other| place(other))?;
    (place(first) < mine).then_some(first)
}

// Why there is nothing to take over, from the run that should have come nearest.
fn nearest(snapshot: &Snapshot, ours: &Key) -> String {
    let Some(other) = &snapshot.nearest else { return "nothing like it has completed here yet".to_owned() };
    let name = &other.meta.name;
    let Some(template) = &other.status.template else { return format!("{name} has no template") };
    let theirs = key_of(&other.meta, template, &snapshot.producers);
    let content = |uri: &str| {
        let read = other.status.inputs.iter().find(|input| input.uri == uri);
        read.and_then(|input| input.digest.clone())
    };
    let theirs = if theirs.unpinned.is_empty() { theirs } else { of_place(&other.meta, key(template, content)) };
    match first_difference(&ours.document, &theirs.document, name) {
        Some(difference) => difference,
        None if other.status.phase != Phase::Completed => format!("{name} did the same and is {}", other.status.phase),
        None => format!("{name} did the same, and its result is too old or not pinned"),
    }
}

fn take(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, from: &ExperimentRecord) {
    let (status, theirs) = (&mut plan.status, &from.status);
    let finished = theirs.times.as_ref().and_then(|times| times.finished.clone());
    let own = || ReusedFrom { name: from.meta.name.clone(), uid: from.meta.uid.clone(), finished };
    let reused = theirs.reused_from.clone().unwrap_or_else(own);
    status.artifacts.clone_from(&theirs.artifacts);
    status.metrics.clone_from(&theirs.metrics);
    status.inputs.clone_from(&theirs.inputs);
    status.logged_params.clone_from(&theirs.logged_params);
    status.environment.clone_from(&theirs.environment);
    status.logs.clone_from(&theirs.logs);
    status.record.clone_from(&theirs.record);
    status.image_id.clone_from(&theirs.image_id);
    let words = format!("reused from {}", reused.name);
    status.reused_from = Some(reused);
    note(plan, CacheResult::Hit, String::new());
    end(snapshot, plan, Phase::Completed, None, words);
    times(plan).starting = None;
    // Nothing else remembers it: what follows starts from what is stored.
    plan.urge(Urgency::First);
}
