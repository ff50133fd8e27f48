//! /livez, /readyz and /metrics over plain HTTP.
//!
//! Comes in: the health, the metrics, and an address. Goes out: what kubelet and Prometheus read.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::health::Verdict;
use super::serve::{Answer, serve, text};
use super::{Health, Metrics};

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for probes and metrics: {source}; choose another with --http-bind")]
pub struct HttpError {
    address: SocketAddr,
    source: io::Error,
}

/// Serves until `stop`.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn run(
    address: SocketAddr,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), HttpError> {
    let listener = TcpListener::bind(address).await.map_err(|source| HttpError { address, source })?;
    tracing::info!(%address, "serving /livez, /readyz and /metrics");
    serve_on(listener, health, metrics, stop).await;
    Ok(())
}

async fn serve_on(listener: TcpListener, health: Health, metrics: Metrics, stop: CancellationToken) {
    let handler = move |request: hyper::Request<hyper::body::Incoming>| {
        std::future::ready(answer(request.method(), request.uri().path(), &health, &metrics))
    };
    serve(listener, |stream| std::future::ready(Ok(stream)), handler, stop).await;
}

fn answer(method: &Method, path: &str, health: &Health, metrics: &Metrics) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match path {
        "/livez" => verdict(health.live(Instant::now())),
        "/readyz" => verdict(health.ready()),
        "/metrics" => exposition(metrics),
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n"),
    }
}

fn verdict(verdict: Verdict) -> Answer {
    let status = if verdict.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, verdict.text)
}

fn exposition(metrics: &Metrics) -> Answer {
    match metrics.text() {
        Ok(lines) => {
            let mut answer = text(StatusCode::OK, lines);
            let format = HeaderValue::from_static(prometheus::TEXT_FORMAT);
            answer.headers_mut().insert(CONTENT_TYPE, format);
            answer
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let exchange = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }

    #[tokio::test]
    async fn probes_and_metrics_are_served_until_the_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (health, metrics, stop) = (Health::new(), Metrics::new().unwrap(), CancellationToken::new());
        let pods = health.watch("pods");
        let server = tokio::spawn(serve_on(listener, health.clone(), metrics, stop.clone()));

        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not synced: pods\n"), "{answer}");
        pods.set();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("\ncultivar_leader 0\n"));
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));

        // An idle connection does not hold up the stop.
        let _idle = TcpStream::connect(address).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), server).await.expect("stops").unwrap();
    }
}
