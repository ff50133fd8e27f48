//! `why`: why an experiment or a run stands where it does, down to the log of what failed.

use cultivar_core::domain::{ExperimentRecord, RunRecord};
use cultivar_crds::Phase;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::fmt::Write as _;

use crate::cluster::{Cluster, experiment, run};
use crate::error::Result;
use crate::output;

/// Why an experiment or a run stands where it does.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar why digits-4")]
pub struct Why {
    /// Name of an experiment or a run.
    id: String,
}

pub async fn why(cluster: &Cluster, asked: &Why) -> Result<()> {
    let mut name = asked.id.clone();
    let mut depth = 0;
    // A run stands where it does for one of its stages, which may be a run.
    while cluster.find("Experiment", &name).await?.is_none() {
        let record = run(&cluster.get("PipelineRun", &name).await?)?;
        print!("{}", indented(depth, &of_run(&record)));
        let Some(next) = culprit(&record) else { return Ok(()) };
        (name, depth) = (next, depth + 1);
    }
    let record = experiment(&cluster.get("Experiment", &name).await?)?;
    print!("{}", indented(depth, &of_experiment(&record)));
    Ok(())
}

fn indented(depth: usize, text: &str) -> String {
    text.lines().map(|line| format!("{}{line}\n", "  ".repeat(depth))).collect()
}

fn of_run(record: &RunRecord) -> String {
    let status = &record.status;
    let mut out = format!("run {} is {}", record.meta.name, output::phase(&status.phase.to_string()));
    told(&mut out, status.reason.map(|reason| reason.to_string()), status.message.as_deref());
    doubts(&mut out, &status.conditions);
    for stage in status.stages.iter().filter(|stage| stage.phase != Phase::Completed) {
        let mut line = format!("  stage {} is {}", stage.name, output::phase(&stage.phase.to_string()));
        told(&mut line, stage.reason.map(|reason| reason.to_string()), stage.message.as_deref());
        out += &line;
    }
    out
}

// The stage that failed first, else one that has not ended.
fn culprit(record: &RunRecord) -> Option<String> {
    let stages = &record.status.stages;
    let failed = stages.iter().find(|stage| stage.phase == Phase::Failed);
    let stage =
        failed.or_else(|| stages.iter().find(|stage| !stage.phase.is_terminal() && stage.experiment.is_some()))?;
    stage.experiment.clone().or_else(|| stage.run.clone())
}

fn told(out: &mut String, reason: Option<String>, message: Option<&str>) {
    match (reason, message) {
        (Some(reason), Some(message)) => drop(writeln!(out, ": {reason}: {message}")),
        (Some(only), None) => drop(writeln!(out, ": {only}")),
        (None, Some(only)) => drop(writeln!(out, ": {only}")),
        (None, None) => out.push('\n'),
    }
}

fn of_experiment(record: &ExperimentRecord) -> String {
    let status = &record.status;
    let mut out = format!("experiment {} is {}", record.meta.name, output::phase(&status.phase.to_string()));
    told(&mut out, status.reason.map(|reason| reason.to_string()), status.message.as_deref());
    if let Some(from) = &status.cloned_from {
        let _ = writeln!(out, "  its template is a copy of {}'s", from.name);
    }
    if let Some(cache) = &status.cache {
        let message = cache.message.clone().unwrap_or_default();
        let _ = writeln!(out, "  reuse: {:?}{}{message}", cache.result, if message.is_empty() { "" } else { ": " });
    }
    if let Some(queue) = &status.queue {
        let name = queue.name.clone().unwrap_or_default();
        let position = queue.position.map(|position| format!(", place {position}")).unwrap_or_default();
        let preempted = queue.preempted.map(|times| format!(", stopped for others {times} times")).unwrap_or_default();
        let _ = writeln!(out, "  queue {name}{position}{preempted}");
    }
    doubts(&mut out, &status.conditions);
    for attempt in &status.attempts {
        let Some(reason) = attempt.reason else { continue };
        let code = attempt.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        let node = attempt.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        let message = attempt.message.as_deref().unwrap_or_default();
        let _ = writeln!(out, "  attempt {}{node}: {reason}{code}: {message}", attempt.number);
        for line in attempt.tail.as_deref().unwrap_or_default().lines() {
            let _ = writeln!(out, "    | {line}");
        }
    }
    out
}

// What does not hold, but for what the phase tells already.
fn doubts(out: &mut String, conditions: &[Condition]) {
    let told = ["Failed", "Stalled", "Ready"];
    for condition in conditions.iter().filter(|condition| {
        !condition.message.is_empty() && !told.contains(&condition.type_.as_str()) && condition.status == "False"
    }) {
        let _ = writeln!(out, "  {}: {}: {}", condition.type_, condition.reason, condition.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_chain_goes_down_to_the_log() {
        let record = run(&json!({
            "metadata": {"name": "digits-4"},
            "status": {"phase": "Failed", "reason": "StageFailed", "message": "stage train failed", "stages": [
                {"name": "prepare", "phase": "Completed", "experiment": "p"},
                {"name": "train", "phase": "Failed", "experiment": "t", "reason": "Error", "message": "exit code 1"},
            ]},
        }))
        .unwrap();
        assert_eq!(culprit(&record).as_deref(), Some("t"));
        assert_eq!(
            of_run(&record),
            "run digits-4 is Failed: StageFailed: stage train failed\n  stage train is Failed: Error: exit code 1\n"
        );
        let record = experiment(&json!({
            "metadata": {"name": "t"},
            "status": {"phase": "Failed", "reason": "Error", "message": "exit code 1", "cache": {"result": "Miss", "message": "params.lr: 1 here, 2 in u"},
                "attempts": [{"number": 1, "job": "j", "node": "n1", "exitCode": 1, "reason": "Error", "message": "it ended", "tail": "Traceback\nKeyError: lr"}]},
        }))
        .unwrap();
        let expected = "experiment t is Failed: Error: exit code 1\n  reuse: Miss: params.lr: 1 here, 2 in u\n  attempt 1 on n1: Error, exit code 1: it ended\n    | Traceback\n    | KeyError: lr\n";
        assert_eq!(of_experiment(&record), expected);
    }
}
