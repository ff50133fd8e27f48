//! The loop of the election: does what [`Election`] decides and says on the channel how it stands.
//!
//! Comes in: a store with the Lease, and the token that says stop. Goes out: the [`Claim`]. Every call has a limit,
//! every wait has jitter.

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Claim;
use super::election::{Election, Step};
use super::lease::{LeaseError, LeaseStore, held, released};
use super::random::jitter;

/// One process's part in the election, with the means to play it.
pub struct Agent<S> {
    store: S,
    election: Election,
    /// Whether the log says that we lead.
    leading: bool,
}

impl<S: LeaseStore> Agent<S> {
    pub const fn new(store: S, election: Election) -> Self {
        Self { store, election, leading: false }
    }

    /// Takes part until `stop`, then gives the Lease back.
    pub async fn run(mut self, claim: &watch::Sender<Claim>, stop: CancellationToken, beat: impl Fn()) {
        while !stop.is_cancelled() {
            beat();
            let pause = tokio::select! {
                pause = self.turn() => pause,
                () = stop.cancelled() => {
                    // A write may be under way, so nothing is certain.
                    self.election.failed();
                    break;
                }
            };
            self.publish(claim);
            tokio::select! {
                () = tokio::time::sleep(pause) => (),
                () = stop.cancelled() => (),
            }
        }
        self.election.resign();
        self.publish(claim);
        self.release().await;
    }

    /// One step, and how long to wait before the next.
    async fn turn(&mut self) -> Duration {
        let timing = self.election.timing();
        let step = self.election.decide(Instant::now());
        let outcome = match &step {
            Step::Follow(until) => {
                // Whoever leads may let go earlier, so look again; and never sleep past the end of its time.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                self.election.failed();
                return jitter(timing.poll).min(left);
            }
            Step::Read => self.read(timing.call).await,
            Step::Create => self.write(None).await,
            Step::Take(lease) | Step::Renew(lease) => self.write(Some(lease.as_ref())).await,
        };
        match (outcome, step) {
            (Ok(()), Step::Read) => Duration::ZERO,
            (Ok(()), _) => jitter(timing.renew),
            (Err(LeaseError::Conflict), _) => jitter(timing.retry / 10),
            (Err(error), _) => {
                tracing::warn!(%error, leading = self.leads(), "cannot reach the lease; trying again");
                jitter(timing.retry)
            }
        }
    }

    async fn read(&mut self, limit: Duration) -> Result<(), LeaseError> {
        let lease = within(limit, self.store.read()).await?;
        self.election.read(lease, Instant::now());
        Ok(())
    }

    async fn write(&mut self, previous: Option<&Lease>) -> Result<(), LeaseError> {
        let timing = self.election.timing();
        let lease = held(previous, self.election.me(), timing.lease, Timestamp::now());
        // Taken before the request leaves: others count from when they see it, which is later.
        let sent = Instant::now();
        let written = match previous {
            None => within(timing.call, self.store.create(&lease)).await,
            Some(_) => within(timing.call, self.store.replace(&lease)).await,
        };
        match written {
            Ok(lease) => self.election.wrote(lease, sent),
            Err(error) => {
                self.election.failed();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Empties the Lease if it is ours. A write whose answer was lost may have changed it, hence the second try.
    async fn release(&mut self) {
        let limit = self.election.timing().call / 3;
        for _ in 0..2 {
            if self.election.ours().is_none() && self.read(limit).await.is_err() {
                break;
            }
            let Some(lease) = self.election.ours() else { return };
            let empty = released(lease, Timestamp::now());
            match within(limit, self.store.replace(&empty)).await {
                Ok(_) => {
                    tracing::info!("lease given back");
                    return;
                }
                Err(_) => self.election.failed(),
            }
        }
        let length = self.election.timing().lease;
        tracing::warn!("the lease could not be given back; another replica takes it in {length:?}");
    }

    fn leads(&self) -> bool {
        self.election.until().is_some_and(|until| Instant::now() < until)
    }

    fn publish(&mut self, claim: &watch::Sender<Claim>) {
        let now = self.election.until().map_or(Claim::NONE, Claim::until);
        claim.send_if_modified(|before| std::mem::replace(before, now) != now);
        let leads = self.leads();
        if leads != self.leading {
            tracing::info!(identity = self.election.me(), leads, "leadership changed");
            self.leading = leads;
        }
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, LeaseError>>) -> Result<T, LeaseError> {
    timeout(limit, call).await.unwrap_or(Err(LeaseError::Late(limit)))
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
