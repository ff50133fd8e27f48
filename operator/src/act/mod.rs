//! Acting: actions in order, each with a time limit and safe to repeat; then one status write, if it differs.
//!
//! Comes in: a plan. Goes out: API calls, their answers put into the index at once, and when to look again.
//! The operator's rights (charts/cultivar/templates) are the list of the calls in [`calls`].

mod actions;
mod calls;
mod errands;
mod error;
mod kinds;
mod notes;
mod ours;
mod pace;
mod stores;

pub use calls::Calls;
pub use error::ActError;
pub use kinds::Managed;
pub use pace::WriteLimit;
pub use stores::Stores;

use self::pace::Pace;
use cultivar_core::decide::{Action, Event, Plan, Urgency};
use cultivar_core::domain::{Meta, Record};
use futures::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;

use self::errands::Running;
use self::notes::Notes;
use crate::images::Images;
use crate::leader::random;
use crate::observe::raw::Raw;
use crate::observe::{Index, Key, Kind, Turn};
use crate::queues::Queues;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Outcome;

/// Longest wait before a status is decided again whose write failed.
const RETRY: Duration = Duration::from_secs(1);
/// Status writes of progress, and events, that are under way at a time. More of them would not be answered earlier, only
/// later than what starts and ends things; and with an API server that is busy none of them in time.
const BESIDE: usize = 32;
/// The same, of statuses that others look at: they do not stand behind those of a thousand that wait.
const BESIDE_URGENT: usize = 16;
/// Stages of a run that are created side by side.
const SIDE_BY_SIDE: usize = 8;

/// What a pass came to.
#[derive(Debug, Default)]
pub struct Done {
    /// When to look again if nothing happens.
    pub wake_at: Option<Instant>,
    /// Whether a write has to end first, which brings the next pass.
    pub waits_for_write: bool,
}

/// Carries out plans.
pub struct Act {
    calls: Calls,
    index: Arc<Index>,
    metrics: Metrics,
    stores: Stores,
    images: Images,
    queues: Arc<Queues>,
    pace: Pace,
    running: Running,
    notes: Notes,
    // Status writes and events under way: nothing waits for them but the end of the leadership.
    beside: TaskTracker,
    room: Semaphore,
    room_urgent: Semaphore,
}

impl Act {
    pub fn new(
        calls: Calls,
        index: Arc<Index>,
        metrics: Metrics,
        stores: Stores,
        images: Images,
        queues: Arc<Queues>,
    ) -> Arc<Self> {
        Arc::new(Self {
            calls,
            index,
            metrics,
            stores,
            images,
            queues,
            pace: Pace::default(),
            running: Running::default(),
            notes: Notes::default(),
            beside: TaskTracker::new(),
            room: Semaphore::new(BESIDE),
            room_urgent: Semaphore::new(BESIDE_URGENT),
        })
    }

    /// What a new leader sees to before anything else: the store's pod waits for its root key.
    pub async fn prepare(&self) {
        if let Err(error) = self.stores.prepare(&self.calls).await {
            tracing::warn!(%error, "the root key of the artifact store is not there yet; it is made with the first experiment");
        }
    }

    /// Returns when everything that goes on beside the passes has ended.
    pub async fn settled(&self) {
        self.break_off().await;
        self.beside.close();
        self.beside.wait().await;
        self.beside.reopen();
    }

    /// Carries out a plan about the object `key`, decided on `stored`.
    pub async fn carry_out<S: Managed>(
        self: &Arc<Self>,
        key: &Key,
        stored: &Arc<Record<S>>,
        plan: Plan<S>,
    ) -> Result<Done, ActError> {
        if plan.urgency == Urgency::First && plan.status != *stored.status {
            // What follows starts from what was stored: the end of the write wakes the object again.
            if self.index.begin_write(key) {
                // What was decided before and is not stored yet must not outlive this: it would be gone on from.
                self.index.forget(key);
                self.tell(key, stored, plan.events);
                self.store(key, &stored.meta, &plan.status, None).await;
                self.index.look_at(key);
            }
            // The end of the write, this one or the one under way, brings the next pass.
            return Ok(Done { waits_for_write: true, ..Done::default() });
        }
        if let Err(error) = self.perform_all(key, stored, plan.actions).await {
            self.index.forget(key);
            return Err(error);
        }
        if plan.urgency == Urgency::Later && plan.status != *stored.status {
            let turn = || self.pace.turn_in_a_crowd(Instant::now() + S::SHARE_WRITES, Instant::now());
            // It is not even remembered until then.
            if let Some(turn) = self.index.later(key, &turn).filter(|turn| *turn > Instant::now()) {
                return Ok(Done { wake_at: Some(turn), ..Done::default() });
            }
        }
        self.index.publish(key, &stored.meta.uid, &plan.status, plan.urgency > Urgency::Soon);
        self.tell(key, stored, plan.events);
        Ok(self.store_when_due(key, stored, &plan.status, plan.urgency))
    }

