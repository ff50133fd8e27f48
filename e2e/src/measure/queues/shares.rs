//! Four queues share a cluster: a thousand experiments of one GPU on 480, half a minute each.
//!
//! In: a session. Out: what it cost, and how far each queue was from its fair share at every second in which the GPUs
//! were in use and everybody still had runs that waited.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::observe::{Book, Marks, Observer};
use super::super::report::{Report, rounded, seconds};
use super::super::scenario::{Session, difference, settled};
use crate::error::Result;
use crate::operator::{Operator, Options};

const QUEUES: usize = 4;
const RUNS: usize = 1000;
const GPUS: usize = 480;
const RUN: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(900);
/// Of its share, at every second.
const ERROR: f64 = 0.02;
const MARKS: Marks = Marks { chain: "cultivar.dev/experiment", stage: "cultivar.dev/queue" };

/// What it came to.
pub struct Played {
    total: f64,
    peak_held: usize,
    share_error: f64,
    compared: usize,
    admission_writes: f64,
    taken_back: usize,
    status_writes: f64,
    cpu_seconds: f64,
    peak_memory: u64,
}

fn queue(index: usize) -> String {
    format!("measure-{index}")
}

/// Plays it once.
///
/// # Errors
/// The API server or the operator fails, or not every experiment completes.
pub fn play(session: &Session) -> Result<Played> {
    let namespace = session.namespace();
    session.runtime.block_on(session.server.namespace(&namespace))?;
    let options = Options { log_filter: session.log_filter.clone(), ..Options::default() };
    let operator = Operator::start(&session.operator, &session.cluster, &options)?;
    let mut played = session.runtime.block_on(run(session, &namespace, &operator))?;
    played.peak_memory = operator.usage()?.peak_memory;
    session.runtime.block_on(async {
        for index in 0..QUEUES {
            session.server.delete("Queue", "", &queue(index)).await?;
            let gone = |object: &Value| object.is_null();
            session.server.wait("Queue", "", &queue(index), Duration::from_secs(60), gone).await?;
        }
        Ok::<_, crate::error::Error>(())
    })?;
    operator.stop()?;
    session.clear(&namespace)?;
    Ok(played)
}

async fn run(session: &Session, namespace: &str, operator: &Operator) -> Result<Played> {
    for index in 0..QUEUES {
        let spec = json!({"cohort": "measure", "resources": {"nvidia.com/gpu": {"quota": GPUS / QUEUES}}});
        let name = queue(index);
        let manifest =
            json!({"apiVersion": "cultivar.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": spec});
        session.server.create(&manifest).await?;
        let ready = |object: &Value| !object["status"]["conditions"].is_null();
        session.server.wait("Queue", "", &name, Duration::from_secs(60), ready).await?;
    }
    let observer = Observer::start(&session.server.client(), namespace, MARKS).await?;
    let (before, cpu_before) = (settled(operator).await?, operator.usage()?.cpu_seconds);
    let begun = Instant::now();
    session.create_all((0..RUNS).map(|index| experiment(namespace, index)).collect()).await?;
    // A run that was taken back is complete with its second Job.
    observer.until("the end of every run", LIMIT, |book| book.jobs_complete.len() == RUNS).await?;
    let after = settled(operator).await?;
    let cpu_seconds = operator.usage()?.cpu_seconds - cpu_before;
    let writes = difference(&before, &after);
    let count = |name: &str| writes.get(name).copied().unwrap_or(0.0);
    let book = observer.book();
    let last = book.holds.values().filter_map(|hold| hold.until).max();
    let total = last.map_or(0.0, |last| last.saturating_duration_since(begun).as_secs_f64());
    let (share_error, compared) = errors(&book, begun);
    Ok(Played {
        total,
        peak_held: (0..total as u32).map(|second| held(&book, begun, second).iter().sum()).max().unwrap_or(0),
        share_error,
        compared,
        admission_writes: count("Job create") / book.holds.len() as f64,
        taken_back: book.holds.len() - RUNS,
        status_writes: count("Experiment status") / RUNS as f64,
        cpu_seconds,
        peak_memory: 0,
    })
}

