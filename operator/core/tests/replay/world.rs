//! The world: cluster, operator and user together, moved on until nothing more happens.
//!
//! Comes in: what the user does when, and how programs play. Goes out: how everything ended.

use cultivar_core::decide::{experiment, pipeline, pipeline_run};
use cultivar_crds::reason::Budget;
use cultivar_crds::{ExperimentStatus, Phase, PipelineRunStatus, PipelineStatus, Reason, StageStatus};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{Cluster, Failure, Kind};
use super::kubelet::Play;
use super::operator::Operator;
use cultivar_core::domain::errand::Outcome;
use cultivar_core::domain::{ContainerState, Errand, time};

/// Something that the user does.
#[derive(Clone, Debug)]
pub enum Deed {
    Apply(Value),
    Cancel(Kind, &'static str),
    CancelStage(&'static str),
    DeleteStage(&'static str),
    DeletePod(&'static str),
    DeleteJob(&'static str),
    DeleteApproval(&'static str),
    /// From now on a tag means another image.
    MoveTag(&'static str, &'static str),
}

/// What happens around the operator.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    pub name: &'static str,
    /// Seconds after the beginning.
    pub deeds: Vec<(u64, Deed)>,
    pub script: BTreeMap<String, Vec<Play>>,
}

/// Random numbers that every replay finds again (SplitMix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).expect("a small number")
    }
}

pub struct World {
    pub cluster: Cluster,
    pub operator: Operator,
    deeds: Vec<(Timestamp, Deed)>,
    /// Deeds that wait for an experiment of a stage, or for the run, to be in a phase; in this order.
    pub awaited: VecDeque<(Option<&'static str>, &'static str, Deed)>,
    pub crashes: usize,
}

/// How often the operator dies by chance: after each death everything is looked at again, and that comes to an end.
const DEATHS: usize = 60;

pub fn beginning() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("a moment")
}

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        let mut cluster = Cluster::default();
        cluster.now = beginning();
        cluster.script = scenario.script.clone();
        // Where nobody says what tags stand for nobody is asked.
        cluster.resolves_images = scenario.deeds.iter().any(|(_, deed)| matches!(deed, Deed::MoveTag(..)));
        let moment = |seconds: &u64| time::after(beginning(), Duration::from_secs(*seconds));
        let deeds = scenario.deeds.iter().rev().map(|(seconds, deed)| (moment(seconds), deed.clone())).collect();
        let operator = Operator::start(&mut cluster);
        Self { cluster, operator, deeds, awaited: VecDeque::new(), crashes: 0 }
    }

    /// Runs until nothing more happens; with chance, in any order, with events repeated and lost.
    pub fn run(&mut self, mut chance: Option<Chance>) {
        for step in 0.. {
            assert!(step < 60_000, "this never ends\n{}", self.story());
            if !self.step(chance.as_mut()) {
                break;
            }
            assert!(self.cluster.violations.is_empty(), "{}\n{}", self.cluster.violations.join("\n"), self.story());
        }
    }

    pub fn story(&self) -> String {
        let log = &self.cluster.log;
        log[log.len().saturating_sub(80)..].join("\n")
    }

    fn step(&mut self, chance: Option<&mut Chance>) -> bool {
        if self.is_met() {
            let (_, _, deed) = self.awaited.pop_front().expect("it was looked at");
            self.do_(deed);
            return true;
        }
        self.operator.wake_due(self.cluster.now);
        match chance {
            None => {
                self.deliver(Kind::ALL.iter().copied())
                    || self.pass(0)
                    || self.land(0)
                    || self.answer(0)
                    || self.move_(0)
                    || self.advance()
            }
            Some(chance) => self.step_by_chance(chance),
        }
    }

