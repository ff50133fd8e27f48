//! The calls: every request that the operator makes beside its watches, the Lease and the webhook's Secret.
//!
//! Each has a time limit, asks the claim before a write, and is counted.

use cultivar_core::decide::Event;
use cultivar_core::decide::images::MAX_SECRETS;
use cultivar_core::domain::{Meta, text};
use cultivar_crds::{QueueStatus, labels};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy, Request,
};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch::Receiver;

use super::pace::WriteLimit;
use super::{ActError, ours};
use crate::leader::Claim;
use crate::observe::raw::{Raw, SlimJob, SlimNamespace, SlimPod};
use crate::observe::watch::{self, resource};
use crate::observe::{Key, Kind};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{self, Outcome, Verb};

/// No call may take longer; the client itself has no limit.
const LIMIT: Duration = Duration::from_secs(10);

// The body of a status write.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusOf<'a, S> {
    api_version: String,
    kind: &'a str,
    metadata: Version<'a>,
    status: &'a S,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version<'a> {
    name: &'a str,
    uid: &'a str,
    resource_version: &'a str,
}

/// The API server, as the operator uses it.
pub struct Calls {
    client: Client,
    claim: Receiver<Claim>,
    metrics: Metrics,
    identity: String,
    limit: Option<Arc<WriteLimit>>,
}

impl Calls {
    pub fn new(
        client: Client,
        claim: Receiver<Claim>,
        metrics: Metrics,
        identity: String,
        limit: Option<Arc<WriteLimit>>,
    ) -> Self {
        Self { client, claim, metrics, identity, limit }
    }

    fn ours(&self, kind: Kind, namespace: &str) -> Api<Raw> {
        Api::namespaced_with(self.client.clone(), namespace, &resource(kind))
    }

