//! The pod template of an attempt: own references resolved, the user's patch applied last but one.
//!
//! The kubelet expands `$(VAR)` in command, args and env; what a reference inserts there has its
//! dollars doubled, so that values arrive byte for byte.

use cultivar_crds::{Reason, labels};
use serde_json::{Map, Value, json};

use super::{RenderError, runner, source};
use crate::clone::strategic_merge;
use crate::domain::queue::{PodDefaults, is_extended};
use crate::domain::{Equipment, Meta, Placement, inputs, text};
use crate::refs::{FieldPath, Head, Insert, Located, Names, RefError, Scope, resolve, resolve_params};

/// Name of the program's container.
pub const MAIN: &str = "main";
/// Most bytes of one environment variable that the kernel hands to a program (MAX_ARG_STRLEN), less its name.
pub const MAX_ENV: usize = 128 * 1024 - 64;
const SHM: &str = "cultivar-shm";

/// Values that own references read.
pub struct Own {
    pub params: Value,
    pub inputs: Value,
    pub outputs: Value,
    run: Value,
}

impl Own {
    pub fn names(&self) -> Names<'_> {
        Names::new()
            .with(Head::Params, &self.params)
            .with(Head::Inputs, &self.inputs)
            .with(Head::Outputs, &self.outputs)
            .with(Head::Run, &self.run)
    }
}

/// The pod template of attempt `number`.
pub fn template(
    experiment: &Meta,
    number: u32,
    template: &Value,
    labels: &Map<String, Value>,
    equipment: Option<&Equipment>,
    of_queue: Option<&PodDefaults>,
) -> Result<Value, RenderError> {
    let own = own_names(experiment, number, template, equipment.is_some())?;
    let names = own.names();
    let part = |key: &str, insert: Insert| -> Result<Option<Value>, RenderError> {
        let Some(value) = template.get(key) else { return Ok(None) };
        resolve(value, &at(key), Scope::Own, &names, insert).map(Some).map_err(unresolved)
    };
    let mut container = Map::from_iter([
        ("name".to_owned(), MAIN.into()),
        ("terminationMessagePolicy".to_owned(), "FallbackToLogsOnError".into()),
    ]);
    if let Some(image) = part("image", Insert::Plain)? {
        container.insert("image".to_owned(), as_text(&image).into());
    }
    for key in ["command", "args"] {
        if let Some(Value::Array(words)) = part(key, Insert::Doubled)? {
            container.insert(key.to_owned(), words.iter().map(|word| Value::String(as_text(word))).collect());
        }
    }
    container.insert("env".to_owned(), env(experiment, number, template, &own)?);
    if let Some(sources) = part("envFrom", Insert::Plain)? {
        container.insert("envFrom".to_owned(), sources);
    }
    let resources = part("resources", Insert::Plain)?;
    let mut spec = json!({"restartPolicy": "Never", "containers": []});
    if resources.as_ref().is_some_and(has_accelerator) {
        // Data loaders of several processes share memory here; the default of 64 MiB breaks them.
        spec["volumes"] = json!([{"name": SHM, "emptyDir": {"medium": "Memory"}}]);
        container.insert("volumeMounts".to_owned(), json!([{"name": SHM, "mountPath": "/dev/shm"}]));
    }
    if let Some(resources) = resources {
        container.insert("resources".to_owned(), resources);
    }
    runner::mount_claims(&mut spec, &mut container, template, &own)?;
    if let Some(equipment) = equipment {
        let run = runner::spec(experiment, number, template, &own, equipment)?;
        let source_secret = source::secret(template, &own)?;
        runner::install(&mut spec, &mut container, equipment, &run, source_secret)?;
    }
    spec["containers"] = json!([container]);
    let mut pod = json!({"metadata": {"labels": labels}, "spec": spec});
    if let Some(patch) = template.get("podTemplate") {
        let patch = patch_of(patch, &names)?;
        pod = strategic_merge(&pod, &patch);
    }
    match of_queue {
        Some(defaults) if defaults.enforce => pod = strategic_merge(&pod, &defaults.patch),
        Some(defaults) => {
            let bare = json!({"spec": {"containers": [{"name": MAIN}]}});
            pod = strategic_merge(&strategic_merge(&bare, &defaults.patch), &pod);
        }
        None => {}
    }
    if of_queue.is_some() || template.get("podTemplate").is_some() {
        reassert(&mut pod, labels)?;
    }
    Ok(pod)
}

