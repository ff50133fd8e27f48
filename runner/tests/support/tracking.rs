//! Tracking servers of the user's: one that answers as MLflow does, and one that answers as it is told.

use bytes::Bytes;
use cultivar_protocol::RunSpec;
use cultivar_runner::mlflow::{Endpoint, Upstream};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// An endpoint with folders of its own.
pub struct Server {
    pub url: String,
    pub endpoint: Endpoint,
    root: tempfile::TempDir,
    _runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// The runner's own, which knows the calls of MLflow's client, in the part of someone else's.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut server = runtime.block_on(Self::new("theirs", None));
        server._runtime = Some(runtime);
        server
    }

    pub async fn new(uid: &str, upstream: Option<Upstream>) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("outputs")).unwrap();
        let spec = json!({
            "version": 1, "attempt": 1, "experiment": {"name": uid, "namespace": "ns", "uid": uid},
            "outputsDir": root.path().join("outputs"), "runDir": root.path(),
        });
        let spec = RunSpec::read(&spec.to_string()).unwrap();
        let endpoint = Endpoint::start(&spec, &root.path().join("metrics.jsonl"), upstream).await.unwrap();
        let (_, url) = endpoint.environment().into_iter().find(|(name, _)| *name == "MLFLOW_TRACKING_URI").unwrap();
        Self { url: url.into_string().unwrap(), endpoint, root, _runtime: None }
    }

    pub fn metrics(&self) -> String {
        std::fs::read_to_string(self.root.path().join("metrics.jsonl")).unwrap()
    }

    pub fn outputs(&self) -> PathBuf {
        self.root.path().join("outputs")
    }

    pub fn artifact(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.outputs().join(path)).ok()
    }
}

/// What a call looked like when it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub call: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// One that says the same to everyone, and remembers what it was asked.
#[derive(Clone)]
pub struct Told {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Told {
    pub async fn start(status: StatusCode, answer: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let told = Self { url, seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                let service = service_fn(move |request: Request<Incoming>| {
                    let seen = Arc::clone(&seen);
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let call = format!("{} {}", parts.method, parts.uri);
                        seen.lock().unwrap().push(Seen { call, headers: parts.headers, body });
                        let mut response = Response::new(Full::new(Bytes::from_static(answer.as_bytes())));
                        *response.status_mut() = status;
                        response.headers_mut().insert("x-theirs", "yes".parse().unwrap());
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        told
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }
}
