//! `compare`: in what experiments differ; of two runs, stage by stage.

mod code;

use cultivar_core::domain::{ExperimentRecord, RunRecord};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::args::Format;
use crate::cluster::{Cluster, experiment, run};
use crate::error::{Error, Result};
use crate::output::{self, number, plain};
use crate::recorded;
use crate::store::Operator;

/// In what experiments, or two runs, differ.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar compare train-7f3a train-81c2\n  kubectl cultivar compare digits-3 digits-4    # runs: stage by stage\n  kubectl cultivar compare train-7f3a train-81c2 --code"
)]
pub struct Compare {
    /// Names of experiments, or of two runs.
    #[arg(required = true, num_args = 2..)]
    ids: Vec<String>,
    /// What is equal too.
    #[arg(long)]
    all: bool,
    /// The lines in which the code of two experiments differs.
    #[arg(long, conflicts_with = "all")]
    code: bool,
    #[command(flatten)]
    operator: Operator,
}

pub async fn compare(cluster: &Cluster, format: Option<Format>, asked: &Compare) -> Result<()> {
    let first = cluster.find("Experiment", &asked.ids[0]).await?;
    if first.is_none()
        && let Some(one) = cluster.find("PipelineRun", &asked.ids[0]).await?
    {
        let [_, other] = asked.ids.as_slice() else {
            return Err(Error::refused("runs are compared by twos"));
        };
        if asked.code {
            return Err(Error::refused("--code is of experiments, not of runs"));
        }
        return runs(cluster, &run(&one)?, &run(&cluster.get("PipelineRun", other).await?)?).await;
    }
    let mut records = Vec::new();
    for id in &asked.ids {
        records.push(experiment(&recorded::get(cluster, &asked.operator, id).await?.0)?);
    }
    if asked.code {
        let [one, other] = records.as_slice() else {
            return Err(Error::refused("code is compared by twos"));
        };
        return code::differences(cluster, &asked.operator, one, other).await;
    }
    let columns: Vec<BTreeMap<String, String>> = records.iter().map(facts).collect();
    let rows = rows(&columns, asked.all);
    if matches!(format, Some(Format::Json | Format::Yaml)) {
        let facts: BTreeMap<&String, &BTreeMap<String, String>> = asked.ids.iter().zip(&columns).collect();
        println!("{:#}", serde_json::json!(facts));
    } else if rows.is_empty() {
        println!("they do not differ");
    } else {
        let head: Vec<&str> = std::iter::once("WHAT").chain(asked.ids.iter().map(String::as_str)).collect();
        print!("{}", output::table(&head, rows));
    }
    Ok(())
}

async fn runs(cluster: &Cluster, one: &RunRecord, other: &RunRecord) -> Result<()> {
    for stage in &one.status.stages {
        let Some(there) = other.status.stages.iter().find(|there| there.name == stage.name) else {
            println!("{}: only in {}", stage.name, one.meta.name);
            continue;
        };
        let (Some(a), Some(b)) = (&stage.experiment, &there.experiment) else {
            println!("{}: {} here, {} there", stage.name, stage.phase, there.phase);
            continue;
        };
        let records = [cluster.get("Experiment", a).await?, cluster.get("Experiment", b).await?];
        let [a, b] = [experiment(&records[0])?, experiment(&records[1])?];
        let rows = rows(&[facts(&a), facts(&b)], false);
        if rows.is_empty() {
            println!("{}: the same", stage.name);
        } else {
            let table = output::table(&["WHAT", &one.meta.name, &other.meta.name], rows);
            print!("{}:\n{}", stage.name, table.lines().map(|line| format!("  {line}\n")).collect::<String>());
        }
    }
    for there in &other.status.stages {
        if !one.status.stages.iter().any(|stage| stage.name == there.name) {
            println!("{}: only in {}", there.name, other.meta.name);
        }
    }
    Ok(())
}

/// What can differ, by name: what is run, what went in, what came out.
fn facts(record: &ExperimentRecord) -> BTreeMap<String, String> {
    let status = &record.status;
    let template = record.template();
    let mut facts = BTreeMap::new();
    let mut fact = |name: String, value: String| drop(facts.insert(name, value));
    fact("phase".into(), status.phase.to_string());
    for field in ["image", "command", "args", "env", "resources", "workers"] {
        if let Some(value) = template.get(field) {
            fact(field.into(), plain(value));
        }
    }
    let commit = template.pointer("/source/git/commit").or_else(|| template.pointer("/source/git/revision"));
    if let Some(code) = commit.or_else(|| template.pointer("/source/packed/digest")) {
        fact("source".into(), plain(code));
    }
    for (name, value) in template.get("params").and_then(Value::as_object).into_iter().flatten() {
        fact(format!("params.{name}"), plain(value));
    }
    for (name, value) in &status.logged_params {
        fact(format!("logged.{name}"), plain(value));
    }
    for input in &status.inputs {
        fact(format!("inputs.{}", input.name), input.digest.clone().unwrap_or_else(|| input.uri.clone()));
    }
    for artifact in &status.artifacts {
        fact(format!("artifacts.{}", artifact.name), artifact.digest.clone().unwrap_or_else(|| artifact.uri.clone()));
    }
    for (name, metric) in &status.metrics {
        fact(format!("metrics.{name}"), number(metric.last));
    }
    for (name, value) in &status.environment {
        fact(format!("environment.{name}"), plain(value));
    }
    facts
}

fn rows(columns: &[BTreeMap<String, String>], all: bool) -> Vec<Vec<String>> {
    let mut names: Vec<&String> = columns.iter().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let row = |name: &String| {
        let values: Vec<&str> = columns.iter().map(|facts| facts.get(name).map_or("", String::as_str)).collect();
        let differs = values.iter().any(|value| *value != values[0]);
        (differs || all).then(|| {
            let shown = values.into_iter().map(cut);
            std::iter::once(name.clone()).chain(shown).collect()
        })
    };
    names.into_iter().filter_map(row).collect()
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_told() {
        let record = |lr: f64, acc: f64| {
            experiment(&json!({
                "metadata": {"name": "e"},
                "status": {"phase": "Completed", "template": {"image": "x", "params": {"lr": lr, "epochs": 3}}, "metrics": {"acc": {"last": acc}}},
            }))
            .unwrap()
        };
        let columns = [facts(&record(0.1, 0.9)), facts(&record(0.2, 0.9)), facts(&record(0.1, 0.9))];
        assert_eq!(rows(&columns, false), [["params.lr", "0.1", "0.2", "0.1"].map(str::to_owned)]);
        assert!(rows(&columns, true).len() > 3);
        assert_eq!(cut(&"ü".repeat(80)).chars().count(), 61);
    }
}
