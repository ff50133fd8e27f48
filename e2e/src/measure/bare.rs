//! The same chains without an engine: plain Jobs, and a loop that creates the next one when a pod ends.
//!
//! In: a namespace and a shape. Out: Jobs. This is the least that any engine has to do: one watch of pods, one write
//! per stage, no status, no record, nothing that a restart would survive.

use std::collections::HashSet;

use futures::StreamExt as _;
use kube::api::{Api, PostParams};
use kube_runtime::WatchStreamExt as _;
use kube_runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Shape;
use super::observe::{Marks, SlimPod, has_ended, place};
use super::scenario::container;
use crate::api::{Server, resource};
use crate::error::Result;

/// How plain Jobs and their pods say what they are.
pub const MARKS: Marks = Marks { chain: "measure/chain", stage: "measure/stage" };

/// The Job of a stage.
pub fn job(namespace: &str, chain: &str, stage: usize) -> Value {
    let labels = json!({MARKS.chain: chain, MARKS.stage: format!("s{stage}")});
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": format!("{chain}-s{stage}"), "namespace": namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"labels": labels},
                "spec": {"restartPolicy": "Never", "containers": [container()]},
            },
        },
    })
}

/// Creates the next Job of a chain the moment the pod before it ends, until it is dropped.
pub struct Loop {
    _tasks: JoinSet<()>,
}

impl Loop {
    /// Starts the loop and waits until its watch follows.
    pub async fn start(server: &Server, namespace: &str, shape: Shape) -> Self {
        let pods: Api<SlimPod> = Api::namespaced_with(server.client(), namespace, &resource("Pod"));
        let (server, namespace) = (server.clone(), namespace.to_owned());
        let (ready, follows) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut ready, mut seen) = (Some(ready), HashSet::new());
            let mut writes = JoinSet::new();
            let mut events = std::pin::pin!(watcher(pods, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                let pod = match event {
                    Ok(Event::Apply(pod) | Event::InitApply(pod)) => pod,
                    Ok(Event::InitDone) => {
                        ready.take().into_iter().for_each(|ready| ready.send(()).unwrap_or_default());
                        continue;
                    }
                    _ => continue,
                };
                let Some((chain, stage)) = place(pod.metadata.labels.as_ref(), MARKS) else { continue };
                let next = stage.trim_start_matches('s').parse().unwrap_or(0) + 1;
                if has_ended(&pod) && next < shape.stages && seen.insert((chain.clone(), stage)) {
                    let (server, namespace) = (server.clone(), namespace.clone());
                    writes.spawn(async move { create(&server, &job(&namespace, &chain, next)).await });
                }
            }
        });
        // A loop that ended has no watch; the wait for the pods says so.
        let _ = follows.await;
        Self { _tasks: tasks }
    }
}

async fn create(server: &Server, job: &Value) {
    let answer: Result<()> = async {
        let api = server.objects("Job", job["metadata"]["namespace"].as_str().unwrap_or_default());
        let object =
            serde_json::from_value(job.clone()).map_err(|error| crate::error::Error::new(error.to_string()))?;
        api.create(&PostParams::default(), &object)
            .await
            .map_err(|error| crate::error::Error::new(error.to_string()))?;
        Ok(())
    }
    .await;
    if let Err(error) = answer {
        eprintln!("the bare loop could not create a Job: {error}");
    }
}
