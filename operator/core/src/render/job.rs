//! The Job of an attempt.

use cultivar_crds::labels;
use serde_json::{Map, Value, json};

use super::{RenderError, controller_reference, gang, pod, requests};
use crate::domain::node::{PodShape, Toleration};
use crate::domain::queue::{Amounts, PodDefaults, times};
use crate::domain::{Equipment, Holding, Meta, Placement, names, settings};

/// Kueue's label for the LocalQueue of a Job.
const KUEUE_QUEUE: &str = "kueue.x-k8s.io/queue-name";

/// The Job that plays attempt `number` of `experiment` with the frozen `template`.
///
/// # Errors
/// References that lead nowhere, and templates that do not make a pod.
pub fn job(
    experiment: &Meta,
    number: u32,
    template: &Value,
    equipment: Option<&Equipment>,
    placement: Option<&Placement>,
) -> Result<Value, RenderError> {
    let mut labels = labels(experiment, number);
    let of_queue = placement.and_then(|placement| placement.pod.as_deref());
    let mut pod = pod::template(experiment, number, template, &labels, equipment, of_queue)?;
    let (name, workers) = (names::job(&experiment.name, &experiment.uid, number), settings::workers(template));
    if workers > 1 {
        gang::introduce(&mut pod, &name, workers);
    }
    let mut annotations = Map::new();
    if let Some(placement) = placement {
        labels.insert(labels::QUEUE.to_owned(), placement.queue.to_string().into());
        if !placement.flavor.is_empty() {
            labels.insert(labels::FLAVOR.to_owned(), placement.flavor.to_string().into());
        }
        let note = Holding::note(placement, workers, &requests::of_pod(&pod));
        annotations.insert(labels::HOLDS.to_owned(), note.into());
        pod::place(&mut pod, placement, &labels, &annotations);
    }
    let mut job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": experiment.namespace,
            "labels": labels,
            "ownerReferences": controller_reference("Experiment", experiment),
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            // A failed pod is not replaced behind our back: the next attempt is a Job of its own.
            "podReplacementPolicy": "Failed",
            // Makes the Job's condition keep the cause, for when its pod is gone.
            "podFailurePolicy": {"rules": [
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"containerName": pod::MAIN, "operator": "NotIn", "values": [0]}},
            ]},
            "template": pod,
        },
    });
    if let Some(queue) = template.pointer("/admission/kueue/localQueue") {
        // Kueue takes the Jobs that carry its label, and ends their suspension when it admits them.
        job["metadata"]["labels"][KUEUE_QUEUE] = queue.clone();
        job["spec"]["suspend"] = true.into();
    }
    if workers > 1 {
        gang::index(&mut job, workers);
    }
    if !annotations.is_empty() {
        job["metadata"]["annotations"] = annotations.into();
    }
    Ok(job)
}

/// What the pods of an attempt ask for together, and what each of them asks of a node.
///
/// # Errors
/// As [`job`].
pub fn amounts(
    experiment: &Meta,
    number: u32,
    template: &Value,
    equipment: Option<&Equipment>,
    of_queue: Option<&PodDefaults>,
) -> Result<(Amounts, PodShape), RenderError> {
    let pod = pod::template(experiment, number, template, &labels(experiment, number), equipment, of_queue)?;
    let amounts = requests::of_pod(&pod);
    let all = times(&amounts, settings::workers(template));
    let selector = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    let node_selector = selector.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    let tolerations = pod["spec"]["tolerations"].as_array().into_iter().flatten().map(Toleration::read).collect();
    Ok((all, PodShape { amounts, node_selector, tolerations }))
}

fn labels(experiment: &Meta, number: u32) -> Map<String, Value> {
    let mut labels = Map::new();
    labels.insert(labels::MANAGED_BY.to_owned(), labels::MANAGER.into());
    labels.insert(labels::EXPERIMENT.to_owned(), experiment.name.clone().into());
    labels.insert(labels::ATTEMPT.to_owned(), number.to_string().into());
    for key in [labels::PIPELINE, labels::PIPELINE_RUN, labels::STAGE] {
        if let Some(value) = experiment.label(key) {
            labels.insert(key.to_owned(), value.into());
        }
    }
    labels
}
