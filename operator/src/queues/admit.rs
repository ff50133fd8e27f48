//! The loop: while this replica leads, take in what has changed, pass, and wake whom it concerns.

use cultivar_core::decide::queue::Id;
use jiff::Timestamp;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Queues, id, locked, status};
use crate::act::Calls;
use crate::control::wakeups::Wakeups;
use crate::leader::{self, Claim};
use crate::observe::{Index, Key, Kind};
use crate::telemetry::Metrics;
use crate::telemetry::health::Heartbeat;

/// How long news are gathered before a pass: those of one event come together.
const GATHER: Duration = Duration::from_millis(1);
/// How often the status of Queues is looked at.
const STATUS: Duration = Duration::from_secs(1);
/// How often places are counted.
const PLACES: Duration = Duration::from_secs(10);
/// Longest that nobody is admitted because other pods are looked through, after a Queue has listed something new.
const COUNTING: Duration = Duration::from_secs(2);
/// Longest that a new leader waits until every experiment has asked: who asks first must not get more for it.
const FIRST_ROUND: Duration = Duration::from_secs(10);

/// What the loop works with.
pub struct Loop {
    pub queues: Arc<Queues>,
    pub index: Arc<Index>,
    pub wakeups: Arc<Wakeups>,
    pub calls: Calls,
    pub metrics: Metrics,
}

/// Works until it is told to stop.
pub async fn run(
    work: Loop,
    mut claim: watch::Receiver<Claim>,
    beat: Heartbeat,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
            () = leader::acquired(&mut claim) => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                beat.beat();
                // A new leader looks at everything that has Jobs.
                locked(&work.queues.touched).clear();
                continue;
            }
        }
        // What was asked of a former leadership of this replica is asked anew.
        work.forget_asks();
        let mut lost = claim.clone();
        let mut lost = std::pin::pin!(leader::lost(&mut lost));
        let first_round = Instant::now();
        let (mut status_at, mut places_at) = (Instant::now() + STATUS, Instant::now() + PLACES);
        let mut wake: Option<Instant> = None;
        loop {
            beat.beat();
            let next = wake.into_iter().fold(status_at.min(places_at), Instant::min);
            tokio::select! {
                () = stop.cancelled() => break,
                () = &mut lost => break,
                () = work.queues.news.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep_until(next.into()) => {}
            }
            let settling = first_round.elapsed() < Duration::from_millis(200) || work.wakeups.len() > 0;
            let counting = work.queues.counting().is_some_and(|passed| passed < COUNTING);
            if counting || settling && first_round.elapsed() < FIRST_ROUND {
                tokio::time::sleep(Duration::from_millis(20)).await;
                work.queues.news.notify_one();
                continue;
            }
            wake = work.pass();
            if places_at <= Instant::now() {
                places_at = Instant::now() + PLACES;
                work.count_places();
            }
            if status_at <= Instant::now() {
                status::write(&work.queues, &work.calls).await;
                status_at = Instant::now() + STATUS;
            }
        }
    }
    Ok(())
}

impl Loop {
    fn forget_asks(&self) {
        let now = Timestamp::now();
        let mut engine = locked(&self.queues.engine);
        let ids: Vec<_> = engine.known().cloned().collect();
        ids.iter().for_each(|id| engine.withdraw(id, now));
        drop(engine);
        ids.iter().for_each(|id| self.queues.touch(&id.namespace, &id.name));
        // Also whoever has asked this leadership already: the passes may have begun before this loop has.
        self.wake(ids);
        for (namespace, name) in self.index.experiments_with_jobs() {
            self.queues.touch(&namespace, &name);
        }
    }

    fn pass(&self) -> Option<Instant> {
        let touched = std::mem::take(&mut *locked(&self.queues.touched));
        let held: Vec<_> = touched
            .into_iter()
            .map(|(namespace, name)| Key { kind: Kind::Experiment, namespace, name })
            .map(|key| (id(&key), self.index.held(&key)))
            .collect();
        let now = Timestamp::now();
        let mut engine = locked(&self.queues.engine);
        for (id, (exists, held)) in held {
            if !exists {
                engine.withdraw(&id, now);
            }
            engine.set_holds(&id, held.bearer, held.holds, now);
        }
        let outcome = engine.pass(now);
        // Whoever starts, or must make room, does not stand behind thousands that are told why they wait.
        let moves = |id: &Id| engine.admission(id).is_some() || engine.eviction(id).is_some();
        let (first, others): (Vec<Id>, Vec<Id>) = outcome.changed.into_iter().partition(moves);
        drop(engine);
        for (queue, waited) in &outcome.admitted {
            self.metrics.queues().admitted(queue, *waited);
        }
        outcome.evicted.iter().for_each(|queue| self.metrics.queues().evicted(queue));
        first.iter().for_each(|id| self.index.look_at_first(&experiment(id)));
        self.wake(others);
        outcome
            .wake_at
            .map(|moment| Instant::now() + Duration::try_from(moment.duration_since(now)).unwrap_or_default())
    }

    fn count_places(&self) {
        let outcome = locked(&self.queues.engine).count_places(Timestamp::now());
        self.wake(outcome.changed);
    }

    fn wake(&self, ids: impl IntoIterator<Item = Id>) {
        for id in ids {
            self.index.look_at(&experiment(&id));
        }
    }
}

fn experiment(id: &Id) -> Key {
    Key::new(Kind::Experiment, &id.namespace, &id.name)
}