// A whole reference keeps its type, but a word of a command and the value of a variable are text.
fn text_where_text_belongs(item: &mut Value) {
    match item {
        Value::Object(variable) => {
            if let Some(value) = variable.get_mut("value") {
                *value = as_text(value).into();
            }
        }
        word => *word = as_text(word).into(),
    }
}

// The kubelet expands command, args and env of every container, those of the patch too.
fn patch_of(patch: &Value, names: &Names<'_>) -> Result<Value, RenderError> {
    let root = at("podTemplate");
    let mut plain = resolve(patch, &root, Scope::Own, names, Insert::Plain).map_err(unresolved)?;
    for list in ["containers", "initContainers"] {
        let at_list = root.key("spec").key(list);
        let containers = patch.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            for field in ["command", "args", "env"] {
                let Some(written) = container.get(field) else { continue };
                let path = at_list.index(index).key(field);
                let mut doubled = resolve(written, &path, Scope::Own, names, Insert::Doubled).map_err(unresolved)?;
                doubled.as_array_mut().into_iter().flatten().for_each(text_where_text_belongs);
                plain["spec"][list][index][field] = doubled;
            }
        }
    }
    Ok(plain)
}

// What the operator relies on stands, whatever the patch says.
fn reassert(pod: &mut Value, labels: &Map<String, Value>) -> Result<(), RenderError> {
    let shape = || RenderError {
        reason: Reason::InvalidTemplate,
        message: format!("podTemplate: the patched pod has no container {MAIN:?}; a patch adds containers beside it"),
    };
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).ok_or_else(shape)?;
    if !containers.iter().any(|container| container.get("name").and_then(Value::as_str) == Some(MAIN)) {
        return Err(shape());
    }
    pod["spec"]["restartPolicy"] = "Never".into();
    let metadata = pod.get_mut("metadata").and_then(Value::as_object_mut).ok_or_else(shape)?;
    // What a pod holds of a queue is not for it to say.
    for (map, keys) in [("labels", &[labels::QUEUE, labels::FLAVOR][..]), ("annotations", &[labels::HOLDS])] {
        let entries = metadata.get_mut(map).and_then(Value::as_object_mut);
        entries.into_iter().for_each(|entries| entries.retain(|key, _| !keys.contains(&key.as_str())));
    }
    match metadata.entry("labels").or_insert_with(|| json!({})) {
        Value::Object(patched) => patched.extend(labels.clone()),
        other => *other = Value::Object(labels.clone()),
    }
    Ok(())
}

/// Sends a pod to the nodes of its flavor. What the queue says wins over the patch: it is what was counted.
pub fn place(pod: &mut Value, placement: &Placement, labels: &Map<String, Value>, annotations: &Map<String, Value>) {
    let mut into = |pointer: [&str; 2], entries: Vec<(String, Value)>| {
        if entries.is_empty() {
            return;
        }
        match &mut pod[pointer[0]][pointer[1]] {
            Value::Object(known) => known.extend(entries),
            other => *other = Value::Object(entries.into_iter().collect()),
        }
    };
    into(["metadata", "labels"], labels.clone().into_iter().collect());
    into(["metadata", "annotations"], annotations.clone().into_iter().collect());
    let selector = placement.node_selector.iter().map(|(key, value)| (key.clone(), value.clone().into()));
    into(["spec", "nodeSelector"], selector.collect());
    if placement.tolerations.is_empty() {
        return;
    }
    match &mut pod["spec"]["tolerations"] {
        Value::Array(known) => {
            let missing = placement.tolerations.iter().filter(|toleration| !known.contains(toleration));
            let missing: Vec<Value> = missing.cloned().collect();
            known.extend(missing);
        }
        other => *other = placement.tolerations.clone().into(),
    }
}

