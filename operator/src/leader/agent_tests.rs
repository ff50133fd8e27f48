//! Two agents and one Lease, in real time but fast: a takeover after a release, after a death, and over a store that
//! loses answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::super::election::{Timing, holder};
use super::*;

/// An API server with one Lease. Every `lossy`-th answer is lost after the write has happened.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Lease>>>,
    version: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
    lossy: u64,
}

impl Server {
    fn store(&self, lease: &Lease) -> Lease {
        let mut lease = lease.clone();
        lease.metadata.resource_version = Some(self.version.fetch_add(1, Ordering::SeqCst).to_string());
        *self.lease.lock().unwrap() = Some(lease.clone());
        lease
    }

    async fn answer<T>(&self, value: T) -> T {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.lossy > 0 && call.is_multiple_of(self.lossy) {
            std::future::pending::<()>().await;
        }
        value
    }
}

impl LeaseStore for Server {
    async fn read(&self) -> Result<Option<Lease>, LeaseError> {
        let lease = self.lease.lock().unwrap().clone();
        Ok(self.answer(lease).await)
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, LeaseError> {
        if self.lease.lock().unwrap().is_some() {
            return Err(LeaseError::Conflict);
        }
        Ok(self.answer(self.store(lease)).await)
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, LeaseError> {
        let current = self.lease.lock().unwrap().as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if current.is_none() || current != lease.metadata.resource_version {
            return Err(LeaseError::Conflict);
        }
        Ok(self.answer(self.store(lease)).await)
    }
}

fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing { lease: ms(900), deadline: ms(600), renew: ms(100), poll: ms(60), retry: ms(30), call: ms(100) }
}

struct Running {
    claim: watch::Receiver<Claim>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(server: &Server, name: &str) -> Running {
    let (sender, claim) = watch::channel(Claim::NONE);
    let agent = Agent::new(server.clone(), Election::new(name.to_owned(), timing()));
    let stop = CancellationToken::new();
    let token = stop.clone();
    let task = tokio::spawn(async move { agent.run(&sender, token, || ()).await });
    Running { claim, stop, task }
}

async fn leads(running: &mut Running) {
    let wait = super::super::acquired(&mut running.claim);
    timeout(Duration::from_secs(20), wait).await.expect("becomes the leader");
}

#[tokio::test]
async fn a_release_hands_over_at_once() {
    let server = Server::default();
    let mut a = start(&server, "a");
    leads(&mut a).await;
    let mut b = start(&server, "b");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!b.claim.borrow().holds(Instant::now()));
    a.stop.cancel();
    a.task.await.unwrap();
    assert!(!a.claim.borrow().holds(Instant::now()));
    assert_eq!(server.lease.lock().unwrap().as_ref().and_then(holder), None);
    let since = Instant::now();
    leads(&mut b).await;
    assert!(since.elapsed() < Duration::from_millis(600), "well before the lease would have run out");
}

#[tokio::test]
async fn a_dead_leader_is_replaced_after_its_claim_is_over() {
    let server = Server::default();
    let mut a = start(&server, "a");
    leads(&mut a).await;
    let mut b = start(&server, "b");
    a.task.abort();
    leads(&mut b).await;
    assert!(!a.claim.borrow().holds(Instant::now()), "two leaders");
    assert_eq!(server.lease.lock().unwrap().as_ref().unwrap().spec.as_ref().unwrap().lease_transitions, Some(1));
}

#[tokio::test]
async fn lost_answers_cost_time_but_never_make_two() {
    let server = Server { lossy: 4, ..Server::default() };
    let mut running: Vec<_> = ["a", "b"].iter().map(|name| start(&server, name)).collect();
    let (mut led, end) = (0, Instant::now() + Duration::from_secs(2));
    while Instant::now() < end {
        let now = Instant::now();
        let leaders = running.iter().filter(|running| running.claim.borrow().holds(now)).count();
        assert!(leaders <= 1);
        led += leaders;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(led > 0, "nobody ever led");
    for running in running.drain(..) {
        running.stop.cancel();
        running.task.await.unwrap();
    }
}
