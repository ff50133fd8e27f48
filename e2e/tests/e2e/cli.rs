//! `kubectl cultivar` against a live API server.

use cultivar_e2e::cli::Cli;
use cultivar_e2e::error::{Error, Result};
use cultivar_e2e::exec;
use cultivar_e2e::image::{Build, compile_cli};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::ensure;
use crate::kit::{Case, pinned, root, stage, summary, with};

fn cli(case: &Case) -> Result<Cli> {
    static BINARY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let binary = BINARY.get_or_init(|| compile_cli(Build::Debug).map_err(|error| error.to_string()));
    let binary = binary.as_ref().map_err(|why| Error::new("the command line does not compile").why(why))?;
    Ok(Cli::new(binary, &case.cluster().kubeconfig(), &case.namespace))
}

// In a thread of its own: a command that follows must not hold up the watches of the case.
async fn call(cli: &Cli, words: &[&str]) -> Result<cultivar_e2e::cli::Ended> {
    let (cli, words) = (cli.clone(), words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let called = tokio::task::spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        cli.call(&words)
    });
    called.await.map_err(|error| Error::new("a command's thread ended").why(error))?
}

async fn done(cli: &Cli, words: &[&str]) -> Result<String> {
    let ended = call(cli, words).await?;
    ensure!(ended.code == 0, "kubectl cultivar {words:?}: {} {} {}", ended.code, ended.out, ended.err);
    Ok(ended.out)
}

async fn by_hand(case: &Case) -> Result<()> {
    let digest = format!("sha256:{}", "d1".repeat(32));
    let made = json!({"artifacts": [{"name": "data", "uri": "s3://b/data.npz", "digest": digest}]}).to_string();
    case.completed("digits-prepare", pinned(&[("message", &made)], json!({"params": {"seed": 7}}))).await?;
    let scored = json!({"metrics": {"acc": 0.93}}).to_string();
    let input = json!([{"name": "data", "experiment": "digits-prepare", "artifact": "data"}]);
    let train = json!({"params": {"seed": 7, "lr": 0.1}, "inputs": input});
    case.completed("digits-train", pinned(&[("message", &scored)], train)).await.map(drop)
}

/// Runs by hand become a pipeline that does nothing anew; a change is planned, run, and compared.
pub async fn a_pipeline_grows_from_runs_by_hand(case: &Case) -> Result<()> {
    by_hand(case).await?;
    let cli = cli(case)?;
    let grown = done(&cli, &["grow", "digits", "--from", "digits-train"]).await?;
    ensure!(grown.contains("uri: ${stages.prepare.artifacts.data.uri}") && grown.contains("seed: 7"), "{grown}");
    done(&cli, &["grow", "digits", "--from", "digits-train", "--apply"]).await?;
    case.run_ends("digits-1", "Completed").await?;
    let labels = "cultivar.dev/pipeline-run=digits-1";
    ensure!(case.server.list("Job", &case.namespace, labels).await?.is_empty(), "the grown pipeline ran anew");
    let tree = done(&cli, &["tree", "digits-1"]).await?;
    ensure!(tree.matches("Reused").count() == 2, "{tree}");

    let plan = done(&cli, &["plan", "digits"]).await?;
    ensure!(plan.contains("2 reused, 0 to run"), "{plan}");
    let plan = done(&cli, &["plan", "digits", "-p", "seed=8"]).await?;
    ensure!(plan.contains("params.seed: 8 here, 7 in digits-1-prepare-"), "{plan}");
    ensure!(plan.contains("0 reused, 1 to run, 1 to follow"), "{plan}");
    done(&cli, &["run", "digits", "-p", "seed=8", "--name", "other", "--follow"]).await?;
    let jobs = case.server.list("Job", &case.namespace, "cultivar.dev/pipeline-run=other").await?;
    ensure!(jobs.len() == 2, "it was planned that two stages run, and {} did", jobs.len());
    let compared = done(&cli, &["compare", "digits-1", "other"]).await?;
    ensure!(compared.contains("params.seed"), "{compared}");
    let lineage = done(&cli, &["lineage", "digits-prepare"]).await?;
    ensure!(lineage.contains("digits-train (data)"), "{lineage}");
    Ok(())
}