    async fn limited<T>(&self, doing: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, ActError> {
        match tokio::time::timeout(LIMIT, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(ActError::Api { doing: doing.to_owned(), source: Box::new(source) }),
            Err(_) => Err(ActError::Slow { doing: doing.to_owned(), limit: LIMIT }),
        }
    }

    async fn write<T>(
        &self,
        kind: metrics::Kind,
        verb: Verb,
        doing: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ActError> {
        if let Some(limit) = &self.limit {
            limit.turn().await;
        }
        if !self.claim.borrow().holds(Instant::now()) {
            return Err(ActError::NotLeading { doing: doing.to_owned() });
        }
        let result = self.limited(doing, call).await;
        let outcome = match &result {
            Ok(_) => Outcome::Ok,
            // What is to go and has gone already is nobody's mistake.
            Err(error) if verb == Verb::Delete && error.is_gone() => Outcome::Conflict,
            Err(error) => error.outcome(),
        };
        self.metrics.wrote(kind, verb, outcome);
        result
    }

    // Manifests go out as they are rendered, and of the answers only what matters is read.
    fn post<T: DeserializeOwned>(
        &self,
        resource: &ApiResource,
        namespace: &str,
        manifest: &Value,
    ) -> impl Future<Output = kube::Result<T>> + use<T> {
        let request = Request::new(Raw::url_path(resource, Some(namespace)));
        let client = self.client.clone();
        let body = serde_json::to_vec(manifest);
        async move {
            let request = request.create(&PostParams::default(), body.map_err(kube::Error::SerdeError)?);
            client.request(request.map_err(kube::Error::BuildRequest)?).await
        }
    }

    /// Replaces the status, on the condition that nobody wrote since.
    pub async fn replace_status(&self, key: &Key, meta: &Meta, status: &impl Serialize) -> Result<Raw, ActError> {
        // The status strategy takes everything but the status from the stored object.
        let object = StatusOf {
            api_version: cultivar_core::render::api_version(),
            kind: key.kind.as_str(),
            metadata: Version { name: &key.name, uid: &meta.uid, resource_version: &meta.resource_version },
            status,
        };
        let body = serde_json::to_vec(&object)
            .map_err(|source| ActError::Unreadable { doing: "serialising the status".to_owned(), source })?;
        let request = Request::new(Raw::url_path(&resource(key.kind), Some(&key.namespace)));
        let request = request.replace_subresource("status", &key.name, &PostParams::default(), body);
        let call = async { self.client.request(request.map_err(kube::Error::BuildRequest)?).await };
        self.write(key.kind.measured(), Verb::Status, "replacing the status", call).await
    }

    /// Creates an object of one of our kinds.
    pub async fn create(&self, kind: Kind, namespace: &str, manifest: &Value) -> Result<Raw, ActError> {
        let call = self.post(&resource(kind), namespace, manifest);
        self.write(kind.measured(), Verb::Create, "creating", call).await
    }

    /// Reads an object of one of our kinds; nothing if it is gone.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Raw>, ActError> {
        let api = self.ours(kind, namespace);
        self.limited("reading", api.get_opt(name)).await
    }

    /// Patches an object of one of our kinds; one that is gone needs no patch.
    pub async fn patch(&self, kind: Kind, namespace: &str, name: &str, patch: Value) -> Result<Option<Raw>, ActError> {
        let (api, params, patch) = (self.ours(kind, namespace), PatchParams::default(), Patch::Merge(patch));
        let answer = self.write(kind.measured(), Verb::Patch, "patching", api.patch(name, &params, &patch)).await;
        match answer {
            Err(error) if error.is_gone() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Deletes an object of one of our kinds; a namesake with another uid is left alone.
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str, uid: &str) -> Result<(), ActError> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() }),
            ..DeleteParams::default()
        };
        let api = self.ours(kind, namespace);
        match self.write(kind.measured(), Verb::Delete, "deleting", api.delete(name, &params)).await {
            Err(error) if error.is_gone() || error.outcome() == Outcome::Conflict => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Creates a Job.
    pub async fn create_job(&self, namespace: &str, manifest: &Value) -> Result<SlimJob, ActError> {
        let call = self.post(&watch::job(), namespace, manifest);
        self.write(metrics::Kind::Job, Verb::Create, "creating the Job", call).await
    }

    /// Creates the Service of an attempt with several workers.
    pub async fn create_service(&self, namespace: &str, manifest: &Value) -> Result<(), ActError> {
        let resource = ApiResource::erase::<Service>(&());
        let call = self.post::<IgnoredAny>(&resource, namespace, manifest);
        self.write(metrics::Kind::Service, Verb::Create, "creating the Service", call).await.map(|_| ())
    }

    /// Reads a Job; nothing if it is gone.
    pub async fn get_job(&self, namespace: &str, name: &str) -> Result<Option<SlimJob>, ActError> {
        let api = Api::<SlimJob>::namespaced_with(self.client.clone(), namespace, &watch::job());
        self.limited("reading the Job", api.get_opt(name)).await
    }

    /// Whether a namespace has this LocalQueue of Kueue. A cluster without Kueue has none.
    pub async fn has_local_queue(&self, namespace: &str, name: &str) -> Result<bool, ActError> {
        for version in ["v1beta2", "v1beta1"] {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kueue.x-k8s.io", version, "LocalQueue"));
            let api = Api::<SlimNamespace>::namespaced_with(self.client.clone(), namespace, &resource);
            match self.limited("reading the LocalQueue", api.get_opt(name)).await {
                Ok(Some(_)) => return Ok(true),
                Ok(None) => {}
                // Of a version that is not served even the answer that there is none has another form.
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Deletes a Job; its pods follow with their grace period.
    pub async fn delete_job(&self, namespace: &str, name: &str) -> Result<(), ActError> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let params = DeleteParams::background();
        match self.write(metrics::Kind::Job, Verb::Delete, "deleting the Job", api.delete(name, &params)).await {
            Err(error) if error.is_gone() => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Pods with these labels.
    pub async fn list_pods(&self, namespace: &str, labels: &str) -> Result<Vec<SlimPod>, ActError> {
        let api = Api::<SlimPod>::namespaced_with(self.client.clone(), namespace, &watch::pod());
        let params = ListParams::default().labels(labels);
        Ok(self.limited("listing pods", api.list(&params)).await?.items)
    }

    /// Replaces the status of a Queue, on the condition that nobody wrote since.
    pub async fn replace_queue_status(&self, meta: &Meta, status: &QueueStatus) -> Result<Raw, ActError> {
        let resource = watch::queue();
        let object = StatusOf {
            api_version: cultivar_core::render::api_version(),
            kind: &resource.kind,
            metadata: Version { name: &meta.name, uid: &meta.uid, resource_version: &meta.resource_version },
            status,
        };
        let (api, params) = (Api::<Raw>::all_with(self.client.clone(), &resource), PostParams::default());
        let call = api.replace_subresource("status", &meta.name, &params, &object);
        self.write(metrics::Kind::Queue, Verb::Status, "replacing the status", call).await
    }

    /// Puts our finalizer on a Queue, or takes it off; those of others stay. Nothing: the Queue is gone.
    pub async fn set_queue_finalizer(&self, meta: &Meta, wanted: bool) -> Result<Option<Raw>, ActError> {
        let api = Api::<Raw>::all_with(self.client.clone(), &watch::queue());
        let Some(object) = self.limited("reading the Queue", api.get_opt(&meta.name)).await? else { return Ok(None) };
        if object.metadata.uid.as_deref() != Some(&meta.uid) {
            return Ok(None);
        }
        let patch = ours::finalizer(&object.metadata, labels::QUEUE_FINALIZER, wanted);
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let call = api.patch(&meta.name, &params, &patch);
        match self.write(metrics::Kind::Queue, Verb::Patch, "writing the finalizer", call).await {
            Err(error) if error.is_gone() => Ok(None),
            answer => answer.map(Some),
        }
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Reads a Secret: the store's root key, or a namespace's credentials for it.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ActError> {
        self.limited("reading the store's Secret", self.secrets(namespace).get_opt(name)).await
    }

    /// Reads a Secret that a pod pulls its images with.
    pub async fn pull_secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ActError> {
        self.limited("reading a pull secret", self.secrets(namespace).get_opt(name)).await
    }

    /// Names of the Secrets that the API server gives to the pods of a service account.
    pub async fn pull_secrets_of(&self, namespace: &str, account: &str) -> Result<Vec<String>, ActError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let account = self.limited("reading a service account", api.get_opt(account)).await?;
        let secrets = account.and_then(|account| account.image_pull_secrets);
        Ok(secrets.into_iter().flatten().map(|secret| secret.name).take(MAX_SECRETS).collect())
    }

    /// Creates one of these Secrets; somebody else's at the same moment is an error that the next pass mends.
    pub async fn create_secret(&self, namespace: &str, secret: &Secret) -> Result<(), ActError> {
        let (api, params) = (self.secrets(namespace), PostParams::default());
        let call = api.create(&params, secret);
        self.write(metrics::Kind::Secret, Verb::Create, "creating the store's Secret", call).await.map(|_| ())
    }

    /// Replaces one of these Secrets, on the condition that nobody wrote since.
    pub async fn replace_secret(&self, namespace: &str, name: &str, secret: &Secret) -> Result<(), ActError> {
        let (api, params) = (self.secrets(namespace), PostParams::default());
        let call = api.replace(name, &params, secret);
        self.write(metrics::Kind::Secret, Verb::Patch, "replacing the store's Secret", call).await.map(|_| ())
    }

    /// Reads a ConfigMap.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ActError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        self.limited("reading a ConfigMap", api.get_opt(name)).await
    }

    /// Writes entries into a ConfigMap; its others stay.
    pub async fn write_config_map(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, String>,
    ) -> Result<(), ActError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(json!({"data": data})));
        let patched = api.patch(name, &params, &patch);
        self.write(metrics::Kind::ConfigMap, Verb::Patch, "writing a ConfigMap", patched).await.map(|_| ())
    }

    /// Creates a ConfigMap of ours.
    pub async fn create_config_map(&self, namespace: &str, config_map: &ConfigMap) -> Result<(), ActError> {
        let (api, params) = (Api::namespaced(self.client.clone(), namespace), PostParams::default());
        let created = api.create(&params, config_map);
        self.write(metrics::Kind::ConfigMap, Verb::Create, "creating a ConfigMap", created).await.map(|_| ())
    }

    /// Writes an event for `kubectl describe`.
    pub async fn event(&self, key: &Key, meta: &Meta, event: &Event) -> Result<(), ActError> {
        let now = Timestamp::now();
        let name = format!("{}.{:x}", key.name, now.as_nanosecond());
        let manifest = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": key.namespace},
            "eventTime": format!("{now:.6}"),
            "reportingController": "cultivar.dev/operator",
            "reportingInstance": self.identity,
            "action": "Reconcile",
            "reason": event.reason,
            "type": if event.warning { "Warning" } else { "Normal" },
            "note": text::message(event.message.clone()),
            "regarding": {
                "apiVersion": cultivar_core::render::api_version(),
                "kind": key.kind.as_str(),
                "name": key.name,
                "namespace": key.namespace,
                "uid": meta.uid,
            },
        });
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("events.k8s.io", "v1", "Event"));
        let call = self.post::<IgnoredAny>(&resource, &key.namespace, &manifest);
        self.write(metrics::Kind::Event, Verb::Create, "writing an event", call).await.map(|_| ())
    }
}
