//! The runner in the pod: installed by an init container, wrapped around the program, told what to do.
//!
//! Comes in: the template with its references resolved, and the equipment. Goes out: the specification that the runner
//! reads (crate `cultivar-protocol`), and the pod changed so that it runs. Credentials are mounted as files.

use cultivar_crds::{Input, Output, Reason, labels};
use cultivar_protocol::{self as protocol, Checkpoint, ExperimentRef, RunSpec, Span, StoreSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

use super::pod::{MAX_ENV, Own, as_text, at, name, unresolved, uri};
use super::{RenderError, source};
use crate::domain::names::{cache_prefix, short_hash, store_prefix};
use crate::domain::{Equipment, Meta, StoreAccess, inputs, settings, time};
use crate::refs::{Insert, Scope, resolve};

/// The init container that installs the runner.
pub const RUNNER: &str = "cultivar-runner";
/// Where everything of the runner's lies in the pod.
const HOME: &str = "/cultivar";
/// The Secret with a namespace's credentials for the operator's own store; its mount in the pod.
pub const STORE_SECRET: &str = "cultivar-store";
const SECRETS: &str = "/cultivar-secrets/store";
/// How often a checkpoint is saved unless the template says otherwise.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);
/// The image's user; any but root.
const NOBODY: u32 = 65532;

fn list<'a>(template: &'a Value, key: &str) -> &'a [Value] {
    template.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn path_of(item: &Value, folder: &str) -> String {
    let given = item.get("path").and_then(Value::as_str);
    given.map_or_else(|| format!("{HOME}/{folder}/{}", name(item)), str::to_owned)
}

// Without the runner nothing is fetched or collected; a claim is mounted all the same.
fn is_found(item: &Value, equipped: bool) -> bool {
    equipped || inputs::members(item).iter().all(|member| claim(uri(member)).is_some())
}

// Inputs, folders as well as what is in them, or outputs.
fn found(template: &Value, key: &str, equipped: bool) -> Vec<Value> {
    let items = list(template, key).iter().filter(|item| is_found(item, equipped));
    let folder = |item: &Value| inputs::uris(item).map(|_| item.clone());
    items.flat_map(|item| folder(item).into_iter().chain(inputs::members(item))).collect()
}

/// Where inputs and outputs are found, as far as no reference says so.
pub fn literal_paths(own: &mut Own, template: &Value, equipped: bool) {
    for (key, values) in [("inputs", &mut own.inputs), ("outputs", &mut own.outputs)] {
        for item in found(template, key, equipped) {
            let path = path_of(&item, key);
            if !path.contains("${") {
                values[name(&item)]["path"] = path.into();
            }
        }
    }
}

/// Where the others are found.
pub fn wired_paths(own: &mut Own, template: &Value, equipped: bool) -> Result<(), RenderError> {
    for key in ["inputs", "outputs"] {
        let wired = found(template, key, equipped).into_iter().filter(|item| path_of(item, key).contains("${"));
        for item in wired {
            let at = at(key).key(name(&item)).key("path");
            let path = Value::String(path_of(&item, key));
            let path = as_text(&resolve(&path, &at, Scope::Own, &own.names(), Insert::Plain).map_err(unresolved)?);
            let values = if key == "inputs" { &mut own.inputs } else { &mut own.outputs };
            values[name(&item)]["path"] = path.into();
        }
    }
    Ok(())
}

/// A claim, and a folder or file in it, of `pvc://claim/dir`.
fn claim(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("pvc://")?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}

