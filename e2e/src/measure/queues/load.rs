//! The load of Kueue's own performance test, as Experiments against the API server: 30 queues in 5 cohorts, three sizes of runs.
//!
//! In: a session, how many experiments, how many writes a second the operator has. Out: how long it took, how long each size
//! waited, what was written. Nodes are simulated: a run ends when its time is over, and each has a Job and a pod, which
//! Kueue's test has not.
//! Source of the load: <https://github.com/kubernetes-sigs/kueue/tree/main/test/performance/scheduler/configs/baseline>

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::{Value, json};

use super::super::observe::{Book, Marks, Observer};
use super::super::report::{Report, rounded, seconds};
use super::super::scenario::{Session, settled};
use super::super::stats::{mean, percentile};
use crate::error::{Error, Result};
use crate::operator::{Operator, Options};

/// A tenth of the whole.
pub const EXPERIMENTS: usize = 1_500;
/// Those that Kueue's test is told.
pub const LIMITS: [u16; 2] = [50, 500];
const COHORTS: usize = 5;
const QUEUES: usize = 6;
/// CPUs of a queue's own, and those that it may borrow.
const NOMINAL: usize = 20;
const BORROW: usize = 100;
const LIMIT: Duration = Duration::from_secs(3000);
const CREATORS: usize = 32;
const MARKS: Marks = Marks { chain: "cultivar.dev/experiment", stage: "cultivar.dev/queue" };

/// Runs that are alike: of 500 in a queue so many.
struct Class {
    name: &'static str,
    of_500: usize,
    cpu: usize,
    runs: Duration,
    every: Duration,
    priority: i32,
}

const CLASSES: [Class; 3] = [
    Class {
        name: "small",
        of_500: 350,
        cpu: 1,
        runs: Duration::from_millis(200),
        every: Duration::from_millis(100),
        priority: 50,
    },
    Class {
        name: "medium",
        of_500: 100,
        cpu: 5,
        runs: Duration::from_millis(500),
        every: Duration::from_millis(500),
        priority: 100,
    },
    Class {
        name: "large",
        of_500: 50,
        cpu: 20,
        runs: Duration::from_millis(1000),
        every: Duration::from_millis(1200),
        priority: 200,
    },
];

/// One play of it.
pub struct Plan {
    experiments: usize,
    /// The operator's writes a second.
    writes: u16,
    disturbed: Disturbance,
}

/// What happens half way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    Nothing,
    /// The operator is ended, and begins anew.
    Restart,
    /// A queue's quota is halved.
    QuotaEdit,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disturbed = match self.disturbed {
            Disturbance::Nothing => "",
            Disturbance::Restart => ", a restart half way",
            Disturbance::QuotaEdit => ", a quota edit half way",
        };
        write!(f, "{} experiments in 30 queues, {} writes a second{disturbed}", self.experiments, self.writes)
    }
}

/// One with each limit of writes a second, and those that are disturbed, with the highest.
#[must_use]
pub fn plans(experiments: usize, limits: &[u16], undisturbed: bool) -> Vec<Plan> {
    let plan = |(writes, disturbed)| Plan { experiments, writes, disturbed };
    let calm = limits.iter().map(|writes| (*writes, Disturbance::Nothing));
    let disturbed = [Disturbance::Restart, Disturbance::QuotaEdit].into_iter().filter(|_| !undisturbed);
    let disturbed = disturbed.flat_map(|what| limits.iter().max().map(|writes| (*writes, what)));
    calm.chain(disturbed).map(plan).collect()
}

/// What it came to.
#[derive(Default)]
pub struct Played {
    /// As many as the plan says, rounded down to whole ones of each class in each queue.
    runs: usize,
    total: f64,
    ideal: f64,
    /// Seconds from an experiment's creation to its first Job, by class.
    waits: BTreeMap<&'static str, Vec<f64>>,
    jobs: usize,
    writes: BTreeMap<String, f64>,
    cpu_seconds: f64,
    peak_memory: u64,
    /// CPU seconds that were held by those that run.
    used: f64,
    steps: Steps,
    /// Writes to each experiment until its first Job was there.
    before_admission: Vec<f64>,
}

/// Seconds of a Job's life that are not its program's.
#[derive(Default)]
struct Steps {
    /// From a Job's creation to its pod's.
    to_pod: Vec<f64>,
    /// From a pod's creation to its end, without the time that it is to run.
    beyond_its_run: Vec<f64>,
}

impl Steps {
    fn of(runs: &[Run], book: &Book) -> Self {
        let mut steps = Self::default();
        for run in runs {
            let Some(moments) = book.moments.get(&(run.name.clone(), run.queue.clone())) else { continue };
            let (Some(job), Some(pod), Some(ended)) = (moments.job, moments.pod, moments.ended) else { continue };
            steps.to_pod.push(pod.saturating_duration_since(job).as_secs_f64());
            let lived = ended.saturating_duration_since(pod);
            steps.beyond_its_run.push(lived.saturating_sub(run.class.runs).as_secs_f64());
        }
        steps
    }

