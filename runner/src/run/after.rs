//! When the program has ended: collect, judge, tell.

use super::before::metrics_file;
use super::{Ended, Failure, say};
use crate::collect::termination::TerminationLog;
use crate::metrics;
use crate::supervise::{Signals, Tee};
use cultivar_protocol::{Reason, RunResult, RunSpec, fit, merge_reported};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use tokio::time::{Instant, timeout};

/// What is known of a run so far.
#[derive(Debug)]
pub struct Facts {
    /// The command as started.
    pub command: Vec<String>,
    /// When the runner started.
    pub started_at: jiff::Timestamp,
    /// What went wrong without failing the run.
    pub problems: Vec<String>,
    /// The end of the output.
    pub tee: Option<Arc<Tee>>,
    /// After SIGTERM: when everything must be written.
    pub deadline: Option<Instant>,
    /// The termination log.
    pub log: TerminationLog,
}

impl Facts {
    /// A run that has not begun.
    #[must_use]
    pub fn new(spec: &RunSpec, command: &[OsString]) -> Self {
        Self {
            command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            started_at: jiff::Timestamp::now(),
            problems: Vec::new(),
            tee: None,
            deadline: None,
            log: TerminationLog::at(&spec.termination_log),
        }
    }
}

/// Collects what the run left, tells of it, and keeps a failed run's container for a look if that was asked for.
pub async fn finish(spec: &RunSpec, mut facts: Facts, ended: Ended, signals: &mut Signals) -> i32 {
    let result = collect(spec, &mut facts, &ended).await;
    let code = tell(spec, facts, ended, Some(result)).await;
    if let (Some(keep), true) = (spec.keep_on_failure, code != 0) {
        say(&format!("the run failed with exit code {code}; its container stays for {keep}, or until it is deleted"));
        let _ = timeout(keep.0, signals.stop()).await;
    }
    code
}

/// Tells of what there is while the program still runs, because it may be killed at any moment.
pub async fn flush(spec: &RunSpec, facts: &mut Facts) {
    let ended = Ended::Program(128 + nix::sys::signal::Signal::SIGKILL as i32);
    let mut result = collect(spec, facts, &ended).await;
    result
        .problems
        .push("the program did not end by itself after SIGTERM; this was written before it was killed".into());
    write(&mut facts.log, &result);
}

async fn collect(spec: &RunSpec, facts: &mut Facts, ended: &Ended) -> RunResult {
    let mut result = RunResult::new();
    result.problems = facts.problems.clone();
    let (metrics, problems) = metrics::condense(&metrics_file(spec));
    result.metrics = metrics;
    result.problems.extend(problems);
    let reported = merge_reported(&facts.log.program(), &mut result);
    result.message = reported.text;
    if ended.code() != 0 {
        result.tail = facts.tee.as_ref().map(|tee| tee.tail()).filter(|tail| !tail.is_empty());
    }
    result
}

/// Writes the result, and comes back with the exit code.
pub async fn tell(spec: &RunSpec, mut facts: Facts, ended: Ended, result: Option<RunResult>) -> i32 {
    let mut result = result.unwrap_or_else(RunResult::new);
    let ended = judge(spec, ended, &result);
    if let Ended::Failed(failure) = &ended {
        say(&failure.message);
        result.reason = Some(failure.reason);
        result.message = Some(match result.message.take() {
            Some(text) => format!("{failure}; the program wrote: {text}"),
            None => failure.message.clone(),
        });
    }
    write(&mut facts.log, &result);
    ended.code()
}

// A program that is content with itself must have left what it was to leave.
fn judge(spec: &RunSpec, ended: Ended, result: &RunResult) -> Ended {
    if ended != Ended::Program(0) {
        return ended;
    }
    let missing: Vec<&str> = spec
        .outputs
        .iter()
        .filter(|output| !output.optional && output.default.is_none())
        .filter(|output| !result.artifacts.iter().any(|artifact| artifact.name == output.name))
        .filter(|output| !output.path.as_ref().is_some_and(|path| Path::new(path).exists()))
        .map(|output| output.name.as_str())
        .collect();
    if missing.is_empty() {
        return ended;
    }
    Ended::Failed(Failure {
        reason: Reason::OutputMissing,
        message: format!(
            "the program ended well but left no {}; it must write the declared path, put it into $CULTIVAR_OUTPUTS or report it",
            missing.join(", ")
        ),
    })
}

fn write(log: &mut TerminationLog, result: &RunResult) {
    if let Err(error) = log.write(&fit(result, None)) {
        say(&format!("cannot write the result to the termination log: {error}; result: {}", fit(result, None)));
    }
}