    // Whether what the next deed waits for has come. Who deletes a pod sees it run first.
    fn is_met(&self) -> bool {
        let Some((stage, phase, deed)) = self.awaited.front() else { return false };
        let Some(stage) = stage else {
            return self.cluster.runs.values().any(|run| run.status.phase.as_str() == *phase);
        };
        let of_stage = |experiment: &str| {
            let member = self.cluster.stage_of.get(experiment);
            member.is_some_and(|member| member.to_string() == *stage || member.stage == *stage)
        };
        let runs = |experiment: &str| {
            let mut pods = self.cluster.pods.values().filter(|pod| pod.experiment == experiment);
            pods.any(|pod| matches!(pod.main, ContainerState::Running(_)))
        };
        self.cluster.experiments.iter().any(|(name, record)| {
            let seen = !matches!(deed, Deed::DeletePod(_)) || runs(name);
            of_stage(name) && record.status.phase.as_str() == *phase && seen
        })
    }

    fn step_by_chance(&mut self, chance: &mut Chance) -> bool {
        let kind = Kind::ALL[chance.below(Kind::ALL.len())];
        let which = chance.below(1000);
        match chance.below(100) {
            0..=1 => {
                self.cluster.note(format!("the watch of {kind:?} is set up again"));
                self.operator.relist(&mut self.cluster, kind);
            }
            2 if self.crashes < DEATHS => self.crash(),
            3..=6 => self.repeat(kind),
            7..=9 => self.touch(which),
            10..=34 => drop(self.deliver([kind].into_iter())),
            35..=59 => drop(self.pass(which)),
            60..=67 => drop(self.land(which) || self.answer(which)),
            68..=84 => drop(self.move_(which)),
            _ => {
                let idle = self.cluster.queues.values().all(|queue| queue.is_empty())
                    && self.operator.index.queue.is_empty()
                    && self.operator.in_flight.is_empty()
                    && self.operator.asked.is_empty();
                return !(idle && self.cluster.moves().is_empty()) || self.advance();
            }
        }
        true
    }

    fn deliver(&mut self, kinds: impl Iterator<Item = Kind>) -> bool {
        for kind in kinds {
            if let Some(event) = self.cluster.queues.entry(kind).or_default().pop_front() {
                self.operator.index.take(event);
                return true;
            }
        }
        false
    }

    fn repeat(&mut self, kind: Kind) {
        if let Some(event) = self.cluster.queues.entry(kind).or_default().front().cloned() {
            self.operator.index.take(event);
        }
    }

    // Somebody writes a label: statuses that were decided before meet a conflict.
    fn touch(&mut self, which: usize) {
        let names: Vec<String> = self.cluster.experiments.keys().cloned().collect();
        if let Some(name) = names.get(which % names.len().max(1)) {
            self.cluster.change::<ExperimentStatus>(name, |record| {
                record.meta.labels.insert("touched".to_owned(), which.to_string());
            });
        }
    }

    fn pass(&mut self, which: usize) -> bool {
        let queue = &self.operator.index.queue;
        let Some(key) = queue.iter().nth(which % queue.len().max(1)).cloned() else { return false };
        if self.operator.pass(&mut self.cluster, &key) == Err(Failure::Crash) {
            self.crash();
        }
        true
    }

    // A status write arrives that goes on beside the passes.
    fn land(&mut self, which: usize) -> bool {
        let writes = &self.operator.in_flight;
        let Some(key) = writes.keys().nth(which % writes.len().max(1)).cloned() else { return false };
        if self.operator.land(&mut self.cluster, &key) == Err(Failure::Crash) {
            self.crash();
        }
        true
    }

    // A registry answers, or says that it has no such image.
    fn answer(&mut self, which: usize) -> bool {
        let asked = &self.operator.asked;
        let Some(question) = asked.iter().nth(which % asked.len().max(1)).cloned() else { return false };
        self.operator.asked.remove(&question);
        let (key, errand) = question;
        let Errand::ResolveImage(tag) = &errand else { return true };
        let digest = self.cluster.tags.get(&tag.image).cloned();
        self.cluster.note(format!("the registry says of {}: {digest:?}", tag.image));
        let outcome = Outcome {
            result: digest.ok_or_else(|| "it has no such image".to_owned()),
            at: self.cluster.now,
            since: self.cluster.now,
            tries: 1,
        };
        self.operator.index.errands.entry(key.clone()).or_default().insert(errand, outcome);
        self.operator.index.queue.insert(key);
        true
    }

    pub fn crash(&mut self) {
        self.cluster.note("the operator dies and starts again");
        self.crashes += 1;
        self.operator = Operator::start(&mut self.cluster);
    }

