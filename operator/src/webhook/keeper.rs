//! Keeps the webhook's certificate: every replica reads it, the leader makes it and tells the API server.
//!
//! Comes in: the Secret, the claim to lead, the time. Goes out: the certificate in use, and, from the leader alone, the
//! Secret and the caBundle. A failure is logged and tried again; what is in use stays in use.

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::certs::{CertsError, Contents, Plan, carry_out, plan};
use super::live::Live;
use super::secret::{Store, StoreError, contents, with_contents};
use crate::leader::random::jitter;
use crate::leader::{Claim, acquired};
use crate::telemetry::health::{Heartbeat, Synced};

/// Time between looks at the Secret. The waits of a rotation are longer (see [`super::certs`]).
const LOOK: Duration = Duration::from_secs(30);
/// Time between looks while there is nothing to serve.
const LOOK_FIRST: Duration = Duration::from_secs(1);
/// Time before the next try after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Limit of one API call.
const CALL: Duration = Duration::from_secs(5);
/// What one turn takes at most: five calls and the longest wait.
pub const TURN: Duration = Duration::from_secs(90);

/// Why a turn was not completed.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The cluster was not read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificates could not be read or made.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// No answer in time.
    #[error("no answer within {CALL:?}")]
    Late,
    /// The claim to lead ran out on the way.
    #[error("another replica leads now")]
    NotLeader,
}

/// The keeper of one replica.
pub struct Keeper<S> {
    store: S,
    live: Live,
    names: Vec<String>,
    claim: watch::Receiver<Claim>,
    /// A bundle, and since when the API server has been seen to trust exactly that.
    trusted: Option<(String, Timestamp)>,
    /// What was logged last, so that a lasting fault is logged once.
    complaint: String,
}

impl<S: Store> Keeper<S> {
    /// A keeper of a certificate for `names`.
    pub fn new(store: S, live: Live, mut names: Vec<String>, claim: watch::Receiver<Claim>) -> Self {
        names.sort();
        names.dedup();
        Self { store, live, names, claim, trusted: None, complaint: String::new() }
    }

    /// Looks after the certificate until `stop`. `synced` is set once there is one to serve.
    pub async fn run(mut self, synced: Synced, beat: Heartbeat, stop: CancellationToken) {
        loop {
            beat.beat();
            let leads = self.leads();
            let done = tokio::select! {
                done = self.turn(Timestamp::now()) => done,
                () = stop.cancelled() => return,
            };
            if self.live.is_set() {
                synced.set();
            }
            let pause = self.pause(done);
            let mut claim = self.claim.clone();
            let elected = async {
                if leads {
                    std::future::pending::<()>().await;
                }
                acquired(&mut claim).await;
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => (),
                () = elected => (),
                () = stop.cancelled() => return,
            }
        }
    }

    fn pause(&mut self, done: Result<(), KeeperError>) -> Duration {
        let fault = done.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if fault != self.complaint && !fault.is_empty() {
            tracing::warn!(serving = self.live.is_set(), "webhook certificate: {fault}");
        }
        self.complaint = fault;
        jitter(match done {
            _ if !self.live.is_set() => LOOK_FIRST,
            Ok(()) => LOOK,
            Err(_) => RETRY,
        })
    }

    fn leads(&self) -> bool {
        self.claim.borrow().holds(Instant::now())
    }

    /// Reads the Secret, serves what is in it and, as the leader, does the next thing to it.
    async fn turn(&mut self, now: Timestamp) -> Result<(), KeeperError> {
        let secret = call(self.store.secret()).await?;
        let found = secret.as_ref().map(contents).transpose();
        if let Ok(Some(contents)) = &found {
            self.serve(contents)?;
        }
        if !self.leads() {
            return found.map(drop).map_err(KeeperError::from);
        }
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "the webhook's Secret cannot be used; making a new certificate");
            None
        });
        self.tend(secret, found, now).await
    }

    fn serve(&self, contents: &Contents) -> Result<(), KeeperError> {
        if self.live.set(contents.serving()?) {
            let leaf = &contents.record.leaf;
            tracing::info!(names = leaf.names.join(","), expires = %leaf.expires, "serving a new webhook certificate");
        }
        Ok(())
    }

    /// The leader's part.
    async fn tend(
        &mut self,
        secret: Option<Secret>,
        found: Option<Contents>,
        now: Timestamp,
    ) -> Result<(), KeeperError> {
        let bundle = found.as_ref().map(Contents::bundle);
        let trusted_since = self.trusted.as_ref().filter(|(trusted, _)| Some(trusted) == bundle.as_ref());
        let step = plan(found.as_ref(), now, &self.names, trusted_since.map(|(_, since)| *since));
        let next = carry_out(step, found.as_ref(), now, &self.names)?;
        if let Some(next) = &next {
            self.may_write()?;
            call(self.store.write_secret(with_contents(secret, next)?)).await?;
            tracing::info!(step = explain(step), authorities = next.authorities.len(), "webhook certificate changed");
            self.serve(next)?;
        }
        match next.or(found) {
            Some(contents) => self.publish(contents.bundle(), now).await,
            None => Ok(()),
        }
    }

    /// Makes the API server trust `bundle`. Without a configuration nobody calls, so nobody has to trust anything.
    async fn publish(&mut self, bundle: String, now: Timestamp) -> Result<(), KeeperError> {
        let current = call(self.store.ca_bundles()).await?.unwrap_or_default();
        let wrong: Vec<String> = current.into_iter().filter(|(_, now)| *now != bundle).map(|(name, _)| name).collect();
        if !wrong.is_empty() {
            self.trusted = None;
            self.may_write()?;
            let webhooks = wrong.len();
            call(self.store.set_ca_bundles(wrong.into_iter().map(|name| (name, bundle.clone())).collect())).await?;
            tracing::info!(webhooks, "caBundle written");
        }
        if self.trusted.as_ref().is_none_or(|(trusted, _)| *trusted != bundle) {
            self.trusted = Some((bundle, now));
        }
        Ok(())
    }

    fn may_write(&self) -> Result<(), KeeperError> {
        if self.leads() { Ok(()) } else { Err(KeeperError::NotLeader) }
    }
}

const fn explain(plan: Plan) -> &'static str {
    match plan {
        Plan::Keep => "kept",
        Plan::IssueAll => "issued an authority and a certificate",
        Plan::IssueLeaf => "issued a certificate",
        Plan::AddAuthority => "added an authority",
        Plan::DropAuthorities => "dropped the old authority",
    }
}

async fn call<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, KeeperError> {
    timeout(CALL, call).await.map_err(|_| KeeperError::Late)?.map_err(KeeperError::from)
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
