//! The fields of every kind as a page to read: what `kubectl explain` says, in one place.
//!
//! Comes in: the definitions. Goes out: Markdown, a table per kind.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::manifest;

/// Fields of Kubernetes' own types: their insides are documented there.
const FOREIGN: [&str; 5] = ["env", "envFrom", "resources", "podTemplate", "conditions"];
/// Fields of our own within one another are followed this deep.
const DEPTH: usize = 4;

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(
        "# Reference\n\nThe fields of `spec` by kind, from the definitions themselves; `kubectl explain` says the same. A stage has \
         all fields of an Experiment's template, which are listed once.\n",
    );
    let all = manifest::all();
    let fields_of = |name: &str| {
        let found = all.iter().find(|(plural, _)| *plural == name);
        found.map_or_else(BTreeSet::new, |(_, document)| {
            let fields = spec(document)["properties"].as_object().cloned().unwrap_or_default();
            fields.into_iter().map(|(field, _)| field).collect()
        })
    };
    let template: BTreeSet<String> = fields_of("experiments");
    for (_, document) in &all {
        let kind = document["spec"]["names"]["kind"].as_str().unwrap_or_default();
        let about = document.pointer("/spec/versions/0/schema/openAPIV3Schema/description").and_then(Value::as_str);
        let _ = write!(page, "\n## {kind}\n\n{}\n\n", one_line(about.unwrap_or_default()));
        page.push_str("| Field | Type | |\n|---|---|---|\n");
        rows(&mut page, "", spec(document), &template, DEPTH);
    }
    page
}

fn spec(document: &Value) -> &Value {
    document.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap_or(&Value::Null)
}

fn rows(page: &mut String, place: &str, schema: &Value, template: &BTreeSet<String>, depth: usize) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let within_stage = place == "stages[]." || place == "finally[].";
        if within_stage && template.contains(name) {
            continue;
        }
        let about = one_line(field["description"].as_str().unwrap_or_default());
        let _ = writeln!(page, "| `{place}{name}` | {} | {} |", type_of(field), about.replace('|', "\\|"));
        // The stages of the end are stages.
        if depth == 0 || FOREIGN.contains(&name.as_str()) || name == "finally" {
            continue;
        }
        rows(page, &format!("{place}{name}."), field, template, depth - 1);
        rows(page, &format!("{place}{name}[]."), &field["items"], template, depth - 1);
        if field["additionalProperties"].is_object() {
            rows(page, &format!("{place}{name}.<name>."), &field["additionalProperties"], template, depth - 1);
        }
    }
}

fn type_of(field: &Value) -> String {
    if let Some(values) = field["enum"].as_array() {
        let words: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        return words.join(", ");
    }
    match field["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&field["items"])),
        Some(plain) => plain.to_owned(),
        None if field["x-kubernetes-int-or-string"] == true => "integer or string".to_owned(),
        None => "any".to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