/// What is exported does the same elsewhere.
pub async fn an_exported_pipeline_does_the_same_elsewhere(case: &Case) -> Result<()> {
    by_hand(case).await?;
    let cli = cli(case)?;
    done(&cli, &["grow", "digits", "--from", "digits-train", "--apply"]).await?;
    case.run_ends("digits-1", "Completed").await?;
    let inline = done(&cli, &["export", "digits", "--inline"]).await?;
    let namespace = format!("{}-b", case.namespace);
    case.server.namespace(&namespace).await?;
    let mut apply = case.cluster().kubectl_command();
    exec::output(apply.args(["-n", &namespace, "apply", "--server-side", "-f", "-"]), Some(&inline))?;
    let completed = |run: &Value| run["status"]["phase"] == "Completed";
    let limit = std::time::Duration::from_secs(60);
    let run = case.server.wait("PipelineRun", &namespace, "digits-1", limit, completed).await?;
    for (stage, by_hand) in [("prepare", "digits-prepare"), ("train", "digits-train")] {
        let name = summary(&run, stage)["experiment"].as_str().unwrap_or_default().to_owned();
        let there = case.server.get("Experiment", &namespace, &name).await?.unwrap_or_default();
        let here = case.get("Experiment", by_hand).await?;
        let digest = &there["status"]["digest"];
        ensure!(
            digest.is_string() && *digest == here["status"]["digest"],
            "{stage}: {digest} there, {} here",
            here["status"]["digest"]
        );
        ensure!(there["status"]["reusedFrom"].is_null(), "nothing has run there before");
    }
    case.server.delete("Namespace", "", &namespace).await
}

/// Clones, also of what failed; lists, shows, and why.
pub async fn experiments_are_cloned_listed_and_explained(case: &Case) -> Result<()> {
    by_hand(case).await?;
    let cli = cli(case)?;
    done(&cli, &["clone", "digits-train", "--name", "slower", "-p", "lr=0.01", "--follow"]).await?;
    let slower = case.get("Experiment", "slower").await?;
    ensure!(
        slower["status"]["template"]["params"] == json!({"seed": 7, "lr": 0.01}),
        "{}",
        slower["status"]["template"]
    );
    let compared = done(&cli, &["compare", "digits-train", "slower"]).await?;
    ensure!(compared.contains("params.lr") && !compared.contains("params.seed"), "{compared}");
    let bad = json!({"sim/outcome": "fail", "sim/duration": "200ms", "sim/exit-code": "3"});
    let set = format!("podTemplate.metadata.annotations={bad}");
    let failed = call(&cli, &["clone", "digits-train", "--name", "bad", "--set", &set, "--follow"]).await?;
    ensure!(failed.code == 1 && failed.out.contains("Failed"), "{failed:?}");
    let why = done(&cli, &["why", "bad"]).await?;
    ensure!(why.contains("experiment bad is Failed: Error") && why.contains("exit code 3"), "{why}");
    // A failed run is mended by cloning it.
    let set = r#"podTemplate.metadata.annotations={"sim/outcome": "succeed"}"#;
    done(&cli, &["clone", "bad", "--name", "mended", "--set", set, "--follow"]).await?;

    let listed = done(&cli, &["list", "--where", "params.lr<0.1", "--sort", "metric:acc", "-o", "name"]).await?;
    ensure!(listed.trim() == "experiment.cultivar.dev/slower", "{listed}");
    let failed = done(&cli, &["list", "--phase", "Failed", "-o", "name"]).await?;
    ensure!(failed.trim() == "experiment.cultivar.dev/bad", "{failed}");
    let shown = done(&cli, &["show", "digits-train"]).await?;
    ensure!(shown.contains("metric       acc = 0.93") && shown.contains("param        lr = 0.1"), "{shown}");
    let json = done(&cli, &["show", "digits-train", "-o", "json"]).await?;
    ensure!(serde_json::from_str::<Value>(&json).is_ok_and(|json| json["kind"] == "Experiment"), "{json}");
    ensure!(done(&cli, &["metrics", "digits-train", "--csv"]).await?.contains("acc,0.93,"), "no metric");
    done(&cli, &["delete", "mended"]).await?;
    case.wait("Experiment", "mended", Value::is_null).await?;

    for (words, code, said) in [
        (&["show", "nobody"][..], 3, "there is no Experiment nobody"),
        (&["clone", "digits-train", "--unset", "params.nothing"], 4, "cannot be copied"),
        (&["grow", "x", "--from", "bad"], 4, "experiment bad is Failed"),
        (&["clone"], 2, "Usage"),
    ] {
        let ended = call(&cli, words).await?;
        ensure!(ended.code == code && ended.err.contains(said), "{words:?}: {ended:?}");
    }
    Ok(())
}

