//! What only a real node can show, on the cluster that the demo has left: programs that talk to each other.
//!
//! In: the demo's cluster, with the operator and the images in it. Out: one line a check.

mod files;
mod forge;
mod laptop;
mod store_away;

use crate::cli::Cli;
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::image::{Build, compile_cli};
use crate::ui::seconds;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Count;

/// Where the demo plays.
const DEMO: &str = "cultivar-demo";
const DEFAULT: &str = "default";

/// How long a run of seconds may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// The demo's image, which has a Python.
const IMAGE: &str = "cultivar.dev/demo/digits:1";

type Check = fn(&Cluster) -> Result<()>;

/// Plays every check.
pub fn check(name: &str) -> Result<Count> {
    let cluster = Cluster::find(name)?;
    let mut count = Count::default();
    let checks: [(&str, Check); 9] = [
        ("what was done by hand, or has not changed, is not done again", reused),
        ("from runs by hand to a pipeline, and out of the cluster, by the command line", grown),
        ("from a folder of this machine to a recorded run, and found again", laptop::submitted),
        ("code of a private repository, pinned to its commit", forge::fetched),
        ("a store that is away for a while loses nothing", store_away::awaited),
        ("a stage by its tag runs by its digest, and is reused", tagged),
        ("what programs hand on through files arrives", files::conform),
        ("two workers find each other, and the first reports", gang),
        ("a queue admits what fits, one after the other", queue),
    ];
    for (what, check) in checks {
        let begun = Instant::now();
        let outcome = check(&cluster);
        match &outcome {
            Ok(()) => println!("✓ {what}  {}", seconds(begun.elapsed())),
            Err(error) => println!("✗ {what}: {error}"),
        }
        count.add(Count::one(outcome.is_ok()));
    }
    Ok(count)
}

// The demo's first run does what its three experiments did, its second one changes the training.
fn reused(cluster: &Cluster) -> Result<()> {
    for (run, expected) in [("digits-1", [true, true, true]), ("digits-2", [true, false, false])] {
        let text = cluster.kubectl(&["-n", DEMO, "get", "pipelinerun", run, "-o", "json"])?;
        let object = read(&text)?;
        let stages = object["status"]["stages"].as_array().cloned().unwrap_or_default();
        let found: Vec<bool> = stages.iter().map(|stage| !stage["reusedFrom"].is_null()).collect();
        if found != expected {
            return Err(Error::new(format!("{run}: reused are {found:?} of prepare, train and evaluate")).log(text));
        }
    }
    Ok(())
}

// Clone, compare, grow, plan, run, export: what the README shows.
fn grown(cluster: &Cluster) -> Result<()> {
    let cli = Cli::new(&compile_cli(Build::Debug)?, &cluster.kubeconfig(), DEMO);
    for (name, gamma) in [("by-hand-1", "gamma=0.001"), ("by-hand-2", "gamma=0.002"), ("by-hand-3", "gamma=0.003")] {
        cli.run(&["clone", "digits-train", "--name", name, "--param", gamma, "--follow"])?;
    }
    let compared = cli.run(&["compare", "by-hand-1", "by-hand-2", "by-hand-3"])?;
    let log = cli.run(&["logs", "by-hand-1"]);
    let grown = cli.run(&["grow", "by-hand", "--from", "digits-evaluate", "--apply"])?;
    says(&compared, "params.gamma")?;
    says(&grown, "3 stages")?;
    log.map(drop)?;
    let run = "by-hand-1";
    cluster.kubectl(&[
        "-n",
        DEMO,
        "wait",
        "--for=condition=Complete",
        "--timeout=120s",
        &format!("pipelinerun/{run}"),
    ])?;
    let tree = cli.run(&["tree", run])?;
    if tree.matches("Reused").count() != 3 {
        return Err(Error::new("a pipeline that was grown did work anew").log(tree));
    }
    // A change, planned and run.
    let plan = cli.run(&["plan", "by-hand"])?;
    says(&plan, "3 reused, 0 to run")?;
    let patch = r#"{"spec": {"stages": [{"name": "prepare", "from": {"experiment": "digits-prepare"}},
        {"name": "train", "from": {"experiment": "digits-train"}, "params": {"gamma": 0.004},
         "inputs": [{"name": "dataset", "uri": "${stages.prepare.artifacts.dataset.uri}"}]}]}}"#;
    cluster.kubectl(&["-n", DEMO, "patch", "pipelines.cultivar.dev", "by-hand", "--type=merge", "--patch", patch])?;
    let plan = cli.run(&["plan", "by-hand"])?;
    if !plan.contains("1 reused, 1 to run") && !plan.contains("2 reused") {
        return Err(Error::new("the plan of a changed pipeline").log(plan));
    }
    cluster.kubectl(&["-n", DEMO, "wait", "--for=condition=Complete", "--timeout=180s", "pipelinerun/by-hand-2"])?;
    let tree = cli.run(&["tree", "by-hand-2"])?;
    says(&tree, "prepare                  Reused")?;
    let inline = cli.run(&["export", "by-hand", "--inline"])?;
    says(&inline, "cultivar.dev/demo/digits@sha256:")
}

