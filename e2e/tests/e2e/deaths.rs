//! Every way a run can die, told apart: the reason, the attempts, and which retry budget it spends.

use cultivar_e2e::error::{Error, Result};
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, name, root, with};

/// Retries at once: the waiting itself is tested where time is an argument.
fn retries(limit: u32, infrastructure: u32) -> Value {
    json!({"limit": limit, "infrastructure": infrastructure, "backoff": {"initial": "100ms", "max": "200ms"}})
}

/// Plays a root to its end and checks reason, number of attempts, and that every attempt carries the reason.
async fn dies(case: &Case, plays: &[(&str, &str)], more: Value, reason: &str, attempts: u64) -> Result<Value> {
    case.experiment("run", with(root(plays), more)).await?;
    failed(case, reason, attempts).await
}

async fn failed(case: &Case, reason: &str, attempts: u64) -> Result<Value> {
    let run = case.ends("run", "Failed").await?;
    let status = &run["status"];
    ensure!(status["reason"] == reason, "the reason is {}, not {reason}: {}", status["reason"], status["message"]);
    ensure!(status["attempt"] == attempts, "{} attempts, not {attempts}", status["attempt"]);
    let recorded = status["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    for attempt in recorded {
        ensure!(attempt["reason"] == reason, "attempt {} ended with {}", attempt["number"], attempt["reason"]);
        ensure!(attempt["finishedAt"].is_string(), "attempt {} has no end", attempt["number"]);
    }
    let jobs = case.jobs("run").await?.len() as u64;
    ensure!(jobs <= attempts, "{jobs} Jobs for {attempts} attempts");
    Ok(run)
}

pub async fn an_error_spends_the_users_budget(case: &Case) -> Result<()> {
    let plays = [("outcome", "fail"), ("exit-code", "3")];
    let run = dies(case, &plays, json!({"retries": retries(2, 3)}), "Error", 3).await?;
    let status = &run["status"];
    ensure!(status["retries"] == json!({"user": 2, "infrastructure": 0}), "spent: {}", status["retries"]);
    ensure!(status["attempts"][2]["exitCode"] == 3, "{}", status["attempts"][2]);
    ensure!(status["message"].as_str().is_some_and(|m| m.contains("exit code 3")), "{}", status["message"]);
    Ok(())
}

pub async fn the_log_of_a_failed_run_is_kept(case: &Case) -> Result<()> {
    let plays = [("outcome", "fail"), ("message", "Traceback: no such file")];
    let run = dies(case, &plays, json!({}), "Error", 1).await?;
    ensure!(run["status"]["attempts"][0]["tail"] == "Traceback: no such file", "{}", run["status"]["attempts"][0]);
    Ok(())
}

pub async fn out_of_memory_is_final(case: &Case) -> Result<()> {
    let run = dies(case, &[("outcome", "oom")], json!({"retries": retries(2, 2)}), "OutOfMemory", 1).await?;
    ensure!(run["status"]["attempts"][0]["exitCode"] == 137, "{}", run["status"]["attempts"][0]);
    Ok(())
}

pub async fn an_eviction_spends_the_infrastructure_budget(case: &Case) -> Result<()> {
    let run = dies(case, &[("outcome", "evict")], json!({"retries": retries(2, 1)}), "Evicted", 2).await?;
    ensure!(run["status"]["retries"] == json!({"user": 0, "infrastructure": 1}), "spent: {}", run["status"]["retries"]);
    Ok(())
}

pub async fn a_lost_node_is_told_apart(case: &Case) -> Result<()> {
    dies(case, &[("outcome", "node-lost")], json!({"retries": retries(2, 0)}), "NodeLost", 1).await.map(drop)
}

pub async fn a_deleted_pod_is_told_apart(case: &Case) -> Result<()> {
    case.experiment("run", with(root(&[("outcome", "hang")]), json!({"retries": retries(2, 1)}))).await?;
    for attempt in 1..=2 {
        let pod = case.pod("run", attempt, "Running").await?;
        case.server.delete("Pod", &case.namespace, &pod).await?;
    }
    failed(case, "PodDeleted", 2).await.map(drop)
}

pub async fn a_deleted_job_is_told_apart(case: &Case) -> Result<()> {
    case.experiment("run", with(root(&[("outcome", "hang")]), json!({"retries": retries(2, 0)}))).await?;
    case.pod("run", 1, "Running").await?;
    for job in case.jobs("run").await? {
        case.server.delete("Job", &case.namespace, &job).await?;
    }
    failed(case, "PodDeleted", 1).await.map(drop)
}