/// A sweep, a gate, a run that goes on where it failed, an end by hand.
pub async fn runs_are_swept_approved_resumed_and_cancelled(case: &Case) -> Result<()> {
    by_hand(case).await?;
    let cli = cli(case)?;
    let sweep =
        ["sweep", "digits-train", "-p", "lr=log(1e-4,1e-1)", "-p", "seed=1..2", "--count", "2", "--name", "wide"];
    let printed = done(&cli, &sweep).await?;
    ensure!(printed.matches("lr:").count() == 4, "{printed}");
    done(&cli, &[&sweep[..], &["--apply"]].concat()).await?;
    let run = case.run_ends("wide-1", "Completed").await?;
    ensure!(summary(&run, "sweep")["members"]["total"] == 4, "{}", summary(&run, "sweep"));

    let spec = json!({"stages": [
        stage("ask", json!({"gate": {"message": "Ship it?", "values": {"share": {"type": "number"}}}})),
        stage("ship", with(root(&[("outcome", "${params.outcome}")]), json!({
            "params": {"outcome": "${pipeline.params.outcome}"}, "args": ["${stages.ask.values.share}"],
        }))),
    ], "params": {"outcome": "fail"}});
    case.pipeline("ship", spec).await?;
    case.wait("PipelineRun", "ship-1", |run| summary(run, "ask")["reason"] == "WaitingForApproval").await?;
    let wrong = call(&cli, &["approve", "ship-1", "ship"]).await?;
    ensure!(wrong.code == 3 && wrong.err.contains("it has: ask"), "{wrong:?}");
    done(&cli, &["approve", "ship-1", "ask", "--value", "share=0.5", "--comment", "fine"]).await?;
    let failed = case.run_ends("ship-1", "Failed").await?;
    ensure!(summary(&failed, "ask")["phase"] == "Completed", "{}", summary(&failed, "ask"));
    let why = done(&cli, &["why", "ship-1"]).await?;
    ensure!(why.contains("stage ship is Failed") && why.contains("  experiment ship-1-ship-"), "{why}");
    done(&cli, &["resume", "ship-1", "-p", "outcome=succeed", "--follow"]).await?;

    case.experiment("endless", root(&[("outcome", "hang")])).await?;
    case.wait("Experiment", "endless", |object| object["status"]["phase"] == "Running").await?;
    let wrong = call(&cli, &["cancel", "endless", "--skip-finally"]).await?;
    ensure!(wrong.code == 4 && wrong.err.contains("endless is an experiment"), "{wrong:?}");
    done(&cli, &["cancel", "endless"]).await?;
    case.ends("endless", "Cancelled").await?;
    done(&cli, &["queues"]).await.map(drop)
}
