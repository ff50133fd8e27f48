//! The cases of the pipeline language whose programs read and write files, on the cluster that the demo has left.
//!
//! In: the files of `e2e/cases/conformance` with `files`. All of them run at once, each in a namespace of its own. Out:
//! nothing, or what is different from what has to come of them.

use crate::cli::Cli;
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::image::{Build, compile_cli};
use cultivar_conformance::{Case, RUN, Seen, has_ended};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(300);

/// Plays every case.
pub fn conform(cluster: &Cluster) -> Result<()> {
    let mut cases = cultivar_conformance::all().map_err(Error::new)?;
    cases.retain(|case| case.files);
    for case in &cases {
        let namespace = place(case);
        super::namespace(cluster, &namespace)?;
        for object in case.objects.iter().chain([&case.applied()]) {
            cluster.apply(&object.manifest(&namespace).to_string())?;
        }
    }
    let cli = compile_cli(Build::Debug)?;
    let deadline = Instant::now() + LIMIT;
    let mut lines = Vec::new();
    for case in &cases {
        let seen = ended(cluster, &place(case), deadline)?;
        let mut differs = case.differs(&seen);
        if differs.is_empty() {
            differs = left(cluster, &cli, case, &seen)?;
        }
        if !differs.is_empty() {
            let why = format!("the run says {}", seen.run["status"]["message"]);
            lines.extend(differs.into_iter().chain([why]).map(|line| format!("{}: {line}", case.name)));
        }
    }
    if lines.is_empty() { Ok(()) } else { Err(Error::new(lines.join("\n"))) }
}

fn place(case: &Case) -> String {
    format!("case-{}", case.name)
}

// What is left of the artifacts of those that are deleted: their records say where they lie.
fn left(cluster: &Cluster, cli: &Path, case: &Case, seen: &Seen) -> Result<Vec<String>> {
    let (namespace, mut lines) = (place(case), Vec::new());
    let cli = Cli::new(cli, &cluster.kubeconfig(), &namespace);
    for (of, artifacts) in &case.expect.left {
        let [one] = seen.experiments_of(of)[..] else { return Err(Error::new(format!("{of} is not one experiment"))) };
        let name = one["metadata"]["name"].as_str().unwrap_or_default();
        let got = |artifact: &str| -> Result<bool> {
            let folder = tempfile::tempdir().doing(|| "no temporary folder")?;
            let to = folder.path().to_string_lossy().into_owned();
            Ok(cli.call(&["artifacts", name, "get", artifact, "--to", &to])?.code == 0)
        };
        for artifact in artifacts.keys() {
            if !got(artifact)? {
                lines.push(format!("artifact {artifact} of {of} cannot be read before anything is deleted"));
            }
        }
        cluster.kubectl(&["-n", &namespace, "delete", "experiment", name, "--timeout=120s"])?;
        for (artifact, wanted) in artifacts {
            let is_there = got(artifact)?;
            if is_there != *wanted {
                lines.push(format!("artifact {artifact} of {of} is there: {is_there}"));
            }
        }
    }
    Ok(lines)
}

fn ended(cluster: &Cluster, namespace: &str, deadline: Instant) -> Result<Seen> {
    let listed = |kind: &str| -> Result<Vec<Value>> {
        let list = super::read(&cluster.kubectl(&["-n", namespace, "get", kind, "-o", "json"])?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    loop {
        let (runs, experiments) = (listed("pipelineruns")?, listed("experiments")?);
        let run = runs.into_iter().find(|run| run["metadata"]["name"] == RUN).unwrap_or_default();
        if has_ended(&run) && experiments.iter().all(has_ended) {
            return Ok(Seen::of(run, experiments));
        }
        if Instant::now() > deadline {
            return Err(Error::new(format!("the run of {namespace} has not ended")).log(run["status"].to_string()));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
