//! The definitions as they are committed: current, documented, and the same to every YAML reader.

use cultivar_crds::{manifest, merge_keys};
use schemars::schema_for;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

fn spec_and_status(document: &Value) -> [&Value; 2] {
    let properties = &document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    [&properties["spec"], &properties["status"]]
}

#[test]
fn what_is_committed_is_what_the_types_say() {
    for (name, document) in manifest::all() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("generated/{name}.yaml"));
        let committed = std::fs::read_to_string(&path).unwrap();
        let generated = serde_yaml::to_string(&document).unwrap();
        assert!(
            committed == generated,
            "{} is old: run `cargo run -p cultivar-crds --bin crdgen -- --write crds/generated`",
            path.display()
        );
    }
}

#[test]
fn what_kustomize_reads_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/gitops/kustomize/openapi.json");
    assert!(
        std::fs::read_to_string(&path).unwrap() == merge_keys::text(),
        "{} is old: run `cargo run -p cultivar-crds --bin crdgen -- --openapi config/gitops/kustomize/openapi.json`",
        path.display()
    );
}

#[test]
fn every_list_with_a_key_merges_by_it() {
    let document = merge_keys::openapi();
    for (name, definition) in manifest::all() {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        let [spec, _] = spec_and_status(&definition);
        let (mut wanted, mut found) = (BTreeSet::new(), BTreeSet::new());
        keyed(spec, "x-kubernetes-list-map-keys", &format!("{kind}.spec"), &mut wanted);
        let own = &document["definitions"][format!("dev.cultivar.v1alpha1.{kind}")]["properties"]["spec"];
        keyed(own, "x-kubernetes-patch-merge-key", &format!("{kind}.spec"), &mut found);
        assert_eq!(wanted, found, "{name}");
    }
    let mut pod = BTreeSet::new();
    let template = &document["definitions"]["io.k8s.api.core.v1.PodTemplateSpec"];
    keyed(template, "x-kubernetes-patch-merge-key", "", &mut pod);
    for list in [".spec.containers name", ".spec.containers[].env name", ".spec.containers[].volumeMounts mountPath"] {
        assert!(pod.contains(list), "{list} is not among {pod:?}");
    }
}

// The lists of a schema that have a key, each with it; those in a list without one are replaced with that. Two keys would be
// more than a patch can name.
fn keyed(schema: &Value, extension: &str, at: &str, found: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let (at, keys) = (format!("{at}.{name}"), &field[extension]);
        assert!(keys.as_array().is_none_or(|keys| keys.len() == 1), "{at} has {keys}");
        if let Some(key) = keys.as_str().or(keys[0].as_str()) {
            found.insert(format!("{at} {key}"));
            keyed(&field["items"], extension, &format!("{at}[]"), found);
        } else {
            keyed(field, extension, &at, found);
        }
    }
}

// YAML 1.1, which kubectl and the API server read, takes these plain words for booleans and null, and
// numbers with colons for sexagesimal ones.
fn reads_otherwise_in_yaml_1_1(word: &str) -> bool {
    let booleans = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", ""];
    let sexagesimal = !word.is_empty() && word.contains(':') && word.chars().all(|c| c.is_ascii_digit() || c == ':');
    booleans.contains(&word.to_lowercase().as_str()) || sexagesimal
}

#[test]
fn a_yaml_1_1_reader_finds_the_same_document() {
    for (name, document) in manifest::all() {
        let text = serde_yaml::to_string(&document).unwrap();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let line = line.trim_start().trim_start_matches("- ");
            let (key, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "x"));
            let plain = !value.starts_with(['\'', '"', '|', '>', '{', '[']);
            let is_meant = matches!(value, "true" | "false" | "null");
            assert!(!reads_otherwise_in_yaml_1_1(key), "{name}: the key {key:?} needs quotes: {line}");
            assert!(!plain || is_meant || !reads_otherwise_in_yaml_1_1(value), "{name}: {line}");
        }
        let mut words = BTreeSet::new();
        enums(&document, &mut words);
        assert!(!words.is_empty() || name == "artifactstores", "{name}");
        for word in words {
            assert!(
                !reads_otherwise_in_yaml_1_1(&word),
                "{name}: users would write the enum value {word:?} bare, and it would arrive as something else"
            );
        }
    }
}

fn enums(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(values)) = map.get("enum") {
                found.extend(values.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            map.values().for_each(|value| enums(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| enums(value, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_ours_is_documented() {
    for (name, document) in manifest::all() {
        for section in spec_and_status(&document) {
            documented(section, name);
        }
    }
}

fn documented(schema: &Value, path: &str) {
    for (key, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        // What Kubernetes defines, it documents; conditions and core types come with their own words.
        assert!(field["description"].is_string(), "{path} has no description");
        documented(field, &path);
        documented(&field["items"], &path);
        documented(&field["additionalProperties"], &path);
    }
}

#[test]
fn nothing_is_defaulted_and_nothing_is_nullable() {
    for (name, document) in manifest::all() {
        spec_and_status(&document).into_iter().for_each(|section| plain(name, section));
    }
}

fn plain(name: &str, schema: &Value) {
    assert!(schema.get("default").is_none(), "{name}: a defaulted field of a clone would override its source");
    assert!(schema.get("nullable").is_none(), "{name}: null must never mean absent");
    schema["properties"].as_object().into_iter().flatten().for_each(|(_, field)| plain(name, field));
    ["items", "additionalProperties"].iter().filter_map(|key| schema.get(*key)).for_each(|inner| plain(name, inner));
}

fn properties<T: schemars::JsonSchema>() -> BTreeSet<String> {
    let schema = schema_for!(T);
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    properties.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn the_template_is_flattened_without_a_clash() {
    let template = properties::<cultivar_crds::ExperimentTemplate>();
    let experiment = properties::<cultivar_crds::ExperimentSpec>();
    let stage = properties::<cultivar_crds::pipeline::Stage>();
    let own = |all: &BTreeSet<String>| all.difference(&template).cloned().collect::<Vec<_>>();
    assert_eq!(own(&experiment), ["cancel", "priority", "record", "ttlAfterFinished"]);
    assert_eq!(
        own(&stage),
        [
            "after",
            "count",
            "failFast",
            "gate",
            "matrix",
            "maxParallel",
            "name",
            "pipeline",
            "pipelineDigest",
            "repeat",
            "when"
        ]
    );
    assert!(template.is_subset(&experiment) && template.is_subset(&stage));
}

#[test]
fn every_field_of_the_template_is_frozen_once_started() {
    let (_, document) = manifest::all().remove(0);
    let rules = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"].clone();
    let paths: BTreeSet<&str> =
        rules.as_array().unwrap().iter().filter_map(|rule| rule["fieldPath"].as_str()).collect();
    for field in properties::<cultivar_crds::ExperimentTemplate>() {
        assert!(paths.contains(format!(".spec.{field}").as_str()), "spec.{field} can change after the start");
    }
}
