//! What becomes of artifacts once their run is over: published, or deleted with their experiment.

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, root, with};

const MODEL: &str = r#"{"artifacts": [{"name": "model", "uri": "s3://lake/model", "digest": "sha256:ab", "size": 7}]}"#;

fn publishing(config_map: &str) -> Value {
    let outputs = json!({"outputs": [{"name": "model", "type": "Model", "publish": {"configMap": config_map}}]});
    with(root(&[("message", MODEL)]), outputs)
}

/// The operator writes into ConfigMaps of its own and into those that it was given, and into no others.
pub async fn an_output_is_published_where_it_may_be(case: &Case) -> Result<()> {
    let config_map = |name: &str, labels: Value| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"theirs": "stays"},
            "metadata": {"name": name, "namespace": case.namespace, "labels": labels},
        })
    };
    case.server.create(&config_map("settings", json!({}))).await?;
    case.server.create(&config_map("given", json!({"app.kubernetes.io/managed-by": "cultivar"}))).await?;
    for (experiment, target) in [("a", "made"), ("b", "given")] {
        case.completed(experiment, publishing(target)).await?;
        case.wait("Experiment", experiment, |object| condition(object, "Published")["status"] == "True").await?;
        let data = &case.get("ConfigMap", target).await?["data"];
        let entry: Value = serde_json::from_str(data["model"].as_str().unwrap_or_default()).unwrap_or_default();
        let expected = json!({"uri": "s3://lake/model", "digest": "sha256:ab", "size": 7, "experiment": experiment});
        ensure!(entry == expected, "ConfigMap {target} holds {data}");
    }
    ensure!(case.get("ConfigMap", "given").await?["data"]["theirs"] == "stays", "an entry of somebody else's is gone");
    case.completed("c", publishing("settings")).await?;
    let refused =
        case.wait("Experiment", "c", |object| condition(object, "Published")["reason"] == "PublishFailed").await?;
    let why = condition(&refused, "Published")["message"].as_str().unwrap_or_default();
    ensure!(why.contains("settings") && why.contains("label it"), "it is not said what to do: {why}");
    let data = &case.get("ConfigMap", "settings").await?["data"];
    ensure!(*data == json!({"theirs": "stays"}), "somebody else's ConfigMap is now {data}");
    Ok(())
}

/// An experiment whose artifacts go with it is held from before its Job on, and goes when its pods have gone.
pub async fn a_deletion_waits_for_the_pods_alone(case: &Case) -> Result<()> {
    case.experiment("scratch", with(root(&[("duration", "1h")]), json!({"artifacts": "Delete"}))).await?;
    let pod = case.pod("scratch", 1, "Running").await?;
    let held = case.get("Experiment", "scratch").await?;
    let finalizers = &held["metadata"]["finalizers"];
    ensure!(*finalizers == json!(["cultivar.dev/artifacts"]), "finalizers are {finalizers}");
    case.server.delete("Experiment", &case.namespace, "scratch").await?;
    case.wait("Experiment", "scratch", Value::is_null).await?;
    case.wait("Pod", &pod, Value::is_null).await?;
    ensure!(case.jobs("scratch").await?.is_empty(), "its Job is still there");
    Ok(())
}
