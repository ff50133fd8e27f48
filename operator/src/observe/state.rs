//! The state of the index: records, the links between them, and whom a change of each kind concerns.
//!
//! Comes in: records and decided statuses. Goes out: the keys to wake, before and after the change.

use cultivar_core::decide::experiment::{Refusal, reuse};
use cultivar_core::decide::inputs::{artifact_of, makers};
use cultivar_core::decide::pipeline::waits_for_somebody;
use cultivar_core::decide::pipeline_run::standing;
use cultivar_core::domain::{
    Errand, ExperimentRecord, JobRecord, Member, Meta, Owner, PipelineRecord, PodRecord, Producer, RunRecord,
    StoreAccess, names,
};
use cultivar_crds::{ExperimentStatus, Phase, PipelineRunStatus, PipelineStatus, Reason, ScheduleStatus, labels};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::approvals::Approvals;
use super::errands::ErrandBook;
use super::groups::Groups;
use super::identical::Identical;
use super::index::{Key, Kind};
use super::links::{self, Links};
use super::slot::{Slot, Status};
use super::store::{Name, Store, Tracked};
use super::work::Work;

/// The state behind the lock.
#[derive(Default)]
pub struct State {
    pub(super) experiments: Store<ExperimentStatus>,
    pub(super) pipelines: Store<PipelineStatus>,
    pub(super) runs: Store<PipelineRunStatus>,
    pub(super) schedules: Store<ScheduleStatus>,
    // By pipeline: the schedules that make runs of it.
    pub(super) schedules_of: HashMap<Name, BTreeSet<String>>,
    pub(super) work: Work,
    // By a run's uid: stage or member of its fan-out → experiment.
    pub(super) stages: HashMap<String, BTreeMap<Member, String>>,
    // By a run's uid: stage or member of its fan-out → nested run.
    pub(super) nested: HashMap<String, BTreeMap<Member, String>>,
    pub(super) groups: Groups,
    // By pipeline: its runs, nested ones too.
    pub(super) runs_of: HashMap<Name, BTreeSet<String>>,
    pub(super) links: Links,
    // What objects refer to, by uri or by experiment and artifact: who used this.
    pub(super) uses: Links,
    pub(super) stores: HashMap<Name, StoreAccess>,
    pub(super) approvals: Approvals,
    // By namespace and uri: who made what lies there.
    pub(super) producers: HashMap<(String, String), Producer>,
    pub(super) identical: Identical,
    // Experiments whose first Job is being made, and that no status says yet.
    pub(super) beginning: HashSet<Name>,
    // By namespace: objects that are not frozen yet and may wait for an experiment.
    pub(super) waiting: HashMap<String, HashSet<Key>>,
    // What the API server itself said: attempts and stages that are gone for sure.
    pub(super) confirmed: HashMap<Key, Confirmed>,
    pub(super) refusals: HashMap<Key, Refusal>,
    pub(super) errands: ErrandBook,
    // By a run's uid: when its latest stage ended, for the gap histogram.
    pub(super) stage_ends: HashMap<String, Instant>,
}

/// Status of a kind that the index keeps.
pub trait Stored: Status {
    /// Where objects of this kind are.
    fn store(state: &mut State) -> &mut Store<Self>;
    /// Notes a decided status; whom that concerns besides its own object.
    fn publish(state: &mut State, key: &Key, uid: &str, status: &Self, urgent: bool) -> Vec<Key> {
        Self::store(state).decide(&key.place(), uid, status, urgent);
        Vec::new()
    }
}

impl Stored for ExperimentStatus {
    fn store(state: &mut State) -> &mut Store<Self> {
        &mut state.experiments
    }
    fn publish(state: &mut State, key: &Key, uid: &str, status: &Self, urgent: bool) -> Vec<Key> {
        state.publish_experiment(key, uid, status, urgent)
    }
}

impl Stored for PipelineStatus {
    fn store(state: &mut State) -> &mut Store<Self> {
        &mut state.pipelines
    }
}

impl Stored for PipelineRunStatus {
    fn store(state: &mut State) -> &mut Store<Self> {
        &mut state.runs
    }
    fn publish(state: &mut State, key: &Key, uid: &str, status: &Self, urgent: bool) -> Vec<Key> {
        state.publish_run(key, uid, status, urgent)
    }
}

