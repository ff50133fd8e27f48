//! The template of a clone.
//!
//! In: the source's frozen template, what the clone unsets, what it overrides. Out: the clone's template.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::unset::{member_name, object};
use crate::domain::source;

use super::{CloneError, strategic, union, unset};

/// The template of a clone: the source's, minus `unset`, then `overrides` on top.
///
/// Objects merge by key. Lists whose members all are objects with a name of their own merge by name: order is kept, new
/// members are appended. Everything else replaces, null included. Setting one arm of a union removes the others. An overridden
/// limit of an extended resource (one with a `/` in its name) also becomes its request, which must be equal. `podTemplate` is
/// a patch itself: its lists merge by the keys that Kubernetes gives them.
///
/// # Errors
/// When `unset` holds a path that does not exist, or one of the values is not an object.
pub fn merge_template(source: &Value, unset: &[String], overrides: &Value) -> Result<Value, CloneError> {
    let mut template = Value::Object(object(source.clone(), "the source's template")?);
    unset::unset(&mut template, unset)?;
    let overrides = match overrides {
        Value::Null => Map::new(),
        other => object(other.clone(), "what overrides it")?,
    };
    let mut template = object(template, "the source's template")?;
    source::unpin(&mut template, unset, &overrides);
    // One of them admits: who says which says that the other does not.
    for (said, other) in [("queue", "admission"), ("admission", "queue")] {
        if overrides.get(said).is_some_and(|value| !value.is_null()) {
            template.remove(other);
        }
    }
    for (key, value) in &overrides {
        match template.get_mut(key) {
            Some(base) if key == "podTemplate" => strategic::compose(base, value),
            Some(base) => merge(within("", key), base, value),
            None => drop(template.insert(key.clone(), value.clone())),
        }
    }
    follow_limits(&mut template, &overrides);
    Ok(Value::Object(template))
}

/// The field that `key` of `parent` is, if a union may be in it. What params hold is the user's, whatever it is called.
fn within(parent: &str, key: &str) -> &'static str {
    match (parent, key) {
        ("", "env") => "env",
        ("", "inputs") => "inputs",
        ("", "source") => "source",
        ("env", "valueFrom") => "valueFrom",
        ("source", "packed") => "packed",
        _ => "other",
    }
}

/// Merges `patch` over `base`, both the value of `field`, as `within` names it.
fn merge(field: &str, base: &mut Value, patch: &Value) {
    match (base, patch) {
        // One artifact: where another one came from says nothing of it.
        (base, patch) if field == "packed" => *base = patch.clone(),
        (Value::Object(base), Value::Object(patch)) => merge_object(field, base, patch),
        (Value::Array(base), Value::Array(patch)) if named(base) && !base.is_empty() && named(patch) => {
            for item in patch {
                let same = base.iter_mut().find(|other| member_name(other) == member_name(item));
                match (same, item) {
                    (Some(Value::Object(same)), Value::Object(item)) => {
                        merge_object(field, same, item);
                    }
                    _ => base.push(item.clone()),
                }
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}

fn merge_object(field: &str, base: &mut Map<String, Value>, patch: &Map<String, Value>) {
    union::switch(field, base, patch);
    for (key, value) in patch {
        match base.get_mut(key) {
            Some(base) => merge(within(field, key), base, value),
            None => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

/// Whether all members have a name of their own, which tells them apart.
fn named(list: &[Value]) -> bool {
    let mut names = BTreeSet::new();
    list.iter().all(|item| member_name(item).is_some_and(|name| names.insert(name)))
}

/// Kubernetes wants an extended resource's request to equal its limit: a request that the source had follows the limit that
/// the clone sets, unless the clone sets both.
fn follow_limits(template: &mut Map<String, Value>, overrides: &Map<String, Value>) {
    let at =
        |list: &str| overrides.get("resources").and_then(|resources| resources.get(list)).and_then(Value::as_object);
    let Some(limits) = at("limits") else { return };
    let requested = at("requests");
    let requests = template.get_mut("resources").and_then(|resources| resources.get_mut("requests"));
    let Some(requests) = requests.and_then(Value::as_object_mut) else {
        return;
    };
    for (name, limit) in limits.iter().filter(|(name, _)| name.contains('/') && !name.starts_with("hugepages-")) {
        if requested.is_none_or(|requested| !requested.contains_key(name))
            && let Some(request) = requests.get_mut(name)
        {
            request.clone_from(limit);
        }
    }
}
