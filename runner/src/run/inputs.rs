//! Inputs: several at once, each verified and put into place only when whole.

use super::Failure;
use cultivar_data::{DataError, Fetched, Limits, Mover, Place, Remote, Store, public, unpack};
use cultivar_protocol::{Input, InputUsed, Reason, RunSpec, StoreSpec};
use futures::{StreamExt, TryStreamExt};
use std::path::Path;

/// Inputs that are fetched side by side; each moves several files or parts at once.
const AT_ONCE: usize = 4;

/// Fetches all inputs; comes back with what they were.
pub async fn fetch(spec: &RunSpec, mover: &Mover) -> Result<Vec<InputUsed>, Failure> {
    for folder in &spec.folders {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| Failure {
            reason: Reason::RunnerError,
            message: format!("input folder {folder}: {error}; choose a path that can be written to"),
        })?;
    }
    // `buffered` keeps the order of the spec.
    futures::stream::iter(&spec.inputs)
        .map(|input| async move { one(spec, input, mover).await.map_err(|error| failure(input, &error)) })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn one(spec: &RunSpec, input: &Input, mover: &Mover) -> Result<InputUsed, DataError> {
    let place = Place::of(Path::new(&input.path))?;
    let fetched = if input.unpack {
        let archive = Place::of(&Path::new(&spec.run_dir).join(format!("{}.archive", input.name.replace('/', "%"))))?;
        let fetched = bytes(spec, input, mover, archive.part()).await?;
        if archive.part().is_dir() {
            let why = "it is a prefix; unpack is for one archive".to_owned();
            return Err(DataError::Corrupt { what: public(&input.uri), why });
        }
        let (what, to) = (public(&input.uri), place.part().to_owned());
        let unpacked = tokio::task::spawn_blocking(move || {
            // The archive lives until it has been read.
            unpack(archive.part(), &what, &to, Limits::default())
        });
        unpacked.await.map_err(|error| DataError::Invalid(format!("unpacking broke off: {error}")))??;
        fetched
    } else {
        bytes(spec, input, mover, place.part()).await?
    };
    place.done()?;
    Ok(InputUsed {
        name: input.name.clone(),
        uri: public(&input.uri),
        digest: Some(fetched.digest),
        size: fetched.size,
        version: fetched.version,
    })
}

/// Fetches an object or, where there is none of this name, what lies below it, to `to`.
pub async fn bytes(spec: &RunSpec, input: &Input, mover: &Mover, to: &Path) -> Result<Fetched, DataError> {
    let expect = input.digest.as_deref();
    if input.uri.starts_with("http://") || input.uri.starts_with("https://") {
        return mover.fetch(&Remote::http(&input.uri)?, to, expect).await;
    }
    let (store, key) = Store::of_object(&input.uri, credentials(spec, input))?;
    if input.uri.ends_with('/') {
        return mover.fetch_tree(&store, &key, to, expect).await;
    }
    match mover.fetch(&Remote::Object(store.clone(), key.clone()), to, expect).await {
        Err(DataError::NotFound(uri)) => match mover.fetch_tree(&store, &key, to, expect).await {
            Err(DataError::NotFound(_)) => Err(DataError::NotFound(uri)),
            done => done,
        },
        done => done,
    }
}

// The input's own store; or the run's, where the input lies in it; or whatever the environment offers.
fn credentials<'a>(spec: &'a RunSpec, input: &'a Input) -> Option<&'a StoreSpec> {
    let own = spec.store.as_ref().filter(|store| {
        let rest = input.uri.strip_prefix(store.url.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.starts_with('/'))
    });
    // Another prefix of the same bucket is the same store too.
    let bucket = |uri: &str| url_head(uri).map(str::to_owned);
    let same =
        spec.store.as_ref().filter(|store| bucket(&store.url).is_some_and(|head| Some(head) == bucket(&input.uri)));
    input.store.as_ref().or(own).or(same)
}

// Scheme and bucket.
fn url_head(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once("://")?;
    let bucket = rest.split('/').next().filter(|bucket| !bucket.is_empty())?;
    uri.get(..scheme.len() + 3 + bucket.len())
}

fn failure(input: &Input, error: &DataError) -> Failure {
    Failure { reason: reason(error), message: format!("input {:?}: {error}", input.name) }
}

/// The reason that stands for an error of fetching.
pub fn reason(error: &DataError) -> Reason {
    match error {
        DataError::Corrupt { .. } => Reason::InputCorrupt,
        DataError::NotFound(_) | DataError::Denied { .. } | DataError::Changed(_) | DataError::Invalid(_) => {
            Reason::InputUnavailable
        }
        DataError::Unavailable { .. } => Reason::StoreUnavailable,
        DataError::Local { .. } => Reason::RunnerError,
    }
}
