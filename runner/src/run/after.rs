//! When the program has ended: collect, judge, tell.

use super::before::metrics_file;
use super::deadline::Deadline;
use super::python::Installed;
use super::source::Fetched;
use super::{Ended, Failure, say};
use crate::checkpoint::Saving;
use crate::collect::environment;
use crate::collect::outputs::{self, Collected};
use crate::collect::record::{store_record, store_result};
use crate::collect::termination::TerminationLog;
use crate::collect::{series, tensorboard};
use crate::logs::Logs;
use crate::metrics;
use crate::mlflow::Endpoint;
use crate::supervise::{Signals, Tee};
use cultivar_data::{DataError, Mover, Store};
use cultivar_protocol::{
    InputUsed, MAX_TERMINATION_MESSAGE, PACKAGES, Reason, RunResult, RunSpec, fit, merge_reported,
};
use serde_json::Value;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::time::timeout;

/// What is known of a run so far.
#[derive(Debug)]
pub struct Facts {
    /// The command as started.
    pub command: Vec<String>,
    /// When the runner started.
    pub started_at: jiff::Timestamp,
    /// What went wrong without failing the run.
    pub problems: Vec<String>,
    /// What was fetched.
    pub inputs: Vec<InputUsed>,
    /// What is known of the code.
    pub source: Fetched,
    /// The Python packages that the code asked for.
    pub python: Option<Installed>,
    /// Sees the output while the program runs.
    pub tee: Option<Arc<Tee>>,
    /// The end of the output, when it has ended.
    pub tail: Option<String>,
    /// The log in the store.
    pub logs: Option<Logs>,
    /// The checkpoint that the run started from.
    pub restored: Option<String>,
    /// Saves checkpoints.
    pub saving: Option<Saving>,
    /// What the program told its local tracking server.
    pub mlflow: Option<Endpoint>,
    /// After SIGTERM: when everything must be written.
    pub deadline: Deadline,
    /// The termination log.
    pub log: TerminationLog,
    /// Where everything goes.
    pub store: Option<Store>,
    /// Moves it there.
    pub mover: Mover,
}

impl Facts {
    /// A run that has not begun.
    #[must_use]
    pub fn new(spec: &RunSpec, command: &[OsString]) -> Self {
        Self {
            command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            started_at: jiff::Timestamp::now(),
            problems: Vec::new(),
            inputs: Vec::new(),
            source: Fetched::default(),
            python: None,
            tee: None,
            tail: None,
            logs: None,
            restored: None,
            saving: None,
            mlflow: None,
            deadline: Deadline::default(),
            log: TerminationLog::at(&spec.termination_log),
            store: None,
            mover: Mover::default(),
        }
    }
}

/// Collects what the run left, tells of it, and keeps a failed run's container for a look if that was asked for.
pub async fn finish(spec: &RunSpec, facts: Facts, ended: Ended, signals: &mut Signals) -> i32 {
    let deadline = facts.deadline.clone();
    let work = conclude(spec, facts, ended);
    tokio::pin!(work);
    let code = loop {
        tokio::select! {
            code = &mut work => break code,
            // Stopped while it tells of its end: from here on there is a hurry.
            _ = signals.stop() => drop(deadline.set(super::hurry(spec))),
        }
    };
    if let (Some(keep), true) = (spec.keep_on_failure, code != 0) {
        say(&format!("the run failed with exit code {code}; its container stays for {keep}, or until it is deleted"));
        let _ = timeout(keep.0, signals.stop()).await;
    }
    code
}

async fn conclude(spec: &RunSpec, mut facts: Facts, mut ended: Ended) -> i32 {
    let mut result = gather(spec, &mut facts, &ended);
    if matches!(ended, Ended::Program(_)) {
        // First of all: it is what a preempted run cannot do without.
        if let Some(saving) = facts.saving.take() {
            let saved = facts.deadline.in_time(saving.finish()).await;
            let late = || Some("the grace period ended before the checkpoint was saved".to_owned());
            result.problems.extend(saved.unwrap_or_else(late));
        }
        // The first of several reports for all.
        if spec.worker == 0 {
            let collected = keep(spec, &facts, &mut result).await;
            ended = judge(ended, &collected);
            if collected.failed.as_ref().is_none_or(|error| !error.is_temporary()) {
                series(spec, &facts, &mut result).await;
            }
        }
        logs(&mut facts, &mut result).await;
        let python = facts.python.as_ref().map(|python| python.folder.clone());
        result.environment.extend(environment::collect(&facts.mover, python).await);
    }
    tell(spec, facts, ended, result).await
}

