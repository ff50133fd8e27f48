//! The API server, in memory: objects with resourceVersions, optimistic status writes, watch events.
//!
//! Comes in: the operator's calls and the user's. Goes out: answers, events in one queue per kind, and
//! violations of the invariants, which are checked where the truth is written.

use cultivar_core::domain::{
    ApprovalRecord, ExperimentRecord, JobRecord, JobState, Member, Meta, Owner, PipelineRecord, PodRecord, Record,
    RunRecord,
};
use cultivar_crds::{ExperimentStatus, PipelineRunStatus, PipelineStatus, labels};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::checks;
use super::kubelet::Play;

pub const NAMESPACE: &str = "vision";

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Pipeline,
    Run,
    Experiment,
    Job,
    Pod,
    Approval,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Pipeline, Self::Run, Self::Experiment, Self::Job, Self::Pod, Self::Approval];
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Event {
    Pipeline(String, Option<PipelineRecord>),
    Run(String, Option<RunRecord>),
    Experiment(String, Option<ExperimentRecord>),
    /// The second is whether it is gone.
    Job(JobRecord, bool),
    Pod(PodRecord, bool),
    Approval(ApprovalRecord, bool),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The operator died after this write.
    Crash,
    Conflict,
    Gone,
    Exists,
    /// Put down for the next pass to decide about.
    Refused,
}

/// The cluster.
#[derive(Default)]
pub struct Cluster {
    pub pipelines: BTreeMap<String, PipelineRecord>,
    pub runs: BTreeMap<String, RunRecord>,
    pub experiments: BTreeMap<String, ExperimentRecord>,
    pub jobs: BTreeMap<String, JobRecord>,
    pub pods: BTreeMap<String, PodRecord>,
    pub approvals: BTreeMap<String, ApprovalRecord>,
    /// By stage or experiment: how each attempt plays; the last one again and again.
    pub script: BTreeMap<String, Vec<Play>>,
    /// By experiment, also one that is gone: its stage.
    pub stage_of: BTreeMap<String, Member>,
    /// Uids of Jobs that had their pod.
    pub spawned: BTreeSet<String>,
    /// Uids of experiments of which an attempt ended well.
    pub succeeded: BTreeSet<String>,
    /// Uids of experiments of which an attempt ended badly.
    pub failed: BTreeSet<String>,
    /// Names of experiments a program of which ended well, gone or not.
    pub succeeded_names: BTreeSet<String>,
    pub queues: BTreeMap<Kind, VecDeque<Event>>,
    /// What tags stand for, by image.
    pub tags: BTreeMap<String, String>,
    /// Whether the operator asks registries for it.
    pub resolves_images: bool,
    pub now: Timestamp,
    /// Writes of the operator so far.
    pub writes: usize,
    /// The operator dies after this write.
    pub crash_after: Option<usize>,
    /// It dies after each of its writes.
    pub crash_always: bool,
    pub violations: Vec<String>,
    pub log: Vec<String>,
    version: u64,
    made: BTreeMap<String, u32>,
}

/// What differs between our kinds.
pub trait Managed: Clone + Default + PartialEq + std::fmt::Debug + serde::Serialize {
    const KIND: Kind;
    fn shelf(cluster: &mut Cluster) -> &mut BTreeMap<String, Record<Self>>;
    fn event(name: &str, record: Option<Record<Self>>) -> Event;
    fn check(old: &Self, new: &Self) -> Vec<String>;
}

impl Managed for ExperimentStatus {
    const KIND: Kind = Kind::Experiment;
    fn shelf(cluster: &mut Cluster) -> &mut BTreeMap<String, Record<Self>> {
        &mut cluster.experiments
    }
    fn event(name: &str, record: Option<Record<Self>>) -> Event {
        Event::Experiment(name.to_owned(), record)
    }
    fn check(old: &Self, new: &Self) -> Vec<String> {
        checks::experiment(old, new)
    }
}

impl Managed for PipelineRunStatus {
    const KIND: Kind = Kind::Run;
    fn shelf(cluster: &mut Cluster) -> &mut BTreeMap<String, Record<Self>> {
        &mut cluster.runs
    }
    fn event(name: &str, record: Option<Record<Self>>) -> Event {
        Event::Run(name.to_owned(), record)
    }
    fn check(old: &Self, new: &Self) -> Vec<String> {
        checks::run(old, new)
    }
}

