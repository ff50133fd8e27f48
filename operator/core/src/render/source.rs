//! `source` of a template: what the runner is told of the program's code.

use cultivar_crds::{Git, Packed, Source};
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
/// Where the credentials of the repository are mounted.
pub const SOURCE_SECRETS: &str = "/cultivar-secrets/source";

/// The source, its references resolved and what they gave checked: the schema has seen the references only.
pub fn spec(template: &Value, own: &Own) -> Result<Option<protocol::Source>, RenderError> {
    let Some(written) = template.get("source") else { return Ok(None) };
    let resolved = resolve(written, &at("source"), Scope::Own, &own.names(), Insert::Plain).map_err(unresolved)?;
    let mut filled = json!({"source": resolved});
    for field in source::TEXTS {
        // A reference may have put a number there.
        filled.pointer_mut(field).into_iter().for_each(|value| *value = as_text(value).into());
    }
    if let Some(fault) = source::fault(&filled) {
        return Err(invalid(format!("spec.source: {fault}")));
    }
    let read = Source::deserialize(&filled["source"]).map_err(|error| invalid(format!("spec.source: {error}")))?;
    let origin = match (read.git, read.packed) {
        (Some(from), _) => Origin::Git(git(from)?),
        (None, Some(from)) => Origin::Packed(packed(from)?),
        (None, None) => return Ok(None),
    };
    Ok(Some(protocol::Source {
        origin,
        path: path(read.path)?,
        subdirectory: below("subdirectory", read.subdirectory)?,
        requirements: below("python.requirements", read.python.map(|python| python.requirements))?,
        cache: None,
        enter: !names_a_directory(template),
    }))
}

fn git(from: Git) -> Result<protocol::Git, RenderError> {
    let url = from.url.unwrap_or_default();
    // What a reference has put there has not been looked at yet.
    if let Some(bad) = source::bad_url(&url) {
        return Err(invalid(format!("spec.source.{bad}")));
    }
    if let Some(revision) = from.revision.as_ref().filter(|revision| !source::is_revision(revision)) {
        return Err(invalid(format!(
            "spec.source.git.revision: {revision:?} is no branch, tag or commit: they have no spaces and none of ~^:?*[\\"
        )));
    }
    if let Some(commit) = from.commit.as_ref().filter(|commit| !source::is_commit(commit)) {
        return Err(invalid(format!("spec.source.git.commit: {commit:?} is not a commit in full, 40 hex digits")));
    }
    let secret_dir = from.secret.map(|_| SOURCE_SECRETS.to_owned());
    Ok(protocol::Git { url, revision: from.revision, commit: from.commit, secret_dir })
}

fn packed(from: Packed) -> Result<protocol::Packed, RenderError> {
    Ok(protocol::Packed {
        digest: digest(from.digest)?,
        uri: from.uri,
        remote: from.remote,
        commit: from.commit,
        dirty: from.dirty,
    })
}

/// The Secret with the credentials of the repository, where there is one.
pub fn secret(template: &Value, own: &Own) -> Result<Option<String>, RenderError> {
    let Some(secret) = template.pointer("/source/git/secret") else { return Ok(None) };
    let at = at("source").key("git").key("secret");
    resolve(secret, &at, Scope::Own, &own.names(), Insert::Plain).map(|name| Some(as_text(&name))).map_err(unresolved)
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

fn below(field: &str, path: Option<String>) -> Result<Option<String>, RenderError> {
    let Some(path) = path else { return Ok(None) };
    let plain = path.trim_start_matches("./").trim_end_matches('/');
    match plain {
        "" | "." => Ok(None),
        plain if is_safe_relative(plain) => Ok(Some(plain.to_owned())),
        _ => Err(invalid(format!(
            "spec.source.{field}: {path:?} is no path in the source: it is relative, without .. in it"
        ))),
    }
}

// The user's own word in the patch wins.
fn names_a_directory(template: &Value) -> bool {
    let containers = template.pointer("/podTemplate/spec/containers").and_then(Value::as_array);
    let main = containers.into_iter().flatten().find(|container| container["name"] == MAIN);
    main.is_some_and(|main| main.get("workingDir").is_some())
}
