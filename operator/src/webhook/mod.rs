//! The admission webhook: refuses objects that can never run, with every fault named, and keeps its own certificate.
//!
//! Comes in: the settings, a client, the claim to lead. Goes out: answers to the API server; from the leader alone, one
//! Secret and the caBundle of one ValidatingWebhookConfiguration. No file is written anywhere.

pub mod certs;
mod keeper;
pub mod live;
pub mod review;
mod secret;
pub mod server;

use std::io;
use std::net::SocketAddr;

use cultivar_core::validate::{self, Report};
use kube::Client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::keeper::{Keeper, TURN};
use self::live::Live;
use self::secret::Cluster;
use crate::leader::Claim;
use crate::settings::WebhookSettings;
use crate::telemetry::Health;
use crate::telemetry::health::{Heartbeat, Synced};

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address cannot be listened on.
    #[error("cannot listen on {0} for the webhook: {1}; choose another with --webhook-bind, or use --webhook=off")]
    Bind(SocketAddr, io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Chooses ring for all TLS of the process. First thing in `main`, before any client is made.
pub fn install_crypto() {
    // An error means that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Serves the webhook and looks after its certificate until `stop`. Ready once there is a certificate to serve, which is
/// registered at once and not when the task first runs: until then the process would look ready.
///
/// # Errors
/// When it cannot listen.
pub fn run(
    client: Client,
    settings: WebhookSettings,
    claim: watch::Receiver<Claim>,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), WebhookError>> + Send {
    let synced = health.need("webhook certificate");
    let beat = health.heartbeat("webhook certificate", TURN);
    serve_and_keep(client, settings, claim, (synced, beat), stop)
}

async fn serve_and_keep(
    client: Client,
    settings: WebhookSettings,
    claim: watch::Receiver<Claim>,
    (synced, beat): (Synced, Heartbeat),
    stop: CancellationToken,
) -> Result<(), WebhookError> {
    let bound = TcpListener::bind(settings.bind).await;
    let listener = bound.map_err(|error| WebhookError::Bind(settings.bind, error))?;
    tracing::info!(address = %settings.bind, "serving the webhook");
    let live = Live::default();
    let keeper = Keeper::new(Cluster::new(client, &settings), live.clone(), names(&settings), claim);
    let (served, ()) =
        tokio::join!(server::run(listener, &live, by_kind, stop.clone()), keeper.run(synced, beat, stop));
    Ok(served?)
}

/// What the API server may call this webhook by.
fn names(settings: &WebhookSettings) -> Vec<String> {
    let WebhookSettings { service, namespace, url_hosts, .. } = settings;
    let mut names = vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")];
    names.extend(url_hosts.iter().cloned());
    names
}

/// The validation of each kind that has one.
fn by_kind(kind: &str, spec: &Value) -> Option<Report> {
    match kind {
        "Experiment" => Some(validate::experiment(spec)),
        "Pipeline" => Some(validate::pipeline(spec)),
        "PipelineRun" => Some(validate::pipeline_run(spec)),
        "Schedule" => Some(validate::schedule(spec)),
        _ => None,
    }
}