pub(super) fn says(text: &str, words: &str) -> Result<()> {
    if text.contains(words) { Ok(()) } else { Err(Error::new(format!("{words:?} is not said")).log(text)) }
}

// Two roots by tag, and then another parameter for the second.
fn tagged(cluster: &Cluster) -> Result<()> {
    for (run, n) in [("tagged-1", 1), ("tagged-2", 2)] {
        cluster.apply(&format!(
            r#"{{"apiVersion": "cultivar.dev/v1alpha1", "kind": "Pipeline", "metadata": {{"name": "tagged"}}, "spec": {{"stages": [
            {{"name": "first", "image": "{IMAGE}", "command": ["python3", "-c", "print('first')"]}},
            {{"name": "second", "image": "{IMAGE}", "params": {{"n": {n}}}, "command": ["python3", "-c", "print('second')"]}}]}}}}"#
        ))?;
        let done = ended(cluster, DEFAULT, "pipelinerun", run)?;
        let status = &done["status"];
        let images = ["/pipelineSpec/stages/0", "/pipelineSpec/stages/1"].map(|stage| {
            status.pointer(&format!("{stage}/template/image")).and_then(Value::as_str).unwrap_or_default()
        });
        let pinned = format!("{IMAGE}@sha256:");
        let reused = ["/stages/0", "/stages/1"]
            .map(|stage| status.pointer(&format!("{stage}/reusedFrom")).is_some_and(|from| !from.is_null()));
        if !images.iter().all(|image| image.starts_with(&pinned)) || reused != [n > 1, false] {
            return Err(Error::new(format!("{run}: images {images:?}, reused {reused:?}")).log(status.to_string()));
        }
    }
    Ok(())
}

fn gang(cluster: &Cluster) -> Result<()> {
    let sample =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples/gang-experiment.yaml").display().to_string();
    cluster.kubectl(&["apply", "-f", &sample])?;
    let done = finished(cluster, DEFAULT, "sum-of-ranks")?;
    let metrics = &done["status"]["metrics"];
    if metrics["ranks"]["last"] != 1
        || metrics["workers"]["last"] != 2
        || done["status"]["artifacts"][0]["name"] != "sum"
    {
        return Err(Error::new(format!("worker 0 reported {}", done["status"])));
    }
    Ok(())
}

const QUEUE: &str = r#"
apiVersion: cultivar.dev/v1alpha1
kind: Queue
metadata: {name: one-at-a-time}
spec: {resources: {pods: {quota: 1}}}
"#;

fn queue(cluster: &Cluster) -> Result<()> {
    cluster.apply(QUEUE)?;
    for name in ["queued-a", "queued-b"] {
        let command = ["python3", "-c", "import time; time.sleep(3)"];
        let spec = json!({"image": IMAGE, "queue": "one-at-a-time", "command": command});
        cluster.apply(&experiment(DEFAULT, name, &spec))?;
    }
    let [first, second] = [finished(cluster, DEFAULT, "queued-a")?, finished(cluster, DEFAULT, "queued-b")?];
    let moment = |object: &Value, of: &str| object["status"]["attempts"][0][of].as_str().unwrap_or_default().to_owned();
    let mut turns = [&first, &second].map(|object| (moment(object, "startedAt"), moment(object, "finishedAt")));
    turns.sort();
    let [(_, ended), (started, _)] = turns;
    cluster.kubectl(&["delete", "queue", "one-at-a-time", "--timeout=60s"])?;
    if started < ended {
        return Err(Error::new(format!("the second started at {started}, before the first had ended at {ended}")));
    }
    Ok(())
}

fn namespace(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["create", "namespace", name]).map(drop)
}

fn experiment(namespace: &str, name: &str, spec: &Value) -> String {
    let metadata = json!({"name": name, "namespace": namespace});
    json!({"apiVersion": "cultivar.dev/v1alpha1", "kind": "Experiment", "metadata": metadata, "spec": spec}).to_string()
}

fn get(cluster: &Cluster, namespace: &str, name: &str) -> Result<Value> {
    read(&cluster.kubectl(&["-n", namespace, "get", "experiment", name, "-o", "json"])?)
}

fn read(text: &str) -> Result<Value> {
    serde_json::from_str(text).doing(|| "cannot read kubectl's answer")
}

fn finished(cluster: &Cluster, namespace: &str, name: &str) -> Result<Value> {
    ended(cluster, namespace, "experiment", name)
}

// It completes.
fn ended(cluster: &Cluster, namespace: &str, kind: &str, name: &str) -> Result<Value> {
    let mut object = Value::Null;
    until(&format!("{kind} {name} has ended"), || {
        // What its pipeline is about to make is not there yet.
        let text = cluster.kubectl(&["-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found"])?;
        object = if text.trim().is_empty() { Value::Null } else { read(&text)? };
        match object["status"]["phase"].as_str() {
            Some("Failed" | "Cancelled") => Err(Error::new(format!("{name}: {}", object["status"]))),
            phase => Ok(phase == Some("Completed")),
        }
    })?;
    Ok(object)
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !holds()? {
        if Instant::now() > deadline {
            return Err(Error::new(what).why(format!("it is not so after {}", seconds(LIMIT))));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}
