//! Strategic merge, as Kubernetes patches a pod template.
//!
//! In: a pod template and a patch. Out: the pod template with the patch applied. Lists merge by the key that Kubernetes gives
//! them (`patchMergeKey` in the API types), null deletes, `$patch: delete` and `$patch: replace` do what they say. One
//! thing goes beyond Kubernetes: a patch that gives a volume another source, or an env another kind of value, removes
//! the old one, with which the pod would be refused.

use cultivar_crds::merge_keys;
use serde_json::{Map, Value};

use super::union;

const DIRECTIVE: &str = "$patch";

/// Applies `patch` to `base`, a pod template.
#[must_use]
pub fn strategic_merge(base: &Value, patch: &Value) -> Value {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            let mut merged = base.clone();
            apply("", &mut merged, patch);
            Value::Object(merged)
        }
        (base, Value::Null) => base.clone(),
        (_, patch) => settled(patch),
    }
}

fn directive(value: &Value) -> Option<&str> {
    value.get(DIRECTIVE)?.as_str()
}

fn deletes(value: &Value) -> bool {
    directive(value) == Some("delete")
}

fn apply(field: &str, base: &mut Map<String, Value>, patch: &Map<String, Value>) {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            *base = settled_object(patch);
            return;
        }
        Some("delete") => {
            base.clear();
            return;
        }
        _ => union::switch(field, base, patch),
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        if value.is_null() || deletes(value) {
            base.remove(key);
            continue;
        }
        match (base.get_mut(key), value) {
            (Some(Value::Object(base)), Value::Object(patch)) => apply(key, base, patch),
            (Some(Value::Array(base)), Value::Array(patch)) => apply_list(key, base, patch),
            _ => drop(base.insert(key.clone(), settled(value))),
        }
    }
}

fn apply_list(field: &str, base: &mut Vec<Value>, patch: &[Value]) {
    let replaced = patch.iter().any(|item| directive(item) == Some("replace") && is_bare_directive(item));
    let key = merge_keys::in_pod(field).filter(|key| !replaced && keyed(base, key) && keyed(patch, key));
    let Some(key) = key else {
        *base = patch.iter().filter(|item| directive(item).is_none()).map(settled).collect();
        return;
    };
    for item in patch {
        if deletes(item) {
            base.retain(|other| other.get(key) != item.get(key));
            continue;
        }
        match (base.iter_mut().find(|other| other.get(key) == item.get(key)), item) {
            (Some(Value::Object(same)), Value::Object(item)) => apply(field, same, item),
            _ => base.push(settled(item)),
        }
    }
}

/// Whether all members have the key. `{$patch: replace}` alone in a list has none: it is about the list.
fn keyed(list: &[Value], key: &str) -> bool {
    list.iter().all(|item| item.get(key).is_some_and(|value| !value.is_null()))
}

/// `{$patch: …}` and nothing else.
fn is_bare_directive(item: &Value) -> bool {
    directive(item).is_some() && item.as_object().is_some_and(|item| item.len() == 1)
}

/// What a patch adds where there was nothing: itself, without nulls and directives.
fn settled(patch: &Value) -> Value {
    match patch {
        Value::Object(map) => Value::Object(settled_object(map)),
        Value::Array(items) => {
            items.iter().filter(|item| !deletes(item) && !is_bare_directive(item)).map(settled).collect()
        }
        other => other.clone(),
    }
}

fn settled_object(map: &Map<String, Value>) -> Map<String, Value> {
    let kept = map.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null() && !deletes(value));
    kept.map(|(key, value)| (key.clone(), settled(value))).collect()
}

/// Puts the patch `next` after the patch `first`: applying the result is applying one, then the other.
pub(super) fn compose(first: &mut Value, next: &Value) {
    match (first, next) {
        (Value::Object(first), Value::Object(next)) => compose_object("", first, next),
        (first, next) => *first = next.clone(),
    }
}

fn compose_object(field: &str, first: &mut Map<String, Value>, next: &Map<String, Value>) {
    if next.contains_key(DIRECTIVE) {
        first.clone_from(next);
        return;
    }
    if first.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
        // What the first removes and the next gives anew starts from nothing.
        first.clone_from(next);
        first.insert(DIRECTIVE.to_owned(), Value::from("replace"));
        return;
    }
    union::switch(field, first, next);
    for (key, value) in next {
        match (first.get_mut(key), value) {
            (Some(Value::Object(first)), Value::Object(next)) => compose_object(key, first, next),
            (Some(Value::Array(first)), Value::Array(next)) => compose_list(key, first, next),
            (Some(Value::Null), Value::Object(next)) => {
                let mut anew = next.clone();
                anew.entry(DIRECTIVE).or_insert_with(|| Value::from("replace"));
                first.insert(key.clone(), Value::Object(anew));
            }
            _ => drop(first.insert(key.clone(), value.clone())),
        }
    }
}

fn compose_list(field: &str, first: &mut Vec<Value>, next: &[Value]) {
    // A first patch that replaces the list goes on doing so.
    let anew = first.iter().position(is_bare_directive).map(|at| first.remove(at));
    match merge_keys::in_pod(field).filter(|key| keyed(first, key) && keyed(next, key)) {
        None => *first = next.to_vec(),
        Some(key) => {
            for item in next {
                if deletes(item) {
                    first.retain(|other| other.get(key) != item.get(key));
                }
                // What the first removes and the next gives anew is both in the result, one after the other.
                let kept = |other: &&mut Value| other.get(key) == item.get(key) && !deletes(other);
                match (first.iter_mut().find(kept), item) {
                    (Some(Value::Object(same)), Value::Object(item)) => {
                        compose_object(field, same, item);
                    }
                    _ => first.push(item.clone()),
                }
            }
            first.extend(anew);
        }
    }
}
