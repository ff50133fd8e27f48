//! Experiments whose object is gone: what their records in the store still say.

use cultivar_data::{Store, digest_of};
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::store::{self, Operator};

/// No record is larger.
const MOST: u64 = 4 * 1024 * 1024;
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
    let found = newest(&reached.store()?, &cluster.namespace, name).await?;
    let (object, place) = found.ok_or_else(|| gone().why("and no record of it in the store").hint(hint))?;
    eprintln!("the object is gone: this is its record, {}", place.uri);
    Ok((object, Some(place)))
}

// The newest record of the newest experiment that had the name.
async fn newest(store: &Store, namespace: &str, name: &str) -> Result<Option<(Value, Place)>> {
    let objects = store.objects(namespace).await.map_err(store::failed)?;
    let Some(found) = objects.into_iter().find(|object| is_record(&object.key, namespace, name)) else {
        return Ok(None);
    };
    let bytes = store.get(&found.key, MOST).await.map_err(store::failed)?;
    let place = Place { uri: store.uri(&found.key), digest: digest_of(&bytes) };
    let record: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(format!("the record {} cannot be read", place.uri)).why(error))?;
    Ok(Some((object(&record, namespace, name), place)))
}

// An experiment's folder is its name, a dash and 8 digits of its uid.
fn is_record(key: &str, namespace: &str, name: &str) -> bool {
    let rest = key.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/'));
    let Some((folder, file)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
    let uid = folder.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
    let ours = uid.is_some_and(|uid| uid.len() == 8 && uid.bytes().all(|byte| byte.is_ascii_hexdigit()));
    ours && file.starts_with("record-") && file.ends_with(".json")
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
        let found = |key: &str| is_record(key, "ns", "train");
        assert!(found("ns/train-0a1b2c3d/record-2.json"));
        for other in [
            "ns/train-2-0a1b2c3d/record-1.json",
            "ns/train-0a1b2c3d/result-1.json",
            "ns/train-0a1b2c3d/out/record-1.json",
            "ns2/train-0a1b2c3d/record-1.json",
            "ns/train-0a1b2c3/record-1.json",
        ] {
            assert!(!found(other), "{other}");
        }
    }

    #[tokio::test]
    async fn a_record_is_read_as_the_experiment_that_it_tells_of() {
        let folder = tempfile::tempdir().unwrap();
        let spec = StoreSpec { url: format!("file://{}", folder.path().display()), ..StoreSpec::default() };
        let store = Store::open(&spec).unwrap();
        assert!(newest(&store, "ns", "train").await.unwrap().is_none());
        let artifact = json!({"name": "model", "uri": "s3://b/ns/train/model.pkl", "size": 3});
        let record = json!({
            "exitCode": 0, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:01:00Z",
            "template": {"image": "a:1", "params": {"lr": 0.1}},
            "result": {"artifacts": [artifact], "metrics": {"acc": {"last": 0.9, "min": 0.1, "max": 0.9}},
                       "params": {"seed": 1}, "logs": {"uri": "s3://b/ns/train/logs/1/", "chunks": 1}},
        });
        store.put("ns/train-0a1b2c3d/record-1.json", record.to_string().into_bytes()).await.unwrap();
        let (object, place) = newest(&store, "ns", "train").await.unwrap().unwrap();
        assert_eq!(place.digest, digest_of(record.to_string().as_bytes()));
        let read = experiment(&object).unwrap();
        assert_eq!((read.status.phase, read.status.artifacts[0].name.as_str()), (Phase::Completed, "model"));
        assert_eq!(read.status.logs.as_deref(), Some("s3://b/ns/train/logs/1/"));
        assert_eq!(read.status.metrics["acc"].last, 0.9);
    }
}
