//! Objects of kinds that others write too, such as Secrets and ConfigMaps: which are the operator's, by their label.

use cultivar_crds::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
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
