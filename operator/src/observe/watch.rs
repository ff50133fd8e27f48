//! The watches: one task, one backoff and one first-sync flag each, so that one that fails slows no other.

use cultivar_crds::{ArtifactStore, Queue, labels};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node as NodeObject, Pod};
use kube::api::Api;
use kube::core::{ApiResource, DynamicResourceScope, GroupVersionKind};
use kube::{Client, Resource};
use kube_runtime::WatchStreamExt;
use kube_runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::approvals::{self, Watched as Approvals};
use super::convert;
use super::index::{Index, Key, Kind};
use super::outsiders;
use super::raw::{Raw, SlimJob, SlimNamespace, SlimNode, SlimPod, SlimStore};
use super::store::Name;
use super::workloads;
use crate::queues::Queues;
use crate::telemetry::Health;
use crate::telemetry::health::Synced;

/// What a watch does with its events.
pub trait Sink<K>: Send {
    /// A list begins.
    fn begin(&mut self);
    /// An object of the list, or a change.
    fn apply(&mut self, object: K);
    /// The list is complete.
    fn finish(&mut self);
    /// An object is gone.
    fn delete(&mut self, object: K);
}

/// Follows one stream of events until it is told to stop.
pub async fn follow<K>(
    name: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    mut sink: impl Sink<K>,
    synced: Synced,
    stop: CancellationToken,
) {
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Err(error)) => tracing::warn!(watch = name, %error, "the watch broke; it is set up again"),
            Some(Ok(Event::Init)) => sink.begin(),
            Some(Ok(Event::InitApply(object) | Event::Apply(object))) => sink.apply(object),
            Some(Ok(Event::InitDone)) => {
                sink.finish();
                synced.set();
            }
            Some(Ok(Event::Delete(object))) => sink.delete(object),
        }
    }
}

/// Objects of one of our kinds.
struct Ours {
    index: Arc<Index>,
    kind: Kind,
    within: Option<String>,
}

impl Ours {
    fn key(&self, object: &Raw) -> Key {
        convert::key(self.kind, &object.metadata)
    }
}

impl Sink<Raw> for Ours {
    fn begin(&mut self) {
        self.index.begin_list(self.kind, self.within.as_deref());
    }

    fn apply(&mut self, object: Raw) {
        let key = self.key(&object);
        if let Err(error) = self.index.take_in(self.kind, object) {
            let (kind, namespace, name) = (key.kind.as_str(), &key.namespace, &key.name);
            tracing::error!(kind, %namespace, %name, %error, "this object cannot be read and is left alone: its spec is nested too deep, or a newer operator wrote its status");
            self.index.note_seen(&key);
        }
    }

    fn finish(&mut self) {
        self.index.finish_list(self.kind, self.within.as_deref());
    }

    fn delete(&mut self, object: Raw) {
        self.index.remove(&self.key(&object));
    }
}

/// Jobs of ours.
struct Jobs {
    index: Arc<Index>,
    within: Option<String>,
    unseen: HashSet<((String, String), String)>,
}

impl Sink<SlimJob> for Jobs {
    fn begin(&mut self) {
        self.unseen = self.index.job_names(self.within.as_deref());
    }

    fn apply(&mut self, job: SlimJob) {
        let job = convert::job(job);
        self.unseen.remove(&((job.namespace.clone(), job.experiment.clone()), job.name.clone()));
        self.index.apply_job(job);
    }

    fn finish(&mut self) {
        for (experiment, job) in self.unseen.drain() {
            self.index.remove_job(&experiment, &job);
        }
    }

    fn delete(&mut self, job: SlimJob) {
        let job = convert::job(job);
        self.index.remove_job(&(job.namespace, job.experiment), &job.name);
    }
}

/// Pods of ours.
struct Pods {
    index: Arc<Index>,
    within: Option<String>,
    unseen: HashSet<(String, String)>,
}

impl Sink<SlimPod> for Pods {
    fn begin(&mut self) {
        let known = self.index.live_pods(self.within.as_deref());
        self.unseen = known.iter().map(|pod| (pod.namespace.clone(), pod.name.clone())).collect();
    }

