//! What the operator shares with others: Secrets and ConfigMaps, of which its label says which are its own, and the
//! finalizers of an object.

use cultivar_crds::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Metadata of a new object of ours.
pub(super) fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(BTreeMap::from([(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned())])),
        ..ObjectMeta::default()
    }
}

/// Whether an object is ours, or was given to us.
pub(super) fn is_ours(metadata: &ObjectMeta) -> bool {
    let by = metadata.labels.as_ref().and_then(|labels| labels.get(labels::MANAGED_BY));
    by.is_some_and(|by| by == labels::MANAGER)
}

/// The patch that puts our finalizer on an object or takes it off, on the condition that nobody wrote since: the list is
/// written as a whole, and those of others stay.
pub(super) fn finalizer(meta: &ObjectMeta, ours: &str, wanted: bool) -> Value {
    let others = meta.finalizers.iter().flatten().filter(|name| *name != ours).cloned();
    let all: Vec<String> = others.chain(wanted.then(|| ours.to_owned())).collect();
    json!({"metadata": {"finalizers": all, "resourceVersion": meta.resource_version}})
}
