//! Two keepers over a year: the leader makes and rotates, the follower reads, and the API server accepts both
//! throughout.

use std::sync::{Arc, Mutex};

use jiff::SignedDuration;

use super::super::secret::CaBundles;
use super::*;

#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    secret: Option<Secret>,
    version: u64,
    bundles: Option<CaBundles>,
    writes: usize,
}

impl Store for Server {
    async fn secret(&self) -> Result<Option<Secret>, StoreError> {
        Ok(self.0.lock().unwrap().secret.clone())
    }

    async fn write_secret(&self, mut secret: Secret) -> Result<(), StoreError> {
        let mut state = self.0.lock().unwrap();
        let current = state.secret.as_ref().and_then(|secret| secret.metadata.resource_version.clone());
        if current != secret.metadata.resource_version {
            return Err(StoreError::Conflict("the Secret"));
        }
        state.version += 1;
        state.writes += 1;
        secret.metadata.resource_version = Some(state.version.to_string());
        state.secret = Some(secret);
        Ok(())
    }

    async fn ca_bundles(&self) -> Result<Option<CaBundles>, StoreError> {
        Ok(self.0.lock().unwrap().bundles.clone())
    }

    async fn set_ca_bundles(&self, bundles: CaBundles) -> Result<(), StoreError> {
        let mut state = self.0.lock().unwrap();
        state.writes += 1;
        state.bundles.get_or_insert_default().extend(bundles);
        Ok(())
    }
}

impl Server {
    fn with_webhook() -> Self {
        let server = Self::default();
        server.0.lock().unwrap().bundles = Some([("validate.cultivar.dev".to_owned(), String::new())].into());
        server
    }

    fn contents(&self) -> Contents {
        contents(self.0.lock().unwrap().secret.as_ref().expect("there is a Secret")).unwrap()
    }

    fn bundle(&self) -> String {
        self.0.lock().unwrap().bundles.as_ref().unwrap()["validate.cultivar.dev"].clone()
    }

    fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }
}

fn keeper(server: &Server, claim: Claim) -> Keeper<Server> {
    let names = vec!["op.ns.svc".to_owned(), "127.0.0.1".to_owned()];
    Keeper::new(server.clone(), Live::default(), names, watch::channel(claim).1)
}

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

#[tokio::test]
async fn only_the_leader_writes_and_a_second_look_writes_nothing() {
    let server = Server::with_webhook();
    let mut follower = keeper(&server, Claim::NONE);
    follower.turn(start()).await.unwrap();
    assert!(!follower.live.is_set() && server.writes() == 0);

    let mut leader = keeper(&server, Claim::ALWAYS);
    leader.turn(start()).await.unwrap();
    assert_eq!(server.writes(), 2, "the Secret and the caBundle");
    assert_eq!(server.bundle(), server.contents().bundle());
    leader.turn(start()).await.unwrap();
    assert_eq!(server.writes(), 2);
    follower.turn(start()).await.unwrap();
    assert!(follower.live.is_set() && leader.live.is_set());
}

#[tokio::test]
async fn a_caller_accepts_every_replica_through_a_year_of_rotation() {
    let server = Server::with_webhook();
    let (mut leader, mut follower) = (keeper(&server, Claim::ALWAYS), keeper(&server, Claim::NONE));
    let (mut now, end) = (start(), start() + SignedDuration::from_hours(24 * 400));
    leader.turn(now).await.unwrap();
    let mut served = server.contents();
    let first = served.authorities.clone();
    let mut most = 0;
    while now < end {
        // The caBundle of now must accept what a replica that has not looked since the last turn still serves.
        let mut client = served.clone();
        client.authorities = super::super::secret::certificates(&server.bundle()).unwrap();
        client.verify(now).unwrap_or_else(|error| panic!("{now}: {error}"));
        served = server.contents();
        client.leaf.clone_from(&served.leaf);
        client.leaf_key.clone_from(&served.leaf_key);
        client.verify(now).unwrap_or_else(|error| panic!("{now}: {error}"));
        most = most.max(served.authorities.len());
        // Four times a day, and once a minute while something goes on.
        let busy = served.authorities.len() > 1 && served.record.leaf.authority != served.record.authorities[0].name;
        now += if busy { SignedDuration::from_mins(1) } else { SignedDuration::from_hours(6) };
        leader.turn(now).await.unwrap();
        follower.turn(now).await.unwrap();
    }
    assert_eq!((most, served.authorities.len()), (2, 1));
    assert_ne!(served.authorities, first);
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_replaced_by_the_leader_alone() {
    let server = Server::with_webhook();
    let mut leader = keeper(&server, Claim::ALWAYS);
    leader.turn(start()).await.unwrap();
    let before = server.contents();
    server.0.lock().unwrap().secret.as_mut().unwrap().data.as_mut().unwrap().remove("tls.key");

    let mut follower = keeper(&server, Claim::NONE);
    let error = follower.turn(start()).await.unwrap_err().to_string();
    assert!(error.contains("tls.key"), "{error}");
    leader.turn(start()).await.unwrap();
    assert_ne!(server.contents().leaf, before.leaf);
    assert_eq!(server.bundle(), server.contents().bundle());
    follower.turn(start()).await.unwrap();
    assert!(follower.live.is_set());
}

#[tokio::test]
async fn a_configuration_that_lost_its_bundle_gets_it_back() {
    let server = Server::with_webhook();
    let mut leader = keeper(&server, Claim::ALWAYS);
    leader.turn(start()).await.unwrap();
    server.0.lock().unwrap().bundles = Some([("validate.cultivar.dev".to_owned(), String::new())].into());
    leader.turn(start()).await.unwrap();
    assert_eq!(server.bundle(), server.contents().bundle());
    // Without a configuration the certificate is kept all the same.
    server.0.lock().unwrap().bundles = None;
    leader.turn(start()).await.unwrap();
}