fn experiment(namespace: &str, index: usize) -> Value {
    json!({
        "apiVersion": "cultivar.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": format!("run-{index:04}"), "namespace": namespace},
        "spec": {
            "image": "measure:1",
            "queue": queue(index % QUEUES),
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "podTemplate": {"metadata": {"annotations": {"sim/duration": format!("{}s", RUN.as_secs())}}},
        },
    })
}

// How many runs of each queue held a GPU at a second.
fn held(book: &Book, begun: Instant, second: u32) -> [usize; QUEUES] {
    let moment = begun + Duration::from_secs(second.into());
    let mut held = [0; QUEUES];
    for hold in book.holds.values() {
        let holds = hold.since <= moment && hold.until.is_none_or(|until| moment < until);
        if let Some(index) = (0..QUEUES).find(|index| holds && queue(*index) == hold.place.1) {
            held[index] += 1;
        }
    }
    held
}

// The largest distance of a queue from its fair share, of all GPUs, over the seconds in which all were in use and every
// queue had runs that had not started.
fn errors(book: &Book, begun: Instant) -> (f64, usize) {
    let (mut worst, mut compared) = (0.0_f64, 0);
    for second in 0..u32::try_from(LIMIT.as_secs()).unwrap_or(u32::MAX) {
        let held = held(book, begun, second);
        let moment = begun + Duration::from_secs(second.into());
        let backlog = (0..QUEUES).all(|index| {
            let name = queue(index);
            let started = book
                .moments
                .iter()
                .filter(|((_, of), moments)| *of == name && moments.job.is_some_and(|job| job <= moment));
            started.count() < RUNS / QUEUES
        });
        if !backlog || held.iter().sum::<usize>() * 100 < GPUS * 95 {
            continue;
        }
        compared += 1;
        let fair = held.iter().sum::<usize>() as f64 / QUEUES as f64;
        let distance = held.iter().map(|held| (*held as f64 - fair).abs() / GPUS as f64).fold(0.0, f64::max);
        worst = worst.max(distance);
    }
    (worst, compared)
}

/// Its lines.
pub fn report(report: &mut Report, played: &Played) {
    let name = format!("{RUNS} experiments of one GPU on {GPUS}, in {QUEUES} queues");
    // Whole rounds: what starts together ends together.
    let ideal = RUN.as_secs_f64() * RUNS.div_ceil(GPUS) as f64;
    report.line(
        format!("{name}: until every pod has ended"),
        seconds(played.total),
        format!("{} in rounds, without any time to start", seconds(ideal)),
        "",
        None,
    );
    report.line(
        format!("{name}: distance from the fair share, worst of {} seconds", played.compared),
        format!("{:.1} %", played.share_error * 100.0),
        format!("at most {} held at once", played.peak_held),
        "< 2 %",
        Some(played.compared > 0 && played.share_error < ERROR && played.peak_held <= GPUS),
    );
    report.line(
        format!("{name}: writes per admission / status writes per run"),
        format!("{:.2} / {:.2}", played.admission_writes, played.status_writes),
        format!("{} taken back while the cluster filled", played.taken_back),
        "1",
        Some(played.admission_writes <= 1.0),
    );
    report.line(
        format!("{name}: operator's CPU a run / peak memory"),
        format!("{:.1} ms / {:.0} MB", played.cpu_seconds * 1e3 / RUNS as f64, played.peak_memory as f64 / 1e6),
        String::new(),
        "",
        None,
    );
    report.put("cluster", "seconds", rounded(played.total));
    report.put("cluster", "share_error", rounded(played.share_error));
    report.put("cluster", "seconds_compared", json!(played.compared));
    report.put("cluster", "most_held", json!(played.peak_held));
    report.put("cluster", "writes_per_admission", rounded(played.admission_writes));
    report.put("cluster", "taken_back", json!(played.taken_back));
    report.put("cluster", "status_writes_per_run", rounded(played.status_writes));
    report.put("cluster", "cpu_ms_per_run", rounded(played.cpu_seconds * 1e3 / RUNS as f64));
    report.put("cluster", "peak_memory", json!(played.peak_memory));
}
