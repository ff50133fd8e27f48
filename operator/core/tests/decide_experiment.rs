//! Deciding about experiments: the tables in `cases/experiment`.
//!
//! Comes in: a snapshot in short. Goes out: the plan, compared with what the case expects.

mod support;

use cultivar_core::decide::Action;
use cultivar_core::decide::experiment::queueing::Queueing;
use cultivar_core::decide::experiment::{Refusal, Snapshot, decide};
use cultivar_core::decide::freeze::overrides;
use cultivar_core::decide::queue::{Eviction, Wait};
use cultivar_core::domain::errand::{Errands, Outcome};
use cultivar_core::domain::{
    ContainerState, Disruption, JobRecord, JobState, Placement, PodPhase, PodRecord, Producer, StoreAccess, Stores,
    Terminated, names,
};
use cultivar_crds::experiment::SpentRetries;
use cultivar_crds::{Attempt, ExperimentStatus, Phase, PhaseTimes, Reason, labels};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use support::{Expect, NAMESPACE, Source, at, cases, differences, from, in_words, owner, record, sources, stamp};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    given: Given,
    expect: Expect,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    /// Seconds after the experiment's creation.
    now: i64,
    spec: Option<Value>,
    /// The template is frozen already, from the spec.
    frozen: bool,
    /// A stage's experiment.
    stage: bool,
    deleting: bool,
    finalizers: Vec<String>,
    generation: Option<i64>,
    annotations: BTreeMap<String, String>,
    /// Further fields of the status.
    status: Value,
    attempts: Vec<AttemptInShort>,
    spent: Option<SpentRetries>,
    sources: Vec<Source>,
    jobs: Vec<JobInShort>,
    pods: Vec<PodInShort>,
    in_use: Option<String>,
    confirmed: Option<u32>,
    refusal: Option<RefusalInShort>,
    /// Whether there are queues, and what they say.
    queues: bool,
    admitted: Option<AdmittedInShort>,
    waits: Option<WaitInShort>,
    evicted: Option<(u32, String)>,
    max_runtime: Option<u64>,
    /// Its queue takes only so many that wait.
    bounded: bool,
    /// What Kueue says of its Job.
    kueue: Option<String>,
    /// Whether the operator has a runner.
    runner: bool,
    /// Url of the ArtifactStore that is named, or the default one.
    store: Option<String>,
    /// Url of the operator's own store.
    own_store: Option<String>,
    /// Uris that others refer to.
    referred: Vec<String>,
    /// Whether registries are asked what tags stand for.
    resolve: bool,
    /// What the errand that is asked for brought, or why nothing.
    brought: Option<String>,
    failed_errand: Option<String>,
    /// When it was tried, and since when.
    tried_at: i64,
    tried_since: i64,
    /// By uri.
    producers: BTreeMap<String, ProducerInShort>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmittedInShort {
    attempt: u32,
    queue: String,
    flavor: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitInShort {
    queue: Option<String>,
    reason: Reason,
    message: String,
    position: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProducerInShort {
    experiment: String,
    artifact: String,
    digest: Option<String>,
}

impl ProducerInShort {
    fn producer(&self) -> Producer {
        let (experiment, artifact) = (self.experiment.clone(), self.artifact.clone());
        Producer { experiment, artifact, digest: self.digest.clone() }
    }
}

fn store(url: String) -> StoreAccess {
    StoreAccess { url, ..StoreAccess::default() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttemptInShort {
    number: u32,
    created: i64,
    finished: Option<i64>,
    reason: Option<Reason>,
    queue: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobInShort {
    attempt: u32,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    complete: bool,
    /// Reason and message.
    failed: Option<(String, String)>,
    #[serde(default)]
    deleting: bool,
    #[serde(default)]
    suspended: bool,
    started: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PodInShort {
    attempt: u32,
    created: Option<i64>,
    /// Belongs to a Job that is not ours: that of an earlier namesake.
    of_a_namesake: bool,
    node: Option<String>,
    phase: Option<String>,
    deleting: bool,
    gone: bool,
    reason: String,
    message: String,
    unschedulable: Option<String>,
    /// Reason and message.
    disruption: Option<(String, String)>,
    /// Reason and message.
    waiting: Option<(String, String)>,
    /// Since.
    running: Option<i64>,
    exit: Option<Exit>,
    /// Name and words.
    init_failure: Option<(String, String)>,
    image_id: Option<String>,
    worker: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exit {
    code: i32,
    #[serde(default)]
    why: String,
    /// The termination message.
    #[serde(default)]
    output: String,
    started: Option<i64>,
    finished: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusalInShort {
    reason: Reason,
    message: String,
    at: i64,
}

const NAME: &str = "train";
const RUN: &str = "digits-1";

// A stage's experiment has the name that its run gives it.
fn name(stage: bool) -> String {
    if stage { names::stage_experiment(RUN, &support::uid(RUN), &support::member(NAME)) } else { NAME.to_owned() }
}

fn job_uid(attempt: u32) -> String {
    format!("uid-of-job-{attempt}")
}

impl JobInShort {
    fn record(&self, of: &str) -> JobRecord {
        JobRecord {
            namespace: NAMESPACE.to_owned(),
            name: names::job(of, &support::uid(of), self.attempt),
            uid: job_uid(self.attempt),
            owner_uid: support::uid(of),
            experiment: of.to_owned(),
            attempt: self.attempt,
            created: Some(at(self.created)),
            deleting: self.deleting,
            state: match &self.failed {
                Some((reason, message)) => JobState::Failed { reason: reason.clone(), message: message.clone() },
                None if self.complete => JobState::Complete,
                None => JobState::Active,
            },
            holding: None,
            suspended: self.suspended,
            started: self.started.map(at),
        }
    }
}

impl PodInShort {
    fn record(&self, of: &str, index: usize) -> PodRecord {
        let main = match (&self.exit, self.running, &self.waiting) {
            (Some(exit), _, _) => ContainerState::Terminated(Terminated {
                exit_code: exit.code,
                reason: exit.why.clone(),
                message: exit.output.clone(),
                started: exit.started.map(at),
                finished: exit.finished.map(at),
            }),
            (None, Some(since), _) => ContainerState::Running(Some(at(since))),
            (None, None, Some((reason, message))) => {
                ContainerState::Waiting { reason: reason.clone(), message: message.clone() }
            }
            (None, None, None) => ContainerState::Unknown,
        };
        PodRecord {
            init_failure: self.init_failure.clone(),
            namespace: NAMESPACE.to_owned(),
            name: format!("pod-{index}"),
            uid: format!("uid-of-pod-{index}"),
            job_uid: if self.of_a_namesake { "uid-of-another-job".to_owned() } else { job_uid(self.attempt) },
            experiment: of.to_owned(),
            attempt: self.attempt,
            node: self.node.clone(),
            created: Some(at(self.created.unwrap_or(0))),
            deleting: self.deleting,
            gone: self.gone,
            phase: match (self.phase.as_deref(), &self.exit) {
                (Some("Running"), _) => PodPhase::Running,
                (Some("Succeeded"), _) => PodPhase::Succeeded,
                (Some("Failed"), _) => PodPhase::Failed,
                (Some("Pending"), _) => PodPhase::Pending,
                (Some(other), _) => panic!("{other} is no phase of a pod"),
                (None, Some(exit)) if exit.code == 0 => PodPhase::Succeeded,
                (None, Some(_)) => PodPhase::Failed,
                (None, None) if self.running.is_some() => PodPhase::Running,
                (None, None) => PodPhase::Pending,
            },
            reason: self.reason.clone(),
            message: self.message.clone(),
            unschedulable: self.unschedulable.clone(),
            disruption: self.disruption.clone().map(|(reason, message)| Disruption { reason, message }),
            main,
            image_id: self.image_id.clone(),
            holding: None,
            worker: self.worker,
        }
    }
}

impl Given {
    fn snapshot(&self) -> Snapshot {
        let spec = self.spec.clone().unwrap_or_else(|| json!({"image": "busybox"}));
        let mut experiment = record(&name(self.stage), spec.clone(), self.experiment_status(&spec));
        experiment.meta.deleting = self.deleting;
        experiment.meta.deleted = self.deleting.then(|| at(0));
        experiment.meta.finalizers = self.finalizers.clone();
        experiment.meta.generation = self.generation.unwrap_or(1);
        experiment.meta.annotations.extend(self.annotations.clone());
        if self.stage {
            experiment.meta.owner = Some(owner("PipelineRun", RUN));
            experiment.meta.labels.insert(labels::STAGE.to_owned(), NAME.to_owned());
        }
        Snapshot {
            experiment,
            sources: sources(&self.sources, [&spec]),
            jobs: self.jobs.iter().map(|job| Arc::new(job.record(&name(self.stage)))).collect(),
            pods: self
                .pods
                .iter()
                .enumerate()
                .map(|(index, pod)| Arc::new(pod.record(&name(self.stage), index)))
                .collect(),
            identical: Vec::new(),
            nearest: None,
            in_use: self.in_use.clone(),
            confirmed: self.confirmed,
            refusal: self.refusal.as_ref().map(|refusal| Refusal {
                reason: refusal.reason,
                message: refusal.message.clone(),
                at: at(refusal.at),
            }),
            queueing: self.queueing(),
            runner_image: self.runner.then(|| "runner:1".to_owned()),
            stores: self.stores(),
            errands: Errands::new(),
            resolve_images: self.resolve,
            referred: self.referred.iter().cloned().collect(),
            producers: self.producers.iter().map(|(uri, producer)| (uri.clone(), producer.producer())).collect(),
            now: at(self.now),
        }
    }

    fn queueing(&self) -> Queueing {
        let admission = self.admitted.as_ref().map(|admitted| {
            let (queue, flavor) = (admitted.queue.as_str().into(), admitted.flavor.as_str().into());
            (admitted.attempt, Placement { queue, flavor, ..Placement::default() })
        });
        let wait = self.waits.as_ref().map(|wait| Wait {
            queue: wait.queue.as_deref().map(Into::into),
            reason: wait.reason,
            message: wait.message.as_str().into(),
            position: wait.position,
        });
        let evicted = self.evicted.clone().map(|(attempt, message)| Eviction { attempt, message });
        let max_runtime = self.max_runtime.map(std::time::Duration::from_secs);
        Queueing {
            off: false,
            queues: self.queues,
            admission,
            wait,
            eviction: evicted,
            bounded: self.bounded,
            pod: None,
            kueue: self.kueue.clone(),
            max_runtime,
        }
    }

    // The errands that are asked for at first have this outcome.
    fn errands(&self, before: &Snapshot) -> Errands {
        let result = match (&self.brought, &self.failed_errand) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(why)) => Err(why.clone()),
            (None, None) => return Errands::new(),
        };
        let outcome = Outcome { result, at: at(self.tried_at), since: at(self.tried_since), tries: 1 };
        let asked = decide(before).actions.into_iter().filter_map(|action| match action {
            Action::Run(errand) => Some(errand),
            _ => None,
        });
        asked.map(|errand| (errand, outcome.clone())).collect()
    }

    fn stores(&self) -> Stores {
        Stores { named: self.store.clone().map(store), own: self.own_store.clone().map(store) }
    }

    fn experiment_status(&self, spec: &Value) -> ExperimentStatus {
        let mut status: ExperimentStatus = from(&self.status);
        if self.frozen || !self.attempts.is_empty() {
            status.template.get_or_insert_with(|| std::sync::Arc::new(overrides(spec)));
            if status.phase == Phase::Pending && self.status.get("phase").is_none() {
                status.phase = Phase::Starting;
            }
            status.times.get_or_insert_with(|| PhaseTimes { starting: Some(stamp(0)), ..PhaseTimes::default() });
        }
        for attempt in &self.attempts {
            status.attempt = Some(attempt.number);
            status.attempts.push(Attempt {
                number: attempt.number,
                job: names::job(&name(self.stage), &support::uid(&name(self.stage)), attempt.number),
                created_at: Some(stamp(attempt.created)),
                finished_at: attempt.finished.map(stamp),
                reason: attempt.reason,
                queue: attempt.queue.clone(),
                ..Attempt::default()
            });
        }
        status.retries = self.spent.or(status.retries);
        status
    }
}

#[test]
fn every_case_of_the_tables() {
    let cases: Vec<(String, Case)> = cases("experiment");
    let (mut wrong, mut standing) = (Vec::new(), Vec::new());
    for (file, case) in &cases {
        let mut snapshot = case.given.snapshot();
        snapshot.errands = case.given.errands(&snapshot);
        let plan = decide(&snapshot);
        let words = in_words(&plan.actions, &snapshot.experiment.meta);
        if !snapshot.experiment.meta.deleting {
            let object = support::standing::object("Experiment", &snapshot.experiment, &plan.status);
            standing.push((format!("{file}: {}", case.name), object));
        }
        let mut found = differences(&plan, &words, &case.expect);
        if plan != decide(&snapshot) {
            found.push("the same snapshot gave another plan".to_owned());
        }
        // Once more from its own result: the same status again, unless this pass has begun something.
        let mut again = snapshot.clone();
        again.experiment.status = Arc::new(plan.status.clone());
        if (plan.actions.is_empty() && plan.status.phase == snapshot.experiment.status.phase
            || plan.status.phase.is_terminal())
            && decide(&again).status != plan.status
        {
            found.push(format!("the second pass gives another status: {:?}", decide(&again).status));
        }
        wrong.extend(found.into_iter().map(|difference| format!("{file}: {}:\n    {difference}", case.name)));
    }
    assert!(cases.len() > 60, "only {} cases were found", cases.len());
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
    support::standing::agreed("Experiment", standing);
}
