//! The table of decisions, and a simulation of three processes that share a Lease over a bad network.

use k8s_openapi::api::coordination::v1::LeaseSpec;
use kube::api::ObjectMeta;

use super::*;

fn lease(holder: &str, version: u64) -> Lease {
    Lease {
        metadata: ObjectMeta { resource_version: Some(version.to_string()), ..Default::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..Default::default()
        }),
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn election() -> Election {
    Election::new("me".to_owned(), Timing::default())
}

#[test]
fn the_table() {
    let t0 = Instant::now();
    let boxed = |holder: &str, version| Box::new(lease(holder, version));
    // What was read, as (seconds, Lease); when to decide; what must come out.
    type Row = (&'static str, Vec<(u64, Option<Lease>)>, u64, Step);
    let rows: Vec<Row> = vec![
        ("nothing known", vec![], 0, Step::Read),
        ("free: there is no Lease", vec![(0, None)], 0, Step::Create),
        ("free: released", vec![(0, Some(lease("", 1)))], 0, Step::Take(boxed("", 1))),
        ("held, fresh", vec![(0, Some(lease("you", 1)))], 14, Step::Follow(t0 + secs(15))),
        ("held, expired", vec![(0, Some(lease("you", 1)))], 15, Step::Take(boxed("you", 1))),
        (
            "held and renewed: the time starts anew",
            vec![(0, Some(lease("you", 1))), (14, Some(lease("you", 2)))],
            20,
            Step::Follow(t0 + secs(29)),
        ),
        (
            "held and read again unchanged: it does not",
            vec![(0, Some(lease("you", 1))), (14, Some(lease("you", 1)))],
            15,
            Step::Take(boxed("you", 1)),
        ),
        (
            "deleted under its holder: wait as if it were there",
            vec![(0, Some(lease("you", 1))), (5, None)],
            6,
            Step::Follow(t0 + secs(15)),
        ),
        ("deleted, and the holder's time is over", vec![(0, Some(lease("you", 1))), (5, None)], 15, Step::Create),
        (
            "released while we waited",
            vec![(0, Some(lease("you", 1))), (2, Some(lease("", 2)))],
            2,
            Step::Take(boxed("", 2)),
        ),
        ("ours, after a lost answer", vec![(0, Some(lease("me", 1)))], 99, Step::Renew(boxed("me", 1))),
    ];
    for (name, reads, at, expected) in rows {
        let mut election = election();
        for (second, lease) in reads {
            election.read(lease, t0 + secs(second));
        }
        assert_eq!(election.decide(t0 + secs(at)), expected, "{name}");
        assert_eq!(election.until(), None, "{name}: nothing read makes a leader");
    }
}

#[test]
fn clocks_written_in_the_lease_do_not_matter() {
    let t0 = Instant::now();
    for years in [-50, 50] {
        let mut record = lease("you", 1);
        let time = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(years * 8766);
        record.spec.as_mut().unwrap().renew_time =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(time));
        let mut election = election();
        election.read(Some(record), t0);
        assert!(matches!(election.decide(t0 + secs(14)), Step::Follow(_)));
        assert!(matches!(election.decide(t0 + secs(15)), Step::Take(_)));
    }
}

#[test]
fn a_holder_with_a_longer_lease_gets_it_and_a_shorter_one_gets_ours() {
    let t0 = Instant::now();
    for (seconds, expected) in [(Some(60), 60), (Some(1), 15), (None, 15), (Some(-5), 15)] {
        let mut record = lease("you", 1);
        record.spec.as_mut().unwrap().lease_duration_seconds = seconds;
        let mut election = election();
        election.read(Some(record), t0);
        assert_eq!(election.decide(t0), Step::Follow(t0 + secs(expected)));
    }
}

#[test]
fn a_claim_counts_from_before_the_write_and_survives_a_lost_answer_only_until_its_end() {
    let t0 = Instant::now();
    let mut election = election();
    election.wrote(lease("me", 1), t0);
    assert_eq!(election.until(), Some(t0 + secs(10)));
    election.failed();
    assert_eq!(election.until(), Some(t0 + secs(10)));
    assert_eq!(election.decide(t0 + secs(4)), Step::Read);
    election.read(Some(lease("me", 2)), t0 + secs(4));
    assert_eq!(election.until(), Some(t0 + secs(10)), "reading our name is no new promise");
    assert_eq!(election.decide(t0 + secs(4)), Step::Renew(Box::new(lease("me", 2))));
}

#[test]
fn a_lease_that_is_not_ours_any_more_ends_the_claim_at_once() {
    let t0 = Instant::now();
    for read in [None, Some(lease("you", 2)), Some(lease("", 2))] {
        let mut election = election();
        election.wrote(lease("me", 1), t0);
        election.read(read, t0 + secs(1));
        assert_eq!(election.until(), None);
    }
}

/// A small generator of our own, so that a failure can be repeated from its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A process, and the request it waits for.
struct Process {
    election: Election,
    wake: u64,
    flight: Option<Flight>,
}

/// A request as its sender sees it: answered at some time or never.
struct Flight {
    id: u64,
    step: Step,
    sent: u64,
    answered: Option<u64>,
}

/// The API server: one Lease with a version, replaced only by who names that version. Requests arrive when they do,
/// whether or not their sender still waits.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
    arriving: Vec<(u64, u64, String, Step)>,
    results: std::collections::HashMap<u64, Result<Option<Lease>, ()>>,
}

