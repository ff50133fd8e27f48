//! The keys by which lists merge, for those who patch manifests: pod templates here, and all kinds for kustomize.
//!
//! Comes in: the definitions and Kubernetes' own pod template. Goes out: the key of a list in a pod template, and an OpenAPI
//! document that tells kustomize, in `openapi: {path: …}`, what it needs for strategic merge patches: of everything else
//! in a schema it makes no use.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::{GROUP, VERSION, manifest};

const POD_TEMPLATE: &str = "io.k8s.api.core.v1.PodTemplateSpec";

/// The key by which members of the list called `field` in a pod template are told apart (`patchMergeKey` in Kubernetes'
/// API types); lists without one are replaced.
#[must_use]
pub fn in_pod(field: &str) -> Option<&'static str> {
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates" => "name",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "ports" => "containerPort",
        "topologySpreadConstraints" => "topologyKey",
        "hostAliases" => "ip",
        _ => return None,
    })
}

/// The document for kustomize.
///
/// It has the pods of Kubernetes' own workloads too: with a document of somebody else kustomize forgets what it knows of
/// those, and a Deployment beside a Pipeline would lose all containers that a patch does not name.
#[must_use]
pub fn openapi() -> Value {
    let (mut definitions, mut paths) = (Map::new(), Map::new());
    for (plural, document) in manifest::all() {
        let kind = document["spec"]["names"]["kind"].as_str().unwrap_or_default();
        let schema = &document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let spec = mergeable(schema, &|_, list| list["x-kubernetes-list-map-keys"][0].as_str());
        definitions.insert(format!("dev.cultivar.{VERSION}.{kind}"), defined(GROUP, VERSION, kind, spec));
        let place = if document["spec"]["scope"] == "Namespaced" { "namespaces/{namespace}/" } else { "" };
        // From these kustomize knows that a Queue gets no namespace.
        paths.insert(
            format!("/apis/{GROUP}/{VERSION}/{place}{plural}/{{name}}"),
            json!({"get": {"responses": {}, "x-kubernetes-group-version-kind": gvk(GROUP, VERSION, kind)}}),
        );
    }
    let pods = pods();
    for (group, kind) in [("apps", "DaemonSet"), ("apps", "Deployment"), ("apps", "StatefulSet"), ("batch", "Job")] {
        let spec = within("template", reference());
        definitions.insert(format!("io.k8s.api.{group}.v1.{kind}"), defined(group, "v1", kind, Some(spec)));
    }
    let spec = within("jobTemplate", within("spec", within("template", reference())));
    definitions.insert("io.k8s.api.batch.v1.CronJob".to_owned(), defined("batch", "v1", "CronJob", Some(spec)));
    let spec = pods.pointer("/properties/spec").cloned();
    definitions.insert("io.k8s.api.core.v1.Pod".to_owned(), defined("", "v1", "Pod", spec));
    let ports = within("ports", list("port", None));
    definitions.insert("io.k8s.api.core.v1.Service".to_owned(), defined("", "v1", "Service", Some(ports)));
    definitions.insert(POD_TEMPLATE.to_owned(), pods);
    json!({
        "swagger": "2.0",
        "info": {
            "title": "Generated from the types of Cultivar: the keys by which lists merge, for kustomize",
            "version": VERSION,
        },
        "paths": paths,
        "definitions": definitions,
    })
}

/// The document as it is committed.
#[must_use]
pub fn text() -> String {
    // Plain JSON always has a text.
    serde_json::to_string_pretty(&openapi()).map(|text| text + "\n").unwrap_or_default()
}

fn pods() -> Value {
    let settings = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<PodTemplateSpec>();
    mergeable(schema.as_value(), &|field, _| in_pod(field)).unwrap_or_default()
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn defined(group: &str, version: &str, kind: &str, spec: Option<Value>) -> Value {
    let mut definition = spec.map_or_else(|| json!({"type": "object"}), |spec| within("spec", spec));
    definition["x-kubernetes-group-version-kind"] = json!([gvk(group, version, kind)]);
    definition
}

fn within(field: &str, schema: Value) -> Value {
    json!({"type": "object", "properties": {field: schema}})
}

fn reference() -> Value {
    json!({"$ref": format!("#/definitions/{POD_TEMPLATE}")})
}

fn list(key: &str, members: Option<Value>) -> Value {
    json!({
        "type": "array",
        "items": members.unwrap_or_else(|| json!({"type": "object"})),
        "x-kubernetes-patch-merge-key": key,
        "x-kubernetes-patch-strategy": "merge",
    })
}

/// The key of a list, by its field and its schema.
type KeyOf<'a> = &'a dyn for<'s> Fn(&str, &'s Value) -> Option<&'s str>;

// Of a schema, the way to the lists that merge; nothing where there are none. A list without a key is replaced as a
// whole, so it does not matter what is in it.
fn mergeable(schema: &Value, key_of: KeyOf<'_>) -> Option<Value> {
    let field = |(name, field): (&String, &Value)| {
        if name == "podTemplate" {
            return Some((name.clone(), reference()));
        }
        let found = match key_of(name, field).filter(|_| field["items"].is_object()) {
            Some(key) => Some(list(key, mergeable(&field["items"], key_of))),
            None => mergeable(field, key_of),
        };
        Some((name.clone(), found?))
    };
    let properties: Map<String, Value> =
        schema["properties"].as_object().into_iter().flatten().filter_map(field).collect();
    (!properties.is_empty()).then(|| json!({"type": "object", "properties": properties}))
}
