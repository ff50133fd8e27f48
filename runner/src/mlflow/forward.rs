//! Handing calls on to the user's own tracking server.
//!
//! The program gets that server's answers and errors as if nobody stood between; where the server cannot be reached, a 502,
//! which the client tries again as it would a broken connection. What the server has taken is noted ([`super::record`]), and
//! artifacts are written to the outputs folder while they pass.

use super::record::{self, Kept};
use super::state::State;
use super::{ARTIFACTS, Body, CallError, arguments, artifacts, whole_body};
use bytes::Bytes;
use cultivar_data::Place;
use futures::TryStreamExt;
use http_body_util::{BodyDataStream, BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, Response, StatusCode};
use reqwest::{Certificate, Client, ClientBuilder, Identity, RequestBuilder, Url};
use serde_json::Value;
use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the server may be silent. The client has limits of its own, and hangs up before.
const SILENCE: Duration = Duration::from_secs(600);
/// Servers close idle connections after as little as two seconds; one that is about to be closed loses a call.
const IDLE: Duration = Duration::from_secs(1);
/// Of one connection, not of what it carries (RFC 9110, 7.6.1); a new connection has its own.
const CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Who calls, where the call itself does not say so.
enum Caller {
    Nobody,
    Named(String, Option<String>),
    Token(String),
}

/// The user's own tracking server.
pub struct Upstream {
    client: Client,
    // Without credentials, without a slash at its end.
    base: Url,
    caller: Caller,
}

// Nothing of the credentials belongs into a log.
impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.name())
    }
}

impl Upstream {
    /// The server that `MLFLOW_TRACKING_URI` names, with MLflow's own settings of the environment: who calls, and whose
    /// certificates count.
    ///
    /// # Errors
    /// Why calls to it cannot be handed on.
    pub fn read(uri: &str, setting: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let setting = |name: &str| setting(name).filter(|value| !value.is_empty());
        let mut base = Url::parse(uri.trim_end_matches('/'))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or("only a server at http:// or https:// is one that calls can be handed on to")?;
        if setting("MLFLOW_TRACKING_AWS_SIGV4").is_some_and(|value| is_true(&value)) {
            return Err("MLFLOW_TRACKING_AWS_SIGV4 signs calls for the server's own address".to_owned());
        }
        let user = Some(base.username()).filter(|name| !name.is_empty()).map(super::percent_decoded);
        let caller = match (user, setting("MLFLOW_TRACKING_USERNAME"), setting("MLFLOW_TRACKING_PASSWORD")) {
            (Some(user), _, _) => Caller::Named(user, base.password().map(super::percent_decoded)),
            (None, Some(user), Some(password)) => Caller::Named(user, Some(password)),
            _ => setting("MLFLOW_TRACKING_TOKEN").map_or(Caller::Nobody, Caller::Token),
        };
        // Refused only where a URL has no host.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base.set_query(None);
        base.set_fragment(None);
        let builder = cultivar_data::client_builder(SILENCE)
            .pool_idle_timeout(IDLE)
            // Where to follow to is for the client to say.
            .redirect(reqwest::redirect::Policy::none());
        let client = certificates(builder, setting)?.build().map_err(|error| cultivar_data::reason(&error))?;
        Ok(Self { client, base, caller })
    }

