//! What starts a run and what does not; what of the past is kept.

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, name, root, stage, with};

async fn runs(case: &Case) -> Result<Vec<String>> {
    Ok(case.server.list("PipelineRun", &case.namespace, "").await?.iter().map(name).collect())
}

/// Waits until the operator has seen the pipeline's newest generation, so that "nothing started" means something.
async fn observed(case: &Case, pipeline: &str) -> Result<Value> {
    let seen = |object: &Value| object["status"]["observedGeneration"] == object["metadata"]["generation"];
    case.wait("Pipeline", pipeline, seen).await
}

fn one_stage(tag: &str) -> Value {
    json!({"stages": [stage("only", with(root(&[]), json!({"image": format!("train:{tag}")})))]})
}

/// An edit of what runs makes the next revision; an edit of anything else, or the same again, makes none.
pub async fn an_edit_makes_a_revision_and_a_repeat_none(case: &Case) -> Result<()> {
    case.pipeline("edited", one_stage("1")).await?;
    case.run_ends("edited-1", "Completed").await?;
    case.pipeline("edited", one_stage("1")).await?;
    case.pipeline("edited", with(one_stage("1"), json!({"historyLimit": 5}))).await?;
    observed(case, "edited").await?;
    ensure!(runs(case).await? == ["edited-1"], "a repeat started {:?}", runs(case).await?);
    case.pipeline("edited", with(one_stage("2"), json!({"historyLimit": 5}))).await?;
    case.run_ends("edited-2", "Completed").await?;
    let newest = case.stage("edited-2", "only").await?;
    ensure!(newest["spec"]["image"] == "train:2", "{}", newest["spec"]["image"]);
    case.pipeline("edited", with(one_stage("1"), json!({"historyLimit": 5}))).await?;
    case.run_ends("edited-3", "Completed").await?;
    // The pipeline's own status follows its run within a moment.
    let told = |object: &Value| object["status"]["latestRun"] == json!({"name": "edited-3", "phase": "Completed"});
    let pipeline = case.wait("Pipeline", "edited", told).await?;
    ensure!(pipeline["status"]["revision"] == 3, "{}", pipeline["status"]);
    Ok(())
}

/// A new value of `rerun` runs the same again.
pub async fn a_new_value_of_rerun_runs_again(case: &Case) -> Result<()> {
    case.pipeline("again", one_stage("1")).await?;
    case.run_ends("again-1", "Completed").await?;
    case.pipeline("again", with(one_stage("1"), json!({"rerun": "monday"}))).await?;
    case.run_ends("again-2", "Completed").await?;
    ensure!(case.jobs("").await?.len() == 2, "a rerun reuses nothing: {:?}", case.jobs("").await?);
    Ok(())
}

/// `runOn: Demand`: applying runs nothing; a run by hand does, with parameters of its own.
pub async fn on_demand_only_a_run_by_hand_runs(case: &Case) -> Result<()> {
    let spec = json!({
        "runOn": "Demand", "params": {"lr": 0.1}, "paramSchema": {"lr": {"type": "number", "maximum": 1}},
        "stages": [stage("only", with(root(&[]), json!({"args": ["${pipeline.params.lr}"]})))],
    });
    case.pipeline("demand", spec).await?;
    observed(case, "demand").await?;
    ensure!(runs(case).await?.is_empty(), "applying started {:?}", runs(case).await?);
    let by_hand = |lr: Value| json!({"pipeline": "demand", "params": {"lr": lr}});
    case.server.create(&case.manifest("PipelineRun", "by-hand", &by_hand(json!(0.7)))).await?;
    case.run_ends("by-hand", "Completed").await?;
    let stage = case.stage("by-hand", "only").await?;
    ensure!(stage["spec"]["args"] == json!(["0.7"]), "{}", stage["spec"]["args"]);
    case.server.create(&case.manifest("PipelineRun", "too-much", &by_hand(json!(2)))).await?;
    let refused = case.run_ends("too-much", "Failed").await?;
    let message = refused["status"]["message"].as_str().unwrap_or_default();
    ensure!(refused["status"]["reason"] == "Invalid" && message.contains("spec.params.lr"), "{message}");
    Ok(())
}

/// Ended runs beyond the limit go with all that they made; the newest stay.
pub async fn history_is_kept_to_its_limit(case: &Case) -> Result<()> {
    for revision in 1..=4 {
        case.pipeline("history", with(one_stage(&revision.to_string()), json!({"historyLimit": 2}))).await?;
        case.run_ends(&format!("history-{revision}"), "Completed").await?;
    }
    for gone in ["history-1", "history-2"] {
        case.wait("PipelineRun", gone, Value::is_null).await?;
    }
    let mut left = runs(case).await?;
    left.sort();
    ensure!(left == ["history-3", "history-4"], "{left:?} are left");
    Ok(())
}

/// A stage that somebody cloned stays when its run goes.
pub async fn a_cloned_stage_outlives_its_run(case: &Case) -> Result<()> {
    let limit = json!({"historyLimit": 1});
    case.pipeline("kept", with(one_stage("1"), limit.clone())).await?;
    case.run_ends("kept-1", "Completed").await?;
    let first = name(&case.stage("kept-1", "only").await?);
    case.completed("copy", json!({"from": {"experiment": first}})).await?;
    case.pipeline("kept", with(one_stage("2"), limit)).await?;
    case.run_ends("kept-2", "Completed").await?;
    case.wait("PipelineRun", "kept-1", Value::is_null).await?;
    let kept = case.get("Experiment", &first).await?;
    ensure!(kept["metadata"]["deletionTimestamp"].is_null(), "{first} is being deleted although it is cloned");
    ensure!(kept["metadata"]["ownerReferences"].is_null(), "{first} still belongs to its run");
    Ok(())
}

/// A run goes when its time is over, and makes its pipeline start nothing; what somebody cloned stays.
pub async fn a_run_goes_when_its_time_is_over(case: &Case) -> Result<()> {
    let ttl = json!({"ttlAfterFinished": "4s"});
    case.pipeline("brief", with(one_stage("1"), ttl.clone())).await?;
    case.run_ends("brief-1", "Completed").await?;
    let first = name(&case.stage("brief-1", "only").await?);
    case.completed("copy", json!({"from": {"experiment": first}})).await?;
    case.wait("PipelineRun", "brief-1", Value::is_null).await?;
    let kept = case.get("Experiment", &first).await?;
    ensure!(kept["metadata"]["ownerReferences"].is_null(), "{first} still belongs to its run");
    // An edit of anything else is no reason to run.
    case.pipeline("brief", with(one_stage("1"), json!({"ttlAfterFinished": "1h"}))).await?;
    observed(case, "brief").await?;
    ensure!(runs(case).await?.is_empty(), "the pipeline started {:?}", runs(case).await?);
    case.pipeline("brief", with(one_stage("2"), ttl)).await?;
    case.run_ends("brief-2", "Completed").await?;
    // It is kept as a pipeline's runs are when that is pruned, and goes all the same.
    case.server.delete("Pipeline", &case.namespace, "brief").await?;
    case.wait("PipelineRun", "brief-2", Value::is_null).await?;
    Ok(())
}
