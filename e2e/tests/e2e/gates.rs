//! Gates: runs that wait for somebody's word, or for a time.

use std::time::Duration;

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, root, stage, summary, with};

fn word(run: &str, verdict: &str, values: Value) -> Value {
    json!({"run": run, "stage": "ask", "verdict": verdict, "by": "ada", "comment": "as discussed", "values": values})
}

fn asks(run: &Value) -> bool {
    summary(run, "ask")["reason"] == "WaitingForApproval"
}

/// A run waits, is approved with a value, and the next stage gets it; what is said later changes nothing.
pub async fn an_approved_value_reaches_the_next_stage(case: &Case) -> Result<()> {
    let made = r#"{"metrics": {"acc": 0.9}}"#;
    let spec = json!({"stages": [
        stage("train", root(&[("message", made)])),
        {"name": "ask", "gate": {"message": "acc is ${stages.train.metrics.acc.last}: ship?", "values": {"share": {"type": "number", "maximum": 1}}}},
        stage("ship", with(root(&[]), json!({"args": ["${stages.ask.values.share}", "${stages.ask.approvedBy}"]}))),
    ]});
    case.pipeline("gated", spec).await?;
    let run = case.wait("PipelineRun", "gated-1", asks).await?;
    let message = summary(&run, "ask")["message"].as_str().unwrap_or_default();
    ensure!(message.starts_with("acc is 0.9: ship?; to answer: kubectl create"), "{message}");
    ensure!(run["status"]["reason"] == "WaitingForApproval", "{}", run["status"]["reason"]);
    let waits = |pipeline: &Value| pipeline["status"]["latestRun"]["reason"] == "WaitingForApproval";
    case.wait("Pipeline", "gated", waits).await?;
    let server = &case.server;
    server.create(&case.manifest("Approval", "too-much", &word("gated-1", "Approve", json!({"share": 2})))).await?;
    let told = |run: &Value| {
        summary(run, "ask")["message"].as_str().is_some_and(|said| said.contains("too-much does not count"))
    };
    case.wait("PipelineRun", "gated-1", told).await?;
    server.create(&case.manifest("Approval", "fits", &word("gated-1", "Approve", json!({"share": 0.25})))).await?;
    let run = case.run_ends("gated-1", "Completed").await?;
    let is_over = |pipeline: &Value| {
        let latest = &pipeline["status"]["latestRun"];
        latest["phase"] == "Completed" && latest["reason"].is_null()
    };
    case.wait("Pipeline", "gated", is_over).await?;
    let gate = &summary(&run, "ask")["gate"];
    ensure!(gate["approval"] == "fits" && gate["by"] == "ada", "{gate}");
    let args = &case.stage("gated-1", "ship").await?["spec"]["args"];
    ensure!(*args == json!(["0.25", "ada"]), "ship got {args}");
    let changed = json!({"spec": {"by": "bob"}});
    let refused = server.patch("Approval", &case.namespace, "fits", &changed).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("stays as it was made")), "an Approval was changed");
    server.delete("Approval", &case.namespace, "fits").await?;
    let after = case.get("PipelineRun", "gated-1").await?;
    ensure!(after["status"] == run["status"], "the run was rewritten");
    Ok(())
}

/// A rejection fails the run, with the comment.
pub async fn a_rejection_ends_the_run(case: &Case) -> Result<()> {
    let spec = json!({"stages": [
        {"name": "ask", "gate": {"message": "ship?"}},
        stage("ship", with(root(&[]), json!({"after": [{"stage": "ask"}]}))),
    ]});
    case.pipeline("refused", spec).await?;
    case.wait("PipelineRun", "refused-1", asks).await?;
    case.server.create(&case.manifest("Approval", "no", &word("refused-1", "Reject", json!({})))).await?;
    let run = case.run_ends("refused-1", "Failed").await?;
    let (gate, ship) = (summary(&run, "ask"), summary(&run, "ship"));
    ensure!(gate["reason"] == "Rejected" && gate["message"] == "rejected by ada: as discussed", "{gate}");
    ensure!(ship["phase"] == "Skipped", "{ship}");
    Ok(())
}

/// A gate that approves by itself is a timer; one that does not fails.
pub async fn a_timer_passes_by_itself(case: &Case) -> Result<()> {
    let spec = json!({"stages": [
        {"name": "pause", "gate": {"timeout": "2s", "onTimeout": "Approve"}},
        stage("next", with(root(&[]), json!({"after": [{"stage": "pause"}]}))),
        {"name": "ask", "gate": {"timeout": "2s"}, "after": [{"stage": "next"}]},
    ]});
    case.pipeline("timed", spec).await?;
    let run = case.run_ends("timed-1", "Failed").await?;
    ensure!(summary(&run, "pause")["phase"] == "Completed", "{}", summary(&run, "pause"));
    ensure!(summary(&run, "next")["phase"] == "Completed", "{}", summary(&run, "next"));
    ensure!(summary(&run, "ask")["reason"] == "DeadlineExceeded", "{}", summary(&run, "ask"));
    Ok(())
}

/// An answer in time counts although the operator comes back after the gate's time is over.
pub async fn an_answer_counts_while_the_operator_is_down(case: &Case) -> Result<()> {
    let spec = json!({"stages": [
        {"name": "ask", "gate": {"timeout": "8s"}},
        stage("ship", with(root(&[]), json!({"args": ["${stages.ask.approvedBy}"]}))),
    ]});
    case.pipeline("unattended", spec).await?;
    // Also what it says of the gate is stored by then.
    case.wait("PipelineRun", "unattended-1", asks).await?;
    case.kill_operator();
    case.server.create(&case.manifest("Approval", "yes", &word("unattended-1", "Approve", json!({})))).await?;
    tokio::time::sleep(Duration::from_secs(9)).await;
    case.start_operator()?;
    case.run_ends("unattended-1", "Completed").await?;
    let args = &case.stage("unattended-1", "ship").await?["spec"]["args"];
    ensure!(*args == json!(["ada"]), "ship got {args}");
    Ok(())
}