    fn apply(&mut self, pod: SlimPod) {
        let pod = convert::pod(pod, false);
        self.unseen.remove(&(pod.namespace.clone(), pod.name.clone()));
        self.index.apply_pod(pod);
    }

    fn finish(&mut self) {
        for pod in self.index.live_pods(self.within.as_deref()) {
            if self.unseen.remove(&(pod.namespace.clone(), pod.name.clone())) {
                self.index.apply_pod(cultivar_core::domain::PodRecord { gone: true, ..(*pod).clone() });
            }
        }
    }

    fn delete(&mut self, pod: SlimPod) {
        // The last state of a pod says how it ended, even if nobody saw it before.
        self.index.apply_pod(convert::pod(pod, true));
    }
}

/// Artifact stores.
struct Stores {
    index: Arc<Index>,
    within: Option<String>,
    unseen: HashSet<Name>,
}

impl Stores {
    fn name(store: &SlimStore) -> Name {
        let meta = &store.metadata;
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl Sink<SlimStore> for Stores {
    fn begin(&mut self) {
        self.unseen = self.index.store_names(self.within.as_deref());
    }

    fn apply(&mut self, store: SlimStore) {
        let name = Self::name(&store);
        self.unseen.remove(&name);
        self.index.apply_store(name, store.spec.map(convert::store));
    }

    fn finish(&mut self) {
        for name in self.unseen.drain() {
            self.index.apply_store(name, None);
        }
    }

    fn delete(&mut self, store: SlimStore) {
        self.index.apply_store(Self::name(&store), None);
    }
}

/// Objects without a namespace, told of by name; nothing: it is gone.
struct ByName<F> {
    tell: F,
    known: HashSet<String>,
    unseen: HashSet<String>,
    // Whom else a complete list is told to.
    complete: Option<Box<dyn Fn() + Send>>,
}

impl<F> ByName<F> {
    fn new(tell: F) -> Self {
        Self { tell, known: HashSet::new(), unseen: HashSet::new(), complete: None }
    }

    fn when_complete(self, complete: impl Fn() + Send + 'static) -> Self {
        Self { complete: Some(Box::new(complete)), ..self }
    }
}

impl<K, F> Sink<K> for ByName<F>
where
    K: Resource<DynamicType = ApiResource>,
    F: FnMut(&str, Option<K>) + Send,
{
    fn begin(&mut self) {
        self.unseen.clone_from(&self.known);
    }

    fn apply(&mut self, object: K) {
        let name = object.meta().name.clone().unwrap_or_default();
        self.unseen.remove(&name);
        (self.tell)(&name, Some(object));
        self.known.insert(name);
    }

    fn finish(&mut self) {
        for name in self.unseen.drain() {
            self.known.remove(&name);
            (self.tell)(&name, None);
        }
        self.complete.iter().for_each(|complete| complete());
    }

    fn delete(&mut self, object: K) {
        let name = object.meta().name.clone().unwrap_or_default();
        self.known.remove(&name);
        (self.tell)(&name, None);
    }
}

/// A watch to be spawned: its name and its life.
pub type Watch = (&'static str, BoxFuture<'static, ()>);

/// The watches of what has no namespace, and which queues need.
pub fn of_the_cluster(
    client: &Client,
    index: &Arc<Index>,
    queues: &Arc<Queues>,
    health: &Health,
    stop: &CancellationToken,
) -> Vec<Watch> {
    let scope = Scope { client, within: None, index, health, stop };
    let of = || Arc::clone(queues);
    let objects = ByName::new({
        let queues = of();
        move |name: &str, queue: Option<Raw>| match queue.map(|queue| queues.apply(queue)) {
            None => queues.remove(name),
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(queue = name, %error, "this Queue cannot be read and stays what it was: a newer operator wrote it");
            }
        }
    });
    let objects = objects.when_complete({
        let queues = of();
        move || queues.are_known()
    });
    let namespaces = ByName::new({
        let queues = of();
        move |name: &str, namespace: Option<SlimNamespace>| {
            queues.set_namespace(name, namespace.map(|namespace| namespace.metadata.labels.unwrap_or_default()));
        }
    });
    let nodes = ByName::new({
        let queues = of();
        move |name: &str, node: Option<SlimNode>| queues.set_node(name, node.and_then(convert::node))
    });
    let config = watcher::Config::default;
    vec![
        scope.watch::<Raw>(&queue(), config(), objects),
        scope.watch::<SlimNamespace>(&namespace(), config(), namespaces),
        scope.watch::<SlimNode>(&node(), config(), nodes),
        outsiders::watch(client, queues, health, stop),
        workloads::watch(client, index, queues, stop),
    ]
}

/// Every watch, cluster-wide or one per namespace.
pub fn all(
    client: &Client,
    namespaces: &[String],
    index: &Arc<Index>,
    health: &Health,
    stop: &CancellationToken,
) -> Vec<Watch> {
    let scopes: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    scopes.into_iter().flat_map(|within| Scope { client, within, index, health, stop }.watches()).collect()
}

/// What the watches of one namespace, or of the whole cluster, share.
struct Scope<'a> {
    client: &'a Client,
    within: Option<&'a str>,
    index: &'a Arc<Index>,
    health: &'a Health,
    stop: &'a CancellationToken,
}

