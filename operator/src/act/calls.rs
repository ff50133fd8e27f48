//! The calls: every request that the operator makes beside its watches, the Lease and the webhook's Secret.
//!
//! Each has a time limit, asks the claim before a write, and is counted.

use cultivar_core::decide::Event;
use cultivar_core::domain::{Meta, text};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::core::{ApiResource, GroupVersionKind};
use serde::Serialize;
use serde_json::{Value, json};
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::sync::watch;

use super::ActError;
use crate::leader::Claim;
use crate::observe::watch::resource;
use crate::observe::{Key, Kind};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{self, Outcome, Verb};

/// No call may take longer; the client itself has no limit.
const LIMIT: Duration = Duration::from_secs(10);

/// The API server, as the operator uses it.
pub struct Calls {
    client: Client,
    claim: watch::Receiver<Claim>,
    metrics: Metrics,
    identity: String,
}

impl Calls {
    pub fn new(client: Client, claim: watch::Receiver<Claim>, metrics: Metrics, identity: String) -> Self {
        Self { client, claim, metrics, identity }
    }

    fn ours(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
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
        if !self.claim.borrow().holds(Instant::now()) {
            return Err(ActError::NotLeading { doing: doing.to_owned() });
        }
        let result = self.limited(doing, call).await;
        self.metrics.wrote(kind, verb, result.as_ref().map_or_else(ActError::outcome, |_| Outcome::Ok));
        result
    }

    /// Replaces the status, on the condition that nobody wrote since.
    pub async fn replace_status(
        &self,
        key: &Key,
        meta: &Meta,
        status: &impl Serialize,
    ) -> Result<DynamicObject, ActError> {
        let status = serde_json::to_value(status)
            .map_err(|source| ActError::Unreadable { doing: "serialising the status".to_owned(), source })?;
        // The status strategy takes everything but the status from the stored object.
        let mut object = DynamicObject::new(&key.name, &resource(key.kind)).within(&key.namespace);
        object.metadata.uid = Some(meta.uid.clone());
        object.metadata.resource_version = Some(meta.resource_version.clone());
        object.data = json!({"status": status});
        let api = self.ours(key.kind, &key.namespace);
        let params = PostParams::default();
        let call = api.replace_status(&key.name, &params, &object);
        self.write(key.kind.measured(), Verb::Status, "replacing the status", call).await
    }

    /// Creates an object of one of our kinds.
    pub async fn create(&self, kind: Kind, namespace: &str, manifest: Value) -> Result<DynamicObject, ActError> {
        let object: DynamicObject = serde_json::from_value(manifest)
            .map_err(|source| ActError::Unreadable { doing: "reading our own manifest".to_owned(), source })?;
        let (api, params) = (self.ours(kind, namespace), PostParams::default());
        self.write(kind.measured(), Verb::Create, "creating", api.create(&params, &object)).await
    }

    /// Reads an object of one of our kinds; nothing if it is gone.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<DynamicObject>, ActError> {
        let api = self.ours(kind, namespace);
        self.limited("reading", api.get_opt(name)).await
    }

    /// Patches an object of one of our kinds; one that is gone needs no patch.
    pub async fn patch(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<Option<DynamicObject>, ActError> {
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

    /// Creates a Job. The manifest goes out as it is rendered: typed structs would drop fields of
    /// newer API versions that a podTemplate may use.
    pub async fn create_job(&self, namespace: &str, manifest: Value) -> Result<Job, ActError> {
        let doing = "creating the Job";
        let object: DynamicObject = serde_json::from_value(manifest)
            .map_err(|source| ActError::Unreadable { doing: doing.to_owned(), source })?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("batch", "v1", "Job"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let params = PostParams::default();
        let answer = self.write(metrics::Kind::Job, Verb::Create, doing, api.create(&params, &object)).await?;
        let read = serde_json::to_value(answer).and_then(serde_json::from_value);
        read.map_err(|source| ActError::Unreadable { doing: doing.to_owned(), source })
    }

    /// Reads a Job; nothing if it is gone.
    pub async fn get_job(&self, namespace: &str, name: &str) -> Result<Option<Job>, ActError> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        self.limited("reading the Job", api.get_opt(name)).await
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
    pub async fn list_pods(&self, namespace: &str, labels: &str) -> Result<Vec<Pod>, ActError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(labels);
        Ok(self.limited("listing pods", api.list(&params)).await?.items)
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
        let object: DynamicObject = serde_json::from_value(manifest)
            .map_err(|source| ActError::Unreadable { doing: "reading our own event".to_owned(), source })?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("events.k8s.io", "v1", "Event"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let params = PostParams::default();
        self.write(metrics::Kind::Event, Verb::Create, "writing an event", api.create(&params, &object))
            .await
            .map(|_| ())
    }
}