impl Stored for ScheduleStatus {
    fn store(state: &mut State) -> &mut Store<Self> {
        &mut state.schedules
    }
}

/// What the API server itself said about an object's children.
#[derive(Clone, Debug, Default)]
pub struct Confirmed {
    pub attempt: Option<u32>,
    pub stages: BTreeSet<Member>,
    pub refused_stages: BTreeMap<Member, String>,
}

/// A run as others look at it: whether it is there, goes, has started, waits for a person, how it has ended.
type Position = (String, bool, bool, Option<Reason>, Option<(Phase, Option<String>)>);

// What its pipeline and the runs beside it look at.
fn position(run: &RunRecord) -> Position {
    let status = &run.status;
    let end = status.phase.is_terminal().then(|| (status.phase, status.message.clone()));
    (run.meta.uid.clone(), run.meta.deleting, status.started_at.is_some(), waits_for_somebody(status), end)
}

// The newest attempt whose end is recorded.
fn recorded(status: &ExperimentStatus) -> Option<u32> {
    status.attempts.iter().filter(|attempt| attempt.finished_at.is_some()).map(|attempt| attempt.number).max()
}

impl State {
    /// The store of a kind, for what does not depend on its status.
    pub(super) fn of(&mut self, kind: Kind) -> &mut dyn Tracked {
        match kind {
            Kind::Experiment => &mut self.experiments,
            Kind::PipelineRun => &mut self.runs,
            Kind::Pipeline => &mut self.pipelines,
            Kind::Schedule => &mut self.schedules,
        }
    }

    pub(super) fn apply_experiment(&mut self, record: ExperimentRecord) -> Vec<Key> {
        let meta = record.meta.clone();
        let spec = Arc::clone(&record.spec);
        let key = Key::new(Kind::Experiment, &meta.namespace, &meta.name);
        let (before, decided) = self.experiments.get(&key.place()).map(Slot::versions).unzip();
        let current = decided.flatten().or_else(|| before.clone());
        if before.as_ref().is_some_and(|before| before.meta.uid != meta.uid) {
            self.confirmed.remove(&key);
            self.refusals.remove(&key);
            self.errands.forget(&key);
        }
        if !self.experiments.apply(record) {
            return Vec::new();
        }
        match (names::member_of(&meta), &meta.owner) {
            (Some(member), Some(owner)) => {
                self.stages.entry(owner.uid.clone()).or_default().insert(member, meta.name.clone());
            }
            // One that left its run's ownership is no stage any more.
            _ => before.iter().for_each(|before| drop(self.unlink_stage(&before.meta))),
        }
        let mut keys = self.links.set(&key, links::of_experiment(&spec));
        self.after_experiment(&key, current.as_deref(), &mut keys);
        self.note_uses(&key);
        keys
    }

    fn publish_experiment(&mut self, key: &Key, uid: &str, status: &ExperimentStatus, urgent: bool) -> Vec<Key> {
        let before = self.experiments.get(&key.place()).map(Slot::current);
        if !self.experiments.decide(&key.place(), uid, status, urgent) {
            return Vec::new();
        }
        let mut keys = Vec::new();
        if status.phase.is_terminal() {
            let owner = self.experiments.get(&key.place()).and_then(|slot| slot.stored().meta.owner.clone());
            if let Some(owner) = owner {
                self.stage_ends.insert(owner.uid, Instant::now());
            }
        }
        self.after_experiment(key, before.as_deref(), &mut keys);
        keys.retain(|woken| woken != key);
        keys
    }

