//! How the admission engine does under load, in virtual time: the loads of Kueue's own performance tests.
//!
//! In: nothing. Out: JSON on standard output: per load the virtual time beside the least that the capacity allows, the
//! virtual time to admission by class, and the processor's time per workload; and how long a pass takes over 50,000
//! that wait when one of those that run has ended. `cargo measure queues` compiles and runs it.
//! Source of the loads: <https://github.com/kubernetes-sigs/kueue/tree/main/test/performance/scheduler/configs>

use cultivar_core::decide::queue::{self, Ask, Bearer, Engine, Id};
use cultivar_core::domain::queue::{Hold, config};
use cultivar_crds::QueueSpec;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Workloads that are alike.
struct Class {
    name: &'static str,
    count: u32,
    cpu: i64,
    runs: i64,
    every: i64,
    priority: i32,
}

struct Load {
    name: &'static str,
    cohorts: u32,
    queues: u32,
    classes: [Class; 3],
}

const fn class(name: &'static str, count: u32, cpu: i64, runs: i64, every: i64, priority: i32) -> Class {
    Class { name, count, cpu, runs, every, priority }
}

const LOADS: [Load; 2] = [
    Load {
        name: "baseline",
        cohorts: 5,
        queues: 6,
        classes: [
            class("small", 350, 1, 200, 100, 50),
            class("medium", 100, 5, 500, 500, 100),
            class("large", 50, 20, 1000, 1200, 200),
        ],
    },
    Load {
        name: "large scale",
        cohorts: 10,
        queues: 100,
        classes: [
            class("small", 35, 1, 150, 60, 50),
            class("medium", 11, 5, 350, 300, 100),
            class("large", 4, 20, 700, 700, 200),
        ],
    },
];

const NOMINAL: i64 = 20;
const BORROW: i64 = 100;

fn at(millis: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_millis(millis)
}

fn spec(cohort: u32) -> QueueSpec {
    let spec = json!({"cohort": format!("cohort-{cohort}"), "resources": {"cpu": {"quota": NOMINAL, "cap": NOMINAL + BORROW}}});
    serde_json::from_value(spec).expect("a spec")
}

/// What happens at a moment.
enum Event {
    Created(u32, u32, usize, u32),
    Ended(Id, u32),
}

struct Run {
    class: usize,
    queue: String,
    created: i64,
    attempt: u32,
    admitted: Option<i64>,
}

struct Play<'a> {
    load: &'a Load,
    engine: Engine,
    events: BTreeMap<i64, Vec<Event>>,
    runs: BTreeMap<Id, Run>,
    waits: [Vec<i64>; 3],
    ended: usize,
    preempted: usize,
}

impl Play<'_> {
    fn ask(&mut self, id: &Id, now: i64) {
        let run = &self.runs[id];
        let class = &self.load.classes[run.class];
        let ask = Ask {
            attempt: run.attempt,
            queue: Some(run.queue.as_str().into()),
            priority: class.priority,
            since: at(run.created),
            asked: at(run.created),
            placed: false,
            class: Arc::new(queue::Class {
                amounts: [("cpu".into(), class.cpu * 1000)].into_iter().collect(),
                ..queue::Class::default()
            }),
        };
        self.engine.ask(id, ask, at(now));
    }

    fn happen(&mut self, event: Event, now: i64) {
        match event {
            Event::Created(cohort, queue, class, number) => {
                let queue = format!("queue-{cohort}-{queue}");
                let id = Id::new(&queue, &format!("{}-{number}", self.load.classes[class].name));
                self.runs.insert(id.clone(), Run { class, queue, created: now, attempt: 1, admitted: None });
                self.ask(&id, now);
            }
            Event::Ended(id, attempt) => {
                // One that was stopped in between has gone back already.
                if self.runs[&id].attempt == attempt {
                    self.engine.set_holds(&id, Bearer::default(), Vec::new(), at(now));
                    self.ended += 1;
                }
            }
        }
    }

    // Until nothing follows any more: what is admitted runs, what is stopped goes back at once.
    fn settle(&mut self, now: i64) -> (usize, Duration) {
        let (mut passes, mut longest) = (0, Duration::ZERO);
        loop {
            let begun = Instant::now();
            let outcome = self.engine.pass(at(now));
            longest = longest.max(begun.elapsed());
            passes += 1;
            let mut goes_on = false;
            for id in outcome.changed {
                goes_on |= self.follow(&id, now);
            }
            if !goes_on {
                return (passes, longest);
            }
        }
    }

    fn follow(&mut self, id: &Id, now: i64) -> bool {
        if let Some(admission) = self.engine.admission(id).cloned() {
            let run = self.runs.get_mut(id).expect("known");
            let class = &self.load.classes[run.class];
            if run.admitted.is_none() {
                self.waits[run.class].push(now - run.created);
            }
            run.admitted = Some(now);
            let bearer = Bearer { since: at(run.created), priority: class.priority, ..Bearer::default() };
            let hold = Hold { claim: admission.claim, attempt: admission.attempt, since: at(now), leaving: false };
            self.engine.set_holds(id, bearer, vec![hold], at(now));
            self.events.entry(now + class.runs).or_default().push(Event::Ended(id.clone(), admission.attempt));
            return false;
        }
        if self.engine.eviction(id).is_some() {
            self.preempted += 1;
            self.runs.get_mut(id).expect("known").attempt += 1;
            self.engine.set_holds(id, Bearer::default(), Vec::new(), at(now));
            self.ask(id, now);
            return true;
        }
        false
    }
}