/// Tells of what there is while the program still runs, because it may be killed at any moment.
pub async fn flush(spec: &RunSpec, facts: &mut Facts) {
    let code = 128 + nix::sys::signal::Signal::SIGKILL as i32;
    if let Some(saving) = &facts.saving {
        let _ = facts.deadline.in_time(saving.now()).await;
    }
    let mut result = gather(spec, facts, &Ended::Program(code));
    result
        .problems
        .push("the program did not end by itself after SIGTERM; this was written before it was killed".into());
    // Once before and once after what may take too long.
    write(spec, facts, &result).await;
    if spec.worker > 0 {
        return;
    }
    keep(spec, facts, &mut result).await;
    let _ = record(spec, facts, code, &mut result).await;
    write(spec, facts, &result).await;
}

// What needs no store.
fn gather(spec: &RunSpec, facts: &mut Facts, ended: &Ended) -> RunResult {
    let mut result = RunResult::new();
    result.problems = facts.problems.clone();
    result.inputs = facts.inputs.clone();
    for input in spec.inputs.iter().filter(|input| input.digest.is_none()) {
        if facts.inputs.iter().any(|used| used.name == input.name && used.version.is_none()) {
            result.problems.push(format!("input {:?} is not pinned: its server names no version or ETag", input.name));
        }
    }
    result.environment.extend(facts.source.environment.clone());
    if let Some(python) = &facts.python {
        result.environment.insert("requirementsDigest".to_owned(), Value::String(python.digest.clone()));
        result.environment.insert("requirementsCache".to_owned(), Value::String(python.cached.words()));
    }
    result.source = facts.source.used.clone();
    if let Some(uri) = &facts.restored {
        result.environment.insert("restoredFrom".to_owned(), Value::String(uri.clone()));
    }
    result.problems.extend(tensorboard::collect(spec, facts.started_at.into()));
    // The program's own words last, so that they count where both have a name.
    for file in metrics_files(spec).iter().rev() {
        let (metrics, problems) = metrics::condense(file);
        result.metrics.extend(metrics);
        result.problems.extend(problems);
    }
    told(facts, &mut result);
    let reported = merge_reported(&facts.log.program(), &mut result);
    result.message = reported.text;
    if ended.code() != 0 {
        result.tail = facts.tee.as_ref().map(|tee| tee.tail()).or(facts.tail.clone()).filter(|tail| !tail.is_empty());
    }
    result
}

fn metrics_files(spec: &RunSpec) -> [PathBuf; 2] {
    [metrics_file(spec), tensorboard::scalars_file(spec)]
}

// The whole series; what stands in the result is condensed.
async fn series(spec: &RunSpec, facts: &Facts, result: &mut RunResult) {
    let Some(store) = facts.store.as_ref().filter(|_| !result.metrics.is_empty()) else { return };
    match facts.deadline.in_time(series::store(spec, metrics_files(spec).into(), store, &facts.mover)).await {
        Some(Ok(uri)) => {
            let uri = uri.map(|uri| ("metricSeries".to_owned(), Value::String(uri)));
            result.environment.extend(uri);
        }
        Some(Err(error)) => result.problems.push(format!("the series of metrics is not in the store: {error}")),
        None => result.problems.push("the grace period ended before the series of metrics was stored".to_owned()),
    }
}

fn told(facts: &Facts, result: &mut RunResult) {
    let Some(logged) = facts.mlflow.as_ref().map(Endpoint::logged) else { return };
    result.params = logged.params;
    result.problems.extend(logged.problems);
    if !logged.tags.is_empty() {
        result.environment.insert("tags".to_owned(), Value::Object(logged.tags.into_iter().collect()));
    }
    for (name, value) in [("trackingServer", logged.server), ("trackingRun", logged.run)] {
        result.environment.extend(value.map(|value| (name.to_owned(), Value::String(value))));
    }
    if !logged.datasets.is_empty() {
        result.environment.insert("datasets".to_owned(), Value::Array(logged.datasets));
    }
}

