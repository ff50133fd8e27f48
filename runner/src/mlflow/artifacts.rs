//! Artifacts of runs and models: files in the outputs folder.

use super::state::State;
use super::{Body, CallError, whole};
use bytes::Bytes;
use cultivar_data::Place;
use cultivar_protocol::is_safe_relative;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tokio::io::AsyncReadExt;

pub async fn answer(request: Request<Incoming>, rest: &str, state: &Mutex<State>) -> Result<Response<Body>, CallError> {
    let path = rest.trim_start_matches('/');
    match *request.method() {
        Method::GET if path.is_empty() => {
            let query = request.uri().query().unwrap_or_default();
            let path = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "path");
            let (folder, _) = locate(&path.map(|(_, value)| value.into_owned()).unwrap_or_default(), state)?;
            Ok(whole(StatusCode::OK, &json!({"files": list(&folder)})))
        }
        Method::PUT => {
            let (file, whole_path) = locate(&decode(path)?, state)?;
            if !whole_path {
                return Err(CallError::invalid("a file needs a name"));
            }
            receive(request.into_body(), file).await.map_err(|error| CallError::internal(&error))?;
            Ok(whole(StatusCode::OK, &json!({})))
        }
        Method::GET => send(locate(&decode(path)?, state)?.0).await,
        _ => Err(CallError::invalid("artifacts can be put, got and listed")),
    }
}

/// The path without its escapes.
pub fn decode(path: &str) -> Result<String, CallError> {
    // form_urlencoded would read '+' as a space, so it is kept out of its way.
    let plus = path.replace('+', "%2B");
    let decoded = url::form_urlencoded::parse(plus.as_bytes()).next().map(|(key, _)| key.into_owned());
    decoded.filter(|text| !text.contains('\u{fffd}')).ok_or_else(|| CallError::invalid("the path is not UTF-8"))
}

/// The address of an artifact, below the API's own, as a path on disk; and whether it is more than a run or model.
pub fn locate(path: &str, state: &Mutex<State>) -> Result<(PathBuf, bool), CallError> {
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let path = path.trim_matches('/');
    let missing = || CallError::missing(format!("{path:?} belongs to no run or model of this experiment"));
    let (folder, rest) = state.owner(path).ok_or_else(missing)?;
    if rest.is_empty() {
        return Ok((folder, false));
    }
    if !is_safe_relative(rest) {
        return Err(CallError::invalid(format!("{path:?} is no path of an artifact")));
    }
    Ok((folder.join(rest), true))
}

async fn receive(mut body: Incoming, to: PathBuf) -> io::Result<()> {
    let place = Place::of(&to).map_err(io::Error::other)?;
    let mut file = std::fs::File::create(place.part())?;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            // A memory copy, as a rule; the page cache takes it.
            file.write_all(&data)?;
        }
    }
    place.done().map_err(io::Error::other)
}

async fn send(from: PathBuf) -> Result<Response<Body>, CallError> {
    let missing = |error: io::Error| CallError::missing(format!("{}: {error}", from.display()));
    let file = tokio::fs::File::open(&from).await.map_err(missing)?;
    if file.metadata().await.is_ok_and(|meta| meta.is_dir()) {
        return Err(CallError::missing(format!("{} is a folder", from.display())));
    }
    let chunks = futures::stream::try_unfold(file, |mut file| async move {
        let mut buffer = vec![0; 64 * 1024];
        let read = file.read(&mut buffer).await?;
        buffer.truncate(read);
        Ok::<_, io::Error>((read > 0).then(|| (Frame::data(Bytes::from(buffer)), file)))
    });
    Ok(Response::new(BodyExt::boxed_unsync(StreamBody::new(chunks))))
}

fn list(folder: &std::path::Path) -> Vec<serde_json::Value> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    entries
        .into_iter()
        .filter_map(|entry| {
            let meta = std::fs::metadata(entry.path()).ok()?;
            let name = entry.file_name().to_str()?.to_owned();
            Some(if meta.is_dir() {
                json!({"path": name, "is_dir": true})
            } else {
                json!({"path": name, "is_dir": false, "file_size": meta.len()})
            })
        })
        .collect()
}
