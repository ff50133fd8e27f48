//! The store as a program.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use cultivar_store::keyring::Keyring;
use cultivar_store::metrics::Metrics;
use cultivar_store::s3::Operations;
use cultivar_store::serve;
use cultivar_store::settings::{LogFormat, Settings};
use cultivar_store::store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How often abandoned uploads are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let settings = match Settings::from_process() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("cultivar-store: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = logs(&settings) {
        eprintln!("cultivar-store: {error}");
        return ExitCode::from(2);
    }
    match run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the store ends");
            ExitCode::FAILURE
        }
    }
}

fn logs(settings: &Settings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log_filter).map_err(|error| error.to_string())?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    match settings.log_format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            lines.with_ansi(colours).with_writer(std::io::stderr).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    }
    .map_err(|error| error.to_string())
}

fn run(settings: &Settings) -> Result<(), String> {
    let keyring = Keyring::open(&settings.credentials).map_err(|error| format!("--credentials: {error}"))?;
    let (store, threads) = Store::open(&settings.data_dir, settings.reserve).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no threads to run on: {error}"))?;
    let sweeper = store.clone();
    let sweeping = std::thread::Builder::new().name("sweeper".to_owned()).spawn(move || sweeper.sweep());
    let sweeping = sweeping.map_err(|error| format!("no thread to sweep with: {error}"))?;
    let ended = runtime.block_on(serve(settings, store, keyring));
    // What connections that were broken off still hold ends with the runtime; then the index is closed in order.
    runtime.shutdown_timeout(Duration::from_secs(5));
    if sweeping.join().is_err() {
        tracing::error!("sweeping panicked; this is a bug");
    }
    threads.join();
    ended
}

async fn serve(settings: &Settings, store: Store, keyring: Keyring) -> Result<(), String> {
    let bind = async |flag: &str, address: std::net::SocketAddr| {
        let listener = TcpListener::bind(address).await;
        listener.map_err(|error| format!("--{flag}: cannot listen on {address}: {error}; choose another"))
    };
    let s3 = bind("s3-bind", settings.s3_bind).await?;
    let probes = bind("http-bind", settings.http_bind).await?;
    let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
    let addresses = (address(&s3).unwrap_or_default(), address(&probes).unwrap_or_default());
    let metrics = Metrics::new().map_err(|error| format!("metrics: {error}"))?;
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (stop, last) = (CancellationToken::new(), CancellationToken::new());
    let housekeeping = tokio::spawn(keep_house(store.clone(), settings.abandoned, stop.clone()));
    let probing = tokio::spawn(serve::probes(probes, store.clone(), metrics.clone(), last.clone()));
    let operations = Operations::new(store, settings.bucket.clone(), metrics.clone());
    let service = serve::service(operations, keyring);
    let limits = (settings.connections, settings.grace);
    let mut serving = tokio::spawn(serve::s3(s3, service, metrics, limits, stop.clone()));
    tracing::info!(s3 = addresses.0, http = addresses.1, bucket = settings.bucket, "serving");
    let early = tokio::select! {
        _ = term.recv() => None,
        _ = int.recv() => None,
        ended = &mut serving => Some(ended),
    };
    tracing::info!("stopping: requests under way are finished");
    stop.cancel();
    let ended = match early {
        None => serving.await,
        Some(ended) => ended,
    };
    last.cancel();
    let others = (housekeeping.await, probing.await);
    let panicked = |error: tokio::task::JoinError| format!("a task panicked: {error}; this is a bug");
    ended.and(others.0).and(others.1).map_err(panicked)
}

/// Ends abandoned uploads, now and then.
async fn keep_house(store: Store, age: Duration, stop: CancellationToken) {
    loop {
        match store.abort_old_uploads(age).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "ended uploads that were neither completed nor aborted"),
            Err(error) => tracing::warn!(%error, "cannot end abandoned uploads; trying again in an hour"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(HOUSEKEEPING) => {}
        }
    }
}
