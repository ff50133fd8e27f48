//! Several pods that run one program together: an Indexed Job, a headless Service, and how they find each other.
//!
//! The names are those that torchrun and others look for. The Service belongs to the Job and goes with it.

use cultivar_crds::labels;
use serde_json::{Value, json};

use super::pod::{MAIN, name};
use crate::domain::{Meta, names};

/// Port of the first worker, by torch's own custom.
const PORT: u32 = 29500;
/// Where a pod of an Indexed Job finds its number.
const INDEX: &str = "metadata.annotations['batch.kubernetes.io/job-completion-index']";

/// The headless Service of attempt `number`, by which its workers have names.
#[must_use]
pub fn service(experiment: &Meta, number: u32, job_uid: &str) -> Value {
    let job = names::job(&experiment.name, &experiment.uid, number);
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": job,
            "namespace": experiment.namespace,
            "labels": {labels::MANAGED_BY: labels::MANAGER, labels::EXPERIMENT: experiment.name},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": job_uid}],
        },
        "spec": {
            "clusterIP": "None",
            // The first worker must be found before it is ready: it is ready when the others have found it.
            "publishNotReadyAddresses": true,
            "selector": {"job-name": job},
            "ports": [{"name": "master", "port": PORT}],
        },
    })
}

/// Makes a Job one of `workers`.
pub fn index(job: &mut Value, workers: u32) {
    let spec = &mut job["spec"];
    spec["completionMode"] = "Indexed".into();
    spec["completions"] = workers.into();
    spec["parallelism"] = workers.into();
    spec["successPolicy"] = json!({"rules": [{"succeededIndexes": "0"}]});
}

/// Tells the pods how they find each other; what the user says of these variables wins.
pub fn introduce(pod: &mut Value, job: &str, workers: u32) {
    pod["spec"]["subdomain"] = job.into();
    let ours = [
        json!({"name": "MASTER_ADDR", "value": format!("{job}-0.{job}")}),
        json!({"name": "MASTER_PORT", "value": PORT.to_string()}),
        json!({"name": "WORLD_SIZE", "value": workers.to_string()}),
        json!({"name": "NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}}),
    ];
    let containers = pod["spec"]["containers"].as_array_mut().into_iter().flatten();
    for container in containers.filter(|container| name(container) == MAIN) {
        let given = container["env"].as_array().cloned().unwrap_or_default();
        let missing = ours.iter().filter(|variable| !given.iter().any(|known| name(known) == name(variable)));
        // Before the user's own, which may refer to them.
        container["env"] = missing.chain(&given).cloned().collect();
    }
}
