//! What a pod is given for the data plane: the runner, a store, and the digests of its inputs.

use cultivar_crds::Reason;
use serde_json::Value;

use super::Snapshot;
use crate::domain::{Equipment, StoreAccess, inputs};

/// Fields that only the runner can do something about.
const NEED_THE_RUNNER: [&str; 5] = ["source", "checkpoint", "tensorboard", "store", "keepOnFailure"];

/// Why an attempt cannot be equipped.
pub enum Unequipped {
    /// The ArtifactStore that is named does not exist yet.
    Waits(String),
    /// The template asks for what cannot be.
    Never(Reason, String),
}

/// The equipment of an attempt that runs `template`; nothing for a program that runs as it is.
pub fn equipment(snapshot: &Snapshot, template: &Value) -> Result<Option<Equipment>, Unequipped> {
    let has_command = template.get("command").and_then(Value::as_array).is_some_and(|words| !words.is_empty());
    let (Some(runner_image), true) = (&snapshot.runner_image, has_command) else {
        return match needs(template) {
            None => Ok(None),
            Some(field) => Err(never(snapshot, &field)),
        };
    };
    let digests = snapshot.producers.iter().filter_map(|(uri, producer)| Some((uri.clone(), producer.digest.clone()?)));
    let digests = digests.filter(|(_, digest): &(String, String)| digest.starts_with("sha256:"));
    Ok(Some(Equipment {
        runner_image: runner_image.clone(),
        store: store(snapshot, template)?,
        digests: digests.collect(),
    }))
}

fn store(snapshot: &Snapshot, template: &Value) -> Result<Option<StoreAccess>, Unequipped> {
    let named = template.get("store").and_then(Value::as_str);
    match (named, &snapshot.stores.named) {
        (_, Some(store)) => Ok(Some(store.clone())),
        (Some(name), None) => Err(Unequipped::Waits(format!("ArtifactStore {name} does not exist in this namespace"))),
        (None, None) => Ok(snapshot.stores.own.clone()),
    }
}

fn needs(template: &Value) -> Option<String> {
    let set = |key: &&&str| template.get(**key).is_some();
    let list = |key: &str| template.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if let Some(field) = NEED_THE_RUNNER.iter().find(set) {
        return Some((*field).to_owned());
    }
    let with = |list: &[Value], fields: &[&str]| {
        list.iter().find_map(|item| fields.iter().copied().find(|field| item.get(field).is_some()).map(str::to_owned))
    };
    // A claim is mounted by the kubelet.
    let is_fetched =
        |item: &&Value| !item.get("uri").and_then(Value::as_str).is_some_and(|uri| uri.starts_with("pvc://"));
    let fetched: Vec<Value> = inputs::each(template).iter().filter(is_fetched).cloned().collect();
    let input = with(&fetched, &["path", "unpack"]).map(|field| format!("inputs[].{field}"));
    input.or_else(|| with(list("outputs"), &["path", "default"]).map(|field| format!("outputs[].{field}")))
}

fn never(snapshot: &Snapshot, field: &str) -> Unequipped {
    let message = if snapshot.runner_image.is_some() {
        format!(
            "{field} is the runner's work, which wraps command, and the image's own entrypoint is not known: set command"
        )
    } else {
        format!("{field} is the runner's work, and this operator has no runner image (--runner-image)")
    };
    Unequipped::Never(Reason::InvalidTemplate, message)
}
