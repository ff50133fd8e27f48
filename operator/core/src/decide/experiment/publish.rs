//! Outputs whose place is written into a ConfigMap once the run has completed, for what serves them.

use cultivar_crds::{ExperimentStatus, Output, Phase, Reason};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Snapshot;
use super::pursue::{Progress, pursue};
use crate::decide::{Event, Plan};
use crate::domain::Errand;
use crate::domain::conditions::{Conditions, is_true, kind};
use crate::domain::errand::{Patience, Publication};
use crate::domain::text;

/// How long it is tried: somebody may grant the right that is missing.
const PATIENCE: Patience = Patience { pause: Duration::from_secs(60), limit: Duration::from_secs(3600) };

/// Publishes what the template asks for, unless that is done.
pub fn publish(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>) {
    // A record is of a run that was over before: what it published is published.
    if plan.status.phase != Phase::Completed || snapshot.experiment.spec.get("record").is_some() {
        return;
    }
    let wanted = wanted(snapshot);
    if wanted.is_empty() || is_true(&plan.status.conditions, kind::PUBLISHED) {
        return;
    }
    let mut failed = Vec::new();
    let mut done = true;
    for (config_map, data) in wanted {
        let errand = Errand::Publish(Publication { config_map: config_map.clone(), data });
        match pursue(snapshot, plan, PATIENCE, errand) {
            Progress::Done(_) => {}
            Progress::GivenUp(why) => failed.push(format!("ConfigMap {config_map}: {why}; given up after an hour")),
            Progress::Pending(why) => {
                failed.extend(why.map(|why| format!("ConfigMap {config_map}: {why}")));
                done = false;
            }
        }
    }
    let generation = snapshot.experiment.meta.generation;
    let known = plan.status.conditions.iter().any(|condition| condition.type_ == kind::PUBLISHED);
    let mut conditions = Conditions::new(&mut plan.status.conditions, generation, snapshot.now);
    if !failed.is_empty() {
        let message = text::some_of(&failed, 4);
        conditions.set(kind::PUBLISHED, false, Reason::PublishFailed, message.clone());
        if !known {
            plan.events.push(Event { warning: true, reason: Reason::PublishFailed, message: text::message(message) });
        }
    } else if done {
        conditions.set(kind::PUBLISHED, true, Reason::Succeeded, "");
    }
}

// By ConfigMap: its entries.
fn wanted(snapshot: &Snapshot) -> BTreeMap<String, BTreeMap<String, String>> {
    let status = &snapshot.experiment.status;
    let outputs = status.template.as_ref().and_then(|template| template.get("outputs"));
    let outputs: Vec<Output> = outputs.and_then(|outputs| Vec::deserialize(outputs).ok()).unwrap_or_default();
    let mut wanted: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for output in outputs {
        let Some(publish) = output.publish else { continue };
        // An optional output that is not there leaves what was published before.
        let Some(artifact) = status.artifacts.iter().find(|artifact| artifact.name == output.name) else { continue };
        let entry = json!({
            "uri": artifact.uri,
            "digest": artifact.digest,
            "size": artifact.size,
            "experiment": snapshot.experiment.meta.name,
        });
        let key = publish.key.unwrap_or(output.name);
        wanted.entry(publish.config_map).or_default().insert(key, entry.to_string());
    }
    wanted
}
