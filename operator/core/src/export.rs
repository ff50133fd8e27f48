//! Exporting: what ran here as a manifest that runs elsewhere and does the same.
//!
//! Comes in: an experiment, or a pipeline with what its stages are clones of. Goes out: specs without anything of this
//! cluster: templates in place of names, inputs by uri and digest. Their keys have the same digests.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

use crate::decide::freeze::{self, Effective, Frozen, Sources};
use crate::decide::pipeline_run::queries;
use crate::domain::{ExperimentRecord, image};
use crate::validate;

/// Names of objects that another cluster may not have; none of them changes what is done.
const OF_THIS_CLUSTER: [&str; 3] = ["queue", "admission", "store"];

/// The spec of an Experiment that does what `record` did.
///
/// # Errors
/// It was never frozen.
pub fn experiment(record: &ExperimentRecord) -> Result<Value, String> {
    let Some(template) = &record.status.template else {
        return Err(format!("experiment {} has no template yet: it is {}", record.meta.name, record.status.phase));
    };
    let mut spec = portable(template);
    for input in spec.get_mut("inputs").and_then(Value::as_array_mut).into_iter().flatten() {
        let read = record.status.inputs.iter().find(|read| input["name"] == read.name.as_str());
        let digest = read.and_then(|read| read.digest.as_ref()).filter(|digest| digest.starts_with("sha256:"));
        if let (Some(digest), Some(fields)) = (digest, input.as_object_mut()) {
            fields.entry("digest").or_insert_with(|| digest.clone().into());
        }
    }
    Ok(spec)
}

/// The images of an exported spec that are known by a tag alone: what they stand for is looked up where it runs.
#[must_use]
pub fn tags(spec: &Value) -> BTreeSet<&str> {
    let lists = ["stages", "finally"].into_iter().filter_map(|list| spec.get(list)?.as_array());
    let templates = std::iter::once(spec).chain(lists.flatten());
    let images = templates.filter_map(|template| template.get("image")?.as_str());
    images.filter(|image| !image::is_pinned(image) && !image.contains("${")).collect()
}

/// What exporting a pipeline asks for: see [`pipeline`].
#[must_use]
pub fn wanted(spec: &Value) -> Vec<freeze::Query> {
    queries(spec)
}

/// The spec of a Pipeline whose stages are roots: each has the template of what it was a clone of.
///
/// # Errors
/// The pipeline is not valid, or what a stage is a clone of cannot be cloned.
pub fn pipeline(name: &str, spec: &Value, sources: &Sources) -> Result<Value, String> {
    if let Some(faults) = validate::pipeline(spec).refusal() {
        return Err(faults);
    }
    let mut spec = without_names(spec.clone());
    for list in ["stages", "finally"] {
        for stage in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if stage.get("gate").is_some() || stage.get("pipeline").is_some() {
                continue;
            }
            let template = match freeze::freeze(stage, sources, Some(name)) {
                Frozen::Ready(Effective { template, .. }) => template,
                Frozen::Waiting { message, .. } | Frozen::Refused { message, .. } => {
                    return Err(format!("stage {}: {message}", stage["name"].as_str().unwrap_or_default()));
                }
            };
            let said = freeze::overrides(stage);
            let mut root = crate::decide::object(Some(&portable(&template)));
            // What a stage says of reuse is no part of a template.
            if let (Some(cache), None) = (said.get("cache"), root.get("cache")) {
                root.insert("cache".to_owned(), cache.clone());
            }
            let around = crate::decide::object(Some(stage)).into_iter();
            let around =
                around.filter(|(field, _)| !["from", "unset"].contains(&field.as_str()) && said.get(field).is_none());
            let mut whole: Map<String, Value> = around.collect();
            whole.extend(root);
            *stage = Value::Object(whole);
        }
    }
    Ok(spec)
}

fn portable(template: &Value) -> Value {
    without_names(freeze::without_its_cache(template))
}

fn without_names(mut spec: Value) -> Value {
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|field, _| !OF_THIS_CLUSTER.contains(&field.as_str()));
    }
    spec
}
