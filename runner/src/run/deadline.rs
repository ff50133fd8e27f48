//! When everything must be written: set once, by the first signal that asks for an end, whenever it comes.

use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// No hurry, until it is set. Clones share it.
#[derive(Clone, Debug)]
pub struct Deadline(watch::Sender<Option<Instant>>);

impl Default for Deadline {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Deadline {
    /// Sets it, unless it is set already; whether it was this call that did.
    pub fn set(&self, after: Duration) -> bool {
        self.0.send_if_modified(|deadline| {
            let first = deadline.is_none();
            deadline.get_or_insert_with(|| Instant::now() + after);
            first
        })
    }

    /// Does the work, or gives it up when the time is over.
    pub async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.passed() => None,
        }
    }

    async fn passed(&self) {
        let mut deadline = self.0.subscribe();
        // The sender lives as long as `self`, so there is always a value.
        let at = deadline.wait_for(Option::is_some).await.ok().and_then(|at| *at);
        match at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}
