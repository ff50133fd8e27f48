//! What a run reports: read whole, then taken into the status.
//!
//! Comes in: the termination message, and the document in the store where the message is not all. Goes out: metrics,
//! artifacts, inputs and the conditions that tell how far they can be trusted.

use cultivar_crds::{ExperimentStatus, InputUsed, Output, Reason};
use std::time::Duration;

use super::judge::End;
use super::pursue::{Progress, pursue, so_far};
use super::{Snapshot, result, wait};
use crate::decide::{Event, Plan};
use crate::domain::conditions::{Conditions, kind};
use crate::domain::errand::{Document, Patience};
use crate::domain::{Errand, inputs, text};

/// How long a store may be away before a result in it is given up.
const PATIENCE: Patience = Patience { pause: Duration::from_secs(10), limit: Duration::from_secs(300) };

/// The whole result of an attempt, or nothing while it is being read: what did not fit into the termination message lies
/// in the store, and is read before anything is decided on it.
pub fn whole(
    snapshot: &Snapshot,
    plan: &mut Plan<ExperimentStatus>,
    over: &End,
    declared: &[Output],
) -> Option<result::RunResult> {
    let mut part = result::parse(&over.output, declared);
    let Some(at) = part.manifest.take() else { return Some(part) };
    let store = snapshot.stores.of(&at.uri).cloned();
    let errand = Errand::ReadResult(Document { uri: at.uri.clone(), digest: at.digest, store });
    let why = match pursue(snapshot, plan, PATIENCE, errand) {
        Progress::Done(text) => {
            let mut whole = result::parse(text, declared);
            // The message has the end of the log where the document may not.
            whole.tail = whole.tail.or(part.tail);
            whole.failure = whole.failure.or(part.failure);
            return Some(whole);
        }
        Progress::GivenUp(why) => {
            let words = format!("only a part of the result is here: {} could not be read: {why}", at.uri);
            part.problems.push(words.clone());
            part.failure.get_or_insert((Reason::ResultLost, words));
            return Some(part);
        }
        Progress::Pending(why) => why,
    };
    let so_far = so_far(why);
    wait(
        plan,
        Reason::ReadingResult,
        format!("the program has ended, and its result is being read from the store{so_far}"),
    );
    None
}

/// Takes a result into the status.
pub fn keep(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, reported: result::RunResult) {
    if reported.reported {
        let accepted = reported.problems.is_empty();
        let (reason, message) = if accepted {
            (Reason::ResultAccepted, String::new())
        } else {
            (Reason::ResultMalformed, text::some_of(&reported.problems, 8))
        };
        Conditions::new(&mut plan.status.conditions, snapshot.experiment.meta.generation, snapshot.now).set(
            kind::RESULT_ACCEPTED,
            accepted,
            reason,
            message.clone(),
        );
        if !accepted {
            plan.events.push(Event { warning: true, reason, message: text::message(message) });
        }
    }
    plan.status.metrics = reported.metrics;
    plan.status.artifacts = reported.artifacts;
    plan.status.logged_params = reported.logged_params;
    plan.status.environment = reported.environment;
    plan.status.logs = reported.logs;
    plan.status.record = reported.record;
    plan.status.inputs = reported.inputs;
    for input in &mut plan.status.inputs {
        if let Some(producer) = snapshot.producers.get(&input.uri) {
            input.experiment = Some(producer.experiment.clone());
            input.artifact = Some(producer.artifact.clone());
        }
    }
    pinned(snapshot, plan);
}

// What was read once may not be there any more when it is read again, and nobody could tell.
fn pinned(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    let inputs = plan.status.template.as_deref().map(inputs::each).unwrap_or_default();
    let named = |name: &str| inputs.iter().find(|input| input["name"] == name);
    let is_loose = |input: &&InputUsed| {
        let has_digest = named(&input.name).is_some_and(|input| input.get("digest").is_some());
        input.version.is_none() && input.experiment.is_none() && !has_digest
    };
    let loose: Vec<&str> = plan.status.inputs.iter().filter(is_loose).map(|input| input.name.as_str()).collect();
    let mounted = inputs.iter().filter(|input| input["uri"].as_str().is_some_and(|uri| uri.starts_with("pvc://")));
    let loose: Vec<&str> = loose.into_iter().chain(mounted.filter_map(|input| input["name"].as_str())).collect();
    if plan.status.inputs.is_empty() && loose.is_empty() {
        return;
    }
    let (reason, message) = match loose.as_slice() {
        [] => (Reason::InputsPinned, String::new()),
        loose => (
            Reason::InputUnpinned,
            format!(
                "no digest, version or ETag is known of: {}; give inputs[].digest to pin one",
                text::some_of(loose, 8)
            ),
        ),
    };
    Conditions::new(&mut plan.status.conditions, snapshot.experiment.meta.generation, snapshot.now).set(
        kind::INPUTS_PINNED,
        loose.is_empty(),
        reason,
        message,
    );
}
