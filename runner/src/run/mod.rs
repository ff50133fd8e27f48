//! The order of things in a run: prepare, start, wait, collect, tell.

mod after;
mod before;
mod deadline;
mod during;
pub(crate) mod inputs;
mod python;
mod source;

use crate::supervise::{self, Signals};
use cultivar_protocol::{BadSpec, RUNNER_FAILED, Reason, RunSpec, SPEC_ENV, WORKER_ENV};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Why the runner ends a run, where it is not the program's own doing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For the operator.
    pub reason: Reason,
    /// For people: what, where, why, what to do.
    pub message: String,
}

impl Failure {
    /// A failure of the runner's own.
    pub fn runner(message: impl Into<String>) -> Self {
        Self { reason: Reason::RunnerError, message: message.into() }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The program did, with this exit code.
    Program(i32),
    /// It was stopped by this signal's number before the program had started.
    Stopped(i32),
    /// The runner failed it.
    Failed(Failure),
}

impl Ended {
    /// What the container ends with.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Program(code) => *code,
            Self::Stopped(signal) => 128 + signal,
            Self::Failed(_) => RUNNER_FAILED,
        }
    }
}

/// Runs a command as the environment says. Comes back with the exit code of the container.
#[must_use]
pub fn main(command: Vec<OsString>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .thread_stack_size(512 * 1024)
        .enable_all()
        .build();
    let code = match (runtime, spec()) {
        (Ok(runtime), Ok(spec)) => {
            let code = runtime.block_on(run(spec, command));
            runtime.shutdown_background();
            code
        }
        (Err(error), _) => early(&Failure::runner(format!("cannot start the runner's threads: {error}"))),
        (_, Err(error)) => early(&Failure::runner(error.to_string())),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(125))
}

/// The pod's grace period where the spec names none; Kubernetes' own default.
const GRACE: Duration = Duration::from_secs(30);

fn grace(spec: &RunSpec) -> Duration {
    spec.grace_period.map_or(GRACE, |span| span.0)
}

/// The part of the grace period within which everything must be written.
fn hurry(spec: &RunSpec) -> Duration {
    grace(spec).mul_f64(0.95)
}

fn spec() -> Result<RunSpec, BadSpec> {
    let mut spec = RunSpec::read(&std::env::var(SPEC_ENV).unwrap_or_default())?;
    if spec.workers.is_some() {
        // The controller of an Indexed Job sets it in every container.
        spec.worker = std::env::var(WORKER_ENV).ok().and_then(|index| index.parse().ok()).unwrap_or(0);
    }
    Ok(spec)
}

// A failure before there is a specification: where the result goes to is not known, so it goes to where it usually does.
fn early(failure: &Failure) -> i32 {
    let mut log = crate::collect::termination::TerminationLog::at("/dev/termination-log");
    let result = cultivar_protocol::RunResult {
        reason: Some(failure.reason),
        message: Some(failure.message.clone()),
        ..cultivar_protocol::RunResult::new()
    };
    say(&failure.message);
    if let Err(error) = log.write(&cultivar_protocol::fit(&result, None)) {
        say(&format!("cannot write /dev/termination-log: {error}"));
    }
    RUNNER_FAILED
}

async fn run(spec: RunSpec, command: Vec<OsString>) -> i32 {
    let mut facts = after::Facts::new(&spec, &command);
    let signals = Signals::listen().map_err(|error| Failure::runner(format!("cannot listen for signals: {error}")));
    if let Err(error) = supervise::prepare() {
        facts.problems.push(format!("orphans of the program cannot be waited for: {error}"));
    }
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(failure) => {
            return after::tell(&spec, facts, Ended::Failed(failure), cultivar_protocol::RunResult::new()).await;
        }
    };
    let ended = match before::prepare(&spec, &command, &mut signals, &mut facts).await {
        Ok(()) => during::program(&spec, &command, &mut signals, &mut facts).await,
        Err(ended) => ended,
    };
    after::finish(&spec, facts, ended, &mut signals).await
}

/// A line of the runner's own on stderr; said only when something went wrong.
pub(crate) fn say(text: &str) {
    // Nobody may be listening any more.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("cultivar-runner: {text}\n").as_bytes());
}