    // Whom a change of an experiment concerns: itself, its run if it tells of the change, and what waits for a template.
    fn after_experiment(&mut self, key: &Key, before: Option<&ExperimentRecord>, keys: &mut Vec<Key>) {
        keys.push(key.clone());
        let Some(slot) = self.experiments.get(&key.place()) else { return };
        let current = slot.current();
        let same = before.is_some_and(|before| {
            before.meta.uid == current.meta.uid
                && before.meta.owner == current.meta.owner
                && before.meta.deleting == current.meta.deleting
                && standing(&before.status) == standing(&current.status)
        });
        if let Some(owner) = current.meta.owner.as_ref().filter(|owner| owner.kind == "PipelineRun" && !same) {
            keys.push(Key::new(Kind::PipelineRun, &key.namespace, &owner.name));
        }
        let names_another = current.spec.get("from").is_some() || makers(&current.spec).next().is_some();
        let waits = current.status.template.is_none() && names_another && !current.status.phase.is_terminal();
        let recorded = recorded(&current.status);
        let reused = current.status.reused_from.is_some();
        for artifact in &current.status.artifacts {
            let at = (key.namespace.clone(), artifact.uri.clone());
            // Whoever made it is told, as long as it is there.
            if reused && self.producers.contains_key(&at) {
                continue;
            }
            self.producers.insert(at, Producer::of(&current, artifact));
        }
        self.note_identical(key, before, &current, same, keys);
        let is_source = current.status.phase.is_terminal();
        if is_source || current.status.attempt.is_some() {
            self.beginning.remove(&key.place());
        }
        let unfrozen = current.status.template.is_none();
        self.set_waiting(key, waits);
        if !unfrozen {
            self.errands.retain(key, |errand| !matches!(errand, Errand::ResolveImage(_)));
        }
        // A source that appears changes what its clones say; one that has ended lets them start.
        if is_source || unfrozen {
            let waiting = self.waiting.get(&key.namespace).into_iter().flatten();
            keys.extend(waiting.filter(|waiting| *waiting != key && self.may_wait_for(waiting, &key.name)).cloned());
        }
        self.tidy_pods(&key.place(), recorded);
        if recorded.is_some()
            && recorded == self.experiments.get(&key.place()).and_then(|slot| slot.current().status.attempt)
        {
            // A result that is recorded is not read again.
            self.errands.retain(key, |errand| !matches!(errand, Errand::ReadResult(_) | Errand::ReadRecord(_)));
        }
    }

    // By which digest it is found, and who waits for it under that or the one before.
    fn note_identical(
        &mut self,
        key: &Key,
        before: Option<&ExperimentRecord>,
        current: &ExperimentRecord,
        same: bool,
        keys: &mut Vec<Key>,
    ) {
        let place = key.place();
        let unknown = current.status.digest.is_none() && names::member_of(&current.meta).is_some();
        let producers = || self.producers_of(&key.namespace, &current.spec);
        let expected = if unknown { reuse::wanted(current, &producers()) } else { None };
        let was = before.and_then(|before| self.identical.digest(&place, before).map(str::to_owned));
        self.identical.set(&place, before, Some(current), expected);
        let is = self.identical.digest(&place, current).map(str::to_owned);
        let gone = was.filter(|was| Some(was) != is.as_ref());
        for digest in gone.iter().chain(is.iter().filter(|_| !same)) {
            keys.extend(self.waiting_for_identical(key, digest));
        }
    }

    // Another experiment that has the same artifact, since it took over the result of the one that made it.
    fn heir_of(&self, at: &(String, String), digest: &str) -> Option<Producer> {
        self.identical.results(&at.0, digest).find_map(|name| {
            let heir = self.experiments.get(&name)?.current();
            let artifact = heir.status.artifacts.iter().find(|artifact| artifact.uri == at.1)?;
            let (experiment, artifact, digest) = (name.1, artifact.name.clone(), artifact.digest.clone());
            Some(Producer { experiment, artifact, digest })
        })
    }

    // Those that wait for this one, or for another that does the same.
    fn waiting_for_identical(&self, key: &Key, digest: &str) -> Vec<Key> {
        let others = self.identical.waiting(&key.namespace, digest).filter(|(_, name)| *name != key.name);
        let wait = others.filter(|name| {
            let slot = self.experiments.get(name);
            slot.is_some_and(|slot| !slot.phase().is_terminal() && reuse::waits(&slot.current().status))
        });
        wait.map(|(namespace, name)| Key::new(Kind::Experiment, &namespace, &name)).collect()
    }

    fn note_uses(&mut self, key: &Key) {
        let uses = match key.kind {
            Kind::Experiment => {
                self.experiments.get(&key.place()).map(|slot| links::uses_of_experiment(&slot.stored()))
            }
            Kind::Pipeline => self.pipelines.get(&key.place()).map(|slot| links::uses_of_stages(&slot.stored().spec)),
            Kind::PipelineRun => {
                let run = self.runs.get(&key.place()).filter(|slot| !slot.phase().is_terminal());
                let run = run.map(Slot::stored);
                run.and_then(|run| run.status.pipeline_spec.as_ref().map(links::uses_of_stages))
            }
            Kind::Schedule => None,
        };
        self.uses.set(key, uses.unwrap_or_default());
    }