    fn move_(&mut self, which: usize) -> bool {
        let moves = self.cluster.moves();
        let Some(move_) = moves.get(which % moves.len().max(1)) else { return false };
        self.cluster.make(move_);
        true
    }

    // To the next moment at which something happens by itself.
    fn advance(&mut self) -> bool {
        let deed = self.deeds.last().map(|(moment, _)| *moment);
        let timer = self.operator.timers.values().min().copied();
        let Some(next) = [deed, timer, self.cluster.next_end()].into_iter().flatten().min() else { return false };
        self.cluster.now = self.cluster.now.max(next);
        if deed.is_some_and(|moment| moment <= self.cluster.now) {
            let (_, deed) = self.deeds.pop().expect("a deed");
            self.do_(deed);
        }
        true
    }

    fn do_(&mut self, deed: Deed) {
        self.cluster.note(format!("the user: {deed:?}"));
        let cluster = &mut self.cluster;
        let stage = |cluster: &Cluster, stage: &str| {
            let named = |name: &&String| **name == stage || name.contains(&format!("-{stage}-"));
            cluster.experiments.keys().find(named).cloned()
        };
        match deed {
            Deed::Apply(manifest) => match manifest["kind"].as_str() {
                Some("Pipeline") => apply::<PipelineStatus>(cluster, &manifest),
                Some("PipelineRun") => apply::<PipelineRunStatus>(cluster, &manifest),
                Some("Approval") => cluster.approve(&manifest),
                _ => apply::<ExperimentStatus>(cluster, &manifest),
            },
            Deed::Cancel(Kind::Run, name) => {
                cluster.change::<PipelineRunStatus>(name, |record| record.spec = cancelled(&record.spec));
            }
            Deed::Cancel(_, name) => {
                cluster.change::<ExperimentStatus>(name, |record| record.spec = cancelled(&record.spec));
            }
            Deed::CancelStage(name) => {
                let Some(name) = stage(cluster, name) else { return };
                cluster.change::<ExperimentStatus>(&name, |record| record.spec = cancelled(&record.spec));
            }
            Deed::DeleteStage(name) => {
                let Some(name) = stage(cluster, name) else { return };
                cluster.experiments.remove(&name);
                cluster.tell(super::cluster::Event::Experiment(name, None));
            }
            Deed::MoveTag(image, digest) => {
                cluster.tags.insert(image.to_owned(), digest.to_owned());
            }
            Deed::DeleteApproval(name) => {
                if let Some(said) = cluster.approvals.remove(name) {
                    cluster.tell(super::cluster::Event::Approval(said, true));
                }
            }
            Deed::DeletePod(name) => {
                let of = stage(cluster, name);
                let Some(pod) = cluster.pods.values_mut().find(|pod| Some(&pod.experiment) == of.as_ref()) else {
                    return;
                };
                pod.deleting = true;
                let pod = pod.clone();
                cluster.tell(super::cluster::Event::Pod(pod, false));
            }
            Deed::DeleteJob(name) => {
                let of = stage(cluster, name);
                let job =
                    cluster.jobs.values().find(|job| Some(&job.experiment) == of.as_ref()).map(|job| job.name.clone());
                if let Some(job) = job {
                    cluster.drop_job(&job);
                }
            }
        }
    }

    /// After everything has ended, a new operator finds nothing to do, and every plan is empty.
    pub fn rests(&mut self) {
        let before = self.cluster.writes;
        self.crash();
        while self.pass(0) || self.land(0) || self.answer(0) {}
        assert_eq!(self.cluster.writes, before, "writes although nothing happened\n{}", self.story());
        let (index, now) = (&self.operator.index, self.cluster.now);
        for name in index.experiments.keys() {
            let snapshot = index.experiment(name, now).expect("an experiment");
            let plan = experiment::decide(&snapshot);
            assert_eq!((plan.actions.len(), &plan.status), (0, &*snapshot.experiment.status), "{name}");
        }
        for name in index.runs.keys() {
            let snapshot = index.run(name, now).expect("a run");
            let plan = pipeline_run::decide(&snapshot);
            assert_eq!((plan.actions.len(), &plan.status), (0, &*snapshot.run.status), "{name}");
        }
        for name in index.pipelines.keys() {
            let snapshot = index.pipeline(name, now).expect("a pipeline");
            let plan = pipeline::decide(&snapshot);
            assert_eq!((plan.actions.len(), &plan.status), (0, &*snapshot.pipeline.status), "{name}");
        }
    }

