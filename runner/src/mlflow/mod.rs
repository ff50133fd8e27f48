//! A tracking server for the real `mlflow` client, of exactly one run; or what stands before the user's own.
//!
//! Comes in: the calls of the client 3.x, on a port of 127.0.0.1. Goes out: metrics as lines of the metrics file, artifacts
//! and models as files in the outputs folder (so they become outputs like any other), params, tags and datasets as
//! [`Logged`]. The program finds it by MLFLOW_TRACKING_URI and resumes the run that MLFLOW_RUN_ID names. Runs that it opens
//! beside that one (nested, or one after the other) are kept apart by their names.
//!
//! Where the user has set a tracking server, that one answers: [`forward`] hands every call on and its answer back, and
//! [`record`] notes what went through. Runs and their ids are the server's; the first one that the program opens is the
//! experiment's.
//!
//! The calls are those of MLflow's REST API, <https://mlflow.org/docs/latest/rest-api.html>, as the client 3.17 makes them.

mod artifacts;
mod calls;
mod filter;
mod forward;
mod record;
mod state;

use bytes::Bytes;
use cultivar_protocol::RunSpec;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

pub use forward::Upstream;
pub use state::Logged;
use state::State;

/// More than this is no call; artifacts are streamed and have no such limit.
const MAX_CALL: usize = 32 * 1024 * 1024;
/// Where the client puts and gets the artifacts that the tracking server hands on.
const ARTIFACTS: &str = "/api/2.0/mlflow-artifacts/artifacts";

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a call failed with, in MLflow's own terms.
#[derive(Debug)]
struct CallError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl CallError {
    fn missing(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "RESOURCE_DOES_NOT_EXIST", message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "INVALID_PARAMETER_VALUE", message: message.into() }
    }

    fn internal(error: &io::Error) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "INTERNAL_ERROR", message: error.to_string() }
    }
}

/// The running endpoint.
#[derive(Debug)]
pub struct Endpoint {
    state: Arc<Mutex<State>>,
    serving: tokio::task::JoinHandle<()>,
    url: String,
    upstream: Option<Arc<Upstream>>,
}

impl Endpoint {
    /// Starts to listen, before the user's own server where there is one. Nothing is written before somebody calls.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(spec: &RunSpec, metrics: &Path, upstream: Option<Upstream>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let upstream = upstream.map(Arc::new);
        let state = if upstream.is_some() { State::empty(spec, metrics) } else { State::new(spec, metrics) };
        let state = Arc::new(Mutex::new(state?));
        let serving = tokio::spawn(serve(listener, Arc::clone(&state), upstream.clone()));
        Ok(Self { state, serving, url, upstream })
    }

    /// What the program's environment gets. Which run it is on a server of the user's, that server and the user say.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut environment = vec![("MLFLOW_TRACKING_URI", self.url.clone().into())];
        if self.upstream.is_none() {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            environment.push(("MLFLOW_RUN_ID", state.main.clone().into()));
        }
        environment
    }

    /// What was logged so far, beside metrics and artifacts.
    #[must_use]
    pub fn logged(&self) -> Logged {
        let logged = self.state.lock().unwrap_or_else(PoisonError::into_inner).logged();
        match &self.upstream {
            Some(upstream) => Logged { server: Some(upstream.name()), ..logged },
            None => Logged { run: None, ..logged },
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>, upstream: Option<Arc<Upstream>>) {
    // Dropped with this task, and every connection with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others must end first.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (state, upstream) = (Arc::clone(&state), upstream.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state), upstream.clone()));
            // A client that hangs up is no concern of ours.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    upstream: Option<Arc<Upstream>>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let done = match (upstream, path.strip_prefix(ARTIFACTS)) {
        (Some(upstream), _) => forward::answer(request, &upstream, &state).await,
        (None, Some(rest)) => artifacts::answer(request, rest, &state).await,
        (None, None) => call(request, &path, &state).await.map(|value| whole(StatusCode::OK, &value)),
    };
    Ok(done.unwrap_or_else(|error| whole(error.status, &json!({"error_code": error.code, "message": error.message}))))
}

async fn call(request: Request<Incoming>, path: &str, state: &Mutex<State>) -> Result<Value, CallError> {
    let (parts, body) = request.into_parts();
    let body = whole_body(body).await?;
    let arguments =
        arguments(&parts, &body).map_err(|error| CallError::invalid(format!("the request is not JSON: {error}")))?;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    calls::call(&mut state, &parts.method, path, &arguments)
}

async fn whole_body(body: Incoming) -> Result<Bytes, CallError> {
    let body = Limited::new(body, MAX_CALL).collect().await;
    Ok(body.map_err(|error| CallError::invalid(format!("the request cannot be read: {error}")))?.to_bytes())
}

fn arguments(parts: &hyper::http::request::Parts, body: &[u8]) -> serde_json::Result<Value> {
    if parts.method == Method::GET {
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let pairs = query.map(|(key, value)| (key.into_owned(), Value::String(value.into_owned())));
        return Ok(Value::Object(pairs.collect()));
    }
    if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) }
}

/// A text of a URL without its escapes.
pub(crate) fn percent_decoded(text: &str) -> String {
    artifacts::decode(text).unwrap_or_else(|_| text.to_owned())
}

fn whole(status: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}
