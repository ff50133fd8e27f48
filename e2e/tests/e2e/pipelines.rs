//! Pipelines: what flows between stages, what a failure stops, what an end means.

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, name, played, root, stage, summary, with};

fn skipped_for(run: &Value, stage: &str, cause: &str) -> Result<()> {
    let state = summary(run, stage);
    let named = state["message"].as_str().is_some_and(|message| message.contains(cause));
    ensure!(state["phase"] == "Skipped" && named, "{stage} is {state}, and does not name {cause}");
    Ok(())
}

/// prepare → (left, right) → evaluate: URIs, metrics, a condition, outputs of the run as a whole.
pub async fn a_diamond_passes_artifacts_and_metrics(case: &Case) -> Result<()> {
    let made =
        |uri: &str| format!(r#"{{"artifacts": [{{"name": "out", "uri": "{uri}"}}], "metrics": {{"val/acc": 0.95}}}}"#);
    case.completed("prep", root(&[("message", &made("s3://lake/digits"))])).await?;
    let train = with(
        root(&[("message", &made("s3://lake/model"))]),
        json!({"inputs": [{"name": "data", "uri": "s3://lake/other"}], "params": {"lr": 0.5}, "args": ["${inputs.data.uri}", "${params.lr}"]}),
    );
    case.completed("train", train).await?;
    let half = |name: &str, lr: Value| {
        json!({
            "name": name, "from": {"experiment": "train"}, "params": {"lr": lr},
            "inputs": [{"name": "data", "uri": "${stages.prepare.artifacts.out.uri}"}],
        })
    };
    let spec = json!({
        "params": {"lr": 0.01},
        "stages": [
            stage("evaluate", with(root(&[]), json!({
                "when": r#"stages.left.metrics["val/acc"].max > 0.9 && stages.right.phase == 'Completed'"#,
                "args": ["${stages.left.artifacts.out.uri}", "${stages.right.artifacts.out.uri}"],
            }))),
            half("left", json!("${pipeline.params.lr}")),
            half("right", json!(0.2)),
            {"name": "prepare", "from": {"experiment": "prep"}},
        ],
        "outputs": {"model": "${stages.left.artifacts.out.uri}", "accuracy": r#"${stages.left.metrics["val/acc"].last}"#},
    });
    case.pipeline("diamond", spec).await?;
    let run = case.run_ends("diamond-1", "Completed").await?;
    let outputs = &run["status"]["outputs"];
    ensure!(*outputs == json!({"model": "s3://lake/model", "accuracy": 0.95}), "outputs are {outputs}");
    let args = async |stage: &str| -> Result<Value> {
        let experiment = name(&case.stage("diamond-1", stage).await?);
        let jobs = case.server.list("Job", &case.namespace, &format!("cultivar.dev/experiment={experiment}")).await?;
        Ok(jobs[0]["spec"]["template"]["spec"]["containers"][0]["args"].clone())
    };
    ensure!(args("left").await? == json!(["s3://lake/digits", "0.01"]), "left: {}", args("left").await?);
    ensure!(args("right").await? == json!(["s3://lake/digits", "0.2"]), "right: {}", args("right").await?);
    let evaluate = args("evaluate").await?;
    ensure!(evaluate == json!(["s3://lake/model", "s3://lake/model"]), "evaluate: {evaluate}");
    let left = case.stage("diamond-1", "left").await?;
    ensure!(left["status"]["clonedFrom"]["name"] == "train", "{}", left["status"]["clonedFrom"]);
    let pipeline = case.wait("Pipeline", "diamond", |o| condition(o, "LastRunSucceeded")["status"] == "True").await?;
    ensure!(condition(&pipeline, "Ready")["status"] == "True", "{}", pipeline["status"]);
    Ok(())
}

/// A stage whose condition is false, and those after it, are skipped; the run completes.
pub async fn a_false_condition_skips_what_follows(case: &Case) -> Result<()> {
    let spec = json!({"stages": [
        stage("train", root(&[("message", r#"{"metrics": {"acc": 0.5}}"#)])),
        stage("deploy", with(root(&[]), json!({"when": "stages.train.metrics.acc.last > 0.9"}))),
        stage("announce", with(root(&[]), json!({"after": [{"stage": "deploy"}]}))),
    ]});
    case.pipeline("gate", spec).await?;
    let run = case.run_ends("gate-1", "Completed").await?;
    for stage in ["deploy", "announce"] {
        ensure!(summary(&run, stage)["reason"] == "ConditionFalse", "{stage}: {}", summary(&run, stage));
    }
    ensure!(case.jobs("").await?.len() == 1, "a skipped stage made a Job");
    Ok(())
}

/// A failed stage skips what depends on it, naming the cause however far away; the other branch finishes.
pub async fn a_failure_skips_its_descendants_only(case: &Case) -> Result<()> {
    let after = |stage: &str| json!({"after": [{"stage": stage}]});
    let spec = json!({"stages": [
        stage("breaks", root(&[("outcome", "fail")])),
        stage("child", with(root(&[]), after("breaks"))),
        stage("grandchild", with(root(&[]), after("child"))),
        stage("steady", root(&[("duration", "1s")])),
        stage("goes-on", with(root(&[]), after("steady"))),
    ]});
    case.pipeline("branches", spec).await?;
    let run = case.run_ends("branches-1", "Failed").await?;
    ensure!(run["status"]["reason"] == "StageFailed", "{}", run["status"]["reason"]);
    skipped_for(&run, "child", "breaks")?;
    skipped_for(&run, "grandchild", "breaks")?;
    for stage in ["steady", "goes-on"] {
        ensure!(summary(&run, stage)["phase"] == "Completed", "{stage}: {}", summary(&run, stage));
    }
    let pipeline = case.wait("Pipeline", "branches", |o| condition(o, "LastRunSucceeded")["status"] == "False").await?;
    ensure!(
        condition(&pipeline, "Ready")["status"] == "True",
        "Ready is about the run's existence: {}",
        pipeline["status"]
    );
    Ok(())
}

/// `onFailure: Stop` ends what still runs and starts nothing more.
pub async fn stop_on_failure_stops_the_rest(case: &Case) -> Result<()> {
    let spec = json!({"onFailure": "Stop", "stages": [
        stage("hangs", root(&[("outcome", "hang")])),
        stage("never", with(root(&[]), json!({"after": [{"stage": "hangs"}]}))),
        stage("breaks", root(&[("duration", "2s"), ("outcome", "fail")])),
    ]});
    case.pipeline("stop", spec).await?;
    let run = case.run_ends("stop-1", "Failed").await?;
    ensure!(summary(&run, "hangs")["phase"] == "Cancelled", "{}", summary(&run, "hangs"));
    ensure!(summary(&run, "never")["phase"] == "Skipped", "{}", summary(&run, "never"));
    ensure!(run["status"]["message"].as_str().is_some_and(|m| m.contains("breaks")), "{}", run["status"]["message"]);
    Ok(())
}

/// A file with pipeline and roots in the wrong order works as it is.
pub async fn roots_and_pipeline_come_in_any_order(case: &Case) -> Result<()> {
    let pipeline = json!({"stages": [
        {"name": "one", "from": {"experiment": "first"}},
        {"name": "two", "from": {"experiment": "second"}, "after": [{"stage": "one"}]},
    ]});
    let items = json!([
        case.manifest("Pipeline", "both", &pipeline),
        case.manifest("Experiment", "second", &json!({"from": {"experiment": "first"}, "params": {"x": 1}})),
        case.manifest("Experiment", "first", &root(&[("duration", "1s")])),
    ]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    case.cluster().apply(&list)?;
    case.run_ends("both-1", "Completed").await?;
    case.cluster().apply(&list)?;
    let pipeline = case.get("Pipeline", "both").await?;
    ensure!(pipeline["status"]["revision"] == 1, "applying the same file again started a run");
    Ok(())
}

/// A pipeline that names an experiment that failed fails its run, and says what to do.
pub async fn a_source_that_failed_fails_the_run(case: &Case) -> Result<()> {
    case.experiment("bad", root(&[("outcome", "fail")])).await?;
    case.ends("bad", "Failed").await?;
    case.pipeline("uses-bad", json!({"stages": [{"name": "only", "from": {"experiment": "bad"}}]})).await?;
    let run = case.run_ends("uses-bad-1", "Failed").await?;
    ensure!(run["status"]["reason"] == "TemplateNotCompleted", "{}", run["status"]);
    let message = run["status"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("only") && message.contains("bad"), "{message}");
    ensure!(case.jobs("").await?.len() == 1, "a stage ran");
    Ok(())
}

/// Cancelling a run ends its pods first, then itself.
pub async fn cancel_stops_every_stage(case: &Case) -> Result<()> {
    let spec = json!({"stages": [
        stage("hangs", root(&[("outcome", "hang")])),
        stage("after", with(root(&[]), json!({"after": [{"stage": "hangs"}]}))),
    ]});
    case.pipeline("long", spec).await?;
    case.wait("PipelineRun", "long-1", |run| summary(run, "hangs")["phase"] == "Running").await?;
    case.server.patch("PipelineRun", &case.namespace, "long-1", &json!({"spec": {"cancel": true}})).await?;
    let run = case.run_ends("long-1", "Cancelled").await?;
    for stage in ["hangs", "after"] {
        ensure!(summary(&run, stage)["phase"] == "Cancelled", "{stage}: {}", summary(&run, stage));
    }
    Ok(())
}

/// `kubectl wait` works on experiments and runs, for good and for bad.
pub async fn kubectl_waits_for_the_condition(case: &Case) -> Result<()> {
    case.experiment("good", root(&[("duration", "1s")])).await?;
    case.experiment("bad", root(&[("outcome", "fail")])).await?;
    case.pipeline("both", json!({"stages": [stage("a", root(&[]))]})).await?;
    case.wait("PipelineRun", "both-1", |run| !run.is_null()).await?;
    for (condition, object) in
        [("Complete", "cvexp/good"), ("Failed", "cvexp/bad"), ("Complete", "cvrun/both-1"), ("Ready", "cvpl/both")]
    {
        let condition = format!("--for=condition={condition}");
        case.cluster().kubectl(&["wait", "-n", &case.namespace, &condition, object, "--timeout=90s"])?;
    }
    let table = case.cluster().kubectl(&["get", "-n", &case.namespace, "cvexp"])?;
    ensure!(table.contains("Completed") && table.contains("Error"), "{table}");
    Ok(())
}

/// Deleting a pipeline whose runs go with it takes experiments, Jobs and pods along too.
pub async fn deletion_takes_everything_along(case: &Case) -> Result<()> {
    let spec = json!({"deletionPolicy": "Delete", "stages": [stage("a", root(&[])), stage("b", json!({"image": "x:1", "podTemplate": played(&[("outcome", "hang")])}))]});
    case.pipeline("goes", spec).await?;
    case.wait("PipelineRun", "goes-1", |run| summary(run, "b")["phase"] == "Running").await?;
    let mut left = Vec::new();
    for kind in ["PipelineRun", "Experiment", "Job", "Pod"] {
        left.extend(case.server.list(kind, &case.namespace, "").await?.iter().map(|object| (kind, name(object))));
    }
    ensure!(left.len() >= 7, "before the deletion there are {left:?}");
    case.server.delete("Pipeline", &case.namespace, "goes").await?;
    for (kind, name) in left {
        case.wait(kind, &name, Value::is_null).await?;
    }
    Ok(())
}

/// A failure that another stage waits for fails nothing; what comes finally runs in any case, and sees how all ended.
pub async fn what_comes_finally_sees_how_all_ended(case: &Case) -> Result<()> {
    let spec = json!({
        "stages": [
            stage("train", root(&[("outcome", "fail")])),
            stage("mend", with(root(&[]), json!({"after": [{"stage": "train", "until": "Failed"}]}))),
            stage("praise", with(root(&[]), json!({"when": "stages.train.phase == 'Completed'"}))),
        ],
        "finally": [
            stage("tell", with(root(&[]), json!({"args": ["${pipeline.phase}", "${stages.train.phase}", "${stages.praise.phase}"]}))),
        ],
    });
    case.pipeline("ends", spec).await?;
    let run = case.run_ends("ends-1", "Completed").await?;
    for (name, phase) in [("train", "Failed"), ("mend", "Completed"), ("praise", "Skipped"), ("tell", "Completed")] {
        ensure!(summary(&run, name)["phase"] == phase, "{name}: {}", summary(&run, name));
    }
    let tell = case.stage("ends-1", "tell").await?;
    ensure!(tell["spec"]["args"] == json!(["Completed", "Failed", "Skipped"]), "it was told {}", tell["spec"]["args"]);
    Ok(())
}

/// A pipeline within another one gets params and hands up outputs; a cancel of the outer run ends the inner one.
pub async fn a_pipeline_runs_within_another(case: &Case) -> Result<()> {
    let message = r#"{"artifacts": [{"name": "model", "uri": "s3://b/${params.name}"}]}"#;
    let inner = json!({
        "runOn": "Demand",
        "params": {"name": "none", "seconds": 0},
        "stages": [stage("fit", with(root(&[("message", message), ("duration", "${params.seconds}s")]), json!({
            "params": {"name": "${pipeline.params.name}", "seconds": "${pipeline.params.seconds}"},
        })))],
        "outputs": {"model": "${stages.fit.artifacts.model.uri}"},
    });
    case.pipeline("inner", inner).await?;
    let outer = json!({"stages": [
        stage("one", json!({"pipeline": "inner", "params": {"name": "digits"}})),
        stage("use", with(root(&[]), json!({"args": ["${stages.one.outputs.model}"]}))),
    ]});
    case.pipeline("outer", outer).await?;
    let run = case.run_ends("outer-1", "Completed").await?;
    let args = &case.stage("outer-1", "use").await?["spec"]["args"];
    ensure!(*args == json!(["s3://b/digits"]), "use got {args}");
    let nested = summary(&run, "one")["run"].as_str().unwrap_or_default().to_owned();
    let nested = case.get("PipelineRun", &nested).await?;
    ensure!(nested["metadata"]["annotations"]["cultivar.dev/nested-in"] == "outer", "{}", nested["metadata"]);
    let inner = case.get("Pipeline", "inner").await?;
    ensure!(
        inner["status"]["latestRun"].is_null(),
        "the inner run counts as one of its pipeline's: {}",
        inner["status"]
    );

    case.pipeline("long", json!({"stages": [stage("one", json!({"pipeline": "inner", "params": {"seconds": 600}}))]}))
        .await?;
    let run = case.wait("PipelineRun", "long-1", |run| summary(run, "one")["phase"] == "Running").await?;
    let nested = summary(&run, "one")["run"].as_str().unwrap_or_default().to_owned();
    case.wait("PipelineRun", &nested, |run| summary(run, "fit")["phase"] == "Running").await?;
    let patch = json!({"spec": {"cancel": true}});
    case.server.patch("PipelineRun", &case.namespace, "long-1", &patch).await?;
    case.run_ends("long-1", "Cancelled").await?;
    case.run_ends(&nested, "Cancelled").await?;
    Ok(())
}

/// A pipeline that contains itself ends with the way in words, and not never.
pub async fn a_pipeline_that_contains_itself_ends(case: &Case) -> Result<()> {
    case.pipeline("ouroboros", json!({"stages": [stage("tail", json!({"pipeline": "ouroboros"}))]})).await?;
    let run = case.run_ends("ouroboros-1", "Failed").await?;
    let message = summary(&run, "tail")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("tail") && message.len() <= 1024, "{message}");
    let runs = case.server.list("PipelineRun", &case.namespace, "").await?;
    ensure!(runs.len() == 8, "{} runs", runs.len());
    let deepest = runs.iter().any(|run| {
        let message = summary(run, "tail")["message"].as_str().unwrap_or_default();
        message.contains("pipelines nest up to 8 deep: ouroboros → ouroboros")
    });
    ensure!(deepest, "no run says why it went no deeper");
    Ok(())
}

/// A loop trains until it is good enough; a turn reads what the one before brought.
pub async fn a_loop_ends_when_its_condition_holds(case: &Case) -> Result<()> {
    let message = r#"{"metrics": {"acc": ${= 0.5 + 0.25 * double(params.turn)}}}"#;
    let spec = json!({"stages": [
        stage("train", with(root(&[("message", message)]), json!({
            "params": {"turn": "${repeat.index}"}, "args": ["${repeat.last.metrics.acc.last ?? 0}"],
            "repeat": {"until": "repeat.last.metrics.acc.last > 0.9", "max": 10},
        }))),
        stage("report", with(root(&[]), json!({"args": ["${stages.train.metrics.acc.last}"]}))),
    ]});
    case.pipeline("loop", spec).await?;
    let run = case.run_ends("loop-1", "Completed").await?;
    ensure!(summary(&run, "train")["turn"] == 3, "{}", summary(&run, "train"));
    let args = &case.stage("loop-1", "report").await?["spec"]["args"];
    ensure!(*args == json!(["1"]) || *args == json!(["1.0"]), "report got {args}");
    let last = summary(&run, "train")["experiment"].as_str().unwrap_or_default().to_owned();
    let last = case.get("Experiment", &last).await?;
    ensure!(last["spec"]["args"] == json!(["0.75"]), "the third turn got {}", last["spec"]["args"]);
    Ok(())
}