impl Managed for PipelineStatus {
    const KIND: Kind = Kind::Pipeline;
    fn shelf(cluster: &mut Cluster) -> &mut BTreeMap<String, Record<Self>> {
        &mut cluster.pipelines
    }
    fn event(name: &str, record: Option<Record<Self>>) -> Event {
        Event::Pipeline(name.to_owned(), record)
    }
    fn check(_: &Self, _: &Self) -> Vec<String> {
        Vec::new()
    }
}

impl Cluster {
    pub fn note(&mut self, words: impl Into<String>) {
        self.log.push(words.into());
    }

    pub fn violated(&mut self, words: impl Into<String>) {
        self.violations.push(words.into());
    }

    pub fn tell(&mut self, event: Event) {
        let kind = match &event {
            Event::Pipeline(..) => Kind::Pipeline,
            Event::Run(..) => Kind::Run,
            Event::Experiment(..) => Kind::Experiment,
            Event::Job(..) => Kind::Job,
            Event::Pod(..) => Kind::Pod,
            Event::Approval(..) => Kind::Approval,
        };
        self.queues.entry(kind).or_default().push_back(event);
    }

    pub fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// A uid that depends on the name and how often it was made, so that every replay finds the same.
    pub fn next_uid(&mut self, kind: &str, name: &str) -> String {
        let count = self.made.entry(format!("{kind}/{name}")).or_default();
        *count += 1;
        format!("{kind}-{name}-{count}")
    }

    /// How many Jobs were made, those that are gone included.
    pub fn jobs_made(&self) -> usize {
        self.made.iter().filter(|(what, _)| what.starts_with("Job/")).map(|(_, count)| *count as usize).sum()
    }

    /// Somebody answers a gate.
    pub fn approve(&mut self, manifest: &Value) {
        let name = manifest["metadata"]["name"].as_str().expect("a name").to_owned();
        let spec = serde_json::from_value(manifest["spec"].clone()).expect("an Approval");
        let said =
            ApprovalRecord { namespace: NAMESPACE.to_owned(), name: name.clone(), created: Some(self.second()), spec };
        self.approvals.insert(name, said.clone());
        self.tell(Event::Approval(said, false));
    }

    /// Creation times have whole seconds.
    pub fn second(&self) -> Timestamp {
        Timestamp::from_second(self.now.as_second()).expect("a moment")
    }

    // The operator wrote, and may die of it.
    fn wrote(&mut self, what: String) -> Result<(), Failure> {
        // Writing takes time: what is decided twice is decided at two moments.
        self.now += jiff::SignedDuration::from_millis(1);
        self.writes += 1;
        self.note(format!("write {}: {what}", self.writes));
        if self.crash_always || self.crash_after == Some(self.writes) {
            self.crash_after = None;
            return Err(Failure::Crash);
        }
        Ok(())
    }

    /// Stores an object that is new, or changed by somebody else than the operator.
    pub fn put<S: Managed>(&mut self, mut record: Record<S>) -> Record<S> {
        record.meta.resource_version = self.next_version();
        S::shelf(self).insert(record.meta.name.clone(), record.clone());
        self.tell(S::event(&record.meta.name.clone(), Some(record.clone())));
        record
    }

    /// An object as it is created, by the user or the operator.
    pub fn create<S: Managed>(&mut self, manifest: &Value) -> Result<Record<S>, Failure> {
        let mut meta = meta(manifest);
        if S::shelf(self).contains_key(&meta.name) {
            return Err(Failure::Exists);
        }
        if let Some(stage) = meta.label(labels::STAGE) {
            let index = meta.label(labels::MEMBER).map(|index| index.parse().expect("an index"));
            self.stage_of.insert(meta.name.clone(), Member { stage: stage.to_owned(), index });
        }
        meta.uid = self.next_uid(manifest["kind"].as_str().expect("a kind"), &meta.name);
        meta.generation = 1;
        meta.created = Some(self.second());
        Ok(self.put(Record { meta, spec: Arc::new(manifest["spec"].clone()), status: Arc::default() }))
    }

