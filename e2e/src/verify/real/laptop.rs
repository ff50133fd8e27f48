//! From a folder of this machine to a recorded run, and back, on the cluster that the demo has left.
//!
//! In: a namespace where nothing has run. Out: nothing, or the step that failed.

use crate::cli::Cli;
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::image::{Build, compile_cli};
use serde_json::json;
use std::path::Path;

use super::{get, namespace, says, until};

const NAMESPACE: &str = "laptop";

const PROGRAM: &str = r#"
import argparse, json, os, helper
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
lr = parser.parse_args().lr
print("learning with", lr)
with open("model.txt", "w") as model:
    model.write(helper.model(lr))
with open(os.environ["CULTIVAR_METRICS"], "a") as metrics:
    metrics.write(json.dumps({"acc": 1 - lr}) + "\n")
"#;

/// Submits a program, fetches what it left, clones it, looks into it, and finds it again once its objects are gone.
pub fn submitted(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir().doing(|| "no temporary folder")?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).doing(|| name.to_owned());
    write("train.py", PROGRAM)?;
    write("helper.py", "def model(lr): return f'a model of {lr}'\n")?;
    write(".cultivar.yaml", "env: {FROM: laptop}\n")?;
    namespace(cluster, NAMESPACE)?;
    let cli = Cli::new(&compile_cli(Build::Debug)?, &cluster.kubeconfig(), NAMESPACE);
    let cli = cli.within(folder.path()).with_tools(&cluster.bin());

    let submit = [
        "submit",
        "--name",
        "first",
        "--follow",
        "--out",
        "model=model.txt",
        "--",
        "python3",
        "train.py",
        "--lr",
        "0.25",
    ];
    let refused = cli.call(&[&["submit", "--dry-run"], &submit[3..]].concat())?;
    if refused.code == 0 || !refused.err.contains("the operator makes it") {
        return Err(Error::new("a dry run in a namespace without credentials").log(refused.out + &refused.err));
    }
    cli.run(&submit)?;
    says(&cli.run(&["show", "first"])?, "lr = 0.25")?;
    says(&cli.run(&["logs", "first"])?, "learning with 0.25")?;
    says(&cli.run(&["metrics", "first"])?, "acc")?;
    says(&cli.run(&["metrics", "first", "--series", "--csv"])?, "\nacc,,0.75,")?;
    fetched(&cli, folder.path(), "first", "a model of 0.25")?;

    cli.run(&["clone", "first", "--name", "second", "--param", "lr=0.5", "--follow"])?;
    fetched(&cli, folder.path(), "second", "a model of 0.5")?;
    says(&cli.run(&["compare", "first", "second"])?, "0.5")?;
    write("helper.py", "def model(lr): return f'another model of {lr}'\n")?;
    let mut changed = submit;
    changed[2] = "changed";
    cli.run(&changed)?;
    says(&cli.run(&["compare", "first", "changed", "--code"])?, "+def model(lr): return f'another model of {lr}'")?;
    // No terminal here: what is called reads the end of its input, and ends.
    cli.run(&["debug", "first", "--shell", "python3"])?;
    restored(cluster)?;
    cluster.kubectl(&["-n", NAMESPACE, "delete", "experiment", "first", "--timeout=60s"])?;
    // Nothing but its record is left.
    says(&cli.run(&["show", "first"])?, "lr = 0.25")?;
    says(&cli.run(&["logs", "first"])?, "learning with 0.25")?;
    let listed = cli.run(&["list", "--recorded", "--where", "params.lr=0.25", "--sort", "metric:acc", "-o", "wide"])?;
    let found =
        listed.lines().any(|line| line.starts_with("first ") && line.contains("Recorded") && line.contains("0.75"));
    if !found || !listed.contains("changed ") || listed.contains("second ") {
        return Err(Error::new("the list with what only records tell of").log(listed));
    }
    says(&cli.run(&["list", "--recorded", "--where", "params.lr=0.25", "-o", "yaml"])?, "name: first\n")?;
    cli.run(&["clone", "first", "--name", "third", "--param", "lr=0.75", "--follow"])?;
    fetched(&cli, folder.path(), "third", "a model of 0.75")
}

fn fetched(cli: &Cli, folder: &Path, id: &str, expected: &str) -> Result<()> {
    cli.run(&["artifacts", id, "get", "model", "--to", id])?;
    let text = std::fs::read_to_string(folder.join(id).join("model.txt")).doing(|| format!("the model of {id}"))?;
    says(&text, expected)
}

// What a backup keeps is enough: the rest is read from the record.
fn restored(cluster: &Cluster) -> Result<()> {
    until("the experiment has a verdict", || {
        let object = get(cluster, NAMESPACE, "first")?;
        Ok(object["metadata"]["annotations"]["cultivar.dev/verdict"].is_string())
    })?;
    let before = get(cluster, NAMESPACE, "first")?;
    cluster.kubectl(&["-n", NAMESPACE, "delete", "experiment", "first", "--timeout=60s"])?;
    let metadata = json!({"name": "first", "namespace": NAMESPACE, "annotations": before["metadata"]["annotations"]});
    let backup =
        json!({"apiVersion": before["apiVersion"], "kind": "Experiment", "metadata": metadata, "spec": before["spec"]});
    cluster.apply(&backup.to_string())?;
    cluster.kubectl(&["-n", NAMESPACE, "wait", "--for=condition=Complete", "--timeout=60s", "experiment/first"])?;
    let (was, is) = (&before["status"], &get(cluster, NAMESPACE, "first")?["status"]);
    for field in ["template", "artifacts", "metrics", "environment", "digest", "times", "attempts", "record", "logs"] {
        if is[field] != was[field] {
            let both = format!("{}\n{}", was[field], is[field]);
            return Err(Error::new(format!("status.{field} of a restored experiment")).log(both));
        }
    }
    Ok(())
}
