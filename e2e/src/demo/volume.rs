//! The volume of the built-in store, before the chart asks for it.
//!
//! In: the cluster. Out: on a real node of this machine, a folder as a PersistentVolume that waits for the store's claim;
//! in a cluster of somebody's own, the certainty that a StorageClass will make one. Simulated nodes need neither: they
//! play the samples, the operator runs beside them, and no chart is installed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use serde_json::{Value, json};

use super::target::{SYSTEM, Target};
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::exec;

/// The claim that the chart's StatefulSet makes: its template's name, its own name, the pod's number.
pub const CLAIM: &str = "data-cultivar-store-0";
const VOLUME: &str = "cultivar-demo-store";
/// At least what the chart asks for; a folder has no size of its own.
const SIZE: &str = "20Gi";
/// The user of the operator's image, which the store runs as.
const USER: u32 = 65532;
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Sees to it that the store's claim can be bound.
///
/// # Errors
/// The folder cannot be made, or there is no default StorageClass to make a volume.
pub fn prepare(target: &Target) -> Result<()> {
    let claim = get(target, &["persistentvolumeclaim", CLAIM, "--namespace", SYSTEM, "--ignore-not-found"])?;
    match target.cluster() {
        // An earlier demo's: it holds the artifacts that the records name, and is bound already.
        _ if claim["spec"]["volumeName"].is_string() => Ok(()),
        Some(cluster) => folder(cluster),
        None => default_class(&get(target, &["storageclasses"])?),
    }
}

/// A folder beside the cluster's own, so that it goes with it: this cluster has nothing that makes volumes. The claim is
/// named in the volume, since nothing else may take it.
fn folder(cluster: &Cluster) -> Result<()> {
    let path = cluster.dir().join("demo-store");
    let failed = || format!("cannot make {} for the store", path.display());
    fs::create_dir_all(&path).doing(failed)?;
    // The kubelet gives such a folder to nobody; fsGroup says nothing to it.
    chown(&path, Some(USER), Some(USER)).doing(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).doing(failed)?;
    // One that an earlier claim has released would never be bound again.
    cluster.kubectl(&["delete", "persistentvolume", VOLUME, "--ignore-not-found", "--timeout=30s"])?;
    let node = cluster.real_node().unwrap_or_default();
    let on_node =
        json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]);
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": VOLUME},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": SYSTEM, "name": CLAIM},
            "hostPath": {"path": path, "type": "Directory"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": on_node}},
        },
    });
    cluster.apply(&manifest.to_string()).map(drop)
}

/// Fails with advice where the store's claim would wait for ever.
fn default_class(classes: &Value) -> Result<()> {
    let classes = classes["items"].as_array().map_or(&[][..], Vec::as_slice);
    if classes.iter().any(|class| class["metadata"]["annotations"][DEFAULT_CLASS] == "true") {
        return Ok(());
    }
    let names: Vec<&str> = classes.iter().filter_map(|class| class["metadata"]["name"].as_str()).collect();
    let error =
        Error::new("the cluster has no default StorageClass, and the store needs a volume to keep artifacts on");
    Err(match names.first() {
        Some(first) => error
            .why(format!("it has {}, none of them the default", names.join(", ")))
            .hint(format!("choose one: kubectl annotate storageclass {first} {DEFAULT_CLASS}=true")),
        None => {
            error.why("it has no StorageClass at all").hint("install a provisioner of volumes, then run this again")
        }
    })
}

fn get(target: &Target, what: &[&str]) -> Result<Value> {
    let said = exec::output(target.kubectl_command().args(["get", "--output=json"]).args(what), None)?;
    // With --ignore-not-found nothing is said about what is not there.
    if said.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&said).doing(|| "cannot read what kubectl says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_a_default_class_is_told_what_to_do() {
        let class =
            |name: &str, default: &str| json!({"metadata": {"name": name, "annotations": {DEFAULT_CLASS: default}}});
        default_class(&json!({"items": [class("slow", "false"), class("fast", "true")]})).unwrap();
        let error = default_class(&json!({"items": [class("slow", "false")]})).unwrap_err().to_string();
        assert!(error.contains("kubectl annotate storageclass slow"), "{error}");
        let error = default_class(&json!({"items": []})).unwrap_err().to_string();
        assert!(error.contains("no StorageClass at all"), "{error}");
    }
}
