//! Params that refer to other params.
//!
//! In: the params as the template has them, and the other names. Out: their values, each resolved after those it reads.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::check::{Reference, scan};
use super::error::{Located, RefError};
use super::field::FieldPath;
use super::insert::Insert;
use super::path::{Head, PathRef, Scope};
use super::resolve::{Names, resolve};

/// Resolves `params`, whose values may refer to other params and to everything in `names`.
///
/// `at` is where they stand, for the errors: `spec.params`.
///
/// # Errors
/// References that are malformed or lead nowhere; params that read each other in a circle.
pub fn resolve_params(
    params: &Map<String, Value>,
    at: &FieldPath,
    names: &Names<'_>,
) -> Result<Map<String, Value>, Vec<Located<RefError>>> {
    let reads = params.iter().map(|(name, value)| (name.as_str(), read_params(value, params))).collect();
    let order = order(&reads).map_err(|(name, circle)| vec![Located::new(at.key(name), RefError::Cycle(circle))])?;
    let mut errors = Vec::new();
    let mut resolved = Value::Object(Map::new());
    // Those that read nothing stay as written until it is their turn; a missing one is named with all that exist.
    if let Value::Object(map) = &mut resolved {
        map.clone_from(params);
    }
    for name in order {
        let Some(value) = params.get(name) else {
            continue;
        };
        let scope = names.clone().with(Head::Params, &resolved);
        match resolve(value, &at.key(name), Scope::Own, &scope, Insert::Plain) {
            Ok(value) => resolved[name] = value,
            Err(found) => errors.extend(found),
        }
    }
    match resolved {
        Value::Object(map) if errors.is_empty() => Ok(map),
        _ => Err(errors),
    }
}

/// The params that a value reads. An expression that reads `params` as a whole reads all of them.
fn read_params<'a>(value: &Value, params: &'a Map<String, Value>) -> Vec<&'a str> {
    let mut read = Vec::new();
    for (_, found) in scan(value, &FieldPath::root()) {
        let paths = found.as_ref().map(Reference::uses).unwrap_or_default();
        for path in paths.iter().filter(|path| path.head == Head::Params) {
            match path.key(0) {
                Some(name) => {
                    read.extend(params.get_key_value(name).map(|(name, _)| name.as_str()));
                }
                None => read.extend(params.keys().map(String::as_str)),
            }
        }
    }
    read
}

type Reads<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Every name after those it reads; or one that reads itself, and the circle.
fn order<'a>(reads: &Reads<'a>) -> Result<Vec<&'a str>, (&'a str, Vec<String>)> {
    let mut done: Vec<&str> = Vec::new();
    for start in reads.keys() {
        // The way from `start` to where we are, each with how many of its reads are behind us. No recursion: a chain may be long.
        let mut way: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((name, position)) = way.last_mut() {
            let name = *name;
            let next = reads.get(name).and_then(|reads| reads.get(*position)).copied();
            *position += 1;
            match next {
                _ if done.contains(&name) => drop(way.pop()),
                Some(next) => {
                    if let Some(first) = way.iter().position(|(name, _)| *name == next) {
                        let circle = way[first..].iter().map(|(name, _)| *name).chain([next]);
                        return Err((next, circle.map(path_of).collect()));
                    }
                    way.push((next, 0));
                }
                None => {
                    done.push(name);
                    way.pop();
                }
            }
        }
    }
    Ok(done)
}

fn path_of(name: &str) -> String {
    PathRef { head: Head::Params, segments: vec![super::path::Segment::Key(name.to_owned())] }.to_string()
}
