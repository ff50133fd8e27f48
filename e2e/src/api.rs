//! The API server as cases and measurements use it: objects as JSON, and waits that watch instead of polling.
//!
//! In: a cluster, and manifests as JSON. Out: what the API server stores, or its refusal in its own words.

use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config};
use kube_runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};

/// A connection to the API server, as the cluster's administrator.
#[derive(Clone)]
pub struct Server {
    client: Client,
}

/// The API resource of a kind that this crate deals with.
#[must_use]
pub fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "Job" => ("batch", "v1"),
        "LocalQueue" | "Workload" => ("kueue.x-k8s.io", "v1beta1"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
        "Event" => ("events.k8s.io", "v1"),
        "Kustomization" => ("kustomize.toolkit.fluxcd.io", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        "Pod" | "Node" | "Service" | "Namespace" | "ServiceAccount" | "Secret" | "ResourceQuota" | "ConfigMap" => {
            ("", "v1")
        }
        _ => ("cultivar.dev", "v1alpha1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

impl Server {
    /// Connects to a cluster.
    ///
    /// # Errors
    /// Its kubeconfig cannot be read.
    pub async fn connect(cluster: &Cluster) -> Result<Self> {
        let failed = || "cannot read the cluster's kubeconfig";
        let file = Kubeconfig::read_from(cluster.kubeconfig()).doing(failed)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.doing(failed)?;
        Ok(Self { client: Client::try_from(config).doing(failed)? })
    }

    /// The client below, for watches of one's own.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Objects of a kind in a namespace; cluster-wide kinds take an empty one.
    #[must_use]
    pub fn objects(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = resource(kind);
        if namespace.is_empty() {
            return Api::all_with(self.client.clone(), &resource);
        }
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    fn place(&self, manifest: &Value) -> Result<(Api<DynamicObject>, DynamicObject)> {
        let kind = manifest["kind"].as_str().unwrap_or_default();
        let namespace = manifest["metadata"]["namespace"].as_str().unwrap_or_default();
        let object = serde_json::from_value(manifest.clone()).doing(|| "not a manifest")?;
        Ok((self.objects(kind, namespace), object))
    }

    /// Creates an object; the error is the API server's.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, manifest: &Value) -> Result<Value> {
        let (api, object) = self.place(manifest)?;
        read(api.create(&PostParams::default(), &object).await, || format!("creating {}", shown(manifest)))
    }

    /// Applies an object, server-side, as `kubectl apply --server-side --force-conflicts` does.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn apply(&self, manifest: &Value) -> Result<Value> {
        let (api, object) = self.place(manifest)?;
        let params = PatchParams::apply("cultivar-e2e").force();
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        read(api.patch(name, &params, &Patch::Apply(&object)).await, || format!("applying {}", shown(manifest)))
    }

    /// Merges a patch into an object.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Value> {
        let answer = self.objects(kind, namespace).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        read(answer, || format!("patching {kind} {name}"))
    }

    /// Merges a patch into an object's status.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn patch_status(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Value> {
        let objects = self.objects(kind, namespace);
        let answer = objects.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        read(answer, || format!("patching the status of {kind} {name}"))
    }

    /// An object, or nothing.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found = self.objects(kind, namespace).get_opt(name).await.doing(|| format!("reading {kind} {name}"))?;
        found.map(|object| serde_json::to_value(object).doing(|| "not JSON")).transpose()
    }

    /// Objects with these labels (all with an empty selector).
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn list(&self, kind: &str, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let params = ListParams::default().labels(labels);
        let list = self.objects(kind, namespace).list(&params).await.doing(|| format!("listing {kind}"))?;
        list.items.into_iter().map(|object| serde_json::to_value(object).doing(|| "not JSON")).collect()
    }

    /// Deletes an object, in the background; one that is gone already is fine.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        match self.objects(kind, namespace).delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            answer => answer.map(|_| ()).doing(|| format!("deleting {kind} {name}")),
        }
    }

    /// Watches an object until `holds`, and returns it as it then was. An absent object is `Value::Null`.
    ///
    /// # Errors
    /// It does not come to that in time; the error quotes how the object stood.
    pub async fn wait(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        limit: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut stream = std::pin::pin!(watcher::watch_object(self.objects(kind, namespace), name).default_backoff());
        let mut last = Value::Null;
        let watched = async {
            while let Some(event) = stream.next().await {
                // A watch that breaks is set up again: the API server may be away for a while.
                let Ok(object) = event else { continue };
                last = object.map_or(Value::Null, |object| serde_json::to_value(object).unwrap_or_default());
                if holds(&last) {
                    return true;
                }
            }
            false
        };
        if tokio::time::timeout(limit, watched).await == Ok(true) {
            return Ok(last);
        }
        let status = serde_json::to_string_pretty(&brief(&last)).unwrap_or_default();
        Err(Error::new(format!("{kind} {name} did not come to what was waited for in {limit:?}")).log(status))
    }

    /// Makes a namespace and waits until pods can be created in it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
        // Admission refuses every pod of a namespace until its service account is there.
        let exists = |object: &Value| !object.is_null();
        self.wait("ServiceAccount", name, "default", Duration::from_secs(30), exists).await.map(drop)
    }

    /// Deletes a namespace and waits until everything in it is gone.
    ///
    /// # Errors
    /// It is not gone in time.
    pub async fn remove_namespace(&self, name: &str, limit: Duration) -> Result<()> {
        self.delete("Namespace", "", name).await?;
        self.wait("Namespace", "", name, limit, Value::is_null).await.map(drop)
    }
}

fn shown(manifest: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {}", text(&manifest["kind"]), text(&manifest["metadata"]["name"]))
}

fn read(answer: kube::Result<DynamicObject>, doing: impl FnOnce() -> String) -> Result<Value> {
    match answer {
        Ok(object) => serde_json::to_value(object).doing(|| "not JSON"),
        Err(kube::Error::Api(status)) => Err(Error::new(doing()).why(format!("{} ({})", status.message, status.code))),
        Err(error) => Err(Error::new(doing()).why(error)),
    }
}

/// What of an object helps to see why it stands where it does.
fn brief(object: &Value) -> Value {
    let mut brief = object.clone();
    if let Some(metadata) = brief["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    if let Some(status) = brief["status"].as_object_mut() {
        status.remove("template");
        status.remove("pipelineSpec");
    }
    json!({"metadata": {"deletionTimestamp": brief["metadata"]["deletionTimestamp"]}, "status": brief["status"]})
}
