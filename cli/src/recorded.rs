//! Experiments whose object is gone: what their records in the store still say.

use cultivar_data::{Store, digest_of};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::store::{self, Operator};

/// No record is larger.
const MOST: u64 = 4 * 1024 * 1024;
/// Records that are read at a time.
const AT_A_TIME: usize = 16;
/// A record's fields that a status has under the same name.
const SAME: [&str; 4] = ["artifacts", "metrics", "inputs", "environment"];

/// Where a record lies, as `from.record` of a clone says it.
pub struct Place {
    pub uri: String,
    pub digest: String,
}

/// An experiment of the cluster; or, where the object is gone, what its newest record says, and where that lies.
pub async fn get(cluster: &Cluster, operator: &Operator, name: &str) -> Result<(Value, Option<Place>)> {
    if let Some(object) = cluster.find("Experiment", name).await? {
        return Ok((object, None));
    }
    let gone = || Error::not_found(format!("there is no Experiment {name} in namespace {}", cluster.namespace));
    let hint = "kubectl cultivar list shows experiments; -n says another namespace";
    let reached = match store::reach(cluster, operator).await {
        Ok(reached) => reached,
        Err(error) => return Err(gone().why(format!("and records cannot be looked for: {error}")).hint(hint)),
    };
    let store = reached.store()?;
    let mut folders = store.folders(&cluster.namespace).await.map_err(store::failed)?;
    folders.retain(|folder| name_of(folder) == Some(name));
    let found = newest(&store, &cluster.namespace, name, &folders).await?;
    let (object, place) = found.ok_or_else(|| gone().why("and no record of it in the store").hint(hint))?;
    eprintln!("the object is gone: this is its record, {}", place.uri);
    Ok((object, Some(place)))
}

/// The experiments of the namespace whose names are not `there`, as their newest records tell of them.
pub async fn gone(cluster: &Cluster, operator: &Operator, there: &BTreeSet<String>) -> Result<Vec<Value>> {
    let reached = store::reach(cluster, operator).await?;
    let store = reached.store()?;
    let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in store.folders(&cluster.namespace).await.map_err(store::failed)? {
        if let Some(name) = name_of(&folder).filter(|name| !there.contains(*name)) {
            folders.entry(name.to_owned()).or_default().push(folder);
        }
    }
    let read = futures::stream::iter(&folders)
        .map(|(name, folders)| newest(&store, &cluster.namespace, name, folders))
        .buffered(AT_A_TIME)
        .try_collect::<Vec<_>>();
    Ok(read.await?.into_iter().flatten().map(|(object, _)| object).collect())
}

// The newest record of all experiments that had the name.
async fn newest(store: &Store, namespace: &str, name: &str, folders: &[String]) -> Result<Option<(Value, Place)>> {
    let mut records = Vec::new();
    for folder in folders {
        let objects = store.objects(&format!("{namespace}/{folder}")).await.map_err(store::failed)?;
        records.extend(objects.into_iter().find(|object| is_record(&object.key)));
    }
    let Some(found) = records.into_iter().max_by_key(|object| object.modified) else { return Ok(None) };
    let bytes = store.get(&found.key, MOST).await.map_err(store::failed)?;
    let place = Place { uri: store.uri(&found.key), digest: digest_of(&bytes) };
    let record: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(format!("the record {} cannot be read", place.uri)).why(error))?;
    Ok(Some((object(&record, namespace, name), place)))
}

// An experiment's folder is its name, a dash and 8 digits of its uid.
fn name_of(folder: &str) -> Option<&str> {
    let (name, uid) = folder.rsplit_once('-')?;
    (uid.len() == 8 && uid.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

// Directly in its experiment's folder.
fn is_record(key: &str) -> bool {
    let mut parts = key.rsplit('/');
    parts.next().is_some_and(|file| file.starts_with("record-") && file.ends_with(".json")) && parts.count() == 2
}

// The record in the form of the object that is gone.
fn object(record: &Value, namespace: &str, name: &str) -> Value {
    let (result, template) = (&record["result"], &record["template"]);
    let phase = if record["exitCode"] == 0 && result["reason"].is_null() { "Completed" } else { "Failed" };
    let mut status = Map::from_iter([
        ("phase".to_owned(), json!(phase)),
        ("template".to_owned(), template.clone()),
        ("times".to_owned(), json!({"running": record["startedAt"], "finished": record["finishedAt"]})),
    ]);
    let same = SAME.iter().map(|field| (*field, &result[*field]));
    let others =
        [("loggedParams", &result["params"]), ("logs", &result["logs"]["uri"]), ("message", &result["message"])];
    for (field, value) in same.chain(others).filter(|(_, value)| !value.is_null()) {
        status.insert(field.to_owned(), value.clone());
    }
    json!({
        "apiVersion": "cultivar.dev/v1alpha1", "kind": "Experiment",
        "metadata": {"name": name, "namespace": namespace}, "spec": template, "status": status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::experiment;
    use cultivar_crds::Phase;
    use cultivar_protocol::StoreSpec;

    #[test]
    fn records_are_told_from_what_else_is_in_the_store() {
        assert_eq!(name_of("train-2-0a1b2c3d"), Some("train-2"));
        assert!(name_of("train-0a1b2c3").is_none() && name_of("cache").is_none());
        assert!(is_record("ns/train-0a1b2c3d/record-2.json"));
        for other in ["ns/train-0a1b2c3d/result-1.json", "ns/train-0a1b2c3d/out/record-1.json", "record-1.json"] {
            assert!(!is_record(other), "{other}");
        }
    }

    #[tokio::test]
    async fn a_record_is_read_as_the_experiment_that_it_tells_of() {
        let folder = tempfile::tempdir().unwrap();
        let spec = StoreSpec { url: format!("file://{}", folder.path().display()), ..StoreSpec::default() };
        let store = Store::open(&spec).unwrap();
        let folders = ["train-0a1b2c3d".to_owned(), "train-0a1b2c3e".to_owned()];
        assert!(newest(&store, "ns", "train", &folders).await.unwrap().is_none());
        let artifact = json!({"name": "model", "uri": "s3://b/ns/train/model.pkl", "size": 3});
        let record = json!({
            "exitCode": 0, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:01:00Z",
            "template": {"image": "a:1", "params": {"lr": 0.1}},
            "result": {"artifacts": [artifact], "metrics": {"acc": {"last": 0.9, "min": 0.1, "max": 0.9}},
                       "params": {"seed": 1}, "logs": {"uri": "s3://b/ns/train/logs/1/", "chunks": 1}},
        });
        store.put("ns/train-0a1b2c3d/record-1.json", record.to_string().into_bytes()).await.unwrap();
        let (object, place) = newest(&store, "ns", "train", &folders).await.unwrap().unwrap();
        assert_eq!(place.digest, digest_of(record.to_string().as_bytes()));
        assert_eq!(store.folders("ns").await.unwrap(), folders[..1]);
        let read = experiment(&object).unwrap();
        assert_eq!((read.status.phase, read.status.artifacts[0].name.as_str()), (Phase::Completed, "model"));
        assert_eq!(read.status.logs.as_deref(), Some("s3://b/ns/train/logs/1/"));
        assert_eq!(read.status.metrics["acc"].last, 0.9);
    }
}
