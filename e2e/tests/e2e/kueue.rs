//! Runs that Kueue admits. Its part is played here: definitions of the same names, and what it does to Jobs.

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, LIMIT, SOON, name, root, with};

/// A definition of Kueue's, as far as it matters who has such objects.
fn definition(kind: &str, plural: &str) -> Value {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.kueue.x-k8s.io"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, played by a test"},
        },
        "spec": {
            "group": "kueue.x-k8s.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{
                "name": "v1beta1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
            }],
        },
    })
}

async fn let_run(case: &Case, job: &str, run: bool) -> Result<()> {
    case.server.patch("Job", &case.namespace, job, &json!({"spec": {"suspend": !run}})).await.map(|_| ())
}

/// A Workload of Kueue's for a Job, which has no quota for this reason.
async fn says(case: &Case, job: &Value, words: &str) -> Result<()> {
    let workload = json!({
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": {
            "name": format!("job-{}", name(job)),
            "namespace": case.namespace,
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name(job), "uid": job["metadata"]["uid"]}],
        },
        "spec": {"queueName": "team-a"},
    });
    case.server.create(&workload).await?;
    let status = json!({"status": {"conditions": [{"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": words}]}});
    case.server.patch_status("Workload", &case.namespace, &format!("job-{}", name(job)), &status).await.map(|_| ())
}

async fn stands(case: &Case, name: &str, phase: &str, reason: &str) -> Result<Value> {
    let holds = |object: &Value| {
        object["status"]["phase"] == phase && object["status"]["reason"].as_str().unwrap_or_default() == reason
    };
    case.wait("Experiment", name, holds).await
}

/// From a cluster without Kueue to a run that Kueue stops and lets go on: one Job, one attempt, no retry spent. The operator's
/// own queues have no say.
pub async fn a_run_is_handed_to_kueue(case: &Case) -> Result<()> {
    let queue = json!({"apiVersion": "cultivar.dev/v1alpha1", "kind": "Queue", "metadata": {"name": "elsewhere"},
        "spec": {"resources": {"nvidia.com/gpu": {"quota": 0}}}});
    case.server.apply(&queue).await?;
    let admission = json!({"admission": {"kueue": {"localQueue": "team-a"}}});
    let both = with(root(&[]), json!({"queue": "elsewhere", "admission": {"kueue": {"localQueue": "team-a"}}}));
    let refused = case.experiment("both", both).await.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(refused.contains("spec.admission") && refused.contains("leave out queue or admission"), "{refused}");
    case.experiment("train", with(root(&[("duration", "3s")]), admission)).await?;
    let lost = stands(case, "train", "Queued", "LocalQueueNotFound").await?;
    ensure!(lost["status"]["message"].as_str().is_some_and(|text| text.contains("team-a")), "{}", lost["status"]);
    ensure!(case.jobs("train").await?.is_empty(), "it has a Job although its LocalQueue is not there");

    // Kueue is installed while it waits.
    for (kind, plural) in [("LocalQueue", "localqueues"), ("Workload", "workloads")] {
        case.server.apply(&definition(kind, plural)).await?;
        let established = |object: &Value| {
            object["status"]["conditions"]
                .as_array()
                .is_some_and(|list| list.iter().any(|one| one["type"] == "Established" && one["status"] == "True"))
        };
        let full = format!("{plural}.kueue.x-k8s.io");
        case.server.wait("CustomResourceDefinition", "", &full, SOON, established).await?;
    }
    let local = json!({"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue",
        "metadata": {"name": "team-a", "namespace": case.namespace}, "spec": {"clusterQueue": "gpus"}});
    case.server.create(&local).await?;
    stands(case, "train", "Queued", "WaitingForKueue").await?;
    let jobs = case.server.list("Job", &case.namespace, "kueue.x-k8s.io/queue-name=team-a").await?;
    ensure!(jobs.len() == 1 && jobs[0]["spec"]["suspend"] == true, "its Job: {jobs:?}");
    let job = name(&jobs[0]);
    says(case, &jobs[0], "insufficient unused quota for nvidia.com/gpu, 3 more needed").await?;
    let words = |object: &Value| {
        object["status"]["message"].as_str().is_some_and(|text| text.contains("yet: insufficient unused quota"))
    };
    case.wait("Experiment", "train", words).await?;

    let_run(case, &job, true).await?;
    stands(case, "train", "Running", "").await?;
    let_run(case, &job, false).await?;
    let stopped = stands(case, "train", "Queued", "EvictedByKueue").await?;
    ensure!(stopped["status"]["queue"]["preempted"] == 1, "{}", stopped["status"]);
    // A new operator finds it as it was.
    case.kill_operator();
    case.start_operator()?;
    let_run(case, &job, true).await?;
    let done = case.server.wait("Experiment", &case.namespace, "train", LIMIT, |object| {
        matches!(object["status"]["phase"].as_str(), Some("Completed" | "Failed"))
    });
    let done = done.await?;
    ensure!(done["status"]["phase"] == "Completed", "{}", done["status"]);
    ensure!(done["status"]["attempt"] == 1 && done["status"]["retries"].is_null(), "{}", done["status"]);
    ensure!(case.jobs("train").await? == [job], "it had more than one Job");
    for plural in ["localqueues", "workloads"] {
        case.server.delete("CustomResourceDefinition", "", &format!("{plural}.kueue.x-k8s.io")).await?;
    }
    Ok(())
}