pub async fn an_image_that_never_comes_fails_at_the_start_timeout(case: &Case) -> Result<()> {
    let more = json!({"timeouts": {"start": "4s"}, "retries": retries(2, 2)});
    case.experiment("run", with(root(&[("outcome", "image-pull")]), more)).await?;
    let waits = |object: &Value| object["status"]["reason"] == "WaitingForContainer";
    let waiting =
        case.wait("Experiment", "run", |object| waits(object) || object["status"]["phase"] == "Failed").await?;
    let message = waiting["status"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("ImagePullBackOff"), "while it waits, the message is {message}");
    failed(case, "ImagePullFailed", 1).await.map(drop)
}

pub async fn a_pod_that_no_node_takes_fails_at_the_start_timeout(case: &Case) -> Result<()> {
    let more = json!({"timeouts": {"start": "4s"}, "resources": {"limits": {"nvidia.com/gpu": 9}}});
    let run = dies(case, &[], more, "Unschedulable", 1).await?;
    let message = run["status"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("nvidia.com/gpu"), "the message does not name what is missing: {message}");
    Ok(())
}

pub async fn a_slow_start_fails_at_the_start_timeout(case: &Case) -> Result<()> {
    let more = json!({"timeouts": {"start": "3s"}});
    dies(case, &[("start", "10m")], more, "StartTimeout", 1).await.map(drop)
}

pub async fn a_run_past_its_deadline_is_stopped(case: &Case) -> Result<()> {
    let more = json!({"timeouts": {"run": "2s"}, "retries": retries(1, 0)});
    let run = dies(case, &[("outcome", "hang")], more, "DeadlineExceeded", 2).await?;
    ensure!(run["status"]["retries"]["user"] == 1, "spent: {}", run["status"]["retries"]);
    Ok(())
}

pub async fn a_missing_output_fails_the_run(case: &Case) -> Result<()> {
    let more = json!({"outputs": [{"name": "model"}, {"name": "plot", "optional": true}]});
    let plays = [("message", r#"{"metrics": {"acc": 0.9}}"#)];
    let run = dies(case, &plays, more, "OutputMissing", 1).await?;
    let message = run["status"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("model") && !message.contains("plot"), "{message}");
    ensure!(
        run["status"]["metrics"]["acc"]["last"] == 0.9,
        "metrics of a failed run are kept: {}",
        run["status"]["metrics"]
    );
    Ok(())
}

pub async fn cancel_stops_the_pod(case: &Case) -> Result<()> {
    case.experiment("run", root(&[("outcome", "hang"), ("grace", "1s")])).await?;
    let pod = case.pod("run", 1, "Running").await?;
    case.server.patch("Experiment", &case.namespace, "run", &json!({"spec": {"cancel": true}})).await?;
    let run = case.ends("run", "Cancelled").await?;
    ensure!(run["status"]["attempts"][0]["finishedAt"].is_string(), "{}", run["status"]["attempts"]);
    // It has ended only when no process can run any more.
    let left = case.server.get("Pod", &case.namespace, &pod).await?;
    let over = left.is_none_or(|pod| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")));
    ensure!(over, "the pod still runs");
    Ok(())
}

/// Several workers are one attempt: when one is lost, all end, and all start again.
pub async fn the_end_of_one_worker_ends_the_attempt(case: &Case) -> Result<()> {
    let more = json!({"workers": 3, "retries": {"backoff": {"initial": "1s"}}});
    case.experiment("gang", with(root(&[("duration", "1h")]), more)).await?;
    case.wait("Experiment", "gang", |object| object["status"]["phase"] == "Running").await?;
    let pods = case.server.list("Pod", &case.namespace, "cultivar.dev/attempt=1").await?;
    let is_last = |pod: &&Value| pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == "2";
    let lost = pods.iter().find(is_last).ok_or_else(|| Error::new("there is no third worker"))?;
    case.server.delete("Pod", &case.namespace, &name(lost)).await?;
    let again = |object: &Value| object["status"]["attempt"] == 2 && object["status"]["phase"] == "Running";
    let object = case.wait("Experiment", "gang", again).await?;
    let first = &object["status"]["attempts"][0];
    let message = first["message"].as_str().unwrap_or_default();
    ensure!(
        first["reason"] == "PodDeleted" && message.starts_with("worker 2: "),
        "the first attempt ended with {first}"
    );
    let pods = case.server.list("Pod", &case.namespace, "cultivar.dev/attempt=1").await?;
    ensure!(pods.iter().all(|pod| pod["status"]["phase"] != "Running"), "workers of the first attempt still run");
    Ok(())
}
