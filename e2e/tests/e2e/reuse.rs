//! Reuse: only what depends on a change runs again.

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, pinned, root, stage, summary, with};

/// Three stages that pass on an artifact and a metric, and one that comes finally: only what reads `lr` depends on it.
pub fn digits(lr: f64, rerun: Option<&str>) -> Value {
    let digest = format!("sha256:{}", "d1".repeat(32));
    let made = json!({"artifacts": [{"name": "data", "uri": "s3://b/data.npz", "digest": digest}]}).to_string();
    let scored = json!({"metrics": {"acc": 0.9}}).to_string();
    let data = json!([{
        "name": "data", "uri": "${stages.prepare.artifacts.data.uri}", "digest": "${stages.prepare.artifacts.data.digest}",
    }]);
    let mut spec = json!({
        "params": {"lr": lr},
        "stages": [
            stage("prepare", pinned(&[("message", &made)], json!({"params": {"rows": 100}}))),
            stage("train", pinned(&[("message", &scored)], json!({"params": {"lr": "${pipeline.params.lr}"}, "inputs": data}))),
            stage("report", pinned(&[], json!({"args": ["${stages.train.metrics.acc.last}"]}))),
        ],
        "finally": [stage("tell", pinned(&[], json!({"args": ["done"]})))],
    });
    if let Some(rerun) = rerun {
        spec["rerun"] = rerun.into();
    }
    spec
}

/// How many Jobs a run has made.
pub async fn jobs_of(case: &Case, run: &str) -> Result<usize> {
    let labels = format!("cultivar.dev/pipeline-run={run}");
    Ok(case.server.list("Job", &case.namespace, &labels).await?.len())
}

/// One changed parameter reruns the stages that read it; a revert runs nothing but what is wanted for its doing; `rerun`
/// runs all.
pub async fn a_change_runs_what_depends_on_it_and_a_revert_nothing(case: &Case) -> Result<()> {
    case.pipeline("digits", digits(0.1, None)).await?;
    case.run_ends("digits-1", "Completed").await?;
    ensure!(jobs_of(case, "digits-1").await? == 4, "the first run has {} Jobs", jobs_of(case, "digits-1").await?);

    case.pipeline("digits", digits(0.2, None)).await?;
    let run = case.run_ends("digits-2", "Completed").await?;
    // The metric is the same, and so is the report.
    ensure!(jobs_of(case, "digits-2").await? == 2, "train and tell run, not {} Jobs", jobs_of(case, "digits-2").await?);
    let (before, prepared) = (case.stage("digits-1", "prepare").await?, case.stage("digits-2", "prepare").await?);
    ensure!(prepared["status"]["reusedFrom"]["name"] == before["metadata"]["name"], "{}", prepared["status"]);
    ensure!(summary(&run, "prepare")["reusedFrom"] == before["metadata"]["name"], "{}", summary(&run, "prepare"));
    ensure!(prepared["status"]["artifacts"] == before["status"]["artifacts"], "{}", prepared["status"]["artifacts"]);
    ensure!(prepared["status"]["attempts"].is_null(), "it ran: {}", prepared["status"]["attempts"]);
    let trained = case.stage("digits-2", "train").await?;
    let why = trained["status"]["cache"]["message"].as_str().unwrap_or_default();
    ensure!(why.starts_with("params.lr: 0.2 here, 0.1 in digits-1-train-"), "{why}");
    ensure!(condition(&trained, "ImagePinned")["status"] == "True", "{}", trained["status"]["conditions"]);

    case.pipeline("digits", digits(0.1, None)).await?;
    case.run_ends("digits-3", "Completed").await?;
    ensure!(jobs_of(case, "digits-3").await? == 1, "only tell runs, not {} Jobs", jobs_of(case, "digits-3").await?);
    // What was reused twice names who ran, not who reused it first.
    let again = case.stage("digits-3", "prepare").await?;
    ensure!(again["status"]["reusedFrom"]["name"] == before["metadata"]["name"], "{}", again["status"]["reusedFrom"]);

    case.pipeline("digits", digits(0.1, Some("2026-11-25"))).await?;
    case.run_ends("digits-4", "Completed").await?;
    ensure!(jobs_of(case, "digits-4").await? == 4, "rerun runs all, not {} Jobs", jobs_of(case, "digits-4").await?);

    // The value of rerun stays, and asks for nothing more.
    case.pipeline("digits", digits(0.2, Some("2026-11-25"))).await?;
    case.run_ends("digits-5", "Completed").await?;
    ensure!(jobs_of(case, "digits-5").await? == 1, "only tell runs, not {} Jobs", jobs_of(case, "digits-5").await?);

    // Who ran may go; what was reused is known still.
    case.server.delete("PipelineRun", &case.namespace, "digits-1").await?;
    case.wait("Experiment", before["metadata"]["name"].as_str().unwrap_or_default(), Value::is_null).await?;
    case.pipeline("digits", digits(0.1, Some("2026-11-25"))).await?;
    case.run_ends("digits-6", "Completed").await?;
    ensure!(jobs_of(case, "digits-6").await? == 1, "only tell runs, not {} Jobs", jobs_of(case, "digits-6").await?);
    Ok(())
}

