//! `logs`: what an experiment's pod prints.

use futures::AsyncBufReadExt as _;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};

use crate::cluster::{Cluster, experiment};
use crate::error::{Error, Result};

/// The log of an experiment's newest attempt.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar logs train-7f3a -f")]
pub struct Logs {
    /// Name of the experiment.
    id: String,
    /// Go on until it ends.
    #[arg(short, long)]
    follow: bool,
}

pub async fn logs(cluster: &Cluster, asked: &Logs) -> Result<()> {
    let record = experiment(&cluster.get("Experiment", &asked.id).await?)?;
    let source = record.status.reused_from.as_ref().map_or(&asked.id, |from| &from.name);
    let labels = format!("cultivar.dev/experiment={source}");
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let found = pods.list(&kube::api::ListParams::default().labels(&labels)).await;
    let mut found = found.map_err(|error| Error::of_server("its pods cannot be listed", error))?.items;
    found.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let Some(pod) = found.pop().and_then(|pod| pod.metadata.name) else {
        let phase = record.status.phase;
        let error = Error::not_found(format!("experiment {} is {phase} and has no pod", asked.id));
        return Err(match &record.status.logs {
            Some(logs) => error.hint(format!("its log lies at {logs}, in numbered gzip chunks")),
            None => error,
        });
    };
    let params = LogParams { container: Some("main".to_owned()), follow: asked.follow, ..LogParams::default() };
    let stream = pods.log_stream(&pod, &params).await;
    let mut lines = stream.map_err(|error| Error::of_server(format!("no log of pod {pod}"), error))?.lines();
    while let Some(line) = lines.try_next().await.map_err(|error| Error::new("the log broke off").why(error))? {
        println!("{line}");
    }
    Ok(())
}