    // The answers to our own calls are news like those of the watches.
    fn take_in(&self, kind: Kind, object: Raw) {
        if let Err(error) = self.index.take_in(kind, object) {
            tracing::error!(%error, "the API server's answer cannot be read");
        }
    }

    // Actions that are alike and follow one another are done side by side, the rest in order.
    async fn perform_all<S>(
        self: &Arc<Self>,
        key: &Key,
        about: &Record<S>,
        actions: Vec<Action>,
    ) -> Result<(), ActError> {
        let (stages, others): (Vec<_>, Vec<_>) =
            actions.into_iter().partition(|action| matches!(action, Action::CreateStage(_) | Action::CreateNested(_)));
        for action in others {
            self.perform_one(key, about, action).await?;
        }
        let creating = stages.into_iter().map(|stage| self.perform_one(key, about, stage));
        // All are tried, so that one refused stage does not hold up its siblings.
        let results: Vec<_> = futures::stream::iter(creating).buffer_unordered(SIDE_BY_SIDE).collect().await;
        results.into_iter().collect()
    }

    async fn perform_one<S>(self: &Arc<Self>, key: &Key, about: &Record<S>, action: Action) -> Result<(), ActError> {
        let name = action.name();
        self.perform(key, about, action).await.map_err(|error| error.during(name))
    }

    fn tell<S: Managed>(self: &Arc<Self>, key: &Key, about: &Arc<Record<S>>, events: Vec<Event>) {
        for event in events {
            let (act, key, about) = (Arc::clone(self), key.clone(), Arc::clone(about));
            self.beside.spawn(async move {
                // Closed never: it lives as long as this task.
                let _room = act.room.acquire().await;
                // An event that cannot be written is no reason to do the work again.
                if let Err(error) = Box::pin(act.calls.event(&key, &about.meta, &event)).await {
                    tracing::debug!(%error, "an event could not be written");
                }
            });
        }
    }

    // The write goes on beside: what the object does next does not wait for its record.
    fn store_when_due<S: Managed>(
        self: &Arc<Self>,
        key: &Key,
        stored: &Record<S>,
        status: &S,
        urgency: Urgency,
    ) -> Done {
        if *status == *stored.status {
            return Done::default();
        }
        let settle = |since, urgent| match urgent {
            true => since + S::AFTER_WHAT_FOLLOWS,
            // It has had its turn.
            false if urgency == Urgency::Later => since,
            false => self.pace.turn(since + S::SHARE_WRITES, Instant::now()),
        };
        let urgent = urgency > Urgency::Soon;
        let due = self.index.due(key, &settle);
        if let Some(due) = due.filter(|due| *due > Instant::now()) {
            return Done { wake_at: Some(due), ..Done::default() };
        }
        if self.index.ask_turn(key, &stored.meta.resource_version, urgent) {
            let (act, key) = (Arc::clone(self), key.clone());
            self.beside.spawn(async move {
                let room = if urgent { &act.room_urgent } else { &act.room };
                let room = room.acquire().await.ok();
                match act.index.take_turn::<S>(&key) {
                    // Boxed: thousands may wait for room.
                    Turn::Write(decided) => {
                        Box::pin(act.store(&key, &decided.meta, &*decided.status, room)).await;
                    }
                    Turn::DecideAgain => act.index.look_at(&key),
                    Turn::Nothing => {}
                }
            });
        }
        Done::default()
    }

    // Conditional on the version that the plan was decided on: whoever wrote meanwhile wins, and the
    // next pass decides again.
    async fn store<S: Managed>(&self, key: &Key, stored: &Meta, status: &S, room: Option<SemaphorePermit<'_>>) {
        let answer = self.calls.replace_status(key, stored, status).await;
        // What waits to be tried again takes nobody's place.
        drop(room);
        let more = match answer {
            Ok(object) => {
                // The answer is the truth, also where the API server wrote it differently (5.0 as 5).
                self.take_in(key.kind, object);
                self.index.end_write(key, Some(status))
            }
            Err(error) if error.is_gone() => return self.index.remove_if(key, &stored.uid),
            Err(error) => {
                let (kind, namespace, name) = (key.kind.as_str(), &key.namespace, &key.name);
                if error.outcome() == Outcome::Conflict {
                    tracing::debug!(kind, %namespace, %name, "the object changed before its status was stored; deciding again");
                } else {
                    tracing::warn!(kind, %namespace, %name, %error, "the status could not be stored; deciding again");
                    tokio::time::sleep(random::jitter(RETRY)).await;
                }
                self.index.end_write::<S>(key, None);
                true
            }
        };
        if more {
            self.index.look_at(key);
        }
    }
}
