//! The loop: while this replica leads, take keys from the queue and give each a pass.

use jiff::Timestamp;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::wakeups::Wakeups;
use super::{experiment, pipeline, pipeline_run, schedule};
use crate::act::{Act, ActError, Done};
use crate::leader::{self, Claim, random};
use crate::observe::{Index, Key, Kind};
use crate::queues::Queues;
use crate::telemetry::Metrics;
use crate::telemetry::health::Heartbeat;
use crate::telemetry::metrics::Outcome;

/// What every pass works with.
pub struct Context {
    pub index: Arc<Index>,
    pub queue: Arc<Wakeups>,
    pub act: Arc<Act>,
    pub queues: Arc<Queues>,
    pub metrics: Metrics,
    failures: Mutex<HashMap<Key, u32>>,
}

impl Context {
    pub fn new(index: Arc<Index>, queue: Arc<Wakeups>, act: Arc<Act>, queues: Arc<Queues>, metrics: Metrics) -> Self {
        Self { index, queue, act, queues, metrics, failures: Mutex::default() }
    }

    // Grows from a tenth of a second to half a minute, with jitter; forgotten at the first success.
    fn backoff(&self, key: &Key) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        let base = Duration::from_millis(100) * 2_u32.saturating_pow((*count - 1).min(9));
        random::jitter(base.min(Duration::from_secs(30)))
    }

    fn succeeded(&self, key: &Key) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Works until it is told to stop; passes that are under way are finished.
pub async fn run(
    context: Arc<Context>,
    mut claim: watch::Receiver<Claim>,
    concurrency: usize,
    beat: Heartbeat,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let slots = Arc::new(Semaphore::new(concurrency));
    let mut passes = JoinSet::new();
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
            () = leader::acquired(&mut claim) => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => { beat.beat(); continue; }
        }
        tracing::info!("leading: every object is looked at");
        context.act.prepare().await;
        context.index.wake_all();
        let mut lost = claim.clone();
        let mut lost = std::pin::pin!(leader::lost(&mut lost));
        loop {
            beat.beat();
            context.metrics.set_wakeups_queued(context.queue.len());
            let key = tokio::select! {
                () = stop.cancelled() => break,
                () = &mut lost => break,
                Some(ended) = passes.join_next(), if !passes.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a pass panicked: this is a bug, please report it; its object is looked at again at its next change");
                    }
                    continue;
                }
                () = tokio::time::sleep(Duration::from_secs(1)) => continue,
                key = context.queue.next() => key,
            };
            // Closed never: the semaphore lives as long as this loop.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            let context = Arc::clone(&context);
            passes.spawn(async move {
                let working = Working { queue: &context.queue, key: &key };
                pass(&context, &key).await;
                drop((working, slot));
            });
        }
        tracing::info!("no longer leading, or stopping");
        context.queue.close();
        while passes.join_next().await.is_some() {}
        context.act.settled().await;
    }
    Ok(())
}

/// Gives the key back when the pass is over, also when it panics.
struct Working<'a> {
    queue: &'a Wakeups,
    key: &'a Key,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.queue.done(self.key);
    }
}

async fn pass(context: &Context, key: &Key) {
    let begun = Instant::now();
    let result = match key.kind {
        Kind::Experiment => experiment::reconcile(context, key).await,
        Kind::PipelineRun => pipeline_run::reconcile(context, key).await,
        Kind::Pipeline => pipeline::reconcile(context, key).await,
        Kind::Schedule => schedule::reconcile(context, key).await,
    };
    let (outcome, wake) = match result {
        Ok(done) => {
            context.succeeded(key);
            (Outcome::Ok, done.wake_at)
        }
        Err(error) => {
            log(key, &error);
            (error.outcome(), Some(Instant::now() + context.backoff(key)))
        }
    };
    context.queue.set_timer(key, wake.map(Into::into));
    context.metrics.reconciled(key.kind.measured(), outcome, begun.elapsed());
}

fn log(key: &Key, error: &ActError) {
    let (kind, namespace, name) = (key.kind.as_str(), &key.namespace, &key.name);
    if error.outcome() == Outcome::Conflict {
        tracing::debug!(kind, %namespace, %name, %error, "somebody else wrote first; looking again");
    } else {
        tracing::warn!(kind, %namespace, %name, %error, "this pass failed; it is tried again");
    }
}

/// When to look again, from the plan's wish and from what waits to be stored.
pub fn wake_at(done: &Done, planned: Option<Timestamp>, now: Timestamp) -> Option<Instant> {
    let planned = planned.filter(|_| !done.waits_for_write).map(|moment| {
        let ahead = Duration::try_from(moment.duration_since(now)).unwrap_or(Duration::ZERO);
        Instant::now() + ahead
    });
    [planned, done.wake_at].into_iter().flatten().min()
}
