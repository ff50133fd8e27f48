//! While the program runs: signals in, output out, until it has ended and nothing of it is left.

use super::after::{self, Facts};
use super::before::metrics_file;
use super::python::Installed;
use super::{Ended, Failure};
use crate::checkpoint::Saving;
use crate::logs::{LogInlet, Logs};
use crate::mlflow::{Endpoint, Upstream};
use crate::supervise::{Child, Pumps, Signalled, Signals, Tee};
use cultivar_protocol::RunSpec;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const TRACKING_URI: &str = "MLFLOW_TRACKING_URI";

/// Runs the program to its end.
pub async fn program(spec: &RunSpec, command: &[OsString], signals: &mut Signals, facts: &mut Facts) -> Ended {
    let mut environment = vec![
        ("CULTIVAR_OUTPUTS", OsString::from(&spec.outputs_dir)),
        (crate::log::METRICS_ENV, metrics_file(spec).into_os_string()),
    ];
    environment.extend(tracking(spec, facts).await);
    environment.extend(facts.python.iter().flat_map(Installed::environment));
    let (mut child, out, err) = match Child::start(command, environment, &[cultivar_protocol::SPEC_ENV]) {
        Ok(started) => started,
        Err(error) => return Ended::Failed(Failure::runner(error.to_string())),
    };
    let tee = Arc::new(Tee::new(log(spec, facts)));
    facts.tee = Some(Arc::clone(&tee));
    let pumps = match Pumps::start(out, err, &tee) {
        Ok(pumps) => pumps,
        Err(error) => {
            child.clear();
            return Ended::Failed(Failure::runner(format!("cannot carry the program's output: {error}")));
        }
    };
    if spec.worker > 0 {
        // The first saves for all.
    } else if let (Some(checkpoint), Some(store)) = (&spec.checkpoint, &facts.store) {
        facts.saving = Some(Saving::start(spec, checkpoint, store, &facts.mover));
    } else if spec.checkpoint.is_some() {
        facts.problems.push("the checkpoint is not saved: there is no artifact store".into());
    }
    let code = wait(spec, &mut child, signals, facts).await;
    child.clear();
    if !pumps.finish() {
        // Its output may never end, so neither may the log.
        facts.deadline.set(Duration::from_secs(10));
        facts
            .problems
            .push("a process that cannot be killed keeps the output open; its last lines may be missing".into());
    }
    facts.tail = Some(tee.tail());
    // With the last holder of the tee the log's inlet closes, and the log can end.
    facts.tee = None;
    Ended::Program(code)
}

// A server that the user has set is handed every call; what cannot be handed on goes where it would go without us.
async fn tracking(spec: &RunSpec, facts: &mut Facts) -> Vec<(&'static str, OsString)> {
    let upstream = match std::env::var_os(TRACKING_URI) {
        None => None,
        // Whoever sets nothing wants nothing of it.
        Some(uri) if uri.is_empty() => return Vec::new(),
        Some(uri) => match Upstream::read(&uri.to_string_lossy(), |name| std::env::var(name).ok()) {
            Ok(upstream) => Some(upstream),
            Err(why) => {
                let text = format!("what MLflow logs goes to {TRACKING_URI} only, and is not in this record: {why}");
                facts.problems.push(text);
                return Vec::new();
            }
        },
    };
    match Endpoint::start(spec, &metrics_file(spec), upstream).await {
        Ok(endpoint) => facts.mlflow.insert(endpoint).environment().into_iter().chain(past_the_proxy()).collect(),
        Err(error) => {
            facts.problems.push(format!("there is no local MLflow endpoint: {error}"));
            Vec::new()
        }
    }
}

// A proxy that the image or the pod names would be asked for 127.0.0.1 too, by Python's clients.
fn past_the_proxy() -> Vec<(&'static str, OsString)> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if !["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].iter().any(|name| set(name).is_some()) {
        return Vec::new();
    }
    let past =
        set("no_proxy").or_else(|| set("NO_PROXY")).map_or("127.0.0.1".to_owned(), |old| format!("{old},127.0.0.1"));
    vec![("no_proxy", past.clone().into()), ("NO_PROXY", past.into())]
}

fn log(spec: &RunSpec, facts: &mut Facts) -> Option<LogInlet> {
    let store = facts.store.as_ref()?;
    match Logs::start(spec, store, &facts.mover) {
        Ok((logs, inlet)) => {
            facts.logs = Some(logs);
            Some(inlet)
        }
        Err(error) => {
            facts.problems.push(format!("the log is not kept: its spool in {} cannot be made: {error}", spec.run_dir));
            None
        }
    }
}

async fn wait(spec: &RunSpec, child: &mut Child, signals: &mut Signals, facts: &mut Facts) -> i32 {
    let grace = super::grace(spec);
    let mut flush_at: Option<Instant> = None;
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signalled::Forward(signal) => {
                    child.signal(signal);
                    if signal == Signal::SIGTERM && facts.deadline.set(super::hurry(spec)) {
                        // What the runner writes at the end needs a part of the time: a third, at most ten seconds.
                        flush_at = Some(Instant::now() + grace - (grace / 3).min(Duration::from_secs(10)));
                    }
                }
                Signalled::Child => if let Some(code) = child.reap() {
                    return code;
                }
            },
            () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => {
                // The program does not stop by itself; SIGKILL is near, and takes the runner too.
                flush_at = None;
                after::flush(spec, facts).await;
            }
        }
    }
}
