//! Manifests that come from a repository: pruned, applied again, applied by two.

use cultivar_e2e::error::Result;
use cultivar_e2e::exec;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, root, stage, with};

async fn runs(case: &Case) -> Result<Vec<Value>> {
    case.server.list("PipelineRun", &case.namespace, "").await
}

/// A pruned pipeline leaves its finished runs, and ends the one that has not finished; applied again it does not do again
/// what it has done.
pub async fn a_pruned_pipeline_keeps_what_it_has_done(case: &Case) -> Result<()> {
    let spec = |n: i32, outcome: &str| json!({"stages": [stage("a", with(root(&[("outcome", outcome)]), json!({"params": {"n": n}})))]});
    case.pipeline("digits", spec(1, "succeed")).await?;
    case.run_ends("digits-1", "Completed").await?;
    case.pipeline("digits", spec(2, "hang")).await?;
    case.wait("PipelineRun", "digits-2", |run| run["status"]["phase"] == "Running").await?;
    case.server.delete("Pipeline", &case.namespace, "digits").await?;
    let ended = case.run_ends("digits-2", "Cancelled").await?;
    ensure!(ended["status"]["reason"] == "PipelineDeleted", "{}", ended["status"]);
    ensure!(runs(case).await?.len() == 2, "{} runs are left", runs(case).await?.len());
    ensure!(case.stage("digits-1", "a").await?["status"]["phase"] == "Completed", "its experiment is gone");

    // The same again: what has been done is not done again, and what was not is.
    case.pipeline("digits", spec(1, "succeed")).await?;
    let ready = |pipeline: &Value| {
        let conditions = pipeline["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    case.wait("Pipeline", "digits", ready).await?;
    ensure!(runs(case).await?.len() == 2, "it ran again");
    case.pipeline("digits", spec(3, "succeed")).await?;
    case.run_ends("digits-3", "Completed").await?;
    Ok(())
}

/// With `deletionPolicy: Delete` the runs go with their pipeline.
pub async fn a_pipeline_may_take_its_runs_with_it(case: &Case) -> Result<()> {
    case.pipeline("digits", json!({"deletionPolicy": "Delete", "stages": [stage("a", root(&[]))]})).await?;
    case.run_ends("digits-1", "Completed").await?;
    case.server.delete("Pipeline", &case.namespace, "digits").await?;
    case.wait("PipelineRun", "digits-1", Value::is_null).await?;
    Ok(())
}

/// Applied once more, as tools do all the time, nothing differs; a second tool that owns one parameter does not fight.
pub async fn applying_again_changes_nothing(case: &Case) -> Result<()> {
    let spec = json!({"params": {"lr": 0.1}, "stages": [stage("a", with(root(&[]), json!({"params": {"lr": "${pipeline.params.lr}"}})))]});
    let manifest = case.manifest("Pipeline", "digits", &spec).to_string();
    let kubectl = |words: &[&str], input: &str| exec::output(case.cluster().kubectl_command().args(words), Some(input));
    kubectl(&["apply", "--server-side", "--field-manager=one", "-f", "-"], &manifest)?;
    case.run_ends("digits-1", "Completed").await?;
    let differs = kubectl(&["diff", "--server-side", "--field-manager=one", "-f", "-"], &manifest)?;
    ensure!(differs.is_empty(), "{differs}");
    let other =
        case.manifest("Pipeline", "digits", &json!({"params": {"epochs": 3}, "stages": spec["stages"]})).to_string();
    kubectl(&["apply", "--server-side", "--field-manager=two", "-f", "-"], &other)?;
    kubectl(&["apply", "--server-side", "--field-manager=one", "-f", "-"], &manifest)?;
    let pipeline = case.get("Pipeline", "digits").await?;
    ensure!(pipeline["spec"]["params"] == json!({"lr": 0.1, "epochs": 3}), "{}", pipeline["spec"]["params"]);
    // What a server-side dry run refuses names its field.
    let wrong = case
        .manifest("Pipeline", "bad", &json!({"stages": [stage("a", root(&[])), stage("a", root(&[]))]}))
        .to_string();
    let refused = kubectl(&["apply", "--server-side", "--dry-run=server", "-f", "-"], &wrong);
    ensure!(refused.is_err_and(|error| error.to_string().contains("spec.stages")), "two stages of a name are let in");
    Ok(())
}