    /// How everything ended, without moments: equal for every replay of a scenario.
    pub fn outcome(&self) -> Value {
        let cluster = &self.cluster;
        let experiments = cluster.experiments.iter().map(|(name, record)| {
            let status = &record.status;
            let attempts: Vec<_> = status.attempts.iter().map(|attempt| json!([attempt.number, known(attempt.reason), attempt.exit_code.filter(|_| !lost(attempt.reason))])).collect();
            let mut template = status.template.as_deref().cloned().unwrap_or_default();
            if lost(status.reason) {
                template["image"] = Value::Null; // pinned if somebody saw the pod
            }
            let told = json!({"phase": status.phase, "reason": known(status.reason), "message": status.message.as_ref().filter(|_| !lost(status.reason)),
                "attempts": attempts, "template": template, "metrics": status.metrics, "artifacts": status.artifacts,
                "clonedFrom": status.cloned_from, "reusedFrom": status.reused_from.as_ref().map(|from| &from.name), "retries": status.retries});
            (name.clone(), told)
        });
        let runs = cluster.runs.iter().map(|(name, record)| {
            let status = &record.status;
            let stage = |stage: &StageStatus| {
                json!([
                    stage.name,
                    stage.experiment,
                    stage.phase,
                    known(stage.reason),
                    stage.message.as_ref().filter(|_| !told_of(stage)),
                    stage.members,
                    stage.run,
                    stage.turn,
                    stage.gate.as_ref().map(|gate| (
                        &gate.message,
                        &gate.approval,
                        &gate.by,
                        &gate.comment,
                        &gate.values
                    )),
                ])
            };
            let stages: Vec<_> = status.stages.iter().map(stage).collect();
            let message = status.message.as_ref().filter(|_| !status.stages.iter().any(told_of));
            let told = json!({"phase": status.phase, "reason": status.reason, "message": message, "stages": stages,
                "outputs": status.outputs, "progress": status.progress, "frozen": status.pipeline_spec});
            (name.clone(), told)
        });
        let pipelines = cluster.pipelines.iter().map(|(name, record)| {
            let status = &record.status;
            (
                name.clone(),
                json!({"revision": status.revision, "latestRun": status.latest_run, "reason": status.reason}),
            )
        });
        json!({
            "experiments": experiments.collect::<BTreeMap<_, _>>(),
            "runs": runs.collect::<BTreeMap<_, _>>(),
            "pipelines": pipelines.collect::<BTreeMap<_, _>>(),
            "jobs": cluster.jobs.keys().collect::<Vec<_>>(),
            "pods": cluster.pods.keys().collect::<Vec<_>>(),
        })
    }
}

// How the cluster took a pod away is gone with the pod, unless somebody saw it: it counts as one cause.
fn lost(reason: Option<Reason>) -> bool {
    reason.is_some_and(|reason| reason.budget() == Budget::Infrastructure)
}

fn known(reason: Option<Reason>) -> Value {
    if lost(reason) { "taken away".into() } else { json!(reason) }
}

// Skipped stages pass the cause on in words, and so do runs within the run.
fn told_of(stage: &StageStatus) -> bool {
    lost(stage.reason) || stage.phase == Phase::Skipped || stage.members.is_some() || stage.run.is_some()
}

fn cancelled(spec: &Value) -> Arc<Value> {
    let mut spec = spec.clone();
    spec["cancel"] = true.into();
    Arc::new(spec)
}

fn apply<S: super::index::Indexed>(cluster: &mut Cluster, manifest: &Value) {
    let name = manifest["metadata"]["name"].as_str().expect("a name");
    if cluster.change::<S>(name, |record| record.spec = Arc::new(manifest["spec"].clone())).is_none() {
        cluster.create::<S>(manifest).expect("it is new");
    }
}
