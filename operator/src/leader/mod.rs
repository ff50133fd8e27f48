//! One leader among the replicas, by a Lease.
//!
//! Comes in: the settings, a client, and the token that says stop. Goes out: a [`Claim`] on a watch channel. Whoever
//! writes to the cluster asks it before each batch of writes: [`Claim::holds`] is false from the moment the last
//! renewal is too old, even if nobody had the time to say so. See [`election`] for why there are never two leaders.

mod agent;
pub mod election;
pub mod lease;
pub mod random;

use std::time::Instant;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::agent::Agent;
use self::election::{Election, Timing};
use self::lease::ClusterLease;
use crate::settings::LeaderSettings;

/// Whether this process may write, and until when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim(Term);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Term {
    #[default]
    None,
    Until(Instant),
    Always,
}

impl Claim {
    /// No claim: somebody else leads, or nobody.
    pub const NONE: Self = Self(Term::None);
    /// The claim of a process that is alone.
    pub const ALWAYS: Self = Self(Term::Always);

    /// A claim that ends by itself.
    #[must_use]
    pub const fn until(end: Instant) -> Self {
        Self(Term::Until(end))
    }

    /// Whether this process may write at `now`.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        match self.0 {
            Term::None => false,
            Term::Until(end) => now < end,
            Term::Always => true,
        }
    }
}

/// Returns once this process leads. A renewal changes the channel too; this is how not to care. Pending for good when
/// the election has ended without us.
pub async fn acquired(claim: &mut watch::Receiver<Claim>) {
    if claim.wait_for(|claim| claim.holds(Instant::now())).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Returns once this process does not lead any more, be it told so or because its time ran out.
pub async fn lost(claim: &mut watch::Receiver<Claim>) {
    loop {
        let term = claim.borrow_and_update().0;
        let over = async {
            match term {
                Term::Until(end) => tokio::time::sleep_until(end.into()).await,
                Term::None => (),
                Term::Always => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            changed = claim.changed() => if changed.is_err() { return },
        }
    }
}

/// The election of this process, not yet running.
pub struct Elector {
    /// None: alone.
    agent: Option<Agent<ClusterLease>>,
    claim: watch::Sender<Claim>,
}

impl Elector {
    /// The election, and the channel on which its outcome stands. Nothing is claimed before [`Elector::run`].
    #[must_use]
    pub fn new(client: Client, settings: &LeaderSettings) -> (Self, watch::Receiver<Claim>) {
        let (claim, receiver) = watch::channel(Claim::NONE);
        let agent = settings.elect.then(|| {
            let store = ClusterLease::new(client, &settings.namespace, &settings.lease);
            Agent::new(store, Election::new(settings.identity.clone(), Timing::default()))
        });
        (Self { agent, claim }, receiver)
    }

    /// Takes part until `stop`, then gives the Lease back; another replica takes it within two seconds. `stop` must
    /// come after everything that writes has ended (see [`crate::shutdown`]). `beat` is called at every turn.
    ///
    /// # Errors
    /// Never: an API server that does not answer is waited for. The type is that of a task.
    pub async fn run(self, stop: CancellationToken, beat: impl Fn() + Send) -> Result<(), std::convert::Infallible> {
        match self.agent {
            Some(agent) => agent.run(&self.claim, stop, beat).await,
            None => {
                self.claim.send_replace(Claim::ALWAYS);
                while tokio::time::timeout(Timing::default().renew, stop.cancelled()).await.is_err() {
                    beat();
                }
                self.claim.send_replace(Claim::NONE);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_claim_ends_by_itself() {
        let now = Instant::now();
        let claim = Claim::until(now + Duration::from_secs(10));
        assert!(claim.holds(now + Duration::from_millis(9_999)));
        assert!(!claim.holds(now + Duration::from_secs(10)));
        assert!(Claim::ALWAYS.holds(now) && !Claim::NONE.holds(now));
    }

    #[tokio::test]
    async fn a_claim_that_is_not_renewed_is_lost_without_a_word() {
        let (sender, mut claim) = watch::channel(Claim::NONE);
        sender.send_replace(Claim::until(Instant::now() + Duration::from_millis(30)));
        acquired(&mut claim).await;
        tokio::time::timeout(Duration::from_secs(5), lost(&mut claim)).await.expect("lost by time");
        sender.send_replace(Claim::ALWAYS);
        acquired(&mut claim).await;
        assert!(tokio::time::timeout(Duration::from_millis(20), lost(&mut claim)).await.is_err());
    }
}