/// Mounts the inputs that lie in claims, read-only; nothing copies them.
pub fn mount_claims(
    spec: &mut Value,
    container: &mut Map<String, Value>,
    template: &Value,
    own: &Own,
) -> Result<(), RenderError> {
    let pod = spec.as_object_mut().ok_or_else(|| invalid("the pod has no spec"))?;
    let mut mounted: Vec<String> = Vec::new();
    for item in &inputs::each(template) {
        let uri = own.inputs[name(item)]["uri"].as_str().unwrap_or_default();
        let Some((claim, dir)) = claim(uri) else { continue };
        let dir = dir.trim_matches('/');
        if claim.is_empty() || dir.split('/').any(|part| part == "..") {
            return Err(invalid(format!(
                "spec.inputs.{}.uri: {uri:?} is not pvc://claim or pvc://claim/dir",
                name(item)
            )));
        }
        let mut mount = json!({
            "name": format!("cultivar-claim-{}", short_hash(&[claim], 4)),
            "mountPath": own.inputs[name(item)]["path"].as_str().map_or_else(|| path_of(item, "inputs"), str::to_owned),
            "readOnly": true,
        });
        if !dir.is_empty() {
            mount["subPath"] = dir.into();
        }
        if !mounted.iter().any(|known| known == claim) {
            let source = json!({"claimName": claim, "readOnly": true});
            push(pod, "volumes", json!({"name": mount["name"], "persistentVolumeClaim": source}));
            mounted.push(claim.to_owned());
        }
        push(container, "volumeMounts", mount);
    }
    Ok(())
}

pub fn invalid(message: impl Into<String>) -> RenderError {
    RenderError { reason: Reason::InvalidTemplate, message: message.into() }
}

/// What the runner is told.
pub fn spec(
    experiment: &Meta,
    number: u32,
    template: &Value,
    own: &Own,
    equipment: &Equipment,
) -> Result<RunSpec, RenderError> {
    let word = |key: &str, values: &Value| values[key]["path"].as_str().unwrap_or_default().to_owned();
    let mut inputs = Vec::new();
    for item in &inputs::each(template) {
        let read = Input::deserialize(item).map_err(|error| invalid(format!("spec.inputs: {error}")))?;
        let uri = own.inputs[&read.name]["uri"].as_str().unwrap_or_else(|| uri(item)).to_owned();
        if claim(&uri).is_some() {
            continue; // mounted, not fetched
        }
        let digest = read.digest.filter(|digest| digest.starts_with("sha256:"));
        inputs.push(protocol::Input {
            path: word(&read.name, &own.inputs),
            digest: digest.or_else(|| equipment.digests.get(&uri).cloned()),
            unpack: read.unpack.unwrap_or_default(),
            name: read.name,
            uri,
            store: None,
        });
    }
    let mut outputs = Vec::new();
    for item in list(template, "outputs") {
        let read = Output::deserialize(item).map_err(|error| invalid(format!("spec.outputs: {error}")))?;
        outputs.push(protocol::Output {
            path: read.path.is_some().then(|| word(&read.name, &own.outputs)),
            name: read.name,
            type_: read.type_,
            optional: read.optional.unwrap_or_default(),
            default: read.default,
        });
    }
    let label = |key: &str| experiment.label(key).map(str::to_owned);
    let text = |key: &str| -> Result<Option<Value>, RenderError> {
        let Some(value) = template.get(key) else { return Ok(None) };
        resolve(value, &at(key), Scope::Own, &own.names(), Insert::Plain).map(Some).map_err(unresolved)
    };
    let words = |value: Option<Value>| -> Vec<String> {
        value.as_ref().and_then(Value::as_array).into_iter().flatten().map(as_text).collect()
    };
    Ok(RunSpec {
        version: protocol::VERSION,
        experiment: ExperimentRef {
            name: experiment.name.clone(),
            namespace: experiment.namespace.clone(),
            uid: experiment.uid.clone(),
        },
        attempt: number,
        workers: Some(settings::workers(template)).filter(|workers| *workers > 1),
        worker: 0,
        pipeline: label(labels::PIPELINE),
        pipeline_run: label(labels::PIPELINE_RUN),
        stage: label(labels::STAGE),
        store: equipment.store.as_ref().map(store),
        prefix: store_prefix(experiment),
        source: source::spec(template, own)?.map(|source| protocol::Source {
            // Experiments share packages with those that share credentials.
            cache: source.requirements.as_ref().map(|_| cache_prefix(experiment)),
            ..source
        }),
        inputs,
        folders: inputs::folders(template).map(|folder| word(name(folder), &own.inputs)).collect(),
        outputs,
        outputs_dir: format!("{HOME}/outputs"),
        run_dir: format!("{HOME}/run"),
        termination_log: "/dev/termination-log".to_owned(),
        checkpoint: text("checkpoint")?.map(|value| checkpoint(&value, equipment.store.as_ref())),
        keep_on_failure: span(template.get("keepOnFailure")),
        tensorboard: words(text("tensorboard")?),
        grace_period: grace(template),
        template: template.clone(),
        params: own.params.clone(),
    })
}

