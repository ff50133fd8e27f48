//! Objects as they arrive: metadata in part, and of spec and status only what is read.
//!
//! A list is parsed as one document. Were specs of ours parsed with it, one that is nested too deep would fail the whole
//! list, and with it every object of its kind. So each is parsed by itself, later. Who manages which field is skipped:
//! it is most of the bytes, and nested as deep as the spec. Pods and Jobs are read in the parts that matter here.

use cultivar_crds::ArtifactStoreSpec;
use k8s_openapi::api::core::v1::ContainerState;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// An object with its spec read as `S` and its status as `T`.
#[derive(Clone, Debug)]
pub struct Slim<S, T> {
    pub metadata: ObjectMeta,
    pub spec: Option<S>,
    pub status: Option<T>,
}

/// An object of ours: spec and status are still text.
pub type Raw = Slim<Box<RawValue>, Box<RawValue>>;
/// A Job.
pub type SlimJob = Slim<JobSpec, JobStatus>;
/// A namespace.
pub type SlimNamespace = Slim<IgnoredAny, IgnoredAny>;
/// A Node.
pub type SlimNode = Slim<NodeSpec, NodeStatus>;
/// An ArtifactStore.
pub type SlimStore = Slim<ArtifactStoreSpec, IgnoredAny>;
/// A Pod.
pub type SlimPod = Slim<PodSpec, PodStatus>;

/// A Pod that no queue admitted.
pub type SlimOutsider = Slim<AskingSpec, IgnoredAny>;

/// Of a Pod's spec, what says how much it asks for and where.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AskingSpec {
    #[serde(skip_serializing)]
    pub node_name: Option<String>,
    pub containers: Vec<AskingContainer>,
    pub init_containers: Vec<AskingContainer>,
    pub resources: Value,
    pub overhead: Value,
}

/// Of a container of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AskingContainer {
    pub restart_policy: Option<String>,
    pub resources: Value,
}

/// Of a Job's spec.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct JobSpec {
    pub suspend: Option<bool>,
}

/// Of a Job's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    pub start_time: Option<Time>,
    pub conditions: Option<Vec<Condition>>,
}

/// Of a Node's spec.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeSpec {
    pub taints: Option<Vec<NodeTaint>>,
    pub unschedulable: Option<bool>,
}

/// A taint of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeTaint {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
}

/// Of a Node's status.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeStatus {
    pub allocatable: Option<BTreeMap<String, String>>,
}

/// Of a Pod's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    pub node_name: Option<String>,
}

/// Of a Pod's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    pub phase: Option<String>,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub conditions: Option<Vec<Condition>>,
    pub container_statuses: Option<Vec<ContainerStatus>>,
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
}

/// Of a condition.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
}

/// Of a container's status.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContainerStatus {
    pub name: String,
    #[serde(default, rename = "imageID")]
    pub image_id: String,
    pub state: Option<ContainerState>,
}

#[derive(Deserialize)]
struct Shape<S, T> {
    #[serde(default)]
    metadata: Metadata,
    spec: Option<S>,
    status: Option<T>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
}

impl<'de, S: Deserialize<'de>, T: Deserialize<'de>> Deserialize<'de> for Slim<S, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Shape { metadata, spec, status } = Shape::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            labels: metadata.labels,
            annotations: metadata.annotations,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            owner_references: metadata.owner_references,
            finalizers: metadata.finalizers,
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, spec, status })
    }
}

impl<S, T> Resource for Slim<S, T> {
    type DynamicType = ApiResource;
    type Scope = <DynamicObject as Resource>::Scope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::convert;
    use cultivar_core::domain::ExperimentRecord;
    use kube::api::WatchEvent;
    use kube::core::ObjectList;

    fn object(name: &str, spec: &str) -> String {
        format!(
            r#"{{"apiVersion": "cultivar.dev/v1alpha1", "kind": "Experiment", "metadata": {{"name": "{name}", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{{"fieldsV1": {spec}}}]}}, "spec": {spec}}}"#
        )
    }

    #[test]
    fn all_of_the_metadata_that_is_decided_on_arrives() {
        let text = r#"{"metadata": {"name": "n", "namespace": "s", "uid": "u", "resourceVersion": "7", "generation": 2,
            "labels": {"a": "b"}, "annotations": {"cultivar.dev/x": "y", "other/z": ""}, "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-01T00:00:01Z", "finalizers": ["cultivar.dev/artifacts", "theirs/f"],
            "ownerReferences": [{"apiVersion": "v", "kind": "PipelineRun", "name": "r", "uid": "ru", "controller": true}]}}"#;
        let object: Raw = serde_json::from_str(text).unwrap();
        // The operator writes the list as a whole: the others' must be in it.
        assert_eq!(object.metadata.finalizers.as_deref().unwrap_or_default().len(), 2);
        let meta = convert::record::<cultivar_crds::ExperimentStatus>(object, None).unwrap().meta;
        assert_eq!((meta.name.as_str(), meta.namespace.as_str(), meta.uid.as_str()), ("n", "s", "u"));
        assert_eq!((meta.resource_version.as_str(), meta.generation), ("7", 2));
        assert_eq!((meta.labels.len(), meta.annotations.len()), (1, 1));
        assert!(meta.created.is_some() && meta.deleting && meta.deleted > meta.created);
        assert_eq!(meta.finalizers, ["cultivar.dev/artifacts"]);
        assert_eq!(meta.owner.map(|owner| owner.name).as_deref(), Some("r"));
    }

    #[test]
    fn one_spec_that_is_nested_too_deep_does_not_fail_the_list() {
        let deep = format!("{}1{}", r#"{"a": ["#.repeat(3000), "]}".repeat(3000));
        let list = format!(
            r#"{{"kind": "ExperimentList", "apiVersion": "cultivar.dev/v1alpha1", "metadata": {{"resourceVersion": "9"}}, "items": [{}, {}]}}"#,
            object("deep", &deep),
            object("sound", r#"{"image": "i"}"#)
        );
        let list: ObjectList<Raw> = serde_json::from_str(&list).unwrap();
        let records: Vec<_> = list
            .items
            .into_iter()
            .map(|object| convert::record::<cultivar_crds::ExperimentStatus>(object, None))
            .collect();
        assert!(records[0].as_ref().unwrap_err().to_string().contains("recursion limit"));
        let sound: &ExperimentRecord = records[1].as_ref().unwrap();
        assert_eq!((sound.meta.name.as_str(), &sound.spec["image"]), ("sound", &"i".into()));
        let event = format!(r#"{{"type": "MODIFIED", "object": {}}}"#, object("deep", &deep));
        assert!(matches!(serde_json::from_str(&event).unwrap(), WatchEvent::<Raw>::Modified(_)));
    }
}