    /// Its address, without credentials.
    #[must_use]
    pub fn name(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    fn request(&self, parts: &hyper::http::request::Parts) -> Result<RequestBuilder, CallError> {
        // Written anew, so that escapes stay as the client has made them.
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = Url::parse(&format!("{}{path}", self.name()))
            .map_err(|error| CallError::invalid(format!("{path:?} is no path: {error}")))?;
        let mut headers = passed_on(&parts.headers);
        headers.remove(header::HOST);
        let named = headers.contains_key(header::AUTHORIZATION);
        let request = self.client.request(parts.method.clone(), url).headers(headers);
        Ok(match &self.caller {
            Caller::Named(user, password) if !named => request.basic_auth(user, password.as_ref()),
            Caller::Token(token) if !named => request.bearer_auth(token),
            _ => request,
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<reqwest::Response, CallError> {
        request.send().await.map_err(|error| CallError {
            status: StatusCode::BAD_GATEWAY,
            code: "TEMPORARILY_UNAVAILABLE",
            message: format!(
                "the tracking server {} cannot be reached: {}",
                self.name(),
                cultivar_data::reason(&error)
            ),
        })
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1")
}

// As MLflow's client and, where that says nothing, its HTTP library read them.
fn certificates(builder: ClientBuilder, setting: impl Fn(&str) -> Option<String>) -> Result<ClientBuilder, String> {
    let file = |name: &str| {
        setting(name).map(|path| {
            std::fs::read(Path::new(&path)).map_err(|error| format!("{name} cannot be used: {path}: {error}"))
        })
    };
    let mut builder = builder;
    if setting("MLFLOW_TRACKING_INSECURE_TLS").is_some_and(|value| is_true(&value)) {
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else {
        let places = ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
        if let Some(found) = places.into_iter().find_map(file) {
            let certificates = Certificate::from_pem_bundle(&found?).map_err(|error| cultivar_data::reason(&error))?;
            builder = builder.tls_certs_only(certificates);
        }
    }
    if let Some(pem) = file("MLFLOW_TRACKING_CLIENT_CERT_PATH") {
        builder = builder.identity(Identity::from_pem(&pem?).map_err(|error| cultivar_data::reason(&error))?);
    }
    Ok(builder)
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in &CONNECTION {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers
}

/// Hands a call on; comes back with the server's answer.
pub async fn answer(
    request: Request<Incoming>,
    upstream: &Upstream,
    state: &Mutex<State>,
) -> Result<Response<Body>, CallError> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if let (Some(rest), &Method::PUT) = (path.strip_prefix(ARTIFACTS), &method) {
        return artifact(request, rest, upstream, state).await;
    }
    match record::kept(&method, &path) {
        Kept::Nothing => {
            uploaded_in_parts(&method, &path, state);
            let (parts, body) = request.into_parts();
            let mut request = upstream.request(&parts)?;
            // A body of no bytes is not none: it would be sent in chunks.
            if !body.is_end_stream() {
                request = request.body(reqwest::Body::wrap_stream(BodyDataStream::new(body)));
            }
            Ok(streamed(upstream.send(request).await?))
        }
        kept => noted(request, kept, upstream, state).await,
    }
}

async fn noted(
    request: Request<Incoming>,
    kept: Kept,
    upstream: &Upstream,
    state: &Mutex<State>,
) -> Result<Response<Body>, CallError> {
    let (mut parts, body) = request.into_parts();
    let body = whole_body(body).await?;
    // The answer is read here too.
    parts.headers.remove(header::ACCEPT_ENCODING);
    let response = upstream.send(upstream.request(&parts)?.body(body.clone())).await?;
    let taken = response.status().is_success();
    let (response, answer) = if kept == Kept::CallAndAnswer && taken {
        let (response, bytes) = collected(response, upstream).await?;
        (response, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    } else {
        (streamed(response), Value::Null)
    };
    if taken {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match arguments(&parts, &body) {
            Ok(args) => record::record(&mut state, &parts.method, parts.uri.path(), &args, &answer),
            Err(error) => state.problem(format!("a call of MLflow is not in this record, it cannot be read: {error}")),
        }
    }
    Ok(response)
}

// Large files may go to the server's own store in parts, past everyone.
fn uploaded_in_parts(method: &Method, path: &str, state: &Mutex<State>) {
    if let (&Method::POST, Some(path)) = (method, path.strip_prefix("/api/2.0/mlflow-artifacts/mpu/complete/")) {
        state.lock().unwrap_or_else(PoisonError::into_inner).problem(format!(
            "MLflow's client uploaded {path} in parts, straight to its server's store; it is not kept here as well"
        ));
    }
}

async fn artifact(
    request: Request<Incoming>,
    path: &str,
    upstream: &Upstream,
    state: &Mutex<State>,
) -> Result<Response<Body>, CallError> {
    let (parts, body) = request.into_parts();
    let path = artifacts::decode(path.trim_start_matches('/'))?;
    let copy = Arc::new(Mutex::new(Copy::of(&path, state)));
    let copying = Arc::clone(&copy);
    let passing = BodyDataStream::new(body)
        .inspect_ok(move |data: &Bytes| copying.lock().unwrap_or_else(PoisonError::into_inner).take(data));
    let response = upstream.send(upstream.request(&parts)?.body(reqwest::Body::wrap_stream(passing))).await?;
    if response.status().is_success() {
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let copy = std::mem::replace(&mut *copy.lock().unwrap_or_else(PoisonError::into_inner), Copy::none());
        if let Err(why) = copy.done(length) {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.problem(format!("{path} is on the MLflow server, but not kept here as well: {why}"));
        }
    }
    Ok(streamed(response))
}

/// What is written here of a file that passes.
struct Copy {
    to: Result<(Place, File), String>,
    bytes: u64,
}

impl Copy {
    fn none() -> Self {
        Self { to: Err("it was interrupted".to_owned()), bytes: 0 }
    }

    fn of(path: &str, state: &Mutex<State>) -> Self {
        state.lock().unwrap_or_else(PoisonError::into_inner).adopt_owner(path);
        let to = match artifacts::locate(path, state) {
            Ok((file, true)) => Place::of(&file)
                .map_err(|error| error.to_string())
                .and_then(|place| Ok((File::create(place.part()).map_err(|error| error.to_string())?, place)))
                .map(|(file, place)| (place, file)),
            Ok((_, false)) => Err("a file needs a name".to_owned()),
            Err(error) => Err(error.message),
        };
        Self { to, bytes: 0 }
    }

    // What fails here must not fail the program's own upload.
    fn take(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        if let Ok((_, file)) = &mut self.to
            && let Err(error) = file.write_all(data)
        {
            self.to = Err(error.to_string());
        }
    }

    fn done(self, length: Option<u64>) -> Result<(), String> {
        let (place, _) = self.to?;
        match length.filter(|length| *length != self.bytes) {
            Some(length) => Err(format!("{} of {length} bytes passed", self.bytes)),
            None => place.done().map_err(|error| error.to_string()),
        }
    }
}

fn streamed(response: reqwest::Response) -> Response<Body> {
    let (status, headers) = (response.status(), passed_on(response.headers()));
    let frames = response.bytes_stream().map_ok(Frame::data).map_err(io::Error::other);
    with(BodyExt::boxed_unsync(StreamBody::new(frames)), status, headers)
}

async fn collected(response: reqwest::Response, upstream: &Upstream) -> Result<(Response<Body>, Bytes), CallError> {
    let (status, headers) = (response.status(), passed_on(response.headers()));
    let bytes = response.bytes().await.map_err(|error| CallError {
        status: StatusCode::BAD_GATEWAY,
        code: "TEMPORARILY_UNAVAILABLE",
        message: format!("the tracking server {} broke off: {}", upstream.name(), cultivar_data::reason(&error)),
    })?;
    let body = Full::new(bytes.clone()).map_err(|never: Infallible| match never {}).boxed_unsync();
    Ok((with(body, status, headers), bytes))
}

fn with(body: Body, status: StatusCode, headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