    /// Uris of an experiment's artifacts that others, which are not being deleted themselves, refer to.
    pub(super) fn referred(&self, record: &ExperimentRecord) -> BTreeSet<String> {
        let (namespace, own) = (&record.meta.namespace, &record.meta.name);
        let stays = |key: &&Key| {
            let is_own = key.kind == Kind::Experiment && key.name == *own;
            let going = match key.kind {
                Kind::Experiment => self.experiments.get(&key.place()).is_none_or(|slot| slot.head().deleting),
                Kind::Pipeline => self.pipelines.get(&key.place()).is_none_or(|slot| slot.head().deleting),
                Kind::PipelineRun => self.runs.get(&key.place()).is_none_or(|slot| slot.head().deleting),
                Kind::Schedule => true,
            };
            !going && !is_own
        };
        let named = |name: &str| self.uses.namers(namespace, name).any(|key| stays(&key));
        let artifacts = record.status.artifacts.iter();
        artifacts
            .filter(|artifact| named(&artifact.uri) || named(&artifact_of(own, &artifact.name)))
            .map(|artifact| artifact.uri.clone())
            .collect()
    }

    // Three hundred runs that begin at once must not all be woken by each other's stages.
    fn may_wait_for(&self, waiting: &Key, experiment: &str) -> bool {
        match waiting.kind {
            Kind::Experiment => {
                let slot = self.experiments.get(&waiting.place());
                slot.is_some_and(|slot| links::may_mean(&slot.stored().spec, experiment))
            }
            Kind::PipelineRun => {
                let run = self.runs.get(&waiting.place());
                let run = run.map(Slot::stored);
                let pipeline = run.as_ref().and_then(|run| run.spec.get("pipeline")?.as_str());
                let pipeline =
                    pipeline.and_then(|name| self.pipelines.get(&(waiting.namespace.clone(), name.to_owned())));
                pipeline.is_some_and(|slot| {
                    links::stages(&slot.stored().spec).any(|stage| links::may_mean(stage, experiment))
                })
            }
            Kind::Pipeline | Kind::Schedule => false,
        }
    }

    // A pod that is gone is remembered until its attempt's end is recorded.
    fn tidy_pods(&mut self, experiment: &Name, recorded: Option<u32>) {
        self.work.forget_pods(experiment, |pod| recorded.is_none_or(|recorded| pod.attempt > recorded));
    }

    fn set_waiting(&mut self, key: &Key, waits: bool) {
        if waits {
            self.waiting.entry(key.namespace.clone()).or_default().insert(key.clone());
        } else if let Some(waiting) = self.waiting.get_mut(&key.namespace) {
            waiting.remove(key);
            if waiting.is_empty() {
                self.waiting.remove(&key.namespace);
            }
        }
    }

    pub(super) fn apply_run(&mut self, record: RunRecord) -> Vec<Key> {
        let key = Key::new(Kind::PipelineRun, &record.meta.namespace, &record.meta.name);
        let terminal = record.status.phase.is_terminal();
        let waits = record.status.pipeline_spec.is_none() && !terminal;
        let status = Arc::clone(&record.status);
        let meta = record.meta.clone();
        let pipeline = record.spec.get("pipeline").and_then(|name| name.as_str()).unwrap_or_default().to_owned();
        let before = self.runs.get(&key.place()).map(|slot| position(&slot.current()));
        let now = position(&record);
        if before.as_ref().is_some_and(|before| before.0 != now.0) {
            self.confirmed.remove(&key);
            self.errands.forget(&key);
        }
        if !self.runs.apply(record) {
            return Vec::new();
        }
        self.runs_of.entry((key.namespace.clone(), pipeline.clone())).or_default().insert(key.name.clone());
        self.groups.note(&key.namespace, &key.name, &status);
        if let (Some(member), Some(owner)) = (names::member_of(&meta), &meta.owner) {
            self.nested.entry(owner.uid.clone()).or_default().insert(member, meta.name.clone());
        }
        if terminal {
            self.errands.forget(&key);
        } else if status.pipeline_spec.is_some() {
            self.errands.retain(&key, |errand| !matches!(errand, Errand::ResolveImage(_)));
        }
        let linked = if terminal { BTreeSet::new() } else { links::of_frozen(status.pipeline_spec.as_ref()) };
        let mut keys = self.links.set(&key, linked);
        self.set_waiting(&key, waits);
        self.note_uses(&key);
        keys.push(key.clone());
        if before != Some(now) {
            keys.extend(self.around_run(&key));
        }
        keys
    }

