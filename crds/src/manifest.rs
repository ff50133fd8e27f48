//! The CustomResourceDefinitions as they are installed.
//!
//! Comes in: the types of this crate. Goes out: one JSON document per kind, in a fixed order.

use kube::CustomResourceExt;
use serde_json::Value;

use crate::{Approval, ArtifactStore, Experiment, Pipeline, PipelineRun, Queue, Schedule};

/// Every CustomResourceDefinition: plural name and document.
#[must_use]
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("experiments", document(&Experiment::crd())),
        ("pipelines", document(&Pipeline::crd())),
        ("pipelineruns", document(&PipelineRun::crd())),
        ("approvals", document(&Approval::crd())),
        ("artifactstores", document(&ArtifactStore::crd())),
        ("queues", document(&Queue::crd())),
        ("schedules", document(&Schedule::crd())),
    ]
}

fn document(crd: &impl serde::Serialize) -> Value {
    let mut document = serde_json::to_value(crd).expect("a definition made of plain data serialises");
    if let Some(schema) = document.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec") {
        tighten(schema);
    }
    if let Some(schema) = document.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/status") {
        tighten(schema);
        // One writer owns the whole status and replaces it. Without this the API server keeps, merges and stores
        // a list of owners for each field in it, which costs it more than all else about such a write.
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    document
}

// Two things that the derived schema says and must not: a null in a typed field (an absent field and
// a null one must not differ; in free objects such as params a null stays a value), and defaults (a
// defaulted field of a clone would override its source's).
fn tighten(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("nullable");
    map.remove("default");
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(tighten);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            tighten(inner);
        }
    }
}
