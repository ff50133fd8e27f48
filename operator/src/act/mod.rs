//! Acting: actions in order, each with a time limit and safe to repeat; then one status write, if it differs.
//!
//! Comes in: a plan. Goes out: API calls, their answers put into the index at once, and when to look again.
//! The operator's rights (charts/cultivar/templates) are the list of the calls in [`calls`].

mod actions;
mod calls;
mod error;
mod kinds;

pub use calls::Calls;
pub use error::ActError;
pub use kinds::Managed;

use cultivar_core::decide::{Plan, Urgency};
use cultivar_core::domain::Record;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::observe::{Index, Key};
use crate::telemetry::Metrics;

/// How long progress may wait, so that changes shortly after one another share a write.
const SHARE_WRITES: Duration = Duration::from_secs(1);

/// What a pass came to.
#[derive(Debug, Default)]
pub struct Done {
    /// When to look again if nothing happens.
    pub wake_at: Option<Instant>,
}

/// Carries out plans.
pub struct Act {
    pub(super) calls: Calls,
    pub(super) index: Arc<Index>,
    pub(super) metrics: Metrics,
}

impl Act {
    pub fn new(calls: Calls, index: Arc<Index>, metrics: Metrics) -> Self {
        Self { calls, index, metrics }
    }

    /// Carries out a plan about the object `key`, decided on `stored`.
    pub async fn carry_out<S: Managed>(&self, key: &Key, stored: &Record<S>, plan: Plan<S>) -> Result<Done, ActError> {
        if plan.urgency == Urgency::First && plan.status != *stored.status {
            // What follows starts from what was stored: the answer wakes the object again.
            self.store(key, stored, &plan.status).await?;
            return Ok(Done::default());
        }
        for action in plan.actions {
            let name = action.name();
            if let Err(error) = self.perform(key, stored, action).await {
                self.index.forget(key);
                return Err(error.during(name));
            }
        }
        S::publish(&self.index, key, &stored.meta.uid, &plan.status);
        let events = plan.events;
        let mut done = Done::default();
        if plan.status != *stored.status {
            let due = match plan.urgency {
                Urgency::Soon => self.index.dirty_since(key).map_or_else(Instant::now, |since| since + SHARE_WRITES),
                Urgency::Now | Urgency::First => Instant::now(),
            };
            if due > Instant::now() {
                done.wake_at = Some(due);
            } else {
                self.store(key, stored, &plan.status).await?;
            }
        }
        for event in events {
            // An event that cannot be written is no reason to do the work again.
            if let Err(error) = self.calls.event(key, &stored.meta, &event).await {
                tracing::debug!(%error, "an event could not be written");
            }
        }
        Ok(done)
    }

    // Conditional on the version that the plan was decided on: whoever wrote meanwhile wins, and the
    // next pass decides again.
    async fn store<S: Managed>(&self, key: &Key, stored: &Record<S>, status: &S) -> Result<(), ActError> {
        match self.calls.replace_status(key, &stored.meta, status).await {
            Ok(object) => {
                // The answer is the truth, also where the API server wrote it differently (5.0 as 5).
                self.index.forget(key);
                S::apply(&self.index, object);
                Ok(())
            }
            Err(error) if error.is_gone() => Ok(()),
            Err(error) => {
                self.index.forget(key);
                Err(error.during("storing the status"))
            }
        }
    }
}