    fn publish_run(&mut self, key: &Key, uid: &str, status: &PipelineRunStatus, urgent: bool) -> Vec<Key> {
        let place = key.place();
        let before = self.runs.get(&place).map(|slot| position(&slot.current()));
        let changed = self.runs.decide(&place, uid, status, urgent);
        let now = self.runs.get(&place).map(|slot| position(&slot.current()));
        if changed {
            self.groups.note(&key.namespace, &key.name, status);
        }
        let mut keys = if changed && before != now { self.around_run(key) } else { Vec::new() };
        if changed && status.phase.is_terminal() {
            // What it was made from may go now, and it waits for nothing. The answer to the write will be an echo.
            keys.extend(self.links.set(key, BTreeSet::new()));
            self.set_waiting(key, false);
        }
        keys
    }

    // Whom a change of a run concerns: its pipeline, and runs of the same pipeline that wait for their turn.
    pub(super) fn around_run(&self, key: &Key) -> Vec<Key> {
        let Some(slot) = self.runs.get(&key.place()) else { return Vec::new() };
        let run = slot.current();
        let pipeline = run.spec.get("pipeline").and_then(|name| name.as_str()).unwrap_or_default();
        let mut keys = vec![Key::new(Kind::Pipeline, &key.namespace, pipeline)];
        keys.extend(self.groups.others(&key.namespace, &run));
        // The run that it is a stage of.
        let around = run.meta.owner.as_ref().filter(|owner| owner.kind == "PipelineRun");
        keys.extend(around.map(|owner| Key::new(Kind::PipelineRun, &key.namespace, &owner.name)));
        keys.extend(self.unfinished_siblings(&key.namespace, pipeline, &key.name));
        let schedule = run.meta.label(labels::SCHEDULE);
        keys.extend(schedule.map(|schedule| Key::new(Kind::Schedule, &key.namespace, schedule)));
        keys
    }

    fn unfinished_siblings(&self, namespace: &str, pipeline: &str, except: &str) -> Vec<Key> {
        let names = self.runs_of.get(&(namespace.to_owned(), pipeline.to_owned())).into_iter().flatten();
        names
            .filter(|name| *name != except)
            .filter(|name| {
                let slot = self.runs.get(&(namespace.to_owned(), (*name).clone()));
                slot.is_some_and(|slot| !slot.phase().is_terminal())
            })
            .map(|name| Key::new(Kind::PipelineRun, namespace, name))
            .collect()
    }

    pub(super) fn apply_pipeline(&mut self, record: PipelineRecord) -> Vec<Key> {
        let key = Key::new(Kind::Pipeline, &record.meta.namespace, &record.meta.name);
        let spec = Arc::clone(&record.spec);
        if !self.pipelines.apply(record) {
            return Vec::new();
        }
        let mut keys = self.links.set(&key, links::of_pipeline(&spec));
        keys.extend(self.unfinished_siblings(&key.namespace, &key.name, ""));
        keys.extend(self.schedules_of(&key));
        self.note_uses(&key);
        keys.push(key);
        keys
    }

    // An experiment that waits for its store waits for this one.
    pub(super) fn apply_store(&mut self, name: Name, store: Option<StoreAccess>) -> Vec<Key> {
        let namespace = name.0.clone();
        match store {
            Some(store) => drop(self.stores.insert(name, store)),
            None => drop(self.stores.remove(&name)),
        }
        let alive = self.experiments.iter().filter(|(name, slot)| name.0 == namespace && !slot.phase().is_terminal());
        let waits = alive.filter(|(_, slot)| slot.current().status.reason == Some(Reason::StoreNotFound));
        waits.map(|((_, name), _)| Key::new(Kind::Experiment, &namespace, name)).collect()
    }

