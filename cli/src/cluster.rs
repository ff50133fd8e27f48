//! The API server, as kubectl would reach it: objects as JSON, records for the core.

use cultivar_core::domain::{ExperimentRecord, Meta, PipelineRecord, Record, RunRecord};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{GroupVersionKind, Request};
use kube::{Client, Config};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::args::Global;
use crate::error::{Error, Result};
use crate::rows::{self, Row};

/// Who applies manifests.
const MANAGER: &str = "kubectl-cultivar";
/// Objects asked for at a time.
const PAGE: u32 = 1000;

/// A connection, and the namespace that is meant.
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
}

/// The kinds that are worked with.
fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "Pod" => ("", "v1"),
        _ => ("cultivar.dev", "v1alpha1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

impl Cluster {
    /// Connects as the kubeconfig says.
    pub async fn connect(global: &Global) -> Result<Self> {
        let failed = |error: &dyn std::error::Error| {
            let hint = "set KUBECONFIG, or --kubeconfig and --context, as for kubectl";
            Error::new("no connection to a cluster").why(error).hint(hint)
        };
        let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
        let read = match &global.kubeconfig {
            // KUBECONFIG may name several files, as for kubectl.
            Some(path) if path.is_file() => Some(Kubeconfig::read_from(path).map_err(|error| failed(&error))?),
            Some(_) => Some(Kubeconfig::from_env().map_err(|error| failed(&error))?.unwrap_or_default()),
            None => None,
        };
        let config = match read {
            Some(file) => Config::from_custom_kubeconfig(file, &options).await.map_err(|error| failed(&error))?,
            None => match Config::from_kubeconfig(&options).await {
                Ok(config) => config,
                // In a pod there is none.
                Err(error) => Config::incluster().map_err(|_| failed(&error))?,
            },
        };
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| failed(&error))?;
        Ok(Self { client, namespace })
    }

    /// Objects of a kind; Queues are not in a namespace.
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        self.api_in(&self.namespace, kind)
    }

    fn api_in(&self, namespace: &str, kind: &str) -> Api<DynamicObject> {
        match kind {
            "Queue" => Api::all_with(self.client.clone(), &resource(kind)),
            _ => Api::namespaced_with(self.client.clone(), namespace, &resource(kind)),
        }
    }

    /// An object, or nothing.
    pub async fn find(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        self.find_in(&self.namespace, kind, name).await
    }

    /// The same in some namespace.
    pub async fn find_in(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        let found = self.api_in(namespace, kind).get_opt(name).await;
        let found = found.map_err(|error| Error::of_server(format!("{kind} {name} cannot be read"), error))?;
        Ok(found.map(whole))
    }

    /// An object.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.find(kind, name).await?.ok_or_else(|| {
            let place = format!("there is no {kind} {name} in namespace {}", self.namespace);
            Error::not_found(place).hint("kubectl cultivar list shows experiments; -n says another namespace")
        })
    }

    /// Every object of a kind in the namespace that is meant.
    pub async fn list(&self, kind: &str, labels: Option<&str>) -> Result<Vec<Value>> {
        paged(&self.client, &self.api(kind), kind, labels).await
    }

    /// The same of all namespaces.
    pub async fn list_everywhere(&self, kind: &str, labels: Option<&str>) -> Result<Vec<Value>> {
        paged(&self.client, &Api::all_with(self.client.clone(), &resource(kind)), kind, labels).await
    }

    /// What the API server prints of every experiment, in the namespace that is meant or in all.
    pub async fn rows(&self, labels: Option<&str>, everywhere: bool, columns: &[&str]) -> Result<Vec<Row>> {
        let (api, namespace) = match everywhere {
            true => (Api::all_with(self.client.clone(), &resource("Experiment")), None),
            false => (self.api("Experiment"), Some(self.namespace.as_str())),
        };
        rows::rows(&self.client, &api, labels, namespace, columns).await
    }

    /// Every experiment of the namespace, as the core knows them.
    pub async fn experiments(&self) -> Result<Vec<Arc<ExperimentRecord>>> {
        self.list("Experiment", None).await?.iter().map(|object| record(object).map(Arc::new)).collect()
    }

    /// Creates an object.
    pub async fn create(&self, manifest: &Value) -> Result<Value> {
        let (kind, name) = (text(manifest, "/kind"), text(manifest, "/metadata/name"));
        let what = || format!("{kind} {name} cannot be made");
        let object = serde_json::from_value(manifest.clone()).map_err(|error| Error::new(what()).why(error))?;
        let made = self.api(&kind).create(&PostParams::default(), &object).await;
        made.map(whole).map_err(|error| Error::of_server(what(), error))
    }

    /// Applies an object in the namespace that is meant, server-side.
    pub async fn apply(&self, mut manifest: Value) -> Result<Value> {
        manifest["metadata"]["namespace"] = self.namespace.clone().into();
        let (kind, name) = (text(&manifest, "/kind"), text(&manifest, "/metadata/name"));
        let applied = self.api(&kind).patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(&manifest)).await;
        applied.map(whole).map_err(|error| Error::of_server(format!("{kind} {name} cannot be applied"), error))
    }

    /// Merges into an object's spec.
    pub async fn patch(&self, kind: &str, name: &str, spec: &Value) -> Result<Value> {
        let patch = Patch::Merge(json!({"spec": spec}));
        let patched = self.api(kind).patch(name, &PatchParams::default(), &patch).await;
        patched.map(whole).map_err(|error| Error::of_server(format!("{kind} {name} cannot be changed"), error))
    }

    /// Deletes an object.
    pub async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        let deleted = self.api(kind).delete(name, &DeleteParams::background()).await;
        deleted.map(drop).map_err(|error| Error::of_server(format!("{kind} {name} cannot be deleted"), error))
    }

    /// A manifest of a kind of ours.
    pub fn manifest(&self, kind: &str, metadata: Value, spec: Value) -> Value {
        let mut metadata = metadata;
        metadata["namespace"] = self.namespace.clone().into();
        json!({"apiVersion": "cultivar.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    }
}

/// A manifest that somebody keeps in a repository, which says where it goes; Flux would read `${` in it otherwise.
pub fn for_a_repository(kind: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "annotations": {"kustomize.toolkit.fluxcd.io/substitute": "disabled"}});
    json!({"apiVersion": "cultivar.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

#[derive(Deserialize)]
struct Page {
    metadata: ListMeta,
    items: Vec<Value>,
}

// Page by page, and without a detour over types.
async fn paged(client: &Client, api: &Api<DynamicObject>, kind: &str, labels: Option<&str>) -> Result<Vec<Value>> {
    let failed = |error| Error::of_server(format!("{kind}s cannot be listed"), error);
    let mut params = ListParams::default().limit(PAGE);
    if let Some(labels) = labels {
        params = params.labels(labels);
    }
    let mut all = Vec::new();
    loop {
        let request = Request::new(api.resource_url()).list(&params);
        let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        let page: Page = client.request(request).await.map_err(failed)?;
        all.extend(page.items.into_iter().map(without_managers));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

fn whole(object: DynamicObject) -> Value {
    without_managers(serde_json::to_value(object).unwrap_or_default())
}

fn without_managers(mut object: Value) -> Value {
    object["metadata"].as_object_mut().into_iter().for_each(|meta| drop(meta.remove("managedFields")));
    object
}

/// Text at a pointer, or nothing.
pub fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// An object as the core knows it.
pub fn record<S: DeserializeOwned + Default>(object: &Value) -> Result<Record<S>> {
    let name = text(object, "/metadata/name");
    let unreadable = |error: serde_json::Error| {
        let hint = "is this program as new as the operator?";
        Error::new(format!("{name} cannot be read")).why(error).hint(hint)
    };
    let meta: ObjectMeta = serde_json::from_value(object["metadata"].clone()).map_err(unreadable)?;
    let status = object.get("status").cloned().map(serde_json::from_value).transpose().map_err(unreadable)?;
    let spec = object.get("spec").cloned().unwrap_or_default();
    Ok(Record { meta: Meta::from(meta), spec: Arc::new(spec), status: Arc::new(status.unwrap_or_default()) })
}

/// An experiment as the core knows it.
pub fn experiment(object: &Value) -> Result<ExperimentRecord> {
    record(object)
}

/// A run as the core knows it.
pub fn run(object: &Value) -> Result<RunRecord> {
    record(object)
}

/// A pipeline as the core knows it.
pub fn pipeline(object: &Value) -> Result<PipelineRecord> {
    record(object)
}
