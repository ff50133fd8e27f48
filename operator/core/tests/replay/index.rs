//! The operator's index, as `operator/src/observe` keeps it: records, what was decided, whom a change wakes.
//!
//! Comes in: watch events and answers. Goes out: snapshots, and keys of objects to look at.

use cultivar_core::decide::experiment::{self, Refusal, reuse};
use cultivar_core::decide::freeze::{Query, Sources, queries as queries_of};
use cultivar_core::decide::pipeline;
use cultivar_core::decide::pipeline_run::{self, Child, GroupRun, queries, take_over};
use cultivar_core::domain::{ApprovalRecord, Errands, JobRecord, JobState, Member, PodRecord, Record, names};
use cultivar_crds::{ExperimentStatus, PipelineRunStatus, PipelineStatus};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cluster::{Event, Kind};

pub type Key = (Kind, String);

/// One object: as it is stored, and as it was decided while that is not stored yet.
pub struct Slot<S> {
    pub stored: Arc<Record<S>>,
    pub decided: Option<Arc<Record<S>>>,
    pub dirty_since: Option<Timestamp>,
    /// Whether it should be stored without waiting for more.
    pub urgent: bool,
    /// Whether a status write is under way: one at a time.
    pub writing: bool,
}

impl<S> Slot<S> {
    fn clean(&mut self) {
        (self.decided, self.dirty_since, self.urgent) = (None, None, false);
    }

    pub fn current(&self) -> &Arc<Record<S>> {
        self.decided.as_ref().unwrap_or(&self.stored)
    }
}

pub type Store<S> = BTreeMap<String, Slot<S>>;

/// What the operator knows.
#[derive(Default)]
pub struct Index {
    pub pipelines: Store<PipelineStatus>,
    pub runs: Store<PipelineRunStatus>,
    pub experiments: Store<ExperimentStatus>,
    pub jobs: BTreeMap<String, Arc<JobRecord>>,
    pub pods: BTreeMap<String, Arc<PodRecord>>,
    pub approvals: BTreeMap<String, Arc<ApprovalRecord>>,
    pub confirmed_attempts: BTreeMap<Key, u32>,
    pub confirmed_stages: BTreeMap<Key, BTreeSet<Member>>,
    pub refusals: BTreeMap<Key, Refusal>,
    pub errands: BTreeMap<Key, Errands>,
    /// Whether registries are asked what tags stand for.
    pub resolve_images: bool,
    /// Objects to look at.
    pub queue: BTreeSet<Key>,
}

/// A status write under way: what it was decided on, and what is written.
#[derive(Clone, Debug)]
pub struct Write<S> {
    pub stored: Arc<Record<S>>,
    pub status: S,
}

/// A status write of any of our kinds.
#[derive(Clone, Debug)]
pub enum InFlight {
    Pipeline(Write<PipelineStatus>),
    Run(Write<PipelineRunStatus>),
    Experiment(Box<Write<ExperimentStatus>>),
}

/// What differs between our kinds in the index.
pub trait Indexed: super::cluster::Managed {
    /// How long progress may wait, in seconds, so that changes share a write.
    const SHARE_WRITES: u64;
    fn in_flight(write: Write<Self>) -> InFlight;
    fn store(index: &mut Index) -> &mut Store<Self>;
}

impl Indexed for ExperimentStatus {
    const SHARE_WRITES: u64 = 1;
    fn in_flight(write: Write<Self>) -> InFlight {
        InFlight::Experiment(Box::new(write))
    }
    fn store(index: &mut Index) -> &mut Store<Self> {
        &mut index.experiments
    }
}

impl Indexed for PipelineRunStatus {
    const SHARE_WRITES: u64 = 5;
    fn in_flight(write: Write<Self>) -> InFlight {
        InFlight::Run(write)
    }
    fn store(index: &mut Index) -> &mut Store<Self> {
        &mut index.runs
    }
}

impl Indexed for PipelineStatus {
    const SHARE_WRITES: u64 = 1;
    fn in_flight(write: Write<Self>) -> InFlight {
        InFlight::Pipeline(write)
    }
    fn store(index: &mut Index) -> &mut Store<Self> {
        &mut index.pipelines
    }
}