    fn words(&self) -> String {
        let told =
            |all: &[f64]| [0.5, 0.95].map(|share| seconds(percentile(all, share).unwrap_or_default())).join(" / ");
        format!("{}; {}", told(&self.to_pod), told(&self.beyond_its_run))
    }
}

struct Run {
    name: String,
    queue: String,
    class: &'static Class,
    /// After the beginning.
    at: Duration,
}

fn queue(index: usize) -> String {
    format!("load-{}-{}", index / QUEUES, index % QUEUES)
}

// In the order of their times.
fn runs(experiments: usize) -> Vec<Run> {
    let mut all = Vec::new();
    for index in 0..COHORTS * QUEUES {
        for class in &CLASSES {
            let count = experiments * class.of_500 / (500 * COHORTS * QUEUES);
            all.extend((0..count).map(|number| Run {
                name: format!("{}-{}-{number}", queue(index), class.name),
                queue: queue(index),
                class,
                at: class.every * u32::try_from(number).unwrap_or(u32::MAX),
            }));
        }
    }
    all.sort_by_key(|run| run.at);
    all
}

// Everything that is asked for, one after the other on all that there is; or the last one's time and run.
fn ideal(runs: &[Run]) -> f64 {
    let asked: f64 = runs.iter().map(|run| run.class.cpu as f64 * run.class.runs.as_secs_f64()).sum();
    let last = runs.iter().map(|run| run.at + run.class.runs).max().unwrap_or_default();
    (asked / (COHORTS * QUEUES * NOMINAL) as f64).max(last.as_secs_f64())
}

fn spec(quota: usize, cohort: usize) -> Value {
    json!({"cohort": format!("load-{cohort}"), "resources": {"cpu": {"quota": quota, "cap": quota + BORROW}}})
}

fn manifest(namespace: &str, run: &Run) -> Value {
    let duration = format!("{}ms", run.class.runs.as_millis());
    json!({
        "apiVersion": "cultivar.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": run.name, "namespace": namespace},
        "spec": {
            "image": "measure:1",
            "queue": run.queue,
            "priority": run.class.priority,
            "resources": {"requests": {"cpu": run.class.cpu}},
            "podTemplate": {"metadata": {"annotations": {"sim/duration": duration}}},
        },
    })
}

/// Plays it once.
///
/// # Errors
/// The API server or the operator fails, or not every experiment completes.
pub fn play(session: &Session, plan: &Plan) -> Result<Played> {
    let namespace = session.namespace();
    let options = Options { log_filter: session.log_filter.clone(), write_limit: plan.writes, ..Options::default() };
    let start = || Operator::start(&session.operator, &session.cluster, &options);
    session.runtime.block_on(session.server.namespace(&namespace))?;
    let mut operator = start()?;
    let mut played = Played::default();
    let runs = runs(plan.experiments);
    (played.runs, played.ideal) = (runs.len(), ideal(&runs));
    session.runtime.block_on(queues(session))?;
    let observer = session.runtime.block_on(async {
        let client = session.server.client();
        Observer::start(&client, &namespace, MARKS).await?.with_experiments(&client, &namespace).await
    })?;
    session.runtime.block_on(settled(&operator))?;
    let begun = Instant::now();
    let created = session.runtime.block_on(async {
        let creating = create(session, &runs, begun, |run| manifest(&namespace, run));
        let half = observer.until("the end of half of them", LIMIT, |book| book.jobs_complete.len() * 2 > runs.len());
        let (created, half) = futures::join!(creating, half);
        half.and(created)
    })?;
    match plan.disturbed {
        Disturbance::Nothing => {}
        Disturbance::Restart => {
            account(&mut played, &operator)?;
            operator.stop()?;
            operator = start()?;
        }
        Disturbance::QuotaEdit => {
            let edit = json!({"spec": spec(NOMINAL / 2, 0)});
            session.runtime.block_on(session.server.patch("Queue", "", &queue(0), &edit))?;
        }
    }
    let ended = |book: &Book| book.jobs_complete.len() == runs.len();
    session.runtime.block_on(observer.until("the end of every run", LIMIT, ended))?;
    session.runtime.block_on(settled(&operator))?;
    account(&mut played, &operator)?;
    tell(&mut played, &runs, &observer.book(), &created, begun);
    session.runtime.block_on(remove(session, &namespace))?;
    operator.stop()?;
    session.clear(&namespace)?;
    Ok(played)
}

/// What the same Jobs take without queues, and without an operator: created at their times, as the API server takes them.
pub struct Bare {
    jobs: usize,
    total: f64,
    /// Seconds until the last Job was Complete.
    complete: f64,
    steps: Steps,
}