// What goes to the store.
async fn keep(spec: &RunSpec, facts: &Facts, result: &mut RunResult) -> Collected {
    let uploading = outputs::collect(spec, facts.store.as_ref(), &facts.mover, &result.artifacts);
    let mut collected = facts.deadline.in_time(uploading).await.unwrap_or_else(|| Collected {
        problems: vec!["the grace period ended before all outputs were uploaded".to_owned()],
        ..Collected::default()
    });
    result.problems.append(&mut collected.problems);
    // What the program reported stands after what was uploaded in the order of declaration.
    let reported = std::mem::replace(&mut result.artifacts, std::mem::take(&mut collected.artifacts));
    result.artifacts.extend(reported);
    collected
}

// The tee is gone by now, and with it the log's inlet.
async fn logs(facts: &mut Facts, result: &mut RunResult) {
    let Some(logs) = facts.logs.take() else { return };
    match facts.deadline.in_time(logs.finish()).await {
        Some((at, problems)) => {
            result.logs = at;
            result.problems.extend(problems);
        }
        None => result.problems.push("the grace period ended before the whole log was uploaded".to_owned()),
    }
}

// A program that is content with itself must have left what it was to leave, and it must be kept.
fn judge(ended: Ended, collected: &Collected) -> Ended {
    if ended != Ended::Program(0) {
        return ended;
    }
    if let Some(error) = &collected.failed {
        return Ended::Failed(unkept(error));
    }
    if collected.missing.is_empty() {
        return ended;
    }
    Ended::Failed(Failure {
        reason: Reason::OutputMissing,
        message: format!(
            "the program ended well but left no {}; it must write the declared path, put it into $CULTIVAR_OUTPUTS or report it",
            collected.missing.join(", ")
        ),
    })
}

fn unkept(error: &DataError) -> Failure {
    let reason = if error.is_temporary() { Reason::StoreUnavailable } else { Reason::RunnerError };
    Failure { reason, message: format!("the run's results were not kept: {error}") }
}

/// Records and writes the result, and comes back with the exit code.
pub async fn tell(spec: &RunSpec, mut facts: Facts, mut ended: Ended, mut result: RunResult) -> i32 {
    explain(&ended, &mut result);
    if matches!(&ended, Ended::Failed(failure) if failure.reason == Reason::StoreUnavailable) {
        // It was waited for once; what is left fits into the termination log or is cut.
        facts.store = None;
    }
    if let Err(error) = record(spec, &facts, ended.code(), &mut result).await {
        result.problems.push(format!("the record was not stored: {error}"));
        facts.store = None;
        if ended == Ended::Program(0) {
            ended = Ended::Failed(unkept(&error));
            explain(&ended, &mut result);
        }
    }
    if let Ended::Failed(failure) = &ended {
        say(&failure.message);
    }
    write(spec, &mut facts, &result).await;
    ended.code()
}

fn explain(ended: &Ended, result: &mut RunResult) {
    if let Ended::Failed(failure) = ended {
        result.reason = Some(failure.reason);
        result.message = Some(match result.message.take() {
            Some(text) => format!("{failure}; the program wrote: {text}"),
            None => failure.message.clone(),
        });
    }
}

async fn record(spec: &RunSpec, facts: &Facts, code: i32, result: &mut RunResult) -> Result<(), DataError> {
    let Some(store) = facts.store.as_ref().filter(|_| spec.worker == 0) else { return Ok(()) };
    let storing = store_record(spec, store, &facts.command, facts.started_at, code, result);
    match facts.deadline.in_time(storing).await {
        Some(Ok(at)) => result.record = Some(at),
        Some(Err(error)) => return Err(error),
        None => result.problems.push("the grace period ended before the record was stored".to_owned()),
    }
    Ok(())
}

async fn write(spec: &RunSpec, facts: &mut Facts, result: &RunResult) {
    // The record has the packages; here they would crowd out everything else.
    let mut result = result.clone();
    if result.record.is_some() {
        result.environment.remove(PACKAGES);
    }
    let result = &result;
    let mut text = fit(result, None);
    let whole = serde_json::to_string(result).map_or(usize::MAX, |text| text.len());
    if let (Some(store), true) = (&facts.store, whole > MAX_TERMINATION_MESSAGE && spec.worker == 0) {
        match facts.deadline.in_time(store_result(spec, store, result)).await {
            Some(Ok(at)) => text = fit(result, Some(at)),
            Some(Err(error)) => say(&format!("the whole result was not stored: {error}")),
            None => say("the grace period ended before the whole result was stored"),
        }
    }
    if let Err(error) = facts.log.write(&text) {
        say(&format!("cannot write the result to the termination log: {error}; result: {text}"));
    }
}
