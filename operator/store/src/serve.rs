//! Connections, probes and the end of it all.
//!
//! Comes in: listeners, the operations, and a signal to stop. Goes out: answered requests. After the signal no
//! connection is accepted, requests under way are finished, and idle connections are closed.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::keyring::Keyring;
use crate::metrics::{Asked, Metrics};
use crate::s3::Operations;
use crate::store::Store;

/// Limit of a request's head.
const HEAD: Duration = Duration::from_secs(30);
/// The largest XML of a request: 10,000 parts with checksums take about 2 MiB.
const XML: usize = 4 * 1024 * 1024;
/// Connections for probes and metrics.
const PROBES: usize = 16;

/// The S3 service: the protocol, the check of who may do what, and the operations.
#[must_use]
pub fn service(operations: Operations, keyring: Keyring) -> S3Service {
    let mut config = S3Config::default();
    config.xml_max_body_size = XML;
    // Uploads by HTML form are not allowed, so nothing of one may be gathered in memory before that is said.
    config.post_object_max_file_size = 0;
    config.form_max_field_size = 16 * 1024;
    config.form_max_fields_size = 64 * 1024;
    let mut builder = S3ServiceBuilder::new(operations);
    builder.set_auth(keyring);
    builder.set_access(Access);
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

/// Serves S3 until `stop`, then gives requests under way the time `grace`.
pub async fn s3(
    listener: TcpListener,
    service: S3Service,
    metrics: Metrics,
    (connections, grace): (usize, Duration),
    stop: CancellationToken,
) {
    let handler = move |request: Request<Incoming>| {
        let (service, metrics) = (service.clone(), metrics.clone());
        async move {
            let asked = Asked::default();
            let waits = request.headers().contains_key(EXPECT);
            let mut request = request.map(Body::from);
            request.extensions_mut().insert(asked.clone());
            let mut answer = service.call(request).await?;
            metrics.answered(&asked, answer.status());
            // A client that waits to be asked for its body may lose its place on this connection when it is refused
            // instead: boto3 takes the status for that of its next request too. S3 ends the connection as well.
            if waits && !answer.status().is_success() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, HttpError>(answer)
        }
    };
    serve(listener, handler, (connections, grace), stop).await;
}

/// Serves /healthz and /metrics until `stop`.
pub async fn probes(listener: TcpListener, store: Store, metrics: Metrics, stop: CancellationToken) {
    let handler = move |request: Request<Incoming>| {
        let answer = probe(&request, &store, &metrics);
        std::future::ready(Ok::<_, Infallible>(answer))
    };
    serve(listener, handler, (PROBES, Duration::from_secs(2)), stop).await;
}

fn probe(request: &Request<Incoming>, store: &Store, metrics: &Metrics) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => match store.index.healthy() {
            Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
            Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        },
        "/metrics" => match metrics.text(store.index.totals(), &store.space) {
            Ok(all) => text(StatusCode::OK, all),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "/healthz or /metrics\n".to_owned()),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

async fn serve<H, F, B, E>(
    listener: TcpListener,
    handler: H,
    (connections, grace): (usize, Duration),
    stop: CancellationToken,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let slots = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    loop {
        while let Some(ended) = open.try_join_next() {
            log_panic(ended);
        }
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, slot)) = accepted else { continue };
        let (handler, stop) = (handler.clone(), stop.clone());
        open.spawn(async move {
            connection(stream, handler, stop).await;
            drop(slot);
        });
    }
    drop(listener);
    let farewell = async {
        while let Some(ended) = open.join_next().await {
            log_panic(ended);
        }
    };
    if tokio::time::timeout(grace, farewell).await.is_err() {
        tracing::warn!("requests still under way {grace:?} after the stop; breaking them off");
        open.shutdown().await;
    }
}

/// The next connection with its slot. None after an error, which is waited out: most often too many open files.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let slot = slots.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection<H, F, B, E>(stream: TcpStream, handler: H, stop: CancellationToken)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    // Answers are often small, and somebody waits for each of them.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(256 * 1024);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service_fn(handler)));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; this is a bug");
    }
}