fn own_names(experiment: &Meta, number: u32, template: &Value, equipped: bool) -> Result<Own, RenderError> {
    let mut own = Own {
        params: json!({}),
        inputs: json!({}),
        outputs: json!({}),
        run: json!({
            "name": experiment.name,
            "namespace": experiment.namespace,
            "uid": experiment.uid,
            "attempt": number,
            "pipeline": experiment.label(labels::PIPELINE),
            "pipelineRun": experiment.label(labels::PIPELINE_RUN),
            "stage": experiment.label(labels::STAGE),
            // Of a fan-out: a number, to compare with and to take from a list.
            "member": experiment.label(labels::MEMBER).and_then(|index| index.parse::<u32>().ok()),
        }),
    };
    let inputs = inputs::each(template);
    // Params may read inputs and inputs may read params; an input without references is known first.
    let (plain, wired): (Vec<&Value>, Vec<&Value>) = inputs.iter().partition(|input| !uri(input).contains("${"));
    for input in plain {
        own.inputs[name(input)] = json!({"uri": uri(input)});
    }
    folders(&mut own, template);
    // Where things are found may be chosen by a parameter, and a parameter may say where things are found. Without
    // the runner only what is mounted is found anywhere.
    runner::literal_paths(&mut own, template, equipped);
    let params = template.get("params").and_then(Value::as_object).cloned().unwrap_or_default();
    let params = resolve_params(&params, &at("params"), &own.names()).map_err(unresolved)?;
    own.params = Value::Object(params);
    for input in wired {
        let path = at("inputs").key(name(input)).key("uri");
        let resolved = resolve(&Value::String(uri(input).to_owned()), &path, Scope::Own, &own.names(), Insert::Plain);
        own.inputs[name(input)]["uri"] = as_text(&resolved.map_err(unresolved)?).into();
    }
    folders(&mut own, template);
    runner::wired_paths(&mut own, template, equipped)?;
    Ok(own)
}

// What is known of inputs that are folders, once all of their members are.
fn folders(own: &mut Own, template: &Value) {
    for folder in inputs::folders(template) {
        let members = inputs::members(folder);
        let uris: Option<Vec<Value>> =
            members.iter().map(|member| own.inputs.get(name(member))?.get("uri").cloned()).collect();
        if let Some(uris) = uris {
            own.inputs[name(folder)]["uris"] = uris.into();
        }
    }
}

pub fn uri(input: &Value) -> &str {
    input.get("uri").and_then(Value::as_str).unwrap_or_default()
}

pub fn name(named: &Value) -> &str {
    named.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn env(experiment: &Meta, number: u32, template: &Value, own: &Own) -> Result<Value, RenderError> {
    let names = own.names();
    let params = own.params.to_string().replace('$', "$$");
    if params.len() > MAX_ENV {
        return Err(RenderError {
            reason: Reason::InvalidTemplate,
            message: format!(
                "spec.params has {} bytes as JSON, and a program can be handed {MAX_ENV} in CULTIVAR_PARAMS: keep data in inputs",
                params.len()
            ),
        });
    }
    let mut env = vec![
        json!({"name": "CULTIVAR_EXPERIMENT", "value": experiment.name}),
        json!({"name": "CULTIVAR_ATTEMPT", "value": number.to_string()}),
        json!({"name": "CULTIVAR_PARAMS", "value": params}),
    ];
    let members = template.get("env").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (index, member) in members.iter().enumerate() {
        let path = at("env").index(index);
        let mut resolved = resolve(member, &path, Scope::Own, &names, Insert::Plain).map_err(unresolved)?;
        if let Some(value) = member.get("value") {
            let value = resolve(value, &path.key("value"), Scope::Own, &names, Insert::Doubled).map_err(unresolved)?;
            resolved["value"] = as_text(&value).into();
        }
        // The user's own word for one of ours wins.
        env.retain(|ours| name(ours) != name(&resolved));
        env.push(resolved);
    }
    Ok(Value::Array(env))
}

fn has_accelerator(resources: &Value) -> bool {
    let limits = resources.get("limits").and_then(Value::as_object);
    limits
        .into_iter()
        .flatten()
        .any(|(resource, amount)| is_extended(resource) && !matches!(as_text(amount).as_str(), "0" | ""))
}

pub fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub fn at(key: &str) -> FieldPath {
    FieldPath::of("spec").key(key)
}

pub fn unresolved(errors: Vec<Located<RefError>>) -> RenderError {
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    RenderError { reason: Reason::ReferenceUnresolved, message: text::some_of(&words, 4) }
}