    pub(super) fn apply_job(&mut self, job: JobRecord) -> Vec<Key> {
        let key = Key::new(Kind::Experiment, &job.namespace, &job.experiment);
        if self.work.apply_job(job) { vec![key] } else { Vec::new() }
    }

    pub(super) fn apply_pod(&mut self, pod: PodRecord) -> Vec<Key> {
        let key = Key::new(Kind::Experiment, &pod.namespace, &pod.experiment);
        let gone = pod.gone;
        if !self.work.apply_pod(pod) {
            return Vec::new();
        }
        if gone {
            let slot = self.experiments.get(&key.place());
            let recorded = slot.map_or(Some(u32::MAX), |slot| recorded(&slot.current().status));
            self.tidy_pods(&key.place(), recorded);
        }
        vec![key]
    }

    pub(super) fn remove(&mut self, key: &Key) -> Vec<Key> {
        let place = key.place();
        self.confirmed.remove(key);
        self.refusals.remove(key);
        self.beginning.remove(&place);
        self.errands.forget(key);
        self.uses.set(key, BTreeSet::new());
        let mut keys = self.links.set(key, BTreeSet::new());
        self.set_waiting(key, false);
        match key.kind {
            Kind::Experiment => {
                let current = self.experiments.get(&place).map(Slot::current);
                let digest = current.as_deref().and_then(|current| self.identical.digest(&place, current));
                let digest = digest.map(str::to_owned);
                if let Some(record) = self.experiments.remove(&place) {
                    keys.extend(self.unlink_stage(&record.meta));
                    self.identical.set(&place, current.as_deref(), None, None);
                    if let Some(digest) = &digest {
                        keys.extend(self.waiting_for_identical(key, digest));
                    }
                    for artifact in &record.status.artifacts {
                        let at = (key.namespace.clone(), artifact.uri.clone());
                        if self.producers.get(&at).is_some_and(|producer| producer.experiment == key.name) {
                            self.producers.remove(&at);
                            let heir = digest.as_ref().and_then(|digest| self.heir_of(&at, digest));
                            heir.into_iter().for_each(|heir| drop(self.producers.insert(at.clone(), heir)));
                        }
                    }
                }
                self.tidy_pods(&place, Some(u32::MAX));
            }
            Kind::PipelineRun => {
                keys.extend(self.around_run(key));
                if let Some(record) = self.runs.remove(&place) {
                    self.stage_ends.remove(&record.meta.uid);
                    unlink(&mut self.nested, &record.meta);
                    self.groups.forget(&key.namespace, &key.name);
                    let pipeline = record.spec.get("pipeline").and_then(|name| name.as_str()).unwrap_or_default();
                    let of = (key.namespace.clone(), pipeline.to_owned());
                    if let Some(runs) = self.runs_of.get_mut(&of) {
                        runs.remove(&key.name);
                        if runs.is_empty() {
                            self.runs_of.remove(&of);
                        }
                    }
                }
            }
            Kind::Pipeline => {
                self.pipelines.remove(&place);
                keys.extend(self.unfinished_siblings(&key.namespace, &key.name, ""));
                keys.extend(self.schedules_of(key));
            }
            Kind::Schedule => {
                let gone = self.schedules.remove(&place);
                gone.iter().for_each(|gone| self.unlink_schedule(gone));
            }
        }
        keys
    }

    // Takes an experiment out of its run's stages; returns the run.
    fn unlink_stage(&mut self, meta: &Meta) -> Option<Key> {
        let owner = unlink(&mut self.stages, meta)?;
        Some(Key::new(Kind::PipelineRun, &meta.namespace, &owner.name))
    }
}

// Takes what stands for a stage of a run out of what is known of that run, which it returns.
fn unlink<'m>(children: &mut HashMap<String, BTreeMap<Member, String>>, meta: &'m Meta) -> Option<&'m Owner> {
    let owner = meta.owner.as_ref().filter(|owner| owner.kind == "PipelineRun")?;
    if let Some(members) = children.get_mut(&owner.uid) {
        names::member_of(meta).iter().for_each(|member| drop(members.remove(member)));
        if members.is_empty() {
            children.remove(&owner.uid);
        }
    }
    Some(owner)
}