/// Plays them once.
///
/// # Errors
/// The API server fails, or not every Job ends.
pub fn bare(session: &Session, experiments: usize) -> Result<Bare> {
    let namespace = session.namespace();
    let runs = runs(experiments);
    let played = session.runtime.block_on(async {
        session.server.namespace(&namespace).await?;
        let observer = Observer::start(&session.server.client(), &namespace, MARKS).await?;
        let begun = Instant::now();
        create(session, &runs, begun, |run| job(&namespace, run)).await?;
        observer.until("the end of every Job", LIMIT, |book| book.jobs_complete.len() == runs.len()).await?;
        let book = observer.book();
        let since =
            |last: Option<Instant>| last.map_or(0.0, |last| last.saturating_duration_since(begun).as_secs_f64());
        let total = since(book.holds.values().filter_map(|hold| hold.until).max());
        let complete = since(book.jobs_complete.values().max().copied());
        Ok::<_, Error>(Bare { jobs: runs.len(), total, complete, steps: Steps::of(&runs, &book) })
    })?;
    session.clear(&namespace)?;
    Ok(played)
}

fn job(namespace: &str, run: &Run) -> Value {
    let labels = json!({MARKS.chain: run.name, MARKS.stage: run.queue});
    let duration = format!("{}ms", run.class.runs.as_millis());
    let container = json!({"name": "main", "image": "measure:1", "resources": {"requests": {"cpu": run.class.cpu}}});
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": run.name, "namespace": namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"labels": labels, "annotations": {"sim/duration": duration}},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
        },
    })
}

async fn queues(session: &Session) -> Result<()> {
    for index in 0..COHORTS * QUEUES {
        let (name, spec) = (queue(index), spec(NOMINAL, index / QUEUES));
        let manifest =
            json!({"apiVersion": "cultivar.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": spec});
        session.server.create(&manifest).await?;
    }
    for index in 0..COHORTS * QUEUES {
        let ready = |object: &Value| !object["status"]["conditions"].is_null();
        session.server.wait("Queue", "", &queue(index), Duration::from_secs(60), ready).await?;
    }
    Ok(())
}

// Each at its time, or as soon as the API server takes it; comes back with when each was there.
async fn create(
    session: &Session,
    runs: &[Run],
    begun: Instant,
    manifest: impl Fn(&Run) -> Value,
) -> Result<HashMap<String, Instant>> {
    let mut answers = futures::stream::iter(runs)
        .map(|run| {
            let manifest = manifest(run);
            async move {
                tokio::time::sleep_until((begun + run.at).into()).await;
                session.server.create(&manifest).await.map(|_| (run.name.clone(), Instant::now()))
            }
        })
        .buffer_unordered(CREATORS);
    let mut created = HashMap::new();
    while let Some(answer) = answers.next().await {
        let (name, moment) = answer?;
        created.insert(name, moment);
    }
    Ok(created)
}

// What a process has used and written in its life.
fn account(played: &mut Played, operator: &Operator) -> Result<()> {
    let usage = operator.usage()?;
    played.cpu_seconds += usage.cpu_seconds;
    played.peak_memory = played.peak_memory.max(usage.peak_memory);
    for (name, count) in operator.metrics()?.writes() {
        *played.writes.entry(name).or_default() += count;
    }
    Ok(())
}

fn tell(played: &mut Played, runs: &[Run], book: &Book, created: &HashMap<String, Instant>, begun: Instant) {
    let last = book.holds.values().filter_map(|hold| hold.until).max();
    played.total = last.map_or(0.0, |last| last.saturating_duration_since(begun).as_secs_f64());
    played.jobs = book.holds.len();
    played.steps = Steps::of(runs, book);
    // The first time that it was seen was its creation.
    played.before_admission = book.seen_before_job.values().map(|seen| f64::from(seen.saturating_sub(1))).collect();
    for run in runs {
        let admitted = book.moments.get(&(run.name.clone(), run.queue.clone())).and_then(|moments| moments.job);
        if let (Some(admitted), Some(created)) = (admitted, created.get(&run.name)) {
            let wait = admitted.saturating_duration_since(*created).as_secs_f64();
            played.waits.entry(run.class.name).or_default().push(wait);
        }
    }
    let cpu: HashMap<&str, usize> = runs.iter().map(|run| (run.name.as_str(), run.class.cpu)).collect();
    for hold in book.holds.values() {
        let held = hold.until.map_or(0.0, |until| until.saturating_duration_since(hold.since).as_secs_f64());
        played.used += held * cpu.get(hold.place.0.as_str()).copied().unwrap_or_default() as f64;
    }
}