fn version(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn pipeline_of(run: &Record<PipelineRunStatus>) -> String {
    run.spec["pipeline"].as_str().unwrap_or_default().to_owned()
}

impl Index {
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Pipeline(_, Some(record)) => self.apply(record),
            Event::Run(_, Some(record)) => self.apply(record),
            Event::Experiment(_, Some(record)) => self.apply(record),
            Event::Pipeline(name, None) => self.remove(Kind::Pipeline, &name),
            Event::Run(name, None) => self.remove(Kind::Run, &name),
            Event::Experiment(name, None) => self.remove(Kind::Experiment, &name),
            Event::Job(job, false) => self.apply_job(job),
            Event::Job(job, true) => {
                self.jobs.remove(&job.name);
                self.queue.insert((Kind::Experiment, job.experiment));
            }
            Event::Approval(said, gone) => self.take_approval(said, gone),
            Event::Pod(pod, gone) => self.apply_pod(PodRecord { gone, ..pod }),
        }
    }

    fn take_approval(&mut self, said: ApprovalRecord, gone: bool) {
        self.queue.insert((Kind::Run, said.spec.run.clone()));
        match gone {
            true => drop(self.approvals.remove(&said.name)),
            false => drop(self.approvals.insert(said.name.clone(), Arc::new(said))),
        }
    }

    /// Takes in what was read.
    pub fn apply<S: Indexed>(&mut self, record: Record<S>) {
        let name = record.meta.name.clone();
        let store = S::store(self);
        match store.get_mut(&name).filter(|slot| slot.stored.meta.uid == record.meta.uid) {
            Some(slot) => {
                if version(&record.meta.resource_version) <= version(&slot.stored.meta.resource_version) {
                    return;
                }
                if slot.decided.as_ref().is_some_and(|decided| decided.status == record.status) {
                    slot.clean();
                } else if slot.stored.status != record.status && !slot.writing {
                    // Somebody else wrote a status: what was decided here is worth nothing.
                    slot.clean();
                } else if let Some(decided) = &mut slot.decided {
                    *decided = Arc::new(Record { status: Arc::clone(&decided.status), ..record.clone() });
                }
                slot.stored = Arc::new(record);
            }
            None => {
                store.insert(
                    name.clone(),
                    Slot { stored: Arc::new(record), decided: None, dirty_since: None, urgent: false, writing: false },
                );
            }
        }
        self.touched(S::KIND, &name);
    }

    /// Notes a decided status before it is stored, so that what depends on it goes on meanwhile.
    pub fn publish<S: Indexed>(&mut self, name: &str, uid: &str, status: &S, urgent: bool, now: Timestamp) {
        let Some(slot) = S::store(self).get_mut(name).filter(|slot| slot.stored.meta.uid == uid) else { return };
        let changed = *slot.current().status != *status;
        if *slot.stored.status == *status && !slot.writing {
            slot.clean();
        } else if changed || slot.decided.is_none() {
            slot.decided = Some(Arc::new(Record { status: Arc::new(status.clone()), ..(*slot.stored).clone() }));
            slot.dirty_since.get_or_insert(now);
            slot.urgent |= urgent;
        }
        if changed && S::KIND != Kind::Pipeline {
            let queued = self.queue.contains(&(S::KIND, name.to_owned()));
            self.touched(S::KIND, name);
            if !queued {
                self.queue.remove(&(S::KIND, name.to_owned()));
            }
        }
    }

    pub fn forget<S: Indexed>(&mut self, name: &str) {
        S::store(self).get_mut(name).into_iter().for_each(Slot::clean);
    }

    /// Begins a status write, unless one is under way.
    pub fn begin_write<S: Indexed>(&mut self, name: &str) -> bool {
        S::store(self).get_mut(name).is_some_and(|slot| !std::mem::replace(&mut slot.writing, true))
    }

    /// A status write has ended; more may have been decided since. After a failure nothing is decided.
    pub fn end_write<S: Indexed>(&mut self, name: &str, written: Option<&S>, now: Timestamp) {
        let Some(slot) = S::store(self).get_mut(name) else { return };
        slot.writing = false;
        let newer = slot.decided.as_ref().zip(written).is_some_and(|(decided, written)| *decided.status != *written);
        if newer {
            slot.dirty_since = Some(now);
        } else {
            slot.clean();
        }
    }

    // Whom a change concerns, before and after it.
    fn touched(&mut self, kind: Kind, name: &str) {
        self.queue.insert((kind, name.to_owned()));
        match kind {
            Kind::Experiment => {
                let Some(record) = self.experiments.get(name).map(|slot| Arc::clone(slot.current())) else { return };
                if let Some(owner) = record.meta.owner.as_ref().filter(|owner| owner.kind == "PipelineRun") {
                    self.queue.insert((Kind::Run, owner.name.clone()));
                }
                let waits = record.status.template.is_none() && record.spec.get("from").is_some();
                if record.status.phase.is_terminal() || waits {
                    self.wake_waiting();
                }
                let identical =
                    self.experiments.values().map(Slot::current).filter(|other| reuse::waits(&other.status));
                self.queue.extend(identical.map(|other| (Kind::Experiment, other.meta.name.clone())));
                let recorded =
                    record.status.attempts.iter().filter(|a| a.finished_at.is_some()).map(|a| a.number).max();
                self.tidy_pods(name, recorded);
            }
            Kind::Run => {
                let Some(run) = self.runs.get(name) else { return };
                let pipeline = pipeline_of(&run.stored);
                self.queue.insert((Kind::Pipeline, pipeline.clone()));
                if let Some(around) = run.stored.meta.owner.as_ref().filter(|owner| owner.kind == "PipelineRun") {
                    self.queue.insert((Kind::Run, around.name.clone()));
                }
                self.wake_runs_of(&pipeline);
                let unfinished = self.runs.values().map(Slot::current).filter(|run| !run.status.phase.is_terminal());
                let grouped = unfinished.filter(|run| {
                    run.status.pipeline_spec.as_ref().is_some_and(|spec| spec["concurrency"].is_object())
                });
                self.queue.extend(grouped.map(|run| (Kind::Run, run.meta.name.clone())));
            }
            _ => self.wake_runs_of(name),
        }
    }

    // A pod that is gone is remembered until its attempt's end is recorded.
    fn tidy_pods(&mut self, experiment: &str, recorded: Option<u32>) {
        self.pods.retain(|_, pod| {
            pod.experiment != experiment || !pod.gone || recorded.is_none_or(|recorded| pod.attempt > recorded)
        });
    }

    // Objects that are not frozen yet may wait for an experiment.
    fn wake_waiting(&mut self) {
        let experiments = self.experiments.values().map(Slot::current);
        let experiments =
            experiments.filter(|record| record.status.template.is_none() && record.spec.get("from").is_some());
        let runs = self.runs.values().map(Slot::current).filter(|run| run.status.pipeline_spec.is_none());
        self.queue.extend(experiments.map(|record| (Kind::Experiment, record.meta.name.clone())));
        self.queue.extend(runs.map(|run| (Kind::Run, run.meta.name.clone())));
    }

    fn wake_runs_of(&mut self, pipeline: &str) {
        let runs = self.runs.values().map(Slot::current);
        let runs = runs.filter(|run| pipeline_of(run) == pipeline && !run.status.phase.is_terminal());
        self.queue.extend(runs.map(|run| (Kind::Run, run.meta.name.clone())));
    }

    /// The API server says that this object is gone; a namesake stays.
    pub fn remove_if<S: Indexed>(&mut self, name: &str, uid: &str) {
        if S::store(self).get(name).is_some_and(|slot| slot.stored.meta.uid == uid) {
            self.remove(S::KIND, name);
        }
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        self.touched(kind, name);
        let key = (kind, name.to_owned());
        match kind {
            Kind::Experiment => {
                self.experiments.remove(name);
                self.tidy_pods(name, Some(u32::MAX));
            }
            Kind::Run => drop(self.runs.remove(name)),
            _ => drop(self.pipelines.remove(name)),
        }
        self.confirmed_attempts.remove(&key);
        self.confirmed_stages.remove(&key);
        self.refusals.remove(&key);
    }

    pub fn apply_job(&mut self, job: JobRecord) {
        // A late answer must not undo what the watch has said since.
        let known = self.jobs.get(&job.name).filter(|known| known.uid == job.uid);
        if known.is_some_and(|known| **known == job || known.state != JobState::Active && job.state == JobState::Active)
        {
            return;
        }
        self.queue.insert((Kind::Experiment, job.experiment.clone()));
        self.jobs.insert(job.name.clone(), Arc::new(job));
    }

    pub fn apply_pod(&mut self, pod: PodRecord) {
        let (gone, experiment) = (pod.gone, pod.experiment.clone());
        if self.pods.get(&pod.name).is_some_and(|known| **known == pod) {
            return;
        }
        self.pods.insert(pod.name.clone(), Arc::new(pod));
        if gone {
            let recorded = self.experiments.get(&experiment).map_or(Some(u32::MAX), |slot| {
                let attempts = &slot.current().status.attempts;
                attempts.iter().filter(|attempt| attempt.finished_at.is_some()).map(|attempt| attempt.number).max()
            });
            self.tidy_pods(&experiment, recorded);
        }
        self.queue.insert((Kind::Experiment, experiment));
    }

    fn sources(&self, queries: impl IntoIterator<Item = Query>) -> Sources {
        let records = || self.experiments.values().map(Slot::current).filter(|record| !record.meta.deleting);
        let answer = |query: &Query| match query {
            Query::Name(name) => records().filter(|record| record.meta.name == *name).cloned().collect(),
            Query::Labels(labels) => {
                let fits = |record: &&Arc<Record<ExperimentStatus>>| {
                    labels.iter().all(|(key, value)| record.meta.label(key) == Some(value))
                };
                records().filter(fits).cloned().collect()
            }
        };
        queries
            .into_iter()
            .map(|query| {
                let found = answer(&query);
                (query, found)
            })
            .collect()
    }

    pub fn experiment(&self, name: &str, now: Timestamp) -> Option<experiment::Snapshot> {
        let record = self.experiments.get(name)?.current();
        let key = (Kind::Experiment, name.to_owned());
        let frozen = record.status.template.is_some();
        let jobs = self.jobs.values().filter(|job| job.experiment == name && job.owner_uid == record.meta.uid);
        Some(experiment::Snapshot {
            experiment: (**record).clone(),
            sources: if frozen { Sources::new() } else { self.sources(queries_of(&record.spec)) },
            identical: self.identical_to(record),
            jobs: jobs.cloned().collect(),
            pods: self.pods.values().filter(|pod| pod.experiment == name).cloned().collect(),
            in_use: self.in_use(name),
            confirmed: self.confirmed_attempts.get(&key).copied(),
            refusal: self.refusals.get(&key).cloned(),
            errands: self.errands.get(&key).cloned().unwrap_or_default(),
            resolve_images: self.resolve_images,
            now,
            ..experiment::Snapshot::default()
        })
    }

    fn identical_to(&self, record: &Record<ExperimentStatus>) -> Vec<Arc<Record<ExperimentStatus>>> {
        let Some(wanted) = reuse::wanted(record, &BTreeMap::new()) else { return Vec::new() };
        let others = self.experiments.values().map(Slot::current).filter(|other| other.meta.name != record.meta.name);
        let digest = |other: &Record<ExperimentStatus>| {
            other.status.digest.clone().or_else(|| reuse::wanted(other, &BTreeMap::new()))
        };
        others.filter(|other| digest(other).as_ref() == Some(&wanted)).map(|other| self.as_begun(other)).collect()
    }

    // One whose Job is there has begun.
    fn as_begun(&self, other: &Arc<Record<ExperimentStatus>>) -> Arc<Record<ExperimentStatus>> {
        let jobs = self.jobs.values().filter(|job| job.owner_uid == other.meta.uid);
        match jobs.map(|job| job.attempt).max() {
            Some(attempt) if other.status.attempt.is_none() && !other.status.phase.is_terminal() => {
                let status = ExperimentStatus { attempt: Some(attempt), ..(*other.status).clone() };
                Arc::new(Record { status: Arc::new(status), ..(**other).clone() })
            }
            _ => Arc::clone(other),
        }
    }

    fn in_use(&self, name: &str) -> Option<String> {
        let names = |spec: &serde_json::Value| spec["from"]["experiment"] == name;
        let experiments = self.experiments.values().any(|slot| names(&slot.stored.spec));
        let pipelines =
            self.pipelines.values().flat_map(|slot| slot.stored.spec["stages"].as_array()).flatten().any(names);
        match (experiments, pipelines) {
            (true, true) => Some("a Pipeline and an Experiment".to_owned()),
            (true, false) => Some("an Experiment".to_owned()),
            (false, true) => Some("a Pipeline".to_owned()),
            (false, false) => None,
        }
    }

    fn group_of(&self, run: &Record<PipelineRunStatus>) -> Vec<GroupRun> {
        let group = |run: &Record<PipelineRunStatus>| {
            run.status.pipeline_spec.as_ref().and_then(|spec| spec["concurrency"]["group"].as_str().map(str::to_owned))
        };
        let Some(own) = group(run) else { return Vec::new() };
        let others = self.runs.values().map(Slot::current).filter(|other| {
            other.meta.name != run.meta.name
                && !other.status.phase.is_terminal()
                && group(other).as_deref() == Some(own.as_str())
                && run.meta.owner.as_ref().is_none_or(|owner| owner.uid != other.meta.uid)
        });
        let has_begun = |other: &Record<PipelineRunStatus>| {
            other.status.started_at.is_some()
                || self.experiments.values().any(|slot| slot.stored.meta.is_owned_by(&other.meta.uid))
        };
        others.map(|other| GroupRun { run: Arc::clone(other), has_begun: has_begun(other) }).collect()
    }

    fn children_of(&self, run: &Record<PipelineRunStatus>) -> BTreeMap<Member, Child> {
        let experiments =
            self.experiments.values().map(Slot::current).filter(|one| one.meta.is_owned_by(&run.meta.uid));
        let experiments =
            experiments.filter_map(|one| Some((names::member_of(&one.meta)?, Child::Experiment(Arc::clone(one)))));
        let nested = self.runs.values().map(Slot::current).filter(|one| one.meta.is_owned_by(&run.meta.uid));
        let nested = nested.filter_map(|one| Some((names::member_of(&one.meta)?, Child::Run(Arc::clone(one)))));
        experiments.chain(nested).collect()
    }

    pub fn run(&self, name: &str, now: Timestamp) -> Option<pipeline_run::Snapshot> {
        let run = self.runs.get(name)?.current();
        let key = (Kind::Run, name.to_owned());
        let pipeline = self.pipelines.get(&pipeline_of(run)).map(|slot| Arc::clone(slot.current()));
        let asks =
            pipeline.iter().filter(|_| run.status.pipeline_spec.is_none()).flat_map(|pipeline| queries(&pipeline.spec));
        let siblings = self.runs.values().map(Slot::current).filter(|other| {
            other.meta.name != name && pipeline_of(other) == pipeline_of(run) && !other.meta.is_nested()
        });
        let resumed = run.spec["resumeOf"].as_str().and_then(|name| self.runs.get(name));
        let children = match resumed {
            Some(old) => take_over(self.children_of(run), self.children_of(old.current())),
            None => self.children_of(run),
        };
        Some(pipeline_run::Snapshot {
            approvals: self.approvals.values().filter(|said| said.spec.run == name).cloned().collect(),
            run: (**run).clone(),
            sources: self.sources(asks),
            pipeline,
            siblings: siblings.cloned().collect(),
            children,
            group: self.group_of(run),
            resumed: resumed.map(|slot| Arc::clone(slot.current())),
            confirmed_gone: self.confirmed_stages.get(&key).cloned().unwrap_or_default(),
            refusals: BTreeMap::new(),
            errands: self.errands.get(&key).cloned().unwrap_or_default(),
            resolve_images: self.resolve_images,
            remembered: self.pipelines.get(&pipeline_of(run)).is_none_or(|slot| pipeline::remembers(&slot.stored, run)),
            in_use: self.stages_in_use(run),
            now,
            ..pipeline_run::Snapshot::default()
        })
    }

    fn stages_in_use(&self, run: &Record<PipelineRunStatus>) -> Vec<String> {
        if !run.status.phase.is_terminal() {
            return Vec::new();
        }
        let owned = self.experiments.values().filter(|slot| slot.stored.meta.is_owned_by(&run.meta.uid));
        owned.map(|slot| slot.stored.meta.name.clone()).filter(|name| self.in_use(name).is_some()).collect()
    }

    pub fn pipeline(&self, name: &str, now: Timestamp) -> Option<pipeline::Snapshot> {
        let record = self.pipelines.get(name)?.current();
        let runs: Vec<_> = self
            .runs
            .values()
            .map(Slot::current)
            .filter(|run| pipeline_of(run) == name && !run.meta.is_nested())
            .cloned()
            .collect();
        let in_use = runs.iter().map(|run| (run.meta.uid.clone(), self.stages_in_use(run)));
        Some(pipeline::Snapshot {
            pipeline: (**record).clone(),
            in_use: in_use.filter(|(_, kept)| !kept.is_empty()).collect(),
            runs: runs.clone(),
            now,
        })
    }
}