fn play(load: &Load) -> Value {
    let mut play = Play {
        load,
        engine: Engine::default(),
        events: BTreeMap::new(),
        runs: BTreeMap::new(),
        waits: Default::default(),
        ended: 0,
        preempted: 0,
    };
    let mut work = 0;
    for cohort in 0..load.cohorts {
        for queue in 0..load.queues {
            play.engine.set_queue(
                &format!("queue-{cohort}-{queue}"),
                Some(config(&format!("queue-{cohort}-{queue}"), "uid", false, &spec(cohort))),
                at(0),
            );
            for (index, class) in load.classes.iter().enumerate() {
                for number in 0..class.count {
                    let moment = class.every * i64::from(number + 1);
                    play.events.entry(moment).or_default().push(Event::Created(cohort, queue, index, number));
                    work += class.cpu * class.runs;
                }
            }
        }
    }
    let capacity = NOMINAL * i64::from(load.cohorts * load.queues);
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let (mut passes, mut longest, mut last) = (0, Duration::ZERO, 0);
    while let Some((now, events)) = play.events.pop_first() {
        events.into_iter().for_each(|event| play.happen(event, now));
        let (more, took) = play.settle(now);
        passes += more;
        longest = longest.max(took);
        last = now;
    }
    let workloads = play.runs.len();
    assert_eq!(play.ended, workloads, "every workload has run");
    let by_class =
        load.classes.iter().zip(&mut play.waits).map(|(class, waits)| (class.name.to_owned(), quantiles(waits)));
    json!({
        "load": load.name,
        "workloads": workloads,
        "virtual_seconds": seconds(last),
        "ideal_seconds": seconds(work / capacity),
        "seconds_to_admission": by_class.collect::<BTreeMap<String, Value>>(),
        "preempted": play.preempted,
        "passes": passes,
        "longest_pass_ms": longest.as_secs_f64() * 1e3,
        "wall_seconds": begun.elapsed().as_secs_f64(),
        "cpu_ms_per_workload": (cpu_seconds() - cpu) * 1e3 / workloads as f64,
    })
}

fn seconds(millis: i64) -> f64 {
    millis as f64 / 1e3
}

fn quantiles(waits: &mut [i64]) -> Value {
    waits.sort_unstable();
    let quantile = |part: usize| seconds(waits[(waits.len() - 1) * part / 100]);
    let mean = seconds(waits.iter().sum::<i64>()) / waits.len() as f64;
    json!({"mean": mean, "p50": quantile(50), "p95": quantile(95), "p99": quantile(99)})
}

/// A full cluster, and 50,000 that wait, no two thousand of them alike: one of those that run ends.
fn waiting() -> Value {
    const QUEUES: u32 = 30;
    const WAITING: u32 = 50_000;
    let mut engine = Engine::default();
    for queue in 0..QUEUES {
        let name = format!("queue-{queue}");
        engine.set_queue(&name, Some(config(&name, "uid", false, &spec(queue / 6))), at(0));
    }
    let asks = |engine: &mut Engine, number: u32, cpu: i64| {
        let queue = format!("queue-{}", number % QUEUES);
        let ask = Ask {
            attempt: 1,
            queue: Some(queue.as_str().into()),
            priority: 0,
            since: at(i64::from(number)),
            asked: at(i64::from(number)),
            placed: false,
            class: Arc::new(queue::Class {
                amounts: [("cpu".into(), cpu)].into_iter().collect(),
                ..queue::Class::default()
            }),
        };
        let id = Id::new(&format!("team-{}", number % 4), &format!("run-{number}"));
        engine.ask(&id, ask, at(0));
        id
    };
    let running: Vec<Id> = (0..QUEUES * 20).map(|number| asks(&mut engine, number, 1000)).collect();
    let admitted = engine.pass(at(0)).changed.len();
    for number in 0..WAITING {
        asks(&mut engine, 100_000 + number, 1000 + i64::from(number % 7) * 500);
    }
    let begun = Instant::now();
    let told = engine.pass(at(1)).changed.len();
    let first = begun.elapsed();
    let mut passes = Vec::new();
    let mut changed = BTreeSet::new();
    for (index, id) in running.iter().take(200).enumerate() {
        engine.withdraw(id, at(2 + index as i64));
        let begun = Instant::now();
        let outcome = engine.pass(at(2 + index as i64));
        passes.push(begun.elapsed().as_secs_f64() * 1e3);
        changed.extend(outcome.changed);
    }
    passes.sort_by(f64::total_cmp);
    json!({
        "waiting": WAITING,
        "held": admitted,
        "first_pass_ms": first.as_secs_f64() * 1e3,
        "told": told,
        "pass_after_release_ms": {"p50": passes[passes.len() / 2], "max": passes[passes.len() - 1]},
        "changed_by_200_releases": changed.len(),
    })
}

fn cpu_seconds() -> f64 {
    // In ticks, of which there are a hundred a second wherever this runs.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn peak_megabytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

fn main() {
    let mut loads = Vec::new();
    for load in &LOADS {
        let mut result = play(load);
        result["peak_megabytes_so_far"] = json!(peak_megabytes());
        loads.push(result);
    }
    let waiting = waiting();
    println!("{}", json!({"loads": loads, "waiting": waiting, "peak_megabytes": peak_megabytes()}));
}
