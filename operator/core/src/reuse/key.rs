//! The key of a run: everything that decides what comes out of it.

use serde_json::{Map, Value, json};

use crate::clone;
use crate::domain::inputs;

/// Fields of a template that the key takes as they are.
const AS_THEY_ARE: [&str; 4] = ["command", "args", "params", "envFrom"];
/// Where a pod is placed, and who starts it: the same program runs everywhere.
const PLACEMENT: [&str; 12] = [
    "affinity",
    "hostname",
    "nodeName",
    "nodeSelector",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "schedulerName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
];
/// What is done with an output once it is there.
const AFTER_AN_OUTPUT: [&str; 2] = ["keep", "publish"];

/// What a run does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Key {
    /// As JSON; empty fields are left out.
    pub document: Value,
    /// What of it may be something else next time although its name is the same, in words.
    pub unpinned: Vec<String>,
}

impl Key {
    /// `sha256:…` of the document.
    #[must_use]
    pub fn digest(&self) -> String {
        clone::digest(&self.document)
    }
}

/// The key of `template`. `digest_of` knows the content of inputs by their uri.
///
/// Part of it: the image's digest, command, args, every param, env but for what `cache.ignoreEnv` names, the code's commit or
/// digest, the inputs' digests, outputs, workers, the pod template but for where the pod is placed; resources where
/// `cache.considerResources` says so. No part of it: names, where inputs lie, queue, priority, retries, timeouts, store,
/// and what becomes of the results.
#[must_use]
pub fn key(template: &Value, digest_of: impl Fn(&str) -> Option<String>) -> Key {
    let mut unpinned = Vec::new();
    let mut document = Map::new();
    let text = |field: &str| template.get(field).and_then(Value::as_str).unwrap_or_default();
    document.insert("image".to_owned(), image(text("image"), &mut unpinned).into());
    for field in AS_THEY_ARE {
        document.insert(field.to_owned(), template.get(field).cloned().unwrap_or_default());
    }
    document.insert("env".to_owned(), env(template));
    document.insert("source".to_owned(), source(template, &mut unpinned));
    document.insert("inputs".to_owned(), inputs(template, digest_of, &mut unpinned));
    document.insert("outputs".to_owned(), outputs(template));
    document.insert("tensorboard".to_owned(), template.get("tensorboard").cloned().unwrap_or_default());
    if let Some(restore) = template.pointer("/checkpoint/restore") {
        unpinned.push("checkpoint.restore: where another run got to is no content that is known".to_owned());
        document.insert("restore".to_owned(), restore.clone());
    }
    if let Some(workers) = template.get("workers").and_then(Value::as_u64).filter(|workers| *workers > 1) {
        document.insert("workers".to_owned(), workers.into());
    }
    if template.pointer("/cache/considerResources").and_then(Value::as_bool) == Some(true) {
        document.insert("resources".to_owned(), template.get("resources").cloned().unwrap_or_default());
    }
    document.insert("podTemplate".to_owned(), pod_template(template, &mut unpinned));
    document.retain(|_, value| !is_empty(value));
    Key { document: Value::Object(document), unpinned }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

// The digest alone: the same image may lie in several registries.
fn image(image: &str, unpinned: &mut Vec<String>) -> String {
    match image.split_once('@') {
        Some((_, digest)) if digest.starts_with("sha256:") && !digest.contains("${") => digest.to_owned(),
        _ => {
            unpinned.push(format!("image: {image} has no digest, and a tag can be moved"));
            image.to_owned()
        }
    }
}

fn list<'v>(of: &'v Value, field: &str) -> &'v [Value] {
    of.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

fn env(template: &Value) -> Value {
    let ignored: Vec<&str> = template
        .pointer("/cache/ignoreEnv")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let counts = |item: &&Value| !item["name"].as_str().is_some_and(|name| ignored.contains(&name));
    // The kubelet expands a variable in those after it, so their order is part of it.
    list(template, "env").iter().filter(counts).cloned().collect()
}

fn source(template: &Value, unpinned: &mut Vec<String>) -> Value {
    let Some(mut source) = template.get("source").cloned() else { return Value::Null };
    let word = |of: &Map<String, Value>, field: &str| of.get(field).and_then(Value::as_str).map(str::to_owned);
    if let Some(git) = source.get_mut("git").and_then(Value::as_object_mut) {
        // A commit is the same wherever it is fetched from, and whatever named it.
        let revision = word(git, "commit").or_else(|| word(git, "revision")).unwrap_or_default();
        ["url", "secret", "revision"].iter().for_each(|field| drop(git.remove(*field)));
        if !matches!(revision.len(), 40 | 64) || !revision.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            unpinned.push(format!("source.git.revision: {revision:?} is no commit, and may be another one tomorrow"));
        }
        git.insert("commit".to_owned(), revision.into());
    }
    if let Some(packed) = source.get_mut("packed").and_then(Value::as_object_mut) {
        packed.retain(|field, _| field == "digest");
    }
    source
}

fn inputs(template: &Value, digest_of: impl Fn(&str) -> Option<String>, unpinned: &mut Vec<String>) -> Value {
    let mut inputs: Vec<Value> = inputs::each(template)
        .iter()
        .map(|input| {
            let uri = input.get("uri").and_then(Value::as_str).unwrap_or_default();
            let name = input.get("name").and_then(Value::as_str).unwrap_or_default();
            let said = input.get("digest").and_then(Value::as_str).map(str::to_owned);
            let digest = said.or_else(|| digest_of(uri)).filter(|digest| digest.starts_with("sha256:"));
            let mut counted = json!({"name": name, "path": input.get("path"), "unpack": input.get("unpack")});
            if let Some(digest) = digest {
                counted["digest"] = digest.into();
            } else {
                unpinned.push(format!("inputs[{name}]: nothing is known of the content of {uri}; give its digest"));
                counted["uri"] = uri.into();
            }
            counted.as_object_mut().into_iter().for_each(|fields| fields.retain(|_, value| !value.is_null()));
            counted
        })
        .collect();
    // The program finds them by name.
    inputs.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    Value::Array(inputs)
}

fn outputs(template: &Value) -> Value {
    let mut outputs = list(template, "outputs").to_vec();
    for output in outputs.iter_mut().filter_map(Value::as_object_mut) {
        output.retain(|field, _| !AFTER_AN_OUTPUT.contains(&field.as_str()));
    }
    outputs.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    Value::Array(outputs)
}

// What the pod is made of; not where it is placed, nor what is written on it.
fn pod_template(template: &Value, unpinned: &mut Vec<String>) -> Value {
    let Some(mut spec) = template.pointer("/podTemplate/spec").cloned() else { return Value::Null };
    for container in ["initContainers", "containers"].iter().flat_map(|field| list(&spec, field)) {
        let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
        if !image.is_empty() && !image.contains("@sha256:") {
            unpinned
                .push(format!("podTemplate: the image {image} of a container has no digest, and a tag can be moved"));
        }
    }
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|field, value| !PLACEMENT.contains(&field.as_str()) && !is_empty(value));
    }
    spec
}
