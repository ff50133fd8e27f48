//! The built-in store is away for a while: nothing is lost, and nothing is forgotten.
//!
//! In: a cluster with a real node. Out: nothing, or what is wrong.

use serde_json::json;
use std::time::Duration;

use super::{IMAGE, experiment, finished, get, namespace, until};
use crate::cli::Cli;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::image::{Build, compile_cli};

const NAMESPACE: &str = "store-away";
const NAME: &str = "patient";
const SYSTEM: &str = "cultivar-system";
const STORE: &str = "statefulset/cultivar-store";
const PODS: &str = "app.kubernetes.io/component=store";
/// How long the program takes; it ends without a store.
const RUN: Duration = Duration::from_secs(8);

/// A run that ends while the store is away keeps its outputs, in one attempt; one that is deleted then waits for the store and
/// leaves nothing in it.
pub fn awaited(cluster: &Cluster) -> Result<()> {
    namespace(cluster, NAMESPACE)?;
    let program = format!(
        "import time; print('begun', flush=True); time.sleep({}); open('/tmp/model.txt', 'w').write('a model')",
        RUN.as_secs()
    );
    let spec = json!({
        "image": IMAGE, "command": ["python3", "-c", program], "artifacts": "Delete",
        "outputs": [{"name": "model", "path": "/tmp/model.txt"}],
    });
    cluster.apply(&experiment(NAMESPACE, NAME, &spec))?;
    until("the run begins", || Ok(get(cluster, NAMESPACE, NAME)?["status"]["phase"] == "Running"))?;
    scale(cluster, 0)?;
    std::thread::sleep(RUN);
    let status = get(cluster, NAMESPACE, NAME)?["status"].take();
    if status["phase"] != "Running" {
        return Err(Error::new("a run that cannot store what it left has ended").log(status.to_string()));
    }
    scale(cluster, 1)?;
    let status = finished(cluster, NAMESPACE, NAME)?["status"].take();
    if status["attempts"].as_array().map(Vec::len) != Some(1) || status["artifacts"][0]["size"] != "a model".len() {
        return Err(Error::new("a run whose store was away for a while").log(status.to_string()));
    }

    scale(cluster, 0)?;
    cluster.kubectl(&["-n", NAMESPACE, "delete", "experiment", NAME, "--wait=false"])?;
    std::thread::sleep(Duration::from_secs(3));
    get(cluster, NAMESPACE, NAME).map_err(|error| error.hint("it went without its artifacts"))?;
    scale(cluster, 1)?;
    cluster.kubectl(&["-n", NAMESPACE, "wait", "--for=delete", &format!("experiment/{NAME}"), "--timeout=120s"])?;
    let left = Cli::new(&compile_cli(Build::Debug)?, &cluster.kubeconfig(), NAMESPACE).run(&["list", "--recorded"])?;
    if left.is_empty() { Ok(()) } else { Err(Error::new("it is deleted, and its record is not").log(left)) }
}

// What is about to go still answers until it has gone.
fn scale(cluster: &Cluster, replicas: u8) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    cluster.kubectl(&["-n", SYSTEM, "scale", STORE, &replicas])?;
    cluster.kubectl(&["-n", SYSTEM, "rollout", "status", STORE, "--timeout=60s"])?;
    if replicas.ends_with("=0") {
        cluster.kubectl(&["-n", SYSTEM, "wait", "--for=delete", "pod", "-l", PODS, "--timeout=60s"])?;
    }
    Ok(())
}
