//! `logs`: what an experiment's pod prints; and once the pod is gone, what the store has of it.

use cultivar_data::Store;
use flate2::read::MultiGzDecoder;
use futures::AsyncBufReadExt as _;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use std::io::{self, Write};

use crate::cluster::{Cluster, experiment};
use crate::error::{Error, Result};
use crate::recorded;
use crate::store::{self, Operator};

/// No chunk of a log is larger in the store.
const CHUNK: u64 = 64 * 1024 * 1024;

/// The log of an experiment's newest attempt.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar logs train-7f3a -f")]
pub struct Logs {
    /// Name of the experiment.
    id: String,
    /// Go on until it ends.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    operator: Operator,
}

pub async fn logs(cluster: &Cluster, asked: &Logs) -> Result<()> {
    let (object, _) = recorded::get(cluster, &asked.operator, &asked.id).await?;
    let record = experiment(&object)?;
    let source = record.status.reused_from.as_ref().map_or(&asked.id, |from| &from.name);
    let labels = format!("cultivar.dev/experiment={source}");
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let found = pods.list(&kube::api::ListParams::default().labels(&labels)).await;
    let mut found = found.map_err(|error| Error::of_server("its pods cannot be listed", error))?.items;
    found.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let Some(pod) = found.pop().and_then(|pod| pod.metadata.name) else {
        let Some(uri) = &record.status.logs else {
            let what = format!("experiment {} is {} and has no pod", asked.id, record.status.phase);
            return Err(Error::not_found(what).hint("kubectl cultivar why says what it waits for, or what went wrong"));
        };
        let reached = store::reach(cluster, &asked.operator).await?;
        let (store, key) = reached.of_object(uri)?;
        return print(&store, key.trim_end_matches('/'), &mut std::io::stdout().lock()).await;
    };
    let params = LogParams { container: Some("main".to_owned()), follow: asked.follow, ..LogParams::default() };
    let stream = pods.log_stream(&pod, &params).await;
    let mut lines = stream.map_err(|error| Error::of_server(format!("no log of pod {pod}"), error))?.lines();
    while let Some(line) = lines.try_next().await.map_err(|error| Error::new("the log broke off").why(error))? {
        println!("{line}");
    }
    Ok(())
}

// Numbered chunks, each compressed by itself.
async fn print(store: &Store, folder: &str, to: &mut impl Write) -> Result<()> {
    let mut chunks = store.objects(folder).await.map_err(store::failed)?;
    chunks.retain(|chunk| chunk.key.ends_with(".log.gz"));
    chunks.sort_by(|one, other| one.key.cmp(&other.key));
    if chunks.is_empty() {
        return Err(Error::not_found(format!("there is no log at {}", store.uri(folder))));
    }
    for chunk in chunks {
        let bytes = store.get(&chunk.key, CHUNK).await.map_err(store::failed)?;
        if let Err(error) = io::copy(&mut MultiGzDecoder::new(&bytes[..]), to) {
            // Whoever read it, such as head, has enough.
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Ok(());
            }
            return Err(Error::new(format!("{} cannot be printed", store.uri(&chunk.key))).why(error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_protocol::StoreSpec;
    use flate2::{Compression, write::GzEncoder};

    #[tokio::test]
    async fn chunks_are_printed_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let spec = StoreSpec { url: format!("file://{}", folder.path().display()), ..StoreSpec::default() };
        let store = Store::open(&spec).unwrap();
        assert!(print(&store, "ns/e/logs/1", &mut Vec::new()).await.is_err());
        for (number, text) in [(1, "second\n"), (0, "first\n")] {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(text.as_bytes()).unwrap();
            store.put(&format!("ns/e/logs/1/{number:06}.log.gz"), gzip.finish().unwrap()).await.unwrap();
        }
        let mut out = Vec::new();
        print(&store, "ns/e/logs/1", &mut out).await.unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "first\nsecond\n");
    }
}
