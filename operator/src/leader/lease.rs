//! The Lease in the cluster: reading it, writing it, and what is written.
//!
//! Comes in: a Lease as it was, and who writes. Goes out: the Lease as the API server stored it, or why not. The trait
//! is what the election needs of an API server, so that tests can be one.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::election::holder;

/// Why the Lease was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else was faster; read it again.
    #[error("the lease was changed, created or deleted by somebody else")]
    Conflict,
    /// No answer in time; a write may have happened all the same.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// Anything else.
    #[error("{0}")]
    Api(String),
}

/// Where the Lease is kept.
pub trait LeaseStore: Send + Sync + 'static {
    /// The Lease, or `None` if there is none.
    fn read(&self) -> impl Future<Output = Result<Option<Lease>, LeaseError>> + Send;
    /// Creates it; a conflict if it is there.
    fn create(&self, lease: &Lease) -> impl Future<Output = Result<Lease, LeaseError>> + Send;
    /// Replaces the version it names; a conflict if that is not the current one, or there is none.
    fn replace(&self, lease: &Lease) -> impl Future<Output = Result<Lease, LeaseError>> + Send;
}

/// The Lease in a cluster. Needs the rights to create, get and update it.
#[derive(Clone)]
pub struct ClusterLease {
    api: Api<Lease>,
    name: String,
}

impl ClusterLease {
    /// The Lease of that name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }
}

impl LeaseStore for ClusterLease {
    async fn read(&self) -> Result<Option<Lease>, LeaseError> {
        self.api.get_opt(&self.name).await.map_err(LeaseError::from)
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, LeaseError> {
        let mut lease = lease.clone();
        lease.metadata.name = Some(self.name.clone());
        self.api.create(&PostParams::default(), &lease).await.map_err(LeaseError::from)
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, LeaseError> {
        // Without a version the API server would replace whatever is there.
        if lease.metadata.resource_version.is_none() {
            return Err(LeaseError::Conflict);
        }
        self.api.replace(&self.name, &PostParams::default(), lease).await.map_err(LeaseError::from)
    }
}

impl From<kube::Error> for LeaseError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() || status.is_not_found() => {
                Self::Conflict
            }
            other => Self::Api(other.to_string()),
        }
    }
}

/// The Lease with `me` as its holder: a new one, the same holder again, or a change of holders. What others added to
/// its metadata stays.
#[must_use]
pub fn held(previous: Option<&Lease>, me: &str, length: Duration, now: Timestamp) -> Lease {
    let before = previous.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let same = previous.and_then(holder) == Some(me);
    let changes = before.lease_transitions.unwrap_or(0);
    let changed = i32::from(previous.is_some() && !same);
    Lease {
        metadata: previous.map(|lease| lease.metadata.clone()).unwrap_or_else(new_metadata),
        spec: Some(LeaseSpec {
            holder_identity: Some(me.to_owned()),
            // Rounded up: others must not wait for less than is meant.
            lease_duration_seconds: i32::try_from(length.as_millis().div_ceil(1000)).ok(),
            acquire_time: before.acquire_time.filter(|_| same).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(changes.saturating_add(changed)),
            ..before
        }),
    }
}

/// The Lease without a holder: whoever reads it may take it at once.
#[must_use]
pub fn released(previous: &Lease, now: Timestamp) -> Lease {
    let mut lease = previous.clone();
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.renew_time = Some(MicroTime(now));
    lease
}

fn new_metadata() -> ObjectMeta {
    let labels = [("app.kubernetes.io/managed-by".to_owned(), "cultivar".to_owned())];
    ObjectMeta { labels: Some(labels.into()), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_count_changes_of_holder_only() {
        let (then, now) = (Timestamp::from_second(1_000).unwrap(), Timestamp::from_second(2_000).unwrap());
        let length = Duration::from_secs(15);
        let spec = |lease: &Lease| lease.spec.clone().unwrap();
        let first = held(None, "a", length, then);
        assert_eq!(spec(&first).lease_transitions, Some(0));
        let again = held(Some(&first), "a", length, now);
        assert_eq!((spec(&again).lease_transitions, spec(&again).acquire_time), (Some(0), Some(MicroTime(then))));
        let other = held(Some(&released(&again, now)), "b", length, now);
        assert_eq!((spec(&other).lease_transitions, spec(&other).acquire_time), (Some(1), Some(MicroTime(now))));
        assert_eq!(holder(&released(&other, now)), None);
    }
}
