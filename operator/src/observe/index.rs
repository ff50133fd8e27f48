//! The index: every record the operator knows, linked, behind one lock that is never held across an await.
//!
//! A change wakes every object that it touches, before and after the change.

use cultivar_core::decide::experiment::Refusal;
use cultivar_core::decide::experiment::queueing::bearer;
use cultivar_core::decide::queue::holds;
use cultivar_core::domain::{
    Errand, ExperimentRecord, JobRecord, Member, PipelineRecord, PodRecord, RunRecord, ScheduleRecord, StoreAccess,
};
use cultivar_crds::Phase;
use jiff::Timestamp;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::convert;
use super::raw::Raw;
use super::state::{State, Stored};
use super::store::{Arrival, Name, Turn};
use crate::control::wakeups::Wakeups;
use crate::queues::{Held, Queues};
use crate::telemetry::metrics;

/// A few milliseconds of work.
const PACKED_AT_ONCE: usize = 100;

/// A kind with a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Experiment,
    PipelineRun,
    Pipeline,
    Schedule,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Experiment, Self::PipelineRun, Self::Pipeline, Self::Schedule];

    /// The kind as the metrics call it.
    pub const fn measured(self) -> metrics::Kind {
        match self {
            Self::Experiment => metrics::Kind::Experiment,
            Self::PipelineRun => metrics::Kind::PipelineRun,
            Self::Pipeline => metrics::Kind::Pipeline,
            Self::Schedule => metrics::Kind::Schedule,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Experiment => "Experiment",
            Self::PipelineRun => "PipelineRun",
            Self::Pipeline => "Pipeline",
            Self::Schedule => "Schedule",
        }
    }
}

/// An object to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(super) fn place(&self) -> Name {
        (self.namespace.clone(), self.name.clone())
    }
}

/// What the operator gives to pods, from its own settings.
#[derive(Clone, Debug, Default)]
pub struct DataPlane {
    /// Image of the runner; nothing: programs run as they are.
    pub runner_image: Option<String>,
    /// The operator's own store.
    pub store: Option<StoreAccess>,
    /// Whether registries are asked what tags stand for.
    pub resolve_images: bool,
}

/// What the operator knows.
pub struct Index {
    state: Mutex<State>,
    queue: Arc<Wakeups>,
    pub(super) queues: Arc<Queues>,
    pub(super) data: DataPlane,
}

