//! The program's code: fetched, put into place when it is whole, and entered.

use super::{Failure, inputs};
use cultivar_data::{DataError, Limits, Mover, Place, public, unpack};
use cultivar_protocol::{Input, Origin, Packed, Reason, RunSpec, Source};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// More than this is data, and belongs into inputs.
const MAX_BYTES: u64 = 4 << 30;

/// Fetches the code and enters it. Comes back with what is known of it, by names of the environment.
pub async fn fetch(spec: &RunSpec, source: &Source, mover: &Mover) -> Result<BTreeMap<String, Value>, Failure> {
    let known = match &source.origin {
        Origin::Packed(from) => {
            packed(spec, source, from, mover).await.map_err(|error| failure("source.packed", &error))?;
            of_packed(from)
        }
    };
    let directory = directory(source)?;
    if source.enter {
        // The program inherits it, and relative paths of the run are meant from there.
        std::env::set_current_dir(&directory)
            .map_err(|error| Failure::runner(format!("source: cannot enter {}: {error}", directory.display())))?;
    }
    Ok(known)
}

// The environment is how the record and the status tell which code it was.
fn of_packed(from: &Packed) -> BTreeMap<String, Value> {
    let text = |value: &Option<String>| value.clone().map(Value::String);
    let known = [
        ("sourceUri", Some(Value::String(public(&from.uri)))),
        ("sourceDigest", Some(Value::String(from.digest.clone()))),
        ("gitRemote", text(&from.remote)),
        ("gitCommit", text(&from.commit)),
        ("gitDirty", from.dirty.map(Value::Bool)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

async fn packed(spec: &RunSpec, source: &Source, from: &Packed, mover: &Mover) -> Result<(), DataError> {
    let fetched = Place::of(Path::new(&source.path))?;
    let input = Input { uri: from.uri.clone(), digest: Some(from.digest.clone()), ..Input::default() };
    inputs::bytes(spec, &input, mover, fetched.part()).await?;
    if fetched.part().is_dir() {
        return fetched.done();
    }
    let place = Place::of(Path::new(&source.path))?;
    let (what, to) = (public(&from.uri), place.part().to_owned());
    let limits = Limits { bytes: MAX_BYTES, ..Limits::default() };
    // The archive lives until it has been read.
    let unpacking = tokio::task::spawn_blocking(move || unpack(fetched.part(), &what, &to, limits));
    unpacking.await.map_err(|error| DataError::Invalid(format!("unpacking broke off: {error}")))??;
    place.done()
}

fn failure(field: &str, error: &DataError) -> Failure {
    let reason = match inputs::reason(error) {
        Reason::InputUnavailable => Reason::SourceUnavailable,
        reason => reason,
    };
    Failure { reason, message: format!("{field}: {error}") }
}

// Where the program starts: a folder of the source, also when links lead to it.
fn directory(source: &Source) -> Result<PathBuf, Failure> {
    let top = Path::new(&source.path);
    let Some(below) = &source.subdirectory else { return Ok(top.to_owned()) };
    let unavailable = |why: String| Failure {
        reason: Reason::SourceUnavailable,
        message: format!("source.subdirectory: {below:?} {why}"),
    };
    let real = |path: &Path| path.canonicalize().ok().filter(|path| path.is_dir());
    match (real(top), real(&top.join(below))) {
        (Some(top), Some(found)) if found.starts_with(&top) => Ok(top.join(below)),
        (_, Some(_)) => Err(unavailable("leaves the source".to_owned())),
        _ => Err(unavailable(format!("is no folder of the source, whose top has: {}", listing(top)))),
    }
}

fn listing(folder: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    cultivar_protocol::cut(&names.join(", "), 200)
}
