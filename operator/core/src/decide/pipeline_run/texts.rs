//! Fields that hold text. A value that is one whole reference keeps its type, and a number in `args` is
//! no valid experiment: in these fields it becomes text, as it does where a pod is rendered. A list in an input's
//! `uri` becomes its `uris`, and one in its `uris` is put among them.
//!
//! Comes in: a stage's template with its outer references resolved and escaped. Goes out: the same,
//! with text wherever the schema asks for text.

use serde_json::{Map, Value};

use crate::domain::source;
use crate::refs::{Insert, Names, Scope, escape, resolve_text};

/// Makes text of what references have put into `image`, `command`, `args`, `env`, `inputs` and `source`.
pub fn as_texts(mut template: Value) -> Value {
    if let Some(image) = template.get_mut("image") {
        as_text(image);
    }
    for list in ["command", "args"] {
        template.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(as_text);
    }
    let inputs = template.get_mut("inputs").and_then(Value::as_array_mut).into_iter().flatten();
    inputs.filter_map(Value::as_object_mut).for_each(as_folder);
    for (list, field) in [("env", "value"), ("inputs", "uri")] {
        let members = template.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        members.filter_map(|member| member.get_mut(field)).for_each(as_text);
    }
    for field in source::TEXTS {
        template.pointer_mut(field).into_iter().for_each(as_text);
    }
    template
}

// What many have made is one input with many uris.
fn as_folder(input: &mut Map<String, Value>) {
    let list = ["uri", "uris"].into_iter().find(|field| input.get(*field).is_some_and(Value::is_array));
    let Some(Value::Array(items)) = list.and_then(|field| input.remove(field)) else { return };
    // One that is itself a list stands for all that it holds.
    let all = items.into_iter().flat_map(|item| match item {
        Value::Array(items) => items,
        item => vec![item],
    });
    let mut uris: Vec<Value> = all.collect();
    uris.iter_mut().for_each(as_text);
    input.insert("uris".to_owned(), Value::Array(uris));
}

fn as_text(value: &mut Value) {
    match value {
        Value::String(_) => {}
        // The strings inside are escaped as texts of their own, which JSON's quotes would break.
        Value::Array(_) | Value::Object(_) => *value = Value::String(escape(&plain(value).to_string())),
        _ => *value = Value::String(value.to_string()),
    }
}

fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            resolve_text(text, Scope::Own, &Names::new(), Insert::Plain).unwrap_or_else(|_| value.clone())
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}
