//! Runs: their deadline, suspension, which of them may begin, and going on where one failed.

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, name, root, stage, summary, with};

async fn experiments(case: &Case, run: &str) -> Result<Vec<Value>> {
    case.server.list("Experiment", &case.namespace, &format!("cultivar.dev/pipeline-run={run}")).await
}

/// A run past its deadline ends what runs and what never started; its last stages are told.
pub async fn a_deadline_ends_the_run(case: &Case) -> Result<()> {
    let spec = json!({
        "timeouts": {"run": "3s"},
        "stages": [
            stage("hangs", root(&[("outcome", "hang")])),
            stage("never", with(root(&[]), json!({"after": [{"stage": "hangs"}]}))),
        ],
        "finally": [stage("tell", with(root(&[]), json!({"args": ["${pipeline.phase}", "${pipeline.message}"]})))],
    });
    case.pipeline("late", spec).await?;
    let run = case.run_ends("late-1", "Failed").await?;
    ensure!(run["status"]["reason"] == "DeadlineExceeded", "{}", run["status"]["reason"]);
    ensure!(summary(&run, "never")["reason"] == "DeadlineExceeded", "{}", summary(&run, "never"));
    let args = &case.stage("late-1", "tell").await?["spec"]["args"];
    ensure!(*args == json!(["Failed", "the run took longer than 3.0s"]), "tell got {args}");
    Ok(())
}

/// A suspended run starts nothing more until it is resumed.
pub async fn a_suspended_run_waits_for_a_person(case: &Case) -> Result<()> {
    let spec = json!({"stages": [
        stage("first", root(&[("duration", "20s")])),
        stage("second", with(root(&[]), json!({"after": [{"stage": "first"}]}))),
    ]});
    case.pipeline("paused", spec).await?;
    // Long before the first stage ends: what the run's status tells of it may come seconds later.
    case.wait("PipelineRun", "paused-1", |run| run["status"]["phase"] == "Running").await?;
    let suspend = async |value: bool| {
        let patch = json!({"spec": {"suspend": value}});
        case.server.patch("PipelineRun", &case.namespace, "paused-1", &patch).await
    };
    suspend(true).await?;
    let waits =
        |run: &Value| summary(run, "first")["phase"] == "Completed" && summary(run, "second")["reason"] == "Suspended";
    let run = case.wait("PipelineRun", "paused-1", waits).await?;
    ensure!(run["status"]["reason"] == "Suspended", "{}", run["status"]["reason"]);
    ensure!(experiments(case, "paused-1").await?.len() == 1, "the second stage was made");
    suspend(false).await?;
    case.run_ends("paused-1", "Completed").await?;
    Ok(())
}

/// With Replace an edit ends the run of the revision before.
pub async fn a_newer_run_replaces_the_older(case: &Case) -> Result<()> {
    let spec = |outcome: &str, n: i64| json!({"concurrencyPolicy": "Replace", "stages": [stage("a", with(root(&[("outcome", outcome)]), json!({"params": {"n": n}})))]});
    case.pipeline("replace", spec("hang", 1)).await?;
    case.wait("PipelineRun", "replace-1", |run| summary(run, "a")["phase"] == "Running").await?;
    case.pipeline("replace", spec("succeed", 2)).await?;
    let old = case.run_ends("replace-1", "Cancelled").await?;
    ensure!(old["status"]["reason"] == "Superseded", "{}", old["status"]);
    case.run_ends("replace-2", "Completed").await?;
    Ok(())
}

/// A run that resumes a failed one runs what did not complete there, and reads what did.
pub async fn a_failed_run_is_resumed(case: &Case) -> Result<()> {
    let made = r#"{"artifacts": [{"name": "data", "uri": "s3://b/data"}]}"#;
    let spec = json!({"params": {"outcome": "fail"}, "stages": [
        stage("prepare", root(&[("message", made)])),
        stage("train", with(root(&[("outcome", "${params.outcome}")]), json!({
            "params": {"outcome": "${pipeline.params.outcome}"}, "args": ["${stages.prepare.artifacts.data.uri}"],
        }))),
        stage("report", with(root(&[]), json!({"args": ["${stages.prepare.artifacts.data.uri}"], "after": [{"stage": "train"}]}))),
    ]});
    case.pipeline("mend", spec).await?;
    let failed = case.run_ends("mend-1", "Failed").await?;
    let spec = json!({"pipeline": "mend", "resumeOf": "mend-1", "params": {"outcome": "succeed"}});
    case.server.create(&case.manifest("PipelineRun", "again", &spec)).await?;
    let again = case.run_ends("again", "Completed").await?;
    let prepare = |run: &Value| summary(run, "prepare")["experiment"].clone();
    ensure!(prepare(&again) == prepare(&failed), "prepare is {}, and was {}", prepare(&again), prepare(&failed));
    let mut made: Vec<String> = experiments(case, "again").await?.iter().map(name).collect();
    made.sort();
    ensure!(made.len() == 2 && made[0].starts_with("again-report") && made[1].starts_with("again-train"), "{made:?}");
    let after = case.get("PipelineRun", "mend-1").await?;
    ensure!(after["status"] == failed["status"], "the old run was rewritten");
    Ok(())
}

/// Two pipelines of one group never run at the same time.
pub async fn runs_of_a_group_take_turns(case: &Case) -> Result<()> {
    let spec = json!({
        "params": {"to": "north"}, "concurrency": {"group": "deploy-${pipeline.params.to}"},
        "stages": [stage("a", root(&[("duration", "2s")])), stage("b", with(root(&[]), json!({"after": [{"stage": "a"}]})))],
    });
    for name in ["one", "two", "three"] {
        case.pipeline(name, spec.clone()).await?;
    }
    let mut spans = Vec::new();
    for run in ["one-1", "two-1", "three-1"] {
        let run = case.run_ends(run, "Completed").await?;
        let at = |key: &str| run["status"][key].as_str().unwrap_or_default().to_owned();
        spans.push((at("startedAt"), at("finishedAt")));
    }
    spans.sort();
    for pair in spans.windows(2) {
        ensure!(pair[0].1 <= pair[1].0, "two runs of the group overlap: {spans:?}");
    }
    Ok(())
}
