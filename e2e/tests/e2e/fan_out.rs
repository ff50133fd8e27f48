//! Fan-out: members of one stage, at once and in turns, and what joins on them.

use cultivar_e2e::error::{Error, Result};
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, root, stage, summary, with};

async fn members(case: &Case, run: &str, stage: &str) -> Result<Vec<Value>> {
    let labels = format!("cultivar.dev/pipeline-run={run},cultivar.dev/stage={stage}");
    case.server.list("Experiment", &case.namespace, &labels).await
}

/// A sweep: every combination is an experiment with its coordinates, and the best one goes on.
pub async fn the_best_of_a_sweep_goes_on(case: &Case) -> Result<()> {
    let message = r#"{"metrics": {"acc": ${params.lr}}, "artifacts": [{"name": "model", "uri": "s3://b/${params.lr}-${params.seed}"}]}"#;
    let spec = json!({
        "params": {"seeds": [1, 2]},
        "stages": [
            stage("train", with(root(&[("message", message)]), json!({
                "matrix": {"axes": {"lr": [0.25, 0.75, 0.5], "seed": "${pipeline.params.seeds}"}, "exclude": [{"lr": 0.75, "seed": 2}]},
                "maxParallel": 3,
            }))),
            stage("deploy", with(root(&[]), json!({
                "args": [r#"${= best(stages.train, {"metric": "acc", "use": "Max"}).artifacts.model.uri}"#, "${stages.train.metrics.acc.last}"],
            }))),
        ],
    });
    case.pipeline("sweep", spec).await?;
    let run = case.run_ends("sweep-1", "Completed").await?;
    let state = &summary(&run, "train")["members"];
    ensure!(
        state["total"] == 5 && state["completed"] == 5 && state["ends"]["completed"] == "0-4",
        "members are {state}"
    );
    let all = members(case, "sweep-1", "train").await?;
    ensure!(all.len() == 5, "{} experiments", all.len());
    let of = |index: &str| all.iter().find(|member| member["metadata"]["labels"]["cultivar.dev/member"] == index);
    let Some(fourth) = of("3") else { return Err(Error::new("there is no member 3")) };
    ensure!(fourth["spec"]["params"] == json!({"lr": 0.5, "seed": 1}), "member 3 has {}", fourth["spec"]["params"]);
    let labels = &fourth["metadata"]["labels"];
    ensure!(labels["matrix.cultivar.dev/lr"] == "0.5", "its labels are {labels}");
    let deploy = case.stage("sweep-1", "deploy").await?;
    let args = &deploy["spec"]["args"];
    ensure!(args[0] == "s3://b/0.75-1", "the best is {}", args[0]);
    ensure!(
        args[1] == "[0.25,0.25,0.5,0.5,0.75]" || args[1].as_str().is_some_and(|list| list.starts_with('[')),
        "all are {}",
        args[1]
    );
    Ok(())
}

/// The first failure of a fan-out with `failFast` ends the others, and nothing hangs.
pub async fn the_first_failure_ends_the_others(case: &Case) -> Result<()> {
    let spec = json!({"stages": [
        stage("train", with(root(&[("duration", "${params.seconds}s"), ("outcome", "${params.outcome}")]), json!({
            "matrix": {"include": [{"seconds": 60, "outcome": "succeed"}, {"seconds": 1, "outcome": "fail"}, {"seconds": 60, "outcome": "succeed"}]},
            "maxParallel": 2, "failFast": true,
        }))),
        stage("report", with(root(&[]), json!({"after": [{"stage": "train", "until": "Ended"}], "args": ["${stages.train.phase}"]}))),
    ]});
    case.pipeline("fast", spec).await?;
    let run = case.run_ends("fast-1", "Completed").await?;
    let state = summary(&run, "train");
    ensure!(state["phase"] == "Failed" && state["reason"] == "MemberFailed", "train is {state}");
    let named = state["message"].as_str().is_some_and(|message| message.contains("train-1 (Error)"));
    ensure!(named && state["members"]["cancelled"] == 2, "train is {state}");
    ensure!(members(case, "fast-1", "train").await?.len() == 2, "a member was started after the failure");
    let report = case.stage("fast-1", "report").await?;
    ensure!(report["spec"]["args"] == json!(["Failed"]), "report was told {}", report["spec"]["args"]);
    Ok(())
}

/// What can be told from the spec alone is refused or reported with its field.
pub async fn a_matrix_that_cannot_be_is_not_accepted(case: &Case) -> Result<()> {
    let spec = json!({"stages": [
        stage("train", with(root(&[]), json!({"args": ["${matrix.rl}"], "matrix": {"axes": {"lr": 5}}}))),
        stage("join", with(root(&[]), json!({"args": ["${stages.join2.members}"], "failFast": true}))),
    ]});
    case.pipeline("wrong", spec).await?;
    let pipeline = case.wait("Pipeline", "wrong", |o| condition(o, "Accepted")["status"] == "False").await?;
    let message = condition(&pipeline, "Accepted")["message"].as_str().unwrap_or_default().to_owned();
    for words in [
        "spec.stages[0].matrix.axes.lr: a list of values, or one reference to a list",
        "spec.stages[0].args[0]: matrix has no \"rl\"; it has: index, lr",
        "spec.stages[1].failFast: means something for a stage with matrix or count only",
        "spec.stages[1].args[0]: stages has no \"join2\"",
    ] {
        ensure!(message.contains(words), "{words}: is not in: {message}");
    }
    Ok(())
}
