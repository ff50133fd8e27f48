//! The samples on simulated nodes: what each of them starts comes to its end.

use cultivar_conformance::has_ended;
use cultivar_e2e::error::{Context as _, Result};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::path::Path;

use crate::ensure;
use crate::kit::{Case, name, played, with};

/// What every program reports: as much as any sample reads.
const METRICS: [&str; 3] = ["acc", "letters", "greetings"];
/// Files that others are about: the demo plays those of digits and the real node the gang, queues are the whole cluster's, and there
/// is no runner here to fetch code or to keep checkpoints.
const OTHERS: [&str; 5] = ["digits-", "gang-", "published-", "queues", "source-"];

/// Every run and every experiment completes, or is one that its sample leaves out.
pub async fn every_sample_runs_to_its_end(case: &Case) -> Result<()> {
    let objects = samples()?;
    for object in &objects {
        let mut object = playing(object.clone());
        object["metadata"]["namespace"] = json!(case.namespace);
        case.server.apply(&object).await?;
    }
    for object in &objects {
        let (kind, name) = (object["kind"].as_str().unwrap_or_default(), name(object));
        match kind {
            "Experiment" => drop(case.ends(&name, "Completed").await?),
            "PipelineRun" => drop(case.run_ends(&name, "Completed").await?),
            "Pipeline" if object["spec"]["runOn"] != "Demand" => {
                case.run_ends(&format!("{name}-1"), "Completed").await?;
            }
            "Schedule" => {
                let is_done = |schedule: &Value| schedule["status"]["backfill"]["done"] == true;
                drop(case.wait(kind, &name, is_done).await?);
            }
            _ => {}
        }
    }
    for experiment in case.server.list("Experiment", &case.namespace, "").await? {
        let ended = case.wait("Experiment", &name(&experiment), has_ended).await?;
        ensure!(ended["status"]["phase"] == "Completed", "{} is {}", name(&ended), ended["status"]);
    }
    Ok(())
}

fn samples() -> Result<Vec<Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let listed = std::fs::read_dir(&folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut objects = Vec::new();
    for path in listed.doing(|| folder.display().to_string())?.iter().map(std::fs::DirEntry::path) {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if OTHERS.iter().any(|other| file.starts_with(other)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).doing(|| file.clone())?;
        // Nor one to fetch inputs: they have no path.
        let text = text.replace("${inputs.model.path}", "${inputs.model.uri}");
        for document in serde_yaml::Deserializer::from_str(&text) {
            objects.push(Value::deserialize(document).doing(|| file.clone())?);
        }
    }
    Ok(objects)
}

// The object with annotations that say how the pods of its roots play; clones have those of their sources.
fn playing(mut object: Value) -> Value {
    let lists = ["stages", "finally"].map(|list| format!("/spec/{list}"));
    for list in lists {
        for stage in object.pointer_mut(&list).and_then(Value::as_array_mut).into_iter().flatten() {
            report(stage);
        }
    }
    if object["kind"] == "Experiment" {
        report(&mut object["spec"]);
    }
    object
}

fn report(root: &mut Value) {
    if root.get("image").is_none() {
        return;
    }
    let declared = root["outputs"].as_array().into_iter().flatten().filter_map(|output| output["name"].as_str());
    let mut artifacts: Vec<&str> = declared.collect();
    if artifacts.is_empty() {
        artifacts.push("model");
    }
    let artifacts: Vec<Value> =
        artifacts.iter().map(|name| json!({"name": name, "uri": format!("s3://lake/{name}")})).collect();
    let metrics: serde_json::Map<String, Value> =
        METRICS.iter().map(|name| ((*name).to_owned(), json!(0.93))).collect();
    let message = json!({"metrics": metrics, "artifacts": artifacts}).to_string();
    let template = root.get("podTemplate").cloned().unwrap_or_else(|| json!({}));
    root["podTemplate"] = with(template, played(&[("message", message.as_str())]));
}
