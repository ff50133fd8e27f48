//! Many at once, and what one costs. No time is asserted here: `cargo measure` tells times.

use cultivar_e2e::error::Result;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::time::Duration;

use crate::ensure;
use crate::kit::{Case, name, root, stage, with};

fn chain(stages: usize) -> Value {
    let link = |index: usize| match index.checked_sub(1) {
        Some(before) => {
            stage(&format!("s{index}"), with(root(&[]), json!({"after": [{"stage": format!("s{before}")}]})))
        }
        None => stage("s0", root(&[])),
    };
    json!({"stages": (0..stages).map(link).collect::<Vec<_>>()})
}

/// At most five writes a stage and four a run.
pub async fn a_run_costs_few_writes(case: &Case) -> Result<()> {
    const BUDGET: u64 = 5 * 5 + 4;
    let before = case.writes()?;
    case.pipeline("cheap", chain(5)).await?;
    case.run_ends("cheap-1", "Completed").await?;
    case.wait("Pipeline", "cheap", |object| object["status"]["latestRun"]["phase"] == "Completed").await?;
    let written = case.writes()? - before;
    ensure!(written <= BUDGET, "a run of five stages took {written} writes; the budget is {BUDGET}");
    Ok(())
}

/// Two hundred chains at once: every one completes, with exactly one Job a stage.
pub async fn two_hundred_pipelines_make_five_jobs_each(case: &Case) -> Result<()> {
    let mut creating = futures::stream::iter(0..200)
        .map(|index| async move { case.pipeline(&format!("many-{index:03}"), chain(5)).await })
        .buffer_unordered(16);
    while let Some(answer) = creating.next().await {
        answer?;
    }
    let terminal = |run: &Value| matches!(run["status"]["phase"].as_str(), Some("Completed" | "Failed" | "Cancelled"));
    for index in 0..200 {
        let run = format!("many-{index:03}-1");
        let ended = case.server.wait("PipelineRun", &case.namespace, &run, Duration::from_secs(600), terminal).await?;
        ensure!(
            ended["status"]["phase"] == "Completed",
            "{run}: {} {}",
            ended["status"]["phase"],
            ended["status"]["message"]
        );
    }
    let mut per_run = std::collections::BTreeMap::<String, usize>::new();
    for job in case.server.list("Job", &case.namespace, "cultivar.dev/experiment").await? {
        let run = job["metadata"]["labels"]["cultivar.dev/pipeline-run"].as_str().unwrap_or_default().to_owned();
        *per_run.entry(run).or_default() += 1;
    }
    let odd: Vec<_> = per_run.iter().filter(|(_, jobs)| **jobs != 5).collect();
    ensure!(per_run.len() == 200 && odd.is_empty(), "{} runs have Jobs; not five: {odd:?}", per_run.len());
    let experiments = case.server.list("Experiment", &case.namespace, "").await?;
    let again: Vec<String> = experiments.iter().filter(|one| one["status"]["attempt"] != 1).map(name).collect();
    ensure!(
        experiments.len() == 1000 && again.is_empty(),
        "{} experiments; more than one attempt: {again:?}",
        experiments.len()
    );
    Ok(())
}
