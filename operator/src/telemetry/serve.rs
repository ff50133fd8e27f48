//! Serving HTTP/1 on a listener, for the webhook and for the probes alike.
//!
//! Comes in: a listener, what turns an accepted connection into a stream (TLS or not), and a handler. Goes out:
//! answered requests. There is a limit on the connections, on the time for a handshake and on the time for a request's
//! head; when told to stop, requests under way are answered and idle connections closed.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections served at the same time; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Limit of a TLS handshake, and of the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for answers under way after the stop.
const FAREWELL: Duration = Duration::from_secs(2);

/// What every handler answers with.
pub type Answer = Response<Full<Bytes>>;

/// A plain text answer.
#[must_use]
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let plain = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(hyper::header::CONTENT_TYPE, plain);
    answer
}

/// Serves connections until `stop`, then gives those under way two seconds. `wrap` makes a stream of a connection.
pub async fn serve<S, W, WF, H, HF>(listener: TcpListener, wrap: W, handler: H, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    W: Fn(TcpStream) -> WF + Clone + Send + 'static,
    WF: Future<Output = io::Result<S>> + Send,
    H: Fn(Request<Incoming>) -> HF + Clone + Send + Sync + 'static,
    HF: Future<Output = Answer> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while let Some(ended) = connections.try_join_next() {
            log_panic(ended);
        }
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, slot)) = accepted else { continue };
        let (wrap, handler, stop) = (wrap.clone(), handler.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, wrap, handler, stop).await;
            drop(slot);
        });
    }
    let farewell = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if timeout(FAREWELL, farewell).await.is_err() {
        tracing::warn!("connections still open {FAREWELL:?} after the stop; closing them");
        connections.shutdown().await;
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

async fn connection<S, W, WF, H, HF>(stream: TcpStream, wrap: W, handler: H, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    W: Fn(TcpStream) -> WF,
    WF: Future<Output = io::Result<S>>,
    H: Fn(Request<Incoming>) -> HF,
    HF: Future<Output = Answer> + Send + 'static,
{
    // Answers are small and somebody waits for each of them.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE, wrap(stream)).await {
        Ok(Ok(stream)) => stream,
        // Port scanners and probes end here as well, so it is no warning.
        Ok(Err(error)) => return tracing::debug!(%error, "handshake failed"),
        Err(_) => return tracing::debug!("no handshake within {HANDSHAKE:?}"),
    };
    let service = service_fn(|request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE).max_buf_size(64 * 1024);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
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