async fn remove(session: &Session, namespace: &str) -> Result<()> {
    let left = session.server.list("Experiment", namespace, "").await?;
    if let Some(one) = left.iter().find(|one| one["status"]["phase"] != "Completed") {
        let what = format!("{} is {}", one["metadata"]["name"], one["status"]["phase"]);
        return Err(Error::new("not every experiment completed").why(what));
    }
    for index in 0..COHORTS * QUEUES {
        session.server.delete("Queue", "", &queue(index)).await?;
        session.server.wait("Queue", "", &queue(index), Duration::from_secs(60), Value::is_null).await?;
    }
    Ok(())
}

const STEPS: &str = "from a Job to its pod, p50 / p95; what a pod lives beyond its own run";

/// Lines of the bare Jobs.
pub fn report_bare(report: &mut Report, bare: &Bare) {
    let name = format!("the Jobs of {} experiments alone, without queues", bare.jobs);
    let [total, complete] = [bare.total, bare.complete].map(seconds);
    let line = format!("{name}: until every pod has ended / every Job is Complete");
    report.line(line, format!("{total} / {complete}"), String::new(), "", None);
    report.line(format!("{name}: {STEPS}"), bare.steps.words(), String::new(), "", None);
    let key = format!("load_{}_bare", bare.jobs);
    report.put(&key, "seconds", rounded(bare.total));
    report.put(&key, "complete_seconds", rounded(bare.complete));
}

/// Its lines.
pub fn report(report: &mut Report, plan: &Plan, played: &Played) {
    let runs = played.runs as f64;
    let writes: f64 = played.writes.iter().filter(|(name, _)| !name.starts_with("Lease")).map(|(_, count)| count).sum();
    let bound = writes / f64::from(plan.writes);
    let capacity = (COHORTS * QUEUES * NOMINAL) as f64 * played.total;
    report.line(
        format!("{plan}: until every pod has ended"),
        seconds(played.total),
        format!("{} by capacity, {} by writes", seconds(played.ideal), seconds(bound)),
        "",
        None,
    );
    for (class, waits) in &played.waits {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| seconds(percentile(waits, share).unwrap_or_default()));
        let name = format!("{plan}: time to admission, {class}, mean / p50 / p95 / p99");
        let mean = seconds(mean(waits));
        report.line(name, format!("{mean} / {p50} / {p95} / {p99}"), String::new(), "", None);
    }
    report.line(format!("{plan}: {STEPS}"), played.steps.words(), String::new(), "", None);
    let count = |name: &str| played.writes.get(name).copied().unwrap_or(0.0) / runs;
    report.line(
        format!("{plan}: Jobs created / status writes / all writes, a run"),
        format!("{:.2} / {:.2} / {:.2}", count("Job create"), count("Experiment status"), writes / runs),
        format!("{} of {} Jobs were a second one", played.jobs.saturating_sub(played.runs), played.jobs),
        "",
        None,
    );
    report.line(
        format!("{plan}: writes to an experiment until its first Job was there, mean / p99"),
        format!(
            "{:.2} / {:.0}",
            mean(&played.before_admission),
            percentile(&played.before_admission, 0.99).unwrap_or_default()
        ),
        String::new(),
        "",
        None,
    );
    report.line(
        format!("{plan}: operator's CPU a run / peak memory / share of the quota in use"),
        format!(
            "{:.1} ms / {:.0} MB / {:.0} %",
            played.cpu_seconds * 1e3 / runs,
            played.peak_memory as f64 / 1e6,
            played.used / capacity * 100.0
        ),
        String::new(),
        "< 100 MB",
        Some(played.peak_memory < 100_000_000),
    );
    let disturbed = match plan.disturbed {
        Disturbance::Nothing => "",
        Disturbance::Restart => "_restart",
        Disturbance::QuotaEdit => "_quota_edit",
    };
    let key = format!("load_{}_{}{disturbed}", plan.experiments, plan.writes);
    report.put(&key, "writes_before_admission", rounded(mean(&played.before_admission)));
    report.put(&key, "seconds", rounded(played.total));
    report.put(&key, "ideal_seconds", rounded(played.ideal));
    report.put(&key, "bound_by_writes_seconds", rounded(bound));
    report.put(&key, "jobs", json!(played.jobs));
    report.put(&key, "writes", json!(played.writes));
    report.put(&key, "cpu_ms_per_run", rounded(played.cpu_seconds * 1e3 / runs));
    report.put(&key, "peak_memory", json!(played.peak_memory));
    report.put(&key, "utilisation", rounded(played.used / capacity));
    for (class, waits) in &played.waits {
        let told = [0.5, 0.95, 0.99].map(|share| rounded(percentile(waits, share).unwrap_or_default()));
        report.put(&key, &format!("seconds_to_admission_{class}_p50_p95_p99"), json!(told));
        report.put(&key, &format!("seconds_to_admission_{class}_mean"), rounded(mean(waits)));
    }
}