impl Server {
    fn tick(&mut self, ms: u64) {
        let (now, later) = std::mem::take(&mut self.arriving).into_iter().partition(|(at, ..)| *at <= ms);
        self.arriving = later;
        let now: Vec<_> = now;
        for (_, id, me, step) in now {
            let result = self.apply(&me, &step);
            self.results.insert(id, result);
        }
    }

    fn apply(&mut self, me: &str, step: &Step) -> Result<Option<Lease>, ()> {
        let expected = match step {
            Step::Read => return Ok(self.lease.clone()),
            Step::Create => None,
            Step::Take(old) | Step::Renew(old) => old.metadata.resource_version.clone(),
            Step::Follow(_) => return Err(()),
        };
        if expected != self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone()) {
            return Err(());
        }
        self.version += 1;
        self.lease = Some(lease(me, self.version));
        Ok(self.lease.clone())
    }
}

fn tick(process: &mut Process, server: &mut Server, dice: &mut Dice, t0: Instant, ms: u64) {
    let now = t0 + Duration::from_millis(ms);
    let timing = process.election.timing();
    if let Some(flight) = process.flight.take() {
        let answered = flight.answered.is_some_and(|at| at <= ms);
        if !answered && ms < flight.sent + timing.call.as_millis() as u64 {
            process.flight = Some(flight);
            return;
        }
        let result = server.results.remove(&flight.id).filter(|_| answered);
        match (result, &flight.step) {
            (Some(Ok(lease)), Step::Read) => process.election.read(lease, now),
            (Some(Ok(Some(lease))), _) => {
                process.election.wrote(lease, t0 + Duration::from_millis(flight.sent));
                process.wake = process.wake.max(ms + timing.renew.as_millis() as u64);
            }
            _ => {
                process.election.failed();
                process.wake = process.wake.max(ms + timing.retry.as_millis() as u64);
            }
        }
    }
    if ms < process.wake {
        return;
    }
    match process.election.decide(now) {
        Step::Follow(_) => {
            process.wake = ms + 1500 + dice.below(300);
            process.election.failed();
        }
        step => {
            // Of ten requests one is lost on the way, one takes very long; of ten answers one is lost.
            let slowest = if dice.below(10) == 0 { 20_000 } else { 300 };
            let arrives = ms + 1 + dice.below(slowest);
            let id = ms * 1000 + dice.below(1000);
            let reached = dice.below(10) > 0;
            if reached {
                server.arriving.push((arrives, id, process.election.me().to_owned(), step.clone()));
            }
            let answered = (reached && dice.below(10) > 0).then(|| arrives + 1 + dice.below(300));
            process.flight = Some(Flight { id, step, sent: ms, answered });
        }
    }
}

#[test]
fn there_are_never_two_leaders_and_mostly_one() {
    let mut led = 0_u64;
    for seed in 0..24 {
        let (t0, mut dice, mut server) = (Instant::now(), Dice(seed), Server::default());
        let mut processes: Vec<Process> = ["a", "b", "c"]
            .map(|name| Process { election: Election::new(name.to_owned(), Timing::default()), wake: 0, flight: None })
            .into();
        for ms in 0..120_000 {
            // A process stands still for a while, or is started again under a new name: its old claim is then void.
            if dice.below(8_000) == 0 {
                let index = dice.below(3) as usize;
                processes[index].wake = ms + dice.below(30_000);
            }
            if dice.below(40_000) == 0 {
                let index = dice.below(3) as usize;
                let election = Election::new(format!("p{ms}"), Timing::default());
                processes[index] = Process { election, wake: ms, flight: None };
            }
            server.tick(ms);
            for process in &mut processes {
                tick(process, &mut server, &mut dice, t0, ms);
            }
            let now = t0 + Duration::from_millis(ms);
            let leaders = processes.iter().filter(|p| p.election.until().is_some_and(|until| now < until)).count();
            assert!(leaders <= 1, "seed {seed}: {leaders} leaders at {ms} ms");
            led += leaders as u64;
        }
    }
    assert!(led > 24 * 60_000, "somebody led for {led} of {} ms only", 24 * 120_000);
}
