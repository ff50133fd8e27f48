//! One object for each way in which a kind can stand, written down from what the tables decide.
//!
//! Comes in: objects with the statuses that `decide` gave them. Goes out: `cases/standing/<kind>.jsonl`, an object a line, on
//! which others try what they make of statuses: Argo CD's checks, kstatus. `UPDATE_GOLDEN=1` writes it anew.

use cultivar_core::domain::Record;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What of a status an object is judged by; the rest would change these files with everything that it tells.
const KEPT: [&str; 11] = [
    "phase",
    "reason",
    "message",
    "observedGeneration",
    "conditions",
    "latestRun",
    "progress",
    "reusedFrom",
    "suspended",
    "waiting",
    "admitted",
];

/// An object as the API server has it after a pass.
pub fn object<S>(kind: &str, record: &Record<S>, status: &impl Serialize) -> Value {
    let mut status = serde_json::to_value(status).expect("a status is JSON");
    let fields = status.as_object_mut().expect("an object");
    fields.retain(|field, _| KEPT.contains(&field.as_str()));
    let mut metadata = json!({"name": record.meta.name, "generation": record.meta.generation});
    if !record.meta.namespace.is_empty() {
        metadata["namespace"] = json!(record.meta.namespace);
    }
    json!({
        "apiVersion": "cultivar.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": *record.spec,
        "status": status,
    })
}

/// What is told apart: the status's own words, and what in the spec others look at.
fn key(object: &Value) -> String {
    let (spec, status) = (&object["spec"], &object["status"]);
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let conditions: Vec<Value> =
        conditions.iter().map(|one| json!([one["type"], one["status"], one["reason"]])).collect();
    let latest = &status["latestRun"];
    json!([
        status["phase"],
        status["reason"],
        conditions,
        latest["phase"],
        latest["reason"],
        status["observedGeneration"] == object["metadata"]["generation"],
        spec["suspend"],
        spec["stop"],
    ])
    .to_string()
}

/// Compares what is committed with the first object that stands in each way; `objects` are (which case, object).
pub fn agreed(kind: &str, objects: impl IntoIterator<Item = (String, Value)>) {
    let mut ways: BTreeMap<String, String> = BTreeMap::new();
    for (case, object) in objects {
        ways.entry(key(&object)).or_insert_with(|| json!({"case": case, "object": object}).to_string());
    }
    let text: String = ways.into_values().map(|line| line + "\n").collect();
    let path = format!("{}/tests/cases/standing/{kind}.jsonl", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("a writable file");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let news = text.lines().find(|line| !committed.lines().any(|known| known == *line));
    assert!(
        committed == text,
        "UPDATE_GOLDEN=1 writes {path}, if it is right: it lacks {news:?}, or has what is no more"
    );
}
