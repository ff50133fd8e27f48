//! Pods that no queue admitted: what they hold of the nodes that queues count on.
//!
//! Only pods on a node that have not ended are asked for, and of them only those are kept that ask for an extended resource
//! which a Queue lists: their node and their amounts. Where no Queue lists any, no pod is watched at all. When Queues list
//! something else, the watch is set up anew: what was passed over before may matter now.

use cultivar_core::domain::queue::Word;
use cultivar_crds::labels;
use kube::Client;
use kube::api::Api;
use kube_runtime::WatchStreamExt;
use kube_runtime::watcher::{self, watcher};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::convert;
use super::raw::SlimOutsider;
use super::watch::{Sink, Watch, follow, pod};
use crate::queues::Queues;
use crate::telemetry::Health;
use crate::telemetry::health::Synced;

const NAME: &str = "pods outside the queues";

struct Outsiders {
    queues: Arc<Queues>,
    listed: Arc<BTreeSet<Word>>,
    unseen: HashSet<String>,
}

fn name(pod: &SlimOutsider) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

impl Sink<SlimOutsider> for Outsiders {
    fn begin(&mut self) {
        self.unseen = self.queues.outsiders();
    }

    fn apply(&mut self, pod: SlimOutsider) {
        let name = name(&pod);
        self.unseen.remove(&name);
        self.queues.set_outsider(&name, convert::outsider(pod, &self.listed));
    }

    fn finish(&mut self) {
        for name in self.unseen.drain() {
            self.queues.set_outsider(&name, None);
        }
        self.queues.outsiders_are_known();
    }

    fn delete(&mut self, pod: SlimOutsider) {
        self.queues.set_outsider(&name(&pod), None);
    }
}

/// The watch, which runs while a Queue lists an extended resource.
pub fn watch(client: &Client, queues: &Arc<Queues>, health: &Health, stop: &CancellationToken) -> Watch {
    (NAME, Box::pin(run(client.clone(), Arc::clone(queues), health.watch(NAME), stop.clone())))
}

async fn run(client: Client, queues: Arc<Queues>, synced: Synced, stop: CancellationToken) {
    let mut lists = queues.listed();
    while !stop.is_cancelled() {
        let listed = lists.borrow_and_update().clone();
        let following = async {
            match listed {
                Some(listed) if !listed.is_empty() => {
                    let api = Api::<SlimOutsider>::all_with(client.clone(), &pod());
                    let config = watcher::Config::default()
                        .labels(&format!("!{}", labels::QUEUE))
                        .fields("spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed");
                    let sink = Outsiders { queues: Arc::clone(&queues), listed, unseen: HashSet::new() };
                    let events = watcher(api, config).default_backoff();
                    follow(NAME, events, sink, synced.clone(), stop.clone()).await;
                }
                Some(_) => {
                    queues.outsiders().iter().for_each(|name| queues.set_outsider(name, None));
                    queues.outsiders_are_known();
                    synced.set();
                    stop.cancelled().await;
                }
                None => stop.cancelled().await,
            }
        };
        tokio::select! {
            () = following => {}
            changed = lists.changed() => if changed.is_err() { return },
        }
    }
}
