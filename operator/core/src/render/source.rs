//! `source` of a template: what the runner is told of the program's code.

use cultivar_crds::Source;
use cultivar_protocol::{self as protocol, Origin, is_safe_relative};
use serde::Deserialize;
use serde_json::{Value, json};

use super::RenderError;
use super::pod::{MAIN, Own, as_text, at, unresolved};
use super::runner::invalid;
use crate::domain::source;
use crate::refs::{Insert, Scope, resolve};

/// Where the source goes unless the template says otherwise.
const PATH: &str = "/cultivar/source";

/// The source, its references resolved and what they gave checked: the schema has seen the references only.
pub fn spec(template: &Value, own: &Own) -> Result<Option<protocol::Source>, RenderError> {
    let Some(written) = template.get("source") else { return Ok(None) };
    let resolved = resolve(written, &at("source"), Scope::Own, &own.names(), Insert::Plain).map_err(unresolved)?;
    let mut filled = json!({"source": resolved});
    for field in source::TEXTS {
        // A reference may have put a number there.
        filled.pointer_mut(field).into_iter().for_each(|value| *value = as_text(value).into());
    }
    if let Some(lacks) = source::lacks(&filled) {
        return Err(invalid(format!("spec.source: {lacks}")));
    }
    let read = Source::deserialize(&filled["source"]).map_err(|error| invalid(format!("spec.source: {error}")))?;
    let Some(packed) = read.packed else {
        return Ok(None);
    };
    let origin = Origin::Packed(protocol::Packed {
        digest: digest(packed.digest)?,
        uri: packed.uri,
        remote: packed.remote,
        commit: packed.commit,
        dirty: packed.dirty,
    });
    Ok(Some(protocol::Source {
        origin,
        path: path(read.path)?,
        subdirectory: subdirectory(read.subdirectory)?,
        enter: !names_a_directory(template),
    }))
}

fn digest(digest: String) -> Result<String, RenderError> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(digest);
    }
    Err(invalid(format!("spec.source.packed.digest: {digest:?} is not sha256: and 64 hex digits")))
}

fn path(path: Option<String>) -> Result<String, RenderError> {
    let Some(path) = path else { return Ok(PATH.to_owned()) };
    let plain = path.trim_end_matches('/');
    if plain.strip_prefix('/').is_some_and(is_safe_relative) {
        return Ok(plain.to_owned());
    }
    Err(invalid(format!("spec.source.path: {path:?} is no absolute path of a folder, without . and .. in it")))
}

fn subdirectory(path: Option<String>) -> Result<Option<String>, RenderError> {
    let Some(path) = path else { return Ok(None) };
    let plain = path.trim_start_matches("./").trim_end_matches('/');
    match plain {
        "" | "." => Ok(None),
        plain if is_safe_relative(plain) => Ok(Some(plain.to_owned())),
        _ => Err(invalid(format!(
            "spec.source.subdirectory: {path:?} is no path in the source: it is relative, without .. in it"
        ))),
    }
}

// The user's own word in the patch wins.
fn names_a_directory(template: &Value) -> bool {
    let containers = template.pointer("/podTemplate/spec/containers").and_then(Value::as_array);
    let main = containers.into_iter().flatten().find(|container| container["name"] == MAIN);
    main.is_some_and(|main| main.get("workingDir").is_some())
}