impl Scope<'_> {
    fn watches(&self) -> Vec<Watch> {
        let (index, within) = (|| Arc::clone(self.index), || self.within.map(str::to_owned));
        let mut watches: Vec<Watch> = Vec::new();
        for kind in Kind::ALL {
            let resource = resource(kind);
            let sink = Ours { index: index(), kind, within: within() };
            watches.push(self.watch::<Raw>(&resource, watcher::Config::default(), sink));
        }
        let stores = Stores { index: index(), within: within(), unseen: HashSet::new() };
        watches.push(self.watch::<SlimStore>(&store(), watcher::Config::default(), stores));
        let approvals = Approvals::new(index(), self.within);
        watches.push(self.watch::<Raw>(&approvals::resource(), watcher::Config::default(), approvals));
        let ours = || watcher::Config::default().labels(labels::EXPERIMENT);
        let jobs = Jobs { index: index(), within: within(), unseen: HashSet::new() };
        watches.push(self.watch::<SlimJob>(&job(), ours(), jobs));
        let pods = Pods { index: index(), within: within(), unseen: HashSet::new() };
        watches.push(self.watch::<SlimPod>(&pod(), ours(), pods));
        watches
    }

    fn watch<K>(&self, resource: &ApiResource, config: watcher::Config, sink: impl Sink<K> + 'static) -> Watch
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let what = &resource.plural;
        // A name per watch lives as long as the process; there are as many as namespaces are given.
        let name: &'static str = match self.within {
            None => what.to_owned().leak(),
            Some(namespace) => format!("{what}/{namespace}").leak(),
        };
        let api = match self.within {
            None => Api::<K>::all_with(self.client.clone(), resource),
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
        };
        let events = watcher(api, config).default_backoff();
        (name, Box::pin(follow(name, events, sink, self.health.watch(name), self.stop.clone())))
    }
}

/// The API resource of a kind of ours.
pub fn resource(kind: Kind) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(cultivar_crds::GROUP, cultivar_crds::VERSION, kind.as_str()))
}

/// The API resource of ArtifactStores.
pub fn store() -> ApiResource {
    ApiResource::erase::<ArtifactStore>(&())
}

/// The API resource of Queues.
pub fn queue() -> ApiResource {
    ApiResource::erase::<Queue>(&())
}

/// The API resource of Nodes.
pub fn node() -> ApiResource {
    ApiResource::erase::<NodeObject>(&())
}

/// The API resource of namespaces.
pub fn namespace() -> ApiResource {
    ApiResource::erase::<Namespace>(&())
}

/// The API resource of Jobs.
pub fn job() -> ApiResource {
    ApiResource::erase::<Job>(&())
}

/// The API resource of Pods.
pub fn pod() -> ApiResource {
    ApiResource::erase::<Pod>(&())
}
