//! Faults: the operator dies, things vanish while nobody looks, the API server is away. Nothing recorded is repeated,
//! nothing is lost. These cases run alone.

use std::time::Duration;

use cultivar_e2e::error::{Error, Result};
use cultivar_e2e::operator::Operator;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, SOON, root, stage, summary, with};

fn chain(stages: usize, plays: &[(&str, &str)]) -> Value {
    let link = |index: usize| {
        let spec = match index.checked_sub(1) {
            Some(before) => with(root(plays), json!({"after": [{"stage": format!("s{before}")}]})),
            None => root(plays),
        };
        stage(&format!("s{index}"), spec)
    };
    json!({"stages": (0..stages).map(link).collect::<Vec<_>>()})
}

/// Every stage ran exactly once, and the first time.
async fn ran_once(case: &Case, run: &str, stages: usize) -> Result<()> {
    case.run_ends(run, "Completed").await?;
    for index in 0..stages {
        let experiment = case.stage(run, &format!("s{index}")).await?;
        ensure!(experiment["status"]["attempt"] == 1, "s{index} took {} attempts", experiment["status"]["attempt"]);
        let jobs = case.jobs(&crate::kit::name(&experiment)).await?;
        ensure!(jobs.len() == 1, "s{index} has the Jobs {jobs:?}");
    }
    Ok(())
}

/// `kill -9` again and again, between stages and within them.
pub async fn a_crash_between_stages_repeats_nothing(case: &Case) -> Result<()> {
    case.pipeline("crash", chain(4, &[("duration", "1s")])).await?;
    for index in 0..3 {
        let current = format!("s{index}");
        case.wait("PipelineRun", "crash-1", |run| summary(run, &current)["experiment"].is_string()).await?;
        case.kill_operator();
        // Long enough for the stage to end while nobody looks, every other time.
        tokio::time::sleep(Duration::from_millis(if index % 2 == 0 { 2500 } else { 0 })).await;
        case.start_operator()?;
    }
    ran_once(case, "crash-1", 4).await
}

/// A Job that vanished while the operator was down: PodDeleted, and the next attempt.
pub async fn a_job_deleted_while_the_operator_is_down_is_run_again(case: &Case) -> Result<()> {
    let spec = with(root(&[("duration", "5s")]), json!({"retries": {"backoff": {"initial": "100ms"}}}));
    case.experiment("run", spec).await?;
    case.wait("Experiment", "run", |object| object["status"]["phase"] == "Running").await?;
    case.kill_operator();
    for job in case.jobs("run").await? {
        case.server.delete("Job", &case.namespace, &job).await?;
        case.server.wait("Job", &case.namespace, &job, SOON, Value::is_null).await?;
    }
    case.start_operator()?;
    let run = case.ends("run", "Completed").await?;
    let attempts = &run["status"]["attempts"];
    ensure!(run["status"]["attempt"] == 2, "{attempts}");
    ensure!(attempts[0]["reason"] == "PodDeleted", "the first attempt ended with {}", attempts[0]["reason"]);
    Ok(())
}

/// A pod that is drained right after it succeeded has succeeded, whether the operator saw the end or the drain first.
pub async fn a_drained_pod_after_success_is_no_loss(case: &Case) -> Result<()> {
    let plays = [("duration", "1s"), ("message", r#"{"metrics": {"acc": 0.5}}"#)];
    case.experiment("run", root(&plays)).await?;
    let pod = case.pod("run", 1, "Succeeded").await?;
    case.server.delete("Pod", &case.namespace, &pod).await?;
    let run = case.ends("run", "Completed").await?;
    ensure!(run["status"]["attempt"] == 1, "{}", run["status"]["attempts"]);
    ensure!(run["status"]["metrics"]["acc"]["last"] == 0.5, "{}", run["status"]["metrics"]);
    Ok(())
}

/// With the operator down, the result is gone with the pod: ResultLost, and the next attempt brings it.
pub async fn a_result_lost_while_the_operator_is_down_is_made_again(case: &Case) -> Result<()> {
    let plays = [("duration", "3s"), ("message", r#"{"metrics": {"acc": 0.5}}"#)];
    let spec = with(root(&plays), json!({"retries": {"backoff": {"initial": "100ms"}}}));
    case.experiment("run", spec).await?;
    case.wait("Experiment", "run", |object| object["status"]["phase"] == "Running").await?;
    case.kill_operator();
    let pod = case.pod("run", 1, "Succeeded").await?;
    for job in case.jobs("run").await? {
        let complete = |job: &Value| crate::kit::condition(job, "Complete")["status"] == "True";
        case.server.wait("Job", &case.namespace, &job, SOON, complete).await?;
    }
    case.server.delete("Pod", &case.namespace, &pod).await?;
    case.server.wait("Pod", &case.namespace, &pod, SOON, Value::is_null).await?;
    case.start_operator()?;
    let run = case.ends("run", "Completed").await?;
    let attempts = &run["status"]["attempts"];
    ensure!(run["status"]["attempt"] == 2 && attempts[0]["reason"] == "ResultLost", "{attempts}");
    ensure!(run["status"]["metrics"]["acc"]["last"] == 0.5, "{}", run["status"]["metrics"]);
    Ok(())
}

/// Half a minute without an API server: what ran goes on as if nothing had been.
pub async fn the_api_server_goes_away_and_comes_back(case: &Case) -> Result<()> {
    case.pipeline("outage", chain(4, &[("duration", "2s")])).await?;
    case.wait("PipelineRun", "outage-1", |run| summary(run, "s1")["experiment"].is_string()).await?;
    case.cluster().stop_api_server()?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    case.cluster().start_api_server()?;
    ran_once(case, "outage-1", 4).await
}

async fn holder(case: &Case, changed_from: &str) -> Result<String> {
    let of = |lease: &Value| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let taken = |lease: &Value| !of(lease).is_empty() && of(lease) != changed_from;
    let lease = case.server.wait("Lease", "cultivar-system", "cultivar-operator", SOON, taken).await?;
    Ok(of(&lease))
}

/// Two replicas: the one that leads is killed, the other goes on; nothing is done twice.
pub async fn another_replica_takes_over(case: &Case) -> Result<()> {
    case.kill_operator();
    let mut replicas: Vec<(&str, Operator)> =
        vec![("replica-a", case.replica("replica-a")?), ("replica-b", case.replica("replica-b")?)];
    case.pipeline("relay", chain(4, &[("duration", "1500ms")])).await?;
    case.wait("PipelineRun", "relay-1", |run| summary(run, "s1")["experiment"].is_string()).await?;
    let leader = holder(case, "").await?;
    let position = replicas.iter().position(|(name, _)| leader.starts_with(name));
    let position = position.ok_or_else(|| Error::new(format!("the Lease is held by {leader}")))?;
    replicas.remove(position).1.kill();
    let next = holder(case, &leader).await?;
    ensure!(next.starts_with(replicas[0].0), "the Lease went to {next}");
    ran_once(case, "relay-1", 4).await?;
    // An orderly end gives the Lease back, so that the next leader waits for nothing.
    replicas.remove(0).1.stop()
}
