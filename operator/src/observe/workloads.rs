//! What Kueue says of the Jobs that it has not admitted: the words of their Workloads.
//!
//! Nothing is asked for until an experiment waits for Kueue. Where Kueue is not installed it is looked for again from time to
//! time; when it goes, so does what it said. Of a Workload its Job's uid and one sentence are kept, and only while it waits.

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use kube_runtime::watcher::{self, Event, watcher};
use serde::de::IgnoredAny;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::raw::{JobStatus, Slim};
use super::watch::Watch;
use crate::leader::random;
use crate::queues::Queues;

const NAME: &str = "workloads of Kueue";
/// The versions that Kueue has, the newest first.
const VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// How long until Kueue is looked for again.
const AGAIN: Duration = Duration::from_secs(30);
/// Most characters of a sentence that are kept.
const MOST: usize = 300;

/// A Workload; its conditions are those of a Job's status in form.
type Workload = Slim<IgnoredAny, JobStatus>;

/// The watch, which runs while Kueue is there and somebody waits for it.
pub fn watch(client: &Client, index: &Arc<Index>, queues: &Arc<Queues>, stop: &CancellationToken) -> Watch {
    (NAME, Box::pin(run(client.clone(), Arc::clone(index), Arc::clone(queues), stop.clone())))
}

async fn run(client: Client, index: Arc<Index>, queues: Arc<Queues>, stop: CancellationToken) {
    let mut wanted = queues.kueue_is_wanted();
    let following = async {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        loop {
            if let Some(resource) = find(&client).await {
                follow(&client, &resource, &index, &queues).await;
            }
            queues.kueue_says_nothing();
            tokio::time::sleep(random::jitter(AGAIN)).await;
        }
    };
    tokio::select! {
        () = following => stop.cancelled().await,
        () = stop.cancelled() => {}
    }
}

// The newest version that is served and may be read.
async fn find(client: &Client) -> Option<ApiResource> {
    for version in VERSIONS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kueue.x-k8s.io", version, "Workload"));
        let api = Api::<Workload>::all_with(client.clone(), &resource);
        match api.list(&ListParams::default().limit(1)).await {
            Ok(_) => return Some(resource),
            Err(Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                tracing::debug!(%error, "Kueue's Workloads cannot be read: experiments wait without its words")
            }
        }
    }
    None
}

// Until it breaks: then it is looked for anew, for it may be gone.
async fn follow(client: &Client, resource: &ApiResource, index: &Arc<Index>, queues: &Arc<Queues>) {
    let api = Api::<Workload>::all_with(client.clone(), resource);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(Ok(event)) = events.next().await {
        let (workload, gone) = match event {
            Event::InitApply(workload) | Event::Apply(workload) => (workload, false),
            Event::Delete(workload) => (workload, true),
            Event::Init => {
                queues.kueue_says_nothing();
                continue;
            }
            Event::InitDone => continue,
        };
        let Some(job) = job(&workload.metadata) else { continue };
        let words = if gone { None } else { words(workload.status.unwrap_or_default()) };
        if let Some(key) = queues.kueue_says(job, words) {
            index.look_at(&key);
        }
    }
}

fn job(meta: &ObjectMeta) -> Option<String> {
    let owners = meta.owner_references.iter().flatten();
    owners.filter(|owner| owner.kind == "Job").map(|owner| owner.uid.clone()).next()
}

// Why it has no quota; nothing for one that has.
fn words(status: JobStatus) -> Option<String> {
    let conditions = status.conditions.unwrap_or_default();
    let waits = conditions.into_iter().find(|one| one.type_ == "QuotaReserved" && one.status != "True")?;
    let words: String = waits.message.filter(|message| !message.is_empty())?.chars().take(MOST).collect();
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_who_waits_has_words() {
        for (conditions, wanted) in [
            (
                json!([{"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "1 more needed"}]),
                Some("1 more needed"),
            ),
            (json!([{"type": "QuotaReserved", "status": "True", "message": "Quota reserved"}]), None),
            (json!([]), None),
        ] {
            let workload: Workload = serde_json::from_value(json!({
                "metadata": {"name": "w", "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u"}]},
                "status": {"conditions": conditions},
            }))
            .unwrap();
            assert_eq!(job(&workload.metadata).as_deref(), Some("u"));
            assert_eq!(words(workload.status.unwrap()).as_deref(), wanted);
        }
    }
}
