//! Kind ArtifactStore: where what experiments leave goes.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::schema::object_name;

/// The name of the store that a namespace's experiments use unless they name another.
pub const DEFAULT_STORE: &str = "default";

/// Where what experiments leave goes: outputs, logs, metrics, checkpoints. Experiments of the namespace use the one
/// that they name, else the one called `default`, else the operator's own store.
#[derive(CustomResource, Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "cultivar.dev",
    version = "v1alpha1",
    kind = "ArtifactStore",
    plural = "artifactstores",
    shortname = "cvstore",
    category = "cultivar",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "Where what experiments leave goes: outputs, logs, metrics, checkpoints. Experiments of the namespace use the one that they name, else the one called default, else the operator's own store.",
    printcolumn(name = "Url", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".spec.secret"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = object_name(63),
)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactStoreSpec {
    /// Bucket or container, and a prefix in it: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or
    /// `file:///folder` for a folder that `podTemplate` mounts into every pod.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^(s3|gs|az|file)://.+$"))]
    pub url: String,

    /// How it is reached, by the keys of the Rust crate object_store: `aws_endpoint`, `aws_region`, `aws_allow_http`,
    /// `azure_storage_account_name` and so on. No secrets: anybody who may read the object reads them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub options: BTreeMap<String, String>,

    /// A Secret of the same namespace with more of these options, one per key: `aws_access_key_id`,
    /// `aws_secret_access_key` and so on. None for workload identity: then the pod's service account is who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,
}
