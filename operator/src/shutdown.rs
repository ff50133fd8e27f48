//! How the operator stops, and how it notices that a part of it has.
//!
//! Comes in: SIGTERM, SIGINT, and every task by its name. Goes out: two tokens, cancelled one after the other, and
//! the process's verdict. [`Tasks::stop`] is for whatever acts on the cluster; [`Tasks::last`] is for what must
//! outlive that, above all the election: the Lease is given back only when nobody here writes any more, or a new
//! leader could act beside the old one. If the workers do not end in time the Lease is kept, and runs out by itself.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Time for everything to end after the first signal; a Pod's grace period is 30 s.
pub const GRACE: Duration = Duration::from_secs(10);
/// What of [`GRACE`] is kept for the tasks that end last.
const LAST_GRACE: Duration = Duration::from_secs(3);

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A task was done although nobody had asked it to stop.
    #[error("task {0:?} ended by itself; the operator cannot go on without it and exits to be started again")]
    Early(&'static str),
    /// A task gave up.
    #[error("task {0:?} failed: {1}; the operator exits to be started again")]
    Failed(&'static str, String),
    /// A task panicked: a bug of ours.
    #[error("task {0:?} panicked: {1}; this is a bug, please report it with the lines before this one")]
    Panicked(&'static str, String),
    /// Tasks did not end within [`GRACE`].
    #[error("still running {GRACE:?} after the signal: {0}; exiting without them")]
    Late(String),
    /// The process cannot listen for signals.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] io::Error),
}

/// Every task of the process, by name. Whatever is spawned here is joined, or the process exits.
#[derive(Debug)]
pub struct Tasks {
    stop: CancellationToken,
    last: CancellationToken,
    workers: Group,
    closers: Group,
}

type Outcome = Result<(), String>;

#[derive(Debug, Default)]
struct Group {
    set: JoinSet<Outcome>,
    names: HashMap<Id, &'static str>,
}

impl Group {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = Outcome> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// The next task to end: its name and how it ended. Never returns while there is none.
    async fn next(&mut self) -> (&'static str, Result<Outcome, JoinError>) {
        match self.set.join_next_with_id().await {
            Some(Ok((id, outcome))) => (self.names.remove(&id).unwrap_or("?"), Ok(outcome)),
            Some(Err(error)) => (self.names.remove(&error.id()).unwrap_or("?"), Err(error)),
            None => std::future::pending().await,
        }
    }

    /// Joins what is left, until `deadline`.
    async fn drain(&mut self, deadline: Instant) -> Result<(), Ended> {
        let mut verdict = Ok(());
        while !self.set.is_empty() {
            let Ok((name, ended)) = timeout_at(deadline, self.next()).await else {
                let mut names: Vec<_> = self.names.values().copied().collect();
                names.sort_unstable();
                return Err(Ended::Late(names.join(", ")));
            };
            match judge(name, ended) {
                Ended::Early(name) => tracing::debug!(task = name, "task ended"),
                other => verdict = verdict.and(Err(other)),
            }
        }
        verdict
    }
}

fn judge(name: &'static str, ended: Result<Outcome, JoinError>) -> Ended {
    match ended {
        Ok(Ok(())) => Ended::Early(name),
        Ok(Err(why)) => Ended::Failed(name, why),
        Err(error) => Ended::Panicked(name, panic_text(error)),
    }
}

fn panic_text(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned()),
        Err(error) => error.to_string(),
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet, nothing stopped.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            last: CancellationToken::new(),
            workers: Group::default(),
            closers: Group::default(),
        }
    }

    /// Cancelled first: for whatever writes to the cluster, and whatever feeds it.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when every worker has ended: for the election and the HTTP servers.
    #[must_use]
    pub fn last(&self) -> CancellationToken {
        self.last.clone()
    }

    /// Starts a task that ends on [`Tasks::stop`] and not before.
    pub fn spawn<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.workers.spawn(name, async { task.await.map_err(|error| error.to_string()) });
    }

    /// Starts a task that ends on [`Tasks::last`] and not before.
    pub fn spawn_last<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.closers.spawn(name, async { task.await.map_err(|error| error.to_string()) });
    }

    /// Waits for a signal and stops in order. Call it once everything is spawned; main returns what it returns.
    ///
    /// # Errors
    /// When a task ended early, failed or panicked, or when something still ran after [`GRACE`].
    pub async fn run(self) -> Result<(), Ended> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let signals = async move {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        self.run_until(signals, GRACE).await
    }

    /// [`Tasks::run`] with the signal as an argument; `signal` gives its name.
    async fn run_until(mut self, signal: impl Future<Output = &'static str>, grace: Duration) -> Result<(), Ended> {
        let verdict = tokio::select! {
            name = signal => {
                tracing::info!(signal = name, "stopping");
                Ok(())
            }
            (name, ended) = self.workers.next() => Err(judge(name, ended)),
            (name, ended) = self.closers.next() => Err(judge(name, ended)),
        };
        if let Err(error) = &verdict {
            tracing::error!("{error}");
        }
        let now = Instant::now();
        self.stop.cancel();
        let workers = self.workers.drain(now + grace.saturating_sub(LAST_GRACE.min(grace / 3))).await;
        // A worker that did not end may still write. The Lease must not be given back under it.
        if matches!(workers, Err(Ended::Late(_))) {
            return verdict.and(workers).inspect_err(|error| tracing::error!("{error}"));
        }
        self.last.cancel();
        let closers = self.closers.drain(now + grace).await;
        let stopped = workers.and(closers).inspect_err(|error| tracing::error!("{error}"));
        tracing::info!(clean = stopped.is_ok(), "stopped");
        verdict.and(stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use super::*;

    fn now() -> std::future::Ready<&'static str> {
        std::future::ready("test")
    }

    #[tokio::test]
    async fn workers_end_before_the_last() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Tasks::new();
        let (stop, last) = (tasks.stop(), tasks.last());
        let (of_worker, of_last) = (order.clone(), order.clone());
        tasks.spawn("worker", async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            of_worker.lock().unwrap().push("worker");
            Ok::<_, Infallible>(())
        });
        tasks.spawn_last("lease", async move {
            last.cancelled().await;
            of_last.lock().unwrap().push("lease");
            Ok::<_, Infallible>(())
        });
        tasks.run_until(now(), GRACE).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["worker", "lease"]);
    }

    #[tokio::test]
    async fn a_task_that_ends_early_ends_the_process_with_an_error() {
        let mut tasks = Tasks::new();
        let stop = tasks.stop();
        tasks.spawn("watch", async { Ok::<_, Infallible>(()) });
        tasks.spawn("other", async move {
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        let error = tasks.run_until(std::future::pending(), GRACE).await.unwrap_err();
        assert!(matches!(error, Ended::Early("watch")), "{error}");
    }

    #[tokio::test]
    async fn a_panic_and_an_error_are_named() {
        let mut tasks = Tasks::new();
        tasks.spawn::<Infallible>("loop", async { panic!("index {}", 7) });
        let error = tasks.run_until(std::future::pending(), GRACE).await.unwrap_err().to_string();
        assert!(error.contains("\"loop\" panicked: index 7"), "{error}");

        let mut tasks = Tasks::new();
        tasks.spawn_last("http", async { Err("address in use") });
        let error = tasks.run_until(std::future::pending(), GRACE).await.unwrap_err().to_string();
        assert!(error.contains("\"http\" failed: address in use"), "{error}");
    }

    #[tokio::test]
    async fn while_a_worker_hangs_the_lease_is_kept() {
        let mut tasks = Tasks::new();
        let last = tasks.last();
        tasks.spawn::<Infallible>("hangs", std::future::pending());
        let error = tasks.run_until(now(), Duration::from_millis(60)).await.unwrap_err();
        assert!(error.to_string().contains("hangs"), "{error}");
        assert!(!last.is_cancelled());
    }
}
