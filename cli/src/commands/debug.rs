//! `debug`: the pod of an experiment again, with its program asleep, and a shell in it.

use cultivar_core::validate;
use cultivar_protocol::RUNNER;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube_runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use std::process::{Command, ExitCode};

use super::{fresh, valid};
use crate::args::Global;
use crate::cluster::{Cluster, experiment};
use crate::error::{Error, Result};

/// How long the program sleeps.
const ASLEEP: u32 = 7200;

/// A shell where an experiment ran: same image, code and inputs, for two hours.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar debug train-7f3a")]
pub struct Debug {
    /// Name of the experiment, also a failed one.
    id: String,
    /// The shell, or another program of the image, such as python3.
    #[arg(long, default_value = "sh")]
    shell: String,
    /// Leave it there when the shell ends.
    #[arg(long)]
    keep: bool,
}

pub async fn debug(cluster: &Cluster, global: &Global, asked: &Debug) -> Result<ExitCode> {
    let source = experiment(&cluster.get("Experiment", &asked.id).await?)?;
    let template = source.template();
    // What was recorded ran under the runner, whose pod has what sleeps whatever the image is.
    let sleep = if source.status.record.is_some() { vec![RUNNER, "sleep"] } else { vec!["sleep"] };
    let spec = spec(&asked.id, template, &sleep);
    valid("the copy", &validate::experiment(&spec))?;
    let name = fresh(&format!("debug-{}", asked.id), 52);
    cluster.create(&cluster.manifest("Experiment", json!({"name": name}), spec)).await?;
    eprintln!("experiment {name} sleeps for two hours, a clone of {}; waiting for its pod", asked.id);
    let shell = match running(cluster, &name).await {
        Ok(pod) => shell(cluster, global, &pod, &asked.shell),
        Err(error) => Err(error),
    };
    if asked.keep {
        eprintln!("it is still there: kubectl cultivar delete {name}");
    } else {
        cluster.delete("Experiment", &name).await?;
    }
    shell
}

// The copy leaves nothing, so it must not be asked for outputs; and nothing may pass for its result later.
fn spec(id: &str, template: &Value, sleep: &[&str]) -> Value {
    let has = |field: &&str| template.get(*field).is_some();
    let unset: Vec<&str> = ["args", "outputs", "checkpoint", "retries"].into_iter().filter(has).collect();
    let command: Vec<String> = sleep.iter().map(|word| (*word).to_owned()).chain([ASLEEP.to_string()]).collect();
    let mut spec = json!({
        "from": {"experiment": id, "require": "Ended"},
        "command": command,
        "cache": {"mode": "Never"},
        "timeouts": {"run": format!("{ASLEEP}s")},
        "ttlAfterFinished": "1h",
    });
    if !unset.is_empty() {
        spec["unset"] = json!(unset);
    }
    spec
}

// The name of its pod, once the program sleeps in it.
async fn running(cluster: &Cluster, name: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let of_it = watcher::Config::default().labels(&format!("cultivar.dev/experiment={name}"));
    let mut pods = std::pin::pin!(watcher(pods, of_it).default_backoff().applied_objects());
    let mut ends = std::pin::pin!(watcher::watch_object(cluster.api("Experiment"), name).default_backoff());
    loop {
        tokio::select! {
            // Watches that break are set up again.
            pod = pods.try_next() => if let Ok(Some(pod)) = pod && sleeps(&pod) {
                return Ok(pod.metadata.name.unwrap_or_default());
            },
            object = ends.try_next() => if let Ok(Some(Some(object))) = object {
                let status = &object.data["status"];
                if experiment(&serde_json::to_value(&object).unwrap_or_default())?.status.phase.is_terminal() {
                    let told = status["message"].as_str().unwrap_or_default();
                    let what = format!("experiment {name} ended before there was a shell");
                    return Err(Error::new(what).why(told).hint("kubectl cultivar why has more"));
                }
            },
        }
    }
}

fn sleeps(pod: &Pod) -> bool {
    let mut containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.any(|one| one.name == "main" && one.state.as_ref().is_some_and(|state| state.running.is_some()))
}

// kubectl knows about terminals and their sizes.
fn shell(cluster: &Cluster, global: &Global, pod: &str, shell: &str) -> Result<ExitCode> {
    let mut command = Command::new("kubectl");
    if let Some(context) = &global.context {
        command.args(["--context", context]);
    }
    if let Some(kubeconfig) = &global.kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    command.args(["-n", &cluster.namespace, "exec", "-it", pod, "-c", "main", "--", shell]);
    let ended = command.status().map_err(|error| {
        Error::new("kubectl cannot be run").why(error).hint(format!("--keep leaves the pod there: {pod}"))
    })?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_sleeps_and_is_asked_for_nothing() {
        let spec = spec(
            "train",
            &json!({"image": "a", "command": ["python"], "args": ["t.py"], "outputs": [{"name": "m"}]}),
            &["sleep"],
        );
        assert_eq!(spec["unset"], json!(["args", "outputs"]));
        assert_eq!((&spec["from"]["require"], &spec["command"]), (&json!("Ended"), &json!(["sleep", "7200"])));
        assert_eq!(validate::experiment(&spec).refusal(), None);
        assert_eq!(super::spec("train", &json!({"image": "a"}), &["sleep"]).get("unset"), None);
    }

    #[test]
    fn a_pod_sleeps_once_its_program_runs() {
        let pod = |name: &str, state: Value| {
            let status =
                json!({"name": name, "image": "a", "imageID": "", "ready": true, "restartCount": 0, "state": state});
            serde_json::from_value::<Pod>(json!({"status": {"containerStatuses": [status]}})).unwrap()
        };
        assert!(sleeps(&pod("main", json!({"running": {}}))));
        assert!(!sleeps(&pod("main", json!({"waiting": {}}))) && !sleeps(&pod("other", json!({"running": {}}))));
    }
}
