//! The program's code: fetched, put into place when it is whole, and entered.

use super::{Failure, inputs};
use crate::git::{self, Bounds, CheckedOut, Credentials, GitError, Wanted};
use cultivar_data::{DataError, Limits, Mover, Place, public, unpack};
use cultivar_protocol::{Git, Input, Origin, Packed, Reason, RunSpec, Source, SourceUsed};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;

/// More than this is data, and belongs into inputs.
const MAX_BYTES: u64 = 4 << 30;

/// What is known of the code.
#[derive(Debug, Default)]
pub struct Fetched {
    /// By names of the environment.
    pub environment: BTreeMap<String, Value>,
    /// The commit that was checked out of a repository.
    pub used: Option<SourceUsed>,
    /// What of it is not there.
    pub problems: Vec<String>,
}

/// Fetches the code and enters it.
pub async fn fetch(spec: &RunSpec, source: &Source, mover: &Mover) -> Result<Fetched, Failure> {
    let known = match &source.origin {
        Origin::Git(from) => of_git(from, git(spec, source, from).await?),
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
fn of_packed(from: &Packed) -> Fetched {
    let text = |value: &Option<String>| value.clone().map(Value::String);
    let known = [
        ("sourceUri", Some(Value::String(public(&from.uri)))),
        ("sourceDigest", Some(Value::String(from.digest.clone()))),
        ("gitRemote", text(&from.remote)),
        ("gitCommit", text(&from.commit)),
        ("gitDirty", from.dirty.map(Value::Bool)),
    ];
    Fetched { environment: environment(known), ..Fetched::default() }
}

fn of_git(from: &Git, found: CheckedOut) -> Fetched {
    let known = [
        ("gitRemote", Some(Value::String(public(&from.url)))),
        ("gitRevision", from.revision.clone().map(Value::String)),
        ("gitCommit", Some(Value::String(found.commit.clone()))),
    ];
    Fetched {
        environment: environment(known),
        used: Some(SourceUsed { commit: found.commit }),
        problems: found.problems,
    }
}

fn environment<const N: usize>(known: [(&str, Option<Value>); N]) -> BTreeMap<String, Value> {
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

async fn git(spec: &RunSpec, source: &Source, from: &Git) -> Result<CheckedOut, Failure> {
    let broken = |error: DataError| failure("source", &error);
    let place = Place::of(Path::new(&source.path)).map_err(broken)?;
    let scratch = Place::of(&Path::new(&spec.run_dir).join("source.git")).map_err(broken)?;
    let credentials =
        from.secret_dir.as_ref().map(|folder| Credentials::read(Path::new(folder), &from.url)).transpose();
    let wanted = Wanted {
        url: from.url.clone(),
        revision: from.revision.clone(),
        commit: from.commit.clone(),
        credentials: credentials.map_err(|error| refused(&error))?,
    };
    // A stop of the run drops this future, and with it the guard; the thread ends at its next look.
    let stop = Arc::new(AtomicBool::new(false));
    let _guard = StopOnDrop(Arc::clone(&stop));
    let handle = Handle::current();
    let fetching = tokio::task::spawn_blocking(move || {
        std::fs::create_dir(scratch.part()).map_err(|error| GitError::Local {
            what: "make the folder",
            path: scratch.part().to_owned(),
            error,
        })?;
        let done = git::fetch(&wanted, place.part(), scratch.part(), Bounds::default(), &handle, &stop)?;
        Ok::<_, GitError>((done, place))
    });
    let (done, place) = fetching
        .await
        .map_err(|error| Failure::runner(format!("source.git: fetching broke off: {error}")))?
        .map_err(|error| refused(&error))?;
    place.done().map_err(broken)?;
    Ok(done)
}

fn refused(error: &GitError) -> Failure {
    Failure { reason: error.reason(), message: error.to_string() }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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