impl Index {
    pub fn new(queue: Arc<Wakeups>, queues: Arc<Queues>, data: DataPlane) -> Self {
        Self { state: Mutex::default(), queue, queues, data }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves records, each whole: the next reader goes on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if key.kind == Kind::Experiment {
                self.queues.touch(&key.namespace, &key.name);
            }
            self.queue.wake(key);
        }
    }

    /// Wakes every object: after this replica has become the leader.
    pub fn wake_all(&self) {
        self.queue.open();
        let keys: Vec<Key> = {
            let mut state = self.lock();
            state.confirmed.clear();
            state.refusals.clear();
            state.groups.forget_places();
            state.beginning.clear();
            // Another leader may have gone on from what this one had decided last.
            for kind in Kind::ALL {
                state.of(kind).forget_all();
            }
            let experiments = state.experiments.iter().map(|(name, _)| (Kind::Experiment, name));
            let runs = state.runs.iter().map(|(name, _)| (Kind::PipelineRun, name));
            let pipelines = state.pipelines.iter().map(|(name, _)| (Kind::Pipeline, name));
            let schedules = state.schedules.iter().map(|(name, _)| (Kind::Schedule, name));
            let all = experiments.chain(runs).chain(pipelines).chain(schedules);
            all.map(|(kind, (namespace, name))| Key::new(kind, namespace, name)).collect()
        };
        self.wake(keys);
    }

    /// Takes in an object of ours, watched or answered.
    ///
    /// # Errors
    /// It cannot be read: see [`convert::record`].
    pub fn take_in(&self, kind: Kind, object: Raw) -> Result<(), serde_json::Error> {
        let key = convert::key(kind, &object.metadata);
        let arrival = self.lock().of(kind).arrival(&key.place(), &object.metadata);
        let spec = match arrival {
            Arrival::Stale => {
                self.note_seen(&key);
                return Ok(());
            }
            Arrival::SameSpec(spec) => Some(spec),
            Arrival::New => None,
        };
        match kind {
            Kind::Experiment => self.apply_experiment(convert::done(object, spec)?),
            Kind::PipelineRun => self.apply_run(convert::done(object, spec)?),
            Kind::Pipeline => self.apply_pipeline(convert::record(object, spec)?),
            Kind::Schedule => self.apply_schedule(convert::record(object, spec)?),
        }
        Ok(())
    }

    pub fn apply_experiment(&self, record: ExperimentRecord) {
        let keys = self.lock().apply_experiment(record);
        self.wake(keys);
    }

    pub fn apply_run(&self, record: RunRecord) {
        let keys = self.lock().apply_run(record);
        self.wake(keys);
    }

    pub fn apply_pipeline(&self, record: PipelineRecord) {
        let keys = self.lock().apply_pipeline(record);
        self.wake(keys);
    }

    pub fn apply_schedule(&self, record: ScheduleRecord) {
        let keys = self.lock().apply_schedule(record);
        self.wake(keys);
    }

    pub fn apply_job(&self, job: JobRecord) {
        let keys = self.lock().apply_job(job);
        self.wake(keys);
    }

    pub fn apply_pod(&self, pod: PodRecord) {
        let keys = self.lock().apply_pod(pod);
        self.wake(keys);
    }

    pub fn remove(&self, key: &Key) {
        let keys = self.lock().remove(key);
        self.wake(keys);
    }

    pub fn remove_job(&self, experiment: &Name, job: &str) {
        self.lock().work.remove_job(experiment, job);
        self.wake([Key::new(Kind::Experiment, &experiment.0, &experiment.1)]);
    }

    /// Publishes a decided status before it is stored, so that what depends on it goes on meanwhile; urgent is what should be
    /// stored without waiting for more.
    pub fn publish<S: Stored>(&self, key: &Key, uid: &str, status: &S, urgent: bool) {
        let keys = S::publish(&mut self.lock(), key, uid, status, urgent);
        self.wake(keys);
    }

    /// Forgets a decided status whose write failed.
    pub fn forget(&self, key: &Key) {
        self.lock().of(key.kind).forget(&key.place());
    }

    /// When a decided status may be stored: see [`Tracked::due`].
    pub fn due(&self, key: &Key, settle: &dyn Fn(Instant, bool) -> Instant) -> Option<Instant> {
        self.lock().of(key.kind).due(&key.place(), settle)
    }

    /// When news of what only waits may be stored: see [`Tracked::later`].
    pub fn later(&self, key: &Key, turn: &dyn Fn() -> Instant) -> Option<Instant> {
        self.lock().of(key.kind).later(&key.place(), turn)
    }

    /// Begins a status write, unless one is under way; that one wakes the key when it ends.
    pub fn begin_write(&self, key: &Key) -> bool {
        self.lock().of(key.kind).begin_write(&key.place())
    }

    /// Asks for a turn to write a decided status: see [`Tracked::ask_turn`].
    pub fn ask_turn(&self, key: &Key, version: &str, urgent: bool) -> bool {
        self.lock().of(key.kind).ask_turn(&key.place(), version, urgent)
    }

    /// Takes the turn that was asked for: see [`super::store::Store::take_turn`].
    pub fn take_turn<S: Stored>(&self, key: &Key) -> Turn<S> {
        S::store(&mut self.lock()).take_turn(&key.place())
    }

    /// A status write has ended; nothing was written if it failed. True when there is more to store.
    pub fn end_write<S: Stored>(&self, key: &Key, written: Option<&S>) -> bool {
        S::store(&mut self.lock()).end_write(&key.place(), written)
    }

    /// Experiments that have Jobs or pods.
    pub fn experiments_with_jobs(&self) -> HashSet<Name> {
        self.lock().work.experiments().cloned().collect()
    }

    /// Whether an experiment exists, and what its Jobs and pods hold of queues.
    pub fn held(&self, key: &Key) -> (bool, Held) {
        let state = self.lock();
        let (jobs, pods) = (state.work.jobs(&key.place()), state.work.pods(&key.place()));
        let slot = state.experiments.get(&key.place());
        let bearer = slot.map(|slot| bearer(&slot.current())).unwrap_or_default();
        (slot.is_some(), Held { bearer, holds: holds(jobs, pods) })
    }

    /// Asks for a pass over an object.
    pub fn look_at(&self, key: &Key) {
        self.queue.wake(key.clone());
    }

    /// Asks for a pass over an object before the others.
    pub fn look_at_first(&self, key: &Key) {
        self.queue.wake_first(key.clone());
    }

    /// The API server itself says that an attempt has neither Job nor pods.
    pub fn confirm_attempt(&self, key: &Key, number: u32) {
        self.lock().confirmed.entry(key.clone()).or_default().attempt = Some(number);
        self.queue.wake(key.clone());
    }

    /// The API server itself says that a stage's experiment is gone.
    pub fn confirm_stage_gone(&self, key: &Key, member: &Member) {
        self.lock().confirmed.entry(key.clone()).or_default().stages.insert(member.clone());
        self.queue.wake(key.clone());
    }

    /// The API server will not take a stage's experiment.
    pub fn refuse_stage(&self, key: &Key, member: &Member, message: String) {
        self.lock().confirmed.entry(key.clone()).or_default().refused_stages.insert(member.clone(), message);
        self.queue.wake(key.clone());
    }

    /// The next attempt's Job cannot be made.
    pub fn refuse_attempt(&self, key: &Key, refusal: Refusal) {
        let mut state = self.lock();
        state.beginning.remove(&key.place());
        state.refusals.insert(key.clone(), refusal);
        drop(state);
        self.queue.wake(key.clone());
    }

    /// Takes a place in a run's concurrency group, unless that is full: two runs may have decided at the same time.
    pub fn enter_group(&self, key: &Key, group: &str, limit: u32) -> bool {
        let mut state = self.lock();
        let Some(slot) = state.runs.get(&key.place()) else { return false };
        let run = slot.current();
        let begun = state.group_of(&key.namespace, &run).iter().filter(|other| other.has_begun).count();
        if begun >= limit as usize {
            return false;
        }
        state.groups.take_place(&key.namespace, group, &key.name);
        true
    }

    /// Begins the work of an experiment, unless an identical one has begun: two may have decided at the same time.
    pub fn begin_work(&self, key: &Key) -> bool {
        let mut state = self.lock();
        let begins = state.is_first(&key.place());
        if begins {
            state.beginning.insert(key.place());
        }
        begins
    }

    /// Begins an errand; false while it is under way.
    pub fn begin_errand(&self, key: &Key, errand: &Errand) -> bool {
        self.lock().errands.begin(key, errand)
    }

    /// An errand has ended.
    pub fn end_errand(&self, key: &Key, errand: Errand, result: Result<String, String>) {
        if self.lock().errands.end(key, errand, result, Timestamp::now()) {
            self.queue.wake(key.clone());
        }
    }

    /// The errands under way were broken off: this replica leads no more.
    pub fn errands_broken_off(&self) {
        self.lock().errands.broken_off();
    }

    /// Forgets why the last Job could not be made.
    pub fn clear_refusal(&self, key: &Key) {
        self.lock().refusals.remove(key);
    }

    /// When the latest stage of a run ended; asked once per stage that starts.
    pub fn stage_end(&self, run_uid: &str) -> Option<Instant> {
        self.lock().stage_ends.get(run_uid).copied()
    }

    /// Packs what has become history: from time to time, and a little each time, since all else waits meanwhile. True when
    /// there may be more.
    pub fn pack(&self) -> bool {
        let experiments = self.lock().experiments.pack(PACKED_AT_ONCE);
        let runs = self.lock().runs.pack(PACKED_AT_ONCE);
        experiments.max(runs) == PACKED_AT_ONCE
    }

    /// Phases of the live objects that have one, by kind, for the metrics.
    pub fn phases(&self) -> [(Kind, Vec<Phase>); 2] {
        let state = self.lock();
        [
            (Kind::Experiment, state.experiments.iter().map(|(_, slot)| slot.phase()).collect()),
            (Kind::PipelineRun, state.runs.iter().map(|(_, slot)| slot.phase()).collect()),
        ]
    }

    /// A list of a kind begins.
    pub fn begin_list(&self, kind: Kind, within: Option<&str>) {
        self.lock().of(kind).begin(within);
    }

    /// A list names an object that cannot be read: it is not gone.
    pub fn note_seen(&self, key: &Key) {
        self.lock().of(key.kind).note_seen(&key.place());
    }

    /// The API server says that this object is gone; a namesake stays.
    pub fn remove_if(&self, key: &Key, uid: &str) {
        let known = self.lock().of(key.kind).knows(&key.place(), uid);
        if known {
            self.remove(key);
        }
    }

    /// A list of a kind is complete: what it did not name is gone.
    pub fn finish_list(&self, kind: Kind, within: Option<&str>) {
        let gone = self.lock().of(kind).finish(within);
        for (namespace, name) in gone {
            self.remove(&Key { kind, namespace, name });
        }
    }

    /// An ArtifactStore as it is now; nothing: it is gone.
    pub fn apply_store(&self, name: Name, store: Option<StoreAccess>) {
        let keys = self.lock().apply_store(name, store);
        self.wake(keys);
    }

    /// ArtifactStores known in a namespace or everywhere.
    pub fn store_names(&self, within: Option<&str>) -> HashSet<Name> {
        let state = self.lock();
        state.stores.keys().filter(|name| within.is_none_or(|namespace| name.0 == namespace)).cloned().collect()
    }

    /// Jobs known in a namespace or everywhere: a list that does not name one means it is gone.
    pub fn job_names(&self, within: Option<&str>) -> HashSet<(Name, String)> {
        let state = self.lock();
        let here = state.work.all_jobs().filter(|(name, _)| within.is_none_or(|namespace| name.0 == namespace));
        here.map(|(name, job)| (name.clone(), job.name.clone())).collect()
    }

    /// Pods known that are not marked as gone.
    pub fn live_pods(&self, within: Option<&str>) -> Vec<Arc<PodRecord>> {
        let state = self.lock();
        let all = state.work.all_pods();
        all.filter(|pod| !pod.gone && within.is_none_or(|namespace| pod.namespace == namespace)).cloned().collect()
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
