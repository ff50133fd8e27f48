//! The Cultivar operator.

mod act;
mod app;
mod control;
mod images;
mod leader;
mod observe;
mod queues;
mod settings;
mod shutdown;
mod telemetry;
mod webhook;

use std::process::ExitCode;
use std::time::Duration;

use settings::Settings;
use shutdown::Tasks;
use telemetry::Metrics;

// Of what is read little stays: with the system's allocator the holes between make most of the memory, and with huge pages a
// fifth of it is what nobody uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    webhook::install_crypto();
    let settings = match Settings::from_process() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("cultivar-operator: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = telemetry::logs::install(&settings) {
        eprintln!("cultivar-operator: {error}");
        return ExitCode::from(2);
    }
    match run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The work is waiting for answers. Handing tasks from thread to thread cost a sixth of the CPU, and brought nothing.
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| format!("no threads to run on: {error}"))?;
    let ended = runtime.block_on(serve(settings));
    // Blocking work that does not end must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve(settings: &Settings) -> Result<(), String> {
    let config = kube::Config::infer()
        .await
        .map_err(|error| format!("no cluster to talk to: {error}; run inside one, or set KUBECONFIG"))?;
    let client = kube::Client::try_from(config).map_err(|error| format!("the cluster's configuration: {error}"))?;
    let metrics = Metrics::new().map_err(|error| format!("metrics: {error}"))?;
    let mut tasks = Tasks::new();
    app::start(client, settings, metrics, &mut tasks);
    tasks.run().await.map_err(|error| error.to_string())
}