fn store(access: &StoreAccess) -> StoreSpec {
    StoreSpec {
        url: access.url.clone(),
        options: access.options.clone(),
        secret_dir: access.secret.as_ref().map(|_| SECRETS.to_owned()),
    }
}

fn span(value: Option<&Value>) -> Option<Span> {
    value.and_then(Value::as_str).and_then(|text| time::parse_duration(text).ok()).map(Span)
}

fn checkpoint(value: &Value, store: Option<&StoreAccess>) -> Checkpoint {
    let restore = value.pointer("/restore/uri").and_then(Value::as_str);
    // Without a scheme it is a key of the run's own store.
    let restore = restore.and_then(|uri| match (uri.contains("://"), store) {
        (true, _) => Some(uri.to_owned()),
        (false, Some(store)) => Some(store.uri_of(uri)),
        (false, None) => None,
    });
    Checkpoint {
        path: value["path"].as_str().unwrap_or_default().to_owned(),
        every: span(value.get("every")).unwrap_or(Span(CHECKPOINT_EVERY)),
        restore,
    }
}

fn grace(template: &Value) -> Option<Span> {
    let seconds = template.pointer("/podTemplate/spec/terminationGracePeriodSeconds")?.as_u64()?;
    Some(Span(Duration::from_secs(seconds)))
}

/// Puts the runner into the pod.
pub fn install(
    spec: &mut Value,
    container: &mut Map<String, Value>,
    equipment: &Equipment,
    run: &RunSpec,
    source_secret: Option<String>,
) -> Result<(), RenderError> {
    let mut run = run.clone();
    let mut told = serde_json::to_string(&run).map_err(|error| invalid(error.to_string()))?;
    if told.replace('$', "$$").len() > MAX_ENV {
        // The record does without the template; the object in the cluster has it.
        run.template = Value::Null;
        told = serde_json::to_string(&run).map_err(|error| invalid(error.to_string()))?;
    }
    let told = told.replace('$', "$$");
    if told.len() > MAX_ENV {
        return Err(invalid(format!(
            "what the runner must be told has {} bytes, and {MAX_ENV} are allowed: keep data out of params and inputs",
            told.len()
        )));
    }
    let mut words = vec![json!(cultivar_protocol::RUNNER), json!("run"), json!("--")];
    words.extend(container.get("command").and_then(Value::as_array).cloned().unwrap_or_default());
    container.insert("command".to_owned(), Value::Array(words));
    push(container, "env", json!({"name": protocol::SPEC_ENV, "value": told}));
    push(container, "volumeMounts", json!({"name": "cultivar", "mountPath": HOME}));
    let pod = spec.as_object_mut().ok_or_else(|| invalid("the pod has no spec"))?;
    push(pod, "volumes", json!({"name": "cultivar", "emptyDir": {}}));
    let store_secret = equipment.store.as_ref().and_then(|store| store.secret.clone());
    for (name, path, secret) in
        [("cultivar-store", SECRETS, store_secret), ("cultivar-source", source::SOURCE_SECRETS, source_secret)]
    {
        let Some(secret) = secret else { continue };
        push(container, "volumeMounts", json!({"name": name, "mountPath": path, "readOnly": true}));
        push(pod, "volumes", json!({"name": name, "secret": {"secretName": secret, "defaultMode": 0o444}}));
    }
    push(
        pod,
        "initContainers",
        json!({
            "name": RUNNER,
            "image": equipment.runner_image,
            "command": ["/cultivar-runner", "install", format!("{HOME}/bin")],
            "volumeMounts": [{"name": "cultivar", "mountPath": HOME}],
            // A namespace with a quota of its own asks for all four.
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
            // What the strictest pod security standard asks for.
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": NOBODY,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }),
    );
    Ok(())
}

fn push(object: &mut Map<String, Value>, list: &str, item: Value) {
    if let Value::Array(items) = object.entry(list).or_insert_with(|| json!([])) {
        items.push(item);
    }
}
