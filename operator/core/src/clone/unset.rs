//! Removes what a clone does not want from its source's template.
//!
//! In: a template and paths such as `params.scheduler`, `env.FOO`, `resources.limits["nvidia.com/gpu"]`. Out: the template
//! without them. Members of a list are found by their name.

use serde_json::{Map, Value};

use super::CloneError;
use crate::refs::{Segment, is_identifier, listed, parse_bracket};

/// Removes every path of `unset`. Each is looked up in the template as it was, so their order means nothing.
pub(super) fn unset(template: &mut Value, unset: &[String]) -> Result<(), CloneError> {
    let original = template.clone();
    for path in unset {
        let names = parse(path).map_err(|problem| CloneError::Path { path: path.clone(), problem })?;
        find(&original, path, &names)?;
        remove(template, &names);
    }
    Ok(())
}

/// The names that a path consists of. A dotted name may hold dashes: `inputs.train-data`.
fn parse(path: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if rest.starts_with('[') {
            match parse_bracket(rest)? {
                (Segment::Key(key), length) => {
                    names.push(key);
                    rest = &rest[length..];
                }
                (Segment::Index(_), _) => {
                    return Err("only named members of a list can be removed; override the list instead".to_owned());
                }
            }
            continue;
        }
        let dotted = if names.is_empty() { Some(rest) } else { rest.strip_prefix('.') };
        let dotted = dotted.ok_or("a dot is missing")?;
        let length = dotted.find(['.', '[']).unwrap_or(dotted.len());
        if length == 0 {
            return Err("a name is missing".to_owned());
        }
        names.push(dotted[..length].to_owned());
        rest = &dotted[length..];
    }
    if names.is_empty() { Err("it is empty".to_owned()) } else { Ok(names) }
}

/// Refuses a path that leads nowhere.
fn find(template: &Value, path: &str, names: &[String]) -> Result<(), CloneError> {
    let mut value = template;
    for (position, name) in names.iter().enumerate() {
        let next = match value {
            Value::Object(map) => map.get(name),
            Value::Array(items) => items.iter().find(|item| member_name(item) == Some(name)),
            _ => None,
        };
        value = next.ok_or_else(|| CloneError::Missing {
            path: path.to_owned(),
            place: place(&names[..position]),
            missing: Value::from(name.as_str()).to_string(),
            existing: match value {
                Value::Object(map) => listed(map.keys()),
                Value::Array(items) => listed(items.iter().filter_map(member_name)),
                _ => listed::<&str>([]),
            },
        })?;
    }
    Ok(())
}

fn remove(template: &mut Value, names: &[String]) {
    let Some((last, way)) = names.split_last() else {
        return;
    };
    let mut value = template;
    for name in way {
        let next = match value {
            Value::Object(map) => map.get_mut(name),
            Value::Array(items) => items.iter_mut().find(|item| member_name(item) == Some(name)),
            _ => None,
        };
        // Another path may have removed it, with all that was in it.
        let Some(next) = next else { return };
        value = next;
    }
    match value {
        Value::Object(map) => drop(map.remove(last)),
        Value::Array(items) => items.retain(|item| member_name(item) != Some(last)),
        _ => {}
    }
}

fn place(names: &[String]) -> String {
    let Some((first, rest)) = names.split_first() else {
        return "the template".to_owned();
    };
    rest.iter().fold(first.clone(), |place, name| {
        if is_identifier(name) { format!("{place}.{name}") } else { format!("{place}[{}]", Value::from(name.as_str())) }
    })
}

/// The name of a list's member.
pub(super) fn member_name(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// The members of an object, for those who go on with it.
pub(super) fn object(value: Value, what: &'static str) -> Result<Map<String, Value>, CloneError> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(CloneError::NotAnObject(what)),
    }
}
