//! A backup and its restore: tools that make backups leave out `status`, and objects get new uids.

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, pinned, root, stage, with};

const VERDICT: &str = "cultivar.dev/verdict";
/// In the order in which the worst of tools restores them.
const KINDS: [&str; 3] = ["Pipeline", "PipelineRun", "Experiment"];

fn digits(lr: f64) -> Value {
    let scored = json!({"metrics": {"acc": 0.9}}).to_string();
    json!({
        "params": {"lr": lr},
        "stages": [
            stage("prepare", pinned(&[("message", &scored)], json!({"params": {"rows": 100}}))),
            stage("train", pinned(&[], json!({"params": {"lr": "${pipeline.params.lr}"}, "after": [{"stage": "prepare"}]}))),
        ],
    })
}

// What a tool keeps, without what refers to the life before.
async fn dump(case: &Case) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for kind in KINDS {
        for mut object in case.server.list(kind, &case.namespace, "").await? {
            let old = ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences"];
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.retain(|key, _| !old.contains(&key.as_str()));
            }
            object.as_object_mut().map(|object| object.remove("status"));
            (object["apiVersion"], object["kind"]) = ("cultivar.dev/v1alpha1".into(), kind.into());
            all.push(object);
        }
    }
    Ok(all)
}

async fn remove_all(case: &Case) -> Result<()> {
    for kind in KINDS {
        for object in case.server.list(kind, &case.namespace, "").await? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            case.server.delete(kind, &case.namespace, &name).await?;
            case.wait(kind, &name, Value::is_null).await?;
        }
    }
    for job in case.server.list("Job", &case.namespace, "").await? {
        case.wait("Job", job["metadata"]["name"].as_str().unwrap_or_default(), Value::is_null).await?;
    }
    Ok(())
}

/// What had ended is what it was: nothing of it runs again, and all can be built on. What had not ended runs.
pub async fn what_comes_back_without_its_status_is_not_run_again(case: &Case) -> Result<()> {
    case.completed("by-hand", with(root(&[]), json!({"params": {"lr": 1}}))).await?;
    case.experiment("failed", with(root(&[("outcome", "fail")]), json!({"retries": {"limit": 0}}))).await?;
    let failure = case.ends("failed", "Failed").await?;
    case.pipeline("digits", digits(0.1)).await?;
    case.run_ends("digits-1", "Completed").await?;
    for kind in KINDS {
        for object in case.server.list(kind, &case.namespace, "").await? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            case.wait(kind, name, |object| object["metadata"]["annotations"][VERDICT].is_string()).await?;
        }
    }
    // One more, which has no verdict yet when the backup is made.
    case.experiment("late", root(&[("duration", "20s")])).await?;
    let before = case.stage("digits-1", "prepare").await?;
    let backup = dump(case).await?;
    ensure!(backup.len() == 7, "{} objects in the backup", backup.len());
    remove_all(case).await?;
    for object in &backup {
        case.server.create(object).await?;
    }

    let failed = case.ends("failed", "Failed").await?;
    ensure!(failed["status"]["reason"] == failure["status"]["reason"], "{}", failed["status"]);
    let by_hand = case.ends("by-hand", "Completed").await?;
    ensure!(by_hand["status"]["template"]["params"] == json!({"lr": 1}), "{}", by_hand["status"]);
    let run = case.run_ends("digits-1", "Completed").await?;
    ensure!(run["status"]["progress"] == "2/2", "{}", run["status"]);
    let prepare = before["metadata"]["name"].as_str().unwrap_or_default();
    let prepared = case.ends(prepare, "Completed").await?;
    ensure!(prepared["status"]["metrics"] == before["status"]["metrics"], "{}", prepared["status"]);
    ensure!(condition(&prepared, "Complete")["status"] == "True", "{}", prepared["status"]);
    case.wait("Pipeline", "digits", |pipeline| condition(pipeline, "Ready")["status"] == "True").await?;
    case.ends("late", "Completed").await?;
    let jobs = case.server.list("Job", &case.namespace, "").await?;
    let late: Vec<&Value> = jobs.iter().map(|job| &job["metadata"]["labels"]["cultivar.dev/experiment"]).collect();
    ensure!(late == ["late"], "they ran again: {late:?}");

    // A clone of what came back, and a change of the pipeline, which reuses what it can.
    case.completed("clone", json!({"from": {"experiment": "by-hand"}, "params": {"lr": 2}})).await?;
    case.pipeline("digits", digits(0.2)).await?;
    case.run_ends("digits-2", "Completed").await?;
    let again = case.stage("digits-2", "prepare").await?;
    ensure!(again["status"]["reusedFrom"]["name"] == prepare, "{}", again["status"]);
    let runs = case.server.list("PipelineRun", &case.namespace, "").await?;
    ensure!(runs.len() == 2, "{} runs", runs.len());
    Ok(())
}