/// Two experiments that would do the same: one runs, the other takes over its result.
pub async fn identical_work_under_way_is_joined(case: &Case) -> Result<()> {
    let scored = json!({"metrics": {"acc": 0.9}}).to_string();
    let spec = || {
        let plays = [("duration", "15s"), ("message", scored.as_str())];
        pinned(&plays, json!({"params": {"lr": 1}, "cache": {"mode": "Use"}, "retries": {"limit": 1}}))
    };
    case.experiment("one", spec()).await?;
    case.wait("Experiment", "one", |one| one["status"]["attempt"] == 1).await?;
    case.experiment("two", with(spec(), json!({"retries": {"limit": 3}}))).await?;
    case.wait("Experiment", "two", |two| two["status"]["reason"] == "WaitingForIdentical").await?;
    let two = case.ends("two", "Completed").await?;
    ensure!(two["status"]["reusedFrom"]["name"] == "one", "{}", two["status"]);
    ensure!(two["status"]["metrics"]["acc"]["last"] == 0.9, "{}", two["status"]["metrics"]);
    ensure!(case.jobs("two").await?.is_empty(), "it has a Job");
    // Old enough to run again.
    case.experiment("three", with(spec(), json!({"cache": {"mode": "Use", "maxAge": "1ms"}}))).await?;
    let three = case.ends("three", "Completed").await?;
    ensure!(three["status"]["reusedFrom"].is_null() && case.jobs("three").await?.len() == 1, "{}", three["status"]);
    // A clone of one that looked for results looks for none by itself.
    case.experiment("four", json!({"from": {"experiment": "two"}})).await?;
    let four = case.ends("four", "Completed").await?;
    ensure!(four["status"]["reusedFrom"].is_null(), "{}", four["status"]);
    Ok(())
}

/// A failed run is no result, and neither is one whose image a tag names.
pub async fn what_failed_is_not_reused(case: &Case) -> Result<()> {
    let used = json!({"cache": {"mode": "Use"}});
    case.experiment("bad", pinned(&[("outcome", "fail")], used.clone())).await?;
    case.ends("bad", "Failed").await?;
    case.experiment("again", pinned(&[], used.clone())).await?;
    let again = case.ends("again", "Completed").await?;
    ensure!(again["status"]["reusedFrom"].is_null(), "{}", again["status"]);
    case.experiment("tagged", with(root(&[]), used.clone())).await?;
    let tagged = case.ends("tagged", "Completed").await?;
    ensure!(condition(&tagged, "ImagePinned")["reason"] == "ImageUnpinned", "{}", tagged["status"]["conditions"]);
    case.experiment("tagged-too", with(root(&[]), used)).await?;
    let too = case.ends("tagged-too", "Completed").await?;
    let cache = &too["status"]["cache"];
    ensure!(too["status"]["reusedFrom"].is_null() && cache["result"] == "Unpinned", "{cache}");
    Ok(())
}