    /// [`Cluster::create`] by the operator.
    pub fn create_ours<S: Managed>(&mut self, manifest: &Value) -> Result<Record<S>, Failure> {
        let record = self.create::<S>(manifest)?;
        checks::created(self, manifest);
        self.wrote(format!("create {:?} {}", S::KIND, record.meta.name)).map(|()| record)
    }

    pub fn replace_status<S: Managed>(&mut self, based_on: &Meta, status: &S) -> Result<Record<S>, Failure> {
        let name = &based_on.name;
        let stored =
            S::shelf(self).get(name).filter(|stored| stored.meta.uid == based_on.uid).cloned().ok_or(Failure::Gone)?;
        if stored.meta.resource_version != based_on.resource_version {
            return Err(Failure::Conflict);
        }
        for problem in S::check(&stored.status, status) {
            self.violated(format!("{:?} {name}: {problem}", S::KIND));
        }
        if *stored.status == *status {
            self.violated(format!("{:?} {name}: a status write that changes nothing", S::KIND));
        }
        let record = self.put(Record { status: Arc::new(status.clone()), ..stored });
        self.wrote(format!("status of {:?} {name}", S::KIND)).map(|()| record)
    }

    pub fn create_job(&mut self, manifest: &Value) -> Result<JobRecord, Failure> {
        let meta = meta(manifest);
        if self.jobs.contains_key(&meta.name) {
            return Err(Failure::Exists);
        }
        let label = |key: &str| meta.labels.get(key).cloned().unwrap_or_default();
        let job = JobRecord {
            holding: None,
            suspended: false,
            started: None,
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: self.next_uid("Job", &meta.name),
            owner_uid: meta.owner.as_ref().map(|owner| owner.uid.clone()).unwrap_or_default(),
            experiment: label(labels::EXPERIMENT),
            attempt: label(labels::ATTEMPT).parse().expect("a number"),
            created: Some(self.second()),
            deleting: false,
            state: JobState::Active,
        };
        checks::job(self, &job);
        self.jobs.insert(job.name.clone(), job.clone());
        self.tell(Event::Job(job.clone(), false));
        self.wrote(format!("create Job {}", job.name)).map(|()| job)
    }

    pub fn delete_job(&mut self, name: &str) -> Result<(), Failure> {
        if self.drop_job(name) { self.wrote(format!("delete Job {name}")) } else { Ok(()) }
    }

    pub fn drop_job(&mut self, name: &str) -> bool {
        let Some(job) = self.jobs.remove(name) else { return false };
        self.tell(Event::Job(job, true));
        true
    }

    pub fn delete<S: Managed>(&mut self, name: &str, uid: &str) -> Result<(), Failure> {
        if S::shelf(self).get(name).is_none_or(|stored| stored.meta.uid != uid) {
            return Ok(());
        }
        S::shelf(self).remove(name);
        self.tell(S::event(name, None));
        self.wrote(format!("delete {:?} {name}", S::KIND))
    }

    /// A merge patch by the operator.
    pub fn patch<S: Managed>(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Record<S>),
    ) -> Result<Option<Record<S>>, Failure> {
        let Some(record) = self.change(name, change) else { return Ok(None) };
        self.wrote(format!("patch {:?} {name}", S::KIND)).map(|()| Some(record))
    }

    /// A change of an object by whomever; the generation grows with the spec.
    pub fn change<S: Managed>(&mut self, name: &str, change: impl FnOnce(&mut Record<S>)) -> Option<Record<S>> {
        let mut record = S::shelf(self).get(name)?.clone();
        let before = Arc::clone(&record.spec);
        change(&mut record);
        record.meta.generation += i64::from(record.spec != before);
        Some(self.put(record))
    }
}

fn meta(manifest: &Value) -> Meta {
    let meta = &manifest["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let map = |value: &Value| {
        let entries = value.as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.clone(), text(value))).collect::<BTreeMap<_, _>>()
    };
    let owner = meta["ownerReferences"].as_array().and_then(|owners| owners.first());
    Meta {
        namespace: NAMESPACE.to_owned(),
        name: text(&meta["name"]),
        labels: map(&meta["labels"]),
        annotations: map(&meta["annotations"]),
        owner: owner.map(|owner| Owner {
            kind: text(&owner["kind"]),
            name: text(&owner["name"]),
            uid: text(&owner["uid"]),
        }),
        ..Meta::default()
    }
}
